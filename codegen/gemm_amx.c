/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Matrix products by AMX tiles ("Intel Architecture Instruction Set Extensions
 * Programming Reference", chapter 3): for positions m, channels n and groups of four k,
 * tdpbusd adds x[m][4k..] (unsigned) * w[4k..][n] (signed) to int32 sums, exactly.
 *
 * A tile of `amx_rows` neighbouring positions is loaded straight from the input: its row
 * stride is the distance between positions, its rows are `amx_bytes` of a run.  A run is
 * cut into equal chunks, at most 64 bytes, so that one configuration serves the whole
 * kernel.  Tiles at the end of a row are moved back to full size; positions that the tile
 * before has stored are not finished again.  Rows that fill no tile are taken as one line
 * with the halo between them, whose positions are computed in vain.
 *
 * A group of 4 x 1, 2 x 2 or 1 x 4 tiles of positions x channels is multiplied crosswise
 * into four accumulators (registers 0 to 3), whose sums go through memory to the epilogue
 * of AVX-512.  A group is finished while the next one is multiplied, some positions after
 * each chunk: the core has little else to do meanwhile.
 */
#include "codegen/amx.h"

enum { CACHED_WEIGHTS = 65536 };

static LLVMValueRef constant(const struct mpqc_amx *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

static LLVMValueRef tile_name(struct mpqc_emit_cx *e, unsigned i)
{
    return LLVMConstInt(e->i8, i, 0);
}

/* Registers 4 to 7: those of tile a of positions, of vector v of channels. */
static unsigned x_tile(const struct mpqc_tile *t, unsigned a)
{
    return 4 + (t->amx_n == 2 ? a : t->amx_n == 1 ? a % 3 : 0);
}

static unsigned w_tile(const struct mpqc_tile *t, unsigned v)
{
    return t->amx_n == 2 ? 6 + v : t->amx_n == 1 ? 7 : 5 + v % 3;
}

/* ---- around a kernel ------------------------------------------------------------------- */

/* The 64 bytes of ldtilecfg: palette 1, then bytes per row and rows of each register. */
void mpqc_amx_begin(struct mpqc_emit_cx *e, const struct mpqc_tile *t)
{
    uint8_t c[64] = {1};
    for (unsigned i = 0; i < 8; i++) {
        bool w = false, x = false;
        for (unsigned k = 0; k < 4; k++) {
            w |= k < t->amx_n && i == w_tile(t, k);
            x |= k < t->amx_m && i == x_tile(t, k);
        }
        c[16 + 2 * i] = (uint8_t)(x ? t->amx_bytes : MPQC_AMX_BYTES);
        c[48 + i] = (uint8_t)(w ? t->amx_bytes / 4 : t->amx_rows);
    }
    LLVMValueRef config = mpqc_global_bytes(e, "tiles", c, sizeof c, 64);
    mpqc_b_intrinsic(e, "llvm.x86.ldtilecfg", NULL, 0, &config, 1);
}

void mpqc_amx_end(struct mpqc_emit_cx *e)
{
    mpqc_b_intrinsic(e, "llvm.x86.tilerelease", NULL, 0, NULL, 0);
}

/* ---- finishing --------------------------------------------------------------------------- */

/* Element a (i64) of one of the arrays of facts about the tiles to be finished. */
static LLVMValueRef fact(const struct mpqc_amx *q, LLVMValueRef array, LLVMValueRef a)
{
    return mpqc_b_gep(q->e, array, mpqc_b_madd(q->e, a, 8, constant(q, 0)));
}

static int64_t sums_row(const struct mpqc_amx *q)
{
    return MPQC_AMX_BYTES * q->c->n;
}

/* Position m of tile a; f is their number in the group. */
static void finish_position(struct mpqc_amx *q, LLVMValueRef f, LLVMValueRef a, LLVMValueRef m)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef sum[MPQC_MAX_COLUMNS];
    LLVMValueRef from = mpqc_b_gep(e, q->sums, mpqc_b_madd(e, f, sums_row(q), constant(q, 0)));
    for (unsigned v = 0; v < q->c->n; v++) {
        sum[v] = mpqc_b_load(e, LLVMVectorType(e->i32, MPQC_AMX_LANES),
                             mpqc_b_gep_const(e, from, v * MPQC_AMX_BYTES), 64);
        sum[v] = LLVMBuildAdd(e->b, sum[v], q->bias[v], "");
    }
    LLVMValueRef out = mpqc_b_load(e, e->i64, fact(q, q->out_at, a), 8);
    LLVMValueRef res = mpqc_b_load(e, e->i64, fact(q, q->res_at, a), 8);
    if (q->t->amx_pitch) { /* m is a place in the line */
        LLVMValueRef pitch = constant(q, q->t->amx_pitch);
        LLVMValueRef row = LLVMBuildUDiv(e->b, m, pitch, "");
        m = LLVMBuildURem(e->b, m, pitch, "");
        out = mpqc_b_madd(e, row, q->l->out_row, out);
        res = mpqc_b_madd(e, row, q->l->res_row, res);
    }
    mpqc_epilogue_store(e, q->ep, sum, mpqc_b_madd(e, m, q->l->out_col, out),
                        mpqc_b_madd(e, m, q->l->res_col, res), NULL);
}

/* Positions [from, to) of the group whose sums are in memory. */
static void finish(struct mpqc_amx *q, LLVMValueRef from, LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_loop loop;
    struct mpqc_if wanted;
    mpqc_b_loop_begin(e, &loop, from, to, 1, "finish");
    LLVMValueRef rows = constant(q, q->t->amx_rows);
    LLVMValueRef a = LLVMBuildUDiv(e->b, loop.iv, rows, "");
    LLVMValueRef m = LLVMBuildURem(e->b, loop.iv, rows, "");
    LLVMValueRef skip = mpqc_b_load(e, e->i64, fact(q, q->skip, a), 8);
    LLVMValueRef want = LLVMBuildICmp(e->b, LLVMIntSGE, m, skip, "");
    if (q->t->amx_pitch) {
        m = LLVMBuildNSWAdd(e->b, m, mpqc_b_load(e, e->i64, fact(q, q->first, a), 8), "");
        LLVMValueRef column = LLVMBuildURem(e->b, m, constant(q, q->t->amx_pitch), "");
        LLVMValueRef real = LLVMBuildICmp(e->b, LLVMIntSLT, column, constant(q, q->l->cols), "");
        want = LLVMBuildAnd(e->b, want, real, "");
    }
    mpqc_b_if_begin(e, &wanted, want);
    finish_position(q, loop.iv, a, m);
    mpqc_b_if_end(e, &wanted);
    mpqc_b_loop_end(e, &loop);
}

void mpqc_amx_panel_begin(struct mpqc_amx *q)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t m = q->t->amx_m;
    if (!q->sums) {
        LLVMTypeRef facts = LLVMArrayType2(e->i64, (uint64_t)m);
        uint64_t n = (uint64_t)(m * q->t->amx_rows * q->t->amx_n);
        q->sums = mpqc_b_var(e, LLVMArrayType2(LLVMVectorType(e->i32, MPQC_AMX_LANES), n), "sums");
        q->out_at = mpqc_b_var(e, facts, "out.at");
        q->res_at = mpqc_b_var(e, facts, "residual.at");
        q->skip = mpqc_b_var(e, facts, "skip");
        q->first = mpqc_b_var(e, facts, "first");
    }
    mpqc_epilogue_columns(e, q->ep, q->c, q->channel);
    mpqc_epilogue_bias(e, q->ep, q->c, q->channel, q->bias);
    for (int64_t a = 0; a < m; a++) /* nothing to be finished yet */
        mpqc_b_store(e, constant(q, q->t->amx_rows), fact(q, q->skip, constant(q, a)), 8);
}

