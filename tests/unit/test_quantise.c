/* SPDX-License-Identifier: GPL-3.0-or-later
 * calibrate and quantise: accuracy on small networks, what must not be done in
 * silence, and profiles.
 */
#include "passes/bits.h"
#include "quant_rig.h"

#include <unistd.h>

/* ---- accuracy ---- */

static void networks_keep_their_accuracy(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof qcases / sizeof qcases[0]; i++) {
        struct qrig r;
        qrig_init(&r, qcases[i].text);
        qrig_run(&r, 2);
        struct mpqc_accuracy a = qrig_accuracy(&r);
        if (a.sqnr_db < qcases[i].least_db)
            fprintf(stderr, "%s: %.1f dB, want %.1f\n", qcases[i].name, a.sqnr_db,
                    qcases[i].least_db);
        assert_true(a.sqnr_db >= qcases[i].least_db);
        assert_int_equal(a.samples, 16);
        qrig_release(&r);
    }
}

/* Every method, and integers at the boundary, on the residual block. */
static void methods_and_boundaries(void **state)
{
    (void)state;
    static const char *const methods[] = {"minmax", "percentile:99.9", "mse", "kl"};
    for (size_t i = 0; i < 2 * sizeof methods / sizeof methods[0]; i++) {
        struct qrig r;
        qrig_init(&r, qcases[1].text);
        assert_true(mpqc_options_calibration(&r.options, methods[i / 2]));
        r.options.int_io = i % 2;
        qrig_run(&r, 2);
        assert_true(qrig_accuracy(&r).sqnr_db > 25);
        assert_int_equal(qrig_count(&r, MPQC_OP_QUANTIZE), 1 - i % 2);
        const struct mpqc_value *in = &r.g.values[r.g.inputs[0]], *out = &r.g.values[r.g.outputs[0]];
        assert_int_equal(in->type.dtype, r.options.int_io ? MPQC_DT_U8 : MPQC_DT_F32);
        assert_int_equal(out->type.dtype, r.options.int_io ? MPQC_DT_I16 : MPQC_DT_F32);
        assert_string_equal(in->name, "x");
        qrig_release(&r);
    }
}

/* Linear but for ReLUs, without biases: numbers of any magnitude are the same network. */
static const char homogeneous[] =
    "graph \"h\" { input %0 \"x\" : f32[1,8,8,4] const %1 : f32[3,3,4,8] = random 1"
    " %2 = conv %0, %1 {pads=[1,1,1,1]} @\"a\" \"Conv\" %3 \"tiny\" = relu %2 @\"b\" \"Relu\""
    " const %4 : f32[3,3,8,8] = random 2 %5 = conv %3, %4 {pads=[1,1,1,1]} @\"c\" \"Conv\""
    " %6 = add %5, %3 @\"d\" \"Add\" %7 = relu %6 @\"e\" \"Relu\""
    " %8 = concat %7, %3 {axis=3} @\"f\" \"Concat\""
    " %9 = reduce_mean %8 {axes=[1,2]} @\"g\" \"ReduceMean\" const %10 : f32[16,5] = random 3"
    " %11 = matmul %9, %10 @\"h\" \"Gemm\" output %11 }";

static double homogeneous_db(int exponent, unsigned weight_bits, uint32_t *warnings)
{
    struct qrig r;
    qrig_init(&r, homogeneous);
    r.amplitude = ldexpf(1.0f, exponent);
    r.options.weight_bits = weight_bits;
    qrig_run(&r, 2);
    double db = qrig_accuracy(&r).sqnr_db;
    *warnings = r.cx.n_diags;
    if (r.cx.n_diags) {
        assert_int_equal(r.cx.diags[0].severity, MPQC_WARNING);
        assert_string_equal(r.cx.diags[0].where.node, "b");
        assert_string_equal(r.cx.diags[0].where.tensor, "tiny");
        assert_non_null(strstr(r.cx.diags[0].message, "less than half a step"));
        assert_non_null(strstr(r.cx.diags[0].message, "so do 4 more tensors"));
    }
    qrig_release(&r);
    return db;
}

