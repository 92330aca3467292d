/* SPDX-License-Identifier: GPL-3.0-or-later
 * Tokens of the text form: see lex.h.
 */
#include "ir/lex.h"

#include "ir/elements.h"

#include <math.h>

const char *mpqc_lex_where(struct mpqc_lex *l, size_t pos)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < pos; i++, column++) {
        if (l->text[i] == '\n') {
            line++;
            column = 0;
        }
    }
    return mpqc_arena_printf(&l->cx->arena, "%s:%zu:%zu", l->file, line, column);
}

mpqc_status mpqc_lex_fail(struct mpqc_lex *l, size_t pos, const char *fmt, ...)
{
    struct mpqc_where where = {.file = mpqc_lex_where(l, pos), .offset = -1};
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return MPQC_FAIL(l->cx, FORMAT, where, "%s", text);
}

/* The byte at distance d, or 0 at the end; NUL bytes in the text match nothing. */
static char peek(const struct mpqc_lex *l, size_t d)
{
    return d < l->len - l->pos ? l->text[l->pos + d] : '\0';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

size_t mpqc_lex_skip(struct mpqc_lex *l)
{
    for (; l->pos < l->len; l->pos++) {
        char c = l->text[l->pos];
        if (c == '#') {
            const char *end = memchr(l->text + l->pos, '\n', l->len - l->pos);
            l->pos = end ? (size_t)(end - l->text) : l->len - 1;
        } else if (c != ' ' && c != '\n' && c != '\t' && c != '\r') {
            break;
        }
    }
    return l->pos;
}

bool mpqc_lex_take(struct mpqc_lex *l, char c)
{
    mpqc_lex_skip(l);
    if (l->pos == l->len || l->text[l->pos] != c) return false;
    l->pos++;
    return true;
}

size_t mpqc_lex_word(struct mpqc_lex *l, const char **word)
{
    size_t n = 0;
    mpqc_lex_skip(l);
    *word = l->text + l->pos;
    while (is_word(peek(l, n))) n++;
    l->pos += n;
    return n;
}

bool mpqc_lex_take_word(struct mpqc_lex *l, const char *word)
{
    const char *w;
    size_t n = mpqc_lex_word(l, &w);
    if (n == strlen(word) && memcmp(w, word, n) == 0) return true;
    l->pos -= n;
    return false;
}

mpqc_status mpqc_lex_want(struct mpqc_lex *l, char c)
{
    return mpqc_lex_take(l, c) ? MPQC_OK : mpqc_lex_fail(l, l->pos, "expected '%c'", c);
}

mpqc_status mpqc_lex_want_word(struct mpqc_lex *l, const char *word)
{
    return mpqc_lex_take_word(l, word) ? MPQC_OK
                                       : mpqc_lex_fail(l, l->pos, "expected '%s'", word);
}

bool mpqc_lex_at_string(struct mpqc_lex *l)
{
    mpqc_lex_skip(l);
    return peek(l, 0) == '"';
}

mpqc_status mpqc_lex_int(struct mpqc_lex *l, int64_t min, int64_t max, int64_t *v)
{
    size_t start = mpqc_lex_skip(l), n = peek(l, 0) == '-' ? 1 : 0;
    bool negative = n == 1, fits = true;
    int64_t x = 0; /* built downwards, so that INT64_MIN fits */
    if (!is_digit(peek(l, n))) return MPQC_LEX_EXPECTED(l, "an integer");
    for (; is_digit(peek(l, n)); n++)
        fits = fits && !__builtin_mul_overflow(x, 10, &x) &&
               !__builtin_sub_overflow(x, peek(l, n) - '0', &x);
    l->pos += n;
    if (fits && !negative) fits = !__builtin_sub_overflow((int64_t)0, x, &x);
    if (!fits || x < min || x > max)
        return mpqc_lex_fail(l, start, "the integer is not in %lld .. %lld", (long long)min,
                             (long long)max);
    *v = x;
    return MPQC_OK;
}

static int hex_digit(char c)
{
    if (is_digit(c)) return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

mpqc_status mpqc_lex_hex(struct mpqc_lex *l, uint64_t *v)
{
    size_t n = 0;
    *v = 0;
    for (; hex_digit(peek(l, n)) >= 0; n++) *v = *v << 4 | (uint64_t)hex_digit(peek(l, n));
    if (n == 0 || n > 16) return MPQC_LEX_EXPECTED(l, "1 to 16 hexadecimal digits");
    l->pos += n;
    return MPQC_OK;
}

/* nan or nan:BITS, when that is next. */
static mpqc_status read_nan(struct mpqc_lex *l, float *v)
{
    uint64_t bits = MPQC_NAN_BITS;
    size_t start = l->pos;
    if (peek(l, 0) == ':') {
        l->pos++;
        MPQC_TRY(mpqc_lex_hex(l, &bits));
        if ((bits & 0x7f800000u) != 0x7f800000u || !(bits & 0x7fffffu) || bits > UINT32_MAX)
            return mpqc_lex_fail(l, start, "these bits are no f32 NaN");
    }
    uint32_t b = (uint32_t)bits;
    memcpy(v, &b, sizeof b);
    return MPQC_OK;
}

mpqc_status mpqc_lex_real(struct mpqc_lex *l, float *v)
{
    char text[64], *end;
    size_t n = 0;
    if (mpqc_lex_take_word(l, "nan")) return read_nan(l, v);
    for (; n + 1 < sizeof text; n++) {
        char c = peek(l, n);
        if (!is_word(c) && c != '.' && c != '-' && c != '+') break;
        text[n] = c;
    }
    text[n] = '\0';
    /* The program never leaves the C locale. */
    *v = strtof(text, &end);
    if (n == 0 || *end != '\0' || isnan(*v)) /* other spellings of nan */
        return MPQC_LEX_EXPECTED(l, "a number");
    l->pos += n;
    return MPQC_OK;
}

/* The character behind a backslash; pos is on it. 0: there is no such escape. */
static char escape(struct mpqc_lex *l)
{
    char c = peek(l, 0);
    if (c == 'x' && hex_digit(peek(l, 1)) >= 0 && hex_digit(peek(l, 2)) >= 0) {
        c = (char)(hex_digit(peek(l, 1)) << 4 | hex_digit(peek(l, 2)));
        l->pos += 3;
        return c;
    }
    l->pos++;
    switch (c) {
    case '"':
    case '\\': return c;
    case 'n': return '\n';
    case 't': return '\t';
    default: return '\0';
    }
}

mpqc_status mpqc_lex_string(struct mpqc_lex *l, const char **s)
{
    size_t start = mpqc_lex_skip(l), n = 0;
    if (!mpqc_lex_take(l, '"')) return MPQC_LEX_EXPECTED(l, "a string");
    const char *end = l->text + l->pos;
    const char *stop = l->text + l->len;
    while (end < stop && *end != '"') end += *end == '\\' ? 2 : 1;
    if (end >= stop) return mpqc_lex_fail(l, start, "the string does not end");
    char *to = mpqc_arena_alloc(l->arena, (size_t)(end - (l->text + l->pos)) + 1);
    if (!to) return MPQC_OOM(l->cx);
    while (l->text + l->pos < end) {
        char c = l->text[l->pos++];
        size_t at = l->pos - 1;
        if (c == '\\') c = escape(l);
        if (c == '\0') return mpqc_lex_fail(l, at, "a character that a string cannot hold");
        to[n++] = c;
    }
    l->pos++;
    *s = to;
    return MPQC_OK;
}

mpqc_status mpqc_lex_ints(struct mpqc_lex *l, uint32_t max, const int64_t **v, uint32_t *n)
{
    size_t start = mpqc_lex_skip(l), count = 1;
    MPQC_TRY(mpqc_lex_want(l, '['));
    *n = 0;
    for (size_t i = l->pos; i < l->len && l->text[i] != ']'; i++) count += l->text[i] == ',';
    if (count > max) return mpqc_lex_fail(l, start, "a list of more than %u integers", max);
    int64_t *list = MPQC_NEW_ARRAY(l->arena, int64_t, count);
    if (!list) return MPQC_OOM(l->cx);
    *v = list;
    if (mpqc_lex_take(l, ']')) return MPQC_OK;
    do {
        /* A comment may hold a ']' that ended the count too early. */
        if (*n == count) return mpqc_lex_fail(l, start, "no ']' in comments inside lists");
        MPQC_TRY(mpqc_lex_int(l, INT64_MIN, INT64_MAX, &list[(*n)++]));
    } while (mpqc_lex_take(l, ','));
    return mpqc_lex_want(l, ']');
}
