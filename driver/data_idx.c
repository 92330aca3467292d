/* SPDX-License-Identifier: MIT
 *
 * Reads IDX, the format of MNIST: two zero bytes, an element code, the number of
 * axes, one big-endian 32-bit extent per axis, then big-endian elements.
 */
#include "driver/data_inflate.h"
#include "driver/data_internal.h"

#include <stdlib.h>
#include <string.h>

#define MAX_RATIO 1032 /* of gzip, see data_npz.c */

static int element_type(uint8_t code, enum mpqc_data_type *type)
{
    switch (code) {
    case 0x08: *type = MPQC_DATA_U8; return 0;
    case 0x09: *type = MPQC_DATA_I8; return 0;
    case 0x0b: *type = MPQC_DATA_I16; return 0;
    case 0x0c: *type = MPQC_DATA_I32; return 0;
    case 0x0d: *type = MPQC_DATA_F32; return 0;
    case 0x0e: *type = MPQC_DATA_F64; return 0;
    default: return -1;
    }
}

/* Fills all of *out but the data; `header` says how many bytes were read. */
static int parse_header(const char *path, const uint8_t *p, size_t size, struct mpqc_array *out,
                        size_t *header, struct mpqc_data_error *err)
{
    *out = (struct mpqc_array){.name = NULL};
    if (size < 4 || p[0] || p[1] || element_type(p[2], &out->type) || p[3] == 0)
        return mpqc_data_fail(err, "%s: not an IDX file", path);
    out->rank = p[3];
    *header = 4 + 4 * (size_t)out->rank;
    if (out->rank > MPQC_DATA_MAX_RANK)
        return mpqc_data_fail(err, "%s: more than %d axes", path, MPQC_DATA_MAX_RANK);
    if (size < *header) return mpqc_data_fail(err, "%s: truncated inside the header", path);
    for (uint32_t i = 0; i < out->rank; i++) {
        const uint8_t *q = p + 4 + 4 * i;
        out->dims[i] = (int64_t)q[0] << 24 | q[1] << 16 | q[2] << 8 | q[3];
    }
    if (mpqc_data_bytes(out->type, out->rank, out->dims, &out->bytes))
        return mpqc_data_fail(err, "%s: the shape in the header is too large", path);
    return 0;
}

static void swap_elements(uint8_t *to, const uint8_t *from, size_t bytes, size_t element)
{
    for (size_t i = 0; i < bytes; i += element)
        for (size_t k = 0; k < element; k++) to[i + k] = from[i + element - 1 - k];
}

static int add(struct mpqc_data *d, struct mpqc_array *a, const uint8_t *elements,
               const char *path, struct mpqc_data_error *err)
{
    size_t element = mpqc_data_type_size(a->type);
    a->data = elements;
    if (element > 1) {
        uint8_t *swapped = mpqc_data_alloc(d, a->bytes, err);
        if (!swapped) return -1;
        swap_elements(swapped, elements, a->bytes, element);
        a->data = swapped;
    }
    return mpqc_data_add(d, a, path, err);
}

int mpqc_idx_load(struct mpqc_data *d, const struct mpqc_data_file *f,
                  struct mpqc_data_error *err)
{
    struct mpqc_array a;
    size_t header;
    if (parse_header(f->path, f->bytes, f->size, &a, &header, err)) return -1;
    if (a.bytes > f->size - header)
        return mpqc_data_fail(err, "%s: truncated: the header promises %zu bytes, %zu are there",
                              f->path, a.bytes, f->size - header);
    return add(d, &a, f->bytes + header, f->path, err);
}

int mpqc_idx_gz_load(struct mpqc_data *d, const struct mpqc_data_file *f,
                     struct mpqc_data_error *err)
{
    uint8_t head[4 + 4 * MPQC_DATA_MAX_RANK];
    struct mpqc_array a;
    size_t header, all;
    /* First as much as says how long the header is, then the header, then everything. */
    if (mpqc_inflate(f->path, MPQC_INFLATE_GZIP, f->bytes, f->size, head, 4, err)) return -1;
    if (head[3] > MPQC_DATA_MAX_RANK) head[3] = 0;
    size_t n = 4 + 4 * (size_t)head[3];
    if (mpqc_inflate(f->path, MPQC_INFLATE_GZIP, f->bytes, f->size, head, n, err)) return -1;
    if (parse_header(f->path, head, n, &a, &header, err)) return -1;
    all = a.bytes + header;
    if (all / MAX_RATIO > f->size)
        return mpqc_data_fail(err, "%s: the header promises more than the file can hold",
                              f->path);
    uint8_t *plain = mpqc_data_alloc(d, all, err);
    if (!plain) return -1;
    if (mpqc_inflate(f->path, MPQC_INFLATE_GZIP, f->bytes, f->size, plain, all, err)) return -1;
    return add(d, &a, plain + header, f->path, err);
}
