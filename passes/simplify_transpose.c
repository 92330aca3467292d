/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * simplify: channels last.
 *
 * The importer writes transpose, conv, transpose for every convolution of a
 * channels-first network.  Transpositions sink: a node that reads one is put on
 * its input instead, and the transposition behind it, until it meets its inverse
 * or an output.  A node moves above a transposition, never below one; an operand
 * that would get a new one for it is allowed only where that is no loss (see
 * worth_sinking), and then not more often than a transposition vanishes.
 *
 * What a transposition of perm p does: y.dims[i] = x.dims[p[i]].
 */
#include "passes/simplify.h"

#define LOOKAHEAD 8 /* nodes between a result and the transposition that undoes it */

/* ---- transposes alone ---- */

/* Removes a transpose, or turns it into a reshape. */
mpqc_status mpqc_sx_transpose_form(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const int64_t *perm = mpqc_attr_ints(n, MPQC_ATTR_PERM);
    const struct mpqc_node *inner = mpqc_sx_def(s, n->in[0], MPQC_OP_TRANSPOSE);
    uint32_t rank = mpqc_sx_type(s, n->in[0])->rank;
    int64_t composed[MPQC_MAX_RANK];
    mpqc_vid x = n->in[0], out;
    if (inner) {
        const int64_t *first = mpqc_attr_ints(inner, MPQC_ATTR_PERM);
        for (uint32_t i = 0; i < rank; i++) composed[i] = first[perm[i]];
        x = inner->in[0];
    } else {
        if (!mpqc_sx_moves_units(mpqc_sx_type(s, x), perm)) return MPQC_OK;
        memcpy(composed, perm, rank * sizeof *perm);
    }
    MPQC_TRY(mpqc_sx_transpose(s, x, composed, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* x [..., g * c] seen as [..., g, c], then with the two swapped side by side: the
 * transpose gets one axis less.  Whatever reshape follows stays right, because the
 * elements come in the same order. */
mpqc_status mpqc_sx_channel_shuffle(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_node *r = mpqc_sx_def(s, n->in[0], MPQC_OP_RESHAPE);
    const struct mpqc_type z = *mpqc_sx_type(s, n->in[0]), y = *mpqc_sx_type(s, n->out[0]);
    const int64_t *perm = mpqc_attr_ints(n, MPQC_ATTR_PERM);
    const int64_t ig = (int64_t)z.rank - 2, ic = (int64_t)z.rank - 1;
    int64_t dims[MPQC_MAX_RANK], shorter[MPQC_MAX_RANK];
    uint32_t k = 0, m = 0;
    if (!r || z.rank < 3 || z.dims[ig] == 1 || z.dims[ic] == 1) return MPQC_OK;
    const struct mpqc_type *x = mpqc_sx_type(s, r->in[0]);
    if (x->rank == 0 || x->dims[x->rank - 1] != z.dims[ig] * z.dims[ic]) return MPQC_OK;
    while (k < z.rank && perm[k] != ic) k++;
    if (k + 1 >= z.rank || perm[k + 1] != ig) return MPQC_OK;
    for (uint32_t i = 0; i < z.rank; i++)
        if (i != k + 1) shorter[m++] = perm[i] == ic ? ig : perm[i];
    memcpy(dims, z.dims, sizeof dims);
    dims[ig] = z.dims[ig] * z.dims[ic];
    struct mpqc_attrs a = {0};
    mpqc_vid v;
    mpqc_attrs_int(&a, MPQC_ATTR_GROUP, z.dims[ig]);
    MPQC_TRY(mpqc_sx_add1(s, MPQC_OP_CHANNEL_SHUFFLE, r->in[0], &a, n->loc, &v));
    MPQC_TRY(mpqc_sx_reshape(s, v, z.rank - 1, dims, n->loc, &v));
    MPQC_TRY(mpqc_sx_transpose(s, v, shorter, n->loc, &v));
    MPQC_TRY(mpqc_sx_reshape(s, v, y.rank, y.dims, n->loc, &v));
    mpqc_sx_done(s, n->out[0], v, done);
    return MPQC_OK;
}

/* ---- helpers of the sinking rules ---- */

/* Would the transposition of `inner` by perm stay what it was before: a reshape if it
 * was one? */
static bool stays_free(const struct mpqc_sx *s, mpqc_vid old, const struct mpqc_type *inner,
                       const int64_t *perm)
{
    return mpqc_sx_def(s, old, MPQC_OP_TRANSPOSE) || mpqc_sx_moves_units(inner, perm);
}

/* The type that result y has before it is transposed by perm. */
static struct mpqc_type before(const struct mpqc_type *y, const int64_t *perm)
{
    struct mpqc_type t = *y;
    for (uint32_t i = 0; i < y->rank; i++) t.dims[perm[i]] = y->dims[i];
    return t;
}

/* inner, transposed by perm, becomes the result of n. */
static mpqc_status finish(struct mpqc_sx *s, const struct mpqc_node *n, mpqc_vid inner,
                          const int64_t *perm, struct mpqc_loc loc, bool *done)
{
    mpqc_vid out;
    MPQC_TRY(mpqc_sx_transpose(s, inner, perm, loc, &out));
    mpqc_sx_sunk(s, n->out[0], inner, out, done);
    return MPQC_OK;
}

/* Moves a node above a transposition. */
mpqc_status mpqc_sx_sink_unary(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    if (!(mpqc_ops[n->op].traits & MPQC_T_ELEMENTWISE)) return MPQC_OK;
    const struct mpqc_node *t = mpqc_sx_def(s, n->in[0], MPQC_OP_TRANSPOSE);
    if (!t) return MPQC_OK;
    const int64_t *perm = mpqc_attr_ints(t, MPQC_ATTR_PERM);
    struct mpqc_loc loc = t->loc;
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    mpqc_vid inner;
    MPQC_TRY(mpqc_sx_add1(s, n->op, t->in[0], &a, n->loc, &inner));
    return finish(s, n, inner, perm, loc, done);
}

/* Is every use of v a transposition by perm, maybe behind unary operators? */
static bool undone_by_users(const struct mpqc_sx *s, mpqc_vid v, const int64_t *perm, int depth)
{
    uint32_t rank = mpqc_sx_type(s, v)->rank;
    if (depth == 0 || mpqc_sx_is_output(s, v)) return false;
    for (mpqc_nid i = 0; i < s->g->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(s->g, i);
        for (uint32_t k = 0; !n->dead && k < n->n_in; k++) {
            if (n->in[k] != v) continue;
            if (n->op == MPQC_OP_TRANSPOSE) {
                const int64_t *p = mpqc_attr_ints(n, MPQC_ATTR_PERM);
                if (memcmp(p, perm, rank * sizeof *p) != 0) return false;
            } else if (!(mpqc_ops[n->op].traits & MPQC_T_ELEMENTWISE) ||
                       !undone_by_users(s, n->out[0], perm, depth - 1)) {
                return false;
            }
        }
    }
    return true;
}

/* Is x transposed by perm somewhere already? */
static bool exists(const struct mpqc_sx *s, mpqc_vid x, const int64_t *perm)
{
    uint32_t rank = mpqc_sx_type(s, x)->rank;
    for (mpqc_nid i = 0; i < s->g->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(s->g, i);
        if (n->dead || n->op != MPQC_OP_TRANSPOSE || n->in[0] != x) continue;
        if (memcmp(mpqc_attr_ints(n, MPQC_ATTR_PERM), perm, rank * sizeof *perm) == 0)
            return true;
    }
    return false;
}

/* An operand of lower rank gets extents of one in front. */
static struct mpqc_type widened(const struct mpqc_type *t, uint32_t rank)
{
    int64_t dims[MPQC_MAX_RANK];
    for (uint32_t i = 0; i < rank; i++)
        dims[i] = i + t->rank < rank ? 1 : t->dims[i + t->rank - rank];
    return mpqc_type_make(t->dtype, rank, dims);
}

/* What it takes to read an operand as it was before a transposition. */
struct cost {
    uint32_t given_up; /* transposes that nobody needs any more */
    uint32_t needed;   /* new transposes */
    struct mpqc_sx_level level;
};

static void raise_level(struct cost *c, struct mpqc_sx_level l, uint32_t transposes,
                        uint32_t reshapes)
{
    if (l.transposes + transposes > c->level.transposes)
        c->level.transposes = l.transposes + transposes;
    if (l.reshapes + reshapes > c->level.reshapes) c->level.reshapes = l.reshapes + reshapes;
}

/* Adds what operand v costs.  A constant costs nothing; one that has been transposed
 * by perm becomes what it was; where only extents of one move, a reshape does it,
 * which merges with a reshape that is there; the same transposition may exist already. */
static void add_cost(const struct mpqc_sx *s, mpqc_vid v, uint32_t rank, const int64_t *perm,
                     struct cost *c)
{
    int64_t inverse[MPQC_MAX_RANK], p[MPQC_MAX_RANK];
    mpqc_vid x;
    struct mpqc_type wide = widened(mpqc_sx_type(s, v), rank);
    bool same_rank = mpqc_sx_type(s, v)->rank == rank;
    if (mpqc_is_const(s->g, v)) return;
    mpqc_sx_inverse(rank, perm, inverse);
    if (same_rank && mpqc_sx_transposed(s, v, p, &x) && memcmp(p, perm, rank * sizeof *p) == 0) {
        c->given_up += mpqc_sx_def(s, v, MPQC_OP_TRANSPOSE) && s->uses[v] == 1;
        raise_level(c, s->level[x], 0, 0);
    } else if (mpqc_sx_moves_units(&wide, inverse)) {
        bool free = mpqc_sx_def(s, v, MPQC_OP_RESHAPE) || mpqc_type_count(&wide) == 1;
        raise_level(c, s->level[v], 0, free ? 0 : 1);
    } else {
        c->needed += !same_rank || !exists(s, v, inverse);
        raise_level(c, s->level[v], 1, 0);
    }
}

/* The operand as it was before perm. */
static mpqc_status untranspose(struct mpqc_sx *s, mpqc_vid v, uint32_t rank, const int64_t *perm,
                               struct mpqc_loc loc, mpqc_vid *out)
{
    int64_t inverse[MPQC_MAX_RANK], p[MPQC_MAX_RANK];
    mpqc_vid x;
    struct mpqc_type wide = widened(mpqc_sx_type(s, v), rank);
    if (mpqc_sx_transposed(s, v, p, &x) && mpqc_sx_type(s, v)->rank == rank &&
        memcmp(p, perm, rank * sizeof *p) == 0) {
        *out = x;
        return MPQC_OK;
    }
    mpqc_sx_inverse(rank, perm, inverse);
    MPQC_TRY(mpqc_sx_reshape(s, v, rank, wide.dims, loc, out));
    return mpqc_sx_transpose(s, *out, inverse, loc, out);
}

/* Can n be moved above the transposition perm of one of its operands, `by`?  Yes, if
 * it gets a lower level for it; new transposes must be outweighed by those given up:
 * one is left behind n, unless all users undo it. */
static bool worth_sinking(const struct mpqc_sx *s, const struct mpqc_node *n, mpqc_vid by,
                          const int64_t *perm)
{
    const struct mpqc_type *y = mpqc_sx_type(s, n->out[0]);
    const struct mpqc_sx_level *now = &s->level[n->out[0]];
    struct mpqc_type inner = before(y, perm);
    int64_t inverse[MPQC_MAX_RANK];
    struct cost c = {0};
    if (!stays_free(s, by, &inner, perm)) return false;
    for (uint32_t i = 0; i < n->n_in; i++) add_cost(s, n->in[i], y->rank, perm, &c);
    bool lower = c.level.transposes < now->transposes ||
                 (c.level.transposes == now->transposes && c.level.reshapes < now->reshapes);
    if (c.needed == 0) return lower;
    if (c.given_up > c.needed + 1) return c.level.transposes <= now->transposes;
    mpqc_sx_inverse(y->rank, perm, inverse);
    return c.given_up >= c.needed && undone_by_users(s, n->out[0], inverse, LOOKAHEAD);
}

/* The first operand of n's rank that is a transposition past which n may move. */
static bool find_transposition(const struct mpqc_sx *s, const struct mpqc_node *n, int64_t *perm,
                               struct mpqc_loc *loc)
{
    uint32_t rank = mpqc_sx_type(s, n->out[0])->rank;
    mpqc_vid x;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == MPQC_NONE || mpqc_sx_type(s, n->in[i])->rank != rank) continue;
        if (!mpqc_sx_transposed(s, n->in[i], perm, &x)) continue;
        if (!worth_sinking(s, n, n->in[i], perm)) continue;
        *loc = mpqc_def(s->g, n->in[i])->loc;
        return true;
    }
    return false;
}

/* Moves a node above a transposition. */
mpqc_status mpqc_sx_sink_broadcast(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    int64_t perm[MPQC_MAX_RANK];
    uint32_t rank = mpqc_sx_type(s, n->out[0])->rank;
    struct mpqc_loc loc;
    mpqc_vid in[3], inner;
    if (!(mpqc_ops[n->op].traits & MPQC_T_BINARY) && n->op != MPQC_OP_WHERE) return MPQC_OK;
    if (!find_transposition(s, n, perm, &loc)) return MPQC_OK;
    for (uint32_t i = 0; i < n->n_in; i++)
        MPQC_TRY(untranspose(s, n->in[i], rank, perm, loc, &in[i]));
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    MPQC_TRY(mpqc_sx_add(s, n->op, in, n->n_in, &a, n->loc, &inner));
    return finish(s, n, inner, perm, loc, done);
}

/* Moves a node above a transposition. */
mpqc_status mpqc_sx_sink_concat(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    int64_t perm[MPQC_MAX_RANK];
    uint32_t rank = mpqc_sx_type(s, n->out[0])->rank;
    struct mpqc_loc loc;
    mpqc_vid in[MPQC_MAX_INPUTS], inner;
    struct mpqc_attrs a = {0};
    if (!find_transposition(s, n, perm, &loc)) return MPQC_OK;
    for (uint32_t i = 0; i < n->n_in; i++)
        MPQC_TRY(untranspose(s, n->in[i], rank, perm, loc, &in[i]));
    mpqc_attrs_int(&a, MPQC_ATTR_AXIS, perm[mpqc_attr_int(n, MPQC_ATTR_AXIS)]);
    MPQC_TRY(mpqc_sx_add(s, MPQC_OP_CONCAT, in, n->n_in, &a, n->loc, &inner));
    return finish(s, n, inner, perm, loc, done);
}

/* ---- operators with attributes by axis ---- */

/* Entry i of a list becomes entry perm[i]; lists of 2 * rank are two lists. */
static void remap_list(struct mpqc_attr *a, uint32_t rank, const int64_t *perm, int64_t *to)
{
    for (uint32_t half = 0; half < a->count; half += rank)
        for (uint32_t i = 0; i < rank; i++) to[half + perm[i]] = a->ints[half + i];
    a->ints = to;
}

static void remap_axes(struct mpqc_attr *a, const int64_t *perm, int64_t *to)
{
    for (uint32_t i = 0; i < a->count; i++) to[i] = perm[a->ints[i]];
    a->ints = to;
}

/* The attributes of n as they are before perm.  lists: room for three of them. */
static void remap(struct mpqc_attrs *attrs, uint32_t rank, const int64_t *perm,
                  int64_t lists[][2 * MPQC_MAX_RANK])
{
    for (uint32_t i = 0, k = 0; i < attrs->n; i++) {
        struct mpqc_attr *a = &attrs->a[i];
        switch (a->key) {
        case MPQC_ATTR_AXIS: a->i = perm[a->i]; break;
        case MPQC_ATTR_AXES: remap_axes(a, perm, lists[k++]); break;
        case MPQC_ATTR_BEGIN:
        case MPQC_ATTR_SHAPE:
        case MPQC_ATTR_STEP:
        case MPQC_ATTR_PADS: remap_list(a, rank, perm, lists[k++]); break;
        default: break;
        }
    }
}

/* softmax along the last axis is the fast one: it is not given up for another. */
static bool has_axes(const struct mpqc_node *n, uint32_t rank, const int64_t *perm)
{
    int64_t axis, last = (int64_t)rank - 1;
    switch (n->op) {
    case MPQC_OP_SLICE:
    case MPQC_OP_PAD:
    case MPQC_OP_EXPAND:
    case MPQC_OP_REDUCE_MEAN:
    case MPQC_OP_REDUCE_SUM:
    case MPQC_OP_REDUCE_MAX:
    case MPQC_OP_REDUCE_MIN:
    case MPQC_OP_REDUCE_PROD: return true;
    case MPQC_OP_SOFTMAX:
        axis = mpqc_attr_int(n, MPQC_ATTR_AXIS);
        return n->n_in == 1 && (axis != last || perm[axis] == last);
    default: return false;
    }
}

/* Moves a node above a transposition. */
mpqc_status mpqc_sx_sink_axes(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    int64_t perm[MPQC_MAX_RANK], lists[3][2 * MPQC_MAX_RANK];
    const struct mpqc_type y = *mpqc_sx_type(s, n->out[0]);
    mpqc_vid x, inner;
    if (n->n_in == 0 || !mpqc_sx_transposed(s, n->in[0], perm, &x)) return MPQC_OK;
    if (!has_axes(n, y.rank, perm) || mpqc_sx_type(s, n->in[0])->rank != y.rank) return MPQC_OK;
    struct mpqc_type t = before(&y, perm);
    if (!stays_free(s, n->in[0], &t, perm)) return MPQC_OK;
    struct mpqc_loc loc = mpqc_def(s->g, n->in[0])->loc;
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    remap(&a, y.rank, perm, lists);
    MPQC_TRY(mpqc_sx_add1(s, n->op, x, &a, n->loc, &inner));
    return finish(s, n, inner, perm, loc, done);
}

/* Moves a node above a transposition that leaves the last axis alone. */
mpqc_status mpqc_sx_sink_last_axis(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    if (n->op != MPQC_OP_BATCHNORM && n->op != MPQC_OP_CHANNEL_SHUFFLE) return MPQC_OK;
    const struct mpqc_node *t = mpqc_sx_def(s, n->in[0], MPQC_OP_TRANSPOSE);
    if (!t) return MPQC_OK;
    const int64_t *perm = mpqc_attr_ints(t, MPQC_ATTR_PERM);
    uint32_t last = mpqc_sx_type(s, n->in[0])->rank - 1;
    if (perm[last] != last) return MPQC_OK;
    struct mpqc_loc loc = t->loc;
    struct mpqc_attrs a = mpqc_sx_attrs(n);
    mpqc_vid in[5], inner;
    memcpy(in, n->in, n->n_in * sizeof *in);
    in[0] = t->in[0];
    MPQC_TRY(mpqc_sx_add(s, n->op, in, n->n_in, &a, n->loc, &inner));
    return finish(s, n, inner, perm, loc, done);
}

/* Moves a matrix product with a plain matrix above a transposition of the rows. */
mpqc_status mpqc_sx_sink_matmul(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_node *t = mpqc_sx_def(s, n->in[0], MPQC_OP_TRANSPOSE);
    if (!t || mpqc_sx_type(s, n->in[1])->rank != 2) return MPQC_OK;
    const int64_t *perm = mpqc_attr_ints(t, MPQC_ATTR_PERM);
    uint32_t last = mpqc_sx_type(s, n->in[0])->rank - 1;
    if (perm[last] != last) return MPQC_OK;
    struct mpqc_loc loc = t->loc;
    mpqc_vid in[3], inner;
    memcpy(in, n->in, n->n_in * sizeof *in);
    in[0] = t->in[0];
    MPQC_TRY(mpqc_sx_add(s, n->op, in, n->n_in, NULL, n->loc, &inner));
    return finish(s, n, inner, perm, loc, done);
}
