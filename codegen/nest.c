/* SPDX-License-Identifier: GPL-3.0-or-later
 * Loop nests; see nest.h.
 */
#include "codegen/nest.h"

#include <string.h>

/* Parts smaller than this many bytes of output are not worth a thread. */
enum { GRAIN_BYTES = 16384, CHUNK = 4096 };

void mpqc_value_strides(struct mpqc_emit_cx *e, mpqc_vid v, int64_t stride[MPQC_MAX_RANK])
{
    const struct mpqc_type *t = &mpqc_value_at(e->graph, v)->type;
    const struct mpqc_place *p = &e->plan->place[v];
    bool placed = p->space != MPQC_SPACE_NONE && p->space != MPQC_SPACE_CONST;
    int64_t dense = 1;
    for (uint32_t d = t->rank; d-- > 0;) {
        stride[d] = placed ? p->stride[d] : dense;
        dense *= t->dims[d];
    }
}

unsigned mpqc_value_bytes(const struct mpqc_emit_cx *e, mpqc_vid v)
{
    return mpqc_dtypes[mpqc_value_at(e->graph, v)->type.dtype].bytes;
}

bool mpqc_value_slack(const struct mpqc_emit_cx *e, mpqc_vid v)
{
    return e->plan->place[v].space == MPQC_SPACE_ARENA;
}

LLVMTypeRef mpqc_element_type(const struct mpqc_emit_cx *e, enum mpqc_dtype t)
{
    switch (mpqc_dtypes[t].bytes) {
    case 1: return e->i8;
    case 2: return e->i16;
    case 4: return t == MPQC_DT_F32 ? e->f32 : e->i32;
    default: return e->i64;
    }
}

/* ---- shape --------------------------------------------------------------------------- */

void mpqc_nest_init(struct mpqc_nest *n, uint32_t rank, const int64_t *dims)
{
    MPQC_ASSERT(rank <= MPQC_NEST_RANK);
    memset(n, 0, sizeof *n);
    n->rank = rank;
    for (uint32_t d = 0; d < rank; d++) n->dims[d] = dims[d];
}

void mpqc_nest_strided(struct mpqc_nest *n, const int64_t *stride, unsigned bytes)
{
    MPQC_ASSERT(n->n < MPQC_NEST_OPERANDS);
    for (uint32_t d = 0; d < n->rank; d++) n->stride[n->n][d] = stride[d] * (int64_t)bytes;
    n->n++;
}

void mpqc_nest_value(struct mpqc_emit_cx *e, struct mpqc_nest *n, mpqc_vid v)
{
    const struct mpqc_type *t = &mpqc_value_at(e->graph, v)->type;
    int64_t own[MPQC_MAX_RANK], stride[MPQC_NEST_RANK] = {0};
    mpqc_value_strides(e, v, own);
    MPQC_ASSERT(t->rank <= n->rank);
    uint32_t missing = n->rank - t->rank; /* leading dimensions that v does not have */
    for (uint32_t d = 0; d < t->rank; d++)
        stride[missing + d] = t->dims[d] == 1 ? 0 : own[d];
    mpqc_nest_strided(n, stride, mpqc_dtypes[t->dtype].bytes);
}

static void remove_dim(struct mpqc_nest *n, uint32_t d)
{
    for (uint32_t i = d; i + 1 < n->rank; i++) {
        n->dims[i] = n->dims[i + 1];
        for (uint32_t k = 0; k < n->n; k++) n->stride[k][i] = n->stride[k][i + 1];
    }
    n->rank--;
}

/* May dimension d and the one behind it be walked as one? */
static bool mergeable(const struct mpqc_nest *n, uint32_t d)
{
    for (uint32_t k = 0; k < n->n; k++)
        if (n->stride[k][d] != n->stride[k][d + 1] * n->dims[d + 1]) return false;
    return true;
}

/* Leaves the first `keep` dimensions alone. */
static void merge(struct mpqc_nest *n, uint32_t keep)
{
    for (uint32_t d = n->rank; d-- > keep;)
        if (n->dims[d] == 1 && n->rank > keep + 1) remove_dim(n, d);
    for (uint32_t d = n->rank; d-- > keep;) {
        if (d + 1 >= n->rank || !mergeable(n, d)) continue;
        n->dims[d + 1] *= n->dims[d];
        remove_dim(n, d);
    }
    if (n->rank == 0) { /* a scalar */
        n->rank = 1;
        n->dims[0] = 1;
    }
    if (n->rank == 1) n->chunk = CHUNK;
}

