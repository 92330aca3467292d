/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Emits run(): checks the pointers, then walks a constant table of wrappers.
 *
 *     for (i = 0; i < n; i++) {
 *         if (begin) begin(profile, i);
 *         if (parallel_for && table[i].parallel)
 *             parallel_for(pool, table[i].wrapper, frame, table[i].units);
 *         else table[i].wrapper(frame, 0, table[i].units);
 *         if (end) end(profile, i);
 *     }
 */
#include "codegen/module.h"

/* One row of the table: { ptr wrapper, i64 units, i64 parallel }. */
enum { ROW_WRAPPER = 0, ROW_UNITS = 8, ROW_PARALLEL = 16, ROW_BYTES = 24 };

static LLVMValueRef table(struct mpqc_emit_cx *e, const struct mpqc_compiled_kernel *k, uint32_t n)
{
    LLVMTypeRef field[] = {e->ptr, e->i64, e->i64};
    LLVMTypeRef row_type = LLVMStructTypeInContext(e->llvm, field, 3, 0);
    LLVMValueRef *row = MPQC_NEW_ARRAY(&e->scratch, LLVMValueRef, n);
    if (!row) return NULL;
    for (uint32_t i = 0; i < n; i++) {
        LLVMValueRef cell[] = {k[i].wrapper, mpqc_b_i64(e, k[i].units),
                               mpqc_b_i64(e, k[i].parallel)};
        row[i] = LLVMConstStructInContext(e->llvm, cell, 3, 0);
    }
    return mpqc_global_constant(e, "kernels", LLVMConstArray2(row_type, row, n));
}

static LLVMValueRef is_null(struct mpqc_emit_cx *e, LLVMValueRef p)
{
    return LLVMBuildICmp(e->b, LLVMIntEQ, p, LLVMConstNull(e->ptr), "");
}

static LLVMValueRef not_null(struct mpqc_emit_cx *e, LLVMValueRef p)
{
    return LLVMBuildICmp(e->b, LLVMIntNE, p, LLVMConstNull(e->ptr), "");
}

static void return_if(struct mpqc_emit_cx *e, LLVMValueRef cond, int status)
{
    LLVMBasicBlockRef bad = LLVMAppendBasicBlockInContext(e->llvm, e->function, "bad");
    LLVMBasicBlockRef good = LLVMAppendBasicBlockInContext(e->llvm, e->function, "");
    LLVMBuildCondBr(e->b, cond, bad, good);
    LLVMPositionBuilderAtEnd(e->b, bad);
    LLVMBuildRet(e->b, mpqc_b_i32(e, status));
    LLVMPositionBuilderAtEnd(e->b, good);
}

/* Copies n caller pointers into the frame; a NULL among them ends run(). */
static void take_pointers(struct mpqc_emit_cx *e, LLVMValueRef from, uint32_t n,
                          LLVMValueRef frame, uint32_t slot)
{
    if (n == 0) return;
    return_if(e, is_null(e, from), MPQC_RUN_NULL_POINTER);
    for (uint32_t i = 0; i < n; i++) {
        LLVMValueRef p = mpqc_b_load(e, e->ptr, mpqc_b_gep_const(e, from, (int64_t)i * 8), 8);
        return_if(e, is_null(e, p), MPQC_RUN_NULL_POINTER);
        mpqc_b_store(e, p, mpqc_b_gep_const(e, frame, (int64_t)(slot + i) * 8), 8);
    }
}

/* What exec lends; each a variable, null when absent. */
struct lent {
    LLVMValueRef parallel_for, pool, begin, end, profile;
};

/* var = exec->field, when exec is large enough to have it. */
static void take_field(struct mpqc_emit_cx *e, LLVMValueRef exec, LLVMValueRef size, size_t offset,
                       LLVMValueRef var)
{
    struct mpqc_if has;
    LLVMValueRef enough = mpqc_b_i32(e, (int32_t)(offset + sizeof(void *)));
    mpqc_b_if_begin(e, &has, LLVMBuildICmp(e->b, LLVMIntUGE, size, enough, ""));
    LLVMValueRef p = mpqc_b_gep_const(e, exec, (int64_t)offset);
    mpqc_b_store(e, mpqc_b_load(e, e->ptr, p, 8), var, 8);
    mpqc_b_if_end(e, &has);
}

