/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Traces of the diagonal blocks of the loss's Hessian H, one block per layer, by
 * Hutchinson's method: random signs whose quadratic form has the trace as its mean.
 *
 * PRODUCTS.  For v of independent signs E <v_l, (H v)_l> = trace H_ll.  All layers are
 * probed at once; what their blocks share off the diagonal has mean 0, but adds variance.
 *
 * FACTOR.  The Gauss-Newton matrix is J' A J, J the derivative of the logits and A that
 * of the loss by them: diag(p) - p p' for classes (p: the network's), 1 for the squared
 * error.  With r of covariance A, E |J_l' r|^2 = trace (J' A J)_ll: signs in the space of
 * the outputs, where there are few, so the variance is far smaller, and a first derivative
 * instead of a second one.  J' r is the gradient of the loss with the target chosen so
 * that its derivative by the logits, p - t, is r:
 *     r = sqrt(p) e - p <sqrt(p), e>,  e random signs.
 * (Drawing a class by p, as Fisher information is often sampled, would nearly always draw
 * the likeliest and miss the rare ones that a confident network's curvature is made of.)
 * And A = sum_k r_k r_k' with r_k = sqrt(p_k) (e_k - p): where a sample has few classes
 * that matter, these are all taken, and its trace is exact.
 *
 * A round is one pass over the samples with fresh signs for every sample, which never has
 * more variance than one set for all (for Hessians H_i they are to each other as
 * mean |H_i|^2 / N to |mean H_i|^2).  Rounds are independent estimates of the trace over
 * these samples, and their scatter says how precise it is.  It ends when their standard
 * error is under a tenth of the trace for every layer that matters (a trace of a
 * hundredth of the mean does not), or after some rounds, fewer on large networks.  The
 * standard error that is reported is that over the samples, which contains the choice of
 * samples too (or that over the rounds, if larger).
 */
#include "passes/sensitivity/curvature.h"

#include <math.h>

#define LEAST_ROUNDS 4
#define WANTED_ERROR 0.1
#define MATTERS 0.01
/* Classes of less than this share of all unlikely ones are left out where the others are
 * taken one by one: that is at most so many times the classes of the trace. */
#define NEGLIGIBLE 1e-5
#define MOST_ONE_BY_ONE 16
/* What one sample costs as a rule, for both sets. */
#define RUNS (2 * MPQC_RUNS_PER_PRODUCT * LEAST_ROUNDS)

struct probe {
    const struct mpqc_curvature *c;
    const struct mpqc_curve_set *set;
    enum mpqc_curve_method method;
    struct mpqc_graph g;
    uint64_t round;
    double *mean, *m2; /* by variable, over the rounds (Welford, 1962) */
    double *sum;       /* [sample][variable], over the rounds */
    bool *exact;       /* by sample: its sum is that of one round */
};

struct worker {
    struct mpqc_sens_run run;
    float **v;     /* PRODUCTS */
    float *target; /* FACTOR */
};

/* ---- one sample ---- */

static mpqc_status open_worker(struct mpqc_sens_worker *w)
{
    const struct probe *q = w->pool->user;
    struct worker *k = w->state;
    MPQC_TRY(mpqc_sens_run_open(w, &q->g, &k->run));
    k->target = mpqc_arena_alloc(&w->arena, mpqc_type_bytes(&q->c->loss.target));
    k->v = MPQC_NEW_ARRAY(&w->arena, float *, q->set->n);
    if (w->arena.failed) return MPQC_OOM(w->pool->s->p->cx);
    for (uint32_t i = 0; q->method == MPQC_CURVE_PRODUCTS && i < q->set->n; i++)
        k->v[i] = MPQC_NEW_ARRAY(&w->arena, float, (size_t)q->set->count[i]);
    return w->arena.failed ? MPQC_OOM(w->pool->s->p->cx) : MPQC_OK;
}

static void close_worker(struct mpqc_sens_worker *w)
{
    mpqc_sens_run_close(&((struct worker *)w->state)->run);
}

/* Signs depend on seed, set, variable, round and sample alone. */
static struct mpqc_sens_rng signs_of(const struct probe *q, uint32_t var, uint64_t sample)
{
    uint64_t which = (uint64_t)(q->set == &q->c->weights ? 0 : 1) << 32 | var;
    return mpqc_sens_rng_make(q->c->s->p->cx->seed, which, q->round, sample);
}

/* A target for one row of classes of probabilities p. */
static void draw_row(struct mpqc_sens_rng *rng, const float *p, float *t, int64_t n)
{
    double along = 0;
    mpqc_sens_rng_signs(rng, t, n);
    for (int64_t i = 0; i < n; i++) along += sqrt((double)p[i]) * t[i];
    for (int64_t i = 0; i < n; i++)
        t[i] = (float)(p[i] - (sqrt((double)p[i]) * t[i] - p[i] * along));
}

static void draw_target(const struct probe *q, uint64_t sample, const float *answer, float *target)
{
    int64_t n = mpqc_type_count(&q->c->loss.target), classes = q->c->loss.classes;
    struct mpqc_sens_rng rng = signs_of(q, UINT32_MAX, sample);
    for (int64_t i = 0; classes > 0 && i + classes <= n; i += classes)
        draw_row(&rng, answer + i, target + i, classes);
    if (classes > 0) return;
    mpqc_sens_rng_signs(&rng, target, n);
    for (int64_t i = 0; i < n; i++) target[i] += answer[i];
}

/* The probability below which classes do not matter; for other outputs all of them do. */
static double least_probability(const struct probe *q, const float *p, int64_t n)
{
    double top = 0, sum = 0;
    if (q->c->loss.classes == 0) return -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        top = fmax(top, (double)p[i]);
        sum += p[i];
    }
    return NEGLIGIBLE * fmax(sum - top, 1e-30);
}

