/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What every instruction set can do in plain LLVM, what all x86-64 levels share, and
 * the baseline record of x86-64.
 */
#include "codegen/emit.h"
#include "codegen/module.h"

LLVMValueRef mpqc_isa_finish_one(struct mpqc_emit_cx *e, LLVMValueRef *acc)
{
    (void)e;
    return acc[0];
}

/* ---- plain LLVM --------------------------------------------------------------- */

static LLVMValueRef widen(struct mpqc_emit_cx *e, LLVMValueRef v, LLVMTypeRef to)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(v));
    return LLVMBuildSExt(e->b, v, LLVMVectorType(to, n), "");
}

LLVMValueRef mpqc_isa_plain_mulhrs(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(a));
    LLVMTypeRef wide = LLVMVectorType(e->i32, n);
    LLVMValueRef p = LLVMBuildMul(e->b, widen(e, a, e->i32), widen(e, b, e->i32), "");
    p = LLVMBuildAdd(e->b, p, mpqc_b_splat(e, wide, 1 << 14), "");
    p = LLVMBuildAShr(e->b, p, mpqc_b_splat(e, wide, 15), "");
    return LLVMBuildTrunc(e->b, p, LLVMVectorType(e->i16, n), "");
}

static LLVMValueRef clamp_to(struct mpqc_emit_cx *e, LLVMValueRef v, int64_t lo, int64_t hi,
                             LLVMTypeRef element)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    LLVMValueRef low[] = {v, mpqc_b_splat(e, t, lo)};
    LLVMValueRef high[] = {mpqc_b_intrinsic(e, "llvm.smax", &t, 1, low, 2),
                           mpqc_b_splat(e, t, hi)};
    LLVMValueRef r = mpqc_b_intrinsic(e, "llvm.smin", &t, 1, high, 2);
    return LLVMBuildTrunc(e->b, r, LLVMVectorType(element, LLVMGetVectorSize(t)), "");
}

/* Joins in the order of the pack instructions: 16-byte parts of a and b in turn, after
 * narrowing to 8 bytes each; `part` is the number of elements in one. */
static LLVMValueRef join_parts(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b,
                               unsigned part)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(a));
    int order[128];
    for (unsigned j = 0; j < n / part; j++) {
        for (unsigned i = 0; i < part; i++) {
            order[2 * part * j + i] = (int)(part * j + i);
            order[2 * part * j + part + i] = (int)(n + part * j + i);
        }
    }
    return mpqc_b_shuffle(e, a, b, order, 2 * n);
}

LLVMValueRef mpqc_isa_plain_pack16(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    return join_parts(e, clamp_to(e, a, INT16_MIN, INT16_MAX, e->i16),
                      clamp_to(e, b, INT16_MIN, INT16_MAX, e->i16), 4);
}

LLVMValueRef mpqc_isa_plain_pack8(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    return join_parts(e, clamp_to(e, a, 0, UINT8_MAX, e->i8), clamp_to(e, b, 0, UINT8_MAX, e->i8),
                      8);
}

/* ---- x86 ------------------------------------------------------------------------ */

/* The instruction for 16, 32 or 64-byte vectors. */
static LLVMValueRef by_width(struct mpqc_emit_cx *e, const char *const names[3], LLVMValueRef a,
                             LLVMValueRef b, unsigned bytes)
{
    LLVMValueRef args[] = {a, b};
    MPQC_ASSERT(bytes == 16 || bytes == 32 || bytes == 64);
    return mpqc_b_intrinsic(e, names[bytes == 64 ? 2 : bytes == 32 ? 1 : 0], NULL, 0, args, 2);
}

static unsigned size_of(LLVMValueRef v, unsigned element_bytes)
{
    return LLVMGetVectorSize(LLVMTypeOf(v)) * element_bytes;
}

/* Without a byte dot product there is pmaddubsw, u8 x s8, which saturates sums of two
 * products at 16 bits.  With s = x - 128, x's magnitude |s| <= 128 as the unsigned factor
 * and w with the sign of s as the other, no sum exceeds 2 * 128 * 127 = 32512. */
void mpqc_isa_x86_prepare_x(struct mpqc_emit_cx *e, LLVMValueRef x, LLVMValueRef out[4])
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(x)) * 4;
    LLVMTypeRef t = LLVMVectorType(e->i8, n);
    out[0] = LLVMBuildXor(e->b, mpqc_b_as(e, x, e->i8, n), mpqc_b_splat(e, t, 0x80), "");
    LLVMValueRef args[] = {out[0], LLVMConstInt(e->i1, 0, 0)};
    out[1] = mpqc_b_intrinsic(e, "llvm.abs", &t, 1, args, 2);
}

void mpqc_isa_x86_prepare_w(struct mpqc_emit_cx *e, LLVMValueRef w, LLVMValueRef out[4])
{
    (void)e;
    out[0] = w;
}

void mpqc_isa_x86_dot(struct mpqc_emit_cx *e, LLVMValueRef *acc, const LLVMValueRef *x,
                      const LLVMValueRef *w)
{
    static const char *const sign[] = {"llvm.x86.ssse3.psign.b.128", "llvm.x86.avx2.psign.b", ""};
    static const char *const pairs[] = {"llvm.x86.ssse3.pmadd.ub.sw.128",
                                        "llvm.x86.avx2.pmadd.ub.sw", ""};
    static const char *const quads[] = {"llvm.x86.sse2.pmadd.wd", "llvm.x86.avx2.pmadd.wd", ""};
    unsigned bytes = size_of(x[0], 1);
    LLVMValueRef p = by_width(e, pairs, x[1], by_width(e, sign, w[0], x[0], bytes), bytes);
    p = by_width(e, quads, p, mpqc_b_splat(e, LLVMTypeOf(p), 1), bytes);
    acc[0] = LLVMBuildAdd(e->b, acc[0], p, "");
}

