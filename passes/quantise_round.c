/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights below 8 bits, rounded for what their layer really sees and should give.
 *
 * The input is that of the integer network made so far, x~; the target is what the
 * float network has behind the layer, t, less the residual that the integer network
 * will add.  So each layer makes up for the errors of those before it, as far as a
 * linear map can:
 *
 *     min over codes, scale, bias of  E |W x~ + b - t|^2
 *
 * The bias is free, so only central moments count for the weights, and the bias then
 * takes up what the means differ by (bias correction).  Windows of all samples are
 * drawn evenly, many more than the layer has weights per channel.
 */
#include "ir/op.h"
#include "ir/elements.h"
#include "passes/quantise.h"
#include "passes/replay.h"
#include "passes/weights.h"

#define BLOCK 1024
#define FILL 64 /* windows that one task fills */

/* A layer as windows. */
struct windows {
    struct mpqc_quantiser *q;
    const struct mpqc_cluster *c;
    const struct mpqc_round *r;  /* of all groups: q, scale, w */
    mpqc_vid x, sum, residual;   /* residual: new value, or MPQC_NONE */
    double sum_sign, residual_sign;
    bool conv, target, central;
    struct mpqc_window win;
    int64_t groups, icg, k, ocg; /* per group */
    uint64_t rows, per_sample, all;
    double *bias;
};

/* One group at work. */
struct filler {
    const struct windows *w;
    int64_t group;
    uint64_t first, n;
    float *x, *t;
};

static void fill_input(const struct windows *w, const struct mpqc_tensor *x, int64_t group,
                       int64_t at, float *to)
{
    const struct mpqc_quant *quant = x->type.quant;
    int32_t zero = quant->zero[0];
    if (w->conv) {
        const int64_t *out = mpqc_value_at(w->q->g, w->sum)->type.dims;
        struct mpqc_rows rows = {.x = x, .nw = w->win.kw, .dh = w->win.dh, .dw = w->win.dw,
                                 .channels = w->icg, .first_channel = group * w->icg, .zero = zero};
        struct mpqc_origin origin = {.n = at / (out[1] * out[2]),
                                     .top = at / out[2] % out[1] * w->win.sh - w->win.pt,
                                     .left = at % out[2] * w->win.sw - w->win.pl};
        mpqc_rows_load(&rows, &origin, 1, 0, w->k, to, w->k);
    } else {
        mpqc_gemm_load(x->type.dtype, x->data, at * w->k, w->k, zero, to);
    }
    for (int64_t i = 0; i < w->k; i++) to[i] *= quant->scale[0];
}

static void fill_target(const struct windows *w, uint64_t sample, int64_t group, int64_t at,
                        float *to)
{
    int64_t from = at * w->groups * w->ocg + group * w->ocg;
    struct mpqc_tensor sum = mpqc_replay_tensor(w->q->replay, w->sum, sample), r = {0};
    const float *s = (const float *)sum.data + from;
    for (int64_t c = 0; c < w->ocg; c++) to[c] = (float)w->sum_sign * s[c];
    for (int64_t c = 0; !w->central && c < w->ocg; c++)
        to[c] -= (float)w->bias[group * w->ocg + c];
    if (w->residual == MPQC_NONE) return;
    r = mpqc_replay_tensor(w->q->replay, w->residual, sample);
    float scale = (float)w->residual_sign * r.type.quant->scale[0];
    for (int64_t c = 0; c < w->ocg; c++)
        to[c] += scale * (float)(mpqc_element_get(r.type.dtype, r.data, from + c) -
                                 r.type.quant->zero[0]);
}

/* Window number n: spread over all, with steps that are no multiple of a row. */
static uint64_t pick(const struct windows *w, uint64_t n)
{
    if (w->rows == w->all) return n;
    uint64_t hash = (n + 1) * 0x9e3779b97f4a7c15u, from = n * w->all / w->rows;
    uint64_t room = (n + 1) * w->all / w->rows - from;
    return from + (hash >> 32) % (room ? room : 1);
}

