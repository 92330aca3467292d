/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The boundary between float and integer: quantize and dequantize.  Both follow the
 * reference kernels in ir/op_quant.c operation by operation, so results are equal
 * bit for bit; nothing here needs a call of the C library.
 */
#include "codegen/kernels.h"
#include "codegen/nest.h"

struct conversion {
    const struct mpqc_type *from, *to;
    struct mpqc_nest nest;
    bool exact;       /* nothing behind the input may be read */
    bool per_channel; /* dequantize: operands 2 and 3 are scale and zero */
};

static LLVMValueRef real_splat(struct mpqc_emit_cx *e, float v, unsigned lanes)
{
    LLVMValueRef lane[256];
    MPQC_ASSERT(lanes <= MPQC_LEN(lane));
    for (unsigned i = 0; i < lanes; i++) lane[i] = LLVMConstReal(e->f32, (double)v);
    return LLVMConstVector(lane, lanes);
}

/* `v > a ? v : a` and `v < a ? v : a`: one instruction on x86, and a when v is NaN. */
static LLVMValueRef bound(struct mpqc_emit_cx *e, LLVMRealPredicate p, LLVMValueRef v, float a,
                          unsigned lanes)
{
    LLVMValueRef limit = real_splat(e, a, lanes);
    return LLVMBuildSelect(e->b, LLVMBuildFCmp(e->b, p, v, limit, ""), v, limit, "");
}

/* To nearest, ties to even, for |v| <= 2^22, in the default rounding mode: the sum with
 * 1.5 * 2^23 has the integer in its low bits. */
static LLVMValueRef to_nearest(struct mpqc_emit_cx *e, LLVMValueRef v, unsigned lanes)
{
    LLVMTypeRef t = mpqc_b_vec(e->i32, lanes);
    v = LLVMBuildFAdd(e->b, v, real_splat(e, 12582912.0f, lanes), "");
    v = LLVMBuildBitCast(e->b, v, t, "");
    return LLVMBuildSub(e->b, v, mpqc_b_splat(e, t, 0x4B400000), "");
}

static void quantize_step(struct mpqc_emit_cx *e, void *user, LLVMValueRef const *p,
                          LLVMValueRef index, unsigned lanes, unsigned valid)
{
    const struct conversion *c = user;
    const struct mpqc_dtype_info *info = &mpqc_dtypes[c->to->dtype];
    int32_t zero = c->to->quant->zero[0];
    LLVMTypeRef wide = mpqc_b_vec(e->i32, lanes);
    LLVMValueRef v = mpqc_run_load(e, e->f32, 4, p[1], mpqc_nest_step(&c->nest, 1), index, lanes,
                                   valid, c->exact);
    v = LLVMBuildFMul(e->b, v, real_splat(e, 1.0f / c->to->quant->scale[0], lanes), "");
    v = bound(e, LLVMRealOGT, v, (float)(info->min - zero), lanes);
    v = bound(e, LLVMRealOLT, v, (float)(info->max - zero), lanes);
    v = LLVMBuildAdd(e->b, to_nearest(e, v, lanes), mpqc_b_splat(e, wide, zero), "");
    v = LLVMBuildTrunc(e->b, v, mpqc_b_vec(mpqc_element_type(e, c->to->dtype), lanes), "");
    mpqc_run_store(e, v, info->bytes, p[0], mpqc_nest_step(&c->nest, 0), index, valid);
}

