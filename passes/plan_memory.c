/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One arena for all values.
 *
 * Each root is live from the first kernel that writes into it to the last that reads
 * from it or from a view of it.  Roots get offsets in order of falling size, each in
 * the smallest gap that the roots living at the same time leave (Pisarchyk and Lee,
 * "Efficient memory management for deep neural net inference", 2020, section 5:
 * greedy by size).
 */
#include "passes/plan.h"

struct memory {
    struct mpqc_planner *l;
    uint64_t *bytes;  /* by root: with halo, a multiple of the alignment */
    uint64_t *offset; /* by root: of its memory */
    bool *placed;
    mpqc_vid *roots;  /* those in the arena with memory of their own */
    uint32_t n_roots;
    uint64_t end;
};

/* ---- liveness ----------------------------------------------------------------------------- */

static void touch(struct mpqc_planner *l, mpqc_vid v, uint32_t kernel)
{
    struct mpqc_plan_value *r = &l->value[mpqc_plan_root(l, v)];
    if (kernel < r->first) r->first = kernel;
    if (kernel > r->last) r->last = kernel;
}

static void find_liveness(struct mpqc_planner *l)
{
    for (mpqc_vid v = 0; v < l->g->n_values; v++) {
        l->value[v].first = UINT32_MAX;
        l->value[v].last = 0;
    }
    for (uint32_t k = 0; k < l->plan->n_kernels; k++) {
        const struct mpqc_kernel *kernel = &l->plan->kernels[k];
        touch(l, kernel->out, k);
        for (uint32_t i = 0; i < kernel->n_nodes; i++) {
            const struct mpqc_node *n = mpqc_node_at(l->g, kernel->nodes[i]);
            for (uint32_t s = 0; s < n->n_in; s++)
                if (n->in[s] != MPQC_NONE) touch(l, n->in[s], k);
        }
    }
}

/* ---- in place ------------------------------------------------------------------------------- */

/* Element i of the result depends on elements i of the inputs only. */
static bool is_elementwise(const struct mpqc_graph *g, const struct mpqc_kernel *k)
{
    if (k->form == MPQC_KERNEL_POINTWISE) return true;
    if (k->form != MPQC_KERNEL_SINGLE) return false;
    const struct mpqc_node *n = mpqc_node_at(g, k->core);
    return n->op == MPQC_OP_LUT || (mpqc_ops[n->op].traits & MPQC_T_ELEMENTWISE) != 0;
}

static bool same_memory_shape(const struct mpqc_planner *l, mpqc_vid a, mpqc_vid b)
{
    const struct mpqc_type *ta = &mpqc_value_at(l->g, a)->type;
    const struct mpqc_type *tb = &mpqc_value_at(l->g, b)->type;
    return mpqc_type_same_shape(ta, tb) &&
           mpqc_dtypes[ta->dtype].bytes == mpqc_dtypes[tb->dtype].bytes &&
           memcmp(l->value[a].halo, l->value[b].halo, sizeof l->value[a].halo) == 0;
}

/* How many of a kernel's operands lie in root r. */
static uint32_t count_operands(const struct mpqc_planner *l, const struct mpqc_kernel *k,
                               mpqc_vid r)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(l->g, k->nodes[i]);
        for (uint32_t s = 0; s < n->n_in; s++)
            count += n->in[s] != MPQC_NONE && l->value[n->in[s]].kind != MPQC_PLAN_NOTHING &&
                     mpqc_plan_root(l, n->in[s]) == r;
    }
    return count;
}

static bool in_arena(const struct mpqc_plan_value *p)
{
    return p->kind == MPQC_PLAN_ROOT && p->output == MPQC_NONE;
}

/* The result of kernel k takes over the memory of an input that dies here. */
static void find_in_place(struct mpqc_planner *l, uint32_t number)
{
    const struct mpqc_kernel *k = &l->plan->kernels[number];
    struct mpqc_plan_value *out = &l->value[k->out];
    if (!is_elementwise(l->g, k) || !in_arena(out) || out->first != number) return;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(l->g, k->nodes[i]);
        for (uint32_t s = 0; s < n->n_in; s++) {
            mpqc_vid v = n->in[s];
            if (v == MPQC_NONE || !in_arena(&l->value[v]) || l->value[v].last != number) continue;
            if (!same_memory_shape(l, v, k->out) || count_operands(l, k, v) != 1) continue;
            out->same_as = v;
            return;
        }
    }
}

/* Lives of roots that share memory become one. */
static mpqc_vid owner(const struct mpqc_planner *l, mpqc_vid r)
{
    while (l->value[r].same_as != MPQC_NONE) r = l->value[r].same_as;
    return r;
}

