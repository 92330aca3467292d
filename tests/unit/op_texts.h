/* SPDX-License-Identifier: GPL-3.0-or-later
 * One small graph or more for every operator, as text: declarations, then the
 * node that is %9.  Elementwise and binary rows without a line of their own use
 * UNARY_TEXT, BINARY_TEXT.  Tests demand that no operator is left out.
 */
#ifndef TESTS_UNIT_OP_TEXTS_H
#define TESTS_UNIT_OP_TEXTS_H

#include "ir/ir.h"

#define UNARY_TEXT "input %0 \"x\" : f32[2,3]\n %9 = "
#define BINARY_TEXT "input %0 : f32[2,3] input %1 : f32[3]\n %9 = "
#define QU8 "u8[1,4,4,2] quant(scale=0x1p-4, zero=7)"
#define QI16 "i16[1,4,4,2] quant(scale=0x1p-9, zero=0)"
#define QI32 "i32[1,4,4,2] quant(axis=3, scale=[0x1p-7,0x1p-8], zero=splat 0)"

struct op_text {
    enum mpqc_op op;
    const char *text;
};

static const struct op_text op_texts[] = {
    {MPQC_OP_CONV, "input %0 : f32[1,4,4,2] const %1 \"w\" : f32[3,3,1,2] = random 1\n"
                   "const %2 : f32[2] = [0x1p+0,-0x1p-1]\n"
                   "%9 = conv %0, %1, %2 {group=2, pads=[1,1,1,1], strides=[2,2]}"},
    {MPQC_OP_CONV, "input %0 : " QU8 "\n const %1 : i8[1,1,2,3] "
                   "quant(axis=3, scale=[0x1p-1,0x1p-2,0x1p-3], zero=splat 0) = random 3\n"
                   "%9 = conv %0, %1, _"},
    {MPQC_OP_MATMUL, "input %0 : f32[2,3] const %1 : f32[3,4] = random 2\n %9 = matmul %0, %1"},
    {MPQC_OP_MAXPOOL, "input %0 : " QU8 "\n %9 = maxpool %0 {kernel=[2,2], strides=[2,2]}"},
    {MPQC_OP_AVGPOOL, "input %0 : f32[1,4,4,2]\n"
                      "%9 = avgpool %0 {count_pad=1, kernel=[3,3], pads=[1,1,1,1]}"},
    {MPQC_OP_SUMPOOL, "input %0 : " QU8 "\n %9 = sumpool %0 {kernel=[4,4]}"},
    {MPQC_OP_REDUCE_MEAN, "input %0 : f32[1,4,4,2]\n %9 = reduce_mean %0 {axes=[1,2]}"},
    {MPQC_OP_REDUCE_SUM, "input %0 : " QU8 "\n %9 = reduce_sum %0 {axes=[1,2]}"},
    {MPQC_OP_REDUCE_MAX, "input %0 : f32[1,4]\n %9 = reduce_max %0 {axes=[1]}"},
    {MPQC_OP_REDUCE_MIN, "input %0 : f32[1,4]\n %9 = reduce_min %0 {axes=[1]}"},
    {MPQC_OP_REDUCE_PROD, "input %0 : f32[1,4]\n %9 = reduce_prod %0 {axes=[1]}"},
    {MPQC_OP_BATCHNORM, "input %0 : f32[1,4,4,2] const %1 : f32[2] = splat 1 const %2 : f32[2] = "
                        "[0x0p+0,-0x0p+0] const %3 : f32[2] = [1e-3,3.5] const %4 : f32[2] = "
                        "[inf,nan]\n %9 = batchnorm %0, %1, %2, %3, %4 {epsilon=0.001}"},
    {MPQC_OP_SOFTMAX, "input %0 : f32[2,5]\n %9 = softmax %0 {axis=1}"},
    {MPQC_OP_SOFTMAX, "input %0 : u8[2,5] quant(scale=0x1p-4, zero=7)\n"
                      "const %1 : i32[256] = splat 65536\n %9 = softmax %0, %1 {axis=1, to=\"i16\"}"},
    {MPQC_OP_CLIP, "input %0 : f32[2]\n %9 = clip %0 {max=6, min=0}"},
    {MPQC_OP_HARDSIGMOID, "input %0 : f32[2]\n %9 = hardsigmoid %0 {alpha=0.2, beta=0.5}"},
    {MPQC_OP_GELU, "input %0 : f32[2]\n %9 = gelu %0 {mode=\"tanh\"}"},
    {MPQC_OP_LEAKYRELU, "input %0 : f32[2]\n %9 = leakyrelu %0 {alpha=-0.1}"},
    {MPQC_OP_ELU, "input %0 : f32[2]\n %9 = elu %0 {alpha=2}"},
    {MPQC_OP_NOT, "input %0 : bool[2]\n %9 = not %0"},
    {MPQC_OP_CAST, "input %0 : f32[]\n %9 = cast %0 {to=\"i64\"}"},
    {MPQC_OP_ADD, "input %0 : " QI16 " input %1 : " QI16 "\n %9 = add %0, %1"},
    {MPQC_OP_MUL, "input %0 : " QU8 " input %1 : u8[1,1,1,2] quant(scale=0x1p-8, zero=0)\n"
                  "%9 = mul %0, %1"},
    {MPQC_OP_MOD, "input %0 : i64[2] input %1 : i64[2]\n %9 = mod %0, %1"},
    {MPQC_OP_AND, "input %0 : bool[2] input %1 : bool[2]\n %9 = and %0, %1"},
    {MPQC_OP_OR, "input %0 : bool[2] const %1 : bool[2] = [0,1]\n %9 = or %0, %1"},
    {MPQC_OP_WHERE, "input %0 : bool[2] input %1 : f32[2] input %2 : f32[]\n"
                    "%9 = where %0, %1, %2"},
    {MPQC_OP_RESHAPE, "input %0 : " QU8 "\n %9 = reshape %0 {shape=[1,32]}"},
    {MPQC_OP_TRANSPOSE, "input %0 : " QU8 "\n %9 = transpose %0 {perm=[0,3,1,2]}"},
    {MPQC_OP_CONCAT, "input %0 : f32[1,2] input %1 : f32[1,3]\n %9 = concat %0, %1 {axis=1}"},
    {MPQC_OP_SLICE, "input %0 : f32[5,6]\n"
                    "%9 = slice %0 {begin=[4,0], shape=[5,2], step=[-1,3]}"},
    {MPQC_OP_PAD, "input %0 : f32[2,2]\n %9 = pad %0 {mode=\"edge\", pads=[0,1,1,0]}"},
    {MPQC_OP_EXPAND, "input %0 : f32[1,3]\n %9 = expand %0 {shape=[2,3]}"},
    {MPQC_OP_GATHER, "input %0 : f32[4,3] const %1 : i64[2] = [3,-1]\n %9 = gather %0, %1 {axis=0}"},
    {MPQC_OP_DEPTH_TO_SPACE, "input %0 : f32[1,2,2,8]\n"
                             "%9 = depth_to_space %0 {block=2, mode=\"CRD\"}"},
    {MPQC_OP_SPACE_TO_DEPTH, "input %0 : f32[1,4,4,2]\n %9 = space_to_depth %0 {block=2}"},
    {MPQC_OP_CHANNEL_SHUFFLE, "input %0 : f32[1,2,2,6]\n %9 = channel_shuffle %0 {group=3}"},
    {MPQC_OP_COPY, "input %0 : " QU8 "\n %9 = copy %0"},
    {MPQC_OP_RANGE, "const %0 : i64[] = [0] const %1 : i64[] = [5] const %2 : i64[] = [2]\n"
                    "%9 = range %0, %1, %2"},
    {MPQC_OP_QUANTIZE, "input %0 : f32[2]\n %9 = quantize %0 {scale=0.25, to=\"u8\", zero=3}"},
    {MPQC_OP_DEQUANTIZE, "input %0 : " QU8 "\n %9 = dequantize %0"},
    {MPQC_OP_REQUANT, "input %0 : " QI32 "\n const %1 : i32[2] = [4,5] const %2 : i32[1] = [999]\n"
                      "%9 = requant %0, %1, %2 {scale=0x1p-9}"},
    {MPQC_OP_RESCALE, "input %0 : " QU8 "\n %9 = rescale %0 {mult=-12345, scale=0x1p-9}"},
    {MPQC_OP_NARROW, "input %0 : " QI16 "\n %9 = narrow %0 {frac=5, hi=255, lo=0, to=\"u8\", zero=9}"},
    {MPQC_OP_LUT, "input %0 : " QU8 "\n const %1 : u8[256] = random 9\n"
                  "%9 = lut %0, %1 {scale=0x1p-6, zero=1}"},
    {MPQC_OP_CONV_DX, "input %0 : f32[1,2,2,2] input %1 : f32[3,3,1,2]\n"
                      "%9 = conv_dx %0, %1 {group=2, pads=[1,1,1,1], shape=[1,4,4,2], strides=[2,2]}"},
    {MPQC_OP_CONV_DW, "input %0 : f32[1,4,4,2] input %1 : f32[1,2,2,2]\n"
                      "%9 = conv_dw %0, %1 {group=2, kernel=[3,3], pads=[1,1,1,1], strides=[2,2]}"},
    {MPQC_OP_MAXPOOL_DX, "input %0 : f32[1,4,4,2] input %1 : f32[1,2,2,2]\n"
                         "%9 = maxpool_dx %0, %1 {kernel=[2,2], strides=[2,2]}"},
    {MPQC_OP_MAXPOOL_TAKE, "input %0 : f32[1,4,4,2] input %1 : f32[1,4,4,2]\n"
                           "%9 = maxpool_take %0, %1 {kernel=[2,2], strides=[2,2]}"},
    {MPQC_OP_AVGPOOL_DX, "input %0 : f32[1,2,2,2]\n"
                         "%9 = avgpool_dx %0 {kernel=[2,2], shape=[1,3,3,2]}"},
    {MPQC_OP_RELU_GRAD, "input %0 : f32[2] input %1 : f32[2]\n %9 = relu_grad %0, %1"},
    {MPQC_OP_CLIP_GRAD, "input %0 : f32[2] input %1 : f32[2]\n %9 = clip_grad %0, %1 {max=6, min=0}"},
    {MPQC_OP_REDUCE_MAX_DX, "input %0 : f32[2,3] input %1 : f32[2,1]\n"
                            "%9 = reduce_max_dx %0, %1 {axes=[1]}"},
    {MPQC_OP_REDUCE_MAX_TAKE, "input %0 : f32[2,3] input %1 : f32[2,3]\n"
                              "%9 = reduce_max_take %0, %1 {axes=[1]}"},
    {MPQC_OP_SLICE_DX, "input %0 : f32[5,2]\n"
                       "%9 = slice_dx %0 {begin=[4,0], shape=[5,6], step=[-1,3]}"},
    {MPQC_OP_GATHER_DX, "input %0 : f32[2,3] const %1 : i64[2] = [3,-1]\n"
                        "%9 = gather_dx %0, %1 {axis=0, shape=[4,3]}"},
    {MPQC_OP_DOT, "input %0 : f32[2,3] input %1 : f32[2,3]\n %9 = dot %0, %1"},
    {MPQC_OP_LOGSOFTMAX, "input %0 : f32[2,5]\n %9 = logsoftmax %0 {axis=1}"},
};

