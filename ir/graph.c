/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Building graphs: values, nodes, folding.  Tables grow by doubling inside the
 * graph's arena; under AddressSanitizer the old table is poisoned, because
 * pointers to nodes and values do not survive the adding of another.
 */
#include "ir/base/limits.h"
#include "ir/ir.h"

void mpqc_graph_init(struct mpqc_graph *g, const struct mpqc_allocator *allocator)
{
    memset(g, 0, sizeof *g);
    mpqc_arena_init(&g->arena, allocator);
}

void mpqc_graph_release(struct mpqc_graph *g)
{
    mpqc_arena_release(&g->arena);
    memset(g, 0, sizeof *g);
}

/* A copy of a table of n elements with room for cap; the old one is given up. */
static void *regrow(struct mpqc_arena *a, void *old, uint32_t n, uint32_t cap, size_t element)
{
    char *table = mpqc_arena_array(a, cap, element);
    if (!table) return NULL;
    if (n) {
        memcpy(table, old, n * element);
        mpqc_arena_poison(old, n * element);
    }
    return table;
}

/* The capacity for `more` further entries, or 0 when the limit is reached. */
static uint32_t grown_cap(uint32_t n, uint32_t cap, uint32_t more)
{
    if (more > MPQC_MAX_VALUES - n) return 0;
    if (cap == 0) cap = MPQC_GRAPH_FIRST;
    while (cap < n + more) cap *= 2;
    return cap;
}

static bool reserve_values(struct mpqc_graph *g, uint32_t more)
{
    if (more <= g->cap_values - g->n_values) return true;
    uint32_t cap = grown_cap(g->n_values, g->cap_values, more);
    struct mpqc_value *table =
        cap ? regrow(&g->arena, g->values, g->n_values, cap, sizeof *g->values) : NULL;
    if (!table) {
        g->arena.failed = true;
        return false;
    }
    g->values = table;
    g->cap_values = cap;
    return true;
}

/* Room for one more node, in `order` too. */
static bool reserve_node(struct mpqc_graph *g)
{
    if (g->n_nodes < g->cap_nodes) return true;
    uint32_t cap = grown_cap(g->n_nodes, g->cap_nodes, 1);
    mpqc_nid *order = cap ? MPQC_NEW_ARRAY(&g->arena, mpqc_nid, cap) : NULL;
    struct mpqc_node *table =
        order ? regrow(&g->arena, g->nodes, g->n_nodes, cap, sizeof *g->nodes) : NULL;
    if (!table) {
        g->arena.failed = true;
        return false;
    }
    if (g->n_order) memcpy(order, g->order, g->n_order * sizeof *order);
    g->order = order;
    g->nodes = table;
    g->cap_nodes = cap;
    return true;
}

/* ---- values ---- */

static mpqc_vid add_value(struct mpqc_graph *g, const char *name, struct mpqc_type type)
{
    MPQC_ASSERT(mpqc_type_fits(&type));
    char *copy = mpqc_arena_strdup(&g->arena, name);
    if ((name && !copy) || !reserve_values(g, 1)) return MPQC_NONE;
    g->values[g->n_values] = (struct mpqc_value){.type = type, .name = copy, .def = MPQC_NONE};
    return g->n_values++;
}

/* Appends v to a list of value ids that grows by doubling (capacity = next power of two). */
static bool append_id(struct mpqc_arena *a, mpqc_vid **list, uint32_t *n, mpqc_vid v)
{
    if ((*n & (*n - 1)) == 0) { /* 0, 1, 2, 4, ...: full */
        mpqc_vid *longer = MPQC_NEW_ARRAY(a, mpqc_vid, *n ? (size_t)*n * 2 : 1);
        if (!longer) return false;
        if (*n) memcpy(longer, *list, *n * sizeof *longer);
        *list = longer;
    }
    (*list)[(*n)++] = v;
    return true;
}

