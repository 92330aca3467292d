/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The parser of the text form: see GRAMMAR.md.  Recursive descent without
 * recursion: statements do not nest.  What it accepts is a well-formed graph,
 * because nodes are entered by mpqc_node_add, which infers their types.
 */
#include "ir/elements.h"
#include "ir/lex.h"
#include "ir/text.h"

/* Elements that a few characters (splat, random) may ask for. */
#define MAX_COMPACT_BYTES ((size_t)1 << 26)

struct parser {
    struct mpqc_lex l;
    struct mpqc_graph *g;
    struct mpqc_arena scratch;
    mpqc_vid *ids; /* by number in the text */
    size_t n_ids;
};

/* ---- names from the tables ---- */

static const char *dtype_name(unsigned i)
{
    return mpqc_dtypes[i].text;
}

static const char *op_name(unsigned i)
{
    return mpqc_ops[i].text;
}

static const char *attr_name(unsigned i)
{
    return mpqc_attr_text[i];
}

/* A word that must be the name of one of n things. */
static mpqc_status parse_name(struct parser *p, const char *kind, const char *(*name)(unsigned),
                              unsigned n, unsigned *out)
{
    const char *word;
    size_t start = mpqc_lex_skip(&p->l), len = mpqc_lex_word(&p->l, &word);
    for (*out = 0; *out < n; ++*out)
        if (strlen(name(*out)) == len && memcmp(name(*out), word, len) == 0) return MPQC_OK;
    return mpqc_lex_fail(&p->l, start, len ? "'%.*s' is no %s" : "expected %.*s%s",
                         len > 40 ? 40 : (int)len, word, kind);
}

/* ---- values ---- */

static mpqc_status parse_number(struct parser *p, size_t *number)
{
    int64_t n;
    MPQC_TRY(mpqc_lex_want(&p->l, '%'));
    MPQC_TRY(mpqc_lex_int(&p->l, 0, (int64_t)p->l.len, &n));
    *number = (size_t)n;
    return MPQC_OK;
}

static mpqc_status parse_use(struct parser *p, mpqc_vid *v)
{
    size_t number;
    size_t start = mpqc_lex_skip(&p->l);
    MPQC_TRY(parse_number(p, &number));
    *v = number < p->n_ids ? p->ids[number] : MPQC_NONE;
    if (*v == MPQC_NONE) return mpqc_lex_fail(&p->l, start, "%%%zu is not defined", number);
    return MPQC_OK;
}

static mpqc_status grow_ids(struct parser *p, size_t number)
{
    if (number < p->n_ids) return MPQC_OK;
    size_t n = number * 2 + 16;
    mpqc_vid *ids = MPQC_NEW_ARRAY(&p->scratch, mpqc_vid, n);
    if (!ids) return MPQC_OOM(p->l.cx);
    for (size_t i = 0; i < n; i++) ids[i] = i < p->n_ids ? p->ids[i] : MPQC_NONE;
    p->ids = ids;
    p->n_ids = n;
    return MPQC_OK;
}

/* A value that is being defined: its number and perhaps its name. */
struct definition {
    size_t number, start;
    const char *name;
};

static mpqc_status parse_definition(struct parser *p, struct definition *d)
{
    d->start = mpqc_lex_skip(&p->l);
    d->name = NULL;
    MPQC_TRY(parse_number(p, &d->number));
    if (mpqc_lex_at_string(&p->l)) MPQC_TRY(mpqc_lex_string(&p->l, &d->name));
    return grow_ids(p, d->number);
}

static mpqc_status define(struct parser *p, const struct definition *d, mpqc_vid v)
{
    if (v == MPQC_NONE) return MPQC_OOM(p->l.cx);
    if (p->ids[d->number] != MPQC_NONE)
        return mpqc_lex_fail(&p->l, d->start, "%%%zu is defined twice", d->number);
    p->ids[d->number] = v;
    return MPQC_OK;
}

/* ---- data ---- */

static mpqc_status parse_element(struct parser *p, enum mpqc_dtype t, void *data, int64_t i)
{
    int64_t v;
    if (mpqc_dtypes[t].kind == MPQC_KIND_FLOAT)
        return mpqc_lex_real(&p->l, &((float *)data)[i]);
    size_t start = mpqc_lex_skip(&p->l);
    MPQC_TRY(mpqc_lex_int(&p->l, mpqc_dtypes[t].min, mpqc_dtypes[t].max, &v));
    if (!mpqc_dtype_holds(t, v))
        return mpqc_lex_fail(&p->l, start, "0 is no %s", mpqc_dtypes[t].text);
    mpqc_element_set(t, data, i, v);
    return MPQC_OK;
}

