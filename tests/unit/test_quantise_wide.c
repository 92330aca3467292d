/* SPDX-License-Identifier: GPL-3.0-or-later
 * quantise: layers with inputs of 16 bits.
 */
#include "choice.h"
#include "quant_rig.h"

struct fixture {
    struct qrig r;
    struct mpqc_bits bits;
};

/* Calibrates, gives every layer that may have it `name`, all others w8a8, and does the rest. */
static void run_with(struct fixture *f, const char *name)
{
    static const char *const rest[] = {"quantise", "fuse", "plan"};
    struct qrig *r = &f->r;
    struct mpqc_bits *b = &f->bits;
    bool stopped;
    qrig_run(r, 1);
    assert_int_equal(mpqc_bits_collect(&r->cx, &r->g, &r->p.keep, b), MPQC_OK);
    assert_int_equal(mpqc_bits_tie(&r->p, &r->g, b), MPQC_OK);
    b->chosen = MPQC_NEW_ARRAY(&r->p.keep, uint32_t, b->n_layers + 1);
    assert_non_null(b->chosen);
    for (uint32_t l = 0; l < b->n_layers; l++)
        b->chosen[l] = choice(b->layer[l].no_wide ? "w8a8" : name);
    r->p.bits = b;
    mpqc_status status = mpqc_pipeline_run(&r->p, &r->g, rest, MPQC_LEN(rest), &stopped);
    if (status != MPQC_OK) mpqc_diag_print(&r->cx.diags[0], stderr);
    assert_int_equal(status, MPQC_OK);
}

static void start(struct fixture *f, const char *text, const char *name)
{
    qrig_init(&f->r, text);
    run_with(f, name);
}

static void stop(struct fixture *f)
{
    qrig_release(&f->r);
}

/* The largest magnitude that an i16 can have there: what the clamp behind its maker says,
 * through whatever only moves it; all of it where it comes from outside. */
static double reach_of(const struct mpqc_graph *g, mpqc_vid v)
{
    const struct mpqc_node *n = mpqc_def(g, v);
    while (n && n->op != MPQC_OP_NARROW && n->op != MPQC_OP_QUANTIZE) n = mpqc_def(g, n->in[0]);
    if (!n || n->op == MPQC_OP_QUANTIZE) return 32768;
    return (double)mpqc_attr_int(n, MPQC_ATTR_HI);
}

/* No channel of a layer with 16-bit inputs leaves 2^30, in any order of its products. */
static uint32_t check_wide_sums(const struct mpqc_graph *g)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        if (!(mpqc_ops[n->op].traits & MPQC_T_LINEAR)) continue;
        if (mpqc_value_at(g, n->in[0])->type.dtype != MPQC_DT_I16) continue;
        const struct mpqc_value *w = mpqc_value_at(g, n->in[1]);
        int64_t channels = w->type.dims[w->type.rank - 1];
        int64_t rows = mpqc_type_count(&w->type) / channels;
        double reach = reach_of(g, n->in[0]);
        assert_true(reach > 255);
        for (int64_t c = 0; c < channels; c++) {
            double sum = n->n_in > 2 && n->in[2] != MPQC_NONE
                             ? fabs((double)((const int32_t *)mpqc_value_at(g, n->in[2])->data)[c])
                             : 0;
            for (int64_t r = 0; r < rows; r++)
                sum += reach * abs(((const int8_t *)w->data)[r * channels + c]);
            assert_true(sum < 1073741824.0);
        }
        found++;
    }
    return found;
}

/* A node with a 16-bit input where the operator has no such form. */
static void check_wide_readers(const struct mpqc_graph *g)
{
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        bool bytes = n->op == MPQC_OP_SUMPOOL || n->op == MPQC_OP_REDUCE_SUM ||
                     n->op == MPQC_OP_MUL || n->op == MPQC_OP_LUT || n->op == MPQC_OP_SOFTMAX;
        for (uint32_t k = 0; bytes && k < n->n_in; k++)
            assert_int_not_equal(mpqc_value_at(g, n->in[k])->type.dtype, MPQC_DT_I16);
    }
}

