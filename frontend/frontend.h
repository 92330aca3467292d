/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * ONNX file -> float graph.
 */
#ifndef MPQC_FRONTEND_FRONTEND_H
#define MPQC_FRONTEND_FRONTEND_H

#include "ir/ir.h"

/* -shape=name:1x3x224x224 */
struct mpqc_shape_option {
    const char *input;
    uint32_t rank;
    int64_t dims[MPQC_MAX_RANK];
};
/* -define-symbol=batch,1 */
struct mpqc_symbol_option {
    const char *symbol;
    int64_t value;
};
struct mpqc_import_options {
    const struct mpqc_shape_option *shapes;
    uint32_t n_shapes;
    const struct mpqc_symbol_option *symbols;
    uint32_t n_symbols;
};

/* Reads and checks the file, resolves dynamic dimensions, folds shape arithmetic,
 * and builds the graph (names, locs and byte offsets kept).  Every unsupported
 * operator or attribute is reported, not only the first.  A symbolic first
 * dimension of an input without a value is taken as 1 (batch), with a note; any
 * other is an error naming the symbol and the flag. */
mpqc_status mpqc_import_onnx(struct mpqc_cx *cx, const char *path,
                             const struct mpqc_import_options *options,
                             struct mpqc_graph *out) MPQC_MUST_CHECK;

/* One TensorProto file (.pb), as in ONNX's test_data_set folders.  Memory from
 * `arena`.  *name: the tensor's name or NULL. */
mpqc_status mpqc_read_tensor_pb(struct mpqc_cx *cx, const char *path, struct mpqc_arena *arena,
                                struct mpqc_tensor *out, const char **name) MPQC_MUST_CHECK;

/* Rows of onnx_ops.def as text: operator, opset range, notes; for -list-ops. */
void mpqc_list_onnx_ops(struct mpqc_buf *to);

#endif
