/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * simplify: what rules ask about values and nodes.
 */
#include "passes/simplify.h"

#include <math.h>

const struct mpqc_type *mpqc_sx_type(const struct mpqc_sx *s, mpqc_vid v)
{
    return &s->g->values[v].type;
}

const struct mpqc_node *mpqc_sx_def(const struct mpqc_sx *s, mpqc_vid v, enum mpqc_op op)
{
    const struct mpqc_node *n = mpqc_def(s->g, v);
    return n && n->op == op ? n : NULL;
}

struct mpqc_attrs mpqc_sx_attrs(const struct mpqc_node *n)
{
    struct mpqc_attrs a = {0};
    for (uint32_t i = 0; i < n->n_attr && i < MPQC_MAX_ATTRS; i++) a.a[a.n++] = n->attr[i];
    return a;
}

void mpqc_sx_unset(struct mpqc_attrs *a, enum mpqc_attr_key key)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < a->n; i++)
        if (a->a[i].key != key) a->a[kept++] = a->a[i];
    a->n = kept;
}

void mpqc_sx_set_ints(struct mpqc_attrs *a, enum mpqc_attr_key key, uint32_t n,
                      const int64_t *ints)
{
    mpqc_sx_unset(a, key);
    mpqc_attrs_ints(a, key, n, ints);
}

/* ---- constants ---- */

const float *mpqc_sx_f32(const struct mpqc_sx *s, mpqc_vid v)
{
    if (!mpqc_is_const(s->g, v)) return NULL;
    const struct mpqc_value *value = mpqc_value_at(s->g, v);
    return value->type.dtype == MPQC_DT_F32 ? value->data : NULL;
}

bool mpqc_sx_scalar(const struct mpqc_sx *s, mpqc_vid v, float *value)
{
    const float *f = mpqc_sx_f32(s, v);
    if (!f || mpqc_type_count(mpqc_sx_type(s, v)) != 1) return false;
    *value = f[0];
    return true;
}

bool mpqc_sx_all(const struct mpqc_sx *s, mpqc_vid v, float value)
{
    const float *f = mpqc_sx_f32(s, v);
    if (!f) return false;
    int64_t n = mpqc_type_count(mpqc_sx_type(s, v));
    for (int64_t i = 0; i < n; i++)
        if (f[i] != value) return false;
    return true;
}

const float *mpqc_sx_channel(const struct mpqc_sx *s, mpqc_vid v, const struct mpqc_type *x,
                             int64_t *count)
{
    const float *f = mpqc_sx_f32(s, v);
    if (!f || x->rank == 0) return NULL;
    const struct mpqc_type *t = mpqc_sx_type(s, v);
    *count = mpqc_type_count(t);
    if (t->rank > x->rank) return NULL;
    if (*count == 1) return f;
    bool last = *count == x->dims[x->rank - 1] && t->dims[t->rank - 1] == *count;
    return last ? f : NULL;
}

bool mpqc_sx_near(float a, float b)
{
    return fabsf(a - b) <= 1e-5f * fmaxf(fabsf(a), fabsf(b));
}

/* ---- ranges ---- */

static struct mpqc_sx_range clipped(const struct mpqc_node *n, struct mpqc_sx_range r)
{
    float lo = n->op == MPQC_OP_RELU ? 0.0f : mpqc_attr_float_or(n, MPQC_ATTR_MIN, -INFINITY);
    float hi = n->op == MPQC_OP_RELU ? INFINITY : mpqc_attr_float_or(n, MPQC_ATTR_MAX, INFINITY);
    return (struct mpqc_sx_range){fminf(fmaxf(r.lo, lo), hi), fminf(fmaxf(r.hi, lo), hi)};
}

/* The hull of the ranges of all inputs. */
static struct mpqc_sx_range hull(const struct mpqc_sx *s, const struct mpqc_node *n, int depth)
{
    struct mpqc_sx_range r = mpqc_sx_range_of(s, n->in[0], depth);
    for (uint32_t i = 1; i < n->n_in; i++) {
        struct mpqc_sx_range other = mpqc_sx_range_of(s, n->in[i], depth);
        r.lo = fminf(r.lo, other.lo);
        r.hi = fmaxf(r.hi, other.hi);
    }
    return r;
}

/* Sums and products of what is not negative. */
static struct mpqc_sx_range binary_range(const struct mpqc_sx *s, const struct mpqc_node *n,
                                         int depth)
{
    struct mpqc_sx_range r = hull(s, n, depth);
    return (struct mpqc_sx_range){r.lo >= 0.0f ? 0.0f : -INFINITY, INFINITY};
}

static struct mpqc_sx_range with_zero(struct mpqc_sx_range r)
{
    return (struct mpqc_sx_range){fminf(r.lo, 0.0f), fmaxf(r.hi, 0.0f)};
}

