/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The library as a whole: what is in the file, what run() checks, hooks, the
 * descriptor, each -emit= form, and outputs that cannot be written.
 */
#include "codegen_rig.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>

#define Q " quant(scale=0.5, zero=3)"

/* Two kernels; the first is fused from four nodes. */
static const struct rig_case model = {
    .name = "model",
    .text = "graph \"tiny/net\" { input %0 \"a b\" : u8[1,9,11,24]" Q "\n"
            "input %1 : u8[1,9,11,24] quant(scale=0.25, zero=255)\n"
            "%2 = rescale %0 {mult=20000, scale=0.001} @\"/layer1/add\" \"Add\"\n"
            "%3 = rescale %1 {mult=-31000, scale=0.001} @\"/layer1/add\" \"Add\"\n"
            "%4 = add %2, %3 @\"/layer1/add\" \"Add\"\n"
            "%5 = narrow %4 {frac=7, to=\"u8\", zero=0} @\"/layer1/add\" \"Add\"\n"
            "%6 \"probabilities\" = maxpool %5 {kernel=[3,3], pads=[1,1,1,1], strides=[2,2]} "
            "@\"pool*/\"\noutput %6 }",
    .kernels = "P4 S1"};

/* Names that would clash with LLVM's or with libraries'. */
static const struct rig_case hostile_names = {
    .name = "hostile names",
    .text = "graph \"g\" { input %0 : u8[4,70]" Q "\n"
            "%1 = transpose %0 {perm=[1,0]} @\"memcpy\"\n"
            "%2 = transpose %1 {perm=[1,0]} @\"llvm.memset.p0.i64\"\n"
            "%3 = slice %2 {begin=[0,0], shape=[4,60], step=[1,1]} @\"mpqc_model\"\n"
            "%4 = transpose %3 {perm=[1,0]} @\"run\"\n"
            "%5 = transpose %4 {perm=[1,0]} @\"\"\n"
            "%6 = transpose %5 {perm=[1,0]} @\"0\\n\\\"quoted\\\"\"\n"
            "%7 = transpose %6 {perm=[1,0]} @\"memcpy\"\noutput %7 }"};

struct library {
    struct rig rig;
    void *lib;
    const struct mpqc_model *m;
    uint8_t *ws, *out;
    const void *in[2];
};

static void open_library(struct library *l)
{
    char path[128];
    rig_open(&l->rig, &model);
    snprintf(path, sizeof path, "%s/m.so", l->rig.dir);
    rig_emit(&l->rig, "native", MPQC_EMIT_SO, path);
    l->lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(l->lib);
    l->m = dlsym(l->lib, "mpqc_model");
    assert_non_null(l->m);
    l->ws = aligned_alloc(64, l->m->workspace_size + 64);
    l->out = malloc(l->m->outputs[0].bytes);
    l->in[0] = l->rig.in[0];
    l->in[1] = l->rig.in[1];
}

static void close_library(struct library *l)
{
    free(l->ws);
    free(l->out);
    dlclose(l->lib);
    rig_close(&l->rig);
}

