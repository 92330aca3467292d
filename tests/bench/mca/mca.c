/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 *   mpqc-mca [-arch=NAME] [-row=VARIANT] [-cpu=CPU] [-layer=NAME] [-tile] [-show]
 *            [-markdown]
 *
 * compiles layers for rows of targets.def, takes from each the innermost loop that
 * multiplies most and asks llvm-mca-19 how many cycles one pass takes.  The limit is what
 * the loop's multiplications alone would take, at the rate that llvm-mca gives for
 * independent ones on the same core.  Where something else takes the time, the busiest of the
 * core's units tells what: at 100 % the loop is as fast as its instructions can be.
 * -tile: of 1x1 layers with a dot product of x86, the loop with all its turns and what
 * surrounds it, which is what counts where K is short; other layers are left out.
 */
#include "tests/bench/mca/mca.h"

#include "driver/temporary.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

/* What llvm-mca has a wrong idea of, for one core: `instead` has the same operands and does
 * what the core is known to do. */
struct wrong {
    const char *name;
    bool loads; /* only where it loads */
    const char *instead;
};
/* A word from memory to all lanes takes a load and nothing else; LLVM 19 adds a cycle of port 0
 * or 5 (64 bytes on Skylake and Ice Lake), of FP1 or FP2 (Zen 4), with which no loop could be as
 * fast as some have been measured. */
#define BROADCASTS {"vpbroadcastd", true, "vmovdqu32"}, {"vbroadcastss", true, "vmovups"}
static const struct wrong wrong_of_skylake[] = {BROADCASTS, {NULL, false, NULL}};
/* vpdpbusd of registers has 4 cycles of FP0 or FP1, whatever its width; in truth it is like a
 * multiplication of floats, 1 or (64 bytes) 2. */
static const struct wrong wrong_of_znver4[] = {
    BROADCASTS, {"vpdpbusd", false, "vfmadd231ps"}, {NULL, false, NULL}};

struct core {
    const char *name;
    const struct wrong *wrong; /* or NULL */
};
#define CORE(name) {name, NULL}
#define SKYLAKE {"skylake-avx512", wrong_of_skylake}
#define ICELAKE {"icelake-server", wrong_of_skylake}
#define ZNVER4 {"znver4", wrong_of_znver4}
static const struct row {
    const struct mca_arch *arch;
    const char *variant;
    struct core cores[4];
    const char *attributes;
} rows[] = {
    {&mca_aarch64, "neon", {CORE("cortex-a53"), CORE("cortex-a55"), CORE("cortex-a72")}, "+neon"},
    {&mca_aarch64,
     "dotprod",
     {CORE("cortex-a55"), CORE("cortex-a76"), CORE("neoverse-n1"), CORE("neoverse-v1")},
     "+dotprod"},
    {&mca_aarch64,
     "i8mm",
     {CORE("cortex-a510"), CORE("neoverse-v1"), CORE("neoverse-n2"), CORE("neoverse-v2")},
     "+dotprod,+i8mm"},
    {&mca_x86_64,
     "avx2",
     {CORE("skylake"), CORE("znver3"), ZNVER4, CORE("sapphirerapids")},
     "+avx2"},
    {&mca_x86_64, "avx-vnni", {CORE("alderlake"), CORE("sapphirerapids")}, "+avxvnni"},
    {&mca_x86_64, "avx512", {SKYLAKE, ICELAKE, ZNVER4}, "+avx512bw"},
    {&mca_x86_64, "avx512-vnni", {ICELAKE, ZNVER4}, "+avx512vnni"},
};

/* Percent of the limit, below which a table tells what is busy instead. */
#define GOAL 85

