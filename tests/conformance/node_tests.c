/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * ONNX's own backend tests, one small model per operator and variant, as Debian's
 * package libonnx-testdata installs them: each supported one is imported, run by the
 * reference interpreter and compared with the expected output.
 *
 *   node_tests FOLDER FLOOR [NAME...]
 *
 * Fails when a supported one gives a wrong answer, or when fewer than FLOOR pass:
 * support must not shrink without anyone noticing.
 *
 * Many of these models take as input what real networks have as a constant (the shape
 * of a Reshape, the axes of a reduction).  When such a model is not supported as it
 * is, the test's own input tensors are written into the model as initialisers: first
 * all inputs but the first, then all of them.  Models of an opset before 7 are read as
 * of opset 7, for operators that did not change between.
 */
#include "frontend/frontend.h"
#include "frontend/pbscan.h"
#include "ir/exec.h"

#include <dirent.h>
#include <math.h>
#include <unistd.h>

enum verdict { PASSED, FAILED, UNSUPPORTED };

struct test {
    struct mpqc_cx cx;
    struct mpqc_arena arena;
    struct mpqc_graph g;
    const char *folder;
    const char *scratch_file;
    char why[512];
};

/* ---- files ------------------------------------------------------------------------ */

static uint8_t *read_all(struct test *t, const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    if (!f) return NULL;
    if (!fseek(f, 0, SEEK_END)) {
        long end = ftell(f);
        rewind(f);
        data = end < 0 ? NULL : mpqc_arena_alloc(&t->arena, (size_t)end + 1);
        *size = data ? fread(data, 1, (size_t)end, f) : 0;
    }
    fclose(f);
    return data;
}

static void add_length(struct mpqc_buf *b, unsigned field, size_t length)
{
    uint8_t bytes[12];
    size_t n = 0;
    bytes[n++] = (uint8_t)(field << 3 | 2);
    do {
        bytes[n++] = (uint8_t)((length & 0x7f) | (length > 0x7f ? 0x80 : 0));
        length >>= 7;
    } while (length);
    mpqc_buf_add(b, bytes, n);
}

/* The name of a ValueInfoProto: its field 1, which comes first. */
static const char *info_name(struct test *t, const uint8_t *model, struct mpqc_pb_span span)
{
    const uint8_t *p = model + span.offset;
    if (span.length < 2 || p[0] != 0x0a || p[1] > 0x7f) return NULL;
    char *name = mpqc_arena_alloc(&t->arena, (size_t)p[1] + 1);
    if (name) memcpy(name, p + 2, p[1]);
    return name;
}

/* Appends graph { initializer { TENSOR, name: NAME } }: protobuf merges messages that
 * are written one behind the other. */
static void append_initialiser(struct mpqc_buf *b, const uint8_t *tensor, size_t size,
                               const char *name)
{
    struct mpqc_buf named, graph;
    mpqc_buf_init(&named);
    mpqc_buf_init(&graph);
    mpqc_buf_add(&named, tensor, size);
    add_length(&named, 8, strlen(name)); /* TensorProto.name */
    mpqc_buf_puts(&named, name);
    add_length(&graph, 5, named.len); /* GraphProto.initializer */
    mpqc_buf_add(&graph, named.data, named.len);
    add_length(b, 7, graph.len); /* ModelProto.graph */
    mpqc_buf_add(b, graph.data, graph.len);
    mpqc_buf_release(&named);
    mpqc_buf_release(&graph);
}

/* The model with inputs `from` and up as initialisers, and an opset of 7 at least, in
 * the scratch file. */
static bool embed_inputs(struct test *t, uint32_t from)
{
    struct mpqc_pb_index index;
    size_t size = 0;
    const uint8_t *model =
        read_all(t, mpqc_arena_printf(&t->arena, "%s/model.onnx", t->folder), &size);
    if (!model ||
        mpqc_pb_scan_model(&t->cx, t->folder, model, size, &t->arena, &index) != MPQC_OK ||
        index.inputs.n > MPQC_MAX_INPUTS)
        return false;
    struct mpqc_buf b;
    bool ok = true;
    mpqc_buf_init(&b);
    mpqc_buf_add(&b, model, size);
    add_length(&b, 8, 2); /* ModelProto.opset_import { version: 7 } */
    mpqc_buf_add(&b, "\x10\x07", 2);
    for (uint32_t i = from; ok && i < index.inputs.n; i++) {
        size_t bytes = 0;
        const char *name = info_name(t, model, index.inputs.at[i]);
        const char *path =
            mpqc_arena_printf(&t->arena, "%s/test_data_set_0/input_%u.pb", t->folder, i);
        const uint8_t *tensor = read_all(t, path, &bytes);
        ok = name && tensor;
        if (ok) append_initialiser(&b, tensor, bytes, name);
    }
    FILE *f = ok ? fopen(t->scratch_file, "wb") : NULL;
    ok = f && fwrite(b.data, 1, b.len, f) == b.len;
    if (f) ok = !fclose(f) && ok;
    mpqc_buf_release(&b);
    return ok;
}

