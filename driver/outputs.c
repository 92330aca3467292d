/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Where results go, looked at before the long work begins: it would be a pity to find out
 * in the end that there is no such folder, or to write over the network.
 */
#include "driver/cli.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static struct mpqc_where at_file(const char *file)
{
    return (struct mpqc_where){.file = file, .offset = -1};
}

static bool same_file(const struct stat *a, const char *other)
{
    struct stat b;
    return other && stat(other, &b) == 0 && a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

/* A file that is there already. */
static mpqc_status check_existing(struct mpqc_cx *cx, const struct mpqc_cli *cli, const char *path,
                                  const struct stat *st)
{
    if (S_ISDIR(st->st_mode))
        return MPQC_FAIL(cx, IO, at_file(path), "cannot be written: it is a folder");
    bool input = same_file(st, cli->model);
    for (uint32_t i = 0; i < cli->n_calib; i++) input = input || same_file(st, cli->calib[i].path);
    for (uint32_t i = 0; i < cli->n_eval; i++) input = input || same_file(st, cli->eval[i].path);
    if (input)
        return MPQC_FAIL(cx, USAGE, at_file(path),
                         "this is an input, which would be written over; give another name");
    if (S_ISREG(st->st_mode) || access(path, W_OK) == 0) return MPQC_OK; /* files are replaced */
    return MPQC_FAIL(cx, IO, at_file(path), "cannot be written: %s", strerror(errno));
}

static mpqc_status check_folder(struct mpqc_cx *cx, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t length = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
    const char *folder = length ? mpqc_arena_printf(&cx->arena, "%.*s", (int)length, path) : ".";
    if (!folder) return MPQC_OOM(cx);
    if (access(folder, F_OK) != 0)
        return MPQC_FAIL(cx, IO, at_file(path), "cannot be written: there is no folder '%s'",
                         folder);
    if (access(folder, W_OK | X_OK) == 0) return MPQC_OK;
    return MPQC_FAIL(cx, IO, at_file(path), "cannot be written into '%s': %s", folder,
                     strerror(errno));
}

static mpqc_status check_path(struct mpqc_cx *cx, const struct mpqc_cli *cli, const char *path)
{
    struct stat st;
    if (!path || strcmp(path, "-") == 0) return MPQC_OK;
    bool there = stat(path, &st) == 0;
    if (there) MPQC_TRY(check_existing(cx, cli, path, &st));
    return there && !S_ISREG(st.st_mode) ? MPQC_OK : check_folder(cx, path);
}

mpqc_status mpqc_outputs_check(struct mpqc_cx *cx, const struct mpqc_cli *cli)
{
    const struct mpqc_mixed_options *m = &cli->mixed;
    if (cli->out && strcmp(cli->out, "-") == 0 && cli->emit != MPQC_OUT_IR)
        return MPQC_FAIL(cx, USAGE, MPQC_NOWHERE,
                         "-o - means standard output, which is for -emit=ir only; give a file");
    const char *const paths[] = {cli->out, cli->options.dump_profile, m->dump_config,
                                 m->dump_sensitivity, m->pareto, m->report};
    for (size_t i = 0; i < MPQC_LEN(paths); i++) {
        MPQC_TRY(check_path(cx, cli, paths[i]));
        for (size_t k = 0; k < i && paths[i] && strcmp(paths[i], "-"); k++)
            if (paths[k] && strcmp(paths[k], paths[i]) == 0)
                return MPQC_FAIL(cx, USAGE, at_file(paths[i]),
                                 "two results would go there; give each its own name");
    }
    return MPQC_OK;
}
