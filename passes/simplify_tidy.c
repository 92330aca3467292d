/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * simplify: equal subexpressions, order, names.
 */
#include "passes/simplify_tidy.h"

#include "ir/elements.h"

/* A hash table of ids with open addressing; the caller compares. */
struct table {
    uint32_t *slot; /* id, or MPQC_NONE */
    uint32_t mask;
};

static bool table_init(struct table *t, struct mpqc_arena *a, uint32_t entries)
{
    uint32_t size = 16;
    while (size / 2 < entries) size *= 2;
    t->slot = MPQC_NEW_ARRAY(a, uint32_t, size);
    t->mask = size - 1;
    if (!t->slot) return false;
    for (uint32_t i = 0; i < size; i++) t->slot[i] = MPQC_NONE;
    return true;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

/* ---- equal constants ---- */

static uint64_t const_hash(struct mpqc_sx *s, mpqc_vid v)
{
    const struct mpqc_value *c = mpqc_value_at(s->g, v);
    if (!s->hash[v]) s->hash[v] = mpqc_content_hash(c->data, mpqc_type_bytes(&c->type)) | 1;
    return mix(s->hash[v], c->type.rank);
}

static bool const_equal(const struct mpqc_graph *g, mpqc_vid a, mpqc_vid b)
{
    const struct mpqc_value *x = &g->values[a], *y = &g->values[b];
    return mpqc_type_equal(&x->type, &y->type) &&
           memcmp(x->data, y->data, mpqc_type_bytes(&x->type)) == 0;
}

static mpqc_status merge_constants(struct mpqc_sx *s)
{
    struct table t;
    uint32_t n = s->g->n_values;
    if (!table_init(&t, s->scratch, n)) return MPQC_OOM(s->cx);
    for (mpqc_vid v = 0; v < n; v++) {
        if (!mpqc_is_const(s->g, v) || s->uses[v] == 0) continue;
        uint32_t i = (uint32_t)const_hash(s, v) & t.mask;
        while (t.slot[i] != MPQC_NONE && !const_equal(s->g, t.slot[i], v)) i = (i + 1) & t.mask;
        if (t.slot[i] == MPQC_NONE) t.slot[i] = v;
        else (void)mpqc_sx_replace(s, v, t.slot[i]);
    }
    return MPQC_OK;
}

/* ---- equal nodes ---- */

static uint64_t attr_hash(uint64_t h, const struct mpqc_attr *a)
{
    h = mix(h, (uint64_t)a->key);
    switch (mpqc_attr_kinds[a->key]) {
    case MPQC_AK_INT: return mix(h, (uint64_t)a->i);
    case MPQC_AK_FLOAT: return mix(h, mpqc_content_hash(&a->f, sizeof a->f));
    case MPQC_AK_INTS: return mix(h, mpqc_content_hash(a->ints, a->count * sizeof *a->ints));
    case MPQC_AK_STRING: return mix(h, mpqc_content_hash(a->s, strlen(a->s)));
    }
    return h;
}

static uint64_t node_hash(const struct mpqc_node *n)
{
    uint64_t h = mix(n->n_in, (uint64_t)n->op);
    for (uint32_t i = 0; i < n->n_in; i++) h = mix(h, n->in[i]);
    for (uint32_t i = 0; i < n->n_attr; i++) h = attr_hash(h, &n->attr[i]);
    return h;
}

static bool node_equal(const struct mpqc_node *a, const struct mpqc_node *b)
{
    if (a->op != b->op || a->n_in != b->n_in || a->n_attr != b->n_attr) return false;
    if (a->n_out != 1 || b->n_out != 1) return false;
    for (uint32_t i = 0; i < a->n_in; i++)
        if (a->in[i] != b->in[i]) return false;
    for (uint32_t i = 0; i < a->n_attr; i++)
        if (!mpqc_attr_equal(&a->attr[i], &b->attr[i])) return false;
    return true;
}

/* In topological order, so that equal trees merge from their leaves up at once. */
static mpqc_status merge_nodes(struct mpqc_sx *s)
{
    struct mpqc_graph *g = s->g;
    struct table t;
    if (!table_init(&t, s->scratch, g->n_order)) return MPQC_OOM(s->cx);
    for (uint32_t k = 0; k < g->n_order; k++) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[k]);
        if (n->dead) continue;
        uint32_t i = (uint32_t)node_hash(n) & t.mask;
        while (t.slot[i] != MPQC_NONE && !node_equal(&g->nodes[t.slot[i]], n))
            i = (i + 1) & t.mask;
        if (t.slot[i] == MPQC_NONE) t.slot[i] = g->order[k];
        else (void)mpqc_sx_replace(s, n->out[0], g->nodes[t.slot[i]].out[0]);
    }
    return MPQC_OK;
}

