/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * From a planned graph to machine code.  No LLVM type appears here.
 */
#ifndef MPQC_CODEGEN_CODEGEN_H
#define MPQC_CODEGEN_CODEGEN_H

#include "ir/ir.h"
#include "ir/plan.h"
#include "runtime/mpqc_model.h"

enum mpqc_arch { MPQC_ARCH_X86_64, MPQC_ARCH_AARCH64 };

struct mpqc_isa; /* codegen/isa.h */

/* What is compiled for.  A constant record, passed down; there is no current
 * target.  Made from a row of targets.def. */
struct mpqc_target {
    const char *name;     /* "x86-64:avx512-vnni" */
    enum mpqc_arch arch;
    const char *triple;   /* LLVM's */
    const char *cpu;      /* LLVM's */
    const char *features; /* LLVM's, "+avx2,+..." */
    const struct mpqc_isa *isa;
    unsigned vector_bytes;
    unsigned l1_bytes, l2_bytes;
};

/* Rows of targets.def, for help texts: name and one-line description; NULL at
 * the end. */
const char *mpqc_target_name(unsigned i);
const char *mpqc_target_doc(unsigned i);
/* target: "native", "x86-64", "aarch64", or a full row name "x86-64:avx2"; mcpu: a
 * row's variant ("avx2", "avx512-vnni", "generic", "dotprod"), an LLVM CPU name
 * that implies one ("znver4", "cortex-a76"), "native", or NULL for the baseline.
 * "native" detects what this machine has. */
mpqc_status mpqc_target_find(struct mpqc_cx *cx, const char *target, const char *mcpu,
                             struct mpqc_target *out) MPQC_MUST_CHECK;
/* Multiplications of u8 by i8 a cycle that inner loops reach, by the tile model. */
double mpqc_target_rate(const struct mpqc_target *);
/* The same for 1-bit weights and activations in bit-serial kernels; 0: there are none. */
double mpqc_target_bit_rate(const struct mpqc_target *);

enum mpqc_emit {
    MPQC_EMIT_SO,
    MPQC_EMIT_OBJ,
    MPQC_EMIT_ARCHIVE,
    MPQC_EMIT_LLVM, /* text */
    MPQC_EMIT_ASM,
    MPQC_EMIT_HEADER
};

/* The register tiles that kernels of convolutions and matrix products are computed in.  A
 * tile is a number that means the same in every run; 0: none.  Results do not depend on
 * tiles. */
struct mpqc_tile_facts {
    uint64_t shape; /* equal for kernels whose tiles are interchangeable; 0: has no tile */
    uint32_t tile;
    double predicted; /* of the cost model, in tenths of a cycle */
};
struct mpqc_tile_request {
    uint32_t (*wish)(const void *user, uint64_t shape); /* a tile, or 0; may be NULL */
    const void *user;
    uint32_t rank; /* kernels without a wish take the rank-th best of the cost model */
    struct mpqc_tile_facts *facts; /* NULL, or [plan->n_kernels], filled */
};
#define MPQC_MAX_TILE_RANK 16
/* Set in tiles of bit-serial kernels (bitserial.h). */
#define MPQC_TILE_SERIAL (8u << 24)
/* Set in those of AMX, with tiles of channels << 16, and 1 where positions are a line. */
#define MPQC_TILE_AMX (4u << 24)
/* As text: rows x columns x vectors, `o` where tiles overlap, `r` where they are finished in
 * a loop, `b` where bits are counted; `amx`: tiles of positions x tiles of channels, `l` where
 * positions are a line with the halo between rows. */
#define MPQC_TILE_TEXT 32
const char *mpqc_tile_text(uint32_t tile, char text[MPQC_TILE_TEXT]);

struct mpqc_codegen_request {
    const struct mpqc_graph *graph; /* integer, planned */
    const struct mpqc_plan *plan;
    const struct mpqc_target *target;
    const char *tag; /* NULL: symbol mpqc_model */
    /* by input index; an entry with channels == 0 means none */
    const struct mpqc_preprocess *preprocess;
    enum mpqc_emit emit;
    const char *path; /* written as PATH.tmp.PID, then renamed */
    bool verify_llvm; /* verify the module after each emitted function */
    const struct mpqc_tile_request *tiles; /* NULL: the cost model's best */
};
struct mpqc_codegen_facts {
    uint64_t code_bytes, weight_bytes, file_bytes;
};
mpqc_status mpqc_codegen_emit(struct mpqc_cx *cx, const struct mpqc_codegen_request *rq,
                              struct mpqc_codegen_facts *facts) MPQC_MUST_CHECK;

#endif
