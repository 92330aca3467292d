/* SPDX-License-Identifier: MIT
 *
 * The binary interface of a compiled model.
 *
 * A library made by mpqc exports one constant object, `mpqc_model` (with
 * -tag=NAME: `mpqc_model_NAME`), of the type `struct mpqc_model` below.
 * Everything that an application needs is in it; there is nothing to link
 * against.  This header stands alone, in C and in C++.
 *
 *     void *lib = dlopen("./model.so", RTLD_NOW | RTLD_LOCAL);
 *     const struct mpqc_model *m = dlsym(lib, "mpqc_model");
 *     if (m->abi_version != MPQC_ABI_VERSION || !m->supported()) ...
 *     void *ws = aligned_alloc(m->workspace_align, m->workspace_size);
 *     const void *in[] = {image};
 *     void *out[] = {logits};
 *     int rc = m->run(in, out, ws, NULL);
 *
 * Properties that hold for every model: run() allocates nothing, calls nothing
 * but what `exec` names, writes nothing but the outputs and the workspace, and
 * may run in many threads at once, each with its own workspace.
 */
#ifndef MPQC_MODEL_H
#define MPQC_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Incremented when a field changes meaning or moves.  Fields are only ever
 * appended within one version; `struct_size` says how many are there. */
#define MPQC_ABI_VERSION 1u

#define MPQC_ABI_MAX_RANK 8

/* Element types at the boundary of a model.  All tensors are dense and
 * row-major in the shape that the descriptor states. */
enum mpqc_element {
    MPQC_ELEM_F32 = 1,
    MPQC_ELEM_U8 = 2,
    MPQC_ELEM_I8 = 3,
    MPQC_ELEM_I16 = 4,
    MPQC_ELEM_I32 = 5,
    MPQC_ELEM_I64 = 6
};

/* What run() returns. */
enum mpqc_run_status {
    MPQC_RUN_OK = 0,
    MPQC_RUN_NULL_POINTER = 1,         /* an input, output or the workspace is NULL */
    MPQC_RUN_MISALIGNED_WORKSPACE = 2  /* workspace is not a multiple of workspace_align */
};

/* How raw u8 image data becomes the float that the network was trained on:
 * x[c] = (u8 / scale - mean[c]) / std[c].  `channels` is 1 (the same for all
 * channels) or the number of channels.  `nhwc` says that raw data comes with
 * channels last; the network itself wants the shape in `dims`. */
struct mpqc_preprocess {
    float scale;
    uint32_t channels;
    float mean[4];
    float std[4];
    uint32_t nhwc;
};

/* One input or output.  Real value = scale * (q - zero_point) for integer
 * elements; scale is 1 and zero_point 0 for f32. */
struct mpqc_io {
    const char *name;
    uint32_t element; /* enum mpqc_element */
    uint32_t rank;
    int64_t dims[MPQC_ABI_MAX_RANK];
    uint64_t bytes; /* of one dense tensor */
    float scale;
    int32_t zero_point;
    const struct mpqc_preprocess *preprocess; /* NULL: none was given at compile time */
};

/* One compiled kernel: what profilers and reports show. */
struct mpqc_layer {
    const char *name; /* name of the ONNX node (the first of a fused group) */
    const char *op;   /* e.g. "conv+add+relu" */
    uint32_t weight_bits;
    uint32_t activation_bits;
    uint64_t macs;
    uint64_t weight_bytes;
    uint64_t activation_bytes; /* read and written */
};

/* A piece of work over the half-open range [begin, end). */
typedef void (*mpqc_task)(void *arg, int64_t begin, int64_t end);

/* What the application lends to run().  NULL, or any field NULL, is fine: the
 * model then runs on the calling thread, without hooks. */
struct mpqc_exec {
    uint32_t struct_size; /* sizeof(struct mpqc_exec) */
    uint32_t threads;     /* how many threads parallel_for uses; 0 or 1: none */
    /* Splits [0, n) in any way, runs task(arg, b, e) on each part, and returns
     * when all have ended. */
    void (*parallel_for)(void *pool, mpqc_task task, void *arg, int64_t n);
    void *pool;
    /* Called on the calling thread before and after each layer. */
    void (*layer_begin)(void *profile, uint32_t layer);
    void (*layer_end)(void *profile, uint32_t layer);
    void *profile;
};

struct mpqc_model {
    uint32_t abi_version; /* MPQC_ABI_VERSION */
    uint32_t struct_size; /* sizeof(struct mpqc_model) as the compiler knew it */
    const char *name;     /* of the network, from the ONNX graph */
    const char *target;   /* e.g. "x86-64:avx512-vnni" */
    const char *compiler; /* e.g. "mpqc 0.1.0" */
    uint32_t n_inputs;
    uint32_t n_outputs;
    const struct mpqc_io *inputs;
    const struct mpqc_io *outputs;
    uint64_t workspace_size;  /* bytes */
    uint64_t workspace_align; /* bytes, a power of two */
    uint32_t n_layers;
    uint32_t reserved;
    const struct mpqc_layer *layers;
    /* 1 when this CPU and operating system have every feature that the code
     * needs, else 0.  Safe to call on any CPU of the architecture.  Call it once
     * per process before the first run(): for code with AMX (x86-64:amx) it also
     * asks Linux, by arch_prctl, to let the process use the matrix tiles. */
    int (*supported)(void);
    /* in[n_inputs], out[n_outputs]: dense tensors as described, any alignment.
     * workspace: workspace_size bytes at workspace_align.  Returns an enum
     * mpqc_run_status. */
    int (*run)(const void *const *in, void *const *out, void *workspace,
               const struct mpqc_exec *exec);
};

#ifdef __cplusplus
}
#endif

#endif
