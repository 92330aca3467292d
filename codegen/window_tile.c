/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The code of one tile of a window over channels: see window.h.
 */
#include "codegen/window.h"

static LLVMValueRef constant(struct mpqc_window_tile *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

static unsigned lanes(const struct mpqc_window_tile *q)
{
    return q->b->c.lanes[0];
}

/* Vectors of the pass: [first, first + n). */
static unsigned first_vector(const struct mpqc_window_tile *q)
{
    return q->plan->halves ? 2 * q->pass : 0;
}

static unsigned n_vectors(const struct mpqc_window_tile *q)
{
    return q->plan->halves ? 2 : 4;
}

/* ---- sums ---------------------------------------------------------------------------- */

/* v counts from the pass's first vector. */
static LLVMValueRef *acc_var(struct mpqc_window_tile *q, int64_t t, unsigned v)
{
    return &q->var[(t * n_vectors(q) + v) * q->e->target->isa->acc_per_column];
}

/* Biases of all positions, [position][four vectors].  AArch64 adds nothing from memory, and copies
 * of registers cost as much as dot products: there each is loaded by itself. */
static void load_biases(struct mpqc_window_tile *q, LLVMValueRef *bias)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t positions = q->height * q->width;
    LLVMValueRef from = NULL;
    if (e->target->arch == MPQC_ARCH_AARCH64) {
        mpqc_epilogue_biases(e, q->ep, &q->b->c, q->channel, positions, NULL, &from, bias);
        return;
    }
    mpqc_epilogue_bias(e, q->ep, &q->b->c, q->channel, bias);
    for (int64_t i = 4; i < 4 * positions; i++) bias[i] = bias[i - 4];
}

static void begin_accumulators(struct mpqc_window_tile *q)
{
    struct mpqc_emit_cx *e = q->e;
    unsigned apc = e->target->isa->acc_per_column, n = n_vectors(q);
    LLVMTypeRef type = LLVMVectorType(e->i32, lanes(q));
    LLVMValueRef bias[4 * MPQC_WINDOW_MAX_POSITIONS];
    if (apc == 1) load_biases(q, bias);
    for (int64_t i = 0; i < q->height * q->width * n * apc; i++) {
        q->var[i] = mpqc_b_var(e, type, "acc");
        LLVMValueRef from =
            apc == 1 ? bias[i / n * 4 + first_vector(q) + i % n] : LLVMConstNull(type);
        LLVMBuildStore(e->b, from, q->var[i]);
    }
}

/* In each 16-byte part: a0 b0 a1 b1 ..., of the lower or upper 8 bytes, in units of
 * `unit` bytes. */
static LLVMValueRef interleave(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b,
                               unsigned unit, bool upper)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(a));
    int order[64];
    for (unsigned i = 0; i < n; i++) {
        unsigned in = i % 16, which = in / unit % 2;
        unsigned from = i / 16 * 16 + (upper ? 8 : 0) + in / (2 * unit) * unit + in % unit;
        order[i] = (int)(which * n + from);
    }
    return mpqc_b_shuffle(e, a, b, order, n);
}

/* The block's channels at x, those of all positions that share it. */
static LLVMValueRef load_tap(struct mpqc_window_tile *q, LLVMValueRef x)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window_block *b = q->b;
    unsigned bytes = (unsigned)mpqc_window_channels(b);
    LLVMValueRef part[MPQC_MAX_SHARED];
    if (!b->c.shared) return mpqc_b_load_bytes(e, x, b->c.valid, bytes, q->exact);
    for (unsigned i = 0; i < b->c.shared; i++)
        part[i] = mpqc_b_load_bytes(e, mpqc_b_gep_const(e, x, b->start[i] * q->p->x_col),
                                    b->c.valid, bytes, q->exact);
    for (unsigned n = b->c.shared; n > 1; n /= 2)
        for (unsigned i = 0; i < n / 2; i++)
            part[i] = mpqc_b_join(e, part[2 * i], part[2 * i + 1]);
    return part[0];
}

