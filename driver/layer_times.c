/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "driver/layer_times.h"

#include "codegen/target.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOTAL_MACS 4e9         /* about so many are computed in one run of the command */
#define MIN_REPEAT 20
#define MAX_REPEAT 3000
#define MAX_OUTPUT (16u << 20) /* bytes of one program's answer */

static struct mpqc_where at_command(const char *command)
{
    return (struct mpqc_where){.file = command, .offset = -1};
}

/* The program of that name beside this one, in cx's arena. */
static char *beside(struct mpqc_cx *cx, const char *name)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return NULL;
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (!slash) return NULL;
    *slash = '\0';
    return mpqc_arena_printf(&cx->arena, "%s/%s", self, name);
}

mpqc_status mpqc_times_command(struct mpqc_cx *cx, const char *how, double macs,
                               const char *otherwise, const char **command)
{
    if (!how) how = "local";
    if (strncmp(how, "cmd:", 4) == 0) {
        *command = how + 4;
        return MPQC_OK;
    }
    bool qemu = strcmp(how, "qemu") == 0;
    char *program = beside(cx, qemu ? "mpqc-run-aarch64" : "mpqc-run");
    if (!program || access(program, X_OK) != 0)
        return MPQC_FAIL(cx, TARGET, MPQC_NOWHERE,
                         "-measure=%s needs the program %s beside mpqc; give -measure=cmd:COMMAND, or "
                         "%s",
                         how, qemu ? "mpqc-run-aarch64" : "mpqc-run", otherwise);
    double repeat = TOTAL_MACS / (macs + 1);
    repeat = repeat < MIN_REPEAT ? MIN_REPEAT : repeat > MAX_REPEAT ? MAX_REPEAT : repeat;
    if (qemu) repeat = 1; /* what it emulates does not vary */
    *command = mpqc_arena_printf(&cx->arena, "%s'%s' -profile -json -threads=1 -repeat=%d",
                                 qemu ? "qemu-aarch64 -L /usr/aarch64-linux-gnu " : "", program,
                                 (int)repeat);
    return *command ? MPQC_OK : MPQC_OOM(cx);
}

mpqc_status mpqc_times_possible(struct mpqc_cx *cx, const char *how, const struct mpqc_target *t,
                                const char *flag, const char *otherwise)
{
    if (how && strncmp(how, "cmd:", 4) == 0) return MPQC_OK;
    bool qemu = how && strcmp(how, "qemu") == 0;
    if (qemu ? t->arch == MPQC_ARCH_AARCH64 : mpqc_target_on_host(mpqc_target_row(t)))
        return MPQC_OK;
    return MPQC_FAIL(cx, TARGET, MPQC_NOWHERE,
                     "%s measures %s, which cannot run code for %s; give -measure=cmd:COMMAND that "
                     "runs a library there, or %s",
                     flag, qemu ? "under qemu-aarch64" : "on this machine", t->name, otherwise);
}

/* The program's answer, NUL-terminated, for the caller to free. */
static mpqc_status answer_of(struct mpqc_cx *cx, const char *command, const char *otherwise,
                             const char *library, char **out)
{
    char *line = mpqc_arena_printf(&cx->arena, "%s '%s'", command, library);
    struct mpqc_buf text;
    char piece[4096];
    size_t n;
    if (!line) return MPQC_OOM(cx);
    FILE *f = popen(line, "r");
    if (!f)
        return MPQC_FAIL(cx, IO, at_command(command), "cannot be started: %s", strerror(errno));
    mpqc_buf_init(&text);
    while (text.len < MAX_OUTPUT && (n = fread(piece, 1, sizeof piece, f)) > 0)
        mpqc_buf_add(&text, piece, n);
    int status = pclose(f);
    *out = text.data;
    if (status == 0 && text.data && !text.failed) return MPQC_OK;
    mpqc_buf_release(&text);
    return MPQC_FAIL(cx, TARGET, at_command(command),
                     "the latency command failed with status %d, so nothing could be measured; mend it, "
                     "or give %s",
                     status < 0 ? status : status >> 8 ? status >> 8 : status, otherwise);
}

/* Takes the next "min_ns" of the layers in the answer of mpqc-run -profile -json. */
static bool next_ns(const char **at, double *ns)
{
    static const char key[] = "\"min_ns\": ";
    const char *p = strstr(*at, key);
    char *end;
    if (!p) return false;
    *ns = strtod(p + sizeof key - 1, &end);
    if (end == p + sizeof key - 1 || !(*ns >= 0)) return false;
    *at = end;
    return true;
}

static mpqc_status read_answer(struct mpqc_cx *cx, const char *command, const char *answer,
                               uint32_t n_layers, double *ns)
{
    const char *at = strstr(answer, "\"layers\"");
    double layer = 0;
    uint32_t i = 0;
    for (; at && i < n_layers && next_ns(&at, &layer); i++)
        if (layer < ns[i]) ns[i] = layer;
    if (at && i == n_layers && !next_ns(&at, &layer)) return MPQC_OK;
    return MPQC_FAIL(cx, DATA, at_command(command),
                     "the answer is not that of 'mpqc-run LIBRARY -profile -json' for a network of %u "
                     "layers",
                     n_layers);
}

/* Children inherit the processor, so a run has the same caches from begin to end. */
mpqc_status mpqc_times_measure(struct mpqc_cx *cx, const char *command, const char *otherwise,
                               const char *library, uint32_t n_layers, double *ns)
{
    cpu_set_t old, one;
    bool pinned = sched_getaffinity(0, sizeof old, &old) == 0;
    int cpu = sched_getcpu();
    char *answer = NULL;
    CPU_ZERO(&one);
    if (pinned && cpu >= 0) {
        CPU_SET(cpu, &one);
        pinned = sched_setaffinity(0, sizeof one, &one) == 0;
    }
    mpqc_status status = answer_of(cx, command, otherwise, library, &answer);
    if (pinned) (void)sched_setaffinity(0, sizeof old, &old);
    if (status != MPQC_OK) return status;
    status = read_answer(cx, command, answer, n_layers, ns);
    free(answer);
    return status;
}
