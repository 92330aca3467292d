/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * How a window over channels is computed: blocks of channels, tiles of columns, which
 * taps are interleaved, and their weights in that order.
 */
#include "codegen/window.h"

#include <string.h>

/* More (column, row group) pairs per window than this become loops. */
#define UNROLL_PAIRS 24
#define MAX_COLUMNS 128

/* ---- blocks -------------------------------------------------------------------------- */

/* Blocks of 4 L channels, then of half as many, down to 16; a rest of more than
 * `pad` quarters of a block takes a whole one. */
static void make_blocks(const struct mpqc_window *p, unsigned top, int64_t pad,
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
            b->c = (struct mpqc_columns){.n = 4, .interleaved = true};
            for (int v = 0; v < 4; v++) b->c.lanes[v] = L;
            b->c.valid = (unsigned)(whole ? size : rest);
            b->first = first;
            b->count = count;
            first += count * size;
        }
        left -= covered;
    }
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

/* ---- quartets ------------------------------------------------------------------------ */

/* Input columns of a tile in bytes from its first one, ascending; 0: too many. */
static unsigned input_columns(const struct mpqc_window *p, int64_t width, int64_t at[MAX_COLUMNS])
{
    unsigned n = 0;
    for (int64_t t = 0; t < width; t++) {
        for (int64_t kw = 0; kw < p->kw; kw++) {
            int64_t c = t * p->x_col + kw * p->tap_col;
            unsigned i = n;
            while (i > 0 && at[i - 1] > c) i--;
            if (i > 0 && at[i - 1] == c) continue;
            if (n == MAX_COLUMNS) return 0;
            memmove(&at[i + 1], &at[i], (n - i) * sizeof *at);
            at[i] = c;
            n++;
        }
    }
    return n;
}

/* The tap of output column t in input column `at`, row kh. */
static int16_t tap_at(const struct mpqc_window *p, int64_t t, int64_t at, int64_t kh)
{
    if (kh < 0 || kh >= p->kh) return -1;
    for (int64_t kw = 0; kw < p->kw; kw++)
        if (t * p->x_col + kw * p->tap_col == at) return (int16_t)(kh * p->kw + kw);
    return -1;
}

/* Number of a pattern; -2: no room. */
static int find_pattern(struct mpqc_window_plan *q, const struct mpqc_window_pattern *p)
{
    for (unsigned i = 0; i < q->n_patterns; i++)
        if (memcmp(&q->patterns[i], p, sizeof *p) == 0) return (int)i;
    if (q->n_patterns == MPQC_WINDOW_MAX_PATTERNS) return -2;
    q->patterns[q->n_patterns] = *p;
    return (int)q->n_patterns++;
}

/* Taps from the first row of windows to that of the next output row; 0: no whole number. */
static int64_t row_taps(const struct mpqc_window *p)
{
    return p->tap_row > 0 && p->x_row % p->tap_row == 0 ? p->x_row / p->tap_row : 0;
}

/* Rows [row, row + n_rows) of n_columns input columns as one quartet of a tile. */
static bool make_quartet(const struct mpqc_window *p, struct mpqc_window_plan *q, int64_t height,
                         int64_t width, int64_t row, int64_t n_rows, const int64_t *column,
                         unsigned n_columns, struct mpqc_window_quartet *out)
{
    out->n = 0;
    for (unsigned c = 0; c < n_columns; c++)
        for (int64_t r = row; r < row + n_rows; r++)
            out->at[out->n++] = column[c] + r * p->tap_row;
    for (int64_t t = 0; t < height * width; t++) {
        struct mpqc_window_pattern pattern = {{-1, -1, -1, -1}};
        unsigned used = 0;
        for (unsigned i = 0; i < out->n; i++) {
            int64_t kh = row + i % n_rows - t / width * row_taps(p);
            pattern.tap[i] = tap_at(p, t % width, column[i / n_rows], kh);
            used += pattern.tap[i] >= 0;
        }
        out->pattern[t] = used ? find_pattern(q, &pattern) : -1;
        if (out->pattern[t] == -2) return false;
    }
    return true;
}

