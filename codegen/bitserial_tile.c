/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One register tile of a bit-serial kernel: m positions of a row x a panel's vectors, for
 * each of them an accumulator for every significance of a pair of planes.
 */
#include "codegen/bitserial.h"

/* Pairs that a turn of a loop should have at least. */
enum { PAIRS_OF_A_TURN = 24 };

static LLVMValueRef constant(const struct mpqc_serial *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

static LLVMValueRef *var_of(struct mpqc_serial *q, int64_t m, unsigned v, unsigned significance)
{
    int64_t i = (m * q->c->n + v) * mpqc_serial_sums(q->l) + significance;
    MPQC_ASSERT(i < MPQC_SERIAL_VARS);
    return &q->var[i];
}

static int64_t step_bytes(const struct mpqc_serial *q)
{
    return 4 * q->l->w_bits * mpqc_columns_lanes(q->c);
}

static void clear(struct mpqc_serial *q, int64_t m)
{
    struct mpqc_emit_cx *e = q->e;
    for (int64_t p = 0; p < m; p++)
        for (unsigned v = 0; v < q->c->n; v++)
            for (unsigned s = 0; s < mpqc_serial_sums(q->l); s++) {
                LLVMTypeRef t = LLVMVectorType(e->i32, q->c->lanes[v]);
                LLVMValueRef *var = var_of(q, p, v, s);
                *var = mpqc_b_var(e, t, "acc");
                LLVMBuildStore(e->b, LLVMConstNull(t), *var);
            }
}

/* ---- products ------------------------------------------------------------------------------ */

/* Accumulator of plane i of x and plane j of the weights. */
static void multiply(struct mpqc_serial *q, LLVMValueRef x, LLVMValueRef w, bool negative,
                     LLVMValueRef var)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMTypeRef t = LLVMTypeOf(w);
    LLVMValueRef both = LLVMBuildAnd(e->b, x, w, ""), sum = LLVMBuildLoad2(e->b, t, var, "");
    LLVMValueRef n = mpqc_b_intrinsic(e, "llvm.ctpop", &t, 1, &both, 1);
    LLVMBuildStore(e->b, negative ? LLVMBuildSub(e->b, sum, n, "") : LLVMBuildAdd(e->b, sum, n, ""),
                   var);
}

/* The word at x of all positions, by the weights at w. */
static void step(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef ws[2][MPQC_MAX_COLUMNS];
    int64_t at = 0;
    for (unsigned j = 0; j < q->l->w_bits; j++)
        for (unsigned v = 0; v < q->c->n; at += 4 * q->c->lanes[v++])
            ws[j][v] = mpqc_b_load(e, LLVMVectorType(e->i32, q->c->lanes[v]),
                                   mpqc_b_gep_const(e, w, at), 16);
    for (int64_t p = 0; p < m; p++)
        for (unsigned i = 0; i < q->l->x_bits; i++) {
            int64_t from = 4 * p * q->sw * q->words + i * q->plane;
            LLVMValueRef word = mpqc_b_load(e, e->i32, mpqc_b_gep_const(e, x, from), 4);
            for (unsigned j = 0; j < q->l->w_bits; j++)
                for (unsigned v = 0; v < q->c->n; v++)
                    multiply(q, mpqc_b_broadcast(e, word, q->c->lanes[v]), ws[j][v], j == 1,
                             *var_of(q, p, v, i + j));
        }
}

static int64_t pairs_of_step(const struct mpqc_serial *q, int64_t m)
{
    return m * q->c->n * q->l->w_bits * q->l->x_bits;
}

static bool short_enough(const struct mpqc_serial *q, int64_t m, int64_t steps)
{
    return steps * pairs_of_step(q, m) * MPQC_SERIAL_PAIR_BYTES <= MPQC_UNROLL_BYTES;
}

