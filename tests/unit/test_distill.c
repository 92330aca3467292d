/* SPDX-License-Identifier: GPL-3.0-or-later
 * Images from statistics: the network as it was imported, run on them with its
 * BatchNorms in place, must have the statistics that its BatchNorms remember.
 */
#include "passes/distill.h"

#include "failing_allocator.h"
#include "frontend/frontend.h"
#include "ir/text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define BN_CONSTS                                                                                 \
    " const %1 : f32[3,3,3,4] = random 1 const %2 : f32[4] = [0.5,1,0.25,-1]"                     \
    " const %3 : f32[4] = [0.1,-0.2,0.3,0] const %4 : f32[4] = [0.2,-0.1,0,0.3]"                  \
    " const %5 : f32[4] = [0.5,1.5,1,2]"
/* Two BatchNorms: one behind a convolution, one behind the relu that follows. */
#define SMALL                                                                                     \
    "graph \"small\" { input %0 \"x\" : f32[1,3,8,9]" BN_CONSTS                                   \
    " %6 = transpose %0 {perm=[0,2,3,1]} @\"t\" \"Conv\""                                         \
    " %7 = conv %6, %1 {pads=[1,1,1,1]} @\"c\" \"Conv\""                                          \
    " %8 = batchnorm %7, %2, %3, %4, %5 @\"b\" \"BatchNormalization\""                            \
    " %9 = relu %8 @\"r\" \"Relu\""                                                               \
    " const %10 : f32[4] = [0.4,0.5,0.2,0.3] const %11 : f32[4] = [0.3,0.6,0.05,0.8]"             \
    " %12 = batchnorm %9, %2, %3, %10, %11 {epsilon=0.01} @\"d\" \"BatchNormalization\""          \
    " output %12 }"
#define VECTOR                                                                                    \
    "graph \"vector\" { input %0 \"x\" : f32[1,20] const %1 : f32[20,4] = random 1"               \
    " const %2 : f32[4] = [0.5,1,0.25,1] const %3 : f32[4] = [0.1,-0.2,0.3,0]"                    \
    " const %4 : f32[4] = [1,-2,3,0.3] const %5 : f32[4] = [3,4,5,6]"                             \
    " %6 = matmul %0, %1 @\"m\" \"MatMul\" %7 = batchnorm %6, %2, %3, %4, %5 @\"b\" \"B\""        \
    " output %7 }"
#define FOLDED                                                                                    \
    "graph \"folded\" { input %0 \"x\" : f32[1,6,7,3]"                                            \
    " const %1 : f32[3,3,3,8] = random 1 const %2 : f32[8] = random 2"                            \
    " %3 = conv %0, %1, %2 {pads=[1,1,1,1]} @\"c\" \"Conv\" %4 = relu %3 @\"r\" \"Relu\""         \
    " const %5 : f32[1,1,8,5] = random 3 %6 = conv %4, %5 @\"d\" \"Conv\" output %6 }"
#define BARE                                                                                      \
    "graph \"bare\" { input %0 \"x\" : f32[1,6,7,3] const %1 : f32[3,3,3,8] = random 1"           \
    " %3 = conv %0, %1 @\"c\" \"Conv\" output %3 }"
#define TWO                                                                                       \
    "graph \"two\" { input %0 \"x\" : f32[1,4] input %1 \"y\" : f32[1,4]"                         \
    " %2 = add %0, %1 @\"a\" \"Add\" output %2 }"
#define WHOLE                                                                                     \
    "graph \"whole\" { input %0 \"x\" : i32[1,4] %2 = add %0, %0 @\"a\" \"Add\" output %2 }"

struct rig {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_distilled d;
};

static void open_text(struct rig *r, const char *text)
{
    memset(r, 0, sizeof *r);
    mpqc_cx_init(&r->cx, NULL);
    r->cx.threads = 2;
    mpqc_graph_init(&r->g, NULL);
    mpqc_status status = mpqc_graph_parse(&r->cx, text, strlen(text), "test", &r->g);
    if (r->cx.n_diags) mpqc_diag_print(&r->cx.diags[0], stderr);
    assert_int_equal(status, MPQC_OK);
}

