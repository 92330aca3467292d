/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * simplify: reshape, expand, slice, concat, gather.
 *
 * All remove a node, or move a reshape towards the outputs past a node that works
 * element by element; none moves one towards the inputs.
 */
#include "passes/simplify.h"

/* ---- reshape ---- */

/* Removes a node. */
mpqc_status mpqc_sx_drop_reshape(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_type t = *mpqc_sx_type(s, n->out[0]);
    mpqc_vid x = n->in[0], out;
    const struct mpqc_node *inner = mpqc_sx_def(s, x, MPQC_OP_RESHAPE);
    if (mpqc_type_same_shape(mpqc_sx_type(s, x), &t)) mpqc_sx_done(s, n->out[0], x, done);
    if (*done || !inner) return MPQC_OK;
    MPQC_TRY(mpqc_sx_reshape(s, inner->in[0], t.rank, t.dims, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Moves a unary operator above a reshape. */
static mpqc_status sink_below_unary(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_type t = *mpqc_sx_type(s, n->out[0]);
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    mpqc_vid x = mpqc_def(s->g, n->in[0])->in[0], inner, out;
    MPQC_TRY(mpqc_sx_add1(s, n->op, x, &a, n->loc, &inner));
    MPQC_TRY(mpqc_sx_reshape(s, inner, t.rank, t.dims, n->loc, &out));
    mpqc_sx_sunk(s, n->out[0], inner, out, done);
    return MPQC_OK;
}

/* Moves a node above the reshapes of its operands. */
mpqc_status mpqc_sx_sink_reshape(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_node *r = n->n_in ? mpqc_sx_def(s, n->in[0], MPQC_OP_RESHAPE) : NULL;
    const struct mpqc_type t = *mpqc_sx_type(s, n->out[0]);
    uint32_t traits = mpqc_ops[n->op].traits;
    float c;
    if (!r) return MPQC_OK;
    if (traits & MPQC_T_ELEMENTWISE) return sink_below_unary(s, n, done);
    if (!(traits & MPQC_T_BINARY) || !mpqc_type_same_shape(mpqc_sx_type(s, n->in[0]), &t))
        return MPQC_OK;
    mpqc_vid x = r->in[0], y = n->in[1], inner, out;
    const struct mpqc_node *r2 = mpqc_sx_def(s, y, MPQC_OP_RESHAPE);
    const struct mpqc_type *tx = mpqc_sx_type(s, x);
    bool number = mpqc_sx_scalar(s, y, &c);
    if (r2 && mpqc_type_same_shape(mpqc_sx_type(s, y), &t) &&
        mpqc_type_same_shape(mpqc_sx_type(s, r2->in[0]), tx))
        y = r2->in[0];
    else if (!number || mpqc_sx_type(s, y)->rank > tx->rank)
        return MPQC_OK;
    MPQC_TRY(mpqc_sx_add2(s, n->op, x, y, n->loc, &inner));
    MPQC_TRY(mpqc_sx_reshape(s, inner, t.rank, t.dims, n->loc, &out));
    mpqc_sx_sunk(s, n->out[0], inner, out, done);
    return MPQC_OK;
}

/* ---- expand ---- */

/* Removes a node. */
mpqc_status mpqc_sx_drop_expand(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    if (mpqc_type_same_shape(mpqc_sx_type(s, n->in[0]), mpqc_sx_type(s, n->out[0])))
        mpqc_sx_done(s, n->out[0], n->in[0], done);
    return MPQC_OK;
}

/* Merges the shape of t into *shape by broadcasting. */
static void broadcast(struct mpqc_type *shape, const struct mpqc_type *t)
{
    uint32_t rank = shape->rank > t->rank ? shape->rank : t->rank;
    int64_t dims[MPQC_MAX_RANK];
    for (uint32_t i = 1; i <= rank; i++) {
        int64_t a = i <= shape->rank ? shape->dims[shape->rank - i] : 1;
        int64_t b = i <= t->rank ? t->dims[t->rank - i] : 1;
        dims[rank - i] = a == 1 ? b : a;
    }
    *shape = mpqc_type_make(shape->dtype, rank, dims);
}

/* One operand less that is an expand. */
mpqc_status mpqc_sx_expand_operand(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    if (!(mpqc_ops[n->op].traits & MPQC_T_BINARY) && n->op != MPQC_OP_WHERE) return MPQC_OK;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mpqc_node *e = mpqc_sx_def(s, n->in[i], MPQC_OP_EXPAND);
        if (!e) continue;
        struct mpqc_type shape = *mpqc_sx_type(s, e->in[0]);
        for (uint32_t k = 0; k < n->n_in; k++)
            if (k != i) broadcast(&shape, mpqc_sx_type(s, n->in[k]));
        if (!mpqc_type_same_shape(&shape, mpqc_sx_type(s, n->out[0]))) continue;
        mpqc_vid in[3], out;
        for (uint32_t k = 0; k < n->n_in; k++) in[k] = n->in[k];
        in[i] = e->in[0];
        MPQC_TRY(mpqc_sx_add(s, n->op, in, n->n_in, NULL, n->loc, &out));
        mpqc_sx_done(s, n->out[0], out, done);
        return MPQC_OK;
    }
    return MPQC_OK;
}

/* ---- slice ---- */

struct cut {
    int64_t begin[MPQC_MAX_RANK], shape[MPQC_MAX_RANK], step[MPQC_MAX_RANK];
};

static void get_cut(const struct mpqc_node *n, uint32_t rank, struct cut *c)
{
    memcpy(c->begin, mpqc_attr_ints(n, MPQC_ATTR_BEGIN), rank * sizeof(int64_t));
    memcpy(c->shape, mpqc_attr_ints(n, MPQC_ATTR_SHAPE), rank * sizeof(int64_t));
    memcpy(c->step, mpqc_attr_ints(n, MPQC_ATTR_STEP), rank * sizeof(int64_t));
}

static mpqc_status add_slice(struct mpqc_sx *s, mpqc_vid x, const struct cut *c,
                             struct mpqc_loc loc, mpqc_vid *out)
{
    uint32_t rank = mpqc_sx_type(s, x)->rank;
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_BEGIN, rank, c->begin);
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, rank, c->shape);
    mpqc_attrs_ints(&a, MPQC_ATTR_STEP, rank, c->step);
    return mpqc_sx_add1(s, MPQC_OP_SLICE, x, &a, loc, out);
}

