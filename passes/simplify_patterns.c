/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * simplify: activations that exporters spell out.
 *
 * Products come in every association: x * (f * c), (x * f) * c, (x * c) * f.  So a
 * product is taken apart into its factors, and patterns are sets of factors.  Each
 * pattern becomes one node, which no rule takes apart again.
 */
#include "passes/simplify.h"

#define MAX_FACTORS 4

struct product {
    mpqc_vid factor[MAX_FACTORS];
    uint32_t n;
    float k; /* product of the constant factors */
    bool too_many;
};

/* Products inside are opened only if nobody else wants them. */
static void open_product(const struct mpqc_sx *s, mpqc_vid v, bool root, struct product *p)
{
    const struct mpqc_node *mul = mpqc_sx_def(s, v, MPQC_OP_MUL);
    float c;
    if (p->too_many) return;
    if (mul && (root || s->uses[v] == 1)) {
        open_product(s, mul->in[0], false, p);
        open_product(s, mul->in[1], false, p);
    } else if (mpqc_sx_scalar(s, v, &c)) {
        p->k *= c;
    } else if (p->n == MAX_FACTORS) {
        p->too_many = true;
    } else {
        p->factor[p->n++] = v;
    }
}

static struct product product_of(const struct mpqc_sx *s, mpqc_vid v)
{
    struct product p = {.k = 1.0f};
    open_product(s, v, true, &p);
    if (p.too_many) p.n = 0;
    return p;
}

/* v = y + c for a number c: y, else MPQC_NONE. */
static mpqc_vid plus_number(const struct mpqc_sx *s, mpqc_vid v, float *c)
{
    const struct mpqc_node *add = mpqc_sx_def(s, v, MPQC_OP_ADD);
    return add && mpqc_sx_scalar(s, add->in[1], c) ? add->in[0] : MPQC_NONE;
}

/* v = clip(x + b, 0, h) with finite h > 0: x, else MPQC_NONE. */
static mpqc_vid ramp(const struct mpqc_sx *s, mpqc_vid v, float *b, float *h)
{
    const struct mpqc_node *clip = mpqc_sx_def(s, v, MPQC_OP_CLIP);
    if (!clip || !mpqc_attr_find(clip, MPQC_ATTR_MIN) || !mpqc_attr_find(clip, MPQC_ATTR_MAX))
        return MPQC_NONE;
    *h = mpqc_attr_float_or(clip, MPQC_ATTR_MAX, 0.0f);
    if (mpqc_attr_float_or(clip, MPQC_ATTR_MIN, 0.0f) != 0.0f || *h <= 0.0f) return MPQC_NONE;
    return plus_number(s, clip->in[0], b);
}

/* Is v = x^3, or k * x^3 for k = *k? */
static bool cube(const struct mpqc_sx *s, mpqc_vid v, mpqc_vid x, float k)
{
    struct product p = product_of(s, v);
    float e;
    if (!mpqc_sx_near(p.k, k)) return false;
    if (p.n == 3) return p.factor[0] == x && p.factor[1] == x && p.factor[2] == x;
    if (p.n == 2) { /* x * (x * x), where the square has other users */
        for (int i = 0; i < 2; i++) {
            const struct mpqc_node *sq = mpqc_sx_def(s, p.factor[1 - i], MPQC_OP_MUL);
            if (p.factor[i] == x && sq && sq->in[0] == x && sq->in[1] == x) return true;
        }
    }
    const struct mpqc_node *pow = p.n == 1 ? mpqc_sx_def(s, p.factor[0], MPQC_OP_POW) : NULL;
    return pow && pow->in[0] == x && mpqc_sx_scalar(s, pow->in[1], &e) && e == 3.0f;
}

/* ---- f(x) of products x * f(x) * k ---- */

/* 1 + erf(x / sqrt 2) */
static bool erf_factor(const struct mpqc_sx *s, mpqc_vid f, mpqc_vid x)
{
    float one, c;
    const struct mpqc_node *erf = mpqc_sx_def(s, plus_number(s, f, &one), MPQC_OP_ERF);
    const struct mpqc_node *mul = erf ? mpqc_sx_def(s, erf->in[0], MPQC_OP_MUL) : NULL;
    return mul && one == 1.0f && mul->in[0] == x && mpqc_sx_scalar(s, mul->in[1], &c) &&
           mpqc_sx_near(c, 0.70710678f);
}

/* x + 0.044715 x^3, or in two factors x * (1 + 0.044715 x^2), times sqrt(2 / pi) */
static bool tanh_inner(const struct mpqc_sx *s, mpqc_vid v, mpqc_vid x)
{
    struct product p = product_of(s, v);
    float one;
    if (!mpqc_sx_near(p.k, 0.79788456f)) return false;
    const struct mpqc_node *add = p.n == 1 ? mpqc_sx_def(s, p.factor[0], MPQC_OP_ADD) : NULL;
    if (add)
        return (add->in[0] == x && cube(s, add->in[1], x, 0.044715f)) ||
               (add->in[1] == x && cube(s, add->in[0], x, 0.044715f));
    for (uint32_t i = 0; i < 2 && p.n == 2; i++) {
        mpqc_vid square = plus_number(s, p.factor[1 - i], &one);
        if (p.factor[i] != x || square == MPQC_NONE || one != 1.0f) continue;
        struct product q = product_of(s, square);
        if (q.n == 2 && q.factor[0] == x && q.factor[1] == x) return mpqc_sx_near(q.k, 0.044715f);
    }
    return false;
}

