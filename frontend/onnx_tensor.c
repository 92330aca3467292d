/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * TensorProto -> dense containers.  An ONNX tensor keeps its elements in raw_data
 * (little endian), in one of the typed fields, or in a file of its own.
 */
#include "frontend/onnx_import.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#define FLOAT ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT
#define DOUBLE ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE
#define FLOAT16 ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16
#define BFLOAT16 ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16

/* Which typed field holds a type's elements. */
enum typed { IN_FLOAT, IN_INT32, IN_INT64, IN_DOUBLE, IN_UINT64 };

struct element {
    const char *name;
    unsigned bytes; /* in raw_data; 0: mpqc has no such type */
    enum mpqc_dtype dtype;
    enum typed typed;
};

/* Indexed by TensorProto.DataType; the last ones are of schemas newer than the one
 * that we compile, named here for the diagnostics. */
static const struct element elements[] = {
    [0] = {"undefined", 0, 0, 0},
    [1] = {"float", 4, MPQC_DT_F32, IN_FLOAT},
    [2] = {"uint8", 1, MPQC_DT_U8, IN_INT32},
    [3] = {"int8", 1, MPQC_DT_I8, IN_INT32},
    [4] = {"uint16", 2, MPQC_DT_U16, IN_INT32},
    [5] = {"int16", 2, MPQC_DT_I16, IN_INT32},
    [6] = {"int32", 4, MPQC_DT_I32, IN_INT32},
    [7] = {"int64", 8, MPQC_DT_I64, IN_INT64},
    [8] = {"string", 0, 0, 0},
    [9] = {"bool", 1, MPQC_DT_BOOL, IN_INT32},
    [10] = {"float16", 2, MPQC_DT_F32, IN_INT32},
    [11] = {"double", 8, MPQC_DT_F32, IN_DOUBLE},
    [12] = {"uint32", 4, MPQC_DT_I64, IN_UINT64},
    [13] = {"uint64", 8, MPQC_DT_I64, IN_UINT64},
    [14] = {"complex64", 0, 0, 0},
    [15] = {"complex128", 0, 0, 0},
    [16] = {"bfloat16", 2, MPQC_DT_F32, IN_INT32},
    [17] = {"float8e4m3fn", 0, 0, 0},
    [18] = {"float8e4m3fnuz", 0, 0, 0},
    [19] = {"float8e5m2", 0, 0, 0},
    [20] = {"float8e5m2fnuz", 0, 0, 0},
    [21] = {"uint4", 0, 0, 0},
    [22] = {"int4", 0, 0, 0},
    [23] = {"float4e2m1", 0, 0, 0},
};

static const struct element *element_of(int32_t onnx)
{
    return onnx >= 0 && (size_t)onnx < MPQC_LEN(elements) ? &elements[onnx] : &elements[0];
}

bool mpqc_imp_dtype(int32_t onnx, enum mpqc_dtype *out)
{
    const struct element *e = element_of(onnx);
    *out = e->dtype;
    return e->bytes != 0;
}

const char *mpqc_imp_dtype_name(int32_t onnx)
{
    return element_of(onnx)->name;
}

/* ---- number formats --------------------------------------------------------------- */

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* IEEE 754 binary16 to binary32; exact. */
static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f; /* subnormal or zero */
    return sign ? -magnitude : magnitude;
}

struct job {
    struct mpqc_cx *cx;
    struct mpqc_where where;
    const Onnx__TensorProto *t;
    const struct element *element;
    size_t count;
    uint8_t *out;
};

static mpqc_status put_unsigned(const struct job *j, size_t i, uint64_t v)
{
    if (v > INT64_MAX)
        return MPQC_FAIL(j->cx, UNSUPPORTED, j->where,
                         "element %zu is %llu, which does not fit into 64 signed bits", i,
                         (unsigned long long)v);
    ((int64_t *)(void *)j->out)[i] = (int64_t)v;
    return MPQC_OK;
}