static void merge_lives(struct mpqc_planner *l)
{
    for (mpqc_vid v = 0; v < l->g->n_values; v++) {
        if (l->value[v].same_as == MPQC_NONE) continue;
        struct mpqc_plan_value *o = &l->value[owner(l, v)];
        if (l->value[v].last > o->last) o->last = l->value[v].last;
    }
}

/* ---- offsets ---------------------------------------------------------------------------------- */

/* Bytes of a root with its halo; 0 when too large. */
static uint64_t root_bytes(const struct mpqc_planner *l, mpqc_vid v)
{
    const struct mpqc_type *t = &mpqc_value_at(l->g, v)->type;
    const int32_t *halo = l->value[v].halo;
    size_t bytes = mpqc_dtypes[t->dtype].bytes;
    for (uint32_t d = 0; d < t->rank; d++) {
        size_t extent = (size_t)t->dims[d];
        if (t->rank == 4 && d == 1) extent += (size_t)(halo[0] + halo[2]);
        if (t->rank == 4 && d == 2) extent += (size_t)(halo[1] + halo[3]);
        if (!mpqc_size_mul(bytes, extent, &bytes)) return 0;
    }
    size_t rounded;
    if (!mpqc_size_add(bytes, bytes ? MPQC_ARENA_ALIGN - 1 : MPQC_ARENA_ALIGN, &rounded)) return 0;
    return rounded / MPQC_ARENA_ALIGN * MPQC_ARENA_ALIGN;
}

static mpqc_status list_roots(struct memory *m)
{
    struct mpqc_planner *l = m->l;
    for (mpqc_vid v = 0; v < l->g->n_values; v++) {
        struct mpqc_plan_value *p = &l->value[v];
        if (!in_arena(p) || p->same_as != MPQC_NONE || p->first == UINT32_MAX) continue;
        m->bytes[v] = root_bytes(l, v);
        if (m->bytes[v] == 0)
            return MPQC_FAIL(l->cx, LIMIT_EXCEEDED, MPQC_NOWHERE, "a tensor is too large");
        m->roots[m->n_roots++] = v;
    }
    return MPQC_OK;
}

/* Large before small, early before late: insertion keeps equal ones in order. */
static void sort_roots(struct memory *m)
{
    for (uint32_t i = 1; i < m->n_roots; i++) {
        mpqc_vid v = m->roots[i];
        uint32_t k = i;
        for (; k > 0 && m->bytes[m->roots[k - 1]] < m->bytes[v]; k--)
            m->roots[k] = m->roots[k - 1];
        m->roots[k] = v;
    }
}

static bool overlap(const struct mpqc_plan_value *a, const struct mpqc_plan_value *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* Roots placed already that live together with v, by offset; returns how many. */
static uint32_t neighbours(const struct memory *m, mpqc_vid v, uint32_t before, mpqc_vid *list)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < before; i++) {
        mpqc_vid r = m->roots[i];
        if (!overlap(&m->l->value[v], &m->l->value[r])) continue;
        uint32_t k = n++;
        for (; k > 0 && m->offset[list[k - 1]] > m->offset[r]; k--) list[k] = list[k - 1];
        list[k] = r;
    }
    return n;
}

static void place_root(struct memory *m, uint32_t index, mpqc_vid *list)
{
    mpqc_vid v = m->roots[index];
    uint32_t n = neighbours(m, v, index, list);
    uint64_t at = MPQC_ARENA_SLACK, best = 0, best_gap = UINT64_MAX;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t start = m->offset[list[i]];
        if (start > at && start - at >= m->bytes[v] && start - at < best_gap) {
            best = at;
            best_gap = start - at;
        }
        if (start + m->bytes[list[i]] > at) at = start + m->bytes[list[i]];
    }
    m->offset[v] = best_gap == UINT64_MAX ? at : best;
    if (m->offset[v] + m->bytes[v] > m->end) m->end = m->offset[v] + m->bytes[v];
}

/* ---- places ----------------------------------------------------------------------------------- */

static void dense_strides(const struct mpqc_type *t, const int32_t *halo, int64_t *stride)
{
    int64_t step = 1;
    for (uint32_t d = t->rank; d-- > 0;) {
        stride[d] = step;
        int64_t extent = t->dims[d];
        if (t->rank == 4 && d == 1) extent += halo[0] + halo[2];
        if (t->rank == 4 && d == 2) extent += halo[1] + halo[3];
        step *= extent;
    }
}