mpqc_vid mpqc_graph_input(struct mpqc_graph *g, const char *name, struct mpqc_type type)
{
    mpqc_vid v = add_value(g, name, type);
    if (v != MPQC_NONE && !append_id(&g->arena, &g->inputs, &g->n_inputs, v)) return MPQC_NONE;
    return v;
}

void mpqc_graph_output(struct mpqc_graph *g, mpqc_vid v)
{
    (void)append_id(&g->arena, &g->outputs, &g->n_outputs, v);
}

mpqc_vid mpqc_graph_const(struct mpqc_graph *g, const char *name, struct mpqc_type type,
                          const void *data, bool borrow)
{
    MPQC_ASSERT(mpqc_type_fits(&type));
    size_t bytes = mpqc_type_bytes(&type);
    /* Even without elements a constant has an address: NULL says "not a constant". */
    const void *own = borrow && data ? data : mpqc_arena_copy(&g->arena, data, bytes);
    mpqc_vid v = own ? add_value(g, name, type) : MPQC_NONE;
    if (v != MPQC_NONE) g->values[v].data = own;
    return v;
}

mpqc_vid mpqc_graph_const_f32(struct mpqc_graph *g, uint32_t rank, const int64_t *dims,
                              const float *data)
{
    return mpqc_graph_const(g, NULL, mpqc_type_make(MPQC_DT_F32, rank, dims), data, false);
}

mpqc_vid mpqc_graph_const_i64(struct mpqc_graph *g, int64_t n, const int64_t *data)
{
    return mpqc_graph_const(g, NULL, mpqc_type_make(MPQC_DT_I64, 1, &n), data, false);
}

/* ---- nodes ---- */

/* A copy of one attribute whose payload lives in the arena. */
static struct mpqc_attr copy_attr(struct mpqc_arena *a, struct mpqc_attr from)
{
    if (mpqc_attr_kinds[from.key] == MPQC_AK_INTS)
        from.ints = mpqc_arena_copy(a, from.ints, from.count * sizeof *from.ints);
    else if (mpqc_attr_kinds[from.key] == MPQC_AK_STRING)
        from.s = mpqc_arena_strdup(a, from.s);
    return from;
}

/* Inserts into a sorted list of n attributes that has room for one more. */
static void insert_attr(struct mpqc_attr *list, uint32_t n, struct mpqc_attr a)
{
    uint32_t i = n;
    for (; i > 0 && list[i - 1].key > a.key; i--) list[i] = list[i - 1];
    list[i] = a;
}

void mpqc_attr_set(struct mpqc_graph *g, struct mpqc_node *n, struct mpqc_attr a)
{
    a = copy_attr(&g->arena, a);
    for (uint32_t i = 0; i < n->n_attr; i++) {
        if (n->attr[i].key == a.key) {
            n->attr[i] = a;
            return;
        }
    }
    struct mpqc_attr *list = MPQC_NEW_ARRAY(&g->arena, struct mpqc_attr, n->n_attr + 1);
    if (!list) return;
    if (n->n_attr) memcpy(list, n->attr, n->n_attr * sizeof *list);
    insert_attr(list, n->n_attr, a);
    n->attr = list;
    n->n_attr++;
}

struct mpqc_loc mpqc_loc_copy(struct mpqc_graph *g, struct mpqc_loc loc)
{
    loc.node = mpqc_arena_strdup(&g->arena, loc.node);
    loc.op = mpqc_arena_strdup(&g->arena, loc.op);
    return loc;
}

