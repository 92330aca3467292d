/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Emission: every cluster becomes its integer nodes.
 *
 * Units.  An i16 between core and narrow counts in scale / 2^f of the result.
 * Without a residual f is 0 and the factor has 12 bits: then the 16-bit intermediate
 * of requant keeps 3 to 4 bits below the result's step and still reaches 8 times
 * its range.  With a residual f is up to 5, so that neither summand is rounded
 * noticeably before they meet, and the factor has 15 bits, so that the sum of both
 * has room (see choose_frac).  A result that stays 16 bits, because it is the input of
 * such a layer, is the intermediate itself, clamped: f is 0, the factor has 15 bits.
 */
#include "ir/elements.h"
#include "passes/quantise.h"

#include <math.h>

#define ONE_STEP_BITS 12u
#define WIDE_BITS 15u
#define MAX_FRAC 5

mpqc_status mpqc_emit(struct mpqc_quantiser *q, enum mpqc_op op, const mpqc_vid *in, uint32_t n_in,
                      const struct mpqc_attrs *attrs, mpqc_vid *out)
{
    mpqc_vid made;
    MPQC_TRY(mpqc_node_add(q->cx, q->g, op, in, n_in, attrs, q->loc, &made));
    *out = made;
    return MPQC_OK;
}

struct mpqc_params mpqc_params_of_new(const struct mpqc_quantiser *q, mpqc_vid v)
{
    const struct mpqc_quant *quant = mpqc_value_at(q->g, v)->type.quant;
    MPQC_ASSERT(quant && quant->axis == -1);
    enum mpqc_dtype t = mpqc_value_at(q->g, v)->type.dtype;
    unsigned levels = t == MPQC_DT_I16 ? MPQC_WIDE_LEVELS : (unsigned)mpqc_dtypes[t].max;
    return (struct mpqc_params){quant->scale[0], quant->zero[0], levels, false};
}

/* ---- forms of a value ------------------------------------------------------------------ */

static mpqc_status int_const(struct mpqc_quantiser *q, mpqc_vid v, const struct mpqc_params *want,
                             mpqc_vid *out)
{
    const struct mpqc_value c = *mpqc_value_at(q->g, v);
    const float *x = c.data;
    int64_t n = mpqc_type_count(&c.type);
    double lo = 0, hi = 0;
    for (int64_t i = 0; i < n; i++) {
        lo = fmin(lo, (double)x[i]);
        hi = fmax(hi, (double)x[i]);
    }
    struct mpqc_params p = want ? *want : mpqc_params_from_range(lo, hi, 0, 255);
    struct mpqc_type t = c.type;
    t.dtype = mpqc_params_dtype(p);
    double least = mpqc_params_wide(p) ? -(double)p.levels : 0, most = p.levels;
    void *data = mpqc_arena_alloc(&q->p->scratch, mpqc_type_bytes(&t));
    if (!data) return MPQC_OOM(q->cx);
    for (int64_t i = 0; i < n; i++) {
        double code = rint((double)x[i] / (double)p.scale) + p.zero;
        mpqc_element_set(t.dtype, data, i, (int64_t)fmin(fmax(code, least), most));
    }
    t.quant = mpqc_quant_tensor(q->g, p.scale, p.zero);
    *out = mpqc_graph_const(q->g, c.name, t, data, false);
    return *out == MPQC_NONE || !t.quant ? MPQC_OOM(q->cx) : MPQC_OK;
}

/* A conversion belongs to no ONNX node: profiles show it under its tensor's name. */
static mpqc_status emit_conversion(struct mpqc_quantiser *q, enum mpqc_op op, const char *text,
                                   mpqc_vid old, mpqc_vid in, const struct mpqc_attrs *attrs,
                                   mpqc_vid *out)
{
    struct mpqc_loc before = q->loc;
    const char *name = mpqc_value_at(q->g, old)->name;
    if (name) q->loc = (struct mpqc_loc){name, text, -1};
    mpqc_status status = mpqc_emit(q, op, &in, 1, attrs, out);
    q->loc = before;
    return status;
}

