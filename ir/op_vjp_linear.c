/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Derivatives of convolutions, matrix products and windows.
 *
 * A convolution y(x, w) is linear in x and in w, so the three operators conv(x, w),
 * conv_dx(y, w) and conv_dw(x, y) are the three ways to contract the trilinear form
 * T(x, w, y) = <conv(x, w), y>, and the derivative of each is the other two.
 */
#include "ir/op.h"
#include "ir/op_vjp.h"

#define BIT(key) (1ull << MPQC_ATTR_##key)

/* The attributes that all three have. */
static struct mpqc_attrs window_of(const struct mpqc_vjp *q)
{
    return mpqc_build_attrs(q->n, BIT(SHAPE) | BIT(KERNEL));
}

static mpqc_vid conv(struct mpqc_vjp *q, mpqc_vid x, mpqc_vid w)
{
    struct mpqc_attrs a = window_of(q);
    const mpqc_vid in[] = {x, w};
    return mpqc_build_op(q->b, MPQC_OP_CONV, in, 2, &a);
}

/* `x` only tells the shape. */
static mpqc_vid conv_dx(struct mpqc_vjp *q, mpqc_vid dy, mpqc_vid w, mpqc_vid x)
{
    struct mpqc_attrs a = window_of(q);
    struct mpqc_type t = type_of(q, x);
    const mpqc_vid in[] = {dy, w};
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, t.rank, t.dims);
    return mpqc_build_op(q->b, MPQC_OP_CONV_DX, in, 2, &a);
}

static mpqc_vid conv_dw(struct mpqc_vjp *q, mpqc_vid x, mpqc_vid dy, mpqc_vid w)
{
    struct mpqc_attrs a = window_of(q);
    struct mpqc_type t = type_of(q, w);
    const mpqc_vid in[] = {x, dy};
    mpqc_attrs_ints(&a, MPQC_ATTR_KERNEL, 2, t.dims);
    return mpqc_build_op(q->b, MPQC_OP_CONV_DW, in, 2, &a);
}

void mpqc_vjp_conv(struct mpqc_vjp *q)
{
    mpqc_vid x = q->n->in[0], w = q->n->in[1];
    if (q->want[0]) q->dx[0] = conv_dx(q, q->dy, w, x);
    if (q->want[1]) q->dx[1] = conv_dw(q, x, q->dy, w);
    if (q->n->n_in > 2 && q->want[2]) give(q, 2, q->dy);
}

void mpqc_vjp_conv_dx(struct mpqc_vjp *q)
{
    mpqc_vid dy = q->n->in[0], w = q->n->in[1];
    if (q->want[0]) q->dx[0] = conv(q, q->dy, w);
    if (q->want[1]) q->dx[1] = conv_dw(q, q->dy, dy, w);
}

void mpqc_vjp_conv_dw(struct mpqc_vjp *q)
{
    mpqc_vid x = q->n->in[0], dy = q->n->in[1];
    if (q->want[0]) q->dx[0] = conv_dx(q, dy, q->dy, x);
    if (q->want[1]) q->dx[1] = conv(q, x, q->dy);
}

/* The last two axes swapped. */
static mpqc_vid swapped(struct mpqc_vjp *q, mpqc_vid m)
{
    int64_t perm[MPQC_MAX_RANK];
    uint32_t rank = type_of(q, m).rank;
    for (uint32_t d = 0; d < rank; d++) perm[d] = d;
    if (rank < 2) return m;
    perm[rank - 2] = rank - 1;
    perm[rank - 1] = rank - 2;
    return mpqc_build_transpose(q->b, m, perm);
}

void mpqc_vjp_matmul(struct mpqc_vjp *q)
{
    mpqc_vid a = q->n->in[0], b = q->n->in[1];
    if (q->want[0]) give(q, 0, mpqc_build_2(q->b, MPQC_OP_MATMUL, q->dy, swapped(q, b)));
    if (q->want[1]) give(q, 1, mpqc_build_2(q->b, MPQC_OP_MATMUL, swapped(q, a), q->dy));
    if (q->n->n_in > 2 && q->want[2]) give(q, 2, q->dy);
}

/* ---- windows and reductions that choose: linear in what is moved -------------------- */

/* op(x, v) with the node's attributes. */
static mpqc_vid chosen(struct mpqc_vjp *q, enum mpqc_op op, mpqc_vid x, mpqc_vid v)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, 0);
    const mpqc_vid in[] = {x, v};
    return mpqc_build_op(q->b, op, in, 2, &a);
}

void mpqc_vjp_maxpool(struct mpqc_vjp *q)
{
    q->dx[0] = chosen(q, MPQC_OP_MAXPOOL_DX, q->x, q->dy);
}

