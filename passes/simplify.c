/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * simplify: a float graph in, a canonical float graph out, the same function.
 *
 * The rules of simplify_rules.def are tried at every node, in topological order,
 * sweep after sweep until none fires; equal subexpressions are merged between
 * sweeps.  Then the next phase of rules joins, until all phases are through.
 *
 * Why it ends.  The rules fall into four groups, and each lowers the first
 * component below that it touches, compared lexicographically:
 *   1. the number of nodes that are not transposes or reshapes, weighted so that
 *      batchnorm counts 4, an affine mul or add with a constant 2, and what a rule
 *      makes of a pattern less than the pattern;
 *   2. the sum over all such nodes of their levels: the transposes above them on the
 *      worst path from an input (sinking moves a node above one and must lower its
 *      level, unless transposes become fewer);
 *   3. the same sum for reshapes;
 *   4. the number of transposes, reshapes, and constants on the left.
 * MAX_SWEEPS is a belt to these braces: a graph that is not finished is still
 * the same function.
 *
 * What later stages may rely on:
 *   - no transpose but at graph inputs and outputs, and where an operator is
 *     truly asked to work across the channels-last layout;
 *   - conv and matmul carry their bias; no batchnorm, sub or div by a constant;
 *   - a per-channel x * c + d of rank 4 that could not be folded is a depthwise
 *     1x1 convolution;
 *   - relu is relu, any other clamp is clip with the bounds that it has;
 *   - nodes are in depth-first order from the outputs, whatever the order in the
 *     file was, and every computed value has a name.
 */
#include "passes/simplify.h"
#include "passes/simplify_tidy.h"

#define MAX_SWEEPS 100

struct row {
    const char *name;
    int op; /* -1: any */
    enum mpqc_sx_phase phase;
    mpqc_sx_rule try;
};

#define MPQC_OP_ANY (-1)
static const struct row rows[] = {
#define RULE(name, op, phase, doc) {#name, (int)MPQC_OP_##op, MPQC_SX_##phase, mpqc_sx_##name},
#include "passes/simplify_rules.def"
#undef RULE
};

/* ---- uses ---- */

/* Makes `uses` and `hash` cover all values. */
static mpqc_status track(struct mpqc_sx *s)
{
    if (s->g->arena.failed) return MPQC_OOM(s->cx);
    if (s->g->n_values > s->cap_uses) {
        uint32_t cap = s->g->n_values + s->g->n_values / 2 + 64;
        uint32_t *uses = MPQC_NEW_ARRAY(s->scratch, uint32_t, cap);
        uint64_t *hash = MPQC_NEW_ARRAY(s->scratch, uint64_t, cap);
        struct mpqc_sx_level *level = MPQC_NEW_ARRAY(s->scratch, struct mpqc_sx_level, cap);
        if (!uses || !hash || !level) return MPQC_OOM(s->cx);
        if (s->n_uses) {
            memcpy(uses, s->uses, s->n_uses * sizeof *uses);
            memcpy(hash, s->hash, s->n_uses * sizeof *hash);
            memcpy(level, s->level, s->n_uses * sizeof *level);
        }
        s->uses = uses;
        s->hash = hash;
        s->level = level;
        s->cap_uses = cap;
    }
    for (; s->n_uses < s->g->n_values; s->n_uses++) s->uses[s->n_uses] = 0;
    return MPQC_OK;
}

/* The level of what n computes, from its inputs. */
static void set_level(struct mpqc_sx *s, const struct mpqc_node *n)
{
    struct mpqc_sx_level max = {0, 0};
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == MPQC_NONE) continue;
        const struct mpqc_sx_level *l = &s->level[n->in[i]];
        if (l->transposes > max.transposes) max.transposes = l->transposes;
        if (l->reshapes > max.reshapes) max.reshapes = l->reshapes;
    }
    max.transposes += n->op == MPQC_OP_TRANSPOSE;
    max.reshapes += n->op == MPQC_OP_RESHAPE;
    s->level[n->out[0]] = max;
}

static mpqc_status recount(struct mpqc_sx *s)
{
    MPQC_TRY(track(s));
    memset(s->uses, 0, s->n_uses * sizeof *s->uses);
    for (uint32_t i = 0; i < s->g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(s->g, s->g->order[i]);
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != MPQC_NONE) s->uses[n->in[k]]++;
    }
    for (uint32_t i = 0; i < s->g->n_outputs; i++) s->uses[s->g->outputs[i]]++;
    return MPQC_OK;
}

