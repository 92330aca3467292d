/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights in the order of computation.  Panels at the end of a group are as narrow as
 * what remains, so that little padding is stored.
 */
#include "codegen/linear.h"

int64_t mpqc_panel_bytes(const struct mpqc_linear *l, const struct mpqc_columns *c)
{
    return l->n_outer * l->n_inner * l->k4 * 4 * mpqc_columns_lanes(c);
}

int64_t mpqc_group_bytes(const struct mpqc_linear *l, const struct mpqc_panels *p)
{
    int64_t n = p->n_full * mpqc_panel_bytes(l, &p->full);
    for (unsigned r = 0; r < p->n_rest; r++) n += mpqc_panel_bytes(l, &p->rest[r]);
    return n;
}

/* One panel whose first channel is `channel` of group g.  In w[KH,KW,IC,OC], run r of
 * the outer loop is a row of taps; index i in it counts taps and input channels. */
static int8_t *pack_panel(const struct mpqc_linear *l, const struct mpqc_columns *c,
                          const int8_t *w, int64_t g, int64_t channel, int8_t *to)
{
    int64_t lanes = mpqc_columns_lanes(c), oc = l->groups * l->ocg;
    for (int64_t r = 0; r < l->n_outer * l->n_inner; r++) {
        for (int64_t k = 0; k < l->k4; k++) {
            for (int64_t lane = 0; lane < lanes; lane++) {
                for (int64_t i = 4 * k; i < 4 * k + 4; i++, to++) {
                    if (i >= l->run || lane >= c->valid) continue;
                    *to = w[(r * l->run + i) * oc + g * l->ocg + channel + lane];
                }
            }
        }
    }
    return to;
}

int8_t *mpqc_pack_weights(struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                          const struct mpqc_panels *p, size_t *bytes)
{
    *bytes = (size_t)(l->groups * mpqc_group_bytes(l, p));
    int8_t *packed = MPQC_NEW_ARRAY(&e->scratch, int8_t, *bytes), *to = packed;
    if (!packed) return NULL;
    for (int64_t g = 0; g < l->groups; g++) {
        int64_t channel = 0;
        for (int64_t i = 0; i < p->n_full; i++, channel += p->full.valid)
            to = pack_panel(l, &p->full, l->w, g, channel, to);
        for (unsigned r = 0; r < p->n_rest; channel += p->rest[r++].valid)
            to = pack_panel(l, &p->rest[r], l->w, g, channel, to);
        MPQC_ASSERT(channel == l->ocg);
    }
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

int32_t *mpqc_linear_bias(struct mpqc_emit_cx *e, const struct mpqc_linear *l)
{
    const struct mpqc_quant *q = mpqc_value_at(e->graph, l->x)->type.quant;
    int32_t *sum = mpqc_weight_sums(e, l);
    int32_t offset = e->target->isa->x_offset - (q ? q->zero[0] : 0);
    for (int64_t c = 0; sum && c < l->groups * l->ocg; c++) {
        uint32_t b = l->bias ? (uint32_t)l->bias[c] : 0;
        sum[c] = (int32_t)((uint32_t)sum[c] * (uint32_t)offset + b);
    }
    return sum;
}
