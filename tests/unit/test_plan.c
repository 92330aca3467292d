/* SPDX-License-Identifier: GPL-3.0-or-later
 * plan: memory is never clobbered, halos hold zero points, and a run through the
 * places gives the bytes of the interpreter.
 */
#include "quant_rig.h"

#include "passes/plan.h"

#define NOBODY UINT32_MAX

/* A run of kernels through one poisoned arena.  `owner` says for every byte of the
 * arena which value was written there last. */
struct replay {
    struct qrig *r;
    const struct mpqc_plan *plan;
    uint8_t *arena;
    uint32_t *owner;
    void **in;
    void **out;
    void **dense; /* by value: its elements, once computed */
};

static uint8_t *address(const struct replay *y, mpqc_vid v)
{
    const struct mpqc_place *p = &y->plan->place[v];
    switch (p->space) {
    case MPQC_SPACE_ARENA: return y->arena + p->offset;
    case MPQC_SPACE_OUTPUT: return (uint8_t *)y->out[p->index] + p->offset;
    default: return NULL;
    }
}

/* Whether bytes of `v` may have been written as `w`: w is v, or they are views of each
 * other through nodes that are no kernel. */
static bool views(const struct mpqc_graph *g, mpqc_vid v, mpqc_vid w)
{
    if (v == w) return true;
    const struct mpqc_node *def = mpqc_def(g, v);
    if (!def || def->kernel != MPQC_NONE) return false;
    for (uint32_t i = 0; i < def->n_in; i++)
        if (views(g, def->in[i], w)) return true;
    return false;
}

/* Calls f for every element, with its byte offset from the first. */
typedef void (*element_fn)(struct replay *y, mpqc_vid v, int64_t index, int64_t offset);

static void each_element(struct replay *y, mpqc_vid v, element_fn f)
{
    const struct mpqc_type *t = &y->r->g.values[v].type;
    const struct mpqc_place *p = &y->plan->place[v];
    int64_t at[MPQC_MAX_RANK] = {0};
    for (int64_t i = 0; i < mpqc_type_count(t); i++) {
        int64_t offset = 0;
        for (uint32_t d = 0; d < t->rank; d++) offset += at[d] * p->stride[d];
        f(y, v, i, offset * (int64_t)mpqc_dtypes[t->dtype].bytes);
        for (uint32_t d = t->rank; d-- > 0;) {
            if (++at[d] < t->dims[d]) break;
            at[d] = 0;
        }
    }
}

static void claim(struct replay *y, const uint8_t *at, size_t bytes, mpqc_vid v)
{
    if (y->plan->place[v].space != MPQC_SPACE_ARENA) return;
    size_t first = (size_t)(at - y->arena);
    assert_true(at >= y->arena + MPQC_ARENA_SLACK);
    assert_true(first + bytes + MPQC_ARENA_SLACK <= y->plan->arena_bytes);
    for (size_t i = 0; i < bytes; i++) y->owner[first + i] = v;
}

static void write_element(struct replay *y, mpqc_vid v, int64_t index, int64_t offset)
{
    size_t bytes = mpqc_dtypes[y->r->g.values[v].type.dtype].bytes;
    uint8_t *to = address(y, v) + offset;
    memcpy(to, (uint8_t *)y->dense[v] + (size_t)index * bytes, bytes);
    claim(y, to, bytes, v);
}

static void read_element(struct replay *y, mpqc_vid v, int64_t index, int64_t offset)
{
    size_t bytes = mpqc_dtypes[y->r->g.values[v].type.dtype].bytes;
    const uint8_t *from = address(y, v) + offset;
    memcpy((uint8_t *)y->dense[v] + (size_t)index * bytes, from, bytes);
    if (y->plan->place[v].space != MPQC_SPACE_ARENA) return;
    for (size_t i = 0; i < bytes; i++)
        assert_true(views(&y->r->g, v, y->owner[from - y->arena + (long)i]));
}

