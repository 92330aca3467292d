/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Small integer graphs around one linear kernel, planned by hand, from a row of a table.
 */
#ifndef MPQC_TESTS_LINEAR_GRAPH_H
#define MPQC_TESTS_LINEAR_GRAPH_H

#include "ir/ir.h"
#include "ir/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum core { CONV, MATMUL, SUMPOOL, REDUCE, MUL };
enum residual { NO_RESIDUAL, RESIDUAL_INPUT, RESIDUAL_IN_PLACE };
enum factor { PER_TENSOR, PER_CHANNEL, SAME_SHIFT, PER_POSITION };

struct test_case {
    enum core core;
    int64_t x[4]; /* N, H, W, C; matrix product: M = N * H * W rows */
    int64_t kh, kw, oc, pad;
    int64_t group, stride, dilation; /* 0 means 1 */
    enum factor factor;
    enum residual residual;
    int frac; /* -1: the kernel ends in 16 bits */
    bool relu, lut, i8;
    bool then; /* a 3x3 convolution follows, which reads the halo of the result */
    unsigned bits; /* of weights; 0 means 8 */
    unsigned xbits; /* of the input; 0 means 8 */
    unsigned m, nv; /* positions and vectors of a bit-serial tile; 0: the cost model's choice */
    unsigned rank; /* of the tile, by the cost model */
    bool x16, r16, y16; /* input, residual, result are i16 */
    int64_t by; /* rows of a group of weights; 0: no groups */
    bool from_input; /* reads the caller's buffer, not the arena */
    int64_t gap; /* extra channels between pixels of the arena's tensors */
    int64_t axes[4];
    int n_axes;
};

/* ---- a graph and its plan ----------------------------------------------------------- */

struct fixture {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_plan plan;
    struct mpqc_place place[64];
    struct mpqc_kernel kernel[8];
    mpqc_nid nodes[8][8];
    uint32_t seed;
};

static inline uint32_t next_random(struct fixture *f)
{
    f->seed ^= f->seed << 13;
    f->seed ^= f->seed >> 17;
    f->seed ^= f->seed << 5;
    return f->seed;
}

static inline int64_t between(struct fixture *f, int64_t lo, int64_t hi)
{
    return lo + (int64_t)(next_random(f) % (uint64_t)(hi - lo + 1));
}

static const struct mpqc_loc loc = {.node = "n", .op = "Test", .offset = -1};

static inline mpqc_vid add(struct fixture *f, enum mpqc_op op, const mpqc_vid *in, uint32_t n,
                    const struct mpqc_attrs *a)
{
    static const struct mpqc_attrs none;
    mpqc_vid out = MPQC_NONE;
    mpqc_status s = mpqc_node_add(&f->cx, &f->g, op, in, n, a ? a : &none, loc, &out);
    if (s != MPQC_OK) mpqc_diag_print(&f->cx.diags[0], stderr);
    assert_int_equal(s, MPQC_OK);
    return out;
}

static inline mpqc_vid add_input(struct fixture *f, const char *name, uint32_t rank, const int64_t *dims,
                          int zero, enum mpqc_dtype dtype)
{
    struct mpqc_type t = mpqc_type_make(dtype, rank, dims);
    t.quant = mpqc_quant_tensor(&f->g, 0.5f, zero);
    return mpqc_graph_input(&f->g, name, t);
}

static inline mpqc_vid add_x(struct fixture *f, const struct test_case *t)
{
    if (t->x16) return add_input(f, "x", 4, t->x, 0, MPQC_DT_I16);
    if (!t->xbits) return add_input(f, "x", 4, t->x, 131, MPQC_DT_U8);
    return add_input(f, "x", 4, t->x, 1, t->xbits == 1 ? MPQC_DT_U1 : MPQC_DT_U2);
}

static inline mpqc_vid add_i32(struct fixture *f, uint32_t rank, const int64_t *dims, int64_t lo,
                        int64_t hi, bool same)
{
    struct mpqc_type t = mpqc_type_make(MPQC_DT_I32, rank, dims);
    int64_t n = mpqc_type_count(&t);
    int32_t *v = calloc((size_t)n, sizeof *v), first = (int32_t)between(f, lo, hi);
    for (int64_t i = 0; i < n; i++) v[i] = same ? first : (int32_t)between(f, lo, hi);
    mpqc_vid id = mpqc_graph_const(&f->g, NULL, t, v, false);
    free(v);
    return id;
}

