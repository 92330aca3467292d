/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Depthwise convolution on AArch64.  Where there is no dot product of bytes, vectors of 16
 * channels are multiplied by 16 weights each, two taps at a time, and nothing is interleaved;
 * sums by dot products are in window_dots.c.
 *
 * A tile is a few output columns of 16 channels (8 at the end).  Input columns are taken
 * from left to right; each is loaded once and enters all outputs of which it is a tap.  Of
 * its rows, two make a step; the row that is left over where their number is odd waits for
 * that of the next column.
 */
#include "codegen/window_direct.h"

#include "codegen/kernels.h"
#include "codegen/module.h"

#define MAX_TILE 3
#define MAX_TAPS 49 /* they are straight-line code */
#define MAX_ROWS 16
#define KEPT_TAPS 9 /* whose weights stay in registers during a tile */

static LLVMValueRef constant(struct mpqc_direct *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

/* ---- one tile ------------------------------------------------------------------------ */

struct sums {
    LLVMValueRef acc[4];
    LLVMValueRef x, w; /* the tap that waits for another, or NULL */
};

int64_t mpqc_direct_channels(const struct mpqc_direct_block *b)
{
    return mpqc_columns_lanes(&b->c);
}

LLVMValueRef mpqc_direct_load(struct mpqc_direct *q, LLVMValueRef x, int64_t at)
{
    unsigned n = (unsigned)mpqc_direct_channels(q->b);
    return mpqc_b_load_bytes(q->e, mpqc_b_gep_const(q->e, x, at), q->b->c.valid, n, q->exact);
}

static LLVMValueRef load_input(struct mpqc_direct *q, LLVMValueRef x, int64_t at)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef v = mpqc_direct_load(q, x, at);
    int offset = e->target->isa->x_offset;
    return offset ? LLVMBuildXor(e->b, v, mpqc_b_splat(e, LLVMTypeOf(v), offset), "") : v;
}

static LLVMValueRef load_weights(struct mpqc_direct *q, LLVMValueRef w, int64_t kw, int64_t kh)
{
    unsigned n = (unsigned)mpqc_direct_channels(q->b);
    LLVMValueRef at = mpqc_b_gep_const(q->e, w, (kw * q->p->kh + kh) * n);
    return mpqc_b_load(q->e, LLVMVectorType(q->e->i8, n), at, 8);
}

static void take(struct mpqc_direct *q, struct sums *s, LLVMValueRef x0, LLVMValueRef w0,
                 LLVMValueRef x1, LLVMValueRef w1)
{
    q->e->target->isa->direct(q->e, q->b->c.n, s->acc, x0, w0, x1, w1);
}

/* Column kw of the window, whose rows are x. */
static void take_column(struct mpqc_direct *q, struct sums *s, const LLVMValueRef *x,
                        LLVMValueRef w, int64_t kw)
{
    int64_t kh = q->p->kh;
    for (int64_t r = 0; r + 1 < kh; r += 2)
        take(q, s, x[r], load_weights(q, w, kw, r), x[r + 1], load_weights(q, w, kw, r + 1));
    if (kh % 2 == 0) return;
    LLVMValueRef last = load_weights(q, w, kw, kh - 1);
    if (s->x) {
        take(q, s, s->x, s->w, x[kh - 1], last);
        s->x = NULL;
    } else {
        s->x = x[kh - 1];
        s->w = last;
    }
}

static void all_columns(struct mpqc_direct *q, int64_t width, LLVMValueRef x, struct sums *s)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window *p = q->p;
    LLVMValueRef w = mpqc_b_opaque(e, q->block_w), rows[MAX_ROWS];
    for (int64_t at = 0; at <= (width - 1) * p->x_col + (p->kw - 1) * p->tap_col; at++) {
        bool loaded = false;
        for (int64_t t = 0; t < width; t++) {
            for (int64_t kw = 0; kw < p->kw; kw++) {
                if (t * p->x_col + kw * p->tap_col != at) continue;
                if (!loaded && p->kh * p->kw > KEPT_TAPS) w = mpqc_b_opaque(e, q->block_w);
                for (int64_t r = 0; r < p->kh && !loaded; r++)
                    rows[r] = load_input(q, x, at + r * p->tap_row);
                loaded = true;
                take_column(q, &s[t], rows, w, kw);
            }
        }
    }
    for (int64_t t = 0; t < width; t++)
        if (s[t].x) take(q, &s[t], s[t].x, s[t].w, NULL, NULL);
}

