/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Sums: over windows (pools) and over axes.  Both are windows whose weights are one; a
 * sum that includes the channels is a matrix product by ones.
 */
#include "codegen/linear.h"

#include "codegen/kernels.h"
#include "codegen/module.h"

#include <string.h>

static int32_t zero_of(const struct mpqc_emit_cx *e, mpqc_vid v)
{
    const struct mpqc_quant *q = mpqc_value_at(e->graph, v)->type.quant;
    return q ? q->zero[0] : 0;
}

/* (x_offset - zero) * taps for every channel: what a sum of x - zero starts from. */
static int32_t *ones_bias(struct mpqc_emit_cx *e, mpqc_vid x, int64_t taps, int64_t channels)
{
    int32_t *bias = MPQC_NEW_ARRAY(&e->scratch, int32_t, (size_t)channels);
    for (int64_t c = 0; bias && c < channels; c++)
        bias[c] = (int32_t)((e->target->isa->x_offset - zero_of(e, x)) * taps);
    return bias;
}

static mpqc_status check_input(struct mpqc_emit_cx *e, const struct mpqc_node *n)
{
    const struct mpqc_value *x = mpqc_value_at(e->graph, n->in[0]);
    if (mpqc_dtypes[x->type.dtype].bytes == 1 && mpqc_dtypes[x->type.dtype].kind == MPQC_KIND_UINT)
        return MPQC_OK;
    return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(n),
                     "sums take unsigned 8-bit activations, not '%s'",
                     mpqc_dtypes[x->type.dtype].text);
}

static int64_t pair(const struct mpqc_node *n, enum mpqc_attr_key key, int i, int64_t otherwise)
{
    const int64_t *v = mpqc_attr_ints(n, key);
    return v ? v[i] : otherwise;
}

mpqc_status mpqc_emit_sumpool(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                              struct mpqc_kernel_code *out)
{
    const struct mpqc_node *n = mpqc_node_at(e->graph, k->core);
    MPQC_TRY(check_input(e, n));
    const struct mpqc_type *x = &mpqc_value_at(e->graph, n->in[0])->type;
    const struct mpqc_type *y = &mpqc_value_at(e->graph, k->out)->type;
    const struct mpqc_place *px = &e->plan->place[n->in[0]], *py = &e->plan->place[k->out];
    int64_t sh = pair(n, MPQC_ATTR_STRIDES, 0, 1), sw = pair(n, MPQC_ATTR_STRIDES, 1, 1);
    int64_t dh = pair(n, MPQC_ATTR_DILATIONS, 0, 1), dw = pair(n, MPQC_ATTR_DILATIONS, 1, 1);
    int64_t top = pair(n, MPQC_ATTR_PADS, 0, 0), left = pair(n, MPQC_ATTR_PADS, 1, 0);
    struct mpqc_window w = {.x = n->in[0],
                            .batch = y->dims[0],
                            .rows = y->dims[1],
                            .cols = y->dims[2],
                            .channels = y->dims[3],
                            .kh = pair(n, MPQC_ATTR_KERNEL, 0, 1),
                            .kw = pair(n, MPQC_ATTR_KERNEL, 1, 1),
                            .x_first = -top * px->stride[1] - left * px->stride[2],
                            .x_batch = px->stride[0],
                            .x_row = sh * px->stride[1],
                            .x_col = sw * px->stride[2],
                            .tap_row = dh * px->stride[1],
                            .tap_col = dw * px->stride[2],
                            .out_batch = py->stride[0],
                            .out_row = py->stride[1],
                            .out_col = py->stride[2]};
    mpqc_vid res = mpqc_kernel_residual(e, k);
    if (res != MPQC_NONE) {
        w.res_batch = e->plan->place[res].stride[0];
        w.res_row = e->plan->place[res].stride[1];
        w.res_col = e->plan->place[res].stride[2];
    }
    MPQC_ASSERT(px->halo[0] >= top && px->halo[1] >= left);
    MPQC_ASSERT((w.rows - 1) * sh + (w.kh - 1) * dh + 1 - top - x->dims[1] <= px->halo[2]);
    MPQC_ASSERT((w.cols - 1) * sw + (w.kw - 1) * dw + 1 - left - x->dims[2] <= px->halo[3]);
    w.once = mpqc_kernel_in_place(e, k);
    w.bias = ones_bias(e, w.x, w.kh * w.kw, w.channels);
    return w.bias ? mpqc_emit_window(e, k, &w, out) : MPQC_OOM(e->cx);
}

/* ---- sums over axes ------------------------------------------------------------------ */

/* Axes [from, to) as one line; false if memory does not allow it. */
static bool line(const struct mpqc_type *t, const struct mpqc_place *p, uint32_t from, uint32_t to,
                 int64_t *count, int64_t *stride)
{
    struct mpqc_type part = *t;
    struct mpqc_place place = *p;
    for (uint32_t d = from; d < to; d++) {
        part.dims[d - from] = t->dims[d];
        place.stride[d - from] = p->stride[d];
    }
    return mpqc_place_collapse(&part, &place, to - from, count, stride);
}

