/* SPDX-License-Identifier: GPL-3.0-or-later
 * Element-wise kernels against the interpreter, on every target that runs here.
 */
#include "codegen_rig.h"

#define Q(scale, zero) " quant(scale=" scale ", zero=" zero ")"
#define ADD_BODY(shape_b)                                                                         \
    "%2 = rescale %0 {mult=20000, scale=0.001} @\"ra\"\n"                                         \
    "%3 = rescale %1 {mult=-31000, scale=0.001} @\"rb\"\n"                                        \
    "%4 = add %2, %3 @\"/layer1/add\" \"Add\"\n"

static const struct rig_case cases[] = {
    {.name = "one rescale",
     .text = "graph \"g\" { input %0 : u8[1,5,7,3]" Q("0.5", "17") "\n"
             "%1 = rescale %0 {mult=32767, scale=0.001} @\"r\"\n"
             "%2 = narrow %1 {frac=4, hi=250, lo=3, to=\"u8\", zero=9} @\"n\"\noutput %2 }",
     .kernels = "P2"},
    {.name = "residual add",
     .text = "graph \"g\" { input %0 : u8[1,9,11,24]" Q("0.5", "0") "\n"
             "input %1 : u8[1,9,11,24]" Q("0.25", "255") "\n" ADD_BODY("")
             "%5 = narrow %4 {frac=7, hi=255, lo=0, to=\"u8\", zero=128} @\"n\"\noutput %5 }",
     .kernels = "P4"},
    {.name = "add, no fraction, signed, a large tensor",
     .text = "graph \"g\" { input %0 : i8[1,50,61,7]" Q("0.5", "-128") "\n"
             "input %1 : i8[1,50,61,7]" Q("0.25", "127") "\n" ADD_BODY("")
             "%5 = narrow %4 {frac=0, to=\"i8\", zero=-3} @\"n\"\noutput %5 }",
     .kernels = "P4"},
    {.name = "largest fraction",
     .text = "graph \"g\" { input %0 : u8[3,100]" Q("0.5", "0") "\n"
             "input %1 : u8[3,100]" Q("0.25", "0") "\n" ADD_BODY("")
             "%5 = narrow %4 {frac=14, to=\"u8\", zero=100} @\"n\"\noutput %5 }",
     .kernels = "P4"},
    {.name = "to 16 bits",
     .text = "graph \"g\" { input %0 : u8[3,100]" Q("0.5", "0") "\n"
             "input %1 : u8[3,100]" Q("0.25", "0") "\n" ADD_BODY("")
             "%5 = narrow %4 {frac=1, to=\"i16\", zero=30000} @\"n\"\noutput %5 }",
     .kernels = "P4"},
    {.name = "broadcast of a row of channels, with a table",
     .text = "graph \"g\" { input %0 : u8[1,6,7,40]" Q("0.5", "3") "\n"
             "input %1 : u8[40]" Q("0.25", "5") "\n" ADD_BODY("")
             "%5 = narrow %4 {frac=5, to=\"u8\", zero=128} @\"n\"\n"
             "const %6 : u8[256]" Q("0.1", "0") " = random 3\n"
             "%7 = lut %5, %6 {scale=0.1, zero=2} @\"l\" \"HardSwish\"\noutput %7 }",
     .kernels = "P5"},
    {.name = "broadcast of one element per pixel",
     .text = "graph \"g\" { input %0 : u8[1,6,7,40]" Q("0.5", "3") "\n"
             "input %1 : u8[1,6,7,1]" Q("0.25", "5") "\n" ADD_BODY("")
             "%5 = narrow %4 {frac=5, to=\"u8\", zero=128} @\"n\"\noutput %5 }",
     .kernels = "P4"},
    {.name = "constant operand",
     .text = "graph \"g\" { input %0 : u8[2,70]" Q("0.5", "3") "\n"
             "const %1 : u8[70]" Q("0.25", "5") " = random 8\n" ADD_BODY("")
             "%5 = narrow %4 {frac=5, to=\"u8\", zero=128} @\"n\"\noutput %5 }",
     .kernels = "P4"},
    {.name = "table alone, with a halo",
     .text = "graph \"g\" { input %0 : u8[2,5,6,19]" Q("0.5", "3") "\n"
             "const %1 : u8[256]" Q("0.1", "0") " = random 5\n"
             "%2 = lut %0, %1 {scale=0.1, zero=77} @\"l\"\n"
             "%3 = lut %2, %1 {scale=0.1, zero=0} @\"m\"\noutput %3 }",
     .halo = {1, 2, 3, 1}},
    {.name = "table of 16 bits",
     .text = "graph \"g\" { input %0 : u8[1,77]" Q("0.5", "3") "\n"
             "const %1 : i16[256]" Q("0.1", "0") " = random 5\n"
             "%2 = lut %0, %1 {scale=0.1, zero=0} @\"l\"\noutput %2 }"},
    {.name = "minimum and maximum",
     .text = "graph \"g\" { input %0 : u8[1,5,6,19]" Q("0.5", "3") "\n"
             "input %1 : u8[1,5,6,19]" Q("0.5", "3") "\n"
             "%2 = max %0, %1 @\"a\"\n%3 = min %2, %1 @\"b\"\noutput %3\noutput %2 }"},
    {.name = "maximum of signed numbers",
     .text = "graph \"g\" { input %0 : i8[333]" Q("0.5", "3") "\n"
             "input %1 : i8[1]" Q("0.5", "3") "\n"
             "%2 = max %0, %1 @\"a\"\noutput %2 }"},
    {.name = "a single element",
     .text = "graph \"g\" { input %0 : u8[1]" Q("0.5", "17") "\n"
             "%1 = rescale %0 {mult=32767, scale=0.001} @\"r\"\n"
             "%2 = narrow %1 {frac=4, to=\"u8\", zero=9} @\"n\"\noutput %2 }",
     .kernels = "P2"},
};

RIG_MAIN(cases)
