/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * bench_kernels: how near to the limit each kernel template is, for every target that this
 * CPU runs, on layers of real networks (shapes.def).
 *
 *     bench_kernels [-network=TEXT] [-layer=TEXT] [-target=ROW] [-bits=8,4,w1a2] [-rounds=N]
 *                   [-tiles=N] [-dir=FOLDER] [-tsv=FILE] [-page=FILE]
 *
 * Each layer is compiled alone by mpqc's passes and code generator; all libraries are run
 * in this process in turn.  -tiles=N also measures the cost model's N best tiles of every
 * layer, -tiles=grid many tiles whatever it thinks of them.  With -dir libraries are kept
 * there and used again.
 */
#include "tests/bench/kernels/bench.h"

#include "codegen/target.h"
#include "driver/flags.h"
#include "driver/temporary.h"
#include "passes/bits.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    const char *network, *layer, *target, *dir, *tsv, *page;
    const struct mpqc_choice *choice[16]; /* by bits, from most to least */
    unsigned n_choices;
    uint32_t tiles; /* ranks to measure; 0: the best only */
    bool grid, help;
    int64_t rounds;
};

_Noreturn void bench_die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("bench_kernels: error: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* ---- flags ---- */

#define HANDLER(name) static MPQC_FLAG_HANDLER(name)
#define TEXT(name)                                                                                \
    HANDLER(set_##name)                                                                           \
    {                                                                                             \
        ((struct options *)options)->name = value;                                                \
        return 0;                                                                                 \
    }
TEXT(network)
TEXT(layer)
TEXT(target)
TEXT(dir)
TEXT(tsv)
TEXT(page)

HANDLER(set_bits)
{
    struct options *o = options;
    for (o->n_choices = 0; *value; value += *value == ',') {
        char name[8] = "";
        size_t n = strcspn(value, ",");
        if (n == 1) snprintf(name, sizeof name, "w%.1sa8", value);
        else if (n < sizeof name) memcpy(name, value, n);
        const struct mpqc_choice *c = mpqc_choice_find(name);
        if (!c || c->activation_bits > 8 || o->n_choices == MPQC_LEN(o->choice)) {
            snprintf(err, MPQC_FLAG_ERROR, "-%s wants a list such as 8,4,w1a2, not '%s'", flag,
                     value);
            return -1;
        }
        o->choice[o->n_choices++] = c;
        value += n;
    }
    return 0;
}

HANDLER(set_rounds)
{
    return mpqc_flag_int(flag, value, 0, 100000, &((struct options *)options)->rounds, err);
}

HANDLER(set_tiles)
{
    struct options *o = options;
    int64_t n = 0;
    o->grid = strcmp(value, "grid") == 0;
    if (!o->grid && mpqc_flag_int(flag, value, 1, MPQC_MAX_TILE_RANK, &n, err)) return -1;
    o->tiles = (uint32_t)n;
    return 0;
}

HANDLER(set_help)
{
    ((struct options *)options)->help = true;
    return 0;
}

HANDLER(positional)
{
    snprintf(err, MPQC_FLAG_ERROR, "'%s' is no flag", value);
    return -1;
}

static const struct mpqc_flag flags[] = {
    {"network", "TEXT", set_network, "only networks with that in their names"},
    {"layer", "TEXT", set_layer, "only layers with that in their names"},
    {"target", "ROW", set_target, "only that row of mpqc -list-targets, or native"},
    {"bits", "8,4,w1a2", set_bits, "bits of weights, or choices"},
    {"rounds", "N", set_rounds, "how often each library has its turn (7); 0: only compile"},
    {"tiles", "N|grid", set_tiles, "measure the N best tiles, or many"},
    {"dir", "FOLDER", set_dir, "keeps libraries there, and uses those that are there"},
    {"tsv", "FILE", set_tsv, "tab-separated rows"},
    {"page", "FILE", set_page, "tables as Markdown"},
    {"help", NULL, set_help, "prints this and ends"}};

/* ---- the list of cases ---- */

struct list {
    struct bench_case *c;
    size_t n, cap;
    struct mpqc_target target[16];
    unsigned n_targets;
};

static void add_case(struct list *l, const struct bench_case *c)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 256;
        l->c = realloc(l->c, l->cap * sizeof *l->c);
        if (!l->c) bench_die("out of memory");
    }
    l->c[l->n++] = *c;
}

