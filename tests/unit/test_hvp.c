/* SPDX-License-Identifier: GPL-3.0-or-later
 * Curvature: Hessians that are known, laws that all obey, and the bundled networks.
 */
#include "frontend/frontend.h"
#include "ir/exec.h"
#include "ir/hvp.h"
#include "ir/op.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"

#include <math.h>
#include <setjmp.h>
#include <cmocka.h>

#define MAX_WEIGHTS 48

struct fixture {
    struct mpqc_cx cx;
    struct mpqc_graph net;
    mpqc_vid w[MAX_WEIGHTS];
    struct mpqc_hvp h;
};

static uint64_t seed = 1;

static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1.0);
}

static void must(const struct mpqc_cx *cx, mpqc_status status)
{
    if (status == MPQC_OK) return;
    for (uint32_t i = 0; i < cx->n_diags; i++) mpqc_diag_print(&cx->diags[i], stderr);
    fail();
}

/* The weights are the constants that are input 1 of conv, matmul and add. */
static void find_weights(struct fixture *f, enum mpqc_loss_kind loss)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->net.n_order; i++) {
        const struct mpqc_node *node = &f->net.nodes[f->net.order[i]];
        bool has = node->op == MPQC_OP_CONV || node->op == MPQC_OP_MATMUL ||
                   node->op == MPQC_OP_ADD;
        if (has && mpqc_is_const(&f->net, node->in[1]) && n < MAX_WEIGHTS) f->w[n++] = node->in[1];
    }
    f->h = (struct mpqc_hvp){.net = &f->net, .loss = loss, .weights = f->w, .n = n};
}

static void open_text(struct fixture *f, const char *body, enum mpqc_loss_kind loss)
{
    struct mpqc_buf text;
    mpqc_cx_init(&f->cx, NULL);
    mpqc_graph_init(&f->net, NULL);
    mpqc_buf_init(&text);
    mpqc_buf_printf(&text, "graph {%s}", body);
    must(&f->cx, mpqc_graph_parse(&f->cx, text.data, text.len, "net", &f->net));
    mpqc_buf_release(&text);
    for (uint32_t i = 0; i < f->net.n_nodes; i++)
        f->net.nodes[i].loc = (struct mpqc_loc){.node = "net", .op = "Net", .offset = -1};
    find_weights(f, loss);
}

static void close_fixture(struct fixture *f)
{
    mpqc_graph_release(&f->net);
    mpqc_cx_release(&f->cx);
}

typedef mpqc_status (*builder)(struct mpqc_cx *, const struct mpqc_hvp *, struct mpqc_graph *);

/* A graph of hvp.h with memory for what goes in and comes out. */
struct made {
    struct mpqc_graph g;
    struct mpqc_runner *r;
    float **in, **out;
};

static float *floats(int64_t n)
{
    return calloc((size_t)n + 1, sizeof(float));
}

static int64_t count(const struct mpqc_graph *g, mpqc_vid v)
{
    return mpqc_type_count(&g->values[v].type);
}

static void make(struct fixture *f, builder build, struct made *m)
{
    mpqc_graph_init(&m->g, NULL);
    must(&f->cx, build(&f->cx, &f->h, &m->g));
    must(&f->cx, mpqc_verify(&f->cx, &m->g, MPQC_VERIFY_FLOAT));
    must(&f->cx, mpqc_interpreter.prepare(&f->cx, &m->g, &m->r));
    m->in = calloc(m->g.n_inputs, sizeof *m->in);
    m->out = calloc(m->g.n_outputs, sizeof *m->out);
    for (uint32_t i = 0; i < m->g.n_inputs; i++) m->in[i] = floats(count(&m->g, m->g.inputs[i]));
    for (uint32_t i = 0; i < m->g.n_outputs; i++)
        m->out[i] = floats(count(&m->g, m->g.outputs[i]));
}

static void run(struct fixture *f, struct made *m)
{
    must(&f->cx, mpqc_interpreter.run(m->r, (const void *const *)m->in, (void *const *)m->out,
                                      NULL, NULL));
}

