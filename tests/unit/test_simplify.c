/* SPDX-License-Identifier: GPL-3.0-or-later
 * simplify: every rule fires where it should and not where it should not, and
 * never changes what a graph computes.
 */
#include "ir/elements.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"

#include <math.h>
#include <setjmp.h>
#include <cmocka.h>

#define MAX_IO 8
#define TOLERANCE 1e-4f

struct fixture {
    struct mpqc_cx cx;
    struct mpqc_graph before, after;
    struct mpqc_options o;
    struct mpqc_pass_cx p;
};

static void start(struct fixture *f)
{
    mpqc_cx_init(&f->cx, NULL);
    mpqc_graph_init(&f->before, NULL);
    mpqc_graph_init(&f->after, NULL);
    mpqc_options_init(&f->o);
    mpqc_pass_cx_init(&f->p, &f->cx, &f->o);
}

static void stop(struct fixture *f)
{
    mpqc_pass_cx_release(&f->p);
    mpqc_graph_release(&f->before);
    mpqc_graph_release(&f->after);
    mpqc_cx_release(&f->cx);
}

static void print_diags(const struct fixture *f)
{
    for (uint32_t i = 0; i < f->cx.n_diags; i++) mpqc_diag_print(&f->cx.diags[i], stderr);
}

static void must(const struct fixture *f, mpqc_status status)
{
    if (status != MPQC_OK) print_diags(f);
    assert_int_equal(status, MPQC_OK);
}

static char *text_of(const struct mpqc_graph *g)
{
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    mpqc_graph_print(g, &b, true);
    assert_false(b.failed);
    return b.data;
}

/* `before` is there; makes `after`. */
static void simplify(struct fixture *f)
{
    struct mpqc_arena scratch;
    mpqc_arena_init(&scratch, NULL);
    for (mpqc_nid i = 0; i < f->before.n_nodes; i++)
        if (!f->before.nodes[i].loc.node)
            f->before.nodes[i].loc = (struct mpqc_loc){"node", "Op", -1};
    must(f, mpqc_graph_normalise(&f->cx, &f->before));
    must(f, mpqc_graph_clone(&f->cx, &f->before, &f->after, &scratch, NULL));
    mpqc_arena_release(&scratch);
    must(f, mpqc_pass_simplify(&f->p, &f->after));
    mpqc_arena_reset(&f->p.scratch);
    must(f, mpqc_verify(&f->cx, &f->after, MPQC_VERIFY_FLOAT));
}

/* ---- the same function ---- */

static void run(struct fixture *f, const struct mpqc_graph *g, void *const *in, void **out)
{
    struct mpqc_runner *r;
    const void *inputs[MAX_IO];
    assert_true(g->n_inputs <= MAX_IO && g->n_outputs <= MAX_IO);
    for (uint32_t i = 0; i < g->n_inputs; i++) inputs[i] = in[i];
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        size_t bytes = mpqc_type_bytes(&g->values[g->outputs[i]].type);
        out[i] = malloc(bytes + 1);
        assert_non_null(out[i]);
    }
    must(f, mpqc_interpreter.prepare(&f->cx, g, &r));
    must(f, mpqc_interpreter.run(r, inputs, out, NULL, NULL));
    mpqc_interpreter.release(r);
}

static bool close_enough(float a, float b, float scale)
{
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
    return a == b || fabsf(a - b) <= TOLERANCE * (scale > 1e-3f ? scale : 1e-3f);
}

/* Differences count relative to the largest element. */
static bool same_tensor(const struct mpqc_type *t, const void *a, const void *b)
{
    int64_t n = mpqc_type_count(t);
    if (t->dtype != MPQC_DT_F32) return memcmp(a, b, mpqc_type_bytes(t)) == 0;
    const float *x = a, *y = b;
    float scale = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i])) scale = fmaxf(scale, fabsf(x[i]));
    for (int64_t i = 0; i < n; i++)
        if (!close_enough(x[i], y[i], scale)) return false;
    return true;
}

