/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tests/abi_checks.h"

#include "runtime/mpqc_load.h"
#include "runtime/mpqc_pool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_IO 64
#define N_REENTRANT 4
#define ROUNDS 8

/* The library under test; one per group. */
struct subject {
    const char *path, *tag;
    struct mpqc_loaded loaded;
};

/* One set of buffers. */
struct buffers {
    const struct mpqc_model *m;
    void *in[MAX_IO], *out[MAX_IO];
    void *workspace;
};

static const struct mpqc_model *model_of(void **state)
{
    const struct subject *s = *state;
    return s->loaded.model;
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Floats around zero; all bytes for narrow integers; 0 and 1 for wide ones, which may
 * be indices. */
static void fill_input(const struct mpqc_io *io, void *to, uint64_t seed)
{
    size_t size = mpqc_element_size(io->element), n = (size_t)io->bytes / size;
    for (size_t i = 0; i < n; i++) {
        uint64_t r = next_random(&seed);
        float f = ((float)(r >> 40) * 0x1p-23f - 1.0f) * 3.0f;
        uint64_t q = size > 2 ? r & 1 : r;
        memcpy((char *)to + i * size, io->element == MPQC_ELEM_F32 ? (void *)&f : (void *)&q,
               size);
    }
}

static void *must(void *p)
{
    assert_non_null(p);
    return p;
}

static void buffers_init(struct buffers *b, const struct mpqc_model *m, uint64_t seed)
{
    *b = (struct buffers){.m = m};
    for (uint32_t i = 0; i < m->n_inputs; i++) {
        b->in[i] = must(malloc((size_t)m->inputs[i].bytes + 1));
        fill_input(&m->inputs[i], b->in[i], seed + i);
    }
    for (uint32_t i = 0; i < m->n_outputs; i++)
        b->out[i] = must(calloc(1, (size_t)m->outputs[i].bytes + 1));
    b->workspace = must(mpqc_workspace_alloc(m));
    memset(b->workspace, 0x5a, (size_t)m->workspace_size);
}

static void buffers_release(struct buffers *b)
{
    for (uint32_t i = 0; i < b->m->n_inputs; i++) free(b->in[i]);
    for (uint32_t i = 0; i < b->m->n_outputs; i++) free(b->out[i]);
    free(b->workspace);
}

static int run(const struct buffers *b, const struct mpqc_exec *exec)
{
    return b->m->run((const void *const *)b->in, b->out, b->workspace, exec);
}

static void assert_same(const struct buffers *a, const struct buffers *b)
{
    for (uint32_t i = 0; i < a->m->n_outputs; i++)
        assert_memory_equal(a->out[i], b->out[i], (size_t)a->m->outputs[i].bytes);
}

/* ---- the list ---- */

static void descriptor_is_sane(void **state)
{
    const struct subject *s = *state;
    const struct mpqc_model *m = s->loaded.model;
    char why[MPQC_LOAD_ERROR] = "";
    if (mpqc_model_check(m, s->path, why)) fail_msg("%s", why);
    assert_true(m->n_inputs > 0 && m->n_inputs <= MAX_IO && m->n_outputs <= MAX_IO);
    assert_true(m->n_layers > 0);
    for (uint32_t i = 0; i < m->n_inputs + m->n_outputs; i++) {
        const struct mpqc_io *io =
            i < m->n_inputs ? &m->inputs[i] : &m->outputs[i - m->n_inputs];
        assert_true(io->name[0] != '\0');
        assert_true(io->scale > 0);
        if (io->element == MPQC_ELEM_F32) assert_true(io->scale == 1 && io->zero_point == 0);
        const struct mpqc_preprocess *p = io->preprocess;
        assert_true(!p || (p->scale != 0 && p->channels >= 1 && p->channels <= 4));
        for (uint32_t c = 0; p && c < p->channels; c++) assert_true(p->std[c] != 0);
    }
}

static void is_supported_here(void **state)
{
    const struct mpqc_model *m = model_of(state);
    assert_int_equal(m->supported(), 1);
    assert_int_equal(m->supported(), 1);
}

static void null_pointers_are_refused(void **state)
{
    struct buffers b;
    buffers_init(&b, model_of(state), 1);
    for (uint32_t i = 0; i < b.m->n_inputs; i++) {
        void *kept = b.in[i];
        b.in[i] = NULL;
        assert_int_equal(run(&b, NULL), MPQC_RUN_NULL_POINTER);
        b.in[i] = kept;
    }
    for (uint32_t i = 0; i < b.m->n_outputs; i++) {
        void *kept = b.out[i];
        b.out[i] = NULL;
        assert_int_equal(run(&b, NULL), MPQC_RUN_NULL_POINTER);
        b.out[i] = kept;
    }
    void *kept = b.workspace;
    b.workspace = NULL;
    assert_int_equal(run(&b, NULL), MPQC_RUN_NULL_POINTER);
    b.workspace = kept;
    buffers_release(&b);
}

static void misaligned_workspace_is_refused(void **state)
{
    struct buffers b;
    buffers_init(&b, model_of(state), 1);
    char *kept = b.workspace;
    for (uint64_t off = 1; off < b.m->workspace_align; off *= 2) {
        b.workspace = kept + off;
        assert_int_equal(run(&b, NULL), MPQC_RUN_MISALIGNED_WORKSPACE);
    }
    b.workspace = kept;
    buffers_release(&b);
}

static void what_was_in_memory_is_irrelevant(void **state)
{
    static const int fills[] = {0x00, 0xaa, 0xff};
    struct buffers first, b;
    buffers_init(&first, model_of(state), 7);
    assert_int_equal(run(&first, NULL), MPQC_RUN_OK);
    buffers_init(&b, model_of(state), 7);
    for (size_t f = 0; f < sizeof fills / sizeof *fills; f++) {
        memset(b.workspace, fills[f], (size_t)b.m->workspace_size);
        for (uint32_t i = 0; i < b.m->n_outputs; i++)
            memset(b.out[i], fills[f], (size_t)b.m->outputs[i].bytes);
        assert_int_equal(run(&b, NULL), MPQC_RUN_OK);
        assert_same(&first, &b);
    }
    buffers_release(&b);
    buffers_release(&first);
}

static void answers_depend_on_the_input(void **state)
{
    struct buffers a, b;
    int differ = 0;
    buffers_init(&a, model_of(state), 7);
    assert_int_equal(run(&a, NULL), MPQC_RUN_OK);
    for (uint64_t seed = 100; seed < 110 && !differ; seed++) {
        buffers_init(&b, model_of(state), seed);
        assert_int_equal(run(&b, NULL), MPQC_RUN_OK);
        for (uint32_t i = 0; i < b.m->n_outputs; i++)
            differ |= memcmp(a.out[i], b.out[i], (size_t)b.m->outputs[i].bytes) != 0;
        buffers_release(&b);
    }
    buffers_release(&a);
    assert_true(differ);
}

/* Memory whose last byte is followed by a page that must not be touched, and whose
 * first byte follows 64 guard bytes. */
struct fenced {
    unsigned char *map, *data;
    size_t map_size, size;
};

#define GUARD 64

static void fence(struct fenced *f, size_t size, size_t align)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (size + GUARD + align + page - 1) / page * page;
    f->size = size;
    f->map_size = body + page;
    f->map = mmap(NULL, f->map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(f->map != MAP_FAILED);
    assert_int_equal(mprotect(f->map + body, page, PROT_NONE), 0);
    memset(f->map, 0xc3, body);
    uintptr_t start = (uintptr_t)(f->map + body - size);
    f->data = f->map + (start / align * align - (uintptr_t)f->map);
}

static void check_fence(const struct fenced *f, const unsigned char *body_end)
{
    for (const unsigned char *p = f->data - GUARD; p < f->data; p++) assert_int_equal(*p, 0xc3);
    for (const unsigned char *p = f->data + f->size; p < body_end; p++)
        assert_int_equal(*p, 0xc3);
}

static void unfence(struct fenced *f)
{
    check_fence(f, f->map + f->map_size - (size_t)sysconf(_SC_PAGESIZE));
    munmap(f->map, f->map_size);
}

/* Reads and writes stay inside: beyond the end is a page without access, before the
 * beginning are guard bytes.  Inputs are not changed. */
static void stays_inside_its_buffers(void **state)
{
    struct buffers plain, b = {.m = model_of(state)};
    struct fenced in[MAX_IO], out[MAX_IO], ws;
    buffers_init(&plain, b.m, 11);
    assert_int_equal(run(&plain, NULL), MPQC_RUN_OK);
    for (uint32_t i = 0; i < b.m->n_inputs; i++) {
        fence(&in[i], (size_t)b.m->inputs[i].bytes, 1);
        b.in[i] = in[i].data;
        memcpy(b.in[i], plain.in[i], in[i].size);
    }
    for (uint32_t i = 0; i < b.m->n_outputs; i++) {
        fence(&out[i], (size_t)b.m->outputs[i].bytes, 1);
        b.out[i] = out[i].data;
    }
    fence(&ws, (size_t)b.m->workspace_size, (size_t)b.m->workspace_align);
    b.workspace = ws.data;
    assert_int_equal(run(&b, NULL), MPQC_RUN_OK);
    assert_same(&plain, &b);
    for (uint32_t i = 0; i < b.m->n_inputs; i++) {
        assert_memory_equal(b.in[i], plain.in[i], in[i].size);
        unfence(&in[i]);
    }
    for (uint32_t i = 0; i < b.m->n_outputs; i++) unfence(&out[i]);
    unfence(&ws);
    buffers_release(&plain);
}

static void inputs_and_outputs_may_be_unaligned(void **state)
{
    struct buffers plain, b;
    buffers_init(&plain, model_of(state), 13);
    buffers_init(&b, model_of(state), 13);
    assert_int_equal(run(&plain, NULL), MPQC_RUN_OK);
    struct buffers shifted = b;
    for (uint32_t i = 0; i < b.m->n_inputs; i++) {
        shifted.in[i] = (char *)b.in[i] + 1;
        memcpy(shifted.in[i], plain.in[i], (size_t)b.m->inputs[i].bytes);
    }
    for (uint32_t i = 0; i < b.m->n_outputs; i++) shifted.out[i] = (char *)b.out[i] + 1;
    assert_int_equal(run(&shifted, NULL), MPQC_RUN_OK);
    assert_same(&plain, &shifted);
    buffers_release(&b);
    buffers_release(&plain);
}

/* Legal, and as awkward as can be: one element at a time, the last one first. */
static void backwards_for(void *pool, mpqc_task task, void *arg, int64_t n)
{
    (void)pool;
    while (n-- > 0) task(arg, n, n + 1);
}

static void parallel_for_gives_the_same_bytes(void **state)
{
    static const uint32_t threads[] = {1, 2, 3, 5};
    struct buffers plain, b;
    struct mpqc_exec exec;
    buffers_init(&plain, model_of(state), 17);
    buffers_init(&b, model_of(state), 17);
    assert_int_equal(run(&plain, NULL), MPQC_RUN_OK);
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        struct mpqc_pool *pool = must(mpqc_pool_create(threads[t]));
        mpqc_pool_exec(pool, &exec);
        for (int i = 0; i < ROUNDS; i++) {
            memset(b.workspace, i, (size_t)b.m->workspace_size);
            assert_int_equal(run(&b, &exec), MPQC_RUN_OK);
            assert_same(&plain, &b);
        }
        mpqc_pool_destroy(pool);
    }
    exec = (struct mpqc_exec){
        .struct_size = sizeof exec, .threads = 7, .parallel_for = backwards_for};
    assert_int_equal(run(&b, &exec), MPQC_RUN_OK);
    assert_same(&plain, &b);
    buffers_release(&b);
    buffers_release(&plain);
}

