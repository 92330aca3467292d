/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Depthwise convolution by dot products of four bytes, eight channels at a time.
 *
 * Input columns follow each other in slots, `pitch` to a column: a slot is one row of a
 * column, eight channels.  Four slots in line are a quartet; zip1 and zip2 interleave it to
 * two vectors of four channels, each with four taps.  An output takes the quartets that its
 * window touches, with zero weights for what is not its own.  A quartet is interleaved once
 * and serves all outputs that it belongs to, in both rows where two rows of outputs are
 * computed together.
 *
 *   3x3, stride 1: two rows of outputs, four rows of input, so a quartet is a column; each
 *   output takes three.  3x3, stride 2: three rows, so four columns are three quartets; each
 *   output takes three as well, which is the least for nine taps.
 *
 * A row that has no second one goes the same way: its second result is stored where the first
 * one then is.  The weights of the second row are those of the first, one slot further.
 *
 * A loop over output columns keeps the quartets that the next turn needs in registers.  The
 * last turn stands behind the loop: only it knows where the row of inputs ends.
 */
#include "codegen/window_direct.h"

#include "codegen/kernels.h"

#include <string.h>

#define MAX_TAPS 25
#define MAX_QUARTETS 16
#define FEW_PATTERNS 8

/* ---- the plan ------------------------------------------------------------------------ */

static int64_t quartets_of(int64_t slots)
{
    return (slots + 3) / 4;
}

/* The tap of output (y, t) in a slot, or -1. */
static int16_t tap_in(const struct mpqc_dots *d, const struct mpqc_window *p, int64_t y, int64_t t,
                      int64_t slot)
{
    int64_t kw = slot / d->pitch - t * (d->step / d->pitch), kh = slot % d->pitch - y;
    bool in = kw >= 0 && kw < p->kw && kh >= 0 && kh < p->kh;
    return (int16_t)(in ? kh * p->kw + kw : -1);
}

static bool pattern_of(const struct mpqc_dots *d, const struct mpqc_window *p, int64_t y,
                       int64_t t, int64_t quartet, struct mpqc_dots_pattern *out)
{
    bool used = false;
    for (int i = 0; i < 4; i++) {
        out->tap[i] = tap_in(d, p, y, t, 4 * quartet + i);
        used |= out->tap[i] >= 0;
    }
    return used;
}

/* Number of a pattern that is stored, or how many there are; `further`: of one that becomes
 * this, when moved by a slot. */
static unsigned find_pattern(const struct mpqc_dots *d, const struct mpqc_dots_pattern *p,
                             bool further)
{
    struct mpqc_dots_pattern from = *p;
    unsigned i = 0;
    if (further) from = (struct mpqc_dots_pattern){{p->tap[1], p->tap[2], p->tap[3], -1}};
    if (further && p->tap[0] >= 0) return d->n_patterns;
    while (i < d->n_patterns && memcmp(&d->patterns[i], &from, sizeof from) != 0) i++;
    return i;
}

static bool collect_patterns(const struct mpqc_window *p, struct mpqc_dots *d)
{
    int64_t n = quartets_of((d->turn - 1) * d->step + d->span);
    for (int64_t i = 0; i < d->high * d->turn * n; i++) {
        struct mpqc_dots_pattern one;
        if (!pattern_of(d, p, i % d->high, i / d->high % d->turn, i / d->high / d->turn, &one))
            continue;
        if (find_pattern(d, &one, false) < d->n_patterns) continue;
        if (d->high > 1 && find_pattern(d, &one, true) < d->n_patterns) continue;
        if (d->n_patterns == MPQC_DOTS_PATTERNS) return false;
        d->patterns[d->n_patterns++] = one;
    }
    return n <= MAX_QUARTETS;
}

bool mpqc_dots_plan(const struct mpqc_emit_cx *e, const struct mpqc_window *p,
                    struct mpqc_dots *d)
{
    int64_t stride = p->tap_col > 0 ? p->x_col / p->tap_col : 0;
    *d = (struct mpqc_dots){.high = 1, .pitch = p->kh};
    if (!e->target->isa->dots || !p->w || p->kh < 3 || p->kw < 2 || p->kh * p->kw > MAX_TAPS ||
        stride < 1 || stride > p->kw || stride * p->tap_col != p->x_col)
        return false;
    if (p->kh == 3 && stride == 1) d->pitch = 4;
    /* two rows of one image, of which one may be stored twice */
    if (d->pitch > p->kh && p->x_row == p->tap_row && p->batch == 1 && !p->once) d->high = 2;
    d->step = stride * d->pitch;
    d->span = (p->kw - 1) * d->pitch + p->kh + d->high - 1;
    d->turn = d->step % 4 == 0 ? 1 : d->step % 2 == 0 ? 2 : 4;
    /* so that quartets need no copies to become those of the next turn */
    if (d->turn == 1) d->turn = p->kw;
    d->carried = quartets_of(d->span - d->step);
    return d->step >= 4 && collect_patterns(p, d);
}

