/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Operators that only move elements: any element type, quantisation per tensor
 * carried along (copy, and a reshape that keeps the shape, carry any).  Nearly all
 * are one strided walk: the result is dense, the operand is read with strides.
 */
#include "ir/op.h"

#include <math.h>

/* ---- inference ------------------------------------------------------------- */

static mpqc_status check_movable(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *x = q->in[0];
    if (x->quant && x->quant->axis != -1)
        return OP_FAIL(q, UNSUPPORTED, "operator %s does not move %s, which is quantised per axis",
                       mpqc_op_name(q), mpqc_op_type_text(q, x));
    return MPQC_OK;
}

mpqc_status mpqc_infer_copy(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    return mpqc_op_result(q, *q->in[0]);
}

/* SHAPE as the result's shape. */
static mpqc_status take_shape(struct mpqc_infer *q, struct mpqc_type *out)
{
    const struct mpqc_attr *a = mpqc_attr_find(q->node, MPQC_ATTR_SHAPE);
    if (!a || a->count > MPQC_MAX_RANK)
        return OP_FAIL(q, UNSUPPORTED, "operator %s needs a shape of rank %d or less",
                       mpqc_op_name(q), MPQC_MAX_RANK);
    out->rank = a->count;
    for (uint32_t d = 0; d < a->count; d++) {
        if (a->ints[d] < 0 || a->ints[d] >= (int64_t)MPQC_MAX_TENSOR_BYTES)
            return OP_FAIL(q, MODEL, "extent %lld of the shape is negative or too large",
                           (long long)a->ints[d]);
        out->dims[d] = a->ints[d];
    }
    return MPQC_OK;
}

mpqc_status mpqc_infer_reshape(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    struct mpqc_type out = *q->in[0];
    MPQC_TRY(take_shape(q, &out));
    if (!mpqc_type_same_shape(&out, q->in[0])) MPQC_TRY(check_movable(q));
    MPQC_TRY(mpqc_op_result(q, out));
    if (mpqc_type_count(&out) != mpqc_type_count(q->in[0]))
        return OP_FAIL(q, MODEL, "%s cannot be reshaped to %s", mpqc_op_type_text(q, q->in[0]),
                       mpqc_op_type_text(q, &out));
    return MPQC_OK;
}

mpqc_status mpqc_infer_transpose(struct mpqc_infer *q)
{
    MPQC_TRY(check_movable(q));
    const struct mpqc_type *x = q->in[0];
    const int64_t *perm;
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_PERM, x->rank, false, &perm));
    struct mpqc_type out = *x;
    unsigned seen = 0;
    for (uint32_t d = 0; d < x->rank; d++) {
        if (perm[d] < 0 || perm[d] >= (int64_t)x->rank || (seen & 1u << perm[d]))
            return OP_FAIL(q, MODEL, "perm is no permutation of %u dimensions", x->rank);
        seen |= 1u << perm[d];
        out.dims[d] = x->dims[perm[d]];
    }
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_concat(struct mpqc_infer *q)
{
    MPQC_TRY(check_movable(q));
    struct mpqc_type out = *q->in[0];
    uint32_t axis;
    MPQC_TRY(mpqc_op_axis(q, out.rank, &axis));
    for (uint32_t i = 1; i < q->node->n_in; i++) {
        const struct mpqc_type *t = q->in[i];
        struct mpqc_type other = t ? *t : out;
        other.dims[axis] = out.dims[axis];
        if (!t || !mpqc_type_same_shape(&other, &out) || t->dtype != out.dtype ||
            !mpqc_op_same_quant(t, &out))
            return OP_FAIL(q, MODEL, "input %u of concat, %s, does not fit %s along axis %u%s", i,
                           t ? mpqc_op_type_text(q, t) : "absent", mpqc_op_type_text(q, &out),
                           axis, t && t->quant ? " (or differs in quantisation)" : "");
        out.dims[axis] += t->dims[axis];
    }
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_slice(struct mpqc_infer *q)
{
    MPQC_TRY(check_movable(q));
    const struct mpqc_type *x = q->in[0];
    const int64_t *begin, *step;
    struct mpqc_type out = *x;
    MPQC_TRY(take_shape(q, &out));
    if (out.rank != x->rank)
        return OP_FAIL(q, MODEL, "a slice of rank %u from %s", out.rank, mpqc_op_type_text(q, x));
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_BEGIN, x->rank, false, &begin));
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_STEP, x->rank, false, &step));
    for (uint32_t d = 0; d < x->rank; d++) {
        int64_t n = out.dims[d], b = begin[d], extent = x->dims[d];
        bool ok = step[d] != 0;
        if (ok && n > 0) ok = b >= 0 && b < extent;
        if (ok && n > 1) { /* the step matters from the second element on */
            int64_t room = step[d] > 0 ? extent - 1 - b : b;
            int64_t stride = step[d] > 0 ? step[d] : step[d] < -room ? room + 1 : -step[d];
            ok = (n - 1) <= room / stride;
        }
        if (!ok)
            return OP_FAIL(q, MODEL, "slice of %lld elements from %lld by steps of %lld is outside "
                           "of axis %u of %s", (long long)n, (long long)begin[d],
                           (long long)step[d], d, mpqc_op_type_text(q, x));
    }
    return mpqc_op_result(q, out);
}

