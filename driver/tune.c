/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "driver/tune.h"

#include "codegen/target.h"
#include "driver/cli.h"
#include "driver/latency_cache.h"
#include "driver/layer_times.h"

#include <float.h>

#define ROUNDS 4 /* runs of the program per library */
#define OTHERWISE "leave out -tune-kernels"
/* A tile must be so much faster than the cost model's: else noise would choose. */
#define WORTH 0.99

struct tuner {
    const struct mpqc_tune_job *j;
    struct mpqc_tuning *out;
    struct mpqc_latency_cache *cache;
    const char *command;
    char folder[MPQC_TEMPORARY_PATH]; /* of the libraries; removed at the end */
    uint32_t n;      /* ranks */
    char *library[MPQC_MAX_TILE_RANK];
    struct mpqc_tile_facts *facts[MPQC_MAX_TILE_RANK];
    double *ns[MPQC_MAX_TILE_RANK]; /* [kernel] */
};

/* ---- shapes ---- */

static struct mpqc_tuned_shape *find(const struct mpqc_tuning *t, uint64_t shape)
{
    for (uint32_t i = 0; i < t->n_shapes; i++)
        if (t->shape[i].shape == shape) return &t->shape[i];
    return NULL;
}

const struct mpqc_tuned_shape *mpqc_tuned_of(const struct mpqc_tuning *t, uint32_t kernel)
{
    return t->usual[kernel].shape ? find(t, t->usual[kernel].shape) : NULL;
}

static uint32_t wish(const void *user, uint64_t shape)
{
    const struct mpqc_tuned_shape *s = find(user, shape);
    return s && s->known ? s->tile : 0;
}

/* Everything that a time depends on, as text, hashed. */
static uint64_t key_of(const struct tuner *u, uint64_t shape)
{
    char text[256];
    snprintf(text, sizeof text, "tile %016llx %s %s %u", (unsigned long long)shape,
             u->j->target->name, MPQC_VERSION, u->n);
    return mpqc_latency_hash(mpqc_latency_hash(0, text), u->command);
}

static void list_shapes(struct tuner *u)
{
    struct mpqc_tuning *t = u->out;
    for (uint32_t k = 0; k < t->n_kernels; k++) {
        const struct mpqc_tile_facts *f = &t->usual[k];
        struct mpqc_tuned_shape *s = f->shape ? find(t, f->shape) : NULL;
        if (s) s->kernels++;
        if (s || !f->shape) continue;
        const struct mpqc_node *core = mpqc_node_at(u->j->graph, u->j->plan->kernels[k].core);
        t->shape[t->n_shapes++] = (struct mpqc_tuned_shape){
            .shape = f->shape, .key = key_of(u, f->shape), .tile = f->tile, .usual = f->tile,
            .kernels = 1, .name = core->loc.node ? core->loc.node : mpqc_ops[core->op].text};
    }
}

/* The fastest of the cache's tiles; false when nothing is known. */
static bool choose(const struct tuner *u, struct mpqc_tuned_shape *s)
{
    double best;
    unsigned tile;
    if (!mpqc_latency_best(u->cache, s->key, &tile, &best) ||
        !mpqc_latency_find(u->cache, s->key, s->usual, &s->usual_ns))
        return false;
    bool better = best < WORTH * s->usual_ns;
    s->tile = better ? tile : s->usual;
    s->ns = better ? best : s->usual_ns;
    return true;
}

/* ---- libraries ---- */

static mpqc_status compile(struct tuner *u, uint32_t rank)
{
    const struct mpqc_tune_job *j = u->j;
    struct mpqc_arena *keep = &j->cx->arena;
    struct mpqc_codegen_facts facts;
    uint32_t n = u->out->n_kernels;
    u->library[rank] = mpqc_arena_printf(keep, "%s/%u.so", u->folder, rank);
    u->facts[rank] = MPQC_NEW_ARRAY(keep, struct mpqc_tile_facts, n);
    u->ns[rank] = MPQC_NEW_ARRAY(keep, double, n);
    struct mpqc_preprocess *none =
        MPQC_NEW_ARRAY(keep, struct mpqc_preprocess, j->graph->n_inputs + 1);
    if (!u->library[rank] || !u->facts[rank] || !u->ns[rank] || !none) return MPQC_OOM(j->cx);
    for (uint32_t k = 0; k < n; k++) u->ns[rank][k] = DBL_MAX;
    struct mpqc_tile_request tiles = {.wish = wish, .user = u->out, .rank = rank,
                                      .facts = u->facts[rank]};
    struct mpqc_codegen_request rq = {.graph = j->graph, .plan = j->plan, .target = j->target,
                                      .preprocess = none, .emit = MPQC_EMIT_SO,
                                      .path = u->library[rank], .tiles = &tiles};
    mpqc_cx_progress(j->cx, "tune kernels: compile", rank, u->n);
    return mpqc_codegen_emit(j->cx, &rq, &facts);
}