void mpqc_amx_panel_end(struct mpqc_amx *q)
{
    finish(q, constant(q, 0), constant(q, q->t->amx_m * q->t->amx_rows));
}

/* ---- one group --------------------------------------------------------------------------- */

/* Tiles of positions of the group: their input, facts for finishing. */
struct group {
    LLVMValueRef x[4], out[4], res[4], skip[4], first[4];
};

static void load_tile(const struct mpqc_amx *q, unsigned i, LLVMValueRef p, int64_t stride)
{
    LLVMValueRef args[] = {tile_name(q->e, i), p, constant(q, stride)};
    mpqc_b_intrinsic(q->e, "llvm.x86.tileloadd64", NULL, 0, args, 3);
}

static void load_weights(const struct mpqc_amx *q, LLVMValueRef w, unsigned v)
{
    load_tile(q, w_tile(q->t, v), mpqc_b_gep_const(q->e, w, MPQC_AMX_LANES * v * q->t->amx_bytes),
              MPQC_AMX_BYTES);
}

/* One chunk: accumulator n a + v += tile a of positions * vector v of channels.  Tiles of fewer
 * than 16 rows take less time if the product before had the same weights. */
static void step(const struct mpqc_amx *q, const struct group *g, LLVMValueRef x_at,
                 LLVMValueRef w)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_tile *t = q->t;
    for (unsigned v = 0; v < q->c->n; v++) {
        load_weights(q, w, v);
        for (unsigned a = 0; a < t->amx_m; a++) {
            if (v == 0) load_tile(q, x_tile(t, a), mpqc_b_gep(e, g->x[a], x_at), q->l->x_col);
            LLVMValueRef args[] = {tile_name(e, t->amx_n * a + v), tile_name(e, x_tile(t, a)),
                                   tile_name(e, w_tile(t, v))};
            mpqc_b_intrinsic(e, "llvm.x86.tdpbusd", NULL, 0, args, 3);
        }
    }
}

