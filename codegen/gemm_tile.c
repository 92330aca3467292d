/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One register tile of a convolution or matrix product: m positions x nv column vectors
 * accumulate over all runs, then go through the epilogue.  Zero point and x_offset are in
 * the bias, halos in memory, so nothing is tested in the inner loop.
 */
#include "codegen/gemm.h"

static LLVMValueRef constant(struct gemm *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

/* Accumulators of a column vector, and positions that have them in common. */
static unsigned acc_per_column(const struct gemm *q)
{
    return q->t->form ? q->t->form->acc : q->e->target->isa->acc_per_column;
}

static unsigned paired(const struct gemm *q)
{
    return q->t->form ? q->t->form->pair : 1;
}

static bool from_bias(const struct gemm *q)
{
    return q->t->form ? q->t->form->from_bias : acc_per_column(q) == 1;
}

int64_t mpqc_gemm_n_accumulators(const struct gemm *q)
{
    return (q->mh * q->mw + paired(q) - 1) / paired(q) * q->c->n * acc_per_column(q);
}

LLVMValueRef *mpqc_gemm_accumulators(struct gemm *q, unsigned set, int64_t m, unsigned v)
{
    unsigned apc = acc_per_column(q);
    int64_t i = set * mpqc_gemm_n_accumulators(q) + (m / paired(q) * q->c->n + v) * apc;
    MPQC_ASSERT(i + apc <= (int64_t)MPQC_LEN(q->var));
    return &q->var[i];
}

/* What the first set starts from, [position or pair][vector][acc_per_column]: the bias if one
 * accumulator stands for one column, else zero. */
static void first_values(struct gemm *q, LLVMValueRef *first)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t all = mpqc_gemm_n_accumulators(q), per = q->c->n * acc_per_column(q);
    if (from_bias(q) && q->t->form) {
        LLVMValueRef from = NULL;
        mpqc_epilogue_biases(e, q->ep, q->c, q->channel, all / per, NULL, &from, first);
        return;
    }
    if (from_bias(q)) mpqc_epilogue_bias(e, q->ep, q->c, q->channel, first);
    for (int64_t i = from_bias(q) ? per : 0; i < all; i++) {
        unsigned v = (unsigned)(i % per) / acc_per_column(q);
        first[i] = from_bias(q) ? first[i - per]
                                : LLVMConstNull(LLVMVectorType(e->i32, q->c->lanes[v]));
    }
}

/* All sets but the first start from zero. */
static void begin_accumulators(struct gemm *q)
{
    struct mpqc_emit_cx *e = q->e;
    unsigned apc = acc_per_column(q);
    LLVMValueRef first[MPQC_LEN(q->var)];
    first_values(q, first);
    for (unsigned v = 0; v < q->c->n; v++) {
        LLVMTypeRef type = LLVMVectorType(e->i32, q->c->lanes[v]);
        LLVMValueRef none = LLVMConstNull(type);
        for (unsigned set = 0; set < q->t->split; set++)
            for (int64_t m = 0; m < q->mh * q->mw; m += paired(q))
                for (unsigned a = 0; a < apc; a++) {
                    LLVMValueRef *var = mpqc_gemm_accumulators(q, set, m, v) + a;
                    *var = mpqc_b_var(e, type, "acc");
                    LLVMBuildStore(e->b, set == 0 ? first[var - q->var] : none, *var);
                }
    }
}

void mpqc_gemm_clear(struct gemm *q)
{
    struct mpqc_emit_cx *e = q->e;
    for (unsigned set = 0; set < q->t->split; set++)
        for (int64_t m = 0; m < q->mh * q->mw; m += paired(q))
            for (unsigned v = 0; v < q->c->n; v++)
                for (unsigned a = 0; a < acc_per_column(q); a++)
                    LLVMBuildStore(e->b, LLVMConstNull(LLVMVectorType(e->i32, q->c->lanes[v])),
                                   mpqc_gemm_accumulators(q, set, m, v)[a]);
}

static void run(struct gemm *q, LLVMValueRef x, LLVMValueRef w)
{
    if (q->l->group) mpqc_groups_run(q, x, w);
    else mpqc_gemm_run(q, x, w);
}

/* Runs of the inner loop (taps of one row, if they are no single run). */
static void inner_runs(struct gemm *q, LLVMValueRef x, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t run_w = mpqc_run_bytes(q->l, q->c);
    if (mpqc_gemm_short(q, q->l->n_inner * q->l->k4) || q->l->n_inner == 1) {
        for (int64_t i = 0; i < q->l->n_inner; i++)
            run(q, mpqc_b_gep_const(e, x, i * q->l->inner_step),
                mpqc_b_gep_const(e, w, i * run_w));
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, q->l->n_inner), 1, "tap");
    run(q, mpqc_b_gep(e, x, mpqc_b_madd(e, loop.iv, q->l->inner_step, constant(q, 0))),
        mpqc_b_gep(e, w, mpqc_b_madd(e, loop.iv, run_w, constant(q, 0))));
    mpqc_b_loop_end(e, &loop);
}

