/* SPDX-License-Identifier: GPL-3.0-or-later
 * Expressions with sharing; the table is keyed by the content of nodes.
 */
#include "ir/build.h"

#include <string.h>

/* ---- the table of nodes ------------------------------------------------------- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h ^= v;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* Attributes by key and first number only: equality looks at the rest. */
static uint64_t hash_node(const struct mpqc_node *n)
{
    uint64_t h = mix(n->op, n->n_in);
    for (uint32_t i = 0; i < n->n_in; i++) h = mix(h, n->in[i]);
    for (uint32_t i = 0; i < n->n_attr; i++) {
        const struct mpqc_attr *a = &n->attr[i];
        h = mix(h, a->key);
        h = mix(h, (uint64_t)(mpqc_attr_kinds[a->key] == MPQC_AK_INTS && a->count ? a->ints[0]
                                                                                  : a->i));
    }
    return h;
}

static bool same_node(const struct mpqc_node *a, const struct mpqc_node *b)
{
    if (a->op != b->op || a->n_in != b->n_in || a->n_attr != b->n_attr) return false;
    for (uint32_t i = 0; i < a->n_in; i++)
        if (a->in[i] != b->in[i]) return false;
    for (uint32_t i = 0; i < a->n_attr; i++)
        if (!mpqc_attr_equal(&a->attr[i], &b->attr[i])) return false;
    return true;
}

/* The slot of a node like n, or a free one. */
static uint32_t slot_of(const struct mpqc_build *b, const struct mpqc_node *n)
{
    uint32_t i = (uint32_t)hash_node(n) & (b->cap - 1);
    while (b->table[i] != MPQC_NONE && !same_node(&b->g->nodes[b->table[i]], n))
        i = (i + 1) & (b->cap - 1);
    return i;
}

static bool grow_table(struct mpqc_build *b)
{
    mpqc_nid *old = b->table;
    uint32_t n = b->cap, cap = n ? n * 2 : 256;
    mpqc_nid *table = MPQC_NEW_ARRAY(&b->scratch, mpqc_nid, cap);
    if (!table) return false;
    for (uint32_t i = 0; i < cap; i++) table[i] = MPQC_NONE;
    b->table = table;
    b->cap = cap;
    for (uint32_t i = 0; i < n; i++) {
        if (old[i] != MPQC_NONE) table[slot_of(b, &b->g->nodes[old[i]])] = old[i];
    }
    return true;
}

static void enter(struct mpqc_build *b, mpqc_nid id)
{
    if (b->used * 2 >= b->cap && !grow_table(b)) {
        if (b->status == MPQC_OK) b->status = MPQC_OOM(b->cx);
        return;
    }
    uint32_t i = slot_of(b, &b->g->nodes[id]);
    if (b->table[i] != MPQC_NONE) return;
    b->table[i] = id;
    b->used++;
}

void mpqc_build_init(struct mpqc_build *b, struct mpqc_cx *cx, struct mpqc_graph *g)
{
    memset(b, 0, sizeof *b);
    b->cx = cx;
    b->g = g;
    b->first_value = g->n_values;
    b->loc = (struct mpqc_loc){.node = "derivative", .op = "Derivative", .offset = -1};
    mpqc_arena_init(&b->scratch, cx->allocator);
    for (uint32_t i = 0; i < g->n_order; i++) enter(b, g->order[i]);
}

void mpqc_build_release(struct mpqc_build *b)
{
    mpqc_arena_release(&b->scratch);
}

/* ---- nodes ------------------------------------------------------------------------ */

/* A node on paper: enough of one to look it up.  `sorted` holds its attributes. */
static struct mpqc_node paper_node(enum mpqc_op op, const mpqc_vid *in, uint32_t n_in,
                                   const struct mpqc_attrs *attrs, struct mpqc_attrs *sorted)
{
    sorted->n = 0;
    for (uint32_t i = 0; attrs && i < attrs->n; i++) {
        uint32_t at = sorted->n++;
        for (; at > 0 && sorted->a[at - 1].key > attrs->a[i].key; at--)
            sorted->a[at] = sorted->a[at - 1];
        sorted->a[at] = attrs->a[i];
    }
    return (struct mpqc_node){.op = op,
                              .n_in = n_in,
                              .in = (mpqc_vid *)(uintptr_t)in, /* only read */
                              .attr = sorted->a,
                              .n_attr = sorted->n};
}

