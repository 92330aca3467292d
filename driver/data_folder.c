/* SPDX-License-Identifier: MIT
 *
 * Folders: files sorted by name, their arrays joined along the first axis.
 */
#include "driver/data_internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names of files in one folder, sorted. */
struct listing {
    char **names;
    size_t n, cap;
};

static void listing_free(struct listing *l)
{
    for (size_t i = 0; i < l->n; i++) free(l->names[i]);
    free(l->names);
}

static int listing_add(struct listing *l, const char *name)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        char **names = realloc(l->names, cap * sizeof *names);
        if (!names) return -1;
        l->names = names;
        l->cap = cap;
    }
    l->names[l->n] = strdup(name);
    return l->names[l->n++] ? 0 : -1;
}

/* The digits before the extension: input_10.pb -> 10; -1 without any. */
static long long number_in(const char *name)
{
    const char *p = name + strlen(name);
    const char *dot = strrchr(name, '.');
    if (dot) p = dot;
    const char *end = p;
    while (p > name && p[-1] >= '0' && p[-1] <= '9') p--;
    return p == end || end - p > 15 ? -1 : strtoll(p, NULL, 10);
}

static int by_name(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

/* test_data_set_2 comes before test_data_set_10. */
static int by_number(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    long long i = number_in(*x), k = number_in(*y);
    return i != k ? (i > k) - (i < k) : strcmp(*x, *y);
}

static int is_kind(const char *name, enum mpqc_data_kind kind)
{
    return mpqc_data_kind_of_name(name) == kind;
}

static int join_path(const char *folder, const char *name, char *to, size_t room,
                     struct mpqc_data_error *err)
{
    int n = snprintf(to, room, "%s/%s", folder, name);
    if (n > 0 && (size_t)n < room) return 0;
    return mpqc_data_fail(err, "%s: the path is too long", folder);
}

/* All names that do not begin with a dot. */
static int list_folder(const char *path, struct listing *l, struct mpqc_data_error *err)
{
    DIR *dir = opendir(path);
    if (!dir) return mpqc_data_fail(err, "%s: cannot be opened: %s", path, strerror(errno));
    struct dirent *e;
    int rc = 0;
    while (rc == 0 && (e = readdir(dir)) != NULL)
        if (e->d_name[0] != '.') rc = listing_add(l, e->d_name);
    closedir(dir);
    if (rc) return mpqc_data_oom(err);
    if (l->n) qsort(l->names, l->n, sizeof *l->names, by_name);
    return 0;
}

/* ---- joining ---- */

/* An array of the result while it grows. */
struct joined {
    struct mpqc_array a; /* dims[0] = rows so far */
    uint8_t *memory;
    size_t used, room;
    char first[256]; /* file that gave the shape */
};

struct join {
    const char *folder;
    struct joined *arrays;
    uint32_t n;
};

static void join_free(struct join *j)
{
    for (uint32_t i = 0; i < j->n; i++) {
        free(j->arrays[i].memory);
        free(j->arrays[i].a.name);
    }
    free(j->arrays);
}

static int same_name(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* `single`: each file has one array, and names (of pb tensors) do not matter. */
static struct joined *join_find(struct join *j, const struct mpqc_array *a, int single)
{
    for (uint32_t i = 0; i < j->n; i++)
        if (single || same_name(j->arrays[i].a.name, a->name)) return &j->arrays[i];
    return NULL;
}

static struct joined *join_new(struct join *j, const struct mpqc_array *a, const char *file)
{
    struct joined *arrays = realloc(j->arrays, (j->n + 1) * sizeof *arrays);
    if (!arrays) return NULL;
    j->arrays = arrays;
    struct joined *t = &arrays[j->n];
    *t = (struct joined){.a = *a};
    if (a->name && !(t->a.name = strdup(a->name))) return NULL;
    j->n++;
    t->a.dims[0] = 0;
    snprintf(t->first, sizeof t->first, "%s", file);
    return t;
}

static int shapes_agree(const struct mpqc_array *a, const struct mpqc_array *b)
{
    if (a->type != b->type || a->rank != b->rank) return 0;
    for (uint32_t i = 1; i < a->rank; i++)
        if (a->dims[i] != b->dims[i]) return 0;
    return 1;
}

static int join_append(struct join *j, const struct mpqc_array *a, const char *file, int single,
                       struct mpqc_data_error *err)
{
    char sa[MPQC_SHAPE_TEXT], sb[MPQC_SHAPE_TEXT];
    if (a->rank == 0)
        return mpqc_data_fail(err, "%s/%s: a single number; samples need an axis", j->folder,
                              file);
    struct joined *t = join_find(j, a, single);
    if (!t && !(t = join_new(j, a, file))) return mpqc_data_oom(err);
    if (!shapes_agree(a, &t->a))
        return mpqc_data_fail(err, "%s/%s: samples are %s %s, but those in %s are %s %s",
                              j->folder, file, mpqc_data_type_name(a->type),
                              mpqc_shape_text(sa, a->rank - 1, a->dims + 1), t->first,
                              mpqc_data_type_name(t->a.type),
                              mpqc_shape_text(sb, t->a.rank - 1, t->a.dims + 1));
    size_t need;
    if (__builtin_add_overflow(t->used, a->bytes, &need)) return mpqc_data_oom(err);
    if (need > t->room) {
        size_t room = t->room > SIZE_MAX / 2 || need > 2 * t->room ? need : 2 * t->room;
        uint8_t *more = realloc(t->memory, room);
        if (!more) return mpqc_data_oom(err);
        t->memory = more;
        t->room = room;
    }
    if (a->bytes) memcpy(t->memory + t->used, a->data, a->bytes);
    t->used = need;
    t->a.dims[0] += a->dims[0];
    return 0;
}

/* Hands the joined arrays to `d`; all must have the same number of samples. */
static int join_finish(struct join *j, struct mpqc_data *d, struct mpqc_data_error *err)
{
    for (uint32_t i = 0; i < j->n; i++) {
        struct joined *t = &j->arrays[i];
        if (t->a.dims[0] != j->arrays[0].a.dims[0])
            return mpqc_data_fail(err, "%s: %lld samples of '%s', but %lld of '%s'", j->folder,
                                  (long long)t->a.dims[0], t->a.name ? t->a.name : "",
                                  (long long)j->arrays[0].a.dims[0],
                                  j->arrays[0].a.name ? j->arrays[0].a.name : "");
        t->a.data = t->memory;
        uint8_t *memory = t->memory;
        t->memory = NULL;
        if (memory && mpqc_data_own(d, memory, t->used, 0, err)) return -1;
        if (mpqc_data_add(d, &t->a, j->folder, err)) return -1;
    }
    return 0;
}

/* Several tensors without names would be taken for one: the file's name tells them apart. */
static int append_one(struct join *j, const struct mpqc_array *a, const char *file, int single,
                      struct mpqc_data_error *err)
{
    char stem[256];
    struct mpqc_array named = *a;
    if (!a->name && !single) {
        snprintf(stem, sizeof stem, "%s", file);
        char *dot = strrchr(stem, '.');
        if (dot) *dot = '\0';
        named.name = stem;
    }
    return join_append(j, &named, file, single, err);
}

/* Loads one file and appends all of its arrays. */
static int join_file(struct join *j, const char *folder, const char *name, int single,
                     struct mpqc_data_error *err)
{
    char path[4096];
    if (join_path(folder, name, path, sizeof path, err)) return -1;
    struct mpqc_data *one = calloc(1, sizeof *one);
    if (!one) return mpqc_data_oom(err);
    int rc = mpqc_data_load_file(one, path, 0, NULL, err);
    for (uint32_t i = 0; rc == 0 && i < one->n_arrays; i++)
        rc = append_one(j, &one->arrays[i], name, single && one->n_arrays == 1, err);
    mpqc_data_close(one);
    return rc;
}

/* ---- kinds of folders ---- */

/* input_0.pb, input_1.pb, ...: one sample. */
static int join_inputs(struct join *j, const char *folder, struct listing *l,
                       struct mpqc_data_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) n += strncmp(l->names[i], "input_", 6) == 0;
    qsort(l->names, l->n, sizeof *l->names, by_number);
    for (size_t i = 0; i < l->n; i++)
        if (strncmp(l->names[i], "input_", 6) == 0 && is_kind(l->names[i], MPQC_KIND_PB) &&
            join_file(j, folder, l->names[i], n == 1, err))
            return -1;
    return 0;
}

/* test_data_set_0, test_data_set_1, ...: a sample each. */
static int join_sets(struct join *j, struct listing *l, struct mpqc_data_error *err)
{
    char path[4096];
    qsort(l->names, l->n, sizeof *l->names, by_number);
    for (size_t i = 0; i < l->n; i++) {
        if (strncmp(l->names[i], "test_data_set", 13) != 0) continue;
        if (join_path(j->folder, l->names[i], path, sizeof path, err)) return -1;
        struct listing inner = {NULL, 0, 0};
        int rc = list_folder(path, &inner, err);
        if (rc == 0 && inner.n) rc = join_inputs(j, path, &inner, err);
        listing_free(&inner);
        if (rc) return -1;
    }
    return 0;
}

/* All files of one kind; a second kind of samples is a mistake. */
static int join_plain(struct join *j, const struct listing *l, struct mpqc_data_error *err)
{
    const char *first = NULL;
    for (size_t i = 0; i < l->n; i++) {
        enum mpqc_data_kind kind = mpqc_data_kind_of_name(l->names[i]);
        if (kind != MPQC_KIND_NPY && kind != MPQC_KIND_NPZ && kind != MPQC_KIND_IMAGE &&
            kind != MPQC_KIND_PB)
            continue;
        if (strncmp(l->names[i], "output_", 7) == 0 && kind == MPQC_KIND_PB) continue;
        if (!first) first = l->names[i];
        if (!is_kind(first, kind))
            return mpqc_data_fail(err, "%s: both %s and %s are in it; a folder of samples has "
                                       "one kind of files",
                                  j->folder, first, l->names[i]);
        if (join_file(j, j->folder, l->names[i], kind != MPQC_KIND_NPZ, err)) return -1;
    }
    return 0;
}

static int any_begins(const struct listing *l, const char *prefix)
{
    for (size_t i = 0; i < l->n; i++)
        if (strncmp(l->names[i], prefix, strlen(prefix)) == 0) return 1;
    return 0;
}

static int any_input_pb(const struct listing *l)
{
    for (size_t i = 0; i < l->n; i++)
        if (strncmp(l->names[i], "input_", 6) == 0 && is_kind(l->names[i], MPQC_KIND_PB))
            return 1;
    return 0;
}

int mpqc_data_load_folder(struct mpqc_data *d, const char *path, struct mpqc_data_error *err)
{
    struct listing l = {NULL, 0, 0};
    struct join j = {.folder = path};
    int rc = list_folder(path, &l, err);
    if (rc == 0) {
        if (any_begins(&l, "test_data_set")) rc = join_sets(&j, &l, err);
        else if (any_input_pb(&l)) rc = join_inputs(&j, path, &l, err);
        else rc = join_plain(&j, &l, err);
    }
    if (rc == 0 && j.n == 0)
        rc = mpqc_data_fail(err, "%s: no .npy, .npz, .png, .jpg or .pb file is in this folder",
                            path);
    if (rc == 0) rc = join_finish(&j, d, err);
    join_free(&j);
    listing_free(&l);
    return rc;
}
