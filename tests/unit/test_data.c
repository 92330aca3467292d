/* SPDX-License-Identifier: GPL-3.0-or-later
 * Sample files: every format of arrays read back, every lie in a header refused, and bytes
 * flipped at random in all of them.
 */
#define DATA_FOLDER "test_data_files"
#include "data_rig.h"

#include <math.h>
#include <zlib.h>

/* ---- npy ---- */

static void npy_reads_every_type(void **state)
{
    (void)state;
    static const struct {
        const char *descr;
        size_t size;
        const char *elements; /* 1, 2, -3 or 253 */
        float last;
    } rows[] = {
        {"<f4", 4, "\0\0\x80\x3f\0\0\0\x40\0\0\x40\xc0", -3},
        {"<f8", 8, "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\x08\xc0", -3},
        {"<f2", 2, "\0\x3c\0\x40\0\xc2", -3},
        {"|u1", 1, "\1\2\xfd", 253},
        {"|i1", 1, "\1\2\xfd", -3},
        {"<u2", 2, "\1\0\2\0\xfd\0", 253},
        {"<i2", 2, "\1\0\2\0\xfd\xff", -3},
        {"<i4", 4, "\1\0\0\0\2\0\0\0\xfd\xff\xff\xff", -3},
        {"<u4", 4, "\1\0\0\0\2\0\0\0\xfd\0\0\0", 253},
        {"<i8", 8, "\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\xfd\xff\xff\xff\xff\xff\xff\xff", -3},
        {"=f4", 4, "\0\0\x80\x3f\0\0\0\x40\0\0\x40\xc0", -3},
        {">u1", 1, "\1\2\xfd", 253},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int version = 1; version <= 3; version++) {
            char dict[100];
            struct bytes b;
            snprintf(dict, sizeof dict,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (1, 3), }   \n",
                     rows[i].descr);
            make_npy(&b, version, dict, rows[i].elements, 3 * rows[i].size);
            struct mpqc_data *d = opened(save("type.npy", b.at, b.n));
            assert_sample(d, (const float[]){1, 2, rows[i].last}, 3);
            mpqc_data_close(d);
        }
}

static void half_floats_are_exact(void **state)
{
    (void)state;
    /* smallest subnormal, largest subnormal, smallest normal, largest, -0, 1/3 */
    static const unsigned char halves[] = {1, 0, 0xff, 3, 0, 4, 0xff, 0x7b, 0, 0x80, 0x55, 0x35};
    struct bytes b;
    make_npy(&b, 1, "{'shape': (1, 6), 'descr': \"<f2\", 'fortran_order': False}", halves, 12);
    struct mpqc_data *d = opened(save("half.npy", b.at, b.n));
    assert_sample(d, (const float[]){0x1p-24f, 0x3ffp-24f, 0x1p-14f, 65504, -0.0f, 0x1.554p-2f},
                  6);
    mpqc_data_close(d);
}

static void npy_refuses_what_it_cannot_read(void **state)
{
    (void)state;
#define D(descr, order, shape)                                                                    \
    "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape "}"
    static const struct {
        const char *dict, *pattern;
    } rows[] = {
        {D("'<f4'", "True", "(2, 2)"), "Fortran"},
        {D("'>f4'", "False", "(2, 2)"), "big-endian"},
        {D("'|O'", "False", "(2, 2)"), "Python objects"},
        {D("[('a', '<f4')]", "False", "(2, 2)"), "structured"},
        {D("'<c8'", "False", "(2, 2)"), "'<c8'"},
        {D("'|S5'", "False", "(2, 2)"), "'|S5'"},
        {D("'<f4'", "False", "(2, 3)"), "truncated"},
        {D("'<f4'", "False", "(4294967296, 4294967296)"), "too large"},
        {D("'<f4'", "False", "(4611686018427387904, 4)"), "too large"},
        {D("'<f4'", "False", "(0, 9223372036854775807, 9223372036854775807)"), "too large"},
        {D("'<f4'", "False", "(99999999999999999999, 1)"), "broken"},
        {D("'<f4'", "False", "(-1, 2)"), "broken"},
        {D("'<f4'", "False", "(1,1,1,1,1,1,1,1,1,1)"), "axes"},
        {D("'<f4'", "Maybe", "(2, 2)"), "broken"},
        {D("'<f4'", "False", "(2 2)"), "broken"},
        {D("'<f4", "False", "(2, 2)"), "broken"},
        {"{'descr': '<f4', 'shape': (2, 2)}", "broken"},
        {"{'descr': '<f4', 'evil': 1, 'shape': (2, 2)}", "broken"},
        {"{", "broken"},
        {"", "broken"},
    };
    static const float data[4] = {1, 2, 3, 4};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct bytes b;
        make_npy(&b, 1, rows[i].dict, data, sizeof data);
        refused(save("bad.npy", b.at, b.n), rows[i].pattern);
    }
    refused(save("bad.npy", "", 0), "empty");
    refused(save("bad.npy", "\x93NUMPY\1\0\xff\xff{}", 12), "broken header");
    refused(save("bad.npy", "\x93NUMPY\7\0\2\0{}", 12), "broken header");
    refused(save("bad.npy", "text", 4), "not an .npy");
    refused(save("what.txt", "text", 4), "not a sample file");
    refused(path_of("none.npy"), "cannot be opened");
}

