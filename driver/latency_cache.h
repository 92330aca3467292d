/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Measured latencies, kept between runs: a text file of "key bits ns" lines, to which
 * lines are only ever appended.  `bits` is a layer's bits or a tile's number: whatever was
 * tried for the key.
 */
#ifndef MPQC_DRIVER_LATENCY_CACHE_H
#define MPQC_DRIVER_LATENCY_CACHE_H

#include "ir/base/base.h"

/* FNV-1a of `text`, continuing from `seed` (0 to begin). */
uint64_t mpqc_latency_hash(uint64_t seed, const char *text);

struct mpqc_latency_cache;
/* path NULL: $XDG_CACHE_HOME/mpqc/NAME, or ~/.cache/mpqc/NAME; "none": no file.  A
 * default file that cannot be read or written is no error, a named one is. */
mpqc_status mpqc_latency_open(struct mpqc_cx *cx, const char *path, const char *name,
                              struct mpqc_latency_cache **out) MPQC_MUST_CHECK;
bool mpqc_latency_find(const struct mpqc_latency_cache *, uint64_t key, unsigned bits, double *ns);
void mpqc_latency_add(struct mpqc_latency_cache *, uint64_t key, unsigned bits, double ns);
/* The entry of the key with the least time, among equal ones the first; false: none. */
bool mpqc_latency_best(const struct mpqc_latency_cache *, uint64_t key, unsigned *bits, double *ns);
/* Appends what was added. */
void mpqc_latency_close(struct mpqc_latency_cache *);

#endif
