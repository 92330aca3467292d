/* SPDX-License-Identifier: GPL-3.0-or-later
 * Histograms: exactness under any split and order, and the ranges drawn from them.
 */
#include "passes/histogram.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct mpqc_arena arena;

static int setup(void **state)
{
    (void)state;
    mpqc_arena_init(&arena, &mpqc_malloc_allocator);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mpqc_arena_release(&arena);
    return 0;
}

static struct mpqc_histogram fresh(void)
{
    struct mpqc_histogram h;
    assert_true(mpqc_hist_init(&h, &arena));
    return h;
}

static void same(const struct mpqc_histogram *a, const struct mpqc_histogram *b)
{
    assert_true(a->min == b->min && a->max == b->max);
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->exp, b->exp);
    assert_memory_equal(a->bins, b->bins, MPQC_HIST_BINS * sizeof *a->bins);
}

/* Sizes from 2^-40 to 2^20, both signs, zeros. */
static void fill(float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        int e = (int)(seed >> 8) % 61 - 40;
        float m = 1.0f + (float)(seed >> 20) / 4096.0f;
        x[i] = seed >> 28 == 0 ? 0.0f : ldexpf(seed & 64 ? m : -m, e);
    }
}

static void any_split_and_order_gives_the_same(void **state)
{
    (void)state;
    enum { N = 3000 };
    float x[N], backwards[N];
    fill(x, N, 5);
    for (size_t i = 0; i < N; i++) backwards[i] = x[N - 1 - i];
    struct mpqc_histogram whole = fresh(), single = fresh(), reversed = fresh(), merged = fresh();
    assert_true(mpqc_hist_add(&whole, x, N));
    for (size_t i = 0; i < N; i++) assert_true(mpqc_hist_add(&single, &x[i], 1));
    assert_true(mpqc_hist_add(&reversed, backwards, N));
    same(&whole, &single);
    same(&whole, &reversed);
    for (size_t i = 0; i < N; i += 100) {
        struct mpqc_histogram part = fresh();
        assert_true(mpqc_hist_add(&part, &backwards[i], 100));
        mpqc_hist_merge(&merged, &part);
    }
    same(&whole, &merged);
    struct mpqc_histogram empty = fresh();
    mpqc_hist_merge(&merged, &empty);
    same(&whole, &merged);
}

/* Every number lies in the bin that the definition gives it. */
static void bins_are_where_they_should_be(void **state)
{
    (void)state;
    const float x[] = {2047.5f, -2048.0f, 0.0f, -0.25f, 0.25f, 1.0f, -1.0f, FLT_MIN, -FLT_MIN};
    struct mpqc_histogram h = fresh();
    assert_true(mpqc_hist_add(&h, x, sizeof x / sizeof x[0]));
    assert_int_equal(h.exp, 1); /* 2048 has exponent 12: covered by 2048 bins of 2 */
    assert_int_equal(h.count, 9);
    assert_int_equal(h.bins[MPQC_HIST_HALF + 1023], 1);
    assert_int_equal(h.bins[MPQC_HIST_HALF - 1024], 1);
    assert_int_equal(h.bins[MPQC_HIST_HALF], 3);     /* 0.25, 1, FLT_MIN */
    assert_int_equal(h.bins[MPQC_HIST_HALF - 1], 3); /* -0.25, -1, -FLT_MIN; zero nowhere */
    uint64_t sum = 0;
    for (int i = 0; i < MPQC_HIST_BINS; i++) sum += h.bins[i];
    assert_int_equal(sum, 8);
}

static void the_largest_floats_fit(void **state)
{
    (void)state;
    const float x[] = {FLT_MAX, -FLT_MAX, 1e-45f};
    struct mpqc_histogram h = fresh();
    assert_true(mpqc_hist_add(&h, x, 3));
    assert_true(h.exp <= MPQC_HIST_MAX_EXP);
    assert_int_equal(h.bins[MPQC_HIST_BINS - 1], 1);
    assert_int_equal(h.bins[0], 1);
    assert_true(h.max == FLT_MAX && h.min == -FLT_MAX);
}

static void what_is_not_finite_is_refused(void **state)
{
    (void)state;
    const float bad[] = {(float)NAN, (float)INFINITY, -(float)INFINITY};
    for (size_t i = 0; i < 3; i++) {
        struct mpqc_histogram h = fresh();
        const float x[] = {1.0f, bad[i], 2.0f};
        assert_false(mpqc_hist_add(&h, x, 3));
        assert_int_equal(h.count, 0);
    }
}

/* ---- ranges ---- */

static const enum mpqc_calibration methods[] = {MPQC_CALIB_MINMAX, MPQC_CALIB_PERCENTILE,
                                                MPQC_CALIB_KL, MPQC_CALIB_MSE,
                                                MPQC_CALIB_AUTO};

static void ranges_lie_within_the_data(void **state)
{
    (void)state;
    enum { N = 2000 };
    float x[N];
    for (int kind = 0; kind < 4; kind++) {
        fill(x, N, (uint32_t)kind + 9);
        for (size_t i = 0; i < N; i++) {
            if (kind == 1) x[i] = fabsf(x[i]);
            if (kind == 2) x[i] = -fabsf(x[i]);
            if (kind == 3) x[i] = 3.0f;
        }
        struct mpqc_histogram h = fresh();
        assert_true(mpqc_hist_add(&h, x, N));
        for (size_t m = 0; m < sizeof methods / sizeof methods[0]; m++) {
            double lo, hi;
            mpqc_hist_range(&h, methods[m], 99.9, 255, &lo, &hi);
            assert_true(lo >= (double)h.min && hi <= (double)h.max && lo <= hi);
            if (methods[m] != MPQC_CALIB_MINMAX) continue;
            assert_true(lo == (double)h.min && hi == (double)h.max);
        }
    }
}