/* Tiny activations, as those deep in a network without training, are as good as others;
 * where floats end, it is said. */
static void tiny_values_are_kept_or_warned_of(void **state)
{
    uint32_t warnings;
    (void)state;
    for (unsigned bits = 4; bits <= 8; bits += 4) {
        double usual = homogeneous_db(0, bits, &warnings);
        assert_int_equal(warnings, 0);
        assert_true(usual > (bits == 8 ? 35 : 15));
        for (int exponent = -50; exponent <= 50; exponent += 25) {
            double db = homogeneous_db(exponent, bits, &warnings);
            if (db != usual) fprintf(stderr, "2^%d: %.6f dB, want %.6f\n", exponent, db, usual);
            assert_true(db == usual);
            assert_int_equal(warnings, 0);
        }
    }
    assert_true(homogeneous_db(-75, 8, &warnings) < 1);
    assert_int_equal(warnings, 1);
}

/* Weights too small for what they are multiplied with. */
static void tiny_weights_are_warned_of(void **state)
{
    struct qrig r;
    (void)state;
    qrig_init(&r, "graph \"t\" { input %0 \"x\" : f32[1,4] const %1 : f32[4,2] = splat 0x1p-80"
                  " %2 \"y\" = matmul %0, %1 @\"m\" \"Gemm\" output %2 }");
    qrig_run(&r, 2);
    assert_int_equal(r.cx.n_diags, 1);
    assert_string_equal(r.cx.diags[0].where.node, "m");
    assert_string_equal(r.cx.diags[0].where.tensor, "y");
    assert_null(strstr(r.cx.diags[0].message, "more tensors"));
    qrig_release(&r);
}

/* Inputs three times larger than calibration saw: results saturate, and stay as near
 * to the clipped float results as the step allows (nothing wraps). */
static void beyond_the_range_saturates(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, "graph \"s\" { input %0 : f32[1,4,4,4] const %1 : f32[1,1,4,4] = random 1 "
                  "%2 = conv %0, %1 @\"a\" \"Conv\" const %3 : f32[1,1,4,4] = random 2 "
                  "%4 = conv %2, %3 @\"b\" \"Conv\" %5 = add %4, %0 @\"s\" \"Add\" "
                  "%6 = slice %5 {begin=[0,0,0,0], shape=[1,4,4,4], step=[1,1,1,1]} @\"o\" \"Slice\" "
                  "output %6 }");
    qrig_run(&r, 2);
    struct mpqc_runner *runner;
    assert_int_equal(mpqc_interpreter.prepare(&r.cx, &r.g, &runner), MPQC_OK);
    float x[64], y[64];
    const void *in[] = {x};
    void *out[] = {y};
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int i = 0; i < 64; i++) x[i] = (float)sign * 30.0f;
        assert_int_equal(mpqc_interpreter.run(runner, in, out, NULL, NULL), MPQC_OK);
        for (int i = 0; i < 64; i++) assert_true(fabsf(y[i]) < 8.0f);
    }
    mpqc_interpreter.release(runner);
    qrig_release(&r);
}

/* ---- odd weights and ranges ---- */

/* Channel 0: no weights; 1: weights far below the bias; 2: plain. */
static const char odd_channels[] =
    "graph \"odd\" { input %0 : f32[1,2,2,1] const %1 : f32[1,1,1,3] = [0,1e-12,1] "
    "const %2 : f32[3] = [0.5,-0.75,0.25] %3 = conv %0, %1, %2 @\"c\" \"Conv\" "
    "%4 = maxpool %3 {kernel=[1,1]} @\"m\" \"MaxPool\" output %4 }";

