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
    LLVMValueRef groups = mpqc_b_as(e, x, e->i32, LLVMGetVectorSize(LLVMTypeOf(x)) / 4);
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

/* ---- the epilogue ---- */

static LLVMValueRef shift_and_narrow(struct mpqc_emit_cx *e, const char *name, LLVMTypeRef to,
                                     LLVMValueRef a, LLVMValueRef b, int32_t shift)
{
    LLVMValueRef low[] = {a, mpqc_b_i32(e, shift)}, high[] = {b, mpqc_b_i32(e, shift)};
    return mpqc_b_join(e, mpqc_b_intrinsic(e, name, &to, 1, low, 2),
                       mpqc_b_intrinsic(e, name, &to, 1, high, 2));
}

LLVMValueRef mpqc_isa_arm_shift16(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b,
                                  int32_t shift)
{
    if (shift >= 1 && shift <= 16)
        return shift_and_narrow(e, "llvm.aarch64.neon.sqshrn", LLVMVectorType(e->i16, 4), a, b,
                                shift);
    LLVMValueRef by = mpqc_b_splat(e, LLVMTypeOf(a), shift);
    return mpqc_isa_arm_pack16(e, LLVMBuildAShr(e->b, a, by, ""), LLVMBuildAShr(e->b, b, by, ""));
}

/* No instruction narrows by shifts that differ.  But a shift to the left saturates 32 bits,
 * of which uzp2 takes the upper 16: one instruction for eight, where sqxtn takes two. */
LLVMValueRef mpqc_isa_arm_upper16(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b,
                                  LLVMValueRef up_a, LLVMValueRef up_b)
{
    LLVMTypeRef t = LLVMTypeOf(a);
    LLVMValueRef low[] = {a, up_a}, high[] = {b, up_b};
    static const int odd[] = {1, 3, 5, 7, 9, 11, 13, 15};
    a = mpqc_b_intrinsic(e, "llvm.aarch64.neon.sqshl", &t, 1, low, 2);
    b = mpqc_b_intrinsic(e, "llvm.aarch64.neon.sqshl", &t, 1, high, 2);
    return mpqc_b_shuffle(e, mpqc_b_as(e, a, e->i16, 8), mpqc_b_as(e, b, e->i16, 8), odd, 8);
}

LLVMValueRef mpqc_isa_arm_round8(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b,
                                 int32_t shift)
{
    return shift_and_narrow(e, "llvm.aarch64.neon.sqrshrun", LLVMVectorType(e->i8, 8), a, b,
                            shift);
}

/* ---- bits --------------------------------------------------------------------------------- */

/* Neighbours added: of 8-bit elements of two vectors, to one. */
static LLVMValueRef add_neighbours(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    LLVMTypeRef t = LLVMTypeOf(a);
    LLVMValueRef args[] = {a, b};
    return mpqc_b_intrinsic(e, "llvm.aarch64.neon.addp", &t, 1, args, 2);
}

/* Each byte keeps the bit that is its own among eight; three additions of neighbours bring
 * eight of them to one byte. */
static LLVMValueRef plane(struct mpqc_emit_cx *e, LLVMValueRef v, unsigned bit, bool alone)
{
    LLVMTypeRef t = LLVMVectorType(e->i8, 16);
    LLVMValueRef own[16], place[16], part[4];
    for (unsigned i = 0; i < 16; i++) {
        place[i] = LLVMConstInt(e->i8, i % 8, 0);
        own[i] = LLVMConstInt(e->i8, 1u << i % 8, 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        LLVMValueRef x = mpqc_b_part(e, v, 16 * i, 16);
        if (alone && bit == 0) {
            part[i] = LLVMBuildShl(e->b, x, LLVMConstVector(place, 16), "");
            continue;
        }
        x = LLVMBuildAnd(e->b, x, mpqc_b_splat(e, t, 1 << bit), "");
        x = LLVMBuildICmp(e->b, LLVMIntNE, x, LLVMConstNull(t), "");
        part[i] = LLVMBuildAnd(e->b, LLVMBuildSExt(e->b, x, t, ""), LLVMConstVector(own, 16), "");
    }
    LLVMValueRef all = add_neighbours(e, add_neighbours(e, part[0], part[1]),
                                      add_neighbours(e, part[2], part[3]));
    all = mpqc_b_as(e, add_neighbours(e, all, all), e->i64, 2);
    return LLVMBuildExtractElement(e->b, all, mpqc_b_i32(e, 0), "");
}

static LLVMValueRef add_bytes(struct mpqc_emit_cx *e, LLVMValueRef acc, LLVMValueRef bytes,
                              bool is_signed)
{
    LLVMTypeRef halves[] = {LLVMVectorType(e->i16, 8), LLVMVectorType(e->i8, 16)};
    LLVMTypeRef words[] = {LLVMVectorType(e->i32, 4), halves[0]};
    const char *name = is_signed ? "llvm.aarch64.neon.saddlp" : "llvm.aarch64.neon.uaddlp";
    LLVMValueRef v = mpqc_b_intrinsic(e, name, halves, 2, &bytes, 1);
    return LLVMBuildAdd(e->b, acc, mpqc_b_intrinsic(e, name, words, 2, &v, 1), "");
}

/* and, cnt, add.  A word, and as many counts at once as hide the latency of cnt. */
const struct mpqc_counter mpqc_isa_arm_counter = {.pair_cost = 15,
                                                  .plane_cost = 75,
                                                  .registers = 7,
                                                  .copies = 4,
                                                  .plane = plane,
                                                  .add_bytes = add_bytes};
