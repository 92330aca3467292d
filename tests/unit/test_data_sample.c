/* SPDX-License-Identifier: GPL-3.0-or-later
 * From what a file holds to what a network wants: shapes, layout, pre-processing.
 */
#define DATA_FOLDER "test_data_sample_files"
#include "data_rig.h"

#include <math.h>

/* ---- shapes, layout, pre-processing ---- */

static void shapes_may_differ_by_ones(void **state)
{
    (void)state;
    static const unsigned char data[12] = {0};
    static const struct {
        uint32_t rank_a, rank_n;
        int64_t a[5], n[5];
        int ok;
    } rows[] = {
        {2, 2, {3, 4}, {1, 4}, 1},        {3, 2, {3, 1, 4}, {1, 4}, 1},
        {2, 4, {3, 4}, {1, 1, 4, 1}, 1},  {3, 4, {3, 2, 2}, {1, 1, 2, 2}, 1},
        {2, 2, {3, 4}, {1, 3}, 0},        {3, 2, {3, 2, 2}, {1, 4}, 1} /* flattened */,
        {3, 2, {2, 2, 3}, {1, 4}, 0},     {3, 4, {1, 2, 6}, {1, 1, 3, 4}, 0},
        {2, 2, {3, 4}, {3, 4}, 1} /* one batch of three */, {1, 1, {12}, {1}, 1},
        {1, 0, {12}, {0}, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct mpqc_array a = {.type = MPQC_DATA_U8, .rank = rows[i].rank_a, .data = data,
                               .bytes = 12};
        struct mpqc_data_error err = {""};
        uint64_t n = 0;
        memcpy(a.dims, rows[i].a, sizeof rows[i].a);
        int rc = mpqc_array_check(&a, "x", rows[i].rank_n, rows[i].n, NULL, &n, &err);
        assert_int_equal(rc, rows[i].ok ? 0 : -1);
        if (rows[i].ok) assert_true(n == (uint64_t)a.dims[0] || n == 1);
        else assert_non_null(strstr(err.text, "'x'"));
    }
}

static void wrong_layout_is_recognised(void **state)
{
    (void)state;
    static const unsigned char data[24] = {0};
    struct mpqc_array a = {.type = MPQC_DATA_U8, .rank = 4, .dims = {1, 2, 4, 3}, .data = data,
                           .bytes = 24};
    const int64_t dims[] = {1, 3, 2, 4};
    struct mpqc_preprocess pre = {.nhwc = 1};
    struct mpqc_data_error err;
    uint64_t n;
    assert_int_equal(mpqc_array_check(&a, "x", 4, dims, NULL, &n, &err), -1);
    assert_non_null(strstr(err.text, "[1,3,2,4]"));
    assert_non_null(strstr(err.text, "[2,4,3]"));
    assert_non_null(strstr(err.text, "give -layout=nhwc"));
    assert_int_equal(mpqc_array_check(&a, "x", 4, dims, &pre, &n, &err), 0);
    a.type = MPQC_DATA_I8; /* only u8 data is moved */
    assert_int_equal(mpqc_array_check(&a, "x", 4, dims, &pre, &n, &err), -1);
    assert_non_null(strstr(err.text, "transpose it"));
}

static void set(struct mpqc_preprocess *pre, const char *flag, const char *value)
{
    struct mpqc_data_error err;
    if (mpqc_preprocess_set(pre, flag, value, &err)) fail_msg("%s", err.text);
}

static void pixels_are_moved_and_normalised(void **state)
{
    (void)state;
    unsigned char data[24];
    for (int i = 0; i < 24; i++) data[i] = (unsigned char)(i * 10);
    struct mpqc_array a = {.type = MPQC_DATA_U8, .rank = 4, .dims = {1, 2, 4, 3}, .data = data,
                           .bytes = 24};
    struct mpqc_preprocess pre = {.scale = 0};
    set(&pre, "mean", "0.1,0.2,0.3");
    set(&pre, "std", "0.5,0.25,2");
    set(&pre, "layout", "nhwc");
    static const float mean[] = {0.1f, 0.2f, 0.3f}, std[] = {0.5f, 0.25f, 2};
    const int64_t first[] = {1, 3, 2, 4}, last[] = {1, 2, 4, 3};
    float x[24];
    struct mpqc_data_error err;
    assert_int_equal(mpqc_array_sample(&a, 4, first, &pre, 0, x, &err), 0);
    for (int c = 0; c < 3; c++)
        for (int p = 0; p < 8; p++) {
            float want = ((float)data[3 * p + c] / 255.0f - mean[c]) / std[c];
            assert_true(x[8 * c + p] == want);
        }
    /* a network that wants channels last gets them as they are, with the same means */
    assert_int_equal(mpqc_array_sample(&a, 4, last, &pre, 0, x, &err), 0);
    for (int i = 0; i < 24; i++)
        assert_true(x[i] == ((float)data[i] / 255.0f - mean[i % 3]) / std[i % 3]);
    const int64_t grey[] = {1, 24};
    a.rank = 2;
    a.dims[1] = 24;
    assert_int_equal(mpqc_array_sample(&a, 2, grey, &pre, 0, x, &err), -1);
    assert_non_null(strstr(err.text, "3 channels"));
}

static void defaults_of_preprocessing(void **state)
{
    (void)state;
    static const unsigned char data[] = {0, 51, 255};
    struct mpqc_array a = {.type = MPQC_DATA_U8, .rank = 2, .dims = {1, 3}, .data = data,
                           .bytes = 3};
    const int64_t dims[] = {1, 3};
    struct mpqc_preprocess pre = {.scale = 0};
    struct mpqc_data_error err;
    float x[3];
    assert_int_equal(mpqc_array_sample(&a, 2, dims, NULL, 0, x, &err), 0);
    assert_true(x[0] == 0 && x[1] == 51 && x[2] == 255);
    assert_int_equal(mpqc_array_sample(&a, 2, dims, &pre, 0, x, &err), 0);
    assert_true(x[0] == 0 && x[1] == 51 / 255.0f && x[2] == 1);
    set(&pre, "scale", "1");
    set(&pre, "mean", "100");
    assert_int_equal(mpqc_array_sample(&a, 2, dims, &pre, 0, x, &err), 0);
    assert_true(x[0] == -100 && x[1] == -49 && x[2] == 155);
    a.type = MPQC_DATA_I8; /* other data is taken as it is */
    assert_int_equal(mpqc_array_sample(&a, 2, dims, &pre, 0, x, &err), 0);
    assert_true(x[0] == 0 && x[1] == 51 && x[2] == -1);
    assert_int_equal(mpqc_array_sample(&a, 2, dims, &pre, 1, x, &err), -1);
    assert_non_null(strstr(err.text, "past the end"));
}

static void preprocessing_flags(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"scale", "0"},    {"scale", "1,2"},  {"scale", "x"},        {"mean", ""},
        {"mean", "1,"},    {"mean", "nan"},   {"mean", "1,2,3,4,5"}, {"std", "1,0,1"},
        {"std", "1e-60"},  {"std", "inf"},    {"layout", "chwn"},    {"mean", "1 2"},
    };
    struct mpqc_preprocess pre = {.scale = 0};
    struct mpqc_data_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(mpqc_preprocess_set(&pre, bad[i][0], bad[i][1], &err), -1);
        assert_non_null(strstr(err.text, bad[i][0]));
    }
    set(&pre, "std", "2");
    set(&pre, "mean", "1,2,3"); /* one number is for all channels */
    assert_int_equal(pre.channels, 3);
    assert_true(pre.std[2] == 2 && pre.mean[2] == 3);
    assert_int_equal(mpqc_preprocess_set(&pre, "std", "1,2", &err), -1);
    set(&pre, "mean", "5");
    assert_true(pre.channels == 3 && pre.mean[0] == 5 && pre.mean[2] == 5);
}

