/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * From a core's result to the stored value: requant, rescale, narrow, lut.
 */
#include "ir/dyadic.h"
#include "passes/quantise.h"

#include <math.h>

static struct mpqc_where here(const struct mpqc_quantiser *q)
{
    return (struct mpqc_where){.node = q->loc.node, .op = q->loc.op, .offset = q->loc.offset};
}

static mpqc_status i32_const(struct mpqc_quantiser *q, int64_t n, const int32_t *data,
                             const struct mpqc_type *position, mpqc_vid *out)
{
    const int64_t dims[1] = {n};
    struct mpqc_type t = mpqc_type_make(MPQC_DT_I32, 1, dims);
    if (position) t = mpqc_type_make(MPQC_DT_I32, position->rank, position->dims);
    *out = mpqc_graph_const(q->g, NULL, t, data, false);
    return *out == MPQC_NONE ? MPQC_OOM(q->cx) : MPQC_OK;
}

mpqc_status mpqc_lower_requant(struct mpqc_quantiser *q, mpqc_vid acc, const double *acc_scale,
                              int64_t n, double sign, float unit, unsigned mult_bits,
                              const struct mpqc_type *position, mpqc_vid *out)
{
    int32_t *shift = MPQC_NEW_ARRAY(&q->p->scratch, int32_t, (size_t)n);
    int32_t *mult = MPQC_NEW_ARRAY(&q->p->scratch, int32_t, (size_t)n);
    if (!shift || !mult) return MPQC_OOM(q->cx);
    for (int64_t i = 0; i < n; i++) {
        double r = fabs(acc_scale[i]) / (double)unit;
        if (mpqc_dyadic_from_real(r, (int)mult_bits, &shift[i], &mult[i]) != 0)
            return MPQC_FAIL(q->cx, INFEASIBLE, here(q),
                             "the result needs a finer scale than its accumulator has (factor %g); "
                             "its calibrated range is far too small", r);
        if ((sign < 0) != (acc_scale[i] < 0)) mult[i] = -mult[i];
    }
    mpqc_vid in[3] = {acc, MPQC_NONE, MPQC_NONE};
    MPQC_TRY(i32_const(q, n, shift, position, &in[1]));
    MPQC_TRY(i32_const(q, n, mult, position, &in[2]));
    struct mpqc_attrs attrs = {0};
    mpqc_attrs_float(&attrs, MPQC_ATTR_SCALE, unit);
    return mpqc_emit(q, MPQC_OP_REQUANT, in, 3, &attrs, out);
}

mpqc_status mpqc_lower_rescale(struct mpqc_quantiser *q, mpqc_vid v, double sign, float unit,
                              mpqc_vid *out)
{
    struct mpqc_params p = mpqc_params_of_new(q, v);
    double m = rint((mpqc_params_wide(p) ? 32768.0 : 256.0) * (double)p.scale / (double)unit);
    m = fmin(m, 32767.0);
    struct mpqc_attrs attrs = {0};
    mpqc_attrs_float(&attrs, MPQC_ATTR_SCALE, unit);
    mpqc_attrs_int(&attrs, MPQC_ATTR_MULT, (int64_t)(sign * m));
    return mpqc_emit(q, MPQC_OP_RESCALE, &v, 1, &attrs, out);
}

/* ---- narrow and the table ------------------------------------------------------------ */

struct mpqc_params mpqc_cluster_params(struct mpqc_quantiser *q, const struct mpqc_cluster *c)
{
    return mpqc_cluster_has_table(c) ? q->pre[c - q->clusters.c] : mpqc_params_of(q, c->out);
}

static int64_t code_of(double real, struct mpqc_params p)
{
    double code = rint(real / (double)p.scale) + p.zero;
    double least = mpqc_params_wide(p) ? -(double)p.levels : 0;
    return (int64_t)fmin(fmax(code, least), p.levels); /* infinities included */
}

mpqc_status mpqc_lower_narrow(struct mpqc_quantiser *q, const struct mpqc_cluster *c, mpqc_vid v,
                             struct mpqc_params to, int frac, mpqc_vid *out)
{
    double lo = -INFINITY, hi = INFINITY;
    if (c) mpqc_chain_limits(q->g, c->chain, c->n_clamp, &lo, &hi);
    struct mpqc_attrs attrs = {0};
    mpqc_attrs_int(&attrs, MPQC_ATTR_FRAC, frac);
    mpqc_attrs_int(&attrs, MPQC_ATTR_ZERO, to.zero);
    mpqc_attrs_int(&attrs, MPQC_ATTR_LO, code_of(lo, to));
    mpqc_attrs_int(&attrs, MPQC_ATTR_HI, code_of(hi, to));
    mpqc_attrs_string(&attrs, MPQC_ATTR_TO, mpqc_params_text(to));
    MPQC_TRY(mpqc_emit(q, MPQC_OP_NARROW, &v, 1, &attrs, out));
    if (!c || !mpqc_cluster_has_table(c)) return MPQC_OK;
    return mpqc_lower_table(q, c, *out, out);
}

mpqc_status mpqc_lower_table(struct mpqc_quantiser *q, const struct mpqc_cluster *c, mpqc_vid v,
                            mpqc_vid *out)
{
    struct mpqc_params from = mpqc_params_of_new(q, v), to = mpqc_byte_params_of(q, c->out);
    float x[256];
    uint8_t table[256];
    const int64_t dims[1] = {256};
    for (int i = 0; i < 256; i++) x[i] = (float)(from.scale * (double)(i - from.zero));
    MPQC_TRY(mpqc_chain_eval(q->cx, q->g, c->chain + c->n_clamp, c->n_chain - c->n_clamp, x, 256));
    /* NaN, e.g. the logarithm of an input that never occurs, is taken as 0 */
    for (int i = 0; i < 256; i++) table[i] = (uint8_t)code_of(isnan(x[i]) ? 0.0 : x[i], to);
    struct mpqc_type type = mpqc_type_make(mpqc_params_dtype(to), 1, dims);
    mpqc_vid in[2] = {v, mpqc_graph_const(q->g, NULL, type, table, false)};
    if (in[1] == MPQC_NONE) return MPQC_OOM(q->cx);
    struct mpqc_attrs attrs = {0};
    mpqc_attrs_float(&attrs, MPQC_ATTR_SCALE, to.scale);
    mpqc_attrs_int(&attrs, MPQC_ATTR_ZERO, to.zero);
    return mpqc_emit(q, MPQC_OP_LUT, in, 2, &attrs, out);
}
