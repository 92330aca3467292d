/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Mixed precision: from flags to one choice of bits per layer.  The stage between
 * calibrate and quantise.
 */
#ifndef MPQC_DRIVER_MIXED_H
#define MPQC_DRIVER_MIXED_H

#include "codegen/codegen.h"
#include "driver/flags.h"
#include "driver/judge.h"
#include "passes/allocate.h"
#include "passes/pass.h"
#include "passes/sensitivity/sensitivity.h"

#define MPQC_MIXED_MAX_PINS 64

struct mpqc_cli;

/* A bound: absolute in the unit of its table (bytes, ns, bit operations), or a factor of
 * what uniform w8a8 needs. */
struct mpqc_amount {
    bool set, relative;
    double value;
    const char *text;
};

enum mpqc_cost_model { MPQC_COST_UNSET, MPQC_COST_MEASURED, MPQC_COST_ANALYTIC };

struct mpqc_mixed_options {
    const struct mpqc_strategy *strategy; /* NULL: none asked for */
    bool off;                             /* -mixed=off */
    const struct mpqc_metric *metric;     /* NULL: the default */
    struct mpqc_amount limit[MPQC_RES_COUNT];
    enum mpqc_resource minimize;
    bool minimize_set;
    double max_drop; /* points of top-1 */
    bool max_drop_set;
    enum mpqc_cost_model cost;
    const char *measure;           /* "local", "qemu", "cmd:..."; NULL: local */
    const char *latency_cache;     /* file, "none", or NULL: the default file */
    const char *labels, *pareto;
    const char *pins[MPQC_MIXED_MAX_PINS];
    uint32_t n_pins;
    const char *dump_config, *dump_sensitivity, *load_sensitivity, *report;
    uint32_t candidates;           /* bit per choice; 0: all */
    uint64_t eval_count;           /* labelled samples to evaluate on; 0: all */
};
/* Does anything there ask for a decision about bits? */
bool mpqc_mixed_wanted(const struct mpqc_mixed_options *o);
/* Contradictions between flags: 0, or -1 with one sentence. */
int mpqc_mixed_check(const struct mpqc_cli *cli, char *err);

#define FLAG(name, metavar, function, help) MPQC_FLAG_HANDLER(mpqc_mixed_set_##function);
#include "driver/mixed_flags.def"
#undef FLAG

/* Labelled samples to judge plans by. */
struct mpqc_mixed_eval {
    struct mpqc_judge by;
    const int64_t *labels; /* of every sample of by.data; NULL: none */
};

/* What the decision knows and was; lives in passes->keep. */
struct mpqc_mixed {
    struct mpqc_bits bits;
    struct mpqc_budget budget;
    struct mpqc_allocation allocation;
    double uniform[MPQC_RES_COUNT]; /* totals of uniform w8a8 */
    const char *strategy;  /* "ilp", ..., "pins", "uniform" */
    const char *metric;    /* NULL: no sensitivities were needed */
    const char *cost;      /* "measured" or "analytic" */
    double rest_ns;        /* measured time of what is no layer; 0: not measured */
    /* of -max-drop and -pareto */
    bool searched, missed;
    uint64_t labelled, evaluations;
    const char *labelled_what; /* which samples these are */
    double float_top1, top1; /* percent; NaN: not evaluated */
};

/* Everything the stage needs. */
struct mpqc_mixed_job {
    struct mpqc_cx *cx;
    const struct mpqc_cli *cli;
    struct mpqc_pass_cx *passes;      /* profile and data, of `graph` */
    struct mpqc_graph *graph;         /* simplified float graph, compact: clones keep ids */
    const struct mpqc_target *target;
    uint64_t samples;                 /* in the calibration files, whatever -calib-count */
    struct mpqc_mixed_eval eval;      /* by.data: of -eval, or NULL; the rest is found out */
    struct mpqc_mixed *out;
};
/* Decides; sets passes->bits.  Writes -dump-sensitivity, -dump-config, -pareto. */
mpqc_status mpqc_mixed_decide(struct mpqc_mixed_job *j) MPQC_MUST_CHECK;

/* ---- the parts of it ---- */

/* mixed_search.c: -pareto and -max-drop; j->eval may have no labels for -pareto alone. */
mpqc_status mpqc_mixed_search(struct mpqc_mixed_job *j, const struct mpqc_strategy *strategy)
    MPQC_MUST_CHECK;
/* Writes -dump-config for the plan that bits->chosen is now. */
mpqc_status mpqc_mixed_dump_config(const struct mpqc_mixed_job *j) MPQC_MUST_CHECK;

/* mixed_evaluate.c: top-1 in percent on j->eval, of the float graph (chosen NULL), or of
 * the integer graph with this plan. */
mpqc_status mpqc_mixed_evaluate(struct mpqc_mixed_job *j, const uint32_t *chosen, double *top1)
    MPQC_MUST_CHECK;

/* mixed_summary.c: the line "bits", and why. */
void mpqc_mixed_print(const struct mpqc_mixed *m);
void mpqc_mixed_print_layers(const struct mpqc_mixed *m); /* -v */
/* Why layer l has its choice, as text in `to`. */
void mpqc_mixed_reason(const struct mpqc_mixed *m, uint32_t l, struct mpqc_buf *to);

/* mixed_measure.c: fills bits->latency and rest_ns by running libraries. */
mpqc_status mpqc_mixed_measure(struct mpqc_mixed_job *j) MPQC_MUST_CHECK;

#endif
