/* SPDX-License-Identifier: MIT
 *
 * Opening sample files: what kind of file, mapping, ownership.
 */
#include "driver/data_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Names in npz files and tensors come from outside: this many bytes are enough. */
#define MAX_ARRAYS 1024

int mpqc_data_fail(struct mpqc_data_error *err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    return -1;
}

int mpqc_data_oom(struct mpqc_data_error *err)
{
    return mpqc_data_fail(err, "out of memory while reading samples");
}

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [MPQC_DATA_F32] = {"f32", 4}, [MPQC_DATA_F64] = {"f64", 8}, [MPQC_DATA_F16] = {"f16", 2},
    [MPQC_DATA_U8] = {"u8", 1},   [MPQC_DATA_I8] = {"i8", 1},   [MPQC_DATA_U16] = {"u16", 2},
    [MPQC_DATA_I16] = {"i16", 2}, [MPQC_DATA_I32] = {"i32", 4}, [MPQC_DATA_U32] = {"u32", 4},
    [MPQC_DATA_I64] = {"i64", 8}, [MPQC_DATA_BOOL] = {"bool", 1}};

size_t mpqc_data_type_size(enum mpqc_data_type type)
{
    return types[type].size;
}

const char *mpqc_data_type_name(enum mpqc_data_type type)
{
    return types[type].name;
}

int mpqc_data_bytes(enum mpqc_data_type type, uint32_t rank, const int64_t *dims, size_t *out)
{
    size_t bytes = types[type].size;
    int empty = 0;
    for (uint32_t i = 0; i < rank; i++) {
        if (dims[i] < 0) return -1;
        if (dims[i] == 0) empty = 1;
        else if (__builtin_mul_overflow(bytes, (size_t)dims[i], &bytes)) return -1;
    }
    *out = empty ? 0 : bytes;
    return bytes > PTRDIFF_MAX ? -1 : 0;
}

const char *mpqc_shape_text(char *to, uint32_t rank, const int64_t *dims)
{
    size_t at = 0;
    to[at++] = '[';
    for (uint32_t i = 0; i < rank && at < MPQC_SHAPE_TEXT - 24; i++)
        at += (size_t)snprintf(to + at, MPQC_SHAPE_TEXT - at, "%s%lld", i ? "," : "",
                               (long long)dims[i]);
    to[at++] = ']';
    to[at] = '\0';
    return to;
}

/* ---- ownership ---- */

int mpqc_data_own(struct mpqc_data *d, void *memory, size_t size, int mapped,
                  struct mpqc_data_error *err)
{
    struct mpqc_data_block *blocks =
        realloc(d->blocks, ((size_t)d->n_blocks + 1) * sizeof *blocks);
    if (!blocks) {
        if (mapped) munmap(memory, size);
        else free(memory);
        return mpqc_data_oom(err);
    }
    d->blocks = blocks;
    d->blocks[d->n_blocks++] = (struct mpqc_data_block){memory, size, mapped};
    return 0;
}

void *mpqc_data_alloc(struct mpqc_data *d, size_t size, struct mpqc_data_error *err)
{
    void *p = malloc(size ? size : 1);
    if (!p) {
        mpqc_data_oom(err);
        return NULL;
    }
    return mpqc_data_own(d, p, size, 0, err) == 0 ? p : NULL;
}

int mpqc_data_add(struct mpqc_data *d, const struct mpqc_array *a, const char *path,
                  struct mpqc_data_error *err)
{
    for (uint32_t i = 0; a->name && i < d->n_arrays; i++)
        if (d->arrays[i].name && strcmp(d->arrays[i].name, a->name) == 0)
            return mpqc_data_fail(err, "%s: two arrays are called '%s'", path, a->name);
    if (d->n_arrays >= MAX_ARRAYS)
        return mpqc_data_fail(err, "%s: more than %d arrays", path, MAX_ARRAYS);
    struct mpqc_array *arrays = realloc(d->arrays, ((size_t)d->n_arrays + 1) * sizeof *arrays);
    if (!arrays) return mpqc_data_oom(err);
    d->arrays = arrays;
    struct mpqc_array copy = *a;
    if (mpqc_data_bytes(a->type, a->rank, a->dims, &copy.bytes))
        return mpqc_data_fail(err, "%s: the array is too large", path);
    if (a->name && !(copy.name = strdup(a->name))) return mpqc_data_oom(err);
    arrays[d->n_arrays++] = copy;
    return 0;
}

