/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One layer as a float graph, then mpqc's passes with made-up ranges, then a library.
 */
#include "tests/bench/kernels/bench.h"

#include "passes/pass.h"

#include <stdlib.h>
#include <string.h>

const struct bench_shape bench_shapes[] = {
#define S(network, layer, kind, c, h, w, oc, k, s, g, add)                                        \
    {network, layer, kind, c, h, w, oc, k, s, g, add},
#include "tests/bench/kernels/shapes.def"
#undef S
};
const size_t bench_n_shapes = MPQC_LEN(bench_shapes);

const char *bench_template(const struct bench_shape *s)
{
    switch (s->kind) {
    case CONV:
        if (s->g > 1) return s->g == s->c ? "depthwise" : "gemm, groups";
        return s->c < 4 ? "gemm, first" : s->k == 1 ? "gemm 1x1" : "gemm kxk";
    case DENSE: return "gemm, one row";
    case MAXPOOL: return "maxpool";
    case MEAN: return "reduce";
    case SCALE: return "mul";
    default: return "pointwise";
    }
}

struct maker {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_options options;
    struct mpqc_pass_cx passes;
    uint32_t seed;
};

static void expect(struct maker *m, mpqc_status status, const struct bench_case *c)
{
    if (status == MPQC_OK) return;
    for (uint32_t i = 0; i < m->cx.n_diags; i++) mpqc_diag_print(&m->cx.diags[i], stderr);
    bench_die("%s %s for %s", c->shape->network, c->shape->layer, c->target->name);
}

/* ---- the float graph ---- */

/* About normal, by the sum of four. */
static float next_weight(struct maker *m, float scale)
{
    int32_t sum = 0;
    for (int i = 0; i < 4; i++) {
        m->seed = m->seed * 1664525u + 1013904223u;
        sum += (int32_t)(m->seed >> 16) - 32768;
    }
    return (float)sum / 65536.0f * scale;
}

static mpqc_vid add_const(struct maker *m, uint32_t rank, const int64_t *dims, float scale)
{
    struct mpqc_type t = mpqc_type_make(MPQC_DT_F32, rank, dims);
    int64_t n = mpqc_type_count(&t);
    float *v = malloc((size_t)n * sizeof *v);
    if (!v) bench_die("out of memory");
    for (int64_t i = 0; i < n; i++) v[i] = next_weight(m, scale);
    mpqc_vid id = mpqc_graph_const_f32(&m->g, rank, dims, v);
    free(v);
    return id;
}

static mpqc_vid add_input(struct maker *m, const char *name, int64_t h, int64_t w, int64_t c)
{
    const int64_t dims[] = {1, h, w, c};
    return mpqc_graph_input(&m->g, name, mpqc_type_make(MPQC_DT_F32, 4, dims));
}

static mpqc_vid add_node(struct maker *m, const struct bench_case *c, enum mpqc_op op,
                         const mpqc_vid *in, uint32_t n, const struct mpqc_attrs *a)
{
    static const struct mpqc_attrs none;
    const struct mpqc_loc loc = {.node = "layer", .op = "Layer", .offset = -1};
    mpqc_vid out = MPQC_NONE;
    expect(m, mpqc_node_add(&m->cx, &m->g, op, in, n, a ? a : &none, loc, &out), c);
    return out;
}

/* A list of attributes points to its numbers. */
struct window {
    int64_t pads[4], strides[2], dilations[2];
};

static void add_window(const struct bench_shape *s, struct window *w, struct mpqc_attrs *a)
{
    int64_t pad = s->k / 2;
    *w = (struct window){{pad, pad, pad, pad}, {s->s, s->s}, {1, 1}};
    mpqc_attrs_ints(a, MPQC_ATTR_STRIDES, 2, w->strides);
    mpqc_attrs_ints(a, MPQC_ATTR_DILATIONS, 2, w->dilations);
    mpqc_attrs_ints(a, MPQC_ATTR_PADS, 4, w->pads);
}

static mpqc_vid add_conv(struct maker *m, const struct bench_case *c, mpqc_vid x)
{
    const struct bench_shape *s = c->shape;
    const int64_t w[] = {s->k, s->k, s->c / s->g, s->oc};
    struct mpqc_attrs a = {0};
    struct window around;
    add_window(s, &around, &a);
    mpqc_attrs_int(&a, MPQC_ATTR_GROUP, s->g);
    float scale = 4.0f / (float)(s->k * s->k * s->c / s->g);
    const mpqc_vid in[] = {x, add_const(m, 4, w, scale), add_const(m, 1, &s->oc, 0.5f)};
    mpqc_vid y = add_node(m, c, MPQC_OP_CONV, in, 3, &a);
    if (s->add) {
        const struct mpqc_type *t = &mpqc_value_at(&m->g, y)->type;
        mpqc_vid both[] = {y, add_input(m, "residual", t->dims[1], t->dims[2], t->dims[3])};
        y = add_node(m, c, MPQC_OP_ADD, both, 2, NULL);
    }
    return add_node(m, c, MPQC_OP_RELU, &y, 1, NULL);
}

