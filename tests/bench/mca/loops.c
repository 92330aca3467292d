/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Loops in assembly: what lies between a label and a branch back to it.
 */
#include "tests/bench/mca/mca.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

const struct mca_multiply mca_multiplies[] = {
    {"usmmla", ".4s", 32, ".16b", ".16b"}, {"usdot", ".4s", 16, ".16b", ".16b"},
    {"usdot", ".2s", 8, ".8b", ".8b"},     {"sudot", ".4s", 16, ".16b", ".4b[0]"},
    {"sdot", ".4s", 16, ".16b", ".16b"},   {"sdot", ".2s", 8, ".8b", ".8b"},
    {"smull", ".8h", 8, ".8b", ".8b"},     {"smull2", ".8h", 8, ".16b", ".16b"},
    {"smlal", ".8h", 8, ".8b", ".8b"},     {"smlal2", ".8h", 8, ".16b", ".16b"},
    {"smlal", ".4s", 4, ".4h", ".4h"},     {"smlal2", ".4s", 4, ".8h", ".8h"},
    {"mla", ".8h", 8, ".8h", ".8h"},       {"mul", ".8h", 8, ".8h", ".8h"},
    {"cnt", ".16b", 128, ".16b", NULL},
};
const unsigned mca_n_multiplies = MPQC_LEN(mca_multiplies);

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
static size_t leads_back(const struct lines *l, size_t at)
{
    const char *s = l->line[at], *to = strstr(s, ".LBB");
    if (*s != '\t' || !to || (s[1] != 'b' && s[1] != 'c' && s[1] != 't')) return at;
    size_t n = strcspn(to, " \t\n,;/");
    for (size_t i = at; i-- > 0;) {
        if (is_label(l->line[i], to, n)) return i;
        if (strstr(l->line[i], ".cfi_startproc")) break;
    }
    return at;
}

/* The name and the arrangement of the first operand, "sdot v0.4s, ...". */
static bool is_multiply(const char *s, const struct mca_multiply *m)
{
    size_t n = strlen(m->name);
    if (strncmp(s, m->name, n) != 0 || !isspace((unsigned char)s[n])) return false;
    const char *dot = strchr(s, '.'), *comma = strchr(s, ',');
    return dot && comma && dot < comma && strncmp(dot, m->shape, strlen(m->shape)) == 0;
}

/* Bytes of vector registers that an instruction stores: "str q0, ...", "stp d0, d1, ...",
 * "st1 { v0.s }[1], ...". */
static unsigned stored_bytes(const char *s)
{
    static const char letters[] = "bhsdq";
    if (strncmp(s, "st", 2) != 0 || strstr(s, "[sp")) return 0;
    bool lane = strncmp(s, "st1", 3) == 0;
    const char *at = lane ? strchr(s, '.') : strpbrk(s, " \t");
    const char *letter = at && at[1] ? strchr(letters, at[1]) : NULL;
    if (!letter) return lane && at ? 16 : 0; /* all lanes; a general register */
    return (strncmp(s, "stp", 3) == 0 ? 2u : 1u) << (letter - letters);
}

static int count(const struct lines *l, size_t from, size_t to, struct mca_loop *loop)
{
    int macs = 0;
    for (size_t i = from; i <= to; i++) {
        const char *s = l->line[i];
        if (*s != '\t' || s[1] == '.' || s[1] == '/') continue;
        s++;
        loop->instructions++;
        loop->loads += strncmp(s, "ld", 2) == 0;
        loop->stack += strstr(s, "[sp") != NULL;
        loop->stored += stored_bytes(s);
        loop->narrowed += strncmp(s, "sqxtun", 6) == 0 || strncmp(s, "sqrshrun", 8) == 0;
        for (unsigned m = 0; m < mca_n_multiplies; m++) {
            if (!is_multiply(s, &mca_multiplies[m])) continue;
            loop->count[m]++;
            macs += mca_multiplies[m].macs;
        }
    }
    return macs;
}

static char *join(const struct lines *l, size_t from, size_t to)
{
    size_t n = 1;
    for (size_t i = from; i <= to; i++) n += strlen(l->line[i]);
    char *text = calloc(n, 1), *at = text;
    for (size_t i = from; text && i <= to; i++) at = stpcpy(at, l->line[i]);
    return text;
}

bool mca_find_loop(const char *path, struct mca_loop *out)
{
    struct lines l;
    size_t from = 0, to = 0, last = 0;
    int best = 0;
    if (!read_lines(path, &l)) return false;
    /* Ends come in order: no loop that multiplies lies in this one unless it ended before. */
    for (size_t i = 0; i < l.n; i++) {
        size_t head = leads_back(&l, i);
        if (head == i) continue;
        struct mca_loop loop = {0};
        int macs = last <= head ? count(&l, head, i, &loop) : 0;
        if (macs > 0) last = i;
        if (macs <= best) continue;
        best = macs;
        *out = loop;
        from = head;
        to = i;
    }
    if (best > 0) out->text = join(&l, from, to);
    free_lines(&l);
    return best > 0 && out->text;
}
