/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Pass `calibrate`: runs the float network over the data in a stream and keeps, for
 * every value that needs a range, its extremes and a histogram of fixed size.
 *
 * Memory is constant in the number of samples: each worker has one runner, one set
 * of input buffers and one set of histograms, merged at the end.  Histograms merge
 * exactly (histogram.h), so the result does not depend on the number of threads.
 *
 * requires: a simplified float graph; keeps: the graph untouched.
 */
#include "passes/histogram.h"
#include "passes/profile.h"
#include "passes/quantise.h"

#include <pthread.h>

struct job;

struct worker {
    struct job *job;
    struct mpqc_arena arena;
    struct mpqc_runner *runner;
    struct mpqc_histogram *hist; /* by value id */
    void **inputs, **outputs;
    mpqc_vid bad;                /* value with a NaN or infinity in this sample */
};

struct job {
    struct mpqc_pass_cx *p;
    const struct mpqc_graph *g;
    const bool *needs_range;
    struct worker *workers;
    unsigned n_workers;
    uint64_t done;               /* atomic */
    pthread_mutex_t lock;        /* the data source and the context */
    uint64_t bad_sample;         /* least one seen */
    mpqc_vid bad_value;
};

static void observe(void *user, mpqc_vid v, const struct mpqc_tensor *t)
{
    struct worker *w = user;
    if (!w->job->needs_range[v] || w->bad != MPQC_NONE) return;
    if (!mpqc_hist_add(&w->hist[v], t->data, (size_t)mpqc_type_count(&t->type))) w->bad = v;
}

static mpqc_status read_sample(struct job *j, struct worker *w, uint64_t index)
{
    const struct mpqc_dataset *data = j->p->data;
    pthread_mutex_lock(&j->lock);
    mpqc_status status = data->get(data->user, j->p->cx, index, w->inputs);
    pthread_mutex_unlock(&j->lock);
    return status;
}

static mpqc_status run_sample(void *user, unsigned worker, uint64_t index)
{
    struct job *j = user;
    struct worker *w = &j->workers[worker];
    MPQC_TRY(read_sample(j, w, index));
    w->bad = MPQC_NONE;
    const void *const *inputs = (const void *const *)w->inputs;
    MPQC_TRY(j->p->engine->run(w->runner, inputs, w->outputs, observe, w));
    uint64_t done = __atomic_add_fetch(&j->done, 1, __ATOMIC_RELAXED);
    mpqc_cx_progress(j->p->cx, "calibrate", done, j->p->data->count);
    if (w->bad == MPQC_NONE) return MPQC_OK;
    pthread_mutex_lock(&j->lock);
    if (index < j->bad_sample) {
        j->bad_sample = index;
        j->bad_value = w->bad;
    }
    pthread_mutex_unlock(&j->lock);
    return MPQC_DATA;
}

static mpqc_status bad_number(const struct job *j)
{
    const struct mpqc_value *v = mpqc_value_at(j->g, j->bad_value);
    struct mpqc_where where = {.tensor = v->name, .offset = -1};
    unsigned long long sample = (unsigned long long)j->bad_sample;
    if (v->def == MPQC_NONE)
        return MPQC_FAIL(j->p->cx, DATA, where, "calibration sample %llu contains a NaN or an "
                         "infinite number; remove it or repair the data", sample);
    where = mpqc_loc_where(mpqc_node_at(j->g, v->def)->loc);
    return MPQC_FAIL(j->p->cx, DATA, where, "the result is NaN or infinite for calibration sample "
                     "%llu; check the network and the scaling of the data", sample);
}

/* ---- set-up ---------------------------------------------------------------------------- */

static mpqc_status make_buffers(struct worker *w, const struct mpqc_graph *g)
{
    struct mpqc_cx *cx = w->job->p->cx;
    w->inputs = MPQC_NEW_ARRAY(&w->arena, void *, g->n_inputs);
    w->outputs = MPQC_NEW_ARRAY(&w->arena, void *, g->n_outputs);
    w->hist = MPQC_NEW_ARRAY(&w->arena, struct mpqc_histogram, g->n_values);
    if (!w->inputs || !w->outputs || !w->hist) return MPQC_OOM(cx);
    for (uint32_t i = 0; i < g->n_inputs; i++)
        w->inputs[i] = mpqc_arena_alloc(&w->arena, mpqc_type_bytes(&g->values[g->inputs[i]].type));
    for (uint32_t i = 0; i < g->n_outputs; i++)
        w->outputs[i] = mpqc_arena_alloc(&w->arena, mpqc_type_bytes(&g->values[g->outputs[i]].type));
    for (mpqc_vid v = 0; v < g->n_values; v++)
        if (w->job->needs_range[v] && !mpqc_hist_init(&w->hist[v], &w->arena)) break;
    return w->arena.failed ? MPQC_OOM(cx) : MPQC_OK;
}

