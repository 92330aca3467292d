/* SPDX-License-Identifier: MIT
 *
 * Which file feeds which input of the model, and how.
 */
#include "driver/run.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int fail(struct mpqc_data_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static int fail(struct mpqc_data_error *err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    return -1;
}

/* Puts the file in front of a sentence that does not have it. */
static int fail_in(struct mpqc_data_error *err, const char *path)
{
    struct mpqc_data_error inner = *err;
    return fail(err, "%.200s: %.300s", path, inner.text);
}

int mpqc_run_preprocess(const struct run_options *o, const struct mpqc_io *io,
                        struct mpqc_preprocess *pre, int *known, struct mpqc_data_error *err)
{
    *pre = (struct mpqc_preprocess){.channels = 0};
    *known = io->preprocess || o->n_pre;
    if (io->preprocess) *pre = *io->preprocess;
    for (uint32_t i = 0; i < o->n_pre; i++)
        if (mpqc_preprocess_set(pre, o->pre[i].flag, o->pre[i].value, err)) return -1;
    return 0;
}

static int element_of(enum mpqc_data_type type)
{
    switch (type) {
    case MPQC_DATA_F32: return MPQC_ELEM_F32;
    case MPQC_DATA_U8: return MPQC_ELEM_U8;
    case MPQC_DATA_I8: return MPQC_ELEM_I8;
    case MPQC_DATA_I16: return MPQC_ELEM_I16;
    case MPQC_DATA_I32: return MPQC_ELEM_I32;
    case MPQC_DATA_I64: return MPQC_ELEM_I64;
    default: return 0;
    }
}

static enum run_conversion conversion_for(const struct mpqc_array *a, const struct mpqc_io *io,
                                          int pre_known)
{
    /* u8 data is taken for pixels, unless nothing says what pixels would mean */
    if (io->element == MPQC_ELEM_F32) return RUN_FLOAT;
    int same = element_of(a->type) == (int)io->element;
    if (same && (a->type != MPQC_DATA_U8 || !pre_known)) return RUN_RAW;
    return RUN_QUANTISED;
}

/* By the name in the flag, by the array's own name, or because there is no choice. */
static int find_array(const struct run_options *o, struct run_inputs *all, struct run_input *in,
                      int only_input)
{
    for (uint32_t i = 0; i < o->n_in; i++) {
        const char *wanted = o->in[i].name;
        if (wanted[0] && strcmp(wanted, in->io->name) != 0) continue;
        const struct mpqc_array *a = mpqc_data_array(all->files[i], in->io->name);
        int by_key = a && a->name && strcmp(a->name, in->io->name) == 0;
        if (a && (wanted[0] || by_key || only_input)) {
            in->array = a;
            in->path = o->in[i].path;
            return 0;
        }
    }
    return -1;
}

static int bind(const struct run_options *o, struct run_inputs *all, struct run_input *in,
                const struct mpqc_model *m, struct mpqc_data_error *err)
{
    int known;
    uint64_t n;
    if (mpqc_run_preprocess(o, in->io, &in->pre, &known, err)) return -1;
    if (find_array(o, all, in, m->n_inputs == 1))
        return fail(err, "no data for input '%s'; give -in=%s:PATH, or an .npz with that key",
                    in->io->name, in->io->name);
    in->conversion = conversion_for(in->array, in->io, known && !o->raw);
    if (o->raw && in->conversion != RUN_RAW)
        return fail(err, "%s: -raw, but the data is %s and input '%s' is %s", in->path,
                    mpqc_data_type_name(in->array->type), in->io->name,
                    mpqc_element_name(in->io->element));
    const struct mpqc_preprocess *pre = in->conversion == RUN_RAW ? NULL : &in->pre;
    if (mpqc_array_check(in->array, in->io->name, in->io->rank, in->io->dims, pre, &n, err))
        return fail_in(err, in->path);
    if (in != all->inputs && n != all->samples)
        return fail(err, "%s: %llu samples for input '%s', but %llu for '%s'", in->path,
                    (unsigned long long)n, in->io->name, (unsigned long long)all->samples,
                    all->inputs[0].io->name);
    all->samples = n;
    return 0;
}

/* A flag that names an input which does not exist is a typing error. */
static int check_names(const struct run_options *o, const struct mpqc_model *m,
                       struct mpqc_data_error *err)
{
    for (uint32_t i = 0; i < o->n_in; i++) {
        int known = !o->in[i].name[0];
        for (uint32_t k = 0; k < m->n_inputs && !known; k++)
            known = strcmp(m->inputs[k].name, o->in[i].name) == 0;
        if (!known)
            return fail(err, "-in names input '%s', which the model does not have; its first "
                             "input is '%s'",
                        o->in[i].name, m->n_inputs ? m->inputs[0].name : "");
    }
    return 0;
}

static const struct mpqc_io *io_called(const struct mpqc_model *m, const char *name)
{
    for (uint32_t k = 0; k < m->n_inputs; k++)
        if (strcmp(m->inputs[k].name, name) == 0) return &m->inputs[k];
    return &m->inputs[0];
}

