/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Second moments of a layer's input, and the Cholesky decomposition of such matrices.
 * Both by the block product of ir/op_gemm.c, whose sums do not depend on the machine;
 * threads share rows of the result, so they do not depend on the threads either.
 */
#include "ir/op.h"
#include "passes/weights.h"

#include <math.h>

#define ROWS MPQC_GEMM_ROWS
#define DEPTH MPQC_GEMM_K

bool mpqc_moments_init(struct mpqc_moments *m, struct mpqc_arena *arena, int64_t k,
                       int64_t channels, bool target)
{
    *m = (struct mpqc_moments){.k = k, .channels = channels};
    m->xx = MPQC_NEW_ARRAY(arena, float, (size_t)(k * k));
    m->x = MPQC_NEW_ARRAY(arena, double, (size_t)k);
    if (target) {
        m->xt = MPQC_NEW_ARRAY(arena, float, (size_t)(k * channels));
        m->t = MPQC_NEW_ARRAY(arena, double, (size_t)channels);
    }
    return !arena->failed;
}

struct adder {
    struct mpqc_moments *m;
    int64_t n;
    const float *x, *t;
};

/* Rows [ROWS * strip, ...) of x^T x from the diagonal's block on, and of x^T t. */
static mpqc_status add_strip(void *user, unsigned worker, uint64_t strip)
{
    const struct adder *a = user;
    struct mpqc_moments *m = a->m;
    int64_t first = (int64_t)strip * ROWS, rows = m->k - first < ROWS ? m->k - first : ROWS;
    _Alignas(64) float xt[ROWS * DEPTH];
    (void)worker;
    for (int64_t n0 = 0; n0 < a->n; n0 += DEPTH) {
        int64_t n = a->n - n0 < DEPTH ? a->n - n0 : DEPTH;
        const float *x = a->x + n0 * m->k;
        mpqc_gemm_transpose(x + first, m->k, n, rows, xt, DEPTH);
        mpqc_gemm_clear_rest(xt, rows, n);
        struct mpqc_gemm p = {.w_dtype = MPQC_DT_F32, .w = x + first, .w_stride = m->k,
                              .cols = m->k - first, .out_f32 = m->xx + first * m->k + first,
                              .out_stride = m->k};
        mpqc_gemm_add(&p, xt, rows, 0, n);
        if (!a->t) continue;
        p.w = a->t + n0 * m->channels;
        p.w_stride = p.cols = p.out_stride = m->channels;
        p.out_f32 = m->xt + first * m->channels;
        mpqc_gemm_add(&p, xt, rows, 0, n);
    }
    return MPQC_OK;
}

mpqc_status mpqc_moments_add(struct mpqc_moments *m, unsigned threads, int64_t n, const float *x,
                             const float *t)
{
    struct adder a = {m, n, x, t};
    for (int64_t r = 0; r < n; r++) {
        for (int64_t i = 0; i < m->k; i++) m->x[i] += (double)x[r * m->k + i];
        for (int64_t i = 0; t && i < m->channels; i++) m->t[i] += (double)t[r * m->channels + i];
    }
    m->rows += (uint64_t)n;
    return mpqc_for_each(threads, (uint64_t)((m->k + ROWS - 1) / ROWS), add_strip, &a);
}

void mpqc_moments_finish(struct mpqc_moments *m, bool central)
{
    double n = m->rows ? (double)m->rows : 1;
    for (int64_t i = 0; i < m->k; i++) m->x[i] /= n;
    for (int64_t c = 0; m->t && c < m->channels; c++) m->t[c] /= n;
    for (int64_t i = 0; i < m->k; i++) {
        double mean = central ? m->x[i] : 0;
        for (int64_t j = i; j < m->k; j++) {
            float v = (float)((double)m->xx[i * m->k + j] / n - mean * m->x[j]);
            m->xx[i * m->k + j] = m->xx[j * m->k + i] = v;
        }
        for (int64_t c = 0; m->xt && c < m->channels; c++) {
            float *v = &m->xt[i * m->channels + c];
            *v = (float)((double)*v / n - mean * m->t[c]);
        }
    }
}

