/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the files of fuse and plan share; the result is ir/plan.h.
 */
#ifndef MPQC_PASSES_PLAN_H
#define MPQC_PASSES_PLAN_H

#include "passes/pass.h"

mpqc_status mpqc_pass_fuse(struct mpqc_pass_cx *p, struct mpqc_graph *g) MPQC_MUST_CHECK;
mpqc_status mpqc_pass_plan(struct mpqc_pass_cx *p, struct mpqc_graph *g) MPQC_MUST_CHECK;

/* How a value gets its memory. */
enum mpqc_plan_kind {
    MPQC_PLAN_NOTHING, /* in registers inside a kernel, or unused */
    MPQC_PLAN_CONST,
    MPQC_PLAN_INPUT,   /* the caller's */
    MPQC_PLAN_ROOT,    /* memory of its own: in the arena, or the caller's output */
    MPQC_PLAN_SLICE,   /* part of `parent`, its source */
    MPQC_PLAN_PART,    /* part of `parent`, the concat that joins it */
    MPQC_PLAN_RESHAPE  /* all of `parent`, its source, which is dense */
};

struct mpqc_plan_value {
    enum mpqc_plan_kind kind;
    mpqc_vid parent;
    int64_t begin[MPQC_MAX_RANK]; /* SLICE, PART: first element in the parent */
    int64_t step[MPQC_MAX_RANK];
    int32_t halo[4];              /* that readers need */
    bool no_halo;                 /* must be dense: a reshape reads it */
    bool assembled;               /* result of a concat whose parts lie in its place */
    uint32_t output;              /* ROOT: index of the caller's output, or MPQC_NONE */
    uint32_t first, last;         /* ROOT: kernels between which it is live */
    mpqc_vid same_as;             /* ROOT: takes over the memory of this root, or MPQC_NONE */
};

struct mpqc_planner {
    struct mpqc_pass_cx *p;
    struct mpqc_cx *cx;
    struct mpqc_graph *g;
    uint32_t n_kernels; /* numbers given so far */
    struct mpqc_plan_value *value; /* by value id */
    struct mpqc_plan *plan;
};

/* plan_views.c: inserts the copies without which some value had no place, then
 * decides the kind of every value. */
mpqc_status mpqc_plan_views(struct mpqc_planner *l) MPQC_MUST_CHECK;
/* The root that a value's memory belongs to. */
mpqc_vid mpqc_plan_root(const struct mpqc_planner *l, mpqc_vid v);
/* Nodes that are no kernel, because their result is a view. */
bool mpqc_plan_is_view_node(const struct mpqc_planner *l, const struct mpqc_node *n);

/* plan_kernels.c: fills plan->kernels from node->kernel, in execution order. */
mpqc_status mpqc_plan_kernels(struct mpqc_planner *l) MPQC_MUST_CHECK;

/* plan_memory.c: liveness, in-place, offsets; fills plan->place. */
mpqc_status mpqc_plan_memory(struct mpqc_planner *l) MPQC_MUST_CHECK;

#endif
