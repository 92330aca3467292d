/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Two operands, broadcasting: arithmetic, comparisons, where.
 *
 * Plain operands have one element type.  Integer arithmetic wraps; division by
 * zero, which only a broken model contains, gives 0.  The quantised forms:
 *   add   i16 + i16 -> i16, saturating, equal scales, zero 0
 *   mul   8 bits * 8 bits -> i32: (a - zero_a) * (b - zero_b), scale_a * scale_b
 *   min, max   on equal quantisation, which they keep
 */
#include "ir/op.h"

#include <math.h>

static mpqc_status bad_types(struct mpqc_infer *q)
{
    const struct mpqc_type *a = q->in[0], *b = q->in[1];
    return OP_FAIL(q, UNSUPPORTED, "operator %s does not take %s%s and %s%s", mpqc_op_name(q),
                   a->quant ? "quantised " : "", mpqc_op_type_text(q, a),
                   b->quant ? "quantised " : "", mpqc_op_type_text(q, b));
}

/* The rules for quantised operands; fills type and quantisation of *out. */
static mpqc_status infer_quantised(struct mpqc_infer *q, struct mpqc_type *out)
{
    const struct mpqc_type *a = q->in[0], *b = q->in[1];
    switch (q->node->op) {
    case MPQC_OP_ADD:
        if (!mpqc_op_is_quantised(a, 16) || a->dtype != MPQC_DT_I16 || b->dtype != MPQC_DT_I16 ||
            !mpqc_op_same_quant(a, b) || a->quant->zero[0] != 0)
            return bad_types(q);
        out->quant = a->quant;
        return MPQC_OK;
    case MPQC_OP_MUL:
        if (!mpqc_op_is_quantised(a, 8) || !mpqc_op_is_quantised(b, 8)) return bad_types(q);
        out->dtype = MPQC_DT_I32;
        return mpqc_op_quant(q, a->quant->scale[0] * b->quant->scale[0], 0, &out->quant);
    case MPQC_OP_MIN:
    case MPQC_OP_MAX:
        if (a->dtype != b->dtype || !mpqc_op_same_quant(a, b) || a->quant->axis != -1)
            return bad_types(q);
        out->quant = a->quant;
        return MPQC_OK;
    default: return bad_types(q);
    }
}

mpqc_status mpqc_infer_binary(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *a = q->in[0], *b = q->in[1];
    struct mpqc_type out = *a;
    out.quant = NULL;
    MPQC_TRY(mpqc_op_broadcast(q, &out, b));
    if (a->quant || b->quant) {
        MPQC_TRY(infer_quantised(q, &out));
        return mpqc_op_result(q, out);
    }
    enum mpqc_op op = q->node->op;
    bool number = a->dtype == MPQC_DT_F32 || a->dtype == MPQC_DT_I64 || a->dtype == MPQC_DT_I32;
    if (op == MPQC_OP_PRELU) number = a->dtype == MPQC_DT_F32;
    if (op == MPQC_OP_MIN || op == MPQC_OP_MAX) number = true;
    if (a->dtype != b->dtype || !number) return bad_types(q);
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_compare(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *a = q->in[0], *b = q->in[1];
    enum mpqc_op op = q->node->op;
    bool logical = op == MPQC_OP_AND || op == MPQC_OP_OR;
    if (a->quant || b->quant || a->dtype != b->dtype ||
        (logical && a->dtype != MPQC_DT_BOOL))
        return bad_types(q);
    struct mpqc_type out = *a;
    MPQC_TRY(mpqc_op_broadcast(q, &out, b));
    out.dtype = MPQC_DT_BOOL;
    return mpqc_op_result(q, out);
}

mpqc_status mpqc_infer_where(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    const struct mpqc_type *c = q->in[0], *a = q->in[1], *b = q->in[2];
    bool per_axis = a->quant && a->quant->axis != -1;
    if (c->dtype != MPQC_DT_BOOL || a->dtype != b->dtype || !mpqc_op_same_quant(a, b) || per_axis)
        return OP_FAIL(q, UNSUPPORTED, "operator where does not take %s, %s and %s",
                       mpqc_op_type_text(q, c), mpqc_op_type_text(q, a), mpqc_op_type_text(q, b));
    struct mpqc_type out = *a;
    MPQC_TRY(mpqc_op_broadcast(q, &out, b));
    MPQC_TRY(mpqc_op_broadcast(q, &out, c));
    return mpqc_op_result(q, out);
}

/* ---- f32 ------------------------------------------------------------------------ */

/* A row: x, y and o are n elements with steps 0 or more; rows of unit steps are
 * written apart so that they vectorise. */
#define ROW_F32(name, expression)                                                                 \
    MPQC_CLONES static void row_##name(const float *x, int64_t sx, const float *y, int64_t sy,    \
                                       float *restrict o, int64_t n)                              \
    {                                                                                             \
        if (sx == 1 && sy == 1) {                                                                 \
            for (int64_t i = 0; i < n; i++) {                                                     \
                float a = x[i], b = y[i];                                                         \
                o[i] = expression;                                                                \
            }                                                                                     \
            return;                                                                               \
        }                                                                                         \
        for (int64_t i = 0; i < n; i++) {                                                         \
            float a = x[i * sx], b = y[i * sy];                                                   \
            o[i] = expression;                                                                    \
        }                                                                                         \
    }
