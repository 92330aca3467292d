/* SPDX-License-Identifier: GPL-3.0-or-later
 * The loss that sensitivity is about, and what the network's answer is compared with.
 */
#include "passes/sensitivity/samples.h"

#include "ir/hvp.h"

static bool ends_in(const struct mpqc_graph *g, mpqc_vid v, enum mpqc_op op)
{
    const struct mpqc_node *n = mpqc_def(g, v);
    while (n && (n->op == MPQC_OP_RESHAPE || n->op == MPQC_OP_COPY)) n = mpqc_def(g, n->in[0]);
    return n && n->op == op;
}

/* How many classes the output distinguishes, 0 for none. */
static int64_t count_classes(const struct mpqc_graph *g, mpqc_vid output, mpqc_vid logits,
                             int64_t axis)
{
    const struct mpqc_type *t = &mpqc_value_at(g, logits)->type;
    int64_t n = mpqc_type_count(t), row = t->rank ? t->dims[axis] : 1, inputs = 0;
    for (uint32_t i = 0; i < g->n_inputs; i++)
        inputs += mpqc_type_count(&mpqc_value_at(g, g->inputs[i])->type);
    if (logits != output) return row; /* a softmax */
    if (n != row || n < 2 || n == inputs) return 0;
    return ends_in(g, output, MPQC_OP_SIGMOID) ? 0 : row;
}

static const char *const loss_texts[] = {
    [MPQC_LOSS_CROSS_ENTROPY] = "cross-entropy with the labels",
    [MPQC_LOSS_KL] = "divergence from the float network's own classes (no labels given)",
    [MPQC_LOSS_SQUARED_ERROR] = "squared error against the float network's own output",
};

mpqc_status mpqc_sens_loss_choose(struct mpqc_sens_cx *s, struct mpqc_sens_loss *out)
{
    const struct mpqc_graph *g = s->g;
    struct mpqc_cx *cx = s->p->cx;
    int64_t axis = 0;
    if (g->n_outputs == 0) return MPQC_FAIL(cx, BUG, MPQC_NOWHERE, "the network has no output");
    mpqc_vid y = g->outputs[0], z = mpqc_loss_logits(g, y, &axis);
    *out = (struct mpqc_sens_loss){.kind = MPQC_LOSS_SQUARED_ERROR};
    if (g->n_outputs == 1) out->classes = count_classes(g, y, z, axis);
    if (out->classes) out->kind = s->labels ? MPQC_LOSS_CROSS_ENTROPY : MPQC_LOSS_KL;
    out->compared = out->classes ? z : y;
    out->target = mpqc_loss_target_type(g, out->kind, y);
    bool rows = out->classes && mpqc_type_count(&out->target) != out->classes;
    if (s->labels && (!out->classes || rows))
        return MPQC_FAIL(cx, USAGE, MPQC_NOWHERE, "-labels needs a network that gives one row of "
                         "classes, and this one does not; leave the labels out");
    if (cx->verbose > 0)
        mpqc_note(cx, MPQC_NOWHERE, "sensitivity: the loss is the %s", loss_texts[out->kind]);
    return MPQC_OK;
}

/* ---- targets ---- */

static mpqc_status one_hot(struct mpqc_sens_cx *s, const struct mpqc_sens_loss *loss, uint64_t n,
                           float *table)
{
    for (uint64_t i = 0; i < n; i++) {
        int64_t label = s->labels[i];
        if (label < 0 || label >= loss->classes)
            return MPQC_FAIL(s->p->cx, DATA, MPQC_NOWHERE, "label %llu is %lld, but the network "
                             "has the classes 0 to %lld", (unsigned long long)i, (long long)label,
                             (long long)loss->classes - 1);
        table[i * (uint64_t)loss->classes + (uint64_t)label] = 1;
    }
    return MPQC_OK;
}

struct reference {
    struct mpqc_graph g;
    float *table;
    size_t bytes; /* of one target */
};

static mpqc_status open_run(struct mpqc_sens_worker *w)
{
    const struct reference *r = w->pool->user;
    return mpqc_sens_run_open(w, &r->g, w->state);
}

static mpqc_status run_reference(struct mpqc_sens_worker *w, uint64_t index, double *figures)
{
    const struct reference *r = w->pool->user;
    struct mpqc_sens_run *run = w->state;
    (void)figures;
    MPQC_TRY(mpqc_sens_read(w, index));
    for (uint32_t i = 0; i < r->g.n_inputs; i++) run->in[i] = w->inputs[i];
    run->out[0] = (char *)r->table + index * r->bytes;
    return mpqc_sens_run(run);
}

static void close_run(struct mpqc_sens_worker *w)
{
    mpqc_sens_run_close(w->state);
}

static mpqc_status own_answers(struct mpqc_sens_cx *s, const struct mpqc_sens_loss *loss,
                               uint64_t n, struct reference *r)
{
    static const struct mpqc_sens_task task = {sizeof(struct mpqc_sens_run), open_run,
                                               run_reference, close_run};
    struct mpqc_hvp h = {.net = s->g, .loss = loss->kind};
    struct mpqc_sens_pool pool = {.s = s, .task = &task, .user = r, .n_items = n,
                                  .stage = "sensitivity: float answers", .total = n};
    MPQC_TRY(mpqc_hvp_reference(s->p->cx, &h, &r->g));
    mpqc_status status = mpqc_sens_pool_open(&pool);
    if (status == MPQC_OK) status = mpqc_sens_pool_run(&pool);
    mpqc_sens_pool_close(&pool);
    return status;
}

mpqc_status mpqc_sens_targets(struct mpqc_sens_cx *s, const struct mpqc_sens_loss *loss,
                              uint64_t count, struct mpqc_arena *arena, float **out)
{
    struct reference r = {.bytes = mpqc_type_bytes(&loss->target)};
    r.table = mpqc_arena_array(arena, (size_t)count, r.bytes);
    if (!r.table) return MPQC_OOM(s->p->cx);
    *out = r.table;
    if (loss->kind == MPQC_LOSS_CROSS_ENTROPY) return one_hot(s, loss, count, r.table);
    mpqc_graph_init(&r.g, s->p->cx->allocator);
    mpqc_status status = own_answers(s, loss, count, &r);
    mpqc_graph_release(&r.g);
    return status;
}
