/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Rounded weights for metrics; see rounded.h.
 *
 * The float network runs over the samples, a batch at a time; every sample gives the same
 * number of windows of each layer's input, drawn evenly, and these the moments.
 * quantise_round.c does the same one layer after the other, with what the integer network
 * really has there: more exact, but it needs all decisions about the layers before.
 */
#include "passes/sensitivity/rounded.h"

#include "ir/op.h"
#include "passes/quantise.h"
#include "passes/weights.h"

#define BATCH 8
/* Windows of a layer: so many for each of its k weights a channel, within bounds. */
#define ROWS_PER_WEIGHT 4
#define LEAST_ROWS 2048
/* MACs that the runs for the moments of all layers may cost. */
#define BUDGET 5e11
#define LEAST_SAMPLES 16
#define MOST_SAMPLES 256

/* One layer with weights. */
struct layer {
    uint32_t index;
    const struct mpqc_bits_layer *of;
    const struct mpqc_node *node;
    bool conv;
    struct mpqc_window win;
    int64_t groups, icg, k, ocg; /* k weights for each of ocg channels of a group */
    int64_t oh, ow, per_sample;  /* windows that there are */
    int64_t drawn;               /* of each sample */
    float *x;                    /* [BATCH][group][drawn][k] */
    struct mpqc_moments *moments; /* by group */
};

struct job {
    struct mpqc_sens_cx *s;
    struct mpqc_arena *arena;
    struct layer *layer;
    uint32_t n;
    struct mpqc_sens_cut net;  /* leaves the inputs of the layers */
    uint32_t *output;          /* of net, by layer; MPQC_NONE: an input of the network */
    uint64_t end, first;       /* samples; first: of the batch */
    uint64_t samples;
    uint32_t current;          /* layer that group tasks are about */
};

/* ---- windows of one sample ---- */

static mpqc_status open_worker(struct mpqc_sens_worker *w)
{
    const struct job *j = w->pool->user;
    return mpqc_sens_run_open(w, &j->net.g, w->state);
}

static void close_worker(struct mpqc_sens_worker *w) { mpqc_sens_run_close(w->state); }

static void load_window(const struct layer *l, const struct mpqc_tensor *x, int64_t group,
                        int64_t at, float *to)
{
    if (!l->conv) {
        memcpy(to, (const float *)x->data + at * l->k, (size_t)l->k * sizeof *to);
        return;
    }
    struct mpqc_rows rows = {.x = x, .nw = l->win.kw, .dh = l->win.dh, .dw = l->win.dw,
                             .channels = l->icg, .first_channel = group * l->icg};
    struct mpqc_origin origin = {.n = at / (l->oh * l->ow),
                                 .top = at / l->ow % l->oh * l->win.sh - l->win.pt,
                                 .left = at % l->ow * l->win.sw - l->win.pl};
    mpqc_rows_load(&rows, &origin, 1, 0, l->k, to, l->k);
}

static void load_windows(const struct layer *l, const struct mpqc_tensor *x, uint64_t sample,
                         int64_t slot)
{
    struct mpqc_sens_rng rng = mpqc_sens_rng_make(0, l->index, sample, 0);
    float *to = l->x + slot * l->groups * l->drawn * l->k;
    for (int64_t i = 0; i < l->drawn; i++) {
        int64_t from = i * l->per_sample / l->drawn;
        int64_t room = (i + 1) * l->per_sample / l->drawn - from;
        int64_t at = from + (int64_t)(mpqc_sens_rng_bits(&rng) >> 33) % room;
        for (int64_t g = 0; g < l->groups; g++)
            load_window(l, x, g, at, to + (g * l->drawn + i) * l->k);
    }
}

