/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * How long a probe of the Hessian takes: products <v, H v> by the weights of all layers,
 * for random signs v, over some samples (made-up numbers; the time does not depend on
 * them).  To compare with record.py, which prints the same of PyTorch.
 *
 *   mpqc-probe MODEL.onnx SAMPLES THREADS
 */
#include "frontend/frontend.h"
#include "ir/exec.h"
#include "passes/sensitivity/curvature.h"

#include <math.h>
#include <time.h>

#define PROBES 4 /* the fewest that a metric does */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static mpqc_status made_up(void *user, struct mpqc_cx *cx, uint64_t index, void *const *inputs)
{
    const struct mpqc_graph *g = user;
    (void)cx;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        struct mpqc_sens_rng rng = mpqc_sens_rng_make(1, i, index, 0);
        float *x = inputs[i];
        for (int64_t k = 0; k < mpqc_type_count(&g->values[g->inputs[i]].type); k++)
            x[k] = (float)(4 * mpqc_sens_rng_unit(&rng) - 2);
    }
    return MPQC_OK;
}

static mpqc_status probe(struct mpqc_sens_cx *s)
{
    struct mpqc_curvature c;
    double start = 0, trace = 0;
    mpqc_status status = mpqc_curvature_open(s, 1, &c);
    struct mpqc_curve_trace *t = MPQC_NEW_ARRAY(&s->p->keep, struct mpqc_curve_trace,
                                                s->bits->n_layers);
    if (status == MPQC_OK && !t) status = MPQC_OOM(s->p->cx);
    c.most_rounds = PROBES;
    start = seconds();
    if (status == MPQC_OK)
        status = mpqc_curve_traces(&c, &c.weights, MPQC_CURVE_PRODUCTS, t);
    double took = seconds() - start;
    for (uint32_t i = 0; status == MPQC_OK && i < c.weights.n; i++)
        trace += t[i].mean * (double)c.weights.count[i];
    if (status == MPQC_OK)
        printf("%d probes of %llu samples, %.3f s each with %u threads; sum of traces %g\n", PROBES,
               (unsigned long long)c.samples, took / PROBES, s->p->cx->threads, trace);
    mpqc_curvature_close(&c);
    return status;
}

static mpqc_status measure(struct mpqc_pass_cx *p, struct mpqc_graph *g, const char *path,
                           uint64_t samples)
{
    static const char *const passes[] = {"simplify"};
    struct mpqc_import_options import = {0};
    struct mpqc_bits bits;
    bool stopped;
    MPQC_TRY(mpqc_import_onnx(p->cx, path, &import, g));
    MPQC_TRY(mpqc_pipeline_run(p, g, passes, 1, &stopped));
    MPQC_TRY(mpqc_bits_collect(p->cx, g, &p->keep, &bits));
    int64_t *labels = MPQC_NEW_ARRAY(&p->keep, int64_t, samples);
    if (!labels) return MPQC_OOM(p->cx);
    struct mpqc_dataset data = {.count = samples, .get = made_up, .user = g};
    struct mpqc_sens_cx s = {.p = p, .g = g, .bits = &bits, .labels = labels, .samples = samples};
    p->data = &data;
    return probe(&s);
}

int main(int argc, char **argv)
{
    struct mpqc_options options;
    struct mpqc_pass_cx p;
    struct mpqc_graph g;
    struct mpqc_cx cx;
    long n[2] = {0};
    for (int i = 0; argc == 4 && i < 2; i++) n[i] = strtol(argv[2 + i], NULL, 10);
    if (n[0] < 1 || n[1] < 1) {
        fprintf(stderr, "usage: mpqc-probe MODEL.onnx SAMPLES THREADS\n");
        return 1;
    }
    mpqc_cx_init(&cx, NULL);
    cx.threads = (unsigned)n[1];
    mpqc_graph_init(&g, cx.allocator);
    mpqc_options_init(&options);
    mpqc_pass_cx_init(&p, &cx, &options);
    p.engine = &mpqc_interpreter;
    mpqc_status status = measure(&p, &g, argv[1], (uint64_t)n[0]);
    for (uint32_t i = 0; i < cx.n_diags; i++) mpqc_diag_print(&cx.diags[i], stderr);
    mpqc_pass_cx_release(&p);
    mpqc_graph_release(&g);
    mpqc_cx_release(&cx);
    return status == MPQC_OK ? 0 : 1;
}
