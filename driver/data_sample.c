/* SPDX-License-Identifier: MIT
 *
 * From rows of an array to the tensor that a network wants: shapes, layout,
 * element types, pre-processing of u8 data.
 */
#include "driver/data_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CHANNELS 4 /* of mean and std in struct mpqc_preprocess */

/* How a sample lies in the array. */
struct fit {
    uint64_t samples;
    size_t elements; /* of one sample */
    int transpose;   /* each of `outer` blocks goes from [inner,channels] to [channels,inner] */
    size_t outer, channels, inner;
};

/* The extents without those of 1. */
static uint32_t squeeze(uint32_t rank, const int64_t *dims, int64_t *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < rank; i++)
        if (dims[i] != 1) out[n++] = dims[i];
    return n;
}

static int same_squeezed(uint32_t ra, const int64_t *a, uint32_t rb, const int64_t *b)
{
    int64_t x[MPQC_DATA_MAX_RANK], y[MPQC_DATA_MAX_RANK];
    uint32_t n = squeeze(ra, a, x), m = squeeze(rb, b, y);
    return n == m && memcmp(x, y, n * sizeof *x) == 0;
}

/* One of the two is a plain vector with as many elements: flattening moves no data. */
static int same_flat(uint32_t ra, const int64_t *a, uint32_t rb, const int64_t *b)
{
    int64_t x[MPQC_DATA_MAX_RANK], y[MPQC_DATA_MAX_RANK];
    size_t na, nb;
    if (squeeze(ra, a, x) > 1 && squeeze(rb, b, y) > 1) return 0;
    return !mpqc_data_bytes(MPQC_DATA_U8, ra, a, &na) &&
           !mpqc_data_bytes(MPQC_DATA_U8, rb, b, &nb) && na == nb;
}

/* The network's shape with its channels moved last: [N,C,H,W] -> [N,H,W,C] and
 * [C,H,W] -> [H,W,C].  Other ranks have no such form. */
static int channels_last(uint32_t rank, const int64_t *dims, int64_t *out)
{
    if (rank != 3 && rank != 4) return 0;
    memcpy(out, dims, rank * sizeof *dims);
    out[rank - 3] = dims[rank - 2];
    out[rank - 2] = dims[rank - 1];
    out[rank - 1] = dims[rank - 3];
    return 1;
}

static int known_last(const struct mpqc_array *a, const struct mpqc_preprocess *pre)
{
    return a->type == MPQC_DATA_U8 && (a->channels_last || (pre && pre->nhwc));
}

/* Channels for a per-channel mean when nothing moves: the axis that has as many. */
static int channel_axis(uint32_t rank, const int64_t *dims, int last, uint32_t channels,
                        struct fit *f)
{
    uint32_t first = rank >= 4 ? 1 : 0;
    uint32_t axes[2] = {last ? rank - 1 : first, last ? first : rank - 1};
    for (int i = 0; i < 2 && rank > 0; i++) {
        if (dims[axes[i]] != (int64_t)channels) continue;
        f->channels = channels;
        f->inner = 1;
        for (uint32_t k = axes[i] + 1; k < rank; k++) f->inner *= (size_t)dims[k];
        return 1;
    }
    return 0;
}

/* 0 and *f, or -1 when the sample's shape is not the network's. */
static int fit_shape(const struct mpqc_array *a, uint32_t rank, const int64_t *dims,
                     const struct mpqc_preprocess *pre, struct fit *f)
{
    int64_t last[MPQC_DATA_MAX_RANK];
    size_t bytes;
    if (rank > MPQC_DATA_MAX_RANK || mpqc_data_bytes(MPQC_DATA_U8, rank, dims, &bytes)) return -1;
    *f = (struct fit){.elements = bytes, .outer = 1, .channels = 1, .inner = bytes};
    if (a->rank == 0) return -1;
    f->samples = (uint64_t)a->dims[0];
    uint32_t sr = a->rank - 1;
    const int64_t *s = a->dims + 1;
    if (known_last(a, pre) && channels_last(rank, dims, last) &&
        same_squeezed(sr, s, rank, last)) {
        f->outer = rank == 4 ? (size_t)dims[0] : 1;
        f->channels = (size_t)dims[rank - 3];
        f->inner = (size_t)dims[rank - 2] * (size_t)dims[rank - 1];
        f->transpose = 1;
        return 0;
    }
    if (same_squeezed(sr, s, rank, dims)) return 0;
    /* Whether a vector has the channels first or last is not known: not for colours. */
    int colours = known_last(a, pre) && sr >= 3 && s[sr - 1] != 1;
    if (same_flat(sr, s, rank, dims) && !colours) return 0;
    /* A network whose batch is fixed at more than 1 may be fed with exactly one batch. */
    f->samples = 1;
    return a->rank == rank && memcmp(a->dims, dims, rank * sizeof *dims) == 0 ? 0 : -1;
}