static mpqc_status work(struct mpqc_sens_worker *w, uint64_t index, double *figures)
{
    const struct job *j = w->pool->user;
    const struct mpqc_graph *g = j->s->g;
    struct mpqc_sens_run *r = w->state;
    (void)figures;
    if (j->first + index >= j->end) return MPQC_OK;
    MPQC_TRY(mpqc_sens_read(w, j->first + index));
    for (uint32_t i = 0; i < j->net.g.n_inputs; i++)
        for (uint32_t k = 0; k < g->n_inputs; k++)
            if (g->inputs[k] == j->net.in[i]) r->in[i] = w->inputs[k];
    MPQC_TRY(mpqc_sens_run(r));
    for (uint32_t i = 0; i < j->n; i++) {
        mpqc_vid v = j->layer[i].of->input;
        struct mpqc_tensor x = {.type = mpqc_value_at(g, v)->type};
        for (uint32_t k = 0; k < g->n_inputs; k++)
            if (g->inputs[k] == v) x.data = w->inputs[k];
        if (j->output[i] != MPQC_NONE) x.data = r->out[j->output[i]];
        load_windows(&j->layer[i], &x, j->first + index, (int64_t)index);
    }
    return MPQC_OK;
}

/* ---- moments ---- */

static mpqc_status add_group(void *user, unsigned worker, uint64_t group)
{
    const struct job *j = user;
    const struct layer *l = &j->layer[j->current];
    uint64_t left = j->end - j->first, n = left < BATCH ? left : BATCH;
    unsigned threads = l->groups == 1 ? j->s->p->cx->threads : 1;
    (void)worker;
    for (uint64_t i = 0; i < n; i++) {
        const float *x = l->x + ((int64_t)i * l->groups + (int64_t)group) * l->drawn * l->k;
        MPQC_TRY(mpqc_moments_add(&l->moments[group], threads, l->drawn, x, NULL));
    }
    return MPQC_OK;
}

/* Every group of every layer; alone, a group may use all threads itself. */
static mpqc_status each_group(struct job *j, mpqc_status (*task)(void *, unsigned, uint64_t))
{
    for (j->current = 0; j->current < j->n; j->current++) {
        uint64_t groups = (uint64_t)j->layer[j->current].groups;
        MPQC_TRY(mpqc_for_each(groups == 1 ? 1 : j->s->p->cx->threads, groups, task, j));
    }
    return MPQC_OK;
}

static mpqc_status finish_group(void *user, unsigned worker, uint64_t group)
{
    const struct job *j = user;
    (void)worker;
    mpqc_moments_finish(&j->layer[j->current].moments[group], j->s->p->options->bias_correct);
    return MPQC_OK;
}

static mpqc_status collect(struct job *j)
{
    static const struct mpqc_sens_task task = {sizeof(struct mpqc_sens_run), open_worker, work,
                                               close_worker};
    struct mpqc_sens_pool pool = {.s = j->s, .task = &task, .user = j, .n_items = BATCH,
                                  .n_figures = 1};
    mpqc_status status = mpqc_sens_pool_open(&pool);
    for (; status == MPQC_OK && j->first < j->end; j->first += BATCH) {
        status = mpqc_sens_pool_run(&pool);
        if (status == MPQC_OK) status = each_group(j, add_group);
    }
    mpqc_sens_pool_close(&pool);
    return status == MPQC_OK ? each_group(j, finish_group) : status;
}

/* ---- rounding ---- */

/* Real values of the codes; what the bias takes up of their error. */
static void unpack(const struct layer *l, const struct mpqc_round *r, int64_t group, bool central,
                   float *weights, float *shift)
{
    int64_t first = group * l->ocg;
    for (int64_t c = 0; c < l->ocg; c++) {
        double sum = 0;
        for (int64_t i = 0; i < l->k; i++) {
            int64_t at = i * r->stride + c;
            weights[first + at] = r->scale[c] * (float)r->q[at];
            sum += ((double)r->w[at] - weights[first + at]) * l->moments[group].x[i];
        }
        shift[first + c] = central ? (float)sum : 0;
    }
}

