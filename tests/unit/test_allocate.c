/* SPDX-License-Identifier: GPL-3.0-or-later
 * Allocation of bits: the integer program against brute force, ties, pins,
 * budgets that cannot be met, and a case of real size.
 */
#include "passes/allocate.h"

#include <math.h>
#include <setjmp.h>
#include <cmocka.h>

#define MAX_LAYERS 64
#define MAX_CHOICES 16

struct instance {
    struct mpqc_bits bits;
    struct mpqc_bits_layer layer[MAX_LAYERS];
    double table[MPQC_RES_COUNT][MAX_LAYERS * MAX_CHOICES];
    bool allowed[MAX_LAYERS * MAX_CHOICES];
    uint32_t chosen[MAX_LAYERS];
    uint64_t random;
};

static double uniform(struct instance *in)
{
    in->random = in->random * 6364136223846793005ull + 1442695040888963407ull;
    return (double)(in->random >> 40) / (double)(1 << 24);
}

/* A network as they are: sizes over three orders of magnitude, loss about fourfold per bit. */
static void make(struct instance *in, uint32_t layers, uint64_t seed)
{
    memset(in, 0, sizeof *in);
    in->random = seed;
    in->bits = (struct mpqc_bits){.n_layers = layers,
                                  .layer = in->layer,
                                  .omega = in->table[MPQC_RES_OMEGA],
                                  .latency = in->table[MPQC_RES_LATENCY],
                                  .bytes = in->table[MPQC_RES_BYTES],
                                  .bops = in->table[MPQC_RES_BOPS],
                                  .allowed = in->allowed,
                                  .chosen = in->chosen};
    for (uint32_t l = 0; l < layers; l++) {
        double params = pow(10, 3 + 3 * uniform(in)), macs = params * pow(10, 2 * uniform(in));
        double sensitivity = pow(10, -3 * uniform(in));
        in->layer[l] = (struct mpqc_bits_layer){.name = "l", .op = "Conv", .params = (uint64_t)params,
                                                .macs = (uint64_t)macs, .input_group = l, .shared = l,
                                                .pinned = -1};
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            size_t i = (size_t)l * mpqc_n_choices + c;
            double w = mpqc_choices[c].weight_bits, a = mpqc_choices[c].activation_bits;
            in->bits.omega[i] = sensitivity * (pow(4, 8 - w) + 3 * pow(4, 8 - a)) * (0.5 + uniform(in));
            in->bits.bytes[i] = params * w / 8;
            in->bits.latency[i] = macs / 200 * (0.6 + 0.05 * w) * (0.8 + 0.4 * uniform(in));
            in->bits.bops[i] = macs * w * a;
            in->allowed[i] = true;
        }
    }
}

static double of_uniform(const struct instance *in, enum mpqc_resource r)
{
    double sum = 0;
    for (uint32_t l = 0; l < in->bits.n_layers; l++)
        sum += mpqc_bits_table(&in->bits, r)[(size_t)l * mpqc_n_choices];
    return sum;
}

static struct mpqc_budget budget_of(const struct instance *in, double size, double latency)
{
    struct mpqc_budget b = {.objective = MPQC_RES_OMEGA};
    b.limited[MPQC_RES_BYTES] = b.limited[MPQC_RES_LATENCY] = true;
    b.limit[MPQC_RES_BYTES] = size * of_uniform(in, MPQC_RES_BYTES);
    b.limit[MPQC_RES_LATENCY] = latency * of_uniform(in, MPQC_RES_LATENCY);
    return b;
}

/* Runs a strategy; diagnostics go nowhere. */
static mpqc_status run(mpqc_allocate_fn fn, struct instance *in, const struct mpqc_budget *b,
                       struct mpqc_allocation *out)
{
    struct mpqc_cx cx;
    mpqc_cx_init(&cx, &mpqc_malloc_allocator);
    mpqc_status status = fn(&cx, &in->bits, b, out);
    if (status != MPQC_OK) assert_true(cx.n_errors > 0);
    mpqc_cx_release(&cx);
    return status;
}

