/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Small helpers over the LLVM C API: constants, vectors, addresses, loops.
 * Everything here works at the position of the emission's builder.
 */
#include "codegen/module.h"

#include <llvm-c/DebugInfo.h>

#include <string.h>

LLVMValueRef mpqc_b_i64(struct mpqc_emit_cx *e, int64_t v)
{
    return LLVMConstInt(e->i64, (unsigned long long)v, 1);
}

LLVMValueRef mpqc_b_i32(struct mpqc_emit_cx *e, int32_t v)
{
    return LLVMConstInt(e->i32, (unsigned long long)(int64_t)v, 1);
}

LLVMTypeRef mpqc_b_vec(LLVMTypeRef element, unsigned n)
{
    return LLVMVectorType(element, n);
}

LLVMValueRef mpqc_b_splat(struct mpqc_emit_cx *e, LLVMTypeRef vec, int64_t v)
{
    (void)e;
    unsigned n = LLVMGetVectorSize(vec);
    LLVMValueRef one = LLVMConstInt(LLVMGetElementType(vec), (unsigned long long)v, 1);
    LLVMValueRef lane[256];
    MPQC_ASSERT(n <= MPQC_LEN(lane));
    for (unsigned i = 0; i < n; i++) lane[i] = one;
    return LLVMConstVector(lane, n);
}

/* A shuffle mask first, first + step, ... of n lanes. */
static LLVMValueRef mask(struct mpqc_emit_cx *e, unsigned first, unsigned step, unsigned n)
{
    LLVMValueRef lane[256];
    MPQC_ASSERT(n <= MPQC_LEN(lane));
    for (unsigned i = 0; i < n; i++) lane[i] = mpqc_b_i32(e, (int32_t)(first + i * step));
    return LLVMConstVector(lane, n);
}

LLVMValueRef mpqc_b_broadcast(struct mpqc_emit_cx *e, LLVMValueRef scalar, unsigned n)
{
    LLVMTypeRef t = LLVMVectorType(LLVMTypeOf(scalar), n);
    LLVMValueRef v =
        LLVMBuildInsertElement(e->b, LLVMGetPoison(t), scalar, mpqc_b_i64(e, 0), "");
    return LLVMBuildShuffleVector(e->b, v, LLVMGetPoison(t), mask(e, 0, 0, n), "");
}

LLVMValueRef mpqc_b_gep(struct mpqc_emit_cx *e, LLVMValueRef p, LLVMValueRef bytes)
{
    return LLVMBuildInBoundsGEP2(e->b, e->i8, p, &bytes, 1, "");
}

LLVMValueRef mpqc_b_gep_const(struct mpqc_emit_cx *e, LLVMValueRef p, int64_t bytes)
{
    return bytes == 0 ? p : mpqc_b_gep(e, p, mpqc_b_i64(e, bytes));
}

LLVMValueRef mpqc_b_madd(struct mpqc_emit_cx *e, LLVMValueRef a, int64_t k, LLVMValueRef b)
{
    LLVMValueRef product = k == 1 ? a : LLVMBuildNSWMul(e->b, a, mpqc_b_i64(e, k), "");
    return LLVMBuildNSWAdd(e->b, product, b, "");
}

LLVMValueRef mpqc_b_load(struct mpqc_emit_cx *e, LLVMTypeRef t, LLVMValueRef p, unsigned align)
{
    LLVMValueRef v = LLVMBuildLoad2(e->b, t, p, "");
    LLVMSetAlignment(v, align);
    return v;
}

void mpqc_b_store(struct mpqc_emit_cx *e, LLVMValueRef v, LLVMValueRef p, unsigned align)
{
    LLVMSetAlignment(LLVMBuildStore(e->b, v, p), align);
}

LLVMValueRef mpqc_b_var(struct mpqc_emit_cx *e, LLVMTypeRef t, const char *name)
{
    LLVMBasicBlockRef here = LLVMGetInsertBlock(e->b);
    LLVMValueRef first = LLVMGetFirstInstruction(e->entry);
    if (first) LLVMPositionBuilderBefore(e->b, first);
    else LLVMPositionBuilderAtEnd(e->b, e->entry);
    LLVMValueRef var = LLVMBuildAlloca(e->b, t, name);
    LLVMPositionBuilderAtEnd(e->b, here);
    return var;
}

