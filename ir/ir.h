/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The data model: types, values, nodes, graphs.
 *
 * A graph is a list of nodes in topological order over single-assignment
 * values.  It owns an arena; nodes, values, attributes and constants live in it
 * and die with it.  Values and nodes are dense ids; a pass that wants to know
 * more about them keeps an array of its own, indexed by id.
 *
 * Quantisation is part of the type, so a graph is float, mixed or integer by
 * its types alone.
 *
 * Layout.  Every tensor is dense and row-major in its shape.  Convolutions and
 * pools are channels-last by definition: x[N,H,W,C], w[KH,KW,C/group,OC].  The
 * importer writes explicit transposes where ONNX has channels first, and
 * `simplify` removes them.  There is no other notion of layout in the IR.
 */
#ifndef MPQC_IR_IR_H
#define MPQC_IR_IR_H

#include "ir/base/base.h"

#define MPQC_MAX_RANK 8
#define MPQC_MAX_INPUTS 64   /* of one node */
#define MPQC_MAX_OUTPUTS 64
#define MPQC_NONE UINT32_MAX /* no node, no value (an optional input left out) */

typedef uint32_t mpqc_vid; /* value id, index into graph->values */
typedef uint32_t mpqc_nid; /* node id, index into graph->nodes */

/* ---- types ----------------------------------------------------------------- */

enum mpqc_dtype {
#define DTYPE(name, text, bits, bytes, kind, min, max) MPQC_DT_##name,
#include "ir/dtypes.def"
#undef DTYPE
    MPQC_DT_COUNT
};

enum mpqc_dtype_kind { MPQC_KIND_FLOAT, MPQC_KIND_BOOL, MPQC_KIND_SINT, MPQC_KIND_UINT };

struct mpqc_dtype_info {
    const char *text;
    unsigned bits;
    unsigned bytes; /* of the container */
    enum mpqc_dtype_kind kind;
    int64_t min, max; /* integers only */
};
extern const struct mpqc_dtype_info mpqc_dtypes[MPQC_DT_COUNT];

/* Weights whose integers are products of few bits: w[r][c] = factor * code, with the factor
 * of row r's group in column c and a code of `bits` signed bits.  So a column has a scale for
 * every `size` rows, each a small multiple of the column's (a second quantisation, of the
 * scales, as Dettmers et al., "QLoRA", 2023, section 3), and the sum of products stays the
 * sum of products of the integers: proofs, kernels and results are those of 8 bits. */
#define MPQC_GROUP_UNIT 32 /* sizes are multiples of this */
#define MPQC_GROUP_LEAST_BITS 2u
#define MPQC_GROUP_MOST_BITS 5u
struct mpqc_groups {
    int64_t size;
    unsigned bits;
    const int8_t *factor; /* [ceil(rows / size)][columns]; not 0, products are >= -127 */
};

/* real = scale[i] * (q - zero[i]), where i is 0 for a per-tensor scheme
 * (axis == -1, count == 1), else the index along `axis` (count == dims[axis]). */
struct mpqc_quant {
    int32_t axis;
    uint32_t count;
    const float *scale;
    const int32_t *zero;
    const struct mpqc_groups *groups; /* NULL: each integer stands for itself */
};

struct mpqc_type {
    enum mpqc_dtype dtype;
    uint32_t rank;
    int64_t dims[MPQC_MAX_RANK];    /* all >= 0; static */
    const struct mpqc_quant *quant; /* NULL: a plain number */
};

/* Number of elements; products were checked when the type entered the graph. */
int64_t mpqc_type_count(const struct mpqc_type *t);
size_t mpqc_type_bytes(const struct mpqc_type *t); /* in containers */
bool mpqc_type_same_shape(const struct mpqc_type *a, const struct mpqc_type *b);
bool mpqc_type_equal(const struct mpqc_type *a, const struct mpqc_type *b); /* with quant */
bool mpqc_quant_equal(const struct mpqc_quant *a, const struct mpqc_quant *b); /* by value */
/* Groups of weights (groups.c).  How many a column has, 0 without; the bits that a weight
 * is stored in; the largest magnitude of a factor beside codes of `bits` bits; what is wrong
 * with a type's groups; whether they hold this data; are two equal, given the rows? */
int64_t mpqc_groups_count(const struct mpqc_type *t);
unsigned mpqc_weight_bits(const struct mpqc_type *t);
int mpqc_groups_most(unsigned bits);
const char *mpqc_groups_problem(const struct mpqc_type *t);
bool mpqc_groups_hold(const struct mpqc_type *t, const int8_t *data);
bool mpqc_groups_equal(const struct mpqc_type *a, const struct mpqc_type *b);
/* Rank and extents are valid and the bytes fit in memory's address range.  Ask this
 * before a type from outside enters a graph, which asserts it. */
