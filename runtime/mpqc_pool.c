/* SPDX-License-Identifier: MIT */
#include "mpqc_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_THREADS 1024
/* Rounds of waiting before a worker sleeps: some tens of microseconds, more than the
 * time between two layers. With more threads than cores spinning only takes time from
 * others. */
#define SPINS 1000
/* Rounds that the caller, whose own part is done, gives the workers to end theirs before it
 * looks for parts that have not begun: to look takes a worker's line of the cache from it. */
#define PATIENCE 10
/* Rounds before the caller lets others run. */
#define CALLER_SPINS 1000
/* What different threads write is in different lines: a line takes 100 ns from core to core. */
#define CACHE_LINE 64

struct worker {
    /* The last epoch in which this worker's part was taken, by itself or by a caller
     * that had nothing else to do. */
    _Alignas(CACHE_LINE) atomic_uint taken;
    uint32_t index; /* 1 .. threads - 1; the caller is 0 */
    struct mpqc_pool *pool;
    pthread_t thread;
};

struct mpqc_pool {
    uint32_t threads;
    uint32_t spins;
    atomic_flag busy;
    atomic_int stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    /* The task of the current epoch; written before the epoch is. */
    _Alignas(CACHE_LINE) mpqc_task task;
    void *arg;
    int64_t n;
    atomic_uint epoch; /* one more for each task */
    atomic_uint asleep;
    _Alignas(CACHE_LINE) atomic_uint pending; /* parts of the task that have not ended */
    struct worker workers[];
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* n * t / threads without overflow. */
static int64_t boundary(int64_t n, uint32_t t, uint32_t threads)
{
    int64_t whole = n / threads, rest = n % threads;
    return whole * t + rest * t / threads;
}

static void run_part(const struct mpqc_pool *p, uint32_t t)
{
    int64_t begin = boundary(p->n, t, p->threads), end = boundary(p->n, t + 1, p->threads);
    if (begin < end) p->task(p->arg, begin, end);
}

/* Runs worker t's part of epoch e unless somebody has it.  Every part is taken exactly
 * once an epoch, so `taken` grows by one; it can be e - 1 only while epoch e is
 * unfinished, and only then are the task's fields read. */
static void take_part(struct mpqc_pool *p, uint32_t t, unsigned e)
{
    unsigned before = e - 1;
    if (!atomic_compare_exchange_strong_explicit(&p->workers[t].taken, &before, e,
                                                 memory_order_acq_rel, memory_order_acquire))
        return;
    run_part(p, t);
    atomic_fetch_sub_explicit(&p->pending, 1, memory_order_release);
}

/* Returns the new epoch. Either this thread sees the new epoch before it sleeps, or
 * the caller sees it in `asleep` and wakes it: both sides write, then read, in
 * sequentially consistent order. */
static unsigned await(struct mpqc_pool *p, unsigned seen)
{
    for (uint32_t i = 0; i < p->spins; i++) {
        if (atomic_load_explicit(&p->epoch, memory_order_acquire) != seen) break;
        relax();
    }
    if (atomic_load_explicit(&p->epoch, memory_order_acquire) == seen) {
        pthread_mutex_lock(&p->lock);
        atomic_fetch_add(&p->asleep, 1);
        while (atomic_load(&p->epoch) == seen) pthread_cond_wait(&p->wake, &p->lock);
        atomic_fetch_sub(&p->asleep, 1);
        pthread_mutex_unlock(&p->lock);
    }
    return atomic_load_explicit(&p->epoch, memory_order_acquire);
}

/* Starts the next epoch, and returns it. */
static unsigned announce(struct mpqc_pool *p)
{
    unsigned e = atomic_fetch_add(&p->epoch, 1) + 1;
    if (atomic_load(&p->asleep) == 0) return e;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    return e;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct mpqc_pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        /* Epochs may be missed: then the caller had done this worker's part. */
        seen = await(p, seen);
        if (atomic_load_explicit(&p->stop, memory_order_acquire)) return NULL;
        take_part(p, w->index, seen);
    }
}

/* Waits until all parts have ended, at most `rounds` times; have they? */
static bool ended(const struct mpqc_pool *p, unsigned rounds)
{
    while (atomic_load_explicit(&p->pending, memory_order_acquire) != 0) {
        if (rounds-- == 0) return false;
        relax();
    }
    return true;
}

void mpqc_pool_for(void *pool, mpqc_task task, void *arg, int64_t n)
{
    struct mpqc_pool *p = pool;
    if (n <= 0) return;
    if (!p || p->threads < 2 || n == 1 ||
        atomic_flag_test_and_set_explicit(&p->busy, memory_order_acquire)) {
        task(arg, 0, n);
        return;
    }
    p->task = task;
    p->arg = arg;
    p->n = n;
    atomic_store_explicit(&p->pending, p->threads - 1, memory_order_relaxed);
    unsigned e = announce(p);
    run_part(p, 0);
    /* On a busy machine a worker may not get a core for milliseconds: its part, if it
     * has not begun, is done here.  The parts, and so the answers, stay the same. */
    if (!ended(p, PATIENCE)) {
        for (uint32_t t = p->threads; --t > 0;) take_part(p, t, e);
        if (!ended(p, CALLER_SPINS))
            while (!ended(p, 0)) sched_yield();
    }
    atomic_flag_clear_explicit(&p->busy, memory_order_release);
}

static uint32_t cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (uint32_t)CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t)n : 1;
}

static void stop_workers(struct mpqc_pool *p, uint32_t started)
{
    atomic_store_explicit(&p->stop, 1, memory_order_release);
    announce(p);
    for (uint32_t t = 1; t < started; t++) pthread_join(p->workers[t].thread, NULL);
}

static void release(struct mpqc_pool *p)
{
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

struct mpqc_pool *mpqc_pool_create(uint32_t threads)
{
    uint32_t there = cores();
    if (threads == 0) threads = there;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    size_t bytes = sizeof(struct mpqc_pool) + threads * sizeof(struct worker);
    struct mpqc_pool *p = aligned_alloc(CACHE_LINE, bytes);
    if (!p) return NULL;
    memset(p, 0, bytes);
    p->threads = threads;
    p->spins = threads <= there ? SPINS : 0;
    atomic_flag_clear(&p->busy);
    if (pthread_mutex_init(&p->lock, NULL)) {
        free(p);
        return NULL;
    }
    if (pthread_cond_init(&p->wake, NULL)) {
        pthread_mutex_destroy(&p->lock);
        free(p);
        return NULL;
    }
    for (uint32_t t = 1; t < threads; t++) {
        p->workers[t] = (struct worker){.pool = p, .index = t};
        if (pthread_create(&p->workers[t].thread, NULL, work, &p->workers[t])) {
            stop_workers(p, t);
            release(p);
            return NULL;
        }
    }
    return p;
}

void mpqc_pool_destroy(struct mpqc_pool *p)
{
    if (!p) return;
    stop_workers(p, p->threads);
    release(p);
}

uint32_t mpqc_pool_threads(const struct mpqc_pool *p)
{
    return p ? p->threads : 1;
}

void mpqc_pool_exec(struct mpqc_pool *p, struct mpqc_exec *exec)
{
    *exec = (struct mpqc_exec){.struct_size = sizeof *exec, .threads = mpqc_pool_threads(p)};
    if (!p || p->threads < 2) return;
    exec->parallel_for = mpqc_pool_for;
    exec->pool = p;
}
