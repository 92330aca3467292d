/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Convolutions, pools and batch normalisation.  ONNX has channels first, the IR last:
 * each operator is put between two transposes, which `simplify` cancels along chains.
 * One-dimensional forms become two-dimensional ones of height 1.
 */
#include "frontend/ops.h"

/* ---- windows ---------------------------------------------------------------------- */

/* A window along the spatial axes (1 or 2). */
struct window {
    uint32_t rank;
    int64_t kernel[2], stride[2], dilation[2], before[2], after[2];
    int64_t extra[2]; /* cells behind the padding that ceil_mode adds */
};

/* Strides, dilations and pads fit in 31 bits, so that their products fit in 63. */
#define WINDOW_LIMIT ((int64_t)1 << 31)

static mpqc_status read_list(struct mpqc_imp_node *n, const char *name, uint32_t want,
                             int64_t least, int64_t otherwise, int64_t *out)
{
    uint32_t count;
    const int64_t *list;
    MPQC_TRY(mpqc_imp_ints(n, name, &count, &list));
    if (list && count != want)
        return mpqc_imp_invalid(n, "attribute '%s' has %u numbers instead of %u", name, count,
                                want);
    for (uint32_t i = 0; i < want; i++) {
        out[i] = list ? list[i] : otherwise;
        if (out[i] < least || out[i] >= WINDOW_LIMIT)
            return mpqc_imp_invalid(n, "attribute '%s' holds %lld", name, (long long)out[i]);
    }
    return MPQC_OK;
}

/* The extent of a dilated kernel. */
static int64_t reach(const struct window *w, uint32_t i)
{
    return (w->kernel[i] - 1) * w->dilation[i] + 1;
}

/* SAME: as many outputs as strides fit in, the padding split with the odd one at the
 * end (UPPER) or at the beginning (LOWER). */
static void pad_same(struct window *w, const int64_t *in, bool lower)
{
    for (uint32_t i = 0; i < w->rank; i++) {
        int64_t out = (in[i] + w->stride[i] - 1) / w->stride[i];
        int64_t total = (out - 1) * w->stride[i] + reach(w, i) - in[i];
        if (total < 0) total = 0;
        w->before[i] = lower ? total - total / 2 : total / 2;
        w->after[i] = total - w->before[i];
    }
}

/* ceil_mode: one more output where a window would only start inside the input or the
 * padding before it; the cells that it lacks are `extra`. */
static void add_ceil(struct window *w, const int64_t *in)
{
    for (uint32_t i = 0; i < w->rank; i++) {
        int64_t padded = in[i] + w->before[i] + w->after[i], span = padded - reach(w, i);
        if (span < 0) continue; /* inference will refuse it */
        int64_t last = (span + w->stride[i] - 1) / w->stride[i]; /* outputs - 1 */
        if (last * w->stride[i] >= in[i] + w->before[i]) last--;
        int64_t need = last * w->stride[i] + reach(w, i);
        if (need > padded) w->extra[i] = need - padded;
    }
}

/* Everything but the kernel, which the caller has filled in. */
static mpqc_status read_window(struct mpqc_imp_node *n, struct window *w, const int64_t *in)
{
    const char *pad;
    int64_t pads[4], ceil_mode = 0;
    uint32_t r = w->rank;
    MPQC_TRY(read_list(n, "strides", r, 1, 1, w->stride));
    MPQC_TRY(read_list(n, "dilations", r, 1, 1, w->dilation));
    for (uint32_t i = 0; i < r; i++)
        if (w->kernel[i] < 1 || w->kernel[i] >= WINDOW_LIMIT)
            return mpqc_imp_invalid(n, "a kernel of size %lld", (long long)w->kernel[i]);
    MPQC_TRY(mpqc_imp_string(n, "auto_pad", "NOTSET", &pad));
    if (!strcmp(pad, "NOTSET")) {
        MPQC_TRY(read_list(n, "pads", 2 * r, 0, 0, pads));
        for (uint32_t i = 0; i < r; i++) {
            w->before[i] = pads[i];
            w->after[i] = pads[r + i];
        }
    } else if (!strcmp(pad, "SAME_UPPER") || !strcmp(pad, "SAME_LOWER")) {
        pad_same(w, in, !strcmp(pad, "SAME_LOWER"));
    } else if (strcmp(pad, "VALID")) {
        return mpqc_imp_invalid(n, "auto_pad '%.40s' is unknown", pad);
    }
    MPQC_TRY(mpqc_imp_int(n, "ceil_mode", 0, &ceil_mode));
    if (ceil_mode && strncmp(pad, "SAME", 4)) add_ceil(w, in);
    return MPQC_OK;
}