static void odd_channels_keep_their_bias(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, odd_channels);
    r.cx.verbose = 1;
    qrig_run(&r, 2);
    assert_true(qrig_accuracy(&r).sqnr_db > 40);
    assert_int_equal(r.cx.n_errors, 0);
    assert_int_equal(r.cx.n_diags, 1); /* the note about channel 1 */
    assert_int_equal(r.cx.diags[0].severity, MPQC_NOTE);
    assert_non_null(strstr(r.cx.diags[0].message, "1 of 3 output channels"));
    qrig_release(&r);
}

/* A sum of 32-bit accumulators is bounded for every channel of every core. */
static void accumulators_are_bounded(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, odd_channels);
    qrig_run(&r, 2);
    for (uint32_t i = 0; i < r.g.n_order; i++) {
        const struct mpqc_node *n = &r.g.nodes[r.g.order[i]];
        if (n->op != MPQC_OP_CONV) continue;
        const int8_t *w = r.g.values[n->in[1]].data;
        const int32_t *b = r.g.values[n->in[2]].data;
        for (int c = 0; c < 3; c++)
            assert_true(fabs((double)b[c]) + 2 * 255.0 * abs(w[c]) < 1073741824.0);
    }
    qrig_release(&r);
}

/* Rounding errors of a channel cancel, and no weight is more than one step away. */
static void rounding_does_not_shift_means(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, "graph \"k\" { input %0 : f32[1,6,6,16] const %1 : f32[3,3,16,8] = random 4 "
                  "%2 = conv %0, %1 @\"c\" \"Conv\" output %2 }");
    qrig_run(&r, 2);
    const struct mpqc_node *real = mpqc_def(&r.real, r.real.outputs[0]), *n = NULL;
    for (uint32_t i = 0; i < r.g.n_order; i++)
        if (r.g.nodes[r.g.order[i]].op == MPQC_OP_CONV) n = &r.g.nodes[r.g.order[i]];
    assert_non_null(n);
    const float *w = r.real.values[real->in[1]].data;
    const struct mpqc_value *q = &r.g.values[n->in[1]];
    for (int c = 0; c < 8; c++) {
        double sum = 0;
        for (int k = 0; k < 144; k++) {
            double e = (double)w[k * 8 + c] / (double)q->type.quant->scale[c] -
                       ((const int8_t *)q->data)[k * 8 + c];
            assert_true(fabs(e) <= 1.0);
            sum += e;
        }
        assert_true(fabs(sum) <= 0.5 + 1e-6);
    }
    qrig_release(&r);
}

static void a_network_of_zeros_works(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, qcases[0].text);
    r.amplitude = 0;
    qrig_run(&r, 2);
    r.amplitude = 0;
    assert_true(qrig_accuracy(&r).sqnr_db >= 20);
    qrig_release(&r);
}

static void scales_of_all_sizes_work(void **state)
{
    (void)state;
    for (int e = -60; e <= 60; e += 20) {
        struct qrig r;
        qrig_init(&r, "graph \"big\" { input %0 : f32[1,4,4,4] const %1 : f32[1,1,4,4] = random 1 "
                      "%2 = conv %0, %1 @\"a\" \"Conv\" %3 = relu %2 @\"r\" \"Relu\" "
                      "const %4 : f32[1,1,4,4] = random 2 %5 = conv %3, %4 @\"b\" \"Conv\" "
                      "%6 = add %5, %3 @\"s\" \"Add\" output %6 }");
        r.amplitude = ldexpf(1.0f, e < 0 ? e / 2 : e);
        qrig_run(&r, 2);
        assert_true(qrig_accuracy(&r).sqnr_db > 30);
        qrig_release(&r);
    }
}

/* ---- operators without integer form ---- */

static const char with_islands[] =
    "graph \"islands\" { input %0 \"x\" : f32[1,4] input %1 \"y\" : f32[1,4] "
    "%2 = div %0, %1 @\"d1\" \"Div\" %3 = relu %2 @\"r\" \"Relu\" "
    "const %4 : f32[4,4] = random 1 %5 = matmul %3, %4 @\"m\" \"MatMul\" "
    "%6 = prelu %5, %1 @\"p1\" \"PRelu\" output %6 }";