/* False when the two graphs differ for some input. */
static bool same_function(struct fixture *f, uint64_t seed)
{
    const struct mpqc_graph *g = &f->before;
    void *in[MAX_IO], *out[MAX_IO], *out2[MAX_IO];
    bool same = true;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const struct mpqc_type *t = &g->values[g->inputs[i]].type;
        in[i] = malloc(mpqc_type_bytes(t) + 1);
        assert_non_null(in[i]);
        mpqc_elements_random(t->dtype, in[i], mpqc_type_count(t), seed * 77 + i);
    }
    run(f, g, in, out);
    run(f, &f->after, in, out2);
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        const struct mpqc_value *v = &g->values[g->outputs[i]];
        const struct mpqc_value *w = &f->after.values[f->after.outputs[i]];
        assert_true(mpqc_type_equal(&v->type, &w->type));
        if (v->name) assert_string_equal(v->name, w->name);
        same &= same_tensor(&v->type, out[i], out2[i]);
        free(out[i]);
        free(out2[i]);
    }
    for (uint32_t i = 0; i < g->n_inputs; i++) free(in[i]);
    return same;
}

/* Simplifying once more changes nothing. */
static void is_fixed_point(struct fixture *f)
{
    char *once = text_of(&f->after);
    must(f, mpqc_pass_simplify(&f->p, &f->after));
    char *twice = text_of(&f->after);
    assert_string_equal(once, twice);
    free(once);
    free(twice);
}

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
    if (!right) print_error("%s:\n  expected %s\n  got      %s\n", c->name, c->ops, ops.data);
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

/* ---- random graphs ---- */

#define RANDOM_GRAPHS 400
#define RANDOM_NODES 14

struct maker {
    struct fixture *f;
    struct mpqc_graph *g;
    uint64_t state;
    mpqc_vid pool[64]; /* values made so far */
    uint32_t n;
};

static uint32_t pick(struct maker *m, uint32_t below)
{
    m->state = m->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(m->state >> 33) % below;
}

static mpqc_vid any_value(struct maker *m)
{
    /* Mostly recent ones, so that graphs grow deep. */
    uint32_t recent = m->n < 4 ? m->n : 4;
    return pick(m, 3) ? m->pool[m->n - 1 - pick(m, recent)] : m->pool[pick(m, m->n)];
}

static const struct mpqc_type *type_of(const struct maker *m, mpqc_vid v)
{
    return &m->g->values[v].type;
}

static mpqc_vid random_const(struct maker *m, uint32_t rank, const int64_t *dims)
{
    float data[1024];
    struct mpqc_type t = mpqc_type_make(MPQC_DT_F32, rank, dims);
    assert_true(mpqc_type_count(&t) <= 1024);
    mpqc_elements_random(MPQC_DT_F32, data, mpqc_type_count(&t), pick(m, 1000));
    return mpqc_graph_const_f32(m->g, rank, dims, data);
}

static void add(struct maker *m, enum mpqc_op op, const mpqc_vid *in, uint32_t n_in,
                const struct mpqc_attrs *a)
{
    static const struct mpqc_attrs none;
    mpqc_vid out;
    struct mpqc_loc loc = {"random", "Op", -1};
    must(m->f, mpqc_node_add(&m->f->cx, m->g, op, in, n_in, a ? a : &none, loc, &out));
    if (mpqc_type_count(type_of(m, out)) <= 4096 && m->n < MPQC_LEN(m->pool))
        m->pool[m->n++] = out;
}

static void add_unary(struct maker *m)
{
    static const enum mpqc_op ops[] = {MPQC_OP_RELU, MPQC_OP_SIGMOID, MPQC_OP_TANH, MPQC_OP_ABS,
                                       MPQC_OP_NEG,  MPQC_OP_COPY,    MPQC_OP_ELU};
    mpqc_vid x = any_value(m);
    add(m, ops[pick(m, MPQC_LEN(ops))], &x, 1, NULL);
}

static void add_clip(struct maker *m)
{
    struct mpqc_attrs a = {0};
    mpqc_vid x = any_value(m);
    if (pick(m, 2)) mpqc_attrs_float(&a, MPQC_ATTR_MIN, (float)pick(m, 3) / 4 - 0.5f);
    if (pick(m, 2)) mpqc_attrs_float(&a, MPQC_ATTR_MAX, (float)pick(m, 3) / 4);
    add(m, MPQC_OP_CLIP, &x, 1, &a);
}

