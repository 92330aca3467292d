/* SPDX-License-Identifier: GPL-3.0-or-later
 * Derivatives of functions of one variable, and of those without any.
 */
#include "ir/op.h"
#include "ir/op_vjp.h"

#include <math.h>

void mpqc_no_vjp(struct mpqc_vjp *q)
{
    if (q->b->status != MPQC_OK) return;
    q->b->status = MPQC_FAIL(q->b->cx, UNSUPPORTED, mpqc_loc_where(q->n->loc),
                             "operator %s has no derivative", mpqc_ops[q->n->op].text);
}

/* Steps and truth values: constant nearly everywhere. */
void mpqc_vjp_zero(struct mpqc_vjp *q)
{
    (void)q;
}

void mpqc_vjp_same(struct mpqc_vjp *q)
{
    q->dx[0] = q->dy;
}

/* f32 to f32 only: anything else has steps. */
void mpqc_vjp_cast(struct mpqc_vjp *q)
{
    if (type_of(q, q->y).dtype == MPQC_DT_F32) q->dx[0] = q->dy;
}

/* 0 at 0, and from there on down. */
void mpqc_vjp_relu(struct mpqc_vjp *q)
{
    q->dx[0] = where_positive(q, q->x, q->dy);
}

/* v where low < x < high. */
static mpqc_vid where_between(struct mpqc_vjp *q, mpqc_vid x, mpqc_vid v,
                              const struct mpqc_attrs *bounds)
{
    const mpqc_vid in[] = {x, v};
    return mpqc_build_op(q->b, MPQC_OP_CLIP_GRAD, in, 2, bounds);
}

static struct mpqc_attrs bounds_of(float low, float high)
{
    struct mpqc_attrs a = {0};
    mpqc_attrs_float(&a, MPQC_ATTR_MIN, low);
    mpqc_attrs_float(&a, MPQC_ATTR_MAX, high);
    return a;
}

void mpqc_vjp_clip(struct mpqc_vjp *q)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, 0);
    q->dx[0] = where_between(q, q->x, q->dy, &a);
}

/* y (1 - y) */
void mpqc_vjp_sigmoid(struct mpqc_vjp *q)
{
    mpqc_vid slope = sub(q, q->y, mul(q, q->y, q->y));
    q->dx[0] = mul(q, q->dy, slope);
}

/* s (1 + x (1 - s)) = s + y - y s with s = sigmoid(x) */
void mpqc_vjp_silu(struct mpqc_vjp *q)
{
    mpqc_vid s = apply(q, MPQC_OP_SIGMOID, q->x);
    q->dx[0] = mul(q, q->dy, sub(q, add(q, s, q->y), mul(q, q->y, s)));
}

/* ALPHA where 0 < ALPHA x + BETA < 1 */
void mpqc_vjp_hardsigmoid(struct mpqc_vjp *q)
{
    float alpha = mpqc_attr_float_or(q->n, MPQC_ATTR_ALPHA, 1.0f / 6.0f);
    float beta = mpqc_attr_float_or(q->n, MPQC_ATTR_BETA, 0.5f);
    struct mpqc_attrs unit = bounds_of(0.0f, 1.0f);
    mpqc_vid line = shift(q, scale(q, q->x, alpha), beta);
    q->dx[0] = where_between(q, line, scale(q, q->dy, alpha), &unit);
}

/* x h(x): h + x / 6 where -3 < x < 3 */
void mpqc_vjp_hardswish(struct mpqc_vjp *q)
{
    struct mpqc_attrs middle = bounds_of(-3.0f, 3.0f);
    mpqc_vid h = apply(q, MPQC_OP_HARDSIGMOID, q->x);
    mpqc_vid ramp = where_between(q, q->x, scale(q, mul(q, q->dy, q->x), 1.0f / 6.0f), &middle);
    q->dx[0] = add(q, mul(q, q->dy, h), ramp);
}

/* 1 - y^2 */
void mpqc_vjp_tanh(struct mpqc_vjp *q)
{
    q->dx[0] = sub(q, q->dy, mul(q, q->dy, mul(q, q->y, q->y)));
}

/* (1 + erf(x / sqrt 2)) / 2 + x exp(-x^2 / 2) / sqrt(2 pi) */
static mpqc_vid gelu_slope(struct mpqc_vjp *q)
{
    mpqc_vid e = apply(q, MPQC_OP_ERF, scale(q, q->x, 0.70710678118654752440f));
    mpqc_vid bell = apply(q, MPQC_OP_EXP, scale(q, mul(q, q->x, q->x), -0.5f));
    return add(q, shift(q, scale(q, e, 0.5f), 0.5f),
               scale(q, mul(q, q->x, bell), 0.39894228040143267794f));
}

