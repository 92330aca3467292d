/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Derivatives, first and second, against differences.
 *
 * For a function y of inputs x_i, s = <y, r> with random r is differentiated by
 * mpqc_autodiff, and t = sum <ds/dx_i, u_i> with random u_i again.  Along random
 * directions d, (s(x + h d) - s(x - h d)) / 2h must be the sum of <ds/dx_i, d_i>, and
 * the same for t.  Inputs stay away from corners: all numbers of an input differ by
 * more than a step, and from 0.
 */
#include "failing_allocator.h"
#include "ir/autodiff.h"
#include "ir/exec.h"
#include "ir/op.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <math.h>
#include <setjmp.h>
#include <cmocka.h>

static const struct {
    double low, high;
    const char *text;
} cases[] = {
#define CASE(low, high, text) {low, high, text},
#include "autodiff_cases.def"
#undef CASE
};

#define MAX_IN 5
#define STEP 0.00390625 /* 2^-8 */

static uint64_t seed;

static double uniform(void) /* [-1, 1) */
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1.0;
}

/* A case and its derivatives, ready to run. */
struct trial {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_runner *r;
    uint32_t n;                     /* inputs */
    mpqc_vid in[MAX_IN];
    float *x[MAX_IN], *grad[2][MAX_IN];
    bool has[2][MAX_IN];            /* else the derivative is said to be zero */
    float value[2];                 /* s and t */
};

static void *floats(const struct trial *t, mpqc_vid v)
{
    return malloc((size_t)mpqc_type_count(&t->g.values[v].type) * sizeof(float) + 1);
}

static int64_t count(const struct trial *t, uint32_t i)
{
    return mpqc_type_count(&t->g.values[t->in[i]].type);
}

static void must(struct trial *t, mpqc_status status, const char *what)
{
    if (status == MPQC_OK) return;
    for (uint32_t i = 0; i < t->cx.n_diags; i++) mpqc_diag_print(&t->cx.diags[i], stderr);
    fail_msg("%s", what);
}

/* <v, random>, or v itself when it is one number of the right shape already. */
static mpqc_vid projected(struct trial *t, struct mpqc_build *b, mpqc_vid v)
{
    struct mpqc_type type = t->g.values[v].type;
    float *r = floats(t, v);
    for (int64_t i = 0; i < mpqc_type_count(&type); i++) r[i] = (float)uniform();
    mpqc_vid c = mpqc_graph_const_f32(&t->g, type.rank, type.dims, r);
    free(r);
    return mpqc_build_2(b, MPQC_OP_DOT, v, c);
}

static void parse(struct trial *t, const char *body)
{
    struct mpqc_buf text;
    mpqc_cx_init(&t->cx, NULL);
    mpqc_graph_init(&t->g, NULL);
    mpqc_buf_init(&text);
    mpqc_buf_printf(&text, "graph {%s}", body);
    must(t, mpqc_graph_parse(&t->cx, text.data, text.len, "case", &t->g), body);
    mpqc_buf_release(&text);
    for (uint32_t i = 0; i < t->g.n_nodes; i++)
        t->g.nodes[i].loc = (struct mpqc_loc){.node = "case", .op = "Case", .offset = -1};
    t->n = t->g.n_inputs;
    assert_true(t->n <= MAX_IN);
    for (uint32_t i = 0; i < t->n; i++) t->in[i] = t->g.inputs[i];
}

/* Outputs: s, t, then the derivatives that are not zero. */
static void differentiate(struct trial *t, const char *text)
{
    struct mpqc_build b;
    mpqc_vid d[2][MAX_IN], s, second = MPQC_NONE;
    mpqc_build_init(&b, &t->cx, &t->g);
    s = projected(t, &b, t->g.nodes[t->g.n_nodes - 1].out[0]);
    must(t, mpqc_autodiff_build(&b, s, t->in, t->n, d[0]), text);
    for (uint32_t i = 0; i < t->n; i++)
        if (d[0][i] != MPQC_NONE) second = mpqc_build_add(&b, second, projected(t, &b, d[0][i]));
    for (uint32_t i = 0; i < t->n; i++) d[1][i] = MPQC_NONE;
    if (second != MPQC_NONE) must(t, mpqc_autodiff_build(&b, second, t->in, t->n, d[1]), text);
    mpqc_graph_output(&t->g, s);
    mpqc_graph_output(&t->g, second == MPQC_NONE ? s : second);
    for (int order = 0; order < 2; order++) {
        for (uint32_t i = 0; i < t->n; i++) {
            t->has[order][i] = d[order][i] != MPQC_NONE;
            if (!t->has[order][i]) continue;
            assert_true(mpqc_type_equal(&t->g.values[d[order][i]].type,
                                        &t->g.values[t->in[i]].type));
            mpqc_graph_output(&t->g, d[order][i]);
        }
    }
    mpqc_build_release(&b);
    must(t, mpqc_graph_normalise(&t->cx, &t->g), text);
    must(t, mpqc_verify(&t->cx, &t->g, MPQC_VERIFY_FLOAT), text);
    must(t, mpqc_interpreter.prepare(&t->cx, &t->g, &t->r), text);
}

