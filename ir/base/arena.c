/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The bump allocator.  Blocks form a list whose head is the one being filled; an
 * allocation that does not fit opens a new block of at least its size; a large one
 * has a block of its own behind the head.  Under
 * AddressSanitizer a block is poisoned as a whole and each allocation opens its
 * own bytes, so that the gap behind it (at least RED_ZONE bytes) traps.
 */
#include "ir/base/base.h"
#include "ir/base/limits.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#define RED_ZONE 32u
#define POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#else
#define RED_ZONE 0u
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

struct mpqc_arena_block {
    struct mpqc_arena_block *next;
    size_t size; /* of data */
    size_t used;
    unsigned char data[];
};

static void *malloc_resize(void *user, void *old, size_t size)
{
    (void)user;
    if (size == 0) {
        free(old);
        return NULL;
    }
    return realloc(old, size);
}

const struct mpqc_allocator mpqc_malloc_allocator = {malloc_resize, NULL};

void mpqc_arena_init(struct mpqc_arena *a, const struct mpqc_allocator *allocator)
{
    *a = (struct mpqc_arena){.allocator = allocator ? allocator : &mpqc_malloc_allocator};
}

void mpqc_arena_poison(void *p, size_t size)
{
    POISON(p, size);
}

/* Frees the list from `b` on. */
static void free_blocks(struct mpqc_arena *a, struct mpqc_arena_block *b)
{
    while (b) {
        struct mpqc_arena_block *next = b->next;
        UNPOISON(b->data, b->size);
        a->allocator->resize(a->allocator->user, b, 0);
        b = next;
    }
}

void mpqc_arena_reset(struct mpqc_arena *a)
{
    struct mpqc_arena_block *keep = a->head;
    /* One small block stays for the next round; a large one would only sit there. */
    if (keep && keep->size > 16 * (size_t)MPQC_ARENA_BLOCK) {
        free_blocks(a, keep);
        keep = NULL;
    }
    if (keep) {
        free_blocks(a, keep->next);
        keep->next = NULL;
        keep->used = 0;
        POISON(keep->data, keep->size);
    }
    a->head = keep;
    a->used = 0;
    a->failed = false;
}

void mpqc_arena_release(struct mpqc_arena *a)
{
    free_blocks(a, a->head);
    a->head = NULL;
    a->used = 0;
}

/* Offset in block b of the next address with the given alignment. */
static size_t aligned_offset(const struct mpqc_arena_block *b, size_t align)
{
    uintptr_t at = (uintptr_t)(b->data + b->used);
    return b->used + (size_t)(-at & (align - 1));
}

/* A new block with room for `need` bytes, whatever the alignment. */
static struct mpqc_arena_block *add_block(struct mpqc_arena *a, size_t need, size_t align)
{
    size_t size = 0, total = 0;
    if (!mpqc_size_add(need, align, &size)) return NULL;
    if (size < MPQC_ARENA_BLOCK) size = MPQC_ARENA_BLOCK;
    if (!mpqc_size_add(size, sizeof(struct mpqc_arena_block), &total)) return NULL;
    struct mpqc_arena_block *b = a->allocator->resize(a->allocator->user, NULL, total);
    if (!b) return NULL;
    b->size = size;
    b->used = 0;
    POISON(b->data, b->size);
    if (a->head && need >= MPQC_ARENA_BLOCK) { /* full at once: the head stays open */
        b->next = a->head->next;
        a->head->next = b;
    } else {
        b->next = a->head;
        a->head = b;
    }
    return b;
}

static bool fits(const struct mpqc_arena_block *b, size_t need, size_t align)
{
    size_t at = aligned_offset(b, align);
    return at <= b->size && need <= b->size - at;
}

void *mpqc_arena_alloc(struct mpqc_arena *a, size_t size)
{
    size_t align = size >= 64 ? 64 : 16;
    size_t need = 0;
    struct mpqc_arena_block *b = a->head;
    if (!mpqc_size_add(size ? size : 1, RED_ZONE, &need) ||
        !((b && fits(b, need, align)) || (b = add_block(a, need, align)))) {
        a->failed = true;
        return NULL;
    }
    size_t at = aligned_offset(b, align);
    b->used = at + need;
    a->used += size;
    UNPOISON(b->data + at, size);
    memset(b->data + at, 0, size);
    return b->data + at;
}

void *mpqc_arena_array(struct mpqc_arena *a, size_t count, size_t element)
{
    size_t size = 0;
    if (!mpqc_size_mul(count, element, &size)) {
        a->failed = true;
        return NULL;
    }
    return mpqc_arena_alloc(a, size);
}

void *mpqc_arena_copy(struct mpqc_arena *a, const void *data, size_t size)
{
    void *to = mpqc_arena_alloc(a, size);
    if (to && size) memcpy(to, data, size);
    return to;
}

char *mpqc_arena_strdup(struct mpqc_arena *a, const char *s)
{
    return s ? mpqc_arena_copy(a, s, strlen(s) + 1) : NULL;
}

char *mpqc_arena_printf(struct mpqc_arena *a, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *to = n < 0 ? NULL : mpqc_arena_alloc(a, (size_t)n + 1);
    if (!to) return NULL;
    va_start(args, fmt);
    vsnprintf(to, (size_t)n + 1, fmt, args);
    va_end(args);
    return to;
}