static void test_descriptor(void **state)
{
    (void)state;
    struct library l;
    open_library(&l);
    const struct mpqc_model *m = l.m;
    assert_int_equal(m->abi_version, MPQC_ABI_VERSION);
    assert_int_equal(m->struct_size, sizeof *m);
    assert_string_equal(m->name, "tiny/net");
    assert_int_equal(strncmp(m->compiler, "mpqc ", 5), 0);
    assert_int_equal(m->n_inputs, 2);
    assert_int_equal(m->n_outputs, 1);
    assert_string_equal(m->inputs[0].name, "a b");
    assert_string_equal(m->inputs[1].name, "input1");
    assert_string_equal(m->outputs[0].name, "probabilities");
    assert_int_equal(m->inputs[0].element, MPQC_ELEM_U8);
    assert_int_equal(m->inputs[0].rank, 4);
    assert_int_equal(m->inputs[0].dims[2], 11);
    assert_int_equal(m->inputs[0].dims[4], 0);
    assert_int_equal(m->inputs[0].bytes, 9 * 11 * 24);
    assert_true(m->inputs[1].scale == 0.25f);
    assert_int_equal(m->inputs[1].zero_point, 255);
    assert_null(m->inputs[0].preprocess);
    assert_int_equal(m->outputs[0].bytes, 5 * 6 * 24);
    assert_int_equal(m->workspace_align, 64);
    assert_true(m->workspace_size >= l.rig.plan.arena_bytes && m->workspace_size % 64 == 0);
    assert_int_equal(m->n_layers, 2);
    assert_string_equal(m->layers[0].name, "/layer1/add");
    assert_string_equal(m->layers[0].op, "add+relu");
    assert_int_equal(m->layers[0].activation_bytes, 3 * 9 * 11 * 24);
    assert_int_equal(m->layers[0].activation_bits, 8);
    assert_string_equal(m->layers[1].op, "maxpool");
    assert_int_equal(m->supported(), 1);
    close_library(&l);
}

static void test_run_checks(void **state)
{
    (void)state;
    struct library l;
    open_library(&l);
    const void *no_in[2] = {l.in[0], NULL};
    void *out[1] = {l.out}, *no_out[1] = {NULL};
    assert_int_equal(l.m->run(NULL, out, l.ws, NULL), MPQC_RUN_NULL_POINTER);
    assert_int_equal(l.m->run(no_in, out, l.ws, NULL), MPQC_RUN_NULL_POINTER);
    assert_int_equal(l.m->run(l.in, NULL, l.ws, NULL), MPQC_RUN_NULL_POINTER);
    assert_int_equal(l.m->run(l.in, no_out, l.ws, NULL), MPQC_RUN_NULL_POINTER);
    assert_int_equal(l.m->run(l.in, out, NULL, NULL), MPQC_RUN_NULL_POINTER);
    assert_int_equal(l.m->run(l.in, out, l.ws + 32, NULL), MPQC_RUN_MISALIGNED_WORKSPACE);
    assert_int_equal(l.m->run(l.in, out, l.ws, NULL), MPQC_RUN_OK);
    rig_compare(&l.rig, "run", "native", 0, l.out);
    close_library(&l);
}

struct log {
    char text[64];
    unsigned calls;
};

static void on_begin(void *user, uint32_t layer)
{
    struct log *log = user;
    size_t n = strlen(log->text);
    snprintf(log->text + n, sizeof log->text - n, "b%u", layer);
}

static void on_end(void *user, uint32_t layer)
{
    struct log *log = user;
    size_t n = strlen(log->text);
    snprintf(log->text + n, sizeof log->text - n, "e%u", layer);
}

static void on_parallel(void *pool, mpqc_task task, void *arg, int64_t n)
{
    ((struct log *)pool)->calls++;
    task(arg, 0, n);
}

/* Hooks are called in order; each may be absent; fields beyond struct_size are not
 * read; one thread needs no pool. */
static void test_exec(void **state)
{
    (void)state;
    struct library l;
    struct log log = {.calls = 0};
    open_library(&l);
    void *out[1] = {l.out};
    struct mpqc_exec exec = {sizeof exec, 4, on_parallel, &log, on_begin, on_end, &log};
    assert_int_equal(l.m->run(l.in, out, l.ws, &exec), 0);
    assert_string_equal(log.text, "b0e0b1e1");
    rig_compare(&l.rig, "exec", "native", 0, l.out);

    log.text[0] = '\0';
    exec.layer_begin = NULL;
    assert_int_equal(l.m->run(l.in, out, l.ws, &exec), 0);
    assert_string_equal(log.text, "e0e1");

    log.text[0] = '\0';
    exec.struct_size = offsetof(struct mpqc_exec, layer_end);
    exec.profile = (void *)1; /* not there: it may not be handed out */
    assert_int_equal(l.m->run(l.in, out, l.ws, &exec), 0);
    assert_string_equal(log.text, "");

    struct mpqc_exec one = {sizeof one, 1, on_parallel, &log, NULL, NULL, NULL};
    log.calls = 0;
    assert_int_equal(l.m->run(l.in, out, l.ws, &one), 0);
    assert_int_equal(log.calls, 0);
    close_library(&l);
}

