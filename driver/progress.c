/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One line on stderr that is rewritten in place, only on a terminal, only for
 * stages that take longer than a second.
 */
#include "driver/cli.h"

#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

/* The one line on the one terminal of the process: the only state of the program
 * that is not in a context. Guarded by `busy`, because workers report too. */
static struct {
    atomic_flag busy;
    const char *stage;
    double started, shown;
    bool visible;
} line = {.busy = ATOMIC_FLAG_INIT};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void erase(void)
{
    if (line.visible) fputs("\r\033[K", stderr);
    line.visible = false;
}

static void show(void *user, const char *stage, uint64_t done, uint64_t total)
{
    (void)user;
    if (atomic_flag_test_and_set(&line.busy)) return; /* another worker is printing */
    double t = now();
    if (!line.stage || strcmp(line.stage, stage) != 0) {
        erase();
        line.stage = stage;
        line.started = line.shown = t;
    }
    if (done >= total && total) {
        erase();
    } else if (t - line.started > 1.0 && t - line.shown > 0.1) {
        line.shown = t;
        line.visible = true;
        if (total)
            fprintf(stderr, "\r\033[Kmpqc: %s %llu/%llu", stage, (unsigned long long)done,
                    (unsigned long long)total);
        else
            fprintf(stderr, "\r\033[Kmpqc: %s", stage);
    }
    atomic_flag_clear(&line.busy);
}

void mpqc_progress_clear(void)
{
    erase();
    line.stage = NULL;
}

void mpqc_progress_install(struct mpqc_cx *cx)
{
    if (isatty(STDERR_FILENO)) cx->progress = show;
}
