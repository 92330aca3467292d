/* SPDX-License-Identifier: GPL-3.0-or-later
 * The importer: the fixtures of tests/onnx, the bundled networks, files that are no
 * models, single tensors, and memory that runs out.
 */
#include "failing_allocator.h"
#include "frontend/frontend.h"
#include "ir/text.h"
#include "ir/verify.h"

#include <glob.h>
#include <setjmp.h>
#include <unistd.h>
#include <cmocka.h>

#define FIXTURES MPQC_BINARY_DIR "/tests/onnx/"

struct result {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    mpqc_status status;
    struct mpqc_buf text; /* the graph, when it was imported */
};

static void import(struct result *r, const char *path, const struct mpqc_import_options *options)
{
    mpqc_cx_init(&r->cx, NULL);
    mpqc_graph_init(&r->g, NULL);
    mpqc_buf_init(&r->text);
    r->status = mpqc_import_onnx(&r->cx, path, options, &r->g);
    if (r->status != MPQC_OK) return;
    assert_int_equal(mpqc_verify(&r->cx, &r->g, MPQC_VERIFY_FLOAT), MPQC_OK);
    mpqc_graph_print(&r->g, &r->text, false);
}

static void done(struct result *r)
{
    mpqc_buf_release(&r->text);
    mpqc_graph_release(&r->g);
    mpqc_cx_release(&r->cx);
}

static bool said(const struct result *r, const char *what)
{
    for (uint32_t i = 0; i < r->cx.n_diags; i++)
        if (strstr(r->cx.diags[i].message, what)) return true;
    return false;
}

static void show(const struct result *r)
{
    for (uint32_t i = 0; i < r->cx.n_diags; i++) mpqc_diag_print(&r->cx.diags[i], stderr);
    if (r->text.len) fprintf(stderr, "%s", r->text.data);
}

/* ---- fixtures ------------------------------------------------------------------------- */

#define MAX_LINES 24

struct expectation {
    char line[MAX_LINES][512];
    unsigned n;
};

/* The comment lines at the top, without "# ". */
static void read_expectation(const char *path, struct expectation *e)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    e->n = 0;
    while (e->n < MAX_LINES && fgets(e->line[e->n], sizeof(e->line[0]), f) &&
           !strncmp(e->line[e->n], "# ", 2)) {
        char *line = e->line[e->n++];
        line[strcspn(line, "\n")] = 0;
        memmove(line, line + 2, strlen(line) - 1);
    }
    fclose(f);
}

/* What follows "key: ", or NULL. */
static const char *after(const char *line, const char *key)
{
    size_t n = strlen(key);
    return !strncmp(line, key, n) && line[n] == ':' ? line + n + 2 : NULL;
}

static mpqc_status status_named(const char *name)
{
    static const char *const names[] = {
#define STATUS(code, text, fault) #code,
#include "ir/base/status.def"
#undef STATUS
    };
    if (!strcmp(name, "success")) return MPQC_OK;
    for (size_t i = 0; i < MPQC_LEN(names); i++)
        if (!strcasecmp(names[i], name)) return (mpqc_status)i;
    fail_msg("no status '%s'", name);
    return MPQC_BUG;
}

struct flags {
    struct mpqc_import_options options;
    struct mpqc_shape_option shapes[4];
    struct mpqc_symbol_option symbols[4];
};

/* "x 1x3x8x8" and "batch 4"; the names are cut off in place. */
static void read_flags(struct expectation *e, struct flags *f)
{
    memset(f, 0, sizeof(*f));
    f->options.shapes = f->shapes;
    f->options.symbols = f->symbols;
    for (unsigned i = 0; i < e->n; i++) {
        char *line = e->line[i], *space;
        bool shape = after(line, "shape") != NULL;
        if (!shape && !after(line, "symbol")) continue;
        char *name = strchr(line, ':') + 2;
        space = strchr(name, ' ');
        assert_non_null(space);
        *space++ = 0;
        if (!shape) {
            f->symbols[f->options.n_symbols++] =
                (struct mpqc_symbol_option){name, strtoll(space, NULL, 10)};
            continue;
        }
        struct mpqc_shape_option *o = &f->shapes[f->options.n_shapes++];
        o->input = name;
        for (char *p = space; *p; p += *p == 'x') o->dims[o->rank++] = strtoll(p, &p, 10);
    }
}

static bool check_line(const struct result *r, const char *line)
{
    const char *v;
    if ((v = after(line, "status"))) return r->status == status_named(v);
    if ((v = after(line, "say"))) return said(r, v);
    if ((v = after(line, "errors"))) return r->cx.n_errors == strtoul(v, NULL, 10);
    if ((v = after(line, "nodes"))) return r->g.n_order == strtoul(v, NULL, 10);
    if ((v = after(line, "has"))) return r->text.data && strstr(r->text.data, v);
    if ((v = after(line, "node"))) {
        const char *node = r->cx.n_diags ? r->cx.diags[r->cx.n_diags - 1].where.node : NULL;
        return node && !strcmp(node, v);
    }
    return after(line, "note") || after(line, "shape") || after(line, "symbol") ||
           after(line, "SPDX-License-Identifier");
}

