/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * -cost=measured: latencies from the chip (OHQ, Huang et al., 2023).
 *
 * The network is compiled once per number of weight bits, the same for every layer
 * that may have them, and the library is run by mpqc-run -profile: on this machine, under
 * qemu, or by a command of the user's.  So a layer is timed with its own epilogue, in
 * the caches that its neighbours leave behind, and the sum over the layers is the time
 * of the network.  Activations of up to 8 bits are kept in bytes, so weight bits and
 * whether inputs have 16 bits, or so few that bits are counted, tell kernels apart.
 *
 * Of several runs of the program each layer's least time counts: what disturbs a
 * measurement only ever adds to it.  What was measured goes to a cache, keyed by the
 * layer's shape, the target, the compiler's version and the way of measuring.
 */
#include "driver/cli.h"
#include "driver/latency_cache.h"
#include "driver/layer_times.h"
#include "ir/text.h"

#include <float.h>
#include <unistd.h>

#define PROCESSES 5 /* runs of the program per library */
#define OTHERWISE "-cost=analytic"

struct measurement {
    struct mpqc_mixed_job *j;
    char folder[MPQC_TEMPORARY_PATH]; /* of the libraries; removed at the end */
    char *library;
    const char *command; /* shell text; the library's path is appended */
    struct mpqc_latency_cache *cache;
    uint64_t *key;      /* [layer]: of its shape */
    double *ns;         /* [layer]: least time so far */
    double rest;        /* of all other kernels, least sum so far */
};

/* ---- one library: the same kind of kernel everywhere ---- */

/* Choices with equal kinds have the same kernels: the number of weight bits, and a hundred
 * more for every bit of inputs that have kernels of their own. */
static unsigned kind_of(uint32_t c)
{
    unsigned own = mpqc_choice_special(c) ? mpqc_choices[c].activation_bits : 0;
    return mpqc_choices[c].weight_bits + 100 * own;
}

static void uniform_plan(const struct mpqc_bits *b, unsigned kind, uint32_t *chosen)
{
    for (uint32_t l = 0; l < b->n_layers; l++) {
        chosen[l] = mpqc_choice_plain();
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            bool may = b->allowed[(size_t)l * mpqc_n_choices + c] ||
                       b->layer[l].pinned == (int32_t)c;
            bool usual = mpqc_choices[c].activation_bits == 8;
            bool other = mpqc_choice_special(c);
            if (may && kind_of(c) == kind && (usual || other)) chosen[l] = c;
        }
    }
}

/* Does any layer ask for it?  All kinds with 8-bit inputs are. */
static bool wanted(const struct mpqc_bits *b, uint32_t c)
{
    bool some = !mpqc_choice_special(c);
    for (uint32_t l = 0; l < b->n_layers; l++)
        some = some || b->allowed[(size_t)l * mpqc_n_choices + c] ||
               b->layer[l].pinned == (int32_t)c;
    return some;
}

static const char *const passes[] = {"quantise", "fuse", "plan"};

static mpqc_status compile(struct measurement *m, struct mpqc_pass_cx *p, struct mpqc_graph *g)
{
    struct mpqc_mixed_job *j = m->j;
    struct mpqc_codegen_facts facts;
    bool stopped;
    MPQC_TRY(mpqc_graph_clone(j->cx, j->graph, g, &p->scratch, NULL));
    MPQC_TRY(mpqc_pipeline_run(p, g, passes, MPQC_LEN(passes), &stopped));
    struct mpqc_preprocess *none = MPQC_NEW_ARRAY(&p->keep, struct mpqc_preprocess, g->n_inputs + 1);
    if (!none) return MPQC_OOM(j->cx);
    struct mpqc_codegen_request rq = {.graph = g, .plan = p->plan, .target = j->target,
                                      .preprocess = none, .emit = MPQC_EMIT_SO, .path = m->library};
    return mpqc_codegen_emit(j->cx, &rq, &facts);
}

/* ---- running it ---- */

/* The layer whose core kernel k is, or n_layers. */
static uint32_t layer_of(const struct mpqc_bits *b, const struct mpqc_graph *g,
                         const struct mpqc_kernel *k)
{
    const struct mpqc_node *core = mpqc_node_at(g, k->core);
    uint32_t l = 0;
    if (!(mpqc_ops[core->op].traits & MPQC_T_LINEAR)) return b->n_layers;
    while (l < b->n_layers && strcmp(b->layer[l].name, core->loc.node) != 0) l++;
    return l;
}