/* The n taps (1..4) at x + at[i], interleaved: the vectors of the pass. */
static void load_taps(struct mpqc_window_tile *q, LLVMValueRef x, const int64_t *at, unsigned n,
                      LLVMValueRef *out)
{
    struct mpqc_emit_cx *e = q->e;
    unsigned bytes = 4 * lanes(q), first = first_vector(q) / 2;
    LLVMValueRef tap[4];
    for (unsigned i = 0; i < 4; i++)
        tap[i] = i < n ? load_tap(q, mpqc_b_gep_const(e, x, at[i]))
                       : LLVMConstNull(LLVMVectorType(e->i8, bytes));
    for (unsigned half = first; half < first + n_vectors(q) / 2; half++) {
        LLVMValueRef ab = interleave(e, tap[0], tap[1], 1, half);
        LLVMValueRef cd = interleave(e, tap[2], tap[3], 1, half);
        for (unsigned quarter = 0; quarter < 2; quarter++)
            *out++ = mpqc_b_as(e, interleave(e, ab, cd, 2, quarter), e->i32, lanes(q));
    }
}

/* Vector v of the weights of a pattern, which lie at w; `used` says which taps have one. */
static void load_weights(struct mpqc_window_tile *q, LLVMValueRef w, const bool used[4],
                         unsigned v, LLVMValueRef out[4])
{
    struct mpqc_emit_cx *e = q->e;
    unsigned n = 4 * lanes(q);
    LLVMTypeRef type = LLVMVectorType(e->i8, n);
    LLVMValueRef bytes;
    if (q->p->w) {
        bytes = mpqc_b_load(e, type, mpqc_b_gep_const(e, w, (first_vector(q) + v) * n), 16);
    } else {
        uint32_t ones = 0;
        for (unsigned i = 0; i < 4; i++) ones |= used[i] ? 1u << (8 * i) : 0;
        bytes = LLVMConstBitCast(
            mpqc_b_splat(e, LLVMVectorType(e->i32, lanes(q)), (int32_t)ones), type);
    }
    e->target->isa->prepare_w(e, bytes, out);
}

/* Vector v of output position t. */
static void dot(struct mpqc_window_tile *q, int64_t t, unsigned v, LLVMValueRef *x,
                LLVMValueRef *w)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_isa *isa = e->target->isa;
    LLVMTypeRef type = LLVMVectorType(e->i32, lanes(q));
    LLVMValueRef *var = acc_var(q, t, v), acc[2];
    for (unsigned a = 0; a < isa->acc_per_column; a++)
        acc[a] = LLVMBuildLoad2(e->b, type, var[a], "");
    isa->dot(e, acc, x, w);
    for (unsigned a = 0; a < isa->acc_per_column; a++) LLVMBuildStore(e->b, acc[a], var[a]);
}

/* Bytes of the weights of one pattern. */
static int64_t pattern_bytes(const struct mpqc_window_tile *q)
{
    return 16 * (int64_t)lanes(q);
}

/* Where the weights of pattern i are; of those that are not kept, for one use. */
static LLVMValueRef weights_of(struct mpqc_window_tile *q, int i, LLVMValueRef by)
{
    LLVMValueRef w = q->w;
    if (!q->b->kept[q->pass][i]) w = q->last_w = mpqc_b_alias(q->e, q->last_w, by);
    return mpqc_b_gep_const(q->e, w, i * pattern_bytes(q));
}

static void take_quartet(struct mpqc_window_tile *q, struct mpqc_window_origin o,
                         const struct mpqc_window_quartet *k)
{
    LLVMValueRef taps[4], ready[4], w[4];
    /* parts of vectors are so many loads that LLVM, if it may, begins with all of them */
    LLVMValueRef x = q->b->c.shared ? mpqc_b_opaque(q->e, o.x) : o.x;
    load_taps(q, x, k->at, k->n, taps);
    for (unsigned v = 0; v < n_vectors(q); v++) {
        q->e->target->isa->prepare_x(q->e, taps[v], ready);
        for (int64_t t = 0; t < q->height * q->width; t++) {
            if (k->pattern[t] < 0) continue;
            const int16_t *tap = q->plan->patterns[k->pattern[t]].tap;
            const bool used[] = {tap[0] >= 0, tap[1] >= 0, tap[2] >= 0, tap[3] >= 0};
            load_weights(q, weights_of(q, k->pattern[t], o.index), used, v, w);
            dot(q, t, v, ready, w);
        }
    }
}

/* ---- taps in loops ------------------------------------------------------------------- */