LLVMValueRef mpqc_isa_x86_mulhrs(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    static const char *const names[] = {"llvm.x86.ssse3.pmul.hr.sw.128",
                                        "llvm.x86.avx2.pmul.hr.sw",
                                        "llvm.x86.avx512.pmul.hr.sw.512"};
    return by_width(e, names, a, b, size_of(a, 2));
}

LLVMValueRef mpqc_isa_x86_pack16(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    static const char *const names[] = {"llvm.x86.sse2.packssdw.128", "llvm.x86.avx2.packssdw",
                                        "llvm.x86.avx512.packssdw.512"};
    return by_width(e, names, a, b, size_of(a, 4));
}

LLVMValueRef mpqc_isa_x86_pack8(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    static const char *const names[] = {"llvm.x86.sse2.packuswb.128", "llvm.x86.avx2.packuswb",
                                        "llvm.x86.avx512.packuswb.512"};
    return by_width(e, names, a, b, size_of(a, 2));
}

/* The table's 16-byte part t, minus (xor) the part before it, in every 16 bytes of n;
 * parts 0 and 8 as they are. */
static LLVMValueRef table_step(struct mpqc_emit_cx *e, LLVMValueRef table, int t, unsigned n)
{
    LLVMTypeRef type = LLVMVectorType(e->i8, 16);
    int order[64];
    LLVMValueRef part = mpqc_b_load(e, type, mpqc_b_gep_const(e, table, 16 * t), 1);
    if (t % 8 != 0) {
        LLVMValueRef before = mpqc_b_load(e, type, mpqc_b_gep_const(e, table, 16 * t - 16), 1);
        part = LLVMBuildXor(e->b, part, before, "");
    }
    for (unsigned i = 0; i < n; i++) order[i] = (int)(i % 16);
    return mpqc_b_shuffle(e, part, part, order, n);
}

/* pshufb looks at the low four bits of an index and gives 0 where bit 7 is set.  For each
 * half of the table: indices of that half are 0..127, others negative; as 16 is taken off
 * again and again, index i meets parts 0 to i / 16, whose differences sum up to the part
 * that it wants, and then goes below zero for good. */
static LLVMValueRef lookup_bytes(struct mpqc_emit_cx *e, LLVMValueRef table, LLVMValueRef index)
{
    static const char *const shuffle[] = {"llvm.x86.ssse3.pshuf.b.128", "llvm.x86.avx2.pshuf.b",
                                          "llvm.x86.avx512.pshuf.b.512"};
    LLVMTypeRef type = LLVMTypeOf(index);
    unsigned n = LLVMGetVectorSize(type);
    LLVMValueRef result = NULL, at = index;
    for (int t = 0; t < 16; t++) {
        LLVMValueRef args[] = {at, mpqc_b_splat(e, type, 16)};
        if (t == 8) at = LLVMBuildXor(e->b, index, mpqc_b_splat(e, type, 0x80), "");
        else if (t > 0) at = mpqc_b_intrinsic(e, "llvm.ssub.sat", &type, 1, args, 2);
        LLVMValueRef r = by_width(e, shuffle, table_step(e, table, t, n), at, n);
        result = result ? LLVMBuildXor(e->b, result, r, "") : r;
    }
    return result;
}

/* In a function of its own, one for each width: some 60 instructions at every store of
 * every tile would be most of a small network's code. */
LLVMValueRef mpqc_isa_x86_lookup(struct mpqc_emit_cx *e, LLVMValueRef table, LLVMValueRef index)
{
    LLVMTypeRef vector = LLVMTypeOf(index), params[] = {e->ptr, vector};
    LLVMTypeRef type = LLVMFunctionType(vector, params, 2, 0);
    char name[32];
    snprintf(name, sizeof name, "lookup.%u", LLVMGetVectorSize(vector));
    LLVMValueRef f = LLVMGetNamedFunction(e->module, name), args[] = {table, index};
    if (!f) {
        LLVMBasicBlockRef here = LLVMGetInsertBlock(e->b);
        f = mpqc_function(e, name, type);
        LLVMAddAttributeAtIndex(f, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                                mpqc_attribute(e, "noinline"));
        LLVMPositionBuilderAtEnd(e->b, LLVMAppendBasicBlockInContext(e->llvm, f, "entry"));
        LLVMBuildRet(e->b, lookup_bytes(e, LLVMGetParam(f, 0), LLVMGetParam(f, 1)));
        LLVMPositionBuilderAtEnd(e->b, here);
    }
    return LLVMBuildCall2(e->b, type, f, args, 2, "");
}

const struct mpqc_isa mpqc_isa_generic = {
    .name = "generic",
    .lanes = 4,
    .registers = 16,
    .x_offset = 128,
    .acc_per_column = 1,
    .x_values = 2,
    .w_values = 1,
    .dot_cost = 16,
    .x_cost = 14,
    .w_cost = 4,
    .prepare_x = mpqc_isa_x86_prepare_x,
    .prepare_w = mpqc_isa_x86_prepare_w,
    .dot = mpqc_isa_x86_dot,
    .whole_others = 8,
    .half_others = 2,
    .finish = mpqc_isa_finish_one,
    .mulhrs = mpqc_isa_x86_mulhrs,
    .pack16 = mpqc_isa_x86_pack16,
    .pack8 = mpqc_isa_x86_pack8,
    .lookup = mpqc_isa_x86_lookup,
};