/* Every halo cell of v, in order of memory. */
static void each_halo_cell(struct replay *y, mpqc_vid v, bool write)
{
    const struct mpqc_place *p = &y->plan->place[v];
    const struct mpqc_type *t = &y->r->g.values[v].type;
    if (!p->halo[0] && !p->halo[1] && !p->halo[2] && !p->halo[3]) return;
    assert_true(p->space == MPQC_SPACE_ARENA && t->rank == 4 && t->quant);
    for (int64_t n = 0; n < t->dims[0]; n++)
        for (int64_t h = -p->halo[0]; h < t->dims[1] + p->halo[2]; h++)
            for (int64_t w = -p->halo[1]; w < t->dims[2] + p->halo[3]; w++) {
                if (h >= 0 && h < t->dims[1] && w >= 0 && w < t->dims[2]) continue;
                for (int64_t c = 0; c < t->dims[3]; c++) {
                    uint8_t *cell = address(y, v) + n * p->stride[0] + h * p->stride[1] +
                                    w * p->stride[2] + c;
                    if (write) {
                        *cell = (uint8_t)t->quant->zero[0];
                        claim(y, cell, 1, v);
                    } else {
                        assert_int_equal(*cell, t->quant->zero[0]);
                        assert_true(views(&y->r->g, v, y->owner[cell - y->arena]));
                    }
                }
            }
}

/* Padding of a window is covered by the halo of its input. */
static void check_padding(struct replay *y, const struct mpqc_node *n)
{
    if (n->op != MPQC_OP_CONV && n->op != MPQC_OP_SUMPOOL) return;
    const int64_t *pads = mpqc_attr_ints(n, MPQC_ATTR_PADS);
    for (int i = 0; pads && i < 4; i++)
        assert_true(y->plan->place[n->in[0]].halo[i] >= pads[i]);
    each_halo_cell(y, n->in[0], false);
}

/* Brings v to its dense form; constants and inputs are there already. */
static void fetch(struct replay *y, mpqc_vid v)
{
    const struct mpqc_place *p = &y->plan->place[v];
    if (p->space == MPQC_SPACE_NONE) assert_non_null(y->dense[v]);
    if (p->space != MPQC_SPACE_ARENA && p->space != MPQC_SPACE_OUTPUT) return;
    if (!y->dense[v]) y->dense[v] = malloc(mpqc_type_bytes(&y->r->g.values[v].type) + 1);
    assert_non_null(y->dense[v]);
    each_element(y, v, read_element);
}

static void run_node(struct replay *y, mpqc_nid id, const struct mpqc_kernel *k)
{
    const struct mpqc_graph *g = &y->r->g;
    const struct mpqc_node *n = &g->nodes[id];
    struct mpqc_tensor in[8], out;
    const struct mpqc_tensor *ins[8];
    struct mpqc_tensor *outs[1] = {&out};
    assert_true(n->n_in <= 8 && n->n_out == 1);
    for (uint32_t i = 0; i < n->n_in; i++) {
        bool inside = false;
        if (n->in[i] != MPQC_NONE)
            for (uint32_t j = 0; j < k->n_nodes; j++) inside |= g->values[n->in[i]].def == k->nodes[j];
        ins[i] = NULL;
        if (n->in[i] == MPQC_NONE) continue;
        if (!inside) fetch(y, n->in[i]);
        in[i] = (struct mpqc_tensor){g->values[n->in[i]].type, y->dense[n->in[i]]};
        ins[i] = &in[i];
    }
    check_padding(y, n);
    mpqc_vid v = n->out[0];
    y->dense[v] = malloc(mpqc_type_bytes(&g->values[v].type) + 1);
    assert_non_null(y->dense[v]);
    out = (struct mpqc_tensor){g->values[v].type, y->dense[v]};
    mpqc_ops[n->op].ref(n, ins, outs);
    assert_true((y->plan->place[v].space != MPQC_SPACE_NONE) == (v == k->out));
}

