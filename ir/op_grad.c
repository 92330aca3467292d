/* SPDX-License-Identifier: GPL-3.0-or-later
 * Operators that derivatives need besides those of op_grad_conv.c and op_grad_pool.c:
 * masks, what slice and gather leave behind, dot, logsoftmax.
 */
#include "ir/op.h"

#include <math.h>

/* ---- inference ------------------------------------------------------------- */

static mpqc_status want_f32(struct mpqc_infer *q, const struct mpqc_type *t)
{
    if (mpqc_op_is_plain(t, MPQC_DT_F32)) return MPQC_OK;
    return OP_FAIL(q, UNSUPPORTED, "%s takes f32, not %s", mpqc_op_name(q),
                   mpqc_op_type_text(q, t));
}

/* Two f32 operands of one shape. */
static mpqc_status check_pair(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    MPQC_TRY(want_f32(q, q->in[0]));
    MPQC_TRY(want_f32(q, q->in[1]));
    if (!mpqc_type_same_shape(q->in[0], q->in[1]))
        return OP_FAIL(q, MODEL, "%s takes two tensors of one shape, not %s and %s",
                       mpqc_op_name(q), mpqc_op_type_text(q, q->in[0]),
                       mpqc_op_type_text(q, q->in[1]));
    return MPQC_OK;
}

mpqc_status mpqc_infer_mask(struct mpqc_infer *q)
{
    MPQC_TRY(check_pair(q));
    return mpqc_op_result(q, *q->in[0]);
}

mpqc_status mpqc_infer_dot(struct mpqc_infer *q)
{
    MPQC_TRY(check_pair(q));
    return mpqc_op_result(q, (struct mpqc_type){.dtype = MPQC_DT_F32, .rank = 1, .dims = {1}});
}

mpqc_status mpqc_infer_logsoftmax(struct mpqc_infer *q)
{
    uint32_t axis;
    MPQC_TRY(mpqc_op_arity(q));
    MPQC_TRY(want_f32(q, q->in[0]));
    MPQC_TRY(mpqc_op_axis(q, q->in[0]->rank, &axis));
    return mpqc_op_result(q, *q->in[0]);
}

/* SHAPE, of some rank, as an f32 type. */
static mpqc_status take_shape(struct mpqc_infer *q, uint32_t rank, struct mpqc_type *out)
{
    const int64_t *shape;
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_SHAPE, rank, false, &shape));
    *out = mpqc_type_make(MPQC_DT_F32, rank, shape);
    if (!mpqc_type_fits(out))
        return OP_FAIL(q, MODEL, "the shape of %s is negative or too large", mpqc_op_name(q));
    return MPQC_OK;
}

mpqc_status mpqc_infer_slice_dx(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *dy = q->in[0];
    const int64_t *begin, *step;
    struct mpqc_type out;
    MPQC_TRY(want_f32(q, dy));
    MPQC_TRY(take_shape(q, dy->rank, &out));
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_BEGIN, dy->rank, false, &begin));
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_STEP, dy->rank, false, &step));
    for (uint32_t d = 0; d < dy->rank; d++) {
        int64_t n = dy->dims[d], b = begin[d];
        if (n == 0) continue;
        bool ok = step[d] != 0 && step[d] != INT64_MIN && b >= 0 && b < out.dims[d];
        if (ok && n > 1) {
            int64_t room = step[d] > 0 ? out.dims[d] - 1 - b : b;
            ok = n - 1 <= room / (step[d] > 0 ? step[d] : -step[d]);
        }
        if (!ok)
            return OP_FAIL(q, MODEL, "%s does not lie inside of axis %u of %s",
                           mpqc_op_type_text(q, dy), d, mpqc_op_type_text(q, &out));
    }
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_gather_dx(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *dy = q->in[0], *index = q->in[1];
    uint32_t axis;
    struct mpqc_type out, picked;
    MPQC_TRY(want_f32(q, dy));
    if (!mpqc_op_is_plain(index, MPQC_DT_I64) || dy->rank < index->rank)
        return OP_FAIL(q, MODEL, "the indices of gather_dx are %s", mpqc_op_type_text(q, index));
    MPQC_TRY(take_shape(q, dy->rank - index->rank + 1, &out));
    MPQC_TRY(mpqc_op_axis(q, out.rank, &axis));
    picked = out;
    picked.rank = 0;
    for (uint32_t d = 0; d < axis; d++) picked.dims[picked.rank++] = out.dims[d];
    for (uint32_t d = 0; d < index->rank; d++) picked.dims[picked.rank++] = index->dims[d];
    for (uint32_t d = axis + 1; d < out.rank; d++) picked.dims[picked.rank++] = out.dims[d];
    bool empty = out.dims[axis] == 0 && mpqc_type_count(index) > 0;
    if (!mpqc_type_same_shape(&picked, dy) || empty)
        return OP_FAIL(q, MODEL, "%s was not gathered from %s along axis %u",
                       mpqc_op_type_text(q, dy), mpqc_op_type_text(q, &out), axis);
    return mpqc_op_result(q, out);
}

/* ---- kernels ------------------------------------------------------------------- */

MPQC_CLONES static void mask_positive(const float *restrict x, const float *restrict v,
                                      float *restrict to, int64_t n)
{
    for (int64_t i = 0; i < n; i++) to[i] = x[i] > 0.0f ? v[i] : 0.0f;
}

