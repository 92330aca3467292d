/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Inside the importer: the state of one import, the node at hand, and the helpers
 * with which the operator importers (op_*.c) are written.
 *
 * An operator importer is `mpqc_status f(struct mpqc_imp_node *n)`, named by a row
 * of onnx_ops.def.  It reads n->in and the attributes, emits IR nodes, and sets
 * n->out[i] for every output that it supports.  When it meets something that mpqc
 * cannot do it returns mpqc_imp_unsupported(n, ...): the import goes on, so that one
 * run reports everything.  A model that is wrong is mpqc_imp_invalid(n, ...).
 */
#ifndef MPQC_FRONTEND_ONNX_IMPORT_H
#define MPQC_FRONTEND_ONNX_IMPORT_H

#include "frontend/frontend.h"
#include "frontend/pbscan.h"
#include "onnx/onnx.pb-c.h"

/* Opsets that the table speaks for. */
#define MPQC_OPSET_MIN 7
#define MPQC_OPSET_MAX 21
#define MPQC_OPSET_ANY 9999 /* "and later" */

/* A folded constant may not be larger than this, nor all of them together larger than
 * the second: a few bytes of hostile file can ask for any size. */
#define MPQC_IMP_MAX_CONST ((uint64_t)1 << 30)
#define MPQC_IMP_MAX_CONSTS ((uint64_t)3 << 30)
/* Nor may the arithmetic of one folded node be more than this. */
#define MPQC_IMP_MAX_FOLD_MACS ((uint64_t)1 << 28)
/* No tensor may have more elements. */
#define MPQC_IMP_MAX_ELEMENTS ((int64_t)1 << 31)

/* ---- a file in memory (onnx_file.c) ----------------------------------------------- */

struct mpqc_imp_file {
    const char *path;
    const uint8_t *data; /* mapped read-only */
    size_t size;
};
mpqc_status mpqc_imp_open(struct mpqc_cx *cx, const char *path,
                          struct mpqc_imp_file *out) MPQC_MUST_CHECK;
void mpqc_imp_close(struct mpqc_imp_file *f);

/* protobuf-c's allocator on an arena: frees nothing. */
ProtobufCAllocator mpqc_imp_allocator(struct mpqc_arena *arena);

/* Unpacks the message at `span`, which pbscan has checked, into the arena of `to`;
 * the diagnostic says what `what` is. */
mpqc_status mpqc_imp_unpack(struct mpqc_cx *cx, const struct mpqc_imp_file *f,
                            struct mpqc_pb_span span, const ProtobufCMessageDescriptor *type,
                            const char *what, struct mpqc_arena *to,
                            void *out) MPQC_MUST_CHECK;

/* A table from names to numbers, open addressing; memory from an arena. */
struct mpqc_imp_names {
    const char **key;
    uint32_t *value;
    uint32_t n, cap; /* cap: a power of two, or 0 */
};
/* The number of `name`, or MPQC_NONE. */
uint32_t mpqc_imp_names_find(const struct mpqc_imp_names *t, const char *name);
/* Adds or replaces; `name` is kept by reference.  False when out of memory. */
bool mpqc_imp_names_set(struct mpqc_imp_names *t, struct mpqc_arena *arena, const char *name,
                        uint32_t value) MPQC_MUST_CHECK;

struct mpqc_imp;

/* ---- tensors (onnx_tensor.c) ------------------------------------------------------ */

/* Decodes a tensor into dense containers in `arena` (or, for raw data of the right
 * form, points into the message).  `raw`: its raw data when they were not unpacked,
 * else NULL.  f64, f16 and bf16 become f32; u32 and u64 become i64. */
mpqc_status mpqc_imp_tensor(struct mpqc_cx *cx, struct mpqc_where where,
                            const Onnx__TensorProto *t, const uint8_t *raw, size_t raw_size,
                            struct mpqc_arena *arena, struct mpqc_tensor *out) MPQC_MUST_CHECK;
