/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights to integers: symmetric, one scale per output channel, in [-127, 127]; bias in
 * int32 at scale_x * scale_w.  Fewer than 8 bits: see quantise_round.c.
 *
 * The proof that no accumulator overflows.  Templates may add products in any order,
 * and may feed x or x - 128 instead of x - zero, with the difference in the bias.
 * Every partial sum of every such order lies within
 *     |bias| + 255 sum |w| + 255 |sum w|   (128 |sum w| for the offset form)
 * or, where x is an i16 of codes up to A (quantise_params.c) and there is no zero point,
 *     |bias| + A sum |w|
 * and this bound is kept below 2^30 for each channel; the rounding constant that
 * requant adds is at most 2^30, so everything stays within int32.  A channel that
 * exceeds the bound (a pruned one: tiny weights, so that its bias has an enormous
 * integer) gets a larger weight scale.
 */
#include "passes/quantise.h"
#include "passes/weights.h"

#include <math.h>

#define WEIGHT_MAX 127.0
#define BOUND 1073741824.0 /* 2^30 */

static struct mpqc_where here(const struct mpqc_quantiser *q)
{
    return (struct mpqc_where){.node = q->loc.node, .op = q->loc.op, .offset = q->loc.offset};
}

/* ---- per channel factors as a 1x1 depthwise convolution ------------------------------ */

static mpqc_status batchnorm_factors(const struct mpqc_graph *g, const struct mpqc_node *n,
                                     int64_t channels, float *w, float *b)
{
    const float *p[5] = {NULL};
    for (uint32_t i = 1; i < 5; i++) p[i] = mpqc_value_at(g, n->in[i])->data;
    double eps = mpqc_attr_float_or(n, MPQC_ATTR_EPSILON, 1e-5f);
    for (int64_t i = 0; i < channels; i++) {
        double a = (double)p[1][i] / sqrt((double)p[4][i] + eps);
        w[i] = (float)a;
        b[i] = (float)((double)p[2][i] - (double)p[3][i] * a);
    }
    return MPQC_OK;
}

static mpqc_status binary_factors(const struct mpqc_graph *g, const struct mpqc_node *n,
                                  int64_t channels, float *w, float *b)
{
    bool first = mpqc_is_const(g, n->in[0]);
    const float *c = mpqc_value_at(g, n->in[first ? 0 : 1])->data;
    for (int64_t i = 0; i < channels; i++) {
        bool sub = n->op == MPQC_OP_SUB;
        w[i] = n->op == MPQC_OP_MUL ? c[i] : n->op == MPQC_OP_DIV ? 1.0f / c[i]
                                           : sub && first        ? -1.0f
                                                                 : 1.0f;
        b[i] = n->op == MPQC_OP_ADD || (sub && first) ? c[i] : sub ? -c[i] : 0.0f;
    }
    return MPQC_OK;
}

static mpqc_status check_finite(struct mpqc_quantiser *q, const struct mpqc_weights *w)
{
    for (int64_t i = 0; i < w->rows * w->channels; i++)
        if (!isfinite(w->w[i]))
            return MPQC_FAIL(q->cx, DATA, here(q), "weight %lld is not a finite number",
                             (long long)i);
    for (int64_t i = 0; w->bias && i < w->channels; i++)
        if (!isfinite(w->bias[i]))
            return MPQC_FAIL(q->cx, DATA, here(q), "bias %lld is not a finite number",
                             (long long)i);
    return MPQC_OK;
}

mpqc_status mpqc_weights_of(struct mpqc_quantiser *q, const struct mpqc_cluster *c,
                            struct mpqc_weights *out)
{
    const struct mpqc_graph *g = q->g;
    const struct mpqc_node *n = mpqc_node_at(g, c->core);
    q->loc = n->loc;
    if (c->rule == MPQC_RULE_LINEAR) {
        const struct mpqc_value *w = mpqc_value_at(g, n->in[1]);
        out->type = w->type;
        out->channels = w->type.dims[w->type.rank - 1];
        out->rows = out->channels ? mpqc_type_count(&w->type) / out->channels : 0;
        out->w = w->data;
        bool bias = n->n_in > 2 && n->in[2] != MPQC_NONE;
        out->bias = bias ? mpqc_value_at(g, n->in[2])->data : NULL;
        return check_finite(q, out);
    }
    const struct mpqc_type *t = &mpqc_value_at(g, n->out[0])->type;
    int64_t dims[4] = {1, 1, 1, t->dims[t->rank - 1]};
    float *w = MPQC_NEW_ARRAY(&q->p->scratch, float, (size_t)dims[3]);
    float *b = MPQC_NEW_ARRAY(&q->p->scratch, float, (size_t)dims[3]);
    if (!w || !b) return MPQC_OOM(q->cx);
    *out = (struct mpqc_weights){.rows = 1, .channels = dims[3], .w = w, .bias = b};
    out->type = mpqc_type_make(MPQC_DT_F32, 4, dims);
    MPQC_TRY((n->op == MPQC_OP_BATCHNORM ? batchnorm_factors : binary_factors)(g, n, dims[3], w, b));
    return check_finite(q, out);
}