/* Step `number` (i64) of all steps of the panel brings its share of the next panel's weights
 * into the second cache; of what is behind the last panel, as of everything behind the
 * weights, a prefetch does no harm. */
static void prefetch_next(const struct mpqc_amx *q, LLVMValueRef number, int64_t lines)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef at = mpqc_b_madd(e, number, lines * MPQC_AMX_BYTES, constant(q, 0));
    LLVMValueRef from = mpqc_b_gep(e, q->w, at);
    int64_t next = mpqc_panel_bytes(q->l, q->c);
    for (int64_t i = 0; i < lines; i++)
        mpqc_b_prefetch(e, from, next + i * MPQC_AMX_BYTES, MPQC_SECOND_CACHE);
}

/* for (i = 0; i < n; i++) around what follows; nothing for n = 1. */
struct level {
    struct mpqc_loop loop;
    int64_t n;
};

static LLVMValueRef level_begin(const struct mpqc_amx *q, struct level *v, int64_t n,
                                const char *name)
{
    v->n = n;
    if (n == 1) return constant(q, 0);
    mpqc_b_loop_begin(q->e, &v->loop, constant(q, 0), constant(q, n), 1, name);
    return v->loop.iv;
}

static void level_end(const struct mpqc_amx *q, struct level *v)
{
    if (v->n > 1) mpqc_b_loop_end(q->e, &v->loop);
}

/* After step `number` (i64): its share of the positions of the group before. */
static void finish_some(struct mpqc_amx *q, LLVMValueRef number)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t all = q->t->amx_m * q->t->amx_rows, steps = mpqc_amx_all_steps(q->l, q->t);
    int64_t share = (all + steps - 1) / steps;
    LLVMValueRef end = constant(q, all);
    LLVMValueRef from = mpqc_b_madd(e, number, share, constant(q, 0));
    LLVMValueRef to = LLVMBuildNSWAdd(e->b, from, constant(q, share), "");
    LLVMValueRef less = LLVMBuildICmp(e->b, LLVMIntSLT, to, end, "");
    finish(q, from, LLVMBuildSelect(e->b, less, to, end, ""));
}