static inline enum mpqc_dtype weight_dtype(unsigned bits)
{
    for (int t = 0; t < MPQC_DT_COUNT; t++)
        if (mpqc_dtypes[t].kind == MPQC_KIND_SINT && mpqc_dtypes[t].bits == bits)
            return (enum mpqc_dtype)t;
    fail_msg("there is no type of %u bits", bits);
    return MPQC_DT_I8;
}

static inline mpqc_vid add_weights(struct fixture *f, unsigned bits, uint32_t rank, const int64_t *dims)
{
    struct mpqc_type t = mpqc_type_make(weight_dtype(bits ? bits : 8), rank, dims);
    int64_t lo = bits && bits < 8 ? mpqc_dtypes[t.dtype].min : -127, hi = mpqc_dtypes[t.dtype].max;
    int64_t n = mpqc_type_count(&t), oc = dims[rank - 1];
    float *scale = calloc((size_t)oc, sizeof *scale);
    int32_t *zero = calloc((size_t)oc, sizeof *zero);
    int8_t *w = calloc((size_t)n, 1);
    for (int64_t i = 0; i < oc; i++) scale[i] = 0.25f;
    for (int64_t i = 0; i < n; i++)
        w[i] = (int8_t)(bits == 1 ? 2 * between(f, 0, 1) - 1 : between(f, lo, hi));
    t.quant = mpqc_quant_channel(&f->g, (int32_t)rank - 1, (uint32_t)oc, scale, zero);
    mpqc_vid id = mpqc_graph_const(&f->g, NULL, t, w, false);
    free(scale);
    free(zero);
    free(w);
    return id;
}

/* Products of random codes and factors. */
static inline mpqc_vid add_groups(struct fixture *f, unsigned bits, int64_t size, const int64_t *dims)
{
    struct mpqc_type t = mpqc_type_make(MPQC_DT_I8, 2, dims);
    int64_t half = (int64_t)1 << (bits - 1), most = mpqc_groups_most(bits);
    int64_t n = (dims[0] + size - 1) / size * dims[1];
    float *scale = calloc((size_t)dims[1], sizeof *scale);
    int32_t *zero = calloc((size_t)dims[1], sizeof *zero);
    int8_t *w = calloc((size_t)(dims[0] * dims[1]), 1), *factor = calloc((size_t)n, 1);
    for (int64_t i = 0; i < dims[1]; i++) scale[i] = 0.25f;
    for (int64_t i = 0; i < n; i++)
        factor[i] = (int8_t)(between(f, 1, most) * (between(f, 0, 1) ? 1 : -1));
    for (int64_t i = 0; i < dims[0] * dims[1]; i++)
        w[i] = (int8_t)(between(f, -half, half - 1) *
                        factor[i / dims[1] / size * dims[1] + i % dims[1]]);
    t.quant = mpqc_quant_channel(&f->g, 1, (uint32_t)dims[1], scale, zero);
    t.quant = mpqc_quant_groups(&f->g, &t, size, bits, factor);
    assert_null(mpqc_type_problem(&t));
    assert_true(mpqc_groups_hold(&t, w));
    mpqc_vid id = mpqc_graph_const(&f->g, NULL, t, w, false);
    free(scale);
    free(zero);
    free(w);
    free(factor);
    return id;
}

static inline void bias_scale(struct fixture *f, mpqc_vid bias)
{
    float scale[2048];
    int32_t zero[2048] = {0};
    int64_t n = f->g.values[bias].type.dims[0];
    for (int64_t i = 0; i < n; i++) scale[i] = 0.125f;
    f->g.values[bias].type.quant = mpqc_quant_channel(&f->g, 0, (uint32_t)n, scale, zero);
}

static inline int64_t or_one(int64_t v)
{
    return v ? v : 1;
}

static inline void window_attrs(struct mpqc_attrs *a, const struct test_case *t, int64_t pads[4],
                         int64_t pair[2][2])
{
    for (int i = 0; i < 4; i++) pads[i] = t->pad;
    for (int i = 0; i < 2; i++) {
        pair[0][i] = or_one(t->stride);
        pair[1][i] = or_one(t->dilation);
    }
    mpqc_attrs_ints(a, MPQC_ATTR_STRIDES, 2, pair[0]);
    mpqc_attrs_ints(a, MPQC_ATTR_DILATIONS, 2, pair[1]);
    mpqc_attrs_ints(a, MPQC_ATTR_PADS, 4, pads);
}