int64_t mpqc_dots_bytes(const struct mpqc_dots *d)
{
    return 32 * (int64_t)d->n_patterns;
}

void mpqc_dots_pack(const struct mpqc_dots *d, const struct mpqc_window *p, int64_t first,
                    int8_t *to)
{
    for (unsigned i = 0; i < d->n_patterns; i++)
        for (int64_t c = first; c < first + 8; c++)
            for (int s = 0; s < 4; s++, to++) {
                int64_t tap = d->patterns[i].tap[s];
                *to = tap >= 0 && c < p->channels ? p->w[tap * p->channels + c] : 0;
            }
}

/* ---- quartets ------------------------------------------------------------------------ */

/* A turn at work: `n` output columns from origin o on. */
struct turn {
    struct mpqc_direct *q;
    struct mpqc_window_origin o;
    int64_t n, slots;        /* slots that exist */
    LLVMValueRef by;         /* which turn, i64 */
    LLVMValueRef w, bias;    /* where the last output's weights, its bias are, or NULL */
    LLVMValueRef x[MAX_QUARTETS][2];
};

static LLVMValueRef zip(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b, unsigned upper)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(a)), lanes = n > 8 ? n : 2 * n;
    int order[16];
    for (unsigned i = 0; i < lanes; i++) order[i] = (int)(upper * lanes / 2 + i / 2 + i % 2 * n);
    return mpqc_b_shuffle(e, a, b, order, lanes);
}

/* Slot s, or NULL where there is none. */
static LLVMValueRef load_slot(struct turn *t, int64_t s)
{
    const struct mpqc_dots *d = t->q->dots;
    const struct mpqc_window *p = t->q->p;
    int64_t column = s / d->pitch, row = s % d->pitch;
    if (s >= t->slots || row >= p->kh + d->high - 1) return NULL;
    if (row < p->kh)
        return mpqc_direct_load(t->q, t->o.x, column * p->tap_col + row * p->tap_row);
    LLVMValueRef last = mpqc_b_gep(t->q->e, t->o.x, t->q->next.x);
    return mpqc_direct_load(t->q, last, column * p->tap_col);
}

/* What stands in for a slot that is missing does not matter: its weights are zero. */
static void load_quartet(struct turn *t, int64_t i)
{
    struct mpqc_emit_cx *e = t->q->e;
    LLVMValueRef slot[4], pair[2], out[4];
    for (int s = 0; s < 4; s++) {
        slot[s] = load_slot(t, 4 * i + s);
        if (!slot[s]) slot[s] = s > 0 ? slot[s - 1] : LLVMConstNull(LLVMVectorType(e->i8, 8));
    }
    bool half = slot[2] == slot[1] && slot[3] == slot[1];
    for (int h = 0; h < 2; h++)
        pair[h] = h && half ? pair[0]
                            : mpqc_b_as(e, zip(e, slot[2 * h], slot[2 * h + 1], 0), e->i16, 8);
    for (unsigned v = 0; v < 2; v++) {
        int order[8];
        for (unsigned k = 0; k < 8; k++) order[k] = (int)(4 * v + k / 2 + k % 2 * 8);
        LLVMValueRef x = mpqc_b_shuffle(e, pair[0], pair[1], order, 8);
        e->target->isa->prepare_x(e, mpqc_b_as(e, x, e->i32, 4), out);
        t->x[i][v] = out[0];
    }
}

/* ---- outputs ------------------------------------------------------------------------- */

/* Is it worth keeping some weights in registers?  Else they are loaded one by one, and not
 * before their output's turn. */
static bool few(const struct mpqc_dots *d)
{
    return d->n_patterns <= FEW_PATTERNS;
}

/* Vector v of the weights of a pattern. */
static LLVMValueRef load_weights(struct turn *t, const struct mpqc_dots_pattern *p, int v)
{
    struct mpqc_emit_cx *e = t->q->e;
    const struct mpqc_dots *d = t->q->dots;
    unsigned stored = find_pattern(d, p, false);
    bool further = stored == d->n_patterns;
    if (further) stored = find_pattern(d, p, true);
    /* those that would have to be moved are kept rather than those they come from */
    int64_t rank = d->high * stored + (d->high > 1 && !further);
    bool kept = few(d) && rank + d->carried < e->target->isa->dots;
    LLVMValueRef w = kept ? t->q->block_w : t->w;
    w = mpqc_b_gep_const(e, w, 32 * (int64_t)stored + 16 * v);
    w = mpqc_b_load(e, LLVMVectorType(e->i8, 16), w, 16);
    if (!further) return w;
    w = mpqc_b_as(e, w, e->i32, 4);
    return mpqc_b_as(e, LLVMBuildShl(e->b, w, mpqc_b_splat(e, LLVMTypeOf(w), 8), ""), e->i8, 16);
}

