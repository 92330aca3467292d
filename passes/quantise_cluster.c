/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Clusters: which float nodes become one integer kernel.  See quantise.h.
 *
 * The rules, in this order:
 *  1. An add of two activations takes in a core that only it reads (the later one
 *     when both qualify), so the core's result never leaves registers: the residual
 *     pattern of ResNets.
 *  2. A core, sum or table takes in the unary nodes behind it, as long as each
 *     value has one reader.
 *  3. Everything else is a cluster of its own.
 */
#include "passes/quantise.h"

#include <math.h>

static const enum mpqc_rule rules[MPQC_OP_COUNT] = {
#define RULE(op, rule) [MPQC_OP_##op] = MPQC_RULE_##rule,
#include "passes/quantise_rules.def"
#undef RULE
};

/* ---- the rule of one node ---------------------------------------------------- */

bool mpqc_const_scalar(const struct mpqc_graph *g, mpqc_vid v, float *value)
{
    if (!mpqc_is_const(g, v)) return false;
    const struct mpqc_value *c = mpqc_value_at(g, v);
    int64_t n = mpqc_type_count(&c->type);
    if (c->type.dtype != MPQC_DT_F32 || n < 1) return false;
    const float *x = c->data;
    for (int64_t i = 1; i < n; i++)
        if (x[i] != x[0]) return false;
    *value = x[0];
    return true;
}

double mpqc_const_peak(const struct mpqc_graph *g, mpqc_vid v)
{
    const struct mpqc_value *c = mpqc_value_at(g, v);
    double peak = 0;
    for (int64_t i = 0; i < mpqc_type_count(&c->type); i++)
        peak = fmax(peak, fabs((double)((const float *)c->data)[i]));
    return peak;
}

mpqc_vid mpqc_other_input(const struct mpqc_node *n, mpqc_vid v)
{
    return n->in[0] == v ? n->in[1] : n->in[0];
}

/* One number per channel (last axis) of x. */
static bool is_per_channel(const struct mpqc_graph *g, mpqc_vid c, mpqc_vid x)
{
    const struct mpqc_type *t = &mpqc_value_at(g, c)->type;
    const struct mpqc_type *xt = &mpqc_value_at(g, x)->type;
    if (xt->rank == 0 || t->rank == 0 || t->rank > xt->rank) return false;
    int64_t channels = xt->dims[xt->rank - 1];
    return t->dims[t->rank - 1] == channels && mpqc_type_count(t) == channels;
}

static enum mpqc_rule binary_rule(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    enum mpqc_rule base = rules[n->op];
    mpqc_vid a = n->in[0], b = n->in[1];
    const struct mpqc_type *out = &mpqc_value_at(g, n->out[0])->type;
    float unused;
    if (a == b) return MPQC_RULE_UNARY;
    if (!mpqc_is_const(g, a) && !mpqc_is_const(g, b)) return base;
    mpqc_vid x = mpqc_is_const(g, a) ? b : a, c = mpqc_other_input(n, x);
    if (!mpqc_type_same_shape(&mpqc_value_at(g, x)->type, out)) return base;
    if (mpqc_const_scalar(g, c, &unused)) return MPQC_RULE_UNARY;
    bool affine = n->op == MPQC_OP_ADD || n->op == MPQC_OP_SUB || n->op == MPQC_OP_MUL ||
                  (n->op == MPQC_OP_DIV && c == b);
    return affine && is_per_channel(g, c, x) ? MPQC_RULE_CHANNEL : base;
}

/* Only input 0 is an activation, and that one is. */
static bool rest_is_const(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    for (uint32_t i = 1; i < n->n_in; i++)
        if (n->in[i] != MPQC_NONE && !mpqc_is_const(g, n->in[i])) return false;
    return !mpqc_is_const(g, n->in[0]);
}

static bool all_float(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == MPQC_NONE || mpqc_is_const(g, n->in[i])) continue;
        if (mpqc_value_at(g, n->in[i])->type.dtype != MPQC_DT_F32) return false;
    }
    return n->n_out == 1 && mpqc_value_at(g, n->out[0])->type.dtype == MPQC_DT_F32;
}

