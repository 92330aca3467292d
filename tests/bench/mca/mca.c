/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 *   mpqc-mca [-row=VARIANT] [-cpu=CPU] [-layer=NAME] [-show] [-markdown]
 *
 * compiles layers for the rows of AArch64, takes from each the innermost loop that
 * multiplies most and asks llvm-mca-19 how many cycles one pass takes.  The limit is what
 * the loop's multiplications alone would take, at the rate that llvm-mca gives for
 * independent ones on the same core.  Where something else takes the time, the busiest of the
 * core's units tells what: at 100 % the loop is as fast as its instructions can be.
 */
#include "tests/bench/mca/mca.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BYTES(name, ...) {name, __VA_ARGS__, 0, 0}
#define BITS(name, ...)                                                                           \
    {name " w2a2", __VA_ARGS__, 2, 2}, {name " w2a1", __VA_ARGS__, 2, 1},                         \
        {name " w1a2", __VA_ARGS__, 1, 2}, {name " w1a1", __VA_ARGS__, 1, 1}

static const struct mca_layer layers[] = {
    BYTES("3x3 64->64", 14, 64, 3, 64, 1, 1),
    BYTES("3x3 64->64 s2", 14, 64, 3, 64, 2, 1),
    BYTES("3x3 128->128 7x7", 7, 128, 3, 128, 1, 1),
    BYTES("1x1 64->256", 14, 64, 1, 256, 1, 1),
    BYTES("1x1 256->64", 14, 256, 1, 64, 1, 1),
    BYTES("1x1 24->144", 14, 24, 1, 144, 1, 1),
    BYTES("1x1 144->24", 14, 144, 1, 24, 1, 1),
    BYTES("1x1 960->160 7x7", 7, 960, 1, 160, 1, 1),
    BYTES("first 3x3 s2 3->32", 112, 3, 3, 32, 2, 1),
    BYTES("first 7x7 s2 3->64", 112, 3, 7, 64, 2, 1),
    BYTES("depthwise 3x3 s1", 14, 96, 3, 96, 1, 96),
    BYTES("depthwise 3x3 s2", 14, 96, 3, 96, 2, 96),
    BYTES("depthwise 5x5 s1", 14, 96, 5, 96, 1, 96),
    BYTES("depthwise 5x5 s2", 14, 96, 5, 96, 2, 96),
    BYTES("gemv 1024->1000", 1, 1024, 0, 1000, 1, 1),
    BITS("3x3 64->64", 14, 64, 3, 64, 1, 1),
    BITS("3x3 128->128 7x7", 7, 128, 3, 128, 1, 1),
    BITS("1x1 256->64", 14, 256, 1, 64, 1, 1),
    BITS("gemv 1024->1000", 1, 1024, 0, 1000, 1, 1),
};

static const struct {
    const char *variant, *cpus[4], *attributes;
} rows[] = {
    {"neon", {"cortex-a53", "cortex-a55", "cortex-a72"}, "+neon"},
    {"dotprod", {"cortex-a55", "cortex-a76", "neoverse-n1", "neoverse-v1"}, "+dotprod"},
    {"i8mm", {"cortex-a510", "neoverse-v1", "neoverse-n2", "neoverse-v2"}, "+dotprod,+i8mm"},
};

/* Percent of the limit, below which a table tells what is busy instead. */
#define GOAL 85

struct options {
    const char *row, *cpu, *layer;
    bool show, markdown;
    char work[64];
};

/* What llvm-mca says of one pass: cycles, and which unit is at work in most of them. */
struct answer {
    double cycles, busy;
    char unit[48];
};

/* "[1.0] - N1UnitD" of the list of units: its label and name. */
struct unit {
    char label[8], name[40];
};

static unsigned read_unit(const char *line, struct unit *units, unsigned n, unsigned room)
{
    struct unit u;
    if (n == room || sscanf(line, "[%7[^]]] - %39s", u.label, u.name) != 2) return n;
    units[n] = u;
    return n + 1;
}

/* A row of cycles, one per unit, "-" for none. */
static void read_pressure(const char *line, const struct unit *units, unsigned n,
                          struct answer *out)
{
    char buffer[1024], *at = buffer, *save;
    snprintf(buffer, sizeof buffer, "%s", line);
    for (unsigned i = 0; i < n; i++, at = NULL) {
        const char *word = strtok_r(at, " \n", &save);
        double cycles = word ? strtod(word, NULL) : 0;
        if (cycles <= out->busy) continue;
        out->busy = cycles;
        snprintf(out->unit, sizeof out->unit, "%s", units[i].name);
    }
}

