/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Emitting IR nodes: what the operator importers are written with.
 */
#include "frontend/onnx_import.h"

#include <math.h>

/* ---- weights ---------------------------------------------------------------------- */

/* Operators in which an infinite constant has a meaning: a bound, a mask. */
static bool takes_infinity(enum mpqc_op op)
{
    return op == MPQC_OP_MIN || op == MPQC_OP_MAX || op == MPQC_OP_WHERE || op == MPQC_OP_PAD ||
           op == MPQC_OP_CLIP;
}

/* A constant that meets data must be finite.  Constants among constants may be
 * anything: shape arithmetic plays with infinities. */
static mpqc_status check_weights(struct mpqc_imp_node *n, enum mpqc_op op, const mpqc_vid *in,
                                 uint32_t n_in)
{
    for (uint32_t i = 0; i < n_in; i++) {
        if (!mpqc_is_const(n->im->g, in[i])) continue;
        const struct mpqc_value *v = mpqc_value_at(n->im->g, in[i]);
        if (v->type.dtype != MPQC_DT_F32) continue;
        const float *f = v->data;
        int64_t count = mpqc_type_count(&v->type);
        for (int64_t k = 0; k < count; k++) {
            if (isfinite(f[k]) || (!isnan(f[k]) && takes_infinity(op))) continue;
            struct mpqc_where where = {.file = n->im->file.path,
                                       .node = n->loc.node,
                                       .op = n->loc.op,
                                       .tensor = v->name,
                                       .offset = n->loc.offset};
            return MPQC_FAIL(n->im->cx, MODEL, where, "the constant '%s' has %s at element %lld",
                             v->name ? v->name : "(computed)", isnan(f[k]) ? "NaN" : "Inf",
                             (long long)k);
        }
    }
    return MPQC_OK;
}

static bool all_const(const struct mpqc_imp_node *n, const mpqc_vid *in, uint32_t n_in)
{
    for (uint32_t i = 0; i < n_in; i++)
        if (in[i] != MPQC_NONE && !mpqc_is_const(n->im->g, in[i])) return false;
    return true;
}

/* Could folding take long?  Movement and element-wise operators cost what they
 * write; windows and products can cost far more than that. */
static bool costly(const struct mpqc_imp_node *n, enum mpqc_op op, const mpqc_vid *in)
{
    uint32_t traits = mpqc_ops[op].traits;
    if (traits & MPQC_T_POOL) return true;
    if (!(traits & MPQC_T_LINEAR)) return false;
    uint64_t a = (uint64_t)mpqc_type_count(mpqc_imp_type(n, in[0]));
    uint64_t b = (uint64_t)mpqc_type_count(mpqc_imp_type(n, in[1]));
    return a && b > MPQC_IMP_MAX_FOLD_MACS / a;
}

/* Counts a new constant against the limit of all. */
static mpqc_status account(struct mpqc_imp *im, struct mpqc_where where, mpqc_vid v)
{
    const struct mpqc_type *t = &mpqc_value_at(im->g, v)->type;
    im->const_bytes += mpqc_type_bytes(t);
    if (im->const_bytes > MPQC_IMP_MAX_CONSTS)
        return MPQC_FAIL(im->cx, LIMIT_EXCEEDED, where,
                         "the constants of this network take more than %llu MiB",
                         (unsigned long long)(MPQC_IMP_MAX_CONSTS >> 20));
    return MPQC_OK;
}

static mpqc_status check_size(struct mpqc_imp_node *n, mpqc_vid v)
{
    const struct mpqc_type *t = mpqc_imp_type(n, v);
    if (mpqc_type_count(t) <= MPQC_IMP_MAX_ELEMENTS) return MPQC_OK;
    return MPQC_FAIL(n->im->cx, LIMIT_EXCEEDED, mpqc_loc_where(n->loc),
                     "a result of %lld elements is too large", (long long)mpqc_type_count(t));
}

