/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Element by element: y = f(x), and cast.
 *
 * f32 functions are computed in double precision where that matters and rounded
 * once, so that they are within 1 ulp and equal on every machine.  The functions
 * that shape arithmetic needs work on i64 and i32 too.
 */
#include "ir/op.h"

#include <math.h>

static bool works_on_integers(enum mpqc_op op)
{
    return op == MPQC_OP_RELU || op == MPQC_OP_CLIP || op == MPQC_OP_NEG || op == MPQC_OP_ABS;
}

mpqc_status mpqc_infer_unary(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *x = q->in[0];
    enum mpqc_op op = q->node->op;
    bool ok = mpqc_op_is_plain(x, op == MPQC_OP_NOT ? MPQC_DT_BOOL : MPQC_DT_F32);
    if (works_on_integers(op) && !x->quant && mpqc_op_is_integer(x->dtype)) ok = true;
    if (!ok)
        return OP_FAIL(q, UNSUPPORTED, "operator %s does not take %s%s", mpqc_op_name(q),
                       x->quant ? "quantised " : "", mpqc_op_type_text(q, x));
    const char *mode = mpqc_attr_string_or(q->node, MPQC_ATTR_MODE, "none");
    if (op == MPQC_OP_GELU && strcmp(mode, "none") != 0 && strcmp(mode, "tanh") != 0)
        return OP_FAIL(q, MODEL, "gelu has no mode '%s'", mode);
    return mpqc_op_result(q, *x);
}

/* ---- f32 -------------------------------------------------------------------- */

/* Parameters of the functions that have some. */
struct params {
    float a, b;
};

static inline double sigmoid(double x)
{
    return 1.0 / (1.0 + mpqc_op_exp(-x));
}

/* Near 0 the quotient would lose digits; x - x^3 / 3 is exact to 2^-50 there. */
static inline double tanh_of(double x)
{
    double e = mpqc_op_exp(2.0 * x);
    double small = x - x * x * x / 3.0;
    return x > -1e-4 && x < 1e-4 ? small : 1.0 - 2.0 / (e + 1.0);
}

static inline float hard_gate(float v)
{
    v = v > 0.0f ? v : 0.0f;
    return v < 1.0f ? v : 1.0f;
}

static inline float round_even(float x)
{
    return rintf(x); /* the rounding mode is never changed */
}

/* A loop over n elements and the kernel that calls it. */
#define UNARY_LOOP(name, expression)                                                              \
    MPQC_CLONES static void loop_##name(const float *restrict in, float *restrict to, int64_t n,  \
                                        struct params p)                                          \
    {                                                                                             \
        (void)p;                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                         \
            float x = in[i];                                                                      \
            to[i] = (float)(expression);                                                          \
        }                                                                                         \
    }
#define UNARY_REF(name, a_, b_)                                                                   \
    void mpqc_ref_##name(const struct mpqc_node *n, const struct mpqc_tensor *const *in,          \
                         struct mpqc_tensor *const *out)                                          \
    {                                                                                             \
        (void)n;                                                                                  \
        struct params p = {a_, b_};                                                               \
        loop_##name(in[0]->data, out[0]->data, mpqc_type_count(&in[0]->type), p);                 \
    }
#define UNARY(name, expression) UNARY_LOOP(name, expression) UNARY_REF(name, 0, 0)
#define UNARY_PARAMS(name, a_, b_, expression)                                                    \
    UNARY_LOOP(name, expression)                                                                  \
    UNARY_REF(name, a_, b_)
#define ALPHA(otherwise) mpqc_attr_float_or(n, MPQC_ATTR_ALPHA, otherwise)
#define BETA(otherwise) mpqc_attr_float_or(n, MPQC_ATTR_BETA, otherwise)

UNARY(sigmoid, sigmoid(x))
UNARY(silu, x *sigmoid(x))
UNARY(tanh, tanh_of(x))
UNARY(softplus, x > 30.0f ? x : log1p(mpqc_op_exp(x)))
UNARY(exp, mpqc_op_exp(x))
UNARY(log, log(x))
UNARY(sqrt, sqrtf(x))
UNARY(reciprocal, 1.0f / x)
UNARY(erf, erf(x))
UNARY(floor, floorf(x))
UNARY(ceil, ceilf(x))
UNARY(round, round_even(x))
UNARY(sin, sin(x))
UNARY(cos, cos(x))
UNARY(hardswish, x *hard_gate(x / 6.0f + 0.5f))
UNARY_PARAMS(hardsigmoid, ALPHA(1.0f / 6.0f), BETA(0.5f), hard_gate(p.a * x + p.b))
UNARY_PARAMS(leakyrelu, ALPHA(0.01f), 0, x < 0.0f ? p.a * x : x)
UNARY_PARAMS(elu, ALPHA(1.0f), 0, x < 0.0f ? p.a * (mpqc_op_exp(x) - 1.0) : x)

UNARY_LOOP(gelu_erf, 0.5 * x * (1.0 + erf(x * 0.70710678118654752440)))
UNARY_LOOP(gelu_tanh,
           0.5 * x * (1.0 + tanh_of(0.79788456080286535588 * (x + 0.044715 * x * x * x))))
UNARY_LOOP(relu, x > 0.0f ? x : 0.0f)
UNARY_LOOP(neg, -x)
UNARY_LOOP(abs, fabsf(x))
UNARY_LOOP(clip, x < p.a ? (p.a > p.b ? p.b : p.a) : x > p.b ? p.b : x)