unsigned mpqc_window_quartets(const struct mpqc_window *p, struct mpqc_window_plan *q,
                              int64_t height, int64_t width,
                              struct mpqc_window_quartet out[MPQC_WINDOW_MAX_QUARTETS])
{
    int64_t column[MAX_COLUMNS], in_rows = p->kh + (height - 1) * row_taps(p);
    int64_t whole = in_rows / 4, rest = in_rows % 4;
    unsigned n_columns = input_columns(p, width, column), n = 0;
    unsigned together = rest > 0 ? 4 / (unsigned)rest : 1;
    if (n_columns * (whole + 1) > MPQC_WINDOW_MAX_QUARTETS) return 0;
    for (unsigned c = 0; c < n_columns; c++) {
        for (int64_t g = 0; g < whole; g++)
            if (!make_quartet(p, q, height, width, 4 * g, 4, &column[c], 1, &out[n++])) return 0;
        unsigned first = c - c % together;
        if (rest == 0 || (c + 1 - first < together && c + 1 < n_columns)) continue;
        if (!make_quartet(p, q, height, width, 4 * whole, rest, &column[first], c + 1 - first,
                          &out[n++]))
            return 0;
    }
    return n;
}

/* With loops over taps, patterns are in the order of loops: columns of rows. */
static void looped_patterns(const struct mpqc_window *p, struct mpqc_window_plan *q)
{
    q->n_patterns = (unsigned)(p->kw * q->groups);
}

/* ---- costs --------------------------------------------------------------------------- */

/* Time and code of a tile of one block, as in tiles.c; false: impossible. */
static bool tile_costs(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                       struct mpqc_window_plan *q, int64_t height, int64_t width, int64_t *time,
                       int64_t *code)
{
    const struct mpqc_isa *isa = e->target->isa;
    struct mpqc_window_quartet quartet[MPQC_WINDOW_MAX_QUARTETS];
    int64_t n = p->kw * q->groups, pairs = n, loads = p->kw * p->kh, positions = height * width;
    if (!q->loops) {
        n = mpqc_window_quartets(p, q, height, width, quartet);
        if (n == 0) return false;
        pairs = loads = 0;
        for (int64_t i = 0; i < n; i++) {
            loads += quartet[i].n;
            for (int64_t t = 0; t < positions; t++) pairs += quartet[i].pattern[t] >= 0;
        }
    }
    int64_t x_extra = isa->x_values > 1 ? isa->x_cost : 0;
    int64_t w_extra = isa->w_values > 1 ? isa->w_cost : 0;
    /* halves read the input twice, whole blocks what registers had no room for */
    int64_t again = q->halves ? loads * 7 + 12 * positions + 30 : pairs * 15;
    *time = n * (25 + 4 * x_extra) + loads * 5 + again +
            pairs * 4 * (isa->dot_cost + w_extra) + mpqc_finish_cost(positions, 4, q->rolled);
    *code = n * (60 + 8 * x_extra) + (loads + (q->halves ? loads : 0)) * 9 +
            pairs * 4 * (isa->dot_cost * 5 / 4 + 2 * w_extra);
    if (q->loops) *code = *code / n * (q->groups > 1 ? 2 : 1);
    if (isa->registers <= 16 && !q->halves) *code *= 2; /* copies and spills */
    *code += mpqc_finish_code(4) * (q->rolled ? 1 : positions) +
             (q->rolled ? 40 * positions : 0) + 100 + (q->halves ? 16 * positions + 60 : 0);
    return true;
}

/* All tiles of `height` rows, likewise. */
static bool row_costs(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                      struct mpqc_window_plan *q, int64_t height, int64_t *time, int64_t *code)
{
    int64_t rest_time = 0, rest_code = 0, n = p->cols / q->tile, rest = p->cols % q->tile;
    if (!tile_costs(e, p, q, height, q->tile, time, code)) return false;
    if (rest && q->overlap) n++;
    else if (rest && !tile_costs(e, p, q, height, rest, &rest_time, &rest_code)) return false;
    *time = n * *time + rest_time + (q->halves ? 150 : 0); /* parameters */
    *code += rest_code;
    return true;
}

/* Of the whole kernel; INT64_MAX: impossible.  Leaves the patterns in the plan. */
static int64_t schedule_cost(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                             struct mpqc_window_plan *q, int64_t cost_of_byte)
{
    int64_t time, code, last_time = 0, last_code = 0, blocks = 0, weights = 0;
    int64_t last = p->rows % q->height;
    q->n_patterns = 0;
    if (!row_costs(e, p, q, q->height, &time, &code)) return INT64_MAX;
    if (last && !row_costs(e, p, q, last, &last_time, &last_code)) return INT64_MAX;
    if (q->loops) looped_patterns(p, q);
    place_weights(q);
    for (unsigned i = 0; i < q->n_blocks; i++) {
        blocks += q->blocks[i].count;
        weights += p->w ? q->blocks[i].count * q->blocks[i].weight_bytes : 0;
    }
    return p->batch * blocks * (p->rows / q->height * time + last_time) +
           cost_of_byte * (q->n_blocks * (code + last_code) + weights);
}