static mpqc_status quantize_node(struct mpqc_quantiser *q, mpqc_vid v, struct mpqc_params p,
                                 mpqc_vid *out)
{
    struct mpqc_attrs attrs = {0};
    mpqc_attrs_float(&attrs, MPQC_ATTR_SCALE, p.scale);
    mpqc_attrs_int(&attrs, MPQC_ATTR_ZERO, p.zero);
    mpqc_attrs_string(&attrs, MPQC_ATTR_TO, mpqc_params_text(p));
    return emit_conversion(q, MPQC_OP_QUANTIZE, "Quantize", v, v, &attrs, out);
}

/* A conversion of v to these parameters that is there already, or MPQC_NONE. */
static mpqc_vid find_converted(const struct mpqc_quantiser *q, mpqc_vid v, struct mpqc_params to)
{
    for (uint32_t i = 0; i < q->n_converted; i++) {
        if (q->converted[i].from != v) continue;
        struct mpqc_params have = mpqc_params_of_new(q, q->converted[i].to);
        if (mpqc_params_same(have, to)) return q->converted[i].to;
    }
    return MPQC_NONE;
}

static mpqc_status remember_converted(struct mpqc_quantiser *q, mpqc_vid v, mpqc_vid made)
{
    if (q->n_converted == q->cap_converted) {
        uint32_t n = q->cap_converted ? 2 * q->cap_converted : 16;
        struct mpqc_converted *more = MPQC_NEW_ARRAY(&q->p->scratch, struct mpqc_converted, n);
        if (!more) return MPQC_OOM(q->cx);
        if (q->n_converted) memcpy(more, q->converted, q->n_converted * sizeof *more);
        q->converted = more;
        q->cap_converted = n;
    }
    q->converted[q->n_converted++] = (struct mpqc_converted){v, made};
    return MPQC_OK;
}

/* From one scale or width to another: with as many fraction bits as the factor allows. */
static mpqc_status convert(struct mpqc_quantiser *q, mpqc_vid v, struct mpqc_params to,
                           mpqc_vid *out)
{
    double least = mpqc_least_unit(mpqc_params_of_new(q, v));
    int f = mpqc_params_wide(to) ? 0 : 6;
    *out = find_converted(q, v, to);
    if (*out != MPQC_NONE) return MPQC_OK;
    while (f > 0 && ldexp((double)to.scale, -f) < least) f--;
    mpqc_vid fixed;
    MPQC_TRY(mpqc_lower_rescale(q, v, 1, ldexpf(to.scale, -f), &fixed));
    MPQC_TRY(mpqc_lower_narrow(q, NULL, fixed, to, f, out));
    return remember_converted(q, v, *out);
}

mpqc_status mpqc_as_int(struct mpqc_quantiser *q, mpqc_vid v, const struct mpqc_params *want,
                        mpqc_vid *out)
{
    if (mpqc_is_const(q->g, v)) return int_const(q, v, want, out);
    if (q->as_int[v] == MPQC_NONE) {
        MPQC_ASSERT(q->as_float[v] != MPQC_NONE);
        MPQC_TRY(quantize_node(q, q->as_float[v], mpqc_params_of(q, v), &q->as_int[v]));
    }
    *out = q->as_int[v];
    if (!want) return MPQC_OK;
    if (mpqc_params_same(mpqc_params_of_new(q, *out), *want)) return MPQC_OK;
    return convert(q, *out, *want, out);
}

mpqc_status mpqc_as_byte(struct mpqc_quantiser *q, mpqc_vid v, mpqc_vid *out)
{
    if (mpqc_is_const(q->g, v)) return int_const(q, v, NULL, out);
    struct mpqc_params p = mpqc_params_of(q, v), bytes = mpqc_byte_params_of(q, v);
    return mpqc_as_int(q, v, mpqc_params_wide(p) ? &bytes : NULL, out);
}

