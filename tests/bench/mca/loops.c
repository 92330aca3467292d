/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Loops in assembly: what lies between a label and a branch back to it.
 */
#include "tests/bench/mca/mca.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct lines {
    char **line;
    size_t n;
};

static bool read_lines(const char *path, struct lines *out)
{
    FILE *f = fopen(path, "r");
    size_t room = 0, size = 0;
    char *line = NULL;
    *out = (struct lines){0};
    if (!f) return false;
    while (getline(&line, &size, f) > 0) {
        if (out->n == room) {
            room = room ? 2 * room : 1024;
            char **more = realloc(out->line, room * sizeof *more);
            if (!more) break;
            out->line = more;
        }
        out->line[out->n++] = line;
        line = NULL;
        size = 0;
    }
    free(line);
    return fclose(f) == 0;
}

static void free_lines(struct lines *l)
{
    for (size_t i = 0; i < l->n; i++) free(l->line[i]);
    free(l->line);
}

static bool is_label(const char *line, const char *name, size_t n)
{
    return strncmp(line, name, n) == 0 && line[n] == ':';
}

/* The label that a branch at line `at` leads back to; at itself: it is none. */
static size_t leads_back(const struct mca_arch *arch, const struct lines *l, size_t at)
{
    const char *s = l->line[at], *to = strstr(s, ".LBB");
    if (*s != '\t' || !to || !strchr(arch->branch, s[1])) return at;
    size_t n = strcspn(to, " \t\n,;/");
    for (size_t i = at; i-- > 0;) {
        if (is_label(l->line[i], to, n)) return i;
        if (strstr(l->line[i], ".cfi_startproc")) break;
    }
    return at;
}

static bool is_multiply(const struct mca_arch *arch, const char *s, const struct mca_multiply *m)
{
    size_t n = strlen(m->name);
    return strncmp(s, m->name, n) == 0 && isspace((unsigned char)s[n]) &&
           arch->has_shape(s, m->shape);
}

/* The instruction in a line, without a prefix that says how it is encoded; NULL: there is none. */
static const char *instruction(const char *line)
{
    if (*line != '\t' || line[1] == '.' || line[1] == '/' || line[1] == '#') return NULL;
    if (line[1] != '{') return line + 1;
    line += strcspn(line, "}");
    return *line ? line + 1 + strspn(line + 1, " \t") : NULL;
}

static int count(const struct mca_arch *arch, const struct lines *l, size_t from, size_t to,
                 struct mca_loop *loop)
{
    int macs = 0;
    for (size_t i = from; i <= to; i++) {
        const char *s = instruction(l->line[i]);
        if (!s) continue;
        loop->instructions++;
        loop->loads += arch->loads(s);
        loop->stack += strstr(s, arch->stack) != NULL;
        loop->stored += arch->stores ? arch->stores(s) : 0;
        loop->narrowed += arch->narrows && arch->narrows(s);
        for (unsigned m = 0; m < arch->n_multiplies; m++) {
            if (!is_multiply(arch, s, &arch->multiplies[m])) continue;
            loop->count[m]++;
            macs += arch->multiplies[m].macs;
        }
    }
    return macs;
}

/* Without labels, which code that is written out several times would have several times. */
static void append(FILE *to, const struct lines *l, size_t from, size_t end)
{
    for (; from < end; from++)
        if (*l->line[from] == '\t') fputs(l->line[from], to);
}

/* Lines [from, to] make a loop. */
struct span {
    size_t from, to;
};

/* The innermost loop around `in`; false: there is none, or another loop is in it too. */
static bool around(const struct mca_arch *arch, const struct lines *l, struct span in,
                   struct span *out)
{
    for (size_t i = in.to + 1; i < l->n; i++) {
        size_t head = leads_back(arch, l, i);
        if (head == i) continue;
        *out = (struct span){head, i};
        if (head > in.to) return false;
        for (i = head; i < in.from; i++)
            if (leads_back(arch, l, i) != i) return false;
        return true;
    }
    return false;
}

/* Registers that the loop's sums are in, by the last word of what multiplies. */
static int accumulators(const struct mca_arch *arch, const struct lines *l, struct span in)
{
    char seen[64][8] = {{0}};
    int n = 0;
    for (size_t i = in.from; i <= in.to; i++) {
        const char *s = instruction(l->line[i]), *reg = s ? strrchr(s, '%') : NULL;
        bool sums = false;
        for (unsigned m = 0; s && m < arch->n_multiplies; m++)
            sums |= arch->multiplies[m].sums && is_multiply(arch, s, &arch->multiplies[m]);
        if (!sums || !reg) continue;
        int r = 0;
        while (r < n && strncmp(seen[r], reg, strcspn(reg, "\n")) != 0) r++;
        if (r == n && n < (int)MPQC_LEN(seen)) snprintf(seen[n++], 8, "%.7s", reg);
    }
    return n;
}

static int multiplies(const struct mca_loop *loop)
{
    int n = 0;
    for (unsigned m = 0; m < MCA_MAX_MULTIPLIES; m++) n += (int)loop->count[m];
    return n;
}

/* The tile around a loop over K of so many steps: what is before it, all its turns, what is
 * behind.  false: there is no such thing. */
static bool whole_tile(const struct mca_arch *arch, const struct lines *l, struct span in,
                       int steps, struct mca_loop *out)
{
    struct span tile;
    struct mca_loop all = {0};
    int sums = accumulators(arch, l, in), once = multiplies(out);
    size_t size;
    if (sums == 0 || !around(arch, l, in, &tile)) return false;
    (void)count(arch, l, tile.from, in.from - 1, &all);
    (void)count(arch, l, in.to + 1, tile.to, &all);
    int turns = (sums * steps - multiplies(&all)) / once;
    for (int i = 0; i < turns; i++) (void)count(arch, l, in.from, in.to, &all);
    FILE *text = open_memstream(&all.text, &size);
    if (!text) return false;
    append(text, l, tile.from, in.from);
    for (int i = 0; i < turns; i++) append(text, l, in.from, in.to + 1);
    append(text, l, in.to + 1, tile.to + 1);
    if (fclose(text) != 0) return false;
    free(out->text);
    *out = all;
    return true;
}

bool mca_find_loop(const struct mca_arch *arch, const char *path, int steps, struct mca_loop *out)
{
    struct lines l;
    struct span in = {0};
    size_t last = 0, size;
    int best = 0;
    if (!read_lines(path, &l)) return false;
    /* Ends come in order: no loop that multiplies lies in this one unless it ended before. */
    for (size_t i = 0; i < l.n; i++) {
        size_t head = leads_back(arch, &l, i);
        if (head == i) continue;
        struct mca_loop loop = {0};
        int macs = last <= head ? count(arch, &l, head, i, &loop) : 0;
        if (macs > 0) last = i;
        if (macs <= best) continue;
        best = macs;
        *out = loop;
        in = (struct span){head, i};
    }
    FILE *text = best > 0 ? open_memstream(&out->text, &size) : NULL;
    if (text) append(text, &l, in.from, in.to + 1);
    bool ok = text && fclose(text) == 0;
    if (ok && steps > 0) (void)whole_tile(arch, &l, in, steps, out);
    free_lines(&l);
    return ok;
}
