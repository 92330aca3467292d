/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * simplify: transpositions against reshapes.
 *
 * A reshape is seen as groups: shortest runs of axes before and after with equal
 * products.  Where the axes of each group lie side by side, in order, before the
 * transposition as well, the reshape can be done first, and whole groups are
 * transposed afterwards.
 */
#include "passes/simplify.h"

struct group {
    uint32_t from, from_end; /* axes of the reshape's input, which is transposed */
    uint32_t to, to_end;     /* axes of its result */
    int64_t anchor;          /* where it lies before the transposition */
};

struct grouping {
    uint32_t n;
    struct group at[MPQC_MAX_RANK];
};

/* Extents of one left over go to the group before. */
static bool make_groups(const struct mpqc_type *from, const struct mpqc_type *to,
                        struct grouping *gs)
{
    uint32_t i = 0, j = 0;
    gs->n = 0;
    while (i < from->rank && j < to->rank) {
        struct group g = {.from = i, .to = j};
        int64_t a = from->dims[i++], b = to->dims[j++];
        while (a != b) {
            if (a < b && i < from->rank) a *= from->dims[i++];
            else if (b < a && j < to->rank) b *= to->dims[j++];
            else return false;
        }
        g.from_end = i;
        g.to_end = j;
        if (a == 1 && gs->n) {
            gs->at[gs->n - 1].from_end = i;
            gs->at[gs->n - 1].to_end = j;
        } else {
            gs->at[gs->n++] = g;
        }
    }
    if (gs->n == 0) return false;
    gs->at[gs->n - 1].from_end = from->rank;
    gs->at[gs->n - 1].to_end = to->rank;
    return true;
}

/* Finds where the group lies in x, the value before the transposition; false when
 * its axes are not neighbours in order there (extents of one do not count). */
static bool anchor_group(struct group *g, const struct mpqc_type *x, const int64_t *perm)
{
    int64_t last = -1;
    g->anchor = -1;
    for (uint32_t i = g->from; i < g->from_end; i++) {
        if (x->dims[perm[i]] == 1) continue;
        if (g->anchor < 0) {
            g->anchor = perm[i];
        } else {
            if (perm[i] <= last) return false;
            for (int64_t k = last + 1; k < perm[i]; k++)
                if (x->dims[k] != 1) return false;
        }
        last = perm[i];
    }
    if (g->anchor < 0) g->anchor = g->from < g->from_end ? perm[g->from] : (int64_t)x->rank;
    return true;
}