static void empty_exec_is_fine(void **state)
{
    struct mpqc_exec exec = {.struct_size = sizeof exec, .threads = 4};
    struct buffers plain, b;
    buffers_init(&plain, model_of(state), 19);
    buffers_init(&b, model_of(state), 19);
    assert_int_equal(run(&plain, NULL), MPQC_RUN_OK);
    assert_int_equal(run(&b, &exec), MPQC_RUN_OK);
    assert_same(&plain, &b);
    buffers_release(&b);
    buffers_release(&plain);
}

/* What the hooks saw. */
struct trace {
    uint32_t begun, ended;
    int wrong;
};

static void on_begin(void *profile, uint32_t layer)
{
    struct trace *t = profile;
    t->wrong |= layer != t->begun || t->begun != t->ended;
    t->begun++;
}

static void on_end(void *profile, uint32_t layer)
{
    struct trace *t = profile;
    t->wrong |= layer != t->ended || t->begun != t->ended + 1;
    t->ended++;
}

static void hooks_see_each_layer_in_order(void **state)
{
    struct trace t = {0, 0, 0};
    struct mpqc_exec exec = {.struct_size = sizeof exec, .layer_begin = on_begin,
                             .layer_end = on_end, .profile = &t};
    struct buffers b;
    buffers_init(&b, model_of(state), 23);
    assert_int_equal(run(&b, &exec), MPQC_RUN_OK);
    assert_int_equal(t.wrong, 0);
    assert_int_equal(t.begun, b.m->n_layers);
    assert_int_equal(t.ended, b.m->n_layers);
    exec.layer_end = NULL; /* one hook without the other */
    t = (struct trace){0, 0, 0};
    assert_int_equal(run(&b, &exec), MPQC_RUN_OK);
    assert_int_equal(t.begun, b.m->n_layers);
    buffers_release(&b);
}

