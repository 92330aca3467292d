/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * conv and matmul against the formula of ops.def, written as plainly as it goes:
 * sums must be equal bit for bit, in f32 as in integers, whatever tile this
 * machine picks.
 */
#include "ir/exec.h"

#include <setjmp.h>
#include <cmocka.h>

struct rng {
    uint64_t s;
};

static uint32_t next(struct rng *r, uint32_t n) /* in [0, n) */
{
    r->s = r->s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->s >> 33) % n;
}

struct shape {
    int64_t n, h, w, c, group, oc, kh, kw, sh, sw, dh, dw, pads[4];
};

/* Element i of an operand as a whole number minus its zero point, or 0 for f32. */
static int64_t element(const struct mpqc_type *t, const void *data, int64_t i, int64_t channel)
{
    int64_t q = t->dtype == MPQC_DT_I8    ? ((const int8_t *)data)[i]
                : t->dtype == MPQC_DT_I16 ? ((const int16_t *)data)[i]
                                          : ((const uint8_t *)data)[i];
    return q - t->quant->zero[t->quant->axis == -1 ? 0 : channel];
}

struct operands {
    struct mpqc_type x, w;
    const void *x_data, *w_data, *bias;
};

/* One result, by the formula. */
static void naive_conv(const struct shape *s, const struct operands *o, int64_t n, int64_t oh,
                       int64_t ow, int64_t oc, float *sum_f, int64_t *sum_i)
{
    int64_t ic = s->c / s->group, first = oc / (s->oc / s->group) * ic;
    bool is_float = o->x.dtype == MPQC_DT_F32;
    *sum_f = is_float && o->bias ? ((const float *)o->bias)[oc] : 0.0f;
    *sum_i = !is_float && o->bias ? ((const int32_t *)o->bias)[oc] : 0;
    for (int64_t kh = 0; kh < s->kh; kh++) {
        for (int64_t kw = 0; kw < s->kw; kw++) {
            int64_t h = oh * s->sh - s->pads[0] + kh * s->dh;
            int64_t w = ow * s->sw - s->pads[1] + kw * s->dw;
            if (h < 0 || h >= s->h || w < 0 || w >= s->w) continue;
            for (int64_t c = 0; c < ic; c++) {
                int64_t ix = ((n * s->h + h) * s->w + w) * s->c + first + c;
                int64_t iw = ((kh * s->kw + kw) * ic + c) * s->oc + oc;
                if (is_float)
                    *sum_f += ((const float *)o->x_data)[ix] * ((const float *)o->w_data)[iw];
                else
                    *sum_i += element(&o->x, o->x_data, ix, 0) * element(&o->w, o->w_data, iw, oc);
            }
        }
    }
}

/* Random numbers of a type; floats have few enough bits for -0 never to appear. */
static void *random_data(struct rng *r, const struct mpqc_type *t)
{
    int64_t n = mpqc_type_count(t);
    char *p = malloc(mpqc_type_bytes(t) + 1);
    for (int64_t i = 0; i < n; i++) {
        if (t->dtype == MPQC_DT_F32)
            ((float *)(void *)p)[i] = ((float)next(r, 2000) + 0.5f) / 777.0f - 1.0f;
        else if (t->dtype == MPQC_DT_I32)
            ((int32_t *)(void *)p)[i] = (int32_t)next(r, 20001) - 10000;
        else if (t->dtype == MPQC_DT_I16)
            ((int16_t *)(void *)p)[i] =
                (int16_t)(next(r, 8)   ? (int32_t)next(r, 65536) - 32768
                          : next(r, 2) ? 32767
                                       : -32768);
        else
            p[i] = (char)(next(r, 8) ? next(r, 256) : next(r, 2) ? 255 : 128); /* extremes too */
    }
    return p;
}

/* The types of a test: f32, or 8 bits with different signs and zero points, or 16. */
enum flavour { F32, U8_I8_CHANNEL, I8_U8_TENSOR, U8_I8_ZEROS, I16_I8_CHANNEL, FLAVOURS };