/* A convolution, then a kernel too small to be shared but for its neighbour. */
#define SHARES(size)                                                                              \
    {.name = "shares of " #size " x " #size,                                                      \
     .text = "graph \"g\" { input %0 : u8[1," #size "," #size ",64]" Q "\n"                        \
             "const %1 : i8[3,3,64,64] quant(axis=3, scale=splat 0.25, zero=splat 0) = random 1\n" \
             "const %2 : i32[64] = splat 77 const %3 : i32[64] = splat 6\n"                        \
             "const %4 : i32[64] = splat 20000\n"                                                 \
             "%5 = conv %0, %1, %2 {pads=[0,0,0,0]} @\"c\" \"Conv\"\n"                             \
             "%6 = requant %5, %3, %4 {scale=0.01} @\"c\" \"Conv\"\n"                             \
             "%7 = narrow %6 {frac=0, to=\"u8\", zero=0} @\"c\" \"Conv\"\n"                       \
             "%8 = maxpool %7 {kernel=[2,2], strides=[2,2]} @\"p\"\noutput %8 }",                   \
     .kernels = "L3 S1"}

struct shares {
    unsigned calls;
    int64_t n[4];
};

static void note_shares(void *pool, mpqc_task task, void *arg, int64_t n)
{
    struct shares *s = pool;
    assert_true(s->calls < MPQC_LEN(s->n));
    s->n[s->calls++] = n;
    for (int64_t i = n; i-- > 0;) task(arg, i, i + 1);
}

/* Runs c's library, part by part, and checks its bytes. */
static struct shares shares_of(const struct rig_case *c)
{
    char path[128];
    struct rig r;
    struct shares s = {.calls = 0};
    rig_open(&r, c);
    snprintf(path, sizeof path, "%s/m.so", r.dir);
    rig_emit(&r, "native", MPQC_EMIT_SO, path);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(lib);
    const struct mpqc_model *m = dlsym(lib, "mpqc_model");
    assert_int_equal(m->supported(), 1);
    void *ws = aligned_alloc(64, m->workspace_size), *out[1] = {malloc(m->outputs[0].bytes)};
    const void *in[1] = {r.in[0]};
    struct mpqc_exec exec = {
        .struct_size = sizeof exec, .threads = 2, .parallel_for = note_shares, .pool = &s};
    assert_int_equal(m->run(in, out, ws, &exec), MPQC_RUN_OK);
    rig_compare(&r, c->name, "native", 0, out[0]);
    free(out[0]);
    free(ws);
    dlclose(lib);
    rig_close(&r);
    return s;
}

/* Beside a large kernel a small one is shared, in even numbers; small networks are not. */
static void test_shares(void **state)
{
    (void)state;
    static const struct rig_case large = SHARES(34), small = SHARES(10);
    struct shares s = shares_of(&large);
    assert_int_equal(s.calls, 2);
    for (unsigned i = 0; i < s.calls; i++) assert_true(s.n[i] >= 2 && s.n[i] % 2 == 0);
    assert_int_equal(shares_of(&small).calls, 0);
}

/* ---- the file ------------------------------------------------------------------------------ */

static uint8_t *slurp(const char *path, size_t *n)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    *n = (size_t)st.st_size;
    uint8_t *p = malloc(*n + 1);
    rig_file(path, p, *n, false);
    p[*n] = '\0';
    return p;
}

