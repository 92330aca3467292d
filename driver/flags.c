/* SPDX-License-Identifier: MIT */
#include "driver/flags.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Levenshtein distance, for words of at most 63 characters; longer ones are
 * infinitely far from anything. */
static unsigned distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    unsigned row[64];
    if (la > 63 || lb > 63) return 1000;
    for (size_t j = 0; j <= lb; j++) row[j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[lb];
}

const char *mpqc_nearest(const char *text, const char *(*next)(const void *user, size_t i),
                         const void *user)
{
    const char *best = NULL;
    /* More than a third of the letters wrong is no typing error. */
    unsigned best_distance = (unsigned)strlen(text) / 3 + 2;
    const char *candidate;
    for (size_t i = 0; (candidate = next(user, i)) != NULL; i++) {
        unsigned d = distance(text, candidate);
        if (d < best_distance) {
            best_distance = d;
            best = candidate;
        }
    }
    return best;
}

struct flag_names {
    const struct mpqc_flag *table;
    size_t n;
};

static const char *flag_name(const void *user, size_t i)
{
    const struct flag_names *f = user;
    for (size_t k = 0; k < f->n; k++)
        if (f->table[k].name && i-- == 0) return f->table[k].name;
    return NULL;
}

static int unknown(const struct mpqc_flag *table, size_t n, const char *name, char *err)
{
    struct flag_names names = {table, n};
    const char *near = mpqc_nearest(name, flag_name, &names);
    if (near)
        snprintf(err, MPQC_FLAG_ERROR, "unknown flag '-%s'; did you mean '-%s'?", name, near);
    else
        snprintf(err, MPQC_FLAG_ERROR, "unknown flag '-%s'; -help lists the flags", name);
    return -1;
}

static const struct mpqc_flag *find(const struct mpqc_flag *table, size_t n, const char *name,
                                    size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (table[i].name && strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
            return &table[i];
    return NULL;
}

/* One flag at argv[*i]; moves *i over a separate value. */
static int parse_one(const struct mpqc_flag *table, size_t n, int argc, char **argv, int *i,
                     void *options, char *err)
{
    const char *arg = argv[*i] + 1;
    if (*arg == '-') arg++;
    const char *equals = strchr(arg, '=');
    size_t len = equals ? (size_t)(equals - arg) : strlen(arg);
    const struct mpqc_flag *f = find(table, n, arg, len);
    if (!f) {
        char name[80];
        snprintf(name, sizeof name, "%.*s", (int)(len < 79 ? len : 79), arg);
        return unknown(table, n, name, err);
    }
    if (!f->metavar) {
        if (!equals) return f->set(options, f->name, NULL, err);
        snprintf(err, MPQC_FLAG_ERROR, "flag '-%s' takes no value", f->name);
        return -1;
    }
    if (equals) return f->set(options, f->name, equals + 1, err);
    if (*i + 1 >= argc) {
        snprintf(err, MPQC_FLAG_ERROR, "flag '-%s' needs a value: -%s=%s", f->name, f->name,
                 f->metavar);
        return -1;
    }
    return f->set(options, f->name, argv[++*i], err);
}

int mpqc_flags_parse(const struct mpqc_flag *table, size_t n, int argc, char **argv,
                     void *options, mpqc_flag_fn positional, char *err)
{
    int only_positional = 0;
    for (int i = 1; i < argc; i++) {
        if (!only_positional && strcmp(argv[i], "--") == 0) {
            only_positional = 1;
            continue;
        }
        int is_flag = !only_positional && argv[i][0] == '-' && argv[i][1] != '\0';
        int rc = is_flag ? parse_one(table, n, argc, argv, &i, options, err)
                         : positional(options, NULL, argv[i], err);
        if (rc != 0) return -1;
    }
    return 0;
}

#define HELP_LEFT 36
#define HELP_WIDTH 64

/* The right column: broken at spaces, each line but the first indented. */
static void print_wrapped(const char *text)
{
    size_t len = strlen(text);
    while (len > HELP_WIDTH) {
        size_t n = HELP_WIDTH;
        while (n > 0 && text[n] != ' ') n--;
        if (n == 0) break;
        printf("%.*s\n%*s", (int)n, text, HELP_LEFT, "");
        text += n + 1;
        len -= n + 1;
    }
    printf("%s\n", text);
}

void mpqc_flags_help(const struct mpqc_flag *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct mpqc_flag *f = &table[i];
        if (!f->name) {
            printf("\n%s:\n", f->help);
            continue;
        }
        const char *metavar = f->metavar ? f->metavar : "";
        int used = printf("  -%s%s%s ", f->name, f->metavar ? "=" : "", metavar);
        printf("%*s", used < HELP_LEFT ? HELP_LEFT - used : 0, "");
        print_wrapped(f->help);
    }
}

int mpqc_flag_int(const char *flag, const char *value, int64_t lo, int64_t hi, int64_t *out,
                  char *err)
{
    char *end;
    errno = 0;
    long long v = strtoll(value, &end, 10);
    if (errno || end == value || *end || v < lo || v > hi) {
        snprintf(err, MPQC_FLAG_ERROR, "-%s wants a whole number from %lld to %lld, not '%s'",
                 flag, (long long)lo, (long long)hi, value);
        return -1;
    }
    *out = v;
    return 0;
}

int mpqc_flag_real(const char *flag, const char *value, double *out, char *err)
{
    char *end;
    errno = 0;
    double v = strtod(value, &end);
    if (errno || end == value || *end || !(v - v == 0)) {
        snprintf(err, MPQC_FLAG_ERROR, "-%s wants a number, not '%s'", flag, value);
        return -1;
    }
    *out = v;
    return 0;
}

int mpqc_flag_refuse(const char *flag, const char *value, const char *known, char *err)
{
    snprintf(err, MPQC_FLAG_ERROR, "-%s=%.64s is not known; it is one of %s", flag, value, known);
    return -1;
}

int mpqc_flag_path(const char *flag, const char *value, const char *what,
                   struct mpqc_named_path *list, uint32_t *n, uint32_t most, char *err)
{
    if (*n == most) {
        snprintf(err, MPQC_FLAG_ERROR, "-%s is given more than %u times", flag, most);
        return -1;
    }
    struct mpqc_named_path *p = &list[(*n)++];
    const char *colon = strchr(value, ':');
    size_t len = colon ? (size_t)(colon - value) : 0;
    *p = (struct mpqc_named_path){.path = value};
    if (colon && access(value, F_OK) != 0 && len < sizeof p->name) {
        memcpy(p->name, value, len);
        p->path = colon + 1;
    }
    if (*p->path) return 0;
    snprintf(err, MPQC_FLAG_ERROR, "-%s wants [%s:]PATH, not '%.200s'", flag, what, value);
    return -1;
}