/* As attributes; a one-dimensional window lies in the last axis. */
static void window_attrs(const struct window *w, struct mpqc_attrs *a, int64_t list[8])
{
    int64_t *stride = list, *dilation = list + 2, *pads = list + 4;
    stride[0] = dilation[0] = 1;
    pads[0] = pads[2] = 0;
    for (uint32_t i = 0; i < w->rank; i++) {
        uint32_t at = i + 2 - w->rank;
        stride[at] = w->stride[i];
        dilation[at] = w->dilation[i];
        pads[at] = w->before[i];
        pads[2 + at] = w->after[i] + w->extra[i];
    }
    mpqc_attrs_ints(a, MPQC_ATTR_STRIDES, 2, stride);
    mpqc_attrs_ints(a, MPQC_ATTR_DILATIONS, 2, dilation);
    mpqc_attrs_ints(a, MPQC_ATTR_PADS, 4, pads);
}

/* ---- layout ----------------------------------------------------------------------- */

/* x[N,C,L] or x[N,C,H,W], or weights alike, as rank 4. */
static mpqc_status as_image(struct mpqc_imp_node *n, mpqc_vid x, mpqc_vid *out)
{
    const struct mpqc_type *t = mpqc_imp_type(n, x);
    *out = x;
    if (t->rank == 4) return MPQC_OK;
    const int64_t dims[4] = {t->dims[0], t->dims[1], 1, t->dims[2]};
    return mpqc_imp_reshape(n, x, 4, dims, out);
}

static mpqc_status to_channels_last(struct mpqc_imp_node *n, mpqc_vid x, mpqc_vid *out)
{
    MPQC_TRY(as_image(n, x, &x));
    return mpqc_imp_transpose(n, x, (const int64_t[]){0, 2, 3, 1}, out);
}

/* Back to channels first, and to the rank that the input had. */
static mpqc_status to_channels_first(struct mpqc_imp_node *n, mpqc_vid y, uint32_t spatial,
                                     mpqc_vid *out)
{
    MPQC_TRY(mpqc_imp_transpose(n, y, (const int64_t[]){0, 3, 1, 2}, &y));
    *out = y;
    if (spatial == 2) return MPQC_OK;
    const int64_t *d = mpqc_imp_type(n, y)->dims, dims[3] = {d[0], d[1], d[3]};
    return mpqc_imp_reshape(n, y, 3, dims, out);
}

static mpqc_status spatial_rank(struct mpqc_imp_node *n, uint32_t *out)
{
    uint32_t rank = mpqc_imp_type(n, n->in[0])->rank;
    if (rank != 3 && rank != 4)
        return mpqc_imp_unsupported(n, "an input of rank %u; 3 and 4 are supported", rank);
    *out = rank - 2;
    return MPQC_OK;
}

/* ---- convolution ------------------------------------------------------------------ */

static mpqc_status conv_kernel(struct mpqc_imp_node *n, struct window *w)
{
    const struct mpqc_type *t = mpqc_imp_type(n, n->in[1]);
    uint32_t count;
    const int64_t *kernel;
    if (t->rank != w->rank + 2 || t->dtype != MPQC_DT_F32)
        return mpqc_imp_invalid(n, "the weights have rank %u and type %s", t->rank,
                                mpqc_dtypes[t->dtype].text);
    MPQC_TRY(mpqc_imp_ints(n, "kernel_shape", &count, &kernel));
    for (uint32_t i = 0; i < w->rank; i++) {
        w->kernel[i] = t->dims[2 + i];
        if (kernel && (count != w->rank || kernel[i] != w->kernel[i]))
            return mpqc_imp_invalid(n, "kernel_shape contradicts the weights' shape");
    }
    return MPQC_OK;
}