static void tile(struct mpqc_direct *q, int64_t width, struct mpqc_window_origin o)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window *p = q->p;
    struct sums s[MAX_TILE] = {0};
    LLVMValueRef bias[MPQC_MAX_COLUMNS];
    mpqc_epilogue_bias(e, q->ep, &q->b->c, q->channel, bias);
    for (int64_t t = 0; t < width; t++)
        for (unsigned v = 0; v < q->b->c.n; v++) s[t].acc[v] = bias[v];
    all_columns(q, width, o.x, s);
    mpqc_epilogue_columns(e, q->ep, &q->b->c, q->channel);
    for (int64_t t = 0; t < width; t++) {
        LLVMValueRef i = constant(q, t);
        mpqc_epilogue_store(e, q->ep, s[t].acc, mpqc_b_madd(e, i, p->out_col, o.position),
                            mpqc_b_madd(e, i, p->res_col, o.residual),
                            mpqc_b_madd(e, i, 1, o.index));
    }
}

/* ---- rows and blocks ------------------------------------------------------------------ */

/* The tiles of a row: where a position may be computed twice, the last one is moved back. */
static void all_tiles(struct mpqc_direct *q, struct mpqc_window_origin o)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t n = q->p->cols / q->tile, rest = q->p->cols % q->tile;
    bool back = rest > 0 && !q->p->once;
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, constant(q, 0), constant(q, n + back), 1, "tile");
    LLVMValueRef at = mpqc_b_madd(e, l.iv, q->tile, constant(q, 0));
    if (back) {
        LLVMValueRef end = constant(q, q->p->cols - q->tile);
        at = LLVMBuildSelect(e->b, LLVMBuildICmp(e->b, LLVMIntSLT, at, end, ""), at, end, "");
    }
    tile(q, q->tile, mpqc_window_move(q->e, q->p, o, at));
    mpqc_b_loop_end(e, &l);
    if (rest && !back) tile(q, rest, mpqc_window_move(q->e, q->p, o, constant(q, n * q->tile)));
}

/* Of a block's weights. */
static int64_t block_bytes(const struct mpqc_direct *q, const struct mpqc_direct_block *b)
{
    return q->dots ? mpqc_dots_bytes(q->dots) : q->p->kh * q->p->kw * mpqc_direct_channels(b);
}

static void all_blocks(struct mpqc_direct *q, struct mpqc_window_origin row)
{
    struct mpqc_emit_cx *e = q->e;
    for (unsigned i = 0; i < q->n_blocks; i++) {
        const struct mpqc_direct_block *b = &q->blocks[i];
        int64_t n = mpqc_direct_channels(b), bytes = block_bytes(q, b);
        struct mpqc_window_origin o = row;
        struct mpqc_loop l;
        mpqc_b_loop_begin(e, &l, constant(q, 0), constant(q, b->count), 1, "block");
        q->b = b;
        q->channel = mpqc_b_madd(e, l.iv, n, constant(q, b->first));
        q->block_w =
            mpqc_b_gep(e, q->w, mpqc_b_madd(e, l.iv, bytes, constant(q, b->weight_first)));
        o.x = mpqc_b_gep(e, o.x, q->channel);
        o.position = LLVMBuildNSWAdd(e->b, o.position, q->channel, "");
        o.residual = LLVMBuildNSWAdd(e->b, o.residual, q->channel, "");
        if (q->dots) mpqc_dots_rows(q, o);
        else all_tiles(q, o);
        mpqc_b_loop_end(e, &l);
    }
}