static mpqc_status parse_list(struct parser *p, enum mpqc_dtype t, void *data, int64_t n)
{
    size_t start = mpqc_lex_skip(&p->l);
    MPQC_TRY(mpqc_lex_want(&p->l, '['));
    for (int64_t i = 0; i < n; i++) {
        if (i) MPQC_TRY(mpqc_lex_want(&p->l, ','));
        MPQC_TRY(parse_element(p, t, data, i));
    }
    return mpqc_lex_take(&p->l, ']')
               ? MPQC_OK
               : mpqc_lex_fail(&p->l, start, "expected %lld elements", (long long)n);
}

/* n elements in new memory of `arena`. */
static mpqc_status parse_data(struct parser *p, enum mpqc_dtype t, int64_t n,
                              struct mpqc_arena *arena, void **data)
{
    int64_t seed;
    size_t start = mpqc_lex_skip(&p->l), bytes = (size_t)n * mpqc_dtypes[t].bytes;
    bool splat = mpqc_lex_take_word(&p->l, "splat");
    bool random = !splat && mpqc_lex_take_word(&p->l, "random");
    if (!splat && !random && mpqc_lex_take_word(&p->l, "hash"))
        return mpqc_lex_fail(&p->l, start, "a content hash cannot be read back as data");
    /* n elements take at least 2 n - 1 characters. */
    bool short_text = !splat && !random && (size_t)n > (p->l.len - p->l.pos) / 2 + 1;
    if (short_text || ((splat || random) && bytes > MAX_COMPACT_BYTES))
        return mpqc_lex_fail(&p->l, start, "there are not %lld elements here", (long long)n);
    *data = mpqc_arena_alloc(arena, bytes);
    if (!*data) return MPQC_OOM(p->l.cx);
    if (!splat && !random) return parse_list(p, t, *data, n);
    if (n == 0) return mpqc_lex_fail(&p->l, start, "no elements are written as []");
    if (splat) {
        MPQC_TRY(parse_element(p, t, *data, 0));
        mpqc_elements_splat(t, *data, n);
    } else {
        MPQC_TRY(mpqc_lex_int(&p->l, 0, INT64_MAX, &seed));
        mpqc_elements_random(t, *data, n, (uint64_t)seed);
    }
    return MPQC_OK;
}

/* ---- types ---- */

static mpqc_status want_key(struct parser *p, const char *key)
{
    MPQC_TRY(mpqc_lex_want_word(&p->l, key));
    return mpqc_lex_want(&p->l, '=');
}

static mpqc_status parse_groups(struct parser *p, const struct mpqc_type *t,
                                const struct mpqc_quant **out)
{
    int64_t size, bits, columns = (*out)->count;
    struct mpqc_type channels = *t;
    void *factor;
    MPQC_TRY(want_key(p, "group"));
    MPQC_TRY(mpqc_lex_int(&p->l, 1, INT32_MAX, &size));
    MPQC_TRY(mpqc_lex_want(&p->l, ','));
    MPQC_TRY(want_key(p, "bits"));
    MPQC_TRY(mpqc_lex_int(&p->l, MPQC_GROUP_LEAST_BITS, MPQC_GROUP_MOST_BITS, &bits));
    MPQC_TRY(mpqc_lex_want(&p->l, ','));
    MPQC_TRY(want_key(p, "factor"));
    int64_t groups = t->dims[0] / size + (t->dims[0] % size > 0);
    if (columns > 0 && groups > INT64_MAX / columns)
        return mpqc_lex_fail(&p->l, p->l.pos, "there are too many groups");
    MPQC_TRY(parse_data(p, MPQC_DT_I8, groups * columns, &p->scratch, &factor));
    channels.quant = *out;
    *out = mpqc_quant_groups(p->g, &channels, size, (unsigned)bits, factor);
    return *out ? MPQC_OK : MPQC_OOM(p->l.cx);
}