/* With a constant of a shape that broadcasts, on either side. */
static void add_binary_const(struct maker *m)
{
    static const enum mpqc_op ops[] = {MPQC_OP_ADD, MPQC_OP_MUL, MPQC_OP_SUB, MPQC_OP_MAX,
                                       MPQC_OP_MUL, MPQC_OP_ADD};
    mpqc_vid x = any_value(m), in[2];
    struct mpqc_type t = *type_of(m, x);
    uint32_t rank = pick(m, 2) ? t.rank : pick(m, t.rank + 1);
    int64_t dims[MPQC_MAX_RANK], count = 1;
    for (uint32_t i = 0; i < rank; i++) {
        dims[i] = pick(m, 2) ? t.dims[t.rank - rank + i] : 1;
        count *= dims[i];
    }
    if (count > 1024) return;
    uint32_t side = pick(m, 4) == 0;
    in[side] = x;
    in[1 - side] = random_const(m, rank, dims);
    add(m, ops[pick(m, MPQC_LEN(ops))], in, 2, NULL);
}

/* Of two values that broadcast, if two are found. */
static void add_binary(struct maker *m)
{
    static const enum mpqc_op ops[] = {MPQC_OP_ADD, MPQC_OP_MUL, MPQC_OP_MIN, MPQC_OP_SUB};
    for (int i = 0; i < 20; i++) {
        mpqc_vid in[2] = {any_value(m), any_value(m)};
        const struct mpqc_type *a = type_of(m, in[0]), *b = type_of(m, in[1]);
        bool fits = true;
        for (uint32_t k = 1; k <= a->rank && k <= b->rank; k++) {
            int64_t x = a->dims[a->rank - k], y = b->dims[b->rank - k];
            fits &= x == y || x == 1 || y == 1;
        }
        if (!fits) continue;
        add(m, ops[pick(m, MPQC_LEN(ops))], in, 2, NULL);
        return;
    }
}

static void add_transpose(struct maker *m)
{
    static const int64_t usual[2][4] = {{0, 3, 1, 2}, {0, 2, 3, 1}};
    struct mpqc_attrs a = {0};
    mpqc_vid x = any_value(m);
    uint32_t rank = type_of(m, x)->rank;
    int64_t perm[MPQC_MAX_RANK];
    for (uint32_t i = 0; i < rank; i++) {
        uint32_t k = pick(m, i + 1);
        perm[i] = perm[k];
        perm[k] = i;
    }
    if (rank == 4 && pick(m, 4)) memcpy(perm, usual[pick(m, 2)], sizeof usual[0]);
    mpqc_attrs_ints(&a, MPQC_ATTR_PERM, rank, perm);
    add(m, MPQC_OP_TRANSPOSE, &x, 1, &a);
}

/* Splits or joins axes, or adds and takes extents of one. */
static void add_reshape(struct maker *m)
{
    struct mpqc_attrs a = {0};
    mpqc_vid x = any_value(m);
    const struct mpqc_type *t = type_of(m, x);
    int64_t dims[2 * MPQC_MAX_RANK + 2];
    uint32_t rank = 0, how = pick(m, 3);
    for (uint32_t i = 0; i < t->rank; i++) {
        if (how == 0 && t->dims[i] % 2 == 0 && t->dims[i] > 2 && t->rank < 6) {
            dims[rank++] = 2;
            dims[rank++] = t->dims[i] / 2;
            how = 3;
        } else if (how == 1 && rank && pick(m, 2)) {
            dims[rank - 1] *= t->dims[i];
        } else if (how != 2 || t->dims[i] != 1) {
            dims[rank++] = t->dims[i];
        }
    }
    if (rank < 4 && pick(m, 2)) dims[rank++] = 1;
    if (rank > 6) return;
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, rank, dims);
    add(m, MPQC_OP_RESHAPE, &x, 1, &a);
}

static void add_conv(struct maker *m)
{
    mpqc_vid x = any_value(m), in[3];
    const struct mpqc_type *t = type_of(m, x);
    int64_t k = 1 + pick(m, 2), pads[4] = {pick(m, 2), pick(m, 2), pick(m, 2), pick(m, 2)};
    struct mpqc_attrs a = {0};
    if (t->rank != 4 || t->dims[1] < k || t->dims[2] < k) return;
    int64_t c = t->dims[3], groups = pick(m, 3) == 0 ? c : 1;
    int64_t oc = groups > 1 ? c : 1 + pick(m, 4), w[4] = {k, k, c / groups, oc};
    in[0] = x;
    in[1] = random_const(m, 4, w);
    in[2] = random_const(m, 1, &oc);
    if (pick(m, 2)) mpqc_attrs_ints(&a, MPQC_ATTR_PADS, 4, pads);
    mpqc_attrs_int(&a, MPQC_ATTR_GROUP, groups);
    add(m, MPQC_OP_CONV, in, 2 + pick(m, 2), &a);
}

