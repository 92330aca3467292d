/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Metrics sqnr and sqnr-accumulated: noise at the network's outputs as a share of their
 * power, in the float graph with fake-quantised layers.
 *
 * sqnr quantises one layer at a time: Omega = sum |y - y'|^2 / sum |y|^2, which adds up
 * over layers as far as their errors are independent.  sqnr-accumulated quantises all
 * layers up to this one with the same choice; Omega is what this layer adds to the noise
 * of those before it (0 where it takes some away).
 */
#include "passes/sensitivity/perturb.h"

#include <math.h>

/* Runs in all per default, in MACs: about a minute at 10 GMAC/s. */
#define BUDGET 1e12
#define LEAST_SAMPLES 4
#define MOST_SAMPLES 64

static double decibel(double signal, double noise)
{
    return 10 * log10(fmax(signal, 1e-300) / fmax(noise, signal * 1e-30 + 1e-300));
}

static mpqc_status prepare(struct mpqc_sens_cx *s, bool accumulated, struct mpqc_perturb *p)
{
    const struct mpqc_bits *b = s->bits;
    double macs = mpqc_sens_macs(s) * b->n_layers * mpqc_n_choices / 2;
    *p = (struct mpqc_perturb){
        .s = s, .n_variants = mpqc_n_choices, .accumulated = accumulated,
        .samples = mpqc_sens_count(s, macs, BUDGET, LEAST_SAMPLES, MOST_SAMPLES),
        .stage = accumulated ? "sensitivity: SQNR, layers added up" : "sensitivity: SQNR by layer"};
    p->distance = MPQC_NEW_ARRAY(&s->p->scratch, double, (size_t)b->n_layers * mpqc_n_choices);
    return p->distance ? MPQC_OK : MPQC_OOM(s->p->cx);
}

/* The report shows the SQNR of the most precise choice. */
static void fill_values(struct mpqc_sens_cx *s, const struct mpqc_perturb *p)
{
    for (uint32_t l = 0; l < s->bits->n_layers; l++)
        s->value[l] = decibel(p->signal, p->distance[(size_t)l * mpqc_n_choices]);
}

mpqc_status mpqc_sens_sqnr(struct mpqc_sens_cx *s)
{
    struct mpqc_perturb p;
    MPQC_TRY(prepare(s, false, &p));
    MPQC_TRY(mpqc_perturb_run(&p));
    for (size_t i = 0; i < (size_t)s->bits->n_layers * mpqc_n_choices; i++)
        s->bits->omega[i] = p.distance[i] / fmax(p.signal, 1e-300);
    fill_values(s, &p);
    return MPQC_OK;
}

mpqc_status mpqc_sens_sqnr_accumulated(struct mpqc_sens_cx *s)
{
    struct mpqc_perturb p;
    MPQC_TRY(prepare(s, true, &p));
    MPQC_TRY(mpqc_perturb_run(&p));
    for (size_t i = 0; i < (size_t)s->bits->n_layers * mpqc_n_choices; i++) {
        double before = i < mpqc_n_choices ? 0 : p.distance[i - mpqc_n_choices];
        s->bits->omega[i] = fmax(p.distance[i] - before, 0) / fmax(p.signal, 1e-300);
    }
    fill_values(s, &p);
    return MPQC_OK;
}

mpqc_status mpqc_sens_plan_sqnr(struct mpqc_sens_cx *s, const uint32_t *chosen, double *isolated,
                                double *accumulated)
{
    struct mpqc_perturb p = {.s = s, .n_variants = 1, .chosen = chosen,
                             .stage = "report: SQNR by layer"};
    uint32_t n = s->bits->n_layers;
    p.samples = mpqc_sens_count(s, mpqc_sens_macs(s) * n, BUDGET / 4, LEAST_SAMPLES, 32);
    p.distance = isolated;
    MPQC_TRY(mpqc_perturb_run(&p));
    p.distance = accumulated;
    p.accumulated = true;
    MPQC_TRY(mpqc_perturb_run(&p));
    for (uint32_t l = 0; l < n; l++) {
        isolated[l] = decibel(p.signal, isolated[l]);
        accumulated[l] = decibel(p.signal, accumulated[l]);
    }
    return MPQC_OK;
}
