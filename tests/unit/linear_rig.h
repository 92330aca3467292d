/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Linear kernels are compiled for every target, run, and compared byte by byte with the
 * interpreter.  Targets that this machine lacks are run under emulation where that is
 * installed.  LINEAR_CASES is the table; every_case_matches_the_interpreter goes through it.
 */
#ifndef MPQC_TESTS_LINEAR_RIG_H
#define MPQC_TESTS_LINEAR_RIG_H

#include "codegen/codegen.h"
#include "ir/exec.h"
#include "linear_graph.h"
#include "runtime/mpqc_model.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#define C(...) {.core = CONV, __VA_ARGS__}
static const struct test_case cases[] = {
#include LINEAR_CASES
};

/* ---- running ------------------------------------------------------------------------ */

struct buffers {
    void *in[3];
    void *want, *got;
    size_t in_bytes[3], out_bytes;
    uint32_t n_in;
};

static inline void prepare(struct fixture *f, struct buffers *b)
{
    b->n_in = f->g.n_inputs;
    for (uint32_t i = 0; i < b->n_in; i++) {
        b->in_bytes[i] = mpqc_type_bytes(&f->g.values[f->g.inputs[i]].type);
        uint8_t *p = b->in[i] = malloc(b->in_bytes[i]);
        enum mpqc_dtype t = f->g.values[f->g.inputs[i]].type.dtype;
        int64_t most = mpqc_dtype_is_byte(t) ? mpqc_dtypes[t].max : 255;
        for (size_t k = 0; k < b->in_bytes[i]; k++) p[k] = (uint8_t)between(f, 0, most);
    }
    b->out_bytes = mpqc_type_bytes(&f->g.values[f->g.outputs[0]].type);
    b->want = calloc(1, b->out_bytes);
    b->got = malloc(b->out_bytes + 128);
    struct mpqc_runner *r = NULL;
    const void *in[] = {b->in[0], b->in[1], b->in[2]};
    assert_int_equal(mpqc_interpreter.prepare(&f->cx, &f->g, &r), MPQC_OK);
    assert_int_equal(mpqc_interpreter.run(r, in, &b->want, NULL, NULL), MPQC_OK);
    mpqc_interpreter.release(r);
}

/* A parallel-for that does every unit by itself, from last to first. */
static inline void backwards(void *pool, mpqc_task task, void *arg, int64_t n)
{
    (void)pool;
    while (n-- > 0) task(arg, n, n + 1);
}

static inline void run_once(const struct mpqc_model *m, struct buffers *b, const struct mpqc_exec *exec)
{
    const void *in[] = {b->in[0], b->in[1], b->in[2]};
    uint8_t *guarded = b->got;
    memset(guarded, 0xa5, b->out_bytes + 128);
    void *out[] = {guarded + 64};
    void *ws = aligned_alloc(m->workspace_align, m->workspace_size);
    assert_non_null(ws);
    memset(ws, 0x5a, m->workspace_size);
    assert_int_equal(m->run(in, out, ws, exec), MPQC_RUN_OK);
    free(ws);
    for (int i = 0; i < 64; i++)
        assert_true(guarded[i] == 0xa5 && guarded[64 + b->out_bytes + i] == 0xa5);
    memmove(guarded, guarded + 64, b->out_bytes);
}

static void compare(const struct buffers *b, const char *target, size_t number);

/* Does nothing if this machine lacks the target's features. */
static inline void run_here(const char *path, struct buffers *b, const char *name, size_t number)
{
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) fail_msg("%s", dlerror());
    const struct mpqc_model *m = dlsym(lib, "mpqc_model");
    assert_non_null(m);
    bool can = m->supported();
    if (can) {
        struct mpqc_exec exec = {.struct_size = sizeof exec, .threads = 2,
                                 .parallel_for = backwards};
        run_once(m, b, &exec);
        compare(b, name, number);
        run_once(m, b, NULL);
        compare(b, name, number);
    }
    dlclose(lib);
}

static const char emulator[] = "qemu-aarch64 -L /usr/aarch64-linux-gnu";

static const char *foreign_runner(void)
{
    static char path[512];
    static int state; /* 0: not tried, 1: there, -1: cannot be built */
    if (state == 0) {
        char command[2048];
        snprintf(path, sizeof path, "%s/foreign_runner.aarch64", MPQC_BINARY_DIR);
        /* renamed when it is whole: another test may be running the one that is there */
        snprintf(command, sizeof command,
                 "aarch64-linux-gnu-gcc -O1 -I%s %s/tests/unit/foreign_runner.c -o %s.%ld -ldl "
                 "2>/dev/null && mv %s.%ld %s && command -v qemu-aarch64 >/dev/null",
                 MPQC_SOURCE_DIR, MPQC_SOURCE_DIR, path, (long)getpid(), path, (long)getpid(),
                 path);
        state = system(command) == 0 ? 1 : -1;
    }
    return state == 1 ? path : NULL;
}

