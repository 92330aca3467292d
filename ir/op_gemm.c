/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The inner loops of conv and matmul, fast enough to calibrate real networks.
 *
 * A block of rows is multiplied by a panel of weights, packed to the width of a
 * register tile: tile rows x tile columns of sums stay in registers while k runs.
 * Each sum adds its products one by one in the order of k with one rounding per
 * operation (no FMA), so every tile of every machine gives the same bits.
 *
 * Integers go the same way, as floats, exactly: |x - zero| <= 255 and
 * |w - zero| <= 255, so a sum of MPQC_GEMM_K = 256 products is at most
 * 255 * 255 * 256 < 2^24 in magnitude, and all whole numbers up to 2^24 are
 * floats.  Each such part is then added to the int32 sum.  Activations of 16 bits are
 * split into x = 128 high + low with |high| <= 256 and 0 <= low < 128: two products, each
 * of them exact as above (256 * 255 * 256 < 2^24).
 */
#include "ir/op.h"

#include <math.h>

#define SPLIT 128
_Static_assert(256 * 255 * MPQC_GEMM_K <= 1 << 24, "partial sums are exact in f32");

#define MAX_TILE_ROWS MPQC_GEMM_TILE
#define MAX_TILE_COLS 64
_Static_assert(MPQC_GEMM_ROWS % MAX_TILE_ROWS == 0, "rows come in whole tiles");

typedef void (*tile_fn)(const float *x, const float *w, int64_t w_stride, int64_t k, float *sum,
                        int64_t sum_stride);
struct tile {
    int rows, cols;
    tile_fn run;
};

/* sum[r][c] += sum over k of x[r][k] * w[k][c]: ROWS x (VECTORS * LANES) sums. */
#define TILE(name, attributes, LANES, ROWS, VECTORS)                                              \
    attributes static void name(const float *x, const float *w, int64_t w_stride, int64_t k,      \
                                float *sum, int64_t sum_stride)                                   \
    {                                                                                             \
        typedef float vec __attribute__((vector_size(LANES * 4)));                                \
        typedef float loose __attribute__((vector_size(LANES * 4), aligned(4), may_alias));       \
        vec s[ROWS][VECTORS];                                                                     \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++)                                   \
            _Pragma("GCC unroll 16") for (int v = 0; v < VECTORS; v++)                            \
                s[r][v] = *(const loose *)(sum + r * sum_stride + v * LANES);                     \
        for (int64_t i = 0; i < k; i++) {                                                         \
            vec b[VECTORS];                                                                       \
            _Pragma("GCC unroll 16") for (int v = 0; v < VECTORS; v++)                            \
                b[v] = *(const loose *)(w + i * w_stride + v * LANES);                            \
            _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++)                               \
                _Pragma("GCC unroll 16") for (int v = 0; v < VECTORS; v++)                        \
                    s[r][v] += x[r * MPQC_GEMM_K + i] * b[v];                                     \
        }                                                                                         \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++)                                   \
            _Pragma("GCC unroll 16") for (int v = 0; v < VECTORS; v++)                            \
                *(loose *)(sum + r * sum_stride + v * LANES) = s[r][v];                           \
    }

TILE(tile_128_wide, , 4, 6, 2)
TILE(tile_128_narrow, , 4, 12, 1)

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f")))
TILE(tile_256_wide, AVX2, 8, 6, 2)
TILE(tile_256_narrow, AVX2, 8, 12, 1)
TILE(tile_512_wide, AVX512, 16, 6, 4)
TILE(tile_512_middle, AVX512, 16, 12, 2)
TILE(tile_512_narrow, AVX512, 16, 12, 1)
#endif

/* The widest tile that `cols` columns fill, or the narrowest that covers them. */
static struct tile pick_tile(int64_t cols)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        if (cols > 32) return (struct tile){6, 64, tile_512_wide};
        if (cols > 16) return (struct tile){12, 32, tile_512_middle};
        if (cols > 8) return (struct tile){12, 16, tile_512_narrow};
        return (struct tile){12, 8, tile_256_narrow};
    }
    if (__builtin_cpu_supports("avx2")) {
        if (cols > 8) return (struct tile){6, 16, tile_256_wide};
        return (struct tile){12, 8, tile_256_narrow};
    }
#endif
    if (cols > 4) return (struct tile){6, 8, tile_128_wide};
    return (struct tile){12, 4, tile_128_narrow};
}

MPQC_CLONES static void from_u8(const uint8_t *restrict from, int32_t zero, int64_t n,
                                float *restrict to)
{
    for (int64_t i = 0; i < n; i++) to[i] = (float)(from[i] - zero);
}

MPQC_CLONES static void from_i8(const int8_t *restrict from, int32_t zero, int64_t n,
                                float *restrict to)
{
    for (int64_t i = 0; i < n; i++) to[i] = (float)(from[i] - zero);
}

MPQC_CLONES static void from_i16(const int16_t *restrict from, int32_t zero, int64_t n,
                                 float *restrict to)
{
    for (int64_t i = 0; i < n; i++) to[i] = (float)(from[i] - zero);
}

