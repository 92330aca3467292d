/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * AArch64 without the dot product.  Activations are fed as x - 128, so that both
 * factors are signed bytes: a sum of two products is at most 2 * 128 * 127 = 32512
 * and fits 16 bits, which smlal and sadalp rely on.
 */
#include "codegen/isa_arm.h"

void mpqc_isa_arm_prepare_x(struct mpqc_emit_cx *e, LLVMValueRef x, LLVMValueRef out[4])
{
    LLVMValueRef bytes = mpqc_b_as(e, x, e->i8, 16);
    out[0] = LLVMBuildXor(e->b, bytes, mpqc_b_splat(e, LLVMVectorType(e->i8, 16), 0x80), "");
}

void mpqc_isa_arm_prepare_w(struct mpqc_emit_cx *e, LLVMValueRef w, LLVMValueRef out[4])
{
    (void)e;
    out[0] = w;
}

LLVMValueRef mpqc_isa_arm_mulhrs(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    LLVMTypeRef t = LLVMVectorType(e->i16, 8);
    LLVMValueRef args[] = {a, b};
    return mpqc_b_intrinsic(e, "llvm.aarch64.neon.sqrdmulh", &t, 1, args, 2);
}

static LLVMValueRef narrow(struct mpqc_emit_cx *e, const char *name, LLVMTypeRef to,
                           LLVMValueRef a, LLVMValueRef b)
{
    LLVMValueRef low = mpqc_b_intrinsic(e, name, &to, 1, &a, 1);
    return mpqc_b_join(e, low, mpqc_b_intrinsic(e, name, &to, 1, &b, 1));
}

LLVMValueRef mpqc_isa_arm_pack16(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    return narrow(e, "llvm.aarch64.neon.sqxtn", LLVMVectorType(e->i16, 4), a, b);
}

LLVMValueRef mpqc_isa_arm_pack8(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    return narrow(e, "llvm.aarch64.neon.sqxtun", LLVMVectorType(e->i8, 8), a, b);
}

/* tbl takes 64 bytes and gives 0 for indices behind them; the parts are or-ed. */
LLVMValueRef mpqc_isa_arm_lookup(struct mpqc_emit_cx *e, LLVMValueRef table, LLVMValueRef index)
{
    LLVMTypeRef t = LLVMVectorType(e->i8, 16);
    MPQC_ASSERT(LLVMGetVectorSize(LLVMTypeOf(index)) == 16);
    LLVMValueRef result = NULL;
    for (int part = 0; part < 4; part++) {
        LLVMValueRef args[5];
        for (int i = 0; i < 4; i++)
            args[i] = mpqc_b_load(e, t, mpqc_b_gep_const(e, table, 64 * part + 16 * i), 1);
        args[4] = LLVMBuildSub(e->b, index, mpqc_b_splat(e, t, 64 * part), "");
        LLVMValueRef r = mpqc_b_intrinsic(e, "llvm.aarch64.neon.tbl4", &t, 1, args, 5);
        result = result ? LLVMBuildOr(e->b, result, r, "") : r;
    }
    return result;
}

/* Lanes 0 and 1 of a column live in the first accumulator, each as two partial sums;
 * lanes 2 and 3 in the second. */
static void dot(struct mpqc_emit_cx *e, LLVMValueRef *acc, const LLVMValueRef *x,
                const LLVMValueRef *w)
{
    LLVMTypeRef overload[] = {LLVMVectorType(e->i32, 4), LLVMVectorType(e->i16, 8)};
    for (unsigned h = 0; h < 2; h++) {
        LLVMValueRef a = LLVMBuildSExt(e->b, mpqc_b_part(e, x[0], 8 * h, 8), overload[1], "");
        LLVMValueRef b = LLVMBuildSExt(e->b, mpqc_b_part(e, w[0], 8 * h, 8), overload[1], "");
        LLVMValueRef p = LLVMBuildMul(e->b, a, b, "");
        p = mpqc_b_intrinsic(e, "llvm.aarch64.neon.saddlp", overload, 2, &p, 1);
        acc[h] = LLVMBuildAdd(e->b, acc[h], p, "");
    }
}

static LLVMValueRef finish(struct mpqc_emit_cx *e, LLVMValueRef *acc)
{
    LLVMTypeRef t = LLVMVectorType(e->i32, 4);
    return mpqc_b_intrinsic(e, "llvm.aarch64.neon.addp", &t, 1, acc, 2);
}

/* ---- fold ---------------------------------------------------------------------------------
 * A register holds 16 bytes along K of one position or channel.  smull and smlal2 make
 * eight sums of two products, which sadalp adds in pairs: three instructions for 16
 * products, and nothing is broadcast.  An accumulator holds four partial sums of one
 * channel, so a column vector has four. */

