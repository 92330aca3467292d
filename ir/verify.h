/* SPDX-License-Identifier: GPL-3.0-or-later
 * The verifier: what every graph obeys, at every stage.
 */
#ifndef MPQC_IR_VERIFY_H
#define MPQC_IR_VERIFY_H

#include "ir/ir.h"

enum mpqc_verify_mode {
    MPQC_VERIFY_FLOAT,   /* no integer-only operators, no quantised types, no T_SHAPE operators */
    MPQC_VERIFY_MIXED,   /* anything consistent */
    MPQC_VERIFY_INTEGER  /* no f32 operator but quantize at inputs, dequantize at outputs */
};
/* Structure (ids, arity, single assignment, order, locs, attributes allowed by
 * the table), types (inference gives the recorded types again), and the stage. */
mpqc_status mpqc_verify(struct mpqc_cx *cx, const struct mpqc_graph *g,
                        enum mpqc_verify_mode mode) MPQC_MUST_CHECK;
#endif
