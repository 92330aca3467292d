/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The code of convolutions and matrix products.
 *
 * A register tile of m positions x nv column vectors accumulates over all runs, then
 * goes through the epilogue.  Around it, from the outside: blocks of units, groups,
 * panels, units, tiles of a unit.  Zero point and x_offset are in the bias, halos in
 * memory, so nothing is tested in the inner loop.
 */
#include "codegen/linear.h"

struct gemm {
    struct mpqc_emit_cx *e;
    const struct mpqc_linear *l;
    const struct mpqc_tile *t;
    struct mpqc_epilogue *ep;
    LLVMValueRef x, w; /* operands */
    /* the panel at work */
    const struct mpqc_columns *c;
    LLVMValueRef channel, panel_w;
    unsigned lanes; /* of the widest vector */
    /* the tile at work */
    int64_t mh, mw;
    struct mpqc_amx amx;
    LLVMValueRef var[4 * 64]; /* [set][position][vector][acc_per_column] */
};

static LLVMValueRef constant(struct gemm *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

/* ---- one tile ------------------------------------------------------------------- */

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

/* How many there are in a set. */
static int64_t all_accumulators(const struct gemm *q)
{
    return (q->mh * q->mw + paired(q) - 1) / paired(q) * q->c->n * acc_per_column(q);
}

static LLVMValueRef *acc_var(struct gemm *q, unsigned set, int64_t m, unsigned v)
{
    unsigned apc = acc_per_column(q);
    int64_t i = set * all_accumulators(q) + (m / paired(q) * q->c->n + v) * apc;
    MPQC_ASSERT(i + apc <= (int64_t)MPQC_LEN(q->var));
    return &q->var[i];
}

/* The first set starts from the bias if one accumulator stands for one column, all
 * others from zero. */
static void begin_accumulators(struct gemm *q)
{
    struct mpqc_emit_cx *e = q->e;
    unsigned apc = acc_per_column(q);
    LLVMValueRef bias[MPQC_MAX_COLUMNS];
    if (from_bias(q)) mpqc_epilogue_bias(e, q->ep, q->c, q->channel, bias);
    for (unsigned set = 0; set < q->t->split; set++)
        for (int64_t m = 0; m < q->mh * q->mw; m += paired(q))
            for (unsigned v = 0; v < q->c->n; v++)
                for (unsigned a = 0; a < apc; a++) {
                    LLVMTypeRef type = LLVMVectorType(e->i32, q->c->lanes[v]);
                    LLVMValueRef *var = acc_var(q, set, m, v) + a;
                    *var = mpqc_b_var(e, type, "acc");
                    LLVMBuildStore(e->b,
                                   set == 0 && from_bias(q) ? bias[v] : LLVMConstNull(type),
                                   *var);
                }
}

/* Where the weights of a step are: step i of the bundle of n steps at w + at. */
struct place {
    LLVMValueRef w;
    int64_t at;
    unsigned i, n;
};

static int64_t step_bytes(const struct gemm *q)
{
    return 4 * mpqc_columns_lanes(q->c);
}

/* Step k of `all` that start with a bundle at w. */
static struct place place_of(const struct gemm *q, LLVMValueRef w, int64_t k, int64_t all)
{
    int64_t bundle = mpqc_packing_of(q->l->bits).steps, first = k / bundle * bundle;
    int64_t n = all - first < bundle ? all - first : bundle;
    return (struct place){w, mpqc_packed_rows(q->l->bits, first) * step_bytes(q),
                          (unsigned)(k - first), (unsigned)n};
}

/* One plane's part of the codes of a step, where it belongs in the byte. */
static LLVMValueRef unpack_plane(struct gemm *q, LLVMValueRef row, unsigned bits, unsigned step_of,
                                 unsigned shift)
{
    LLVMTypeRef t = LLVMTypeOf(row);
    LLVMBuilderRef b = q->e->b;
    unsigned right = bits * (step_of % (8 / bits));
    if (right > shift) row = LLVMBuildLShr(b, row, mpqc_b_splat(q->e, t, right - shift), "");
    if (right < shift) row = LLVMBuildShl(b, row, mpqc_b_splat(q->e, t, shift - right), "");
    return LLVMBuildAnd(b, row, mpqc_b_splat(q->e, t, ((1 << bits) - 1) << shift), "");
}

/* Vector v of a step's weights; `column` is its first lane in the panel. */
static LLVMValueRef load_weights(struct gemm *q, struct place from, unsigned v, int64_t column)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_packing form = mpqc_packing_of(q->l->bits);
    LLVMTypeRef t = LLVMVectorType(e->i8, 4 * q->c->lanes[v]);
    int64_t row_bytes = 4 * mpqc_columns_lanes(q->c), at = from.at + 4 * column;
    if (form.n == 0) return mpqc_b_load(e, t, mpqc_b_gep_const(e, from.w, at), 16);
    LLVMValueRef code = NULL;
    for (unsigned p = 0; p < form.n; p++) {
        unsigned bits = form.bits[p], row = from.i / (8 / bits);
        LLVMValueRef bytes =
            mpqc_b_load(e, t, mpqc_b_gep_const(e, from.w, at + row * row_bytes), 16);
        LLVMValueRef part = unpack_plane(q, bytes, bits, from.i, form.shift[p]);
        code = code ? LLVMBuildOr(e->b, code, part, "") : part;
        at += (from.n * bits + 7) / 8 * row_bytes;
    }
    return LLVMBuildSub(e->b, code, mpqc_b_splat(e, t, 1 << (q->l->bits - 1)), "");
}

