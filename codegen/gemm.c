/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The code of convolutions and matrix products around the register tiles of gemm_tile.c,
 * from the outside: blocks of units, groups, panels, units, tiles of a unit.
 */
#include "codegen/gemm.h"

static LLVMValueRef constant(struct gemm *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

/* ---- units ------------------------------------------------------------------------ */

/* Where a unit or tile begins. */
struct origin {
    LLVMValueRef x, position, residual;
};

static struct origin move_columns(struct gemm *q, struct origin o, LLVMValueRef n)
{
    const struct mpqc_linear *l = q->l;
    o.x = mpqc_b_gep(q->e, o.x, mpqc_b_madd(q->e, n, l->x_col, constant(q, 0)));
    o.position = mpqc_b_madd(q->e, n, l->out_col, o.position);
    o.residual = mpqc_b_madd(q->e, n, l->res_col, o.residual);
    return o;
}

/* min(n * size, extent - size): where tile n begins if the last may be moved back. */
static LLVMValueRef moved_back(struct gemm *q, LLVMValueRef n, int64_t size, int64_t extent)
{
    LLVMValueRef at = mpqc_b_madd(q->e, n, size, constant(q, 0));
    if (extent % size == 0) return at;
    LLVMValueRef last = constant(q, extent - size);
    return LLVMBuildSelect(q->e->b, LLVMBuildICmp(q->e->b, LLVMIntSLT, at, last, ""), at, last,
                           "");
}

static void amx_unit(struct gemm *q, int64_t height, int64_t width, struct origin o)
{
    struct mpqc_amx_unit u = {.x = o.x, .height = height, .width = width};
    u.position = LLVMBuildNSWAdd(q->e->b, o.position, q->channel, "");
    u.residual = LLVMBuildNSWAdd(q->e->b, o.residual, q->channel, "");
    mpqc_amx_unit(&q->amx, &u);
}

/* All columns of `height` rows. */
static void unit(struct gemm *q, int64_t height, int64_t width, struct origin o)
{
    if (q->t->amx) {
        amx_unit(q, height, width, o);
        return;
    }
    int64_t mw = q->t->mw, n = width / mw, rest = width % mw;
    if (q->t->overlap && width > mw && rest) {
        n++;
        rest = 0;
    }
    LLVMValueRef number = mpqc_b_madd(q->e, q->unit, n + (rest > 0), constant(q, 0));
    if (n == 1) {
        mpqc_prefetch_tile(q, number);
        mpqc_gemm_tile(q, height, mw, o.x, o.position, o.residual);
    } else if (n > 1) {
        struct mpqc_loop loop;
        mpqc_b_loop_begin(q->e, &loop, constant(q, 0), constant(q, n), 1, "tile");
        struct origin at = move_columns(q, o, moved_back(q, loop.iv, mw, width));
        mpqc_prefetch_tile(q, LLVMBuildNSWAdd(q->e->b, number, loop.iv, ""));
        mpqc_gemm_tile(q, height, mw, at.x, at.position, at.residual);
        mpqc_b_loop_end(q->e, &loop);
    }
    if (rest) {
        struct origin at = move_columns(q, o, constant(q, n * mw));
        mpqc_prefetch_tile(q, LLVMBuildNSWAdd(q->e->b, number, constant(q, n), ""));
        mpqc_gemm_tile(q, height, rest, at.x, at.position, at.residual);
    }
}

/* Unit r of image n.  The last one of an image may be smaller. */
static void any_unit(struct gemm *q, LLVMValueRef n, LLVMValueRef r, struct origin o)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    LLVMValueRef zero = constant(q, 0);
    int64_t size = l->flat ? q->t->mw : q->t->mh, extent = l->flat ? l->cols : l->rows;
    int64_t full = extent / size, rest = q->t->overlap ? 0 : extent % size;
    int64_t h = l->flat ? 1 : q->t->mh, w = l->flat ? q->t->mw : l->cols;
    LLVMValueRef at = q->t->overlap ? moved_back(q, r, size, extent)
                                    : mpqc_b_madd(e, r, size, zero);
    if (l->flat) {
        o = move_columns(q, o, at);
    } else {
        o.x = mpqc_b_gep(e, o.x, mpqc_b_madd(e, at, l->x_row, zero));
        o.position = mpqc_b_madd(e, at, l->out_row, o.position);
        o.residual = mpqc_b_madd(e, at, l->res_row, o.residual);
    }
    if (n) {
        o.x = mpqc_b_gep(e, o.x, mpqc_b_madd(e, n, l->x_batch, zero));
        o.position = mpqc_b_madd(e, n, l->out_batch, o.position);
        o.residual = mpqc_b_madd(e, n, l->res_batch, o.residual);
    }
    if (rest == 0) {
        unit(q, h, w, o);
        return;
    }
    struct mpqc_if branch;
    if (full > 0) {
        mpqc_b_if_begin(e, &branch, LLVMBuildICmp(e->b, LLVMIntSLT, r, constant(q, full), ""));
        unit(q, h, w, o);
        mpqc_b_if_end(e, &branch);
    }
    mpqc_b_if_begin(e, &branch, LLVMBuildICmp(e->b, LLVMIntSGE, r, constant(q, full), ""));
    unit(q, l->flat ? 1 : rest, l->flat ? rest : w, o);
    mpqc_b_if_end(e, &branch);
}