static inline mpqc_vid add_core(struct fixture *f, const struct test_case *t, mpqc_vid x, mpqc_vid y)
{
    struct mpqc_attrs a = {0};
    int64_t pads[4], pair[2][2], kernel[] = {t->kh, t->kw};
    int64_t wd[] = {t->kh, t->kw, t->x[3] / or_one(t->group), t->oc};
    int64_t wm[] = {t->x[3], t->oc};
    mpqc_vid in[3] = {x, y, MPQC_NONE};
    switch (t->core) {
    case CONV:
    case MATMUL:
        if (t->by > 0) in[1] = add_groups(f, t->bits, t->by, wm);
        else if (t->core == CONV) in[1] = add_weights(f, t->bits, 4, wd);
        else in[1] = add_weights(f, t->bits, 2, wm);
        in[2] = add_i32(f, 1, &t->oc, t->xbits ? -100 : -20000, t->xbits ? 100 : 20000, false);
        bias_scale(f, in[2]);
        if (t->core == MATMUL) return add(f, MPQC_OP_MATMUL, in, 3, NULL);
        window_attrs(&a, t, pads, pair);
        mpqc_attrs_int(&a, MPQC_ATTR_GROUP, or_one(t->group));
        return add(f, MPQC_OP_CONV, in, 3, &a);
    case SUMPOOL:
        window_attrs(&a, t, pads, pair);
        mpqc_attrs_ints(&a, MPQC_ATTR_KERNEL, 2, kernel);
        return add(f, MPQC_OP_SUMPOOL, in, 1, &a);
    case REDUCE:
        mpqc_attrs_ints(&a, MPQC_ATTR_AXES, (uint32_t)t->n_axes, t->axes);
        return add(f, MPQC_OP_REDUCE_SUM, in, 1, &a);
    default: return add(f, MPQC_OP_MUL, in, 2, NULL);
    }
}

static inline mpqc_vid add_requant(struct fixture *f, mpqc_vid acc, enum factor factor, int64_t shift)
{
    struct mpqc_attrs a = {0};
    const struct mpqc_type *t = &f->g.values[acc].type;
    int64_t one = 1, channels = t->dims[t->rank - 1], hw1[] = {t->dims[1], t->dims[2], 1};
    uint32_t rank = factor == PER_POSITION ? 3 : 1;
    const int64_t *dims = factor == PER_POSITION ? hw1 : factor == PER_TENSOR ? &one : &channels;
    mpqc_vid in[] = {acc,
                     add_i32(f, rank, dims, shift > 2 ? shift - 2 : 0, shift + 1,
                             factor == SAME_SHIFT),
                     add_i32(f, rank, dims, 9000, 32767, false)};
    mpqc_attrs_float(&a, MPQC_ATTR_SCALE, 0.01f);
    return add(f, MPQC_OP_REQUANT, in, 3, &a);
}

/* To i16: without a zero point; to less than all of it where there is no relu. */
static inline mpqc_vid add_clamp(struct fixture *f, mpqc_vid v, int frac, bool relu)
{
    struct mpqc_attrs a = {0};
    mpqc_attrs_int(&a, MPQC_ATTR_FRAC, frac);
    mpqc_attrs_int(&a, MPQC_ATTR_LO, relu ? 0 : -16383);
    mpqc_attrs_int(&a, MPQC_ATTR_HI, 16383);
    mpqc_attrs_string(&a, MPQC_ATTR_TO, "i16");
    return add(f, MPQC_OP_NARROW, &v, 1, &a);
}

static inline mpqc_vid add_narrow(struct fixture *f, mpqc_vid v, int frac, int zero, bool relu, bool i8)
{
    struct mpqc_attrs a = {0};
    mpqc_attrs_int(&a, MPQC_ATTR_FRAC, frac);
    mpqc_attrs_int(&a, MPQC_ATTR_ZERO, i8 ? zero - 128 : zero);
    if (relu) mpqc_attrs_int(&a, MPQC_ATTR_LO, zero);
    if (relu) mpqc_attrs_int(&a, MPQC_ATTR_HI, 240);
    mpqc_attrs_string(&a, MPQC_ATTR_TO, i8 ? "i8" : "u8");
    return add(f, MPQC_OP_NARROW, &v, 1, &a);
}