/* Raw little-endian data whose form is not the container's. */
static mpqc_status convert_raw(const struct job *j, const uint8_t *raw)
{
    float *f = (float *)(void *)j->out;
    for (size_t i = 0; i < j->count; i++) {
        const uint8_t *p = raw + i * j->element->bytes;
        double d;
        uint16_t h;
        uint32_t u;
        uint64_t v;
        switch (j->t->data_type) {
        case DOUBLE:
            memcpy(&d, p, sizeof(d));
            f[i] = (float)d;
            break;
        case FLOAT16:
            memcpy(&h, p, sizeof(h));
            f[i] = half_to_float(h);
            break;
        case BFLOAT16:
            memcpy(&h, p, sizeof(h));
            f[i] = from_bits((uint32_t)h << 16);
            break;
        case ONNX__TENSOR_PROTO__DATA_TYPE__UINT32:
            memcpy(&u, p, sizeof(u));
            MPQC_TRY(put_unsigned(j, i, u));
            break;
        default:
            memcpy(&v, p, sizeof(v));
            MPQC_TRY(put_unsigned(j, i, v));
            break;
        }
    }
    return MPQC_OK;
}

static mpqc_status typed_int32(const struct job *j)
{
    for (size_t i = 0; i < j->count; i++) {
        int32_t v = j->t->int32_data[i];
        switch (j->t->data_type) {
        case FLOAT16: ((float *)(void *)j->out)[i] = half_to_float((uint16_t)v); continue;
        case BFLOAT16: ((float *)(void *)j->out)[i] = from_bits((uint32_t)v << 16); continue;
        default: break;
        }
        const struct mpqc_dtype_info *d = &mpqc_dtypes[j->element->dtype];
        if (v < d->min || v > d->max)
            return MPQC_FAIL(j->cx, MODEL, j->where, "element %zu is %d, which is no %s", i,
                             (int)v, j->element->name);
        memcpy(j->out + i * d->bytes, &v, d->bytes); /* little endian */
    }
    return MPQC_OK;
}

static size_t typed_count(const Onnx__TensorProto *t, enum typed where)
{
    switch (where) {
    case IN_FLOAT: return t->n_float_data;
    case IN_INT32: return t->n_int32_data;
    case IN_INT64: return t->n_int64_data;
    case IN_DOUBLE: return t->n_double_data;
    default: return t->n_uint64_data;
    }
}

static mpqc_status from_typed(const struct job *j)
{
    const Onnx__TensorProto *t = j->t;
    size_t have = typed_count(t, j->element->typed);
    if (have != j->count)
        return MPQC_FAIL(j->cx, MODEL, j->where, "the shape needs %zu elements, the data has %zu",
                         j->count, have);
    if (!have) return MPQC_OK;
    switch (j->element->typed) {
    case IN_FLOAT: memcpy(j->out, t->float_data, have * sizeof(float)); break;
    case IN_INT32: return typed_int32(j);
    case IN_INT64: memcpy(j->out, t->int64_data, have * sizeof(int64_t)); break;
    case IN_DOUBLE:
        for (size_t i = 0; i < have; i++) ((float *)(void *)j->out)[i] = (float)t->double_data[i];
        break;
    case IN_UINT64:
        for (size_t i = 0; i < have; i++) MPQC_TRY(put_unsigned(j, i, t->uint64_data[i]));
        break;
    }
    return MPQC_OK;
}

/* ---- external data ---------------------------------------------------------------- */

static const char *entry(const Onnx__TensorProto *t, const char *key)
{
    for (size_t i = 0; i < t->n_external_data; i++) {
        const Onnx__StringStringEntryProto *e = t->external_data[i];
        if (e->key && e->value && !strcmp(e->key, key)) return e->value;
    }
    return NULL;
}

static bool parse_size(const char *s, uint64_t *out)
{
    uint64_t v = 0;
    if (!*s) return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || v > (UINT64_MAX - 9) / 10) return false;
        v = v * 10 + (uint64_t)(*s - '0');
    }
    *out = v;
    return true;
}

/* The location is relative to the model's folder and must stay in it: a model is data
 * from a stranger, and must not make mpqc read other files of its user.  realpath
 * also sees through links. */