static void set_quant(struct mpqc_graph *g, enum flavour f, struct mpqc_type *x,
                      struct mpqc_type *w, struct rng *r)
{
    uint32_t channels = (uint32_t)w->dims[w->rank - 1];
    float scale[256];
    int32_t zero[256];
    if (f == F32) return;
    for (uint32_t i = 0; i < channels; i++) {
        scale[i] = 0.5f + (float)i;
        zero[i] = f == U8_I8_ZEROS ? (int32_t)next(r, 256) - 128 : 0;
    }
    bool wide = f == I16_I8_CHANNEL;
    x->dtype = f == I8_U8_TENSOR ? MPQC_DT_I8 : wide ? MPQC_DT_I16 : MPQC_DT_U8;
    w->dtype = f == I8_U8_TENSOR ? MPQC_DT_U8 : MPQC_DT_I8;
    x->quant = mpqc_quant_tensor(g, 0.5f, f == I8_U8_TENSOR ? (int32_t)next(r, 256) - 128
                                                            : wide ? 0 : (int32_t)next(r, 256));
    w->quant = f == I8_U8_TENSOR
                   ? mpqc_quant_tensor(g, 0.25f, (int32_t)next(r, 256))
                   : mpqc_quant_channel(g, (int32_t)w->rank - 1, channels, scale, zero);
}

static void compare_conv(const struct shape *s, const struct operands *o,
                         const struct mpqc_type *t, const void *got)
{
    int64_t i = 0;
    for (int64_t n = 0; n < t->dims[0]; n++) {
        for (int64_t oh = 0; oh < t->dims[1]; oh++) {
            for (int64_t ow = 0; ow < t->dims[2]; ow++) {
                for (int64_t oc = 0; oc < t->dims[3]; oc++, i++) {
                    float f;
                    int64_t q;
                    naive_conv(s, o, n, oh, ow, oc, &f, &q);
                    if (t->dtype == MPQC_DT_F32)
                        assert_true(((const float *)got)[i] == f);
                    else
                        assert_int_equal(((const int32_t *)got)[i], q);
                }
            }
        }
    }
}

static void check_conv(const struct shape *s, enum flavour f, bool with_bias, struct rng *r)
{
    struct mpqc_cx cx;
    struct mpqc_graph g;
    mpqc_cx_init(&cx, NULL);
    mpqc_graph_init(&g, NULL);
    int64_t xd[4] = {s->n, s->h, s->w, s->c}, wd[4] = {s->kh, s->kw, s->c / s->group, s->oc};
    struct operands o = {.x = mpqc_type_make(MPQC_DT_F32, 4, xd),
                         .w = mpqc_type_make(MPQC_DT_F32, 4, wd)};
    set_quant(&g, f, &o.x, &o.w, r);
    struct mpqc_type bias = mpqc_type_make(f == F32 ? MPQC_DT_F32 : MPQC_DT_I32, 1, &s->oc);
    void *xp = random_data(r, &o.x), *wp = random_data(r, &o.w);
    void *bp = with_bias ? random_data(r, &bias) : NULL;
    o.x_data = xp;
    o.w_data = wp;
    o.bias = bp;
    mpqc_vid in[3] = {mpqc_graph_input(&g, "x", o.x), mpqc_graph_const(&g, "w", o.w, wp, false)};
    if (with_bias) in[2] = mpqc_graph_const(&g, "b", bias, bp, false);
    struct mpqc_attrs a = {0};
    int64_t strides[2] = {s->sh, s->sw}, dilations[2] = {s->dh, s->dw};
    mpqc_attrs_ints(&a, MPQC_ATTR_STRIDES, 2, strides);
    mpqc_attrs_ints(&a, MPQC_ATTR_DILATIONS, 2, dilations);
    mpqc_attrs_ints(&a, MPQC_ATTR_PADS, 4, s->pads);
    mpqc_attrs_int(&a, MPQC_ATTR_GROUP, s->group);
    mpqc_vid out;
    struct mpqc_loc loc = {"conv", "Conv", -1};
    assert_int_equal(mpqc_node_add(&cx, &g, MPQC_OP_CONV, in, with_bias ? 3 : 2, &a, loc, &out), 0);
    mpqc_graph_output(&g, out);
    assert_int_equal(mpqc_graph_normalise(&cx, &g), 0);

    struct mpqc_runner *run;
    const struct mpqc_type *t = &g.values[out].type;
    void *got = malloc(mpqc_type_bytes(t) + 1);
    const void *input = xp;
    assert_int_equal(mpqc_interpreter.prepare(&cx, &g, &run), 0);
    assert_int_equal(mpqc_interpreter.run(run, &input, &got, NULL, NULL), 0);
    compare_conv(s, &o, t, got);
    assert_int_equal(mpqc_ops[MPQC_OP_CONV].macs(&g, &g.nodes[0]),
                     mpqc_type_count(t) * s->kh * s->kw * (s->c / s->group));
    mpqc_interpreter.release(run);
    free(got);
    free(xp);
    free(wp);
    free(bp);
    mpqc_graph_release(&g);
    mpqc_cx_release(&cx);
}

