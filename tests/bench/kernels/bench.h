/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * bench_kernels: single layers, compiled by mpqc's own passes and code generator and run in
 * one process in turn.  kernels.c is the program, make.c compiles, time.c measures,
 * print.c says; shapes.def is the list of layers.
 */
#ifndef MPQC_TESTS_BENCH_KERNELS_H
#define MPQC_TESTS_BENCH_KERNELS_H

#include "codegen/codegen.h"

#include <stdio.h>

enum bench_kind { CONV, DENSE, MAXPOOL, MEAN, ADD, SCALE, HARDSWISH };

/* Input [1,h,w,c]; a k x k window with stride s in g groups, padded by k / 2; oc channels. */
struct bench_shape {
    const char *network, *layer;
    enum bench_kind kind;
    int64_t c, h, w, oc, k, s, g;
    bool add; /* a convolution that another tensor is added to */
};
extern const struct bench_shape bench_shapes[];
extern const size_t bench_n_shapes;
/* "gemm 1x1", "gemm kxk", "depthwise", ...: the template of codegen/ that computes it. */
const char *bench_template(const struct bench_shape *s);

/* A layer for a target, with so many bits of weights and of its input, in a tile. */
struct bench_case {
    const struct bench_shape *shape;
    const struct mpqc_target *target;
    unsigned bits, activation_bits;
    uint32_t wish; /* tile; 0: the cost model's rank-th best */
    uint32_t rank;
    /* as compiled */
    char path[512];
    uint32_t layer; /* of the library */
    struct mpqc_tile_facts tile;
    /* as loaded and measured */
    void *library;
    const struct mpqc_model *model;
    double ns; /* the least */
    double peak; /* GMAC/s of the target, or of bits where they are counted; 0: not known */
};

/* Is its tile a bit-serial one? */
static inline bool bench_serial(const struct bench_case *c)
{
    return c->tile.tile & MPQC_TILE_SERIAL;
}

/* Passes, code, and a library at c->path, which must be filled in.  Prints why and ends the
 * program when that fails. */
void bench_make(struct bench_case *c);

/* Loads all and runs each in turn, `rounds` times. */
void bench_time(struct bench_case *c, size_t n, unsigned rounds);

void bench_print_tsv(const struct bench_case *c, size_t n, FILE *to);
void bench_print_table(const struct bench_case *c, size_t n, FILE *to);
/* Markdown: every layer for the target that the CPU does best with, all targets, all bits. */
void bench_print_page(const struct bench_case *c, size_t n, FILE *to);

_Noreturn void bench_die(const char *fmt, ...) MPQC_PRINTF(1, 2);

#endif