static void check_dynamic(const uint8_t *file, const Elf64_Shdr *s)
{
    const Elf64_Dyn *d = (const void *)(file + s->sh_offset);
    for (; d->d_tag != DT_NULL; d++) {
        assert_int_not_equal(d->d_tag, DT_NEEDED);
        assert_int_not_equal(d->d_tag, DT_TEXTREL);
        assert_int_not_equal(d->d_tag, DT_INIT_ARRAY);
    }
}

static unsigned check_symbols(const uint8_t *file, const Elf64_Shdr *s, const char *names)
{
    const Elf64_Sym *y = (const void *)(file + s->sh_offset);
    unsigned exported = 0;
    for (size_t i = 1; i < s->sh_size / sizeof *y; i++) {
        if (y[i].st_shndx == SHN_UNDEF) fail_msg("undefined symbol '%s'", names + y[i].st_name);
        if (ELF64_ST_BIND(y[i].st_info) == STB_GLOBAL) {
            assert_string_equal(names + y[i].st_name, "mpqc_model");
            exported++;
        }
    }
    return exported;
}

/* No undefined symbols, nothing needed, one export, nothing writable after
 * relocation, no executable stack. */
static void check_library(const char *path, uint16_t machine)
{
    size_t n;
    uint8_t *file = slurp(path, &n);
    const Elf64_Ehdr *h = (const void *)file;
    const Elf64_Shdr *s = (const void *)(file + h->e_shoff);
    const Elf64_Phdr *p = (const void *)(file + h->e_phoff);
    uint64_t writable = 0, writable_end = 0, relro = 0, relro_end = 0;
    bool stack = false;
    assert_int_equal(h->e_machine, machine);
    for (unsigned i = 0; i < h->e_phnum; i++) {
        if (p[i].p_type == PT_GNU_STACK) {
            stack = true;
            assert_int_equal(p[i].p_flags & PF_X, 0);
        }
        if (p[i].p_type == PT_LOAD && (p[i].p_flags & PF_W)) {
            assert_int_equal(p[i].p_flags & PF_X, 0);
            writable = p[i].p_vaddr;
            writable_end = p[i].p_vaddr + p[i].p_filesz;
        }
        if (p[i].p_type == PT_GNU_RELRO) {
            relro = p[i].p_vaddr;
            relro_end = p[i].p_vaddr + p[i].p_memsz;
        }
    }
    assert_true(stack);
    assert_true(relro <= writable && writable_end <= relro_end);
    unsigned exported = 0;
    for (unsigned i = 0; i < h->e_shnum; i++) {
        if (s[i].sh_type == SHT_DYNAMIC) check_dynamic(file, &s[i]);
        if (s[i].sh_type == SHT_DYNSYM)
            exported += check_symbols(file, &s[i], (char *)file + s[s[i].sh_link].sh_offset);
    }
    assert_int_equal(exported, 1);
    free(file);
}

/* The linker takes the output's name into the library, so both go to the same path. */
static void test_file(void **state)
{
    (void)state;
    struct rig r;
    char path[128];
    rig_open(&r, &model);
    for (unsigned i = 0; mpqc_target_name(i); i++) {
        const char *name = mpqc_target_name(i);
        size_t n[2];
        uint8_t *bytes[2];
        snprintf(path, sizeof path, "%s/m.so", r.dir);
        for (int pass = 0; pass < 2; pass++) {
            rig_emit(&r, name, MPQC_EMIT_SO, path);
            bytes[pass] = slurp(path, &n[pass]);
        }
        assert_int_equal(n[0], n[1]);
        assert_memory_equal(bytes[0], bytes[1], n[0]);
        free(bytes[0]);
        free(bytes[1]);
        check_library(path, strncmp(name, "x86", 3) == 0 ? EM_X86_64 : EM_AARCH64);
    }
    rig_close(&r);
}

static void test_names(void **state)
{
    (void)state;
    rig_check(&hostile_names);
}

/* What computes with floats: arithmetic, comparisons, conversions.  With SSE, moves of
 * integer vectors may carry a float's name (movups); with AVX nothing may. */
