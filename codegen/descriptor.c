/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The exported descriptor: struct mpqc_model as an LLVM constant.  The structs below
 * follow runtime/mpqc_model.h field by field; all targets are LP64, so natural
 * alignment gives the C layout.
 */
#include "codegen/linear.h"
#include "codegen/module.h"

#include <string.h>

_Static_assert(sizeof(struct mpqc_preprocess) == 44, "ABI");
_Static_assert(sizeof(struct mpqc_io) == 104, "ABI");
_Static_assert(sizeof(struct mpqc_layer) == 48, "ABI");
_Static_assert(sizeof(struct mpqc_model) == 104, "ABI");
_Static_assert(sizeof(struct mpqc_exec) == 48, "ABI");

static LLVMValueRef u32(struct mpqc_emit_cx *e, uint32_t v)
{
    return LLVMConstInt(e->i32, v, 0);
}

static LLVMValueRef u64(struct mpqc_emit_cx *e, uint64_t v)
{
    return LLVMConstInt(e->i64, v, 0);
}

static LLVMValueRef real(struct mpqc_emit_cx *e, float v)
{
    return LLVMConstReal(e->f32, (double)v);
}

enum mpqc_element mpqc_element_of(enum mpqc_dtype t)
{
    switch (t) {
    case MPQC_DT_F32: return MPQC_ELEM_F32;
    case MPQC_DT_U8: case MPQC_DT_U4: case MPQC_DT_U3: case MPQC_DT_U2: case MPQC_DT_U1:
    case MPQC_DT_BOOL: return MPQC_ELEM_U8;
    case MPQC_DT_I8: case MPQC_DT_I6: case MPQC_DT_I5: case MPQC_DT_I4: case MPQC_DT_I3:
    case MPQC_DT_I2: case MPQC_DT_I1:
        return MPQC_ELEM_I8;
    case MPQC_DT_I16: return MPQC_ELEM_I16;
    case MPQC_DT_I32: return MPQC_ELEM_I32;
    case MPQC_DT_I64: return MPQC_ELEM_I64;
    default: return (enum mpqc_element)0;
    }
}

uint64_t mpqc_workspace_bytes(const struct mpqc_plan *p)
{
    uint64_t n = p->arena_bytes ? p->arena_bytes : 1; /* run() refuses a NULL workspace */
    return (n + MPQC_ARENA_ALIGN - 1) / MPQC_ARENA_ALIGN * MPQC_ARENA_ALIGN;
}

/* ---- layers --------------------------------------------------------------------------- */

static void add_word(struct mpqc_buf *b, const char *word)
{
    if (b->len) mpqc_buf_puts(b, "+");
    for (; *word; word++) {
        char c = *word >= 'A' && *word <= 'Z' ? (char)(*word - 'A' + 'a') : *word;
        mpqc_buf_add(b, &c, 1);
    }
}

/* What the clamp of `narrow` is called.  Pools and products of numbers that are not
 * negative have their zero point at the bottom as well; that is no relu. */
static const char *clamp_word(struct mpqc_emit_cx *e, const struct mpqc_node *n, bool sums)
{
    const struct mpqc_dtype_info *d = &mpqc_dtypes[mpqc_value_at(e->graph, n->out[0])->type.dtype];
    int64_t lo = mpqc_attr_int_or(n, MPQC_ATTR_LO, d->min);
    if (mpqc_attr_int_or(n, MPQC_ATTR_HI, d->max) < d->max) return "clip";
    return sums && lo == mpqc_attr_int_or(n, MPQC_ATTR_ZERO, 0) ? "relu" : NULL;
}

/* "conv+add+relu": arithmetic that only rescales is not worth a word. */
static char *fused_text(struct mpqc_emit_cx *e, const struct mpqc_kernel *k)
{
    struct mpqc_buf b;
    bool sums = false; /* signed sums so far */
    mpqc_buf_init(&b);
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(e->graph, k->nodes[i]);
        const char *word = mpqc_ops[n->op].text;
        if (n->op == MPQC_OP_REQUANT || n->op == MPQC_OP_RESCALE) word = NULL;
        if (n->op == MPQC_OP_NARROW) word = clamp_word(e, n, sums);
        if (n->op == MPQC_OP_LUT && n->loc.op) word = n->loc.op;
        if (word) add_word(&b, word);
        sums = sums || (mpqc_ops[n->op].traits & MPQC_T_LINEAR) || n->op == MPQC_OP_ADD;
    }
    if (b.len == 0) mpqc_buf_puts(&b, "rescale");
    char *s = b.data ? mpqc_arena_strdup(&e->scratch, b.data) : NULL;
    mpqc_buf_release(&b);
    return s;
}

