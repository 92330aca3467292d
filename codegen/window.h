/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Windows that move over each channel by itself, inside: window_schedule.c decides how
 * one is cut up, window_quartets.c into which groups of taps, window_tile.c emits a tile,
 * emit_depthwise.c what is around tiles.
 *
 * Vectors run along channels.  Four taps are interleaved byte by byte, so that one dot
 * step sums four taps of each channel; a block is 4 accumulator vectors of L lanes, 4 L
 * channels (`interleaved` columns).  Four taps are four rows of one input column, so that
 * a quartet serves every output column which has that column in its window.  Rows that are
 * left over when they are no multiple of four are taken from several columns at once: one
 * row from four, two rows from two.  Or columns follow each other, row by row, and are cut into
 * quartets wherever four are full: 3x3 with stride 2 then takes three quartets for four
 * columns and no more dot steps, but more weights.
 *
 * A pass takes all four vectors of a block, or two in each of two passes.  What vector
 * registers are left beside accumulators and the epilogue's parameters hold the weights that
 * are used most; the others are operands in memory.
 *
 * The last channels of a layer, 16 at most, leave most of a wide vector empty; so several
 * positions share one, which are far from each other in a row (mpqc_columns.shared).
 *
 * A tile is a row of output positions, or two rows of them: four input rows are all that
 * two rows of 3x3 windows see, and so are interleaved once for both.
 */
#ifndef MPQC_CODEGEN_WINDOW_H
#define MPQC_CODEGEN_WINDOW_H

#include "codegen/linear.h"

#define MPQC_WINDOW_MAX_TILE 8
#define MPQC_WINDOW_MAX_HEIGHT 2
#define MPQC_WINDOW_MAX_POSITIONS (MPQC_WINDOW_MAX_TILE * MPQC_WINDOW_MAX_HEIGHT)
#define MPQC_WINDOW_MAX_PATTERNS 40
#define MPQC_WINDOW_MAX_QUARTETS 96

struct mpqc_window_block {
    struct mpqc_columns c; /* 4 vectors */
    int64_t first, count;  /* channels first, first + 4L, ... */
    int64_t cols, tile;    /* output columns; those that a tile takes */
    /* A block whose columns are shared computes as many columns of a row at the same time, the
     * first `cols` of it and those that start there. */
    int64_t start[MPQC_MAX_SHARED];
    int64_t weight_bytes;  /* of one block */
    int64_t weight_first;
    /* By pass: patterns whose weights stay in registers while tiles follow each other; those of
     * others are operands in memory. */
    bool kept[2][MPQC_WINDOW_MAX_PATTERNS];
};

/* The weights of one quartet of taps in the eyes of one output position: kh * KW + kw, or
 * -1 for a tap that is not in its window. */
struct mpqc_window_pattern {
    int16_t tap[4];
};

/* Four taps that are interleaved: bytes from the first tap of a tile (n of them), and
 * the pattern with which they enter each output position of the tile, or -1. */
struct mpqc_window_quartet {
    int64_t at[4];
    unsigned n;
    int pattern[MPQC_WINDOW_MAX_POSITIONS]; /* [row][column] */
};

struct mpqc_window_plan {
    struct mpqc_window_block blocks[4];
    unsigned n_blocks;
    int64_t groups; /* of four rows of taps: ceil(kh / 4) */
    int64_t tile;   /* output columns computed together */
    int64_t height; /* output rows computed together; the kernel's range counts them as one */
    bool overlap;   /* the last tile is moved back, else it may be smaller */
    bool rolled;    /* positions are finished in a loop, by way of memory */
    bool loops;     /* tile 1: taps are taken in loops, else in straight-line code */
    bool stream;    /* quartets are cut without regard to where columns end */
    bool halves;    /* two passes over the columns, of two vectors each: fewer registers */
    struct mpqc_window_pattern patterns[MPQC_WINDOW_MAX_PATTERNS];
    unsigned n_patterns;
};

/* Channels of one position in a block. */
int64_t mpqc_window_channels(const struct mpqc_window_block *);
/* The cheapest plan; gives its cost. */
int64_t mpqc_window_choose(struct mpqc_emit_cx *, const struct mpqc_window *,
                           struct mpqc_window_plan *out);
/* Taps from the first row of windows to that of the next output row; 0: no whole number. */
int64_t mpqc_window_row_taps(const struct mpqc_window *);
/* The quartets of a tile of `height` rows of `width` columns, from left to right.  Patterns
 * that the plan lacks are added to it.  0: there are too many of either. */
unsigned mpqc_window_quartets(const struct mpqc_window *, struct mpqc_window_plan *,
                              int64_t height, int64_t width,
                              struct mpqc_window_quartet out[MPQC_WINDOW_MAX_QUARTETS]);
/* [block][pattern][4 vectors][lane][4 taps]. NULL: out of memory. */
int8_t *mpqc_window_pack(struct mpqc_emit_cx *, const struct mpqc_window *,
                         const struct mpqc_window_plan *, size_t *bytes);

/* Where a row or tile begins: input, output, residual, index of the position. */
struct mpqc_window_origin {
    LLVMValueRef x, position, residual, index;
};
/* The same `columns` (i64) further. */
struct mpqc_window_origin mpqc_window_move(struct mpqc_emit_cx *, const struct mpqc_window *,
                                           struct mpqc_window_origin, LLVMValueRef columns);

/* A tile at work: positions of one block.  The vectors of its accumulators are those of the
 * pass; packed: in the first pass where the halves of the positions go, in the second
 * where they come from, packed_row bytes from row to row. */
struct mpqc_window_tile {
    struct mpqc_emit_cx *e;
    const struct mpqc_window *p;
    struct mpqc_window_plan *plan;
    struct mpqc_epilogue *ep;
    const struct mpqc_window_block *b;
    bool exact; /* loads may not run over the end */
    LLVMValueRef w, channel; /* the block's weights, its first channel */
    LLVMValueRef last_w;     /* w again, as where weights were last read from memory */
    LLVMValueRef packed;
    int64_t packed_row;
    unsigned pass;
    int64_t height, width;
    LLVMValueRef var[MPQC_WINDOW_MAX_POSITIONS * 4 * 2];
};
void mpqc_window_tile(struct mpqc_window_tile *, struct mpqc_window_origin);

#endif