static void units(struct gemm *q, LLVMValueRef from, LLVMValueRef to, LLVMValueRef x)
{
    struct mpqc_emit_cx *e = q->e;
    struct origin o = {x, constant(q, 0), constant(q, 0)};
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, from, to, 1, "unit");
    LLVMValueRef n = NULL, r = loop.iv, per_image = constant(q, q->t->units);
    q->unit = LLVMBuildNSWSub(e->b, loop.iv, from, "");
    if (q->l->batch > 1) {
        n = LLVMBuildSDiv(e->b, loop.iv, per_image, "");
        r = LLVMBuildSRem(e->b, loop.iv, per_image, "");
    }
    any_unit(q, n, r, o);
    mpqc_b_loop_end(e, &loop);
}

/* ---- panels and groups ----------------------------------------------------------------- */

/* Panel at `channel` of group g (both i64), weights at w. */
static void panel(struct gemm *q, const struct mpqc_columns *c, LLVMValueRef g,
                  LLVMValueRef channel, LLVMValueRef w, LLVMValueRef from, LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    q->c = c;
    q->panel_w = w;
    q->lanes = 4;
    for (unsigned v = 0; v < c->n; v++)
        if (c->lanes[v] > q->lanes) q->lanes = c->lanes[v];
    q->channel = mpqc_b_madd(e, g, q->l->ocg, channel);
    LLVMValueRef group = q->l->fan ? LLVMBuildSDiv(e->b, channel, constant(q, q->l->fan), "") : g;
    LLVMValueRef at = mpqc_b_madd(e, group, q->l->icg * q->l->x_bytes, constant(q, q->l->x_first));
    q->amx.c = c;
    q->amx.channel = q->channel;
    q->amx.w = w;
    if (q->t->amx) mpqc_amx_panel_begin(&q->amx);
    units(q, from, to, mpqc_b_gep(e, q->x, at));
    if (q->t->amx) mpqc_amx_panel_end(&q->amx);
}

void mpqc_panels_walk(struct mpqc_emit_cx *e, const struct mpqc_panels *p,
                      const struct mpqc_panel_walk *walk, LLVMValueRef w, LLVMValueRef first,
                      LLVMValueRef last)
{
    int64_t bytes = walk->bytes(walk->user, &p->full), n = p->n_full;
    LLVMValueRef zero = mpqc_b_i64(e, 0), end = mpqc_b_i64(e, n);
    if (n == 1 && !first) {
        walk->panel(walk->user, &p->full, zero, w);
    } else if (n > 0) {
        struct mpqc_loop loop;
        if (last) {
            LLVMValueRef less = LLVMBuildICmp(e->b, LLVMIntSLT, last, end, "");
            end = LLVMBuildSelect(e->b, less, last, end, "");
        }
        mpqc_b_loop_begin(e, &loop, first ? first : zero, end, 1, "panel");
        walk->panel(walk->user, &p->full, mpqc_b_madd(e, loop.iv, p->full.valid, zero),
                    mpqc_b_gep(e, w, mpqc_b_madd(e, loop.iv, bytes, zero)));
        mpqc_b_loop_end(e, &loop);
    }
    int64_t channel = n * p->full.valid, at = n * bytes;
    for (unsigned r = 0; r < p->n_rest; r++) {
        struct mpqc_if branch;
        if (first) {
            LLVMValueRef i = mpqc_b_i64(e, n + r);
            LLVMValueRef in = LLVMBuildICmp(e->b, LLVMIntSLE, first, i, "");
            in = LLVMBuildAnd(e->b, in, LLVMBuildICmp(e->b, LLVMIntSGT, last, i, ""), "");
            mpqc_b_if_begin(e, &branch, in);
        }
        walk->panel(walk->user, &p->rest[r], mpqc_b_i64(e, channel), mpqc_b_gep_const(e, w, at));
        if (first) mpqc_b_if_end(e, &branch);
        channel += p->rest[r].valid;
        at += walk->bytes(walk->user, &p->rest[r]);
    }
}

