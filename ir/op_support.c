/* SPDX-License-Identifier: GPL-3.0-or-later
 * Checks that many operators share, and the strided walk.
 */
#include "ir/op.h"

#include <math.h>

/* ---- inference ------------------------------------------------------------- */

struct mpqc_where mpqc_op_where(const struct mpqc_infer *q)
{
    return (struct mpqc_where){
        .node = q->node->loc.node, .op = q->node->loc.op, .offset = q->node->loc.offset};
}

const char *mpqc_op_name(const struct mpqc_infer *q)
{
    return mpqc_ops[q->node->op].text;
}

const char *mpqc_op_type_text(struct mpqc_infer *q, const struct mpqc_type *t)
{
    char text[24 * MPQC_MAX_RANK + 32];
    int n = snprintf(text, sizeof text, "%s[", mpqc_dtypes[t->dtype].text);
    for (uint32_t d = 0; d < t->rank; d++)
        n += snprintf(text + n, sizeof text - (size_t)n, d ? ",%lld" : "%lld",
                      (long long)t->dims[d]);
    snprintf(text + n, sizeof text - (size_t)n, "]");
    const char *copy = mpqc_arena_strdup(&q->cx->arena, text);
    return copy ? copy : "?";
}

mpqc_status mpqc_op_arity(struct mpqc_infer *q)
{
    const struct mpqc_op_info *op = &mpqc_ops[q->node->op];
    uint32_t n = q->node->n_in;
    if (n < op->in_min || n > op->in_max)
        return OP_FAIL(q, MODEL, "operator %s takes %u to %u inputs, not %u", op->text, op->in_min,
                       op->in_max, n);
    for (uint32_t i = 0; i < op->in_min; i++) {
        if (!q->in[i])
            return OP_FAIL(q, MODEL, "operator %s needs its input %u", op->text, i);
    }
    return MPQC_OK;
}

const struct mpqc_type *mpqc_op_in(const struct mpqc_infer *q, uint32_t i)
{
    return i < q->node->n_in ? q->in[i] : NULL;
}

mpqc_status mpqc_op_result(struct mpqc_infer *q, struct mpqc_type t)
{
    size_t bytes = mpqc_dtypes[t.dtype].bytes;
    MPQC_ASSERT(t.rank <= MPQC_MAX_RANK);
    for (uint32_t d = 0; d < t.rank; d++) {
        MPQC_ASSERT(t.dims[d] >= 0);
        /* An extent of 0 must not hide overflowing partners. */
        size_t extent = t.dims[d] > 0 ? (size_t)t.dims[d] : 1;
        if (!mpqc_size_mul(bytes, extent, &bytes) || bytes >= MPQC_MAX_TENSOR_BYTES)
            return OP_FAIL(q, LIMIT_EXCEEDED, "the result %s is larger than 2^40 bytes",
                           mpqc_op_type_text(q, &t));
    }
    for (uint32_t d = t.rank; d < MPQC_MAX_RANK; d++) t.dims[d] = 0;
    q->out[0] = t;
    return MPQC_OK;
}

mpqc_status mpqc_op_ints(struct mpqc_infer *q, enum mpqc_attr_key key, uint32_t count,
                         bool optional, const int64_t **out)
{
    const struct mpqc_attr *a = mpqc_attr_find(q->node, key);
    *out = NULL;
    if (!a) {
        if (optional) return MPQC_OK;
        return OP_FAIL(q, MODEL, "operator %s needs attribute %s", mpqc_op_name(q),
                       mpqc_attr_text[key]);
    }
    if (a->count != count)
        return OP_FAIL(q, MODEL, "attribute %s of %s has %u values, not %u", mpqc_attr_text[key],
                       mpqc_op_name(q), a->count, count);
    *out = a->ints;
    return MPQC_OK;
}

mpqc_status mpqc_op_axis(struct mpqc_infer *q, uint32_t rank, uint32_t *axis)
{
    const struct mpqc_attr *a = mpqc_attr_find(q->node, MPQC_ATTR_AXIS);
    if (!a) return OP_FAIL(q, MODEL, "operator %s needs attribute axis", mpqc_op_name(q));
    if (a->i < 0 || a->i >= (int64_t)rank)
        return OP_FAIL(q, MODEL, "axis %lld is outside of rank %u", (long long)a->i, rank);
    *axis = (uint32_t)a->i;
    return MPQC_OK;
}

mpqc_status mpqc_op_to(struct mpqc_infer *q, enum mpqc_dtype *to)
{
    const char *text = mpqc_attr_string_or(q->node, MPQC_ATTR_TO, NULL);
    if (!text) return OP_FAIL(q, MODEL, "operator %s needs attribute to", mpqc_op_name(q));
    for (int t = 0; t < MPQC_DT_COUNT; t++) {
        if (strcmp(text, mpqc_dtypes[t].text) == 0) {
            *to = (enum mpqc_dtype)t;
            return MPQC_OK;
        }
    }
    return OP_FAIL(q, MODEL, "'%s' is no element type", text);
}