static inline void write_bytes(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline bool run_emulated(const char *path, struct buffers *b)
{
    const char *runner = foreign_runner();
    char command[4096], out[600], in[3][600];
    if (!runner) return false;
    snprintf(out, sizeof out, "%s.out", path);
    int n = snprintf(command, sizeof command, "%s %s %s %s", emulator, runner, path, out);
    for (uint32_t i = 0; i < b->n_in; i++) {
        snprintf(in[i], sizeof in[i], "%s.in%u", path, i);
        write_bytes(in[i], b->in[i], b->in_bytes[i]);
        n += snprintf(command + n, sizeof command - (size_t)n, " %s", in[i]);
    }
    int rc = system(command);
    if (rc != 0) fail_msg("%s: status %d", command, rc);
    FILE *f = fopen(out, "rb");
    assert_non_null(f);
    assert_int_equal(fread(b->got, 1, b->out_bytes, f), b->out_bytes);
    fclose(f);
    for (uint32_t i = 0; i < b->n_in; i++) unlink(in[i]);
    unlink(out);
    return true;
}

static inline void compare(const struct buffers *b, const char *target, size_t number)
{
    const uint8_t *want = b->want, *got = b->got;
    for (size_t i = 0; i < b->out_bytes; i++)
        if (want[i] != got[i])
            fail_msg("case %zu, %s: byte %zu of %zu is %d, not %d", number, target, i,
                     b->out_bytes, got[i], want[i]);
}

/* The tile that the case asks for; as in tiles.c. */
static inline uint32_t wish(const void *user, uint64_t shape)
{
    const struct test_case *t = user;
    (void)shape;
    return t->m ? MPQC_TILE_SERIAL | t->nv << 16 | t->m << 8 | 1 : 0;
}

/* Only bit-serial tiles have been asked for; targets that count bits must have taken them. */
static inline void check_tile(const struct test_case *t, const struct mpqc_target *target,
                       const struct mpqc_tile_facts *facts)
{
    bool counts = mpqc_target_bit_rate(target) > 0;
    bool found = false, serial = false;
    for (int i = 0; i < 8; i++) {
        serial = serial || facts[i].tile & MPQC_TILE_SERIAL;
        found = found || facts[i].tile == (t->m ? wish(t, 0) : 0);
    }
    assert_int_equal(serial && t->m, counts && t->m);
    if (t->m && counts && !found) fail_msg("%s has no tile of %u x %u", target->name, t->m, t->nv);
}

static inline void run_case(const struct test_case *t, size_t number)
{
    static struct fixture f;
    struct buffers b = {0};
    struct mpqc_tile_facts facts[MPQC_LEN(f.kernel)];
    const struct mpqc_tile_request tiles = {.rank = t->rank, .wish = wish, .facts = facts,
                                            .user = t};
    memset(&f, 0, sizeof f);
    f.seed = (uint32_t)(2463534242u + 977 * number);
    mpqc_cx_init(&f.cx, NULL);
    mpqc_graph_init(&f.g, NULL);
    build(&f, t);
    prepare(&f, &b);
    const char *name;
    for (unsigned i = 0; (name = mpqc_target_name(i)); i++) {
        struct mpqc_target target;
        char path[512];
        const char *colon = strchr(name, ':');
        char arch[32];
        snprintf(arch, sizeof arch, "%.*s", (int)(colon - name), name);
        assert_int_equal(mpqc_target_find(&f.cx, arch, colon + 1, &target), MPQC_OK);
        snprintf(path, sizeof path, "%s/linear%zu.%d.%s.so", MPQC_BINARY_DIR, number,
                 (int)getpid(), colon + 1);
        struct mpqc_codegen_request rq = {.graph = &f.g, .plan = &f.plan, .target = &target,
                                          .emit = MPQC_EMIT_SO, .path = path,
                                          .verify_llvm = true,
                                          .tiles = &tiles};
        memset(facts, 0, sizeof facts);
        mpqc_status s = mpqc_codegen_emit(&f.cx, &rq, NULL);
        if (s != MPQC_OK) mpqc_diag_print(&f.cx.diags[0], stderr);
        assert_int_equal(s, MPQC_OK);
        check_tile(t, &target, facts);
        if (target.arch == MPQC_ARCH_X86_64) run_here(path, &b, name, number);
        else if (run_emulated(path, &b)) compare(&b, name, number);
        if (!getenv("MPQC_TEST_KEEP")) unlink(path);
    }
    for (uint32_t i = 0; i < b.n_in; i++) free(b.in[i]);
    free(b.want);
    free(b.got);
    mpqc_graph_release(&f.g);
    mpqc_cx_release(&f.cx);
}

/* MPQC_TEST_CASE=N runs one case only. */
static inline void every_case_matches_the_interpreter(void **state)
{
    (void)state;
    const char *only = getenv("MPQC_TEST_CASE");
    for (size_t i = 0; i < MPQC_LEN(cases); i++)
        if (!only || (size_t)strtoul(only, NULL, 10) == i) run_case(&cases[i], i);
}

#endif
