/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A walk over the protobuf wire format of an ONNX file, before protobuf-c sees a
 * byte of it.
 *
 * protobuf-c answers bad input with NULL alone, recurses without a limit, and
 * allocates for every field that it meets.  So the importer never hands it a
 * message that was not walked here first: every tag, varint and length is checked
 * against the bytes that are really there, nesting and field counts are bounded,
 * and wire types must fit the schema.  A violation is a diagnostic with the byte
 * offset.  Nothing is allocated but the index, whose size is bounded by the
 * number of messages in the file.
 *
 * The index tells where the parts of the model lie, so that each node and each
 * initialiser can be unpacked alone, used, and forgotten.
 */
#ifndef MPQC_FRONTEND_PBSCAN_H
#define MPQC_FRONTEND_PBSCAN_H

#include "ir/base/base.h"

/* Messages inside messages: a model with a subgraph in a subgraph needs about 12. */
#define MPQC_PB_MAX_DEPTH 32
/* Fields of one message, and of the whole file.  protobuf-c takes about 40 bytes of
 * memory for each field of the message that it is unpacking. */
#define MPQC_PB_MAX_MESSAGE_FIELDS (UINT32_C(1) << 21)
#define MPQC_PB_MAX_FIELDS (UINT64_C(1) << 25)
/* protobuf-c takes no longer string or sub-message; ONNX has the same limit. */
#define MPQC_PB_MAX_LENGTH ((size_t)INT32_MAX)

/* The payload of a message: `length` bytes from byte `offset` of the file. */
struct mpqc_pb_span {
    size_t offset, length;
};

struct mpqc_pb_list {
    struct mpqc_pb_span *at;
    uint32_t n, cap;
};

/* Where the parts of a ModelProto and of its main graph are, in file order. */
struct mpqc_pb_index {
    int64_t ir_version; /* -1 when absent */
    bool has_graph;
    struct mpqc_pb_span graph_name; /* length 0: none */
    struct mpqc_pb_list opsets, functions, training;
    struct mpqc_pb_list nodes, initialisers, sparse, inputs, outputs, value_infos;
};

/* A TensorProto: its raw_data, when it has exactly one.  `raw_tag` is where that
 * field's tag begins, so that the rest of the message can be unpacked without
 * copying the data. */
struct mpqc_pb_tensor {
    bool has_raw;
    size_t raw_tag;
    struct mpqc_pb_span raw;
};

/* Checks data[0, size) as a ModelProto.  `file` is for diagnostics; the lists of
 * *out live in `arena`. */
mpqc_status mpqc_pb_scan_model(struct mpqc_cx *cx, const char *file, const uint8_t *data,
                               size_t size, struct mpqc_arena *arena,
                               struct mpqc_pb_index *out) MPQC_MUST_CHECK;

/* Checks the TensorProto at `span` of data and finds its raw data. */
mpqc_status mpqc_pb_scan_tensor(struct mpqc_cx *cx, const char *file, const uint8_t *data,
                                struct mpqc_pb_span span,
                                struct mpqc_pb_tensor *out) MPQC_MUST_CHECK;

#endif
