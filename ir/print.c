/* SPDX-License-Identifier: GPL-3.0-or-later
 * The printer of the text form: see GRAMMAR.md.
 */
#include "ir/elements.h"
#include "ir/text.h"

#include <inttypes.h>
#include <math.h>

struct printer {
    const struct mpqc_graph *g;
    struct mpqc_numbering ids;
    struct mpqc_buf *to;
    bool full;
};

static void print_string(struct mpqc_buf *to, const char *s)
{
    mpqc_buf_puts(to, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') mpqc_buf_printf(to, "\\%c", c);
        else if (c == '\n') mpqc_buf_puts(to, "\\n");
        else if (c == '\t') mpqc_buf_puts(to, "\\t");
        else if (c < 0x20 || c == 0x7f) mpqc_buf_printf(to, "\\x%02x", c);
        else mpqc_buf_add(to, s, 1);
    }
    mpqc_buf_puts(to, "\"");
}

static void print_real(struct mpqc_buf *to, float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (bits == MPQC_NAN_BITS) mpqc_buf_puts(to, "nan");
    else if (isnan(f)) mpqc_buf_printf(to, "nan:%08" PRIx32, bits);
    else if (isinf(f)) mpqc_buf_puts(to, f < 0 ? "-inf" : "inf");
    else mpqc_buf_printf(to, "%a", (double)f);
}

static void print_element(struct mpqc_buf *to, enum mpqc_dtype t, const void *data, int64_t i)
{
    if (mpqc_dtypes[t].kind == MPQC_KIND_FLOAT) print_real(to, ((const float *)data)[i]);
    else mpqc_buf_printf(to, "%" PRId64, mpqc_element_get(t, data, i));
}

static bool all_alike(const char *data, size_t n, size_t bytes)
{
    return n > 1 && memcmp(data, data + bytes, (n - 1) * bytes) == 0;
}

static void print_data(struct mpqc_buf *to, enum mpqc_dtype t, const void *data, int64_t n,
                       bool full)
{
    size_t bytes = mpqc_dtypes[t].bytes;
    if (all_alike(data, (size_t)n, bytes)) {
        mpqc_buf_puts(to, "splat ");
        print_element(to, t, data, 0);
    } else if (n > MPQC_TEXT_INLINE_ELEMENTS && !full) {
        mpqc_buf_printf(to, "hash:%016" PRIx64, mpqc_content_hash(data, (size_t)n * bytes));
    } else {
        mpqc_buf_puts(to, "[");
        for (int64_t i = 0; i < n; i++) {
            if (i) mpqc_buf_puts(to, ",");
            print_element(to, t, data, i);
        }
        mpqc_buf_puts(to, "]");
    }
}

static void print_quant(struct mpqc_buf *to, const struct mpqc_type *t, bool full)
{
    const struct mpqc_quant *q = t->quant;
    if (q->axis < 0) {
        mpqc_buf_puts(to, " quant(scale=");
        print_real(to, q->scale[0]);
        mpqc_buf_printf(to, ", zero=%" PRId32 ")", q->zero[0]);
        return;
    }
    mpqc_buf_printf(to, " quant(axis=%" PRId32 ", scale=", q->axis);
    print_data(to, MPQC_DT_F32, q->scale, q->count, full);
    mpqc_buf_puts(to, ", zero=");
    print_data(to, MPQC_DT_I32, q->zero, q->count, full);
    if (q->groups) {
        mpqc_buf_printf(to, ", group=%" PRId64 ", bits=%u, factor=", q->groups->size,
                        q->groups->bits);
        print_data(to, MPQC_DT_I8, q->groups->factor, mpqc_groups_count(t) * q->count, full);
    }
    mpqc_buf_puts(to, ")");
}

static void print_ints(struct mpqc_buf *to, uint32_t n, const int64_t *v)
{
    mpqc_buf_puts(to, "[");
    for (uint32_t i = 0; i < n; i++) mpqc_buf_printf(to, "%s%" PRId64, i ? "," : "", v[i]);
    mpqc_buf_puts(to, "]");
}

void mpqc_type_print(const struct mpqc_type *t, struct mpqc_buf *to, bool full)
{
    mpqc_buf_puts(to, mpqc_dtypes[t->dtype].text);
    print_ints(to, t->rank, t->dims);
    if (t->quant) print_quant(to, t, full);
}

