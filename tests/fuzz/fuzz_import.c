/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Damaged ONNX files: bytes flipped, overwritten, cut off.
 *
 *   fuzz_import COUNT SECONDS MODEL.onnx...
 *
 * COUNT mutations of each model, or as many as fit in SECONDS in all.  The importer
 * must not crash (run it under ASan, too), not leak a block, not take more than
 * MEMORY_LIMIT, say at least one error when it fails and none when it does not.  The
 * mutations come from a fixed seed; a failure names its number.
 */
#include "frontend/frontend.h"
#include "frontend/pbscan.h"
#include "ir/verify.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_LIMIT ((size_t)256 << 20)
#define MAX_CHANGES 8

/* ---- memory that is counted ------------------------------------------------------- */

struct counted {
    size_t size;
    size_t pad; /* keeps 16-byte alignment */
};
struct account {
    size_t now, peak, refused;
    int64_t blocks;
};

static void *counted_resize(void *user, void *old, size_t size)
{
    struct account *a = user;
    struct counted *block = old ? (struct counted *)old - 1 : NULL;
    size_t before = block ? block->size : 0;
    if (size && (size > MEMORY_LIMIT || a->now - before + size > MEMORY_LIMIT)) {
        a->refused++;
        return NULL;
    }
    if (!size) {
        a->blocks -= block != NULL;
        a->now -= before;
        free(block);
        return NULL;
    }
    struct counted *p = realloc(block, sizeof(*p) + size);
    if (!p) return NULL;
    a->blocks += !block;
    a->now = a->now - before + size;
    a->peak = a->now > a->peak ? a->now : a->peak;
    p->size = size;
    return p + 1;
}

/* ---- mutations -------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state) /* xorshift64* */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

struct model {
    uint8_t *data;
    size_t size;
    size_t *spots; /* offsets of bytes that are not weights */
    size_t n_spots;
};

static bool load(const char *path, struct model *m)
{
    FILE *f = fopen(path, "rb");
    long end = 0;
    if (!f || fseek(f, 0, SEEK_END) || (end = ftell(f)) <= 0 || fseek(f, 0, SEEK_SET)) return false;
    m->size = (size_t)end;
    m->data = malloc(m->size);
    bool ok = m->data && fread(m->data, 1, m->size, f) == m->size;
    fclose(f);
    return ok;
}

static void add_spots(struct model *m, const struct mpqc_pb_list *l, size_t most)
{
    for (uint32_t i = 0; i < l->n; i++) {
        size_t n = l->at[i].length < most ? l->at[i].length : most;
        for (size_t k = 0; k < n + 4; k++) /* the length before it, too */
            if (l->at[i].offset + k >= 4) m->spots[m->n_spots++] = l->at[i].offset + k - 4;
    }
}

/* Most of a file is weights, where a change hardly matters; four of five changes go
 * elsewhere. */
static bool find_spots(struct model *m)
{
    struct mpqc_cx cx;
    struct mpqc_arena arena;
    struct mpqc_pb_index x;
    mpqc_cx_init(&cx, NULL);
    mpqc_arena_init(&arena, NULL);
    bool ok = mpqc_pb_scan_model(&cx, "", m->data, m->size, &arena, &x) == MPQC_OK;
    m->spots = malloc((m->size * 2 + 64) * sizeof(*m->spots));
    if (ok && m->spots) {
        add_spots(m, &x.opsets, 64);
        add_spots(m, &x.nodes, 4096);
        add_spots(m, &x.inputs, 512);
        add_spots(m, &x.outputs, 512);
        add_spots(m, &x.initialisers, 48);
    }
    mpqc_arena_release(&arena);
    mpqc_cx_release(&cx);
    return ok && m->spots && m->n_spots;
}

static uint8_t mutate_byte(uint8_t old, uint64_t r)
{
    static const uint8_t nasty[] = {0, 1, 2, 8, 10, 0x12, 0x3a, 0x7f, 0x80, 0xff};
    if (r % 3 == 0) return (uint8_t)(old ^ 1u << (r >> 8) % 8);
    if (r % 3 == 1) return nasty[(r >> 8) % sizeof(nasty)];
    return (uint8_t)(r >> 16);
}

/* ---- one run ---------------------------------------------------------------------- */

struct totals {
    unsigned long runs, imported, refused_by_memory;
    size_t peak;
};

