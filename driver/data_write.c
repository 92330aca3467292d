/* SPDX-License-Identifier: MIT
 *
 * Writes .npy files (NumPy's NEP 1, version 1.0), atomically.
 */
#include "driver/data_internal.h"
#include "driver/temporary.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct mpqc_npy_writer {
    FILE *file;
    char *path, *temporary; /* temporary NULL: written to path itself */
    size_t left;            /* bytes that are still to come */
};

static const char *descr(uint32_t element)
{
    switch (element) {
    case MPQC_ELEM_F32: return "<f4";
    case MPQC_ELEM_U8: return "|u1";
    case MPQC_ELEM_I8: return "|i1";
    case MPQC_ELEM_I16: return "<i2";
    case MPQC_ELEM_I32: return "<i4";
    case MPQC_ELEM_I64: return "<i8";
    default: return NULL;
    }
}

static int write_header(struct mpqc_npy_writer *w, const char *type, uint32_t rank,
                        const int64_t *dims)
{
    char text[512];
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                     type);
    for (uint32_t i = 0; i < rank; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%lld%s", (long long)dims[i],
                      rank == 1 ? "," : i + 1 < rank ? ", " : "");
    n += snprintf(text + n, sizeof text - (size_t)n, "), }");
    /* The elements begin at a multiple of 64; the dictionary ends with a newline. */
    int total = (10 + n + 1 + 63) / 64 * 64;
    while (n < total - 11) text[n++] = ' ';
    text[n++] = '\n';
    uint8_t magic[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)n, (uint8_t)(n >> 8)};
    return fwrite(magic, 10, 1, w->file) == 1 && fwrite(text, (size_t)n, 1, w->file) == 1 ? 0
                                                                                         : -1;
}

static void writer_free(struct mpqc_npy_writer *w)
{
    free(w->path);
    free(w->temporary);
    free(w);
}

static int open_target(struct mpqc_npy_writer *w, struct mpqc_data_error *err)
{
    struct stat st;
    if (stat(w->path, &st) == 0 && !S_ISREG(st.st_mode)) {
        /* Renaming over a device or a pipe would replace it. */
        w->file = fopen(w->path, "wbe");
    } else {
        size_t room = strlen(w->path) + 32;
        w->temporary = malloc(room);
        if (!w->temporary) return mpqc_data_oom(err);
        snprintf(w->temporary, room, "%s.tmp.%ld", w->path, (long)getpid());
        mpqc_temporary(w->temporary, true);
        w->file = fopen(w->temporary, "wbe");
    }
    if (w->file) return 0;
    if (w->temporary) mpqc_temporary(w->temporary, false);
    return mpqc_data_fail(err, "%s: cannot be written: %s", w->path, strerror(errno));
}

int mpqc_npy_create(const char *path, uint32_t element, uint32_t rank, const int64_t *dims,
                    struct mpqc_npy_writer **out, struct mpqc_data_error *err)
{
    *out = NULL;
    const char *type = descr(element);
    size_t bytes = element == MPQC_ELEM_F32 || element == MPQC_ELEM_I32 ? 4
                   : element == MPQC_ELEM_I64                           ? 8
                   : element == MPQC_ELEM_I16                           ? 2
                                                                        : 1;
    for (uint32_t i = 0; i < rank; i++)
        if (dims[i] < 0 || __builtin_mul_overflow(bytes, (size_t)dims[i], &bytes)) type = NULL;
    if (!type || rank > MPQC_DATA_MAX_RANK)
        return mpqc_data_fail(err, "%s: an array of this type or shape cannot be written", path);
    struct mpqc_npy_writer *w = calloc(1, sizeof *w);
    if (!w) return mpqc_data_oom(err);
    w->left = bytes;
    w->path = strdup(path);
    if (!w->path || open_target(w, err)) {
        if (!w->path) mpqc_data_oom(err);
        writer_free(w);
        return -1;
    }
    *out = w;
    if (write_header(w, type, rank, dims) == 0) return 0;
    mpqc_data_fail(err, "%s: cannot be written: %s", path, strerror(errno));
    struct mpqc_data_error ignored;
    mpqc_npy_close(w, 0, &ignored);
    *out = NULL;
    return -1;
}

int mpqc_npy_append(struct mpqc_npy_writer *w, const void *data, size_t bytes,
                    struct mpqc_data_error *err)
{
    if (bytes > w->left)
        return mpqc_data_fail(err, "%s: more data than its shape has", w->path);
    w->left -= bytes;
    if (bytes == 0 || fwrite(data, bytes, 1, w->file) == 1) return 0;
    return mpqc_data_fail(err, "%s: cannot be written: %s", w->path, strerror(errno));
}

int mpqc_npy_close(struct mpqc_npy_writer *w, int commit, struct mpqc_data_error *err)
{
    if (!w) return 0;
    int rc = 0;
    /* A full disk may show only now. */
    int bad = ferror(w->file);
    errno = 0;
    if (fclose(w->file)) bad = 1;
    if (commit && bad)
        rc = mpqc_data_fail(err, "%s: cannot be written: %s", w->path,
                            errno ? strerror(errno) : "write error");
    else if (commit && w->left)
        rc = mpqc_data_fail(err, "%s: %zu bytes are missing", w->path, w->left);
    if (w->temporary && (!commit || rc)) unlink(w->temporary);
    if (w->temporary && commit && rc == 0 && rename(w->temporary, w->path)) {
        rc = mpqc_data_fail(err, "%s: cannot be written: %s", w->path, strerror(errno));
        unlink(w->temporary);
    }
    if (w->temporary) mpqc_temporary(w->temporary, false);
    writer_free(w);
    return rc;
}
