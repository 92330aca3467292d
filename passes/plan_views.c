/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Views: which values share the memory of others, and the copies that make it so.
 *
 * Rules.
 *  - A reshape is a view of its source, which must be dense.
 *  - A slice with positive steps (1 along the last axis) is a view of its source.
 *  - The parts of a concat are computed where the concat's result lies.
 *  - Where padding is read by a conv or a sumpool, its input has a halo.  Halos travel
 *    through slices and concats along the channels, since those have all rows and
 *    columns of the whole.
 * Where rules exclude each other (a halo in memory that a reshape needs dense, a
 * caller's buffer that has no halo, a part that belongs to two concats), a copy node
 * is inserted, or the slice or concat is computed by a kernel of its own.
 */
#include "passes/plan.h"

/* ---- copies --------------------------------------------------------------------------- */

static mpqc_status grow_values(struct mpqc_planner *l, uint32_t before)
{
    uint32_t n = l->g->n_values;
    struct mpqc_plan_value *v = MPQC_NEW_ARRAY(&l->p->scratch, struct mpqc_plan_value, n);
    if (!v) return MPQC_OOM(l->cx);
    if (before) memcpy(v, l->value, before * sizeof *v);
    for (uint32_t i = before; i < n; i++) {
        v[i].parent = v[i].same_as = MPQC_NONE;
        v[i].output = MPQC_NONE;
    }
    l->value = v;
    return MPQC_OK;
}

static mpqc_status insert_copy(struct mpqc_planner *l, mpqc_vid v, struct mpqc_loc loc,
                               mpqc_vid *out)
{
    uint32_t before = l->g->n_values;
    const struct mpqc_node *def = mpqc_def(l->g, v);
    if (def) loc = def->loc;
    MPQC_TRY(mpqc_node_add(l->cx, l->g, MPQC_OP_COPY, &v, 1, NULL, loc, out));
    mpqc_def(l->g, *out)->kernel = l->n_kernels++;
    return grow_values(l, before);
}

/* A copy of v for input `slot` of one node. */
static mpqc_status copy_for(struct mpqc_planner *l, mpqc_nid reader, uint32_t slot)
{
    mpqc_vid copy;
    const struct mpqc_node n = *mpqc_node_at(l->g, reader);
    MPQC_TRY(insert_copy(l, n.in[slot], n.loc, &copy));
    mpqc_node_at(l->g, reader)->in[slot] = copy;
    return MPQC_OK;
}

/* ---- the caller's buffers ----------------------------------------------------------------- */

/* Integer inputs are read by kernels that load past the end of rows, which nobody
 * may do in memory of the caller. */
static mpqc_status copy_inputs(struct mpqc_planner *l)
{
    for (uint32_t i = 0; i < l->g->n_inputs; i++) {
        mpqc_vid v = l->g->inputs[i], copy = MPQC_NONE;
        uint32_t n_order = l->g->n_order; /* the copy itself reads v too */
        if (!mpqc_value_at(l->g, v)->type.quant) continue;
        for (uint32_t k = 0; k < n_order; k++) {
            mpqc_nid reader = l->g->order[k];
            for (uint32_t s = 0; s < mpqc_node_at(l->g, reader)->n_in; s++) {
                if (mpqc_node_at(l->g, reader)->in[s] != v) continue;
                struct mpqc_loc loc = mpqc_node_at(l->g, reader)->loc;
                if (copy == MPQC_NONE) MPQC_TRY(insert_copy(l, v, loc, &copy));
                mpqc_node_at(l->g, reader)->in[s] = copy;
            }
        }
    }
    return MPQC_OK;
}

/* A value that a kernel can compute right into the caller's output buffer: nobody
 * else reads it, and it is no part of something else. */
static bool can_be_output(const struct mpqc_graph *g, const uint32_t *uses, mpqc_vid v)
{
    for (;;) {
        const struct mpqc_node *def = mpqc_def(g, v);
        if (!def || uses[v] != 1 || def->op == MPQC_OP_SLICE) return false;
        if (def->op != MPQC_OP_RESHAPE) return true;
        v = def->in[0];
    }
}

static mpqc_status copy_outputs(struct mpqc_planner *l)
{
    uint32_t *uses = mpqc_graph_uses(l->g, &l->p->scratch);
    if (!uses) return MPQC_OOM(l->cx);
    for (uint32_t i = 0; i < l->g->n_outputs; i++) {
        mpqc_vid v = l->g->outputs[i], copy;
        if (can_be_output(l->g, uses, v)) continue;
        struct mpqc_loc loc = {"output", "Copy", -1};
        MPQC_TRY(insert_copy(l, v, loc, &copy));
        mpqc_value_at(l->g, copy)->name = mpqc_value_at(l->g, v)->name;
        l->g->outputs[i] = copy;
    }
    return mpqc_graph_normalise(l->cx, l->g);
}

/* ---- halos --------------------------------------------------------------------------------- */

static bool any_halo(const int32_t *h)
{
    return h[0] || h[1] || h[2] || h[3];
}

static bool raise_halo(int32_t *to, const int32_t *from)
{
    bool raised = false;
    for (int i = 0; i < 4; i++) {
        if (from[i] <= to[i]) continue;
        to[i] = from[i];
        raised = true;
    }
    return raised;
}

/* A slice that keeps all rows and columns. */
static bool is_channel_slice(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    const struct mpqc_type *x = &mpqc_value_at(g, n->in[0])->type;
    const struct mpqc_type *y = &mpqc_value_at(g, n->out[0])->type;
    if (x->rank != 4) return false;
    return x->dims[0] == y->dims[0] && x->dims[1] == y->dims[1] && x->dims[2] == y->dims[2];
}

static bool slice_can_be_view(const struct mpqc_planner *l, const struct mpqc_node *n)
{
    const struct mpqc_value *x = mpqc_value_at(l->g, n->in[0]);
    const int64_t *step = mpqc_attr_ints(n, MPQC_ATTR_STEP);
    uint32_t rank = x->type.rank;
    if (x->def == MPQC_NONE || rank == 0 || rank > 4) return false;
    for (uint32_t d = 0; step && d < rank; d++)
        if (step[d] < 1) return false;
    return !step || step[rank - 1] == 1;
}

/* Gives v a halo, if its memory can have one; *needs_copy if not. */
static void ask_halo(struct mpqc_planner *l, mpqc_vid v, const int32_t *halo, bool *needs_copy)
{
    const struct mpqc_node *def = mpqc_def(l->g, v);
    *needs_copy = !def || def->op == MPQC_OP_RESHAPE;
    if (*needs_copy) return;
    raise_halo(l->value[v].halo, halo);
    if (l->value[v].kind != MPQC_PLAN_SLICE) return;
    bool unused;
    const struct mpqc_node *source = mpqc_def(l->g, def->in[0]);
    bool through = is_channel_slice(l->g, def) && source && source->op != MPQC_OP_RESHAPE;
    if (through)
        ask_halo(l, def->in[0], halo, &unused);
    else
        l->value[v].kind = MPQC_PLAN_ROOT;
}

static mpqc_status find_halos(struct mpqc_planner *l)
{
    uint32_t n_order = l->g->n_order;
    for (uint32_t i = 0; i < n_order; i++) {
        mpqc_nid id = l->g->order[i];
        const struct mpqc_node *n = mpqc_node_at(l->g, id);
        if (n->op != MPQC_OP_CONV && n->op != MPQC_OP_SUMPOOL) continue;
        const int64_t *pads = mpqc_attr_ints(n, MPQC_ATTR_PADS);
        if (!pads || !mpqc_value_at(l->g, n->in[0])->type.quant) continue;
        int32_t halo[4];
        for (int k = 0; k < 4; k++) halo[k] = (int32_t)pads[k];
        bool needs_copy = false;
        if (any_halo(halo)) ask_halo(l, n->in[0], halo, &needs_copy);
        if (!needs_copy) continue;
        MPQC_TRY(copy_for(l, id, 0));
        mpqc_vid copy = mpqc_node_at(l->g, id)->in[0];
        l->value[copy].kind = MPQC_PLAN_ROOT;
        raise_halo(l->value[copy].halo, halo);
    }
    return mpqc_graph_normalise(l->cx, l->g);
}

/* ---- slices, reshapes, concats --------------------------------------------------------------- */

static void find_slices(struct mpqc_planner *l)
{
    for (uint32_t i = 0; i < l->g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(l->g, l->g->order[i]);
        if (n->op == MPQC_OP_SLICE && slice_can_be_view(l, n))
            l->value[n->out[0]].kind = MPQC_PLAN_SLICE;
    }
}

/* A source of a reshape must be dense. */
static mpqc_status find_reshapes(struct mpqc_planner *l)
{
    uint32_t n_order = l->g->n_order;
    for (uint32_t i = 0; i < n_order; i++) {
        mpqc_nid id = l->g->order[i];
        const struct mpqc_node *n = mpqc_node_at(l->g, id);
        if (n->op != MPQC_OP_RESHAPE) continue;
        l->value[n->out[0]].kind = MPQC_PLAN_RESHAPE;
        if (any_halo(l->value[n->in[0]].halo)) {
            MPQC_TRY(copy_for(l, id, 0));
            n = mpqc_node_at(l->g, id);
            l->value[n->in[0]].kind = MPQC_PLAN_ROOT;
        }
        struct mpqc_plan_value *source = &l->value[n->in[0]];
        if (source->kind == MPQC_PLAN_SLICE) source->kind = MPQC_PLAN_ROOT;
        source->no_halo = true;
    }
    return mpqc_graph_normalise(l->cx, l->g);
}

static bool is_output(const struct mpqc_graph *g, mpqc_vid v)
{
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == v) return true;
    return false;
}