/* Removes a node. */
mpqc_status mpqc_sx_drop_slice(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_type *t = mpqc_sx_type(s, n->in[0]);
    uint32_t rank = t->rank;
    struct cut c, first;
    mpqc_vid out;
    get_cut(n, rank, &c);
    if (mpqc_type_same_shape(t, mpqc_sx_type(s, n->out[0]))) {
        bool whole = true;
        for (uint32_t i = 0; i < rank; i++) whole &= c.step[i] == 1 || t->dims[i] <= 1;
        if (whole) mpqc_sx_done(s, n->out[0], n->in[0], done);
        return MPQC_OK;
    }
    const struct mpqc_node *inner = mpqc_sx_def(s, n->in[0], MPQC_OP_SLICE);
    if (!inner) return MPQC_OK;
    get_cut(inner, rank, &first);
    for (uint32_t i = 0; i < rank; i++) {
        c.begin[i] = first.begin[i] + c.begin[i] * first.step[i];
        c.step[i] *= first.step[i];
    }
    MPQC_TRY(add_slice(s, inner->in[0], &c, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* Moves a slice above a concat, past which it reads one part only. */
mpqc_status mpqc_sx_slice_of_concat(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_node *cat = mpqc_sx_def(s, n->in[0], MPQC_OP_CONCAT);
    struct cut c;
    mpqc_vid out;
    if (!cat || mpqc_type_count(mpqc_sx_type(s, n->out[0])) == 0) return MPQC_OK;
    int64_t axis = mpqc_attr_int(cat, MPQC_ATTR_AXIS), at = 0;
    get_cut(n, mpqc_sx_type(s, n->in[0])->rank, &c);
    int64_t first = c.begin[axis], last = first + (c.shape[axis] - 1) * c.step[axis];
    for (uint32_t i = 0; i < cat->n_in; i++) {
        int64_t extent = mpqc_sx_type(s, cat->in[i])->dims[axis];
        bool inside = first >= at && first < at + extent && last >= at && last < at + extent;
        if (inside) {
            c.begin[axis] -= at;
            MPQC_TRY(add_slice(s, cat->in[i], &c, n->loc, &out));
            mpqc_sx_done(s, n->out[0], out, done);
            return MPQC_OK;
        }
        at += extent;
    }
    return MPQC_OK;
}

/* ---- concat ---- */

static mpqc_status add_concat(struct mpqc_sx *s, const mpqc_vid *in, uint32_t n_in, int64_t axis,
                              struct mpqc_loc loc, mpqc_vid *out)
{
    struct mpqc_attrs a = {0};
    *out = in[0];
    if (n_in == 1) return MPQC_OK;
    mpqc_attrs_int(&a, MPQC_ATTR_AXIS, axis);
    return mpqc_sx_add(s, MPQC_OP_CONCAT, in, n_in, &a, loc, out);
}

/* Are a and b neighbours along `axis` in one tensor, and used nowhere else?  Then
 * *both is the cut that takes them together. */
static bool adjacent(const struct mpqc_sx *s, mpqc_vid a, mpqc_vid b, int64_t axis,
                     struct cut *both)
{
    const struct mpqc_node *x = mpqc_sx_def(s, a, MPQC_OP_SLICE);
    const struct mpqc_node *y = mpqc_sx_def(s, b, MPQC_OP_SLICE);
    if (!x || !y || x->in[0] != y->in[0] || s->uses[a] != 1 || s->uses[b] != 1) return false;
    uint32_t rank = mpqc_sx_type(s, a)->rank;
    struct cut second;
    get_cut(x, rank, both);
    get_cut(y, rank, &second);
    for (uint32_t i = 0; i < rank; i++) {
        if (both->step[i] != second.step[i]) return false;
        if (i == (uint32_t)axis) {
            if (both->begin[i] + both->shape[i] * both->step[i] != second.begin[i]) return false;
        } else if (both->begin[i] != second.begin[i] || both->shape[i] != second.shape[i]) {
            return false;
        }
    }
    both->shape[axis] += second.shape[axis];
    return true;
}

/* The parts of a concat, with inner concats opened and empty parts left out. */
static uint32_t flat_parts(const struct mpqc_sx *s, const struct mpqc_node *n, int64_t axis,
                           mpqc_vid *in)
{
    uint32_t count = 0, left = n->n_in;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mpqc_node *inner = mpqc_sx_def(s, n->in[i], MPQC_OP_CONCAT);
        left--;
        bool open = inner && s->uses[n->in[i]] == 1 &&
                    mpqc_attr_int(inner, MPQC_ATTR_AXIS) == axis &&
                    count + inner->n_in + left <= MPQC_MAX_INPUTS;
        if (open) {
            memcpy(in + count, inner->in, inner->n_in * sizeof *in);
            count += inner->n_in;
        } else if (mpqc_sx_type(s, n->in[i])->dims[axis] != 0 || (left == 0 && count == 0)) {
            in[count++] = n->in[i];
        }
    }
    return count;
}

/* Fewer concats, or fewer inputs of one. */
mpqc_status mpqc_sx_concat_form(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    int64_t axis = mpqc_attr_int(n, MPQC_ATTR_AXIS);
    mpqc_vid in[MPQC_MAX_INPUTS], out;
    uint32_t count = flat_parts(s, n, axis, in);
    bool changed = count != n->n_in || count == 1 || memcmp(in, n->in, count * sizeof *in) != 0;
    for (uint32_t i = 0; i + 1 < count;) {
        struct cut both;
        const struct mpqc_node *def = mpqc_def(s->g, in[i]);
        if (!adjacent(s, in[i], in[i + 1], axis, &both)) {
            i++;
            continue;
        }
        MPQC_TRY(add_slice(s, def->in[0], &both, def->loc, &in[i]));
        s->uses[in[i]] = 1; /* it may grow on */
        memmove(in + i + 1, in + i + 2, (count - i - 2) * sizeof *in);
        count--;
        changed = true;
    }
    if (!changed) return MPQC_OK;
    MPQC_TRY(add_concat(s, in, count, axis, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* All parts are op(x_i, number_i), used here only. */
static bool affine_parts(const struct mpqc_sx *s, const struct mpqc_node *n, enum mpqc_op op)
{
    float c;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mpqc_node *d = mpqc_sx_def(s, n->in[i], op);
        if (!d || s->uses[n->in[i]] != 1 || !mpqc_sx_scalar(s, d->in[1], &c)) return false;
        if (!mpqc_type_same_shape(mpqc_sx_type(s, d->in[0]), mpqc_sx_type(s, n->in[i])))
            return false;
    }
    return true;
}

/* n nodes become one: what normalises each channel by its own numbers becomes one
 * step per channel. */
mpqc_status mpqc_sx_concat_affine(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_node *first = mpqc_def(s->g, n->in[0]);
    const struct mpqc_type t = *mpqc_sx_type(s, n->out[0]);
    int64_t axis = mpqc_attr_int(n, MPQC_ATTR_AXIS), at = 0, dims[MPQC_MAX_RANK];
    if (!first || (first->op != MPQC_OP_ADD && first->op != MPQC_OP_MUL)) return MPQC_OK;
    if (n->n_in < 2 || !affine_parts(s, n, first->op)) return MPQC_OK;
    const enum mpqc_op op = first->op;
    const struct mpqc_loc loc = first->loc;
    mpqc_vid in[MPQC_MAX_INPUTS], joined, constant, out;
    float *c = MPQC_NEW_ARRAY(&s->g->arena, float, (size_t)t.dims[axis]);
    if (!c) return MPQC_OOM(s->cx);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mpqc_node *d = mpqc_def(s->g, n->in[i]);
        int64_t extent = mpqc_sx_type(s, d->in[0])->dims[axis];
        in[i] = d->in[0];
        for (int64_t k = 0; k < extent; k++) c[at++] = mpqc_sx_f32(s, d->in[1])[0];
    }
    for (uint32_t i = 0; i < t.rank; i++) dims[i] = i == (uint32_t)axis ? t.dims[i] : 1;
    MPQC_TRY(mpqc_sx_const(s, t.rank, dims, c, true, &constant));
    MPQC_TRY(add_concat(s, in, n->n_in, axis, n->loc, &joined));
    MPQC_TRY(mpqc_sx_add2(s, op, joined, constant, loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* ---- gather ---- */

/* Are the n indices into an axis of `extent` evenly spaced?  Negative ones count
 * from the end. */
static bool spaced(const int64_t *index, int64_t n, int64_t extent, int64_t *begin, int64_t *step)
{
    *step = 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = index[i] < 0 ? index[i] + extent : index[i];
        if (i == 0) *begin = at;
        if (i == 1) *step = at - *begin;
        if (at != *begin + i * *step) return false;
    }
    return n > 0 && *step != 0;
}

/* gather becomes slice, and a reshape where the shape of the indices asks for one. */
mpqc_status mpqc_sx_gather_to_slice(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_type t = *mpqc_sx_type(s, n->in[0]), o = *mpqc_sx_type(s, n->out[0]);
    const struct mpqc_value *index = mpqc_value_at(s->g, n->in[1]);
    int64_t axis = mpqc_attr_int_or(n, MPQC_ATTR_AXIS, 0), count = mpqc_type_count(&index->type);
    struct cut c;
    mpqc_vid inner, out;
    if (!index->data || index->type.dtype != MPQC_DT_I64) return MPQC_OK;
    for (uint32_t i = 0; i < t.rank; i++) {
        c.begin[i] = 0;
        c.step[i] = 1;
        c.shape[i] = t.dims[i];
    }
    if (!spaced(index->data, count, t.dims[axis], &c.begin[axis], &c.step[axis])) return MPQC_OK;
    c.shape[axis] = count;
    MPQC_TRY(add_slice(s, n->in[0], &c, n->loc, &inner));
    MPQC_TRY(mpqc_sx_reshape(s, inner, o.rank, o.dims, n->loc, &out));
    mpqc_sx_sunk(s, n->out[0], inner, out, done);
    return MPQC_OK;
}
