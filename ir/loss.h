/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Losses: a network's output and a target become one number.
 */
#ifndef MPQC_IR_LOSS_H
#define MPQC_IR_LOSS_H

#include "ir/build.h"

enum mpqc_loss_kind {
    MPQC_LOSS_CROSS_ENTROPY, /* -sum t log softmax(z); t: one-hot */
    MPQC_LOSS_KL,            /* the same with t the probabilities of a reference.  It differs
                                from the divergence by the entropy of t, a constant; where t
                                are the network's own probabilities its gradient is zero and
                                its Hessian the Gauss-Newton matrix */
    MPQC_LOSS_SQUARED_ERROR  /* sum (y - t)^2 / 2 */
};

/* What the loss compares with the target: the logits z before a softmax (or the
 * logarithm of one) at the end of the network, found through reshapes; else the output
 * itself.  *axis is the axis of the classes in it. */
mpqc_vid mpqc_loss_logits(const struct mpqc_graph *g, mpqc_vid output, int64_t *axis);

/* f32[1].  `target` has the type of the logits (of y, for the squared error).  Samples of
 * a batch, and rows of logits, are summed. */
mpqc_vid mpqc_loss_cross_entropy(struct mpqc_build *b, mpqc_vid output, mpqc_vid target);
mpqc_vid mpqc_loss_kl(struct mpqc_build *b, mpqc_vid output, mpqc_vid reference);
mpqc_vid mpqc_loss_squared_error(struct mpqc_build *b, mpqc_vid y, mpqc_vid target);
mpqc_vid mpqc_loss(struct mpqc_build *b, enum mpqc_loss_kind kind, mpqc_vid output,
                   mpqc_vid target);
/* The type of the target, and the network's own answer as a target for MPQC_LOSS_KL (its
 * probabilities) and MPQC_LOSS_SQUARED_ERROR (its output). */
struct mpqc_type mpqc_loss_target_type(const struct mpqc_graph *g, enum mpqc_loss_kind kind,
                                       mpqc_vid output);
mpqc_vid mpqc_loss_own_target(struct mpqc_build *b, enum mpqc_loss_kind kind, mpqc_vid output);

#endif