/* Everything of a node but its outputs, in the graph's arena. */
static mpqc_status make_node(struct mpqc_cx *cx, struct mpqc_graph *g, enum mpqc_op op,
                             const mpqc_vid *in, uint32_t n_in, const struct mpqc_attrs *attrs,
                             struct mpqc_loc loc, struct mpqc_node *n)
{
    uint32_t n_attr = attrs ? attrs->n : 0;
    *n = (struct mpqc_node){.op = op, .n_in = n_in, .n_attr = n_attr, .kernel = MPQC_NONE};
    n->n_out = mpqc_ops[op].n_out;
    n->in = mpqc_arena_copy(&g->arena, in, n_in * sizeof *in);
    n->out = MPQC_NEW_ARRAY(&g->arena, mpqc_vid, n->n_out);
    n->attr = MPQC_NEW_ARRAY(&g->arena, struct mpqc_attr, n_attr);
    n->loc = mpqc_loc_copy(g, loc);
    if (g->arena.failed) return MPQC_OOM(cx);
    for (uint32_t i = 0; i < n_attr; i++)
        insert_attr(n->attr, i, copy_attr(&g->arena, attrs->a[i]));
    return g->arena.failed ? MPQC_OOM(cx) : MPQC_OK;
}

/* What the table says about arity and attributes.  Only a broken pass or a
 * hand-written text gets this wrong; importers check before. */
static mpqc_status check_form(struct mpqc_cx *cx, const struct mpqc_graph *g,
                              const struct mpqc_node *n)
{
    const struct mpqc_op_info *info = &mpqc_ops[n->op];
    struct mpqc_where where = mpqc_loc_where(n->loc);
    if (n->n_in < info->in_min || n->n_in > info->in_max || n->n_in > MPQC_MAX_INPUTS)
        return MPQC_FAIL(cx, MODEL, where, "'%s' takes %u to %u inputs, not %u", info->text,
                         info->in_min, info->in_max, n->n_in);
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == MPQC_NONE && i < info->in_min)
            return MPQC_FAIL(cx, MODEL, where, "input %u of '%s' is missing", i, info->text);
        if (n->in[i] != MPQC_NONE && n->in[i] >= g->n_values)
            return MPQC_FAIL(cx, BUG, where, "input %u of '%s' is no value of the graph", i,
                             info->text);
    }
    for (uint32_t i = 0; i < n->n_attr; i++)
        if (!(info->attrs >> n->attr[i].key & 1))
            return MPQC_FAIL(cx, MODEL, where, "'%s' has no attribute '%s'", info->text,
                             mpqc_attr_text[n->attr[i].key]);
    return MPQC_OK;
}

mpqc_status mpqc_node_infer(struct mpqc_cx *cx, struct mpqc_graph *g, const struct mpqc_node *n,
                            struct mpqc_type *out)
{
    struct mpqc_infer inf = {.cx = cx, .g = g, .node = n};
    MPQC_TRY(check_form(cx, g, n));
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == MPQC_NONE) continue;
        inf.in[i] = &g->values[n->in[i]].type;
        inf.in_data[i] = g->values[n->in[i]].data;
    }
    MPQC_TRY(mpqc_ops[n->op].infer(&inf));
    if (g->arena.failed) return MPQC_OOM(cx);
    for (uint32_t i = 0; i < n->n_out; i++) {
        const char *problem = mpqc_type_problem(&inf.out[i]);
        if (problem)
            return MPQC_FAIL(cx, MODEL, mpqc_loc_where(n->loc), "in the result of '%s', %s",
                             mpqc_ops[n->op].text, problem);
        out[i] = inf.out[i];
    }
    return MPQC_OK;
}

/* Enters a prepared node and its outputs. */
static mpqc_status commit_node(struct mpqc_cx *cx, struct mpqc_graph *g, struct mpqc_node *n,
                               const struct mpqc_type *type, mpqc_vid *out)
{
    if (!reserve_values(g, n->n_out) || !reserve_node(g)) return MPQC_OOM(cx);
    mpqc_nid id = g->n_nodes++;
    *out = g->n_values;
    for (uint32_t i = 0; i < n->n_out; i++) {
        n->out[i] = g->n_values++;
        g->values[n->out[i]] = (struct mpqc_value){.type = type[i], .def = id, .def_slot = i};
    }
    g->nodes[id] = *n;
    g->order[g->n_order++] = id; /* n_order <= n_nodes <= cap_nodes */
    return MPQC_OK;
}

static bool all_constant(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    bool any = false;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == MPQC_NONE) continue;
        if (!mpqc_is_const(g, n->in[i])) return false;
        any = true;
    }
    return any;
}

