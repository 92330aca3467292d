/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * From groups of nodes to a list of kernels.
 *
 * A kernel runs where its last node stands in the graph's order: everything that it
 * reads from memory is made before that node, and its result is read behind it.
 */
#include "passes/plan.h"

static enum mpqc_kernel_form form_of(const struct mpqc_graph *g, struct mpqc_kernel *k)
{
    k->core = k->nodes[0];
    if (k->n_nodes == 1) return MPQC_KERNEL_SINGLE;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, k->nodes[i]);
        if (mpqc_value_at(g, n->out[0])->type.dtype != MPQC_DT_I32) continue;
        k->core = k->nodes[i];
        return MPQC_KERNEL_LINEAR;
    }
    return MPQC_KERNEL_POINTWISE;
}

/* Number of nodes of every kernel; view nodes leave theirs. */
static uint32_t *count_nodes(struct mpqc_planner *l)
{
    uint32_t *count = MPQC_NEW_ARRAY(&l->p->scratch, uint32_t, l->n_kernels);
    if (!count) return NULL;
    for (uint32_t i = 0; i < l->g->n_order; i++) {
        struct mpqc_node *n = mpqc_node_at(l->g, l->g->order[i]);
        if (mpqc_plan_is_view_node(l, n)) n->kernel = MPQC_NONE;
        if (n->kernel == MPQC_NONE) continue;
        MPQC_ASSERT(n->kernel < l->n_kernels);
        count[n->kernel]++;
    }
    return count;
}

static mpqc_status fill_kernels(struct mpqc_planner *l, const uint32_t *count, mpqc_nid **nodes,
                                uint32_t *filled)
{
    struct mpqc_plan *plan = l->plan;
    for (uint32_t i = 0; i < l->g->n_order; i++) {
        mpqc_nid id = l->g->order[i];
        uint32_t k = mpqc_node_at(l->g, id)->kernel;
        if (k == MPQC_NONE) continue;
        if (!nodes[k]) nodes[k] = MPQC_NEW_ARRAY(&l->p->keep, mpqc_nid, count[k]);
        if (!nodes[k]) return MPQC_OOM(l->cx);
        nodes[k][filled[k]++] = id;
        if (filled[k] < count[k]) continue;
        struct mpqc_kernel *out = &plan->kernels[plan->n_kernels++];
        *out = (struct mpqc_kernel){.n_nodes = count[k], .nodes = nodes[k]};
        out->out = mpqc_node_at(l->g, id)->out[0];
        out->form = form_of(l->g, out);
    }
    return MPQC_OK;
}

mpqc_status mpqc_plan_kernels(struct mpqc_planner *l)
{
    struct mpqc_arena *scratch = &l->p->scratch;
    uint32_t *count = count_nodes(l);
    mpqc_nid **nodes = MPQC_NEW_ARRAY(scratch, mpqc_nid *, l->n_kernels);
    uint32_t *filled = MPQC_NEW_ARRAY(scratch, uint32_t, l->n_kernels);
    l->plan->kernels = MPQC_NEW_ARRAY(&l->p->keep, struct mpqc_kernel, l->n_kernels);
    if (!count || !nodes || !filled || !l->plan->kernels) return MPQC_OOM(l->cx);
    MPQC_TRY(fill_kernels(l, count, nodes, filled));
    for (uint32_t k = 0; k < l->plan->n_kernels; k++) {
        const struct mpqc_kernel *kernel = &l->plan->kernels[k];
        for (uint32_t i = 0; i < kernel->n_nodes; i++)
            mpqc_node_at(l->g, kernel->nodes[i])->kernel = k;
    }
    return MPQC_OK;
}
