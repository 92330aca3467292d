/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights of few bits in groups: see struct mpqc_groups.  The integers of the tensor are
 * the products of codes and factors, so all that computes with weights need not know of
 * groups; only what stores them in few bits does.
 */
#include "ir/ir.h"

#include <stdlib.h>
#include <string.h>

int64_t mpqc_groups_count(const struct mpqc_type *t)
{
    int64_t size = t->quant && t->quant->groups ? t->quant->groups->size : 0;
    return size ? (t->dims[0] + size - 1) / size : 0;
}

unsigned mpqc_weight_bits(const struct mpqc_type *t)
{
    return t->quant && t->quant->groups ? t->quant->groups->bits : mpqc_dtypes[t->dtype].bits;
}

int mpqc_groups_most(unsigned bits)
{
    return 127 >> (bits - 1);
}

const struct mpqc_quant *mpqc_quant_groups(struct mpqc_graph *g, const struct mpqc_type *t,
                                           int64_t size, unsigned bits, const int8_t *factor)
{
    struct mpqc_quant *q = MPQC_NEW(&g->arena, struct mpqc_quant);
    struct mpqc_groups *groups = MPQC_NEW(&g->arena, struct mpqc_groups);
    size_t n = size > 0 ? (size_t)((t->dims[0] + size - 1) / size) : 0;
    if (!q || !groups || !mpqc_size_mul(n, t->quant->count, &n)) return NULL;
    *groups = (struct mpqc_groups){size, bits, mpqc_arena_copy(&g->arena, factor, n)};
    *q = *t->quant;
    q->groups = groups;
    return groups->factor ? q : NULL;
}

const char *mpqc_groups_problem(const struct mpqc_type *t)
{
    const struct mpqc_groups *g = t->quant->groups;
    if (t->dtype != MPQC_DT_I8 || t->rank != 2 || t->quant->axis != 1)
        return "only i8 tensors of two axes, with a scale per column, can be in groups";
    if (g->size < MPQC_GROUP_UNIT || g->size % MPQC_GROUP_UNIT != 0)
        return "the size of a group is not a multiple of 32";
    if (g->bits < MPQC_GROUP_LEAST_BITS || g->bits > MPQC_GROUP_MOST_BITS)
        return "codes in groups have 2 to 5 bits";
    for (int64_t i = 0; i < mpqc_groups_count(t) * t->dims[1]; i++)
        if (g->factor[i] == 0 || abs(g->factor[i]) > mpqc_groups_most(g->bits))
            return "a group's factor is 0, or its products with codes do not fit 8 bits";
    return NULL;
}

bool mpqc_groups_hold(const struct mpqc_type *t, const int8_t *data)
{
    const struct mpqc_groups *g = t->quant->groups;
    int half = 1 << (g->bits - 1);
    for (int64_t r = 0; r < t->dims[0]; r++) {
        const int8_t *factor = g->factor + r / g->size * t->dims[1];
        for (int64_t c = 0; c < t->dims[1]; c++) {
            int v = data[r * t->dims[1] + c], code = v / factor[c];
            if (code * factor[c] != v || code < -half || code >= half) return false;
        }
    }
    return true;
}

bool mpqc_groups_equal(const struct mpqc_type *a, const struct mpqc_type *b)
{
    const struct mpqc_groups *p = a->quant ? a->quant->groups : NULL;
    const struct mpqc_groups *r = b->quant ? b->quant->groups : NULL;
    if (p == r) return true;
    if (!p || !r || p->size != r->size || p->bits != r->bits) return false;
    size_t n = (size_t)mpqc_groups_count(a) * a->quant->count;
    return n == 0 || memcmp(p->factor, r->factor, n) == 0;
}
