/* SPDX-License-Identifier: GPL-3.0-or-later
 * Metrics of sensitivity: against arithmetic on small graphs, and against running the whole
 * perturbed network.
 */
#include "sensitivity_rig.h"

#include "passes/quantise.h"
#include "passes/sensitivity/perturb.h"
#include "passes/sensitivity/rounded.h"

/* ---- arithmetic ---- */

/* y = x W, x in R^4.  Four outputs are as many as inputs: no classes, squared error. */
static const char regression[] =
    "graph \"r\" { input %0 : f32[1,4] const %1 : f32[4,4] = random 3"
    " %2 = matmul %0, %1 @\"fc\" \"Gemm\" output %2 }";
/* Three classes. */
static const char classifier[] =
    "graph \"c\" { input %0 : f32[1,4] const %1 : f32[4,3] = random 3"
    " %2 = matmul %0, %1 @\"fc\" \"Gemm\" output %2 }";

static void sample(struct fixture *f, uint64_t i, float *x)
{
    void *in[] = {x};
    assert_int_equal(qrig_get(&f->r, &f->r.cx, i, in), MPQC_OK);
}

static const float *weights(const struct fixture *f)
{
    return mpqc_value_at(&f->r.g, f->b.layer[0].weights)->data;
}

/* Largest eigenvalue of the mean of x x', by the power iteration. */
static double top_of_inputs(struct fixture *f, uint64_t n)
{
    double m[4][4] = {{0}}, v[4] = {1, 0.5, 0.25, 0.125}, top = 0;
    for (uint64_t i = 0; i < n; i++) {
        float x[4];
        sample(f, i, x);
        for (int a = 0; a < 16; a++) m[a / 4][a % 4] += (double)x[a / 4] * x[a % 4] / (double)n;
    }
    for (int step = 0; step < 2000; step++) {
        double y[4] = {0};
        for (int a = 0; a < 16; a++) y[a / 4] += m[a / 4][a % 4] * v[a % 4];
        top = sqrt(y[0] * y[0] + y[1] * y[1] + y[2] * y[2] + y[3] * y[3]);
        for (int a = 0; a < 4; a++) v[a] = y[a] / top;
    }
    return top;
}

/* L = |x W - t|^2 / 2: H_W = 1 (x) mean x x', H_x = W W'. */
static void linear_regression(void **state)
{
    struct fixture f;
    struct mpqc_curvature c;
    double power = 0, x2 = 0, top, change;
    struct mpqc_curve_trace t;
    (void)state;
    start(&f, regression, 32);
    for (int i = 0; i < 16; i++) power += (double)weights(&f)[i] * weights(&f)[i];
    for (uint64_t i = 0; i < 32; i++) {
        float x[4];
        sample(&f, i, x);
        for (int k = 0; k < 4; k++) x2 += (double)x[k] * x[k] / 32;
    }
    assert_int_equal(mpqc_curvature_open(&f.s, 1, &c), MPQC_OK);
    assert_int_equal(c.loss.kind, MPQC_LOSS_SQUARED_ERROR);
    assert_int_equal(mpqc_curve_traces(&c, &c.weights, MPQC_CURVE_BEST, &t), MPQC_OK);
    assert_near(t.mean, 4 * x2 / 16, 1e-5);
    assert_int_equal(mpqc_curve_traces(&c, &c.inputs, MPQC_CURVE_BEST, &t), MPQC_OK);
    assert_near(t.mean, power / 4, 1e-5);
    assert_true(t.error <= 1e-5 * t.mean); /* every sample has the same */
    assert_true(t.probe_error <= 1e-9 * t.mean);
    assert_int_equal(mpqc_curve_traces(&c, &c.inputs, MPQC_CURVE_PRODUCTS, &t), MPQC_OK);
    assert_true(t.error < 0.3 * t.mean && fabs(t.mean - power / 4) < 3.5 * t.error);
    assert_int_equal(mpqc_curve_top(&c, &c.weights, 0, &top, &change), MPQC_OK);
    assert_near(top, top_of_inputs(&f, 32), 1e-3);
    mpqc_curvature_close(&c);
    stop(&f);
}

