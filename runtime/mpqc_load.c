/* SPDX-License-Identifier: MIT */
#include "mpqc_load.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#else
#define OWN_MACHINE 0
#endif

static int fail(char *error, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(char *error, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(error, MPQC_LOAD_ERROR, fmt, args);
    va_end(args);
    return -1;
}

static const char *machine_name(unsigned machine)
{
    return machine == EM_X86_64 ? "x86-64" : machine == EM_AARCH64 ? "aarch64" : "another CPU";
}

/* Does all that is to be mapped lie within the file?  Touching what does not would end the
 * process. */
static int is_whole(int fd, const Elf64_Ehdr *h)
{
    struct stat st;
    Elf64_Phdr p;
    if (fstat(fd, &st) != 0 || h->e_phentsize != sizeof p) return 0;
    for (unsigned i = 0; i < h->e_phnum; i++) {
        uint64_t at = h->e_phoff + (uint64_t)i * sizeof p, end;
        if (pread(fd, &p, sizeof p, (off_t)at) != (ssize_t)sizeof p) return 0;
        if (__builtin_add_overflow(p.p_offset, p.p_filesz, &end) || end > (uint64_t)st.st_size)
            return 0;
    }
    return 1;
}

static int check_header(int fd, const char *path, char *error)
{
    Elf64_Ehdr h;
    ssize_t got = read(fd, &h, sizeof h);
    if (got < 0) return fail(error, "%s: cannot be read: %s", path, strerror(errno));
    if (got != (ssize_t)sizeof h || memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 ||
        h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_type != ET_DYN)
        return fail(error, "%s: not a shared library; compile one with mpqc MODEL.onnx "
                           "-calib=DATA -o MODEL.so", path);
    if (OWN_MACHINE && h.e_machine != OWN_MACHINE)
        return fail(error, "%s: compiled for %s, but this program runs on %s", path,
                    machine_name(h.e_machine), machine_name(OWN_MACHINE));
    if (!is_whole(fd, &h)) return fail(error, "%s: the file is truncated; copy it again", path);
    return 0;
}

/* dlopen's own words about a wrong file are hard to understand. */
static int check_elf(const char *path, char *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(error, "%s: cannot be opened: %s", path, strerror(errno));
    int rc = check_header(fd, path, error);
    close(fd);
    return rc;
}

static int check_io(const struct mpqc_io *io)
{
    uint64_t bytes = mpqc_element_size(io->element);
    if (!io->name || bytes == 0 || io->rank > MPQC_ABI_MAX_RANK) return -1;
    for (uint32_t i = 0; i < io->rank; i++)
        if (io->dims[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)io->dims[i], &bytes))
            return -1;
    return bytes == io->bytes ? 0 : -1;
}

int mpqc_model_check(const struct mpqc_model *m, const char *path, char *error)
{
    if (m->abi_version != MPQC_ABI_VERSION)
        return fail(error, "%s: has ABI version %u, but this program knows version %u; compile "
                           "the network again",
                    path, m->abi_version, MPQC_ABI_VERSION);
    if (m->struct_size < sizeof *m)
        return fail(error, "%s: the descriptor is %u bytes, at least %zu are expected", path,
                    m->struct_size, sizeof *m);
    uint64_t align = m->workspace_align;
    int ok = m->name && m->target && m->compiler && m->run && m->supported && align > 0 &&
             (align & (align - 1)) == 0 && (m->n_inputs == 0 || m->inputs) &&
             m->n_outputs > 0 && m->outputs && (m->n_layers == 0 || m->layers);
    for (uint32_t i = 0; ok && i < m->n_inputs; i++) ok = check_io(&m->inputs[i]) == 0;
    for (uint32_t i = 0; ok && i < m->n_outputs; i++) ok = check_io(&m->outputs[i]) == 0;
    for (uint32_t i = 0; ok && i < m->n_layers; i++) ok = m->layers[i].name && m->layers[i].op;
    return ok ? 0 : fail(error, "%s: the model's descriptor is damaged", path);
}

static int find_model(const char *path, const char *tag, struct mpqc_loaded *out, char *error)
{
    char symbol[256];
    int n = snprintf(symbol, sizeof symbol, "mpqc_model%s%s", tag && *tag ? "_" : "",
                     tag ? tag : "");
    if (n < 0 || (size_t)n >= sizeof symbol) return fail(error, "the tag is too long");
    out->model = dlsym(out->handle, symbol);
    if (out->model) return mpqc_model_check(out->model, path, error);
    return fail(error, "%s: has no model called '%s'; %s", path, symbol,
                tag && *tag ? "was it compiled with the same -tag?"
                            : "if it was compiled with -tag=NAME, give -tag=NAME here too");
}

int mpqc_load_open(const char *path, const char *tag, struct mpqc_loaded *out, char *error)
{
    *out = (struct mpqc_loaded){NULL, NULL};
    if (check_elf(path, error)) return -1;
    /* Without a slash dlopen would search the system's folders. */
    size_t room = strlen(path) + 3;
    char *local = malloc(room);
    if (!local) return fail(error, "out of memory");
    snprintf(local, room, "%s%s", strchr(path, '/') ? "" : "./", path);
    out->handle = dlopen(local, RTLD_NOW | RTLD_LOCAL);
    free(local);
    if (!out->handle) return fail(error, "cannot be loaded: %s", dlerror());
    if (find_model(path, tag, out, error) == 0) return 0;
    mpqc_load_close(out);
    return -1;
}

void mpqc_load_close(struct mpqc_loaded *loaded)
{
    if (loaded->handle) dlclose(loaded->handle);
    *loaded = (struct mpqc_loaded){NULL, NULL};
}

int mpqc_load_supported(const struct mpqc_loaded *loaded, const char *path, char *error)
{
    if (loaded->model->supported()) return 0;
    return fail(error, "%s: compiled for %s, which this CPU does not support; compile the network "
                       "with another -mcpu",
                path, loaded->model->target);
}

void *mpqc_workspace_alloc(const struct mpqc_model *m)
{
    void *p;
    size_t align = m->workspace_align < sizeof(void *) ? sizeof(void *)
                                                       : (size_t)m->workspace_align;
    size_t size = m->workspace_size ? (size_t)m->workspace_size : align;
    return posix_memalign(&p, align, size) == 0 ? p : NULL;
}

const char *mpqc_run_status_text(int status)
{
    switch (status) {
    case MPQC_RUN_OK: return "ran";
    case MPQC_RUN_NULL_POINTER: return "an input, an output or the workspace is NULL";
    case MPQC_RUN_MISALIGNED_WORKSPACE: return "the workspace is not aligned as the model wants";
    default: return "unknown status";
    }
}

static const struct {
    const char *name;
    uint32_t size;
} elements[] = {[0] = {"unknown", 0},       [MPQC_ELEM_F32] = {"f32", 4},
                [MPQC_ELEM_U8] = {"u8", 1}, [MPQC_ELEM_I8] = {"i8", 1},
                [MPQC_ELEM_I16] = {"i16", 2}, [MPQC_ELEM_I32] = {"i32", 4},
                [MPQC_ELEM_I64] = {"i64", 8}};

uint32_t mpqc_element_size(uint32_t element)
{
    return element <= MPQC_ELEM_I64 ? elements[element].size : 0;
}

const char *mpqc_element_name(uint32_t element)
{
    return elements[element <= MPQC_ELEM_I64 ? element : 0].name;
}
