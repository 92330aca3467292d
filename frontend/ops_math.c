/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Products, softmax, activations and arithmetic.
 */
#include "frontend/ops.h"

#include <math.h>

/* x times a constant factor; nothing when it is 1. */
static mpqc_status scaled(struct mpqc_imp_node *n, mpqc_vid x, float factor, mpqc_vid *out)
{
    mpqc_vid f;
    *out = x;
    if (factor == 1) return MPQC_OK;
    MPQC_TRY(mpqc_imp_scalar(n, MPQC_DT_F32, factor, &f));
    MPQC_TRY(mpqc_imp_binary(n, MPQC_OP_MUL, x, f, out));
    struct mpqc_value *v = mpqc_value_at(n->im->g, *out);
    if (mpqc_is_const(n->im->g, *out) && !v->name) v->name = mpqc_value_at(n->im->g, x)->name;
    return MPQC_OK;
}

/* ---- Gemm: alpha A' B' + beta C --------------------------------------------------- */

static mpqc_status transposed_if(struct mpqc_imp_node *n, const char *attr, mpqc_vid x,
                                 mpqc_vid *out)
{
    int64_t yes;
    *out = x;
    MPQC_TRY(mpqc_imp_int(n, attr, 0, &yes));
    return yes ? mpqc_imp_transpose(n, x, (const int64_t[]){1, 0}, out) : MPQC_OK;
}

/* C as a bias vector, when it is a constant of one row. */
static mpqc_status bias_vector(struct mpqc_imp_node *n, mpqc_vid c, int64_t width, mpqc_vid *out)
{
    const struct mpqc_type *t = mpqc_imp_type(n, c);
    int64_t last = t->rank ? t->dims[t->rank - 1] : 1;
    *out = MPQC_NONE;
    if (!mpqc_is_const(n->im->g, c) || mpqc_type_count(t) != last || (last != width && last != 1))
        return MPQC_OK;
    MPQC_TRY(mpqc_imp_reshape(n, c, 1, &last, &c));
    return mpqc_imp_expand(n, c, 1, &width, out);
}

mpqc_status mpqc_on_gemm(struct mpqc_imp_node *n)
{
    float alpha, beta;
    mpqc_vid in[3], c = mpqc_imp_in(n, 2), y;
    MPQC_TRY(mpqc_imp_float(n, "alpha", 1, &alpha));
    MPQC_TRY(mpqc_imp_float(n, "beta", 1, &beta));
    for (uint32_t i = 0; i < 2; i++)
        if (mpqc_imp_type(n, n->in[i])->rank != 2)
            return mpqc_imp_invalid(n, "input %u has rank %u instead of 2", i,
                                    mpqc_imp_type(n, n->in[i])->rank);
    MPQC_TRY(transposed_if(n, "transA", n->in[0], &in[0]));
    MPQC_TRY(transposed_if(n, "transB", n->in[1], &in[1]));
    bool scale_b = mpqc_is_const(n->im->g, in[1]);
    if (scale_b) MPQC_TRY(scaled(n, in[1], alpha, &in[1]));
    if (beta == 0) c = MPQC_NONE;
    in[2] = MPQC_NONE;
    if (c != MPQC_NONE) {
        MPQC_TRY(scaled(n, c, beta, &c));
        if (scale_b || alpha == 1)
            MPQC_TRY(bias_vector(n, c, mpqc_imp_type(n, in[1])->dims[1], &in[2]));
    }
    MPQC_TRY(mpqc_imp_emit(n, MPQC_OP_MATMUL, in, in[2] == MPQC_NONE ? 2 : 3, NULL, &y));
    if (!scale_b) MPQC_TRY(scaled(n, y, alpha, &y));
    if (c != MPQC_NONE && in[2] == MPQC_NONE) {
        const struct mpqc_type before = *mpqc_imp_type(n, y);
        MPQC_TRY(mpqc_imp_binary(n, MPQC_OP_ADD, y, c, &y));
        if (!mpqc_type_same_shape(&before, mpqc_imp_type(n, y)))
            return mpqc_imp_invalid(n, "C does not fit the product's shape");
    }
    n->out[0] = y;
    return MPQC_OK;
}

