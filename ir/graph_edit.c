/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Changing whole graphs: uses, replacement, order, canonical numbers, copies.
 */
#include "ir/ir.h"

void mpqc_graph_replace(struct mpqc_graph *g, mpqc_vid from, mpqc_vid to)
{
    for (mpqc_nid i = 0; i < g->n_nodes; i++) {
        struct mpqc_node *n = &g->nodes[i];
        if (n->dead) continue;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] == from) n->in[k] = to;
    }
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] == from) g->outputs[i] = to;
}

uint32_t *mpqc_graph_uses(const struct mpqc_graph *g, struct mpqc_arena *scratch)
{
    uint32_t *uses = MPQC_NEW_ARRAY(scratch, uint32_t, g->n_values);
    if (!uses) return NULL;
    for (mpqc_nid i = 0; i < g->n_nodes; i++) {
        const struct mpqc_node *n = &g->nodes[i];
        if (n->dead) continue;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != MPQC_NONE) uses[n->in[k]]++;
    }
    for (uint32_t i = 0; i < g->n_outputs; i++) uses[g->outputs[i]]++;
    return uses;
}

/* ---- order ----
 * A depth-first walk that emits a node behind the nodes it reads.  Roots are
 * visited in the previous order, new nodes in the order of their ids; so a list
 * that is in order already stays as it is, and a new node lands right before its
 * first user. */

enum state { UNSEEN, UNNEEDED, OPEN, DONE };

struct walk {
    struct mpqc_cx *cx;
    struct mpqc_graph *g;
    unsigned char *state; /* by node */
    mpqc_nid *stack;      /* nodes being visited */
    uint32_t *next;       /* by stack position: the input to look at next */
    uint32_t depth;
};

static void push(struct walk *w, mpqc_nid n)
{
    w->state[n] = OPEN;
    w->stack[w->depth] = n;
    w->next[w->depth++] = 0;
}

/* Visits everything below root and appends it to the order. */
static mpqc_status visit(struct walk *w, mpqc_nid root)
{
    struct mpqc_graph *g = w->g;
    if (w->state[root] == DONE) return MPQC_OK;
    push(w, root);
    while (w->depth) {
        mpqc_nid id = w->stack[w->depth - 1];
        const struct mpqc_node *n = &g->nodes[id];
        if (w->next[w->depth - 1] == n->n_in) {
            w->state[id] = DONE;
            g->order[g->n_order++] = id;
            w->depth--;
            continue;
        }
        mpqc_vid v = n->in[w->next[w->depth - 1]++];
        mpqc_nid def = v == MPQC_NONE ? MPQC_NONE : g->values[v].def;
        if (def == MPQC_NONE || w->state[def] == DONE) continue;
        if (w->state[def] == OPEN)
            return MPQC_FAIL(w->cx, BUG, mpqc_loc_where(n->loc), "the graph has a cycle here");
        push(w, def);
    }
    return MPQC_OK;
}

/* Marks what the outputs need: UNNEEDED becomes UNSEEN from the outputs down. */
static mpqc_status mark_live(struct walk *w)
{
    struct mpqc_graph *g = w->g;
    memset(w->state, UNNEEDED, g->n_nodes);
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        mpqc_nid def = g->values[g->outputs[i]].def;
        if (def == MPQC_NONE || w->state[def] != UNNEEDED) continue;
        w->state[def] = UNSEEN;
        w->stack[w->depth++] = def;
    }
    while (w->depth) { /* each node enters the stack once */
        const struct mpqc_node *n = &g->nodes[w->stack[--w->depth]];
        if (n->dead)
            return MPQC_FAIL(w->cx, BUG, mpqc_loc_where(n->loc), "a dead node is used");
        for (uint32_t k = 0; k < n->n_in; k++) {
            mpqc_nid def = n->in[k] == MPQC_NONE ? MPQC_NONE : g->values[n->in[k]].def;
            if (def == MPQC_NONE || w->state[def] != UNNEEDED) continue;
            w->state[def] = UNSEEN;
            w->stack[w->depth++] = def;
        }
    }
    return MPQC_OK;
}