static void to_cache(struct tuner *u)
{
    for (uint32_t i = 0; i < u->out->n_shapes; i++) {
        const struct mpqc_tuned_shape *s = &u->out->shape[i];
        for (uint32_t r = 0; r < u->n && !s->known; r++) {
            double ns = 0;
            uint32_t tile = 0;
            for (uint32_t k = 0; k < u->out->n_kernels; k++) {
                if (u->facts[r][k].shape != s->shape) continue;
                tile = u->facts[r][k].tile;
                ns += u->ns[r][k];
            }
            if (tile) mpqc_latency_add(u->cache, s->key, tile, ns / s->kernels);
        }
    }
}

/* The libraries take turns, so that a change of the clock rate meets them all. */
static mpqc_status measure(struct tuner *u)
{
    MPQC_TRY(mpqc_times_possible(u->j->cx, u->j->cli->mixed.measure, u->j->target,
                                 "-tune-kernels", OTHERWISE));
    for (uint32_t r = 1; r < u->n; r++) MPQC_TRY(compile(u, r));
    for (uint32_t i = 0; i < ROUNDS * u->n; i++) {
        uint32_t r = i % u->n;
        mpqc_cx_progress(u->j->cx, "tune kernels: measure", i, ROUNDS * u->n);
        MPQC_TRY(mpqc_times_measure(u->j->cx, u->command, OTHERWISE, u->library[r],
                                    u->out->n_kernels, u->ns[r]));
    }
    to_cache(u);
    return MPQC_OK;
}

/* ---- the whole ---- */

static mpqc_status tune(struct tuner *u)
{
    struct mpqc_tuning *t = u->out;
    bool all = true;
    MPQC_TRY(compile(u, 0));
    memcpy(t->usual, u->facts[0], t->n_kernels * sizeof *t->usual);
    list_shapes(u);
    for (uint32_t i = 0; i < t->n_shapes; i++) {
        t->shape[i].known = choose(u, &t->shape[i]);
        all = all && t->shape[i].known;
    }
    if (!all) MPQC_TRY(measure(u));
    for (uint32_t i = 0; i < t->n_shapes; i++) {
        if (!choose(u, &t->shape[i])) t->shape[i].ns = t->shape[i].usual_ns = 0;
        t->shape[i].known = true;
    }
    t->request = (struct mpqc_tile_request){.wish = wish, .user = t};
    return MPQC_OK;
}

static double macs_of(const struct mpqc_tune_job *j)
{
    double macs = 0;
    for (uint32_t k = 0; k < j->plan->n_kernels; k++) {
        const struct mpqc_node *core = mpqc_node_at(j->graph, j->plan->kernels[k].core);
        macs += (double)mpqc_ops[core->op].macs(j->graph, core);
    }
    return macs;
}

mpqc_status mpqc_tune(const struct mpqc_tune_job *j, struct mpqc_tuning *out)
{
    const struct mpqc_cli *cli = j->cli;
    struct tuner u = {.j = j, .out = out, .n = cli->tune_kernels};
    uint32_t n = j->plan->n_kernels;
    *out = (struct mpqc_tuning){.n_kernels = n};
    out->usual = MPQC_NEW_ARRAY(&j->cx->arena, struct mpqc_tile_facts, n);
    out->shape = MPQC_NEW_ARRAY(&j->cx->arena, struct mpqc_tuned_shape, n);
    if (!out->usual || !out->shape) return MPQC_OOM(j->cx);
    MPQC_TRY(mpqc_times_command(j->cx, cli->mixed.measure, macs_of(j), OTHERWISE, &u.command));
    MPQC_TRY(mpqc_folder_make(j->cx, u.folder));
    mpqc_status status = mpqc_latency_open(j->cx, cli->tune_cache, "tiles", &u.cache);
    if (status == MPQC_OK) status = tune(&u);
    mpqc_latency_close(u.cache);
    mpqc_temporary_remove(u.folder);
    return status;
}

/* ---- what is said about it ---- */

void mpqc_tune_print(const struct mpqc_tuning *t, bool verbose)
{
    double before = 0, after = 0;
    uint32_t changed = 0;
    char text[2][MPQC_TILE_TEXT];
    if (verbose) printf("%-40s %8s %12s %12s %12s %12s\n", "tiles", "kernels", "usual", "us",
                        "tuned", "us");
    for (uint32_t i = 0; i < t->n_shapes; i++) {
        const struct mpqc_tuned_shape *s = &t->shape[i];
        before += s->kernels * s->usual_ns;
        after += s->kernels * s->ns;
        changed += s->tile != s->usual;
        if (verbose)
            printf("%-40.40s %8u %12s %12.3f %12s %12.3f\n", s->name, s->kernels,
                   mpqc_tile_text(s->usual, text[0]), s->usual_ns / 1e3,
                   mpqc_tile_text(s->tile, text[1]), s->ns / 1e3);
    }
    printf("tiles     %u of %u shapes changed: %.2f -> %.2f us in kernels with tiles (%.2f %% less)\n",
           changed, t->n_shapes, before / 1e3, after / 1e3,
           before > 0 ? 100 * (before - after) / before : 0);
}