mpqc_status mpqc_on_conv(struct mpqc_imp_node *n)
{
    struct window w = {0};
    struct mpqc_attrs a = {0};
    int64_t lists[8], group;
    mpqc_vid in[3], y;
    MPQC_TRY(spatial_rank(n, &w.rank));
    MPQC_TRY(conv_kernel(n, &w));
    MPQC_TRY(read_window(n, &w, mpqc_imp_type(n, n->in[0])->dims + 2));
    MPQC_TRY(mpqc_imp_int(n, "group", 1, &group));
    const int64_t *xd = mpqc_imp_type(n, n->in[0])->dims, *wd = mpqc_imp_type(n, n->in[1])->dims;
    if (group < 1 || xd[1] % group || wd[0] % group || xd[1] / group != wd[1])
        return mpqc_imp_invalid(n, "%lld input channels and %lld groups do not fit weights for "
                                   "%lld input and %lld output channels", (long long)xd[1],
                                (long long)group, (long long)wd[1], (long long)wd[0]);
    MPQC_TRY(to_channels_last(n, n->in[0], &in[0]));
    MPQC_TRY(as_image(n, n->in[1], &in[1])); /* OIHW to HWIO */
    MPQC_TRY(mpqc_imp_transpose(n, in[1], (const int64_t[]){2, 3, 1, 0}, &in[1]));
    in[2] = mpqc_imp_in(n, 2);
    window_attrs(&w, &a, lists);
    mpqc_attrs_int(&a, MPQC_ATTR_GROUP, group);
    MPQC_TRY(mpqc_imp_emit(n, MPQC_OP_CONV, in, in[2] == MPQC_NONE ? 2 : 3, &a, &y));
    return to_channels_first(n, y, w.rank, &n->out[0]);
}

/* ---- transposed convolution ------------------------------------------------------- */

/* ONNX: out = stride (in - 1) + output_padding + reach - before - after. */
static mpqc_status transposed_pads(struct mpqc_imp_node *n, struct window *w, const int64_t *in,
                                   int64_t more[2])
{
    uint32_t count;
    const int64_t *shape;
    const char *pad;
    MPQC_TRY(read_window(n, w, in)); /* pads of SAME are recomputed below */
    MPQC_TRY(read_list(n, "output_padding", w->rank, 0, 0, more));
    MPQC_TRY(mpqc_imp_ints(n, "output_shape", &count, &shape));
    MPQC_TRY(mpqc_imp_string(n, "auto_pad", "NOTSET", &pad));
    bool same = !strncmp(pad, "SAME", 4);
    if (shape && count != w->rank) return mpqc_imp_invalid(n, "output_shape has %u numbers", count);
    if (!shape && !same) return MPQC_OK;
    for (uint32_t i = 0; i < w->rank; i++) {
        int64_t out = shape ? shape[i] : in[i] * w->stride[i];
        int64_t total = w->stride[i] * (in[i] - 1) + more[i] + reach(w, i) - out;
        if (out < 1 || out >= WINDOW_LIMIT)
            return mpqc_imp_invalid(n, "output_shape holds %lld", (long long)out);
        bool lower = strcmp(pad, "SAME_UPPER") != 0;
        w->before[i] = lower ? total - total / 2 : total / 2;
        if (total < 0) w->before[i] = 0; /* what is missing is appended */
        w->after[i] = total - w->before[i];
    }
    return MPQC_OK;
}

