/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What kernel emitters share: the emission context, the contract between an
 * emitter and the module builder, and small helpers over the LLVM C API.
 *
 * One kernel of the plan becomes one LLVM function
 *     void body(ptr operand0, ptr operand1, ..., i64 begin, i64 end)
 * that computes units [begin, end) of its range (rows of the output, usually).
 * Everything else about it is a compile-time constant, spelled in its key; two
 * kernels with equal keys share one body.  The module builder (module.c) adds one
 * wrapper per kernel,
 *     void "ONNX node name"(ptr frame, i64 begin, i64 end)      (an mpqc_task)
 * which finds the operands and calls the body; frame is an array of pointers:
 * workspace, inputs..., outputs....
 */
#ifndef MPQC_CODEGEN_EMIT_H
#define MPQC_CODEGEN_EMIT_H

#include "codegen/codegen.h"
#include "codegen/isa.h"
#include "codegen/llvm.h"

struct mpqc_emit_cx {
    struct mpqc_cx *cx;
    const struct mpqc_graph *graph;
    const struct mpqc_plan *plan;
    const struct mpqc_target *target;
    struct mpqc_arena scratch; /* lives as long as the emission */
    bool verify;               /* LLVMVerifyFunction after each body */
    LLVMContextRef llvm;
    LLVMModuleRef module;
    LLVMBuilderRef b;
    LLVMTypeRef i1, i8, i16, i32, i64, f32, ptr, void_;
    LLVMValueRef function;     /* under construction */
    LLVMBasicBlockRef entry;   /* its entry block: allocas go to its front */
    uint32_t kernel;           /* index of the kernel being emitted */
    const char *kernel_name;   /* its symbol */
    const struct mpqc_tile_request *tiles; /* or NULL */
    bool share_small;          /* see wrapper.c */
    const char *tune;          /* LLVM CPU whose scheduling is assumed */
    size_t constant_bytes;     /* of the graph, whether kernels need them or not */
    uint64_t weight_bytes;     /* constants put into .rodata so far */
    struct mpqc_body *bodies;  /* cache, kernels.c */
    struct mpqc_global *globals; /* constants made so far, constants.c */
};

/* An operand of a body: where its pointer comes from. */
struct mpqc_operand {
    mpqc_vid value;       /* a value with a place: pointer to its first element; or */
    LLVMValueRef global;  /* a constant made by the emitter (value == MPQC_NONE) */
};

#define MPQC_MAX_OPERANDS 24
struct mpqc_kernel_code {
    LLVMValueRef body;
    uint32_t n_operands;
    struct mpqc_operand operand[MPQC_MAX_OPERANDS];
    int64_t range; /* body computes [0, range) */
    int64_t grain; /* smallest part worth a thread of its own; 0: never split */
};

/* Emits (or finds) the body of kernel k.  One function per kernel family, chosen by
 * form and core operator in kernels.def. */
typedef mpqc_status (*mpqc_emit_fn)(struct mpqc_emit_cx *, const struct mpqc_kernel *k,
                                    struct mpqc_kernel_code *out);
mpqc_status mpqc_emit_kernel(struct mpqc_emit_cx *, const struct mpqc_kernel *k,
                             struct mpqc_kernel_code *out) MPQC_MUST_CHECK;

/* Body cache.  find returns NULL when the key is new; then begin creates the
 * internal function with n pointer operands and positions the builder in it; end adds
 * `ret void`, verifies.  The symbol is the kernel's name with ".body" behind it.
 * Operands are noalias.  An output that takes the place of an input is no
 * contradiction as long as a body never reads bytes that it has written: read each
 * element before its own place is stored, and never twice. */
LLVMValueRef mpqc_body_find(struct mpqc_emit_cx *, const char *key);
LLVMValueRef mpqc_body_begin(struct mpqc_emit_cx *, const char *key, uint32_t n_operands);
mpqc_status mpqc_body_end(struct mpqc_emit_cx *) MPQC_MUST_CHECK;
/* find or begin, of the body that `out` has operands for: sets out->body, and `fresh` where it is
 * to be emitted and ended.  Releases the key. */
mpqc_status mpqc_body_open(struct mpqc_emit_cx *, struct mpqc_buf *key,
                           struct mpqc_kernel_code *out, bool *fresh) MPQC_MUST_CHECK;

/* Read-only global from bytes (private, unnamed_addr, .rodata), equal contents shared.
 * `name` is a hint for readers of the assembly. */
LLVMValueRef mpqc_global_bytes(struct mpqc_emit_cx *, const char *name, const void *data,
                               size_t bytes, unsigned align);

