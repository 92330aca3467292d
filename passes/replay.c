/* SPDX-License-Identifier: GPL-3.0-or-later
 * See replay.h.
 */
#include "passes/replay.h"

#include <math.h>
#include <pthread.h>

/* Of all tensors that live at once. */
#define MEMORY ((size_t)1 << 30)
#define FEWEST_SAMPLES 8

struct mpqc_replay {
    struct mpqc_quantiser *q;
    uint64_t samples;
    uint32_t n_order;
    const mpqc_nid *order;  /* of the float graph */
    uint32_t *dies;         /* by old value: position in order of its last reader's emission */
    uint32_t *position;     /* by old node, in order */
    uint8_t **block;        /* by value, old and new: [sample][bytes]; NULL: not kept */
    uint32_t n_block;
    uint32_t float_done;    /* positions that have run */
    mpqc_nid new_done;      /* nodes that have run */
    pthread_mutex_t lock;   /* the data source */
};

/* Nodes that run together. */
struct batch {
    struct mpqc_replay *r;
    uint32_t n;
    const mpqc_nid *nodes;
    mpqc_vid first_new;     /* values from here on may be temporary */
    uint32_t n_new;
};

uint64_t mpqc_replay_samples(const struct mpqc_replay *r)
{
    return r->samples;
}

static size_t bytes_of(const struct mpqc_replay *r, mpqc_vid v)
{
    size_t bytes = mpqc_type_bytes(&mpqc_value_at(r->q->g, v)->type);
    return (bytes + 63) / 64 * 64;
}

struct mpqc_tensor mpqc_replay_tensor(const struct mpqc_replay *r, mpqc_vid v, uint64_t sample)
{
    const struct mpqc_value *value = mpqc_value_at(r->q->g, v);
    struct mpqc_tensor t = {.type = value->type};
    if (value->data) t.data = (void *)(uintptr_t)value->data; /* only read */
    else if (v < r->n_block && r->block[v]) t.data = r->block[v] + sample * bytes_of(r, v);
    return t;
}

static mpqc_status keep(struct mpqc_replay *r, mpqc_vid v)
{
    size_t bytes;
    if (v >= r->n_block) {
        uint32_t n = r->q->g->n_values + 64;
        uint8_t **grown = realloc(r->block, n * sizeof *grown);
        if (!grown) return MPQC_OOM(r->q->cx);
        memset(grown + r->n_block, 0, (n - r->n_block) * sizeof *grown);
        r->block = grown;
        r->n_block = n;
    }
    if (r->block[v] || mpqc_is_const(r->q->g, v)) return MPQC_OK;
    if (!mpqc_size_mul(bytes_of(r, v), r->samples, &bytes)) return MPQC_OOM(r->q->cx);
    r->block[v] = malloc(bytes + 64);
    return r->block[v] ? MPQC_OK : MPQC_OOM(r->q->cx);
}

/* ---- running nodes ---------------------------------------------------------------------- */

static mpqc_status run_node(const struct batch *b, const struct mpqc_node *n, uint64_t sample,
                            void **temporary)
{
    struct mpqc_tensor in[MPQC_MAX_INPUTS], out[MPQC_MAX_OUTPUTS];
    const struct mpqc_tensor *ins[MPQC_MAX_INPUTS];
    struct mpqc_tensor *outs[MPQC_MAX_OUTPUTS];
    for (uint32_t i = 0; i < n->n_in; i++) {
        mpqc_vid v = n->in[i];
        ins[i] = v == MPQC_NONE ? NULL : &in[i];
        if (v == MPQC_NONE) continue;
        in[i] = mpqc_replay_tensor(b->r, v, sample);
        if (!in[i].data && v >= b->first_new) in[i].data = temporary[v - b->first_new];
        MPQC_ASSERT(in[i].data || mpqc_type_count(&in[i].type) == 0);
    }
    for (uint32_t i = 0; i < n->n_out; i++) {
        mpqc_vid v = n->out[i];
        outs[i] = &out[i];
        out[i] = mpqc_replay_tensor(b->r, v, sample);
        if (out[i].data) continue;
        void **t = &temporary[v - b->first_new];
        if (!*t) *t = malloc(bytes_of(b->r, v) + 64);
        if (!*t) return MPQC_NO_MEMORY;
        out[i].data = *t;
    }
    mpqc_ops[n->op].ref(n, ins, outs);
    return MPQC_OK;
}

static mpqc_status run_sample(void *user, unsigned worker, uint64_t sample)
{
    const struct batch *b = user;
    void **temporary = calloc(b->n_new + 1, sizeof *temporary);
    mpqc_status status = temporary ? MPQC_OK : MPQC_NO_MEMORY;
    (void)worker;
    for (uint32_t i = 0; i < b->n && status == MPQC_OK; i++)
        status = run_node(b, mpqc_node_at(b->r->q->g, b->nodes[i]), sample, temporary);
    for (uint32_t i = 0; temporary && i < b->n_new; i++) free(temporary[i]);
    free(temporary);
    return status;
}

