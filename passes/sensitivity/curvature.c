/* SPDX-License-Identifier: GPL-3.0-or-later
 * Variables of the curvature metrics, and Omega; see curvature.h.
 */
#include "passes/sensitivity/curvature.h"

#include <math.h>

/* MACs that a metric may cost by default (some minutes on the interpreter, seconds on
 * compiled code), and what a sample's statistics want at least and at most. */
#define BUDGET 1e12
#define LEAST_SAMPLES 16
#define MOST_SAMPLES 128

/* MACs of random probes, after which ENOUGH_ROUNDS must do. */
#define PROBE_BUDGET 1e12
#define ENOUGH_ROUNDS 8
#define MOST_ROUNDS 96

static mpqc_status make_set(struct mpqc_curvature *c, struct mpqc_curve_set *set)
{
    struct mpqc_sens_cx *s = c->s;
    size_t n = s->bits->n_layers;
    set->var = MPQC_NEW_ARRAY(&c->arena, mpqc_vid, n);
    set->count = MPQC_NEW_ARRAY(&c->arena, int64_t, n);
    set->sharers = MPQC_NEW_ARRAY(&c->arena, uint32_t, n);
    set->var_of = MPQC_NEW_ARRAY(&c->arena, uint32_t, n);
    set->net_input = MPQC_NEW_ARRAY(&c->arena, uint32_t, s->g->n_inputs);
    if (c->arena.failed) return MPQC_OOM(s->p->cx);
    for (uint32_t i = 0; i < s->g->n_inputs; i++) set->net_input[i] = i;
    return MPQC_OK;
}

/* Layer l differentiates by v of the set's net. */
static void add_variable(struct mpqc_curve_set *set, uint32_t l, mpqc_vid v)
{
    uint32_t i = 0;
    while (i < set->n && set->var[i] != v) i++;
    set->var[i] = v;
    set->count[i] = mpqc_type_count(&mpqc_value_at(set->net, v)->type);
    set->sharers[i]++;
    set->var_of[l] = i;
    if (i == set->n) set->n++;
}

static mpqc_status make_weights(struct mpqc_curvature *c)
{
    struct mpqc_curve_set *set = &c->weights;
    MPQC_TRY(make_set(c, set));
    set->net = c->s->g;
    for (uint32_t l = 0; l < c->s->bits->n_layers; l++) {
        set->var_of[l] = MPQC_NONE;
        if (c->s->bits->layer[l].weights != MPQC_NONE)
            add_variable(set, l, c->s->bits->layer[l].weights);
    }
    return MPQC_OK;
}

/* The network in which every layer reads a copy of its input. */
static mpqc_status make_inputs(struct mpqc_curvature *c)
{
    struct mpqc_sens_cx *s = c->s;
    struct mpqc_curve_set *set = &c->inputs;
    struct mpqc_sens_cut cut;
    struct mpqc_sens_quant quant = {.layer_of = mpqc_sens_layer_of(s, &c->arena)};
    quant.tap = MPQC_NEW_ARRAY(&c->arena, mpqc_vid, s->bits->n_layers);
    if (c->arena.failed) return MPQC_OOM(s->p->cx);
    MPQC_TRY(make_set(c, set));
    mpqc_status status = mpqc_sens_cut(s, 0, s->g->n_order, s->g->outputs, s->g->n_outputs, &quant,
                                       &c->arena, &cut);
    set->own = cut.g;
    set->owned = true;
    set->net = &set->own;
    MPQC_TRY(status);
    for (uint32_t i = 0; i < cut.g.n_inputs; i++)
        for (uint32_t k = 0; k < s->g->n_inputs; k++)
            if (s->g->inputs[k] == cut.in[i]) set->net_input[i] = k;
    for (uint32_t l = 0; l < s->bits->n_layers; l++) add_variable(set, l, quant.tap[l]);
    return MPQC_OK;
}