mpqc_status mpqc_op_scale(struct mpqc_infer *q, float *scale)
{
    *scale = mpqc_attr_float_or(q->node, MPQC_ATTR_SCALE, 0.0f);
    if (!(*scale > 0.0f) || isinf(*scale))
        return OP_FAIL(q, MODEL, "operator %s needs a positive, finite scale", mpqc_op_name(q));
    return MPQC_OK;
}

mpqc_status mpqc_op_quant(struct mpqc_infer *q, float scale, int32_t zero,
                          const struct mpqc_quant **out)
{
    *out = mpqc_quant_tensor(q->g, scale, zero);
    return *out ? MPQC_OK : MPQC_OOM(q->cx);
}

mpqc_status mpqc_op_broadcast(struct mpqc_infer *q, struct mpqc_type *shape,
                              const struct mpqc_type *t)
{
    struct mpqc_type r = *shape;
    r.rank = shape->rank > t->rank ? shape->rank : t->rank;
    for (uint32_t d = 0; d < r.rank; d++) { /* d counts from the last dimension */
        int64_t a = d < shape->rank ? shape->dims[shape->rank - 1 - d] : 1;
        int64_t b = d < t->rank ? t->dims[t->rank - 1 - d] : 1;
        if (a != b && a != 1 && b != 1)
            return OP_FAIL(q, MODEL, "shapes %s and %s do not broadcast",
                           mpqc_op_type_text(q, shape), mpqc_op_type_text(q, t));
        r.dims[r.rank - 1 - d] = a == 1 ? b : a;
    }
    *shape = r;
    return MPQC_OK;
}

bool mpqc_op_is_plain(const struct mpqc_type *t, enum mpqc_dtype dtype)
{
    return t->dtype == dtype && !t->quant;
}

bool mpqc_op_is_integer(enum mpqc_dtype t)
{
    return mpqc_dtypes[t].kind == MPQC_KIND_SINT || mpqc_dtypes[t].kind == MPQC_KIND_UINT;
}

bool mpqc_op_is_quantised(const struct mpqc_type *t, unsigned bits)
{
    return t->quant && t->quant->axis == -1 && mpqc_op_is_integer(t->dtype) &&
           mpqc_dtypes[t->dtype].bits <= bits;
}

bool mpqc_op_same_quant(const struct mpqc_type *a, const struct mpqc_type *b)
{
    const struct mpqc_quant *p = a->quant, *r = b->quant;
    if (p == r) return true;
    if (!p || !r || p->axis != r->axis || p->count != r->count) return false;
    return memcmp(p->scale, r->scale, p->count * sizeof *p->scale) == 0 &&
           memcmp(p->zero, r->zero, p->count * sizeof *p->zero) == 0;
}

/* ---- windows ------------------------------------------------------------------ */

struct mpqc_window mpqc_window_of(const struct mpqc_node *n, int64_t kh, int64_t kw)
{
    const int64_t *s = mpqc_attr_ints(n, MPQC_ATTR_STRIDES);
    const int64_t *d = mpqc_attr_ints(n, MPQC_ATTR_DILATIONS);
    const int64_t *p = mpqc_attr_ints(n, MPQC_ATTR_PADS);
    return (struct mpqc_window){
        .kh = kh,
        .kw = kw,
        .sh = s ? s[0] : 1,
        .sw = s ? s[1] : 1,
        .dh = d ? d[0] : 1,
        .dw = d ? d[1] : 1,
        .pt = p ? p[0] : 0,
        .pl = p ? p[1] : 0,
        .pb = p ? p[2] : 0,
        .pr = p ? p[3] : 0,
    };
}

static mpqc_status check_bounds(struct mpqc_infer *q, const char *what, uint32_t n,
                                const int64_t *v, int64_t least)
{
    for (uint32_t i = 0; v && i < n; i++) {
        if (v[i] < least || v[i] >= MPQC_MAX_WINDOW)
            return OP_FAIL(q, MODEL, "%s of %s has the value %lld, outside of %lld to 2^31 - 1",
                           what, mpqc_op_name(q), (long long)v[i], (long long)least);
    }
    return MPQC_OK;
}