/* The last axis of a part is that of the whole: they have the same pixels. */
static bool same_pixels(const struct mpqc_graph *g, mpqc_vid part, mpqc_vid whole)
{
    const struct mpqc_type *p = &mpqc_value_at(g, part)->type, *w = &mpqc_value_at(g, whole)->type;
    if (p->rank != 4 || w->rank != 4) return false;
    return p->dims[0] == w->dims[0] && p->dims[1] == w->dims[1] && p->dims[2] == w->dims[2];
}

/* Memory of v, and of everything that v is part of, may have a halo. */
static bool halo_allowed(const struct mpqc_planner *l, mpqc_vid v)
{
    while (!l->value[v].no_halo) {
        mpqc_vid whole = l->value[v].parent;
        if (whole == MPQC_NONE) return true;
        if (!same_pixels(l->g, v, whole)) return false;
        v = whole;
    }
    return false;
}

/* Gives v and everything that it is part of the halo of v. */
static void raise_whole(struct mpqc_planner *l, mpqc_vid v)
{
    for (mpqc_vid w = l->value[v].parent; w != MPQC_NONE; w = l->value[w].parent)
        raise_halo(l->value[w].halo, l->value[v].halo);
}

/* Input k of a concat can be computed in its place. */
static bool can_be_part(const struct mpqc_planner *l, const struct mpqc_node *n, uint32_t k)
{
    mpqc_vid v = n->in[k], out = n->out[0];
    const struct mpqc_plan_value *p = &l->value[v];
    if (mpqc_value_at(l->g, v)->def == MPQC_NONE || is_output(l->g, v)) return false;
    if (p->kind != MPQC_PLAN_ROOT || p->no_halo) return false;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (i != k && n->in[i] == v) return false;
    return !any_halo(p->halo) || (same_pixels(l->g, v, out) && halo_allowed(l, out));
}

