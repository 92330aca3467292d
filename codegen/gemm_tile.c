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

/* What the first set starts from, [position or pair][vector][acc_per_column]: the bias if one
 * accumulator stands for one column, else zero. */
static void first_values(struct gemm *q, LLVMValueRef *first)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t all = all_accumulators(q), per = q->c->n * acc_per_column(q);
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
                    LLVMValueRef *var = acc_var(q, set, m, v) + a;
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
                                   acc_var(q, set, m, v)[a]);
}

/* Where the weights of a step are: step i of the bundle of n steps at w + at. */
struct place {
    LLVMValueRef w;
    int64_t at;
    unsigned i, n;
};

int64_t mpqc_gemm_step_bytes(const struct gemm *q)
{
    return q->l->per_lane * mpqc_columns_lanes(q->c);
}

/* Step k of `all` that start with a bundle at w. */
static struct place place_of(const struct gemm *q, LLVMValueRef w, int64_t k, int64_t all)
{
    int64_t bundle = mpqc_packing_of(q->l->bits).steps, first = k / bundle * bundle;
    int64_t n = all - first < bundle ? all - first : bundle;
    return (struct place){w, mpqc_packed_rows(q->l->bits, first) * mpqc_gemm_step_bytes(q),
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
    unsigned per = q->l->per_lane;
    LLVMTypeRef t = LLVMVectorType(e->i8, per * q->c->lanes[v]);
    int64_t row_bytes = per * mpqc_columns_lanes(q->c), at = from.at + per * column;
    if (form.n == 0) return mpqc_b_load(e, t, mpqc_b_gep_const(e, from.w, at), 4 * per);
    LLVMValueRef code = NULL;
    for (unsigned p = 0; p < form.n; p++) {
        unsigned bits = form.bits[p], row = from.i / (8 / bits);
        LLVMValueRef bytes =
            mpqc_b_load(e, t, mpqc_b_gep_const(e, from.w, at + row * row_bytes), 4 * per);
        LLVMValueRef part = unpack_plane(q, bytes, bits, from.i, form.shift[p]);
        code = code ? LLVMBuildOr(e->b, code, part, "") : part;
        at += (from.n * bits + 7) / 8 * row_bytes;
    }
    return LLVMBuildSub(e->b, code, mpqc_b_splat(e, t, 1 << (q->l->bits - 1)), "");
}

/* Four bytes to all lanes.  Where narrower columns take a part of them, LLVM would see that
 * they could be broadcast by themselves, and the word would come by a general register, to
 * be broadcast by the unit that multiplies. */
static LLVMValueRef broadcast(struct gemm *q, LLVMValueRef x4)
{
    LLVMValueRef x = mpqc_b_broadcast(q->e, x4, q->lanes);
    for (unsigned v = 0; v < q->c->n; v++)
        if (q->c->lanes[v] < q->lanes) return mpqc_b_opaque_vector(q->e, x);
    return x;
}

/* Four bytes at p, of which `bytes` exist (4, or fewer where exact loads are needed). */
static LLVMValueRef word(struct gemm *q, LLVMValueRef p, unsigned bytes)
{
    struct mpqc_emit_cx *e = q->e;
    if (bytes == 4) return mpqc_b_load(e, e->i32, p, 1);
    return LLVMBuildBitCast(e->b, mpqc_b_load_bytes(e, p, bytes, 4, true), e->i32, "");
}

/* Do groups share a vector? */
static bool spreads(const struct gemm *q)
{
    return q->l->fan && q->l->fan < q->lanes;
}

/* Groups that share a vector: four bytes from `at` on in each one's inputs, to its lanes.  The
 * inputs of the first group are at p. */
static LLVMValueRef spread(struct gemm *q, LLVMValueRef p, int64_t at, unsigned lanes)
{
    int order[MPQC_MAX_LANES];
    int64_t fan = q->l->fan, words = q->l->icg / 4;
    LLVMTypeRef type = LLVMVectorType(q->e->i32, (unsigned)(lanes / fan * words));
    LLVMValueRef x = mpqc_b_load(q->e, type, p, 1);
    MPQC_ASSERT(lanes <= MPQC_MAX_LANES);
    for (unsigned i = 0; i < lanes; i++) order[i] = (int)(i / fan * words + at / 4);
    return mpqc_b_shuffle(q->e, x, LLVMGetPoison(type), order, lanes);
}

/* The activations of a vector, prepared.  Usually all vectors have the same (`all`); with
 * joined groups its own, whose inputs are those of lane `column` of the panel; p: those of its
 * first lane. */
static void vector_inputs(struct gemm *q, LLVMValueRef p, int64_t at, unsigned bytes,
                          unsigned lanes, int64_t column, const LLVMValueRef *all,
                          LLVMValueRef *out)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_isa *isa = e->target->isa;
    if (q->l->fan) {
        LLVMValueRef x;
        p = mpqc_b_gep_const(e, p, column / q->l->fan * q->l->icg);
        if (lanes > q->l->fan) x = spread(q, p, at, lanes);
        else x = mpqc_b_broadcast(e, word(q, mpqc_b_gep_const(e, p, at), bytes), lanes);
        isa->prepare_x(e, x, out);
        return;
    }
    for (unsigned i = 0; i < isa->x_values; i++) {
        unsigned n = LLVMGetVectorSize(LLVMTypeOf(all[i]));
        out[i] = mpqc_b_part(e, all[i], 0, n * lanes / q->lanes);
    }
}

