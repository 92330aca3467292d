/* SPDX-License-Identifier: GPL-3.0-or-later
 * Building and changing graphs.
 */
#include "failing_allocator.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <setjmp.h>
#include <cmocka.h>

static const struct mpqc_loc loc = {"node", "Op", -1};

struct fixture {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_arena scratch;
};

static void open_fixture(struct fixture *f, const struct mpqc_allocator *allocator)
{
    mpqc_cx_init(&f->cx, allocator);
    mpqc_graph_init(&f->g, allocator);
    mpqc_arena_init(&f->scratch, allocator);
}

static void close_fixture(struct fixture *f)
{
    mpqc_arena_release(&f->scratch);
    mpqc_graph_release(&f->g);
    mpqc_cx_release(&f->cx);
}

static int setup(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    if (!f) return -1;
    open_fixture(f, NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    close_fixture(*state);
    free(*state);
    return 0;
}

static mpqc_vid input(struct fixture *f, int64_t n)
{
    return mpqc_graph_input(&f->g, "x", mpqc_type_make(MPQC_DT_F32, 1, &n));
}

/* A node that must succeed. */
static mpqc_vid unary(struct fixture *f, enum mpqc_op op, mpqc_vid x)
{
    mpqc_vid v = MPQC_NONE;
    assert_int_equal(mpqc_node_add(&f->cx, &f->g, op, &x, 1, NULL, loc, &v), MPQC_OK);
    return v;
}

static mpqc_vid binary(struct fixture *f, enum mpqc_op op, mpqc_vid a, mpqc_vid b)
{
    mpqc_vid in[] = {a, b}, v = MPQC_NONE;
    assert_int_equal(mpqc_node_add(&f->cx, &f->g, op, in, 2, NULL, loc, &v), MPQC_OK);
    return v;
}

static void normalise(struct fixture *f)
{
    assert_int_equal(mpqc_graph_normalise(&f->cx, &f->g), MPQC_OK);
    assert_int_equal(mpqc_verify(&f->cx, &f->g, MPQC_VERIFY_MIXED), MPQC_OK);
}

static void folding_computes_constants(void **state)
{
    struct fixture *f = *state;
    int64_t two = 2;
    mpqc_vid in[2], v;
    in[0] = mpqc_graph_const_f32(&f->g, 1, &two, (const float[]){1.5f, -2.0f});
    in[1] = mpqc_graph_const_f32(&f->g, 0, NULL, (const float[]){0.25f});
    assert_int_equal(mpqc_node_fold(&f->cx, &f->g, MPQC_OP_MUL, in, 2, NULL, loc, &v), MPQC_OK);
    assert_true(mpqc_is_const(&f->g, v));
    assert_int_equal(f->g.n_nodes, 0);
    const float *data = mpqc_value_at(&f->g, v)->data;
    assert_true(data[0] == 0.375f && data[1] == -0.5f);
    in[1] = input(f, 2);
    assert_int_equal(mpqc_node_fold(&f->cx, &f->g, MPQC_OP_MUL, in, 2, NULL, loc, &v), MPQC_OK);
    assert_false(mpqc_is_const(&f->g, v));
    assert_int_equal(f->g.n_nodes, 1);
}

static void folding_is_bounded(void **state)
{
    struct fixture *f = *state;
    mpqc_vid v, one = mpqc_graph_const_f32(&f->g, 0, NULL, (const float[]){1.0f});
    struct mpqc_attrs a = {0};
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, 2, (const int64_t[]){65536, 65536});
    assert_int_equal(mpqc_node_fold(&f->cx, &f->g, MPQC_OP_EXPAND, &one, 1, &a, loc, &v),
                     MPQC_LIMIT_EXCEEDED);
}

static void constants_without_elements_are_constants(void **state)
{
    struct fixture *f = *state;
    int64_t none = 0;
    struct mpqc_type t = mpqc_type_make(MPQC_DT_F32, 1, &none);
    assert_true(mpqc_is_const(&f->g, mpqc_graph_const(&f->g, NULL, t, NULL, true)));
    assert_true(mpqc_is_const(&f->g, mpqc_graph_const(&f->g, NULL, t, NULL, false)));
    mpqc_vid v, x = mpqc_graph_const_i64(&f->g, 0, NULL);
    assert_int_equal(mpqc_node_fold(&f->cx, &f->g, MPQC_OP_NEG, &x, 1, NULL, loc, &v), MPQC_OK);
    assert_true(mpqc_is_const(&f->g, v));
}

