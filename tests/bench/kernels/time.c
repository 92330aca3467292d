/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Times of one layer in each library.  The libraries take turns, so that a change of the
 * clock rate meets them all; of all runs of a layer the least time counts, without what
 * reading the clock takes.
 */
#include "tests/bench/kernels/bench.h"

#include "driver/run.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define VISIT_NS 400000u /* of a library in one round, or three runs */
#define SLACK 64

struct stopwatch {
    uint32_t layer;
    uint64_t started, least;
};

static void begin(void *profile, uint32_t layer)
{
    struct stopwatch *w = profile;
    if (layer == w->layer) w->started = mpqc_run_now();
}

static void end(void *profile, uint32_t layer)
{
    struct stopwatch *w = profile;
    if (layer != w->layer) return;
    uint64_t ns = mpqc_run_now() - w->started;
    if (ns < w->least) w->least = ns;
}

struct buffers {
    void *workspace;
    void *in[4], *out;
};

static void visit(struct bench_case *c, const struct buffers *b, uint64_t clock)
{
    struct stopwatch w = {.layer = c->layer, .least = UINT64_MAX};
    struct mpqc_exec exec = {.struct_size = sizeof exec, .layer_begin = begin, .layer_end = end,
                             .profile = &w};
    void *out[] = {b->out};
    const void *in[4];
    for (int i = 0; i < 4; i++) in[i] = b->in[i];
    uint64_t start = mpqc_run_now();
    for (int i = 0; i < 3 || mpqc_run_now() - start < VISIT_NS; i++)
        if (c->model->run(in, out, b->workspace, &exec) != MPQC_RUN_OK)
            bench_die("%s: refuses to run", c->path);
    double ns = w.least > clock ? (double)(w.least - clock) : 0;
    if (c->ns == 0 || ns < c->ns) c->ns = ns;
}

static void load(struct bench_case *c)
{
    c->library = dlopen(c->path, RTLD_NOW | RTLD_LOCAL);
    if (!c->library) bench_die("%s", dlerror());
    c->model = dlsym(c->library, "mpqc_model");
    if (!c->model || !c->model->supported()) bench_die("%s: not for this CPU", c->path);
    if (c->model->n_inputs > 4) bench_die("%s: too many inputs", c->path);
}

/* One set, large enough for every library. */
static void allocate(const struct bench_case *c, size_t n, struct buffers *b)
{
    size_t work = 64, in = 64, out = 64;
    for (size_t i = 0; i < n; i++) {
        const struct mpqc_model *m = c[i].model;
        if (m->workspace_size > work) work = m->workspace_size;
        if (m->outputs[0].bytes > out) out = m->outputs[0].bytes;
        for (uint32_t k = 0; k < m->n_inputs; k++)
            if (m->inputs[k].bytes > in) in = m->inputs[k].bytes;
    }
    b->workspace = aligned_alloc(4096, (work + 4095) / 4096 * 4096);
    b->out = malloc(out + SLACK);
    if (!b->workspace || !b->out) bench_die("out of memory");
    uint32_t seed = 1;
    for (int i = 0; i < 4; i++) {
        float *x = b->in[i] = malloc(in + SLACK);
        if (!x) bench_die("out of memory");
        for (size_t k = 0; k < in / sizeof *x; k++) {
            seed = seed * 1664525u + 1013904223u;
            x[k] = (float)(seed >> 8) / (float)(1 << 21) - 4.0f;
        }
    }
}

/* Do two cases have the same peak? */
static bool alike(const struct bench_case *a, const struct bench_case *b)
{
    bool serial = bench_serial(a);
    if (serial || bench_serial(b))
        return serial && bench_serial(b) && a->bits == b->bits &&
               a->activation_bits == b->activation_bits;
    return a->target == b->target;
}

/* The best of all rounds, for all that have it. */
static void measure_peaks(struct bench_case *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t first = 0;
        while (!alike(&c[first], &c[i])) first++;
        if (first < i) {
            c[i].peak = c[first].peak;
            continue;
        }
        bool serial = bench_serial(&c[i]);
        double gmacs = mpqc_run_peak(serial ? MPQC_PEAK_BITS : c[i].target->name).gmacs;
        if (serial) gmacs /= c[i].bits * c[i].activation_bits;
        if (gmacs > c[i].peak) c[i].peak = gmacs;
    }
}

void bench_time(struct bench_case *c, size_t n, unsigned rounds)
{
    struct buffers b;
    uint64_t clock = mpqc_run_clock_cost();
    for (size_t i = 0; i < n; i++) load(&c[i]);
    allocate(c, n, &b);
    for (unsigned r = 0; r < rounds; r++) {
        measure_peaks(c, n);
        for (size_t i = 0; i < n; i++) visit(&c[i], &b, clock);
    }
    measure_peaks(c, n);
    for (int i = 0; i < 4; i++) free(b.in[i]);
    free(b.out);
    free(b.workspace);
}
