/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * How a window over channels is computed: blocks of channels, tiles of columns, which weights
 * stay in registers; the cheapest of all by a cost model.
 */
#include "codegen/window.h"

#include <string.h>

/* More (column, row group) pairs per window than this become loops. */
#define UNROLL_PAIRS 24
/* Tenths of a cycle of a part of a shared vector, loaded or stored. */
#define SHARED_PART 6
/* Time of narrower vectors than the widest, in per cent. */
#define NARROW_COST 70
/* Of interleaving a quartet: eight shuffles, two in a cycle. */
#define QUARTET_COST 40
/* Of a vector of weights as an operand in memory; in whole blocks of windows that share most of
 * their columns, where halves were 12 to 20 % faster. */
#define WEIGHT_COST 5
#define CLOSE_WEIGHT_COST 12
/* Where weights and sums of whole blocks are LLVM's to spill: of a quartet and a position; twice
 * as much where a prepared quartet is several values for each vector (sums that are stored, to be
 * finished in a loop, then took up to 20 % longer). */
#define SPILL_COST 15
/* Vector registers beside isa->half_others, whole_others. */
#define PASSING 3      /* for weights from memory that several positions take */
#define NEXT_QUARTET 4 /* which LLVM interleaves ahead of time where few positions take it */

/* ---- blocks -------------------------------------------------------------------------- */

/* Does the next window begin behind the next tap? */
static bool far_apart(const struct mpqc_window *p)
{
    return p->x_col > p->tap_col;
}

/* The last channels, 16 at most, in vectors of as many positions as have room in them: the
 * row is cut into parts of equal length, which may overlap, one for each. */
static void share(const struct mpqc_window *p, struct mpqc_window_block *b, unsigned lanes)
{
    int64_t n = lanes / 4;
    /* 72 channels: 3x3 takes 5 to 19 % longer then, 5x5 with stride 2 20 % less */
    if (b->c.valid <= 8 && !far_apart(p)) return;
    if (!p->may_share || n < 2 || p->cols < n || (p->once && p->cols % n != 0)) return;
    for (int v = 0; v < 4; v++) b->c.lanes[v] = lanes;
    b->c.shared = (unsigned)n;
    b->cols = (p->cols + n - 1) / n;
    for (int64_t i = 0; i < n; i++) {
        b->start[i] = i * (p->cols - b->cols) / (n - 1);
        b->c.shared_at[i] = b->start[i] * p->out_col;
    }
}

/* Blocks of 4 L channels, then of half as many, down to 16; a rest of more than
 * `pad` quarters of a block takes a whole one. */
static void make_blocks(const struct mpqc_window *p, unsigned top, int64_t pad, bool may_share,
                        struct mpqc_window_plan *q)
{
    int64_t left = p->channels, first = 0;
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
            struct mpqc_window_block *b = &q->blocks[q->n_blocks++];
            *b = (struct mpqc_window_block){.first = first, .count = count, .cols = p->cols};
            b->c = (struct mpqc_columns){.n = 4, .interleaved = true};
            for (int v = 0; v < 4; v++) b->c.lanes[v] = L;
            b->c.valid = (unsigned)(whole ? size : rest);
            if (may_share && first + b->c.valid == p->channels && L == 4)
                share(p, b, q->blocks[0].c.lanes[0]);
            first += count * size;
        }
        left -= covered;
    }
}

/* Channels of one position in a block. */
int64_t mpqc_window_channels(const struct mpqc_window_block *b)
{
    return 4 * (int64_t)b->c.lanes[0] / (b->c.shared ? b->c.shared : 1);
}

/* Where the weights of blocks are, now that the number of patterns is known. */
static void place_weights(struct mpqc_window_plan *q)
{
    int64_t at = 0;
    for (unsigned i = 0; i < q->n_blocks; i++) {
        struct mpqc_window_block *b = &q->blocks[i];
        b->weight_bytes = 16 * (int64_t)b->c.lanes[0] * q->n_patterns;
        b->weight_first = at;
        at += b->count * b->weight_bytes;
    }
}

/* ---- registers ----------------------------------------------------------------------- */

/* What a tile takes of quartets: loads of taps, pairs of a quartet and a position, how often
 * each pattern is used, positions that are summed up at the same time. */
struct survey {
    int64_t quartets, loads, pairs, live;
    unsigned uses[MPQC_WINDOW_MAX_PATTERNS];
};

