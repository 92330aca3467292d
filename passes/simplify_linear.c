/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * simplify: affine maps into convolutions and matrix products.
 *
 * Batch normalisation at inference is x * c + d per channel (Ioffe and Szegedy 2015,
 * section 3.1, algorithm 2, line 11).  Behind a linear operator with weights w and
 * bias b it makes them c * w and c * b + d; in front of one, the rows of w that read
 * channel i are multiplied by c[i], and b grows by the sum of w * d, which is right
 * only where no padding is read.  Sums are taken in double precision and rounded once.
 *
 * Numbers (one-element constants) wait for phase SCALAR, because activation patterns
 * are made of them.
 */
#include "passes/simplify.h"

#include <math.h>

/* ---- linear operators ---- */

/* v is computed by a conv or matmul with constant weights and a constant bias, if
 * any: a copy of that node. */
static bool linear_def(const struct mpqc_sx *s, mpqc_vid v, struct mpqc_node *n)
{
    const struct mpqc_node *def = mpqc_def(s->g, v);
    if (!def || !(mpqc_ops[def->op].traits & MPQC_T_LINEAR)) return false;
    *n = *def;
    return n->n_in < 3 || n->in[2] == MPQC_NONE || mpqc_sx_f32(s, n->in[2]);
}

static int64_t out_channels(const struct mpqc_sx *s, const struct mpqc_node *n)
{
    const struct mpqc_type *w = mpqc_sx_type(s, n->in[1]);
    return w->rank < 2 ? 0 : w->dims[w->rank - 1];
}

static const float *bias_of(const struct mpqc_sx *s, const struct mpqc_node *n)
{
    return n->n_in < 3 || n->in[2] == MPQC_NONE ? NULL : mpqc_sx_f32(s, n->in[2]);
}

/* A node like n with other weights and bias, each as it was where MPQC_NONE is given. */
static mpqc_status make_linear(struct mpqc_sx *s, const struct mpqc_node *n, mpqc_vid x,
                               mpqc_vid w, mpqc_vid b, mpqc_vid *out)
{
    mpqc_vid in[3] = {x, w == MPQC_NONE ? n->in[1] : w, b};
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    if (b == MPQC_NONE && n->n_in == 3) in[2] = n->in[2];
    return mpqc_sx_add(s, n->op, in, in[2] == MPQC_NONE ? 2 : 3, &a, n->loc, out);
}

/* Is constant v foldable now: varies along the channel of type t, and in phase SHAPE
 * is more than a number? */
static const float *foldable(const struct mpqc_sx *s, mpqc_vid v, const struct mpqc_type *t,
                             int64_t *count)
{
    const float *c = mpqc_sx_channel(s, v, t, count);
    return c && *count == 1 && s->phase < MPQC_SX_SCALAR ? NULL : c;
}

/* ---- batchnorm ---- */

static const float *parameter(const struct mpqc_sx *s, const struct mpqc_node *n, uint32_t i)
{
    return mpqc_sx_f32(s, n->in[i]);
}

/* batchnorm becomes mul and add, which other rules fold further. */
mpqc_status mpqc_sx_batchnorm_to_affine(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const float *gamma = parameter(s, n, 1), *beta = parameter(s, n, 2);
    const float *mean = parameter(s, n, 3), *var = parameter(s, n, 4);
    if (!gamma || !beta || !mean || !var) return MPQC_OK;
    int64_t c = mpqc_type_count(mpqc_sx_type(s, n->in[1]));
    double epsilon = mpqc_attr_float_or(n, MPQC_ATTR_EPSILON, 1e-5f);
    float *scale = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)c);
    float *shift = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)c);
    mpqc_vid scales, shifts, mul, add;
    if (!scale || !shift) return MPQC_OOM(s->cx);
    for (int64_t i = 0; i < c; i++) {
        double k = gamma[i] / sqrt(var[i] + epsilon);
        scale[i] = (float)k;
        shift[i] = (float)(beta[i] - mean[i] * k);
    }
    MPQC_TRY(mpqc_sx_const(s, 1, &c, scale, true, &scales));
    MPQC_TRY(mpqc_sx_const(s, 1, &c, shift, true, &shifts));
    MPQC_TRY(mpqc_sx_add2(s, MPQC_OP_MUL, n->in[0], scales, n->loc, &mul));
    MPQC_TRY(mpqc_sx_add2(s, MPQC_OP_ADD, mul, shifts, n->loc, &add));
    mpqc_sx_done(s, n->out[0], add, done);
    return MPQC_OK;
}

/* ---- behind a linear operator ---- */

