/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * For lowbit.sh:
 *     lowbit make K N FILE.onnx       a dense layer y[1,N] = x[1,K] w + b, random weights
 *     lowbit calib K FILE.npy         a few random inputs for it
 *     lowbit time THREADS ROUNDS A.so B.so...
 *                                     runs the libraries in turn, so that all see the same
 *                                     machine; per library the median and the least time,
 *                                     bytes of weights per second, and A's median over its own
 */
#include "runtime/mpqc_load.h"
#include "runtime/mpqc_pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SAMPLES 8
#define MOST 16

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "lowbit: %s: %s\n", what, why);
    return 1;
}

/* ---- inputs --------------------------------------------------------------------------- */

/* Nearly normal: sums of four. */
static float random_float(uint64_t *state, float deviation)
{
    int32_t sum = 0;
    for (int i = 0; i < 4; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (int32_t)(*state >> 40 & 0xffff) - 0x8000;
    }
    return deviation * (float)sum / 37837.0f; /* the deviation of such a sum */
}

static void put_floats(FILE *f, uint64_t n, uint64_t seed, float deviation)
{
    for (uint64_t i = 0; i < n; i++) {
        float x = random_float(&seed, deviation);
        fwrite(&x, sizeof x, 1, f); /* little-endian, like this machine */
    }
}

/* A protobuf message in the making; an ONNX file of one node needs no more than this. */
struct message {
    unsigned char bytes[512];
    size_t n;
};

static void put_varint(struct message *m, uint64_t v)
{
    for (; v > 127; v >>= 7) m->bytes[m->n++] = (unsigned char)(v | 128);
    m->bytes[m->n++] = (unsigned char)v;
}

static void put_int(struct message *m, unsigned field, uint64_t v)
{
    put_varint(m, field << 3);
    put_varint(m, v);
}

static void put_bytes(struct message *m, unsigned field, const void *bytes, size_t n)
{
    put_varint(m, field << 3 | 2);
    put_varint(m, n);
    memcpy(m->bytes + m->n, bytes, n);
    m->n += n;
}

static void put_text(struct message *m, unsigned field, const char *text)
{
    put_bytes(m, field, text, strlen(text));
}

static void put_message(struct message *m, unsigned field, const struct message *inner)
{
    put_bytes(m, field, inner->bytes, inner->n);
}

/* ValueInfoProto: a float tensor of shape [1,n]. */
static struct message value_info(const char *name, uint64_t n)
{
    struct message one = {.n = 0}, all = one, shape = one, tensor = one, type = one, info = one;
    put_int(&one, 1, 1);
    put_int(&all, 1, n);
    put_message(&shape, 1, &one);
    put_message(&shape, 1, &all);
    put_int(&tensor, 1, 1);
    put_message(&tensor, 2, &shape);
    put_message(&type, 1, &tensor);
    put_text(&info, 1, name);
    put_message(&info, 2, &type);
    return info;
}

/* TensorProto without its data, which is field 9 and follows. */
static struct message tensor_head(const char *name, uint64_t rows, uint64_t columns)
{
    struct message t = {.n = 0};
    if (rows) put_int(&t, 1, rows);
    put_int(&t, 1, columns);
    put_int(&t, 2, 1);
    put_text(&t, 8, name);
    put_varint(&t, 9 << 3 | 2);
    put_varint(&t, 4 * (rows ? rows : 1) * columns);
    return t;
}

/* The field's tag and length, for a message that is `n` bytes and goes to the file itself. */
static struct message field_head(unsigned field, uint64_t n)
{
    struct message m = {.n = 0};
    put_varint(&m, field << 3 | 2);
    put_varint(&m, n);
    return m;
}

static int make_onnx(uint64_t k, uint64_t n, const char *path)
{
    struct message node = {.n = 0}, head = node, tail = node, opset = node, ends = node;
    struct message w = tensor_head("w", k, n), b = tensor_head("b", 0, n);
    uint64_t w_bytes = w.n + 4 * k * n, b_bytes = b.n + 4 * n;
    struct message w_field = field_head(5, w_bytes), b_field = field_head(5, b_bytes);
    for (int i = 0; i < 3; i++) put_text(&node, 1, i == 0 ? "x" : i == 1 ? "w" : "b");
    put_text(&node, 2, "y");
    put_text(&node, 3, "dense");
    put_text(&node, 4, "Gemm");
    put_message(&head, 1, &node);
    put_text(&head, 2, "dense");
    struct message x = value_info("x", k), y = value_info("y", n);
    put_message(&ends, 11, &x);
    put_message(&ends, 12, &y);
    uint64_t graph = head.n + w_field.n + w_bytes + b_field.n + b_bytes + ends.n;
    put_int(&opset, 2, 13);
    put_int(&tail, 1, 8); /* IR version */
    put_message(&tail, 8, &opset);
    struct message g_field = field_head(7, graph);
    FILE *f = fopen(path, "wb");
    if (!f) return fail(path, "cannot be written");
    fwrite(tail.bytes, 1, tail.n, f);
    fwrite(g_field.bytes, 1, g_field.n, f);
    fwrite(head.bytes, 1, head.n, f);
    fwrite(w_field.bytes, 1, w_field.n, f);
    fwrite(w.bytes, 1, w.n, f);
    put_floats(f, k * n, 1, 0.02f);
    fwrite(b_field.bytes, 1, b_field.n, f);
    fwrite(b.bytes, 1, b.n, f);
    put_floats(f, n, 2, 0.1f);
    fwrite(ends.bytes, 1, ends.n, f);
    int bad = ferror(f);
    return fclose(f) || bad ? fail(path, "cannot be written") : 0;
}