/* Widest tile whose accumulators fit: all of them live to the end, or, in halves, those
 * of the columns whose windows overlap. */
static int64_t widest(const struct mpqc_emit_cx *e, const struct mpqc_window *p,
                      const struct mpqc_window_plan *q)
{
    const struct mpqc_isa *isa = e->target->isa;
    int64_t apc = isa->acc_per_column;
    int64_t most = (isa->registers - 6 - 2 * apc) / (4 * apc * q->height);
    if (q->halves) most = MPQC_WINDOW_MAX_TILE;
    if (most > MPQC_WINDOW_MAX_TILE) most = MPQC_WINDOW_MAX_TILE;
    return most < 1 || p->kh * p->kw > 64 ? 1 : most;
}

/* A higher tile pays where all its input rows are one quartet: else it takes more dot steps
 * or more weights than there are registers for, as it does without halves (5x5: 7 %, stride
 * 2: 20 % slower) and with 16 registers.  Rows of two images are no neighbours. */
static bool may_be_high(const struct mpqc_isa *isa, const struct mpqc_window *p,
                        const struct mpqc_window_plan *q)
{
    int64_t step = row_taps(p), in_rows = p->kh + (q->height - 1) * step;
    return step > 0 && in_rows <= 4 && p->batch == 1 && p->rows >= q->height && q->halves &&
           isa->registers >= 32;
}

static bool allowed(const struct mpqc_isa *isa, const struct mpqc_window *p,
                    const struct mpqc_window_plan *q)
{
    if (q->tile == 1 && (q->overlap || q->rolled)) return false;
    if (q->loops && (q->tile > 1 || q->halves)) return false;
    if (q->halves && q->rolled) return false;
    if (q->height > 1 && !may_be_high(isa, p, q)) return false;
    if (!q->loops && p->kw * q->groups > UNROLL_PAIRS) return false;
    return !(q->overlap && p->once);
}

int64_t mpqc_window_choose(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                           struct mpqc_window_plan *out)
{
    struct mpqc_window_plan q = {.groups = (p->kh + 3) / 4};
    int64_t cost_of_byte = mpqc_cost_of_byte(e), best = INT64_MAX;
    for (unsigned L = e->target->isa->lanes; L >= 4; L /= 2) {
        for (int64_t pad = 0; pad <= 3; pad += 3) {
            make_blocks(p, L, pad, &q);
            for (unsigned variant = 0; variant < 32; variant++) {
                q.overlap = variant & 1;
                q.rolled = variant & 2;
                q.loops = variant & 4;
                q.halves = variant & 8;
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
    return best;
}

/* ---- weights ------------------------------------------------------------------------- */

/* Tap `slot` of pattern i, or -1. */
static int64_t tap_of(const struct mpqc_window *p, const struct mpqc_window_plan *q, unsigned i,
                      unsigned slot)
{
    if (!q->loops) return q->patterns[i].tap[slot];
    int64_t kh = 4 * (i % q->groups) + slot, kw = i / q->groups;
    return kh < p->kh ? kh * p->kw + kw : -1;
}

int8_t *mpqc_window_pack(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                         const struct mpqc_window_plan *q, size_t *bytes)
{
    const struct mpqc_window_block *last = &q->blocks[q->n_blocks - 1];
    *bytes = (size_t)(last->weight_first + last->count * last->weight_bytes);
    int8_t *packed = MPQC_NEW_ARRAY(&e->scratch, int8_t, *bytes), *to = packed;
    if (!packed) return NULL;
    for (unsigned i = 0; i < q->n_blocks; i++) {
        unsigned L = q->blocks[i].c.lanes[0];
        for (int64_t n = 0; n < q->blocks[i].count * q->n_patterns; n++) {
            int64_t base = q->blocks[i].first + n / q->n_patterns * 4 * L;
            for (unsigned lane = 0; lane < 4 * L; lane++) {
                unsigned v = lane / L, l = lane % L;
                int64_t c = base + 16 * (l / 4) + 4 * v + l % 4;
                for (unsigned slot = 0; slot < 4; slot++, to++) {
                    int64_t tap = tap_of(p, q, (unsigned)(n % q->n_patterns), slot);
                    if (tap >= 0 && c < p->channels) *to = p->w[tap * p->channels + c];
                }
            }
        }
    }
    return packed;
}
