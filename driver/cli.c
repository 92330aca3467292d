/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mpqc's flags: one row each, and one handler.
 */
#include "driver/cli.h"

#include <unistd.h>

#define HANDLER(name)                                                                             \
    static int set_##name(void *options, const char *value, char *err)
#define CLI struct mpqc_cli *cli = options
#define UNUSED_ERR (void)err

static int refuse(char *err, const char *flag, const char *value, const char *wanted)
{
    snprintf(err, MPQC_FLAG_ERROR, "-%s=%s is not known; it is one of %s", flag, value, wanted);
    return -1;
}

/* Flags that only keep their text, and flags without one. */
#define TEXT(name, field)                                                                         \
    HANDLER(name)                                                                                 \
    {                                                                                             \
        CLI;                                                                                      \
        UNUSED_ERR;                                                                               \
        cli->field = value;                                                                       \
        return 0;                                                                                 \
    }
#define SWITCH(name, field)                                                                       \
    HANDLER(name)                                                                                 \
    {                                                                                             \
        CLI;                                                                                      \
        UNUSED_ERR;                                                                               \
        (void)value;                                                                              \
        cli->field = true;                                                                        \
        return 0;                                                                                 \
    }

TEXT(out, out)
TEXT(target, target)
TEXT(mcpu, mcpu)
TEXT(dump_profile, options.dump_profile)
TEXT(load_profile, options.load_profile)
SWITCH(allow_float, options.allow_float)
SWITCH(verify_each, options.verify_each)
SWITCH(time_passes, options.time_passes)
SWITCH(check, check)
SWITCH(help, help)
SWITCH(version, version)
SWITCH(list_ops, list_ops)
SWITCH(list_passes, list_passes)
SWITCH(list_targets, list_targets)
SWITCH(list_metrics, list_metrics)

/* Copies a name of `len` bytes into the option block; NULL when it does not fit. */
static const char *keep_name(struct mpqc_cli *cli, const char *s, size_t len)
{
    if (len == 0 || len >= sizeof cli->names[0]) return NULL;
    if (cli->n_names >= MPQC_LEN(cli->names)) return NULL;
    char *to = cli->names[cli->n_names++];
    memcpy(to, s, len);
    to[len] = '\0';
    return to;
}

HANDLER(model)
{
    CLI;
    if (cli->model) {
        snprintf(err, MPQC_FLAG_ERROR, "one network at a time: both '%s' and '%s' are given",
                 cli->model, value);
        return -1;
    }
    cli->model = value;
    return 0;
}

static const struct {
    const char *name, *suffix;
    enum mpqc_output output;
} outputs[] = {
    {"so", ".so", MPQC_OUT_SO},       {"obj", ".o", MPQC_OUT_OBJ}, {"a", ".a", MPQC_OUT_ARCHIVE},
    {"llvm", ".ll", MPQC_OUT_LLVM},   {"asm", ".s", MPQC_OUT_ASM}, {"ir", ".mpir", MPQC_OUT_IR},
    {"header", ".h", MPQC_OUT_HEADER}};

HANDLER(emit)
{
    CLI;
    for (size_t i = 0; i < MPQC_LEN(outputs); i++)
        if (strcmp(value, outputs[i].name) == 0) {
            cli->emit = outputs[i].output;
            return 0;
        }
    return refuse(err, "emit", value, "so, obj, a, llvm, asm, ir, header");
}

/* -calib=distill and -calib=distill:weak; files of these names are ./distill. */
static bool is_distill(struct mpqc_cli *cli, const char *value)
{
    if (strcmp(value, "distill") == 0) cli->distill = MPQC_DISTILL_STATISTICS;
    else if (strcmp(value, "distill:weak") == 0) cli->distill = MPQC_DISTILL_WEAK;
    else return false;
    return true;
}

