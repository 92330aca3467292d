/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights as they will be, without the graph: 8-bit scales, and what any number of bits
 * makes of a layer.  Weights are [rows][channels], symmetric at 8 bits: a channel's
 * largest weight gets the code 127.
 */
#include "passes/quantise.h"
#include "passes/weights.h"

#include <math.h>

#define WEIGHT_MAX 127.0

void mpqc_weights_channel_scales(const float *w, int64_t rows, int64_t channels, double *scale)
{
    for (int64_t c = 0; c < channels; c++) scale[c] = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++)
            scale[c] = fmax(scale[c], fabs((double)w[r * channels + c]));
    for (int64_t c = 0; c < channels; c++)
        scale[c] = scale[c] > 0 ? (float)fmax(scale[c] / WEIGHT_MAX, MPQC_LEAST_SCALE) : 0;
}

/* 8 bits, as quantise does it. */
static mpqc_status nearest(const float *w, int64_t rows, int64_t channels, struct mpqc_arena *arena,
                           int8_t *codes, float *scale)
{
    double *s = MPQC_NEW_ARRAY(arena, double, (size_t)channels);
    if (!s) return MPQC_NO_MEMORY;
    mpqc_weights_channel_scales(w, rows, channels, s);
    for (int64_t c = 0; c < channels; c++) scale[c] = (float)s[c];
    for (int64_t i = 0; i < rows * channels; i++) {
        double x = s[i % channels] > 0 ? rint((double)w[i] / s[i % channels]) : 0;
        codes[i] = (int8_t)fmin(fmax(x, -WEIGHT_MAX), WEIGHT_MAX);
    }
    return MPQC_OK;
}

static mpqc_status fake(const struct mpqc_pass_cx *p, struct mpqc_arena *arena, const float *w,
                        const struct mpqc_type *type, unsigned bits, float *out, double *error)
{
    int64_t channels = type->dims[type->rank - 1], rows = mpqc_type_count(type) / channels;
    int8_t *codes = MPQC_NEW_ARRAY(arena, int8_t, (size_t)(rows * channels));
    float *scale = MPQC_NEW_ARRAY(arena, float, (size_t)channels);
    if (arena->failed) return MPQC_NO_MEMORY;
    struct mpqc_round r = {.k = rows, .channels = channels, .w = w, .stride = channels,
                           .bits = bits, .rounding = MPQC_ROUND_NEAREST,
                           .clip = p->options->weight_clip, .threads = p->cx->threads, .q = codes,
                           .group = mpqc_weight_group(p->options, bits, type), .scale = scale};
    MPQC_TRY(bits == 8 ? nearest(w, rows, channels, arena, codes, scale)
                       : mpqc_round_weights(p->cx, &r));
    *error = 0;
    for (int64_t i = 0; i < rows * channels; i++) {
        float x = (float)codes[i] * scale[i % channels];
        *error += ((double)w[i] - x) * ((double)w[i] - x);
        if (out) out[i] = x;
    }
    return MPQC_OK;
}

mpqc_status mpqc_weights_fake(const struct mpqc_pass_cx *p, const float *w,
                              const struct mpqc_type *type, unsigned bits, float *out,
                              double *error)
{
    struct mpqc_arena arena;
    *error = 0;
    if (mpqc_type_count(type) == 0) return MPQC_OK;
    mpqc_arena_init(&arena, p->cx->allocator);
    mpqc_status status = fake(p, &arena, w, type, bits, out, error);
    mpqc_arena_release(&arena);
    return status == MPQC_NO_MEMORY ? MPQC_OOM(p->cx) : status;
}