/* The previous order first, then nodes that it does not name, then all by visit(). */
static mpqc_status rebuild_order(struct walk *w, const mpqc_nid *before, uint32_t n_before)
{
    struct mpqc_graph *g = w->g;
    g->n_order = 0;
    for (uint32_t i = 0; i < n_before; i++)
        if (w->state[before[i]] == UNSEEN) MPQC_TRY(visit(w, before[i]));
    for (mpqc_nid i = 0; i < g->n_nodes; i++)
        if (w->state[i] == UNSEEN) MPQC_TRY(visit(w, i));
    return MPQC_OK;
}

static mpqc_status normalise_in(struct walk *w, struct mpqc_arena *scratch)
{
    struct mpqc_graph *g = w->g;
    w->state = mpqc_arena_alloc(scratch, g->n_nodes);
    w->stack = MPQC_NEW_ARRAY(scratch, mpqc_nid, g->n_nodes);
    w->next = MPQC_NEW_ARRAY(scratch, uint32_t, g->n_nodes);
    mpqc_nid *before = mpqc_arena_copy(scratch, g->order, g->n_order * sizeof *before);
    if (scratch->failed) return MPQC_OOM(w->cx);
    MPQC_TRY(mark_live(w));
    for (mpqc_nid i = 0; i < g->n_nodes; i++)
        if (w->state[i] == UNNEEDED) g->nodes[i].dead = true;
    return rebuild_order(w, before, g->n_order);
}

mpqc_status mpqc_graph_normalise(struct mpqc_cx *cx, struct mpqc_graph *g)
{
    if (g->arena.failed) return MPQC_OOM(cx);
    struct mpqc_arena scratch;
    mpqc_arena_init(&scratch, cx->allocator);
    struct walk w = {.cx = cx, .g = g};
    mpqc_status status = normalise_in(&w, &scratch);
    mpqc_arena_release(&scratch);
    return status;
}

/* ---- canonical numbers ---- */

static void number(struct mpqc_numbering *m, mpqc_vid v)
{
    if (v == MPQC_NONE || m->new_id[v] != MPQC_NONE) return;
    m->new_id[v] = m->count;
    m->old_id[m->count++] = v;
}

bool mpqc_graph_number(const struct mpqc_graph *g, struct mpqc_arena *scratch,
                       struct mpqc_numbering *m)
{
    m->count = 0;
    m->new_id = MPQC_NEW_ARRAY(scratch, mpqc_vid, g->n_values);
    m->old_id = MPQC_NEW_ARRAY(scratch, mpqc_vid, g->n_values);
    if (!m->new_id || !m->old_id) return false;
    for (mpqc_vid v = 0; v < g->n_values; v++) m->new_id[v] = MPQC_NONE;
    for (uint32_t i = 0; i < g->n_inputs; i++) number(m, g->inputs[i]);
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = &g->nodes[g->order[i]];
        for (uint32_t k = 0; k < n->n_in; k++) number(m, n->in[k]);
        for (uint32_t k = 0; k < n->n_out; k++) number(m, n->out[k]);
    }
    for (uint32_t i = 0; i < g->n_outputs; i++) number(m, g->outputs[i]);
    return true;
}

/* ---- copies ---- */

static struct mpqc_type copy_type(struct mpqc_graph *to, struct mpqc_type t)
{
    const struct mpqc_quant *q = t.quant;
    if (q) t.quant = mpqc_quant_channel(to, q->axis, q->count, q->scale, q->zero);
    if (q && q->groups && t.quant)
        t.quant = mpqc_quant_groups(to, &t, q->groups->size, q->groups->bits, q->groups->factor);
    return t;
}

