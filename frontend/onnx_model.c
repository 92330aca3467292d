/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The importer's outer part: header, opsets, inputs with their dynamic dimensions,
 * outputs.
 *
 * A dimension of an input gets its extent from, in this order: the file; -shape;
 * -define-symbol; a -shape that gave the same symbol a value at another input; and,
 * for the first dimension alone, 1.
 */
#include "frontend/onnx_import.h"

/* Inputs, and outputs, of a network; they are compared with each other. */
#define MAX_ENDS 1024

#define AT_FILE(im) ((struct mpqc_where){.file = (im)->file.path, .offset = -1})

/* ---- files of others -------------------------------------------------------------- */

/* What people mistake for an ONNX file. */
static const struct {
    size_t at, n;
    const char *magic, *what;
} foreign[] = {
    {0, 6, "\x93NUMPY", "a NumPy array"},
    {4, 4, "TFL3", "a TensorFlow Lite model; convert it to ONNX first (tf2onnx)"},
    {0, 4, "PK\x03\x04", "a zip archive, as of PyTorch or Keras; export the model to ONNX first"},
    {0, 4, "\x89HDF", "an HDF5 file, as of Keras; export the model to ONNX first"},
    {0, 4, "\x7f" "ELF", "a program or library"},
    {0, 5, "<?xml", "an XML file, as of OpenVINO; mpqc wants the ONNX file that it was made from"},
    {0, 23, "version https://git-lfs", "a Git LFS pointer; fetch the file itself with git lfs pull"},
};

/* The tags of protobuf are no letters. */
static bool is_text(const struct mpqc_imp_file *f)
{
    for (size_t i = 0; i < f->size && i < 64; i++)
        if ((f->data[i] < ' ' && !strchr("\t\r\n", f->data[i])) || f->data[i] > '~') return false;
    return true;
}

static mpqc_status check_foreign(struct mpqc_cx *cx, const struct mpqc_imp_file *f)
{
    for (size_t i = 0; i < MPQC_LEN(foreign); i++)
        if (f->size >= foreign[i].at + foreign[i].n &&
            memcmp(f->data + foreign[i].at, foreign[i].magic, foreign[i].n) == 0)
            return MPQC_FAIL(cx, FORMAT, ((struct mpqc_where){.file = f->path, .offset = -1}),
                             "this is not an ONNX model, but %s", foreign[i].what);
    if (is_text(f))
        return MPQC_FAIL(cx, FORMAT, ((struct mpqc_where){.file = f->path, .offset = -1}),
                         "this is not an ONNX model, but a text file");
    return MPQC_OK;
}

/* ---- header ----------------------------------------------------------------------- */

static mpqc_status check_opset(struct mpqc_imp *im)
{
    im->opset = 0;
    for (uint32_t i = 0; i < im->index.opsets.n; i++) {
        Onnx__OperatorSetIdProto *id;
        MPQC_TRY(mpqc_imp_unpack(im->cx, &im->file, im->index.opsets.at[i],
                                 &onnx__operator_set_id_proto__descriptor, "opset", &im->scratch,
                                 &id));
        bool main_domain = !id->domain || !*id->domain || !strcmp(id->domain, "ai.onnx");
        if (main_domain && id->version > im->opset) im->opset = id->version;
    }
    if (!im->index.opsets.n)
        return MPQC_FAIL(im->cx, MODEL, AT_FILE(im), "the file does not say which opset it uses");
    if (!im->opset) /* custom domains only: the nodes will be reported */
        im->opset = MPQC_OPSET_MAX;
    if (im->opset < MPQC_OPSET_MIN)
        return MPQC_FAIL(im->cx, UNSUPPORTED, AT_FILE(im),
                         "opset %lld is too old: %d to %d are supported; convert the file with "
                         "onnx.version_converter", (long long)im->opset, MPQC_OPSET_MIN,
                         MPQC_OPSET_MAX);
    if (im->opset > MPQC_OPSET_MAX)
        mpqc_warn(im->cx, AT_FILE(im),
                  "opset %lld is newer than %d, the newest that mpqc knows; operators are read as "
                  "in opset %d", (long long)im->opset, MPQC_OPSET_MAX, MPQC_OPSET_MAX);
    return MPQC_OK;
}