/* false: the tile is too large. */
static bool survey(const struct mpqc_window *p, struct mpqc_window_plan *q, int64_t height,
                   int64_t width, struct survey *out)
{
    struct mpqc_window_quartet quartet[MPQC_WINDOW_MAX_QUARTETS];
    int64_t first[MPQC_WINDOW_MAX_POSITIONS], last[MPQC_WINDOW_MAX_POSITIONS] = {0};
    int64_t positions = height * width;
    *out = (struct survey){.quartets = mpqc_window_quartets(p, q, height, width, quartet)};
    for (int64_t i = out->quartets; i-- > 0;) {
        out->loads += quartet[i].n;
        for (int64_t t = 0; t < positions; t++) {
            if (quartet[i].pattern[t] < 0) continue;
            out->pairs++;
            out->uses[quartet[i].pattern[t]]++;
            first[t] = i;
            if (last[t] < i) last[t] = i;
        }
    }
    for (int64_t i = 0; i < out->quartets; i++) {
        int64_t live = 0;
        for (int64_t t = 0; t < positions; t++) live += first[t] <= i && i <= last[t];
        if (live > out->live) out->live = live;
    }
    return out->quartets > 0;
}

/* Are weights told to stay in registers or to be operands in memory?  Else that is LLVM's
 * choice: where they are prepared, it is no operand. */
static bool places_weights(const struct mpqc_isa *isa, const struct mpqc_window_plan *q)
{
    return isa->half_others > 0 && isa->w_values == 1 && !q->loops && !q->rolled;
}

/* Registers that are left for weights of a pass.  Of halves, the first one only puts sums
 * aside. */
static int64_t room_for_weights(const struct mpqc_isa *isa, const struct mpqc_window *p,
                                const struct mpqc_window_plan *q, const struct survey *s,
                                unsigned pass)
{
    int64_t others = q->halves ? isa->half_others : isa->whole_others;
    if (!q->halves || pass > 0) others += p->held;
    if (q->halves && far_apart(p)) others += NEXT_QUARTET;
    return isa->registers - others - s->live * (q->halves ? 2 : 4);
}

/* The patterns that are used most stay in registers, as many as there is room for; fewer where
 * others pass through some, and none beside the parts of shared vectors.  Gives how many pairs
 * take their weights from memory. */
static int64_t keep_weights(const struct mpqc_isa *isa, const struct mpqc_window *p,
                            const struct mpqc_window_plan *q, struct survey s, unsigned pass,
                            struct mpqc_window_block *b)
{
    int64_t vectors = q->halves ? 2 : 4, room = room_for_weights(isa, p, q, &s, pass);
    int64_t pairs = s.pairs;
    bool told = places_weights(isa, q), *kept = b->kept[pass];
    memset(kept, !told, sizeof b->kept[pass]);
    if (room < vectors * q->n_patterns) room -= PASSING;
    if (b->c.shared) room = 0;
    for (; told && room >= vectors; room -= vectors) {
        unsigned best = 0;
        for (unsigned i = 1; i < q->n_patterns; i++)
            if (s.uses[i] > s.uses[best]) best = i;
        if (s.uses[best] == 0) break;
        kept[best] = true;
        pairs -= s.uses[best];
        s.uses[best] = 0;
    }
    return pairs;
}

/* ---- costs --------------------------------------------------------------------------- */

/* Of having too few registers: halves read the input twice, whole blocks read weights, if they
 * do not spill. */
static int64_t again_cost(const struct mpqc_isa *isa, const struct mpqc_window *p,
                          const struct mpqc_window_plan *q, const struct survey *s,
                          int64_t positions, struct mpqc_window_block *b)
{
    int64_t twice = q->halves ? s->loads * 12 + 8 * positions + 30 : 0;
    int64_t spill = SPILL_COST * (isa->x_values > 1 ? 2 : 1);
    if (!places_weights(isa, q))
        return q->halves ? s->loads * 7 + 12 * positions + 30 : s->pairs * spill;
    int64_t each = q->halves || far_apart(p) ? WEIGHT_COST : CLOSE_WEIGHT_COST;
    int64_t pairs = keep_weights(isa, p, q, *s, 0, b);
    if (!q->halves) return pairs * 4 * each;
    return twice + (pairs + keep_weights(isa, p, q, *s, 1, b)) * each;
}

