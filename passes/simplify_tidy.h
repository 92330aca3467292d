/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What `simplify` does to a graph as a whole, beside its rules.
 */
#ifndef MPQC_PASSES_SIMPLIFY_TIDY_H
#define MPQC_PASSES_SIMPLIFY_TIDY_H

#include "passes/simplify.h"

/* Equal constants become one; so do equal nodes (operator, inputs, attributes). */
mpqc_status mpqc_sx_merge_equal(struct mpqc_sx *s) MPQC_MUST_CHECK;
/* The name of a tensor that is only another layout of an unnamed one goes to that
 * one: it will be left when the layouts are gone. */
void mpqc_sx_name_sources(struct mpqc_sx *s);
/* Canonical order of nodes, names for all computed values. */
mpqc_status mpqc_sx_tidy(struct mpqc_sx *s) MPQC_MUST_CHECK;

#endif