static void replay(struct replay *y)
{
    const struct mpqc_graph *g = &y->r->g;
    y->dense = calloc(g->n_values, sizeof *y->dense);
    y->arena = malloc(y->plan->arena_bytes);
    y->owner = malloc(y->plan->arena_bytes * sizeof *y->owner);
    assert_true(y->dense && y->arena && y->owner);
    memset(y->arena, 0xa5, y->plan->arena_bytes);
    for (uint64_t i = 0; i < y->plan->arena_bytes; i++) y->owner[i] = NOBODY;
    for (mpqc_vid v = 0; v < g->n_values; v++) {
        if (!g->values[v].data) continue;
        size_t bytes = mpqc_type_bytes(&g->values[v].type);
        y->dense[v] = malloc(bytes + 1);
        assert_non_null(y->dense[v]);
        memcpy(y->dense[v], g->values[v].data, bytes);
    }
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        size_t bytes = mpqc_type_bytes(&g->values[g->inputs[i]].type);
        y->dense[g->inputs[i]] = malloc(bytes);
        memcpy(y->dense[g->inputs[i]], y->in[i], bytes);
    }
    for (uint32_t k = 0; k < y->plan->n_kernels; k++) {
        const struct mpqc_kernel *kernel = &y->plan->kernels[k];
        for (uint32_t i = 0; i < kernel->n_nodes; i++) run_node(y, kernel->nodes[i], kernel);
        each_element(y, kernel->out, write_element);
        each_halo_cell(y, kernel->out, true);
    }
    for (mpqc_vid v = 0; v < g->n_values; v++) free(y->dense[v]);
    free(y->dense);
    free(y->arena);
    free(y->owner);
}

/* Both ways of running a planned graph give the same bytes. */
static void check_plan(struct qrig *r, const char *name)
{
    const struct mpqc_graph *g = &r->g;
    struct mpqc_runner *runner;
    void *in[4], *want[4], *got[4];
    uint32_t state = 77;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const struct mpqc_type *t = &g->values[g->inputs[i]].type;
        in[i] = malloc(mpqc_type_bytes(t));
        assert_non_null(in[i]);
        for (size_t k = 0; k < mpqc_type_bytes(t) / mpqc_dtypes[t->dtype].bytes; k++) {
            if (t->dtype == MPQC_DT_F32) ((float *)in[i])[k] = qrig_random(&state);
            else ((uint8_t *)in[i])[k] = (uint8_t)(128 + 127 * qrig_random(&state));
        }
    }
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        size_t bytes = mpqc_type_bytes(&g->values[g->outputs[i]].type);
        want[i] = malloc(bytes);
        got[i] = malloc(bytes);
        assert_true(want[i] && got[i]);
        memset(got[i], 0x5a, bytes);
    }
    assert_int_equal(mpqc_interpreter.prepare(&r->cx, g, &runner), MPQC_OK);
    assert_int_equal(mpqc_interpreter.run(runner, (const void *const *)in, want, NULL, NULL),
                     MPQC_OK);
    mpqc_interpreter.release(runner);
    struct replay y = {.r = r, .plan = r->p.plan, .in = in, .out = got};
    replay(&y);
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        size_t bytes = mpqc_type_bytes(&g->values[g->outputs[i]].type);
        if (memcmp(want[i], got[i], bytes)) fprintf(stderr, "%s: output %u differs\n", name, i);
        assert_memory_equal(want[i], got[i], bytes);
        free(want[i]);
        free(got[i]);
    }
    for (uint32_t i = 0; i < g->n_inputs; i++) free(in[i]);
}

static void plans_compute_what_graphs_mean(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * sizeof qcases / sizeof qcases[0]; i++) {
        struct qrig r;
        qrig_init(&r, qcases[i / 2].text);
        r.options.int_io = i % 2;
        qrig_run(&r, 4);
        check_plan(&r, qcases[i / 2].name);
        qrig_release(&r);
    }
}

static void kernels_are_as_many_as_expected(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof qcases / sizeof qcases[0]; i++) {
        struct qrig r;
        qrig_init(&r, qcases[i].text);
        qrig_run(&r, 4);
        if (r.p.plan->n_kernels != qcases[i].kernels) {
            struct mpqc_buf b;
            mpqc_buf_init(&b);
            mpqc_plan_print(&r.g, r.p.plan, &b);
            fprintf(stderr, "%s\n%s", qcases[i].name, b.data);
            mpqc_buf_release(&b);
        }
        assert_int_equal(r.p.plan->n_kernels, qcases[i].kernels);
        qrig_release(&r);
    }
}

/* ---- single properties ---- */