static int64_t gcd(int64_t a, int64_t b)
{
    return b == 0 ? a : gcd(b, a % b);
}

/* Different numbers in [low, high], none at 0, in an order that depends on i. */
static void spread(struct trial *t, uint32_t i, double low, double high)
{
    int64_t n = count(t, i), stride = 7 + 4 * (int64_t)i;
    while (gcd(stride, n) != 1) stride++;
    for (int64_t j = 0; j < n; j++)
        t->x[i][j] = (float)(low + (high - low) * ((double)(j * stride % n) + 0.3 + 0.07 * i) /
                                       (double)n);
}

static void run(struct trial *t, float *const *x, float *value, bool with_grads)
{
    void *out[2 + 2 * MAX_IN];
    float *scratch[2][MAX_IN];
    uint32_t n = 0;
    out[n++] = &value[0];
    out[n++] = &value[1];
    for (int order = 0; order < 2; order++) {
        for (uint32_t i = 0; i < t->n; i++) {
            scratch[order][i] = with_grads ? t->grad[order][i] : floats(t, t->in[i]);
            if (t->has[order][i]) out[n++] = scratch[order][i];
        }
    }
    must(t, mpqc_interpreter.run(t->r, (const void *const *)x, out, NULL, NULL), "run");
    for (int order = 0; order < 2 && !with_grads; order++)
        for (uint32_t i = 0; i < t->n; i++) free(scratch[order][i]);
}

/* One random direction; differences of s and t along it. */
static bool check_direction(struct trial *t)
{
    float *moved[MAX_IN], high[2], low[2];
    double slope[2] = {0, 0};
    bool good = true;
    float *d[MAX_IN];
    for (uint32_t i = 0; i < t->n; i++) {
        moved[i] = floats(t, t->in[i]);
        d[i] = floats(t, t->in[i]);
        for (int64_t j = 0; j < count(t, i); j++) {
            d[i][j] = (float)uniform();
            for (int order = 0; order < 2; order++)
                if (t->has[order][i]) slope[order] += (double)(d[i][j] * t->grad[order][i][j]);
            moved[i][j] = t->x[i][j] + (float)STEP * d[i][j];
        }
    }
    run(t, moved, high, false);
    for (uint32_t i = 0; i < t->n; i++)
        for (int64_t j = 0; j < count(t, i); j++) moved[i][j] = t->x[i][j] - (float)STEP * d[i][j];
    run(t, moved, low, false);
    for (int order = 0; order < 2; order++) {
        double wanted = ((double)high[order] - (double)low[order]) / (2 * STEP);
        double size = 1 + fabs(wanted) + 0.05 * fabs((double)high[order]);
        if (fabs(wanted - slope[order]) <= 3e-3 * size) continue;
        print_error("derivative %d: %g, difference %g\n", order + 1, slope[order], wanted);
        good = false;
    }
    for (uint32_t i = 0; i < t->n; i++) {
        free(moved[i]);
        free(d[i]);
    }
    return good;
}

static void close_trial(struct trial *t)
{
    for (uint32_t i = 0; i < t->n; i++) {
        free(t->x[i]);
        for (int order = 0; order < 2; order++) free(t->grad[order][i]);
    }
    mpqc_interpreter.release(t->r);
    mpqc_graph_release(&t->g);
    mpqc_cx_release(&t->cx);
}

static void check_case(const char *text, double low, double high, unsigned *seen)
{
    struct trial t = {0};
    parse(&t, text);
    for (uint32_t i = 0; i < t.g.n_nodes; i++) seen[t.g.nodes[i].op]++;
    differentiate(&t, text);
    for (uint32_t i = 0; i < t.n; i++) {
        t.x[i] = floats(&t, t.in[i]);
        for (int order = 0; order < 2; order++) t.grad[order][i] = floats(&t, t.in[i]);
        spread(&t, i, low, high);
    }
    run(&t, t.x, t.value, true);
    for (int trial = 0; trial < 4; trial++)
        if (!check_direction(&t)) fail_msg("%s", text);
    close_trial(&t);
}

static void every_operator(void **state)
{
    (void)state;
    unsigned seen[MPQC_OP_COUNT] = {0};
    for (size_t i = 0; i < MPQC_LEN(cases); i++)
        check_case(cases[i].text, cases[i].low, cases[i].high, seen);
    for (int op = 0; op < MPQC_OP_COUNT; op++) {
        bool differentiable = mpqc_ops[op].vjp != mpqc_no_vjp;
        if (differentiable && !seen[op])
            fail_msg("operator %s has no case in autodiff_cases.def", mpqc_ops[op].text);
    }
}

/* ---- what a graph transformation owes --------------------------------------------------- */

/* d(sum (a b)^2) by b when nothing leads from the loss to c; the graph computes no more
 * than needed. */
