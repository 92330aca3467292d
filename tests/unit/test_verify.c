/* SPDX-License-Identifier: GPL-3.0-or-later
 * The verifier, on graphs that are broken by hand one way at a time.
 */
#include "ir/text.h"
#include "ir/verify.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Values: 0 x, 1 w, 2 conv, 3 scale (constant), 4 mul.  Nodes: 0 conv, 1 mul. */
static const char whole[] = "graph { input %0 : f32[1,2,2,2]\n"
                            "const %1 : f32[1,1,2,2] = [1,2,3,4]\n"
                            "%2 = conv %0, %1 {group=1, pads=[0,0,0,0]} @\"c\" \"Conv\"\n"
                            "const %3 : f32[2] = [1,2]\n"
                            "%4 = mul %2, %3 @\"m\" \"Mul\" output %4 }";

static void order_swapped(struct mpqc_graph *g)
{
    g->order[0] = 1;
    g->order[1] = 0;
}

static void order_twice(struct mpqc_graph *g)
{
    g->order[1] = 0;
}

static void order_short(struct mpqc_graph *g)
{
    g->n_order = 1;
}

static void order_wild(struct mpqc_graph *g)
{
    g->order[0] = 99;
}

static void dead_in_order(struct mpqc_graph *g)
{
    g->nodes[0].dead = true;
}

static void input_wild(struct mpqc_graph *g)
{
    g->nodes[1].in[0] = 77;
}

static void result_wild(struct mpqc_graph *g)
{
    g->nodes[1].out[0] = 77;
}

static void result_shared(struct mpqc_graph *g)
{
    g->nodes[1].out[0] = g->nodes[0].out[0];
}

static void result_stranger(struct mpqc_graph *g)
{
    g->values[g->nodes[1].out[0]].def = 0;
}

static void no_loc(struct mpqc_graph *g)
{
    g->nodes[1].loc.node = NULL;
}

static void wrong_type(struct mpqc_graph *g)
{
    g->values[g->nodes[0].out[0]].type.dims[1] = 3;
}

static void wrong_dtype(struct mpqc_graph *g)
{
    g->values[g->nodes[1].out[0]].type.dtype = MPQC_DT_I32;
}

static void missing_input(struct mpqc_graph *g)
{
    g->nodes[1].in[0] = MPQC_NONE;
}

static void too_few_inputs(struct mpqc_graph *g)
{
    g->nodes[1].n_in = 1;
}

static void foreign_attribute(struct mpqc_graph *g)
{
    g->nodes[0].attr[0].key = MPQC_ATTR_ALPHA;
}

static void attributes_unsorted(struct mpqc_graph *g)
{
    struct mpqc_attr a = g->nodes[0].attr[0];
    g->nodes[0].attr[0] = g->nodes[0].attr[1];
    g->nodes[0].attr[1] = a;
}

static void attribute_unknown(struct mpqc_graph *g)
{
    g->nodes[0].attr[1].key = MPQC_ATTR_COUNT;
}

static void operator_unknown(struct mpqc_graph *g)
{
    g->nodes[0].op = MPQC_OP_COUNT;
}

static void constant_with_definition(struct mpqc_graph *g)
{
    g->values[g->nodes[0].out[0]].data = "";
}

static void input_is_constant(struct mpqc_graph *g)
{
    g->inputs[0] = g->nodes[0].in[1];
}

static void output_wild(struct mpqc_graph *g)
{
    g->outputs[0] = 1000;
}

static void scale_zero(struct mpqc_graph *g)
{
    struct mpqc_value *v = &g->values[g->nodes[0].in[1]];
    v->type.dtype = MPQC_DT_I8;
    v->type.quant = mpqc_quant_tensor(g, 0.0f, 0);
}

static void sign_zero(struct mpqc_graph *g)
{
    struct mpqc_value *v = &g->values[g->nodes[0].in[1]];
    int8_t *data = calloc(1, mpqc_type_bytes(&v->type));
    v->type.dtype = MPQC_DT_I1;
    v->data = mpqc_arena_copy(&g->arena, data, mpqc_type_bytes(&v->type));
    free(data);
}

static void sign_computed(struct mpqc_graph *g)
{
    g->values[g->nodes[0].out[0]].type.dtype = MPQC_DT_I1;
}

