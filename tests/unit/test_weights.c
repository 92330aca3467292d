/* SPDX-License-Identifier: GPL-3.0-or-later
 * Weights below 8 bits: moments, the decomposition, rounding, and whole networks.
 */
#include "passes/weights.h"
#include "quant_rig.h"

static float *randoms(size_t n, uint32_t seed)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = qrig_random(&seed);
    return x;
}

/* Windows whose neighbours are alike, as those of images are. */
static float *smooth_windows(int64_t rows, int64_t k, uint32_t seed)
{
    float *x = malloc((size_t)(rows * k) * sizeof *x);
    for (int64_t r = 0; r < rows; r++) {
        float level = 2 * qrig_random(&seed);
        for (int64_t i = 0; i < k; i++) {
            level = 0.8f * level + 0.6f * qrig_random(&seed);
            x[r * k + i] = level > 0 ? level * (float)(1 + i % 3) : 0;
        }
    }
    return x;
}

static void moments_are_means(void **state)
{
    (void)state;
    struct mpqc_arena a;
    struct mpqc_moments m;
    const int64_t k = 101, rows = 301, channels = 3;
    float *x = smooth_windows(rows, k, 1), *t = randoms((size_t)(rows * channels), 2);
    mpqc_arena_init(&a, &mpqc_malloc_allocator);
    for (int central = 0; central < 2; central++) {
        assert_true(mpqc_moments_init(&m, &a, k, channels, true));
        assert_int_equal(mpqc_moments_add(&m, 2, 200, x, t), MPQC_OK);
        assert_int_equal(mpqc_moments_add(&m, 2, 101, x + 200 * k, t + 200 * channels), MPQC_OK);
        mpqc_moments_finish(&m, central);
        for (int64_t i = 0; i < k; i += 7)
            for (int64_t j = 0; j < k; j++) {
                double xx = 0, xt = 0, mean = 0;
                for (int64_t r = 0; r < rows; r++) {
                    xx += (double)x[r * k + i] * x[r * k + j] / rows;
                    xt += (double)x[r * k + i] * t[r * channels + j % channels] / rows;
                    mean += (double)x[r * k + i] / rows;
                }
                assert_float_equal(m.x[i], mean, 1e-5);
                double less = central ? mean * m.x[j] : 0;
                double less_t = central ? mean * m.t[j % channels] : 0;
                assert_float_equal(m.xx[i * k + j], xx - less, 1e-4);
                assert_float_equal(m.xt[i * channels + j % channels], xt - less_t, 1e-4);
            }
    }
    mpqc_arena_release(&a);
    free(x);
    free(t);
}

static void cholesky_is_a_square_root(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 95, 96, 97, 230};
    for (size_t s = 0; s < MPQC_LEN(sizes); s++) {
        int64_t n = sizes[s];
        float *x = randoms((size_t)(n * n), 5), *a = calloc((size_t)(n * n), sizeof *a);
        float *l = malloc((size_t)(n * n) * sizeof *l);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                for (int64_t r = 0; r < n; r++) a[i * n + j] += x[i * n + r] * x[j * n + r];
                if (i == j) a[i * n + j] += 1;
            }
        memcpy(l, a, (size_t)(n * n) * sizeof *l);
        assert_int_equal(mpqc_cholesky(l, n, 1e-6f, 2), MPQC_OK);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j <= i; j++) {
                double sum = 0;
                for (int64_t r = 0; r <= j; r++) sum += (double)l[i * n + r] * l[j * n + r];
                assert_float_equal(sum, a[i * n + j], 1e-3 * (1 + fabs(a[i * n + j])));
            }
        free(x);
        free(a);
        free(l);
    }
}

/* ---- one layer ---- */

struct rounded {
    int8_t *q;
    float *scale;
    double *loss, error; /* error: expected squared error of the result, summed */
};

