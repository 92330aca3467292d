/* SPDX-License-Identifier: GPL-3.0-or-later
 * batchnorm, as in inference: an affine map per channel (the last axis).
 */
#include "ir/op.h"

#include <math.h>

mpqc_status mpqc_infer_batchnorm(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *x = q->in[0];
    if (!mpqc_op_is_plain(x, MPQC_DT_F32) || x->rank < 1)
        return OP_FAIL(q, UNSUPPORTED, "batchnorm takes f32, not %s", mpqc_op_type_text(q, x));
    int64_t channels = x->dims[x->rank - 1];
    for (uint32_t i = 1; i < 5; i++) {
        const struct mpqc_type *t = q->in[i];
        if (!mpqc_op_is_plain(t, MPQC_DT_F32) || t->rank != 1 || t->dims[0] != channels)
            return OP_FAIL(q, MODEL, "parameter %u of batchnorm is %s, not f32[%lld]", i,
                           mpqc_op_type_text(q, t), (long long)channels);
    }
    return mpqc_op_result(q, *x);
}

void mpqc_ref_batchnorm(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                        struct mpqc_tensor *const *out)
{
    const struct mpqc_type *t = &in[0]->type;
    int64_t channels = t->dims[t->rank - 1];
    int64_t rows = channels > 0 ? mpqc_type_count(t) / channels : 0;
    const float *x = in[0]->data, *scale = in[1]->data, *bias = in[2]->data;
    const float *mean = in[3]->data, *var = in[4]->data;
    float *y = out[0]->data, epsilon = mpqc_attr_float_or(n, MPQC_ATTR_EPSILON, 1e-5f);
    for (int64_t c = 0; c < channels; c++) {
        float factor = scale[c] / sqrtf(var[c] + epsilon);
        for (int64_t r = 0; r < rows; r++)
            y[r * channels + c] = (x[r * channels + c] - mean[c]) * factor + bias[c];
    }
}