LLVMValueRef mpqc_b_intrinsic(struct mpqc_emit_cx *e, const char *name, const LLVMTypeRef *types,
                              unsigned n_types, LLVMValueRef *args, unsigned n_args)
{
    LLVMTypeRef copy[4];
    MPQC_ASSERT(n_types <= MPQC_LEN(copy));
    for (unsigned i = 0; i < n_types; i++) copy[i] = types[i];
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    MPQC_ASSERT(id != 0);
    LLVMValueRef f = LLVMGetIntrinsicDeclaration(e->module, id, copy, n_types);
    LLVMTypeRef t = LLVMIntrinsicGetType(e->llvm, id, copy, n_types);
    return LLVMBuildCall2(e->b, t, f, args, n_args, "");
}

void mpqc_b_prefetch(struct mpqc_emit_cx *e, LLVMValueRef p, int64_t at, enum mpqc_cache to)
{
    LLVMValueRef read = mpqc_b_i32(e, 0), data = mpqc_b_i32(e, 1);
    LLVMValueRef args[] = {mpqc_b_gep_const(e, p, at), read, mpqc_b_i32(e, (int)to), data};
    mpqc_b_intrinsic(e, "llvm.prefetch", &e->ptr, 1, args, 4);
}

LLVMValueRef mpqc_b_join(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(a));
    return LLVMBuildShuffleVector(e->b, a, b, mask(e, 0, 1, 2 * n), "");
}

LLVMValueRef mpqc_b_part(struct mpqc_emit_cx *e, LLVMValueRef v, unsigned first, unsigned n)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    if (first == 0 && n == LLVMGetVectorSize(t)) return v;
    return LLVMBuildShuffleVector(e->b, v, LLVMGetPoison(t), mask(e, first, 1, n), "");
}

/* ---- control flow ------------------------------------------------------------- */

static LLVMMetadataRef flag(struct mpqc_emit_cx *e, const char *name)
{
    LLVMMetadataRef s = LLVMMDStringInContext2(e->llvm, name, strlen(name));
    return LLVMMDNodeInContext2(e->llvm, &s, 1);
}

/* A loop id is a metadata node whose first operand is itself. */
static void mark_loop(struct mpqc_emit_cx *e, LLVMValueRef branch)
{
    LLVMMetadataRef self = LLVMTemporaryMDNode(e->llvm, NULL, 0);
    LLVMMetadataRef operand[] = {self, flag(e, "llvm.loop.unroll.disable")};
    LLVMMetadataRef node = LLVMMDNodeInContext2(e->llvm, operand, MPQC_LEN(operand));
    LLVMMetadataReplaceAllUsesWith(self, node);
    LLVMSetMetadata(branch, LLVMGetMDKindIDInContext(e->llvm, "llvm.loop", 9),
                    LLVMMetadataAsValue(e->llvm, node));
}

static LLVMBasicBlockRef block(struct mpqc_emit_cx *e, const char *name)
{
    return LLVMAppendBasicBlockInContext(e->llvm, e->function, name);
}

/* Loops are built rotated: a guard before, the test at the bottom.  A guard that is
 * known at compile time is left out. */
void mpqc_b_loop_begin(struct mpqc_emit_cx *e, struct mpqc_loop *l, LLVMValueRef from,
                       LLVMValueRef to, int64_t step, const char *name)
{
    LLVMBasicBlockRef before = LLVMGetInsertBlock(e->b);
    l->head = before;
    l->body = block(e, name);
    l->exit = block(e, "");
    l->to = to;
    l->step = step;
    l->next = NULL;
    bool known = LLVMIsConstant(from) && LLVMIsConstant(to);
    if (known && LLVMConstIntGetSExtValue(from) < LLVMConstIntGetSExtValue(to)) {
        LLVMBuildBr(e->b, l->body);
    } else {
        LLVMValueRef enter = LLVMBuildICmp(e->b, LLVMIntSLT, from, to, "");
        LLVMBuildCondBr(e->b, enter, l->body, l->exit);
    }
    LLVMPositionBuilderAtEnd(e->b, l->body);
    l->iv = LLVMBuildPhi(e->b, LLVMTypeOf(from), name);
    LLVMAddIncoming(l->iv, &from, &before, 1);
}

