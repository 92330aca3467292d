/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 *     e2e_exact NETWORK IMAGES [NAME PIN]
 *
 * One meaning everywhere: the interpreter on the integer graph, and the library of
 * every target that can run here (this CPU, or qemu for aarch64), with float and with
 * integer inputs and outputs, on one thread and on two, give the same bytes for the
 * first IMAGES test images of Fashion-MNIST.  The workspace and the outputs hold
 * random bytes before each run and are surrounded by guards; the inputs stay as they
 * are.  The libraries are no larger than they may be, and stay in MPQC_LIB_DIR.  PIN is a
 * rule as mpqc -pin has it, for the bits of some layers; libraries are called NETWORK-NAME.
 */
#include "ir/elements.h"
#include "runtime/mpqc_load.h"
#include "runtime/mpqc_pool.h"
#include "tests/e2e/support.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define CALIBRATION 64
#define GUARD 64
#define QEMU "qemu-aarch64"
#define CROSS_ROOT "/usr/aarch64-linux-gnu"
#define CROSS_RUN MPQC_BINARY_DIR "/bin/mpqc-run-aarch64"

/* What goes in and what must come out. */
struct answers {
    const struct e2e_network *net;
    const struct e2e_compiled *compiled;
    bool int_io;
    uint64_t count;
    size_t in_bytes, out_bytes;
    uint8_t *in, *out; /* count rows */
};

static const struct mpqc_type *input_type(const struct answers *a)
{
    return &mpqc_value_at(&a->compiled->graph, a->compiled->graph.inputs[0])->type;
}
static const struct mpqc_type *output_type(const struct answers *a)
{
    return &mpqc_value_at(&a->compiled->graph, a->compiled->graph.outputs[0])->type;
}

/* Integers for a quantised input.  Any would do: both sides get the same. */
static void quantise_row(const struct mpqc_type *t, const float *x, uint8_t *to)
{
    const struct mpqc_dtype_info *d = &mpqc_dtypes[t->dtype];
    CHECK(d->bytes <= 2 && t->quant, "the input of an -io=int graph is %s", d->text);
    for (int64_t i = 0; i < mpqc_type_count(t); i++) {
        float q = rintf(x[i] / t->quant->scale[0]) + (float)t->quant->zero[0];
        q = fminf(fmaxf(q, (float)d->min), (float)d->max);
        mpqc_element_set(t->dtype, to, i, (int64_t)q);
    }
}

static void make_inputs(struct answers *a)
{
    struct e2e_images images;
    const struct mpqc_type *t = input_type(a);
    e2e_images_open(&images, TEST_IMAGES, a->net, &a->compiled->graph);
    CHECK(a->count <= images.count, "there are only %llu images", (unsigned long long)images.count);
    float *row = e2e_malloc((size_t)mpqc_type_count(t) * sizeof *row);
    for (uint64_t i = 0; i < a->count; i++) {
        uint8_t *to = a->in + i * a->in_bytes;
        e2e_images_get(&images, i, row);
        if (a->int_io) quantise_row(t, row, to);
        else memcpy(to, row, a->in_bytes);
    }
    free(row);
    e2e_images_close(&images);
}

/* The oracle. */
static void interpret(struct answers *a, struct mpqc_cx *cx)
{
    struct mpqc_runner *r;
    e2e_expect_ok(cx, mpqc_interpreter.prepare(cx, &a->compiled->graph, &r), "prepare");
    for (uint64_t i = 0; i < a->count; i++) {
        const void *in[] = {a->in + i * a->in_bytes};
        void *out[] = {a->out + i * a->out_bytes};
        e2e_expect_ok(cx, mpqc_interpreter.run(r, in, out, NULL, NULL), "the interpreter");
    }
    mpqc_interpreter.release(r);
}

static void make_answers(struct answers *a, struct e2e_compiled *c)
{
    CHECK(c->graph.n_outputs == 1, "%s has %u outputs", a->net->name, c->graph.n_outputs);
    a->compiled = c;
    a->in_bytes = mpqc_type_bytes(input_type(a));
    a->out_bytes = mpqc_type_bytes(output_type(a));
    a->in = e2e_malloc(a->count * a->in_bytes);
    a->out = e2e_malloc(a->count * a->out_bytes);
    make_inputs(a);
    interpret(a, &c->cx);
    bool differ = false;
    for (uint64_t i = 1; i < a->count; i++)
        differ |= memcmp(a->out, a->out + i * a->out_bytes, a->out_bytes) != 0;
    CHECK(differ, "the interpreter gives one answer to all images");
}