static bool tanh_factor(const struct mpqc_sx *s, mpqc_vid f, mpqc_vid x)
{
    float one;
    const struct mpqc_node *tanh = mpqc_sx_def(s, plus_number(s, f, &one), MPQC_OP_TANH);
    return tanh && one == 1.0f && tanh_inner(s, tanh->in[0], x);
}

static bool hardswish_factor(const struct mpqc_sx *s, mpqc_vid f, mpqc_vid x, float k)
{
    float b, h;
    const struct mpqc_node *hs = mpqc_sx_def(s, f, MPQC_OP_HARDSIGMOID);
    if (hs)
        return hs->in[0] == x && k == 1.0f &&
               mpqc_sx_near(mpqc_attr_float_or(hs, MPQC_ATTR_ALPHA, 1.0f / 6), 1.0f / 6) &&
               mpqc_sx_near(mpqc_attr_float_or(hs, MPQC_ATTR_BETA, 0.5f), 0.5f);
    return ramp(s, f, &b, &h) == x && b == 3.0f && h == 6.0f && mpqc_sx_near(k, 1.0f / 6);
}

/* What x * f * k is, or MPQC_OP_COUNT. */
static enum mpqc_op classify(const struct mpqc_sx *s, mpqc_vid x, mpqc_vid f, float k,
                             struct mpqc_attrs *a)
{
    const struct mpqc_node *n = mpqc_def(s->g, f);
    if (!n) return MPQC_OP_COUNT;
    if (n->op == MPQC_OP_SIGMOID && n->in[0] == x && k == 1.0f) return MPQC_OP_SILU;
    if (hardswish_factor(s, f, x, k)) return MPQC_OP_HARDSWISH;
    if (k != 0.5f) return MPQC_OP_COUNT;
    if (erf_factor(s, f, x)) return MPQC_OP_GELU;
    if (!tanh_factor(s, f, x)) return MPQC_OP_COUNT;
    mpqc_attrs_string(a, MPQC_ATTR_MODE, "tanh");
    return MPQC_OP_GELU;
}

/* Two nodes or more become one. */
mpqc_status mpqc_sx_product_pattern(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    struct product p = product_of(s, n->out[0]);
    struct mpqc_attrs a = {0};
    enum mpqc_op op = MPQC_OP_COUNT;
    mpqc_vid x = MPQC_NONE, out;
    float b, h;
    for (uint32_t i = 0; i < 2 && p.n == 2 && op == MPQC_OP_COUNT; i++) {
        x = p.factor[i];
        op = classify(s, x, p.factor[1 - i], p.k, &a);
    }
    if (p.n == 1 && (x = ramp(s, p.factor[0], &b, &h)) != MPQC_NONE && mpqc_sx_near(p.k * h, 1)) {
        op = MPQC_OP_HARDSIGMOID;
        mpqc_attrs_float(&a, MPQC_ATTR_ALPHA, 1.0f / h);
        mpqc_attrs_float(&a, MPQC_ATTR_BETA, b / h);
    }
    if (op == MPQC_OP_COUNT) return MPQC_OK;
    if (!mpqc_type_equal(mpqc_sx_type(s, x), mpqc_sx_type(s, n->out[0]))) return MPQC_OK;
    MPQC_TRY(mpqc_sx_add1(s, op, x, &a, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Three nodes become one. */
mpqc_status mpqc_sx_clip_to_hardsigmoid(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    float a, b;
    struct mpqc_attrs attrs = {0};
    mpqc_vid out;
    if (mpqc_attr_float_or(n, MPQC_ATTR_MIN, 1.0f) != 0.0f ||
        mpqc_attr_float_or(n, MPQC_ATTR_MAX, 0.0f) != 1.0f || s->uses[n->in[0]] != 1)
        return MPQC_OK;
    mpqc_vid y = plus_number(s, n->in[0], &b);
    const struct mpqc_node *mul = mpqc_sx_def(s, y, MPQC_OP_MUL);
    if (!mul || s->uses[y] != 1 || !mpqc_sx_scalar(s, mul->in[1], &a)) return MPQC_OK;
    if (!mpqc_type_equal(mpqc_sx_type(s, mul->in[0]), mpqc_sx_type(s, n->out[0]))) return MPQC_OK;
    mpqc_attrs_float(&attrs, MPQC_ATTR_ALPHA, a);
    mpqc_attrs_float(&attrs, MPQC_ATTR_BETA, b);
    MPQC_TRY(mpqc_sx_add1(s, MPQC_OP_HARDSIGMOID, mul->in[0], &attrs, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Three nodes become one. */
mpqc_status mpqc_sx_log_exp(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    float one;
    mpqc_vid out;
    const struct mpqc_node *exp = mpqc_sx_def(s, plus_number(s, n->in[0], &one), MPQC_OP_EXP);
    if (!exp || one != 1.0f) return MPQC_OK;
    if (!mpqc_type_equal(mpqc_sx_type(s, exp->in[0]), mpqc_sx_type(s, n->out[0]))) return MPQC_OK;
    MPQC_TRY(mpqc_sx_add1(s, MPQC_OP_SOFTPLUS, exp->in[0], NULL, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}
