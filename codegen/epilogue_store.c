/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The epilogue, part 2: from accumulators to stored bytes.  Follows ir/dyadic.h step by
 * step; the rounding half of the first shift is already in the bias.
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

/* Element `channel + plus` of an array of `bytes`-sized elements. */
static LLVMValueRef element(struct mpqc_emit_cx *e, LLVMValueRef base, LLVMValueRef channel,
                            int64_t bytes, int64_t plus)
{
    LLVMValueRef at = mpqc_b_madd(e, channel, bytes, mpqc_b_i64(e, plus * bytes));
    return mpqc_b_gep(e, base, at);
}

void mpqc_epilogue_bias(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                        const struct mpqc_columns *c, LLVMValueRef channel, LLVMValueRef *acc)
{
    unsigned at = 0;
    for (unsigned v = 0; v < c->n; v++) {
        acc[v] = mpqc_b_load(e, LLVMVectorType(e->i32, c->lanes[v]),
                             element(e, ep->bias, channel, 4, at), 4);
        at += c->lanes[v];
    }
}

/* Lanes of a chunk's 16-bit vectors: pairs are packed to 2L, a single 4-lane vector is
 * doubled, other single vectors keep their L. */
static unsigned packed_lanes(unsigned nv, unsigned L)
{
    return nv > 1 || L == 4 ? 2 * L : L;
}

static void load_mults(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, LLVMValueRef channel)
{
    const struct mpqc_columns *c = &ep->columns;
    unsigned at = 0, slot = 0;
    for (unsigned v = 0, nv; v < c->n; v += nv) {
        nv = mpqc_epilogue_chunk(c, v);
        unsigned L = c->lanes[v], n = packed_lanes(nv, L);
        for (unsigned p = 0; p < (nv + 1) / 2; p++) {
            LLVMValueRef m;
            if (ep->mult_kind == MPQC_PARAM_UNIFORM) {
                m = mpqc_b_splat(e, LLVMVectorType(e->i16, n), ep->mult);
            } else {
                unsigned k = nv == 1 ? L : n;
                m = mpqc_b_load(e, LLVMVectorType(e->i16, k),
                                element(e, ep->mults, channel, 2, at + 2 * L * p), 2);
                if (k < n) m = mpqc_b_join(e, m, m);
            }
            ep->mult_of[slot++] = m;
        }
        at += nv * L;
    }
}

void mpqc_epilogue_columns(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                           const struct mpqc_columns *c, LLVMValueRef channel)
{
    unsigned at = 0;
    ep->columns = *c;
    if (ep->mult_kind != MPQC_PARAM_POSITION) load_mults(e, ep, channel);
    for (unsigned v = 0; v < c->n && ep->shift_kind != MPQC_PARAM_POSITION; v++) {
        LLVMTypeRef t = LLVMVectorType(e->i32, c->lanes[v]);
        ep->shift_of[v] = ep->shift_kind == MPQC_PARAM_UNIFORM
                              ? mpqc_b_splat(e, t, ep->shift)
                              : mpqc_b_load(e, t, element(e, ep->shifts, channel, 4, at), 4);
        at += c->lanes[v];
    }
}

/* ---- one chunk -------------------------------------------------------------------- */

struct chunk {
    unsigned first, nv, lanes; /* vectors; of 3 the last one stands for two */
    unsigned n16, n;           /* elements of one 16-bit vector; of the chunk */
    unsigned n_pairs;          /* 16-bit vectors */
    unsigned slot;             /* of mult_of */
    unsigned at;               /* channel, relative to the columns' first */
    bool interleaved;
    LLVMValueRef t[2];
};

static LLVMValueRef call2(struct mpqc_emit_cx *e, const char *name, LLVMValueRef a, LLVMValueRef b)
{
    LLVMTypeRef t = LLVMTypeOf(a);
    LLVMValueRef args[] = {a, b};
    return mpqc_b_intrinsic(e, name, &t, 1, args, 2);
}

static LLVMValueRef splat_like(struct mpqc_emit_cx *e, LLVMValueRef v, int64_t value)
{
    return mpqc_b_splat(e, LLVMTypeOf(v), value);
}

