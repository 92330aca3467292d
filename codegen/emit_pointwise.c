/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Element-wise kernels: POINTWISE (rescale, add, narrow, lut in one pass), a lookup
 * table alone, and minimum or maximum of two tensors.
 *
 * A kernel is its list of nodes, evaluated in order on vectors of one register of
 * 16-bit numbers; values between nodes stay in registers.
 */
#include "codegen/kernels.h"
#include "codegen/nest.h"

#include <string.h>

enum { MAX_NODES = 8 };

struct chain {
    uint32_t n_nodes;
    const struct mpqc_node *node[MAX_NODES];
    LLVMValueRef result[MAX_NODES];
    /* operand 0 is the output, then inputs from outside, then the table */
    uint32_t n_in;
    mpqc_vid in[MPQC_NEST_OPERANDS];
    LLVMValueRef table; /* parameter, or NULL */
    struct mpqc_nest nest;
    mpqc_vid out;
};

static const struct mpqc_type *type_of(const struct mpqc_emit_cx *e, mpqc_vid v)
{
    return &mpqc_value_at(e->graph, v)->type;
}

static bool is_signed(enum mpqc_dtype t)
{
    return mpqc_dtypes[t].kind == MPQC_KIND_SINT;
}

/* ---- arithmetic on <n x i16>, each as in ir/dyadic.h ---------------------------------- */

static LLVMValueRef binary(struct mpqc_emit_cx *e, const char *name, LLVMValueRef a,
                           LLVMValueRef b)
{
    LLVMTypeRef t = LLVMTypeOf(a);
    LLVMValueRef args[] = {a, b};
    return mpqc_b_intrinsic(e, name, &t, 1, args, 2);
}

/* mpqc_rescale: |q - zero| <= 255, so the shift by 7 stays in 16 bits; mpqc_mulhrs of an
 * i16. */
static LLVMValueRef rescale(struct mpqc_emit_cx *e, const struct mpqc_node *n, LLVMValueRef q)
{
    const struct mpqc_type *in = type_of(e, n->in[0]);
    LLVMTypeRef t = mpqc_b_vec(e->i16, LLVMGetVectorSize(LLVMTypeOf(q)));
    int64_t mult = mpqc_attr_int(n, MPQC_ATTR_MULT);
    if (in->dtype == MPQC_DT_I16) return e->target->isa->mulhrs(e, q, mpqc_b_splat(e, t, mult));
    LLVMValueRef d = is_signed(in->dtype) ? LLVMBuildSExt(e->b, q, t, "")
                                          : LLVMBuildZExt(e->b, q, t, "");
    d = LLVMBuildSub(e->b, d, mpqc_b_splat(e, t, in->quant->zero[0]), "");
    d = LLVMBuildShl(e->b, d, mpqc_b_splat(e, t, 7), "");
    return e->target->isa->mulhrs(e, d, mpqc_b_splat(e, t, mult));
}

/* mpqc_narrow: dropping f bits with rounding is a rounding high multiply by 2^(15-f);
 * adding the zero point may saturate, since the clamp that follows is narrower. */
static LLVMValueRef narrow(struct mpqc_emit_cx *e, const struct mpqc_node *n, LLVMValueRef x)
{
    LLVMTypeRef t = LLVMTypeOf(x);
    const struct mpqc_type *out = type_of(e, n->out[0]);
    const struct mpqc_dtype_info *info = &mpqc_dtypes[out->dtype];
    int64_t frac = mpqc_attr_int_or(n, MPQC_ATTR_FRAC, 0);
    int64_t lo = mpqc_attr_int_or(n, MPQC_ATTR_LO, info->min);
    int64_t hi = mpqc_attr_int_or(n, MPQC_ATTR_HI, info->max);
    if (frac > 0) x = e->target->isa->mulhrs(e, x, mpqc_b_splat(e, t, 1 << (15 - frac)));
    if (out->quant->zero[0])
        x = binary(e, "llvm.sadd.sat", x, mpqc_b_splat(e, t, out->quant->zero[0]));
    x = binary(e, "llvm.smax", x, mpqc_b_splat(e, t, lo));
    x = binary(e, "llvm.smin", x, mpqc_b_splat(e, t, hi < 32767 ? hi : 32767));
    if (info->bytes == 2) return x;
    return LLVMBuildTrunc(e->b, x, mpqc_b_vec(e->i8, LLVMGetVectorSize(t)), "");
}

/* ---- tables --------------------------------------------------------------------------- */

