/* SPDX-License-Identifier: GPL-3.0-or-later
 * The hand-written model through the list of ABI checks, and the checks themselves
 * on libraries that must not pass.
 */
#include "runtime/mpqc_load.h"
#include "tests/abi_checks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SPECIMEN MPQC_SPECIMEN_DIR "/specimen.so"

/* Its arithmetic by another road: in double, with floor. */
static void multiplies_as_written(void **state)
{
    (void)state;
    static const int w[2][4][4] = {
        {{3, -1, 0, 2}, {-2, 5, 1, 0}, {0, 1, -4, 1}, {1, 0, 2, -3}},
        {{1, 2, -1, 0}, {0, -3, 2, 1}, {4, 0, 1, -2}, {-1, 1, 0, 5}}};
    static const int bias[2][4] = {{8, -16, 0, 24}, {-8, 0, 40, 16}};
    struct mpqc_loaded l;
    char why[MPQC_LOAD_ERROR];
    assert_int_equal(mpqc_load_open(SPECIMEN, "", &l, why), 0);
    float x[16], y[16];
    int8_t q[16];
    for (int i = 0; i < 16; i++) x[i] = (float)(i * 7 % 11 - 5) * 0.25f;
    const void *in[] = {x};
    void *out[] = {y, q}, *ws = mpqc_workspace_alloc(l.model);
    assert_non_null(ws);
    assert_int_equal(l.model->run(in, out, ws, NULL), MPQC_RUN_OK);
    for (int r = 0; r < 4; r++) {
        double v[4], next[4];
        for (int j = 0; j < 4; j++) v[j] = x[4 * r + j] * 16;
        for (int layer = 0; layer < 2; layer++) {
            for (int j = 0; j < 4; j++) {
                double acc = bias[layer][j];
                for (int k = 0; k < 4; k++) acc += v[k] * w[layer][k][j];
                next[j] = fmin(127, fmax(layer ? -128 : 0, floor(acc / 4 + 0.5)));
            }
            memcpy(v, next, sizeof v);
        }
        for (int j = 0; j < 4; j++) {
            assert_int_equal(q[4 * r + j], (int)v[j]);
            assert_true(y[4 * r + j] == (float)v[j] * 0.125f);
        }
    }
    free(ws);
    mpqc_load_close(&l);
}

/* A library that was not made for this: needs others, exports a lot. */
static void elf_check_refuses_other_libraries(void **state)
{
    (void)state;
    char why[256] = "";
    assert_int_equal(mpqc_abi_elf(MPQC_BINARY_DIR "/runtime/libmpqc_runtime.so", why, sizeof why),
                     -1);
    assert_true(why[0] != '\0');
    assert_int_equal(mpqc_abi_elf(MPQC_SOURCE_DIR "/README.md", why, sizeof why), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multiplies_as_written),
        cmocka_unit_test(elf_check_refuses_other_libraries),
    };
    /* cmocka groups do not nest, so the list is a group of its own */
    int failed = mpqc_abi_run(SPECIMEN, NULL);
    failed += mpqc_abi_run(MPQC_SPECIMEN_DIR "/specimen_tagged.so", "thimble");
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