enum mpqc_rule mpqc_quantise_rule(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    enum mpqc_rule rule = rules[n->op];
    if (!all_float(g, n)) return MPQC_RULE_NONE;
    if (mpqc_ops[n->op].traits & MPQC_T_BINARY) return binary_rule(g, n);
    bool many = n->op == MPQC_OP_CONCAT;
    if (!many && !rest_is_const(g, n)) return MPQC_RULE_NONE;
    if (n->op == MPQC_OP_PAD && !isfinite(mpqc_attr_float_or(n, MPQC_ATTR_ALPHA, 0)))
        return MPQC_RULE_NONE;
    return rule;
}

/* ---- building clusters ---------------------------------------------------------- */

struct builder {
    struct mpqc_cx *cx;
    const struct mpqc_graph *g;
    struct mpqc_arena *arena;
    struct mpqc_clusters *out;
    enum mpqc_rule *rule;   /* by node */
    uint32_t *position;     /* by node, in order */
    mpqc_nid *fused_add;    /* by node: the add that takes it in, or MPQC_NONE */
    bool *is_output;        /* by value */
};

static bool is_core(enum mpqc_rule rule)
{
    return rule == MPQC_RULE_LINEAR || rule == MPQC_RULE_CHANNEL || rule == MPQC_RULE_MUL ||
           rule == MPQC_RULE_MEAN || rule == MPQC_RULE_AVGPOOL;
}

static bool index_values(struct builder *b)
{
    const struct mpqc_graph *g = b->g;
    struct mpqc_clusters *o = b->out;
    o->uses = mpqc_graph_uses(g, b->arena);
    o->user = MPQC_NEW_ARRAY(b->arena, mpqc_nid, g->n_values);
    o->needs_range = MPQC_NEW_ARRAY(b->arena, bool, g->n_values);
    b->is_output = MPQC_NEW_ARRAY(b->arena, bool, g->n_values);
    o->of_node = MPQC_NEW_ARRAY(b->arena, uint32_t, g->n_nodes);
    o->c = MPQC_NEW_ARRAY(b->arena, struct mpqc_cluster, g->n_order);
    b->rule = MPQC_NEW_ARRAY(b->arena, enum mpqc_rule, g->n_nodes);
    b->position = MPQC_NEW_ARRAY(b->arena, uint32_t, g->n_nodes);
    b->fused_add = MPQC_NEW_ARRAY(b->arena, mpqc_nid, g->n_nodes);
    if (b->arena->failed) return false;
    for (mpqc_vid v = 0; v < g->n_values; v++) o->user[v] = MPQC_NONE;
    for (mpqc_nid n = 0; n < g->n_nodes; n++) o->of_node[n] = b->fused_add[n] = MPQC_NONE;
    for (uint32_t i = 0; i < g->n_outputs; i++) b->is_output[g->outputs[i]] = true;
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        b->rule[g->order[i]] = mpqc_quantise_rule(g, n);
        b->position[g->order[i]] = i;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != MPQC_NONE && o->uses[n->in[k]] == 1) o->user[n->in[k]] = g->order[i];
    }
    return true;
}

/* Whether `add` may take in the core that makes v. */
static bool can_fuse(const struct builder *b, const struct mpqc_node *add, mpqc_vid v)
{
    const struct mpqc_graph *g = b->g;
    mpqc_nid def = mpqc_value_at(g, v)->def;
    const struct mpqc_type *out = &mpqc_value_at(g, add->out[0])->type;
    const struct mpqc_type *other = &mpqc_value_at(g, mpqc_other_input(add, v))->type;
    if (def == MPQC_NONE || b->out->uses[v] != 1 || !is_core(b->rule[def])) return false;
    const struct mpqc_type *t = &mpqc_value_at(g, v)->type;
    if (!mpqc_type_same_shape(t, out) || !mpqc_type_same_shape(other, out)) return false;
    /* other ranks are reshaped around the convolution that computes them */
    return b->rule[def] != MPQC_RULE_CHANNEL || out->rank == 4;
}