static void place_view(struct mpqc_planner *l, mpqc_vid v, const struct mpqc_place *parent)
{
    const struct mpqc_plan_value *p = &l->value[v];
    const struct mpqc_type *t = &mpqc_value_at(l->g, v)->type;
    const struct mpqc_type *whole = &mpqc_value_at(l->g, p->parent)->type;
    struct mpqc_place *out = &l->plan->place[v];
    static const int32_t no_halo[4];
    *out = *parent;
    if (p->kind == MPQC_PLAN_RESHAPE) {
        dense_strides(t, no_halo, out->stride);
        return;
    }
    uint64_t bytes = mpqc_dtypes[t->dtype].bytes;
    for (uint32_t d = 0; d < t->rank; d++) {
        out->offset += (uint64_t)(p->begin[d] * parent->stride[d]) * bytes;
        out->stride[d] = parent->stride[d] * p->step[d];
    }
    bool all_pixels = t->rank == 4 && t->dims[0] == whole->dims[0] &&
                      t->dims[1] == whole->dims[1] && t->dims[2] == whole->dims[2];
    if (!all_pixels) memset(out->halo, 0, sizeof out->halo);
}

static void place_root_value(struct memory *m, mpqc_vid v)
{
    struct mpqc_planner *l = m->l;
    const struct mpqc_plan_value *p = &l->value[v];
    const struct mpqc_type *t = &mpqc_value_at(l->g, v)->type;
    struct mpqc_place *out = &l->plan->place[v];
    dense_strides(t, p->halo, out->stride);
    out->space = p->kind == MPQC_PLAN_CONST   ? MPQC_SPACE_CONST
                 : p->kind == MPQC_PLAN_INPUT ? MPQC_SPACE_INPUT
                 : p->output != MPQC_NONE     ? MPQC_SPACE_OUTPUT
                                              : MPQC_SPACE_ARENA;
    if (out->space == MPQC_SPACE_OUTPUT) out->index = p->output;
    if (out->space != MPQC_SPACE_ARENA) return;
    memcpy(out->halo, p->halo, sizeof out->halo);
    out->offset = m->offset[owner(l, v)];
    if (t->rank == 4)
        out->offset += (uint64_t)(p->halo[0] * out->stride[1] + p->halo[1] * out->stride[2]) *
                       mpqc_dtypes[t->dtype].bytes;
}

/* Parents before children; the chain is as long as views are nested. */
static void place_value(struct memory *m, mpqc_vid v)
{
    struct mpqc_planner *l = m->l;
    if (m->placed[v]) return;
    m->placed[v] = true;
    const struct mpqc_plan_value *p = &l->value[v];
    if (p->kind == MPQC_PLAN_NOTHING) return;
    if (p->parent == MPQC_NONE) {
        place_root_value(m, v);
        return;
    }
    place_value(m, p->parent);
    place_view(l, v, &l->plan->place[p->parent]);
}

static mpqc_status assign(struct memory *m)
{
    MPQC_TRY(list_roots(m));
    sort_roots(m);
    mpqc_vid *list = MPQC_NEW_ARRAY(&m->l->p->scratch, mpqc_vid, m->n_roots);
    if (!list) return MPQC_OOM(m->l->cx);
    m->end = MPQC_ARENA_SLACK;
    for (uint32_t i = 0; i < m->n_roots; i++) place_root(m, i, list);
    for (mpqc_vid v = 0; v < m->l->g->n_values; v++) place_value(m, v);
    for (uint32_t i = 0; i < m->l->g->n_inputs; i++)
        m->l->plan->place[m->l->g->inputs[i]].index = i;
    m->l->plan->arena_bytes = m->end + MPQC_ARENA_SLACK;
    return MPQC_OK;
}

mpqc_status mpqc_plan_memory(struct mpqc_planner *l)
{
    struct mpqc_arena *scratch = &l->p->scratch;
    uint32_t n = l->g->n_values;
    struct memory m = {.l = l};
    m.bytes = MPQC_NEW_ARRAY(scratch, uint64_t, n);
    m.offset = MPQC_NEW_ARRAY(scratch, uint64_t, n);
    m.placed = MPQC_NEW_ARRAY(scratch, bool, n);
    m.roots = MPQC_NEW_ARRAY(scratch, mpqc_vid, n);
    l->plan->n_values = n;
    l->plan->place = MPQC_NEW_ARRAY(&l->p->keep, struct mpqc_place, n);
    if (!m.bytes || !m.offset || !m.placed || !m.roots || !l->plan->place) return MPQC_OOM(l->cx);
    find_liveness(l);
    for (uint32_t k = 0; k < l->plan->n_kernels; k++) find_in_place(l, k);
    merge_lives(l);
    return assign(&m);
}
