/* SPDX-License-Identifier: GPL-3.0-or-later
 * ir/base: arenas, byte strings, size arithmetic, diagnostics.
 */
#include "failing_allocator.h"

#include <setjmp.h>
#include <cmocka.h>

static void sizes_report_overflow(void **state)
{
    size_t r = 0;
    (void)state;
    assert_true(mpqc_size_mul(SIZE_MAX / 3, 3, &r));
    assert_true(r == SIZE_MAX / 3 * 3);
    assert_false(mpqc_size_mul(SIZE_MAX / 3 + 1, 3, &r));
    assert_true(mpqc_size_add(SIZE_MAX - 1, 1, &r));
    assert_false(mpqc_size_add(SIZE_MAX, 1, &r));
}

static bool is_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

static void arena_gives_zeroed_aligned_memory(void **state)
{
    struct mpqc_arena a;
    unsigned char *all[300];
    (void)state;
    mpqc_arena_init(&a, NULL);
    for (size_t i = 0; i < 300; i++) {
        all[i] = mpqc_arena_alloc(&a, i);
        assert_non_null(all[i]);
        assert_int_equal((uintptr_t)all[i] % (i >= 64 ? 64 : 16), 0);
        assert_true(is_zero(all[i], i));
        if (i) memset(all[i], (int)(i & 255), i);
    }
    for (size_t i = 1; i < 300; i++) /* nobody wrote over anybody else */
        assert_true(all[i][0] == (i & 255) && all[i][i - 1] == (i & 255));
    assert_int_equal(a.used, 300 * 299 / 2);
    mpqc_arena_release(&a);
}

static void arena_is_zeroed_again_after_reset(void **state)
{
    struct mpqc_arena a;
    (void)state;
    mpqc_arena_init(&a, NULL);
    for (int round = 0; round < 3; round++) {
        for (size_t n = 1; n < 5000000; n *= 7) {
            unsigned char *p = mpqc_arena_alloc(&a, n);
            assert_true(is_zero(p, n));
            memset(p, 0xff, n);
        }
        mpqc_arena_reset(&a);
        assert_int_equal(a.used, 0);
    }
    mpqc_arena_release(&a);
}

static void arena_remembers_failure(void **state)
{
    struct failing_allocator f;
    struct mpqc_arena a;
    (void)state;
    failing_init(&f, 1);
    mpqc_arena_init(&a, &f.allocator);
    assert_null(mpqc_arena_alloc(&a, 8));
    assert_true(a.failed);
    assert_non_null(mpqc_arena_alloc(&a, 8)); /* the second request works */
    assert_true(a.failed);
    assert_null(mpqc_arena_array(&a, SIZE_MAX / 2, 3));
    assert_null(mpqc_arena_alloc(&a, SIZE_MAX));
    assert_null(mpqc_arena_alloc(&a, SIZE_MAX - 64));
    mpqc_arena_reset(&a);
    assert_false(a.failed);
    mpqc_arena_release(&a);
    assert_int_equal(f.alive, 0);
}

static void arena_copies_text(void **state)
{
    struct mpqc_arena a;
    (void)state;
    mpqc_arena_init(&a, NULL);
    assert_string_equal(mpqc_arena_strdup(&a, "scale"), "scale");
    assert_null(mpqc_arena_strdup(&a, NULL));
    assert_false(a.failed);
    assert_string_equal(mpqc_arena_printf(&a, "%s-%d", "conv", 12), "conv-12");
    assert_non_null(mpqc_arena_copy(&a, NULL, 0));
    mpqc_arena_release(&a);
}

static void buf_grows(void **state)
{
    struct mpqc_buf b;
    char want[8] = "";
    (void)state;
    mpqc_buf_init(&b);
    for (int i = 0; i < 2000; i++) mpqc_buf_printf(&b, "%d,", i);
    assert_false(b.failed);
    assert_int_equal(b.len, 10 * 2 + 90 * 3 + 900 * 4 + 1000 * 5);
    assert_int_equal(strlen(b.data), b.len);
    snprintf(want, sizeof want, "%d,", 1999);
    assert_string_equal(b.data + b.len - 5, want);
    mpqc_buf_add(&b, "a\0b", 3);
    assert_int_equal(b.data[b.len - 2], 0);
    mpqc_buf_release(&b);
    assert_null(b.data);
}

