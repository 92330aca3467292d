/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Float against integer network on data; see report.h.
 *
 * Each sample's figures are kept and added up in order of the samples, so that the
 * result does not depend on the number of threads.
 */
#include "passes/report.h"

#include <math.h>
#include <pthread.h>

/* What one sample contributes. */
struct figures {
    double signal, noise;
    bool agree;
};

/* A graph that runs: buffers for its inputs and outputs. */
struct side {
    const struct mpqc_graph *g;
    struct mpqc_runner *runner;
    void **in, **out;
};

struct worker {
    struct side real, integer;
};

struct job {
    struct mpqc_cx *cx;
    const struct mpqc_engine *engine;
    const struct mpqc_dataset *data;
    uint64_t first, count, done; /* done: atomic */
    struct mpqc_arena arena;
    struct worker *workers;
    unsigned n_workers;
    struct figures *figures; /* by sample */
    pthread_mutex_t lock;    /* the data source and the context */
};

/* ---- one sample ------------------------------------------------------------------------ */

/* Element i of an integer buffer of 8, 16 or 32 bits. */
static int64_t element(const struct mpqc_type *t, const void *data, int64_t i)
{
    bool is_signed = mpqc_dtypes[t->dtype].kind == MPQC_KIND_SINT;
    switch (mpqc_dtypes[t->dtype].bytes) {
    case 1: return is_signed ? ((const int8_t *)data)[i] : ((const uint8_t *)data)[i];
    case 2: return is_signed ? ((const int16_t *)data)[i] : ((const uint16_t *)data)[i];
    case 4: return ((const int32_t *)data)[i];
    default: return ((const int64_t *)data)[i];
    }
}

static double real_value(const struct mpqc_type *t, const void *data, int64_t i)
{
    if (t->dtype == MPQC_DT_F32) return ((const float *)data)[i];
    int64_t q = element(t, data, i);
    return t->quant ? (double)t->quant->scale[0] * (double)(q - t->quant->zero[0]) : (double)q;
}

/* Input of the integer graph from that of the float graph: the same, or, with
 * -io=int, quantised as the operator `quantize` does it. */
static void bring_input(const struct mpqc_type *t, const void *from, void *to)
{
    if (!t->quant) {
        memcpy(to, from, mpqc_type_bytes(t));
        return;
    }
    const float *x = from;
    uint8_t *y = to;
    float factor = 1.0f / t->quant->scale[0];
    for (int64_t i = 0; i < mpqc_type_count(t); i++) {
        float q = rintf(fminf(fmaxf(x[i] * factor, -1e6f), 1e6f)) + (float)t->quant->zero[0];
        y[i] = (uint8_t)fminf(fmaxf(q, 0.0f), 255.0f);
    }
}

static int64_t arg_max(const struct mpqc_type *t, const void *data)
{
    int64_t best = 0;
    for (int64_t i = 1; i < mpqc_type_count(t); i++)
        if (real_value(t, data, i) > real_value(t, data, best)) best = i;
    return best;
}

static const struct mpqc_type *output_type(const struct side *s, uint32_t i)
{
    return &mpqc_value_at(s->g, s->g->outputs[i])->type;
}

static void compare(const struct worker *w, struct figures *f)
{
    const struct side *a = &w->real, *b = &w->integer;
    for (uint32_t k = 0; k < a->g->n_outputs; k++) {
        const struct mpqc_type *ta = output_type(a, k), *tb = output_type(b, k);
        for (int64_t i = 0; i < mpqc_type_count(ta); i++) {
            double y = real_value(ta, a->out[k], i), e = y - real_value(tb, b->out[k], i);
            f->signal += y * y;
            f->noise += e * e;
        }
    }
    f->agree = arg_max(output_type(a, 0), a->out[0]) == arg_max(output_type(b, 0), b->out[0]);
}