/* Panels of one group, over units [from, to). */
struct group_walk {
    struct gemm *q;
    LLVMValueRef g, from, to;
};

static int64_t walked_bytes(const void *user, const struct mpqc_columns *c)
{
    const struct group_walk *u = user;
    return mpqc_panel_bytes(u->q->l, c);
}

static void walked_panel(void *user, const struct mpqc_columns *c, LLVMValueRef channel,
                         LLVMValueRef w)
{
    struct group_walk *u = user;
    panel(u->q, c, u->g, channel, w, u->from, u->to);
}

/* Panels [first, last) of group g; NULL: all. */
static void panels(struct gemm *q, LLVMValueRef g, LLVMValueRef first, LLVMValueRef last,
                   LLVMValueRef from, LLVMValueRef to)
{
    struct group_walk user = {q, g, from, to};
    const struct mpqc_panel_walk walk = {&user, walked_bytes, walked_panel};
    int64_t bytes = mpqc_group_bytes(q->l, &q->t->panels);
    LLVMValueRef w = mpqc_b_gep(q->e, q->w, mpqc_b_madd(q->e, g, bytes, constant(q, 0)));
    mpqc_panels_walk(q->e, &q->t->panels, &walk, w, first, last);
}

static void groups(struct gemm *q, LLVMValueRef from, LLVMValueRef to)
{
    if (q->l->groups == 1) {
        panels(q, constant(q, 0), NULL, NULL, from, to);
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(q->e, &loop, constant(q, 0), constant(q, q->l->groups), 1, "group");
    panels(q, loop.iv, NULL, NULL, from, to);
    mpqc_b_loop_end(q->e, &loop);
}

/* Halo of the rows of units [from, to). */
static void halos(struct gemm *q, const struct mpqc_kernel *k, LLVMValueRef from, LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_place *place = &e->plan->place[k->out];
    const struct mpqc_linear *l = q->l;
    if (!mpqc_place_has_halo(place)) return;
    MPQC_ASSERT(!l->flat);
    /* Rows of units [0, u): full images, then mh each, at most all rows of the image. */
    LLVMValueRef bound[2] = {from, to};
    for (int i = 0; i < 2; i++) {
        LLVMValueRef u = constant(q, q->t->units);
        LLVMValueRef n = LLVMBuildSDiv(e->b, bound[i], u, "");
        LLVMValueRef r = LLVMBuildSRem(e->b, bound[i], u, "");
        bound[i] = mpqc_b_madd(e, n, l->rows, mpqc_b_madd(e, r, q->t->mh, constant(q, 0)));
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, bound[0], bound[1], 1, "halo");
    mpqc_emit_halo(e, place, &mpqc_value_at(e->graph, k->out)->type, mpqc_epilogue_out(q->ep),
                   loop.iv);
    mpqc_b_loop_end(e, &loop);
}

static void all_units(struct gemm *q, const struct mpqc_kernel *k, LLVMValueRef from,
                      LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_panels *p = &q->t->panels;
    if (q->t->by_panel) {
        /* one unit: its halo belongs to the first panel */
        struct mpqc_if first;
        mpqc_b_if_begin(e, &first,
                        LLVMBuildICmp(e->b, LLVMIntEQ, from, constant(q, 0), ""));
        halos(q, k, constant(q, 0), constant(q, 1));
        mpqc_b_if_end(e, &first);
        panels(q, constant(q, 0), from, to, constant(q, 0), constant(q, 1));
        return;
    }
    halos(q, k, from, to);
    int64_t all = q->l->batch * q->t->units;
    bool single = q->l->groups == 1 && p->n_full + (int64_t)p->n_rest == 1;
    if (single || q->t->block >= all) {
        groups(q, from, to);
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, from, to, q->t->block, "block");
    LLVMValueRef end = LLVMBuildNSWAdd(e->b, loop.iv, constant(q, q->t->block), "");
    LLVMValueRef less = LLVMBuildICmp(e->b, LLVMIntSLT, end, to, "");
    groups(q, loop.iv, LLVMBuildSelect(e->b, less, end, to, ""));
    mpqc_b_loop_end(e, &loop);
}

void mpqc_gemm_body(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                    const struct mpqc_linear *l, const struct mpqc_tile *t,
                    struct mpqc_epilogue *ep, LLVMValueRef x, LLVMValueRef w, LLVMValueRef from,
                    LLVMValueRef to)
{
    struct gemm q = {.e = e, .l = l, .t = t, .ep = ep, .x = x, .w = w};
    q.amx = (struct mpqc_amx){.e = e, .l = l, .t = t, .ep = ep};
    if (t->amx) mpqc_amx_begin(e, t);
    all_units(&q, k, from, to);
    if (t->amx) mpqc_amx_end(e);
}
