/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * -tune-kernels=N: register tiles chosen by measurement.
 *
 * The network is compiled N times; each kernel takes its first, second, ... best tile by
 * the cost model (codegen/tiles.c).  The libraries are run in turn, so every tile is timed
 * with its own epilogue, in the caches that its neighbours leave behind.  For each shape of
 * kernel the fastest tile is kept.  Results do not depend on tiles.
 *
 * What was measured goes to a cache, keyed by shape, target, version, N and the way of
 * measuring; with the same cache the same library is made.
 */
#ifndef MPQC_DRIVER_TUNE_H
#define MPQC_DRIVER_TUNE_H

#include "codegen/codegen.h"

struct mpqc_cli;

/* Kernels whose tiles are interchangeable. */
struct mpqc_tuned_shape {
    uint64_t shape, key; /* the cost model's, the cache's */
    uint32_t tile, usual;    /* the choice; the cost model's */
    double ns, usual_ns;     /* least times of one such kernel */
    uint32_t kernels;
    const char *name; /* of the first kernel */
    bool known;       /* from the cache */
};
struct mpqc_tuning {
    uint32_t n_kernels, n_shapes;
    struct mpqc_tile_facts *usual; /* [kernel] */
    struct mpqc_tuned_shape *shape;
    struct mpqc_tile_request request; /* for mpqc_codegen_emit: the choice */
};
struct mpqc_tune_job {
    struct mpqc_cx *cx;
    const struct mpqc_cli *cli;
    const struct mpqc_graph *graph; /* integer, planned */
    const struct mpqc_plan *plan;
    const struct mpqc_target *target;
};
/* What it fills lives in cx's arena. */
mpqc_status mpqc_tune(const struct mpqc_tune_job *, struct mpqc_tuning *out) MPQC_MUST_CHECK;
/* The shape of kernel k, or NULL. */
const struct mpqc_tuned_shape *mpqc_tuned_of(const struct mpqc_tuning *, uint32_t kernel);
/* One line; verbose: one a shape before. */
void mpqc_tune_print(const struct mpqc_tuning *, bool verbose);

#endif