static bool halo_free(const struct mpqc_emit_cx *e, mpqc_vid v)
{
    return !mpqc_place_has_halo(&e->plan->place[v]);
}

/* Reduced axes [from, to), the last axis (channels) kept: rows x cols of windows. */
static bool sum_inside(struct mpqc_emit_cx *e, const struct mpqc_kernel *k, uint32_t from,
                       uint32_t to, struct mpqc_window *w)
{
    const struct mpqc_type *x = &mpqc_value_at(e->graph, w->x)->type;
    const struct mpqc_type *y = &mpqc_value_at(e->graph, k->out)->type;
    const struct mpqc_place *px = &e->plan->place[w->x], *py = &e->plan->place[k->out];
    mpqc_vid res = mpqc_kernel_residual(e, k);
    int64_t n;
    w->batch = 1;
    w->channels = x->dims[x->rank - 1];
    if (!line(x, px, 0, from, &w->rows, &w->x_row) || !line(y, py, 0, from, &n, &w->out_row) ||
        !line(x, px, to, x->rank - 1, &w->cols, &w->x_col) ||
        !line(y, py, to, x->rank - 1, &n, &w->out_col))
        return false;
    if (res != MPQC_NONE && (!line(y, &e->plan->place[res], 0, from, &n, &w->res_row) ||
                             !line(y, &e->plan->place[res], to, y->rank - 1, &n, &w->res_col)))
        return false;
    w->kw = 1;
    w->tap_col = 0;
    if (line(x, px, from, to, &w->kh, &w->tap_row)) return true;
    return line(x, px, from, from + 1, &w->kh, &w->tap_row) &&
           line(x, px, from + 1, to, &w->kw, &w->tap_col);
}

/* Reduced axes [from, rank): each position is one run of bytes. */
static mpqc_status sum_rows(struct mpqc_emit_cx *e, const struct mpqc_kernel *k, uint32_t from,
                            struct mpqc_kernel_code *out)
{
    const struct mpqc_node *n = mpqc_node_at(e->graph, k->core);
    const struct mpqc_type *x = &mpqc_value_at(e->graph, n->in[0])->type;
    const struct mpqc_type *y = &mpqc_value_at(e->graph, k->out)->type;
    const struct mpqc_place *px = &e->plan->place[n->in[0]], *py = &e->plan->place[k->out];
    mpqc_vid res = mpqc_kernel_residual(e, k);
    int64_t stride, same;
    struct mpqc_linear l = {.x = n->in[0], .batch = 1, .rows = 1, .flat = true, .groups = 1,
                            .ocg = 1, .kh = 1, .kw = 1, .n_outer = 1, .n_inner = 1, .bits = 8,
                            .x_bytes = 1, .per_lane = 4};
    bool ok = line(x, px, from, x->rank, &l.run, &stride) && (l.run == 1 || stride == 1) &&
              line(x, px, 0, from, &l.cols, &l.x_col) && line(y, py, 0, from, &same, &l.out_col);
    if (ok && res != MPQC_NONE)
        ok = line(y, &e->plan->place[res], 0, from, &same, &l.res_col);
    if (!ok)
        return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(n),
                         "a sum over these axes of a tensor with gaps has no code generator");
    l.once = mpqc_kernel_in_place(e, k);
    l.icg = l.run;
    l.k4 = (l.run + 3) / 4;
    l.exact = l.run % 4 != 0 && px->space != MPQC_SPACE_ARENA;
    int8_t *ones = MPQC_NEW_ARRAY(&e->scratch, int8_t, (size_t)l.run);
    if (!ones) return MPQC_OOM(e->cx);
    memset(ones, 1, (size_t)l.run);
    l.w = ones;
    return mpqc_emit_gemm(e, k, &l, out);
}

mpqc_status mpqc_emit_reduce_sum(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                                 struct mpqc_kernel_code *out)
{
    const struct mpqc_node *n = mpqc_node_at(e->graph, k->core);
    MPQC_TRY(check_input(e, n));
    const struct mpqc_attr *axes = mpqc_attr_find(n, MPQC_ATTR_AXES);
    uint32_t rank = mpqc_value_at(e->graph, n->in[0])->type.rank, from = rank, to = 0, count = 0;
    for (uint32_t i = 0; axes && i < axes->count; i++, count++) {
        uint32_t a = (uint32_t)axes->ints[i];
        if (a < from) from = a;
        if (a + 1 > to) to = a + 1;
    }
    struct mpqc_window w = {.x = n->in[0], .once = mpqc_kernel_in_place(e, k)};
    if (count == to - from && count > 0 && halo_free(e, k->out)) {
        if (to == rank) return sum_rows(e, k, from, out);
        if (sum_inside(e, k, from, to, &w)) {
            w.bias = ones_bias(e, w.x, w.kh * w.kw, w.channels);
            return w.bias ? mpqc_emit_window(e, k, &w, out) : MPQC_OOM(e->cx);
        }
    }
    return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(n),
                     "a sum over axes that are not neighbours has no code generator");
}