void mpqc_ref_gelu(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                   struct mpqc_tensor *const *out)
{
    bool use_tanh = strcmp(mpqc_attr_string_or(n, MPQC_ATTR_MODE, "none"), "tanh") == 0;
    int64_t count = mpqc_type_count(&in[0]->type);
    struct params none = {0, 0};
    if (use_tanh) loop_gelu_tanh(in[0]->data, out[0]->data, count, none);
    else loop_gelu_erf(in[0]->data, out[0]->data, count, none);
}

/* ---- any number ------------------------------------------------------------------ */

#define UNARY_ANY(name, int_expression)                                                           \
    void mpqc_ref_##name(const struct mpqc_node *n, const struct mpqc_tensor *const *in,          \
                         struct mpqc_tensor *const *out)                                          \
    {                                                                                             \
        (void)n;                                                                                  \
        enum mpqc_dtype t = in[0]->type.dtype;                                                    \
        int64_t count = mpqc_type_count(&in[0]->type);                                            \
        if (t == MPQC_DT_F32) {                                                                   \
            loop_##name(in[0]->data, out[0]->data, count, (struct params){0, 0});                 \
            return;                                                                               \
        }                                                                                         \
        for (int64_t i = 0; i < count; i++) {                                                     \
            int64_t x = mpqc_element_get(t, in[0]->data, i);                                      \
            mpqc_element_set(t, out[0]->data, i, int_expression);                                 \
        }                                                                                         \
    }
UNARY_ANY(relu, x > 0 ? x : 0)
UNARY_ANY(neg, (int64_t)(0 - (uint64_t)x))
UNARY_ANY(abs, x < 0 ? (int64_t)(0 - (uint64_t)x) : x)

/* max(x, MIN), then min(..., MAX): MAX wins when they cross, as in ONNX. */
static void clip_int(const struct mpqc_tensor *x, struct mpqc_tensor *out, bool low, bool high,
                     struct params p)
{
    enum mpqc_dtype t = x->type.dtype;
    for (int64_t i = 0; i < mpqc_type_count(&x->type); i++) {
        int64_t v = mpqc_element_get(t, x->data, i);
        if (low && (double)v < (double)p.a) v = (int64_t)ceil(p.a);
        if (high && (double)v > (double)p.b) v = (int64_t)floor(p.b);
        mpqc_element_set(t, out->data, i, v);
    }
}

void mpqc_ref_clip(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                   struct mpqc_tensor *const *out)
{
    bool low = mpqc_attr_find(n, MPQC_ATTR_MIN), high = mpqc_attr_find(n, MPQC_ATTR_MAX);
    struct params p = {mpqc_attr_float_or(n, MPQC_ATTR_MIN, 0.0f),
                       mpqc_attr_float_or(n, MPQC_ATTR_MAX, 0.0f)};
    if (in[0]->type.dtype != MPQC_DT_F32) {
        clip_int(in[0], out[0], low, high, p);
        return;
    }
    p.a = low ? p.a : -INFINITY;
    p.b = high ? p.b : INFINITY;
    loop_clip(in[0]->data, out[0]->data, mpqc_type_count(&in[0]->type), p);
}

void mpqc_ref_not(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                  struct mpqc_tensor *const *out)
{
    (void)n;
    const uint8_t *x = in[0]->data;
    uint8_t *y = out[0]->data;
    for (int64_t i = 0; i < mpqc_type_count(&in[0]->type); i++) y[i] = !x[i];
}

/* ---- cast ---------------------------------------------------------------------------- */

mpqc_status mpqc_infer_cast(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    struct mpqc_type out = *q->in[0];
    MPQC_TRY(mpqc_op_to(q, &out.dtype));
    if (out.quant)
        return OP_FAIL(q, MODEL, "cast takes plain numbers, not a quantised %s",
                       mpqc_op_type_text(q, q->in[0]));
    if (mpqc_dtypes[out.dtype].bits < 8)
        return OP_FAIL(q, UNSUPPORTED, "cast to %s", mpqc_dtypes[out.dtype].text);
    return mpqc_op_result(q, out);
}

/* Truncates; what lies outside of the type saturates, NaN gives 0. */
static int64_t float_to_int(float x, enum mpqc_dtype to)
{
    const struct mpqc_dtype_info *t = &mpqc_dtypes[to];
    if (to == MPQC_DT_BOOL) return x != 0.0f;
    if (isnan(x)) return 0;
    if (x <= (float)t->min) return t->min;
    if (x >= (float)t->max) return t->max;
    return (int64_t)x;
}

void mpqc_ref_cast(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                   struct mpqc_tensor *const *out)
{
    (void)n;
    enum mpqc_dtype from = in[0]->type.dtype, to = out[0]->type.dtype;
    int64_t count = mpqc_type_count(&in[0]->type);
    if (from == to) {
        memcpy(out[0]->data, in[0]->data, mpqc_type_bytes(&in[0]->type));
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        if (from == MPQC_DT_F32) {
            int64_t v = float_to_int(((const float *)in[0]->data)[i], to);
            mpqc_element_set(to, out[0]->data, i, v);
            continue;
        }
        int64_t v = mpqc_element_get(from, in[0]->data, i);
        if (to == MPQC_DT_F32) ((float *)out[0]->data)[i] = (float)v;
        else mpqc_element_set(to, out[0]->data, i, to == MPQC_DT_BOOL ? v != 0 : v);
    }
}
