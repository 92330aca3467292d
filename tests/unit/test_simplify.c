/* SPDX-License-Identifier: GPL-3.0-or-later
 * simplify: every rule fires where it should and not where it should not, and
 * never changes what a graph computes.
 */
#include "failing_allocator.h"
#include "frontend/frontend.h"
#include "simplify_fixture.h"

/* ---- the cases ---- */

struct simplify_case {
    const char *name, *body, *ops;
};
static const struct simplify_case cases[] = {
#define CASE(name, body, ops) {name, body, ops},
#include "simplify_cases.def"
#undef CASE
};

static void operators(const struct mpqc_graph *g, struct mpqc_buf *to)
{
    mpqc_buf_init(to);
    mpqc_buf_puts(to, "");
    for (uint32_t i = 0; i < g->n_order; i++)
        mpqc_buf_printf(to, "%s%s", i ? " " : "", mpqc_ops[g->nodes[g->order[i]].op].text);
}

static bool case_holds(const struct simplify_case *c)
{
    struct fixture f;
    struct mpqc_buf ops, text;
    start(&f);
    mpqc_buf_init(&text);
    mpqc_buf_printf(&text, "graph { %s }", c->body);
    must(&f, mpqc_graph_parse(&f.cx, text.data, text.len, c->name, &f.before));
    simplify(&f);
    operators(&f.after, &ops);
    bool right = strcmp(ops.data, c->ops) == 0 && f.cx.n_diags == 0;
    if (!right)
        print_error("%s:\n  expected %s\n  got      %s\n", c->name, c->ops, ops.data);
    for (uint64_t seed = 1; seed <= 3; seed++) {
        if (same_function(&f, seed)) continue;
        print_error("%s: other results with seed %d\n", c->name, (int)seed);
        right = false;
    }
    is_fixed_point(&f);
    mpqc_buf_release(&text);
    mpqc_buf_release(&ops);
    stop(&f);
    return right;
}

static void rules_fire_where_they_should(void **state)
{
    uint32_t wrong = 0;
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(cases); i++) wrong += !case_holds(&cases[i]);
    assert_int_equal(wrong, 0);
}

/* ---- names ---- */

static void parse(struct fixture *f, const char *text)
{
    must(f, mpqc_graph_parse(&f->cx, text, strlen(text), "t", &f->before));
}

static void outputs_keep_their_names(void **state)
{
    struct fixture f;
    (void)state;
    start(&f);
    parse(&f, "graph { input %0 \"in\" : f32[1,2,3,4] const %9 : f32[1,1,4,4] = random 1"
              "%1 = conv %0, %9 @\"c\" \"Conv\" %2 \"conv_out\" = transpose %1 {perm=[0,3,1,2]}"
              "%3 \"y\" = relu %2 @\"r\" \"Relu\" %4 \"same\" = copy %3 %5 \"z\" = copy %0"
              "output %3 output %4 output %5 }");
    simplify(&f);
    assert_string_equal(f.after.values[f.after.outputs[0]].name, "y");
    assert_string_equal(f.after.values[f.after.outputs[1]].name, "same");
    assert_string_equal(f.after.values[f.after.outputs[2]].name, "z");
    assert_int_equal(f.after.values[f.after.inputs[0]].def, MPQC_NONE);
    /* The name of the convolution's result went to the channels-last value. */
    const struct mpqc_node *conv = &f.after.nodes[f.after.order[0]];
    assert_int_equal(conv->op, MPQC_OP_CONV);
    assert_string_equal(f.after.values[conv->out[0]].name, "conv_out");
    stop(&f);
}

static void every_value_has_a_name_of_its_own(void **state)
{
    struct fixture f;
    (void)state;
    start(&f);
    parse(&f, "graph { input %0 \"x\" : f32[4] %1 = exp %0 @\"x\" \"Exp\" %2 = sin %1 @\"n\" \"Sin\""
              "%3 = cos %2 @\"n\" \"Cos\" output %3 }");
    simplify(&f);
    assert_string_equal(f.after.values[f.after.nodes[f.after.order[0]].out[0]].name, "x#2");
    assert_string_equal(f.after.values[f.after.nodes[f.after.order[1]].out[0]].name, "n");
    assert_string_equal(f.after.values[f.after.nodes[f.after.order[2]].out[0]].name, "n#2");
    stop(&f);
}

