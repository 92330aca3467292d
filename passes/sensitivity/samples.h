/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * For metrics: work on samples, and graphs cut out of the network.
 *
 * Determinism.  Each sample's figures are kept apart and added up in order, and random
 * numbers are functions of seed, round and sample, so results do not depend on the
 * number of threads.  Memory is what one sample takes, times threads, plus the figures.
 */
#ifndef MPQC_PASSES_SENSITIVITY_SAMPLES_H
#define MPQC_PASSES_SENSITIVITY_SAMPLES_H

#include "ir/loss.h"
#include "passes/sensitivity/sensitivity.h"

#include <pthread.h>

/* ---- samples in parallel ---- */

struct mpqc_sens_pool;

/* One thread's share: `inputs` are buffers for one sample, `state` is the task's. */
struct mpqc_sens_worker {
    struct mpqc_sens_pool *pool;
    struct mpqc_arena arena;
    void **inputs;
    void *state;
};

/* open and close bracket the life of a worker; close must bear a state that open left
 * half-done.  `work` does item `index` and fills figures[pool->n_figures], zeroed. */
struct mpqc_sens_task {
    size_t state_bytes;
    mpqc_status (*open)(struct mpqc_sens_worker *w);
    mpqc_status (*work)(struct mpqc_sens_worker *w, uint64_t index, double *figures);
    void (*close)(struct mpqc_sens_worker *w);
};

struct mpqc_sens_pool {
    struct mpqc_sens_cx *s;
    const struct mpqc_sens_task *task;
    const void *user;       /* what the task knows */
    const char *stage;      /* of the progress line; NULL: none */
    uint64_t n_items, n_figures;
    uint64_t done, total;   /* of the progress line; done: atomic */
    double *figures;        /* [n_items][n_figures], of the last run */
    struct mpqc_sens_worker *workers;
    unsigned n_workers;
    struct mpqc_arena arena;
    pthread_mutex_t lock;   /* the data source */
};
/* Fields up to n_figures and `total` are the caller's to set.  Close whatever happened. */
mpqc_status mpqc_sens_pool_open(struct mpqc_sens_pool *p) MPQC_MUST_CHECK;
mpqc_status mpqc_sens_pool_run(struct mpqc_sens_pool *p) MPQC_MUST_CHECK;
void mpqc_sens_pool_close(struct mpqc_sens_pool *p);
/* Sums over the items, in order, of the last run. */
void mpqc_sens_pool_sums(const struct mpqc_sens_pool *p, double *sums);
/* Sample `index` into w->inputs. */
mpqc_status mpqc_sens_read(struct mpqc_sens_worker *w, uint64_t index) MPQC_MUST_CHECK;

/* How many samples to use, where one costs `macs` and all may cost `budget`: what the
 * caller asked for, else between `least` and `most`. */
uint64_t mpqc_sens_count(const struct mpqc_sens_cx *s, double macs, double budget, uint64_t least,
                         uint64_t most);
double mpqc_sens_macs(const struct mpqc_sens_cx *s); /* of one forward run */

/* ---- graphs that run ---- */

struct mpqc_sens_run {
    const struct mpqc_graph *g;
    const struct mpqc_engine *engine;
    struct mpqc_runner *runner; /* NULL for a graph without nodes */
    const void **in;            /* to be set by the caller */
    void **out;                 /* own buffers; may be repointed */
};
mpqc_status mpqc_sens_run_open(struct mpqc_sens_worker *w, const struct mpqc_graph *g,
                               struct mpqc_sens_run *r) MPQC_MUST_CHECK;
mpqc_status mpqc_sens_run(struct mpqc_sens_run *r) MPQC_MUST_CHECK;
void mpqc_sens_run_close(struct mpqc_sens_run *r);

/* What happens to layers in a cut. */
struct mpqc_sens_quant {
    const uint32_t *layer_of;  /* by node: index of the layer, or MPQC_NONE */
    const float *const *weights; /* by layer: fake-quantised ones; NULL: as they are */
    const struct mpqc_sens_range *input; /* by layer */
    /* Not NULL: nothing is quantised, but each layer reads a copy of its input, tap[layer],
     * so that there is a value which this layer alone depends on. */
    mpqc_vid *tap;
};
/* layer_of for all layers; NULL when memory ran out. */
uint32_t *mpqc_sens_layer_of(const struct mpqc_sens_cx *s, struct mpqc_arena *arena);

/* Nodes [first, end) of the network's order with all that they need from outside as
 * inputs, which are the network's values in[0..n_in); constants are borrowed. */
struct mpqc_sens_cut {
    struct mpqc_graph g;
    mpqc_vid *in; /* by input */
};
/* Outputs are the values outs[0..n_outs), which may be inputs of the cut.  quant may be
 * NULL.  The cut's graph is initialised here; release it whatever happened. */
mpqc_status mpqc_sens_cut(struct mpqc_sens_cx *s, uint32_t first, uint32_t end,
                          const mpqc_vid *outs, uint32_t n_outs,
                          const struct mpqc_sens_quant *quant, struct mpqc_arena *arena,
                          struct mpqc_sens_cut *out) MPQC_MUST_CHECK;

/* ---- activations on a grid ---- */

/* x becomes scale * clamp(round(x / scale), lo, hi), as `quantise` will have it. */
struct mpqc_sens_range {
    float scale, lo, hi;
};
mpqc_status mpqc_sens_range_of(const struct mpqc_sens_cx *s, const struct mpqc_bits_layer *l,
                               unsigned bits, struct mpqc_sens_range *out) MPQC_MUST_CHECK;
void mpqc_sens_fake(const struct mpqc_sens_range *r, const float *x, float *y, int64_t n);

/* ---- the loss ---- */

/* Cross-entropy with the labels where there are some, else the divergence from the
 * network's own float answer where that is a distribution over classes, else the squared
 * error.  Says so in a note with -v.  A network has classes when it ends in a softmax, or
 * in one row of at least two numbers that are not squashed by a sigmoid and not as many
 * as its inputs are. */
struct mpqc_sens_loss {
    enum mpqc_loss_kind kind;
    struct mpqc_type target;
    mpqc_vid compared; /* logits, or the output */
    int64_t classes;   /* 0: none */
};
mpqc_status mpqc_sens_loss_choose(struct mpqc_sens_cx *s, struct mpqc_sens_loss *out)
    MPQC_MUST_CHECK;
/* Targets of the first `count` samples, [count][elements of target], in `arena`. */
mpqc_status mpqc_sens_targets(struct mpqc_sens_cx *s, const struct mpqc_sens_loss *loss,
                              uint64_t count, struct mpqc_arena *arena, float **out)
    MPQC_MUST_CHECK;

/* ---- random numbers ---- */

/* A stream that depends on all four. */
struct mpqc_sens_rng {
    uint64_t state;
};
struct mpqc_sens_rng mpqc_sens_rng_make(uint64_t seed, uint64_t a, uint64_t b, uint64_t c);
uint64_t mpqc_sens_rng_bits(struct mpqc_sens_rng *r);
double mpqc_sens_rng_unit(struct mpqc_sens_rng *r); /* in [0, 1) */
double mpqc_sens_rng_normal(struct mpqc_sens_rng *r);
void mpqc_sens_rng_signs(struct mpqc_sens_rng *r, float *v, int64_t n); /* +-1 */

#endif
