/* SPDX-License-Identifier: GPL-3.0-or-later
 * Single elements of tensors, whatever the container.
 */
#ifndef MPQC_IR_ELEMENTS_H
#define MPQC_IR_ELEMENTS_H

#include "ir/ir.h"

#define MPQC_NAN_BITS 0x7fc00000u /* the NaN that prints as plain "nan" */

/* Integer and bool types only; `set` truncates to the container. */
int64_t mpqc_element_get(enum mpqc_dtype t, const void *data, int64_t i);
void mpqc_element_set(enum mpqc_dtype t, void *data, int64_t i, int64_t v);
/* Element i becomes a copy of element 0, for i in [1, n). */
void mpqc_elements_splat(enum mpqc_dtype t, void *data, int64_t n);
/* Pseudo-random elements: small multiples of 2^-10 in [-1, 1) for f32, the whole
 * range for types of 16 bits or fewer, [-1000, 1000] for wider ones. */
void mpqc_elements_random(enum mpqc_dtype t, void *data, int64_t n, uint64_t seed);
/* FNV-1a, 64 bits. */
uint64_t mpqc_content_hash(const void *data, size_t n);

#endif
