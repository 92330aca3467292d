/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Writing expressions into a graph: what derivatives and losses are made of.
 *
 * A builder shares: asked for a node that the graph has already (same operator,
 * inputs and attributes), it gives that one's result.  Expressions of its own constants
 * are folded.  Errors stick: after the first one every call returns MPQC_NONE, and
 * `status` says what it was, so that expressions may be nested.
 */
#ifndef MPQC_IR_BUILD_H
#define MPQC_IR_BUILD_H

#include "ir/ir.h"

struct mpqc_build {
    struct mpqc_cx *cx;
    struct mpqc_graph *g;
    struct mpqc_loc loc; /* of the nodes to come */
    mpqc_status status;
    mpqc_vid first_value; /* that the builder made, or may have */
    struct mpqc_arena scratch;
    mpqc_nid *table; /* open addressing by content; MPQC_NONE: free */
    uint32_t cap, used;
    mpqc_vid *scalars;
    uint32_t n_scalars, cap_scalars;
};
/* Knows the nodes of g's order from the beginning.  While it exists nobody else
 * may edit the graph. */
void mpqc_build_init(struct mpqc_build *b, struct mpqc_cx *cx, struct mpqc_graph *g);
void mpqc_build_release(struct mpqc_build *b);

/* attrs may be NULL. */
mpqc_vid mpqc_build_op(struct mpqc_build *b, enum mpqc_op op, const mpqc_vid *in, uint32_t n_in,
                       const struct mpqc_attrs *attrs);
mpqc_vid mpqc_build_1(struct mpqc_build *b, enum mpqc_op op, mpqc_vid x);
mpqc_vid mpqc_build_2(struct mpqc_build *b, enum mpqc_op op, mpqc_vid x, mpqc_vid y);
mpqc_vid mpqc_build_3(struct mpqc_build *b, enum mpqc_op op, mpqc_vid x, mpqc_vid y, mpqc_vid z);
/* The result of such a node if the graph has it, else MPQC_NONE. */
mpqc_vid mpqc_build_find(struct mpqc_build *b, enum mpqc_op op, const mpqc_vid *in, uint32_t n_in,
                         const struct mpqc_attrs *attrs);

mpqc_vid mpqc_build_scalar(struct mpqc_build *b, float v); /* f32[] */
mpqc_vid mpqc_build_zeros(struct mpqc_build *b, struct mpqc_type t);
mpqc_vid mpqc_build_add(struct mpqc_build *b, mpqc_vid x, mpqc_vid y); /* MPQC_NONE is zero */
mpqc_vid mpqc_build_mul(struct mpqc_build *b, mpqc_vid x, mpqc_vid y);
mpqc_vid mpqc_build_scale(struct mpqc_build *b, mpqc_vid x, float c);  /* c * x */
mpqc_vid mpqc_build_shift(struct mpqc_build *b, mpqc_vid x, float c);  /* x + c */
mpqc_vid mpqc_build_reshape(struct mpqc_build *b, mpqc_vid x, uint32_t rank, const int64_t *dims);
mpqc_vid mpqc_build_transpose(struct mpqc_build *b, mpqc_vid x, const int64_t *perm);
mpqc_vid mpqc_build_expand(struct mpqc_build *b, mpqc_vid x, const struct mpqc_type *to);
/* The transpose of broadcasting `to` to the shape of x: sums over what was repeated. */
mpqc_vid mpqc_build_sum_to(struct mpqc_build *b, mpqc_vid x, const struct mpqc_type *to);
/* Sum over one axis, kept. */
mpqc_vid mpqc_build_sum_axis(struct mpqc_build *b, mpqc_vid x, int64_t axis);
/* By value, because values move; an empty type for MPQC_NONE. */
struct mpqc_type mpqc_build_type(const struct mpqc_build *b, mpqc_vid v);

/* The attributes of a node as a list, without those in the bit set `leave_out`. */
struct mpqc_attrs mpqc_build_attrs(const struct mpqc_node *n, uint64_t leave_out);

#endif