static inline mpqc_vid add_lut(struct fixture *f, mpqc_vid v)
{
    struct mpqc_attrs a = {0};
    int64_t n = 256;
    uint8_t table[256];
    for (int i = 0; i < 256; i++) table[i] = (uint8_t)between(f, 0, 255);
    mpqc_vid in[] = {v, mpqc_graph_const(&f->g, NULL, mpqc_type_make(MPQC_DT_U8, 1, &n), table,
                                         false)};
    mpqc_attrs_float(&a, MPQC_ATTR_SCALE, 1.0f);
    mpqc_attrs_int(&a, MPQC_ATTR_ZERO, 3);
    return add(f, MPQC_OP_LUT, in, 2, &a);
}

/* ---- places -------------------------------------------------------------------------- */

static inline void strides(const struct mpqc_type *t, struct mpqc_place *p, int64_t gap)
{
    int64_t step = 1;
    for (uint32_t d = t->rank; d-- > 0;) {
        p->stride[d] = step;
        int64_t halo = 0;
        if (t->rank == 4 && d == 1) halo = p->halo[0] + p->halo[2];
        if (t->rank == 4 && d == 2) halo = p->halo[1] + p->halo[3];
        step *= t->dims[d] + halo + (d + 1 == t->rank ? gap : 0);
    }
}

static inline void place_arena(struct fixture *f, mpqc_vid v, int32_t halo, int64_t gap)
{
    const struct mpqc_type *t = &f->g.values[v].type;
    struct mpqc_place *p = &f->place[v];
    p->space = MPQC_SPACE_ARENA;
    for (int i = 0; i < 4; i++) p->halo[i] = halo;
    strides(t, p, gap);
    uint64_t before = halo ? (uint64_t)(halo * p->stride[1] + halo * p->stride[2]) : 0;
    before *= mpqc_dtypes[t->dtype].bytes;
    before = (before + 63) / 64 * 64;
    p->offset = f->plan.arena_bytes + MPQC_ARENA_SLACK + before;
    uint64_t size = (uint64_t)((t->dims[0] * (t->rank == 4 ? p->stride[0] : 0)) + 0);
    if (t->rank != 4) size = (uint64_t)(p->stride[0] * t->dims[0]);
    size *= mpqc_dtypes[t->dtype].bytes;
    f->plan.arena_bytes = (p->offset + size + before + MPQC_ARENA_SLACK + 63) / 64 * 64;
}

static inline void place_outside(struct fixture *f, mpqc_vid v, enum mpqc_space space, uint32_t index)
{
    f->place[v].space = space;
    f->place[v].index = index;
    strides(&f->g.values[v].type, &f->place[v], 0);
}

/* Nodes [from, to) become one kernel; rescale of a residual is among them. */
static inline void add_kernel(struct fixture *f, enum mpqc_kernel_form form, mpqc_nid from, mpqc_nid to,
                       mpqc_nid core, mpqc_vid out)
{
    uint32_t k = f->plan.n_kernels++, n = 0;
    for (mpqc_nid i = from; i < to; i++) f->nodes[k][n++] = i;
    f->kernel[k] = (struct mpqc_kernel){form, n, f->nodes[k], core, out};
}

static inline mpqc_vid add_copy(struct fixture *f, mpqc_vid v)
{
    mpqc_nid n = f->g.n_nodes;
    mpqc_vid out = add(f, MPQC_OP_COPY, &v, 1, NULL);
    add_kernel(f, MPQC_KERNEL_SINGLE, n, n + 1, n, out);
    return out;
}

static inline mpqc_vid to_arena(struct fixture *f, const struct test_case *t, mpqc_vid v, int32_t halo)
{
    if (t->from_input) return v;
    mpqc_vid c = add_copy(f, v);
    place_arena(f, c, halo, t->gap);
    return c;
}

/* The convolution that reads the result's halo. */
static inline mpqc_vid add_follower(struct fixture *f, mpqc_vid v)
{
    struct test_case c = {.core = CONV, .kh = 3, .kw = 3, .oc = 8, .pad = 1};
    memcpy(c.x, f->g.values[v].type.dims, sizeof c.x);
    mpqc_nid n = f->g.n_nodes;
    mpqc_vid out = add_core(f, &c, v, MPQC_NONE);
    int64_t shift = f->g.values[v].type.dtype == MPQC_DT_I16 ? 12 : 5;
    out = add_narrow(f, add_requant(f, out, PER_CHANNEL, shift), 6, 128, false, false);
    add_kernel(f, MPQC_KERNEL_LINEAR, n, f->g.n_nodes, n, out);
    return out;
}

