/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One function per kernel, named after its ONNX node, that finds the operands and
 * calls the body.  Its range is in parts of `grain` units, so that any split that a
 * thread pool chooses is worth its cost.
 */
#include "codegen/module.h"

#include <string.h>

static LLVMValueRef constant_operand(struct mpqc_emit_cx *e, mpqc_vid v)
{
    const struct mpqc_value *value = mpqc_value_at(e->graph, v);
    return mpqc_global_bytes(e, "c", value->data, mpqc_type_bytes(&value->type), MPQC_ARENA_ALIGN);
}

/* Pointer to the first element of a value's place. */
static mpqc_status operand_pointer(struct mpqc_emit_cx *e, LLVMValueRef frame,
                                   const struct mpqc_operand *o, LLVMValueRef *out)
{
    if (o->value == MPQC_NONE) {
        *out = o->global;
        return MPQC_OK;
    }
    const struct mpqc_place *p = &e->plan->place[o->value];
    uint32_t slot = 0; /* of the frame; 0 is the workspace */
    switch (p->space) {
    case MPQC_SPACE_CONST: *out = constant_operand(e, o->value); return MPQC_OK;
    case MPQC_SPACE_ARENA: break;
    case MPQC_SPACE_INPUT: slot = 1 + p->index; break;
    case MPQC_SPACE_OUTPUT: slot = 1 + e->graph->n_inputs + p->index; break;
    case MPQC_SPACE_NONE:
        if (mpqc_is_const(e->graph, o->value)) {
            *out = constant_operand(e, o->value);
            return MPQC_OK;
        }
        return MPQC_FAIL(e->cx, BUG, MPQC_NOWHERE, "kernel '%s' needs value %%%u, which has no place",
                         e->kernel_name, o->value);
    }
    LLVMValueRef base =
        mpqc_b_load(e, e->ptr, mpqc_b_gep_const(e, frame, (int64_t)slot * 8), 8);
    *out = mpqc_b_gep_const(e, base, (int64_t)p->offset);
    return MPQC_OK;
}

/* Part [begin, end) -> units of the body. */
static LLVMValueRef unit_of(struct mpqc_emit_cx *e, LLVMValueRef part, int64_t unit, int64_t range)
{
    LLVMValueRef u = LLVMBuildNSWMul(e->b, part, mpqc_b_i64(e, unit), "");
    if (range % unit == 0) return u;
    LLVMValueRef args[] = {u, mpqc_b_i64(e, range)};
    return mpqc_b_intrinsic(e, "llvm.smin", &e->i64, 1, args, 2);
}

mpqc_status mpqc_emit_wrapper(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                              const struct mpqc_kernel_code *code,
                              struct mpqc_compiled_kernel *out)
{
    LLVMTypeRef param[] = {e->ptr, e->i64, e->i64};
    LLVMTypeRef type = LLVMFunctionType(e->void_, param, 3, 0);
    LLVMValueRef args[MPQC_MAX_OPERANDS + 2];
    LLVMValueRef f = mpqc_function(e, e->kernel_name, type);
    (void)k;

    e->function = f;
    e->entry = LLVMAppendBasicBlockInContext(e->llvm, f, "entry");
    LLVMPositionBuilderAtEnd(e->b, e->entry);
    for (uint32_t i = 0; i < code->n_operands; i++)
        MPQC_TRY(operand_pointer(e, LLVMGetParam(f, 0), &code->operand[i], &args[i]));
    bool split = code->grain > 0 && code->grain < code->range;
    if (split) {
        args[code->n_operands] = unit_of(e, LLVMGetParam(f, 1), code->grain, code->range);
        args[code->n_operands + 1] = unit_of(e, LLVMGetParam(f, 2), code->grain, code->range);
    } else {
        args[code->n_operands] = mpqc_b_i64(e, 0);
        args[code->n_operands + 1] = mpqc_b_i64(e, code->range);
    }
    LLVMValueRef call = LLVMBuildCall2(e->b, LLVMGlobalGetValueType(code->body), code->body, args,
                                       code->n_operands + 2, "");
    LLVMSetTailCall(call, 1);
    LLVMBuildRetVoid(e->b);
    out->wrapper = f;
    out->parallel = split;
    out->units = split ? (code->range + code->grain - 1) / code->grain : 1;
    return mpqc_function_check(e, f);
}
