/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * simplify: constants, identities, clamps.
 *
 * All of these remove a node, or turn it into one that no rule turns back.
 */
#include "passes/simplify.h"

#include <float.h>
#include <math.h>

/* A constant may be this large whatever it is computed from. */
#define FOLD_BYTES_FREE 65536
#define RANGE_DEPTH 8

static bool is_f32(const struct mpqc_sx *s, mpqc_vid v)
{
    return mpqc_sx_type(s, v)->dtype == MPQC_DT_F32;
}

/* Removes a node.  Expanding and padding are left to the operator when the result
 * would be much larger than what it is made of. */
mpqc_status mpqc_sx_fold_constants(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    size_t bytes = 0, result = mpqc_type_bytes(mpqc_sx_type(s, n->out[0]));
    if (mpqc_sx_is_output(s, n->out[0])) return MPQC_OK;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == MPQC_NONE) continue;
        if (!mpqc_is_const(s->g, n->in[i])) return MPQC_OK;
        bytes += mpqc_type_bytes(mpqc_sx_type(s, n->in[i]));
    }
    if (result > FOLD_BYTES_FREE && result / 2 > bytes) return MPQC_OK;
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    mpqc_vid out;
    MPQC_TRY(mpqc_sx_add(s, n->op, n->in, n->n_in, &a, n->loc, &out));
    if (mpqc_is_const(s->g, out)) mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Removes a node. */
mpqc_status mpqc_sx_drop_copy(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    mpqc_sx_done(s, n->out[0], n->in[0], done);
    return MPQC_OK;
}

/* Removes a node. */
mpqc_status mpqc_sx_drop_cast(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    if (mpqc_type_equal(mpqc_sx_type(s, n->in[0]), mpqc_sx_type(s, n->out[0])))
        mpqc_sx_done(s, n->out[0], n->in[0], done);
    return MPQC_OK;
}

/* Fewer constants on the left. */
mpqc_status mpqc_sx_commute(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    if (n->op != MPQC_OP_ADD && n->op != MPQC_OP_MUL && n->op != MPQC_OP_MIN &&
        n->op != MPQC_OP_MAX)
        return MPQC_OK;
    if (!mpqc_is_const(s->g, n->in[0]) || mpqc_is_const(s->g, n->in[1])) return MPQC_OK;
    mpqc_vid c = n->in[0];
    n->in[0] = n->in[1]; /* the list is the node's own */
    n->in[1] = c;
    *done = true;
    return MPQC_OK;
}

/* Removes a node. */
mpqc_status mpqc_sx_neutral(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    float e;
    switch (n->op) {
    case MPQC_OP_ADD:
    case MPQC_OP_SUB: e = 0.0f; break;
    case MPQC_OP_MUL:
    case MPQC_OP_DIV:
    case MPQC_OP_POW: e = 1.0f; break;
    default: return MPQC_OK;
    }
    if (!mpqc_sx_all(s, n->in[1], e)) return MPQC_OK;
    if (mpqc_type_equal(mpqc_sx_type(s, n->in[0]), mpqc_sx_type(s, n->out[0])))
        mpqc_sx_done(s, n->out[0], n->in[0], done);
    return MPQC_OK;
}

/* f of every element of constant c, as a new constant; *out is MPQC_NONE when a
 * result is not a normal number or zero. */
static mpqc_status map_const(struct mpqc_sx *s, mpqc_vid c, bool reciprocal, mpqc_vid *out)
{
    struct mpqc_type t = *mpqc_sx_type(s, c);
    const float *f = mpqc_sx_f32(s, c);
    int64_t n = mpqc_type_count(&t);
    float *r = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)n);
    *out = MPQC_NONE;
    if (!r) return MPQC_OOM(s->cx);
    for (int64_t i = 0; i < n; i++) {
        r[i] = reciprocal ? 1.0f / f[i] : -f[i];
        if (reciprocal && !isnormal(r[i])) return MPQC_OK;
    }
    return mpqc_sx_const(s, t.rank, t.dims, r, true, out);
}

