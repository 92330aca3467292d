/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Bit-serial kernels from the outside: which layers and tiles, weights in planes, bands,
 * panels, tiles of a row.  See bitserial.h.
 */
#include "codegen/bitserial.h"

#include "codegen/kernels.h"

enum { WORD = 32 };
/* Bytes of planes and sums on the stack: what a band should have, so that they stay in the
 * first cache; what it may have, where even one row is more. */
enum { BAND_BYTES = 16384, MOST_BAND_BYTES = 65536 };
/* Parts that a layer should have, for threads; the rows that two bands share are made twice. */
enum { BANDS = 8 };
/* Tenths of a cycle: of a word's load; beside mpqc_finish_cost, of bringing an accumulator to its
 * place (and bytes of code). */
enum { LOAD_COST = 3, JOIN_COST = 10, JOIN_BYTES = 12 };

unsigned mpqc_serial_sums(const struct mpqc_linear *l)
{
    return l->w_bits + l->x_bits - 1;
}

static int64_t taps(const struct mpqc_linear *l)
{
    return l->kh * l->kw;
}

/* ---- the shape ----------------------------------------------------------------------------- */

static int64_t band_bytes(const struct mpqc_serial *q)
{
    int64_t sums = q->l->w_bits == 1 ? 4 * (q->rows_in * q->cols_in + q->rows * q->cols) : 0;
    return q->rows_in * q->row + sums;
}

/* A word is 8 in each byte; with weights of 2 bits some are added and some are subtracted, and
 * a sum may take two pairs of planes. */
static int64_t longest_sum(const struct mpqc_counter *counter, const struct mpqc_linear *l)
{
    if (!counter->add_bytes) return 0;
    return l->w_bits == 1 ? UINT8_MAX / 8 : INT8_MAX / 8;
}

/* Of bands of so many rows, or where positions are one line, of so many positions. */
static void shape(struct mpqc_serial *q, const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                  int64_t band)
{
    const struct mpqc_counter *counter = e->target->isa->counter;
    bool tall = l->kh > 1, wide = l->kw > 1;
    *q = (struct mpqc_serial){.l = l, .dh = l->dh, .dw = l->dw, .word = 4 * counter->copies};
    q->most = longest_sum(counter, l);
    q->words = (l->icg + WORD - 1) / WORD;
    q->rows = l->flat ? 1 : band;
    q->cols = l->flat ? band : l->cols;
    q->sh = tall ? l->sh : 1;
    q->sw = wide ? l->sw : 1;
    q->pitch_row = tall ? l->x_row / l->sh : l->x_row;
    q->pitch_col = wide ? l->x_col / l->sw : l->x_col;
    q->rows_in = (q->rows - 1) * q->sh + (l->kh - 1) * l->dh + 1;
    q->cols_in = (q->cols - 1) * q->sw + (l->kw - 1) * l->dw + 1;
    q->plane = (q->word * q->words * q->cols_in + 63) / 64 * 64;
    q->row = l->x_bits * q->plane;
    bool merge = l->dw == 1 || !wide;
    q->run = merge ? l->kw * q->words : q->words;
    q->runs = merge ? 1 : l->kw;
}

/* Rows, or positions in steps of m, of a band; 0: there is no room for one. */
static int64_t choose_band(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, int64_t m)
{
    struct mpqc_serial q;
    int64_t extent = l->flat ? l->cols : l->rows, step = l->flat && m < extent ? m : 1;
    int64_t n = (extent + BANDS - 1) / BANDS;
    n = (n + step - 1) / step * step;
    for (shape(&q, e, l, n); n > step && band_bytes(&q) > BAND_BYTES; shape(&q, e, l, n))
        n -= step;
    return band_bytes(&q) <= MOST_BAND_BYTES ? n : 0;
}

/* ---- the choice ---------------------------------------------------------------------------- */

/* Registers: sums, weights of a step, and what the counter takes. */
static bool fits(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, int64_t m, unsigned nv)
{
    int64_t acc = m * nv * mpqc_serial_sums(l);
    int64_t all = acc + nv * l->w_bits + e->target->isa->counter->registers;
    return acc <= MPQC_SERIAL_VARS && all <= e->target->isa->registers;
}

/* How often each accumulator is brought somewhere. */
static int64_t joins(const struct mpqc_counter *counter, const struct mpqc_linear *l, int64_t steps)
{
    int64_t most = longest_sum(counter, l);
    return most ? 1 + (steps + most - 1) / most : 1;
}