static void choose_fused_adds(struct builder *b)
{
    const struct mpqc_graph *g = b->g;
    for (uint32_t i = 0; i < g->n_order; i++) {
        mpqc_nid id = g->order[i];
        const struct mpqc_node *n = mpqc_node_at(g, id);
        if (b->rule[id] != MPQC_RULE_SUM || mpqc_is_const(g, n->in[0]) || mpqc_is_const(g, n->in[1]))
            continue;
        mpqc_nid best = MPQC_NONE;
        for (uint32_t k = 0; k < 2; k++) {
            mpqc_nid def = mpqc_value_at(g, n->in[k])->def;
            if (!can_fuse(b, n, n->in[k])) continue;
            if (best == MPQC_NONE || b->position[def] > b->position[best]) best = def;
        }
        if (best != MPQC_NONE) b->fused_add[best] = id;
    }
}

static bool is_clamp(const struct mpqc_node *n)
{
    return n->op == MPQC_OP_RELU || n->op == MPQC_OP_CLIP;
}

static void follow_chain(struct builder *b, struct mpqc_cluster *c, mpqc_vid v, uint32_t id)
{
    const struct mpqc_graph *g = b->g;
    uint32_t length = 0;
    for (mpqc_vid w = v; b->out->user[w] != MPQC_NONE;) {
        mpqc_nid n = b->out->user[w];
        if (b->rule[n] != MPQC_RULE_UNARY) break;
        w = mpqc_node_at(g, n)->out[0];
        length++;
    }
    mpqc_nid *chain = MPQC_NEW_ARRAY(b->arena, mpqc_nid, c->n_chain + length);
    if (!chain) return;
    for (uint32_t i = 0; i < c->n_chain; i++) chain[i] = c->chain[i];
    for (uint32_t i = 0; i < length; i++) {
        mpqc_nid n = b->out->user[v];
        chain[c->n_chain++] = n;
        b->out->of_node[n] = id;
        c->last = n;
        v = mpqc_node_at(g, n)->out[0];
    }
    c->chain = chain;
    c->out = v;
}

/* Read by graph outputs only, directly or reshaped. */
static bool only_output(const struct builder *b, mpqc_vid v)
{
    for (;;) {
        if (b->out->uses[v] != 1) return false;
        if (b->is_output[v]) return true;
        const struct mpqc_node *n = mpqc_node_at(b->g, b->out->user[v]);
        if (n->op != MPQC_OP_RESHAPE) return false;
        v = n->out[0];
    }
}

static void finish(struct builder *b, struct mpqc_cluster *c)
{
    const struct mpqc_graph *g = b->g;
    c->pre = c->sum;
    if (is_core(c->rule) || c->rule == MPQC_RULE_SUM) {
        while (c->n_clamp < c->n_chain && is_clamp(mpqc_node_at(g, c->chain[c->n_clamp])))
            c->pre = mpqc_node_at(g, c->chain[c->n_clamp++])->out[0];
        c->wide = is_core(c->rule) && c->n_chain == 0 && only_output(b, c->out);
    }
    if (c->rule == MPQC_RULE_SOFTMAX) c->wide = only_output(b, c->out);
    bool *needs = b->out->needs_range;
    if (c->rule == MPQC_RULE_SAME || c->rule == MPQC_RULE_JOIN || c->rule == MPQC_RULE_SOFTMAX)
        return;
    needs[c->out] = true;
    if (is_core(c->rule) || c->rule == MPQC_RULE_SUM) needs[c->pre] = true;
    if (c->add != MPQC_NONE) needs[mpqc_node_at(g, c->core)->out[0]] = true;
}

static void build_one(struct builder *b, mpqc_nid id)
{
    const struct mpqc_graph *g = b->g;
    struct mpqc_cluster *c = &b->out->c[b->out->n];
    *c = (struct mpqc_cluster){.rule = b->rule[id], .core = id, .last = id, .add = MPQC_NONE};
    c->sum = c->out = mpqc_node_at(g, id)->out[0];
    b->out->of_node[id] = b->out->n;
    if (b->fused_add[id] != MPQC_NONE) {
        c->add = c->last = b->fused_add[id];
        c->sum = c->out = mpqc_node_at(g, c->add)->out[0];
        b->out->of_node[c->add] = b->out->n;
    }
    if (c->rule == MPQC_RULE_UNARY) {
        c->chain = MPQC_NEW(b->arena, mpqc_nid);
        if (c->chain) c->chain[c->n_chain++] = id;
    }
    if (is_core(c->rule) || c->rule == MPQC_RULE_SUM || c->rule == MPQC_RULE_UNARY)
        follow_chain(b, c, c->out, b->out->n);
    finish(b, c);
    b->out->n++;
}

