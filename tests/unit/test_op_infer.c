/* SPDX-License-Identifier: GPL-3.0-or-later
 * What the shape rules refuse, and with which words; and limits at their edge.
 */
#include "ir/text.h"

#include <setjmp.h>
#include <cmocka.h>

struct refusal {
    const char *text;   /* body of a graph, wrong in its last node */
    const char *words;  /* part of the message */
};

#define X4 "input %0 : f32[1,8,8,6] "
#define U4 "input %0 : u8[1,8,8,6] quant(scale=1, zero=0) "
#define W "const %1 : f32[3,3,6,4] = splat 1 "

static const struct refusal refusals[] = {
    /* arity */
    {X4 "%1 = conv %0", "inputs"},
    {X4 "%1 = conv %0, _", "is missing"},
    {X4 "%1 = relu %0, %0", "inputs"},
    /* conv */
    {"input %0 : f32[1,8,6] const %1 : f32[3,6,4] = splat 1 %2 = conv %0, %1", "not two-dimensional"},
    {X4 "const %1 : f32[3,3,5,4] = splat 1 %2 = conv %0, %1", "has 6 channels, but the weights"},
    {X4 "const %1 : f32[3,3,3,5] = splat 1 %2 = conv %0, %1 {group=2}", "cannot be split into 2 groups"},
    {X4 W "%2 = conv %0, %1 {group=0}", "cannot be split into 0 groups"},
    {X4 W "%2 = conv %0, %1 {strides=[0,1]}", "strides of conv has the value 0"},
    {X4 W "%2 = conv %0, %1 {strides=[1]}", "has 1 values, not 2"},
    {X4 W "%2 = conv %0, %1 {pads=[0,0,-1,0]}", "pads of conv has the value -1"},
    {X4 W "%2 = conv %0, %1 {dilations=[4,4]}", "a window of 9x9 does not fit into the padded input of 8x8"},
    {X4 W "%2 = conv %0, %1 {dilations=[9223372036854775807,1]}", "dilations of conv has the value"},
    {X4 W "const %2 : f32[3] = splat 1 %3 = conv %0, %1, %2", "the bias of conv is f32[3], not f32[4]"},
    {X4 W "const %2 : i32[4] = splat 1 %3 = conv %0, %1, %2", "the bias of conv is i32[4], not f32[4]"},
    {U4 W "%2 = conv %0, %1", "takes two f32 tensors, or two quantised ones"},
    {"input %0 : i16[1,8,8,6] quant(scale=1, zero=3) const %1 : i8[1,1,6,1] quant(scale=1, zero=0) = splat 1 "
     "%2 = conv %0, %1", "i16 with zero point 0"},
    {U4 "const %1 : i8[1,1,6,1] quant(axis=2, scale=[1,1,1,1,1,1], zero=[0,0,0,0,0,0]) = splat 1 "
     "%2 = conv %0, %1", "per tensor or per last axis"},
    {X4 W "%2 = conv %0, %1 {pads=[1000000000,1000000000,1000000000,1000000000]}", "larger than 2^40 bytes"},
    /* matmul */
    {"input %0 : f32[2,3] const %1 : f32[2,3] = splat 1 %2 = matmul %0, %1", "cannot be multiplied"},
    {"input %0 : f32[3] const %1 : f32[3,2] = splat 1 %2 = matmul %0, %1", "cannot be multiplied"},
    {"input %0 : f32[2,2,3] const %1 : f32[3,3,2] = splat 1 %2 = matmul %0, %1", "do not broadcast"},
    /* pools */
    {X4 "%1 = maxpool %0", "needs attribute kernel"},
    {X4 "%1 = maxpool %0 {kernel=[9,9]}", "a window of 9x9 does not fit"},
    {X4 "%1 = maxpool %0 {kernel=[2,2], pads=[2,0,0,0]}", "are as large as the window"},
    {X4 "%1 = avgpool %0 {kernel=[0,2]}", "the kernel of avgpool has the value 0"},
    {U4 "%1 = avgpool %0 {kernel=[2,2]}", "avgpool takes f32, not u8[1,8,8,6]"},
    {X4 "%1 = sumpool %0 {kernel=[2,2]}", "sumpool takes a quantised tensor"},
    {"input %0 : f32[8,8] %1 = maxpool %0 {kernel=[2,2]}", "not two-dimensional"},
    /* derivatives */
    {X4 W "%2 = conv_dx %0, %1", "needs attribute shape"},
    {X4 W "%2 = conv_dx %0, %1 {shape=[1,10,10,6], group=3}", "cannot be split"},
    {"input %0 : f32[1,8,8,4] " W "%2 = conv_dx %0, %1 {shape=[1,9,10,6]}", "the derivative by the result"},
    {"input %0 : f32[1,8,8,4] " W "%2 = conv_dx %0, %1 {shape=[1,10,10,5]}", "do not convolve"},
    {"input %0 : f32[1,8,8,4] " W "%2 = conv_dx %0, %1 {shape=[1,10,10,-6]}", "is none"},
    {U4 W "%2 = conv_dx %0, %1 {shape=[1,10,10,6]}", "two f32 tensors of rank 4"},
    {X4 "%1 = conv_dw %0, %0", "needs attribute kernel"},
    {X4 "%1 = conv_dw %0, %0 {kernel=[3,3]}", "the derivative by the result"},
    {X4 "%1 = conv_dw %0, %0 {kernel=[1,1], group=4}", "cannot be split into 4 groups"},
    {X4 "%1 = maxpool_dx %0, %0 {kernel=[2,2]}", "maxpool_dx wants f32[1,7,7,6]"},
    {X4 "%1 = maxpool_take %0, %0", "needs attribute kernel"},
    {X4 "%1 = avgpool_dx %0 {kernel=[2,2], shape=[1,8,8,6]}", "avgpool_dx wants f32[1,7,7,6]"},
    {X4 "input %1 : f32[6] %2 = relu_grad %0, %1", "two tensors of one shape"},
    {X4 "input %1 : f32[6] %2 = dot %0, %1", "two tensors of one shape"},
    {U4 "%1 = logsoftmax %0 {axis=3}", "logsoftmax takes f32"},
    {X4 "%1 = reduce_max_dx %0, %0 {axes=[1]}", "reduce_max_dx wants f32[1,1,8,6]"},
    {X4 "%1 = reduce_max_take %0, %0 {axes=[4]}", "axis 4 is outside"},
    {"input %0 : f32[3] %1 = slice_dx %0 {begin=[0], shape=[5], step=[3]}", "does not lie inside of axis 0"},
    {"input %0 : f32[3] %1 = slice_dx %0 {begin=[0], shape=[5], step=[0]}", "does not lie inside of axis 0"},
    {"input %0 : f32[3] %1 = slice_dx %0 {begin=[0], shape=[9223372036854775807], step=[3]}", "too large"},
    {"input %0 : f32[3] input %1 : i64[2] %2 = gather_dx %0, %1 {axis=0, shape=[5]}", "was not gathered from"},
    {"input %0 : f32[3] input %1 : f32[3] %2 = gather_dx %0, %1 {axis=0, shape=[5]}", "the indices of gather_dx"},
    /* reductions, normalisation, softmax */
    {X4 "%1 = reduce_sum %0 {axes=[4]}", "axis 4 is repeated or outside of rank 4"},
    {X4 "%1 = reduce_sum %0 {axes=[1,1]}", "axis 1 is repeated"},
    {U4 "%1 = reduce_mean %0 {axes=[1]}", "takes no quantised tensor"},
    {"input %0 : f32[0,2] %1 = reduce_max %0 {axes=[0]}", "over the empty axis 0"},
    {"input %0 : f32[1,2] const %1 : f32[3] = splat 1 %2 = batchnorm %0, %1, %1, %1, %1",
     "parameter 1 of batchnorm is f32[3], not f32[2]"},
    {X4 "%1 = softmax %0 {axis=4}", "axis 4 is outside of rank 4"},
    {X4 "%1 = softmax %0", "needs attribute axis"},
    {U4 "%1 = softmax %0 {axis=3}", "needs a table"},
    {U4 "const %1 : i32[255] = splat 1 %2 = softmax %0, %1 {axis=3, to=\"u8\"}", "not a constant i32[256]"},
    {U4 "const %1 : i32[256] = splat 65537 %2 = softmax %0, %1 {axis=3, to=\"u8\"}", "entry 0 of the softmax table is 65537"},
    {U4 "const %1 : i32[256] = splat 0 %2 = softmax %0, %1 {axis=3, to=\"u8\"}", "entry 0 of the softmax table is 0"},
    {U4 "const %1 : i32[256] = splat 1 %2 = softmax %0, %1 {axis=3, to=\"i8\"}", "softmax gives u8 or i16"},
    {"input %0 : u8[32768] quant(scale=1, zero=0) const %1 : i32[256] = splat 1 "
     "%2 = softmax %0, %1 {axis=0, to=\"u8\"}", "at most 32767"},
    /* elementwise */
    {U4 "%1 = sigmoid %0", "does not take quantised u8[1,8,8,6]"},
    {"input %0 : i64[2] %1 = exp %0", "operator exp does not take i64[2]"},
    {"input %0 : f32[2] %1 = not %0", "operator not does not take f32[2]"},
    {X4 "%1 = gelu %0 {mode=\"fast\"}", "gelu has no mode 'fast'"},
    {X4 "%1 = cast %0 {to=\"f31\"}", "'f31' is no element type"},
    {X4 "%1 = cast %0", "needs attribute to"},
    {X4 "%1 = cast %0 {to=\"u4\"}", "cast to u4"},
    {"input %0 : f32[2] input %1 : i64[2] %2 = add %0, %1", "does not take f32[2] and i64[2]"},
    {"input %0 : f32[2] input %1 : f32[3] %2 = mul %0, %1", "shapes f32[2] and f32[3] do not broadcast"},
    {"input %0 : bool[2] %1 = add %0, %0", "does not take bool[2]"},
    {"input %0 : u8[2] quant(scale=1, zero=0) %1 = add %0, %0", "does not take quantised u8[2]"},
    {"input %0 : i16[2] quant(scale=1, zero=0) input %1 : i16[2] quant(scale=2, zero=0) %2 = add %0, %1",
     "does not take quantised i16[2]"},
    {"input %0 : u8[2] quant(scale=1, zero=0) input %1 : u8[2] quant(scale=1, zero=1) %2 = max %0, %1",
     "does not take quantised u8[2]"},
    {"input %0 : f32[2] %1 = and %0, %0", "does not take f32[2]"},
    {"input %0 : f32[2] input %1 : i64[2] %2 = where %0, %1, %1", "operator where does not take"},
    /* movement */
    {X4 "%1 = reshape %0 {shape=[5,5]}", "f32[1,8,8,6] cannot be reshaped to f32[5,5]"},
    {X4 "%1 = reshape %0 {shape=[-1]}", "negative or too large"},
    {X4 "%1 = reshape %0 {shape=[1099511627775,1099511627775,0]}", "larger than 2^40 bytes"},
    {X4 "%1 = reshape %0", "needs a shape"},
    {X4 "%1 = transpose %0 {perm=[0,1,2,2]}", "perm is no permutation"},
    {X4 "%1 = transpose %0 {perm=[0,1,2]}", "has 3 values, not 4"},
    {X4 "%1 = concat %0, %0 {axis=-1}", "axis -1 is outside"},
    {"input %0 : f32[2,2] input %1 : f32[2,3] %2 = concat %0, %1 {axis=0}", "input 1 of concat"},
    {"input %0 : u8[2] quant(scale=1, zero=0) input %1 : u8[2] quant(scale=2, zero=0) %2 = concat %0, %1 {axis=0}",
     "differs in quantisation"},
    {"input %0 : f32[4] %1 = slice %0 {begin=[2], shape=[3], step=[1]}", "is outside of axis 0"},
    {"input %0 : f32[4] %1 = slice %0 {begin=[3], shape=[5], step=[-1]}", "is outside of axis 0"},
    {"input %0 : f32[4] %1 = slice %0 {begin=[0], shape=[2], step=[-9223372036854775808]}", "is outside of axis 0"},
    {"input %0 : f32[4] %1 = slice %0 {begin=[0], shape=[1], step=[0]}", "is outside of axis 0"},
    {"input %0 : f32[4] %1 = pad %0 {mode=\"reflect\", pads=[4,0]}", "do not suit axis 0"},
    {"input %0 : f32[4] %1 = pad %0 {mode=\"wrap\", pads=[1,0]}", "pad mode 'wrap'"},
    {"input %0 : f32[4] %1 = pad %0 {pads=[-1,0]}", "do not suit axis 0"},
    {"input %0 : f32[4] %1 = expand %0 {shape=[2,3]}", "do not broadcast"},
    {"input %0 : f32[4,1] %1 = expand %0 {shape=[1,1]}", "cannot be expanded"},
    {"input %0 : f32[4] const %1 : i64[1] = [4] %2 = gather %0, %1 {axis=0}", "index 4 is outside of axis 0"},
    {"input %0 : f32[4] const %1 : i64[1] = [-5] %2 = gather %0, %1 {axis=0}", "index -5 is outside of axis 0"},
    {"input %0 : f32[4] input %1 : f32[1] %2 = gather %0, %1 {axis=0}", "are f32[1], not i64"},
    {X4 "%1 = depth_to_space %0 {block=2}", "no multiple of block 2 squared"},
    {X4 "%1 = space_to_depth %0 {block=3}", "cannot be cut into blocks of 3"},
    {X4 "%1 = space_to_depth %0 {block=4294967296}", "block 4294967296"},
    {X4 "%1 = channel_shuffle %0 {group=4}", "cannot be shuffled in 4 groups"},
    {"input %0 : i8[2] quant(axis=0, scale=[1,2], zero=[0,0]) %1 = reshape %0 {shape=[1,2]}", "quantised per axis"},
    {"const %0 : i64[] = [0] const %1 : i64[] = [5] %2 = range %0, %1, %0", "has no end"},
    {"input %0 : i64[] %1 = range %0, %0, %0", "range takes three constants"},
    /* quantisation */
    {X4 "%1 = quantize %0 {scale=0, to=\"u8\", zero=0}", "needs a positive, finite scale"},
    {X4 "%1 = quantize %0 {scale=nan, to=\"u8\", zero=0}", "needs a positive, finite scale"},
    {X4 "%1 = quantize %0 {scale=1, to=\"u8\", zero=256}", "zero point 256 is outside of u8"},
    {X4 "%1 = quantize %0 {scale=1, to=\"i64\", zero=0}", "quantize to i64"},
    {X4 "%1 = dequantize %0", "dequantize takes a tensor quantised"},
    {"input %0 : i32[2] quant(scale=1, zero=0) input %1 : i32[1] %2 = requant %0, %1, %1 {scale=1}", "not an i32 constant"},
    {"input %0 : i32[2] quant(scale=1, zero=0) const %1 : i32[1] = [32] %2 = requant %0, %1, %1 {scale=1}",
     "has the value 32, outside of 0 to 31"},
    {"input %0 : i32[2] quant(scale=1, zero=0) const %1 : i32[1] = [1] const %2 : i32[1] = [32768] "
     "%3 = requant %0, %1, %2 {scale=1}", "has the value 32768"},
    {"input %0 : i32[2] quant(scale=1, zero=0) const %1 : i32[3] = splat 1 %2 = requant %0, %1, %1 {scale=1}",
     "does not fit i32[2]"},
    {"input %0 : i32[2] const %1 : i32[1] = [1] %2 = requant %0, %1, %1 {scale=1}", "requant takes quantised i32"},
    {"input %0 : u8[2] quant(scale=1, zero=0) %1 = rescale %0 {mult=32768, scale=1}", "between -32767 and 32767"},
    {"input %0 : i16[2] quant(scale=1, zero=1) %1 = rescale %0 {mult=1, scale=1}", "rescale takes 8 bits"},
    {"input %0 : i16[2] quant(scale=1, zero=0) %1 = narrow %0 {frac=15, to=\"u8\"}", "drops 15 bits"},
    {"input %0 : i16[2] quant(scale=1, zero=0) %1 = narrow %0 {hi=256, to=\"u8\"}", "which is not a range of u8"},
    {"input %0 : u8[2] quant(scale=1, zero=0) %1 = narrow %0 {to=\"u8\"}", "narrow takes quantised i16"},
    {"input %0 : u8[2] quant(scale=1, zero=0) const %1 : u8[255] = splat 1 %2 = lut %0, %1 {scale=1}", "not 256 constants"},
    {"input %0 : i8[2] quant(scale=1, zero=0) const %1 : u8[256] = splat 1 %2 = lut %0, %1 {scale=1}",
     "lut takes an unsigned index"},
};

