/* SPDX-License-Identifier: GPL-3.0-or-later
 * Plans and tables of sensitivity as text; see bits_text.h.
 */
#include "passes/bits_text.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>

/* ---- plans ---- */

/* The name as a regular expression that matches nothing else.  Characters that do not
 * survive a line of text are matched by a dot. */
static void put_pattern(const char *name, struct mpqc_buf *to)
{
    mpqc_buf_puts(to, "^");
    for (; *name; name++) {
        if ((unsigned char)*name < ' ') {
            mpqc_buf_puts(to, ".");
            continue;
        }
        if (strchr(".[]{}()\\*+?|^$", *name)) mpqc_buf_puts(to, "\\");
        mpqc_buf_add(to, name, 1);
    }
    mpqc_buf_puts(to, "$");
}

static void put_comment(const char *about, struct mpqc_buf *to)
{
    while (about && *about) {
        size_t n = strcspn(about, "\n");
        mpqc_buf_puts(to, "# ");
        mpqc_buf_add(to, about, n);
        mpqc_buf_puts(to, "\n");
        about += n + (about[n] == '\n');
    }
}

void mpqc_bits_write_plan(const struct mpqc_bits *b, const uint32_t *chosen, const char *about,
                          struct mpqc_buf *to)
{
    put_comment(about, to);
    for (uint32_t l = 0; l < b->n_layers; l++) {
        put_pattern(b->layer[l].name, to);
        mpqc_buf_printf(to, "=%s\n", mpqc_choices[chosen ? chosen[l] : mpqc_choice_plain()].name);
    }
}

void mpqc_bits_write_choices(const struct mpqc_bits *b, const uint32_t *chosen, struct mpqc_buf *to)
{
    for (uint32_t l = 0; l < b->n_layers; l++)
        mpqc_buf_printf(to, "%s%s", l ? " " : "",
                        mpqc_choices[chosen ? chosen[l] : mpqc_choice_plain()].name);
}

/* ---- writing sensitivities ---- */

static void put_name(const char *s, struct mpqc_buf *to)
{
    mpqc_buf_puts(to, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') mpqc_buf_printf(to, "\\%c", c);
        else if (c < ' ' || c == 0x7f) mpqc_buf_printf(to, "\\x%02x", c);
        else mpqc_buf_add(to, s, 1);
    }
    mpqc_buf_puts(to, "\"");
}

/* A number, or - for none. */
static void put_value(double v, struct mpqc_buf *to)
{
    if (isfinite(v)) mpqc_buf_printf(to, " %.17g", v);
    else mpqc_buf_puts(to, " -");
}

static void put_figures(const struct mpqc_bits *b, struct mpqc_buf *to)
{
    if (b->n_figures == 0) return;
    mpqc_buf_puts(to, "\nfigures");
    for (uint32_t i = 0; i < b->n_figures; i++) mpqc_buf_printf(to, " %s", b->figure[i].name);
    for (uint32_t l = 0; l < b->n_layers; l++) {
        mpqc_buf_puts(to, "\nfigure ");
        put_name(b->layer[l].name, to);
        for (uint32_t i = 0; i < b->n_figures; i++) put_value(b->figure[i].value[l], to);
    }
}

static bool any_known(const struct mpqc_bits *b, uint32_t c)
{
    for (uint32_t l = 0; l < b->n_layers; l++)
        if (!isnan(b->omega[(size_t)l * mpqc_n_choices + c])) return true;
    return false;
}

void mpqc_bits_write_omega(const struct mpqc_bits *b, const char *metric, struct mpqc_buf *to)
{
    mpqc_buf_puts(to, "mpqc-sensitivity 1\nmetric ");
    put_name(metric, to);
    mpqc_buf_puts(to, "\nchoices");
    for (uint32_t c = 0; c < mpqc_n_choices; c++)
        if (any_known(b, c)) mpqc_buf_printf(to, " %s", mpqc_choices[c].name);
    for (uint32_t l = 0; l < b->n_layers; l++) {
        const struct mpqc_bits_layer *layer = &b->layer[l];
        mpqc_buf_puts(to, "\nlayer ");
        put_name(layer->name, to);
        mpqc_buf_printf(to, " params %" PRIu64 " macs %" PRIu64 " :", layer->params, layer->macs);
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            if (any_known(b, c)) put_value(b->omega[(size_t)l * mpqc_n_choices + c], to);
    }
    put_figures(b, to);
    mpqc_buf_puts(to, "\nend\n");
}

/* ---- reading them ---- */

struct reader {
    struct mpqc_cx *cx;
    const char *path, *at;
    unsigned line;
    struct mpqc_arena *arena;
    struct mpqc_bits *bits;
    uint32_t column[16]; /* choice of each column; mpqc_n_choices: none that we know */
    uint32_t n_columns;
    bool *seen; /* by layer */
};

