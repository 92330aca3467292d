/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Depthwise convolution where there is no dot product of bytes: vectors of 16 channels are
 * multiplied by 16 weights each, two taps at a time, and nothing is interleaved.
 *
 * A tile is a few output columns of 16 channels (8 at the end).  Input columns are taken
 * from left to right; each is loaded once and enters all outputs of which it is a tap.  Of
 * its rows, two make a step; the row that is left over where their number is odd waits for
 * that of the next column.
 */
#include "codegen/linear.h"

#include "codegen/kernels.h"
#include "codegen/module.h"

#define MAX_TILE 3
#define MAX_TAPS 49 /* they are straight-line code */
#define MAX_ROWS 16
#define KEPT_TAPS 9 /* whose weights stay in registers during a tile */
#define MAX_BLOCKS 2

struct block {
    struct mpqc_columns c;
    int64_t first, count, weight_first;
};

struct direct {
    struct mpqc_emit_cx *e;
    const struct mpqc_window *p;
    struct mpqc_epilogue *ep;
    struct block blocks[MAX_BLOCKS];
    unsigned n_blocks;
    int64_t tile;
    bool exact;
    LLVMValueRef x, w;
    /* at work */
    const struct block *b;
    LLVMValueRef block_w, channel;
};

static LLVMValueRef constant(struct direct *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

/* ---- one tile ------------------------------------------------------------------------ */

struct sums {
    LLVMValueRef acc[4];
    LLVMValueRef x, w; /* the tap that waits for another, or NULL */
};

static int64_t block_channels(const struct block *b)
{
    return mpqc_columns_lanes(&b->c);
}

static LLVMValueRef load_input(struct direct *q, LLVMValueRef x, int64_t at)
{
    struct mpqc_emit_cx *e = q->e;
    unsigned n = (unsigned)block_channels(q->b);
    LLVMValueRef v =
        mpqc_b_load_bytes(e, mpqc_b_gep_const(e, x, at), q->b->c.valid, n, q->exact);
    int offset = e->target->isa->x_offset;
    return offset ? LLVMBuildXor(e->b, v, mpqc_b_splat(e, LLVMTypeOf(v), offset), "") : v;
}

static LLVMValueRef load_weights(struct direct *q, LLVMValueRef w, int64_t kw, int64_t kh)
{
    unsigned n = (unsigned)block_channels(q->b);
    LLVMValueRef at = mpqc_b_gep_const(q->e, w, (kw * q->p->kh + kh) * n);
    return mpqc_b_load(q->e, LLVMVectorType(q->e->i8, n), at, 8);
}

static void take(struct direct *q, struct sums *s, LLVMValueRef x0, LLVMValueRef w0,
                 LLVMValueRef x1, LLVMValueRef w1)
{
    q->e->target->isa->direct(q->e, q->b->c.n, s->acc, x0, w0, x1, w1);
}

/* Column kw of the window, whose rows are x. */
static void take_column(struct direct *q, struct sums *s, const LLVMValueRef *x, LLVMValueRef w,
                        int64_t kw)
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

/* Where a row or tile begins: input, output, residual, index of the position. */
struct origin {
    LLVMValueRef x, position, residual, index;
};

static void all_columns(struct direct *q, int64_t width, LLVMValueRef x, struct sums *s)
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

static void tile(struct direct *q, int64_t width, struct origin o)
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

static struct origin move(struct direct *q, struct origin o, LLVMValueRef columns)
{
    const struct mpqc_window *p = q->p;
    o.x = mpqc_b_gep(q->e, o.x, mpqc_b_madd(q->e, columns, p->x_col, constant(q, 0)));
    o.position = mpqc_b_madd(q->e, columns, p->out_col, o.position);
    o.residual = mpqc_b_madd(q->e, columns, p->res_col, o.residual);
    o.index = mpqc_b_madd(q->e, columns, 1, o.index);
    return o;
}

/* The tiles of a row: where a position may be computed twice, the last one is moved back. */
static void all_tiles(struct direct *q, struct origin o)
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
    tile(q, q->tile, move(q, o, at));
    mpqc_b_loop_end(e, &l);
    if (rest && !back) tile(q, rest, move(q, o, constant(q, n * q->tile)));
}

