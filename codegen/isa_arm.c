/* SPDX-License-Identifier: GPL-3.0-or-later
 * What forms of AArch64 share.
 */
#include "codegen/isa_arm.h"

void mpqc_isa_arm_signed(struct mpqc_emit_cx *e, struct mpqc_form_step *s)
{
    for (unsigned m = 0; m < s->m; m++) {
        LLVMTypeRef t = LLVMTypeOf(s->x[m]);
        s->x[m] = LLVMBuildXor(e->b, s->x[m], mpqc_b_splat(e, t, 0x80), "");
    }
}

/* Group `step` of x in all four lanes; the instruction takes the lane itself. */
static LLVMValueRef lane(struct mpqc_emit_cx *e, const struct mpqc_form_step *s, LLVMValueRef x)
{
    int order[4];
    for (int i = 0; i < 4; i++) order[i] = (int)s->step;
    LLVMValueRef groups = mpqc_b_as(e, x, e->i32, s->steps);
    LLVMValueRef all = mpqc_b_shuffle(e, groups, LLVMGetPoison(LLVMTypeOf(groups)), order, 4);
    return mpqc_b_as(e, all, e->i8, 16);
}

void mpqc_isa_arm_lanes(struct mpqc_emit_cx *e, const struct mpqc_form_step *s, mpqc_arm_dot dot)
{
    LLVMValueRef x[MPQC_FORM_POSITIONS];
    for (unsigned m = 0; m < s->m; m++) x[m] = lane(e, s, s->x[m]);
    for (unsigned v = 0; v < s->n; v++)
        for (unsigned m = 0; m < s->m; m++)
            s->acc[m * s->n + v] = dot(e, s->acc[m * s->n + v], x[m], s->w[v]);
}

void mpqc_isa_arm_begin_lanes(struct mpqc_emit_cx *e, LLVMValueRef bias, LLVMValueRef *acc)
{
    (void)e;
    acc[0] = bias;
}

LLVMValueRef mpqc_isa_arm_finish_lanes(struct mpqc_emit_cx *e, LLVMValueRef *acc, unsigned which)
{
    (void)e;
    (void)which;
    return acc[0];
}