static const char float_code_x86[] =
    "[[:space:]]v?(add|sub|mul|div|sqrt|rsqrt|rcp|round|cmp|ucomi|comi|max|min|fn?m[as][a-z]*[0-9]*|"
    "cvt[a-z0-9]*|dp)(ss|sd|ps|pd)[[:space:]]|[[:space:]]cvt|[[:space:]]f(ld|st|add|mul)";
static const char float_names_avx[] = "[[:space:]]v[a-oq-z][a-z0-9]*[sp][sd][[:space:]]";
static const char float_code_arm[] =
    "[[:space:]](f(add|sub|mul|div|sqrt|max|min|cm|cvt|madd|mla|mls|rint|neg|abs)[a-z0-9]*|[su]cvtf)"
    "[[:space:]]";

static void look_for(struct rig *r, const char *target, const char *what, bool expected)
{
    char path[128], command[1024];
    snprintf(path, sizeof path, "%s/m.so", r->dir);
    rig_emit(r, target, MPQC_EMIT_SO, path);
    snprintf(command, sizeof command, "llvm-objdump-19 -d --no-show-raw-insn %s | grep -E '%s' >%s",
             path, what, expected ? "/dev/null" : "&2");
    int found = system(command);
    if ((found == 0) != expected)
        fail_msg("%s: float instructions %s", target, expected ? "not seen" : "in integer code");
}

/* The second model has float code, so a search that finds nothing anywhere would fail. */
static void test_no_float(void **state)
{
    (void)state;
    static const struct rig_case quantize = {
        .name = "q", .text = "graph \"g\" { input %0 : f32[64]\n"
                             "%1 = quantize %0 {scale=0.5, to=\"u8\", zero=0} @\"q\"\noutput %1 }"};
    struct rig integer, real;
    rig_open(&integer, &model);
    rig_open(&real, &quantize);
    for (unsigned i = 0; mpqc_target_name(i); i++) {
        const char *t = mpqc_target_name(i);
        bool x86 = strncmp(t, "x86", 3) == 0, avx = strncmp(t, "x86-64:avx", 10) == 0;
        look_for(&integer, t, x86 ? float_code_x86 : float_code_arm, false);
        look_for(&real, t, x86 ? float_code_x86 : float_code_arm, true);
        if (avx) look_for(&integer, t, float_names_avx, false);
    }
    rig_close(&integer);
    rig_close(&real);
}

/* A CPU without the dot product is refused, not crashed. */
static void test_refusal(void **state)
{
    (void)state;
    struct rig r;
    char command[512], path[128];
    const char *loader = rig_loader();
    if (!loader) skip();
    rig_open(&r, &model);
    snprintf(path, sizeof path, "%s/m.so", r.dir);
    rig_emit(&r, "aarch64:dotprod", MPQC_EMIT_SO, path);
    static const char *const cpus[] = {"cortex-a53", "max"};
    for (int i = 0; i < 2; i++) {
        snprintf(command, sizeof command,
                 "cd %s && printf '' > in && head -c 3000 /dev/zero > in && "
                 "qemu-aarch64 -cpu %s -L /usr/aarch64-linux-gnu %s ./m.so in in out",
                 r.dir, cpus[i], loader);
        int status = system(command);
        assert_int_equal(status >> 8, i == 0 ? 2 : 0);
    }
    rig_close(&r);
}

/* ---- other forms ------------------------------------------------------------------------------ */

static void run_ok(const char *command)
{
    if (system(command) != 0) fail_msg("failed: %s", command);
}

