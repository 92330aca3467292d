/* SPDX-License-Identifier: MIT
 *
 * mpqc-run: runs a compiled model on samples.
 *
 * The part of this file that an application needs too is short: open the library
 * (mpqc_load_open), ask supported(), allocate one workspace and the tensors, fill a
 * struct mpqc_exec if threads or hooks are wanted, and call run() for each sample.
 */
#include "driver/run.h"
#include "driver/temporary.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* With -profile, about so many runs without hooks. */
#define PLAIN_RUNS 200

/* Everything that one invocation owns. */
struct session {
    struct run_options options;
    struct mpqc_loaded loaded;
    const struct mpqc_model *model;
    struct run_inputs inputs;
    struct mpqc_npy_writer *writers[RUN_MAX];
    uint32_t written[RUN_MAX]; /* output that each writer gets */
    const void *in[RUN_MAX];
    void *out[RUN_MAX];
    void *workspace;
    struct mpqc_pool *pool;
    struct mpqc_exec exec;
    struct run_profile profile;
    int64_t *labels;
    struct run_accuracy accuracy;
    uint64_t first, count; /* samples that are run */
    uint64_t repeat;
    uint64_t *ns; /* of each run without hooks */
    uint64_t runs;
    struct mpqc_data_error err;
};

static int failed(struct session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int failed(struct session *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(s->err.text, sizeof s->err.text, fmt, args);
    va_end(args);
    return -1;
}

static int load(struct session *s)
{
    char error[MPQC_LOAD_ERROR];
    const char *path = s->options.model;
    if (mpqc_load_open(path, s->options.tag, &s->loaded, error)) return failed(s, "%s", error);
    s->model = s->loaded.model;
    if (s->options.info) return 0; /* a model for another CPU can still be described */
    if (mpqc_load_supported(&s->loaded, path, error)) return failed(s, "%s", error);
    return 0;
}

/* Which samples: -skip and -count of those in the files. */
static int choose_samples(struct session *s)
{
    const struct run_options *o = &s->options;
    uint64_t all = s->inputs.samples;
    if (all == 0) return failed(s, "%s: there are no samples in it", o->in[0].path);
    if (o->skip >= all)
        return failed(s, "-skip=%llu leaves nothing of %llu samples", (unsigned long long)o->skip,
                      (unsigned long long)all);
    s->first = o->skip;
    s->count = all - o->skip;
    if (o->count && o->count > s->count && o->n_in)
        return failed(s, "-count=%llu, but there are %llu samples", (unsigned long long)o->count,
                      (unsigned long long)s->count);
    if (o->count && o->count < s->count) s->count = o->count;
    s->repeat = o->repeat ? o->repeat : o->n_in ? 1 : 100;
    size_t bytes;
    if (__builtin_mul_overflow(s->count, s->repeat, &bytes) ||
        __builtin_mul_overflow(bytes, sizeof *s->ns, &bytes) || !(s->ns = malloc(bytes)))
        return failed(s, "out of memory for the times of %llu x %llu runs",
                      (unsigned long long)s->count, (unsigned long long)s->repeat);
    return 0;
}

static int open_labels(struct session *s)
{
    const struct run_options *o = &s->options;
    uint64_t n;
    mpqc_run_accuracy_init(&s->accuracy, o);
    if (!o->labels) return 0;
    if (o->n_in == 0) return failed(s, "-labels without -in: there is nothing to compare them to");
    if (mpqc_labels_open(o->labels, &s->labels, &n, &s->err)) return -1;
    if (n != s->inputs.samples)
        return failed(s, "%s: %llu labels, but %s has %llu samples", o->labels,
                      (unsigned long long)n, o->in[0].path,
                      (unsigned long long)s->inputs.samples);
    s->accuracy.labels = s->labels;
    return 0;
}

/* The first output for a file without a name. */
static int find_output(struct session *s, const char *name, uint32_t *out)
{
    for (uint32_t i = 0; i < s->model->n_outputs; i++)
        if (!name[0] || strcmp(s->model->outputs[i].name, name) == 0) {
            *out = i;
            return 0;
        }
    return failed(s, "-out names output '%s', which the model does not have; its first output is "
                     "'%s'",
                  name, s->model->outputs[0].name);
}

/* An output [1,10] of 500 samples is an array [500,10]. */
static int open_writers(struct session *s)
{
    for (uint32_t i = 0; i < s->options.n_out; i++) {
        const struct mpqc_named_path *f = &s->options.out[i];
        if (find_output(s, f->name, &s->written[i])) return -1;
        const struct mpqc_io *io = &s->model->outputs[s->written[i]];
        int64_t dims[MPQC_ABI_MAX_RANK + 1] = {(int64_t)s->count};
        uint32_t batch = io->rank > 0 && io->dims[0] == 1;
        for (uint32_t k = batch; k < io->rank; k++) dims[1 + k - batch] = io->dims[k];
        if (mpqc_npy_create(f->path, io->element, io->rank + 1 - batch, dims, &s->writers[i],
                            &s->err))
            return -1;
    }
    return 0;
}

static int allocate(struct session *s)
{
    const struct mpqc_model *m = s->model;
    if (m->n_outputs > RUN_MAX)
        return failed(s, "the model has %u outputs; up to %d are supported", m->n_outputs,
                      RUN_MAX);
    for (uint32_t i = 0; i < m->n_inputs; i++) s->in[i] = s->inputs.inputs[i].tensor;
    for (uint32_t i = 0; i < m->n_outputs; i++) {
        size_t bytes = (size_t)m->outputs[i].bytes;
        if (!(s->out[i] = malloc(bytes ? bytes : 1)))
            return failed(s, "out of memory for output '%s'", m->outputs[i].name);
    }
    s->workspace = mpqc_workspace_alloc(m);
    if (!s->workspace)
        return failed(s, "out of memory for the workspace of %llu bytes",
                      (unsigned long long)m->workspace_size);
    if (s->options.threads != 1 && !(s->pool = mpqc_pool_create(s->options.threads)))
        return failed(s, "%u threads cannot be started", s->options.threads);
    mpqc_pool_exec(s->pool, &s->exec);
    if (s->options.profile &&
        mpqc_run_profile_init(&s->profile, m, s->count * s->repeat, &s->exec))
        return failed(s, "out of memory for the profile");
    return 0;
}

static int run_once(struct session *s, const struct mpqc_exec *exec, uint64_t *ns)
{
    uint64_t start = mpqc_run_now();
    int status = s->model->run(s->in, s->out, s->workspace, exec);
    *ns = mpqc_run_now() - start;
    if (status == MPQC_RUN_OK) return 0;
    return failed(s, "%s: the model refused to run: %s", s->options.model,
                  mpqc_run_status_text(status));
}

static int run_plain(struct session *s, uint64_t *ns)
{
    struct mpqc_exec exec = s->exec;
    exec.layer_begin = exec.layer_end = NULL;
    return run_once(s, &exec, ns);
}

/* Runs that nobody counts: caches, page tables and clock rates settle. */
static int warm_up(struct session *s)
{
    uint64_t ns;
    for (int64_t i = 0; i < s->options.warmup; i++)
        if (run_plain(s, &ns)) return -1;
    return 0;
}

/* With -profile, all runs have hooks; some are repeated without, to compare with. */
static int run_counted(struct session *s)
{
    uint64_t ns, every = s->count * s->repeat / PLAIN_RUNS;
    if (s->options.profile) {
        mpqc_run_profile_begin(&s->profile);
        if (run_once(s, &s->exec, &ns)) return -1;
        mpqc_run_profile_end(&s->profile, ns);
        if (every > 1 && (s->profile.runs - 1) % every) return 0;
    }
    return run_plain(s, &s->ns[s->runs++]);
}

static int run_sample(struct session *s, uint64_t sample)
{
    if (mpqc_run_inputs_fill(&s->inputs, sample, &s->err)) return -1;
    if (sample == s->first && warm_up(s)) return -1;
    for (uint64_t r = 0; r < s->repeat; r++)
        if (run_counted(s)) return -1;
    if (mpqc_run_accuracy_add(&s->accuracy, &s->model->outputs[0], s->out[0], sample, &s->err))
        return -1;
    for (uint32_t i = 0; i < s->options.n_out; i++) {
        uint32_t k = s->written[i];
        if (mpqc_npy_append(s->writers[i], s->out[k], (size_t)s->model->outputs[k].bytes,
                            &s->err))
            return -1;
    }
    return 0;
}

static int close_writers(struct session *s, int commit)
{
    int rc = 0;
    for (uint32_t i = 0; i < s->options.n_out; i++) {
        struct mpqc_npy_writer *w = s->writers[i];
        s->writers[i] = NULL;
        if (mpqc_npy_close(w, commit && rc == 0, &s->err)) rc = -1;
    }
    return rc;
}

static int run_all(struct session *s)
{
    if (mpqc_run_inputs_open(&s->options, s->model, &s->inputs, &s->err)) return -1;
    if (choose_samples(s) || open_labels(s) || allocate(s) || open_writers(s)) return -1;
    for (uint64_t i = 0; i < s->count; i++)
        if (run_sample(s, s->first + i)) return -1;
    if (close_writers(s, 1)) return -1;
    if (s->options.profile) mpqc_run_profile_finish(&s->profile, s->model);
    struct run_result result = {
        .model = s->model, .options = &s->options, .accuracy = &s->accuracy,
        .profile = s->options.profile ? &s->profile : NULL, .samples = s->count,
        .runs = s->runs, .ns = s->ns, .threads = mpqc_pool_threads(s->pool)};
    mpqc_run_report(&result, stdout);
    return 0;
}

static void release(struct session *s)
{
    struct mpqc_data_error kept = s->err;
    close_writers(s, 0);
    s->err = kept;
    mpqc_run_inputs_close(&s->inputs);
    mpqc_pool_destroy(s->pool);
    for (uint32_t i = 0; i < RUN_MAX; i++) free(s->out[i]);
    free(s->workspace);
    free(s->labels);
    free(s->ns);
    mpqc_run_profile_release(&s->profile);
    mpqc_load_close(&s->loaded);
}

static int perform(struct session *s)
{
    const struct run_options *o = &s->options;
    if (o->help) {
        mpqc_run_help();
    } else if (o->version) {
        puts("mpqc-run " MPQC_VERSION);
    } else if (!o->model) {
        return failed(s, "no model given; usage: mpqc-run MODEL.so -in=DATA (-help lists the "
                         "flags)");
    } else {
        if (load(s)) return -1;
        if (!o->info) return run_all(s);
        mpqc_run_info(s->model, o->json, stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s) {
        fputs("mpqc-run: error: out of memory\n", stderr);
        return 1;
    }
    char error[MPQC_FLAG_ERROR];
    mpqc_temporary_guard();
    int rc = mpqc_run_parse(argc, argv, &s->options, error) ? failed(s, "%s", error) : perform(s);
    /* A full disk shows only when the buffer is written. */
    if (rc == 0 && fflush(stdout) != 0)
        rc = failed(s, "standard output cannot be written");
    if (rc) fprintf(stderr, "mpqc-run: error: %s\n", s->err.text);
    release(s);
    free(s);
    return rc ? 1 : 0;
}
