/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 *     e2e_fuzz MPQC WORK N SEED
 *
 * Damages the bundled ONNX files at random and gives them to the whole program: N
 * times mpqc -check, and every tenth time a compilation.  mpqc must end by itself
 * within the time limit with exit status 0 or 1, say something when it is 1, and leave
 * no file behind then.  A file that makes it fail is kept.
 *
 * Half of the damage goes to the graph's structure rather than to weights, which are
 * most of the bytes: to places near printable names.
 */
#include "tests/e2e/support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS 30
#define MEMORY (4ull << 30) /* address space; not under sanitizers, which reserve terabytes */

#if defined __SANITIZE_ADDRESS__
#define SANITIZED 1
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const char *const names[] = {"resnet", "mobile", "autoencoder"};

struct original {
    uint8_t *bytes;
    size_t n;
    size_t *structure; /* offsets of bytes that belong to structure, roughly */
    size_t n_structure;
};

struct fuzz {
    const char *mpqc;
    char model[1024], said[1024], out[1024];
    uint64_t state;
    struct original originals[MPQC_LEN(names)];
    unsigned accepted, refused;
};

static size_t below(struct fuzz *f, size_t n)
{
    return n ? (size_t)(e2e_random(&f->state) % n) : 0;
}

/* Bytes up to 12 in front of a run of four letters or more: tags and lengths. */
static void find_structure(struct original *o)
{
    o->structure = e2e_malloc(o->n * sizeof *o->structure);
    size_t run = 0, last = 0;
    for (size_t i = 0; i < o->n; i++) {
        uint8_t c = o->bytes[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        run = letter ? run + 1 : 0;
        if (run < 4) continue;
        size_t from = i >= 16 ? i - 16 : 0;
        for (size_t k = from > last ? from : last; k <= i; k++) o->structure[o->n_structure++] = k;
        last = i + 1;
    }
}

static size_t place(struct fuzz *f, const struct original *o, size_t n)
{
    if (o->n_structure && below(f, 2)) {
        size_t at = o->structure[below(f, o->n_structure)];
        if (at < n) return at;
    }
    return below(f, n);
}

/* One change; the length may shrink or grow by what fits. */
static size_t damage(struct fuzz *f, const struct original *o, uint8_t *b, size_t n, size_t cap)
{
    static const uint8_t odd[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0x08, 0x0a, 0x12};
    size_t at = place(f, o, n), len = below(f, 64) + 1;
    if (n == 0) return n;
    switch (below(f, 8)) {
    case 0: b[at] = odd[below(f, sizeof odd)]; return n;
    case 1: b[at] = (uint8_t)below(f, 256); return n;
    case 2: /* a long number where a short one was */
        for (size_t i = at; i < n && i < at + 9; i++) b[i] |= 0x80;
        return n;
    case 3: return below(f, 4) ? n : at; /* cut off */
    case 4: /* leave out */
        if (at + len > n) len = n - at;
        memmove(b + at, b + at + len, n - at - len);
        return n - len;
    case 5: /* say twice */
        if (at + len > n) len = n - at;
        if (n + len > cap) return n;
        memmove(b + at + len, b + at, n - at);
        return n + len;
    default: b[at] ^= (uint8_t)(1u << below(f, 8)); return n;
    }
}

static void write_file(const char *path, const uint8_t *b, size_t n)
{
    FILE *out = fopen(path, "wb");
    CHECK(out && fwrite(b, 1, n, out) == n && fclose(out) == 0, "%s: %s", path, strerror(errno));
}

static void mutate(struct fuzz *f)
{
    const struct original *o = &f->originals[below(f, MPQC_LEN(names))];
    size_t cap = o->n + 4096, n = o->n;
    uint8_t *b = e2e_malloc(cap);
    memcpy(b, o->bytes, n);
    for (size_t i = below(f, 4) + 1; i > 0; i--) n = damage(f, o, b, n, cap);
    write_file(f->model, b, n);
    free(b);
}

static _Noreturn void become_mpqc(const struct fuzz *f, bool compile)
{
    int fd = open(f->said, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    struct rlimit memory = {MEMORY, MEMORY};
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0) _exit(99);
    if (!SANITIZED && setrlimit(RLIMIT_AS, &memory) != 0) _exit(99);
    /* what a sanitizer finds must not look like a diagnostic */
    setenv("ASAN_OPTIONS", "exitcode=98", 1);
    setenv("UBSAN_OPTIONS", "halt_on_error=1:exitcode=98:print_stacktrace=1", 1);
    alarm(SECONDS); /* survives exec; its signal kills */
    if (compile)
        execl(f->mpqc, "mpqc", f->model, "-calib=" TRAIN_IMAGES, "-calib-count=2", "-j", "1",
              "-verify-each", "-o", f->out, (char *)NULL);
    else
        execl(f->mpqc, "mpqc", "-check", f->model, (char *)NULL);
    _exit(99);
}

/* What is wrong with how it ended, or NULL. */
static const char *judge(struct fuzz *f, int status, bool compile)
{
    struct stat said, out;
    bool left = stat(f->out, &out) == 0;
    if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGALRM ? "it hangs" : "it crashes";
    int code = WEXITSTATUS(status);
    if (code == 0 && compile && !left) return "exit status 0, but no library";
    if (code == 0) {
        f->accepted++;
        return NULL;
    }
    if (code != 1) return "its exit status is neither 0 nor 1";
    if (stat(f->said, &said) != 0 || said.st_size == 0) return "it fails without a word";
    if (left) return "it fails and leaves a library";
    f->refused++;
    return NULL;
}

static void once(struct fuzz *f, unsigned i)
{
    bool compile = i % 10 == 9;
    int status;
    mutate(f);
    unlink(f->out);
    pid_t child = fork();
    CHECK(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) become_mpqc(f, compile);
    while (waitpid(child, &status, 0) < 0) CHECK(errno == EINTR, "waitpid: %s", strerror(errno));
    const char *problem = judge(f, status, compile);
    if (!problem) return;
    size_t n;
    char *said = (char *)e2e_read_file(f->said, &n);
    e2e_die(__FILE__, __LINE__, "mutation %u (%s): %s (wait status 0x%x); %s stays; it says:\n%.*s",
            i, compile ? "compile" : "check", problem, (unsigned)status, f->model,
            (int)(n < 3000 ? n : 3000), said);
}

int main(int argc, char **argv)
{
    CHECK(argc == 5, "usage: %s MPQC WORK N SEED", argv[0]);
    static struct fuzz f;
    f.mpqc = argv[1];
    f.state = strtoull(argv[4], NULL, 10);
    unsigned n = (unsigned)strtoul(argv[3], NULL, 10);
    e2e_make_folder(argv[2]);
    snprintf(f.model, sizeof f.model, "%s/model-%s.onnx", argv[2], argv[4]);
    snprintf(f.said, sizeof f.said, "%s/said-%s", argv[2], argv[4]);
    snprintf(f.out, sizeof f.out, "%s/out-%s.so", argv[2], argv[4]);
    for (size_t i = 0; i < MPQC_LEN(names); i++) {
        struct e2e_network net = e2e_network_find(names[i]);
        f.originals[i].bytes = e2e_read_file(net.path, &f.originals[i].n);
        find_structure(&f.originals[i]);
    }
    for (unsigned i = 0; i < n; i++) once(&f, i);
    printf("%u mutations: %u accepted, %u refused\n", n, f.accepted, f.refused);
    CHECK(f.refused > 0, "nothing was refused: the damage does not arrive");
    for (size_t i = 0; i < MPQC_LEN(names); i++) {
        free(f.originals[i].bytes);
        free(f.originals[i].structure);
    }
    return 0;
}
