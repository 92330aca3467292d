/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One register tile of a bit-serial kernel: m positions of a row x a panel's vectors, for
 * each of them an accumulator for every significance of a pair of planes.
 *
 * Where bits are counted by bytes, steps add to the sums in bytes.  A loop whose words do not fit
 * them any more is cut into blocks that do; behind each of them the sums are joined to the
 * accumulators, which then are in memory: they are wanted rarely.
 */
#include "codegen/bitserial.h"

/* Pairs that a turn of a loop should have at least; where each is three instructions, so that
 * no two words' operands are in registers at once. */
enum { PAIRS_OF_A_TURN = 24, PAIRS_OF_BYTES = 12 };

static LLVMValueRef constant(const struct mpqc_serial *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

/* Of the sum in var[] and byte[]. */
static int64_t index_of(const struct mpqc_serial *q, int64_t m, unsigned v, unsigned significance)
{
    int64_t i = (m * q->c->n + v) * mpqc_serial_sums(q->l) + significance;
    MPQC_ASSERT(i < MPQC_SERIAL_VARS);
    return i;
}

static int64_t step_bytes(const struct mpqc_serial *q)
{
    return 4 * q->l->w_bits * mpqc_columns_lanes(q->c);
}

/* A variable, or the memory that is given for it, set to 0. */
static LLVMValueRef zero_var(struct mpqc_emit_cx *e, LLVMTypeRef t, const char *name,
                             LLVMValueRef memory)
{
    LLVMValueRef var = memory ? memory : mpqc_b_var(e, t, name);
    LLVMBuildStore(e->b, LLVMConstNull(t), var);
    return var;
}

static void clear(struct mpqc_serial *q, int64_t m)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef memory = q->accumulators ? mpqc_b_opaque(e, q->accumulators) : NULL;
    q->since = 0;
    for (int64_t p = 0; p < m; p++)
        for (unsigned v = 0; v < q->c->n; v++)
            for (unsigned s = 0; s < mpqc_serial_sums(q->l); s++) {
                int64_t i = index_of(q, p, v, s);
                unsigned lanes = q->c->lanes[v];
                q->var[i] = zero_var(e, LLVMVectorType(e->i32, lanes), "acc",
                                     memory ? mpqc_b_gep_const(e, memory, 16 * i) : NULL);
                if (q->most)
                    q->byte[i] = zero_var(e, LLVMVectorType(e->i8, 4 * lanes), "bytes", NULL);
            }
}

/* Sums in bytes to the accumulators. */
static void join(struct mpqc_serial *q, int64_t m)
{
    struct mpqc_emit_cx *e = q->e;
    if (q->since == 0) return;
    q->since = 0;
    LLVMTypeRef t = LLVMVectorType(e->i32, (unsigned)q->word / 4);
    LLVMTypeRef bytes = LLVMVectorType(e->i8, (unsigned)q->word);
    for (int64_t i = 0; i < m * q->c->n * mpqc_serial_sums(q->l); i++) {
        LLVMValueRef acc = LLVMBuildLoad2(e->b, t, q->var[i], "");
        acc = e->target->isa->counter->add_bytes(
            e, acc, LLVMBuildLoad2(e->b, bytes, q->byte[i], ""), q->l->w_bits > 1);
        LLVMBuildStore(e->b, acc, q->var[i]);
        LLVMBuildStore(e->b, LLVMConstNull(bytes), q->byte[i]);
    }
}

/* Before so many more words. */
static void make_room(struct mpqc_serial *q, int64_t m, int64_t words)
{
    if (q->most && q->since + words > q->most) join(q, m);
    if (q->most) q->since += words;
}

/* ---- products ------------------------------------------------------------------------------ */

/* Adds to the variable of that significance. */
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

/* The word at x; for send_word, which gives it to the lanes of a vector. */
static LLVMValueRef load_word(struct mpqc_serial *q, LLVMValueRef x)
{
    struct mpqc_emit_cx *e = q->e;
    if (q->most) return mpqc_b_load(e, LLVMVectorType(e->i8, (unsigned)q->word), x, 16);
    return mpqc_b_load(e, e->i32, x, 4);
}

static LLVMValueRef send_word(struct mpqc_serial *q, LLVMValueRef word, unsigned lanes)
{
    return q->most ? word : mpqc_b_broadcast(q->e, word, lanes);
}