mpqc_status mpqc_as_float(struct mpqc_quantiser *q, mpqc_vid v, mpqc_vid *out)
{
    *out = v;
    if (mpqc_is_const(q->g, v)) return MPQC_OK;
    if (q->as_float[v] == MPQC_NONE) {
        MPQC_ASSERT(q->as_int[v] != MPQC_NONE);
        MPQC_TRY(emit_conversion(q, MPQC_OP_DEQUANTIZE, "Dequantize", v, q->as_int[v], NULL,
                                 &q->as_float[v]));
    }
    *out = q->as_float[v];
    return MPQC_OK;
}

/* ---- cores ------------------------------------------------------------------------------- */

/* A core's i32 result. */
struct acc {
    mpqc_vid v;
    double *scale;
    int64_t n;
    bool by_position;
    struct mpqc_type position; /* shape of per-position scales */
};

static mpqc_status one_scale(struct mpqc_quantiser *q, struct acc *a, double scale, double bound)
{
    a->scale = MPQC_NEW(&q->p->scratch, double);
    if (!a->scale) return MPQC_OOM(q->cx);
    a->scale[0] = scale;
    a->n = 1;
    if (bound < 1073741824.0) return MPQC_OK;
    return MPQC_FAIL(q->cx, INFEASIBLE, mpqc_loc_where(q->loc),
                     "a sum over %.0f elements does not fit 32-bit integers", bound / 255.0);
}

static mpqc_status emit_mul(struct mpqc_quantiser *q, const struct mpqc_node *n, struct acc *a)
{
    mpqc_vid in[2];
    for (uint32_t i = 0; i < 2; i++) MPQC_TRY(mpqc_as_byte(q, n->in[i], &in[i]));
    double s = (double)mpqc_params_of_new(q, in[0]).scale * mpqc_params_of_new(q, in[1]).scale;
    MPQC_TRY(one_scale(q, a, s, 255.0 * 255.0));
    return mpqc_emit(q, MPQC_OP_MUL, in, 2, NULL, &a->v);
}

static mpqc_status emit_mean(struct mpqc_quantiser *q, const struct mpqc_node *n, struct acc *a)
{
    const struct mpqc_type from = mpqc_value_at(q->g, n->in[0])->type;
    int64_t results = mpqc_type_count(&mpqc_value_at(q->g, n->out[0])->type);
    double terms = results ? (double)(mpqc_type_count(&from) / results) : 1;
    const struct mpqc_attr *axes = mpqc_attr_find(n, MPQC_ATTR_AXES);
    struct mpqc_attrs attrs = {.n = axes ? 1 : 0};
    if (axes) attrs.a[0] = *axes;
    mpqc_vid x;
    MPQC_TRY(mpqc_as_byte(q, n->in[0], &x));
    double s = (double)mpqc_params_of_new(q, x).scale;
    MPQC_TRY(one_scale(q, a, n->op == MPQC_OP_REDUCE_MEAN ? s / terms : s, 255.0 * terms));
    return mpqc_emit(q, MPQC_OP_REDUCE_SUM, &x, 1, &attrs, &a->v);
}

/* Positions 0 .. kernel-1 of window `at` that lie in [0, extent). */
static int64_t taps_inside(int64_t at, int64_t stride, int64_t pad, int64_t dilation,
                           int64_t kernel, int64_t extent)
{
    int64_t n = 0;
    for (int64_t k = 0; k < kernel; k++) {
        int64_t x = at * stride - pad + k * dilation;
        n += x >= 0 && x < extent;
    }
    return n;
}

/* Scales of an average pool: one, or one per output position where windows at the
 * border hold fewer elements. */
