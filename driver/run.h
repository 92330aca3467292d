/* SPDX-License-Identifier: MIT
 *
 * mpqc-run in five parts: options (run_flags.c), what goes into the model
 * (run_input.c), what is made of the answers and times (run_report.c), the profile
 * (run_profile.c, run_peak.c), and the loop over samples (run.c), which is the example of
 * how to use the ABI.
 */
#ifndef MPQC_DRIVER_RUN_H
#define MPQC_DRIVER_RUN_H

#include "driver/data.h"
#include "driver/flags.h"
#include "runtime/mpqc_load.h"
#include "runtime/mpqc_pool.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define RUN_MAX 32    /* inputs, outputs, and times that a flag may be repeated */
#define RUN_MAX_TOP 8 /* numbers in -top */

struct run_options {
    const char *model, *labels, *tag;
    struct mpqc_named_path in[RUN_MAX], out[RUN_MAX];
    uint32_t n_in, n_out;
    uint32_t top[RUN_MAX_TOP], n_top;
    uint64_t count, skip; /* count 0: all */
    uint64_t repeat;      /* 0: not given */
    int64_t warmup;
    uint32_t threads;
    /* -scale and so on in the order given; applied on top of the model's own. */
    struct {
        const char *flag, *value;
    } pre[RUN_MAX];
    uint32_t n_pre;
    int profile, sort, json, raw, info, help, version;
};

/* 0, or -1 with a sentence in err (MPQC_FLAG_ERROR bytes). */
int mpqc_run_parse(int argc, char **argv, struct run_options *options, char *err);
void mpqc_run_help(void);

/* ---- inputs ---- */

/* How samples of an array become the tensor of one input. */
enum run_conversion {
    RUN_MADE_UP,  /* no file: the same pseudo-random numbers each time */
    RUN_RAW,      /* the file has the integers of the input */
    RUN_FLOAT,    /* to float, u8 through the pre-processing */
    RUN_QUANTISED /* to float, then to the input's integers */
};
struct run_input {
    const struct mpqc_io *io;
    const struct mpqc_array *array;
    const char *path;
    enum run_conversion conversion;
    struct mpqc_preprocess pre;
    float *real; /* RUN_QUANTISED only */
    void *tensor;
};
struct run_inputs {
    struct mpqc_data *files[RUN_MAX];
    uint32_t n_files, n;
    struct run_input inputs[RUN_MAX];
    uint64_t samples; /* in the files; 1 without files */
};

int mpqc_run_inputs_open(const struct run_options *options, const struct mpqc_model *model,
                         struct run_inputs *inputs, struct mpqc_data_error *err);
/* Fills the tensors with sample `index`. */
int mpqc_run_inputs_fill(struct run_inputs *inputs, uint64_t index, struct mpqc_data_error *err);
void mpqc_run_inputs_close(struct run_inputs *inputs);
/* The pre-processing for u8 data: the model's, changed by the flags.  `known` says
 * whether there is any besides the default. */
int mpqc_run_preprocess(const struct run_options *options, const struct mpqc_io *io,
                        struct mpqc_preprocess *pre, int *known, struct mpqc_data_error *err);

/* ---- answers and times ---- */

/* Counts of labels among the k highest values; ties go to the lower index. */
struct run_accuracy {
    const int64_t *labels; /* NULL: no accuracy */
    uint64_t seen;
    uint32_t k[RUN_MAX_TOP + 2];
    uint64_t hits[RUN_MAX_TOP + 2];
    uint32_t n;
};
void mpqc_run_accuracy_init(struct run_accuracy *a, const struct run_options *options);
int mpqc_run_accuracy_add(struct run_accuracy *a, const struct mpqc_io *io, const void *output,
                          uint64_t sample, struct mpqc_data_error *err);

uint64_t mpqc_run_now(void); /* monotonic nanoseconds */
uint64_t mpqc_run_clock_cost(void); /* the least time between two readings of that clock */

/* ---- -profile ---- */

/* What this core does at most with the instructions of a target; gmacs 0: not known. */
struct run_peak {
    const char *instruction;
    double gmacs; /* 1e9 multiply-accumulates a second */
};
struct run_peak mpqc_run_peak(const char *target);
/* In place of a target: 1-bit products of bit-serial kernels, which a layer of w-bit weights
 * and a-bit activations takes w * a of.  Only for CPUs that have the instructions. */
#define MPQC_PEAK_BITS "bits"

/* Times of layers, run by run.  Runs with hooks alternate with runs without, which tell
 * whether the rows add up. */
struct run_profile {
    uint32_t n;      /* layers */
    uint64_t kept;   /* the last so many runs are kept */
    uint64_t runs;
    uint64_t *row;   /* [kept][n + 1]: ns of the layers, then of the run */
    uint64_t *now;   /* the row that is being filled */
    uint64_t *least; /* [n], over all runs */
    uint64_t started;
    uint64_t clock;  /* ns that reading the clock takes: in every layer once */
    struct run_peak peak;
};
/* Sets the hooks of *exec. runs: how many there will be. */
int mpqc_run_profile_init(struct run_profile *p, const struct mpqc_model *model, uint64_t runs,
                          struct mpqc_exec *exec);
void mpqc_run_profile_begin(struct run_profile *p); /* before a run with hooks */
void mpqc_run_profile_end(struct run_profile *p, uint64_t ns);
/* After all runs: the peak is the better one of before and after. */
void mpqc_run_profile_finish(struct run_profile *p, const struct mpqc_model *model);
void mpqc_run_profile_release(struct run_profile *p);

struct run_result {
    const struct mpqc_model *model;
    const struct run_options *options;
    const struct run_accuracy *accuracy;
    const struct run_profile *profile; /* NULL: none */
    uint64_t samples, runs;
    uint64_t *ns; /* of each run without hooks; sorted by the report */
    uint32_t threads;
};
/* The part of the report that is about layers. */
void mpqc_run_profile_text(const struct run_result *result, FILE *to);
void mpqc_run_profile_json(const struct run_result *result, FILE *to);
void mpqc_run_json_string(FILE *to, const char *s);
void mpqc_run_report(struct run_result *result, FILE *to);
void mpqc_run_info(const struct mpqc_model *model, int json, FILE *to);

#endif
