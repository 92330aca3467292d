/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * For the metrics made of derivatives: which values of the network the loss is
 * differentiated by, traces of its curvature, and Omega from a curvature per layer.
 *
 * A quantity x (the weights of a layer, or its input) with the error d of quantisation
 * raises the loss by about <d, H d> / 2.  With errors that are independent of each other,
 * of mean 0 and variance s^2, that is s^2 trace(H) / 2, so
 *
 *     Omega = trace(H_w) / n_w * |dw|^2 / 2  +  trace(H_x) / n_x * |dx|^2 / 2,
 *
 * HAWQ-V2 (Dong et al., 2020), equations 5 and 12, with the factor that makes it a loss.
 * For the input, H_x is the mean over the samples, and |dx|^2 the expected squared error.
 */
#ifndef MPQC_PASSES_SENSITIVITY_CURVATURE_H
#define MPQC_PASSES_SENSITIVITY_CURVATURE_H

#include "ir/hvp.h"
#include "passes/sensitivity/samples.h"

/* Forward runs that a product with the Hessian costs. */
#define MPQC_RUNS_PER_PRODUCT 7

/* The values of one kind that the loss is differentiated by. */
struct mpqc_curve_set {
    const struct mpqc_graph *net;
    struct mpqc_graph own;    /* net, where it is not the network itself */
    bool owned;
    uint32_t *net_input;      /* by input of net: index of the network's input */
    mpqc_vid *var;            /* in net */
    int64_t *count;           /* of elements, by variable */
    uint32_t n;
    uint32_t *var_of;         /* by layer: variable, or MPQC_NONE */
    uint32_t *sharers;        /* by variable: layers that have it */
    const char *name;         /* "weights", "inputs" */
};

struct mpqc_curvature {
    struct mpqc_sens_cx *s;
    struct mpqc_sens_loss loss;
    uint64_t samples;
    uint64_t most_rounds; /* of random probes */
    float *targets; /* [samples][count of the target]: what the loss compares with */
    float *answers; /* the same shape: the network's own; targets where there are no labels */
    struct mpqc_arena arena;
    struct mpqc_curve_set weights, inputs;
};
/* Chooses loss and samples, where one sample costs `runs` forward runs; makes both sets
 * and the targets.  Close whatever happened. */
mpqc_status mpqc_curvature_open(struct mpqc_sens_cx *s, double runs, struct mpqc_curvature *c)
    MPQC_MUST_CHECK;
void mpqc_curvature_close(struct mpqc_curvature *c);
/* Points the inputs of a run to a worker's sample; returns how many there are. */
uint32_t mpqc_curve_bind(const struct mpqc_curve_set *set, const struct mpqc_sens_worker *w,
                         struct mpqc_sens_run *r);
const float *mpqc_curve_target(const struct mpqc_curvature *c, uint64_t sample);

/* How a trace is estimated; see trace.c. */
enum mpqc_curve_method {
    MPQC_CURVE_BEST,     /* FACTOR where it is exact, else PRODUCTS */
    MPQC_CURVE_PRODUCTS, /* <v, H v>: any loss, any network */
    MPQC_CURVE_FACTOR,   /* |J' r|^2: the Gauss-Newton (Fisher) part of H */
    MPQC_CURVE_LABELS    /* |g|^2: squared gradients of the loss (empirical Fisher) */
};
/* Are the diagonal blocks of the Hessian those of the Gauss-Newton matrix?  So when the
 * loss compares with the network's own answer, or when the logits are piecewise linear in
 * every layer's weights and input (ReLUs, sums, pools; no products of activations). */
bool mpqc_curve_gauss_newton(const struct mpqc_curvature *c);
/* Mean over the elements of a variable's block, and two standard errors of that: over the
 * samples, as of a draw from all there might be (never below the other), and over the
 * random probes, as of the trace for these very samples (0: it is exact). */
struct mpqc_curve_trace {
    double mean, error, probe_error;
};
mpqc_status mpqc_curve_traces(struct mpqc_curvature *c, const struct mpqc_curve_set *set,
                              enum mpqc_curve_method method, struct mpqc_curve_trace *by_variable)
    MPQC_MUST_CHECK;

/* Largest eigenvalue of one variable's block: of the mean Hessian by weights; the mean over
 * some samples of each one's own by inputs.  *change: of it, in the last step. */
mpqc_status mpqc_curve_top(struct mpqc_curvature *c, const struct mpqc_curve_set *set, uint32_t var,
                           double *top, double *change) MPQC_MUST_CHECK;

/* Fills what is asked for of s->bits->omega from curvature per element, by variable of each
 * set: negative ones (a Hessian need not be positive, an estimate even less) count with their
 * magnitude. */
mpqc_status mpqc_curve_omega(struct mpqc_curvature *c, const double *by_weight,
                             const double *by_input) MPQC_MUST_CHECK;
/* Traces of both sets, Omega, value and error of the report: a whole metric. */
mpqc_status mpqc_curve_metric(struct mpqc_sens_cx *s, enum mpqc_curve_method method)
    MPQC_MUST_CHECK;

#endif
