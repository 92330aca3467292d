/* SPDX-License-Identifier: GPL-3.0-or-later
 * fuse: the forms of ir/plan.h, and what may leave a kernel.
 */
#include "quant_rig.h"

/* "conv+requant+narrow | lut | ...": nodes of each kernel, kernels by number. */
static void describe(const struct mpqc_graph *g, char *to, size_t size)
{
    uint32_t n = 0;
    size_t at = 0;
    for (uint32_t i = 0; i < g->n_order; i++)
        if (g->nodes[g->order[i]].kernel != MPQC_NONE && g->nodes[g->order[i]].kernel >= n)
            n = g->nodes[g->order[i]].kernel + 1;
    for (uint32_t k = 0; k < n; k++) {
        bool first = true;
        for (uint32_t i = 0; i < g->n_order; i++) {
            const struct mpqc_node *node = &g->nodes[g->order[i]];
            if (node->kernel != k) continue;
            at += (size_t)snprintf(to + at, size - at, "%s%s", first ? k ? " | " : "" : "+",
                                   mpqc_ops[node->op].text);
            assert_true(at < size);
            first = false;
        }
    }
}

static void check(const char *text, const char *kernels)
{
    struct qrig r;
    char got[1024];
    qrig_init(&r, text);
    qrig_run(&r, 3);
    describe(&r.g, got, sizeof got);
    assert_string_equal(got, kernels);
    qrig_release(&r);
}

/* Kernels with a core come first, then the others, each in the order of the graph. */
static void forms(void **state)
{
    (void)state;
    check(qcases[0].text, "conv+requant+narrow | conv+requant | quantize | dequantize");
    check(qcases[1].text, "conv+requant+narrow | conv+requant+rescale+add+narrow | "
                          "conv+requant+rescale+add | quantize | dequantize");
    check(qcases[2].text, "conv+requant+narrow | conv+requant+rescale+add+narrow | "
                          "conv+requant | quantize | dequantize");
    check(qcases[3].text, "conv+requant+narrow+lut | reduce_sum+requant+narrow | "
                          "conv+requant+narrow+lut | conv+requant+narrow+lut | mul+requant+narrow | "
                          "conv+requant | quantize | dequantize");
    check(qcases[11].text, "quantize | quantize | max | rescale+rescale+add+narrow | min | "
                           "reduce_max | lut | lut | dequantize");
}

/* Both operands stored: one pointwise kernel; a constant operand has no rescale. */
static void pointwise(void **state)
{
    (void)state;
    check("graph \"p\" { input %0 : f32[1,4,4,2] input %1 : f32[1,4,4,2] "
          "%2 = add %0, %1 @\"a\" \"Add\" %3 = sigmoid %2 @\"s\" \"Sigmoid\" "
          "const %4 : f32[1,4,4,2] = random 1 %5 = add %3, %4 @\"b\" \"Add\" %6 = relu %5 @\"r\" "
          "\"Relu\" output %6 }",
          "quantize | quantize | rescale+rescale+add+narrow+lut | rescale+add+narrow | dequantize");
}

/* Whatever crosses from one kernel to another is stored: never an i32, and no i16 but
 * where it leaves the network. */
static void only_small_values_are_stored(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof qcases / sizeof qcases[0]; i++) {
        struct qrig r;
        qrig_init(&r, qcases[i].text);
        qrig_run(&r, 3);
        for (uint32_t k = 0; k < r.g.n_order; k++) {
            const struct mpqc_node *n = &r.g.nodes[r.g.order[k]];
            assert_int_not_equal(n->kernel, MPQC_NONE);
            for (uint32_t s = 0; s < n->n_in; s++) {
                const struct mpqc_node *def = mpqc_def(&r.g, n->in[s]);
                if (!def || def->kernel == n->kernel) continue;
                enum mpqc_dtype t = r.g.values[n->in[s]].type.dtype;
                bool leaves = n->op == MPQC_OP_DEQUANTIZE || n->op == MPQC_OP_RESHAPE;
                assert_true(t == MPQC_DT_U8 || (t == MPQC_DT_I16 && leaves));
            }
        }
        qrig_release(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms),
        cmocka_unit_test(pointwise),
        cmocka_unit_test(only_small_values_are_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