/* One step of four: `bytes` of them exist (4, or fewer where exact loads are needed). */
static void step(struct gemm *q, LLVMValueRef x, int64_t x_at, struct place from, unsigned set,
                 unsigned bytes)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_isa *isa = e->target->isa;
    LLVMValueRef ws[MPQC_MAX_COLUMNS][4];
    int64_t column = 0;
    for (unsigned v = 0; v < q->c->n; column += q->c->lanes[v++])
        isa->prepare_w(e, load_weights(q, from, v, column), ws[v]);
    for (int64_t m = 0; m < q->mh * q->mw; m++) {
        int64_t at = m / q->mw * q->l->x_row + m % q->mw * q->l->x_col;
        LLVMValueRef p = mpqc_b_gep_const(e, x, x_at + at), xs[4], part[4], x4;
        if (bytes == 4) x4 = mpqc_b_load(e, e->i32, p, 1);
        else x4 = LLVMBuildBitCast(e->b, mpqc_b_load_bytes(e, p, bytes, 4, true), e->i32, "");
        isa->prepare_x(e, mpqc_b_broadcast(e, x4, q->lanes), xs);
        for (unsigned v = 0; v < q->c->n; v++) {
            LLVMValueRef *var = acc_var(q, set, m, v), acc[2];
            for (unsigned i = 0; i < isa->x_values; i++) {
                unsigned n = LLVMGetVectorSize(LLVMTypeOf(xs[i]));
                part[i] = mpqc_b_part(e, xs[i], 0, n * q->c->lanes[v] / q->lanes);
            }
            LLVMTypeRef type = LLVMVectorType(e->i32, q->c->lanes[v]);
            for (unsigned a = 0; a < isa->acc_per_column; a++)
                acc[a] = LLVMBuildLoad2(e->b, type, var[a], "");
            isa->dot(e, acc, part, ws[v]);
            for (unsigned a = 0; a < isa->acc_per_column; a++)
                LLVMBuildStore(e->b, acc[a], var[a]);
        }
    }
}

/* n groups of four of every position from x_at on, in the tile's form; `bytes` of them
 * exist.  Weights: steps [k, k + n) of `all` at w. */