static mpqc_status pool_scales(struct mpqc_quantiser *q, const struct mpqc_node *n, double s,
                               struct acc *a)
{
    const struct mpqc_type x = mpqc_value_at(q->g, n->in[0])->type;
    const struct mpqc_type y = mpqc_value_at(q->g, n->out[0])->type;
    const int64_t *k = mpqc_attr_ints(n, MPQC_ATTR_KERNEL), *st = mpqc_attr_ints(n, MPQC_ATTR_STRIDES);
    const int64_t *pads = mpqc_attr_ints(n, MPQC_ATTR_PADS);
    const int64_t *dil = mpqc_attr_ints(n, MPQC_ATTR_DILATIONS);
    MPQC_TRY(one_scale(q, a, s / (double)(k[0] * k[1]), 255.0 * (double)k[0] * (double)k[1]));
    if (mpqc_attr_int_or(n, MPQC_ATTR_COUNT_PAD, 0) || y.dims[1] * y.dims[2] == 0) return MPQC_OK;
    double *scale = MPQC_NEW_ARRAY(&q->p->scratch, double, (size_t)(y.dims[1] * y.dims[2]));
    if (!scale) return MPQC_OOM(q->cx);
    bool even = true;
    for (int64_t i = 0; i < y.dims[1] * y.dims[2]; i++) {
        int64_t h = i / y.dims[2], w = i % y.dims[2];
        int64_t rows = taps_inside(h, st ? st[0] : 1, pads ? pads[0] : 0, dil ? dil[0] : 1, k[0],
                                   x.dims[1]);
        int64_t cols = taps_inside(w, st ? st[1] : 1, pads ? pads[1] : 0, dil ? dil[1] : 1, k[1],
                                   x.dims[2]);
        scale[i] = s / (double)(rows * cols > 0 ? rows * cols : 1);
        even = even && scale[i] == scale[0];
    }
    a->scale = scale;
    if (even) return MPQC_OK;
    a->n = y.dims[1] * y.dims[2];
    a->by_position = true;
    const int64_t dims[3] = {y.dims[1], y.dims[2], 1};
    a->position = mpqc_type_make(MPQC_DT_I32, 3, dims);
    return MPQC_OK;
}

static mpqc_status emit_avgpool(struct mpqc_quantiser *q, const struct mpqc_node *n, struct acc *a)
{
    struct mpqc_attrs attrs = {0};
    for (uint32_t i = 0; i < n->n_attr; i++)
        if (n->attr[i].key != MPQC_ATTR_COUNT_PAD) attrs.a[attrs.n++] = n->attr[i];
    mpqc_vid x;
    MPQC_TRY(mpqc_as_byte(q, n->in[0], &x));
    MPQC_TRY(pool_scales(q, n, (double)mpqc_params_of_new(q, x).scale, a));
    return mpqc_emit(q, MPQC_OP_SUMPOOL, &x, 1, &attrs, &a->v);
}

static mpqc_status emit_core(struct mpqc_quantiser *q, const struct mpqc_cluster *c, double unit,
                             struct acc *a)
{
    const struct mpqc_node n = *mpqc_node_at(q->g, c->core);
    *a = (struct acc){0};
    switch (c->rule) {
    case MPQC_RULE_MUL: return emit_mul(q, &n, a);
    case MPQC_RULE_MEAN: return emit_mean(q, &n, a);
    case MPQC_RULE_AVGPOOL: return emit_avgpool(q, &n, a);
    default: return mpqc_lower_linear(q, c, unit, &a->v, &a->scale, &a->n);
    }
}

/* ---- sums ---------------------------------------------------------------------------------- */

/* Largest real magnitude that operand v of a sum asks the unit to reach, in terms of
 * a smallest admissible unit. */
static double least_unit(struct mpqc_quantiser *q, const struct mpqc_cluster *c, mpqc_vid v)
{
    if (mpqc_is_const(q->g, v)) return mpqc_const_peak(q->g, v) / 32767.0;
    if (c->add != MPQC_NONE && v == mpqc_node_at(q->g, c->core)->out[0])
        return mpqc_observed_peak(q, v) / MPQC_WIDE_LEVELS;
    return mpqc_least_unit(mpqc_params_of_new(q, q->as_int[v]));
}