static void unmake(struct made *m)
{
    for (uint32_t i = 0; i < m->g.n_inputs; i++) free(m->in[i]);
    for (uint32_t i = 0; i < m->g.n_outputs; i++) free(m->out[i]);
    free(m->in);
    free(m->out);
    mpqc_interpreter.release(m->r);
    mpqc_graph_release(&m->g);
}

static void randomise(const struct made *m, uint32_t i)
{
    for (int64_t j = 0; j < count(&m->g, m->g.inputs[i]); j++) m->in[i][j] = uniform();
}

static void copy_input(const struct made *to, const struct made *from, uint32_t i)
{
    memcpy(to->in[i], from->in[i], (size_t)count(&from->g, from->g.inputs[i]) * sizeof(float));
}

static bool close_to(double a, double b, double tolerance)
{
    if (fabs(a - b) <= tolerance * (1 + fabs(a) + fabs(b))) return true;
    print_error("%.9g and %.9g differ\n", a, b);
    return false;
}

/* ---- known Hessians ---------------------------------------------------------------- */

/* |x W - t|^2 / 2 has the Hessian x^T x for each column of W. */
static void squared_error(void **state)
{
    (void)state;
    struct fixture f;
    struct made m;
    open_text(&f, "input %0 : f32[1,3] const %1 : f32[3,2] = random 3 %2 = matmul %0, %1 output %2",
              MPQC_LOSS_SQUARED_ERROR);
    make(&f, mpqc_hvp_product, &m);
    for (uint32_t i = 0; i < 3; i++) randomise(&m, i);
    run(&f, &m);
    const float *x = m.in[0], *v = m.in[2];
    for (int c = 0; c < 2; c++) {
        double xv = 0;
        for (int i = 0; i < 3; i++) xv += (double)x[i] * (double)v[i * 2 + c];
        for (int i = 0; i < 3; i++)
            assert_true(close_to((double)m.out[0][i * 2 + c], (double)x[i] * xv, 1e-6));
    }
    unmake(&m);
    close_fixture(&f);
}

/* Cross-entropy in the logits has the Hessian diag(p) - p p^T, whatever the target (of
 * sum 1); with and without a softmax at the end. */
static void cross_entropy(void **state)
{
    (void)state;
    const char *const nets[] = {
        "input %0 : f32[1,4] const %1 : f32[1,4] = random 5 %2 = add %0, %1 output %2",
        "input %0 : f32[1,4] const %1 : f32[1,4] = random 5 %2 = add %0, %1"
        "%3 = softmax %2 {axis=1} output %3"};
    for (size_t k = 0; k < MPQC_LEN(nets); k++) {
        struct fixture f;
        struct made m;
        open_text(&f, nets[k], MPQC_LOSS_CROSS_ENTROPY);
        make(&f, mpqc_hvp_product, &m);
        randomise(&m, 0);
        randomise(&m, 2);
        m.in[1][2] = 1.0f;
        run(&f, &m);
        const float *b = f.net.values[f.w[0]].data, *v = m.in[2];
        double p[4], sum = 0, pv = 0;
        for (int i = 0; i < 4; i++) sum += p[i] = exp((double)m.in[0][i] + (double)b[i]);
        for (int i = 0; i < 4; i++) pv += (p[i] /= sum) * (double)v[i];
        for (int i = 0; i < 4; i++)
            assert_true(close_to((double)m.out[0][i], p[i] * ((double)v[i] - pv), 1e-6));
        assert_true(close_to((double)m.out[1][0], -log(p[2]), 1e-6));
        unmake(&m);
        close_fixture(&f);
    }
}

/* ---- laws ---------------------------------------------------------------------------- */

#define SMALL                                                                                     \
    "input %0 : f32[1,8,8,3] const %1 : f32[3,3,3,8] = random 1 const %2 : f32[8] = random 2"     \
    "%3 = conv %0, %1, %2 {pads=[1,1,1,1]} %4 = silu %3"                                          \
    "const %5 : f32[3,3,1,8] = random 3 %6 = conv %4, %5 {group=8, pads=[1,1,1,1], strides=[2,2]}" \
    "%7 = relu %6 const %8 : f32[1,1,8,8] = random 4 %9 = conv %7, %8"                           \
    "%10 = maxpool %4 {kernel=[2,2], strides=[2,2]}"                                              \
    "%11 = add %9, %10 %12 = reduce_mean %11 {axes=[1,2]} %13 = reshape %12 {shape=[1,8]}"        \
    "const %14 : f32[8,5] = random 5 %15 = matmul %13, %14 %16 = softmax %15 {axis=1} output %16"