static void block(struct gemm *q, LLVMValueRef x, int64_t x_at, LLVMValueRef w, int64_t k,
                  unsigned n, int64_t all, unsigned bytes)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_form *f = q->t->form;
    struct mpqc_form_step s = {.m = (unsigned)(q->mh * q->mw), .n = q->c->n, .steps = n};
    LLVMValueRef acc[MPQC_LEN(q->var)];
    s.wide = n < f->wide ? n : f->wide;
    s.acc = acc;
    for (unsigned m = 0; m < s.m; m++) {
        int64_t at = m / q->mw * q->l->x_row + m % q->mw * q->l->x_col;
        s.x[m] = mpqc_b_load_bytes(e, mpqc_b_gep_const(e, x, x_at + at), bytes, 4 * n, true);
    }
    f->prepare(e, &s);
    for (; s.step < n; s.step++) {
        LLVMValueRef *var = acc_var(q, s.step % q->t->split, 0, 0);
        struct place from = place_of(q, w, k + s.step, all);
        for (unsigned v = 0; v < s.n; v++) s.w[v] = load_weights(q, from, v, 4 * v);
        for (int64_t i = 0; i < all_accumulators(q); i++)
            acc[i] = LLVMBuildLoad2(e->b, LLVMVectorType(e->i32, 4), var[i], "");
        f->multiply(e, &s);
        for (int64_t i = 0; i < all_accumulators(q); i++) LLVMBuildStore(e->b, acc[i], var[i]);
    }
}

/* Are n steps worth straight-line code? */
static bool short_enough(const struct gemm *q, int64_t n)
{
    return mpqc_steps_code(q->e->target->isa, q->t->form, q->l->bits, n, q->mh * q->mw,
                           q->c->n) <= MPQC_UNROLL_BYTES;
}

/* The largest block for `left` groups. */
static unsigned block_steps(const struct mpqc_form *f, int64_t left)
{
    unsigned n = f->steps;
    while (n > left) n /= 2;
    return n;
}

/* Steps [from, to) of a run that starts at x and w. */
static void steps(struct gemm *q, LLVMValueRef x, LLVMValueRef w, int64_t from, int64_t to)
{
    for (int64_t k = from; k < to; k++) {
        int64_t left = q->l->run - 4 * k;
        unsigned n = q->t->form ? block_steps(q->t->form, to - k) : 1;
        unsigned bytes = q->l->exact && left < 4 * n ? (unsigned)left : 4 * n;
        if (q->t->form) {
            block(q, x, 4 * k, w, k, n, q->l->k4, bytes);
            k += n - 1;
            continue;
        }
        step(q, x, 4 * k, place_of(q, w, k, q->l->k4), (unsigned)(k % q->t->split), bytes);
    }
}

static void run(struct gemm *q, LLVMValueRef x, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t k4 = q->l->k4, whole = q->l->exact ? q->l->run / 4 : k4, n = q->t->unroll;
    int64_t bundle = mpqc_packing_of(q->l->bits).steps, taken = q->t->form ? q->t->form->steps : 1;
    if (bundle < taken) bundle = taken;
    n = (n + bundle - 1) / bundle * bundle;
    if (short_enough(q, k4) || whole / n < 2) {
        steps(q, x, w, 0, k4);
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, whole / n), 1, "k");
    LLVMValueRef xk = mpqc_b_gep(e, x, mpqc_b_madd(e, loop.iv, 4 * n, constant(q, 0)));
    int64_t body_w = mpqc_packed_rows(q->l->bits, n) * step_bytes(q);
    LLVMValueRef wk = mpqc_b_gep(e, w, mpqc_b_madd(e, loop.iv, body_w, constant(q, 0)));
    for (int64_t i = 0; i < n; i += taken) {
        if (q->t->form) block(q, xk, 4 * i, wk, i, (unsigned)taken, n, 4 * (unsigned)taken);
        else step(q, xk, 4 * i, place_of(q, wk, i, n), (unsigned)(i % q->t->split), 4);
    }
    mpqc_b_loop_end(e, &loop);
    steps(q, x, w, whole / n * n, k4);
}

