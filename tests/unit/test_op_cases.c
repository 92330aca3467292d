/* SPDX-License-Identifier: GPL-3.0-or-later
 * Runs the cases of op_cases.def through the interpreter; every operator of the
 * table has at least one.
 */
#include "ir/exec.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <math.h>
#include <setjmp.h>
#include <cmocka.h>

static const char *const cases[] = {
#define CASE(text) text,
#include "op_cases.def"
#undef CASE
};

/* Within one unit in the last place, or both NaN; exact for what is exact. */
static bool close_enough(float got, float wanted)
{
    if (isnan(wanted)) return isnan(got);
    return got == wanted || fabsf(got - wanted) <= 1.2e-7f * fabsf(wanted);
}

static bool same_elements(const struct mpqc_type *t, const void *got, const void *wanted)
{
    if (t->dtype != MPQC_DT_F32) return memcmp(got, wanted, mpqc_type_bytes(t)) == 0;
    for (int64_t i = 0; i < mpqc_type_count(t); i++) {
        if (close_enough(((const float *)got)[i], ((const float *)wanted)[i])) continue;
        print_error("element %d is %.9g, not %.9g\n", (int)i, (double)((const float *)got)[i],
                    (double)((const float *)wanted)[i]);
        return false;
    }
    return true;
}

/* Runs one case; tells the operator of its last node. */
static enum mpqc_op run_case(const char *text)
{
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_buf full;
    mpqc_cx_init(&cx, NULL);
    mpqc_graph_init(&g, NULL);
    mpqc_buf_init(&full);
    mpqc_buf_printf(&full, "graph {%s}", text);
    if (mpqc_graph_parse(&cx, full.data, full.len, "case", &g) != MPQC_OK) {
        mpqc_diag_print(&cx.diags[0], stderr);
        fail_msg("%s", text);
    }
    for (uint32_t n = 0; n < g.n_nodes; n++)
        g.nodes[n].loc = (struct mpqc_loc){.node = "case", .op = "Case", .offset = -1};
    const struct mpqc_node *last = &g.nodes[g.n_nodes - 1];
    enum mpqc_op op = last->op;
    mpqc_vid wanted = g.n_values - 1, result = last->out[0];
    assert_true(mpqc_is_const(&g, wanted));
    mpqc_graph_output(&g, result);
    assert_int_equal(mpqc_graph_normalise(&cx, &g), MPQC_OK);
    if (mpqc_verify(&cx, &g, MPQC_VERIFY_MIXED) != MPQC_OK) {
        mpqc_diag_print(&cx.diags[0], stderr);
        fail_msg("%s", text);
    }

    const struct mpqc_type *t = &g.values[result].type;
    if (!mpqc_type_equal(t, &g.values[wanted].type)) fail_msg("type of: %s", text);
    struct mpqc_runner *r;
    void *out = malloc(mpqc_type_bytes(t) + 1);
    assert_int_equal(mpqc_interpreter.prepare(&cx, &g, &r), MPQC_OK);
    assert_int_equal(mpqc_interpreter.run(r, NULL, &out, NULL, NULL), MPQC_OK);
    if (!same_elements(t, out, g.values[wanted].data)) fail_msg("result of: %s", text);
    mpqc_interpreter.release(r);
    free(out);
    mpqc_buf_release(&full);
    mpqc_graph_release(&g);
    mpqc_cx_release(&cx);
    return op;
}

static void all_cases(void **state)
{
    (void)state;
    unsigned seen[MPQC_OP_COUNT] = {0};
    for (size_t i = 0; i < MPQC_LEN(cases); i++) seen[run_case(cases[i])]++;
    for (int op = 0; op < MPQC_OP_COUNT; op++) {
        if (!seen[op]) fail_msg("operator %s has no case in op_cases.def", mpqc_ops[op].text);
    }
}

/* Random networks are compared elsewhere; here: the table is complete and plausible. */
static void table_is_complete(void **state)
{
    (void)state;
    for (int op = 0; op < MPQC_OP_COUNT; op++) {
        const struct mpqc_op_info *o = &mpqc_ops[op];
        assert_non_null(o->infer);
        assert_non_null(o->ref);
        assert_non_null(o->macs);
        assert_true(o->in_min >= 1 && o->in_min <= o->in_max && o->in_max <= MPQC_MAX_INPUTS);
        assert_true(o->n_out >= 1 && o->n_out <= MPQC_MAX_OUTPUTS);
        assert_true(o->doc[0] != 0);
        for (int other = 0; other < op; other++)
            assert_string_not_equal(o->text, mpqc_ops[other].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_cases),
        cmocka_unit_test(table_is_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