/* A concat of which a reader needs a halo must run along the channels. */
static bool concat_in_place(const struct mpqc_planner *l, const struct mpqc_node *n)
{
    mpqc_vid out = n->out[0];
    uint32_t rank = mpqc_value_at(l->g, out)->type.rank;
    bool last_axis = mpqc_attr_int(n, MPQC_ATTR_AXIS) + 1 == (int64_t)rank;
    if (rank > 4 || is_output(l->g, out) || (any_halo(l->value[out].halo) && !last_axis))
        return false;
    for (uint32_t k = 0; k < n->n_in; k++)
        if (can_be_part(l, n, k)) return true;
    return false;
}

static void make_part(struct mpqc_planner *l, mpqc_vid v, mpqc_vid whole, uint32_t axis, int64_t at)
{
    struct mpqc_plan_value *p = &l->value[v];
    p->kind = MPQC_PLAN_PART;
    p->parent = whole;
    p->begin[axis] = at;
    raise_whole(l, v);
}

static mpqc_status assemble(struct mpqc_planner *l, mpqc_nid id)
{
    const struct mpqc_node n = *mpqc_node_at(l->g, id);
    uint32_t axis = (uint32_t)mpqc_attr_int(&n, MPQC_ATTR_AXIS);
    int64_t at = 0;
    for (uint32_t k = 0; k < n.n_in; k++) {
        if (!can_be_part(l, &n, k)) {
            MPQC_TRY(copy_for(l, id, k));
            l->value[n.in[k]].kind = MPQC_PLAN_ROOT;
        }
        make_part(l, n.in[k], n.out[0], axis, at);
        at += mpqc_value_at(l->g, n.in[k])->type.dims[axis];
    }
    l->value[n.out[0]].assembled = true;
    return MPQC_OK;
}

/* Inputs of n lie side by side in another concat already, as in DenseNets, where each
 * layer reads all features so far: then the result is there, too. */
static bool is_run_of_parts(struct mpqc_planner *l, const struct mpqc_node *n)
{
    uint32_t axis = (uint32_t)mpqc_attr_int(n, MPQC_ATTR_AXIS);
    mpqc_vid out = n->out[0], whole = l->value[n->in[0]].parent;
    const struct mpqc_plan_value *first = &l->value[n->in[0]];
    if (first->kind != MPQC_PLAN_PART || l->value[out].kind != MPQC_PLAN_ROOT) return false;
    if (l->value[out].no_halo || is_output(l->g, out)) return false;
    int64_t at = first->begin[axis];
    for (uint32_t k = 0; k < n->n_in; k++) {
        const struct mpqc_plan_value *p = &l->value[n->in[k]];
        if (p->kind != MPQC_PLAN_PART || p->parent != whole || p->begin[axis] != at) return false;
        for (uint32_t d = 0; d < MPQC_MAX_RANK; d++)
            if (d != axis && p->begin[d] != 0) return false;
        at += mpqc_value_at(l->g, n->in[k])->type.dims[axis];
    }
    if (any_halo(l->value[out].halo) &&
        !(same_pixels(l->g, out, whole) && halo_allowed(l, whole)))
        return false;
    make_part(l, out, whole, axis, first->begin[axis]);
    l->value[out].assembled = true;
    return true;
}

