/* SPDX-License-Identifier: GPL-3.0-or-later
 * AArch64 with the int8 dot product (sdot: both factors signed, hence x - 128).
 */
#include "codegen/isa_arm.h"

static LLVMValueRef sdot(struct mpqc_emit_cx *e, LLVMValueRef acc, LLVMValueRef x, LLVMValueRef w)
{
    LLVMTypeRef overload[] = {LLVMVectorType(e->i32, 4), LLVMVectorType(e->i8, 16)};
    LLVMValueRef args[] = {acc, w, x}; /* in this order x may be a lane */
    return mpqc_b_intrinsic(e, "llvm.aarch64.neon.sdot", overload, 2, args, 3);
}

static void dot(struct mpqc_emit_cx *e, LLVMValueRef *acc, const LLVMValueRef *x,
                const LLVMValueRef *w)
{
    acc[0] = sdot(e, acc[0], x[0], w[0]);
}

static void multiply_lanes(struct mpqc_emit_cx *e, const struct mpqc_form_step *s)
{
    mpqc_isa_arm_lanes(e, s, sdot);
}

static const struct mpqc_form lanes = {
    .name = "lanes",
    .steps = 4,
    .wide = 1,
    .even = 1,
    .pair = 1,
    .acc = 1,
    .registers = 3,
    .chains = 8,
    .dot_cost = 20,
    .x_cost = 7,
    .w_cost = 20,
    .dot_code = 16,
    .x_code = 8,
    .w_code = 10,
    .from_bias = true,
    .prepare = mpqc_isa_arm_signed,
    .multiply = multiply_lanes,
    .finish = mpqc_isa_finish_one,
};

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
    .w_cost = 6,
    .forms = {&lanes},
    .counter = &mpqc_isa_arm_counter,
    .prepare_x = mpqc_isa_arm_prepare_x,
    .prepare_w = mpqc_isa_arm_prepare_w,
    .dot = dot,
    .dots = 8,
    .whole_others = 20,
    .half_others = 5,
    .finish = mpqc_isa_finish_one,
    .mulhrs = mpqc_isa_arm_mulhrs,
    .pack16 = mpqc_isa_arm_pack16,
    .pack8 = mpqc_isa_arm_pack8,
    .shift16 = mpqc_isa_arm_shift16,
    .upper16 = mpqc_isa_arm_upper16,
    .round8 = mpqc_isa_arm_round8,
    .lookup = mpqc_isa_arm_lookup,
};