static mpqc_status malformed(const struct reader *r, const char *wanted)
{
    return MPQC_FAIL(r->cx, FORMAT, ((struct mpqc_where){.file = r->path, .offset = -1}),
                     "line %u: this is not a table of sensitivity: %s is missing", r->line, wanted);
}

static mpqc_status other_network(const struct reader *r, const char *why, const char *name)
{
    return MPQC_FAIL(r->cx, DATA, ((struct mpqc_where){.file = r->path, .offset = -1}),
                     "the sensitivities are of another network: %s '%s'", why, name);
}

static void skip_blanks(struct reader *r)
{
    while (*r->at == ' ') r->at++;
}

static bool accept(struct reader *r, const char *word)
{
    size_t n = strlen(word);
    skip_blanks(r);
    if (strncmp(r->at, word, n) != 0) return false;
    r->at += n;
    return true;
}

static mpqc_status end_line(struct reader *r)
{
    skip_blanks(r);
    if (*r->at == '\r') r->at++;
    if (*r->at != '\n') return malformed(r, "the end of the line");
    r->at++;
    r->line++;
    return MPQC_OK;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static mpqc_status read_name(struct reader *r, const char **out)
{
    if (!accept(r, "\"")) return malformed(r, "a name in quotes");
    char *to = mpqc_arena_alloc(r->arena, strcspn(r->at, "\n") + 1);
    if (!to) return MPQC_OOM(r->cx);
    *out = to;
    while (*r->at != '"') {
        if (*r->at == '\0' || *r->at == '\n') return malformed(r, "the end of a name");
        if (*r->at != '\\') {
            *to++ = *r->at++;
        } else if (r->at[1] == '"' || r->at[1] == '\\') {
            *to++ = r->at[1];
            r->at += 2;
        } else if (r->at[1] == 'x' && hex(r->at[2]) >= 0 && hex(r->at[3]) >= 0) {
            *to++ = (char)(hex(r->at[2]) * 16 + hex(r->at[3]));
            r->at += 4;
        } else {
            return malformed(r, "an escape");
        }
    }
    r->at++;
    return MPQC_OK;
}

static mpqc_status read_count(struct reader *r, uint64_t *out)
{
    char *end;
    skip_blanks(r);
    errno = 0;
    if (*r->at < '0' || *r->at > '9') return malformed(r, "a count");
    *out = strtoull(r->at, &end, 10);
    if (errno) return malformed(r, "a count of 64 bits");
    r->at = end;
    return MPQC_OK;
}

/* A finite number, or NaN for -; false for anything else. */
static bool read_value(struct reader *r, double *out)
{
    char *end;
    skip_blanks(r);
    if (*r->at == '-' && r->at[1] <= ' ') {
        *out = NAN;
        r->at++;
        return true;
    }
    *out = strtod(r->at, &end);
    bool read = end != r->at && *r->at >= ' ' && isfinite(*out);
    if (read) r->at = end;
    return read;
}

static mpqc_status read_choices(struct reader *r)
{
    if (!accept(r, "choices")) return malformed(r, "'choices'");
    for (skip_blanks(r); *r->at > ' '; skip_blanks(r)) {
        char name[16];
        size_t n = strcspn(r->at, " \r\n");
        if (n >= sizeof name || r->n_columns == MPQC_LEN(r->column))
            return malformed(r, "a list of choices");
        memcpy(name, r->at, n);
        name[n] = '\0';
        const struct mpqc_choice *c = mpqc_choice_find(name);
        r->column[r->n_columns++] = c ? (uint32_t)(c - mpqc_choices) : mpqc_n_choices;
        r->at += n;
    }
    return end_line(r);
}

/* A name, and the layer that has it. */
static mpqc_status read_known(struct reader *r, const char **name, uint32_t *l)
{
    *l = 0;
    MPQC_TRY(read_name(r, name));
    while (*l < r->bits->n_layers && strcmp(r->bits->layer[*l].name, *name) != 0) ++*l;
    return *l < r->bits->n_layers ? MPQC_OK : other_network(r, "this one has no layer", *name);
}

static mpqc_status read_layer(struct reader *r)
{
    const char *name = NULL;
    uint64_t params, macs;
    uint32_t l;
    MPQC_TRY(read_known(r, &name, &l));
    if (!accept(r, "params")) return malformed(r, "'params'");
    MPQC_TRY(read_count(r, &params));
    if (!accept(r, "macs")) return malformed(r, "'macs'");
    MPQC_TRY(read_count(r, &macs));
    if (params != r->bits->layer[l].params || macs != r->bits->layer[l].macs)
        return other_network(r, "other parameters or MACs in layer", name);
    if (r->seen[l]) return malformed(r, "a layer that was not there before");
    r->seen[l] = true;
    if (!accept(r, ":")) return malformed(r, "':'");
    for (uint32_t i = 0; i < r->n_columns; i++) {
        double x;
        if (!read_value(r, &x) || x < 0) return malformed(r, "a loss, or -, for every choice");
        if (r->column[i] < mpqc_n_choices)
            r->bits->omega[(size_t)l * mpqc_n_choices + r->column[i]] = x;
    }
    return end_line(r);
}

static mpqc_status read_figure(struct reader *r)
{
    const char *name = NULL;
    uint32_t l;
    MPQC_TRY(read_known(r, &name, &l));
    for (uint32_t i = 0; i < r->bits->n_figures; i++)
        if (!read_value(r, &r->bits->figure[i].value[l]))
            return malformed(r, "a number, or -, for every figure");
    return end_line(r);
}

static mpqc_status read_figures(struct reader *r)
{
    for (skip_blanks(r); *r->at > ' '; skip_blanks(r)) {
        size_t n = strcspn(r->at, " \r\n");
        char name[64];
        if (n >= sizeof name || r->bits->n_figures == MPQC_MAX_FIGURES)
            return malformed(r, "a list of figures");
        memcpy(name, r->at, n);
        name[n] = '\0';
        if (!mpqc_bits_figure(r->bits, r->arena, name)) return MPQC_OOM(r->cx);
        r->at += n;
    }
    MPQC_TRY(end_line(r));
    while (accept(r, "figure")) MPQC_TRY(read_figure(r));
    return MPQC_OK;
}

static mpqc_status read_all(struct reader *r, const char **metric)
{
    if (!accept(r, "mpqc-sensitivity 1")) return malformed(r, "'mpqc-sensitivity 1'");
    MPQC_TRY(end_line(r));
    if (!accept(r, "metric")) return malformed(r, "'metric'");
    MPQC_TRY(read_name(r, metric));
    MPQC_TRY(end_line(r));
    MPQC_TRY(read_choices(r));
    while (accept(r, "layer")) MPQC_TRY(read_layer(r));
    r->bits->n_figures = 0;
    if (accept(r, "figures")) MPQC_TRY(read_figures(r));
    if (!accept(r, "end")) return malformed(r, "'end'");
    for (uint32_t l = 0; l < r->bits->n_layers; l++)
        if (!r->seen[l]) return other_network(r, "there is no layer", r->bits->layer[l].name);
    return MPQC_OK;
}

static struct mpqc_where at_layer(const struct reader *r, uint32_t l)
{
    const struct mpqc_bits_layer *layer = &r->bits->layer[l];
    return (struct mpqc_where){.node = layer->name, .op = layer->op, .file = r->path, .offset = -1};
}

/* Takes from layer l the choices without a number, and counts those that it could have had. */
static mpqc_status forbid_unknown(struct reader *r, uint32_t l, uint32_t *forbidden)
{
    struct mpqc_bits *b = r->bits;
    int32_t pinned = b->layer[l].pinned;
    bool some = false;
    for (uint32_t c = 0; c < mpqc_n_choices; c++) {
        size_t at = (size_t)l * mpqc_n_choices + c;
        bool may = mpqc_bits_may(b, l, c), known = !isnan(b->omega[at]);
        some = some || (may && known);
        *forbidden += may && !known;
        b->allowed[at] = b->allowed[at] && known;
    }
    if (some) return MPQC_OK;
    return MPQC_FAIL(r->cx, DATA, at_layer(r, l),
                     "the table of sensitivity has %s%s for this layer; compute another "
                     "(-dump-sensitivity) with these flags",
                     pinned < 0 ? "none of the choices that it may have here"
                                : "not the choice that it is pinned to, ",
                     pinned < 0 ? "" : mpqc_choices[pinned].name);
}

mpqc_status mpqc_bits_read_omega(struct mpqc_cx *cx, struct mpqc_bits *b, struct mpqc_arena *arena,
                                 const char *text, const char *path, const char **metric)
{
    struct reader r = {.cx = cx, .path = path, .at = text, .line = 1, .arena = arena, .bits = b};
    size_t n = b->n_layers;
    uint32_t forbidden = 0;
    b->omega = MPQC_NEW_ARRAY(arena, double, n * mpqc_n_choices);
    r.seen = MPQC_NEW_ARRAY(arena, bool, n);
    if (!b->omega || !r.seen) return MPQC_OOM(cx);
    for (size_t i = 0; i < n * mpqc_n_choices; i++) b->omega[i] = NAN;
    MPQC_TRY(read_all(&r, metric));
    for (uint32_t l = 0; l < b->n_layers; l++) MPQC_TRY(forbid_unknown(&r, l, &forbidden));
    if (forbidden)
        mpqc_warn(cx, (struct mpqc_where){.file = path, .offset = -1},
                  "the table of sensitivity has no numbers for %u choices that layers could have "
                  "with these flags; the plan does without them", forbidden);
    return MPQC_OK;
}