/* ---- in this process ---- */

/* Memory between two guards. */
struct guarded {
    uint8_t *base, *p;
    size_t n;
};

static struct guarded guarded_make(size_t n, size_t align)
{
    struct guarded g = {.n = n};
    size_t front = align > GUARD ? align : GUARD;
    CHECK(posix_memalign((void **)&g.base, front, front + n + GUARD) == 0, "out of memory");
    g.p = g.base + front;
    memset(g.p - GUARD, 0xc3, GUARD);
    memset(g.p + n, 0xc3, GUARD);
    return g;
}

static bool guarded_intact(const struct guarded *g)
{
    bool ok = true;
    for (size_t i = 0; i < GUARD; i++)
        ok = ok && g->p[g->n + i] == 0xc3 && g->p[(ptrdiff_t)i - GUARD] == 0xc3;
    return ok;
}

static void check_descriptor(const struct answers *a, const struct mpqc_model *m,
                             const struct mpqc_target *target)
{
    CHECK(m->n_inputs == 1 && m->n_outputs == 1, "%s: %u inputs, %u outputs", target->name,
          m->n_inputs, m->n_outputs);
    CHECK(m->inputs[0].bytes == a->in_bytes && m->outputs[0].bytes == a->out_bytes,
          "%s: sizes of input or output differ from the graph's", target->name);
    CHECK((m->inputs[0].element == MPQC_ELEM_F32) == !a->int_io, "%s: element type of the input",
          target->name);
    CHECK(strcmp(m->target, target->name) == 0, "%s: the descriptor says %s", target->name,
          m->target);
    CHECK(m->n_layers == a->compiled->passes.plan->n_kernels, "%s: %u layers", target->name,
          m->n_layers);
}

/* What differs, for the report. */
static void explain(const struct answers *a, uint64_t i, const uint8_t *got, const char *who)
{
    const uint8_t *want = a->out + i * a->out_bytes;
    size_t at = 0, n = 0;
    for (size_t k = a->out_bytes; k-- > 0;)
        if (want[k] != got[k]) {
            at = k;
            n++;
        }
    e2e_die(__FILE__, __LINE__,
            "%s, io %s, %s: image %llu: %zu of %zu bytes differ from the interpreter's; the first "
            "is byte %zu, 0x%02x instead of 0x%02x",
            a->net->name, a->int_io ? "int" : "float", who, (unsigned long long)i, n, a->out_bytes,
            at, got[at], want[at]);
}

static void run_here(const struct answers *a, const struct mpqc_model *m, uint32_t threads,
                     const char *who)
{
    struct guarded ws = guarded_make((size_t)m->workspace_size, (size_t)m->workspace_align);
    struct guarded out = guarded_make(a->out_bytes, GUARD);
    struct mpqc_pool *pool = threads > 1 ? mpqc_pool_create(threads) : NULL;
    uint8_t *in = e2e_malloc(a->in_bytes);
    struct mpqc_exec exec;
    uint64_t state = 7;
    CHECK(threads == 1 || mpqc_pool_threads(pool) == threads, "no pool of %u threads", threads);
    mpqc_pool_exec(pool, &exec);
    for (uint64_t i = 0; i < a->count; i++) {
        const uint8_t *row = a->in + i * a->in_bytes;
        memcpy(in, row, a->in_bytes);
        e2e_random_bytes(&state, ws.p, ws.n);
        e2e_random_bytes(&state, out.p, out.n);
        int rc = m->run((const void *const[]){in}, (void *const[]){out.p}, ws.p, &exec);
        CHECK(rc == MPQC_RUN_OK, "%s: run() returns %d", who, rc);
        if (memcmp(out.p, a->out + i * a->out_bytes, a->out_bytes) != 0) explain(a, i, out.p, who);
        CHECK(memcmp(in, row, a->in_bytes) == 0, "%s: image %d: the input was written to", who,
              (int)i);
        CHECK(guarded_intact(&ws), "%s: image %d: a write beside the workspace", who, (int)i);
        CHECK(guarded_intact(&out), "%s: image %d: a write beside the output", who, (int)i);
    }
    mpqc_pool_destroy(pool);
    free(in);
    free(out.base);
    free(ws.base);
}

