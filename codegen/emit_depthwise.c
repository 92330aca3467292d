/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Windows that move over each channel by itself: depthwise convolution, sums over
 * windows and over whole tensors.
 *
 * Vectors run along channels.  The taps of one input column are taken four rows at a
 * time and interleaved byte by byte, so that one dot step sums four taps of each
 * channel.  An interleaved column serves every output column of the tile that it is a
 * tap of.  A block is 4 accumulator vectors, 4 L channels (`interleaved` columns).
 */
#include "codegen/linear.h"

#include "codegen/kernels.h"
#include "codegen/module.h"

#include <string.h>

/* More (column, row group) pairs per tile than this become loops. */
#define UNROLL_PAIRS 24
#define MAX_TILE 8

struct block {
    struct mpqc_columns c; /* 4 vectors */
    int64_t first, count;  /* channels first, first + 4L, ... */
    int64_t weight_bytes;  /* of one block */
    int64_t weight_first;
};

struct window {
    struct mpqc_emit_cx *e;
    const struct mpqc_window *p;
    struct mpqc_epilogue *ep;
    struct block blocks[4];
    unsigned n_blocks;
    int64_t groups; /* of four rows of taps: ceil(kh / 4) */
    int64_t tile;   /* output columns computed together */
    bool overlap;   /* the last tile is moved back, else it may be smaller */
    bool rolled;    /* positions are finished in a loop, by way of memory */
    bool loops;     /* tile 1: taps are taken in loops, else in straight-line code */
    bool exact;
    LLVMValueRef x, w;
    /* at work */
    const struct block *b;
    unsigned L;
    int64_t width;
    LLVMValueRef block_w, channel;
    LLVMValueRef var[MAX_TILE * 4 * 2];
};

