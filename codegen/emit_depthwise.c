/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Windows that move over each channel by itself: depthwise convolution, sums over
 * windows and over whole tensors.  The kernel: rows, blocks of channels, tiles of
 * columns.  What a tile is: window.h.
 */
#include "codegen/kernels.h"
#include "codegen/module.h"
#include "codegen/window.h"

#include <string.h>

/* Positions whose first halves wait for the second pass, on the stack: a quarter of the
 * smallest first-level cache. */
#define MAX_STRIP 256
/* Positions that are worth loading the weights of a block for. */
#define ENOUGH 49

struct window {
    struct mpqc_emit_cx *e;
    const struct mpqc_window *p;
    struct mpqc_window_plan plan;
    struct mpqc_window_tile tile;
    LLVMValueRef x, w;
    LLVMValueRef buffer; /* of a strip */
};

static LLVMValueRef constant(struct window *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

/* ---- rows and blocks ----------------------------------------------------------------- */

/* The part of a strip that is at work: rows [first, last) of batch * rows, tiles
 * [from, to) of full width. */
struct strip {
    LLVMValueRef first, last, from, to;
};

/* Tiles of full width in a row of a block, the one that is moved back included; how many of
 * them a strip has at most. */
static int64_t full_tiles(const struct window *q, const struct mpqc_window_block *b)
{
    return b->cols / b->tile + (q->plan.overlap && b->cols % b->tile);
}

static int64_t strip_tiles(const struct window *q, const struct mpqc_window_block *b)
{
    int64_t n = full_tiles(q, b), most = MAX_STRIP / (b->tile * q->plan.height);
    return q->plan.halves && n > most ? most : n;
}

/* Positions of a row of a strip. */
static int64_t strip_row(const struct window *q, const struct mpqc_window_block *b)
{
    return strip_tiles(q, b) * b->tile;
}

static struct mpqc_window_origin row_origin(struct window *q, LLVMValueRef u)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window *p = q->p;
    const struct mpqc_window_tile *t = &q->tile;
    LLVMValueRef h = u, zero = constant(q, 0);
    LLVMValueRef x = mpqc_b_gep(e, mpqc_b_gep_const(e, q->x, p->x_first), t->channel);
    struct mpqc_window_origin o = {x, t->channel, t->channel, zero};
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
    return o;
}

/* Column c of row `row` of the strip. */
static LLVMValueRef packed_at(struct window *q, const struct strip *s, LLVMValueRef row,
                              LLVMValueRef c)
{
    struct mpqc_emit_cx *e = q->e;
    if (!q->plan.halves) return NULL;
    int64_t n = strip_row(q, q->tile.b), bytes = 4 * (int64_t)q->tile.b->c.lanes[0];
    LLVMValueRef at = mpqc_b_madd(e, LLVMBuildNSWSub(e->b, row, s->first, ""), n, c);
    q->tile.packed_row = n * bytes;
    return mpqc_b_gep(e, q->buffer, mpqc_b_madd(e, at, bytes, constant(q, 0)));
}

static void tiles_of_row(struct window *q, const struct strip *s, LLVMValueRef row)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t cols = q->tile.b->cols, tile = q->tile.b->tile, rest = cols % tile;
    struct mpqc_window_origin o = row_origin(q, row);
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, s->from, s->to, 1, "tile");
    LLVMValueRef at = mpqc_b_madd(e, l.iv, tile, constant(q, 0)), begin = at;
    if (q->plan.overlap && rest) {
        LLVMValueRef end = constant(q, cols - tile);
        at = LLVMBuildSelect(e->b, LLVMBuildICmp(e->b, LLVMIntSLT, at, end, ""), at, end, "");
    }
    LLVMValueRef before = mpqc_b_madd(e, s->from, tile, constant(q, 0));
    q->tile.packed = packed_at(q, s, row, LLVMBuildNSWSub(e->b, begin, before, ""));
    q->tile.width = tile;
    mpqc_window_tile(&q->tile, mpqc_window_move(q->e, q->p, o, at));
    mpqc_b_loop_end(e, &l);
}

static void rest_of_row(struct window *q, const struct strip *s, LLVMValueRef row)
{
    int64_t cols = q->tile.b->cols, rest = cols % q->tile.b->tile;
    LLVMValueRef at = constant(q, cols - rest);
    q->tile.packed = packed_at(q, s, row, constant(q, 0));
    q->tile.width = rest;
    mpqc_window_tile(&q->tile, mpqc_window_move(q->e, q->p, row_origin(q, row), at));
}

typedef void part_of_row(struct window *, const struct strip *, LLVMValueRef row);