/* ---- Cholesky, right-looking, in panels of one block ------------------------------ */

struct cholesky {
    float *a, *panel; /* panel: [ROWS][n], the panel's columns as rows */
    int64_t n, first, width; /* of the panel */
    float least;
};

/* The block on the diagonal. */
static void factor_block(const struct cholesky *s)
{
    float *a = s->a + s->first * s->n + s->first;
    for (int64_t i = 0; i < s->width; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = (double)a[i * s->n + j];
            for (int64_t k = 0; k < j; k++)
                sum -= (double)a[i * s->n + k] * (double)a[j * s->n + k];
            if (j < i) a[i * s->n + j] = (float)(sum / (double)a[j * s->n + j]);
            else a[i * s->n + i] = sum > (double)s->least ? (float)sqrt(sum) : sqrtf(s->least);
        }
    }
}

/* ROWS rows below the block: solved against it, and copied to the panel. */
static mpqc_status solve_strip(void *user, unsigned worker, uint64_t strip)
{
    const struct cholesky *s = user;
    int64_t from = s->first + s->width + (int64_t)strip * ROWS;
    int64_t to = from + ROWS < s->n ? from + ROWS : s->n;
    const float *block = s->a + s->first * s->n + s->first;
    (void)worker;
    for (int64_t r = from; r < to; r++) {
        float *row = s->a + r * s->n + s->first;
        for (int64_t j = 0; j < s->width; j++) {
            double sum = (double)row[j];
            for (int64_t k = 0; k < j; k++) sum -= (double)row[k] * (double)block[j * s->n + k];
            row[j] = (float)(sum / (double)block[j * s->n + j]);
            s->panel[j * s->n + r] = row[j];
        }
    }
    return MPQC_OK;
}

/* What is left, minus the panel's product with itself; the lower triangle in blocks. */
static mpqc_status update_strip(void *user, unsigned worker, uint64_t strip)
{
    const struct cholesky *s = user;
    int64_t below = s->first + s->width, from = below + (int64_t)strip * ROWS;
    int64_t rows = s->n - from < ROWS ? s->n - from : ROWS;
    _Alignas(64) float x[ROWS * DEPTH];
    (void)worker;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < s->width; j++)
            x[r * DEPTH + j] = -s->a[(from + r) * s->n + s->first + j];
    mpqc_gemm_clear_rest(x, rows, s->width);
    struct mpqc_gemm p = {.w_dtype = MPQC_DT_F32, .w = s->panel + below, .w_stride = s->n,
                          .cols = from + rows - below, .out_f32 = s->a + from * s->n + below,
                          .out_stride = s->n};
    mpqc_gemm_add(&p, x, rows, 0, s->width);
    return MPQC_OK;
}

mpqc_status mpqc_cholesky(float *a, int64_t n, float least, unsigned threads)
{
    int64_t width = ROWS < DEPTH ? ROWS : DEPTH;
    struct cholesky s = {.a = a, .n = n, .least = least};
    s.panel = malloc((size_t)(n * width) * sizeof *s.panel);
    if (!s.panel) return MPQC_NO_MEMORY;
    for (s.first = 0; s.first < n; s.first += s.width) {
        s.width = n - s.first < width ? n - s.first : width;
        uint64_t strips = (uint64_t)((n - s.first - s.width + ROWS - 1) / ROWS);
        factor_block(&s);
        mpqc_status status = mpqc_for_each(threads, strips, solve_strip, &s);
        if (status == MPQC_OK) status = mpqc_for_each(threads, strips, update_strip, &s);
        if (status != MPQC_OK) {
            free(s.panel);
            return status;
        }
    }
    free(s.panel);
    return MPQC_OK;
}
