/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the end-to-end programs share: the bundled networks, Fashion-MNIST, and the
 * way from an ONNX file to a planned integer graph inside one process.
 *
 * These are programs that stop at the first thing that is not as it should be:
 * CHECK prints what and where and exits with 1.
 */
#ifndef MPQC_TESTS_E2E_SUPPORT_H
#define MPQC_TESTS_E2E_SUPPORT_H

#include "codegen/codegen.h"
#include "driver/data.h"
#include "frontend/frontend.h"
#include "passes/bits.h"
#include "passes/pass.h"

#include <stdlib.h>
#include <string.h>

#define TRAIN_IMAGES MPQC_FASHION "/train-images-idx3-ubyte.gz"
#define TEST_IMAGES MPQC_FASHION "/t10k-images-idx3-ubyte.gz"

_Noreturn void e2e_die(const char *file, int line, const char *fmt, ...) MPQC_PRINTF(3, 4);
#define CHECK(cond, ...) ((cond) ? (void)0 : e2e_die(__FILE__, __LINE__, __VA_ARGS__))

/* A row of tutorials/networks/networks.tsv, and the file's path. */
struct e2e_network {
    char name[64];   /* "fashion_resnet" */
    char metric[16]; /* "top1" or "mse" */
    double value;    /* of the float network on the test images */
    float mean, std;
    char path[512];
};
/* name: with or without "fashion_". */
struct e2e_network e2e_network_find(const char *name);

/* Images as the tensors of a network's only input. */
struct e2e_images {
    struct mpqc_data *file;
    const struct mpqc_array *array;
    struct mpqc_preprocess pre;
    struct mpqc_type type; /* of the float input */
    uint64_t count;
};
void e2e_images_open(struct e2e_images *images, const char *path, const struct e2e_network *net,
                     const struct mpqc_graph *g);
void e2e_images_get(const struct e2e_images *images, uint64_t index, float *out);
void e2e_images_close(struct e2e_images *images);

/* One network after plan.  `passes` owns the plan. */
struct e2e_compiled {
    struct mpqc_cx cx;
    struct mpqc_options options;
    struct mpqc_graph graph;
    struct mpqc_pass_cx passes;
    struct mpqc_bits bits; /* when pinned */
};
/* Import, simplify, calibrate on `samples` training images, quantise, fuse, plan; the
 * verifier runs after each pass.  pin: a rule as -pin has it, whose layers get its choice,
 * all others w8a8; or NULL. */
void e2e_compile(const struct e2e_network *net, uint64_t samples, bool int_io, const char *pin,
                 struct e2e_compiled *out);
void e2e_compiled_release(struct e2e_compiled *c);
/* Prints all diagnostics and exits with 1 unless status is MPQC_OK. */
void e2e_expect_ok(const struct mpqc_cx *cx, mpqc_status status, const char *what);
/* Bytes of all weights of linear operators. */
uint64_t e2e_weight_bytes(const struct mpqc_graph *g);

/* splitmix64 (Steele, Lea, Flood 2014). */
uint64_t e2e_random(uint64_t *state);
void e2e_random_bytes(uint64_t *state, void *to, size_t n);
void *e2e_malloc(size_t n);
/* The whole file, malloc'ed. */
uint8_t *e2e_read_file(const char *path, size_t *n);
/* Makes a folder and those above it. */
void e2e_make_folder(const char *path);

#endif