/* Rows are taken as many at a time as a tile is high; what is left of the last ones. */
static void one_pass(struct window *q, const struct strip *s, part_of_row *part)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t height = q->plan.height, left = q->p->rows % height;
    LLVMValueRef end = s->last;
    if (left) end = LLVMBuildAnd(e->b, end, constant(q, -height), "");
    struct mpqc_loop l;
    q->tile.height = height;
    mpqc_b_loop_begin(e, &l, s->first, end, height, "row");
    part(q, s, l.iv);
    mpqc_b_loop_end(e, &l);
    if (!left) return;
    struct mpqc_if more;
    q->tile.height = left;
    mpqc_b_if_begin(e, &more, LLVMBuildICmp(e->b, LLVMIntSLT, end, s->last, ""));
    part(q, s, end);
    mpqc_b_if_end(e, &more);
}

/* All rows of the strip; in halves each pass over all of them, so that what a pass needs
 * stays in registers. */
static void all_rows(struct window *q, const struct strip *s, part_of_row *part)
{
    for (q->tile.pass = 0; q->tile.pass < (q->plan.halves ? 2 : 1); q->tile.pass++)
        one_pass(q, s, part);
}

static void block(struct window *q, const struct mpqc_window_block *b, LLVMValueRef i,
                  LLVMValueRef first, LLVMValueRef last)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_window_tile *t = &q->tile;
    int64_t n = full_tiles(q, b), wide = strip_tiles(q, b);
    struct strip s = {first, last, constant(q, 0), constant(q, n)};
    t->b = b;
    t->channel = mpqc_b_madd(e, i, mpqc_window_channels(b), constant(q, b->first));
    t->w = mpqc_b_gep(e, q->w,
                      mpqc_b_madd(e, i, b->weight_bytes, constant(q, b->weight_first)));
    struct mpqc_loop l;
    if (n > wide) {
        mpqc_b_loop_begin(e, &l, s.from, s.to, wide, "strip");
        LLVMValueRef end = LLVMBuildNSWAdd(e->b, l.iv, constant(q, wide), "");
        LLVMValueRef less = LLVMBuildICmp(e->b, LLVMIntSLT, end, s.to, "");
        s.to = LLVMBuildSelect(e->b, less, end, s.to, "");
        s.from = l.iv;
    }
    all_rows(q, &s, tiles_of_row);
    if (n > wide) mpqc_b_loop_end(e, &l);
    if (b->cols % b->tile && !q->plan.overlap) all_rows(q, &s, rest_of_row);
}

/* Rows that are computed for one block of channels before the next: few, so that their
 * input stays in the first-level cache for all blocks, but enough positions to be worth
 * loading weights for; whole tiles. */
static int64_t rows_together(const struct window *q)
{
    const struct mpqc_window *p = q->p; /* the first block is the widest */
    int64_t cached = q->e->target->l1_bytes / 2, most = MAX_STRIP / strip_row(q, q->plan.blocks);
    int64_t enough = (ENOUGH + p->cols - 1) / p->cols, height = q->plan.height, n = height;
    while (n + height <= most && (n < enough || n * p->x_row + p->kh * p->tap_row <= cached))
        n += height;
    return n;
}

/* Rows [first, last) of batch * rows. */
static void rows(struct window *q, const struct mpqc_kernel *k, LLVMValueRef first,
                 LLVMValueRef last)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_loop l;
    if (mpqc_place_has_halo(&e->plan->place[k->out])) {
        mpqc_b_loop_begin(e, &l, first, last, 1, "halo");
        mpqc_emit_halo(e, &e->plan->place[k->out], &mpqc_value_at(e->graph, k->out)->type,
                       mpqc_epilogue_out(q->tile.ep), l.iv);
        mpqc_b_loop_end(e, &l);
    }
    for (unsigned i = 0; i < q->plan.n_blocks; i++) {
        mpqc_b_loop_begin(e, &l, constant(q, 0), constant(q, q->plan.blocks[i].count), 1,
                          "block");
        block(q, &q->plan.blocks[i], l.iv, first, last);
        mpqc_b_loop_end(e, &l);
    }
}

/* ---- the kernel ---------------------------------------------------------------------- */

/* `n` columns that lie side by side, in the input as in the output, may be taken for one
 * column of n times the channels: then few channels fill wide vectors. */
static bool may_fold(const struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                     const struct mpqc_window *p, int64_t n)
{
    bool residual = mpqc_kernel_residual(e, k) != MPQC_NONE;
    return p->w && p->channels < 4 * (int64_t)e->target->isa->lanes && p->cols % n == 0 &&
           p->x_col == p->channels && p->out_col == p->channels &&
           (!residual || p->res_col == p->channels);
}

