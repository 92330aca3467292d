/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The walk over the nodes: names to values, one node at a time, and the list of
 * what is not supported.
 *
 * When a node is not supported, its results are unknown.  Nodes that need them are
 * then checked as far as the table goes (operator, opset, attribute names) and
 * skipped; where the file says the type of a result (value_info), a stand-in of that
 * type takes its place, so that the nodes behind it are checked in full.  The graph
 * is thrown away in any case.
 */
#include "frontend/onnx_import.h"

#define AT_NODE(im, loc_)                                                                         \
    ((struct mpqc_where){.file = (im)->file.path,                                                 \
                         .node = (loc_).node,                                                     \
                         .op = (loc_).op,                                                         \
                         .offset = (loc_).offset})

/* ---- reports ---------------------------------------------------------------------- */

/* More than anyone will read; bounds the work on a hostile file. */
#define MAX_REPORTS 5000

mpqc_status mpqc_imp_report(struct mpqc_imp *im, struct mpqc_loc loc, const char *text)
{
    if (im->n_reports == MAX_REPORTS) return MPQC_UNSUPPORTED;
    if (im->n_reports == im->cap_reports) {
        uint32_t cap = im->cap_reports ? im->cap_reports * 2 : 16;
        struct mpqc_imp_report *more = MPQC_NEW_ARRAY(&im->arena, struct mpqc_imp_report, cap);
        if (!more) return MPQC_OOM(im->cx);
        if (im->n_reports) memcpy(more, im->reports, im->n_reports * sizeof(*more));
        im->reports = more;
        im->cap_reports = cap;
    }
    im->reports[im->n_reports++] = (struct mpqc_imp_report){
        .node = mpqc_arena_strdup(&im->arena, loc.node),
        .op = mpqc_arena_strdup(&im->arena, loc.op),
        .text = mpqc_arena_strdup(&im->arena, text),
        .offset = loc.offset};
    return im->arena.failed ? MPQC_OOM(im->cx) : MPQC_UNSUPPORTED;
}

static void add_type(struct mpqc_buf *b, const struct mpqc_type *t)
{
    mpqc_buf_puts(b, mpqc_dtypes[t->dtype].text);
    mpqc_buf_puts(b, "[");
    for (uint32_t i = 0; i < t->rank; i++)
        mpqc_buf_printf(b, i ? "x%lld" : "%lld", (long long)t->dims[i]);
    mpqc_buf_puts(b, "]");
}

#define SHOWN_INPUTS 8

/* " (opset 13; inputs f32[1x3x8x8], unknown)" */
static void add_context(struct mpqc_buf *b, const struct mpqc_imp_node *n)
{
    mpqc_buf_printf(b, " (opset %lld", (long long)n->im->opset);
    for (uint32_t i = 0; n->in && i < n->n_in; i++) {
        if (i == SHOWN_INPUTS) {
            mpqc_buf_printf(b, " and %u more", n->n_in - i);
            break;
        }
        mpqc_buf_puts(b, i ? ", " : "; inputs ");
        bool named = n->pb->input[i][0] != 0;
        if (n->in[i] != MPQC_NONE) add_type(b, mpqc_imp_type(n, n->in[i]));
        else mpqc_buf_puts(b, named ? "unknown" : "-");
    }
    mpqc_buf_puts(b, ")");
}

mpqc_status mpqc_imp_unsupported(struct mpqc_imp_node *n, const char *fmt, ...)
{
    char text[512];
    struct mpqc_buf b;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    mpqc_buf_init(&b);
    mpqc_buf_puts(&b, text);
    add_context(&b, n);
    mpqc_status status =
        b.failed ? MPQC_OOM(n->im->cx) : mpqc_imp_report(n->im, n->loc, b.data);
    mpqc_buf_release(&b);
    return status;
}

mpqc_status mpqc_imp_invalid(struct mpqc_imp_node *n, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    return MPQC_FAIL(n->im->cx, MODEL, AT_NODE(n->im, n->loc), "%s", text);
}

/* How many reports may become diagnostics of their own; the context keeps a limited
 * number. */
#define MAX_SINGLE 40

static void flush_single(struct mpqc_imp *im)
{
    for (uint32_t i = 0; i < im->n_reports; i++) {
        const struct mpqc_imp_report *r = &im->reports[i];
        struct mpqc_loc loc = {r->node, r->op, r->offset};
        (void)MPQC_FAIL(im->cx, UNSUPPORTED, AT_NODE(im, loc), "%s", r->text);
    }
}

