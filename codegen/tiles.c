/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Which register tile a linear layer is computed in: rows x columns of positions times
 * column vectors.  Tiles that fit the registers are tried; the cheapest by a small
 * cost model wins, unless the request asks for another (-tune-kernels).  Costs are about
 * tenths of a cycle; only their order matters.
 */
#include "codegen/linear.h"

#include <stdio.h>
#include <string.h>

/* The constants below were fitted to some 1,800 measured tiles of 34 layers (bench_kernels
 * -tiles=grid, Zen 5, vpdpbusd at 8): what they choose is 1.9 % slower than the best of them
 * on average. */
#define UNPACK_COST 4 /* of one instruction that unpacks weights */
/* Of a step where so few chains of dot products wait for each other. */
#define LATENCY_CHAINS 5
#define LATENCY_DOTS 9
/* Of finishing a tile: small ones are finished while the next ones are computed, so what
 * shows are stores and what a tile has beyond so many accumulators. */
#define FINISH_TILE 20
#define FINISH_DOT 5
#define FINISH_STORE 50  /* four vectors become one of bytes; three take two stores */
#define FINISH_NARROW 86 /* a vector of fewer lanes goes by itself */
#define FINISH_AHEAD 10
#define FINISH_BEYOND 20
#define FINISH_ROLLED 20 /* an accumulator's way through memory */
#define OVERLAP_COST 26  /* of a tile that may be moved back */
#define SPREAD_COST 4    /* activations of several groups to their lanes */
#define FACTOR_COST 12 /* of a multiplication and an addition of i32 */
/* Steps of one turn of the loop where weights come from memory: few turns, so that more
 * loads are in flight. */
#define STREAM_STEPS 16
/* Where tiles fetch the next panel: most tiles of an image, of which the first does not wait
 * so long that it shows; steps of one turn of the loop, among which they divide that. */
#define MOST_FETCHING 64
#define FETCH_STEPS 4

unsigned mpqc_split_channels(int64_t n, unsigned lanes, bool may_pad, int64_t *full,
                             unsigned tail[MPQC_MAX_TAIL])
{
    unsigned n_tail = 0;
    *full = n / lanes;
    int64_t rest = n % lanes;
    if (may_pad && lanes > 4 && rest > lanes - lanes / 4) {
        tail[n_tail++] = lanes;
        return n_tail;
    }
    for (unsigned w = lanes > 4 ? lanes / 2 : 4; rest > 0;) {
        if (rest < w && w > 4) {
            w /= 2;
            continue;
        }
        tail[n_tail++] = w;
        rest -= w;
    }
    return n_tail;
}

static void columns_add(struct mpqc_columns *c, unsigned lanes, int64_t *left)
{
    c->lanes[c->n++] = lanes;
    int64_t take = *left < lanes ? *left : lanes;
    c->valid += (unsigned)take;
    *left -= take;
}

void mpqc_panels_make(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                      const struct mpqc_form *form, unsigned nv, struct mpqc_panels *p)
{
    unsigned tail[MPQC_MAX_TAIL], lanes = e->target->isa->lanes;
    int64_t full, left;
    unsigned n_tail = mpqc_split_channels(l->ocg, lanes, l->groups == 1 && !l->fan, &full, tail);
    memset(p, 0, sizeof *p);
    p->n_full = full / nv;
    p->full.paired = form && form->pair > 1;
    left = (int64_t)nv * lanes;
    for (unsigned v = 0; v < nv; v++) columns_add(&p->full, lanes, &left);
    left = l->ocg - p->n_full * p->full.valid;
    unsigned n = (unsigned)(full % nv), i = 0;
    while (i < n + n_tail) {
        struct mpqc_columns *c = &p->rest[p->n_rest++];
        MPQC_ASSERT(p->n_rest <= MPQC_MAX_REST);
        c->paired = p->full.paired;
        for (unsigned v = 0; v < nv && i < n + n_tail; v++, i++)
            columns_add(c, i < n ? lanes : tail[i - n], &left);
    }
    if (n_tail > 0 && tail[n_tail - 1] < lanes && l->groups == 1)
        p->rest[p->n_rest - 1].wide_tail = true;
    MPQC_ASSERT(left == 0);
}

