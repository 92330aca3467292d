/* SPDX-License-Identifier: MIT
 *
 * Reads .npy, versions 1 to 3: magic, version, header length, a Python dictionary
 * with 'descr', 'fortran_order' and 'shape', then the elements.  The format is
 * described in NumPy's NEP 1.
 */
#include "driver/data_internal.h"

#include <stdio.h>
#include <string.h>

/* A cursor over the dictionary. */
struct text {
    const char *at, *end;
};

static void skip_space(struct text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n' || *t->at == '\t')) t->at++;
}

static int take(struct text *t, char c)
{
    skip_space(t);
    if (t->at == t->end || *t->at != c) return 0;
    t->at++;
    return 1;
}

/* 'text' or "text"; longer than the buffer is no header of ours. */
static int take_string(struct text *t, char *to, size_t room)
{
    skip_space(t);
    if (t->at == t->end || (*t->at != '\'' && *t->at != '"')) return 0;
    char quote = *t->at++;
    size_t n = 0;
    for (; t->at < t->end && *t->at != quote; t->at++) {
        if (n + 1 >= room) return 0;
        to[n++] = *t->at;
    }
    to[n] = '\0';
    return take(t, quote);
}

static int take_word(struct text *t, const char *word)
{
    size_t n = strlen(word);
    skip_space(t);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, word, n) != 0) return 0;
    t->at += n;
    return 1;
}

static int take_number(struct text *t, int64_t *out)
{
    skip_space(t);
    const char *start = t->at;
    int64_t v = 0;
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *t->at - '0', &v))
            return 0;
    *out = v;
    if (t->at == start) return 0;
    take(t, 'L'); /* Python 2 wrote long integers so */
    return 1;
}

struct header {
    char descr[32];
    int structured; /* descr is a list: a structured array */
    int fortran;
    uint32_t rank;
    int64_t dims[MPQC_DATA_MAX_RANK];
    int seen; /* bit per key */
};

/* (3, 4), (3,), (): -1 on a syntax error, 1 when there are too many axes. */
static int take_shape(struct text *t, struct header *h)
{
    if (!take(t, '(')) return -1;
    while (!take(t, ')')) {
        int64_t v;
        if (!take_number(t, &v)) return -1;
        if (h->rank == MPQC_DATA_MAX_RANK) return 1;
        h->dims[h->rank++] = v;
        if (take(t, ',')) continue;
        if (!take(t, ')')) return -1;
        break;
    }
    return 0;
}

static int take_entry(struct text *t, struct header *h)
{
    char key[32];
    if (!take_string(t, key, sizeof key) || !take(t, ':')) return -1;
    if (strcmp(key, "descr") == 0) {
        h->seen |= 1;
        if (take_string(t, h->descr, sizeof h->descr)) return 0;
        h->structured = 1;
        return 1;
    }
    if (strcmp(key, "fortran_order") == 0) {
        h->seen |= 2;
        if (take_word(t, "True")) h->fortran = 1;
        else if (!take_word(t, "False")) return -1;
        return 0;
    }
    if (strcmp(key, "shape") == 0) {
        h->seen |= 4;
        return take_shape(t, h);
    }
    return -1;
}

/* 0, -1 on a syntax error, 1 on something that is right but not supported. */
static int parse_dict(struct text *t, struct header *h)
{
    if (!take(t, '{')) return -1;
    while (!take(t, '}')) {
        int rc = take_entry(t, h);
        if (rc) return rc;
        if (take(t, ',')) continue;
        if (!take(t, '}')) return -1;
        break;
    }
    return h->seen == 7 ? 0 : -1;
}

static const struct {
    const char *code;
    enum mpqc_data_type type;
} codes[] = {{"f4", MPQC_DATA_F32}, {"f8", MPQC_DATA_F64}, {"f2", MPQC_DATA_F16},
             {"u1", MPQC_DATA_U8},  {"i1", MPQC_DATA_I8},  {"u2", MPQC_DATA_U16},
             {"i2", MPQC_DATA_I16}, {"i4", MPQC_DATA_I32}, {"u4", MPQC_DATA_U32},
             {"i8", MPQC_DATA_I64}, {"b1", MPQC_DATA_BOOL}};

static int element_type(const char *path, const char *descr, enum mpqc_data_type *type,
                        struct mpqc_data_error *err)
{
    const char *code = descr;
    char order = '=';
    if (*code == '<' || *code == '>' || *code == '|' || *code == '=') order = *code++;
    if (*code == 'O')
        return mpqc_data_fail(err, "%s: holds Python objects; save a plain numeric array", path);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (strcmp(code, codes[i].code) != 0) continue;
        *type = codes[i].type;
        if (order == '>' && mpqc_data_type_size(*type) > 1)
            return mpqc_data_fail(err,
                                  "%s: the elements ('%s') are big-endian; convert with "
                                  ".astype('<%s')",
                                  path, descr, code);
        return 0;
    }
    return mpqc_data_fail(err, "%s: elements of type '%s' are not supported; convert with "
                               ".astype(numpy.float32)",
                          path, descr);
}

/* Where the dictionary begins and ends. */
static int find_header(const uint8_t *p, size_t size, struct text *t)
{
    if (size < 10 || memcmp(p, "\x93NUMPY", 6) != 0) return -1;
    size_t start = p[6] == 1 ? 10 : 12;
    if (p[6] < 1 || p[6] > 3 || size < start) return -1;
    size_t n = p[8] | (size_t)p[9] << 8;
    if (p[6] > 1) n |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (n > size - start) return -1;
    t->at = (const char *)p + start;
    t->end = t->at + n;
    return 0;
}

int mpqc_npy_parse(const char *path, const uint8_t *bytes, size_t size, struct mpqc_array *out,
                   struct mpqc_data_error *err)
{
    struct text t;
    struct header h = {.rank = 0};
    if (find_header(bytes, size, &t))
        return mpqc_data_fail(err, "%s: not an .npy file, or one with a broken header", path);
    const uint8_t *data = (const uint8_t *)t.end;
    int rc = parse_dict(&t, &h);
    if (h.structured)
        return mpqc_data_fail(err, "%s: structured arrays are not supported; save one field",
                              path);
    if (rc > 0)
        return mpqc_data_fail(err, "%s: more than %d axes", path, MPQC_DATA_MAX_RANK);
    if (rc) return mpqc_data_fail(err, "%s: the .npy header is broken", path);
    *out = (struct mpqc_array){.rank = h.rank, .data = data};
    memcpy(out->dims, h.dims, sizeof h.dims);
    if (element_type(path, h.descr, &out->type, err)) return -1;
    if (mpqc_data_bytes(out->type, h.rank, h.dims, &out->bytes))
        return mpqc_data_fail(err, "%s: the shape in the header is too large", path);
    size_t there = size - (size_t)(data - bytes);
    if (out->bytes > there)
        return mpqc_data_fail(err, "%s: truncated: the header promises %zu bytes, %zu are there",
                              path, out->bytes, there);
    if (h.fortran && h.rank > 1)
        return mpqc_data_fail(err,
                              "%s: the array is in Fortran order; save "
                              "numpy.ascontiguousarray(x)",
                              path);
    return 0;
}
