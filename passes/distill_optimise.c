/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Images by gradient descent: Adam (Kingma and Ba, 2015) on all images at once.
 *
 * loss = sum over targets of the mean over channels of
 *        weight ((mean - mean*)^2 + (std - std*)^2)
 *
 * with statistics over all images.  One run of the graph per image and step gives both
 * its derivative and its share of the statistics; so the coefficients of a derivative are
 * those of the step before.  (Two runs a step would be exact; the images are as good
 * without.)  Sums over images are taken in order, so threads do not matter.
 */
#include "passes/distill_internal.h"

#include "passes/sensitivity/samples.h"

#include <math.h>

#define RATE 0.2 /* of the first step, in deviations of an image; falls to 0 */
#define ADAM_MEAN 0.9
#define ADAM_SQUARE 0.999
#define ADAM_LEAST 1e-8

struct state {
    struct mpqc_cx *cx;
    const struct mpqc_engine *engine;
    const struct mpqc_distill_net *net;
    const struct mpqc_distill_options *options;
    struct mpqc_distilled *d;
    struct mpqc_arena arena;
    float *first, *second; /* Adam's moments, [images][elements] */
    float *shares;         /* [images][2][channels]: means of y and y * y */
    double *mean, *square; /* [channels]: of all images */
    float *add, *half;     /* [channels]: coefficients a and b / 2 */
    double rate;           /* of this step; 0: only look */
    double correct_first, correct_second;
    struct worker *workers;
    unsigned n_workers;
};

struct worker {
    struct mpqc_runner *runner;
    const void **in;
    void **out;
    float *derivative;
};

/* ---- one image ---- */

static float *share_of(const struct state *s, uint64_t image, int which)
{
    return s->shares + (2 * image + (unsigned)which) * s->net->n_channels;
}

/* Real images of this channel: where they are, and how far they go, at most. */
struct span {
    float lo, hi, centre, deviation;
};

static struct span span_of(const struct state *s, uint64_t element)
{
    const struct mpqc_distill_options *o = s->options;
    if (o->n_bounds == 0)
        return (struct span){.lo = -INFINITY, .hi = INFINITY, .deviation = 1};
    size_t c = (size_t)(element / (uint64_t)s->net->inner % o->n_bounds);
    float lo = o->lo[c], hi = o->hi[c];
    return (struct span){lo, hi, (lo + hi) / 2, (hi - lo) / 4};
}

static float within(struct span span, float x)
{
    return x < span.lo ? span.lo : x > span.hi ? span.hi : x;
}

/* Statistics of the image itself, and what they add to its derivative. */
static void look_at_image(const struct state *s, uint64_t image, float *derivative)
{
    const struct mpqc_distill_target *t = &s->net->target[s->net->n_inside];
    int64_t inner = s->net->inner;
    const float *x = s->d->images + image * s->d->elements;
    float *mean = share_of(s, image, 0) + t->first, *square = share_of(s, image, 1) + t->first;
    for (int64_t c = 0; c < t->channels; c++) {
        double sum = 0, squares = 0;
        float a = s->add[t->first + (size_t)c], b = 2 * s->half[t->first + (size_t)c];
        int64_t count = (int64_t)s->d->elements;
        for (int64_t from = c * inner; from < count; from += t->channels * inner)
            for (int64_t i = from; i < from + inner; i++) {
                sum += (double)x[i];
                squares += (double)x[i] * (double)x[i];
                derivative[i] += a + b * x[i];
            }
        mean[c] = (float)(sum / (double)t->positions);
        square[c] = (float)(squares / (double)t->positions);
    }
}

static void adam(const struct state *s, uint64_t image, const float *derivative)
{
    size_t at = image * s->d->elements;
    float *x = s->d->images + at, *m = s->first + at, *v = s->second + at;
    const float mean = (float)ADAM_MEAN, square = (float)ADAM_SQUARE;
    const float step = (float)(s->rate / s->correct_first);
    const float scale = (float)(1 / s->correct_second);
    for (uint64_t i = 0; i < s->d->elements; i++) {
        struct span span = span_of(s, i);
        float g = derivative[i];
        m[i] = mean * m[i] + (1 - mean) * g;
        v[i] = square * v[i] + (1 - square) * g * g;
        float way = step * span.deviation * m[i] / (sqrtf(v[i] * scale) + (float)ADAM_LEAST);
        x[i] = within(span, x[i] - way);
    }
}

static mpqc_status visit(void *user, unsigned worker, uint64_t image)
{
    struct state *s = user;
    struct worker *w = &s->workers[worker];
    w->in[0] = s->d->images + image * s->d->elements;
    for (uint32_t i = 0; i < s->net->n_inside; i++)
        for (int k = 0; k < 2; k++)
            w->out[1 + 2 * i + (unsigned)k] = share_of(s, image, k) + s->net->target[i].first;
    MPQC_TRY(s->engine->run(w->runner, w->in, w->out, NULL, NULL));
    if (s->net->n_targets > s->net->n_inside) look_at_image(s, image, w->derivative);
    if (s->rate > 0) adam(s, image, w->derivative);
    return MPQC_OK;
}

/* ---- all images ---- */

/* The derivatives of a target's loss by the two means become coefficients. */
static double weigh(struct state *s, const struct mpqc_distill_target *t)
{
    double loss = 0, elements = (double)t->positions * (double)s->d->count;
    for (int64_t c = 0; c < t->channels; c++) {
        size_t at = t->first + (size_t)c;
        double mean = s->mean[at], var = s->square[at] - mean * mean;
        double std = sqrt(var > 1e-12 ? var : 1e-12);
        double weight = (double)t->weight[c] / (double)t->channels;
        double off_mean = mean - (double)t->mean[c], off_std = std - (double)t->std[c];
        double by_square = weight * off_std / std;
        double by_mean = 2 * weight * off_mean - 2 * mean * by_square;
        loss += weight * (off_mean * off_mean + off_std * off_std);
        s->add[at] = (float)(by_mean / elements);
        s->half[at] = (float)(by_square / elements); /* d(y * y) = 2 y dy */
    }
    return loss;
}