/* By-position shift: acc + half(s) >> s with s from memory. */
static LLVMValueRef shift_by_row(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep,
                                 LLVMValueRef acc, LLVMValueRef row)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(acc));
    LLVMValueRef s = mpqc_b_load(e, e->i32, element(e, ep->shifts, row, 4, 0), 4);
    LLVMValueRef one = mpqc_b_i32(e, 1);
    LLVMValueRef half = LLVMBuildLShr(e->b, LLVMBuildShl(e->b, one, s, ""), one, "");
    acc = LLVMBuildAdd(e->b, acc, mpqc_b_broadcast(e, half, n), "");
    return LLVMBuildAShr(e->b, acc, mpqc_b_broadcast(e, s, n), "");
}

/* The first shift of vector v of the columns. */
static LLVMValueRef shift(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep, unsigned v,
                          LLVMValueRef acc, LLVMValueRef row)
{
    if (ep->shift_kind == MPQC_PARAM_POSITION) return shift_by_row(e, ep, acc, row);
    return LLVMBuildAShr(e->b, acc, ep->shift_of[v], "");
}

/* v as one of n lanes; what is in those that it lacks is never stored. */
static LLVMValueRef widened(struct mpqc_emit_cx *e, LLVMValueRef v, unsigned n)
{
    unsigned has = LLVMGetVectorSize(LLVMTypeOf(v));
    int order[16];
    if (has == n) return v;
    MPQC_ASSERT(n <= MPQC_LEN(order));
    for (unsigned i = 0; i < n; i++) order[i] = i < has ? (int)i : -1;
    return mpqc_b_shuffle(e, v, LLVMGetPoison(LLVMTypeOf(v)), order, n);
}

static void shift_and_pack(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep,
                           struct chunk *k, const LLVMValueRef *acc, LLVMValueRef row)
{
    LLVMValueRef a[4];
    for (unsigned v = 0; v < k->nv; v++)
        a[v] = widened(e, shift(e, ep, k->first + v, acc[k->first + v], row), k->lanes);
    if (k->nv == 1 && k->lanes > 4) {
        LLVMValueRef s = call2(e, "llvm.smax", a[0], splat_like(e, a[0], INT16_MIN));
        s = call2(e, "llvm.smin", s, splat_like(e, s, INT16_MAX));
        k->t[0] = LLVMBuildTrunc(e->b, s, LLVMVectorType(e->i16, k->lanes), "");
        return;
    }
    for (unsigned p = 0; p < k->n_pairs; p++)
        k->t[p] = e->target->isa->pack16(e, a[2 * p], a[2 * p + (2 * p + 1 < k->nv)]);
}

static LLVMValueRef mult_by_row(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep, unsigned n,
                                LLVMValueRef row)
{
    LLVMValueRef m = mpqc_b_load(e, e->i32, element(e, ep->mults, row, 4, 0), 4);
    return mpqc_b_broadcast(e, LLVMBuildTrunc(e->b, m, e->i16, ""), n);
}

/* Which of the chunk's channels is in element i of 16-bit vector p. */
static int packed_channel(const struct chunk *k, unsigned p, unsigned i)
{
    unsigned L = k->lanes;
    if (k->nv == 1) return (int)(i % L);
    unsigned j = i / 8, v = i / 4 % 2;
    return (int)(k->interleaved ? 16 * j + 4 * (2 * p + v) + i % 4
                                : 2 * L * p + L * v + 4 * j + i % 4);
}

/* What mpqc_rescale, or mpqc_mulhrs of an i16, multiplies. */
static LLVMValueRef residual_factor(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep,
                                    LLVMValueRef q)
{
    LLVMTypeRef wide = LLVMVectorType(e->i16, LLVMGetVectorSize(LLVMTypeOf(q)));
    if (ep->residual_wide) return q;
    LLVMValueRef d = ep->residual_signed ? LLVMBuildSExt(e->b, q, wide, "")
                                         : LLVMBuildZExt(e->b, q, wide, "");
    d = LLVMBuildShl(e->b, d, splat_like(e, d, 7), "");
    return LLVMBuildSub(e->b, d, splat_like(e, d, 128 * ep->residual_zero), "");
}

static void add_residual(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep, struct chunk *k,
                         LLVMValueRef position, unsigned valid)
{
    unsigned bytes = ep->residual_wide ? 2 : 1;
    LLVMValueRef at = LLVMBuildNSWAdd(e->b, position, mpqc_b_i64(e, k->at), "");
    LLVMValueRef p = mpqc_b_gep(e, ep->residual_in,
                                bytes == 1 ? at : mpqc_b_madd(e, at, bytes, mpqc_b_i64(e, 0)));
    /* Behind the last channel may lie what another thread writes, or nothing at all. */
    LLVMValueRef in = mpqc_b_load_bytes(e, p, bytes * valid, bytes * k->n, true);
    if (bytes == 2) in = mpqc_b_as(e, in, e->i16, k->n);
    for (unsigned q = 0; q < k->n_pairs; q++) {
        int order[64];
        for (unsigned i = 0; i < k->n16; i++) order[i] = packed_channel(k, q, i);
        LLVMValueRef d = residual_factor(e, ep, mpqc_b_shuffle(e, in, in, order, k->n16));
        d = e->target->isa->mulhrs(e, d, splat_like(e, d, ep->residual_mult));
        k->t[q] = call2(e, "llvm.sadd.sat", k->t[q], d);
    }
}

