/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Float islands (-allow-float): element-wise operators on f32 and comparisons of f32.
 * Each follows its reference kernel in ir/op_unary.c and ir/op_binary.c operation by
 * operation, in the same precision, so results are equal bit for bit.  Only what
 * needs nothing from the C library is here: no log, erf, sin, cos, pow, fmod.
 */
#include "codegen/kernels.h"
#include "codegen/nest.h"

#include <string.h>

struct island {
    const struct mpqc_node *node;
    struct mpqc_nest nest; /* output, inputs */
};

static const struct mpqc_type *type_of(const struct mpqc_emit_cx *e, mpqc_vid v)
{
    return &mpqc_value_at(e->graph, v)->type;
}

/* ---- arithmetic on <n x float> and <n x double> ------------------------------------------ */

static LLVMValueRef real(LLVMTypeRef vector, double v)
{
    LLVMValueRef lane[256];
    unsigned n = LLVMGetVectorSize(vector);
    MPQC_ASSERT(n <= MPQC_LEN(lane));
    for (unsigned i = 0; i < n; i++) lane[i] = LLVMConstReal(LLVMGetElementType(vector), v);
    return LLVMConstVector(lane, n);
}

static LLVMTypeRef f64s(struct mpqc_emit_cx *e, unsigned n)
{
    return LLVMVectorType(LLVMDoubleTypeInContext(e->llvm), n);
}

static LLVMValueRef widen(struct mpqc_emit_cx *e, LLVMValueRef x)
{
    return LLVMBuildFPExt(e->b, x, f64s(e, LLVMGetVectorSize(LLVMTypeOf(x))), "");
}

static LLVMValueRef narrow(struct mpqc_emit_cx *e, LLVMValueRef x)
{
    return LLVMBuildFPTrunc(e->b, x, mpqc_b_vec(e->f32, LLVMGetVectorSize(LLVMTypeOf(x))), "");
}

/* a OP b ? yes : no */
static LLVMValueRef choose(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMRealPredicate op,
                           LLVMValueRef b, LLVMValueRef yes, LLVMValueRef no)
{
    return LLVMBuildSelect(e->b, LLVMBuildFCmp(e->b, op, a, b, ""), yes, no, "");
}

/* mpqc_op_exp of ir/op.h, on doubles. */
static LLVMValueRef exponential(struct mpqc_emit_cx *e, LLVMValueRef x)
{
    static const double terms[] = {1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0,
                                   1.0 / 40320.0,    1.0 / 5040.0,    1.0 / 720.0,
                                   1.0 / 120.0,      1.0 / 24.0,      1.0 / 6.0,
                                   0.5,              1.0,             1.0};
    LLVMTypeRef t = LLVMTypeOf(x), bits = mpqc_b_vec(e->i64, LLVMGetVectorSize(t));
    LLVMValueRef magic = real(t, 6755399441055744.0);
    x = choose(e, x, LLVMRealOGT, real(t, 200.0), real(t, 200.0), x);
    x = choose(e, x, LLVMRealOLT, real(t, -200.0), real(t, -200.0), x);
    LLVMValueRef shifted = LLVMBuildFAdd(
        e->b, LLVMBuildFMul(e->b, x, real(t, 1.4426950408889634), ""), magic, "");
    LLVMValueRef n = LLVMBuildFSub(e->b, shifted, magic, "");
    LLVMValueRef high = LLVMBuildFMul(e->b, n, real(t, 6.93147180369123816490e-01), "");
    LLVMValueRef low = LLVMBuildFMul(e->b, n, real(t, 1.90821492927058770002e-10), "");
    LLVMValueRef r = LLVMBuildFSub(e->b, LLVMBuildFSub(e->b, x, high, ""), low, "");
    LLVMValueRef p = real(t, 1.0 / 479001600.0);
    for (size_t i = 0; i < MPQC_LEN(terms); i++)
        p = LLVMBuildFAdd(e->b, LLVMBuildFMul(e->b, p, r, ""), real(t, terms[i]), "");
    LLVMValueRef power = LLVMBuildAdd(e->b, LLVMBuildBitCast(e->b, shifted, bits, ""),
                                      mpqc_b_splat(e, bits, 1023), "");
    power = LLVMBuildShl(e->b, power, mpqc_b_splat(e, bits, 52), "");
    return LLVMBuildFMul(e->b, p, LLVMBuildBitCast(e->b, power, t, ""), "");
}