static void random_convolutions(void **state)
{
    (void)state;
    struct rng r = {1};
    for (int i = 0; i < 400; i++) {
        struct shape s = {.n = 1 + next(&r, 2), .h = 1 + next(&r, 9), .w = 1 + next(&r, 9),
                          .group = 1 + next(&r, 3), .kh = 1 + next(&r, 4), .kw = 1 + next(&r, 4),
                          .sh = 1 + next(&r, 3), .sw = 1 + next(&r, 3), .dh = 1 + next(&r, 2),
                          .dw = 1 + next(&r, 2)};
        s.c = s.group * (1 + next(&r, 9));
        s.oc = s.group * (1 + next(&r, i % 4 ? 9 : 70));
        for (int p = 0; p < 4; p++) s.pads[p] = next(&r, 4);
        int64_t need_h = (s.kh - 1) * s.dh + 1, need_w = (s.kw - 1) * s.dw + 1;
        if (s.h + s.pads[0] + s.pads[2] < need_h) s.h = need_h;
        if (s.w + s.pads[1] + s.pads[3] < need_w) s.w = need_w;
        check_conv(&s, (enum flavour)(i % FLAVOURS), next(&r, 2), &r);
    }
}

/* Depths beyond one block of op_gemm.c, more pixels than one block, wide tiles. */
static void large_convolutions(void **state)
{
    (void)state;
    struct rng r = {2};
    const struct shape shapes[] = {
        {1, 11, 10, 67, 1, 131, 3, 3, 1, 1, 1, 1, {1, 1, 1, 1}},
        {1, 13, 9, 300, 1, 20, 1, 1, 1, 1, 1, 1, {0, 0, 0, 0}},
        {1, 1, 1, 777, 1, 65, 1, 1, 1, 1, 1, 1, {0, 0, 0, 0}},
        {2, 7, 7, 3, 1, 64, 7, 7, 2, 2, 1, 1, {3, 3, 3, 3}},
    };
    for (size_t i = 0; i < MPQC_LEN(shapes); i++) {
        for (int f = 0; f < FLAVOURS; f++) check_conv(&shapes[i], (enum flavour)f, true, &r);
    }
}

static void depthwise_convolutions(void **state)
{
    (void)state;
    struct rng r = {3};
    const struct shape shapes[] = {
        {1, 5, 6, 7, 7, 7, 3, 3, 1, 1, 1, 1, {1, 1, 1, 1}},
        {2, 9, 9, 150, 150, 150, 5, 5, 2, 2, 1, 1, {2, 1, 2, 3}},
        {1, 12, 12, 65, 65, 65, 9, 9, 1, 1, 1, 1, {4, 4, 4, 4}}, /* 81 taps */
        {1, 9, 9, 64, 64, 64, 3, 3, 1, 2, 3, 2, {0, 2, 3, 0}},
        {1, 4, 4, 6, 6, 12, 3, 3, 1, 1, 1, 1, {1, 1, 1, 1}}, /* two outputs a channel */
    };
    for (size_t i = 0; i < MPQC_LEN(shapes); i++) {
        for (int f = 0; f < FLAVOURS; f++) {
            check_conv(&shapes[i], (enum flavour)f, true, &r);
            check_conv(&shapes[i], (enum flavour)f, false, &r);
        }
    }
}

