/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Decisions about bits as text: plans, in the form of pins (pins.h), and tables of
 * sensitivity:
 *
 *   mpqc-sensitivity 1
 *   metric "hessian-trace"
 *   choices w8a8 w6a8 w4a8
 *   layer "/conv1/Conv" params 432 macs 442368 : 0.00012 0.0019 0.031
 *   figures trace trace_error
 *   figure "/conv1/Conv" 0.0517 0.0032
 *   end
 *
 * `layer` has the expected loss of every choice, with - where it was not computed (sensitivity.h);
 * `figures`, which may be missing, is what the metric measured (struct mpqc_bits_figure),
 * with - for none.  Names are escaped as
 * in C (\" \\ \xHH).  Numbers read back exactly.
 */
#ifndef MPQC_PASSES_BITS_TEXT_H
#define MPQC_PASSES_BITS_TEXT_H

#include "passes/bits.h"

/* One rule for each layer that matches this layer only; `about` (may be NULL, may have
 * several lines) becomes comments. */
void mpqc_bits_write_plan(const struct mpqc_bits *b, const uint32_t *chosen, const char *about,
                          struct mpqc_buf *to);
/* "w8a8 w4a8 w4a8": the choices in the order of the layers. */
void mpqc_bits_write_choices(const struct mpqc_bits *b, const uint32_t *chosen,
                             struct mpqc_buf *to);

/* Without the choices of which no layer has a number. */
void mpqc_bits_write_omega(const struct mpqc_bits *b, const char *metric, struct mpqc_buf *to);
/* Fills b->omega (allocated in `arena`), the figures, and *metric.  Layers are found by name
 * and must agree in parameters and MACs, else the file is of another network.  Choices
 * without a number are NaN and forbidden: b->allowed (must be there) becomes false, with one
 * warning.  An error where a layer has nothing left, or not what it is pinned to. */
mpqc_status mpqc_bits_read_omega(struct mpqc_cx *cx, struct mpqc_bits *b, struct mpqc_arena *arena,
                                 const char *text, const char *path, const char **metric)
    MPQC_MUST_CHECK;

#endif