static void copy_node(const struct mpqc_numbering *m, const struct mpqc_node *from,
                      struct mpqc_graph *to, mpqc_nid id)
{
    struct mpqc_node n = *from;
    n.in = MPQC_NEW_ARRAY(&to->arena, mpqc_vid, n.n_in);
    n.out = MPQC_NEW_ARRAY(&to->arena, mpqc_vid, n.n_out);
    n.n_attr = 0;
    n.attr = NULL;
    n.loc = mpqc_loc_copy(to, n.loc);
    for (uint32_t k = 0; n.in && k < n.n_in; k++)
        n.in[k] = from->in[k] == MPQC_NONE ? MPQC_NONE : m->new_id[from->in[k]];
    for (uint32_t k = 0; n.out && k < n.n_out; k++) {
        n.out[k] = m->new_id[from->out[k]];
        to->values[n.out[k]].def = id;
        to->values[n.out[k]].def_slot = k;
    }
    for (uint32_t k = 0; k < from->n_attr; k++) mpqc_attr_set(to, &n, from->attr[k]);
    to->nodes[id] = n;
    to->order[id] = id;
}

/* Values of g in canonical order, without definitions; constants with data. */
static bool copy_values(const struct mpqc_graph *g, const struct mpqc_numbering *m,
                        struct mpqc_graph *to)
{
    to->values = MPQC_NEW_ARRAY(&to->arena, struct mpqc_value, m->count);
    if (!to->values) return false;
    to->n_values = to->cap_values = m->count;
    for (mpqc_vid i = 0; i < m->count; i++) {
        const struct mpqc_value *v = &g->values[m->old_id[i]];
        struct mpqc_value *copy = &to->values[i];
        *copy = (struct mpqc_value){.type = copy_type(to, v->type), .def = MPQC_NONE};
        copy->name = mpqc_arena_strdup(&to->arena, v->name);
        if (v->data)
            copy->data = mpqc_arena_copy(&to->arena, v->data, mpqc_type_bytes(&v->type));
    }
    return !to->arena.failed;
}

static bool copy_nodes(const struct mpqc_graph *g, const struct mpqc_numbering *m,
                       struct mpqc_graph *to)
{
    to->nodes = MPQC_NEW_ARRAY(&to->arena, struct mpqc_node, g->n_order);
    to->order = MPQC_NEW_ARRAY(&to->arena, mpqc_nid, g->n_order);
    if (!to->nodes || !to->order) return false;
    to->n_nodes = to->cap_nodes = to->n_order = g->n_order;
    for (uint32_t i = 0; i < g->n_order; i++)
        copy_node(m, &g->nodes[g->order[i]], to, i);
    for (uint32_t i = 0; i < g->n_outputs; i++)
        mpqc_graph_output(to, m->new_id[g->outputs[i]]);
    return !to->arena.failed;
}

mpqc_status mpqc_graph_clone(struct mpqc_cx *cx, const struct mpqc_graph *g,
                             struct mpqc_graph *out, struct mpqc_arena *scratch, mpqc_vid **map)
{
    struct mpqc_numbering m;
    if (!mpqc_graph_number(g, scratch, &m)) return MPQC_OOM(cx);
    out->name = mpqc_arena_strdup(&out->arena, g->name);
    if (!copy_values(g, &m, out) || !copy_nodes(g, &m, out)) return MPQC_OOM(cx);
    /* Twice as many: room to the next power of two, as mpqc_graph_input wants it. */
    out->inputs = MPQC_NEW_ARRAY(&out->arena, mpqc_vid, (size_t)g->n_inputs * 2);
    if (!out->inputs) return MPQC_OOM(cx);
    for (; out->n_inputs < g->n_inputs; out->n_inputs++)
        out->inputs[out->n_inputs] = m.new_id[g->inputs[out->n_inputs]];
    if (map) *map = m.new_id;
    return MPQC_OK;
}
