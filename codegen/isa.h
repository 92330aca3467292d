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

struct mpqc_emit_cx;

/* The dot-product step of GEMM-like kernels.  Activations are u8, weights s8 in
 * groups of four along K: a weight vector is <4 * lanes x i8> = [lane][4].
 *   prepare_x: i32 holding 4 consecutive u8 activations -> whatever `dot` wants,
 *              computed once per (row, k4) and used for all column vectors
 *   prepare_w: <4*lanes x i8> -> whatever `dot` wants, once per (k4, column vector)
 *   dot: acc + sum_j x[j] * w[lane][j], exact in int32
 * An ISA that feeds x - 128 to a signed dot product says so in x_offset: templates
 * then add x_offset * sum(w) to the bias. */
struct mpqc_isa {
    const char *name;
    unsigned lanes;          /* i32 lanes of one accumulator */
    unsigned registers;      /* vector registers for tiles */
    int x_offset;            /* 0, or 128 */
    unsigned acc_per_column; /* accumulator vectors per column vector, usually 1 */
    unsigned tile_m, tile_n; /* preferred GEMM tile: rows x column vectors */
    /* prepared forms may be several values */
    unsigned (*prepare_x)(struct mpqc_emit_cx *, LLVMValueRef x4, LLVMValueRef out[4]);
    unsigned (*prepare_w)(struct mpqc_emit_cx *, LLVMValueRef w, LLVMValueRef out[4]);
    void (*dot)(struct mpqc_emit_cx *, LLVMValueRef *acc, const LLVMValueRef *x,
                const LLVMValueRef *w);
    /* acc_per_column accumulators -> one <lanes x i32> */
    LLVMValueRef (*finish)(struct mpqc_emit_cx *, LLVMValueRef *acc);
    /* <n x i16> * <n x i16> -> mpqc_mulhrs, any n that is a multiple of 8 */
    LLVMValueRef (*mulhrs)(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
    /* <n x i8> indices into a 256-byte table at ptr -> <n x i8>; NULL: scalar loads */
    LLVMValueRef (*lookup)(struct mpqc_emit_cx *, LLVMValueRef table, LLVMValueRef index);
};

/* One record per codegen/isa_<name>.c; named by rows of targets.def.  The generic one
 * may use SSSE3, which its row demands. */
extern const struct mpqc_isa mpqc_isa_generic, mpqc_isa_avx2, mpqc_isa_avx512_vnni,
    mpqc_isa_neon, mpqc_isa_dotprod;

#endif