void mpqc_vjp_maxpool_dx(struct mpqc_vjp *q)
{
    if (q->want[1]) q->dx[1] = chosen(q, MPQC_OP_MAXPOOL_TAKE, q->x, q->dy);
}

void mpqc_vjp_maxpool_take(struct mpqc_vjp *q)
{
    if (q->want[1]) q->dx[1] = chosen(q, MPQC_OP_MAXPOOL_DX, q->x, q->dy);
}

void mpqc_vjp_avgpool(struct mpqc_vjp *q)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, 0);
    struct mpqc_type t = type_of(q, q->x);
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, t.rank, t.dims);
    q->dx[0] = mpqc_build_op(q->b, MPQC_OP_AVGPOOL_DX, &q->dy, 1, &a);
}

void mpqc_vjp_avgpool_dx(struct mpqc_vjp *q)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, BIT(SHAPE));
    q->dx[0] = mpqc_build_op(q->b, MPQC_OP_AVGPOOL, &q->dy, 1, &a);
}

void mpqc_vjp_reduce_sum(struct mpqc_vjp *q)
{
    struct mpqc_type t = type_of(q, q->x);
    q->dx[0] = mpqc_build_expand(q->b, q->dy, &t);
}

void mpqc_vjp_reduce_mean(struct mpqc_vjp *q)
{
    struct mpqc_type t = type_of(q, q->x), y = type_of(q, q->y);
    if (mpqc_type_count(&y) == 0) return;
    float share = (float)((double)mpqc_type_count(&y) / (double)mpqc_type_count(&t));
    q->dx[0] = mpqc_build_expand(q->b, scale(q, q->dy, share), &t);
}

void mpqc_vjp_reduce_max(struct mpqc_vjp *q)
{
    q->dx[0] = chosen(q, MPQC_OP_REDUCE_MAX_DX, q->x, q->dy);
}

/* min x = -max -x */
void mpqc_vjp_reduce_min(struct mpqc_vjp *q)
{
    q->dx[0] = chosen(q, MPQC_OP_REDUCE_MAX_DX, apply(q, MPQC_OP_NEG, q->x), q->dy);
}

void mpqc_vjp_reduce_max_dx(struct mpqc_vjp *q)
{
    if (q->want[1]) q->dx[1] = chosen(q, MPQC_OP_REDUCE_MAX_TAKE, q->x, q->dy);
}

void mpqc_vjp_reduce_max_take(struct mpqc_vjp *q)
{
    if (q->want[1]) q->dx[1] = chosen(q, MPQC_OP_REDUCE_MAX_DX, q->x, q->dy);
}

/* ---- normalisation -------------------------------------------------------------------- */

/* y = (x - mean) inv scale + bias with inv = (var + eps)^(-1/2) */
void mpqc_vjp_batchnorm(struct mpqc_vjp *q)
{
    const mpqc_vid *in = q->n->in;
    float epsilon = mpqc_attr_float_or(q->n, MPQC_ATTR_EPSILON, 1e-5f);
    mpqc_vid inv = apply(q, MPQC_OP_RECIPROCAL,
                         apply(q, MPQC_OP_SQRT, shift(q, in[4], epsilon)));
    mpqc_vid slope = mul(q, in[1], inv);
    mpqc_vid by_x = mul(q, q->dy, slope);
    if (q->want[0]) q->dx[0] = by_x;
    if (q->want[2]) give(q, 2, q->dy);
    if (q->want[3]) give(q, 3, apply(q, MPQC_OP_NEG, by_x));
    if (!q->want[1] && !q->want[4]) return;
    mpqc_vid centred = sub(q, in[0], in[3]);
    if (q->want[1]) give(q, 1, mul(q, q->dy, mul(q, centred, inv)));
    if (q->want[4]) {
        mpqc_vid fall = scale(q, mul(q, slope, mul(q, inv, inv)), -0.5f);
        give(q, 4, mul(q, q->dy, mul(q, centred, fall)));
    }
}

/* y (dy - sum y dy) */
void mpqc_vjp_softmax(struct mpqc_vjp *q)
{
    int64_t axis = mpqc_attr_int(q->n, MPQC_ATTR_AXIS);
    mpqc_vid part = mul(q, q->y, q->dy);
    q->dx[0] = sub(q, part, mul(q, q->y, mpqc_build_sum_axis(q->b, part, axis)));
}

/* dy - softmax(x) sum dy */
void mpqc_vjp_logsoftmax(struct mpqc_vjp *q)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, 0);
    mpqc_vid p = mpqc_build_op(q->b, MPQC_OP_SOFTMAX, &q->x, 1, &a);
    mpqc_vid total = mpqc_build_sum_axis(q->b, q->dy, mpqc_attr_int(q->n, MPQC_ATTR_AXIS));
    q->dx[0] = sub(q, q->dy, mul(q, p, total));
}
