/* SPDX-License-Identifier: GPL-3.0-or-later
 * Layers, ties, costs by arithmetic, weight-mse, and the texts of decisions about bits.
 */
#include "choice.h"
#include "quant_rig.h"

#include "passes/allocate.h"
#include "passes/bits_text.h"
#include "passes/cost.h"
#include "passes/pins.h"
#include "passes/sensitivity/sensitivity.h"

/* Two layers read x, two share weights, one reads a pool of another's result, one is a
 * BatchNorm of its own, one comes from the same ONNX node as another. */
static const char net[] =
    "graph \"net\" { input %0 \"x\" : f32[1,8,8,4]"
    " const %1 : f32[3,3,4,8] = random 1 %2 = conv %0, %1 {pads=[1,1,1,1]} @\"a\" \"Conv\""
    " const %3 : f32[1,1,4,8] = random 2 %4 = conv %0, %3 @\"b.1\" \"Conv\""
    " %5 = add %2, %4 @\"s\" \"Add\" %6 = relu %5 @\"r\" \"Relu\""
    " const %7 : f32[1,1,8,8] = random 3 %8 = conv %6, %7 @\"c\" \"Conv\""
    " %9 = relu %8 @\"d\" \"Relu\" %10 = conv %9, %7 @\"e[0]\" \"Conv\""
    " %11 = maxpool %6 {kernel=[1,1]} @\"p\" \"MaxPool\""
    " const %12 : f32[1,1,8,8] = random 4 %13 = conv %11, %12 @\"a\" \"Conv\""
    " const %14 : f32[8] = random 5 const %15 : f32[8] = random 6 const %16 : f32[8] = random 7"
    " const %17 : f32[8] = splat 0x1p+0"
    " %18 = batchnorm %13, %14, %15, %16, %17 @\"n\" \"BatchNormalization\""
    " output %10 output %18 }";

enum { A, B1, C, E0, A2, N, LAYERS };

struct fixture {
    struct qrig r;
    struct mpqc_bits b;
};

static void start(struct fixture *f, const char *text)
{
    qrig_init(&f->r, text);
    qrig_run(&f->r, 1);
    assert_int_equal(mpqc_bits_collect(&f->r.cx, &f->r.g, &f->r.p.keep, &f->b), MPQC_OK);
    assert_int_equal(mpqc_bits_tie(&f->r.p, &f->r.g, &f->b), MPQC_OK);
    f->b.allowed = MPQC_NEW_ARRAY(&f->r.p.keep, bool, (size_t)f->b.n_layers * mpqc_n_choices);
    f->b.chosen = MPQC_NEW_ARRAY(&f->r.p.keep, uint32_t, f->b.n_layers);
    assert_true(f->b.allowed && f->b.chosen);
    for (size_t i = 0; i < (size_t)f->b.n_layers * mpqc_n_choices; i++) f->b.allowed[i] = true;
}

static void stop(struct fixture *f) { qrig_release(&f->r); }

static double at(const double *table, uint32_t l, const char *name)
{
    return table[(size_t)l * mpqc_n_choices + choice(name)];
}

/* ---- the table of choices ---- */

static void names_say_the_bits(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < mpqc_n_choices; c++) {
        char name[16];
        snprintf(name, sizeof name, "w%ua%u", mpqc_choices[c].weight_bits,
                 mpqc_choices[c].activation_bits);
        assert_string_equal(name, mpqc_choices[c].name);
        assert_ptr_equal(mpqc_choice_find(name), &mpqc_choices[c]);
    }
    assert_null(mpqc_choice_find("w9a8"));
    assert_null(mpqc_choice_find("w8a"));
    assert_string_equal(mpqc_choices[mpqc_choice_plain()].name, "w8a8");
    assert_true(mpqc_choice_wide(choice("w8a16")));
    assert_false(mpqc_choice_wide(mpqc_choice_plain()));
    assert_true(mpqc_choice_counts(choice("w2a2")));
    assert_false(mpqc_choice_counts(choice("w4a4")));
}

/* ---- layers ---- */