static const struct {
    void (*breaks)(struct mpqc_graph *);
    const char *want; /* part of the message */
} cases[] = {
    {order_swapped, "is not defined before"},
    {order_twice, "stands twice"},
    {order_short, "missing from the order"},
    {order_wild, "the order names node 99"},
    {dead_in_order, "a dead node"},
    {input_wild, "input 0 is no value"},
    {result_wild, "result 0 is no value"},
    {result_shared, "is defined twice"},
    {result_stranger, "does not know its node"},
    {no_loc, "does not say where it comes from"},
    {wrong_type, "is not the inferred one"},
    {wrong_dtype, "is not the inferred one"},
    {missing_input, "type inference rejects"},
    {too_few_inputs, "type inference rejects"},
    {foreign_attribute, "type inference rejects"},
    {attributes_unsorted, "is not in order"},
    {attribute_unknown, "unknown attribute"},
    {operator_unknown, "unknown operator"},
    {constant_with_definition, "a constant and a node's result"},
    {input_is_constant, "input 0 is defined otherwise"},
    {output_wild, "output 0 is not defined"},
    {scale_zero, "a scale is not positive"},
    {sign_zero, "element 0 is 0, which is no i1"},
    {sign_computed, "is i1, but no constant"},
};

static void every_break_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(cases); i++) {
        struct mpqc_cx cx;
        struct mpqc_graph g;
        mpqc_cx_init(&cx, NULL);
        mpqc_graph_init(&g, NULL);
        assert_int_equal(mpqc_graph_parse(&cx, whole, sizeof whole - 1, "t", &g), MPQC_OK);
        assert_int_equal(mpqc_verify(&cx, &g, MPQC_VERIFY_FLOAT), MPQC_OK);
        cx.pass = "breaker";
        cases[i].breaks(&g);
        assert_int_equal(mpqc_verify(&cx, &g, MPQC_VERIFY_FLOAT), MPQC_BUG);
        const struct mpqc_diag *d = &cx.diags[cx.n_diags - 1];
        if (!strstr(d->message, cases[i].want))
            fail_msg("case %zu: '%s', not '%s'", i, d->message, cases[i].want);
        assert_string_equal(d->pass, "breaker");
        mpqc_graph_release(&g);
        mpqc_cx_release(&cx);
    }
}

static void stages_bound_the_operators(void **state)
{
    static const struct {
        const char *text;
        mpqc_status want_float, want_mixed, want_integer;
    } stage[] = {
        {"graph { input %0 : f32[2] %1 = relu %0 @\"r\" output %1 }", MPQC_OK, MPQC_OK, MPQC_BUG},
        {"graph { input %0 : f32[2] %1 = quantize %0 {scale=1, to=\"i8\", zero=0} @\"q\" "
         "%2 = dequantize %1 @\"d\" output %2 }", MPQC_BUG, MPQC_OK, MPQC_OK},
        {"graph { input %0 : i8[2] quant(scale=1, zero=0) %1 = dequantize %0 @\"d\" "
         "%2 = quantize %1 {scale=2, to=\"i8\", zero=0} @\"q\" output %2 }",
         MPQC_BUG, MPQC_OK, MPQC_BUG},
        {"graph { input %0 : i8[2] quant(scale=1, zero=0) %1 = copy %0 @\"c\" output %1 }",
         MPQC_BUG, MPQC_OK, MPQC_OK},
        {"graph { const %0 : i64[] = [0] const %1 : i64[] = [5] const %2 : i64[] = [1] "
         "%3 = range %0, %1, %2 @\"r\" output %3 }", MPQC_BUG, MPQC_OK, MPQC_OK},
    };
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(stage); i++) {
        struct mpqc_cx cx;
        struct mpqc_graph g;
        mpqc_cx_init(&cx, NULL);
        mpqc_graph_init(&g, NULL);
        mpqc_status status =
            mpqc_graph_parse(&cx, stage[i].text, strlen(stage[i].text), "t", &g);
        if (status != MPQC_OK) mpqc_diag_print(&cx.diags[0], stderr);
        assert_int_equal(status, MPQC_OK);
        assert_int_equal(mpqc_verify(&cx, &g, MPQC_VERIFY_FLOAT), stage[i].want_float);
        assert_int_equal(mpqc_verify(&cx, &g, MPQC_VERIFY_MIXED), stage[i].want_mixed);
        assert_int_equal(mpqc_verify(&cx, &g, MPQC_VERIFY_INTEGER), stage[i].want_integer);
        mpqc_graph_release(&g);
        mpqc_cx_release(&cx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_break_is_found),
        cmocka_unit_test(stages_bound_the_operators),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