/* All positions of the layer in tiles of m x the vectors of these columns. */
static int64_t columns_cost(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                            const struct mpqc_tile *t, const struct mpqc_columns *c)
{
    const struct mpqc_counter *counter = e->target->isa->counter;
    int64_t nv = c->n, steps = taps(l) * ((l->icg + WORD - 1) / WORD), cost = 0;
    for (int i = 0; i < 2; i++) {
        int64_t m = i == 0 ? t->mw : l->cols % t->mw, n = i == 0 ? l->cols / t->mw : m > 0;
        int64_t dots = m * nv, sums = mpqc_serial_sums(l) * joins(counter, l, steps);
        int64_t step = dots * l->w_bits * l->x_bits * counter->pair_cost +
                       LOAD_COST * (nv * l->w_bits + m * l->x_bits);
        cost += n * (steps * step + mpqc_finish_cost(m, c->n, false) + JOIN_COST * dots * sums);
    }
    return l->batch * l->rows * cost;
}

/* Bytes of code of tiles of m positions. */
static int64_t tile_code(const struct mpqc_linear *l, int64_t m, const struct mpqc_columns *c)
{
    int64_t step = m * c->n * l->w_bits * l->x_bits * MPQC_SERIAL_PAIR_BYTES;
    int64_t all = step * taps(l) * ((l->icg + WORD - 1) / WORD);
    if (all > MPQC_UNROLL_BYTES) all = step > MPQC_UNROLL_BYTES / 2 ? step : MPQC_UNROLL_BYTES / 2;
    return all + m * (mpqc_finish_code(c->n) + JOIN_BYTES * c->n * mpqc_serial_sums(l));
}

/* Of a panel: tiles of a row, and of what is left of it; a last band of a line has its own. */
static int64_t panel_code(const struct mpqc_linear *l, const struct mpqc_tile *t,
                          const struct mpqc_columns *c)
{
    int64_t rest = l->cols % t->mw, code = tile_code(l, t->mw, c);
    if (l->flat && l->cols > t->band && l->cols % t->band >= t->mw) code *= 2;
    return code + (rest ? tile_code(l, rest, c) : 0);
}

static int64_t cost_of(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                       const struct mpqc_tile *t)
{
    struct mpqc_serial q;
    shape(&q, e, l, t->band);
    int64_t pixels = l->batch * t->units * q.rows_in * q.cols_in;
    int64_t cost =
        pixels * ((l->icg + 63) / 64) * l->x_bits * e->target->isa->counter->plane_cost;
    int64_t code = t->panels.n_full ? panel_code(l, t, &t->panels.full) : 0;
    cost += t->panels.n_full * columns_cost(e, l, t, &t->panels.full);
    for (unsigned r = 0; r < t->panels.n_rest; r++) {
        cost += columns_cost(e, l, t, &t->panels.rest[r]);
        code += panel_code(l, t, &t->panels.rest[r]);
    }
    return cost + mpqc_cost_of_byte(e) * code;
}

/* Can it be done at all?  What is not in the arena is read exactly here. */
static bool possible(const struct mpqc_emit_cx *e, const struct mpqc_linear *l)
{
    return e->target->isa->counter && l->groups == 1 && !l->fan && l->x_bits <= 2 &&
           l->w_bits <= 2 && l->group == 0 && l->rows > 0 && l->cols > 0 && l->icg > 0 && l->ocg > 0;
}

bool mpqc_serial_tile_of(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, int64_t m,
                         unsigned nv, struct mpqc_tile *t)
{
    if (!possible(e, l) || m < 1 || m > l->cols || nv < 1 || nv > 8 || !fits(e, l, m, nv))
        return false;
    *t = (struct mpqc_tile){.serial = true, .mh = 1, .mw = m, .unroll = 1, .split = 1};
    t->band = choose_band(e, l, m);
    if (t->band == 0) return false;
    mpqc_panels_make(e, l, NULL, nv, &t->panels);
    t->units = ((l->flat ? l->cols : l->rows) + t->band - 1) / t->band;
    return true;
}

bool mpqc_serial_choose(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, int64_t *best,
                        struct mpqc_tile *out)
{
    struct mpqc_tile t;
    bool found = false;
    int64_t lanes = e->target->isa->lanes;
    int64_t most = possible(e, l) ? (l->ocg + lanes - 1) / lanes : 0;
    for (unsigned nv = 1; nv <= 8 && nv <= most; nv++)
        for (int64_t m = 1; mpqc_serial_tile_of(e, l, m, nv, &t); m++) {
            int64_t now = cost_of(e, l, &t);
            if (now >= *best) continue;
            *best = now;
            *out = t;
            found = true;
        }
    return found;
}

