/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Inside `simplify`: the rewrite engine and what its rules share.
 *
 * A rule looks at one node and, if it fires, enters new nodes and repoints the
 * uses of the old one.  It gets a copy of the node, because nodes move when
 * others are added; the lists behind the copy's pointers stay where they are.
 * Rules rewrite single-result nodes only; the table has no others.
 *
 * The engine is in simplify.c, the table in simplify_rules.def, the rules in
 * simplify_<family>.c.
 */
#ifndef MPQC_PASSES_SIMPLIFY_H
#define MPQC_PASSES_SIMPLIFY_H

#include "passes/pass.h"

/* The rules of later phases would hide what earlier ones look for; once on, a
 * phase stays on. */
enum mpqc_sx_phase {
    MPQC_SX_SHAPE,   /* movement, identities, activation patterns, per-channel folding */
    MPQC_SX_SCALAR,  /* scalar constants melt into their neighbours */
    MPQC_SX_DEPTHWISE, /* what is left of BatchNorm becomes a depthwise convolution */
    MPQC_SX_PHASES
};

/* How many transposes and reshapes lie above a value, on the worst path. */
struct mpqc_sx_level {
    uint32_t transposes, reshapes;
};

struct mpqc_sx {
    struct mpqc_cx *cx;
    struct mpqc_graph *g;
    struct mpqc_arena *scratch;
    enum mpqc_sx_phase phase;
    uint32_t *uses;    /* by value: exact number of uses, graph outputs included */
    uint64_t *hash;    /* by value: content hash of a constant, 0 for not yet */
    struct mpqc_sx_level *level; /* by value */
    uint32_t n_uses;   /* values known to the arrays above */
    uint32_t cap_uses;
};

/* Tries one rewrite at `n`; *done says whether it happened. */
typedef mpqc_status (*mpqc_sx_rule)(struct mpqc_sx *s, const struct mpqc_node *n, bool *done);

#define RULE(name, op, phase, doc)                                                                \
    mpqc_status mpqc_sx_##name(struct mpqc_sx *s, const struct mpqc_node *n, bool *done);
#include "passes/simplify_rules.def"
#undef RULE

/* ---- editing (simplify.c) ---------------------------------------------------- */

/* mpqc_node_fold, unless the result would be much larger than the inputs. */
mpqc_status mpqc_sx_add(struct mpqc_sx *s, enum mpqc_op op, const mpqc_vid *in, uint32_t n_in,
                        const struct mpqc_attrs *attrs, struct mpqc_loc loc,
                        mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_sx_add1(struct mpqc_sx *s, enum mpqc_op op, mpqc_vid a,
                         const struct mpqc_attrs *attrs, struct mpqc_loc loc,
                         mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_sx_add2(struct mpqc_sx *s, enum mpqc_op op, mpqc_vid a, mpqc_vid b,
                         struct mpqc_loc loc, mpqc_vid *out) MPQC_MUST_CHECK;
/* A new f32 constant; `data` is copied unless it lies in the graph's arena already. */
mpqc_status mpqc_sx_const(struct mpqc_sx *s, uint32_t rank, const int64_t *dims,
                          const float *data, bool in_arena, mpqc_vid *out) MPQC_MUST_CHECK;
/* Uses of `from` become uses of `to`, which inherits its name if it has none; what
 * nobody uses any more dies.  The names of graph outputs are kept: false, and
 * nothing happens, when that cannot be (an output that would become an input, a
 * constant or another output). */
bool mpqc_sx_replace(struct mpqc_sx *s, mpqc_vid from, mpqc_vid to);
bool mpqc_sx_can_replace(const struct mpqc_sx *s, mpqc_vid from, mpqc_vid to);
bool mpqc_sx_is_output(const struct mpqc_sx *s, mpqc_vid v);
/* mpqc_sx_replace, setting *done to whether it happened. */
void mpqc_sx_done(struct mpqc_sx *s, mpqc_vid from, mpqc_vid to, bool *done);

/* The same for a result that is only another layout of `inner`, which is new: the
 * name goes to `inner`, except that of a graph output. */
void mpqc_sx_sunk(struct mpqc_sx *s, mpqc_vid from, mpqc_vid inner, mpqc_vid to, bool *done);

/* reshape and transpose in their simplest form: nothing for no change, reshape for a
 * transposition that moves extents of one only. */
mpqc_status mpqc_sx_reshape(struct mpqc_sx *s, mpqc_vid x, uint32_t rank, const int64_t *dims,
                            struct mpqc_loc loc, mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_sx_transpose(struct mpqc_sx *s, mpqc_vid x, const int64_t *perm,
                              struct mpqc_loc loc, mpqc_vid *out) MPQC_MUST_CHECK;

/* ---- looking (simplify_util.c) ------------------------------------------------- */

/* The defining node of v if it is of this operator, else NULL.  Not valid once a
 * node is added. */
const struct mpqc_node *mpqc_sx_def(const struct mpqc_sx *s, mpqc_vid v, enum mpqc_op op);
const struct mpqc_type *mpqc_sx_type(const struct mpqc_sx *s, mpqc_vid v);
struct mpqc_attrs mpqc_sx_attrs(const struct mpqc_node *n);
/* Leaves an attribute out; replaces or adds a list of integers (borrowed). */
void mpqc_sx_unset(struct mpqc_attrs *a, enum mpqc_attr_key key);
void mpqc_sx_set_ints(struct mpqc_attrs *a, enum mpqc_attr_key key, uint32_t n,
                      const int64_t *ints);
/* The elements of an f32 constant, else NULL. */
const float *mpqc_sx_f32(const struct mpqc_sx *s, mpqc_vid v);
/* Is v an f32 constant of one element? */
bool mpqc_sx_scalar(const struct mpqc_sx *s, mpqc_vid v, float *value);
/* Is v an f32 constant whose elements are all `value`? */
bool mpqc_sx_all(const struct mpqc_sx *s, mpqc_vid v, float value);
/* An f32 constant that varies along the last axis of x alone, and leaves x's shape
 * as it is when broadcast: its elements (1 or the last extent), else NULL. */
const float *mpqc_sx_channel(const struct mpqc_sx *s, mpqc_vid v, const struct mpqc_type *x,
                             int64_t *count);
bool mpqc_sx_near(float a, float b); /* equal but for rounding of decimals: 1e-5 relative */

/* What is known about the values of v without running anything. */
struct mpqc_sx_range {
    float lo, hi;
};
struct mpqc_sx_range mpqc_sx_range_of(const struct mpqc_sx *s, mpqc_vid v, int depth);

/* x.dims[perm[i]] = y.dims[i]: inverse, and does it only move extents of one? */
void mpqc_sx_inverse(uint32_t rank, const int64_t *perm, int64_t *inverse);
bool mpqc_sx_moves_units(const struct mpqc_type *x, const int64_t *perm);
/* Is v a transposition of another value: a transpose, or a reshape that could be
 * one?  Fills perm and *x. */
bool mpqc_sx_transposed(const struct mpqc_sx *s, mpqc_vid v, int64_t *perm, mpqc_vid *x);
/* Windows: pads, strides, dilations, kernel with their defaults. */
struct mpqc_sx_window {
    int64_t kernel[2], strides[2], pads[4], dilations[2];
};
struct mpqc_sx_window mpqc_sx_window_of(const struct mpqc_node *n);

#endif
