/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * -calib=distill.
 */
#ifndef MPQC_DRIVER_DISTILL_H
#define MPQC_DRIVER_DISTILL_H

#include "driver/cli.h"
#include "passes/distill.h"

/* Makes -calib-count samples for g, which is as imported.  With -mean, -std or -scale
 * they stay in the range that u8 data has after it. */
mpqc_status mpqc_calib_distill(struct mpqc_cx *cx, const struct mpqc_cli *cli,
                               const struct mpqc_graph *g, struct mpqc_distilled *out)
    MPQC_MUST_CHECK;

#endif