/* Element by element: indices are taken out of 64-bit registers. */
static LLVMValueRef lookup_scalar(struct mpqc_emit_cx *e, LLVMValueRef table, LLVMTypeRef element,
                                  unsigned bytes, LLVMValueRef index)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(index));
    LLVMValueRef r = LLVMGetPoison(mpqc_b_vec(element, n));
    LLVMValueRef words = n % 8 == 0 ? mpqc_b_as(e, index, e->i64, n / 8) : NULL;
    MPQC_ASSERT(words);
    for (unsigned i = 0; i < n; i++) {
        LLVMValueRef w = LLVMBuildExtractElement(e->b, words, mpqc_b_i64(e, i / 8), "");
        w = LLVMBuildLShr(e->b, w, mpqc_b_i64(e, i % 8 * 8), "");
        w = LLVMBuildAnd(e->b, w, mpqc_b_i64(e, 255), "");
        LLVMValueRef at = mpqc_b_madd(e, w, bytes, mpqc_b_i64(e, 0));
        LLVMValueRef v = mpqc_b_load(e, element, mpqc_b_gep(e, table, at), bytes);
        r = LLVMBuildInsertElement(e->b, r, v, mpqc_b_i64(e, i), "");
    }
    return r;
}

static LLVMValueRef lookup(struct mpqc_emit_cx *e, LLVMValueRef table, enum mpqc_dtype to,
                           LLVMValueRef index)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(index)), bytes = mpqc_dtypes[to].bytes;
    if (!e->target->isa->lookup || bytes != 1)
        return lookup_scalar(e, table, mpqc_element_type(e, to), bytes, index);
    if (n >= 16) return e->target->isa->lookup(e, table, index);
    LLVMValueRef wide = mpqc_b_join(e, index, index);
    return mpqc_b_part(e, e->target->isa->lookup(e, table, wide), 0, n);
}

/* ---- evaluation ----------------------------------------------------------------------- */

struct step {
    struct chain *c;
    LLVMValueRef const *p;
    LLVMValueRef index;
    unsigned lanes, valid;
};

static LLVMValueRef operand(struct mpqc_emit_cx *e, const struct step *s, mpqc_vid v)
{
    const struct chain *c = s->c;
    for (uint32_t i = 0; i < c->n_nodes; i++)
        if (c->node[i]->out[0] == v) return c->result[i];
    for (uint32_t k = 0; k < c->n_in; k++) {
        if (c->in[k] != v) continue;
        return mpqc_run_load(e, mpqc_element_type(e, type_of(e, v)->dtype), mpqc_value_bytes(e, v),
                             s->p[k + 1], mpqc_nest_step(&c->nest, k + 1), s->index, s->lanes,
                             s->valid, !mpqc_value_slack(e, v));
    }
    MPQC_ASSERT(!"an operand of the chain");
    return NULL;
}

static LLVMValueRef extreme(struct mpqc_emit_cx *e, const struct mpqc_node *n, LLVMValueRef a,
                            LLVMValueRef b)
{
    bool sign = is_signed(type_of(e, n->out[0])->dtype), max = n->op == MPQC_OP_MAX;
    return binary(e, max ? (sign ? "llvm.smax" : "llvm.umax") : (sign ? "llvm.smin" : "llvm.umin"),
                  a, b);
}

static LLVMValueRef evaluate(struct mpqc_emit_cx *e, const struct step *s,
                             const struct mpqc_node *n)
{
    LLVMValueRef a = operand(e, s, n->in[0]);
    switch (n->op) {
    case MPQC_OP_RESCALE: return rescale(e, n, a);
    case MPQC_OP_NARROW: return narrow(e, n, a);
    case MPQC_OP_LUT: return lookup(e, s->c->table, type_of(e, n->out[0])->dtype, a);
    case MPQC_OP_ADD: return binary(e, "llvm.sadd.sat", a, operand(e, s, n->in[1]));
    default: return extreme(e, n, a, operand(e, s, n->in[1]));
    }
}

static void emit_step(struct mpqc_emit_cx *e, void *user, LLVMValueRef const *p,
                      LLVMValueRef index, unsigned lanes, unsigned valid)
{
    struct chain *c = user;
    struct step s = {.c = c, .p = p, .index = index, .lanes = lanes, .valid = valid};
    for (uint32_t i = 0; i < c->n_nodes; i++) c->result[i] = evaluate(e, &s, c->node[i]);
    mpqc_run_store(e, operand(e, &s, c->out), mpqc_value_bytes(e, c->out), p[0],
                   mpqc_nest_step(&c->nest, 0), index, valid);
    for (uint32_t i = 0; i < c->n_nodes; i++) c->result[i] = NULL;
}

/* ---- the kernel ------------------------------------------------------------------------- */

static bool made_inside(const struct chain *c, mpqc_vid v)
{
    for (uint32_t i = 0; i < c->n_nodes; i++)
        if (c->node[i]->out[0] == v) return true;
    return false;
}

static bool known(const struct mpqc_node *n)
{
    switch (n->op) {
    case MPQC_OP_RESCALE:
    case MPQC_OP_NARROW:
    case MPQC_OP_LUT:
    case MPQC_OP_ADD:
    case MPQC_OP_MIN:
    case MPQC_OP_MAX: return true;
    default: return false;
    }
}

