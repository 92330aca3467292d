/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Golden tests of the text form, the verifier and the passes: see README.md for
 * the format of a case.
 *
 *   golden_runner [-bless] FILE-OR-FOLDER...
 *
 * Exit status 1 when a case does not give what it says.
 */
#include "ir/elements.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"

#include <glob.h>

#define MAX_STEPS 16
static const char separator[] = "\n---\n";

struct run {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_pass_cx p;
    struct mpqc_options options;
    struct mpqc_dataset data;
    uint64_t seed;
    char *steps[MAX_STEPS];
    uint32_t n_steps;
};

/* ---- the case's own words ---- */

/* The rest of the line "# KEY: rest", in the arena; NULL when there is none. */
static char *header(struct mpqc_arena *a, const char *text, const char *key)
{
    const char *line = text;
    size_t n = strlen(key);
    while (line && *line == '#') {
        if (strncmp(line, "# ", 2) == 0 && strncmp(line + 2, key, n) == 0 && line[n + 2] == ':') {
            const char *start = line + n + 3 + strspn(line + n + 3, " ");
            char *rest = mpqc_arena_copy(a, start, strcspn(start, "\n") + 1);
            if (rest) rest[strcspn(start, "\n")] = '\0';
            return rest;
        }
        line = strchr(line, '\n');
        if (line) line++;
    }
    return NULL;
}

static bool set_option(struct mpqc_options *o, char *word)
{
    char *value = strchr(word, '=');
    if (value) *value++ = '\0';
    if (!value && strcmp(word, "int-io") == 0) o->int_io = true;
    else if (!value && strcmp(word, "allow-float") == 0) o->allow_float = true;
    else if (value && strcmp(word, "wbits") == 0) o->weight_bits = (unsigned)strtoul(value, NULL, 10);
    else if (value && strcmp(word, "abits") == 0)
        o->activation_bits = (unsigned)strtoul(value, NULL, 10);
    else if (value && strcmp(word, "calibration") == 0) return mpqc_options_calibration(o, value);
    else if (value && strcmp(word, "profile") == 0) o->load_profile = value;
    else return false;
    return true;
}

static mpqc_status get_random(void *user, struct mpqc_cx *cx, uint64_t index, void *const *inputs)
{
    const struct run *r = user;
    (void)cx;
    for (uint32_t i = 0; i < r->g.n_inputs; i++) {
        const struct mpqc_type *t = &r->g.values[r->g.inputs[i]].type;
        mpqc_elements_random(t->dtype, inputs[i], mpqc_type_count(t),
                             r->seed * 1000003u + index * 1009u + i);
    }
    return MPQC_OK;
}

static mpqc_status read_headers(struct run *r, const char *text)
{
    char *rest, *save;
    struct mpqc_arena *a = &r->cx.arena;
    rest = header(a, text, "run");
    for (char *w = rest ? strtok_r(rest, ", ", &save) : NULL; w; w = strtok_r(NULL, ", ", &save))
        if (r->n_steps < MAX_STEPS) r->steps[r->n_steps++] = w;
    if (r->n_steps == 0)
        return MPQC_FAIL(&r->cx, USAGE, MPQC_NOWHERE, "the case has no line '# run: ...'");
    rest = header(a, text, "options");
    for (char *w = rest ? strtok_r(rest, " ", &save) : NULL; w; w = strtok_r(NULL, " ", &save))
        if (!set_option(&r->options, w))
            return MPQC_FAIL(&r->cx, USAGE, MPQC_NOWHERE, "unknown option '%s'", w);
    rest = header(a, text, "data");
    if (!rest) return MPQC_OK;
    char *end;
    r->data = (struct mpqc_dataset){strtoull(rest, &end, 10), get_random, r};
    r->seed = strncmp(end, " seed ", 6) == 0 ? strtoull(end + 6, NULL, 10) : 0;
    r->p.data = &r->data;
    return MPQC_OK;
}

/* ---- running ---- */

static mpqc_status run_step(struct run *r, const char *step)
{
    bool stopped;
    if (strcmp(step, "text") == 0) return MPQC_OK;
    if (strcmp(step, "verify-float") == 0) return mpqc_verify(&r->cx, &r->g, MPQC_VERIFY_FLOAT);
    if (strcmp(step, "verify-mixed") == 0) return mpqc_verify(&r->cx, &r->g, MPQC_VERIFY_MIXED);
    if (strcmp(step, "verify-integer") == 0)
        return mpqc_verify(&r->cx, &r->g, MPQC_VERIFY_INTEGER);
    return mpqc_pipeline_run(&r->p, &r->g, &step, 1, &stopped);
}