double *mpqc_weights_scales(struct mpqc_quantiser *q, const struct mpqc_weights *w, unsigned bits)
{
    struct mpqc_arena *a = &q->p->scratch;
    double *scale = MPQC_NEW_ARRAY(a, double, (size_t)w->channels);
    if (scale && bits == 8) mpqc_weights_channel_scales(w->w, w->rows, w->channels, scale);
    if (!scale || bits == 8) return scale;
    /* a first guess by rounding without data */
    struct mpqc_round r = {.k = w->rows, .channels = w->channels, .w = w->w, .bits = bits,
                           .stride = w->channels, .clip = q->p->options->weight_clip,
                           .group = mpqc_weight_group(q->p->options, bits, &w->type),
                           .rounding = MPQC_ROUND_NEAREST, .threads = q->cx->threads};
    r.q = MPQC_NEW_ARRAY(a, int8_t, (size_t)(w->rows * w->channels));
    r.scale = MPQC_NEW_ARRAY(a, float, (size_t)w->channels);
    if (a->failed || mpqc_round_weights(q->cx, &r) != MPQC_OK) return NULL;
    for (int64_t c = 0; c < w->channels; c++) scale[c] = fabs((double)r.scale[c]);
    return scale;
}

/* ---- quantisation ----------------------------------------------------------------------- */

struct channel_job {
    const struct mpqc_weights *w;
    struct mpqc_codes codes;
    bool rounded;    /* codes and scales are there */
    double sx;       /* scale of the input */
    double reach;    /* its largest code */
    bool offset;     /* it has a zero point, or may be fed as x - 128 */
    const double *real_bias; /* NULL: none */
    int32_t *bias;
};

static double most_code(const struct channel_job *j)
{
    return j->codes.bits == 1 ? 1 : (double)(1 << (j->codes.bits - 1)) - 1;
}

/* What rounding took from weight r of channel c, in steps. */
static double rounding_error(const struct channel_job *j, int64_t r, int64_t c)
{
    int64_t at = r * j->w->channels + c;
    return (double)j->w->w[at] / (double)j->codes.scale[c] - (double)j->codes.q[at];
}

/* Nearest codes, then the few that were nearly rounded the other way are, so that the
 * errors of a channel sum to nothing.  Inputs behind a ReLU have positive means, and a
 * sum of errors would shift the channel's mean by as much (Nagel et al., "Data-free
 * quantization through weight equalization and bias correction", 2019, section 3.2,
 * which corrects the bias instead).  Errors are sorted into buckets, which keeps this
 * linear in the number of weights. */
#define BUCKETS 256
static int bucket_of(double error)
{
    int b = (int)(error * 2 * BUCKETS); /* errors are at most 1/2 */
    return b < BUCKETS ? b : BUCKETS - 1;
}

static void balance_codes(const struct channel_job *j, int64_t c)
{
    int64_t count[BUCKETS] = {0}, rows = j->w->rows, channels = j->w->channels;
    double total = 0;
    for (int64_t r = 0; r < rows; r++) total += rounding_error(j, r, c);
    double sign = total < 0 ? -1 : 1;
    int64_t left = (int64_t)rint(fabs(total));
    if (left == 0) return;
    for (int64_t r = 0; r < rows; r++) {
        double e = sign * rounding_error(j, r, c);
        if (e > 0) count[bucket_of(e)]++;
    }
    int last = BUCKETS - 1;
    for (int64_t above = count[last]; above < left && last > 0;) above += count[--last];
    for (int64_t r = 0; r < rows && left > 0; r++) {
        double e = sign * rounding_error(j, r, c), code = j->codes.q[r * channels + c] + sign;
        if (e <= 0 || bucket_of(e) < last || fabs(code) > most_code(j)) continue;
        j->codes.q[r * channels + c] = (int8_t)code;
        left--;
    }
}

static void nearest_codes(const struct channel_job *j, int64_t c)
{
    double s = (double)j->codes.scale[c], most = most_code(j);
    for (int64_t r = 0; r < j->w->rows; r++) {
        int64_t at = r * j->w->channels + c, group = j->codes.group;
        int factor = group ? j->codes.factor[r / group * j->w->channels + c] : 1;
        double v = rint((double)j->w->w[at] / (s * factor));
        if (j->codes.bits == 1) v = j->w->w[at] < 0 ? -1 : 1;
        j->codes.q[at] = (int8_t)(fmin(fmax(v, -most), most) * factor);
    }
    if (!j->codes.group && j->codes.bits > 1) balance_codes(j, c);
}

