/* SPDX-License-Identifier: GPL-3.0-or-later
 * Movement kernels: emit_move.c reads the operator, move_plane.c writes the code.
 */
#ifndef MPQC_CODEGEN_MOVE_H
#define MPQC_CODEGEN_MOVE_H

#include "codegen/nest.h"

#define MOVE_FILL UINT32_MAX

/* One strided copy (nest of output and input) or fill (nest of the output). */
struct move_job {
    struct mpqc_nest nest;
    uint32_t operand;      /* of the body; MOVE_FILL: none */
    int64_t out_at, in_at; /* bytes from the first element */
    struct move_job *next;
};

struct move {
    struct mpqc_emit_cx *e;
    const struct mpqc_node *node;
    mpqc_vid out;
    unsigned bytes;            /* of an element */
    int64_t to[MPQC_MAX_RANK]; /* the output's strides, in elements */
    int64_t fill;              /* bits of the element that fills write */
    struct {
        int64_t count; /* 0: no gather */
        int64_t extent, in_step, out_step; /* of the axis; bytes */
    } gather;
    struct move_job *jobs, **last;
    uint32_t n_jobs;
    bool whole;      /* the only job covers the output, in its shape's dimensions */
    bool single;     /* one nest, split among threads by its rows */
    bool halo_after; /* the halo is filled at the end */
    const struct move_job *job; /* under construction */
};

struct move_job *mpqc_move_job(struct move *, uint32_t operand, int64_t out_at, int64_t in_at);
/* Decides whether the innermost two dimensions are transposed as planes. */
void mpqc_move_choose_plane(const struct move *, struct move_job *);
/* Emits the code of all jobs. */
void mpqc_move_body(struct move *);

#endif
