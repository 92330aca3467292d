/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Measured effects of quantised layers; see perturb.h.
 *
 * The network is cut at each layer l: `head` is the layer alone, with weights as an
 * input, `tail` is everything behind it in order.  For a sample the float network runs
 * once and leaves the values that tails read; then, for every choice that is asked for,
 * head runs on fake-quantised inputs and the tail from there.  So a perturbation costs what follows
 * the layer, half a network on average.  With a prefix the network that leaves the values
 * is one in which every layer is quantised: what lies before layer l depends on the
 * layers before l alone.
 *
 * Layers are done in chunks, which bounds the memory for tails and fake weights.
 */
#include "passes/sensitivity/perturb.h"

#include "passes/quantise.h"
#include "passes/sensitivity/rounded.h"

#include <math.h>

#define CHUNK 8
/* Runs in all by default, in MACs: about a minute at 20 GMAC/s. */
#define BUDGET 1e12
#define LEAST_SAMPLES 4
#define MOST_SAMPLES 128

/* One layer of a chunk. */
struct piece {
    uint32_t layer, position; /* of its node in the order */
    struct mpqc_sens_cut head, tail;
    struct mpqc_sens_rounded rounded;
    struct mpqc_sens_range range[MPQC_SENS_MOST_BITS + 1]; /* of the input, by bits */
};

/* What a pool of workers shares: some layers, and the network that feeds them. */
struct chunk {
    struct mpqc_perturb *p;
    struct mpqc_arena arena;
    struct piece piece[CHUNK];
    uint32_t n, n_heads, n_tails; /* heads and tails initialised */
    struct mpqc_sens_cut base, exact; /* base: float, or quantised; exact: float outputs */
    uint32_t n_base, n_exact;         /* initialised: 0 or 1 */
    mpqc_vid *kept;       /* values that base leaves */
    uint32_t n_kept;
    uint32_t *slot;       /* by value: index into kept */
    const mpqc_vid *outs; /* what is compared */
    uint32_t n_outs;
};

struct worker {
    struct mpqc_sens_run base, exact, head[CHUNK], tail[CHUNK];
    float *input; /* fake-quantised */
};

/* Choices that cannot differ are measured once: layers without weights of their own
 * have 8 bits there always. */
static uint32_t same_choice(const struct mpqc_bits *b, uint32_t layer, uint32_t k)
{
    if (b->layer[layer].weights != MPQC_NONE) return k;
    for (uint32_t j = 0; j < k; j++)
        if (mpqc_sens_asked(b, layer, j) &&
            mpqc_choices[j].activation_bits == mpqc_choices[k].activation_bits)
            return j;
    return k;
}

/* ---- distances ---- */

static double squared_error(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sum;
}

static double log_sum_exp(const float *z, int64_t n, double *top)
{
    double sum = 0;
    *top = -INFINITY;
    for (int64_t i = 0; i < n; i++) *top = fmax(*top, (double)z[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)z[i] - *top);
    return log(sum);
}

/* KL(softmax(a) || softmax(b)), never negative. */
static double divergence(const float *a, const float *b, int64_t n)
{
    double top_a, top_b, la = log_sum_exp(a, n, &top_a), lb = log_sum_exp(b, n, &top_b), sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double log_p = (double)a[i] - top_a - la, log_q = (double)b[i] - top_b - lb;
        sum += exp(log_p) * (log_p - log_q);
    }
    return fmax(sum, 0);
}

/* Between two lists of output buffers. */
static double distance(const struct chunk *c, void *const *a, void *const *b)
{
    double sum = 0;
    int64_t classes = c->p->divergence ? c->p->loss.classes : 0;
    for (uint32_t o = 0; o < c->n_outs; o++) {
        int64_t n = mpqc_type_count(&mpqc_value_at(c->p->s->g, c->outs[o])->type);
        const float *x = a[o], *y = b[o];
        if (classes == 0) sum += squared_error(x, y, n) * (c->p->divergence ? 0.5 : 1);
        for (int64_t i = 0; classes > 0 && i + classes <= n; i += classes)
            sum += divergence(x + i, y + i, classes);
    }
    return sum;
}