/* The second of two rows, if `two` (i64) is 1; then it is row u + 1. */
static void second_row(struct mpqc_direct *q, const struct mpqc_kernel *k, LLVMValueRef u,
                       LLVMValueRef two)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window *p = q->p;
    mpqc_emit_halo(e, &e->plan->place[k->out], &mpqc_value_at(e->graph, k->out)->type,
                   mpqc_epilogue_out(q->ep), LLVMBuildNSWAdd(e->b, u, two, ""));
    q->next.x = mpqc_b_madd(e, two, p->tap_row, constant(q, (p->kh - 1) * p->tap_row));
    q->next.position = mpqc_b_madd(e, two, p->out_row, constant(q, 0));
    q->next.residual = mpqc_b_madd(e, two, p->res_row, constant(q, 0));
}

/* Row u of batch * rows. */
static void row(struct mpqc_direct *q, const struct mpqc_kernel *k, LLVMValueRef u)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window *p = q->p;
    LLVMValueRef zero = constant(q, 0), rows = constant(q, p->rows);
    mpqc_emit_halo(e, &e->plan->place[k->out], &mpqc_value_at(e->graph, k->out)->type,
                   mpqc_epilogue_out(q->ep), u);
    LLVMValueRef n = LLVMBuildSDiv(e->b, u, rows, ""), h = LLVMBuildSRem(e->b, u, rows, "");
    struct mpqc_window_origin o;
    o.x = mpqc_b_gep(e, q->x, mpqc_b_madd(e, n, p->x_batch, constant(q, p->x_first)));
    o.x = mpqc_b_gep(e, o.x, mpqc_b_madd(e, h, p->x_row, zero));
    o.position = mpqc_b_madd(e, h, p->out_row, mpqc_b_madd(e, n, p->out_batch, zero));
    o.residual = mpqc_b_madd(e, h, p->res_row, mpqc_b_madd(e, n, p->res_batch, zero));
    o.index = mpqc_b_madd(e, h, p->cols, zero);
    all_blocks(q, o);
}

/* Rows [from, to); two together where that is how sums are taken. */
static void all_rows(struct mpqc_direct *q, const struct mpqc_kernel *k, LLVMValueRef from,
                     LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t high = q->dots ? q->dots->high : 1;
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, from, to, high, "row");
    if (high > 1) {
        LLVMValueRef last = LLVMBuildNSWSub(e->b, to, constant(q, 1), "");
        LLVMValueRef two = LLVMBuildICmp(e->b, LLVMIntSLT, l.iv, last, "");
        second_row(q, k, l.iv, LLVMBuildZExt(e->b, two, e->i64, ""));
    }
    row(q, k, l.iv);
    mpqc_b_loop_end(e, &l);
}

/* ---- the kernel ------------------------------------------------------------------------ */

static void add_block(struct mpqc_direct *q, unsigned vectors, unsigned valid, int64_t first,
                      int64_t count, int64_t *at)
{
    if (count == 0) return;
    struct mpqc_direct_block *b = &q->blocks[q->n_blocks++];
    *b = (struct mpqc_direct_block){.first = first, .count = count, .weight_first = *at};
    b->c.n = vectors;
    for (unsigned v = 0; v < vectors; v++) b->c.lanes[v] = 4;
    b->c.valid = valid;
    *at += count * block_bytes(q, b);
}

/* Blocks of 16 channels (8 for dot products), and one of 16 or 8 for the rest; returns the
 * bytes of weights. */
static int64_t make_blocks(struct mpqc_direct *q)
{
    unsigned size = q->dots ? 8 : 16, rest = (unsigned)(q->p->channels % size);
    int64_t n = q->p->channels / size, bytes = 0;
    add_block(q, size / 4, size, 0, n, &bytes);
    add_block(q, rest > 8 ? 4 : 2, rest, size * n, rest > 0, &bytes);
    return bytes;
}

