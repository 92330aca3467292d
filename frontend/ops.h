/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The operator importers, declared from their table.
 */
#ifndef MPQC_FRONTEND_OPS_H
#define MPQC_FRONTEND_OPS_H

#include "frontend/onnx_import.h"

#define ROW(name, since, until, in_min, in_max, out_max, types, importer, op, attrs, say)         \
    mpqc_status mpqc_on_##importer(struct mpqc_imp_node *n) MPQC_MUST_CHECK;
#include "frontend/onnx_ops.def"
#undef ROW

#endif