static void outer_runs(struct gemm *q, LLVMValueRef x, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t row_w = q->l->n_inner * mpqc_run_bytes(q->l, q->c);
    int64_t all = q->l->n_outer * q->l->n_inner * q->l->k4;
    if (mpqc_gemm_short(q, all) || q->l->n_outer == 1) {
        for (int64_t i = 0; i < q->l->n_outer; i++)
            inner_runs(q, mpqc_b_gep_const(e, x, i * q->l->outer_step),
                       mpqc_b_gep_const(e, w, i * row_w));
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, q->l->n_outer), 1, "row");
    inner_runs(q, mpqc_b_gep(e, x, mpqc_b_madd(e, loop.iv, q->l->outer_step, constant(q, 0))),
               mpqc_b_gep(e, w, mpqc_b_madd(e, loop.iv, row_w, constant(q, 0))));
    mpqc_b_loop_end(e, &loop);
}

/* The accumulators of position m (or of a pair) and vector v, of all sets. */
static void load_accumulators(struct gemm *q, int64_t m, unsigned v, LLVMValueRef *acc)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMTypeRef type = LLVMVectorType(e->i32, q->c->lanes[v]);
    for (unsigned a = 0; a < acc_per_column(q); a++) {
        acc[a] = LLVMBuildLoad2(e->b, type, mpqc_gemm_accumulators(q, 0, m, v)[a], "");
        for (unsigned set = 1; set < q->t->split; set++) {
            LLVMValueRef var = mpqc_gemm_accumulators(q, set, m, v)[a];
            acc[a] = LLVMBuildAdd(e->b, acc[a], LLVMBuildLoad2(e->b, type, var, ""), "");
        }
    }
}

LLVMValueRef mpqc_gemm_sum(struct gemm *q, int64_t m, unsigned v)
{
    LLVMValueRef acc[4];
    load_accumulators(q, m, v, acc);
    return q->t->form ? q->t->form->finish(q->e, acc) : q->e->target->isa->finish(q->e, acc);
}

/* The sums of position m. */
static void take_accumulators(struct gemm *q, int64_t m, const LLVMValueRef *bias,
                              LLVMValueRef *sum)
{
    for (unsigned v = 0; v < q->c->n; v++) {
        sum[v] = q->l->group ? mpqc_groups_sum(q, m, v) : mpqc_gemm_sum(q, m, v);
        if (!q->l->group && !from_bias(q)) sum[v] = LLVMBuildAdd(q->e->b, sum[v], bias[v], "");
    }
}

/* Where position (y, z) of the tile is, given where the first one is.  All i64. */
static void move_position(struct gemm *q, LLVMValueRef y, LLVMValueRef z, LLVMValueRef *position,
                          LLVMValueRef *residual)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    *position = mpqc_b_madd(e, y, l->out_row, mpqc_b_madd(e, z, l->out_col, *position));
    *residual = mpqc_b_madd(e, y, l->res_row, mpqc_b_madd(e, z, l->res_col, *residual));
}

static void finish_position(struct gemm *q, LLVMValueRef *sum, LLVMValueRef position,
                            LLVMValueRef residual, LLVMValueRef y, LLVMValueRef z)
{
    move_position(q, y, z, &position, &residual);
    mpqc_epilogue_store(q->e, q->ep, sum, position, residual, NULL);
}

/* Finishes positions as long as there are whole lines of them, and returns how many. */
static int64_t finish_lines(struct gemm *q, LLVMValueRef position, LLVMValueRef residual)
{
    int64_t n = mpqc_line_positions(q->e->target->isa, q->l, q->c, q->mh, q->mw), m = 0;
    LLVMValueRef sum[MPQC_MAX_COLUMNS];
    if (n == 1) return 0;
    mpqc_epilogue_repeat(q->ep, (unsigned)n);
    for (; m + n <= q->mh * q->mw; m += n) {
        for (int64_t i = 0; i < n; i++)
            take_accumulators(q, m + i, NULL, &sum[i * q->c->n]);
        finish_position(q, sum, position, residual, constant(q, m / q->mw),
                        constant(q, m % q->mw));
    }
    mpqc_epilogue_columns(q->e, q->ep, q->c, q->channel);
    return m;
}