/* Runs one model over and over; says whether each answer was the expected one. */
struct runner {
    struct buffers b, expected;
    int wrong;
};

static void *run_often(void *arg)
{
    struct runner *r = arg;
    for (int i = 0; i < ROUNDS; i++) {
        if (run(&r->b, NULL) != MPQC_RUN_OK) r->wrong = 1;
        for (uint32_t k = 0; k < r->b.m->n_outputs; k++)
            r->wrong |= memcmp(r->b.out[k], r->expected.out[k],
                               (size_t)r->b.m->outputs[k].bytes) != 0;
    }
    return NULL;
}

static void many_threads_may_run_at_once(void **state)
{
    struct runner runners[N_REENTRANT];
    pthread_t threads[N_REENTRANT];
    for (int t = 0; t < N_REENTRANT; t++) {
        runners[t].wrong = 0;
        buffers_init(&runners[t].b, model_of(state), 1000u * (unsigned)t);
        buffers_init(&runners[t].expected, model_of(state), 1000u * (unsigned)t);
        assert_int_equal(run(&runners[t].expected, NULL), MPQC_RUN_OK);
    }
    for (int t = 0; t < N_REENTRANT; t++)
        assert_int_equal(pthread_create(&threads[t], NULL, run_often, &runners[t]), 0);
    for (int t = 0; t < N_REENTRANT; t++) pthread_join(threads[t], NULL);
    for (int t = 0; t < N_REENTRANT; t++) {
        assert_int_equal(runners[t].wrong, 0);
        buffers_release(&runners[t].b);
        buffers_release(&runners[t].expected);
    }
}