/* ---- weights --------------------------------------------------------------------------------- */

int64_t mpqc_serial_panel_bytes(const struct mpqc_serial *q, const struct mpqc_columns *c)
{
    return taps(q->l) * q->words * q->l->w_bits * 4 * mpqc_columns_lanes(c);
}

/* Bits `plane` of word `word` of a tap in one channel: two's complement, or w > 0. */
static uint32_t word_of(const struct mpqc_linear *l, int64_t tap, int64_t word, unsigned plane,
                        int64_t channel)
{
    uint32_t bits = 0;
    for (int64_t i = 0; i < WORD && word * WORD + i < l->icg; i++) {
        int w = l->w[(tap * l->icg + word * WORD + i) * l->ocg + channel];
        unsigned bit = l->w_bits == 1 ? w > 0 : (unsigned)w >> plane & 1;
        bits |= (uint32_t)bit << i;
    }
    return bits;
}

/* [tap][word][plane][lane]; lanes without a channel are 0. */
static uint8_t *pack_panel(const struct mpqc_serial *q, const struct mpqc_columns *c,
                           int64_t channel, uint8_t *to)
{
    for (int64_t i = 0; i < taps(q->l) * q->words; i++)
        for (unsigned plane = 0; plane < q->l->w_bits; plane++)
            for (int64_t lane = 0; lane < mpqc_columns_lanes(c); lane++)
                for (int b = 0; b < 4; b++) {
                    bool there = lane < c->valid;
                    uint32_t w = there ? word_of(q->l, i / q->words, i % q->words, plane,
                                                 channel + lane)
                                       : 0;
                    *to++ = (uint8_t)(w >> 8 * b); /* little-endian, like the targets */
                }
    return to;
}

static LLVMValueRef pack(struct mpqc_serial *q)
{
    const struct mpqc_panels *p = &q->t->panels;
    int64_t bytes = p->n_full * mpqc_serial_panel_bytes(q, &p->full), channel = 0;
    for (unsigned r = 0; r < p->n_rest; r++) bytes += mpqc_serial_panel_bytes(q, &p->rest[r]);
    uint8_t *w = MPQC_NEW_ARRAY(&q->e->scratch, uint8_t, (size_t)bytes), *to = w;
    if (!w) return NULL;
    for (int64_t i = 0; i < p->n_full; i++, channel += p->full.valid)
        to = pack_panel(q, &p->full, channel, to);
    for (unsigned r = 0; r < p->n_rest; channel += p->rest[r++].valid)
        to = pack_panel(q, &p->rest[r], channel, to);
    return mpqc_global_bytes(q->e, "weights", w, (size_t)bytes, 64);
}

/* ---- code ------------------------------------------------------------------------------------ */

static LLVMValueRef constant(const struct mpqc_serial *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

/* Element offsets and input bytes of where a band begins; how large it is. */
struct band {
    LLVMValueRef x, position, residual; /* of channel 0 */
    LLVMValueRef row;                   /* of the output, over all images; NULL where flat */
    LLVMValueRef rows;
    int64_t cols;
};

/* m positions from column `col` on of a row at y (i64). */
static void tile(struct mpqc_serial *q, const struct band *b, LLVMValueRef y, LLVMValueRef col,
                 int64_t m)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    LLVMValueRef x = mpqc_b_madd(e, y, q->sh * q->row, constant(q, 0));
    x = mpqc_b_gep(e, q->planes, mpqc_b_madd(e, col, q->word * q->sw * q->words, x));
    LLVMValueRef sum = NULL;
    if (q->window_sums) {
        sum = mpqc_b_madd(e, y, 4 * q->cols, constant(q, 0));
        sum = mpqc_b_gep(e, q->window_sums, mpqc_b_madd(e, col, 4, sum));
    }
    LLVMValueRef position = LLVMBuildNSWAdd(e->b, b->position, q->channel, "");
    LLVMValueRef residual = LLVMBuildNSWAdd(e->b, b->residual, q->channel, "");
    position = mpqc_b_madd(e, y, l->out_row, mpqc_b_madd(e, col, l->out_col, position));
    residual = mpqc_b_madd(e, y, l->res_row, mpqc_b_madd(e, col, l->res_col, residual));
    mpqc_serial_tile(q, m, x, sum, position, residual);
}