/* Vectors take a dimension that the result loses again. */
mpqc_status mpqc_on_matmul(struct mpqc_imp_node *n)
{
    mpqc_vid in[2] = {n->in[0], n->in[1]}, y;
    const struct mpqc_type a = *mpqc_imp_type(n, in[0]), b = *mpqc_imp_type(n, in[1]);
    if (!a.rank || !b.rank) return mpqc_imp_invalid(n, "an input is a scalar");
    if (a.rank == 1)
        MPQC_TRY(mpqc_imp_reshape(n, in[0], 2, (const int64_t[]){1, a.dims[0]}, &in[0]));
    if (b.rank == 1)
        MPQC_TRY(mpqc_imp_reshape(n, in[1], 2, (const int64_t[]){b.dims[0], 1}, &in[1]));
    MPQC_TRY(mpqc_imp_emit(n, MPQC_OP_MATMUL, in, 2, NULL, &y));
    const struct mpqc_type *t = mpqc_imp_type(n, y);
    int64_t dims[MPQC_MAX_RANK];
    uint32_t rank = 0;
    for (uint32_t i = 0; i + 2 < t->rank; i++) dims[rank++] = t->dims[i];
    if (a.rank > 1) dims[rank++] = t->dims[t->rank - 2];
    if (b.rank > 1) dims[rank++] = t->dims[t->rank - 1];
    return mpqc_imp_reshape(n, y, rank, dims, &n->out[0]);
}

/* ---- softmax ---------------------------------------------------------------------- */

/* log softmax = (x - max) - log(sum(exp(x - max))), which never takes log(0). */
static mpqc_status log_softmax(struct mpqc_imp_node *n, mpqc_vid x, int64_t axis, mpqc_vid *out)
{
    mpqc_vid v;
    MPQC_TRY(mpqc_imp_reduce(n, MPQC_OP_REDUCE_MAX, x, 1, &axis, &v));
    MPQC_TRY(mpqc_imp_binary(n, MPQC_OP_SUB, x, v, &x));
    MPQC_TRY(mpqc_imp_unary(n, MPQC_OP_EXP, x, &v));
    MPQC_TRY(mpqc_imp_reduce(n, MPQC_OP_REDUCE_SUM, v, 1, &axis, &v));
    MPQC_TRY(mpqc_imp_unary(n, MPQC_OP_LOG, v, &v));
    return mpqc_imp_binary(n, MPQC_OP_SUB, x, v, out);
}

static mpqc_status softmax_along(struct mpqc_imp_node *n, mpqc_vid x, uint32_t axis, mpqc_vid *out)
{
    struct mpqc_attrs a = {0};
    if (n->row->op == MPQC_OP_LOG) return log_softmax(n, x, axis, out);
    mpqc_attrs_int(&a, MPQC_ATTR_AXIS, axis);
    return mpqc_imp_emit(n, MPQC_OP_SOFTMAX, &x, 1, &a, out);
}

mpqc_status mpqc_on_softmax(struct mpqc_imp_node *n)
{
    int64_t given;
    uint32_t axis;
    MPQC_TRY(mpqc_imp_int(n, "axis", -1, &given));
    MPQC_TRY(mpqc_imp_axis(n, given, mpqc_imp_type(n, n->in[0])->rank, &axis));
    return softmax_along(n, n->in[0], axis, &n->out[0]);
}

/* Before opset 13 the input is seen as a matrix whose columns are all axes from `axis`
 * on.  When at most one of them is longer than 1, no reshaping is needed. */
