/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Real accuracy of a plan: the float graph is quantised with it, and the integer graph
 * is run over labelled samples.
 */
#include "driver/cli.h"

#include <math.h>
#include <pthread.h>

struct worker {
    struct mpqc_runner *runner;
    void **in, **out;
};

struct run {
    struct mpqc_cx *cx;
    const struct mpqc_engine *engine;
    const struct mpqc_graph *g;
    const struct mpqc_mixed_eval *e;
    uint64_t done, right; /* atomic */
    struct mpqc_arena arena;
    struct worker *workers;
    unsigned n_workers;
    pthread_mutex_t lock; /* the data source */
};

/* With -io=float the first output is f32 in every graph; ties go to the lower index, as
 * in mpqc-run. */
static int64_t arg_max(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static mpqc_status run_sample(void *user, unsigned worker, uint64_t index)
{
    struct run *r = user;
    struct worker *w = &r->workers[worker];
    pthread_mutex_lock(&r->lock);
    const struct mpqc_dataset *data = r->e->by.data;
    mpqc_status status = data->get(data->user, r->cx, r->e->by.first + index, w->in);
    pthread_mutex_unlock(&r->lock);
    MPQC_TRY(status);
    MPQC_TRY(r->engine->run(w->runner, (const void *const *)w->in, w->out, NULL, NULL));
    const struct mpqc_type *t = &mpqc_value_at(r->g, r->g->outputs[0])->type;
    if (arg_max(w->out[0], mpqc_type_count(t)) == r->e->labels[r->e->by.first + index])
        __atomic_add_fetch(&r->right, 1, __ATOMIC_RELAXED);
    uint64_t done = __atomic_add_fetch(&r->done, 1, __ATOMIC_RELAXED);
    mpqc_cx_progress(r->cx, "evaluate plan", done, r->e->by.n);
    return MPQC_OK;
}

static mpqc_status make_worker(struct run *r, struct worker *w)
{
    const struct mpqc_graph *g = r->g;
    w->in = MPQC_NEW_ARRAY(&r->arena, void *, g->n_inputs);
    w->out = MPQC_NEW_ARRAY(&r->arena, void *, g->n_outputs);
    if (!w->in || !w->out) return MPQC_OOM(r->cx);
    for (uint32_t i = 0; i < g->n_inputs; i++)
        w->in[i] = mpqc_arena_alloc(&r->arena, mpqc_type_bytes(&g->values[g->inputs[i]].type));
    for (uint32_t i = 0; i < g->n_outputs; i++)
        w->out[i] = mpqc_arena_alloc(&r->arena, mpqc_type_bytes(&g->values[g->outputs[i]].type));
    if (r->arena.failed) return MPQC_OOM(r->cx);
    return r->engine->prepare(r->cx, g, &w->runner);
}

static mpqc_status run_all(struct run *r)
{
    uint64_t threads = r->cx->threads < 1 ? 1 : r->cx->threads;
    if (threads > r->e->by.n) threads = r->e->by.n;
    r->workers = MPQC_NEW_ARRAY(&r->arena, struct worker, threads);
    if (!r->workers) return MPQC_OOM(r->cx);
    while (r->n_workers < threads) MPQC_TRY(make_worker(r, &r->workers[r->n_workers++]));
    return mpqc_for_each(r->n_workers, r->e->by.n, run_sample, r);
}

static mpqc_status top1_of(struct mpqc_mixed_job *j, const struct mpqc_graph *g, double *top1)
{
    struct run r = {.cx = j->cx, .engine = j->passes->engine, .g = g, .e = &j->eval};
    pthread_mutex_init(&r.lock, NULL);
    mpqc_arena_init(&r.arena, j->cx->allocator);
    mpqc_status status = run_all(&r);
    for (unsigned i = 0; i < r.n_workers; i++)
        if (r.workers[i].runner) r.engine->release(r.workers[i].runner);
    pthread_mutex_destroy(&r.lock);
    mpqc_arena_release(&r.arena);
    *top1 = 100.0 * (double)r.right / (double)j->eval.by.n;
    return status;
}

static const char *const quantise_only[] = {"quantise"};

static mpqc_status with_plan(struct mpqc_mixed_job *j, struct mpqc_pass_cx *p,
                             struct mpqc_graph *g, double *top1)
{
    bool stopped;
    MPQC_TRY(mpqc_graph_clone(j->cx, j->graph, g, &p->scratch, NULL));
    MPQC_ASSERT(g->n_values == j->graph->n_values);
    MPQC_TRY(mpqc_pipeline_run(p, g, quantise_only, 1, &stopped));
    return top1_of(j, g, top1);
}

mpqc_status mpqc_mixed_evaluate(struct mpqc_mixed_job *j, const uint32_t *chosen, double *top1)
{
    if (!chosen) return top1_of(j, j->graph, top1);
    struct mpqc_bits bits = j->out->bits;
    struct mpqc_options options = *j->passes->options;
    struct mpqc_pass_cx p;
    struct mpqc_graph g;
    /* the plan as the library would compute it, but with float inputs and outputs; what
     * the user wants to see of passes belongs to the final plan */
    options.int_io = options.time_passes = false;
    options.dump_after = options.stop_after = NULL;
    options.pass_limit = 0;
    bits.chosen = mpqc_arena_copy(&j->passes->keep, chosen, bits.n_layers * sizeof *chosen);
    if (!bits.chosen) return MPQC_OOM(j->cx);
    mpqc_pass_cx_init(&p, j->cx, &options);
    p.engine = j->passes->engine;
    p.data = j->passes->data;
    p.profile = j->passes->profile;
    p.bits = &bits;
    uint32_t verbose = (uint32_t)j->cx->verbose;
    j->cx->verbose = 0; /* notes are for the final plan */
    mpqc_graph_init(&g, j->cx->allocator);
    mpqc_status status = with_plan(j, &p, &g, top1);
    mpqc_graph_release(&g);
    mpqc_pass_cx_release(&p);
    j->cx->verbose = (int)verbose;
    j->out->evaluations++;
    return status;
}