static mpqc_status locate(const struct job *j, const char *location, char path[PATH_MAX])
{
    char folder[PATH_MAX], joined[PATH_MAX];
    const char *model = j->where.file ? j->where.file : "", *slash = strrchr(model, '/');
    int length = slash ? (int)(slash - model) : 0;
    const char *base = length ? model : slash ? "/" : ".";
    int wrote = snprintf(joined, sizeof(joined), "%.*s", length ? length : 1, base);
    if (wrote < 0 || (size_t)wrote >= sizeof(joined) || !realpath(joined, folder))
        return MPQC_FAIL(j->cx, IO, j->where, "the model's folder cannot be found: %s",
                         strerror(errno));
    size_t n = strlen(folder);
    if (n > 1) folder[n++] = '/'; /* ends in exactly one slash */
    folder[n] = 0;
    wrote = snprintf(joined, sizeof(joined), "%s%s", folder, location);
    if (location[0] == '/' || wrote < 0 || (size_t)wrote >= sizeof(joined))
        return MPQC_FAIL(j->cx, MODEL, j->where,
                         "external data '%s' must be a path relative to the model's folder",
                         location);
    if (!realpath(joined, path))
        return MPQC_FAIL(j->cx, IO, j->where, "external data file '%s' cannot be opened: %s",
                         joined, strerror(errno));
    if (strncmp(path, folder, n))
        return MPQC_FAIL(j->cx, MODEL, j->where,
                         "external data '%s' lies outside the model's folder, which is refused",
                         location);
    return MPQC_OK;
}

/* The range must be there before memory is taken for it. */
static mpqc_status check_range(const struct job *j, int fd, const char *path, uint64_t offset,
                               size_t size)
{
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        return MPQC_FAIL(j->cx, IO, j->where, "external data '%s' is not a regular file", path);
    uint64_t have = (uint64_t)st.st_size;
    if (offset > have || size > have - offset)
        return MPQC_FAIL(j->cx, FORMAT, j->where,
                         "external data '%s' has %llu bytes; %zu at offset %llu are needed", path,
                         (unsigned long long)have, size, (unsigned long long)offset);
    return MPQC_OK;
}