/* Of the code in PATH; false: llvm-mca did not say. */
static bool ask(const char *path, const char *cpu, const char *attributes, struct answer *out)
{
    char command[512], line[1024];
    struct unit units[32];
    unsigned n = 0;
    int passes = 200, total = -1, heading = 0;
    snprintf(command, sizeof command,
             "llvm-mca-19 -mtriple=aarch64-linux-gnu -mcpu=%s -mattr=%s -iterations=%d "
             "-instruction-info=0 %s 2>/dev/null",
             cpu, attributes, passes, path);
    FILE *f = popen(command, "r");
    if (!f) return false;
    *out = (struct answer){0};
    while (fgets(line, sizeof line, f)) {
        const char *at = strstr(line, "Total Cycles:");
        if (at) total = (int)strtol(at + strlen("Total Cycles:"), NULL, 10);
        n = read_unit(line, units, n, MPQC_LEN(units));
        /* two lines below the words: after the labels */
        if (heading > 0 && ++heading == 3) read_pressure(line, units, n, out);
        if (strstr(line, "Resource pressure per iteration:")) heading = 1;
    }
    out->cycles = (double)total / passes;
    return pclose(f) == 0 && total > 0;
}

static bool write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (!f) return false;
    fputs(text, f);
    return fclose(f) == 0;
}

/* Cycles of one of many independent multiplications. */
static double rate(const struct options *o, const struct mca_multiply *m, const char *cpu,
                   const char *attributes)
{
    enum { N = 14 };
    char path[128], code[2048];
    struct answer answer;
    int n = 0;
    for (int r = 0; r < N; r++)
        if (m->w)
            n += snprintf(code + n, sizeof code - (size_t)n, "\t%s v%d%s, v30%s, v31%s\n", m->name,
                          r, m->shape, m->x, m->w);
        else
            n += snprintf(code + n, sizeof code - (size_t)n,
                          "\tand v%d.16b, v30.16b, v31.16b\n", r + N);
    for (int r = N; !m->w && r < 2 * N; r++)
        n += snprintf(code + n, sizeof code - (size_t)n, "\t%s v%d%s, v%d%s\n", m->name, r, m->shape,
                      r, m->x);
    for (int r = 0; !m->w && r < N; r++)
        n += snprintf(code + n, sizeof code - (size_t)n, "\tadd v%d.16b, v%d.16b, v%d.16b\n", r, r,
                      r + N);
    snprintf(path, sizeof path, "%s/rate.s", o->work);
    return write_file(path, code) && ask(path, cpu, attributes, &answer) ? answer.cycles / N : -1;
}

/* The unit's name without the core's. */
static const char *short_name(const char *unit)
{
    const char *at = strstr(unit, "Unit");
    return at ? at + strlen("Unit") : unit;
}

static void print_answer(const struct options *o, const struct mca_layer *l,
                         const struct mca_loop *loop, const char *cpu, const struct answer *a,
                         double limit, double macs)
{
    const char *unit = short_name(a->unit);
    double part = 100 * limit / a->cycles, busy = 100 * a->busy / a->cycles;
    if (o->markdown && part >= GOAL) printf(" %.1f, %.0f %% |", macs / a->cycles, part);
    else if (o->markdown)
        printf(" %.1f, %.0f %% (%s %.0f %%) |", macs / a->cycles, part, unit, busy);
    else
        printf("%-21s %-12s %5u %5u %6u %8.1f %8.1f %6.0f %%  %-6s %3.0f %%\n", l->name, cpu,
               loop->instructions, loop->loads, loop->stack, a->cycles, macs / a->cycles, part,
               unit, busy);
}

/* Products of the layer in a pass that ends in stores of its results, which are bytes; else (0) all
 * that are made are counted, and what is filled up with zeros among them. */
static double layer_macs(const struct mca_layer *l, const struct mca_loop *loop)
{
    int taps = l->k == 0 ? 1 : l->k * l->k;
    return loop->narrowed ? (double)loop->stored * taps * l->channels / l->groups : 0;
}

/* Where bits are counted, each pair of planes takes instructions of its own. */
static int macs_of(const struct mca_layer *l, const struct mca_multiply *m)
{
    return m->w ? m->macs : m->macs / (int)(l->weight_bits * l->activation_bits);
}