static LLVMValueRef constant(struct window *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

/* ---- the schedule -------------------------------------------------------------------- */

/* Blocks of 4 L channels, then of half as many, down to 16; a rest of more than
 * `pad` quarters of a block takes a whole one. */
static void make_blocks(struct window *q, unsigned top, int64_t pad)
{
    int64_t left = q->p->channels, first = 0, at = 0;
    q->n_blocks = 0;
    for (unsigned L = top; left > 0; L /= 2) {
        int64_t size = 4 * (int64_t)L, n = left / size;
        int64_t rest = left % size;
        MPQC_ASSERT(L >= 4);
        bool take_rest = rest > 0 && (L == 4 || 4 * rest > pad * size);
        int64_t covered = n * size + (take_rest ? rest : 0);
        for (int whole = 1; whole >= 0; whole--) {
            int64_t count = whole ? n : take_rest;
            if (count == 0) continue;
            MPQC_ASSERT(q->n_blocks < MPQC_LEN(q->blocks));
            struct block *b = &q->blocks[q->n_blocks++];
            b->c = (struct mpqc_columns){.n = 4, .interleaved = true};
            for (int v = 0; v < 4; v++) b->c.lanes[v] = L;
            b->c.valid = (unsigned)(whole ? size : rest);
            b->first = first;
            b->count = count;
            b->weight_bytes = q->p->kw * q->groups * 4 * size;
            b->weight_first = at;
            at += count * b->weight_bytes;
            first += count * size;
        }
        left -= covered;
    }
}

/* Is the input column `at` bytes behind a tile's first one a tap of any output? */
static bool is_tap(const struct mpqc_window *p, int64_t width, int64_t at)
{
    for (int64_t t = 0; t < width; t++)
        for (int64_t kw = 0; kw < p->kw; kw++)
            if (t * p->x_col + kw * p->tap_col == at) return true;
    return false;
}

/* The last input column of a tile. */
static int64_t span(const struct mpqc_window *p, int64_t width)
{
    return (width - 1) * p->x_col + (p->kw - 1) * p->tap_col;
}

/* Time and code of a tile of one block, as in tiles.c. */
static void tile_costs(const struct window *q, int64_t width, int64_t *time, int64_t *code)
{
    const struct mpqc_isa *isa = q->e->target->isa;
    int64_t columns = 0, rows = q->p->kh;
    for (int64_t at = 0; at <= span(q->p, width); at++) columns += is_tap(q->p, width, at);
    int64_t x_extra = isa->x_values > 1 ? isa->x_cost : 0;
    int64_t w_extra = isa->w_values > 1 ? isa->w_cost : 0;
    int64_t taps = columns * q->groups, pairs = width * q->p->kw * q->groups;
    *time = taps * (40 + 4 * x_extra) + columns * rows * 5 +
            pairs * 4 * (isa->dot_cost + w_extra) + mpqc_finish_cost(width, 4, q->rolled);
    *code = taps * (60 + 8 * x_extra) + columns * rows * 9 +
            pairs * 4 * (isa->dot_cost * 5 / 4 + 2 * w_extra);
    if (q->loops) *code = *code / (q->p->kw * q->groups) * (q->groups > 1 ? 2 : 1);
    if (isa->registers <= 16) *code *= 2; /* copies and spills */
    *code += mpqc_finish_code(4) * (q->rolled ? 1 : width) + (q->rolled ? 40 * width : 0) + 100;
}

static int64_t schedule_cost(const struct window *q, int64_t cost_of_byte)
{
    const struct mpqc_window *p = q->p;
    int64_t full_time, full_code, rest_time = 0, rest_code = 0, blocks = 0, weights = 0;
    int64_t n = p->cols / q->tile, rest = p->cols % q->tile;
    for (unsigned i = 0; i < q->n_blocks; i++) {
        blocks += q->blocks[i].count;
        weights += p->w ? q->blocks[i].count * q->blocks[i].weight_bytes : 0;
    }
    tile_costs(q, q->tile, &full_time, &full_code);
    if (rest && q->overlap) n++;
    else if (rest) tile_costs(q, rest, &rest_time, &rest_code);
    return p->batch * p->rows * blocks * (n * full_time + rest_time) +
           cost_of_byte * (q->n_blocks * (full_code + rest_code) + weights);
}

/* Tries block sizes and tiles. */
static void choose_schedule(struct window *q)
{
    const struct mpqc_isa *isa = q->e->target->isa;
    struct window best = *q;
    int64_t cost_of_byte = mpqc_cost_of_byte(q->e), best_cost = INT64_MAX;
    int64_t most = (isa->registers - 6 - 2 * isa->acc_per_column) / (4 * isa->acc_per_column);
    if (most > MAX_TILE) most = MAX_TILE;
    if (most < 1 || q->p->kh * q->p->kw > 64) most = 1;
    for (unsigned L = isa->lanes; L >= 4; L /= 2) {
        for (int64_t pad = 0; pad <= 3; pad += 3) {
            make_blocks(q, L, pad);
            for (q->tile = 1; q->tile <= most && q->tile <= q->p->cols; q->tile++) {
                for (int variant = 0; variant < 8; variant++) {
                    q->overlap = variant & 1;
                    q->rolled = variant & 2;
                    q->loops = variant & 4;
                    if (q->tile == 1 && (q->overlap || q->rolled)) continue;
                    if (q->tile > 1 && q->loops) continue;
                    if (q->p->kw * q->groups > UNROLL_PAIRS && !q->loops) continue;
                    if (q->overlap && q->p->once) continue;
                    int64_t cost = schedule_cost(q, cost_of_byte);
                    if (cost >= best_cost) continue;
                    best_cost = cost;
                    best = *q;
                }
            }
        }
    }
    *q = best;
}

/* [block][kw][group][4 vectors][lane][4 taps] */
static int8_t *pack(struct window *q, size_t *bytes)
{
    const struct mpqc_window *p = q->p;
    const struct block *last = &q->blocks[q->n_blocks - 1];
    *bytes = (size_t)(last->weight_first + last->count * last->weight_bytes);
    int8_t *packed = MPQC_NEW_ARRAY(&q->e->scratch, int8_t, *bytes), *to = packed;
    if (!packed) return NULL;
    for (unsigned i = 0; i < q->n_blocks; i++) {
        unsigned L = q->blocks[i].c.lanes[0];
        for (int64_t n = 0; n < q->blocks[i].count * p->kw * q->groups; n++) {
            int64_t g = n % q->groups, kw = n / q->groups % p->kw;
            int64_t base = q->blocks[i].first + n / q->groups / p->kw * 4 * L;
            for (unsigned lane = 0; lane < 4 * L; lane++) {
                unsigned v = lane / L, l = lane % L;
                int64_t c = base + 16 * (l / 4) + 4 * v + l % 4;
                for (int64_t kh = 4 * g; kh < 4 * g + 4; kh++, to++)
                    if (kh < p->kh && c < p->channels)
                        *to = p->w[(kh * p->kw + kw) * p->channels + c];
            }
        }
    }
    return packed;
}

/* ---- one tile ------------------------------------------------------------------------ */

static LLVMValueRef *acc_var(struct window *q, int64_t t, unsigned v)
{
    return &q->var[(t * 4 + v) * q->e->target->isa->acc_per_column];
}

static void begin_accumulators(struct window *q)
{
    struct mpqc_emit_cx *e = q->e;
    unsigned apc = e->target->isa->acc_per_column;
    LLVMTypeRef type = LLVMVectorType(e->i32, q->L);
    LLVMValueRef bias[MPQC_MAX_COLUMNS];
    if (apc == 1) mpqc_epilogue_bias(e, q->ep, &q->b->c, q->channel, bias);
    for (int64_t i = 0; i < q->width * 4 * apc; i++) {
        q->var[i] = mpqc_b_var(e, type, "acc");
        LLVMBuildStore(e->b, apc == 1 ? bias[i % 4] : LLVMConstNull(type), q->var[i]);
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

/* `rows` (1..4) rows of taps at p, interleaved: 4 vectors. */
static void load_taps(struct window *q, LLVMValueRef p, int64_t rows, LLVMValueRef out[4])
{
    struct mpqc_emit_cx *e = q->e;
    LLVMTypeRef type = LLVMVectorType(e->i8, 4 * q->L);
    LLVMValueRef row[4];
    for (int64_t r = 0; r < 4; r++)
        row[r] = r < rows ? mpqc_b_load_bytes(e, mpqc_b_gep_const(e, p, r * q->p->tap_row),
                                              q->b->c.valid, 4 * q->L, q->exact)
                          : LLVMConstNull(type);
    for (unsigned half = 0; half < 2; half++) {
        LLVMValueRef ab = interleave(e, row[0], row[1], 1, half);
        LLVMValueRef cd = interleave(e, row[2], row[3], 1, half);
        for (unsigned quarter = 0; quarter < 2; quarter++)
            out[2 * half + quarter] =
                mpqc_b_as(e, interleave(e, ab, cd, 2, quarter), e->i32, q->L);
    }
}

/* Vector v of the weights at w, which are of `rows` rows. */
static void load_weights(struct window *q, LLVMValueRef w, int64_t rows, unsigned v,
                         LLVMValueRef out[4])
{
    struct mpqc_emit_cx *e = q->e;
    unsigned n = 4 * q->L;
    LLVMValueRef bytes;
    if (q->p->w) {
        bytes = mpqc_b_load(e, LLVMVectorType(e->i8, n), mpqc_b_gep_const(e, w, v * n), 16);
    } else {
        int32_t ones = (int32_t)(0x01010101u >> (8 * (4 - rows)));
        bytes = LLVMConstBitCast(mpqc_b_splat(e, LLVMVectorType(e->i32, q->L), ones),
                                 LLVMVectorType(e->i8, n));
    }
    e->target->isa->prepare_w(e, bytes, out);
}

/* Vector v of output column t. */
static void dot(struct window *q, int64_t t, unsigned v, LLVMValueRef *x, LLVMValueRef *w)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_isa *isa = e->target->isa;
    LLVMTypeRef type = LLVMVectorType(e->i32, q->L);
    LLVMValueRef *var = acc_var(q, t, v), acc[2];
    for (unsigned a = 0; a < isa->acc_per_column; a++)
        acc[a] = LLVMBuildLoad2(e->b, type, var[a], "");
    isa->dot(e, acc, x, w);
    for (unsigned a = 0; a < isa->acc_per_column; a++) LLVMBuildStore(e->b, acc[a], var[a]);
}

/* Bytes of the weights of one column and group of rows. */
static int64_t pair_bytes(const struct window *q)
{
    return 16 * (int64_t)q->L;
}

static int64_t rows_of(const struct window *q, int64_t group)
{
    return q->p->kh - 4 * group < 4 ? q->p->kh - 4 * group : 4;
}

/* Rows of group g of the input column that is `at` bytes behind the tile's first one. */
static void column(struct window *q, LLVMValueRef x, int64_t at, int64_t g)
{
    const struct mpqc_window *p = q->p;
    LLVMValueRef taps[4], ready[4], w[4];
    load_taps(q, x, rows_of(q, g), taps);
    for (unsigned v = 0; v < 4; v++) {
        q->e->target->isa->prepare_x(q->e, taps[v], ready);
        for (int64_t t = 0; t < q->width; t++) {
            for (int64_t kw = 0; kw < p->kw; kw++) {
                if (t * p->x_col + kw * p->tap_col != at) continue;
                int64_t pair = (kw * q->groups + g) * pair_bytes(q);
                load_weights(q, mpqc_b_gep_const(q->e, q->block_w, pair), rows_of(q, g), v, w);
                dot(q, t, v, ready, w);
            }
        }
    }
}

/* Straight-line: input columns from left to right. */
static void unrolled(struct window *q, LLVMValueRef x)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window *p = q->p;
    /* A column of input is named by its byte offset from the tile's first tap. */
    for (int64_t at = 0; at <= span(p, q->width); at++) {
        if (!is_tap(p, q->width, at)) continue;
        for (int64_t g = 0; g < q->groups; g++)
            column(q, mpqc_b_gep_const(e, x, at + 4 * g * p->tap_row), at, g);
    }
}

static void looped_pair(struct window *q, LLVMValueRef x, LLVMValueRef w, int64_t rows)
{
    LLVMValueRef taps[4], ready[4], ws[4];
    load_taps(q, x, rows, taps);
    for (unsigned v = 0; v < 4; v++) {
        q->e->target->isa->prepare_x(q->e, taps[v], ready);
        load_weights(q, w, rows, v, ws);
        dot(q, 0, v, ready, ws);
    }
}

/* One output column, loops over columns and groups of rows of the window. */
static void looped(struct window *q, LLVMValueRef x)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window *p = q->p;
    LLVMValueRef zero = constant(q, 0);
    int64_t whole = p->kh / 4, rest = p->kh % 4, bytes = q->groups * pair_bytes(q);
    struct mpqc_loop kw, g;
    mpqc_b_loop_begin(e, &kw, zero, constant(q, p->kw), 1, "tap.column");
    LLVMValueRef xc = mpqc_b_gep(e, x, mpqc_b_madd(e, kw.iv, p->tap_col, zero));
    LLVMValueRef wc = mpqc_b_gep(e, q->block_w, mpqc_b_madd(e, kw.iv, bytes, zero));
    if (whole > 0) {
        mpqc_b_loop_begin(e, &g, zero, constant(q, whole), 1, "tap.rows");
        looped_pair(q, mpqc_b_gep(e, xc, mpqc_b_madd(e, g.iv, 4 * p->tap_row, zero)),
                    mpqc_b_gep(e, wc, mpqc_b_madd(e, g.iv, pair_bytes(q), zero)), 4);
        mpqc_b_loop_end(e, &g);
    }
    if (rest > 0) {
        looped_pair(q, mpqc_b_gep_const(e, xc, 4 * whole * p->tap_row),
                    mpqc_b_gep_const(e, wc, whole * pair_bytes(q)), rest);
    }
    mpqc_b_loop_end(e, &kw);
}

