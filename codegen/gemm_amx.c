/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Matrix products by AMX tiles ("Intel Architecture Instruction Set Extensions
 * Programming Reference", chapter 3): for positions m, channels n and groups of four k,
 * tdpbusd adds x[m][4k..] (unsigned) * w[4k..][n] (signed) to int32 sums, exactly.
 *
 * A tile of `amx_rows` neighbouring positions is loaded straight from the input: its row
 * stride is the distance between positions, its rows are `amx_bytes` of a run.  Two such
 * tiles and two of 16 channels are multiplied crosswise into four accumulators (registers
 * 0 to 3), which go through memory to the epilogue of AVX-512.  A run is cut into equal
 * chunks, at most 64 bytes, so that one configuration serves the whole kernel.
 *
 * Tiles at the end of a row are moved back to full size; positions that the tile before
 * has stored are not finished again.
 */
#include "codegen/linear.h"

#include <string.h>

enum { X_TILE = 4, W_TILE = 6, ROW_BYTES = 64, MAX_ROWS = 16 };

struct amx {
    const struct mpqc_amx_unit *u;
    int64_t per_row, tiles; /* of positions, in the unit */
    LLVMValueRef sums;      /* [2][rows][vector][16] */
    /* the pair at work */
    LLVMValueRef x[2], at[2][2], skip[2]; /* where; row and column; positions not stored */
};

static LLVMValueRef constant(const struct amx *q, int64_t v)
{
    return mpqc_b_i64(q->u->e, v);
}

static LLVMValueRef tile_name(struct mpqc_emit_cx *e, unsigned i)
{
    return LLVMConstInt(e->i8, i, 0);
}

/* ---- the schedule ------------------------------------------------------------------ */

/* Equal chunks of a run; false where the last would read what it may not. */
static bool cut_run(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                    struct mpqc_tile *t)
{
    t->amx_chunks = (l->run + ROW_BYTES - 1) / ROW_BYTES;
    t->amx_bytes = ((l->run + t->amx_chunks - 1) / t->amx_chunks + 3) / 4 * 4;
    int64_t over = t->amx_chunks * t->amx_bytes - l->run;
    if (over == 0) return true;
    return e->plan->place[l->x].space == MPQC_SPACE_ARENA && over <= MPQC_ARENA_SLACK;
}

/* Tenths of a cycle of two tiles of positions by nv vectors.  A tile product takes a cycle
 * per row; tiles are loaded at two rows a cycle, beside the products. */
static int64_t pair_cost(const struct mpqc_linear *l, const struct mpqc_tile *t, unsigned nv)
{
    int64_t products = 2 * nv * t->amx_rows, loads = t->amx_rows + nv * t->amx_bytes / 8;
    int64_t steps = l->n_outer * l->n_inner * t->amx_chunks;
    int64_t step = products > loads ? products : loads;
    return steps * (10 * step + 20) + 10 * products + 300 +
           mpqc_finish_cost(2 * t->amx_rows, nv, true);
}

static void make_panels(const struct mpqc_linear *l, struct mpqc_panels *p)
{
    memset(p, 0, sizeof *p);
    p->n_full = l->ocg / 32;
    p->full = (struct mpqc_columns){.n = 2, .lanes = {16, 16}, .valid = 32};
    int64_t rest = l->ocg % 32;
    if (rest == 0) return;
    p->n_rest = 1;
    p->rest[0] = p->full;
    p->rest[0].n = rest > 16 ? 2 : 1;
    p->rest[0].valid = (unsigned)rest;
}

bool mpqc_amx_choose(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, int64_t best,
                     struct mpqc_tile *out)
{
    struct mpqc_tile t = {.amx = true, .unroll = 1, .split = 1};
    if (!e->target->isa->tiles || l->groups != 1 || l->bits != 8 || !cut_run(e, l, &t))
        return false;
    int64_t per_row = (l->cols + MAX_ROWS - 1) / MAX_ROWS;
    t.amx_rows = (l->cols + per_row - 1) / per_row;
    make_panels(l, &t.panels);
    t.mh = l->flat || per_row % 2 == 0 || l->rows == 1 ? 1 : 2;
    t.mw = l->flat && l->cols > t.amx_rows ? 2 * t.amx_rows : t.amx_rows;
    t.units = l->flat ? (l->cols + t.mw - 1) / t.mw : (l->rows + t.mh - 1) / t.mh;
    int64_t pairs = l->flat ? t.units : t.units * ((t.mh * per_row + 1) / 2);
    int64_t cost = t.panels.n_full * pair_cost(l, &t, 2);
    if (t.panels.n_rest) cost += pair_cost(l, &t, t.panels.rest[0].n);
    if (l->batch * pairs * cost + 3000 >= best) return false;
    *out = t;
    return true;
}

/* ---- weights ------------------------------------------------------------------------- */

/* [panel][run][chunk][vector][four of k][16 channels][4] */
int8_t *mpqc_amx_pack(struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                      const struct mpqc_tile *t, size_t *bytes)
{
    int64_t runs = l->n_outer * l->n_inner;
    *bytes = (size_t)mpqc_group_bytes(l, &t->panels);
    int8_t *packed = MPQC_NEW_ARRAY(&e->scratch, int8_t, *bytes), *to = packed;
    if (!packed) return NULL;
    for (int64_t first = 0; first < l->ocg; first += 32) {
        int64_t vectors = l->ocg - first > 16 ? 2 : 1;
        for (int64_t i = 0; i < runs * t->amx_chunks * vectors; i++) {
            int64_t r = i / vectors / t->amx_chunks, chunk = i / vectors % t->amx_chunks;
            int64_t k = chunk * t->amx_bytes, n = first + i % vectors * 16;
            for (int64_t j = 0; j < 16 * t->amx_bytes; j++, to++) {
                int64_t at = k + j / 64 * 4 + j % 4, channel = n + j / 4 % 16;
                if (at >= l->run || channel >= l->ocg) continue;
                *to = l->w[(r * l->run + at) * l->ocg + channel];
            }
        }
    }
    MPQC_ASSERT((size_t)(to - packed) == *bytes);
    return packed;
}

/* ---- around a kernel ------------------------------------------------------------------- */

/* The 64 bytes of ldtilecfg: palette 1, then bytes per row and rows of each register. */
void mpqc_amx_begin(struct mpqc_emit_cx *e, const struct mpqc_tile *t)
{
    uint8_t c[64] = {1};
    for (unsigned i = 0; i < 8; i++) {
        c[16 + 2 * i] = (uint8_t)(i == X_TILE || i == X_TILE + 1 ? t->amx_bytes : ROW_BYTES);
        c[48 + i] = (uint8_t)(i >= W_TILE ? t->amx_bytes / 4 : t->amx_rows);
    }
    LLVMValueRef config = mpqc_global_bytes(e, "tiles", c, sizeof c, 64);
    mpqc_b_intrinsic(e, "llvm.x86.ldtilecfg", NULL, 0, &config, 1);
}

void mpqc_amx_end(struct mpqc_emit_cx *e)
{
    mpqc_b_intrinsic(e, "llvm.x86.tilerelease", NULL, 0, NULL, 0);
}

/* ---- a pair of tiles ---------------------------------------------------------------------- */

static void load_tile(const struct amx *q, unsigned i, LLVMValueRef p, int64_t stride)
{
    struct mpqc_emit_cx *e = q->u->e;
    LLVMValueRef args[] = {tile_name(e, i), p, constant(q, stride)};
    mpqc_b_intrinsic(e, "llvm.x86.tileloadd64", NULL, 0, args, 3);
}

/* One chunk: accumulator 2a + v += tile a of positions * vector v of channels. */
static void step(const struct amx *q, LLVMValueRef x_at, LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->u->e;
    unsigned nv = q->u->c->n;
    for (unsigned v = 0; v < nv; v++)
        load_tile(q, W_TILE + v, mpqc_b_gep_const(e, w, 16 * v * q->u->t->amx_bytes), ROW_BYTES);
    for (unsigned a = 0; a < 2; a++) {
        load_tile(q, X_TILE + a, mpqc_b_gep(e, q->x[a], x_at), q->u->l->x_col);
        for (unsigned v = 0; v < nv; v++) {
            LLVMValueRef args[] = {tile_name(e, 2 * a + v), tile_name(e, X_TILE + a),
                                   tile_name(e, W_TILE + v)};
            mpqc_b_intrinsic(e, "llvm.x86.tdpbusd", NULL, 0, args, 3);
        }
    }
}

/* for (i = 0; i < n; i++) around what follows; nothing for n = 1. */
struct level {
    struct mpqc_loop loop;
    int64_t n;
};

static LLVMValueRef level_begin(const struct amx *q, struct level *v, int64_t n, const char *name)
{
    v->n = n;
    if (n == 1) return constant(q, 0);
    mpqc_b_loop_begin(q->u->e, &v->loop, constant(q, 0), constant(q, n), 1, name);
    return v->loop.iv;
}

static void level_end(const struct amx *q, struct level *v)
{
    if (v->n > 1) mpqc_b_loop_end(q->u->e, &v->loop);
}

static void products(const struct amx *q)
{
    struct mpqc_emit_cx *e = q->u->e;
    const struct mpqc_linear *l = q->u->l;
    int64_t chunk = 16 * q->u->c->n * q->u->t->amx_bytes, run = q->u->t->amx_chunks * chunk;
    struct level outer, inner, chunks;
    LLVMValueRef zero = constant(q, 0);
    for (unsigned a = 0; a < 2; a++)
        for (unsigned v = 0; v < q->u->c->n; v++) {
            LLVMValueRef name = tile_name(e, 2 * a + v);
            mpqc_b_intrinsic(e, "llvm.x86.tilezero", NULL, 0, &name, 1);
        }
    LLVMValueRef o = level_begin(q, &outer, l->n_outer, "row");
    LLVMValueRef i = level_begin(q, &inner, l->n_inner, "tap");
    LLVMValueRef x = mpqc_b_madd(e, o, l->outer_step, mpqc_b_madd(e, i, l->inner_step, zero));
    LLVMValueRef w = mpqc_b_madd(e, o, l->n_inner * run, mpqc_b_madd(e, i, run, zero));
    LLVMValueRef k = level_begin(q, &chunks, q->u->t->amx_chunks, "k");
    step(q, mpqc_b_madd(e, k, q->u->t->amx_bytes, x),
         mpqc_b_gep(e, q->u->w, mpqc_b_madd(e, k, chunk, w)));
    level_end(q, &chunks);
    level_end(q, &inner);
    level_end(q, &outer);
}

static int64_t sums_row(const struct amx *q)
{
    return ROW_BYTES * q->u->c->n;
}

static void store_sums(const struct amx *q)
{
    struct mpqc_emit_cx *e = q->u->e;
    for (unsigned i = 0; i < 4; i++) {
        if (i % 2 >= q->u->c->n) continue;
        int64_t at = i / 2 * q->u->t->amx_rows * sums_row(q) + i % 2 * ROW_BYTES;
        LLVMValueRef args[] = {tile_name(e, i), mpqc_b_gep_const(e, q->sums, at),
                               constant(q, sums_row(q))};
        mpqc_b_intrinsic(e, "llvm.x86.tilestored64", NULL, 0, args, 3);
    }
}

static LLVMValueRef choose(const struct amx *q, LLVMValueRef second, LLVMValueRef v[2])
{
    return LLVMBuildSelect(q->u->e->b, second, v[1], v[0], "");
}

/* Tile by tile, position by position. */
static void finish(struct amx *q)
{
    struct mpqc_emit_cx *e = q->u->e;
    const struct mpqc_linear *l = q->u->l;
    const struct mpqc_columns *c = q->u->c;
    LLVMValueRef bias[MPQC_MAX_COLUMNS], sum[MPQC_MAX_COLUMNS], at[2];
    struct level tile, position;
    int64_t rows = q->u->t->amx_rows;
    mpqc_epilogue_columns(e, q->u->ep, c, q->u->channel);
    mpqc_epilogue_bias(e, q->u->ep, c, q->u->channel, bias);
    LLVMValueRef a = level_begin(q, &tile, q->tiles > 1 ? 2 : 1, "tile");
    LLVMValueRef second = LLVMBuildICmp(e->b, LLVMIntNE, a, constant(q, 0), "");
    for (int d = 0; d < 2; d++) {
        LLVMValueRef v[] = {q->at[0][d], q->at[1][d]};
        at[d] = choose(q, second, v);
    }
    LLVMValueRef out = mpqc_b_madd(e, at[0], l->out_row, q->u->position);
    LLVMValueRef res = mpqc_b_madd(e, at[0], l->res_row, q->u->residual);
    LLVMValueRef sums = mpqc_b_gep(
        e, q->sums, mpqc_b_madd(e, a, rows * sums_row(q), constant(q, 0)));
    position.n = 2;
    mpqc_b_loop_begin(e, &position.loop, choose(q, second, q->skip), constant(q, rows), 1,
                      "finish");
    LLVMValueRef m = position.loop.iv;
    LLVMValueRef from = mpqc_b_gep(e, sums, mpqc_b_madd(e, m, sums_row(q), constant(q, 0)));
    for (unsigned v = 0; v < c->n; v++) {
        sum[v] = mpqc_b_load(e, LLVMVectorType(e->i32, 16),
                             mpqc_b_gep_const(e, from, v * ROW_BYTES), 64);
        sum[v] = LLVMBuildAdd(e->b, sum[v], bias[v], "");
    }
    LLVMValueRef column = LLVMBuildNSWAdd(e->b, at[1], m, "");
    mpqc_epilogue_store(e, q->u->ep, sum, mpqc_b_madd(e, column, l->out_col, out),
                        mpqc_b_madd(e, column, l->res_col, res), NULL);
    level_end(q, &position);
    level_end(q, &tile);
}

/* Where tile i (i64) of the unit lies: its row, its first column, moved back from the end
 * of the row; what the tile before has stored of it.  Behind the last tile comes the last
 * once more, with nothing to store. */
static void locate(struct amx *q, unsigned a, LLVMValueRef i)
{
    struct mpqc_emit_cx *e = q->u->e;
    int64_t rows = q->u->t->amx_rows, last = q->u->width - rows;
    LLVMValueRef zero = constant(q, 0), n = constant(q, q->tiles - 1);
    LLVMValueRef per = constant(q, q->per_row);
    LLVMValueRef behind = LLVMBuildICmp(e->b, LLVMIntSGT, i, n, "");
    i = LLVMBuildSelect(e->b, behind, n, i, "");
    LLVMValueRef row = LLVMBuildUDiv(e->b, i, per, "");
    LLVMValueRef want = mpqc_b_madd(e, LLVMBuildURem(e->b, i, per, ""), rows, zero);
    LLVMValueRef over = LLVMBuildICmp(e->b, LLVMIntSGT, want, constant(q, last), "");
    LLVMValueRef column = LLVMBuildSelect(e->b, over, constant(q, last), want, "");
    q->at[a][0] = row;
    q->at[a][1] = column;
    q->skip[a] = LLVMBuildSelect(e->b, behind, constant(q, rows),
                                 LLVMBuildNSWSub(e->b, want, column, ""), "");
    LLVMValueRef x = mpqc_b_madd(e, row, q->u->l->x_row, zero);
    q->x[a] = mpqc_b_gep(e, q->u->x, mpqc_b_madd(e, column, q->u->l->x_col, x));
}

void mpqc_amx_unit(const struct mpqc_amx_unit *u)
{
    struct mpqc_emit_cx *e = u->e;
    int64_t rows = u->t->amx_rows;
    struct amx q = {.u = u, .per_row = (u->width + rows - 1) / rows};
    LLVMTypeRef type = LLVMArrayType2(LLVMVectorType(e->i32, 16), (uint64_t)(2 * rows * u->c->n));
    struct level pairs;
    q.tiles = u->height * q.per_row;
    q.sums = mpqc_b_var(e, type, "sums");
    LLVMValueRef pair = level_begin(&q, &pairs, (q.tiles + 1) / 2, "pair");
    for (unsigned a = 0; a < 2; a++) locate(&q, a, mpqc_b_madd(e, pair, 2, constant(&q, a)));
    products(&q);
    store_sums(&q);
    finish(&q);
    level_end(&q, &pairs);
}
