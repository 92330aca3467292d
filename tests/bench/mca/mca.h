/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * How far are the inner loops of layers from what a core can multiply, in the opinion of
 * llvm-mca?  layers.c compiles, loops.c finds the loops, mca.c asks and prints.
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

/* An instruction that multiplies: its first word and the arrangement of its result.  cnt does,
 * between an AND and an addition: 128 products of bits. */
struct mca_multiply {
    const char *name, *shape;
    int macs;
    const char *x, *w; /* arrangements of the factors; w is NULL for cnt */
};
extern const struct mca_multiply mca_multiplies[];
extern const unsigned mca_n_multiplies;
#define MCA_MAX_MULTIPLIES 16

/* The loop that multiplies most, with no other such loop in it. */
struct mca_loop {
    char *text;
    unsigned instructions, loads, stack; /* stack: loads and stores by sp */
    unsigned stored, narrowed; /* bytes of vector registers, elsewhere; words made bytes */
    unsigned count[MCA_MAX_MULTIPLIES];  /* of each kind */
};
/* false: the file has none.  text is to be freed. */
bool mca_find_loop(const char *path, struct mca_loop *out);

#endif