/* Deep graphs are not followed for ever: beyond `depth` nothing is known. */
struct mpqc_sx_range mpqc_sx_range_of(const struct mpqc_sx *s, mpqc_vid v, int depth)
{
    const struct mpqc_sx_range any = {-INFINITY, INFINITY};
    const struct mpqc_node *n = mpqc_def(s->g, v);
    if (!n || depth == 0) return any;
    switch (n->op) {
    case MPQC_OP_RELU:
    case MPQC_OP_CLIP: return clipped(n, mpqc_sx_range_of(s, n->in[0], depth - 1));
    case MPQC_OP_SIGMOID:
    case MPQC_OP_HARDSIGMOID:
    case MPQC_OP_SOFTMAX: return (struct mpqc_sx_range){0.0f, 1.0f};
    case MPQC_OP_TANH: return (struct mpqc_sx_range){-1.0f, 1.0f};
    case MPQC_OP_ABS:
    case MPQC_OP_EXP:
    case MPQC_OP_SQRT:
    case MPQC_OP_SOFTPLUS: return (struct mpqc_sx_range){0.0f, INFINITY};
    case MPQC_OP_MAXPOOL:
    case MPQC_OP_RESHAPE:
    case MPQC_OP_TRANSPOSE:
    case MPQC_OP_SLICE:
    case MPQC_OP_EXPAND:
    case MPQC_OP_COPY:
    case MPQC_OP_CHANNEL_SHUFFLE:
    case MPQC_OP_DEPTH_TO_SPACE:
    case MPQC_OP_SPACE_TO_DEPTH:
    case MPQC_OP_REDUCE_MAX:
    case MPQC_OP_REDUCE_MIN: return mpqc_sx_range_of(s, n->in[0], depth - 1);
    /* Rounding may take a mean past the bounds of its terms, but not past zero. */
    case MPQC_OP_AVGPOOL:
    case MPQC_OP_REDUCE_MEAN:
    case MPQC_OP_REDUCE_SUM: return binary_range(s, n, depth - 1);
    case MPQC_OP_PAD:
        if (mpqc_attr_float_or(n, MPQC_ATTR_ALPHA, 0.0f) != 0.0f) return any;
        return with_zero(mpqc_sx_range_of(s, n->in[0], depth - 1));
    case MPQC_OP_CONCAT:
    case MPQC_OP_MIN:
    case MPQC_OP_MAX: return hull(s, n, depth - 1);
    case MPQC_OP_ADD:
    case MPQC_OP_MUL: return binary_range(s, n, depth - 1);
    default: return any;
    }
}

/* ---- transpositions ---- */

void mpqc_sx_inverse(uint32_t rank, const int64_t *perm, int64_t *inverse)
{
    for (uint32_t i = 0; i < rank; i++) inverse[perm[i]] = i;
}

bool mpqc_sx_moves_units(const struct mpqc_type *x, const int64_t *perm)
{
    int64_t last = -1;
    if (mpqc_type_count(x) == 0) return true;
    for (uint32_t i = 0; i < x->rank; i++) {
        if (x->dims[perm[i]] == 1) continue;
        if (perm[i] < last) return false;
        last = perm[i];
    }
    return true;
}

/* A permutation that does what a reshape from x to y does: extents of one trade
 * places, the others stay in order.  False if there is none. */
static bool unit_perm(const struct mpqc_type *x, const struct mpqc_type *y, int64_t *perm)
{
    uint32_t big = 0, unit = 0;
    if (x->rank != y->rank || mpqc_type_count(x) == 0) return false;
    for (uint32_t i = 0; i < y->rank; i++) {
        uint32_t *next = y->dims[i] == 1 ? &unit : &big;
        while (*next < x->rank && (x->dims[*next] == 1) != (y->dims[i] == 1)) (*next)++;
        if (*next == x->rank || x->dims[*next] != y->dims[i]) return false;
        perm[i] = (*next)++;
    }
    return true;
}

bool mpqc_sx_transposed(const struct mpqc_sx *s, mpqc_vid v, int64_t *perm, mpqc_vid *x)
{
    const struct mpqc_node *n = mpqc_def(s->g, v);
    if (!n || (n->op != MPQC_OP_TRANSPOSE && n->op != MPQC_OP_RESHAPE)) return false;
    *x = n->in[0];
    if (n->op == MPQC_OP_RESHAPE) return unit_perm(mpqc_sx_type(s, *x), mpqc_sx_type(s, v), perm);
    memcpy(perm, mpqc_attr_ints(n, MPQC_ATTR_PERM), mpqc_sx_type(s, v)->rank * sizeof *perm);
    return true;
}

/* ---- windows ---- */

static void get_ints(const struct mpqc_node *n, enum mpqc_attr_key key, uint32_t count,
                     int64_t *to)
{
    const int64_t *ints = mpqc_attr_ints(n, key);
    if (ints) memcpy(to, ints, count * sizeof *to);
}

struct mpqc_sx_window mpqc_sx_window_of(const struct mpqc_node *n)
{
    struct mpqc_sx_window w = {{1, 1}, {1, 1}, {0, 0, 0, 0}, {1, 1}};
    get_ints(n, MPQC_ATTR_KERNEL, 2, w.kernel);
    get_ints(n, MPQC_ATTR_STRIDES, 2, w.strides);
    get_ints(n, MPQC_ATTR_PADS, 4, w.pads);
    get_ints(n, MPQC_ATTR_DILATIONS, 2, w.dilations);
    return w;
}
