/* SPDX-License-Identifier: GPL-3.0-or-later
 * The pass manager: options, dumps, stopping, limits, verification.
 */
#include "ir/text.h"
#include "passes/pass.h"

#include <setjmp.h>
#include <cmocka.h>

static const char text[] = "graph \"m\" { input %0 : f32[2] %1 = relu %0 @\"a\" \"Relu\"\n"
                           "%2 = relu %1 @\"b\" \"Relu\" output %2 }";

struct fixture {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_options o;
    struct mpqc_pass_cx p;
    bool stopped;
};

static int setup(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    if (!f) return -1;
    mpqc_cx_init(&f->cx, NULL);
    mpqc_graph_init(&f->g, NULL);
    mpqc_options_init(&f->o);
    f->o.verify_each = true;
    mpqc_pass_cx_init(&f->p, &f->cx, &f->o);
    *state = f;
    return mpqc_graph_parse(&f->cx, text, sizeof text - 1, "t", &f->g) == MPQC_OK ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    mpqc_pass_cx_release(&f->p);
    mpqc_graph_release(&f->g);
    mpqc_cx_release(&f->cx);
    free(f);
    return 0;
}

static mpqc_status run(struct fixture *f, uint32_t n, const char *const *names)
{
    return mpqc_pipeline_run(&f->p, &f->g, names, n, &f->stopped);
}

static const char *const two[] = {"simplify", "simplify"};

static void calibration_methods_are_parsed(void **state)
{
    struct fixture *f = *state;
    struct mpqc_options *o = &f->o;
    assert_true(mpqc_options_calibration(o, "kl") && o->calibration == MPQC_CALIB_KL);
    assert_true(mpqc_options_calibration(o, "mse") && o->calibration == MPQC_CALIB_MSE);
    assert_true(mpqc_options_calibration(o, "minmax") && o->calibration == MPQC_CALIB_MINMAX);
    assert_true(mpqc_options_calibration(o, "percentile"));
    assert_true(o->calibration == MPQC_CALIB_PERCENTILE && o->percentile == 99.99);
    assert_true(mpqc_options_calibration(o, "percentile:99.5") && o->percentile == 99.5);
    static const char *const bad[] = {"", "KL", "percentile:", "percentile:abc", "percentile:101",
                                      "percentile:50", "percentile:nan", "percentiles", "mse "};
    for (size_t i = 0; i < MPQC_LEN(bad); i++)
        assert_false(mpqc_options_calibration(o, bad[i]));
    assert_true(o->percentile == 99.5);
}

static void the_table_is_found_by_name(void **state)
{
    struct fixture *f = *state;
    const char *unknown = "simplfy";
    for (uint32_t i = 0; i < mpqc_n_passes; i++)
        assert_ptr_equal(mpqc_pass_find(mpqc_passes[i].name), &mpqc_passes[i]);
    assert_int_equal(run(f, 1, &unknown), MPQC_USAGE);
    assert_string_equal(f->cx.diags[0].message, "there is no pass 'simplfy'");
}

/* How often `what` stands in the file. */
static int count_in(FILE *file, const char *what)
{
    char line[256];
    int n = 0;
    rewind(file);
    while (fgets(line, sizeof line, file)) n += strstr(line, what) != NULL;
    return n;
}

static void dumps_follow_the_passes(void **state)
{
    struct fixture *f = *state;
    f->o.dump_to = tmpfile();
    assert_non_null(f->o.dump_to);
    f->o.dump_after = "quantise";
    assert_int_equal(run(f, 2, two), MPQC_OK);
    assert_int_equal(count_in(f->o.dump_to, "graph"), 0);
    f->o.dump_after = "simplify";
    assert_int_equal(run(f, 1, two), MPQC_OK);
    assert_int_equal(count_in(f->o.dump_to, "# after simplify"), 1);
    f->o.dump_after = "all";
    assert_int_equal(run(f, 2, two), MPQC_OK);
    assert_int_equal(count_in(f->o.dump_to, "graph \"m\" {"), 3);
    assert_false(f->stopped);
    fclose(f->o.dump_to);
}

static void an_unwritable_dump_is_an_error(void **state)
{
    struct fixture *f = *state;
    f->o.dump_to = fopen("/dev/full", "w");
    if (!f->o.dump_to) skip();
    f->o.dump_after = "all";
    assert_int_equal(run(f, 1, two), MPQC_IO);
    fclose(f->o.dump_to);
}

static void stopping_and_limits(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"simplify", "nonsense"};
    f->o.stop_after = "simplify";
    assert_int_equal(run(f, 2, names), MPQC_OK);
    assert_true(f->stopped);
    f->o.stop_after = NULL;
    f->o.pass_limit = 1;
    assert_int_equal(run(f, 2, names), MPQC_OK);
    assert_true(f->stopped);
    f->o.pass_limit = 0;
    assert_int_equal(run(f, 2, names), MPQC_USAGE);
    assert_false(f->stopped);
}

static void a_broken_graph_names_the_pass(void **state)
{
    struct fixture *f = *state;
    mpqc_node_at(&f->g, f->g.order[f->g.n_order - 1])->loc.node = NULL;
    mpqc_node_at(&f->g, f->g.order[0])->loc.node = NULL;
    assert_int_equal(run(f, 1, two), MPQC_BUG);
    assert_string_equal(f->cx.diags[0].pass, "simplify");
    assert_null(f->cx.pass);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calibration_methods_are_parsed), TEST(the_table_is_found_by_name),
        TEST(dumps_follow_the_passes),        TEST(an_unwritable_dump_is_an_error),
        TEST(stopping_and_limits),            TEST(a_broken_graph_names_the_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
