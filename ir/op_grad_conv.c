/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The derivatives of a convolution by its input and by its weights, on the
 * multiplication of op_gemm.c.
 *
 * conv_dx   dx[p][c] = sum over (kh, kw, oc) of dy[q][oc] w[kh][kw][c][oc], where q is
 *           the output pixel whose tap (kh, kw) is at p.  With strides only some taps
 *           reach a given p; pixels that agree modulo the strides share them, and form
 *           one product: rows are these pixels, depth is (taps that reach them) x oc.
 *           With the taps backwards, their q are a window in dy.
 * conv_dw   dw[k][oc] = sum over output pixels q of window(q)[k] dy[q][oc]: rows are
 *           elements of the window, transposed on the way, depth is the pixels.
 *
 * Sums are f32, one rounding an operation; the output pixels q in row-major order, and
 * channels within.  Where no output pixel is, and on padding, zeros are added.
 */
#include "ir/op.h"

/* ---- inference ------------------------------------------------------------- */

static mpqc_status check_f32(struct mpqc_infer *q)
{
    MPQC_TRY(mpqc_op_arity(q));
    for (uint32_t i = 0; i < 2; i++) {
        if (!mpqc_op_is_plain(q->in[i], MPQC_DT_F32) || q->in[i]->rank != 4)
            return OP_FAIL(q, UNSUPPORTED, "%s takes two f32 tensors of rank 4, not %s",
                           mpqc_op_name(q), mpqc_op_type_text(q, q->in[i]));
    }
    return MPQC_OK;
}

/* dy is what a convolution of x with weights of extent kernel and `oc` outputs gives. */
static mpqc_status check_result(struct mpqc_infer *q, const struct mpqc_type *x,
                                const int64_t *kernel, int64_t oc, const struct mpqc_type *dy)
{
    struct mpqc_type y = {.rank = 4, .dims = {x->dims[0], 0, 0, oc}};
    MPQC_TRY(mpqc_window_infer(q, x, kernel[0], kernel[1], &y.dims[1], &y.dims[2]));
    if (!mpqc_type_same_shape(&y, dy))
        return OP_FAIL(q, MODEL, "the derivative by the result of a convolution of %s is %s",
                       mpqc_op_type_text(q, x), mpqc_op_type_text(q, dy));
    return MPQC_OK;
}

static mpqc_status check_groups(struct mpqc_infer *q, int64_t channels, int64_t oc, int64_t *group)
{
    *group = mpqc_attr_int_or(q->node, MPQC_ATTR_GROUP, 1);
    if (*group < 1 || oc < 1 || oc % *group != 0 || channels % *group != 0)
        return OP_FAIL(q, MODEL, "%lld and %lld channels cannot be split into %lld groups",
                       (long long)channels, (long long)oc, (long long)*group);
    return MPQC_OK;
}

mpqc_status mpqc_infer_conv_dx(struct mpqc_infer *q)
{
    MPQC_TRY(check_f32(q));
    const struct mpqc_type *dy = q->in[0], *w = q->in[1];
    const int64_t *shape;
    int64_t group;
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_SHAPE, 4, false, &shape));
    struct mpqc_type x = mpqc_type_make(MPQC_DT_F32, 4, shape);
    if (!mpqc_type_fits(&x)) return OP_FAIL(q, MODEL, "the shape of conv_dx is none");
    MPQC_TRY(check_groups(q, x.dims[3], w->dims[3], &group));
    if (x.dims[3] / group != w->dims[2])
        return OP_FAIL(q, MODEL, "weights %s do not convolve %s in %lld groups",
                       mpqc_op_type_text(q, w), mpqc_op_type_text(q, &x), (long long)group);
    MPQC_TRY(check_result(q, &x, w->dims, w->dims[3], dy));
    return mpqc_op_result(q, x);
}

mpqc_status mpqc_infer_conv_dw(struct mpqc_infer *q)
{
    MPQC_TRY(check_f32(q));
    const struct mpqc_type *x = q->in[0], *dy = q->in[1];
    const int64_t *kernel;
    int64_t group;
    MPQC_TRY(mpqc_op_ints(q, MPQC_ATTR_KERNEL, 2, false, &kernel));
    MPQC_TRY(check_groups(q, x->dims[3], dy->dims[3], &group));
    MPQC_TRY(check_result(q, x, kernel, dy->dims[3], dy));
    struct mpqc_type w = *x;
    w.dims[0] = kernel[0];
    w.dims[1] = kernel[1];
    w.dims[2] = x->dims[3] / group;
    w.dims[3] = dy->dims[3];
    return mpqc_op_result(q, w);
}

