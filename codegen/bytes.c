/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Vectors of bytes between memory and registers: exact loads, exact stores, fills.
 */
#include "codegen/emit.h"

LLVMValueRef mpqc_b_as(struct mpqc_emit_cx *e, LLVMValueRef v, LLVMTypeRef element, unsigned n)
{
    return LLVMBuildBitCast(e->b, v, LLVMVectorType(element, n), "");
}

LLVMValueRef mpqc_b_shuffle(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b,
                            const int *order, unsigned n)
{
    LLVMValueRef lane[256];
    MPQC_ASSERT(n <= MPQC_LEN(lane));
    for (unsigned i = 0; i < n; i++)
        lane[i] = order[i] < 0 ? LLVMGetPoison(e->i32) : mpqc_b_i32(e, order[i]);
    return LLVMBuildShuffleVector(e->b, a, b, LLVMConstVector(lane, n), "");
}

/* The largest power of two that is at most n, and at most one register. */
static unsigned piece(const struct mpqc_emit_cx *e, int64_t n)
{
    unsigned p = e->target->vector_bytes;
    while (p > n) p /= 2;
    return p;
}

/* The n bytes of `part` at position `at` of a vector of `total`. */
static LLVMValueRef insert_bytes(struct mpqc_emit_cx *e, LLVMValueRef into, LLVMValueRef part,
                                 unsigned at, unsigned n, unsigned total)
{
    int wide[256], merge[256];
    MPQC_ASSERT(total <= MPQC_LEN(wide));
    for (unsigned i = 0; i < total; i++) {
        bool inside = i >= at && i < at + n;
        wide[i] = inside ? (int)(i - at) : -1;
        merge[i] = inside ? (int)(total + i) : (int)i;
    }
    LLVMValueRef poison = LLVMGetPoison(LLVMTypeOf(part));
    LLVMValueRef w = mpqc_b_shuffle(e, part, poison, wide, total);
    return mpqc_b_shuffle(e, into, w, merge, total);
}

LLVMValueRef mpqc_b_load_bytes(struct mpqc_emit_cx *e, LLVMValueRef p, unsigned n, unsigned total,
                               bool exact)
{
    LLVMTypeRef type = LLVMVectorType(e->i8, total);
    if (!exact || n >= total) return mpqc_b_load(e, type, p, 1);
    LLVMValueRef v = LLVMConstNull(type);
    for (unsigned at = 0; at < n;) {
        unsigned k = piece(e, n - at);
        LLVMValueRef part =
            mpqc_b_load(e, LLVMVectorType(e->i8, k), mpqc_b_gep_const(e, p, at), 1);
        v = insert_bytes(e, v, part, at, k, total);
        at += k;
    }
    return v;
}

void mpqc_b_store_bytes(struct mpqc_emit_cx *e, LLVMValueRef v, LLVMValueRef p, unsigned n)
{
    for (unsigned at = 0; at < n;) {
        unsigned k = piece(e, n - at);
        mpqc_b_store(e, mpqc_b_part(e, v, at, k), mpqc_b_gep_const(e, p, at), 1);
        at += k;
    }
}

void mpqc_b_fill(struct mpqc_emit_cx *e, LLVMValueRef p, int64_t n, int value)
{
    int64_t vector = e->target->vector_bytes, at = 0;
    if (n >= 8 * vector) {
        struct mpqc_loop l;
        at = n / vector * vector;
        mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, at), vector, "fill");
        LLVMTypeRef type = LLVMVectorType(e->i8, (unsigned)vector);
        mpqc_b_store(e, mpqc_b_splat(e, type, value), mpqc_b_gep(e, p, l.iv), 1);
        mpqc_b_loop_end(e, &l);
    }
    while (at < n) {
        unsigned k = piece(e, n - at);
        LLVMTypeRef type = LLVMVectorType(e->i8, k);
        mpqc_b_store(e, mpqc_b_splat(e, type, value), mpqc_b_gep_const(e, p, at), 1);
        at += k;
    }
}