/* Removes a node. */
mpqc_status mpqc_sx_bias(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    struct mpqc_node lin;
    int64_t count, oc;
    mpqc_vid b, out;
    if (s->uses[n->in[0]] != 1 || !linear_def(s, n->in[0], &lin)) return MPQC_OK;
    oc = out_channels(s, &lin);
    const struct mpqc_type *t = mpqc_sx_type(s, n->in[0]);
    const float *c = foldable(s, n->in[1], t, &count), *old = bias_of(s, &lin);
    if (!c || oc == 0 || t->dims[t->rank - 1] != oc) return MPQC_OK;
    float *sum = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)oc);
    if (!sum) return MPQC_OOM(s->cx);
    for (int64_t i = 0; i < oc; i++) sum[i] = (old ? old[i] : 0.0f) + c[count == 1 ? 0 : i];
    MPQC_TRY(mpqc_sx_const(s, 1, &oc, sum, true, &b));
    MPQC_TRY(make_linear(s, &lin, lin.in[0], MPQC_NONE, b, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Removes a node. */
mpqc_status mpqc_sx_scale_after(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    struct mpqc_node lin;
    int64_t count, oc;
    mpqc_vid w, b = MPQC_NONE, out;
    if (s->uses[n->in[0]] != 1 || !linear_def(s, n->in[0], &lin)) return MPQC_OK;
    oc = out_channels(s, &lin);
    const struct mpqc_type *t = mpqc_sx_type(s, n->in[0]);
    const float *c = foldable(s, n->in[1], t, &count), *old = bias_of(s, &lin);
    const float *weights = mpqc_sx_f32(s, lin.in[1]);
    if (!c || !weights || oc == 0 || t->dims[t->rank - 1] != oc) return MPQC_OK;
    const struct mpqc_type wt = *mpqc_sx_type(s, lin.in[1]);
    int64_t n_w = mpqc_type_count(&wt);
    float *scaled = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)n_w);
    float *bias = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)oc);
    if (!scaled || !bias) return MPQC_OOM(s->cx);
    for (int64_t row = 0; row < n_w; row += oc)
        for (int64_t i = 0; i < oc; i++)
            scaled[row + i] = weights[row + i] * c[count == 1 ? 0 : i];
    for (int64_t i = 0; old && i < oc; i++) bias[i] = old[i] * c[count == 1 ? 0 : i];
    MPQC_TRY(mpqc_sx_const(s, wt.rank, wt.dims, scaled, true, &w));
    if (old) MPQC_TRY(mpqc_sx_const(s, 1, &oc, bias, true, &b));
    MPQC_TRY(make_linear(s, &lin, lin.in[0], w, b, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* ---- in front of a linear operator ---- */

/* Weights as taps[k][i][oc], k over the window, i over the input channels of a group.
 * Element (k, i, o) reads input channel (o / (oc / groups)) * ci + i. */
struct taps {
    const float *w;
    int64_t k, ci, oc, per_group;
};

static struct taps taps_of(const struct mpqc_sx *s, const struct mpqc_node *n)
{
    const struct mpqc_type *t = mpqc_sx_type(s, n->in[1]);
    struct taps p = {.w = mpqc_sx_f32(s, n->in[1]), .oc = t->dims[t->rank - 1]};
    p.ci = t->dims[t->rank - 2];
    p.k = n->op == MPQC_OP_CONV ? t->dims[0] * t->dims[1] : 1;
    int64_t groups = n->op == MPQC_OP_CONV ? mpqc_attr_int_or(n, MPQC_ATTR_GROUP, 1) : 1;
    p.per_group = p.oc / groups;
    return p;
}

static float at_channel(const float *c, int64_t count, const struct taps *p, int64_t i, int64_t o)
{
    return c[count == 1 ? 0 : o / p->per_group * p->ci + i];
}

/* Weights that take x where they took x * c. */
static mpqc_status scaled_rows(struct mpqc_sx *s, const struct mpqc_node *n, const float *c,
                               int64_t count, mpqc_vid *w)
{
    struct taps p = taps_of(s, n);
    const struct mpqc_type t = *mpqc_sx_type(s, n->in[1]);
    float *new = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)mpqc_type_count(&t));
    int64_t at = 0;
    if (!new) return MPQC_OOM(s->cx);
    for (int64_t k = 0; k < p.k; k++)
        for (int64_t i = 0; i < p.ci; i++)
            for (int64_t o = 0; o < p.oc; o++, at++)
                new[at] = p.w[at] * at_channel(c, count, &p, i, o);
    return mpqc_sx_const(s, t.rank, t.dims, new, true, w);
}