/* How many directions r_k matter, or 0 for too many (or several rows of classes). */
static int64_t count_directions(const struct probe *q, const float *p, int64_t n)
{
    int64_t count = 0;
    double least = least_probability(q, p, n);
    if (q->c->loss.classes > 0 && q->c->loss.classes != n) return 0;
    for (int64_t i = 0; i < n && count <= MOST_ONE_BY_ONE; i++)
        count += q->c->loss.classes == 0 || (double)p[i] > least;
    return count <= MOST_ONE_BY_ONE ? count : 0;
}

static void direction_target(const struct probe *q, const float *p, int64_t n, int64_t k, float *t)
{
    bool classes = q->c->loss.classes > 0;
    double root = classes ? sqrt((double)p[k]) : 0;
    for (int64_t i = 0; i < n; i++) t[i] = (float)(p[i] * (1 + root));
    t[k] -= classes ? (float)root : 1;
}

static double squares(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}

static mpqc_status add_squares(const struct probe *q, struct worker *k, double *figures)
{
    MPQC_TRY(mpqc_sens_run(&k->run));
    for (uint32_t i = 0; i < q->set->n; i++)
        figures[i] += squares(k->run.out[i], q->set->count[i]);
    return MPQC_OK;
}

/* One round's estimate of a sample's traces, or the traces themselves. */
static mpqc_status factor(const struct probe *q, struct worker *k, uint64_t sample, uint32_t slot,
                          double *figures)
{
    int64_t n = mpqc_type_count(&q->c->loss.target);
    const float *answer = q->c->answers + sample * (uint64_t)n;
    double least = least_probability(q, answer, n);
    k->run.in[slot] = k->target;
    q->exact[sample] = count_directions(q, answer, n) > 0;
    if (!q->exact[sample]) {
        draw_target(q, sample, answer, k->target);
        return add_squares(q, k, figures);
    }
    for (int64_t i = 0; i < n; i++) {
        if ((double)answer[i] <= least) continue;
        direction_target(q, answer, n, i, k->target);
        MPQC_TRY(add_squares(q, k, figures));
    }
    return MPQC_OK;
}

static mpqc_status products(const struct probe *q, struct worker *k, uint64_t sample, uint32_t slot,
                            double *figures)
{
    k->run.in[slot++] = mpqc_curve_target(q->c, sample);
    for (uint32_t i = 0; i < q->set->n; i++) {
        struct mpqc_sens_rng rng = signs_of(q, i, sample);
        mpqc_sens_rng_signs(&rng, k->v[i], q->set->count[i]);
        k->run.in[slot++] = k->v[i];
    }
    MPQC_TRY(mpqc_sens_run(&k->run));
    for (uint32_t i = 0; i < q->set->n; i++) figures[i] = *(const float *)k->run.out[i];
    return MPQC_OK;
}