/* Too many: one diagnostic for each operator, which lists its nodes. */
static void flush_grouped(struct mpqc_imp *im)
{
    for (uint32_t i = 0; i < im->n_reports; i++) {
        const char *op = im->reports[i].op;
        uint32_t count = 0, seen = 0;
        for (uint32_t k = 0; k < im->n_reports; k++) {
            count += !strcmp(im->reports[k].op, op);
            seen += k < i && !strcmp(im->reports[k].op, op);
        }
        if (seen) continue; /* done with the first of them */
        struct mpqc_buf b;
        mpqc_buf_init(&b);
        for (uint32_t k = 0; k < im->n_reports; k++)
            if (!strcmp(im->reports[k].op, op))
                mpqc_buf_printf(&b, "%s'%s': %s", b.len ? "; " : "", im->reports[k].node,
                                im->reports[k].text);
        struct mpqc_where where = {.file = im->file.path, .op = op, .offset = -1};
        (void)MPQC_FAIL(im->cx, UNSUPPORTED, where, "%u node%s: %s", count,
                        count == 1 ? "" : "s", b.failed ? "" : b.data);
        mpqc_buf_release(&b);
    }
}

mpqc_status mpqc_imp_flush(struct mpqc_imp *im)
{
    if (im->n_reports <= MAX_SINGLE) flush_single(im);
    else flush_grouped(im);
    return im->n_reports || im->other_fails ? MPQC_UNSUPPORTED : MPQC_OK;
}

/* ---- names ------------------------------------------------------------------------ */

mpqc_status mpqc_imp_value(struct mpqc_imp *im, const char *name, struct mpqc_imp_value **out)
{
    uint32_t at = mpqc_imp_names_find(&im->names, name);
    if (at == MPQC_NONE) {
        if (im->n_values == im->cap_values) {
            uint32_t cap = im->cap_values ? im->cap_values * 2 : 64;
            struct mpqc_imp_value *more = MPQC_NEW_ARRAY(&im->arena, struct mpqc_imp_value, cap);
            if (!more) return MPQC_OOM(im->cx);
            if (im->n_values) memcpy(more, im->values, im->n_values * sizeof(*more));
            im->values = more;
            im->cap_values = cap;
        }
        at = im->n_values++;
        im->values[at] = (struct mpqc_imp_value){.name = mpqc_arena_strdup(&im->arena, name),
                                                 .vid = MPQC_NONE};
        if (!im->values[at].name ||
            !mpqc_imp_names_set(&im->names, &im->arena, im->values[at].name, at))
            return MPQC_OOM(im->cx);
    }
    *out = &im->values[at];
    return MPQC_OK;
}

mpqc_status mpqc_imp_initialisers(struct mpqc_imp *im)
{
    for (uint32_t i = 0; i < im->index.initialisers.n; i++) {
        struct mpqc_pb_span span = im->index.initialisers.at[i];
        struct mpqc_where where = {.file = im->file.path, .offset = (int64_t)span.offset};
        const char *name;
        struct mpqc_imp_value *v;
        MPQC_TRY(mpqc_imp_tensor_name(im, span, &name));
        if (!name) return MPQC_FAIL(im->cx, MODEL, where, "an initialiser has no name");
        MPQC_TRY(mpqc_imp_value(im, name, &v));
        where.tensor = v->name;
        if (v->initialiser)
            return MPQC_FAIL(im->cx, MODEL, where, "two initialisers are named '%s'", name);
        v->initialiser = i + 1;
        mpqc_arena_reset(&im->scratch);
    }
    return MPQC_OK;
}

/* Reads an initialiser when it is first needed; those that nobody uses are never
 * read.  Memory for the decoding is given back at once. */
static mpqc_status load(struct mpqc_imp *im, struct mpqc_imp_value *v)
{
    struct mpqc_tensor t;
    struct mpqc_arena temporary;
    mpqc_arena_init(&temporary, im->cx->allocator);
    mpqc_status status = mpqc_imp_tensor_at(
        im->cx, &im->file, im->index.initialisers.at[v->initialiser - 1], &temporary, &t, NULL);
    if (status == MPQC_OK) status = mpqc_imp_constant(im, v->name, &t, &v->vid);
    mpqc_arena_release(&temporary);
    return status;
}

mpqc_status mpqc_imp_lookup(struct mpqc_imp *im, const char *name, struct mpqc_where where,
                            mpqc_vid *out)
{
    uint32_t at = mpqc_imp_names_find(&im->names, name);
    if (at == MPQC_NONE)
        return MPQC_FAIL(im->cx, MODEL, where,
                         "'%s' is no input, no initialiser and no result of an earlier node", name);
    struct mpqc_imp_value *v = &im->values[at];
    if (v->vid == MPQC_NONE && v->initialiser) MPQC_TRY(load(im, v));
    *out = v->vid;
    return MPQC_OK;
}