/* Parses "graph { text }"; the first diagnostic's message, or NULL when accepted. */
static const char *parse(struct mpqc_cx *cx, struct mpqc_graph *g, const char *text)
{
    struct mpqc_buf full;
    mpqc_buf_init(&full);
    mpqc_buf_printf(&full, "graph {%s}", text);
    mpqc_status status = mpqc_graph_parse(cx, full.data, full.len, "case", g);
    mpqc_buf_release(&full);
    return status == MPQC_OK ? NULL : cx->diags[0].message;
}

static void refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(refusals); i++) {
        struct mpqc_cx cx;
        struct mpqc_graph g;
        mpqc_cx_init(&cx, NULL);
        mpqc_graph_init(&g, NULL);
        const char *message = parse(&cx, &g, refusals[i].text);
        if (!message) fail_msg("accepted: %s", refusals[i].text);
        if (!strstr(message, refusals[i].words))
            fail_msg("'%s' says '%s', not '%s'", refusals[i].text, message, refusals[i].words);
        mpqc_graph_release(&g);
        mpqc_cx_release(&cx);
    }
}

/* At the edge of a limit, still accepted. */
static const char *const accepted[] = {
    "input %0 : i16[1,8,8,6] quant(scale=1, zero=0) const %1 : i8[1,1,6,1] quant(scale=1, zero=0) "
    "= splat 1 %2 = conv %0, %1",
    "input %0 : u8[32767] quant(scale=1, zero=0) const %1 : i32[256] = splat 65536 "
    "%2 = softmax %0, %1 {axis=0, to=\"i16\"}",
    X4 "%1 = maxpool %0 {kernel=[2,2], pads=[1,1,1,1]}",
    X4 "%1 = reshape %0 {shape=[1,1,1,1,1,1,1,384]}",
    "input %0 : u8[0,1] %1 = expand %0 {shape=[0,1099511627775]}",
    "input %0 : f32[4] %1 = slice %0 {begin=[3], shape=[4], step=[-1]}",
    "input %0 : f32[4] %1 = slice %0 {begin=[3], shape=[1], step=[9223372036854775807]}",
    "input %0 : i16[2] quant(scale=1, zero=0) %1 = narrow %0 {frac=14, to=\"i16\"}",
};