static mpqc_status add_input(struct mpqc_emit_cx *e, struct chain *c, mpqc_vid v)
{
    for (uint32_t k = 0; k < c->n_in; k++)
        if (c->in[k] == v) return MPQC_OK;
    if (c->n_in + 1 >= MPQC_NEST_OPERANDS)
        return MPQC_FAIL(e->cx, BUG, MPQC_NOWHERE, "kernel '%s' has too many operands",
                         e->kernel_name);
    c->in[c->n_in++] = v;
    return MPQC_OK;
}

static mpqc_status read_chain(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                              struct chain *c, mpqc_vid *table)
{
    *table = MPQC_NONE;
    c->out = k->out;
    if (k->n_nodes > MAX_NODES)
        return MPQC_FAIL(e->cx, BUG, MPQC_NOWHERE, "pointwise kernel '%s' has %u nodes",
                         e->kernel_name, k->n_nodes);
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(e->graph, k->nodes[i]);
        if (!known(n))
            return MPQC_FAIL(e->cx, BUG, MPQC_NOWHERE, "'%s' in the pointwise kernel '%s'",
                             mpqc_ops[n->op].text, e->kernel_name);
        uint32_t values = n->op == MPQC_OP_ADD || n->op == MPQC_OP_MIN || n->op == MPQC_OP_MAX;
        for (uint32_t j = 0; j <= values; j++)
            if (!made_inside(c, n->in[j])) MPQC_TRY(add_input(e, c, n->in[j]));
        if (n->op == MPQC_OP_LUT) *table = n->in[1];
        c->node[c->n_nodes++] = n;
    }
    return MPQC_OK;
}

static void add_key(struct mpqc_emit_cx *e, const struct chain *c, struct mpqc_buf *key)
{
    mpqc_buf_puts(key, "pointwise");
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        const struct mpqc_node *n = c->node[i];
        const struct mpqc_type *in = type_of(e, n->in[0]), *out = type_of(e, n->out[0]);
        mpqc_buf_printf(key, " %s %s>%s z%d>%d", mpqc_ops[n->op].text, mpqc_dtypes[in->dtype].text,
                        mpqc_dtypes[out->dtype].text, in->quant ? in->quant->zero[0] : 0,
                        out->quant ? out->quant->zero[0] : 0);
        for (uint32_t a = 0; a < n->n_attr; a++)
            if (n->attr[a].key == MPQC_ATTR_MULT || n->attr[a].key == MPQC_ATTR_FRAC ||
                n->attr[a].key == MPQC_ATTR_LO || n->attr[a].key == MPQC_ATTR_HI)
                mpqc_buf_printf(key, " %s=%lld", mpqc_attr_text[n->attr[a].key],
                                (long long)n->attr[a].i);
        for (uint32_t j = 0; j < n->n_in; j++) { /* which operands */
            uint32_t from = 99;
            for (uint32_t k = 0; k < c->n_in; k++)
                if (c->in[k] == n->in[j]) from = k;
            for (uint32_t m = 0; m < i; m++)
                if (c->node[m]->out[0] == n->in[j]) from = 100 + m;
            mpqc_buf_printf(key, " %u%s", from,
                            from < 99 && mpqc_value_slack(e, n->in[j]) ? "s" : "");
        }
    }
    mpqc_nest_key(&c->nest, key);
}

mpqc_status mpqc_emit_pointwise(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                                struct mpqc_kernel_code *out)
{
    struct chain c = {.n_nodes = 0};
    struct mpqc_buf key;
    mpqc_vid table;
    MPQC_TRY(read_chain(e, k, &c, &table));
    const struct mpqc_type *t = type_of(e, k->out);
    mpqc_nest_init(&c.nest, t->rank, t->dims);
    mpqc_nest_value(e, &c.nest, k->out);
    for (uint32_t i = 0; i < c.n_in; i++) mpqc_nest_value(e, &c.nest, c.in[i]);
    mpqc_nest_finish(e, &c.nest, k->out);

    out->operand[out->n_operands++] = (struct mpqc_operand){.value = k->out};
    for (uint32_t i = 0; i < c.n_in; i++)
        out->operand[out->n_operands++] = (struct mpqc_operand){.value = c.in[i]};
    if (table != MPQC_NONE)
        out->operand[out->n_operands++] = (struct mpqc_operand){.value = table};
    out->range = mpqc_nest_range(&c.nest);
    out->grain = mpqc_nest_grain(&c.nest);

    mpqc_buf_init(&key);
    add_key(e, &c, &key);
    bool fresh;
    MPQC_TRY(mpqc_body_open(e, &key, out, &fresh));
    if (!fresh) return MPQC_OK;
    if (table != MPQC_NONE) c.table = LLVMGetParam(out->body, out->n_operands - 1);
    mpqc_nest_emit(e, &c.nest, e->target->vector_bytes / 2, emit_step, &c);
    return mpqc_body_end(e);
}

mpqc_status mpqc_emit_minmax(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                             struct mpqc_kernel_code *out)
{
    bool real = type_of(e, k->out)->dtype == MPQC_DT_F32;
    return real ? mpqc_emit_float(e, k, out) : mpqc_emit_pointwise(e, k, out);
}
