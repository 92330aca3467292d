/* SPDX-License-Identifier: GPL-3.0-or-later
 * Derivatives of operators that move elements: they move back, and add up where
 * one element went to several places.
 */
#include "ir/op.h"
#include "ir/op_vjp.h"

#define BIT(key) (1ull << MPQC_ATTR_##key)

void mpqc_vjp_reshape(struct mpqc_vjp *q)
{
    struct mpqc_type t = type_of(q, q->x);
    q->dx[0] = mpqc_build_reshape(q->b, q->dy, t.rank, t.dims);
}

void mpqc_vjp_transpose(struct mpqc_vjp *q)
{
    int64_t back[MPQC_MAX_RANK];
    const int64_t *perm = mpqc_attr_ints(q->n, MPQC_ATTR_PERM);
    for (uint32_t d = 0; d < type_of(q, q->x).rank; d++) back[perm[d]] = d;
    q->dx[0] = mpqc_build_transpose(q->b, q->dy, back);
}

/* x[begin + i * step], `size` of them an axis. */
static mpqc_vid slice(struct mpqc_vjp *q, mpqc_vid x, const int64_t *begin, const int64_t *step,
                      const struct mpqc_type *size)
{
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_BEGIN, size->rank, begin);
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, size->rank, size->dims);
    mpqc_attrs_ints(&a, MPQC_ATTR_STEP, size->rank, step);
    return mpqc_build_op(q->b, MPQC_OP_SLICE, &x, 1, &a);
}

void mpqc_vjp_concat(struct mpqc_vjp *q)
{
    int64_t axis = mpqc_attr_int(q->n, MPQC_ATTR_AXIS), begin[MPQC_MAX_RANK] = {0};
    int64_t step[MPQC_MAX_RANK];
    for (uint32_t d = 0; d < MPQC_MAX_RANK; d++) step[d] = 1;
    for (uint32_t i = 0; i < q->n->n_in; i++) {
        struct mpqc_type t = type_of(q, q->n->in[i]);
        if (q->want[i]) q->dx[i] = slice(q, q->dy, begin, step, &t);
        begin[axis] += t.dims[axis];
    }
}

void mpqc_vjp_slice(struct mpqc_vjp *q)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, BIT(SHAPE));
    struct mpqc_type t = type_of(q, q->x);
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, t.rank, t.dims);
    q->dx[0] = mpqc_build_op(q->b, MPQC_OP_SLICE_DX, &q->dy, 1, &a);
}

void mpqc_vjp_slice_dx(struct mpqc_vjp *q)
{
    struct mpqc_type t = type_of(q, q->x);
    q->dx[0] = slice(q, q->dy, mpqc_attr_ints(q->n, MPQC_ATTR_BEGIN),
                     mpqc_attr_ints(q->n, MPQC_ATTR_STEP), &t);
}

/* Axis d of dy, which came from `extent` elements by reflection or repetition of the
 * edge, added back to them. */
static mpqc_vid fold_axis(struct mpqc_vjp *q, mpqc_vid dy, uint32_t d, int64_t before,
                          int64_t extent, bool reflect)
{
    struct mpqc_type t = type_of(q, dy);
    int64_t *index = MPQC_NEW_ARRAY(&q->b->scratch, int64_t, (size_t)t.dims[d]);
    if (!index) {
        q->b->status = MPQC_OOM(q->b->cx);
        return MPQC_NONE;
    }
    for (int64_t i = 0; i < t.dims[d]; i++) {
        int64_t at = i - before, last = extent - 1;
        if (at < 0) at = reflect ? -at : 0;
        else if (at > last) at = reflect ? 2 * last - at : last;
        index[i] = at;
    }
    mpqc_vid in[] = {dy, mpqc_graph_const_i64(q->b->g, t.dims[d], index)};
    struct mpqc_attrs a = {0};
    t.dims[d] = extent;
    mpqc_attrs_int(&a, MPQC_ATTR_AXIS, d);
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, t.rank, t.dims);
    if (in[1] == MPQC_NONE) {
        q->b->status = MPQC_OOM(q->b->cx);
        return MPQC_NONE;
    }
    return mpqc_build_op(q->b, MPQC_OP_GATHER_DX, in, 2, &a);
}

