/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Element types, tensor types, quantisation parameters and attributes.
 */
#include "ir/ir.h"

#include <math.h>

const struct mpqc_dtype_info mpqc_dtypes[MPQC_DT_COUNT] = {
#define DTYPE(name, text, bits, bytes, kind, min, max) \
    [MPQC_DT_##name] = {text, bits, bytes, MPQC_KIND_##kind, min, max},
#include "ir/dtypes.def"
#undef DTYPE
};

const char *const mpqc_attr_text[MPQC_ATTR_COUNT] = {
#define ATTR(name, text, kind) [MPQC_ATTR_##name] = text,
#include "ir/attrs.def"
#undef ATTR
};

const enum mpqc_attr_kind mpqc_attr_kinds[MPQC_ATTR_COUNT] = {
#define ATTR(name, text, kind) [MPQC_ATTR_##name] = MPQC_AK_##kind,
#include "ir/attrs.def"
#undef ATTR
};

_Static_assert(MPQC_ATTR_COUNT <= 64, "mpqc_op_info.attrs is a set of 64 bits");

/* ---- tensor types ---- */

int64_t mpqc_type_count(const struct mpqc_type *t)
{
    int64_t n = 1;
    for (uint32_t d = 0; d < t->rank; d++) n *= t->dims[d];
    return n;
}

size_t mpqc_type_bytes(const struct mpqc_type *t)
{
    return (size_t)mpqc_type_count(t) * mpqc_dtypes[t->dtype].bytes;
}

bool mpqc_type_fits(const struct mpqc_type *t)
{
    if ((unsigned)t->dtype >= MPQC_DT_COUNT || t->rank > MPQC_MAX_RANK) return false;
    size_t bytes = mpqc_dtypes[t->dtype].bytes;
    for (uint32_t d = 0; d < t->rank; d++) {
        if (t->dims[d] < 0) return false;
        /* Extents of zero are skipped: strides of the other axes must fit, too. */
        if (t->dims[d] > 0 && !mpqc_size_mul(bytes, (size_t)t->dims[d], &bytes)) return false;
        if (bytes > PTRDIFF_MAX) return false;
    }
    return true;
}

bool mpqc_type_same_shape(const struct mpqc_type *a, const struct mpqc_type *b)
{
    return a->rank == b->rank &&
           (a->rank == 0 || memcmp(a->dims, b->dims, a->rank * sizeof a->dims[0]) == 0);
}

/* By value; scales are finite and not 0, so bits compare like numbers. */
bool mpqc_quant_equal(const struct mpqc_quant *a, const struct mpqc_quant *b)
{
    if (a == b) return true;
    if (!a || !b || a->axis != b->axis || a->count != b->count) return false;
    return a->count == 0 || (memcmp(a->scale, b->scale, a->count * sizeof a->scale[0]) == 0 &&
                             memcmp(a->zero, b->zero, a->count * sizeof a->zero[0]) == 0);
}

bool mpqc_type_equal(const struct mpqc_type *a, const struct mpqc_type *b)
{
    return a->dtype == b->dtype && mpqc_type_same_shape(a, b) &&
           mpqc_quant_equal(a->quant, b->quant) && mpqc_groups_equal(a, b);
}

struct mpqc_type mpqc_type_make(enum mpqc_dtype dtype, uint32_t rank, const int64_t *dims)
{
    MPQC_ASSERT(rank <= MPQC_MAX_RANK);
    struct mpqc_type t = {.dtype = dtype, .rank = rank};
    for (uint32_t d = 0; d < rank; d++) t.dims[d] = dims[d];
    return t;
}

bool mpqc_dtype_is_quantised_storage(enum mpqc_dtype t)
{
    const struct mpqc_dtype_info *i = &mpqc_dtypes[t];
    return (i->kind == MPQC_KIND_SINT || i->kind == MPQC_KIND_UINT) && i->bits <= 16;
}

bool mpqc_dtype_is_byte(enum mpqc_dtype t)
{
    return mpqc_dtypes[t].kind == MPQC_KIND_UINT && mpqc_dtypes[t].bits <= 8;
}

bool mpqc_dtype_holds(enum mpqc_dtype t, int64_t v)
{
    return v >= mpqc_dtypes[t].min && v <= mpqc_dtypes[t].max && (t != MPQC_DT_I1 || v != 0);
}

static const char *quant_problem(const struct mpqc_type *t)
{
    const struct mpqc_quant *q = t->quant;
    const struct mpqc_dtype_info *d = &mpqc_dtypes[t->dtype];
    if (!mpqc_dtype_is_quantised_storage(t->dtype) && t->dtype != MPQC_DT_I32)
        return "only integers of 32 bits or fewer can be quantised";
    if (q->axis < -1 || q->axis >= (int32_t)t->rank) return "the quantised axis does not exist";
    if (q->count != (q->axis < 0 ? 1u : t->dims[q->axis]))
        return "the number of scales is not the axis's extent";
    for (uint32_t i = 0; i < q->count; i++) {
        /* a channel of weights may count backwards (passes/weights.h) */
        bool negative = q->axis >= 0 && d->kind == MPQC_KIND_SINT && q->scale[i] < 0;
        if ((!(q->scale[i] > 0) && !negative) || !isfinite(q->scale[i]))
            return "a scale is not positive";
        if (q->zero[i] < d->min || q->zero[i] > d->max) return "a zero point is out of range";
    }
    return q->groups ? mpqc_groups_problem(t) : NULL;
}

const char *mpqc_type_problem(const struct mpqc_type *t)
{
    if (!mpqc_type_fits(t)) return "the shape is impossible or too large";
    return t->quant ? quant_problem(t) : NULL;
}

static const struct mpqc_quant *make_quant(struct mpqc_arena *a, int32_t axis, uint32_t count,
                                           const float *scale, const int32_t *zero)
{
    struct mpqc_quant *q = MPQC_NEW(a, struct mpqc_quant);
    float *s = mpqc_arena_copy(a, scale, count * sizeof *scale);
    int32_t *z = MPQC_NEW_ARRAY(a, int32_t, count);
    if (!q || !s || !z) return NULL;
    for (uint32_t i = 0; zero && i < count; i++) z[i] = zero[i];
    *q = (struct mpqc_quant){.axis = axis, .count = count, .scale = s, .zero = z};
    return q;
}

const struct mpqc_quant *mpqc_quant_tensor(struct mpqc_graph *g, float scale, int32_t zero)
{
    return make_quant(&g->arena, -1, 1, &scale, &zero);
}

const struct mpqc_quant *mpqc_quant_channel(struct mpqc_graph *g, int32_t axis, uint32_t count,
                                            const float *scale, const int32_t *zero)
{
    return make_quant(&g->arena, axis, count, scale, zero);
}

/* ---- lists of attributes ---- */

/* The entry for key k: the old one when the list has it, else a new one. */
static struct mpqc_attr *attrs_slot(struct mpqc_attrs *l, enum mpqc_attr_key k,
                                    enum mpqc_attr_kind kind)
{
    MPQC_ASSERT(mpqc_attr_kinds[k] == kind);
    uint32_t i = 0;
    while (i < l->n && l->a[i].key != k) i++;
    MPQC_ASSERT(i < MPQC_MAX_ATTRS);
    if (i == l->n) l->n++;
    l->a[i] = (struct mpqc_attr){.key = k};
    return &l->a[i];
}

void mpqc_attrs_int(struct mpqc_attrs *l, enum mpqc_attr_key k, int64_t v)
{
    attrs_slot(l, k, MPQC_AK_INT)->i = v;
}

void mpqc_attrs_float(struct mpqc_attrs *l, enum mpqc_attr_key k, float v)
{
    attrs_slot(l, k, MPQC_AK_FLOAT)->f = (double)v;
}

void mpqc_attrs_ints(struct mpqc_attrs *l, enum mpqc_attr_key k, uint32_t n, const int64_t *v)
{
    struct mpqc_attr *a = attrs_slot(l, k, MPQC_AK_INTS);
    a->count = n;
    a->ints = v;
}

void mpqc_attrs_string(struct mpqc_attrs *l, enum mpqc_attr_key k, const char *v)
{
    attrs_slot(l, k, MPQC_AK_STRING)->s = v;
}

bool mpqc_attr_equal(const struct mpqc_attr *a, const struct mpqc_attr *b)
{
    if (a->key != b->key) return false;
    switch (mpqc_attr_kinds[a->key]) {
    case MPQC_AK_INT: return a->i == b->i;
    case MPQC_AK_FLOAT: return memcmp(&a->f, &b->f, sizeof a->f) == 0;
    case MPQC_AK_STRING: return strcmp(a->s, b->s) == 0;
    case MPQC_AK_INTS: break;
    }
    return a->count == b->count &&
           (a->count == 0 || memcmp(a->ints, b->ints, a->count * sizeof a->ints[0]) == 0);
}

/* ---- attributes of nodes ---- */

const struct mpqc_attr *mpqc_attr_find(const struct mpqc_node *n, enum mpqc_attr_key k)
{
    for (uint32_t i = 0; i < n->n_attr; i++)
        if (n->attr[i].key == k) return &n->attr[i];
    return NULL;
}

int64_t mpqc_attr_int(const struct mpqc_node *n, enum mpqc_attr_key k)
{
    const struct mpqc_attr *a = mpqc_attr_find(n, k);
    MPQC_ASSERT(a != NULL);
    return a->i;
}

int64_t mpqc_attr_int_or(const struct mpqc_node *n, enum mpqc_attr_key k, int64_t otherwise)
{
    const struct mpqc_attr *a = mpqc_attr_find(n, k);
    return a ? a->i : otherwise;
}

float mpqc_attr_float_or(const struct mpqc_node *n, enum mpqc_attr_key k, float otherwise)
{
    const struct mpqc_attr *a = mpqc_attr_find(n, k);
    return a ? (float)a->f : otherwise;
}

const int64_t *mpqc_attr_ints(const struct mpqc_node *n, enum mpqc_attr_key k)
{
    const struct mpqc_attr *a = mpqc_attr_find(n, k);
    return a ? a->ints : NULL;
}

const char *mpqc_attr_string_or(const struct mpqc_node *n, enum mpqc_attr_key k,
                                const char *otherwise)
{
    const struct mpqc_attr *a = mpqc_attr_find(n, k);
    return a ? a->s : otherwise;
}
