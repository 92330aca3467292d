/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Graphs that measure the curvature of a network's loss in its weights.  They are made
 * from a float graph with one output, and run by any mpqc_engine, one sample (or what
 * the graph's batch is) at a time; memory is what one run takes.
 *
 * Samples are independent: losses, gradients and <v, H v> of a data set are means over
 * its samples, which may run on several threads, a runner each.
 */
#ifndef MPQC_IR_HVP_H
#define MPQC_IR_HVP_H

#include "ir/loss.h"

struct mpqc_hvp {
    const struct mpqc_graph *net; /* in order; stays as it is */
    enum mpqc_loss_kind loss;
    const mpqc_vid *weights; /* f32 values of net, constants as a rule */
    uint32_t n;
};

/* Inputs: the network's, the target (of mpqc_loss_target_type), v_1 .. v_n of the types
 * of the weights.  Outputs: <v_l, (H v)_l> for each weight, f32[1], then the loss.
 *
 * H v is exact (a second reverse pass).  Where v_l is +-1 at random, the mean of
 * <v_l, (H v)_l> is the trace of the l-th diagonal block (Hutchinson).  A weight that the
 * loss does not depend on gives 0.  Costs six convolutions for each of the network's. */
mpqc_status mpqc_hvp_probe(struct mpqc_cx *cx, const struct mpqc_hvp *h,
                           struct mpqc_graph *out) MPQC_MUST_CHECK;
/* The same inputs and outputs with the Gauss-Newton matrix G = J^T H_z J in place of H: J
 * is the Jacobian of the logits (of y, for the squared error) and H_z the Hessian of the
 * loss by them, for targets of sum 1.  G is positive semidefinite, and equal to H where
 * the target is the network's own answer (mpqc_hvp_reference), which needs no labels.
 * Costs four convolutions for each of the network's. */
mpqc_status mpqc_hvp_gauss_newton(struct mpqc_cx *cx, const struct mpqc_hvp *h,
                                  struct mpqc_graph *out) MPQC_MUST_CHECK;
/* The inputs of the probe; outputs: the vectors (H v)_l, then the loss. */
mpqc_status mpqc_hvp_product(struct mpqc_cx *cx, const struct mpqc_hvp *h,
                             struct mpqc_graph *out) MPQC_MUST_CHECK;
/* Inputs: the network's, the target.  Outputs: the gradient by each weight, then the loss. */
mpqc_status mpqc_hvp_gradient(struct mpqc_cx *cx, const struct mpqc_hvp *h,
                              struct mpqc_graph *out) MPQC_MUST_CHECK;
/* Inputs: the network's.  Output: the network's own answer as a target (not for
 * MPQC_LOSS_CROSS_ENTROPY, whose target is a label). */
mpqc_status mpqc_hvp_reference(struct mpqc_cx *cx, const struct mpqc_hvp *h,
                               struct mpqc_graph *out) MPQC_MUST_CHECK;

#endif