static void add_matmul(struct maker *m)
{
    mpqc_vid in[2] = {any_value(m)};
    const struct mpqc_type *t = type_of(m, in[0]);
    if (t->rank < 2 || t->dims[t->rank - 1] > 200) return;
    int64_t w[2] = {t->dims[t->rank - 1], 1 + pick(m, 5)};
    in[1] = random_const(m, 2, w);
    add(m, MPQC_OP_MATMUL, in, 2, NULL);
}

static void add_batchnorm(struct maker *m)
{
    mpqc_vid in[5] = {any_value(m)};
    const struct mpqc_type *t = type_of(m, in[0]);
    float var[256];
    if (t->rank < 1) return;
    int64_t c = t->dims[t->rank - 1];
    if (c > 256) return;
    for (int64_t i = 0; i < c; i++) var[i] = 0.5f + (float)pick(m, 8) / 4;
    for (int i = 1; i < 4; i++) in[i] = random_const(m, 1, &c);
    in[4] = mpqc_graph_const_f32(m->g, 1, &c, var);
    add(m, MPQC_OP_BATCHNORM, in, 5, NULL);
}

static void add_pool(struct maker *m)
{
    mpqc_vid x = any_value(m);
    const struct mpqc_type *t = type_of(m, x);
    struct mpqc_attrs a = {0};
    if (t->rank != 4 || t->dims[1] < 2 || t->dims[2] < 2) return;
    int64_t full[2] = {t->dims[1], t->dims[2]}, two[2] = {2, 2}, pads[4] = {1, 0, 0, 1};
    mpqc_attrs_ints(&a, MPQC_ATTR_KERNEL, 2, pick(m, 3) ? two : full);
    if (pick(m, 2)) mpqc_attrs_ints(&a, MPQC_ATTR_PADS, 4, pads);
    if (pick(m, 2)) mpqc_attrs_ints(&a, MPQC_ATTR_STRIDES, 2, two);
    add(m, pick(m, 2) ? MPQC_OP_MAXPOOL : MPQC_OP_AVGPOOL, &x, 1, &a);
}

static void add_reduce(struct maker *m)
{
    static const enum mpqc_op ops[] = {MPQC_OP_REDUCE_MEAN, MPQC_OP_REDUCE_MAX,
                                       MPQC_OP_REDUCE_SUM};
    mpqc_vid x = any_value(m);
    int64_t axes[MPQC_MAX_RANK];
    uint32_t n = 0, rank = type_of(m, x)->rank;
    struct mpqc_attrs a = {0};
    for (uint32_t i = 0; i < rank; i++)
        if (pick(m, 2)) axes[n++] = i;
    if (n == 0) return;
    mpqc_attrs_ints(&a, MPQC_ATTR_AXES, n, axes);
    add(m, ops[pick(m, MPQC_LEN(ops))], &x, 1, &a);
}

static void add_slice(struct maker *m)
{
    mpqc_vid x = any_value(m);
    const struct mpqc_type *t = type_of(m, x);
    int64_t begin[MPQC_MAX_RANK], shape[MPQC_MAX_RANK], step[MPQC_MAX_RANK];
    struct mpqc_attrs a = {0};
    for (uint32_t i = 0; i < t->rank; i++) {
        begin[i] = pick(m, 3) ? 0 : pick(m, (uint32_t)t->dims[i]);
        step[i] = pick(m, 4) ? 1 : 2;
        shape[i] = (t->dims[i] - begin[i] + step[i] - 1) / step[i];
    }
    mpqc_attrs_ints(&a, MPQC_ATTR_BEGIN, t->rank, begin);
    mpqc_attrs_ints(&a, MPQC_ATTR_SHAPE, t->rank, shape);
    mpqc_attrs_ints(&a, MPQC_ATTR_STEP, t->rank, step);
    add(m, MPQC_OP_SLICE, &x, 1, &a);
}