static void fixtures(void **state)
{
    (void)state;
    glob_t list;
    unsigned bad = 0;
    unlink(FIXTURES "weights.bin"); /* of an interrupted run */
    assert_int_equal(glob(MPQC_SOURCE_DIR "/tests/onnx/*.txtpb", 0, NULL, &list), 0);
    for (size_t i = 0; i < list.gl_pathc; i++) {
        struct expectation e;
        struct flags f;
        struct result r;
        char path[4096];
        const char *name = strrchr(list.gl_pathv[i], '/') + 1;
        read_expectation(list.gl_pathv[i], &e);
        read_flags(&e, &f);
        snprintf(path, sizeof(path), FIXTURES "%.*s.onnx", (int)strcspn(name, "."), name);
        import(&r, path, &f.options);
        bool ok = e.n > 1;
        for (unsigned k = 0; k < e.n; k++) {
            if (check_line(&r, e.line[k])) continue;
            fprintf(stderr, "%s: not so: %s\n", name, e.line[k]);
            ok = false;
        }
        if (!ok) show(&r);
        bad += !ok;
        /* An error has a diagnostic, and only an error. */
        assert_int_equal(r.status != MPQC_OK, r.cx.n_errors != 0);
        done(&r);
    }
    assert_int_equal(bad, 0);
    assert_true(list.gl_pathc > 40);
    globfree(&list);
}

/* ---- the bundled networks ------------------------------------------------------------------ */

static void bundled_networks(void **state)
{
    (void)state;
    glob_t list;
    assert_int_equal(glob(MPQC_SOURCE_DIR "/tutorials/networks/*.onnx", 0, NULL, &list), 0);
    assert_int_equal(list.gl_pathc, 3);
    for (size_t i = 0; i < list.gl_pathc; i++) {
        struct result a, b;
        import(&a, list.gl_pathv[i], NULL);
        import(&b, list.gl_pathv[i], NULL);
        if (a.status != MPQC_OK) show(&a);
        assert_int_equal(a.status, MPQC_OK);
        assert_string_equal(a.text.data, b.text.data);
        for (uint32_t k = 0; k < a.g.n_order; k++) {
            const struct mpqc_node *n = mpqc_node_at(&a.g, a.g.order[k]);
            assert_true(n->loc.node && n->loc.op && n->loc.offset > 0);
        }
        assert_int_equal(a.g.n_outputs, 1);
        done(&a);
        done(&b);
    }
    globfree(&list);
}

/* ---- files that are no models ---------------------------------------------------------------- */

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void expect(const char *path, mpqc_status status, const char *what)
{
    struct result r;
    import(&r, path, NULL);
    if (r.status != status || !said(&r, what)) show(&r);
    assert_int_equal(r.status, status);
    assert_true(said(&r, what));
    assert_string_equal(r.cx.diags[r.cx.n_diags - 1].where.file, path);
    done(&r);
}

static void no_models(void **state)
{
    (void)state;
    const char *path = "test_import.tmp.onnx";
    expect("nowhere.onnx", MPQC_IO, "cannot be opened: No such file");
    expect("/", MPQC_IO, "is a folder");
    expect("/dev/null", MPQC_IO, "is not a regular file");
    write_file(path, "", 0);
    expect(path, MPQC_FORMAT, "the file is empty");
    write_file(path, "#!/bin/sh\n", 10);
    expect(path, MPQC_FORMAT, "not an ONNX model, but a text file");
    write_file(path, "PK\x03\x04\x14", 5);
    expect(path, MPQC_FORMAT, "not an ONNX model, but a zip archive");
    write_file(path, "\x1c\x00\x00\x00TFL3", 8);
    expect(path, MPQC_FORMAT, "not an ONNX model, but a TensorFlow Lite model");
    write_file(path, "#!\x01", 3);
    expect(path, MPQC_FORMAT, "malformed");
    write_file(path, "\x08\x08", 2);
    expect(path, MPQC_FORMAT, "it has no graph");
    unlink(path);
}

static void truncated_everywhere(void **state)
{
    (void)state;
    const char *path = "test_import.cut.onnx";
    uint8_t data[4096];
    FILE *f = fopen(FIXTURES "conv_layout.onnx", "rb");
    assert_non_null(f);
    size_t size = fread(data, 1, sizeof(data), f);
    fclose(f);
    assert_in_range(size, 100, sizeof(data) - 1);
    for (size_t n = 1; n < size; n++) {
        struct result r;
        write_file(path, data, n);
        import(&r, path, NULL);
        assert_int_not_equal(r.status, MPQC_OK);
        assert_int_equal(r.cx.n_errors, 1);
        done(&r);
    }
    unlink(path);
}