/* Before folding: the size of the result, and memory for it. */
static mpqc_status check_fold(struct mpqc_imp_node *n, enum mpqc_op op, const mpqc_vid *in,
                              uint32_t n_in, const struct mpqc_attrs *attrs)
{
    static const struct mpqc_attrs none;
    const struct mpqc_attrs *list = attrs ? attrs : &none;
    struct mpqc_type out[MPQC_MAX_OUTPUTS];
    union { /* inference only reads the lists */
        const mpqc_vid *c;
        mpqc_vid *m;
    } ins = {in};
    struct mpqc_attr sorted[MPQC_MAX_ATTRS];
    uint32_t count = 0;
    for (; count < list->n; count++) {
        uint32_t at = count;
        for (; at && sorted[at - 1].key > list->a[count].key; at--) sorted[at] = sorted[at - 1];
        sorted[at] = list->a[count];
    }
    mpqc_vid unused[MPQC_MAX_OUTPUTS] = {0};
    struct mpqc_node node = {.op = op, .n_in = n_in, .n_out = mpqc_ops[op].n_out, .n_attr = count,
                             .in = ins.m, .out = unused, .attr = sorted, .loc = n->loc};
    MPQC_TRY(mpqc_node_infer(n->im->cx, n->im->g, &node, out));
    for (uint32_t i = 0; i < node.n_out; i++)
        if (mpqc_type_bytes(&out[i]) > MPQC_IMP_MAX_CONST)
            return MPQC_FAIL(n->im->cx, LIMIT_EXCEEDED, mpqc_loc_where(n->loc),
                             "folding would make a constant of %zu bytes",
                             mpqc_type_bytes(&out[i]));
    return MPQC_OK;
}

mpqc_status mpqc_imp_emit(struct mpqc_imp_node *n, enum mpqc_op op, const mpqc_vid *in,
                          uint32_t n_in, const struct mpqc_attrs *attrs, mpqc_vid *out)
{
    struct mpqc_imp *im = n->im;
    if (!all_const(n, in, n_in) || costly(n, op, in)) {
        MPQC_TRY(check_weights(n, op, in, n_in));
        MPQC_TRY(mpqc_node_add(im->cx, im->g, op, in, n_in, attrs, n->loc, out));
        return check_size(n, *out);
    }
    MPQC_TRY(check_fold(n, op, in, n_in, attrs));
    MPQC_TRY(mpqc_node_fold(im->cx, im->g, op, in, n_in, attrs, n->loc, out));
    if (!mpqc_is_const(im->g, *out)) return check_size(n, *out);
    /* A weight that was only moved keeps its name, for diagnostics. */
    struct mpqc_value *v = mpqc_value_at(im->g, *out);
    if (mpqc_ops[op].traits & MPQC_T_MOVE && !v->name)
        v->name = mpqc_value_at(im->g, in[0])->name;
    return account(im, mpqc_loc_where(n->loc), *out);
}

/* ---- short forms ------------------------------------------------------------------ */

mpqc_status mpqc_imp_unary(struct mpqc_imp_node *n, enum mpqc_op op, mpqc_vid x, mpqc_vid *out)
{
    return mpqc_imp_emit(n, op, &x, 1, NULL, out);
}

mpqc_status mpqc_imp_binary(struct mpqc_imp_node *n, enum mpqc_op op, mpqc_vid a, mpqc_vid b,
                            mpqc_vid *out)
{
    return mpqc_imp_emit(n, op, (mpqc_vid[]){a, b}, 2, NULL, out);
}

mpqc_status mpqc_imp_transpose(struct mpqc_imp_node *n, mpqc_vid x, const int64_t *perm,
                               mpqc_vid *out)
{
    uint32_t rank = mpqc_imp_type(n, x)->rank;
    bool identity = true;
    for (uint32_t i = 0; i < rank; i++) identity = identity && perm[i] == (int64_t)i;
    *out = x;
    if (identity) return MPQC_OK;
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_PERM, rank, perm);
    return mpqc_imp_emit(n, MPQC_OP_TRANSPOSE, &x, 1, &a, out);
}

static bool has_shape(const struct mpqc_type *t, uint32_t rank, const int64_t *dims)
{
    if (t->rank != rank) return false;
    for (uint32_t i = 0; i < rank; i++)
        if (t->dims[i] != dims[i]) return false;
    return true;
}