/* The bias for the codes, and the bound on partial sums. */
static double finish_channel(const struct channel_job *j, int64_t c)
{
    double sum = 0, magnitude = 0, s = (double)j->codes.scale[c];
    for (int64_t r = 0; r < j->w->rows; r++) {
        double v = j->codes.q[r * j->w->channels + c];
        sum += v;
        magnitude += fabs(v);
    }
    double bias = j->real_bias ? rint(j->real_bias[c] / (j->sx * s)) : 0;
    j->bias[c] = fabs(bias) < BOUND ? (int32_t)bias : 0;
    return fabs(bias) + j->reach * magnitude + (j->offset ? 255.0 * fabs(sum) : 0);
}

/* The scale of a channel without weights: any, where codes are 0; where they are signs, so
 * small that all of them together are nothing beside the unit of the result. */
static double scale_of_nothing(const struct channel_job *j, double unit)
{
    double parts = j->codes.bits == 1 ? 65536.0 * fmax(1, (double)j->w->rows) : 256.0;
    return fmax(unit / (j->sx * parts), MPQC_LEAST_SCALE);
}

/* Quantises one channel, with a larger scale if the bound asks for it (*raised counts
 * those). */
static mpqc_status settle_channel(struct mpqc_quantiser *q, const struct channel_job *j, int64_t c,
                                  double unit, int64_t *raised)
{
    float wanted = j->codes.scale[c];
    if (wanted == 0) j->codes.scale[c] = (float)scale_of_nothing(j, unit);
    if (!j->rounded) nearest_codes(j, c);
    double bound = finish_channel(j, c);
    for (int tries = 0; bound >= BOUND && tries < 64; tries++) {
        double larger = fmax(1.25, fmin(bound / BOUND, 1e6));
        j->codes.scale[c] = (float)((double)j->codes.scale[c] * larger);
        nearest_codes(j, c);
        bound = finish_channel(j, c);
    }
    if (bound >= BOUND || fabs((double)j->codes.scale[c]) * j->sx >= unit)
        return MPQC_FAIL(q->cx, INFEASIBLE, here(q),
                         "output channel %lld cannot be computed in 32-bit integers: its bias is "
                         "too large for its weights and its calibrated range", (long long)c);
    if (wanted != 0 && j->codes.scale[c] != wanted) ++*raised;
    return MPQC_OK;
}

static bool make_codes(struct mpqc_quantiser *q, const struct mpqc_cluster *c,
                       const struct mpqc_weights *w, struct mpqc_codes *codes)
{
    struct mpqc_arena *a = &q->p->scratch;
    codes->bits = mpqc_cluster_weight_bits(q, c);
    codes->group = mpqc_weight_group(q->p->options, codes->bits, &w->type);
    codes->q = MPQC_NEW_ARRAY(a, int8_t, (size_t)(w->rows * w->channels));
    codes->scale = MPQC_NEW_ARRAY(a, float, (size_t)w->channels);
    int64_t groups = codes->group ? (w->rows + codes->group - 1) / codes->group : 0;
    codes->factor = MPQC_NEW_ARRAY(a, int8_t, (size_t)(groups * w->channels));
    return !a->failed;
}

/* Input as [1,1,M,C] where the convolution needs rank 4. */
static mpqc_status linear_input(struct mpqc_quantiser *q, const struct mpqc_cluster *c,
                                mpqc_vid *x)
{
    const struct mpqc_node *n = mpqc_node_at(q->g, c->core);
    mpqc_vid old = mpqc_is_const(q->g, n->in[0]) ? n->in[1] : n->in[0];
    MPQC_TRY(mpqc_as_int(q, old, NULL, x));
    const struct mpqc_type t = mpqc_value_at(q->g, *x)->type;
    if (c->rule == MPQC_RULE_LINEAR || t.rank == 4) return MPQC_OK;
    int64_t channels = t.dims[t.rank - 1];
    int64_t dims[4] = {1, 1, channels ? mpqc_type_count(&t) / channels : 0, channels};
    struct mpqc_attrs attrs = {0};
    mpqc_attrs_ints(&attrs, MPQC_ATTR_SHAPE, 4, dims);
    return mpqc_emit(q, MPQC_OP_RESHAPE, x, 1, &attrs, x);
}