/* Random ties, pins and missing choices, as seed says; what no layer may have is no number. */
static void constrain(struct instance *in)
{
    uint32_t n = in->bits.n_layers;
    for (uint32_t l = 1; l < n; l++) {
        if (uniform(in) < 0.3) in->layer[l].input_group = in->layer[l - 1].input_group;
        if (uniform(in) < 0.2) in->layer[l].shared = in->layer[l - 1].shared;
        for (uint32_t c = 1; c < mpqc_n_choices; c++)
            if (uniform(in) < 0.1) in->allowed[(size_t)l * mpqc_n_choices + c] = false;
    }
    if (uniform(in) < 0.5) in->layer[0].pinned = 0;
    for (uint32_t l = 0; l < n; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            if (!mpqc_bits_may(&in->bits, l, c)) in->bits.omega[l * mpqc_n_choices + c] = NAN;
}

static void ilp_equals_brute_force(void **state)
{
    (void)state;
    static struct instance in;
    int feasible = 0, infeasible = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        make(&in, 2 + (uint32_t)(seed % 4), seed);
        constrain(&in);
        struct mpqc_budget b = budget_of(&in, 0.3 + 0.6 * uniform(&in), 0.7 + 0.3 * uniform(&in));
        if (seed % 3 == 0) { /* the other way round: the smallest within a loss */
            b = (struct mpqc_budget){.objective = MPQC_RES_BYTES};
            b.limited[MPQC_RES_OMEGA] = true;
            b.limit[MPQC_RES_OMEGA] = of_uniform(&in, MPQC_RES_OMEGA) * (1 + 200 * uniform(&in));
        }
        struct mpqc_allocation brute, ilp;
        mpqc_status expected = run(mpqc_allocate_brute, &in, &b, &brute);
        mpqc_status got = run(mpqc_allocate_ilp, &in, &b, &ilp);
        assert_int_equal(expected, got);
        if (got != MPQC_OK) {
            infeasible++;
            continue;
        }
        feasible++;
        assert_true(ilp.proven);
        assert_true(mpqc_bits_tied(&in.bits, in.chosen));
        assert_true(mpqc_budget_fits(&b, ilp.total));
        double best = brute.total[b.objective];
        assert_true(fabs(ilp.total[b.objective] - best) <= 1e-6 * fabs(best));
    }
    assert_true(feasible > 30);
    assert_true(infeasible > 2);
}

static void sixty_layers_are_proven(void **state)
{
    (void)state;
    static struct instance in;
    static uint32_t first[MAX_LAYERS];
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct mpqc_allocation a;
        make(&in, 60, seed);
        struct mpqc_budget b = budget_of(&in, 0.5, 0.9);
        assert_int_equal(run(mpqc_allocate_ilp, &in, &b, &a), MPQC_OK);
        assert_true(a.proven);
        assert_true(mpqc_budget_fits(&b, a.total));
        memcpy(first, in.chosen, sizeof first);
        assert_int_equal(run(mpqc_allocate_ilp, &in, &b, &a), MPQC_OK);
        assert_memory_equal(first, in.chosen, 60 * sizeof first[0]);
    }
}

static void the_optimum_beats_the_others(void **state)
{
    (void)state;
    static struct instance in;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct mpqc_allocation best, other;
        make(&in, 30, seed);
        struct mpqc_budget b = budget_of(&in, 0.55, 1.0);
        b.seed = seed;
        assert_int_equal(run(mpqc_allocate_ilp, &in, &b, &best), MPQC_OK);
        for (uint32_t i = 0; i < mpqc_n_strategies; i++) {
            if (strcmp(mpqc_strategies[i].name, "brute") == 0) continue;
            assert_int_equal(run(mpqc_strategies[i].run, &in, &b, &other), MPQC_OK);
            assert_true(mpqc_budget_fits(&b, other.total));
            assert_true(mpqc_bits_tied(&in.bits, in.chosen));
            assert_true(other.total[MPQC_RES_OMEGA] >= best.total[MPQC_RES_OMEGA] * (1 - 1e-9));
        }
    }
}

/* Sensitivities of what layers may not have are not computed (NaN): nobody reads them. */
static void strategies_read_what_layers_may_have(void **state)
{
    (void)state;
    static struct instance in;
    int plans = 0;
    for (uint64_t seed = 1; seed <= 20; seed++)
        for (uint32_t i = 0; i < mpqc_n_strategies; i++) {
            struct mpqc_allocation a;
            make(&in, 5, seed);
            constrain(&in);
            struct mpqc_budget b = budget_of(&in, 0.7, 10);
            b.seed = seed;
            if (run(mpqc_strategies[i].run, &in, &b, &a) != MPQC_OK) continue;
            plans++;
            assert_true(isfinite(a.total[MPQC_RES_OMEGA]));
            assert_true(mpqc_bits_tied(&in.bits, in.chosen));
            for (uint32_t l = 0; l < 5; l++) assert_true(mpqc_bits_may(&in.bits, l, in.chosen[l]));
        }
    assert_true(plans > 80);
}