static mpqc_status parse_channel_quant(struct parser *p, const struct mpqc_type *t,
                                       const struct mpqc_quant **out)
{
    int64_t axis;
    void *scale, *zero;
    MPQC_TRY(mpqc_lex_int(&p->l, 0, t->rank ? t->rank - 1 : 0, &axis));
    int64_t count = t->rank ? t->dims[axis] : 1;
    if (count > UINT32_MAX) return mpqc_lex_fail(&p->l, p->l.pos, "the axis is too long");
    MPQC_TRY(mpqc_lex_want(&p->l, ','));
    MPQC_TRY(want_key(p, "scale"));
    MPQC_TRY(parse_data(p, MPQC_DT_F32, count, &p->scratch, &scale));
    MPQC_TRY(mpqc_lex_want(&p->l, ','));
    MPQC_TRY(want_key(p, "zero"));
    MPQC_TRY(parse_data(p, MPQC_DT_I32, count, &p->scratch, &zero));
    *out = mpqc_quant_channel(p->g, (int32_t)axis, (uint32_t)count, scale, zero);
    if (*out && t->rank > 0 && mpqc_lex_take(&p->l, ',')) MPQC_TRY(parse_groups(p, t, out));
    return *out ? mpqc_lex_want(&p->l, ')') : MPQC_OOM(p->l.cx);
}

static mpqc_status parse_quant(struct parser *p, const struct mpqc_type *t,
                               const struct mpqc_quant **out)
{
    float scale;
    int64_t zero;
    MPQC_TRY(mpqc_lex_want(&p->l, '('));
    if (mpqc_lex_take_word(&p->l, "axis")) {
        MPQC_TRY(mpqc_lex_want(&p->l, '='));
        return parse_channel_quant(p, t, out);
    }
    MPQC_TRY(want_key(p, "scale"));
    MPQC_TRY(mpqc_lex_real(&p->l, &scale));
    MPQC_TRY(mpqc_lex_want(&p->l, ','));
    MPQC_TRY(want_key(p, "zero"));
    MPQC_TRY(mpqc_lex_int(&p->l, INT32_MIN, INT32_MAX, &zero));
    *out = mpqc_quant_tensor(p->g, scale, (int32_t)zero);
    return *out ? mpqc_lex_want(&p->l, ')') : MPQC_OOM(p->l.cx);
}

static mpqc_status parse_type(struct parser *p, struct mpqc_type *t)
{
    unsigned dtype;
    uint32_t rank;
    const int64_t *dims;
    size_t start = mpqc_lex_skip(&p->l);
    MPQC_TRY(parse_name(p, "element type", dtype_name, MPQC_DT_COUNT, &dtype));
    MPQC_TRY(mpqc_lex_ints(&p->l, MPQC_MAX_RANK, &dims, &rank));
    *t = mpqc_type_make((enum mpqc_dtype)dtype, rank, dims);
    if (!mpqc_type_fits(t)) return mpqc_lex_fail(&p->l, start, "the shape cannot be");
    if (mpqc_lex_take_word(&p->l, "quant")) MPQC_TRY(parse_quant(p, t, &t->quant));
    const char *problem = mpqc_type_problem(t);
    return problem ? mpqc_lex_fail(&p->l, start, "%s", problem) : MPQC_OK;
}

/* ---- statements ---- */

static mpqc_status parse_input(struct parser *p)
{
    struct definition d;
    struct mpqc_type t;
    MPQC_TRY(parse_definition(p, &d));
    MPQC_TRY(mpqc_lex_want(&p->l, ':'));
    MPQC_TRY(parse_type(p, &t));
    return define(p, &d, mpqc_graph_input(p->g, d.name, t));
}

static mpqc_status parse_const(struct parser *p)
{
    struct definition d;
    struct mpqc_type t;
    void *data;
    MPQC_TRY(parse_definition(p, &d));
    MPQC_TRY(mpqc_lex_want(&p->l, ':'));
    MPQC_TRY(parse_type(p, &t));
    MPQC_TRY(mpqc_lex_want(&p->l, '='));
    MPQC_TRY(parse_data(p, t.dtype, mpqc_type_count(&t), &p->g->arena, &data));
    return define(p, &d, mpqc_graph_const(p->g, d.name, t, data, true));
}

static mpqc_status parse_attr_value(struct parser *p, enum mpqc_attr_key key,
                                    struct mpqc_attrs *list)
{
    int64_t i;
    float f;
    uint32_t n;
    const int64_t *ints;
    const char *s;
    switch (mpqc_attr_kinds[key]) {
    case MPQC_AK_INT:
        MPQC_TRY(mpqc_lex_int(&p->l, INT64_MIN, INT64_MAX, &i));
        mpqc_attrs_int(list, key, i);
        break;
    case MPQC_AK_FLOAT:
        MPQC_TRY(mpqc_lex_real(&p->l, &f));
        mpqc_attrs_float(list, key, f);
        break;
    case MPQC_AK_INTS:
        MPQC_TRY(mpqc_lex_ints(&p->l, 4 * MPQC_MAX_RANK, &ints, &n));
        mpqc_attrs_ints(list, key, n, ints);
        break;
    case MPQC_AK_STRING:
        MPQC_TRY(mpqc_lex_string(&p->l, &s));
        mpqc_attrs_string(list, key, s);
        break;
    }
    return MPQC_OK;
}

