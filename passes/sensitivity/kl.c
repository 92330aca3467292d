/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Metric kl: Omega is the mean divergence KL(p || p') of the network's classes when one
 * layer is quantised, p without and p' with it, in nats a sample.  For outputs that are
 * no classes it is half the squared error, the divergence of two Gaussians of variance 1
 * around them.  Needs no labels; to second order it is the loss that the Gauss-Newton
 * matrix predicts.
 */
#include "passes/sensitivity/perturb.h"

mpqc_status mpqc_sens_kl(struct mpqc_sens_cx *s)
{
    const struct mpqc_bits *b = s->bits;
    struct mpqc_perturb p = {.divergence = true, .stage = "sensitivity: divergence by layer",
                             .distance = b->omega};
    MPQC_TRY(mpqc_perturb_open(s, &p));
    MPQC_TRY(mpqc_perturb_run(&p));
    for (size_t i = 0; i < (size_t)b->n_layers * mpqc_n_choices; i++)
        b->omega[i] /= (double)(p.samples ? p.samples : 1);
    return MPQC_OK;
}