/* Columns in the order in which packs leave bytes in theirs.  Vectors of 16 bytes need none;
 * groups that share vectors have theirs. */
static void interleave(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                       struct mpqc_panels *p)
{
    if (e->target->isa->lanes <= 4 || l->fan) return;
    p->full.interleaved = true;
    for (unsigned r = 0; r < p->n_rest; r++) p->rest[r].interleaved = true;
}

int64_t mpqc_cost_of_byte(const struct mpqc_emit_cx *e)
{
    if (e->constant_bytes >= (size_t)1 << 20) return 5;
    /* where a dot product is several instructions, code is what makes a library large */
    return e->target->isa->x_values > 1 ? 64 : 12;
}

/* Pairs of m positions. */
static int64_t pairs(const struct mpqc_form *f, int64_t m)
{
    return (m + f->pair - 1) / f->pair;
}

int64_t mpqc_steps_code(const struct mpqc_isa *isa, const struct mpqc_form *f, unsigned bits,
                        int64_t steps, int64_t m, unsigned nv)
{
    int64_t unpack = 7 * nv * mpqc_unpack_ops(bits);
    if (f)
        return steps * ((pairs(f, m) * nv * f->dot_code + m * f->x_code + nv * f->w_code) /
                            f->steps + unpack);
    return steps * (m * nv * isa->dot_cost * 5 / 4 + 2 * m * isa->x_cost + 2 * nv * isa->w_cost +
                    unpack);
}

int64_t mpqc_finish_code(unsigned nv)
{
    return 32 * nv + 55;
}

int64_t mpqc_finish_cost(int64_t m, unsigned nv, bool rolled)
{
    return m * nv * (rolled ? 38 : 25) + 20 * m + 120 + (rolled ? 50 : 0);
}

static int64_t all_steps(const struct mpqc_linear *l)
{
    return l->n_outer * l->n_inner * l->k4;
}

int64_t mpqc_line_positions(const struct mpqc_isa *isa, const struct mpqc_linear *l,
                            const struct mpqc_columns *c, int64_t mh, int64_t mw)
{
    int64_t whole = (int64_t)c->n * isa->lanes, n = c->n == 1 ? 4 : 2;
    if (c->n > 2 || isa->lanes <= 4 || mpqc_columns_lanes(c) < whole || c->valid < whole ||
        l->out_col != whole || l->group || (l->res_col != 0 && l->res_col != whole))
        return 1;
    return mh == 1 ? (mw >= n ? n : 1) : mw % n == 0 ? n : 1;
}

static int64_t tile_finish_cost(const struct mpqc_isa *isa, const struct mpqc_linear *l,
                                int64_t mh, int64_t mw, const struct mpqc_columns *c, bool rolled)
{
    int64_t m = mh * mw, dots = m * c->n, narrow = 0;
    int64_t line = rolled ? 1 : mpqc_line_positions(isa, l, c, mh, mw);
    for (unsigned v = 0; v < c->n; v++) narrow += c->lanes[v] < isa->lanes;
    int64_t stores = c->n / 4 + (c->n >> 1 & 1) + (c->n & 1);
    if (narrow == 1 && c->wide_tail && c->n % 4 != 1) { /* goes with others */
        narrow = 0;
        stores = (c->n + 3) / 4;
    }
    int64_t cost = FINISH_TILE + FINISH_DOT * dots;
    cost += m * FINISH_NARROW * narrow + (m / line + m % line) * FINISH_STORE * stores;
    if (dots > FINISH_AHEAD) cost += FINISH_BEYOND * (dots - FINISH_AHEAD);
    return cost + (rolled ? FINISH_ROLLED * (dots + 2) : 0);
}