static struct rounded round_layer(struct mpqc_round r, const struct mpqc_moments *judge)
{
    struct mpqc_cx cx;
    struct rounded out = {malloc((size_t)(r.k * r.channels)), calloc((size_t)r.channels, 4),
                          calloc((size_t)r.channels, 8), 0};
    mpqc_cx_init(&cx, &mpqc_malloc_allocator);
    r.stride = r.channels;
    r.q = out.q;
    r.scale = out.scale;
    r.loss = out.loss;
    assert_int_equal(mpqc_round_weights(&cx, &r), MPQC_OK);
    for (int64_t c = 0; c < r.channels; c++) {
        double *d = calloc((size_t)r.k, sizeof *d);
        for (int64_t i = 0; i < r.k; i++)
            d[i] = (double)r.w[i * r.channels + c] -
                   (double)out.scale[c] * out.q[i * r.channels + c];
        for (int64_t i = 0; judge && i < r.k; i++)
            for (int64_t j = 0; j < r.k; j++) out.error += d[i] * d[j] * judge->xx[i * r.k + j];
        free(d);
    }
    mpqc_cx_release(&cx);
    return out;
}

static void rounded_free(struct rounded *r)
{
    free(r->q);
    free(r->scale);
    free(r->loss);
}

struct layer {
    struct mpqc_arena arena;
    struct mpqc_moments m;
    float *w, *x;
    struct mpqc_round r;
};

static void layer_init(struct layer *l, int64_t k, int64_t channels)
{
    mpqc_arena_init(&l->arena, &mpqc_malloc_allocator);
    l->w = randoms((size_t)(k * channels), 11);
    l->x = smooth_windows(1500, k, 12);
    assert_true(mpqc_moments_init(&l->m, &l->arena, k, channels, false));
    assert_int_equal(mpqc_moments_add(&l->m, 1, 1500, l->x, NULL), MPQC_OK);
    mpqc_moments_finish(&l->m, true);
    l->r = (struct mpqc_round){.k = k, .channels = channels, .w = l->w, .bits = 4,
                               .rounding = MPQC_ROUND_GPTQ, .clip = MPQC_CLIP_MSE,
                               .moments = &l->m, .threads = 1};
}

static void layer_release(struct layer *l)
{
    mpqc_arena_release(&l->arena);
    free(l->w);
    free(l->x);
}

/* On inputs that are not independent, each step of the way makes the result better. */
static void gptq_beats_nearest(void **state)
{
    (void)state;
    struct layer l;
    layer_init(&l, 90, 21);
    for (unsigned bits = 1; bits <= 6; bits++) {
        double error[3];
        for (int how = 0; how < 3; how++) {
            l.r.bits = bits;
            l.r.clip = how ? MPQC_CLIP_MSE : MPQC_CLIP_MINMAX;
            l.r.rounding = how == 2 ? MPQC_ROUND_GPTQ : MPQC_ROUND_NEAREST;
            struct rounded out = round_layer(l.r, &l.m);
            error[how] = out.error;
            rounded_free(&out);
        }
        assert_true(error[1] <= error[0] * 1.05);
        assert_true(error[2] < error[1] * 0.5);
    }
    layer_release(&l);
}

/* Targets that the weights give but for noise, in fewer windows than there are weights: what
 * is learned from them must be true of other windows, too. */
