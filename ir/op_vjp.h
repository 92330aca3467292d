/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the files ir/op_vjp*.c share: derivatives of operators, as expressions.
 *
 * The function of an operator y = f(x_0, x_1, ...) gets dy, the derivative of some
 * scalar by y (of y's type), and gives dx[i], the scalar's derivative by x_i: the
 * product of dy with the Jacobian, hence vjp.  Only inputs with want[i] are asked
 * for; dx[i] left at MPQC_NONE is zero.  Where a function has a corner, its
 * derivative there is one of the two sides', as each comment says.
 */
#ifndef MPQC_IR_OP_VJP_H
#define MPQC_IR_OP_VJP_H

#include "ir/build.h"

struct mpqc_vjp {
    struct mpqc_build *b;
    const struct mpqc_node *n; /* a copy, so it does not move */
    mpqc_vid x, y, dy;         /* input 0, output 0, derivative by output 0 */
    bool want[MPQC_MAX_INPUTS];
    mpqc_vid dx[MPQC_MAX_INPUTS];
};

static inline mpqc_vid mul(struct mpqc_vjp *q, mpqc_vid a, mpqc_vid b)
{
    return mpqc_build_mul(q->b, a, b);
}

static inline mpqc_vid add(struct mpqc_vjp *q, mpqc_vid a, mpqc_vid b)
{
    return mpqc_build_2(q->b, MPQC_OP_ADD, a, b);
}

static inline mpqc_vid sub(struct mpqc_vjp *q, mpqc_vid a, mpqc_vid b)
{
    return mpqc_build_2(q->b, MPQC_OP_SUB, a, b);
}

static inline mpqc_vid divide(struct mpqc_vjp *q, mpqc_vid a, mpqc_vid b)
{
    return mpqc_build_2(q->b, MPQC_OP_DIV, a, b);
}

static inline mpqc_vid apply(struct mpqc_vjp *q, enum mpqc_op op, mpqc_vid a)
{
    return mpqc_build_1(q->b, op, a);
}

static inline mpqc_vid scale(struct mpqc_vjp *q, mpqc_vid a, float c)
{
    return mpqc_build_scale(q->b, a, c);
}

static inline mpqc_vid shift(struct mpqc_vjp *q, mpqc_vid a, float c)
{
    return mpqc_build_shift(q->b, a, c);
}

/* v where x > 0, else 0. */
static inline mpqc_vid where_positive(struct mpqc_vjp *q, mpqc_vid x, mpqc_vid v)
{
    return mpqc_build_2(q->b, MPQC_OP_RELU_GRAD, x, v);
}

/* min(x, 0) */
static inline mpqc_vid negative_part(struct mpqc_vjp *q, mpqc_vid x)
{
    return apply(q, MPQC_OP_NEG, apply(q, MPQC_OP_RELU, apply(q, MPQC_OP_NEG, x)));
}

static inline struct mpqc_type type_of(const struct mpqc_vjp *q, mpqc_vid v)
{
    return mpqc_build_type(q->b, v);
}

/* dx[i] = d, summed over what broadcasting repeated. */
static inline void give(struct mpqc_vjp *q, uint32_t i, mpqc_vid d)
{
    struct mpqc_type t = type_of(q, q->n->in[i]);
    q->dx[i] = mpqc_build_sum_to(q->b, d, &t);
}

#endif