static void prepare_fold(struct mpqc_emit_cx *e, struct mpqc_form_step *s)
{
    mpqc_isa_arm_signed(e, s);
    for (unsigned m = 0; m < s->m && s->steps == 2; m++)
        s->x[m] = mpqc_b_join(e, s->x[m], s->x[m]);
}

/* Products of half h of two registers. */
static LLVMValueRef products(struct mpqc_emit_cx *e, LLVMValueRef x, LLVMValueRef w, unsigned h)
{
    LLVMTypeRef t = LLVMVectorType(e->i16, 8);
    LLVMValueRef args[] = {mpqc_b_part(e, x, 8 * h, 8), mpqc_b_part(e, w, 8 * h, 8)};
    return mpqc_b_intrinsic(e, "llvm.aarch64.neon.smull", &t, 1, args, 2);
}

static LLVMValueRef add_pairs(struct mpqc_emit_cx *e, LLVMValueRef acc, LLVMValueRef sums)
{
    LLVMTypeRef overload[] = {LLVMVectorType(e->i32, 4), LLVMVectorType(e->i16, 8)};
    return LLVMBuildAdd(
        e->b, acc, mpqc_b_intrinsic(e, "llvm.aarch64.neon.saddlp", overload, 2, &sums, 1), "");
}

/* In areas of four groups vector i is channel i, in areas of two it is two channels. */
static void multiply_fold(struct mpqc_emit_cx *e, const struct mpqc_form_step *s)
{
    for (unsigned v = 0; v < s->n; v++) {
        unsigned i = s->step * s->n + v;
        for (unsigned m = 0; m < s->m; m++) {
            LLVMValueRef *acc = &s->acc[4 * m * s->n];
            LLVMValueRef low = products(e, s->x[m], s->w[v], 0);
            LLVMValueRef high = products(e, s->x[m], s->w[v], 1);
            if (s->wide == 4) {
                acc[i] = add_pairs(e, acc[i], LLVMBuildAdd(e->b, low, high, ""));
                continue;
            }
            acc[2 * i] = add_pairs(e, acc[2 * i], low);
            acc[2 * i + 1] = add_pairs(e, acc[2 * i + 1], high);
        }
    }
}

static LLVMValueRef finish_fold(struct mpqc_emit_cx *e, LLVMValueRef *acc)
{
    LLVMValueRef sum[2] = {finish(e, &acc[0]), finish(e, &acc[2])};
    return finish(e, sum);
}

static const struct mpqc_form fold = {
    .name = "fold",
    .steps = 4,
    .wide = 4,
    .even = 2,
    .pair = 1,
    .acc = 4,
    .registers = 16,
    .chains = 8,
    .dot_cost = 75,
    .x_cost = 8,
    .w_cost = 16,
    .dot_code = 48,
    .x_code = 8,
    .w_code = 12,
    .prepare = prepare_fold,
    .multiply = multiply_fold,
    .finish = finish_fold,
};

/* ---- depthwise ------------------------------------------------------------------------------ */

static void direct(struct mpqc_emit_cx *e, unsigned n, LLVMValueRef *acc, LLVMValueRef x0,
                   LLVMValueRef w0, LLVMValueRef x1, LLVMValueRef w1)
{
    LLVMTypeRef words = LLVMVectorType(e->i32, 4);
    for (unsigned h = 0; h < n / 2; h++) {
        LLVMValueRef p = products(e, x0, w0, h);
        if (x1) p = LLVMBuildAdd(e->b, p, products(e, x1, w1, h), "");
        for (unsigned i = 0; i < 2; i++) {
            LLVMValueRef part = LLVMBuildSExt(e->b, mpqc_b_part(e, p, 4 * i, 4), words, "");
            acc[2 * h + i] = LLVMBuildAdd(e->b, acc[2 * h + i], part, "");
        }
    }
}

const struct mpqc_isa mpqc_isa_neon = {
    .name = "neon",
    .lanes = 4,
    .registers = 32,
    .x_offset = 128,
    .acc_per_column = 2,
    .x_values = 1,
    .w_values = 1,
    .dot_cost = 25,
    .x_cost = 10,
    .w_cost = 5,
    .forms = {&fold},
    .counter = &mpqc_isa_arm_counter,
    .prepare_x = mpqc_isa_arm_prepare_x,
    .prepare_w = mpqc_isa_arm_prepare_w,
    .dot = dot,
    .whole_others = 20,
    .half_others = 8,
    .finish = finish,
    .direct = direct,
    .mulhrs = mpqc_isa_arm_mulhrs,
    .pack16 = mpqc_isa_arm_pack16,
    .pack8 = mpqc_isa_arm_pack8,
    .shift16 = mpqc_isa_arm_shift16,
    .round8 = mpqc_isa_arm_round8,
    .lookup = mpqc_isa_arm_lookup,
};
