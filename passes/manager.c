/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The pass manager: the only place that knows what happens between passes, and
 * the defaults of their options.
 */
#include "passes/pass.h"

#include "ir/text.h"
#include "ir/verify.h"

#include <time.h>

const struct mpqc_pass_info mpqc_passes[] = {
#define PASS(name, stage, doc) {#name, mpqc_pass_##name, MPQC_STAGE_##stage, doc},
#include "passes/passes.def"
#undef PASS
};
const uint32_t mpqc_n_passes = MPQC_LEN(mpqc_passes);

const struct mpqc_pass_info *mpqc_pass_find(const char *name)
{
    for (uint32_t i = 0; i < mpqc_n_passes; i++)
        if (strcmp(mpqc_passes[i].name, name) == 0) return &mpqc_passes[i];
    return NULL;
}

/* ---- options ---- */

/* Builds made for finding mistakes verify after every pass without being asked. */
#if !defined(__OPTIMIZE__) || defined(MPQC_TINY) || defined(__SANITIZE_ADDRESS__)
#define VERIFY_ALWAYS true
#else
#define VERIFY_ALWAYS false
#endif

void mpqc_options_init(struct mpqc_options *o)
{
    *o = (struct mpqc_options){
        /* measured best overall on ResNets, EfficientNet-Lite, MobileNet-like networks */
        .calibration = MPQC_CALIB_AUTO,
        .percentile = 99.99,
        .weight_bits = 8,
        .rounding = MPQC_ROUND_GPTQ,
        .weight_clip = MPQC_CLIP_MSE,
        .bias_correct = true,
        .activation_bits = 8,
        .dump_to = stderr,
        .verify_each = VERIFY_ALWAYS,
    };
}

static bool parse_percentile(struct mpqc_options *o, const char *text)
{
    char *end;
    if (*text == '\0') return true; /* the default stays */
    if (*text++ != ':' || *text < '0' || *text > '9') return false;
    double p = strtod(text, &end);
    if (*end != '\0' || !(p > 50.0 && p <= 100.0)) return false;
    o->percentile = p;
    return true;
}

bool mpqc_options_calibration(struct mpqc_options *o, const char *text)
{
    static const struct {
        const char *text;
        enum mpqc_calibration method;
    } exact[] = {{"auto", MPQC_CALIB_AUTO},
                 {"minmax", MPQC_CALIB_MINMAX},
                 {"kl", MPQC_CALIB_KL},
                 {"mse", MPQC_CALIB_MSE}};
    static const char percentile[] = "percentile";
    size_t n = sizeof percentile - 1;
    for (size_t i = 0; i < MPQC_LEN(exact); i++) {
        if (strcmp(text, exact[i].text) == 0) {
            o->calibration = exact[i].method;
            return true;
        }
    }
    if (strncmp(text, percentile, n) != 0 || !parse_percentile(o, text + n)) return false;
    o->calibration = MPQC_CALIB_PERCENTILE;
    return true;
}

/* ---- context ---- */

void mpqc_pass_cx_init(struct mpqc_pass_cx *p, struct mpqc_cx *cx, const struct mpqc_options *o)
{
    *p = (struct mpqc_pass_cx){.cx = cx, .options = o, .engine = &mpqc_interpreter};
    mpqc_arena_init(&p->scratch, cx->allocator);
    mpqc_arena_init(&p->keep, cx->allocator);
}

void mpqc_pass_cx_release(struct mpqc_pass_cx *p)
{
    mpqc_arena_release(&p->scratch);
    mpqc_arena_release(&p->keep);
    p->profile = NULL;
    p->plan = NULL;
    p->islands = NULL;
    p->n_islands = 0;
}

/* ---- one pass ---- */

static enum mpqc_verify_mode mode_after(const struct mpqc_pass_cx *p,
                                        const struct mpqc_pass_info *pass)
{
    switch (pass->stage_after) {
    case MPQC_STAGE_FLOAT: return MPQC_VERIFY_FLOAT;
    case MPQC_STAGE_INTEGER:
        return p->options->allow_float ? MPQC_VERIFY_MIXED : MPQC_VERIFY_INTEGER;
    case MPQC_STAGE_MIXED: break;
    }
    return MPQC_VERIFY_MIXED;
}

static bool names(const char *option, const char *pass)
{
    return option && strcmp(option, pass) == 0;
}

mpqc_status mpqc_pass_text(const struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                           const char *name, struct mpqc_buf *to)
{
    if (strcmp(name, "plan") == 0 && p->plan) mpqc_plan_print(g, p->plan, to);
    else mpqc_graph_print(g, to, false);
    return to->failed ? MPQC_OOM(p->cx) : MPQC_OK;
}

static mpqc_status dump(struct mpqc_pass_cx *p, const struct mpqc_graph *g, const char *name)
{
    struct mpqc_buf text;
    mpqc_buf_init(&text);
    mpqc_buf_printf(&text, "# after %s\n", name);
    mpqc_status status = mpqc_pass_text(p, g, name, &text);
    if (status == MPQC_OK && (fwrite(text.data, 1, text.len, p->options->dump_to) != text.len ||
                              fflush(p->options->dump_to) != 0))
        status = MPQC_FAIL(p->cx, IO, MPQC_NOWHERE, "the dump after '%s' cannot be written", name);
    mpqc_buf_release(&text);
    return status;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static mpqc_status run_pass(struct mpqc_pass_cx *p, struct mpqc_graph *g,
                            const struct mpqc_pass_info *pass)
{
    const struct mpqc_options *o = p->options;
    double start = now_ms();
    MPQC_TRY(pass->run(p, g));
    MPQC_TRY(mpqc_graph_normalise(p->cx, g));
    if (o->time_passes) fprintf(stderr, "mpqc: %-10s %10.1f ms\n", pass->name, now_ms() - start);
    if (o->verify_each) MPQC_TRY(mpqc_verify(p->cx, g, mode_after(p, pass)));
    bool show = names(o->dump_after, pass->name) || names(o->dump_after, "all");
    return show ? dump(p, g, pass->name) : MPQC_OK;
}

mpqc_status mpqc_pipeline_run(struct mpqc_pass_cx *p, struct mpqc_graph *g,
                              const char *const *list, uint32_t n, bool *stopped)
{
    *stopped = false;
    for (uint32_t i = 0; i < n && !*stopped; i++) {
        const struct mpqc_pass_info *pass = mpqc_pass_find(list[i]);
        if (!pass)
            return MPQC_FAIL(p->cx, USAGE, MPQC_NOWHERE, "there is no pass '%s'", list[i]);
        p->cx->pass = pass->name;
        mpqc_status status = run_pass(p, g, pass);
        p->cx->pass = NULL;
        mpqc_arena_reset(&p->scratch);
        MPQC_TRY(status);
        *stopped = names(p->options->stop_after, pass->name) ||
                   (p->options->pass_limit && i + 1 >= p->options->pass_limit);
    }
    return MPQC_OK;
}
