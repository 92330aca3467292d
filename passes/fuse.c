/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Pass `fuse`: which nodes form one kernel; forms in ir/plan.h.
 *
 * The integer graph is in micro-steps already, and grouping them changes no result:
 * a group is a core and the chain behind it, as long as each value of the chain has
 * one reader.  A value with several readers must be stored, so it ends its kernel;
 * only 8-bit values, i16 behind a narrow, and the i16 or i32 ones that leave the network, are
 * stored.
 *
 * requires: an integer graph; keeps: everything but node->kernel.
 */
#include "passes/plan.h"

struct fuser {
    const struct mpqc_graph *g;
    uint32_t *uses;
    mpqc_nid *user;       /* by value: the only node that reads it, or MPQC_NONE */
    uint32_t next;        /* next kernel number */
};

/* The node that alone reads v, if it is an `op`. */
static mpqc_nid follows(const struct fuser *f, mpqc_vid v, enum mpqc_op op)
{
    mpqc_nid n = f->user[v];
    return n != MPQC_NONE && mpqc_node_at(f->g, n)->op == op ? n : MPQC_NONE;
}

static mpqc_vid out_of(const struct fuser *f, mpqc_nid n)
{
    return mpqc_node_at(f->g, n)->out[0];
}

static void take(struct fuser *f, mpqc_nid n, uint32_t kernel)
{
    mpqc_node_at(f->g, n)->kernel = kernel;
}

/* narrow and lut behind v. */
static void take_tail(struct fuser *f, mpqc_vid v, uint32_t kernel)
{
    static const enum mpqc_op tail[] = {MPQC_OP_NARROW, MPQC_OP_LUT};
    for (uint32_t i = 0; i < MPQC_LEN(tail); i++) {
        mpqc_nid n = follows(f, v, tail[i]);
        if (n == MPQC_NONE) return;
        take(f, n, kernel);
        v = out_of(f, n);
    }
}

/* What else an add reads besides v: a rescale that belongs to it, an i16 constant
 * (*rescale is MPQC_NONE), or something that must have been stored (false). */
static bool other_summand(const struct fuser *f, const struct mpqc_node *add, mpqc_vid v,
                          mpqc_nid *rescale)
{
    mpqc_vid other = add->in[0] == v ? add->in[1] : add->in[0];
    *rescale = MPQC_NONE;
    if (other == v) return false;
    if (mpqc_is_const(f->g, other)) return true;
    mpqc_nid def = mpqc_value_at(f->g, other)->def;
    if (def == MPQC_NONE || f->uses[other] != 1) return false;
    if (mpqc_node_at(f->g, def)->op != MPQC_OP_RESCALE) return false;
    *rescale = def;
    return true;
}

/* Takes `add` behind v; gives its result, or v when it cannot be taken. */
static mpqc_vid take_add(struct fuser *f, mpqc_vid v, uint32_t kernel)
{
    mpqc_nid rescale, add = follows(f, v, MPQC_OP_ADD);
    if (add == MPQC_NONE || mpqc_node_at(f->g, add)->kernel != MPQC_NONE) return v;
    if (!other_summand(f, mpqc_node_at(f->g, add), v, &rescale)) return v;
    take(f, add, kernel);
    if (rescale != MPQC_NONE) take(f, rescale, kernel);
    return out_of(f, add);
}

/* ---- forms --------------------------------------------------------------------------- */

/* Accumulates i32 from operands of 8 or 16 bits. */
static bool is_linear_core(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    switch (n->op) {
    case MPQC_OP_CONV:
    case MPQC_OP_MATMUL:
    case MPQC_OP_SUMPOOL:
    case MPQC_OP_REDUCE_SUM:
    case MPQC_OP_MUL: {
        const struct mpqc_type *t = &mpqc_value_at(g, n->out[0])->type;
        return t->dtype == MPQC_DT_I32 && t->quant;
    }
    default: return false;
    }
}

static void fuse_linear(struct fuser *f, mpqc_nid id, uint32_t kernel)
{
    take(f, id, kernel);
    mpqc_nid requant = follows(f, out_of(f, id), MPQC_OP_REQUANT);
    if (requant == MPQC_NONE) return;
    take(f, requant, kernel);
    take_tail(f, take_add(f, out_of(f, requant), kernel), kernel);
}

static void fuse_pointwise(struct fuser *f, mpqc_nid id, uint32_t kernel)
{
    take(f, id, kernel);
    take_tail(f, take_add(f, out_of(f, id), kernel), kernel);
}

/* A rescale that will be the residual of a linear core is taken by that core. */
static bool is_residual(const struct fuser *f, mpqc_nid id)
{
    mpqc_nid add = follows(f, out_of(f, id), MPQC_OP_ADD);
    if (add == MPQC_NONE) return false;
    const struct mpqc_node *n = mpqc_node_at(f->g, add);
    mpqc_vid other = n->in[0] == out_of(f, id) ? n->in[1] : n->in[0];
    const struct mpqc_node *def = mpqc_def(f->g, other);
    if (!def || def->op != MPQC_OP_REQUANT || f->uses[other] != 1) return false;
    const struct mpqc_node *core = mpqc_def(f->g, def->in[0]);
    return core && is_linear_core(f->g, core) && f->uses[def->in[0]] == 1;
}

static bool index_values(struct fuser *f, struct mpqc_arena *a)
{
    const struct mpqc_graph *g = f->g;
    f->uses = mpqc_graph_uses(g, a);
    f->user = MPQC_NEW_ARRAY(a, mpqc_nid, g->n_values);
    if (!f->uses || !f->user) return false;
    for (mpqc_vid v = 0; v < g->n_values; v++) f->user[v] = MPQC_NONE;
    for (uint32_t i = 0; i < g->n_order; i++) {
        struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        n->kernel = MPQC_NONE;
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != MPQC_NONE && f->uses[n->in[k]] == 1) f->user[n->in[k]] = g->order[i];
    }
    return true;
}

mpqc_status mpqc_pass_fuse(struct mpqc_pass_cx *p, struct mpqc_graph *g)
{
    struct fuser f = {.g = g};
    if (!index_values(&f, &p->scratch)) return MPQC_OOM(p->cx);
    for (uint32_t i = 0; i < g->n_order; i++) { /* linear cores first: they own residuals */
        mpqc_nid id = g->order[i];
        if (is_linear_core(g, mpqc_node_at(g, id))) fuse_linear(&f, id, f.next++);
    }
    for (uint32_t i = 0; i < g->n_order; i++) {
        mpqc_nid id = g->order[i];
        struct mpqc_node *n = mpqc_node_at(g, id);
        if (n->kernel != MPQC_NONE) continue;
        if (n->op == MPQC_OP_RESCALE && !is_residual(&f, id))
            fuse_pointwise(&f, id, f.next++);
        else
            take(&f, id, f.next++);
    }
    return MPQC_OK;
}
