/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Core operator -> emitter, and the cache of bodies.
 */
#include "codegen/kernels.h"

#include "codegen/module.h"

#include <string.h>

static const struct {
    enum mpqc_kernel_form form;
    enum mpqc_op op;
    mpqc_emit_fn emit;
} emitters[] = {
#define KERNEL(form, op, fn) {MPQC_KERNEL_##form, MPQC_OP_##op, fn},
#include "codegen/kernels.def"
#undef KERNEL
};

mpqc_status mpqc_emit_kernel(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                             struct mpqc_kernel_code *out)
{
    const struct mpqc_node *core = mpqc_node_at(e->graph, k->core);
    memset(out, 0, sizeof *out);
    if (k->form == MPQC_KERNEL_POINTWISE) return mpqc_emit_pointwise(e, k, out);
    for (size_t i = 0; i < MPQC_LEN(emitters); i++)
        if (emitters[i].form == k->form && emitters[i].op == core->op)
            return emitters[i].emit(e, k, out);
    return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(core),
                     "there is no code generator for '%s' here; try mpqc -check to see what can be "
                     "compiled",
                     mpqc_ops[core->op].text);
}

struct mpqc_where mpqc_node_where(const struct mpqc_node *n)
{
    return (struct mpqc_where){.node = n->loc.node, .op = n->loc.op, .offset = -1};
}

/* ---- bodies ------------------------------------------------------------------------ */

struct mpqc_body {
    char *key;
    LLVMValueRef function;
    struct mpqc_body *next;
};

LLVMValueRef mpqc_body_find(struct mpqc_emit_cx *e, const char *key)
{
    for (const struct mpqc_body *b = e->bodies; b; b = b->next)
        if (strcmp(b->key, key) == 0) return b->function;
    return NULL;
}

LLVMAttributeRef mpqc_attribute(struct mpqc_emit_cx *e, const char *name)
{
    unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
    MPQC_ASSERT(kind != 0);
    return LLVMCreateEnumAttribute(e->llvm, kind, 0);
}

static void text_attribute(struct mpqc_emit_cx *e, LLVMValueRef f, const char *k, const char *v)
{
    LLVMAttributeRef a = LLVMCreateStringAttribute(e->llvm, k, (unsigned)strlen(k), v,
                                                   (unsigned)strlen(v));
    LLVMAddAttributeAtIndex(f, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, a);
}

/* No builtins: there is no libc to call.  The vector width keeps LLVM from
 * splitting what templates have chosen. */
LLVMValueRef mpqc_function(struct mpqc_emit_cx *e, const char *name, LLVMTypeRef type)
{
    LLVMValueRef f = LLVMAddFunction(e->module, name, type);
    char width[16];
    snprintf(width, sizeof width, "%u", e->target->vector_bytes * 8);
    LLVMSetLinkage(f, LLVMInternalLinkage);
    LLVMAddAttributeAtIndex(f, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                            mpqc_attribute(e, "nounwind"));
    text_attribute(e, f, "no-builtins", "");
    text_attribute(e, f, "prefer-vector-width", width);
    text_attribute(e, f, "min-legal-vector-width", width);
    text_attribute(e, f, "tune-cpu", e->tune);
    return f;
}

LLVMValueRef mpqc_body_begin(struct mpqc_emit_cx *e, const char *key, uint32_t n_operands)
{
    LLVMTypeRef param[MPQC_MAX_OPERANDS + 2];
    MPQC_ASSERT(n_operands <= MPQC_MAX_OPERANDS);
    for (uint32_t i = 0; i < n_operands; i++) param[i] = e->ptr;
    param[n_operands] = param[n_operands + 1] = e->i64;
    LLVMTypeRef type = LLVMFunctionType(e->void_, param, n_operands + 2, 0);
    struct mpqc_body *b = MPQC_NEW(&e->scratch, struct mpqc_body);
    char *name = mpqc_arena_printf(&e->scratch, "%s.body", e->kernel_name);
    char *copy = mpqc_arena_strdup(&e->scratch, key);
    LLVMValueRef f = mpqc_function(e, name ? name : "body", type);
    for (uint32_t i = 0; i < n_operands; i++) {
        LLVMAddAttributeAtIndex(f, i + 1, mpqc_attribute(e, "noalias"));
        LLVMAddAttributeAtIndex(f, i + 1, mpqc_attribute(e, "nocapture"));
    }
    if (b && copy) { /* else the arena remembers that memory ran out */
        *b = (struct mpqc_body){.key = copy, .function = f, .next = e->bodies};
        e->bodies = b;
    }
    e->function = f;
    e->entry = LLVMAppendBasicBlockInContext(e->llvm, f, "entry");
    LLVMPositionBuilderAtEnd(e->b, e->entry);
    return f;
}

mpqc_status mpqc_body_open(struct mpqc_emit_cx *e, struct mpqc_buf *key,
                           struct mpqc_kernel_code *out, bool *fresh)
{
    bool failed = key->failed;
    *fresh = false;
    out->body = failed ? NULL : mpqc_body_find(e, key->data);
    if (!failed && !out->body) {
        out->body = mpqc_body_begin(e, key->data, out->n_operands);
        *fresh = true;
    }
    mpqc_buf_release(key);
    return failed ? MPQC_OOM(e->cx) : MPQC_OK;
}

mpqc_status mpqc_body_end(struct mpqc_emit_cx *e)
{
    LLVMBuildRetVoid(e->b);
    if (e->scratch.failed) return MPQC_OOM(e->cx);
    return mpqc_function_check(e, e->function);
}

mpqc_status mpqc_function_check(struct mpqc_emit_cx *e, LLVMValueRef f)
{
    if (!e->verify || !LLVMVerifyFunction(f, LLVMPrintMessageAction)) return MPQC_OK;
    return MPQC_FAIL(e->cx, BUG, MPQC_NOWHERE, "LLVM rejects the code generated for '%s'",
                     LLVMGetValueName2(f, &(size_t){0}));
}
