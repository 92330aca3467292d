/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The whole way from an ONNX file to what was asked for.
 */
#include "driver/cli.h"
#include "driver/report.h"
#include "driver/summary.h"
#include "driver/tune.h"
#include "ir/text.h"

#include <errno.h>
#include <unistd.h>

/* How many samples the accuracy line is measured on at the most. */
#define ACCURACY_SAMPLES 128

static const char *const float_passes[] = {"simplify", "calibrate"};
static const char *const integer_passes[] = {"quantise", "fuse", "plan"};

/* Everything that must be released again. */
struct job {
    struct mpqc_cx *cx;
    const struct mpqc_cli *cli;
    struct mpqc_graph graph;       /* float, then integer */
    struct mpqc_graph float_graph; /* as simplified */
    struct mpqc_pass_cx passes;
    struct mpqc_calib_set *calib, *eval;
    struct mpqc_dataset data, eval_data;
    struct mpqc_target target;
    struct mpqc_mixed mixed;
    bool has_mixed;
    struct mpqc_tuning tuning;
};

static void job_init(struct job *j, struct mpqc_cx *cx, const struct mpqc_cli *cli)
{
    memset(j, 0, sizeof *j);
    j->cx = cx;
    j->cli = cli;
    mpqc_graph_init(&j->graph, cx->allocator);
    mpqc_graph_init(&j->float_graph, cx->allocator);
    mpqc_pass_cx_init(&j->passes, cx, &cli->options);
    j->passes.engine = &mpqc_interpreter;
}

static void job_release(struct job *j)
{
    mpqc_pass_cx_release(&j->passes);
    mpqc_graph_release(&j->float_graph);
    mpqc_graph_release(&j->graph);
    mpqc_calib_close(j->calib);
    mpqc_calib_close(j->eval);
}

/* What can be refused before the long work begins. */
static mpqc_status check_request(struct job *j)
{
    const struct mpqc_cli *cli = j->cli;
    bool only_dump = cli->options.stop_after && cli->options.dump_after;
    if (!cli->out && !only_dump)
        return MPQC_FAIL(j->cx, USAGE, MPQC_NOWHERE,
                         "no output given; say where the result goes with -o FILE");
    if (access(cli->model, R_OK) != 0) {
        struct mpqc_where w = MPQC_NOWHERE;
        w.file = cli->model;
        return MPQC_FAIL(j->cx, IO, w, "cannot be read: %s", strerror(errno));
    }
    if (cli->mixed.report && (cli->options.stop_after || cli->options.pass_limit))
        return MPQC_FAIL(j->cx, USAGE, MPQC_NOWHERE,
                         "-report describes the finished network; leave out -stop-after and "
                         "-pass-limit");
    MPQC_TRY(mpqc_target_find(j->cx, cli->target ? cli->target : "native", cli->mcpu, &j->target));
    const char *last = cli->options.stop_after;
    bool needs_data = !(last && strcmp(last, "simplify") == 0) && cli->options.pass_limit != 1;
    if (needs_data && cli->n_calib == 0 && !cli->options.load_profile)
        return MPQC_FAIL(j->cx, USAGE, MPQC_NOWHERE,
                         "no calibration data, so the ranges of the activations are unknown; give "
                         "-calib=PATH with some typical inputs (an .npy, .npz, IDX file or a "
                         "folder of images; 100 to 500 samples are enough), or -load-profile=FILE "
                         "from an earlier -dump-profile");
    return mpqc_outputs_check(j->cx, cli);
}

/* With all constants, so that it can be read again; -dump-after is for eyes. */
static mpqc_status write_ir(struct job *j)
{
    struct mpqc_buf text;
    mpqc_buf_init(&text);
    mpqc_graph_print(&j->graph, &text, true);
    mpqc_status status = mpqc_text_write(j->cx, j->cli->out, &text);
    mpqc_buf_release(&text);
    return status;
}

static const struct mpqc_tuning *tuned(const struct job *j)
{
    return j->tuning.request.wish ? &j->tuning : NULL;
}

static mpqc_status emit(struct job *j, struct mpqc_codegen_facts *facts)
{
    static const enum mpqc_emit kinds[] = {
        [MPQC_OUT_SO] = MPQC_EMIT_SO,     [MPQC_OUT_OBJ] = MPQC_EMIT_OBJ,
        [MPQC_OUT_ARCHIVE] = MPQC_EMIT_ARCHIVE, [MPQC_OUT_LLVM] = MPQC_EMIT_LLVM,
        [MPQC_OUT_ASM] = MPQC_EMIT_ASM,   [MPQC_OUT_HEADER] = MPQC_EMIT_HEADER};
    struct mpqc_preprocess *pre =
        MPQC_NEW_ARRAY(&j->cx->arena, struct mpqc_preprocess, j->graph.n_inputs);
    if (!pre) return MPQC_OOM(j->cx);
    for (uint32_t i = 0; i < j->graph.n_inputs; i++) pre[i] = j->cli->pre;
    struct mpqc_codegen_request rq = {
        .graph = &j->graph,
        .plan = j->passes.plan,
        .target = &j->target,
        .tag = j->cli->tag,
        .preprocess = pre,
        .emit = kinds[j->cli->emit],
        .path = j->cli->out,
        .verify_llvm = j->cli->options.verify_each,
        .tiles = tuned(j) ? &j->tuning.request : NULL,
    };
    mpqc_cx_progress(j->cx, "generate code", 0, 0);
    return mpqc_codegen_emit(j->cx, &rq, facts);
}

