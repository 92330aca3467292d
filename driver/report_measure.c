/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What quantisation does to each layer, measured on a few samples.
 */
#include "driver/report.h"

#include <math.h>

/* Samples are as many as this many multiply-accumulates allow, within limits. */
#define WORK 2e9
#define MOST_SAMPLES 16
#define FEWEST_SAMPLES 2

struct layer {
    mpqc_nid node;        /* integer core, MPQC_NONE: not found */
    mpqc_vid stored_real; /* the float value that is stored in `stored` */
    float *weights;       /* dequantised; NULL: none */
    double signal[2], noise[2]; /* isolated, accumulated */
};

struct measure {
    const struct mpqc_report_job *j;
    struct mpqc_layer_facts *facts;
    struct mpqc_arena arena;
    struct layer *layer;
    float **real;   /* by float value: its copy for one sample, or NULL */
    uint32_t *user; /* by integer value: 1 + the layer that stores it, 0: none */
};

/* ---- which integer node a layer became ---- */

static bool is_core(const struct mpqc_graph *g, const struct mpqc_node *n,
                    const struct mpqc_bits_layer *l)
{
    size_t len = strcspn(l->name, "#");
    const char *name = n->loc.node;
    if (strcmp(name, l->name) != 0 && (strncmp(name, l->name, len) != 0 || name[len])) return false;
    return (mpqc_ops[n->op].traits & MPQC_T_LINEAR) && mpqc_is_const(g, n->in[1]) &&
           mpqc_value_at(g, n->in[1])->type.quant;
}

static void find_core(struct measure *m, uint32_t l, bool *taken)
{
    const struct mpqc_graph *g = m->j->integer;
    m->layer[l].node = m->layer[l].stored_real = m->facts[l].stored = MPQC_NONE;
    for (uint32_t i = 0; i < g->n_order; i++) {
        mpqc_nid id = g->order[i];
        if (taken[id] || !is_core(g, mpqc_node_at(g, id), &m->j->mixed->bits.layer[l])) continue;
        taken[id] = true;
        m->layer[l].node = id;
        return;
    }
}

/* The value that the layer's kernel stores keeps its ONNX name; an output of the network
 * gives it to the float form of it. */
static const char *stored_name(const struct mpqc_graph *g, mpqc_vid v)
{
    const char *name = mpqc_value_at(g, v)->name;
    for (uint32_t i = 0; !name && i < g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        if (n->op == MPQC_OP_DEQUANTIZE && n->in[0] == v) name = mpqc_value_at(g, n->out[0])->name;
    }
    return name;
}

static void find_stored(struct measure *m, uint32_t l)
{
    const struct mpqc_plan *plan = m->j->passes->plan;
    for (uint32_t k = 0; k < plan->n_kernels; k++) {
        if (plan->kernels[k].core != m->layer[l].node) continue;
        mpqc_vid v = plan->kernels[k].out;
        const char *name = stored_name(m->j->integer, v);
        const struct mpqc_type *t = &mpqc_value_at(m->j->integer, v)->type;
        for (mpqc_vid r = 0; name && t->quant && r < m->j->real->n_values; r++) {
            const struct mpqc_value *real = mpqc_value_at(m->j->real, r);
            if (!real->name || strcmp(real->name, name) != 0 || real->data ||
                mpqc_type_count(&real->type) != mpqc_type_count(t))
                continue;
            m->layer[l].stored_real = r;
            m->facts[l].stored = v;
            m->user[v] = l + 1;
            return;
        }
    }
}

static int32_t code(const struct mpqc_type *t, const void *data, int64_t i)
{
    bool is_signed = mpqc_dtypes[t->dtype].kind == MPQC_KIND_SINT;
    switch (mpqc_dtypes[t->dtype].bytes) {
    case 1: return is_signed ? ((const int8_t *)data)[i] : ((const uint8_t *)data)[i];
    case 2: return is_signed ? ((const int16_t *)data)[i] : ((const uint16_t *)data)[i];
    default: return ((const int32_t *)data)[i];
    }
}

