/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What quantised layers do to the network's results, measured: the float graph is run
 * with the weights and the input of a layer put on the grid of a choice.
 */
#ifndef MPQC_PASSES_SENSITIVITY_PERTURB_H
#define MPQC_PASSES_SENSITIVITY_PERTURB_H

#include "passes/sensitivity/samples.h"

struct mpqc_perturb {
    struct mpqc_sens_cx *s;
    struct mpqc_sens_loss loss;
    /* Divergence of what the loss compares (KL between classes; half the squared error
     * where there are none), else squared error of the outputs. */
    bool divergence;
    bool accumulated; /* layers up to this one, in order; else this one alone */
    /* Variants: choice of layer l in variant k is k, or chosen[l] when that is not NULL
     * and there is one variant. */
    const uint32_t *chosen;
    uint32_t n_variants;
    uint64_t samples;
    const char *stage;
    /* Results, sums over the samples. */
    double *distance; /* [layer * n_variants + variant], allocated by the caller */
    double signal;    /* of the squares of the float outputs */
};
mpqc_status mpqc_perturb_run(struct mpqc_perturb *p) MPQC_MUST_CHECK;

/* For the report, in dB at the outputs, by layer: SQNR when only that layer is quantised
 * as bits->chosen says, and when all layers up to it are. */
mpqc_status mpqc_sens_plan_sqnr(struct mpqc_sens_cx *s, const uint32_t *chosen, double *isolated,
                                double *accumulated) MPQC_MUST_CHECK;

#endif