/* ---- helpers over the builder (build.c); all work at the builder's position ---- */
LLVMValueRef mpqc_b_i64(struct mpqc_emit_cx *, int64_t v);
LLVMValueRef mpqc_b_i32(struct mpqc_emit_cx *, int32_t v);
LLVMTypeRef mpqc_b_vec(LLVMTypeRef element, unsigned n);
LLVMValueRef mpqc_b_splat(struct mpqc_emit_cx *, LLVMTypeRef vec, int64_t v); /* constant */
LLVMValueRef mpqc_b_broadcast(struct mpqc_emit_cx *, LLVMValueRef scalar, unsigned n);
/* p + bytes, as an inbounds i8 GEP; the second with a constant. */
LLVMValueRef mpqc_b_gep(struct mpqc_emit_cx *, LLVMValueRef p, LLVMValueRef bytes);
LLVMValueRef mpqc_b_gep_const(struct mpqc_emit_cx *, LLVMValueRef p, int64_t bytes);
/* i64 a * constant + b. */
LLVMValueRef mpqc_b_madd(struct mpqc_emit_cx *, LLVMValueRef a, int64_t k, LLVMValueRef b);
LLVMValueRef mpqc_b_load(struct mpqc_emit_cx *, LLVMTypeRef t, LLVMValueRef p, unsigned align);
void mpqc_b_store(struct mpqc_emit_cx *, LLVMValueRef v, LLVMValueRef p, unsigned align);
/* p, about which LLVM knows nothing: what is loaded from there is loaded where the code
 * says, not before the loop around it, where it would take registers for its whole length. */
LLVMValueRef mpqc_b_opaque(struct mpqc_emit_cx *, LLVMValueRef p);
/* A vector in a register, about which LLVM knows nothing. */
LLVMValueRef mpqc_b_opaque_vector(struct mpqc_emit_cx *, LLVMValueRef v);
/* A partial sum, to which LLVM adds what follows one by one: else it sums up first what is added
 * later, and all of that waits in registers that accumulators need. */
LLVMValueRef mpqc_b_in_order(struct mpqc_emit_cx *, LLVMValueRef sum);
/* x86: a vector of zeros, of which LLVM does not know that they are; for another vector `by` of the
 * type, other ones. */
LLVMValueRef mpqc_b_zero(struct mpqc_emit_cx *, LLVMValueRef by);
/* 64 bits as <64 x i1>, of which LLVM knows nothing either: a choice by them remains one that
 * instructions can make on their way, and becomes no shuffle. */
LLVMValueRef mpqc_b_opaque_mask(struct mpqc_emit_cx *, uint64_t bits);
/* The same without keeping other loads in their place: a loop that `by` (i64) changes in is not
 * left, and another p, or another `by`, is another place, so that what has been loaded from
 * there is loaded again rather than copied. */
LLVMValueRef mpqc_b_alias(struct mpqc_emit_cx *, LLVMValueRef p, LLVMValueRef by);
/* A local variable in the entry block; SROA turns it into registers. */
LLVMValueRef mpqc_b_var(struct mpqc_emit_cx *, LLVMTypeRef t, const char *name);
/* Call of an LLVM intrinsic by name; `types` are its overloads. */
LLVMValueRef mpqc_b_intrinsic(struct mpqc_emit_cx *, const char *name, const LLVMTypeRef *types,
                              unsigned n_types, LLVMValueRef *args, unsigned n_args);