struct rounding {
    const struct job *j;
    const struct layer *l;
    unsigned bits;
    int8_t *q;
    float *scale, *weights, *shift;
};

static mpqc_status round_group(void *user, unsigned worker, uint64_t group)
{
    const struct rounding *t = user;
    const struct layer *l = t->l;
    const struct mpqc_options *o = t->j->s->p->options;
    int64_t first = (int64_t)group * l->ocg;
    const struct mpqc_value *v = mpqc_value_at(t->j->s->g, l->of->weights);
    const float *w = v->data;
    struct mpqc_round r = {.k = l->k, .channels = l->ocg, .w = w + first,
                           .group = mpqc_weight_group(o, t->bits, &v->type),
                           .stride = l->of->channels, .bits = t->bits, .rounding = o->rounding,
                           .clip = o->weight_clip, .moments = &l->moments[group],
                           .threads = l->groups == 1 ? t->j->s->p->cx->threads : 1,
                           .q = t->q + first, .scale = t->scale + first};
    (void)worker;
    MPQC_TRY(mpqc_round_weights(t->j->s->p->cx, &r));
    unpack(l, &r, (int64_t)group, o->bias_correct, t->weights, t->shift);
    return MPQC_OK;
}

static mpqc_status round_layer(const struct job *j, const struct layer *l, unsigned bits,
                               struct mpqc_sens_rounded *out)
{
    struct mpqc_cx *cx = j->s->p->cx;
    const struct mpqc_value *w = mpqc_value_at(j->s->g, l->of->weights);
    size_t n = (size_t)mpqc_type_count(&w->type), channels = l->of->channels;
    struct rounding t = {.j = j, .l = l, .bits = bits};
    double error;
    t.weights = MPQC_NEW_ARRAY(j->arena, float, n);
    out->weights[bits] = t.weights;
    if (!t.weights) return MPQC_OOM(cx);
    if (bits == 8) /* always to the nearest */
        return mpqc_weights_fake(j->s->p, w->data, &w->type, 8, t.weights, &error);
    t.q = MPQC_NEW_ARRAY(j->arena, int8_t, n);
    t.scale = MPQC_NEW_ARRAY(j->arena, float, channels);
    t.shift = MPQC_NEW_ARRAY(j->arena, float, channels);
    out->shift[bits] = t.shift;
    if (j->arena->failed) return MPQC_OOM(cx);
    mpqc_status status = mpqc_for_each(l->groups == 1 ? 1 : cx->threads, (uint64_t)l->groups,
                                       round_group, &t);
    return status == MPQC_NO_MEMORY ? MPQC_OOM(cx) : status;
}

/* ---- the layers ---- */

static mpqc_status read_layer(struct job *j, uint32_t index, struct layer *l)
{
    const struct mpqc_graph *g = j->s->g;
    *l = (struct layer){.index = index, .of = &j->s->bits->layer[index], .oh = 1, .ow = 1};
    l->node = mpqc_node_at(g, l->of->node);
    const struct mpqc_type *w = &mpqc_value_at(g, l->of->weights)->type;
    const struct mpqc_type *y = &mpqc_value_at(g, l->of->output)->type;
    l->conv = l->node->op == MPQC_OP_CONV;
    l->groups = l->conv ? mpqc_attr_int_or(l->node, MPQC_ATTR_GROUP, 1) : 1;
    l->ocg = l->of->channels / l->groups;
    l->k = mpqc_type_count(w) / l->of->channels;
    if (l->conv) {
        l->win = mpqc_window_of(l->node, w->dims[0], w->dims[1]);
        l->icg = w->dims[2];
        l->oh = y->dims[1];
        l->ow = y->dims[2];
    }
    l->per_sample = mpqc_type_count(y) / l->of->channels;
    int64_t rows = l->k * ROWS_PER_WEIGHT > LEAST_ROWS ? l->k * ROWS_PER_WEIGHT : LEAST_ROWS;
    l->drawn = (rows + (int64_t)j->samples - 1) / (int64_t)j->samples;
    if (l->drawn > l->per_sample) l->drawn = l->per_sample;
    l->x = MPQC_NEW_ARRAY(j->arena, float, (size_t)(BATCH * l->groups * l->drawn * l->k));
    l->moments = MPQC_NEW_ARRAY(j->arena, struct mpqc_moments, (size_t)l->groups);
    if (j->arena->failed) return MPQC_OOM(j->s->p->cx);
    for (int64_t i = 0; i < l->groups; i++)
        if (!mpqc_moments_init(&l->moments[i], j->arena, l->k, l->ocg, false))
            return MPQC_OOM(j->s->p->cx);
    return MPQC_OK;
}