/* Runs of the inner loop (taps of one row, if they are no single run). */
static void inner_runs(struct gemm *q, LLVMValueRef x, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t run_w = mpqc_run_bytes(q->l, q->c);
    if (short_enough(q, q->l->n_inner * q->l->k4) || q->l->n_inner == 1) {
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
    if (short_enough(q, all) || q->l->n_outer == 1) {
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

/* The sums of position m. */
static void take_accumulators(struct gemm *q, int64_t m, const LLVMValueRef *bias,
                              LLVMValueRef *sum)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_isa *isa = e->target->isa;
    for (unsigned v = 0; v < q->c->n; v++) {
        LLVMTypeRef type = LLVMVectorType(e->i32, q->c->lanes[v]);
        LLVMValueRef acc[4];
        for (unsigned a = 0; a < acc_per_column(q); a++) {
            acc[a] = LLVMBuildLoad2(e->b, type, acc_var(q, 0, m, v)[a], "");
            for (unsigned set = 1; set < q->t->split; set++)
                acc[a] = LLVMBuildAdd(
                    e->b, acc[a], LLVMBuildLoad2(e->b, type, acc_var(q, set, m, v)[a], ""), "");
        }
        sum[v] = q->t->form ? q->t->form->finish(e, acc, (unsigned)(m % paired(q)))
                            : isa->finish(e, acc);
        if (!from_bias(q)) sum[v] = LLVMBuildAdd(e->b, sum[v], bias[v], "");
    }
}

/* Position (y, z) of the tile, given its sums.  All i64. */
static void finish_position(struct gemm *q, LLVMValueRef *sum, LLVMValueRef position,
                            LLVMValueRef residual, LLVMValueRef y, LLVMValueRef z)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    position = mpqc_b_madd(e, y, l->out_row, mpqc_b_madd(e, z, l->out_col, position));
    residual = mpqc_b_madd(e, y, l->res_row, mpqc_b_madd(e, z, l->res_col, residual));
    mpqc_epilogue_store(e, q->ep, sum, position, residual, NULL);
}

/* All sums to memory, then a loop over positions: much less code than the same without
 * a loop. */
static void finish_rolled(struct gemm *q, const LLVMValueRef *bias, LLVMValueRef position,
                          LLVMValueRef residual)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t m = q->mh * q->mw, bytes = step_bytes(q), at;
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

/* position, residual: element offsets of the tile's first position, channel 0. */
static void tile(struct gemm *q, int64_t mh, int64_t mw, LLVMValueRef x, LLVMValueRef position,
                 LLVMValueRef residual)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef bias[MPQC_MAX_COLUMNS], sum[MPQC_MAX_COLUMNS];
    q->mh = mh;
    q->mw = mw;
    begin_accumulators(q);
    outer_runs(q, x, q->panel_w);
    mpqc_epilogue_columns(e, q->ep, q->c, q->channel);
    if (!from_bias(q)) mpqc_epilogue_bias(e, q->ep, q->c, q->channel, bias);
    position = LLVMBuildNSWAdd(e->b, position, q->channel, "");
    residual = LLVMBuildNSWAdd(e->b, residual, q->channel, "");
    if (q->t->rolled && mh * mw > 1) {
        finish_rolled(q, bias, position, residual);
        return;
    }
    for (int64_t m = 0; m < mh * mw; m++) {
        take_accumulators(q, m, bias, sum);
        finish_position(q, sum, position, residual, constant(q, m / mw), constant(q, m % mw));
    }
}

/* ---- units ------------------------------------------------------------------------ */

/* Where a unit or tile begins. */
struct origin {
    LLVMValueRef x, position, residual;
};