/* False: this CPU cannot run it. */
static bool test_here(const struct answers *a, const struct mpqc_target *t, const char *path)
{
    struct mpqc_loaded lib;
    char error[MPQC_LOAD_ERROR];
    CHECK(mpqc_load_open(path, NULL, &lib, error) == 0, "%s", error);
    check_descriptor(a, lib.model, t);
    bool can = lib.model->supported() != 0;
    if (can) {
        run_here(a, lib.model, 1, t->name);
        run_here(a, lib.model, 2, t->name);
    }
    mpqc_load_close(&lib);
    return can;
}

/* ---- under qemu ---- */

/* NULL, or why aarch64 code cannot be run here. */
static const char *no_qemu(void)
{
    if (system("command -v " QEMU " >/dev/null 2>&1") != 0) return "there is no " QEMU;
    if (access(CROSS_ROOT "/lib/ld-linux-aarch64.so.1", R_OK) != 0)
        return "there is no C library for aarch64 in " CROSS_ROOT;
    if (access(CROSS_RUN, X_OK) != 0) return "mpqc-run-aarch64 was not built";
    return NULL;
}

static uint32_t element_of(const struct mpqc_type *t)
{
    switch (t->dtype) {
    case MPQC_DT_F32: return MPQC_ELEM_F32;
    case MPQC_DT_U8: return MPQC_ELEM_U8;
    case MPQC_DT_I8: return MPQC_ELEM_I8;
    case MPQC_DT_I16: return MPQC_ELEM_I16;
    default: e2e_die(__FILE__, __LINE__, "no boundary type: %s", mpqc_dtypes[t->dtype].text);
    }
}

/* All rows as an .npy, first axis = samples. */
static void write_inputs(const struct answers *a, const char *path)
{
    struct mpqc_npy_writer *w;
    struct mpqc_data_error err;
    const struct mpqc_type *t = input_type(a);
    int64_t dims[MPQC_MAX_RANK + 1] = {(int64_t)a->count};
    memcpy(dims + 1, t->dims, t->rank * sizeof *dims);
    bool ok = mpqc_npy_create(path, element_of(t), t->rank + 1, dims, &w, &err) == 0 &&
              mpqc_npy_append(w, a->in, a->count * a->in_bytes, &err) == 0 &&
              mpqc_npy_close(w, 1, &err) == 0;
    CHECK(ok, "%s", err.text);
}

static void test_qemu(const struct answers *a, const struct mpqc_target *t, const char *path,
                      unsigned threads)
{
    char in[1100], out[1100], command[8192];
    struct mpqc_data *file;
    struct mpqc_data_error err;
    snprintf(in, sizeof in, "%s.in.npy", path);
    snprintf(out, sizeof out, "%s.out.npy", path);
    write_inputs(a, in);
    unlink(out);
    snprintf(command, sizeof command,
             QEMU " -L " CROSS_ROOT " '" CROSS_RUN "' '%s' -in='%s' -out='%s' -threads=%u%s >/dev/null",
             path, in, out, threads, a->int_io ? " -raw" : "");
    CHECK(system(command) == 0, "this fails: %s", command);
    CHECK(mpqc_data_open(out, 0, NULL, &file, &err) == 0, "%s", err.text);
    const struct mpqc_array *y = mpqc_data_at(file, 0);
    CHECK(y->bytes == a->count * a->out_bytes, "%s: %zu bytes of answers", t->name, y->bytes);
    for (uint64_t i = 0; i < a->count; i++) {
        const uint8_t *row = (const uint8_t *)y->data + i * a->out_bytes;
        if (memcmp(row, a->out + i * a->out_bytes, a->out_bytes) != 0) explain(a, i, row, t->name);
    }
    mpqc_data_close(file);
    unlink(in);
    unlink(out);
}

