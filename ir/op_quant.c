/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * From real numbers to integers and between integers of different scales.  The
 * arithmetic is that of dyadic.h; here are the rules of types and the loops.
 */
#include "ir/op.h"

#include <math.h>

/* ZERO, within the range of a type. */
static mpqc_status zero_in(struct mpqc_infer *q, enum mpqc_dtype t, int32_t *zero)
{
    int64_t v = mpqc_attr_int_or(q->node, MPQC_ATTR_ZERO, 0);
    if (v < mpqc_dtypes[t].min || v > mpqc_dtypes[t].max)
        return OP_FAIL(q, MODEL, "zero point %lld is outside of %s", (long long)v,
                       mpqc_dtypes[t].text);
    *zero = (int32_t)v;
    return MPQC_OK;
}

mpqc_status mpqc_infer_quantize(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    struct mpqc_type out = *q->in[0];
    float scale;
    int32_t zero = 0;
    if (!mpqc_op_is_plain(&out, MPQC_DT_F32))
        return OP_FAIL(q, MODEL, "quantize takes f32, not %s", mpqc_op_type_text(q, &out));
    MPQC_TRY(mpqc_op_to(q, &out.dtype));
    if (!mpqc_dtype_is_quantised_storage(out.dtype))
        return OP_FAIL(q, MODEL, "quantize to %s", mpqc_dtypes[out.dtype].text);
    MPQC_TRY(mpqc_op_scale(q, &scale));
    MPQC_TRY(zero_in(q, out.dtype, &zero));
    MPQC_TRY(mpqc_op_quant(q, scale, zero, &out.quant));
    return mpqc_op_result(q, out);
}

/* The range is applied to the float, so that no conversion overflows; `v > a ? v : a`
 * is a when v is NaN, as the vector instructions have it. */
void mpqc_ref_quantize(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                       struct mpqc_tensor *const *out)
{
    (void)n;
    const struct mpqc_type *t = &out[0]->type;
    int32_t zero = t->quant->zero[0];
    float factor = 1.0f / t->quant->scale[0];
    float low = (float)(mpqc_dtypes[t->dtype].min - zero);
    float high = (float)(mpqc_dtypes[t->dtype].max - zero);
    const float *x = in[0]->data;
    for (int64_t i = 0; i < mpqc_type_count(t); i++) {
        float v = x[i] * factor;
        v = v > low ? v : low;
        v = v < high ? v : high;
        mpqc_element_set(t->dtype, out[0]->data, i, (int64_t)rintf(v) + zero);
    }
}

mpqc_status mpqc_infer_dequantize(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    struct mpqc_type out = *q->in[0];
    bool last = out.quant && (out.quant->axis == -1 || out.quant->axis == (int32_t)out.rank - 1);
    if (!last || !mpqc_op_is_integer(out.dtype) || out.dtype == MPQC_DT_I64)
        return OP_FAIL(q, MODEL, "dequantize takes a tensor quantised per tensor or per last axis, "
                       "not %s", mpqc_op_type_text(q, q->in[0]));
    out.dtype = MPQC_DT_F32;
    out.quant = NULL;
    return mpqc_op_result(q, out);
}

void mpqc_ref_dequantize(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                         struct mpqc_tensor *const *out)
{
    (void)n;
    const struct mpqc_type *t = &in[0]->type;
    const struct mpqc_quant *quant = t->quant;
    float *y = out[0]->data;
    for (int64_t i = 0, c = 0; i < mpqc_type_count(t); i++) {
        int64_t q = mpqc_element_get(t->dtype, in[0]->data, i) - quant->zero[c];
        y[i] = (float)q * quant->scale[c];
        if (++c == (int64_t)quant->count) c = 0;
    }
}

/* ---- requant ------------------------------------------------------------------------- */

static mpqc_status check_factor(struct mpqc_infer *q, uint32_t input, int64_t low, int64_t high)
{
    const struct mpqc_type *t = q->in[input], *x = q->in[0];
    const int32_t *v = q->in_data[input];
    if (t->dtype != MPQC_DT_I32 || !v || t->rank > x->rank)
        return OP_FAIL(q, MODEL, "input %u of requant is %s, not an i32 constant", input,
                       mpqc_op_type_text(q, t));
    for (uint32_t d = 0; d < t->rank; d++) {
        int64_t extent = t->dims[t->rank - 1 - d];
        if (extent != 1 && extent != x->dims[x->rank - 1 - d])
            return OP_FAIL(q, MODEL, "input %u of requant, %s, does not fit %s", input,
                           mpqc_op_type_text(q, t), mpqc_op_type_text(q, x));
    }
    for (int64_t i = 0; i < mpqc_type_count(t); i++) {
        if (v[i] < low || v[i] > high)
            return OP_FAIL(q, MODEL, "input %u of requant has the value %d, outside of %lld to "
                           "%lld", input, v[i], (long long)low, (long long)high);
    }
    return MPQC_OK;
}