static void layers_are_found(void **state)
{
    static const char *const names[] = {"a", "b.1", "c", "e[0]", "a#2", "n"};
    static const uint64_t params[] = {288, 32, 64, 64, 64, 8};
    static const uint64_t macs[] = {18432, 2048, 4096, 4096, 4096, 512};
    struct fixture f;
    (void)state;
    start(&f, net);
    assert_int_equal(f.b.n_layers, LAYERS);
    for (uint32_t l = 0; l < LAYERS; l++) {
        const struct mpqc_bits_layer *layer = &f.b.layer[l];
        assert_string_equal(layer->name, names[l]);
        assert_int_equal(layer->params, params[l]);
        assert_int_equal(layer->macs, macs[l]);
        assert_int_equal(layer->channels, 8);
        assert_int_equal(layer->pinned, -1);
        assert_ptr_equal(mpqc_def(&f.r.g, layer->output), mpqc_node_at(&f.r.g, layer->node));
    }
    assert_string_equal(f.b.layer[A].op, "Conv");
    assert_string_equal(f.b.layer[N].op, "BatchNormalization");
    assert_int_equal(f.b.layer[N].weights, MPQC_NONE);
    assert_true(at(f.b.bops, C, "w4a8") == 4096.0 * 32 && at(f.b.bops, C, "w8a4") == 4096.0 * 32);
    stop(&f);
}

static void ties_follow_weights_and_scales(void **state)
{
    struct fixture f;
    (void)state;
    start(&f, net);
    const struct mpqc_bits_layer *l = f.b.layer;
    assert_int_equal(l[C].shared, l[E0].shared);
    for (uint32_t i = 0; i < LAYERS; i++)
        for (uint32_t k = 0; k < i; k++) {
            bool weights = k == C && i == E0;
            bool input = (k == A && i == B1) || (k == C && i == A2); /* x; a pool keeps the scale */
            assert_int_equal(l[i].shared == l[k].shared, weights);
            assert_int_equal(l[i].input_group == l[k].input_group, input);
        }
    stop(&f);
}

/* A concat gives its inputs one scale, when their ranges are alike. */
static void concat_ties_its_readers(void **state)
{
    static const char text[] =
        "graph \"j\" { input %0 \"x\" : f32[1,4,4,4] const %1 : f32[1,1,4,4] = random 1"
        " %2 = conv %0, %1 @\"a\" \"Conv\" const %3 : f32[1,1,4,4] = random 2"
        " %4 = conv %0, %3 @\"b\" \"Conv\" %5 = concat %2, %4 {axis=3} @\"j\" \"Concat\""
        " const %6 : f32[1,1,8,4] = random 3 %7 = conv %5, %6 @\"c\" \"Conv\""
        " const %8 : f32[1,1,4,4] = random 4 %9 = conv %2, %8 @\"d\" \"Conv\""
        " output %7 output %9 }";
    struct fixture f;
    (void)state;
    start(&f, text);
    assert_int_equal(f.b.n_layers, 4);
    assert_int_equal(f.b.layer[2].input_group, f.b.layer[3].input_group);
    assert_int_not_equal(f.b.layer[0].input_group, f.b.layer[2].input_group);
    stop(&f);
}

/* ---- costs ---- */

static void bytes_are_packed_weights_and_channels(void **state)
{
    struct fixture f;
    (void)state;
    start(&f, net);
    assert_int_equal(mpqc_cost_bytes(&f.r.cx, &f.b, &f.r.p.keep), MPQC_OK);
    double channels = 8 * MPQC_CHANNEL_BYTES;
    assert_true(at(f.b.bytes, A, "w8a8") == 288 + channels);
    assert_true(at(f.b.bytes, A, "w4a8") == 144 + channels);
    assert_true(at(f.b.bytes, A, "w3a8") == 108 + channels);
    assert_true(at(f.b.bytes, A, "w8a4") == 288 + channels);
    assert_true(at(f.b.bytes, E0, "w8a8") == channels); /* the weights count at c */
    stop(&f);
}

