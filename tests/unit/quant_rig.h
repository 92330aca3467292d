/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * For tests of calibrate, quantise, fuse and plan: a float graph as text, pseudo-random
 * calibration data, the passes, and both graphs run by the interpreter.
 */
#ifndef MPQC_TESTS_QUANT_RIG_H
#define MPQC_TESTS_QUANT_RIG_H

#include "ir/text.h"
#include "passes/pass.h"
#include "passes/report.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct qcase {
    const char *name;
    double least_db;
    uint32_t kernels;
    const char *text;
};
static const struct qcase qcases[] = {
#define QCASE(name, least_db, kernels, text) {#name, least_db, kernels, text},
#include "quant_cases.def"
#undef QCASE
};

struct qrig {
    struct mpqc_cx cx;
    struct mpqc_graph real, g; /* float; what the passes work on */
    struct mpqc_options options;
    struct mpqc_pass_cx p;
    struct mpqc_dataset data;
    uint32_t seed;
    float amplitude;
    uint64_t poison_sample; /* its first number is NaN */
};

static inline float qrig_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

/* Sample `index`: uniform in [-amplitude, amplitude), a function of seed and index. */
static inline mpqc_status qrig_get(void *user, struct mpqc_cx *cx, uint64_t index,
                                   void *const *inputs)
{
    struct qrig *r = user;
    uint32_t state = r->seed + (uint32_t)index * 7919u;
    (void)cx;
    for (uint32_t i = 0; i < r->real.n_inputs; i++) {
        float *x = inputs[i];
        int64_t n = mpqc_type_count(&r->real.values[r->real.inputs[i]].type);
        for (int64_t k = 0; k < n; k++) x[k] = r->amplitude * qrig_random(&state);
        if (index == r->poison_sample) x[0] = (float)NAN;
    }
    return MPQC_OK;
}

static inline void qrig_init(struct qrig *r, const char *text)
{
    memset(r, 0, sizeof *r);
    mpqc_cx_init(&r->cx, &mpqc_malloc_allocator);
    r->cx.threads = 1;
    mpqc_graph_init(&r->real, &mpqc_malloc_allocator);
    mpqc_graph_init(&r->g, &mpqc_malloc_allocator);
    mpqc_options_init(&r->options);
    r->options.verify_each = true;
    mpqc_pass_cx_init(&r->p, &r->cx, &r->options);
    r->seed = 1;
    r->amplitude = 1;
    r->poison_sample = UINT64_MAX;
    r->data = (struct mpqc_dataset){.count = 32, .get = qrig_get, .user = r};
    r->p.data = &r->data;
    mpqc_status status = mpqc_graph_parse(&r->cx, text, strlen(text), "case", &r->real);
    if (status == MPQC_OK) status = mpqc_graph_normalise(&r->cx, &r->real);
    if (status != MPQC_OK) mpqc_diag_print(&r->cx.diags[0], stderr);
    assert_int_equal(status, MPQC_OK);
    assert_int_equal(mpqc_graph_clone(&r->cx, &r->real, &r->g, &r->p.scratch, NULL), MPQC_OK);
}

static inline void qrig_release(struct qrig *r)
{
    mpqc_graph_release(&r->g);
    mpqc_graph_release(&r->real);
    mpqc_pass_cx_release(&r->p);
    mpqc_cx_release(&r->cx);
}

/* The first n of calibrate, quantise, fuse, plan. */
static inline mpqc_status qrig_try(struct qrig *r, uint32_t n)
{
    static const char *const names[] = {"calibrate", "quantise", "fuse", "plan"};
    bool stopped;
    return mpqc_pipeline_run(&r->p, &r->g, names, n, &stopped);
}

static inline void qrig_run(struct qrig *r, uint32_t n)
{
    mpqc_status status = qrig_try(r, n);
    if (status != MPQC_OK) mpqc_diag_print(&r->cx.diags[0], stderr);
    assert_int_equal(status, MPQC_OK);
}

/* Float against integer graph on samples that calibration did not see. */
static inline struct mpqc_accuracy qrig_accuracy(struct qrig *r)
{
    struct mpqc_accuracy a;
    r->seed += 1000003u;
    assert_int_equal(mpqc_report_accuracy(&r->cx, &mpqc_interpreter, &r->real, &r->g, &r->data, 0, 16,
                                          &a), MPQC_OK);
    r->seed -= 1000003u;
    return a;
}

/* Canonical text of the graph; the caller frees. */
static inline char *qrig_text(const struct qrig *r)
{
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    mpqc_graph_print(&r->g, &b, true);
    assert_false(b.failed);
    return b.data;
}

/* How many live nodes of an operator there are. */
static inline uint32_t qrig_count(const struct qrig *r, enum mpqc_op op)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->g.n_order; i++) n += r->g.nodes[r->g.order[i]].op == op;
    return n;
}

#endif