/* The bias that makes up for taking x where x + c was taken. */
static mpqc_status shifted_bias(struct mpqc_sx *s, const struct mpqc_node *n, const float *c,
                                int64_t count, mpqc_vid *b)
{
    struct taps p = taps_of(s, n);
    const float *old = bias_of(s, n);
    float *new = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)p.oc);
    if (!new) return MPQC_OOM(s->cx);
    for (int64_t o = 0; o < p.oc; o++) {
        double sum = old ? old[o] : 0.0;
        for (int64_t k = 0; k < p.k; k++)
            for (int64_t i = 0; i < p.ci; i++)
                sum += (double)p.w[(k * p.ci + i) * p.oc + o] * at_channel(c, count, &p, i, o);
        new[o] = (float)sum;
    }
    return mpqc_sx_const(s, 1, &p.oc, new, true, b);
}

/* Weights that can be rewritten by input channel, and none of them reads padding
 * where that matters. */
static bool takes_affine(const struct mpqc_sx *s, const struct mpqc_node *n, bool shift)
{
    if (!(mpqc_ops[n->op].traits & MPQC_T_LINEAR) || !mpqc_sx_f32(s, n->in[1])) return false;
    if (n->n_in == 3 && n->in[2] != MPQC_NONE && !mpqc_sx_f32(s, n->in[2])) return false;
    if (n->op == MPQC_OP_MATMUL) return mpqc_sx_type(s, n->in[1])->rank == 2;
    struct mpqc_sx_window w = mpqc_sx_window_of(n);
    return !shift || (!w.pads[0] && !w.pads[1] && !w.pads[2] && !w.pads[3]);
}

/* Steps from value v up over a transpose that only its user needs; perm stays the
 * identity when there is none. */
static mpqc_vid skip_transpose(const struct mpqc_sx *s, mpqc_vid v, int64_t *perm)
{
    const struct mpqc_node *t = mpqc_sx_def(s, v, MPQC_OP_TRANSPOSE);
    uint32_t rank = mpqc_sx_type(s, v)->rank;
    for (uint32_t i = 0; i < rank; i++) perm[i] = i;
    if (!t || s->uses[v] != 1) return v;
    memcpy(perm, mpqc_attr_ints(t, MPQC_ATTR_PERM), rank * sizeof *perm);
    return t->in[0];
}

/* Constant v, an operand of type x that is then transposed by perm, varies along the
 * last axis of the result alone: its elements. */
static const float *channel_before(const struct mpqc_sx *s, mpqc_vid v, const struct mpqc_type *x,
                                   const int64_t *perm, int64_t *count)
{
    const struct mpqc_type *t = mpqc_sx_type(s, v);
    const float *c = mpqc_sx_f32(s, v);
    if (!c || x->rank == 0 || t->rank > x->rank) return NULL;
    *count = mpqc_type_count(t);
    if (*count == 1) return s->phase < MPQC_SX_SCALAR ? NULL : c;
    int64_t axis = perm[x->rank - 1] - (int64_t)(x->rank - t->rank); /* of the constant */
    return axis >= 0 && t->dims[axis] == *count ? c : NULL;
}

