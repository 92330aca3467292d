/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Pass `plan`: kernels in execution order, and a place in memory for every value.
 * The result is ir/plan.h; the steps are views and copies (plan_views.c), kernels
 * (plan_kernels.c), memory (plan_memory.c).  Values that do not outlive a kernel
 * have no place.
 *
 * requires: fuse; may add copy nodes; breaks: uses.
 */
#include "passes/plan.h"

mpqc_status mpqc_pass_plan(struct mpqc_pass_cx *p, struct mpqc_graph *g)
{
    struct mpqc_planner l = {.p = p, .cx = p->cx, .g = g};
    for (uint32_t i = 0; i < g->n_order; i++) {
        uint32_t k = mpqc_node_at(g, g->order[i])->kernel;
        if (k == MPQC_NONE)
            return MPQC_FAIL(p->cx, BUG, mpqc_loc_where(mpqc_node_at(g, g->order[i])->loc),
                             "this node belongs to no kernel; pass fuse must run before plan");
        if (k >= l.n_kernels) l.n_kernels = k + 1;
    }
    l.plan = MPQC_NEW(&p->keep, struct mpqc_plan);
    if (!l.plan) return MPQC_OOM(p->cx);
    MPQC_TRY(mpqc_plan_views(&l));
    MPQC_TRY(mpqc_plan_kernels(&l));
    MPQC_TRY(mpqc_plan_memory(&l));
    p->plan = l.plan;
    return MPQC_OK;
}

/* ---- text ------------------------------------------------------------------------------- */

static const char *const form_text[] = {
    [MPQC_KERNEL_LINEAR] = "linear",
    [MPQC_KERNEL_POINTWISE] = "pointwise",
    [MPQC_KERNEL_SINGLE] = "single",
};
static const char *const space_text[] = {
    [MPQC_SPACE_NONE] = "none",   [MPQC_SPACE_INPUT] = "input", [MPQC_SPACE_OUTPUT] = "output",
    [MPQC_SPACE_CONST] = "const", [MPQC_SPACE_ARENA] = "arena",
};

static void print_kernel(const struct mpqc_graph *g, const struct mpqc_kernel *k, uint32_t number,
                         struct mpqc_buf *to)
{
    mpqc_buf_printf(to, "kernel %u %s '%s'", number, form_text[k->form],
                    mpqc_node_at(g, k->core)->loc.node);
    for (uint32_t i = 0; i < k->n_nodes; i++)
        mpqc_buf_printf(to, "%s%s", i ? "+" : " ", mpqc_ops[mpqc_node_at(g, k->nodes[i])->op].text);
    mpqc_buf_printf(to, " -> %%%u\n", k->out);
}

static void print_place(const struct mpqc_graph *g, const struct mpqc_plan *p, mpqc_vid v,
                        struct mpqc_buf *to)
{
    const struct mpqc_place *at = &p->place[v];
    const struct mpqc_type *t = &mpqc_value_at(g, v)->type;
    mpqc_buf_printf(to, "place %%%u %s[", v, mpqc_dtypes[t->dtype].text);
    for (uint32_t d = 0; d < t->rank; d++)
        mpqc_buf_printf(to, "%s%lld", d ? "," : "", (long long)t->dims[d]);
    mpqc_buf_printf(to, "] %s", space_text[at->space]);
    if (at->space == MPQC_SPACE_INPUT || at->space == MPQC_SPACE_OUTPUT)
        mpqc_buf_printf(to, " %u", at->index);
    mpqc_buf_printf(to, " at %llu strides [", (unsigned long long)at->offset);
    for (uint32_t d = 0; d < t->rank; d++)
        mpqc_buf_printf(to, "%s%lld", d ? "," : "", (long long)at->stride[d]);
    mpqc_buf_puts(to, "]");
    if (at->halo[0] || at->halo[1] || at->halo[2] || at->halo[3])
        mpqc_buf_printf(to, " halo [%d,%d,%d,%d]", at->halo[0], at->halo[1], at->halo[2],
                        at->halo[3]);
    mpqc_buf_puts(to, "\n");
}

/* Constants always lie in .rodata as they are and are left out. */
void mpqc_plan_print(const struct mpqc_graph *g, const struct mpqc_plan *p, struct mpqc_buf *to)
{
    mpqc_buf_printf(to, "plan: %u kernels, arena of %llu bytes\n", p->n_kernels,
                    (unsigned long long)p->arena_bytes);
    for (uint32_t k = 0; k < p->n_kernels; k++) print_kernel(g, &p->kernels[k], k, to);
    for (mpqc_vid v = 0; v < p->n_values; v++)
        if (p->place[v].space != MPQC_SPACE_NONE && p->place[v].space != MPQC_SPACE_CONST)
            print_place(g, p, v, to);
}