static LLVMValueRef null_variable(struct mpqc_emit_cx *e, const char *name)
{
    LLVMValueRef v = mpqc_b_var(e, e->ptr, name);
    mpqc_b_store(e, LLVMConstNull(e->ptr), v, 8);
    return v;
}

static struct lent take_exec(struct mpqc_emit_cx *e, LLVMValueRef exec)
{
    struct lent l = {
        .parallel_for = null_variable(e, "parallel_for"),
        .pool = null_variable(e, "pool"),
        .begin = null_variable(e, "begin"),
        .end = null_variable(e, "end"),
        .profile = null_variable(e, "profile"),
    };
    struct mpqc_if given, several;
    mpqc_b_if_begin(e, &given, not_null(e, exec));
    LLVMValueRef size = mpqc_b_load(e, e->i32, exec, 4);
    LLVMValueRef threads = mpqc_b_load(
        e, e->i32, mpqc_b_gep_const(e, exec, offsetof(struct mpqc_exec, threads)), 4);
    mpqc_b_if_begin(e, &several,
                    LLVMBuildICmp(e->b, LLVMIntUGT, threads, mpqc_b_i32(e, 1), ""));
    take_field(e, exec, size, offsetof(struct mpqc_exec, parallel_for), l.parallel_for);
    take_field(e, exec, size, offsetof(struct mpqc_exec, pool), l.pool);
    mpqc_b_if_end(e, &several);
    take_field(e, exec, size, offsetof(struct mpqc_exec, layer_begin), l.begin);
    take_field(e, exec, size, offsetof(struct mpqc_exec, layer_end), l.end);
    take_field(e, exec, size, offsetof(struct mpqc_exec, profile), l.profile);
    mpqc_b_if_end(e, &given);
    return l;
}

/* if (hook) hook(profile, layer) */
static void call_hook(struct mpqc_emit_cx *e, LLVMValueRef hook_var, LLVMValueRef profile_var,
                      LLVMValueRef layer)
{
    struct mpqc_if set;
    LLVMTypeRef param[] = {e->ptr, e->i32};
    LLVMTypeRef type = LLVMFunctionType(e->void_, param, 2, 0);
    LLVMValueRef hook = mpqc_b_load(e, e->ptr, hook_var, 8);
    mpqc_b_if_begin(e, &set, not_null(e, hook));
    LLVMValueRef arg[] = {mpqc_b_load(e, e->ptr, profile_var, 8),
                          LLVMBuildTrunc(e->b, layer, e->i32, "")};
    LLVMBuildCall2(e->b, type, hook, arg, 2, "");
    mpqc_b_if_end(e, &set);
}