static void all_blocks(struct direct *q, struct origin row)
{
    struct mpqc_emit_cx *e = q->e;
    for (unsigned i = 0; i < q->n_blocks; i++) {
        const struct block *b = &q->blocks[i];
        int64_t n = block_channels(b), bytes = q->p->kh * q->p->kw * n;
        struct origin o = row;
        struct mpqc_loop l;
        mpqc_b_loop_begin(e, &l, constant(q, 0), constant(q, b->count), 1, "block");
        q->b = b;
        q->channel = mpqc_b_madd(e, l.iv, n, constant(q, b->first));
        q->block_w =
            mpqc_b_gep(e, q->w, mpqc_b_madd(e, l.iv, bytes, constant(q, b->weight_first)));
        o.x = mpqc_b_gep(e, o.x, q->channel);
        o.position = LLVMBuildNSWAdd(e->b, o.position, q->channel, "");
        o.residual = LLVMBuildNSWAdd(e->b, o.residual, q->channel, "");
        all_tiles(q, o);
        mpqc_b_loop_end(e, &l);
    }
}

static void row(struct direct *q, const struct mpqc_kernel *k, LLVMValueRef u)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_window *p = q->p;
    LLVMValueRef zero = constant(q, 0), rows = constant(q, p->rows);
    mpqc_emit_halo(e, &e->plan->place[k->out], &mpqc_value_at(e->graph, k->out)->type,
                   mpqc_epilogue_out(q->ep), u);
    LLVMValueRef n = LLVMBuildSDiv(e->b, u, rows, ""), h = LLVMBuildSRem(e->b, u, rows, "");
    struct origin o;
    o.x = mpqc_b_gep(e, q->x, mpqc_b_madd(e, n, p->x_batch, constant(q, p->x_first)));
    o.x = mpqc_b_gep(e, o.x, mpqc_b_madd(e, h, p->x_row, zero));
    o.position = mpqc_b_madd(e, h, p->out_row, mpqc_b_madd(e, n, p->out_batch, zero));
    o.residual = mpqc_b_madd(e, h, p->res_row, mpqc_b_madd(e, n, p->res_batch, zero));
    o.index = mpqc_b_madd(e, h, p->cols, zero);
    all_blocks(q, o);
}

/* ---- the kernel ------------------------------------------------------------------------ */

static void add_block(struct direct *q, unsigned vectors, unsigned valid, int64_t first,
                      int64_t count, int64_t *at)
{
    if (count == 0) return;
    struct block *b = &q->blocks[q->n_blocks++];
    *b = (struct block){.first = first, .count = count, .weight_first = *at};
    b->c.n = vectors;
    for (unsigned v = 0; v < vectors; v++) b->c.lanes[v] = 4;
    b->c.valid = valid;
    *at += count * q->p->kh * q->p->kw * block_channels(b);
}

/* Blocks of 16 channels, and one of 16 or 8 for the rest; returns the bytes of weights. */
static int64_t make_blocks(struct direct *q)
{
    int64_t n = q->p->channels / 16, rest = q->p->channels % 16, bytes = 0;
    add_block(q, 4, 16, 0, n, &bytes);
    add_block(q, rest > 8 ? 4 : 2, (unsigned)rest, 16 * n, rest > 0, &bytes);
    return bytes;
}

