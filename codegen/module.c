/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A planned graph -> one LLVM module -> bytes of the kind asked for.
 */
#include "codegen/module.h"
#include "codegen/target.h"

#include <llvm-c/Error.h>
#include <string.h>

/* What LLVM may do to kernels.  Templates have already chosen tiles, unrolling and
 * vectors, so this is clean-up only: variables to registers, common address
 * arithmetic, hoisting.  No vectoriser, unroller or idiom recognition: the last
 * would put calls of memcpy and memset into a library that may not have any. */
static const char pipeline[] =
    "function(sroa,early-cse<memssa>,simplifycfg,instcombine<no-verify-fixpoint>,"
    "loop-mssa(licm<allowspeculation>),gvn,instcombine<no-verify-fixpoint>,simplifycfg,"
    "early-cse<memssa>,adce),globaldce";

struct module_builder {
    struct mpqc_emit_cx e;
    LLVMTargetMachineRef machine;
};

static mpqc_status make_machine(struct mpqc_cx *cx, const struct mpqc_target *t,
                                LLVMTargetMachineRef *out)
{
    LLVMTargetRef target;
    char *error = NULL;
    if (t->arch == MPQC_ARCH_X86_64) {
        LLVMInitializeX86TargetInfo();
        LLVMInitializeX86Target();
        LLVMInitializeX86TargetMC();
        LLVMInitializeX86AsmPrinter();
        LLVMInitializeX86AsmParser();
    } else {
        LLVMInitializeAArch64TargetInfo();
        LLVMInitializeAArch64Target();
        LLVMInitializeAArch64TargetMC();
        LLVMInitializeAArch64AsmPrinter();
        LLVMInitializeAArch64AsmParser();
    }
    if (LLVMGetTargetFromTriple(t->triple, &target, &error)) {
        mpqc_status s = MPQC_FAIL(cx, TARGET, MPQC_NOWHERE,
                                  "this LLVM cannot compile for %s: %s", t->triple, error);
        LLVMDisposeMessage(error);
        return s;
    }
    *out = LLVMCreateTargetMachine(target, t->triple, t->cpu, t->features,
                                   LLVMCodeGenLevelDefault, LLVMRelocPIC, LLVMCodeModelDefault);
    return *out ? MPQC_OK : MPQC_FAIL(cx, TARGET, MPQC_NOWHERE, "LLVM has no code generator for %s", t->name);
}

static size_t constant_bytes(const struct mpqc_graph *g)
{
    size_t bytes = 0;
    for (uint32_t v = 0; v < g->n_values; v++)
        if (mpqc_is_const(g, v)) bytes += mpqc_type_bytes(&g->values[v].type);
    return bytes;
}