static void all_operators_without_integer_form_are_named(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, with_islands);
    r.seed = 12345;
    assert_int_equal(qrig_try(&r, 2), MPQC_UNSUPPORTED);
    const char *m = r.cx.diags[0].message;
    assert_int_equal(r.cx.n_errors, 1);
    assert_non_null(strstr(m, "'d1' (Div)"));
    assert_non_null(strstr(m, "'p1' (PRelu)"));
    assert_non_null(strstr(m, "-allow-float"));
    assert_null(strstr(m, "'m'"));
    qrig_release(&r);
}

static void islands_are_listed(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, with_islands);
    r.options.allow_float = true;
    qrig_run(&r, 2);
    assert_int_equal(r.p.n_islands, 2);
    assert_string_equal(r.p.islands[0].node, "d1");
    assert_string_equal(r.p.islands[1].op, "PRelu");
    assert_int_equal(qrig_count(&r, MPQC_OP_DIV), 1);
    assert_int_equal(qrig_count(&r, MPQC_OP_PRELU), 1);
    qrig_release(&r);
}

/* ---- concat ---- */

/* Parts of the same size share one scale, so nothing is rescaled; a small part that
 * another layer reads keeps its own. */
static void concat_shares_scales_where_it_can(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, "graph \"share\" { input %0 : f32[1,2,2,2] const %1 : f32[1,1,2,2] = random 1 "
                  "%2 = conv %0, %1 @\"a\" \"Conv\" %3 = relu %2 @\"r\" \"Relu\" "
                  "const %4 : f32[1,1,2,2] = splat 0.01 %5 = conv %0, %4 @\"b\" \"Conv\" "
                  "%6 = concat %3, %5 {axis=3} @\"cat\" \"Concat\" "
                  "%7 = maxpool %6 {kernel=[2,2]} @\"m\" \"MaxPool\" output %7 }");
    qrig_run(&r, 2);
    assert_int_equal(qrig_count(&r, MPQC_OP_RESCALE), 0);
    qrig_release(&r);
    qrig_init(&r, "graph \"own\" { input %0 : f32[1,2,2,2] const %1 : f32[1,1,2,2] = splat 0.01 "
                  "%2 = conv %0, %1 @\"a\" \"Conv\" %3 = relu %2 @\"r\" \"Relu\" "
                  "%4 = concat %3, %0 {axis=3} @\"cat\" \"Concat\" const %5 : f32[1,1,2,2] = random 2 "
                  "%6 = conv %3, %5 @\"b\" \"Conv\" output %4 output %6 }");
    qrig_run(&r, 2);
    assert_int_equal(qrig_count(&r, MPQC_OP_RESCALE), 1);
    assert_true(qrig_accuracy(&r).sqnr_db > 40);
    qrig_release(&r);
}

/* ---- calibration ---- */

static void threads_change_nothing(void **state)
{
    (void)state;
    char *text[2];
    for (unsigned i = 0; i < 2; i++) {
        struct qrig r;
        qrig_init(&r, qcases[3].text);
        r.cx.threads = 1 + 3 * i;
        qrig_run(&r, 2);
        text[i] = qrig_text(&r);
        qrig_release(&r);
    }
    assert_string_equal(text[0], text[1]);
    free(text[0]);
    free(text[1]);
}

static void bad_data_is_named(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, qcases[0].text);
    r.poison_sample = 5;
    assert_int_equal(qrig_try(&r, 2), MPQC_DATA);
    assert_non_null(strstr(r.cx.diags[0].message, "sample 5"));
    assert_string_equal(r.cx.diags[0].where.tensor, "x");
    qrig_release(&r);

    qrig_init(&r, "graph \"inf\" { input %0 : f32[1,4] const %1 : f32[1] = [1e30] "
                  "%2 = mul %0, %1 @\"m\" \"Mul\" %3 = exp %2 @\"e\" \"Exp\" output %3 }");
    assert_int_equal(qrig_try(&r, 2), MPQC_DATA);
    assert_string_equal(r.cx.diags[0].where.node, "e");
    qrig_release(&r);
}