static void only_what_is_asked(void **state)
{
    (void)state;
    struct trial t = {0};
    mpqc_vid wrt[2], d[2];
    parse(&t, "input %0 : f32[3] input %1 : f32[3] input %2 : f32[3] %3 = mul %0, %1"
              "%4 = dot %3, %3 %5 = exp %2 %6 = mul %5, %3");
    wrt[0] = t.in[1];
    wrt[1] = t.in[2];
    must(&t, mpqc_autodiff(&t.cx, &t.g, t.g.nodes[1].out[0], wrt, 2, d), "autodiff");
    assert_int_equal(d[1], MPQC_NONE);
    mpqc_graph_output(&t.g, d[0]);
    must(&t, mpqc_graph_normalise(&t.cx, &t.g), "normalise");
    assert_true(t.g.n_order <= 4); /* a b; times 1, twice, added; times a */
    for (uint32_t i = 0; i < t.g.n_order; i++)
        assert_int_not_equal(t.g.nodes[t.g.order[i]].op, MPQC_OP_EXP);
    mpqc_graph_release(&t.g);
    mpqc_cx_release(&t.cx);
}

/* A value in the middle, and a value that is the loss itself. */
static void by_intermediates(void **state)
{
    (void)state;
    struct trial t = {0};
    mpqc_vid wrt[2], d[2];
    parse(&t, "input %0 : f32[2] %1 = exp %0 %2 = dot %1, %1");
    wrt[0] = t.g.nodes[0].out[0];
    wrt[1] = t.g.nodes[1].out[0];
    must(&t, mpqc_autodiff(&t.cx, &t.g, wrt[1], wrt, 2, d), "autodiff");
    mpqc_graph_output(&t.g, d[0]);
    mpqc_graph_output(&t.g, d[1]);
    must(&t, mpqc_graph_normalise(&t.cx, &t.g), "normalise");
    must(&t, mpqc_interpreter.prepare(&t.cx, &t.g, &t.r), "prepare");
    float x[2] = {0.0f, logf(3.0f)}, by_exp[2], by_loss[1];
    const void *in[] = {x};
    void *out[] = {by_exp, by_loss};
    must(&t, mpqc_interpreter.run(t.r, in, out, NULL, NULL), "run");
    assert_true(fabsf(by_exp[0] - 2.0f) < 1e-6f && fabsf(by_exp[1] - 6.0f) < 1e-5f);
    assert_true(by_loss[0] == 1.0f);
    t.n = 0;
    close_trial(&t);
}

static void names_what_has_none(void **state)
{
    (void)state;
    struct trial t = {0};
    mpqc_vid d;
    parse(&t, "input %0 : f32[3] %1 = reduce_prod %0 {axes=[0]}");
    t.g.nodes[0].loc = (struct mpqc_loc){.node = "prod_7", .op = "ReduceProd", .offset = -1};
    assert_int_equal(mpqc_autodiff(&t.cx, &t.g, t.g.nodes[0].out[0], t.in, 1, &d),
                     MPQC_UNSUPPORTED);
    assert_int_equal(t.cx.n_diags, 1);
    assert_string_equal(t.cx.diags[0].where.node, "prod_7");
    assert_string_equal(t.cx.diags[0].where.op, "ReduceProd");
    assert_non_null(strstr(t.cx.diags[0].message, "reduce_prod has no derivative"));
    mpqc_graph_release(&t.g);
    mpqc_cx_release(&t.cx);
}

/* Off the path it does not matter. */
static void no_derivative_off_the_path(void **state)
{
    (void)state;
    struct trial t = {0};
    mpqc_vid d;
    parse(&t, "input %0 : f32[1] input %1 : f32[1] %2 = reduce_prod %0 {axes=[0]} %3 = mul %2, %1");
    must(&t, mpqc_autodiff(&t.cx, &t.g, t.g.nodes[1].out[0], &t.in[1], 1, &d), "autodiff");
    assert_int_not_equal(d, MPQC_NONE);
    mpqc_graph_release(&t.g);
    mpqc_cx_release(&t.cx);
}

static void out_of_memory(void **state)
{
    (void)state;
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        struct failing_allocator failing;
        struct trial t = {0};
        mpqc_vid d[MAX_IN];
        const char *text = "input %0 : f32[1,4,4,2] input %1 : f32[3,3,2,2] %2 = conv %0, %1"
                           "%3 = silu %2 %4 = dot %3, %3";
        parse(&t, text);
        mpqc_cx_release(&t.cx);
        failing_init(&failing, n);
        mpqc_cx_init(&t.cx, &failing.allocator);
        mpqc_status status =
            mpqc_autodiff(&t.cx, &t.g, t.g.nodes[2].out[0], t.in, t.n, d);
        done = status == MPQC_OK;
        if (!done) assert_int_equal(status, MPQC_NO_MEMORY);
        assert_true(n < 1000);
        mpqc_graph_release(&t.g);
        mpqc_cx_release(&t.cx);
        assert_int_equal(failing.alive, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operator),
        cmocka_unit_test(only_what_is_asked),
        cmocka_unit_test(by_intermediates),
        cmocka_unit_test(names_what_has_none),
        cmocka_unit_test(no_derivative_off_the_path),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