/* NaN, infinities, huge and tiny numbers: an answer, the same each time. */
static void strange_floats_do_no_harm(void **state)
{
    static const float strange[] = {__builtin_nanf(""), __builtin_inff(), -__builtin_inff(),
                                    3e38f, -3e38f, 1e-45f, -0.0f};
    struct buffers a, b;
    buffers_init(&a, model_of(state), 29);
    for (uint32_t i = 0; i < a.m->n_inputs; i++) {
        if (a.m->inputs[i].element != MPQC_ELEM_F32) continue;
        for (size_t k = 0; k < (size_t)a.m->inputs[i].bytes / sizeof(float); k++)
            memcpy((char *)a.in[i] + k * sizeof(float), &strange[k % 7], sizeof(float));
    }
    buffers_init(&b, a.m, 29);
    for (uint32_t i = 0; i < a.m->n_inputs; i++)
        memcpy(b.in[i], a.in[i], (size_t)a.m->inputs[i].bytes);
    assert_int_equal(run(&a, NULL), MPQC_RUN_OK);
    assert_int_equal(run(&b, NULL), MPQC_RUN_OK);
    assert_same(&a, &b);
    buffers_release(&b);
    buffers_release(&a);
}

static void the_file_is_clean(void **state)
{
    const struct subject *s = *state;
    char why[256] = "";
    if (mpqc_abi_elf(s->path, why, sizeof why)) fail_msg("%s: %s", s->path, why);
}

#define CHECK(f) {#f, f, NULL, NULL, NULL}

int mpqc_abi_run(const char *path, const char *tag)
{
    struct CMUnitTest tests[] = {
        CHECK(descriptor_is_sane),
        CHECK(is_supported_here),
        CHECK(null_pointers_are_refused),
        CHECK(misaligned_workspace_is_refused),
        CHECK(what_was_in_memory_is_irrelevant),
        CHECK(answers_depend_on_the_input),
        CHECK(stays_inside_its_buffers),
        CHECK(inputs_and_outputs_may_be_unaligned),
        CHECK(parallel_for_gives_the_same_bytes),
        CHECK(empty_exec_is_fine),
        CHECK(hooks_see_each_layer_in_order),
        CHECK(many_threads_may_run_at_once),
        CHECK(strange_floats_do_no_harm),
        CHECK(the_file_is_clean),
    };
    struct subject s = {.path = path, .tag = tag};
    char why[MPQC_LOAD_ERROR];
    if (mpqc_load_open(path, tag, &s.loaded, why)) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) tests[i].initial_state = &s;
    int failed = _cmocka_run_group_tests(path, tests, sizeof tests / sizeof *tests, NULL, NULL);
    mpqc_load_close(&s.loaded);
    return failed;
}
