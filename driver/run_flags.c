/* SPDX-License-Identifier: MIT
 *
 * mpqc-run's flags: one row each, and one handler.
 */
#include "driver/flags.h"
#include "driver/run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HANDLER(name)                                                                             \
    static int set_##name(void *options, const char *value, char *err)
#define RUN struct run_options *o = options

HANDLER(model)
{
    RUN;
    if (o->model) {
        snprintf(err, MPQC_FLAG_ERROR, "one model at a time: both '%.200s' and '%.200s' are given",
                 o->model, value);
        return -1;
    }
    o->model = value;
    return 0;
}

/* [name:]PATH; a colon belongs to the path when a file of that whole name exists. */
static int add_file(struct run_file *files, uint32_t *n, const char *flag, const char *value,
                    char *err)
{
    if (*n == RUN_MAX) {
        snprintf(err, MPQC_FLAG_ERROR, "-%s is given more than %d times", flag, RUN_MAX);
        return -1;
    }
    struct run_file *f = &files[(*n)++];
    const char *colon = strchr(value, ':');
    size_t len = colon ? (size_t)(colon - value) : 0;
    f->path = value;
    f->name[0] = '\0';
    if (colon && access(value, F_OK) != 0 && len < sizeof f->name) {
        memcpy(f->name, value, len);
        f->name[len] = '\0';
        f->path = colon + 1;
    }
    if (*f->path) return 0;
    snprintf(err, MPQC_FLAG_ERROR, "-%s wants [name:]PATH, not '%.200s'", flag, value);
    return -1;
}

HANDLER(in)
{
    RUN;
    return add_file(o->in, &o->n_in, "in", value, err);
}

HANDLER(out)
{
    RUN;
    return add_file(o->out, &o->n_out, "out", value, err);
}

HANDLER(labels)
{
    RUN;
    (void)err;
    o->labels = value;
    return 0;
}

HANDLER(tag)
{
    RUN;
    (void)err;
    o->tag = value;
    return 0;
}

HANDLER(top)
{
    RUN;
    o->n_top = 0;
    for (const char *p = value;; p++) {
        char *end;
        long k = strtol(p, &end, 10);
        if (end == p || k < 1 || k > 1000000 || (*end && *end != ',') || o->n_top == RUN_MAX_TOP) {
            snprintf(err, MPQC_FLAG_ERROR, "-top wants up to %d numbers such as 1,5, not '%.200s'",
                     RUN_MAX_TOP, value);
            return -1;
        }
        o->top[o->n_top++] = (uint32_t)k;
        if (!*end) return 0;
        p = end;
    }
}

static int number(const char *flag, const char *value, int64_t lo, int64_t hi, uint64_t *out,
                  char *err)
{
    int64_t n;
    if (mpqc_flag_int(flag, value, lo, hi, &n, err)) return -1;
    *out = (uint64_t)n;
    return 0;
}

HANDLER(count)
{
    RUN;
    return number("count", value, 1, INT32_MAX, &o->count, err);
}

HANDLER(skip)
{
    RUN;
    return number("skip", value, 0, INT32_MAX, &o->skip, err);
}

HANDLER(repeat)
{
    RUN;
    return number("repeat", value, 1, 100000000, &o->repeat, err);
}

HANDLER(warmup)
{
    RUN;
    return mpqc_flag_int("warmup", value, 0, 1000000, &o->warmup, err);
}

static int threads(struct run_options *o, const char *flag, const char *value, char *err)
{
    uint64_t n;
    if (number(flag, value, 0, 1024, &n, err)) return -1;
    o->threads = (uint32_t)n;
    return 0;
}

HANDLER(threads)
{
    RUN;
    return threads(o, "threads", value, err);
}

HANDLER(j)
{
    RUN;
    return threads(o, "j", value, err);
}

/* Checked at once, so that the message is about the flag; kept as text, because what
 * it changes is the model's own pre-processing, which is not loaded yet. */