static void open_file(struct rig *r, const char *path)
{
    struct mpqc_import_options options = {0};
    memset(r, 0, sizeof *r);
    mpqc_cx_init(&r->cx, NULL);
    r->cx.threads = 2;
    mpqc_graph_init(&r->g, NULL);
    assert_int_equal(mpqc_import_onnx(&r->cx, path, &options, &r->g), MPQC_OK);
}

static mpqc_status make(struct rig *r, const struct mpqc_distill_options *options)
{
    return mpqc_distill(&r->cx, &mpqc_interpreter, &r->g, options, &r->d);
}

static void done(struct rig *r)
{
    mpqc_distilled_release(&r->d);
    mpqc_graph_release(&r->g);
    mpqc_cx_release(&r->cx);
}

static bool said(const struct rig *r, const char *what)
{
    for (uint32_t i = 0; i < r->cx.n_diags; i++)
        if (strstr(r->cx.diags[i].message, what)) return true;
    return false;
}

/* ---- an oracle that shares nothing with the pass ---- */

#define MOST_BN 64
struct sums {
    const struct mpqc_graph *g;
    struct {
        const struct mpqc_node *bn;
        double *sum, *square, count;
    } at[MOST_BN];
    uint32_t n;
};

static void watch(void *user, mpqc_vid v, const struct mpqc_tensor *t)
{
    struct sums *s = user;
    const float *x = t->data;
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->at[i].bn->in[0] != v) continue;
        int64_t n = mpqc_type_count(&t->type), channels = t->type.dims[t->type.rank - 1];
        for (int64_t k = 0; k < n; k++) {
            s->at[i].sum[k % channels] += (double)x[k];
            s->at[i].square[k % channels] += (double)x[k] * (double)x[k];
        }
        s->at[i].count += (double)(n / channels);
    }
}

static void find_bns(struct sums *s, const struct mpqc_graph *g)
{
    *s = (struct sums){.g = g};
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = &g->nodes[g->order[i]];
        if (n->op != MPQC_OP_BATCHNORM) continue;
        size_t channels = (size_t)g->values[n->in[1]].type.dims[0];
        assert_true(s->n < MOST_BN);
        s->at[s->n].bn = n;
        s->at[s->n].sum = calloc(channels, sizeof(double));
        s->at[s->n++].square = calloc(channels, sizeof(double));
    }
}

/* In units of the remembered deviation: mean over channels of both squared errors. */
static double distance(struct sums *s)
{
    double total = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const struct mpqc_node *n = s->at[i].bn;
        const float *mean = s->g->values[n->in[3]].data, *var = s->g->values[n->in[4]].data;
        int64_t channels = s->g->values[n->in[3]].type.dims[0];
        for (int64_t c = 0; c < channels; c++) {
            double m = s->at[i].sum[c] / s->at[i].count, sigma = sqrt((double)var[c] + 1e-5);
            double std = sqrt(fmax(s->at[i].square[c] / s->at[i].count - m * m, 0));
            total += (pow((m - (double)mean[c]) / sigma, 2) + pow(std / sigma - 1, 2)) /
                     (double)(channels * s->n);
        }
        free(s->at[i].sum);
        free(s->at[i].square);
    }
    return total;
}

/* How far the BatchNorms' inputs are from what they remember, over all images. */
static double measure(struct rig *r, const float *images, uint64_t count)
{
    struct sums s;
    struct mpqc_runner *runner;
    void *out[MPQC_MAX_OUTPUTS];
    assert_int_equal(mpqc_graph_normalise(&r->cx, &r->g), MPQC_OK);
    find_bns(&s, &r->g);
    for (uint32_t i = 0; i < r->g.n_outputs; i++)
        out[i] = malloc(mpqc_type_bytes(&r->g.values[r->g.outputs[i]].type));
    assert_int_equal(mpqc_interpreter.prepare(&r->cx, &r->g, &runner), MPQC_OK);
    for (uint64_t i = 0; i < count; i++) {
        const void *in = images + i * r->d.elements;
        assert_int_equal(mpqc_interpreter.run(runner, &in, out, watch, &s), MPQC_OK);
    }
    mpqc_interpreter.release(runner);
    for (uint32_t i = 0; i < r->g.n_outputs; i++) free(out[i]);
    return distance(&s);
}