/* Does another node of the kernel make this value? */
static bool inside(const struct mpqc_graph *g, const struct mpqc_kernel *k, mpqc_vid v)
{
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (mpqc_value_at(g, v)->def == k->nodes[i]) return true;
    return false;
}

/* Weights of few bits are packed where that pays. */
static uint64_t stored_bytes(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                             const struct mpqc_node *n, mpqc_vid v)
{
    const struct mpqc_type *t = &mpqc_value_at(e->graph, v)->type;
    unsigned bits = 8 * mpqc_dtypes[t->dtype].bytes;
    struct mpqc_linear l;
    bool weights = (mpqc_ops[n->op].traits & MPQC_T_LINEAR) && v == n->in[1];
    if (weights && mpqc_linear_read(e, k, &l) == MPQC_OK) bits = l.bits;
    uint64_t factors = weights && t->quant && bits < 8
                           ? (uint64_t)mpqc_groups_count(t) * t->quant->count : 0;
    return ((uint64_t)mpqc_type_count(t) * bits + 7) / 8 + factors;
}

uint64_t mpqc_kernel_macs(const struct mpqc_graph *g, const struct mpqc_kernel *k)
{
    uint64_t macs = 0;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, k->nodes[i]);
        macs += mpqc_ops[n->op].macs(g, n);
    }
    return macs;
}

LLVMValueRef mpqc_layer_constant(struct mpqc_emit_cx *e, const struct mpqc_kernel *k)
{
    const struct mpqc_graph *g = e->graph;
    const struct mpqc_node *core = mpqc_node_at(g, k->core);
    uint64_t weights = 0, activations = 0;
    uint32_t weight_bits = 0;
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, k->nodes[i]);
        for (uint32_t j = 0; j < n->n_in; j++) {
            if (n->in[j] == MPQC_NONE || inside(g, k, n->in[j])) continue;
            const struct mpqc_value *v = mpqc_value_at(g, n->in[j]);
            if (mpqc_is_const(g, n->in[j])) weights += stored_bytes(e, k, n, n->in[j]);
            else activations += mpqc_type_bytes(&v->type);
        }
    }
    if (core->n_in > 1 && mpqc_is_const(g, core->in[1]) &&
        (mpqc_ops[core->op].traits & MPQC_T_LINEAR))
        weight_bits = mpqc_weight_bits(&mpqc_value_at(g, core->in[1])->type);
    const struct mpqc_type *out = &mpqc_value_at(g, k->out)->type;
    activations += mpqc_type_bytes(out);

    char *op = fused_text(e, k);
    LLVMValueRef field[] = {
        mpqc_global_string(e, core->loc.node ? core->loc.node : mpqc_ops[core->op].text),
        mpqc_global_string(e, op ? op : "?"),
        u32(e, weight_bits),
        u32(e, mpqc_dtypes[out->dtype].bits),
        u64(e, mpqc_kernel_macs(g, k)),
        u64(e, weights),
        u64(e, activations),
    };
    return LLVMConstStructInContext(e->llvm, field, MPQC_LEN(field), 0);
}

/* ---- inputs and outputs ------------------------------------------------------------------ */

static LLVMValueRef preprocess(struct mpqc_emit_cx *e, const struct mpqc_preprocess *p)
{
    if (!p || p->channels == 0) return LLVMConstNull(e->ptr);
    LLVMValueRef mean[4], std[4];
    for (unsigned i = 0; i < 4; i++) {
        mean[i] = real(e, p->mean[i]);
        std[i] = real(e, p->std[i]);
    }
    LLVMValueRef field[] = {real(e, p->scale), u32(e, p->channels),
                            LLVMConstArray2(e->f32, mean, 4), LLVMConstArray2(e->f32, std, 4),
                            u32(e, p->nhwc)};
    return mpqc_global_constant(
        e, "preprocess", LLVMConstStructInContext(e->llvm, field, MPQC_LEN(field), 0));
}

