/* SPDX-License-Identifier: GPL-3.0-or-later
 * Names of targets, and what is said about names that are none.
 */
#include "codegen/target.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *target, *mcpu, *want; /* NULL: an error */
    const char *says;
} cases[] = {
    {"x86-64", NULL, "x86-64:generic", NULL},
    {"x86_64", NULL, "x86-64:generic", NULL},
    {"x86-64", "generic", "x86-64:generic", NULL},
    {"x86-64", "avx2", "x86-64:avx2", NULL},
    {"x86-64", "avx512-vnni", "x86-64:avx512-vnni", NULL},
    {"x86-64", "znver4", "x86-64:avx512-vnni", NULL},
    {"x86-64", "znver3", "x86-64:avx2", NULL},
    {"x86-64", "skylake-avx512", "x86-64:avx512", NULL},
    {"x86-64", "cascadelake", "x86-64:avx512-dot", NULL},
    {"x86-64", "alderlake", "x86-64:avx-vnni", NULL},
    {"x86-64", "sapphirerapids", "x86-64:amx", NULL},
    {"x86-64", "amx", "x86-64:amx", NULL},
    {"aarch64", "neoverse-v1", "aarch64:i8mm", NULL},
    {"aarch64", "neoverse-n1", "aarch64:dotprod", NULL},
    {"x86-64:avx2", NULL, "x86-64:avx2", NULL},
    {"x86-64:avx2", "haswell", "x86-64:avx2", NULL},
    {"x86-64:avx2", "znver4", NULL, "contradict each other"},
    {"aarch64", NULL, "aarch64:neon", NULL},
    {"arm64", NULL, "aarch64:neon", NULL},
    {"aarch64", "dotprod", "aarch64:dotprod", NULL},
    {"aarch64", "cortex-a76", "aarch64:dotprod", NULL},
    {"aarch64", "cortex-a53", "aarch64:neon", NULL},
    {"aarch64", "znver4", NULL, "unknown CPU 'znver4' for aarch64"},
    {"aarch64", "cortex-a67", NULL, "did you mean 'cortex-a"},
    {"x86-64", "avx-512-vnni", NULL, "did you mean 'avx512-vnni'?"},
    {"x86-64", "", NULL, "unknown CPU ''"},
    {"arch64", NULL, NULL, "did you mean 'aarch64'?"},
    {"nativ", NULL, NULL, "did you mean 'native'?"},
    {"riscv64gc-unknown-linux-gnu", NULL, NULL, "-target= takes one of: native, x86-64, aarch64"},
    {"", NULL, NULL, "unknown target ''"},
};

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(cases); i++) {
        struct mpqc_cx cx;
        struct mpqc_target t;
        mpqc_cx_init(&cx, &mpqc_malloc_allocator);
        mpqc_status s = mpqc_target_find(&cx, cases[i].target, cases[i].mcpu, &t);
        if (cases[i].want) {
            if (s != MPQC_OK) fail_msg("%s: %s", cases[i].target, cx.diags[0].message);
            assert_string_equal(t.name, cases[i].want);
            assert_non_null(t.isa);
        } else {
            assert_int_equal(s, MPQC_TARGET);
            assert_int_equal(cx.n_errors, 1);
            if (!strstr(cx.diags[0].message, cases[i].says))
                fail_msg("'%s' says: %s", cases[i].target, cx.diags[0].message);
        }
        mpqc_cx_release(&cx);
    }
}

/* Each row is found by its own name, and documented. */
static void test_rows(void **state)
{
    (void)state;
    struct mpqc_cx cx;
    mpqc_cx_init(&cx, &mpqc_malloc_allocator);
    unsigned n = 0;
    for (; mpqc_target_name(n); n++) {
        struct mpqc_target t;
        assert_int_equal(mpqc_target_find(&cx, mpqc_target_name(n), NULL, &t), MPQC_OK);
        assert_string_equal(t.name, mpqc_target_name(n));
        assert_ptr_equal(mpqc_target_row(&t)->name, mpqc_target_name(n));
        assert_true(strlen(mpqc_target_doc(n)) > 10);
        assert_true(t.vector_bytes >= 16 && t.l1_bytes < t.l2_bytes);
    }
    assert_true(n >= 10);
    assert_null(mpqc_target_doc(n));
    mpqc_cx_release(&cx);
}

/* The native target runs here, and so does its baseline, but nothing above it. */
static void test_native(void **state)
{
    (void)state;
    struct mpqc_cx cx;
    struct mpqc_target native, t;
    mpqc_cx_init(&cx, &mpqc_malloc_allocator);
    assert_int_equal(mpqc_target_find(&cx, "native", NULL, &native), MPQC_OK);
    assert_true(mpqc_target_on_host(mpqc_target_row(&native)));
    bool seen = false;
    for (unsigned i = 0; mpqc_target_name(i); i++) {
        assert_int_equal(mpqc_target_find(&cx, mpqc_target_name(i), NULL, &t), MPQC_OK);
        bool here = mpqc_target_on_host(mpqc_target_row(&t));
        if (t.arch != native.arch || seen) assert_false(here);
        if (strstr(t.name, ":generic") || strstr(t.name, ":neon"))
            assert_int_equal(here, t.arch == native.arch);
        if (strcmp(t.name, native.name) == 0) seen = true;
    }
    assert_true(seen);
    const char *arch = native.arch == MPQC_ARCH_X86_64 ? "x86-64" : "aarch64";
    const char *other = native.arch == MPQC_ARCH_X86_64 ? "aarch64" : "x86-64";
    assert_int_equal(mpqc_target_find(&cx, arch, "native", &t), MPQC_OK);
    assert_string_equal(t.name, native.name);
    assert_int_equal(mpqc_target_find(&cx, other, "native", &t), MPQC_TARGET);
    mpqc_cx_release(&cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_native),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