struct options {
    const char *arch, *row, *cpu, *layer;
    bool show, markdown, tile;
    char work[MPQC_TEMPORARY_PATH];
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
static bool ask(const char *path, const struct row *row, const struct core *core,
                struct answer *out)
{
    char command[512 + MPQC_TEMPORARY_PATH], line[1024];
    struct unit units[64];
    unsigned n = 0;
    int passes = 200, total = -1, heading = 0;
    snprintf(command, sizeof command,
             "llvm-mca-19 -mtriple=%s -mcpu=%s -mattr=%s -iterations=%d "
             "-instruction-info=0 %s 2>/dev/null",
             row->arch->triple, core->name, row->attributes, passes, path);
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

/* The line of code (n bytes, no blanks before the instruction) as the core's model is to be
 * asked. */
static void write_line(FILE *f, const char *s, size_t n, const struct row *row,
                       const struct core *core)
{
    char line[512];
    snprintf(line, sizeof line, "%.*s\n", (int)n, s);
    for (const struct wrong *w = core->wrong; w && w->name; w++) {
        size_t name = strlen(w->name);
        if (strncmp(s, w->name, name) != 0 || !strchr(" \t", s[name])) continue;
        if (w->loads && !row->arch->loads(line)) continue;
        fprintf(f, "\t%s%s", w->instead, line + name);
        return;
    }
    fprintf(f, "\t%s", line);
}

static bool write_file(const char *path, const char *text, const struct row *row,
                       const struct core *core)
{
    FILE *f = fopen(path, "w");
    if (!f) return false;
    while (*text) {
        size_t n = strcspn(text, "\n");
        if (*text == '\t') write_line(f, text + 1, n - 1, row, core);
        else fprintf(f, "%.*s\n", (int)n, text);
        text += n + (text[n] == '\n');
    }
    return fclose(f) == 0;
}

/* One instruction, with r for "#". */
static void write_numbered(FILE *f, const char *code, int r)
{
    fputc('\t', f);
    for (; *code && *code != ';'; code++)
        if (*code == '#') fprintf(f, "%d", r);
        else fputc(*code, f);
    fputc('\n', f);
}

/* Cycles of one of many independent multiplications. */
static double rate(const struct options *o, const struct row *row, const struct core *core,
                   const struct mca_multiply *m)
{
    char path[MPQC_TEMPORARY_PATH + 16], *code = NULL;
    size_t size;
    int all = row->arch->registers;
    struct answer answer;
    FILE *f = open_memstream(&code, &size);
    if (!f) return -1;
    for (const char *part = m->code; *part; part += strspn(part, ";")) {
        for (int r = 0; r < all; r++) write_numbered(f, part, r);
        part += strcspn(part, ";");
    }
    snprintf(path, sizeof path, "%s/rate.s", o->work);
    bool ok = fclose(f) == 0 && write_file(path, code, row, core) &&
              ask(path, row, core, &answer);
    free(code);
    return ok ? answer.cycles / all : -1;
}

/* The unit's name without the core's. */
static const char *short_name(const char *unit)
{
    const char *at = strstr(unit, "Unit"), *port = strstr(unit, "Port");
    if (at) return at + strlen("Unit");
    return port ? port : strncmp(unit, "Zn", 2) == 0 ? unit + strlen("Zn4") : unit;
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
    return m->counts ? m->macs / (int)(l->weight_bits * l->activation_bits) : m->macs;
}

static bool report(const struct options *o, const struct mca_layer *l, const struct mca_loop *loop,
                   const struct row *row, const struct core *core)
{
    char path[MPQC_TEMPORARY_PATH + 16];
    double limit = 0;
    int macs = 0;
    struct answer answer;
    snprintf(path, sizeof path, "%s/loop.s", o->work);
    if (!write_file(path, loop->text, row, core)) return false;
    bool ok = ask(path, row, core, &answer);
    for (unsigned i = 0; i < row->arch->n_multiplies; i++) {
        if (loop->count[i] == 0) continue;
        limit += loop->count[i] * rate(o, row, core, &row->arch->multiplies[i]);
        macs += (int)loop->count[i] * macs_of(l, &row->arch->multiplies[i]);
    }
    if (!ok || limit <= 0) {
        fprintf(stderr, "mpqc-mca: llvm-mca-19 does not understand the loop of '%s' for %s\n",
                l->name, core->name);
        return false;
    }
    double own = layer_macs(l, loop);
    print_answer(o, l, loop, core->name, &answer, limit, own > 0 ? own : macs);
    return true;
}

/* The row's next core that is asked for, from number c on. */
static const struct core *core_at(const struct options *o, const struct row *row, unsigned *c)
{
    for (; *c < MPQC_LEN(row->cores) && row->cores[*c].name; ++*c)
        if (!o->cpu || strcmp(o->cpu, row->cores[*c].name) == 0) return &row->cores[*c];
    return NULL;
}

static bool one_layer(const struct options *o, const struct mca_layer *l, const struct row *row)
{
    char target[64], path[MPQC_TEMPORARY_PATH + 16];
    struct mca_loop loop;
    const struct core *core;
    bool ok = true;
    snprintf(target, sizeof target, "%s:%s", row->arch->name, row->variant);
    snprintf(path, sizeof path, "%s/layer.s", o->work);
    if (!mca_compile(l, target, path)) return false;
    int steps = o->tile ? (l->channels + 3) / 4 : 0;
    if (!mca_find_loop(row->arch, path, steps, &loop)) {
        fprintf(stderr, "mpqc-mca: no loop of '%s' multiplies\n", l->name);
        return false;
    }
    if (o->markdown) printf("| %s | %u | %u |", l->name, loop.instructions, loop.stack);
    for (unsigned c = 0; (core = core_at(o, row, &c)) != NULL; c++)
        ok &= report(o, l, &loop, row, core);
    if (o->markdown) puts("");
    if (o->show) puts(loop.text);
    free(loop.text);
    return ok;
}

static void print_head(const struct options *o, const struct row *row)
{
    const struct core *core;
    if (!o->markdown) {
        printf("%s\n%-21s %-12s instr loads  stack   cycles MAC/cycle  limit  "
               "busiest unit\n",
               row->variant, "layer", "core");
        return;
    }
    printf("\n### %s\n\n| layer | instructions | on the stack |", row->variant);
    for (unsigned c = 0; (core = core_at(o, row, &c)) != NULL; c++) printf(" %s |", core->name);
    printf("\n|---|---|---|");
    for (unsigned c = 0; core_at(o, row, &c); c++) printf("---|");
    puts("");
}

static bool all(const struct options *o)
{
    bool ok = true;
    for (unsigned r = 0; r < MPQC_LEN(rows); r++) {
        if (o->row && strcmp(o->row, rows[r].variant) != 0) continue;
        if (o->arch && strcmp(o->arch, rows[r].arch->name) != 0) continue;
        print_head(o, &rows[r]);
        for (unsigned l = 0; l < MPQC_LEN(layers); l++)
            if ((!o->layer || strcmp(o->layer, layers[l].name) == 0) &&
                (!o->tile || layers[l].k == 1))
                ok &= one_layer(o, &layers[l], &rows[r]);
    }
    return ok;
}

static bool read_flags(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-arch=", 6) == 0) o->arch = argv[i] + 6;
        else if (strncmp(argv[i], "-row=", 5) == 0) o->row = argv[i] + 5;
        else if (strncmp(argv[i], "-cpu=", 5) == 0) o->cpu = argv[i] + 5;
        else if (strncmp(argv[i], "-layer=", 7) == 0) o->layer = argv[i] + 7;
        else if (strcmp(argv[i], "-show") == 0) o->show = true;
        else if (strcmp(argv[i], "-tile") == 0) o->tile = true;
        else if (strcmp(argv[i], "-markdown") == 0) o->markdown = true;
        else return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    if (!read_flags(argc, argv, &o)) {
        fprintf(stderr, "usage: mpqc-mca [-arch=NAME] [-row=VARIANT] [-cpu=CPU] [-layer=NAME] "
                        "[-tile] [-show] [-markdown]\n");
        return 1;
    }
    if (system("llvm-mca-19 --version >/dev/null 2>&1") != 0) {
        fprintf(stderr, "mpqc-mca: llvm-mca-19 is missing; it is in the package llvm-19\n");
        return 1;
    }
    mpqc_temporary_guard();
    if (!mpqc_temporary_folder(o.work)) {
        fprintf(stderr, "mpqc-mca: %s: %s\n", o.work, strerror(errno));
        return 1;
    }
    bool ok = all(&o);
    mpqc_temporary_remove(o.work);
    return ok ? 0 : 1;
}
