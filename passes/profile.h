/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Profiles as text files: what calibration learned, for other settings and other
 * machines.  Keyed by tensor name, independent of the scheme of quantisation.
 *
 *   mpqc-profile 1
 *   samples 256
 *   value "conv1_out" count 4194304 min -0x1.8p+1 max 0x1.cp+2 exp -8
 *   bins 2011:3 2012:17 ...
 *   end
 *
 * Values without a name are keyed by position: `value #17 ...`.  Only bins with a
 * count are listed, as index:count.
 */
#ifndef MPQC_PASSES_PROFILE_H
#define MPQC_PASSES_PROFILE_H

#include "passes/pass.h"

mpqc_status mpqc_profile_dump(struct mpqc_cx *cx, const struct mpqc_graph *g,
                              const struct mpqc_profile *profile, const char *path)
    MPQC_MUST_CHECK;
/* Sets p->profile.  Every value that needs a range must be in the file, and nothing
 * else may be: else it is a profile of another network. */
mpqc_status mpqc_profile_load(struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                              const bool *needs_range, const char *path) MPQC_MUST_CHECK;

#endif
