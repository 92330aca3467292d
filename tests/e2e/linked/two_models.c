/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 *     two_models ONE.so TWO.so
 *
 * Compiled by emit.sh: three models are linked in by their archives, with the buffers
 * that their headers size.  The headers agree with the descriptors, and the answers
 * are those of the same networks' shared libraries.
 */
#include "int.h"
#include "one.h"
#include "two.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(cond)                                                                               \
    do {                                                                                          \
        if (!(cond)) {                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);                    \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

/* The macros of one input or output against the descriptor's row. */
#define CHECK_IO(io, prefix)                                                                      \
    do {                                                                                          \
        static const int64_t dims_[] = prefix##_DIMS;                                             \
        CHECK((io).bytes == prefix##_BYTES);                                                      \
        CHECK((io).rank == prefix##_RANK);                                                        \
        CHECK(sizeof(prefix##_TYPE) * prefix##_COUNT == prefix##_BYTES);                          \
        CHECK(memcmp((io).dims, dims_, (io).rank * sizeof *dims_) == 0);                          \
    } while (0)

#define CHECK_MODEL(model, prefix)                                                                \
    do {                                                                                          \
        CHECK((model).abi_version == MPQC_ABI_VERSION);                                           \
        CHECK((model).workspace_size == prefix##_WORKSPACE_SIZE);                                 \
        CHECK((model).workspace_align == prefix##_WORKSPACE_ALIGN);                               \
        CHECK((model).n_inputs == prefix##_N_INPUTS && (model).n_outputs == prefix##_N_OUTPUTS);  \
        CHECK_IO((model).inputs[0], prefix##_INPUT0);                                             \
        CHECK_IO((model).outputs[0], prefix##_OUTPUT0);                                           \
    } while (0)

static _Alignas(MPQC_MODEL_ONE_WORKSPACE_ALIGN) unsigned char ws1[MPQC_MODEL_ONE_WORKSPACE_SIZE];
static _Alignas(MPQC_MODEL_TWO_WORKSPACE_ALIGN) unsigned char ws2[MPQC_MODEL_TWO_WORKSPACE_SIZE];
static _Alignas(MPQC_MODEL_INT_WORKSPACE_ALIGN) unsigned char ws3[MPQC_MODEL_INT_WORKSPACE_SIZE];
static MPQC_MODEL_ONE_INPUT0_TYPE in1[MPQC_MODEL_ONE_INPUT0_COUNT];
static MPQC_MODEL_TWO_INPUT0_TYPE in2[MPQC_MODEL_TWO_INPUT0_COUNT];
static MPQC_MODEL_INT_INPUT0_TYPE in3[MPQC_MODEL_INT_INPUT0_COUNT];
static MPQC_MODEL_ONE_OUTPUT0_TYPE out1[MPQC_MODEL_ONE_OUTPUT0_COUNT];
static MPQC_MODEL_TWO_OUTPUT0_TYPE out2[MPQC_MODEL_TWO_OUTPUT0_COUNT];
static MPQC_MODEL_INT_OUTPUT0_TYPE out3[MPQC_MODEL_INT_OUTPUT0_COUNT];

static void run(const struct mpqc_model *m, const void *in, void *out, void *workspace)
{
    CHECK(m->supported());
    CHECK(m->run((const void *const[]){in}, (void *const[]){out}, workspace, NULL) == MPQC_RUN_OK);
}

/* The library gives what the linked-in model gave. */
static void compare(const char *path, const struct mpqc_model *linked, const void *in,
                    const void *out, void *workspace)
{
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK(lib);
    const struct mpqc_model *m = dlsym(lib, "mpqc_model");
    CHECK(m && m != linked);
    CHECK(strcmp(m->name, linked->name) == 0 && strcmp(m->target, linked->target) == 0);
    CHECK(m->workspace_size == linked->workspace_size);
    void *again = calloc(1, (size_t)m->outputs[0].bytes);
    CHECK(again);
    run(m, in, again, workspace);
    CHECK(memcmp(again, out, (size_t)m->outputs[0].bytes) == 0);
    free(again);
    dlclose(lib);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    CHECK_MODEL(mpqc_model_one, MPQC_MODEL_ONE);
    CHECK_MODEL(mpqc_model_two, MPQC_MODEL_TWO);
    CHECK_MODEL(mpqc_model_int, MPQC_MODEL_INT);
    CHECK(mpqc_model_int.inputs[0].scale == MPQC_MODEL_INT_INPUT0_SCALE);
    CHECK(mpqc_model_int.inputs[0].zero_point == MPQC_MODEL_INT_INPUT0_ZERO_POINT);
    CHECK(mpqc_model_int.outputs[0].scale == MPQC_MODEL_INT_OUTPUT0_SCALE);
    CHECK(mpqc_model_int.outputs[0].zero_point == MPQC_MODEL_INT_OUTPUT0_ZERO_POINT);
    for (int i = 0; i < MPQC_MODEL_ONE_INPUT0_COUNT; i++) in1[i] = (float)(i % 29) / 29;
    for (int i = 0; i < MPQC_MODEL_TWO_INPUT0_COUNT; i++) in2[i] = (float)(i % 31) / 31;
    for (int i = 0; i < MPQC_MODEL_INT_INPUT0_COUNT; i++)
        in3[i] = (MPQC_MODEL_INT_INPUT0_TYPE)(i % 100);
    run(&mpqc_model_one, in1, out1, ws1);
    run(&mpqc_model_two, in2, out2, ws2);
    run(&mpqc_model_int, in3, out3, ws3);
    int differ = 0;
    for (int i = 1; i < MPQC_MODEL_INT_OUTPUT0_COUNT; i++) differ |= out3[i] != out3[0];
    CHECK(differ);
    compare(argv[1], &mpqc_model_one, in1, out1, ws1);
    compare(argv[2], &mpqc_model_two, in2, out2, ws2);
    return 0;
}
