/* SPDX-License-Identifier: MIT
 * The thread pool and the loader.
 */
#include "runtime/mpqc_load.h"
#include "runtime/mpqc_pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* The binary interface does not move: these numbers are part of every compiled
 * library.  A new field is appended and the last line changed. */
_Static_assert(sizeof(struct mpqc_preprocess) == 44, "ABI");
_Static_assert(sizeof(struct mpqc_io) == 104, "ABI");
_Static_assert(offsetof(struct mpqc_io, bytes) == 80, "ABI");
_Static_assert(sizeof(struct mpqc_layer) == 48, "ABI");
_Static_assert(offsetof(struct mpqc_exec, parallel_for) == 8, "ABI");
_Static_assert(sizeof(struct mpqc_exec) == 48, "ABI");
_Static_assert(offsetof(struct mpqc_model, workspace_size) == 56, "ABI");
_Static_assert(offsetof(struct mpqc_model, supported) == 88, "ABI");
_Static_assert(sizeof(struct mpqc_model) == 104, "ABI");

#define N 10000

struct tally {
    unsigned char seen[N];
    int64_t parts[64][2];
    atomic_uint n_parts;
    struct mpqc_pool *pool; /* for tasks that use the pool themselves */
    struct tally *inner;
};

static void count(void *arg, int64_t begin, int64_t end)
{
    struct tally *t = arg;
    unsigned part = atomic_fetch_add(&t->n_parts, 1);
    if (part < 64) {
        t->parts[part][0] = begin;
        t->parts[part][1] = end;
    }
    for (int64_t i = begin; i < end; i++) t->seen[i]++;
}

static struct tally *new_tally(void)
{
    struct tally *t = calloc(1, sizeof *t);
    assert_non_null(t);
    return t;
}

static void all_indices_once(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 2, 3, 4, 5, 7, 64, 1000, N};
    for (uint32_t threads = 1; threads <= 9; threads++) {
        struct mpqc_pool *pool = mpqc_pool_create(threads);
        assert_non_null(pool);
        assert_int_equal(mpqc_pool_threads(pool), threads);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            struct tally *t = new_tally();
            mpqc_pool_for(pool, count, t, sizes[s]);
            for (int64_t i = 0; i < N; i++) assert_int_equal(t->seen[i], i < sizes[s]);
            int64_t most = sizes[s] < threads ? sizes[s] : threads;
            assert_true(t->n_parts <= most);
            free(t);
        }
        mpqc_pool_destroy(pool);
    }
}

static int by_begin(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The same parts each time, contiguous, and of equal size up to one. */
static void parts_are_always_the_same(void **state)
{
    (void)state;
    struct mpqc_pool *pool = mpqc_pool_create(3);
    assert_non_null(pool);
    for (int round = 0; round < 200; round++) {
        struct tally *t = new_tally();
        mpqc_pool_for(pool, count, t, 100);
        assert_int_equal(t->n_parts, 3);
        qsort(t->parts, 3, sizeof t->parts[0], by_begin);
        static const int64_t want[] = {0, 33, 66, 100};
        for (int p = 0; p < 3; p++) {
            assert_int_equal(t->parts[p][0], want[p]);
            assert_int_equal(t->parts[p][1], want[p + 1]);
        }
        free(t);
    }
    mpqc_pool_destroy(pool);
}

/* Work that comes after a pause finds the workers asleep. */
static void sleepers_are_woken(void **state)
{
    (void)state;
    struct mpqc_pool *pool = mpqc_pool_create(4);
    assert_non_null(pool);
    for (int round = 0; round < 20; round++) {
        struct tally *t = new_tally();
        nanosleep(&(struct timespec){0, round * 500000L}, NULL);
        mpqc_pool_for(pool, count, t, N);
        for (int i = 0; i < N; i++) assert_int_equal(t->seen[i], 1);
        free(t);
    }
    mpqc_pool_destroy(pool);
}

static void use_the_pool_again(void *arg, int64_t begin, int64_t end)
{
    struct tally *t = arg;
    for (int64_t i = begin; i < end; i++) mpqc_pool_for(t->pool, count, &t->inner[i], 100);
}

static void a_task_may_use_the_pool(void **state)
{
    (void)state;
    struct tally *t = new_tally();
    t->inner = calloc(8, sizeof *t->inner);
    assert_non_null(t->inner);
    t->pool = mpqc_pool_create(4);
    mpqc_pool_for(t->pool, use_the_pool_again, t, 8);
    for (int k = 0; k < 8; k++)
        for (int i = 0; i < 100; i++) assert_int_equal(t->inner[k].seen[i], 1);
    mpqc_pool_destroy(t->pool);
    free(t->inner);
    free(t);
}

static void *hammer(void *arg)
{
    struct tally *t = arg;
    for (int i = 0; i < 200; i++) mpqc_pool_for(t->pool, count, t, 50);
    return NULL;
}

/* Two threads that share a pool: one gets the workers, the other does its own work. */
static void two_callers_do_not_meet(void **state)
{
    (void)state;
    struct tally *t[2] = {new_tally(), new_tally()};
    pthread_t threads[2];
    struct mpqc_pool *pool = mpqc_pool_create(3);
    assert_non_null(pool);
    for (int k = 0; k < 2; k++) t[k]->pool = pool;
    for (int k = 0; k < 2; k++)
        assert_int_equal(pthread_create(&threads[k], NULL, hammer, t[k]), 0);
    for (int k = 0; k < 2; k++) pthread_join(threads[k], NULL);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 50; i++) assert_int_equal(t[k]->seen[i], 200);
    mpqc_pool_destroy(pool);
    free(t[0]);
    free(t[1]);
}

