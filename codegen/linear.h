/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Convolution and matrix product as one problem: for every output position and
 * channel, a sum over runs of contiguous input bytes.  linear.c reads it from the
 * graph, tiles.c cuts it into register tiles, pack_weights.c lays the weights out
 * accordingly, gemm.c writes the code; emit_linear.c puts these together.
 */
#ifndef MPQC_CODEGEN_LINEAR_H
#define MPQC_CODEGEN_LINEAR_H

#include "codegen/emit.h"

struct mpqc_linear {
    mpqc_vid x;
    const int8_t *w;     /* [KH,KW,IC/group,OC] */
    const int32_t *bias; /* [OC], or NULL */
    int64_t batch, rows, cols; /* output positions */
    bool flat;                 /* positions lie in one line: batch == rows == 1 */
    int64_t groups, icg, ocg;  /* channels per group */
    /* Not 0: groups so small that vectors hold several (or just one) are taken together:
     * groups == 1, ocg counts all channels, and `fan` neighbouring ones sum over the same icg
     * of the input. */
    int64_t fan;
    int64_t kh, kw;
    /* Input bytes from the operand's pointer to the first tap of position 0, and per
     * step of batch, row, column of the output. */
    int64_t x_first, x_batch, x_row, x_col;
    /* Elements in the output's place and in the residual's. */
    int64_t out_batch, out_row, out_col;
    int64_t res_batch, res_row, res_col;
    /* Summation: n_outer x n_inner runs of `run` bytes; each takes k4 = ceil(run / 4)
     * steps of four bytes, the last filled up with zero weights. */
    int64_t n_outer, outer_step, n_inner, inner_step, run, k4;
    int64_t braid; /* not 0: the run is several rows (mpqc_braid); bytes of a row's end */
    unsigned bits; /* of stored weights: 8, or packed, see pack_weights.c */
    unsigned w_bits, x_bits; /* of the codes of weights and activations */
    int64_t sh, sw, dh, dw;  /* strides and dilations */
    unsigned x_bytes, per_lane; /* of an activation: 1 or 2; weights of a lane in a step: 4 or 2 */
    int64_t group; /* inputs that share a factor (struct mpqc_groups), or 0 */
    const int8_t *factor;
    bool exact; /* bytes behind the value may not be read, and steps reach behind it */
    bool once;  /* each position may be computed once only: the residual is in place */
};
mpqc_status mpqc_linear_read(struct mpqc_emit_cx *, const struct mpqc_kernel *,
                             struct mpqc_linear *out) MPQC_MUST_CHECK;
/* The second half of mpqc_emit_linear. */
mpqc_status mpqc_emit_gemm(struct mpqc_emit_cx *, const struct mpqc_kernel *,
                           const struct mpqc_linear *, struct mpqc_kernel_code *) MPQC_MUST_CHECK;
/* Extents [0, n_axes) of a value as one line of `count` steps of `stride` elements;
 * false when its place does not allow that. */
bool mpqc_place_collapse(const struct mpqc_type *, const struct mpqc_place *, uint32_t n_axes,
                         int64_t *count, int64_t *stride);

/* A panel: columns computed together.  Within a group there are n_full equal ones,
 * then `n_rest` others. */