mpqc_status mpqc_on_softmax_flat(struct mpqc_imp_node *n)
{
    int64_t given, dims[2] = {1, 1};
    const struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    uint32_t axis, longer = 0, which;
    MPQC_TRY(mpqc_imp_int(n, "axis", 1, &given));
    if (given == (int64_t)t.rank) axis = t.rank; /* columns of length 1 */
    else MPQC_TRY(mpqc_imp_axis(n, given, t.rank, &axis));
    which = axis;
    for (uint32_t i = 0; i < t.rank; i++) dims[i >= axis] *= t.dims[i];
    for (uint32_t i = axis; i < t.rank; i++) {
        if (t.dims[i] == 1) continue;
        longer++;
        which = i;
    }
    if (longer <= 1 && which < t.rank) return softmax_along(n, n->in[0], which, &n->out[0]);
    mpqc_vid x;
    MPQC_TRY(mpqc_imp_reshape(n, n->in[0], 2, dims, &x));
    MPQC_TRY(softmax_along(n, x, 1, &x));
    return mpqc_imp_reshape(n, x, t.rank, t.dims, &n->out[0]);
}

/* ---- activations ------------------------------------------------------------------ */

mpqc_status mpqc_on_hardsigmoid(struct mpqc_imp_node *n)
{
    struct mpqc_attrs a = {0};
    float alpha, beta;
    MPQC_TRY(mpqc_imp_float(n, "alpha", 0.2f, &alpha));
    MPQC_TRY(mpqc_imp_float(n, "beta", 0.5f, &beta));
    mpqc_attrs_float(&a, MPQC_ATTR_ALPHA, alpha);
    mpqc_attrs_float(&a, MPQC_ATTR_BETA, beta);
    return mpqc_imp_emit(n, MPQC_OP_HARDSIGMOID, n->in, 1, &a, &n->out[0]);
}

mpqc_status mpqc_on_gelu(struct mpqc_imp_node *n)
{
    struct mpqc_attrs a = {0};
    const char *form;
    MPQC_TRY(mpqc_imp_string(n, "approximate", "none", &form));
    if (!strcmp(form, "tanh")) mpqc_attrs_string(&a, MPQC_ATTR_MODE, "tanh");
    else if (strcmp(form, "none")) return mpqc_imp_invalid(n, "approximate='%.40s'", form);
    return mpqc_imp_emit(n, MPQC_OP_GELU, n->in, 1, &a, &n->out[0]);
}

/* LeakyRelu, Elu: one number, whose default differs. */
mpqc_status mpqc_on_alpha(struct mpqc_imp_node *n)
{
    struct mpqc_attrs a = {0};
    float alpha;
    MPQC_TRY(mpqc_imp_float(n, "alpha", n->row->op == MPQC_OP_LEAKYRELU ? 0.01f : 1.0f, &alpha));
    mpqc_attrs_float(&a, MPQC_ATTR_ALPHA, alpha);
    return mpqc_imp_emit(n, n->row->op, n->in, 1, &a, &n->out[0]);
}

static mpqc_status elu(struct mpqc_imp_node *n, mpqc_vid x, float alpha, mpqc_vid *out)
{
    struct mpqc_attrs a = {0};
    mpqc_attrs_float(&a, MPQC_ATTR_ALPHA, alpha);
    return mpqc_imp_emit(n, MPQC_OP_ELU, &x, 1, &a, out);
}

/* gamma elu(x, alpha) */
mpqc_status mpqc_on_selu(struct mpqc_imp_node *n)
{
    float alpha, gamma;
    mpqc_vid y;
    MPQC_TRY(mpqc_imp_float(n, "alpha", 1.67326319217681884765625f, &alpha));
    MPQC_TRY(mpqc_imp_float(n, "gamma", 1.05070102214813232421875f, &gamma));
    MPQC_TRY(elu(n, n->in[0], alpha, &y));
    return scaled(n, y, gamma, &n->out[0]);
}