static void few_windows_are_not_learned_by_heart(void **state)
{
    (void)state;
    enum { K = 90, CHANNELS = 21, ROWS = 30, NOISE = CHANNELS * 4 / 3 }; /* its power, summed */
    struct layer l;
    struct mpqc_moments few;
    uint32_t seed = 77;
    float *t = calloc(ROWS * CHANNELS, sizeof *t);
    layer_init(&l, K, CHANNELS);
    for (int64_t at = 0; at < ROWS * CHANNELS; at++) {
        for (int64_t i = 0; i < K; i++)
            t[at] += l.x[at / CHANNELS * K + i] * l.w[i * CHANNELS + at % CHANNELS];
        t[at] += 2 * qrig_random(&seed);
    }
    assert_true(mpqc_moments_init(&few, &l.arena, K, CHANNELS, true));
    assert_int_equal(mpqc_moments_add(&few, 1, ROWS, l.x, t), MPQC_OK);
    mpqc_moments_finish(&few, true);
    l.r.moments = &few;
    for (unsigned bits = 2; bits <= 6; bits++) {
        double error[2];
        for (int how = 0; how < 2; how++) {
            l.r.bits = bits;
            l.r.rounding = how ? MPQC_ROUND_GPTQ : MPQC_ROUND_NEAREST;
            struct rounded out = round_layer(l.r, &l.m);
            error[how] = out.error;
            rounded_free(&out);
        }
        assert_true(error[1] < error[0] + 0.25 * NOISE);
    }
    layer_release(&l);
    free(t);
}

static void codes_stay_in_their_range(void **state)
{
    (void)state;
    static const unsigned all[] = {1, 2, 3, 4, 5, 6, 8};
    struct layer l;
    layer_init(&l, 37, 18);
    for (int64_t i = 0; i < 37; i++) {
        l.w[i * 18 + 4] = 0;                               /* no weights */
        l.w[i * 18 + 5] = (float)(1 + i % 4) * 1e-13f;     /* tiny ones of one sign */
        l.w[i * 18 + 6] = i == 3 ? -1000.0f : l.w[i * 18 + 6]; /* an outlier */
    }
    for (size_t b = 0; b < MPQC_LEN(all); b++) {
        for (int how = 0; how < 2; how++) {
            l.r.bits = all[b];
            l.r.rounding = how ? MPQC_ROUND_GPTQ : MPQC_ROUND_NEAREST;
            struct rounded out = round_layer(l.r, &l.m);
            enum mpqc_dtype t = mpqc_weight_dtype(all[b]);
            for (int64_t i = 0; i < 37 * 18; i++)
                assert_true(mpqc_dtype_holds(t, out.q[i]) && out.q[i] > -128);
            for (int64_t c = 0; c < 18; c++) assert_true(isfinite(out.scale[c]));
            assert_true(out.scale[4] == 0 && out.scale[5] != 0);
            rounded_free(&out);
        }
        assert_int_equal(mpqc_dtypes[mpqc_weight_dtype(all[b])].bits, all[b]);
    }
    layer_release(&l);
}

/* Skewed weights take the longer end of the range to their longer side. */
static void scales_may_be_negative(void **state)
{
    (void)state;
    const float w[8] = {1, 0.5f, 0, -0.5f, -1, -0.5f, 0, 0.5f};
    float both[16];
    for (int i = 0; i < 8; i++) {
        both[2 * i] = w[i] > 0.9f ? 2 * w[i] : w[i];
        both[2 * i + 1] = -both[2 * i];
    }
    struct mpqc_round r = {.k = 8, .channels = 2, .w = both, .bits = 3, .clip = MPQC_CLIP_MSE,
                           .threads = 1};
    struct rounded out = round_layer(r, NULL);
    assert_float_equal(out.scale[0], -0.5f, 0.01f);
    assert_float_equal(out.scale[1], 0.5f, 0.01f);
    assert_int_equal(out.q[0], -4);
    assert_int_equal(out.q[1], -4);
    rounded_free(&out);
}

/* Signs without data: each weight its own, and the mean magnitude as scale. */
static void signs_have_the_mean_as_scale(void **state)
{
    (void)state;
    const float w[10] = {1, -0.5f, 0, 0.25f, -2, -1, 0.5f, 0, 0.25f, 0};
    struct mpqc_round r = {.k = 5, .channels = 2, .w = w, .bits = 1, .clip = MPQC_CLIP_MSE,
                           .threads = 1};
    struct rounded out = round_layer(r, NULL);
    assert_float_equal(out.scale[0], 3.75f / 5, 1e-6);
    assert_float_equal(out.scale[1], 1.75f / 5, 1e-6);
    for (int i = 0; i < 10; i++) assert_int_equal(out.q[i], w[i] < 0 ? -1 : 1);
    rounded_free(&out);
}