mpqc_status mpqc_window_infer(struct mpqc_infer *q, const struct mpqc_type *x, int64_t kh,
                              int64_t kw, int64_t *oh, int64_t *ow)
{
    const int64_t *s, *d, *p, kernel[2] = {kh, kw};
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_STRIDES, 2, true, &s));
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_DILATIONS, 2, true, &d));
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_PADS, 4, true, &p));
    MPQC_TRY(check_bounds(q, "strides", 2, s, 1));
    MPQC_TRY(check_bounds(q, "dilations", 2, d, 1));
    MPQC_TRY(check_bounds(q, "pads", 4, p, 0));
    MPQC_TRY(check_bounds(q, "the kernel", 2, kernel, 1));
    struct mpqc_window w = mpqc_window_of(q->node, kh, kw);
    /* Below 2^31 * 2^31 each, so no sum overflows. */
    int64_t span_h = (kh - 1) * w.dh + 1, span_w = (kw - 1) * w.dw + 1;
    int64_t height = x->dims[1] + w.pt + w.pb, width = x->dims[2] + w.pl + w.pr;
    if (span_h > height || span_w > width)
        return OP_FAIL(q, MODEL, "a window of %lldx%lld does not fit into the padded input of "
                       "%lldx%lld", (long long)span_h, (long long)span_w, (long long)height,
                       (long long)width);
    *oh = (height - span_h) / w.sh + 1;
    *ow = (width - span_w) / w.sw + 1;
    return MPQC_OK;
}

/* ---- the walk ------------------------------------------------------------------------ */

void mpqc_op_strides(uint32_t rank, const int64_t *dims, int64_t *stride)
{
    int64_t s = 1;
    for (uint32_t d = rank; d-- > 0;) {
        stride[d] = s;
        s *= dims[d];
    }
}

void mpqc_walk_init(struct mpqc_walk *w, uint32_t rank, const int64_t *dims)
{
    memset(w, 0, sizeof *w);
    w->rank = rank;
    w->n = 1;
    for (uint32_t d = 0; d < rank; d++) w->dims[d] = dims[d];
    mpqc_op_strides(rank, dims, w->stride[0]);
}

void mpqc_walk_broadcast(struct mpqc_walk *w, const struct mpqc_type *t)
{
    int64_t own[MPQC_MAX_RANK];
    mpqc_op_strides(t->rank, t->dims, own);
    for (uint32_t d = 0; d < t->rank; d++)
        w->stride[w->n][w->rank - t->rank + d] = t->dims[d] == 1 ? 0 : own[d];
    w->n++;
}

void mpqc_walk_strided(struct mpqc_walk *w, const int64_t *stride, int64_t first)
{
    for (uint32_t d = 0; d < w->rank; d++) w->stride[w->n][d] = stride[d];
    w->at[w->n] = first;
    w->n++;
}

/* True when dimension d - 1 continues dimension d for every operand. */
static bool mergeable(const struct mpqc_walk *w, uint32_t d)
{
    for (uint32_t i = 0; i < w->n; i++) {
        if (w->stride[i][d - 1] != w->stride[i][d] * w->dims[d]) return false;
    }
    return true;
}

static void remove_dim(struct mpqc_walk *w, uint32_t d)
{
    for (uint32_t e = d; e + 1 < w->rank; e++) {
        w->dims[e] = w->dims[e + 1];
        for (uint32_t i = 0; i < w->n; i++) w->stride[i][e] = w->stride[i][e + 1];
    }
    w->rank--;
}

void mpqc_walk_start(struct mpqc_walk *w)
{
    for (uint32_t d = 0; d < w->rank; d++) {
        if (w->dims[d] == 0) w->done = true;
    }
    if (w->done) return;
    for (uint32_t d = w->rank; d-- > 0;) {
        if (w->dims[d] == 1) remove_dim(w, d);
    }
    for (uint32_t d = w->rank; d-- > 1;) {
        if (!mergeable(w, d)) continue;
        w->dims[d] *= w->dims[d - 1];
        remove_dim(w, d - 1);
    }
    w->len = 1;
    if (w->rank > 0) { /* the last dimension is the row */
        w->rank--;
        w->len = w->dims[w->rank];
        for (uint32_t i = 0; i < w->n; i++) w->step[i] = w->stride[i][w->rank];
    }
}

void mpqc_walk_next(struct mpqc_walk *w)
{
    for (uint32_t d = w->rank; d-- > 0;) {
        for (uint32_t i = 0; i < w->n; i++) w->at[i] += w->stride[i][d];
        if (++w->index[d] < w->dims[d]) return;
        w->index[d] = 0;
        for (uint32_t i = 0; i < w->n; i++) w->at[i] -= w->stride[i][d] * w->dims[d];
    }
    w->done = true;
}

void mpqc_op_around(const struct mpqc_type *t, uint32_t axis, int64_t *before, int64_t *behind)
{
    *before = *behind = 1;
    for (uint32_t d = 0; d < axis; d++) *before *= t->dims[d];
    for (uint32_t d = axis + 1; d < t->rank; d++) *behind *= t->dims[d];
}