static void dequantize_step(struct mpqc_emit_cx *e, void *user, LLVMValueRef const *p,
                            LLVMValueRef index, unsigned lanes, unsigned valid)
{
    const struct conversion *c = user;
    const struct mpqc_dtype_info *info = &mpqc_dtypes[c->from->dtype];
    LLVMTypeRef wide = mpqc_b_vec(e->i32, lanes);
    LLVMValueRef q = mpqc_run_load(e, mpqc_element_type(e, c->from->dtype), info->bytes, p[1],
                                   mpqc_nest_step(&c->nest, 1), index, lanes, valid, c->exact);
    if (info->bytes < 4)
        q = info->kind == MPQC_KIND_UINT ? LLVMBuildZExt(e->b, q, wide, "")
                                         : LLVMBuildSExt(e->b, q, wide, "");
    LLVMValueRef zero = mpqc_b_splat(e, wide, c->from->quant->zero[0]);
    LLVMValueRef scale = real_splat(e, c->from->quant->scale[0], lanes);
    if (c->per_channel) {
        scale = mpqc_run_load(e, e->f32, 4, p[2], mpqc_nest_step(&c->nest, 2), index, lanes, valid,
                              true);
        zero = mpqc_run_load(e, e->i32, 4, p[3], mpqc_nest_step(&c->nest, 3), index, lanes, valid,
                             true);
    }
    q = LLVMBuildSub(e->b, q, zero, "");
    LLVMValueRef y = LLVMBuildSIToFP(e->b, q, mpqc_b_vec(e->f32, lanes), "");
    y = LLVMBuildFMul(e->b, y, scale, "");
    mpqc_run_store(e, y, 4, p[0], mpqc_nest_step(&c->nest, 0), index, valid);
}

static void add_quant(struct mpqc_buf *key, const struct mpqc_type *t)
{
    mpqc_buf_printf(key, " %s", mpqc_dtypes[t->dtype].text);
    if (t->quant)
        mpqc_buf_printf(key, "*%a+%d", (double)t->quant->scale[0], (int)t->quant->zero[0]);
}

/* Two more operands: scales and zero points along the last axis. */
static void add_channels(struct mpqc_emit_cx *e, struct conversion *c,
                         struct mpqc_kernel_code *out)
{
    const struct mpqc_quant *q = c->from->quant;
    int64_t stride[MPQC_MAX_RANK] = {0};
    stride[c->from->rank - 1] = 1;
    mpqc_nest_strided(&c->nest, stride, 4);
    mpqc_nest_strided(&c->nest, stride, 4);
    out->operand[out->n_operands++] = (struct mpqc_operand){
        .value = MPQC_NONE, .global = mpqc_global_bytes(e, "scale", q->scale, 4 * q->count, 64)};
    out->operand[out->n_operands++] = (struct mpqc_operand){
        .value = MPQC_NONE, .global = mpqc_global_bytes(e, "zero", q->zero, 4 * q->count, 64)};
}

static mpqc_status convert(struct mpqc_emit_cx *e, const struct mpqc_kernel *k, const char *name,
                           mpqc_run_fn step, struct mpqc_kernel_code *out)
{
    const struct mpqc_node *n = mpqc_node_at(e->graph, k->core);
    struct conversion c = {.from = &mpqc_value_at(e->graph, n->in[0])->type,
                           .to = &mpqc_value_at(e->graph, k->out)->type,
                           .exact = !mpqc_value_slack(e, n->in[0])};
    struct mpqc_buf key;
    c.per_channel = c.from->quant && c.from->quant->count > 1;
    mpqc_nest_init(&c.nest, c.to->rank, c.to->dims);
    mpqc_nest_value(e, &c.nest, k->out);
    mpqc_nest_value(e, &c.nest, n->in[0]);
    out->operand[out->n_operands++] = (struct mpqc_operand){.value = k->out};
    out->operand[out->n_operands++] = (struct mpqc_operand){.value = n->in[0]};
    if (c.per_channel) add_channels(e, &c, out);
    mpqc_nest_finish(e, &c.nest, k->out);
    out->range = mpqc_nest_range(&c.nest);
    out->grain = mpqc_nest_grain(&c.nest);

    mpqc_buf_init(&key);
    mpqc_buf_puts(&key, name);
    add_quant(&key, c.from);
    add_quant(&key, c.to);
    mpqc_buf_puts(&key, c.exact ? " exact" : "");
    mpqc_nest_key(&c.nest, &key);
    bool fresh;
    MPQC_TRY(mpqc_body_open(e, &key, out, &fresh));
    if (!fresh) return MPQC_OK;
    mpqc_nest_emit(e, &c.nest, e->target->vector_bytes / 2, step, &c);
    return mpqc_body_end(e);
}

mpqc_status mpqc_emit_quantize(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                               struct mpqc_kernel_code *out)
{
    return convert(e, k, "quantize", quantize_step, out);
}

mpqc_status mpqc_emit_dequantize(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                                 struct mpqc_kernel_code *out)
{
    return convert(e, k, "dequantize", dequantize_step, out);
}