/* The node that defines v dies with its last use, and so on upwards. */
static void bury(struct mpqc_sx *s, mpqc_vid v)
{
    struct mpqc_node *n = mpqc_def(s->g, v);
    if (!n || n->dead) return;
    for (uint32_t i = 0; i < n->n_out; i++)
        if (s->uses[n->out[i]]) return;
    n->dead = true;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != MPQC_NONE && --s->uses[n->in[i]] == 0) bury(s, n->in[i]);
}

bool mpqc_sx_is_output(const struct mpqc_sx *s, mpqc_vid v)
{
    for (uint32_t i = 0; i < s->g->n_outputs; i++)
        if (s->g->outputs[i] == v) return true;
    return false;
}

bool mpqc_sx_can_replace(const struct mpqc_sx *s, mpqc_vid from, mpqc_vid to)
{
    return !mpqc_sx_is_output(s, from) || (mpqc_def(s->g, to) && !mpqc_sx_is_output(s, to));
}

bool mpqc_sx_replace(struct mpqc_sx *s, mpqc_vid from, mpqc_vid to)
{
    if (!mpqc_sx_can_replace(s, from, to)) return false;
    const struct mpqc_value *old = mpqc_value_at(s->g, from);
    struct mpqc_value *new = mpqc_value_at(s->g, to);
    if (old->name && mpqc_def(s->g, to) && (!new->name || mpqc_sx_is_output(s, from)))
        new->name = old->name;
    mpqc_graph_replace(s->g, from, to);
    s->uses[to] += s->uses[from];
    s->uses[from] = 0;
    bury(s, from);
    return true;
}

void mpqc_sx_done(struct mpqc_sx *s, mpqc_vid from, mpqc_vid to, bool *done)
{
    *done = mpqc_sx_replace(s, from, to);
}

void mpqc_sx_sunk(struct mpqc_sx *s, mpqc_vid from, mpqc_vid inner, mpqc_vid to, bool *done)
{
    if (!mpqc_sx_is_output(s, from) && !mpqc_value_at(s->g, inner)->name) {
        mpqc_value_at(s->g, inner)->name = mpqc_value_at(s->g, from)->name;
        mpqc_value_at(s->g, from)->name = NULL;
    }
    mpqc_sx_done(s, from, to, done);
}

/* ---- adding ---- */

mpqc_status mpqc_sx_add(struct mpqc_sx *s, enum mpqc_op op, const mpqc_vid *in, uint32_t n_in,
                        const struct mpqc_attrs *attrs, struct mpqc_loc loc, mpqc_vid *out)
{
    static const struct mpqc_attrs none;
    MPQC_TRY(mpqc_node_fold(s->cx, s->g, op, in, n_in, attrs ? attrs : &none, loc, out));
    MPQC_TRY(track(s));
    if (!mpqc_def(s->g, *out)) return MPQC_OK;
    for (uint32_t i = 0; i < n_in; i++)
        if (in[i] != MPQC_NONE) s->uses[in[i]]++;
    set_level(s, mpqc_def(s->g, *out));
    return MPQC_OK;
}

mpqc_status mpqc_sx_add1(struct mpqc_sx *s, enum mpqc_op op, mpqc_vid a,
                         const struct mpqc_attrs *attrs, struct mpqc_loc loc, mpqc_vid *out)
{
    return mpqc_sx_add(s, op, &a, 1, attrs, loc, out);
}

mpqc_status mpqc_sx_add2(struct mpqc_sx *s, enum mpqc_op op, mpqc_vid a, mpqc_vid b,
                         struct mpqc_loc loc, mpqc_vid *out)
{
    const mpqc_vid in[2] = {a, b};
    return mpqc_sx_add(s, op, in, 2, NULL, loc, out);
}

mpqc_status mpqc_sx_const(struct mpqc_sx *s, uint32_t rank, const int64_t *dims,
                          const float *data, bool in_arena, mpqc_vid *out)
{
    struct mpqc_type type = mpqc_type_make(MPQC_DT_F32, rank, dims);
    *out = mpqc_graph_const(s->g, NULL, type, data, in_arena);
    return track(s);
}