static int wrong_shape(const struct mpqc_array *a, const char *input, uint32_t rank,
                       const int64_t *dims, struct mpqc_data_error *err)
{
    char want[MPQC_SHAPE_TEXT], have[MPQC_SHAPE_TEXT];
    int64_t last[MPQC_DATA_MAX_RANK];
    uint32_t sr = a->rank ? a->rank - 1 : 0;
    const char *hint = "";
    if (a->rank && channels_last(rank, dims, last) && same_squeezed(sr, a->dims + 1, rank, last))
        hint = a->type == MPQC_DATA_U8
                   ? "; the channels seem to be last: give -layout=nhwc"
                   : "; transpose it to channels first (-layout=nhwc is for u8 data)";
    else if (same_squeezed(a->rank, a->dims, rank, dims))
        hint = "; the first axis must run over samples, so add one";
    return mpqc_data_fail(err, "input '%s' wants samples of shape %s, but the array %s has "
                               "samples of shape %s%s",
                          input, mpqc_shape_text(want, rank, dims),
                          a->name ? a->name : "in the file",
                          mpqc_shape_text(have, sr, a->dims + 1), hint);
}

/* Per-channel numbers need to know where the channels are. */
static int fit_channels(const struct mpqc_array *a, uint32_t rank, const int64_t *dims,
                        const struct mpqc_preprocess *pre, struct fit *f)
{
    if (a->type != MPQC_DATA_U8 || !pre || pre->channels <= 1) return 0;
    if (f->transpose && f->channels == pre->channels) return 0;
    if (f->transpose && f->channels != 1 && f->inner != 1) return -1;
    f->transpose = 0; /* one channel or one pixel: nothing moves */
    return channel_axis(rank, dims, pre->nhwc != 0, pre->channels, f) ? 0 : -1;
}

static int find_fit(const struct mpqc_array *a, const char *input, uint32_t rank,
                    const int64_t *dims, const struct mpqc_preprocess *pre, struct fit *f,
                    struct mpqc_data_error *err)
{
    char want[MPQC_SHAPE_TEXT];
    if (fit_shape(a, rank, dims, pre, f)) return wrong_shape(a, input, rank, dims, err);
    if (pre && pre->channels > MAX_CHANNELS)
        return mpqc_data_fail(err, "input '%s': mean and std have more than %d channels", input,
                              MAX_CHANNELS);
    if (fit_channels(a, rank, dims, pre, f))
        return mpqc_data_fail(err, "input '%s' has the shape %s, but -mean and -std have %u "
                                   "channels",
                              input, mpqc_shape_text(want, rank, dims), pre->channels);
    return 0;
}

int mpqc_array_check(const struct mpqc_array *a, const char *input, uint32_t rank,
                     const int64_t *dims, const struct mpqc_preprocess *pre, uint64_t *samples,
                     struct mpqc_data_error *err)
{
    struct fit f;
    if (find_fit(a, input, rank, dims, pre, &f, err)) return -1;
    *samples = f.samples;
    return 0;
}

/* ---- elements ---- */