/* Output column i of the turn. */
static void output(struct turn *t, int64_t i, int64_t y)
{
    struct mpqc_direct *q = t->q;
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_dots *d = q->dots;
    LLVMValueRef acc[2], column = mpqc_b_i64(e, i);
    struct mpqc_window_origin at = mpqc_window_move(q->e, q->p, t->o, column);
    mpqc_epilogue_biases(e, q->ep, &q->b->c, q->channel, 1, t->by, &t->bias, acc);
    int64_t end = quartets_of(i * d->step + d->span);
    t->w = few(d) ? mpqc_b_alias(e, t->w ? t->w : q->block_w, t->by)
                  : mpqc_b_opaque(e, q->block_w);
    for (int64_t k = i * d->step / 4; k < end; k++) {
        struct mpqc_dots_pattern pattern;
        if (!pattern_of(d, q->p, y, i, k, &pattern)) continue;
        for (int v = 0; v < 2; v++) {
            LLVMValueRef ws = load_weights(t, &pattern, v);
            e->target->isa->dot(e, &acc[v], &t->x[k][v], &ws);
        }
    }
    if (y > 0) at.position = LLVMBuildNSWAdd(e->b, at.position, q->next.position, "");
    if (y > 0) at.residual = LLVMBuildNSWAdd(e->b, at.residual, q->next.residual, "");
    mpqc_epilogue_store(e, q->ep, acc, at.position, at.residual, at.index);
}

/* Columns are finished as soon as their last quartet is there. */
static void outputs(struct turn *t)
{
    const struct mpqc_dots *d = t->q->dots;
    int64_t have = d->carried;
    for (int64_t i = 0; i < t->n; i++) {
        for (; have < quartets_of(i * d->step + d->span); have++) load_quartet(t, have);
        for (int64_t y = d->high; y-- > 0;) output(t, i, y);
    }
}

/* The quartets that are carried, in variables. */
struct carry {
    LLVMValueRef var[MAX_QUARTETS][2];
};

static void put_carried(struct turn *t, const struct carry *c, int64_t first)
{
    for (int64_t k = 0; k < t->q->dots->carried; k++)
        for (int v = 0; v < 2; v++) LLVMBuildStore(t->q->e->b, t->x[first + k][v], c->var[k][v]);
}

static void take_carried(struct turn *t, const struct carry *c)
{
    struct mpqc_emit_cx *e = t->q->e;
    for (int64_t k = 0; k < t->q->dots->carried; k++)
        for (int v = 0; v < 2; v++)
            t->x[k][v] = LLVMBuildLoad2(e->b, LLVMVectorType(e->i8, 16), c->var[k][v], "");
}

/* The quartets before the first turn. */
static void begin(struct mpqc_direct *q, struct mpqc_window_origin o, struct carry *c)
{
    struct turn t = {.q = q, .o = o, .slots = (q->p->cols - 1) * q->dots->step + q->dots->span};
    for (int64_t k = 0; k < q->dots->carried; k++) {
        for (int v = 0; v < 2; v++)
            c->var[k][v] = mpqc_b_var(q->e, LLVMVectorType(q->e->i8, 16), "quartet");
        load_quartet(&t, k);
    }
    put_carried(&t, c, 0);
}

void mpqc_dots_rows(struct mpqc_direct *q, struct mpqc_window_origin o)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_dots *d = q->dots;
    int64_t turns = (q->p->cols - 1) / d->turn, rest = q->p->cols - turns * d->turn;
    struct carry c;
    struct mpqc_loop l;
    mpqc_epilogue_columns(e, q->ep, &q->b->c, q->channel);
    begin(q, o, &c);
    if (turns > 0) {
        mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, turns), 1, "turn");
        LLVMValueRef first = mpqc_b_madd(e, l.iv, d->turn, mpqc_b_i64(e, 0));
        struct turn t = {.q = q, .o = mpqc_window_move(q->e, q->p, o, first), .n = d->turn};
        t.slots = d->turn * d->step + d->span; /* another output follows */
        t.by = l.iv;
        take_carried(&t, &c);
        outputs(&t);
        put_carried(&t, &c, d->turn * d->step / 4);
        mpqc_b_loop_end(e, &l);
    }
    struct turn last = {.q = q, .n = rest, .slots = (rest - 1) * d->step + d->span};
    last.o = mpqc_window_move(q->e, q->p, o, mpqc_b_i64(e, turns * d->turn));
    last.by = mpqc_b_i64(e, 0);
    take_carried(&last, &c);
    outputs(&last);
}
