/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Metric hessian-top: the largest eigenvalue of each layer's block of the Hessian (HAWQ,
 * Dong et al., 2019), by weights; and, for choices with fewer bits for activations, by
 * the layer's input, the mean over some samples of each sample's own.
 *
 * Lanczos' iteration on exact products H v: after k steps the largest eigenvalue of a
 * k x k tridiagonal matrix.  It needs far fewer products than the power iteration and
 * finds the largest eigenvalue, not that of largest magnitude, which for a saddle would
 * be negative.  Vectors are not orthogonalised again: that makes copies of eigenvalues
 * that have been found, which do not change the largest (Paige, 1980).  Memory: three
 * vectors of the layer's weights, and LANES more for sums.
 */
#include "passes/sensitivity/curvature.h"

#include <math.h>

#define MOST_STEPS 30
#define LEAST_STEPS 4
#define TOLERANCE 0.005
/* Samples are added up in this many fixed lanes, which threads share out, so that the
 * order of additions does not depend on the number of threads. */
#define LANES 4
/* Of a sample's own eigenvalue; one sample differs from the next by much more. */
#define INPUT_SAMPLES 8
#define INPUT_STEPS 8

/* ---- Lanczos ---- */

/* y = A x */
typedef mpqc_status (*apply_fn)(void *user, const float *x, float *y);

/* How many eigenvalues of the tridiagonal matrix are below x (Sturm; signs of the pivots
 * of a triangular factorisation). */
static int below(const double *a, const double *b, int n, double x)
{
    int count = 0;
    double d = 1;
    for (int i = 0; i < n; i++) {
        double off = i > 0 ? b[i - 1] * b[i - 1] : 0;
        d = a[i] - x - (i > 0 ? off / d : 0);
        if (d == 0) d = -1e-300;
        count += d < 0;
    }
    return count;
}

static double largest(const double *a, const double *b, int n)
{
    double lo = INFINITY, hi = -INFINITY;
    for (int i = 0; i < n; i++) { /* Gershgorin */
        double r = (i > 0 ? fabs(b[i - 1]) : 0) + (i + 1 < n ? fabs(b[i]) : 0);
        lo = fmin(lo, a[i] - r);
        hi = fmax(hi, a[i] + r);
    }
    for (int i = 0; i < 60; i++) {
        double mid = lo + (hi - lo) / 2;
        if (below(a, b, n, mid) < n) lo = mid;
        else hi = mid;
    }
    return hi;
}

static double dot(const float *x, const float *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * y[i];
    return sum;
}

struct lanczos {
    int64_t n;
    float *v, *before, *y; /* [n] each */
    int most_steps;
};

/* From the start vector in k->v, of any length but 0. */
static mpqc_status top_eigenvalue(struct lanczos *k, apply_fn apply, void *user, double *top,
                                  double *change)
{
    double a[MOST_STEPS], b[MOST_STEPS], norm = sqrt(dot(k->v, k->v, k->n)), beta = 0;
    *top = *change = INFINITY;
    for (int64_t i = 0; i < k->n; i++) {
        k->v[i] = (float)(k->v[i] / norm);
        k->before[i] = 0;
    }
    for (int step = 0; step < k->most_steps; step++) {
        MPQC_TRY(apply(user, k->v, k->y));
        a[step] = dot(k->v, k->y, k->n);
        for (int64_t i = 0; i < k->n; i++)
            k->y[i] = (float)(k->y[i] - a[step] * k->v[i] - beta * k->before[i]);
        b[step] = beta = sqrt(dot(k->y, k->y, k->n));
        double now = largest(a, b, step + 1);
        *change = fabs(now - *top);
        *top = now;
        /* an invariant subspace: nothing is left to find from this start */
        if (beta <= 1e-6 * fabs(now) || step + 1 >= k->n) {
            *change = 0;
            break;
        }
        if (step + 1 >= LEAST_STEPS && *change < TOLERANCE * fabs(now)) break;
        float *old = k->before;
        k->before = k->v;
        k->v = k->y;
        k->y = old;
        for (int64_t i = 0; i < k->n; i++) k->v[i] = (float)(k->v[i] / beta);
    }
    return MPQC_OK;
}

static void lanczos_start(struct lanczos *k, uint64_t seed, uint64_t kind, uint64_t which)
{
    struct mpqc_sens_rng rng = mpqc_sens_rng_make(seed, kind, which, 0);
    for (int64_t i = 0; i < k->n; i++) k->v[i] = (float)mpqc_sens_rng_normal(&rng);
}

