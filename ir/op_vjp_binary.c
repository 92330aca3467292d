/* SPDX-License-Identifier: GPL-3.0-or-later
 * Derivatives of operators on two operands, which broadcast: each gets the sum
 * over what was repeated.
 */
#include "ir/op.h"
#include "ir/op_vjp.h"

void mpqc_vjp_add(struct mpqc_vjp *q)
{
    if (q->want[0]) give(q, 0, q->dy);
    if (q->want[1]) give(q, 1, q->dy);
}

void mpqc_vjp_sub(struct mpqc_vjp *q)
{
    if (q->want[0]) give(q, 0, q->dy);
    if (q->want[1]) give(q, 1, apply(q, MPQC_OP_NEG, q->dy));
}

void mpqc_vjp_mul(struct mpqc_vjp *q)
{
    if (q->want[0]) give(q, 0, mul(q, q->dy, q->n->in[1]));
    if (q->want[1]) give(q, 1, mul(q, q->dy, q->n->in[0]));
}

void mpqc_vjp_div(struct mpqc_vjp *q)
{
    mpqc_vid by_b = divide(q, q->dy, q->n->in[1]);
    if (q->want[0]) give(q, 0, by_b);
    if (q->want[1]) give(q, 1, apply(q, MPQC_OP_NEG, mul(q, by_b, q->y)));
}

/* b a^(b - 1), and y log(a): the latter needs a > 0, as the derivative does. */
void mpqc_vjp_pow(struct mpqc_vjp *q)
{
    mpqc_vid a = q->n->in[0], b = q->n->in[1];
    if (q->want[0]) {
        mpqc_vid power = mpqc_build_2(q->b, MPQC_OP_POW, a, shift(q, b, -1.0f));
        give(q, 0, mul(q, q->dy, mul(q, b, power)));
    }
    if (q->want[1]) give(q, 1, mul(q, q->dy, mul(q, q->y, apply(q, MPQC_OP_LOG, a))));
}

/* The larger, or smaller, operand gets it; the first one when they are equal. */
void mpqc_vjp_extreme(struct mpqc_vjp *q)
{
    bool max = q->n->op == MPQC_OP_MAX;
    mpqc_vid a = q->n->in[0], b = q->n->in[1];
    mpqc_vid second = where_positive(q, max ? sub(q, b, a) : sub(q, a, b), q->dy);
    if (q->want[0]) give(q, 0, sub(q, q->dy, second));
    if (q->want[1]) give(q, 1, second);
}

/* a < 0 ? a b : a, with slope b at 0. */
void mpqc_vjp_prelu(struct mpqc_vjp *q)
{
    mpqc_vid a = q->n->in[0], b = q->n->in[1];
    if (q->want[0]) {
        struct mpqc_type y = type_of(q, q->y);
        mpqc_vid up = where_positive(q, mpqc_build_expand(q->b, a, &y), q->dy);
        give(q, 0, add(q, up, mul(q, sub(q, q->dy, up), b)));
    }
    if (q->want[1]) give(q, 1, mul(q, q->dy, negative_part(q, a)));
}

void mpqc_vjp_where(struct mpqc_vjp *q)
{
    mpqc_vid c = q->n->in[0], zero = mpqc_build_scalar(q->b, 0.0f);
    if (q->want[1]) give(q, 1, mpqc_build_3(q->b, MPQC_OP_WHERE, c, q->dy, zero));
    if (q->want[2]) give(q, 2, mpqc_build_3(q->b, MPQC_OP_WHERE, c, zero, q->dy));
}

/* sum of a * b */
void mpqc_vjp_dot(struct mpqc_vjp *q)
{
    struct mpqc_type t = type_of(q, q->x);
    for (uint32_t i = 0; i < 2; i++) {
        if (q->want[i])
            q->dx[i] = mpqc_build_expand(q->b, mul(q, q->n->in[1 - i], mpqc_build_reshape(
                                                   q->b, q->dy, 0, NULL)), &t);
    }
}