void mpqc_b_loop_end(struct mpqc_emit_cx *e, struct mpqc_loop *l)
{
    LLVMBasicBlockRef latch = LLVMGetInsertBlock(e->b);
    LLVMValueRef step = LLVMConstInt(LLVMTypeOf(l->iv), (unsigned long long)l->step, 1);
    l->next = LLVMBuildNSWAdd(e->b, l->iv, step, "");
    LLVMAddIncoming(l->iv, &l->next, &latch, 1);
    LLVMValueRef again = LLVMBuildICmp(e->b, LLVMIntSLT, l->next, l->to, "");
    mark_loop(e, LLVMBuildCondBr(e->b, again, l->body, l->exit));
    LLVMMoveBasicBlockAfter(l->exit, latch);
    LLVMPositionBuilderAtEnd(e->b, l->exit);
}

void mpqc_b_if_begin(struct mpqc_emit_cx *e, struct mpqc_if *i, LLVMValueRef cond)
{
    i->then = block(e, "then");
    i->join = block(e, "");
    LLVMBuildCondBr(e->b, cond, i->then, i->join);
    LLVMPositionBuilderAtEnd(e->b, i->then);
}

void mpqc_b_if_end(struct mpqc_emit_cx *e, struct mpqc_if *i)
{
    LLVMBuildBr(e->b, i->join);
    LLVMMoveBasicBlockAfter(i->join, LLVMGetInsertBlock(e->b));
    LLVMPositionBuilderAtEnd(e->b, i->join);
}

/* Assembly without an instruction; `fixed`: it stays where it is written. */
static LLVMValueRef nothing(struct mpqc_emit_cx *e, LLVMValueRef v, const char *constraint,
                            bool fixed)
{
    LLVMTypeRef t = LLVMTypeOf(v), type = LLVMFunctionType(t, &t, 1, false);
    LLVMValueRef text = LLVMGetInlineAsm(type, "", 0, constraint, strlen(constraint), fixed, false,
                                         LLVMInlineAsmDialectATT, false);
    return LLVMBuildCall2(e->b, type, text, &v, 1, "");
}

LLVMValueRef mpqc_b_opaque(struct mpqc_emit_cx *e, LLVMValueRef p)
{
    return nothing(e, p, "=r,0", true);
}

LLVMValueRef mpqc_b_opaque_vector(struct mpqc_emit_cx *e, LLVMValueRef v)
{
    return nothing(e, v, e->target->arch == MPQC_ARCH_X86_64 ? "=v,0" : "=w,0", false);
}

/* A call that depends on its arguments only: it may be made once, and elsewhere. */
static LLVMValueRef pure(struct mpqc_emit_cx *e, LLVMValueRef call)
{
    static const char *const facts[] = {"memory" /* none */, "nounwind", "willreturn"};
    for (size_t i = 0; i < MPQC_LEN(facts); i++)
        LLVMAddCallSiteAttribute(call, LLVMAttributeFunctionIndex, mpqc_attribute(e, facts[i]));
    return call;
}

LLVMValueRef mpqc_b_in_order(struct mpqc_emit_cx *e, LLVMValueRef sum)
{
    return pure(e, mpqc_b_opaque_vector(e, sum));
}

/* v, as something that is computed from `by` too. */
static LLVMValueRef depends(struct mpqc_emit_cx *e, LLVMValueRef v, LLVMValueRef by,
                            const char *constraint)
{
    LLVMTypeRef in[] = {LLVMTypeOf(v), LLVMTypeOf(by)};
    LLVMTypeRef type = LLVMFunctionType(in[0], in, 2, false);
    LLVMValueRef args[] = {v, by};
    LLVMValueRef text = LLVMGetInlineAsm(type, "", 0, constraint, strlen(constraint), false, false,
                                         LLVMInlineAsmDialectATT, false);
    return pure(e, LLVMBuildCall2(e->b, type, text, args, 2, ""));
}

LLVMValueRef mpqc_b_alias(struct mpqc_emit_cx *e, LLVMValueRef p, LLVMValueRef by)
{
    return depends(e, p, by, "=r,0,r");
}

LLVMValueRef mpqc_b_zero(struct mpqc_emit_cx *e, LLVMValueRef by)
{
    return depends(e, LLVMConstNull(LLVMTypeOf(by)), by, "=v,0,v");
}

LLVMValueRef mpqc_b_opaque_mask(struct mpqc_emit_cx *e, uint64_t bits)
{
    LLVMValueRef mask = pure(e, nothing(e, mpqc_b_i64(e, (int64_t)bits), "=r,0", false));
    return LLVMBuildBitCast(e->b, mask, LLVMVectorType(e->i1, 64), "");
}