/* Weights as the integer network has them, one scale for all or one per channel (last
 * axis). */
static void find_weights(struct measure *m, uint32_t l)
{
    const struct mpqc_graph *g = m->j->integer;
    const struct mpqc_bits_layer *bl = &m->j->mixed->bits.layer[l];
    if (m->layer[l].node == MPQC_NONE || bl->weights == MPQC_NONE) return;
    const struct mpqc_value *w = mpqc_value_at(g, mpqc_node_at(g, m->layer[l].node)->in[1]);
    const struct mpqc_quant *q = w->type.quant;
    int64_t n = mpqc_type_count(&w->type), last = w->type.dims[w->type.rank - 1];
    if ((uint64_t)n != bl->params) return;
    if (q->count != 1 && q->axis != (int32_t)w->type.rank - 1) return;
    float *to = m->layer[l].weights = MPQC_NEW_ARRAY(&m->arena, float, (size_t)n);
    for (int64_t i = 0; to && i < n; i++) {
        int64_t c = q->count == 1 ? 0 : i % last;
        to[i] = q->scale[c] * (float)(code(&w->type, w->data, i) - q->zero[c]);
    }
}

/* ---- saturation, from the profile ---- */

static double saturation(const struct measure *m, uint32_t l)
{
    const struct mpqc_graph *g = m->j->integer;
    const struct mpqc_profile *p = m->j->passes->profile;
    mpqc_vid x = mpqc_bits_observed(m->j->real, p, m->j->mixed->bits.layer[l].input);
    if (m->layer[l].node == MPQC_NONE || x == MPQC_NONE) return NAN;
    const struct mpqc_type *t = &mpqc_value_at(g, mpqc_node_at(g, m->layer[l].node)->in[0])->type;
    const struct mpqc_histogram *h = &p->hist[x];
    if (!t->quant) return NAN;
    double scale = (double)t->quant->scale[0], zero = t->quant->zero[0], bin = ldexp(1, h->exp);
    double lo = scale * ((double)mpqc_dtypes[t->dtype].min - zero - 0.5);
    double hi = scale * ((double)mpqc_dtypes[t->dtype].max - zero + 0.5), beyond = 0;
    for (int i = 0; i < MPQC_HIST_BINS; i++) {
        double centre = (i - MPQC_HIST_HALF + 0.5) * bin;
        if (centre < lo || centre > hi) beyond += (double)h->bins[i];
    }
    return beyond / (double)h->count;
}

/* ---- one sample ---- */

static void keep_real(void *user, mpqc_vid v, const struct mpqc_tensor *t)
{
    struct measure *m = user;
    if (m->real[v]) memcpy(m->real[v], t->data, mpqc_type_bytes(&t->type));
}

static void compare_stored(void *user, mpqc_vid v, const struct mpqc_tensor *t)
{
    struct measure *m = user;
    if (!m->user[v]) return;
    struct layer *l = &m->layer[m->user[v] - 1];
    const float *real = m->real[l->stored_real];
    const struct mpqc_quant *q = t->type.quant;
    for (int64_t i = 0; i < mpqc_type_count(&t->type); i++) {
        double y = real[i];
        double e = y - (double)q->scale[0] * (code(&t->type, t->data, i) - q->zero[0]);
        l->signal[1] += y * y;
        l->noise[1] += e * e;
    }
}

/* The layer alone: its float input and weights replaced by what 8 (or fewer) bits make
 * of them. */
