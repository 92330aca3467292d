/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The observer: extremes and a histogram of fixed size for one value, and the
 * choice of a range from it.  See struct mpqc_histogram in pass.h.
 *
 * Exact zeros are counted but not binned (count - sum(bins) is their number): a
 * zero is represented without error in every scheme, and after a ReLU it is most
 * of the data.
 */
#ifndef MPQC_PASSES_HISTOGRAM_H
#define MPQC_PASSES_HISTOGRAM_H

#include "passes/pass.h"

/* Bins of the smallest float; `exp` starts here and only grows. */
#define MPQC_HIST_MIN_EXP (-160)
#define MPQC_HIST_MAX_EXP 128

/* Makes an empty histogram; false when memory ran out. */
bool mpqc_hist_init(struct mpqc_histogram *h, struct mpqc_arena *arena);
/* Counts n values.  False, with nothing counted, when one is NaN or infinite. */
bool mpqc_hist_add(struct mpqc_histogram *h, const float *x, size_t n);
/* Adds what src saw to dst.  Exact and commutative: any split of the data over
 * several histograms gives the same merged one. */
void mpqc_hist_merge(struct mpqc_histogram *dst, const struct mpqc_histogram *src);

/* The range [*lo, *hi] that a scheme with `levels` steps between lowest and highest
 * code (255 for 8 bits) should cover.  It lies within [min, max] of the data,
 * and contains 0 only if they do.  Empty histograms give [0, 0]. */
void mpqc_hist_range(const struct mpqc_histogram *h, enum mpqc_calibration method,
                     double percentile, unsigned levels, double *lo, double *hi);

#endif
