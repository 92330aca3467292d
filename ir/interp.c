/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The reference interpreter: runs reference kernels in order.  It is the meaning
 * of the IR; generated code is compared with it byte by byte.
 *
 * Memory is planned once: walking through the nodes, each result takes the free
 * buffer that fits best (or makes the largest free one larger), and gives it back
 * after its last use.
 */
#include "ir/exec.h"

#define NO_BUFFER UINT32_MAX
#define ALIGNMENT 64

struct buffer {
    size_t bytes;
    char *data;
    bool busy;
};

struct mpqc_runner {
    const struct mpqc_allocator *allocator;
    const struct mpqc_graph *g;
    struct mpqc_arena arena;
    struct mpqc_tensor *tensors; /* by value id */
    uint32_t *buffer_of;         /* by value id; NO_BUFFER: none */
    struct buffer *buffers;
    uint32_t n_buffers;
    char *memory;
};

/* For each value the position in g->order of its last use; n_order for outputs. */
static uint32_t *last_uses(const struct mpqc_graph *g, struct mpqc_arena *arena)
{
    uint32_t *last = MPQC_NEW_ARRAY(arena, uint32_t, g->n_values);
    if (!last) return NULL;
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = &g->nodes[g->order[i]];
        for (uint32_t j = 0; j < n->n_in; j++) {
            if (n->in[j] != MPQC_NONE) last[n->in[j]] = i;
        }
        for (uint32_t j = 0; j < n->n_out; j++) last[n->out[j]] = i;
    }
    for (uint32_t i = 0; i < g->n_outputs; i++) last[g->outputs[i]] = g->n_order;
    return last;
}

/* The smallest free buffer that holds `bytes`, else the largest free one, else a new one. */
static uint32_t take_buffer(struct mpqc_runner *r, size_t bytes)
{
    uint32_t best = NO_BUFFER;
    for (uint32_t i = 0; i < r->n_buffers; i++) {
        const struct buffer *b = &r->buffers[i];
        if (b->busy) continue;
        size_t have = best == NO_BUFFER ? 0 : r->buffers[best].bytes;
        bool better = have >= bytes ? b->bytes >= bytes && b->bytes < have : b->bytes > have;
        if (best == NO_BUFFER || better) best = i;
    }
    if (best == NO_BUFFER) best = r->n_buffers++;
    struct buffer *b = &r->buffers[best];
    b->busy = true;
    if (b->bytes < bytes) b->bytes = bytes;
    return best;
}

static void free_if_last(struct mpqc_runner *r, const uint32_t *last, uint32_t now, mpqc_vid v)
{
    if (v != MPQC_NONE && r->buffer_of[v] != NO_BUFFER && last[v] == now)
        r->buffers[r->buffer_of[v]].busy = false;
}

static void plan_buffers(struct mpqc_runner *r, const uint32_t *last)
{
    const struct mpqc_graph *g = r->g;
    for (uint32_t v = 0; v < g->n_values; v++) r->buffer_of[v] = NO_BUFFER;
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = &g->nodes[g->order[i]];
        for (uint32_t j = 0; j < n->n_out; j++)
            r->buffer_of[n->out[j]] = take_buffer(r, mpqc_type_bytes(&g->values[n->out[j]].type));
        for (uint32_t j = 0; j < n->n_in; j++) free_if_last(r, last, i, n->in[j]);
        for (uint32_t j = 0; j < n->n_out; j++) free_if_last(r, last, i, n->out[j]);
    }
}

/* One block of memory for all buffers. */
static bool get_memory(struct mpqc_runner *r)
{
    size_t total = ALIGNMENT;
    for (uint32_t i = 0; i < r->n_buffers; i++) {
        size_t bytes;
        if (!mpqc_size_add(r->buffers[i].bytes, ALIGNMENT, &bytes)) return false;
        r->buffers[i].bytes = bytes / ALIGNMENT * ALIGNMENT;
        if (!mpqc_size_add(total, r->buffers[i].bytes, &total)) return false;
    }
    r->memory = r->allocator->resize(r->allocator->user, NULL, total);
    if (!r->memory) return false;
    char *next = r->memory + (ALIGNMENT - (uintptr_t)r->memory % ALIGNMENT) % ALIGNMENT;
    for (uint32_t i = 0; i < r->n_buffers; i++) {
        r->buffers[i].data = next;
        next += r->buffers[i].bytes;
    }
    return true;
}

