/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Metric hessian-trace: the mean trace of the Hessian of the loss, by weights and by
 * inputs of every layer (HAWQ-V2, Dong et al., 2020), estimated by Hutchinson's method:
 * for v of independent signs, E <v, H v> = trace H.  All layers are probed at once; what
 * their blocks have in common off the diagonal has mean 0.
 *
 * A round is one pass over the samples with fresh, independent v for every sample, which
 * never has more variance than one v for all of them (for the mean of Hessians H_i the
 * variances are to each other as mean |H_i|^2 / N to |mean H_i|^2).  Rounds are
 * independent estimates of the trace over these samples, so their scatter gives its
 * standard error.  It ends when that is under a tenth of the trace for every layer that
 * matters (a trace of a hundredth of the mean does not), or after MOST_ROUNDS.
 */
#include "passes/sensitivity/curvature.h"

#include <math.h>

#define LEAST_ROUNDS 4
#define MOST_ROUNDS 24
#define WANTED_ERROR 0.1
#define MATTERS 0.01
/* A probe costs about six forward runs. */
#define RUNS_PER_PROBE 7

struct probe {
    const struct mpqc_curvature *c;
    const struct mpqc_curve_set *set;
    struct mpqc_graph g;
    uint64_t round, kind; /* kind: of the set, for the random numbers */
    double *mean, *m2;    /* by variable, over the rounds (Welford, 1962) */
};

struct worker {
    struct mpqc_sens_run run;
    float **v;
};

static mpqc_status open_worker(struct mpqc_sens_worker *w)
{
    const struct probe *q = w->pool->user;
    struct worker *k = w->state;
    MPQC_TRY(mpqc_sens_run_open(w, &q->g, &k->run));
    k->v = MPQC_NEW_ARRAY(&w->arena, float *, q->set->n);
    if (!k->v) return MPQC_OOM(w->pool->s->p->cx);
    for (uint32_t i = 0; i < q->set->n; i++)
        k->v[i] = MPQC_NEW_ARRAY(&w->arena, float, (size_t)q->set->count[i]);
    return w->arena.failed ? MPQC_OOM(w->pool->s->p->cx) : MPQC_OK;
}

static void close_worker(struct mpqc_sens_worker *w)
{
    mpqc_sens_run_close(&((struct worker *)w->state)->run);
}

static mpqc_status work(struct mpqc_sens_worker *w, uint64_t index, double *figures)
{
    const struct probe *q = w->pool->user;
    struct worker *k = w->state;
    MPQC_TRY(mpqc_sens_read(w, index));
    uint32_t n = mpqc_curve_bind(q->set, w, &k->run);
    k->run.in[n++] = mpqc_curve_target(q->c, index);
    for (uint32_t i = 0; i < q->set->n; i++) {
        struct mpqc_sens_rng rng =
            mpqc_sens_rng_make(w->pool->s->p->cx->seed, q->kind << 32 | i, q->round, index);
        mpqc_sens_rng_signs(&rng, k->v[i], q->set->count[i]);
        k->run.in[n++] = k->v[i];
    }
    MPQC_TRY(mpqc_sens_run(&k->run));
    for (uint32_t i = 0; i < q->set->n; i++) figures[i] = *(const float *)k->run.out[i];
    return MPQC_OK;
}

/* Standard error of the mean of `rounds` estimates. */
static double standard_error(const struct probe *q, uint32_t i, uint64_t rounds)
{
    return rounds < 2 ? INFINITY : sqrt(q->m2[i] / (double)(rounds - 1) / (double)rounds);
}

static bool precise(const struct probe *q, uint64_t rounds)
{
    double mean = 0;
    for (uint32_t i = 0; i < q->set->n; i++) mean += fabs(q->mean[i]) / q->set->n;
    for (uint32_t i = 0; i < q->set->n; i++)
        if (standard_error(q, i, rounds) > WANTED_ERROR * fmax(fabs(q->mean[i]), MATTERS * mean))
            return false;
    return true;
}