static void edges(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(accepted); i++) {
        struct mpqc_cx cx;
        struct mpqc_graph g;
        mpqc_cx_init(&cx, NULL);
        mpqc_graph_init(&g, NULL);
        const char *message = parse(&cx, &g, accepted[i]);
        if (message) fail_msg("'%s': %s", accepted[i], message);
        mpqc_graph_release(&g);
        mpqc_cx_release(&cx);
    }
}

/* A refusal names the ONNX node. */
static void names_the_node(void **state)
{
    struct mpqc_cx cx;
    struct mpqc_graph g;
    (void)state;
    mpqc_cx_init(&cx, NULL);
    mpqc_graph_init(&g, NULL);
    int64_t dims[1] = {3};
    mpqc_vid in = mpqc_graph_input(&g, "x", mpqc_type_make(MPQC_DT_I64, 1, dims)), out;
    struct mpqc_loc loc = {"the node", "Exp", 77};
    assert_int_equal(mpqc_node_add(&cx, &g, MPQC_OP_EXP, &in, 1, NULL, loc, &out), MPQC_UNSUPPORTED);
    assert_int_equal(cx.n_diags, 1);
    assert_string_equal(cx.diags[0].where.node, "the node");
    assert_string_equal(cx.diags[0].where.op, "Exp");
    assert_int_equal(cx.diags[0].where.offset, 77);
    mpqc_graph_release(&g);
    mpqc_cx_release(&cx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused),
        cmocka_unit_test(edges),
        cmocka_unit_test(names_the_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
