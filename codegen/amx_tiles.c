/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * How AMX cuts a layer into tiles (gemm_amx.c says what they are), what that costs, and the
 * weights in that order.
 */
#include "codegen/amx.h"

#include <string.h>

enum { CACHED_PANEL = 37888 };

/* ---- the schedule ------------------------------------------------------------------ */

/* Equal chunks of a run; false where the last would read what it may not. */
static bool cut_run(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                    struct mpqc_tile *t)
{
    t->amx_chunks = (l->run + MPQC_AMX_BYTES - 1) / MPQC_AMX_BYTES;
    t->amx_bytes = ((l->run + t->amx_chunks - 1) / t->amx_chunks + 3) / 4 * 4;
    int64_t over = t->amx_chunks * t->amx_bytes - l->run;
    if (over == 0) return true;
    return e->plan->place[l->x].space == MPQC_SPACE_ARENA && over <= MPQC_ARENA_SLACK;
}

int64_t mpqc_amx_line_of(const struct mpqc_linear *l, const struct mpqc_tile *t)
{
    return (l->rows - 1) * t->amx_pitch + l->cols;
}

int64_t mpqc_amx_all_steps(const struct mpqc_linear *l, const struct mpqc_tile *t)
{
    return l->n_outer * l->n_inner * t->amx_chunks;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* How many of 64 rows of input, as tiles load them, lie in two lines of the cache. */
static int64_t crossing(const struct mpqc_linear *l, const struct mpqc_tile *t)
{
    int64_t n = 0, all = l->n_outer * t->amx_chunks * t->amx_rows;
    for (int64_t i = 0; i < all; i++) {
        int64_t m = i % t->amx_rows, k = i / t->amx_rows % t->amx_chunks;
        int64_t at = i / t->amx_rows / t->amx_chunks * l->outer_step + m * l->x_col +
                     k * t->amx_bytes;
        n += at % MPQC_AMX_BYTES + t->amx_bytes > MPQC_AMX_BYTES;
    }
    return 64 * n / all;
}

/* Loading the tiles of a step by n vectors: rows of weights, which come from the second cache
 * where a panel is larger than the first; rows of input, of which some bytes were there for the
 * position before. */
static int64_t load_cost(const struct mpqc_linear *l, const struct mpqc_tile *t, unsigned n)
{
    int64_t fresh = l->x_col < l->run ? 64 * l->x_col / l->run : 64;
    int64_t weights = n * t->amx_bytes / 4;
    int64_t panel = mpqc_amx_all_steps(l, t) * weights * MPQC_AMX_BYTES;
    return weights * (panel > CACHED_PANEL ? 21 : 13) +
           t->amx_m * t->amx_rows * (4 * 64 + 28 * fresh + 15 * crossing(l, t)) / 64;
}

/* Time of a group by n vectors, in the unit of tiles.c: 42 of them were a nanosecond of the
 * Emerald Rapids core that both were measured on.  Fitted to up to six tiles of each of 50 layers
 * (mean error 10 %; its choices took 0.3 % longer than the best).  Products and loads overlap for
 * the most part, and so do both with finishing the group before. */
static int64_t group_cost(const struct mpqc_linear *l, const struct mpqc_tile *t, unsigned n)
{
    static const int64_t finish_by[] = {0, 45, 96, 164, 164};
    int64_t products = 234 * t->amx_m * n, loads = load_cost(l, t, n);
    int64_t step = most(products, loads) + 2 * least(products, loads) / 5;
    int64_t multiply = mpqc_amx_all_steps(l, t) * step + 324 * t->amx_m * n;
    int64_t finish = t->amx_m * t->amx_rows * (96 + finish_by[n] + (l->res_col ? 107 : 0));
    return most(multiply, finish) + least(multiply, finish) / 5;
}

static void make_panels(const struct mpqc_linear *l, struct mpqc_tile *t)
{
    struct mpqc_panels *p = &t->panels;
    int64_t size = MPQC_AMX_LANES * (int64_t)t->amx_n, rest = l->ocg % size;
    memset(p, 0, sizeof *p);
    p->n_full = l->ocg / size;
    p->full = (struct mpqc_columns){
        .n = t->amx_n, .valid = (unsigned)size, .interleaved = true};
    for (unsigned v = 0; v < t->amx_n; v++) p->full.lanes[v] = MPQC_AMX_LANES;
    if (rest == 0) return;
    p->n_rest = 1;
    p->rest[0] = p->full;
    p->rest[0].n = (unsigned)((rest + MPQC_AMX_LANES - 1) / MPQC_AMX_LANES);
    p->rest[0].valid = (unsigned)rest;
}

int64_t mpqc_amx_tiles_of(const struct mpqc_linear *l, const struct mpqc_tile *t, int64_t height)
{
    int64_t rows = t->amx_rows;
    if (t->amx_pitch) return (mpqc_amx_line_of(l, t) + rows - 1) / rows;
    return height * ((l->cols + rows - 1) / rows);
}

static int64_t groups_of(const struct mpqc_linear *l, const struct mpqc_tile *t, int64_t height)
{
    return (mpqc_amx_tiles_of(l, t, height) + t->amx_m - 1) / t->amx_m;
}

/* Units: a small image is one, so that threads share out the channels and weights are
 * read once; else as few rows as fill groups.  Returns the groups of an image. */
static int64_t make_units(const struct mpqc_linear *l, struct mpqc_tile *t)
{
    int64_t all = groups_of(l, t, l->rows), best = INT64_MAX;
    bool one = all * t->amx_m <= 16 && l->batch == 1 && t->panels.n_full >= 4;
    t->units = 1;
    t->mh = l->rows;
    t->mw = l->cols;
    if (one) return all;
    if (t->amx_pitch) return INT32_MAX; /* an image in a line is one unit */
    if (l->flat) {
        t->mw = t->amx_m * t->amx_rows < l->cols ? t->amx_m * t->amx_rows : l->cols;
        t->units = (l->cols + t->mw - 1) / t->mw;
        return t->units;
    }
    for (int64_t h = 1; h <= 4 && h <= l->rows; h++) {
        int64_t n = l->rows / h * groups_of(l, t, h) + groups_of(l, t, l->rows % h);
        if (n >= best) continue;
        best = n;
        t->mh = h;
    }
    t->units = (l->rows + t->mh - 1) / t->mh;
    return best;
}

bool mpqc_amx_tile_of(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, unsigned n,
                      bool line, struct mpqc_tile *t, int64_t *cost)
{
    *t = (struct mpqc_tile){.amx = true, .unroll = 1, .split = 1, .amx_n = n};
    if (!e->target->isa->tiles || l->groups != 1 || l->fan || l->bits != 8 ||
        (n != 1 && n != 2 && n != 4) || !cut_run(e, l, t))
        return false;
    if (line) {
        t->amx_pitch = l->rows > 1 && l->x_row % l->x_col == 0 ? l->x_row / l->x_col : 0;
        if (t->amx_pitch < l->cols || mpqc_amx_line_of(l, t) < MPQC_AMX_ROWS) return false;
    }
    int64_t per_row = (l->cols + MPQC_AMX_ROWS - 1) / MPQC_AMX_ROWS;
    t->amx_rows = line ? MPQC_AMX_ROWS : (l->cols + per_row - 1) / per_row;
    t->amx_m = 4 / n;
    make_panels(l, t);
    int64_t groups = make_units(l, t), panels = t->panels.n_full * group_cost(l, t, n);
    if (t->panels.n_rest) panels += group_cost(l, t, t->panels.rest[0].n);
    *cost = l->batch * groups * panels + 3700;
    return true;
}

/* ---- weights ------------------------------------------------------------------------- */

/* Those of some columns, from channel `first` on: [run][chunk][vector][four of k][16 lanes][4].
 * Gives where they end. */
static int8_t *pack_columns(const struct mpqc_linear *l, const struct mpqc_tile *t,
                            const struct mpqc_columns *c, int64_t first, int8_t *to)
{
    int64_t n = l->n_outer * l->n_inner * t->amx_chunks * c->n;
    for (int64_t i = 0; i < n; i++) {
        int64_t chunk = i / c->n % t->amx_chunks, r = i / c->n / t->amx_chunks;
        for (int64_t j = 0; j < MPQC_AMX_LANES * t->amx_bytes; j++, to++) {
            int64_t at = chunk * t->amx_bytes + j / MPQC_AMX_BYTES * 4 + j % 4;
            int64_t lane = i % c->n * MPQC_AMX_LANES + j / 4 % MPQC_AMX_LANES;
            int64_t channel = mpqc_columns_channel(c, (unsigned)lane);
            if (at >= l->run || channel >= c->valid) continue;
            *to = l->w[(r * l->run + at) * l->ocg + first + channel];
        }
    }
    return to;
}

/* [panel] of that. */
int8_t *mpqc_amx_pack(struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                      const struct mpqc_tile *t, size_t *bytes)
{
    const struct mpqc_panels *p = &t->panels;
    *bytes = (size_t)mpqc_group_bytes(l, p);
    int8_t *packed = MPQC_NEW_ARRAY(&e->scratch, int8_t, *bytes), *to = packed;
    if (!packed) return NULL;
    for (int64_t i = 0; i < p->n_full; i++)
        to = pack_columns(l, t, &p->full, i * p->full.valid, to);
    if (p->n_rest > 0) to = pack_columns(l, t, &p->rest[0], p->n_full * p->full.valid, to);
    MPQC_ASSERT((size_t)(to - packed) == *bytes);
    return packed;
}
