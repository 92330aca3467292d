/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The derivatives of pools and of reduce_max.  Where a window or row has several
 * equal maxima, the first one counts, as in the forward operators.
 */
#include "ir/op.h"

#include <math.h>

/* ---- inference ------------------------------------------------------------- */

static mpqc_status check_f32(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    for (uint32_t i = 0; i < q->node->n_in; i++) {
        if (!mpqc_op_is_plain(q->in[i], MPQC_DT_F32))
            return OP_FAIL(q, UNSUPPORTED, "%s takes f32, not %s", mpqc_op_name(q),
                           mpqc_op_type_text(q, q->in[i]));
    }
    return MPQC_OK;
}

/* The type of the pool's result on x. */
static mpqc_status pooled(struct mpqc_infer *q, const struct mpqc_type *x, struct mpqc_type *y)
{
    const int64_t *kernel;
    if (x->rank != 4)
        return OP_FAIL(q, UNSUPPORTED, "pooling of %s is not two-dimensional",
                       mpqc_op_type_text(q, x));
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_KERNEL, 2, false, &kernel));
    *y = *x;
    return mpqc_window_infer(q, x, kernel[0], kernel[1], &y->dims[1], &y->dims[2]);
}

static mpqc_status same_shape(struct mpqc_infer *q, const struct mpqc_type *wanted,
                              const struct mpqc_type *t)
{
    if (mpqc_type_same_shape(wanted, t)) return MPQC_OK;
    return OP_FAIL(q, MODEL, "%s wants %s, not %s", mpqc_op_name(q), mpqc_op_type_text(q, wanted),
                   mpqc_op_type_text(q, t));
}

mpqc_status mpqc_infer_maxpool_dx(struct mpqc_infer *q)
{
    struct mpqc_type y;
    MPQC_TRY(check_f32(q));
    MPQC_TRY(pooled(q, q->in[0], &y));
    MPQC_TRY(same_shape(q, &y, q->in[1]));
    return mpqc_op_result(q, *q->in[0]);
}

mpqc_status mpqc_infer_maxpool_take(struct mpqc_infer *q)
{
    struct mpqc_type y;
    MPQC_TRY(check_f32(q));
    MPQC_TRY(same_shape(q, q->in[0], q->in[1]));
    MPQC_TRY(pooled(q, q->in[0], &y));
    return mpqc_op_result(q, y);
}

mpqc_status mpqc_infer_avgpool_dx(struct mpqc_infer *q)
{
    const int64_t *shape;
    struct mpqc_type y;
    MPQC_TRY(check_f32(q));
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_SHAPE, 4, false, &shape));
    struct mpqc_type x = mpqc_type_make(MPQC_DT_F32, 4, shape);
    if (!mpqc_type_fits(&x)) return OP_FAIL(q, MODEL, "the shape of avgpool_dx is none");
    MPQC_TRY(pooled(q, &x, &y));
    MPQC_TRY(same_shape(q, &y, q->in[0]));
    return mpqc_op_result(q, x);
}

/* The result of reducing x over AXES. */
static mpqc_status reduced(struct mpqc_infer *q, struct mpqc_type *y)
{
    const struct mpqc_attr *a = mpqc_attr_find(q->node, MPQC_ATTR_AXES);
    *y = *q->in[0];
    for (uint32_t d = 0; !a && d < y->rank; d++) y->dims[d] = 1;
    for (uint32_t i = 0; a && i < a->count; i++) {
        if (a->ints[i] < 0 || a->ints[i] >= (int64_t)y->rank)
            return OP_FAIL(q, MODEL, "axis %lld is outside of rank %u", (long long)a->ints[i],
                           y->rank);
        y->dims[a->ints[i]] = 1;
    }
    if (mpqc_type_count(q->in[0]) == 0 && mpqc_type_count(y) != 0)
        return OP_FAIL(q, MODEL, "%s over an empty axis of %s", mpqc_op_name(q),
                       mpqc_op_type_text(q, q->in[0]));
    return MPQC_OK;
}

