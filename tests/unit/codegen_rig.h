/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * For tests of code generation: a graph as text -> a plan by simple rules -> a library
 * for every target that can run here (this CPU's levels; AArch64 under qemu), whose
 * outputs must equal the interpreter's byte for byte.
 */
#ifndef MPQC_TESTS_CODEGEN_RIG_H
#define MPQC_TESTS_CODEGEN_RIG_H

#include "codegen/codegen.h"
#include "codegen/target.h"
#include "ir/exec.h"
#include "ir/text.h"

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* Kernels: "P3 S1 ...": form (P, S, L) and number of nodes, in order; NULL: each node
 * alone.  halo: the result of node `halo_node` gets this halo. */
struct rig_case {
    const char *name, *text, *kernels;
    int halo[4];
    unsigned halo_node;
};

#define RIG_GUARD 64

struct rig {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_arena arena;
    struct mpqc_plan plan;
    char dir[64];
    void *in[16], *want[16];
};

static inline uint32_t rig_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Floats of all sizes, halves, NaN and infinities; integers of all bits. */
static inline void rig_fill(const struct mpqc_type *t, void *to, uint32_t seed)
{
    size_t n = mpqc_type_bytes(t);
    if (t->dtype != MPQC_DT_F32) {
        for (size_t i = 0; i < n; i++) ((uint8_t *)to)[i] = (uint8_t)(rig_random(&seed) >> 5);
        return;
    }
    static const float odd[] = {0.5f, -0.5f, 1.5f, 2.5f, -2.5f, 1e30f, -1e30f, 0.0f, -0.0f};
    float *x = to;
    for (size_t i = 0; i < n / 4; i++) {
        uint32_t r = rig_random(&seed);
        x[i] = ((float)(r & 0xffff) - 32768.0f) / 16384.0f;
        if (r % 31 == 0) x[i] = odd[r / 31 % 9];
        if (r % 97 == 0) x[i] = r & 128 ? (float)NAN : r & 256 ? (float)INFINITY : -(float)INFINITY;
    }
}

/* ---- plan ------------------------------------------------------------------------------- */

static inline void rig_dense(struct mpqc_place *p, const struct mpqc_type *t)
{
    int64_t s = 1;
    for (uint32_t d = t->rank; d-- > 0; s *= t->dims[d]) p->stride[d] = s;
}

/* Adds the bytes of v to arena_bytes; its offset counts from there. */
static inline void rig_place(struct rig *r, mpqc_vid v, const int *halo)
{
    struct mpqc_place *p = &r->plan.place[v];
    const struct mpqc_type *t = &r->g.values[v].type;
    uint64_t before = 0;
    rig_dense(p, t);
    p->space = MPQC_SPACE_ARENA;
    if (halo && t->rank == 4) {
        int64_t width = t->dims[2] + halo[1] + halo[3], height = t->dims[1] + halo[0] + halo[2];
        p->stride[1] = width * t->dims[3];
        p->stride[0] = height * p->stride[1];
        for (int i = 0; i < 4; i++) p->halo[i] = halo[i];
        before = (uint64_t)(halo[0] * p->stride[1] + halo[1] * p->stride[2]);
        r->plan.arena_bytes += (uint64_t)(t->dims[0] * p->stride[0]);
    } else {
        r->plan.arena_bytes += mpqc_type_bytes(t);
    }
    p->offset = before; /* of the first element behind the halo */
}

static inline void rig_places(struct rig *r, const struct rig_case *c)
{
    const struct mpqc_graph *g = &r->g;
    uint64_t at = MPQC_ARENA_ALIGN;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const int *halo = c->halo_node == i && (c->halo[0] | c->halo[1] | c->halo[2] | c->halo[3])
                              ? c->halo
                              : NULL;
        for (uint32_t j = 0; j < g->nodes[i].n_out; j++) {
            mpqc_vid v = g->nodes[i].out[j];
            r->plan.arena_bytes = 0;
            rig_place(r, v, halo);
            r->plan.place[v].offset += at;
            at += r->plan.arena_bytes + MPQC_ARENA_SLACK;
            at = (at + MPQC_ARENA_ALIGN - 1) / MPQC_ARENA_ALIGN * MPQC_ARENA_ALIGN;
        }
    }
    r->plan.arena_bytes = at + MPQC_ARENA_SLACK;
    for (mpqc_vid v = 0; v < g->n_values; v++)
        if (mpqc_is_const(g, v)) r->plan.place[v].space = MPQC_SPACE_CONST;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        struct mpqc_place *p = &r->plan.place[g->inputs[i]];
        *p = (struct mpqc_place){.space = MPQC_SPACE_INPUT, .index = i};
        rig_dense(p, &g->values[g->inputs[i]].type);
    }
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        struct mpqc_place *p = &r->plan.place[g->outputs[i]];
        *p = (struct mpqc_place){.space = MPQC_SPACE_OUTPUT, .index = i};
        rig_dense(p, &g->values[g->outputs[i]].type);
    }
}

