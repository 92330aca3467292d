/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Metric hessian-trace: the mean trace of the Hessian of the loss, by weights and by
 * inputs of every layer, times the squared error of quantisation (HAWQ-V2, Dong et al.,
 * 2020).  See trace.c for the estimate and curvature.h for Omega.
 */
#include "passes/sensitivity/curvature.h"

mpqc_status mpqc_sens_hessian_trace(struct mpqc_sens_cx *s)
{
    return mpqc_curve_metric(s, MPQC_CURVE_BEST);
}