/* ---- one test --------------------------------------------------------------------- */

/* Tests that cannot be met to the usual tolerance, by a part of their name. */
static const struct {
    const char *part;
    double tolerance; /* 0: left out */
    const char *reason;
} exceptions[] = {
    {"BFLOAT16", 0, "its tensor files hold bfloat16 as uint16"},
    {"FLOAT16", 1e-3, "f16 is computed in f32"},
    {"window", 1e-3, "the models have 3.1415 for pi, the expected outputs pi"},
};

static double tolerance_of(const char *folder)
{
    for (size_t i = 0; i < MPQC_LEN(exceptions); i++)
        if (strstr(folder, exceptions[i].part)) return exceptions[i].tolerance;
    return 1e-4;
}

static bool close_enough(float got, float want, double tolerance)
{
    if (isnan(got) || isnan(want)) return isnan(got) && isnan(want);
    if (isinf(got) || isinf(want)) return got == want;
    return fabs((double)got - want) <= 0.1 * tolerance + tolerance * fabs((double)want);
}

static bool same(struct test *t, uint32_t output, const struct mpqc_type *type, const void *got,
                 const struct mpqc_tensor *want)
{
    int64_t count = mpqc_type_count(type);
    if (type->dtype != want->type.dtype || !mpqc_type_same_shape(type, &want->type)) {
        snprintf(t->why, sizeof(t->why), "output %u has another type or shape (%s, rank %u)",
                 output, mpqc_dtypes[type->dtype].text, type->rank);
        return false;
    }
    if (type->dtype != MPQC_DT_F32) {
        if (!memcmp(got, want->data, mpqc_type_bytes(type))) return true;
        snprintf(t->why, sizeof(t->why), "output %u has other integers", output);
        return false;
    }
    for (int64_t i = 0; i < count; i++) {
        float a = ((const float *)got)[i], b = ((const float *)want->data)[i];
        if (close_enough(a, b, tolerance_of(t->folder))) continue;
        snprintf(t->why, sizeof(t->why), "output %u: element %lld of %lld is %g instead of %g",
                 output, (long long)i, (long long)count, (double)a, (double)b);
        return false;
    }
    return true;
}

/* Inputs that were embedded are gone from the end of the graph's list, so that input i
 * is still file i. */
static enum verdict run_imported(struct test *t)
{
    const void *in[MPQC_MAX_INPUTS];
    void *out[MPQC_MAX_OUTPUTS];
    struct mpqc_runner *runner;
    for (uint32_t i = 0; i < t->g.n_inputs; i++) {
        struct mpqc_tensor x;
        const struct mpqc_type *type = &mpqc_value_at(&t->g, t->g.inputs[i])->type;
        const char *path =
            mpqc_arena_printf(&t->arena, "%s/test_data_set_0/input_%u.pb", t->folder, i);
        if (mpqc_read_tensor_pb(&t->cx, path, &t->arena, &x, NULL) != MPQC_OK ||
            x.type.dtype != type->dtype || !mpqc_type_same_shape(&x.type, type)) {
            snprintf(t->why, sizeof(t->why), "input %u cannot be read or does not fit", i);
            return FAILED;
        }
        in[i] = x.data;
    }
    for (uint32_t i = 0; i < t->g.n_outputs; i++)
        out[i] = mpqc_arena_alloc(
            &t->arena, mpqc_type_bytes(&mpqc_value_at(&t->g, t->g.outputs[i])->type));
    mpqc_status status = mpqc_interpreter.prepare(&t->cx, &t->g, &runner);
    if (status == MPQC_OK) {
        status = mpqc_interpreter.run(runner, in, out, NULL, NULL);
        mpqc_interpreter.release(runner);
    }
    if (status != MPQC_OK) {
        snprintf(t->why, sizeof(t->why), "it does not run");
        return FAILED;
    }
    for (uint32_t i = 0; i < t->g.n_outputs; i++) {
        struct mpqc_tensor want;
        const char *path =
            mpqc_arena_printf(&t->arena, "%s/test_data_set_0/output_%u.pb", t->folder, i);
        if (mpqc_read_tensor_pb(&t->cx, path, &t->arena, &want, NULL) != MPQC_OK) {
            snprintf(t->why, sizeof(t->why), "output %u cannot be read", i);
            return FAILED;
        }
        if (!same(t, i, &mpqc_value_at(&t->g, t->g.outputs[i])->type, out[i], &want))
            return FAILED;
    }
    return PASSED;
}

