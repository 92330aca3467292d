/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "driver/latency_cache.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

struct entry {
    uint64_t key;
    double ns;
    unsigned bits;
};

struct mpqc_latency_cache {
    struct entry *entry;
    size_t n, cap;
    size_t old; /* entries that are in the file */
    char *path; /* NULL: none */
};

uint64_t mpqc_latency_hash(uint64_t seed, const char *text)
{
    uint64_t h = seed ? seed : 14695981039346656037ull;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 1099511628211ull;
    return (h ^ 0xFF) * 1099511628211ull; /* so that "a","b" differs from "ab" */
}

/* ~/.cache/mpqc/NAME, its folders made; NULL when there is no home. */
static char *default_path(const char *name)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[3072], *path = NULL;
    if (cache && *cache) snprintf(folder, sizeof folder, "%s", cache);
    else if (home && *home) snprintf(folder, sizeof folder, "%s/.cache", home);
    else return NULL;
    (void)mkdir(folder, 0777);
    if (asprintf(&path, "%s/mpqc", folder) < 0) return NULL;
    (void)mkdir(path, 0777);
    free(path);
    return asprintf(&path, "%s/mpqc/%s", folder, name) < 0 ? NULL : path;
}

/* Lines that are not of the form are skipped: another version may have written them. */
static void read_file(struct mpqc_latency_cache *c, FILE *f)
{
    char line[256];
    while (fgets(line, sizeof line, f)) {
        struct entry e;
        if (sscanf(line, "%16" SCNx64 " %u %lf", &e.key, &e.bits, &e.ns) == 3 && e.ns >= 0)
            mpqc_latency_add(c, e.key, e.bits, e.ns);
    }
    c->old = c->n;
}

mpqc_status mpqc_latency_open(struct mpqc_cx *cx, const char *path, const char *name,
                              struct mpqc_latency_cache **out)
{
    struct mpqc_latency_cache *c = *out = calloc(1, sizeof *c);
    if (!c) return MPQC_OOM(cx);
    if (path && strcmp(path, "none") == 0) return MPQC_OK;
    c->path = path ? strdup(path) : default_path(name);
    FILE *f = c->path ? fopen(c->path, "a+") : NULL;
    if (f) {
        rewind(f);
        read_file(c, f);
        fclose(f);
        return MPQC_OK;
    }
    if (!path) return MPQC_OK;
    struct mpqc_where w = {.file = path, .offset = -1};
    return MPQC_FAIL(cx, IO, w, "the cache of latencies cannot be opened: %s", strerror(errno));
}

bool mpqc_latency_find(const struct mpqc_latency_cache *c, uint64_t key, unsigned bits, double *ns)
{
    for (size_t i = c->n; i-- > 0;) /* the newest counts */
        if (c->entry[i].key == key && c->entry[i].bits == bits) {
            *ns = c->entry[i].ns;
            return true;
        }
    return false;
}

bool mpqc_latency_best(const struct mpqc_latency_cache *c, uint64_t key, unsigned *bits, double *ns)
{
    bool found = false;
    for (size_t i = 0; i < c->n; i++) {
        if (c->entry[i].key != key || (found && c->entry[i].ns >= *ns)) continue;
        *bits = c->entry[i].bits;
        *ns = c->entry[i].ns;
        found = true;
    }
    return found;
}

void mpqc_latency_add(struct mpqc_latency_cache *c, uint64_t key, unsigned bits, double ns)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 256;
        struct entry *more = realloc(c->entry, cap * sizeof *more);
        if (!more) return; /* a cache may forget */
        c->entry = more;
        c->cap = cap;
    }
    c->entry[c->n++] = (struct entry){.key = key, .ns = ns, .bits = bits};
}

void mpqc_latency_close(struct mpqc_latency_cache *c)
{
    if (!c) return;
    FILE *f = c->path && c->n > c->old ? fopen(c->path, "a") : NULL;
    for (size_t i = c->old; f && i < c->n; i++)
        fprintf(f, "%016" PRIx64 " %u %.17g\n", c->entry[i].key, c->entry[i].bits, c->entry[i].ns);
    if (f) fclose(f);
    free(c->entry);
    free(c->path);
    free(c);
}
