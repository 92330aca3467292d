/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Bit-serial kernels: dense convolution and matrix product of 1- and 2-bit weights by 1- and
 * 2-bit activations, from the planes of their bits (Umuroglu and Jahre, "Streamlined
 * Deployment for Quantized Neural Networks", 2017):
 *
 *     sum_k x[k] w[k] = sum_ij 2^(i+j) sum_k x_i[k] w_j[k],   x_i, w_j in {0, 1}
 *
 * where 32 products of bits are one AND and one population count of a lane.  Lanes are
 * output channels; a word of the activations' plane (32 channels of a pixel) goes to all of
 * them.  Weights of 2 bits are two's complement, so plane 1 counts negative; those of 1 bit
 * are 2 w_0 - 1, so twice the sum less the sum of the window's activations is wanted.
 *
 * AArch64 counts the bits of bytes, not of lanes, so sums are bytes too, until they are as long
 * as a byte holds (`most` words), and then go to 32-bit accumulators.  Its words lie once for
 * each lane, because sending one to all of them would be a vector instruction.
 *
 * Activations lie in bytes, as for all other kernels.  A body makes the planes of a band of
 * rows on its stack (bitserial_planes.c), then runs tiles over it (bitserial_tile.c);
 * bitserial.c chooses tiles and writes what is around them.
 */
#ifndef MPQC_CODEGEN_BITSERIAL_H
#define MPQC_CODEGEN_BITSERIAL_H

#include "codegen/linear.h"

/* Accumulators of one position and vector: one for each i + j. */
#define MPQC_SERIAL_SUMS 3
#define MPQC_SERIAL_VARS 32
#define MPQC_SERIAL_PAIR_BYTES 20 /* of code, of one pair of planes */

struct mpqc_serial {
    struct mpqc_emit_cx *e;
    const struct mpqc_linear *l;
    const struct mpqc_tile *t;
    struct mpqc_epilogue *ep;
    /* The shape.  Pixels of a band that no tap reads are left out. */
    int64_t words, word;          /* of a pixel; bytes of one, with its copies */
    int64_t rows, cols;           /* of a band's positions, at most */
    int64_t rows_in, cols_in;     /* of its pixels */
    int64_t sh, sw, dh, dw;       /* pixels from position to position, from tap to tap */
    int64_t pitch_row, pitch_col; /* input bytes from pixel to pixel */
    int64_t plane, row;           /* bytes of a row of one plane, of a row of all planes */
    int64_t run, runs;            /* words in line of a row of taps, and how many such lines */
    int64_t most;                 /* words that sums in bytes may be long; 0: no such sums */
    /* The body at work: operands; planes [row][plane][pixel][word]; sums of the activations
     * of pixels and of windows, where 1-bit weights need them. */
    LLVMValueRef x, w, planes, pixel_sums, window_sums;
    LLVMValueRef accumulators; /* their memory, where sums in bytes are joined more than once */
    /* the panel at work: columns, first channel, weights [tap][word][plane][lane] */
    const struct mpqc_columns *c;
    LLVMValueRef channel, panel_w;
    /* [position][vector][i + j] of the tile: accumulators; sums in bytes, and how many words
     * they are long where code is being written */
    LLVMValueRef var[MPQC_SERIAL_VARS], byte[MPQC_SERIAL_VARS];
    int64_t since;
};

/* Bytes of a panel's weights. */
int64_t mpqc_serial_panel_bytes(const struct mpqc_serial *, const struct mpqc_columns *);
/* How many accumulators a position has for each vector. */
unsigned mpqc_serial_sums(const struct mpqc_linear *);

/* Planes, and sums if they are needed, of `rows` (i64) rows of positions, `cols` wide;
 * x: the first pixel. */
void mpqc_serial_planes(struct mpqc_serial *, LLVMValueRef x, LLVMValueRef rows, int64_t cols);
/* m positions of the panel at work.  x: the first one's first tap in plane 0, sum: its
 * window's sum; position, residual: its element offsets, `channel` included. */
void mpqc_serial_tile(struct mpqc_serial *, int64_t m, LLVMValueRef x, LLVMValueRef sum,
                      LLVMValueRef position, LLVMValueRef residual);

#endif