/* Where a row or tile begins: input, output, residual, index of the position. */
struct origin {
    LLVMValueRef x, position, residual, index;
};

static void take_sums(struct window *q, int64_t t, const LLVMValueRef *bias, LLVMValueRef *sum)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_isa *isa = e->target->isa;
    LLVMTypeRef type = LLVMVectorType(e->i32, q->L);
    LLVMValueRef acc[2];
    for (unsigned v = 0; v < 4; v++) {
        for (unsigned a = 0; a < isa->acc_per_column; a++)
            acc[a] = LLVMBuildLoad2(e->b, type, acc_var(q, t, v)[a], "");
        sum[v] = isa->finish(e, acc);
        if (isa->acc_per_column > 1) sum[v] = LLVMBuildAdd(e->b, sum[v], bias[v], "");
    }
}

static void finish_position(struct window *q, struct origin o, LLVMValueRef *sum, LLVMValueRef t)
{
    struct mpqc_emit_cx *e = q->e;
    mpqc_epilogue_store(e, q->ep, sum, mpqc_b_madd(e, t, q->p->out_col, o.position),
                        mpqc_b_madd(e, t, q->p->res_col, o.residual),
                        mpqc_b_madd(e, t, 1, o.index));
}

static void finish_rolled(struct window *q, struct origin o, const LLVMValueRef *bias)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMTypeRef type = LLVMVectorType(e->i32, q->L);
    int64_t bytes = 4 * (int64_t)q->L;
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
    finish_position(q, o, sum, l.iv);
    mpqc_b_loop_end(e, &l);
}

