/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What choices cost, as far as arithmetic can tell: bytes exactly, latency by a
 * roofline (Williams, Waterman and Patterson, 2009).  Measured latencies come from
 * the driver, which has a compiler to measure with.
 */
#ifndef MPQC_PASSES_COST_H
#define MPQC_PASSES_COST_H

#include "passes/bits.h"

/* Of one core. */
struct mpqc_machine {
    double macs_per_ns;   /* u8 x i8 */
    double bits_per_ns;   /* products of 1 bit by 1 bit, by counting bits; 0: it cannot */
    double bytes_per_ns;  /* from where weights lie */
    double unpack;        /* relative cost of weights that are not bytes, e.g. 0.1 */
    double start_ns;      /* of every kernel */
};

/* Bytes per output channel beside the weights: bias i32, shift i32, multiplier i16. */
#define MPQC_CHANNEL_BYTES 10

/* b->bytes: weights, packed, and MPQC_CHANNEL_BYTES per output channel.  Shared weights
 * count once. */
mpqc_status mpqc_cost_bytes(struct mpqc_cx *cx, struct mpqc_bits *b, struct mpqc_arena *arena)
    MPQC_MUST_CHECK;
/* b->latency, in ns, as the longer of computing and loading. */
mpqc_status mpqc_cost_analytic(struct mpqc_cx *cx, const struct mpqc_graph *g, struct mpqc_bits *b,
                               const struct mpqc_machine *m, struct mpqc_arena *arena)
    MPQC_MUST_CHECK;

#endif