static mpqc_status check_header(struct mpqc_imp *im)
{
    const struct mpqc_pb_index *x = &im->index;
    if (!x->has_graph)
        return MPQC_FAIL(im->cx, FORMAT, AT_FILE(im), "this is not an ONNX model: it has no graph");
    MPQC_TRY(check_opset(im));
    if (x->training.n)
        mpqc_warn(im->cx, AT_FILE(im), "the training information in this file is ignored");
    for (uint32_t i = 0; i < x->sparse.n; i++) {
        struct mpqc_where where = {.file = im->file.path,
                                   .offset = (int64_t)x->sparse.at[i].offset};
        (void)MPQC_FAIL(im->cx, UNSUPPORTED, where, "sparse initialisers are not supported");
    }
    im->other_fails += x->sparse.n;
    if (x->outputs.n > MAX_ENDS)
        return MPQC_FAIL(im->cx, LIMIT_EXCEEDED, AT_FILE(im), "more than %d outputs", MAX_ENDS);
    if (x->outputs.n == 0) return MPQC_FAIL(im->cx, MODEL, AT_FILE(im), "the graph has no output");
    return MPQC_OK;
}

/* ---- dynamic dimensions ----------------------------------------------------------- */

/* A graph input as the file describes it. */
struct input {
    const char *name;
    enum mpqc_dtype dtype;
    bool ranked;
    uint32_t rank;
    int64_t dims[MPQC_MAX_RANK];         /* -1: dynamic */
    const char *symbol[MPQC_MAX_RANK];   /* its name, or NULL */
    bool empty;                          /* some extent is 0 */
};

struct inputs {
    struct input *at;
    uint32_t n;
    struct mpqc_imp_names symbols; /* symbol -> index into `value` */
    int64_t *value;                /* -1: none yet */
};

static struct mpqc_where at_input(struct mpqc_imp *im, const struct input *in)
{
    return (struct mpqc_where){.file = im->file.path, .tensor = in->name, .offset = -1};
}

static mpqc_status read_shape(struct mpqc_imp *im, const Onnx__TypeProto__Tensor *t,
                              struct input *in)
{
    in->ranked = t->shape != NULL;
    if (!in->ranked) return MPQC_OK;
    if (t->shape->n_dim > MPQC_MAX_RANK)
        return MPQC_FAIL(im->cx, LIMIT_EXCEEDED, at_input(im, in),
                         "input '%s' has rank %zu; at most %d is supported", in->name,
                         t->shape->n_dim, MPQC_MAX_RANK);
    in->rank = (uint32_t)t->shape->n_dim;
    for (uint32_t i = 0; i < in->rank; i++) {
        const Onnx__TensorShapeProto__Dimension *d = t->shape->dim[i];
        in->dims[i] = -1;
        /* Some exporters write 0 or -1 for "unknown"; 0 might also be meant. */
        bool number = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        if (number && d->dim_value > 0)
            in->dims[i] = d->dim_value;
        else if (number && d->dim_value == 0)
            in->empty = true;
        else if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM &&
                 d->dim_param && *d->dim_param)
            in->symbol[i] = d->dim_param;
    }
    return MPQC_OK;
}

