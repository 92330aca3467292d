/* SPDX-License-Identifier: GPL-3.0-or-later
 * Movement kernels against the interpreter, on every target that runs here.
 */
#include "codegen_rig.h"

#define Q8 " quant(scale=0.5, zero=3)"
#define IN(shape) "graph \"g\" { input %0 : u8" shape Q8 "\n"

static const struct rig_case cases[] = {
    {.name = "image to channels last",
     .text = IN("[1,3,30,31]") "%1 = transpose %0 {perm=[0,2,3,1]} @\"t\"\noutput %1 }"},
    {.name = "image to channels last, large",
     .text = IN("[1,3,64,96]") "%1 = transpose %0 {perm=[0,2,3,1]} @\"t\"\noutput %1 }"},
    {.name = "image to channels last, with a halo",
     .text = IN("[2,3,17,19]") "%1 = transpose %0 {perm=[0,2,3,1]} @\"t\"\n"
                               "%2 = copy %1 @\"c\"\noutput %2 }",
     .halo = {1, 3, 2, 1}},
    {.name = "four channels",
     .text = IN("[1,4,5,16]") "%1 = transpose %0 {perm=[0,2,3,1]} @\"t\"\noutput %1 }"},
    {.name = "two channels",
     .text = IN("[3,2,5,7]") "%1 = transpose %0 {perm=[0,2,3,1]} @\"t\"\noutput %1 }"},
    {.name = "one channel",
     .text = IN("[1,1,28,28]") "%1 = transpose %0 {perm=[0,2,3,1]} @\"t\"\noutput %1 }"},
    {.name = "five channels: no tile",
     .text = IN("[1,5,3,3]") "%1 = transpose %0 {perm=[0,2,3,1]} @\"t\"\noutput %1 }"},
    {.name = "to channels first",
     .text = IN("[1,7,9,40]") "%1 = transpose %0 {perm=[0,3,1,2]} @\"t\"\noutput %1 }"},
    {.name = "matrix",
     .text = IN("[100,37]") "%1 = transpose %0 {perm=[1,0]} @\"t\"\noutput %1 }"},
    {.name = "small matrix",
     .text = IN("[6,5]") "%1 = transpose %0 {perm=[1,0]} @\"t\"\noutput %1 }"},
    {.name = "rows only",
     .text = IN("[4,6,33]") "%1 = transpose %0 {perm=[1,0,2]} @\"t\"\noutput %1 }"},
    {.name = "three axes reversed",
     .text = IN("[4,6,33]") "%1 = transpose %0 {perm=[2,1,0]} @\"t\"\noutput %1 }"},
    {.name = "matrix of floats",
     .text = "graph \"g\" { input %0 : f32[19,23]\n"
             "%1 = transpose %0 {perm=[1,0]} @\"t\"\noutput %1 }"},
    {.name = "matrix of i16",
     .text = "graph \"g\" { input %0 : i16[19,23]" Q8 "\n"
             "%1 = transpose %0 {perm=[1,0]} @\"t\"\noutput %1 }"},
    {.name = "matrix of i64",
     .text = "graph \"g\" { input %0 : i64[9,5]\n"
             "%1 = transpose %0 {perm=[1,0]} @\"t\"\noutput %1 }"},
    {.name = "slice",
     .text = IN("[1,9,10,24]") "%1 = slice %0 {begin=[0,1,2,3], shape=[1,7,5,20], "
                               "step=[1,1,1,1]} @\"s\"\noutput %1 }"},
    {.name = "slice with steps, also backwards",
     .text = IN("[1,9,10,24]") "%1 = slice %0 {begin=[0,8,2,23], shape=[1,5,4,12], "
                               "step=[1,-2,2,-1]} @\"s\"\noutput %1 }"},
    {.name = "concat of channels",
     .text = IN("[1,5,6,16]") "input %1 : u8[1,5,6,7]" Q8 "\nconst %2 : u8[1,5,6,3]" Q8
                              " = random 4\n%3 = concat %0, %1, %2, %0 {axis=3} @\"c\"\noutput %3 }"},
    {.name = "concat of rows, with a halo",
     .text = IN("[1,5,6,16]") "input %1 : u8[1,2,6,16]" Q8 "\n"
                              "%2 = concat %0, %1 {axis=1} @\"c\"\n%3 = copy %2 @\"d\"\noutput %3 }",
     .halo = {1, 1, 1, 1}},
    {.name = "pad with a constant",
     .text = IN("[1,5,6,16]") "%1 = pad %0 {alpha=40.0, pads=[0,1,2,0,0,3,1,5]} @\"p\"\noutput %1 }"},
    {.name = "pad with zero",
     .text = IN("[1,5,6,3]") "%1 = pad %0 {pads=[0,1,2,0,0,3,1,0]} @\"p\"\noutput %1 }"},
    {.name = "pad by reflection",
     .text = IN("[1,5,6,3]") "%1 = pad %0 {mode=\"reflect\", pads=[0,1,2,2,0,4,1,0]} @\"p\"\n"
                             "output %1 }"},
    {.name = "pad by repetition",
     .text = IN("[1,5,6,3]") "%1 = pad %0 {mode=\"edge\", pads=[0,1,2,2,0,7,9,0]} @\"p\"\n"
                             "output %1 }"},
    {.name = "pad floats",
     .text = "graph \"g\" { input %0 : f32[5,6]\n"
             "%1 = pad %0 {alpha=-1.5, pads=[1,1,2,2]} @\"p\"\noutput %1 }"},
    {.name = "expand",
     .text = IN("[1,5,1,7]") "%1 = expand %0 {shape=[2,5,3,7]} @\"e\"\noutput %1 }"},
    {.name = "expand the last axis",
     .text = IN("[4,1]") "%1 = expand %0 {shape=[3,4,70]} @\"e\"\noutput %1 }"},
    {.name = "gather by constants",
     .text = IN("[6,5,9]") "const %1 : i64[2,2] = [3,-1,0,3]\n"
                           "%2 = gather %0, %1 {axis=1} @\"g\"\noutput %2 }"},
    {.name = "gather by one scalar",
     .text = IN("[6,5,9]") "const %1 : i64[] = [4]\n%2 = gather %0, %1 {axis=0} @\"g\"\noutput %2 }"},
    {.name = "gather by computed indices, some outside",
     .text = IN("[6,5,9]") "input %1 : i64[7]\n%2 = gather %0, %1 {axis=2} @\"g\"\noutput %2 }"},
    {.name = "depth to space, DCR",
     .text = IN("[1,4,5,18]") "%1 = depth_to_space %0 {block=3, mode=\"DCR\"} @\"d\"\noutput %1 }"},
    {.name = "depth to space, CRD",
     .text = IN("[2,4,5,36]") "%1 = depth_to_space %0 {block=3, mode=\"CRD\"} @\"d\"\noutput %1 }"},
    {.name = "depth to space, one channel, with a halo",
     .text = IN("[1,4,5,4]") "%1 = depth_to_space %0 {block=2} @\"d\"\n%2 = copy %1 @\"c\"\n"
                             "output %2 }",
     .halo = {1, 1, 1, 1}},
    {.name = "space to depth",
     .text = IN("[1,4,6,5]") "%1 = space_to_depth %0 {block=2} @\"d\"\noutput %1 }"},
    {.name = "channel shuffle, 2 groups",
     .text = IN("[1,4,6,116]") "%1 = channel_shuffle %0 {group=2} @\"d\"\noutput %1 }"},
    {.name = "channel shuffle, 3 groups, with a halo",
     .text = IN("[1,4,6,60]") "%1 = channel_shuffle %0 {group=3} @\"d\"\n%2 = copy %1 @\"c\"\n"
                              "output %2 }",
     .halo = {1, 1, 1, 1}},
    {.name = "channel shuffle, 8 groups",
     .text = IN("[1,4,6,64]") "%1 = channel_shuffle %0 {group=8} @\"d\"\noutput %1 }"},
    {.name = "channel shuffle, small",
     .text = IN("[2,3,6]") "%1 = channel_shuffle %0 {group=3} @\"d\"\noutput %1 }"},
    {.name = "reshape out of a halo",
     .text = IN("[1,4,6,6]") "%1 = copy %0 @\"c\"\n%2 = reshape %1 {shape=[2,2,36]} @\"r\"\n"
                             "output %2 }",
     .halo = {1, 1, 1, 1}},
    {.name = "nothing to move",
     .text = IN("[0,4]") "%1 = transpose %0 {perm=[1,0]} @\"c\"\noutput %1 }"},
};

RIG_MAIN(cases)