static void latency_grows_with_work(void **state)
{
    struct fixture f;
    struct mpqc_machine m = {.macs_per_ns = 32, .bytes_per_ns = 4, .unpack = 0.1, .start_ns = 100};
    (void)state;
    start(&f, net);
    assert_int_equal(mpqc_cost_analytic(&f.r.cx, &f.r.g, &f.b, &m, &f.r.p.keep), MPQC_OK);
    /* a: 18432 MACs compute for 576 ns, longer than 288 + 256 + 512 bytes take */
    assert_true(fabs(at(f.b.latency, A, "w8a8") - 676) < 1e-6);
    assert_true(fabs(at(f.b.latency, A, "w4a8") - 733.6) < 1e-6);
    /* c: 4096 MACs are loaded longer (64 + 512 + 512 bytes) than computed */
    assert_true(fabs(at(f.b.latency, C, "w8a8") - 372) < 1e-6);
    assert_true(fabs(at(f.b.latency, C, "w2a8") - 360) < 1e-6);
    /* a: without bits that are counted, as other packed weights; else 36864 products of bits,
     * or, as a is small, what must be loaded: 72 + 256 + 512 bytes for 210 ns */
    assert_true(fabs(at(f.b.latency, A, "w2a1") - 733.6) < 1e-6);
    m.bits_per_ns = 128;
    assert_int_equal(mpqc_cost_analytic(&f.r.cx, &f.r.g, &f.b, &m, &f.r.p.keep), MPQC_OK);
    assert_true(fabs(at(f.b.latency, A, "w2a1") - 388) < 1e-6);
    assert_true(fabs(at(f.b.latency, A, "w1a1") - 301) < 1e-6);
    assert_true(fabs(at(f.b.latency, A, "w2a8") - 733.6) < 1e-6);
    stop(&f);
}

/* ---- weight-mse ---- */

static void sensitivity(struct fixture *f)
{
    struct mpqc_sens_cx s = {.p = &f->r.p, .g = &f->r.g, .bits = &f->b};
    assert_int_equal(mpqc_sensitivity_run(&s, mpqc_metric_find("weight-mse")), MPQC_OK);
}

static void fewer_bits_lose_more(void **state)
{
    static const char *const weights[] = {"w8a8", "w6a8", "w5a8", "w4a8", "w3a8", "w2a8"};
    struct fixture f;
    (void)state;
    start(&f, net);
    sensitivity(&f);
    for (uint32_t l = 0; l < LAYERS; l++) {
        for (uint32_t i = 1; i < MPQC_LEN(weights) && l != N; i++)
            assert_true(at(f.b.omega, l, weights[i]) > at(f.b.omega, l, weights[i - 1]));
        assert_true(at(f.b.omega, l, "w8a4") > at(f.b.omega, l, "w8a8"));
    }
    /* without weights of its own only the input counts */
    assert_true(at(f.b.omega, N, "w2a8") == at(f.b.omega, N, "w8a8"));
    stop(&f);
}

/* Weights that lie on the grid have no error; a single one off the grid has its own. */
static void errors_are_those_of_the_grid(void **state)
{
    static const char text[] =
        "graph \"g\" { input %0 \"x\" : f32[1,2] const %1 : f32[2,2] = [7,-7,3,1]"
        " %2 = matmul %0, %1 @\"m\" \"MatMul\" output %2 }";
    struct fixture f;
    (void)state;
    start(&f, text);
    double e;
    assert_int_equal(mpqc_sens_weight_error(&f.r.p, &f.r.g, &f.b.layer[0], 4, &e), MPQC_OK);
    if (e > 1e-9) fprintf(stderr, "%g\n", e);
    assert_true(e <= 1e-9);
    assert_true(mpqc_sens_weight_power(&f.r.g, &f.b.layer[0]) == 49 + 49 + 9 + 1);
    /* two bits know -2s, -s, 0, s: s = -3.4 gives 0.2 for 7 and 3, s = 3.5 gives 1 for -7 and 1 */
    assert_int_equal(mpqc_sens_weight_error(&f.r.p, &f.r.g, &f.b.layer[0], 2, &e), MPQC_OK);
    if (e > 1.3) fprintf(stderr, "%g\n", e);
    assert_true(e > 1.2 - 1e-6 && e < 1.3);
    stop(&f);
}

