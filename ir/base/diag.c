/* SPDX-License-Identifier: GPL-3.0-or-later
 * Diagnostics, and the context that keeps them.
 */
#include "ir/base/base.h"

void mpqc_cx_init(struct mpqc_cx *cx, const struct mpqc_allocator *allocator)
{
    memset(cx, 0, sizeof *cx);
    cx->allocator = allocator ? allocator : &mpqc_malloc_allocator;
    mpqc_arena_init(&cx->arena, cx->allocator);
    cx->threads = 1;
}

void mpqc_cx_release(struct mpqc_cx *cx)
{
    mpqc_arena_release(&cx->arena);
    cx->n_diags = 0;
}

void mpqc_cx_progress(struct mpqc_cx *cx, const char *stage, uint64_t done, uint64_t total)
{
    if (cx->progress) cx->progress(cx->progress_user, stage, done, total);
}

/* Diagnostics are rare, so a spinning lock will do. */
static void lock(struct mpqc_cx *cx)
{
    while (__atomic_exchange_n(&cx->lock, 1, __ATOMIC_ACQUIRE)) {
    }
}

static void unlock(struct mpqc_cx *cx)
{
    __atomic_store_n(&cx->lock, 0, __ATOMIC_RELEASE);
}

/* Where to put a diagnostic: the next free entry, or NULL when all are taken.  The
 * first error is never lost to a heap of warnings: it takes the last one's place. */
static struct mpqc_diag *place_for(struct mpqc_cx *cx, enum mpqc_severity severity)
{
    bool first_error = severity == MPQC_ERROR && cx->n_errors == 0;
    if (severity == MPQC_ERROR) cx->n_errors++;
    if (cx->n_diags < MPQC_MAX_DIAGS) return &cx->diags[cx->n_diags++];
    return first_error ? &cx->diags[MPQC_MAX_DIAGS - 1] : NULL;
}

/* The message in the context's arena.  When even that has no memory, the status
 * text stands in for it. */
static const char *format(struct mpqc_cx *cx, mpqc_status status, const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *text = n < 0 ? NULL : mpqc_arena_alloc(&cx->arena, (size_t)n + 1);
    if (!text) return mpqc_status_text(status);
    vsnprintf(text, (size_t)n + 1, fmt, args);
    return text;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* Does an earlier diagnostic say the same?  Passes that run for many plans repeat themselves. */
static bool said_before(const struct mpqc_cx *cx, const struct mpqc_diag *d)
{
    for (const struct mpqc_diag *e = cx->diags; e < d; e++)
        if (e->severity == d->severity && same_text(e->where.node, d->where.node) &&
            same_text(e->message, d->message))
            return true;
    return false;
}

static void record(struct mpqc_cx *cx, enum mpqc_severity severity, mpqc_status status,
                   struct mpqc_where where, const char *fmt, va_list args)
{
    lock(cx);
    struct mpqc_diag *d = place_for(cx, severity);
    if (d) {
        d->severity = severity;
        d->status = status;
        d->pass = mpqc_arena_strdup(&cx->arena, cx->pass);
        d->where.file = mpqc_arena_strdup(&cx->arena, where.file);
        d->where.node = mpqc_arena_strdup(&cx->arena, where.node);
        d->where.op = mpqc_arena_strdup(&cx->arena, where.op);
        d->where.tensor = mpqc_arena_strdup(&cx->arena, where.tensor);
        d->where.offset = where.offset;
        d->message = format(cx, status, fmt, args);
        if (severity == MPQC_WARNING && said_before(cx, d)) cx->n_diags--;
    }
    unlock(cx);
}

mpqc_status mpqc_fail(struct mpqc_cx *cx, mpqc_status status, struct mpqc_where where,
                      const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    record(cx, MPQC_ERROR, status, where, fmt, args);
    va_end(args);
    return status;
}

void mpqc_warn(struct mpqc_cx *cx, struct mpqc_where where, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    record(cx, MPQC_WARNING, MPQC_OK, where, fmt, args);
    va_end(args);
}

void mpqc_note(struct mpqc_cx *cx, struct mpqc_where where, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    record(cx, MPQC_NOTE, MPQC_OK, where, fmt, args);
    va_end(args);
}

void mpqc_diag_text(const struct mpqc_diag *d, struct mpqc_buf *to)
{
    static const char *const severity[] = {"note", "warning", "error"};
    const struct mpqc_where *w = &d->where;
    mpqc_buf_printf(to, "%s: ", d->status == MPQC_BUG ? "bug" : severity[d->severity]);
    if (w->file) mpqc_buf_printf(to, "%s: ", w->file);
    if (w->offset >= 0) mpqc_buf_printf(to, "byte %lld: ", (long long)w->offset);
    if (w->node) mpqc_buf_printf(to, "node '%s'%s", w->node, w->op ? "" : ": ");
    if (w->op) mpqc_buf_printf(to, w->node ? " (%s): " : "operator %s: ", w->op);
    if (w->tensor) mpqc_buf_printf(to, "tensor '%s': ", w->tensor);
    mpqc_buf_puts(to, d->message);
    if (d->status == MPQC_BUG && d->pass) mpqc_buf_printf(to, " (after pass '%s')", d->pass);
}

void mpqc_diag_print(const struct mpqc_diag *d, FILE *to)
{
    struct mpqc_buf text;
    mpqc_buf_init(&text);
    mpqc_diag_text(d, &text);
    fprintf(to, "mpqc: %s\n", text.failed ? d->message : text.data);
    mpqc_buf_release(&text);
}