void mpqc_nest_finish(struct mpqc_emit_cx *e, struct mpqc_nest *n, mpqc_vid out)
{
    const struct mpqc_place *place = &e->plan->place[out];
    uint32_t keep = 0;
    if (mpqc_place_has_halo(place)) { /* rows are counted, so N and H stay apart */
        MPQC_ASSERT(n->rank >= 4);
        n->halo = place;
        n->halo_type = &mpqc_value_at(e->graph, out)->type;
        keep = 2;
    }
    merge(n, keep);
}

void mpqc_nest_finish_part(struct mpqc_nest *n)
{
    merge(n, 0);
}

int64_t mpqc_nest_run(const struct mpqc_nest *n)
{
    return n->dims[n->rank - 1];
}

int64_t mpqc_nest_step(const struct mpqc_nest *n, uint32_t operand)
{
    return n->stride[operand][n->rank - 1];
}

int64_t mpqc_nest_range(const struct mpqc_nest *n)
{
    if (n->chunk) return (n->dims[0] + n->chunk - 1) / n->chunk;
    if (n->plane && n->rank == 2) return 1;
    return n->halo ? n->dims[0] * n->dims[1] : n->dims[0];
}

int64_t mpqc_nest_grain(const struct mpqc_nest *n)
{
    if (n->chunk) return GRAIN_BYTES / CHUNK;
    int64_t unit = 1;
    for (uint32_t d = n->halo ? 2 : 1; d < n->rank; d++) unit *= n->dims[d];
    return unit >= GRAIN_BYTES ? 1 : GRAIN_BYTES / (unit > 0 ? unit : 1);
}

void mpqc_nest_key(const struct mpqc_nest *n, struct mpqc_buf *key)
{
    mpqc_buf_printf(key, " nest");
    for (uint32_t d = 0; d < n->rank; d++) {
        mpqc_buf_printf(key, " %lld:", (long long)n->dims[d]);
        for (uint32_t k = 0; k < n->n; k++)
            mpqc_buf_printf(key, "%lld,", (long long)n->stride[k][d]);
    }
    if (n->halo) {
        const int32_t *h = n->halo->halo;
        int zero = n->halo_type->quant ? n->halo_type->quant->zero[0] : 0;
        mpqc_buf_printf(key, " halo %d,%d,%d,%d=%d", h[0], h[1], h[2], h[3], zero);
    }
}

/* ---- code ---------------------------------------------------------------------------- */

struct walk {
    const struct mpqc_nest *nest;
    unsigned lanes;
    mpqc_run_fn fn;
    mpqc_plane_fn plane;
    void *user;
};

/* The narrowest vector, of at least 8 lanes, that holds n. */
static unsigned tail_lanes(int64_t n)
{
    unsigned w = 8;
    while (w < n) w *= 2;
    return w;
}

static void emit_tail(struct mpqc_emit_cx *e, const struct walk *w, LLVMValueRef const *p,
                      int64_t at, int64_t n)
{
    unsigned lanes = tail_lanes(n);
    if (lanes > w->lanes) lanes = w->lanes;
    w->fn(e, w->user, p, mpqc_b_i64(e, at), lanes, (unsigned)n);
}

/* A whole run. */
static void emit_run(struct mpqc_emit_cx *e, const struct walk *w, LLVMValueRef const *p)
{
    int64_t length = mpqc_nest_run(w->nest), lanes = w->lanes, full = length / lanes * lanes;
    if (full > 0 && full <= 2 * lanes) {
        for (int64_t i = 0; i < full; i += lanes)
            w->fn(e, w->user, p, mpqc_b_i64(e, i), w->lanes, w->lanes);
    } else if (full > 0) {
        struct mpqc_loop l;
        mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, full), lanes, "run");
        w->fn(e, w->user, p, l.iv, w->lanes, w->lanes);
        mpqc_b_loop_end(e, &l);
    }
    if (full < length) emit_tail(e, w, p, full, length - full);
}