/* max(0, x) + min(0, alpha (exp(x / alpha) - 1)) = alpha elu(x / alpha, 1) */
mpqc_status mpqc_on_celu(struct mpqc_imp_node *n)
{
    float alpha;
    mpqc_vid y;
    MPQC_TRY(mpqc_imp_float(n, "alpha", 1, &alpha));
    if (!(alpha > 0) || !isfinite(alpha)) return mpqc_imp_unsupported(n, "alpha must be positive");
    MPQC_TRY(scaled(n, n->in[0], 1 / alpha, &y));
    MPQC_TRY(elu(n, y, 1, &y));
    return scaled(n, y, alpha, &n->out[0]);
}

mpqc_status mpqc_on_softsign(struct mpqc_imp_node *n)
{
    mpqc_vid y, one;
    MPQC_TRY(mpqc_imp_scalar(n, MPQC_DT_F32, 1, &one));
    MPQC_TRY(mpqc_imp_unary(n, MPQC_OP_ABS, n->in[0], &y));
    MPQC_TRY(mpqc_imp_binary(n, MPQC_OP_ADD, y, one, &y));
    return mpqc_imp_binary(n, MPQC_OP_DIV, n->in[0], y, &n->out[0]);
}

mpqc_status mpqc_on_mish(struct mpqc_imp_node *n)
{
    mpqc_vid y;
    MPQC_TRY(mpqc_imp_unary(n, MPQC_OP_SOFTPLUS, n->in[0], &y));
    MPQC_TRY(mpqc_imp_unary(n, MPQC_OP_TANH, y, &y));
    return mpqc_imp_binary(n, MPQC_OP_MUL, n->in[0], y, &n->out[0]);
}

/* One bound of Clip: an attribute (opset 6) or an input (11).  A bound that is no
 * constant, or of integers, becomes max or min. */
static mpqc_status clip_bound(struct mpqc_imp_node *n, uint32_t input, const char *attr,
                              enum mpqc_op op, struct mpqc_attrs *a, enum mpqc_attr_key key,
                              mpqc_vid *x)
{
    float bound = 0;
    bool present = mpqc_imp_attr(n, attr) != NULL;
    mpqc_vid v = mpqc_imp_in(n, input);
    MPQC_TRY(mpqc_imp_float(n, attr, 0, &bound));
    if (v != MPQC_NONE && !mpqc_is_const(n->im->g, v)) return mpqc_imp_binary(n, op, *x, v, x);
    if (v != MPQC_NONE) {
        double number;
        MPQC_TRY(mpqc_imp_const_number(n, input, attr, &present, &number));
        bound = (float)number;
    }
    enum mpqc_dtype t = mpqc_imp_type(n, *x)->dtype;
    if (!present) return MPQC_OK;
    if (t != MPQC_DT_F32 && v == MPQC_NONE) MPQC_TRY(mpqc_imp_scalar(n, t, bound, &v));
    if (t != MPQC_DT_F32) return mpqc_imp_binary(n, op, *x, v, x);
    if (isfinite(bound) && fabsf(bound) < 3.4e38f) mpqc_attrs_float(a, key, bound);
    return MPQC_OK;
}

mpqc_status mpqc_on_clip(struct mpqc_imp_node *n)
{
    struct mpqc_attrs a = {0};
    mpqc_vid x = n->in[0];
    MPQC_TRY(clip_bound(n, 1, "min", MPQC_OP_MAX, &a, MPQC_ATTR_MIN, &x));
    MPQC_TRY(clip_bound(n, 2, "max", MPQC_OP_MIN, &a, MPQC_ATTR_MAX, &x));
    n->out[0] = x;
    return a.n ? mpqc_imp_emit(n, MPQC_OP_CLIP, &x, 1, &a, &n->out[0]) : MPQC_OK;
}

/* ---- casts ------------------------------------------------------------------------ */