/* W[I, O/group, KH, KW] to [KH, KW, I/group, O], taps reversed. */
static mpqc_status transposed_weights(struct mpqc_imp_node *n, int64_t group, mpqc_vid w,
                                      mpqc_vid *out)
{
    const struct mpqc_type *t = mpqc_imp_type(n, w);
    int64_t ci = t->dims[0] / group, co = t->dims[1], kh = t->dims[2], kw = t->dims[3];
    const int64_t split[5] = {group, ci, co, kh, kw};
    /* A slice with negative steps reverses the taps. */
    const int64_t begin[5] = {0, 0, 0, kh - 1, kw - 1}, step[5] = {1, 1, 1, -1, -1};
    const int64_t join[4] = {kh, kw, ci, group * co};
    MPQC_TRY(mpqc_imp_reshape(n, w, 5, split, &w));
    MPQC_TRY(mpqc_imp_slice(n, w, begin, split, step, &w));
    MPQC_TRY(mpqc_imp_transpose(n, w, (const int64_t[]){3, 4, 1, 0, 2}, &w));
    return mpqc_imp_reshape(n, w, 4, join, out);
}

/* stride - 1 zeros after every pixel but the last: x[N,H,W,C]. */
static mpqc_status spread(struct mpqc_imp_node *n, mpqc_vid x, int64_t sh, int64_t sw,
                          mpqc_vid *out)
{
    const int64_t *d = mpqc_imp_type(n, x)->dims;
    const int64_t N = d[0], h = d[1], w = d[2], c = d[3];
    const int64_t before[6] = {0}, after[6] = {0, 0, sh - 1, 0, sw - 1, 0};
    const int64_t zero[4] = {0}, one[4] = {1, 1, 1, 1};
    *out = x;
    if (sh == 1 && sw == 1) return MPQC_OK;
    MPQC_TRY(mpqc_imp_reshape(n, x, 6, (const int64_t[]){N, h, 1, w, 1, c}, &x));
    MPQC_TRY(mpqc_imp_pad(n, x, before, after, "constant", 0, &x));
    MPQC_TRY(mpqc_imp_reshape(n, x, 4, (const int64_t[]){N, h * sh, w * sw, c}, &x));
    const int64_t keep[4] = {N, h * sh - (sh - 1), w * sw - (sw - 1), c};
    return mpqc_imp_slice(n, x, zero, keep, one, out);
}

/* Adds pads[top, left, bottom, right]; negative ones cut. */
static mpqc_status pad_or_cut(struct mpqc_imp_node *n, mpqc_vid x, int64_t pads[4], mpqc_vid *out)
{
    const int64_t *d = mpqc_imp_type(n, x)->dims;
    int64_t begin[4] = {0}, keep[4] = {d[0], d[1], d[2], d[3]};
    const int64_t one[4] = {1, 1, 1, 1};
    for (uint32_t i = 0; i < 2; i++) {
        int64_t cut_before = pads[i] < 0 ? -pads[i] : 0;
        int64_t cut_after = pads[2 + i] < 0 ? -pads[2 + i] : 0;
        begin[1 + i] = cut_before;
        keep[1 + i] -= cut_before + cut_after;
        if (keep[1 + i] < 1) return mpqc_imp_unsupported(n, "padding that removes everything");
        if (pads[i] < 0) pads[i] = 0;
        if (pads[2 + i] < 0) pads[2 + i] = 0;
    }
    return mpqc_imp_slice(n, x, begin, keep, one, out);
}

