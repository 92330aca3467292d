/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The result of passes `fuse` and `plan`: which nodes form a kernel, in which
 * order kernels run, and where every tensor lives.  Made in passes/plan.c, read
 * by codegen.
 */
#ifndef MPQC_IR_PLAN_H
#define MPQC_IR_PLAN_H

#include "ir/ir.h"

enum mpqc_space {
    MPQC_SPACE_NONE,   /* lives in registers inside one kernel, or is unused */
    MPQC_SPACE_INPUT,  /* the caller's input buffer `index` */
    MPQC_SPACE_OUTPUT, /* the caller's output buffer `index` */
    MPQC_SPACE_CONST,  /* .rodata */
    MPQC_SPACE_ARENA   /* the workspace */
};

/* Where element [i0, i1, ...] of a value lives:
 *   base(space, index) + offset + container * sum(i_d * stride[d]).
 * Strides are in elements; stride of the last dimension is 1 except for
 * extents of 1.  A view (concat part, slice, reshape) shares its owner's memory.
 *
 * A value of rank 4 [N,H,W,C] in the arena may have a halo: `halo` more rows and
 * columns around H and W, which its producer fills with the value's zero point,
 * so that windows may be read without bounds checks.  offset is that of the first
 * real element, behind the halo.  Inputs, outputs and constants have no halo.
 *
 * The arena has at least MPQC_ARENA_SLACK readable bytes before and behind every
 * value, so vector loads may run over the end (what they read is never used). */
#define MPQC_ARENA_SLACK 64
#define MPQC_ARENA_ALIGN 64
struct mpqc_place {
    enum mpqc_space space;
    uint32_t index;
    uint64_t offset; /* bytes */
    int64_t stride[MPQC_MAX_RANK];
    int32_t halo[4]; /* top, left, bottom, right */
};

/* One kernel: a core node and the epilogue chain that follows it in registers.
 *
 * Forms (x ? means optional):
 *   LINEAR    conv|matmul|sumpool|reduce_sum|mul, requant, [add with rescale(r)], narrow ?, lut ?
 *   POINTWISE rescale(a), rescale(b) ?, add ?, narrow, lut ?  (all operands of the output's shape or
 *             broadcast along leading dimensions)
 *   SINGLE    any other node alone (maxpool, softmax, lut, transposes, copies, quantize, ...)
 * A reshape between dense places is a view and no kernel at all.
 *
 * All values but `out` and the external inputs have space NONE. */
enum mpqc_kernel_form { MPQC_KERNEL_LINEAR, MPQC_KERNEL_POINTWISE, MPQC_KERNEL_SINGLE };

struct mpqc_kernel {
    enum mpqc_kernel_form form;
    uint32_t n_nodes;
    const mpqc_nid *nodes; /* in execution order; rescale of the residual included */
    mpqc_nid core;         /* the linear node, or nodes[0] */
    mpqc_vid out;          /* the one value that is stored */
};

struct mpqc_plan {
    struct mpqc_place *place; /* by value id */
    uint32_t n_values;
    struct mpqc_kernel *kernels; /* in execution order */
    uint32_t n_kernels;
    uint64_t arena_bytes; /* slack included */
};

/* Text of a plan, one line a value and a kernel, for -dump-after=plan and tests. */
void mpqc_plan_print(const struct mpqc_graph *g, const struct mpqc_plan *p, struct mpqc_buf *to);

#endif
