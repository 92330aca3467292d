/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Bytes -> files.  They are written beside their final name and renamed, so there is never a
 * partial output; a path that exists and is no regular file (a device, a pipe) is written
 * directly instead.
 */
#include "ir/base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void mpqc_cx_temporary(struct mpqc_cx *cx, const char *path, bool begins)
{
    if (cx->temporary) cx->temporary(path, begins);
}

/* 0 or errno. */
static int write_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t w = write(fd, data, n);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return errno;
        data += w;
        n -= (size_t)w;
    }
    return 0;
}

static int write_to(const char *path, int flags, unsigned mode, const void *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, mode);
    if (fd < 0) return errno;
    int err = write_all(fd, data, n);
    if (close(fd) != 0 && err == 0) err = errno;
    return err;
}

static int write_and_rename(const char *tmp, const char *path, unsigned mode, const void *data,
                            size_t n)
{
    int err = write_to(tmp, O_CREAT | O_TRUNC, mode, data, n);
    if (err == 0 && rename(tmp, path) != 0) err = errno;
    if (err != 0) unlink(tmp);
    return err;
}

static bool is_special(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

mpqc_status mpqc_file_write(struct mpqc_cx *cx, const char *path, unsigned mode, const void *data,
                            size_t n)
{
    struct mpqc_where where = {.file = path, .offset = -1};
    int err;
    if (is_special(path)) {
        err = write_to(path, 0, mode, data, n);
    } else {
        struct mpqc_buf tmp;
        mpqc_buf_init(&tmp);
        mpqc_buf_printf(&tmp, "%s.tmp.%ld", path, (long)getpid());
        if (tmp.failed) {
            mpqc_buf_release(&tmp);
            return MPQC_OOM(cx);
        }
        mpqc_cx_temporary(cx, tmp.data, true);
        err = write_and_rename(tmp.data, path, mode, data, n);
        mpqc_cx_temporary(cx, tmp.data, false);
        mpqc_buf_release(&tmp);
    }
    return err ? MPQC_FAIL(cx, IO, where, "cannot be written: %s", strerror(err)) : MPQC_OK;
}
