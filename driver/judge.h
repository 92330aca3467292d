/* SPDX-License-Identifier: GPL-3.0-or-later
 * Which samples say how good a quantised network is.
 */
#ifndef MPQC_DRIVER_JUDGE_H
#define MPQC_DRIVER_JUDGE_H

#include "passes/pass.h"

/* Samples that quantised networks are judged by: n of them from `first` on. */
struct mpqc_judge {
    const struct mpqc_dataset *data;
    uint64_t first, n;
    bool seen;        /* calibration, and the rounding of weights, used some of them */
    const char *what; /* "of -eval" */
};
/* Those of `eval` (NULL: not given); else those of -calib that calibration, which used
 * `used`, left out, where there are as many; else all `samples` of -calib. */
struct mpqc_judge mpqc_judge_choose(const struct mpqc_dataset *eval,
                                    const struct mpqc_dataset *used, uint64_t samples);

#endif
