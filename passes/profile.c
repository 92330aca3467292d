/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Writing and reading profiles; the format is in profile.h.
 */
#include "passes/profile.h"
#include "passes/histogram.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>

#define LARGEST_FILE ((size_t)1 << 30)

static struct mpqc_where in_file(const char *path, int64_t offset)
{
    return (struct mpqc_where){.file = path, .offset = offset};
}

/* ---- writing ------------------------------------------------------------------------- */

/* A name as a quoted string; bytes outside of printable ASCII as \xx. */
static void put_name(struct mpqc_buf *b, const char *name)
{
    mpqc_buf_puts(b, "\"");
    for (const unsigned char *c = (const unsigned char *)name; *c; c++) {
        bool plain = *c >= 0x20 && *c < 0x7f && *c != '"' && *c != '\\';
        mpqc_buf_printf(b, plain ? "%c" : "\\%02x", *c);
    }
    mpqc_buf_puts(b, "\"");
}

static void put_value(struct mpqc_buf *b, const struct mpqc_graph *g, mpqc_vid v,
                      const struct mpqc_histogram *h)
{
    mpqc_buf_puts(b, "value ");
    if (mpqc_value_at(g, v)->name)
        put_name(b, mpqc_value_at(g, v)->name);
    else
        mpqc_buf_printf(b, "#%u", v);
    mpqc_buf_printf(b, " count %" PRIu64 " min %a max %a exp %d\nbins", h->count, (double)h->min,
                    (double)h->max, h->exp);
    for (uint32_t i = 0; i < MPQC_HIST_BINS; i++)
        if (h->bins[i]) mpqc_buf_printf(b, " %u:%" PRIu64, i, h->bins[i]);
    mpqc_buf_puts(b, "\n");
}

mpqc_status mpqc_profile_dump(struct mpqc_cx *cx, const struct mpqc_graph *g,
                              const struct mpqc_profile *profile, const char *path)
{
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    mpqc_buf_printf(&b, "mpqc-profile 1\nsamples %" PRIu64 "\n", profile->samples);
    for (mpqc_vid v = 0; v < profile->n_values; v++)
        if (profile->hist[v].bins) put_value(&b, g, v, &profile->hist[v]);
    mpqc_buf_puts(&b, "end\n");
    mpqc_status status = b.failed ? MPQC_OOM(cx) : mpqc_file_write(cx, path, 0666, b.data, b.len);
    mpqc_buf_release(&b);
    return status;
}

/* ---- reading ---------------------------------------------------------------------------- */

struct reader {
    struct mpqc_cx *cx;
    const char *path;
    const char *text, *at, *end; /* NUL-terminated */
};

static mpqc_status malformed(const struct reader *r, const char *wanted)
{
    return MPQC_FAIL(r->cx, FORMAT, in_file(r->path, r->at - r->text),
                     "this is not a profile, or a damaged one: %.*s is missing here; write it "
                     "again with -dump-profile",
                     (int)strcspn(wanted, "\n"), wanted);
}

static bool accept(struct reader *r, const char *word)
{
    while (*r->at == ' ' || *r->at == '\n') r->at++;
    size_t n = strlen(word);
    if (strncmp(r->at, word, n) != 0) return false;
    r->at += n;
    return true;
}

static mpqc_status expect(struct reader *r, const char *word)
{
    return accept(r, word) ? MPQC_OK : malformed(r, word);
}

static mpqc_status read_u64(struct reader *r, uint64_t *out)
{
    char *end;
    while (*r->at == ' ') r->at++;
    if (*r->at < '0' || *r->at > '9') return malformed(r, "a count");
    errno = 0;
    *out = strtoull(r->at, &end, 10);
    if (errno) return malformed(r, "a count of 64 bits");
    r->at = end;
    return MPQC_OK;
}