/* Types of all values, and where results and constants are. */
static void bind_tensors(struct mpqc_runner *r)
{
    for (uint32_t v = 0; v < r->g->n_values; v++) {
        const struct mpqc_value *value = &r->g->values[v];
        r->tensors[v].type = value->type;
        if (value->data) /* constants are only read */
            r->tensors[v].data = (void *)(uintptr_t)value->data;
        else if (r->buffer_of[v] != NO_BUFFER)
            r->tensors[v].data = r->buffers[r->buffer_of[v]].data;
    }
}

static void interp_release(struct mpqc_runner *r)
{
    if (!r) return;
    const struct mpqc_allocator *a = r->allocator;
    if (r->memory) a->resize(a->user, r->memory, 0);
    mpqc_arena_release(&r->arena);
    a->resize(a->user, r, 0);
}

static mpqc_status interp_prepare(struct mpqc_cx *cx, const struct mpqc_graph *g,
                                  struct mpqc_runner **out)
{
    *out = NULL;
    struct mpqc_runner *r = cx->allocator->resize(cx->allocator->user, NULL, sizeof *r);
    if (!r) return MPQC_OOM(cx);
    memset(r, 0, sizeof *r);
    r->allocator = cx->allocator;
    r->g = g;
    mpqc_arena_init(&r->arena, cx->allocator);
    r->tensors = MPQC_NEW_ARRAY(&r->arena, struct mpqc_tensor, g->n_values);
    r->buffer_of = MPQC_NEW_ARRAY(&r->arena, uint32_t, g->n_values);
    r->buffers = MPQC_NEW_ARRAY(&r->arena, struct buffer, g->n_values);
    uint32_t *last = last_uses(g, &r->arena);
    bool ok = !r->arena.failed;
    if (ok) {
        plan_buffers(r, last);
        ok = get_memory(r);
    }
    if (!ok) {
        interp_release(r);
        return MPQC_OOM(cx);
    }
    bind_tensors(r);
    *out = r;
    return MPQC_OK;
}

static void run_node(struct mpqc_runner *r, const struct mpqc_node *n)
{
    const struct mpqc_tensor *in[MPQC_MAX_INPUTS];
    struct mpqc_tensor *out[MPQC_MAX_OUTPUTS];
    for (uint32_t i = 0; i < n->n_in; i++)
        in[i] = n->in[i] == MPQC_NONE ? NULL : &r->tensors[n->in[i]];
    for (uint32_t i = 0; i < n->n_out; i++) out[i] = &r->tensors[n->out[i]];
    mpqc_ops[n->op].ref(n, in, out);
}

static mpqc_status interp_run(struct mpqc_runner *r, const void *const *inputs,
                              void *const *outputs, mpqc_observe_fn observe, void *user)
{
    const struct mpqc_graph *g = r->g;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        struct mpqc_tensor *t = &r->tensors[g->inputs[i]];
        t->data = (void *)(uintptr_t)inputs[i]; /* only read */
        if (observe) observe(user, g->inputs[i], t);
    }
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = &g->nodes[g->order[i]];
        run_node(r, n);
        for (uint32_t j = 0; observe && j < n->n_out; j++)
            observe(user, n->out[j], &r->tensors[n->out[j]]);
    }
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        const struct mpqc_tensor *t = &r->tensors[g->outputs[i]];
        size_t bytes = mpqc_type_bytes(&t->type);
        if (bytes > 0) memcpy(outputs[i], t->data, bytes);
    }
    return MPQC_OK;
}

const struct mpqc_engine mpqc_interpreter = {
    .name = "interpreter",
    .prepare = interp_prepare,
    .run = interp_run,
    .release = interp_release,
};