typedef void (*row_f32)(const float *, int64_t, const float *, int64_t, float *, int64_t);

/* The remainder with the sign of b. */
static float mod_f32(float a, float b)
{
    float r = fmodf(a, b);
    return r != 0.0f && (r < 0.0f) != (b < 0.0f) ? r + b : r;
}

ROW_F32(add, a + b)
ROW_F32(sub, a - b)
ROW_F32(mul, a *b)
ROW_F32(div, a / b)
ROW_F32(pow, (float)pow(a, b))
ROW_F32(min, b < a ? b : a)
ROW_F32(max, b > a ? b : a)
ROW_F32(mod, mod_f32(a, b))
ROW_F32(prelu, a < 0.0f ? a * b : a)

/* ---- integers ---------------------------------------------------------------------- */

static int64_t pow_int(int64_t a, int64_t b)
{
    if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
    uint64_t r = 1, p = (uint64_t)a;
    for (; b > 0; b >>= 1, p *= p) {
        if (b & 1) r *= p;
    }
    return (int64_t)r;
}

static int64_t div_int(int64_t a, int64_t b)
{
    if (b == 0) return 0;
    return b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}

static int64_t mod_int(int64_t a, int64_t b)
{
    if (b == 0 || b == -1) return 0;
    int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

static int64_t binary_int(enum mpqc_op op, int64_t a, int64_t b)
{
    switch (op) {
    case MPQC_OP_ADD: return (int64_t)((uint64_t)a + (uint64_t)b);
    case MPQC_OP_SUB: return (int64_t)((uint64_t)a - (uint64_t)b);
    case MPQC_OP_MUL: return (int64_t)((uint64_t)a * (uint64_t)b);
    case MPQC_OP_DIV: return div_int(a, b);
    case MPQC_OP_POW: return pow_int(a, b);
    case MPQC_OP_MIN: return b < a ? b : a;
    case MPQC_OP_MAX: return b > a ? b : a;
    case MPQC_OP_MOD: return mod_int(a, b);
    case MPQC_OP_EQUAL: return a == b;
    case MPQC_OP_LESS: return a < b;
    case MPQC_OP_GREATER: return a > b;
    case MPQC_OP_AND: return a && b;
    case MPQC_OP_OR: return a || b;
    default: MPQC_ASSERT(!"an integer operator"); return 0;
    }
}

/* ---- dispatch ------------------------------------------------------------------------ */

static void walk_two(struct mpqc_walk *w, const struct mpqc_tensor *const *in,
                     const struct mpqc_tensor *out)
{
    mpqc_walk_init(w, out->type.rank, out->type.dims);
    mpqc_walk_broadcast(w, &in[0]->type);
    mpqc_walk_broadcast(w, &in[1]->type);
}

static void run_f32(row_f32 row, const struct mpqc_tensor *const *in, struct mpqc_tensor *out)
{
    struct mpqc_walk w;
    walk_two(&w, in, out);
    for (mpqc_walk_start(&w); !w.done; mpqc_walk_next(&w))
        row((const float *)in[0]->data + w.at[1], w.step[1], (const float *)in[1]->data + w.at[2],
            w.step[2], (float *)out->data + w.at[0], w.len);
}

/* The residual sums of integer networks. */
MPQC_CLONES static void add_i16(const int16_t *restrict a, const int16_t *restrict b,
                                int16_t *restrict sum, int64_t n)
{
    for (int64_t i = 0; i < n; i++) sum[i] = (int16_t)mpqc_sat16(a[i] + b[i]);
}

/* Integers of any type: zero points are subtracted for mul; i16 sums saturate. */
static void run_int(enum mpqc_op op, const struct mpqc_tensor *const *in, struct mpqc_tensor *out)
{
    const struct mpqc_type *a = &in[0]->type, *b = &in[1]->type;
    bool product = op == MPQC_OP_MUL && a->quant;
    int64_t zero_a = product ? a->quant->zero[0] : 0, zero_b = product ? b->quant->zero[0] : 0;
    bool saturate = op == MPQC_OP_ADD && a->dtype == MPQC_DT_I16;
    if (saturate && mpqc_type_same_shape(a, b)) {
        add_i16(in[0]->data, in[1]->data, out->data, mpqc_type_count(a));
        return;
    }
    struct mpqc_walk w;
    walk_two(&w, in, out);
    for (mpqc_walk_start(&w); !w.done; mpqc_walk_next(&w)) {
        for (int64_t i = 0; i < w.len; i++) {
            int64_t x = mpqc_element_get(a->dtype, in[0]->data, w.at[1] + i * w.step[1]) - zero_a;
            int64_t y = mpqc_element_get(b->dtype, in[1]->data, w.at[2] + i * w.step[2]) - zero_b;
            int64_t v = binary_int(op, x, y);
            if (saturate) v = mpqc_sat16((int32_t)v);
            mpqc_element_set(out->type.dtype, out->data, w.at[0] + i, v);
        }
    }
}

#define BINARY(name)                                                                              \
    void mpqc_ref_##name(const struct mpqc_node *n, const struct mpqc_tensor *const *in,          \
                         struct mpqc_tensor *const *out)                                          \
    {                                                                                             \
        if (in[0]->type.dtype == MPQC_DT_F32) run_f32(row_##name, in, out[0]);                    \
        else run_int(n->op, in, out[0]);                                                          \
    }
BINARY(add)
BINARY(sub)
BINARY(mul)
BINARY(div)
BINARY(pow)
BINARY(min)
BINARY(max)
BINARY(mod)
BINARY(prelu)

static void compare_f32(enum mpqc_op op, const struct mpqc_tensor *const *in,
                        struct mpqc_tensor *out)
{
    struct mpqc_walk w;
    walk_two(&w, in, out);
    const float *x = in[0]->data, *y = in[1]->data;
    uint8_t *to = out->data;
    for (mpqc_walk_start(&w); !w.done; mpqc_walk_next(&w)) {
        for (int64_t i = 0; i < w.len; i++) {
            float a = x[w.at[1] + i * w.step[1]], b = y[w.at[2] + i * w.step[2]];
            to[w.at[0] + i] = op == MPQC_OP_EQUAL ? a == b : op == MPQC_OP_LESS ? a < b : a > b;
        }
    }
}

#define COMPARE(name)                                                                             \
    void mpqc_ref_##name(const struct mpqc_node *n, const struct mpqc_tensor *const *in,          \
                         struct mpqc_tensor *const *out)                                          \
    {                                                                                             \
        if (in[0]->type.dtype == MPQC_DT_F32) compare_f32(n->op, in, out[0]);                     \
        else run_int(n->op, in, out[0]);                                                          \
    }
COMPARE(equal)
COMPARE(less)
COMPARE(greater)
COMPARE(and)
COMPARE(or)

void mpqc_ref_where(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                    struct mpqc_tensor *const *out)
{
    (void)n;
    size_t bytes = mpqc_dtypes[out[0]->type.dtype].bytes;
    const uint8_t *c = in[0]->data;
    const char *a = in[1]->data, *b = in[2]->data;
    char *to = out[0]->data;
    struct mpqc_walk w;
    mpqc_walk_init(&w, out[0]->type.rank, out[0]->type.dims);
    for (int i = 0; i < 3; i++) mpqc_walk_broadcast(&w, &in[i]->type);
    for (mpqc_walk_start(&w); !w.done; mpqc_walk_next(&w)) {
        for (int64_t i = 0; i < w.len; i++) {
            bool first = c[w.at[1] + i * w.step[1]] != 0;
            const char *from = first ? a + (size_t)(w.at[2] + i * w.step[2]) * bytes
                                     : b + (size_t)(w.at[3] + i * w.step[3]) * bytes;
            memcpy(to + (size_t)(w.at[0] + i) * bytes, from, bytes);
        }
    }
}