/* The accumulator may not be coarser than what it becomes. */
static double finest_unit(struct mpqc_quantiser *q, const struct mpqc_cluster *c)
{
    return 1.001 * mpqc_accumulator_scale(q, (uint32_t)(c - q->clusters.c));
}

/* Fraction bits of a sum: as many as keep every summand within its i16. */
static int choose_frac(struct mpqc_quantiser *q, const struct mpqc_cluster *c,
                       struct mpqc_params to)
{
    const struct mpqc_node *n = mpqc_node_at(q->g, c->add != MPQC_NONE ? c->add : c->core);
    double least = fmax(least_unit(q, c, n->in[0]), least_unit(q, c, n->in[1]));
    if (c->add != MPQC_NONE) least = fmax(least, finest_unit(q, c));
    int f = mpqc_params_wide(to) ? 0 : MAX_FRAC;
    while (f > 0 && ldexp((double)to.scale, -f) < least) f--;
    return f;
}

/* Operand i of a sum as i16. */
static mpqc_status summand(struct mpqc_quantiser *q, const struct mpqc_node *n, uint32_t i,
                           float unit, mpqc_vid *out)
{
    double sign = n->op == MPQC_OP_SUB && i == 1 ? -1 : 1;
    mpqc_vid v = n->in[i];
    if (!mpqc_is_const(q->g, v)) {
        MPQC_TRY(mpqc_as_int(q, v, NULL, out));
        return mpqc_lower_rescale(q, *out, sign, unit, out);
    }
    const struct mpqc_value c = *mpqc_value_at(q->g, v);
    size_t count = (size_t)mpqc_type_count(&c.type);
    int16_t *data = MPQC_NEW_ARRAY(&q->p->scratch, int16_t, count);
    if (!data) return MPQC_OOM(q->cx);
    for (size_t k = 0; k < count; k++) {
        double x = rint(sign * (double)((const float *)c.data)[k] / (double)unit);
        data[k] = (int16_t)fmin(fmax(x, -32767), 32767);
    }
    struct mpqc_type t = c.type;
    t.dtype = MPQC_DT_I16;
    t.quant = mpqc_quant_tensor(q->g, unit, 0);
    *out = mpqc_graph_const(q->g, c.name, t, data, false);
    return *out == MPQC_NONE || !t.quant ? MPQC_OOM(q->cx) : MPQC_OK;
}

static mpqc_status emit_sum(struct mpqc_quantiser *q, const struct mpqc_cluster *c, mpqc_vid *out)
{
    const struct mpqc_node n = *mpqc_node_at(q->g, c->core);
    struct mpqc_params to = mpqc_cluster_params(q, c);
    mpqc_vid in[2], unused;
    for (uint32_t i = 0; i < 2; i++)
        if (!mpqc_is_const(q->g, n.in[i])) MPQC_TRY(mpqc_as_int(q, n.in[i], NULL, &unused));
    int f = choose_frac(q, c, to);
    float unit = ldexpf(to.scale, -f);
    for (uint32_t i = 0; i < 2; i++) MPQC_TRY(summand(q, &n, i, unit, &in[i]));
    MPQC_TRY(mpqc_emit(q, MPQC_OP_ADD, in, 2, NULL, out));
    return mpqc_lower_narrow(q, c, *out, to, f, out);
}

/* ---- a core and its epilogue ------------------------------------------------------------------ */

