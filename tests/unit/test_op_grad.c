/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * conv_dx and conv_dw on random shapes against their definition, written as plainly as
 * it goes: every product x w dy of the convolution belongs to one element of each.
 */
#include "ir/exec.h"
#include "ir/ir.h"

#include <math.h>
#include <setjmp.h>
#include <cmocka.h>

static uint64_t seed = 1;

static int64_t below(int64_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)(seed >> 33) % n;
}

struct shape {
    int64_t x[4], w[4], y[4], strides[2], dilations[2], pads[4], group;
};

static struct mpqc_type type_of(const int64_t *dims)
{
    return mpqc_type_make(MPQC_DT_F32, 4, dims);
}

static int64_t count(const int64_t *dims)
{
    struct mpqc_type t = type_of(dims);
    return mpqc_type_count(&t);
}

static float *random_floats(int64_t n)
{
    float *f = malloc((size_t)n * sizeof *f + 1);
    for (int64_t i = 0; i < n; i++) f[i] = (float)(below(2001) - 1000) / 1024.0f;
    return f;
}

/* False when the window does not fit. */
static bool random_shape(struct shape *s, bool large)
{
    int64_t ic = large ? 20 + below(80) : 1 + below(5), oc = large ? 20 + below(80) : 1 + below(5);
    s->group = below(2) ? 1 : 1 + below(4);
    if (below(4) == 0) { /* depthwise */
        s->group = ic * 3;
        ic = oc = 1;
    }
    int64_t extent = large ? 12 : 7;
    memcpy(s->x, (int64_t[]){1 + below(2), 1 + below(extent), 1 + below(extent), ic * s->group},
           sizeof s->x);
    memcpy(s->w, (int64_t[]){1 + below(3), 1 + below(4), ic, oc * s->group}, sizeof s->w);
    for (int i = 0; i < 2; i++) {
        s->strides[i] = 1 + below(3);
        s->dilations[i] = 1 + below(3);
    }
    for (int i = 0; i < 4; i++) s->pads[i] = below(3);
    s->y[0] = s->x[0];
    s->y[3] = s->w[3];
    for (int i = 0; i < 2; i++) {
        int64_t room = s->x[1 + i] + s->pads[i] + s->pads[i + 2] -
                       (s->w[i] - 1) * s->dilations[i] - 1;
        if (room < 0) return false;
        s->y[1 + i] = room / s->strides[i] + 1;
    }
    return true;
}

/* Adds all products x w dy into by_x[...] = w dy and by_w[...] = x dy. */
static void define(const struct shape *s, const float *x, const float *w, const float *dy,
                   double *by_x, double *by_w)
{
    int64_t ic = s->w[2], oc = s->w[3] / s->group;
    for (int64_t q = 0; q < s->y[0] * s->y[1] * s->y[2]; q++) {
        int64_t n = q / (s->y[1] * s->y[2]), oh = q / s->y[2] % s->y[1], ow = q % s->y[2];
        for (int64_t tap = 0; tap < s->w[0] * s->w[1]; tap++) {
            int64_t h = oh * s->strides[0] - s->pads[0] + tap / s->w[1] * s->dilations[0];
            int64_t v = ow * s->strides[1] - s->pads[1] + tap % s->w[1] * s->dilations[1];
            if (h < 0 || v < 0 || h >= s->x[1] || v >= s->x[2]) continue;
            for (int64_t o = 0; o < s->y[3]; o++) {
                for (int64_t c = 0; c < ic; c++) {
                    int64_t in = ((n * s->x[1] + h) * s->x[2] + v) * s->x[3] + o / oc * ic + c;
                    int64_t at = (tap * ic + c) * s->w[3] + o;
                    by_x[in] += (double)w[at] * (double)dy[q * s->y[3] + o];
                    by_w[at] += (double)x[in] * (double)dy[q * s->y[3] + o];
                }
            }
        }
    }
}

