/* SPDX-License-Identifier: GPL-3.0-or-later
 * Samples in parallel, graphs that run, random numbers; see samples.h.
 */
#include "passes/sensitivity/samples.h"

#include <math.h>

/* ---- the pool ---- */

static mpqc_status open_worker(struct mpqc_sens_pool *p, struct mpqc_sens_worker *w)
{
    const struct mpqc_graph *g = p->s->g;
    w->pool = p;
    mpqc_arena_init(&w->arena, p->s->p->cx->allocator);
    p->n_workers++;
    w->inputs = MPQC_NEW_ARRAY(&w->arena, void *, g->n_inputs);
    w->state = mpqc_arena_alloc(&w->arena, p->task->state_bytes);
    if (w->arena.failed) return MPQC_OOM(p->s->p->cx);
    for (uint32_t i = 0; i < g->n_inputs; i++)
        w->inputs[i] = mpqc_arena_alloc(&w->arena, mpqc_type_bytes(&g->values[g->inputs[i]].type));
    if (w->arena.failed) return MPQC_OOM(p->s->p->cx);
    return p->task->open(w);
}

mpqc_status mpqc_sens_pool_open(struct mpqc_sens_pool *p)
{
    struct mpqc_cx *cx = p->s->p->cx;
    uint64_t threads = cx->threads < 1 ? 1 : cx->threads;
    if (threads > p->n_items) threads = p->n_items;
    mpqc_arena_init(&p->arena, cx->allocator);
    pthread_mutex_init(&p->lock, NULL);
    p->n_workers = 0;
    p->done = 0;
    size_t cells;
    if (!mpqc_size_mul((size_t)p->n_items, (size_t)p->n_figures, &cells)) return MPQC_OOM(cx);
    p->figures = MPQC_NEW_ARRAY(&p->arena, double, cells);
    p->workers = MPQC_NEW_ARRAY(&p->arena, struct mpqc_sens_worker, (size_t)threads);
    if (p->arena.failed) return MPQC_OOM(cx);
    for (uint64_t i = 0; i < threads; i++) MPQC_TRY(open_worker(p, &p->workers[i]));
    return MPQC_OK;
}

void mpqc_sens_pool_close(struct mpqc_sens_pool *p)
{
    for (unsigned i = 0; i < p->n_workers; i++) {
        if (p->workers[i].state) p->task->close(&p->workers[i]);
        mpqc_arena_release(&p->workers[i].arena);
    }
    pthread_mutex_destroy(&p->lock);
    mpqc_arena_release(&p->arena);
}

static mpqc_status do_item(void *user, unsigned worker, uint64_t index)
{
    struct mpqc_sens_pool *p = user;
    MPQC_TRY(p->task->work(&p->workers[worker], index, p->figures + index * p->n_figures));
    uint64_t done = __atomic_add_fetch(&p->done, 1, __ATOMIC_RELAXED);
    if (p->stage) mpqc_cx_progress(p->s->p->cx, p->stage, done, p->total);
    return MPQC_OK;
}

mpqc_status mpqc_sens_pool_run(struct mpqc_sens_pool *p)
{
    memset(p->figures, 0, (size_t)(p->n_items * p->n_figures) * sizeof *p->figures);
    return mpqc_for_each(p->n_workers, p->n_items, do_item, p);
}

void mpqc_sens_pool_sums(const struct mpqc_sens_pool *p, double *sums)
{
    for (uint64_t k = 0; k < p->n_figures; k++) sums[k] = 0;
    for (uint64_t i = 0; i < p->n_items; i++)
        for (uint64_t k = 0; k < p->n_figures; k++) sums[k] += p->figures[i * p->n_figures + k];
}

mpqc_status mpqc_sens_read(struct mpqc_sens_worker *w, uint64_t index)
{
    const struct mpqc_dataset *data = w->pool->s->p->data;
    pthread_mutex_lock(&w->pool->lock);
    mpqc_status status = data->get(data->user, w->pool->s->p->cx, index, w->inputs);
    pthread_mutex_unlock(&w->pool->lock);
    return status;
}

double mpqc_sens_macs(const struct mpqc_sens_cx *s)
{
    double macs = 1;
    for (uint32_t l = 0; l < s->bits->n_layers; l++) macs += (double)s->bits->layer[l].macs;
    return macs;
}