/* One node less that is neither add nor mul. */
mpqc_status mpqc_sx_sub_constant(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    mpqc_vid c, out;
    if (!mpqc_sx_f32(s, n->in[1])) return MPQC_OK;
    MPQC_TRY(map_const(s, n->in[1], false, &c));
    MPQC_TRY(mpqc_sx_add2(s, MPQC_OP_ADD, n->in[0], c, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* One node less that is neither add nor mul. */
mpqc_status mpqc_sx_div_constant(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    mpqc_vid c, out;
    if (!mpqc_sx_f32(s, n->in[1])) return MPQC_OK;
    MPQC_TRY(map_const(s, n->in[1], true, &c));
    if (c == MPQC_NONE) return MPQC_OK;
    MPQC_TRY(mpqc_sx_add2(s, MPQC_OP_MUL, n->in[0], c, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* One pow less. */
mpqc_status mpqc_sx_power(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    float e;
    mpqc_vid x = n->in[0], out;
    if (!mpqc_sx_scalar(s, n->in[1], &e) || (e != 2.0f && e != 0.5f && e != -1.0f))
        return MPQC_OK;
    if (!mpqc_type_equal(mpqc_sx_type(s, x), mpqc_sx_type(s, n->out[0]))) return MPQC_OK;
    if (e == 2.0f) MPQC_TRY(mpqc_sx_add2(s, MPQC_OP_MUL, x, x, n->loc, &out));
    else if (e == 0.5f) MPQC_TRY(mpqc_sx_add1(s, MPQC_OP_SQRT, x, NULL, n->loc, &out));
    else MPQC_TRY(mpqc_sx_add1(s, MPQC_OP_RECIPROCAL, x, NULL, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Would a and b, broadcast against each other, make something larger than both? */
static bool broadcast_grows(const struct mpqc_type *a, const struct mpqc_type *b)
{
    int64_t n = 1, m = mpqc_type_count(a), k = mpqc_type_count(b);
    for (uint32_t i = 1; i <= a->rank || i <= b->rank; i++) {
        int64_t x = i <= a->rank ? a->dims[a->rank - i] : 1;
        int64_t y = i <= b->rank ? b->dims[b->rank - i] : 1;
        n *= x == 1 ? y : x;
    }
    return n > m && n > k;
}

/* Removes a node. */
mpqc_status mpqc_sx_merge_constants(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    if ((n->op != MPQC_OP_ADD && n->op != MPQC_OP_MUL) || !mpqc_sx_f32(s, n->in[1]))
        return MPQC_OK;
    const struct mpqc_node *inner = mpqc_sx_def(s, n->in[0], n->op);
    if (!inner || s->uses[n->in[0]] != 1 || !mpqc_sx_f32(s, inner->in[1])) return MPQC_OK;
    mpqc_vid x = inner->in[0], c = inner->in[1], merged, out;
    if (broadcast_grows(mpqc_sx_type(s, c), mpqc_sx_type(s, n->in[1]))) return MPQC_OK;
    MPQC_TRY(mpqc_sx_add2(s, n->op, c, n->in[1], n->loc, &merged));
    MPQC_TRY(mpqc_sx_add2(s, n->op, x, merged, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* ---- clamps ---- */

/* min(max(x, lo), hi) in its simplest form. */
static mpqc_status make_clip(struct mpqc_sx *s, mpqc_vid x, float lo, float hi,
                             struct mpqc_loc loc, mpqc_vid *out)
{
    struct mpqc_attrs a = {0};
    bool low = lo > -FLT_MAX, high = hi < FLT_MAX;
    *out = x;
    if (!low && !high) return MPQC_OK;
    if (lo == 0.0f && !high) return mpqc_sx_add1(s, MPQC_OP_RELU, x, NULL, loc, out);
    if (low) mpqc_attrs_float(&a, MPQC_ATTR_MIN, lo);
    if (high) mpqc_attrs_float(&a, MPQC_ATTR_MAX, hi);
    return mpqc_sx_add1(s, MPQC_OP_CLIP, x, &a, loc, out);
}

/* The bounds of a clamp, relu included; false for other operators. */
static bool bounds(const struct mpqc_node *n, float *lo, float *hi)
{
    if (!n || (n->op != MPQC_OP_CLIP && n->op != MPQC_OP_RELU)) return false;
    *lo = n->op == MPQC_OP_RELU ? 0.0f : mpqc_attr_float_or(n, MPQC_ATTR_MIN, -INFINITY);
    *hi = n->op == MPQC_OP_RELU ? INFINITY : mpqc_attr_float_or(n, MPQC_ATTR_MAX, INFINITY);
    return true;
}

/* min or max becomes clip. */
mpqc_status mpqc_sx_min_max_to_clip(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    float c;
    mpqc_vid out;
    if ((n->op != MPQC_OP_MIN && n->op != MPQC_OP_MAX) || !mpqc_sx_scalar(s, n->in[1], &c))
        return MPQC_OK;
    if (!mpqc_type_equal(mpqc_sx_type(s, n->in[0]), mpqc_sx_type(s, n->out[0]))) return MPQC_OK;
    bool max = n->op == MPQC_OP_MAX;
    MPQC_TRY(make_clip(s, n->in[0], max ? c : -INFINITY, max ? INFINITY : c, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* The clamp n of a clamp becomes one. */
static mpqc_status clip_of_clip(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    float lo, hi, lo1, hi1;
    mpqc_vid out;
    const struct mpqc_node *inner = mpqc_def(s->g, n->in[0]);
    if (!bounds(n, &lo, &hi) || !bounds(inner, &lo1, &hi1)) return MPQC_OK;
    MPQC_TRY(make_clip(s, inner->in[0], fminf(fmaxf(lo1, lo), hi), fminf(fmaxf(hi1, lo), hi),
                       n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Removes a clip, or one of its attributes. */
mpqc_status mpqc_sx_clip_form(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    float lo, hi;
    mpqc_vid out;
    if (!is_f32(s, n->in[0])) return MPQC_OK;
    MPQC_TRY(clip_of_clip(s, n, done));
    if (*done || !bounds(n, &lo, &hi)) return MPQC_OK;
    bool idle = (mpqc_attr_find(n, MPQC_ATTR_MIN) && lo <= -FLT_MAX) ||
                (mpqc_attr_find(n, MPQC_ATTR_MAX) && hi >= FLT_MAX) || n->n_attr == 0;
    if (!idle && !(lo == 0.0f && hi >= FLT_MAX)) return MPQC_OK;
    MPQC_TRY(make_clip(s, n->in[0], lo, hi, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Removes a node. */
mpqc_status mpqc_sx_relu_of_clip(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    return is_f32(s, n->in[0]) ? clip_of_clip(s, n, done) : MPQC_OK;
}

/* Removes a node. */
mpqc_status mpqc_sx_clip_in_range(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    float lo, hi;
    if (!bounds(n, &lo, &hi)) return MPQC_OK;
    struct mpqc_sx_range r = mpqc_sx_range_of(s, n->in[0], RANGE_DEPTH);
    if (r.lo >= lo && r.hi <= hi) mpqc_sx_done(s, n->out[0], n->in[0], done);
    return MPQC_OK;
}

/* prelu becomes leakyrelu. */
mpqc_status mpqc_sx_prelu_uniform(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const float *slope = mpqc_sx_f32(s, n->in[1]);
    struct mpqc_attrs a = {0};
    mpqc_vid out;
    if (!slope || mpqc_type_count(mpqc_sx_type(s, n->in[1])) == 0) return MPQC_OK;
    if (!mpqc_sx_all(s, n->in[1], slope[0])) return MPQC_OK;
    if (!mpqc_type_equal(mpqc_sx_type(s, n->in[0]), mpqc_sx_type(s, n->out[0]))) return MPQC_OK;
    mpqc_attrs_float(&a, MPQC_ATTR_ALPHA, slope[0]);
    MPQC_TRY(mpqc_sx_add1(s, MPQC_OP_LEAKYRELU, n->in[0], &a, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}
