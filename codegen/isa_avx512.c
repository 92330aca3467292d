/* SPDX-License-Identifier: GPL-3.0-or-later
 * AVX-512 without a byte dot product: the forms of isa_generic.c on 64-byte vectors.  There
 * is no psign of that width; a mask of the negative activations stands in for it.
 */
#include "codegen/emit.h"

/* x - 128, its magnitude, its sign, and zeros.  Of weights less than those zeros, LLVM cannot have
 * what it has already for another x; to keep that would take a register for every vector of
 * weights, where a subtraction under a mask is but one instruction, as a choice is. */
static void prepare_x(struct mpqc_emit_cx *e, LLVMValueRef x, LLVMValueRef out[4])
{
    mpqc_isa_x86_prepare_x(e, x, out);
    out[3] = mpqc_b_zero(e, out[0]);
    out[2] = LLVMBuildICmp(e->b, LLVMIntSLT, out[0], LLVMConstNull(LLVMTypeOf(out[0])), "");
}

/* Where x is 0 the sign of w does not matter: the other factor is 0. */
static void dot(struct mpqc_emit_cx *e, LLVMValueRef *acc, const LLVMValueRef *x,
                const LLVMValueRef *w)
{
    LLVMTypeRef t = LLVMTypeOf(w[0]);
    if (LLVMGetVectorSize(t) < 64) {
        mpqc_isa_x86_dot(e, acc, x, w);
        return;
    }
    LLVMValueRef minus = LLVMBuildSub(e->b, x[3], w[0], "");
    LLVMValueRef pairs[] = {x[1], LLVMBuildSelect(e->b, x[2], minus, w[0], "")};
    LLVMValueRef p =
        mpqc_b_intrinsic(e, "llvm.x86.avx512.pmaddubs.w.512", NULL, 0, pairs, 2);
    LLVMValueRef quads[] = {p, mpqc_b_splat(e, LLVMTypeOf(p), 1)};
    p = mpqc_b_intrinsic(e, "llvm.x86.avx512.pmaddw.d.512", NULL, 0, quads, 2);
    acc[0] = LLVMBuildAdd(e->b, acc[0], p, "");
}

const struct mpqc_isa mpqc_isa_avx512 = {
    .name = "avx512",
    .lanes = 16,
    .registers = 32,
    .x_offset = 128,
    .acc_per_column = 1,
    .x_values = 4,
    .w_values = 1,
    .dot_cost = 22,
    .x_cost = 12,
    .w_cost = 3,
    .prepare_x = prepare_x,
    .prepare_w = mpqc_isa_x86_prepare_w,
    .dot = dot,
    .whole_others = 24,
    .half_others = 14,
    .finish = mpqc_isa_finish_one,
    .mulhrs = mpqc_isa_x86_mulhrs,
    .pack16 = mpqc_isa_x86_pack16,
    .pack8 = mpqc_isa_x86_pack8,
    .lookup = mpqc_isa_x86_lookup,
};