static void uniform_inputs_have_the_textbook_error(void **state)
{
    struct fixture f;
    double error, power;
    (void)state;
    start(&f, net);
    mpqc_sens_activation_error(&f.r.p, &f.r.g, f.b.layer[A].input, 4, &error, &power);
    assert_true(fabs(power - 1.0 / 3) < 0.02);                  /* uniform in [-1, 1) */
    assert_true(fabs(error / (4.0 / 225 / 12) - 1) < 0.05);     /* step^2 / 12 */
    stop(&f);
}

static mpqc_status broken_metric(struct mpqc_sens_cx *s)
{
    s->bits->omega[3] = NAN;
    return MPQC_OK;
}
static mpqc_status negative_metric(struct mpqc_sens_cx *s)
{
    s->bits->omega[3] = -1;
    return MPQC_OK;
}

static void metrics_are_checked(void **state)
{
    static const struct mpqc_metric bad[] = {{"nan", broken_metric, false, ""},
                                             {"negative", negative_metric, false, ""}};
    static const struct mpqc_metric hungry = {"hungry", broken_metric, true, ""};
    struct fixture f;
    (void)state;
    start(&f, net);
    struct mpqc_sens_cx s = {.p = &f.r.p, .g = &f.r.g, .bits = &f.b};
    for (size_t i = 0; i < MPQC_LEN(bad); i++)
        assert_int_equal(mpqc_sensitivity_run(&s, &bad[i]), MPQC_DATA);
    f.r.p.data = NULL;
    assert_int_equal(mpqc_sensitivity_run(&s, &hungry), MPQC_USAGE);
    assert_null(mpqc_metric_find("hungry"));
    stop(&f);
}

/* ---- texts ---- */

static void plans_come_back_as_pins(void **state)
{
    struct fixture f;
    struct mpqc_buf text;
    (void)state;
    start(&f, net);
    for (uint32_t l = 0; l < LAYERS; l++) f.b.chosen[l] = choice(l % 2 ? "w4a8" : "w8a8");
    f.b.chosen[E0] = f.b.chosen[C];
    f.b.chosen[N] = choice("w8a8");
    mpqc_buf_init(&text);
    mpqc_bits_write_plan(&f.b, f.b.chosen, "first\nsecond", &text);
    assert_string_equal(text.data, "# first\n# second\n^a$=w8a8\n^b\\.1$=w4a8\n^c$=w8a8\n"
                                   "^e\\[0\\]$=w8a8\n^a#2$=w8a8\n^n$=w8a8\n");
    struct mpqc_pins pins = {.arena = &f.r.p.keep};
    assert_int_equal(mpqc_pins_add_text(&f.r.cx, &pins, text.data, "plan"), MPQC_OK);
    assert_int_equal(mpqc_pins_apply(&f.r.cx, &pins, &f.b), MPQC_OK);
    for (uint32_t l = 0; l < LAYERS; l++)
        assert_int_equal(f.b.layer[l].pinned, f.b.chosen[l]);
    mpqc_buf_release(&text);
    mpqc_buf_init(&text);
    mpqc_bits_write_choices(&f.b, f.b.chosen, &text);
    assert_string_equal(text.data, "w8a8 w4a8 w8a8 w8a8 w8a8 w8a8");
    mpqc_buf_release(&text);
    stop(&f);
}