static double power(const struct chunk *c, void *const *a)
{
    double sum = 0;
    for (uint32_t o = 0; o < c->n_outs; o++) {
        const float *x = a[o];
        int64_t n = mpqc_type_count(&mpqc_value_at(c->p->s->g, c->outs[o])->type);
        for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    }
    return sum;
}

/* ---- one sample ---- */

/* The float or quantised network's value v: kept by base, or an input of the network. */
static void *value_of(const struct chunk *c, const struct mpqc_sens_worker *w, mpqc_vid v)
{
    const struct worker *k = w->state;
    const struct mpqc_graph *g = c->p->s->g;
    for (uint32_t i = 0; i < g->n_inputs; i++)
        if (g->inputs[i] == v) return w->inputs[i];
    MPQC_ASSERT(c->slot[v] != MPQC_NONE);
    return k->base.out[c->slot[v]];
}

static void shift_channels(const float *shift, uint32_t channels, float *y, int64_t n)
{
    for (int64_t i = 0; shift && i + channels <= n; i += channels)
        for (uint32_t c = 0; c < channels; c++) y[i + c] += shift[c];
}

/* Only the choice's own layer is quantised: its head gives the value for the tail. */
static mpqc_status run_head(const struct chunk *c, struct mpqc_sens_worker *w, uint32_t i,
                            const struct mpqc_choice *choice)
{
    struct worker *k = w->state;
    const struct piece *e = &c->piece[i];
    const struct mpqc_bits_layer *l = &c->p->s->bits->layer[e->layer];
    int64_t n = mpqc_type_count(&mpqc_value_at(c->p->s->g, l->input)->type);
    mpqc_sens_fake(&e->range[choice->activation_bits], value_of(c, w, l->input), k->input, n);
    for (uint32_t j = 0; j < e->head.g.n_inputs; j++) {
        mpqc_vid v = e->head.in[j];
        k->head[i].in[j] = v == l->input     ? k->input
                           : v == l->weights ? e->rounded.weights[choice->weight_bits]
                                             : value_of(c, w, v);
    }
    MPQC_TRY(mpqc_sens_run(&k->head[i]));
    shift_channels(e->rounded.shift[choice->weight_bits], l->channels, k->head[i].out[0],
                   mpqc_type_count(&mpqc_value_at(c->p->s->g, l->output)->type));
    return MPQC_OK;
}

static mpqc_status run_tail(const struct chunk *c, struct mpqc_sens_worker *w, uint32_t i)
{
    struct worker *k = w->state;
    const struct piece *e = &c->piece[i];
    mpqc_vid y = c->p->s->bits->layer[e->layer].output;
    for (uint32_t j = 0; j < e->tail.g.n_inputs; j++) {
        mpqc_vid v = e->tail.in[j];
        k->tail[i].in[j] = v == y ? k->head[i].out[0] : value_of(c, w, v);
    }
    return mpqc_sens_run(&k->tail[i]);
}

/* All choices of piece i that are asked for, into to[mpqc_n_choices]. */
static mpqc_status measure(const struct chunk *c, struct mpqc_sens_worker *w, uint32_t i,
                           double *to)
{
    struct worker *k = w->state;
    const struct mpqc_bits *b = c->p->s->bits;
    uint32_t layer = c->piece[i].layer;
    for (uint32_t v = 0; v < mpqc_n_choices; v++) {
        uint32_t same = same_choice(b, layer, v);
        if (!mpqc_sens_asked(b, layer, v)) {
            to[v] = NAN;
        } else if (same != v) {
            to[v] = to[same];
        } else {
            MPQC_TRY(run_head(c, w, i, &mpqc_choices[v]));
            MPQC_TRY(run_tail(c, w, i));
            to[v] = distance(c, k->exact.out, k->tail[i].out);
        }
    }
    return MPQC_OK;
}