#define MPQC_MAX_REST 8
struct mpqc_panels {
    struct mpqc_columns full;
    int64_t n_full;
    struct mpqc_columns rest[MPQC_MAX_REST];
    unsigned n_rest;
};
/* The schedule. A unit is mh rows of positions (flat: mw positions). */
struct mpqc_tile {
    int64_t mh, mw;
    struct mpqc_panels panels;
    int64_t units;   /* per image, the last may be smaller */
    bool overlap;    /* no smaller tiles: the last one is moved back and computes some
                        positions again */
    bool rolled;     /* positions are finished in a loop, by way of memory */
    const struct mpqc_form *form; /* how products are summed; NULL: by the dot step */
    int64_t block;   /* units that are computed for all panels before going on */
    bool by_panel;   /* the kernel's range counts panels, not units */
    bool far_weights; /* plain ones of a network that the second cache does not hold, for
                         several tiles of an image */
    int64_t fetching; /* tiles of an image, if they fetch the next panel's weights, or 0 */
    bool stream;     /* packed weights are read once, and more than a cache holds */
    unsigned unroll; /* steps in the inner loop's body */
    unsigned split;  /* independent sets of accumulators, against latency */
    /* gemm_amx.c computes the units: positions and bytes of a tile, chunks of a run; tiles
     * of positions and of 16 channels in a group */
    bool amx;
    int64_t amx_rows, amx_bytes, amx_chunks;
    int64_t amx_pitch; /* not 0: an image is one line, with rows so far apart */
    /* bitserial.c does the units: so many rows, or where flat, positions; mw in a tile */
    bool serial;
    int64_t band;
    unsigned amx_m, amx_n;
};
#define MPQC_FAN_INPUTS 16 /* of groups that share a vector: their steps have no loop */
/* Code that is worth writing without a loop, in bytes. */
#define MPQC_UNROLL_BYTES 1000
#define MPQC_UNROLL_GROUP 3500 /* steps of a group of weights: a loop in a loop costs more */
/* The cost model counts tenths of a cycle.  A byte of code costs its way into the
 * instruction cache, once per run of the network; in small networks it costs more,
 * because a library should not be much larger than its weights. */
int64_t mpqc_cost_of_byte(const struct mpqc_emit_cx *);
/* Estimates: bytes of code of so many steps of m positions x nv vectors; of finishing one
 * position; time of finishing a tile. */
int64_t mpqc_steps_code(const struct mpqc_isa *, const struct mpqc_form *, unsigned bits,
                        int64_t steps, int64_t m, unsigned nv);
int64_t mpqc_finish_code(unsigned nv);
int64_t mpqc_finish_cost(int64_t m, unsigned nv, bool rolled);
/* The layer as tiles in a form sum it, where rows of taps are so short that they go together
 * (gemm_braid.c); false: as it is.  tap: which byte of all rows, one behind the other, is the
 * i-th of such a run. */
bool mpqc_braid(const struct mpqc_linear *, struct mpqc_linear *out);
int64_t mpqc_braid_tap(const struct mpqc_linear *, int64_t i);
/* Panels of nv vectors, for tiles in a form or (NULL) none. */
void mpqc_panels_make(const struct mpqc_emit_cx *, const struct mpqc_linear *,
                      const struct mpqc_form *, unsigned nv, struct mpqc_panels *);
/* How many positions side by side of a tile of mh x mw are four whole vectors and one line in
 * the output and in the residual, so that they are finished like one position: 4, 2, or 1: they
 * are not. */
int64_t mpqc_line_positions(const struct mpqc_isa *, const struct mpqc_linear *,
                            const struct mpqc_columns *, int64_t mh, int64_t mw);
/* The tile that e->tiles asks for, or the cheapest; shape: see struct mpqc_tile_facts. */
void mpqc_tile_choose(const struct mpqc_emit_cx *, const struct mpqc_linear *, uint64_t shape,
                      struct mpqc_tile *out);

/* Panels [first, last) of a group (i64, both NULL: all), of which the full ones come first.
 * w: where the group's weights begin; bytes: of a panel's; panel: emits one, whose first channel
 * of the group and weights it is told. */
struct mpqc_panel_walk {
    void *user;
    int64_t (*bytes)(const void *user, const struct mpqc_columns *);
    void (*panel)(void *user, const struct mpqc_columns *, LLVMValueRef channel, LLVMValueRef w);
};
void mpqc_panels_walk(struct mpqc_emit_cx *, const struct mpqc_panels *,
                      const struct mpqc_panel_walk *, LLVMValueRef w, LLVMValueRef first,
                      LLVMValueRef last);