static void sensitivities_come_back_exactly(void **state)
{
    struct fixture f;
    struct mpqc_buf text;
    const char *metric = NULL;
    (void)state;
    start(&f, net);
    sensitivity(&f);
    f.b.layer[B1].name = "odd \"name\" \\ \n";
    const double *before = f.b.omega;
    double *figure = mpqc_bits_figure(&f.b, &f.r.p.keep, "trace");
    assert_non_null(figure);
    for (uint32_t l = 1; l < LAYERS; l++) figure[l] = 0.1 * l; /* the first has none */
    mpqc_buf_init(&text);
    mpqc_bits_write_omega(&f.b, "weight-mse", &text);
    assert_int_equal(mpqc_bits_read_omega(&f.r.cx, &f.b, &f.r.p.keep, text.data, "s", &metric),
                     MPQC_OK);
    assert_string_equal(metric, "weight-mse");
    assert_ptr_not_equal(f.b.omega, before);
    assert_int_equal(f.b.n_figures, 1);
    assert_ptr_not_equal(f.b.figure[0].value, figure);
    assert_true(isnan(f.b.figure[0].value[0]));
    assert_memory_equal(f.b.figure[0].value + 1, figure + 1, (LAYERS - 1) * sizeof *figure);
    assert_memory_equal(f.b.omega, before, (size_t)LAYERS * mpqc_n_choices * sizeof *before);
    for (size_t i = 0; i < (size_t)LAYERS * mpqc_n_choices; i++) assert_true(f.b.allowed[i]);
    /* every truncation is refused, and none is read beyond its end */
    for (size_t n = 0; n + 5 < text.len; n++) {
        char *part = malloc(n + 1);
        assert_non_null(part);
        memcpy(part, text.data, n);
        part[n] = '\0';
        f.r.cx.n_diags = 0;
        assert_int_not_equal(mpqc_bits_read_omega(&f.r.cx, &f.b, &f.r.p.keep, part, "s", &metric),
                             MPQC_OK);
        free(part);
    }
    mpqc_buf_release(&text);
    stop(&f);
}

