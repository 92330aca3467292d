/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights in the order of computation.  Panels at the end of a group are as narrow as
 * what remains, so that little padding is stored.
 */
#include "codegen/linear.h"

struct mpqc_packing mpqc_packing_of(unsigned bits)
{
    switch (bits) {
    case 1: return (struct mpqc_packing){8, 1, {1, 0}, {1, 0}}; /* codes 0 and 2 */
    case 2: return (struct mpqc_packing){4, 1, {2, 0}, {0, 0}};
    case 3: return (struct mpqc_packing){8, 2, {2, 1}, {0, 2}};
    case 4: return (struct mpqc_packing){2, 1, {4, 0}, {0, 0}};
    case 5: return (struct mpqc_packing){8, 2, {4, 1}, {0, 4}};
    case 6: return (struct mpqc_packing){4, 2, {4, 2}, {0, 4}};
    default: return (struct mpqc_packing){.steps = 1};
    }
}

/* Rows of one plane for up to a bundle of steps. */
static int64_t plane_rows(unsigned plane_bits, int64_t steps)
{
    return (steps * plane_bits + 7) / 8;
}

int64_t mpqc_packed_rows(unsigned bits, int64_t steps)
{
    struct mpqc_packing p = mpqc_packing_of(bits);
    if (p.n == 0) return steps;
    int64_t rows = steps / p.steps * (p.steps * bits / 8);
    for (unsigned i = 0; i < p.n; i++) rows += plane_rows(p.bits[i], steps % p.steps);
    return rows;
}

unsigned mpqc_unpack_ops(unsigned bits)
{
    struct mpqc_packing p = mpqc_packing_of(bits);
    return p.n == 0 ? 0 : p.n == 1 ? 3 : 6; /* shift and mask, or, subtract */
}

int64_t mpqc_run_bytes(const struct mpqc_linear *l, const struct mpqc_columns *c)
{
    return mpqc_packed_rows(l->bits, l->k4) * l->per_lane * mpqc_columns_lanes(c);
}

int64_t mpqc_factor_bytes(const struct mpqc_linear *l, const struct mpqc_columns *c)
{
    if (l->group == 0) return 0;
    int64_t n = (l->run + l->group - 1) / l->group * mpqc_columns_lanes(c);
    return (n + 63) / 64 * 64;
}

int64_t mpqc_panel_bytes(const struct mpqc_linear *l, const struct mpqc_columns *c)
{
    return l->n_outer * l->n_inner * mpqc_run_bytes(l, c) + mpqc_factor_bytes(l, c);
}

int64_t mpqc_group_bytes(const struct mpqc_linear *l, const struct mpqc_panels *p)
{
    int64_t n = p->n_full * mpqc_panel_bytes(l, &p->full);
    for (unsigned r = 0; r < p->n_rest; r++) n += mpqc_panel_bytes(l, &p->rest[r]);
    return n;
}

int64_t mpqc_form_steps(const struct mpqc_form *f, int64_t k4)
{
    return f ? (k4 + f->even - 1) / f->even * f->even : k4;
}

/* A panel at work. */
struct packer {
    const struct mpqc_linear *l;
    int64_t wide; /* steps of a lane that lie side by side */
    const int8_t *w; /* the panel's first channel of the first tap */
    const int8_t *factor; /* its factor of the first group, or NULL */
    int64_t lanes, valid;
    const struct mpqc_columns *c;
};

/* Byte `at` of step k of run r.  In w[KH,KW,IC,OC], run r of the outer loop is a row of
 * taps; index i in it counts taps and input channels.  Padding is 0, whatever it meets. */
static int weight_at(const struct packer *p, int64_t r, int64_t k, int64_t at)
{
    int64_t area = k / p->wide * p->wide, wide = p->l->k4 - area, per = p->l->per_lane;
    int64_t run = p->l->run / p->l->x_bytes;
    if (wide > p->wide) wide = p->wide;
    at += (k - area) * per * p->lanes;
    int64_t i = per * area + at % (per * wide), lane = at / (per * wide);
    int64_t channel = mpqc_columns_channel(p->c, (unsigned)lane);
    if (i >= run || channel >= p->valid) return 0;
    if (p->l->braid) i = mpqc_braid_tap(p->l, i);
    int w = p->w[(r * run + i) * p->l->groups * p->l->ocg + channel];
    return p->factor ? w / p->factor[i / p->l->group * p->l->ocg + channel] : w;
}