/* Time and code of a tile of one block, as in tiles.c; false: impossible. */
static bool tile_costs(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                       struct mpqc_window_plan *q, struct mpqc_window_block *b,
                       int64_t height, int64_t width, int64_t *time, int64_t *code)
{
    const struct mpqc_isa *isa = e->target->isa;
    int64_t n = p->kw * q->groups, loads = p->kw * p->kh, positions = height * width;
    struct survey s = {.quartets = n, .loads = loads, .pairs = n, .live = 1};
    if (!q->loops && !survey(p, q, height, width, &s)) return false;
    if (places_weights(isa, q) && room_for_weights(isa, p, q, &s, 1) + p->held < 0)
        return false;
    int64_t x_extra = isa->x_values > 1 ? isa->x_cost : 0;
    int64_t w_extra = isa->w_values > 1 ? isa->w_cost : 0;
    *time = s.quartets * (QUARTET_COST + 4 * x_extra) + s.loads * 5 +
            again_cost(isa, p, q, &s, positions, b) +
            s.pairs * 4 * (isa->dot_cost + w_extra) + mpqc_finish_cost(positions, 4, q->rolled);
    *code = s.quartets * (60 + 8 * x_extra) + s.loads * (q->halves ? 18 : 9) +
            s.pairs * 4 * (isa->dot_cost * 5 / 4 + 2 * w_extra);
    if (q->loops) *code = *code / n * (q->groups > 1 ? 2 : 1);
    if (isa->registers <= 16 && !q->halves) *code *= 2; /* copies and spills */
    if (isa->registers <= 16 && places_weights(isa, q)) *code += s.pairs * 8; /* addresses */
    *code += mpqc_finish_code(4) * (q->rolled ? 1 : positions) +
             (q->rolled ? 40 * positions : 0) + 100 + (q->halves ? 16 * positions + 60 : 0);
    if (b->c.shared) {
        int64_t more = (b->c.shared - 1) * (s.loads * (q->halves ? 2 : 1) + positions);
        *time += SHARED_PART * more;
        *code += 8 * more;
    }
    return true;
}

/* A block's columns are cut into as few tiles as the plan's width allows; those of shared
 * ones into equal ones. */
static void set_width(struct mpqc_window_block *b, int64_t tile)
{
    b->tile = tile;
    if (b->c.shared) {
        int64_t n = (b->cols + tile - 1) / tile;
        b->tile = (b->cols + n - 1) / n;
    }
}

/* All tiles of `height` rows of a block, likewise. */
static bool row_costs(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                      struct mpqc_window_plan *q, struct mpqc_window_block *b,
                      int64_t height, int64_t *time, int64_t *code)
{
    int64_t rest_time = 0, rest_code = 0, n = b->cols / b->tile, rest = b->cols % b->tile;
    if (!tile_costs(e, p, q, b, height, b->tile, time, code)) return false;
    if (rest && q->overlap) n++;
    else if (rest && !tile_costs(e, p, q, b, height, rest, &rest_time, &rest_code)) return false;
    *time = n * *time + rest_time + (q->halves ? 150 : 0); /* parameters */
    *code += rest_code;
    return true;
}

/* All rows of a block, likewise. */
static bool block_costs(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                        struct mpqc_window_plan *q, struct mpqc_window_block *b,
                        int64_t *time, int64_t *code)
{
    int64_t last_time = 0, last_code = 0, last = p->rows % q->height;
    if (!row_costs(e, p, q, b, q->height, time, code)) return false;
    if (last && !row_costs(e, p, q, b, last, &last_time, &last_code)) return false;
    *time = p->rows / q->height * *time + last_time;
    *code += last_code;
    return true;
}

/* With loops over taps, patterns are in the order of loops: columns of rows. */
static void looped_patterns(const struct mpqc_window *p, struct mpqc_window_plan *q)
{
    q->n_patterns = (unsigned)(p->kw * q->groups);
}