mpqc_status mpqc_on_cast(struct mpqc_imp_node *n)
{
    int64_t to;
    enum mpqc_dtype dtype;
    MPQC_TRY(mpqc_imp_int(n, "to", 0, &to));
    if (to < 1 || to > 1000 || !mpqc_imp_dtype((int32_t)to, &dtype))
        return mpqc_imp_unsupported(n, "a cast to %s (%lld) is not supported",
                                    mpqc_imp_dtype_name(to > 0 && to < 1000 ? (int32_t)to : 0),
                                    (long long)to);
    return mpqc_imp_cast(n, n->in[0], dtype, &n->out[0]);
}

mpqc_status mpqc_on_cast_like(struct mpqc_imp_node *n)
{
    return mpqc_imp_cast(n, n->in[0], mpqc_imp_type(n, n->in[1])->dtype, &n->out[0]);
}

/* ---- arithmetic ------------------------------------------------------------------- */

/* The exponent may have another type than the base, whose type is the result's. */
mpqc_status mpqc_on_pow(struct mpqc_imp_node *n)
{
    mpqc_vid a = n->in[0], b = n->in[1];
    enum mpqc_dtype t = mpqc_imp_type(n, a)->dtype, e = mpqc_imp_type(n, b)->dtype;
    if (t == e) return mpqc_imp_binary(n, MPQC_OP_POW, a, b, &n->out[0]);
    if (e != MPQC_DT_F32) {
        MPQC_TRY(mpqc_imp_cast(n, b, t, &b));
        return mpqc_imp_binary(n, MPQC_OP_POW, a, b, &n->out[0]);
    }
    MPQC_TRY(mpqc_imp_cast(n, a, MPQC_DT_F32, &a));
    MPQC_TRY(mpqc_imp_binary(n, MPQC_OP_POW, a, b, &a));
    return mpqc_imp_cast(n, a, t, &n->out[0]);
}

/* fmod=1: the sign of a, as in C; a - (a / b) b, with a quotient that truncates. */
mpqc_status mpqc_on_mod(struct mpqc_imp_node *n)
{
    int64_t fmod_;
    mpqc_vid q;
    MPQC_TRY(mpqc_imp_int(n, "fmod", 0, &fmod_));
    if (mpqc_imp_type(n, n->in[0])->dtype == MPQC_DT_F32)
        return mpqc_imp_unsupported(n, "Mod of floating-point numbers is not supported");
    if (!fmod_) return mpqc_imp_binary(n, MPQC_OP_MOD, n->in[0], n->in[1], &n->out[0]);
    MPQC_TRY(mpqc_imp_binary(n, MPQC_OP_DIV, n->in[0], n->in[1], &q));
    MPQC_TRY(mpqc_imp_binary(n, MPQC_OP_MUL, q, n->in[1], &q));
    return mpqc_imp_binary(n, MPQC_OP_SUB, n->in[0], q, &n->out[0]);
}

mpqc_status mpqc_on_nary(struct mpqc_imp_node *n)
{
    mpqc_vid y = n->in[0];
    for (uint32_t i = 1; i < n->n_in; i++) {
        if (n->in[i] == MPQC_NONE) return mpqc_imp_invalid(n, "input %u is missing", i);
        MPQC_TRY(mpqc_imp_binary(n, n->row->op, y, n->in[i], &y));
    }
    n->out[0] = y;
    return MPQC_OK;
}

mpqc_status mpqc_on_mean(struct mpqc_imp_node *n)
{
    MPQC_TRY(mpqc_on_nary(n));
    return scaled(n, n->out[0], 1.0f / (float)n->n_in, &n->out[0]);
}

/* a <= b is not a > b (no NaN in inference). */
mpqc_status mpqc_on_negated(struct mpqc_imp_node *n)
{
    mpqc_vid y;
    MPQC_TRY(mpqc_imp_binary(n, n->row->op, n->in[0], n->in[1], &y));
    return mpqc_imp_unary(n, MPQC_OP_NOT, y, &n->out[0]);
}