static mpqc_status lanczos_make(struct mpqc_cx *cx, struct mpqc_arena *arena, int64_t n,
                                int most_steps, struct lanczos *k)
{
    *k = (struct lanczos){.n = n, .most_steps = most_steps};
    k->v = MPQC_NEW_ARRAY(arena, float, (size_t)n);
    k->before = MPQC_NEW_ARRAY(arena, float, (size_t)n);
    k->y = MPQC_NEW_ARRAY(arena, float, (size_t)n);
    return arena->failed ? MPQC_OOM(cx) : MPQC_OK;
}

/* ---- products for one variable ---- */

struct job {
    const struct mpqc_curvature *c;
    const struct mpqc_curve_set *set;
    uint32_t var;
    struct mpqc_graph g;
    /* of the weights: what a pool run computes */
    struct mpqc_sens_pool pool;
    const float *x;
    float *sum[LANES];
};

struct worker {
    struct mpqc_sens_run run;
    float *result; /* H v of one sample */
    struct lanczos lanczos;
    uint64_t sample;
    struct mpqc_sens_worker *w;
};

static mpqc_status open_worker(struct mpqc_sens_worker *w)
{
    const struct job *j = w->pool->user;
    struct worker *k = w->state;
    k->w = w;
    MPQC_TRY(mpqc_sens_run_open(w, &j->g, &k->run));
    k->result = k->run.out[0];
    return MPQC_OK;
}

static void close_worker(struct mpqc_sens_worker *w)
{
    mpqc_sens_run_close(&((struct worker *)w->state)->run);
}

/* H x of one sample, in out. */
static mpqc_status product(struct mpqc_sens_worker *w, uint64_t sample, const float *x, float *out)
{
    const struct job *j = w->pool->user;
    struct worker *k = w->state;
    uint32_t n = mpqc_curve_bind(j->set, w, &k->run);
    k->run.in[n++] = mpqc_curve_target(j->c, sample);
    k->run.in[n] = x;
    k->run.out[0] = out;
    return mpqc_sens_run(&k->run);
}

/* Item: a lane of the samples; sum[lane] = sum of H_i x. */
static mpqc_status sum_lane(struct mpqc_sens_worker *w, uint64_t lane, double *figures)
{
    const struct job *j = w->pool->user;
    struct worker *k = w->state;
    int64_t n = j->set->count[j->var];
    float *sum = j->sum[lane];
    (void)figures;
    memset(sum, 0, (size_t)n * sizeof *sum);
    for (uint64_t i = lane; i < j->c->samples; i += LANES) {
        MPQC_TRY(mpqc_sens_read(w, i));
        MPQC_TRY(product(w, i, j->x, k->result));
        for (int64_t e = 0; e < n; e++) sum[e] += k->result[e];
    }
    return MPQC_OK;
}

static mpqc_status apply_mean(void *user, const float *x, float *y)
{
    struct job *j = user;
    j->x = x;
    MPQC_TRY(mpqc_sens_pool_run(&j->pool));
    float share = 1.0f / (float)j->c->samples;
    for (int64_t e = 0; e < j->set->count[j->var]; e++) {
        float sum = 0;
        for (int l = 0; l < LANES; l++) sum += j->sum[l][e];
        y[e] = sum * share;
    }
    return MPQC_OK;
}

static mpqc_status apply_sample(void *user, const float *x, float *y)
{
    struct worker *k = user;
    return product(k->w, k->sample, x, y);
}

/* Item: a sample; figure: the largest eigenvalue of its own block. */
static mpqc_status top_of_sample(struct mpqc_sens_worker *w, uint64_t index, double *figures)
{
    const struct job *j = w->pool->user;
    struct worker *k = w->state;
    struct mpqc_cx *cx = w->pool->s->p->cx;
    double change;
    if (!k->lanczos.v)
        MPQC_TRY(lanczos_make(cx, &w->arena, j->set->count[j->var], INPUT_STEPS, &k->lanczos));
    k->sample = index;
    MPQC_TRY(mpqc_sens_read(w, index));
    lanczos_start(&k->lanczos, cx->seed, 4, (uint64_t)j->var << 32 | index);
    return top_eigenvalue(&k->lanczos, apply_sample, k, &figures[0], &change);
}

/* ---- one variable ---- */

static mpqc_status top_by_weights(struct job *j, struct mpqc_arena *arena, double *top,
                                  double *error)
{
    struct lanczos k;
    struct mpqc_cx *cx = j->c->s->p->cx;
    int64_t n = j->set->count[j->var];
    MPQC_TRY(lanczos_make(cx, arena, n, MOST_STEPS, &k));
    for (int l = 0; l < LANES; l++) j->sum[l] = MPQC_NEW_ARRAY(arena, float, (size_t)n);
    if (arena->failed) return MPQC_OOM(cx);
    lanczos_start(&k, cx->seed, 3, j->var);
    return top_eigenvalue(&k, apply_mean, j, top, error);
}