static void compare(enum mpqc_op op, const struct shape *s, const float *a, const float *b,
                    const double *wanted)
{
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_runner *r;
    struct mpqc_attrs attrs = {0};
    bool by_x = op == MPQC_OP_CONV_DX;
    mpqc_vid out;
    mpqc_cx_init(&cx, NULL);
    mpqc_graph_init(&g, NULL);
    const mpqc_vid in[] = {mpqc_graph_input(&g, NULL, type_of(by_x ? s->y : s->x)),
                           mpqc_graph_input(&g, NULL, type_of(by_x ? s->w : s->y))};
    mpqc_attrs_ints(&attrs, MPQC_ATTR_STRIDES, 2, s->strides);
    mpqc_attrs_ints(&attrs, MPQC_ATTR_DILATIONS, 2, s->dilations);
    mpqc_attrs_ints(&attrs, MPQC_ATTR_PADS, 4, s->pads);
    mpqc_attrs_int(&attrs, MPQC_ATTR_GROUP, s->group);
    if (by_x) mpqc_attrs_ints(&attrs, MPQC_ATTR_SHAPE, 4, s->x);
    else mpqc_attrs_ints(&attrs, MPQC_ATTR_KERNEL, 2, s->w);
    struct mpqc_loc loc = {.node = "case", .op = "Case", .offset = -1};
    assert_int_equal(mpqc_node_add(&cx, &g, op, in, 2, &attrs, loc, &out), MPQC_OK);
    mpqc_graph_output(&g, out);
    assert_int_equal(mpqc_graph_normalise(&cx, &g), MPQC_OK);
    assert_true(mpqc_type_same_shape(&g.values[out].type,
                                     &(struct mpqc_type){.rank = 4,
                                                         .dims = {(by_x ? s->x : s->w)[0],
                                                                  (by_x ? s->x : s->w)[1],
                                                                  (by_x ? s->x : s->w)[2],
                                                                  (by_x ? s->x : s->w)[3]}}));
    int64_t n = count(by_x ? s->x : s->w);
    float *got = random_floats(n); /* not zeros */
    const void *ins[] = {a, b};
    void *outs[] = {got};
    assert_int_equal(mpqc_interpreter.prepare(&cx, &g, &r), MPQC_OK);
    assert_int_equal(mpqc_interpreter.run(r, ins, outs, NULL, NULL), MPQC_OK);
    for (int64_t i = 0; i < n; i++) {
        if (fabs((double)got[i] - wanted[i]) <= 2e-4 + 1e-5 * fabs(wanted[i])) continue;
        fail_msg("%s element %d is %g, not %g", mpqc_ops[op].text, (int)i, (double)got[i],
                 wanted[i]);
    }
    mpqc_interpreter.release(r);
    mpqc_graph_release(&g);
    mpqc_cx_release(&cx);
    free(got);
}

static void check_shape(const struct shape *s)
{
    float *x = random_floats(count(s->x)), *w = random_floats(count(s->w));
    float *dy = random_floats(count(s->y));
    double *by_x = calloc((size_t)count(s->x), sizeof *by_x);
    double *by_w = calloc((size_t)count(s->w), sizeof *by_w);
    define(s, x, w, dy, by_x, by_w);
    compare(MPQC_OP_CONV_DX, s, dy, w, by_x);
    compare(MPQC_OP_CONV_DW, s, x, dy, by_w);
    free(x);
    free(w);
    free(dy);
    free(by_x);
    free(by_w);
}

static void small_shapes(void **state)
{
    (void)state;
    struct shape s;
    for (int done = 0; done < 300;) {
        if (!random_shape(&s, false)) continue;
        check_shape(&s);
        done++;
    }
}

/* Several blocks of rows, depth and columns. */
static void large_shapes(void **state)
{
    (void)state;
    struct shape s;
    for (int done = 0; done < 25;) {
        if (!random_shape(&s, true)) continue;
        check_shape(&s);
        done++;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_shapes),
        cmocka_unit_test(large_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