static mpqc_status work(struct mpqc_sens_worker *w, uint64_t index, double *figures)
{
    const struct chunk *c = w->pool->user;
    struct worker *k = w->state;
    MPQC_TRY(mpqc_sens_read(w, index));
    for (uint32_t i = 0; i < c->exact.g.n_inputs; i++)
        k->exact.in[i] = value_of(c, w, c->exact.in[i]);
    for (uint32_t i = 0; i < c->base.g.n_inputs; i++) k->base.in[i] = value_of(c, w, c->base.in[i]);
    MPQC_TRY(mpqc_sens_run(&k->exact));
    MPQC_TRY(mpqc_sens_run(&k->base));
    figures[0] = power(c, k->exact.out);
    for (uint32_t i = 0; i < c->n; i++)
        MPQC_TRY(measure(c, w, i, figures + 1 + (size_t)i * mpqc_n_choices));
    return MPQC_OK;
}

static mpqc_status open_worker(struct mpqc_sens_worker *w)
{
    const struct chunk *c = w->pool->user;
    struct worker *k = w->state;
    int64_t most = 0;
    MPQC_TRY(mpqc_sens_run_open(w, &c->exact.g, &k->exact));
    MPQC_TRY(mpqc_sens_run_open(w, &c->base.g, &k->base));
    for (uint32_t i = 0; i < c->n; i++) {
        mpqc_vid x = c->p->s->bits->layer[c->piece[i].layer].input;
        int64_t n = mpqc_type_count(&mpqc_value_at(c->p->s->g, x)->type);
        if (n > most) most = n;
        MPQC_TRY(mpqc_sens_run_open(w, &c->piece[i].tail.g, &k->tail[i]));
        MPQC_TRY(mpqc_sens_run_open(w, &c->piece[i].head.g, &k->head[i]));
    }
    k->input = MPQC_NEW_ARRAY(&w->arena, float, (size_t)most);
    return k->input ? MPQC_OK : MPQC_OOM(w->pool->s->p->cx);
}

static void close_worker(struct mpqc_sens_worker *w)
{
    struct worker *k = w->state;
    mpqc_sens_run_close(&k->exact);
    mpqc_sens_run_close(&k->base);
    for (uint32_t i = 0; i < CHUNK; i++) {
        mpqc_sens_run_close(&k->tail[i]);
        mpqc_sens_run_close(&k->head[i]);
    }
}

/* ---- cutting up ---- */

static void keep(struct chunk *c, mpqc_vid v)
{
    if (c->slot[v] != MPQC_NONE || mpqc_value_at(c->p->s->g, v)->def == MPQC_NONE) return;
    c->slot[v] = c->n_kept;
    c->kept[c->n_kept++] = v;
}

static mpqc_status fake_weights(struct chunk *c, uint32_t layer, unsigned bits, const float **out)
{
    const struct mpqc_bits_layer *l = &c->p->s->bits->layer[layer];
    const struct mpqc_value *w = mpqc_value_at(c->p->s->g, l->weights);
    int64_t n = mpqc_type_count(&w->type);
    float *fake = MPQC_NEW_ARRAY(&c->arena, float, (size_t)n);
    double error;
    *out = fake;
    if (!fake) return MPQC_OOM(c->p->s->p->cx);
    return mpqc_weights_fake(c->p->s->p, w->data, &w->type, bits, fake, &error);
}

/* The range of a layer's input for so many bits, where not known yet. */
static mpqc_status find_range(struct chunk *c, struct piece *e, unsigned bits)
{
    MPQC_ASSERT(bits <= MPQC_SENS_MOST_BITS);
    if (e->range[bits].scale > 0) return MPQC_OK;
    return mpqc_sens_range_of(c->p->s, &c->p->s->bits->layer[e->layer], bits, &e->range[bits]);
}