/* The archive and the object link into a C program, together with the header. */
static void test_static(void **state)
{
    (void)state;
    struct rig r;
    char path[128], command[1024];
    rig_open(&r, &model);
    snprintf(path, sizeof path, "%s/m.a", r.dir);
    rig_emit(&r, "native", MPQC_EMIT_ARCHIVE, path);
    snprintf(path, sizeof path, "%s/m.o", r.dir);
    rig_emit(&r, "native", MPQC_EMIT_OBJ, path);
    snprintf(path, sizeof path, "%s/m.h", r.dir);
    rig_emit(&r, "native", MPQC_EMIT_HEADER, path);
    snprintf(path, sizeof path, "%s/main.c", r.dir);
    FILE *f = fopen(path, "w");
    fputs("#include \"m.h\"\n"
          "static MPQC_MODEL_INPUT0_TYPE a[MPQC_MODEL_INPUT0_COUNT], b[MPQC_MODEL_INPUT1_COUNT];\n"
          "static MPQC_MODEL_OUTPUT0_TYPE y[MPQC_MODEL_OUTPUT0_COUNT];\n"
          "static _Alignas(MPQC_MODEL_WORKSPACE_ALIGN) char ws[MPQC_MODEL_WORKSPACE_SIZE];\n"
          "static const int dims[] = MPQC_MODEL_INPUT0_DIMS;\n"
          "int main(void) { const void *in[] = {a, b}; void *out[] = {y};\n"
          "return mpqc_model.run(in, out, ws, 0) || sizeof ws < mpqc_model.workspace_size ||\n"
          "sizeof dims / sizeof *dims != MPQC_MODEL_INPUT0_RANK || dims[3] != 24 ||\n"
          "sizeof y != mpqc_model.outputs[0].bytes || MPQC_MODEL_INPUT1_ZERO_POINT != 255; }\n",
          f);
    fclose(f);
    snprintf(command, sizeof command,
             "cd %s && for m in m.a m.o; do gcc -std=c11 -Wall -Werror -I%s/runtime main.c $m -o t "
             "&& ./t || exit 1; done",
             r.dir, MPQC_SOURCE_DIR);
    run_ok(command);
    rig_close(&r);
}

static void test_text_forms(void **state)
{
    (void)state;
    struct rig r;
    char path[128];
    size_t n;
    rig_open(&r, &model);
    snprintf(path, sizeof path, "%s/m.ll", r.dir);
    rig_emit(&r, "aarch64", MPQC_EMIT_LLVM, path);
    char *text = (char *)slurp(path, &n);
    assert_non_null(strstr(text, "aarch64-unknown-linux-gnu"));
    assert_non_null(strstr(text, "define internal void @layer1_add("));
    free(text);
    snprintf(path, sizeof path, "%s/m.s", r.dir);
    rig_emit(&r, "x86-64", MPQC_EMIT_ASM, path);
    text = (char *)slurp(path, &n);
    assert_non_null(strstr(text, "layer1_add.body:"));
    assert_non_null(strstr(text, "pmulhrsw"));
    free(text);
    rig_close(&r);
}

/* A layer whose sums are at most 8 * 127 * 255: by shifts that leave them 15 bits, and 16. */
#define SUMS(shift)                                                                               \
    "graph \"g\" { input %0 : u8[6,8] quant(scale=0.5, zero=0)\n"                                  \
    "const %1 : i8[8,64] quant(scale=0.5, zero=0) = splat 127\n"                                   \
    "const %2 : i32[64] = splat " shift "\nconst %3 : i32[64] = splat 20000\n"                     \
    "%4 = matmul %0, %1 @\"m\"\n%5 = requant %4, %2, %3 {scale=0.01} @\"m\"\n"                      \
    "%6 = narrow %5 {frac=0, to=\"u8\", zero=0} @\"m\"\noutput %6 }"

/* Sums that keep within 16 bits are cut out of their lanes, others saturate: 259080 >> 3 is
 * 32385, >> 2 is more than 32767. */
