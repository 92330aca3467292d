/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Metric fisher: the mean squared gradient of the loss, by weights and by inputs of every
 * layer, in the place of the mean trace of the Hessian; first derivatives only.
 *
 * With labels it is the "empirical" Fisher information: gradients of the loss of the data.
 * It vanishes where the network has learned its data by heart (Kunstner et al.,
 * "Limitations of the empirical Fisher approximation", 2019), so labelled data that it was
 * not trained on is what it wants.  Without labels answers come from the network's own
 * distribution, which makes it the Fisher information itself, equal to the Gauss-Newton
 * matrix, and the metric that of hessian-trace.
 */
#include "passes/sensitivity/curvature.h"

mpqc_status mpqc_sens_fisher(struct mpqc_sens_cx *s)
{
    return mpqc_curve_metric(s, s->labels ? MPQC_CURVE_LABELS : MPQC_CURVE_FACTOR);
}
