/* SPDX-License-Identifier: GPL-3.0-or-later
 * What the AArch64 records share.
 */
#ifndef MPQC_CODEGEN_ISA_ARM_H
#define MPQC_CODEGEN_ISA_ARM_H

#include "codegen/emit.h"

void mpqc_isa_arm_prepare_x(struct mpqc_emit_cx *, LLVMValueRef x, LLVMValueRef out[4]);
void mpqc_isa_arm_prepare_w(struct mpqc_emit_cx *, LLVMValueRef w, LLVMValueRef out[4]);
LLVMValueRef mpqc_isa_arm_mulhrs(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mpqc_isa_arm_pack16(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mpqc_isa_arm_pack8(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mpqc_isa_arm_shift16(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b,
                                  int32_t shift);
LLVMValueRef mpqc_isa_arm_upper16(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b,
                                  LLVMValueRef up_a, LLVMValueRef up_b);
LLVMValueRef mpqc_isa_arm_round8(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b,
                                 int32_t shift);
LLVMValueRef mpqc_isa_arm_lookup(struct mpqc_emit_cx *, LLVMValueRef table, LLVMValueRef index);

extern const struct mpqc_counter mpqc_isa_arm_counter;

/* The form of dot products by a lane of four activations.  dot: acc + x . w by lanes;
 * prepare: for instance - 128. */
typedef LLVMValueRef (*mpqc_arm_dot)(struct mpqc_emit_cx *, LLVMValueRef acc, LLVMValueRef x,
                                     LLVMValueRef w);
void mpqc_isa_arm_lanes(struct mpqc_emit_cx *, const struct mpqc_form_step *, mpqc_arm_dot);
/* x - 128 of all positions. */
void mpqc_isa_arm_signed(struct mpqc_emit_cx *, struct mpqc_form_step *);

#endif
