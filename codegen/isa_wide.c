/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The dot-product step for activations of 16 bits: pairs along K instead of groups of
 * four, so that a step is four bytes of input as ever and the templates need not care.
 * Weights lie in memory as bytes and are widened on the way.
 */
#include "codegen/emit.h"

static void as_words(struct mpqc_emit_cx *e, LLVMValueRef x, LLVMValueRef out[4])
{
    out[0] = mpqc_b_as(e, x, e->i16, 2 * LLVMGetVectorSize(LLVMTypeOf(x)));
}

static void widened(struct mpqc_emit_cx *e, LLVMValueRef w, LLVMValueRef out[4])
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(w));
    out[0] = LLVMBuildSExt(e->b, w, LLVMVectorType(e->i16, n), "");
}

/* Columns 0 and 1 of four, and columns 2 and 3: two registers. */
static void widened_halves(struct mpqc_emit_cx *e, LLVMValueRef w, LLVMValueRef out[4])
{
    LLVMValueRef all[4];
    widened(e, w, all);
    for (unsigned h = 0; h < 2; h++) out[h] = mpqc_b_part(e, all[0], 4 * h, 4);
}

/* LLVM makes vpdpwssd of product and sum where there is one. */
static void x86_dot(struct mpqc_emit_cx *e, LLVMValueRef *acc, const LLVMValueRef *x,
                    const LLVMValueRef *w)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(acc[0]));
    LLVMValueRef args[] = {x[0], w[0]};
    const char *name = n == 16  ? "llvm.x86.avx512.pmaddw.d.512"
                       : n == 8 ? "llvm.x86.avx2.pmadd.wd"
                                : "llvm.x86.sse2.pmadd.wd";
    acc[0] = LLVMBuildAdd(e->b, acc[0], mpqc_b_intrinsic(e, name, NULL, 0, args, 2), "");
}

/* smlal: columns 0 and 1 live in the first accumulator, each as two partial sums, columns 2
 * and 3 in the second. */
static void arm_dot(struct mpqc_emit_cx *e, LLVMValueRef *acc, const LLVMValueRef *x,
                    const LLVMValueRef *w)
{
    LLVMTypeRef sum = LLVMVectorType(e->i32, 4);
    for (unsigned h = 0; h < 2; h++) {
        LLVMValueRef args[] = {mpqc_b_part(e, x[0], 4 * h, 4), w[h]};
        LLVMValueRef p = mpqc_b_intrinsic(e, "llvm.aarch64.neon.smull", &sum, 1, args, 2);
        acc[h] = LLVMBuildAdd(e->b, acc[h], p, "");
    }
}

static LLVMValueRef arm_finish(struct mpqc_emit_cx *e, LLVMValueRef *acc)
{
    LLVMTypeRef t = LLVMVectorType(e->i32, 4);
    return mpqc_b_intrinsic(e, "llvm.aarch64.neon.addp", &t, 1, acc, 2);
}

LLVMValueRef mpqc_isa_wide_add(struct mpqc_emit_cx *e, LLVMValueRef acc, LLVMValueRef x,
                               LLVMValueRef w)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(acc));
    LLVMTypeRef words = LLVMVectorType(e->i32, n);
    if (e->target->arch == MPQC_ARCH_AARCH64) {
        LLVMValueRef args[] = {x, LLVMBuildSExt(e->b, w, LLVMVectorType(e->i16, n), "")};
        LLVMValueRef p = mpqc_b_intrinsic(e, "llvm.aarch64.neon.smull", &words, 1, args, 2);
        return LLVMBuildAdd(e->b, acc, p, "");
    }
    /* pairs (x, 0) and (w, its sign) */
    LLVMValueRef a = LLVMBuildZExt(e->b, x, words, ""), b = LLVMBuildSExt(e->b, w, words, "");
    LLVMValueRef pa = mpqc_b_as(e, a, e->i16, 2 * n), pb = mpqc_b_as(e, b, e->i16, 2 * n);
    x86_dot(e, &acc, &pa, &pb);
    return acc;
}

struct mpqc_isa mpqc_isa_with_wide_steps(const struct mpqc_target *t)
{
    struct mpqc_isa isa = *t->isa;
    bool arm = t->arch == MPQC_ARCH_AARCH64;
    isa.x_offset = 0;
    isa.x_values = 1;
    isa.w_values = arm ? 2 : 1;
    isa.acc_per_column = arm ? 2 : 1;
    isa.dot_cost = arm ? 12 : 10;
    isa.x_cost = arm ? 8 : 4;
    isa.w_cost = arm ? 10 : 6;
    isa.tiles = false;
    isa.forms[0] = NULL;
    isa.prepare_x = as_words;
    isa.prepare_w = arm ? widened_halves : widened;
    isa.dot = arm ? arm_dot : x86_dot;
    isa.finish = arm ? arm_finish : mpqc_isa_finish_one;
    return isa;
}