/* Time of all steps of a tile in a form. */
static int64_t form_cost(const struct mpqc_form *f, const struct mpqc_linear *l, int64_t m,
                         unsigned nv)
{
    int64_t steps = l->n_outer * l->n_inner * mpqc_form_steps(f, l->k4);
    int64_t dots = pairs(f, m) * nv * f->dot_cost, chains = pairs(f, m) * nv * f->acc;
    if (chains < f->chains) dots = dots * f->chains / chains; /* latency */
    int64_t block = dots + m * f->x_cost +
                    nv * (f->w_cost + (int64_t)f->steps * UNPACK_COST * mpqc_unpack_ops(l->bits));
    return steps * block / f->steps;
}

/* Sums of groups times factors, to the totals. */
static int64_t factors_cost(const struct mpqc_linear *l, int64_t m, unsigned nv)
{
    if (l->group == 0) return 0;
    return (l->run + l->group - 1) / l->group * nv * (FACTOR_COST * m + UNPACK_COST);
}

static int64_t tile_cost(const struct mpqc_isa *isa, const struct mpqc_linear *l,
                         const struct mpqc_form *f, int64_t mh, int64_t mw,
                         const struct mpqc_columns *c, bool rolled)
{
    int64_t finish = tile_finish_cost(isa, l, mh, mw, c, rolled);
    int64_t m = mh * mw, nv = c->n, dots = m * nv;
    if (f) return form_cost(f, l, m, c->n) + finish;
    int64_t x = l->fan ? dots * (isa->x_cost + SPREAD_COST) : m * isa->x_cost;
    int64_t step = dots * isa->dot_cost + x +
                   nv * (isa->w_cost + UNPACK_COST * mpqc_unpack_ops(l->bits));
    bool one = isa->x_values == 1 && isa->acc_per_column == 1; /* instruction a dot product */
    int64_t wait = one ? LATENCY_DOTS * isa->dot_cost : 20;
    if (dots * isa->acc_per_column < LATENCY_CHAINS && step < wait) step = wait;
    return all_steps(l) * step + factors_cost(l, m, c->n) + finish;
}

/* Bytes of code of a tile: see emit_linear.c. */
static int64_t tile_code(const struct mpqc_isa *isa, const struct mpqc_linear *l,
                         const struct mpqc_form *f, int64_t m, unsigned nv, bool rolled)
{
    int64_t step = mpqc_steps_code(isa, f, l->bits, 1, m, nv), all = step * all_steps(l);
    int64_t bundle = mpqc_packing_of(l->bits).steps, looped = m * nv < 6 ? 5 : m * nv < 12 ? 3 : 1;
    if (looped < bundle) looped = bundle;
    if (f && looped < f->steps) looped = f->steps;
    if (all > MPQC_UNROLL_BYTES && step * looped < all) all = step * looped;
    return all + mpqc_finish_code(nv) * (rolled ? 1 : m) + (rolled ? 9 * m * nv : 0) + 100;
}

/* All tiles of one image and group. */
static int64_t schedule_cost(const struct mpqc_isa *isa, const struct mpqc_linear *l,
                             const struct mpqc_tile *t, int64_t cost_of_byte)
{
    const struct mpqc_panels *p = &t->panels;
    int64_t size[2][2], count[2][2], cost = 0; /* [rows, columns][full, rest] */
    const int64_t extent[2] = {l->rows, l->cols}, tile[2] = {t->mh, t->mw};
    for (int d = 0; d < 2; d++) {
        size[d][0] = tile[d];
        size[d][1] = t->overlap ? 0 : extent[d] % tile[d];
        count[d][0] = t->overlap ? (extent[d] + tile[d] - 1) / tile[d] : extent[d] / tile[d];
        count[d][1] = size[d][1] > 0;
    }
    for (unsigned i = 0; i <= p->n_rest; i++) {
        int64_t times = i == 0 ? p->n_full : 1;
        const struct mpqc_columns *c = i == 0 ? &p->full : &p->rest[i - 1];
        for (int r = 0; r < 4; r++) {
            int64_t mh = size[0][r / 2], mw = size[1][r % 2], m = mh * mw;
            int64_t n = times * count[0][r / 2] * count[1][r % 2];
            if (m * n == 0) continue;
            int64_t one = tile_cost(isa, l, t->form, mh, mw, c, t->rolled);
            cost += n * (one + (t->overlap ? OVERLAP_COST : 0)) * l->groups * l->batch;
            cost += cost_of_byte * tile_code(isa, l, t->form, m, c->n, t->rolled);
        }
    }
    return cost;
}