/* Unpacks and decodes the TensorProto at `span` without copying large raw data. */
mpqc_status mpqc_imp_tensor_at(struct mpqc_cx *cx, const struct mpqc_imp_file *f,
                               struct mpqc_pb_span span, struct mpqc_arena *arena,
                               struct mpqc_tensor *out, const char **name) MPQC_MUST_CHECK;
/* The product of extents from a file; false when one is negative or the product is more
 * than MPQC_IMP_MAX_ELEMENTS.  An extent of 0 must not hide others, whose products are
 * strides: the limit holds without it, too. */
bool mpqc_imp_count(size_t rank, const int64_t *dims, int64_t *out) MPQC_MUST_CHECK;
/* The name alone, without touching the data; NULL when it has none.  In scratch. */
mpqc_status mpqc_imp_tensor_name(struct mpqc_imp *im, struct mpqc_pb_span span,
                                 const char **out) MPQC_MUST_CHECK;
/* The IR's element type for an ONNX one; false when there is none. */
bool mpqc_imp_dtype(int32_t onnx, enum mpqc_dtype *out);
const char *mpqc_imp_dtype_name(int32_t onnx);

/* ---- the import ------------------------------------------------------------------- */

struct mpqc_imp_node;
typedef mpqc_status (*mpqc_imp_fn)(struct mpqc_imp_node *n);

/* Which element types the first input may have. */
enum mpqc_imp_types { MPQC_IMP_FLOAT, MPQC_IMP_NUMBER, MPQC_IMP_LOGIC, MPQC_IMP_ANY };

/* A row of onnx_ops.def. */
struct mpqc_imp_row {
    const char *name;
    int since, until; /* opset range */
    uint32_t in_min, in_max, out_max;
    enum mpqc_imp_types types;
    mpqc_imp_fn fn;
    enum mpqc_op op;     /* of the direct importers */
    const char *attrs;   /* " a b c ": supported attributes, each between spaces */
    const char *remarks; /* for people */
};
/* The row for an operator at an opset; NULL when there is none, and then *other is one for
 * another opset, or NULL. */
const struct mpqc_imp_row *mpqc_imp_row_find(const char *name, int64_t opset,
                                             const struct mpqc_imp_row **other);

/* What is known of an ONNX value. */
struct mpqc_imp_value {
    const char *name;
    mpqc_vid vid;        /* MPQC_NONE: not (yet) known */
    uint32_t initialiser; /* index + 1 of one that is still in the file, else 0 */
};

struct mpqc_imp_report { /* something unsupported */
    const char *node, *op, *text;
    int64_t offset;
};

struct mpqc_imp {
    struct mpqc_cx *cx;
    struct mpqc_imp_file file;
    struct mpqc_pb_index index;
    const struct mpqc_import_options *options;
    struct mpqc_graph *g;
    struct mpqc_arena arena;   /* of the whole import */
    struct mpqc_arena scratch; /* of one node */
    int64_t opset;
    struct mpqc_imp_names names; /* ONNX value name -> values */
    struct mpqc_imp_value *values;
    uint32_t n_values, cap_values;
    struct mpqc_imp_names node_names; /* name -> how often it was seen */
    struct mpqc_imp_names infos;      /* value_info name -> index; built when first needed */
    bool infos_built;
    struct mpqc_imp_report *reports;
    uint32_t n_reports, cap_reports;
    uint64_t const_bytes;
    uint32_t other_fails; /* UNSUPPORTED diagnostics that the shape rules gave */
};

/* The node being imported. */
struct mpqc_imp_node {
    struct mpqc_imp *im;
    const Onnx__NodeProto *pb;
    const struct mpqc_imp_row *row;
    struct mpqc_loc loc;
    uint32_t n_in, n_out; /* without left-out ones at the end */
    mpqc_vid *in;         /* MPQC_NONE: left out */
    mpqc_vid *out;        /* to be filled */
};