static mpqc_status alone(struct measure *m, uint32_t l)
{
    const struct mpqc_graph *g = m->j->real;
    const struct mpqc_bits_layer *bl = &m->j->mixed->bits.layer[l];
    const struct mpqc_node *n = mpqc_node_at(g, bl->node);
    struct layer *layer = &m->layer[l];
    if (!layer->weights) return MPQC_OK;
    const struct mpqc_type *xq =
        &mpqc_value_at(m->j->integer, mpqc_node_at(m->j->integer, layer->node)->in[0])->type;
    if (!xq->quant) return MPQC_OK;
    struct mpqc_tensor x = {mpqc_value_at(g, bl->input)->type, NULL};
    struct mpqc_tensor w = {mpqc_value_at(g, bl->weights)->type, layer->weights};
    struct mpqc_tensor y = {mpqc_value_at(g, bl->output)->type, NULL}, bias;
    const struct mpqc_tensor *in[MPQC_MAX_INPUTS] = {&x, &w};
    struct mpqc_tensor *out[1] = {&y};
    float *fx = x.data = malloc(mpqc_type_bytes(&x.type) + 1);
    float *fy = y.data = malloc(mpqc_type_bytes(&y.type) + 1);
    if (fx && fy) {
        float s = xq->quant->scale[0], z = (float)xq->quant->zero[0];
        float lo = (float)mpqc_dtypes[xq->dtype].min, hi = (float)mpqc_dtypes[xq->dtype].max;
        for (int64_t i = 0; i < mpqc_type_count(&x.type); i++)
            fx[i] = s * (fminf(fmaxf(rintf(m->real[bl->input][i] / s) + z, lo), hi) - z);
        if (n->n_in > 2 && n->in[2] != MPQC_NONE) {
            const struct mpqc_value *b = mpqc_value_at(g, n->in[2]);
            bias = (struct mpqc_tensor){b->type, mpqc_arena_copy(&m->arena, b->data,
                                                                 mpqc_type_bytes(&b->type))};
            if (bias.data) in[2] = &bias;
        }
        mpqc_ops[n->op].ref(n, in, out);
        for (int64_t i = 0; i < mpqc_type_count(&y.type); i++) {
            double real = m->real[bl->output][i], e = real - fy[i];
            layer->signal[0] += real * real;
            layer->noise[0] += e * e;
        }
    }
    free(fx);
    free(fy);
    return fx && fy ? MPQC_OK : MPQC_OOM(m->j->cx);
}

static mpqc_status run(struct measure *m, const struct mpqc_graph *g, void **in,
                       mpqc_observe_fn observe)
{
    const struct mpqc_engine *engine = m->j->passes->engine;
    struct mpqc_runner *runner;
    void **out = MPQC_NEW_ARRAY(&m->arena, void *, g->n_outputs);
    for (uint32_t i = 0; out && i < g->n_outputs; i++)
        out[i] = mpqc_arena_alloc(&m->arena, mpqc_type_bytes(&g->values[g->outputs[i]].type));
    if (m->arena.failed) return MPQC_OOM(m->j->cx);
    MPQC_TRY(engine->prepare(m->j->cx, g, &runner));
    mpqc_status status = engine->run(runner, (const void *const *)in, out, observe, m);
    engine->release(runner);
    return status;
}

/* With -io=int the integer network takes the codes themselves. */
static mpqc_status integer_inputs(struct measure *m, void **in, void **to)
{
    const struct mpqc_graph *g = m->j->integer;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const struct mpqc_type *t = &mpqc_value_at(g, g->inputs[i])->type;
        to[i] = in[i];
        if (!t->quant) continue;
        uint8_t *q = mpqc_arena_alloc(&m->arena, mpqc_type_bytes(t));
        if (!q) return MPQC_OOM(m->j->cx);
        float s = t->quant->scale[0], z = (float)t->quant->zero[0];
        for (int64_t k = 0; k < mpqc_type_count(t); k++)
            q[k] = (uint8_t)fminf(fmaxf(rintf(((float *)in[i])[k] / s) + z, 0),
                                  (float)mpqc_dtypes[t->dtype].max);
        to[i] = q;
    }
    return MPQC_OK;
}

