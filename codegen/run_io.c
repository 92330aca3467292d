/* SPDX-License-Identifier: GPL-3.0-or-later
 * Vectors of elements of a run, loaded and stored; see nest.h.
 */
#include "codegen/nest.h"

LLVMValueRef mpqc_run_load(struct mpqc_emit_cx *e, LLVMTypeRef element, unsigned bytes,
                           LLVMValueRef p, int64_t step, LLVMValueRef index, unsigned lanes,
                           unsigned valid, bool exact)
{
    if (step == 0) return mpqc_b_broadcast(e, mpqc_b_load(e, element, p, 1), lanes);
    LLVMValueRef at = mpqc_b_gep(e, p, mpqc_b_madd(e, index, step, mpqc_b_i64(e, 0)));
    if (step == (int64_t)bytes) {
        if (valid == lanes || !exact) return mpqc_b_load(e, LLVMVectorType(element, lanes), at, 1);
        LLVMValueRef v = mpqc_b_load_bytes(e, at, valid * bytes, lanes * bytes, true);
        return mpqc_b_as(e, v, element, lanes);
    }
    LLVMValueRef v = LLVMConstNull(LLVMVectorType(element, lanes));
    for (unsigned i = 0; i < valid; i++) {
        LLVMValueRef one = mpqc_b_load(e, element, mpqc_b_gep_const(e, at, step * (int64_t)i), 1);
        v = LLVMBuildInsertElement(e->b, v, one, mpqc_b_i64(e, i), "");
    }
    return v;
}

void mpqc_run_store(struct mpqc_emit_cx *e, LLVMValueRef v, unsigned bytes, LLVMValueRef p,
                    int64_t step, LLVMValueRef index, unsigned valid)
{
    unsigned lanes = LLVMGetVectorSize(LLVMTypeOf(v));
    LLVMValueRef at = mpqc_b_gep(e, p, mpqc_b_madd(e, index, step, mpqc_b_i64(e, 0)));
    if (step != (int64_t)bytes) {
        for (unsigned i = 0; i < valid; i++)
            mpqc_b_store(e, LLVMBuildExtractElement(e->b, v, mpqc_b_i64(e, i), ""),
                         mpqc_b_gep_const(e, at, step * (int64_t)i), 1);
    } else if (valid == lanes) {
        mpqc_b_store(e, v, at, 1);
    } else {
        mpqc_b_store_bytes(e, mpqc_b_as(e, v, e->i8, lanes * bytes), at, valid * bytes);
    }
}