static mpqc_status make_workers(struct job *j, const struct mpqc_graph *g)
{
    struct mpqc_pass_cx *p = j->p;
    uint64_t wanted = p->cx->threads < 1 ? 1 : p->cx->threads;
    if (wanted > p->data->count) wanted = p->data->count;
    j->workers = MPQC_NEW_ARRAY(&p->scratch, struct worker, wanted);
    if (!j->workers) return MPQC_OOM(p->cx);
    while (j->n_workers < wanted) {
        struct worker *w = &j->workers[j->n_workers++];
        w->job = j;
        mpqc_arena_init(&w->arena, p->cx->allocator);
        MPQC_TRY(make_buffers(w, g));
        MPQC_TRY(p->engine->prepare(p->cx, g, &w->runner));
    }
    return MPQC_OK;
}

static mpqc_status merge(struct job *j, struct mpqc_profile *profile)
{
    for (mpqc_vid v = 0; v < profile->n_values; v++) {
        if (!j->needs_range[v]) continue;
        if (!mpqc_hist_init(&profile->hist[v], &j->p->keep)) return MPQC_OOM(j->p->cx);
        for (unsigned i = 0; i < j->n_workers; i++)
            mpqc_hist_merge(&profile->hist[v], &j->workers[i].hist[v]);
    }
    profile->samples = j->p->data->count;
    return MPQC_OK;
}

static mpqc_status observe_data(struct job *j, const struct mpqc_graph *g,
                                struct mpqc_profile *profile)
{
    MPQC_TRY(make_workers(j, g));
    mpqc_status status = mpqc_for_each(j->n_workers, j->p->data->count, run_sample, j);
    if (status == MPQC_DATA && j->bad_sample != UINT64_MAX) return bad_number(j);
    if (status != MPQC_OK) return status;
    return merge(j, profile);
}

static mpqc_status stream(struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                          const bool *needs_range, struct mpqc_profile *profile)
{
    struct job j = {.p = p, .g = g, .needs_range = needs_range, .bad_sample = UINT64_MAX};
    pthread_mutex_init(&j.lock, NULL);
    mpqc_status status = observe_data(&j, g, profile);
    for (unsigned i = 0; i < j.n_workers; i++) {
        if (j.workers[i].runner) p->engine->release(j.workers[i].runner);
        mpqc_arena_release(&j.workers[i].arena);
    }
    pthread_mutex_destroy(&j.lock);
    return status;
}

static mpqc_status fill_profile(struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                                const bool *needs_range)
{
    if (p->options->load_profile)
        return mpqc_profile_load(p, g, needs_range, p->options->load_profile);
    if (!p->data)
        return MPQC_FAIL(p->cx, DATA, MPQC_NOWHERE, "there is no calibration data; give some with "
                         "-calib=PATH, or a profile with -load-profile=FILE");
    if (p->data->count == 0)
        return MPQC_FAIL(p->cx, DATA, MPQC_NOWHERE, "the calibration data is empty");
    struct mpqc_profile *profile = MPQC_NEW(&p->keep, struct mpqc_profile);
    if (!profile) return MPQC_OOM(p->cx);
    profile->n_values = g->n_values;
    profile->hist = MPQC_NEW_ARRAY(&p->keep, struct mpqc_histogram, g->n_values);
    if (!profile->hist) return MPQC_OOM(p->cx);
    MPQC_TRY(stream(p, g, needs_range, profile));
    p->profile = profile;
    return MPQC_OK;
}

mpqc_status mpqc_pass_calibrate(struct mpqc_pass_cx *p, struct mpqc_graph *g)
{
    struct mpqc_clusters clusters;
    MPQC_TRY(mpqc_quantise_clusters(p->cx, g, &p->scratch, &clusters));
    MPQC_TRY(fill_profile(p, g, clusters.needs_range));
    if (p->options->dump_profile)
        return mpqc_profile_dump(p->cx, g, p->profile, p->options->dump_profile);
    return MPQC_OK;
}