/* One step of four bytes: `bytes` of them exist (4, or fewer where exact loads are needed). */
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
        LLVMValueRef p = mpqc_b_gep_const(e, x, at), xs[4], part[4];
        if (!q->l->fan)
            isa->prepare_x(e, broadcast(q, word(q, mpqc_b_gep_const(e, p, x_at), bytes)), xs);
        column = 0;
        for (unsigned v = 0; v < q->c->n; column += q->c->lanes[v++]) {
            LLVMValueRef *var = acc_var(q, set, m, v), acc[2];
            vector_inputs(q, p, x_at, bytes, q->c->lanes[v], column, xs, part);
            LLVMTypeRef type = LLVMVectorType(e->i32, q->c->lanes[v]);
            for (unsigned a = 0; a < isa->acc_per_column; a++)
                acc[a] = LLVMBuildLoad2(e->b, type, var[a], "");
            isa->dot(e, acc, part, ws[v]);
            if (mpqc_isa_adds(isa) && q->mh * q->mw > 1) acc[0] = mpqc_b_in_order(e, acc[0]);
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
    unsigned loaded = n == 3 ? 16 : 4 * n; /* of three groups, one load too many bytes is best */
    /* Where positions overlap, LLVM would cut a short load out of a long one, by scalars. */
    if (n < f->steps && q->l->x_col < 16) x = mpqc_b_alias(e, x, constant(q, x_at));
    if (bytes == 4 * n && e->plan->place[q->l->x].space == MPQC_SPACE_ARENA) bytes = loaded;
    for (unsigned m = 0; m < s.m && !q->l->braid; m++) {
        int64_t at = m / q->mw * q->l->x_row + m % q->mw * q->l->x_col;
        s.x[m] = mpqc_b_load_bytes(e, mpqc_b_gep_const(e, x, x_at + at), bytes, loaded, true);
    }
    if (q->l->braid) mpqc_braid_inputs(q, x, x_at > 0, &s);
    else f->prepare(e, &s);
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
    int64_t most = q->l->group ? MPQC_UNROLL_GROUP : MPQC_UNROLL_BYTES;
    return mpqc_steps_code(q->e->target->isa, q->t->form, q->l->bits, n, q->mh * q->mw,
                           q->c->n) <= most;
}

/* The largest block for `left` groups. */
static unsigned block_steps(const struct mpqc_form *f, int64_t left)
{
    unsigned n = f->steps;
    if (left == 3 && f->wide == 1) return 3;
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
        mpqc_prefetch_step(q, w, k);
        step(q, x, 4 * k, place_of(q, w, k, q->l->k4), (unsigned)(k % q->t->split), bytes);
    }
}

void mpqc_gemm_run(struct gemm *q, LLVMValueRef x, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t k4 = q->l->k4, whole = q->l->exact ? q->l->run / 4 : k4, n = q->t->unroll;
    int64_t bundle = mpqc_packing_of(q->l->bits).steps, taken = q->t->form ? q->t->form->steps : 1;
    if (bundle < taken) bundle = taken;
    n = (n + bundle - 1) / bundle * bundle;
    /* where a step is must be known where groups or rows go together */
    if (short_enough(q, k4) || whole / n < 2 || spreads(q) || q->l->braid) {
        steps(q, x, w, 0, k4);
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, whole / n), 1, "k");
    LLVMValueRef xk = mpqc_b_gep(e, x, mpqc_b_madd(e, loop.iv, 4 * n, constant(q, 0)));
    int64_t body_w = mpqc_packed_rows(q->l->bits, n) * mpqc_gemm_step_bytes(q);
    LLVMValueRef wk = mpqc_b_gep(e, w, mpqc_b_madd(e, loop.iv, body_w, constant(q, 0)));
    for (int64_t i = 0; i < n; i += taken) {
        mpqc_prefetch_step(q, wk, i);
        if (q->t->form) block(q, xk, 4 * i, wk, i, (unsigned)taken, n, 4 * (unsigned)taken);
        else step(q, xk, 4 * i, place_of(q, wk, i, n), (unsigned)(i % q->t->split), 4);
    }
    mpqc_b_loop_end(e, &loop);
    steps(q, x, w, whole / n * n, k4);
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

/* The accumulators of position m (or of a pair) and vector v, of all sets. */
static void load_accumulators(struct gemm *q, int64_t m, unsigned v, LLVMValueRef *acc)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMTypeRef type = LLVMVectorType(e->i32, q->c->lanes[v]);
    for (unsigned a = 0; a < acc_per_column(q); a++) {
        acc[a] = LLVMBuildLoad2(e->b, type, acc_var(q, 0, m, v)[a], "");
        for (unsigned set = 1; set < q->t->split; set++)
            acc[a] = LLVMBuildAdd(
                e->b, acc[a], LLVMBuildLoad2(e->b, type, acc_var(q, set, m, v)[a], ""), "");
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
    kept |= !short_enough(q, q->l->n_outer * q->l->n_inner * q->l->k4);
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
