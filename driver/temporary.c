/* SPDX-License-Identifier: MIT */
#include "driver/temporary.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a signal handler must know it can find nowhere else.  Handlers take from it without the
 * lock: who exchanges an entry for NULL owns its text. */
static struct {
    pthread_mutex_t lock;
    _Atomic(char *) path[MPQC_TEMPORARY_MAX];
} list = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- removing, by what a signal handler may call ---- */

static void remove_files_of(int folder)
{
    _Alignas(struct dirent64) char entries[4096];
    ssize_t n;
    while ((n = getdents64(folder, entries, sizeof entries)) > 0)
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *e = (const struct dirent64 *)(entries + at);
            unlinkat(folder, e->d_name, 0); /* fails for "." and ".." */
            at += e->d_reclen;
        }
}

static void remove_path(const char *path)
{
    if (unlink(path) == 0) return;
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) return;
    remove_files_of(folder);
    close(folder);
    rmdir(path);
}

/* A signal may have come in the middle of malloc: then texts are not freed. */
static void remove_all(bool may_free)
{
    for (int i = 0; i < MPQC_TEMPORARY_MAX; i++) {
        char *path = atomic_exchange(&list.path[i], NULL);
        if (path) remove_path(path);
        if (may_free) free(path);
    }
}

static void on_exit_of_program(void)
{
    remove_all(true);
}

/* The signal's own action, which ends the program, follows when this returns. */
static void on_signal(int sig)
{
    remove_all(false);
    raise(sig);
}

void mpqc_temporary_guard(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction old, new = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
        sigfillset(&new.sa_mask);
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(signals[i], &new, NULL);
    }
    (void)atexit(on_exit_of_program);
}

/* ---- the list ---- */

static void add(const char *path)
{
    char *copy = strdup(path), *none = NULL;
    for (int i = 0; copy && i < MPQC_TEMPORARY_MAX; i++, none = NULL)
        if (atomic_compare_exchange_strong(&list.path[i], &none, copy)) return;
    free(copy);
}

static void take(const char *path)
{
    for (int i = 0; i < MPQC_TEMPORARY_MAX; i++) {
        char *have = list.path[i];
        if (!have || strcmp(have, path) != 0) continue;
        free(atomic_exchange(&list.path[i], NULL));
        return;
    }
}

void mpqc_temporary(const char *path, bool begins)
{
    pthread_mutex_lock(&list.lock);
    if (begins) add(path);
    else take(path);
    pthread_mutex_unlock(&list.lock);
}

bool mpqc_temporary_folder(char *path)
{
    const char *tmp = getenv("TMPDIR");
    static const char name[] = "/mpqc.XXXXXX";
    bool fits = tmp && strlen(tmp) + sizeof name <= MPQC_TEMPORARY_PATH;
    snprintf(path, MPQC_TEMPORARY_PATH, "%s%s", fits ? tmp : "/tmp", name);
    if (!mkdtemp(path)) return false;
    mpqc_temporary(path, true);
    return true;
}

void mpqc_temporary_remove(const char *path)
{
    remove_path(path);
    mpqc_temporary(path, false);
}