static double dot(const struct made *m, uint32_t layer, const float *v)
{
    double s = 0;
    for (int64_t j = 0; j < count(&m->g, m->g.outputs[layer]); j++)
        s += (double)m->out[layer][j] * (double)v[j];
    return s;
}

static void symmetric(void **state)
{
    (void)state;
    struct fixture f;
    struct made u, v;
    open_text(&f, SMALL, MPQC_LOSS_CROSS_ENTROPY);
    assert_int_equal(f.h.n, 4);
    make(&f, mpqc_hvp_product, &u);
    make(&f, mpqc_hvp_product, &v);
    randomise(&u, 0);
    u.in[1][3] = 1.0f;
    copy_input(&v, &u, 0);
    copy_input(&v, &u, 1);
    for (uint32_t l = 0; l < f.h.n; l++) {
        randomise(&u, 2 + l);
        randomise(&v, 2 + l);
    }
    run(&f, &u);
    run(&f, &v);
    double uv = 0, vu = 0;
    for (uint32_t l = 0; l < f.h.n; l++) {
        uv += dot(&v, l, u.in[2 + l]);
        vu += dot(&u, l, v.in[2 + l]);
    }
    assert_true(fabs(uv) > 1e-3);
    assert_true(close_to(uv, vu, 1e-5));
    unmake(&u);
    unmake(&v);
    close_fixture(&f);
}

/* The probe gives <v_l, (H v)_l> without computing H v. */
static void probe_is_product(void **state)
{
    (void)state;
    struct fixture f;
    struct made probe, product;
    open_text(&f, SMALL, MPQC_LOSS_CROSS_ENTROPY);
    make(&f, mpqc_hvp_probe, &probe);
    make(&f, mpqc_hvp_product, &product);
    randomise(&probe, 0);
    probe.in[1][1] = 1.0f;
    for (uint32_t i = 2; i < probe.g.n_inputs; i++) randomise(&probe, i);
    for (uint32_t i = 0; i < probe.g.n_inputs; i++) copy_input(&product, &probe, i);
    run(&f, &probe);
    run(&f, &product);
    for (uint32_t l = 0; l < f.h.n; l++)
        assert_true(close_to((double)probe.out[l][0], dot(&product, l, probe.in[2 + l]), 1e-5));
    assert_true(probe.out[f.h.n][0] == product.out[f.h.n][0]);
    unsigned weights = 0;
    for (uint32_t i = 0; i < probe.g.n_order; i++)
        weights += probe.g.nodes[probe.g.order[i]].op == MPQC_OP_CONV_DW;
    assert_int_equal(weights, 0);
    unmake(&probe);
    unmake(&product);
    close_fixture(&f);
}

/* H v is the difference of gradients at w + h v and w - h v. */
static void product_is_difference(void **state)
{
    (void)state;
    const float step = 0.00390625f;
    struct fixture f;
    struct made product, side[2];
    open_text(&f, SMALL, MPQC_LOSS_CROSS_ENTROPY);
    make(&f, mpqc_hvp_product, &product);
    randomise(&product, 0);
    product.in[1][4] = 1.0f;
    for (uint32_t i = 2; i < product.g.n_inputs; i++) randomise(&product, i);
    run(&f, &product);
    const void *before[4];
    for (int s = 0; s < 2; s++) {
        for (uint32_t l = 0; l < f.h.n; l++) {
            struct mpqc_value *w = &f.net.values[f.w[l]];
            int64_t n = mpqc_type_count(&w->type);
            float *moved = mpqc_arena_alloc(&f.net.arena, (size_t)n * sizeof *moved);
            if (s == 0) before[l] = w->data;
            for (int64_t j = 0; j < n; j++)
                moved[j] = ((const float *)before[l])[j] +
                           (s ? -step : step) * product.in[2 + l][j];
            w->data = moved;
        }
        make(&f, mpqc_hvp_gradient, &side[s]);
        copy_input(&side[s], &product, 0);
        copy_input(&side[s], &product, 1);
        run(&f, &side[s]);
    }
    for (uint32_t l = 0; l < f.h.n; l++) {
        double far = 0, size = 0;
        for (int64_t j = 0; j < count(&product.g, product.g.outputs[l]); j++) {
            double d = ((double)side[0].out[l][j] - (double)side[1].out[l][j]) / (2 * (double)step);
            far += (d - (double)product.out[l][j]) * (d - (double)product.out[l][j]);
            size += d * d;
        }
        if (sqrt(far) > 0.02 * sqrt(size)) fail_msg("layer %u: %g of %g", l, sqrt(far), sqrt(size));
    }
    unmake(&product);
    unmake(&side[0]);
    unmake(&side[1]);
    close_fixture(&f);
}

