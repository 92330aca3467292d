/* SPDX-License-Identifier: GPL-3.0-or-later
 * From float graphs as text to machine code: what the passes make, codegen compiles,
 * and the library gives the bytes of the interpreter on every target of this CPU.
 */
#include "quant_rig.h"

#include "codegen/codegen.h"

#include <dlfcn.h>
#include <unistd.h>

static void backwards(void *pool, mpqc_task task, void *arg, int64_t n)
{
    (void)pool;
    for (int64_t i = n; i-- > 0;) task(arg, i, i + 1);
}

struct buffers {
    void *in[4], *want[4];
};

static void make_buffers(struct qrig *r, struct buffers *b)
{
    uint32_t state = 99;
    struct mpqc_runner *runner;
    for (uint32_t i = 0; i < r->g.n_inputs; i++) {
        const struct mpqc_type *t = &r->g.values[r->g.inputs[i]].type;
        size_t bytes = mpqc_type_bytes(t);
        b->in[i] = malloc(bytes);
        assert_non_null(b->in[i]);
        for (size_t k = 0; k < bytes / mpqc_dtypes[t->dtype].bytes; k++) {
            if (t->dtype == MPQC_DT_F32) ((float *)b->in[i])[k] = 1.5f * qrig_random(&state);
            else ((uint8_t *)b->in[i])[k] = (uint8_t)(128 + 127 * qrig_random(&state));
        }
    }
    for (uint32_t i = 0; i < r->g.n_outputs; i++)
        b->want[i] = malloc(mpqc_type_bytes(&r->g.values[r->g.outputs[i]].type));
    assert_int_equal(mpqc_interpreter.prepare(&r->cx, &r->g, &runner), MPQC_OK);
    const void *const *in = (const void *const *)b->in;
    assert_int_equal(mpqc_interpreter.run(runner, in, b->want, NULL, NULL), MPQC_OK);
    mpqc_interpreter.release(runner);
}

static void run_model(const struct mpqc_model *m, const struct buffers *b, const char *name)
{
    uint8_t *workspace = aligned_alloc(m->workspace_align, m->workspace_size);
    struct mpqc_exec exec = {.struct_size = sizeof exec, .threads = 4, .parallel_for = backwards};
    assert_non_null(workspace);
    for (int pass = 0; pass < 2; pass++) {
        void *out[4];
        memset(workspace, 0xa5, m->workspace_size);
        for (uint32_t i = 0; i < m->n_outputs; i++) out[i] = malloc(m->outputs[i].bytes);
        assert_int_equal(m->run((const void *const *)b->in, out, workspace, pass ? &exec : NULL), 0);
        for (uint32_t i = 0; i < m->n_outputs; i++) {
            if (memcmp(out[i], b->want[i], m->outputs[i].bytes) != 0)
                fail_msg("%s: output %u differs from the interpreter", name, i);
            free(out[i]);
        }
    }
    free(workspace);
}

static void compile(struct qrig *r, const char *target, const char *name, const char *path)
{
    struct mpqc_target t;
    struct mpqc_codegen_facts facts;
    assert_int_equal(mpqc_target_find(&r->cx, target, NULL, &t), MPQC_OK);
    struct mpqc_codegen_request rq = {.graph = &r->g, .plan = r->p.plan, .target = &t,
                                      .emit = MPQC_EMIT_SO, .path = path, .verify_llvm = true};
    if (mpqc_codegen_emit(&r->cx, &rq, &facts) == MPQC_OK) return;
    for (uint32_t i = 0; i < r->cx.n_diags; i++) mpqc_diag_print(&r->cx.diags[i], stderr);
    fail_msg("%s cannot be compiled for %s", name, target);
}

static void check(const struct qcase *c, bool int_io, const char *target, const char *path)
{
    struct qrig r;
    struct buffers b;
    qrig_init(&r, c->text);
    r.options.int_io = int_io;
    qrig_run(&r, 4);
    make_buffers(&r, &b);
    compile(&r, target, c->name, path);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) fail_msg("%s: %s", c->name, dlerror());
    const struct mpqc_model *m = dlsym(lib, "mpqc_model");
    assert_non_null(m);
    if (m->supported()) run_model(m, &b, c->name);
    dlclose(lib);
    for (uint32_t i = 0; i < r.g.n_inputs; i++) free(b.in[i]);
    for (uint32_t i = 0; i < r.g.n_outputs; i++) free(b.want[i]);
    qrig_release(&r);
}

static void libraries_give_the_bytes_of_the_interpreter(void **state)
{
    (void)state;
    char dir[] = "/tmp/mpqc-compiled-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/m.so", dir);
    for (size_t i = 0; i < sizeof qcases / sizeof qcases[0]; i++) {
        check(&qcases[i], false, "native", path);
        check(&qcases[i], true, "native", path);
    }
    unlink(path);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(libraries_give_the_bytes_of_the_interpreter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