/* Positions of the output as tiles see them: 1x1 windows without strides lie in one line. */
static void extent_of(const struct bench_shape *s, uint32_t *rows, uint32_t *cols)
{
    *rows = (uint32_t)((s->h + s->k / 2 * 2 - s->k) / s->s + 1);
    *cols = (uint32_t)((s->w + s->k / 2 * 2 - s->k) / s->s + 1);
    if (s->k > 1 || s->s > 1) return;
    *cols *= *rows;
    *rows = 1;
}

/* Tiles that use a fair part of 32 registers, without regard to the cost model; overlapping
 * ones where that makes a difference; those of AMX. */
static void add_grid(struct list *l, struct bench_case *c)
{
    static const uint8_t wide[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 28};
    uint32_t rows, cols;
    extent_of(c->shape, &rows, &cols);
    for (uint32_t nv = 1; nv <= 7 && 16 * (nv - 1) < c->shape->oc; nv++)
        for (uint32_t mh = 1; mh <= 3 && mh <= rows; mh++)
            for (size_t i = 0; i < MPQC_LEN(wide) && wide[i] <= cols; i++) {
                uint32_t dots = mh * wide[i] * nv, ragged = rows % mh || cols % wide[i];
                if (dots + nv > 31 || (dots < 10 && dots < rows * cols * nv)) continue;
                for (uint32_t overlap = 0; overlap <= ragged; overlap++) {
                    c->wish = mh | (uint32_t)wide[i] << 8 | nv << 16 | overlap << 24;
                    add_case(l, c);
                }
            }
    for (uint32_t amx = 0; amx < 6; amx++) {
        c->wish = MPQC_TILE_AMX | 1u << (16 + amx / 2) | amx % 2;
        add_case(l, c);
    }
    c->wish = 0;
}

static bool has_packed_weights(const struct bench_shape *s)
{
    return (s->kind == CONV && (s->g == 1 || s->g != s->c)) || s->kind == DENSE;
}

static void add_shape(struct list *l, const struct options *o, const struct bench_shape *s,
                      const struct mpqc_target *t)
{
    for (unsigned i = 0; i < o->n_choices; i++) {
        struct bench_case c = {.shape = s, .target = t, .bits = o->choice[i]->weight_bits,
                               .activation_bits = o->choice[i]->activation_bits};
        if (c.bits < 8 && !has_packed_weights(s)) continue;
        add_case(l, &c);
        if (!has_packed_weights(s)) continue;
        if (o->grid) add_grid(l, &c);
        for (c.rank = 1; c.rank < o->tiles; c.rank++) add_case(l, &c);
    }
}

static void find_targets(struct list *l, const struct options *o)
{
    struct mpqc_cx cx;
    const char *name;
    mpqc_cx_init(&cx, NULL);
    if (o->target && mpqc_target_find(&cx, o->target, NULL, &l->target[0]) == MPQC_OK)
        l->n_targets = 1;
    else if (o->target) bench_die("there is no target '%s'", o->target);
    for (unsigned i = 0; !o->target && (name = mpqc_target_name(i)); i++)
        if (l->n_targets < MPQC_LEN(l->target) &&
            mpqc_target_find(&cx, name, NULL, &l->target[l->n_targets]) == MPQC_OK &&
            mpqc_target_on_host(mpqc_target_row(&l->target[l->n_targets])))
            l->n_targets++;
    if (l->n_targets == 1 && !mpqc_target_on_host(mpqc_target_row(&l->target[0])))
        bench_die("this CPU cannot run code for %s", l->target[0].name);
    mpqc_cx_release(&cx);
}

static void make_list(struct list *l, const struct options *o)
{
    find_targets(l, o);
    for (size_t i = 0; i < bench_n_shapes; i++) {
        const struct bench_shape *s = &bench_shapes[i];
        if ((o->network && !strstr(s->network, o->network)) ||
            (o->layer && !strstr(s->layer, o->layer)))
            continue;
        for (unsigned t = 0; t < l->n_targets; t++) add_shape(l, o, s, &l->target[t]);
    }
    if (l->n == 0) bench_die("no layer has such a name");
}

