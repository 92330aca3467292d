/* SPDX-License-Identifier: GPL-3.0-or-later
 * Tokens of the text form (GRAMMAR.md): small readers over a cursor.  Private to
 * ir/lex.c and ir/parse.c.
 */
#ifndef MPQC_IR_LEX_H
#define MPQC_IR_LEX_H

#include "ir/ir.h"

struct mpqc_lex {
    struct mpqc_cx *cx;
    const char *file;
    const char *text;
    size_t len, pos;
    struct mpqc_arena *arena; /* for strings */
};

/* "FILE:LINE:COLUMN" of byte `pos`, in the context's arena. */
const char *mpqc_lex_where(struct mpqc_lex *l, size_t pos);
/* Fails at byte `pos`. */
mpqc_status mpqc_lex_fail(struct mpqc_lex *l, size_t pos, const char *fmt, ...) MPQC_PRINTF(3, 4);
#define MPQC_LEX_EXPECTED(l, what) mpqc_lex_fail((l), (l)->pos, "expected %s", (what))

/* Skips blanks and comments; returns l->pos, where the next token starts. */
size_t mpqc_lex_skip(struct mpqc_lex *l);
/* Takes c, or a word, when it is next; else leaves it and answers false. */
bool mpqc_lex_take(struct mpqc_lex *l, char c);
bool mpqc_lex_take_word(struct mpqc_lex *l, const char *word);
mpqc_status mpqc_lex_want(struct mpqc_lex *l, char c);
mpqc_status mpqc_lex_want_word(struct mpqc_lex *l, const char *word);
/* The letters, digits and underscores that are next, perhaps none. */
size_t mpqc_lex_word(struct mpqc_lex *l, const char **word);
bool mpqc_lex_at_string(struct mpqc_lex *l);

mpqc_status mpqc_lex_int(struct mpqc_lex *l, int64_t min, int64_t max, int64_t *v);
mpqc_status mpqc_lex_hex(struct mpqc_lex *l, uint64_t *v);
mpqc_status mpqc_lex_real(struct mpqc_lex *l, float *v);
mpqc_status mpqc_lex_string(struct mpqc_lex *l, const char **s);
/* [1,2,3], at most max entries. */
mpqc_status mpqc_lex_ints(struct mpqc_lex *l, uint32_t max, const int64_t **v, uint32_t *n);

#endif