/* Asks for the line of p + at (bytes); a prefetch of what does not exist does no harm. */
enum mpqc_cache { MPQC_SECOND_CACHE = 2, MPQC_FIRST_CACHE }; /* as LLVM's locality */
void mpqc_b_prefetch(struct mpqc_emit_cx *, LLVMValueRef p, int64_t at, enum mpqc_cache to);
/* Concatenation of two equal vectors, a part of a vector. */
LLVMValueRef mpqc_b_join(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef mpqc_b_part(struct mpqc_emit_cx *, LLVMValueRef v, unsigned first, unsigned n);

/* for (iv = from; iv < to; iv += step) -- zero-trip safe; loops are marked so that
 * LLVM neither unrolls nor vectorises them. */
struct mpqc_loop {
    LLVMValueRef iv;
    LLVMValueRef next, to;
    LLVMBasicBlockRef head, body, exit;
    int64_t step;
};
void mpqc_b_loop_begin(struct mpqc_emit_cx *, struct mpqc_loop *, LLVMValueRef from,
                       LLVMValueRef to, int64_t step, const char *name);
void mpqc_b_loop_end(struct mpqc_emit_cx *, struct mpqc_loop *);
/* if (cond) { ... } */
struct mpqc_if {
    LLVMBasicBlockRef then, join;
};
void mpqc_b_if_begin(struct mpqc_emit_cx *, struct mpqc_if *, LLVMValueRef cond);
void mpqc_b_if_end(struct mpqc_emit_cx *, struct mpqc_if *);

/* The same bytes seen as n elements of another type. */
LLVMValueRef mpqc_b_as(struct mpqc_emit_cx *, LLVMValueRef v, LLVMTypeRef element, unsigned n);
/* v[order[0]], v[order[1]], ...; an entry of -1 is anything. */
LLVMValueRef mpqc_b_shuffle(struct mpqc_emit_cx *, LLVMValueRef a, LLVMValueRef b,
                            const int *order, unsigned n);
/* Loads the first n elements of <total x i8> at p.  Unless `exact`, all are loaded (see
 * MPQC_ARENA_SLACK) and the rest is whatever lies there; if `exact` no byte behind the
 * n-th is touched and the rest is zero.  (bytes.c) */
LLVMValueRef mpqc_b_load_bytes(struct mpqc_emit_cx *, LLVMValueRef p, unsigned n, unsigned total,
                               bool exact);
/* Stores the first n bytes of a vector, and no byte more. */
void mpqc_b_store_bytes(struct mpqc_emit_cx *, LLVMValueRef v, LLVMValueRef p, unsigned n);
/* Fills n bytes (a constant) with a value, without calling memset. */
void mpqc_b_fill(struct mpqc_emit_cx *, LLVMValueRef p, int64_t n, int value);

/* ---- halos (halo.c) ---------------------------------------------------------------
 * Fills what belongs to output row `row` (i64, 0 <= row < N*H) of a value with a halo:
 * the columns left and right of it; with row 0 also the rows above, with row H-1 the
 * rows below.  out: pointer to the first element.  Emits nothing if there is no halo.
 * Every kernel that writes a value with a halo calls it once for each row of its
 * range. */
void mpqc_emit_halo(struct mpqc_emit_cx *, const struct mpqc_place *, const struct mpqc_type *,
                    LLVMValueRef out, LLVMValueRef row);
bool mpqc_place_has_halo(const struct mpqc_place *);

/* ---- the epilogue (epilogue.c): requant [+ residual] [narrow] [lut] on vectors ----
 * Built once per kernel from the plan's node chain.
 *
 * A template computes, for one output position, a few accumulator vectors that hold
 * consecutive channels: its columns.  How channels lie in them: by default vector v
 * holds the channels behind those of vector v-1, in order.  In an `interleaved` block
 * of four vectors of L lanes, as byte-interleaving four rows gives it, lane 4j+i of
 * vector v holds channel 16j + 4v + i of the block's 4L; columns of other numbers of vectors may
 * be interleaved in each chunk of four equal ones.  `windows` say that 16 bits of each sum are
 * all that counts (mpqc_epilogue_fits), and change that order, see epilogue.h.  `paired` columns
 * have two vectors of four lanes for each of `lanes`, which belong to two positions: vector
 * 2v + h holds channels 4v + 2h and the next of the first position, then of the second.  An
 * interleaved block of few channels may be `shared` by several positions: each has 4L / shared
 * lanes of it, from its first channel on.
 * Parameters are stored in .rodata in the order in which the epilogue's instructions want them. */
#define MPQC_MAX_COLUMNS 16
#define MPQC_MAX_LANES 16 /* of 32 bits, in one vector */
#define MPQC_MAX_SHARED 4
struct mpqc_columns {
    unsigned n;
    unsigned lanes[MPQC_MAX_COLUMNS];
    unsigned valid; /* channels that are stored; the lanes behind are padding */
    unsigned shared; /* 0: by nobody; else how many positions, with no residual */
    int64_t shared_at[MPQC_MAX_SHARED]; /* theirs, in elements from the first one's */
    bool interleaved, windows, paired;
    bool wide_tail; /* nothing follows, so a last vector of fewer lanes than those before it
                       may be finished together with them, as one of theirs */
};
unsigned mpqc_columns_lanes(const struct mpqc_columns *); /* sum */
/* The channel, counted from the columns' first, whose sum is in a lane, counted likewise. */
unsigned mpqc_columns_channel(const struct mpqc_columns *, unsigned lane);

/* Which columns a kernel uses where: channel `first + i * step`, i < count, starts a
 * position with these columns. */
struct mpqc_column_use {
    struct mpqc_columns columns;
    int64_t first, step, count;
};

/* May the columns have `windows`: do sums, which for channel c are least[c] to most[c], never
 * leave 16 bits once shifted by what follows the core of k?  For targets with window16. */
bool mpqc_epilogue_fits(const struct mpqc_emit_cx *, const struct mpqc_kernel *k,
                        const int64_t *least, const int64_t *most, int64_t channels);

struct mpqc_epilogue;
/* Reads the chain that follows the core of k. Adds operands (the output, then bias,
 * shift, mult, residual, table as needed) to `code` and appends its facts to `key`.
 * channels: extent of the last axis of the output, or a multiple of it, where positions
 * side by side are one to the core; parameters then repeat.  extra_bias (i32[channels], may be
 * NULL) are constants of the core, e.g. bias - zero * sum(w), merged with the rounding
 * halves of `requant` into one i32 array operand: accumulators start from it. */
mpqc_status mpqc_epilogue_make(struct mpqc_emit_cx *, const struct mpqc_kernel *k,
                               const int32_t *extra_bias, int64_t channels,
                               const struct mpqc_column_use *use, uint32_t n_use,
                               struct mpqc_kernel_code *code, struct mpqc_buf *key,
                               struct mpqc_epilogue **out) MPQC_MUST_CHECK;
/* Inside the body: finds the operand pointers (parameters of the function). */
void mpqc_epilogue_bind(struct mpqc_emit_cx *, struct mpqc_epilogue *, LLVMValueRef function);
LLVMValueRef mpqc_epilogue_out(const struct mpqc_epilogue *); /* the output's pointer */
/* Initial accumulators of columns that start at `channel` (i64). */
void mpqc_epilogue_bias(struct mpqc_emit_cx *, struct mpqc_epilogue *,
                        const struct mpqc_columns *, LLVMValueRef channel, LLVMValueRef *acc);
/* The same for n positions, [position][vector], each loaded by itself: what multiplies copies
 * registers too, and is what there is least of.  by: as in mpqc_b_alias; NULL: here, however
 * often.  from: what the call before left, at first NULL. */
void mpqc_epilogue_biases(struct mpqc_emit_cx *, struct mpqc_epilogue *,
                          const struct mpqc_columns *, LLVMValueRef channel, int64_t n,
                          LLVMValueRef by, LLVMValueRef *from, LLVMValueRef *acc);
/* Loads the other parameters of these columns, for the calls of store that follow. */
void mpqc_epilogue_columns(struct mpqc_emit_cx *, struct mpqc_epilogue *,
                           const struct mpqc_columns *, LLVMValueRef channel);
/* Columns of one or two whole vectors, of which two or four positions lie side by side in the
 * output and in the residual: after `columns`, makes them one position of four vectors for the
 * calls of store that follow.  times * n == 4. */
void mpqc_epilogue_repeat(struct mpqc_epilogue *, unsigned times);
/* Finishes the accumulators of one output position and stores its valid channels.
 * position: element offset of the position's first channel (`channel` included) in
 * the output's place, and, where a residual exists, in the residual's.  row: i64 index
 * h * W + w, used for [H,W,1] parameters only (else it may be NULL). */
void mpqc_epilogue_store(struct mpqc_emit_cx *, struct mpqc_epilogue *, LLVMValueRef *acc,
                         LLVMValueRef position, LLVMValueRef residual_position,
                         LLVMValueRef row);
/* The same for paired columns, of whose two positions the first `live` are stored. */
void mpqc_epilogue_store_pair(struct mpqc_emit_cx *, struct mpqc_epilogue *, LLVMValueRef *acc,
                              const LLVMValueRef position[2],
                              const LLVMValueRef residual_position[2], unsigned live);
/* The same in two steps, for columns that are one interleaved block: vectors 2 half and
 * 2 half + 1 to 16 bits; then both halves to memory. */
LLVMValueRef mpqc_epilogue_pack(struct mpqc_emit_cx *, struct mpqc_epilogue *, unsigned half,
                                LLVMValueRef *acc, LLVMValueRef row);
void mpqc_epilogue_store_packed(struct mpqc_emit_cx *, struct mpqc_epilogue *,
                                const LLVMValueRef half[2], LLVMValueRef position,
                                LLVMValueRef residual_position, LLVMValueRef row);
bool mpqc_epilogue_by_position(const struct mpqc_epilogue *); /* [H,W,1] parameters */
mpqc_vid mpqc_epilogue_residual(const struct mpqc_epilogue *); /* MPQC_NONE: none */

#endif