/* ---- unknown results -------------------------------------------------------------- */

bool mpqc_imp_static_type(const Onnx__ValueInfoProto *info, struct mpqc_type *out)
{
    const Onnx__TypeProto *type = info->type;
    if (!type || type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE) return false;
    const Onnx__TypeProto__Tensor *t = type->tensor_type;
    enum mpqc_dtype dtype;
    int64_t dims[MPQC_MAX_RANK];
    if (!t || !t->shape || t->shape->n_dim > MPQC_MAX_RANK || !mpqc_imp_dtype(t->elem_type, &dtype))
        return false;
    int64_t count;
    for (size_t i = 0; i < t->shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *d = t->shape->dim[i];
        if (d->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE ||
            d->dim_value < 1)
            return false;
        dims[i] = d->dim_value;
    }
    if (!mpqc_imp_count(t->shape->n_dim, dims, &count)) return false;
    *out = mpqc_type_make(dtype, (uint32_t)t->shape->n_dim, dims);
    return true;
}

static mpqc_status build_infos(struct mpqc_imp *im)
{
    im->infos_built = true;
    for (uint32_t i = 0; i < im->index.value_infos.n; i++) {
        Onnx__ValueInfoProto *info;
        MPQC_TRY(mpqc_imp_unpack(im->cx, &im->file, im->index.value_infos.at[i],
                                 &onnx__value_info_proto__descriptor, "value_info", &im->arena,
                                 &info));
        if (info->name && !mpqc_imp_names_set(&im->infos, &im->arena, info->name, i))
            return MPQC_OOM(im->cx);
    }
    return MPQC_OK;
}

/* A stand-in for an unknown value, when the file tells its type. */
static mpqc_status stand_in(struct mpqc_imp *im, struct mpqc_imp_value *v)
{
    if (!im->infos_built) MPQC_TRY(build_infos(im));
    uint32_t at = mpqc_imp_names_find(&im->infos, v->name);
    if (at == MPQC_NONE) return MPQC_OK;
    Onnx__ValueInfoProto *info;
    struct mpqc_type type;
    MPQC_TRY(mpqc_imp_unpack(im->cx, &im->file, im->index.value_infos.at[at],
                             &onnx__value_info_proto__descriptor, "value_info", &im->scratch,
                             &info));
    if (!mpqc_imp_static_type(info, &type)) return MPQC_OK;
    v->vid = mpqc_graph_input(im->g, v->name, type);
    return v->vid == MPQC_NONE ? MPQC_OOM(im->cx) : MPQC_OK;
}

/* ---- one node --------------------------------------------------------------------- */

/* "Conv_12" for the unnamed; a name that came before gets a number. */
static mpqc_status name_node(struct mpqc_imp *im, const Onnx__NodeProto *pb, uint32_t index,
                             struct mpqc_loc *loc)
{
    const char *given = pb->name && *pb->name ? pb->name : NULL;
    loc->op = mpqc_arena_strdup(&im->arena, pb->op_type ? pb->op_type : "");
    const char *base = given ? mpqc_arena_strdup(&im->arena, given)
                             : mpqc_arena_printf(&im->arena, "%s_%u", loc->op, index);
    if (!base || !loc->op) return MPQC_OOM(im->cx);
    uint32_t seen = mpqc_imp_names_find(&im->node_names, base);
    const char *name = base;
    if (seen != MPQC_NONE) {
        do {
            name = mpqc_arena_printf(&im->arena, "%s_%u", base, ++seen);
            if (!name) return MPQC_OOM(im->cx);
        } while (mpqc_imp_names_find(&im->node_names, name) != MPQC_NONE);
        if (!mpqc_imp_names_set(&im->node_names, &im->arena, base, seen)) return MPQC_OOM(im->cx);
    }
    if (!mpqc_imp_names_set(&im->node_names, &im->arena, name, 1)) return MPQC_OOM(im->cx);
    loc->node = name;
    return MPQC_OK;
}