static void row(struct mpqc_serial *q, const struct band *b, LLVMValueRef y)
{
    int64_t m = q->t->mw, n = b->cols / m, rest = b->cols % m;
    if (n > 0) {
        struct mpqc_loop loop;
        mpqc_b_loop_begin(q->e, &loop, constant(q, 0), constant(q, n * m), m, "tile");
        tile(q, b, y, loop.iv, m);
        mpqc_b_loop_end(q->e, &loop);
    }
    if (rest) tile(q, b, y, constant(q, n * m), rest);
}

static void panel(struct mpqc_serial *q, const struct band *b, const struct mpqc_columns *c,
                  LLVMValueRef channel, LLVMValueRef w)
{
    struct mpqc_loop loop;
    q->c = c;
    q->channel = channel;
    q->panel_w = w;
    mpqc_b_loop_begin(q->e, &loop, constant(q, 0), b->rows, 1, "band.row");
    row(q, b, loop.iv);
    mpqc_b_loop_end(q->e, &loop);
}

struct band_walk {
    struct mpqc_serial *q;
    const struct band *b;
};

static int64_t walked_bytes(const void *user, const struct mpqc_columns *c)
{
    const struct band_walk *u = user;
    return mpqc_serial_panel_bytes(u->q, c);
}

static void walked_panel(void *user, const struct mpqc_columns *c, LLVMValueRef channel,
                         LLVMValueRef w)
{
    struct band_walk *u = user;
    panel(u->q, u->b, c, channel, w);
}

/* Panels [first, last); NULL: all. */
static void panels(struct mpqc_serial *q, const struct band *b, LLVMValueRef first,
                   LLVMValueRef last)
{
    struct band_walk user = {q, b};
    const struct mpqc_panel_walk walk = {&user, walked_bytes, walked_panel};
    mpqc_panels_walk(q->e, &q->t->panels, &walk, q->w, first, last);
}

/* Halo of the band's rows. */
static void halos(struct mpqc_serial *q, const struct mpqc_kernel *k, const struct band *b)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_place *place = &e->plan->place[k->out];
    struct mpqc_loop loop;
    if (!mpqc_place_has_halo(place)) return;
    MPQC_ASSERT(b->row);
    mpqc_b_loop_begin(e, &loop, b->row, LLVMBuildNSWAdd(e->b, b->row, b->rows, ""), 1, "halo");
    mpqc_emit_halo(e, place, &mpqc_value_at(e->graph, k->out)->type, mpqc_epilogue_out(q->ep),
                   loop.iv);
    mpqc_b_loop_end(e, &loop);
}

static void do_band(struct mpqc_serial *q, const struct mpqc_kernel *k, const struct band *b,
                    LLVMValueRef first, LLVMValueRef last)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_if branch;
    if (first && mpqc_place_has_halo(&e->plan->place[k->out])) {
        /* it belongs to the first panel */
        mpqc_b_if_begin(e, &branch, LLVMBuildICmp(e->b, LLVMIntEQ, first, constant(q, 0), ""));
        halos(q, k, b);
        mpqc_b_if_end(e, &branch);
    } else {
        halos(q, k, b);
    }
    mpqc_serial_planes(q, b->x, b->rows, b->cols);
    panels(q, b, first, last);
}

/* Band u of image n of a layer whose positions are rows: the last has what is left. */
static void rows_band(struct mpqc_serial *q, const struct mpqc_kernel *k, LLVMValueRef n,
                      LLVMValueRef u, LLVMValueRef first, LLVMValueRef last)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    LLVMValueRef zero = constant(q, 0), y = mpqc_b_madd(e, u, q->rows, zero);
    struct band b = {.cols = l->cols, .rows = constant(q, q->rows)};
    LLVMValueRef at = mpqc_b_madd(e, n, l->x_batch, constant(q, l->x_first));
    b.x = mpqc_b_gep(e, q->x, mpqc_b_madd(e, y, l->x_row, at));
    b.position = mpqc_b_madd(e, y, l->out_row, mpqc_b_madd(e, n, l->out_batch, zero));
    b.residual = mpqc_b_madd(e, y, l->res_row, mpqc_b_madd(e, n, l->res_batch, zero));
    b.row = mpqc_b_madd(e, n, l->rows, y);
    if (l->rows % q->rows) {
        LLVMValueRef left = LLVMBuildNSWSub(e->b, constant(q, l->rows), y, "");
        LLVMValueRef less = LLVMBuildICmp(e->b, LLVMIntSLT, left, b.rows, "");
        b.rows = LLVMBuildSelect(e->b, less, left, b.rows, "");
    }
    do_band(q, k, &b, first, last);
}