/* Chunks [begin, end) of the only run; chunks are multiples of `lanes`. */
static void emit_chunks(struct mpqc_emit_cx *e, const struct walk *w, LLVMValueRef const *p,
                        LLVMValueRef begin, LLVMValueRef end)
{
    int64_t length = w->nest->dims[0], chunk = w->nest->chunk, lanes = w->lanes;
    int64_t full = length / lanes * lanes;
    if (length <= chunk) {
        emit_run(e, w, p);
        return;
    }
    struct mpqc_loop l;
    LLVMValueRef unit = mpqc_b_i64(e, chunk);
    LLVMValueRef from = LLVMBuildNSWMul(e->b, begin, unit, "");
    LLVMValueRef args[] = {LLVMBuildNSWMul(e->b, end, unit, ""), mpqc_b_i64(e, full)};
    LLVMValueRef to = mpqc_b_intrinsic(e, "llvm.smin", &e->i64, 1, args, 2);
    mpqc_b_loop_begin(e, &l, from, to, lanes, "run");
    w->fn(e, w->user, p, l.iv, w->lanes, w->lanes);
    mpqc_b_loop_end(e, &l);
    if (full == length) return;
    struct mpqc_if last;
    LLVMValueRef units = mpqc_b_i64(e, mpqc_nest_range(w->nest));
    mpqc_b_if_begin(e, &last, LLVMBuildICmp(e->b, LLVMIntEQ, end, units, ""));
    emit_tail(e, w, p, full, length - full);
    mpqc_b_if_end(e, &last);
}

/* Pointers moved by i * stride[d] of each operand. */
static void advance(struct mpqc_emit_cx *e, const struct mpqc_nest *n, uint32_t d, LLVMValueRef i,
                    LLVMValueRef const *from, LLVMValueRef *to)
{
    for (uint32_t k = 0; k < n->n; k++) {
        LLVMValueRef offset = mpqc_b_madd(e, i, n->stride[k][d], mpqc_b_i64(e, 0));
        to[k] = n->stride[k][d] ? mpqc_b_gep(e, from[k], offset) : from[k];
    }
}

static void emit_dims(struct mpqc_emit_cx *e, const struct walk *w, uint32_t d,
                      LLVMValueRef const *p)
{
    const struct mpqc_nest *n = w->nest;
    if (n->plane && d + 2 >= n->rank) {
        w->plane(e, w->user, p);
        return;
    }
    if (d + 1 >= n->rank) {
        emit_run(e, w, p);
        return;
    }
    struct mpqc_loop l;
    LLVMValueRef q[MPQC_NEST_OPERANDS];
    mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, n->dims[d]), 1, "dim");
    advance(e, n, d, l.iv, p, q);
    emit_dims(e, w, d + 1, q);
    mpqc_b_loop_end(e, &l);
}

void mpqc_nest_loops(struct mpqc_emit_cx *e, const struct mpqc_nest *n, LLVMValueRef const *p,
                     LLVMValueRef begin, LLVMValueRef end, unsigned lanes, mpqc_run_fn fn,
                     mpqc_plane_fn plane, void *user)
{
    struct walk w = {.nest = n, .lanes = lanes, .fn = fn, .plane = plane, .user = user};
    LLVMValueRef q[MPQC_NEST_OPERANDS];
    if (n->chunk) {
        emit_chunks(e, &w, p, begin, end);
        return;
    }
    if (n->plane && n->rank == 2) {
        plane(e, user, p);
        return;
    }
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, begin, end, 1, "row");
    if (!n->halo) {
        advance(e, n, 0, l.iv, p, q);
        emit_dims(e, &w, 1, q);
    } else {
        LLVMValueRef rows = mpqc_b_i64(e, n->dims[1]), y = l.iv, batch = mpqc_b_i64(e, 0);
        if (n->dims[0] > 1) {
            batch = LLVMBuildSDiv(e->b, l.iv, rows, "");
            y = LLVMBuildSRem(e->b, l.iv, rows, "");
        }
        advance(e, n, 0, batch, p, q);
        advance(e, n, 1, y, q, q);
        emit_dims(e, &w, 2, q);
        mpqc_emit_halo(e, n->halo, n->halo_type, p[0], l.iv);
    }
    mpqc_b_loop_end(e, &l);
}

void mpqc_nest_emit(struct mpqc_emit_cx *e, const struct mpqc_nest *n, unsigned lanes,
                    mpqc_run_fn fn, void *user)
{
    LLVMValueRef p[MPQC_NEST_OPERANDS];
    unsigned params = LLVMCountParams(e->function);
    for (uint32_t k = 0; k < n->n; k++) p[k] = LLVMGetParam(e->function, k);
    mpqc_nest_loops(e, n, p, LLVMGetParam(e->function, params - 2),
                    LLVMGetParam(e->function, params - 1), lanes, fn, NULL, user);
}