static mpqc_status read_input(struct mpqc_imp *im, struct mpqc_pb_span span, struct input *in)
{
    Onnx__ValueInfoProto *info;
    struct mpqc_where where = {.file = im->file.path, .offset = (int64_t)span.offset};
    MPQC_TRY(mpqc_imp_unpack(im->cx, &im->file, span, &onnx__value_info_proto__descriptor,
                             "input", &im->arena, &info));
    if (!info->name || !*info->name)
        return MPQC_FAIL(im->cx, MODEL, where, "a graph input has no name");
    in->name = where.tensor = info->name;
    const Onnx__TypeProto *type = info->type;
    if (!type || type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE || !type->tensor_type)
        return MPQC_FAIL(im->cx, UNSUPPORTED, where, "input '%s' is not a dense tensor", in->name);
    int32_t element = type->tensor_type->elem_type;
    if (!mpqc_imp_dtype(element, &in->dtype))
        return MPQC_FAIL(im->cx, UNSUPPORTED, where, "input '%s' has elements of type %s", in->name,
                         mpqc_imp_dtype_name(element));
    if (in->dtype == MPQC_DT_F32 && element != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT)
        mpqc_note(im->cx, where, "input '%s' of type %s is taken as float", in->name,
                  mpqc_imp_dtype_name(element));
    return read_shape(im, type->tensor_type, in);
}

/* Inputs that are initialisers, too, have only a default value there (IR >= 4) or are
 * plain weights (before): constants for a compiler in either case. */
static mpqc_status read_inputs(struct mpqc_imp *im, struct inputs *all)
{
    all->at = MPQC_NEW_ARRAY(&im->arena, struct input, im->index.inputs.n);
    if (!all->at) return MPQC_OOM(im->cx);
    for (uint32_t i = 0; i < im->index.inputs.n; i++) {
        struct input *in = &all->at[all->n];
        MPQC_TRY(read_input(im, im->index.inputs.at[i], in));
        if (mpqc_imp_names_find(&im->names, in->name) != MPQC_NONE) {
            memset(in, 0, sizeof(*in));
            continue;
        }
        for (uint32_t k = 0; k < all->n; k++)
            if (!strcmp(all->at[k].name, in->name))
                return MPQC_FAIL(im->cx, MODEL, at_input(im, in), "two inputs are named '%s'",
                                 in->name);
        if (++all->n > MAX_ENDS)
            return MPQC_FAIL(im->cx, LIMIT_EXCEEDED, AT_FILE(im), "more than %d inputs", MAX_ENDS);
    }
    return MPQC_OK;
}

static mpqc_status collect_symbols(struct mpqc_imp *im, struct inputs *all)
{
    all->value = MPQC_NEW_ARRAY(&im->arena, int64_t, (size_t)all->n * MPQC_MAX_RANK + 1);
    if (!all->value) return MPQC_OOM(im->cx);
    for (uint32_t i = 0; i < all->n; i++) {
        for (uint32_t d = 0; d < all->at[i].rank; d++) {
            const char *s = all->at[i].symbol[d];
            if (!s || mpqc_imp_names_find(&all->symbols, s) != MPQC_NONE) continue;
            all->value[all->symbols.n] = -1;
            if (!mpqc_imp_names_set(&all->symbols, &im->arena, s, all->symbols.n))
                return MPQC_OOM(im->cx);
        }
    }
    return MPQC_OK;
}

/* "a, b, c" of the known names, for an unknown one. */
static mpqc_status unknown_name(struct mpqc_imp *im, const struct inputs *all, const char *flag,
                                const char *what, const char *name, bool symbols)
{
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    for (uint32_t i = 0; !symbols && i < all->n; i++)
        mpqc_buf_printf(&b, "%s%s", b.len ? ", " : "", all->at[i].name);
    for (uint32_t i = 0; symbols && i < all->symbols.n; i++)
        for (uint32_t k = 0; k < all->symbols.cap; k++)
            if (all->symbols.key[k] && all->symbols.value[k] == i)
                mpqc_buf_printf(&b, "%s%s", b.len ? ", " : "", all->symbols.key[k]);
    mpqc_status status =
        MPQC_FAIL(im->cx, USAGE, AT_FILE(im), "%s: the network has no %s '%s'; it has %s", flag,
                  what, name, b.len ? b.data : "none");
    mpqc_buf_release(&b);
    return status;
}

