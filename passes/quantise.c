/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Pass `quantise`: float graph and profile -> integer graph.
 *
 * Uniform affine quantisation with dyadic rescaling, after Jacob et al.,
 * "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
 * Only Inference" (2018), section 2, and HAWQ-V3 (Yao et al., 2021), section 3:
 *   activations  u8, per tensor, with zero point; the range always includes 0; those of
 *                fewer bits keep the container: 4-bit ones use 0..15, 2- and 1-bit ones are
 *                u2 and u1; those of a layer with 16-bit inputs are i16 with zero point 0,
 *                see bound_wide
 *   weights      i8 in [-127, 127], or fewer bits, symmetric, per output channel; of 1 bit:
 *                -1 and +1
 *   bias         i32 at scale_x * scale_w
 * and every rescaling in the form of ir/dyadic.h.
 *
 * Steps: clusters (quantise_cluster.c), parameters (quantise_params.c), emission in
 * the order of the float graph (quantise_emit.c, quantise_weights.c,
 * quantise_epilogue.c), inputs and outputs (here).  New nodes are appended to the
 * graph; the float ones lose their readers, and the graph is rewritten without them.
 *
 * requires: profile; keeps: names of inputs, outputs and stored values, locs.
 */
#include "passes/quantise.h"
#include "passes/replay.h"

static mpqc_status check_options(struct mpqc_quantiser *q)
{
    const struct mpqc_options *o = q->p->options;
    unsigned w = o->weight_bits, a = o->activation_bits;
    bool known = w == 8 || (w >= 1 && w <= 6);
    if (known && (a == 8 || a == 4 || a == 2 || a == 1)) return MPQC_OK;
    return MPQC_FAIL(q->cx, INFEASIBLE, MPQC_NOWHERE,
                     "weights of %u and activations of %u bits are not supported; -wbits is 1, 2, "
                     "3, 4, 5, 6 or 8, -abits is 1, 2, 4 or 8", w, a);
}

/* Weights below 8 bits are rounded for the inputs that their layers will have. */
static mpqc_status prepare_rounding(struct mpqc_quantiser *q)
{
    const struct mpqc_options *o = q->p->options;
    for (uint32_t i = 0; i < q->clusters.n; i++)
        q->n_low += mpqc_cluster_is_low(q, &q->clusters.c[i]);
    if (q->n_low == 0 || (o->rounding == MPQC_ROUND_NEAREST && !o->bias_correct)) return MPQC_OK;
    if (q->p->data && q->p->data->count > 0) return mpqc_replay_begin(q, &q->replay);
    mpqc_warn(q->cx, MPQC_NOWHERE, "without calibration samples weights below 8 bits are rounded "
              "to nearest, which loses accuracy; give -calib as well");
    return MPQC_OK;
}

/* ---- operators without integer form ---------------------------------------------------- */

static uint32_t count_islands(const struct mpqc_quantiser *q)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < q->g->n_order; i++)
        n += q->clusters.of_node[q->g->order[i]] == MPQC_NONE;
    return n;
}

/* One error that names them all. */
static mpqc_status refuse_islands(struct mpqc_quantiser *q, uint32_t n)
{
    struct mpqc_buf names;
    mpqc_buf_init(&names);
    for (uint32_t i = 0, seen = 0; i < q->g->n_order; i++) {
        const struct mpqc_node *node = mpqc_node_at(q->g, q->g->order[i]);
        if (q->clusters.of_node[q->g->order[i]] != MPQC_NONE) continue;
        mpqc_buf_printf(&names, "%s'%s' (%s)", seen++ ? ", " : "", node->loc.node,
                        node->loc.op ? node->loc.op : mpqc_ops[node->op].text);
    }
    mpqc_status status = MPQC_FAIL(q->cx, UNSUPPORTED, MPQC_NOWHERE,
                                   "%u operator%s no integer form: %s; -allow-float leaves %s in "
                                   "floating point", n, n == 1 ? " has" : "s have",
                                   names.failed ? "?" : names.data, n == 1 ? "it" : "them");
    mpqc_buf_release(&names);
    return status;
}

static mpqc_status list_islands(struct mpqc_quantiser *q, uint32_t n)
{
    struct mpqc_arena *keep = &q->p->keep;
    struct mpqc_float_island *list = MPQC_NEW_ARRAY(keep, struct mpqc_float_island, n);
    if (!list) return MPQC_OOM(q->cx);
    uint32_t k = 0;
    for (uint32_t i = 0; i < q->g->n_order; i++) {
        const struct mpqc_node *node = mpqc_node_at(q->g, q->g->order[i]);
        if (q->clusters.of_node[q->g->order[i]] != MPQC_NONE) continue;
        list[k].node = mpqc_arena_strdup(keep, node->loc.node);
        list[k++].op = mpqc_arena_strdup(keep, node->loc.op ? node->loc.op
                                                            : mpqc_ops[node->op].text);
    }
    q->p->islands = list;
    q->p->n_islands = n;
    return keep->failed ? MPQC_OOM(q->cx) : MPQC_OK;
}

static mpqc_status emit_island(struct mpqc_quantiser *q, const struct mpqc_node *n)
{
    mpqc_vid in[MPQC_MAX_INPUTS], out;
    struct mpqc_attrs attrs = {.n = n->n_attr};
    MPQC_ASSERT(n->n_attr <= MPQC_MAX_ATTRS);
    for (uint32_t i = 0; i < n->n_attr; i++) attrs.a[i] = n->attr[i];
    q->loc = n->loc;
    for (uint32_t i = 0; i < n->n_in; i++) {
        in[i] = n->in[i];
        if (in[i] != MPQC_NONE) MPQC_TRY(mpqc_as_float(q, n->in[i], &in[i]));
    }
    MPQC_TRY(mpqc_node_add(q->cx, q->g, n->op, in, n->n_in, &attrs, q->loc, &out));
    for (uint32_t i = 0; i < n->n_out; i++) {
        q->as_float[n->out[i]] = out + i;
        mpqc_value_at(q->g, out + i)->name = mpqc_value_at(q->g, n->out[i])->name;
    }
    return MPQC_OK;
}

