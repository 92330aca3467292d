/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Bytes of activations to planes of their bits, 64 channels at a time: with AVX-512 one test
 * (vptestmb) and one store of a mask for each plane.  A pixel is filled up to whole words with
 * zeros.
 */
#include "codegen/bitserial.h"

/* Channels of a test; of a word. */
enum { CHUNK = 64, WORD = 32 };
/* Straight-line code: chunks of a pixel, words of a sum, taps of a window. */
enum { UNROLLED_CHUNKS = 8, UNROLLED_WORDS = 32, UNROLLED_TAPS = 25 };

static LLVMValueRef constant(const struct mpqc_serial *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

static LLVMValueRef at(struct mpqc_serial *q, LLVMValueRef p, LLVMValueRef n, int64_t step)
{
    return mpqc_b_gep(q->e, p, mpqc_b_madd(q->e, n, step, constant(q, 0)));
}

/* ---- bits ------------------------------------------------------------------------------ */

/* The first n bytes at p, zeros behind them; no others are touched. */
static LLVMValueRef load_chunk(struct mpqc_serial *q, LLVMValueRef p, int64_t n)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMTypeRef type[] = {LLVMVectorType(e->i8, CHUNK), e->ptr};
    if (n >= CHUNK || e->target->vector_bytes < CHUNK)
        return mpqc_b_load_bytes(e, p, (unsigned)n, CHUNK, true);
    LLVMValueRef lane[CHUNK];
    for (int64_t i = 0; i < CHUNK; i++) lane[i] = LLVMConstInt(e->i1, i < n, 0);
    LLVMValueRef args[] = {p, mpqc_b_i32(e, 1), LLVMConstVector(lane, CHUNK),
                           LLVMConstNull(type[0])};
    return mpqc_b_intrinsic(e, "llvm.masked.load", type, 2, args, 4);
}

/* The words of n channels, in all their copies. */
static void store_words(struct mpqc_serial *q, LLVMValueRef bits, int64_t n, LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    if (q->word == 4) {
        mpqc_b_store(e, n <= WORD ? LLVMBuildTrunc(e->b, bits, e->i32, "") : bits, to, 4);
        return;
    }
    LLVMValueRef words = LLVMBuildBitCast(e->b, bits, LLVMVectorType(e->i32, 2), "");
    for (int32_t i = 0; WORD * i < n; i++) {
        LLVMValueRef word = LLVMBuildExtractElement(e->b, words, mpqc_b_i32(e, i), "");
        mpqc_b_store(e, mpqc_b_broadcast(e, word, (unsigned)q->word / 4),
                     mpqc_b_gep_const(e, to, i * q->word), 16);
    }
}

/* n channels at `from` to their words in all planes. */
static void chunk(struct mpqc_serial *q, LLVMValueRef from, int64_t n, LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_counter *counter = e->target->isa->counter;
    LLVMValueRef v = load_chunk(q, from, n);
    for (unsigned i = 0; i < q->l->x_bits; i++)
        store_words(q, counter->plane(e, v, i, q->l->x_bits == 1), n,
                    mpqc_b_gep_const(e, to, i * q->plane));
}

/* `bytes` channels that lie in line, also beyond one pixel. */
static void line(struct mpqc_serial *q, LLVMValueRef from, int64_t bytes, LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t whole = bytes / CHUNK, words = CHUNK / WORD * q->word;
    if (whole > UNROLLED_CHUNKS) {
        struct mpqc_loop loop;
        mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, whole), 1, "chunk");
        chunk(q, at(q, from, loop.iv, CHUNK), CHUNK, at(q, to, loop.iv, words));
        mpqc_b_loop_end(e, &loop);
    } else {
        for (int64_t i = 0; i < whole; i++)
            chunk(q, mpqc_b_gep_const(e, from, i * CHUNK), CHUNK,
                  mpqc_b_gep_const(e, to, i * words));
    }
    if (bytes % CHUNK)
        chunk(q, mpqc_b_gep_const(e, from, whole * CHUNK), bytes % CHUNK,
              mpqc_b_gep_const(e, to, whole * words));
}