static mpqc_status set_symbol(struct mpqc_imp *im, struct inputs *all, const char *symbol,
                              int64_t value)
{
    uint32_t at = mpqc_imp_names_find(&all->symbols, symbol);
    if (value < 1)
        return MPQC_FAIL(im->cx, USAGE, AT_FILE(im), "the dimension '%s' cannot be %lld", symbol,
                         (long long)value);
    if (all->value[at] >= 0 && all->value[at] != value)
        return MPQC_FAIL(im->cx, USAGE, AT_FILE(im), "the dimension '%s' is given as %lld and %lld",
                         symbol, (long long)all->value[at], (long long)value);
    all->value[at] = value;
    return MPQC_OK;
}

/* One -shape: rank and fixed dimensions must agree with the file. */
static mpqc_status apply_shape(struct mpqc_imp *im, struct inputs *all,
                               const struct mpqc_shape_option *o)
{
    struct input *in = NULL;
    for (uint32_t i = 0; i < all->n; i++)
        if (!strcmp(all->at[i].name, o->input)) in = &all->at[i];
    if (!in) return unknown_name(im, all, "-shape", "input", o->input, false);
    if (in->ranked && in->rank != o->rank)
        return MPQC_FAIL(im->cx, USAGE, at_input(im, in),
                         "-shape: input '%s' has %u dimensions, not %u", in->name, in->rank,
                         o->rank);
    if (!in->ranked)
        for (uint32_t d = 0; d < o->rank; d++) in->dims[d] = -1;
    in->ranked = true;
    in->empty = false;
    in->rank = o->rank;
    for (uint32_t d = 0; d < o->rank; d++) {
        if (o->dims[d] < 1)
            return MPQC_FAIL(im->cx, USAGE, at_input(im, in), "-shape: dimension %u is %lld", d,
                             (long long)o->dims[d]);
        if (in->dims[d] >= 0 && in->dims[d] != o->dims[d])
            return MPQC_FAIL(im->cx, USAGE, at_input(im, in),
                             "-shape: dimension %u of input '%s' is fixed to %lld by the file, not "
                             "%lld", d, in->name, (long long)in->dims[d], (long long)o->dims[d]);
        if (in->symbol[d]) MPQC_TRY(set_symbol(im, all, in->symbol[d], o->dims[d]));
        in->dims[d] = o->dims[d];
    }
    return MPQC_OK;
}

static mpqc_status apply_options(struct mpqc_imp *im, struct inputs *all)
{
    const struct mpqc_import_options *o = im->options;
    if (!o) return MPQC_OK;
    for (uint32_t i = 0; i < o->n_symbols; i++) {
        const struct mpqc_symbol_option *s = &o->symbols[i];
        if (mpqc_imp_names_find(&all->symbols, s->symbol) == MPQC_NONE)
            return unknown_name(im, all, "-define-symbol", "symbolic dimension", s->symbol, true);
        MPQC_TRY(set_symbol(im, all, s->symbol, s->value));
    }
    for (uint32_t i = 0; i < o->n_shapes; i++) MPQC_TRY(apply_shape(im, all, &o->shapes[i]));
    return MPQC_OK;
}

/* "1x3x?xwidth", to show what is missing. */
static const char *shape_text(struct mpqc_imp *im, const struct input *in)
{
    const char *text = "";
    for (uint32_t d = 0; d < in->rank; d++) {
        const char *x = d ? "x" : "";
        if (in->dims[d] >= 0)
            text = mpqc_arena_printf(&im->scratch, "%s%s%lld", text, x, (long long)in->dims[d]);
        else
            text = mpqc_arena_printf(&im->scratch, "%s%s%s", text, x,
                                     in->symbol[d] ? in->symbol[d] : "?");
        if (!text) return "?";
    }
    return text;
}

static mpqc_status missing(struct mpqc_imp *im, const struct input *in, uint32_t d)
{
    const char *shape = shape_text(im, in);
    if (in->symbol[d])
        return MPQC_FAIL(im->cx, MODEL, at_input(im, in),
                         "dimension %u of input '%s' (%s) is dynamic: give it a value with "
                         "-define-symbol=%s,N or -shape=%s:...", d, in->name, shape, in->symbol[d],
                         in->name);
    return MPQC_FAIL(im->cx, MODEL, at_input(im, in),
                     "dimension %u of input '%s' (%s) is dynamic and has no name: give the shape "
                     "with -shape=%s:...", d, in->name, shape, in->name);
}