/* IEEE 754 binary16, exactly. */
static float from_half(uint16_t h)
{
    int exponent = h >> 10 & 31;
    float fraction = (float)(h & 1023);
    float magnitude = exponent == 0    ? ldexpf(fraction, -24)
                      : exponent == 31 ? (h & 1023 ? NAN : INFINITY)
                                       : ldexpf(fraction + 1024.0f, exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

#define LOAD(type, p, i)                                                                          \
    __extension__({                                                                               \
        type v_;                                                                                  \
        memcpy(&v_, (const uint8_t *)(p) + (i) * sizeof v_, sizeof v_);                           \
        v_;                                                                                       \
    })

static int64_t load_int(enum mpqc_data_type type, const void *p, size_t i)
{
    switch (type) {
    case MPQC_DATA_U8:
    case MPQC_DATA_BOOL: return LOAD(uint8_t, p, i);
    case MPQC_DATA_I8: return LOAD(int8_t, p, i);
    case MPQC_DATA_U16: return LOAD(uint16_t, p, i);
    case MPQC_DATA_I16: return LOAD(int16_t, p, i);
    case MPQC_DATA_I32: return LOAD(int32_t, p, i);
    case MPQC_DATA_U32: return LOAD(uint32_t, p, i);
    case MPQC_DATA_I64: return LOAD(int64_t, p, i);
    default: return 0;
    }
}

static void convert(enum mpqc_data_type type, const void *p, size_t n, float *out)
{
    switch (type) {
    case MPQC_DATA_F32:
        if (n) memcpy(out, p, n * sizeof *out);
        break;
    case MPQC_DATA_F64:
        for (size_t i = 0; i < n; i++) out[i] = (float)LOAD(double, p, i);
        break;
    case MPQC_DATA_F16:
        for (size_t i = 0; i < n; i++) out[i] = from_half(LOAD(uint16_t, p, i));
        break;
    default:
        for (size_t i = 0; i < n; i++) out[i] = (float)load_int(type, p, i);
        break;
    }
}

static int is_real(enum mpqc_data_type type)
{
    return type == MPQC_DATA_F32 || type == MPQC_DATA_F64 || type == MPQC_DATA_F16;
}

/* What each of the 256 values becomes in one channel. */
static void make_table(const struct mpqc_preprocess *pre, size_t channel, float table[256])
{
    float scale = pre && pre->scale != 0 ? pre->scale : 255.0f, mean = 0, std = 1;
    if (pre && pre->channels) {
        size_t c = pre->channels > 1 ? channel : 0;
        mean = pre->mean[c];
        std = pre->std[c];
    }
    for (int v = 0; v < 256; v++)
        table[v] = pre ? ((float)v / scale - mean) / std : (float)v;
}

/* u8 to float, channel by channel; with f->transpose from [inner,channels]. */
static void convert_u8(const uint8_t *p, const struct fit *f, const struct mpqc_preprocess *pre,
                       float *out)
{
    float table[256];
    size_t block = f->channels * f->inner, outer = block ? f->elements / block : 0;
    for (size_t c = 0; c < f->channels; c++) {
        if (c == 0 || (pre && pre->channels > 1)) make_table(pre, c, table);
        for (size_t o = 0; o < outer; o++) {
            const uint8_t *from = p + o * block + (f->transpose ? c : c * f->inner);
            size_t step = f->transpose ? f->channels : 1;
            float *to = out + o * block + c * f->inner;
            for (size_t i = 0; i < f->inner; i++) to[i] = table[from[i * step]];
        }
    }
}

static int past_end(const struct fit *f, uint64_t index, struct mpqc_data_error *err)
{
    return mpqc_data_fail(err, "sample %llu is past the end; there are %llu",
                          (unsigned long long)index, (unsigned long long)f->samples);
}

int mpqc_array_sample(const struct mpqc_array *a, uint32_t rank, const int64_t *dims,
                      const struct mpqc_preprocess *pre, uint64_t index, float *out,
                      struct mpqc_data_error *err)
{
    struct fit f;
    if (find_fit(a, "of this array", rank, dims, pre, &f, err)) return -1;
    if (index >= f.samples) return past_end(&f, index, err);
    if (f.elements == 0) return 0;
    size_t bytes = f.elements * mpqc_data_type_size(a->type);
    const uint8_t *p = (const uint8_t *)a->data + (size_t)index * bytes;
    if (a->type == MPQC_DATA_U8) {
        convert_u8(p, &f, pre, out);
        return 0;
    }
    convert(a->type, p, f.elements, out);
    for (size_t i = 0; is_real(a->type) && i < f.elements; i++)
        if (!isfinite(out[i]))
            return mpqc_data_fail(err, "sample %llu holds NaN or Inf (element %zu)",
                                  (unsigned long long)index, i);
    return 0;
}

int mpqc_array_raw_sample(const struct mpqc_array *a, uint64_t index, void *out, size_t bytes,
                          struct mpqc_data_error *err)
{
    /* bytes * samples cannot wrap: the array holds that many */
    if (bytes == 0) return 0;
    if (index >= a->bytes / bytes)
        return mpqc_data_fail(err, "sample %llu is past the end; there are %llu",
                              (unsigned long long)index, (unsigned long long)(a->bytes / bytes));
    memcpy(out, (const uint8_t *)a->data + (size_t)index * bytes, bytes);
    return 0;
}

/* ---- labels ---- */

static int read_labels(const char *path, const struct mpqc_array *a, int64_t **labels,
                       uint64_t *count, struct mpqc_data_error *err)
{
    char shape[MPQC_SHAPE_TEXT];
    if (is_real(a->type) || a->type == MPQC_DATA_BOOL)
        return mpqc_data_fail(err, "%s: labels are class numbers, so integers, not %s", path,
                              mpqc_data_type_name(a->type));
    size_t n = a->rank ? (size_t)a->dims[0] : 0;
    if (a->rank == 0 || a->bytes != n * mpqc_data_type_size(a->type))
        return mpqc_data_fail(err, "%s: labels are one number a sample, not an array of shape %s",
                              path, mpqc_shape_text(shape, a->rank, a->dims));
    if (n > SIZE_MAX / sizeof **labels || !(*labels = malloc(n ? n * sizeof **labels : 1)))
        return mpqc_data_oom(err);
    for (size_t i = 0; i < n; i++) (*labels)[i] = load_int(a->type, a->data, i);
    *count = n;
    return 0;
}

int mpqc_labels_open(const char *path, int64_t **labels, uint64_t *count,
                     struct mpqc_data_error *err)
{
    struct mpqc_data *d;
    *labels = NULL;
    if (mpqc_data_open(path, 0, NULL, &d, err)) return -1;
    const struct mpqc_array *a = mpqc_data_array(d, "labels");
    int rc = a ? read_labels(path, a, labels, count, err)
               : mpqc_data_fail(err, "%s: several arrays, and none is called 'labels'", path);
    mpqc_data_close(d);
    return rc;
}

/* ---- -scale -mean -std -layout ---- */

static int bad_value(const char *flag, const char *value, const char *wanted,
                     struct mpqc_data_error *err)
{
    return mpqc_data_fail(err, "-%s wants %s, not '%.100s'", flag, wanted, value);
}

/* "a,b,c": the number of values, 0 when it is no such list. */
static uint32_t parse_list(const char *value, float out[MAX_CHANNELS])
{
    uint32_t n = 0;
    for (const char *p = value; n < MAX_CHANNELS; p++) {
        char *end;
        float v = strtof(p, &end);
        if (end == p || !isfinite(v)) return 0;
        out[n++] = v;
        p = end;
        if (*p == '\0') return n;
        if (*p != ',') return 0;
    }
    return 0;
}

static int set_list(struct mpqc_preprocess *pre, const char *flag, const char *value, int is_std,
                    struct mpqc_data_error *err)
{
    float v[MAX_CHANNELS];
    uint32_t n = parse_list(value, v);
    if (n == 0) return bad_value(flag, value, "one number, or one a channel (up to 4)", err);
    for (uint32_t c = 0; is_std && c < n; c++)
        if (v[c] == 0) return bad_value(flag, value, "numbers other than 0", err);
    for (uint32_t c = 0; pre->channels == 0 && c < MAX_CHANNELS; c++) {
        pre->mean[c] = 0;
        pre->std[c] = 1;
    }
    if (n > 1 && pre->channels > 1 && n != pre->channels)
        return mpqc_data_fail(err, "-mean and -std differ in length: %u and %u numbers",
                              is_std ? pre->channels : n, is_std ? n : pre->channels);
    float *to = is_std ? pre->std : pre->mean, *other = is_std ? pre->mean : pre->std;
    for (uint32_t c = 1; pre->channels == 1 && c < MAX_CHANNELS; c++) other[c] = other[0];
    if (n > pre->channels) pre->channels = n;
    for (uint32_t c = 0; c < MAX_CHANNELS; c++) to[c] = c < n ? v[c] : n == 1 ? v[0] : to[c];
    return 0;
}

int mpqc_preprocess_set(struct mpqc_preprocess *pre, const char *flag, const char *value,
                        struct mpqc_data_error *err)
{
    if (strcmp(flag, "scale") == 0) {
        float v[MAX_CHANNELS];
        if (parse_list(value, v) != 1 || v[0] == 0)
            return bad_value(flag, value, "one number other than 0", err);
        pre->scale = v[0];
        return 0;
    }
    if (strcmp(flag, "mean") == 0) return set_list(pre, flag, value, 0, err);
    if (strcmp(flag, "std") == 0) return set_list(pre, flag, value, 1, err);
    if (strcmp(flag, "layout") != 0)
        return mpqc_data_fail(err, "'-%s' is no flag of the pre-processing", flag);
    if (strcmp(value, "nhwc") != 0 && strcmp(value, "nchw") != 0)
        return bad_value(flag, value, "nhwc or nchw", err);
    pre->nhwc = strcmp(value, "nhwc") == 0;
    return 0;
}