static bool import_once(const char *path, struct totals *t)
{
    struct account account = {0};
    struct mpqc_allocator allocator = {counted_resize, &account};
    struct mpqc_cx cx;
    struct mpqc_graph g;
    mpqc_cx_init(&cx, &allocator);
    mpqc_graph_init(&g, &allocator);
    mpqc_status status = mpqc_import_onnx(&cx, path, NULL, &g);
    bool told = (status != MPQC_OK) == (cx.n_errors != 0) && status != MPQC_BUG;
    if (!told) fprintf(stderr, "status %d with %u errors\n", (int)status, cx.n_errors);
    /* What the importer accepts, the verifier accepts. */
    if (status == MPQC_OK && mpqc_verify(&cx, &g, MPQC_VERIFY_FLOAT) != MPQC_OK) {
        mpqc_diag_print(&cx.diags[cx.n_diags - 1], stderr);
        told = false;
    }
    mpqc_graph_release(&g);
    mpqc_cx_release(&cx);
    if (account.blocks || account.now) {
        fprintf(stderr, "%lld blocks leaked\n", (long long)account.blocks);
        told = false;
    }
    t->runs++;
    t->imported += status == MPQC_OK;
    t->refused_by_memory += account.refused != 0;
    if (account.peak > t->peak) t->peak = account.peak;
    return told;
}

/* The scratch file holds the model; a mutation changes a few bytes or its length, and
 * is undone afterwards. */
static bool run_mutation(int fd, const char *path, const struct model *m, uint64_t seed,
                         struct totals *t)
{
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    size_t at[MAX_CHANGES];
    /* Fewer changes get further, so they are more frequent. */
    uint64_t most = next_random(&state) % MAX_CHANGES;
    unsigned n = 1 + (unsigned)(next_random(&state) % (most + 1));
    bool cut = next_random(&state) % 8 == 0, ok = true;
    for (unsigned i = 0; i < n; i++) {
        uint64_t r = next_random(&state), s = next_random(&state);
        at[i] = r % 5 ? m->spots[s % m->n_spots] : s % m->size;
        if (at[i] >= m->size) at[i] = 0;
        uint8_t byte = mutate_byte(m->data[at[i]], next_random(&state));
        if (!cut) ok = ok && pwrite(fd, &byte, 1, (off_t)at[i]) == 1;
    }
    if (cut) ok = ok && !ftruncate(fd, (off_t)at[0]);
    ok = ok && import_once(path, t);
    if (cut) {
        ssize_t rest = (ssize_t)(m->size - at[0]);
        return pwrite(fd, m->data + at[0], (size_t)rest, (off_t)at[0]) == rest && ok;
    }
    for (unsigned i = 0; i < n; i++)
        ok = pwrite(fd, &m->data[at[i]], 1, (off_t)at[i]) == 1 && ok;
    return ok;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static bool fuzz_model(const char *model, unsigned long count, double until)
{
    struct model m = {0};
    struct totals t = {0};
    char path[64];
    snprintf(path, sizeof(path), "fuzz_import.%ld.onnx", (long)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    bool ok = fd >= 0 && load(model, &m) && find_spots(&m) &&
              write(fd, m.data, m.size) == (ssize_t)m.size;
    if (!ok) fprintf(stderr, "%s: cannot be prepared\n", model);
    if (ok && (!import_once(path, &t) || t.imported != 1)) {
        fprintf(stderr, "%s: is not imported as it is\n", model);
        ok = false;
    }
    for (unsigned long i = 1; ok && i <= count && seconds() < until; i++) {
        ok = run_mutation(fd, path, &m, i, &t);
        if (!ok) fprintf(stderr, "%s: mutation %lu\n", model, i);
    }
    printf("%s: %lu mutations, %lu still imported, %lu wanted too much memory, at most %zu KiB\n",
           model, t.runs ? t.runs - 1 : 0, t.imported ? t.imported - 1 : 0, t.refused_by_memory,
           t.peak >> 10);
    if (fd >= 0) close(fd);
    unlink(path);
    free(m.data);
    free(m.spots);
    return ok;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: fuzz_import COUNT SECONDS MODEL.onnx...\n");
        return 2;
    }
    unsigned long count = strtoul(argv[1], NULL, 10);
    double each = strtod(argv[2], NULL) / (argc - 3);
    bool ok = true;
    for (int i = 3; i < argc; i++) ok = fuzz_model(argv[i], count, seconds() + each) && ok;
    return !ok;
}
