/* SPDX-License-Identifier: GPL-3.0-or-later
 * What gemm.c (units, panels, the body), gemm_tile.c (a tile: accumulators, runs over taps, its
 * end) and gemm_steps.c (a run: steps along K) share: a body under construction.
 */
#ifndef MPQC_CODEGEN_GEMM_H
#define MPQC_CODEGEN_GEMM_H

#include "codegen/linear.h"

struct gemm {
    struct mpqc_emit_cx *e;
    const struct mpqc_linear *l;
    const struct mpqc_tile *t;
    struct mpqc_epilogue *ep;
    LLVMValueRef x, w; /* operands */
    /* the panel at work */
    const struct mpqc_columns *c;
    LLVMValueRef channel, panel_w;
    unsigned lanes; /* of the widest vector */
    /* the tile at work */
    int64_t mh, mw;
    LLVMValueRef unit; /* number of the unit at work, of those that a panel is passed over by */
    /* gemm_prefetch.c's: how many lines of the next panel a turn of the loop asks for, and how
     * far from its own weights the first is */
    int64_t next_lines;
    LLVMValueRef next;
    struct mpqc_amx amx;
    LLVMValueRef var[4 * 64]; /* [set][position][vector][acc_per_column] */
    LLVMValueRef total[64];   /* [position][vector], of weights in groups */
};

/* All runs and the epilogue of mh x mw positions of the panel at work.  x: the first tap of
 * the first one; position, residual: element offsets of it, channel 0. */
void mpqc_gemm_tile(struct gemm *, int64_t mh, int64_t mw, LLVMValueRef x, LLVMValueRef position,
                    LLVMValueRef residual);
/* The variables of the accumulators of position m (or of its pair) and vector v, and how many
 * there are in a set; all of them to zero; their sum over sets, without bias. */
LLVMValueRef *mpqc_gemm_accumulators(struct gemm *, unsigned set, int64_t m, unsigned v);
int64_t mpqc_gemm_n_accumulators(const struct gemm *);
void mpqc_gemm_clear(struct gemm *);
LLVMValueRef mpqc_gemm_sum(struct gemm *, int64_t m, unsigned v);

/* gemm_steps.c.  All steps of the layer's run, from x on, weights at w, to the accumulators. */
void mpqc_gemm_run(struct gemm *, LLVMValueRef x, LLVMValueRef w);
/* Are n steps worth straight-line code? */
bool mpqc_gemm_short(const struct gemm *, int64_t n);
/* Bytes of a step's weights of the panel at work, if they are not packed. */
int64_t mpqc_gemm_step_bytes(const struct gemm *);

/* gemm_prefetch.c.  tile: before tile `number` (i64) of those that pass over a panel; step: with
 * step k of those whose weights begin at w. */
void mpqc_prefetch_tile(struct gemm *, LLVMValueRef number);
void mpqc_prefetch_step(struct gemm *, LLVMValueRef w, int64_t k);

/* gemm_braid.c: the first or second 16 bytes of all positions of the tile, of which the first is
 * at x, to s->x, prepared. */
void mpqc_braid_inputs(struct gemm *, LLVMValueRef x, bool second, struct mpqc_form_step *s);

/* gemm_groups.c: a run whose weights are in groups.  begin: totals from the bias; run: as
 * mpqc_gemm_run, to the totals; sum: a total. */
void mpqc_groups_begin(struct gemm *);
void mpqc_groups_run(struct gemm *, LLVMValueRef x, LLVMValueRef w);
LLVMValueRef mpqc_groups_sum(struct gemm *, int64_t m, unsigned v);

#endif