/* Straight-line code has all its weights in view, and LLVM loads them early. */
#define EARLY_WEIGHTS 8

/* What a step takes besides accumulators, activations and weights: products and constants; the
 * rows that packed weights come from, a mask and an offset. */
static int64_t registers_of(const struct mpqc_isa *isa, const struct mpqc_linear *l, int64_t m,
                            unsigned nv)
{
    int64_t temporaries = isa->x_values > 1 ? 3 : isa->acc_per_column > 1 ? 6 : 0;
    if (l->bits < 8) temporaries += l->group ? 2 : nv + 2;
    if (l->fan && l->fan < isa->lanes) /* which words go where; words of the steps to come */
        temporaries += l->k4 + (l->k4 > 1 ? m * nv : 0);
    int64_t totals = l->group ? m * nv : 0;
    return m * nv * isa->acc_per_column + totals + nv * isa->w_values + isa->x_values +
           temporaries;
}

/* In registers? */
static bool fits(const struct mpqc_isa *isa, const struct mpqc_linear *l,
                 const struct mpqc_form *f, int64_t m, unsigned nv)
{
    if (f) {
        /* parameters in the order of pairs: the next group must not begin in one */
        if (f->pair > 1 && l->groups > 1 && l->ocg % f->pair != 0) return false;
        int64_t n = pairs(f, m) * (nv * f->acc + f->pair) + f->registers;
        int64_t code = mpqc_steps_code(isa, f, l->bits, all_steps(l), m, nv);
        if (code <= MPQC_UNROLL_BYTES && !l->braid) n += EARLY_WEIGHTS;
        if (l->bits < 8) n += nv + 2;
        return l->group == 0 && m <= MPQC_FORM_POSITIONS && n <= isa->registers;
    }
    return registers_of(isa, l, m, nv) <= isa->registers;
}

/* Input rows that stay in the cache while all panels pass over them: if the weights
 * are small every unit is finished at once. */
static int64_t choose_block(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                            const struct mpqc_tile *t)
{
    int64_t weights = l->groups * mpqc_group_bytes(l, &t->panels);
    int64_t unit = l->flat ? t->mw * l->x_col : t->mh * l->x_row;
    if (weights <= e->target->l1_bytes / 2) return 1;
    int64_t n = e->target->l2_bytes / 4 / (unit > 0 ? unit : 1);
    return n < 1 ? 1 : n;
}

/* The cheapest tiles so far, in order. */
struct ranking {
    struct {
        int64_t cost;
        struct mpqc_tile tile;
    } best[MPQC_MAX_TILE_RANK];
    unsigned n, wanted;
};

static void rank(struct ranking *r, const struct mpqc_tile *t, int64_t cost)
{
    unsigned at = r->n;
    while (at > 0 && cost < r->best[at - 1].cost) at--;
    if (at == r->wanted) return;
    if (r->n < r->wanted) r->n++;
    for (unsigned i = r->n - 1; i > at; i--) r->best[i] = r->best[i - 1];
    r->best[at].cost = cost;
    r->best[at].tile = *t;
}

static unsigned vectors_of(const struct mpqc_tile *t)
{
    return t->panels.n_full ? t->panels.full.n : t->panels.rest[0].n;
}

/* Tries all tiles of nv vectors in a form. */
static void try_tiles(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                      const struct mpqc_form *form, unsigned nv, struct ranking *r)
{
    const struct mpqc_isa *isa = e->target->isa;
    struct mpqc_tile t = {.form = form};
    struct mpqc_linear braided;
    int64_t cost_of_byte = mpqc_cost_of_byte(e);
    mpqc_panels_make(e, l, form, nv, &t.panels);
    if (vectors_of(&t) < nv) return; /* there are no more */
    if (form && mpqc_braid(l, &braided)) l = &braided;
    for (t.mh = 1; t.mh <= l->rows && t.mh <= 8; t.mh++) {
        for (t.mw = 1; t.mw <= l->cols && fits(isa, l, form, t.mh * t.mw, nv); t.mw++) {
            bool ragged = l->rows % t.mh || l->cols % t.mw;
            for (int variant = 0; variant < 4; variant++) {
                t.overlap = variant & 1;
                t.rolled = variant & 2;
                if (t.overlap && (l->once || !ragged)) continue;
                if (t.rolled && (t.mh * t.mw == 1 || t.panels.full.paired)) continue;
                rank(r, &t, schedule_cost(isa, l, &t, cost_of_byte));
            }
        }
    }
}