static mpqc_status run_input(struct run *r, const char *text, size_t len, struct mpqc_buf *result)
{
    MPQC_TRY(read_headers(r, text));
    MPQC_TRY(mpqc_graph_parse(&r->cx, text, len, "input", &r->g));
    MPQC_TRY(mpqc_graph_normalise(&r->cx, &r->g));
    for (uint32_t i = 0; i < r->n_steps; i++) MPQC_TRY(run_step(r, r->steps[i]));
    return mpqc_pass_text(&r->p, &r->g, r->steps[r->n_steps - 1], result);
}

/* What the case gives: the final text, or its diagnostics. */
static void run_case(const char *text, size_t len, struct mpqc_buf *result)
{
    struct run r = {.n_steps = 0};
    mpqc_cx_init(&r.cx, NULL);
    mpqc_graph_init(&r.g, NULL);
    mpqc_options_init(&r.options);
    r.options.verify_each = true;
    mpqc_pass_cx_init(&r.p, &r.cx, &r.options);
    if (run_input(&r, text, len, result) != MPQC_OK) {
        for (uint32_t i = 0; i < r.cx.n_diags; i++) {
            mpqc_diag_text(&r.cx.diags[i], result);
            mpqc_buf_puts(result, "\n");
        }
    }
    mpqc_pass_cx_release(&r.p);
    mpqc_graph_release(&r.g);
    mpqc_cx_release(&r.cx);
}

/* ---- files ---- */

static bool read_file(const char *path, struct mpqc_buf *to)
{
    char chunk[4096];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0) mpqc_buf_add(to, chunk, n);
    bool ok = !ferror(f) && !to->failed;
    fclose(f);
    return ok;
}

static bool bless(const char *path, const char *text, size_t len, const struct mpqc_buf *result)
{
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    fwrite(text, 1, len, f);
    fwrite(separator, 1, sizeof separator - 1, f);
    fwrite(result->data, 1, result->len, f);
    return fclose(f) == 0;
}

/* Shows the first line that differs. */
static void show_difference(const char *path, const char *want, const char *got)
{
    unsigned line = 1;
    while (*want && *want == *got) {
        size_t n = strcspn(want, "\n"), m = strcspn(got, "\n");
        if (n != m || memcmp(want, got, n) != 0) break;
        want += n + (want[n] != '\0');
        got += m + (got[m] != '\0');
        line++;
    }
    printf("FAIL %s: line %u of the result\n  want: %.*s\n  got:  %.*s\n", path, line,
           (int)strcspn(want, "\n"), want, (int)strcspn(got, "\n"), got);
}

static bool check_file(const char *path, bool blessing)
{
    struct mpqc_buf file, result;
    mpqc_buf_init(&file);
    mpqc_buf_init(&result);
    mpqc_buf_puts(&file, "");
    mpqc_buf_puts(&result, "");
    bool ok = read_file(path, &file);
    if (ok) {
        char *sep = strstr(file.data, separator);
        size_t len = sep ? (size_t)(sep - file.data) : file.len;
        const char *want = sep ? sep + sizeof separator - 1 : "";
        run_case(file.data, len, &result);
        ok = sep && strcmp(want, result.data) == 0;
        if (!ok && blessing) ok = bless(path, file.data, len, &result);
        else if (!ok) show_difference(path, want, result.data);
    } else {
        printf("FAIL %s: cannot be read\n", path);
    }
    mpqc_buf_release(&file);
    mpqc_buf_release(&result);
    return ok;
}

/* A file, or all cases in the folders of a folder. */
static void check_path(const char *path, bool blessing, unsigned *n, unsigned *bad)
{
    static const char *const patterns[] = {"/*/*.mpir", "/*.mpir"};
    size_t len = strlen(path);
    if (len > 5 && strcmp(path + len - 5, ".mpir") == 0) {
        ++*n;
        *bad += !check_file(path, blessing);
        return;
    }
    for (size_t k = 0; k < MPQC_LEN(patterns); k++) {
        glob_t found;
        char pattern[4096];
        snprintf(pattern, sizeof pattern, "%s%s", path, patterns[k]);
        if (glob(pattern, 0, NULL, &found) == 0)
            for (size_t i = 0; i < found.gl_pathc; i++)
                check_path(found.gl_pathv[i], blessing, n, bad);
        globfree(&found);
    }
}

int main(int argc, char **argv)
{
    unsigned n = 0, bad = 0;
    bool blessing = argc > 1 && strcmp(argv[1], "-bless") == 0;
    for (int i = blessing ? 2 : 1; i < argc; i++) check_path(argv[i], blessing, &n, &bad);
    printf("%u golden cases, %u failed\n", n, bad);
    return n == 0 || bad ? 1 : 0;
}
