/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * An instruction set, as far as kernel templates need to know it: a record of
 * facts and emit functions.  Templates own loops, tiles and addresses; an ISA file
 * only fills this record.  Adding an instruction set is one file and one row of
 * targets.def.
 */
#ifndef MPQC_CODEGEN_ISA_H
#define MPQC_CODEGEN_ISA_H

#include "codegen/llvm.h"

#include <stdbool.h>

struct mpqc_emit_cx;

/* A form of matrix products: another way to multiply, where more than one group of four
 * along K is taken at once.  Column vectors have four lanes.
 *
 * A block is up to `steps` groups.  Weights lie [area][lane][4 * wide], so an area holds
 * `wide` groups of all lanes; it is read as `wide` steps of n vectors of 16 bytes, of
 * which vector i of the area holds lanes from 4 i / wide on.  K is filled up to a multiple
 * of `even` groups; a last area of fewer than `wide` groups is as wide as what is left.
 * Accumulators: [ceil(m / pair)][n][acc]. */
#define MPQC_FORM_POSITIONS 32
struct mpqc_form_step {
    unsigned m, n, steps; /* positions, column vectors, groups in the block */
    unsigned step, wide;  /* which group; width of its area */
    /* of `prepare`: one or two values for `pair` positions */
    LLVMValueRef x[MPQC_FORM_POSITIONS];
    LLVMValueRef w[16]; /* by vector, <16 x i8> */
    LLVMValueRef *acc;
};
struct mpqc_form {
    const char *name;
    unsigned steps, wide, even, pair, acc;
    /* For the choice of tiles: registers beside accumulators and m of x; accumulators that
     * keep the multipliers busy; tenths of a cycle and bytes of code of a block: per pair and
     * vector, per position, per vector. */
    unsigned registers, chains, dot_cost, x_cost, w_cost, dot_code, x_code, w_code;
    bool from_bias; /* accumulators start from the bias; else from zero, and it is added last */
    /* x holds 4 * steps bytes of each position, and is replaced */
    void (*prepare)(struct mpqc_emit_cx *, struct mpqc_form_step *);
    void (*multiply)(struct mpqc_emit_cx *, const struct mpqc_form_step *);
    /* acc accumulators -> <4 x i32>, the sums of a position; NULL where pair is 2: then they
     * are finished together (struct mpqc_columns) */
    LLVMValueRef (*finish)(struct mpqc_emit_cx *, LLVMValueRef *acc);
};

/* How bits are counted (bitserial.h), in one AND, one population count and one addition for each
 * vector.  Where `add_bytes` is NULL, counts are those of lanes.  Else they are those of bytes,
 * at most 8, and are added up in bytes; add_bytes adds the bytes of each lane to acc. */
struct mpqc_counter {
    /* Tenths of a cycle: of those three; of 64 channels to one plane. */
    unsigned pair_cost, plane_cost;
    unsigned registers; /* of a step, beside sums and weights */
    unsigned copies; /* of each word of the activations' planes, in line: 1, or one a lane */
    /* Bit `bit` of all bytes of <64 x i8>, as an i64; alone: no other bits are set. */
    LLVMValueRef (*plane)(struct mpqc_emit_cx *, LLVMValueRef v, unsigned bit, bool alone);
    LLVMValueRef (*add_bytes)(struct mpqc_emit_cx *, LLVMValueRef acc, LLVMValueRef bytes,
                              bool is_signed);
};

/* The dot-product step.  Activations are u8, weights s8, both in groups of four along
 * K; one accumulator lane takes four products per step.  Every function works on
 * vectors of any width that the target has from 4 lanes to `lanes` (tails use narrow
 * vectors); <n> below is that number of i32 lanes.
 *   prepare_x: <n x i32>, each lane 4 activations (GEMM: one group broadcast;
 *              depthwise: 4 taps of lane's channel) -> whatever `dot` wants
 *   prepare_w: <4n x i8>, [lane][4] -> whatever `dot` wants
 *   dot: acc[lane] + sum_j x[lane][j] * w[lane][j], exact in int32, given that
 *        w >= -127
 * An ISA that feeds x - 128 to a signed dot product says so in x_offset: templates
 * then add x_offset * sum(w) to the bias. */