mpqc_vid mpqc_build_find(struct mpqc_build *b, enum mpqc_op op, const mpqc_vid *in, uint32_t n_in,
                         const struct mpqc_attrs *attrs)
{
    if (b->status != MPQC_OK || b->cap == 0) return MPQC_NONE;
    struct mpqc_attrs sorted;
    struct mpqc_node paper = paper_node(op, in, n_in, attrs, &sorted);
    mpqc_nid id = b->table[slot_of(b, &paper)];
    return id == MPQC_NONE ? MPQC_NONE : b->g->nodes[id].out[0];
}

/* Only what the builder's own constants make: an expression of a network's weights has
 * derivatives by them.  Results much larger than what they are made of are left alone. */
static bool may_fold(const struct mpqc_build *b, enum mpqc_op op, const mpqc_vid *in,
                     uint32_t n_in)
{
    for (uint32_t i = 0; i < n_in; i++) {
        if (in[i] != MPQC_NONE && in[i] < b->first_value) return false;
    }
    return op != MPQC_OP_EXPAND;
}

mpqc_vid mpqc_build_op(struct mpqc_build *b, enum mpqc_op op, const mpqc_vid *in, uint32_t n_in,
                       const struct mpqc_attrs *attrs)
{
    mpqc_vid out = mpqc_build_find(b, op, in, n_in, attrs);
    if (out != MPQC_NONE || b->status != MPQC_OK) return out;
    b->status = may_fold(b, op, in, n_in)
                    ? mpqc_node_fold(b->cx, b->g, op, in, n_in, attrs, b->loc, &out)
                    : mpqc_node_add(b->cx, b->g, op, in, n_in, attrs, b->loc, &out);
    if (b->status != MPQC_OK) return MPQC_NONE;
    if (b->g->values[out].def != MPQC_NONE) enter(b, b->g->values[out].def);
    return out;
}

mpqc_vid mpqc_build_1(struct mpqc_build *b, enum mpqc_op op, mpqc_vid x)
{
    return mpqc_build_op(b, op, &x, 1, NULL);
}

mpqc_vid mpqc_build_2(struct mpqc_build *b, enum mpqc_op op, mpqc_vid x, mpqc_vid y)
{
    const mpqc_vid in[] = {x, y};
    return mpqc_build_op(b, op, in, 2, NULL);
}

mpqc_vid mpqc_build_3(struct mpqc_build *b, enum mpqc_op op, mpqc_vid x, mpqc_vid y, mpqc_vid z)
{
    const mpqc_vid in[] = {x, y, z};
    return mpqc_build_op(b, op, in, 3, NULL);
}

/* ---- constants ---------------------------------------------------------------------- */

static bool reserve_scalar(struct mpqc_build *b)
{
    if (b->n_scalars < b->cap_scalars) return true;
    uint32_t cap = b->cap_scalars ? b->cap_scalars * 2 : 16;
    mpqc_vid *list = MPQC_NEW_ARRAY(&b->scratch, mpqc_vid, cap);
    if (!list) return false;
    if (b->n_scalars) memcpy(list, b->scalars, b->n_scalars * sizeof *list);
    b->scalars = list;
    b->cap_scalars = cap;
    return true;
}

mpqc_vid mpqc_build_scalar(struct mpqc_build *b, float v)
{
    if (b->status != MPQC_OK) return MPQC_NONE;
    for (uint32_t i = 0; i < b->n_scalars; i++) {
        if (memcmp(b->g->values[b->scalars[i]].data, &v, sizeof v) == 0) return b->scalars[i];
    }
    mpqc_vid c = reserve_scalar(b) ? mpqc_graph_const_f32(b->g, 0, NULL, &v) : MPQC_NONE;
    if (c == MPQC_NONE) b->status = MPQC_OOM(b->cx);
    else b->scalars[b->n_scalars++] = c;
    return c;
}

mpqc_vid mpqc_build_zeros(struct mpqc_build *b, struct mpqc_type t)
{
    return mpqc_build_expand(b, mpqc_build_scalar(b, 0.0f), &t);
}

/* Is v a scalar of this builder with the value c? */
static bool is_scalar(const struct mpqc_build *b, mpqc_vid v, float c)
{
    if (!mpqc_is_const(b->g, v)) return false;
    const struct mpqc_value *value = &b->g->values[v];
    return value->type.dtype == MPQC_DT_F32 && mpqc_type_count(&value->type) == 1 &&
           *(const float *)value->data == c;
}

/* ---- expressions ---------------------------------------------------------------------- */

