/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Data for the inputs of a graph: -calib=[input:]PATH, -eval=[input:]PATH.
 */
#include "driver/cli.h"
#include "driver/distill.h"
#include "driver/judge.h"

#define DEFAULT_CALIB_COUNT 256

struct bound_input {
    const struct mpqc_array *array;
    struct mpqc_type type;
    const char *path;
};

struct mpqc_calib_set {
    const char *flag; /* "calib", "eval" */
    const struct mpqc_named_path *from;
    uint32_t n_from;
    struct mpqc_data *files[MPQC_CLI_MAX];
    uint32_t n_files;
    struct bound_input inputs[MPQC_MAX_INPUTS];
    uint32_t n_inputs;
    struct mpqc_preprocess pre;
    uint64_t samples;
    struct mpqc_distilled distilled; /* -calib=distill: instead of files */
};

static struct mpqc_where at_file(const char *file, const char *tensor)
{
    struct mpqc_where w = MPQC_NOWHERE;
    w.file = file;
    w.tensor = tensor;
    return w;
}

static mpqc_status get_sample(void *user, struct mpqc_cx *cx, uint64_t index, void *const *inputs)
{
    const struct mpqc_calib_set *set = user;
    for (uint32_t i = 0; i < set->n_inputs; i++) {
        const struct bound_input *in = &set->inputs[i];
        struct mpqc_data_error err;
        if (mpqc_array_sample(in->array, in->type.rank, in->type.dims, &set->pre, index, inputs[i],
                              &err))
            return MPQC_FAIL(cx, DATA, at_file(in->path, NULL), "%s", err.text);
    }
    return MPQC_OK;
}

/* The array for one graph input: named by the flag, by the npz key, or the only one. */
static const struct mpqc_array *array_for(const struct mpqc_calib_set *set, const char *name,
                                          bool only_input, const char **path)
{
    for (uint32_t i = 0; i < set->n_from; i++) {
        const char *wanted = set->from[i].name;
        if (wanted[0] && strcmp(wanted, name) != 0) continue;
        *path = set->from[i].path;
        const struct mpqc_array *a = mpqc_data_array(set->files[i], name);
        bool by_key = a && a->name && strcmp(a->name, name) == 0;
        if (a && (wanted[0] || by_key || only_input)) return a;
    }
    return NULL;
}

static mpqc_status bind_input(struct mpqc_cx *cx, const struct mpqc_graph *g,
                              struct mpqc_calib_set *set, uint32_t i, uint64_t *samples)
{
    const struct mpqc_value *v = mpqc_value_at(g, g->inputs[i]);
    struct bound_input *in = &set->inputs[i];
    in->type = v->type;
    in->array = array_for(set, v->name, g->n_inputs == 1, &in->path);
    if (!in->array)
        return MPQC_FAIL(cx, DATA, at_file(NULL, v->name),
                         "-%s has no data for this input; give -%s=%s:PATH, or an .npz with that "
                         "key",
                         set->flag, set->flag, v->name);
    uint64_t n;
    struct mpqc_data_error err;
    if (v->type.dtype != MPQC_DT_F32)
        return MPQC_FAIL(cx, UNSUPPORTED, at_file(NULL, v->name),
                         "input of type %s; only f32 inputs can be quantised",
                         mpqc_dtypes[v->type.dtype].text);
    if (mpqc_array_check(in->array, v->name, v->type.rank, v->type.dims, &set->pre, &n, &err))
        return MPQC_FAIL(cx, DATA, at_file(in->path, NULL), "%s", err.text);
    if (n == 0)
        return MPQC_FAIL(cx, DATA, at_file(in->path, NULL),
                         "there are no samples in it; -%s needs at least one", set->flag);
    if (i > 0 && n != *samples)
        return MPQC_FAIL(cx, DATA, at_file(in->path, NULL),
                         "%llu samples for input '%s', but %llu for '%s'", (unsigned long long)n,
                         v->name, (unsigned long long)*samples,
                         mpqc_value_at(g, g->inputs[0])->name);
    *samples = n;
    return MPQC_OK;
}

/* A flag that names an input which does not exist is a typing error. */
static mpqc_status check_names(struct mpqc_cx *cx, const struct mpqc_cli *cli,
                               const struct mpqc_graph *g, const struct mpqc_calib_set *set)
{
    for (uint32_t i = 0; i < set->n_from; i++) {
        const char *wanted = set->from[i].name;
        bool known = !wanted[0];
        for (uint32_t k = 0; k < g->n_inputs && !known; k++)
            known = strcmp(mpqc_value_at(g, g->inputs[k])->name, wanted) == 0;
        if (!known)
            return MPQC_FAIL(cx, USAGE, at_file(cli->model, NULL),
                             "-%s names input '%s', which the network does not have; its first "
                             "input is '%s'",
                             set->flag, wanted, mpqc_value_at(g, g->inputs[0])->name);
    }
    return MPQC_OK;
}