/* ---- one target ---- */

static uint64_t emit(const struct answers *a, struct mpqc_cx *cx, const struct mpqc_target *t,
                     const char *path)
{
    struct mpqc_preprocess none = {.channels = 0};
    struct mpqc_codegen_facts facts;
    struct stat st;
    struct mpqc_codegen_request rq = {.graph = &a->compiled->graph,
                                      .plan = a->compiled->passes.plan,
                                      .target = t,
                                      .preprocess = &none,
                                      .emit = MPQC_EMIT_SO,
                                      .path = path,
                                      .verify_llvm = true};
    e2e_expect_ok(cx, mpqc_codegen_emit(cx, &rq, &facts), t->name);
    CHECK(stat(path, &st) == 0, "%s was not written", path);
    CHECK(facts.file_bytes == (uint64_t)st.st_size, "file_bytes is %llu, not %lld",
          (unsigned long long)facts.file_bytes, (long long)st.st_size);
    return (uint64_t)st.st_size;
}

/* The number of libraries that are too large. */
static unsigned test_target(const struct answers *a, struct mpqc_cx *cx,
                            const struct mpqc_target *t, const char *no_cross)
{
    char path[1024], name[64];
    snprintf(name, sizeof name, "%s", t->name);
    for (char *p = name; *p; p++)
        if (*p == ':') *p = '_';
    snprintf(path, sizeof path, MPQC_LIB_DIR "/%s-%s-%s.so", a->net->name, name,
             a->int_io ? "int" : "float");
    uint64_t size = emit(a, cx, t, path), weights = e2e_weight_bytes(&a->compiled->graph);
    uint64_t limit = weights + weights * 15 / 100 + 65536;
    const char *verdict = "same bytes";
    if (t->arch == MPQC_ARCH_X86_64) {
        if (!test_here(a, t, path)) verdict = "skipped: this CPU lacks what it needs";
    } else if (no_cross) {
        verdict = no_cross;
    } else {
        test_qemu(a, t, path, a->int_io ? 2 : 1);
    }
    printf("%-20s %-20s io %-5s %7llu bytes (limit %llu): %s\n", a->net->name, t->name,
           a->int_io ? "int" : "float", (unsigned long long)size, (unsigned long long)limit,
           verdict);
    if (size <= limit) return 0;
    fprintf(stderr, "%s: %llu bytes for %llu bytes of weights; %llu is the limit\n", path,
            (unsigned long long)size, (unsigned long long)weights, (unsigned long long)limit);
    return 1;
}

static unsigned test_io(const struct e2e_network *net, bool int_io, uint64_t count,
                        const char *pin)
{
    struct e2e_compiled c;
    struct answers a = {.net = net, .int_io = int_io, .count = count};
    const char *no_cross = no_qemu();
    unsigned too_large = 0;
    e2e_compile(net, CALIBRATION, int_io, pin, &c);
    make_answers(&a, &c);
    for (unsigned i = 0; mpqc_target_name(i); i++) {
        struct mpqc_target t;
        e2e_expect_ok(&c.cx, mpqc_target_find(&c.cx, mpqc_target_name(i), NULL, &t), "target");
        too_large += test_target(&a, &c.cx, &t, no_cross);
    }
    free(a.in);
    free(a.out);
    e2e_compiled_release(&c);
    return too_large;
}

int main(int argc, char **argv)
{
    CHECK(argc == 3 || argc == 5, "usage: %s NETWORK IMAGES [NAME PIN]", argv[0]);
    struct e2e_network net = e2e_network_find(argv[1]);
    uint64_t count = strtoull(argv[2], NULL, 10);
    const char *pin = argc == 5 ? argv[4] : NULL;
    if (pin) {
        size_t n = strlen(net.name);
        snprintf(net.name + n, sizeof net.name - n, "-%s", argv[3]);
    }
    e2e_make_folder(MPQC_LIB_DIR);
    unsigned too_large = test_io(&net, false, count, pin) + test_io(&net, true, count, pin);
    CHECK(too_large == 0, "%u libraries are larger than weights + 15 %% + 64 KiB", too_large);
    return 0;
}