static void test_windows(void **state)
{
    static const struct rig_case fits = {.name = "fits", .text = SUMS("3"), .kernels = "L3"};
    static const struct rig_case more = {.name = "more", .text = SUMS("2"), .kernels = "L3"};
    const struct rig_case *const cases[] = {&fits, &more};
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct rig r;
        char path[128];
        size_t n;
        rig_open(&r, cases[i]);
        snprintf(path, sizeof path, "%s/m.s", r.dir);
        rig_emit(&r, "x86-64:avx512-vnni", MPQC_EMIT_ASM, path);
        char *text = (char *)slurp(path, &n);
        assert_int_equal(strstr(text, "vpmultishiftqb") != NULL, cases[i] == &fits);
        assert_int_equal(strstr(text, "vpackssdw") != NULL, cases[i] == &more);
        free(text);
        rig_close(&r);
        rig_check(cases[i]);
    }
}

static mpqc_status emit_to(struct rig *r, enum mpqc_emit emit, const char *tag, const char *path)
{
    struct mpqc_target t;
    assert_int_equal(mpqc_target_find(&r->cx, "native", NULL, &t), MPQC_OK);
    struct mpqc_codegen_request rq = {
        .graph = &r->g, .plan = &r->plan, .target = &t, .tag = tag, .emit = emit, .path = path};
    struct mpqc_codegen_facts facts;
    r->cx.n_diags = r->cx.n_errors = 0;
    return mpqc_codegen_emit(&r->cx, &rq, &facts);
}

static void test_tag(void **state)
{
    (void)state;
    struct rig r;
    char path[128];
    rig_open(&r, &model);
    snprintf(path, sizeof path, "%s/m.so", r.dir);
    assert_int_equal(emit_to(&r, MPQC_EMIT_SO, "front_2", path), MPQC_OK);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(lib);
    assert_null(dlsym(lib, "mpqc_model"));
    assert_non_null(dlsym(lib, "mpqc_model_front_2"));
    dlclose(lib);
    unlink(path);
    assert_int_equal(emit_to(&r, MPQC_EMIT_SO, "a-b", path), MPQC_USAGE);
    assert_non_null(strstr(r.cx.diags[0].message, "-tag=a-b"));
    assert_int_equal(access(path, F_OK), -1);
    rig_close(&r);
}

/* One clear sentence, and nothing left behind. */
static void test_unwritable(void **state)
{
    (void)state;
    static const enum mpqc_emit forms[] = {MPQC_EMIT_SO, MPQC_EMIT_OBJ, MPQC_EMIT_ARCHIVE,
                                           MPQC_EMIT_LLVM, MPQC_EMIT_HEADER};
    struct rig r;
    char path[128], command[256];
    rig_open(&r, &model);
    for (size_t i = 0; i < MPQC_LEN(forms); i++) {
        snprintf(path, sizeof path, "%s/no/such/folder/m", r.dir);
        assert_int_equal(emit_to(&r, forms[i], NULL, path), MPQC_IO);
        assert_int_equal(r.cx.n_errors, 1);
        assert_string_equal(r.cx.diags[0].where.file, path);
        assert_non_null(strstr(r.cx.diags[0].message, "No such file or directory"));
        assert_int_equal(emit_to(&r, forms[i], NULL, "/dev/full"), MPQC_IO);
        assert_non_null(strstr(r.cx.diags[0].message, "No space left on device"));
        snprintf(path, sizeof path, "%s", r.dir); /* a folder */
        assert_int_equal(emit_to(&r, forms[i], NULL, path), MPQC_IO);
        assert_int_equal(r.cx.n_errors, 1);
    }
    struct stat st;
    assert_int_equal(stat("/dev/full", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    snprintf(command, sizeof command, "test -z \"$(ls -A %s)\"", r.dir);
    run_ok(command);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptor), cmocka_unit_test(test_run_checks),
        cmocka_unit_test(test_exec),       cmocka_unit_test(test_file),
        cmocka_unit_test(test_names),      cmocka_unit_test(test_refusal),
        cmocka_unit_test(test_no_float),   cmocka_unit_test(test_shares),
        cmocka_unit_test(test_windows),    cmocka_unit_test(test_static),
        cmocka_unit_test(test_text_forms),
        cmocka_unit_test(test_tag),        cmocka_unit_test(test_unwritable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