MPQC_CLONES static void mask_between(const float *restrict x, const float *restrict v, float low,
                                     float high, float *restrict to, int64_t n)
{
    for (int64_t i = 0; i < n; i++) to[i] = ((x[i] > low) & (x[i] < high)) ? v[i] : 0.0f;
}

void mpqc_ref_relu_grad(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                        struct mpqc_tensor *const *out)
{
    (void)n;
    mask_positive(in[0]->data, in[1]->data, out[0]->data, mpqc_type_count(&in[0]->type));
}

void mpqc_ref_clip_grad(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                        struct mpqc_tensor *const *out)
{
    mask_between(in[0]->data, in[1]->data, mpqc_attr_float_or(n, MPQC_ATTR_MIN, -INFINITY),
                 mpqc_attr_float_or(n, MPQC_ATTR_MAX, INFINITY), out[0]->data,
                 mpqc_type_count(&in[0]->type));
}

/* Sixteen sums in double precision, element i in sum i mod 16, so that it vectorises;
 * then these in order. */
MPQC_CLONES static double dot(const float *restrict a, const float *restrict b, int64_t n)
{
    double sum[16] = {0}, total = 0;
    int64_t whole = n / 16 * 16;
    for (int64_t i = 0; i < whole; i += 16) {
        for (int j = 0; j < 16; j++) sum[j] += (double)a[i + j] * (double)b[i + j];
    }
    for (int64_t i = whole; i < n; i++) sum[i - whole] += (double)a[i] * (double)b[i];
    for (int j = 0; j < 16; j++) total += sum[j];
    return total;
}

void mpqc_ref_dot(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                  struct mpqc_tensor *const *out)
{
    (void)n;
    *(float *)out[0]->data =
        (float)dot(in[0]->data, in[1]->data, mpqc_type_count(&in[0]->type));
}

void mpqc_ref_slice_dx(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                       struct mpqc_tensor *const *out)
{
    const struct mpqc_type *y = &in[0]->type, *x = &out[0]->type;
    const int64_t *begin = mpqc_attr_ints(n, MPQC_ATTR_BEGIN);
    const int64_t *step = mpqc_attr_ints(n, MPQC_ATTR_STEP);
    int64_t to[MPQC_MAX_RANK], first = 0;
    memset(out[0]->data, 0, mpqc_type_bytes(x));
    if (mpqc_type_count(y) == 0) return;
    mpqc_op_strides(x->rank, x->dims, to);
    for (uint32_t d = 0; d < x->rank; d++) {
        first += begin[d] * to[d];
        to[d] = y->dims[d] > 1 ? to[d] * step[d] : 0;
    }
    struct mpqc_walk w;
    mpqc_walk_init(&w, y->rank, y->dims);
    mpqc_walk_strided(&w, to, first);
    const float *from = in[0]->data;
    float *dx = out[0]->data;
    for (mpqc_walk_start(&w); !w.done; mpqc_walk_next(&w)) {
        for (int64_t i = 0; i < w.len; i++)
            dx[w.at[1] + i * w.step[1]] = from[w.at[0] + i * w.step[0]];
    }
}

void mpqc_ref_gather_dx(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                        struct mpqc_tensor *const *out)
{
    const struct mpqc_type *x = &out[0]->type;
    uint32_t axis = (uint32_t)mpqc_attr_int(n, MPQC_ATTR_AXIS);
    int64_t before, row, extent = x->dims[axis], count = mpqc_type_count(&in[1]->type);
    mpqc_op_around(x, axis, &before, &row);
    const int64_t *index = in[1]->data;
    const float *from = in[0]->data;
    memset(out[0]->data, 0, mpqc_type_bytes(x));
    for (int64_t b = 0; b < before && row > 0; b++) {
        for (int64_t i = 0; i < count; i++, from += row) {
            int64_t at = index[i] < 0 ? index[i] + extent : index[i];
            at = at < 0 ? 0 : at >= extent ? extent - 1 : at; /* as gather does */
            float *to = (float *)out[0]->data + (b * extent + at) * row;
            for (int64_t j = 0; j < row; j++) to[j] += from[j];
        }
    }
}

/* x - max - log(sum exp(x - max)) in double precision. */
static void log_row(const float *x, float *y, int64_t n, int64_t stride)
{
    float m = -INFINITY;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) m = x[i * stride] > m ? x[i * stride] : m;
    for (int64_t i = 0; i < n; i++) sum += mpqc_op_exp((double)x[i * stride] - (double)m);
    double level = (double)m + log(sum);
    for (int64_t i = 0; i < n; i++) y[i * stride] = (float)((double)x[i * stride] - level);
}

void mpqc_ref_logsoftmax(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                         struct mpqc_tensor *const *out)
{
    const struct mpqc_type *t = &in[0]->type;
    uint32_t axis = (uint32_t)mpqc_attr_int(n, MPQC_ATTR_AXIS);
    int64_t row = t->dims[axis], before, after;
    mpqc_op_around(t, axis, &before, &after);
    for (int64_t b = 0; b < before; b++) {
        for (int64_t a = 0; a < after && row > 0; a++) {
            int64_t at = b * row * after + a;
            log_row((const float *)in[0]->data + at, (float *)out[0]->data + at, row, after);
        }
    }
}
