/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Status codes, diagnostics, memory: what every part of the compiler uses.
 *
 * Error flow.  A function that can fail returns a mpqc_status.  Before it
 * returns one of its own it records a diagnostic in the context, by
 * `return MPQC_FAIL(cx, CODE, loc, fmt, ...)`; callers hand it on with
 * MPQC_TRY(expr).  There is no longjmp and no exit outside driver/.
 * A bad model, flag or file is a diagnostic; a broken invariant is MPQC_ASSERT.
 */
#ifndef MPQC_IR_BASE_BASE_H
#define MPQC_IR_BASE_BASE_H

#include "ir/base/banned.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum mpqc_status {
#define STATUS(name, text, fault) MPQC_##name,
#include "ir/base/status.def"
#undef STATUS
    MPQC_STATUS_COUNT
} mpqc_status;

#define MPQC_MUST_CHECK __attribute__((warn_unused_result))
#define MPQC_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define MPQC_LEN(array) (sizeof(array) / sizeof((array)[0]))

const char *mpqc_status_text(mpqc_status status);

/* ---- memory ------------------------------------------------------------ */

/* Where memory comes from.  `resize` behaves like realloc, with size 0 meaning
 * free.  The test suite passes one that fails on request. */
struct mpqc_allocator {
    void *(*resize)(void *user, void *old, size_t size);
    void *user;
};
extern const struct mpqc_allocator mpqc_malloc_allocator;

/* Size arithmetic that reports overflow instead of wrapping: false on overflow. */
bool mpqc_size_mul(size_t a, size_t b, size_t *out) MPQC_MUST_CHECK;
bool mpqc_size_add(size_t a, size_t b, size_t *out) MPQC_MUST_CHECK;

/* A bump allocator.  Everything in it dies with mpqc_arena_release or
 * mpqc_arena_reset; nothing is freed one by one.  Under AddressSanitizer each
 * allocation has a poisoned red zone behind it.
 * Allocation failure is an abort of the compilation by status: mpqc_arena_alloc
 * returns NULL and remembers it in `failed`, so that a builder of many small
 * objects may check once at the end. */
struct mpqc_arena {
    const struct mpqc_allocator *allocator;
    struct mpqc_arena_block *head;
    size_t used;  /* bytes handed out */
    bool failed;
};
void mpqc_arena_init(struct mpqc_arena *a, const struct mpqc_allocator *allocator);
void mpqc_arena_reset(struct mpqc_arena *a);
void mpqc_arena_release(struct mpqc_arena *a);
/* Zeroed, aligned to 64 bytes when size >= 64, else to 16.  NULL when out of
 * memory.  Size 0 gives a valid pointer. */
void *mpqc_arena_alloc(struct mpqc_arena *a, size_t size);
void *mpqc_arena_array(struct mpqc_arena *a, size_t count, size_t element);
void *mpqc_arena_copy(struct mpqc_arena *a, const void *data, size_t size);
char *mpqc_arena_strdup(struct mpqc_arena *a, const char *s);
char *mpqc_arena_printf(struct mpqc_arena *a, const char *fmt, ...) MPQC_PRINTF(2, 3);
/* Under AddressSanitizer, later use of these bytes of an arena is an error. */
void mpqc_arena_poison(void *p, size_t size);

#define MPQC_NEW(arena, type) ((type *)mpqc_arena_alloc((arena), sizeof(type)))
#define MPQC_NEW_ARRAY(arena, type, n) ((type *)mpqc_arena_array((arena), (n), sizeof(type)))

/* A growing byte string (malloc-backed, NUL-terminated after any append). */
struct mpqc_buf {
    char *data;
    size_t len, cap;
    bool failed;
};
void mpqc_buf_init(struct mpqc_buf *b);
void mpqc_buf_release(struct mpqc_buf *b);
void mpqc_buf_add(struct mpqc_buf *b, const void *data, size_t n);
void mpqc_buf_puts(struct mpqc_buf *b, const char *s);
void mpqc_buf_printf(struct mpqc_buf *b, const char *fmt, ...) MPQC_PRINTF(2, 3);

/* ---- diagnostics --------------------------------------------------------- */