static LLVMValueRef sigmoid(struct mpqc_emit_cx *e, LLVMValueRef x)
{
    LLVMValueRef one = real(LLVMTypeOf(x), 1.0);
    LLVMValueRef d = LLVMBuildFAdd(e->b, one, exponential(e, LLVMBuildFNeg(e->b, x, "")), "");
    return LLVMBuildFDiv(e->b, one, d, "");
}

static LLVMValueRef tanh_of(struct mpqc_emit_cx *e, LLVMValueRef x)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    LLVMValueRef ex = exponential(e, LLVMBuildFMul(e->b, real(t, 2.0), x, ""));
    LLVMValueRef cube = LLVMBuildFMul(e->b, LLVMBuildFMul(e->b, x, x, ""), x, "");
    LLVMValueRef small =
        LLVMBuildFSub(e->b, x, LLVMBuildFDiv(e->b, cube, real(t, 3.0), ""), "");
    LLVMValueRef q = LLVMBuildFDiv(e->b, real(t, 2.0),
                                   LLVMBuildFAdd(e->b, ex, real(t, 1.0), ""), "");
    LLVMValueRef large = LLVMBuildFSub(e->b, real(t, 1.0), q, "");
    LLVMValueRef inner = choose(e, x, LLVMRealOLT, real(t, 1e-4), small, large);
    return choose(e, x, LLVMRealOGT, real(t, -1e-4), inner, large);
}

static LLVMValueRef gelu_tanh(struct mpqc_emit_cx *e, LLVMValueRef x32)
{
    LLVMValueRef x = widen(e, x32);
    LLVMTypeRef t = LLVMTypeOf(x);
    LLVMValueRef cube = LLVMBuildFMul(
        e->b, LLVMBuildFMul(e->b, LLVMBuildFMul(e->b, real(t, 0.044715), x, ""), x, ""), x, "");
    LLVMValueRef inner = LLVMBuildFMul(e->b, real(t, 0.79788456080286535588),
                                       LLVMBuildFAdd(e->b, x, cube, ""), "");
    LLVMValueRef gate = LLVMBuildFAdd(e->b, real(t, 1.0), tanh_of(e, inner), "");
    LLVMValueRef half = LLVMBuildFMul(e->b, real(t, 0.5), x, "");
    return narrow(e, LLVMBuildFMul(e->b, half, gate, ""));
}

static LLVMValueRef hard_gate(struct mpqc_emit_cx *e, LLVMValueRef v)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    v = choose(e, v, LLVMRealOGT, real(t, 0), v, real(t, 0));
    return choose(e, v, LLVMRealOLT, real(t, 1), v, real(t, 1));
}

static LLVMValueRef magnitude(struct mpqc_emit_cx *e, LLVMValueRef x)
{
    LLVMTypeRef t = LLVMTypeOf(x), bits = mpqc_b_vec(e->i32, LLVMGetVectorSize(t));
    LLVMValueRef v = LLVMBuildBitCast(e->b, x, bits, "");
    return LLVMBuildBitCast(e->b, LLVMBuildAnd(e->b, v, mpqc_b_splat(e, bits, INT32_MAX), ""), t,
                            "");
}