mpqc_status mpqc_infer_requant(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    struct mpqc_type out = *q->in[0];
    float scale;
    if (out.dtype != MPQC_DT_I32 || !out.quant)
        return OP_FAIL(q, MODEL, "requant takes quantised i32, not %s",
                       mpqc_op_type_text(q, &out));
    MPQC_TRY(check_factor(q, 1, 0, 31));
    MPQC_TRY(check_factor(q, 2, -32767, 32767));
    MPQC_TRY(mpqc_op_scale(q, &scale));
    out.dtype = MPQC_DT_I16;
    MPQC_TRY(mpqc_op_quant(q, scale, 0, &out.quant));
    return mpqc_op_result(q, out);
}

void mpqc_ref_requant(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                      struct mpqc_tensor *const *out)
{
    (void)n;
    const int32_t *acc = in[0]->data, *shift = in[1]->data, *mult = in[2]->data;
    int16_t *y = out[0]->data;
    struct mpqc_walk w;
    mpqc_walk_init(&w, in[0]->type.rank, in[0]->type.dims);
    mpqc_walk_broadcast(&w, &in[1]->type);
    mpqc_walk_broadcast(&w, &in[2]->type);
    for (mpqc_walk_start(&w); !w.done; mpqc_walk_next(&w)) {
        for (int64_t i = 0; i < w.len; i++)
            y[w.at[0] + i] = (int16_t)mpqc_requant(acc[w.at[0] + i], shift[w.at[1] + i * w.step[1]],
                                                   mult[w.at[2] + i * w.step[2]]);
    }
}

/* ---- rescale, narrow, lut --------------------------------------------------------------- */

mpqc_status mpqc_infer_rescale(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    struct mpqc_type out = *q->in[0];
    float scale;
    int64_t mult = mpqc_attr_int_or(q->node, MPQC_ATTR_MULT, 32768);
    bool wide = out.dtype == MPQC_DT_I16 && mpqc_op_is_quantised(&out, 16) &&
                out.quant->zero[0] == 0;
    if (!wide && !mpqc_op_is_quantised(&out, 8))
        return OP_FAIL(q, MODEL, "rescale takes 8 bits, or i16 with zero point 0, per tensor, "
                       "not %s",
                       mpqc_op_type_text(q, &out));
    if (mult <= -32768 || mult >= 32768)
        return OP_FAIL(q, MODEL, "rescale needs a mult between -32767 and 32767");
    MPQC_TRY(mpqc_op_scale(q, &scale));
    out.dtype = MPQC_DT_I16;
    MPQC_TRY(mpqc_op_quant(q, scale, 0, &out.quant));
    return mpqc_op_result(q, out);
}