/* Layer a may have w8a8 and w4a8, the others w8a8 and w6a8. */
static void few_choices(struct fixture *f)
{
    for (uint32_t l = 0; l < LAYERS; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            f->b.allowed[l * mpqc_n_choices + c] =
                c == choice("w8a8") || c == choice(l == A ? "w4a8" : "w6a8");
}

static mpqc_status read_again(struct fixture *f, const char *text)
{
    const char *metric;
    f->r.cx.n_diags = f->r.cx.n_errors = 0;
    return mpqc_bits_read_omega(&f->r.cx, &f->b, &f->r.p.keep, text, "s.txt", &metric);
}

/* What was not computed is written as -, and read back it is not there to be chosen. */
static void numbers_that_are_missing_are_said(void **state)
{
    struct fixture f;
    struct mpqc_buf text;
    (void)state;
    start(&f, net);
    few_choices(&f);
    sensitivity(&f);
    mpqc_buf_init(&text);
    mpqc_bits_write_omega(&f.b, "weight-mse", &text);
    assert_non_null(strstr(text.data, "\nchoices w8a8 w6a8 w4a8\nlayer \"a\""));
    const char *row = strchr(strstr(text.data, "layer \"a\""), ':');
    assert_non_null(strstr(row, " - "));
    assert_true(strstr(row, " - ") < strchr(row, '\n'));
    const double *before = f.b.omega;
    assert_int_equal(read_again(&f, text.data), MPQC_OK);
    assert_int_equal(f.r.cx.n_diags, 0); /* it has all that is needed */
    for (uint32_t i = 0; i < LAYERS * mpqc_n_choices; i++) {
        assert_int_equal(isnan(f.b.omega[i]), isnan(before[i]));
        if (!isnan(before[i])) assert_true(f.b.omega[i] == before[i]);
    }
    f.b.allowed[A * mpqc_n_choices + choice("w6a8")] = true;
    f.b.allowed[C * mpqc_n_choices + choice("w2a8")] = true;
    assert_int_equal(read_again(&f, text.data), MPQC_OK);
    assert_int_equal(f.r.cx.n_diags, 1);
    assert_non_null(strstr(f.r.cx.diags[0].message, "no numbers for 2 choices"));
    assert_false(f.b.allowed[A * mpqc_n_choices + choice("w6a8")]);
    f.b.layer[C].pinned = (int32_t)choice("w2a8");
    assert_int_equal(read_again(&f, text.data), MPQC_DATA);
    assert_non_null(strstr(f.r.cx.diags[0].message, "not the choice that it is pinned to, w2a8"));
    assert_string_equal(f.r.cx.diags[0].where.node, "c");
    f.b.layer[C].pinned = -1;
    for (uint32_t c = 0; c < mpqc_n_choices; c++)
        f.b.allowed[A * mpqc_n_choices + c] = c == choice("w2a8");
    assert_int_equal(read_again(&f, text.data), MPQC_DATA);
    assert_non_null(strstr(f.r.cx.diags[0].message, "none of the choices that it may have"));
    mpqc_buf_release(&text);
    stop(&f);
}

#define HEAD "mpqc-sensitivity 1\nmetric \"m\"\nchoices w8a8 w4a8\n"
#define REST                                                                                      \
    "layer \"b.1\" params 32 macs 2048 : 1 2\nlayer \"c\" params 64 macs 4096 : 1 2\n"            \
    "layer \"e[0]\" params 64 macs 4096 : 1 2\nlayer \"a#2\" params 64 macs 4096 : 1 2\n"         \
    "layer \"n\" params 8 macs 512 : 1 2\n"

static void other_tables_are_refused(void **state)
{
    static const struct {
        const char *text, *says;
        mpqc_status status;
    } cases[] = {
        {HEAD "layer \"a\" params 288 macs 18432 : 1 2\n" REST "end\n", NULL, MPQC_OK},
        {HEAD "layer \"z\" params 288 macs 18432 : 1 2\n" REST "end\n", "no layer 'z'", MPQC_DATA},
        {HEAD "layer \"a\" params 289 macs 18432 : 1 2\n" REST "end\n", "layer 'a'", MPQC_DATA},
        {HEAD "layer \"a\" params 288 macs 1 : 1 2\n" REST "end\n", "layer 'a'", MPQC_DATA},
        {HEAD REST "end\n", "layer 'a'", MPQC_DATA},
        {HEAD "layer \"a\" params 288 macs 18432 : 1\n" REST "end\n", "line 4", MPQC_FORMAT},
        {HEAD "layer \"a\" params 288 macs 18432 : 1 nan\n" REST "end\n", "line 4", MPQC_FORMAT},
        {HEAD "layer \"a\" params 288 macs 18432 : 1 -2\n" REST "end\n", "line 4", MPQC_FORMAT},
        {HEAD REST REST "end\n", "line 9", MPQC_FORMAT},
        {"mpqc-profile 1\n", "line 1", MPQC_FORMAT},
        {"", "line 1", MPQC_FORMAT},
    };
    struct fixture f;
    const char *metric;
    (void)state;
    start(&f, net);
    for (size_t i = 0; i < MPQC_LEN(cases); i++) {
        f.r.cx.n_diags = f.r.cx.n_errors = 0;
        mpqc_status status = mpqc_bits_read_omega(&f.r.cx, &f.b, &f.r.p.keep, cases[i].text,
                                                  "s.txt", &metric);
        assert_int_equal(status, cases[i].status);
        if (!cases[i].says) {
            /* choices that the table does not have cannot be decided about */
            assert_int_equal(f.r.cx.n_diags, 1);
            assert_non_null(strstr(f.r.cx.diags[0].message, "no numbers for 66 choices"));
            for (uint32_t c = 0; c < mpqc_n_choices; c++)
                assert_int_equal(f.b.allowed[c], c == choice("w8a8") || c == choice("w4a8"));
            assert_true(at(f.b.omega, N, "w4a8") == 2);
            continue;
        }
        assert_int_equal(f.r.cx.n_diags, 1);
        assert_non_null(strstr(f.r.cx.diags[0].message, cases[i].says));
        assert_string_equal(f.r.cx.diags[0].where.file, "s.txt");
    }
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_say_the_bits),
        cmocka_unit_test(layers_are_found),
        cmocka_unit_test(ties_follow_weights_and_scales),
        cmocka_unit_test(concat_ties_its_readers),
        cmocka_unit_test(bytes_are_packed_weights_and_channels),
        cmocka_unit_test(latency_grows_with_work),
        cmocka_unit_test(fewer_bits_lose_more),
        cmocka_unit_test(errors_are_those_of_the_grid),
        cmocka_unit_test(uniform_inputs_have_the_textbook_error),
        cmocka_unit_test(metrics_are_checked),
        cmocka_unit_test(plans_come_back_as_pins),
        cmocka_unit_test(sensitivities_come_back_exactly),
        cmocka_unit_test(numbers_that_are_missing_are_said),
        cmocka_unit_test(other_tables_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