uint64_t mpqc_sens_count(const struct mpqc_sens_cx *s, double macs, double budget, uint64_t least,
                         uint64_t most)
{
    double wanted = fmin(fmax(budget / macs, (double)least), (double)most);
    uint64_t n = s->samples ? s->samples : (uint64_t)wanted;
    return n < s->p->data->count ? n : s->p->data->count;
}

/* ---- graphs that run ---- */

mpqc_status mpqc_sens_run_open(struct mpqc_sens_worker *w, const struct mpqc_graph *g,
                               struct mpqc_sens_run *r)
{
    struct mpqc_pass_cx *p = w->pool->s->p;
    *r = (struct mpqc_sens_run){.g = g, .engine = p->engine};
    r->in = MPQC_NEW_ARRAY(&w->arena, const void *, g->n_inputs);
    r->out = MPQC_NEW_ARRAY(&w->arena, void *, g->n_outputs);
    if (w->arena.failed) return MPQC_OOM(p->cx);
    for (uint32_t i = 0; i < g->n_outputs; i++)
        r->out[i] = mpqc_arena_alloc(&w->arena, mpqc_type_bytes(&g->values[g->outputs[i]].type));
    if (w->arena.failed) return MPQC_OOM(p->cx);
    return g->n_order ? p->engine->prepare(p->cx, g, &r->runner) : MPQC_OK;
}

/* Without nodes the outputs are inputs or constants. */
static void copy_outputs(const struct mpqc_sens_run *r)
{
    const struct mpqc_graph *g = r->g;
    for (uint32_t o = 0; o < g->n_outputs; o++) {
        const struct mpqc_value *v = &g->values[g->outputs[o]];
        const void *from = v->data;
        for (uint32_t i = 0; i < g->n_inputs; i++)
            if (g->inputs[i] == g->outputs[o]) from = r->in[i];
        memcpy(r->out[o], from, mpqc_type_bytes(&v->type));
    }
}

mpqc_status mpqc_sens_run(struct mpqc_sens_run *r)
{
    if (r->runner) return r->engine->run(r->runner, r->in, r->out, NULL, NULL);
    copy_outputs(r);
    return MPQC_OK;
}

void mpqc_sens_run_close(struct mpqc_sens_run *r)
{
    if (r->runner) r->engine->release(r->runner);
    r->runner = NULL;
}

/* ---- random numbers: splitmix64 (Steele, Lea, Flood, 2014) ---- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t mpqc_sens_rng_bits(struct mpqc_sens_rng *r)
{
    r->state += 0x9e3779b97f4a7c15u;
    return mix(r->state);
}

struct mpqc_sens_rng mpqc_sens_rng_make(uint64_t seed, uint64_t a, uint64_t b, uint64_t c)
{
    struct mpqc_sens_rng r = {seed};
    r.state = mpqc_sens_rng_bits(&r) ^ a;
    r.state = mpqc_sens_rng_bits(&r) ^ b;
    r.state = mpqc_sens_rng_bits(&r) ^ c;
    r.state = mpqc_sens_rng_bits(&r);
    return r;
}

double mpqc_sens_rng_unit(struct mpqc_sens_rng *r)
{
    return (double)(mpqc_sens_rng_bits(r) >> 11) * 0x1p-53;
}

double mpqc_sens_rng_normal(struct mpqc_sens_rng *r) /* Box and Muller, 1958 */
{
    double u = 1 - mpqc_sens_rng_unit(r), v = mpqc_sens_rng_unit(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* A sign is the top bit of a float. */
void mpqc_sens_rng_signs(struct mpqc_sens_rng *r, float *v, int64_t n)
{
    union {
        uint32_t u;
        float f;
    } x;
    for (int64_t i = 0; i < n; i += 64) {
        uint64_t bits = mpqc_sens_rng_bits(r);
        int64_t end = n - i < 64 ? n - i : 64;
        for (int64_t k = 0; k < end; k++, bits <<= 1) {
            x.u = 0x3f800000u | ((uint32_t)(bits >> 32) & 0x80000000u);
            v[i + k] = x.f;
        }
    }
}