/* Where something went wrong, as the user knows it.  Any field may be NULL. */
struct mpqc_where {
    const char *file;
    const char *node;   /* ONNX node name */
    const char *op;     /* ONNX operator */
    const char *tensor; /* ONNX tensor name */
    int64_t offset;     /* byte offset in file, -1 for none */
};
#define MPQC_NOWHERE ((struct mpqc_where){.offset = -1})

enum mpqc_severity { MPQC_NOTE, MPQC_WARNING, MPQC_ERROR };

struct mpqc_diag {
    enum mpqc_severity severity;
    mpqc_status status;
    const char *pass; /* pass or stage, NULL for none */
    struct mpqc_where where;
    const char *message; /* one sentence, no newline */
};

/* How many diagnostics are kept; later ones are counted only. */
#define MPQC_MAX_DIAGS 64

/* A compilation in progress: diagnostics, allocator, and the outside world's
 * wishes.  One thread at a time, except mpqc_cx_progress, mpqc_fail, mpqc_warn and
 * mpqc_note, which workers may call at once. */
struct mpqc_cx {
    const struct mpqc_allocator *allocator;
    struct mpqc_arena arena; /* diagnostics' text; lives as long as the context */
    struct mpqc_diag diags[MPQC_MAX_DIAGS];
    uint32_t n_diags;
    uint32_t n_errors;
    const char *pass;  /* set by the pass manager */
    unsigned threads;  /* worker threads that heavy stages may use, >= 1 */
    uint64_t seed;
    int verbose;
    /* Shows "stage: done of total"; NULL for silence.  Called often. */
    void (*progress)(void *user, const char *stage, uint64_t done, uint64_t total);
    void *progress_user;
    /* Told of every file and folder that is not to stay, just before it is made and when it is
     * gone or has its final name, so that a program which is ended can remove it; or NULL. */
    void (*temporary)(const char *path, bool begins);
    int lock; /* guards the diagnostics */
};
/* allocator NULL: malloc */
void mpqc_cx_init(struct mpqc_cx *cx, const struct mpqc_allocator *allocator);
void mpqc_cx_release(struct mpqc_cx *cx);
void mpqc_cx_progress(struct mpqc_cx *cx, const char *stage, uint64_t done, uint64_t total);
void mpqc_cx_temporary(struct mpqc_cx *cx, const char *path, bool begins);

mpqc_status mpqc_fail(struct mpqc_cx *cx, mpqc_status status, struct mpqc_where where,
                      const char *fmt, ...) MPQC_PRINTF(4, 5);
/* The same warning about the same node is kept once. */
void mpqc_warn(struct mpqc_cx *cx, struct mpqc_where where, const char *fmt, ...)
    MPQC_PRINTF(3, 4);
void mpqc_note(struct mpqc_cx *cx, struct mpqc_where where, const char *fmt, ...)
    MPQC_PRINTF(3, 4);
/* "mpqc: error: model.onnx: node 'conv1' (Conv): message" and a newline. */
void mpqc_diag_print(const struct mpqc_diag *d, FILE *to);
/* The same without "mpqc: " and newline. */
void mpqc_diag_text(const struct mpqc_diag *d, struct mpqc_buf *to);

/* n bytes to the file PATH, by way of PATH.tmp.PID: the whole file or none.  mode: of a new
 * file, less the umask.  What exists and is no regular file is written to. */
mpqc_status mpqc_file_write(struct mpqc_cx *cx, const char *path, unsigned mode, const void *data,
                            size_t n) MPQC_MUST_CHECK;

#define MPQC_TRY(expr)                                                                            \
    do {                                                                                          \
        mpqc_status try_status_ = (expr);                                                         \
        if (try_status_ != MPQC_OK) return try_status_;                                           \
    } while (0)
#define MPQC_FAIL(cx, code, where, ...) mpqc_fail((cx), MPQC_##code, (where), __VA_ARGS__)
/* For the one failure that every builder can have. */
#define MPQC_OOM(cx) mpqc_fail((cx), MPQC_NO_MEMORY, MPQC_NOWHERE, "out of memory")

/* A broken invariant of the compiler itself: prints what and where, then
 * aborts. */
_Noreturn void mpqc_assert_failed(const char *what, const char *file, int line);
#define MPQC_ASSERT(cond)                                                                         \
    ((cond) ? (void)0 : mpqc_assert_failed(#cond, __FILE__, __LINE__))

#endif
