/* SPDX-License-Identifier: GPL-3.0-or-later
 * Costs by arithmetic; see cost.h.
 */
#include "passes/cost.h"

#include <math.h>

static unsigned stored_bits(const struct mpqc_bits_layer *layer, uint32_t choice)
{
    return layer->unpacked ? 8 : mpqc_choices[choice].weight_bits;
}

/* Codes, and factors of groups. */
static double weight_bytes(const struct mpqc_bits_layer *layer, uint32_t choice)
{
    unsigned bits = stored_bits(layer, choice);
    double rows = layer->channels ? (double)(layer->params / layer->channels) : 0, factors = 0;
    if (layer->group && bits >= MPQC_GROUP_LEAST_BITS && bits <= MPQC_GROUP_MOST_BITS)
        factors = ceil(rows / (double)layer->group) * (double)layer->channels;
    return ceil((double)layer->params * bits / 8) + factors;
}

mpqc_status mpqc_cost_bytes(struct mpqc_cx *cx, struct mpqc_bits *b, struct mpqc_arena *arena)
{
    b->bytes = MPQC_NEW_ARRAY(arena, double, (size_t)b->n_layers * mpqc_n_choices);
    if (!b->bytes) return MPQC_OOM(cx);
    for (uint32_t l = 0; l < b->n_layers; l++) {
        const struct mpqc_bits_layer *layer = &b->layer[l];
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            double packed = weight_bytes(layer, c);
            b->bytes[(size_t)l * mpqc_n_choices + c] =
                (layer->shared == l ? packed : 0) + MPQC_CHANNEL_BYTES * (double)layer->channels;
        }
    }
    return MPQC_OK;
}

static double elements(const struct mpqc_graph *g, mpqc_vid v)
{
    return (double)mpqc_type_count(&mpqc_value_at(g, v)->type);
}

mpqc_status mpqc_cost_analytic(struct mpqc_cx *cx, const struct mpqc_graph *g, struct mpqc_bits *b,
                               const struct mpqc_machine *m, struct mpqc_arena *arena)
{
    b->latency = MPQC_NEW_ARRAY(arena, double, (size_t)b->n_layers * mpqc_n_choices);
    if (!b->latency) return MPQC_OOM(cx);
    for (uint32_t l = 0; l < b->n_layers; l++) {
        const struct mpqc_bits_layer *layer = &b->layer[l];
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            double compute = (double)layer->macs / m->macs_per_ns;
            bool wide = mpqc_choice_wide(c); /* half as many products in a vector */
            if (wide) compute *= 2;
            if (stored_bits(layer, c) < 8) compute *= 1 + m->unpack;
            if (mpqc_choice_counts(c) && m->bits_per_ns > 0 && !layer->grouped)
                compute = fmin(compute, b->bops[(size_t)l * mpqc_n_choices + c] / m->bits_per_ns);
            /* activations of up to 8 bits are kept in bytes */
            double bytes = weight_bytes(layer, c) + elements(g, layer->input) * (wide ? 2 : 1) +
                           elements(g, layer->output);
            b->latency[(size_t)l * mpqc_n_choices + c] =
                m->start_ns + fmax(compute, bytes / m->bytes_per_ns);
        }
    }
    return MPQC_OK;
}