static mpqc_status run_samples(struct measure *m)
{
    const struct mpqc_report_job *j = m->j;
    const struct mpqc_bits *b = &j->mixed->bits;
    double macs = 1;
    for (uint32_t l = 0; l < b->n_layers; l++) macs += (double)b->layer[l].macs;
    uint64_t samples = (uint64_t)fmin(fmax(WORK / (3 * macs), FEWEST_SAMPLES), MOST_SAMPLES);
    if (samples > j->passes->data->count) samples = j->passes->data->count;
    void **in = MPQC_NEW_ARRAY(&m->arena, void *, j->real->n_inputs);
    void **codes = MPQC_NEW_ARRAY(&m->arena, void *, j->real->n_inputs);
    for (uint32_t i = 0; in && i < j->real->n_inputs; i++)
        in[i] = mpqc_arena_alloc(&m->arena,
                                 mpqc_type_bytes(&j->real->values[j->real->inputs[i]].type));
    if (m->arena.failed) return MPQC_OOM(j->cx);
    for (uint64_t s = 0; s < samples; s++) {
        mpqc_cx_progress(j->cx, "report", s, samples);
        MPQC_TRY(j->passes->data->get(j->passes->data->user, j->cx, s, in));
        MPQC_TRY(run(m, j->real, in, keep_real));
        MPQC_TRY(integer_inputs(m, in, codes));
        MPQC_TRY(run(m, j->integer, codes, compare_stored));
        for (uint32_t l = 0; l < b->n_layers; l++) MPQC_TRY(alone(m, l));
    }
    return MPQC_OK;
}

/* ---- together ---- */

static void want(struct measure *m, mpqc_vid v)
{
    if (v == MPQC_NONE || m->real[v]) return;
    m->real[v] = mpqc_arena_alloc(&m->arena, mpqc_type_bytes(&mpqc_value_at(m->j->real, v)->type));
}

static double decibel(double signal, double noise)
{
    if (signal <= 0) return NAN;
    return 10 * log10(signal / fmax(noise, signal * 1e-30));
}

static mpqc_status measure(struct measure *m)
{
    const struct mpqc_bits *b = &m->j->mixed->bits;
    m->layer = MPQC_NEW_ARRAY(&m->arena, struct layer, b->n_layers);
    m->real = MPQC_NEW_ARRAY(&m->arena, float *, m->j->real->n_values);
    m->user = MPQC_NEW_ARRAY(&m->arena, uint32_t, m->j->integer->n_values);
    bool *taken = MPQC_NEW_ARRAY(&m->arena, bool, m->j->integer->n_nodes);
    if (m->arena.failed) return MPQC_OOM(m->j->cx);
    for (uint32_t l = 0; l < b->n_layers; l++) {
        m->facts[l].isolated_db = m->facts[l].accumulated_db = NAN;
        find_core(m, l, taken);
        if (m->layer[l].node != MPQC_NONE) find_stored(m, l);
        find_weights(m, l);
        m->facts[l].saturation = saturation(m, l);
        want(m, b->layer[l].input);
        want(m, b->layer[l].output);
        want(m, m->layer[l].stored_real);
    }
    if (m->arena.failed) return MPQC_OOM(m->j->cx);
    if (!m->j->passes->data) return MPQC_OK;
    MPQC_TRY(run_samples(m));
    for (uint32_t l = 0; l < b->n_layers; l++) {
        m->facts[l].isolated_db = decibel(m->layer[l].signal[0], m->layer[l].noise[0]);
        m->facts[l].accumulated_db = decibel(m->layer[l].signal[1], m->layer[l].noise[1]);
    }
    return MPQC_OK;
}

mpqc_status mpqc_report_measure(const struct mpqc_report_job *j, struct mpqc_layer_facts *facts)
{
    struct measure m = {.j = j, .facts = facts};
    mpqc_arena_init(&m.arena, j->cx->allocator);
    mpqc_status status = measure(&m);
    mpqc_arena_release(&m.arena);
    return status;
}