/* [input:]PATH; a colon belongs to the path when a file of that whole name exists. */
static int data_path(struct mpqc_cli_calib *list, uint32_t *n, const char *flag, const char *value,
                     char *err)
{
    if (*n == MPQC_CLI_MAX) {
        snprintf(err, MPQC_FLAG_ERROR, "-%s is given more than %d times", flag, MPQC_CLI_MAX);
        return -1;
    }
    struct mpqc_cli_calib *c = &list[(*n)++];
    const char *colon = strchr(value, ':');
    c->path = value;
    c->input[0] = '\0';
    if (colon && access(value, F_OK) != 0 && (size_t)(colon - value) < sizeof c->input) {
        memcpy(c->input, value, (size_t)(colon - value));
        c->input[colon - value] = '\0';
        c->path = colon + 1;
    }
    if (*c->path) return 0;
    snprintf(err, MPQC_FLAG_ERROR, "-%s wants [input:]PATH, not '%s'", flag, value);
    return -1;
}

HANDLER(calib)
{
    CLI;
    bool distill = is_distill(cli, value);
    if (cli->distill && cli->n_calib > 0) {
        snprintf(err, MPQC_FLAG_ERROR, "-calib=distill makes all the data itself; give no other "
                                       "-calib with it");
        return -1;
    }
    if (!distill) return data_path(cli->calib, &cli->n_calib, "calib", value, err);
    cli->calib[cli->n_calib++] = (struct mpqc_cli_calib){.path = value};
    return 0;
}

HANDLER(eval)
{
    CLI;
    return data_path(cli->eval, &cli->n_eval, "eval", value, err);
}

HANDLER(calib_count)
{
    CLI;
    int64_t n;
    if (mpqc_flag_int("calib-count", value, 1, INT32_MAX, &n, err)) return -1;
    cli->calib_count = (uint64_t)n;
    return 0;
}

static int preprocess(struct mpqc_cli *cli, const char *flag, const char *value, char *err)
{
    struct mpqc_data_error e;
    if (mpqc_preprocess_set(&cli->pre, flag, value, &e) == 0) return 0;
    snprintf(err, MPQC_FLAG_ERROR, "%s", e.text);
    return -1;
}
HANDLER(scale) { return preprocess(options, "scale", value, err); }
HANDLER(mean) { return preprocess(options, "mean", value, err); }
HANDLER(std) { return preprocess(options, "std", value, err); }
HANDLER(layout) { return preprocess(options, "layout", value, err); }

HANDLER(calibration)
{
    CLI;
    if (mpqc_options_calibration(&cli->options, value)) return 0;
    return refuse(err, "calibration", value, "auto, minmax, percentile:99.99, kl, mse");
}

/* Of every layer; layers of their own come by -pin and -mixed. */
static int bits(const char *flag, const char *value, const char *known, unsigned *out, char *err)
{
    int64_t n;
    if (mpqc_flag_int(flag, value, 1, 16, &n, err)) return -1;
    *out = (unsigned)n;
    if (n < 10 && strchr(known, (int)('0' + n))) return 0;
    snprintf(err, MPQC_FLAG_ERROR, "-%s=%s does not exist; it is one of %s", flag, value, known);
    return -1;
}
HANDLER(wbits)
{
    CLI;
    return bits("wbits", value, "1, 2, 3, 4, 5, 6, 8", &cli->options.weight_bits, err);
}
HANDLER(abits) { CLI; return bits("abits", value, "1, 2, 4, 8", &cli->options.activation_bits, err); }
HANDLER(rounding)
{
    CLI;
    if (strcmp(value, "gptq") == 0) cli->options.rounding = MPQC_ROUND_GPTQ;
    else if (strcmp(value, "nearest") == 0) cli->options.rounding = MPQC_ROUND_NEAREST;
    else return refuse(err, "rounding", value, "gptq, nearest");
    return 0;
}
HANDLER(weight_clip)
{
    CLI;
    if (strcmp(value, "mse") == 0) cli->options.weight_clip = MPQC_CLIP_MSE;
    else if (strcmp(value, "minmax") == 0) cli->options.weight_clip = MPQC_CLIP_MINMAX;
    else return refuse(err, "weight-clip", value, "mse, minmax");
    return 0;
}
HANDLER(group_size)
{
    CLI;
    unsigned size = 0;
    if (strcmp(value, "32") == 0) size = 32;
    else if (strcmp(value, "64") == 0) size = 64;
    else if (strcmp(value, "128") == 0) size = 128;
    else if (strcmp(value, "0") != 0) return refuse(err, "group-size", value, "0, 32, 64, 128");
    cli->options.group_size = size;
    return 0;
}
HANDLER(no_bias_correct)
{
    CLI;
    UNUSED_ERR;
    (void)value;
    cli->options.bias_correct = false;
    return 0;
}