static void no_data_is_an_error(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, qcases[0].text);
    r.data.count = 0;
    assert_int_equal(qrig_try(&r, 1), MPQC_DATA);
    r.p.data = NULL;
    assert_int_equal(qrig_try(&r, 1), MPQC_DATA);
    assert_non_null(strstr(r.cx.diags[1].message, "-calib"));
    qrig_release(&r);
}

static void other_bits_are_refused(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, qcases[0].text);
    r.options.activation_bits = 16;
    assert_int_equal(qrig_try(&r, 2), MPQC_INFEASIBLE);
    qrig_release(&r);
}

/* ---- profiles ---- */

static void profiles_travel(void **state)
{
    (void)state;
    char path[] = "test_quantise_profile.txt", *direct, *loaded;
    struct qrig r;
    qrig_init(&r, qcases[3].text);
    r.options.dump_profile = path;
    qrig_run(&r, 2);
    direct = qrig_text(&r);
    qrig_release(&r);

    qrig_init(&r, qcases[3].text);
    r.options.load_profile = path;
    r.p.data = NULL;
    qrig_run(&r, 2);
    loaded = qrig_text(&r);
    assert_string_equal(direct, loaded);
    assert_int_equal(r.p.profile->samples, 32);
    qrig_release(&r);
    free(direct);
    free(loaded);

    qrig_init(&r, qcases[0].text); /* another network */
    r.options.load_profile = path;
    assert_int_equal(qrig_try(&r, 1), MPQC_DATA);
    assert_non_null(strstr(r.cx.diags[0].message, "another network"));
    qrig_release(&r);
    unlink(path);
}

/* Every prefix of a profile, and one with a byte changed, is refused or read, never
 * worse. */
static void broken_profiles_are_refused(void **state)
{
    (void)state;
    const char path[] = "test_quantise_broken.txt";
    struct qrig r;
    qrig_init(&r, odd_channels);
    r.options.dump_profile = path;
    qrig_run(&r, 1);
    qrig_release(&r);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    static char text[65536];
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    assert_true(n > 100 && n < sizeof text);
    for (size_t cut = 0; cut < n; cut += 1 + n / 200) {
        f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(text, 1, cut, f), cut);
        assert_int_equal(fclose(f), 0);
        qrig_init(&r, odd_channels);
        r.options.load_profile = path;
        mpqc_status status = qrig_try(&r, 1);
        assert_true(status == MPQC_FORMAT || status == MPQC_DATA);
        qrig_release(&r);
    }
    unlink(path);
    qrig_init(&r, odd_channels);
    r.options.load_profile = path;
    assert_int_equal(qrig_try(&r, 1), MPQC_IO);
    qrig_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_keep_their_accuracy),
        cmocka_unit_test(methods_and_boundaries),
        cmocka_unit_test(tiny_values_are_kept_or_warned_of),
        cmocka_unit_test(tiny_weights_are_warned_of),
        cmocka_unit_test(beyond_the_range_saturates),
        cmocka_unit_test(odd_channels_keep_their_bias),
        cmocka_unit_test(accumulators_are_bounded),
        cmocka_unit_test(rounding_does_not_shift_means),
        cmocka_unit_test(a_network_of_zeros_works),
        cmocka_unit_test(scales_of_all_sizes_work),
        cmocka_unit_test(all_operators_without_integer_form_are_named),
        cmocka_unit_test(islands_are_listed),
        cmocka_unit_test(concat_shares_scales_where_it_can),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(bad_data_is_named),
        cmocka_unit_test(no_data_is_an_error),
        cmocka_unit_test(other_bits_are_refused),
        cmocka_unit_test(profiles_travel),
        cmocka_unit_test(broken_profiles_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