static mpqc_status tune(struct job *j)
{
    if (!j->cli->tune_kernels) return MPQC_OK;
    struct mpqc_tune_job job = {.cx = j->cx, .cli = j->cli, .graph = &j->graph,
                                .plan = j->passes.plan, .target = &j->target};
    return mpqc_tune(&job, &j->tuning);
}

static mpqc_status report(struct job *j)
{
    if (!j->cli->mixed.report) return MPQC_OK;
    return mpqc_report_write(&(struct mpqc_report_job){.cx = j->cx,
                                                       .cli = j->cli,
                                                       .passes = &j->passes,
                                                       .real = &j->float_graph,
                                                       .integer = &j->graph,
                                                       .target = &j->target,
                                                       .mixed = &j->mixed,
                                                       .tuning = tuned(j)});
}

static mpqc_status finish(struct job *j)
{
    struct mpqc_accuracy accuracy;
    struct mpqc_codegen_facts facts;
    struct mpqc_judge by = mpqc_judge_choose(j->cli->n_eval ? &j->eval_data : NULL, j->passes.data,
                                             mpqc_calib_samples(j->calib));
    uint64_t most = j->passes.data ? j->data.count : ACCURACY_SAMPLES; /* no longer than calibration */
    if (most > ACCURACY_SAMPLES) most = ACCURACY_SAMPLES;
    if (by.n > most) by.n = most;
    if (by.data)
        MPQC_TRY(mpqc_report_accuracy(j->cx, j->passes.engine, &j->float_graph, &j->graph, by.data,
                                      by.first, by.n, &accuracy));
    MPQC_TRY(tune(j));
    MPQC_TRY(report(j));
    MPQC_TRY(emit(j, &facts)); /* last, so that nothing is left behind by a failure */
    mpqc_progress_clear();
    mpqc_summary_print(&(struct mpqc_summary){.cli = j->cli,
                                              .mixed = j->has_mixed ? &j->mixed : NULL,
                                              .passes = &j->passes,
                                              .graph = &j->graph,
                                              .target = &j->target,
                                              .facts = &facts,
                                              .tuning = tuned(j),
                                              .judge = &by,
                                              .accuracy = by.data ? &accuracy : NULL});
    return MPQC_OK;
}

/* The profile for a copy of the graph whose values have the ids map[old]. */
static mpqc_status move_profile(struct job *j, const mpqc_vid *map, uint32_t n_values)
{
    struct mpqc_profile *old = j->passes.profile;
    struct mpqc_histogram *hist = MPQC_NEW_ARRAY(&j->passes.keep, struct mpqc_histogram, n_values);
    if (!hist) return MPQC_OOM(j->cx);
    for (mpqc_vid v = 0; v < old->n_values; v++)
        if (map[v] != MPQC_NONE && map[v] < n_values) hist[map[v]] = old->hist[v];
    old->hist = hist;
    old->n_values = n_values;
    return MPQC_OK;
}

/* The float graph is kept, compact, so that any number of plans can be tried on copies
 * of it that have its ids. */
static mpqc_status keep_float(struct job *j)
{
    mpqc_vid *map;
    struct mpqc_graph copy;
    MPQC_TRY(mpqc_graph_clone(j->cx, &j->graph, &j->float_graph, &j->passes.scratch, &map));
    if (j->passes.profile) MPQC_TRY(move_profile(j, map, j->float_graph.n_values));
    mpqc_graph_init(&copy, j->cx->allocator);
    mpqc_status status = mpqc_graph_clone(j->cx, &j->float_graph, &copy, &j->passes.scratch, NULL);
    mpqc_graph_release(&j->graph);
    j->graph = copy;
    mpqc_arena_reset(&j->passes.scratch);
    return status;
}

static mpqc_status decide_bits(struct job *j)
{
    if (!mpqc_mixed_wanted(&j->cli->mixed)) return MPQC_OK;
    struct mpqc_mixed_job job = {.cx = j->cx, .cli = j->cli, .passes = &j->passes,
                                 .graph = &j->float_graph, .target = &j->target,
                                 .samples = mpqc_calib_samples(j->calib), .out = &j->mixed};
    if (j->cli->n_eval) job.eval.by.data = &j->eval_data;
    j->has_mixed = true;
    return mpqc_mixed_decide(&job);
}