static mpqc_status run_batch(struct batch *b)
{
    struct mpqc_cx *cx = b->r->q->cx;
    mpqc_status status = mpqc_for_each(cx->threads, b->r->samples, run_sample, b);
    return status == MPQC_NO_MEMORY ? MPQC_OOM(cx) : status;
}

/* ---- inputs -------------------------------------------------------------------------------- */

static mpqc_status read_sample(void *user, unsigned worker, uint64_t sample)
{
    struct mpqc_replay *r = user;
    const struct mpqc_dataset *data = r->q->p->data;
    const struct mpqc_graph *g = r->q->g;
    void *to[MPQC_MAX_INPUTS];
    (void)worker;
    MPQC_ASSERT(g->n_inputs <= MPQC_MAX_INPUTS);
    for (uint32_t i = 0; i < g->n_inputs; i++)
        to[i] = mpqc_replay_tensor(r, g->inputs[i], sample).data;
    /* spread evenly over the data when memory does not hold all of it */
    uint64_t index = sample * data->count / r->samples;
    pthread_mutex_lock(&r->lock);
    mpqc_status status = data->get(data->user, r->q->cx, index, to);
    pthread_mutex_unlock(&r->lock);
    return status;
}

/* Integer inputs (-io=int): value `made` from the float one. */
static mpqc_status quantise_input(struct mpqc_replay *r, mpqc_vid old, mpqc_vid made)
{
    const struct mpqc_type *t = &mpqc_value_at(r->q->g, made)->type;
    if (made < r->n_block && r->block[made]) return MPQC_OK;
    MPQC_TRY(keep(r, made));
    for (uint64_t s = 0; s < r->samples; s++) {
        const float *x = mpqc_replay_tensor(r, old, s).data;
        uint8_t *to = mpqc_replay_tensor(r, made, s).data;
        for (int64_t i = 0; i < mpqc_type_count(t); i++) {
            float q = rintf(x[i] / t->quant->scale[0]) + (float)t->quant->zero[0];
            to[i] = (uint8_t)fminf(fmaxf(q, 0), 255);
        }
    }
    return MPQC_OK;
}

static mpqc_status integer_inputs(struct mpqc_replay *r)
{
    for (mpqc_vid v = 0; v < r->q->n_values; v++) {
        mpqc_vid made = r->q->as_int[v];
        if (made == MPQC_NONE || v >= r->n_block || !r->block[v]) continue;
        const struct mpqc_value *value = mpqc_value_at(r->q->g, made);
        bool integer = mpqc_dtype_is_byte(value->type.dtype) || value->type.dtype == MPQC_DT_I16;
        if (value->def == MPQC_NONE && !value->data && integer)
            MPQC_TRY(quantise_input(r, v, made));
    }
    return MPQC_OK;
}

/* ---- what lives how long ------------------------------------------------- */

static bool find_ends(struct mpqc_replay *r)
{
    struct mpqc_quantiser *q = r->q;
    r->dies = MPQC_NEW_ARRAY(&q->p->scratch, uint32_t, q->n_values);
    r->position = MPQC_NEW_ARRAY(&q->p->scratch, uint32_t, q->g->n_nodes);
    if (!r->dies || !r->position) return false;
    for (uint32_t i = 0; i < r->n_order; i++) r->position[r->order[i]] = i;
    for (uint32_t i = 0; i < r->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(q->g, r->order[i]);
        uint32_t c = q->clusters.of_node[r->order[i]];
        uint32_t at = c == MPQC_NONE ? i : r->position[q->clusters.c[c].last];
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != MPQC_NONE && r->dies[n->in[k]] < at) r->dies[n->in[k]] = at;
        for (uint32_t k = 0; k < n->n_out; k++)
            if (r->dies[n->out[k]] < at) r->dies[n->out[k]] = at;
    }
    return true;
}

/* How many samples MEMORY holds: floats and bytes of every old value while it lives. */
static uint64_t affordable(const struct mpqc_replay *r)
{
    struct mpqc_quantiser *q = r->q;
    size_t peak = 1;
    for (uint32_t i = 0; i < r->n_order; i++) {
        size_t live = 0;
        for (mpqc_vid v = 0; v < q->n_values; v++) {
            const struct mpqc_value *value = mpqc_value_at(q->g, v);
            uint32_t born = value->def == MPQC_NONE ? 0 : r->position[value->def];
            if (value->data || born > i || r->dies[v] < i) continue;
            live += bytes_of(r, v) / 4 * 5;
        }
        if (live > peak) peak = live;
    }
    uint64_t n = MEMORY / peak, count = q->p->data->count;
    if (n < FEWEST_SAMPLES) n = FEWEST_SAMPLES;
    return n < count ? n : count;
}

/* Conversions are shared by clusters, whichever comes. */
static bool is_converted(const struct mpqc_quantiser *q, mpqc_vid v)
{
    for (uint32_t i = 0; i < q->n_converted; i++)
        if (q->converted[i].to == v) return true;
    return false;
}