static mpqc_status builder_init(struct module_builder *m, struct mpqc_cx *cx,
                                const struct mpqc_codegen_request *rq)
{
    struct mpqc_emit_cx *e = &m->e;
    const struct mpqc_target_row *row = mpqc_target_row(rq->target);
    if (!row) return MPQC_FAIL(cx, BUG, MPQC_NOWHERE, "target '%s' has no row", rq->target->name);
    MPQC_TRY(make_machine(cx, rq->target, &m->machine));
    e->cx = cx;
    e->graph = rq->graph;
    e->plan = rq->plan;
    e->target = rq->target;
    e->tune = row->tune;
    e->tiles = rq->tiles;
    e->constant_bytes = constant_bytes(rq->graph);
    e->verify = rq->verify_llvm;
    e->llvm = LLVMContextCreate();
    e->module = LLVMModuleCreateWithNameInContext(
        rq->graph->name ? rq->graph->name : "model", e->llvm);
    e->b = LLVMCreateBuilderInContext(e->llvm);
    e->i1 = LLVMInt1TypeInContext(e->llvm);
    e->i8 = LLVMInt8TypeInContext(e->llvm);
    e->i16 = LLVMInt16TypeInContext(e->llvm);
    e->i32 = LLVMInt32TypeInContext(e->llvm);
    e->i64 = LLVMInt64TypeInContext(e->llvm);
    e->f32 = LLVMFloatTypeInContext(e->llvm);
    e->ptr = LLVMPointerTypeInContext(e->llvm, 0);
    e->void_ = LLVMVoidTypeInContext(e->llvm);
    LLVMSetTarget(e->module, rq->target->triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(m->machine);
    LLVMSetModuleDataLayout(e->module, layout);
    LLVMDisposeTargetData(layout);
    LLVMAddModuleFlag(e->module, LLVMModuleFlagBehaviorOverride, "PIC Level", 9,
                      LLVMValueAsMetadata(LLVMConstInt(e->i32, 2, 0)));
    return MPQC_OK;
}

static void builder_release(struct module_builder *m)
{
    if (m->e.b) LLVMDisposeBuilder(m->e.b);
    if (m->e.module) LLVMDisposeModule(m->e.module);
    if (m->e.llvm) LLVMContextDispose(m->e.llvm);
    if (m->machine) LLVMDisposeTargetMachine(m->machine);
    mpqc_arena_release(&m->e.scratch);
}

/* The kernel's symbol: its node's name, with anything that debuggers or assemblers
 * would trip over replaced.  LLVM numbers equal names. */
static char *kernel_symbol(struct mpqc_emit_cx *e, const struct mpqc_kernel *k)
{
    const struct mpqc_node *n = mpqc_node_at(e->graph, k->core);
    const char *from = n->loc.node && *n->loc.node ? n->loc.node : mpqc_ops[n->op].text;
    while (*from == '/' || *from == '.') from++;
    bool reserved = strncmp(from, "llvm.", 5) == 0 || strncmp(from, "mpqc_", 5) == 0 ||
                    strcmp(from, "run") == 0 || strcmp(from, "supported") == 0 ||
                    (*from >= '0' && *from <= '9') || !*from;
    char *s = mpqc_arena_printf(&e->scratch, "%s%.100s", reserved ? "k_" : "", from);
    for (char *p = s; p && *p; p++) {
        bool good = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                    (*p >= '0' && *p <= '9') || *p == '.' || *p == '_';
        if (!good) *p = '_';
    }
    return s;
}

static mpqc_status emit_kernels(struct mpqc_emit_cx *e, struct mpqc_compiled_kernel *out)
{
    uint32_t n = e->plan->n_kernels;
    e->share_small = mpqc_share_small(e);
    for (uint32_t i = 0; i < n; i++) {
        const struct mpqc_kernel *k = &e->plan->kernels[i];
        struct mpqc_kernel_code code;
        mpqc_cx_progress(e->cx, "code", i, n);
        e->kernel = i;
        e->kernel_name = kernel_symbol(e, k);
        if (!e->kernel_name) return MPQC_OOM(e->cx);
        MPQC_TRY(mpqc_emit_kernel(e, k, &code));
        MPQC_TRY(mpqc_emit_wrapper(e, k, &code, &out[i]));
        out[i].layer = mpqc_layer_constant(e, k);
    }
    return e->scratch.failed ? MPQC_OOM(e->cx) : MPQC_OK;
}

static mpqc_status optimise(struct module_builder *m)
{
    LLVMPassBuilderOptionsRef o = LLVMCreatePassBuilderOptions();
    LLVMPassBuilderOptionsSetVerifyEach(o, m->e.verify);
    LLVMErrorRef error = LLVMRunPasses(m->e.module, pipeline, m->machine, o);
    LLVMDisposePassBuilderOptions(o);
    if (!error) return MPQC_OK;
    char *text = LLVMGetErrorMessage(error);
    mpqc_status s = MPQC_FAIL(m->e.cx, BUG, MPQC_NOWHERE, "LLVM's passes failed: %s", text);
    LLVMDisposeErrorMessage(text);
    return s;
}

static mpqc_status build_module(struct module_builder *m, const struct mpqc_codegen_request *rq)
{
    struct mpqc_emit_cx *e = &m->e;
    LLVMValueRef run = NULL, supported = NULL;
    struct mpqc_compiled_kernel *k =
        MPQC_NEW_ARRAY(&e->scratch, struct mpqc_compiled_kernel, rq->plan->n_kernels);
    if (!k) return MPQC_OOM(e->cx);
    MPQC_TRY(emit_kernels(e, k));
    MPQC_TRY(mpqc_emit_run(e, k, rq->plan->n_kernels, &run));
    MPQC_TRY(mpqc_emit_supported(e, &supported));
    MPQC_TRY(mpqc_emit_descriptor(e, rq, k, supported, run));
    if (e->scratch.failed) return MPQC_OOM(e->cx);
    return optimise(m);
}

/* ---- output ----------------------------------------------------------------------------- */

static mpqc_status generate(struct module_builder *m, LLVMCodeGenFileType type,
                            LLVMMemoryBufferRef *out)
{
    char *error = NULL;
    mpqc_cx_progress(m->e.cx, "machine code", 0, 1);
    if (!LLVMTargetMachineEmitToMemoryBuffer(m->machine, m->e.module, type, &error, out))
        return MPQC_OK;
    mpqc_status s =
        MPQC_FAIL(m->e.cx, BUG, MPQC_NOWHERE, "LLVM cannot emit code: %s", error ? error : "?");
    LLVMDisposeMessage(error);
    return s;
}

static mpqc_status finish_object(struct mpqc_cx *cx, const struct mpqc_codegen_request *rq,
                                 void *data, size_t n, struct mpqc_codegen_facts *facts)
{
    char symbol[256];
    mpqc_object_integer_moves(rq->target, data);
    MPQC_TRY(mpqc_object_check(cx, data, n, &facts->code_bytes));
    facts->file_bytes = n;
    switch (rq->emit) {
    case MPQC_EMIT_SO: return mpqc_link_shared(cx, rq->path, data, n, &facts->file_bytes);
    case MPQC_EMIT_ARCHIVE:
        MPQC_TRY(mpqc_model_symbol(cx, rq->tag, symbol, sizeof symbol));
        return mpqc_link_archive(cx, rq->path, symbol, data, n, &facts->file_bytes);
    default: return mpqc_file_write(cx, rq->path, 0666, data, n);
    }
}

static mpqc_status write_object(struct mpqc_cx *cx, const struct mpqc_codegen_request *rq,
                                LLVMMemoryBufferRef object, struct mpqc_codegen_facts *facts)
{
    size_t n = LLVMGetBufferSize(object);
    void *data = malloc(n); /* LLVM's own bytes are read-only */
    if (!data) return MPQC_OOM(cx);
    memcpy(data, LLVMGetBufferStart(object), n);
    mpqc_status s = finish_object(cx, rq, data, n, facts);
    free(data);
    return s;
}

static mpqc_status write_ir(struct module_builder *m, const struct mpqc_codegen_request *rq,
                            struct mpqc_codegen_facts *facts)
{
    char *text = LLVMPrintModuleToString(m->e.module);
    facts->file_bytes = strlen(text);
    mpqc_status s = mpqc_file_write(m->e.cx, rq->path, 0666, text, strlen(text));
    LLVMDisposeMessage(text);
    return s;
}

static mpqc_status write_code(struct module_builder *m, const struct mpqc_codegen_request *rq,
                              struct mpqc_codegen_facts *facts)
{
    LLVMMemoryBufferRef buffer = NULL;
    if (rq->emit == MPQC_EMIT_LLVM) return write_ir(m, rq, facts);
    bool text = rq->emit == MPQC_EMIT_ASM;
    MPQC_TRY(generate(m, text ? LLVMAssemblyFile : LLVMObjectFile, &buffer));
    facts->file_bytes = LLVMGetBufferSize(buffer);
    mpqc_status s = text ? mpqc_file_write(m->e.cx, rq->path, 0666, LLVMGetBufferStart(buffer),
                                           LLVMGetBufferSize(buffer))
                         : write_object(m->e.cx, rq, buffer, facts);
    LLVMDisposeMemoryBuffer(buffer);
    return s;
}

static mpqc_status emit_header(struct mpqc_cx *cx, const struct mpqc_codegen_request *rq,
                               struct mpqc_codegen_facts *facts)
{
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    mpqc_status s = mpqc_write_header(cx, rq, &b);
    if (s == MPQC_OK) s = mpqc_file_write(cx, rq->path, 0666, b.data, b.len);
    facts->file_bytes = b.len;
    mpqc_buf_release(&b);
    return s;
}

mpqc_status mpqc_codegen_emit(struct mpqc_cx *cx, const struct mpqc_codegen_request *rq,
                              struct mpqc_codegen_facts *facts)
{
    struct mpqc_codegen_facts none;
    struct module_builder m;
    if (!facts) facts = &none;
    memset(facts, 0, sizeof *facts);
    memset(&m, 0, sizeof m);
    if (rq->emit == MPQC_EMIT_HEADER) return emit_header(cx, rq, facts);
    mpqc_arena_init(&m.e.scratch, cx->allocator);
    mpqc_status s = builder_init(&m, cx, rq);
    if (s == MPQC_OK) s = build_module(&m, rq);
    facts->weight_bytes = m.e.weight_bytes;
    if (s == MPQC_OK) s = write_code(&m, rq, facts);
    builder_release(&m);
    return s;
}
