/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Finished bytes -> the file that the user asked for.  Files are written beside their
 * final name and renamed, so there is never a partial output; a path that exists and
 * is no regular file (a device, a pipe) is written directly instead.  Linking runs
 * lld as a child; archives are written here, because an archive of one object is a
 * few headers and must not contain the date or a temporary name.
 */
#include "codegen/module.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static mpqc_status io_error(struct mpqc_cx *cx, const char *path, int err)
{
    struct mpqc_where where = {.file = path, .offset = -1};
    return MPQC_FAIL(cx, IO, where, "cannot write the output: %s", strerror(err));
}

/* 0 or errno. */
static int write_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t w = write(fd, data, n);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return errno;
        data += w;
        n -= (size_t)w;
    }
    return 0;
}

/* Creates or overwrites; removes what it created when it cannot finish. */
static int write_new(const char *path, const void *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return errno;
    int err = write_all(fd, data, n);
    if (close(fd) != 0 && err == 0) err = errno;
    if (err != 0) unlink(path);
    return err;
}

static int write_existing(const char *path, const void *data, size_t n)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    int err = write_all(fd, data, n);
    if (close(fd) != 0 && err == 0) err = errno;
    return err;
}

static bool is_special(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

/* PATH.tmp.PID SUFFIX; malloc'ed. */
static char *temporary(const char *path, const char *suffix)
{
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    mpqc_buf_printf(&b, "%s.tmp.%ld%s", path, (long)getpid(), suffix);
    if (!b.failed) return b.data;
    mpqc_buf_release(&b);
    return NULL;
}

mpqc_status mpqc_write_file(struct mpqc_cx *cx, const char *path, const void *data, size_t n)
{
    int err;
    if (is_special(path)) {
        err = write_existing(path, data, n);
        return err ? io_error(cx, path, err) : MPQC_OK;
    }
    char *tmp = temporary(path, "");
    if (!tmp) return MPQC_OOM(cx);
    err = write_new(tmp, data, n);
    if (err == 0 && rename(tmp, path) != 0) {
        err = errno;
        unlink(tmp);
    }
    free(tmp);
    return err ? io_error(cx, path, err) : MPQC_OK;
}

/* ---- lld --------------------------------------------------------------------------------- */

/* Collects what the child says (at most 4 KiB) and waits for it: its exit status, or
 * SIGNALLED plus the signal that ended it. */
enum { SIGNALLED = 256 };
static int collect(pid_t child, int fd, struct mpqc_buf *said)
{
    char part[512];
    ssize_t n;
    while ((n = read(fd, part, sizeof part)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0 && said->len < 4096) mpqc_buf_add(said, part, (size_t)n);
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : SIGNALLED + WTERMSIG(status);
}

/* Runs program (an absolute path, else looked up by name); exit status, or -errno. */
static int run_program(const char *program, char *const argv[], struct mpqc_buf *said)
{
    int fds[2];
    pid_t child;
    posix_spawn_file_actions_t actions;
    if (pipe2(fds, O_CLOEXEC) != 0) return -errno;
    int err = posix_spawn_file_actions_init(&actions);
    if (err == 0) {
        err = posix_spawn_file_actions_adddup2(&actions, fds[1], 2);
        if (err == 0) err = posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
        if (err == 0) err = posix_spawnp(&child, program, &actions, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    close(fds[1]);
    int status = err ? -err : collect(child, fds[0], said);
    close(fds[0]);
    return status;
}

/* spawn wants mutable strings. */
static char *mutable_text(const char *s)
{
    union {
        const char *in;
        char *out;
    } u = {.in = s};
    return u.out;
}

/* First line of what lld said, without its own name in front. */
static void first_line(struct mpqc_buf *said)
{
    if (!said->data) return;
    char *end = strchr(said->data, '\n');
    if (end) *end = '\0';
}

static mpqc_status run_lld(struct mpqc_cx *cx, const char *path, const char *object,
                           const char *to)
{
    const char *args[] = {
        /* no -soname: libraries are opened by path, and the same plan gives the same bytes
           under any name */
        "ld.lld", "-shared", "--build-id=none", "--hash-style=both", "-z", "relro", "-z", "now",
        "-z", "noexecstack", "-z", "defs", "--threads=1", "--no-dynamic-linker", "-o", to, object,
    };
    char *argv[MPQC_LEN(args) + 1] = {NULL};
    const char *program[] = {MPQC_LLD, "ld.lld-19", "ld.lld"};
    struct mpqc_where where = {.file = path, .offset = -1};
    struct mpqc_buf said;
    int status = -ENOENT;
    mpqc_buf_init(&said);
    for (size_t i = 0; i < MPQC_LEN(args); i++) argv[i] = mutable_text(args[i]);
    for (size_t i = 0; i < MPQC_LEN(program) && status == -ENOENT; i++)
        status = run_program(program[i], argv, &said);
    first_line(&said);
    mpqc_status s = MPQC_OK;
    if (status == -ENOENT)
        s = MPQC_FAIL(cx, IO, where, "cannot link: ld.lld-19 is missing (Debian package lld-19)");
    else if (status < 0)
        s = MPQC_FAIL(cx, IO, where, "cannot run the linker: %s", strerror(-status));
    else if (status == SIGNALLED + SIGBUS) /* it writes by mmap */
        s = io_error(cx, path, ENOSPC);
    else if (status > SIGNALLED)
        s = MPQC_FAIL(cx, IO, where, "the linker was ended by signal %d", status - SIGNALLED);
    else if (status > 0)
        s = MPQC_FAIL(cx, IO, where, "the linker failed: %s", said.data ? said.data : "no message");
    mpqc_buf_release(&said);
    return s;
}

static mpqc_status read_back(struct mpqc_cx *cx, const char *path, struct mpqc_buf *out)
{
    char part[65536];
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return io_error(cx, path, errno);
    while ((n = read(fd, part, sizeof part)) > 0) mpqc_buf_add(out, part, (size_t)n);
    close(fd);
    return out->failed ? MPQC_OOM(cx) : n < 0 ? io_error(cx, path, EIO) : MPQC_OK;
}

/* Puts the linked file at its place: by rename, or by copying into what is there. */
static mpqc_status deliver(struct mpqc_cx *cx, const char *tmp, const char *path,
                           uint64_t *written)
{
    struct stat st;
    if (stat(tmp, &st) != 0) return io_error(cx, path, errno);
    *written = (uint64_t)st.st_size;
    if (!is_special(path))
        return rename(tmp, path) == 0 ? MPQC_OK : io_error(cx, path, errno);
    struct mpqc_buf bytes;
    mpqc_buf_init(&bytes);
    mpqc_status s = read_back(cx, tmp, &bytes);
    if (s == MPQC_OK) s = mpqc_write_file(cx, path, bytes.data, bytes.len);
    mpqc_buf_release(&bytes);
    return s;
}

mpqc_status mpqc_link_shared(struct mpqc_cx *cx, const char *path, const void *object, size_t n,
                             uint64_t *written)
{
    /* a device has no room beside it for temporary files */
    const char *beside = is_special(path) ? "/tmp/mpqc" : path;
    char *in = temporary(beside, ".o"), *out = temporary(beside, ".so");
    mpqc_status s = in && out ? MPQC_OK : MPQC_OOM(cx);
    if (s == MPQC_OK) {
        int err = write_new(in, object, n);
        s = err ? io_error(cx, path, err) : run_lld(cx, path, in, out);
        if (s == MPQC_OK) s = deliver(cx, out, path, written);
        unlink(in);
        unlink(out);
    }
    free(in);
    free(out);
    return s;
}

/* ---- archive ------------------------------------------------------------------------------- */

/* One 60-byte member header of the common ar format, dates and owners zero. */
static void member(struct mpqc_buf *b, const char *name, size_t size)
{
    mpqc_buf_printf(b, "%-16s%-12d%-6d%-6d%-8s%-10zu`\n", name, 0, 0, 0, "644", size);
}

static void big_endian(struct mpqc_buf *b, uint32_t v)
{
    unsigned char c[] = {(unsigned char)(v >> 24), (unsigned char)(v >> 16),
                         (unsigned char)(v >> 8), (unsigned char)v};
    mpqc_buf_add(b, c, sizeof c);
}

mpqc_status mpqc_link_archive(struct mpqc_cx *cx, const char *path, const char *symbol,
                              const void *object, size_t n, uint64_t *written)
{
    struct mpqc_buf b;
    size_t index = 4 + 4 + strlen(symbol) + 1, padded = index + index % 2;
    mpqc_buf_init(&b);
    mpqc_buf_puts(&b, "!<arch>\n");
    member(&b, "/", index); /* GNU symbol index: count, offsets, names */
    big_endian(&b, 1);
    big_endian(&b, (uint32_t)(8 + 60 + padded));
    mpqc_buf_add(&b, symbol, strlen(symbol) + 1);
    if (index % 2) mpqc_buf_puts(&b, "\n");
    member(&b, "model.o/", n);
    mpqc_buf_add(&b, object, n);
    if (n % 2) mpqc_buf_puts(&b, "\n");
    mpqc_status s = b.failed ? MPQC_OOM(cx) : mpqc_write_file(cx, path, b.data, b.len);
    *written = b.len;
    mpqc_buf_release(&b);
    return s;
}