static void every_status_has_a_text(void **state)
{
    (void)state;
    for (int i = 0; i < MPQC_STATUS_COUNT; i++)
        assert_true(strlen(mpqc_status_text((mpqc_status)i)) > 0);
    assert_string_equal(mpqc_status_text(MPQC_STATUS_COUNT), "unknown status");
}

/* Text of the last diagnostic. */
static void assert_last(const struct mpqc_cx *cx, const char *want)
{
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    mpqc_diag_text(&cx->diags[cx->n_diags - 1], &b);
    assert_string_equal(b.data, want);
    mpqc_buf_release(&b);
}

static void diagnostics_name_the_place(void **state)
{
    struct mpqc_cx cx;
    struct mpqc_where w = {"m.onnx", "conv1", "Conv", "w", 17};
    (void)state;
    mpqc_cx_init(&cx, NULL);
    assert_int_equal(MPQC_FAIL(&cx, MODEL, w, "bad %d", 3), MPQC_MODEL);
    assert_last(&cx, "error: m.onnx: byte 17: node 'conv1' (Conv): tensor 'w': bad 3");
    w = (struct mpqc_where){.node = "n", .offset = -1};
    mpqc_warn(&cx, w, "odd");
    assert_last(&cx, "warning: node 'n': odd");
    mpqc_warn(&cx, w, "odd"); /* said before */
    assert_int_equal(cx.n_diags, 2);
    w = (struct mpqc_where){.op = "Add", .offset = -1};
    mpqc_note(&cx, w, "so");
    assert_last(&cx, "note: operator Add: so");
    cx.pass = "fuse";
    assert_int_equal(MPQC_FAIL(&cx, BUG, MPQC_NOWHERE, "wrong"), MPQC_BUG);
    assert_last(&cx, "bug: wrong (after pass 'fuse')");
    assert_int_equal(cx.n_errors, 2);
    mpqc_cx_release(&cx);
}

static void first_error_survives_a_heap_of_warnings(void **state)
{
    struct mpqc_cx cx;
    (void)state;
    mpqc_cx_init(&cx, NULL);
    for (int i = 0; i < 2 * MPQC_MAX_DIAGS; i++) mpqc_warn(&cx, MPQC_NOWHERE, "w%d", i);
    assert_int_equal(cx.n_diags, MPQC_MAX_DIAGS);
    (void)MPQC_FAIL(&cx, DATA, MPQC_NOWHERE, "first");
    (void)MPQC_FAIL(&cx, DATA, MPQC_NOWHERE, "second");
    assert_last(&cx, "error: first");
    assert_int_equal(cx.n_errors, 2);
    mpqc_cx_release(&cx);
}

static void diagnostics_work_without_memory(void **state)
{
    struct failing_allocator f;
    struct mpqc_cx cx;
    (void)state;
    failing_init(&f, 1);
    mpqc_cx_init(&cx, &f.allocator);
    assert_int_equal(MPQC_OOM(&cx), MPQC_NO_MEMORY);
    assert_last(&cx, "error: out of memory");
    mpqc_cx_release(&cx);
    assert_int_equal(f.alive, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_report_overflow),
        cmocka_unit_test(arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(arena_is_zeroed_again_after_reset),
        cmocka_unit_test(arena_remembers_failure),
        cmocka_unit_test(arena_copies_text),
        cmocka_unit_test(buf_grows),
        cmocka_unit_test(every_status_has_a_text),
        cmocka_unit_test(diagnostics_name_the_place),
        cmocka_unit_test(first_error_survives_a_heap_of_warnings),
        cmocka_unit_test(diagnostics_work_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