mpqc_status mpqc_on_conv_transpose(struct mpqc_imp_node *n)
{
    struct window w = {0};
    int64_t group, more[2] = {0}, pads[4] = {0}, dilation[2] = {1, 1}, stride[2] = {1, 1};
    mpqc_vid in[3], y;
    MPQC_TRY(spatial_rank(n, &w.rank));
    if (!mpqc_is_const(n->im->g, n->in[1]))
        return mpqc_imp_unsupported(n, "weights that are not constant");
    MPQC_TRY(conv_kernel(n, &w));
    MPQC_TRY(transposed_pads(n, &w, mpqc_imp_type(n, n->in[0])->dims + 2, more));
    MPQC_TRY(mpqc_imp_int(n, "group", 1, &group));
    const int64_t *xd = mpqc_imp_type(n, n->in[0])->dims, *wd = mpqc_imp_type(n, n->in[1])->dims;
    if (group < 1 || xd[1] != wd[0] || wd[0] % group)
        return mpqc_imp_invalid(n, "%lld input channels and %lld groups do not fit the weights",
                                (long long)xd[1], (long long)group);
    MPQC_TRY(to_channels_last(n, n->in[0], &in[0]));
    MPQC_TRY(as_image(n, n->in[1], &in[1]));
    MPQC_TRY(transposed_weights(n, group, in[1], &in[1]));
    in[2] = mpqc_imp_in(n, 2);
    for (uint32_t i = 0; i < w.rank; i++) {
        uint32_t at = i + 2 - w.rank;
        stride[at] = w.stride[i];
        dilation[at] = w.dilation[i];
        pads[at] = reach(&w, i) - 1 - w.before[i];
        pads[2 + at] = reach(&w, i) - 1 - w.after[i] + more[i];
    }
    MPQC_TRY(spread(n, in[0], stride[0], stride[1], &in[0]));
    MPQC_TRY(pad_or_cut(n, in[0], pads, &in[0]));
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_STRIDES, 2, (const int64_t[]){1, 1});
    mpqc_attrs_ints(&a, MPQC_ATTR_DILATIONS, 2, dilation);
    mpqc_attrs_ints(&a, MPQC_ATTR_PADS, 4, pads);
    mpqc_attrs_int(&a, MPQC_ATTR_GROUP, group);
    MPQC_TRY(mpqc_imp_emit(n, MPQC_OP_CONV, in, in[2] == MPQC_NONE ? 2 : 3, &a, &y));
    return to_channels_first(n, y, w.rank, &n->out[0]);
}

/* ---- pools ------------------------------------------------------------------------ */

static mpqc_status pool_window(struct mpqc_imp_node *n, struct window *w)
{
    MPQC_TRY(spatial_rank(n, &w->rank));
    if (!mpqc_imp_attr(n, "kernel_shape")) return mpqc_imp_invalid(n, "kernel_shape is missing");
    MPQC_TRY(read_list(n, "kernel_shape", w->rank, 1, 1, w->kernel));
    return read_window(n, w, mpqc_imp_type(n, n->in[0])->dims + 2);
}

static mpqc_status emit_pool(struct mpqc_imp_node *n, enum mpqc_op op, mpqc_vid x,
                             const struct window *w, bool count_pad, mpqc_vid *out)
{
    struct mpqc_attrs a = {0};
    int64_t lists[8], kernel[2] = {1, 1};
    mpqc_vid y;
    for (uint32_t i = 0; i < w->rank; i++) kernel[i + 2 - w->rank] = w->kernel[i];
    window_attrs(w, &a, lists);
    mpqc_attrs_ints(&a, MPQC_ATTR_KERNEL, 2, kernel);
    if (count_pad) mpqc_attrs_int(&a, MPQC_ATTR_COUNT_PAD, 1);
    MPQC_TRY(mpqc_imp_emit(n, op, &x, 1, &a, &y));
    return to_channels_first(n, y, w->rank, out);
}

mpqc_status mpqc_on_maxpool(struct mpqc_imp_node *n)
{
    struct window w = {0};
    mpqc_vid x;
    MPQC_TRY(pool_window(n, &w));
    MPQC_TRY(to_channels_last(n, n->in[0], &x));
    return emit_pool(n, MPQC_OP_MAXPOOL, x, &w, false, &n->out[0]);
}

/* count_include_pad counts the padding, but not the cells that ceil_mode adds: where
 * both meet, the padding becomes a node of its own. */