static mpqc_status parse_attrs(struct parser *p, struct mpqc_attrs *list)
{
    uint64_t seen = 0;
    if (!mpqc_lex_take(&p->l, '{')) return MPQC_OK;
    do {
        unsigned key;
        size_t start = mpqc_lex_skip(&p->l);
        MPQC_TRY(parse_name(p, "attribute", attr_name, MPQC_ATTR_COUNT, &key));
        if (seen >> key & 1) return mpqc_lex_fail(&p->l, start, "an attribute is given twice");
        if (list->n == MPQC_MAX_ATTRS) return mpqc_lex_fail(&p->l, start, "too many attributes");
        seen |= (uint64_t)1 << key;
        MPQC_TRY(mpqc_lex_want(&p->l, '='));
        MPQC_TRY(parse_attr_value(p, (enum mpqc_attr_key)key, list));
    } while (mpqc_lex_take(&p->l, ','));
    return mpqc_lex_want(&p->l, '}');
}

/* Everything of a node statement but the types. */
struct statement {
    struct definition out[MPQC_MAX_OUTPUTS];
    uint32_t n_out;
    unsigned op;
    mpqc_vid in[MPQC_MAX_INPUTS];
    uint32_t n_in;
    struct mpqc_attrs attrs;
    struct mpqc_loc loc;
    uint32_t kernel;
};

static mpqc_status parse_results(struct parser *p, struct statement *s)
{
    do {
        if (s->n_out == MPQC_MAX_OUTPUTS)
            return mpqc_lex_fail(&p->l, p->l.pos, "too many results");
        MPQC_TRY(parse_definition(p, &s->out[s->n_out++]));
    } while (mpqc_lex_take(&p->l, ','));
    return mpqc_lex_want(&p->l, '=');
}

static bool at_operand(struct parser *p)
{
    mpqc_lex_skip(&p->l);
    return p->l.pos < p->l.len && (p->l.text[p->l.pos] == '%' || p->l.text[p->l.pos] == '_');
}

static mpqc_status parse_operands(struct parser *p, struct statement *s)
{
    if (!at_operand(p)) return MPQC_OK;
    do {
        if (s->n_in == MPQC_MAX_INPUTS)
            return mpqc_lex_fail(&p->l, p->l.pos, "too many operands");
        s->in[s->n_in] = MPQC_NONE;
        if (!mpqc_lex_take_word(&p->l, "_")) MPQC_TRY(parse_use(p, &s->in[s->n_in]));
        s->n_in++;
    } while (mpqc_lex_take(&p->l, ','));
    return MPQC_OK;
}

static mpqc_status parse_tail(struct parser *p, struct statement *s)
{
    int64_t kernel = MPQC_NONE;
    MPQC_TRY(parse_attrs(p, &s->attrs));
    if (mpqc_lex_take(&p->l, '@')) {
        MPQC_TRY(mpqc_lex_string(&p->l, &s->loc.node));
        if (mpqc_lex_at_string(&p->l)) MPQC_TRY(mpqc_lex_string(&p->l, &s->loc.op));
    }
    if (mpqc_lex_take_word(&p->l, "kernel"))
        MPQC_TRY(mpqc_lex_int(&p->l, 0, UINT32_MAX - 1, &kernel));
    s->kernel = (uint32_t)kernel;
    return MPQC_OK;
}

/* Diagnostics of inference know the node, not the line: tell them. */
static void place_diags(struct parser *p, uint32_t first, size_t pos)
{
    struct mpqc_cx *cx = p->l.cx;
    for (uint32_t i = first; i < cx->n_diags; i++)
        if (!cx->diags[i].where.file) cx->diags[i].where.file = mpqc_lex_where(&p->l, pos);
}