/* The word at x of all positions, by the weights at w. */
static void step(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef ws[2][MPQC_MAX_COLUMNS], *sums = q->most ? q->byte : q->var;
    int64_t at = 0;
    make_room(q, m, 1);
    for (unsigned j = 0; j < q->l->w_bits; j++)
        for (unsigned v = 0; v < q->c->n; at += 4 * q->c->lanes[v++]) {
            LLVMTypeRef t = q->most ? LLVMVectorType(e->i8, 4 * q->c->lanes[v])
                                    : LLVMVectorType(e->i32, q->c->lanes[v]);
            ws[j][v] = mpqc_b_load(e, t, mpqc_b_gep_const(e, w, at), 16);
        }
    for (int64_t p = 0; p < m; p++)
        for (unsigned i = 0; i < q->l->x_bits; i++) {
            int64_t from = q->word * p * q->sw * q->words + i * q->plane;
            LLVMValueRef word = load_word(q, mpqc_b_gep_const(e, x, from));
            for (unsigned j = 0; j < q->l->w_bits; j++)
                for (unsigned v = 0; v < q->c->n; v++)
                    multiply(q, send_word(q, word, q->c->lanes[v]), ws[j][v], j == 1,
                             sums[index_of(q, p, v, i + j)]);
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

typedef void (*emit_steps)(struct mpqc_serial *, int64_t m, LLVMValueRef x, LLVMValueRef w);

/* Something n times over, in steps of x (bytes) and of w; so many words are one. */
struct repeated {
    const char *name;
    emit_steps inner;
    int64_t x_step, words;
};

static void straight(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w, int64_t n,
                     const struct repeated *r)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t w_step = r->words * step_bytes(q);
    for (int64_t i = 0; i < n; i++)
        r->inner(q, m, mpqc_b_gep_const(e, x, i * r->x_step), mpqc_b_gep_const(e, w, i * w_step));
}

/* x and w after `by` times. */
struct operands {
    LLVMValueRef x, w;
};

static struct operands after(struct mpqc_serial *q, LLVMValueRef x, LLVMValueRef w,
                             LLVMValueRef by, int64_t times, const struct repeated *r)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef xi = mpqc_b_madd(e, by, times * r->x_step, constant(q, 0));
    LLVMValueRef wi = mpqc_b_madd(e, by, times * r->words * step_bytes(q), constant(q, 0));
    struct operands o = {.x = mpqc_b_gep(e, x, xi)};
    o.w = mpqc_b_gep(e, w, wi);
    return o;
}

/* One loop: all words fit sums in bytes together, or (`joined`) those of each turn do. */
static void one_loop(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w, int64_t n,
                     const struct repeated *r, bool joined)
{
    struct mpqc_loop loop;
    int64_t since = q->since;
    mpqc_b_loop_begin(q->e, &loop, constant(q, 0), constant(q, n), 1, r->name);
    struct operands o = after(q, x, w, loop.iv, 1, r);
    r->inner(q, m, o.x, o.w);
    if (joined) join(q, m);
    else if (q->most) q->since = since + n * r->words;
    mpqc_b_loop_end(q->e, &loop);
}

/* In blocks of as many words as fit. */
static void looped(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w, int64_t n,
                   const struct repeated *r)
{
    struct mpqc_loop loop;
    int64_t block = q->most / r->words, blocks;
    if (q->most == 0 || q->since + n * r->words <= q->most) {
        one_loop(q, m, x, w, n, r, false);
        return;
    }
    join(q, m);
    if (block < 2) {
        one_loop(q, m, x, w, n, r, true);
        return;
    }
    blocks = n / block;
    mpqc_b_loop_begin(q->e, &loop, constant(q, 0), constant(q, blocks), 1, "block");
    struct operands o = after(q, x, w, loop.iv, block, r);
    one_loop(q, m, o.x, o.w, block, r, false);
    join(q, m);
    mpqc_b_loop_end(q->e, &loop);
    o = after(q, x, w, constant(q, blocks), block, r);
    if (n % block == 1) straight(q, m, o.x, o.w, 1, r);
    else if (n % block) one_loop(q, m, o.x, o.w, n % block, r, false);
}

static void repeat(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w, int64_t n,
                   const struct repeated *r)
{
    bool once = n == 1 || short_enough(q, m, n * r->words);
    (once ? straight : looped)(q, m, x, w, n, r);
}

static int64_t turn_of(const struct mpqc_serial *q, int64_t m)
{
    int64_t pairs = pairs_of_step(q, m), wanted = q->most ? PAIRS_OF_BYTES : PAIRS_OF_A_TURN;
    return (wanted + pairs - 1) / pairs;
}

static void steps(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w, int64_t n)
{
    const struct repeated one = {"word", step, q->word, 1};
    straight(q, m, x, w, n, &one);
}

static void turn(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w)
{
    steps(q, m, x, w, turn_of(q, m));
}

/* Words that lie in line. */
static void run(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t words = turn_of(q, m), k = 0;
    const struct repeated turns = {"k", turn, q->word * words, words};
    if (!short_enough(q, m, q->run) && q->run >= 2 * words) {
        looped(q, m, x, w, q->run / words, &turns);
        k = q->run / words * words;
    }
    steps(q, m, mpqc_b_gep_const(e, x, q->word * k), mpqc_b_gep_const(e, w, k * step_bytes(q)),
          q->run - k);
}

static void row_of_taps(struct mpqc_serial *q, int64_t m, LLVMValueRef x, LLVMValueRef w)
{
    const struct repeated taps = {"tap", run, q->word * q->dw * q->words, q->run};
    repeat(q, m, x, w, q->runs, &taps);
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
            LLVMValueRef acc = LLVMBuildLoad2(e->b, t, q->var[index_of(q, p, v, s)], "");
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
    const struct repeated rows = {"row", row_of_taps, q->dh * q->row, q->runs * q->run};
    repeat(q, m, x, q->panel_w, l->kh, &rows);
    join(q, m);
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