static inline void rig_kernels(struct rig *r, const char *text)
{
    struct mpqc_graph *g = &r->g;
    r->plan.kernels = MPQC_NEW_ARRAY(&r->arena, struct mpqc_kernel, g->n_nodes);
    for (uint32_t at = 0; at < g->n_order;) {
        struct mpqc_kernel *k = &r->plan.kernels[r->plan.n_kernels++];
        char form = 'S';
        uint32_t n = 1;
        if (text && *text) {
            char *end;
            form = *text;
            n = (uint32_t)strtoul(text + 1, &end, 10);
            text = *end == ' ' ? end + 1 : end;
        }
        assert_true(at + n <= g->n_order);
        k->form = form == 'P'   ? MPQC_KERNEL_POINTWISE
                  : form == 'L' ? MPQC_KERNEL_LINEAR
                                : MPQC_KERNEL_SINGLE;
        k->nodes = &g->order[at];
        k->n_nodes = n;
        k->core = g->order[at];
        k->out = g->nodes[g->order[at + n - 1]].out[0];
        for (uint32_t i = 0; i + 1 < n; i++)
            r->plan.place[g->nodes[g->order[at + i]].out[0]].space = MPQC_SPACE_NONE;
        at += n;
    }
}

static inline void rig_fail(struct rig *r, const char *what)
{
    for (uint32_t i = 0; i < r->cx.n_diags; i++) mpqc_diag_print(&r->cx.diags[i], stderr);
    fail_msg("%s", what);
}

static inline void rig_open(struct rig *r, const struct rig_case *c)
{
    memset(r, 0, sizeof *r);
    mpqc_cx_init(&r->cx, &mpqc_malloc_allocator);
    mpqc_arena_init(&r->arena, &mpqc_malloc_allocator);
    mpqc_graph_init(&r->g, &mpqc_malloc_allocator);
    if (mpqc_graph_parse(&r->cx, c->text, strlen(c->text), c->name, &r->g) != MPQC_OK ||
        mpqc_graph_normalise(&r->cx, &r->g) != MPQC_OK)
        rig_fail(r, c->name);
    r->plan.n_values = r->g.n_values;
    r->plan.place = MPQC_NEW_ARRAY(&r->arena, struct mpqc_place, r->g.n_values);
    rig_places(r, c);
    rig_kernels(r, c->kernels);
    snprintf(r->dir, sizeof r->dir, "/tmp/mpqc-rig-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    for (uint32_t i = 0; i < r->g.n_inputs; i++) {
        const struct mpqc_type *t = &r->g.values[r->g.inputs[i]].type;
        r->in[i] = malloc(mpqc_type_bytes(t) + 1);
        rig_fill(t, r->in[i], 17 + i);
    }
    for (uint32_t i = 0; i < r->g.n_outputs; i++)
        r->want[i] = malloc(mpqc_type_bytes(&r->g.values[r->g.outputs[i]].type) + 1);
    struct mpqc_runner *runner = NULL;
    if (mpqc_interpreter.prepare(&r->cx, &r->g, &runner) != MPQC_OK) rig_fail(r, c->name);
    const void *in[16];
    for (int i = 0; i < 16; i++) in[i] = r->in[i];
    assert_int_equal(mpqc_interpreter.run(runner, in, r->want, NULL, NULL), MPQC_OK);
    mpqc_interpreter.release(runner);
}

static inline void rig_close(struct rig *r)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", r->dir);
    assert_int_equal(system(command), 0);
    for (int i = 0; i < 16; i++) {
        free(r->in[i]);
        free(r->want[i]);
    }
    mpqc_graph_release(&r->g);
    mpqc_arena_release(&r->arena);
    mpqc_cx_release(&r->cx);
}

