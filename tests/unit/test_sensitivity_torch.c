/* SPDX-License-Identifier: GPL-3.0-or-later
 * Traces and eigenvalues against PyTorch's double backward on bundled networks.
 */
#include "sensitivity_rig.h"

#include "driver/data.h"
#include "frontend/frontend.h"

#include <unistd.h>

struct row {
    const char *network, *node;
    double value, error;
};
static const struct row torch_traces[] = {
#define TRACE(network, node, value, error) {network, node, value, error},
#define TOP(network, node, value)
#include "sensitivity_torch.def"
#undef TRACE
#undef TOP
};
static const struct row torch_tops[] = {
#define TRACE(network, node, value, error)
#define TOP(network, node, value) {network, node, value, 0},
#include "sensitivity_torch.def"
#undef TRACE
#undef TOP
};
#define TORCH_SAMPLES 32
#define FASHION "/usr/share/datasets/fashion-mnist/t10k-"

struct bundled {
    struct fixture f;
    struct mpqc_data *images;
    struct mpqc_preprocess pre;
    struct mpqc_dataset data;
};

static mpqc_status read_image(void *user, struct mpqc_cx *cx, uint64_t index, void *const *inputs)
{
    struct bundled *b = user;
    struct mpqc_data_error err;
    const struct mpqc_graph *g = &b->f.r.g;
    const struct mpqc_type *t = &g->values[g->inputs[0]].type;
    if (mpqc_array_sample(mpqc_data_at(b->images, 0), t->rank, t->dims, &b->pre, index, inputs[0],
                          &err) == 0)
        return MPQC_OK;
    return MPQC_FAIL(cx, DATA, MPQC_NOWHERE, "%s", err.text);
}

static void open_bundled(struct bundled *b, const char *name)
{
    static const char *const passes[] = {"simplify", "calibrate"};
    struct mpqc_import_options import = {0};
    struct fixture *f = &b->f;
    struct mpqc_data_error err;
    char path[512];
    int64_t *labels;
    uint64_t n;
    bool stopped;
    memset(b, 0, sizeof *b);
    mpqc_cx_init(&f->r.cx, NULL);
    f->r.cx.threads = 2;
    mpqc_graph_init(&f->r.real, &mpqc_malloc_allocator);
    mpqc_graph_init(&f->r.g, &mpqc_malloc_allocator);
    mpqc_options_init(&f->r.options);
    mpqc_pass_cx_init(&f->r.p, &f->r.cx, &f->r.options);
    f->r.p.engine = &mpqc_interpreter;
    snprintf(path, sizeof path, MPQC_SOURCE_DIR "/tutorials/networks/%s.onnx", name);
    assert_int_equal(mpqc_import_onnx(&f->r.cx, path, &import, &f->r.g), MPQC_OK);
    assert_int_equal(mpqc_data_open(FASHION "images-idx3-ubyte.gz", 0, NULL, &b->images, &err), 0);
    assert_int_equal(mpqc_labels_open(FASHION "labels-idx1-ubyte.gz", &labels, &n, &err), 0);
    memcpy(f->labels, labels, TORCH_SAMPLES * sizeof *labels);
    free(labels);
    assert_int_equal(mpqc_preprocess_set(&b->pre, "mean", "0.2860", &err), 0);
    assert_int_equal(mpqc_preprocess_set(&b->pre, "std", "0.3530", &err), 0);
    b->data = (struct mpqc_dataset){.count = TORCH_SAMPLES, .get = read_image, .user = b};
    f->r.p.data = &b->data;
    assert_int_equal(mpqc_pipeline_run(&f->r.p, &f->r.g, passes, 2, &stopped), MPQC_OK);
    assert_int_equal(mpqc_bits_collect(&f->r.cx, &f->r.g, &f->r.p.keep, &f->b), MPQC_OK);
    f->s = (struct mpqc_sens_cx){.p = &f->r.p, .g = &f->r.g, .bits = &f->b, .labels = f->labels};
}