static void exec_is_filled(void **state)
{
    (void)state;
    struct mpqc_exec exec;
    memset(&exec, 0xff, sizeof exec);
    mpqc_pool_exec(NULL, &exec);
    assert_true(exec.struct_size == sizeof exec && exec.threads == 1 && !exec.parallel_for);
    assert_true(!exec.layer_begin && !exec.layer_end);
    struct mpqc_pool *pool = mpqc_pool_create(0);
    assert_non_null(pool);
    mpqc_pool_exec(pool, &exec);
    assert_true(exec.threads >= 1 && exec.threads == mpqc_pool_threads(pool));
    assert_true(exec.threads == 1 || exec.parallel_for == mpqc_pool_for);
    mpqc_pool_destroy(pool);
    mpqc_pool_destroy(NULL);
}

/* ---- loader ---- */

#define SPECIMEN MPQC_SPECIMEN_DIR "/specimen.so"

static void refused(const char *path, const char *tag, const char *pattern)
{
    struct mpqc_loaded l;
    char why[MPQC_LOAD_ERROR] = "";
    assert_int_equal(mpqc_load_open(path, tag, &l, why), -1);
    assert_null(l.handle);
    if (!strstr(why, pattern)) fail_msg("'%s' is not in: %s", pattern, why);
}

static void loads_and_refuses(void **state)
{
    (void)state;
    struct mpqc_loaded l;
    char why[MPQC_LOAD_ERROR];
    assert_int_equal(mpqc_load_open(SPECIMEN, NULL, &l, why), 0);
    assert_string_equal(l.model->name, "specimen");
    assert_int_equal(mpqc_load_supported(&l, SPECIMEN, why), 0);
    mpqc_load_close(&l);
    refused("none.so", NULL, "none.so: cannot be opened");
    refused("/etc/passwd", NULL, "not a shared library");
    refused(SPECIMEN, "other", "mpqc_model_other");
    refused(MPQC_SPECIMEN_DIR "/specimen_tagged.so", "", "-tag=NAME");
    refused(MPQC_BINARY_DIR "/runtime/libmpqc_runtime.so", "", "has no model");
    const char *path = MPQC_SPECIMEN_DIR "/specimen_unsupported.so";
    assert_int_equal(mpqc_load_open(path, NULL, &l, why), 0);
    assert_int_equal(mpqc_load_supported(&l, path, why), -1);
    assert_non_null(strstr(why, "hand-written"));
    mpqc_load_close(&l);
}

