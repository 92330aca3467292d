/* SPDX-License-Identifier: GPL-3.0-or-later
 * The lines that mpqc ends with.
 */
#ifndef MPQC_DRIVER_SUMMARY_H
#define MPQC_DRIVER_SUMMARY_H

#include "codegen/codegen.h"
#include "driver/cli.h"
#include "driver/judge.h"
#include "driver/tune.h"
#include "passes/report.h"

struct mpqc_summary {
    const struct mpqc_cli *cli;
    const struct mpqc_pass_cx *passes;
    const struct mpqc_graph *graph; /* integer */
    const struct mpqc_target *target;
    const struct mpqc_codegen_facts *facts;
    const struct mpqc_accuracy *accuracy; /* NULL: not measured (no data) */
    const struct mpqc_judge *judge;       /* what it was measured on */
    const struct mpqc_tuning *tuning;     /* NULL: no -tune-kernels */
    const struct mpqc_mixed *mixed;       /* NULL: no decision about bits was asked for */
};
/* Five lines on stdout (more with islands or tuned tiles); with -v a line for every layer first. */
void mpqc_summary_print(const struct mpqc_summary *s);

#endif
