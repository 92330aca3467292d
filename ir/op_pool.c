/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Windows without weights over x[N,H,W,C]: maxpool, avgpool, sumpool.
 *
 * A window may not lie in padding alone, so pads are smaller than windows.
 */
#include "ir/op.h"

#include <math.h>

static mpqc_status infer_window(struct mpqc_infer *q, struct mpqc_type *out)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *x = q->in[0];
    const int64_t *kernel;
    if (x->rank != 4)
        return OP_FAIL(q, UNSUPPORTED, "pooling of %s is not two-dimensional",
                       mpqc_op_type_text(q, x));
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_KERNEL, 2, false, &kernel));
    *out = *x;
    MPQC_TRY(mpqc_window_infer(q, x, kernel[0], kernel[1], &out->dims[1], &out->dims[2]));
    struct mpqc_window w = mpqc_window_of(q->node, kernel[0], kernel[1]);
    int64_t span_h = (w.kh - 1) * w.dh + 1, span_w = (w.kw - 1) * w.dw + 1;
    if (w.pt >= span_h || w.pb >= span_h || w.pl >= span_w || w.pr >= span_w)
        return OP_FAIL(q, MODEL, "pads %lld,%lld,%lld,%lld are as large as the window %lldx%lld",
                       (long long)w.pt, (long long)w.pl, (long long)w.pb, (long long)w.pr,
                       (long long)span_h, (long long)span_w);
    return MPQC_OK;
}