/* The unit of an output that stays i16: room for twice what calibration saw. */
static double wide_unit(struct mpqc_quantiser *q, const struct mpqc_cluster *c)
{
    mpqc_vid core = mpqc_node_at(q->g, c->core)->out[0];
    double unit = fmax(2 * mpqc_observed_peak(q, c->out) / MPQC_WIDE_LEVELS, finest_unit(q, c));
    if (c->add != MPQC_NONE) {
        mpqc_vid r = mpqc_other_input(mpqc_node_at(q->g, c->add), core);
        unit = fmax(unit, 2 * mpqc_observed_peak(q, core) / MPQC_WIDE_LEVELS);
        unit = fmax(unit, mpqc_least_unit(mpqc_params_of_new(q, q->as_int[r])));
    }
    return fmax(unit, MPQC_LEAST_SCALE);
}

static mpqc_status add_residual(struct mpqc_quantiser *q, const struct mpqc_cluster *c,
                                float unit, mpqc_vid *v)
{
    const struct mpqc_node add = *mpqc_node_at(q->g, c->add);
    mpqc_vid core = mpqc_node_at(q->g, c->core)->out[0];
    uint32_t other = add.in[0] == core ? 1 : 0;
    mpqc_vid in[2] = {*v, MPQC_NONE};
    MPQC_TRY(summand(q, &add, other, unit, &in[1]));
    return mpqc_emit(q, MPQC_OP_ADD, in, 2, NULL, v);
}

/* Back to the shape of the float value, where the core worked on another rank. */
static mpqc_status restore_shape(struct mpqc_quantiser *q, const struct mpqc_cluster *c,
                                 mpqc_vid *v)
{
    const struct mpqc_type t = mpqc_value_at(q->g, c->out)->type;
    if (mpqc_type_same_shape(&t, &mpqc_value_at(q->g, *v)->type)) return MPQC_OK;
    struct mpqc_attrs attrs = {0};
    mpqc_attrs_ints(&attrs, MPQC_ATTR_SHAPE, t.rank, t.dims);
    return mpqc_emit(q, MPQC_OP_RESHAPE, v, 1, &attrs, v);
}

static mpqc_status emit_with_epilogue(struct mpqc_quantiser *q, const struct mpqc_cluster *c,
                                      mpqc_vid *out)
{
    bool residual = c->add != MPQC_NONE;
    struct mpqc_params to = mpqc_cluster_params(q, c);
    mpqc_vid core = mpqc_node_at(q->g, c->core)->out[0], unused;
    double sign = 1;
    if (residual) {
        const struct mpqc_node add = *mpqc_node_at(q->g, c->add);
        MPQC_TRY(mpqc_as_int(q, mpqc_other_input(&add, core), NULL, &unused));
        sign = add.op == MPQC_OP_SUB && add.in[1] == core ? -1 : 1;
    }
    int f = residual && !c->wide ? choose_frac(q, c, to) : 0;
    float unit = c->wide ? (float)wide_unit(q, c) : ldexpf(to.scale, -f);
    struct acc a;
    MPQC_TRY(emit_core(q, c, (double)unit, &a));
    bool fine = residual || c->wide || mpqc_params_wide(to);
    unsigned bits = fine ? WIDE_BITS : ONE_STEP_BITS;
    MPQC_TRY(mpqc_lower_requant(q, a.v, a.scale, a.n, sign, unit, bits,
                               a.by_position ? &a.position : NULL, out));
    if (residual) MPQC_TRY(add_residual(q, c, unit, out));
    if (!c->wide) MPQC_TRY(mpqc_lower_narrow(q, c, *out, to, f, out));
    return restore_shape(q, c, out);
}

/* ---- the rest ---------------------------------------------------------------------------------- */

static mpqc_status emit_same(struct mpqc_quantiser *q, const struct mpqc_node *n, mpqc_vid *out)
{
    mpqc_vid in[2] = {MPQC_NONE, MPQC_NONE};
    struct mpqc_attrs attrs = {.n = n->n_attr};
    MPQC_ASSERT(n->n_in <= 2 && n->n_attr <= MPQC_MAX_ATTRS);
    for (uint32_t i = 0; i < n->n_attr; i++) attrs.a[i] = n->attr[i];
    MPQC_TRY(mpqc_as_int(q, n->in[0], NULL, &in[0]));
    if (n->n_in > 1) in[1] = n->in[1]; /* indices */
    return mpqc_emit(q, n->op, in, n->n_in, &attrs, out);
}