/* [block][kw][kh][channel] */
static int8_t *pack(struct direct *q, int64_t bytes)
{
    const struct mpqc_window *p = q->p;
    int8_t *packed = MPQC_NEW_ARRAY(&q->e->scratch, int8_t, (size_t)bytes), *to = packed;
    for (unsigned i = 0; packed && i < q->n_blocks; i++) {
        const struct block *b = &q->blocks[i];
        int64_t channels = block_channels(b);
        for (int64_t n = 0; n < b->count * p->kw * p->kh; n++) {
            int64_t kh = n % p->kh, kw = n / p->kh % p->kw, first = n / p->kh / p->kw * channels;
            for (int64_t c = b->first + first; c < b->first + first + channels; c++, to++)
                if (c < p->channels) *to = p->w[(kh * p->kw + kw) * p->channels + c];
        }
    }
    return packed;
}

static void add_key(const struct direct *q, const struct mpqc_kernel *k, struct mpqc_buf *key)
{
    const struct mpqc_window *p = q->p;
    const struct mpqc_place *place = &q->e->plan->place[k->out];
    const struct mpqc_quant *quant = mpqc_value_at(q->e->graph, k->out)->type.quant;
    const int64_t facts[] = {p->batch,   p->rows,    p->cols,      p->channels,  p->kh,
                             p->kw,      p->x_first, p->x_batch,   p->x_row,     p->x_col,
                             p->tap_row, p->tap_col, p->out_row,   p->out_col,   p->out_batch,
                             p->res_row, p->res_col, p->res_batch, q->exact,     p->once};
    mpqc_buf_puts(key, "direct window");
    for (size_t i = 0; i < MPQC_LEN(facts); i++)
        mpqc_buf_printf(key, " %lld", (long long)facts[i]);
    if (mpqc_place_has_halo(place))
        mpqc_buf_printf(key, " h%d,%d,%d,%d:%d", place->halo[0], place->halo[1], place->halo[2],
                        place->halo[3], quant ? quant->zero[0] : 0);
}

static mpqc_status emit(struct direct *q, const struct mpqc_kernel *k, struct mpqc_buf *key,
                        struct mpqc_kernel_code *out)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_column_use use[MAX_BLOCKS];
    int64_t bytes = make_blocks(q);
    int8_t *w = pack(q, bytes);
    if (!w) return MPQC_OOM(e->cx);
    const struct block *last = &q->blocks[q->n_blocks - 1];
    q->exact = last->c.valid != block_channels(last) &&
               e->plan->place[q->p->x].space != MPQC_SPACE_ARENA;
    out->operand[0] = (struct mpqc_operand){.value = q->p->x};
    out->operand[1] = (struct mpqc_operand){
        MPQC_NONE, mpqc_global_bytes(e, "weights", w, (size_t)bytes, 64)};
    out->n_operands = 2;
    for (unsigned i = 0; i < q->n_blocks; i++)
        use[i] = (struct mpqc_column_use){q->blocks[i].c, q->blocks[i].first,
                                          block_channels(&q->blocks[i]), q->blocks[i].count};
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
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, LLVMGetParam(out->body, out->n_operands),
                      LLVMGetParam(out->body, out->n_operands + 1), 1, "row");
    row(q, k, l.iv);
    mpqc_b_loop_end(e, &l);
    return mpqc_body_end(e);
}

bool mpqc_window_is_direct(const struct mpqc_emit_cx *e, const struct mpqc_window *p)
{
    return e->target->isa->direct && p->w && p->kh <= MAX_ROWS && p->kh * p->kw <= MAX_TAPS;
}

mpqc_status mpqc_emit_window_direct(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                                    const struct mpqc_window *p, struct mpqc_kernel_code *out)
{
    struct direct q = {.e = e, .p = p};
    struct mpqc_buf key;
    int64_t most = p->kh * p->kw > KEPT_TAPS ? 2 : MAX_TILE;
    q.tile = p->cols < most ? p->cols : most;
    mpqc_buf_init(&key);
    mpqc_status status = emit(&q, k, &key, out);
    mpqc_buf_release(&key);
    return status;
}
