/* SPDX-License-Identifier: GPL-3.0-or-later
 * Max pooling and reductions to extremes against the interpreter.
 */
#include "codegen_rig.h"

#define Q8 " quant(scale=0.5, zero=3)"
#define IN(shape) "graph \"g\" { input %0 : u8" shape Q8 "\n"

static const struct rig_case cases[] = {
    {.name = "2x2, stride 2",
     .text = IN("[1,8,10,64]") "%1 = maxpool %0 {kernel=[2,2], strides=[2,2]} @\"p\"\noutput %1 }"},
    {.name = "3x3, stride 2, padding all around",
     .text = IN("[1,9,11,70]") "%1 = maxpool %0 {kernel=[3,3], pads=[1,1,1,1], strides=[2,2]} "
                               "@\"p\"\noutput %1 }"},
    {.name = "3x3, padding below only, few channels, two images",
     .text = IN("[2,7,6,3]") "%1 = maxpool %0 {kernel=[3,3], pads=[0,0,1,2], strides=[1,1]} "
                             "@\"p\"\noutput %1 }"},
    {.name = "result with a halo",
     .text = IN("[2,8,8,20]") "%1 = maxpool %0 {kernel=[2,2], strides=[2,2]} @\"p\"\n"
                              "%2 = copy %1 @\"c\"\noutput %2 }",
     .halo = {1, 1, 2, 1}},
    {.name = "input with a halo",
     .text = IN("[1,8,8,20]") "%1 = copy %0 @\"c\"\n"
                              "%2 = maxpool %1 {kernel=[5,5], pads=[2,2,2,2]} @\"p\"\noutput %2 }",
     .halo = {2, 2, 2, 2}},
    {.name = "dilated",
     .text = IN("[1,12,12,24]") "%1 = maxpool %0 {dilations=[2,3], kernel=[3,2], strides=[1,2]} "
                                "@\"p\"\noutput %1 }"},
    {.name = "signed",
     .text = "graph \"g\" { input %0 : i8[1,6,6,17]" Q8 "\n"
             "%1 = maxpool %0 {kernel=[3,3], pads=[1,1,1,1]} @\"p\"\noutput %1 }"},
    {.name = "many channels",
     .text = IN("[1,6,6,300]") "%1 = maxpool %0 {kernel=[2,2], strides=[2,2]} @\"p\"\noutput %1 }"},
    {.name = "maximum over height and width",
     .text = IN("[2,6,5,37]") "%1 = reduce_max %0 {axes=[1,2]} @\"p\"\noutput %1 }"},
    {.name = "maximum over channels",
     .text = IN("[2,6,5,37]") "%1 = reduce_max %0 {axes=[3]} @\"p\"\noutput %1 }"},
    {.name = "minimum over everything",
     .text = IN("[2,6,5,37]") "%1 = reduce_min %0 {axes=[0,1,2,3]} @\"p\"\noutput %1 }"},
    {.name = "minimum of signed numbers over the middle",
     .text = "graph \"g\" { input %0 : i8[5,6,7]" Q8 "\n"
             "%1 = reduce_min %0 {axes=[1]} @\"p\"\noutput %1 }"},
};

RIG_MAIN(cases)