static enum verdict try_model(struct test *t, const char *path)
{
    mpqc_graph_init(&t->g, NULL);
    mpqc_status status = mpqc_import_onnx(&t->cx, path, NULL, &t->g);
    enum verdict verdict = FAILED;
    if (status == MPQC_OK) {
        verdict = run_imported(t);
    } else {
        uint32_t last = t->cx.n_diags ? t->cx.n_diags - 1 : 0;
        snprintf(t->why, sizeof(t->why), "import: %.400s",
                 t->cx.n_diags ? t->cx.diags[last].message : mpqc_status_text(status));
        if (status == MPQC_UNSUPPORTED) verdict = UNSUPPORTED;
    }
    mpqc_graph_release(&t->g);
    return verdict;
}

static enum verdict run_test(const char *folder, const char *scratch_file, char *why, size_t size)
{
    enum verdict verdict = UNSUPPORTED;
    if (tolerance_of(folder) == 0) return UNSUPPORTED;
    /* As it is; then as of opset 7, with no input, all but the first, and all of them
     * as initialisers. */
    static const uint32_t from[] = {0, MPQC_MAX_INPUTS, 1, 0};
    for (size_t i = 0; i < MPQC_LEN(from) && verdict == UNSUPPORTED; i++) {
        struct test t = {.folder = folder, .scratch_file = scratch_file};
        mpqc_cx_init(&t.cx, NULL);
        mpqc_arena_init(&t.arena, NULL);
        if (i == 0)
            verdict = try_model(&t, mpqc_arena_printf(&t.arena, "%s/model.onnx", folder));
        else if (embed_inputs(&t, from[i]))
            verdict = try_model(&t, scratch_file);
        if (t.why[0]) snprintf(why, size, "%s", t.why);
        mpqc_arena_release(&t.arena);
        mpqc_cx_release(&t.cx);
    }
    return verdict;
}

/* ---- all of them ------------------------------------------------------------------ */

static int wanted(const struct dirent *d)
{
    return !strncmp(d->d_name, "test_", 5);
}

static bool named(int argc, char **argv, const char *name)
{
    for (int i = 3; i < argc; i++)
        if (!strcmp(argv[i], name)) return true;
    return argc == 3;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: node_tests FOLDER FLOOR [NAME...]\n");
        return 2;
    }
    struct dirent **list;
    int n = scandir(argv[1], &list, wanted, alphasort);
    unsigned count[3] = {0};
    char scratch_file[64], why[512], folder[4096];
    if (n < 0) {
        fprintf(stderr, "node_tests: %s cannot be read; is libonnx-testdata installed?\n", argv[1]);
        return 77;
    }
    snprintf(scratch_file, sizeof(scratch_file), "node_tests.%ld.onnx", (long)getpid());
    for (int i = 0; i < n; i++) {
        if (named(argc, argv, list[i]->d_name)) {
            why[0] = 0;
            snprintf(folder, sizeof(folder), "%s/%s", argv[1], list[i]->d_name);
            enum verdict v = run_test(folder, scratch_file, why, sizeof(why));
            count[v]++;
            if (v == FAILED) printf("FAILED %s: %s\n", list[i]->d_name, why);
            if (v == UNSUPPORTED && argc > 3) printf("unsupported %s: %s\n", list[i]->d_name, why);
        }
        free(list[i]);
    }
    free(list);
    unlink(scratch_file);
    unsigned floor = (unsigned)strtoul(argv[2], NULL, 10);
    printf("ONNX node tests: %u supported, %u of them passed, %u unsupported\n",
           count[PASSED] + count[FAILED], count[PASSED], count[UNSUPPORTED]);
    if (argc == 3 && count[PASSED] < floor) {
        printf("at least %u passed before\n", floor);
        return 1;
    }
    return count[FAILED] != 0;
}