/* A limit on scales is kept: the accumulator may not be coarser than the result. */
static void the_largest_scale_is_kept(void **state)
{
    (void)state;
    struct layer l;
    layer_init(&l, 30, 17);
    l.r.largest_scale = 0.05;
    struct rounded out = round_layer(l.r, &l.m);
    for (int64_t c = 0; c < 17; c++) assert_true(fabs((double)out.scale[c]) <= 0.0500001);
    rounded_free(&out);
    layer_release(&l);
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    struct layer l;
    layer_init(&l, 130, 75);
    struct rounded one = round_layer(l.r, &l.m);
    for (unsigned threads = 2; threads <= 5; threads++) {
        l.r.threads = threads;
        struct rounded out = round_layer(l.r, &l.m);
        assert_memory_equal(out.q, one.q, 130 * 75);
        assert_memory_equal(out.scale, one.scale, 75 * sizeof(float));
        rounded_free(&out);
    }
    rounded_free(&one);
    layer_release(&l);
}

/* The loss that is reported is the one of the codes, but for the damping. */
static void the_loss_is_true(void **state)
{
    (void)state;
    struct layer l;
    layer_init(&l, 40, 5);
    struct rounded out = round_layer(l.r, &l.m);
    double sum = 0;
    for (int c = 0; c < 5; c++) sum += out.loss[c];
    assert_true(sum >= out.error * 0.999 && sum < out.error * 1.5);
    rounded_free(&out);
    layer_release(&l);
}

/* ---- whole networks ---- */

static double network_sqnr(const char *text, void (*set)(struct mpqc_options *))
{
    struct qrig r;
    qrig_init(&r, text);
    set(&r.options);
    qrig_run(&r, 4);
    double db = qrig_accuracy(&r).sqnr_db;
    qrig_release(&r);
    return db;
}

static void as_default(struct mpqc_options *o) { o->weight_bits = 3; }
static void without_bias(struct mpqc_options *o)
{
    o->weight_bits = 3;
    o->bias_correct = false;
}
static void to_nearest(struct mpqc_options *o)
{
    without_bias(o);
    o->rounding = MPQC_ROUND_NEAREST;
}
static void few_activations(struct mpqc_options *o) { o->activation_bits = 4; }

static void networks_lose_less(void **state)
{
    (void)state;
    double best = 0, middle = 0, plain = 0;
    for (size_t i = 0; i < MPQC_LEN(qcases); i++) {
        best += network_sqnr(qcases[i].text, as_default);
        middle += network_sqnr(qcases[i].text, without_bias);
        plain += network_sqnr(qcases[i].text, to_nearest);
        assert_true(network_sqnr(qcases[i].text, few_activations) > 3);
    }
    assert_true(best > middle);
    /* without biases weights make up for errors of the mean as well, as far as damping lets them */
    assert_true(middle > plain + 0.3 * MPQC_LEN(qcases));
}

/* The same bytes for any number of threads, also with integers at the boundary. */
static void networks_are_reproducible(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(qcases); i++) {
        char *text[3];
        for (unsigned t = 0; t < 3; t++) {
            struct qrig r;
            qrig_init(&r, qcases[i].text);
            r.cx.threads = 1 + t;
            r.options.weight_bits = 2 + (unsigned)i % 3;
            r.options.activation_bits = i % 2 ? 8 : 4;
            r.options.int_io = i % 4 > 1;
            qrig_run(&r, 4);
            text[t] = qrig_text(&r);
            qrig_release(&r);
        }
        assert_string_equal(text[0], text[1]);
        assert_string_equal(text[0], text[2]);
        for (unsigned t = 0; t < 3; t++) free(text[t]);
    }
}