static void wide_inputs_lose_less(void **state)
{
    (void)state;
    uint32_t wide = 0, gained = 0;
    for (size_t i = 0; i < MPQC_LEN(qcases); i++) {
        struct fixture f;
        start(&f, qcases[i].text, "w8a8");
        double before = qrig_accuracy(&f.r).sqnr_db;
        assert_int_equal(check_wide_sums(&f.r.g), 0);
        stop(&f);
        start(&f, qcases[i].text, "w8a16");
        double after = qrig_accuracy(&f.r).sqnr_db;
        uint32_t n = check_wide_sums(&f.r.g);
        check_wide_readers(&f.r.g);
        if (after < before - 1) /* a softmax reads 8 bits and decides by luck */
            fail_msg("%s: %.1f dB with 16-bit inputs, %.1f with 8", qcases[i].name, after, before);
        wide += n;
        gained += n > 0 && after > before + 1;
        stop(&f);
    }
    assert_true(wide >= 20 && gained >= 5);
}

/* A sum of so many products that 15 bits would not do: fewer bits, but all the same. */
static void wide_sums_that_are_long(void **state)
{
    (void)state;
    static const char text[] =
        "graph \"long\" { input %0 \"x\" : f32[2,16] const %1 : f32[16,9000] = random 1"
        " %2 = matmul %0, %1 @\"a\" \"Gemm\" const %3 : f32[9000,5] = random 2"
        " %4 = matmul %2, %3 @\"b\" \"Gemm\" output %4 }";
    struct fixture f;
    start(&f, text, "w8a16");
    assert_int_equal(check_wide_sums(&f.r.g), 2);
    double reach = reach_of(&f.r.g, mpqc_node_at(&f.r.g, f.r.g.order[0])->out[0]);
    for (uint32_t i = 0; i < f.r.g.n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(&f.r.g, f.r.g.order[i]);
        if (n->op == MPQC_OP_NARROW) reach = (double)mpqc_attr_int(n, MPQC_ATTR_HI);
    }
    assert_true(reach > 511 && reach < 8192);
    assert_true(qrig_accuracy(&f.r).sqnr_db > 38);
    stop(&f);
}

/* -io=int: the caller gives 16 bits where the first layer wants them. */
static void wide_integer_inputs(void **state)
{
    (void)state;
    struct fixture f;
    qrig_init(&f.r, qcases[0].text);
    f.r.options.int_io = true;
    run_with(&f, "w8a16");
    const struct mpqc_type *t = &mpqc_value_at(&f.r.g, f.r.g.inputs[0])->type;
    assert_int_equal(t->dtype, MPQC_DT_I16);
    assert_int_equal(t->quant->zero[0], 0);
    assert_true(check_wide_sums(&f.r.g) > 0);
    stop(&f);
}

/* What comes from a table of 256 entries has no 16-bit form, and it is said which one. */
static void tables_have_no_wide_form(void **state)
{
    (void)state;
    static const char text[] =
        "graph \"t\" { input %0 \"x\" : f32[1,4,4,4] const %1 : f32[1,1,4,4] = random 1"
        " %2 = conv %0, %1 @\"a\" \"Conv\" %3 = silu %2 @\"swish\" \"Mul\""
        " const %4 : f32[1,1,4,4] = random 2 %5 = conv %3, %4 @\"b\" \"Conv\" output %5 }";
    struct fixture f;
    start(&f, text, "w8a16");
    assert_null(f.bits.layer[0].no_wide);
    assert_non_null(strstr(f.bits.layer[1].no_wide, "table of 256 entries, that of 'swish' (Mul)"));
    assert_int_equal(check_wide_sums(&f.r.g), 1);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wide_inputs_lose_less),
        cmocka_unit_test(wide_sums_that_are_long),
        cmocka_unit_test(wide_integer_inputs),
        cmocka_unit_test(tables_have_no_wide_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