/* Of the whole kernel; INT64_MAX: impossible.  Leaves the patterns in the plan. */
static int64_t schedule_cost(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                             struct mpqc_window_plan *q, int64_t cost_of_byte)
{
    int64_t all_time = 0, bytes = 0, time = 0, code = 0;
    q->n_patterns = 0;
    for (unsigned i = 0; i < q->n_blocks; i++) {
        struct mpqc_window_block *b = &q->blocks[i];
        bool same = i > 0 && !b->c.shared; /* as the block before */
        set_width(b, q->tile);
        if (!same && !block_costs(e, p, q, b, &time, &code)) return INT64_MAX;
        bool narrow = b->c.lanes[0] < e->target->isa->lanes;
        all_time += b->count * (narrow ? time * NARROW_COST / 100 : time);
        bytes += code;
    }
    if (q->loops) looped_patterns(p, q);
    place_weights(q);
    for (unsigned i = 0; i < q->n_blocks && p->w; i++)
        bytes += q->blocks[i].count * q->blocks[i].weight_bytes;
    return p->batch * all_time + cost_of_byte * bytes;
}

/* Widest tile whose accumulators fit: all of them live to the end, or those of the columns
 * whose windows overlap. */
static int64_t widest(const struct mpqc_emit_cx *e, const struct mpqc_window *p,
                      const struct mpqc_window_plan *q)
{
    const struct mpqc_isa *isa = e->target->isa;
    int64_t apc = isa->acc_per_column;
    int64_t most = (isa->registers - 6 - 2 * apc) / (4 * apc * q->height);
    if (q->halves || places_weights(isa, q)) most = MPQC_WINDOW_MAX_TILE;
    if (most > MPQC_WINDOW_MAX_TILE) most = MPQC_WINDOW_MAX_TILE;
    return most < 1 || p->kh * p->kw > 64 ? 1 : most;
}

/* A higher tile pays where all its input rows are one quartet: else it takes more dot steps
 * or more weights than there are registers for, as it does without halves (5x5: 7 %, stride
 * 2: 20 % slower) and with 16 registers.  Rows of two images are no neighbours. */
static bool may_be_high(const struct mpqc_isa *isa, const struct mpqc_window *p,
                        const struct mpqc_window_plan *q)
{
    int64_t step = mpqc_window_row_taps(p), in_rows = p->kh + (q->height - 1) * step;
    return step > 0 && in_rows <= 4 && p->batch == 1 && p->rows >= q->height && q->halves &&
           isa->registers >= 32;
}

static bool allowed(const struct mpqc_isa *isa, const struct mpqc_window *p,
                    const struct mpqc_window_plan *q)
{
    if (q->tile == 1 && (q->overlap || q->rolled)) return false;
    if (q->loops && (q->tile > 1 || q->halves || q->stream)) return false;
    if (q->halves && q->rolled) return false;
    if (q->height > 1 && !may_be_high(isa, p, q)) return false;
    if (q->stream && (!places_weights(isa, q) || q->height > 1 || p->kh % 4 == 0)) return false;
    if (!q->loops && p->kw * q->groups > UNROLL_PAIRS) return false;
    return !(q->overlap && p->once);
}

int64_t mpqc_window_choose(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                           struct mpqc_window_plan *out)
{
    struct mpqc_window_plan q = {.groups = (p->kh + 3) / 4};
    int64_t cost_of_byte = mpqc_cost_of_byte(e), best = INT64_MAX;
    for (unsigned L = e->target->isa->lanes; L >= 4; L /= 2) {
        for (unsigned shape = 0; shape < 4; shape++) {
            make_blocks(p, L, shape & 1 ? 3 : 0, shape & 2, &q);
            if (shape & 2 && !q.blocks[q.n_blocks - 1].c.shared) continue;
            for (unsigned variant = 0; variant < 64; variant++) {
                q.overlap = variant & 1;
                q.rolled = variant & 2;
                q.loops = variant & 4;
                q.halves = variant & 8;
                q.stream = variant & 32;
                q.height = variant & 16 ? MPQC_WINDOW_MAX_HEIGHT : 1;
                int64_t most = widest(e, p, &q);
                for (q.tile = 1; q.tile <= most && q.tile <= p->cols; q.tile++) {
                    if (!allowed(e->target->isa, p, &q)) continue;
                    int64_t cost = schedule_cost(e, p, &q, cost_of_byte);
                    if (cost >= best) continue;
                    best = cost;
                    *out = q;
                }
            }
        }
    }
    MPQC_ASSERT(best < INT64_MAX);
    for (unsigned i = 0; i < out->n_blocks; i++) {
        struct survey s = {0};
        if (!out->loops) survey(p, out, out->height, out->blocks[i].tile, &s);
        for (unsigned pass = 0; pass < 2; pass++)
            keep_weights(e->target->isa, p, out, s, pass, &out->blocks[i]);
    }
    return best;
}