/* The body: units (or panels) [from, to).  x, w: its operands. */
void mpqc_gemm_body(struct mpqc_emit_cx *, const struct mpqc_kernel *, const struct mpqc_linear *,
                    const struct mpqc_tile *, struct mpqc_epilogue *, LLVMValueRef x,
                    LLVMValueRef w, LLVMValueRef from, LLVMValueRef to);

/* AMX.  tile_of: groups of 4/n x n tiles of positions x channels, whose positions are a line or
 * are not, and their cost; false: this layer has none such.  Weights are packed by amx_pack, given
 * a copy of the layer whose k4 is that of whole chunks, bodies are framed by
 * begin and end, panels by panel_begin and panel_end, and each unit of `height` x `width`
 * positions is done by amx_unit. */
struct mpqc_amx {
    struct mpqc_emit_cx *e;
    const struct mpqc_linear *l;
    const struct mpqc_tile *t;
    struct mpqc_epilogue *ep;
    const struct mpqc_columns *c; /* of the panel; its first channel, its weights */
    LLVMValueRef channel, w;
    /* gemm_amx.c's own: [position][vector] of the group that is to be finished; per tile
     * element offsets and how many positions are not to be stored */
    LLVMValueRef sums, out_at, res_at, skip, first;
    LLVMValueRef bias[MPQC_MAX_COLUMNS];
};
struct mpqc_amx_unit {
    LLVMValueRef x, position, residual; /* element offsets, `channel` included */
    int64_t height, width;
};
bool mpqc_amx_tile_of(const struct mpqc_emit_cx *, const struct mpqc_linear *, unsigned n,
                      bool line, struct mpqc_tile *out, int64_t *cost);
int8_t *mpqc_amx_pack(struct mpqc_emit_cx *, const struct mpqc_linear *, const struct mpqc_tile *,
                      size_t *bytes);
void mpqc_amx_begin(struct mpqc_emit_cx *, const struct mpqc_tile *);
void mpqc_amx_end(struct mpqc_emit_cx *);
void mpqc_amx_panel_begin(struct mpqc_amx *);
void mpqc_amx_panel_end(struct mpqc_amx *);
void mpqc_amx_unit(struct mpqc_amx *, const struct mpqc_amx_unit *);

/* Bit-serial kernels, see bitserial.h.  tile_of: tiles of m positions x nv vectors; false
 * where the target or the layer has none.  choose: as that of AMX.  weights:
 * a global of all planes, NULL when memory ran out.  body: units (or panels) [from, to). */
bool mpqc_serial_tile_of(const struct mpqc_emit_cx *, const struct mpqc_linear *, int64_t m,
                         unsigned nv, struct mpqc_tile *out);
bool mpqc_serial_choose(const struct mpqc_emit_cx *, const struct mpqc_linear *, int64_t *best,
                        struct mpqc_tile *out);
LLVMValueRef mpqc_serial_weights(struct mpqc_emit_cx *, const struct mpqc_linear *,
                                 const struct mpqc_tile *);
void mpqc_serial_body(struct mpqc_emit_cx *, const struct mpqc_kernel *, const struct mpqc_linear *,
                      const struct mpqc_tile *, struct mpqc_epilogue *, LLVMValueRef x,
                      LLVMValueRef w, LLVMValueRef from, LLVMValueRef to);

/* How weights of fewer than 8 bits lie in bytes.  A code w + 2^(bits-1) is cut into one
 * or two planes of 4, 2 or 1 bits.  A plane has as many steps in one row of bytes as fit
 * a byte, so a row serves several steps of all columns at once, each by a shift and a
 * mask.  A bundle is `steps` steps, the least number that fills all rows. */
struct mpqc_packing {
    unsigned steps, n;         /* n: planes; 0: plain bytes, one step a bundle */
    unsigned bits[2], shift[2]; /* of a plane; where they belong in the code */
};
struct mpqc_packing mpqc_packing_of(unsigned bits);
/* Rows of per_lane bytes a lane that `steps` steps take, which begin with a bundle. */
int64_t mpqc_packed_rows(unsigned bits, int64_t steps);
/* Instructions that unpack one vector. */
unsigned mpqc_unpack_ops(unsigned bits);