static void an_empty_histogram_has_no_range(void **state)
{
    (void)state;
    struct mpqc_histogram h = fresh();
    double lo = 1, hi = 1;
    mpqc_hist_range(&h, MPQC_CALIB_MSE, 99, 255, &lo, &hi);
    assert_true(lo == 0 && hi == 0);
}

/* 100 000 numbers spread evenly over (-1, 1): p % of them lie within +-p/100. */
static void percentiles_are_exact_to_a_bin(void **state)
{
    (void)state;
    enum { N = 100000 };
    float *x = malloc(N * sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < N; i++) x[i] = ((float)i + 0.5f) / (N / 2) - 1.0f;
    struct mpqc_histogram h = fresh();
    assert_true(mpqc_hist_add(&h, x, N));
    const double p[] = {99.9, 99, 90, 60};
    for (size_t i = 0; i < 4; i++) {
        double lo, hi;
        mpqc_hist_range(&h, MPQC_CALIB_PERCENTILE, p[i], 255, &lo, &hi);
        assert_true(fabs(lo + p[i] / 100) < 1e-3 && fabs(hi - p[i] / 100) < 1e-3);
    }
    free(x);
}

/* Normal data and one far outlier: every method but min-max cuts it, and none cuts
 * what matters. */
static void outliers_are_cut(void **state)
{
    (void)state;
    enum { N = 200000 };
    float *x = malloc(N * sizeof *x);
    assert_non_null(x);
    uint32_t s = 3;
    for (int i = 0; i < N; i++) {
        float sum = -6;
        for (int k = 0; k < 12; k++) {
            s = s * 1664525u + 1013904223u;
            sum += (float)(s >> 8) / 16777216.0f;
        }
        x[i] = sum;
    }
    x[77] = 300;
    struct mpqc_histogram h = fresh();
    assert_true(mpqc_hist_add(&h, x, N));
    for (size_t m = 1; methods[m] != MPQC_CALIB_AUTO; m++) {
        double lo, hi;
        mpqc_hist_range(&h, methods[m], 99.99, 255, &lo, &hi);
        assert_true(hi < 270 && hi > 2.5);
        assert_true(lo < -2.5);
    }
    free(x);
}

static double error_of(const float *x, int n, double hi, unsigned levels)
{
    double sum = 0, step = hi / levels;
    for (int i = 0; i < n; i++) {
        double code = fmin(rint((double)x[i] / step), levels);
        sum += ((double)x[i] - code * step) * ((double)x[i] - code * step);
    }
    return sum;
}

/* With 1 and 3 steps the range of least error is found as good as trying all finds it. */
static void few_levels_have_the_least_error(void **state)
{
    (void)state;
    enum { N = 20000 };
    float *x = calloc(N, sizeof *x);
    assert_non_null(x);
    fill(x, N, 5);
    for (int i = 0; i < N; i++) x[i] = i % 3 ? x[i] * x[i] : 0; /* behind a ReLU: a long tail */
    struct mpqc_histogram h = fresh();
    assert_true(mpqc_hist_add(&h, x, N));
    for (unsigned levels = 1; levels <= 3; levels += 2) {
        double lo, hi, least = INFINITY;
        mpqc_hist_range(&h, MPQC_CALIB_MSE, 100, levels, &lo, &hi);
        for (int i = 1; i <= 200; i++)
            least = fmin(least, error_of(x, N, (double)h.max * i / 200, levels));
        assert_true(lo == 0);
        assert_true(error_of(x, N, hi, levels) < 1.02 * least);
    }
    free(x);
}

/* 100 000 numbers in [-1, 1] and 8 of size 50: a percentile cuts them all, but they
 * carry a third of the energy. */
static void auto_keeps_what_carries_energy(void **state)
{
    (void)state;
    enum { N = 100000 };
    float *x = malloc(N * sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < N; i++) x[i] = ((float)i + 0.5f) / (N / 2) - 1.0f;
    for (int i = 0; i < 8; i++) x[i * 1000] = 50;
    struct mpqc_histogram h = fresh();
    double lo, hi;
    assert_true(mpqc_hist_add(&h, x, N));
    mpqc_hist_range(&h, MPQC_CALIB_PERCENTILE, 99.9, 255, &lo, &hi);
    assert_true(hi < 2);
    mpqc_hist_range(&h, MPQC_CALIB_AUTO, 99.9, 255, &lo, &hi);
    assert_true(hi > 45 && lo > -1.01);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(any_split_and_order_gives_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(bins_are_where_they_should_be, setup, teardown),
        cmocka_unit_test_setup_teardown(the_largest_floats_fit, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_finite_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(ranges_lie_within_the_data, setup, teardown),
        cmocka_unit_test_setup_teardown(an_empty_histogram_has_no_range, setup, teardown),
        cmocka_unit_test_setup_teardown(percentiles_are_exact_to_a_bin, setup, teardown),
        cmocka_unit_test_setup_teardown(outliers_are_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(few_levels_have_the_least_error, setup, teardown),
        cmocka_unit_test_setup_teardown(auto_keeps_what_carries_energy, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