static int make_calib(uint64_t k, const char *path)
{
    char head[128];
    int n = snprintf(head, sizeof head, "{'descr': '<f4', 'fortran_order': False, "
                     "'shape': (%d, %llu), }", SAMPLES, (unsigned long long)k);
    FILE *f = fopen(path, "wb");
    if (!f) return fail(path, "cannot be written");
    fprintf(f, "\x93NUMPY%c%c%c%c%-117s\n", 1, 0, 118, 0, n > 0 ? head : "");
    put_floats(f, SAMPLES * k, 3, 1.0f);
    int bad = ferror(f);
    return fclose(f) || bad ? fail(path, "cannot be written") : 0;
}

/* ---- timing ------------------------------------------------------------------------------ */

struct side {
    const char *path;
    struct mpqc_loaded lib;
    void *in, *out, *workspace;
    double *ns;
    uint64_t bytes;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int open_side(struct side *s, const char *path, size_t rounds)
{
    char error[MPQC_LOAD_ERROR];
    s->path = path;
    if (mpqc_load_open(path, NULL, &s->lib, error) != 0 ||
        mpqc_load_supported(&s->lib, path, error) != 0)
        return fail(path, error);
    const struct mpqc_model *m = s->lib.model;
    if (m->n_inputs != 1 || m->n_outputs != 1) return fail(path, "not one input and one output");
    s->in = malloc(m->inputs[0].bytes);
    s->out = malloc(m->outputs[0].bytes);
    s->workspace = mpqc_workspace_alloc(m);
    s->ns = calloc(rounds, sizeof *s->ns);
    if (!s->in || !s->out || !s->workspace || !s->ns) return fail(path, "out of memory");
    for (uint64_t i = 0; i < m->inputs[0].bytes; i++)
        ((unsigned char *)s->in)[i] = (unsigned char)(i * 37 + i / 64);
    for (uint32_t i = 0; i < m->n_layers; i++) s->bytes += m->layers[i].weight_bytes;
    return 0;
}

static int run_side(struct side *s, const struct mpqc_exec *exec, double *ns)
{
    const void *in[] = {s->in};
    void *out[] = {s->out};
    double from = now();
    int status = s->lib.model->run(in, out, s->workspace, exec);
    *ns = now() - from;
    return status == 0 ? 0 : fail(s->path, mpqc_run_status_text(status));
}

static void print_side(const struct side *s, double base, size_t rounds)
{
    double median = s->ns[rounds / 2];
    printf("%-28s %9.1f us median %9.1f min %8.2f MB %7.1f GB/s %6.2fx\n", s->path, median / 1e3,
           s->ns[0] / 1e3, (double)s->bytes / 1e6, (double)s->bytes / median, base / median);
}

static int time_sides(unsigned threads, size_t rounds, char **path, int n)
{
    struct side side[MOST] = {0};
    struct mpqc_exec exec;
    struct mpqc_pool *pool = mpqc_pool_create(threads);
    if (!pool) return fail("threads", "cannot be started");
    mpqc_pool_exec(pool, &exec);
    for (int i = 0; i < n; i++)
        if (open_side(&side[i], path[i], rounds) != 0) return 1;
    for (size_t r = 0; r < rounds + 2; r++) /* two rounds to warm up */
        for (int i = 0; i < n; i++)
            if (run_side(&side[i], &exec, &side[i].ns[r < 2 ? 0 : r - 2]) != 0) return 1;
    for (int i = 0; i < n; i++) qsort(side[i].ns, rounds, sizeof *side[i].ns, by_size);
    for (int i = 0; i < n; i++) print_side(&side[i], side[0].ns[rounds / 2], rounds);
    for (int i = 0; i < n; i++) {
        free(side[i].in);
        free(side[i].out);
        free(side[i].workspace);
        free(side[i].ns);
        mpqc_load_close(&side[i].lib);
    }
    mpqc_pool_destroy(pool);
    return 0;
}

static uint64_t number(const char *text)
{
    return strtoull(text, NULL, 10);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "make") == 0)
        return make_onnx(number(argv[2]), number(argv[3]), argv[4]);
    if (argc == 4 && strcmp(argv[1], "calib") == 0) return make_calib(number(argv[2]), argv[3]);
    uint64_t rounds = argc > 4 ? number(argv[3]) : 0;
    if (argc > 4 && argc <= 4 + MOST && strcmp(argv[1], "time") == 0 && rounds > 0)
        return time_sides((unsigned)number(argv[2]), rounds, argv + 4, argc - 4);
    fprintf(stderr, "usage: lowbit make K N FILE.onnx | calib K FILE.npy | "
                    "time THREADS ROUNDS A.so...\n");
    return 1;
}