static void attributes_are_sorted_and_replaced(void **state)
{
    struct fixture *f = *state;
    struct mpqc_attrs a = {0};
    mpqc_vid v, x = input(f, 3);
    mpqc_attrs_float(&a, MPQC_ATTR_MIN, 0.5f);
    mpqc_attrs_float(&a, MPQC_ATTR_MAX, 6.0f);
    mpqc_attrs_float(&a, MPQC_ATTR_MIN, -1.0f);
    assert_int_equal(mpqc_node_add(&f->cx, &f->g, MPQC_OP_CLIP, &x, 1, &a, loc, &v), MPQC_OK);
    struct mpqc_node *n = mpqc_def(&f->g, v);
    assert_int_equal(n->n_attr, 2);
    assert_true(n->attr[0].key == MPQC_ATTR_MAX && n->attr[1].key == MPQC_ATTR_MIN);
    assert_true(mpqc_attr_float_or(n, MPQC_ATTR_MIN, 9) == -1.0f);
    assert_true(mpqc_attr_float_or(n, MPQC_ATTR_ALPHA, 9) == 9.0f);
    mpqc_attr_set(&f->g, n, (struct mpqc_attr){.key = MPQC_ATTR_ALPHA, .f = 0.5});
    mpqc_attr_set(&f->g, n, (struct mpqc_attr){.key = MPQC_ATTR_MAX, .f = 7});
    assert_int_equal(n->n_attr, 3);
    assert_true(n->attr[0].key == MPQC_ATTR_ALPHA && n->attr[1].f == 7);
    assert_null(mpqc_attr_ints(n, MPQC_ATTR_PADS));
    assert_string_equal(mpqc_attr_string_or(n, MPQC_ATTR_MODE, "none"), "none");
}

static void arity_at_the_limit_and_one_past(void **state)
{
    struct fixture *f = *state;
    mpqc_vid v, in[MPQC_MAX_INPUTS + 1];
    struct mpqc_attrs a = {0};
    mpqc_attrs_int(&a, MPQC_ATTR_AXIS, 0);
    for (uint32_t i = 0; i <= MPQC_MAX_INPUTS; i++) in[i] = input(f, 2);
    assert_int_equal(
        mpqc_node_add(&f->cx, &f->g, MPQC_OP_CONCAT, in, MPQC_MAX_INPUTS, &a, loc, &v), MPQC_OK);
    assert_int_equal(mpqc_value_at(&f->g, v)->type.dims[0], 2 * MPQC_MAX_INPUTS);
    assert_int_equal(
        mpqc_node_add(&f->cx, &f->g, MPQC_OP_CONCAT, in, MPQC_MAX_INPUTS + 1, &a, loc, &v),
        MPQC_MODEL);
}

static void a_refused_node_leaves_no_trace(void **state)
{
    struct fixture *f = *state;
    mpqc_vid v, in[] = {input(f, 2), input(f, 3)};
    uint32_t n = f->g.n_values;
    assert_int_not_equal(mpqc_node_add(&f->cx, &f->g, MPQC_OP_ADD, in, 2, NULL, loc, &v), MPQC_OK);
    assert_string_equal(f->cx.diags[0].where.node, "node");
    assert_true(f->g.n_values == n && f->g.n_nodes == 0);
}

static void replacing_moves_every_use(void **state)
{
    struct fixture *f = *state;
    mpqc_vid x = input(f, 2), a = unary(f, MPQC_OP_EXP, x), b = unary(f, MPQC_OP_NEG, x);
    mpqc_vid sum = binary(f, MPQC_OP_ADD, a, a);
    mpqc_graph_output(&f->g, a);
    mpqc_graph_output(&f->g, sum);
    uint32_t *uses = mpqc_graph_uses(&f->g, &f->scratch);
    assert_true(uses[x] == 2 && uses[a] == 3 && uses[b] == 0 && uses[sum] == 1);
    mpqc_graph_replace(&f->g, a, b);
    uses = mpqc_graph_uses(&f->g, &f->scratch);
    assert_true(uses[a] == 0 && uses[b] == 3);
    normalise(f);
    assert_true(mpqc_def(&f->g, a)->dead);
    assert_int_equal(f->g.n_order, 2);
}

