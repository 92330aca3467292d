/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * For metrics that run the network with quantised layers: the weights that a layer would
 * have with few bits, rounded as the options ask quantise to do it (GPTQ by default), for
 * the second moments of its input in the float network.
 */
#ifndef MPQC_PASSES_SENSITIVITY_ROUNDED_H
#define MPQC_PASSES_SENSITIVITY_ROUNDED_H

#include "passes/sensitivity/samples.h"

#define MPQC_SENS_MOST_BITS 16

/* By bits of the weights, for those of choices that are asked for; NULL elsewhere, and for a
 * layer without weights. */
struct mpqc_sens_rounded {
    const float *weights[MPQC_SENS_MOST_BITS + 1]; /* real values, shaped as the layer's */
    const float *shift[MPQC_SENS_MOST_BITS + 1];   /* [channels], to add to the bias */
};
/* Layers first .. first + n, into out[0 .. n); memory from `arena`.  Deterministic.  The
 * first `skip` samples are left out where others are enough: rounding fits what it sees,
 * so its error is to be measured with those. */
mpqc_status mpqc_sens_round(struct mpqc_sens_cx *s, uint32_t first, uint32_t n, uint64_t skip,
                            struct mpqc_arena *arena, struct mpqc_sens_rounded *out)
    MPQC_MUST_CHECK;

#endif
