/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Which register tile a linear layer is computed in: rows x columns of positions times
 * column vectors.  Tiles that fit the registers are tried; the cheapest by a small
 * cost model wins.  Costs are in tenths of a cycle; only their order matters.
 */
#include "codegen/linear.h"

#include <string.h>

/* Cost per finished vector, per position, per tile; and what one more copy of the code
 * is worth. */
#define COST_VECTOR 25
#define COST_POSITION 20
#define COST_TILE 120
#define VARIANT_PERCENT 1

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

/* Panels of nv vectors. */
static void make_panels(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, unsigned nv,
                        struct mpqc_panels *p)
{
    unsigned tail[MPQC_MAX_TAIL], lanes = e->target->isa->lanes;
    int64_t full, left;
    unsigned n_tail = mpqc_split_channels(l->ocg, lanes, l->groups == 1, &full, tail);
    memset(p, 0, sizeof *p);
    p->n_full = full / nv;
    left = (int64_t)nv * lanes;
    for (unsigned v = 0; v < nv; v++) columns_add(&p->full, lanes, &left);
    left = l->ocg - p->n_full * p->full.valid;
    unsigned n = (unsigned)(full % nv), i = 0;
    while (i < n + n_tail) {
        struct mpqc_columns *c = &p->rest[p->n_rest++];
        MPQC_ASSERT(p->n_rest <= MPQC_MAX_REST);
        for (unsigned v = 0; v < nv && i < n + n_tail; v++, i++)
            columns_add(c, i < n ? lanes : tail[i - n], &left);
    }
    MPQC_ASSERT(left == 0);
}

struct shape { /* of one tile */
    int64_t m;
    unsigned nv;
};

static int64_t tile_cost(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                         struct shape s)
{
    const struct mpqc_isa *isa = e->target->isa;
    int64_t steps = l->n_outer * l->n_inner * l->k4, dots = s.m * s.nv;
    int64_t step = dots * isa->dot_cost + s.m * isa->x_cost + s.nv * isa->w_cost;
    int64_t chains = dots * isa->acc_per_column;
    if (chains < 4 && step < 20) step = 20; /* latency, in part hidden by `split` */
    return steps * step + dots * COST_VECTOR + s.m * COST_POSITION + COST_TILE;
}

/* All tiles of one image and group with these panels. */
static int64_t panels_cost(const struct mpqc_emit_cx *e, const struct mpqc_linear *l, int64_t mh,
                           int64_t mw, const struct mpqc_panels *p)
{
    int64_t full_r = l->rows / mh, rest_r = l->rows % mh;
    int64_t full_c = l->cols / mw, rest_c = l->cols % mw;
    int64_t cost = 0;
    for (unsigned i = 0; i <= p->n_rest; i++) {
        int64_t times = i == 0 ? p->n_full : 1;
        unsigned nv = i == 0 ? p->full.n : p->rest[i - 1].n;
        int64_t c = full_r * full_c * tile_cost(e, l, (struct shape){mh * mw, nv});
        if (rest_r) c += full_c * tile_cost(e, l, (struct shape){rest_r * mw, nv});
        if (rest_c) c += full_r * tile_cost(e, l, (struct shape){mh * rest_c, nv});
        if (rest_r && rest_c) c += tile_cost(e, l, (struct shape){rest_r * rest_c, nv});
        cost += times * c;
    }
    int64_t variants = ((p->n_full > 0) + (int64_t)p->n_rest) * (1 + (rest_r != 0)) *
                       (1 + (rest_c != 0));
    return cost + cost * variants * VARIANT_PERCENT / 100;
}

static bool fits(const struct mpqc_isa *isa, int64_t m, unsigned nv)
{
    int64_t temporaries = isa->w_values > 1 || isa->acc_per_column > 1 ? 1 : 0;
    return m * nv * isa->acc_per_column + nv * isa->w_values + isa->x_values + temporaries <=
           isa->registers;
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

void mpqc_tile_choose(const struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                      struct mpqc_tile *t)
{
    const struct mpqc_isa *isa = e->target->isa;
    int64_t best = INT64_MAX;
    memset(t, 0, sizeof *t);
    int64_t max_nv = (l->ocg + isa->lanes - 1) / isa->lanes;
    for (unsigned nv = 1; nv <= 8 && nv <= max_nv + 1; nv++) {
        struct mpqc_panels p;
        make_panels(e, l, nv, &p);
        for (int64_t mh = 1; mh <= l->rows && mh <= 8; mh++) {
            for (int64_t mw = 1; mw <= l->cols && fits(isa, mh * mw, nv); mw++) {
                int64_t cost = panels_cost(e, l, mh, mw, &p);
                if (cost >= best) continue;
                best = cost;
                t->mh = mh;
                t->mw = mw;
                t->panels = p;
            }
        }
    }
    MPQC_ASSERT(best < INT64_MAX);
    t->units = l->flat ? (l->cols + t->mw - 1) / t->mw : (l->rows + t->mh - 1) / t->mh;
    t->block = choose_block(e, l, t);
    unsigned nv = t->panels.n_full ? t->panels.full.n : t->panels.rest[0].n;
    int64_t dots = t->mh * t->mw * nv, chains = dots * isa->acc_per_column;
    t->split = chains >= 6 ? 1 : chains >= 3 ? 2 : 4;
    t->unroll = dots >= 12 ? 1 : dots >= 6 ? 2 : 4;
    if (t->unroll < t->split) t->unroll = t->split;
    t->by_panel = l->batch * t->units == 1 && l->groups == 1 &&
                  t->panels.n_full + (int64_t)t->panels.n_rest > 1;
}