/* Positions m and, if the tile has it, m + 1, of a form that pairs them. */
static void finish_pair(struct gemm *q, int64_t m, LLVMValueRef position, LLVMValueRef residual)
{
    LLVMValueRef acc[2 * MPQC_MAX_COLUMNS], at[] = {position, position};
    LLVMValueRef add[] = {residual, residual};
    unsigned live = m + 1 < q->mh * q->mw ? 2 : 1;
    for (unsigned i = 0; i < live; i++)
        move_position(q, constant(q, (m + i) / q->mw), constant(q, (m + i) % q->mw), &at[i],
                      &add[i]);
    for (unsigned v = 0; v < q->c->n; v++) load_accumulators(q, m, v, &acc[2 * v]);
    mpqc_epilogue_store_pair(q->e, q->ep, acc, at, add, live);
}

/* All sums to memory, then a loop over positions: much less code than the same without
 * a loop. */
static void finish_rolled(struct gemm *q, const LLVMValueRef *bias, LLVMValueRef position,
                          LLVMValueRef residual)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t m = q->mh * q->mw, bytes = 4 * mpqc_columns_lanes(q->c), at;
    LLVMTypeRef words = LLVMVectorType(e->i32, q->e->target->isa->lanes);
    LLVMTypeRef type =
        LLVMArrayType2(words, (uint64_t)((m * bytes + 4 * e->target->isa->lanes - 1) /
                                         (4 * e->target->isa->lanes)));
    LLVMValueRef buffer = mpqc_b_var(e, type, "sums"), sum[MPQC_MAX_COLUMNS];
    for (int64_t i = 0; i < m; i++) {
        take_accumulators(q, i, bias, sum);
        at = i * bytes;
        for (unsigned v = 0; v < q->c->n; at += 4 * q->c->lanes[v++])
            mpqc_b_store(e, sum[v], mpqc_b_gep_const(e, buffer, at), 16);
    }
    struct mpqc_loop y = {0}, z;
    LLVMValueRef row = constant(q, 0);
    if (q->mh > 1) {
        mpqc_b_loop_begin(e, &y, constant(q, 0), constant(q, q->mh), 1, "finish.row");
        row = y.iv;
    }
    mpqc_b_loop_begin(e, &z, constant(q, 0), constant(q, q->mw), 1, "finish");
    LLVMValueRef from = mpqc_b_madd(e, row, q->mw * bytes, constant(q, 0));
    from = mpqc_b_gep(e, buffer, mpqc_b_madd(e, z.iv, bytes, from));
    at = 0;
    for (unsigned v = 0; v < q->c->n; at += 4 * q->c->lanes[v++])
        sum[v] = mpqc_b_load(e, LLVMVectorType(e->i32, q->c->lanes[v]),
                             mpqc_b_gep_const(e, from, at), 16);
    finish_position(q, sum, position, residual, row, z.iv);
    mpqc_b_loop_end(e, &z);
    if (q->mh > 1) mpqc_b_loop_end(e, &y);
}

/* The panel's weights.  A layer without an inner loop needs the same ones in every tile:
 * what the registers do not hold is better read where it is used than kept on the stack. */
static LLVMValueRef panel_weights(const struct gemm *q)
{
    const struct mpqc_isa *isa = q->e->target->isa;
    int64_t nv = q->c->n, all = q->l->n_outer * q->l->n_inner * q->l->k4 * nv * isa->w_values;
    int64_t sums = q->mh * q->mw * nv * isa->acc_per_column;
    bool kept = all + sums + 2 * nv + isa->x_values <= isa->registers;
    kept |= !mpqc_gemm_short(q, q->l->n_outer * q->l->n_inner * q->l->k4);
    return q->t->form || !kept ? mpqc_b_opaque(q->e, q->panel_w) : q->panel_w;
}

void mpqc_gemm_tile(struct gemm *q, int64_t mh, int64_t mw, LLVMValueRef x,
                    LLVMValueRef position, LLVMValueRef residual)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef bias[MPQC_MAX_COLUMNS], sum[MPQC_MAX_COLUMNS];
    q->mh = mh;
    q->mw = mw;
    begin_accumulators(q);
    if (q->l->group) mpqc_groups_begin(q);
    outer_runs(q, x, panel_weights(q));
    mpqc_epilogue_columns(e, q->ep, q->c, q->channel);
    if (!from_bias(q)) mpqc_epilogue_bias(e, q->ep, q->c, q->channel, bias);
    position = LLVMBuildNSWAdd(e->b, position, q->channel, "");
    residual = LLVMBuildNSWAdd(e->b, residual, q->channel, "");
    if (q->t->rolled && mh * mw > 1) {
        finish_rolled(q, bias, position, residual);
        return;
    }
    int64_t done = finish_lines(q, position, residual);
    for (int64_t m = done; m < mh * mw; m += paired(q)) {
        if (q->c->paired) {
            finish_pair(q, m, position, residual);
            continue;
        }
        take_accumulators(q, m, bias, sum);
        finish_position(q, sum, position, residual, constant(q, m / mw), constant(q, m % mw));
    }
}
