/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Metrics sqnr and sqnr-accumulated: noise at the network's outputs (the logits of
 * classes) as a share of their power, in the float graph with quantised layers.
 *
 * sqnr quantises one layer at a time: Omega = sum |y - y'|^2 / sum |y|^2, which adds up
 * over layers as far as their errors are independent.  Unlike a divergence it does not
 * depend on how sure the network is of its samples, which those that it was trained on
 * exaggerate.  sqnr-accumulated has all layers before this one in w8a8; Omega is what this
 * layer then adds to their noise (0 where it takes some away).  With few bits in the layers
 * before, too, what one adds would drown in the products of its error with theirs.
 */
#include "passes/sensitivity/perturb.h"

#include <math.h>

static double decibel(double signal, double noise)
{
    return 10 * log10(fmax(signal, 1e-300) / fmax(noise, signal * 1e-30 + 1e-300));
}

static mpqc_status prepare(struct mpqc_sens_cx *s, const uint32_t *prefix, struct mpqc_perturb *p)
{
    size_t n = (size_t)s->bits->n_layers * mpqc_n_choices;
    *p = (struct mpqc_perturb){
        .prefix = prefix, .distance = MPQC_NEW_ARRAY(&s->p->scratch, double, n),
        .stage = prefix ? "sensitivity: SQNR, layers added up" : "sensitivity: SQNR by layer"};
    return p->distance ? mpqc_perturb_open(s, p) : MPQC_OOM(s->p->cx);
}

/* The report shows the SQNR of w8a8, which every layer is asked for. */
static mpqc_status fill_figure(struct mpqc_sens_cx *s, const struct mpqc_perturb *p)
{
    double *db = mpqc_bits_figure(s->bits, &s->p->keep, "sqnr_db");
    for (uint32_t l = 0; db && l < s->bits->n_layers; l++)
        db[l] = decibel(p->signal,
                        p->distance[(size_t)l * mpqc_n_choices + mpqc_choice_plain()]);
    return db ? MPQC_OK : MPQC_OOM(s->p->cx);
}

mpqc_status mpqc_sens_sqnr(struct mpqc_sens_cx *s)
{
    struct mpqc_perturb p;
    MPQC_TRY(prepare(s, NULL, &p));
    MPQC_TRY(mpqc_perturb_run(&p));
    for (size_t i = 0; i < (size_t)s->bits->n_layers * mpqc_n_choices; i++)
        s->bits->omega[i] = p.distance[i] / fmax(p.signal, 1e-300);
    return fill_figure(s, &p);
}

mpqc_status mpqc_sens_sqnr_accumulated(struct mpqc_sens_cx *s)
{
    struct mpqc_perturb p;
    uint32_t *precise = MPQC_NEW_ARRAY(&s->p->scratch, uint32_t, s->bits->n_layers);
    uint32_t plain = mpqc_choice_plain();
    if (!precise) return MPQC_OOM(s->p->cx);
    for (uint32_t l = 0; l < s->bits->n_layers; l++) precise[l] = plain;
    MPQC_TRY(prepare(s, precise, &p));
    MPQC_TRY(mpqc_perturb_run(&p));
    for (size_t i = 0; i < (size_t)s->bits->n_layers * mpqc_n_choices; i++) {
        size_t l = i / mpqc_n_choices;
        if (isnan(p.distance[i])) continue; /* fmax would make it a loss of 0 */
        double before = l == 0 ? 0 : p.distance[(l - 1) * mpqc_n_choices + plain];
        s->bits->omega[i] = fmax(p.distance[i] - before, 0) / fmax(p.signal, 1e-300);
    }
    return fill_figure(s, &p);
}