/* Writes "graph { ... }" for entry i; entries beyond the table are the elementwise
 * and binary operators.  False when there are no more. */
static inline bool op_text(uint32_t i, struct mpqc_buf *to, enum mpqc_op *op)
{
    mpqc_buf_puts(to, "graph \"one\" {\n");
    if (i < MPQC_LEN(op_texts)) {
        *op = op_texts[i].op;
        mpqc_buf_puts(to, op_texts[i].text);
    } else {
        if (i - MPQC_LEN(op_texts) >= MPQC_OP_COUNT) return false;
        *op = (enum mpqc_op)(i - MPQC_LEN(op_texts));
        const struct mpqc_op_info *o = &mpqc_ops[*op];
        bool logical = *op == MPQC_OP_NOT || *op == MPQC_OP_AND || *op == MPQC_OP_OR;
        if (o->traits & MPQC_T_ELEMENTWISE && *op != MPQC_OP_CAST && !logical)
            mpqc_buf_printf(to, "%s%s %%0", UNARY_TEXT, o->text);
        else if (o->traits & MPQC_T_BINARY && !logical)
            mpqc_buf_printf(to, "%s%s %%0, %%1", BINARY_TEXT, o->text);
        else
            return op_text(0, (to->len = 0, to), op);
    }
    mpqc_buf_puts(to, " @\"the node\" \"Op\"\n output %9 }\n");
    return true;
}

#endif
