/* SPDX-License-Identifier: GPL-3.0-or-later
 * Float islands: the same bits as the interpreter, infinities and zeros included; NaN
 * for NaN.
 */
#include "codegen_rig.h"

#define ONE(op) {.name = op, .text = "graph \"g\" { input %0 : f32[1,3,7,23]\n%1 = " op           \
                                     " %0 @\"n\"\noutput %1 }"}
#define WITH(op, attrs) {.name = op, .text = "graph \"g\" { input %0 : f32[1,3,7,23]\n%1 = " op   \
                                     " %0 {" attrs "} @\"n\"\noutput %1 }"}
#define TWO(op) {.name = op, .text = "graph \"g\" { input %0 : f32[4,33]\ninput %1 : f32[33]\n"   \
                                     "%2 = " op " %0, %1 @\"n\"\noutput %2 }"}

static const struct rig_case cases[] = {
    ONE("relu"), ONE("neg"), ONE("abs"), ONE("sqrt"), ONE("reciprocal"), ONE("exp"),
    ONE("sigmoid"), ONE("silu"), ONE("tanh"), ONE("hardswish"), ONE("hardsigmoid"),
    ONE("leakyrelu"), ONE("elu"), ONE("floor"), ONE("ceil"), ONE("round"), ONE("clip"),
    WITH("gelu", "mode=\"tanh\""), WITH("clip", "min=-0.5"), WITH("clip", "max=0.25, min=-1.5"),
    WITH("clip", "max=-1, min=1"), WITH("leakyrelu", "alpha=0.3"), WITH("elu", "alpha=2.5"),
    WITH("hardsigmoid", "alpha=0.3, beta=0.4"),
    TWO("add"), TWO("sub"), TWO("mul"), TWO("div"), TWO("min"), TWO("max"), TWO("prelu"),
    TWO("equal"), TWO("less"), TWO("greater"),
    {.name = "where",
     .text = "graph \"g\" { input %0 : f32[4,33]\ninput %1 : f32[33]\n%2 = less %0, %1 @\"a\"\n"
             "%3 = where %2, %0, %1 @\"b\"\noutput %3 }"},
    {.name = "an island between integers",
     .text = "graph \"g\" { input %0 : u8[1,9,9,5] quant(scale=0.02, zero=99)\n"
             "%1 = dequantize %0 @\"a\"\n%2 = div %1, %1 @\"b\"\n"
             "%3 = quantize %2 {scale=0.01, to=\"u8\", zero=7} @\"c\"\noutput %3 }"},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(cases); i++) rig_check(&cases[i]);
}

/* What would need the C library is refused, by name. */
static void test_refused(void **state)
{
    (void)state;
    static const struct rig_case c[] = {ONE("log"), ONE("gelu"), ONE("sin"), TWO("pow")};
    for (size_t i = 0; i < MPQC_LEN(c); i++) {
        struct rig r;
        struct mpqc_target t;
        rig_open(&r, &c[i]);
        assert_int_equal(mpqc_target_find(&r.cx, "x86-64", NULL, &t), MPQC_OK);
        struct mpqc_codegen_request rq = {
            .graph = &r.g, .plan = &r.plan, .target = &t, .emit = MPQC_EMIT_SO, .path = "/tmp/x"};
        struct mpqc_codegen_facts facts;
        assert_int_equal(mpqc_codegen_emit(&r.cx, &rq, &facts), MPQC_UNSUPPORTED);
        assert_string_equal(r.cx.diags[0].where.node, "n");
        assert_non_null(strstr(r.cx.diags[0].message, "no code generator"));
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