static int keep_pre(struct run_options *o, const char *flag, const char *value, char *err)
{
    struct mpqc_preprocess scratch = {.channels = 0};
    struct mpqc_data_error e;
    if (mpqc_preprocess_set(&scratch, flag, value, &e)) {
        snprintf(err, MPQC_FLAG_ERROR, "%s", e.text);
        return -1;
    }
    if (o->n_pre == RUN_MAX) {
        snprintf(err, MPQC_FLAG_ERROR, "-%s is given too often", flag);
        return -1;
    }
    o->pre[o->n_pre].flag = flag;
    o->pre[o->n_pre++].value = value;
    return 0;
}
HANDLER(scale) { return keep_pre(options, "scale", value, err); }
HANDLER(mean) { return keep_pre(options, "mean", value, err); }
HANDLER(std) { return keep_pre(options, "std", value, err); }
HANDLER(layout) { return keep_pre(options, "layout", value, err); }

#define SWITCH(name)                                                                              \
    HANDLER(name)                                                                                 \
    {                                                                                             \
        (void)value, (void)err;                                                                   \
        ((struct run_options *)options)->name = 1;                                                \
        return 0;                                                                                 \
    }
SWITCH(profile)
SWITCH(sort)
SWITCH(json)
SWITCH(raw)
SWITCH(info)
SWITCH(help)
SWITCH(version)

static const struct mpqc_flag flags[] = {
    {"in", "[INPUT:]PATH", set_in, "samples: .npy, .npz, IDX, images, .pb, .f32, or a folder"},
    {"out", "[OUTPUT:]Y.npy", set_out, "writes the answers, first axis = samples"},
    {"labels", "Y.npy", set_labels, "class numbers (.npy or IDX): prints the accuracy"},
    {"top", "1,5", set_top, "which top-k accuracies"},
    {"count", "N", set_count, "only N samples"},
    {"skip", "N", set_skip, "leave out the first N samples"},
    {"repeat", "N", set_repeat, "run each sample N times (1; 100 without -in)"},
    {"warmup", "N", set_warmup, "runs before the clock counts (1)"},
    {"threads", "N", set_threads, "threads for one run (1); 0: one per core"},
    {"j", "N", set_j, "the same"},
    {"scale", "255", set_scale, "u8 data becomes (u8 / scale - mean) / std"},
    {"mean", "A,B,C", set_mean, "one number, or one a channel"},
    {"std", "A,B,C", set_std, "one number, or one a channel"},
    {"layout", "nhwc|nchw", set_layout, "order of u8 data; moved to what the network wants"},
    {"raw", NULL, set_raw, "-io=int models: the data is the input's own integers"},
    {"profile", NULL, set_profile,
     "each layer's time, share of this core's peak, bytes; checked against runs without"},
    {"sort", NULL, set_sort, "-profile: the slowest layers first, not in order"},
    {"json", NULL, set_json, "one JSON object instead of text"},
    {"tag", "NAME", set_tag, "the model compiled with -tag=NAME"},
    {"info", NULL, set_info, "describes the model and ends"},
    {"version", NULL, set_version, "prints the version and ends"},
    {"help", NULL, set_help, "prints this and ends"},
};
#define N_FLAGS (sizeof flags / sizeof *flags)

int mpqc_run_parse(int argc, char **argv, struct run_options *o, char *err)
{
    *o = (struct run_options){.threads = 1, .warmup = 1, .top = {1, 5}, .n_top = 2};
    return mpqc_flags_parse(flags, N_FLAGS, argc, argv, o, set_model, err);
}

void mpqc_run_help(void)
{
    puts("usage: mpqc-run MODEL.so [FLAG]...\n"
         "Runs a compiled network on samples; without -in on made-up numbers, for timing.\n");
    mpqc_flags_help(flags, N_FLAGS);
    puts("\nThe pre-processing of u8 data that was given to mpqc is in the model and is used\n"
         "unless a flag above changes it; without any, u8 data is divided by 255.  A model\n"
         "made with -io=int takes i8, i16, i32 or i64 data of its own element type as it is, and\n"
         "u8 data with -raw or when there is no pre-processing; all other data becomes float\n"
         "and is then quantised.  -out leaves out an output's leading axis of extent 1.\n"
         "Compressed data (.gz, .npz with deflate) and images need the libraries that this\n"
         "program was built with; mpqc-run-aarch64 has none of them.");
}
