/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Loop nests over tensors in places: what element-wise and movement kernels share.
 * A nest is a shape and, for each operand, a byte stride per dimension (0:
 * broadcast).  Dimensions are merged where all operands allow it; the innermost one
 * is the run, which the kernel's own function handles in vectors.  A kernel may take
 * the innermost two instead, as a plane.
 */
#ifndef MPQC_CODEGEN_NEST_H
#define MPQC_CODEGEN_NEST_H

#include "codegen/emit.h"

#define MPQC_NEST_RANK (MPQC_MAX_RANK + 4)
#define MPQC_NEST_OPERANDS 8 /* the output and seven more */
struct mpqc_nest {
    uint32_t rank, n;
    int64_t dims[MPQC_NEST_RANK];
    int64_t stride[MPQC_NEST_OPERANDS][MPQC_NEST_RANK];
    int64_t chunk; /* rank 1: elements in one unit of the range; else 0 */
    bool plane;    /* the innermost two dimensions are the kernel's; rank >= 2 */
    /* Operand 0 has a halo: dims[0] and dims[1] are its N and H, the range is N * H
     * rows, and the nest fills the halo. */
    const struct mpqc_place *halo;
    const struct mpqc_type *halo_type;
};

void mpqc_nest_init(struct mpqc_nest *, uint32_t rank, const int64_t *dims);
/* Adds an operand: strides in elements of `bytes`. */
void mpqc_nest_strided(struct mpqc_nest *, const int64_t *stride, unsigned bytes);
/* Adds value v as it lies in its place, broadcast to the nest's shape. */
void mpqc_nest_value(struct mpqc_emit_cx *, struct mpqc_nest *, mpqc_vid v);
/* Merges dimensions; call after the last operand.  Operand 0 is the output `out`. */
void mpqc_nest_finish(struct mpqc_emit_cx *, struct mpqc_nest *, mpqc_vid out);
/* The same for a nest over a part of the output: the caller fills the halo. */
void mpqc_nest_finish_part(struct mpqc_nest *);
int64_t mpqc_nest_run(const struct mpqc_nest *);    /* extent of the innermost dimension */
int64_t mpqc_nest_step(const struct mpqc_nest *, uint32_t operand); /* its byte stride */
int64_t mpqc_nest_range(const struct mpqc_nest *);
int64_t mpqc_nest_grain(const struct mpqc_nest *); /* units that are worth a thread */
void mpqc_nest_key(const struct mpqc_nest *, struct mpqc_buf *key);

/* Handles elements [index, index + valid) of a run; lanes: the vector width to use,
 * valid <= lanes.  p: one pointer per operand, at the start of the run. */
typedef void (*mpqc_run_fn)(struct mpqc_emit_cx *, void *user, LLVMValueRef const *p,
                            LLVMValueRef index, unsigned lanes, unsigned valid);
/* Handles the plane that starts at p. */
typedef void (*mpqc_plane_fn)(struct mpqc_emit_cx *, void *user, LLVMValueRef const *p);

/* Emits all loops over units [begin, end) of the range; p: one pointer per operand, to
 * its first element.  Runs are handled in steps of `lanes` (a power of two, at most
 * 256), then the tail; planes by `plane`. */
void mpqc_nest_loops(struct mpqc_emit_cx *, const struct mpqc_nest *, LLVMValueRef const *p,
                     LLVMValueRef begin, LLVMValueRef end, unsigned lanes, mpqc_run_fn fn,
                     mpqc_plane_fn plane, void *user);
/* The same for a body whose first parameters are the operands, over its range. */
void mpqc_nest_emit(struct mpqc_emit_cx *, const struct mpqc_nest *, unsigned lanes,
                    mpqc_run_fn fn, void *user);

/* For run functions (run_io.c).  Loads `lanes` elements of `bytes` each from `index` on;
 * step: the operand's byte stride, 0 for a broadcast.  If `exact`, nothing behind the
 * first `valid` is touched. */
LLVMValueRef mpqc_run_load(struct mpqc_emit_cx *, LLVMTypeRef element, unsigned bytes,
                           LLVMValueRef p, int64_t step, LLVMValueRef index, unsigned lanes,
                           unsigned valid, bool exact);
/* Stores the first `valid` lanes. */
void mpqc_run_store(struct mpqc_emit_cx *, LLVMValueRef v, unsigned bytes, LLVMValueRef p,
                    int64_t step, LLVMValueRef index, unsigned valid);

/* Element strides of a value: its place's, or dense for constants. */
void mpqc_value_strides(struct mpqc_emit_cx *, mpqc_vid v, int64_t stride[MPQC_MAX_RANK]);
unsigned mpqc_value_bytes(const struct mpqc_emit_cx *, mpqc_vid v); /* of one element */
/* May bytes behind the value be read?  Only in the arena. */
bool mpqc_value_slack(const struct mpqc_emit_cx *, mpqc_vid v);
LLVMTypeRef mpqc_element_type(const struct mpqc_emit_cx *, enum mpqc_dtype t);

#endif
