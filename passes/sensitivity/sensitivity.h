/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * How much a choice of bits for one layer is expected to raise the loss.  A metric is
 * one function in a file of its own and one row of metrics.def; it fills
 * bits->omega[layer][choice] for the choices that it is asked for: those that the layer may
 * have (mpqc_bits_may), and w8a8, which plans are compared with.  All other entries stay
 * NaN, which no allocation reads.  What an entry is does not depend on which others are
 * asked for.
 *
 * The unit is the metric's own; only differences within one table mean anything.
 * Entries are finite and not negative; the most precise choice need not be 0.
 */
#ifndef MPQC_PASSES_SENSITIVITY_SENSITIVITY_H
#define MPQC_PASSES_SENSITIVITY_SENSITIVITY_H

#include "passes/pass.h"

struct mpqc_sens_cx {
    struct mpqc_pass_cx *p;      /* cx, options, engine, profile; data may be NULL */
    const struct mpqc_graph *g;  /* simplified float graph, of which the profile is */
    /* omega is allocated (NaNs), the metric fills what is asked for; and figures for the
     * report with mpqc_bits_figure, in p->keep */
    struct mpqc_bits *bits;
    const int64_t *labels;       /* class of every sample of p->data, or NULL */
    uint64_t samples;            /* use at most so many of p->data; 0: the metric's default */
};
typedef mpqc_status (*mpqc_sens_fn)(struct mpqc_sens_cx *);

struct mpqc_metric {
    const char *name;
    mpqc_sens_fn run;
    bool needs_data; /* samples, not only a profile */
    const char *doc;
};
extern const struct mpqc_metric mpqc_metrics[];
extern const uint32_t mpqc_n_metrics;
const struct mpqc_metric *mpqc_metric_find(const char *name); /* NULL: unknown */

#define METRIC(name, function, needs_data, doc)                                                   \
    mpqc_status function(struct mpqc_sens_cx *) MPQC_MUST_CHECK;
#include "passes/sensitivity/metrics.def"
#undef METRIC

/* Is a metric asked for choice c of layer l? */
bool mpqc_sens_asked(const struct mpqc_bits *b, uint32_t l, uint32_t c);
/* Allocates omega in p->keep, runs the metric, and checks what it promised. */
mpqc_status mpqc_sensitivity_run(struct mpqc_sens_cx *s, const struct mpqc_metric *m)
    MPQC_MUST_CHECK;

/* ---- for metrics: what quantisation does to numbers ---- */

/* Squared error of the weights of layer l at `bits`, rounded to the nearest, per channel,
 * each clipped where that is best; summed over all weights. */
mpqc_status mpqc_sens_weight_error(const struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                                   const struct mpqc_bits_layer *l, unsigned bits,
                                   double *error) MPQC_MUST_CHECK;
/* Mean square of the weights times their number. */
double mpqc_sens_weight_power(const struct mpqc_graph *g, const struct mpqc_bits_layer *l);
/* Mean squared error of value v at `bits` by the histogram of the profile, and its mean
 * square; where nothing was observed, as if it were uniform over a unit range. */
void mpqc_sens_activation_error(const struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                                mpqc_vid v, unsigned bits, double *error, double *power);

#endif