static mpqc_status read_range(const struct job *j, int fd, const char *path, uint64_t offset,
                              uint8_t *to, size_t size)
{
    while (size) {
        ssize_t got = pread(fd, to, size, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return MPQC_FAIL(j->cx, IO, j->where, "external data '%s' cannot be read: %s", path,
                             got ? strerror(errno) : "it became shorter");
        to += got;
        size -= (size_t)got;
        offset += (uint64_t)got;
    }
    return MPQC_OK;
}

static mpqc_status read_external(struct job *j, struct mpqc_arena *arena, size_t size,
                                 const uint8_t **out)
{
    const char *location = entry(j->t, "location");
    const char *offset_text = entry(j->t, "offset"), *length_text = entry(j->t, "length");
    uint64_t offset = 0, length = size;
    if (!location || !*location)
        return MPQC_FAIL(j->cx, MODEL, j->where, "external data without a location");
    if ((offset_text && !parse_size(offset_text, &offset)) ||
        (length_text && !parse_size(length_text, &length)) || offset > INT64_MAX)
        return MPQC_FAIL(j->cx, MODEL, j->where, "external data with a malformed offset or length");
    if (length != size)
        return MPQC_FAIL(j->cx, MODEL, j->where,
                         "the shape needs %zu bytes, the external data has %llu", size,
                         (unsigned long long)length);
    char path[PATH_MAX];
    MPQC_TRY(locate(j, location, path));
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return MPQC_FAIL(j->cx, IO, j->where, "external data file '%s' cannot be opened: %s", path,
                         strerror(errno));
    uint8_t *data = NULL;
    mpqc_status status = check_range(j, fd, path, offset, size);
    if (status == MPQC_OK) {
        data = mpqc_arena_alloc(arena, size);
        status = data ? read_range(j, fd, path, offset, data, size) : MPQC_OOM(j->cx);
    }
    close(fd);
    *out = data;
    return status;
}

/* ---- the tensor ------------------------------------------------------------------- */

bool mpqc_imp_count(size_t rank, const int64_t *dims, int64_t *out)
{
    int64_t count = 1;
    bool empty = false;
    for (size_t i = 0; i < rank; i++) {
        if (dims[i] < 0 || dims[i] > MPQC_IMP_MAX_ELEMENTS) return false;
        empty = empty || dims[i] == 0;
        if (dims[i] && count > MPQC_IMP_MAX_ELEMENTS / dims[i]) return false;
        if (dims[i]) count *= dims[i];
    }
    *out = empty ? 0 : count;
    return true;
}

static mpqc_status shape_of(struct job *j, struct mpqc_type *type)
{
    const Onnx__TensorProto *t = j->t;
    if (t->n_dims > MPQC_MAX_RANK)
        return MPQC_FAIL(j->cx, LIMIT_EXCEEDED, j->where, "rank %zu; at most %d is supported",
                         t->n_dims, MPQC_MAX_RANK);
    int64_t count = 0;
    for (size_t i = 0; i < t->n_dims; i++)
        if (t->dims[i] < 0)
            return MPQC_FAIL(j->cx, MODEL, j->where, "negative dimension %lld",
                             (long long)t->dims[i]);
    if (!mpqc_imp_count(t->n_dims, t->dims, &count))
        return MPQC_FAIL(j->cx, LIMIT_EXCEEDED, j->where, "the shape is too large");
    j->count = (size_t)count;
    *type = mpqc_type_make(j->element->dtype, (uint32_t)t->n_dims, t->dims);
    return MPQC_OK;
}

static bool is_container_form(int32_t onnx)
{
    return onnx != FLOAT16 && onnx != BFLOAT16 && onnx != DOUBLE &&
           onnx != ONNX__TENSOR_PROTO__DATA_TYPE__UINT32 &&
           onnx != ONNX__TENSOR_PROTO__DATA_TYPE__UINT64;
}

static mpqc_status check_bools(const struct job *j, const uint8_t *raw)
{
    if (j->element->dtype != MPQC_DT_BOOL) return MPQC_OK;
    for (size_t i = 0; i < j->count; i++)
        if (raw[i] > 1)
            return MPQC_FAIL(j->cx, MODEL, j->where, "element %zu is %u, which is no bool", i,
                             (unsigned)raw[i]);
    return MPQC_OK;
}

static mpqc_status from_raw(struct job *j, const uint8_t *raw, size_t size,
                            struct mpqc_arena *arena, struct mpqc_tensor *out)
{
    size_t need = 0;
    if (!mpqc_size_mul(j->count, j->element->bytes, &need) || need != size)
        return MPQC_FAIL(j->cx, MODEL, j->where,
                         "the shape needs %zu bytes of %s, the data has %zu", need,
                         j->element->name, size);
    MPQC_TRY(check_bools(j, raw));
    if (is_container_form(j->t->data_type)) {
        out->data = mpqc_arena_copy(arena, raw, size);
        return out->data ? MPQC_OK : MPQC_OOM(j->cx);
    }
    out->data = j->out = mpqc_arena_array(arena, j->count, mpqc_dtypes[j->element->dtype].bytes);
    return j->out ? convert_raw(j, raw) : MPQC_OOM(j->cx);
}

mpqc_status mpqc_imp_tensor(struct mpqc_cx *cx, struct mpqc_where where,
                            const Onnx__TensorProto *t, const uint8_t *raw, size_t raw_size,
                            struct mpqc_arena *arena, struct mpqc_tensor *out)
{
    if (!where.tensor && t->name && *t->name) where.tensor = t->name;
    struct job j = {.cx = cx, .where = where, .t = t, .element = element_of(t->data_type)};
    if (!j.element->bytes)
        return MPQC_FAIL(cx, UNSUPPORTED, where, "tensors of type %s (%d) are not supported",
                         j.element->name, t->data_type);
    if (t->segment)
        return MPQC_FAIL(cx, UNSUPPORTED, where, "tensors in segments are not supported");
    MPQC_TRY(shape_of(&j, &out->type));
    if (t->has_data_location &&
        t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL) {
        size_t size;
        const uint8_t *data;
        if (!mpqc_size_mul(j.count, j.element->bytes, &size)) return MPQC_OOM(cx);
        MPQC_TRY(read_external(&j, arena, size, &data));
        return from_raw(&j, data, size, arena, out);
    }
    if (!raw && t->has_raw_data) {
        raw = t->raw_data.data ? t->raw_data.data : (const uint8_t *)"";
        raw_size = t->raw_data.len;
    }
    if (raw) return from_raw(&j, raw, raw_size, arena, out);
    /* The number of elements was not yet compared with the data: compare first, so that
     * no lie about the shape can ask for memory. */
    if (typed_count(t, j.element->typed) == j.count) {
        out->data = j.out = mpqc_arena_array(arena, j.count, mpqc_dtypes[j.element->dtype].bytes);
        if (!j.out) return MPQC_OOM(cx);
    }
    return from_typed(&j);
}

/* Raw data longer than this are not copied through protobuf-c. */
#define LARGE_RAW 4096

/* A TensorProto without its raw data, which stay in the file. */
struct lean {
    Onnx__TensorProto *t;
    const uint8_t *raw; /* NULL: it was unpacked with the rest, or there is none */
    size_t raw_size;
    int64_t offset;
};

static mpqc_status unpack_lean(struct mpqc_cx *cx, const struct mpqc_imp_file *f,
                               struct mpqc_pb_span span, struct mpqc_arena *arena,
                               struct lean *out)
{
    struct mpqc_pb_tensor found;
    struct mpqc_imp_file part = *f;
    MPQC_TRY(mpqc_pb_scan_tensor(cx, f->path, f->data, span, &found));
    *out = (struct lean){.offset = (int64_t)span.offset};
    if (found.has_raw && found.raw.length > LARGE_RAW) {
        size_t head = found.raw_tag - span.offset, after = found.raw.offset + found.raw.length;
        size_t tail = span.offset + span.length - after;
        uint8_t *rest = mpqc_arena_alloc(arena, head + tail);
        if (!rest) return MPQC_OOM(cx);
        memcpy(rest, f->data + span.offset, head);
        memcpy(rest + head, f->data + after, tail);
        out->raw = f->data + found.raw.offset;
        out->raw_size = found.raw.length;
        part.data = rest;
        span = (struct mpqc_pb_span){0, head + tail};
    }
    return mpqc_imp_unpack(cx, &part, span, &onnx__tensor_proto__descriptor, "tensor", arena,
                           &out->t);
}

static const char *tensor_name(const Onnx__TensorProto *t)
{
    return t->name && *t->name ? t->name : NULL;
}

mpqc_status mpqc_imp_tensor_at(struct mpqc_cx *cx, const struct mpqc_imp_file *f,
                               struct mpqc_pb_span span, struct mpqc_arena *arena,
                               struct mpqc_tensor *out, const char **name)
{
    struct lean l;
    MPQC_TRY(unpack_lean(cx, f, span, arena, &l));
    if (name) *name = tensor_name(l.t);
    struct mpqc_where where = {.file = f->path, .offset = l.offset};
    return mpqc_imp_tensor(cx, where, l.t, l.raw, l.raw_size, arena, out);
}

mpqc_status mpqc_imp_tensor_name(struct mpqc_imp *im, struct mpqc_pb_span span, const char **out)
{
    struct lean l;
    MPQC_TRY(unpack_lean(im->cx, &im->file, span, &im->scratch, &l));
    *out = tensor_name(l.t);
    return MPQC_OK;
}

mpqc_status mpqc_read_tensor_pb(struct mpqc_cx *cx, const char *path, struct mpqc_arena *arena,
                                struct mpqc_tensor *out, const char **name)
{
    struct mpqc_imp_file f;
    MPQC_TRY(mpqc_imp_open(cx, path, &f));
    mpqc_status status =
        mpqc_imp_tensor_at(cx, &f, (struct mpqc_pb_span){0, f.size}, arena, out, name);
    mpqc_imp_close(&f);
    return status;
}