static void order_is_kept_and_new_nodes_stand_before_their_users(void **state)
{
    struct fixture *f = *state;
    mpqc_vid x = input(f, 2), a = unary(f, MPQC_OP_EXP, x), b = unary(f, MPQC_OP_NEG, x);
    mpqc_vid sum = binary(f, MPQC_OP_ADD, a, b), late = unary(f, MPQC_OP_ABS, x);
    mpqc_graph_output(&f->g, binary(f, MPQC_OP_MUL, sum, late));
    normalise(f);
    for (uint32_t i = 0; i < f->g.n_order; i++) assert_int_equal(f->g.order[i], i);
    mpqc_vid extra = unary(f, MPQC_OP_SQRT, b);
    mpqc_def(&f->g, sum)->in[1] = extra;
    normalise(f);
    static const mpqc_nid want[] = {0, 1, 5, 2, 3, 4};
    assert_int_equal(f->g.n_order, 6);
    for (uint32_t i = 0; i < 6; i++) assert_int_equal(f->g.order[i], want[i]);
}

static void cycles_and_dead_uses_are_bugs(void **state)
{
    struct fixture *f = *state;
    mpqc_vid x = input(f, 2), a = unary(f, MPQC_OP_EXP, x), b = unary(f, MPQC_OP_NEG, a);
    mpqc_graph_output(&f->g, b);
    mpqc_def(&f->g, a)->in[0] = b;
    assert_int_equal(mpqc_graph_normalise(&f->cx, &f->g), MPQC_BUG);
    mpqc_def(&f->g, a)->in[0] = x;
    mpqc_def(&f->g, a)->dead = true;
    assert_int_equal(mpqc_graph_normalise(&f->cx, &f->g), MPQC_BUG);
}

static void long_chains_need_no_deep_stack(void **state)
{
    struct fixture *f = *state;
    mpqc_vid v = input(f, 1);
    for (int i = 0; i < 20000; i++) v = unary(f, MPQC_OP_NEG, v);
    mpqc_graph_output(&f->g, v);
    f->g.n_order = 0; /* as if all were new: the walk begins at node 0 ... */
    normalise(f);
    assert_int_equal(f->g.n_order, 20000);
    for (uint32_t i = 0; i < 10000; i++) { /* ... and here at the last one */
        mpqc_nid t = f->g.order[i];
        f->g.order[i] = f->g.order[19999 - i];
        f->g.order[19999 - i] = t;
    }
    normalise(f);
    assert_int_equal(f->g.order[0], 0);
}

static void assert_same_text(const struct mpqc_graph *a, const struct mpqc_graph *b)
{
    struct mpqc_buf ta, tb;
    mpqc_buf_init(&ta);
    mpqc_buf_init(&tb);
    mpqc_graph_print(a, &ta, true);
    mpqc_graph_print(b, &tb, true);
    assert_string_equal(ta.data, tb.data);
    mpqc_buf_release(&ta);
    mpqc_buf_release(&tb);
}

/* A graph with everything that a copy must take along. */
static const char rich[] =
    "graph \"rich\" { input %0 \"x\" : u8[1,2,2,2] quant(scale=0x1p-4, zero=3)\n"
    "const %1 \"w\" : i8[1,1,2,2] quant(axis=3, scale=[0.5,0.25], zero=[0,0]) = [1,2,-3,4]\n"
    "%5 \"unused\" = copy %0 @\"u\"\n"
    "%2 \"y\" = conv %0, %1, _ {pads=[0,0,0,0]} @\"c\" \"Conv\" kernel 4\n"
    "%3 = dequantize %2 @\"d\" output %3 output %0 }";