/* The network up to the layers. */
static mpqc_status cut(struct job *j)
{
    const struct mpqc_graph *g = j->s->g;
    mpqc_vid *outs = MPQC_NEW_ARRAY(j->arena, mpqc_vid, j->n);
    uint32_t n_outs = 0;
    j->output = MPQC_NEW_ARRAY(j->arena, uint32_t, j->n);
    if (j->arena->failed) return MPQC_OOM(j->s->p->cx);
    for (uint32_t i = 0; i < j->n; i++) {
        mpqc_vid v = j->layer[i].of->input;
        j->output[i] = MPQC_NONE;
        if (mpqc_value_at(g, v)->def == MPQC_NONE) continue;
        for (j->output[i] = 0; j->output[i] < n_outs && outs[j->output[i]] != v;) j->output[i]++;
        if (j->output[i] == n_outs) outs[n_outs++] = v;
    }
    return mpqc_sens_cut(j->s, 0, g->n_order, outs, n_outs, NULL, j->arena, &j->net);
}

static mpqc_status run(struct job *j, uint32_t first, uint32_t n, struct mpqc_sens_rounded *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (struct mpqc_sens_rounded){0};
        if (j->s->bits->layer[first + i].weights == MPQC_NONE) continue;
        MPQC_TRY(read_layer(j, first + i, &j->layer[j->n++]));
    }
    if (j->n == 0) return MPQC_OK;
    MPQC_TRY(cut(j));
    MPQC_TRY(collect(j));
    for (uint32_t i = 0; i < j->n; i++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            struct mpqc_sens_rounded *to = &out[j->layer[i].index - first];
            unsigned bits = mpqc_choices[c].weight_bits;
            if (!mpqc_sens_asked(j->s->bits, j->layer[i].index, c)) continue;
            if (!to->weights[bits]) MPQC_TRY(round_layer(j, &j->layer[i], bits, to));
        }
    return MPQC_OK;
}

mpqc_status mpqc_sens_round(struct mpqc_sens_cx *s, uint32_t first, uint32_t n, uint64_t skip,
                            struct mpqc_arena *arena, struct mpqc_sens_rounded *out)
{
    struct job j = {.s = s, .arena = arena};
    uint64_t all = s->p->data->count;
    /* up to a layer is half the network on average; this is called for some at a time */
    double macs = mpqc_sens_macs(s) / 2 * ((double)s->bits->n_layers / n);
    j.samples = mpqc_sens_count(s, macs, BUDGET, LEAST_SAMPLES, MOST_SAMPLES);
    j.first = all >= 2 * skip && all - skip >= LEAST_SAMPLES ? skip : 0;
    if (j.samples > all - j.first) j.samples = all - j.first;
    if (j.samples == 0)
        return MPQC_FAIL(s->p->cx, DATA, MPQC_NOWHERE, "there are no samples to compute "
                         "sensitivities with");
    j.end = j.first + j.samples;
    j.layer = MPQC_NEW_ARRAY(arena, struct layer, n);
    if (!j.layer) return MPQC_OOM(s->p->cx);
    mpqc_graph_init(&j.net.g, s->p->cx->allocator);
    mpqc_status status = run(&j, first, n, out);
    mpqc_graph_release(&j.net.g);
    return status;
}