static mpqc_status enter_node(struct parser *p, const struct statement *s)
{
    mpqc_vid first;
    uint32_t n_diags = p->l.cx->n_diags;
    mpqc_status status = mpqc_node_add(p->l.cx, p->g, (enum mpqc_op)s->op, s->in, s->n_in,
                                       &s->attrs, s->loc, &first);
    if (status != MPQC_OK) {
        place_diags(p, n_diags, s->out[0].start);
        return status;
    }
    p->g->nodes[p->g->n_nodes - 1].kernel = s->kernel;
    for (uint32_t i = 0; i < s->n_out; i++) {
        MPQC_TRY(define(p, &s->out[i], first + i));
        p->g->values[first + i].name = mpqc_arena_strdup(&p->g->arena, s->out[i].name);
    }
    return p->g->arena.failed ? MPQC_OOM(p->l.cx) : MPQC_OK;
}

/* The written types, against the inferred ones of the node entered last. */
static mpqc_status check_types(struct parser *p, const struct statement *s)
{
    const struct mpqc_node *n = &p->g->nodes[p->g->n_nodes - 1];
    if (!mpqc_lex_take(&p->l, ':')) return MPQC_OK;
    for (uint32_t i = 0; i < s->n_out; i++) {
        struct mpqc_type written;
        struct mpqc_buf text;
        if (i) MPQC_TRY(mpqc_lex_want(&p->l, ','));
        size_t start = mpqc_lex_skip(&p->l);
        MPQC_TRY(parse_type(p, &written));
        const struct mpqc_type *inferred = &p->g->values[n->out[i]].type;
        if (mpqc_type_equal(&written, inferred)) continue;
        mpqc_buf_init(&text);
        mpqc_type_print(inferred, &text, false);
        mpqc_status status = mpqc_lex_fail(&p->l, start, "the type is written wrong: it is %s",
                                           text.failed ? "another" : text.data);
        mpqc_buf_release(&text);
        return status;
    }
    return MPQC_OK;
}

static mpqc_status parse_node(struct parser *p)
{
    struct statement s = {.loc = {.offset = -1}};
    MPQC_TRY(parse_results(p, &s));
    size_t start = mpqc_lex_skip(&p->l);
    MPQC_TRY(parse_name(p, "operator", op_name, MPQC_OP_COUNT, &s.op));
    if (s.n_out != mpqc_ops[s.op].n_out)
        return mpqc_lex_fail(&p->l, start, "'%s' has %u results", mpqc_ops[s.op].text,
                             mpqc_ops[s.op].n_out);
    MPQC_TRY(parse_operands(p, &s));
    MPQC_TRY(parse_tail(p, &s));
    MPQC_TRY(enter_node(p, &s));
    return check_types(p, &s);
}

static mpqc_status parse_output(struct parser *p)
{
    mpqc_vid v;
    MPQC_TRY(parse_use(p, &v));
    mpqc_graph_output(p->g, v);
    return p->g->arena.failed ? MPQC_OOM(p->l.cx) : MPQC_OK;
}

static mpqc_status parse_statement(struct parser *p)
{
    mpqc_lex_skip(&p->l);
    if (p->l.pos < p->l.len && p->l.text[p->l.pos] == '%') return parse_node(p);
    if (mpqc_lex_take_word(&p->l, "input")) return parse_input(p);
    if (mpqc_lex_take_word(&p->l, "const")) return parse_const(p);
    if (mpqc_lex_take_word(&p->l, "output")) return parse_output(p);
    return MPQC_LEX_EXPECTED(&p->l, "a statement (input, const, %N = ..., output) or '}'");
}

static mpqc_status parse_graph(struct parser *p)
{
    const char *name = NULL;
    MPQC_TRY(mpqc_lex_want_word(&p->l, "graph"));
    if (mpqc_lex_at_string(&p->l)) MPQC_TRY(mpqc_lex_string(&p->l, &name));
    p->g->name = mpqc_arena_strdup(&p->g->arena, name);
    MPQC_TRY(mpqc_lex_want(&p->l, '{'));
    while (!mpqc_lex_take(&p->l, '}')) MPQC_TRY(parse_statement(p));
    mpqc_lex_skip(&p->l);
    if (p->l.pos < p->l.len) return MPQC_LEX_EXPECTED(&p->l, "the end of the text");
    return p->g->arena.failed ? MPQC_OOM(p->l.cx) : MPQC_OK;
}

mpqc_status mpqc_graph_parse(struct mpqc_cx *cx, const char *text, size_t len, const char *file,
                             struct mpqc_graph *out)
{
    struct parser p = {.l = {.cx = cx, .file = file ? file : "text", .text = text, .len = len}};
    p.g = out;
    mpqc_arena_init(&p.scratch, cx->allocator);
    p.l.arena = &p.scratch;
    mpqc_status status = parse_graph(&p);
    mpqc_arena_release(&p.scratch);
    return status;
}
