/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Reverse mode.  Walks through the nodes between wrt and loss from the end to the
 * beginning; what a value's users contribute to its derivative has been added up
 * when its own node is reached, whose vjp then spreads it over the inputs.
 */
#include "ir/autodiff.h"

#include "ir/op_vjp.h"

#include <string.h>

#define BIT(key) (1ull << MPQC_ATTR_##key)

struct reverse {
    struct mpqc_build *b;
    uint32_t n_values, n_order; /* of the graph as it was */
    mpqc_nid *order;
    bool *depends; /* by value: on one of wrt */
    bool *leads;   /* by value: to loss */
    mpqc_vid *adj; /* by value: the derivative, as far as known */
};

static bool active(const struct reverse *r, mpqc_vid v)
{
    return v != MPQC_NONE && r->depends[v] && r->leads[v] &&
           r->b->g->values[v].type.dtype == MPQC_DT_F32;
}

static mpqc_status start(struct reverse *r, mpqc_vid loss, const mpqc_vid *wrt, uint32_t n)
{
    struct mpqc_graph *g = r->b->g;
    struct mpqc_arena *a = &r->b->scratch;
    r->n_values = g->n_values;
    r->n_order = g->n_order;
    r->depends = MPQC_NEW_ARRAY(a, bool, g->n_values);
    r->leads = MPQC_NEW_ARRAY(a, bool, g->n_values);
    r->adj = MPQC_NEW_ARRAY(a, mpqc_vid, g->n_values);
    r->order = mpqc_arena_copy(a, g->order, g->n_order * sizeof *g->order);
    if (a->failed) return MPQC_OOM(r->b->cx);
    for (mpqc_vid v = 0; v < g->n_values; v++) r->adj[v] = MPQC_NONE;
    for (uint32_t i = 0; i < n; i++) r->depends[wrt[i]] = true;
    r->leads[loss] = true;
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *node = &g->nodes[g->order[i]];
        bool any = false;
        for (uint32_t k = 0; k < node->n_in; k++)
            any = any || (node->in[k] != MPQC_NONE && r->depends[node->in[k]]);
        for (uint32_t k = 0; any && k < node->n_out; k++) r->depends[node->out[k]] = true;
    }
    for (uint32_t i = g->n_order; i-- > 0;) {
        const struct mpqc_node *node = &g->nodes[g->order[i]];
        if (!r->leads[node->out[0]]) continue;
        for (uint32_t k = 0; k < node->n_in; k++)
            if (node->in[k] != MPQC_NONE) r->leads[node->in[k]] = true;
    }
    return MPQC_OK;
}

/* Spreads the derivative by the node's result over its inputs. */
static void differentiate(struct reverse *r, mpqc_nid id)
{
    const struct mpqc_node node = r->b->g->nodes[id]; /* a copy: nodes move */
    mpqc_vid dy = r->adj[node.out[0]];
    bool any = false;
    struct mpqc_vjp q = {.b = r->b, .n = &node, .x = node.in[0], .y = node.out[0], .dy = dy};
    for (uint32_t k = 0; k < node.n_in; k++) {
        q.want[k] = active(r, node.in[k]);
        q.dx[k] = MPQC_NONE;
        any = any || q.want[k];
    }
    if (!any || dy == MPQC_NONE) return;
    r->b->loc = node.loc;
    mpqc_ops[node.op].vjp(&q);
    for (uint32_t k = 0; k < node.n_in && r->b->status == MPQC_OK; k++) {
        if (!q.want[k] || q.dx[k] == MPQC_NONE) continue;
        r->adj[node.in[k]] = mpqc_build_add(r->b, r->adj[node.in[k]], q.dx[k]);
    }
}

mpqc_status mpqc_autodiff_build(struct mpqc_build *b, mpqc_vid loss, const mpqc_vid *wrt,
                                uint32_t n, mpqc_vid *grads)
{
    struct reverse r = {.b = b};
    struct mpqc_loc loc = b->loc;
    MPQC_TRY(b->status);
    struct mpqc_type t = mpqc_build_type(b, loss);
    if (t.dtype != MPQC_DT_F32 || t.quant || mpqc_type_count(&t) != 1)
        return b->status = MPQC_FAIL(b->cx, BUG, MPQC_NOWHERE,
                                     "the derivative of a value that is not one f32 was asked for");
    MPQC_TRY(b->status = start(&r, loss, wrt, n));
    r.adj[loss] = mpqc_build_reshape(b, mpqc_build_scalar(b, 1.0f), t.rank, t.dims);
    for (uint32_t i = r.n_order; i-- > 0 && b->status == MPQC_OK;) {
        if (active(&r, b->g->nodes[r.order[i]].out[0])) differentiate(&r, r.order[i]);
    }
    b->loc = loc;
    for (uint32_t i = 0; i < n; i++) grads[i] = r.adj[wrt[i]];
    return b->status;
}

mpqc_status mpqc_autodiff(struct mpqc_cx *cx, struct mpqc_graph *g, mpqc_vid loss,
                          const mpqc_vid *wrt, uint32_t n, mpqc_vid *grads)
{
    struct mpqc_build b;
    mpqc_build_init(&b, cx, g);
    mpqc_status status = mpqc_autodiff_build(&b, loss, wrt, n, grads);
    mpqc_build_release(&b);
    return status;
}

/* ---- <v, d> ------------------------------------------------------------------------ */

/* d = conv_dw(x, dy): by a convolution of v that is there already, else by a new one. */
static mpqc_vid dot_conv_dw(struct mpqc_build *b, mpqc_vid v, const struct mpqc_node *n)
{
    struct mpqc_attrs a = mpqc_build_attrs(n, BIT(KERNEL)), with_shape = a;
    struct mpqc_type x = mpqc_build_type(b, n->in[0]);
    mpqc_attrs_ints(&with_shape, MPQC_ATTR_SHAPE, x.rank, x.dims);
    const mpqc_vid forward[] = {n->in[0], v}, backward[] = {n->in[1], v};
    mpqc_vid back = mpqc_build_find(b, MPQC_OP_CONV_DX, backward, 2, &with_shape);
    if (back != MPQC_NONE) return mpqc_build_2(b, MPQC_OP_DOT, n->in[0], back);
    mpqc_vid y = mpqc_build_op(b, MPQC_OP_CONV, forward, 2, &a);
    return mpqc_build_2(b, MPQC_OP_DOT, y, n->in[1]);
}

mpqc_vid mpqc_build_dot(struct mpqc_build *b, mpqc_vid v, mpqc_vid d)
{
    if (b->status != MPQC_OK) return MPQC_NONE;
    const struct mpqc_node *def = mpqc_def(b->g, d);
    if (def && (def->op == MPQC_OP_ADD || def->op == MPQC_OP_CONV_DW)) {
        const struct mpqc_node n = *def;
        if (n.op == MPQC_OP_CONV_DW) return dot_conv_dw(b, v, &n);
        struct mpqc_type left = mpqc_build_type(b, n.in[0]), t = mpqc_build_type(b, d);
        struct mpqc_type right = mpqc_build_type(b, n.in[1]);
        if (mpqc_type_same_shape(&left, &t) && mpqc_type_same_shape(&right, &t)) {
            mpqc_vid first = mpqc_build_dot(b, v, n.in[0]);
            return mpqc_build_2(b, MPQC_OP_ADD, first, mpqc_build_dot(b, v, n.in[1]));
        }
    }
    return mpqc_build_2(b, MPQC_OP_DOT, v, d);
}