/* All steps of a group.  `lines`: of weights of the next panel that each brings; `group`
 * is the number of this one. */
static void products(struct mpqc_amx *q, const struct group *g, LLVMValueRef group,
                     int64_t lines)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    int64_t chunk = MPQC_AMX_LANES * q->c->n * q->t->amx_bytes;
    struct level outer, inner, chunks;
    for (unsigned i = 0; i < 4; i++) {
        LLVMValueRef name = tile_name(e, i);
        mpqc_b_intrinsic(e, "llvm.x86.tilezero", NULL, 0, &name, 1);
    }
    LLVMValueRef o = level_begin(q, &outer, l->n_outer, "row");
    LLVMValueRef i = level_begin(q, &inner, l->n_inner, "tap");
    LLVMValueRef k = level_begin(q, &chunks, q->t->amx_chunks, "k");
    LLVMValueRef x = mpqc_b_madd(e, i, l->inner_step, constant(q, 0));
    x = mpqc_b_madd(e, k, q->t->amx_bytes, mpqc_b_madd(e, o, l->outer_step, x));
    LLVMValueRef number = mpqc_b_madd(e, mpqc_b_madd(e, o, l->n_inner, i), q->t->amx_chunks, k);
    step(q, g, x, mpqc_b_gep(e, q->w, mpqc_b_madd(e, number, chunk, constant(q, 0))));
    if (lines) {
        LLVMValueRef all = mpqc_b_madd(e, group, mpqc_amx_all_steps(l, q->t), number);
        prefetch_next(q, all, lines);
    }
    finish_some(q, number);
    level_end(q, &chunks);
    level_end(q, &inner);
    level_end(q, &outer);
}

/* Sums and facts to memory, for the next group to finish. */
static void leave(const struct mpqc_amx *q, const struct group *g)
{
    struct mpqc_emit_cx *e = q->e;
    for (unsigned a = 0; a < q->t->amx_m; a++) {
        for (unsigned v = 0; v < q->c->n; v++) {
            int64_t at = a * q->t->amx_rows * sums_row(q) + v * MPQC_AMX_BYTES;
            LLVMValueRef args[] = {tile_name(e, q->t->amx_n * a + v),
                                   mpqc_b_gep_const(e, q->sums, at), constant(q, sums_row(q))};
            mpqc_b_intrinsic(e, "llvm.x86.tilestored64", NULL, 0, args, 3);
        }
        LLVMValueRef i = constant(q, a);
        mpqc_b_store(e, g->out[a], fact(q, q->out_at, i), 8);
        mpqc_b_store(e, g->res[a], fact(q, q->res_at, i), 8);
        mpqc_b_store(e, g->skip[a], fact(q, q->skip, i), 8);
        if (q->t->amx_pitch) mpqc_b_store(e, g->first[a], fact(q, q->first, i), 8);
    }
}

/* Tile i (i64) of the line: its first position, moved back from the end. */
static void locate_in_line(const struct mpqc_amx *q, const struct mpqc_amx_unit *u,
                           struct group *g, unsigned a, LLVMValueRef i)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t rows = q->t->amx_rows;
    LLVMValueRef want = mpqc_b_madd(e, i, rows, constant(q, 0));
    LLVMValueRef last = constant(q, mpqc_amx_line_of(q->l, q->t) - rows), all = constant(q, rows);
    LLVMValueRef over = LLVMBuildICmp(e->b, LLVMIntSGT, want, last, "");
    LLVMValueRef first = LLVMBuildSelect(e->b, over, last, want, "");
    LLVMValueRef stored = LLVMBuildNSWSub(e->b, want, first, "");
    LLVMValueRef behind = LLVMBuildICmp(e->b, LLVMIntSGT, stored, all, "");
    g->x[a] = mpqc_b_gep(e, u->x, mpqc_b_madd(e, first, q->l->x_col, constant(q, 0)));
    g->out[a] = u->position;
    g->res[a] = u->residual;
    g->skip[a] = LLVMBuildSelect(e->b, behind, all, stored, "");
    g->first[a] = first;
}