/* The chunk's channels in order, from vectors in packed order (joined). */
static LLVMValueRef in_order(struct mpqc_emit_cx *e, const struct chunk *k, LLVMValueRef joined)
{
    int order[64];
    for (unsigned p = k->n_pairs; p-- > 0;)
        for (unsigned i = k->n16; i-- > 0;) {
            int c = packed_channel(k, p, i);
            if (c < (int)k->n) order[c] = (int)(p * k->n16 + i);
        }
    return mpqc_b_shuffle(e, joined, joined, order, k->n);
}

/* 16-bit vectors -> bytes in order, clamped to [lo, hi]. */
static LLVMValueRef narrow(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep, struct chunk *k)
{
    LLVMValueRef bytes;
    for (unsigned p = 0; p < k->n_pairs; p++) {
        LLVMValueRef t = k->t[p];
        /* (x * 2^(15-f) + 2^14) >> 15 = (x + 2^(f-1)) >> f */
        if (ep->frac > 0) t = e->target->isa->mulhrs(e, t, splat_like(e, t, 1 << (15 - ep->frac)));
        k->t[p] = call2(e, "llvm.sadd.sat", t, splat_like(e, t, ep->zero));
    }
    if (k->nv == 1 && k->lanes > 4) { /* no pack: in order already */
        LLVMValueRef t = call2(e, "llvm.smax", k->t[0], splat_like(e, k->t[0], ep->lo));
        t = call2(e, "llvm.smin", t, splat_like(e, t, ep->hi));
        bytes = LLVMBuildTrunc(e->b, t, LLVMVectorType(e->i8, k->n), "");
    } else {
        LLVMValueRef packed = e->target->isa->pack8(e, k->t[0], k->t[k->n_pairs - 1]);
        /* 16-byte part j of the result: 8 bytes of the first vector, 8 of the second. */
        int order[64];
        for (unsigned p = k->n_pairs; p-- > 0;)
            for (unsigned i = k->n16; i-- > 0;) {
                int c = packed_channel(k, p, i);
                if (c < (int)k->n) order[c] = (int)(i / 8 * 16 + 8 * p + i % 8);
            }
        if (ep->lo > 0) packed = call2(e, "llvm.umax", packed, splat_like(e, packed, ep->lo));
        if (ep->hi < 255) packed = call2(e, "llvm.umin", packed, splat_like(e, packed, ep->hi));
        bytes = mpqc_b_shuffle(e, packed, packed, order, k->n);
    }
    if (ep->flip) bytes = LLVMBuildXor(e->b, bytes, splat_like(e, bytes, 0x80), "");
    return bytes;
}

/* table[bytes[i]] for the first n of them, to p. */
static void store_by_table(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep,
                           LLVMValueRef bytes, LLVMValueRef p, unsigned n)
{
    struct mpqc_loop l;
    mpqc_b_store(e, bytes, ep->buffer, 1);
    mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, n), 1, "table");
    LLVMValueRef i = mpqc_b_load(e, e->i8, mpqc_b_gep(e, ep->buffer, l.iv), 1);
    i = LLVMBuildZExt(e->b, i, e->i64, "");
    LLVMValueRef y = mpqc_b_load(e, e->i8, mpqc_b_gep(e, ep->table, i), 1);
    mpqc_b_store(e, y, mpqc_b_gep(e, p, l.iv), 1);
    mpqc_b_loop_end(e, &l);
}

static LLVMValueRef by_vector_table(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep,
                                    LLVMValueRef bytes)
{
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(bytes));
    if (n < 16) {
        int order[16];
        for (int i = 0; i < 16; i++) order[i] = i < (int)n ? i : -1;
        bytes = mpqc_b_shuffle(e, bytes, bytes, order, 16);
    }
    return e->target->isa->lookup(e, ep->table, bytes);
}

