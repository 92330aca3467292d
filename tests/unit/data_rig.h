/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * For tests of sample files: files under construction, read back, refused, and damaged.
 * DATA_FOLDER is where a program's files go; tests may run side by side.
 */
#ifndef MPQC_TESTS_DATA_RIG_H
#define MPQC_TESTS_DATA_RIG_H

#include "driver/data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A file under construction. */
struct bytes {
    unsigned char at[1 << 16];
    size_t n;
};

static inline void add(struct bytes *b, const void *p, size_t n)
{
    assert_true(b->n + n <= sizeof b->at);
    if (n) memcpy(b->at + b->n, p, n);
    b->n += n;
}

static inline void add_le(struct bytes *b, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++, v >>= 8) add(b, (unsigned char[]){(unsigned char)v}, 1);
}

static const char *path_of(const char *name)
{
    static char path[8][256];
    static unsigned turn;
    char *p = path[turn++ % 8];
    snprintf(p, 256, DATA_FOLDER "/%s", name);
    return p;
}

static const char *save(const char *name, const void *data, size_t n)
{
    const char *path = path_of(name);
    unlink(path); /* a new file: truncating one makes some file systems wait for the disk */
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (n) assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

static inline void make_npy(struct bytes *b, int version, const char *dict, const void *data, size_t n)
{
    b->n = 0;
    size_t len = strlen(dict);
    add(b, "\x93NUMPY", 6);
    add_le(b, (uint64_t)version, 2);
    add_le(b, len, version == 1 ? 2 : 4);
    add(b, dict, len);
    add(b, data, n);
}

static inline struct mpqc_data *opened(const char *path)
{
    struct mpqc_data *d;
    struct mpqc_data_error err;
    if (mpqc_data_open(path, 0, NULL, &d, &err)) fail_msg("%s", err.text);
    return d;
}

/* Opening fails, with the file's name and `pattern` in the sentence. */
static inline void refused(const char *path, const char *pattern)
{
    struct mpqc_data *d;
    struct mpqc_data_error err;
    assert_int_equal(mpqc_data_open(path, 0, NULL, &d, &err), -1);
    assert_null(d);
    if (!strstr(err.text, pattern)) fail_msg("'%s' is not in: %s", pattern, err.text);
    if (strncmp(err.text, path, strlen(path)) != 0) fail_msg("no file name: %s", err.text);
    assert_null(strchr(err.text, '\n'));
}

/* Sample 0 of the only array, as an input of n elements. */
static inline void assert_sample(const struct mpqc_data *d, const float *want, int64_t n)
{
    float got[64];
    struct mpqc_data_error err;
    uint64_t samples;
    const struct mpqc_array *a = mpqc_data_at(d, 0);
    if (mpqc_array_check(a, "x", 1, &n, NULL, &samples, &err)) fail_msg("%s", err.text);
    if (mpqc_array_sample(a, 1, &n, NULL, 0, got, &err)) fail_msg("%s", err.text);
    assert_memory_equal(got, want, (size_t)n * sizeof *got);
}

/* Reads a file back, whole. */
static inline size_t slurp(const char *path, unsigned char *to, size_t room)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(to, 1, room, f);
    fclose(f);
    return n;
}

/* Reads everything that an array claims to have, so that a sanitizer sees a lie. */
static inline void touch(const char *path)
{
    struct mpqc_data *d;
    struct mpqc_data_error err = {""};
    if (mpqc_data_open(path, 0, NULL, &d, &err)) {
        assert_true(err.text[0] != '\0');
        return;
    }
    unsigned sum = 0;
    for (uint32_t i = 0; i < mpqc_data_count(d); i++) {
        const struct mpqc_array *a = mpqc_data_at(d, i);
        for (size_t k = 0; k < a->bytes; k++) sum += ((const unsigned char *)a->data)[k];
    }
    __asm__ volatile("" : : "r"(sum)); /* the reads are what matters */
    mpqc_data_close(d);
}

/* Bytes flipped at random in good files of the folder: refused or read, never read beyond. */
static inline void flip_bytes(const char *const *files, size_t n_files)
{
    uint32_t seed = 1;
    for (size_t i = 0; i < n_files; i++) {
        unsigned char good[8192], bad[8192];
        size_t n = slurp(path_of(files[i]), good, sizeof good);
        char name[64];
        snprintf(name, sizeof name, "fuzzed_%s", files[i]);
        for (int round = 0; round < 300; round++) {
            memcpy(bad, good, n);
            for (int k = 0; k <= round % 4; k++) {
                seed = seed * 1664525u + 1013904223u;
                bad[(seed >> 8) % n] ^= (unsigned char)(round % 2 ? 1u << (seed >> 29) : seed >> 24);
            }
            touch(save(name, bad, round % 5 == 0 ? (seed >> 8) % n + 1 : n));
        }
    }
}

static inline int enter(void **state)
{
    (void)state;
    mkdir(DATA_FOLDER, 0777);
    return 0;
}

#endif