/* The same for noise of unit deviation. */
static double measure_noise(struct rig *r)
{
    uint64_t n = r->d.count * r->d.elements, state = 1;
    float *noise = malloc(n * sizeof *noise);
    for (uint64_t i = 0; i < n; i++) {
        double sum = 0; /* of 12 uniform numbers: nearly normal */
        for (int k = 0; k < 12; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (double)(state >> 40) / 16777216.0;
        }
        noise[i] = (float)(sum - 6);
    }
    double d = measure(r, noise, r->d.count);
    free(noise);
    return d;
}

/* ---- tests ---- */

static void closer(struct rig *r, const struct mpqc_distill_options *options, double loss_factor,
                   double factor)
{
    mpqc_status status = make(r, options);
    if (status != MPQC_OK && r->cx.n_diags) mpqc_diag_print(&r->cx.diags[0], stderr);
    assert_int_equal(status, MPQC_OK);
    double far = measure_noise(r), near = measure(r, r->d.images, r->d.count);
    print_message("%s: loss %.4g -> %.4g, distance %.4g -> %.4g\n", r->g.name, r->d.first_loss,
                  r->d.last_loss, far, near);
    assert_true(r->d.last_loss * loss_factor < r->d.first_loss);
    assert_true(near * factor < far);
    assert_false(r->d.weak);
    assert_int_equal(r->cx.n_diags, 0);
}

static void test_small(void **unused)
{
    struct rig r;
    (void)unused;
    open_text(&r, SMALL);
    closer(&r, &(struct mpqc_distill_options){.images = 8, .steps = 200}, 8, 8);
    assert_int_equal(r.d.targets, 2);
    assert_int_equal(r.d.elements, 3 * 8 * 9);
    done(&r);
}

static void test_vector(void **unused)
{
    struct rig r;
    (void)unused;
    open_text(&r, VECTOR);
    closer(&r, &(struct mpqc_distill_options){.images = 16, .steps = 200}, 4, 8);
    done(&r);
}

static void test_network(void **unused)
{
    struct rig r;
    (void)unused;
    open_file(&r, MPQC_SOURCE_DIR "/tutorials/networks/fashion_resnet.onnx");
    r.cx.n_diags = 0; /* a note about the batch */
    closer(&r, &(struct mpqc_distill_options){.images = 8, .steps = 60}, 5, 5);
    assert_true(r.d.targets > 10);
    done(&r);
}

static void test_same(void **unused)
{
    static const struct {
        unsigned threads;
        uint64_t seed;
    } runs[] = {{1, 0}, {3, 0}, {2, 7}};
    struct rig r[3];
    (void)unused;
    for (int i = 0; i < 3; i++) {
        open_text(&r[i], SMALL);
        r[i].cx.threads = runs[i].threads;
        r[i].cx.seed = runs[i].seed;
        assert_int_equal(make(&r[i], &(struct mpqc_distill_options){.images = 5, .steps = 9}),
                         MPQC_OK);
    }
    size_t bytes = r[0].d.count * r[0].d.elements * sizeof(float);
    assert_memory_equal(r[0].d.images, r[1].d.images, bytes);
    assert_memory_not_equal(r[0].d.images, r[2].d.images, bytes);
    for (int i = 0; i < 3; i++) done(&r[i]);
}

static void test_bounds(void **unused)
{
    static const float lo[] = {-2, 0, -1}, hi[] = {2, 1.5f, 3};
    struct rig r;
    uint32_t touched = 0;
    (void)unused;
    open_text(&r, SMALL);
    assert_int_equal(make(&r, &(struct mpqc_distill_options){
                                  .images = 4, .steps = 30, .lo = lo, .hi = hi, .n_bounds = 3}),
                     MPQC_OK);
    assert_true(r.d.last_loss < r.d.first_loss);
    for (uint64_t i = 0; i < r.d.count * r.d.elements; i++) {
        uint64_t c = i / 72 % 3;
        assert_true(r.d.images[i] >= lo[c] && r.d.images[i] <= hi[c]);
        touched += r.d.images[i] != lo[c] && r.d.images[i] != hi[c];
    }
    assert_true(touched > r.d.elements);
    done(&r);
}