bool mpqc_type_fits(const struct mpqc_type *t);
/* What is wrong with a type, in words, quantisation included; NULL for nothing. */
const char *mpqc_type_problem(const struct mpqc_type *t);
struct mpqc_type mpqc_type_make(enum mpqc_dtype dtype, uint32_t rank, const int64_t *dims);
bool mpqc_dtype_is_quantised_storage(enum mpqc_dtype t); /* an integer of 16 bits or fewer */
bool mpqc_dtype_is_byte(enum mpqc_dtype t); /* an unsigned integer of 8 bits or fewer */
/* Is v one of the values of an integer type? */
bool mpqc_dtype_holds(enum mpqc_dtype t, int64_t v);

/* A dense tensor somewhere in memory, element containers in row-major order. */
struct mpqc_tensor {
    struct mpqc_type type;
    void *data;
};

/* ---- attributes -------------------------------------------------------------- */

enum mpqc_attr_key {
#define ATTR(name, text, kind) MPQC_ATTR_##name,
#include "ir/attrs.def"
#undef ATTR
    MPQC_ATTR_COUNT
};

enum mpqc_attr_kind { MPQC_AK_INT, MPQC_AK_FLOAT, MPQC_AK_INTS, MPQC_AK_STRING };
extern const char *const mpqc_attr_text[MPQC_ATTR_COUNT];
extern const enum mpqc_attr_kind mpqc_attr_kinds[MPQC_ATTR_COUNT];

struct mpqc_attr {
    enum mpqc_attr_key key;
    uint32_t count; /* of ints */
    int64_t i;
    double f; /* always holds a float's exact value */
    const int64_t *ints;
    const char *s;
};
bool mpqc_attr_equal(const struct mpqc_attr *a, const struct mpqc_attr *b);

/* ---- operators ---------------------------------------------------------------- */

enum mpqc_op {
#define OP(name, ...) MPQC_OP_##name,
#include "ir/ops.def"
#undef OP
    MPQC_OP_COUNT
};

/* ---- nodes, values, graphs ------------------------------------------------------ */

/* Where a node comes from: the ONNX node (and, after fusion or decomposition,
 * the first of several).  Strings live in the graph's arena. */
struct mpqc_loc {
    const char *node; /* ONNX node name; never NULL in a verified graph */
    const char *op;   /* ONNX operator, e.g. "Conv" */
    int64_t offset;   /* byte offset in the ONNX file, -1 if unknown */
};

/* The loc as a diagnostic wants it. */
static inline struct mpqc_where mpqc_loc_where(struct mpqc_loc loc)
{
    return (struct mpqc_where){.node = loc.node, .op = loc.op, .offset = loc.offset};
}

struct mpqc_value {
    struct mpqc_type type;
    const char *name;  /* ONNX tensor name, or NULL */
    mpqc_nid def;      /* defining node; MPQC_NONE for inputs and constants */
    uint32_t def_slot; /* which output of it */
    const void *data;  /* constants: element containers, read-only; else NULL */
};

struct mpqc_node {
    enum mpqc_op op;
    bool dead;
    uint32_t n_in, n_out, n_attr;
    mpqc_vid *in; /* MPQC_NONE for an optional input left out */
    mpqc_vid *out;
    struct mpqc_attr *attr; /* sorted by key */
    struct mpqc_loc loc;
    uint32_t kernel; /* fused kernel that it belongs to (set by `fuse`), or MPQC_NONE */
};

struct mpqc_graph {
    struct mpqc_arena arena;
    const char *name;
    struct mpqc_node *nodes;
    uint32_t n_nodes, cap_nodes;
    struct mpqc_value *values;
    uint32_t n_values, cap_values;
    /* Live nodes in topological order; valid after mpqc_graph_normalise. */
    mpqc_nid *order;
    uint32_t n_order;
    mpqc_vid *inputs;
    uint32_t n_inputs;
    mpqc_vid *outputs;
    uint32_t n_outputs;
};

void mpqc_graph_init(struct mpqc_graph *g, const struct mpqc_allocator *allocator);
void mpqc_graph_release(struct mpqc_graph *g);

/* Pointers to nodes and values do not survive the adding of another: hold ids.
 *
 * Values.  `data` of a constant is copied into the graph unless `borrow`, when
 * it must outlive the graph.  Names may be NULL.  All return MPQC_NONE when
 * memory ran out (the arena remembers it). */
mpqc_vid mpqc_graph_input(struct mpqc_graph *g, const char *name, struct mpqc_type type);
mpqc_vid mpqc_graph_const(struct mpqc_graph *g, const char *name, struct mpqc_type type,
                          const void *data, bool borrow);