/* Rounds, and clamps to [lo, hi]. */
static void clamp(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep, struct chunk *k)
{
    for (unsigned p = 0; p < k->n_pairs; p++) {
        LLVMValueRef t = k->t[p];
        if (ep->frac > 0) t = e->target->isa->mulhrs(e, t, splat_like(e, t, 1 << (15 - ep->frac)));
        if (ep->lo > INT16_MIN) t = call2(e, "llvm.smax", t, splat_like(e, t, ep->lo));
        if (ep->hi < INT16_MAX) t = call2(e, "llvm.smin", t, splat_like(e, t, ep->hi));
        k->t[p] = t;
    }
}

static void store_chunk(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, struct chunk *k,
                        LLVMValueRef position, unsigned valid)
{
    LLVMValueRef at = LLVMBuildNSWAdd(e->b, position, mpqc_b_i64(e, k->at), "");
    if (!ep->narrow) {
        if (ep->clamp) clamp(e, ep, k);
        LLVMValueRef all = k->n_pairs == 2 ? mpqc_b_join(e, k->t[0], k->t[1]) : k->t[0];
        LLVMValueRef bytes = mpqc_b_as(e, in_order(e, k, all), e->i8, 2 * k->n);
        at = mpqc_b_madd(e, at, 2, mpqc_b_i64(e, 0));
        mpqc_b_store_bytes(e, bytes, mpqc_b_gep(e, ep->out, at), 2 * valid);
        return;
    }
    LLVMValueRef bytes = narrow(e, ep, k), p = mpqc_b_gep(e, ep->out, at);
    if (ep->buffer) {
        store_by_table(e, ep, bytes, p, valid);
        return;
    }
    if (ep->lut) bytes = by_vector_table(e, ep, bytes);
    mpqc_b_store_bytes(e, bytes, p, valid);
}

/* The chunk that starts with vector k->first. */
static void measure_chunk(const struct mpqc_columns *c, struct chunk *k)
{
    k->interleaved = c->interleaved;
    k->nv = mpqc_epilogue_chunk(c, k->first);
    k->lanes = c->lanes[k->first];
    k->n = (k->nv == 3 ? 4 : k->nv) * k->lanes;
    k->n16 = packed_lanes(k->nv, k->lanes);
    k->n_pairs = (k->nv + 1) / 2;
}

/* From 16-bit sums to memory. */
static void finish_chunk(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, struct chunk *k,
                         LLVMValueRef position, LLVMValueRef residual_position, LLVMValueRef row)
{
    unsigned left = ep->columns.valid - k->at, valid = left < k->n ? left : k->n;
    for (unsigned p = 0; p < k->n_pairs; p++) {
        LLVMValueRef m = ep->mult_kind == MPQC_PARAM_POSITION ? mult_by_row(e, ep, k->n16, row)
                                                              : ep->mult_of[k->slot + p];
        k->t[p] = e->target->isa->mulhrs(e, k->t[p], m);
    }
    if (ep->residual != MPQC_NONE) add_residual(e, ep, k, residual_position, valid);
    store_chunk(e, ep, k, position, valid);
}

void mpqc_epilogue_store(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, LLVMValueRef *acc,
                         LLVMValueRef position, LLVMValueRef residual_position, LLVMValueRef row)
{
    const struct mpqc_columns *c = &ep->columns;
    struct chunk k = {0};
    for (k.first = 0; k.first < c->n && k.at < c->valid; k.first += k.nv) {
        measure_chunk(c, &k);
        shift_and_pack(e, ep, &k, acc, row);
        finish_chunk(e, ep, &k, position, residual_position, row);
        k.slot += k.n_pairs;
        k.at += k.n;
    }
}

LLVMValueRef mpqc_epilogue_pack(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, unsigned half,
                                LLVMValueRef *acc, LLVMValueRef row)
{
    MPQC_ASSERT(ep->columns.interleaved && ep->columns.n == 4);
    return e->target->isa->pack16(e, shift(e, ep, 2 * half, acc[0], row),
                                  shift(e, ep, 2 * half + 1, acc[1], row));
}

void mpqc_epilogue_store_packed(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                                const LLVMValueRef half[2], LLVMValueRef position,
                                LLVMValueRef residual_position, LLVMValueRef row)
{
    struct chunk k = {.t = {half[0], half[1]}};
    MPQC_ASSERT(ep->columns.interleaved && ep->columns.n == 4);
    measure_chunk(&ep->columns, &k);
    finish_chunk(e, ep, &k, position, residual_position, row);
}