/* ---- boundary --------------------------------------------------------------------------- */

/* -io=int: the inputs are the quantised values themselves. */
static mpqc_status integer_inputs(struct mpqc_quantiser *q)
{
    struct mpqc_graph *g = q->g;
    uint32_t n = g->n_inputs;
    const mpqc_vid *old = g->inputs;
    g->inputs = NULL;
    g->n_inputs = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct mpqc_value v = *mpqc_value_at(g, old[i]);
        struct mpqc_type t = v.type;
        if (t.dtype == MPQC_DT_F32) {
            struct mpqc_params p = mpqc_params_of(q, old[i]);
            t.dtype = mpqc_params_dtype(p);
            t.quant = mpqc_quant_tensor(g, p.scale, p.zero);
        }
        mpqc_vid made = mpqc_graph_input(g, v.name, t);
        if (made == MPQC_NONE) return MPQC_OOM(q->cx);
        *(t.quant ? &q->as_int[old[i]] : &q->as_float[old[i]]) = made;
    }
    return MPQC_OK;
}

static mpqc_status boundary_in(struct mpqc_quantiser *q)
{
    if (q->p->options->int_io) return integer_inputs(q);
    for (uint32_t i = 0; i < q->g->n_inputs; i++) q->as_float[q->g->inputs[i]] = q->g->inputs[i];
    return MPQC_OK;
}

static mpqc_status boundary_out(struct mpqc_quantiser *q)
{
    for (uint32_t i = 0; i < q->g->n_outputs; i++) {
        mpqc_vid old = q->g->outputs[i], made;
        const struct mpqc_value v = *mpqc_value_at(q->g, old);
        bool is_float = v.type.dtype == MPQC_DT_F32;
        q->loc = v.def == MPQC_NONE ? (struct mpqc_loc){"output", "", -1}
                                    : mpqc_node_at(q->g, v.def)->loc;
        if (q->p->options->int_io && is_float && !mpqc_is_const(q->g, old)) {
            MPQC_TRY(mpqc_as_int(q, old, NULL, &made));
        } else {
            MPQC_TRY(mpqc_as_float(q, old, &made));
            if (made != old && q->as_int[old] != MPQC_NONE)
                mpqc_value_at(q->g, q->as_int[old])->name = NULL;
        }
        mpqc_value_at(q->g, made)->name = v.name;
        q->g->outputs[i] = made;
    }
    return MPQC_OK;
}

/* ---- the pass ------------------------------------------------------------------------------ */

static mpqc_status emit_all(struct mpqc_quantiser *q)
{
    MPQC_TRY(boundary_in(q));
    uint32_t n = q->g->n_order;
    mpqc_nid *order = mpqc_arena_copy(&q->p->scratch, q->g->order, n * sizeof *order);
    if (!order) return MPQC_OOM(q->cx);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t cluster = q->clusters.of_node[order[i]];
        if (cluster == MPQC_NONE) {
            const struct mpqc_node node = *mpqc_node_at(q->g, order[i]);
            MPQC_TRY(emit_island(q, &node));
        } else if (q->clusters.c[cluster].last == order[i]) {
            MPQC_TRY(mpqc_lower_cluster(q, &q->clusters.c[cluster]));
        }
    }
    return boundary_out(q);
}

/* The graph without its dead float half, whose constants are most of its memory. */
static mpqc_status compact(struct mpqc_quantiser *q)
{
    struct mpqc_graph small;
    MPQC_TRY(mpqc_graph_normalise(q->cx, q->g));
    mpqc_graph_init(&small, q->cx->allocator);
    mpqc_status status = mpqc_graph_clone(q->cx, q->g, &small, &q->p->scratch, NULL);
    if (status != MPQC_OK) {
        mpqc_graph_release(&small);
        return status;
    }
    mpqc_graph_release(q->g);
    *q->g = small;
    return MPQC_OK;
}

mpqc_status mpqc_pass_quantise(struct mpqc_pass_cx *p, struct mpqc_graph *g)
{
    struct mpqc_quantiser q = {.p = p, .cx = p->cx, .g = g, .n_values = g->n_values};
    MPQC_TRY(check_options(&q));
    if (!p->profile)
        return MPQC_FAIL(p->cx, DATA, MPQC_NOWHERE,
                         "nothing is known about the ranges of activations; calibrate first");
    MPQC_TRY(mpqc_quantise_clusters(p->cx, g, &p->scratch, &q.clusters));
    uint32_t islands = count_islands(&q);
    if (islands > 0 && !p->options->allow_float) return refuse_islands(&q, islands);
    MPQC_TRY(list_islands(&q, islands));
    MPQC_TRY(mpqc_quantise_params(&q));
    q.as_int = MPQC_NEW_ARRAY(&p->scratch, mpqc_vid, q.n_values);
    q.as_float = MPQC_NEW_ARRAY(&p->scratch, mpqc_vid, q.n_values);
    if (!q.as_int || !q.as_float) return MPQC_OOM(p->cx);
    for (mpqc_vid v = 0; v < q.n_values; v++) q.as_int[v] = q.as_float[v] = MPQC_NONE;
    MPQC_TRY(prepare_rounding(&q));
    mpqc_status status = emit_all(&q);
    mpqc_replay_end(q.replay);
    if (status != MPQC_OK) return status;
    return compact(&q);
}