static mpqc_status read_float(struct reader *r, float *out)
{
    char *end;
    while (*r->at == ' ') r->at++;
    double x = strtod(r->at, &end);
    if (end == r->at || !isfinite(x) || fabs(x) > 3.5e38) return malformed(r, "a number");
    *out = (float)x;
    r->at = end;
    return MPQC_OK;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A quoted name, unescaped into the context's arena. */
static mpqc_status read_name(struct reader *r, char **out)
{
    const char *close = strchr(r->at, '"');
    if (!close) return malformed(r, "the end of a name");
    char *to = *out = mpqc_arena_alloc(&r->cx->arena, (size_t)(close - r->at) + 1);
    if (!to) return MPQC_OOM(r->cx);
    while (*r->at != '"') {
        if (*r->at != '\\') {
            *to++ = *r->at++;
            continue;
        }
        if (hex(r->at[1]) < 0 || hex(r->at[2]) < 0) return malformed(r, "a \\xx escape");
        *to++ = (char)(hex(r->at[1]) * 16 + hex(r->at[2]));
        r->at += 3;
    }
    *to = '\0';
    r->at++;
    return MPQC_OK;
}

static mpqc_status other_network(const struct reader *r, const char *name)
{
    return MPQC_FAIL(r->cx, DATA, in_file(r->path, -1),
                     "the profile is of another network: it has a value '%s' that this one has not",
                     name);
}

/* The value that a line is about. */
static mpqc_status read_key(struct reader *r, const struct mpqc_graph *g, const bool *needs_range,
                            mpqc_vid *out)
{
    char *name = NULL;
    uint64_t position;
    if (accept(r, "#")) {
        MPQC_TRY(read_u64(r, &position));
        *out = (mpqc_vid)position;
        if (position < g->n_values && needs_range[position]) return MPQC_OK;
        return other_network(r, mpqc_arena_printf(&r->cx->arena, "#%" PRIu64, position));
    }
    MPQC_TRY(expect(r, "\""));
    MPQC_TRY(read_name(r, &name));
    for (*out = 0; *out < g->n_values; ++*out) {
        const char *have = mpqc_value_at(g, *out)->name;
        if (needs_range[*out] && have && strcmp(have, name) == 0) return MPQC_OK;
    }
    return other_network(r, name);
}

static mpqc_status read_bins(struct reader *r, struct mpqc_histogram *h)
{
    uint64_t index, count, total = 0;
    MPQC_TRY(expect(r, "bins"));
    while (*r->at == ' ') {
        MPQC_TRY(read_u64(r, &index));
        MPQC_TRY(expect(r, ":"));
        MPQC_TRY(read_u64(r, &count));
        if (index >= MPQC_HIST_BINS || count > h->count - total)
            return malformed(r, "a consistent histogram");
        h->bins[index] = count;
        total += count;
    }
    return MPQC_OK;
}

static mpqc_status read_value(struct reader *r, struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                              const bool *needs_range, struct mpqc_profile *profile)
{
    mpqc_vid v;
    MPQC_TRY(read_key(r, g, needs_range, &v));
    struct mpqc_histogram *h = &profile->hist[v];
    if (h->bins) return malformed(r, "a value that was not there before");
    if (!mpqc_hist_init(h, &p->keep)) return MPQC_OOM(p->cx);
    MPQC_TRY(expect(r, "count"));
    MPQC_TRY(read_u64(r, &h->count));
    MPQC_TRY(expect(r, "min"));
    MPQC_TRY(read_float(r, &h->min));
    MPQC_TRY(expect(r, "max"));
    MPQC_TRY(read_float(r, &h->max));
    MPQC_TRY(expect(r, "exp"));
    char *end;
    long e = strtol(r->at, &end, 10);
    if (end == r->at || e < MPQC_HIST_MIN_EXP || e > MPQC_HIST_MAX_EXP || h->count == 0 ||
        h->min > h->max)
        return malformed(r, "an exponent");
    h->exp = (int32_t)e;
    r->at = end;
    return read_bins(r, h);
}

static mpqc_status read_all(struct reader *r, struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                            const bool *needs_range, struct mpqc_profile *profile)
{
    MPQC_TRY(expect(r, "mpqc-profile 1\n"));
    MPQC_TRY(expect(r, "samples"));
    MPQC_TRY(read_u64(r, &profile->samples));
    while (accept(r, "value ")) MPQC_TRY(read_value(r, p, g, needs_range, profile));
    MPQC_TRY(expect(r, "end\n"));
    for (mpqc_vid v = 0; v < g->n_values; v++) {
        const char *name = mpqc_value_at(g, v)->name;
        if (needs_range[v] && !profile->hist[v].bins)
            return MPQC_FAIL(r->cx, DATA, in_file(r->path, -1),
                             "the profile is of another network: value '%s' is not in it",
                             name ? name : mpqc_arena_printf(&r->cx->arena, "#%u", v));
    }
    return MPQC_OK;
}

static mpqc_status slurp(struct mpqc_cx *cx, const char *path, struct mpqc_buf *b)
{
    FILE *f = fopen(path, "rb");
    char block[65536];
    size_t n = 0;
    if (!f) return MPQC_FAIL(cx, IO, in_file(path, -1), "cannot be opened: %s", strerror(errno));
    while (b->len < LARGEST_FILE && (n = fread(block, 1, sizeof block, f)) > 0)
        mpqc_buf_add(b, block, n);
    bool bad = ferror(f) != 0;
    fclose(f);
    if (b->failed) return MPQC_OOM(cx);
    if (bad || b->len >= LARGEST_FILE)
        return MPQC_FAIL(cx, IO, in_file(path, -1), "cannot be read: %s",
                         bad ? strerror(errno) : "it is larger than 1 GiB");
    return MPQC_OK;
}

mpqc_status mpqc_profile_load(struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                              const bool *needs_range, const char *path)
{
    struct mpqc_profile *profile = MPQC_NEW(&p->keep, struct mpqc_profile);
    if (!profile) return MPQC_OOM(p->cx);
    profile->n_values = g->n_values;
    profile->hist = MPQC_NEW_ARRAY(&p->keep, struct mpqc_histogram, g->n_values);
    if (!profile->hist) return MPQC_OOM(p->cx);
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    mpqc_status status = slurp(p->cx, path, &b);
    struct reader r = {.cx = p->cx, .path = path};
    r.text = r.at = b.data ? b.data : "";
    r.end = r.text + b.len;
    if (status == MPQC_OK) status = read_all(&r, p, g, needs_range, profile);
    mpqc_buf_release(&b);
    if (status == MPQC_OK) p->profile = profile;
    return status;
}