static bool report(const struct options *o, const struct mca_layer *l, const struct mca_loop *loop,
                   const char *cpu, const char *attributes)
{
    char path[128];
    double limit = 0;
    int macs = 0;
    struct answer answer;
    snprintf(path, sizeof path, "%s/loop.s", o->work);
    if (!write_file(path, loop->text)) return false;
    bool ok = ask(path, cpu, attributes, &answer);
    for (unsigned i = 0; i < mca_n_multiplies; i++) {
        if (loop->count[i] == 0) continue;
        limit += loop->count[i] * rate(o, &mca_multiplies[i], cpu, attributes);
        macs += (int)loop->count[i] * macs_of(l, &mca_multiplies[i]);
    }
    if (!ok || limit <= 0) {
        fprintf(stderr, "mpqc-mca: llvm-mca-19 does not understand the loop of '%s' for %s; "
                        "see %s\n", l->name, cpu, path);
        return false;
    }
    double own = layer_macs(l, loop);
    print_answer(o, l, loop, cpu, &answer, limit, own > 0 ? own : macs);
    return true;
}

static bool one_layer(const struct options *o, const struct mca_layer *l, unsigned row)
{
    char target[64], path[128];
    struct mca_loop loop;
    bool ok = true;
    snprintf(target, sizeof target, "aarch64:%s", rows[row].variant);
    snprintf(path, sizeof path, "%s/layer.s", o->work);
    if (!mca_compile(l, target, path)) return false;
    if (!mca_find_loop(path, &loop)) {
        fprintf(stderr, "mpqc-mca: no loop of '%s' multiplies\n", l->name);
        return false;
    }
    if (o->markdown) printf("| %s | %u | %u |", l->name, loop.instructions, loop.stack);
    for (int c = 0; c < 4 && rows[row].cpus[c]; c++)
        if (!o->cpu || strcmp(o->cpu, rows[row].cpus[c]) == 0)
            ok &= report(o, l, &loop, rows[row].cpus[c], rows[row].attributes);
    if (o->markdown) puts("");
    if (o->show) puts(loop.text);
    free(loop.text);
    return ok;
}

static void print_head(const struct options *o, unsigned row)
{
    if (!o->markdown) {
        printf("%s\n%-21s %-12s instr loads  stack   cycles MAC/cycle  limit  "
               "busiest unit\n",
               rows[row].variant, "layer", "core");
        return;
    }
    printf("\n### %s\n\n| layer | instructions | on the stack |", rows[row].variant);
    for (int c = 0; c < 4 && rows[row].cpus[c]; c++) printf(" %s |", rows[row].cpus[c]);
    printf("\n|---|---|---|");
    for (int c = 0; c < 4 && rows[row].cpus[c]; c++) printf("---|");
    puts("");
}

static bool all(const struct options *o)
{
    bool ok = true;
    for (unsigned r = 0; r < MPQC_LEN(rows); r++) {
        if (o->row && strcmp(o->row, rows[r].variant) != 0) continue;
        print_head(o, r);
        for (unsigned l = 0; l < MPQC_LEN(layers); l++)
            if (!o->layer || strcmp(o->layer, layers[l].name) == 0)
                ok &= one_layer(o, &layers[l], r);
    }
    return ok;
}

static bool read_flags(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-row=", 5) == 0) o->row = argv[i] + 5;
        else if (strncmp(argv[i], "-cpu=", 5) == 0) o->cpu = argv[i] + 5;
        else if (strncmp(argv[i], "-layer=", 7) == 0) o->layer = argv[i] + 7;
        else if (strcmp(argv[i], "-show") == 0) o->show = true;
        else if (strcmp(argv[i], "-markdown") == 0) o->markdown = true;
        else return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options o = {.work = "/tmp/mpqc-mca-XXXXXX"};
    char command[128];
    if (!read_flags(argc, argv, &o)) {
        fprintf(stderr, "usage: mpqc-mca [-row=VARIANT] [-cpu=CPU] [-layer=NAME] [-show] "
                        "[-markdown]\n");
        return 1;
    }
    if (system("llvm-mca-19 --version >/dev/null 2>&1") != 0) {
        fprintf(stderr, "mpqc-mca: llvm-mca-19 is missing; it is in the package llvm-19\n");
        return 1;
    }
    if (!mkdtemp(o.work)) return 1;
    bool ok = all(&o);
    snprintf(command, sizeof command, "rm -rf %s", o.work);
    return ok && system(command) == 0 ? 0 : 1;
}
