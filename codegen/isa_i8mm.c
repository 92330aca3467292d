/* SPDX-License-Identifier: GPL-3.0-or-later
 * AArch64 with usdot, the dot product of unsigned by signed bytes of the int8 matrix
 * extension: activations are taken as they are.
 */
#include "codegen/isa_arm.h"

static void prepare_x(struct mpqc_emit_cx *e, LLVMValueRef x, LLVMValueRef out[4])
{
    out[0] = mpqc_b_as(e, x, e->i8, 16);
}

static void dot(struct mpqc_emit_cx *e, LLVMValueRef *acc, const LLVMValueRef *x,
                const LLVMValueRef *w)
{
    LLVMTypeRef overload[] = {LLVMVectorType(e->i32, 4), LLVMVectorType(e->i8, 16)};
    LLVMValueRef args[] = {acc[0], x[0], w[0]};
    acc[0] = mpqc_b_intrinsic(e, "llvm.aarch64.neon.usdot", overload, 2, args, 3);
}

const struct mpqc_isa mpqc_isa_i8mm = {
    .name = "i8mm",
    .lanes = 4,
    .registers = 32,
    .acc_per_column = 1,
    .x_values = 1,
    .w_values = 1,
    .dot_cost = 5,
    .x_cost = 5,
    .w_cost = 4,
    .prepare_x = prepare_x,
    .prepare_w = mpqc_isa_arm_prepare_w,
    .dot = dot,
    .finish = mpqc_isa_finish_one,
    .mulhrs = mpqc_isa_arm_mulhrs,
    .pack16 = mpqc_isa_arm_pack16,
    .pack8 = mpqc_isa_arm_pack8,
    .lookup = mpqc_isa_arm_lookup,
};