/* A row of `cols` pixels. */
static void row_planes(struct mpqc_serial *q, LLVMValueRef from, int64_t cols, LLVMValueRef to)
{
    int64_t channels = q->l->icg;
    if (channels % WORD == 0 && q->pitch_col == channels) {
        line(q, from, cols * channels, to);
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(q->e, &loop, constant(q, 0), constant(q, cols), 1, "pixel");
    line(q, at(q, from, loop.iv, q->pitch_col), channels, at(q, to, loop.iv, q->word * q->words));
    mpqc_b_loop_end(q->e, &loop);
}

/* ---- sums -------------------------------------------------------------------------------- */

/* Bits that are set in the word of `type` at p. */
static LLVMValueRef count(struct mpqc_serial *q, LLVMTypeRef type, LLVMValueRef p)
{
    LLVMValueRef v = mpqc_b_load(q->e, type, p, 4);
    v = mpqc_b_intrinsic(q->e, "llvm.ctpop", &type, 1, &v, 1);
    return type == q->e->i32 ? v : LLVMBuildTrunc(q->e->b, v, q->e->i32, "");
}

/* Of one plane of a pixel. */
static LLVMValueRef plane_sum(struct mpqc_serial *q, LLVMValueRef p)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef sum = mpqc_b_i32(e, 0);
    int64_t pairs = q->words / 2;
    if (q->words <= UNROLLED_WORDS) {
        for (int64_t i = 0; i < pairs; i++)
            sum = LLVMBuildAdd(e->b, sum, count(q, e->i64, mpqc_b_gep_const(e, p, 8 * i)), "");
    } else {
        LLVMValueRef var = mpqc_b_var(e, e->i32, "bits");
        struct mpqc_loop loop;
        mpqc_b_store(e, sum, var, 4);
        mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, pairs), 1, "word");
        sum = LLVMBuildAdd(e->b, mpqc_b_load(e, e->i32, var, 4),
                           count(q, e->i64, at(q, p, loop.iv, 8)), "");
        mpqc_b_store(e, sum, var, 4);
        mpqc_b_loop_end(e, &loop);
        sum = mpqc_b_load(e, e->i32, var, 4);
    }
    if (q->words % 2)
        sum = LLVMBuildAdd(e->b, sum, count(q, e->i32, mpqc_b_gep_const(e, p, 8 * pairs)), "");
    return sum;
}

/* Of a pixel, from its planes. */
static LLVMValueRef planes_sum(struct mpqc_serial *q, LLVMValueRef p)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef sum = plane_sum(q, p);
    for (unsigned i = 1; i < q->l->x_bits; i++) {
        LLVMValueRef more = plane_sum(q, mpqc_b_gep_const(e, p, i * q->plane));
        sum = LLVMBuildAdd(e->b, sum, LLVMBuildShl(e->b, more, mpqc_b_i32(e, (int32_t)i), ""), "");
    }
    return sum;
}

/* sum[lane] + codes of n channels: no byte of four added ones overflows. */
static LLVMValueRef add_codes(struct mpqc_serial *q, LLVMValueRef from, int64_t n, LLVMValueRef sum)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef v = load_chunk(q, from, n), bytes = mpqc_b_part(e, v, 0, 16);
    for (unsigned i = 16; i < n; i += 16)
        bytes = LLVMBuildAdd(e->b, bytes, mpqc_b_part(e, v, i, 16), "");
    return e->target->isa->counter->add_bytes(e, sum, bytes, false);
}

/* Of a pixel, from its bytes: where counts are brought from vectors, that is less than counting. */
static LLVMValueRef codes_sum(struct mpqc_serial *q, LLVMValueRef x)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMTypeRef t = LLVMVectorType(e->i32, 4);
    LLVMValueRef sum = LLVMConstNull(t);
    int64_t whole = q->l->icg / CHUNK, rest = q->l->icg % CHUNK;
    if (whole > UNROLLED_CHUNKS) {
        LLVMValueRef var = mpqc_b_var(e, t, "codes");
        struct mpqc_loop loop;
        mpqc_b_store(e, sum, var, 16);
        mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, whole), 1, "chunk");
        sum = add_codes(q, at(q, x, loop.iv, CHUNK), CHUNK, mpqc_b_load(e, t, var, 16));
        mpqc_b_store(e, sum, var, 16);
        mpqc_b_loop_end(e, &loop);
        sum = mpqc_b_load(e, t, var, 16);
    } else {
        for (int64_t i = 0; i < whole; i++)
            sum = add_codes(q, mpqc_b_gep_const(e, x, CHUNK * i), CHUNK, sum);
    }
    if (rest) sum = add_codes(q, mpqc_b_gep_const(e, x, CHUNK * whole), rest, sum);
    return mpqc_b_intrinsic(e, "llvm.vector.reduce.add", &t, 1, &sum, 1);
}