/* [group][lane]; 1 where there is none. */
static int8_t *pack_factors(const struct packer *p, const struct mpqc_columns *c, int8_t *to)
{
    int8_t *end = to + mpqc_factor_bytes(p->l, c);
    for (int64_t i = 0; p->factor && i < p->l->run; i += p->l->group)
        for (int64_t lane = 0; lane < p->lanes; lane++) {
            int64_t channel = mpqc_columns_channel(c, (unsigned)lane);
            *to++ = channel < p->valid ? p->factor[i / p->l->group * p->l->ocg + channel] : 1;
        }
    while (to < end) *to++ = 1;
    return to;
}

/* Steps [from, from + n) of run r, at most a bundle. */
static int8_t *pack_bundle(const struct packer *p, int64_t r, int64_t from, int64_t n, int8_t *to)
{
    struct mpqc_packing form = mpqc_packing_of(p->l->bits);
    int half = 1 << (p->l->bits - 1);
    int64_t per = p->l->per_lane;
    for (unsigned plane = 0; plane < form.n; plane++) {
        unsigned bits = form.bits[plane], mask = (1u << bits) - 1;
        int64_t per_row = 8 / bits;
        for (int64_t row = 0; row < plane_rows(bits, n); row++) {
            for (int64_t at = 0; at < per * p->lanes; at++, to++) {
                unsigned byte = 0;
                for (int64_t s = 0; s < per_row && row * per_row + s < n; s++) {
                    int64_t k = from + row * per_row + s;
                    unsigned code = (unsigned)(weight_at(p, r, k, at) + half);
                    byte |= (code >> form.shift[plane] & mask) << (bits * s);
                }
                *to = (int8_t)(uint8_t)byte;
            }
        }
    }
    return to;
}

static int8_t *pack_panel(const struct mpqc_linear *l, const struct mpqc_columns *c, int64_t wide,
                          int64_t g, int64_t channel, int8_t *to)
{
    struct packer p = {l, wide, l->w + g * l->ocg + channel, l->factor ? l->factor + channel : NULL,
                       mpqc_columns_lanes(c), c->valid, c};
    struct mpqc_packing form = mpqc_packing_of(l->bits);
    for (int64_t r = 0; r < l->n_outer * l->n_inner; r++) {
        for (int64_t k = 0; k < l->k4; k += form.steps) {
            int64_t n = l->k4 - k < form.steps ? l->k4 - k : form.steps;
            if (form.n > 0) {
                to = pack_bundle(&p, r, k, n, to);
                continue;
            }
            for (int64_t at = 0; at < l->per_lane * p.lanes; at++)
                *to++ = (int8_t)weight_at(&p, r, k, at);
        }
    }
    return pack_factors(&p, c, to);
}

int8_t *mpqc_pack_weights(struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                          const struct mpqc_panels *p, const struct mpqc_form *form,
                          size_t *bytes)
{
    int64_t wide = form ? form->wide : 1;
    *bytes = (size_t)(l->groups * mpqc_group_bytes(l, p));
    int8_t *packed = MPQC_NEW_ARRAY(&e->scratch, int8_t, *bytes), *to = packed;
    if (!packed) return NULL;
    for (int64_t g = 0; g < l->groups; g++) {
        int64_t channel = 0;
        for (int64_t i = 0; i < p->n_full; i++, channel += p->full.valid)
            to = pack_panel(l, &p->full, wide, g, channel, to);
        for (unsigned r = 0; r < p->n_rest; channel += p->rest[r++].valid)
            to = pack_panel(l, &p->rest[r], wide, g, channel, to);
        MPQC_ASSERT(channel == l->ocg);
    }
    MPQC_ASSERT(to == packed + *bytes);
    return packed;
}

int32_t *mpqc_weight_sums(struct mpqc_emit_cx *e, const struct mpqc_linear *l)
{
    int64_t oc = l->groups * l->ocg, k = l->kh * l->kw * l->icg;
    int32_t *sum = MPQC_NEW_ARRAY(&e->scratch, int32_t, (size_t)oc);
    for (int64_t i = 0; sum && i < k; i++)
        for (int64_t c = 0; c < oc; c++) sum[c] += l->w[i * oc + c];
    return sum;
}

int32_t *mpqc_linear_bias(struct mpqc_emit_cx *e, const struct mpqc_linear *l, int32_t x_offset)
{
    const struct mpqc_quant *q = mpqc_value_at(e->graph, l->x)->type.quant;
    int32_t *sum = mpqc_weight_sums(e, l);
    int32_t offset = x_offset - (q ? q->zero[0] : 0);
    for (int64_t c = 0; sum && c < l->groups * l->ocg; c++) {
        uint32_t b = l->bias ? (uint32_t)l->bias[c] : 0;
        sum[c] = (int32_t)((uint32_t)sum[c] * (uint32_t)offset + b);
    }
    return sum;
}