static struct origin move_columns(struct gemm *q, struct origin o, LLVMValueRef n)
{
    const struct mpqc_linear *l = q->l;
    o.x = mpqc_b_gep(q->e, o.x, mpqc_b_madd(q->e, n, l->x_col, constant(q, 0)));
    o.position = mpqc_b_madd(q->e, n, l->out_col, o.position);
    o.residual = mpqc_b_madd(q->e, n, l->res_col, o.residual);
    return o;
}

/* min(n * size, extent - size): where tile n begins if the last may be moved back. */
static LLVMValueRef moved_back(struct gemm *q, LLVMValueRef n, int64_t size, int64_t extent)
{
    LLVMValueRef at = mpqc_b_madd(q->e, n, size, constant(q, 0));
    if (extent % size == 0) return at;
    LLVMValueRef last = constant(q, extent - size);
    return LLVMBuildSelect(q->e->b, LLVMBuildICmp(q->e->b, LLVMIntSLT, at, last, ""), at, last,
                           "");
}

static void amx_unit(struct gemm *q, int64_t height, int64_t width, struct origin o)
{
    struct mpqc_amx_unit u = {.x = o.x, .height = height, .width = width};
    u.position = LLVMBuildNSWAdd(q->e->b, o.position, q->channel, "");
    u.residual = LLVMBuildNSWAdd(q->e->b, o.residual, q->channel, "");
    mpqc_amx_unit(&q->amx, &u);
}

/* All columns of `height` rows. */
static void unit(struct gemm *q, int64_t height, int64_t width, struct origin o)
{
    if (q->t->amx) {
        amx_unit(q, height, width, o);
        return;
    }
    int64_t mw = q->t->mw, n = width / mw, rest = width % mw;
    if (q->t->overlap && width > mw && rest) {
        n++;
        rest = 0;
    }
    if (n == 1) {
        tile(q, height, mw, o.x, o.position, o.residual);
    } else if (n > 1) {
        struct mpqc_loop loop;
        mpqc_b_loop_begin(q->e, &loop, constant(q, 0), constant(q, n), 1, "tile");
        struct origin at = move_columns(q, o, moved_back(q, loop.iv, mw, width));
        tile(q, height, mw, at.x, at.position, at.residual);
        mpqc_b_loop_end(q->e, &loop);
    }
    if (rest) {
        struct origin at = move_columns(q, o, constant(q, n * mw));
        tile(q, height, rest, at.x, at.position, at.residual);
    }
}

/* Unit r of image n.  The last one of an image may be smaller. */
static void any_unit(struct gemm *q, LLVMValueRef n, LLVMValueRef r, struct origin o)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    LLVMValueRef zero = constant(q, 0);
    int64_t size = l->flat ? q->t->mw : q->t->mh, extent = l->flat ? l->cols : l->rows;
    int64_t full = extent / size, rest = q->t->overlap ? 0 : extent % size;
    int64_t h = l->flat ? 1 : q->t->mh, w = l->flat ? q->t->mw : l->cols;
    LLVMValueRef at = q->t->overlap ? moved_back(q, r, size, extent)
                                    : mpqc_b_madd(e, r, size, zero);
    if (l->flat) {
        o = move_columns(q, o, at);
    } else {
        o.x = mpqc_b_gep(e, o.x, mpqc_b_madd(e, at, l->x_row, zero));
        o.position = mpqc_b_madd(e, at, l->out_row, o.position);
        o.residual = mpqc_b_madd(e, at, l->res_row, o.residual);
    }
    if (n) {
        o.x = mpqc_b_gep(e, o.x, mpqc_b_madd(e, n, l->x_batch, zero));
        o.position = mpqc_b_madd(e, n, l->out_batch, o.position);
        o.residual = mpqc_b_madd(e, n, l->res_batch, o.residual);
    }
    if (rest == 0) {
        unit(q, h, w, o);
        return;
    }
    struct mpqc_if branch;
    if (full > 0) {
        mpqc_b_if_begin(e, &branch, LLVMBuildICmp(e->b, LLVMIntSLT, r, constant(q, full), ""));
        unit(q, h, w, o);
        mpqc_b_if_end(e, &branch);
    }
    mpqc_b_if_begin(e, &branch, LLVMBuildICmp(e->b, LLVMIntSGE, r, constant(q, full), ""));
    unit(q, l->flat ? 1 : rest, l->flat ? rest : w, o);
    mpqc_b_if_end(e, &branch);
}

