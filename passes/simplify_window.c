/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * simplify: pads, pools, reductions.  Every rule removes a node or, for avgpool
 * and mul, replaces one by a reduction, which stays one.
 */
#include "passes/simplify.h"

#include <float.h>

#define RANGE_DEPTH 8

/* ---- pad ---- */

/* A pad with a constant: its value and amounts. */
static bool constant_pad(const struct mpqc_node *n, float *value, const int64_t **pads)
{
    if (!n || n->op != MPQC_OP_PAD) return false;
    *pads = mpqc_attr_ints(n, MPQC_ATTR_PADS);
    *value = mpqc_attr_float_or(n, MPQC_ATTR_ALPHA, 0.0f);
    return strcmp(mpqc_attr_string_or(n, MPQC_ATTR_MODE, "constant"), "constant") == 0;
}

/* Removes a node. */
mpqc_status mpqc_sx_drop_pad(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    uint32_t rank = mpqc_sx_type(s, n->in[0])->rank;
    const int64_t *pads, *first;
    float value, value1;
    int64_t sum[2 * MPQC_MAX_RANK];
    mpqc_vid out;
    if (mpqc_type_same_shape(mpqc_sx_type(s, n->in[0]), mpqc_sx_type(s, n->out[0]))) {
        mpqc_sx_done(s, n->out[0], n->in[0], done);
        return MPQC_OK;
    }
    const struct mpqc_node *inner = mpqc_def(s->g, n->in[0]);
    if (!constant_pad(n, &value, &pads) || !constant_pad(inner, &value1, &first) ||
        value != value1)
        return MPQC_OK;
    for (uint32_t i = 0; i < 2 * rank; i++) sum[i] = first[i] + pads[i];
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    mpqc_sx_set_ints(&a, MPQC_ATTR_PADS, 2 * rank, sum);
    MPQC_TRY(mpqc_sx_add1(s, MPQC_OP_PAD, inner->in[0], &a, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Pads of window node n with those of the pad before it, or false when there is none
 * or it pads other axes than height and width. */
static bool joined_pads(const struct mpqc_sx *s, const struct mpqc_node *n, float *value,
                        int64_t *joined)
{
    const int64_t *pads;
    const struct mpqc_node *pad = mpqc_def(s->g, n->in[0]);
    struct mpqc_sx_window w = mpqc_sx_window_of(n);
    if (!constant_pad(pad, value, &pads)) return false;
    if (pads[0] || pads[3] || pads[4] || pads[7]) return false;
    joined[0] = w.pads[0] + pads[1];
    joined[1] = w.pads[1] + pads[2];
    joined[2] = w.pads[2] + pads[5];
    joined[3] = w.pads[3] + pads[6];
    return true;
}

/* n on the input of the pad before it, with these pads. */
static mpqc_status absorb_pad(struct mpqc_sx *s, const struct mpqc_node *n, const int64_t *pads,
                              struct mpqc_attrs *a, bool *done)
{
    mpqc_vid in[3] = {mpqc_def(s->g, n->in[0])->in[0], MPQC_NONE, MPQC_NONE}, out;
    for (uint32_t i = 1; i < n->n_in; i++) in[i] = n->in[i];
    mpqc_sx_set_ints(a, MPQC_ATTR_PADS, 4, pads);
    MPQC_TRY(mpqc_sx_add(s, n->op, in, n->n_in, a, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Removes a node. */
mpqc_status mpqc_sx_pad_into_conv(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    int64_t pads[4];
    float value;
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    if (!joined_pads(s, n, &value, pads) || value != 0.0f) return MPQC_OK;
    return absorb_pad(s, n, pads, &a, done);
}

/* Does every window of n, over the input of the pad before it, hold an element? */
static bool windows_full(const struct mpqc_sx *s, const struct mpqc_node *n, const int64_t *pads)
{
    struct mpqc_sx_window w = mpqc_sx_window_of(n);
    const struct mpqc_type *x = mpqc_sx_type(s, mpqc_def(s->g, n->in[0])->in[0]);
    const struct mpqc_type *y = mpqc_sx_type(s, n->out[0]);
    for (int i = 0; i < 2; i++) {
        if (w.dilations[i] != 1 || pads[i] >= w.kernel[i] || pads[i + 2] >= w.kernel[i])
            return false;
        if ((y->dims[1 + i] - 1) * w.strides[i] - pads[i] >= x->dims[1 + i]) return false;
    }
    return true;
}

/* Removes a node.  The padding of a maxpool never wins; that of the pad must not
 * either: it is -inf, or zero before something that is not negative. */
mpqc_status mpqc_sx_pad_into_maxpool(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    int64_t pads[4];
    float value;
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    if (!joined_pads(s, n, &value, pads) || !windows_full(s, n, pads)) return MPQC_OK;
    if (value > -FLT_MAX) {
        mpqc_vid x = mpqc_def(s->g, n->in[0])->in[0];
        if (value > mpqc_sx_range_of(s, x, RANGE_DEPTH).lo) return MPQC_OK;
    }
    return absorb_pad(s, n, pads, &a, done);
}

/* Removes a node.  Zeros are counted as zeros if all padding is counted. */
mpqc_status mpqc_sx_pad_into_avgpool(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    int64_t pads[4];
    float value;
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    struct mpqc_sx_window w = mpqc_sx_window_of(n);
    bool own = w.pads[0] || w.pads[1] || w.pads[2] || w.pads[3];
    if (own && !mpqc_attr_int_or(n, MPQC_ATTR_COUNT_PAD, 0)) return MPQC_OK;
    if (!joined_pads(s, n, &value, pads) || value != 0.0f || !windows_full(s, n, pads))
        return MPQC_OK;
    mpqc_sx_unset(&a, MPQC_ATTR_COUNT_PAD);
    mpqc_attrs_int(&a, MPQC_ATTR_COUNT_PAD, 1);
    return absorb_pad(s, n, pads, &a, done);
}

/* ---- pools ---- */

static bool unpadded(const struct mpqc_sx_window *w)
{
    return !w->pads[0] && !w->pads[1] && !w->pads[2] && !w->pads[3];
}

/* Removes a node. */
mpqc_status mpqc_sx_drop_pool(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    if (n->op != MPQC_OP_MAXPOOL && n->op != MPQC_OP_AVGPOOL) return MPQC_OK;
    struct mpqc_sx_window w = mpqc_sx_window_of(n);
    if (w.kernel[0] == 1 && w.kernel[1] == 1 && w.strides[0] == 1 && w.strides[1] == 1 &&
        unpadded(&w))
        mpqc_sx_done(s, n->out[0], n->in[0], done);
    return MPQC_OK;
}

/* avgpool becomes a reduction. */
mpqc_status mpqc_sx_avgpool_to_mean(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    static const int64_t axes[2] = {1, 2};
    const struct mpqc_type *x = mpqc_sx_type(s, n->in[0]), *y = mpqc_sx_type(s, n->out[0]);
    struct mpqc_sx_window w = mpqc_sx_window_of(n);
    struct mpqc_attrs a = {0};
    mpqc_vid out;
    if (w.kernel[0] != x->dims[1] || w.kernel[1] != x->dims[2] || !unpadded(&w)) return MPQC_OK;
    if (w.dilations[0] != 1 || w.dilations[1] != 1) return MPQC_OK;
    if (y->dims[1] != 1 || y->dims[2] != 1) return MPQC_OK;
    mpqc_attrs_ints(&a, MPQC_ATTR_AXES, 2, axes);
    MPQC_TRY(mpqc_sx_add1(s, MPQC_OP_REDUCE_MEAN, n->in[0], &a, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* ---- reductions ---- */

static bool is_reduction(enum mpqc_op op)
{
    return op == MPQC_OP_REDUCE_MEAN || op == MPQC_OP_REDUCE_SUM || op == MPQC_OP_REDUCE_MAX ||
           op == MPQC_OP_REDUCE_MIN || op == MPQC_OP_REDUCE_PROD;
}

/* The axes of a reduction as flags; absent means all. */
static void get_axes(const struct mpqc_node *n, uint32_t rank, bool *reduced)
{
    const struct mpqc_attr *a = mpqc_attr_find(n, MPQC_ATTR_AXES);
    for (uint32_t i = 0; i < rank; i++) reduced[i] = a == NULL;
    for (uint32_t i = 0; a && i < a->count; i++) reduced[a->ints[i]] = true;
}

/* Removes a node, or axes of one, or writes them in order. */
mpqc_status mpqc_sx_reduce_form(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    if (!is_reduction(n->op)) return MPQC_OK;
    mpqc_vid x = n->in[0], out;
    const struct mpqc_node *inner = mpqc_sx_def(s, x, n->op);
    uint32_t rank = mpqc_sx_type(s, x)->rank, count = 0;
    bool reduced[MPQC_MAX_RANK], before[MPQC_MAX_RANK];
    int64_t axes[MPQC_MAX_RANK];
    get_axes(n, rank, reduced);
    if (inner && s->uses[x] == 1) {
        get_axes(inner, rank, before);
        for (uint32_t i = 0; i < rank; i++) reduced[i] |= before[i];
        x = inner->in[0];
    }
    for (uint32_t i = 0; i < rank; i++)
        if (reduced[i] && mpqc_sx_type(s, x)->dims[i] != 1) axes[count++] = i;
    const struct mpqc_attr *old = mpqc_attr_find(n, MPQC_ATTR_AXES);
    if (x == n->in[0] && count && old && old->count == count &&
        memcmp(old->ints, axes, count * sizeof *axes) == 0)
        return MPQC_OK;
    struct mpqc_attrs a = {0};
    out = x;
    mpqc_attrs_ints(&a, MPQC_ATTR_AXES, count, axes);
    if (count == 0 && !mpqc_sx_can_replace(s, n->out[0], x)) return MPQC_OK;
    if (count) MPQC_TRY(mpqc_sx_add1(s, n->op, x, &a, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Removes a node. */
mpqc_status mpqc_sx_sum_to_mean(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_node *sum = mpqc_sx_def(s, n->in[0], MPQC_OP_REDUCE_SUM);
    float c;
    mpqc_vid out;
    if (!sum || s->uses[n->in[0]] != 1 || !mpqc_sx_scalar(s, n->in[1], &c)) return MPQC_OK;
    if (!mpqc_type_equal(mpqc_sx_type(s, n->in[0]), mpqc_sx_type(s, n->out[0]))) return MPQC_OK;
    int64_t from = mpqc_type_count(mpqc_sx_type(s, sum->in[0]));
    int64_t to = mpqc_type_count(mpqc_sx_type(s, n->out[0]));
    if (to == 0 || !mpqc_sx_near(c, (float)to / (float)from)) return MPQC_OK;
    struct mpqc_attrs a = mpqc_sx_attrs(sum);
    MPQC_TRY(mpqc_sx_add1(s, MPQC_OP_REDUCE_MEAN, sum->in[0], &a, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}
