/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The verifier.  What it finds is a mistake of the compiler, so every complaint is
 * MPQC_BUG, with the node and (through the context) the pass that ran last.
 */
#include "ir/verify.h"

enum seen { NOT_DEFINED, DEFINED };

struct verifier {
    struct mpqc_cx *cx;
    const struct mpqc_graph *g;
    enum mpqc_verify_mode mode;
    struct mpqc_graph shadow; /* g with an arena of our own, for inference */
    unsigned char *defined;   /* by value: enum seen */
    unsigned char *ordered;   /* by node: stands in the order */
};

#define NODE_BUG(v, n, ...) MPQC_FAIL((v)->cx, BUG, mpqc_loc_where((n)->loc), __VA_ARGS__)
#define GRAPH_BUG(v, ...) MPQC_FAIL((v)->cx, BUG, MPQC_NOWHERE, __VA_ARGS__)

/* ---- values ---- */

/* i1: see dtypes.def. */
static mpqc_status check_signs(struct verifier *v, mpqc_vid id)
{
    const struct mpqc_value *value = &v->g->values[id];
    struct mpqc_where where = {.tensor = value->name, .offset = -1};
    const int8_t *data = value->data;
    if (!data) return MPQC_FAIL(v->cx, BUG, where, "value %u is i1, but no constant", id);
    for (int64_t i = 0; i < mpqc_type_count(&value->type); i++)
        if (!mpqc_dtype_holds(MPQC_DT_I1, data[i]))
            return MPQC_FAIL(v->cx, BUG, where, "value %u: element %lld is %d, which is no i1", id,
                             (long long)i, data[i]);
    return MPQC_OK;
}

static mpqc_status check_source(struct verifier *v, mpqc_vid id)
{
    const struct mpqc_value *value = &v->g->values[id];
    struct mpqc_where where = {.tensor = value->name, .offset = -1};
    const char *problem = mpqc_type_problem(&value->type);
    if (problem) return MPQC_FAIL(v->cx, BUG, where, "value %u: %s", id, problem);
    if (value->data && value->def != MPQC_NONE)
        return MPQC_FAIL(v->cx, BUG, where, "value %u is a constant and a node's result", id);
    bool groups = value->type.quant && value->type.quant->groups;
    if (groups && value->data && !mpqc_groups_hold(&value->type, value->data))
        return MPQC_FAIL(v->cx, BUG, where, "value %u: a weight is no product of its group's "
                         "factor and a code", id);
    if (groups && !value->data)
        return MPQC_FAIL(v->cx, BUG, where, "value %u is no constant, but in groups", id);
    if (value->type.dtype == MPQC_DT_I1) MPQC_TRY(check_signs(v, id));
    if (value->data) v->defined[id] = DEFINED;
    return MPQC_OK;
}

static mpqc_status check_values(struct verifier *v)
{
    const struct mpqc_graph *g = v->g;
    for (mpqc_vid id = 0; id < g->n_values; id++) MPQC_TRY(check_source(v, id));
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        mpqc_vid id = g->inputs[i];
        if (id >= g->n_values) return GRAPH_BUG(v, "input %u is no value", i);
        if (g->values[id].data || g->values[id].def != MPQC_NONE || v->defined[id])
            return GRAPH_BUG(v, "input %u is defined otherwise, too", i);
        v->defined[id] = DEFINED;
    }
    return MPQC_OK;
}

/* ---- nodes ---- */

static mpqc_status check_attrs(struct verifier *v, const struct mpqc_node *n)
{
    for (uint32_t i = 0; i < n->n_attr; i++) {
        const struct mpqc_attr *a = &n->attr[i];
        if ((unsigned)a->key >= MPQC_ATTR_COUNT) return NODE_BUG(v, n, "unknown attribute");
        if (i > 0 && n->attr[i - 1].key >= a->key)
            return NODE_BUG(v, n, "attribute '%s' is not in order", mpqc_attr_text[a->key]);
        if (mpqc_attr_kinds[a->key] == MPQC_AK_STRING && !a->s)
            return NODE_BUG(v, n, "attribute '%s' has no text", mpqc_attr_text[a->key]);
        if (mpqc_attr_kinds[a->key] == MPQC_AK_INTS && a->count && !a->ints)
            return NODE_BUG(v, n, "attribute '%s' has no integers", mpqc_attr_text[a->key]);
    }
    return MPQC_OK;
}

static mpqc_status check_inputs(struct verifier *v, const struct mpqc_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == MPQC_NONE) continue;
        if (n->in[i] >= v->g->n_values) return NODE_BUG(v, n, "input %u is no value", i);
        if (!v->defined[n->in[i]])
            return NODE_BUG(v, n, "input %u (value %u) is not defined before", i, n->in[i]);
    }
    return MPQC_OK;
}

static mpqc_status check_outputs(struct verifier *v, mpqc_nid id)
{
    const struct mpqc_node *n = &v->g->nodes[id];
    if (n->n_out != mpqc_ops[n->op].n_out) return NODE_BUG(v, n, "%u results", n->n_out);
    for (uint32_t i = 0; i < n->n_out; i++) {
        mpqc_vid out = n->out[i];
        if (out >= v->g->n_values) return NODE_BUG(v, n, "result %u is no value", i);
        if (v->defined[out]) return NODE_BUG(v, n, "value %u is defined twice", out);
        if (v->g->values[out].def != id || v->g->values[out].def_slot != i)
            return NODE_BUG(v, n, "value %u does not know its node", out);
        v->defined[out] = DEFINED;
    }
    return MPQC_OK;
}

