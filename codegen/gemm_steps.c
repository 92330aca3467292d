/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The steps of a run: four bytes of K of every position times their weights, or a few times
 * as many where the tile has a form, to the accumulators of a tile; in a loop, if there are
 * many.
 */
#include "codegen/gemm.h"

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
            LLVMValueRef *var = mpqc_gemm_accumulators(q, set, m, v), acc[2];
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
    int64_t n_acc = mpqc_gemm_n_accumulators(q);
    s.wide = n < f->wide ? n : f->wide;
    s.acc = acc;
    unsigned loaded = n == 3 ? 16 : 4 * n; /* of three groups, one load too many bytes is best */
    /* Where positions overlap, LLVM would cut a short load out of a long one, by scalars. */
    if (n < f->steps && q->l->x_col < 16) x = mpqc_b_alias(e, x, mpqc_b_i64(e, x_at));
    if (bytes == 4 * n && e->plan->place[q->l->x].space == MPQC_SPACE_ARENA) bytes = loaded;
    for (unsigned m = 0; m < s.m && !q->l->braid; m++) {
        int64_t at = m / q->mw * q->l->x_row + m % q->mw * q->l->x_col;
        s.x[m] = mpqc_b_load_bytes(e, mpqc_b_gep_const(e, x, x_at + at), bytes, loaded, true);
    }
    if (q->l->braid) mpqc_braid_inputs(q, x, x_at > 0, &s);
    else f->prepare(e, &s);
    for (; s.step < n; s.step++) {
        LLVMValueRef *var = mpqc_gemm_accumulators(q, s.step % q->t->split, 0, 0);
        struct place from = place_of(q, w, k + s.step, all);
        for (unsigned v = 0; v < s.n; v++) s.w[v] = load_weights(q, from, v, 4 * v);
        for (int64_t i = 0; i < n_acc; i++)
            acc[i] = LLVMBuildLoad2(e->b, LLVMVectorType(e->i32, 4), var[i], "");
        f->multiply(e, &s);
        for (int64_t i = 0; i < n_acc; i++) LLVMBuildStore(e->b, acc[i], var[i]);
    }
}

bool mpqc_gemm_short(const struct gemm *q, int64_t n)
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
    if (mpqc_gemm_short(q, k4) || whole / n < 2 || spreads(q) || q->l->braid) {
        steps(q, x, w, 0, k4);
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, mpqc_b_i64(e, 0), mpqc_b_i64(e, whole / n), 1, "k");
    LLVMValueRef xk = mpqc_b_gep(e, x, mpqc_b_madd(e, loop.iv, 4 * n, mpqc_b_i64(e, 0)));
    int64_t body_w = mpqc_packed_rows(q->l->bits, n) * mpqc_gemm_step_bytes(q);
    LLVMValueRef wk = mpqc_b_gep(e, w, mpqc_b_madd(e, loop.iv, body_w, mpqc_b_i64(e, 0)));
    for (int64_t i = 0; i < n; i += taken) {
        mpqc_prefetch_step(q, wk, i);
        if (q->t->form) block(q, xk, 4 * i, wk, i, (unsigned)taken, n, 4 * (unsigned)taken);
        else step(q, xk, 4 * i, place_of(q, wk, i, n), (unsigned)(i % q->t->split), 4);
    }
    mpqc_b_loop_end(e, &loop);
    steps(q, x, w, whole / n * n, k4);
}