/* `cols` positions of the line from position `col` on. */
static void line_band(struct mpqc_serial *q, const struct mpqc_kernel *k, LLVMValueRef col,
                      int64_t cols, LLVMValueRef first, LLVMValueRef last)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    struct band b = {.cols = cols, .rows = constant(q, 1)};
    b.x = mpqc_b_gep(e, q->x, mpqc_b_madd(e, col, l->x_col, constant(q, l->x_first)));
    b.position = mpqc_b_madd(e, col, l->out_col, constant(q, 0));
    b.residual = mpqc_b_madd(e, col, l->res_col, constant(q, 0));
    do_band(q, k, &b, first, last);
}

/* Band u of those of all images. */
static void any_band(struct mpqc_serial *q, const struct mpqc_kernel *k, LLVMValueRef u,
                     LLVMValueRef first, LLVMValueRef last)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    int64_t full = l->cols / q->cols, rest = l->cols % q->cols;
    struct mpqc_if branch;
    if (!l->flat) {
        LLVMValueRef n = constant(q, 0), units = constant(q, q->t->units);
        if (l->batch > 1) {
            n = LLVMBuildSDiv(e->b, u, units, "");
            u = LLVMBuildSRem(e->b, u, units, "");
        }
        rows_band(q, k, n, u, first, last);
        return;
    }
    LLVMValueRef col = mpqc_b_madd(e, u, q->cols, constant(q, 0));
    if (rest == 0) {
        line_band(q, k, col, q->cols, first, last);
        return;
    }
    mpqc_b_if_begin(e, &branch, LLVMBuildICmp(e->b, LLVMIntSLT, u, constant(q, full), ""));
    line_band(q, k, col, q->cols, first, last);
    mpqc_b_if_end(e, &branch);
    mpqc_b_if_begin(e, &branch, LLVMBuildICmp(e->b, LLVMIntSGE, u, constant(q, full), ""));
    line_band(q, k, col, rest, first, last);
    mpqc_b_if_end(e, &branch);
}

/* Memory of a band, on the stack. */
static LLVMValueRef room(struct mpqc_serial *q, int64_t bytes, const char *name)
{
    LLVMTypeRef line = LLVMVectorType(q->e->i32, 16);
    return mpqc_b_var(q->e, LLVMArrayType2(line, (uint64_t)(bytes + 63) / 64), name);
}

static void make_rooms(struct mpqc_serial *q)
{
    const struct mpqc_linear *l = q->l;
    q->planes = room(q, q->rows_in * q->row, "planes");
    if (q->most && l->kh * q->runs * q->run > q->most)
        q->accumulators = room(q, 16 * MPQC_SERIAL_VARS, "accumulators");
    if (l->w_bits > 1) return;
    q->pixel_sums = q->window_sums = room(q, 4 * q->rows_in * q->cols_in, "sums");
    if (taps(l) > 1) q->window_sums = room(q, 4 * q->rows * q->cols, "window.sums");
}

void mpqc_serial_body(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                      const struct mpqc_linear *l, const struct mpqc_tile *t,
                      struct mpqc_epilogue *ep, LLVMValueRef x, LLVMValueRef w, LLVMValueRef from,
                      LLVMValueRef to)
{
    struct mpqc_serial q;
    struct mpqc_loop loop;
    shape(&q, e, l, t->band);
    q.e = e;
    q.t = t;
    q.ep = ep;
    q.x = x;
    q.w = w;
    make_rooms(&q);
    if (t->by_panel) {
        any_band(&q, k, constant(&q, 0), from, to);
        return;
    }
    mpqc_b_loop_begin(e, &loop, from, to, 1, "band");
    any_band(&q, k, loop.iv, NULL, NULL);
    mpqc_b_loop_end(e, &loop);
}

LLVMValueRef mpqc_serial_weights(struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                                 const struct mpqc_tile *t)
{
    struct mpqc_serial q;
    shape(&q, e, l, t->band);
    q.e = e;
    q.t = t;
    return pack(&q);
}
