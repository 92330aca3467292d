/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Integer softmax of rows, exactly as ir/op_softmax.c states it:
 *
 *   m = max x_i,  e_i = table[m - x_i],  s = sum e_i
 *   y_i = min(MAX, (e_i * 2^k + s / 2) / s)
 *
 * Rows are scalar code: they are short (1000 classes), there is one per image, and
 * table lookups and divisions dominate.
 */
#include "codegen/kernels.h"
#include "codegen/nest.h"

struct softmax {
    const struct mpqc_type *x, *y;
    int64_t length, in_step, out_step; /* of the axis; bytes */
    struct mpqc_nest rows;             /* output, input: the other axes */
};

/* Element i of the row at p, as i32. */
static LLVMValueRef element(struct mpqc_emit_cx *e, const struct softmax *s, LLVMValueRef p,
                            LLVMValueRef i)
{
    LLVMValueRef at = mpqc_b_madd(e, i, s->in_step, mpqc_b_i64(e, 0));
    LLVMValueRef q = mpqc_b_load(e, e->i8, mpqc_b_gep(e, p, at), 1);
    return mpqc_dtypes[s->x->dtype].kind == MPQC_KIND_UINT ? LLVMBuildZExt(e->b, q, e->i32, "")
                                                           : LLVMBuildSExt(e->b, q, e->i32, "");
}

static LLVMValueRef exponential(struct mpqc_emit_cx *e, const struct softmax *s,
                                LLVMValueRef table, LLVMValueRef max, LLVMValueRef p,
                                LLVMValueRef i)
{
    LLVMValueRef d = LLVMBuildSub(e->b, max, element(e, s, p, i), "");
    LLVMValueRef at =
        mpqc_b_madd(e, LLVMBuildZExt(e->b, d, e->i64, ""), 4, mpqc_b_i64(e, 0));
    return mpqc_b_load(e, e->i32, mpqc_b_gep(e, table, at), 4);
}

static void begin_row(struct mpqc_emit_cx *e, const struct softmax *s, struct mpqc_loop *l)
{
    mpqc_b_loop_begin(e, l, mpqc_b_i64(e, 0), mpqc_b_i64(e, s->length), 1, "element");
}

static LLVMValueRef row_max(struct mpqc_emit_cx *e, const struct softmax *s, LLVMValueRef p,
                            LLVMValueRef var)
{
    struct mpqc_loop l;
    mpqc_b_store(e, mpqc_b_i32(e, (int32_t)mpqc_dtypes[s->x->dtype].min), var, 4);
    begin_row(e, s, &l);
    LLVMValueRef args[] = {mpqc_b_load(e, e->i32, var, 4), element(e, s, p, l.iv)};
    mpqc_b_store(e, mpqc_b_intrinsic(e, "llvm.smax", &e->i32, 1, args, 2), var, 4);
    mpqc_b_loop_end(e, &l);
    return mpqc_b_load(e, e->i32, var, 4);
}

static LLVMValueRef row_sum(struct mpqc_emit_cx *e, const struct softmax *s, LLVMValueRef table,
                            LLVMValueRef max, LLVMValueRef p, LLVMValueRef var)
{
    struct mpqc_loop l;
    mpqc_b_store(e, mpqc_b_i32(e, 0), var, 4);
    begin_row(e, s, &l);
    LLVMValueRef v = exponential(e, s, table, max, p, l.iv);
    mpqc_b_store(e, LLVMBuildAdd(e->b, mpqc_b_load(e, e->i32, var, 4), v, ""), var, 4);
    mpqc_b_loop_end(e, &l);
    return mpqc_b_load(e, e->i32, var, 4);
}

static void row_divide(struct mpqc_emit_cx *e, const struct softmax *s, LLVMValueRef table,
                       LLVMValueRef max, LLVMValueRef sum, LLVMValueRef p, LLVMValueRef out)
{
    bool bytes = s->y->dtype == MPQC_DT_U8;
    LLVMValueRef half = LLVMBuildLShr(e->b, sum, mpqc_b_i32(e, 1), "");
    struct mpqc_loop l;
    begin_row(e, s, &l);
    LLVMValueRef v = exponential(e, s, table, max, p, l.iv);
    v = LLVMBuildShl(e->b, v, mpqc_b_i32(e, bytes ? 8 : 15), "");
    v = LLVMBuildUDiv(e->b, LLVMBuildAdd(e->b, v, half, ""), sum, "");
    LLVMValueRef args[] = {v, mpqc_b_i32(e, bytes ? 255 : 32767)};
    v = mpqc_b_intrinsic(e, "llvm.umin", &e->i32, 1, args, 2);
    LLVMValueRef at = mpqc_b_madd(e, l.iv, s->out_step, mpqc_b_i64(e, 0));
    mpqc_b_store(e, LLVMBuildTrunc(e->b, v, bytes ? e->i8 : e->i16, ""), mpqc_b_gep(e, out, at),
                 bytes ? 1 : 2);
    mpqc_b_loop_end(e, &l);
}

