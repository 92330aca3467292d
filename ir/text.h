/* SPDX-License-Identifier: GPL-3.0-or-later
 * The text form of graphs; the grammar is in ir/GRAMMAR.md.
 */
#ifndef MPQC_IR_TEXT_H
#define MPQC_IR_TEXT_H

#include "ir/ir.h"

/* Constants larger than this many elements print as content hashes, which cannot
 * be parsed back, unless `full`. */
#define MPQC_TEXT_INLINE_ELEMENTS 64

/* Canonical: values renumbered in order, attributes sorted, floats exact. */
void mpqc_graph_print(const struct mpqc_graph *g, struct mpqc_buf *to, bool full);
/* One type, e.g. "i8[1,4] quant(scale=0x1p-3, zero=0)". */
void mpqc_type_print(const struct mpqc_type *t, struct mpqc_buf *to, bool full);
/* Parses into an initialised graph; diagnostics carry line and column. */
mpqc_status mpqc_graph_parse(struct mpqc_cx *cx, const char *text, size_t len, const char *file,
                             struct mpqc_graph *out) MPQC_MUST_CHECK;
#endif
