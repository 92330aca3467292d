/* SPDX-License-Identifier: GPL-3.0-or-later
 * AArch64 with the int8 matrix extension, whose products of unsigned by signed bytes take
 * activations as they are: usmmla (two positions by two channels, eight along K) and
 * usdot, for single positions and depthwise.
 */
#include "codegen/isa_arm.h"

static void prepare_x(struct mpqc_emit_cx *e, LLVMValueRef x, LLVMValueRef out[4])
{
    out[0] = mpqc_b_as(e, x, e->i8, 16);
}

static LLVMValueRef product(struct mpqc_emit_cx *e, const char *name, LLVMValueRef acc,
                            LLVMValueRef x, LLVMValueRef w)
{
    LLVMTypeRef overload[] = {LLVMVectorType(e->i32, 4), LLVMVectorType(e->i8, 16)};
    LLVMValueRef args[] = {acc, x, w};
    return mpqc_b_intrinsic(e, name, overload, 2, args, 3);
}

static LLVMValueRef usdot(struct mpqc_emit_cx *e, LLVMValueRef acc, LLVMValueRef x, LLVMValueRef w)
{
    return product(e, "llvm.aarch64.neon.usdot", acc, x, w);
}

static void dot(struct mpqc_emit_cx *e, LLVMValueRef *acc, const LLVMValueRef *x,
                const LLVMValueRef *w)
{
    acc[0] = usdot(e, acc[0], x[0], w[0]);
}

/* ---- lanes ----------------------------------------------------------------------------- */

static void prepare_lanes(struct mpqc_emit_cx *e, struct mpqc_form_step *s)
{
    (void)e;
    (void)s;
}

static void multiply_lanes(struct mpqc_emit_cx *e, const struct mpqc_form_step *s)
{
    mpqc_isa_arm_lanes(e, s, usdot);
}

static const struct mpqc_form lanes = {
    .name = "lanes",
    .steps = 4,
    .wide = 1,
    .even = 1,
    .pair = 1,
    .acc = 1,
    .registers = 2,
    .chains = 8,
    .dot_cost = 20,
    .x_cost = 2,
    .w_cost = 6,
    .dot_code = 16,
    .x_code = 4,
    .w_code = 10,
    .from_bias = true,
    .prepare = prepare_lanes,
    .multiply = multiply_lanes,
    .finish = mpqc_isa_finish_one,
};

/* ---- matrices ---------------------------------------------------------------------------
 * An accumulator holds [position][channel] of two by two; a column vector has two: of
 * channels 0 and 1, of 2 and 3. */

/* Eight bytes of one position beside the same of the next; the last of an odd number
 * stands beside itself. */
static void prepare_pairs(struct mpqc_emit_cx *e, struct mpqc_form_step *s)
{
    unsigned halves = s->steps / 2;
    for (unsigned p = 0; 2 * p < s->m; p++) {
        LLVMValueRef a = mpqc_b_as(e, s->x[2 * p], e->i64, halves);
        LLVMValueRef b = 2 * p + 1 < s->m ? mpqc_b_as(e, s->x[2 * p + 1], e->i64, halves) : a;
        for (unsigned h = 0; h < halves; h++) {
            int order[] = {(int)h, (int)(halves + h)};
            s->x[2 * p + h] = mpqc_b_as(e, mpqc_b_shuffle(e, a, b, order, 2), e->i8, 16);
        }
    }
}

static void multiply_pairs(struct mpqc_emit_cx *e, const struct mpqc_form_step *s)
{
    for (unsigned v = 0; v < s->n; v++) {
        unsigned i = s->step % 2 * s->n + v; /* pairs of channels in order */
        for (unsigned p = 0; 2 * p < s->m; p++) {
            LLVMValueRef *acc = &s->acc[2 * p * s->n + i];
            *acc = product(e, "llvm.aarch64.neon.usmmla", *acc, s->x[2 * p + s->step / 2],
                           s->w[v]);
        }
    }
}

static const struct mpqc_form matrix = {
    .name = "matrix",
    .steps = 4,
    .wide = 2,
    .even = 2,
    .pair = 2,
    .acc = 2,
    .registers = 4,
    .chains = 16,
    .dot_cost = 20,
    .x_cost = 7,
    .w_cost = 6,
    .dot_code = 16,
    .x_code = 8,
    .w_code = 10,
    .from_bias = true,
    .prepare = prepare_pairs,
    .multiply = multiply_pairs,
};

const struct mpqc_isa mpqc_isa_i8mm = {
    .name = "i8mm",
    .lanes = 4,
    .registers = 32,
    .acc_per_column = 1,
    .x_values = 1,
    .w_values = 1,
    .dot_cost = 5,
    .x_cost = 5,
    .w_cost = 6,
    .forms = {&lanes, &matrix},
    .counter = &mpqc_isa_arm_counter,
    .prepare_x = prepare_x,
    .prepare_w = mpqc_isa_arm_prepare_w,
    .dot = dot,
    .dots = 7,
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