/* Finds the values of the inputs; *known tells whether all are. */
static mpqc_status resolve_inputs(struct mpqc_imp_node *n, bool *known)
{
    struct mpqc_imp *im = n->im;
    n->n_in = (uint32_t)n->pb->n_input;
    while (n->n_in && !n->pb->input[n->n_in - 1][0]) n->n_in--;
    n->in = MPQC_NEW_ARRAY(&im->scratch, mpqc_vid, n->n_in + 1);
    if (!n->in) return MPQC_OOM(im->cx);
    *known = true;
    for (uint32_t i = 0; i < n->n_in; i++) n->in[i] = MPQC_NONE;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (!n->pb->input[i][0]) continue;
        MPQC_TRY(mpqc_imp_lookup(im, n->pb->input[i], AT_NODE(im, n->loc), &n->in[i]));
        *known = *known && n->in[i] != MPQC_NONE;
    }
    n->n_out = (uint32_t)n->pb->n_output;
    while (n->n_out && !n->pb->output[n->n_out - 1][0]) n->n_out--;
    n->out = MPQC_NEW_ARRAY(&im->scratch, mpqc_vid, n->n_out + 1);
    if (!n->out) return MPQC_OOM(im->cx);
    for (uint32_t i = 0; i < n->n_out; i++) n->out[i] = MPQC_NONE;
    return MPQC_OK;
}

static mpqc_status check_types(struct mpqc_imp_node *n)
{
    if (!n->n_in || n->in[0] == MPQC_NONE) return MPQC_OK;
    enum mpqc_dtype t = mpqc_imp_type(n, n->in[0])->dtype;
    bool number = t == MPQC_DT_F32 || t == MPQC_DT_I32 || t == MPQC_DT_I64;
    switch (n->row->types) {
    case MPQC_IMP_FLOAT:
        if (t != MPQC_DT_F32) break;
        return MPQC_OK;
    case MPQC_IMP_NUMBER:
        if (!number) break;
        return MPQC_OK;
    case MPQC_IMP_LOGIC:
        if (t != MPQC_DT_BOOL) break;
        return MPQC_OK;
    default: return MPQC_OK;
    }
    return mpqc_imp_unsupported(n, "inputs of type %s are not supported", mpqc_dtypes[t].text);
}

/* What the table says, whatever the inputs are. */
static mpqc_status check_row(struct mpqc_imp_node *n)
{
    const struct mpqc_imp_row *other;
    const char *domain = n->pb->domain;
    if (domain && *domain && strcmp(domain, "ai.onnx"))
        return mpqc_imp_unsupported(n, "operators of the domain '%.200s' are not supported",
                                    domain);
    n->row = mpqc_imp_row_find(n->loc.op, n->im->opset, &other);
    if (!n->row && other)
        return mpqc_imp_unsupported(n, "this operator exists from opset %d on", other->since);
    if (!n->row) return mpqc_imp_unsupported(n, "this operator is not supported");
    if (n->n_in < n->row->in_min || n->n_in > n->row->in_max)
        return mpqc_imp_invalid(n, "%u inputs; the operator takes %u to %u", n->n_in,
                                n->row->in_min, n->row->in_max);
    for (uint32_t i = 0; i < n->row->in_min; i++)
        if (!n->pb->input[i][0]) return mpqc_imp_invalid(n, "input %u is missing", i);
    mpqc_status status = MPQC_OK;
    for (size_t i = 0; i < n->pb->n_attribute; i++) {
        char word[66];
        const Onnx__AttributeProto *a = n->pb->attribute[i];
        int wrote = snprintf(word, sizeof(word), " %s ", a->name ? a->name : "");
        if (a->ref_attr_name && *a->ref_attr_name)
            return mpqc_imp_invalid(n, "attribute '%.60s' refers to a function's attribute",
                                    a->name ? a->name : "");
        if (wrote > 2 && (size_t)wrote < sizeof(word) && strstr(n->row->attrs, word)) continue;
        status = mpqc_imp_unsupported(n, "attribute '%.60s' is not supported",
                                      a->name ? a->name : "");
    }
    for (uint32_t i = n->row->out_max; i < n->n_out; i++)
        if (n->pb->output[i][0])
            status = mpqc_imp_unsupported(n, "output %u ('%.60s') is not supported", i,
                                          n->pb->output[i]);
    return status;
}

/* Makes the results known under their ONNX names.  Values older than `fresh` are not
 * results of this node (an Identity hands its input on), and keep their names. */