static double mean_trace(struct fixture *f)
{
    const double *mean = mpqc_bits_figure(f->s.bits, &f->r.p.keep, "mean_trace");
    const double *whole = mpqc_bits_figure(f->s.bits, &f->r.p.keep, "trace");
    assert_near(whole[0], mean[0] * (double)f->s.bits->layer[0].params, 1e-9);
    return mean[0];
}

/* p = softmax(x W): H_W = mean (diag p - p p') (x) x x', whatever the labels. */
static double classifier_trace(struct fixture *f, uint64_t n, const int64_t *labels)
{
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        float x[4];
        double z[3] = {0}, total = 0, x2 = 0, spread = 1, g2 = 0;
        sample(f, i, x);
        for (int k = 0; k < 12; k++) z[k % 3] += (double)x[k / 3] * weights(f)[k];
        for (int k = 0; k < 3; k++) total += exp(z[k]);
        for (int k = 0; k < 4; k++) x2 += (double)x[k] * x[k];
        for (int k = 0; k < 3; k++) {
            double p = exp(z[k]) / total, d = p - (labels && labels[i] == k);
            spread -= p * p;
            g2 += d * d;
        }
        sum += (labels ? g2 : spread) * x2 / (double)n;
    }
    return sum / 12;
}

static void softmax_regression(void **state)
{
    struct fixture f;
    (void)state;
    start(&f, classifier, 32);
    run_metric(&f, "hessian-trace");
    assert_near(mean_trace(&f), classifier_trace(&f, 32, NULL), 1e-4);
    for (int i = 0; i < 64; i++) f.labels[i] = i % 3;
    f.s.labels = f.labels;
    run_metric(&f, "hessian-trace"); /* the logits are linear: labels do not matter */
    assert_near(mean_trace(&f), classifier_trace(&f, 32, NULL), 1e-4);
    run_metric(&f, "fisher"); /* but to the squared gradient they do */
    assert_near(mean_trace(&f), classifier_trace(&f, 32, f.labels), 1e-4);
    stop(&f);
}

/* Omega is half of mean trace times squared error, for weights and input. */
static void omega_is_curvature_times_error(void **state)
{
    struct fixture f;
    struct mpqc_curvature c;
    double error, power;
    struct mpqc_curve_trace w, x;
    (void)state;
    start(&f, classifier, 32);
    run_metric(&f, "hessian-trace");
    assert_int_equal(mpqc_curvature_open(&f.s, 1, &c), MPQC_OK);
    assert_int_equal(mpqc_curve_traces(&c, &c.weights, MPQC_CURVE_BEST, &w), MPQC_OK);
    assert_int_equal(mpqc_curve_traces(&c, &c.inputs, MPQC_CURVE_BEST, &x), MPQC_OK);
    for (uint32_t k = 0; k < mpqc_n_choices; k++) {
        mpqc_sens_activation_error(&f.r.p, &f.r.g, f.b.layer[0].input,
                                   mpqc_choices[k].activation_bits, &error, &power);
        double dw;
        assert_int_equal(mpqc_sens_weight_error(&f.r.p, &f.r.g, &f.b.layer[0],
                                                mpqc_choices[k].weight_bits, &dw), MPQC_OK);
        assert_near(f.b.omega[k], (w.mean * dw + x.mean * 4 * error) / 2, 1e-6);
    }
    mpqc_curvature_close(&c);
    stop(&f);
}

/* ---- which loss ---- */

static void refused(struct fixture *f, const char *words)
{
    f->r.cx.n_diags = f->r.cx.n_errors = 0;
    assert_int_not_equal(mpqc_sensitivity_run(&f->s, mpqc_metric_find("hessian-trace")), MPQC_OK);
    assert_int_equal(f->r.cx.n_diags, 1);
    assert_non_null(strstr(f->r.cx.diags[0].message, words));
}

static void labels_are_checked(void **state)
{
    struct fixture f;
    (void)state;
    start(&f, classifier, 8);
    f.s.labels = f.labels;
    f.labels[5] = 3;
    refused(&f, "label 5 is 3, but the network has the classes 0 to 2");
    f.labels[5] = -1;
    refused(&f, "label 5 is -1");
    f.s.labels = NULL;
    f.r.p.data = NULL;
    refused(&f, "needs samples");
    stop(&f);
    start(&f, regression, 8);
    f.s.labels = f.labels;
    refused(&f, "one row of classes");
    stop(&f);
}