/* Where tile i (i64) of the unit lies: its row, its first column, moved back from the end
 * of the row; what the tile before has stored of it.  Behind the last tile comes the last
 * once more, with nothing to store. */
static void locate(const struct mpqc_amx *q, const struct mpqc_amx_unit *u, struct group *g,
                   unsigned a, LLVMValueRef i)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t rows = q->t->amx_rows, per_row = (u->width + rows - 1) / rows;
    LLVMValueRef zero = constant(q, 0), n = constant(q, u->height * per_row - 1);
    LLVMValueRef last = constant(q, u->width - rows), per = constant(q, per_row);
    LLVMValueRef behind = LLVMBuildICmp(e->b, LLVMIntSGT, i, n, "");
    i = LLVMBuildSelect(e->b, behind, n, i, "");
    LLVMValueRef row = LLVMBuildUDiv(e->b, i, per, "");
    LLVMValueRef want = mpqc_b_madd(e, LLVMBuildURem(e->b, i, per, ""), rows, zero);
    LLVMValueRef over = LLVMBuildICmp(e->b, LLVMIntSGT, want, last, "");
    LLVMValueRef column = LLVMBuildSelect(e->b, over, last, want, "");
    LLVMValueRef stored = LLVMBuildNSWSub(e->b, want, column, "");
    LLVMValueRef x = mpqc_b_madd(e, row, q->l->x_row, zero);
    g->x[a] = mpqc_b_gep(e, u->x, mpqc_b_madd(e, column, q->l->x_col, x));
    g->out[a] = mpqc_b_madd(e, column, q->l->out_col,
                            mpqc_b_madd(e, row, q->l->out_row, u->position));
    g->res[a] = mpqc_b_madd(e, column, q->l->res_col,
                            mpqc_b_madd(e, row, q->l->res_row, u->residual));
    g->skip[a] = LLVMBuildSelect(e->b, behind, constant(q, rows), stored, "");
}

/* The share of prefetch_next, if an image is one unit of n groups: then each panel is read
 * for the first time by one group, which waits for it. */
static int64_t next_lines(const struct mpqc_amx *q, int64_t n)
{
    int64_t panel = mpqc_panel_bytes(q->l, q->c);
    int64_t share = MPQC_AMX_BYTES * n * mpqc_amx_all_steps(q->l, q->t);
    bool streamed = mpqc_group_bytes(q->l, &q->t->panels) > CACHED_WEIGHTS;
    if (!streamed || q->t->units > 1 || q->l->batch > 1) return 0;
    return (panel + share - 1) / share;
}

void mpqc_amx_unit(struct mpqc_amx *q, const struct mpqc_amx_unit *u)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t rows = q->t->amx_rows, tiles = u->height * ((u->width + rows - 1) / rows);
    if (q->t->amx_pitch) tiles = mpqc_amx_tiles_of(q->l, q->t, u->height);
    struct level groups;
    struct group g;
    int64_t n = (tiles + q->t->amx_m - 1) / q->t->amx_m, lines = next_lines(q, n);
    LLVMValueRef i = level_begin(q, &groups, n, "group");
    for (unsigned a = 0; a < q->t->amx_m; a++) {
        LLVMValueRef number = mpqc_b_madd(e, i, q->t->amx_m, constant(q, a));
        if (q->t->amx_pitch) locate_in_line(q, u, &g, a, number);
        else locate(q, u, &g, a, number);
    }
    products(q, &g, i, lines);
    leave(q, &g);
    level_end(q, &groups);
}