static int allocate(struct run_input *in, struct mpqc_data_error *err)
{
    size_t bytes = (size_t)in->io->bytes;
    size_t elements = bytes / mpqc_element_size(in->io->element);
    in->tensor = malloc(bytes ? bytes : 1);
    if (in->conversion == RUN_QUANTISED) in->real = malloc((elements + 1) * sizeof *in->real);
    if (in->tensor && (in->real || in->conversion != RUN_QUANTISED)) return 0;
    return fail(err, "out of memory for input '%s'", in->io->name);
}

int mpqc_run_inputs_open(const struct run_options *o, const struct mpqc_model *m,
                         struct run_inputs *all, struct mpqc_data_error *err)
{
    *all = (struct run_inputs){.samples = 1};
    if (m->n_inputs == 0 || m->n_inputs > RUN_MAX)
        return fail(err, "the model has %u inputs; between 1 and %d are supported", m->n_inputs,
                    RUN_MAX);
    if (check_names(o, m, err)) return -1;
    for (uint32_t i = 0; i < o->n_in; i++) {
        const struct mpqc_io *io = io_called(m, o->in[i].name);
        if (mpqc_data_open(o->in[i].path, io->rank, io->dims, &all->files[i], err)) return -1;
        all->n_files = i + 1;
    }
    for (uint32_t i = 0; i < m->n_inputs; i++) {
        struct run_input *in = &all->inputs[i];
        in->io = &m->inputs[i];
        in->conversion = RUN_MADE_UP;
        all->n = i + 1;
        if (o->n_in && bind(o, all, in, m, err)) return -1;
        if (allocate(in, err)) return -1;
    }
    return 0;
}

void mpqc_run_inputs_close(struct run_inputs *all)
{
    for (uint32_t i = 0; i < all->n_files; i++) mpqc_data_close(all->files[i]);
    for (uint32_t i = 0; i < all->n; i++) {
        free(all->inputs[i].tensor);
        free(all->inputs[i].real);
    }
}

/* ---- filling ---- */

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Numbers without zeros: some kernels are faster on zeros, which real data is not. */
static void make_up(const struct run_input *in)
{
    uint64_t state = 1;
    size_t size = mpqc_element_size(in->io->element), n = (size_t)in->io->bytes / size;
    for (size_t i = 0; i < n; i++) {
        uint64_t r = next_random(&state);
        if (in->io->element == MPQC_ELEM_F32) {
            float v = ((float)(r >> 40) + 0.5f) * 0x1p-23f - 1.0f;
            memcpy((char *)in->tensor + i * size, &v, size);
        } else {
            /* 1..127 fits, and means something, in every integer type */
            int64_t v = (int64_t)(r >> 32) % 127 + 1;
            memcpy((char *)in->tensor + i * size, &v, size); /* little-endian */
        }
    }
}

static float limit(float v, float lo, float hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* q = clamp(round_half_even(x / scale) + zero_point), as the compiled model itself
 * does at a float input. */
static void quantise(const struct mpqc_io *io, const float *x, void *out)
{
    static const float lows[] = {[MPQC_ELEM_U8] = 0, [MPQC_ELEM_I8] = -128,
                                 [MPQC_ELEM_I16] = -32768, [MPQC_ELEM_I32] = -0x1p31f,
                                 [MPQC_ELEM_I64] = -0x1p62f};
    static const float highs[] = {[MPQC_ELEM_U8] = 255, [MPQC_ELEM_I8] = 127,
                                  [MPQC_ELEM_I16] = 32767, [MPQC_ELEM_I32] = 0x1.fffffep30f,
                                  [MPQC_ELEM_I64] = 0x1p62f};
    size_t size = mpqc_element_size(io->element), n = (size_t)io->bytes / size;
    float lo = lows[io->element], hi = highs[io->element], inverse = 1.0f / io->scale;
    for (size_t i = 0; i < n; i++) {
        float r = rintf(limit(x[i] * inverse, -0x1p62f, 0x1p62f)) + (float)io->zero_point;
        int64_t q = (int64_t)limit(r, lo, hi);
        memcpy((char *)out + i * size, &q, size); /* little-endian */
    }
}

static int fill(struct run_input *in, uint64_t index, struct mpqc_data_error *err)
{
    const struct mpqc_io *io = in->io;
    switch (in->conversion) {
    case RUN_MADE_UP: make_up(in); return 0;
    case RUN_RAW:
        return mpqc_array_raw_sample(in->array, index, in->tensor, (size_t)io->bytes, err);
    case RUN_FLOAT:
        return mpqc_array_sample(in->array, io->rank, io->dims, &in->pre, index, in->tensor, err);
    case RUN_QUANTISED: break;
    }
    if (mpqc_array_sample(in->array, io->rank, io->dims, &in->pre, index, in->real, err))
        return -1;
    quantise(io, in->real, in->tensor);
    return 0;
}

int mpqc_run_inputs_fill(struct run_inputs *all, uint64_t index, struct mpqc_data_error *err)
{
    for (uint32_t i = 0; i < all->n; i++)
        if (fill(&all->inputs[i], index, err)) return fail_in(err, all->inputs[i].path);
    return 0;
}