void mpqc_vjp_pad(struct mpqc_vjp *q)
{
    const int64_t *pads = mpqc_attr_ints(q->n, MPQC_ATTR_PADS);
    const char *mode = mpqc_attr_string_or(q->n, MPQC_ATTR_MODE, "constant");
    struct mpqc_type t = type_of(q, q->x);
    if (strcmp(mode, "constant") == 0) {
        int64_t step[MPQC_MAX_RANK];
        for (uint32_t d = 0; d < t.rank; d++) step[d] = 1;
        q->dx[0] = slice(q, q->dy, pads, step, &t);
        return;
    }
    mpqc_vid dx = q->dy;
    for (uint32_t d = 0; d < t.rank && q->b->status == MPQC_OK; d++) {
        if (pads[d] != 0 || pads[t.rank + d] != 0)
            dx = fold_axis(q, dx, d, pads[d], t.dims[d], strcmp(mode, "reflect") == 0);
    }
    q->dx[0] = dx;
}

void mpqc_vjp_expand(struct mpqc_vjp *q)
{
    give(q, 0, q->dy);
}

void mpqc_vjp_gather(struct mpqc_vjp *q)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, 0);
    struct mpqc_type t = type_of(q, q->x);
    const mpqc_vid in[] = {q->dy, q->n->in[1]};
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, t.rank, t.dims);
    if (q->want[0]) q->dx[0] = mpqc_build_op(q->b, MPQC_OP_GATHER_DX, in, 2, &a);
}

void mpqc_vjp_gather_dx(struct mpqc_vjp *q)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, BIT(SHAPE));
    const mpqc_vid in[] = {q->dy, q->n->in[1]};
    if (q->want[0]) q->dx[0] = mpqc_build_op(q->b, MPQC_OP_GATHER, in, 2, &a);
}

/* From [N,H*B,W*B,C] back to [N,H,W,C*B*B]; in mode CRD the block comes last. */
void mpqc_vjp_depth_to_space(struct mpqc_vjp *q)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, BIT(MODE));
    if (strcmp(mpqc_attr_string_or(q->n, MPQC_ATTR_MODE, "DCR"), "DCR") == 0) {
        q->dx[0] = mpqc_build_op(q->b, MPQC_OP_SPACE_TO_DEPTH, &q->dy, 1, &a);
        return;
    }
    int64_t block = mpqc_attr_int(q->n, MPQC_ATTR_BLOCK);
    struct mpqc_type t = type_of(q, q->x);
    const int64_t c = t.dims[3] / (block * block);
    const int64_t six[6] = {t.dims[0], t.dims[1], block, t.dims[2], block, c};
    const int64_t perm[6] = {0, 1, 3, 5, 2, 4};
    mpqc_vid apart = mpqc_build_reshape(q->b, q->dy, 6, six);
    q->dx[0] = mpqc_build_reshape(q->b, mpqc_build_transpose(q->b, apart, perm), 4, t.dims);
}

void mpqc_vjp_space_to_depth(struct mpqc_vjp *q)
{
    struct mpqc_attrs a = mpqc_build_attrs(q->n, 0);
    q->dx[0] = mpqc_build_op(q->b, MPQC_OP_DEPTH_TO_SPACE, &q->dy, 1, &a);
}

void mpqc_vjp_channel_shuffle(struct mpqc_vjp *q)
{
    struct mpqc_type t = type_of(q, q->x);
    struct mpqc_attrs a = {0};
    mpqc_attrs_int(&a, MPQC_ATTR_GROUP,
                   t.dims[t.rank - 1] / mpqc_attr_int(q->n, MPQC_ATTR_GROUP));
    q->dx[0] = mpqc_build_op(q->b, MPQC_OP_CHANNEL_SHUFFLE, &q->dy, 1, &a);
}