mpqc_status mpqc_sx_merge_equal(struct mpqc_sx *s)
{
    MPQC_TRY(merge_constants(s));
    return merge_nodes(s);
}

/* ---- names and order ---- */

void mpqc_sx_name_sources(struct mpqc_sx *s)
{
    struct mpqc_graph *g = s->g;
    for (uint32_t i = g->n_order; i-- > 0;) { /* users first: names travel up chains */
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        if (n->op != MPQC_OP_TRANSPOSE && n->op != MPQC_OP_RESHAPE) continue;
        struct mpqc_value *from = mpqc_value_at(g, n->out[0]), *to = mpqc_value_at(g, n->in[0]);
        if (to->name || to->def == MPQC_NONE || mpqc_sx_is_output(s, n->out[0])) continue;
        to->name = from->name;
        from->name = NULL;
    }
}

/* Enters the name of v; false when another value has it. */
static bool claim(struct table *t, const struct mpqc_graph *g, mpqc_vid v, const char *name)
{
    uint32_t i = (uint32_t)mpqc_content_hash(name, strlen(name)) & t->mask;
    while (t->slot[i] != MPQC_NONE && strcmp(g->values[t->slot[i]].name, name) != 0)
        i = (i + 1) & t->mask;
    if (t->slot[i] != MPQC_NONE) return false;
    t->slot[i] = v;
    return true;
}

/* The name of the ONNX node; of several values with the same one the later are
 * counted. */
static mpqc_status invent_name(struct mpqc_sx *s, struct table *t, const struct mpqc_node *n)
{
    struct mpqc_value *v = mpqc_value_at(s->g, n->out[0]);
    const char *base = n->loc.node ? n->loc.node : mpqc_ops[n->op].text;
    const char *name = mpqc_arena_strdup(&s->g->arena, base);
    for (unsigned k = 2; name; k++) {
        if (claim(t, s->g, n->out[0], name)) {
            v->name = name;
            return MPQC_OK;
        }
        name = mpqc_arena_printf(&s->g->arena, "%s#%u", base, k);
    }
    return MPQC_OOM(s->cx);
}

static mpqc_status name_all(struct mpqc_sx *s)
{
    struct mpqc_graph *g = s->g;
    struct table t;
    if (!table_init(&t, s->scratch, g->n_order + g->n_inputs)) return MPQC_OOM(s->cx);
    for (uint32_t i = 0; i < g->n_inputs; i++)
        if (g->values[g->inputs[i]].name)
            (void)claim(&t, g, g->inputs[i], g->values[g->inputs[i]].name);
    for (uint32_t i = 0; i < g->n_order; i++) {
        mpqc_vid v = mpqc_node_at(g, g->order[i])->out[0];
        const char *name = g->values[v].name;
        if (name && !claim(&t, g, v, name) && !mpqc_sx_is_output(s, v)) g->values[v].name = NULL;
    }
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        if (!g->values[n->out[0]].name) MPQC_TRY(invent_name(s, &t, n));
    }
    return MPQC_OK;
}

mpqc_status mpqc_sx_tidy(struct mpqc_sx *s)
{
    struct mpqc_graph *g = s->g;
    uint32_t roots = 0;
    /* Only the nodes of the outputs are put in order; normalise then walks from them. */
    for (uint32_t i = 0; i < g->n_outputs && roots < g->n_order; i++)
        if (mpqc_def(g, g->outputs[i])) g->order[roots++] = g->values[g->outputs[i]].def;
    g->n_order = roots;
    MPQC_TRY(mpqc_graph_normalise(s->cx, g));
    return name_all(s);
}