mpqc_status mpqc_infer_pool(struct mpqc_infer *q)
{
    struct mpqc_type out;
    MPQC_TRY(infer_window(q, &out));
    const struct mpqc_type *x = q->in[0];
    if (q->node->op == MPQC_OP_AVGPOOL && !mpqc_op_is_plain(x, MPQC_DT_F32))
        return OP_FAIL(q, UNSUPPORTED, "avgpool takes f32, not %s", mpqc_op_type_text(q, x));
    if (x->dtype == MPQC_DT_BOOL || (x->quant && x->quant->axis != -1))
        return OP_FAIL(q, UNSUPPORTED, "maxpool takes numbers quantised per tensor, not %s",
                       mpqc_op_type_text(q, x));
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_sumpool(struct mpqc_infer *q)
{
    struct mpqc_type out;
    MPQC_TRY(infer_window(q, &out));
    if (!mpqc_op_is_quantised(q->in[0], 8))
        return OP_FAIL(q, UNSUPPORTED, "sumpool takes a quantised tensor of at most 8 bits, not %s",
                       mpqc_op_type_text(q, q->in[0]));
    out.dtype = MPQC_DT_I32;
    MPQC_TRY(mpqc_op_quant(q, q->in[0]->quant->scale[0], 0, &out.quant));
    return mpqc_op_result(q, out);
}

/* ---- kernels: `fold` is called once per tap inside the input ------------------------ */

struct pool {
    const struct mpqc_tensor *x;
    struct mpqc_tensor *out;
    int64_t channels;
    int32_t zero;
};
/* Folds the channels from element `from` of x into those from `to` of out. */
typedef void (*fold_fn)(const struct pool *p, int64_t from, int64_t to);

MPQC_CLONES static void max_f32(const float *restrict x, float *restrict m, int64_t n)
{
    for (int64_t i = 0; i < n; i++) m[i] = x[i] > m[i] ? x[i] : m[i];
}

MPQC_CLONES static void max_u8(const uint8_t *restrict x, uint8_t *restrict m, int64_t n)
{
    for (int64_t i = 0; i < n; i++) m[i] = x[i] > m[i] ? x[i] : m[i];
}

MPQC_CLONES static void add_f32(const float *restrict x, float *restrict sum, int64_t n)
{
    for (int64_t i = 0; i < n; i++) sum[i] += x[i];
}

MPQC_CLONES static void add_u8(const uint8_t *restrict x, int32_t zero, int32_t *restrict sum,
                               int64_t n)
{
    for (int64_t i = 0; i < n; i++) sum[i] += x[i] - zero;
}

static void fold_max(const struct pool *p, int64_t from, int64_t to)
{
    enum mpqc_dtype t = p->x->type.dtype;
    const void *x = p->x->data;
    void *m = p->out->data;
    if (t == MPQC_DT_F32) {
        max_f32((const float *)x + from, (float *)m + to, p->channels);
    } else if (t == MPQC_DT_U8) {
        max_u8((const uint8_t *)x + from, (uint8_t *)m + to, p->channels);
    } else {
        for (int64_t c = 0; c < p->channels; c++) {
            int64_t v = mpqc_element_get(t, x, from + c);
            if (v > mpqc_element_get(t, m, to + c)) mpqc_element_set(t, m, to + c, v);
        }
    }
}

static void fold_add(const struct pool *p, int64_t from, int64_t to)
{
    add_f32((const float *)p->x->data + from, (float *)p->out->data + to, p->channels);
}

static void fold_sum(const struct pool *p, int64_t from, int64_t to)
{
    enum mpqc_dtype t = p->x->type.dtype;
    int32_t *sum = (int32_t *)p->out->data + to;
    if (t == MPQC_DT_U8) {
        add_u8((const uint8_t *)p->x->data + from, p->zero, sum, p->channels);
        return;
    }
    for (int64_t c = 0; c < p->channels; c++)
        sum[c] += (int32_t)mpqc_element_get(t, p->x->data, from + c) - p->zero;
}

/* The taps [*first, *end) of `taps` that fall into [0, extent), from `origin` on by
 * steps.  A window may be far larger than the input, so they are not tried one by one. */
static void taps_inside(int64_t origin, int64_t step, int64_t taps, int64_t extent, int64_t *first,
                        int64_t *end)
{
    *first = origin < 0 ? (-origin + step - 1) / step : 0;
    int64_t below = extent > origin ? (extent - origin + step - 1) / step : 0;
    *end = below < taps ? below : taps;
    if (*end < *first) *end = *first;
}

/* Folds the window of one output pixel; how many taps were inside. */
static int64_t fold_window(const struct pool *p, const struct mpqc_window *w, int64_t n,
                           int64_t top, int64_t left, int64_t to, fold_fn fold)
{
    const int64_t *dims = p->x->type.dims;
    int64_t kh, kw, end_h, end_w, first;
    taps_inside(top, w->dh, w->kh, dims[1], &kh, &end_h);
    taps_inside(left, w->dw, w->kw, dims[2], &first, &end_w);
    int64_t inside = (end_h - kh) * (end_w - first);
    for (; kh < end_h; kh++) {
        int64_t row = (n * dims[1] + top + kh * w->dh) * dims[2] + left;
        for (kw = first; kw < end_w; kw++) fold(p, (row + kw * w->dw) * dims[3], to);
    }
    return inside;
}

/* Calls `begin` before and `end` (may be NULL) after each output pixel. */
static void pool_all(const struct mpqc_node *node, const struct mpqc_tensor *x,
                     struct mpqc_tensor *out, fold_fn fold,
                     void (*begin)(const struct pool *, int64_t to),
                     void (*end)(const struct pool *, int64_t to, int64_t taps))
{
    const int64_t *kernel = mpqc_attr_ints(node, MPQC_ATTR_KERNEL), *od = out->type.dims;
    struct mpqc_window w = mpqc_window_of(node, kernel[0], kernel[1]);
    struct pool p = {.x = x,
                     .out = out,
                     .channels = od[3],
                     .zero = x->type.quant ? x->type.quant->zero[0] : 0};
    int64_t to = 0;
    bool all = mpqc_attr_int_or(node, MPQC_ATTR_COUNT_PAD, 0) != 0;
    for (int64_t n = 0; n < od[0]; n++) {
        for (int64_t oh = 0; oh < od[1]; oh++) {
            for (int64_t ow = 0; ow < od[2]; ow++, to += od[3]) {
                begin(&p, to);
                int64_t taps = fold_window(&p, &w, n, oh * w.sh - w.pt, ow * w.sw - w.pl, to, fold);
                if (end) end(&p, to, all ? w.kh * w.kw : taps);
            }
        }
    }
}

static void begin_max(const struct pool *p, int64_t to)
{
    enum mpqc_dtype t = p->out->type.dtype;
    for (int64_t c = 0; c < p->channels; c++) {
        if (t == MPQC_DT_F32) ((float *)p->out->data)[to + c] = -INFINITY;
        else mpqc_element_set(t, p->out->data, to + c, mpqc_dtypes[t].min);
    }
}

static void begin_zero(const struct pool *p, int64_t to)
{
    memset((char *)p->out->data + (size_t)to * 4, 0, (size_t)p->channels * 4);
}

static void end_mean(const struct pool *p, int64_t to, int64_t taps)
{
    float *sum = (float *)p->out->data + to;
    for (int64_t c = 0; c < p->channels && taps > 0; c++) sum[c] /= (float)taps;
}

void mpqc_ref_maxpool(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                      struct mpqc_tensor *const *out)
{
    pool_all(n, in[0], out[0], fold_max, begin_max, NULL);
}

void mpqc_ref_avgpool(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                      struct mpqc_tensor *const *out)
{
    pool_all(n, in[0], out[0], fold_add, begin_zero, end_mean);
}

void mpqc_ref_sumpool(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                      struct mpqc_tensor *const *out)
{
    pool_all(n, in[0], out[0], fold_sum, begin_zero, NULL);
}
