/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Files, names, and protobuf-c behind an arena.
 */
#include "frontend/onnx_import.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define AT_FILE(p) ((struct mpqc_where){.file = (p), .offset = -1})

static mpqc_status map(struct mpqc_cx *cx, int fd, struct mpqc_imp_file *f)
{
    struct stat st;
    if (fstat(fd, &st)) return MPQC_FAIL(cx, IO, AT_FILE(f->path), "%s", strerror(errno));
    if (S_ISDIR(st.st_mode)) return MPQC_FAIL(cx, IO, AT_FILE(f->path), "is a folder, not a file");
    if (!S_ISREG(st.st_mode)) return MPQC_FAIL(cx, IO, AT_FILE(f->path), "is not a regular file");
    if (st.st_size == 0) return MPQC_FAIL(cx, FORMAT, AT_FILE(f->path), "the file is empty");
    if ((uint64_t)st.st_size > SIZE_MAX / 2)
        return MPQC_FAIL(cx, LIMIT_EXCEEDED, AT_FILE(f->path), "the file is too large");
    f->size = (size_t)st.st_size;
    void *p = mmap(NULL, f->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) return MPQC_FAIL(cx, IO, AT_FILE(f->path), "%s", strerror(errno));
    f->data = p;
    return MPQC_OK;
}

mpqc_status mpqc_imp_open(struct mpqc_cx *cx, const char *path, struct mpqc_imp_file *out)
{
    *out = (struct mpqc_imp_file){.path = path};
    /* O_NONBLOCK: opening a pipe must not wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return MPQC_FAIL(cx, IO, AT_FILE(path), "cannot be opened: %s", strerror(errno));
    mpqc_status status = map(cx, fd, out);
    close(fd);
    return status;
}

void mpqc_imp_close(struct mpqc_imp_file *f)
{
    union { /* munmap takes a mutable pointer */
        const uint8_t *c;
        void *m;
    } p = {f->data};
    if (f->data) munmap(p.m, f->size);
    f->data = NULL;
}

/* ---- protobuf-c ------------------------------------------------------------------- */

static void *arena_alloc(void *arena, size_t size)
{
    return mpqc_arena_alloc(arena, size);
}

static void arena_free(void *arena, void *p)
{
    (void)arena;
    (void)p;
}

ProtobufCAllocator mpqc_imp_allocator(struct mpqc_arena *arena)
{
    return (ProtobufCAllocator){.alloc = arena_alloc, .free = arena_free, .allocator_data = arena};
}

mpqc_status mpqc_imp_unpack(struct mpqc_cx *cx, const struct mpqc_imp_file *f,
                            struct mpqc_pb_span span, const ProtobufCMessageDescriptor *type,
                            const char *what, struct mpqc_arena *to, void *out)
{
    ProtobufCAllocator a = mpqc_imp_allocator(to);
    ProtobufCMessage *m =
        protobuf_c_message_unpack(type, &a, span.length, f->data + span.offset);
    if (!m && to->failed) return MPQC_OOM(cx);
    if (!m)
        return MPQC_FAIL(cx, FORMAT,
                         ((struct mpqc_where){.file = f->path, .offset = (int64_t)span.offset}),
                         "malformed %s", what);
    memcpy(out, &m, sizeof(m)); /* *out is a pointer to the generated struct */
    return MPQC_OK;
}

/* ---- names ------------------------------------------------------------------------ */

/* FNV-1a, 64 bits. */
static uint64_t hash(const char *s)
{
    uint64_t h = UINT64_C(14695981039346656037);
    for (; *s; s++) h = (h ^ (uint8_t)*s) * UINT64_C(1099511628211);
    return h ^ h >> 32;
}

static uint32_t slot_of(const struct mpqc_imp_names *t, const char *name)
{
    uint32_t at = (uint32_t)hash(name) & (t->cap - 1);
    while (t->key[at] && strcmp(t->key[at], name)) at = (at + 1) & (t->cap - 1);
    return at;
}

uint32_t mpqc_imp_names_find(const struct mpqc_imp_names *t, const char *name)
{
    if (!t->cap) return MPQC_NONE;
    uint32_t at = slot_of(t, name);
    return t->key[at] ? t->value[at] : MPQC_NONE;
}

static bool grow(struct mpqc_imp_names *t, struct mpqc_arena *arena)
{
    struct mpqc_imp_names bigger = {.n = t->n, .cap = t->cap ? t->cap * 2 : 64};
    bigger.key = MPQC_NEW_ARRAY(arena, const char *, bigger.cap);
    bigger.value = MPQC_NEW_ARRAY(arena, uint32_t, bigger.cap);
    if (!bigger.key || !bigger.value) return false;
    for (uint32_t i = 0; i < t->cap; i++) {
        if (!t->key[i]) continue;
        uint32_t at = slot_of(&bigger, t->key[i]);
        bigger.key[at] = t->key[i];
        bigger.value[at] = t->value[i];
    }
    *t = bigger;
    return true;
}

bool mpqc_imp_names_set(struct mpqc_imp_names *t, struct mpqc_arena *arena, const char *name,
                        uint32_t value)
{
    if (t->n * 2 >= t->cap && !grow(t, arena)) return false;
    uint32_t at = slot_of(t, name);
    if (!t->key[at]) t->n++;
    t->key[at] = name;
    t->value[at] = value;
    return true;
}