static void tile(struct window *q, int64_t width, struct origin o)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef bias[MPQC_MAX_COLUMNS], sum[MPQC_MAX_COLUMNS];
    q->width = width;
    begin_accumulators(q);
    if (q->loops) looped(q, o.x);
    else unrolled(q, o.x);
    mpqc_epilogue_columns(e, q->ep, &q->b->c, q->channel);
    if (e->target->isa->acc_per_column > 1)
        mpqc_epilogue_bias(e, q->ep, &q->b->c, q->channel, bias);
    if (q->rolled && width > 1) {
        finish_rolled(q, o, bias);
        return;
    }
    for (int64_t t = 0; t < width; t++) {
        take_sums(q, t, bias, sum);
        finish_position(q, o, sum, constant(q, t));
    }
}

static struct origin move(struct window *q, struct origin o, LLVMValueRef columns)
{
    const struct mpqc_window *p = q->p;
    o.x = mpqc_b_gep(q->e, o.x, mpqc_b_madd(q->e, columns, p->x_col, constant(q, 0)));
    o.position = mpqc_b_madd(q->e, columns, p->out_col, o.position);
    o.residual = mpqc_b_madd(q->e, columns, p->res_col, o.residual);
    o.index = mpqc_b_madd(q->e, columns, 1, o.index);
    return o;
}