/* A smooth activation between a layer and the logits: with labels no Gauss-Newton. */
static void gauss_newton_where_it_is_exact(void **state)
{
    static const struct {
        const char *middle;
        bool exact;
    } cases[] = {
        {"%4 = relu %2 @\"m\" \"Relu\"", true},
        {"%4 = silu %2 @\"m\" \"SiLU\"", false},
        {"%4 = mul %2, %2 @\"m\" \"Mul\"", false},
        {"%4 = add %2, %2 @\"m\" \"Add\"", true},
    };
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(cases); i++) {
        struct fixture f;
        struct mpqc_curvature c;
        char text[512];
        snprintf(text, sizeof text, "graph \"g\" { input %%0 : f32[1,4]"
                 " const %%1 : f32[4,6] = random 1 %%2 = matmul %%0, %%1 @\"a\" \"Gemm\" %s"
                 " const %%3 : f32[6,3] = random 2"
                 " %%5 = matmul %%4, %%3 @\"b\" \"Gemm\" output %%5 }", cases[i].middle);
        start(&f, text, 4);
        for (int labels = 0; labels < 2; labels++) {
            f.s.labels = labels ? f.labels : NULL;
            assert_int_equal(mpqc_curvature_open(&f.s, 1, &c), MPQC_OK);
            assert_int_equal(mpqc_curve_gauss_newton(&c), cases[i].exact || !labels);
            mpqc_curvature_close(&c);
        }
        stop(&f);
    }
}

/* ---- perturbation: the whole network, with one layer quantised ---- */

struct whole {
    struct mpqc_sens_cut cut;
    struct mpqc_arena arena;
};

/* The network up to what is compared: logits, or all outputs; layers as quant says. */
static void cut_whole(struct fixture *f, const struct mpqc_sens_quant *quant, struct whole *w)
{
    struct mpqc_sens_loss loss;
    assert_int_equal(mpqc_sens_loss_choose(&f->s, &loss), MPQC_OK);
    bool all = loss.classes == 0;
    assert_int_equal(mpqc_sens_cut(&f->s, 0, f->r.g.n_order, all ? f->r.g.outputs : &loss.compared,
                                   all ? f->r.g.n_outputs : 1, quant, &w->arena, &w->cut), MPQC_OK);
}

/* The network with `layer` alone at `k`. */
static void make_whole(struct fixture *f, uint32_t layer, uint32_t k, struct whole *w)
{
    const struct mpqc_bits_layer *l = &f->b.layer[layer];
    mpqc_arena_init(&w->arena, &mpqc_malloc_allocator);
    uint32_t *layer_of = mpqc_sens_layer_of(&f->s, &w->arena);
    const float **fake = MPQC_NEW_ARRAY(&w->arena, const float *, f->b.n_layers);
    struct mpqc_sens_range *range =
        MPQC_NEW_ARRAY(&w->arena, struct mpqc_sens_range, f->b.n_layers);
    for (mpqc_nid i = 0; i < f->r.g.n_nodes; i++)
        if (layer_of[i] != layer) layer_of[i] = MPQC_NONE;
    struct mpqc_sens_rounded rounded;
    assert_int_equal(mpqc_sens_round(&f->s, layer, 1, f->s.samples, &w->arena, &rounded), MPQC_OK);
    fake[layer] = rounded.weights[mpqc_choices[k].weight_bits];
    assert_int_equal(mpqc_sens_range_of(&f->s, l, mpqc_choices[k].activation_bits, &range[layer]),
                     MPQC_OK);
    struct mpqc_sens_quant quant = {layer_of, fake, range, NULL};
    cut_whole(f, &quant, w);
}

