/* SPDX-License-Identifier: GPL-3.0-or-later
 * AVX-512 with VNNI (vpdpbusd: u8 x s8, exact) and VBMI (byte permutes for tables), alone
 * and beside AMX.
 */
#include "codegen/emit.h"

void mpqc_isa_vnni_prepare_x(struct mpqc_emit_cx *e, LLVMValueRef x, LLVMValueRef out[4])
{
    (void)e;
    out[0] = x;
}

void mpqc_isa_vnni_prepare_w(struct mpqc_emit_cx *e, LLVMValueRef w, LLVMValueRef out[4])
{
    out[0] = mpqc_b_as(e, w, e->i32, LLVMGetVectorSize(LLVMTypeOf(w)) / 4);
}

/* Activations are operand 2, which is unsigned; weights are operand 3, which is signed
 * and may be memory. */
void mpqc_isa_vnni_dot(struct mpqc_emit_cx *e, LLVMValueRef *acc, const LLVMValueRef *x,
                       const LLVMValueRef *w)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(acc[0]));
    LLVMValueRef args[] = {acc[0], x[0], w[0]};
    const char *name = n == 16  ? "llvm.x86.avx512.vpdpbusd.512"
                       : n == 8 ? "llvm.x86.avx512.vpdpbusd.256"
                                : "llvm.x86.avx512.vpdpbusd.128";
    acc[0] = mpqc_b_intrinsic(e, name, NULL, 0, args, 3);
}

static LLVMValueRef half_table(struct mpqc_emit_cx *e, LLVMValueRef table, LLVMValueRef index,
                               int at)
{
    LLVMTypeRef t = LLVMVectorType(e->i8, 64);
    LLVMValueRef args[] = {mpqc_b_load(e, t, mpqc_b_gep_const(e, table, at), 1), index,
                           mpqc_b_load(e, t, mpqc_b_gep_const(e, table, at + 64), 1)};
    return mpqc_b_intrinsic(e, "llvm.x86.avx512.vpermi2var.qi.512", NULL, 0, args, 3);
}

/* Two permutes over 128 entries each; bit 7 of the index selects. */
LLVMValueRef mpqc_isa_vbmi_lookup(struct mpqc_emit_cx *e, LLVMValueRef table, LLVMValueRef index)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(index));
    LLVMValueRef i = index;
    if (n < 64) {
        int order[64];
        for (int k = 0; k < 64; k++) order[k] = k < (int)n ? k : -1;
        i = mpqc_b_shuffle(e, index, LLVMGetPoison(LLVMTypeOf(index)), order, 64);
    }
    LLVMValueRef upper =
        LLVMBuildICmp(e->b, LLVMIntSLT, i, LLVMConstNull(LLVMVectorType(e->i8, 64)), "");
    LLVMValueRef r = LLVMBuildSelect(e->b, upper, half_table(e, table, i, 128),
                                     half_table(e, table, i, 0), "");
    return mpqc_b_part(e, r, 0, n);
}

/* Bytes 0 and 1 of the result are bits from `even` on of the 64 that two lanes are, 2 and 3 those
 * of the second lane. */
int32_t mpqc_isa_vbmi_window_at(int32_t even, int32_t odd)
{
    uint32_t e = (uint32_t)even, o = 32 + (uint32_t)odd;
    return (int32_t)(e | (e + 8) << 8 | o << 16 | ((o + 8) & 63) << 24);
}

static LLVMValueRef windows(struct mpqc_emit_cx *e, LLVMValueRef v, LLVMValueRef at)
{
    LLVMValueRef args[] = {mpqc_b_as(e, at, e->i8, 64), mpqc_b_as(e, v, e->i8, 64)};
    return mpqc_b_intrinsic(e, "llvm.x86.avx512.pmultishift.qb.512", NULL, 0, args, 2);
}

LLVMValueRef mpqc_isa_vbmi_window16(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b,
                                    LLVMValueRef at_a, LLVMValueRef at_b)
{
    LLVMValueRef r = windows(e, a, at_a), odd = mpqc_b_opaque_mask(e, 0xf0f0f0f0f0f0f0f0);
    if (b) r = LLVMBuildSelect(e->b, odd, windows(e, b, at_b), r, "");
    return mpqc_b_as(e, r, e->i16, 32);
}

static LLVMValueRef plane(struct mpqc_emit_cx *e, LLVMValueRef v, unsigned bit, bool alone)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    (void)alone; /* a test of any bits is one instruction, and so is its mask */
    LLVMValueRef b = LLVMBuildAnd(e->b, v, mpqc_b_splat(e, t, 1 << bit), "");
    b = LLVMBuildICmp(e->b, LLVMIntNE, b, LLVMConstNull(t), "");
    return LLVMBuildBitCast(e->b, b, e->i64, "");
}

/* A word of the input, what is counted, and the count. */
static const struct mpqc_counter counter = {
    .pair_cost = 15, .plane_cost = 25, .registers = 3, .copies = 1, .plane = plane};

const struct mpqc_isa mpqc_isa_avx512_vnni = {
    .name = "avx512-vnni",
    .lanes = 16,
    .registers = 32,
    .acc_per_column = 1,
    .x_values = 1,
    .w_values = 1,
    .dot_cost = 8,
    .x_cost = 5,
    .w_cost = 6,
    .counter = &counter,
    .prepare_x = mpqc_isa_vnni_prepare_x,
    .prepare_w = mpqc_isa_vnni_prepare_w,
    .dot = mpqc_isa_vnni_dot,
    .whole_others = 20,
    .half_others = 8,
    .finish = mpqc_isa_finish_one,
    .mulhrs = mpqc_isa_x86_mulhrs,
    .pack16 = mpqc_isa_x86_pack16,
    .pack8 = mpqc_isa_x86_pack8,
    .window16 = mpqc_isa_vbmi_window16,
    .window_at = mpqc_isa_vbmi_window_at,
    .lookup = mpqc_isa_vbmi_lookup,
};

/* The same beside tiles, on cores that do two vpdpbusd at a time. */
const struct mpqc_isa mpqc_isa_amx = {
    .name = "amx",
    .lanes = 16,
    .registers = 32,
    .acc_per_column = 1,
    .x_values = 1,
    .w_values = 1,
    .dot_cost = 6,
    .x_cost = 3,
    .w_cost = 3,
    .counter = &counter,
    .tiles = true,
    .prepare_x = mpqc_isa_vnni_prepare_x,
    .prepare_w = mpqc_isa_vnni_prepare_w,
    .dot = mpqc_isa_vnni_dot,
    .whole_others = 20,
    .half_others = 8,
    .finish = mpqc_isa_finish_one,
    .mulhrs = mpqc_isa_x86_mulhrs,
    .pack16 = mpqc_isa_x86_pack16,
    .pack8 = mpqc_isa_x86_pack8,
    .window16 = mpqc_isa_vbmi_window16,
    .window_at = mpqc_isa_vbmi_window_at,
    .lookup = mpqc_isa_vbmi_lookup,
};