static void order_does_not_depend_on_the_file(void **state)
{
    static const char *const text[2] = {
        "graph { input %0 \"x\" : f32[4] %1 = exp %0 @\"a\" %2 = sin %0 @\"b\""
        "%3 = add %1, %2 @\"c\" %4 = cos %3 @\"d\" output %4 }",
        "graph { input %0 \"x\" : f32[4] %2 = sin %0 @\"b\" %9 = copy %0 %1 = exp %9 @\"a\""
        "%3 = add %1, %2 @\"c\" %4 = cos %3 @\"d\" output %4 }"};
    char *out[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        start(&f);
        parse(&f, text[i]);
        simplify(&f);
        out[i] = text_of(&f.after);
        stop(&f);
    }
    assert_string_equal(out[0], out[1]);
    free(out[0]);
    free(out[1]);
}

/* ---- bundled networks ---- */

static uint32_t count_op(const struct mpqc_graph *g, enum mpqc_op op)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->n_order; i++) n += g->nodes[g->order[i]].op == op;
    return n;
}

/* Channels first with BatchNormalization as exported; one channel at the input. */
static void bundled_networks_become_channels_last(void **state)
{
    static const char *const names[] = {"fashion_resnet", "fashion_mobile",
                                        "fashion_autoencoder"};
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(names); i++) {
        const struct mpqc_import_options none = {0};
        struct fixture f;
        char path[4096];
        start(&f);
        (void)snprintf(path, sizeof path, "%s/tutorials/networks/%s.onnx", MPQC_SOURCE_DIR,
                       names[i]);
        must(&f, mpqc_import_onnx(&f.cx, path, &none, &f.before));
        simplify(&f);
        assert_int_equal(count_op(&f.after, MPQC_OP_TRANSPOSE), 0);
        assert_int_equal(count_op(&f.after, MPQC_OP_BATCHNORM), 0);
        assert_true(same_function(&f, 1));
        is_fixed_point(&f);
        stop(&f);
    }
}

/* ---- memory ---- */

/* Parses and simplifies with an allocator that fails at request n. */
static mpqc_status with_failure(const struct simplify_case *c, uint64_t n, int64_t *alive)
{
    struct failing_allocator a;
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_options o;
    struct mpqc_pass_cx p;
    struct mpqc_buf text;
    failing_init(&a, n);
    mpqc_buf_init(&text);
    mpqc_buf_printf(&text, "graph { %s }", c->body);
    mpqc_cx_init(&cx, &a.allocator);
    mpqc_graph_init(&g, &a.allocator);
    mpqc_options_init(&o);
    mpqc_pass_cx_init(&p, &cx, &o);
    mpqc_status status = mpqc_graph_parse(&cx, text.data, text.len, c->name, &g);
    if (status == MPQC_OK) status = mpqc_pass_simplify(&p, &g);
    mpqc_pass_cx_release(&p);
    mpqc_graph_release(&g);
    mpqc_cx_release(&cx);
    mpqc_buf_release(&text);
    *alive = a.alive;
    return status;
}

static void running_out_of_memory_is_reported(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(cases); i += 7) {
        mpqc_status status = MPQC_NO_MEMORY;
        for (uint64_t n = 1; status != MPQC_OK; n++) {
            int64_t alive;
            status = with_failure(&cases[i], n, &alive);
            assert_true(status == MPQC_OK || status == MPQC_NO_MEMORY);
            assert_int_equal(alive, 0);
            assert_true(n < 10000);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_fire_where_they_should),
        cmocka_unit_test(outputs_keep_their_names),
        cmocka_unit_test(every_value_has_a_name_of_its_own),
        cmocka_unit_test(order_does_not_depend_on_the_file),
        cmocka_unit_test(bundled_networks_become_channels_last),
        cmocka_unit_test(running_out_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
