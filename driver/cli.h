/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mpqc's command line as a struct, and the stages that use it.
 */
#ifndef MPQC_DRIVER_CLI_H
#define MPQC_DRIVER_CLI_H

#include "codegen/codegen.h"
#include "driver/data.h"
#include "driver/flags.h"
#include "driver/mixed.h"
#include "driver/temporary.h"
#include "frontend/frontend.h"
#include "passes/pass.h"

#define MPQC_CLI_MAX 32 /* repeated flags: -calib, -shape, -define-symbol */

enum mpqc_output {
    MPQC_OUT_SO, MPQC_OUT_OBJ, MPQC_OUT_ARCHIVE, MPQC_OUT_LLVM, MPQC_OUT_ASM, MPQC_OUT_HEADER,
    MPQC_OUT_IR, MPQC_OUT_UNSET
};

/* -calib=distill, -calib=distill:weak */
enum mpqc_cli_distill { MPQC_DISTILL_NONE, MPQC_DISTILL_STATISTICS, MPQC_DISTILL_WEAK };

struct mpqc_cli {
    const char *model;
    const char *out;
    enum mpqc_output emit;
    const char *target, *mcpu;
    const char *tag;
    /* Named after inputs; without a name: the only input, or the array's own name. */
    struct mpqc_named_path calib[MPQC_CLI_MAX];
    uint32_t n_calib;
    struct mpqc_named_path eval[MPQC_CLI_MAX]; /* -eval; none: the samples of -calib */
    uint32_t n_eval;
    uint64_t calib_count; /* 0: the default */
    enum mpqc_cli_distill distill; /* then n_calib is 1 */
    struct mpqc_preprocess pre; /* complete: defaults filled in */
    bool pre_given;             /* by -scale, -mean or -std */
    struct mpqc_shape_option shapes[MPQC_CLI_MAX];
    struct mpqc_symbol_option symbols[MPQC_CLI_MAX];
    struct mpqc_import_options import;
    char names[2 * MPQC_CLI_MAX][128]; /* texts that shapes and symbols point to */
    uint32_t n_names;
    struct mpqc_options options;
    struct mpqc_mixed_options mixed;
    uint32_t tune_kernels;  /* tiles to try per shape of kernel; 0: none */
    const char *tune_cache; /* file, "none", or NULL: the default file */
    unsigned threads;
    uint64_t seed;
    int verbose;
    bool check, help, version, list_ops, list_passes, list_targets, list_metrics;
};

/* Fills *cli; 0, or -1 with one sentence in err. */
int mpqc_cli_parse(int argc, char **argv, struct mpqc_cli *cli, char *err);
void mpqc_cli_help(void);

/* ---- stages ---- */

/* Calibration data bound to the inputs of a graph.  Owns the files. */
struct mpqc_calib_set;
mpqc_status mpqc_calib_open(struct mpqc_cx *cx, const struct mpqc_cli *cli,
                            const struct mpqc_graph *g, struct mpqc_calib_set **out,
                            struct mpqc_dataset *data) MPQC_MUST_CHECK;
/* The same for -eval: all samples of it. */
mpqc_status mpqc_eval_open(struct mpqc_cx *cx, const struct mpqc_cli *cli,
                           const struct mpqc_graph *g, struct mpqc_calib_set **out,
                           struct mpqc_dataset *data) MPQC_MUST_CHECK;
void mpqc_calib_close(struct mpqc_calib_set *);
/* All samples that there are, whatever -calib-count. */
uint64_t mpqc_calib_samples(const struct mpqc_calib_set *);

/* text_file.c: text to PATH by mpqc_file_write ("-" or NULL: stdout), and a whole
 * file, NUL-terminated, in `arena`. */
mpqc_status mpqc_text_write(struct mpqc_cx *cx, const char *path, const struct mpqc_buf *text)
    MPQC_MUST_CHECK;
mpqc_status mpqc_text_read(struct mpqc_cx *cx, const char *path, struct mpqc_arena *arena,
                           const char **text) MPQC_MUST_CHECK;
/* mpqc_temporary_folder, whose failure is a diagnostic. */
mpqc_status mpqc_folder_make(struct mpqc_cx *cx, char *path) MPQC_MUST_CHECK;

/* outputs.c: can all results be written where they are to go, and is none of them an input
 * or the place of another? */
mpqc_status mpqc_outputs_check(struct mpqc_cx *cx, const struct mpqc_cli *cli) MPQC_MUST_CHECK;

/* Import, passes, code, summary. */
mpqc_status mpqc_compile(struct mpqc_cx *cx, const struct mpqc_cli *cli) MPQC_MUST_CHECK;
/* mpqc -check. */
mpqc_status mpqc_check(struct mpqc_cx *cx, const struct mpqc_cli *cli) MPQC_MUST_CHECK;

/* A progress line on stderr for anything over a second, when stderr is a terminal. */
void mpqc_progress_install(struct mpqc_cx *cx);
void mpqc_progress_clear(void);

#endif
