/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Depthwise convolution on AArch64, inside.  window_direct.c has the kernel (rows, blocks of
 * channels, tiles of columns) and, for targets without a dot product of bytes, its sums;
 * window_dots.c has the sums for targets with one.
 */
#ifndef MPQC_CODEGEN_WINDOW_DIRECT_H
#define MPQC_CODEGEN_WINDOW_DIRECT_H

#include "codegen/window.h"

#define MPQC_DIRECT_BLOCKS 2
#define MPQC_DOTS_PATTERNS 16 /* more are too many bytes of weights */

struct mpqc_direct_block {
    struct mpqc_columns c;
    int64_t first, count, weight_first;
};

/* Weights of a quartet of taps in the eyes of one output: kh * KW + kw, or -1. */
struct mpqc_dots_pattern {
    int16_t tap[4];
};

/* How window_dots.c takes a window; see there. */
struct mpqc_dots {
    int64_t high;      /* output rows computed together, 1 or 2 */
    int64_t pitch;     /* slots of an input column */
    int64_t step;      /* slots from one output column to the next */
    int64_t span;      /* slots from an output's first to its last, plus one */
    int64_t turn;      /* output columns of one turn of the loop */
    int64_t carried;   /* quartets that a turn takes over from the one before */
    struct mpqc_dots_pattern patterns[MPQC_DOTS_PATTERNS];
    unsigned n_patterns;
};

struct mpqc_direct {
    struct mpqc_emit_cx *e;
    const struct mpqc_window *p;
    struct mpqc_epilogue *ep;
    struct mpqc_direct_block blocks[MPQC_DIRECT_BLOCKS];
    unsigned n_blocks;
    int64_t tile;
    bool exact;
    const struct mpqc_dots *dots; /* NULL: window_direct.c's own sums */
    LLVMValueRef x, w;
    /* at work */
    const struct mpqc_direct_block *b;
    LLVMValueRef block_w, channel;
    /* In bytes and elements from the first of two output rows: the row of inputs behind its
     * own, where the second row goes.  If there is no second one: an own row, and 0. */
    struct mpqc_window_origin next;
};

int64_t mpqc_direct_channels(const struct mpqc_direct_block *);
/* The block's channels at x + at, a byte each. */
LLVMValueRef mpqc_direct_load(struct mpqc_direct *, LLVMValueRef x, int64_t at);

/* false: this window is not for window_dots.c. */
bool mpqc_dots_plan(const struct mpqc_emit_cx *, const struct mpqc_window *, struct mpqc_dots *out);
/* Four taps of each channel in the order of patterns: what block_w of eight channels from
 * `first` on points to, mpqc_dots_bytes of them. */
int64_t mpqc_dots_bytes(const struct mpqc_dots *);
void mpqc_dots_pack(const struct mpqc_dots *, const struct mpqc_window *, int64_t first,
                    int8_t *to);
/* All columns of the output rows that are computed together, of the block at work. */
void mpqc_dots_rows(struct mpqc_direct *, struct mpqc_window_origin);

#endif