/* Later concats before earlier ones, so that the largest own the memory. */
static mpqc_status find_concats(struct mpqc_planner *l)
{
    for (uint32_t i = l->g->n_order; i-- > 0;) {
        mpqc_nid id = l->g->order[i];
        const struct mpqc_node *n = mpqc_node_at(l->g, id);
        if (n->op != MPQC_OP_CONCAT || is_run_of_parts(l, n) || !concat_in_place(l, n)) continue;
        MPQC_TRY(assemble(l, id));
    }
    return mpqc_graph_normalise(l->cx, l->g);
}

/* ---- the kind of every value ------------------------------------------------------------------- */

/* Values at the ends of kernels are roots, those inside of them are nothing. */
static mpqc_status find_roots(struct mpqc_planner *l)
{
    const struct mpqc_graph *g = l->g;
    MPQC_TRY(grow_values(l, 0));
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        for (uint32_t k = 0; k < n->n_in; k++) {
            if (n->in[k] == MPQC_NONE) continue;
            const struct mpqc_node *def = mpqc_def(g, n->in[k]);
            if (def && def->kernel != n->kernel) l->value[n->in[k]].kind = MPQC_PLAN_ROOT;
        }
    }
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (mpqc_def(g, g->outputs[i])) l->value[g->outputs[i]].kind = MPQC_PLAN_ROOT;
    return MPQC_OK;
}

static void link_views(struct mpqc_planner *l)
{
    const struct mpqc_graph *g = l->g;
    for (mpqc_vid v = 0; v < g->n_values; v++) {
        struct mpqc_plan_value *p = &l->value[v];
        const struct mpqc_node *def = mpqc_def(g, v);
        if (mpqc_is_const(g, v)) p->kind = MPQC_PLAN_CONST;
        if (p->kind == MPQC_PLAN_RESHAPE || p->kind == MPQC_PLAN_SLICE) p->parent = def->in[0];
        for (uint32_t d = 0; d < MPQC_MAX_RANK; d++) p->step[d] = 1;
        if (p->kind != MPQC_PLAN_SLICE) continue;
        const int64_t *begin = mpqc_attr_ints(def, MPQC_ATTR_BEGIN);
        const int64_t *step = mpqc_attr_ints(def, MPQC_ATTR_STEP);
        for (uint32_t d = 0; d < mpqc_value_at(g, v)->type.rank; d++) {
            p->begin[d] = begin[d];
            if (step) p->step[d] = step[d];
        }
    }
    for (uint32_t i = 0; i < g->n_inputs; i++) l->value[g->inputs[i]].kind = MPQC_PLAN_INPUT;
}

/* The caller's output buffers, for the roots below the outputs. */
static void assign_outputs(struct mpqc_planner *l)
{
    for (uint32_t i = 0; i < l->g->n_outputs; i++)
        l->value[mpqc_plan_root(l, l->g->outputs[i])].output = i;
}

mpqc_vid mpqc_plan_root(const struct mpqc_planner *l, mpqc_vid v)
{
    while (l->value[v].parent != MPQC_NONE) v = l->value[v].parent;
    return v;
}

bool mpqc_plan_is_view_node(const struct mpqc_planner *l, const struct mpqc_node *n)
{
    enum mpqc_plan_kind kind = l->value[n->out[0]].kind;
    if (n->op == MPQC_OP_RESHAPE || n->op == MPQC_OP_SLICE)
        return kind == MPQC_PLAN_RESHAPE || kind == MPQC_PLAN_SLICE;
    return n->op == MPQC_OP_CONCAT && l->value[n->out[0]].assembled;
}

mpqc_status mpqc_plan_views(struct mpqc_planner *l)
{
    MPQC_TRY(grow_values(l, 0));
    MPQC_TRY(copy_inputs(l));
    MPQC_TRY(copy_outputs(l));
    MPQC_TRY(find_roots(l));
    find_slices(l);
    MPQC_TRY(find_halos(l));
    MPQC_TRY(find_reshapes(l));
    MPQC_TRY(find_concats(l));
    link_views(l);
    assign_outputs(l);
    return MPQC_OK;
}