void mpqc_gemm_load(enum mpqc_dtype t, const void *from, int64_t at, int64_t n, int32_t zero,
                    float *to)
{
    if (t == MPQC_DT_F32)
        memcpy(to, (const float *)from + at, (size_t)n * sizeof *to);
    else if (t == MPQC_DT_I16)
        from_i16((const int16_t *)from + at, zero, n, to);
    else if (mpqc_dtypes[t].kind == MPQC_KIND_UINT)
        from_u8((const uint8_t *)from + at, zero, n, to);
    else
        from_i8((const int8_t *)from + at, zero, n, to);
}

/* Rows k0 .. k0 + k of weight columns c .. c + n as panel[k][width], 0 behind n. */
static void pack(const struct mpqc_gemm *p, int64_t k0, int64_t k, int64_t c, int64_t n,
                 int64_t width, float *panel)
{
    if (p->pack) {
        p->pack(p, k0, k, c, n, width, panel);
        return;
    }
    bool one_zero = !p->w_zero || p->w_zero_step == 0;
    int32_t zero = p->w_zero ? p->w_zero[0] : 0;
    for (int64_t i = 0; i < k; i++) {
        float *row = panel + i * width;
        mpqc_gemm_load(p->w_dtype, p->w, (k0 + i) * p->w_stride + c, n, one_zero ? zero : 0, row);
        for (int64_t j = 0; !one_zero && j < n; j++) row[j] -= (float)p->w_zero[c + j];
        for (int64_t j = n; j < width; j++) row[j] = 0.0f;
    }
}

static float *float_row(const struct mpqc_gemm *p, int64_t r)
{
    return p->out_f32 + (p->out_row ? p->out_row[r] : r * p->out_stride);
}

/* One tile at row r, column c, of which rows x cols are real; integer sums count `factor`
 * times. */
static void add_tile(const struct mpqc_gemm *p, const struct tile *t, const float *x,
                     const float *w, int64_t w_stride, int64_t k, int64_t r, int64_t rows,
                     int64_t c, int64_t cols, int32_t factor)
{
    _Alignas(64) float sum[MAX_TILE_ROWS * MAX_TILE_COLS];
    if (p->out_f32) {
        if (rows == t->rows && cols == t->cols && !p->out_row) {
            t->run(x, w, w_stride, k, p->out_f32 + r * p->out_stride + c, p->out_stride);
            return;
        }
        memset(sum, 0, sizeof sum);
        for (int64_t i = 0; i < rows; i++)
            memcpy(sum + i * t->cols, float_row(p, r + i) + c, (size_t)cols * sizeof *sum);
        t->run(x, w, w_stride, k, sum, t->cols);
        for (int64_t i = 0; i < rows; i++)
            memcpy(float_row(p, r + i) + c, sum + i * t->cols, (size_t)cols * sizeof *sum);
        return;
    }
    int32_t *out = p->out_i32 + r * p->out_stride + c;
    memset(sum, 0, (size_t)(t->rows * t->cols) * sizeof *sum);
    t->run(x, w, w_stride, k, sum, t->cols);
    for (int64_t i = 0; i < rows; i++) {
        /* Wraps like the machine, should a graph be unsound. */
        for (int64_t j = 0; j < cols; j++)
            out[i * p->out_stride + j] = (int32_t)((uint32_t)out[i * p->out_stride + j] +
                                                   (uint32_t)(int32_t)sum[i * t->cols + j] *
                                                       (uint32_t)factor);
    }
}

static void add_block(const struct mpqc_gemm *p, const float *x, int64_t rows, int64_t k0,
                      int64_t k, int32_t factor)
{
    _Alignas(64) float panel[MPQC_GEMM_K * MAX_TILE_COLS];
    for (int64_t c = 0; c < p->cols;) {
        struct tile t = pick_tile(p->cols - c);
        int64_t cols = p->cols - c < t.cols ? p->cols - c : t.cols;
        const float *w = panel;
        int64_t w_stride = t.cols;
        /* Packing pays when several tiles use the panel, unless it looks the same. */
        bool once = rows <= MAX_TILE_ROWS || p->w_stride == t.cols;
        if (!p->pack && p->w_dtype == MPQC_DT_F32 && once && cols == t.cols) {
            w = (const float *)p->w + k0 * p->w_stride + c;
            w_stride = p->w_stride;
        } else {
            pack(p, k0, k, c, cols, t.cols, panel);
        }
        for (int64_t r = 0; r < rows; r += t.rows) {
            int64_t n = rows - r < t.rows ? rows - r : t.rows;
            add_tile(p, &t, x + r * MPQC_GEMM_K, w, w_stride, k, r, n, c, cols, factor);
        }
        c += cols;
    }
}

void mpqc_gemm_add(const struct mpqc_gemm *p, const float *x, int64_t rows, int64_t k0, int64_t k)
{
    if (!p->wide) {
        add_block(p, x, rows, k0, k, 1);
        return;
    }
    _Alignas(64) float high[MPQC_GEMM_ROWS * MPQC_GEMM_K], low[MPQC_GEMM_ROWS * MPQC_GEMM_K];
    int64_t whole = (rows + MPQC_GEMM_TILE - 1) / MPQC_GEMM_TILE * MPQC_GEMM_TILE;
    for (int64_t r = 0; r < whole; r++)
        for (int64_t i = r * MPQC_GEMM_K; i < r * MPQC_GEMM_K + k; i++) {
            high[i] = floorf(x[i] / SPLIT);
            low[i] = x[i] - SPLIT * high[i];
        }
    add_block(p, high, rows, k0, k, SPLIT);
    add_block(p, low, rows, k0, k, 1);
}