mpqc_status mpqc_infer_reduce_max_dx(struct mpqc_infer *q)
{
    struct mpqc_type y;
    MPQC_TRY(check_f32(q));
    MPQC_TRY(reduced(q, &y));
    MPQC_TRY(same_shape(q, &y, q->in[1]));
    return mpqc_op_result(q, *q->in[0]);
}

mpqc_status mpqc_infer_reduce_max_take(struct mpqc_infer *q)
{
    struct mpqc_type y;
    MPQC_TRY(check_f32(q));
    MPQC_TRY(same_shape(q, q->in[0], q->in[1]));
    MPQC_TRY(reduced(q, &y));
    return mpqc_op_result(q, y);
}

/* ---- pools ------------------------------------------------------------------- */

/* One output pixel: its window's taps [first, end) along both axes. */
struct pixel {
    int64_t image, top, left; /* of tap 0 */
    int64_t kh, end_h, kw, end_w;
};

/* The taps [*first, *end) of `taps` that fall into [0, extent). */
static void taps_inside(int64_t origin, int64_t step, int64_t taps, int64_t extent, int64_t *first,
                        int64_t *end)
{
    *first = origin < 0 ? (-origin + step - 1) / step : 0;
    int64_t below = extent > origin ? (extent - origin + step - 1) / step : 0;
    *end = below < taps ? below : taps;
    if (*end < *first) *end = *first;
}

static struct pixel pixel_at(const struct mpqc_window *w, const struct mpqc_type *x,
                             const struct mpqc_type *y, int64_t index)
{
    struct pixel p = {.image = index / (y->dims[1] * y->dims[2]),
                      .top = index / y->dims[2] % y->dims[1] * w->sh - w->pt,
                      .left = index % y->dims[2] * w->sw - w->pl};
    taps_inside(p.top, w->dh, w->kh, x->dims[1], &p.kh, &p.end_h);
    taps_inside(p.left, w->dw, w->kw, x->dims[2], &p.kw, &p.end_w);
    return p;
}

static int64_t element_at(const struct pixel *p, const struct mpqc_window *w,
                          const struct mpqc_type *x, int64_t kh, int64_t kw)
{
    return ((p->image * x->dims[1] + p->top + kh * w->dh) * x->dims[2] + p->left + kw * w->dw) *
           x->dims[3];
}

#define SOME_CHANNELS 64

/* Where in x the maxima of n channels from c on are. */
static void find_maxima(const float *x, const struct mpqc_type *t, const struct pixel *p,
                        const struct mpqc_window *w, int64_t c, int64_t n, int64_t *where)
{
    float best[SOME_CHANNELS];
    bool begun = false;
    for (int64_t kh = p->kh; kh < p->end_h; kh++) {
        for (int64_t kw = p->kw; kw < p->end_w; kw++) {
            int64_t at = element_at(p, w, t, kh, kw) + c;
            for (int64_t i = 0; i < n; i++) {
                if (begun && !(x[at + i] > best[i])) continue;
                best[i] = x[at + i];
                where[i] = at + i;
            }
            begun = true;
        }
    }
}

/* dx[where] += v of the output, or output = v[where]. */
static void maxpool_all(const struct mpqc_node *node, const struct mpqc_tensor *x,
                        const struct mpqc_type *y, const float *v, float *to, bool take)
{
    const int64_t *kernel = mpqc_attr_ints(node, MPQC_ATTR_KERNEL);
    struct mpqc_window w = mpqc_window_of(node, kernel[0], kernel[1]);
    int64_t pixels = y->dims[0] * y->dims[1] * y->dims[2], channels = y->dims[3];
    int64_t where[SOME_CHANNELS];
    for (int64_t i = 0; i < pixels; i++) {
        struct pixel p = pixel_at(&w, &x->type, y, i);
        if (p.kh == p.end_h || p.kw == p.end_w) continue;
        for (int64_t c = 0; c < channels; c += SOME_CHANNELS) {
            int64_t n = channels - c < SOME_CHANNELS ? channels - c : SOME_CHANNELS;
            find_maxima(x->data, &x->type, &p, &w, c, n, where);
            for (int64_t j = 0; j < n; j++) {
                int64_t at = i * channels + c + j;
                if (take) to[at] = v[where[j]];
                else to[where[j]] += v[at];
            }
        }
    }
}

