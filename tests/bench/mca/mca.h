/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * How far are the inner loops of layers from what a core can multiply, in the opinion of
 * llvm-mca?  layers.c compiles, loops.c finds the loops, arch.c knows the assembly, mca.c asks
 * and prints.
 */
#ifndef MPQC_TESTS_MCA_H
#define MPQC_TESTS_MCA_H

#include "codegen/codegen.h"

#include <stdio.h>

struct mca_layer {
    const char *name;
    int size, channels, k, channels_out, stride, groups; /* k == 0: matrix by vector */
    unsigned weight_bits, activation_bits;               /* 0: 8 */
};
/* Assembly of the layer for a row of targets.def; says why not. */
bool mca_compile(const struct mca_layer *, const char *target, const char *path);

/* An instruction that multiplies.  shape: how it shows which of several of that name it is
 * (struct mca_arch.shape); code: one that depends on no other, "#" for a register's number, ";"
 * between several. */
struct mca_multiply {
    const char *name, *shape;
    int macs;
    const char *code;
    bool sums;   /* adds to its last operand, a register */
    bool counts; /* bits, between an AND and an addition: macs are products of bits */
};

/* What assembly of an architecture looks like, and what llvm-mca is to be told. */
struct mca_arch {
    const char *name, *triple; /* name: as in targets.def */
    char branch[4];            /* first letters of branches, which name labels */
    const char *stack;         /* how operands on the stack are written */
    int registers;             /* for independent multiplications, from number 0 on */
    const struct mca_multiply *multiplies;
    unsigned n_multiplies;
    /* Of an instruction without white space before it: does it load?  Has it this shape? */
    bool (*loads)(const char *instruction);
    bool (*has_shape)(const char *instruction, const char *shape);
    /* Bytes of vector registers that it stores outside the stack; does it make words bytes, as
     * the end of a tile does?  NULL: not told. */
    unsigned (*stores)(const char *instruction);
    bool (*narrows)(const char *instruction);
};
extern const struct mca_arch mca_aarch64, mca_x86_64;
#define MCA_MAX_MULTIPLIES 16

/* The loop that multiplies most, with no other such loop in it. */
struct mca_loop {
    char *text;
    unsigned instructions, loads, stack; /* stack: loads and stores there */
    unsigned stored, narrowed; /* bytes of vector registers, elsewhere; words made bytes */
    unsigned count[MCA_MAX_MULTIPLIES];  /* of each kind */
};
/* steps: 0, or of the loop over K that a 1x1 layer may have, which then is written out as often
 * as it turns, with the rest of the tile around it.  false: the file has none.  text is to be
 * freed. */
bool mca_find_loop(const struct mca_arch *, const char *path, int steps, struct mca_loop *out);

#endif
