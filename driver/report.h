/* SPDX-License-Identifier: GPL-3.0-or-later
 * -report=FILE: what is known about every layer, as JSON or CSV.
 */
#ifndef MPQC_DRIVER_REPORT_H
#define MPQC_DRIVER_REPORT_H

#include "driver/mixed.h"
#include "driver/tune.h"

/* Of one layer; NaN: not known. */
struct mpqc_layer_facts {
    double isolated_db;    /* SQNR of its result when only its weights and input are quantised */
    double accumulated_db; /* SQNR of the stored value behind it in the whole integer network */
    double saturation;     /* share of the observed inputs that lie beyond the range */
    mpqc_vid stored;       /* in the integer graph, or MPQC_NONE */
};

struct mpqc_report_job {
    struct mpqc_cx *cx;
    const struct mpqc_cli *cli;
    const struct mpqc_pass_cx *passes; /* data, profile, plan */
    const struct mpqc_graph *real, *integer; /* `real` is the graph that bits are about */
    const struct mpqc_target *target;
    const struct mpqc_mixed *mixed;
    const struct mpqc_tuning *tuning; /* NULL: no -tune-kernels */
};
/* report_measure.c: facts[layer], allocated by the caller. */
mpqc_status mpqc_report_measure(const struct mpqc_report_job *j, struct mpqc_layer_facts *facts)
    MPQC_MUST_CHECK;
/* Writes the file that -report names. */
mpqc_status mpqc_report_write(const struct mpqc_report_job *j) MPQC_MUST_CHECK;

#endif
