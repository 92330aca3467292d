/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The epilogue, part 3: from accumulators to stored bytes.  Follows ir/dyadic.h step by
 * step; the rounding half of the first shift is already in the bias.
 */
#include "codegen/epilogue.h"

/* ---- one chunk -------------------------------------------------------------------- */

struct chunk {
    unsigned first, nv, lanes; /* vectors; of 3 the last one stands for two */
    unsigned n16, n;           /* elements of one 16-bit vector; of the chunk */
    unsigned n_pairs;          /* 16-bit vectors */
    unsigned slot;             /* of mult_of */
    unsigned at;               /* channel, relative to the columns' first */
    bool ordered, windows, paired; /* ordered: an interleaved chunk of four */
    LLVMValueRef t[4];
};

/* Where one position or two go. */
struct places {
    LLVMValueRef position[2], residual[2], row;
    unsigned n;
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
    LLVMValueRef s = mpqc_b_load(e, e->i32, mpqc_epilogue_element(e, ep->shifts, row, 4, 0), 4);
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
    int order[MPQC_MAX_LANES];
    if (has == n) return v;
    MPQC_ASSERT(n <= MPQC_LEN(order));
    for (unsigned i = 0; i < n; i++) order[i] = i < has ? (int)i : -1;
    return mpqc_b_shuffle(e, v, LLVMGetPoison(LLVMTypeOf(v)), order, n);
}

/* pack16 (or window16) of vectors va and vb of the columns, shifted, as vectors of so many
 * lanes. */
static LLVMValueRef shift_pair(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep,
                               bool windows, unsigned lanes, unsigned va, LLVMValueRef a,
                               unsigned vb, LLVMValueRef b, LLVMValueRef row)
{
    const struct mpqc_isa *isa = e->target->isa;
    if (isa->shift16 && ep->shift_kind == MPQC_PARAM_UNIFORM)
        return isa->shift16(e, a, b, ep->shift);
    if (windows)
        return isa->window16(e, a, va == vb ? NULL : b, ep->shift_of[va], ep->shift_of[vb]);
    if (isa->upper16 && ep->shift_kind == MPQC_PARAM_CHANNEL)
        return isa->upper16(e, a, b, ep->shift_of[va], ep->shift_of[vb]);
    a = widened(e, shift(e, ep, va, a, row), lanes);
    return isa->pack16(e, a, va == vb ? a : widened(e, shift(e, ep, vb, b, row), lanes));
}

static void shift_and_pack(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep,
                           struct chunk *k, const LLVMValueRef *acc, LLVMValueRef row)
{
    unsigned copies = k->paired ? 2 : 1, first = copies * k->first;
    for (unsigned p = 0; p < k->n_pairs; p++) {
        unsigned a = first + 2 * p, b = 2 * p + 1 < copies * k->nv ? a + 1 : a;
        k->t[p] = shift_pair(e, ep, k->windows, k->lanes, a, acc[a], b, acc[b], row);
    }
}

static LLVMValueRef mult_by_row(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep, unsigned n,
                                LLVMValueRef row)
{
    LLVMValueRef m = mpqc_b_load(e, e->i32, mpqc_epilogue_element(e, ep->mults, row, 4, 0), 4);
    return mpqc_b_broadcast(e, LLVMBuildTrunc(e->b, m, e->i16, ""), n);
}