static const struct mpqc_place *place_of(const struct qrig *r, const char *name)
{
    for (mpqc_vid v = 0; v < r->g.n_values; v++)
        if (r->g.values[v].name && strcmp(r->g.values[v].name, name) == 0 && !r->g.values[v].data)
            return &r->p.plan->place[v];
    fail_msg("no value %s", name);
    return NULL;
}

/* The memory of values that never live together is shared: a chain of equal layers
 * needs room for two of them, the last of which is i16. */
static void a_chain_needs_two_buffers(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, "graph \"chain\" { input %0 : f32[1,16,16,8] const %1 : f32[1,1,8,8] = random 1 "
                  "%2 = conv %0, %1 @\"a\" \"Conv\" %3 = relu %2 @\"ar\" \"Relu\" "
                  "%4 = conv %3, %1 @\"b\" \"Conv\" %5 = relu %4 @\"br\" \"Relu\" "
                  "%6 = conv %5, %1 @\"c\" \"Conv\" %7 = relu %6 @\"cr\" \"Relu\" "
                  "%8 = conv %7, %1 @\"d\" \"Conv\" output %8 }");
    qrig_run(&r, 4);
    assert_int_equal(r.p.plan->arena_bytes, 2048 + 4096 + 2 * MPQC_ARENA_SLACK);
    qrig_release(&r);
}

/* A concat's parts are written where it lies, with its strides and its halo. */
static void parts_lie_in_their_concat(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, "graph \"parts\" { input %0 : f32[1,5,5,4] const %1 : f32[1,1,4,6] = random 1 "
                  "%2 = conv %0, %1 @\"a\" \"Conv\" %3 \"p\" = relu %2 @\"ar\" \"Relu\" "
                  "const %4 : f32[1,1,4,5] = random 2 %5 = conv %0, %4 @\"b\" \"Conv\" "
                  "%6 \"q\" = relu %5 @\"br\" \"Relu\" %7 \"cat\" = concat %3, %6 {axis=3} @\"c\" \"Concat\" "
                  "const %8 : f32[3,3,11,3] = random 3 "
                  "%9 = conv %7, %8 {pads=[1,1,1,1]} @\"d\" \"Conv\" output %9 }");
    qrig_run(&r, 4);
    const struct mpqc_place *p = place_of(&r, "p"), *q = place_of(&r, "q"), *c = place_of(&r, "cat");
    assert_int_equal(p->offset, c->offset);
    assert_int_equal(q->offset, c->offset + 6);
    assert_int_equal(c->stride[2], 11);
    assert_int_equal(c->stride[1], 7 * 11);
    assert_memory_equal(q->stride, c->stride, 4 * sizeof c->stride[0]);
    for (int i = 0; i < 4; i++) assert_true(c->halo[i] == 1 && p->halo[i] == 1 && q->halo[i] == 1);
    qrig_release(&r);
}

/* An elementwise kernel takes over the memory of an input that dies. */
static void tables_work_in_place(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, "graph \"place\" { input %0 : f32[1,4,4,4] "
                  "%1 \"a\" = maxpool %0 {kernel=[2,2]} @\"m\" \"MaxPool\" "
                  "%2 \"b\" = tanh %1 @\"t\" \"Tanh\" "
                  "%3 = maxpool %2 {kernel=[2,2]} @\"n\" \"MaxPool\" output %3 }");
    qrig_run(&r, 4);
    assert_int_equal(place_of(&r, "a")->space, MPQC_SPACE_ARENA);
    assert_int_equal(place_of(&r, "a")->offset, place_of(&r, "b")->offset);
    qrig_release(&r);
}

static void plan_needs_fuse(void **state)
{
    (void)state;
    struct qrig r;
    qrig_init(&r, qcases[0].text);
    qrig_run(&r, 2);
    for (uint32_t i = 0; i < r.g.n_order; i++) r.g.nodes[r.g.order[i]].kernel = MPQC_NONE;
    assert_int_equal(mpqc_pass_plan(&r.p, &r.g), MPQC_BUG);
    qrig_release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_compute_what_graphs_mean),
        cmocka_unit_test(kernels_are_as_many_as_expected),
        cmocka_unit_test(a_chain_needs_two_buffers),
        cmocka_unit_test(parts_lie_in_their_concat),
        cmocka_unit_test(tables_work_in_place),
        cmocka_unit_test(plan_needs_fuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