static mpqc_status top_by_inputs(struct job *j, double *top)
{
    double sum;
    MPQC_TRY(mpqc_sens_pool_run(&j->pool));
    mpqc_sens_pool_sums(&j->pool, &sum);
    *top = sum / (double)j->pool.n_items;
    return MPQC_OK;
}

static mpqc_status run_variable(struct job *j, bool by_weights, double *top, double *error)
{
    static const struct mpqc_sens_task lanes = {sizeof(struct worker), open_worker, sum_lane,
                                                close_worker};
    static const struct mpqc_sens_task samples = {sizeof(struct worker), open_worker,
                                                  top_of_sample, close_worker};
    const struct mpqc_curvature *c = j->c;
    struct mpqc_hvp h = {.net = j->set->net, .loss = c->loss.kind, .weights = &j->set->var[j->var],
                         .n = 1};
    struct mpqc_arena arena;
    MPQC_TRY(mpqc_hvp_product(c->s->p->cx, &h, &j->g));
    uint64_t few = c->samples < INPUT_SAMPLES ? c->samples : INPUT_SAMPLES;
    j->pool = (struct mpqc_sens_pool){.s = c->s, .task = by_weights ? &lanes : &samples, .user = j,
                                      .n_items = by_weights ? LANES : few, .n_figures = 1};
    mpqc_arena_init(&arena, c->s->p->cx->allocator);
    mpqc_status status = mpqc_sens_pool_open(&j->pool);
    if (status == MPQC_OK)
        status = by_weights ? top_by_weights(j, &arena, top, error) : top_by_inputs(j, top);
    mpqc_sens_pool_close(&j->pool);
    mpqc_arena_release(&arena);
    return status;
}

mpqc_status mpqc_curve_top(struct mpqc_curvature *c, const struct mpqc_curve_set *set, uint32_t var,
                           double *top, double *change)
{
    struct job j = {.c = c, .set = set, .var = var};
    *change = NAN;
    mpqc_graph_init(&j.g, c->s->p->cx->allocator);
    mpqc_status status = run_variable(&j, set == &c->weights, top, change);
    mpqc_graph_release(&j.g);
    return status;
}

static mpqc_status run_set(struct mpqc_curvature *c, const struct mpqc_curve_set *set,
                           double *top, double *change)
{
    const char *stage = set == &c->weights ? "sensitivity: largest eigenvalue by weights"
                                           : "sensitivity: largest eigenvalue by inputs";
    for (uint32_t i = 0; i < set->n; i++) {
        mpqc_cx_progress(c->s->p->cx, stage, i, set->n);
        MPQC_TRY(mpqc_curve_top(c, set, i, &top[i], &change[i]));
    }
    return MPQC_OK;
}

static mpqc_status run(struct mpqc_curvature *c)
{
    struct mpqc_sens_cx *s = c->s;
    size_t n = s->bits->n_layers;
    double *w = MPQC_NEW_ARRAY(&c->arena, double, 4 * n), *x = w + n, *we = x + n, *xe = we + n;
    if (!w) return MPQC_OOM(s->p->cx);
    MPQC_TRY(run_set(c, &c->weights, w, we));
    MPQC_TRY(run_set(c, &c->inputs, x, xe));
    MPQC_TRY(mpqc_curve_omega(c, w, x));
    double *top = mpqc_bits_figure(s->bits, &s->p->keep, "eigenvalue");
    double *change = mpqc_bits_figure(s->bits, &s->p->keep, "eigenvalue_change"); /* last step's */
    double *of_input = mpqc_bits_figure(s->bits, &s->p->keep, "input_eigenvalue");
    if (!top || !change || !of_input) return MPQC_OOM(s->p->cx);
    for (uint32_t l = 0; l < n; l++) {
        uint32_t i = c->weights.var_of[l];
        of_input[l] = x[c->inputs.var_of[l]];
        if (i == MPQC_NONE) continue;
        top[l] = w[i];
        change[l] = we[i];
    }
    return MPQC_OK;
}

mpqc_status mpqc_sens_hessian_top(struct mpqc_sens_cx *s)
{
    struct mpqc_curvature c;
    /* a dozen steps, each through what follows the layer, and back to it */
    double runs = MPQC_RUNS_PER_PRODUCT * 12.0 / 4 * s->bits->n_layers;
    mpqc_status status = mpqc_curvature_open(s, runs, &c);
    if (status == MPQC_OK) status = run(&c);
    mpqc_curvature_close(&c);
    return status;
}