static void print_attr(struct mpqc_buf *to, const struct mpqc_attr *a)
{
    mpqc_buf_printf(to, "%s=", mpqc_attr_text[a->key]);
    switch (mpqc_attr_kinds[a->key]) {
    case MPQC_AK_INT: mpqc_buf_printf(to, "%" PRId64, a->i); break;
    case MPQC_AK_FLOAT: print_real(to, (float)a->f); break;
    case MPQC_AK_INTS: print_ints(to, a->count, a->ints); break;
    case MPQC_AK_STRING: print_string(to, a->s); break;
    }
}

static void print_value(struct printer *p, mpqc_vid v)
{
    if (v == MPQC_NONE) mpqc_buf_puts(p->to, "_");
    else mpqc_buf_printf(p->to, "%%%" PRIu32, p->ids.new_id[v]);
}

/* A value where it is defined: with its name. */
static void print_definition(struct printer *p, mpqc_vid v)
{
    print_value(p, v);
    if (!p->g->values[v].name) return;
    mpqc_buf_puts(p->to, " ");
    print_string(p->to, p->g->values[v].name);
}

static void print_source(struct printer *p, const char *keyword, mpqc_vid v)
{
    const struct mpqc_value *value = &p->g->values[v];
    mpqc_buf_printf(p->to, "  %s ", keyword);
    print_definition(p, v);
    mpqc_buf_puts(p->to, " : ");
    mpqc_type_print(&value->type, p->to, p->full);
    if (value->data) {
        mpqc_buf_puts(p->to, " = ");
        print_data(p->to, value->type.dtype, value->data, mpqc_type_count(&value->type), p->full);
    }
    mpqc_buf_puts(p->to, "\n");
}

static void print_node_tail(struct printer *p, const struct mpqc_node *n)
{
    for (uint32_t i = 0; i < n->n_attr; i++) {
        mpqc_buf_puts(p->to, i ? ", " : " {");
        print_attr(p->to, &n->attr[i]);
    }
    if (n->n_attr) mpqc_buf_puts(p->to, "}");
    if (n->loc.node) {
        mpqc_buf_puts(p->to, " @");
        print_string(p->to, n->loc.node);
        if (n->loc.op) mpqc_buf_puts(p->to, " ");
        if (n->loc.op) print_string(p->to, n->loc.op);
    }
    if (n->kernel != MPQC_NONE) mpqc_buf_printf(p->to, " kernel %" PRIu32, n->kernel);
}

static void print_node(struct printer *p, const struct mpqc_node *n)
{
    mpqc_buf_puts(p->to, "  ");
    for (uint32_t i = 0; i < n->n_out; i++) {
        if (i) mpqc_buf_puts(p->to, ", ");
        print_definition(p, n->out[i]);
    }
    mpqc_buf_printf(p->to, " = %s", mpqc_ops[n->op].text);
    for (uint32_t i = 0; i < n->n_in; i++) {
        mpqc_buf_puts(p->to, i ? ", " : " ");
        print_value(p, n->in[i]);
    }
    print_node_tail(p, n);
    for (uint32_t i = 0; i < n->n_out; i++) {
        mpqc_buf_puts(p->to, i ? ", " : " : ");
        mpqc_type_print(&p->g->values[n->out[i]].type, p->to, p->full);
    }
    mpqc_buf_puts(p->to, "\n");
}

/* Walks values in canonical order: a constant or input prints itself, a node's
 * first result prints the node. */
static void print_body(struct printer *p)
{
    const struct mpqc_graph *g = p->g;
    for (uint32_t i = 0; i < p->ids.count; i++) {
        mpqc_vid v = p->ids.old_id[i];
        if (g->values[v].data) print_source(p, "const", v);
        else if (g->values[v].def == MPQC_NONE) print_source(p, "input", v);
        else if (g->values[v].def_slot == 0) print_node(p, &g->nodes[g->values[v].def]);
    }
    for (uint32_t i = 0; i < g->n_outputs; i++)
        mpqc_buf_printf(p->to, "  output %%%" PRIu32 "\n", p->ids.new_id[g->outputs[i]]);
}

void mpqc_graph_print(const struct mpqc_graph *g, struct mpqc_buf *to, bool full)
{
    struct mpqc_arena scratch;
    struct printer p = {.g = g, .to = to, .full = full};
    mpqc_arena_init(&scratch, g->arena.allocator);
    if (mpqc_graph_number(g, &scratch, &p.ids)) {
        mpqc_buf_puts(to, "graph ");
        if (g->name) {
            print_string(to, g->name);
            mpqc_buf_puts(to, " ");
        }
        mpqc_buf_puts(to, "{\n");
        print_body(&p);
        mpqc_buf_puts(to, "}\n");
    } else {
        to->failed = true;
    }
    mpqc_arena_release(&scratch);
}