mpqc_status mpqc_imp_unsupported(struct mpqc_imp_node *n, const char *fmt, ...)
    MPQC_PRINTF(2, 3) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_invalid(struct mpqc_imp_node *n, const char *fmt, ...)
    MPQC_PRINTF(2, 3) MPQC_MUST_CHECK;
/* Imports the nodes of a subgraph in place; its outputs are put into n->out. */
mpqc_status mpqc_imp_inline(struct mpqc_imp_node *n, const Onnx__GraphProto *sub) MPQC_MUST_CHECK;

/* ---- the walk over nodes (onnx_graph.c) ------------------------------------------- */

/* The entry for an ONNX value name, made when it is new. */
mpqc_status mpqc_imp_value(struct mpqc_imp *im, const char *name,
                           struct mpqc_imp_value **out) MPQC_MUST_CHECK;
/* The IR value of a name, reading an initialiser from the file when it is first used.
 * *out is MPQC_NONE for the result of something unsupported. */
mpqc_status mpqc_imp_lookup(struct mpqc_imp *im, const char *name, struct mpqc_where where,
                            mpqc_vid *out) MPQC_MUST_CHECK;
/* Enters the names of the main graph's initialisers. */
mpqc_status mpqc_imp_initialisers(struct mpqc_imp *im) MPQC_MUST_CHECK;
/* Imports every node of the main graph. */
mpqc_status mpqc_imp_nodes(struct mpqc_imp *im) MPQC_MUST_CHECK;
/* Remembers something unsupported. */
mpqc_status mpqc_imp_report(struct mpqc_imp *im, struct mpqc_loc loc,
                            const char *text) MPQC_MUST_CHECK;
/* Turns what was reported into diagnostics: UNSUPPORTED, or OK when there is nothing. */
mpqc_status mpqc_imp_flush(struct mpqc_imp *im) MPQC_MUST_CHECK;
/* The type and shape of a value_info; false when it is absent or not fully static. */
bool mpqc_imp_static_type(const Onnx__ValueInfoProto *info, struct mpqc_type *out);

/* ---- inputs and outputs (onnx_model.c), attributes (onnx_node.c) ------------------ */

static inline mpqc_vid mpqc_imp_in(const struct mpqc_imp_node *n, uint32_t i)
{
    return i < n->n_in ? n->in[i] : MPQC_NONE;
}
static inline const struct mpqc_type *mpqc_imp_type(const struct mpqc_imp_node *n, mpqc_vid v)
{
    return &mpqc_value_at(n->im->g, v)->type;
}
static inline bool mpqc_imp_wants(const struct mpqc_imp_node *n, uint32_t i)
{
    return i < n->n_out && n->pb->output[i][0];
}

const Onnx__AttributeProto *mpqc_imp_attr(const struct mpqc_imp_node *n, const char *name);
/* Each gives `otherwise` when the attribute is absent, and fails when it has another
 * type.  Integer lists: *out is NULL when absent; it lives as long as the node. */
