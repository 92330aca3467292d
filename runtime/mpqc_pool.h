/* SPDX-License-Identifier: MIT
 *
 * A thread pool that fills the parallel_for of struct mpqc_exec.
 *
 *     struct mpqc_pool *pool = mpqc_pool_create(4);
 *     struct mpqc_exec exec;
 *     mpqc_pool_exec(pool, &exec);
 *     model->run(in, out, workspace, &exec);
 *     mpqc_pool_destroy(pool);
 *
 * Work is split statically into one part a thread, [n*t/T, n*(t+1)/T): the same call is
 * split the same way each time.  A part whose worker has not begun when the caller is
 * through with its own is done by the caller.  Workers spin for a short while after a
 * task and then sleep.  Nothing is allocated after creation.
 */
#ifndef MPQC_POOL_H
#define MPQC_POOL_H

#include "mpqc_model.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpqc_pool;

/* `threads` counts the calling thread, so threads - 1 are started; 0 means one per
 * core that this process may use.  NULL when out of memory or when a thread cannot
 * be started. */
struct mpqc_pool *mpqc_pool_create(uint32_t threads);
/* No parallel_for may be running.  NULL is fine. */
void mpqc_pool_destroy(struct mpqc_pool *pool);
/* With the calling thread; 1 for NULL. */
uint32_t mpqc_pool_threads(const struct mpqc_pool *pool);

/* Sets struct_size, threads, parallel_for and pool; clears the hooks.  `pool` may be
 * NULL: then all work stays on the calling thread. */
void mpqc_pool_exec(struct mpqc_pool *pool, struct mpqc_exec *exec);
/* The parallel_for itself.  A call that finds the pool busy (from another thread, or
 * from inside a task) runs its whole range on the calling thread. */
void mpqc_pool_for(void *pool, mpqc_task task, void *arg, int64_t n);

#ifdef __cplusplus
}
#endif

#endif