static inline void rig_emit(struct rig *r, const char *target, enum mpqc_emit emit,
                            const char *path)
{
    struct mpqc_target t;
    if (mpqc_target_find(&r->cx, target, NULL, &t) != MPQC_OK) rig_fail(r, target);
    struct mpqc_codegen_request rq = {.graph = &r->g,
                                      .plan = &r->plan,
                                      .target = &t,
                                      .emit = emit,
                                      .path = path,
                                      .verify_llvm = true};
    struct mpqc_codegen_facts facts;
    if (mpqc_codegen_emit(&r->cx, &rq, &facts) != MPQC_OK) rig_fail(r, target);
}

/* ---- running here ------------------------------------------------------------------------ */

static inline void rig_backwards(void *pool, mpqc_task task, void *arg, int64_t n)
{
    (void)pool;
    for (int64_t i = n; i-- > 0;) task(arg, i, i + 1);
}

/* Which NaN an operation makes is the CPU's affair. */
static inline bool rig_both_nan(const uint8_t *a, const uint8_t *b, size_t i)
{
    float x, y;
    memcpy(&x, a + 4 * i, 4);
    memcpy(&y, b + 4 * i, 4);
    return x != x && y != y;
}

static inline void rig_compare(const struct rig *r, const char *name, const char *target,
                               uint32_t i, const uint8_t *got)
{
    const struct mpqc_type *t = &r->g.values[r->g.outputs[i]].type;
    size_t n = mpqc_type_bytes(t), size = mpqc_dtypes[t->dtype].bytes;
    const uint8_t *want = r->want[i];
    for (size_t k = 0; k < n; k++)
        if (got[k] != want[k] && !(t->dtype == MPQC_DT_F32 && rig_both_nan(got, want, k / 4)))
            fail_msg("%s on %s: output %u differs in element %zu of %zu: byte %u, not %u", name,
                     target, i, k / size, n / size, got[k], want[k]);
}

/* The halo must hold the zero point all around. */
static inline void rig_check_halo(const struct rig *r, const struct rig_case *c,
                                  const uint8_t *ws)
{
    const struct mpqc_node *node = &r->g.nodes[c->halo_node];
    const struct mpqc_place *p = &r->plan.place[node->out[0]];
    const struct mpqc_type *t = &r->g.values[node->out[0]].type;
    if (p->space != MPQC_SPACE_ARENA || t->rank != 4) return;
    int zero = t->quant ? t->quant->zero[0] & 255 : 0;
    for (int64_t n = 0; n < t->dims[0]; n++)
        for (int64_t y = -p->halo[0]; y < t->dims[1] + p->halo[2]; y++)
            for (int64_t x = -p->halo[1]; x < t->dims[2] + p->halo[3]; x++)
                for (int64_t ch = 0; ch < t->dims[3]; ch++) {
                    if (y >= 0 && y < t->dims[1] && x >= 0 && x < t->dims[2]) continue;
                    int64_t at = (int64_t)p->offset + n * p->stride[0] + y * p->stride[1] +
                                 x * p->stride[2] + ch;
                    if (ws[at] != zero)
                        fail_msg("%s: halo of %d,%d is %u, not %d", c->name, (int)y, (int)x,
                                 ws[at], zero);
                }
}

static inline void rig_run_here(struct rig *r, const struct rig_case *c, const char *target)
{
    char path[128];
    snprintf(path, sizeof path, "%s/m.so", r->dir);
    rig_emit(r, target, MPQC_EMIT_SO, path);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) fail_msg("%s: %s", c->name, dlerror());
    const struct mpqc_model *m = dlsym(lib, "mpqc_model");
    assert_non_null(m);
    assert_int_equal(m->supported(), 1);
    uint8_t *ws = aligned_alloc(64, m->workspace_size);
    struct mpqc_exec exec = {.struct_size = sizeof exec, .threads = 4,
                             .parallel_for = rig_backwards};
    for (int pass = 0; pass < 2; pass++) {
        const void *in[16];
        uint8_t *out[16];
        memset(ws, 0xa5, m->workspace_size);
        for (uint32_t i = 0; i < m->n_inputs; i++) in[i] = r->in[i];
        for (uint32_t i = 0; i < m->n_outputs; i++) {
            out[i] = malloc(m->outputs[i].bytes + RIG_GUARD);
            memset(out[i], 0x5a, m->outputs[i].bytes + RIG_GUARD);
        }
        assert_int_equal(m->run(in, (void *const *)out, ws, pass ? &exec : NULL), 0);
        for (uint32_t i = 0; i < m->n_outputs; i++) {
            rig_compare(r, c->name, target, i, out[i]);
            for (int k = 0; k < RIG_GUARD; k++)
                assert_int_equal(out[i][m->outputs[i].bytes + (uint64_t)k], 0x5a);
            free(out[i]);
        }
        rig_check_halo(r, c, ws);
    }
    free(ws);
    dlclose(lib);
}