mpqc_status mpqc_imp_int(struct mpqc_imp_node *n, const char *name, int64_t otherwise,
                         int64_t *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_float(struct mpqc_imp_node *n, const char *name, float otherwise,
                           float *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_ints(struct mpqc_imp_node *n, const char *name, uint32_t *count,
                          const int64_t **out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_string(struct mpqc_imp_node *n, const char *name, const char *otherwise,
                            const char **out) MPQC_MUST_CHECK;

/* Input i as constant integers; unsupported when it is not constant.  `what` names it
 * for the diagnostic. *out is NULL when the input is left out. */
mpqc_status mpqc_imp_const_ints(struct mpqc_imp_node *n, uint32_t i, const char *what,
                                uint32_t *count, const int64_t **out) MPQC_MUST_CHECK;
/* Input i as one constant number; *present false when left out. */
mpqc_status mpqc_imp_const_number(struct mpqc_imp_node *n, uint32_t i, const char *what,
                                  bool *present, double *out) MPQC_MUST_CHECK;
/* An axis in [-rank, rank) made non-negative. */
mpqc_status mpqc_imp_axis(struct mpqc_imp_node *n, int64_t axis, uint32_t rank,
                          uint32_t *out) MPQC_MUST_CHECK;
/* A list of axes as a sorted list without repeats. */
mpqc_status mpqc_imp_axes(struct mpqc_imp_node *n, const int64_t *axes, uint32_t count,
                          uint32_t rank, uint32_t *n_out, int64_t *out) MPQC_MUST_CHECK;
/* "axes" as attribute before some opset, as an input from then on; both forms occur in files
 * of either kind, so whichever is there is taken. */
mpqc_status mpqc_imp_axes_either(struct mpqc_imp_node *n, uint32_t input, uint32_t *count,
                                 const int64_t **out) MPQC_MUST_CHECK;

/* ---- emission (onnx_node.c) ------------------------------------------------------- */

/* Adds a node, folded when all inputs are constant; checks that weights are finite. */
mpqc_status mpqc_imp_emit(struct mpqc_imp_node *n, enum mpqc_op op, const mpqc_vid *in,
                          uint32_t n_in, const struct mpqc_attrs *attrs,
                          mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_unary(struct mpqc_imp_node *n, enum mpqc_op op, mpqc_vid x,
                           mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_binary(struct mpqc_imp_node *n, enum mpqc_op op, mpqc_vid a, mpqc_vid b,
                            mpqc_vid *out) MPQC_MUST_CHECK;
/* These emit nothing when nothing changes. */
mpqc_status mpqc_imp_transpose(struct mpqc_imp_node *n, mpqc_vid x, const int64_t *perm,
                               mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_reshape(struct mpqc_imp_node *n, mpqc_vid x, uint32_t rank,
                             const int64_t *dims, mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_expand(struct mpqc_imp_node *n, mpqc_vid x, uint32_t rank,
                            const int64_t *dims, mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_cast(struct mpqc_imp_node *n, mpqc_vid x, enum mpqc_dtype to,
                          mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_slice(struct mpqc_imp_node *n, mpqc_vid x, const int64_t *begin,
                           const int64_t *shape, const int64_t *step,
                           mpqc_vid *out) MPQC_MUST_CHECK;
/* Zero padding etc. of every axis. */
mpqc_status mpqc_imp_pad(struct mpqc_imp_node *n, mpqc_vid x, const int64_t *before,
                         const int64_t *after, const char *mode, float value,
                         mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_concat(struct mpqc_imp_node *n, const mpqc_vid *in, uint32_t count,
                            uint32_t axis, mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_reduce(struct mpqc_imp_node *n, enum mpqc_op op, mpqc_vid x,
                            uint32_t count, const int64_t *axes, mpqc_vid *out) MPQC_MUST_CHECK;
/* Constants. */
mpqc_status mpqc_imp_scalar(struct mpqc_imp_node *n, enum mpqc_dtype dtype, double value,
                            mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_imp_i64(struct mpqc_imp_node *n, uint32_t rank, uint32_t count,
                         const int64_t *data, mpqc_vid *out) MPQC_MUST_CHECK;
/* A constant with every element `value`, of at most MPQC_IMP_MAX_CONST bytes. */
mpqc_status mpqc_imp_filled(struct mpqc_imp_node *n, enum mpqc_dtype dtype, uint32_t rank,
                            const int64_t *dims, double value, mpqc_vid *out) MPQC_MUST_CHECK;
/* A tensor as a constant of the graph, counted against the limit. */
mpqc_status mpqc_imp_constant(struct mpqc_imp *im, const char *name,
                              const struct mpqc_tensor *t, mpqc_vid *out) MPQC_MUST_CHECK;

#endif