void mpqc_ref_rescale(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                      struct mpqc_tensor *const *out)
{
    const struct mpqc_type *t = &in[0]->type;
    int32_t mult = (int32_t)mpqc_attr_int(n, MPQC_ATTR_MULT), zero = t->quant->zero[0];
    int16_t *y = out[0]->data;
    const void *x = in[0]->data;
    int64_t count = mpqc_type_count(t);
    if (t->dtype == MPQC_DT_I16) {
        const int16_t *wide = x;
        for (int64_t i = 0; i < count; i++) y[i] = (int16_t)mpqc_mulhrs(wide[i], mult);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        y[i] = (int16_t)mpqc_rescale((int32_t)mpqc_element_get(t->dtype, x, i) - zero, mult);
}

mpqc_status mpqc_infer_narrow(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    struct mpqc_type out = *q->in[0];
    int32_t zero = 0;
    MPQC_TRY(mpqc_op_to(q, &out.dtype));
    const struct mpqc_dtype_info *t = &mpqc_dtypes[out.dtype];
    if (!mpqc_op_is_quantised(q->in[0], 16) || q->in[0]->dtype != MPQC_DT_I16)
        return OP_FAIL(q, MODEL, "narrow takes quantised i16, not %s",
                       mpqc_op_type_text(q, q->in[0]));
    if (q->in[0]->quant->zero[0] != 0 || !mpqc_dtype_is_quantised_storage(out.dtype))
        return OP_FAIL(q, MODEL, "narrow takes zero point 0 and goes to 16 bits or fewer");
    int64_t frac = mpqc_attr_int_or(q->node, MPQC_ATTR_FRAC, 0);
    int64_t lo = mpqc_attr_int_or(q->node, MPQC_ATTR_LO, t->min);
    int64_t hi = mpqc_attr_int_or(q->node, MPQC_ATTR_HI, t->max);
    if (frac < 0 || frac > 14)
        return OP_FAIL(q, MODEL, "narrow drops %lld bits, not 0 to 14", (long long)frac);
    if (lo < t->min || hi > t->max || lo > hi)
        return OP_FAIL(q, MODEL, "narrow clamps to [%lld, %lld], which is not a range of %s",
                       (long long)lo, (long long)hi, t->text);
    MPQC_TRY(zero_in(q, out.dtype, &zero));
    float scale = ldexpf(q->in[0]->quant->scale[0], (int)frac);
    MPQC_TRY(mpqc_op_quant(q, scale, zero, &out.quant));
    return mpqc_op_result(q, out);
}

/* Signed or not, a byte holds the low bits. */
MPQC_CLONES static void narrow_bytes(const int16_t *restrict x, uint8_t *restrict y, int64_t n,
                                     int frac, int32_t zero, int32_t lo, int32_t hi)
{
    for (int64_t i = 0; i < n; i++) y[i] = (uint8_t)mpqc_narrow(x[i], frac, zero, lo, hi);
}

void mpqc_ref_narrow(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                     struct mpqc_tensor *const *out)
{
    const struct mpqc_type *t = &out[0]->type;
    const struct mpqc_dtype_info *info = &mpqc_dtypes[t->dtype];
    int frac = (int)mpqc_attr_int_or(n, MPQC_ATTR_FRAC, 0);
    int32_t lo = (int32_t)mpqc_attr_int_or(n, MPQC_ATTR_LO, info->min);
    int32_t hi = (int32_t)mpqc_attr_int_or(n, MPQC_ATTR_HI, info->max);
    int32_t zero = t->quant->zero[0];
    const int16_t *x = in[0]->data;
    int64_t count = mpqc_type_count(t);
    if (info->bytes == 1) {
        narrow_bytes(x, out[0]->data, count, frac, zero, lo, hi);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        mpqc_element_set(t->dtype, out[0]->data, i, mpqc_narrow(x[i], frac, zero, lo, hi));
}

mpqc_status mpqc_infer_lut(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *x = q->in[0], *table = q->in[1];
    struct mpqc_type out = *x;
    float scale;
    int32_t zero = 0;
    bool index = mpqc_dtypes[x->dtype].kind == MPQC_KIND_UINT && mpqc_dtypes[x->dtype].bits <= 8;
    if (!index)
        return OP_FAIL(q, MODEL, "lut takes an unsigned index of at most 8 bits, not %s",
                       mpqc_op_type_text(q, x));
    if (table->rank != 1 || table->dims[0] != 256 || !q->in_data[1] ||
        !mpqc_dtype_is_quantised_storage(table->dtype))
        return OP_FAIL(q, MODEL, "the table of lut is %s, not 256 constants of 16 bits or fewer",
                       mpqc_op_type_text(q, table));
    out.dtype = table->dtype;
    MPQC_TRY(mpqc_op_scale(q, &scale));
    MPQC_TRY(zero_in(q, out.dtype, &zero));
    MPQC_TRY(mpqc_op_quant(q, scale, zero, &out.quant));
    return mpqc_op_result(q, out);
}

void mpqc_ref_lut(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                  struct mpqc_tensor *const *out)
{
    (void)n;
    const uint8_t *x = in[0]->data;
    int64_t count = mpqc_type_count(&in[0]->type);
    if (mpqc_dtypes[out[0]->type.dtype].bytes == 1) {
        const uint8_t *table = in[1]->data;
        uint8_t *y = out[0]->data;
        for (int64_t i = 0; i < count; i++) y[i] = table[x[i]];
    } else {
        const uint16_t *table = in[1]->data;
        uint16_t *y = out[0]->data;
        for (int64_t i = 0; i < count; i++) y[i] = table[x[i]];
    }
}