mpqc_vid mpqc_graph_const_f32(struct mpqc_graph *g, uint32_t rank, const int64_t *dims,
                              const float *data);
mpqc_vid mpqc_graph_const_i64(struct mpqc_graph *g, int64_t n, const int64_t *data);
void mpqc_graph_output(struct mpqc_graph *g, mpqc_vid v);

/* Quantisation parameters, copied into the graph's arena. */
const struct mpqc_quant *mpqc_quant_tensor(struct mpqc_graph *g, float scale, int32_t zero);
const struct mpqc_quant *mpqc_quant_channel(struct mpqc_graph *g, int32_t axis, uint32_t count,
                                            const float *scale, const int32_t *zero);
/* The quantisation of t, with groups; factors are copied. */
const struct mpqc_quant *mpqc_quant_groups(struct mpqc_graph *g, const struct mpqc_type *t,
                                           int64_t size, unsigned bits, const int8_t *factor);

/* A list of attributes under construction, for mpqc_node_add. */
#define MPQC_MAX_ATTRS 16
struct mpqc_attrs {
    uint32_t n;
    struct mpqc_attr a[MPQC_MAX_ATTRS];
};
void mpqc_attrs_int(struct mpqc_attrs *l, enum mpqc_attr_key k, int64_t v);
void mpqc_attrs_float(struct mpqc_attrs *l, enum mpqc_attr_key k, float v);
/* `v` is borrowed until the node is added. */
void mpqc_attrs_ints(struct mpqc_attrs *l, enum mpqc_attr_key k, uint32_t n, const int64_t *v);
void mpqc_attrs_string(struct mpqc_attrs *l, enum mpqc_attr_key k, const char *v);

/* Appends a node, infers the types of its outputs, and returns the id of the
 * first output in *out (outputs are consecutive values).  Inputs and attributes
 * are copied.  Fails with a diagnostic at `loc` when the operator's shape rule
 * rejects the inputs.  Does not fold. */
mpqc_status mpqc_node_add(struct mpqc_cx *cx, struct mpqc_graph *g, enum mpqc_op op,
                          const mpqc_vid *in, uint32_t n_in, const struct mpqc_attrs *attrs,
                          struct mpqc_loc loc, mpqc_vid *out) MPQC_MUST_CHECK;
/* The same, but when every input is a constant and the operator has a reference
 * kernel, the result is computed at once and *out is a constant. */
mpqc_status mpqc_node_fold(struct mpqc_cx *cx, struct mpqc_graph *g, enum mpqc_op op,
                           const mpqc_vid *in, uint32_t n_in, const struct mpqc_attrs *attrs,
                           struct mpqc_loc loc, mpqc_vid *out) MPQC_MUST_CHECK;

/* The types that inference gives the outputs of a node; out has room for n_out. */
mpqc_status mpqc_node_infer(struct mpqc_cx *cx, struct mpqc_graph *g, const struct mpqc_node *n,
                            struct mpqc_type *out) MPQC_MUST_CHECK;
/* Copies the strings of a loc into the graph's arena. */
struct mpqc_loc mpqc_loc_copy(struct mpqc_graph *g, struct mpqc_loc loc);

/* Attribute access.  The `_or` forms give a default; the others assert. */
const struct mpqc_attr *mpqc_attr_find(const struct mpqc_node *n, enum mpqc_attr_key k);
int64_t mpqc_attr_int(const struct mpqc_node *n, enum mpqc_attr_key k);
int64_t mpqc_attr_int_or(const struct mpqc_node *n, enum mpqc_attr_key k, int64_t otherwise);
float mpqc_attr_float_or(const struct mpqc_node *n, enum mpqc_attr_key k, float otherwise);
const int64_t *mpqc_attr_ints(const struct mpqc_node *n, enum mpqc_attr_key k); /* NULL: absent */
const char *mpqc_attr_string_or(const struct mpqc_node *n, enum mpqc_attr_key k,
                                const char *otherwise);
/* Replaces or adds one attribute of a node in place. */
void mpqc_attr_set(struct mpqc_graph *g, struct mpqc_node *n, struct mpqc_attr a);

/* Short cuts. */
static inline struct mpqc_node *mpqc_node_at(const struct mpqc_graph *g, mpqc_nid n)
{
    return &g->nodes[n];
}
static inline struct mpqc_value *mpqc_value_at(const struct mpqc_graph *g, mpqc_vid v)
{
    return &g->values[v];
}
static inline bool mpqc_is_const(const struct mpqc_graph *g, mpqc_vid v)
{
    return v != MPQC_NONE && g->values[v].data != NULL;
}
/* The node that defines v, or NULL for an input or constant. */
static inline struct mpqc_node *mpqc_def(const struct mpqc_graph *g, mpqc_vid v)
{
    return v == MPQC_NONE || g->values[v].def == MPQC_NONE ? NULL : &g->nodes[g->values[v].def];
}

