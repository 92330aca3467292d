/* SPDX-License-Identifier: GPL-3.0-or-later
 * A calibrated network with layers and samples, ready for metrics of sensitivity.
 */
#ifndef MPQC_TESTS_SENSITIVITY_RIG_H
#define MPQC_TESTS_SENSITIVITY_RIG_H

#include "choice.h"
#include "passes/sensitivity/curvature.h"
#include "quant_rig.h"

struct fixture {
    struct qrig r;
    struct mpqc_bits b;
    struct mpqc_sens_cx s;
    int64_t labels[64];
};

/* A calibrated network, ready for metrics on `samples` samples. */
static inline void start(struct fixture *f, const char *text, uint64_t samples)
{
    memset(f, 0, sizeof *f);
    qrig_init(&f->r, text);
    f->r.p.engine = &mpqc_interpreter;
    f->r.cx.seed = 7;
    qrig_run(&f->r, 1);
    assert_int_equal(mpqc_bits_collect(&f->r.cx, &f->r.g, &f->r.p.keep, &f->b), MPQC_OK);
    f->s = (struct mpqc_sens_cx){.p = &f->r.p, .g = &f->r.g, .bits = &f->b, .samples = samples};
}

static inline void stop(struct fixture *f)
{
    qrig_release(&f->r);
}

static inline void run_metric(struct fixture *f, const char *name)
{
    const struct mpqc_metric *m = mpqc_metric_find(name);
    assert_non_null(m);
    mpqc_status status = mpqc_sensitivity_run(&f->s, m);
    if (status != MPQC_OK) mpqc_diag_print(&f->r.cx.diags[0], stderr);
    assert_int_equal(status, MPQC_OK);
}

static inline void assert_near(double got, double want, double relative)
{
    if (fabs(got - want) > relative * fabs(want)) fprintf(stderr, "%.9g, want %.9g\n", got, want);
    assert_true(fabs(got - want) <= relative * fabs(want));
}

#endif
