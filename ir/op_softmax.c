/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * softmax along AXIS.
 *
 * Quantised (8 bits per tensor, table i32[256] with entries in [0, 65536], entry 0
 * positive), per row of at most 32767 numbers, in unsigned 32-bit arithmetic:
 *
 *   m = max x_i,  e_i = table[m - x_i],  s = sum e_i
 *   y_i = min(MAX, (e_i * 2^k + s / 2) / s)      divisions truncate
 *
 * with k = 8, MAX = 255 for u8 (scale 1/256) and k = 15, MAX = 32767 for i16
 * (scale 1/32768).  table[d] is meant to be round(65536 exp(-d * scale_x)).  It
 * cannot overflow: e_i 2^15 <= 2^31 and s / 2 < 32767 * 2^15 < 2^30.
 */
#include "ir/op.h"

#include <math.h>

static mpqc_status check_table(struct mpqc_infer *q)
{
    const struct mpqc_type *t = q->in[1];
    const int32_t *table = q->in_data[1];
    if (t->dtype != MPQC_DT_I32 || t->rank != 1 || t->dims[0] != 256 || !table)
        return OP_FAIL(q, MODEL, "the table of softmax is %s, not a constant i32[256]",
                       mpqc_op_type_text(q, t));
    for (int i = 0; i < 256; i++) {
        if (table[i] < (i == 0) || table[i] > 65536)
            return OP_FAIL(q, MODEL, "entry %d of the softmax table is %d", i, table[i]);
    }
    return MPQC_OK;
}

mpqc_status mpqc_infer_softmax(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *x = q->in[0];
    uint32_t axis;
    struct mpqc_type out = *x;
    MPQC_TRY(mpqc_op_axis(q, x->rank, &axis));
    if (!mpqc_op_in(q, 1)) {
        if (!mpqc_op_is_plain(x, MPQC_DT_F32))
            return OP_FAIL(q, MODEL, "softmax of %s needs a table", mpqc_op_type_text(q, x));
        return mpqc_op_result(q, out);
    }
    MPQC_TRY(check_table(q));
    MPQC_TRY(mpqc_op_to(q, &out.dtype));
    if (!mpqc_op_is_quantised(x, 8))
        return OP_FAIL(q, MODEL, "softmax with a table takes 8 bits per tensor, not %s",
                       mpqc_op_type_text(q, x));
    if (out.dtype != MPQC_DT_U8 && out.dtype != MPQC_DT_I16)
        return OP_FAIL(q, MODEL, "softmax gives u8 or i16, not %s", mpqc_dtypes[out.dtype].text);
    if (x->dims[axis] > 32767)
        return OP_FAIL(q, UNSUPPORTED, "integer softmax over %lld numbers (at most 32767)",
                       (long long)x->dims[axis]);
    float scale = out.dtype == MPQC_DT_U8 ? 1.0f / 256 : 1.0f / 32768;
    MPQC_TRY(mpqc_op_quant(q, scale, 0, &out.quant));
    return mpqc_op_result(q, out);
}

/* Rows are `stride` apart inside: n numbers from element `at`. */
static void softmax_f32(const float *x, float *y, int64_t n, int64_t stride)
{
    float m = -INFINITY;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) m = x[i * stride] > m ? x[i * stride] : m;
    for (int64_t i = 0; i < n; i++) sum += mpqc_op_exp((double)x[i * stride] - (double)m);
    for (int64_t i = 0; i < n; i++)
        y[i * stride] = (float)(mpqc_op_exp((double)x[i * stride] - (double)m) / sum);
}

static void softmax_int(const struct mpqc_tensor *x, const uint32_t *table,
                        struct mpqc_tensor *out, int64_t at, int64_t n, int64_t stride)
{
    enum mpqc_dtype t = x->type.dtype;
    uint32_t sum = 0, k = out->type.dtype == MPQC_DT_U8 ? 8 : 15;
    uint32_t top = out->type.dtype == MPQC_DT_U8 ? 255 : 32767;
    int64_t m = mpqc_dtypes[t].min;
    for (int64_t i = 0; i < n; i++) {
        int64_t v = mpqc_element_get(t, x->data, at + i * stride);
        m = v > m ? v : m;
    }
    for (int64_t i = 0; i < n; i++) sum += table[m - mpqc_element_get(t, x->data, at + i * stride)];
    for (int64_t i = 0; i < n; i++) {
        uint32_t e = table[m - mpqc_element_get(t, x->data, at + i * stride)];
        uint32_t y = ((e << k) + sum / 2) / sum;
        mpqc_element_set(out->type.dtype, out->data, at + i * stride, y < top ? y : top);
    }
}

void mpqc_ref_softmax(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                      struct mpqc_tensor *const *out)
{
    const struct mpqc_type *t = &in[0]->type;
    uint32_t axis = (uint32_t)mpqc_attr_int(n, MPQC_ATTR_AXIS);
    int64_t row = t->dims[axis], before, after;
    mpqc_op_around(t, axis, &before, &after);
    const struct mpqc_tensor *table = n->n_in > 1 ? in[1] : NULL;
    for (int64_t b = 0; b < before; b++) {
        for (int64_t a = 0; a < after && row > 0; a++) {
            int64_t at = b * row * after + a;
            if (table) /* entries are not negative, so they read as unsigned */
                softmax_int(in[0], table->data, out[0], at, row, after);
            else
                softmax_f32((const float *)in[0]->data + at, (float *)out[0]->data + at, row,
                            after);
        }
    }
}