/* Moves a reshape above a transposition. */
mpqc_status mpqc_sx_sink_through_reshape(struct mpqc_sx *s, const struct mpqc_node *n, bool *done)
{
    const struct mpqc_node *t = mpqc_sx_def(s, n->in[0], MPQC_OP_TRANSPOSE);
    const struct mpqc_type y = *mpqc_sx_type(s, n->out[0]);
    struct grouping gs;
    int64_t dims[MPQC_MAX_RANK], perm[MPQC_MAX_RANK];
    if (!t || mpqc_type_count(&y) == 0) return MPQC_OK;
    if (!make_groups(mpqc_sx_type(s, n->in[0]), &y, &gs)) return MPQC_OK;
    for (uint32_t i = 0; i < gs.n; i++)
        if (!anchor_group(&gs.at[i], mpqc_sx_type(s, t->in[0]),
                          mpqc_attr_ints(t, MPQC_ATTR_PERM)))
            return MPQC_OK;
    uint32_t at = 0;
    for (int64_t anchor = 0; anchor <= MPQC_MAX_RANK; anchor++) {
        for (uint32_t i = 0; i < gs.n; i++) {
            if (gs.at[i].anchor != anchor) continue;
            for (uint32_t j = gs.at[i].to; j < gs.at[i].to_end; j++) {
                perm[j] = at;
                dims[at++] = y.dims[j];
            }
        }
    }
    MPQC_ASSERT(at == y.rank);
    struct mpqc_loc loc = t->loc;
    mpqc_vid inner, out;
    MPQC_TRY(mpqc_sx_reshape(s, t->in[0], y.rank, dims, n->loc, &inner));
    MPQC_TRY(mpqc_sx_transpose(s, inner, perm, loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}

/* ---- flatten, then a matrix product ---- */

/* The rows of w, which come in the order of dims transposed by perm, in the order of
 * dims; `first` axes are left out of both. */
static mpqc_status permute_rows(struct mpqc_sx *s, mpqc_vid w, const struct mpqc_type *x,
                                uint32_t first, const int64_t *perm, mpqc_vid *out)
{
    const struct mpqc_type t = *mpqc_sx_type(s, w);
    const float *old = mpqc_sx_f32(s, w);
    size_t cols = (size_t)t.dims[1], count = (size_t)mpqc_type_count(&t);
    int64_t stride[MPQC_MAX_RANK], index[MPQC_MAX_RANK] = {0}, step = 1;
    float *new = MPQC_NEW_ARRAY(&s->g->arena, float, count);
    if (!new) return MPQC_OOM(s->cx);
    /* stride[a]: how far apart, in old rows, neighbours along axis a of x are. */
    for (uint32_t i = x->rank; i-- > first;) {
        stride[perm[i]] = step;
        step *= x->dims[perm[i]];
    }
    for (int64_t row = 0; row < t.dims[0]; row++) {
        int64_t from = 0;
        for (uint32_t a = first; a < x->rank; a++) from += index[a] * stride[a];
        memcpy(new + (size_t)row * cols, old + (size_t)from * cols, cols * sizeof *new);
        for (uint32_t a = x->rank; a-- > first && ++index[a] == x->dims[a];) index[a] = 0;
    }
    return mpqc_sx_const(s, 2, t.dims, new, true, out);
}

/* Removes a transpose: the rows of the weights are put in another order instead. */
mpqc_status mpqc_sx_transpose_into_weights(struct mpqc_sx *s, const struct mpqc_node *n,
                                           bool *done)
{
    const struct mpqc_node *r = mpqc_sx_def(s, n->in[0], MPQC_OP_RESHAPE);
    const struct mpqc_node *t = r ? mpqc_sx_def(s, r->in[0], MPQC_OP_TRANSPOSE) : NULL;
    const struct mpqc_type flat = *mpqc_sx_type(s, n->in[0]);
    if (!t || !mpqc_sx_f32(s, n->in[1]) || mpqc_sx_type(s, n->in[1])->rank != 2) return MPQC_OK;
    const struct mpqc_type y = *mpqc_sx_type(s, r->in[0]), x = *mpqc_sx_type(s, t->in[0]);
    const int64_t *perm = mpqc_attr_ints(t, MPQC_ATTR_PERM);
    int64_t rows = 1, want = 1;
    uint32_t first = 0;
    if (mpqc_type_count(&y) == 0) return MPQC_OK;
    for (uint32_t i = 0; i + 1 < flat.rank; i++) want *= flat.dims[i];
    /* The axes that stay rows, and must stay where they are. */
    while (first < y.rank && (rows < want || (perm[first] == first && y.dims[first] == 1)))
        rows *= y.dims[first++];
    if (rows != want) return MPQC_OK;
    for (uint32_t i = 0; i < first; i++)
        if (perm[i] != i) return MPQC_OK;
    struct mpqc_loc loc = r->loc;
    mpqc_vid in[3], out;
    memcpy(in, n->in, n->n_in * sizeof *in);
    mpqc_vid source = t->in[0];
    MPQC_TRY(permute_rows(s, n->in[1], &x, first, perm, &in[1]));
    MPQC_TRY(mpqc_sx_reshape(s, source, flat.rank, flat.dims, loc, &in[0]));
    MPQC_TRY(mpqc_sx_add(s, MPQC_OP_MATMUL, in, n->n_in, NULL, n->loc, &out));
    mpqc_sx_done(s, n->out[0], out, done);
    return MPQC_OK;
}