static LLVMValueRef with_sign_of(struct mpqc_emit_cx *e, LLVMValueRef v, LLVMValueRef x)
{
    LLVMTypeRef t = LLVMTypeOf(x), bits = mpqc_b_vec(e->i32, LLVMGetVectorSize(t));
    LLVMValueRef sign = LLVMBuildAnd(e->b, LLVMBuildBitCast(e->b, x, bits, ""),
                                     mpqc_b_splat(e, bits, INT32_MIN), "");
    LLVMValueRef m = LLVMBuildBitCast(e->b, magnitude(e, v), bits, "");
    return LLVMBuildBitCast(e->b, LLVMBuildOr(e->b, m, sign, ""), t, "");
}

/* floor, ceil, round: SSE2 has no instruction, and LLVM would call the library.  Below
 * 2^23 adding and subtracting 2^23 rounds to nearest, ties to even; from there on all
 * numbers are whole. */
static LLVMValueRef whole(struct mpqc_emit_cx *e, enum mpqc_op op, LLVMValueRef x)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    LLVMValueRef big = real(t, 8388608.0), m = magnitude(e, x);
    LLVMValueRef r = LLVMBuildFSub(e->b, LLVMBuildFAdd(e->b, m, big, ""), big, "");
    r = with_sign_of(e, r, x);
    if (op == MPQC_OP_FLOOR)
        r = choose(e, r, LLVMRealOGT, x, LLVMBuildFSub(e->b, r, real(t, 1), ""), r);
    if (op == MPQC_OP_CEIL)
        r = choose(e, r, LLVMRealOLT, x, LLVMBuildFAdd(e->b, r, real(t, 1), ""), r);
    return choose(e, m, LLVMRealOLT, big, with_sign_of(e, r, x), x);
}

/* ---- operators --------------------------------------------------------------------------- */

/* x < lo ? min(lo, hi) : x > hi ? hi : x, an absent bound being infinite. */
static LLVMValueRef clip(struct mpqc_emit_cx *e, const struct mpqc_node *n, LLVMValueRef x)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    const struct mpqc_attr *low = mpqc_attr_find(n, MPQC_ATTR_MIN);
    const struct mpqc_attr *high = mpqc_attr_find(n, MPQC_ATTR_MAX);
    LLVMValueRef r = x;
    if (high) r = choose(e, x, LLVMRealOGT, real(t, high->f), real(t, high->f), x);
    if (!low) return r;
    double least = high && low->f > high->f ? high->f : low->f;
    return choose(e, x, LLVMRealOLT, real(t, low->f), real(t, least), r);
}

/* A parameter of an operator, with its default. */
static LLVMValueRef alpha(const struct mpqc_node *n, LLVMTypeRef t, float otherwise)
{
    return real(t, (double)mpqc_attr_float_or(n, MPQC_ATTR_ALPHA, otherwise));
}

