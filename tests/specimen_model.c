/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A model written by hand, the size of a thimble: what mpqc generates must behave
 * like this.  Two layers on a 4x4 matrix: quantise, multiply by an int8 matrix, add
 * a bias, requantise, relu; then the same without relu, given out both as float and
 * as int8.  Rows are independent, so parallel_for splits them.
 *
 * Compiled as generated code is linked: no libc, no undefined symbol, everything
 * constant or in the caller's workspace.
 */
#include "runtime/mpqc_model.h"

#include <stddef.h>

#define N 4
#define SCALE_X 0.0625f
#define SCALE_Y 0.125f

/* What lies in the workspace; nothing is read before it is written. */
struct scratch {
    int8_t x[N][N];
    int8_t hidden[N][N];
};

static const int8_t weights[2][N][N] = {
    {{3, -1, 0, 2}, {-2, 5, 1, 0}, {0, 1, -4, 1}, {1, 0, 2, -3}},
    {{1, 2, -1, 0}, {0, -3, 2, 1}, {4, 0, 1, -2}, {-1, 1, 0, 5}}};
static const int32_t biases[2][N] = {{8, -16, 0, 24}, {-8, 0, 40, 16}};

/* Rounds half up, saturates: acc / 4. */
static int8_t requantise(int32_t acc, int32_t lowest)
{
    int32_t r = (acc + 2) / 4 - ((acc + 2) % 4 < 0);
    if (r < lowest) return (int8_t)lowest;
    return (int8_t)(r > 127 ? 127 : r);
}

static void multiply_row(const int8_t *in, unsigned layer, int32_t lowest, int8_t *out)
{
    for (int j = 0; j < N; j++) {
        int32_t acc = biases[layer][j];
        for (int k = 0; k < N; k++) acc += in[k] * weights[layer][k][j];
        out[j] = requantise(acc, lowest);
    }
}

/* NaN and everything too small become the lowest value. */
static int8_t quantise(float v)
{
    float q = v * (1.0f / SCALE_X);
    if (!(q > -128.0f)) return -128;
    if (q >= 127.0f) return 127;
    return (int8_t)(q < 0 ? q - 0.5f : q + 0.5f);
}

struct work {
    const unsigned char *in; /* f32, any alignment */
    unsigned char *real, *integer;
    struct scratch *scratch;
};

static void first_rows(void *arg, int64_t begin, int64_t end)
{
    const struct work *w = arg;
    for (int64_t r = begin; r < end; r++) {
        for (int j = 0; j < N; j++) {
            float v;
            __builtin_memcpy(&v, w->in + (size_t)(r * N + j) * sizeof v, sizeof v);
            w->scratch->x[r][j] = quantise(v);
        }
        multiply_row(w->scratch->x[r], 0, 0, w->scratch->hidden[r]);
    }
}

static void second_rows(void *arg, int64_t begin, int64_t end)
{
    const struct work *w = arg;
    for (int64_t r = begin; r < end; r++) {
        int8_t y[N];
        multiply_row(w->scratch->hidden[r], 1, -128, y);
        for (int j = 0; j < N; j++) {
            float v = (float)y[j] * SCALE_Y;
            __builtin_memcpy(w->real + (size_t)(r * N + j) * sizeof v, &v, sizeof v);
            w->integer[r * N + j] = (unsigned char)y[j];
        }
    }
}

static void layer(const struct mpqc_exec *exec, uint32_t index, mpqc_task task, struct work *w)
{
    if (exec && exec->layer_begin) exec->layer_begin(exec->profile, index);
    if (exec && exec->parallel_for && exec->threads > 1)
        exec->parallel_for(exec->pool, task, w, N);
    else
        task(w, 0, N);
    if (exec && exec->layer_end) exec->layer_end(exec->profile, index);
}

static int run(const void *const *in, void *const *out, void *workspace,
               const struct mpqc_exec *exec)
{
    if (!in[0] || !out[0] || !out[1] || !workspace) return MPQC_RUN_NULL_POINTER;
    if ((uintptr_t)workspace % 64) return MPQC_RUN_MISALIGNED_WORKSPACE;
    struct work w = {in[0], out[0], out[1], workspace};
    layer(exec, 0, first_rows, &w);
    layer(exec, 1, second_rows, &w);
    return MPQC_RUN_OK;
}

/* A variant that was "compiled for a CPU that does not exist" tests the refusal. */
static int supported(void)
{
#ifdef SPECIMEN_UNSUPPORTED
    return 0;
#else
    return 1;
#endif
}

static const struct mpqc_preprocess preprocess = {
    .scale = 255, .channels = 1, .mean = {0.5f}, .std = {0.25f}, .nhwc = 0};

static const struct mpqc_io inputs[] = {
    {.name = "x", .element = MPQC_ELEM_F32, .rank = 3, .dims = {1, N, N},
     .bytes = N * N * sizeof(float), .scale = 1, .preprocess = &preprocess}};

static const struct mpqc_io outputs[] = {
    {.name = "y", .element = MPQC_ELEM_F32, .rank = 3, .dims = {1, N, N},
     .bytes = N * N * sizeof(float), .scale = 1},
    {.name = "q", .element = MPQC_ELEM_I8, .rank = 3, .dims = {1, N, N}, .bytes = N * N,
     .scale = SCALE_Y}};

static const struct mpqc_layer layers[] = {
    {.name = "first", .op = "quantize+matmul+relu", .weight_bits = 8, .activation_bits = 8,
     .macs = N * N * N, .weight_bytes = N * N, .activation_bytes = 5 * N * N},
    {.name = "second", .op = "matmul+dequantize", .weight_bits = 8, .activation_bits = 8,
     .macs = N * N * N, .weight_bytes = N * N, .activation_bytes = 6 * N * N}};

/* -tag=NAME changes the name of the one symbol. */
#ifdef SPECIMEN_TAG
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define MODEL PASTE(mpqc_model_, SPECIMEN_TAG)
#else
#define MODEL mpqc_model
#endif

extern const struct mpqc_model MODEL;
__attribute__((visibility("default"))) const struct mpqc_model MODEL = {
    .abi_version = MPQC_ABI_VERSION,
    .struct_size = sizeof(struct mpqc_model),
    .name = "specimen",
    .target = "hand-written",
    .compiler = "a person",
    .n_inputs = 1,
    .n_outputs = 2,
    .inputs = inputs,
    .outputs = outputs,
    .workspace_size = 64,
    .workspace_align = 64,
    .n_layers = 2,
    .layers = layers,
    .supported = supported,
    .run = run,
};