/* Removes a node. */
mpqc_status mpqc_sx_affine_before(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    int64_t count, perm[MPQC_MAX_RANK];
    mpqc_vid w = MPQC_NONE, b = MPQC_NONE, out;
    if (!(mpqc_ops[n->op].traits & MPQC_T_LINEAR)) return MPQC_OK;
    mpqc_vid v = skip_transpose(s, n->in[0], perm);
    const struct mpqc_node *pre = mpqc_def(s->g, v);
    if (!pre || (pre->op != MPQC_OP_MUL && pre->op != MPQC_OP_ADD)) return MPQC_OK;
    bool shift = pre->op == MPQC_OP_ADD;
    if (s->uses[v] != 1 || !takes_affine(s, n, shift)) return MPQC_OK;
    const struct mpqc_type *t = mpqc_sx_type(s, v);
    mpqc_vid x = pre->in[0];
    const float *c = channel_before(s, pre->in[1], t, perm, &count);
    if (!c || !mpqc_type_same_shape(t, mpqc_sx_type(s, x))) return MPQC_OK;
    if (shift) MPQC_TRY(shifted_bias(s, n, c, count, &b));
    else MPQC_TRY(scaled_rows(s, n, c, count, &w));
    MPQC_TRY(mpqc_sx_transpose(s, x, perm, n->loc, &x));
    MPQC_TRY(make_linear(s, n, x, w, b, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Moves constants outwards: an add below a mul becomes one above it, once. */
mpqc_status mpqc_sx_mul_of_add(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_node *add = mpqc_sx_def(s, n->in[0], MPQC_OP_ADD);
    const struct mpqc_type *t = mpqc_sx_type(s, n->in[0]);
    int64_t count;
    if (!add || s->uses[n->in[0]] != 1) return MPQC_OK;
    mpqc_vid x = add->in[0], c = add->in[1], d = n->in[1], mul, cd, out;
    struct mpqc_loc loc = add->loc;
    if (!mpqc_sx_channel(s, c, t, &count) || !mpqc_sx_channel(s, d, t, &count)) return MPQC_OK;
    if (!mpqc_type_same_shape(t, mpqc_sx_type(s, x))) return MPQC_OK;
    MPQC_TRY(mpqc_sx_add2(s, MPQC_OP_MUL, c, d, loc, &cd));
    MPQC_TRY(mpqc_sx_add2(s, MPQC_OP_MUL, x, d, n->loc, &mul));
    MPQC_TRY(mpqc_sx_add2(s, MPQC_OP_ADD, mul, cd, loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* ---- what is left becomes depthwise ---- */

/* x * scale + shift per channel as a 1x1 convolution of groups of one channel. */
static mpqc_status make_depthwise(struct mpqc_sx *s, mpqc_vid x, const float *scale,
                                  int64_t n_scale, const float *shift, int64_t n_shift,
                                  struct mpqc_loc loc, mpqc_vid *out)
{
    int64_t c = mpqc_sx_type(s, x)->dims[3], w_dims[4] = {1, 1, 1, c};
    mpqc_vid in[3] = {x, MPQC_NONE, MPQC_NONE};
    struct mpqc_attrs a = {0};
    float *w = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)c);
    float *b = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)c);
    if (!w || !b) return MPQC_OOM(s->cx);
    for (int64_t i = 0; i < c; i++) {
        w[i] = scale[n_scale == 1 ? 0 : i];
        if (shift) b[i] = shift[n_shift == 1 ? 0 : i];
    }
    MPQC_TRY(mpqc_sx_const(s, 4, w_dims, w, true, &in[1]));
    if (shift) MPQC_TRY(mpqc_sx_const(s, 1, &c, b, true, &in[2]));
    mpqc_attrs_int(&a, MPQC_ATTR_GROUP, c);
    return mpqc_sx_add(s, MPQC_OP_CONV, in, shift ? 3 : 2, &a, loc, out);
}

/* v = x * c with a channel constant, x of rank 4: c, else NULL. */
static const float *scaled_image(const struct mpqc_sx *s, const struct mpqc_node *mul, mpqc_vid *x,
                                 int64_t *count)
{
    const struct mpqc_type *t = mul ? mpqc_sx_type(s, mul->in[0]) : NULL;
    if (!t || t->rank != 4 || t->dtype != MPQC_DT_F32) return NULL;
    *x = mul->in[0];
    return mpqc_sx_channel(s, mul->in[1], t, count);
}

/* Two nodes become one. */
mpqc_status mpqc_sx_affine_depthwise(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_node *mul = mpqc_sx_def(s, n->in[0], MPQC_OP_MUL);
    int64_t n_scale, n_shift;
    mpqc_vid x, out;
    if (s->uses[n->in[0]] != 1) return MPQC_OK;
    const float *scale = scaled_image(s, mul, &x, &n_scale);
    const float *shift = scale ? mpqc_sx_channel(s, n->in[1], mpqc_sx_type(s, x), &n_shift) : NULL;
    if (!shift) return MPQC_OK;
    MPQC_TRY(make_depthwise(s, x, scale, n_scale, shift, n_shift, mul->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Is the only use of v an add of a channel constant? */
static bool then_shifted(const struct mpqc_sx *s, mpqc_vid v)
{
    int64_t count;
    if (s->uses[v] != 1) return false;
    for (mpqc_nid i = 0; i < s->g->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(s->g, i);
        if (!n->dead && n->op == MPQC_OP_ADD && n->in[0] == v)
            return mpqc_sx_channel(s, n->in[1], mpqc_sx_type(s, v), &count) != NULL;
    }
    return false;
}

/* mul becomes conv; mul by a number stays, it is a matter of scales only. */
mpqc_status mpqc_sx_scale_depthwise(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    int64_t n_scale;
    mpqc_vid x, out;
    const float *scale = scaled_image(s, n, &x, &n_scale);
    if (!scale || n_scale == 1 || then_shifted(s, n->out[0])) return MPQC_OK;
    MPQC_TRY(make_depthwise(s, x, scale, n_scale, NULL, 0, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}