/* A name without a slash is a file here, not one in the system's folders. */
static void a_bare_name_is_a_path(void **state)
{
    (void)state;
    struct mpqc_loaded l;
    char why[MPQC_LOAD_ERROR] = "";
    unlink("bare.so");
    assert_int_equal(symlink(SPECIMEN, "bare.so"), 0);
    if (mpqc_load_open("bare.so", NULL, &l, why)) fail_msg("%s", why);
    mpqc_load_close(&l);
    unlink("bare.so");
}

static int yes(void)
{
    return 1;
}

static int nothing(const void *const *in, void *const *out, void *ws, const struct mpqc_exec *e)
{
    (void)in, (void)out, (void)ws, (void)e;
    return 0;
}

static void damaged_descriptors_are_refused(void **state)
{
    (void)state;
    struct mpqc_io io = {.name = "x", .element = MPQC_ELEM_I16, .rank = 2, .dims = {1, 3},
                         .bytes = 6, .scale = 1};
    struct mpqc_layer layer = {.name = "l", .op = "conv"};
    const struct mpqc_model good = {
        .abi_version = MPQC_ABI_VERSION, .struct_size = sizeof good, .name = "m", .target = "t",
        .compiler = "c", .n_inputs = 1, .n_outputs = 1, .inputs = &io, .outputs = &io,
        .workspace_align = 64, .n_layers = 1, .layers = &layer, .supported = yes, .run = nothing};
    char why[MPQC_LOAD_ERROR];
    assert_int_equal(mpqc_model_check(&good, "m.so", why), 0);
    struct mpqc_model bad[12];
    for (int i = 0; i < 12; i++) bad[i] = good;
    bad[0].abi_version++;
    bad[1].struct_size--;
    bad[2].name = NULL;
    bad[3].run = NULL;
    bad[4].supported = NULL;
    bad[5].workspace_align = 48;
    bad[6].workspace_align = 0;
    bad[7].inputs = NULL;
    bad[8].n_outputs = 0;
    bad[9].layers = NULL;
    bad[10].target = NULL;
    bad[11].outputs = NULL;
    for (int i = 0; i < 12; i++) {
        assert_int_equal(mpqc_model_check(&bad[i], "m.so", why), -1);
        assert_memory_equal(why, "m.so: ", 6);
    }
    io.bytes = 8;
    assert_int_equal(mpqc_model_check(&good, "m.so", why), -1);
    io.bytes = 6;
    io.element = 99;
    assert_int_equal(mpqc_model_check(&good, "m.so", why), -1);
    io.element = MPQC_ELEM_I16;
    io.rank = MPQC_ABI_MAX_RANK + 1;
    assert_int_equal(mpqc_model_check(&good, "m.so", why), -1);
}

static void workspaces_are_aligned(void **state)
{
    (void)state;
    for (uint64_t align = 1; align <= 4096; align *= 2) {
        struct mpqc_model m = {.workspace_size = 100, .workspace_align = align};
        void *p = mpqc_workspace_alloc(&m);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % align, 0);
        memset(p, 1, 100);
        free(p);
        m.workspace_size = 0;
        p = mpqc_workspace_alloc(&m);
        assert_non_null(p);
        free(p);
    }
}

static void names_of_things(void **state)
{
    (void)state;
    assert_string_equal(mpqc_element_name(MPQC_ELEM_I8), "i8");
    assert_int_equal(mpqc_element_size(MPQC_ELEM_I64), 8);
    assert_int_equal(mpqc_element_size(0), 0);
    assert_int_equal(mpqc_element_size(7), 0);
    assert_string_equal(mpqc_run_status_text(99), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_indices_once),
        cmocka_unit_test(parts_are_always_the_same),
        cmocka_unit_test(sleepers_are_woken),
        cmocka_unit_test(a_task_may_use_the_pool),
        cmocka_unit_test(two_callers_do_not_meet),
        cmocka_unit_test(exec_is_filled),
        cmocka_unit_test(loads_and_refuses),
        cmocka_unit_test(a_bare_name_is_a_path),
        cmocka_unit_test(damaged_descriptors_are_refused),
        cmocka_unit_test(workspaces_are_aligned),
        cmocka_unit_test(names_of_things),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