static void call_kernel(struct mpqc_emit_cx *e, LLVMValueRef rows, LLVMValueRef i,
                        const struct lent *l, LLVMValueRef frame)
{
    LLVMTypeRef task[] = {e->ptr, e->i64, e->i64};
    LLVMTypeRef split[] = {e->ptr, e->ptr, e->ptr, e->i64};
    LLVMTypeRef task_type = LLVMFunctionType(e->void_, task, 3, 0);
    LLVMTypeRef split_type = LLVMFunctionType(e->void_, split, 4, 0);
    LLVMBasicBlockRef many = LLVMAppendBasicBlockInContext(e->llvm, e->function, "many");
    LLVMBasicBlockRef one = LLVMAppendBasicBlockInContext(e->llvm, e->function, "one");
    LLVMBasicBlockRef join = LLVMAppendBasicBlockInContext(e->llvm, e->function, "");

    LLVMValueRef row =
        mpqc_b_gep(e, rows, LLVMBuildNSWMul(e->b, i, mpqc_b_i64(e, ROW_BYTES), ""));
    LLVMValueRef wrapper = mpqc_b_load(e, e->ptr, mpqc_b_gep_const(e, row, ROW_WRAPPER), 8);
    LLVMValueRef units = mpqc_b_load(e, e->i64, mpqc_b_gep_const(e, row, ROW_UNITS), 8);
    LLVMValueRef flag = mpqc_b_load(e, e->i64, mpqc_b_gep_const(e, row, ROW_PARALLEL), 8);
    LLVMValueRef parallel_for = mpqc_b_load(e, e->ptr, l->parallel_for, 8);
    LLVMValueRef both = LLVMBuildAnd(
        e->b, LLVMBuildICmp(e->b, LLVMIntNE, flag, mpqc_b_i64(e, 0), ""),
        not_null(e, parallel_for), "");
    LLVMBuildCondBr(e->b, both, many, one);

    LLVMPositionBuilderAtEnd(e->b, many);
    LLVMValueRef a[] = {mpqc_b_load(e, e->ptr, l->pool, 8), wrapper, frame, units};
    LLVMBuildCall2(e->b, split_type, parallel_for, a, 4, "");
    LLVMBuildBr(e->b, join);
    LLVMPositionBuilderAtEnd(e->b, one);
    LLVMValueRef b[] = {frame, mpqc_b_i64(e, 0), units};
    LLVMBuildCall2(e->b, task_type, wrapper, b, 3, "");
    LLVMBuildBr(e->b, join);
    LLVMPositionBuilderAtEnd(e->b, join);
}

mpqc_status mpqc_emit_run(struct mpqc_emit_cx *e, const struct mpqc_compiled_kernel *k, uint32_t n,
                          LLVMValueRef *out)
{
    const struct mpqc_graph *g = e->graph;
    LLVMTypeRef param[] = {e->ptr, e->ptr, e->ptr, e->ptr};
    LLVMValueRef f = mpqc_function(e, "run", LLVMFunctionType(e->i32, param, 4, 0));
    LLVMValueRef rows = table(e, k, n);
    if (!rows) return MPQC_OOM(e->cx);
    e->function = f;
    e->entry = LLVMAppendBasicBlockInContext(e->llvm, f, "entry");
    LLVMPositionBuilderAtEnd(e->b, e->entry);
    LLVMValueRef workspace = LLVMGetParam(f, 2);
    LLVMValueRef frame =
        mpqc_b_var(e, LLVMArrayType2(e->ptr, 1 + g->n_inputs + g->n_outputs), "frame");

    return_if(e, is_null(e, workspace), MPQC_RUN_NULL_POINTER);
    mpqc_b_store(e, workspace, frame, 8);
    take_pointers(e, LLVMGetParam(f, 0), g->n_inputs, frame, 1);
    take_pointers(e, LLVMGetParam(f, 1), g->n_outputs, frame, 1 + g->n_inputs);
    LLVMValueRef low = LLVMBuildAnd(e->b, LLVMBuildPtrToInt(e->b, workspace, e->i64, ""),
                                    mpqc_b_i64(e, MPQC_ARENA_ALIGN - 1), "");
    return_if(e, LLVMBuildICmp(e->b, LLVMIntNE, low, mpqc_b_i64(e, 0), ""),
              MPQC_RUN_MISALIGNED_WORKSPACE);
    struct lent l = take_exec(e, LLVMGetParam(f, 3));

    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, mpqc_b_i64(e, 0), mpqc_b_i64(e, n), 1, "layer");
    call_hook(e, l.begin, l.profile, loop.iv);
    call_kernel(e, rows, loop.iv, &l, frame);
    call_hook(e, l.end, l.profile, loop.iv);
    mpqc_b_loop_end(e, &loop);
    LLVMBuildRet(e->b, mpqc_b_i32(e, MPQC_RUN_OK));
    *out = f;
    return mpqc_function_check(e, f);
}