/* Each kernel's least time of several runs, to the layers and the rest. */
static mpqc_status run_library(struct measurement *m, const struct mpqc_graph *g,
                               const struct mpqc_plan *plan)
{
    struct mpqc_bits *b = &m->j->out->bits;
    double rest = 0, *ns = MPQC_NEW_ARRAY(&m->j->passes->keep, double, plan->n_kernels);
    if (!ns) return MPQC_OOM(m->j->cx);
    for (uint32_t i = 0; i < plan->n_kernels; i++) ns[i] = DBL_MAX;
    for (int i = 0; i < PROCESSES; i++)
        MPQC_TRY(mpqc_times_measure(m->j->cx, m->command, OTHERWISE, m->library, plan->n_kernels,
                                    ns));
    for (uint32_t i = 0; i < plan->n_kernels; i++) {
        uint32_t l = layer_of(b, g, &plan->kernels[i]);
        if (l == b->n_layers) rest += ns[i];
        else if (ns[i] < m->ns[l]) m->ns[l] = ns[i];
    }
    if (rest < m->rest) m->rest = rest;
    return MPQC_OK;
}

static mpqc_status measure_kind(struct measurement *m, unsigned kind)
{
    struct mpqc_mixed_job *j = m->j;
    struct mpqc_bits uniform = j->out->bits;
    struct mpqc_options options;
    struct mpqc_pass_cx p;
    struct mpqc_graph g;
    mpqc_options_init(&options); /* times do not depend on how weights are rounded */
    options.allow_float = j->cli->options.allow_float;
    options.rounding = MPQC_ROUND_NEAREST;
    options.weight_clip = MPQC_CLIP_MINMAX;
    options.group_size = j->cli->options.group_size;
    options.bias_correct = false;
    uniform.chosen = MPQC_NEW_ARRAY(&j->passes->keep, uint32_t, uniform.n_layers);
    if (!uniform.chosen) return MPQC_OOM(j->cx);
    uniform_plan(&uniform, kind, uniform.chosen);
    for (uint32_t l = 0; l < uniform.n_layers; l++) m->ns[l] = DBL_MAX;
    mpqc_pass_cx_init(&p, j->cx, &options);
    p.engine = j->passes->engine;
    p.data = j->passes->data;
    p.profile = j->passes->profile;
    p.bits = &uniform;
    int verbose = j->cx->verbose;
    j->cx->verbose = 0;
    mpqc_graph_init(&g, j->cx->allocator);
    mpqc_status status = compile(m, &p, &g);
    if (status == MPQC_OK) status = run_library(m, &g, p.plan);
    unlink(m->library);
    mpqc_graph_release(&g);
    mpqc_pass_cx_release(&p);
    j->cx->verbose = verbose;
    return status;
}

/* ---- keys of the cache ---- */

/* Everything that the time of a layer depends on, as text, hashed. */
static mpqc_status layer_keys(struct measurement *m)
{
    struct mpqc_mixed_job *j = m->j;
    struct mpqc_bits *b = &j->out->bits;
    m->key = MPQC_NEW_ARRAY(&j->passes->keep, uint64_t, b->n_layers + 1);
    if (!m->key) return MPQC_OOM(j->cx);
    uint64_t all = mpqc_latency_hash(0, j->target->name);
    all = mpqc_latency_hash(all, MPQC_VERSION);
    all = mpqc_latency_hash(all, m->command);
    m->key[b->n_layers] = all;
    for (uint32_t l = 0; l < b->n_layers; l++) {
        const struct mpqc_node *n = mpqc_node_at(j->graph, b->layer[l].node);
        struct mpqc_buf text;
        mpqc_buf_init(&text);
        mpqc_buf_printf(&text, "%s", mpqc_ops[n->op].text);
        if (b->layer[l].group)
            mpqc_buf_printf(&text, " group=%lld", (long long)b->layer[l].group);
        for (uint32_t i = 0; i < n->n_in; i++)
            if (n->in[i] != MPQC_NONE)
                mpqc_type_print(&mpqc_value_at(j->graph, n->in[i])->type, &text, false);
        for (uint32_t a = 0; a < n->n_attr; a++)
            for (uint32_t i = 0; i <= n->attr[a].count; i++)
                mpqc_buf_printf(&text, " %d:%lld", (int)n->attr[a].key,
                                (long long)(i < n->attr[a].count ? n->attr[a].ints[i] : n->attr[a].i));
        bool failed = text.failed;
        if (!failed) m->key[l] = mpqc_latency_hash(all, text.data);
        /* the rest of the network is told by all its layers */
        m->key[b->n_layers] = mpqc_latency_hash(m->key[b->n_layers], failed ? "" : text.data);
        mpqc_buf_release(&text);
        if (failed) return MPQC_OOM(j->cx);
    }
    return MPQC_OK;
}

