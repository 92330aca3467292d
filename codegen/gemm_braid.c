/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Three short rows of taps as one run.  The first layer of many networks has windows of
 * 3 x 3 x 3: rows of nine bytes, of which each would be filled up to 12 or 16.  Instead, two
 * registers hold a whole window, a the eight first bytes of rows 0 and 1, b those of row 2 and
 * behind them the ends of rows 2, 0 and 1:
 *
 *     a   0 0 0 0 0 0 0 0 1 1 1 1 1 1 1 1
 *     b   2 2 2 2 2 2 2 2 2 0 1 - - - - -
 *
 * For three instructions more a position there are 7 groups of four along K in place of 9, or 8
 * where they go in twos, in place of 12.
 */
#include "codegen/gemm.h"

enum { ROWS = 3, HEAD = 8 };

bool mpqc_braid(const struct mpqc_linear *l, struct mpqc_linear *out)
{
    int64_t end = l->run - HEAD;
    if (l->n_outer != ROWS || l->n_inner != 1 || end < 1 || ROWS * end > HEAD || l->exact ||
        l->x_bytes > 1 || l->group)
        return false;
    *out = *l;
    out->braid = end;
    out->n_outer = 1;
    out->run = ROWS * l->run;
    out->k4 = (out->run + 3) / 4;
    return true;
}

int64_t mpqc_braid_tap(const struct mpqc_linear *l, int64_t i)
{
    int64_t row = i / HEAD, end = (i - ROWS * HEAD) / l->braid, run = HEAD + l->braid;
    if (row < ROWS) return row * run + i % HEAD;
    return (end + ROWS - 1) % ROWS * run + HEAD + i % l->braid;
}

/* The eight first bytes of two rows. */
static LLVMValueRef heads(struct gemm *q, LLVMValueRef a, LLVMValueRef b)
{
    struct mpqc_emit_cx *e = q->e;
    static const int low[] = {0, 2};
    a = mpqc_b_as(e, a, e->i64, 2);
    b = mpqc_b_as(e, b, e->i64, 2);
    return mpqc_b_as(e, mpqc_b_shuffle(e, a, b, low, 2), e->i8, 16);
}

/* Row 2, and the ends of the others. */
static LLVMValueRef ends(struct gemm *q, const LLVMValueRef *row)
{
    int order[16];
    LLVMValueRef v = row[2];
    int end = (int)q->l->braid;
    for (int r = 0; r < ROWS - 1; r++) {
        for (int i = 0; i < 16; i++) order[i] = i;
        for (int i = 0; i < end; i++) order[HEAD + (r + 1) * end + i] = 16 + HEAD + i;
        v = mpqc_b_shuffle(q->e, v, row[r], order, 16);
    }
    return v;
}

static void load_rows(struct gemm *q, LLVMValueRef x, int64_t m, LLVMValueRef *row)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t at = m / q->mw * q->l->x_row + m % q->mw * q->l->x_col;
    for (int r = 0; r < ROWS; r++, at += q->l->outer_step)
        row[r] = mpqc_b_load(e, LLVMVectorType(e->i8, 16), mpqc_b_gep_const(e, x, at), 1);
}

/* What a form that pairs positions makes of their registers a, from the rows. */
static void pair_heads(struct gemm *q, LLVMValueRef x, struct mpqc_form_step *s)
{
    LLVMValueRef row[2][ROWS];
    for (unsigned m = 0; m < s->m; m += 2) {
        for (unsigned i = 0; i < 2; i++) load_rows(q, x, m + i < s->m ? m + i : m, row[i]);
        for (unsigned r = 0; r < 2; r++) s->x[m + r] = heads(q, row[0][r], row[1][r]);
    }
}

void mpqc_braid_inputs(struct gemm *q, LLVMValueRef x, bool second, struct mpqc_form_step *s)
{
    LLVMValueRef row[ROWS];
    if (!second && q->t->form->pair == 2) {
        pair_heads(q, x, s);
        return;
    }
    for (unsigned m = 0; m < s->m; m++) {
        load_rows(q, x, m, row);
        s->x[m] = second ? ends(q, row) : heads(q, row[0], row[1]);
    }
    q->t->form->prepare(q->e, s);
}