/* How PAD fills. */
enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE };

static int pad_mode_of(const struct mpqc_node *n)
{
    const char *mode = mpqc_attr_string_or(n, MPQC_ATTR_MODE, "constant");
    if (strcmp(mode, "constant") == 0) return PAD_CONSTANT;
    if (strcmp(mode, "reflect") == 0) return PAD_REFLECT;
    return strcmp(mode, "edge") == 0 ? PAD_EDGE : -1;
}

mpqc_status mpqc_infer_pad(struct mpqc_infer *q)
{
    MPQC_TRY(check_movable(q));
    const struct mpqc_type *x = q->in[0];
    const int64_t *pads;
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_PADS, 2 * x->rank, false, &pads));
    int mode = pad_mode_of(q->node);
    if (mode < 0)
        return OP_FAIL(q, UNSUPPORTED, "pad mode '%s'",
                       mpqc_attr_string_or(q->node, MPQC_ATTR_MODE, ""));
    struct mpqc_type out = *x;
    for (uint32_t d = 0; d < x->rank; d++) {
        int64_t before = pads[d], after = pads[x->rank + d], limit = MPQC_MAX_WINDOW - 1;
        if (mode == PAD_REFLECT) limit = x->dims[d] > 0 ? x->dims[d] - 1 : 0;
        if (mode == PAD_EDGE && x->dims[d] == 0) limit = 0;
        if (before < 0 || after < 0 || before > limit || after > limit)
            return OP_FAIL(q, MODEL, "pads of %lld and %lld do not suit axis %u of %s",
                           (long long)before, (long long)after, d, mpqc_op_type_text(q, x));
        out.dims[d] += before + after;
    }
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_expand(struct mpqc_infer *q)
{
    MPQC_TRY(check_movable(q));
    struct mpqc_type out = *q->in[0];
    MPQC_TRY(take_shape(q, &out));
    struct mpqc_type both = out;
    MPQC_TRY(mpqc_op_broadcast(q, &both, q->in[0]));
    if (!mpqc_type_same_shape(&both, &out))
        return OP_FAIL(q, MODEL, "%s cannot be expanded to %s", mpqc_op_type_text(q, q->in[0]),
                       mpqc_op_type_text(q, &out));
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_gather(struct mpqc_infer *q)
{
    MPQC_TRY(check_movable(q));
    const struct mpqc_type *x = q->in[0], *index = q->in[1];
    uint32_t axis;
    MPQC_TRY(mpqc_op_axis(q, x->rank, &axis));
    if (!mpqc_op_is_plain(index, MPQC_DT_I64))
        return OP_FAIL(q, MODEL, "the indices of gather are %s, not i64",
                       mpqc_op_type_text(q, index));
    if (x->rank - 1 + index->rank > MPQC_MAX_RANK)
        return OP_FAIL(q, UNSUPPORTED, "gather of %s by %s has more than %d dimensions",
                       mpqc_op_type_text(q, x), mpqc_op_type_text(q, index), MPQC_MAX_RANK);
    const int64_t *v = q->in_data[1];
    for (int64_t i = 0; v && i < mpqc_type_count(index); i++) {
        if (v[i] < -x->dims[axis] || v[i] >= x->dims[axis])
            return OP_FAIL(q, MODEL, "index %lld is outside of axis %u of %s", (long long)v[i],
                           axis, mpqc_op_type_text(q, x));
    }
    if (!v && x->dims[axis] == 0 && mpqc_type_count(index) > 0)
        return OP_FAIL(q, MODEL, "gather from the empty axis %u of %s", axis,
                       mpqc_op_type_text(q, x));
    struct mpqc_type out = *x;
    out.rank = 0;
    for (uint32_t d = 0; d < axis; d++) out.dims[out.rank++] = x->dims[d];
    for (uint32_t d = 0; d < index->rank; d++) out.dims[out.rank++] = index->dims[d];
    for (uint32_t d = axis + 1; d < x->rank; d++) out.dims[out.rank++] = x->dims[d];
    return mpqc_op_result(q, out);
}

/* BLOCK of a rank-4 operand. */
static mpqc_status take_block(struct mpqc_infer *q, int64_t *block)
{
    MPQC_TRY(check_movable(q));
    *block = mpqc_attr_int_or(q->node, MPQC_ATTR_BLOCK, 0);
    if (q->in[0]->rank != 4 || *block < 1 || *block > 32768)
        return OP_FAIL(q, MODEL, "operator %s of %s with block %lld", mpqc_op_name(q),
                       mpqc_op_type_text(q, q->in[0]), (long long)*block);
    return MPQC_OK;
}

mpqc_status mpqc_infer_depth_to_space(struct mpqc_infer *q)
{
    int64_t block;
    MPQC_TRY(take_block(q, &block));
    const char *mode = mpqc_attr_string_or(q->node, MPQC_ATTR_MODE, "DCR");
    struct mpqc_type out = *q->in[0];
    if (out.dims[3] % (block * block) != 0)
        return OP_FAIL(q, MODEL, "%lld channels are no multiple of block %lld squared",
                       (long long)out.dims[3], (long long)block);
    if (strcmp(mode, "DCR") != 0 && strcmp(mode, "CRD") != 0)
        return OP_FAIL(q, MODEL, "depth_to_space has no mode '%s'", mode);
    out.dims[1] *= block;
    out.dims[2] *= block;
    out.dims[3] /= block * block;
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_space_to_depth(struct mpqc_infer *q)
{
    int64_t block;
    MPQC_TRY(take_block(q, &block));
    struct mpqc_type out = *q->in[0];
    if (out.dims[1] % block != 0 || out.dims[2] % block != 0)
        return OP_FAIL(q, MODEL, "%s cannot be cut into blocks of %lld",
                       mpqc_op_type_text(q, &out), (long long)block);
    out.dims[1] /= block;
    out.dims[2] /= block;
    out.dims[3] *= block * block;
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_channel_shuffle(struct mpqc_infer *q)
{
    MPQC_TRY(check_movable(q));
    const struct mpqc_type *x = q->in[0];
    int64_t group = mpqc_attr_int_or(q->node, MPQC_ATTR_GROUP, 0);
    if (x->rank < 1 || group < 1 || x->dims[x->rank - 1] % group != 0)
        return OP_FAIL(q, MODEL, "the channels of %s cannot be shuffled in %lld groups",
                       mpqc_op_type_text(q, x), (long long)group);
    return mpqc_op_result(q, *x);
}

/* ---- range: start, limit, delta are constant scalars ----------------------------------- */

mpqc_status mpqc_infer_range(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    struct mpqc_type out = *q->in[0];
    bool known = out.dtype == MPQC_DT_F32 || out.dtype == MPQC_DT_I64 || out.dtype == MPQC_DT_I32;
    for (uint32_t i = 0; i < 3; i++) {
        if (!known || !mpqc_op_is_plain(q->in[i], out.dtype) || mpqc_type_count(q->in[i]) != 1 ||
            !q->in_data[i])
            return OP_FAIL(q, UNSUPPORTED, "range takes three constants of one type, not %s",
                           mpqc_op_type_text(q, q->in[i]));
    }
    double v[3];
    for (uint32_t i = 0; i < 3; i++)
        v[i] = out.dtype == MPQC_DT_F32 ? (double)*(const float *)q->in_data[i]
                                        : (double)mpqc_element_get(out.dtype, q->in_data[i], 0);
    double n = ceil((v[1] - v[0]) / v[2]); /* exact for whole numbers below 2^53 */
    if (v[2] == 0 || isnan(n) || n >= (double)MPQC_MAX_TENSOR_BYTES)
        return OP_FAIL(q, MODEL, "range from %g to %g by %g has no end", v[0], v[1], v[2]);
    out.rank = 1;
    out.dims[0] = n > 0 ? (int64_t)n : 0;
    return mpqc_op_result(q, out);
}

void mpqc_ref_range(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                    struct mpqc_tensor *const *out)
{
    (void)n;
    enum mpqc_dtype t = out[0]->type.dtype;
    for (int64_t i = 0; i < out[0]->type.dims[0]; i++) {
        if (t == MPQC_DT_F32) {
            float start = *(const float *)in[0]->data, delta = *(const float *)in[2]->data;
            ((float *)out[0]->data)[i] = start + (float)i * delta;
        } else {
            int64_t start = mpqc_element_get(t, in[0]->data, 0);
            int64_t delta = mpqc_element_get(t, in[2]->data, 0);
            mpqc_element_set(t, out[0]->data, i,
                        (int64_t)((uint64_t)start + (uint64_t)i * (uint64_t)delta));
        }
    }
}

/* ---- kernels --------------------------------------------------------------------------- */

void mpqc_ref_copy(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                   struct mpqc_tensor *const *out)
{
    (void)n;
    size_t bytes = mpqc_type_bytes(&in[0]->type);
    if (bytes > 0) memcpy(out[0]->data, in[0]->data, bytes);
}

static void copy_row(char *to, const char *from, int64_t n, int64_t to_step, int64_t from_step,
                     size_t bytes)
{
    if (to_step == 1 && from_step == 1) {
        memcpy(to, from, (size_t)n * bytes);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        char *t = to + i * to_step * (int64_t)bytes;
        const char *f = from + i * from_step * (int64_t)bytes;
        switch (bytes) { /* a memcpy of known size is one move */
        case 1: *t = *f; break;
        case 2: memcpy(t, f, 2); break;
        case 4: memcpy(t, f, 4); break;
        default: memcpy(t, f, 8); break;
        }
    }
}

/* to[w operand 1] = from[w operand 2] for all of the walk. */
static void copy_walk(struct mpqc_walk *w, size_t bytes, void *to, const void *from)
{
    for (mpqc_walk_start(w); !w->done; mpqc_walk_next(w))
        copy_row((char *)to + w->at[1] * (int64_t)bytes,
                 (const char *)from + w->at[2] * (int64_t)bytes, w->len, w->step[1], w->step[2],
                 bytes);
}

/* Copies over `dims`, with given strides and first elements on both sides. */
static void copy_strided(uint32_t rank, const int64_t *dims, enum mpqc_dtype t, void *to,
                         const int64_t *to_stride, int64_t to_first, const void *from,
                         const int64_t *from_stride, int64_t from_first)
{
    struct mpqc_walk w;
    mpqc_walk_init(&w, rank, dims);
    mpqc_walk_strided(&w, to_stride, to_first);
    mpqc_walk_strided(&w, from_stride, from_first);
    copy_walk(&w, mpqc_dtypes[t].bytes, to, from);
}

void mpqc_ref_transpose(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                        struct mpqc_tensor *const *out)
{
    const struct mpqc_type *x = &in[0]->type, *y = &out[0]->type;
    const int64_t *perm = mpqc_attr_ints(n, MPQC_ATTR_PERM);
    int64_t own[MPQC_MAX_RANK], from[MPQC_MAX_RANK], to[MPQC_MAX_RANK];
    mpqc_op_strides(x->rank, x->dims, own);
    mpqc_op_strides(y->rank, y->dims, to);
    for (uint32_t d = 0; d < x->rank; d++) from[d] = own[perm[d]];
    copy_strided(y->rank, y->dims, y->dtype, out[0]->data, to, 0, in[0]->data, from, 0);
}

void mpqc_ref_concat(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                     struct mpqc_tensor *const *out)
{
    const struct mpqc_type *y = &out[0]->type;
    uint32_t axis = (uint32_t)mpqc_attr_int(n, MPQC_ATTR_AXIS);
    int64_t to[MPQC_MAX_RANK], from[MPQC_MAX_RANK], at = 0;
    mpqc_op_strides(y->rank, y->dims, to);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const struct mpqc_type *x = &in[i]->type;
        mpqc_op_strides(x->rank, x->dims, from);
        copy_strided(x->rank, x->dims, y->dtype, out[0]->data, to, at * to[axis], in[i]->data,
                     from, 0);
        at += x->dims[axis];
    }
}

void mpqc_ref_slice(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                    struct mpqc_tensor *const *out)
{
    const struct mpqc_type *x = &in[0]->type, *y = &out[0]->type;
    const int64_t *begin = mpqc_attr_ints(n, MPQC_ATTR_BEGIN);
    const int64_t *step = mpqc_attr_ints(n, MPQC_ATTR_STEP);
    if (mpqc_type_count(y) == 0) return;
    int64_t from[MPQC_MAX_RANK], to[MPQC_MAX_RANK], first = 0;
    mpqc_op_strides(x->rank, x->dims, from);
    mpqc_op_strides(y->rank, y->dims, to);
    for (uint32_t d = 0; d < x->rank; d++) {
        first += begin[d] * from[d];
        from[d] = y->dims[d] > 1 ? from[d] * step[d] : 0;
    }
    copy_strided(y->rank, y->dims, y->dtype, out[0]->data, to, 0, in[0]->data, from, first);
}

void mpqc_ref_expand(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                     struct mpqc_tensor *const *out)
{
    (void)n;
    const struct mpqc_type *y = &out[0]->type;
    struct mpqc_walk w;
    int64_t to[MPQC_MAX_RANK];
    mpqc_op_strides(y->rank, y->dims, to);
    mpqc_walk_init(&w, y->rank, y->dims);
    mpqc_walk_strided(&w, to, 0);
    mpqc_walk_broadcast(&w, &in[0]->type);
    copy_walk(&w, mpqc_dtypes[y->dtype].bytes, out[0]->data, in[0]->data);
}

void mpqc_ref_gather(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                     struct mpqc_tensor *const *out)
{
    const struct mpqc_type *x = &in[0]->type;
    uint32_t axis = (uint32_t)mpqc_attr_int(n, MPQC_ATTR_AXIS);
    int64_t before, behind, extent = x->dims[axis], count = mpqc_type_count(&in[1]->type);
    mpqc_op_around(x, axis, &before, &behind);
    size_t row = mpqc_dtypes[x->dtype].bytes * (size_t)behind;
    const int64_t *index = in[1]->data;
    char *to = out[0]->data;
    for (int64_t b = 0; b < before && row > 0; b++) {
        for (int64_t i = 0; i < count; i++, to += row) {
            int64_t at = index[i] < 0 ? index[i] + extent : index[i];
            /* Only indices computed at run time can still be outside. */
            at = at < 0 ? 0 : at >= extent ? extent - 1 : at;
            memcpy(to, (const char *)in[0]->data + (size_t)(b * extent + at) * row, row);
        }
    }
}

/* The two block operators seen in six dimensions: `space` [N,H,B,W,B,C] is the side
 * with large H and W, `depth` [N,H,W,B,B,C] (or [N,H,W,C,B,B]) the other. */
static void block_strides(const struct mpqc_type *space, int64_t block, bool block_major,
                          int64_t *dims, int64_t *space_stride, int64_t *depth_stride)
{
    int64_t c = space->dims[3], h = space->dims[1] / block, w = space->dims[2] / block;
    const int64_t extents[6] = {space->dims[0], h, block, w, block, c};
    int64_t pixel = block * block * c;
    const int64_t depth[6] = {h * w * pixel,
                              w * pixel,
                              block_major ? block * c : block,
                              pixel,
                              block_major ? c : 1,
                              block_major ? 1 : block * block};
    memcpy(dims, extents, sizeof extents);
    memcpy(depth_stride, depth, sizeof depth);
    mpqc_op_strides(6, dims, space_stride);
}

void mpqc_ref_depth_to_space(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                             struct mpqc_tensor *const *out)
{
    int64_t dims[6], space[6], depth[6], block = mpqc_attr_int(n, MPQC_ATTR_BLOCK);
    bool dcr = strcmp(mpqc_attr_string_or(n, MPQC_ATTR_MODE, "DCR"), "DCR") == 0;
    block_strides(&out[0]->type, block, dcr, dims, space, depth);
    copy_strided(6, dims, out[0]->type.dtype, out[0]->data, space, 0, in[0]->data, depth, 0);
}

void mpqc_ref_space_to_depth(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                             struct mpqc_tensor *const *out)
{
    int64_t dims[6], space[6], depth[6], block = mpqc_attr_int(n, MPQC_ATTR_BLOCK);
    block_strides(&in[0]->type, block, true, dims, space, depth);
    copy_strided(6, dims, out[0]->type.dtype, out[0]->data, depth, 0, in[0]->data, space, 0);
}

void mpqc_ref_channel_shuffle(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                              struct mpqc_tensor *const *out)
{
    const struct mpqc_type *x = &in[0]->type;
    int64_t channels = x->dims[x->rank - 1], group = mpqc_attr_int(n, MPQC_ATTR_GROUP);
    if (mpqc_type_count(x) == 0) return;
    const int64_t dims[3] = {mpqc_type_count(x) / channels, channels / group, group};
    const int64_t to[3] = {channels, group, 1}, from[3] = {channels, 1, channels / group};
    copy_strided(3, dims, x->dtype, out[0]->data, to, 0, in[0]->data, from, 0);
}

/* ---- pad ------------------------------------------------------------------------------------ */

/* Writes the padding value to every element of out: real ALPHA in out's type. */
static void fill(const struct mpqc_node *n, struct mpqc_tensor *out)
{
    const struct mpqc_type *t = &out->type;
    float alpha = mpqc_attr_float_or(n, MPQC_ATTR_ALPHA, 0.0f);
    const struct mpqc_dtype_info *info = &mpqc_dtypes[t->dtype];
    double v = t->quant ? rint((double)alpha / (double)t->quant->scale[0]) + t->quant->zero[0]
                        : trunc((double)alpha);
    int64_t q = v <= (double)info->min   ? info->min
                : v >= (double)info->max ? info->max
                                         : (int64_t)v;
    for (int64_t i = 0; i < mpqc_type_count(t); i++) {
        if (t->dtype == MPQC_DT_F32) ((float *)out->data)[i] = alpha;
        else mpqc_element_set(t->dtype, out->data, i, q);
    }
}

/* Fills the borders of axis d from what lies between them, for the part of out whose
 * axes before d are already whole and whose axes after d cover out entirely. */
static void extend_axis(struct mpqc_tensor *out, uint32_t d, int64_t before, int64_t extent,
                        int mode)
{
    const struct mpqc_type *t = &out->type;
    int64_t outer = 1;
    size_t row = mpqc_dtypes[t->dtype].bytes;
    for (uint32_t e = 0; e < d; e++) outer *= t->dims[e];
    for (uint32_t e = d + 1; e < t->rank; e++) row *= (size_t)t->dims[e];
    for (int64_t o = 0; o < outer && row > 0; o++) {
        char *base = (char *)out->data + (size_t)(o * t->dims[d]) * row;
        for (int64_t i = 0; i < t->dims[d]; i++) {
            int64_t at = i - before, last = extent - 1;
            if (at >= 0 && at <= last) continue;
            if (mode == PAD_REFLECT) at = at < 0 ? -at : 2 * last - at;
            else at = at < 0 ? 0 : last;
            memcpy(base + (size_t)i * row, base + (size_t)(at + before) * row, row);
        }
    }
}

void mpqc_ref_pad(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                  struct mpqc_tensor *const *out)
{
    const struct mpqc_type *x = &in[0]->type, *y = &out[0]->type;
    const int64_t *pads = mpqc_attr_ints(n, MPQC_ATTR_PADS);
    int mode = pad_mode_of(n);
    int64_t to[MPQC_MAX_RANK], from[MPQC_MAX_RANK], first = 0;
    mpqc_op_strides(x->rank, x->dims, from);
    mpqc_op_strides(y->rank, y->dims, to);
    for (uint32_t d = 0; d < x->rank; d++) first += pads[d] * to[d];
    if (mode == PAD_CONSTANT) fill(n, out[0]);
    else memset(out[0]->data, 0, mpqc_type_bytes(y));
    copy_strided(x->rank, x->dims, y->dtype, out[0]->data, to, first, in[0]->data, from, 0);
    for (uint32_t d = x->rank; mode != PAD_CONSTANT && d-- > 0;)
        extend_axis(out[0], d, pads[d], x->dims[d], mode);
}