/* Layers of one size, each four times as sensitive as the one before. */
static void make_ladder(struct instance *in, uint32_t layers)
{
    make(in, layers, 1);
    for (uint32_t l = 0; l < layers; l++) {
        in->layer[l].params = in->layer[l].macs = 1000;
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            size_t i = (size_t)l * mpqc_n_choices + c;
            in->bits.omega[i] = pow(4, l) * pow(4, 8 - (double)mpqc_choices[c].weight_bits);
            in->bits.bytes[i] = 125.0 * mpqc_choices[c].weight_bits;
            in->allowed[i] = mpqc_choices[c].activation_bits == 8;
        }
    }
}

static void reverse_gives_the_most_sensitive_the_fewest_bits(void **state)
{
    (void)state;
    static struct instance in;
    struct mpqc_allocation a;
    make_ladder(&in, 6);
    struct mpqc_budget b = budget_of(&in, 0.6, 10);
    for (int reverse = 0; reverse <= 1; reverse++) {
        mpqc_allocate_fn fn = reverse ? mpqc_allocate_reverse : mpqc_allocate_ilp;
        assert_int_equal(run(fn, &in, &b, &a), MPQC_OK);
        for (uint32_t l = 1; l < 6; l++) {
            unsigned now = mpqc_choices[in.chosen[l]].weight_bits;
            unsigned before = mpqc_choices[in.chosen[l - 1]].weight_bits;
            assert_true(reverse ? now <= before : now >= before);
        }
        unsigned first = mpqc_choices[in.chosen[0]].weight_bits;
        unsigned last = mpqc_choices[in.chosen[5]].weight_bits;
        assert_true(reverse ? first >= last + 3 : last >= first + 3);
    }
}

/* Else it would lose because it is smaller. */
static void random_plans_use_the_budget(void **state)
{
    (void)state;
    static struct instance in;
    make(&in, 30, 5);
    struct mpqc_budget b = budget_of(&in, 0.5, 10);
    for (b.seed = 1; b.seed <= 10; b.seed++) {
        struct mpqc_allocation a;
        assert_int_equal(run(mpqc_allocate_random, &in, &b, &a), MPQC_OK);
        assert_true(a.total[MPQC_RES_BYTES] >= 0.99 * b.limit[MPQC_RES_BYTES]);
    }
}

/* A tighter budget never gives a smaller loss, and a binding one has a price. */
static void shadow_prices_have_the_right_sign(void **state)
{
    (void)state;
    static struct instance in;
    make(&in, 20, 7);
    double last = 0;
    for (double size = 1.0; size > 0.35; size -= 0.1) {
        struct mpqc_allocation a;
        struct mpqc_budget b = budget_of(&in, size, 10);
        assert_int_equal(run(mpqc_allocate_ilp, &in, &b, &a), MPQC_OK);
        assert_true(a.total[MPQC_RES_OMEGA] >= last * (1 - 1e-9));
        last = a.total[MPQC_RES_OMEGA];
        assert_true(a.shadow[MPQC_RES_BYTES] >= 0);
        assert_int_equal(a.binds[MPQC_RES_BYTES], size < 0.95);
        assert_false(a.binds[MPQC_RES_LATENCY]);
    }
}

static void impossible_budgets_say_by_how_much(void **state)
{
    (void)state;
    static struct instance in;
    make(&in, 10, 3);
    struct mpqc_budget b = budget_of(&in, 0.1, 10);
    for (uint32_t i = 0; i < mpqc_n_strategies; i++) {
        struct mpqc_cx cx;
        struct mpqc_allocation a;
        if (strcmp(mpqc_strategies[i].name, "brute") == 0) continue;
        mpqc_cx_init(&cx, &mpqc_malloc_allocator);
        assert_int_equal(mpqc_strategies[i].run(&cx, &in.bits, &b, &a), MPQC_INFEASIBLE);
        assert_int_equal(cx.n_errors, 1);
        assert_non_null(strstr(cx.diags[0].message, "-max-size"));
        assert_non_null(strstr(cx.diags[0].message, "more"));
        mpqc_cx_release(&cx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ilp_equals_brute_force), cmocka_unit_test(sixty_layers_are_proven),
        cmocka_unit_test(the_optimum_beats_the_others),
        cmocka_unit_test(strategies_read_what_layers_may_have),
        cmocka_unit_test(reverse_gives_the_most_sensitive_the_fewest_bits),
        cmocka_unit_test(random_plans_use_the_budget),
        cmocka_unit_test(shadow_prices_have_the_right_sign),
        cmocka_unit_test(impossible_budgets_say_by_how_much)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
