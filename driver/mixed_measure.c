/* SPDX-License-Identifier: GPL-3.0-or-later
 * -cost=measured: what latencies are taken from.
 */
#include "driver/cli.h"

mpqc_status mpqc_mixed_measure(struct mpqc_mixed_job *j)
{
    return MPQC_FAIL(j->cx, UNSUPPORTED, MPQC_NOWHERE,
                     "latencies cannot be measured in this version; give -cost=analytic");
}