/* Shape only; weights and bias are still those of one column. */
static struct mpqc_window fold(const struct mpqc_window *p, int64_t n)
{
    struct mpqc_window f = *p;
    f.cols /= n;
    f.channels *= n;
    f.x_col *= n;
    f.out_col *= n;
    f.res_col *= n;
    return f;
}

static mpqc_status repeat_data(struct mpqc_emit_cx *e, struct mpqc_window *f, int64_t channels)
{
    int64_t taps = f->kh * f->kw;
    int8_t *w = MPQC_NEW_ARRAY(&e->scratch, int8_t, (size_t)(taps * f->channels));
    int32_t *bias = MPQC_NEW_ARRAY(&e->scratch, int32_t, (size_t)f->channels);
    if (!w || !bias) return MPQC_OOM(e->cx);
    for (int64_t c = 0; c < f->channels; c++) {
        bias[c] = f->bias[c % channels];
        for (int64_t t = 0; t < taps; t++)
            w[t * f->channels + c] = f->w[t * channels + c % channels];
    }
    f->w = w;
    f->bias = bias;
    return MPQC_OK;
}

/* The cheapest schedule, folded or not; out is the window as it will be computed. */
static mpqc_status choose(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                          const struct mpqc_window *p, struct mpqc_window *out,
                          struct mpqc_window_plan *plan)
{
    int64_t best = mpqc_window_choose(e, p, plan);
    *out = *p;
    for (int64_t n = 2; n <= 8; n *= 2) {
        struct mpqc_window_plan other;
        struct mpqc_window f = fold(p, n);
        if (!may_fold(e, k, p, n)) continue;
        int64_t cost = mpqc_window_choose(e, &f, &other);
        if (cost >= best) continue;
        best = cost;
        *out = f;
        *plan = other;
    }
    return out->channels == p->channels ? MPQC_OK : repeat_data(e, out, p->channels);
}

static void add_key(const struct window *q, const struct mpqc_kernel *k, struct mpqc_buf *key)
{
    const struct mpqc_window *p = q->p;
    const struct mpqc_window_plan *plan = &q->plan;
    const struct mpqc_place *place = &q->e->plan->place[k->out];
    const struct mpqc_quant *quant = mpqc_value_at(q->e->graph, k->out)->type.quant;
    const int64_t facts[] = {p->batch,    p->rows,      p->cols,    p->channels, p->kh,
                             p->kw,       p->x_first,   p->x_batch, p->x_row,    p->x_col,
                             p->tap_row,  p->tap_col,   p->out_row, p->out_col,  p->out_batch,
                             p->res_row,  p->res_batch, p->res_col, p->w != NULL, q->tile.exact};
    mpqc_buf_printf(key, "window %u/%u t%lldx%lld%s%s%s%s%s", plan->blocks[0].c.lanes[0],
                    plan->blocks[plan->n_blocks - 1].c.shared,
                    (long long)plan->height, (long long)plan->tile, plan->overlap ? "o" : "",
                    plan->rolled ? "r" : "",
                    plan->loops ? "l" : "", plan->halves ? "h" : "",
                    plan->stream ? "s" : "");
    for (size_t i = 0; i < MPQC_LEN(facts); i++)
        mpqc_buf_printf(key, " %lld", (long long)facts[i]);
    if (mpqc_place_has_halo(place))
        mpqc_buf_printf(key, " h%d,%d,%d,%d:%d", place->halo[0], place->halo[1], place->halo[2],
                        place->halo[3], quant ? quant->zero[0] : 0);
}

static mpqc_status add_weights(struct window *q, struct mpqc_kernel_code *out)
{
    size_t bytes;
    if (!q->p->w) return MPQC_OK;
    int8_t *w = mpqc_window_pack(q->e, q->p, &q->plan, &bytes);
    if (!w) return MPQC_OOM(q->e->cx);
    out->operand[out->n_operands++] =
        (struct mpqc_operand){MPQC_NONE, mpqc_global_bytes(q->e, "weights", w, bytes, 64)};
    return MPQC_OK;
}

/* Of unit u of the kernel's range. */
static LLVMValueRef first_row(struct window *q, LLVMValueRef u)
{
    int64_t rows = q->p->batch * q->p->rows;
    LLVMValueRef row = mpqc_b_madd(q->e, u, q->plan.height, constant(q, 0));
    if (rows % q->plan.height == 0) return row;
    LLVMValueRef args[] = {row, constant(q, rows)};
    return mpqc_b_intrinsic(q->e, "llvm.smin", &q->e->i64, 1, args, 2);
}

