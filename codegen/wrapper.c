/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One function per kernel, named after its ONNX node, that finds the operands and
 * calls the body.  Its range is in parts of at least `grain` units, so that any split that a
 * thread pool chooses is worth its cost.
 *
 * For threads to meet costs less than what it costs a core to read what another has written:
 * 64 bytes take some 10 ns.  So once the large kernels of a network are shared, small ones
 * between them had better be, along the same rows; in networks of small kernels nothing is.
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

#define LARGE_KERNELS 1500000 /* multiply-accumulates, in the mean */
#define SMALL_PARTS 8         /* share_small: a part may be so many times smaller */

bool mpqc_share_small(const struct mpqc_emit_cx *e)
{
    uint64_t macs = 0;
    for (uint32_t i = 0; i < e->plan->n_kernels; i++)
        macs += mpqc_kernel_macs(e->graph, &e->plan->kernels[i]);
    return macs / LARGE_KERNELS >= e->plan->n_kernels;
}

/* Into how many parts threads may divide the range: single units, if each is worth it; else
 * a multiple of 16, or where there are few, of 4 or 2, so that 2, 4, ... threads get equal
 * shares. */
static int64_t parts_of(const struct mpqc_emit_cx *e, const struct mpqc_kernel_code *code)
{
    if (code->grain <= 0) return 1;
    int64_t most = code->range * (e->share_small ? SMALL_PARTS : 1) / code->grain;
    if (most >= code->range) return code->range;
    int64_t even = most >= 16 ? 16 : most >= 4 ? 4 : 2;
    return most < 2 ? 1 : most - most % even;
}

/* The unit of the body with which a part begins. */
static LLVMValueRef unit_of(struct mpqc_emit_cx *e, LLVMValueRef part, int64_t parts,
                            int64_t range)
{
    LLVMValueRef u = LLVMBuildNSWMul(e->b, part, mpqc_b_i64(e, range), "");
    return LLVMBuildSDiv(e->b, u, mpqc_b_i64(e, parts), "");
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
    int64_t parts = parts_of(e, code);
    if (parts > 1) {
        args[code->n_operands] = unit_of(e, LLVMGetParam(f, 1), parts, code->range);
        args[code->n_operands + 1] = unit_of(e, LLVMGetParam(f, 2), parts, code->range);
    } else {
        args[code->n_operands] = mpqc_b_i64(e, 0);
        args[code->n_operands + 1] = mpqc_b_i64(e, code->range);
    }
    LLVMValueRef call = LLVMBuildCall2(e->b, LLVMGlobalGetValueType(code->body), code->body, args,
                                       code->n_operands + 2, "");
    LLVMSetTailCall(call, 1);
    LLVMBuildRetVoid(e->b);
    out->wrapper = f;
    out->parallel = parts > 1;
    out->units = parts;
    return mpqc_function_check(e, f);
}