/* sum |y - y'|^2 / sum |y|^2 over all outputs of `n` samples. */
static double noise(struct fixture *f, const struct mpqc_graph *exact, const struct mpqc_graph *g,
                    uint64_t n)
{
    const struct mpqc_graph *graphs[2] = {exact, g};
    static float in[4096], out[2][4096];
    double signal = 0, error = 0;
    for (uint64_t i = 0; i < n; i++) {
        void *x[4], *y[2][4];
        size_t used = 0, made[2] = {0, 0};
        for (uint32_t k = 0; k < f->r.g.n_inputs; k++) {
            x[k] = in + used;
            used += (size_t)mpqc_type_count(&f->r.g.values[f->r.g.inputs[k]].type);
        }
        assert_int_equal(qrig_get(&f->r, &f->r.cx, i, x), MPQC_OK);
        for (int side = 0; side < 2; side++) {
            struct mpqc_runner *r;
            for (uint32_t k = 0; k < g->n_outputs; k++) {
                y[side][k] = out[side] + made[side];
                made[side] += (size_t)mpqc_type_count(&g->values[g->outputs[k]].type);
            }
            assert_true(used <= 4096 && made[side] <= 4096);
            assert_int_equal(mpqc_interpreter.prepare(&f->r.cx, graphs[side], &r), MPQC_OK);
            assert_int_equal(mpqc_interpreter.run(r, (const void *const *)x, y[side], NULL, NULL),
                             MPQC_OK);
            mpqc_interpreter.release(r);
        }
        for (size_t k = 0; k < made[0]; k++) {
            signal += (double)out[0][k] * out[0][k];
            error += ((double)out[0][k] - out[1][k]) * ((double)out[0][k] - out[1][k]);
        }
    }
    return error / signal;
}

static void cut_networks_give_whole_results(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof qcases / sizeof qcases[0]; i++) {
        struct fixture f;
        start(&f, qcases[i].text, 3);
        f.r.options.bias_correct = false; /* a shift that the whole network would not have */
        struct whole exact;
        mpqc_arena_init(&exact.arena, &mpqc_malloc_allocator);
        cut_whole(&f, NULL, &exact);
        if (f.b.n_layers > 0) run_metric(&f, "sqnr");
        for (uint32_t l = 0; l < f.b.n_layers; l++)
            for (uint32_t k = 0; k < mpqc_n_choices; k += 3) {
                struct whole w;
                make_whole(&f, l, k, &w);
                double want = noise(&f, &exact.cut.g, &w.cut.g, 3);
                double got = f.b.omega[(size_t)l * mpqc_n_choices + k];
                assert_near(got, want, 1e-6 + 1e-9 / (want + 1e-12));
                mpqc_graph_release(&w.cut.g);
                mpqc_arena_release(&w.arena);
            }
        mpqc_graph_release(&exact.cut.g);
        mpqc_arena_release(&exact.arena);
        stop(&f);
    }
}

/* Small divergences are what their second order says: kl at 8 bits against the curvature. */
static void divergence_agrees_with_curvature(void **state)
{
    struct fixture f;
    (void)state;
    start(&f, classifier, 32);
    run_metric(&f, "hessian-trace");
    double predicted = f.b.omega[choice("w5a8")];
    run_metric(&f, "kl");
    double measured = f.b.omega[choice("w5a8")];
    assert_true(measured > predicted / 4 && measured < predicted * 4);
    stop(&f);
}

/* ---- what holds for all metrics ---- */

static const char two_blocks[] =
    "graph \"net\" { input %0 : f32[1,6,6,3] const %1 : f32[3,3,3,8] = random 1"
    " %2 = conv %0, %1 {pads=[1,1,1,1]} @\"a\" \"Conv\" %3 = relu %2 @\"r\" \"Relu\""
    " const %4 : f32[3,3,8,8] = random 2 %5 = conv %3, %4 {pads=[1,1,1,1]} @\"b\" \"Conv\""
    " %6 = silu %5 @\"s\" \"SiLU\" %7 = add %6, %3 @\"+\" \"Add\""
    " %8 = reduce_mean %7 {axes=[1,2]} @\"p\" \"ReduceMean\""
    " %9 = reshape %8 {shape=[1,8]} @\"f\" \"Flatten\""
    " const %10 : f32[8,5] = random 4 %11 = matmul %9, %10 @\"c\" \"Gemm\" output %11 }";

