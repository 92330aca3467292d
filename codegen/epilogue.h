/* SPDX-License-Identifier: GPL-3.0-or-later
 * Inside of an epilogue: shared by epilogue.c (reads the plan),
 * epilogue_load.c and epilogue_store.c (emit code).
 */
#ifndef MPQC_CODEGEN_EPILOGUE_H
#define MPQC_CODEGEN_EPILOGUE_H

#include "codegen/emit.h"

#define MPQC_NO_OPERAND UINT32_MAX

/* Where a parameter of `requant` comes from. */
enum mpqc_param { MPQC_PARAM_UNIFORM, MPQC_PARAM_CHANNEL, MPQC_PARAM_POSITION };

struct mpqc_epilogue {
    enum mpqc_param shift_kind, mult_kind;
    int32_t shift, mult; /* when uniform */
    mpqc_vid residual;   /* MPQC_NONE: none */
    int32_t residual_zero, residual_mult;
    bool residual_signed, residual_wide; /* wide: i16 with zero point 0 */
    bool narrow; /* to 8 bits; else i16 is stored, if `clamp` within [lo, hi] */
    bool clamp;
    int frac;
    /* Of the narrowed value; `flip` says that all three have had 128 added because the
     * type is signed, to be undone by xor 0x80. */
    int32_t zero, lo, hi;
    bool flip;
    bool lut;
    /* numbers of operands of the body */
    uint32_t out_op, bias_op, shift_op, mult_op, residual_op, table_op;

    /* inside a body */
    LLVMValueRef out, bias, shifts, mults, residual_in, table;
    LLVMValueRef buffer; /* 64 bytes of stack for scalar tables, or NULL */
    struct mpqc_columns columns;
    /* by vector; of channels: as the array holds them */
    LLVMValueRef shift_of[MPQC_MAX_COLUMNS];
    LLVMValueRef mult_of[MPQC_MAX_COLUMNS];  /* by i16 vector, in order of chunks */
};

/* Vectors of a position are finished in chunks of 4, 2 or 1 equal vectors, which are
 * packed together: how many belong to the chunk that starts at vector v.  With a wide tail
 * the last of them may be narrower, and there may be 3, which are finished like 4. */
unsigned mpqc_epilogue_chunk(const struct mpqc_columns *c, unsigned v);

/* Is the chunk of nv vectors from `first` on interleaved? */
bool mpqc_epilogue_ordered(const struct mpqc_columns *c, unsigned first, unsigned nv);

/* Is the chunk of nv vectors from `first` on shifted by struct mpqc_isa.window16? */
bool mpqc_epilogue_windows(const struct mpqc_columns *c, unsigned first, unsigned nv);

/* Where element i of the p-th 16-bit vector of a chunk comes from: a lane of one of two vectors,
 * in the order of pack16, or of window16. */
struct mpqc_word {
    unsigned vector, lane;
};
struct mpqc_word mpqc_epilogue_word(bool windows, unsigned p, unsigned i);
/* Its channel in an interleaved chunk: words, and so bytes, are in order. */
unsigned mpqc_epilogue_word_channel(unsigned p, unsigned i);

/* Element `channel + plus` of an array of `bytes`-sized elements. */
LLVMValueRef mpqc_epilogue_element(struct mpqc_emit_cx *, LLVMValueRef base, LLVMValueRef channel,
                                   int64_t bytes, int64_t plus);

#endif