/* By an operator whose only attribute is the shape that it gives; nothing where x has it. */
static mpqc_status to_shape(struct mpqc_imp_node *n, enum mpqc_op op, mpqc_vid x, uint32_t rank,
                            const int64_t *dims, mpqc_vid *out)
{
    *out = x;
    if (has_shape(mpqc_imp_type(n, x), rank, dims)) return MPQC_OK;
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, rank, dims);
    return mpqc_imp_emit(n, op, &x, 1, &a, out);
}

mpqc_status mpqc_imp_reshape(struct mpqc_imp_node *n, mpqc_vid x, uint32_t rank,
                             const int64_t *dims, mpqc_vid *out)
{
    return to_shape(n, MPQC_OP_RESHAPE, x, rank, dims, out);
}

mpqc_status mpqc_imp_expand(struct mpqc_imp_node *n, mpqc_vid x, uint32_t rank,
                            const int64_t *dims, mpqc_vid *out)
{
    return to_shape(n, MPQC_OP_EXPAND, x, rank, dims, out);
}

mpqc_status mpqc_imp_cast(struct mpqc_imp_node *n, mpqc_vid x, enum mpqc_dtype to, mpqc_vid *out)
{
    *out = x;
    if (mpqc_imp_type(n, x)->dtype == to) return MPQC_OK;
    struct mpqc_attrs a = {0};
    mpqc_attrs_string(&a, MPQC_ATTR_TO, mpqc_dtypes[to].text);
    return mpqc_imp_emit(n, MPQC_OP_CAST, &x, 1, &a, out);
}

mpqc_status mpqc_imp_slice(struct mpqc_imp_node *n, mpqc_vid x, const int64_t *begin,
                           const int64_t *shape, const int64_t *step, mpqc_vid *out)
{
    const struct mpqc_type *t = mpqc_imp_type(n, x);
    bool whole = has_shape(t, t->rank, shape);
    for (uint32_t i = 0; i < t->rank; i++) whole = whole && begin[i] == 0 && step[i] == 1;
    *out = x;
    if (whole) return MPQC_OK;
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_BEGIN, t->rank, begin);
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, t->rank, shape);
    mpqc_attrs_ints(&a, MPQC_ATTR_STEP, t->rank, step);
    return mpqc_imp_emit(n, MPQC_OP_SLICE, &x, 1, &a, out);
}

mpqc_status mpqc_imp_pad(struct mpqc_imp_node *n, mpqc_vid x, const int64_t *before,
                         const int64_t *after, const char *mode, float value, mpqc_vid *out)
{
    uint32_t rank = mpqc_imp_type(n, x)->rank;
    int64_t pads[2 * MPQC_MAX_RANK];
    bool nothing = true;
    for (uint32_t i = 0; i < rank; i++) {
        pads[i] = before[i];
        pads[rank + i] = after[i];
        nothing = nothing && !before[i] && !after[i];
    }
    *out = x;
    if (nothing) return MPQC_OK;
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_PADS, 2 * rank, pads);
    mpqc_attrs_string(&a, MPQC_ATTR_MODE, mode);
    if (value != 0) mpqc_attrs_float(&a, MPQC_ATTR_ALPHA, value);
    return mpqc_imp_emit(n, MPQC_OP_PAD, &x, 1, &a, out);
}

/* A node takes MPQC_MAX_INPUTS; longer lists become concats of concats. */
mpqc_status mpqc_imp_concat(struct mpqc_imp_node *n, const mpqc_vid *in, uint32_t count,
                            uint32_t axis, mpqc_vid *out)
{
    struct mpqc_attrs a = {0};
    mpqc_attrs_int(&a, MPQC_ATTR_AXIS, axis);
    *out = in[0];
    if (count == 1) return MPQC_OK;
    if (count <= MPQC_MAX_INPUTS) return mpqc_imp_emit(n, MPQC_OP_CONCAT, in, count, &a, out);
    uint32_t groups = (count + MPQC_MAX_INPUTS - 1) / MPQC_MAX_INPUTS;
    mpqc_vid *part = MPQC_NEW_ARRAY(&n->im->scratch, mpqc_vid, groups);
    if (!part) return MPQC_OOM(n->im->cx);
    for (uint32_t i = 0; i < groups; i++) {
        uint32_t from = i * MPQC_MAX_INPUTS, left = count - from;
        MPQC_TRY(mpqc_imp_concat(n, in + from, left < MPQC_MAX_INPUTS ? left : MPQC_MAX_INPUTS,
                                 axis, &part[i]));
    }
    return mpqc_imp_concat(n, part, groups, axis, out);
}