static bool from_cache(struct measurement *m, unsigned kind)
{
    uint32_t n = m->j->out->bits.n_layers;
    for (uint32_t l = 0; l < n; l++)
        if (!mpqc_latency_find(m->cache, m->key[l], kind, &m->ns[l])) return false;
    double rest;
    if (!mpqc_latency_find(m->cache, m->key[n], kind, &rest)) return false;
    if (rest < m->rest) m->rest = rest;
    return true;
}

static void to_cache(struct measurement *m, unsigned kind)
{
    uint32_t n = m->j->out->bits.n_layers;
    for (uint32_t l = 0; l < n; l++)
        if (m->ns[l] < DBL_MAX) mpqc_latency_add(m->cache, m->key[l], kind, m->ns[l]);
    mpqc_latency_add(m->cache, m->key[n], kind, m->rest);
}

/* ---- the whole ---- */

static mpqc_status choose_command(struct measurement *m)
{
    struct mpqc_mixed_job *j = m->j;
    double macs = 0;
    for (uint32_t l = 0; l < j->out->bits.n_layers; l++) macs += (double)j->out->bits.layer[l].macs;
    return mpqc_times_command(j->cx, j->cli->mixed.measure, macs, OTHERWISE, &m->command);
}

static void fill(struct measurement *m, unsigned kind)
{
    struct mpqc_bits *b = &m->j->out->bits;
    for (uint32_t l = 0; l < b->n_layers; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            if (kind_of(c) == kind && m->ns[l] < DBL_MAX)
                b->latency[(size_t)l * mpqc_n_choices + c] = m->ns[l];
}

/* Each kind once, in the order of the table. */
static mpqc_status measure_all(struct measurement *m)
{
    struct mpqc_mixed_job *j = m->j;
    for (uint32_t c = 0; c < mpqc_n_choices; c++) {
        unsigned kind = kind_of(c);
        bool done = !wanted(&j->out->bits, c);
        for (uint32_t d = 0; d < c; d++) done = done || kind_of(d) == kind;
        if (done) continue;
        mpqc_cx_progress(j->cx, "measure latencies", c, mpqc_n_choices);
        if (!from_cache(m, kind)) {
            MPQC_TRY(mpqc_times_possible(j->cx, j->cli->mixed.measure, j->target,
                                         "-cost=measured", OTHERWISE));
            MPQC_TRY(measure_kind(m, kind));
            to_cache(m, kind);
        }
        fill(m, kind);
    }
    j->out->rest_ns = m->rest;
    return MPQC_OK;
}

mpqc_status mpqc_mixed_measure(struct mpqc_mixed_job *j)
{
    struct measurement m = {.j = j, .rest = DBL_MAX};
    MPQC_TRY(choose_command(&m));
    MPQC_TRY(layer_keys(&m));
    MPQC_TRY(mpqc_folder_make(j->cx, m.folder));
    m.library = mpqc_arena_printf(&j->cx->arena, "%s/bench.so", m.folder);
    m.ns = MPQC_NEW_ARRAY(&j->passes->keep, double, j->out->bits.n_layers);
    mpqc_status status = m.library && m.ns ? MPQC_OK : MPQC_OOM(j->cx);
    if (status == MPQC_OK) status = mpqc_latency_open(j->cx, j->cli->mixed.latency_cache, "latency", &m.cache);
    if (status == MPQC_OK) status = measure_all(&m);
    /* kept even after a failure: what was measured is true */
    mpqc_latency_close(m.cache);
    mpqc_temporary_remove(m.folder);
    return status;
}