/* The extremes: 255 * 255 * k, where sums in f32 must still be exact. */
static void extreme_sums(void **state)
{
    (void)state;
    struct mpqc_cx cx;
    struct mpqc_graph g;
    enum { K = 2300, N = 3 };
    static uint8_t x[2 * K], w[K * N];
    mpqc_cx_init(&cx, NULL);
    mpqc_graph_init(&g, NULL);
    memset(x, 255, K);
    memset(x + K, 0, K);
    for (int i = 0; i < K * N; i++) w[i] = i % N == 0 ? 255 : i % N == 1 ? 0 : (uint8_t)(i % 255);
    int64_t xd[2] = {2, K}, wd[2] = {K, N};
    struct mpqc_type xt = mpqc_type_make(MPQC_DT_U8, 2, xd);
    struct mpqc_type wt = mpqc_type_make(MPQC_DT_U8, 2, wd);
    xt.quant = mpqc_quant_tensor(&g, 1.0f, 0);
    wt.quant = mpqc_quant_tensor(&g, 1.0f, 0);
    mpqc_vid in[2] = {mpqc_graph_const(&g, "x", xt, x, false),
                      mpqc_graph_const(&g, "w", wt, w, false)}, out;
    struct mpqc_loc loc = {"mm", "MatMul", -1};
    assert_int_equal(mpqc_node_fold(&cx, &g, MPQC_OP_MATMUL, in, 2, NULL, loc, &out), 0);
    const int32_t *y = g.values[out].data;
    int64_t third = 0;
    for (int k = 0; k < K; k++) third += 255 * w[k * N + 2];
    assert_int_equal(y[0], 255 * 255 * K);
    assert_int_equal(y[1], 0);
    assert_int_equal(y[2], third);
    for (int i = 3; i < 6; i++) assert_int_equal(y[i], 0);
    mpqc_graph_release(&g);
    mpqc_cx_release(&cx);
}

static void random_products(void **state)
{
    (void)state;
    struct rng r = {4};
    for (int i = 0; i < 60; i++) { /* a matrix product is a convolution by 1x1 */
        struct shape s = {.n = 1, .h = 1, .w = 1 + next(&r, 200), .c = 1 + next(&r, 600),
                          .group = 1, .oc = 1 + next(&r, 100), .kh = 1, .kw = 1,
                          .sh = 1, .sw = 1, .dh = 1, .dw = 1};
        struct mpqc_cx cx;
        struct mpqc_graph g;
        mpqc_cx_init(&cx, NULL);
        mpqc_graph_init(&g, NULL);
        int64_t xd[2] = {s.w, s.c}, wd[2] = {s.c, s.oc};
        struct operands o = {.x = mpqc_type_make(MPQC_DT_F32, 2, xd),
                             .w = mpqc_type_make(MPQC_DT_F32, 2, wd)};
        enum flavour f = (enum flavour)(i % FLAVOURS);
        set_quant(&g, f, &o.x, &o.w, &r);
        struct mpqc_type bias = mpqc_type_make(f == F32 ? MPQC_DT_F32 : MPQC_DT_I32, 1, &s.oc);
        void *xp = random_data(&r, &o.x), *wp = random_data(&r, &o.w), *bp = random_data(&r, &bias);
        o.x_data = xp;
        o.w_data = wp;
        o.bias = bp;
        mpqc_vid out, in[3] = {mpqc_graph_const(&g, "x", o.x, xp, false),
                               mpqc_graph_const(&g, "w", o.w, wp, false),
                               mpqc_graph_const(&g, "b", bias, bp, false)};
        struct mpqc_loc loc = {"mm", "MatMul", -1};
        assert_int_equal(mpqc_node_fold(&cx, &g, MPQC_OP_MATMUL, in, 3, NULL, loc, &out), 0);
        struct mpqc_type t = g.values[out].type;
        int64_t as_image[4] = {1, 1, s.w, s.oc};
        struct mpqc_type image = mpqc_type_make(t.dtype, 4, as_image);
        compare_conv(&s, &o, &image, g.values[out].data);
        free(xp);
        free(wp);
        free(bp);
        mpqc_graph_release(&g);
        mpqc_cx_release(&cx);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_convolutions), cmocka_unit_test(large_convolutions),
        cmocka_unit_test(depthwise_convolutions), cmocka_unit_test(extreme_sums),
        cmocka_unit_test(random_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