/* Words that lie in line. */
static void run(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t pairs = pairs_of_step(q, m), turn = (PAIRS_OF_A_TURN + pairs - 1) / pairs, k = 0;
    if (!short_enough(q, m, q->run) && q->run >= 2 * turn) {
        struct mpqc_loop loop;
        int64_t turns = q->run / turn;
        mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, turns), 1, "k");
        LLVMValueRef xk = mpqc_b_gep(e, x, mpqc_b_madd(e, loop.iv, 4 * turn, constant(q, 0)));
        LLVMValueRef at = mpqc_b_madd(e, loop.iv, turn * step_bytes(q), constant(q, 0));
        LLVMValueRef wk = mpqc_b_gep(e, w, at);
        for (int64_t i = 0; i < turn; i++)
            step(q, m, mpqc_b_gep_const(e, xk, 4 * i), mpqc_b_gep_const(e, wk, i * step_bytes(q)));
        mpqc_b_loop_end(e, &loop);
        k = turns * turn;
    }
    for (; k < q->run; k++)
        step(q, m, mpqc_b_gep_const(e, x, 4 * k), mpqc_b_gep_const(e, w, k * step_bytes(q)));
}

/* n times `inner`, in steps of x and w; `steps`: of one. */
static void repeat(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w, int64_t n,
                   int64_t x_step, int64_t steps, const char *name,
                   void (*inner)(struct mpqc_serial *, int64_t, LLVMValueRef, LLVMValueRef))
{
    struct mpqc_emit_cx *e = q->e;
    int64_t w_step = steps * step_bytes(q);
    if (n == 1 || short_enough(q, m, n * steps)) {
        for (int64_t i = 0; i < n; i++)
            inner(q, m, mpqc_b_gep_const(e, x, i * x_step), mpqc_b_gep_const(e, w, i * w_step));
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, n), 1, name);
    LLVMValueRef xi = mpqc_b_madd(e, loop.iv, x_step, constant(q, 0));
    LLVMValueRef wi = mpqc_b_madd(e, loop.iv, w_step, constant(q, 0));
    inner(q, m, mpqc_b_gep(e, x, xi), mpqc_b_gep(e, w, wi));
    mpqc_b_loop_end(e, &loop);
}

static void row_of_taps(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w)
{
    repeat(q, m, x, w, q->runs, 4 * q->dw * q->words, q->run, "tap", run);
}

/* ---- the end ----------------------------------------------------------------------------- */

/* The sums of position p: all planes in their places; of signs, twice that less the window's
 * sum of activations. */
static void finish(struct mpqc_serial *q, int64_t p, const LLVMValueRef *bias,
                   LLVMValueRef window, LLVMValueRef *sum)
{
    struct mpqc_emit_cx *e = q->e;
    for (unsigned v = 0; v < q->c->n; v++) {
        LLVMTypeRef t = LLVMVectorType(e->i32, q->c->lanes[v]);
        LLVMValueRef one = mpqc_b_splat(e, t, 1), total = NULL, start = bias[v];
        for (unsigned s = mpqc_serial_sums(q->l); s-- > 0;) {
            LLVMValueRef acc = LLVMBuildLoad2(e->b, t, *var_of(q, p, v, s), "");
            total = total ? LLVMBuildAdd(e->b, LLVMBuildShl(e->b, total, one, ""), acc, "") : acc;
        }
        if (q->l->w_bits == 1) {
            total = LLVMBuildShl(e->b, total, one, "");
            start = LLVMBuildSub(e->b, start, mpqc_b_broadcast(e, window, q->c->lanes[v]), "");
        }
        sum[v] = LLVMBuildAdd(e->b, total, start, "");
    }
}

void mpqc_serial_tile(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef sums,
                      LLVMValueRef position, LLVMValueRef residual)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    LLVMValueRef bias[MPQC_MAX_COLUMNS], sum[MPQC_MAX_COLUMNS], window = NULL;
    clear(q, m);
    repeat(q, m, x, q->panel_w, l->kh, q->dh * q->row, q->runs * q->run, "row", row_of_taps);
    mpqc_epilogue_columns(e, q->ep, q->c, q->channel);
    mpqc_epilogue_bias(e, q->ep, q->c, q->channel, bias);
    for (int64_t p = 0; p < m; p++) {
        if (l->w_bits == 1) window = mpqc_b_load(e, e->i32, mpqc_b_gep_const(e, sums, 4 * p), 4);
        finish(q, p, bias, window, sum);
        mpqc_epilogue_store(e, q->ep, sum,
                            LLVMBuildNSWAdd(e->b, position, constant(q, p * l->out_col), ""),
                            LLVMBuildNSWAdd(e->b, residual, constant(q, p * l->res_col), ""), NULL);
    }
}