static void add_pad(struct maker *m)
{
    mpqc_vid x = any_value(m);
    uint32_t rank = type_of(m, x)->rank;
    int64_t pads[2 * MPQC_MAX_RANK];
    struct mpqc_attrs a = {0};
    for (uint32_t i = 0; i < 2 * rank; i++) pads[i] = pick(m, 3) == 0;
    if (rank == 4 && pick(m, 2)) pads[0] = pads[3] = pads[4] = pads[7] = 0;
    mpqc_attrs_ints(&a, MPQC_ATTR_PADS, 2 * rank, pads);
    add(m, MPQC_OP_PAD, &x, 1, &a);
}

static void add_concat(struct maker *m)
{
    mpqc_vid x = any_value(m), in[3];
    struct mpqc_type t = *type_of(m, x);
    struct mpqc_attrs a = {0};
    if (t.rank == 0) return;
    uint32_t axis = pick(m, t.rank), n = 1;
    in[0] = x;
    for (int tries = 0; tries < 10 && n < 3; tries++) {
        mpqc_vid y = any_value(m);
        const struct mpqc_type *u = type_of(m, y);
        bool fits = u->rank == t.rank;
        for (uint32_t i = 0; fits && i < t.rank; i++) fits = i == axis || u->dims[i] == t.dims[i];
        if (fits) in[n++] = y;
    }
    mpqc_attrs_int(&a, MPQC_ATTR_AXIS, axis);
    add(m, MPQC_OP_CONCAT, in, n, &a);
}

static void add_softmax(struct maker *m)
{
    mpqc_vid x = any_value(m);
    struct mpqc_attrs a = {0};
    if (type_of(m, x)->rank == 0) return;
    mpqc_attrs_int(&a, MPQC_ATTR_AXIS, pick(m, type_of(m, x)->rank));
    add(m, MPQC_OP_SOFTMAX, &x, 1, &a);
}

static void add_some(struct maker *m)
{
    static void (*const makers[])(struct maker *) = {
        add_unary,   add_unary,  add_clip,      add_binary_const, add_binary_const, add_binary,
        add_binary,  add_conv,   add_transpose, add_transpose,    add_transpose,    add_transpose,
        add_reshape, add_reshape, add_matmul,   add_batchnorm,    add_pool,         add_reduce,
        add_slice,   add_pad,    add_concat,    add_concat,       add_softmax,      add_conv};
    makers[pick(m, MPQC_LEN(makers))](m);
}

static void random_graph(struct fixture *f, uint64_t seed)
{
    static const int64_t shapes[4][4] = {{1, 4, 4, 3}, {2, 3, 4, 2}, {1, 3, 5, 4}, {1, 2, 2, 6}};
    struct maker m = {.f = f, .g = &f->before, .state = seed * 2654435761u + 12345};
    uint32_t inputs = 1 + pick(&m, 2);
    const int64_t *dims = shapes[pick(&m, 4)];
    for (uint32_t i = 0; i < inputs; i++)
        m.pool[m.n++] = mpqc_graph_input(m.g, i ? "b" : "a", mpqc_type_make(MPQC_DT_F32, 4, dims));
    while (m.n < RANDOM_NODES) add_some(&m);
    mpqc_graph_output(m.g, m.pool[m.n - 1]);
    mpqc_graph_output(m.g, any_value(&m));
}

static void random_graphs_keep_their_meaning(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < RANDOM_GRAPHS; seed++) {
        struct fixture f;
        start(&f);
        random_graph(&f, seed);
        simplify(&f);
        if (f.cx.n_diags) print_diags(&f); /* it must end within its sweeps */
        assert_int_equal(f.cx.n_diags, 0);
        if (!same_function(&f, seed + 1)) {
            char *before = text_of(&f.before), *after = text_of(&f.after);
            fail_msg("seed %d:\n%s\n%s", (int)seed, before, after);
        }
        is_fixed_point(&f);
        stop(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_fire_where_they_should),
        cmocka_unit_test(outputs_keep_their_names),
        cmocka_unit_test(every_value_has_a_name_of_its_own),
        cmocka_unit_test(order_does_not_depend_on_the_file),
        cmocka_unit_test(random_graphs_keep_their_meaning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
