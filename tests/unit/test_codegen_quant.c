/* SPDX-License-Identifier: GPL-3.0-or-later
 * quantize and dequantize against the interpreter: NaN, infinities, ties, all sizes.
 */
#include "codegen_rig.h"

#define Q(scale, zero) " quant(scale=" scale ", zero=" zero ")"

static const struct rig_case cases[] = {
    {.name = "quantize u8",
     .text = "graph \"g\" { input %0 : f32[1,3,33,35]\n"
             "%1 = quantize %0 {scale=0.015625, to=\"u8\", zero=113} @\"q\"\noutput %1 }"},
    {.name = "quantize u8, coarse scale: many ties",
     .text = "graph \"g\" { input %0 : f32[4,50]\n"
             "%1 = quantize %0 {scale=0.000244140625, to=\"u8\", zero=0} @\"q\"\noutput %1 }"},
    {.name = "quantize i8 with a halo, then copy",
     .text = "graph \"g\" { input %0 : f32[2,4,5,3]\n"
             "%1 = quantize %0 {scale=0.0123, to=\"i8\", zero=-7} @\"q\"\n"
             "%2 = copy %1 @\"c\"\noutput %2 }",
     .halo = {1, 1, 2, 2}},
    {.name = "quantize i16",
     .text = "graph \"g\" { input %0 : f32[77]\n"
             "%1 = quantize %0 {scale=0.0001, to=\"i16\", zero=0} @\"q\"\noutput %1 }"},
    {.name = "dequantize u8",
     .text = "graph \"g\" { input %0 : u8[5,77]" Q("0.37", "200") "\n"
             "%1 = dequantize %0 @\"d\"\noutput %1 }"},
    {.name = "dequantize i16",
     .text = "graph \"g\" { input %0 : i16[1,1000]" Q("3.0517578125e-05", "0") "\n"
             "%1 = dequantize %0 @\"d\"\noutput %1 }"},
    {.name = "dequantize i32 per channel",
     .text = "graph \"g\" { input %0 : i32[3,5] quant(axis=1, scale=[0.1,0.2,0.3,0.4,0.7], "
             "zero=[0,0,0,0,0])\n%1 = dequantize %0 @\"d\"\noutput %1 }"},
    {.name = "dequantize u8 per channel, many rows",
     .text = "graph \"g\" { input %0 : u8[9,20] quant(axis=1, scale=[1,2,3,4,5,6,7,8,9,10,11,12,"
             "13,14,15,16,17,18,19,20], zero=[1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0])\n"
             "%1 = dequantize %0 @\"d\"\noutput %1 }"},
};

RIG_MAIN(cases)
