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
    /* Of classes the logits are compared, else all outputs: by their divergence (KL; half
     * the squared error where there are no classes), or by their squared error. */
    bool divergence;
    /* Choice by layer that the layers before this one, in order, are quantised with;
     * NULL: they are left in float. */
    const uint32_t *prefix;
    uint64_t samples;
    const char *stage;
    /* Results, sums over the samples. */
    double *distance; /* [layer * mpqc_n_choices + choice], allocated by the caller; NaN where
                       * not asked for (mpqc_sens_asked) */
    double signal;    /* of the squares of the float outputs */
};
/* Chooses the loss that compares with the network's own answers, and how many samples. */
mpqc_status mpqc_perturb_open(struct mpqc_sens_cx *s, struct mpqc_perturb *p) MPQC_MUST_CHECK;
/* All choices that are asked for, of all layers, each layer with one of them at a time. */
mpqc_status mpqc_perturb_run(struct mpqc_perturb *p) MPQC_MUST_CHECK;

#endif