static void looped_pair(struct mpqc_window_tile *q, LLVMValueRef x, LLVMValueRef w, int64_t rows)
{
    LLVMValueRef taps[4], ready[4], ws[4];
    const bool used[] = {true, rows > 1, rows > 2, rows > 3};
    const int64_t at[] = {0, q->p->tap_row, 2 * q->p->tap_row, 3 * q->p->tap_row};
    load_taps(q, x, at, (unsigned)rows, taps);
    for (unsigned v = 0; v < 4; v++) {
        q->e->target->isa->prepare_x(q->e, taps[v], ready);
        load_weights(q, w, used, v, ws);
        dot(q, 0, v, ready, ws);
    }
}

/* One output column, loops over columns and groups of rows of the window. */
static void looped(struct mpqc_window_tile *q, LLVMValueRef x)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window *p = q->p;
    LLVMValueRef zero = constant(q, 0);
    int64_t whole = p->kh / 4, rest = p->kh % 4, bytes = q->plan->groups * pattern_bytes(q);
    struct mpqc_loop kw, g;
    mpqc_b_loop_begin(e, &kw, zero, constant(q, p->kw), 1, "tap.column");
    LLVMValueRef xc = mpqc_b_gep(e, x, mpqc_b_madd(e, kw.iv, p->tap_col, zero));
    LLVMValueRef wc = mpqc_b_gep(e, q->w, mpqc_b_madd(e, kw.iv, bytes, zero));
    if (whole > 0) {
        mpqc_b_loop_begin(e, &g, zero, constant(q, whole), 1, "tap.rows");
        looped_pair(q, mpqc_b_gep(e, xc, mpqc_b_madd(e, g.iv, 4 * p->tap_row, zero)),
                    mpqc_b_gep(e, wc, mpqc_b_madd(e, g.iv, pattern_bytes(q), zero)), 4);
        mpqc_b_loop_end(e, &g);
    }
    if (rest > 0) {
        looped_pair(q, mpqc_b_gep_const(e, xc, 4 * whole * p->tap_row),
                    mpqc_b_gep_const(e, wc, whole * pattern_bytes(q)), rest);
    }
    mpqc_b_loop_end(e, &kw);
}

/* ---- finishing ----------------------------------------------------------------------- */

static void take_sums(struct mpqc_window_tile *q, int64_t t, const LLVMValueRef *bias,
                      LLVMValueRef *sum)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_isa *isa = e->target->isa;
    LLVMTypeRef type = LLVMVectorType(e->i32, lanes(q));
    LLVMValueRef acc[2];
    for (unsigned v = 0; v < n_vectors(q); v++) {
        for (unsigned a = 0; a < isa->acc_per_column; a++)
            acc[a] = LLVMBuildLoad2(e->b, type, acc_var(q, t, v)[a], "");
        sum[v] = isa->finish(e, acc);
        if (isa->acc_per_column > 1)
            sum[v] = LLVMBuildAdd(e->b, sum[v], bias[first_vector(q) + v], "");
    }
}

/* Output column t of the first row of the tile. */
static struct mpqc_window_origin at_column(struct mpqc_window_tile *q, struct mpqc_window_origin o,
                                           LLVMValueRef t)
{
    o.position = mpqc_b_madd(q->e, t, q->p->out_col, o.position);
    o.residual = mpqc_b_madd(q->e, t, q->p->res_col, o.residual);
    o.index = mpqc_b_madd(q->e, t, 1, o.index);
    return o;
}

/* Position t of the tile. */
static struct mpqc_window_origin at_position(struct mpqc_window_tile *q,
                                             struct mpqc_window_origin o, int64_t t)
{
    const struct mpqc_window *p = q->p;
    LLVMValueRef row = constant(q, t / q->width);
    o.position = mpqc_b_madd(q->e, row, p->out_row, o.position);
    o.residual = mpqc_b_madd(q->e, row, p->res_row, o.residual);
    o.index = mpqc_b_madd(q->e, row, p->cols, o.index);
    return at_column(q, o, constant(q, t % q->width));
}