/* Every use of `from` (node inputs and graph outputs) becomes `to`.  The
 * definition of `from` is left alone; it dies at the next normalise. */
void mpqc_graph_replace(struct mpqc_graph *g, mpqc_vid from, mpqc_vid to);
/* Number of uses of every value (graph outputs count), in an array of n_values
 * allocated from `scratch`. */
uint32_t *mpqc_graph_uses(const struct mpqc_graph *g, struct mpqc_arena *scratch);
/* Marks nodes dead whose results nobody uses, and rebuilds `order`: topological,
 * stable with respect to the previous order and id.  A cycle is MPQC_BUG. */
mpqc_status mpqc_graph_normalise(struct mpqc_cx *cx, struct mpqc_graph *g) MPQC_MUST_CHECK;
/* A deep copy into an initialised graph: live nodes only, ids renumbered in
 * order; *map (n_values of g, allocated in scratch; may be NULL) gives new ids. */
mpqc_status mpqc_graph_clone(struct mpqc_cx *cx, const struct mpqc_graph *g,
                             struct mpqc_graph *out, struct mpqc_arena *scratch,
                             mpqc_vid **map) MPQC_MUST_CHECK;

/* Canonical numbers: inputs, then per node in order its constants and its outputs,
 * then constants that are only outputs.  Values that nobody uses have none. */
struct mpqc_numbering {
    mpqc_vid *new_id; /* by old id; MPQC_NONE: unused */
    mpqc_vid *old_id; /* by new id */
    uint32_t count;
};
/* Needs a valid order; false when memory ran out. */
bool mpqc_graph_number(const struct mpqc_graph *g, struct mpqc_arena *scratch,
                       struct mpqc_numbering *m) MPQC_MUST_CHECK;

/* ---- the operator table ----------------------------------------------------------- */

/* Traits. */
enum {
    MPQC_T_ELEMENTWISE = 1u << 0, /* unary: f(x) element by element */
    MPQC_T_BINARY = 1u << 1,      /* broadcasting binary */
    MPQC_T_LINEAR = 1u << 2,      /* has weights in input 1 and bias in input 2 */
    MPQC_T_MOVE = 1u << 3,        /* only moves elements; any type */
    MPQC_T_POOL = 1u << 4,
    MPQC_T_INTEGER = 1u << 5,     /* exists only in quantised graphs */
    MPQC_T_SHAPE = 1u << 6,       /* shape arithmetic: must be folded by the importer */
    MPQC_T_EPILOGUE = 1u << 7     /* may follow a core inside one kernel */
};

/* A node under inference: input types (NULL for a left-out input), attributes. */
struct mpqc_infer {
    struct mpqc_cx *cx;
    struct mpqc_graph *g; /* arena for quant of result types */
    const struct mpqc_node *node;
    const struct mpqc_type *in[MPQC_MAX_INPUTS];
    const void *in_data[MPQC_MAX_INPUTS]; /* constants' data, else NULL */
    struct mpqc_type out[MPQC_MAX_OUTPUTS];
};
/* Checks inputs and attributes and fills out[].  Errors carry the node's loc. */
typedef mpqc_status (*mpqc_infer_fn)(struct mpqc_infer *);

/* A reference kernel: simple loops; the meaning of the operator.  `in` entries
 * are NULL for left-out inputs; `out` tensors have type and memory. */
typedef void (*mpqc_ref_fn)(const struct mpqc_node *, const struct mpqc_tensor *const *in,
                            struct mpqc_tensor *const *out);

/* Multiply-accumulates of one evaluation. */
typedef uint64_t (*mpqc_macs_fn)(const struct mpqc_graph *, const struct mpqc_node *);

/* The derivative of an operator as an expression; see ir/op_vjp.h. */
struct mpqc_vjp;
typedef void (*mpqc_vjp_fn)(struct mpqc_vjp *);

struct mpqc_op_info {
    const char *text;
    uint32_t in_min, in_max, n_out;
    uint32_t traits;
    mpqc_infer_fn infer;
    mpqc_ref_fn ref;
    mpqc_macs_fn macs;
    mpqc_vjp_fn vjp;
    uint64_t attrs; /* bit set of allowed enum mpqc_attr_key */
    const char *doc;
};
extern const struct mpqc_op_info mpqc_ops[MPQC_OP_COUNT];

#endif