static mpqc_status compile(struct job *j)
{
    const struct mpqc_cli *cli = j->cli;
    bool stopped = false;
    MPQC_TRY(check_request(j));
    mpqc_cx_progress(j->cx, "read network", 0, 0);
    MPQC_TRY(mpqc_import_onnx(j->cx, cli->model, &cli->import, &j->graph));
    if (cli->n_calib) {
        MPQC_TRY(mpqc_calib_open(j->cx, cli, &j->graph, &j->calib, &j->data));
        j->passes.data = &j->data;
    }
    if (cli->n_eval)
        MPQC_TRY(mpqc_eval_open(j->cx, cli, &j->graph, &j->eval, &j->eval_data));
    MPQC_TRY(mpqc_pipeline_run(&j->passes, &j->graph, float_passes, MPQC_LEN(float_passes),
                               &stopped));
    if (!stopped) {
        MPQC_TRY(keep_float(j));
        MPQC_TRY(decide_bits(j));
        MPQC_TRY(mpqc_pipeline_run(&j->passes, &j->graph, integer_passes, MPQC_LEN(integer_passes),
                                   &stopped));
    }
    if (cli->emit == MPQC_OUT_IR && cli->out) {
        MPQC_TRY(report(j));
        return write_ir(j);
    }
    return stopped ? MPQC_OK : finish(j);
}

mpqc_status mpqc_compile(struct mpqc_cx *cx, const struct mpqc_cli *cli)
{
    struct job j;
    job_init(&j, cx, cli);
    mpqc_status status = compile(&j);
    job_release(&j);
    return status;
}

/* ---- mpqc -check ---- */

/* Made-up ranges, the same for every value: whether an operator can be compiled does not
 * depend on them, and nothing that they lead to is kept. */
static mpqc_status make_up_profile(struct job *j)
{
    struct mpqc_arena *keep = &j->passes.keep;
    struct mpqc_profile *p = MPQC_NEW(keep, struct mpqc_profile);
    if (!p) return MPQC_OOM(j->cx);
    p->n_values = j->graph.n_values;
    p->samples = 1;
    p->hist = MPQC_NEW_ARRAY(keep, struct mpqc_histogram, p->n_values);
    uint64_t *bins = MPQC_NEW_ARRAY(keep, uint64_t, MPQC_HIST_BINS);
    if (!p->hist || !bins) return MPQC_OOM(j->cx);
    for (uint32_t b = 0; b < MPQC_HIST_BINS; b++) bins[b] = 1;
    for (mpqc_vid v = 0; v < p->n_values; v++)
        if (mpqc_value_at(&j->graph, v)->type.dtype == MPQC_DT_F32 && !mpqc_is_const(&j->graph, v))
            p->hist[v] = (struct mpqc_histogram){
                .min = -4, .max = 4, .count = MPQC_HIST_BINS, .exp = -9, .bins = bins};
    j->passes.profile = p;
    return MPQC_OK;
}

/* Code for the target, into a file that nobody sees. */
static mpqc_status check_codegen(struct job *j)
{
    struct mpqc_codegen_facts facts;
    struct mpqc_cli cli = *j->cli;
    const struct mpqc_cli *asked = j->cli;
    char folder[MPQC_TEMPORARY_PATH], path[MPQC_TEMPORARY_PATH + 8];
    MPQC_TRY(mpqc_folder_make(j->cx, folder));
    snprintf(path, sizeof path, "%s/check.o", folder);
    cli.out = path;
    cli.emit = MPQC_OUT_OBJ;
    j->cli = &cli;
    mpqc_status status = emit(j, &facts);
    j->cli = asked;
    mpqc_temporary_remove(folder);
    return status;
}

/* Everything that could refuse the network: the importer, which lists all obstacles, then
 * operators without an integer form, then the code generator. */
static mpqc_status check(struct job *j)
{
    bool stopped;
    MPQC_TRY(mpqc_target_find(j->cx, j->cli->target ? j->cli->target : "native", j->cli->mcpu,
                              &j->target));
    MPQC_TRY(mpqc_import_onnx(j->cx, j->cli->model, &j->cli->import, &j->graph));
    MPQC_TRY(mpqc_pipeline_run(&j->passes, &j->graph, float_passes, 1, &stopped));
    uint32_t operators = j->graph.n_order;
    MPQC_TRY(make_up_profile(j));
    MPQC_TRY(mpqc_pipeline_run(&j->passes, &j->graph, integer_passes, MPQC_LEN(integer_passes),
                               &stopped));
    if (stopped) return MPQC_OK;
    MPQC_TRY(check_codegen(j));
    printf("%s: supported: %u operators after simplification, %u kernels, %u in floating point, "
           "for %s\n",
           j->cli->model, operators, j->passes.plan->n_kernels, j->passes.n_islands, j->target.name);
    return MPQC_OK;
}

mpqc_status mpqc_check(struct mpqc_cx *cx, const struct mpqc_cli *cli)
{
    struct job j;
    job_init(&j, cx, cli);
    mpqc_status status = check(&j);
    job_release(&j);
    return status;
}
