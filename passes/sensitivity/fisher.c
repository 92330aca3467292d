/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Metric fisher: the mean squared gradient of the loss, by weights and by inputs of every
 * layer: the trace of the Fisher information over their numbers.  Answers are drawn from
 * the network's own distribution (classes from its softmax; for other outputs a Gaussian
 * of variance 1 around them), so it is the true Fisher matrix, which equals the expected
 * Hessian of the divergence; with labels of the data instead ("empirical Fisher") it would
 * vanish where the network has learned its data by heart (Kunstner et al., "Limitations
 * of the empirical Fisher approximation", 2019).  Costs first derivatives only.
 */
#include "passes/sensitivity/curvature.h"

#include <math.h>

/* Answers drawn for each sample. */
#define DRAWS 4
#define RUNS_PER_DRAW 3

struct job {
    const struct mpqc_curvature *c;
    const struct mpqc_curve_set *set;
    struct mpqc_graph g;
};

struct worker {
    struct mpqc_sens_run run;
    float *target;
};

static mpqc_status open_worker(struct mpqc_sens_worker *w)
{
    const struct job *j = w->pool->user;
    struct worker *k = w->state;
    k->target = mpqc_arena_alloc(&w->arena, mpqc_type_bytes(&j->c->loss.target));
    if (!k->target) return MPQC_OOM(w->pool->s->p->cx);
    return mpqc_sens_run_open(w, &j->g, &k->run);
}

static void close_worker(struct mpqc_sens_worker *w)
{
    mpqc_sens_run_close(&((struct worker *)w->state)->run);
}

/* One class by the probabilities p. */
static void draw_class(struct mpqc_sens_rng *rng, const float *p, float *one_hot, int64_t n)
{
    double u = mpqc_sens_rng_unit(rng);
    int64_t pick = 0;
    for (int64_t i = 0; i < n; i++) one_hot[i] = 0;
    while (pick < n - 1 && u >= (double)p[pick]) u -= (double)p[pick++];
    one_hot[pick] = 1;
}

static void draw(const struct job *j, struct mpqc_sens_rng *rng, const float *answer, float *target)
{
    int64_t n = mpqc_type_count(&j->c->loss.target), classes = j->c->loss.classes;
    if (classes > 0) {
        for (int64_t i = 0; i + classes <= n; i += classes)
            draw_class(rng, answer + i, target + i, classes);
        return;
    }
    for (int64_t i = 0; i < n; i++) target[i] = answer[i] + (float)mpqc_sens_rng_normal(rng);
}

static double squares(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}

static mpqc_status work(struct mpqc_sens_worker *w, uint64_t index, double *figures)
{
    const struct job *j = w->pool->user;
    struct worker *k = w->state;
    struct mpqc_sens_rng rng = mpqc_sens_rng_make(w->pool->s->p->cx->seed, 2, 0, index);
    MPQC_TRY(mpqc_sens_read(w, index));
    uint32_t n = mpqc_curve_bind(j->set, w, &k->run);
    k->run.in[n] = k->target;
    for (int d = 0; d < DRAWS; d++) {
        draw(j, &rng, mpqc_curve_target(j->c, index), k->target);
        MPQC_TRY(mpqc_sens_run(&k->run));
        for (uint32_t i = 0; i < j->set->n; i++)
            figures[i] += squares(k->run.out[i], j->set->count[i]) / DRAWS;
    }
    return MPQC_OK;
}

/* Mean and standard error over the samples, per element. */
static void summarise(const struct mpqc_sens_pool *p, const struct mpqc_curve_set *set,
                      double *mean, double *error)
{
    double n = (double)p->n_items;
    for (uint32_t i = 0; i < set->n; i++) {
        double sum = 0, m2 = 0, count = (double)set->count[i];
        for (uint64_t k = 0; k < p->n_items; k++) sum += p->figures[k * set->n + i] / n;
        for (uint64_t k = 0; k < p->n_items; k++) {
            double d = p->figures[k * set->n + i] - sum;
            m2 += d * d;
        }
        mean[i] = sum / count;
        error[i] = n > 1 ? sqrt(m2 / (n - 1) / n) / count : NAN;
    }
}

static mpqc_status squared_gradients(struct mpqc_curvature *c, const struct mpqc_curve_set *set,
                                     const char *stage, double *mean, double *error)
{
    static const struct mpqc_sens_task task = {sizeof(struct worker), open_worker, work,
                                               close_worker};
    struct job j = {.c = c, .set = set};
    struct mpqc_hvp h = {.net = set->net, .loss = c->loss.kind, .weights = set->var, .n = set->n};
    struct mpqc_sens_pool pool = {.s = c->s, .task = &task, .user = &j, .n_items = c->samples,
                                  .n_figures = set->n, .stage = stage, .total = c->samples};
    if (set->n == 0) return MPQC_OK;
    mpqc_graph_init(&j.g, c->s->p->cx->allocator);
    mpqc_status status = mpqc_hvp_gradient(c->s->p->cx, &h, &j.g);
    if (status == MPQC_OK) {
        status = mpqc_sens_pool_open(&pool);
        if (status == MPQC_OK) status = mpqc_sens_pool_run(&pool);
        if (status == MPQC_OK) summarise(&pool, set, mean, error);
        mpqc_sens_pool_close(&pool);
    }
    mpqc_graph_release(&j.g);
    return status;
}

static mpqc_status run(struct mpqc_curvature *c)
{
    struct mpqc_sens_cx *s = c->s;
    size_t n = s->bits->n_layers;
    double *w = MPQC_NEW_ARRAY(&c->arena, double, 4 * n), *x = w + n, *we = x + n, *xe = we + n;
    if (!w) return MPQC_OOM(s->p->cx);
    MPQC_TRY(squared_gradients(c, &c->weights, "sensitivity: Fisher by weights", w, we));
    MPQC_TRY(squared_gradients(c, &c->inputs, "sensitivity: Fisher by inputs", x, xe));
    mpqc_curve_omega(c, w, x);
    for (uint32_t l = 0; l < n; l++) {
        uint32_t i = c->weights.var_of[l], k = c->inputs.var_of[l];
        s->value[l] = i == MPQC_NONE ? x[k] : w[i];
        s->error[l] = i == MPQC_NONE ? xe[k] : we[i];
    }
    return MPQC_OK;
}

mpqc_status mpqc_sens_fisher(struct mpqc_sens_cx *s)
{
    struct mpqc_curvature c;
    const int64_t *labels = s->labels;
    s->labels = NULL;
    mpqc_status status = mpqc_curvature_open(s, 2 * RUNS_PER_DRAW * DRAWS, &c);
    if (status == MPQC_OK) status = run(&c);
    mpqc_curvature_close(&c);
    s->labels = labels;
    return status;
}