static void clones_are_equal_and_independent(void **state)
{
    struct fixture *f = *state;
    struct mpqc_graph copy, second;
    mpqc_vid *map;
    assert_int_equal(mpqc_graph_parse(&f->cx, rich, sizeof rich - 1, "t", &f->g), MPQC_OK);
    normalise(f);
    mpqc_graph_init(&copy, NULL);
    mpqc_graph_init(&second, NULL);
    assert_int_equal(mpqc_graph_clone(&f->cx, &f->g, &copy, &f->scratch, &map), MPQC_OK);
    assert_int_equal(mpqc_verify(&f->cx, &copy, MPQC_VERIFY_MIXED), MPQC_OK);
    assert_same_text(&f->g, &copy);
    assert_true(map[f->g.outputs[0]] == copy.outputs[0] && map[2] == MPQC_NONE);
    mpqc_graph_release(&f->g); /* the copy must not notice */
    assert_int_equal(mpqc_graph_clone(&f->cx, &copy, &second, &f->scratch, NULL), MPQC_OK);
    assert_same_text(&copy, &second);
    mpqc_vid x = mpqc_graph_input(&copy, "more", mpqc_type_make(MPQC_DT_F32, 0, NULL));
    mpqc_graph_output(&copy, x); /* lists and tables still grow */
    assert_int_equal(mpqc_graph_normalise(&f->cx, &copy), MPQC_OK);
    assert_int_equal(mpqc_verify(&f->cx, &copy, MPQC_VERIFY_MIXED), MPQC_OK);
    mpqc_graph_release(&copy);
    mpqc_graph_release(&second);
}

static void types_know_their_limits(void **state)
{
    (void)state;
    struct mpqc_type t = mpqc_type_make(MPQC_DT_I64, 2, (const int64_t[]){1 << 30, 1 << 29});
    assert_true(mpqc_type_fits(&t));
    assert_true(mpqc_type_bytes(&t) == (size_t)1 << 62);
    t.dims[1] = 1 << 30;
    assert_false(mpqc_type_fits(&t));
    t = mpqc_type_make(MPQC_DT_F32, 3, (const int64_t[]){0, 1 << 30, 1LL << 40});
    assert_false(mpqc_type_fits(&t)); /* strides would overflow */
    t = mpqc_type_make(MPQC_DT_U8, 8, (const int64_t[]){1, 1, 1, 1, 1, 1, 1, 2});
    assert_true(mpqc_type_fits(&t) && mpqc_type_count(&t) == 2);
    t.rank = 9;
    assert_false(mpqc_type_fits(&t));
}

/* Everything that a pass does, under an allocator that fails. */
static mpqc_status build(struct fixture *f)
{
    int64_t two = 2;
    struct mpqc_graph copy;
    mpqc_vid v = mpqc_graph_input(&f->g, "x", mpqc_type_make(MPQC_DT_F32, 1, &two));
    for (int i = 0; i < 5; i++) {
        mpqc_vid in[] = {v, mpqc_graph_const_f32(&f->g, 1, &two, (const float[]){1, 2})};
        MPQC_TRY(mpqc_node_fold(&f->cx, &f->g, MPQC_OP_ADD, in, 2, NULL, loc, &v));
        in[0] = in[1];
        MPQC_TRY(mpqc_node_fold(&f->cx, &f->g, MPQC_OP_MUL, in, 2, NULL, loc, &in[0]));
    }
    mpqc_graph_output(&f->g, v);
    MPQC_TRY(mpqc_graph_normalise(&f->cx, &f->g));
    mpqc_graph_init(&copy, f->cx.allocator);
    mpqc_status status = mpqc_graph_clone(&f->cx, &f->g, &copy, &f->scratch, NULL);
    if (status == MPQC_OK) status = mpqc_verify(&f->cx, &copy, MPQC_VERIFY_FLOAT);
    mpqc_graph_release(&copy);
    return status;
}

static void every_failed_allocation_is_reported(void **state)
{
    mpqc_status status = MPQC_NO_MEMORY;
    (void)state;
    for (uint64_t n = 1; status != MPQC_OK; n++) {
        struct failing_allocator a;
        struct fixture f;
        failing_init(&a, n);
        open_fixture(&f, &a.allocator);
        status = build(&f);
        assert_true(status == MPQC_OK || status == MPQC_NO_MEMORY);
        close_fixture(&f);
        assert_int_equal(a.alive, 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(folding_computes_constants),
        TEST(folding_is_bounded),
        TEST(constants_without_elements_are_constants),
        TEST(attributes_are_sorted_and_replaced),
        TEST(arity_at_the_limit_and_one_past),
        TEST(a_refused_node_leaves_no_trace),
        TEST(replacing_moves_every_use),
        TEST(order_is_kept_and_new_nodes_stand_before_their_users),
        TEST(cycles_and_dead_uses_are_bugs),
        TEST(long_chains_need_no_deep_stack),
        TEST(clones_are_equal_and_independent),
        TEST(types_know_their_limits),
        TEST(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