static mpqc_status fill_some(void *user, unsigned worker, uint64_t index)
{
    const struct filler *f = user;
    const struct windows *w = f->w;
    uint64_t end = (index + 1) * FILL < f->n ? (index + 1) * FILL : f->n;
    (void)worker;
    for (uint64_t i = index * FILL; i < end; i++) {
        uint64_t n = pick(w, f->first + i), sample = n / w->per_sample;
        int64_t at = (int64_t)(n % w->per_sample);
        struct mpqc_tensor x = mpqc_replay_tensor(w->q->replay, w->x, sample);
        fill_input(w, &x, f->group, at, f->x + i * (uint64_t)w->k);
        if (w->target) fill_target(w, sample, f->group, at, f->t + i * (uint64_t)w->ocg);
    }
    return MPQC_OK;
}

static mpqc_status collect(const struct windows *w, int64_t group, unsigned threads,
                           struct mpqc_arena *arena, struct mpqc_moments *m)
{
    struct filler f = {.w = w, .group = group};
    f.x = MPQC_NEW_ARRAY(arena, float, (size_t)(BLOCK * w->k));
    f.t = w->target ? MPQC_NEW_ARRAY(arena, float, (size_t)(BLOCK * w->ocg)) : NULL;
    if (!mpqc_moments_init(m, arena, w->k, w->ocg, w->target)) return MPQC_NO_MEMORY;
    for (; f.first < w->rows; f.first += f.n) {
        f.n = w->rows - f.first < BLOCK ? w->rows - f.first : BLOCK;
        MPQC_TRY(mpqc_for_each(threads, (f.n + FILL - 1) / FILL, fill_some, &f));
        MPQC_TRY(mpqc_moments_add(m, threads, (int64_t)f.n, f.x, f.t));
    }
    mpqc_moments_finish(m, w->central);
    return MPQC_OK;
}

/* The bias that makes the mean right. */
static void correct_bias(const struct windows *w, int64_t group, const struct mpqc_moments *m)
{
    const struct mpqc_round *r = w->r;
    for (int64_t c = 0; c < w->ocg; c++) {
        int64_t channel = group * w->ocg + c;
        double shift = 0;
        for (int64_t i = 0; i < w->k; i++) {
            double real = (double)r->scale[channel] * r->q[i * r->stride + channel];
            double want = w->target ? 0 : (double)r->w[i * r->stride + channel];
            shift += (want - real) * m->x[i];
        }
        w->bias[channel] = (w->target ? m->t[c] : w->bias[channel]) + shift;
    }
}

static mpqc_status round_group(const struct windows *w, int64_t group, unsigned threads)
{
    struct mpqc_arena arena;
    struct mpqc_moments m;
    struct mpqc_round r = *w->r;
    int64_t first = group * w->ocg;
    mpqc_arena_init(&arena, w->q->cx->allocator);
    r.threads = threads;
    r.k = w->k;
    r.channels = w->ocg;
    r.w += first;
    r.q += first;
    r.scale += first;
    mpqc_status status = MPQC_OK;
    if (w->q->replay) {
        status = collect(w, group, threads, &arena, &m);
        r.moments = &m;
    }
    if (status == MPQC_OK) status = mpqc_round_weights(w->q->cx, &r);
    if (status == MPQC_OK && w->q->replay && w->central) correct_bias(w, group, &m);
    mpqc_arena_release(&arena);
    return status;
}

static mpqc_status group_task(void *user, unsigned worker, uint64_t group)
{
    (void)worker;
    return round_group(user, (int64_t)group, 1);
}

/* ---- reading the layer ---------------------------------------------------------------- */

