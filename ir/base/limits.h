/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Internal sizes that decide when something grows, spills or is refused.  The
 * `tiny` build (-DMPQC_TINY=ON) makes every one of them small, so that ordinary
 * tests walk the growth paths; results must be the same in every build.
 */
#ifndef MPQC_IR_BASE_LIMITS_H
#define MPQC_IR_BASE_LIMITS_H

#ifdef MPQC_TINY
#define MPQC_ARENA_BLOCK 64u /* least payload of an arena block, bytes */
#define MPQC_BUF_FIRST 1u    /* first capacity of a growing byte string */
#define MPQC_GRAPH_FIRST 1u  /* first capacity of a graph's tables */
#else
#define MPQC_ARENA_BLOCK 65536u
#define MPQC_BUF_FIRST 256u
#define MPQC_GRAPH_FIRST 64u
#endif

/* Limits of what is accepted; the same in every build, because they decide results. */
#define MPQC_MAX_FOLD_BYTES ((size_t)1 << 31) /* of one constant made by folding */
#define MPQC_MAX_VALUES (1u << 26)            /* in one graph; nodes likewise */

#endif
