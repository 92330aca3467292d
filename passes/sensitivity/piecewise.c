/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * When the Hessian's diagonal blocks are Gauss-Newton.
 *
 * With z the logits and c = dL/dz, H = J' A J + sum_k c_k d2 z_k.  The second part is zero
 * when c is (the loss compares with the network's own answer), and its diagonal blocks
 * are when each z_k is piecewise linear in the variable of the block: everything between
 * a layer and the logits must be, and the layer itself is linear in weights and input.
 */
#include "passes/sensitivity/curvature.h"

/* Is the operator piecewise linear in those of its inputs that depend on a variable? */
static bool is_linear(const struct mpqc_node *n, const bool *depends)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->n_in; i++) count += n->in[i] != MPQC_NONE && depends[n->in[i]];
    bool first_only = count == 1 && depends[n->in[0]];
    if (mpqc_ops[n->op].traits & MPQC_T_MOVE) return n->op != MPQC_OP_GATHER || first_only;
    switch (n->op) {
    case MPQC_OP_RELU:
    case MPQC_OP_CLIP:
    case MPQC_OP_LEAKYRELU:
    case MPQC_OP_HARDSIGMOID:
    case MPQC_OP_ABS:
    case MPQC_OP_NEG:
    case MPQC_OP_MAXPOOL:
    case MPQC_OP_AVGPOOL:
    case MPQC_OP_REDUCE_MEAN:
    case MPQC_OP_REDUCE_SUM:
    case MPQC_OP_REDUCE_MAX:
    case MPQC_OP_REDUCE_MIN:
    case MPQC_OP_ADD:
    case MPQC_OP_SUB:
    case MPQC_OP_MIN:
    case MPQC_OP_MAX: return true;
    case MPQC_OP_CONV:
    case MPQC_OP_MATMUL:
    case MPQC_OP_MUL: return count == 1;
    case MPQC_OP_DIV:
    case MPQC_OP_PRELU:
    case MPQC_OP_BATCHNORM: return first_only;
    default: return false;
    }
}

/* Marks what the logits are made of. */
static void mark_needed(const struct mpqc_graph *g, mpqc_vid logits, bool *needed)
{
    needed[logits] = true;
    for (uint32_t i = g->n_order; i-- > 0;) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        bool any = false;
        for (uint32_t k = 0; k < n->n_out; k++) any |= needed[n->out[k]];
        for (uint32_t k = 0; any && k < n->n_in; k++)
            if (n->in[k] != MPQC_NONE) needed[n->in[k]] = true;
    }
}

static bool linear_to_logits(const struct mpqc_curvature *c, bool *needed, bool *depends)
{
    const struct mpqc_graph *g = c->s->g;
    const struct mpqc_bits *b = c->s->bits;
    for (uint32_t l = 0; l < b->n_layers; l++) depends[b->layer[l].output] = true;
    mark_needed(g, c->loss.compared, needed);
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        bool any = false;
        for (uint32_t k = 0; k < n->n_in; k++) any |= n->in[k] != MPQC_NONE && depends[n->in[k]];
        if (!any || !needed[n->out[0]]) continue;
        if (!is_linear(n, depends)) return false;
        for (uint32_t k = 0; k < n->n_out; k++) depends[n->out[k]] = true;
    }
    return true;
}

bool mpqc_curve_gauss_newton(const struct mpqc_curvature *c)
{
    struct mpqc_arena arena;
    bool exact = c->loss.kind != MPQC_LOSS_CROSS_ENTROPY;
    for (uint32_t i = 0; !exact && i < c->weights.n; i++) /* a product of itself */
        if (c->weights.sharers[i] > 1) return false;
    if (exact) return true;
    mpqc_arena_init(&arena, c->s->p->cx->allocator);
    bool *needed = MPQC_NEW_ARRAY(&arena, bool, c->s->g->n_values);
    bool *depends = MPQC_NEW_ARRAY(&arena, bool, c->s->g->n_values);
    exact = needed && depends && linear_to_logits(c, needed, depends);
    mpqc_arena_release(&arena);
    return exact;
}