/* Memory for the results of a folded node. */
static mpqc_status fold_outputs(struct mpqc_cx *cx, struct mpqc_graph *g,
                                const struct mpqc_node *n, const struct mpqc_type *type,
                                struct mpqc_tensor *out)
{
    for (uint32_t i = 0; i < n->n_out; i++) {
        size_t bytes = mpqc_type_bytes(&type[i]);
        if (bytes > MPQC_MAX_FOLD_BYTES)
            return MPQC_FAIL(cx, LIMIT_EXCEEDED, mpqc_loc_where(n->loc),
                             "this constant would take %zu bytes", bytes);
        out[i] = (struct mpqc_tensor){type[i], mpqc_arena_alloc(&g->arena, bytes)};
        if (!out[i].data) return MPQC_OOM(cx);
    }
    return MPQC_OK;
}

/* Computes n from its constant inputs and enters the results as constants. */
static mpqc_status fold_node(struct mpqc_cx *cx, struct mpqc_graph *g, const struct mpqc_node *n,
                             const struct mpqc_type *type, mpqc_vid *out)
{
    struct mpqc_tensor in[MPQC_MAX_INPUTS], res[MPQC_MAX_OUTPUTS];
    const struct mpqc_tensor *in_at[MPQC_MAX_INPUTS];
    struct mpqc_tensor *res_at[MPQC_MAX_OUTPUTS];
    MPQC_TRY(fold_outputs(cx, g, n, type, res));
    for (uint32_t i = 0; i < n->n_in; i++) {
        in_at[i] = n->in[i] == MPQC_NONE ? NULL : &in[i];
        if (n->in[i] == MPQC_NONE) continue;
        const struct mpqc_value *v = &g->values[n->in[i]];
        in[i] = (struct mpqc_tensor){v->type, (void *)(uintptr_t)v->data}; /* only read */
    }
    for (uint32_t i = 0; i < n->n_out; i++) res_at[i] = &res[i];
    mpqc_ops[n->op].ref(n, in_at, res_at);
    if (!reserve_values(g, n->n_out)) return MPQC_OOM(cx);
    *out = g->n_values;
    for (uint32_t i = 0; i < n->n_out; i++)
        (void)mpqc_graph_const(g, NULL, type[i], res[i].data, true);
    return MPQC_OK;
}

/* fold: where all inputs are constants, constants take the node's place. */
static mpqc_status add_node(struct mpqc_cx *cx, struct mpqc_graph *g, enum mpqc_op op,
                            const mpqc_vid *in, uint32_t n_in, const struct mpqc_attrs *attrs,
                            struct mpqc_loc loc, bool fold, mpqc_vid *out)
{
    struct mpqc_node n;
    struct mpqc_type type[MPQC_MAX_OUTPUTS];
    if (g->arena.failed) return MPQC_OOM(cx);
    MPQC_TRY(make_node(cx, g, op, in, n_in, attrs, loc, &n));
    MPQC_TRY(mpqc_node_infer(cx, g, &n, type));
    if (fold && mpqc_ops[op].ref && all_constant(g, &n)) return fold_node(cx, g, &n, type, out);
    return commit_node(cx, g, &n, type, out);
}

mpqc_status mpqc_node_add(struct mpqc_cx *cx, struct mpqc_graph *g, enum mpqc_op op,
                          const mpqc_vid *in, uint32_t n_in, const struct mpqc_attrs *attrs,
                          struct mpqc_loc loc, mpqc_vid *out)
{
    return add_node(cx, g, op, in, n_in, attrs, loc, false, out);
}

mpqc_status mpqc_node_fold(struct mpqc_cx *cx, struct mpqc_graph *g, enum mpqc_op op,
                           const mpqc_vid *in, uint32_t n_in, const struct mpqc_attrs *attrs,
                           struct mpqc_loc loc, mpqc_vid *out)
{
    return add_node(cx, g, op, in, n_in, attrs, loc, true, out);
}
