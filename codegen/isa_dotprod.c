/* SPDX-License-Identifier: GPL-3.0-or-later
 * AArch64 with the int8 dot product (sdot: both factors signed, hence x - 128).
 */
#include "codegen/isa_arm.h"

static void dot(struct mpqc_emit_cx *e, LLVMValueRef *acc, const LLVMValueRef *x,
                const LLVMValueRef *w)
{
    LLVMTypeRef overload[] = {LLVMVectorType(e->i32, 4), LLVMVectorType(e->i8, 16)};
    LLVMValueRef args[] = {acc[0], x[0], w[0]};
    acc[0] = mpqc_b_intrinsic(e, "llvm.aarch64.neon.sdot", overload, 2, args, 3);
}

const struct mpqc_isa mpqc_isa_dotprod = {
    .name = "dotprod",
    .lanes = 4,
    .registers = 32,
    .x_offset = 128,
    .acc_per_column = 1,
    .x_values = 1,
    .w_values = 1,
    .dot_cost = 5,
    .x_cost = 8,
    .w_cost = 4,
    .prepare_x = mpqc_isa_arm_prepare_x,
    .prepare_w = mpqc_isa_arm_prepare_w,
    .dot = dot,
    .finish = mpqc_isa_finish_one,
    .mulhrs = mpqc_isa_arm_mulhrs,
    .pack16 = mpqc_isa_arm_pack16,
    .pack8 = mpqc_isa_arm_pack8,
    .lookup = mpqc_isa_arm_lookup,
};
