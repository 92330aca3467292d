/* SPDX-License-Identifier: MIT
 *
 * Command lines: -x=v, -x v, --x=v, --x v; one table of flags per program.
 * Stands alone, so that mpqc-run can be built for any target.
 *
 * To add a flag: one row in the program's table and the handler that it names.
 */
#ifndef MPQC_DRIVER_FLAGS_H
#define MPQC_DRIVER_FLAGS_H

#include <stddef.h>
#include <stdint.h>

#define MPQC_FLAG_ERROR 512

/* A handler stores the value and returns 0, or writes one sentence to err (size
 * MPQC_FLAG_ERROR) and returns -1.  `flag` is the row's name, by which the sentence names
 * what the user wrote: rows may share a handler.  `value` is NULL for a flag without one; it
 * lives as long as argv. */
typedef int (*mpqc_flag_fn)(void *options, const char *flag, const char *value, char *err);
#define MPQC_FLAG_UNUSED __attribute__((unused))
/* The head of a handler; no handler needs all of these. */
#define MPQC_FLAG_HANDLER(name)                                                                   \
    int name(MPQC_FLAG_UNUSED void *options, MPQC_FLAG_UNUSED const char *flag,                   \
             MPQC_FLAG_UNUSED const char *value, MPQC_FLAG_UNUSED char *err)

struct mpqc_flag {
    const char *name;    /* without dashes; NULL: the row is a heading of the help */
    const char *metavar; /* NULL: takes no value */
    mpqc_flag_fn set;
    const char *help;    /* one sentence; the help wraps it */
};
#define MPQC_FLAG_HEADING(text) {NULL, NULL, NULL, text}

/* Walks argv[1..]; arguments that are no flags go to `positional`, with NULL for the flag.  An
 * unknown flag is an error that names the nearest known one.  "--" ends the flags.  Returns 0,
 * or -1 with err filled. */
int mpqc_flags_parse(const struct mpqc_flag *table, size_t n, int argc, char **argv,
                     void *options, mpqc_flag_fn positional, char *err);
/* Headings, and two columns "  -name=METAVAR   help" of at most 100 characters. */
void mpqc_flags_help(const struct mpqc_flag *table, size_t n);

/* The candidate nearest to `text` by edit distance, or NULL when none is near.
 * next(user, i) gives the i-th candidate, NULL at the end. */
const char *mpqc_nearest(const char *text, const char *(*next)(const void *user, size_t i),
                         const void *user);

/* Whole-string numbers: 0, or -1 with one sentence that names the flag. */
int mpqc_flag_int(const char *flag, const char *value, int64_t lo, int64_t hi, int64_t *out,
                  char *err);
int mpqc_flag_real(const char *flag, const char *value, double *out, char *err);
/* "-flag=value is not known; it is one of ..."; returns -1. */
int mpqc_flag_refuse(const char *flag, const char *value, const char *known, char *err);

/* "[name:]path"; a colon belongs to the path when a file of that whole name exists. */
struct mpqc_named_path {
    char name[128]; /* empty: none was given */
    const char *path;
};
/* Appends one to the n of list, at most `most`.  What the name is of, for the message. */
int mpqc_flag_path(const char *flag, const char *value, const char *what,
                   struct mpqc_named_path *list, uint32_t *n, uint32_t most, char *err);

#endif
