/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Reads a convolution or matrix product from the graph and the plan.
 */
#include "codegen/linear.h"

#include "codegen/module.h"

bool mpqc_place_collapse(const struct mpqc_type *type, const struct mpqc_place *place,
                         uint32_t n_axes, int64_t *count, int64_t *stride)
{
    *count = 1;
    *stride = 0;
    for (uint32_t d = n_axes; d-- > 0;) {
        if (type->dims[d] == 1) continue;
        if (*count == 1) *stride = place->stride[d];
        else if (place->stride[d] != *stride * *count) return false;
        *count *= type->dims[d];
    }
    return true;
}

mpqc_vid mpqc_kernel_residual(const struct mpqc_emit_cx *e, const struct mpqc_kernel *k)
{
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(e->graph, k->nodes[i]);
        if (n->op == MPQC_OP_RESCALE) return n->in[0];
    }
    return MPQC_NONE;
}

bool mpqc_kernel_in_place(const struct mpqc_emit_cx *e, const struct mpqc_kernel *k)
{
    mpqc_vid r = mpqc_kernel_residual(e, k);
    if (r == MPQC_NONE) return false;
    const struct mpqc_place *a = &e->plan->place[r], *b = &e->plan->place[k->out];
    return a->space == b->space && a->index == b->index && a->offset == b->offset;
}

/* One line of positions over the leading axes of x, the output and the residual? */
static bool read_flat(const struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                      struct mpqc_linear *l)
{
    const struct mpqc_graph *g = e->graph;
    const struct mpqc_place *place = e->plan->place;
    const struct mpqc_type *x = &mpqc_value_at(g, l->x)->type;
    const struct mpqc_type *y = &mpqc_value_at(g, k->out)->type;
    mpqc_vid res = mpqc_kernel_residual(e, k);
    int64_t n, nx, nr, x_col, out_col, res_col = 0;
    if (!mpqc_place_collapse(x, &place[l->x], x->rank - 1, &nx, &x_col) ||
        !mpqc_place_collapse(y, &place[k->out], y->rank - 1, &n, &out_col) || n != nx)
        return false;
    if (res != MPQC_NONE &&
        (!mpqc_place_collapse(&mpqc_value_at(g, res)->type, &place[res], y->rank - 1, &nr,
                              &res_col) ||
         nr != n))
        return false;
    if (mpqc_place_has_halo(&place[k->out])) return false;
    l->flat = true;
    l->batch = l->rows = 1;
    l->cols = n;
    l->x_first = l->x_batch = l->x_row = l->out_batch = l->out_row = l->res_batch = l->res_row = 0;
    l->x_col = x_col;
    l->out_col = out_col;
    l->res_col = res_col;
    return true;
}

static mpqc_status check_operands(struct mpqc_emit_cx *e, const struct mpqc_node *n)
{
    const struct mpqc_value *w = mpqc_value_at(e->graph, n->in[1]);
    const struct mpqc_value *x = mpqc_value_at(e->graph, n->in[0]);
    if (!w->data || mpqc_dtypes[w->type.dtype].bytes != 1 ||
        mpqc_dtypes[w->type.dtype].kind != MPQC_KIND_SINT)
        return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(n),
                         "the second factor must be constant signed 8-bit weights");
    for (uint32_t i = 0; w->type.quant && i < w->type.quant->count; i++)
        if (w->type.quant->zero[i] != 0)
            return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(n),
                             "weights must be symmetric (zero point 0)");
    bool bytes = mpqc_dtypes[x->type.dtype].bytes == 1 &&
                 mpqc_dtypes[x->type.dtype].kind == MPQC_KIND_UINT;
    if (!bytes && x->type.dtype != MPQC_DT_I16)
        return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(n),
                         "activations must be unsigned 8-bit or signed 16-bit integers");
    return MPQC_OK;
}

static int64_t pair(const struct mpqc_node *n, enum mpqc_attr_key key, int i, int64_t otherwise)
{
    const int64_t *v = mpqc_attr_ints(n, key);
    return v ? v[i] : otherwise;
}

/* What the window reads beyond the tensor must lie in the halo. */
static void check_halo(const struct mpqc_place *p, int64_t before_h, int64_t before_w,
                       int64_t after_h, int64_t after_w)
{
    MPQC_ASSERT(p->halo[0] >= before_h && p->halo[1] >= before_w);
    MPQC_ASSERT(p->halo[2] >= after_h && p->halo[3] >= after_w);
}