static LLVMValueRef unary(struct mpqc_emit_cx *e, const struct mpqc_node *n, LLVMValueRef x)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    LLVMValueRef zero = real(t, 0), v;
    switch (n->op) {
    case MPQC_OP_RELU: return choose(e, x, LLVMRealOGT, zero, x, zero);
    case MPQC_OP_CLIP: return clip(e, n, x);
    case MPQC_OP_NEG: return LLVMBuildFNeg(e->b, x, "");
    case MPQC_OP_ABS: return magnitude(e, x);
    case MPQC_OP_SQRT: return mpqc_b_intrinsic(e, "llvm.sqrt", &t, 1, &x, 1);
    case MPQC_OP_RECIPROCAL: return LLVMBuildFDiv(e->b, real(t, 1), x, "");
    case MPQC_OP_EXP: return narrow(e, exponential(e, widen(e, x)));
    case MPQC_OP_SIGMOID: return narrow(e, sigmoid(e, widen(e, x)));
    case MPQC_OP_SILU:
        v = widen(e, x);
        return narrow(e, LLVMBuildFMul(e->b, v, sigmoid(e, v), ""));
    case MPQC_OP_TANH: return narrow(e, tanh_of(e, widen(e, x)));
    case MPQC_OP_GELU: return gelu_tanh(e, x);
    case MPQC_OP_HARDSWISH:
        v = LLVMBuildFDiv(e->b, x, real(t, 6), "");
        v = hard_gate(e, LLVMBuildFAdd(e->b, v, real(t, 0.5), ""));
        return LLVMBuildFMul(e->b, x, v, "");
    case MPQC_OP_HARDSIGMOID:
        v = LLVMBuildFMul(e->b, alpha(n, t, 1.0f / 6.0f), x, "");
        return hard_gate(
            e, LLVMBuildFAdd(e->b, v,
                             real(t, (double)mpqc_attr_float_or(n, MPQC_ATTR_BETA, 0.5f)), ""));
    case MPQC_OP_LEAKYRELU:
        v = LLVMBuildFMul(e->b, alpha(n, t, 0.01f), x, "");
        return choose(e, x, LLVMRealOLT, zero, v, x);
    case MPQC_OP_ELU:
        v = LLVMBuildFSub(e->b, exponential(e, widen(e, x)), real(f64s(e, LLVMGetVectorSize(t)), 1),
                          "");
        v = LLVMBuildFMul(e->b, alpha(n, LLVMTypeOf(v), 1.0f), v, "");
        return choose(e, x, LLVMRealOLT, zero, narrow(e, v), x);
    default: return whole(e, n->op, x);
    }
}

static LLVMValueRef flag(struct mpqc_emit_cx *e, LLVMRealPredicate op, LLVMValueRef a,
                         LLVMValueRef b)
{
    LLVMTypeRef bytes = mpqc_b_vec(e->i8, LLVMGetVectorSize(LLVMTypeOf(a)));
    return LLVMBuildZExt(e->b, LLVMBuildFCmp(e->b, op, a, b, ""), bytes, "");
}

static LLVMValueRef binary(struct mpqc_emit_cx *e, const struct mpqc_node *n, LLVMValueRef a,
                           LLVMValueRef b)
{
    switch (n->op) {
    case MPQC_OP_ADD: return LLVMBuildFAdd(e->b, a, b, "");
    case MPQC_OP_SUB: return LLVMBuildFSub(e->b, a, b, "");
    case MPQC_OP_MUL: return LLVMBuildFMul(e->b, a, b, "");
    case MPQC_OP_DIV: return LLVMBuildFDiv(e->b, a, b, "");
    case MPQC_OP_MIN: return choose(e, b, LLVMRealOLT, a, b, a);
    case MPQC_OP_MAX: return choose(e, b, LLVMRealOGT, a, b, a);
    case MPQC_OP_PRELU:
        return choose(e, a, LLVMRealOLT, real(LLVMTypeOf(a), 0), LLVMBuildFMul(e->b, a, b, ""), a);
    case MPQC_OP_EQUAL: return flag(e, LLVMRealOEQ, a, b);
    case MPQC_OP_LESS: return flag(e, LLVMRealOLT, a, b);
    default: return flag(e, LLVMRealOGT, a, b);
    }
}

/* c ? a : b; elements of any type. */
static LLVMValueRef where(struct mpqc_emit_cx *e, LLVMValueRef c, LLVMValueRef a, LLVMValueRef b)
{
    LLVMValueRef set = LLVMBuildICmp(e->b, LLVMIntNE, c, LLVMConstNull(LLVMTypeOf(c)), "");
    return LLVMBuildSelect(e->b, set, a, b, "");
}