static mpqc_status io(struct mpqc_emit_cx *e, mpqc_vid v, const char *kind, uint32_t index,
                      const struct mpqc_preprocess *pre, LLVMValueRef *out)
{
    const struct mpqc_value *value = mpqc_value_at(e->graph, v);
    const struct mpqc_type *t = &value->type;
    struct mpqc_where where = {.tensor = value->name, .offset = -1};
    enum mpqc_element element = mpqc_element_of(t->dtype);
    if (element == 0)
        return MPQC_FAIL(e->cx, UNSUPPORTED, where,
                         "%s %u has element type %s, which a compiled model cannot exchange", kind,
                         index, mpqc_dtypes[t->dtype].text);
    char *made = value->name ? NULL : mpqc_arena_printf(&e->scratch, "%s%u", kind, index);
    LLVMValueRef dims[MPQC_ABI_MAX_RANK];
    for (uint32_t i = 0; i < MPQC_ABI_MAX_RANK; i++)
        dims[i] = u64(e, i < t->rank ? (uint64_t)t->dims[i] : 0);
    bool plain = t->dtype == MPQC_DT_F32 || !t->quant;
    LLVMValueRef field[] = {
        mpqc_global_string(e, value->name ? value->name : made ? made : kind),
        u32(e, element),
        u32(e, t->rank),
        LLVMConstArray2(e->i64, dims, MPQC_ABI_MAX_RANK),
        u64(e, mpqc_type_bytes(t)),
        real(e, plain ? 1.0f : t->quant->scale[0]),
        u32(e, plain ? 0 : (uint32_t)t->quant->zero[0]),
        preprocess(e, pre),
    };
    *out = LLVMConstStructInContext(e->llvm, field, MPQC_LEN(field), 0);
    return MPQC_OK;
}

/* A constant array of structs; NULL pointer when empty. */
static LLVMValueRef array(struct mpqc_emit_cx *e, const char *name, LLVMValueRef *item, uint32_t n)
{
    if (n == 0) return LLVMConstNull(e->ptr);
    return mpqc_global_constant(e, name, LLVMConstArray2(LLVMTypeOf(item[0]), item, n));
}

static mpqc_status ios(struct mpqc_emit_cx *e, const mpqc_vid *v, uint32_t n, const char *kind,
                       const struct mpqc_preprocess *pre, LLVMValueRef *out)
{
    LLVMValueRef *item = MPQC_NEW_ARRAY(&e->scratch, LLVMValueRef, n);
    if (!item) return MPQC_OOM(e->cx);
    for (uint32_t i = 0; i < n; i++)
        MPQC_TRY(io(e, v[i], kind, i, pre ? &pre[i] : NULL, &item[i]));
    *out = array(e, kind, item, n);
    return MPQC_OK;
}

mpqc_status mpqc_emit_descriptor(struct mpqc_emit_cx *e, const struct mpqc_codegen_request *rq,
                                 const struct mpqc_compiled_kernel *k, LLVMValueRef supported,
                                 LLVMValueRef run)
{
    const struct mpqc_graph *g = e->graph;
    uint32_t n = e->plan->n_kernels;
    char symbol[256];
    LLVMValueRef inputs, outputs;
    MPQC_TRY(mpqc_model_symbol(e->cx, rq->tag, symbol, sizeof symbol));
    MPQC_TRY(ios(e, g->inputs, g->n_inputs, "input", rq->preprocess, &inputs));
    MPQC_TRY(ios(e, g->outputs, g->n_outputs, "output", NULL, &outputs));
    LLVMValueRef *layer = MPQC_NEW_ARRAY(&e->scratch, LLVMValueRef, n);
    if (!layer) return MPQC_OOM(e->cx);
    for (uint32_t i = 0; i < n; i++) layer[i] = k[i].layer;

    LLVMValueRef field[] = {
        u32(e, MPQC_ABI_VERSION),
        u32(e, sizeof(struct mpqc_model)),
        mpqc_global_string(e, g->name ? g->name : "model"),
        mpqc_global_string(e, e->target->name),
        mpqc_global_string(e, "mpqc " MPQC_VERSION),
        u32(e, g->n_inputs),
        u32(e, g->n_outputs),
        inputs,
        outputs,
        u64(e, mpqc_workspace_bytes(e->plan)),
        u64(e, MPQC_ARENA_ALIGN),
        u32(e, n),
        u32(e, 0),
        array(e, "layers", layer, n),
        supported,
        run,
    };
    LLVMValueRef init = LLVMConstStructInContext(e->llvm, field, MPQC_LEN(field), 0);
    LLVMValueRef model = LLVMAddGlobal(e->module, LLVMTypeOf(init), symbol);
    LLVMSetInitializer(model, init);
    LLVMSetGlobalConstant(model, 1);
    LLVMSetAlignment(model, 16);
    return MPQC_OK;
}