/* The nest's run goes over rows, one at a time. */
static void softmax_step(struct mpqc_emit_cx *e, void *user, LLVMValueRef const *p,
                         LLVMValueRef index, unsigned lanes, unsigned valid)
{
    const struct softmax *s = user;
    LLVMValueRef table = LLVMGetParam(e->function, 2), zero = mpqc_b_i64(e, 0);
    LLVMValueRef var = mpqc_b_var(e, e->i32, "acc");
    (void)lanes;
    struct mpqc_loop l;
    LLVMValueRef to = LLVMBuildNSWAdd(e->b, index, mpqc_b_i64(e, valid), "");
    mpqc_b_loop_begin(e, &l, index, to, 1, "softmax");
    LLVMValueRef out = mpqc_b_gep(e, p[0], mpqc_b_madd(e, l.iv, mpqc_nest_step(&s->rows, 0), zero));
    LLVMValueRef in = mpqc_b_gep(e, p[1], mpqc_b_madd(e, l.iv, mpqc_nest_step(&s->rows, 1), zero));
    LLVMValueRef max = row_max(e, s, in, var);
    LLVMValueRef sum = row_sum(e, s, table, max, in, var);
    row_divide(e, s, table, max, sum, in, out);
    mpqc_b_loop_end(e, &l);
}

mpqc_status mpqc_emit_softmax(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                              struct mpqc_kernel_code *out)
{
    const struct mpqc_node *n = mpqc_node_at(e->graph, k->core);
    struct mpqc_where where = {.node = n->loc.node, .op = n->loc.op, .offset = -1};
    struct softmax s = {.x = &mpqc_value_at(e->graph, n->in[0])->type,
                        .y = &mpqc_value_at(e->graph, k->out)->type};
    uint32_t axis = (uint32_t)mpqc_attr_int(n, MPQC_ATTR_AXIS);
    int64_t from[MPQC_MAX_RANK], to[MPQC_MAX_RANK], dims[MPQC_MAX_RANK];
    struct mpqc_buf key;
    if (n->n_in < 2 || n->in[1] == MPQC_NONE)
        return MPQC_FAIL(e->cx, UNSUPPORTED, where, "softmax of floats has no code generator");
    if (mpqc_place_has_halo(&e->plan->place[k->out]))
        return MPQC_FAIL(e->cx, BUG, where, "a halo around the result of softmax");
    mpqc_value_strides(e, n->in[0], from);
    mpqc_value_strides(e, k->out, to);
    for (uint32_t d = 0; d < s.x->rank; d++) dims[d] = d == axis ? 1 : s.x->dims[d];
    s.length = s.x->dims[axis];
    s.in_step = from[axis];
    s.out_step = to[axis] * mpqc_dtypes[s.y->dtype].bytes;
    mpqc_nest_init(&s.rows, s.x->rank, dims);
    mpqc_nest_strided(&s.rows, to, mpqc_dtypes[s.y->dtype].bytes);
    mpqc_nest_strided(&s.rows, from, 1);
    mpqc_nest_finish_part(&s.rows);
    const mpqc_vid operand[] = {k->out, n->in[0], n->in[1]};
    for (int i = 0; i < 3; i++)
        out->operand[out->n_operands++] = (struct mpqc_operand){.value = operand[i]};
    out->range = mpqc_nest_range(&s.rows);
    out->grain = s.length >= 4096 || s.rows.chunk ? 1 : 4096 / (s.length > 0 ? s.length : 1);

    mpqc_buf_init(&key);
    mpqc_buf_printf(&key, "softmax %s>%s %lld %lld %lld", mpqc_dtypes[s.x->dtype].text,
                    mpqc_dtypes[s.y->dtype].text, (long long)s.length, (long long)s.in_step,
                    (long long)s.out_step);
    mpqc_nest_key(&s.rows, &key);
    bool fresh;
    MPQC_TRY(mpqc_body_open(e, &key, out, &fresh));
    if (!fresh) return MPQC_OK;
    mpqc_nest_emit(e, &s.rows, 8, softmax_step, &s);
    return mpqc_body_end(e);
}
