/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Both networks over the calibration data, one step behind the emission of quantise:
 * the float graph up to a cluster and the integer nodes made so far, for all samples at
 * once, so that a layer's weights can be rounded for the inputs that it will really
 * have.  A value lives in memory until its last reader was emitted.
 */
#ifndef MPQC_PASSES_REPLAY_H
#define MPQC_PASSES_REPLAY_H

#include "passes/quantise.h"

struct mpqc_replay;

/* Needs q->p->data and q->p->engine-independent reference kernels only.  The number of
 * samples is bounded by memory.  *out is NULL on failure. */
mpqc_status mpqc_replay_begin(struct mpqc_quantiser *q, struct mpqc_replay **out) MPQC_MUST_CHECK;
void mpqc_replay_end(struct mpqc_replay *r);
uint64_t mpqc_replay_samples(const struct mpqc_replay *r);
/* Runs the float graph through cluster c, and the integer nodes that exist; `also` (of
 * the new values) is kept too. */
mpqc_status mpqc_replay_to(struct mpqc_replay *r, const struct mpqc_cluster *c, mpqc_vid also)
    MPQC_MUST_CHECK;
/* A value, old or new, of one sample; valid until the next call of mpqc_replay_to. */
struct mpqc_tensor mpqc_replay_tensor(const struct mpqc_replay *r, mpqc_vid v, uint64_t sample);

#endif