static inline int64_t shift_for(const struct test_case *t)
{
    int64_t k = t->core == CONV     ? t->kh * t->kw * t->x[3] / or_one(t->group)
                : t->core == MATMUL ? t->x[3]
                                    : 1;
    int64_t shift = t->core == SUMPOOL || t->core == REDUCE ? 0 : 3;
    for (; k > 4; k /= 4) shift++;
    if (t->x16) shift += 7;
    if (t->bits) shift -= (8 - (int64_t)t->bits) / 2 + 1;
    if (t->xbits) shift = 0;
    if (shift < 0) shift = 0;
    return t->frac == 0 ? shift + 5 : shift;
}

static inline mpqc_vid add_chain(struct fixture *f, const struct test_case *t, mpqc_vid acc, mpqc_vid r)
{
    mpqc_vid v = add_requant(f, acc, t->factor, shift_for(t));
    if (r != MPQC_NONE) {
        struct mpqc_attrs a = {0};
        mpqc_attrs_float(&a, MPQC_ATTR_SCALE, 0.01f);
        mpqc_attrs_int(&a, MPQC_ATTR_MULT, t->frac == 0 ? 300 : 21000);
        mpqc_vid in[] = {v, add(f, MPQC_OP_RESCALE, &r, 1, &a)};
        v = add(f, MPQC_OP_ADD, in, 2, NULL);
    }
    if (t->y16) v = add_clamp(f, v, t->frac, t->relu);
    else if (t->frac >= 0) v = add_narrow(f, v, t->frac, 77, t->relu, t->i8);
    return t->lut ? add_lut(f, v) : v;
}

/* Shape of the core's result: by inference on a graph that is thrown away. */
static inline struct mpqc_type result_type(const struct test_case *t)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    f.seed = 7;
    mpqc_cx_init(&f.cx, NULL);
    mpqc_graph_init(&f.g, NULL);
    mpqc_vid x = add_x(&f, t);
    mpqc_vid core = add_core(&f, t, x, x); /* moves f.g.values */
    struct mpqc_type r = f.g.values[core].type;
    r.quant = NULL;
    mpqc_graph_release(&f.g);
    mpqc_cx_release(&f.cx);
    return r;
}

static inline void build(struct fixture *f, const struct test_case *t)
{
    int32_t halo = t->pad > 0 ? (int32_t)t->pad + 1 : 0;
    mpqc_vid x = add_x(f, t), y = MPQC_NONE, r = MPQC_NONE;
    place_outside(f, x, MPQC_SPACE_INPUT, f->g.n_inputs - 1);
    if (t->core == MUL) {
        int64_t d[] = {t->x[0], t->oc == 1 ? 1 : t->x[1], t->oc == 1 ? 1 : t->x[2],
                       t->oc == 2 ? 1 : t->x[3]};
        y = add_input(f, "y", 4, d, 9, MPQC_DT_U8);
        place_outside(f, y, MPQC_SPACE_INPUT, f->g.n_inputs - 1);
    }
    if (t->residual) {
        struct mpqc_type type = result_type(t);
        r = add_input(f, "r", type.rank, type.dims, t->r16 ? 0 : 100,
                      t->r16 ? MPQC_DT_I16 : MPQC_DT_U8);
        place_outside(f, r, MPQC_SPACE_INPUT, f->g.n_inputs - 1);
    }
    mpqc_vid xa = to_arena(f, t, x, halo);
    if (t->residual == RESIDUAL_IN_PLACE) {
        r = add_copy(f, r);
        place_arena(f, r, t->then, t->gap);
    }
    mpqc_nid from = f->g.n_nodes;
    mpqc_vid out = add_chain(f, t, add_core(f, t, xa, y), r);
    add_kernel(f, MPQC_KERNEL_LINEAR, from, f->g.n_nodes, from, out);
    if (t->residual == RESIDUAL_IN_PLACE) f->place[out] = f->place[r];
    else if (t->then || t->gap) place_arena(f, out, t->then, t->gap);
    if (t->then) out = add_follower(f, out);
    else if (f->place[out].space == MPQC_SPACE_ARENA) out = add_copy(f, out);
    mpqc_graph_output(&f->g, out);
    place_outside(f, out, MPQC_SPACE_OUTPUT, 0);
    f->plan.place = f->place;
    f->plan.kernels = f->kernel;
    f->plan.n_values = f->g.n_values;
    assert_true(f->g.n_values <= MPQC_LEN(f->place));
    f->plan.arena_bytes += 4096;
    assert_int_equal(mpqc_graph_normalise(&f->cx, &f->g), MPQC_OK);
}

#endif