mpqc_status mpqc_on_avgpool(struct mpqc_imp_node *n)
{
    struct window w = {0};
    int64_t count_pad, before[4] = {0}, after[4] = {0};
    mpqc_vid x;
    MPQC_TRY(pool_window(n, &w));
    MPQC_TRY(mpqc_imp_int(n, "count_include_pad", 0, &count_pad));
    MPQC_TRY(to_channels_last(n, n->in[0], &x));
    bool padded = false, extra = false;
    for (uint32_t i = 0; i < w.rank; i++) {
        padded = padded || w.before[i] || w.after[i];
        extra = extra || w.extra[i];
    }
    if (count_pad && padded && extra) {
        for (uint32_t i = 0; i < w.rank; i++) {
            uint32_t at = i + 3 - w.rank;
            before[at] = w.before[i];
            after[at] = w.after[i];
            w.before[i] = w.after[i] = 0;
        }
        MPQC_TRY(mpqc_imp_pad(n, x, before, after, "constant", 0, &x));
    }
    return emit_pool(n, MPQC_OP_AVGPOOL, x, &w, count_pad && padded && !extra, &n->out[0]);
}

mpqc_status mpqc_on_global_pool(struct mpqc_imp_node *n)
{
    int64_t axes[MPQC_MAX_RANK];
    uint32_t rank = mpqc_imp_type(n, n->in[0])->rank;
    if (rank < 2) return mpqc_imp_invalid(n, "an input of rank %u", rank);
    for (uint32_t i = 2; i < rank; i++) axes[i - 2] = i;
    return mpqc_imp_reduce(n, n->row->op, n->in[0], rank - 2, axes, &n->out[0]);
}

/* ---- batch normalisation, dropout ------------------------------------------------- */

mpqc_status mpqc_on_batchnorm(struct mpqc_imp_node *n)
{
    float epsilon;
    int64_t training, spatial, perm[MPQC_MAX_RANK], back[MPQC_MAX_RANK];
    const struct mpqc_type *t = mpqc_imp_type(n, n->in[0]);
    uint32_t rank = t->rank;
    MPQC_TRY(mpqc_imp_float(n, "epsilon", 1e-5f, &epsilon));
    MPQC_TRY(mpqc_imp_int(n, "training_mode", 0, &training));
    MPQC_TRY(mpqc_imp_int(n, "spatial", 1, &spatial));
    if (training) return mpqc_imp_unsupported(n, "training_mode=1 is not supported");
    if (!spatial && rank > 2) return mpqc_imp_unsupported(n, "spatial=0 is not supported");
    if (rank < 2) return mpqc_imp_unsupported(n, "an input of rank %u", rank);
    perm[0] = back[0] = 0;
    perm[rank - 1] = 1;
    for (uint32_t i = 2; i < rank; i++) perm[i - 1] = i;
    back[1] = rank - 1;
    for (uint32_t i = 2; i < rank; i++) back[i] = i - 1;
    mpqc_vid in[5], y;
    for (uint32_t i = 0; i < 5; i++) in[i] = n->in[i];
    for (uint32_t i = 1; i < 5; i++)
        if (in[i] == MPQC_NONE) return mpqc_imp_invalid(n, "input %u is missing", i);
    struct mpqc_attrs a = {0};
    mpqc_attrs_float(&a, MPQC_ATTR_EPSILON, epsilon);
    MPQC_TRY(mpqc_imp_transpose(n, in[0], perm, &in[0]));
    MPQC_TRY(mpqc_imp_emit(n, MPQC_OP_BATCHNORM, in, 5, &a, &y));
    return mpqc_imp_transpose(n, y, back, &n->out[0]);
}

/* In inference the identity, with a mask of ones (ONNX: bool from opset 10 on). */
mpqc_status mpqc_on_dropout(struct mpqc_imp_node *n)
{
    bool present;
    double training = 0;
    MPQC_TRY(mpqc_imp_const_number(n, 2, "training_mode", &present, &training));
    if (present && training != 0)
        return mpqc_imp_unsupported(n, "training_mode=1 is not supported");
    const struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    n->out[0] = n->in[0];
    if (!mpqc_imp_wants(n, 1)) return MPQC_OK;
    return mpqc_imp_filled(n, n->im->opset < 10 ? t.dtype : MPQC_DT_BOOL, t.rank, t.dims, 1,
                           &n->out[1]);
}