struct mpqc_type mpqc_build_type(const struct mpqc_build *b, mpqc_vid v)
{
    if (v == MPQC_NONE) return (struct mpqc_type){.dtype = MPQC_DT_F32};
    return b->g->values[v].type;
}

mpqc_vid mpqc_build_add(struct mpqc_build *b, mpqc_vid x, mpqc_vid y)
{
    if (x == MPQC_NONE) return y;
    return y == MPQC_NONE ? x : mpqc_build_2(b, MPQC_OP_ADD, x, y);
}

mpqc_vid mpqc_build_mul(struct mpqc_build *b, mpqc_vid x, mpqc_vid y)
{
    if (b->status != MPQC_OK) return MPQC_NONE;
    /* 1 * x is x where it has the shape of the product. */
    if (is_scalar(b, x, 1.0f) && b->g->values[y].type.rank >= b->g->values[x].type.rank) return y;
    if (is_scalar(b, y, 1.0f) && b->g->values[x].type.rank >= b->g->values[y].type.rank) return x;
    return mpqc_build_2(b, MPQC_OP_MUL, x, y);
}

mpqc_vid mpqc_build_scale(struct mpqc_build *b, mpqc_vid x, float c)
{
    return c == 1.0f ? x : mpqc_build_mul(b, x, mpqc_build_scalar(b, c));
}

mpqc_vid mpqc_build_shift(struct mpqc_build *b, mpqc_vid x, float c)
{
    return mpqc_build_2(b, MPQC_OP_ADD, x, mpqc_build_scalar(b, c));
}

mpqc_vid mpqc_build_reshape(struct mpqc_build *b, mpqc_vid x, uint32_t rank, const int64_t *dims)
{
    if (b->status != MPQC_OK) return MPQC_NONE;
    struct mpqc_type t = mpqc_build_type(b, x), to = mpqc_type_make(MPQC_DT_F32, rank, dims);
    if (mpqc_type_same_shape(&t, &to)) return x;
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, rank, dims);
    return mpqc_build_op(b, MPQC_OP_RESHAPE, &x, 1, &a);
}

mpqc_vid mpqc_build_transpose(struct mpqc_build *b, mpqc_vid x, const int64_t *perm)
{
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_PERM, mpqc_build_type(b, x).rank, perm);
    return mpqc_build_op(b, MPQC_OP_TRANSPOSE, &x, 1, &a);
}

mpqc_vid mpqc_build_expand(struct mpqc_build *b, mpqc_vid x, const struct mpqc_type *to)
{
    struct mpqc_type t = mpqc_build_type(b, x);
    if (b->status != MPQC_OK || mpqc_type_same_shape(&t, to)) return x;
    if (mpqc_type_count(&t) == mpqc_type_count(to))
        return mpqc_build_reshape(b, x, to->rank, to->dims);
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, to->rank, to->dims);
    return mpqc_build_op(b, MPQC_OP_EXPAND, &x, 1, &a);
}

mpqc_vid mpqc_build_sum_to(struct mpqc_build *b, mpqc_vid x, const struct mpqc_type *to)
{
    struct mpqc_type t = mpqc_build_type(b, x);
    if (b->status != MPQC_OK || mpqc_type_same_shape(&t, to)) return x;
    int64_t axes[MPQC_MAX_RANK];
    struct mpqc_attrs a = {0};
    uint32_t n = 0, lead = t.rank - to->rank;
    for (uint32_t d = 0; d < t.rank; d++) {
        int64_t wanted = d < lead ? 1 : to->dims[d - lead];
        if (t.dims[d] != wanted) axes[n++] = d;
    }
    mpqc_attrs_ints(&a, MPQC_ATTR_AXES, n, axes);
    if (n > 0) x = mpqc_build_op(b, MPQC_OP_REDUCE_SUM, &x, 1, &a);
    return mpqc_build_reshape(b, x, to->rank, to->dims);
}

mpqc_vid mpqc_build_sum_axis(struct mpqc_build *b, mpqc_vid x, int64_t axis)
{
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_AXES, 1, &axis);
    return mpqc_build_op(b, MPQC_OP_REDUCE_SUM, &x, 1, &a);
}

struct mpqc_attrs mpqc_build_attrs(const struct mpqc_node *n, uint64_t leave_out)
{
    struct mpqc_attrs a = {0};
    for (uint32_t i = 0; i < n->n_attr; i++) {
        if (!(leave_out >> n->attr[i].key & 1)) a.a[a.n++] = n->attr[i];
    }
    return a;
}