static mpqc_status make_constants(struct mpqc_quantiser *q, const struct channel_job *j,
                                  mpqc_vid *w, mpqc_vid *bias)
{
    uint32_t n = (uint32_t)j->w->channels;
    int32_t *zero = MPQC_NEW_ARRAY(&q->p->scratch, int32_t, n);
    if (!zero) return MPQC_OOM(q->cx);
    struct mpqc_type t = j->w->type;
    t.dtype = mpqc_weight_dtype(j->codes.group ? 8 : j->codes.bits);
    t.quant = mpqc_quant_channel(q->g, (int32_t)t.rank - 1, n, j->codes.scale, zero);
    if (j->codes.group && t.quant)
        t.quant = mpqc_quant_groups(q->g, &t, j->codes.group, j->codes.bits, j->codes.factor);
    *w = mpqc_graph_const(q->g, NULL, t, j->codes.q, false);
    const int64_t dims[1] = {n};
    *bias = mpqc_graph_const(q->g, NULL, mpqc_type_make(MPQC_DT_I32, 1, dims), j->bias, false);
    return *w == MPQC_NONE || *bias == MPQC_NONE || !t.quant ? MPQC_OOM(q->cx) : MPQC_OK;
}

static void linear_attrs(const struct mpqc_node *n, enum mpqc_rule rule, int64_t channels,
                         struct mpqc_attrs *attrs)
{
    attrs->n = 0;
    if (rule == MPQC_RULE_LINEAR) {
        MPQC_ASSERT(n->n_attr <= MPQC_MAX_ATTRS);
        for (uint32_t i = 0; i < n->n_attr; i++) attrs->a[attrs->n++] = n->attr[i];
        return;
    }
    static const int64_t ones[2] = {1, 1}, none[4] = {0, 0, 0, 0};
    mpqc_attrs_ints(attrs, MPQC_ATTR_STRIDES, 2, ones);
    mpqc_attrs_ints(attrs, MPQC_ATTR_DILATIONS, 2, ones);
    mpqc_attrs_ints(attrs, MPQC_ATTR_PADS, 4, none);
    mpqc_attrs_int(attrs, MPQC_ATTR_GROUP, channels);
}

mpqc_status mpqc_lower_linear(struct mpqc_quantiser *q, const struct mpqc_cluster *c, double unit,
                             mpqc_vid *acc, double **scale, int64_t *n_scale)
{
    struct mpqc_weights w;
    struct mpqc_arena *a = &q->p->scratch;
    uint32_t index = (uint32_t)(c - q->clusters.c);
    mpqc_vid in[3] = {MPQC_NONE, MPQC_NONE, MPQC_NONE};
    MPQC_TRY(mpqc_weights_of(q, c, &w));
    MPQC_TRY(linear_input(q, c, &in[0]));
    size_t n = (size_t)w.channels;
    struct channel_job j = {.w = &w,
                            .sx = (double)mpqc_params_of_new(q, in[0]).scale,
                            .reach = mpqc_input_reach(q, c)};
    j.offset = mpqc_dtype_is_byte(mpqc_value_at(q->g, in[0])->type.dtype);
    j.bias = MPQC_NEW_ARRAY(a, int32_t, n);
    *scale = MPQC_NEW_ARRAY(a, double, n);
    double *bias = MPQC_NEW_ARRAY(a, double, n);
    if (!make_codes(q, c, &w, &j.codes) || a->failed) return MPQC_OOM(q->cx);
    for (size_t i = 0; i < n; i++) {
        j.codes.scale[i] = (float)q->weight_scale[index][i];
        if (w.bias) bias[i] = (double)w.bias[i];
    }
    j.rounded = mpqc_cluster_is_low(q, c);
    if (w.bias || j.rounded) j.real_bias = bias;
    if (j.rounded) MPQC_TRY(mpqc_round_cluster(q, c, in[0], unit, &w, &j.codes, bias));
    int64_t raised = 0;
    for (size_t i = 0; i < n; i++) {
        MPQC_TRY(settle_channel(q, &j, (int64_t)i, unit, &raised));
        (*scale)[i] = j.sx * (double)j.codes.scale[i];
    }
    if (raised > 0 && q->cx->verbose > 0)
        mpqc_note(q->cx, here(q), "%lld of %lld output channels have weights far smaller than "
                  "their bias; their scales are raised so that the bias fits 32 bits",
                  (long long)raised, (long long)w.channels);
    *n_scale = w.channels;
    MPQC_TRY(make_constants(q, &j, &in[1], &in[2]));
    const struct mpqc_node node = *mpqc_node_at(q->g, c->core);
    struct mpqc_attrs attrs;
    linear_attrs(&node, c->rule, w.channels, &attrs);
    enum mpqc_op op = c->rule == MPQC_RULE_LINEAR ? node.op : MPQC_OP_CONV;
    return mpqc_emit(q, op, in, j.real_bias ? 3 : 2, &attrs, acc);
}