/* Frees new values that nobody reads at position `now` or later, except `also`. */
static void forget_new(struct mpqc_replay *r, uint32_t now, mpqc_vid also)
{
    struct mpqc_quantiser *q = r->q;
    for (mpqc_vid v = q->n_values; v < r->n_block; v++) {
        bool needed = v == also || is_converted(q, v);
        for (mpqc_vid o = 0; r->block[v] && o < q->n_values && !needed; o++)
            needed = r->dies[o] >= now && (q->as_int[o] == v || q->as_float[o] == v);
        if (needed) continue;
        free(r->block[v]);
        r->block[v] = NULL;
    }
}

static void forget_old(struct mpqc_replay *r, uint32_t now)
{
    for (mpqc_vid v = 0; v < r->q->n_values && v < r->n_block; v++) {
        if (r->dies[v] >= now) continue;
        free(r->block[v]);
        r->block[v] = NULL;
    }
}

/* ---- the walk ------------------------------------------------- */

static mpqc_status run_floats(struct mpqc_replay *r, uint32_t to)
{
    for (; r->float_done < to; r->float_done++) {
        const mpqc_nid id = r->order[r->float_done];
        const struct mpqc_node *n = mpqc_node_at(r->q->g, id);
        for (uint32_t k = 0; k < n->n_out; k++) MPQC_TRY(keep(r, n->out[k]));
        struct batch b = {.r = r, .n = 1, .nodes = &id};
        MPQC_TRY(run_batch(&b));
        forget_old(r, r->float_done);
    }
    return MPQC_OK;
}

static bool is_new(const struct mpqc_replay *r, mpqc_vid v, mpqc_vid first_new)
{
    return v != MPQC_NONE && v >= first_new && mpqc_value_at(r->q->g, v)->def != MPQC_NONE;
}

static mpqc_status run_new(struct mpqc_replay *r, uint32_t now, mpqc_vid also)
{
    struct mpqc_quantiser *q = r->q;
    uint32_t n = q->g->n_nodes - r->new_done, count = 0;
    if (n == 0) return MPQC_OK;
    mpqc_nid *nodes = MPQC_NEW_ARRAY(&q->p->scratch, mpqc_nid, n);
    if (!nodes) return MPQC_OOM(q->cx);
    for (; r->new_done < q->g->n_nodes; r->new_done++) {
        const struct mpqc_node *made = mpqc_node_at(q->g, r->new_done);
        if (made->n_out > 0 && !made->dead) nodes[count++] = r->new_done;
    }
    struct batch b = {.r = r, .n = count, .nodes = nodes, .first_new = MPQC_NONE};
    if (count == 0) return MPQC_OK;
    b.first_new = mpqc_node_at(q->g, nodes[0])->out[0];
    b.n_new = q->g->n_values - b.first_new;
    for (mpqc_vid v = 0; v < q->n_values; v++) {
        if (r->dies[v] < now) continue;
        if (is_new(r, q->as_int[v], b.first_new)) MPQC_TRY(keep(r, q->as_int[v]));
        if (is_new(r, q->as_float[v], b.first_new)) MPQC_TRY(keep(r, q->as_float[v]));
    }
    for (uint32_t i = 0; i < q->n_converted; i++)
        if (is_new(r, q->converted[i].to, b.first_new)) MPQC_TRY(keep(r, q->converted[i].to));
    if (is_new(r, also, b.first_new)) MPQC_TRY(keep(r, also));
    return run_batch(&b);
}

mpqc_status mpqc_replay_to(struct mpqc_replay *r, const struct mpqc_cluster *c, mpqc_vid also)
{
    uint32_t now = r->position[c->last];
    MPQC_TRY(integer_inputs(r));
    MPQC_TRY(run_new(r, now, also));
    MPQC_TRY(run_floats(r, r->position[mpqc_value_at(r->q->g, c->sum)->def] + 1));
    forget_new(r, now, also);
    return MPQC_OK;
}

static mpqc_status begin(struct mpqc_replay *r)
{
    struct mpqc_quantiser *q = r->q;
    r->order = mpqc_arena_copy(&q->p->scratch, q->g->order, q->g->n_order * sizeof *r->order);
    r->n_order = q->g->n_order;
    r->new_done = q->g->n_nodes;
    if (!r->order || !find_ends(r)) return MPQC_OOM(q->cx);
    r->samples = affordable(r);
    for (uint32_t i = 0; i < q->g->n_inputs; i++) MPQC_TRY(keep(r, q->g->inputs[i]));
    return mpqc_for_each(q->cx->threads, r->samples, read_sample, r);
}

mpqc_status mpqc_replay_begin(struct mpqc_quantiser *q, struct mpqc_replay **out)
{
    struct mpqc_replay *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return MPQC_OOM(q->cx);
    r->q = q;
    pthread_mutex_init(&r->lock, NULL);
    mpqc_status status = begin(r);
    if (status == MPQC_OK) *out = r;
    else mpqc_replay_end(r);
    return status;
}

void mpqc_replay_end(struct mpqc_replay *r)
{
    if (!r) return;
    for (uint32_t v = 0; v < r->n_block; v++) free(r->block[v]);
    free(r->block);
    pthread_mutex_destroy(&r->lock);
    free(r);
}