static mpqc_status emit_body(struct window *q, const struct mpqc_kernel *k, const char *key,
                             struct mpqc_kernel_code *out)
{
    struct mpqc_emit_cx *e = q->e;
    out->body = mpqc_body_begin(e, key, out->n_operands);
    mpqc_epilogue_bind(e, q->tile.ep, out->body);
    q->x = LLVMGetParam(out->body, 0);
    q->w = LLVMGetParam(out->body, q->p->w ? 1 : 0);
    if (q->plan.halves) {
        LLVMTypeRef half = LLVMVectorType(e->i16, 2 * q->plan.blocks[0].c.lanes[0]);
        int64_t n = rows_together(q) * strip_row(q, q->plan.blocks);
        q->buffer = mpqc_b_var(e, LLVMArrayType2(half, (uint64_t)n), "halves");
    }
    struct mpqc_loop l;
    LLVMValueRef from = first_row(q, LLVMGetParam(out->body, out->n_operands));
    LLVMValueRef end = first_row(q, LLVMGetParam(out->body, out->n_operands + 1));
    mpqc_b_loop_begin(e, &l, from, end, rows_together(q), "rows");
    LLVMValueRef last = LLVMBuildNSWAdd(e->b, l.iv, constant(q, rows_together(q)), "");
    LLVMValueRef less = LLVMBuildICmp(e->b, LLVMIntSLT, last, end, "");
    rows(q, k, l.iv, LLVMBuildSelect(e->b, less, last, end, ""));
    mpqc_b_loop_end(e, &l);
    return mpqc_body_end(e);
}

static mpqc_status emit(struct window *q, const struct mpqc_kernel *k, struct mpqc_buf *key,
                        struct mpqc_kernel_code *out)
{
    const struct mpqc_window *p = q->p;
    struct mpqc_column_use use[MPQC_LEN(q->plan.blocks)];
    out->operand[out->n_operands++] = (struct mpqc_operand){.value = p->x};
    MPQC_TRY(add_weights(q, out));
    for (unsigned i = 0; i < q->plan.n_blocks; i++) {
        const struct mpqc_window_block *b = &q->plan.blocks[i];
        use[i] = (struct mpqc_column_use){b->c, b->first, mpqc_window_channels(b), b->count};
    }
    add_key(q, k, key);
    MPQC_TRY(mpqc_epilogue_make(q->e, k, p->bias, p->channels, use, q->plan.n_blocks, out, key,
                                &q->tile.ep));
    out->range = (p->batch * p->rows + q->plan.height - 1) / q->plan.height;
    out->grain = 300000 / (q->plan.height * p->cols * p->channels * p->kh * p->kw + 1) + 1;
    if (key->failed) return MPQC_OOM(q->e->cx);
    out->body = mpqc_body_find(q->e, key->data);
    return out->body ? MPQC_OK : emit_body(q, k, key->data, out);
}

/* Of a table that is looked up in registers, half of it by one permute, beside its indices. */
static int64_t table_registers(const struct mpqc_emit_cx *e, const struct mpqc_kernel *k)
{
    for (uint32_t i = 0; i < k->n_nodes; i++)
        if (mpqc_node_at(e->graph, k->nodes[i])->op == MPQC_OP_LUT)
            return 256 / e->target->vector_bytes + 1;
    return 0;
}

mpqc_status mpqc_emit_window(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                             const struct mpqc_window *p, struct mpqc_kernel_code *out)
{
    struct window *q = MPQC_NEW(&e->scratch, struct window);
    struct mpqc_window taken;
    struct mpqc_buf key;
    if (!q) return MPQC_OOM(e->cx);
    struct mpqc_window window = *p;
    window.held = table_registers(e, k);
    window.may_share = p->w && mpqc_kernel_residual(e, k) == MPQC_NONE;
    MPQC_TRY(choose(e, k, &window, &taken, &q->plan));
    q->e = e;
    q->p = &taken;
    const struct mpqc_window_block *last = &q->plan.blocks[q->plan.n_blocks - 1];
    q->tile = (struct mpqc_window_tile){.e = e, .p = &taken, .plan = &q->plan};
    q->tile.exact = last->c.valid != mpqc_window_channels(last) &&
                    e->plan->place[p->x].space != MPQC_SPACE_ARENA;
    mpqc_buf_init(&key);
    mpqc_status status = emit(q, k, &key, out);
    mpqc_buf_release(&key);
    return status;
}