static void units(struct gemm *q, LLVMValueRef from, LLVMValueRef to, LLVMValueRef x)
{
    struct mpqc_emit_cx *e = q->e;
    struct origin o = {x, constant(q, 0), constant(q, 0)};
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, from, to, 1, "unit");
    LLVMValueRef n = NULL, r = loop.iv, per_image = constant(q, q->t->units);
    if (q->l->batch > 1) {
        n = LLVMBuildSDiv(e->b, loop.iv, per_image, "");
        r = LLVMBuildSRem(e->b, loop.iv, per_image, "");
    }
    any_unit(q, n, r, o);
    mpqc_b_loop_end(e, &loop);
}

/* ---- panels and groups ----------------------------------------------------------------- */

/* Panel at `channel` of group g (both i64), weights at w. */
static void panel(struct gemm *q, const struct mpqc_columns *c, LLVMValueRef g,
                  LLVMValueRef channel, LLVMValueRef w, LLVMValueRef from, LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    q->c = c;
    q->panel_w = w;
    q->lanes = 4;
    for (unsigned v = 0; v < c->n; v++)
        if (c->lanes[v] > q->lanes) q->lanes = c->lanes[v];
    q->channel = mpqc_b_madd(e, g, q->l->ocg, channel);
    LLVMValueRef at = mpqc_b_madd(e, g, q->l->icg, constant(q, q->l->x_first));
    q->amx.c = c;
    q->amx.channel = q->channel;
    q->amx.w = w;
    if (q->t->amx) mpqc_amx_panel_begin(&q->amx);
    units(q, from, to, mpqc_b_gep(e, q->x, at));
    if (q->t->amx) mpqc_amx_panel_end(&q->amx);
}

/* Panels [first, last) of group g; NULL: all. */
static void panels(struct gemm *q, LLVMValueRef g, LLVMValueRef first, LLVMValueRef last,
                   LLVMValueRef from, LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_panels *p = &q->t->panels;
    int64_t bytes = mpqc_panel_bytes(q->l, &p->full), n = p->n_full;
    LLVMValueRef w = mpqc_b_gep(
        e, q->w, mpqc_b_madd(e, g, mpqc_group_bytes(q->l, p), constant(q, 0)));
    LLVMValueRef zero = constant(q, 0), end = constant(q, n);
    if (n == 1 && !first) {
        panel(q, &p->full, g, zero, w, from, to);
    } else if (n > 0) {
        struct mpqc_loop loop;
        if (last) {
            LLVMValueRef less = LLVMBuildICmp(e->b, LLVMIntSLT, last, end, "");
            end = LLVMBuildSelect(e->b, less, last, end, "");
        }
        mpqc_b_loop_begin(e, &loop, first ? first : zero, end, 1, "panel");
        panel(q, &p->full, g, mpqc_b_madd(e, loop.iv, p->full.valid, zero),
              mpqc_b_gep(e, w, mpqc_b_madd(e, loop.iv, bytes, zero)), from, to);
        mpqc_b_loop_end(e, &loop);
    }
    int64_t channel = n * p->full.valid, at = n * bytes;
    for (unsigned r = 0; r < p->n_rest; r++) {
        struct mpqc_if branch;
        if (first) {
            LLVMValueRef i = constant(q, n + r);
            LLVMValueRef in = LLVMBuildICmp(e->b, LLVMIntSLE, first, i, "");
            in = LLVMBuildAnd(e->b, in, LLVMBuildICmp(e->b, LLVMIntSGT, last, i, ""), "");
            mpqc_b_if_begin(e, &branch, in);
        }
        panel(q, &p->rest[r], g, constant(q, channel), mpqc_b_gep_const(e, w, at), from, to);
        if (first) mpqc_b_if_end(e, &branch);
        channel += p->rest[r].valid;
        at += mpqc_panel_bytes(q->l, &p->rest[r]);
    }
}

