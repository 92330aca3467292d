/* SPDX-License-Identifier: GPL-3.0-or-later
 * Pieces of the network as graphs of their own.
 */
#include "passes/sensitivity/samples.h"

/* ---- cutting ---- */

struct cutter {
    struct mpqc_sens_cx *s;
    struct mpqc_cx *cx;
    struct mpqc_sens_cut *out;
    const struct mpqc_sens_quant *quant;
    mpqc_vid *map; /* by the network's value: the cut's, or MPQC_NONE */
};

/* The cut's value for v; what is not made there is a constant or becomes an input. */
static mpqc_vid map_value(struct cutter *k, mpqc_vid v)
{
    if (v == MPQC_NONE || k->map[v] != MPQC_NONE) return v == MPQC_NONE ? v : k->map[v];
    const struct mpqc_value *old = mpqc_value_at(k->s->g, v);
    struct mpqc_graph *g = &k->out->g;
    if (old->data) return k->map[v] = mpqc_graph_const(g, old->name, old->type, old->data, true);
    k->out->in[g->n_inputs] = v;
    return k->map[v] = mpqc_graph_input(g, old->name, old->type);
}

static mpqc_status unary(struct cutter *k, enum mpqc_op op, const struct mpqc_attrs *attrs,
                         struct mpqc_loc loc, mpqc_vid *x)
{
    return mpqc_node_add(k->cx, &k->out->g, op, x, 1, attrs, loc, x);
}

static mpqc_status times(struct cutter *k, float c, struct mpqc_loc loc, mpqc_vid *x)
{
    mpqc_vid in[2] = {*x, mpqc_graph_const_f32(&k->out->g, 0, NULL, &c)};
    if (in[1] == MPQC_NONE) return MPQC_OOM(k->cx);
    return mpqc_node_add(k->cx, &k->out->g, MPQC_OP_MUL, in, 2, NULL, loc, x);
}

/* mpqc_sens_fake as nodes. */
static mpqc_status fake_input(struct cutter *k, const struct mpqc_sens_range *r,
                              struct mpqc_loc loc, mpqc_vid *x)
{
    static const struct mpqc_attrs none = {0};
    struct mpqc_attrs limits = {0};
    mpqc_attrs_float(&limits, MPQC_ATTR_MIN, r->lo);
    mpqc_attrs_float(&limits, MPQC_ATTR_MAX, r->hi);
    MPQC_TRY(times(k, 1.0f / r->scale, loc, x));
    MPQC_TRY(unary(k, MPQC_OP_ROUND, &none, loc, x));
    MPQC_TRY(unary(k, MPQC_OP_CLIP, &limits, loc, x));
    return times(k, r->scale, loc, x);
}

/* Inputs of a layer: its activation on the grid, its weights the fake ones. */
static mpqc_status quantise_layer(struct cutter *k, const struct mpqc_node *n, uint32_t layer,
                                  mpqc_vid *in)
{
    const struct mpqc_bits_layer *l = &k->s->bits->layer[layer];
    const float *w = k->quant->tap ? NULL : k->quant->weights[layer];
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == l->input && k->quant->tap) {
            MPQC_TRY(unary(k, MPQC_OP_COPY, &(struct mpqc_attrs){0}, n->loc, &in[i]));
            k->quant->tap[layer] = in[i];
        } else if (n->in[i] == l->input) {
            MPQC_TRY(fake_input(k, &k->quant->input[layer], n->loc, &in[i]));
        }
        if (n->in[i] != l->weights || !w) continue;
        struct mpqc_type type = mpqc_value_at(k->s->g, l->weights)->type;
        in[i] = mpqc_graph_const(&k->out->g, NULL, type, w, true);
        if (in[i] == MPQC_NONE) return MPQC_OOM(k->cx);
    }
    return MPQC_OK;
}

static mpqc_status copy_node(struct cutter *k, mpqc_nid id)
{
    const struct mpqc_node *n = mpqc_node_at(k->s->g, id);
    uint32_t layer = k->quant ? k->quant->layer_of[id] : MPQC_NONE;
    mpqc_vid in[MPQC_MAX_INPUTS], out;
    struct mpqc_attrs attrs = {.n = n->n_attr};
    MPQC_ASSERT(n->n_attr <= MPQC_MAX_ATTRS);
    for (uint32_t i = 0; i < n->n_attr; i++) attrs.a[i] = n->attr[i];
    for (uint32_t i = 0; i < n->n_in; i++) {
        in[i] = map_value(k, n->in[i]);
        if (in[i] == MPQC_NONE && n->in[i] != MPQC_NONE) return MPQC_OOM(k->cx);
    }
    if (layer != MPQC_NONE) MPQC_TRY(quantise_layer(k, n, layer, in));
    MPQC_TRY(mpqc_node_add(k->cx, &k->out->g, n->op, in, n->n_in, &attrs, n->loc, &out));
    for (uint32_t i = 0; i < n->n_out; i++) k->map[n->out[i]] = out + i;
    return MPQC_OK;
}

uint32_t *mpqc_sens_layer_of(const struct mpqc_sens_cx *s, struct mpqc_arena *arena)
{
    uint32_t *layer_of = MPQC_NEW_ARRAY(arena, uint32_t, s->g->n_nodes);
    if (!layer_of) return NULL;
    for (mpqc_nid i = 0; i < s->g->n_nodes; i++) layer_of[i] = MPQC_NONE;
    for (uint32_t l = 0; l < s->bits->n_layers; l++) layer_of[s->bits->layer[l].node] = l;
    return layer_of;
}

mpqc_status mpqc_sens_cut(struct mpqc_sens_cx *s, uint32_t first, uint32_t end,
                          const mpqc_vid *outs, uint32_t n_outs,
                          const struct mpqc_sens_quant *quant, struct mpqc_arena *arena,
                          struct mpqc_sens_cut *out)
{
    const struct mpqc_graph *g = s->g;
    struct cutter k = {.s = s, .cx = s->p->cx, .out = out, .quant = quant};
    mpqc_graph_init(&out->g, k.cx->allocator);
    out->in = MPQC_NEW_ARRAY(arena, mpqc_vid, g->n_values);
    k.map = MPQC_NEW_ARRAY(arena, mpqc_vid, g->n_values);
    if (arena->failed) return MPQC_OOM(k.cx);
    for (mpqc_vid v = 0; v < g->n_values; v++) k.map[v] = MPQC_NONE;
    for (uint32_t i = first; i < end; i++) MPQC_TRY(copy_node(&k, g->order[i]));
    for (uint32_t i = 0; i < n_outs; i++) mpqc_graph_output(&out->g, map_value(&k, outs[i]));
    if (out->g.arena.failed) return MPQC_OOM(k.cx);
    return mpqc_graph_normalise(k.cx, &out->g);
}
