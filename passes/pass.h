/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What a pass sees, and the pass manager.  A pass is one function in its own
 * file and one row of passes.def.  Its header comment gives the algorithm, the
 * paper it follows and its rules; the row says what graph it takes and leaves.
 */
#ifndef MPQC_PASSES_PASS_H
#define MPQC_PASSES_PASS_H

#include "ir/exec.h"
#include "ir/ir.h"
#include "ir/plan.h"
#include "passes/bits.h"

/* How observed values become a range. */
enum mpqc_calibration {
    MPQC_CALIB_AUTO, /* percentile, unless what it would clip carries energy */
    MPQC_CALIB_MINMAX,
    MPQC_CALIB_PERCENTILE, /* of |x|, two-sided: (100 - p) / 2 per cent are cut at each end */
    MPQC_CALIB_KL,         /* entropy, after the TensorRT method */
    MPQC_CALIB_MSE         /* least expected squared error of quantisation */
};

/* Weights of fewer than 8 bits. */
enum mpqc_rounding { MPQC_ROUND_NEAREST, MPQC_ROUND_GPTQ };
enum mpqc_weight_clip { MPQC_CLIP_MINMAX, MPQC_CLIP_MSE };

/* What the user asked for.  Defaults by mpqc_options_init. */
struct mpqc_options {
    enum mpqc_calibration calibration;
    double percentile; /* e.g. 99.99 */
    unsigned weight_bits, activation_bits;
    enum mpqc_rounding rounding;
    enum mpqc_weight_clip weight_clip;
    int64_t group_size; /* inputs of a dense layer that share a factor; 0: none */
    bool bias_correct; /* shift biases by the expected error of the weights */
    bool int_io;      /* -io=int: no quantize / dequantize at the boundary */
    bool allow_float; /* islands of float operators are allowed */
    /* -dump-after, -stop-after: pass names or NULL; dumps go to dump_to */
    const char *dump_after, *stop_after;
    FILE *dump_to;
    bool verify_each, time_passes;
    unsigned pass_limit; /* 0: no limit */
    const char *dump_profile, *load_profile; /* files */
};
void mpqc_options_init(struct mpqc_options *o);
/* "minmax", "percentile:99.99", "kl", "mse"; false when malformed. */
bool mpqc_options_calibration(struct mpqc_options *o, const char *text);

/* What calibration learned about one value, independent of any scheme: extremes
 * and a histogram of fixed size.  Bin i covers [(i - MPQC_HIST_HALF) * 2^exp,
 * (i - MPQC_HIST_HALF + 1) * 2^exp).  Because widths are powers of two and bins
 * are merged in pairs, the result does not depend on the order of the data. */
#define MPQC_HIST_HALF 2048
#define MPQC_HIST_BINS (2 * MPQC_HIST_HALF)
struct mpqc_histogram {
    float min, max;
    uint64_t count;
    int32_t exp;
    uint64_t *bins; /* NULL: nothing observed */
};
struct mpqc_profile {
    uint32_t n_values; /* of the simplified float graph */
    struct mpqc_histogram *hist; /* by value id; only float activations have bins */
    uint64_t samples;
};

struct mpqc_float_island {
    const char *node, *op;
};

/* Everything that travels down the pipeline beside the graph. */
struct mpqc_pass_cx {
    struct mpqc_cx *cx;
    struct mpqc_arena scratch; /* emptied by the manager after each pass */
    struct mpqc_arena keep;    /* facts that later stages read; lives as long as this */
    const struct mpqc_options *options;
    const struct mpqc_engine *engine;
    const struct mpqc_dataset *data; /* NULL: none given */
    struct mpqc_profile *profile;    /* made by calibrate, used by quantise */
    const struct mpqc_bits *bits;    /* bits->chosen decides, by layer; NULL: options do */
    struct mpqc_plan *plan;          /* made by plan */
    const struct mpqc_float_island *islands; /* named by quantise */
    uint32_t n_islands;
};
void mpqc_pass_cx_init(struct mpqc_pass_cx *p, struct mpqc_cx *cx, const struct mpqc_options *o);
void mpqc_pass_cx_release(struct mpqc_pass_cx *p);

typedef mpqc_status (*mpqc_pass_fn)(struct mpqc_pass_cx *, struct mpqc_graph *);

#define PASS(name, stage, doc)                                                                    \
    mpqc_status mpqc_pass_##name(struct mpqc_pass_cx *, struct mpqc_graph *);
#include "passes/passes.def"
#undef PASS

/* Which graphs the verifier accepts (ir/verify.h). */
enum mpqc_stage { MPQC_STAGE_FLOAT, MPQC_STAGE_MIXED, MPQC_STAGE_INTEGER };

struct mpqc_pass_info {
    const char *name;
    mpqc_pass_fn run;
    enum mpqc_stage stage_after; /* what the verifier demands after it */
    const char *doc;
};
extern const struct mpqc_pass_info mpqc_passes[];
extern const uint32_t mpqc_n_passes;
const struct mpqc_pass_info *mpqc_pass_find(const char *name); /* NULL: unknown */

/* The text that shows the result of a pass: the graph, or the plan. */
mpqc_status mpqc_pass_text(const struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                           const char *name, struct mpqc_buf *to) MPQC_MUST_CHECK;

/* Runs the named passes in order: mpqc_graph_normalise, verify, dump, time after
 * each, as options say.  *stopped is set when -stop-after or -pass-limit ended it. */
mpqc_status mpqc_pipeline_run(struct mpqc_pass_cx *p, struct mpqc_graph *g,
                              const char *const *names, uint32_t n, bool *stopped) MPQC_MUST_CHECK;

#endif
