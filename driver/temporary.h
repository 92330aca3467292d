/* SPDX-License-Identifier: MIT
 *
 * Files and folders that are not to stay behind, not even when a signal ends the program.
 * Stands alone, as flags.h does.
 */
#ifndef MPQC_DRIVER_TEMPORARY_H
#define MPQC_DRIVER_TEMPORARY_H

#include <stdbool.h>

/* So many at once; what is more is not looked after. */
#define MPQC_TEMPORARY_MAX 64
#define MPQC_TEMPORARY_PATH 256

/* From now on what is listed is removed when the program ends: by exit, or by SIGINT, SIGTERM,
 * SIGHUP, SIGQUIT or SIGPIPE where these are not ignored.  Call once. */
void mpqc_temporary_guard(void);

/* Lists PATH, which is about to be made, or takes it from the list: it is gone, or has its
 * final name.  What mpqc_cx.temporary wants. */
void mpqc_temporary(const char *path, bool begins);

/* A new folder in $TMPDIR (/tmp where that is not set, or too long), listed; false with errno.
 * `path` has MPQC_TEMPORARY_PATH bytes, and is filled in either case. */
bool mpqc_temporary_folder(char *path);
/* Removes a file, or a folder and the files in it, and takes it from the list. */
void mpqc_temporary_remove(const char *path);

#endif