/* ---- npz ---- */

static void make_zip(struct bytes *z, const char *const *names, const struct bytes *members,
                     int n, int method)
{
    struct bytes *directory = calloc(1, sizeof *directory);
    assert_non_null(directory);
    z->n = 0;
    for (int i = 0; i < n; i++) {
        static unsigned char packed[1 << 16];
        uint64_t local = z->n, plain = members[i].n, size = plain;
        const unsigned char *data = members[i].at;
        if (method == 8) {
            z_stream s;
            memset(&s, 0, sizeof s);
            assert_int_equal(deflateInit2(&s, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
            unsigned char *in = malloc((size_t)plain);
            assert_non_null(in);
            memcpy(in, data, (size_t)plain);
            s.next_in = in;
            s.avail_in = (uInt)plain;
            s.next_out = packed;
            s.avail_out = sizeof packed;
            assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
            size = s.total_out;
            deflateEnd(&s);
            free(in);
            data = packed;
        }
        size_t name = strlen(names[i]);
        struct bytes *to[2] = {z, directory};
        for (int k = 0; k < 2; k++) { /* the two headers are nearly the same */
            add(to[k], k ? "PK\1\2" : "PK\3\4", 4);
            if (k) add_le(to[k], 20, 2);
            add_le(to[k], 20, 2);
            add_le(to[k], 0, 2);
            add_le(to[k], (uint64_t)method, 2);
            add_le(to[k], 0, 8); /* time, date, crc */
            add_le(to[k], size, 4);
            add_le(to[k], plain, 4);
            add_le(to[k], name, 2);
            add_le(to[k], 0, 2);
            if (k) add_le(to[k], 0, 10);
            if (k) add_le(to[k], local, 4);
            add(to[k], names[i], name);
        }
        add(z, data, (size_t)size);
    }
    uint64_t start = z->n;
    add(z, directory->at, directory->n);
    add(z, "PK\5\6", 4);
    add_le(z, 0, 4);
    add_le(z, (uint64_t)n, 2);
    add_le(z, (uint64_t)n, 2);
    add_le(z, directory->n, 4);
    add_le(z, start, 4);
    add_le(z, 0, 2);
    free(directory);
}

static void make_example_npz(struct bytes *z, int method)
{
    static const char *const names[] = {"left.npy", "right.npy"};
    static const float left[] = {1, 2, 3, 4, 5, 6};
    struct bytes *m = calloc(2, sizeof *m);
    assert_non_null(m);
    make_npy(&m[0], 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", left, 24);
    make_npy(&m[1], 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2), }\n", "abcd", 4);
    make_zip(z, names, m, 2, method);
    free(m);
}

static void npz_has_one_array_an_input(void **state)
{
    (void)state;
    static const int methods[] = {0, 8};
    for (int k = 0; k < 2; k++) {
        struct bytes *z = calloc(1, sizeof *z);
        assert_non_null(z);
        make_example_npz(z, methods[k]);
        struct mpqc_data *d = opened(save("two.npz", z->at, z->n));
        assert_int_equal(mpqc_data_count(d), 2);
        const struct mpqc_array *a = mpqc_data_array(d, "right");
        assert_non_null(a);
        assert_int_equal(a->type, MPQC_DATA_U8);
        assert_memory_equal(a->data, "abcd", 4);
        assert_int_equal(mpqc_data_array(d, "left")->dims[1], 3);
        assert_null(mpqc_data_array(d, "middle"));
        mpqc_data_close(d);
        free(z);
    }
}

static void npz_refuses_lies(void **state)
{
    (void)state;
    struct bytes *z = calloc(1, sizeof *z);
    assert_non_null(z);
    make_example_npz(z, 8);
    refused(save("lie.npz", z->at, z->n - 10), "directory");
    refused(save("lie.npz", z->at, 30), "directory");
    size_t end = z->n - 22, start = z->at[end + 16] | (size_t)z->at[end + 17] << 8;
    z->at[start + 27] = 0x40; /* a gigabyte from these few bytes */
    refused(save("lie.npz", z->at, z->n), "directory");
    make_example_npz(z, 8);
    z->at[start + 24] += 1; /* one byte more than there is */
    refused(save("lie.npz", z->at, z->n), "damaged or truncated");
    make_example_npz(z, 0);
    end = z->n - 22;
    start = z->at[end + 16] | (size_t)z->at[end + 17] << 8;
    z->at[start + 10] = 12; /* bzip2 */
    refused(save("lie.npz", z->at, z->n), "method");
    free(z);
}

/* ---- IDX ---- */

static void idx_swaps_and_unpacks(void **state)
{
    (void)state;
    static const unsigned char idx[] = {0, 0, 0x0d, 2, 0, 0, 0, 2, 0, 0, 0, 2,
                                        0x3f, 0x80, 0, 0, 0x40, 0, 0, 0,
                                        0xc0, 0x40, 0, 0, 0x40, 0x80, 0, 0};
    struct mpqc_data *d = opened(save("floats.idx", idx, sizeof idx));
    assert_sample(d, (const float[]){1, 2}, 2);
    mpqc_data_close(d);
    gzFile z = gzopen(path_of("floats.idx.gz"), "wb");
    assert_int_equal(gzwrite(z, idx, sizeof idx), sizeof idx);
    gzclose(z);
    d = opened(path_of("floats.idx.gz"));
    assert_sample(d, (const float[]){1, 2}, 2);
    mpqc_data_close(d);
    refused(save("short.idx", idx, sizeof idx - 1), "truncated");
    refused(save("short.idx", idx, 9), "truncated inside the header");
    refused(save("no.idx", "\0\0\7\1\0\0\0\1a", 9), "not an IDX");
    refused(save("deep.idx", "\0\0\x08\x20\0\0\0\1a", 9), "axes");
    /* the header promises 2^56 bytes */
    z = gzopen(path_of("huge.gz"), "wb");
    gzwrite(z, "\0\0\x08\3\0\xff\xff\xff\0\xff\xff\xff\0\0\1\0", 16);
    gzclose(z);
    refused(path_of("huge.gz"), "more than the file can hold");
    refused(save("cut.gz", "\x1f\x8b\x08\0\0\0", 6), "damaged or truncated");
}

static void fashion_mnist_is_there(void **state)
{
    (void)state;
    const char *images = "/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz";
    const char *labels = "/usr/share/datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz";
    struct mpqc_data_error err;
    int64_t *l, dims[] = {1, 1, 28, 28};
    uint64_t n, samples, counts[10] = {0};
    if (access(images, R_OK)) skip();
    struct mpqc_data *d = opened(images);
    struct mpqc_preprocess pre = {.scale = 0};
    assert_int_equal(
        mpqc_array_check(mpqc_data_at(d, 0), "x", 4, dims, &pre, &samples, &err), 0);
    assert_int_equal(samples, 10000);
    float x[784], highest = 0;
    assert_int_equal(mpqc_array_sample(mpqc_data_at(d, 0), 4, dims, &pre, 9999, x, &err), 0);
    for (int i = 0; i < 784; i++) highest = fmaxf(highest, x[i]);
    assert_true(highest > 0.5f && highest <= 1.0f);
    assert_int_equal(mpqc_labels_open(labels, &l, &n, &err), 0);
    assert_int_equal(n, 10000);
    for (uint64_t i = 0; i < n; i++) counts[l[i]]++;
    for (int k = 0; k < 10; k++) assert_int_equal(counts[k], 1000);
    free(l);
    mpqc_data_close(d);
}

/* ---- ONNX tensors ---- */

static void pb_field(struct bytes *b, unsigned number, const void *data, size_t n)
{
    add(b, (unsigned char[]){(unsigned char)(number << 3 | 2), (unsigned char)n}, 2);
    add(b, data, n);
}

static void pb_number(struct bytes *b, unsigned number, unsigned v)
{
    add(b, (unsigned char[]){(unsigned char)(number << 3), (unsigned char)v}, 2);
}

static void make_pb(struct bytes *b, const char *name, unsigned type, unsigned data_field,
                    const void *data, size_t n)
{
    b->n = 0;
    pb_number(b, 1, 1);
    pb_number(b, 1, 3);
    pb_number(b, 2, type);
    if (name) pb_field(b, 8, name, strlen(name));
    pb_field(b, data_field, data, n);
}

static void tensors_in_every_encoding(void **state)
{
    (void)state;
    static const float f[] = {1, 2, 3};
    static const struct {
        unsigned type, field;
        const char *data;
        size_t n;
    } rows[] = {
        {1, 9, NULL, 12}, /* float, raw */
        {1, 4, NULL, 12}, /* float_data */
        {2, 5, "\1\2\3", 3},
        {6, 5, "\1\2\3", 3},
        {7, 7, "\1\2\3", 3},
        {7, 9, "\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0", 24},
        {10, 5, "\x80\x78\x80\x80\1\x80\x84\1", 8}, /* f16 bits as varints */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct bytes b;
        make_pb(&b, "in", rows[i].type, rows[i].field, rows[i].data ? (const void *)rows[i].data : f,
                rows[i].n);
        struct mpqc_data *d = opened(save("t.pb", b.at, b.n));
        assert_sample(d, f, 3);
        assert_string_equal(mpqc_data_at(d, 0)->name, "in");
        mpqc_data_close(d);
    }
    struct bytes b;
    make_pb(&b, "in", 1, 9, f, 8);
    refused(save("t.pb", b.at, b.n), "raw_data has 8");
    make_pb(&b, "in", 1, 4, f, 8);
    refused(save("t.pb", b.at, b.n), "does not fit the dims");
    make_pb(&b, "in", 8, 9, f, 12);
    refused(save("t.pb", b.at, b.n), "element type");
    refused(save("t.pb", b.at, b.n - 1), "broken at byte");
    refused(save("t.pb", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x10\1", 12), "impossible");
}

static void test_data_sets_are_samples(void **state)
{
    (void)state;
    mkdir(path_of("sets"), 0777);
    static const int numbers[] = {0, 2, 10};
    for (int i = 0; i < 3; i++) {
        char name[64];
        struct bytes b;
        snprintf(name, sizeof name, "sets/test_data_set_%d", numbers[i]);
        mkdir(path_of(name), 0777);
        for (int k = 0; k < 2; k++) {
            const float f[] = {(float)numbers[i], (float)k, 0};
            snprintf(name, sizeof name, "sets/test_data_set_%d/input_%d.pb", numbers[i], k);
            make_pb(&b, k ? "second" : NULL, 1, 9, f, 12);
            save(name, b.at, b.n);
        }
        snprintf(name, sizeof name, "sets/test_data_set_%d/output_0.pb", numbers[i]);
        save(name, "junk", 4);
    }
    struct mpqc_data *d = opened(path_of("sets"));
    assert_int_equal(mpqc_data_count(d), 2);
    const struct mpqc_array *a = mpqc_data_array(d, "second");
    const int64_t dims[] = {1, 3};
    assert_non_null(a);
    assert_int_equal(a->dims[0], 3);
    for (uint64_t i = 0; i < 3; i++) {
        float x[3];
        struct mpqc_data_error err;
        assert_int_equal(mpqc_array_sample(a, 2, dims, NULL, i, x, &err), 0);
        assert_true(x[0] == (float)numbers[i] && x[1] == 1);
    }
    assert_non_null(mpqc_data_array(d, "input_0")); /* it has no name of its own */
    mpqc_data_close(d);
}

static void raw_floats_need_a_shape(void **state)
{
    (void)state;
    static const float f[] = {1, 2, 3, 4, 5, 6};
    const int64_t dims[] = {1, 3};
    const char *path = save("w.f32", f, sizeof f);
    struct mpqc_data *d;
    struct mpqc_data_error err;
    refused(path, "no shape");
    assert_int_equal(mpqc_data_open(path, 2, dims, &d, &err), 0);
    uint64_t samples;
    assert_int_equal(mpqc_array_check(mpqc_data_at(d, 0), "x", 2, dims, NULL, &samples, &err), 0);
    assert_int_equal(samples, 2);
    mpqc_data_close(d);
    assert_int_equal(mpqc_data_open(save("w.raw", f, 20), 2, dims, &d, &err), -1);
    assert_non_null(strstr(err.text, "no whole number"));
}

/* ---- labels, writing ---- */

static void labels_are_integers_of_one_axis(void **state)
{
    (void)state;
    struct bytes b;
    int64_t *l = NULL;
    uint64_t n;
    struct mpqc_data_error err;
    make_npy(&b, 1, D("'<u2'", "False", "(3, 1)"), "\1\0\2\0\0\1", 6);
    assert_int_equal(mpqc_labels_open(save("l.npy", b.at, b.n), &l, &n, &err), 0);
    assert_true(n == 3 && l[0] == 1 && l[2] == 256);
    free(l);
    make_npy(&b, 1, D("'<u2'", "False", "(1, 3)"), "\1\0\2\0\0\1", 6);
    assert_int_equal(mpqc_labels_open(save("l.npy", b.at, b.n), &l, &n, &err), -1);
    assert_non_null(strstr(err.text, "[1,3]"));
    make_npy(&b, 1, D("'<f4'", "False", "(1,)"), "\0\0\0\0", 4);
    assert_int_equal(mpqc_labels_open(save("l.npy", b.at, b.n), &l, &n, &err), -1);
    assert_non_null(strstr(err.text, "integers"));
}

static void what_is_written_can_be_read(void **state)
{
    (void)state;
    const float rows[] = {1, 2, 3, 4, 5, 6};
    const int64_t dims[] = {2, 3};
    struct mpqc_npy_writer *w;
    struct mpqc_data_error err;
    const char *path = path_of("out.npy");
    unlink(path); /* of an earlier run */
    assert_int_equal(mpqc_npy_create(path, MPQC_ELEM_F32, 2, dims, &w, &err), 0);
    assert_int_equal(mpqc_npy_append(w, rows, 12, &err), 0);
    assert_int_equal(access(path, F_OK), -1); /* not before it is whole */
    assert_int_equal(mpqc_npy_append(w, rows + 3, 12, &err), 0);
    assert_int_equal(mpqc_npy_append(w, rows, 4, &err), -1);
    assert_int_equal(mpqc_npy_close(w, 1, &err), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size % 64, 24); /* data at a multiple of 64 */
    struct mpqc_data *d = opened(path);
    assert_sample(d, rows, 3);
    mpqc_data_close(d);
    /* too little data, or no wish to keep it: nothing is left */
    path = path_of("half-written.npy");
    for (int commit = 0; commit < 2; commit++) {
        assert_int_equal(mpqc_npy_create(path, MPQC_ELEM_I64, 2, dims, &w, &err), 0);
        assert_int_equal(mpqc_npy_append(w, rows, 8, &err), 0);
        assert_int_equal(mpqc_npy_close(w, commit, &err), commit ? -1 : 0);
        char temporary[300];
        snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
        assert_int_equal(access(path, F_OK), -1);
        assert_int_equal(access(temporary, F_OK), -1);
    }
    assert_int_equal(mpqc_npy_create("/dev/full", MPQC_ELEM_F32, 2, dims, &w, &err), 0);
    assert_int_equal(mpqc_npy_append(w, rows, 24, &err), 0);
    assert_int_equal(mpqc_npy_close(w, 1, &err), -1);
    assert_int_equal(mpqc_npy_create("no/such/x.npy", MPQC_ELEM_F32, 2, dims, &w, &err), -1);
}

/* ---- hostile bytes ---- */

static void flipped_bytes_do_no_harm(void **state)
{
    (void)state;
    struct bytes *z = calloc(1, sizeof *z);
    assert_non_null(z);
    make_example_npz(z, 0);
    save("f0.npz", z->at, z->n);
    make_example_npz(z, 8);
    save("f1.npz", z->at, z->n);
    free(z);
    static const char *const files[] = {"f0.npz", "f1.npz",        "type.npy", "floats.idx",
                                        "t.pb",   "floats.idx.gz", "out.npy",  "l.npy"};
    flip_bytes(files, sizeof files / sizeof *files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(npy_reads_every_type),
        cmocka_unit_test(half_floats_are_exact),
        cmocka_unit_test(npy_refuses_what_it_cannot_read),
        cmocka_unit_test(npz_has_one_array_an_input),
        cmocka_unit_test(npz_refuses_lies),
        cmocka_unit_test(idx_swaps_and_unpacks),
        cmocka_unit_test(fashion_mnist_is_there),
        cmocka_unit_test(tensors_in_every_encoding),
        cmocka_unit_test(test_data_sets_are_samples),
        cmocka_unit_test(raw_floats_need_a_shape),
        cmocka_unit_test(labels_are_integers_of_one_axis),
        cmocka_unit_test(what_is_written_can_be_read),
        cmocka_unit_test(flipped_bytes_do_no_harm),
    };
    return cmocka_run_group_tests(tests, enter, NULL);
}