mpqc_status mpqc_on_xor(struct mpqc_imp_node *n)
{
    mpqc_vid y;
    MPQC_TRY(mpqc_imp_binary(n, MPQC_OP_EQUAL, n->in[0], n->in[1], &y));
    return mpqc_imp_unary(n, MPQC_OP_NOT, y, &n->out[0]);
}

/* ---- reductions ------------------------------------------------------------------- */

/* Reduces x by `op` over the node's axes; keepdims=0 drops them by a reshape. */
static mpqc_status reduce(struct mpqc_imp_node *n, enum mpqc_op op, mpqc_vid x, mpqc_vid *out)
{
    uint32_t count, n_axes = 0;
    const int64_t *given;
    int64_t keep, noop, axes[MPQC_MAX_RANK], dims[MPQC_MAX_RANK];
    const struct mpqc_type t = *mpqc_imp_type(n, x);
    MPQC_TRY(mpqc_imp_axes_either(n, 1, &count, &given));
    MPQC_TRY(mpqc_imp_int(n, "keepdims", 1, &keep));
    MPQC_TRY(mpqc_imp_int(n, "noop_with_empty_axes", 0, &noop));
    if (count) {
        MPQC_TRY(mpqc_imp_axes(n, given, count, t.rank, &n_axes, axes));
    } else if (!noop) {
        for (; n_axes < t.rank; n_axes++) axes[n_axes] = n_axes;
    }
    MPQC_TRY(mpqc_imp_reduce(n, op, x, n_axes, axes, &x));
    *out = x;
    if (keep) return MPQC_OK;
    uint32_t rank = 0;
    for (uint32_t i = 0, at = 0; i < t.rank; i++) {
        if (at < n_axes && axes[at] == (int64_t)i) at++;
        else dims[rank++] = t.dims[i];
    }
    return mpqc_imp_reshape(n, x, rank, dims, out);
}

mpqc_status mpqc_on_reduce(struct mpqc_imp_node *n)
{
    return reduce(n, n->row->op, n->in[0], &n->out[0]);
}

mpqc_status mpqc_on_reduce_l1(struct mpqc_imp_node *n)
{
    mpqc_vid x;
    MPQC_TRY(mpqc_imp_unary(n, MPQC_OP_ABS, n->in[0], &x));
    return reduce(n, MPQC_OP_REDUCE_SUM, x, &n->out[0]);
}

mpqc_status mpqc_on_reduce_sum_square(struct mpqc_imp_node *n)
{
    mpqc_vid x;
    MPQC_TRY(mpqc_imp_binary(n, MPQC_OP_MUL, n->in[0], n->in[0], &x));
    return reduce(n, MPQC_OP_REDUCE_SUM, x, &n->out[0]);
}

mpqc_status mpqc_on_reduce_l2(struct mpqc_imp_node *n)
{
    MPQC_TRY(mpqc_on_reduce_sum_square(n));
    return mpqc_imp_unary(n, MPQC_OP_SQRT, n->out[0], &n->out[0]);
}

mpqc_status mpqc_on_reduce_log_sum(struct mpqc_imp_node *n)
{
    MPQC_TRY(reduce(n, MPQC_OP_REDUCE_SUM, n->in[0], &n->out[0]));
    return mpqc_imp_unary(n, MPQC_OP_LOG, n->out[0], &n->out[0]);
}

mpqc_status mpqc_on_reduce_log_sum_exp(struct mpqc_imp_node *n)
{
    mpqc_vid x;
    MPQC_TRY(mpqc_imp_unary(n, MPQC_OP_EXP, n->in[0], &x));
    MPQC_TRY(reduce(n, MPQC_OP_REDUCE_SUM, x, &n->out[0]));
    return mpqc_imp_unary(n, MPQC_OP_LOG, n->out[0], &n->out[0]);
}