static mpqc_status emit_join(struct mpqc_quantiser *q, const struct mpqc_node *n, mpqc_vid *out)
{
    mpqc_vid in[MPQC_MAX_INPUTS];
    struct mpqc_attrs attrs = {.n = n->n_attr};
    for (uint32_t i = 0; i < n->n_attr; i++) attrs.a[i] = n->attr[i];
    struct mpqc_params p = mpqc_params_of(q, n->out[0]);
    for (uint32_t i = 0; i < n->n_in; i++) MPQC_TRY(mpqc_as_int(q, n->in[i], &p, &in[i]));
    return mpqc_emit(q, n->op, in, n->n_in, &attrs, out);
}

static mpqc_status emit_softmax(struct mpqc_quantiser *q, const struct mpqc_cluster *c,
                                const struct mpqc_node *n, mpqc_vid *out)
{
    mpqc_vid in[2];
    int32_t table[256];
    const int64_t dims[1] = {256};
    MPQC_TRY(mpqc_as_byte(q, n->in[0], &in[0]));
    double s = (double)mpqc_params_of_new(q, in[0]).scale;
    for (int i = 0; i < 256; i++) table[i] = (int32_t)rint(65536.0 * exp(-i * s));
    in[1] = mpqc_graph_const(q->g, NULL, mpqc_type_make(MPQC_DT_I32, 1, dims), table, false);
    if (in[1] == MPQC_NONE) return MPQC_OOM(q->cx);
    struct mpqc_attrs attrs = {0};
    mpqc_attrs_int(&attrs, MPQC_ATTR_AXIS, mpqc_attr_int(n, MPQC_ATTR_AXIS));
    mpqc_attrs_string(&attrs, MPQC_ATTR_TO, c->wide ? "i16" : "u8");
    return mpqc_emit(q, MPQC_OP_SOFTMAX, in, 2, &attrs, out);
}

static mpqc_status emit_by_rule(struct mpqc_quantiser *q, const struct mpqc_cluster *c,
                                mpqc_vid *out)
{
    const struct mpqc_node n = *mpqc_node_at(q->g, c->core);
    switch (c->rule) {
    case MPQC_RULE_SAME: return emit_same(q, &n, out);
    case MPQC_RULE_JOIN: return emit_join(q, &n, out);
    case MPQC_RULE_SOFTMAX: return emit_softmax(q, c, &n, out);
    case MPQC_RULE_SUM: return emit_sum(q, c, out);
    case MPQC_RULE_UNARY:
        MPQC_TRY(mpqc_as_byte(q, mpqc_is_const(q->g, n.in[0]) ? n.in[1] : n.in[0], out));
        return mpqc_lower_table(q, c, *out, out);
    default: return emit_with_epilogue(q, c, out);
    }
}

mpqc_status mpqc_lower_cluster(struct mpqc_quantiser *q, const struct mpqc_cluster *c)
{
    mpqc_vid out = MPQC_NONE;
    q->loc = mpqc_node_at(q->g, c->core)->loc;
    MPQC_TRY(emit_by_rule(q, c, &out));
    struct mpqc_params p = mpqc_params_of(q, c->out);
    bool narrow = mpqc_dtype_is_byte(mpqc_value_at(q->g, out)->type.dtype);
    if (narrow && mpqc_params_wide(p)) MPQC_TRY(convert(q, out, p, &out)); /* a table's */
    q->as_int[c->out] = out;
    struct mpqc_value *v = mpqc_value_at(q->g, out);
    if (!v->name) v->name = mpqc_value_at(q->g, c->out)->name;
    return MPQC_OK;
}