/* Against the network's own probabilities the gradient is zero and <v, H v> >= 0. */
static void own_answer(void **state)
{
    (void)state;
    struct fixture f;
    struct made reference, gradient, product;
    open_text(&f, SMALL, MPQC_LOSS_KL);
    make(&f, mpqc_hvp_reference, &reference);
    make(&f, mpqc_hvp_gradient, &gradient);
    make(&f, mpqc_hvp_product, &product);
    randomise(&reference, 0);
    run(&f, &reference);
    copy_input(&gradient, &reference, 0);
    memcpy(gradient.in[1], reference.out[0], 5 * sizeof(float));
    run(&f, &gradient);
    for (uint32_t l = 0; l < f.h.n; l++)
        for (int64_t j = 0; j < count(&gradient.g, gradient.g.outputs[l]); j++)
            assert_true(fabsf(gradient.out[l][j]) < 1e-5f);
    copy_input(&product, &gradient, 0);
    copy_input(&product, &gradient, 1);
    for (int trial = 0; trial < 5; trial++) {
        double curvature = 0;
        for (uint32_t l = 0; l < f.h.n; l++) randomise(&product, 2 + l);
        run(&f, &product);
        for (uint32_t l = 0; l < f.h.n; l++) curvature += dot(&product, l, product.in[2 + l]);
        assert_true(curvature > 0);
    }
    unmake(&reference);
    unmake(&gradient);
    unmake(&product);
    close_fixture(&f);
}

/* Against the network's own answer the Gauss-Newton matrix is the Hessian, and against
 * any other it is the same. */
static void gauss_newton(void **state)
{
    (void)state;
    static const enum mpqc_loss_kind kinds[] = {MPQC_LOSS_KL, MPQC_LOSS_SQUARED_ERROR};
    for (size_t k = 0; k < MPQC_LEN(kinds); k++) {
        struct fixture f;
        struct made reference, exact, gn;
        open_text(&f, SMALL, kinds[k]);
        make(&f, mpqc_hvp_reference, &reference);
        make(&f, mpqc_hvp_probe, &exact);
        make(&f, mpqc_hvp_gauss_newton, &gn);
        assert_int_equal(gn.g.n_inputs, exact.g.n_inputs);
        assert_true(gn.g.n_order < exact.g.n_order);
        randomise(&reference, 0);
        run(&f, &reference);
        copy_input(&exact, &reference, 0);
        memcpy(exact.in[1], reference.out[0], 5 * sizeof(float));
        for (uint32_t l = 0; l < f.h.n; l++) randomise(&exact, 2 + l);
        for (uint32_t i = 0; i < exact.g.n_inputs; i++) copy_input(&gn, &exact, i);
        run(&f, &exact);
        run(&f, &gn);
        assert_true(gn.out[f.h.n][0] == exact.out[f.h.n][0]);
        for (uint32_t l = 0; l < f.h.n; l++) {
            assert_true(fabsf(exact.out[l][0]) > 1e-4f);
            assert_true(close_to((double)gn.out[l][0], (double)exact.out[l][0], 1e-5));
        }
        float before = gn.out[0][0];
        for (int i = 0; i < 5; i++) gn.in[1][i] = i == 2;
        run(&f, &gn);
        assert_true(gn.out[0][0] == before && gn.out[f.h.n][0] != exact.out[f.h.n][0]);
        unmake(&reference);
        unmake(&exact);
        unmake(&gn);
        close_fixture(&f);
    }
}

