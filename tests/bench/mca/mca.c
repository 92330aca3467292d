/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 *   mpqc-mca [-row=VARIANT] [-cpu=CPU] [-layer=NAME] [-show] [-markdown]
 *
 * compiles layers for the rows of AArch64, takes from each the innermost loop that
 * multiplies most and asks llvm-mca-19 how many cycles one pass takes.  The limit is what
 * the loop's multiplications alone would take, at the rate that llvm-mca gives for
 * independent ones on the same core.
 */
#include "tests/bench/mca/mca.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct mca_layer layers[] = {
    {"3x3 64->64", 14, 64, 3, 64, 1, 1},      {"3x3 64->64 s2", 14, 64, 3, 64, 2, 1},
    {"3x3 128->128 7x7", 7, 128, 3, 128, 1, 1}, {"1x1 64->256", 14, 64, 1, 256, 1, 1},
    {"1x1 256->64", 14, 256, 1, 64, 1, 1},    {"1x1 24->144", 14, 24, 1, 144, 1, 1},
    {"1x1 144->24", 14, 144, 1, 24, 1, 1},    {"1x1 960->160 7x7", 7, 960, 1, 160, 1, 1},
    {"first 3x3 s2 3->32", 32, 3, 3, 32, 2, 1}, {"first 7x7 s2 3->64", 32, 3, 7, 64, 2, 1},
    {"depthwise 3x3 s1", 14, 96, 3, 96, 1, 96}, {"depthwise 3x3 s2", 14, 96, 3, 96, 2, 96},
    {"gemv 1024->1000", 1, 1024, 0, 1000, 1, 1},
};

static const struct {
    const char *variant, *cpus[4], *attributes;
} rows[] = {
    {"neon", {"cortex-a53", "cortex-a55", "cortex-a72"}, "+neon"},
    {"dotprod", {"cortex-a55", "cortex-a76", "neoverse-n1", "neoverse-v1"}, "+dotprod"},
    {"i8mm", {"cortex-a510", "neoverse-v1", "neoverse-n2", "neoverse-v2"}, "+dotprod,+i8mm"},
};

struct options {
    const char *row, *cpu, *layer;
    bool show, markdown;
    char work[64];
};

/* Cycles of one pass through the code in PATH; negative: llvm-mca did not say. */
static double cycles(const char *path, const char *cpu, const char *attributes)
{
    char command[512], line[256];
    int passes = 200, total = -1;
    snprintf(command, sizeof command,
             "llvm-mca-19 -mtriple=aarch64-linux-gnu -mcpu=%s -mattr=%s -iterations=%d "
             "-resource-pressure=0 -instruction-info=0 %s 2>/dev/null",
             cpu, attributes, passes, path);
    FILE *f = popen(command, "r");
    if (!f) return -1;
    while (fgets(line, sizeof line, f)) {
        const char *at = strstr(line, "Total Cycles:");
        if (at) total = (int)strtol(at + strlen("Total Cycles:"), NULL, 10);
    }
    return pclose(f) == 0 && total > 0 ? (double)total / passes : -1;
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
    char path[128], code[2048];
    int n = 0;
    for (int r = 0; r < 16; r++)
        n += snprintf(code + n, sizeof code - (size_t)n, "\t%s v%d%s, v30%s, v31%s\n", m->name, r,
                      m->shape, m->x, m->w);
    snprintf(path, sizeof path, "%s/rate.s", o->work);
    return write_file(path, code) ? cycles(path, cpu, attributes) / 16 : -1;
}

static bool report(const struct options *o, const struct mca_layer *l, const struct mca_loop *loop,
                   const char *cpu, const char *attributes)
{
    char path[128];
    double limit = 0;
    int macs = 0;
    snprintf(path, sizeof path, "%s/loop.s", o->work);
    if (!write_file(path, loop->text)) return false;
    double time = cycles(path, cpu, attributes);
    for (unsigned i = 0; i < mca_n_multiplies; i++) {
        if (loop->count[i] == 0) continue;
        limit += loop->count[i] * rate(o, &mca_multiplies[i], cpu, attributes);
        macs += (int)loop->count[i] * mca_multiplies[i].macs;
    }
    if (time <= 0 || limit <= 0) {
        fprintf(stderr, "mpqc-mca: llvm-mca-19 does not understand the loop of '%s' for %s; "
                        "see %s\n", l->name, cpu, path);
        return false;
    }
    if (o->markdown) printf(" %.1f, %.0f %% |", macs / time, 100 * limit / time);
    else
        printf("%-20s %-12s %5u %5u %6u %8.1f %8.1f %6.0f %%\n", l->name, cpu, loop->instructions,
               loop->loads, loop->stack, time, macs / time, 100 * limit / time);
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
        printf("%s\n%-20s %-12s instr loads  stack   cycles MAC/cycle  limit\n",
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
