/* SPDX-License-Identifier: GPL-3.0-or-later
 * The interpreter as an engine: buffers, observers, outputs of every kind, threads.
 */
#include "failing_allocator.h"

#include "ir/exec.h"
#include "ir/text.h"

#include <setjmp.h>
#include <cmocka.h>

struct fixture {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_runner *r;
};

static void open_graph(struct fixture *f, const char *text)
{
    mpqc_cx_init(&f->cx, NULL);
    mpqc_graph_init(&f->g, NULL);
    if (mpqc_graph_parse(&f->cx, text, strlen(text), "text", &f->g) != MPQC_OK)
        fail_msg("%s", f->cx.diags[0].message);
    assert_int_equal(mpqc_graph_normalise(&f->cx, &f->g), MPQC_OK);
    assert_int_equal(mpqc_interpreter.prepare(&f->cx, &f->g, &f->r), MPQC_OK);
}

static void close_graph(struct fixture *f)
{
    mpqc_interpreter.release(f->r);
    mpqc_graph_release(&f->g);
    mpqc_cx_release(&f->cx);
}

/* Values that live long beside ones that die: nobody may overwrite %1. */
#define RESIDUAL                                                                                  \
    "graph {"                                                                                     \
    "  input %0 : f32[1,4]"                                                                       \
    "  const %1 : f32[1,4] = [1,2,3,4]"                                                           \
    "  %2 = add %0, %1"                                                                           \
    "  %3 = mul %2, %1"                                                                           \
    "  %4 = concat %3, %3, %3 {axis=1}"                                                           \
    "  %5 = relu %4"                                                                              \
    "  %6 = slice %5 {begin=[0,4], shape=[1,4], step=[1,1]}"                                      \
    "  %7 = add %6, %2"                                                                           \
    "  %8 = sub %7, %0"                                                                           \
    "  output %8 output %2 }"

static void results(void **state)
{
    (void)state;
    struct fixture f;
    open_graph(&f, RESIDUAL);
    for (int round = 0; round < 3; round++) { /* a runner can be used again */
        const float x[4] = {1, -9, 0.5f, (float)round};
        float a[4], b[4];
        const void *in[1] = {x};
        void *out[2] = {a, b};
        assert_int_equal(mpqc_interpreter.run(f.r, in, out, NULL, NULL), MPQC_OK);
        for (int i = 0; i < 4; i++) {
            float sum = x[i] + (float)(i + 1), product = sum * (float)(i + 1);
            assert_true(b[i] == sum);
            assert_true(a[i] == (product > 0 ? product : 0) + sum - x[i]);
        }
    }
    close_graph(&f);
}

struct seen {
    const struct mpqc_graph *g;
    mpqc_vid ids[16];
    float first[16];
    int n;
};

static void observe(void *user, mpqc_vid v, const struct mpqc_tensor *t)
{
    struct seen *s = user;
    assert_true(mpqc_type_equal(&t->type, &s->g->values[v].type));
    s->ids[s->n] = v;
    s->first[s->n++] = ((const float *)t->data)[0];
}

/* Inputs first, then each result at the moment when it is whole. */
static void observers(void **state)
{
    (void)state;
    struct fixture f;
    open_graph(&f, RESIDUAL);
    struct seen s = {.g = &f.g};
    const float x[4] = {1, 1, 1, 1};
    float a[4], b[4];
    const void *in[1] = {x};
    void *out[2] = {a, b};
    assert_int_equal(mpqc_interpreter.run(f.r, in, out, observe, &s), MPQC_OK);
    const float wanted[8] = {1, 2, 2, 2, 2, 2, 4, 3};
    assert_int_equal(s.n, 8);
    for (int i = 0; i < 8; i++) assert_true(s.first[i] == wanted[i]);
    assert_int_equal(s.ids[0], f.g.inputs[0]);
    for (int i = 1; i < 8; i++)
        assert_int_equal(s.ids[i], f.g.nodes[f.g.order[i - 1]].out[0]);
    close_graph(&f);
}

/* An output may be an input, a constant, or the same value twice. */
static void outputs_of_every_kind(void **state)
{
    (void)state;
    struct fixture f;
    open_graph(&f, "graph { input %0 : i64[2] const %1 : u8[3] = [7,8,9] %2 = neg %0"
                   "  output %0 output %1 output %2 output %2 }");
    const int64_t x[2] = {5, -6};
    int64_t a[2], c[2], d[2];
    uint8_t b[3];
    const void *in[1] = {x};
    void *out[4] = {a, b, c, d};
    assert_int_equal(mpqc_interpreter.run(f.r, in, out, NULL, NULL), MPQC_OK);
    assert_memory_equal(a, x, sizeof x);
    assert_memory_equal(b, "\7\10\11", 3);
    assert_true(c[0] == -5 && c[1] == 6);
    assert_memory_equal(c, d, sizeof c);
    close_graph(&f);
}