static void close_bundled(struct bundled *b)
{
    mpqc_data_close(b->images);
    stop(&b->f);
}

static uint32_t layer_called(const struct fixture *f, const char *name)
{
    uint32_t l = 0;
    while (l < f->b.n_layers && strcmp(f->b.layer[l].name, name) != 0) l++;
    assert_true(l < f->b.n_layers);
    return l;
}

/* Every trace within `sigmas` standard errors, PyTorch's and ours together; the sum of
 * exact ones within 5 %. */
static void compare_traces(const char *network, enum mpqc_curve_method method, double sigmas)
{
    struct bundled b;
    struct mpqc_curvature c;
    double ours = 0, theirs = 0;
    struct mpqc_curve_trace trace[64];
    open_bundled(&b, network);
    assert_int_equal(mpqc_curvature_open(&b.f.s, 1, &c), MPQC_OK);
    assert_int_equal(c.samples, TORCH_SAMPLES);
    c.most_rounds = 16;
    assert_int_equal(mpqc_curve_traces(&c, &c.weights, method, trace), MPQC_OK);
    for (size_t i = 0; i < MPQC_LEN(torch_traces); i++) {
        const struct row *t = &torch_traces[i];
        if (strcmp(t->network, network) != 0) continue;
        uint32_t v = c.weights.var_of[layer_called(&b.f, t->node)];
        double n = (double)c.weights.count[v], d = trace[v].mean * n - t->value;
        /* PyTorch has the same samples */
        double e = hypot(trace[v].probe_error * n, t->error);
        if (fabs(d) > sigmas * e)
            fprintf(stderr, "%s %s: %g, PyTorch %g +- %g\n", network, t->node, trace[v].mean * n,
                    t->value, t->error);
        assert_true(fabs(d) <= sigmas * e);
        ours += trace[v].mean * n;
        theirs += t->value;
    }
    if (method != MPQC_CURVE_PRODUCTS) assert_near(ours, theirs, 0.05);
    mpqc_curvature_close(&c);
    close_bundled(&b);
}

/* No data; or sanitizers, with which it takes minutes and which have small graphs too. */
static bool left_out(void)
{
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
    return true;
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
    return true;
#else
    return access(FASHION "images-idx3-ubyte.gz", R_OK) != 0;
#endif
}

static void traces_agree_with_pytorch(void **state)
{
    (void)state;
    if (left_out()) skip();
    compare_traces("fashion_resnet", MPQC_CURVE_BEST, 3.5);
    compare_traces("fashion_mobile", MPQC_CURVE_PRODUCTS, 3.5);
}

/* The cheap ones of the layers' largest eigenvalues. */
static void eigenvalues_agree_with_pytorch(void **state)
{
    static const char *const layers[] = {"/stage3/stage3.1/conv1/Conv",
                                         "/stage3/stage3.1/conv2/Conv", "/head/Gemm"};
    struct bundled b;
    struct mpqc_curvature c;
    (void)state;
    if (left_out()) skip();
    open_bundled(&b, "fashion_resnet");
    assert_int_equal(mpqc_curvature_open(&b.f.s, 1, &c), MPQC_OK);
    for (size_t i = 0; i < MPQC_LEN(torch_tops); i++)
        for (size_t k = 0; k < MPQC_LEN(layers); k++) {
            const struct row *t = &torch_tops[i];
            double top, change;
            if (strcmp(t->network, "fashion_resnet") != 0) continue;
            if (strcmp(t->node, layers[k]) != 0) continue;
            uint32_t v = c.weights.var_of[layer_called(&b.f, t->node)];
            assert_int_equal(mpqc_curve_top(&c, &c.weights, v, &top, &change), MPQC_OK);
            assert_near(top, t->value, 0.02);
        }
    mpqc_curvature_close(&c);
    close_bundled(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traces_agree_with_pytorch),
        cmocka_unit_test(eigenvalues_agree_with_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