mpqc_status mpqc_sx_reshape(struct mpqc_sx *s, mpqc_vid x, uint32_t rank, const int64_t *dims,
                            struct mpqc_loc loc, mpqc_vid *out)
{
    const struct mpqc_value *v = mpqc_value_at(s->g, x);
    struct mpqc_type type = mpqc_type_make(v->type.dtype, rank, dims);
    *out = x;
    if (mpqc_type_same_shape(&v->type, &type)) return MPQC_OK;
    if (v->data) { /* the same bytes under another type */
        *out = mpqc_graph_const(s->g, NULL, type, v->data, true);
        return track(s);
    }
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, rank, dims);
    return mpqc_sx_add1(s, MPQC_OP_RESHAPE, x, &a, loc, out);
}

mpqc_status mpqc_sx_transpose(struct mpqc_sx *s, mpqc_vid x, const int64_t *perm,
                              struct mpqc_loc loc, mpqc_vid *out)
{
    const struct mpqc_type *t = mpqc_sx_type(s, x);
    if (mpqc_sx_moves_units(t, perm)) {
        int64_t dims[MPQC_MAX_RANK];
        for (uint32_t i = 0; i < t->rank; i++) dims[i] = t->dims[perm[i]];
        return mpqc_sx_reshape(s, x, t->rank, dims, loc, out);
    }
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_PERM, t->rank, perm);
    return mpqc_sx_add1(s, MPQC_OP_TRANSPOSE, x, &a, loc, out);
}

/* ---- sweeps ---- */

/* Tries the rules at node `id` until it is gone or none fires.  What is above it has
 * been visited, so levels are exact. */
static mpqc_status rewrite(struct mpqc_sx *s, mpqc_nid id, bool *changed)
{
    set_level(s, mpqc_node_at(s->g, id));
    for (size_t i = 0; i < MPQC_LEN(rows); i++) {
        struct mpqc_node n = *mpqc_node_at(s->g, id);
        bool done = false;
        if (rows[i].phase > s->phase || (rows[i].op >= 0 && rows[i].op != (int)n.op)) continue;
        MPQC_TRY(rows[i].try(s, &n, &done));
        if (!done) continue;
        *changed = true;
        if (s->cx->verbose > 2)
            mpqc_note(s->cx, mpqc_loc_where(n.loc), "simplify: rule %s", rows[i].name);
        if (mpqc_node_at(s->g, id)->dead) break;
    }
    return MPQC_OK;
}

static mpqc_status sweep(struct mpqc_sx *s, bool *changed)
{
    uint32_t n = s->g->n_order;
    mpqc_nid *order = mpqc_arena_copy(s->scratch, s->g->order, n * sizeof *order);
    if (!order) return MPQC_OOM(s->cx);
    for (uint32_t i = 0; i < n; i++)
        if (!mpqc_node_at(s->g, order[i])->dead) MPQC_TRY(rewrite(s, order[i], changed));
    return MPQC_OK;
}

/* The rules up to s->phase, to the fixed point. */
static mpqc_status run_phase(struct mpqc_sx *s)
{
    for (int i = 0; i < MAX_SWEEPS; i++) {
        bool changed = false;
        MPQC_TRY(mpqc_graph_normalise(s->cx, s->g));
        MPQC_TRY(recount(s));
        MPQC_TRY(mpqc_sx_merge_equal(s));
        MPQC_TRY(sweep(s, &changed));
        if (!changed) return MPQC_OK;
    }
    mpqc_note(s->cx, MPQC_NOWHERE, "simplify stopped after %d sweeps", MAX_SWEEPS);
    return MPQC_OK;
}

mpqc_status mpqc_pass_simplify(struct mpqc_pass_cx *p, struct mpqc_graph *g)
{
    struct mpqc_sx s = {.cx = p->cx, .g = g, .scratch = &p->scratch};
    MPQC_TRY(mpqc_graph_normalise(s.cx, g));
    mpqc_sx_name_sources(&s);
    for (int phase = 0; phase < MPQC_SX_PHASES; phase++) {
        s.phase = (enum mpqc_sx_phase)phase;
        MPQC_TRY(run_phase(&s));
    }
    MPQC_TRY(mpqc_graph_normalise(s.cx, g));
    return mpqc_sx_tidy(&s);
}