static mpqc_status sum_up(struct state *s, double *loss)
{
    size_t n = s->net->n_channels;
    memset(s->mean, 0, n * sizeof *s->mean);
    memset(s->square, 0, n * sizeof *s->square);
    for (uint64_t i = 0; i < s->d->count; i++) {
        const float *mean = share_of(s, i, 0), *square = share_of(s, i, 1);
        for (size_t c = 0; c < n; c++) {
            s->mean[c] += (double)mean[c] / (double)s->d->count;
            s->square[c] += (double)square[c] / (double)s->d->count;
        }
    }
    *loss = 0;
    for (uint32_t i = 0; i < s->net->n_targets; i++) *loss += weigh(s, &s->net->target[i]);
    if (isfinite(*loss)) return MPQC_OK;
    return MPQC_FAIL(s->cx, DATA, MPQC_NOWHERE, "the images that -calib=distill makes lead to "
                     "infinite numbers in the network; give real inputs with -calib=PATH");
}

static mpqc_status step(struct state *s, double *loss)
{
    MPQC_TRY(mpqc_for_each(s->n_workers, s->d->count, visit, s));
    return sum_up(s, loss);
}

static mpqc_status descend(struct state *s)
{
    double first = 1, second = 1, start = RATE;
    uint32_t n = s->d->steps;
    MPQC_TRY(step(s, &s->d->first_loss));
    s->d->last_loss = s->d->first_loss;
    for (uint32_t i = 0; i < n; i++) {
        first *= ADAM_MEAN;
        second *= ADAM_SQUARE;
        s->correct_first = 1 - first;
        s->correct_second = 1 - second;
        s->rate = start * (double)(n - i) / (double)n;
        MPQC_TRY(step(s, &s->d->last_loss));
        mpqc_cx_progress(s->cx, "distill images", i + 1, n);
    }
    s->rate = 0; /* what the last step has reached */
    return step(s, &s->d->last_loss);
}

/* ---- set-up ---- */

static void noise(struct state *s)
{
    for (uint64_t i = 0; i < s->d->count; i++) {
        struct mpqc_sens_rng r = mpqc_sens_rng_make(s->cx->seed, i, s->d->elements, 0);
        float *x = s->d->images + i * s->d->elements;
        for (uint64_t k = 0; k < s->d->elements; k++) {
            struct span span = span_of(s, k);
            x[k] = within(span, span.centre + span.deviation * (float)mpqc_sens_rng_normal(&r));
        }
    }
}

static mpqc_status make_worker(struct state *s, struct worker *w)
{
    const struct mpqc_distill_net *net = s->net;
    w->in = MPQC_NEW_ARRAY(&s->arena, const void *, net->g.n_inputs);
    w->out = MPQC_NEW_ARRAY(&s->arena, void *, net->g.n_outputs);
    w->derivative = MPQC_NEW_ARRAY(&s->arena, float, s->d->elements);
    if (s->arena.failed) return MPQC_OOM(s->cx);
    w->out[0] = w->derivative;
    for (uint32_t i = 0; i < net->n_inside; i++) {
        w->in[1 + 2 * i] = s->add + net->target[i].first;
        w->in[2 + 2 * i] = s->half + net->target[i].first;
    }
    return s->engine->prepare(s->cx, &net->g, &w->runner);
}

static mpqc_status make_state(struct state *s)
{
    size_t pixels, shares, n = s->net->n_channels;
    unsigned wanted = s->cx->threads < 1 ? 1 : s->cx->threads;
    if (wanted > s->d->count) wanted = (unsigned)s->d->count;
    if (!mpqc_size_mul(s->d->count, s->d->elements, &pixels) ||
        !mpqc_size_mul(s->d->count, 2 * n, &shares))
        return MPQC_OOM(s->cx);
    s->first = MPQC_NEW_ARRAY(&s->arena, float, pixels);
    s->second = MPQC_NEW_ARRAY(&s->arena, float, pixels);
    s->shares = MPQC_NEW_ARRAY(&s->arena, float, shares);
    s->mean = MPQC_NEW_ARRAY(&s->arena, double, n);
    s->square = MPQC_NEW_ARRAY(&s->arena, double, n);
    s->add = MPQC_NEW_ARRAY(&s->arena, float, n);
    s->half = MPQC_NEW_ARRAY(&s->arena, float, n);
    s->workers = MPQC_NEW_ARRAY(&s->arena, struct worker, wanted);
    if (s->arena.failed) return MPQC_OOM(s->cx);
    while (s->n_workers < wanted) MPQC_TRY(make_worker(s, &s->workers[s->n_workers++]));
    return MPQC_OK;
}

static mpqc_status run(struct state *s)
{
    MPQC_TRY(make_state(s));
    noise(s);
    return descend(s);
}

mpqc_status mpqc_distill_optimise(struct mpqc_cx *cx, const struct mpqc_engine *engine,
                                  const struct mpqc_distill_net *net,
                                  const struct mpqc_distill_options *options,
                                  struct mpqc_distilled *d)
{
    struct state s = {.cx = cx, .engine = engine, .net = net, .options = options, .d = d};
    mpqc_arena_init(&s.arena, cx->allocator);
    mpqc_status status = run(&s);
    for (unsigned i = 0; i < s.n_workers; i++)
        if (s.workers[i].runner) engine->release(s.workers[i].runner);
    mpqc_arena_release(&s.arena);
    return status;
}