static void read_conv(const struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                      const struct mpqc_node *n, struct mpqc_linear *l)
{
    const struct mpqc_type *x = &mpqc_value_at(e->graph, l->x)->type;
    const struct mpqc_type *w = &mpqc_value_at(e->graph, n->in[1])->type;
    const struct mpqc_type *y = &mpqc_value_at(e->graph, k->out)->type;
    const struct mpqc_place *px = &e->plan->place[l->x], *py = &e->plan->place[k->out];
    int64_t sh = pair(n, MPQC_ATTR_STRIDES, 0, 1), sw = pair(n, MPQC_ATTR_STRIDES, 1, 1);
    int64_t dh = pair(n, MPQC_ATTR_DILATIONS, 0, 1), dw = pair(n, MPQC_ATTR_DILATIONS, 1, 1);
    int64_t top = pair(n, MPQC_ATTR_PADS, 0, 0), left = pair(n, MPQC_ATTR_PADS, 1, 0);
    l->sh = sh;
    l->sw = sw;
    l->dh = dh;
    l->dw = dw;
    l->kh = w->dims[0];
    l->kw = w->dims[1];
    l->icg = w->dims[2];
    l->groups = mpqc_attr_int_or(n, MPQC_ATTR_GROUP, 1);
    l->ocg = w->dims[3] / l->groups;
    l->batch = y->dims[0];
    l->rows = y->dims[1];
    l->cols = y->dims[2];
    check_halo(px, top, left, (l->rows - 1) * sh + (l->kh - 1) * dh + 1 - top - x->dims[1],
               (l->cols - 1) * sw + (l->kw - 1) * dw + 1 - left - x->dims[2]);
    l->x_first = -top * px->stride[1] - left * px->stride[2];
    l->x_batch = px->stride[0];
    l->x_row = sh * px->stride[1];
    l->x_col = sw * px->stride[2];
    l->out_batch = py->stride[0];
    l->out_row = py->stride[1];
    l->out_col = py->stride[2];
    mpqc_vid res = mpqc_kernel_residual(e, k);
    if (res != MPQC_NONE) {
        const struct mpqc_place *pr = &e->plan->place[res];
        l->res_batch = pr->stride[0];
        l->res_row = pr->stride[1];
        l->res_col = pr->stride[2];
    }
    /* Neighbouring taps of a row are neighbours in memory. */
    bool merge = l->kw == 1 || (l->groups == 1 && dw == 1 && px->stride[2] == l->icg);
    l->n_outer = l->kh;
    l->outer_step = dh * px->stride[1];
    l->n_inner = merge ? 1 : l->kw;
    l->inner_step = dw * px->stride[2];
    l->run = merge ? l->kw * l->icg : l->icg;
    if (l->kh == 1 && l->kw == 1 && sh == 1 && sw == 1) {
        MPQC_ASSERT(top == 0 && left == 0);
        (void)read_flat(e, k, l);
    }
}

/* What follows the end of a run in the last step of any form counts by a weight of 0, which
 * one bit does not have: then signs are stored in two. */
#define SIGNS_FILL 64

/* Weights of few bits are packed unless that saves little: where runs are shorter than
 * a bundle, and in windows over single channels, which have their own order. */
static unsigned storage_bits(const struct mpqc_linear *l, unsigned bits)
{
    bool window = l->groups > 1 && l->icg == 1 && l->ocg == 1;
    if (bits == 1 && l->run % SIGNS_FILL != 0) bits = 2;
    if (window || mpqc_packing_of(bits).n == 0) return 8;
    return 10 * mpqc_packed_rows(bits, l->k4) <= 9 * l->k4 ? bits : 8;
}

/* Groups side by side in one vector, whose lanes then have different activations. */
static void join_groups(const struct mpqc_isa *isa, struct mpqc_linear *l)
{
    bool several = l->ocg < isa->lanes;
    if (l->groups == 1 || (l->icg == 1 && l->ocg == 1)) return;
    if (isa->lanes % l->ocg != 0 || isa->forms[0] || l->x_bytes > 1 || l->group) return;
    if (several && (l->icg % 4 != 0 || l->icg > MPQC_FAN_INPUTS)) return;
    l->fan = l->ocg;
    l->ocg *= l->groups;
    l->groups = 1;
}

/* From elements of x to bytes. */
static void scale_input(struct mpqc_linear *l)
{
    int64_t *const v[] = {&l->x_first, &l->x_batch,    &l->x_row,     &l->x_col,
                          &l->run,     &l->outer_step, &l->inner_step};
    for (size_t i = 0; i < MPQC_LEN(v); i++) *v[i] *= l->x_bytes;
}

mpqc_status mpqc_linear_read(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                             struct mpqc_linear *l)
{
    const struct mpqc_node *n = mpqc_node_at(e->graph, k->core);
    *l = (struct mpqc_linear){.x = n->in[0],
                              .groups = 1,
                              .kh = 1,
                              .kw = 1,
                              .sh = 1,
                              .sw = 1,
                              .dh = 1,
                              .dw = 1,
                              .n_outer = 1,
                              .n_inner = 1};
    MPQC_TRY(check_operands(e, n));
    l->w = mpqc_value_at(e->graph, n->in[1])->data;
    if (n->n_in > 2 && n->in[2] != MPQC_NONE) l->bias = mpqc_value_at(e->graph, n->in[2])->data;
    if (n->op == MPQC_OP_CONV) {
        read_conv(e, k, n, l);
    } else {
        const struct mpqc_type *t = &mpqc_value_at(e->graph, n->in[1])->type;
        if (t->rank != 2)
            return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(n),
                             "weights of a matrix product must have two axes");
        l->icg = l->run = t->dims[0];
        l->ocg = t->dims[1];
        if (!read_flat(e, k, l))
            return MPQC_FAIL(e->cx, BUG, mpqc_node_where(n),
                             "the rows of a matrix product do not lie in one line");
    }
    l->x_bytes = mpqc_dtypes[mpqc_value_at(e->graph, l->x)->type.dtype].bytes;
    l->per_lane = 4 / l->x_bytes;
    scale_input(l);
    l->k4 = (l->run + 3) / 4;
    const struct mpqc_type *w = &mpqc_value_at(e->graph, n->in[1])->type;
    l->w_bits = mpqc_weight_bits(w);
    l->x_bits = mpqc_dtypes[mpqc_value_at(e->graph, l->x)->type.dtype].bits;
    l->bits = storage_bits(l, l->w_bits);
    if (w->quant && w->quant->groups && l->bits < 8) {
        l->group = w->quant->groups->size;
        l->factor = w->quant->groups->factor;
    }
    join_groups(e->target->isa, l);
    l->once = mpqc_kernel_in_place(e, k);
    l->exact = e->plan->place[l->x].space != MPQC_SPACE_ARENA;
    return MPQC_OK;
}