HANDLER(io)
{
    CLI;
    if (strcmp(value, "float") != 0 && strcmp(value, "int") != 0)
        return refuse(err, "io", value, "float, int");
    cli->options.int_io = strcmp(value, "int") == 0;
    return 0;
}

/* name:1x3x224x224 */
HANDLER(shape)
{
    CLI;
    const char *colon = strrchr(value, ':');
    struct mpqc_shape_option *s = &cli->shapes[cli->import.n_shapes];
    if (!colon || cli->import.n_shapes == MPQC_CLI_MAX ||
        !(s->input = keep_name(cli, value, (size_t)(colon - value))))
        goto bad;
    s->rank = 0;
    for (const char *p = colon + 1;; p++) {
        char *end;
        long long d = strtoll(p, &end, 10);
        if (end == p || d < 1 || d > INT32_MAX || s->rank == MPQC_MAX_RANK) goto bad;
        s->dims[s->rank++] = d;
        p = end;
        if (!*p) break;
        if (*p != 'x' && *p != ',') goto bad;
    }
    cli->import.n_shapes++;
    return 0;
bad:
    snprintf(err, MPQC_FLAG_ERROR, "-shape wants name:1x3x224x224, not '%s'", value);
    return -1;
}

/* batch,1 */
HANDLER(define_symbol)
{
    CLI;
    const char *comma = strrchr(value, ',');
    if (!comma) comma = strrchr(value, '=');
    struct mpqc_symbol_option *s = &cli->symbols[cli->import.n_symbols];
    char *end;
    if (comma && cli->import.n_symbols < MPQC_CLI_MAX &&
        (s->symbol = keep_name(cli, value, (size_t)(comma - value))) != NULL) {
        s->value = strtoll(comma + 1, &end, 10);
        if (end != comma + 1 && !*end && s->value >= 1 && s->value <= INT32_MAX) {
            cli->import.n_symbols++;
            return 0;
        }
    }
    snprintf(err, MPQC_FLAG_ERROR, "-define-symbol wants symbol,value, not '%s'", value);
    return -1;
}

HANDLER(tag)
{
    CLI;
    const char *c = value;
    for (; *c; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
              *c == '_'))
            break;
    if (*value && !*c && strlen(value) < 64) {
        cli->tag = value;
        return 0;
    }
    snprintf(err, MPQC_FLAG_ERROR, "-tag wants letters, digits and '_', not '%s'", value);
    return -1;
}

static int threads(struct mpqc_cli *cli, const char *flag, const char *value, char *err)
{
    int64_t n;
    if (mpqc_flag_int(flag, value, 1, 1024, &n, err)) return -1;
    cli->threads = (unsigned)n;
    return 0;
}

HANDLER(j)
{
    CLI;
    return threads(cli, "j", value, err);
}

HANDLER(threads)
{
    CLI;
    return threads(cli, "threads", value, err);
}

HANDLER(tune_kernels)
{
    CLI;
    int64_t n;
    if (mpqc_flag_int("tune-kernels", value, 1, MPQC_MAX_TILE_RANK, &n, err)) return -1;
    cli->tune_kernels = (uint32_t)n;
    return 0;
}
HANDLER(tune_cache)
{
    CLI;
    UNUSED_ERR;
    cli->tune_cache = value;
    return 0;
}

HANDLER(seed)
{
    CLI;
    int64_t n;
    if (mpqc_flag_int("seed", value, 0, INT64_MAX, &n, err)) return -1;
    cli->seed = (uint64_t)n;
    return 0;
}