static mpqc_status bind_outputs(struct mpqc_imp_node *n, bool known, mpqc_vid fresh)
{
    struct mpqc_imp *im = n->im;
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (!n->pb->output[i][0]) continue;
        if (mpqc_imp_names_find(&im->names, n->pb->output[i]) != MPQC_NONE)
            return mpqc_imp_invalid(n, "'%.200s' is defined twice", n->pb->output[i]);
        struct mpqc_imp_value *v;
        MPQC_TRY(mpqc_imp_value(im, n->pb->output[i], &v));
        v->vid = known ? n->out[i] : MPQC_NONE;
        if (!known) {
            MPQC_TRY(stand_in(im, v));
            continue;
        }
        if (v->vid == MPQC_NONE) return mpqc_imp_invalid(n, "output %u has no meaning here", i);
        struct mpqc_value *value = mpqc_value_at(im->g, v->vid);
        if (value->name && v->vid < fresh) continue;
        value->name = mpqc_arena_strdup(&im->g->arena, v->name);
        if (!value->name) return MPQC_OOM(im->cx);
    }
    return MPQC_OK;
}

/* Unsupported nodes are remembered and passed over; any other failure ends the import. */
static mpqc_status run_node(struct mpqc_imp *im, const Onnx__NodeProto *pb, uint32_t index,
                            int64_t offset)
{
    struct mpqc_imp_node n = {.im = im, .pb = pb, .loc = {.offset = offset}};
    bool known = false;
    uint32_t reports = im->n_reports;
    mpqc_vid fresh = im->g->n_values;
    MPQC_TRY(name_node(im, pb, index, &n.loc));
    MPQC_TRY(resolve_inputs(&n, &known));
    mpqc_status status = check_row(&n);
    if (status == MPQC_OK && known) status = check_types(&n);
    if (status == MPQC_OK && known) status = n.row->fn(&n);
    if (status != MPQC_OK && status != MPQC_UNSUPPORTED) return status;
    if (status == MPQC_UNSUPPORTED && im->n_reports == reports) im->other_fails++;
    return bind_outputs(&n, known && status == MPQC_OK, fresh);
}

mpqc_status mpqc_imp_nodes(struct mpqc_imp *im)
{
    for (uint32_t i = 0; i < im->index.nodes.n; i++) {
        Onnx__NodeProto *pb;
        struct mpqc_pb_span span = im->index.nodes.at[i];
        mpqc_arena_reset(&im->scratch);
        MPQC_TRY(mpqc_imp_unpack(im->cx, &im->file, span, &onnx__node_proto__descriptor, "node",
                                 &im->scratch, &pb));
        MPQC_TRY(run_node(im, pb, i, (int64_t)span.offset));
        mpqc_cx_progress(im->cx, "import", i + 1, im->index.nodes.n);
    }
    return MPQC_OK;
}

/* ---- subgraphs -------------------------------------------------------------------- */

static mpqc_status inline_constants(struct mpqc_imp_node *n, const Onnx__GraphProto *sub)
{
    struct mpqc_imp *im = n->im;
    for (size_t i = 0; i < sub->n_initializer; i++) {
        struct mpqc_tensor t;
        struct mpqc_imp_value *v;
        const Onnx__TensorProto *pb = sub->initializer[i];
        if (!pb->name || !*pb->name) return mpqc_imp_invalid(n, "an initialiser has no name");
        MPQC_TRY(mpqc_imp_value(im, pb->name, &v));
        if (v->vid != MPQC_NONE || v->initialiser)
            return mpqc_imp_invalid(n, "'%.200s' is defined twice", pb->name);
        MPQC_TRY(mpqc_imp_tensor(im->cx, AT_NODE(im, n->loc), pb, NULL, 0, &im->scratch, &t));
        MPQC_TRY(mpqc_imp_constant(im, v->name, &t, &v->vid));
    }
    return MPQC_OK;
}

mpqc_status mpqc_imp_inline(struct mpqc_imp_node *n, const Onnx__GraphProto *sub)
{
    struct mpqc_imp *im = n->im;
    if (sub->n_sparse_initializer)
        return mpqc_imp_unsupported(n, "sparse initialisers are not supported");
    if (sub->n_input || sub->n_output < n->n_out)
        return mpqc_imp_invalid(n, "a branch has %zu inputs and %zu outputs", sub->n_input,
                                sub->n_output);
    MPQC_TRY(inline_constants(n, sub));
    for (size_t i = 0; i < sub->n_node; i++)
        MPQC_TRY(run_node(im, sub->node[i], (uint32_t)i, n->loc.offset));
    for (uint32_t i = 0; i < n->n_out; i++) {
        const char *name = sub->output[i]->name ? sub->output[i]->name : "";
        MPQC_TRY(mpqc_imp_lookup(im, name, AT_NODE(im, n->loc), &n->out[i]));
        /* Unknown because of a node inside, which has been reported. */
        if (n->out[i] == MPQC_NONE) return MPQC_UNSUPPORTED;
    }
    return MPQC_OK;
}