static void not_a_number_is_refused(void **state)
{
    (void)state;
    float data[] = {1, 2, 3, NAN, 5, INFINITY};
    double wide[] = {1e300, 0};
    struct mpqc_array a = {.type = MPQC_DATA_F32, .rank = 2, .dims = {3, 2}, .data = data,
                           .bytes = sizeof data};
    const int64_t dims[] = {1, 2};
    float x[2];
    struct mpqc_data_error err;
    assert_int_equal(mpqc_array_sample(&a, 2, dims, NULL, 0, x, &err), 0);
    assert_int_equal(mpqc_array_sample(&a, 2, dims, NULL, 1, x, &err), -1);
    assert_non_null(strstr(err.text, "sample 1 "));
    assert_int_equal(mpqc_array_sample(&a, 2, dims, NULL, 2, x, &err), -1);
    a = (struct mpqc_array){.type = MPQC_DATA_F64, .rank = 2, .dims = {1, 2}, .data = wide,
                            .bytes = sizeof wide};
    assert_int_equal(mpqc_array_sample(&a, 2, dims, NULL, 0, x, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_may_differ_by_ones),
        cmocka_unit_test(wrong_layout_is_recognised),
        cmocka_unit_test(pixels_are_moved_and_normalised),
        cmocka_unit_test(defaults_of_preprocessing),
        cmocka_unit_test(preprocessing_flags),
        cmocka_unit_test(not_a_number_is_refused),
    };
    return cmocka_run_group_tests(tests, enter, NULL);
}