/* ---- compiling ---- */

/* The library's path, from all that tells cases apart. */
static void name_library(struct bench_case *c, const char *dir)
{
    int n = snprintf(c->path, sizeof c->path, "%s/%s.%s.%s.w%ua%u.%u.%x.so", dir,
                     c->shape->network, c->shape->layer, strchr(c->target->name, ':') + 1, c->bits,
                     c->activation_bits, c->rank, c->wish);
    if (n < 0 || (size_t)n >= sizeof c->path) bench_die("%s: too long", dir);
    for (char *p = c->path + strlen(dir) + 1; *p; p++)
        if (*p == ' ' || *p == '/') *p = '_';
}

/* What is known about a library beside it. */
static bool facts_file(struct bench_case *c, bool write)
{
    char path[sizeof c->path + 8];
    unsigned long long shape = c->tile.shape;
    snprintf(path, sizeof path, "%s.facts", c->path);
    FILE *f = fopen(path, write ? "w" : "r");
    if (!f) return false;
    bool ok = true;
    if (write)
        fprintf(f, "%u %llx %u %.17g\n", c->layer, shape, c->tile.tile, c->tile.predicted);
    else
        ok = fscanf(f, "%u %llx %u %lf", &c->layer, &shape, &c->tile.tile, &c->tile.predicted) == 4;
    c->tile.shape = shape;
    return fclose(f) == 0 && ok && access(c->path, R_OK) == 0;
}

static void remove_library(const struct bench_case *c)
{
    char path[sizeof c->path + 8];
    snprintf(path, sizeof path, "%s.facts", c->path);
    unlink(c->path);
    unlink(path);
}

/* keep: the folder is the user's */
static void compile_all(struct list *l, const char *dir, bool keep)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->n; i++) {
        struct bench_case *c = &l->c[i];
        name_library(c, dir);
        if (!facts_file(c, false)) {
            bench_make(c);
            if (!facts_file(c, true)) bench_die("%s: cannot be written", c->path);
        }
        if (isatty(STDERR_FILENO)) fprintf(stderr, "\rcompile %zu/%zu", i + 1, l->n);
        /* a wish that the layer has no such tile for became another one */
        if (c->wish == 0 || c->tile.tile == c->wish) l->c[kept++] = *c;
        else if (!keep) remove_library(c);
    }
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
    l->n = kept;
}

static void write_file(const char *path, const struct list *l,
                       void (*print)(const struct bench_case *, size_t, FILE *))
{
    if (!path) return;
    FILE *f = fopen(path, "w");
    if (!f) bench_die("%s: %s", path, strerror(errno));
    print(l->c, l->n, f);
    if (fclose(f) != 0) bench_die("%s: cannot be written", path);
}

int main(int argc, char **argv)
{
    struct options o = {.rounds = 7};
    struct list l = {.n = 0};
    char err[MPQC_FLAG_ERROR], made[MPQC_TEMPORARY_PATH];
    (void)set_bits(&o, "bits", "8,4,2", err);
    if (mpqc_flags_parse(flags, MPQC_LEN(flags), argc, argv, &o, positional, err))
        bench_die("%s", err);
    if (o.help) {
        puts("usage: bench_kernels [FLAG]...\nTimes single layers in tiles, per cent of peak.\n");
        mpqc_flags_help(flags, MPQC_LEN(flags));
        return 0;
    }
    mpqc_temporary_guard();
    if (!o.dir && !mpqc_temporary_folder(made)) bench_die("%s: %s", made, strerror(errno));
    if (o.dir) (void)mkdir(o.dir, 0777);
    make_list(&l, &o);
    compile_all(&l, o.dir ? o.dir : made, o.dir != NULL);
    if (o.rounds > 0) {
        bench_time(l.c, l.n, (unsigned)o.rounds);
        bench_print_table(l.c, l.n, stdout);
        write_file(o.tsv, &l, bench_print_tsv);
        write_file(o.page, &l, bench_print_page);
    }
    for (size_t i = 0; i < l.n; i++)
        if (l.c[i].library) dlclose(l.c[i].library);
    if (!o.dir) mpqc_temporary_remove(made);
    free(l.c);
    return 0;
}