static mpqc_vid add_layer(struct maker *m, const struct bench_case *c, mpqc_vid x)
{
    const struct bench_shape *s = c->shape;
    struct mpqc_attrs a = {0};
    const int64_t w[] = {s->c, s->oc}, kernel[] = {s->k, s->k}, axes[] = {1, 2};
    mpqc_vid in[3] = {x, MPQC_NONE, MPQC_NONE};
    struct window around;
    switch (s->kind) {
    case CONV: return add_conv(m, c, x);
    case DENSE:
        in[1] = add_const(m, 2, w, 4.0f / (float)s->c);
        in[2] = add_const(m, 1, &s->oc, 0.5f);
        return add_node(m, c, MPQC_OP_MATMUL, in, 3, NULL);
    case MAXPOOL:
        add_window(s, &around, &a);
        mpqc_attrs_ints(&a, MPQC_ATTR_KERNEL, 2, kernel);
        return add_node(m, c, MPQC_OP_MAXPOOL, in, 1, &a);
    case MEAN:
        mpqc_attrs_ints(&a, MPQC_ATTR_AXES, 2, axes);
        return add_node(m, c, MPQC_OP_REDUCE_MEAN, in, 1, &a);
    case ADD:
        in[1] = add_input(m, "residual", s->h, s->w, s->c);
        return add_node(m, c, MPQC_OP_ADD, in, 2, NULL);
    case SCALE:
        in[1] = add_input(m, "factor", 1, 1, s->c);
        return add_node(m, c, MPQC_OP_MUL, in, 2, NULL);
    default: return add_node(m, c, MPQC_OP_HARDSWISH, in, 1, NULL);
    }
}

/* ---- passes ---- */

/* Every activation lies between -4 and 4. */
static void make_up_profile(struct maker *m)
{
    struct mpqc_arena *keep = &m->passes.keep;
    struct mpqc_profile *p = MPQC_NEW(keep, struct mpqc_profile);
    uint64_t *bins = MPQC_NEW_ARRAY(keep, uint64_t, MPQC_HIST_BINS);
    if (!p || !bins) bench_die("out of memory");
    p->n_values = m->g.n_values;
    p->samples = 1;
    p->hist = MPQC_NEW_ARRAY(keep, struct mpqc_histogram, p->n_values);
    if (!p->hist) bench_die("out of memory");
    for (uint32_t b = 0; b < MPQC_HIST_BINS; b++) bins[b] = 1;
    for (mpqc_vid v = 0; v < p->n_values; v++)
        if (mpqc_value_at(&m->g, v)->type.dtype == MPQC_DT_F32 && !mpqc_is_const(&m->g, v))
            p->hist[v] = (struct mpqc_histogram){
                .min = -4, .max = 4, .count = MPQC_HIST_BINS, .exp = -9, .bins = bins};
    m->passes.profile = p;
}

static void run_passes(struct maker *m, const struct bench_case *c)
{
    static const char *const before[] = {"simplify"};
    static const char *const after[] = {"quantise", "fuse", "plan"};
    bool stopped;
    mpqc_options_init(&m->options);
    m->options.weight_bits = c->bits;
    m->options.activation_bits = c->activation_bits;
    m->options.rounding = MPQC_ROUND_NEAREST; /* times do not depend on it */
    m->options.weight_clip = MPQC_CLIP_MINMAX;
    m->options.bias_correct = false;
    mpqc_pass_cx_init(&m->passes, &m->cx, &m->options);
    m->passes.engine = &mpqc_interpreter;
    expect(m, mpqc_pipeline_run(&m->passes, &m->g, before, 1, &stopped), c);
    make_up_profile(m);
    expect(m, mpqc_pipeline_run(&m->passes, &m->g, after, MPQC_LEN(after), &stopped), c);
}

/* ---- code ---- */

static uint32_t wish(const void *user, uint64_t shape)
{
    (void)shape;
    return *(const uint32_t *)user;
}

/* Other kernels only bring values of the layer into place. */
static uint32_t find_layer(const struct maker *m)
{
    const struct mpqc_plan *plan = m->passes.plan;
    uint32_t found = 0;
    uint64_t most = 0;
    for (uint32_t k = 0; k < plan->n_kernels; k++) {
        const struct mpqc_node *core = mpqc_node_at(&m->g, plan->kernels[k].core);
        if (!core->loc.node || strcmp(core->loc.node, "layer") != 0) continue;
        uint64_t macs = mpqc_ops[core->op].macs(&m->g, core);
        uint64_t bytes = mpqc_type_bytes(&mpqc_value_at(&m->g, core->in[0])->type);
        if ((macs << 20) + bytes < most) continue;
        most = (macs << 20) + bytes;
        found = k;
    }
    return found;
}

static void emit(struct maker *m, struct bench_case *c)
{
    struct mpqc_codegen_facts facts;
    const struct mpqc_preprocess none[4] = {{.channels = 0}};
    uint32_t n = m->passes.plan->n_kernels;
    struct mpqc_tile_facts *tiles = MPQC_NEW_ARRAY(&m->passes.keep, struct mpqc_tile_facts, n);
    if (!tiles) bench_die("out of memory");
    const struct mpqc_tile_request rq_tiles = {.wish = wish, .user = &c->wish, .rank = c->rank,
                                                .facts = tiles};
    const struct mpqc_codegen_request rq = {.graph = &m->g,
                                            .plan = m->passes.plan,
                                            .target = c->target,
                                            .preprocess = none,
                                            .emit = MPQC_EMIT_SO,
                                            .path = c->path,
                                            .tiles = &rq_tiles};
    expect(m, mpqc_codegen_emit(&m->cx, &rq, &facts), c);
    c->layer = find_layer(m);
    c->tile = tiles[c->layer];
}

void bench_make(struct bench_case *c)
{
    struct maker m = {.seed = 1};
    const struct bench_shape *s = c->shape;
    mpqc_cx_init(&m.cx, NULL);
    mpqc_graph_init(&m.g, NULL);
    mpqc_graph_output(&m.g, add_layer(&m, c, add_input(&m, "input", s->h, s->w, s->c)));
    expect(&m, mpqc_graph_normalise(&m.cx, &m.g), c);
    run_passes(&m, c);
    emit(&m, c);
    mpqc_pass_cx_release(&m.passes);
    mpqc_graph_release(&m.g);
    mpqc_cx_release(&m.cx);
}
