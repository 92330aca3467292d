/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Reductions over AXES (absent: all), which stay with extent 1.
 *
 * f32 sums are taken in double precision and rounded once.  Integers reduce as
 * int64; the mean truncates towards zero.  Sums of quantised numbers are i32 sums
 * of (q - zero) at the same scale; maximum and minimum keep the type.
 */
#include "ir/op.h"

#include <math.h>

static mpqc_status reduced_axes(struct mpqc_infer *q, uint32_t rank, bool *reduced)
{
    const struct mpqc_attr *a = mpqc_attr_find(q->node, MPQC_ATTR_AXES);
    for (uint32_t d = 0; d < rank; d++) reduced[d] = a == NULL;
    for (uint32_t i = 0; a && i < a->count; i++) {
        if (a->ints[i] < 0 || a->ints[i] >= (int64_t)rank || reduced[a->ints[i]])
            return OP_FAIL(q, MODEL, "axis %lld is repeated or outside of rank %u",
                           (long long)a->ints[i], rank);
        reduced[a->ints[i]] = true;
    }
    return MPQC_OK;
}

mpqc_status mpqc_infer_reduce(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *x = q->in[0];
    enum mpqc_op op = q->node->op;
    bool reduced[MPQC_MAX_RANK], order = op == MPQC_OP_REDUCE_MAX || op == MPQC_OP_REDUCE_MIN;
    struct mpqc_type out = *x;
    MPQC_TRY(reduced_axes(q, x->rank, reduced));
    for (uint32_t d = 0; d < x->rank; d++) {
        if (!reduced[d]) continue;
        if (x->dims[d] == 0 && op != MPQC_OP_REDUCE_SUM && op != MPQC_OP_REDUCE_PROD)
            return OP_FAIL(q, MODEL, "%s over the empty axis %u of %s", mpqc_op_name(q), d,
                           mpqc_op_type_text(q, x));
        out.dims[d] = 1;
    }
    if (x->quant) {
        bool summed = op == MPQC_OP_REDUCE_SUM && mpqc_op_is_quantised(x, 16);
        if (!summed && !(order && x->quant->axis == -1))
            return OP_FAIL(q, UNSUPPORTED, "%s takes no quantised tensor like %s",
                           mpqc_op_name(q), mpqc_op_type_text(q, x));
        if (summed) {
            out.dtype = MPQC_DT_I32;
            MPQC_TRY(mpqc_op_quant(q, x->quant->scale[0], 0, &out.quant));
        }
    } else if (x->dtype == MPQC_DT_BOOL && !order) {
        return OP_FAIL(q, UNSUPPORTED, "%s takes numbers, not %s", mpqc_op_name(q),
                       mpqc_op_type_text(q, x));
    }
    return mpqc_op_result(q, out);
}

/* ---- kernels ------------------------------------------------------------------------ */

static double fold_float(enum mpqc_op op, double a, double v)
{
    switch (op) {
    case MPQC_OP_REDUCE_MAX: return v > a ? v : a;
    case MPQC_OP_REDUCE_MIN: return v < a ? v : a;
    case MPQC_OP_REDUCE_PROD: return a * v;
    default: return a + v;
    }
}

static int64_t fold_int(enum mpqc_op op, int64_t a, int64_t v)
{
    switch (op) {
    case MPQC_OP_REDUCE_MAX: return v > a ? v : a;
    case MPQC_OP_REDUCE_MIN: return v < a ? v : a;
    case MPQC_OP_REDUCE_PROD: return (int64_t)((uint64_t)a * (uint64_t)v);
    default: return (int64_t)((uint64_t)a + (uint64_t)v);
    }
}

/* Reduces the elements of x that `inner` visits, beginning at element `first`. */
static float reduce_float(enum mpqc_op op, const float *x, struct mpqc_walk inner, int64_t count)
{
    double a = op == MPQC_OP_REDUCE_MAX    ? -(double)INFINITY
               : op == MPQC_OP_REDUCE_MIN  ? (double)INFINITY
               : op == MPQC_OP_REDUCE_PROD ? 1.0
                                           : 0.0;
    for (; !inner.done; mpqc_walk_next(&inner)) {
        for (int64_t j = 0; j < inner.len; j++)
            a = fold_float(op, a, x[inner.at[1] + j * inner.step[1]]);
    }
    return (float)(op == MPQC_OP_REDUCE_MEAN ? a / (double)count : a);
}

static int64_t reduce_int(enum mpqc_op op, const struct mpqc_tensor *x, int64_t first,
                          struct mpqc_walk inner, int64_t count)
{
    int64_t a = op == MPQC_OP_REDUCE_MAX    ? INT64_MIN
                : op == MPQC_OP_REDUCE_MIN  ? INT64_MAX
                : op == MPQC_OP_REDUCE_PROD ? 1
                                            : 0;
    int64_t zero = op == MPQC_OP_REDUCE_SUM && x->type.quant ? x->type.quant->zero[0] : 0;
    for (; !inner.done; mpqc_walk_next(&inner)) {
        for (int64_t j = 0; j < inner.len; j++) {
            int64_t at = first + inner.at[1] + j * inner.step[1];
            a = fold_int(op, a, mpqc_element_get(x->type.dtype, x->data, at) - zero);
        }
    }
    return op == MPQC_OP_REDUCE_MEAN ? a / count : a;
}

/* Splits the dimensions into a walk over results and one over what each reduces:
 * a dimension belongs to one and has extent 1 in the other. */
static void reduce(const struct mpqc_node *n, const struct mpqc_tensor *x, struct mpqc_tensor *out)
{
    const struct mpqc_type *t = &x->type;
    int64_t stride[MPQC_MAX_RANK], inner_dims[MPQC_MAX_RANK], count = 1;
    const struct mpqc_attr *axes = mpqc_attr_find(n, MPQC_ATTR_AXES);
    for (uint32_t d = 0; d < t->rank; d++) inner_dims[d] = axes ? 1 : t->dims[d];
    for (uint32_t i = 0; axes && i < axes->count; i++)
        inner_dims[axes->ints[i]] = t->dims[axes->ints[i]];
    for (uint32_t d = 0; d < t->rank; d++) count *= inner_dims[d];
    mpqc_op_strides(t->rank, t->dims, stride);
    struct mpqc_walk outer, inner;
    mpqc_walk_init(&outer, out->type.rank, out->type.dims);
    mpqc_walk_strided(&outer, stride, 0);
    mpqc_walk_init(&inner, t->rank, inner_dims);
    mpqc_walk_strided(&inner, stride, 0);
    mpqc_walk_start(&inner);
    for (mpqc_walk_start(&outer); !outer.done; mpqc_walk_next(&outer)) {
        for (int64_t j = 0; j < outer.len; j++) {
            int64_t to = outer.at[0] + j * outer.step[0], from = outer.at[1] + j * outer.step[1];
            if (t->dtype == MPQC_DT_F32)
                ((float *)out->data)[to] =
                    reduce_float(n->op, (const float *)x->data + from, inner, count);
            else
                mpqc_element_set(out->type.dtype, out->data, to,
                            reduce_int(n->op, x, from, inner, count));
        }
    }
}

#define REDUCE(name)                                                                              \
    void mpqc_ref_reduce_##name(const struct mpqc_node *n, const struct mpqc_tensor *const *in,   \
                                struct mpqc_tensor *const *out)                                   \
    {                                                                                             \
        reduce(n, in[0], out[0]);                                                                 \
    }
REDUCE(mean)
REDUCE(sum)
REDUCE(max)
REDUCE(min)
REDUCE(prod)