/* ---- rows and blocks ----------------------------------------------------------------- */

static void row_of_block(struct window *q, const struct block *b, LLVMValueRef i, struct origin o)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef first = constant(q, b->first), zero = constant(q, 0);
    q->b = b;
    q->L = b->c.lanes[0];
    q->channel = mpqc_b_madd(e, i, 4 * (int64_t)q->L, first);
    q->block_w = mpqc_b_gep(
        e, q->w, mpqc_b_madd(e, i, b->weight_bytes, constant(q, b->weight_first)));
    o.x = mpqc_b_gep(e, o.x, q->channel);
    o.position = LLVMBuildNSWAdd(e->b, o.position, q->channel, "");
    o.residual = LLVMBuildNSWAdd(e->b, o.residual, q->channel, "");
    int64_t n = q->p->cols / q->tile, rest = q->p->cols % q->tile;
    struct mpqc_loop l;
    bool back = q->overlap && rest;
    mpqc_b_loop_begin(e, &l, zero, constant(q, n + back), 1, "tile");
    LLVMValueRef at = mpqc_b_madd(e, l.iv, q->tile, zero);
    if (back) {
        LLVMValueRef end = constant(q, q->p->cols - q->tile);
        at = LLVMBuildSelect(e->b, LLVMBuildICmp(e->b, LLVMIntSLT, at, end, ""), at, end, "");
        rest = 0;
    }
    tile(q, q->tile, move(q, o, at));
    mpqc_b_loop_end(e, &l);
    if (rest) tile(q, rest, move(q, o, constant(q, n * q->tile)));
}

static void row(struct window *q, const struct mpqc_kernel *k, LLVMValueRef u)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window *p = q->p;
    LLVMValueRef zero = constant(q, 0), h = u;
    mpqc_emit_halo(e, &e->plan->place[k->out], &mpqc_value_at(e->graph, k->out)->type,
                   mpqc_epilogue_out(q->ep), u);
    struct origin o = {mpqc_b_gep_const(e, q->x, p->x_first), zero, zero, zero};
    if (p->batch > 1) {
        LLVMValueRef n = LLVMBuildSDiv(e->b, u, constant(q, p->rows), "");
        h = LLVMBuildSRem(e->b, u, constant(q, p->rows), "");
        o.x = mpqc_b_gep(e, o.x, mpqc_b_madd(e, n, p->x_batch, zero));
        o.position = mpqc_b_madd(e, n, p->out_batch, o.position);
        o.residual = mpqc_b_madd(e, n, p->res_batch, o.residual);
    }
    o.x = mpqc_b_gep(e, o.x, mpqc_b_madd(e, h, p->x_row, zero));
    o.position = mpqc_b_madd(e, h, p->out_row, o.position);
    o.residual = mpqc_b_madd(e, h, p->res_row, o.residual);
    o.index = mpqc_b_madd(e, h, p->cols, zero);
    for (unsigned i = 0; i < q->n_blocks; i++) {
        struct mpqc_loop l;
        mpqc_b_loop_begin(e, &l, zero, constant(q, q->blocks[i].count), 1, "block");
        row_of_block(q, &q->blocks[i], l.iv, o);
        mpqc_b_loop_end(e, &l);
    }
}