/* The same bytes whatever the number of threads, and more loss with fewer bits. */
static void metrics_repeat_and_order_choices(void **state)
{
    (void)state;
    for (uint32_t m = 0; m < mpqc_n_metrics; m++)
        for (int labels = 0; labels < 2; labels++) {
            struct fixture f[2];
            for (int i = 0; i < 2; i++) {
                start(&f[i], two_blocks, 12);
                f[i].r.cx.threads = i ? 3 : 1;
                for (int k = 0; k < 64; k++) f[i].labels[k] = k % 5;
                f[i].s.labels = labels ? f[i].labels : NULL;
                run_metric(&f[i], mpqc_metrics[m].name);
            }
            size_t n = (size_t)f[0].b.n_layers * mpqc_n_choices;
            assert_memory_equal(f[0].b.omega, f[1].b.omega, n * sizeof(double));
            for (uint32_t l = 0; l < f[0].b.n_layers; l++) {
                const double *o = f[0].b.omega + (size_t)l * mpqc_n_choices;
                assert_true(o[choice("w8a8")] < o[choice("w4a8")]);
                assert_true(o[choice("w4a8")] < o[choice("w2a8")]);
                assert_true(o[choice("w8a8")] < o[choice("w8a4")]);
            }
            stop(&f[0]);
            stop(&f[1]);
        }
}

/* A convolution, and a BatchNorm that nothing can take in: a layer without weights. */
static const char own_factors[] =
    "graph \"net\" { input %0 : f32[1,6,6,3] const %1 : f32[3,3,3,8] = random 1"
    " %2 = conv %0, %1 @\"a\" \"Conv\" %3 = relu %2 @\"r\" \"Relu\""
    " const %4 : f32[8] = random 5 const %5 : f32[8] = random 6 const %6 : f32[8] = random 7"
    " const %7 : f32[8] = splat 0x1p+0"
    " %8 = batchnorm %3, %4, %5, %6, %7 @\"n\" \"BatchNormalization\""
    " %9 = reduce_mean %8 {axes=[1,2]} @\"p\" \"ReduceMean\" output %9 }";

/* Three choices for every layer, and one for the last. */
static void ask_for_few(struct fixture *f, bool *allowed)
{
    memset(allowed, 0, (size_t)f->b.n_layers * mpqc_n_choices * sizeof *allowed);
    for (uint32_t l = 0; l < f->b.n_layers; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            allowed[l * mpqc_n_choices + c] =
                c == choice("w4a8") || c == choice("w8a4") || c == choice("w1a1");
    f->b.allowed = allowed;
    f->b.layer[f->b.n_layers - 1].pinned = (int32_t)choice("w8a4");
}

/* An entry is the same number whatever else is asked for; others are none. */
static void only_what_is_asked_for(void **state)
{
    static const char *const nets[] = {two_blocks, own_factors};
    bool allowed[8 * 16];
    (void)state;
    for (size_t t = 0; t < MPQC_LEN(nets); t++)
        for (uint32_t m = 0; m < mpqc_n_metrics; m++) {
            struct fixture all, few;
            uint32_t numbers = 0;
            start(&all, nets[t], 12);
            start(&few, nets[t], 12);
            ask_for_few(&few, allowed);
            run_metric(&all, mpqc_metrics[m].name);
            run_metric(&few, mpqc_metrics[m].name);
            for (uint32_t i = 0; i < few.b.n_layers * mpqc_n_choices; i++) {
                uint32_t l = i / mpqc_n_choices, c = i % mpqc_n_choices;
                bool last = l + 1 == few.b.n_layers;
                bool asked = c == choice("w8a8") || (last ? c == choice("w8a4") : allowed[i]);
                assert_int_equal(mpqc_sens_asked(&few.b, l, c), asked);
                assert_int_equal(isnan(few.b.omega[i]), !asked);
                if (asked) assert_memory_equal(&few.b.omega[i], &all.b.omega[i], sizeof(double));
                numbers += asked;
            }
            assert_int_equal(numbers, 4 * (few.b.n_layers - 1) + 2);
            stop(&all);
            stop(&few);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_regression),
        cmocka_unit_test(softmax_regression),
        cmocka_unit_test(omega_is_curvature_times_error),
        cmocka_unit_test(labels_are_checked),
        cmocka_unit_test(gauss_newton_where_it_is_exact),
        cmocka_unit_test(cut_networks_give_whole_results),
        cmocka_unit_test(divergence_agrees_with_curvature),
        cmocka_unit_test(metrics_repeat_and_order_choices),
        cmocka_unit_test(only_what_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