/* With u = c (x + k x^3), t = tanh(u): (1 + t) / 2 + x (1 - t^2) (c + 3 c k x^2) / 2 */
static mpqc_vid gelu_tanh_slope(struct mpqc_vjp *q)
{
    const float c = 0.79788456080286535588f, k = 0.044715f;
    mpqc_vid x2 = mul(q, q->x, q->x);
    mpqc_vid u = mul(q, q->x, shift(q, scale(q, x2, c * k), c));
    mpqc_vid t = apply(q, MPQC_OP_TANH, u);
    mpqc_vid inner = shift(q, scale(q, x2, 1.5f * c * k), 0.5f * c);
    mpqc_vid steep = sub(q, inner, mul(q, inner, mul(q, t, t)));
    return add(q, shift(q, scale(q, t, 0.5f), 0.5f), mul(q, q->x, steep));
}

void mpqc_vjp_gelu(struct mpqc_vjp *q)
{
    bool by_tanh = strcmp(mpqc_attr_string_or(q->n, MPQC_ATTR_MODE, "none"), "tanh") == 0;
    q->dx[0] = mul(q, q->dy, by_tanh ? gelu_tanh_slope(q) : gelu_slope(q));
}

/* ALPHA at 0 */
void mpqc_vjp_leakyrelu(struct mpqc_vjp *q)
{
    float alpha = mpqc_attr_float_or(q->n, MPQC_ATTR_ALPHA, 0.01f);
    q->dx[0] = add(q, scale(q, where_positive(q, q->x, q->dy), 1.0f - alpha),
                   scale(q, q->dy, alpha));
}

/* ALPHA exp(x) up to 0, where it is ALPHA */
void mpqc_vjp_elu(struct mpqc_vjp *q)
{
    float alpha = mpqc_attr_float_or(q->n, MPQC_ATTR_ALPHA, 1.0f);
    mpqc_vid up = where_positive(q, q->x, q->dy);
    mpqc_vid slope = scale(q, apply(q, MPQC_OP_EXP, negative_part(q, q->x)), alpha);
    q->dx[0] = add(q, up, mul(q, sub(q, q->dy, up), slope));
}

void mpqc_vjp_softplus(struct mpqc_vjp *q)
{
    q->dx[0] = mul(q, q->dy, apply(q, MPQC_OP_SIGMOID, q->x));
}

void mpqc_vjp_exp(struct mpqc_vjp *q)
{
    q->dx[0] = mul(q, q->dy, q->y);
}

void mpqc_vjp_log(struct mpqc_vjp *q)
{
    q->dx[0] = divide(q, q->dy, q->x);
}

void mpqc_vjp_sqrt(struct mpqc_vjp *q)
{
    q->dx[0] = divide(q, scale(q, q->dy, 0.5f), q->y);
}

void mpqc_vjp_reciprocal(struct mpqc_vjp *q)
{
    q->dx[0] = apply(q, MPQC_OP_NEG, mul(q, q->dy, mul(q, q->y, q->y)));
}

void mpqc_vjp_neg(struct mpqc_vjp *q)
{
    q->dx[0] = apply(q, MPQC_OP_NEG, q->dy);
}

/* 0 at 0 */
void mpqc_vjp_abs(struct mpqc_vjp *q)
{
    q->dx[0] = sub(q, where_positive(q, q->x, q->dy),
                   where_positive(q, apply(q, MPQC_OP_NEG, q->x), q->dy));
}

/* 2 / sqrt(pi) exp(-x^2) */
void mpqc_vjp_erf(struct mpqc_vjp *q)
{
    mpqc_vid bell = apply(q, MPQC_OP_EXP, apply(q, MPQC_OP_NEG, mul(q, q->x, q->x)));
    q->dx[0] = mul(q, q->dy, scale(q, bell, 1.12837916709551257390f));
}

void mpqc_vjp_sin(struct mpqc_vjp *q)
{
    q->dx[0] = mul(q, q->dy, apply(q, MPQC_OP_COS, q->x));
}

void mpqc_vjp_cos(struct mpqc_vjp *q)
{
    q->dx[0] = apply(q, MPQC_OP_NEG, mul(q, q->dy, apply(q, MPQC_OP_SIN, q->x)));
}

/* Linear in the second operand; the mask has no derivative. */
void mpqc_vjp_mask(struct mpqc_vjp *q)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, 0);
    const mpqc_vid in[] = {q->x, q->dy};
    if (q->want[1]) q->dx[1] = mpqc_build_op(q->b, q->n->op, in, 2, &a);
}
