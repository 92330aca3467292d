/* SPDX-License-Identifier: MIT
 *
 * Reads one ONNX TensorProto.  Only the wire types that the fields below can have
 * are understood; everything is bounded by the file's size.
 */
#include "driver/data_internal.h"

#include <stdio.h>
#include <string.h>

/* Field numbers of TensorProto in onnx.proto. */
enum {
    FIELD_DIMS = 1,
    FIELD_TYPE = 2,
    FIELD_FLOAT = 4,
    FIELD_INT32 = 5,
    FIELD_INT64 = 7,
    FIELD_NAME = 8,
    FIELD_RAW = 9,
    FIELD_DOUBLE = 10,
    FIELD_UINT64 = 11,
    FIELD_LOCATION = 14
};

struct wire {
    const uint8_t *at, *end;
};

/* One field: `number` and, by its wire type, a value or a range of bytes. */
struct field {
    uint32_t number, type;
    uint64_t value;
    struct wire bytes;
};

static int take_varint(struct wire *w, uint64_t *out)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && w->at < w->end; shift += 7) {
        uint8_t b = *w->at++;
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128)) {
            *out = v;
            return 0;
        }
    }
    return -1;
}

static int take_field(struct wire *w, struct field *f)
{
    uint64_t tag, n;
    if (take_varint(w, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX) return -1;
    f->number = (uint32_t)(tag >> 3);
    f->type = (uint32_t)(tag & 7);
    switch (f->type) {
    case 0: return take_varint(w, &f->value);
    case 1: n = 8; break;
    case 2:
        if (take_varint(w, &n)) return -1;
        break;
    case 5: n = 4; break;
    default: return -1; /* groups */
    }
    if (n > (uint64_t)(w->end - w->at)) return -1;
    f->bytes = (struct wire){w->at, w->at + n};
    w->at += n;
    return 0;
}

struct tensor {
    uint32_t rank;
    int64_t dims[MPQC_ABI_MAX_RANK];
    uint64_t type;
    struct wire raw;
    int has_raw, too_deep, external;
};

static int add_dim(struct tensor *t, uint64_t v)
{
    if (t->rank == MPQC_ABI_MAX_RANK) {
        t->too_deep = 1;
        return -1;
    }
    t->dims[t->rank++] = (int64_t)v;
    return 0;
}

static int note_field(struct tensor *t, const struct field *f, char name[128])
{
    uint64_t v;
    struct wire w = f->bytes;
    switch (f->number) {
    case FIELD_DIMS:
        if (f->type == 0) return add_dim(t, f->value);
        if (f->type != 2) return -1;
        while (w.at < w.end)
            if (take_varint(&w, &v) || add_dim(t, v)) return -1;
        return 0;
    case FIELD_TYPE:
        t->type = f->value;
        return f->type ? -1 : 0;
    case FIELD_NAME:
        if (f->type != 2) return -1;
        snprintf(name, 128, "%.*s", (int)(w.end - w.at < 127 ? w.end - w.at : 127),
                 (const char *)w.at);
        return 0;
    case FIELD_RAW:
        if (f->type != 2) return -1;
        t->raw = w;
        t->has_raw = 1;
        return 0;
    case FIELD_LOCATION:
        t->external = f->type == 0 && f->value == 1;
        return 0;
    default: return 0;
    }
}

/* TensorProto.DataType -> our type and the field that typed data is in. */
static const struct {
    uint8_t code;
    enum mpqc_data_type type;
    uint32_t field;
} types[] = {{1, MPQC_DATA_F32, FIELD_FLOAT},  {2, MPQC_DATA_U8, FIELD_INT32},
             {3, MPQC_DATA_I8, FIELD_INT32},   {4, MPQC_DATA_U16, FIELD_INT32},
             {5, MPQC_DATA_I16, FIELD_INT32},  {6, MPQC_DATA_I32, FIELD_INT32},
             {7, MPQC_DATA_I64, FIELD_INT64},  {9, MPQC_DATA_BOOL, FIELD_INT32},
             {10, MPQC_DATA_F16, FIELD_INT32}, {11, MPQC_DATA_F64, FIELD_DOUBLE},
             {12, MPQC_DATA_U32, FIELD_UINT64}};

/* Stores the low bytes of v, little-endian, if there is room. */
static int store(uint8_t **to, const uint8_t *end, uint64_t v, size_t size)
{
    if ((size_t)(end - *to) < size) return -1;
    for (size_t i = 0; i < size; i++) *(*to)++ = (uint8_t)(v >> 8 * i);
    return 0;
}

/* Unpacks one occurrence of the typed field. */
static int unpack(const struct field *f, uint8_t **to, const uint8_t *end, size_t size)
{
    struct wire w = f->bytes;
    uint64_t v;
    if (f->type == 0) return store(to, end, f->value, size);
    if (f->number == FIELD_FLOAT || f->number == FIELD_DOUBLE) {
        size_t n = (size_t)(w.end - w.at);
        if (n % size || n > (size_t)(end - *to)) return -1;
        if (n) memcpy(*to, w.at, n); /* little-endian in the file and here */
        *to += n;
        return 0;
    }
    while (w.at < w.end)
        if (take_varint(&w, &v) || store(to, end, v, size)) return -1;
    return 0;
}

static int unpack_all(struct wire w, uint32_t number, uint8_t *to, size_t bytes, size_t size)
{
    const uint8_t *end = to + bytes;
    struct field f;
    while (w.at < w.end) {
        if (take_field(&w, &f)) return -1;
        if (f.number == number && unpack(&f, &to, end, size)) return -1;
    }
    return to == end ? 0 : -1;
}

static int typed_data(struct mpqc_data *d, const struct mpqc_data_file *f, uint32_t number,
                      struct mpqc_array *out, struct mpqc_data_error *err)
{
    /* Each element takes at least a byte of the file. */
    size_t size = mpqc_data_type_size(out->type);
    uint8_t *to = NULL;
    if (out->bytes / size <= f->size && !(to = mpqc_data_alloc(d, out->bytes, err))) return -1;
    if (!to || unpack_all((struct wire){f->bytes, f->bytes + f->size}, number, to, out->bytes,
                          size))
        return mpqc_data_fail(err, "%s: the number of elements does not fit the dims", f->path);
    out->data = to;
    return 0;
}

int mpqc_pb_parse(struct mpqc_data *d, const struct mpqc_data_file *f, char name[128],
                  struct mpqc_array *out, struct mpqc_data_error *err)
{
    struct wire w = {f->bytes, f->bytes + f->size};
    struct tensor t = {.rank = 0};
    name[0] = '\0';
    *out = (struct mpqc_array){.name = NULL};
    while (w.at < w.end) {
        struct field field = {.number = 0};
        const uint8_t *start = w.at;
        if (take_field(&w, &field) == 0 && note_field(&t, &field, name) == 0) continue;
        if (t.too_deep)
            return mpqc_data_fail(err, "%s: more than %d axes", f->path, MPQC_ABI_MAX_RANK);
        return mpqc_data_fail(err, "%s: not an ONNX tensor: broken at byte %zu", f->path,
                              (size_t)(start - f->bytes));
    }
    size_t row = 0, n = sizeof types / sizeof *types;
    while (row < n && types[row].code != t.type) row++;
    if (row == n || t.external)
        return mpqc_data_fail(err, "%s: %s is not supported", f->path,
                              t.external ? "tensor data in another file"
                                         : "the tensor's element type");
    out->type = types[row].type;
    out->rank = t.rank;
    memcpy(out->dims, t.dims, sizeof t.dims);
    if (mpqc_data_bytes(out->type, t.rank, t.dims, &out->bytes))
        return mpqc_data_fail(err, "%s: the tensor's dims are impossible", f->path);
    if (!t.has_raw) return typed_data(d, f, types[row].field, out, err);
    if ((size_t)(t.raw.end - t.raw.at) != out->bytes)
        return mpqc_data_fail(err, "%s: the dims want %zu bytes, raw_data has %zu", f->path,
                              out->bytes, (size_t)(t.raw.end - t.raw.at));
    out->data = t.raw.at;
    return 0;
}
