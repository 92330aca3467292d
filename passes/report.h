/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What quantisation costs in accuracy, measured on data: the integer graph against
 * the float graph it was made from, both run by an engine.
 */
#ifndef MPQC_PASSES_REPORT_H
#define MPQC_PASSES_REPORT_H

#include "ir/exec.h"

struct mpqc_accuracy {
    uint64_t samples;
    double sqnr_db;   /* 10 log10(sum y^2 / sum (y - y')^2) over all outputs and samples */
    double agreement; /* percent of samples with equal arg max of the first output; -1 when
                         that output has fewer than two elements */
};

/* Runs samples [first, first + count) of `data` through both graphs, which have the same
 * outputs in the same order; integer outputs are dequantised by their types.  Works on
 * cx->threads threads. */
mpqc_status mpqc_report_accuracy(struct mpqc_cx *cx, const struct mpqc_engine *engine,
                                 const struct mpqc_graph *float_graph,
                                 const struct mpqc_graph *int_graph,
                                 const struct mpqc_dataset *data, uint64_t first,
                                 uint64_t count, struct mpqc_accuracy *out) MPQC_MUST_CHECK;

#endif