/* Cores come before the adds and chains that they take in, so the first visit of a
 * cluster is at its core. */
static void build_all(struct builder *b)
{
    const struct mpqc_graph *g = b->g;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const struct mpqc_type *t = &mpqc_value_at(g, g->inputs[i])->type;
        b->out->needs_range[g->inputs[i]] = t->dtype == MPQC_DT_F32;
    }
    for (uint32_t i = 0; i < g->n_order; i++) {
        mpqc_nid id = g->order[i];
        const struct mpqc_node *n = mpqc_node_at(g, id);
        if (b->out->of_node[id] != MPQC_NONE) continue;
        if (b->rule[id] != MPQC_RULE_NONE) {
            build_one(b, id);
            continue;
        }
        for (uint32_t k = 0; k < n->n_out; k++)
            b->out->needs_range[n->out[k]] =
                mpqc_value_at(g, n->out[k])->type.dtype == MPQC_DT_F32;
    }
}

mpqc_status mpqc_quantise_clusters(struct mpqc_cx *cx, const struct mpqc_graph *g,
                                   struct mpqc_arena *arena, struct mpqc_clusters *out)
{
    *out = (struct mpqc_clusters){0};
    struct builder b = {.cx = cx, .g = g, .arena = arena, .out = out};
    if (!index_values(&b)) return MPQC_OOM(cx);
    choose_fused_adds(&b);
    build_all(&b);
    return arena->failed ? MPQC_OOM(cx) : MPQC_OK;
}

/* ---- chains of unary functions ---------------------------------------------------- */

mpqc_status mpqc_chain_eval(struct mpqc_cx *cx, const struct mpqc_graph *g, const mpqc_nid *chain,
                            uint32_t n_chain, float *x, uint32_t n)
{
    const int64_t dims[1] = {n}, one[1] = {1};
    float *y = malloc(n * sizeof *y);
    if (!y) return MPQC_OOM(cx);
    for (uint32_t i = 0; i < n_chain; i++) {
        const struct mpqc_node *node = mpqc_node_at(g, chain[i]);
        struct mpqc_tensor arg = {mpqc_type_make(MPQC_DT_F32, 1, dims), x};
        struct mpqc_tensor result = {arg.type, y}, constant[2];
        const struct mpqc_tensor *in[2] = {&arg, &arg};
        float value[2];
        for (uint32_t k = 0; k < node->n_in && k < 2; k++) {
            if (!mpqc_const_scalar(g, node->in[k], &value[k])) continue;
            constant[k] = (struct mpqc_tensor){mpqc_type_make(MPQC_DT_F32, 1, one), &value[k]};
            in[k] = &constant[k];
        }
        struct mpqc_tensor *outs[1] = {&result};
        mpqc_ops[node->op].ref(node, in, outs);
        memcpy(x, y, n * sizeof *x);
    }
    free(y);
    return MPQC_OK;
}

void mpqc_chain_limits(const struct mpqc_graph *g, const mpqc_nid *chain, uint32_t n_clamp,
                       double *lo, double *hi)
{
    *lo = -INFINITY;
    *hi = INFINITY;
    for (uint32_t i = 0; i < n_clamp; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, chain[i]);
        double a = 0, b = INFINITY;
        if (n->op == MPQC_OP_CLIP) {
            a = mpqc_attr_float_or(n, MPQC_ATTR_MIN, -INFINITY);
            b = mpqc_attr_float_or(n, MPQC_ATTR_MAX, INFINITY);
        }
        *lo = fmin(fmax(*lo, a), b);
        *hi = fmin(fmax(*hi, a), b);
    }
}
