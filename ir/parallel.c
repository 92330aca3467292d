/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mpqc_for_each: indices are handed out in order from one counter, so when index i
 * fails, every smaller one has been started and will be waited for; the least
 * failing index decides the status, whatever the timing.
 */
#include "ir/exec.h"

#include <pthread.h>

struct job {
    uint64_t n, next;   /* next: atomic */
    uint64_t failed_at; /* least failing index, n for none */
    mpqc_status status; /* its status */
    pthread_mutex_t lock; /* guards failed_at and status */
    mpqc_index_task task;
    void *user;
};

struct worker {
    struct job *job;
    unsigned number;
    pthread_t thread;
};

static void note_failure(struct job *j, uint64_t index, mpqc_status status)
{
    pthread_mutex_lock(&j->lock);
    if (index < j->failed_at) {
        j->failed_at = index;
        j->status = status;
    }
    pthread_mutex_unlock(&j->lock);
    __atomic_store_n(&j->next, j->n, __ATOMIC_RELAXED); /* hand out no more */
}

static void *work(void *p)
{
    struct worker *w = p;
    struct job *j = w->job;
    for (;;) {
        uint64_t i = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
        if (i >= j->n) return NULL;
        mpqc_status status = j->task(j->user, w->number, i);
        if (status != MPQC_OK) note_failure(j, i, status);
    }
}

mpqc_status mpqc_for_each(unsigned threads, uint64_t n, mpqc_index_task task, void *user)
{
    struct job j = {.n = n, .failed_at = n, .task = task, .user = user};
    struct worker self = {.job = &j};
    if (threads > n) threads = (unsigned)n;
    struct worker *others = threads > 1 ? calloc(threads - 1, sizeof *others) : NULL;
    unsigned started = 0;
    pthread_mutex_init(&j.lock, NULL);
    /* Fewer threads than wished for is no error: the caller's own does the rest. */
    for (; others && started < threads - 1; started++) {
        others[started] = (struct worker){.job = &j, .number = started + 1};
        if (pthread_create(&others[started].thread, NULL, work, &others[started]) != 0) break;
    }
    work(&self);
    for (unsigned i = 0; i < started; i++) pthread_join(others[i].thread, NULL);
    pthread_mutex_destroy(&j.lock);
    free(others);
    return j.status;
}