static mpqc_status resolve(struct mpqc_imp *im, struct inputs *all, struct input *in)
{
    if (!in->ranked)
        return MPQC_FAIL(im->cx, MODEL, at_input(im, in),
                         "the file does not say the shape of input '%s': give it with "
                         "-shape=%s:...", in->name, in->name);
    int64_t count = 1;
    if (in->empty)
        return MPQC_FAIL(im->cx, UNSUPPORTED, at_input(im, in),
                         "input '%s' has a dimension of 0: give the shape with -shape=%s:...",
                         in->name, in->name);
    for (uint32_t d = 0; d < in->rank; d++)
        if (in->dims[d] < 0 && in->symbol[d])
            in->dims[d] = all->value[mpqc_imp_names_find(&all->symbols, in->symbol[d])];
    for (uint32_t d = 1; d < in->rank; d++)
        if (in->dims[d] < 0) return missing(im, in, d);
    for (uint32_t d = 0; d < in->rank; d++) {
        if (in->dims[d] < 0) {
            mpqc_note(im->cx, at_input(im, in),
                      "the first dimension%s%s of input '%s' is dynamic; taken as 1",
                      in->symbol[d] ? " " : "", in->symbol[d] ? in->symbol[d] : "", in->name);
            in->dims[d] = 1;
        }
        if (in->dims[d] > MPQC_IMP_MAX_ELEMENTS / count)
            return MPQC_FAIL(im->cx, LIMIT_EXCEEDED, at_input(im, in), "input '%s' is too large",
                             in->name);
        count *= in->dims[d];
    }
    return MPQC_OK;
}

static mpqc_status make_inputs(struct mpqc_imp *im)
{
    struct inputs all = {0};
    MPQC_TRY(read_inputs(im, &all));
    MPQC_TRY(collect_symbols(im, &all));
    MPQC_TRY(apply_options(im, &all));
    for (uint32_t i = 0; i < all.n; i++) {
        struct input *in = &all.at[i];
        struct mpqc_imp_value *v;
        MPQC_TRY(resolve(im, &all, in));
        MPQC_TRY(mpqc_imp_value(im, in->name, &v));
        v->vid = mpqc_graph_input(im->g, in->name, mpqc_type_make(in->dtype, in->rank, in->dims));
        if (v->vid == MPQC_NONE) return MPQC_OOM(im->cx);
    }
    return MPQC_OK;
}

/* ---- outputs ---------------------------------------------------------------------- */

/* An output needs a value of its own, computed by a node, under the output's name: a
 * constant, an input, or a value that is another output already is copied. */
static mpqc_status own_value(struct mpqc_imp *im, const char *name, mpqc_vid *v)
{
    struct mpqc_value *value = mpqc_value_at(im->g, *v);
    bool taken = value->def == MPQC_NONE;
    for (uint32_t i = 0; i < im->g->n_outputs; i++) taken = taken || im->g->outputs[i] == *v;
    if (taken) {
        struct mpqc_loc loc = {.node = name, .op = "Identity", .offset = -1};
        MPQC_TRY(mpqc_node_add(im->cx, im->g, MPQC_OP_COPY, v, 1, NULL, loc, v));
        value = mpqc_value_at(im->g, *v);
    }
    value->name = mpqc_arena_strdup(&im->g->arena, name);
    return value->name ? MPQC_OK : MPQC_OOM(im->cx);
}