mpqc_status mpqc_curvature_open(struct mpqc_sens_cx *s, double runs, struct mpqc_curvature *c)
{
    memset(c, 0, sizeof *c);
    c->s = s;
    mpqc_arena_init(&c->arena, s->p->cx->allocator);
    MPQC_TRY(mpqc_sens_loss_choose(s, &c->loss));
    c->samples = mpqc_sens_count(s, mpqc_sens_macs(s) * runs, BUDGET, LEAST_SAMPLES, MOST_SAMPLES);
    if (c->samples == 0)
        return MPQC_FAIL(s->p->cx, DATA, MPQC_NOWHERE, "there are no samples to compute "
                         "sensitivities with");
    double round = mpqc_sens_macs(s) * (double)c->samples * MPQC_RUNS_PER_PRODUCT;
    c->most_rounds = (uint64_t)fmin(fmax(PROBE_BUDGET / round, ENOUGH_ROUNDS), MOST_ROUNDS);
    MPQC_TRY(make_weights(c));
    MPQC_TRY(make_inputs(c));
    c->weights.name = "weights";
    c->inputs.name = "inputs";
    MPQC_TRY(mpqc_sens_targets(s, &c->loss, c->samples, &c->arena, &c->targets));
    c->answers = c->targets;
    if (c->loss.kind != MPQC_LOSS_CROSS_ENTROPY) return MPQC_OK;
    struct mpqc_sens_loss own = c->loss;
    own.kind = MPQC_LOSS_KL;
    return mpqc_sens_targets(s, &own, c->samples, &c->arena, &c->answers);
}

void mpqc_curvature_close(struct mpqc_curvature *c)
{
    if (c->inputs.owned) mpqc_graph_release(&c->inputs.own);
    mpqc_arena_release(&c->arena);
}

uint32_t mpqc_curve_bind(const struct mpqc_curve_set *set, const struct mpqc_sens_worker *w,
                         struct mpqc_sens_run *r)
{
    for (uint32_t i = 0; i < set->net->n_inputs; i++) r->in[i] = w->inputs[set->net_input[i]];
    return set->net->n_inputs;
}

const float *mpqc_curve_target(const struct mpqc_curvature *c, uint64_t sample)
{
    return c->targets + sample * (uint64_t)mpqc_type_count(&c->loss.target);
}

/* Squared error of the weights of layer l, computed once per number of bits. */
static mpqc_status weight_error(const struct mpqc_sens_cx *s, uint32_t l, unsigned bits,
                                double *known, double *error)
{
    if (known[bits] < 0)
        MPQC_TRY(mpqc_sens_weight_error(s->p, s->g, &s->bits->layer[l], bits, &known[bits]));
    *error = known[bits];
    return MPQC_OK;
}

static mpqc_status layer_omega(struct mpqc_curvature *c, uint32_t l, double by_weight,
                               double by_input, double *omega)
{
    const struct mpqc_bits_layer *layer = &c->s->bits->layer[l];
    double known[33], dw, error, power;
    for (size_t i = 0; i < MPQC_LEN(known); i++) known[i] = -1;
    for (uint32_t k = 0; k < mpqc_n_choices; k++) {
        const struct mpqc_choice *choice = &mpqc_choices[k];
        if (!mpqc_sens_asked(c->s->bits, l, k)) continue;
        MPQC_TRY(weight_error(c->s, l, choice->weight_bits, known, &dw));
        mpqc_sens_activation_error(c->s->p, c->s->g, layer->input, choice->activation_bits, &error,
                                   &power);
        omega[k] = (by_weight * dw + by_input * error) / 2;
    }
    return MPQC_OK;
}

mpqc_status mpqc_curve_omega(struct mpqc_curvature *c, const double *by_weight,
                             const double *by_input)
{
    const struct mpqc_bits *b = c->s->bits;
    for (uint32_t l = 0; l < b->n_layers; l++) {
        uint32_t w = c->weights.var_of[l], x = c->inputs.var_of[l];
        double of_w = w == MPQC_NONE ? 0 : fabs(by_weight[w]) / c->weights.sharers[w];
        double of_x = fabs(by_input[x]) * (double)c->inputs.count[x];
        MPQC_TRY(layer_omega(c, l, of_w, of_x, b->omega + (size_t)l * mpqc_n_choices));
    }
    return MPQC_OK;
}
