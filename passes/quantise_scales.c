/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Scales of weights: symmetric, one per output channel, codes in [-top, top] with
 * top = 2^(bits-1) - 1.
 *
 * From 8 bits on, a channel's largest weight gets the largest code.  Below, rounding
 * costs more than clipping a few outliers: each channel is clipped where its squared
 * error is least (Banner et al., "Post training 4-bit quantization of convolutional
 * networks", 2019, by search instead of a distribution).  At 2 bits the best clip of a
 * Gaussian is near 0.4 of its extreme, at 8 bits near 1.
 *
 * Weights are [rows][channels]; channels are done in blocks so that loops run along
 * contiguous memory and nothing is allocated.
 */
#include "passes/quantise.h"

#include <math.h>

#define SMALLEST_SCALE 1e-20
#define BLOCK 64
#define CLIP_STEPS 24
#define CLIP_LEAST 0.3
#define CLIPPED_BELOW 8 /* bits */

/* To the nearest integer, ties to even, for |x| < 2^22: the sum has no fraction bits. */
#define ROUNDER 12582912.0f

struct block {
    const float *w;
    int64_t rows, stride;
    int n;
    float top;
};

static float round_code(float x, float top)
{
    x = x > top ? top : x < -top ? -top : x;
    return (x + ROUNDER) - ROUNDER;
}

static void block_peak(const struct block *b, double *peak)
{
    for (int c = 0; c < b->n; c++) peak[c] = 0;
    for (int64_t r = 0; r < b->rows; r++)
        for (int c = 0; c < b->n; c++)
            peak[c] = fmax(peak[c], fabs((double)b->w[r * b->stride + c]));
}

/* Squared error per channel with these scales (0: the channel is zero). */
static void block_error(const struct block *b, const double *scale, double *error)
{
    float s[BLOCK], inverse[BLOCK];
    for (int c = 0; c < b->n; c++) {
        s[c] = (float)scale[c];
        inverse[c] = s[c] > 0 ? 1.0f / s[c] : 0;
        error[c] = 0;
    }
    for (int64_t r = 0; r < b->rows; r++) {
        const float *w = b->w + r * b->stride;
        for (int c = 0; c < b->n; c++) {
            float e = w[c] - round_code(w[c] * inverse[c], b->top) * s[c];
            error[c] += (double)(e * e);
        }
    }
}

static void block_scales(const struct block *b, unsigned bits, double *scale)
{
    double peak[BLOCK], trial[BLOCK], error[BLOCK], best[BLOCK];
    block_peak(b, peak);
    for (int c = 0; c < b->n; c++) {
        scale[c] = peak[c] > 0 ? (float)fmax(peak[c] / (double)b->top, SMALLEST_SCALE) : 0;
        best[c] = INFINITY;
    }
    if (bits >= CLIPPED_BELOW) return;
    for (int i = 0; i <= CLIP_STEPS; i++) {
        double clip = 1 - (1 - CLIP_LEAST) * i / CLIP_STEPS;
        for (int c = 0; c < b->n; c++)
            trial[c] = peak[c] > 0 ? (float)fmax(peak[c] * clip / (double)b->top, SMALLEST_SCALE) : 0;
        block_error(b, trial, error);
        for (int c = 0; c < b->n; c++) {
            if (error[c] >= best[c]) continue;
            best[c] = error[c];
            scale[c] = trial[c];
        }
    }
}

static struct block block_at(const float *w, int64_t rows, int64_t channels, int64_t first,
                             unsigned bits)
{
    int64_t left = channels - first;
    return (struct block){.w = w + first, .rows = rows, .stride = channels,
                          .n = left < BLOCK ? (int)left : BLOCK,
                          .top = (float)((1u << (bits - 1)) - 1)};
}

void mpqc_weights_channel_scales(const float *w, int64_t rows, int64_t channels, unsigned bits,
                                 double *scale)
{
    for (int64_t c = 0; c < channels; c += BLOCK) {
        struct block b = block_at(w, rows, channels, c, bits);
        block_scales(&b, bits, scale + c);
    }
}

double mpqc_weights_fake(const float *w, int64_t rows, int64_t channels, unsigned bits, float *out)
{
    double scale[BLOCK], error[BLOCK], sum = 0;
    for (int64_t first = 0; first < channels; first += BLOCK) {
        struct block b = block_at(w, rows, channels, first, bits);
        block_scales(&b, bits, scale);
        block_error(&b, scale, error);
        for (int c = 0; c < b.n; c++) sum += error[c];
        for (int64_t r = 0; out && r < rows; r++)
            for (int c = 0; c < b.n; c++) {
                float s = (float)scale[c];
                float q = s > 0 ? round_code(b.w[r * channels + c] * (1.0f / s), b.top) : 0;
                out[r * channels + first + c] = q * s;
            }
    }
    return sum;
}