static void island_step(struct mpqc_emit_cx *e, void *user, LLVMValueRef const *p,
                        LLVMValueRef index, unsigned lanes, unsigned valid)
{
    const struct island *s = user;
    const struct mpqc_node *n = s->node;
    LLVMValueRef in[3] = {NULL, NULL, NULL}, v;
    for (uint32_t i = 0; i < n->n_in && i < 3; i++) {
        const struct mpqc_type *t = type_of(e, n->in[i]);
        in[i] = mpqc_run_load(e, mpqc_element_type(e, t->dtype), mpqc_dtypes[t->dtype].bytes,
                              p[i + 1], mpqc_nest_step(&s->nest, i + 1), index, lanes, valid,
                              !mpqc_value_slack(e, n->in[i]));
    }
    if (n->n_in == 1) v = unary(e, n, in[0]);
    else if (n->n_in == 2) v = binary(e, n, in[0], in[1]);
    else v = where(e, in[0], in[1], in[2]);
    mpqc_run_store(e, v, mpqc_value_bytes(e, n->out[0]), p[0], mpqc_nest_step(&s->nest, 0), index,
                   valid);
}

/* ---- the kernel ---------------------------------------------------------------------------- */

static mpqc_status check(struct mpqc_emit_cx *e, const struct mpqc_node *n)
{
    struct mpqc_where where_ = {.node = n->loc.node, .op = n->loc.op, .offset = -1};
    bool erf = n->op == MPQC_OP_GELU &&
               strcmp(mpqc_attr_string_or(n, MPQC_ATTR_MODE, "none"), "tanh") != 0;
    bool floats = n->op == MPQC_OP_WHERE || type_of(e, n->in[0])->dtype == MPQC_DT_F32;
    if (floats && !erf) return MPQC_OK;
    return MPQC_FAIL(e->cx, UNSUPPORTED, where_,
                     "'%s' of %s has no code generator; the operator must be computed outside of "
                     "the network, or replaced in it",
                     mpqc_ops[n->op].text, mpqc_dtypes[type_of(e, n->in[0])->dtype].text);
}

static void add_key(struct mpqc_emit_cx *e, const struct island *s, struct mpqc_buf *key)
{
    const struct mpqc_node *n = s->node;
    mpqc_buf_printf(key, "float %s", mpqc_ops[n->op].text);
    for (uint32_t a = 0; a < n->n_attr; a++)
        mpqc_buf_printf(key, " %s=%a,%s", mpqc_attr_text[n->attr[a].key], n->attr[a].f,
                        n->attr[a].s ? n->attr[a].s : "");
    for (uint32_t i = 0; i < n->n_in; i++)
        mpqc_buf_printf(key, " %s%s", mpqc_dtypes[type_of(e, n->in[i])->dtype].text,
                        mpqc_value_slack(e, n->in[i]) ? "s" : "");
    mpqc_nest_key(&s->nest, key);
}

mpqc_status mpqc_emit_float(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                            struct mpqc_kernel_code *out)
{
    struct island s = {.node = mpqc_node_at(e->graph, k->core)};
    const struct mpqc_type *t = type_of(e, k->out);
    struct mpqc_buf key;
    MPQC_TRY(check(e, s.node));
    mpqc_nest_init(&s.nest, t->rank, t->dims);
    mpqc_nest_value(e, &s.nest, k->out);
    out->operand[out->n_operands++] = (struct mpqc_operand){.value = k->out};
    for (uint32_t i = 0; i < s.node->n_in; i++) {
        mpqc_nest_value(e, &s.nest, s.node->in[i]);
        out->operand[out->n_operands++] = (struct mpqc_operand){.value = s.node->in[i]};
    }
    mpqc_nest_finish(e, &s.nest, k->out);
    out->range = mpqc_nest_range(&s.nest);
    out->grain = mpqc_nest_grain(&s.nest);

    mpqc_buf_init(&key);
    add_key(e, &s, &key);
    bool fresh;
    MPQC_TRY(mpqc_body_open(e, &key, out, &fresh));
    if (!fresh) return MPQC_OK;
    unsigned lanes = e->target->vector_bytes / 4;
    mpqc_nest_emit(e, &s.nest, lanes < 8 ? 8 : lanes, island_step, &s);
    return mpqc_body_end(e);
}