/* Of the pixels of a row, whose bytes are at x. */
static void row_sums(struct mpqc_serial *q, LLVMValueRef x, LLVMValueRef planes, int64_t cols,
                     LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, cols), 1, "pixel.sum");
    LLVMValueRef sum = q->most ? codes_sum(q, at(q, x, loop.iv, q->pitch_col))
                               : planes_sum(q, at(q, planes, loop.iv, q->word * q->words));
    mpqc_b_store(e, sum, at(q, to, loop.iv, 4), 4);
    mpqc_b_loop_end(e, &loop);
}

static LLVMValueRef add_taps(struct mpqc_serial *q, LLVMValueRef from, LLVMValueRef sum)
{
    struct mpqc_emit_cx *e = q->e;
    for (int64_t i = 0; i < q->l->kw; i++)
        sum = LLVMBuildAdd(e->b, sum,
                           mpqc_b_load(e, e->i32, mpqc_b_gep_const(e, from, 4 * i * q->dw), 4), "");
    return sum;
}

/* Of one window, whose first pixel's sum is at `from`. */
static LLVMValueRef window_sum(struct mpqc_serial *q, LLVMValueRef from)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t step = 4 * q->dh * q->cols_in;
    LLVMValueRef sum = mpqc_b_i32(e, 0);
    if (q->l->kh * q->l->kw <= UNROLLED_TAPS) {
        for (int64_t i = 0; i < q->l->kh; i++)
            sum = add_taps(q, mpqc_b_gep_const(e, from, i * step), sum);
        return sum;
    }
    struct mpqc_loop loop;
    LLVMValueRef var = mpqc_b_var(e, e->i32, "window");
    mpqc_b_store(e, sum, var, 4);
    mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, q->l->kh), 1, "tap.row");
    sum = add_taps(q, at(q, from, loop.iv, step), mpqc_b_load(e, e->i32, var, 4));
    mpqc_b_store(e, sum, var, 4);
    mpqc_b_loop_end(e, &loop);
    return mpqc_b_load(e, e->i32, var, 4);
}

static void window_sums(struct mpqc_serial *q, LLVMValueRef rows, int64_t cols)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_loop y, x;
    mpqc_b_loop_begin(e, &y, constant(q, 0), rows, 1, "sum.row");
    LLVMValueRef from = at(q, q->pixel_sums, y.iv, 4 * q->sh * q->cols_in);
    LLVMValueRef to = at(q, q->window_sums, y.iv, 4 * q->cols);
    mpqc_b_loop_begin(e, &x, constant(q, 0), constant(q, cols), 1, "sum");
    LLVMValueRef sum = window_sum(q, at(q, from, x.iv, 4 * q->sw));
    mpqc_b_store(e, sum, at(q, to, x.iv, 4), 4);
    mpqc_b_loop_end(e, &x);
    mpqc_b_loop_end(e, &y);
}

void mpqc_serial_planes(struct mpqc_serial *q, LLVMValueRef x, LLVMValueRef rows, int64_t cols)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t cols_in = (cols - 1) * q->sw + (q->l->kw - 1) * q->dw + 1;
    struct mpqc_loop loop;
    LLVMValueRef n = mpqc_b_madd(e, rows, q->sh, constant(q, (q->l->kh - 1) * q->dh + 1 - q->sh));
    mpqc_b_loop_begin(e, &loop, constant(q, 0), n, 1, "planes");
    LLVMValueRef to = at(q, q->planes, loop.iv, q->row), from = at(q, x, loop.iv, q->pitch_row);
    row_planes(q, from, cols_in, to);
    if (q->pixel_sums)
        row_sums(q, from, to, cols_in, at(q, q->pixel_sums, loop.iv, 4 * q->cols_in));
    mpqc_b_loop_end(e, &loop);
    if (q->pixel_sums != q->window_sums) window_sums(q, rows, cols);
}
