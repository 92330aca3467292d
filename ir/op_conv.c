/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * conv and matmul.  Both bring rows of their input (pixels' windows, for conv)
 * into a small buffer of floats and hand it to op_gemm.c, block by block.
 *
 * The meaning is out[p][oc] = bias[oc] + sum_k (x[p][k] - zero_x) (w[k][oc] - zero_w),
 * k in row-major order of [KH,KW,C/group]; f32 sums are taken in that order,
 * beginning with the bias.  Taps on padding add nothing.
 */
#include "ir/op.h"

/* ---- inference ------------------------------------------------------------- */

/* Checks element types and gives the type and quantisation of the sum; the last
 * axis of w and of *out is the output channel. */
static mpqc_status infer_sum(struct mpqc_infer *q, const struct mpqc_type *x,
                             const struct mpqc_type *w, struct mpqc_type *out)
{
    if (mpqc_op_is_plain(x, MPQC_DT_F32) && mpqc_op_is_plain(w, MPQC_DT_F32)) {
        out->dtype = MPQC_DT_F32;
        return MPQC_OK;
    }
    bool per_channel = w->quant && w->quant->axis == (int32_t)w->rank - 1;
    bool narrow = mpqc_op_is_quantised(x, 8);
    bool wide = mpqc_op_is_quantised(x, 16) && x->dtype == MPQC_DT_I16 && x->quant->zero[0] == 0;
    bool integers = (narrow || wide) && w->quant && mpqc_op_is_integer(w->dtype) &&
                    mpqc_dtypes[w->dtype].bits <= 8 && (per_channel || w->quant->axis == -1);
    if (!integers)
        return OP_FAIL(q, UNSUPPORTED,
                       "operator %s takes two f32 tensors, or two quantised ones of at most 8 "
                       "bits (the first also i16 with zero point 0, the second per tensor or per "
                       "last axis), not %s and %s",
                       mpqc_op_name(q), mpqc_op_type_text(q, x), mpqc_op_type_text(q, w));
    out->dtype = MPQC_DT_I32;
    float scale_x = x->quant->scale[0];
    if (!per_channel)
        return mpqc_op_quant(q, scale_x * w->quant->scale[0], 0, &out->quant);
    uint32_t n = w->quant->count;
    float *scale = MPQC_NEW_ARRAY(&q->g->arena, float, n);
    int32_t *zero = MPQC_NEW_ARRAY(&q->g->arena, int32_t, n);
    if (!scale || !zero) return MPQC_OOM(q->cx);
    for (uint32_t i = 0; i < n; i++) scale[i] = scale_x * w->quant->scale[i];
    out->quant = mpqc_quant_channel(q->g, (int32_t)out->rank - 1, n, scale, zero);
    return out->quant ? MPQC_OK : MPQC_OOM(q->cx);
}

static mpqc_status check_bias(struct mpqc_infer *q, const struct mpqc_type *bias,
                              const struct mpqc_type *out)
{
    if (!bias) return MPQC_OK;
    int64_t channels = out->dims[out->rank - 1];
    if (bias->dtype != out->dtype || bias->rank != 1 || bias->dims[0] != channels)
        return OP_FAIL(q, MODEL, "the bias of %s is %s, not %s[%lld]", mpqc_op_name(q),
                       mpqc_op_type_text(q, bias), mpqc_dtypes[out->dtype].text,
                       (long long)channels);
    return MPQC_OK;
}

mpqc_status mpqc_infer_conv(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *x = q->in[0], *w = q->in[1];
    int64_t group = mpqc_attr_int_or(q->node, MPQC_ATTR_GROUP, 1);
    if (x->rank != 4 || w->rank != 4)
        return OP_FAIL(q, UNSUPPORTED, "a convolution of %s with %s is not two-dimensional",
                       mpqc_op_type_text(q, x), mpqc_op_type_text(q, w));
    if (group < 1 || w->dims[3] < 1 || w->dims[3] % group != 0)
        return OP_FAIL(q, MODEL, "%lld output channels cannot be split into %lld groups",
                       (long long)w->dims[3], (long long)group);
    if (x->dims[3] % group != 0 || x->dims[3] / group != w->dims[2])
        return OP_FAIL(q, MODEL, "input %s has %lld channels, but the weights %s with %lld groups "
                       "want %lld x %lld", mpqc_op_type_text(q, x), (long long)x->dims[3],
                       mpqc_op_type_text(q, w), (long long)group, (long long)group,
                       (long long)w->dims[2]);
    struct mpqc_type out = {.rank = 4, .dims = {x->dims[0], 0, 0, w->dims[3]}};
    MPQC_TRY(mpqc_window_infer(q, x, w->dims[0], w->dims[1], &out.dims[1], &out.dims[2]));
    MPQC_TRY(infer_sum(q, x, w, &out));
    MPQC_TRY(check_bias(q, mpqc_op_in(q, 2), &out));
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_matmul(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *a = q->in[0], *b = q->in[1];
    if (a->rank < 2 || b->rank < 2 || a->dims[a->rank - 1] != b->dims[b->rank - 2])
        return OP_FAIL(q, MODEL, "matrices %s and %s cannot be multiplied",
                       mpqc_op_type_text(q, a), mpqc_op_type_text(q, b));
    struct mpqc_type out = *a, tail = *b;
    out.quant = NULL;
    out.rank -= 2;
    tail.rank -= 2;
    MPQC_TRY(mpqc_op_broadcast(q, &out, &tail));
    out.dims[out.rank++] = a->dims[a->rank - 2];
    out.dims[out.rank++] = b->dims[b->rank - 1];
    MPQC_TRY(infer_sum(q, a, b, &out));
    MPQC_TRY(check_bias(q, mpqc_op_in(q, 2), &out));
    return mpqc_op_result(q, out);
}

uint64_t mpqc_macs_conv(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    const struct mpqc_type *w = &g->values[n->in[1]].type;
    uint64_t taps = (uint64_t)w->dims[0] * (uint64_t)w->dims[1] * (uint64_t)w->dims[2];
    return (uint64_t)mpqc_type_count(&g->values[n->out[0]].type) * taps;
}

uint64_t mpqc_macs_matmul(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    const struct mpqc_type *a = &g->values[n->in[0]].type;
    return (uint64_t)mpqc_type_count(&g->values[n->out[0]].type) *
           (uint64_t)a->dims[a->rank - 1];
}

/* ---- kernels --------------------------------------------------------------------- */

static int32_t zero_of(const struct mpqc_tensor *t)
{
    return t->type.quant ? t->type.quant->zero[0] : 0;
}

/* Sets `rows` rows of `cols` results to the bias. */
static void start_rows(const struct mpqc_gemm *p, const struct mpqc_tensor *bias, int64_t first,
                       int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        if (p->out_f32) {
            float *row = p->out_f32 + r * p->out_stride;
            if (bias) memcpy(row, (const float *)bias->data + first, (size_t)p->cols * 4);
            else memset(row, 0, (size_t)p->cols * 4);
        } else {
            int32_t *row = p->out_i32 + r * p->out_stride;
            if (bias) memcpy(row, (const int32_t *)bias->data + first, (size_t)p->cols * 4);
            else memset(row, 0, (size_t)p->cols * 4);
        }
    }
}

/* The weights of output channels from `first` on; rows of them are `stride` apart. */
static void set_weights(struct mpqc_gemm *p, const struct mpqc_tensor *w, int64_t stride,
                        int64_t first, int64_t cols)
{
    const struct mpqc_quant *quant = w->type.quant;
    p->w_dtype = w->type.dtype;
    p->w = (const char *)w->data + (size_t)first * mpqc_dtypes[w->type.dtype].bytes;
    p->w_stride = stride;
    p->cols = cols;
    p->w_zero = NULL;
    p->w_zero_step = quant && quant->axis != -1;
    for (uint32_t i = 0; quant && i < quant->count; i++) {
        if (quant->zero[i] != 0) p->w_zero = quant->zero + (p->w_zero_step ? first : 0);
    }
}

static void set_out(struct mpqc_gemm *p, const struct mpqc_tensor *out, int64_t at, int64_t stride)
{
    bool is_float = out->type.dtype == MPQC_DT_F32;
    p->out_f32 = is_float ? (float *)out->data + at : NULL;
    p->out_i32 = is_float ? NULL : (int32_t *)out->data + at;
    p->out_stride = stride;
}

struct conv {
    const struct mpqc_tensor *x;
    struct mpqc_window win;
    int64_t ic, oc; /* of one group */
    int64_t oh, ow;
    int32_t zero;
};

/* ---- depthwise: one input channel a group, vectors over channels ------------------- */

#define DEPTHWISE_CHANNELS 64

MPQC_CLONES static void tap_f32(const float *restrict x, const float *restrict w,
                                float *restrict sum, int n)
{
    for (int i = 0; i < n; i++) sum[i] += x[i] * w[i];
}

MPQC_CLONES static void tap_u8(const uint8_t *restrict x, int32_t zero, const int16_t *restrict w,
                               int32_t *restrict sum, int n)
{
    for (int i = 0; i < n; i++) sum[i] += (int32_t)(int16_t)(x[i] - zero) * (int32_t)w[i];
}

MPQC_CLONES static void tap_i8(const int8_t *restrict x, int32_t zero, const int16_t *restrict w,
                               int32_t *restrict sum, int n)
{
    for (int i = 0; i < n; i++) sum[i] += (int32_t)(int16_t)(x[i] - zero) * (int32_t)w[i];
}

MPQC_CLONES static void tap_i16(const int16_t *restrict x, const int16_t *restrict w,
                                int32_t *restrict sum, int n)
{
    for (int i = 0; i < n; i++) /* wraps like the machine, should a graph be unsound */
        sum[i] = (int32_t)((uint32_t)sum[i] + (uint32_t)((int32_t)x[i] * (int32_t)w[i]));
}

/* Some channels of all pixels.  Integer weights are widened once, up to
 * DEPTHWISE_TAPS taps; larger windows widen tap by tap. */
#define DEPTHWISE_TAPS 64
struct depthwise {
    const struct conv *c;
    const struct mpqc_tensor *w, *bias;
    struct mpqc_tensor *out;
    int64_t first, taps;
    int n;
    int16_t weights[DEPTHWISE_TAPS][DEPTHWISE_CHANNELS];
};

static void widen_tap(struct depthwise *d, int64_t tap, int16_t *to)
{
    const struct mpqc_type *t = &d->w->type;
    int64_t at = tap * t->dims[3] + d->first;
    for (int i = 0; i < d->n; i++) {
        int32_t zero = t->quant->zero[t->quant->axis == -1 ? 0 : d->first + i];
        to[i] = (int16_t)(mpqc_element_get(t->dtype, d->w->data, at + i) - zero);
    }
}

/* Adds the products of one tap with the inputs from element `at` on. */
static void depthwise_tap(struct depthwise *d, int64_t tap, int64_t at, float *sum_f,
                          int32_t *sum_i)
{
    const struct mpqc_tensor *x = d->c->x;
    if (x->type.dtype == MPQC_DT_F32) {
        const float *w = (const float *)d->w->data + tap * d->w->type.dims[3] + d->first;
        tap_f32((const float *)x->data + at, w, sum_f, d->n);
        return;
    }
    bool kept = d->taps <= DEPTHWISE_TAPS;
    int16_t *w = d->weights[kept ? tap : 0];
    if (!kept) widen_tap(d, tap, w);
    if (x->type.dtype == MPQC_DT_I16)
        tap_i16((const int16_t *)x->data + at, w, sum_i, d->n);
    else if (mpqc_dtypes[x->type.dtype].kind == MPQC_KIND_UINT)
        tap_u8((const uint8_t *)x->data + at, d->c->zero, w, sum_i, d->n);
    else
        tap_i8((const int8_t *)x->data + at, d->c->zero, w, sum_i, d->n);
}

static void depthwise_pixel(struct depthwise *d, int64_t pixel)
{
    const struct conv *c = d->c;
    const int64_t *dims = c->x->type.dims;
    int64_t n = pixel / (c->oh * c->ow), oh = pixel / c->ow % c->oh, ow = pixel % c->ow;
    int64_t top = oh * c->win.sh - c->win.pt, left = ow * c->win.sw - c->win.pl;
    size_t bytes = (size_t)d->n * 4;
    float sum_f[DEPTHWISE_CHANNELS] = {0};
    int32_t sum_i[DEPTHWISE_CHANNELS] = {0};
    void *sum = d->out->type.dtype == MPQC_DT_F32 ? (void *)sum_f : (void *)sum_i;
    if (d->bias) memcpy(sum, (const char *)d->bias->data + (size_t)d->first * 4, bytes);
    for (int64_t kh = 0, tap = 0; kh < c->win.kh; kh++) {
        int64_t h = top + kh * c->win.dh;
        for (int64_t kw = 0; kw < c->win.kw; kw++, tap++) {
            int64_t w = left + kw * c->win.dw;
            if (h < 0 || h >= dims[1] || w < 0 || w >= dims[2]) continue;
            depthwise_tap(d, tap, ((n * dims[1] + h) * dims[2] + w) * dims[3] + d->first, sum_f,
                          sum_i);
        }
    }
    memcpy((char *)d->out->data + (size_t)(pixel * dims[3] + d->first) * 4, sum, bytes);
}

static void depthwise(const struct conv *c, const struct mpqc_tensor *w,
                      const struct mpqc_tensor *bias, struct mpqc_tensor *out, int64_t pixels)
{
    int64_t channels = w->type.dims[3];
    struct depthwise d = {.c = c, .w = w, .bias = bias, .out = out, .taps = c->win.kh * c->win.kw};
    for (; d.first < channels; d.first += DEPTHWISE_CHANNELS) {
        int64_t rest = channels - d.first;
        d.n = (int)(rest < DEPTHWISE_CHANNELS ? rest : DEPTHWISE_CHANNELS);
        bool widen = w->type.dtype != MPQC_DT_F32 && d.taps <= DEPTHWISE_TAPS;
        for (int64_t tap = 0; widen && tap < d.taps; tap++) widen_tap(&d, tap, d.weights[tap]);
        for (int64_t p = 0; p < pixels; p++) depthwise_pixel(&d, p);
    }
}

void mpqc_ref_conv(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                   struct mpqc_tensor *const *out)
{
    const struct mpqc_tensor *x = in[0], *w = in[1], *bias = n->n_in > 2 ? in[2] : NULL;
    const int64_t *wd = w->type.dims, *od = out[0]->type.dims;
    int64_t groups = mpqc_attr_int_or(n, MPQC_ATTR_GROUP, 1);
    struct conv c = {.x = x,
                     .win = mpqc_window_of(n, wd[0], wd[1]),
                     .ic = wd[2],
                     .oc = wd[3] / groups,
                     .oh = od[1],
                     .ow = od[2],
                     .zero = zero_of(x)};
    int64_t pixels = od[0] * od[1] * od[2], depth = wd[0] * wd[1] * wd[2];
    if (c.ic == 1 && c.oc == 1) {
        depthwise(&c, w, bias, out[0], pixels);
        return;
    }
    _Alignas(64) float rows[MPQC_GEMM_ROWS * MPQC_GEMM_K];
    struct mpqc_origin at[MPQC_GEMM_ROWS];
    struct mpqc_rows from = {
        .x = x, .nw = wd[1], .dh = c.win.dh, .dw = c.win.dw, .channels = c.ic, .zero = c.zero};
    for (int64_t p0 = 0; p0 < pixels; p0 += MPQC_GEMM_ROWS) {
        int64_t np = pixels - p0 < MPQC_GEMM_ROWS ? pixels - p0 : MPQC_GEMM_ROWS;
        mpqc_window_origins(&c.win, c.oh, c.ow, p0, np, at);
        for (int64_t g = 0; g < groups; g++) {
            struct mpqc_gemm p = {.wide = x->type.dtype == MPQC_DT_I16};
            set_weights(&p, w, wd[3], g * c.oc, c.oc);
            set_out(&p, out[0], p0 * wd[3] + g * c.oc, wd[3]);
            start_rows(&p, bias, g * c.oc, np);
            from.first_channel = g * c.ic;
            for (int64_t k0 = 0; k0 < depth; k0 += MPQC_GEMM_K) {
                int64_t k = depth - k0 < MPQC_GEMM_K ? depth - k0 : MPQC_GEMM_K;
                mpqc_rows_load(&from, at, np, k0, k, rows, MPQC_GEMM_K);
                mpqc_gemm_clear_rest(rows, np, k);
                mpqc_gemm_add(&p, rows, np, k0, k);
            }
        }
    }
}

/* One product of matrices: rows of a from element `at_a`, b from `at_b`. */
static void matmul_one(const struct mpqc_tensor *a, const struct mpqc_tensor *b,
                       const struct mpqc_tensor *bias, struct mpqc_tensor *out, int64_t at_a,
                       int64_t at_b, int64_t at_out)
{
    int64_t m = a->type.dims[a->type.rank - 2], depth = a->type.dims[a->type.rank - 1];
    int64_t cols = b->type.dims[b->type.rank - 1];
    _Alignas(64) float rows[MPQC_GEMM_ROWS * MPQC_GEMM_K];
    struct mpqc_gemm p = {.wide = a->type.dtype == MPQC_DT_I16};
    set_weights(&p, b, cols, 0, cols);
    p.w = (const char *)p.w + (size_t)at_b * mpqc_dtypes[b->type.dtype].bytes;
    for (int64_t m0 = 0; m0 < m; m0 += MPQC_GEMM_ROWS) {
        int64_t nm = m - m0 < MPQC_GEMM_ROWS ? m - m0 : MPQC_GEMM_ROWS;
        set_out(&p, out, at_out + m0 * cols, cols);
        start_rows(&p, bias, 0, nm);
        for (int64_t k0 = 0; k0 < depth; k0 += MPQC_GEMM_K) {
            int64_t k = depth - k0 < MPQC_GEMM_K ? depth - k0 : MPQC_GEMM_K;
            for (int64_t r = 0; r < nm; r++)
                mpqc_gemm_load(a->type.dtype, a->data, at_a + (m0 + r) * depth + k0, k, zero_of(a),
                               rows + r * MPQC_GEMM_K);
            mpqc_gemm_clear_rest(rows, nm, k);
            mpqc_gemm_add(&p, rows, nm, k0, k);
        }
    }
}

/* A walk operand over batch dimensions only, in elements of the full tensor. */
static void walk_batch(struct mpqc_walk *w, const struct mpqc_type *t)
{
    int64_t own[MPQC_MAX_RANK], stride[MPQC_MAX_RANK] = {0};
    uint32_t batch = t->rank - 2;
    mpqc_op_strides(t->rank, t->dims, own);
    for (uint32_t d = 0; d < batch; d++)
        stride[w->rank - batch + d] = t->dims[d] == 1 ? 0 : own[d];
    mpqc_walk_strided(w, stride, 0);
}

void mpqc_ref_matmul(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                     struct mpqc_tensor *const *out)
{
    const struct mpqc_type *to = &out[0]->type;
    struct mpqc_walk w;
    mpqc_walk_init(&w, to->rank - 2, to->dims);
    walk_batch(&w, &in[0]->type);
    walk_batch(&w, &in[1]->type);
    walk_batch(&w, to);
    for (mpqc_walk_start(&w); !w.done; mpqc_walk_next(&w)) {
        for (int64_t j = 0; j < w.len; j++)
            matmul_one(in[0], in[1], n->n_in > 2 ? in[2] : NULL, out[0], w.at[1] + j * w.step[1],
                       w.at[2] + j * w.step[2], w.at[3] + j * w.step[3]);
    }
}
