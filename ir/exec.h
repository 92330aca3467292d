/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Running a graph, as an interface: passes that need to run networks (calibrate,
 * sensitivity, the expected-accuracy report) take a `struct mpqc_engine`; the
 * interpreter (ir/interp.c) fills one, a JIT may fill another.
 */
#ifndef MPQC_IR_EXEC_H
#define MPQC_IR_EXEC_H

#include "ir/ir.h"

/* Called after a node has run, once per output, and once per graph input before
 * the first node.  The tensor is valid during the call only. */
typedef void (*mpqc_observe_fn)(void *user, mpqc_vid v, const struct mpqc_tensor *t);

/* One prepared graph on one thread: not shared between threads; make one per
 * thread.  The graph must not change while it exists. */
struct mpqc_runner;

struct mpqc_engine {
    const char *name;
    mpqc_status (*prepare)(struct mpqc_cx *cx, const struct mpqc_graph *g,
                           struct mpqc_runner **out);
    /* inputs: graph->n_inputs dense tensors; outputs: graph->n_outputs buffers of
     * mpqc_type_bytes each, filled. observe may be NULL. */
    mpqc_status (*run)(struct mpqc_runner *r, const void *const *inputs, void *const *outputs,
                       mpqc_observe_fn observe, void *user);
    void (*release)(struct mpqc_runner *r);
};

/* The reference interpreter. */
extern const struct mpqc_engine mpqc_interpreter;

/* A stream of input samples, one batch-1 set of network inputs each.  `get` fills
 * one dense tensor per graph input (types of the float graph's inputs, already
 * pre-processed); it may be called from several threads with different buffers. */
struct mpqc_dataset {
    uint64_t count;
    mpqc_status (*get)(void *user, struct mpqc_cx *cx, uint64_t index, void *const *inputs);
    void *user;
};

/* Runs task(user, worker, index) for index in [0, n) on `threads` workers (worker
 * numbers 0..threads-1); stops early and returns the first failure. */
typedef mpqc_status (*mpqc_index_task)(void *user, unsigned worker, uint64_t index);
mpqc_status mpqc_for_each(unsigned threads, uint64_t n, mpqc_index_task task, void *user);

#endif
