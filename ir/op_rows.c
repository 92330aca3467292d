/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Rows for the multiplication of op_gemm.c: windows of tensors [N,H,W,C], flattened.
 * Channels-last, so all taps of one row of a window lie side by side in memory when
 * their distance is one pixel and the group has all channels.
 */
#include "ir/op.h"

void mpqc_gemm_clear_rest(float *x, int64_t rows, int64_t k)
{
    for (; rows % MPQC_GEMM_TILE != 0; rows++)
        memset(x + rows * MPQC_GEMM_K, 0, (size_t)k * sizeof *x);
}

void mpqc_window_origins(const struct mpqc_window *w, int64_t oh, int64_t ow, int64_t first,
                         int64_t n, struct mpqc_origin *o)
{
    int64_t image = first / (oh * ow), row = first / ow % oh, col = first % ow;
    for (int64_t i = 0; i < n; i++) {
        o[i] = (struct mpqc_origin){image, row * w->sh - w->pt, col * w->sw - w->pl};
        if (++col < ow) continue;
        col = 0;
        if (++row < oh) continue;
        row = 0;
        image++;
    }
}

/* Elements [from, to) of row i of the window at *o, whose taps are contiguous. */
static void load_run(const struct mpqc_rows *p, const struct mpqc_origin *o, int64_t i,
                     int64_t from, int64_t to, float *out)
{
    const int64_t *dims = p->x->type.dims;
    int64_t h = o->top + i * p->dh, first = o->left < 0 ? -o->left : 0, end = dims[2] - o->left;
    first *= p->channels;
    end = (end < p->nw ? end : p->nw) * p->channels;
    if (h < 0 || h >= dims[1] || end <= first) first = end = to; /* all of it is padding */
    first = first < from ? from : first > to ? to : first;
    end = end > to ? to : end < first ? first : end;
    if (first > from) memset(out, 0, (size_t)(first - from) * sizeof *out);
    if (end > first)
        mpqc_gemm_load(p->x->type.dtype, p->x->data,
                       ((o->n * dims[1] + h) * dims[2] + o->left) * dims[3] + first, end - first,
                       p->zero, out + (first - from));
    if (to > end) memset(out + (end - from), 0, (size_t)(to - end) * sizeof *out);
}

/* Elements [from, to) of tap (i, j). */
static void load_tap(const struct mpqc_rows *p, const struct mpqc_origin *o, int64_t i, int64_t j,
                     int64_t from, int64_t to, float *out)
{
    const int64_t *dims = p->x->type.dims;
    int64_t h = o->top + i * p->dh, w = o->left + j * p->dw;
    if (h < 0 || h >= dims[1] || w < 0 || w >= dims[2])
        memset(out, 0, (size_t)(to - from) * sizeof *out);
    else
        mpqc_gemm_load(p->x->type.dtype, p->x->data,
                       ((o->n * dims[1] + h) * dims[2] + w) * dims[3] + p->first_channel + from,
                       to - from, p->zero, out);
}

void mpqc_rows_load(const struct mpqc_rows *p, const struct mpqc_origin *o, int64_t rows,
                    int64_t k0, int64_t k, float *to, int64_t to_stride)
{
    bool whole = p->dw == 1 && p->channels == p->x->type.dims[3];
    int64_t unit = whole ? p->nw * p->channels : p->channels;
    for (int64_t done = 0; done < k;) {
        int64_t part = (k0 + done) / unit, from = (k0 + done) % unit;
        int64_t len = unit - from < k - done ? unit - from : k - done;
        int64_t i = whole ? part : part / p->nw, j = whole ? 0 : part % p->nw;
        for (int64_t r = 0; r < rows; r++) {
            float *out = to + r * to_stride + done;
            if (whole) load_run(p, &o[r], i, from, from + len, out);
            else load_tap(p, &o[r], i, j, from, from + len, out);
        }
        done += len;
    }
}

/* ---- transposition --------------------------------------------------------------- */

typedef float four __attribute__((vector_size(16)));
typedef float loose_four __attribute__((vector_size(16), aligned(4), may_alias));

static void transpose_4x4(const float *from, int64_t from_stride, float *to, int64_t to_stride)
{
    four a = *(const loose_four *)from, b = *(const loose_four *)(from + from_stride);
    four c = *(const loose_four *)(from + 2 * from_stride);
    four d = *(const loose_four *)(from + 3 * from_stride);
    four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    four ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    four cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(loose_four *)to = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
    *(loose_four *)(to + to_stride) = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
    *(loose_four *)(to + 2 * to_stride) = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
    *(loose_four *)(to + 3 * to_stride) = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

/* At most BLOCK x BLOCK elements, so that each line of the cache is touched while it is
 * there: strides are often powers of two, whose lines throw each other out. */
#define BLOCK 16
static void transpose_block(const float *from, int64_t from_stride, int64_t rows, int64_t cols,
                            float *to, int64_t to_stride)
{
    int64_t whole_rows = rows / 4 * 4, whole_cols = cols / 4 * 4;
    for (int64_t c = 0; c < whole_cols; c += 4) {
        for (int64_t r = 0; r < whole_rows; r += 4)
            transpose_4x4(from + r * from_stride + c, from_stride, to + c * to_stride + r,
                          to_stride);
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = r < whole_rows ? whole_cols : 0; c < cols; c++)
            to[c * to_stride + r] = from[r * from_stride + c];
    }
}

void mpqc_gemm_transpose(const float *from, int64_t from_stride, int64_t rows, int64_t cols,
                         float *to, int64_t to_stride)
{
    for (int64_t r = 0; r < rows; r += BLOCK) {
        int64_t nr = rows - r < BLOCK ? rows - r : BLOCK;
        for (int64_t c = 0; c < cols; c += BLOCK)
            transpose_block(from + r * from_stride + c, from_stride, nr,
                            cols - c < BLOCK ? cols - c : BLOCK, to + c * to_stride + r,
                            to_stride);
    }
}