/* [block][kw][kh][channel] */
static int8_t *pack(struct mpqc_direct *q, int64_t bytes)
{
    const struct mpqc_window *p = q->p;
    int8_t *packed = MPQC_NEW_ARRAY(&q->e->scratch, int8_t, (size_t)bytes), *to = packed;
    for (unsigned i = 0; packed && i < q->n_blocks; i++) {
        const struct mpqc_direct_block *b = &q->blocks[i];
        int64_t channels = mpqc_direct_channels(b);
        for (int64_t n = 0; q->dots && n < b->count; n++, to += mpqc_dots_bytes(q->dots))
            mpqc_dots_pack(q->dots, p, b->first + 8 * n, to);
        for (int64_t n = 0; !q->dots && n < b->count * p->kw * p->kh; n++) {
            int64_t kh = n % p->kh, kw = n / p->kh % p->kw, first = n / p->kh / p->kw * channels;
            for (int64_t c = b->first + first; c < b->first + first + channels; c++, to++)
                if (c < p->channels) *to = p->w[(kh * p->kw + kw) * p->channels + c];
        }
    }
    return packed;
}

static void add_key(const struct mpqc_direct *q, const struct mpqc_kernel *k, struct mpqc_buf *key)
{
    const struct mpqc_window *p = q->p;
    const struct mpqc_place *place = &q->e->plan->place[k->out];
    const struct mpqc_quant *quant = mpqc_value_at(q->e->graph, k->out)->type.quant;
    const int64_t facts[] = {p->batch,   p->rows,    p->cols,      p->channels,  p->kh,
                             p->kw,      p->x_first, p->x_batch,   p->x_row,     p->x_col,
                             p->tap_row, p->tap_col, p->out_row,   p->out_col,   p->out_batch,
                             p->res_row, p->res_col, p->res_batch, q->exact,     p->once};
    mpqc_buf_puts(key, q->dots ? "window of dots" : "direct window");
    for (size_t i = 0; i < MPQC_LEN(facts); i++)
        mpqc_buf_printf(key, " %lld", (long long)facts[i]);
    if (mpqc_place_has_halo(place))
        mpqc_buf_printf(key, " h%d,%d,%d,%d:%d", place->halo[0], place->halo[1], place->halo[2],
                        place->halo[3], quant ? quant->zero[0] : 0);
}

static mpqc_status emit(struct mpqc_direct *q, const struct mpqc_kernel *k, struct mpqc_buf *key,
                        struct mpqc_kernel_code *out)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_column_use use[MPQC_DIRECT_BLOCKS];
    int64_t bytes = make_blocks(q);
    int8_t *w = pack(q, bytes);
    if (!w) return MPQC_OOM(e->cx);
    const struct mpqc_direct_block *last = &q->blocks[q->n_blocks - 1];
    q->exact = last->c.valid != mpqc_direct_channels(last) &&
               e->plan->place[q->p->x].space != MPQC_SPACE_ARENA;
    out->operand[0] = (struct mpqc_operand){.value = q->p->x};
    out->operand[1] = (struct mpqc_operand){
        MPQC_NONE, mpqc_global_bytes(e, "weights", w, (size_t)bytes, 64)};
    out->n_operands = 2;
    for (unsigned i = 0; i < q->n_blocks; i++)
        use[i] = (struct mpqc_column_use){q->blocks[i].c, q->blocks[i].first,
                                          mpqc_direct_channels(&q->blocks[i]), q->blocks[i].count};
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
    q->w = LLVMGetParam(out->body, 1);
    all_rows(q, k, LLVMGetParam(out->body, out->n_operands),
             LLVMGetParam(out->body, out->n_operands + 1));
    return mpqc_body_end(e);
}

bool mpqc_window_is_direct(const struct mpqc_emit_cx *e, const struct mpqc_window *p)
{
    struct mpqc_dots dots;
    if (!e->target->isa->direct) return mpqc_dots_plan(e, p, &dots);
    return p->w && p->kh <= MAX_ROWS && p->kh * p->kw <= MAX_TAPS;
}

mpqc_status mpqc_emit_window_direct(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                                    const struct mpqc_window *p, struct mpqc_kernel_code *out)
{
    struct mpqc_direct q = {.e = e, .p = p};
    struct mpqc_dots dots;
    struct mpqc_buf key;
    if (mpqc_dots_plan(e, p, &dots)) q.dots = &dots;
    int64_t most = p->kh * p->kw > KEPT_TAPS ? 2 : MAX_TILE;
    q.tile = p->cols < most ? p->cols : most;
    mpqc_buf_init(&key);
    mpqc_status status = emit(&q, k, &key, out);
    mpqc_buf_release(&key);
    return status;
}