/* Names of passes are checked here, so that a typing error is not silence. */
static const char *pass_name(const void *user, size_t i)
{
    (void)user;
    return i < mpqc_n_passes ? mpqc_passes[i].name : NULL;
}
static int pass(const char *flag, const char *value, const char **out, char *err)
{
    *out = value;
    if (mpqc_pass_find(value) || (strcmp(value, "all") == 0 && strcmp(flag, "dump-after") == 0))
        return 0;
    const char *near = mpqc_nearest(value, pass_name, NULL);
    snprintf(err, MPQC_FLAG_ERROR, "-%s: no pass is called '%s'%s%s%s; -list-passes lists them",
             flag, value, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return -1;
}
HANDLER(dump_after) { CLI; return pass("dump-after", value, &cli->options.dump_after, err); }
HANDLER(stop_after) { CLI; return pass("stop-after", value, &cli->options.stop_after, err); }

HANDLER(pass_limit)
{
    CLI;
    int64_t n;
    if (mpqc_flag_int("pass-limit", value, 1, 1000, &n, err)) return -1;
    cli->options.pass_limit = (unsigned)n;
    return 0;
}

HANDLER(verbose)
{
    CLI;
    UNUSED_ERR;
    (void)value;
    cli->verbose++;
    return 0;
}

static const struct mpqc_flag flags[] = {
    MPQC_FLAG_HEADING("What is made"),
    {"o", "OUT", set_out, "where the result goes; required unless -check"},
    {"emit", "KIND", set_emit, "so (default), obj, a, llvm, asm, ir, header; else by OUT's suffix"},
    {"target", "TARGET", set_target,
     "x86-64, aarch64, native (default), or a row of -list-targets"},
    {"mcpu", "CPU", set_mcpu,
     "a variant of -list-targets (avx2, dotprod, ...), native, or an LLVM CPU name"},
    {"io", "KIND", set_io, "float (default) or int: what the library's inputs and outputs are"},
    {"tag", "NAME", set_tag, "export mpqc_model_NAME, for several models in one program"},
    {"allow-float", NULL, set_allow_float, "operators without an integer form stay float"},
    {"shape", "name:1x3x224x224", set_shape, "shape of an input with dynamic dimensions"},
    {"define-symbol", "batch,1", set_define_symbol, "value of a symbolic dimension"},

    MPQC_FLAG_HEADING("Calibration data"),
    {"calib", "[input:]PATH", set_calib,
     ".npy, .npz, IDX, .pb folder, image, or a folder of them; may be repeated; or distill: made "
     "from the network's BatchNorm statistics (distill:weak: from its weights, if it has none)"},
    {"eval", "[input:]PATH", set_eval,
     "samples that -max-drop and -pareto are judged by, with -labels of these; without it, those of "
     "-calib"},
    {"calib-count", "N", set_calib_count, "use the first N samples (default 256)"},
    {"scale", "S", set_scale, "u8 data: x = (u8 / S - mean) / std; default 255"},
    {"mean", "a,b,c", set_mean, "per channel, or one for all; default 0"},
    {"std", "a,b,c", set_std, "per channel, or one for all; default 1"},
    {"layout", "LAYOUT", set_layout, "of u8 data: nchw (default) or nhwc"},
    {"calibration", "METHOD", set_calibration, "auto, minmax, percentile:99.99, kl, mse"},
    {"dump-profile", "FILE", set_dump_profile, "write what calibration learned"},
    {"load-profile", "FILE", set_load_profile, "use that instead of -calib"},

    MPQC_FLAG_HEADING("One width for all layers, and rounding"),
    {"wbits", "N", set_wbits, "bits of all weights: 8 (default), 6, 5, 4, 3, 2, 1"},
    {"abits", "N", set_abits, "bits of all layers' inputs: 8 (default), 4, 2, 1"},
    {"rounding", "HOW", set_rounding, "of weights below 8 bits: gptq (default), nearest"},
    {"weight-clip", "HOW", set_weight_clip, "range of weights below 8 bits: mse (default), minmax"},
    {"group-size", "N", set_group_size,
     "dense layers below 6 bits: every N inputs (32, 64, 128) have a scale of their own, for a "
     "byte per output; default 0: a scale per output"},
    {"no-bias-correct", NULL, set_no_bias_correct,
     "below 8 bits: leave biases, do not take up the mean error of the weights"},

    MPQC_FLAG_HEADING("Bits chosen for every layer"),
#define FLAG(name, metavar, function, help) {name, metavar, mpqc_mixed_set_##function, help},
#include "driver/mixed_flags.def"
#undef FLAG

    MPQC_FLAG_HEADING("Speed"),
    {"tune-kernels", "N", set_tune_kernels,
     "measure the N best tiles (up to 16) of every shape of kernel here, or by -measure, and keep "
     "the fastest; answers stay the same"},
    {"tune-cache", "FILE|none", set_tune_cache, "of what that measured (default: ~/.cache/mpqc/tiles)"},

    MPQC_FLAG_HEADING("How mpqc works and what it says"),
    {"v", NULL, set_verbose, "a line for every layer; twice: more"},
    {"j", "N", set_j, "threads to compile with (default: all processors)"},
    {"threads", "N", set_threads, "the same"},
    {"seed", "N", set_seed, "of everything random (default 0)"},
    {"time-passes", NULL, set_time_passes, "say how long each pass took"},
    {"dump-after", "PASS", set_dump_after, "print the graph after a pass, or after all"},
    {"stop-after", "PASS", set_stop_after, "end after a pass (with -emit=ir: write the graph)"},
    {"pass-limit", "N", set_pass_limit, "end after N passes, for bisecting"},
    {"verify-each", NULL, set_verify_each, "verify the graph after every pass"},

    MPQC_FLAG_HEADING("Questions"),
    {"check", NULL, set_check, "only say whether the network is supported, listing all obstacles"},
    {"list-ops", NULL, set_list_ops, "list the supported ONNX operators"},
    {"list-passes", NULL, set_list_passes, "list the passes"},
    {"list-targets", NULL, set_list_targets, "list the targets"},
    {"list-metrics", NULL, set_list_metrics, "list the metrics of -sensitivity and the strategies"},
    {"version", NULL, set_version, "print the version"},
    {"help", NULL, set_help, "print this"}};

/* By the suffix of OUT, when -emit was not given. */
static enum mpqc_output output_by_suffix(const char *out)
{
    size_t len = out ? strlen(out) : 0;
    for (size_t i = 0; i < MPQC_LEN(outputs); i++) {
        size_t n = strlen(outputs[i].suffix);
        if (len > n && strcmp(out + len - n, outputs[i].suffix) == 0) return outputs[i].output;
    }
    return MPQC_OUT_SO;
}

int mpqc_cli_parse(int argc, char **argv, struct mpqc_cli *cli, char *err)
{
    memset(cli, 0, sizeof *cli);
    mpqc_options_init(&cli->options);
    cli->emit = MPQC_OUT_UNSET;
    cli->import.shapes = cli->shapes;
    cli->import.symbols = cli->symbols;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    cli->threads = processors > 0 ? (unsigned)processors : 1;
    if (mpqc_flags_parse(flags, MPQC_LEN(flags), argc, argv, cli, set_model, err)) return -1;
    if (cli->emit == MPQC_OUT_UNSET) cli->emit = output_by_suffix(cli->out);
    if (mpqc_mixed_check(cli, err)) return -1;
    if (cli->tune_cache && !cli->tune_kernels) {
        snprintf(err, MPQC_FLAG_ERROR, "-tune-cache says where -tune-kernels=N keeps what it "
                 "measured; give that too");
        return -1;
    }
    cli->pre_given = cli->pre.scale != 0 || cli->pre.channels != 0;
    if (cli->pre.scale == 0) cli->pre.scale = 255;
    if (cli->pre.channels == 0) {
        cli->pre.channels = 1;
        cli->pre.std[0] = 1;
    }
    return 0;
}

void mpqc_cli_help(void)
{
    printf("usage: mpqc MODEL.onnx -calib=DATA -o OUT [flags]\n"
           "Compiles an ONNX network to an integer-only library.  One or two dashes; -x=v or "
           "-x v.\n");
    mpqc_flags_help(flags, MPQC_LEN(flags));
}
