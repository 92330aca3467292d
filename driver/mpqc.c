/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mpqc: ONNX network in, integer-only library out.
 */
#include "driver/cli.h"

static void list_passes(void)
{
    for (uint32_t i = 0; i < mpqc_n_passes; i++)
        printf("  %-12s %s\n", mpqc_passes[i].name, mpqc_passes[i].doc);
}

static void list_targets(void)
{
    for (unsigned i = 0; mpqc_target_name(i); i++)
        printf("  %-22s %s\n", mpqc_target_name(i), mpqc_target_doc(i));
}

static void list_ops(void)
{
    struct mpqc_buf text;
    mpqc_buf_init(&text);
    mpqc_list_onnx_ops(&text);
    if (text.data) fputs(text.data, stdout);
    mpqc_buf_release(&text);
}

static void list_metrics(void)
{
    puts("-sensitivity=");
    for (uint32_t i = 0; i < mpqc_n_metrics; i++)
        printf("  %-16s %s%s\n", mpqc_metrics[i].name, mpqc_metrics[i].doc,
               i ? "" : " (default)");
    puts("-mixed=");
    for (uint32_t i = 0; i < mpqc_n_strategies; i++)
        printf("  %-16s %s\n", mpqc_strategies[i].name, mpqc_strategies[i].doc);
}

/* Flags that print something and end. */
static bool informed(const struct mpqc_cli *cli)
{
    if (cli->help) mpqc_cli_help();
    else if (cli->version) puts("mpqc " MPQC_VERSION);
    else if (cli->list_ops) list_ops();
    else if (cli->list_passes) list_passes();
    else if (cli->list_targets) list_targets();
    else if (cli->list_metrics) list_metrics();
    else return false;
    return true;
}

static void print_diags(const struct mpqc_cx *cx)
{
    mpqc_progress_clear();
    uint32_t hidden = 0;
    for (uint32_t i = 0; i < cx->n_diags; i++) mpqc_diag_print(&cx->diags[i], stderr);
    for (uint32_t i = 0; i < cx->n_diags; i++) hidden += cx->diags[i].severity == MPQC_ERROR;
    if (cx->n_errors > hidden)
        fprintf(stderr, "mpqc: and %u more errors\n", cx->n_errors - hidden);
}

int main(int argc, char **argv)
{
    struct mpqc_cli *cli = calloc(1, sizeof *cli);
    struct mpqc_cx *cx = calloc(1, sizeof *cx);
    char err[MPQC_FLAG_ERROR];
    int rc = 1;
    if (!cli || !cx) {
        fputs("mpqc: error: out of memory\n", stderr);
    } else if (mpqc_cli_parse(argc, argv, cli, err)) {
        fprintf(stderr, "mpqc: error: %s\n", err);
    } else if (informed(cli)) {
        rc = 0;
    } else if (!cli->model) {
        fputs("mpqc: error: no network given; usage: mpqc MODEL.onnx -calib=DATA -o OUT "
              "(-help lists the flags)\n",
              stderr);
    } else {
        mpqc_cx_init(cx, &mpqc_malloc_allocator);
        cx->threads = cli->threads;
        cx->seed = cli->seed;
        cx->verbose = cli->verbose;
        mpqc_progress_install(cx);
        cx->temporary = mpqc_temporary;
        mpqc_temporary_guard();
        mpqc_status status = cli->check ? mpqc_check(cx, cli) : mpqc_compile(cx, cli);
        print_diags(cx);
        rc = status == MPQC_OK ? 0 : 1;
        mpqc_cx_release(cx);
    }
    free(cx);
    free(cli);
    /* A full disk shows only when the buffer is written. */
    if (fflush(stdout) != 0 && rc == 0) {
        fputs("mpqc: error: standard output cannot be written\n", stderr);
        rc = 1;
    }
    return rc;
}