static void try_amx(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, struct ranking *r)
{
    struct mpqc_tile t;
    int64_t cost;
    for (unsigned n = 1; n <= 4; n *= 2)
        for (int line = 0; line < 2; line++)
            if (mpqc_amx_tile_of(e, l, n, line, &t, &cost)) rank(r, &t, cost);
}

/* ---- tiles as numbers ---- */

#define TILE_OVERLAP 1u
#define TILE_ROLLED 2u
#define TILE_AMX (MPQC_TILE_AMX >> 24)
#define TILE_SERIAL (MPQC_TILE_SERIAL >> 24)

static uint32_t tile_number(const struct mpqc_isa *isa, const struct mpqc_tile *t)
{
    if (t->amx) return TILE_AMX << 24 | t->amx_n << 16 | (t->amx_pitch ? 1 : 0);
    uint32_t form = 0; /* 0: none; else its index, from 1 */
    while (t->form && isa->forms[form++] != t->form) {
    }
    return (uint32_t)t->mh | (uint32_t)t->mw << 8 | vectors_of(t) << 16 | form << 28 |
           ((t->overlap ? TILE_OVERLAP : 0) | (t->rolled ? TILE_ROLLED : 0) |
            (t->serial ? TILE_SERIAL : 0)) << 24;
}

const char *mpqc_tile_text(uint32_t tile, char text[MPQC_TILE_TEXT])
{
    unsigned flags = tile >> 24, form = tile >> 28;
    int n = snprintf(text, MPQC_TILE_TEXT, "%ux%ux%u%s%s%s", tile & 255, tile >> 8 & 255,
                     tile >> 16 & 255, flags & TILE_OVERLAP ? "o" : "",
                     flags & TILE_ROLLED ? "r" : "", flags & TILE_SERIAL ? "b" : "");
    unsigned across = tile >> 16 & 7;
    if (flags & TILE_AMX && across)
        snprintf(text, MPQC_TILE_TEXT, "amx%ux%u%s", 4 / across, across, tile & 1 ? "l" : "");
    else if (form && n > 0) snprintf(text + n, MPQC_TILE_TEXT - (size_t)n, "f%u", form);
    return text;
}

/* The tile of that number; false when this layer has none such. */
static bool tile_of(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, uint32_t number,
                    struct mpqc_tile *t)
{
    const struct mpqc_isa *isa = e->target->isa;
    unsigned flags = number >> 24, nv = number >> 16 & 255, form = number >> 28;
    struct mpqc_linear braided;
    int64_t cost;
    memset(t, 0, sizeof *t);
    if (flags & TILE_SERIAL) return mpqc_serial_tile_of(e, l, number >> 8 & 255, nv, t);
    if (flags & TILE_AMX) return mpqc_amx_tile_of(e, l, nv, number & 1, t, &cost);
    for (unsigned f = 0; f + 1 < form; f++)
        if (!isa->forms[f]) return false;
    if (form) t->form = isa->forms[form - 1];
    if (form && !t->form) return false;
    if (form && mpqc_braid(l, &braided)) l = &braided;
    t->mh = number & 255;
    t->mw = number >> 8 & 255;
    t->overlap = flags & TILE_OVERLAP;
    t->rolled = flags & TILE_ROLLED;
    if (nv < 1 || nv > 8 || t->mh < 1 || t->mh > l->rows || t->mw < 1 ||
        t->mw > l->cols || !fits(isa, l, t->form, t->mh * t->mw, nv) || (t->overlap && l->once) ||
        (t->rolled && t->form && t->form->pair > 1))
        return false;
    mpqc_panels_make(e, l, t->form, nv, &t->panels);
    return true;
}