/* Who gives -mean expects it to be used. */
static void note_unused(struct mpqc_cx *cx, const struct mpqc_calib_set *set)
{
    for (uint32_t i = 0; i < set->n_inputs; i++)
        if (set->inputs[i].array->type == MPQC_DATA_U8) return;
    mpqc_note(cx, at_file(set->inputs[0].path, NULL),
              "-scale, -mean and -std are for u8 data; these samples are %s and taken as they are",
              mpqc_data_type_name(set->inputs[0].array->type));
}

static mpqc_status open_all(struct mpqc_cx *cx, const struct mpqc_cli *cli,
                            const struct mpqc_graph *g, struct mpqc_calib_set *set)
{
    if (g->n_inputs == 0 || g->n_inputs > MPQC_MAX_INPUTS)
        return MPQC_FAIL(cx, UNSUPPORTED, at_file(cli->model, NULL),
                         "the network has %u inputs; between 1 and %d are supported", g->n_inputs,
                         MPQC_MAX_INPUTS);
    MPQC_TRY(check_names(cx, cli, g, set));
    const struct mpqc_type *first = &mpqc_value_at(g, g->inputs[0])->type;
    for (uint32_t i = 0; i < set->n_from; i++) {
        struct mpqc_data_error err;
        if (mpqc_data_open(set->from[i].path, first->rank, first->dims, &set->files[i], &err))
            return MPQC_FAIL(cx, IO, MPQC_NOWHERE, "%s", err.text);
        set->n_files = i + 1;
    }
    return MPQC_OK;
}

/* Files, bound to the inputs. */
static mpqc_status bind_all(struct mpqc_cx *cx, const struct mpqc_cli *cli,
                            const struct mpqc_graph *g, struct mpqc_calib_set *set)
{
    uint64_t samples = 0;
    MPQC_TRY(open_all(cx, cli, g, set));
    for (uint32_t i = 0; i < g->n_inputs; i++) MPQC_TRY(bind_input(cx, g, set, i, &samples));
    set->n_inputs = g->n_inputs;
    set->samples = samples;
    if (cli->pre_given) note_unused(cx, set);
    return MPQC_OK;
}

mpqc_status mpqc_calib_open(struct mpqc_cx *cx, const struct mpqc_cli *cli,
                            const struct mpqc_graph *g, struct mpqc_calib_set **out,
                            struct mpqc_dataset *data)
{
    struct mpqc_calib_set *set = calloc(1, sizeof *set);
    *out = set;
    if (!set) return MPQC_OOM(cx);
    set->flag = "calib";
    set->from = cli->calib;
    set->n_from = cli->n_calib;
    set->pre = cli->pre;
    if (cli->distill) {
        MPQC_TRY(mpqc_calib_distill(cx, cli, g, &set->distilled));
        *data = mpqc_distilled_dataset(&set->distilled);
        set->samples = data->count;
        return MPQC_OK;
    }
    MPQC_TRY(bind_all(cx, cli, g, set));
    uint64_t samples = set->samples;
    uint64_t limit = cli->calib_count ? cli->calib_count : DEFAULT_CALIB_COUNT;
    if (cli->calib_count > samples)
        mpqc_note(cx, at_file(set->inputs[0].path, NULL),
                  "-calib-count=%llu, but there are %llu samples; all are used",
                  (unsigned long long)cli->calib_count, (unsigned long long)samples);
    *data = (struct mpqc_dataset){
        .count = samples < limit ? samples : limit, .get = get_sample, .user = set};
    return MPQC_OK;
}

mpqc_status mpqc_eval_open(struct mpqc_cx *cx, const struct mpqc_cli *cli,
                           const struct mpqc_graph *g, struct mpqc_calib_set **out,
                           struct mpqc_dataset *data)
{
    struct mpqc_calib_set *set = calloc(1, sizeof *set);
    *out = set;
    if (!set) return MPQC_OOM(cx);
    set->flag = "eval";
    set->from = cli->eval;
    set->n_from = cli->n_eval;
    set->pre = cli->pre;
    MPQC_TRY(bind_all(cx, cli, g, set));
    *data = (struct mpqc_dataset){.count = set->samples, .get = get_sample, .user = set};
    return MPQC_OK;
}

struct mpqc_judge mpqc_judge_choose(const struct mpqc_dataset *eval,
                                    const struct mpqc_dataset *used, uint64_t samples)
{
    if (eval) return (struct mpqc_judge){eval, 0, eval->count, false, "of -eval"};
    uint64_t seen = used ? used->count : 0;
    if (samples >= 2 * seen)
        return (struct mpqc_judge){used, seen, samples - seen, false,
                                   "of -calib that calibration left out"};
    return (struct mpqc_judge){used, 0, samples, true,
                               "of -calib, most or all of which calibration used"};
}

uint64_t mpqc_calib_samples(const struct mpqc_calib_set *set)
{
    return set ? set->samples : 0;
}

void mpqc_calib_close(struct mpqc_calib_set *set)
{
    if (!set) return;
    for (uint32_t i = 0; i < set->n_files; i++) mpqc_data_close(set->files[i]);
    mpqc_distilled_release(&set->distilled);
    free(set);
}