static mpqc_status run_sample(void *user, unsigned worker, uint64_t index)
{
    struct job *j = user;
    struct worker *w = &j->workers[worker];
    struct side *a = &w->real, *b = &w->integer;
    pthread_mutex_lock(&j->lock);
    mpqc_status status = j->data->get(j->data->user, j->cx, j->first + index, a->in);
    pthread_mutex_unlock(&j->lock);
    MPQC_TRY(status);
    for (uint32_t i = 0; i < a->g->n_inputs; i++)
        bring_input(&mpqc_value_at(b->g, b->g->inputs[i])->type, a->in[i], b->in[i]);
    MPQC_TRY(j->engine->run(a->runner, (const void *const *)a->in, a->out, NULL, NULL));
    MPQC_TRY(j->engine->run(b->runner, (const void *const *)b->in, b->out, NULL, NULL));
    compare(w, &j->figures[index]);
    uint64_t done = __atomic_add_fetch(&j->done, 1, __ATOMIC_RELAXED);
    mpqc_cx_progress(j->cx, "compare", done, j->count);
    return MPQC_OK;
}

/* ---- set-up -------------------------------------------------------------------------------- */

static mpqc_status make_side(struct job *j, struct side *s, const struct mpqc_graph *g)
{
    s->g = g;
    s->in = MPQC_NEW_ARRAY(&j->arena, void *, g->n_inputs);
    s->out = MPQC_NEW_ARRAY(&j->arena, void *, g->n_outputs);
    if (!s->in || !s->out) return MPQC_OOM(j->cx);
    for (uint32_t i = 0; i < g->n_inputs; i++)
        s->in[i] = mpqc_arena_alloc(&j->arena, mpqc_type_bytes(&g->values[g->inputs[i]].type));
    for (uint32_t i = 0; i < g->n_outputs; i++)
        s->out[i] = mpqc_arena_alloc(&j->arena, mpqc_type_bytes(&g->values[g->outputs[i]].type));
    if (j->arena.failed) return MPQC_OOM(j->cx);
    return j->engine->prepare(j->cx, g, &s->runner);
}

static mpqc_status run_all(struct job *j, const struct mpqc_graph *a, const struct mpqc_graph *b)
{
    uint64_t threads = j->cx->threads < 1 ? 1 : j->cx->threads;
    if (threads > j->count) threads = j->count;
    j->workers = MPQC_NEW_ARRAY(&j->arena, struct worker, threads);
    j->figures = MPQC_NEW_ARRAY(&j->arena, struct figures, j->count);
    if (!j->workers || !j->figures) return MPQC_OOM(j->cx);
    while (j->n_workers < threads) {
        struct worker *w = &j->workers[j->n_workers++];
        MPQC_TRY(make_side(j, &w->real, a));
        MPQC_TRY(make_side(j, &w->integer, b));
    }
    return mpqc_for_each(j->n_workers, j->count, run_sample, j);
}

static void summarise(const struct job *j, const struct mpqc_graph *g, struct mpqc_accuracy *out)
{
    double signal = 0, noise = 0;
    uint64_t agree = 0;
    for (uint64_t i = 0; i < j->count; i++) {
        signal += j->figures[i].signal;
        noise += j->figures[i].noise;
        agree += j->figures[i].agree;
    }
    *out = (struct mpqc_accuracy){.samples = j->count, .agreement = -1};
    /* no noise at all: as if it were below the resolution of a double */
    out->sqnr_db = signal <= 0 ? 0 : 10 * log10(signal / fmax(noise, signal * 1e-30));
    bool classes = g->n_outputs > 0 && mpqc_type_count(&g->values[g->outputs[0]].type) > 1;
    if (classes && j->count > 0) out->agreement = 100.0 * (double)agree / (double)j->count;
}

mpqc_status mpqc_report_accuracy(struct mpqc_cx *cx, const struct mpqc_engine *engine,
                                 const struct mpqc_graph *float_graph,
                                 const struct mpqc_graph *int_graph,
                                 const struct mpqc_dataset *data, uint64_t first,
                                 uint64_t count, struct mpqc_accuracy *out)
{
    struct job j = {.cx = cx, .engine = engine, .data = data, .first = first, .count = count};
    MPQC_ASSERT(float_graph->n_outputs == int_graph->n_outputs);
    pthread_mutex_init(&j.lock, NULL);
    mpqc_arena_init(&j.arena, cx->allocator);
    mpqc_status status = run_all(&j, float_graph, int_graph);
    if (status == MPQC_OK) summarise(&j, float_graph, out);
    for (unsigned i = 0; i < j.n_workers; i++) {
        if (j.workers[i].real.runner) engine->release(j.workers[i].real.runner);
        if (j.workers[i].integer.runner) engine->release(j.workers[i].integer.runner);
    }
    pthread_mutex_destroy(&j.lock);
    mpqc_arena_release(&j.arena);
    return status;
}
