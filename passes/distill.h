/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Calibration data made from the network itself, after ZeroQ (Cai et al., CVPR 2020).
 *
 * A BatchNormalization remembers the mean and the standard deviation of its input over
 * the training data.  Images that start as noise are moved by gradient descent until
 * they give the same statistics at every BatchNormalization; they then drive the
 * activations through the ranges that real images do.
 */
#ifndef MPQC_PASSES_DISTILL_H
#define MPQC_PASSES_DISTILL_H

#include "ir/exec.h"
#include "ir/ir.h"

struct mpqc_distill_options {
    uint64_t images; /* 0: the default, less for a large network */
    uint32_t steps;  /* 0: the same */
    /* Without statistics aim at the biases and the norms of weights, with a warning. */
    bool allow_weak;
    /* The range of each channel of real inputs, or of all (n_bounds 1), where it is known:
     * images stay inside.  Where it is not (n_bounds 0), their mean and standard deviation
     * are drawn to 0 and 1, as ZeroQ does. */
    const float *lo, *hi;
    uint32_t n_bounds;
};

struct mpqc_distilled {
    float *images;       /* [count][elements], owned */
    uint64_t count, elements;
    uint32_t targets;    /* layers whose statistics were matched */
    uint32_t steps;
    bool weak;
    double first_loss, last_loss; /* sum over layers of the mean over channels */
    const struct mpqc_allocator *allocator;
};

/* `g` is the float graph as imported, its BatchNorms not folded yet; it is not changed.
 * The result depends on g, the options and cx->seed, not on the number of threads. */
mpqc_status mpqc_distill(struct mpqc_cx *cx, const struct mpqc_engine *engine,
                         const struct mpqc_graph *g, const struct mpqc_distill_options *options,
                         struct mpqc_distilled *out) MPQC_MUST_CHECK;
void mpqc_distilled_release(struct mpqc_distilled *d);
/* Valid as long as *d is, which must not move. */
struct mpqc_dataset mpqc_distilled_dataset(struct mpqc_distilled *d);

#endif