void mpqc_data_close(struct mpqc_data *d)
{
    if (!d) return;
    for (uint32_t i = 0; i < d->n_arrays; i++) free(d->arrays[i].name);
    for (uint32_t i = 0; i < d->n_blocks; i++) {
        if (d->blocks[i].mapped) munmap(d->blocks[i].memory, d->blocks[i].size);
        else free(d->blocks[i].memory);
    }
    free(d->arrays);
    free(d->blocks);
    free(d);
}

const struct mpqc_array *mpqc_data_array(const struct mpqc_data *d, const char *name)
{
    for (uint32_t i = 0; name && i < d->n_arrays; i++)
        if (d->arrays[i].name && strcmp(d->arrays[i].name, name) == 0) return &d->arrays[i];
    return d->n_arrays == 1 ? &d->arrays[0] : NULL;
}

uint32_t mpqc_data_count(const struct mpqc_data *d)
{
    return d->n_arrays;
}

const struct mpqc_array *mpqc_data_at(const struct mpqc_data *d, uint32_t i)
{
    return i < d->n_arrays ? &d->arrays[i] : NULL;
}

/* ---- files ---- */

/* What cannot be mapped (a pipe) is read to its end. */
static int read_stream(struct mpqc_data *d, int fd, struct mpqc_data_file *f,
                       struct mpqc_data_error *err)
{
    uint8_t *buffer = NULL;
    size_t size = 0, room = 0;
    for (;;) {
        if (size == room) {
            room = room ? room * 2 : 1 << 16;
            uint8_t *more = realloc(buffer, room);
            if (!more) {
                free(buffer);
                return mpqc_data_oom(err);
            }
            buffer = more;
        }
        ssize_t got = read(fd, buffer + size, room - size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            free(buffer);
            return mpqc_data_fail(err, "%s: cannot be read: %s", f->path, strerror(errno));
        }
        if (got == 0) break;
        size += (size_t)got;
    }
    f->bytes = buffer;
    f->size = size;
    return mpqc_data_own(d, buffer, size, 0, err);
}

static int map_fd(struct mpqc_data *d, int fd, struct mpqc_data_file *f,
                  struct mpqc_data_error *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return mpqc_data_fail(err, "%s: cannot be read: %s", f->path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return read_stream(d, fd, f, err);
    if (st.st_size == 0) return mpqc_data_fail(err, "%s: the file is empty", f->path);
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) return read_stream(d, fd, f, err);
    f->bytes = p;
    f->size = (size_t)st.st_size;
    return mpqc_data_own(d, p, f->size, 1, err);
}

int mpqc_data_map(struct mpqc_data *d, const char *path, struct mpqc_data_file *out,
                  struct mpqc_data_error *err)
{
    *out = (struct mpqc_data_file){.path = path};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mpqc_data_fail(err, "%s: cannot be opened: %s", path, strerror(errno));
    int rc = map_fd(d, fd, out, err);
    close(fd);
    return rc;
}

static const struct {
    const char *suffix;
    enum mpqc_data_kind kind;
} suffixes[] = {{".npy", MPQC_KIND_NPY},    {".npz", MPQC_KIND_NPZ},   {".png", MPQC_KIND_IMAGE},
                {".jpg", MPQC_KIND_IMAGE},  {".jpeg", MPQC_KIND_IMAGE}, {".pb", MPQC_KIND_PB},
                {".raw", MPQC_KIND_RAW},    {".f32", MPQC_KIND_RAW},   {".gz", MPQC_KIND_GZ},
                {".idx", MPQC_KIND_IDX},    {"-ubyte", MPQC_KIND_IDX}};

enum mpqc_data_kind mpqc_data_kind_of_name(const char *path)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t m = strlen(suffixes[i].suffix);
        if (n > m && strcasecmp(path + n - m, suffixes[i].suffix) == 0) return suffixes[i].kind;
    }
    return MPQC_KIND_OTHER;
}

static enum mpqc_data_kind kind_of(const struct mpqc_data_file *f)
{
    static const struct {
        const char *magic;
        size_t n;
        enum mpqc_data_kind kind;
    } magics[] = {{"\x93NUMPY", 6, MPQC_KIND_NPY},       {"PK\3\4", 4, MPQC_KIND_NPZ},
                  {"\x89PNG", 4, MPQC_KIND_IMAGE},       {"\xff\xd8\xff", 3, MPQC_KIND_IMAGE},
                  {"\x1f\x8b", 2, MPQC_KIND_GZ}};
    enum mpqc_data_kind named = mpqc_data_kind_of_name(f->path);
    /* Nothing in a raw file or in a protobuf message says what it is. */
    if (named == MPQC_KIND_RAW || named == MPQC_KIND_PB) return named;
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
        if (f->size >= magics[i].n && memcmp(f->bytes, magics[i].magic, magics[i].n) == 0)
            return magics[i].kind;
    return named;
}