/* Inference must give the recorded types again. */
static mpqc_status check_types(struct verifier *v, const struct mpqc_node *n)
{
    struct mpqc_type type[MPQC_MAX_OUTPUTS];
    if (mpqc_node_infer(v->cx, &v->shadow, n, type) != MPQC_OK)
        return NODE_BUG(v, n, "type inference rejects '%s'", mpqc_ops[n->op].text);
    for (uint32_t i = 0; i < n->n_out; i++)
        if (!mpqc_type_equal(&type[i], &v->g->values[n->out[i]].type))
            return NODE_BUG(v, n, "the recorded type of value %u is not the inferred one",
                            n->out[i]);
    return MPQC_OK;
}

/* ---- stages ---- */

static bool is_listed(const mpqc_vid *list, uint32_t n, mpqc_vid v)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i] == v) return true;
    return false;
}

static mpqc_status check_float_stage(struct verifier *v, const struct mpqc_node *n)
{
    const struct mpqc_op_info *info = &mpqc_ops[n->op];
    if (info->traits & MPQC_T_INTEGER)
        return NODE_BUG(v, n, "'%s' has no place in a float graph", info->text);
    if (info->traits & MPQC_T_SHAPE)
        return NODE_BUG(v, n, "'%s' should have been folded", info->text);
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != MPQC_NONE && v->g->values[n->in[i]].type.quant)
            return NODE_BUG(v, n, "input %u is quantised in a float graph", i);
    return MPQC_OK;
}

/* Float may only be crossed at the border: quantize of a network input, dequantize
 * to a network output. */
static mpqc_status check_integer_stage(struct verifier *v, const struct mpqc_node *n)
{
    const struct mpqc_graph *g = v->g;
    if (n->op == MPQC_OP_QUANTIZE && is_listed(g->inputs, g->n_inputs, n->in[0])) return MPQC_OK;
    if (n->op == MPQC_OP_DEQUANTIZE && is_listed(g->outputs, g->n_outputs, n->out[0]))
        return MPQC_OK;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != MPQC_NONE && g->values[n->in[i]].type.dtype == MPQC_DT_F32)
            return NODE_BUG(v, n, "'%s' reads f32 in an integer graph", mpqc_ops[n->op].text);
    for (uint32_t i = 0; i < n->n_out; i++)
        if (g->values[n->out[i]].type.dtype == MPQC_DT_F32)
            return NODE_BUG(v, n, "'%s' gives f32 in an integer graph", mpqc_ops[n->op].text);
    return MPQC_OK;
}

static mpqc_status check_stage(struct verifier *v, const struct mpqc_node *n)
{
    switch (v->mode) {
    case MPQC_VERIFY_FLOAT: return check_float_stage(v, n);
    case MPQC_VERIFY_INTEGER: return check_integer_stage(v, n);
    case MPQC_VERIFY_MIXED: break;
    }
    return MPQC_OK;
}

/* ---- the whole ---- */

static mpqc_status check_node(struct verifier *v, mpqc_nid id)
{
    const struct mpqc_node *n = &v->g->nodes[id];
    if ((unsigned)n->op >= MPQC_OP_COUNT) return NODE_BUG(v, n, "unknown operator");
    if (n->dead) return NODE_BUG(v, n, "a dead node stands in the order");
    if (!n->loc.node)
        return NODE_BUG(v, n, "a '%s' does not say where it comes from", mpqc_ops[n->op].text);
    MPQC_TRY(check_attrs(v, n));
    MPQC_TRY(check_inputs(v, n));
    MPQC_TRY(check_outputs(v, id));
    MPQC_TRY(check_types(v, n));
    return check_stage(v, n);
}

static mpqc_status check_order(struct verifier *v)
{
    const struct mpqc_graph *g = v->g;
    for (uint32_t i = 0; i < g->n_order; i++) {
        mpqc_nid id = g->order[i];
        if (id >= g->n_nodes) return GRAPH_BUG(v, "the order names node %u of %u", id, g->n_nodes);
        if (v->ordered[id]) return NODE_BUG(v, &g->nodes[id], "stands twice in the order");
        v->ordered[id] = 1;
        MPQC_TRY(check_node(v, id));
    }
    for (mpqc_nid id = 0; id < g->n_nodes; id++)
        if (!g->nodes[id].dead && !v->ordered[id])
            return NODE_BUG(v, &g->nodes[id], "lives, but is missing from the order");
    for (uint32_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i] >= g->n_values || !v->defined[g->outputs[i]])
            return GRAPH_BUG(v, "output %u is not defined", i);
    return MPQC_OK;
}

mpqc_status mpqc_verify(struct mpqc_cx *cx, const struct mpqc_graph *g, enum mpqc_verify_mode mode)
{
    struct verifier v = {.cx = cx, .g = g, .mode = mode, .shadow = *g};
    if (g->arena.failed) return MPQC_OOM(cx);
    mpqc_arena_init(&v.shadow.arena, cx->allocator);
    v.defined = mpqc_arena_alloc(&v.shadow.arena, g->n_values);
    v.ordered = mpqc_arena_alloc(&v.shadow.arena, g->n_nodes);
    mpqc_status status = v.shadow.arena.failed ? MPQC_OOM(cx) : check_values(&v);
    if (status == MPQC_OK) status = check_order(&v);
    mpqc_arena_release(&v.shadow.arena);
    return status;
}