/* ---- tensors ----------------------------------------------------------------------------------- */

static void single_tensors(void **state)
{
    (void)state;
    const char *path = "test_import.tmp.pb";
    struct mpqc_cx cx;
    struct mpqc_arena arena;
    struct mpqc_tensor t;
    const char *name;
    mpqc_cx_init(&cx, NULL);
    mpqc_arena_init(&arena, NULL);
    /* dims: 2, data_type: INT64, int64_data: [7, -1] packed, name: "t" */
    static const uint8_t good[] = {8,    2,    16,   7,    0x3a, 11,   7,    0xff, 0xff, 0xff, 0xff,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 1,    0x42, 1,    't'};
    write_file(path, good, sizeof(good));
    assert_int_equal(mpqc_read_tensor_pb(&cx, path, &arena, &t, &name), MPQC_OK);
    assert_int_equal(t.type.dtype, MPQC_DT_I64);
    assert_int_equal(t.type.rank, 1);
    assert_int_equal(((const int64_t *)t.data)[0], 7);
    assert_int_equal(((const int64_t *)t.data)[1], -1);
    assert_string_equal(name, "t");
    write_file(path, good, sizeof(good) - 1);
    assert_int_equal(mpqc_read_tensor_pb(&cx, path, &arena, &t, &name), MPQC_FORMAT);
    assert_int_equal(mpqc_read_tensor_pb(&cx, "nowhere.pb", &arena, &t, &name), MPQC_IO);
    assert_int_equal(cx.n_errors, 2);
    mpqc_arena_release(&arena);
    mpqc_cx_release(&cx);
    unlink(path);
}

/* The fixture expects its weights in a file beside it, 4 bytes from its start. */
static void external_data(void **state)
{
    (void)state;
    static const float data[] = {99, 1, 2, 3};
    struct result r;
    write_file(FIXTURES "weights.bin", data, sizeof(data));
    import(&r, FIXTURES "external_data.onnx", NULL);
    if (r.status != MPQC_OK) show(&r);
    assert_int_equal(r.status, MPQC_OK);
    assert_non_null(strstr(r.text.data, "f32[3] = [0x1p+0,0x1p+1,0x1.8p+1]"));
    done(&r);
    /* A link that leads out of the folder is seen through. */
    unlink(FIXTURES "weights.bin");
    assert_int_equal(symlink("/etc/passwd", FIXTURES "weights.bin"), 0);
    import(&r, FIXTURES "external_data.onnx", NULL);
    assert_int_equal(r.status, MPQC_MODEL);
    assert_true(said(&r, "outside the model's folder"));
    done(&r);
    unlink(FIXTURES "weights.bin");
}

/* ---- memory ---------------------------------------------------------------------------------------- */

static void out_of_memory(const char *path)
{
    bool worked = false;
    for (uint64_t at = 1; !worked; at++) {
        struct failing_allocator f;
        struct mpqc_cx cx;
        struct mpqc_graph g;
        failing_init(&f, at);
        mpqc_cx_init(&cx, &f.allocator);
        mpqc_graph_init(&g, &f.allocator);
        mpqc_status status = mpqc_import_onnx(&cx, path, NULL, &g);
        worked = f.requests < at;
        if (status != (worked ? MPQC_OK : MPQC_NO_MEMORY))
            fail_msg("%s: status %d when request %u fails", path, (int)status, (unsigned)at);
        mpqc_graph_release(&g);
        mpqc_cx_release(&cx);
        assert_int_equal(f.alive, 0);
        assert_in_range(at, 1, 100000);
    }
}

static void memory_runs_out(void **state)
{
    (void)state;
    out_of_memory(FIXTURES "gemm_folds.onnx");
    out_of_memory(FIXTURES "if_inlined.onnx");
    out_of_memory(FIXTURES "conv_layout.onnx");
}

/* ---- the list of operators ----------------------------------------------------------------------------- */

static void list_of_operators(void **state)
{
    (void)state;
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    mpqc_list_onnx_ops(&b);
    assert_false(b.failed);
    assert_non_null(strstr(b.data, "Conv "));
    assert_non_null(strstr(b.data, "HardSwish            14-21"));
    assert_non_null(strstr(b.data, "Softmax              7-12"));
    assert_null(strstr(b.data, "9999"));
    mpqc_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixtures),        cmocka_unit_test(bundled_networks),
        cmocka_unit_test(no_models),       cmocka_unit_test(truncated_everywhere),
        cmocka_unit_test(single_tensors),  cmocka_unit_test(external_data),
        cmocka_unit_test(memory_runs_out), cmocka_unit_test(list_of_operators),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
