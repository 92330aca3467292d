/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights to few bits.  One layer at a time:
 *
 *   codes   q in [-2^(b-1), 2^(b-1) - 1], of 1 bit -1 and +1; real = scale[channel] * q.
 *           The scale may be negative, so that a channel can have the longer end of the
 *           range on either side: at 2 and 3 bits the eighth or fourth level is worth having
 *   rounding  nearest, or GPTQ (Frantar et al., "GPTQ", 2022) against the second moments
 *           of the layer's input, refined by coordinate descent
 *   scale   searched, then in closed form for the codes found
 *   groups  (dense layers) every `group` inputs have a factor of their own: the integers
 *           are factor * code (struct mpqc_groups)
 *
 * Used by quantise for the library's weights and by sensitivity metrics to know what a
 * choice of bits does to a layer.
 */
#ifndef MPQC_PASSES_WEIGHTS_H
#define MPQC_PASSES_WEIGHTS_H

#include "passes/pass.h"

/* What is known about the input of a layer (one group of it): means and central second
 * moments over many windows, and the products with what the layer should give. */
struct mpqc_moments {
    int64_t k, channels;
    uint64_t rows;    /* windows seen */
    float *xx;        /* [k][k] */
    float *xt;        /* [k][channels]; NULL: the target is what the float weights give */
    double *x, *t;    /* means: [k], [channels]; t NULL like xt */
};
/* Zeros, from `arena`. */
bool mpqc_moments_init(struct mpqc_moments *m, struct mpqc_arena *arena, int64_t k,
                       int64_t channels, bool target);
/* Adds n windows x[n][k] and their targets t[n][channels] (NULL as in init). */
mpqc_status mpqc_moments_add(struct mpqc_moments *m, unsigned threads, int64_t n, const float *x,
                             const float *t) MPQC_MUST_CHECK;
/* Sums become means; central: around the means, for a bias that takes up mean errors. */
void mpqc_moments_finish(struct mpqc_moments *m, bool central);

struct mpqc_round {
    int64_t k, channels;
    const float *w;          /* w[i * stride + c], i < k, c < channels */
    int64_t stride;
    unsigned bits;           /* 1..8 */
    enum mpqc_rounding rounding;
    enum mpqc_weight_clip clip;
    const struct mpqc_moments *moments; /* NULL: every input alike, independent */
    double largest_scale;    /* 0: any */
    int64_t group;           /* rows that share a factor; 0: none do */
    unsigned threads;
    /* results, made by the caller */
    int8_t *q;               /* as w */
    float *scale;            /* [channels]; 0 where all weights are 0, also if signs have no 0 */
    int8_t *factor;          /* [ceil(k / group)][stride]; may be NULL */
    double *loss;            /* [channels], may be NULL: expected squared error of the result */
};
/* Deterministic, whatever `threads`.  Fails only for lack of memory. */
mpqc_status mpqc_round_weights(struct mpqc_cx *cx, const struct mpqc_round *r) MPQC_MUST_CHECK;

/* Lower triangle L of the symmetric a[n][n] = L L^T, in place; what lies above the
 * diagonal is left.  Pivots that are not positive are replaced by `least`. */
mpqc_status mpqc_cholesky(float *a, int64_t n, float least, unsigned threads) MPQC_MUST_CHECK;

/* How many rows of such weights share a factor: options' group size, or 0. */
int64_t mpqc_weight_group(const struct mpqc_options *o, unsigned bits, const struct mpqc_type *w);

/* The dtype of weights of so many bits: I8, I6, I5, I4, I3, I2, I1. */
enum mpqc_dtype mpqc_weight_dtype(unsigned bits);

#endif