static void finish_rolled(struct mpqc_window_tile *q, struct mpqc_window_origin o,
                          const LLVMValueRef *bias)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMTypeRef type = LLVMVectorType(e->i32, lanes(q));
    int64_t bytes = 4 * (int64_t)lanes(q);
    LLVMValueRef sum[MPQC_MAX_COLUMNS];
    LLVMValueRef buffer = mpqc_b_var(e, LLVMArrayType2(type, (uint64_t)(4 * q->width)), "sums");
    for (int64_t t = 0; t < q->width; t++) {
        take_sums(q, t, bias, sum);
        for (unsigned v = 0; v < 4; v++)
            mpqc_b_store(e, sum[v], mpqc_b_gep_const(e, buffer, (4 * t + v) * bytes), 16);
    }
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, constant(q, 0), constant(q, q->width), 1, "finish");
    LLVMValueRef from =
        mpqc_b_gep(e, buffer, mpqc_b_madd(e, l.iv, 4 * bytes, constant(q, 0)));
    for (unsigned v = 0; v < 4; v++)
        sum[v] = mpqc_b_load(e, type, mpqc_b_gep_const(e, from, v * bytes), 16);
    struct mpqc_window_origin at = at_column(q, o, l.iv);
    mpqc_epilogue_store(e, q->ep, sum, at.position, at.residual, at.index);
    mpqc_b_loop_end(e, &l);
}

/* Position t: a first half is packed and put aside, a second one meets it again. */
static void finish_half(struct mpqc_window_tile *q, int64_t t, LLVMValueRef *sum,
                        struct mpqc_window_origin at)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t to = t / q->width * q->packed_row + t % q->width * 4 * lanes(q);
    LLVMValueRef half[2], place = mpqc_b_gep_const(e, q->packed, to);
    half[q->pass] = mpqc_epilogue_pack(e, q->ep, q->pass, sum, at.index);
    if (q->pass == 0) {
        mpqc_b_store(e, half[0], place, 16);
        return;
    }
    half[0] = mpqc_b_load(e, LLVMTypeOf(half[1]), place, 16);
    mpqc_epilogue_store_packed(e, q->ep, half, at.position, at.residual, at.index);
}

static void finish(struct mpqc_window_tile *q, int64_t t, struct mpqc_window_origin o,
                   const LLVMValueRef *bias)
{
    LLVMValueRef sum[MPQC_MAX_COLUMNS];
    struct mpqc_window_origin at = at_position(q, o, t);
    take_sums(q, t, bias, sum);
    if (q->plan->halves) finish_half(q, t, sum, at);
    else mpqc_epilogue_store(q->e, q->ep, sum, at.position, at.residual, at.index);
}

/* Straight-line: input columns from left to right, each output position finished when its
 * last tap is in. */
static void unrolled(struct mpqc_window_tile *q, struct mpqc_window_origin o,
                     const LLVMValueRef *bias)
{
    struct mpqc_window_quartet quartet[MPQC_WINDOW_MAX_QUARTETS];
    unsigned n = mpqc_window_quartets(q->p, q->plan, q->height, q->width, quartet);
    unsigned last[MPQC_WINDOW_MAX_POSITIONS] = {0};
    int64_t positions = q->height * q->width;
    MPQC_ASSERT(n > 0);
    q->last_w = q->w;
    for (unsigned i = 0; i < n; i++)
        for (int64_t t = 0; t < positions; t++)
            if (quartet[i].pattern[t] >= 0) last[t] = i;
    for (unsigned i = 0; i < n; i++) {
        take_quartet(q, o, &quartet[i]);
        for (int64_t t = 0; t < positions && !q->plan->rolled; t++)
            if (last[t] == i) finish(q, t, o, bias);
    }
    if (q->plan->rolled) finish_rolled(q, o, bias);
}

void mpqc_window_tile(struct mpqc_window_tile *q, struct mpqc_window_origin o)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef bias[MPQC_MAX_COLUMNS];
    begin_accumulators(q);
    mpqc_epilogue_columns(e, q->ep, &q->b->c, q->channel);
    if (e->target->isa->acc_per_column > 1)
        mpqc_epilogue_bias(e, q->ep, &q->b->c, q->channel, bias);
    if (!q->plan->loops) {
        unrolled(q, o, bias);
        return;
    }
    looped(q, o.x);
    finish(q, 0, o, bias);
}

struct mpqc_window_origin mpqc_window_move(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                                           struct mpqc_window_origin o, LLVMValueRef columns)
{
    o.x = mpqc_b_gep(e, o.x, mpqc_b_madd(e, columns, p->x_col, mpqc_b_i64(e, 0)));
    o.position = mpqc_b_madd(e, columns, p->out_col, o.position);
    o.residual = mpqc_b_madd(e, columns, p->res_col, o.residual);
    o.index = mpqc_b_madd(e, columns, 1, o.index);
    return o;
}