static void read_target(struct windows *w)
{
    struct mpqc_quantiser *q = w->q;
    const struct mpqc_cluster *c = w->c;
    mpqc_vid core = mpqc_node_at(q->g, c->core)->out[0];
    w->target = q->p->options->rounding == MPQC_ROUND_GPTQ;
    w->sum = core;
    w->residual = MPQC_NONE;
    w->sum_sign = 1;
    if (c->add == MPQC_NONE) return;
    const struct mpqc_node *add = mpqc_node_at(q->g, c->add);
    mpqc_vid other = mpqc_other_input(add, core), r = q->as_int[other];
    if (mpqc_is_const(q->g, other) || r == MPQC_NONE) return;
    enum mpqc_dtype t = mpqc_value_at(q->g, r)->type.dtype;
    if (!mpqc_dtype_is_byte(t) && t != MPQC_DT_I16) return;
    w->sum = c->sum;
    w->residual = r;
    bool sub = add->op == MPQC_OP_SUB, second = sub && add->in[1] == core;
    w->sum_sign = second ? -1 : 1;       /* t = r~ - s when s = r - t, */
    w->residual_sign = sub ? 1 : -1;     /* t = s + r~ when s = t - r, else t = s - r~ */
}

/* How many windows: enough for the moments to be well known, and no more. */
static uint64_t enough(int64_t k)
{
    if (k < 32) return 8192;
    return k < 4096 ? 24576 : 6 * (uint64_t)k;
}

static mpqc_status read_layer(struct windows *w)
{
    struct mpqc_quantiser *q = w->q;
    const struct mpqc_node *n = mpqc_node_at(q->g, w->c->core);
    const struct mpqc_type *wt = &mpqc_value_at(q->g, n->in[1])->type;
    w->conv = n->op == MPQC_OP_CONV;
    w->groups = w->conv ? mpqc_attr_int_or(n, MPQC_ATTR_GROUP, 1) : 1;
    w->ocg = w->r->channels / w->groups;
    w->icg = w->conv ? wt->dims[2] : w->r->k;
    w->k = w->r->k;
    if (w->conv) w->win = mpqc_window_of(n, wt->dims[0], wt->dims[1]);
    w->central = q->p->options->bias_correct;
    if (!q->replay) return MPQC_OK;
    read_target(w);
    MPQC_TRY(mpqc_replay_to(q->replay, w->c, w->x));
    int64_t results = mpqc_type_count(&mpqc_value_at(q->g, w->sum)->type);
    w->per_sample = (uint64_t)(results / w->r->channels);
    w->all = w->per_sample * mpqc_replay_samples(q->replay);
    w->rows = w->all < enough(w->k) ? w->all : enough(w->k);
    return MPQC_OK;
}

mpqc_status mpqc_round_cluster(struct mpqc_quantiser *q, const struct mpqc_cluster *c, mpqc_vid x,
                               double unit, const struct mpqc_weights *w,
                               const struct mpqc_codes *codes, double *bias)
{
    const struct mpqc_options *o = q->p->options;
    struct mpqc_round r = {.k = w->rows, .channels = w->channels, .w = w->w,
                           .stride = w->channels, .rounding = o->rounding, .clip = o->weight_clip,
                           .bits = codes->bits, .q = codes->q, .scale = codes->scale,
                           .group = codes->group, .factor = codes->factor,
                           .threads = q->cx->threads};
    struct windows in = {.q = q, .c = c, .r = &r, .x = x, .bias = bias};
    r.largest_scale = 0.999 * unit / (double)mpqc_params_of_new(q, x).scale;
    mpqc_cx_progress(q->cx, "round weights", q->low_done++, q->n_low);
    if (w->channels == 0 || w->rows == 0) return MPQC_OK;
    MPQC_TRY(read_layer(&in));
    mpqc_status status = in.groups == 1
                             ? round_group(&in, 0, q->cx->threads)
                             : mpqc_for_each(q->cx->threads, (uint64_t)in.groups, group_task, &in);
    return status == MPQC_NO_MEMORY ? MPQC_OOM(q->cx) : status;
}