/* ---- running elsewhere --------------------------------------------------------------------- */

static inline void rig_unload(void)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/mpqc-rig-loader-%d", (int)getpid());
    unlink(path);
}

/* The loader for AArch64, built once per test program; NULL with a printed reason
 * where the tools are missing. */
static inline const char *rig_loader(void)
{
    static char path[64];
    static int state; /* 0 unknown, 1 there, 2 missing */
    if (state == 0) {
        char command[512];
        snprintf(path, sizeof path, "/tmp/mpqc-rig-loader-%d", (int)getpid());
        snprintf(command, sizeof command,
                 "command -v qemu-aarch64 >/dev/null && aarch64-linux-gnu-gcc -O1 -I%s -o %s "
                 "%s/tests/support/run_raw.c -ldl 2>/dev/null",
                 MPQC_SOURCE_DIR, path, MPQC_SOURCE_DIR);
        state = system(command) == 0 ? 1 : 2;
        atexit(rig_unload);
        if (state == 2)
            print_message("skipped on aarch64: qemu-aarch64 or aarch64-linux-gnu-gcc is missing\n");
    }
    return state == 1 ? path : NULL;
}

static inline void rig_file(const char *path, void *data, size_t n, bool write)
{
    FILE *f = fopen(path, write ? "wb" : "rb");
    assert_non_null(f);
    size_t done = write ? fwrite(data, 1, n, f) : fread(data, 1, n, f);
    assert_int_equal(done, n);
    assert_int_equal(fclose(f), 0);
}

static inline void rig_run_qemu(struct rig *r, const struct rig_case *c, const char *target)
{
    const char *loader = rig_loader();
    char path[128], command[2048];
    if (!loader) return;
    snprintf(path, sizeof path, "%s/m.so", r->dir);
    rig_emit(r, target, MPQC_EMIT_SO, path);
    int n = snprintf(command, sizeof command, "qemu-aarch64 -L /usr/aarch64-linux-gnu %s %s",
                     loader, path);
    for (uint32_t i = 0; i < r->g.n_inputs; i++) {
        snprintf(path, sizeof path, "%s/in%u", r->dir, i);
        rig_file(path, r->in[i], mpqc_type_bytes(&r->g.values[r->g.inputs[i]].type), true);
        n += snprintf(command + n, sizeof command - (size_t)n, " %s", path);
    }
    for (uint32_t i = 0; i < r->g.n_outputs; i++)
        n += snprintf(command + n, sizeof command - (size_t)n, " %s/out%u", r->dir, i);
    int status = system(command);
    if (status != 0) fail_msg("%s on %s: status %d of %s", c->name, target, status, command);
    for (uint32_t i = 0; i < r->g.n_outputs; i++) {
        size_t bytes = mpqc_type_bytes(&r->g.values[r->g.outputs[i]].type);
        uint8_t *got = malloc(bytes + 1);
        snprintf(path, sizeof path, "%s/out%u", r->dir, i);
        rig_file(path, got, bytes, false);
        rig_compare(r, c->name, target, i, got);
        free(got);
    }
}

/* One case on every target that can run here. */
static inline void rig_check(const struct rig_case *c)
{
    struct rig r;
    rig_open(&r, c);
    for (unsigned i = 0; mpqc_target_name(i); i++) {
        const char *name = mpqc_target_name(i);
        struct mpqc_target t;
        if (mpqc_target_find(&r.cx, name, NULL, &t) != MPQC_OK) rig_fail(&r, name);
        if (mpqc_target_on_host(mpqc_target_row(&t))) rig_run_here(&r, c, name);
        else if (t.arch == MPQC_ARCH_AARCH64) rig_run_qemu(&r, c, name);
    }
    rig_close(&r);
}

/* A program that checks each row of an array of cases. */
#define RIG_MAIN(cases)                                                                           \
    static void test_cases(void **state)                                                          \
    {                                                                                             \
        (void)state;                                                                              \
        for (size_t i = 0; i < MPQC_LEN(cases); i++) rig_check(&(cases)[i]);                      \
    }                                                                                             \
    int main(void)                                                                                \
    {                                                                                             \
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};                         \
        return cmocka_run_group_tests(tests, NULL, NULL);                                         \
    }

#endif