mpqc_status mpqc_imp_reduce(struct mpqc_imp_node *n, enum mpqc_op op, mpqc_vid x, uint32_t count,
                            const int64_t *axes, mpqc_vid *out)
{
    *out = x;
    if (!count) return MPQC_OK;
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_AXES, count, axes);
    return mpqc_imp_emit(n, op, &x, 1, &a, out);
}

/* ---- constants -------------------------------------------------------------------- */

mpqc_status mpqc_imp_constant(struct mpqc_imp *im, const char *name, const struct mpqc_tensor *t,
                              mpqc_vid *out)
{
    *out = mpqc_graph_const(im->g, name, t->type, t->data, false);
    if (*out == MPQC_NONE) return MPQC_OOM(im->cx);
    return account(im, (struct mpqc_where){.file = im->file.path, .tensor = name, .offset = -1},
                   *out);
}

static void fill(enum mpqc_dtype dtype, double value, void *data, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        switch (dtype) {
        case MPQC_DT_F32: ((float *)data)[i] = (float)value; break;
        case MPQC_DT_I64: ((int64_t *)data)[i] = (int64_t)value; break;
        case MPQC_DT_I32: ((int32_t *)data)[i] = (int32_t)value; break;
        case MPQC_DT_I16: ((int16_t *)data)[i] = (int16_t)value; break;
        case MPQC_DT_U16: ((uint16_t *)data)[i] = (uint16_t)value; break;
        case MPQC_DT_I8: ((int8_t *)data)[i] = (int8_t)value; break;
        case MPQC_DT_BOOL: ((uint8_t *)data)[i] = value != 0; break;
        default: ((uint8_t *)data)[i] = (uint8_t)value; break;
        }
    }
}

mpqc_status mpqc_imp_filled(struct mpqc_imp_node *n, enum mpqc_dtype dtype, uint32_t rank,
                            const int64_t *dims, double value, mpqc_vid *out)
{
    int64_t count = 0;
    size_t bytes;
    if (!mpqc_imp_count(rank, dims, &count) ||
        !mpqc_size_mul((size_t)count, mpqc_dtypes[dtype].bytes, &bytes) ||
        bytes > MPQC_IMP_MAX_CONST)
        return mpqc_imp_invalid(n, "a constant of this shape is too large");
    struct mpqc_tensor t = {.type = mpqc_type_make(dtype, rank, dims)};
    t.data = mpqc_arena_alloc(&n->im->g->arena, bytes);
    if (!t.data) return MPQC_OOM(n->im->cx);
    fill(dtype, value, t.data, mpqc_type_count(&t.type));
    *out = mpqc_graph_const(n->im->g, NULL, t.type, t.data, true);
    if (*out == MPQC_NONE) return MPQC_OOM(n->im->cx);
    return account(n->im, mpqc_loc_where(n->loc), *out);
}

mpqc_status mpqc_imp_scalar(struct mpqc_imp_node *n, enum mpqc_dtype dtype, double value,
                            mpqc_vid *out)
{
    return mpqc_imp_filled(n, dtype, 0, NULL, value, out);
}

mpqc_status mpqc_imp_i64(struct mpqc_imp_node *n, uint32_t rank, uint32_t count,
                         const int64_t *data, mpqc_vid *out)
{
    int64_t dims[1] = {count};
    union { /* mpqc_tensor has no const form; the data are copied */
        const int64_t *c;
        void *m;
    } p = {data};
    struct mpqc_tensor t = {.type = mpqc_type_make(MPQC_DT_I64, rank, dims), .data = p.m};
    return mpqc_imp_constant(n->im, NULL, &t, out);
}