/* ---- the kernel ---------------------------------------------------------------------- */

static void add_key(const struct window *q, const struct mpqc_kernel *k, struct mpqc_buf *key)
{
    const struct mpqc_window *p = q->p;
    const struct mpqc_place *place = &q->e->plan->place[k->out];
    const struct mpqc_quant *quant = mpqc_value_at(q->e->graph, k->out)->type.quant;
    const int64_t facts[] = {p->batch,    p->rows,      p->cols,    p->channels, p->kh,
                             p->kw,       p->x_first,   p->x_batch, p->x_row,    p->x_col,
                             p->tap_row,  p->tap_col,   p->out_row, p->out_col,  p->out_batch,
                             p->res_row,  p->res_batch, p->res_col, p->w != NULL, q->exact};
    mpqc_buf_printf(key, "window %u t%lld%s%s%s", q->blocks[0].c.lanes[0], (long long)q->tile,
                    q->overlap ? "o" : "", q->rolled ? "r" : "", q->loops ? "l" : "");
    for (size_t i = 0; i < MPQC_LEN(facts); i++)
        mpqc_buf_printf(key, " %lld", (long long)facts[i]);
    if (mpqc_place_has_halo(place))
        mpqc_buf_printf(key, " h%d,%d,%d,%d:%d", place->halo[0], place->halo[1], place->halo[2],
                        place->halo[3], quant ? quant->zero[0] : 0);
}

static mpqc_status emit(struct window *q, const struct mpqc_kernel *k, struct mpqc_buf *key,
                        struct mpqc_kernel_code *out)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_column_use use[4];
    out->operand[out->n_operands++] = (struct mpqc_operand){.value = q->p->x};
    if (q->p->w) {
        size_t bytes;
        int8_t *w = pack(q, &bytes);
        if (!w) return MPQC_OOM(e->cx);
        out->operand[out->n_operands++] =
            (struct mpqc_operand){MPQC_NONE, mpqc_global_bytes(e, "weights", w, bytes, 64)};
    }
    for (unsigned i = 0; i < q->n_blocks; i++)
        use[i] = (struct mpqc_column_use){q->blocks[i].c, q->blocks[i].first,
                                          4 * (int64_t)q->blocks[i].c.lanes[0],
                                          q->blocks[i].count};
    add_key(q, k, key);
    MPQC_TRY(mpqc_epilogue_make(e, k, q->p->bias, q->p->channels, use, q->n_blocks, out, key,
                                &q->ep));
    out->range = q->p->batch * q->p->rows;
    out->grain = 300000 / (q->p->cols * q->p->channels * q->p->kh * q->p->kw + 1) + 1;
    if (key->failed) return MPQC_OOM(e->cx);
    out->body = mpqc_body_find(e, key->data);
    if (out->body) return MPQC_OK;
    out->body = mpqc_body_begin(e, key->data, out->n_operands);
    mpqc_epilogue_bind(e, q->ep, out->body);
    q->x = LLVMGetParam(out->body, 0);
    q->w = LLVMGetParam(out->body, q->p->w ? 1 : 0);
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, LLVMGetParam(out->body, out->n_operands),
                      LLVMGetParam(out->body, out->n_operands + 1), 1, "row");
    row(q, k, l.iv);
    mpqc_b_loop_end(e, &l);
    return mpqc_body_end(e);
}

mpqc_status mpqc_emit_window(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                             const struct mpqc_window *p, struct mpqc_kernel_code *out)
{
    struct window *q = MPQC_NEW(&e->scratch, struct window);
    struct mpqc_buf key;
    if (!q) return MPQC_OOM(e->cx);
    q->e = e;
    q->p = p;
    q->groups = (p->kh + 3) / 4;
    choose_schedule(q);
    q->exact = q->blocks[q->n_blocks - 1].c.valid !=
                   mpqc_columns_lanes(&q->blocks[q->n_blocks - 1].c) &&
               e->plan->place[p->x].space != MPQC_SPACE_ARENA;
    mpqc_buf_init(&key);
    mpqc_status status = emit(q, k, &key, out);
    mpqc_buf_release(&key);
    return status;
}