/* A weight without influence gives zeros. */
static void no_influence(void **state)
{
    (void)state;
    struct fixture f;
    struct made probe;
    open_text(&f, "input %0 : f32[1,3] const %1 : f32[1,3] = random 3 %2 = add %0, %1"
                  "%3 = floor %2 const %4 : f32[1,3] = random 4 %5 = add %3, %4 output %5",
              MPQC_LOSS_SQUARED_ERROR);
    make(&f, mpqc_hvp_probe, &probe);
    randomise(&probe, 0);
    for (uint32_t i = 2; i < 4; i++)
        for (int j = 0; j < 3; j++) probe.in[i][j] = 1.0f;
    run(&f, &probe);
    assert_true(probe.out[0][0] == 0.0f && probe.out[1][0] == 3.0f);
    unmake(&probe);
    close_fixture(&f);
}

static void two_outputs(void **state)
{
    (void)state;
    struct fixture f;
    struct mpqc_graph g;
    open_text(&f, "input %0 : f32[3] const %1 : f32[3] = random 3 %2 = add %0, %1 output %2"
                  " output %2", MPQC_LOSS_SQUARED_ERROR);
    mpqc_graph_init(&g, NULL);
    assert_int_equal(mpqc_hvp_probe(&f.cx, &f.h, &g), MPQC_UNSUPPORTED);
    assert_non_null(strstr(f.cx.diags[0].message, "one output"));
    mpqc_graph_release(&g);
    close_fixture(&f);
}

/* ---- the bundled networks ---------------------------------------------------------------- */

static void bundled(const char *name, enum mpqc_loss_kind loss)
{
    struct fixture f;
    struct mpqc_pass_cx passes;
    struct mpqc_options options;
    struct mpqc_import_options import = {0};
    struct made product, other;
    const char *const names[] = {"simplify"};
    char path[512];
    bool stopped;
    snprintf(path, sizeof path, "%s/tutorials/networks/%s.onnx", MPQC_SOURCE_DIR, name);
    mpqc_cx_init(&f.cx, NULL);
    mpqc_graph_init(&f.net, NULL);
    must(&f.cx, mpqc_import_onnx(&f.cx, path, &import, &f.net));
    mpqc_options_init(&options);
    mpqc_pass_cx_init(&passes, &f.cx, &options);
    must(&f.cx, mpqc_pipeline_run(&passes, &f.net, names, 1, &stopped));
    mpqc_pass_cx_release(&passes);
    find_weights(&f, loss);
    assert_true(f.h.n >= 4);
    make(&f, mpqc_hvp_product, &product);
    make(&f, mpqc_hvp_probe, &other);
    randomise(&product, 0);
    product.in[1][0] = 1.0f;
    for (uint32_t i = 2; i < product.g.n_inputs; i++) randomise(&product, i);
    for (uint32_t i = 0; i < product.g.n_inputs; i++) copy_input(&other, &product, i);
    run(&f, &product);
    run(&f, &other);
    double size = 0;
    for (uint32_t l = 0; l < f.h.n; l++) {
        double wanted = dot(&product, l, product.in[2 + l]);
        assert_true(isfinite(wanted));
        assert_true(close_to((double)other.out[l][0], wanted, 1e-3));
        size += fabs(wanted);
    }
    assert_true(size > 0);
    unmake(&product);
    unmake(&other);
    close_fixture(&f);
}

static void bundled_networks(void **state)
{
    (void)state;
    bundled("fashion_resnet", MPQC_LOSS_CROSS_ENTROPY);
    bundled("fashion_mobile", MPQC_LOSS_CROSS_ENTROPY);
    bundled("fashion_autoencoder", MPQC_LOSS_SQUARED_ERROR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(squared_error),
        cmocka_unit_test(cross_entropy),
        cmocka_unit_test(symmetric),
        cmocka_unit_test(probe_is_product),
        cmocka_unit_test(product_is_difference),
        cmocka_unit_test(own_answer),
        cmocka_unit_test(gauss_newton),
        cmocka_unit_test(no_influence),
        cmocka_unit_test(two_outputs),
        cmocka_unit_test(bundled_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
