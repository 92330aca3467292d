/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Reverse-mode derivatives as a transformation of graphs.
 */
#ifndef MPQC_IR_AUTODIFF_H
#define MPQC_IR_AUTODIFF_H

#include "ir/build.h"

/* Appends to g the derivatives of `loss`, an f32 value of one element, with respect to
 * the f32 values wrt[0..n): inputs, constants or results of nodes.  grads[i] has the
 * type of wrt[i], or is MPQC_NONE when loss does not depend on it (or only through
 * operators whose derivative is zero).  Needs a valid order, and leaves one.
 *
 * The new nodes are ordinary operators, so it can be applied to its own results:
 * the derivative of sum <grads[i], v[i]> is the product of the Hessian with v.
 *
 * An operator between wrt and loss that has no derivative is an error at its node.
 * What turns out to be unneeded dies at the next mpqc_graph_normalise. */
mpqc_status mpqc_autodiff(struct mpqc_cx *cx, struct mpqc_graph *g, mpqc_vid loss,
                          const mpqc_vid *wrt, uint32_t n, mpqc_vid *grads) MPQC_MUST_CHECK;
/* The same with a builder, so that what exists is shared. */
mpqc_status mpqc_autodiff_build(struct mpqc_build *b, mpqc_vid loss, const mpqc_vid *wrt,
                                uint32_t n, mpqc_vid *grads) MPQC_MUST_CHECK;

/* <v, d>, where d is a derivative that mpqc_autodiff gave.  For d = conv_dw(x, dy) it is
 * <conv(x, v), dy> when the graph has that convolution (or <x, conv_dx(dy, v)>), as it
 * does in a second derivative; so the costly d itself dies. */
mpqc_vid mpqc_build_dot(struct mpqc_build *b, mpqc_vid v, mpqc_vid d);

#endif