static int load_raw(struct mpqc_data *d, const struct mpqc_data_file *f, uint32_t rank,
                    const int64_t *dims, struct mpqc_data_error *err)
{
    size_t sample;
    struct mpqc_array a = {.type = MPQC_DATA_F32, .rank = rank + 1, .data = f->bytes};
    if (!dims || rank > MPQC_ABI_MAX_RANK)
        return mpqc_data_fail(err, "%s: a raw file has no shape, and none is known here",
                              f->path);
    if (mpqc_data_bytes(MPQC_DATA_F32, rank, dims, &sample) || sample == 0)
        return mpqc_data_fail(err, "%s: a raw file cannot feed an input of unknown size",
                              f->path);
    if (f->size % sample)
        return mpqc_data_fail(err,
                              "%s: %zu bytes are no whole number of float32 samples of %zu bytes",
                              f->path, f->size, sample);
    a.dims[0] = (int64_t)(f->size / sample);
    memcpy(a.dims + 1, dims, rank * sizeof *dims);
    return mpqc_data_add(d, &a, f->path, err);
}

static int load_npy(struct mpqc_data *d, const struct mpqc_data_file *f,
                    struct mpqc_data_error *err)
{
    struct mpqc_array a;
    if (mpqc_npy_parse(f->path, f->bytes, f->size, &a, err)) return -1;
    return mpqc_data_add(d, &a, f->path, err);
}

/* One tensor file is one sample. */
static int load_pb(struct mpqc_data *d, const struct mpqc_data_file *f,
                   struct mpqc_data_error *err)
{
    char name[128];
    struct mpqc_array a;
    if (mpqc_pb_parse(d, f, name, &a, err)) return -1;
    a.name = name[0] ? name : NULL;
    memmove(a.dims + 1, a.dims, a.rank * sizeof *a.dims);
    a.dims[0] = 1;
    a.rank++;
    return mpqc_data_add(d, &a, f->path, err);
}

int mpqc_data_load_file(struct mpqc_data *d, const char *path, uint32_t raw_rank,
                        const int64_t *raw_dims, struct mpqc_data_error *err)
{
    struct mpqc_data_file f;
    if (mpqc_data_map(d, path, &f, err)) return -1;
    switch (kind_of(&f)) {
    case MPQC_KIND_NPY: return load_npy(d, &f, err);
    case MPQC_KIND_NPZ: return mpqc_npz_load(d, &f, err);
    case MPQC_KIND_IMAGE: return mpqc_image_load(d, &f, err);
    case MPQC_KIND_PB: return load_pb(d, &f, err);
    case MPQC_KIND_RAW: return load_raw(d, &f, raw_rank, raw_dims, err);
    case MPQC_KIND_IDX: return mpqc_idx_load(d, &f, err);
    case MPQC_KIND_GZ: return mpqc_idx_gz_load(d, &f, err);
    case MPQC_KIND_OTHER: break;
    }
    if (f.size >= 4 && f.bytes[0] == 0 && f.bytes[1] == 0) return mpqc_idx_load(d, &f, err);
    return mpqc_data_fail(err,
                          "%s: not a sample file that is known here (.npy, .npz, .png, .jpg, .pb, "
                          ".raw, .f32, IDX, or a folder)",
                          path);
}

int mpqc_data_open(const char *path, uint32_t raw_rank, const int64_t *raw_dims,
                   struct mpqc_data **out, struct mpqc_data_error *err)
{
    *out = NULL;
    struct stat st;
    if (stat(path, &st))
        return mpqc_data_fail(err, "%s: cannot be opened: %s", path, strerror(errno));
    struct mpqc_data *d = calloc(1, sizeof *d);
    if (!d) return mpqc_data_oom(err);
    int rc = S_ISDIR(st.st_mode) ? mpqc_data_load_folder(d, path, err)
                                 : mpqc_data_load_file(d, path, raw_rank, raw_dims, err);
    if (rc) {
        mpqc_data_close(d);
        return -1;
    }
    *out = d;
    return 0;
}
