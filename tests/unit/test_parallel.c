/* SPDX-License-Identifier: GPL-3.0-or-later
 * mpqc_for_each: every index once, workers numbered, the least failing index wins.
 */
#include "ir/exec.h"

#include <setjmp.h>
#include <cmocka.h>

#define N 1000

struct tally {
    unsigned char seen[N];
    unsigned threads;
    uint64_t fail_from; /* indices from here on fail */
    struct mpqc_cx *cx;
};

static mpqc_status count(void *user, unsigned worker, uint64_t index)
{
    struct tally *t = user;
    if (worker >= t->threads) return MPQC_BUG;
    __atomic_fetch_add(&t->seen[index], 1, __ATOMIC_RELAXED);
    if (index < t->fail_from) return MPQC_OK;
    if (index == t->fail_from) return MPQC_FAIL(t->cx, DATA, MPQC_NOWHERE, "sample %d", (int)index);
    return MPQC_FAIL(t->cx, MODEL, MPQC_NOWHERE, "later");
}

static void every_index_once(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads < 9; threads++) {
        struct tally t = {.threads = threads ? threads : 1, .fail_from = N};
        assert_int_equal(mpqc_for_each(threads, N, count, &t), MPQC_OK);
        for (int i = 0; i < N; i++) assert_int_equal(t.seen[i], 1);
    }
    assert_int_equal(mpqc_for_each(4, 0, count, NULL), MPQC_OK);
}

static void least_failing_index_decides(void **state)
{
    (void)state;
    for (int round = 0; round < 50; round++) {
        struct mpqc_cx cx;
        mpqc_cx_init(&cx, NULL);
        struct tally t = {.threads = 8, .fail_from = 300, .cx = &cx};
        assert_int_equal(mpqc_for_each(8, N, count, &t), MPQC_DATA);
        for (int i = 0; i <= 300; i++) assert_int_equal(t.seen[i], 1);
        assert_true(cx.n_errors >= 1 && cx.n_diags == cx.n_errors);
        mpqc_cx_release(&cx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_once),
        cmocka_unit_test(least_failing_index_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