static void groups(struct gemm *q, LLVMValueRef from, LLVMValueRef to)
{
    if (q->l->groups == 1) {
        panels(q, constant(q, 0), NULL, NULL, from, to);
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(q->e, &loop, constant(q, 0), constant(q, q->l->groups), 1, "group");
    panels(q, loop.iv, NULL, NULL, from, to);
    mpqc_b_loop_end(q->e, &loop);
}

/* Halo of the rows of units [from, to). */
static void halos(struct gemm *q, const struct mpqc_kernel *k, LLVMValueRef from, LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_place *place = &e->plan->place[k->out];
    const struct mpqc_linear *l = q->l;
    if (!mpqc_place_has_halo(place)) return;
    MPQC_ASSERT(!l->flat);
    /* Rows of units [0, u): full images, then mh each, at most all rows of the image. */
    LLVMValueRef bound[2] = {from, to};
    for (int i = 0; i < 2; i++) {
        LLVMValueRef u = constant(q, q->t->units);
        LLVMValueRef n = LLVMBuildSDiv(e->b, bound[i], u, "");
        LLVMValueRef r = LLVMBuildSRem(e->b, bound[i], u, "");
        bound[i] = mpqc_b_madd(e, n, l->rows, mpqc_b_madd(e, r, q->t->mh, constant(q, 0)));
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, bound[0], bound[1], 1, "halo");
    mpqc_emit_halo(e, place, &mpqc_value_at(e->graph, k->out)->type, mpqc_epilogue_out(q->ep),
                   loop.iv);
    mpqc_b_loop_end(e, &loop);
}

static void all_units(struct gemm *q, const struct mpqc_kernel *k, LLVMValueRef from,
                      LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_panels *p = &q->t->panels;
    if (q->t->by_panel) {
        /* one unit: its halo belongs to the first panel */
        struct mpqc_if first;
        mpqc_b_if_begin(e, &first,
                        LLVMBuildICmp(e->b, LLVMIntEQ, from, constant(q, 0), ""));
        halos(q, k, constant(q, 0), constant(q, 1));
        mpqc_b_if_end(e, &first);
        panels(q, constant(q, 0), from, to, constant(q, 0), constant(q, 1));
        return;
    }
    halos(q, k, from, to);
    int64_t all = q->l->batch * q->t->units;
    bool single = q->l->groups == 1 && p->n_full + (int64_t)p->n_rest == 1;
    if (single || q->t->block >= all) {
        groups(q, from, to);
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, from, to, q->t->block, "block");
    LLVMValueRef end = LLVMBuildNSWAdd(e->b, loop.iv, constant(q, q->t->block), "");
    LLVMValueRef less = LLVMBuildICmp(e->b, LLVMIntSLT, end, to, "");
    groups(q, loop.iv, LLVMBuildSelect(e->b, less, end, to, ""));
    mpqc_b_loop_end(e, &loop);
}

void mpqc_gemm_body(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                    const struct mpqc_linear *l, const struct mpqc_tile *t,
                    struct mpqc_epilogue *ep, LLVMValueRef x, LLVMValueRef w, LLVMValueRef from,
                    LLVMValueRef to)
{
    struct gemm q = {.e = e, .l = l, .t = t, .ep = ep, .x = x, .w = w};
    q.amx = (struct mpqc_amx){.e = e, .l = l, .t = t, .ep = ep};
    if (t->amx) mpqc_amx_begin(e, t);
    all_units(&q, k, from, to);
    if (t->amx) mpqc_amx_end(e);
}