static void clear(struct mpqc_tensor *t)
{
    memset(t->data, 0, mpqc_type_bytes(&t->type));
}

void mpqc_ref_maxpool_dx(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                         struct mpqc_tensor *const *out)
{
    clear(out[0]);
    maxpool_all(n, in[0], &in[1]->type, in[1]->data, out[0]->data, false);
}

void mpqc_ref_maxpool_take(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                           struct mpqc_tensor *const *out)
{
    clear(out[0]);
    maxpool_all(n, in[0], &out[0]->type, in[1]->data, out[0]->data, true);
}

MPQC_CLONES static void add_share(const float *restrict dy, float count, float *restrict dx,
                                  int64_t n)
{
    for (int64_t i = 0; i < n; i++) dx[i] += dy[i] / count;
}

void mpqc_ref_avgpool_dx(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                         struct mpqc_tensor *const *out)
{
    const int64_t *kernel = mpqc_attr_ints(n, MPQC_ATTR_KERNEL);
    const struct mpqc_type *x = &out[0]->type, *y = &in[0]->type;
    struct mpqc_window w = mpqc_window_of(n, kernel[0], kernel[1]);
    bool all = mpqc_attr_int_or(n, MPQC_ATTR_COUNT_PAD, 0) != 0;
    int64_t pixels = y->dims[0] * y->dims[1] * y->dims[2], channels = y->dims[3];
    clear(out[0]);
    for (int64_t i = 0; i < pixels; i++) {
        struct pixel p = pixel_at(&w, x, y, i);
        int64_t taps = all ? w.kh * w.kw : (p.end_h - p.kh) * (p.end_w - p.kw);
        for (int64_t kh = p.kh; kh < p.end_h; kh++) {
            for (int64_t kw = p.kw; kw < p.end_w; kw++)
                add_share((const float *)in[0]->data + i * channels, (float)taps,
                          (float *)out[0]->data + element_at(&p, &w, x, kh, kw), channels);
        }
    }
}

/* ---- reduce_max ------------------------------------------------------------------ */

/* For each result, the position in x of the first maximum; then as in maxpool_all.  `y`
 * is the reduced type. */
static void reduce_max_all(const struct mpqc_tensor *x, const struct mpqc_type *y, const float *v,
                           float *to, bool take)
{
    const struct mpqc_type *t = &x->type;
    int64_t stride[MPQC_MAX_RANK], inner_dims[MPQC_MAX_RANK];
    for (uint32_t d = 0; d < t->rank; d++) inner_dims[d] = y->dims[d] == 1 ? t->dims[d] : 1;
    mpqc_op_strides(t->rank, t->dims, stride);
    struct mpqc_walk outer, first;
    mpqc_walk_init(&outer, y->rank, y->dims);
    mpqc_walk_strided(&outer, stride, 0);
    mpqc_walk_init(&first, t->rank, inner_dims);
    mpqc_walk_strided(&first, stride, 0);
    mpqc_walk_start(&first);
    for (mpqc_walk_start(&outer); !outer.done; mpqc_walk_next(&outer)) {
        for (int64_t j = 0; j < outer.len; j++) {
            int64_t result = outer.at[0] + j * outer.step[0];
            int64_t base = outer.at[1] + j * outer.step[1], best = base;
            const float *e = x->data;
            for (struct mpqc_walk w = first; !w.done; mpqc_walk_next(&w)) {
                for (int64_t i = 0; i < w.len; i++) {
                    int64_t at = base + w.at[1] + i * w.step[1];
                    if (e[at] > e[best]) best = at;
                }
            }
            if (take) to[result] = v[best];
            else to[best] = v[result];
        }
    }
}

void mpqc_ref_reduce_max_dx(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                            struct mpqc_tensor *const *out)
{
    (void)n;
    clear(out[0]);
    reduce_max_all(in[0], &in[1]->type, in[1]->data, out[0]->data, false);
}

void mpqc_ref_reduce_max_take(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                              struct mpqc_tensor *const *out)
{
    (void)n;
    reduce_max_all(in[0], &out[0]->type, in[1]->data, out[0]->data, true);
}