/* ---- the choice ---- */

/* The cost model's n-th best; bits in series count as one of them.  Returns its cost. */
static int64_t choose_by_cost(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                              unsigned n, struct mpqc_tile *t)
{
    struct ranking r = {.wanted = n + 1};
    const struct mpqc_isa *isa = e->target->isa;
    int64_t max_nv = (l->ocg + isa->lanes - 1) / isa->lanes;
    for (unsigned nv = 1; nv <= 8 && nv <= max_nv + 1; nv++) {
        try_tiles(e, l, NULL, nv, &r);
        for (unsigned f = 0; isa->forms[f]; f++) try_tiles(e, l, isa->forms[f], nv, &r);
    }
    MPQC_ASSERT(r.n > 0);
    try_amx(e, l, &r);
    int64_t cost = r.best[0].cost;
    if (mpqc_serial_choose(e, l, &cost, t)) {
        if (n == 0) return cost;
        n--;
    }
    if (n >= r.n) n = r.n - 1;
    *t = r.best[n].tile;
    return r.best[n].cost;
}

/* Is there one register to spare at most?  Then steps in a line are worse than a loop: LLVM loads
 * weights of the next one while sums of this one still need theirs, and keeps sums on the stack. */
static bool is_tight(const struct mpqc_isa *isa, const struct mpqc_linear *l,
                     const struct mpqc_tile *t)
{
    return registers_of(isa, l, t->mh * t->mw, vectors_of(t)) + 1 >= isa->registers;
}

static void complete(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                     struct mpqc_tile *t)
{
    if (!t->amx && !t->serial) {
        interleave(e, l, &t->panels);
        int64_t dots = t->mh * t->mw * vectors_of(t);
        int64_t chains = dots * e->target->isa->acc_per_column;
        if (t->form) chains = pairs(t->form, t->mh * t->mw) * vectors_of(t) * t->form->acc;
        t->units = l->flat ? (l->cols + t->mw - 1) / t->mw : (l->rows + t->mh - 1) / t->mh;
        bool adds = !t->form && mpqc_isa_adds(e->target->isa);
        t->split = adds || chains >= 6 ? 1 : chains >= 3 ? 2 : 4;
        t->unroll = dots >= 12 ? 1 : dots >= 6 ? 2 : 4;
        if (t->unroll < t->split) t->unroll = t->split;
    }
    t->block = choose_block(e, l, t);
    t->by_panel = l->batch * t->units == 1 && l->groups == 1 &&
                  t->panels.n_full + (int64_t)t->panels.n_rest > 1;
    int64_t tiles = l->flat ? t->units : t->units * ((l->cols + t->mw - 1) / t->mw);
    t->far_weights = !t->amx && !t->serial && !t->form && l->bits == 8 && l->groups == 1 &&
                     tiles > 1 && e->constant_bytes > e->target->l2_bytes;
    t->fetching = t->far_weights && tiles <= MOST_FETCHING ? tiles : 0;
    if (t->fetching && t->unroll < FETCH_STEPS && !is_tight(e->target->isa, l, t))
        t->unroll = FETCH_STEPS;
    t->stream = t->by_panel && mpqc_packing_of(l->bits).n > 0 &&
                mpqc_group_bytes(l, &t->panels) > (int64_t)e->target->l2_bytes;
    if (t->stream && t->unroll < STREAM_STEPS) t->unroll = STREAM_STEPS;
}

void mpqc_tile_choose(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, uint64_t shape,
                      struct mpqc_tile *t)
{
    const struct mpqc_tile_request *rq = e->tiles;
    uint32_t wish = rq && rq->wish ? rq->wish(rq->user, shape) : 0;
    int64_t cost = 0;
    if (!(wish && tile_of(e, l, wish, t))) cost = choose_by_cost(e, l, rq ? rq->rank : 0, t);
    complete(e, l, t);
    if (rq && rq->facts)
        rq->facts[e->kernel] = (struct mpqc_tile_facts){shape, tile_number(e->target->isa, t),
                                                           (double)cost};
}
