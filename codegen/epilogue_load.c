/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The epilogue, part 2: its parameters, from memory to registers.
 */
#include "codegen/epilogue.h"

static LLVMValueRef operand(LLVMValueRef function, uint32_t i)
{
    return i == MPQC_NO_OPERAND ? NULL : LLVMGetParam(function, i);
}

void mpqc_epilogue_bind(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, LLVMValueRef function)
{
    ep->out = operand(function, ep->out_op);
    ep->bias = operand(function, ep->bias_op);
    ep->shifts = operand(function, ep->shift_op);
    ep->mults = operand(function, ep->mult_op);
    ep->residual_in = operand(function, ep->residual_op);
    ep->table = operand(function, ep->table_op);
    ep->buffer = NULL;
    if (ep->lut && !e->target->isa->lookup)
        ep->buffer = mpqc_b_var(e, LLVMVectorType(e->i8, 64), "indices");
}

LLVMValueRef mpqc_epilogue_element(struct mpqc_emit_cx *e, LLVMValueRef base, LLVMValueRef channel,
                                   int64_t bytes, int64_t plus)
{
    LLVMValueRef at = mpqc_b_madd(e, channel, bytes, mpqc_b_i64(e, plus * bytes));
    return mpqc_b_gep(e, base, at);
}

/* The vectors of paired columns from entry 2 * channel on. */
static void load_paired(struct mpqc_emit_cx *e, LLVMValueRef base, LLVMTypeRef entry,
                        unsigned bytes, unsigned lanes, unsigned n, LLVMValueRef channel,
                        LLVMValueRef *out)
{
    LLVMValueRef first = mpqc_epilogue_element(e, base, channel, 2 * bytes, 0);
    for (unsigned v = 0; v < n; v++)
        out[v] = mpqc_b_load(e, LLVMVectorType(entry, lanes),
                             mpqc_b_gep_const(e, first, bytes * lanes * v), bytes);
}

void mpqc_epilogue_bias(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                        const struct mpqc_columns *c, LLVMValueRef channel, LLVMValueRef *acc)
{
    unsigned at = 0;
    if (c->paired) {
        load_paired(e, ep->bias, e->i32, 4, 4, 2 * c->n, channel, acc);
        return;
    }
    for (unsigned v = 0; v < c->n; v++) {
        acc[v] = mpqc_b_load(e, LLVMVectorType(e->i32, c->lanes[v]),
                             mpqc_epilogue_element(e, ep->bias, channel, 4, at), 4);
        at += c->lanes[v];
    }
}

void mpqc_epilogue_biases(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                          const struct mpqc_columns *c, LLVMValueRef channel, int64_t n,
                          LLVMValueRef by, LLVMValueRef *from, LLVMValueRef *acc)
{
    LLVMValueRef base = ep->bias;
    for (int64_t m = 0; m < n; m++) {
        if (!*from && !by) *from = mpqc_b_opaque(e, base);
        else *from = mpqc_b_alias(e, *from ? *from : base, by ? by : mpqc_b_i64(e, 0));
        ep->bias = *from;
        mpqc_epilogue_bias(e, ep, c, channel, &acc[m * c->n * (c->paired ? 2 : 1)]);
    }
    ep->bias = base;
}

/* A single vector is packed with itself: its factors, in that order. */
static LLVMValueRef doubled(struct mpqc_emit_cx *e, bool windows, LLVMValueRef m, unsigned lanes)
{
    int order[2 * MPQC_MAX_LANES];
    for (unsigned i = 0; i < 2 * lanes; i++)
        order[i] = (int)mpqc_epilogue_word(windows, 0, i).lane;
    return mpqc_b_shuffle(e, m, m, order, 2 * lanes);
}

static void load_mults(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, LLVMValueRef channel)
{
    const struct mpqc_columns *c = &ep->columns;
    unsigned at = 0, slot = 0;
    if (c->paired && ep->mult_kind == MPQC_PARAM_CHANNEL) {
        load_paired(e, ep->mults, e->i16, 2, 8, c->n, channel, ep->mult_of);
        return;
    }
    for (unsigned v = 0, nv; v < c->n; v += nv) {
        nv = mpqc_epilogue_chunk(c, v);
        unsigned L = c->lanes[v], has = nv == 1 ? L : 2 * L;
        LLVMTypeRef t = LLVMVectorType(e->i16, has);
        for (unsigned p = 0; p < (c->paired ? nv : (nv + 1) / 2); p++) {
            LLVMValueRef m =
                ep->mult_kind == MPQC_PARAM_UNIFORM
                    ? mpqc_b_splat(e, t, ep->mult)
                    : mpqc_b_load(e, t,
                                  mpqc_epilogue_element(e, ep->mults, channel, 2, at + 2 * L * p),
                                  2);
            if (nv == 1) m = doubled(e, mpqc_epilogue_windows(c, v, 1), m, L);
            ep->mult_of[slot++] = m;
        }
        at += nv * L;
    }
}

/* Shifts of the vector whose channels begin `at` behind channel, as they are wanted. */
static LLVMValueRef shift_vector(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep,
                                 bool windows, unsigned lanes, LLVMValueRef channel, unsigned at)
{
    LLVMTypeRef t = LLVMVectorType(e->i32, lanes);
    if (ep->shift_kind == MPQC_PARAM_CHANNEL)
        return mpqc_b_load(e, t, mpqc_epilogue_element(e, ep->shifts, channel, 4, at), 4);
    return mpqc_b_splat(
        e, t, windows ? e->target->isa->window_at(ep->shift, ep->shift) : ep->shift);
}

void mpqc_epilogue_columns(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                           const struct mpqc_columns *c, LLVMValueRef channel)
{
    unsigned at = 0;
    ep->columns = *c;
    if (ep->mult_kind != MPQC_PARAM_POSITION) load_mults(e, ep, channel);
    if (c->paired && ep->shift_kind == MPQC_PARAM_CHANNEL) {
        load_paired(e, ep->shifts, e->i32, 4, 4, 2 * c->n, channel, ep->shift_of);
        return;
    }
    for (unsigned v = 0, nv; v < c->n && ep->shift_kind != MPQC_PARAM_POSITION; v += nv) {
        nv = mpqc_epilogue_chunk(c, v);
        bool windows = mpqc_epilogue_windows(c, v, nv);
        for (unsigned i = v; i < v + nv; at += c->lanes[i++])
            ep->shift_of[i] = shift_vector(e, ep, windows, c->lanes[i], channel, at);
    }
}

void mpqc_epilogue_repeat(struct mpqc_epilogue *ep, unsigned times)
{
    struct mpqc_columns *c = &ep->columns;
    unsigned n = c->n;
    MPQC_ASSERT(times * n == 4 && (n == 1 || n == 2));
    for (unsigned v = n; v < 4; v++) {
        c->lanes[v] = c->lanes[v - n];
        ep->shift_of[v] = ep->shift_of[v - n];
    }
    ep->mult_of[1] = ep->mult_of[0];
    c->n = 4;
    c->valid *= times;
    c->interleaved = c->wide_tail = false;
}