static mpqc_status run_rounds(struct mpqc_sens_pool *pool, struct probe *q, uint64_t *rounds)
{
    double *sums = MPQC_NEW_ARRAY(&pool->arena, double, q->set->n);
    if (!sums) return MPQC_OOM(pool->s->p->cx);
    while (*rounds < LEAST_ROUNDS || (*rounds < MOST_ROUNDS && !precise(q, *rounds))) {
        q->round = (*rounds)++;
        MPQC_TRY(mpqc_sens_pool_run(pool));
        mpqc_sens_pool_sums(pool, sums);
        for (uint32_t i = 0; i < q->set->n; i++) {
            double t = sums[i] / (double)pool->n_items, d = t - q->mean[i];
            q->mean[i] += d / (double)*rounds;
            q->m2[i] += d * (t - q->mean[i]);
        }
    }
    return MPQC_OK;
}

/* Traces and standard errors of one set, in the curvature's arena. */
static mpqc_status estimate(struct mpqc_curvature *c, const struct mpqc_curve_set *set,
                            const char *stage, struct probe *q, uint64_t *rounds)
{
    static const struct mpqc_sens_task task = {sizeof(struct worker), open_worker, work,
                                               close_worker};
    struct mpqc_hvp h = {.net = set->net, .loss = c->loss.kind, .weights = set->var, .n = set->n};
    struct mpqc_sens_pool pool = {.s = c->s, .task = &task, .user = q, .n_items = c->samples,
                                  .n_figures = set->n, .stage = stage,
                                  .total = c->samples * MOST_ROUNDS};
    q->mean = MPQC_NEW_ARRAY(&c->arena, double, set->n);
    q->m2 = MPQC_NEW_ARRAY(&c->arena, double, set->n);
    *rounds = 0;
    if (c->arena.failed) return MPQC_OOM(c->s->p->cx);
    if (set->n == 0) return MPQC_OK;
    MPQC_TRY(mpqc_hvp_probe(c->s->p->cx, &h, &q->g));
    mpqc_status status = mpqc_sens_pool_open(&pool);
    if (status == MPQC_OK) status = run_rounds(&pool, q, rounds);
    mpqc_sens_pool_close(&pool);
    return status;
}

static mpqc_status traces(struct mpqc_curvature *c, const struct mpqc_curve_set *set,
                          uint64_t kind, const char *stage, double *mean, double *error)
{
    struct probe q = {.c = c, .set = set, .kind = kind};
    uint64_t rounds;
    mpqc_graph_init(&q.g, c->s->p->cx->allocator);
    mpqc_status status = estimate(c, set, stage, &q, &rounds);
    for (uint32_t i = 0; status == MPQC_OK && i < set->n; i++) {
        mean[i] = q.mean[i] / (double)set->count[i];
        error[i] = standard_error(&q, i, rounds) / (double)set->count[i];
    }
    if (status == MPQC_OK && c->s->p->cx->verbose > 0)
        mpqc_note(c->s->p->cx, MPQC_NOWHERE, "%s: %llu probes of %llu samples%s", stage,
                  (unsigned long long)rounds, (unsigned long long)c->samples,
                  set->n && !precise(&q, rounds)
                      ? "; some layers' standard errors are over a tenth of their traces" : "");
    mpqc_graph_release(&q.g);
    return status;
}

static mpqc_status run(struct mpqc_curvature *c)
{
    struct mpqc_sens_cx *s = c->s;
    size_t n = s->bits->n_layers;
    double *w = MPQC_NEW_ARRAY(&c->arena, double, 4 * n), *x = w + n, *we = x + n, *xe = we + n;
    if (!w) return MPQC_OOM(s->p->cx);
    MPQC_TRY(traces(c, &c->weights, 0, "sensitivity: Hessian trace by weights", w, we));
    MPQC_TRY(traces(c, &c->inputs, 1, "sensitivity: Hessian trace by inputs", x, xe));
    mpqc_curve_omega(c, w, x);
    for (uint32_t l = 0; l < n; l++) {
        uint32_t i = c->weights.var_of[l], k = c->inputs.var_of[l];
        s->value[l] = i == MPQC_NONE ? x[k] : w[i];
        s->error[l] = i == MPQC_NONE ? xe[k] : we[i];
    }
    return MPQC_OK;
}

mpqc_status mpqc_sens_hessian_trace(struct mpqc_sens_cx *s)
{
    struct mpqc_curvature c;
    mpqc_status status = mpqc_curvature_open(s, RUNS_PER_PROBE * 2 * LEAST_ROUNDS, &c);
    if (status == MPQC_OK) status = run(&c);
    mpqc_curvature_close(&c);
    return status;
}