/* Float in, integers inside, float out. */
static void mixed_graph(void **state)
{
    (void)state;
    struct fixture f;
    open_graph(&f,
               "graph { input %0 : f32[1,3]"
               "  %1 = quantize %0 {scale=0.5, to=\"u8\", zero=10}"
               "  const %2 : i8[3,1] quant(axis=1, scale=[0.25], zero=[0]) = [4,-4,8]"
               "  const %3 : i32[1] = [100]"
               "  %4 = matmul %1, %2, %3"
               "  const %5 : i32[1] = [0] const %6 : i32[1] = [16384]"
               "  %7 = requant %4, %5, %6 {scale=0.25}"
               "  %8 = narrow %7 {frac=1, hi=255, lo=0, to=\"u8\", zero=1}"
               "  %9 = dequantize %8 output %9 }");
    /* q = 12, 6, 11; acc = 2*4 + 4*4 + 1*8 + 100 = 132; t = 66; narrow: 33 + 1; * 0.5 */
    const float x[3] = {1, -2, 0.4f};
    float y;
    const void *in[1] = {x};
    void *out[1] = {&y};
    assert_int_equal(mpqc_interpreter.run(f.r, in, out, NULL, NULL), MPQC_OK);
    assert_true(y == 16.5f);
    close_graph(&f);
}

static void empty_tensors(void **state)
{
    (void)state;
    struct fixture f;
    open_graph(&f, "graph { input %0 : f32[0,3] %1 = relu %0 %2 = concat %1, %0 {axis=0}"
                   " %3 = transpose %2 {perm=[1,0]} output %3 }");
    const void *in[1] = {NULL};
    void *out[1] = {NULL};
    assert_int_equal(mpqc_interpreter.run(f.r, in, out, NULL, NULL), MPQC_OK);
    close_graph(&f);
}

/* One runner a worker, one graph for all. */
#define WORKERS 4
struct shared {
    struct mpqc_runner *runner[WORKERS];
    float result[200];
};

static mpqc_status one_sample(void *user, unsigned worker, uint64_t index)
{
    struct shared *s = user;
    const float x[4] = {(float)index, 1, 2, 3};
    float a[4], b[4];
    const void *in[1] = {x};
    void *out[2] = {a, b};
    MPQC_TRY(mpqc_interpreter.run(s->runner[worker], in, out, NULL, NULL));
    s->result[index] = a[0];
    return MPQC_OK;
}

static void threads(void **state)
{
    (void)state;
    struct fixture f;
    struct shared s = {0};
    open_graph(&f, RESIDUAL);
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(mpqc_interpreter.prepare(&f.cx, &f.g, &s.runner[i]), MPQC_OK);
    assert_int_equal(mpqc_for_each(WORKERS, 200, one_sample, &s), MPQC_OK);
    for (int i = 0; i < 200; i++) assert_true(s.result[i] == (float)(i + 2));
    for (int i = 0; i < WORKERS; i++) mpqc_interpreter.release(s.runner[i]);
    close_graph(&f);
}

/* Each request fails in turn: a status, no leak; at last it succeeds. */
static void out_of_memory(void **state)
{
    (void)state;
    struct fixture f;
    open_graph(&f, RESIDUAL);
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        struct failing_allocator failing;
        struct mpqc_cx cx;
        struct mpqc_runner *r = NULL;
        failing_init(&failing, n);
        mpqc_cx_init(&cx, &failing.allocator);
        mpqc_status status = mpqc_interpreter.prepare(&cx, &f.g, &r);
        if (status == MPQC_OK) mpqc_interpreter.release(r);
        else assert_int_equal(status, MPQC_NO_MEMORY);
        done = status == MPQC_OK;
        assert_true(n < 100);
        mpqc_cx_release(&cx);
        assert_int_equal(failing.alive, 0);
    }
    close_graph(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results),       cmocka_unit_test(observers),
        cmocka_unit_test(mixed_graph),   cmocka_unit_test(outputs_of_every_kind),
        cmocka_unit_test(empty_tensors), cmocka_unit_test(threads),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