/* Which of the chunk's channels is in element i of 16-bit vector p. */
static int packed_channel(const struct chunk *k, unsigned p, unsigned i)
{
    if (k->ordered) return (int)mpqc_epilogue_word_channel(p, i);
    struct mpqc_word w = mpqc_epilogue_word(k->windows, p, i);
    return (int)((k->nv == 1 ? 0 : k->lanes * w.vector) + w.lane);
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

/* The chunk's elements of a residual, in order. */
static LLVMValueRef load_residual(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep,
                                  const struct chunk *k, LLVMValueRef position, unsigned valid)
{
    unsigned bytes = ep->residual_wide ? 2 : 1;
    LLVMValueRef at = LLVMBuildNSWAdd(e->b, position, mpqc_b_i64(e, k->at), "");
    LLVMValueRef p = mpqc_b_gep(e, ep->residual_in,
                                bytes == 1 ? at : mpqc_b_madd(e, at, bytes, mpqc_b_i64(e, 0)));
    /* Behind the last channel may lie what another thread writes, or nothing at all. */
    LLVMValueRef in = mpqc_b_load_bytes(e, p, bytes * valid, bytes * k->n, true);
    return bytes == 2 ? mpqc_b_as(e, in, e->i16, k->n) : in;
}

/* Two channels of one position, two of the other, and so on. */
static LLVMValueRef join_pair(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b)
{
    LLVMTypeRef element = LLVMGetElementType(LLVMTypeOf(a));
    unsigned n = LLVMGetVectorSize(LLVMTypeOf(a));
    LLVMTypeRef two = element == e->i8 ? e->i16 : e->i32;
    int order[32];
    for (unsigned i = 0; i < n; i++) order[i] = (int)(i / 2 + i % 2 * (n / 2));
    LLVMValueRef in = mpqc_b_shuffle(e, mpqc_b_as(e, a, two, n / 2), mpqc_b_as(e, b, two, n / 2),
                                     order, n);
    return mpqc_b_as(e, in, element, 2 * n);
}

/* What join_pair joined: position `which` of vectors a and b, which follow each other; n
 * channels. */
static LLVMValueRef part_pair(struct mpqc_emit_cx *e, LLVMValueRef a, LLVMValueRef b,
                              unsigned which, unsigned n)
{
    LLVMTypeRef element = LLVMGetElementType(LLVMTypeOf(a));
    unsigned twos = LLVMGetVectorSize(LLVMTypeOf(a)) / 2;
    LLVMTypeRef two = element == e->i8 ? e->i16 : e->i32;
    int order[8];
    for (unsigned i = 0; i < n / 2; i++) order[i] = (int)(2 * i + which);
    LLVMValueRef out =
        mpqc_b_shuffle(e, mpqc_b_as(e, a, two, twos), mpqc_b_as(e, b, two, twos), order, n / 2);
    return mpqc_b_as(e, out, element, n);
}

static void add_residual(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep, struct chunk *k,
                         const struct places *to, unsigned valid)
{
    LLVMValueRef in = load_residual(e, ep, k, to->residual[0], valid);
    if (k->paired)
        in = join_pair(e, in,
                       to->n > 1 ? load_residual(e, ep, k, to->residual[1], valid) : in);
    for (unsigned q = 0; q < k->n_pairs; q++) {
        int order[64];
        for (unsigned i = 0; i < k->n16; i++)
            order[i] = k->paired ? (int)(8 * q + i) : packed_channel(k, q, i);
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

/* May rounding follow the addition of the zero point, in one instruction with the pack?  Sums
 * that saturate are 255 either way. */
static bool rounds_last(const struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep)
{
    return e->target->isa->round8 && ep->frac >= 1 && ep->frac <= 7 && ep->zero >= 0 &&
           ep->zero <= 255;
}

/* 16-bit vectors a and b -> bytes as pack8 gives them, clamped to [lo, hi]. */
static LLVMValueRef pack_bytes(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep,
                               LLVMValueRef a, LLVMValueRef b)
{
    LLVMValueRef packed = rounds_last(e, ep) ? e->target->isa->round8(e, a, b, ep->frac)
                                             : e->target->isa->pack8(e, a, b);
    if (ep->lo > 0) packed = call2(e, "llvm.umax", packed, splat_like(e, packed, ep->lo));
    if (ep->hi < 255) packed = call2(e, "llvm.umin", packed, splat_like(e, packed, ep->hi));
    return packed;
}

static void add_zero(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep, struct chunk *k)
{
    for (unsigned p = 0; p < k->n_pairs; p++) {
        LLVMValueRef t = k->t[p];
        int32_t zero = rounds_last(e, ep) ? ep->zero * (1 << ep->frac) : ep->zero;
        /* (x * 2^(15-f) + 2^14) >> 15 = (x + 2^(f-1)) >> f */
        if (ep->frac > 0 && !rounds_last(e, ep))
            t = e->target->isa->mulhrs(e, t, splat_like(e, t, 1 << (15 - ep->frac)));
        k->t[p] = call2(e, "llvm.sadd.sat", t, splat_like(e, t, zero));
    }
}

/* 16-bit vectors, zero point added -> bytes in order. */
static LLVMValueRef narrow(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep, struct chunk *k)
{
    LLVMValueRef packed = pack_bytes(e, ep, k->t[0], k->t[k->n_pairs - 1]);
    /* 16-byte part j of the result: 8 bytes of the first vector, 8 of the second. */
    int order[64];
    for (unsigned p = k->n_pairs; p-- > 0;)
        for (unsigned i = k->n16; i-- > 0;) {
            int c = packed_channel(k, p, i);
            if (c < (int)k->n) order[c] = (int)(i / 8 * 16 + 8 * p + i % 8);
        }
    return mpqc_b_shuffle(e, packed, packed, order, k->n);
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

/* Positions that share the columns: how many, and where number i goes, if the first goes to p. */
static unsigned sharing(const struct mpqc_epilogue *ep)
{
    return ep->columns.shared ? ep->columns.shared : 1;
}

static LLVMValueRef sharer(struct mpqc_emit_cx *e, const struct mpqc_epilogue *ep, LLVMValueRef p,
                           unsigned i, int64_t bytes)
{
    return i == 0 ? p : mpqc_b_gep_const(e, p, ep->columns.shared_at[i] * bytes);
}

/* The chunk's bytes of one position, in order, to where it goes. */
static void store_bytes(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, const struct chunk *k,
                        LLVMValueRef bytes, LLVMValueRef position, unsigned valid)
{
    LLVMValueRef at = LLVMBuildNSWAdd(e->b, position, mpqc_b_i64(e, k->at), "");
    LLVMValueRef p = mpqc_b_gep(e, ep->out, at);
    if (ep->flip) bytes = LLVMBuildXor(e->b, bytes, splat_like(e, bytes, 0x80), "");
    if (ep->lut && !ep->buffer) bytes = by_vector_table(e, ep, bytes);
    for (unsigned i = 0, n = k->n / sharing(ep); i < sharing(ep); i++) {
        LLVMValueRef own = n < k->n ? mpqc_b_part(e, bytes, i * n, n) : bytes;
        if (ep->buffer) store_by_table(e, ep, own, sharer(e, ep, p, i, 1), valid);
        else mpqc_b_store_bytes(e, own, sharer(e, ep, p, i, 1), valid);
    }
}

/* The same of 16-bit elements. */
static void store_words(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, const struct chunk *k,
                        LLVMValueRef words, LLVMValueRef position, unsigned valid)
{
    LLVMValueRef at = LLVMBuildNSWAdd(e->b, position, mpqc_b_i64(e, k->at), "");
    LLVMValueRef bytes = mpqc_b_as(e, words, e->i8, 2 * k->n);
    LLVMValueRef p = mpqc_b_gep(e, ep->out, mpqc_b_madd(e, at, 2, mpqc_b_i64(e, 0)));
    for (unsigned i = 0, n = 2 * k->n / sharing(ep); i < sharing(ep); i++)
        mpqc_b_store_bytes(e, n < 2 * k->n ? mpqc_b_part(e, bytes, i * n, n) : bytes,
                           sharer(e, ep, p, i, 2), 2 * valid);
}

static void store_paired(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, struct chunk *k,
                         const struct places *to, unsigned valid)
{
    LLVMValueRef v[4];
    unsigned last = k->n_pairs - 1, n = ep->narrow ? (k->n_pairs + 1) / 2 : k->n_pairs;
    for (unsigned i = 0; i < n; i++)
        v[i] = ep->narrow ? pack_bytes(e, ep, k->t[2 * i], k->t[2 * i < last ? 2 * i + 1 : last])
                          : k->t[i];
    while (n > 2) { /* 16-bit elements fill four vectors */
        v[0] = mpqc_b_join(e, v[0], v[1]);
        v[1] = mpqc_b_join(e, v[2], v[3]);
        n = 2;
    }
    for (unsigned i = 0; i < to->n; i++) {
        LLVMValueRef part = part_pair(e, v[0], v[n - 1], i, k->n);
        if (ep->narrow) store_bytes(e, ep, k, part, to->position[i], valid);
        else store_words(e, ep, k, part, to->position[i], valid);
    }
}

static void store_chunk(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, struct chunk *k,
                        const struct places *to, unsigned valid)
{
    if (ep->narrow) add_zero(e, ep, k);
    else if (ep->clamp) clamp(e, ep, k);
    if (k->paired) {
        store_paired(e, ep, k, to, valid);
    } else if (ep->narrow) {
        store_bytes(e, ep, k, narrow(e, ep, k), to->position[0], valid);
    } else {
        LLVMValueRef all = k->n_pairs == 2 ? mpqc_b_join(e, k->t[0], k->t[1]) : k->t[0];
        store_words(e, ep, k, in_order(e, k, all), to->position[0], valid);
    }
}

/* The chunk that starts with vector k->first. */
static void measure_chunk(const struct mpqc_columns *c, struct chunk *k)
{
    k->paired = c->paired;
    k->nv = mpqc_epilogue_chunk(c, k->first);
    k->ordered = mpqc_epilogue_ordered(c, k->first, k->nv);
    k->windows = mpqc_epilogue_windows(c, k->first, k->nv);
    k->lanes = c->lanes[k->first];
    k->n = (k->nv == 3 ? 4 : k->nv) * k->lanes;
    k->n16 = k->paired ? 8 : 2 * k->lanes;
    k->n_pairs = k->paired ? k->nv : (k->nv + 1) / 2;
}

/* From 16-bit sums to memory. */
static void finish_chunk(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, struct chunk *k,
                         const struct places *to)
{
    unsigned left = ep->columns.valid - k->at, valid = left < k->n ? left : k->n;
    for (unsigned p = 0; p < k->n_pairs; p++) {
        LLVMValueRef m = ep->mult_kind == MPQC_PARAM_POSITION
                             ? mult_by_row(e, ep, k->n16, to->row)
                             : ep->mult_of[k->slot + p];
        k->t[p] = e->target->isa->mulhrs(e, k->t[p], m);
    }
    if (ep->residual != MPQC_NONE) add_residual(e, ep, k, to, valid);
    store_chunk(e, ep, k, to, valid);
}

static void store_all(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, LLVMValueRef *acc,
                      const struct places *to)
{
    const struct mpqc_columns *c = &ep->columns;
    struct chunk k = {0};
    for (k.first = 0; k.first < c->n && k.at < c->valid; k.first += k.nv) {
        measure_chunk(c, &k);
        shift_and_pack(e, ep, &k, acc, to->row);
        finish_chunk(e, ep, &k, to);
        k.slot += k.n_pairs;
        k.at += k.n;
    }
}

void mpqc_epilogue_store(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, LLVMValueRef *acc,
                         LLVMValueRef position, LLVMValueRef residual_position, LLVMValueRef row)
{
    MPQC_ASSERT(!ep->columns.paired);
    store_all(e, ep, acc, &(struct places){{position}, {residual_position}, row, 1});
}

void mpqc_epilogue_store_pair(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, LLVMValueRef *acc,
                              const LLVMValueRef position[2],
                              const LLVMValueRef residual_position[2], unsigned live)
{
    MPQC_ASSERT(ep->columns.paired && live >= 1 && live <= 2);
    store_all(e, ep, acc,
              &(struct places){{position[0], position[1]},
                               {residual_position[0], residual_position[1]},
                               NULL,
                               live});
}

LLVMValueRef mpqc_epilogue_pack(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep, unsigned half,
                                LLVMValueRef *acc, LLVMValueRef row)
{
    MPQC_ASSERT(ep->columns.interleaved && ep->columns.n == 4);
    return shift_pair(e, ep, false, ep->columns.lanes[0], 2 * half, acc[0], 2 * half + 1, acc[1],
                      row);
}

void mpqc_epilogue_store_packed(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                                const LLVMValueRef half[2], LLVMValueRef position,
                                LLVMValueRef residual_position, LLVMValueRef row)
{
    struct chunk k = {.t = {half[0], half[1]}};
    MPQC_ASSERT(ep->columns.interleaved && ep->columns.n == 4);
    measure_chunk(&ep->columns, &k);
    finish_chunk(e, ep, &k, &(struct places){{position}, {residual_position}, row, 1});
}