/* Factors of a panel's groups, which follow its codes. */
int64_t mpqc_factor_bytes(const struct mpqc_linear *, const struct mpqc_columns *);
/* Bytes of one run's weights, of one panel's, of one group's. */
int64_t mpqc_run_bytes(const struct mpqc_linear *, const struct mpqc_columns *);
int64_t mpqc_panel_bytes(const struct mpqc_linear *, const struct mpqc_columns *);
int64_t mpqc_group_bytes(const struct mpqc_linear *, const struct mpqc_panels *);
/* Steps of a run that are stored if the layer takes a form. */
int64_t mpqc_form_steps(const struct mpqc_form *, int64_t k4);
/* Weights in the order of computation: [group][panel][run][k4][column lane][per_lane],
 * with [bundle][row] for [k4] where they are packed.  A form (or NULL) has its own order of the
 * bytes of a few steps.  The second: the sum of each output channel's weights, [oc].
 * NULL: out of memory. */
int8_t *mpqc_pack_weights(struct mpqc_emit_cx *, const struct mpqc_linear *,
                          const struct mpqc_panels *, const struct mpqc_form *, size_t *bytes);
int32_t *mpqc_weight_sums(struct mpqc_emit_cx *, const struct mpqc_linear *);
/* bias[oc] + (x_offset - zero of x) * sum of weights, wrapping. NULL: out of memory.
 * x_offset: the ISA's, or 0 where activations are multiplied as they are. */
int32_t *mpqc_linear_bias(struct mpqc_emit_cx *, const struct mpqc_linear *, int32_t x_offset);


/* The residual that the kernel adds, or MPQC_NONE. */
mpqc_vid mpqc_kernel_residual(const struct mpqc_emit_cx *, const struct mpqc_kernel *);
/* Does the output take its memory? */
bool mpqc_kernel_in_place(const struct mpqc_emit_cx *, const struct mpqc_kernel *);

/* Vectors of n channels: full ones, then halves down to 4 lanes; may_pad: a padded full
 * vector may stand for three narrow ones.  Returns the number of tails. */
#define MPQC_MAX_TAIL 8
unsigned mpqc_split_channels(int64_t n, unsigned lanes, bool may_pad, int64_t *full,
                             unsigned tail[MPQC_MAX_TAIL]);

/* A window that moves over each channel by itself: depthwise convolution, pools. */
struct mpqc_window {
    mpqc_vid x;
    int64_t batch, rows, cols, channels; /* of the output */
    int64_t kh, kw;
    int64_t x_first, x_batch, x_row, x_col; /* as in mpqc_linear */
    int64_t tap_row, tap_col;               /* bytes between taps */
    int64_t out_batch, out_row, out_col, res_batch, res_row, res_col;
    const int8_t *w; /* [KH,KW,C]; NULL: all ones */
    const int32_t *bias;
    bool once; /* as in mpqc_linear */
    int64_t held; /* vector registers that a table of the epilogue takes */
    bool may_share; /* nothing is added, factors are not by position: see mpqc_columns.shared */
};
mpqc_status mpqc_emit_window(struct mpqc_emit_cx *, const struct mpqc_kernel *,
                             const struct mpqc_window *, struct mpqc_kernel_code *)
    MPQC_MUST_CHECK;
/* window_direct.c: for targets that do it better without interleaving taps. */
bool mpqc_window_is_direct(const struct mpqc_emit_cx *, const struct mpqc_window *);
mpqc_status mpqc_emit_window_direct(struct mpqc_emit_cx *, const struct mpqc_kernel *,
                                    const struct mpqc_window *, struct mpqc_kernel_code *)
    MPQC_MUST_CHECK;

/* Depthwise convolution of 16-bit activations (emit_wide.c). */
mpqc_status mpqc_emit_wide_window(struct mpqc_emit_cx *, const struct mpqc_kernel *,
                                  const struct mpqc_linear *, struct mpqc_kernel_code *)
    MPQC_MUST_CHECK;

#endif