uint64_t mpqc_macs_conv_dx(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    const struct mpqc_type *w = &g->values[n->in[1]].type;
    uint64_t taps = (uint64_t)w->dims[0] * (uint64_t)w->dims[1] * (uint64_t)w->dims[2];
    return (uint64_t)mpqc_type_count(&g->values[n->in[0]].type) * taps;
}

uint64_t mpqc_macs_conv_dw(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    const struct mpqc_type *w = &g->values[n->out[0]].type;
    uint64_t taps = (uint64_t)w->dims[0] * (uint64_t)w->dims[1] * (uint64_t)w->dims[2];
    return (uint64_t)mpqc_type_count(&g->values[n->in[1]].type) * taps;
}

/* ---- conv_dx ------------------------------------------------------------------- */

/* Along one axis: input positions first, first + stride, ... (`count` of them) are
 * reached by taps tap, tap + step, ... (`taps` of them). */
struct phase {
    int64_t first, count, tap, step, taps;
};

static int64_t gcd(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* Tap t reaches position p when p + pad - t * dilation is a multiple of stride. */
static struct phase phase_of(int64_t first, int64_t extent, int64_t stride, int64_t dilation,
                             int64_t pad, int64_t kernel)
{
    struct phase f = {.first = first, .step = stride / gcd(stride, dilation)};
    f.count = first < extent ? (extent - first - 1) / stride + 1 : 0;
    while (f.tap < f.step && f.tap < kernel && (first + pad - f.tap * dilation) % stride != 0)
        f.tap++;
    if (f.tap < f.step && f.tap < kernel) f.taps = (kernel - f.tap - 1) / f.step + 1;
    return f;
}

struct conv_dx {
    const struct mpqc_tensor *dy, *w;
    struct mpqc_tensor *dx;
    struct mpqc_window win;
    int64_t ic, oc; /* of one group */
    int64_t group;  /* the current one */
    struct phase h, v; /* rows, columns */
};

/* For np input pixels of the phase from `first` on: where the window in dy begins, and
 * the pixel's first element in dx. */
static void outputs_at(const struct conv_dx *c, int64_t first, int64_t np,
                       struct mpqc_origin *from, int64_t *at)
{
    const int64_t *xd = c->dx->type.dims;
    int64_t n = first / (c->h.count * c->v.count);
    int64_t row = first / c->v.count % c->h.count, col = first % c->v.count;
    /* The last tap has the first output pixel; the quotients are exact. */
    int64_t top = c->h.first + c->win.pt - (c->h.tap + (c->h.taps - 1) * c->h.step) * c->win.dh;
    int64_t left = c->v.first + c->win.pl - (c->v.tap + (c->v.taps - 1) * c->v.step) * c->win.dw;
    top /= c->win.sh;
    left /= c->win.sw;
    for (int64_t r = 0; r < np; r++) {
        int64_t h = c->h.first + row * c->win.sh, w = c->v.first + col * c->win.sw;
        from[r] = (struct mpqc_origin){n, top + row, left + col};
        at[r] = ((n * xd[1] + h) * xd[2] + w) * xd[3];
        if (++col < c->v.count) continue;
        col = 0;
        if (++row < c->h.count) continue;
        row = 0;
        n++;
    }
}

/* panel[k][c] = w[tap of k][c][oc of k] */
static void pack_transposed(const struct mpqc_gemm *p, int64_t k0, int64_t k, int64_t c, int64_t n,
                            int64_t width, float *panel)
{
    const struct conv_dx *d = p->pack_user;
    const int64_t *wd = d->w->type.dims;
    while (k > 0) {
        int64_t tap = k0 / d->oc, o = k0 % d->oc, len = d->oc - o < k ? d->oc - o : k;
        int64_t kh = d->h.tap + (d->h.taps - 1 - tap / d->v.taps) * d->h.step;
        int64_t kw = d->v.tap + (d->v.taps - 1 - tap % d->v.taps) * d->v.step;
        const float *from = (const float *)d->w->data +
                            ((kh * wd[1] + kw) * wd[2] + c) * wd[3] + d->group * d->oc + o;
        mpqc_gemm_transpose(from, wd[3], n, len, panel, width);
        for (int64_t i = 0; n < width && i < len; i++)
            memset(panel + i * width + n, 0, (size_t)(width - n) * sizeof *panel);
        panel += len * width;
        k0 += len;
        k -= len;
    }
}

/* Rows of the product: up to MPQC_GEMM_ROWS input pixels of a phase from `first` on. */
static void dx_rows(const struct conv_dx *c, int64_t first, int64_t np)
{
    _Alignas(64) float rows[MPQC_GEMM_ROWS * MPQC_GEMM_K];
    struct mpqc_origin from[MPQC_GEMM_ROWS];
    int64_t at[MPQC_GEMM_ROWS], depth = c->h.taps * c->v.taps * c->oc;
    bool dense = c->win.sh == 1 && c->win.sw == 1;
    float *out = (float *)c->dx->data + c->group * c->ic;
    outputs_at(c, first, np, from, at);
    const struct mpqc_rows window = {.x = c->dy,
                                     .nw = c->v.taps,
                                     .dh = c->h.step * c->win.dh / c->win.sh,
                                     .dw = c->v.step * c->win.dw / c->win.sw,
                                     .channels = c->oc,
                                     .first_channel = c->group * c->oc};
    struct mpqc_gemm p = {.pack = pack_transposed,
                          .pack_user = c,
                          .cols = c->ic,
                          .out_f32 = dense ? out + at[0] : out,
                          .out_stride = c->dx->type.dims[3],
                          .out_row = dense ? NULL : at};
    for (int64_t k0 = 0; k0 < depth; k0 += MPQC_GEMM_K) {
        int64_t k = depth - k0 < MPQC_GEMM_K ? depth - k0 : MPQC_GEMM_K;
        mpqc_rows_load(&window, from, np, k0, k, rows, MPQC_GEMM_K);
        mpqc_gemm_clear_rest(rows, np, k);
        mpqc_gemm_add(&p, rows, np, k0, k);
    }
}

/* ---- depthwise: one channel in and out a group ------------------------------------- */

MPQC_CLONES static void multiply_add(const float *restrict a, const float *restrict b,
                                     float *restrict sum, int64_t n)
{
    for (int64_t i = 0; i < n; i++) sum[i] += a[i] * b[i];
}

/* Calls multiply_add for every output pixel and tap inside: x and dy are by pixel, w by
 * tap; the one that is the sum is not const. */
struct depthwise {
    const float *a, *b;
    float *sum;
    bool by_input; /* a is dy, b is w, sum is dx; else a is x, b is dy, sum is dw */
    int64_t channels;
};

static void depthwise_row(const struct depthwise *d, const struct mpqc_window *w,
                          const struct mpqc_type *x, const struct mpqc_type *y, int64_t n,
                          int64_t oh)
{
    for (int64_t kh = 0; kh < w->kh; kh++) {
        int64_t h = oh * w->sh - w->pt + kh * w->dh;
        if (h < 0 || h >= x->dims[1]) continue;
        for (int64_t kw = 0; kw < w->kw; kw++) {
            int64_t tap = (kh * w->kw + kw) * d->channels, left = kw * w->dw - w->pl;
            for (int64_t ow = 0; ow < y->dims[2]; ow++) {
                int64_t v = ow * w->sw + left;
                if (v < 0 || v >= x->dims[2]) continue;
                int64_t in = ((n * x->dims[1] + h) * x->dims[2] + v) * d->channels;
                int64_t out = ((n * y->dims[1] + oh) * y->dims[2] + ow) * d->channels;
                if (d->by_input)
                    multiply_add(d->a + out, d->b + tap, d->sum + in, d->channels);
                else
                    multiply_add(d->a + in, d->b + out, d->sum + tap, d->channels);
            }
        }
    }
}

static void depthwise(const struct depthwise *d, const struct mpqc_window *w,
                      const struct mpqc_type *x, const struct mpqc_type *y)
{
    for (int64_t n = 0; n < y->dims[0]; n++) {
        for (int64_t oh = 0; oh < y->dims[1]; oh++) depthwise_row(d, w, x, y, n, oh);
    }
}

/* ---- the two kernels ------------------------------------------------------------------ */

static void dx_phase(const struct conv_dx *c)
{
    int64_t pixels = c->dx->type.dims[0] * c->h.count * c->v.count;
    if (c->h.taps == 0 || c->v.taps == 0) return;
    for (int64_t p = 0; p < pixels; p += MPQC_GEMM_ROWS)
        dx_rows(c, p, pixels - p < MPQC_GEMM_ROWS ? pixels - p : MPQC_GEMM_ROWS);
}

void mpqc_ref_conv_dx(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                      struct mpqc_tensor *const *out)
{
    const struct mpqc_tensor *dy = in[0], *w = in[1];
    const int64_t *wd = w->type.dims, *xd = out[0]->type.dims;
    int64_t groups = mpqc_attr_int_or(n, MPQC_ATTR_GROUP, 1);
    struct conv_dx c = {.dy = dy,
                        .w = w,
                        .dx = out[0],
                        .win = mpqc_window_of(n, wd[0], wd[1]),
                        .ic = wd[2],
                        .oc = wd[3] / groups};
    memset(out[0]->data, 0, mpqc_type_bytes(&out[0]->type));
    if (c.ic == 1 && c.oc == 1) {
        struct depthwise d = {.a = dy->data,
                              .b = w->data,
                              .sum = out[0]->data,
                              .by_input = true,
                              .channels = wd[3]};
        depthwise(&d, &c.win, &out[0]->type, &dy->type);
        return;
    }
    /* A stride beyond the input leaves phases without pixels. */
    for (int64_t h = 0; h < c.win.sh && h < xd[1]; h++) {
        c.h = phase_of(h, xd[1], c.win.sh, c.win.dh, c.win.pt, c.win.kh);
        for (int64_t v = 0; v < c.win.sw && v < xd[2]; v++) {
            c.v = phase_of(v, xd[2], c.win.sw, c.win.dw, c.win.pl, c.win.kw);
            for (c.group = 0; c.group < groups; c.group++) dx_phase(&c);
        }
    }
}

struct conv_dw {
    struct mpqc_rows from;
    struct mpqc_window win;
    int64_t oh, ow;
};

/* x[r][q] = element k0 + r of the window of output pixel p0 + q. */
static void load_transposed(const struct conv_dw *c, int64_t k0, int64_t rows, int64_t p0,
                            int64_t np, float *x)
{
    enum { SOME = 16 };
    _Alignas(64) float windows[SOME * MPQC_GEMM_ROWS];
    struct mpqc_origin at[SOME];
    for (int64_t q = 0; q < np; q += SOME) {
        int64_t some = np - q < SOME ? np - q : SOME;
        mpqc_window_origins(&c->win, c->oh, c->ow, p0 + q, some, at);
        mpqc_rows_load(&c->from, at, some, k0, rows, windows, MPQC_GEMM_ROWS);
        mpqc_gemm_transpose(windows, MPQC_GEMM_ROWS, some, rows, x + q, MPQC_GEMM_K);
    }
}

/* All of one group, which has `oc` output channels. */
static void dw_group(const struct conv_dw *c, const struct mpqc_tensor *dy, int64_t group,
                     int64_t oc, struct mpqc_tensor *dw)
{
    const int64_t *wd = dw->type.dims, *yd = dy->type.dims;
    int64_t pixels = yd[0] * yd[1] * yd[2], depth = wd[0] * wd[1] * wd[2];
    _Alignas(64) float rows[MPQC_GEMM_ROWS * MPQC_GEMM_K];
    struct mpqc_gemm p = {.w_dtype = MPQC_DT_F32,
                          .w = (const float *)dy->data + group * oc,
                          .w_stride = yd[3],
                          .cols = oc,
                          .out_stride = wd[3]};
    for (int64_t k0 = 0; k0 < depth; k0 += MPQC_GEMM_ROWS) {
        int64_t nk = depth - k0 < MPQC_GEMM_ROWS ? depth - k0 : MPQC_GEMM_ROWS;
        p.out_f32 = (float *)dw->data + k0 * wd[3] + group * oc;
        for (int64_t p0 = 0; p0 < pixels; p0 += MPQC_GEMM_K) {
            int64_t np = pixels - p0 < MPQC_GEMM_K ? pixels - p0 : MPQC_GEMM_K;
            load_transposed(c, k0, nk, p0, np, rows);
            mpqc_gemm_clear_rest(rows, nk, np);
            mpqc_gemm_add(&p, rows, nk, p0, np);
        }
    }
}

void mpqc_ref_conv_dw(const struct mpqc_node *n, const struct mpqc_tensor *const *in,
                      struct mpqc_tensor *const *out)
{
    const struct mpqc_tensor *x = in[0], *dy = in[1];
    const int64_t *wd = out[0]->type.dims, *yd = dy->type.dims;
    int64_t groups = mpqc_attr_int_or(n, MPQC_ATTR_GROUP, 1), ic = wd[2], oc = wd[3] / groups;
    struct mpqc_window win = mpqc_window_of(n, wd[0], wd[1]);
    memset(out[0]->data, 0, mpqc_type_bytes(&out[0]->type));
    if (ic == 1 && oc == 1) {
        struct depthwise d = {
            .a = x->data, .b = dy->data, .sum = out[0]->data, .channels = wd[3]};
        depthwise(&d, &win, &x->type, &dy->type);
        return;
    }
    for (int64_t g = 0; g < groups; g++) {
        const struct conv_dw c = {
            .from = {.x = x,
                     .nw = wd[1],
                     .dh = win.dh,
                     .dw = win.dw,
                     .channels = ic,
                     .first_channel = g * ic},
            .win = win,
            .oh = yd[1],
            .ow = yd[2]};
        dw_group(&c, dy, g, oc, out[0]);
    }
}
