/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Metric weight-mse: the relative error that quantisation makes in the result of one
 * layer, from weights and profile alone.  With errors that are independent of the data,
 *
 *     E|dy|^2 / E|y|^2  ~  |dW|^2 / |W|^2  +  E[dx^2] / E[x^2]
 *
 * (first order; inputs taken as uncorrelated).  Every layer weighs the same, whatever
 * follows it: the cheapest sensitivity there is, and the one to beat.
 */
#include "passes/sensitivity/sensitivity.h"

#include "passes/quantise.h"

#include <math.h>

mpqc_status mpqc_sens_weight_error(const struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                                   const struct mpqc_bits_layer *l, unsigned bits, double *error)
{
    *error = 0;
    if (l->weights == MPQC_NONE) return MPQC_OK;
    const struct mpqc_value *v = mpqc_value_at(g, l->weights);
    return mpqc_weights_fake(p, v->data, &v->type, bits, NULL, error);
}

double mpqc_sens_weight_power(const struct mpqc_graph *g, const struct mpqc_bits_layer *l)
{
    if (l->weights == MPQC_NONE) return 1;
    const struct mpqc_value *v = mpqc_value_at(g, l->weights);
    const float *w = v->data;
    double sum = 0;
    for (int64_t i = 0; i < mpqc_type_count(&v->type); i++) sum += (double)w[i] * w[i];
    return sum;
}

mpqc_status mpqc_sens_weight_mse(struct mpqc_sens_cx *s)
{
    const struct mpqc_bits *b = s->bits;
    for (uint32_t l = 0; l < b->n_layers; l++) {
        const struct mpqc_bits_layer *layer = &b->layer[l];
        double power = fmax(mpqc_sens_weight_power(s->g, layer), 1e-300), by_bits[9] = {0};
        mpqc_cx_progress(s->p->cx, "sensitivity", l, b->n_layers);
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            if (!mpqc_sens_asked(b, l, c)) continue;
            unsigned w = mpqc_choices[c].weight_bits;
            double error, x2, *known = w < MPQC_LEN(by_bits) ? &by_bits[w] : NULL;
            double dw = known ? *known : 0;
            if (!(dw > 0)) MPQC_TRY(mpqc_sens_weight_error(s->p, s->g, layer, w, &dw));
            if (known) *known = dw;
            mpqc_sens_activation_error(s->p, s->g, layer->input, mpqc_choices[c].activation_bits,
                                       &error, &x2);
            b->omega[(size_t)l * mpqc_n_choices + c] = dw / power + error / x2;
        }
    }
    return MPQC_OK;
}
