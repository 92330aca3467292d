/* SPDX-License-Identifier: GPL-3.0-or-later
 * An allocator that counts what is alive and fails at the Nth request.
 */
#ifndef TESTS_UNIT_FAILING_ALLOCATOR_H
#define TESTS_UNIT_FAILING_ALLOCATOR_H

#include "ir/base/base.h"

struct failing_allocator {
    struct mpqc_allocator allocator;
    uint64_t requests, fail_at; /* fail_at 0: never */
    int64_t alive;              /* blocks */
};

static inline void *failing_resize(void *user, void *old, size_t size)
{
    struct failing_allocator *f = user;
    if (size == 0) {
        f->alive -= old != NULL;
        free(old);
        return NULL;
    }
    if (++f->requests == f->fail_at) return NULL;
    void *p = realloc(old, size);
    f->alive += p && !old;
    return p;
}

static inline void failing_init(struct failing_allocator *f, uint64_t fail_at)
{
    *f = (struct failing_allocator){.fail_at = fail_at};
    f->allocator = (struct mpqc_allocator){failing_resize, f};
}

#endif
