/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights in groups (struct mpqc_groups): sum over groups of factor * (sum of x * code).
 *
 * Each group of the run is summed like a layer of its own; its sums times the group's
 * factors are added to totals, which wrap like all sums do.  Factors lie behind a panel's
 * codes, [group][column lane].
 */
#include "codegen/gemm.h"

static LLVMValueRef *total(struct gemm *q, int64_t m, unsigned v)
{
    int64_t i = m * q->c->n + v;
    MPQC_ASSERT(i < (int64_t)MPQC_LEN(q->total));
    return &q->total[i];
}

void mpqc_groups_begin(struct gemm *q)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef bias[MPQC_MAX_COLUMNS];
    mpqc_epilogue_bias(e, q->ep, q->c, q->channel, bias);
    for (int64_t m = 0; m < q->mh * q->mw; m++)
        for (unsigned v = 0; v < q->c->n; v++) {
            *total(q, m, v) = mpqc_b_var(e, LLVMVectorType(e->i32, q->c->lanes[v]), "total");
            LLVMBuildStore(e->b, bias[v], *total(q, m, v));
        }
}

LLVMValueRef mpqc_groups_sum(struct gemm *q, int64_t m, unsigned v)
{
    return LLVMBuildLoad2(q->e->b, LLVMVectorType(q->e->i32, q->c->lanes[v]), *total(q, m, v), "");
}

/* One group: `inputs` of them from x on, codes at w, factors at f. */
static void group(struct gemm *q, int64_t inputs, LLVMValueRef x, LLVMValueRef w, LLVMValueRef f)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *whole = q->l;
    struct mpqc_linear part = *whole;
    part.run = inputs;
    part.k4 = (inputs + 3) / 4;
    part.exact = whole->exact && inputs % 4 != 0;
    q->l = &part;
    mpqc_gemm_clear(q);
    mpqc_gemm_run(q, x, w);
    q->l = whole;
    int64_t column = 0;
    for (unsigned v = 0; v < q->c->n; column += q->c->lanes[v++]) {
        LLVMTypeRef wide = LLVMVectorType(e->i32, q->c->lanes[v]);
        LLVMTypeRef narrow = LLVMVectorType(e->i8, q->c->lanes[v]);
        LLVMValueRef factor = mpqc_b_load(e, narrow, mpqc_b_gep_const(e, f, column), 4);
        factor = LLVMBuildSExt(e->b, factor, wide, "");
        for (int64_t m = 0; m < q->mh * q->mw; m++) {
            LLVMValueRef sum = LLVMBuildMul(e->b, mpqc_gemm_sum(q, m, v), factor, "");
            sum = LLVMBuildAdd(e->b, mpqc_groups_sum(q, m, v), sum, "");
            LLVMBuildStore(e->b, sum, *total(q, m, v));
        }
    }
}

void mpqc_groups_run(struct gemm *q, LLVMValueRef x, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t size = q->l->group, full = q->l->run / size, rest = q->l->run % size;
    int64_t lanes = mpqc_columns_lanes(q->c);
    int64_t w_bytes = mpqc_packed_rows(q->l->bits, size / 4) * 4 * lanes;
    LLVMValueRef zero = mpqc_b_i64(e, 0);
    LLVMValueRef f = mpqc_b_gep_const(e, w, mpqc_run_bytes(q->l, q->c));
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, zero, mpqc_b_i64(e, full), 1, "group");
    LLVMValueRef at = mpqc_b_gep(e, w, mpqc_b_madd(e, loop.iv, w_bytes, zero));
    group(q, size, mpqc_b_gep(e, x, mpqc_b_madd(e, loop.iv, size, zero)), at,
          mpqc_b_gep(e, f, mpqc_b_madd(e, loop.iv, lanes, zero)));
    mpqc_b_loop_end(e, &loop);
    if (rest > 0)
        group(q, rest, mpqc_b_gep_const(e, x, full * size), mpqc_b_gep_const(e, w, full * w_bytes),
              mpqc_b_gep_const(e, f, full * lanes));
}
