/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Constants, the arithmetic of shapes, and If with a known condition: what exporters
 * leave behind, and what is gone when the file has been read.
 */
#include "frontend/ops.h"

/* ---- constants -------------------------------------------------------------------- */

static struct mpqc_where where_of(const struct mpqc_imp_node *n)
{
    return (struct mpqc_where){.file = n->im->file.path,
                               .node = n->loc.node,
                               .op = n->loc.op,
                               .offset = n->loc.offset};
}

static mpqc_status tensor_attr(struct mpqc_imp_node *n, const Onnx__AttributeProto *a,
                               struct mpqc_tensor *out)
{
    if (!a->t) return mpqc_imp_invalid(n, "attribute '%.60s' holds no tensor", a->name);
    return mpqc_imp_tensor(n->im->cx, where_of(n), a->t, NULL, 0, &n->im->scratch, out);
}

/* A list or a number as a tensor: rank 1 or 0. */
static mpqc_status listed(struct mpqc_imp_node *n, enum mpqc_dtype dtype, uint32_t rank,
                          size_t count, const void *data)
{
    int64_t dims[1] = {(int64_t)count};
    struct mpqc_tensor t = {.type = mpqc_type_make(dtype, rank, dims)};
    t.data = mpqc_arena_copy(&n->im->scratch, data, count * mpqc_dtypes[dtype].bytes);
    return t.data ? mpqc_imp_constant(n->im, NULL, &t, &n->out[0]) : MPQC_OOM(n->im->cx);
}

mpqc_status mpqc_on_constant(struct mpqc_imp_node *n)
{
    if (n->pb->n_attribute != 1)
        return mpqc_imp_invalid(n, "%zu values instead of one", n->pb->n_attribute);
    const Onnx__AttributeProto *a = n->pb->attribute[0];
    if (!strcmp(a->name, "value_float")) return listed(n, MPQC_DT_F32, 0, 1, &a->f);
    if (!strcmp(a->name, "value_int")) return listed(n, MPQC_DT_I64, 0, 1, &a->i);
    if (!strcmp(a->name, "value_floats"))
        return listed(n, MPQC_DT_F32, 1, a->n_floats, a->floats);
    if (!strcmp(a->name, "value_ints")) return listed(n, MPQC_DT_I64, 1, a->n_ints, a->ints);
    struct mpqc_tensor t;
    MPQC_TRY(tensor_attr(n, a, &t));
    return mpqc_imp_constant(n->im, NULL, &t, &n->out[0]);
}

/* The shape is usually that of weights which a file leaves out to stay small. */
mpqc_status mpqc_on_constant_of_shape(struct mpqc_imp_node *n)
{
    uint32_t rank;
    const int64_t *dims;
    struct mpqc_tensor t = {.type = {.dtype = MPQC_DT_F32}};
    const Onnx__AttributeProto *a = mpqc_imp_attr(n, "value");
    mpqc_vid one;
    MPQC_TRY(mpqc_imp_const_ints(n, 0, "the shape", &rank, &dims));
    if (rank > MPQC_MAX_RANK) return mpqc_imp_unsupported(n, "a shape of rank %u", rank);
    if (!a) return mpqc_imp_filled(n, MPQC_DT_F32, rank, dims, 0, &n->out[0]);
    MPQC_TRY(tensor_attr(n, a, &t));
    if (mpqc_type_count(&t.type) != 1) return mpqc_imp_invalid(n, "value has not one element");
    t.type.rank = 0;
    MPQC_TRY(mpqc_imp_constant(n->im, NULL, &t, &one));
    for (uint32_t i = 0; i < rank; i++)
        if (dims[i] < 0) return mpqc_imp_invalid(n, "a dimension of %lld", (long long)dims[i]);
    return mpqc_imp_expand(n, one, rank, dims, &n->out[0]);
}

/* ---- shapes ----------------------------------------------------------------------- */

mpqc_status mpqc_on_shape(struct mpqc_imp_node *n)
{
    int64_t start, end;
    const struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    int64_t rank = t.rank;
    MPQC_TRY(mpqc_imp_int(n, "start", 0, &start));
    MPQC_TRY(mpqc_imp_int(n, "end", rank, &end));
    if (start < 0) start += rank;
    if (end < 0) end += rank;
    start = start < 0 ? 0 : start > rank ? rank : start;
    end = end < start ? start : end > rank ? rank : end;
    return mpqc_imp_i64(n, 1, (uint32_t)(end - start), t.dims + start, &n->out[0]);
}

mpqc_status mpqc_on_size(struct mpqc_imp_node *n)
{
    int64_t count = mpqc_type_count(mpqc_imp_type(n, n->in[0]));
    return mpqc_imp_i64(n, 0, 1, &count, &n->out[0]);
}

mpqc_status mpqc_on_range(struct mpqc_imp_node *n)
{
    for (uint32_t i = 0; i < 3; i++)
        if (!mpqc_is_const(n->im->g, n->in[i]))
            return mpqc_imp_unsupported(n, "input %u is computed while the network runs; only "
                                           "constants are supported", i);
    return mpqc_imp_emit(n, MPQC_OP_RANGE, n->in, 3, NULL, &n->out[0]);
}

/* ---- If --------------------------------------------------------------------------- */

mpqc_status mpqc_on_branch(struct mpqc_imp_node *n)
{
    uint32_t count;
    const int64_t *condition;
    MPQC_TRY(mpqc_imp_const_ints(n, 0, "the condition", &count, &condition));
    if (count != 1) return mpqc_imp_invalid(n, "the condition is not one bool");
    const Onnx__AttributeProto *a = mpqc_imp_attr(n, *condition ? "then_branch" : "else_branch");
    if (!a || !a->g) return mpqc_imp_invalid(n, "a branch is missing");
    return mpqc_imp_inline(n, a->g);
}