/* The layer's node with its weights as an input. */
static mpqc_status cut_head(struct chunk *c, struct piece *e)
{
    struct mpqc_sens_cx *s = c->p->s;
    const struct mpqc_bits_layer *l = &s->bits->layer[e->layer];
    const struct mpqc_node *n = mpqc_node_at(s->g, l->node);
    mpqc_vid in[MPQC_MAX_INPUTS], out;
    struct mpqc_attrs attrs = {.n = n->n_attr};
    struct mpqc_graph *g = &e->head.g;
    mpqc_graph_init(g, s->p->cx->allocator);
    c->n_heads++;
    e->head.in = MPQC_NEW_ARRAY(&c->arena, mpqc_vid, n->n_in);
    if (!e->head.in) return MPQC_OOM(s->p->cx);
    for (uint32_t i = 0; i < n->n_attr; i++) attrs.a[i] = n->attr[i];
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == MPQC_NONE) {
            in[i] = MPQC_NONE;
            continue;
        }
        const struct mpqc_value *v = mpqc_value_at(s->g, n->in[i]);
        bool fixed = v->data && n->in[i] != l->weights;
        if (!fixed) e->head.in[g->n_inputs] = n->in[i];
        in[i] = fixed ? mpqc_graph_const(g, NULL, v->type, v->data, true)
                      : mpqc_graph_input(g, NULL, v->type);
    }
    if (g->arena.failed) return MPQC_OOM(s->p->cx);
    MPQC_TRY(mpqc_node_add(s->p->cx, g, n->op, in, n->n_in, &attrs, n->loc, &out));
    mpqc_graph_output(g, out);
    return mpqc_graph_normalise(s->p->cx, g);
}

static mpqc_status cut_piece(struct chunk *c, struct piece *e)
{
    struct mpqc_sens_cx *s = c->p->s;
    while (s->g->order[e->position] != s->bits->layer[e->layer].node) e->position++;
    MPQC_TRY(cut_head(c, e));
    for (uint32_t k = 0; k < mpqc_n_choices; k++)
        if (mpqc_sens_asked(s->bits, e->layer, k))
            MPQC_TRY(find_range(c, e, mpqc_choices[k].activation_bits));
    c->n_tails++;
    MPQC_TRY(mpqc_sens_cut(s, e->position + 1, s->g->n_order, c->outs, c->n_outs, NULL, &c->arena,
                           &e->tail));
    keep(c, s->bits->layer[e->layer].input);
    for (uint32_t i = 0; i < e->tail.g.n_inputs; i++)
        if (e->tail.in[i] != s->bits->layer[e->layer].output) keep(c, e->tail.in[i]);
    return MPQC_OK;
}

/* All layers as the prefix says. */
static mpqc_status quantise_all(struct chunk *c, struct mpqc_sens_quant *out)
{
    struct mpqc_sens_cx *s = c->p->s;
    uint32_t n = s->bits->n_layers;
    uint32_t *layer_of = mpqc_sens_layer_of(s, &c->arena);
    const float **weights = MPQC_NEW_ARRAY(&c->arena, const float *, n);
    struct mpqc_sens_range *input = MPQC_NEW_ARRAY(&c->arena, struct mpqc_sens_range, n);
    if (c->arena.failed) return MPQC_OOM(s->p->cx);
    for (uint32_t l = 0; l < n; l++) {
        const struct mpqc_choice *choice = &mpqc_choices[c->p->prefix[l]];
        const struct mpqc_bits_layer *layer = &s->bits->layer[l];
        if (layer->weights != MPQC_NONE)
            MPQC_TRY(fake_weights(c, l, choice->weight_bits, &weights[l]));
        MPQC_TRY(mpqc_sens_range_of(s, layer, choice->activation_bits, &input[l]));
    }
    *out = (struct mpqc_sens_quant){layer_of, weights, input, NULL};
    return MPQC_OK;
}