static void test_dataset(void **unused)
{
    struct rig r;
    float x[20];
    void *in[] = {x};
    (void)unused;
    open_text(&r, VECTOR);
    assert_int_equal(make(&r, &(struct mpqc_distill_options){.images = 3, .steps = 1}), MPQC_OK);
    struct mpqc_dataset data = mpqc_distilled_dataset(&r.d);
    assert_int_equal(data.count, 3);
    assert_int_equal(data.get(data.user, &r.cx, 2, in), MPQC_OK);
    assert_memory_equal(x, r.d.images + 40, sizeof x);
    done(&r);
}

static void test_weak(void **unused)
{
    struct rig r;
    (void)unused;
    open_text(&r, FOLDED);
    assert_int_equal(make(&r, &(struct mpqc_distill_options){.images = 4, .steps = 50}), MPQC_DATA);
    assert_true(said(&r, "distill:weak"));
    assert_int_equal(r.cx.n_diags, 1);
    done(&r);

    open_text(&r, FOLDED);
    assert_int_equal(
        make(&r, &(struct mpqc_distill_options){.images = 4, .steps = 50, .allow_weak = true}),
        MPQC_OK);
    assert_true(r.d.weak);
    assert_int_equal(r.d.targets, 1);
    assert_int_equal(r.cx.n_diags, 1);
    assert_int_equal(r.cx.diags[0].severity, MPQC_WARNING);
    assert_true(r.d.last_loss < r.d.first_loss);
    done(&r);
}

/* With BatchNorms there is nothing weak about distill:weak. */
static void test_weak_unneeded(void **unused)
{
    struct rig r;
    (void)unused;
    open_text(&r, SMALL);
    assert_int_equal(
        make(&r, &(struct mpqc_distill_options){.images = 2, .steps = 2, .allow_weak = true}),
        MPQC_OK);
    assert_false(r.d.weak);
    assert_int_equal(r.cx.n_diags, 0);
    done(&r);
}

static void test_refused(void **unused)
{
    static const float many[5] = {0};
    static const struct {
        const char *text, *message;
        struct mpqc_distill_options options;
        mpqc_status status;
    } cases[] = {
        {BARE, "no BatchNormalization", {0}, MPQC_DATA},
        {BARE, "neither BatchNormalizations nor", {.allow_weak = true}, MPQC_DATA},
        {TWO, "2 inputs", {.allow_weak = true}, MPQC_UNSUPPORTED},
        {WHOLE, "only f32", {0}, MPQC_UNSUPPORTED},
        {SMALL, "5 values", {.lo = many, .hi = many, .n_bounds = 5}, MPQC_USAGE},
    };
    (void)unused;
    for (size_t i = 0; i < MPQC_LEN(cases); i++) {
        struct rig r;
        open_text(&r, cases[i].text);
        assert_int_equal(make(&r, &cases[i].options), cases[i].status);
        assert_true(said(&r, cases[i].message));
        assert_int_equal(r.cx.n_diags, 1);
        assert_null(r.d.images);
        done(&r);
    }
}

/* Whichever request for memory fails, it is said, and nothing stays behind. */
static void test_memory(void **unused)
{
    uint64_t fail_at = 1;
    mpqc_status status;
    (void)unused;
    do {
        struct rig r;
        struct failing_allocator f;
        open_text(&r, VECTOR);
        failing_init(&f, fail_at++);
        r.cx.allocator = &f.allocator;
        status = make(&r, &(struct mpqc_distill_options){.images = 2, .steps = 1});
        assert_true(status == MPQC_OK || status == MPQC_NO_MEMORY);
        mpqc_distilled_release(&r.d);
        assert_int_equal(f.alive, 0);
        r.cx.allocator = &mpqc_malloc_allocator;
        done(&r);
    } while (status != MPQC_OK && fail_at < 10000);
    assert_int_equal(status, MPQC_OK);
    assert_true(fail_at > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),   cmocka_unit_test(test_vector),
        cmocka_unit_test(test_network), cmocka_unit_test(test_same),
        cmocka_unit_test(test_bounds),  cmocka_unit_test(test_dataset),
        cmocka_unit_test(test_weak),    cmocka_unit_test(test_weak_unneeded),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
