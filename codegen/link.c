/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Finished objects -> libraries.  lld runs as a child that gets the object as its standard input
 * and gives the library as its standard output, so that there is nothing on disk which could
 * stay behind.  Archives are written here, because an archive of one object is a few headers and
 * must not contain the date or a temporary name.
 */
#include "codegen/module.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- lld --------------------------------------------------------------------------------- */

/* A file without a name that holds these bytes, or -1 with errno. */
static int memory_file(const void *data, size_t n)
{
    int fd = memfd_create("mpqc", MFD_CLOEXEC);
    for (size_t done = 0; fd >= 0 && done < n;) {
        ssize_t w = pwrite(fd, (const char *)data + done, n - done, (off_t)done);
        if (w > 0) {
            done += (size_t)w;
        } else if (w == 0 || errno != EINTR) {
            int err = w ? errno : EIO;
            close(fd);
            errno = err;
            return -1;
        }
    }
    return fd;
}

/* Collects what the child writes and waits for it: its exit status, or SIGNALLED plus the
 * signal that ended it. */
enum { SIGNALLED = 256 };
static int collect(pid_t child, int fd, struct mpqc_buf *out)
{
    char part[65536];
    ssize_t n;
    while ((n = read(fd, part, sizeof part)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0) mpqc_buf_add(out, part, (size_t)n);
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : SIGNALLED + WTERMSIG(status);
}

/* Runs program (an absolute path, else looked up by name) from `in`, its messages to `said`;
 * exit status, or -errno. */
static int run_program(const char *program, char *const argv[], int in, int said,
                       struct mpqc_buf *out)
{
    int fds[2];
    pid_t child;
    posix_spawn_file_actions_t actions;
    if (pipe2(fds, O_CLOEXEC) != 0) return -errno;
    int err = posix_spawn_file_actions_init(&actions);
    if (err == 0) {
        err = posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
        if (err == 0) err = posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
        if (err == 0) err = posix_spawn_file_actions_adddup2(&actions, said, STDERR_FILENO);
        if (err == 0) err = posix_spawnp(&child, program, &actions, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    close(fds[1]);
    int status = err ? -err : collect(child, fds[0], out);
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

static int run_lld(int object, int said, struct mpqc_buf *library)
{
    static const char *const args[] = {
        /* no -soname: libraries are opened by path, and the same plan gives the same bytes
           under any name */
        "ld.lld", "-shared", "--build-id=none", "--hash-style=both", "-z", "relro", "-z", "now",
        "-z", "noexecstack", "-z", "defs", "--threads=1", "--no-dynamic-linker", "-o", "-",
        "/dev/stdin",
    };
    static const char *const program[] = {MPQC_LLD, "ld.lld-19", "ld.lld"};
    char *argv[MPQC_LEN(args) + 1] = {NULL};
    int status = -ENOENT;
    for (size_t i = 0; i < MPQC_LEN(args); i++) argv[i] = mutable_text(args[i]);
    for (size_t i = 0; i < MPQC_LEN(program) && status == -ENOENT; i++)
        status = run_program(program[i], argv, object, said, library);
    return status;
}

/* What became of it; of what lld said, the first line. */
static mpqc_status judge(struct mpqc_cx *cx, const char *path, int status, int said)
{
    struct mpqc_where where = {.file = path, .offset = -1};
    char text[1024];
    if (status == 0) return MPQC_OK;
    if (status == -ENOENT)
        return MPQC_FAIL(cx, IO, where,
                         "cannot link: ld.lld-19 is missing (Debian package lld-19)");
    if (status < 0)
        return MPQC_FAIL(cx, IO, where, "cannot run the linker: %s", strerror(-status));
    if (status > SIGNALLED)
        return MPQC_FAIL(cx, IO, where, "the linker was ended by signal %d", status - SIGNALLED);
    ssize_t n = pread(said, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return MPQC_FAIL(cx, IO, where, "the linker failed: %s", *text ? text : "no message");
}

mpqc_status mpqc_link_shared(struct mpqc_cx *cx, const char *path, const void *object, size_t n,
                             uint64_t *written)
{
    struct mpqc_buf library;
    mpqc_buf_init(&library);
    int in = memory_file(object, n), said = memory_file(NULL, 0);
    int status = in < 0 || said < 0 ? -errno : run_lld(in, said, &library);
    mpqc_status s = judge(cx, path, status, said);
    close(in);
    close(said);
    if (s == MPQC_OK)
        s = library.failed ? MPQC_OOM(cx)
                           : mpqc_file_write(cx, path, 0777, library.data, library.len);
    *written = library.len;
    mpqc_buf_release(&library);
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
    mpqc_status s = b.failed ? MPQC_OOM(cx) : mpqc_file_write(cx, path, 0666, b.data, b.len);
    *written = b.len;
    mpqc_buf_release(&b);
    return s;
}