/* Everything that the workers share. */
static mpqc_status cut_chunk(struct chunk *c, uint32_t first)
{
    struct mpqc_perturb *p = c->p;
    struct mpqc_sens_cx *s = p->s;
    struct mpqc_sens_quant quant;
    struct mpqc_sens_rounded rounded[CHUNK];
    MPQC_TRY(mpqc_sens_round(s, first, c->n, p->samples, &c->arena, rounded));
    c->kept = MPQC_NEW_ARRAY(&c->arena, mpqc_vid, s->g->n_values);
    c->slot = MPQC_NEW_ARRAY(&c->arena, uint32_t, s->g->n_values);
    if (c->arena.failed) return MPQC_OOM(s->p->cx);
    for (mpqc_vid v = 0; v < s->g->n_values; v++) c->slot[v] = MPQC_NONE;
    for (uint32_t i = 0; i < c->n; i++) {
        c->piece[i].layer = first + i;
        c->piece[i].rounded = rounded[i];
        MPQC_TRY(cut_piece(c, &c->piece[i]));
    }
    if (p->prefix) MPQC_TRY(quantise_all(c, &quant));
    c->n_base = 1;
    MPQC_TRY(mpqc_sens_cut(s, 0, s->g->n_order, c->kept, c->n_kept, p->prefix ? &quant : NULL,
                           &c->arena, &c->base));
    c->n_exact = 1;
    return mpqc_sens_cut(s, 0, s->g->n_order, c->outs, c->n_outs, NULL, &c->arena, &c->exact);
}

/* One pool over the samples for layers [first, first + c->n). */
static mpqc_status run_chunk(struct chunk *c, uint32_t first, uint64_t total)
{
    static const struct mpqc_sens_task task = {sizeof(struct worker), open_worker, work,
                                               close_worker};
    struct mpqc_perturb *p = c->p;
    uint32_t n = c->n * mpqc_n_choices;
    struct mpqc_sens_pool pool = {.s = p->s, .task = &task, .user = c, .stage = p->stage,
                                  .n_items = p->samples, .n_figures = 1 + n, .total = total};
    double *sums = MPQC_NEW_ARRAY(&c->arena, double, 1 + (size_t)n);
    if (!sums) return MPQC_OOM(p->s->p->cx);
    MPQC_TRY(cut_chunk(c, first));
    mpqc_status status = mpqc_sens_pool_open(&pool);
    pool.done = first / CHUNK * p->samples;
    if (status == MPQC_OK) status = mpqc_sens_pool_run(&pool);
    if (status == MPQC_OK) mpqc_sens_pool_sums(&pool, sums);
    mpqc_sens_pool_close(&pool);
    p->signal = sums[0];
    memcpy(p->distance + (size_t)first * mpqc_n_choices, sums + 1, n * sizeof *sums);
    return status;
}

static void release_chunk(struct chunk *c)
{
    for (uint32_t i = 0; i < c->n_tails; i++) mpqc_graph_release(&c->piece[i].tail.g);
    for (uint32_t i = 0; i < c->n_heads; i++) mpqc_graph_release(&c->piece[i].head.g);
    if (c->n_base) mpqc_graph_release(&c->base.g);
    if (c->n_exact) mpqc_graph_release(&c->exact.g);
    mpqc_arena_release(&c->arena);
}

mpqc_status mpqc_perturb_open(struct mpqc_sens_cx *s, struct mpqc_perturb *p)
{
    const int64_t *labels = s->labels;
    /* as if all choices were asked for: an entry does not depend on how many are */
    double macs = mpqc_sens_macs(s) * s->bits->n_layers * mpqc_n_choices / 2;
    p->s = s;
    p->samples = mpqc_sens_count(s, macs, BUDGET, LEAST_SAMPLES, MOST_SAMPLES);
    s->labels = NULL; /* the comparison is with the float network */
    mpqc_status status = mpqc_sens_loss_choose(s, &p->loss);
    s->labels = labels;
    return status;
}

mpqc_status mpqc_perturb_run(struct mpqc_perturb *p)
{
    struct mpqc_sens_cx *s = p->s;
    uint32_t n = s->bits->n_layers;
    uint64_t total = (n + CHUNK - 1) / CHUNK * p->samples;
    bool all = p->loss.classes == 0;
    mpqc_status status = MPQC_OK;
    for (uint32_t first = 0; first < n && status == MPQC_OK; first += CHUNK) {
        struct chunk c = {.p = p, .n = n - first < CHUNK ? n - first : CHUNK};
        c.outs = all ? s->g->outputs : &p->loss.compared;
        c.n_outs = all ? s->g->n_outputs : 1;
        mpqc_arena_init(&c.arena, s->p->cx->allocator);
        status = run_chunk(&c, first, total);
        release_chunk(&c);
    }
    return status;
}