struct mpqc_isa {
    const char *name;
    unsigned lanes;          /* i32 lanes of one accumulator */
    unsigned registers;      /* vector registers */
    int x_offset;            /* 0, or 128 */
    unsigned acc_per_column; /* accumulator vectors per column vector, usually 1 */
    unsigned x_values, w_values; /* how many values prepare_x and prepare_w give */
    /* For the choice of tiles, in tenths of a cycle: one dot, one prepared activation
     * (its load included), one prepared weight vector. */
    unsigned dot_cost, x_cost, w_cost;
    const struct mpqc_form *forms[3]; /* that matrix products may take instead, then NULL */
    bool tiles; /* AMX: gemm_amx.c may take a layer over */
    const struct mpqc_counter *counter; /* NULL: bitserial.c has nothing to count with */
    void (*prepare_x)(struct mpqc_emit_cx *, LLVMValueRef x, LLVMValueRef out[4]);
    void (*prepare_w)(struct mpqc_emit_cx *, LLVMValueRef w, LLVMValueRef out[4]);
    void (*dot)(struct mpqc_emit_cx *, LLVMValueRef *acc, const LLVMValueRef *x,
                const LLVMValueRef *w);
    /* acc_per_column accumulators -> one <n x i32> */
    LLVMValueRef (*finish)(struct mpqc_emit_cx *, LLVMValueRef *acc);
    /* Not 0: depthwise convolution by `dot`, eight channels at a time (window_dots.c), where so
     * many quartets of taps or weights stay in registers. */
    unsigned dots;
    /* Vector registers that a tile of windows (window_tile.c) needs beside its sums and weights:
     * bias, shifts, factors, quartets and what prepare_x makes of them.  In passes over whole
     * blocks; over halves of them.  0: which weights stay in registers is LLVM's choice. */
    unsigned whole_others, half_others;
    /* NULL, or depthwise convolution without interleaving (window_direct.c): n accumulators
     * of four channels += x0 * w0 + x1 * w1, vectors of 4 n bytes; x1 may be NULL. */
    void (*direct)(struct mpqc_emit_cx *, unsigned n, LLVMValueRef *acc, LLVMValueRef x0,
                   LLVMValueRef w0, LLVMValueRef x1, LLVMValueRef w1);
    /* <n x i16> * <n x i16> -> mpqc_mulhrs, n = 8, 16 or 32 */
    LLVMValueRef (*mulhrs)(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
    /* Two equal vectors -> one with elements of half the width, saturated, in the
     * order of x86's pack instructions: the result is, for each 16-byte part j of
     * the vectors, [a part j, b part j].  pack16: i32 -> i16; pack8: i16 -> u8. */
    LLVMValueRef (*pack16)(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
    LLVMValueRef (*pack8)(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
    /* NULL, or what the epilogue then takes for a shift and a pack.  shift16: pack16 of
     * a >> shift and b >> shift.  upper16: the same for shifts that differ, given 16 less
     * each of them.  round8: pack8 of (a + half) >> shift, shift in 1..8. */
    LLVMValueRef (*shift16)(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b, int32_t shift);
    LLVMValueRef (*upper16)(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b,
                            LLVMValueRef up_a, LLVMValueRef up_b);
    LLVMValueRef (*round8)(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b, int32_t shift);
    /* NULL, or: 16 bits of each lane of a and b, from the bit on that `at` tells, which is made
     * by window_at for the shifts (0..16) of an even lane and the next one, and is that of both.
     * For each 16-byte part: [a0 a1 b0 b1 a2 a3 b2 b3].  b == NULL: a twice.  Of 16 lanes. */
    LLVMValueRef (*window16)(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b,
                             LLVMValueRef at_a, LLVMValueRef at_b);
    int32_t (*window_at)(int32_t even, int32_t odd);
    /* <n x i8> indices into a 256-byte table at ptr -> <n x i8>, n = 16, 32, 64;
     * NULL: scalar loads */
    LLVMValueRef (*lookup)(struct mpqc_emit_cx *, LLVMValueRef table, LLVMValueRef index);
};

/* Is a dot product several instructions, of which the last adds, to one accumulator?  Then there
 * is no latency to hide. */
static inline bool mpqc_isa_adds(const struct mpqc_isa *isa)
{
    return isa->x_values > 1;
}

/* A target's record with the step for 16-bit activations in place of the bytes' (isa_wide.c):
 * one accumulator lane takes two products, x is <2n x i16> there, w is [lane][2].  All rows
 * of an architecture do it alike. */
struct mpqc_target;
struct mpqc_isa mpqc_isa_with_wide_steps(const struct mpqc_target *);
/* Lane by lane: acc <n x i32> + x <n x i16> * w <n x i8>. */
LLVMValueRef mpqc_isa_wide_add(struct mpqc_emit_cx *, LLVMValueRef acc, LLVMValueRef x,
                               LLVMValueRef w);

/* For records: finish when acc_per_column is 1, and what plain LLVM can do everywhere. */
LLVMValueRef mpqc_isa_finish_one(struct mpqc_emit_cx *, LLVMValueRef *acc);
LLVMValueRef mpqc_isa_plain_mulhrs(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mpqc_isa_plain_pack16(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mpqc_isa_plain_pack8(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
/* x86: the same for 16, 32 and 64-byte vectors, by the instructions of each width. */
void mpqc_isa_x86_prepare_x(struct mpqc_emit_cx *, LLVMValueRef x, LLVMValueRef out[4]);
void mpqc_isa_x86_prepare_w(struct mpqc_emit_cx *, LLVMValueRef w, LLVMValueRef out[4]);
void mpqc_isa_x86_dot(struct mpqc_emit_cx *, LLVMValueRef *acc, const LLVMValueRef *x,
                      const LLVMValueRef *w);
LLVMValueRef mpqc_isa_x86_mulhrs(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mpqc_isa_x86_pack16(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mpqc_isa_x86_pack8(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);

/* Tables by pshufb, for vectors of 16, 32 and 64 bytes. */
LLVMValueRef mpqc_isa_x86_lookup(struct mpqc_emit_cx *, LLVMValueRef table, LLVMValueRef index);
/* vpdpbusd, and tables by vpermi2b. */
void mpqc_isa_vnni_prepare_x(struct mpqc_emit_cx *, LLVMValueRef x, LLVMValueRef out[4]);
void mpqc_isa_vnni_prepare_w(struct mpqc_emit_cx *, LLVMValueRef w, LLVMValueRef out[4]);
void mpqc_isa_vnni_dot(struct mpqc_emit_cx *, LLVMValueRef *acc, const LLVMValueRef *x,
                       const LLVMValueRef *w);
/* 16 bits of 64 at any place by vpmultishiftqb. */
LLVMValueRef mpqc_isa_vbmi_window16(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b,
                                    LLVMValueRef at_a, LLVMValueRef at_b);
int32_t mpqc_isa_vbmi_window_at(int32_t even, int32_t odd);
LLVMValueRef mpqc_isa_vbmi_lookup(struct mpqc_emit_cx *, LLVMValueRef table, LLVMValueRef index);

/* The records of codegen/isa_*.c; named by rows of targets.def.  The generic one
 * may use SSSE3, which its row demands. */
extern const struct mpqc_isa mpqc_isa_generic, mpqc_isa_avx2, mpqc_isa_avx_vnni, mpqc_isa_avx512,
    mpqc_isa_avx512_dot, mpqc_isa_avx512_vnni, mpqc_isa_amx, mpqc_isa_neon, mpqc_isa_dotprod,
    mpqc_isa_i8mm;

#endif