/* Bits that were decided by layer reach that layer's type, and no other's. */
static void decided_bits_are_used(void **state)
{
    (void)state;
    struct qrig r;
    struct mpqc_bits b;
    uint32_t chosen[64] = {0}, seen = 0;
    qrig_init(&r, qcases[1].text); /* residual */
    qrig_run(&r, 1);
    assert_int_equal(mpqc_bits_collect(&r.cx, &r.g, &r.p.keep, &b), MPQC_OK);
    assert_true(b.n_layers > 1);
    for (uint32_t c = 0; c < mpqc_n_choices; c++)
        if (strcmp(mpqc_choices[c].name, "w3a8") == 0) chosen[1] = c;
    b.chosen = chosen;
    r.p.bits = &b;
    bool stopped;
    const char *names[] = {"quantise"};
    assert_int_equal(mpqc_pipeline_run(&r.p, &r.g, names, 1, &stopped), MPQC_OK);
    for (uint32_t i = 0; i < r.g.n_order; i++) {
        const struct mpqc_node *n = &r.g.nodes[r.g.order[i]];
        if (n->op != MPQC_OP_CONV && n->op != MPQC_OP_MATMUL) continue;
        seen += mpqc_dtypes[r.g.values[n->in[1]].type.dtype].bits == 3;
    }
    assert_int_equal(seen, 1);
    qrig_release(&r);
}

/* A channel without weights stays at its bias, although signs have no 0; inputs of 1 and 2
 * bits have types of their own, but where bytes come from outside. */
static void signs_of_nothing_are_nothing(void **state)
{
    (void)state;
    for (int outside = 0; outside < 2; outside++) {
        struct qrig r;
        qrig_init(&r, "graph { input %0 \"x\" : f32[1,64] const %1 : f32[64,2] = random 5 "
                      "const %2 : f32[2] = [1,3] %3 = matmul %0, %1, %2 @\"n\" \"Gemm\" "
                      "%4 = relu %3 @\"r\" \"Relu\" output %4 }");
        float *w = (float *)(uintptr_t)r.g.values[r.g.nodes[0].in[1]].data;
        for (int i = 0; i < 64; i++) w[2 * i] = 0;
        r.options.weight_bits = 1;
        r.options.activation_bits = 2;
        r.options.int_io = outside;
        qrig_run(&r, 4);
        const struct mpqc_node *n = &r.g.nodes[r.g.order[0]];
        for (uint32_t i = 0; n->op != MPQC_OP_MATMUL; i++) n = &r.g.nodes[r.g.order[i]];
        assert_int_equal(r.g.values[n->in[1]].type.dtype, MPQC_DT_I1);
        assert_int_equal(r.g.values[n->in[0]].type.dtype, outside ? MPQC_DT_U8 : MPQC_DT_U2);
        const struct mpqc_quant *x = r.g.values[n->in[0]].type.quant;
        const struct mpqc_quant *q = r.g.values[n->in[1]].type.quant;
        const struct mpqc_quant *y = r.g.values[r.g.outputs[0]].type.quant;
        double most = 64 * 3 * (double)x->scale[0] * (double)q->scale[0];
        assert_true(q->scale[0] > 0 && most < (outside ? 0.01 * (double)y->scale[0] : 0.01));
        qrig_release(&r);
    }
}

/* Where the sizes of weights change along the inputs, groups lose far less, at every width
 * and by either rounding; and what they leave are products of codes and factors. */