static mpqc_status work(struct mpqc_sens_worker *w, uint64_t index, double *figures)
{
    const struct probe *q = w->pool->user;
    struct worker *k = w->state;
    double *sum = q->sum + index * q->set->n;
    if (q->exact[index]) { /* known since the first round */
        for (uint32_t i = 0; i < q->set->n; i++) figures[i] = sum[i];
        return MPQC_OK;
    }
    MPQC_TRY(mpqc_sens_read(w, index));
    uint32_t slot = mpqc_curve_bind(q->set, w, &k->run);
    k->run.in[slot] = mpqc_curve_target(q->c, index);
    if (q->method == MPQC_CURVE_PRODUCTS) MPQC_TRY(products(q, k, index, slot, figures));
    if (q->method == MPQC_CURVE_FACTOR) MPQC_TRY(factor(q, k, index, slot, figures));
    if (q->method == MPQC_CURVE_LABELS) {
        MPQC_TRY(add_squares(q, k, figures));
        q->exact[index] = true;
    }
    for (uint32_t i = 0; i < q->set->n; i++) sum[i] += figures[i];
    return MPQC_OK;
}

/* ---- rounds ---- */

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
    while (*rounds < LEAST_ROUNDS || (*rounds < q->c->most_rounds && !precise(q, *rounds))) {
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

/* Of variable i over the samples. */
static double sample_error(const struct probe *q, uint32_t i, uint64_t rounds)
{
    double n = (double)q->c->samples, m2 = 0;
    for (uint64_t k = 0; k < q->c->samples; k++) {
        double sum = q->sum[k * q->set->n + i];
        double d = (q->exact[k] ? sum : sum / (double)rounds) - q->mean[i];
        m2 += d * d;
    }
    return n < 2 ? NAN : sqrt(m2 / (n - 1) / n);
}

static const char *const method_texts[] = {
    [MPQC_CURVE_PRODUCTS] = "Hessian products",
    [MPQC_CURVE_FACTOR] = "Gauss-Newton probes",
    [MPQC_CURVE_LABELS] = "squared gradients",
};

static mpqc_status estimate(struct mpqc_curvature *c, struct probe *q, uint64_t *rounds)
{
    static const struct mpqc_sens_task task = {sizeof(struct worker), open_worker, work,
                                               close_worker};
    const struct mpqc_curve_set *set = q->set;
    struct mpqc_cx *cx = c->s->p->cx;
    struct mpqc_hvp h = {.net = set->net, .loss = c->loss.kind, .weights = set->var, .n = set->n};
    struct mpqc_sens_pool pool = {.s = c->s, .task = &task, .user = q, .n_items = c->samples,
                                  .n_figures = set->n,
                                  .total = c->samples * q->c->most_rounds};
    q->mean = MPQC_NEW_ARRAY(&c->arena, double, set->n);
    q->m2 = MPQC_NEW_ARRAY(&c->arena, double, set->n);
    q->sum = MPQC_NEW_ARRAY(&c->arena, double, (size_t)c->samples * set->n);
    q->exact = MPQC_NEW_ARRAY(&c->arena, bool, (size_t)c->samples);
    pool.stage = mpqc_arena_printf(&c->arena, "sensitivity: %s by %s, a sample a thread",
                                   method_texts[q->method], set->name);
    if (c->arena.failed) return MPQC_OOM(cx);
    bool products = q->method == MPQC_CURVE_PRODUCTS;
    MPQC_TRY((products ? mpqc_hvp_probe : mpqc_hvp_gradient)(cx, &h, &q->g));
    mpqc_status status = mpqc_sens_pool_open(&pool);
    if (status == MPQC_OK) status = run_rounds(&pool, q, rounds);
    mpqc_sens_pool_close(&pool);
    return status;
}

static void say(const struct probe *q, uint64_t rounds)
{
    uint64_t exact = 0;
    if (q->c->s->p->cx->verbose < 1) return;
    for (uint64_t i = 0; i < q->c->samples; i++) exact += q->exact[i];
    if (exact == q->c->samples) rounds = 1;
    mpqc_note(q->c->s->p->cx, MPQC_NOWHERE, "sensitivity: %s by %s, %llu rounds of %llu samples, "
              "%llu of them exact%s", method_texts[q->method], q->set->name,
              (unsigned long long)rounds, (unsigned long long)q->c->samples,
              (unsigned long long)exact,
              precise(q, rounds) || rounds == 1
                  ? "" : "; some standard errors are still over a tenth of their traces");
}

/* Of the mean over the elements; exact traces do not vary over the rounds. */
static struct mpqc_curve_trace trace_of(const struct probe *q, uint32_t i, uint64_t rounds)
{
    double n = (double)q->set->count[i];
    double probes = q->method == MPQC_CURVE_LABELS ? 0 : standard_error(q, i, rounds);
    return (struct mpqc_curve_trace){.mean = q->mean[i] / n, .probe_error = probes / n,
                                     .error = fmax(sample_error(q, i, rounds), probes) / n};
}

mpqc_status mpqc_curve_traces(struct mpqc_curvature *c, const struct mpqc_curve_set *set,
                              enum mpqc_curve_method method, struct mpqc_curve_trace *by_variable)
{
    struct probe q = {.c = c, .set = set, .method = method};
    uint64_t rounds = 0;
    if (set->n == 0) return MPQC_OK;
    if (method == MPQC_CURVE_BEST)
        q.method = mpqc_curve_gauss_newton(c) ? MPQC_CURVE_FACTOR : MPQC_CURVE_PRODUCTS;
    mpqc_graph_init(&q.g, c->s->p->cx->allocator);
    mpqc_status status = estimate(c, &q, &rounds);
    mpqc_graph_release(&q.g);
    if (status != MPQC_OK) return status;
    for (uint32_t i = 0; i < set->n; i++) by_variable[i] = trace_of(&q, i, rounds);
    say(&q, rounds);
    return MPQC_OK;
}

/* ---- a metric ---- */

/* Figures of a set: traces of whole blocks and their means over the elements. */
static mpqc_status report(struct mpqc_curvature *c, const struct mpqc_curve_set *set,
                          const struct mpqc_curve_trace *t)
{
    static const char *const names[2][5] = {
        {"trace", "trace_error", "trace_probe_error", "mean_trace", "mean_trace_error"},
        {"input_trace", "input_trace_error", "input_trace_probe_error", "mean_input_trace",
         "mean_input_trace_error"}};
    struct mpqc_sens_cx *s = c->s;
    double *column[5];
    for (uint32_t k = 0; k < 5; k++) {
        column[k] = mpqc_bits_figure(s->bits, &s->p->keep, names[set == &c->inputs][k]);
        if (!column[k]) return MPQC_OOM(s->p->cx);
    }
    for (uint32_t l = 0; l < s->bits->n_layers; l++) {
        uint32_t i = set->var_of[l];
        if (i == MPQC_NONE) continue;
        double n = (double)set->count[i];
        column[0][l] = t[i].mean * n;
        column[1][l] = t[i].error * n;
        column[2][l] = t[i].probe_error * n;
        column[3][l] = t[i].mean;
        column[4][l] = t[i].error;
    }
    return MPQC_OK;
}

static mpqc_status run(struct mpqc_curvature *c, enum mpqc_curve_method method)
{
    size_t n = c->s->bits->n_layers;
    struct mpqc_curve_trace *of_w = MPQC_NEW_ARRAY(&c->arena, struct mpqc_curve_trace, n);
    struct mpqc_curve_trace *of_x = MPQC_NEW_ARRAY(&c->arena, struct mpqc_curve_trace, n);
    double *w = MPQC_NEW_ARRAY(&c->arena, double, n), *x = MPQC_NEW_ARRAY(&c->arena, double, n);
    if (c->arena.failed) return MPQC_OOM(c->s->p->cx);
    MPQC_TRY(mpqc_curve_traces(c, &c->weights, method, of_w));
    MPQC_TRY(mpqc_curve_traces(c, &c->inputs, method, of_x));
    for (size_t i = 0; i < n; i++) {
        w[i] = of_w[i].mean;
        x[i] = of_x[i].mean;
    }
    MPQC_TRY(mpqc_curve_omega(c, w, x));
    MPQC_TRY(report(c, &c->weights, of_w));
    return report(c, &c->inputs, of_x);
}

mpqc_status mpqc_curve_metric(struct mpqc_sens_cx *s, enum mpqc_curve_method method)
{
    struct mpqc_curvature c;
    mpqc_status status = mpqc_curvature_open(s, RUNS, &c);
    if (status == MPQC_OK) status = run(&c, method);
    mpqc_curvature_close(&c);
    return status;
}