static mpqc_status make_outputs(struct mpqc_imp *im)
{
    for (uint32_t i = 0; i < im->index.outputs.n; i++) {
        Onnx__ValueInfoProto *info;
        mpqc_vid v;
        struct mpqc_pb_span span = im->index.outputs.at[i];
        struct mpqc_where where = {.file = im->file.path, .offset = (int64_t)span.offset};
        mpqc_arena_reset(&im->scratch);
        MPQC_TRY(mpqc_imp_unpack(im->cx, &im->file, span, &onnx__value_info_proto__descriptor,
                                 "output", &im->scratch, &info));
        if (!info->name || !*info->name)
            return MPQC_FAIL(im->cx, MODEL, where, "a graph output has no name");
        for (uint32_t k = 0; k < im->g->n_outputs; k++) {
            const char *other = mpqc_value_at(im->g, im->g->outputs[k])->name;
            if (other && !strcmp(other, info->name))
                return MPQC_FAIL(im->cx, MODEL, where, "two outputs are named '%s'", info->name);
        }
        where.tensor = info->name;
        MPQC_TRY(mpqc_imp_lookup(im, info->name, where, &v));
        if (v == MPQC_NONE) continue; /* reported already */
        MPQC_TRY(own_value(im, info->name, &v));
        mpqc_graph_output(im->g, v);
    }
    return im->g->arena.failed ? MPQC_OOM(im->cx) : MPQC_OK;
}

/* ---- the whole -------------------------------------------------------------------- */

static mpqc_status name_graph(struct mpqc_imp *im)
{
    struct mpqc_pb_span s = im->index.graph_name;
    char *name = mpqc_arena_alloc(&im->g->arena, s.length + 1);
    if (!name) return MPQC_OOM(im->cx);
    memcpy(name, im->file.data + s.offset, s.length);
    im->g->name = s.length ? name : "model";
    return MPQC_OK;
}

/* Shape arithmetic that depends on data survives folding; nothing can run it. */
static mpqc_status check_folded(struct mpqc_imp *im)
{
    for (uint32_t i = 0; i < im->g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(im->g, im->g->order[i]);
        if (!(mpqc_ops[n->op].traits & MPQC_T_SHAPE)) continue;
        im->other_fails++;
        (void)MPQC_FAIL(im->cx, UNSUPPORTED, mpqc_loc_where(n->loc),
                        "a shape that depends on the input's values is not supported");
    }
    return im->other_fails ? MPQC_UNSUPPORTED : MPQC_OK;
}

static mpqc_status import_all(struct mpqc_imp *im)
{
    MPQC_TRY(check_foreign(im->cx, &im->file));
    MPQC_TRY(mpqc_pb_scan_model(im->cx, im->file.path, im->file.data, im->file.size, &im->arena,
                                &im->index));
    MPQC_TRY(check_header(im));
    MPQC_TRY(name_graph(im));
    MPQC_TRY(mpqc_imp_initialisers(im));
    MPQC_TRY(make_inputs(im));
    mpqc_status status = mpqc_imp_nodes(im);
    if (status == MPQC_OK) status = make_outputs(im);
    mpqc_status unsupported = mpqc_imp_flush(im); /* also when something else went wrong later */
    if (status != MPQC_OK) return status;
    MPQC_TRY(unsupported);
    MPQC_TRY(mpqc_graph_normalise(im->cx, im->g));
    return check_folded(im);
}

mpqc_status mpqc_import_onnx(struct mpqc_cx *cx, const char *path,
                             const struct mpqc_import_options *options, struct mpqc_graph *out)
{
    /* Weights are moved about while the nodes are read; only what is still used in the
     * end is copied into the caller's graph. */
    struct mpqc_graph work;
    struct mpqc_imp im = {.cx = cx, .options = options, .g = &work};
    MPQC_TRY(mpqc_imp_open(cx, path, &im.file));
    mpqc_graph_init(&work, cx->allocator);
    mpqc_arena_init(&im.arena, cx->allocator);
    mpqc_arena_init(&im.scratch, cx->allocator);
    mpqc_status status = import_all(&im);
    if (status == MPQC_OK) status = mpqc_graph_clone(cx, &work, out, &im.scratch, NULL);
    mpqc_arena_release(&im.scratch);
    mpqc_arena_release(&im.arena);
    mpqc_graph_release(&work);
    mpqc_imp_close(&im.file);
    return status;
}
