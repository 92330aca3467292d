/* SPDX-License-Identifier: GPL-3.0-or-later
 * simplify on random graphs: the same function, and done after one time.
 */
#include "simplify_fixture.h"

#define RANDOM_GRAPHS 400
#define RANDOM_NODES 32

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
    mpqc_graph_output(m.g, m.pool[m.n / 2]);
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
        cmocka_unit_test(random_graphs_keep_their_meaning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