static void groups_follow_the_weights(void **state)
{
    (void)state;
    struct layer l;
    const int64_t k = 150, channels = 21, size = 32;
    layer_init(&l, k, channels);
    for (int64_t i = 0; i < k * channels; i++)
        l.w[i] *= 0.1f + (float)(i / channels / size * 7 % 5) * (float)(1 + i % 3);
    for (unsigned bits = MPQC_GROUP_LEAST_BITS; bits <= MPQC_GROUP_MOST_BITS; bits++)
        for (int how = 0; how < 2; how++) {
            int8_t factor[5 * 21];
            l.r.bits = bits;
            l.r.rounding = how ? MPQC_ROUND_GPTQ : MPQC_ROUND_NEAREST;
            l.r.group = 0;
            struct rounded one = round_layer(l.r, &l.m);
            l.r.group = size;
            l.r.factor = factor;
            struct rounded many = round_layer(l.r, &l.m);
            assert_true(many.error < 0.8 * one.error);
            for (int64_t i = 0; i < k * channels; i++) {
                int f = factor[i / channels / size * channels + i % channels];
                assert_true(f != 0 && abs(f) <= mpqc_groups_most(bits) && many.q[i] % f == 0);
                assert_in_range(many.q[i] / f + (1 << (bits - 1)), 0, (1 << bits) - 1);
            }
            rounded_free(&one);
            rounded_free(&many);
        }
    layer_release(&l);
}

/* From floats to an integer graph whose weights are in groups, where there are enough
 * inputs for more than one. */
static void networks_have_groups(void **state)
{
    (void)state;
    static const char text[] =
        "graph \"dense\" { input %0 \"x\" : f32[2,100]"
        " const %1 : f32[100,32] = random 1 const %2 : f32[32] = random 2"
        " %3 = matmul %0, %1, %2 @\"a\" \"Gemm\" %4 = relu %3 @\"r\" \"Relu\""
        " const %5 : f32[32,9] = random 3 %6 = matmul %4, %5 @\"b\" \"MatMul\" output %6 }";
    struct qrig r;
    bool stopped;
    uint32_t grouped = 0, plain = 0;
    const char *names[] = {"quantise"};
    qrig_init(&r, text);
    r.options.weight_bits = 3;
    r.options.group_size = 32;
    qrig_run(&r, 1);
    assert_int_equal(mpqc_pipeline_run(&r.p, &r.g, names, 1, &stopped), MPQC_OK);
    for (uint32_t i = 0; i < r.g.n_order; i++) {
        const struct mpqc_node *n = &r.g.nodes[r.g.order[i]];
        if (n->op != MPQC_OP_MATMUL) continue;
        const struct mpqc_value *w = &r.g.values[n->in[1]];
        assert_int_equal(mpqc_weight_bits(&w->type), 3);
        if (w->type.quant->groups) {
            assert_int_equal(mpqc_groups_count(&w->type), 4);
            assert_true(mpqc_groups_hold(&w->type, w->data));
            grouped++;
        } else {
            plain++;
        }
    }
    assert_int_equal(grouped, 1);
    assert_int_equal(plain, 1);
    qrig_release(&r);
}

/* Only a profile: rounded to nearest, and that is said. */
static void without_samples_a_warning(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, qcases[0].text);
    r.options.weight_bits = 4;
    qrig_run(&r, 1);
    r.p.data = NULL;
    bool stopped;
    const char *names[] = {"quantise"};
    assert_int_equal(mpqc_pipeline_run(&r.p, &r.g, names, 1, &stopped), MPQC_OK);
    assert_int_equal(r.cx.n_diags, 1);
    assert_int_equal(r.cx.diags[0].severity, MPQC_WARNING);
    qrig_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moments_are_means),
        cmocka_unit_test(cholesky_is_a_square_root),
        cmocka_unit_test(gptq_beats_nearest),
        cmocka_unit_test(few_windows_are_not_learned_by_heart),
        cmocka_unit_test(codes_stay_in_their_range),
        cmocka_unit_test(scales_may_be_negative),
        cmocka_unit_test(signs_have_the_mean_as_scale),
        cmocka_unit_test(the_largest_scale_is_kept),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(the_loss_is_true),
        cmocka_unit_test(networks_lose_less),
        cmocka_unit_test(networks_are_reproducible),
        cmocka_unit_test(decided_bits_are_used),
        cmocka_unit_test(signs_of_nothing_are_nothing),
        cmocka_unit_test(groups_follow_the_weights),
        cmocka_unit_test(networks_have_groups),
        cmocka_unit_test(without_samples_a_warning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
