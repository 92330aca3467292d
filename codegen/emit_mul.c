/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Product of two activations, broadcasting: (a - zero_a) * (b - zero_b), then the
 * epilogue.  Squeeze-and-excite gates are its main use.
 */
#include "codegen/linear.h"

#include "codegen/kernels.h"
#include "codegen/module.h"

#include <string.h>

enum { IN_A, IN_B, OUT, RES, N_STREAMS };

struct product {
    struct mpqc_emit_cx *e;
    struct mpqc_epilogue *ep;
    /* Outer axes: extents over 1, neighbours merged where all streams allow it. */
    uint32_t n_axes;
    int64_t extent[MPQC_MAX_RANK], stride[MPQC_MAX_RANK][N_STREAMS];
    int64_t channels;

    struct {
        LLVMValueRef p;
        int32_t zero;
        bool is_signed, scalar; /* scalar: one element for all channels */
        bool exact;
    } in[2];
    struct mpqc_panels panels; /* of full columns and rests */
};

/* Element stride of stream s along axis d of the output; inputs broadcast from the
 * right. */
static int64_t stride_of(const struct mpqc_emit_cx *e, mpqc_vid v, uint32_t rank, uint32_t d)
{
    const struct mpqc_type *t = &mpqc_value_at(e->graph, v)->type;
    if (d + t->rank < rank) return 0;
    uint32_t i = d + t->rank - rank;
    return t->dims[i] == 1 ? 0 : e->plan->place[v].stride[i];
}

static void read_axes(struct product *q, const struct mpqc_kernel *k, const mpqc_vid stream[])
{
    const struct mpqc_type *y = &mpqc_value_at(q->e->graph, k->out)->type;
    for (uint32_t d = 0; d + 1 < y->rank; d++) {
        int64_t stride[N_STREAMS] = {0};
        if (y->dims[d] == 1) continue;
        for (int s = 0; s < N_STREAMS; s++)
            if (stream[s] != MPQC_NONE) stride[s] = stride_of(q->e, stream[s], y->rank, d);
        bool merge = q->n_axes > 0 && !mpqc_place_has_halo(&q->e->plan->place[k->out]);
        for (int s = 0; merge && s < N_STREAMS; s++)
            merge = q->stride[q->n_axes - 1][s] == stride[s] * y->dims[d];
        if (!merge) q->extent[q->n_axes++] = 1;
        q->extent[q->n_axes - 1] *= y->dims[d];
        memcpy(q->stride[q->n_axes - 1], stride, sizeof stride);
    }
    if (q->n_axes == 0) q->extent[q->n_axes++] = 1;
}

static mpqc_status read_input(struct product *q, const struct mpqc_node *n, int i)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_type *t = &mpqc_value_at(e->graph, n->in[i])->type;
    if (mpqc_dtypes[t->dtype].bytes != 1)
        return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(n),
                         "integer products take 8-bit activations, not '%s'",
                         mpqc_dtypes[t->dtype].text);
    q->in[i].zero = t->quant ? t->quant->zero[0] : 0;
    q->in[i].is_signed = mpqc_dtypes[t->dtype].kind == MPQC_KIND_SINT;
    q->in[i].scalar = t->rank == 0 || t->dims[t->rank - 1] == 1;
    q->in[i].exact = e->plan->place[n->in[i]].space != MPQC_SPACE_ARENA;
    return MPQC_OK;
}

/* Columns of up to four vectors: full ones first. */
static void choose_columns(struct product *q)
{
    unsigned tail[MPQC_MAX_TAIL], L = q->e->target->isa->lanes;
    int64_t full;
    unsigned n_tail = mpqc_split_channels(q->channels, L, false, &full, tail);
    struct mpqc_panels *p = &q->panels;
    p->n_full = full / 4;
    p->full = (struct mpqc_columns){.n = 4, .valid = 4 * L};
    for (int v = 0; v < 4; v++) p->full.lanes[v] = L;
    int64_t left = q->channels - p->n_full * 4 * L;
    struct mpqc_columns *c = &p->rest[0];
    p->n_rest = left > 0;
    c->valid = (unsigned)left;
    for (unsigned v = 0; v < full % 4; v++) c->lanes[c->n++] = L;
    for (unsigned v = 0; v < n_tail; v++) c->lanes[c->n++] = tail[v];
}

/* Lanes of a - zero as i32; `valid` of them exist. */
static LLVMValueRef load_input(struct product *q, int i, LLVMValueRef position, int64_t at,
                               unsigned lanes, unsigned valid)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMTypeRef wide = LLVMVectorType(e->i32, lanes);
    LLVMValueRef v;
    if (q->in[i].scalar) {
        LLVMValueRef s = mpqc_b_load(e, e->i8, mpqc_b_gep(e, q->in[i].p, position), 1);
        s = q->in[i].is_signed ? LLVMBuildSExt(e->b, s, e->i32, "")
                               : LLVMBuildZExt(e->b, s, e->i32, "");
        v = mpqc_b_broadcast(e, s, lanes);
    } else {
        LLVMValueRef p = mpqc_b_gep_const(e, mpqc_b_gep(e, q->in[i].p, position), at);
        v = mpqc_b_load_bytes(e, p, valid, lanes, q->in[i].exact);
        v = q->in[i].is_signed ? LLVMBuildSExt(e->b, v, wide, "")
                               : LLVMBuildZExt(e->b, v, wide, "");
    }
    return LLVMBuildSub(e->b, v, mpqc_b_splat(e, wide, q->in[i].zero), "");
}

static void columns(struct product *q, const struct mpqc_columns *c, LLVMValueRef channel,
                    const LLVMValueRef at[N_STREAMS], LLVMValueRef index)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef acc[MPQC_MAX_COLUMNS], position[N_STREAMS];
    int64_t lane = 0;
    for (int s = 0; s < N_STREAMS; s++)
        position[s] = s < 2 && q->in[s].scalar ? at[s] : LLVMBuildNSWAdd(e->b, at[s], channel, "");
    mpqc_epilogue_bias(e, q->ep, c, channel, acc);
    mpqc_epilogue_columns(e, q->ep, c, channel);
    for (unsigned v = 0; v < c->n; v++) {
        unsigned left = c->valid - (unsigned)lane, L = c->lanes[v];
        LLVMValueRef a = load_input(q, IN_A, position[IN_A], lane, L, left < L ? left : L);
        LLVMValueRef b = load_input(q, IN_B, position[IN_B], lane, L, left < L ? left : L);
        acc[v] = LLVMBuildAdd(e->b, acc[v], LLVMBuildMul(e->b, a, b, ""), "");
        lane += L;
    }
    mpqc_epilogue_store(e, q->ep, acc, position[OUT], position[RES], index);
}

static void position(struct product *q, const LLVMValueRef at[N_STREAMS], LLVMValueRef index)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_panels *p = &q->panels;
    LLVMValueRef zero = mpqc_b_i64(e, 0);
    if (p->n_full > 0) {
        struct mpqc_loop l;
        mpqc_b_loop_begin(e, &l, zero, mpqc_b_i64(e, p->n_full), 1, "channels");
        columns(q, &p->full, mpqc_b_madd(e, l.iv, p->full.valid, zero), at, index);
        mpqc_b_loop_end(e, &l);
    }
    if (p->n_rest)
        columns(q, &p->rest[0], mpqc_b_i64(e, p->n_full * p->full.valid), at, index);
}

/* Loops over axes d and inwards; the range of the outermost is the kernel's. */
static void axes(struct product *q, uint32_t d, LLVMValueRef from, LLVMValueRef to,
                 const LLVMValueRef at[N_STREAMS], LLVMValueRef index)
{
    struct mpqc_emit_cx *e = q->e;
    if (d == q->n_axes) {
        position(q, at, index);
        return;
    }
    struct mpqc_loop l;
    LLVMValueRef next[N_STREAMS];
    mpqc_b_loop_begin(e, &l, from ? from : mpqc_b_i64(e, 0),
                      to ? to : mpqc_b_i64(e, q->extent[d]), 1, "axis");
    for (int s = 0; s < N_STREAMS; s++) next[s] = mpqc_b_madd(e, l.iv, q->stride[d][s], at[s]);
    axes(q, d + 1, NULL, NULL, next, mpqc_b_madd(e, index, q->extent[d], l.iv));
    mpqc_b_loop_end(e, &l);
}

/* All rows of the output's halo that belong to [from, to) of the first axis. */
static void halos(struct product *q, const struct mpqc_kernel *k, LLVMValueRef from,
                  LLVMValueRef to)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_place *place = &e->plan->place[k->out];
    const struct mpqc_type *y = &mpqc_value_at(e->graph, k->out)->type;
    if (!mpqc_place_has_halo(place)) return;
    int64_t rows = y->dims[0] * y->dims[1], per_unit = rows / q->extent[0];
    if (per_unit * q->extent[0] != rows) { /* the first axis is no axis of rows */
        struct mpqc_if first;
        mpqc_b_if_begin(e, &first, LLVMBuildICmp(e->b, LLVMIntEQ, from, mpqc_b_i64(e, 0), ""));
        struct mpqc_loop all;
        mpqc_b_loop_begin(e, &all, mpqc_b_i64(e, 0), mpqc_b_i64(e, rows), 1, "halo");
        mpqc_emit_halo(e, place, y, mpqc_epilogue_out(q->ep), all.iv);
        mpqc_b_loop_end(e, &all);
        mpqc_b_if_end(e, &first);
        return;
    }
    struct mpqc_loop l;
    LLVMValueRef zero = mpqc_b_i64(e, 0);
    mpqc_b_loop_begin(e, &l, mpqc_b_madd(e, from, per_unit, zero),
                      mpqc_b_madd(e, to, per_unit, zero), 1, "halo");
    mpqc_emit_halo(e, place, y, mpqc_epilogue_out(q->ep), l.iv);
    mpqc_b_loop_end(e, &l);
}

static void add_key(const struct product *q, const struct mpqc_kernel *k, struct mpqc_buf *key)
{
    const struct mpqc_place *p = &q->e->plan->place[k->out];
    const struct mpqc_type *y = &mpqc_value_at(q->e->graph, k->out)->type;
    mpqc_buf_printf(key, "mul %lld", (long long)q->channels);
    for (uint32_t d = 0; d < q->n_axes; d++)
        mpqc_buf_printf(key, " %lld:%lld,%lld,%lld,%lld", (long long)q->extent[d],
                        (long long)q->stride[d][0], (long long)q->stride[d][1],
                        (long long)q->stride[d][2], (long long)q->stride[d][3]);
    for (int i = 0; i < 2; i++)
        mpqc_buf_printf(key, " z%d,%d,%d,%d", q->in[i].zero, q->in[i].is_signed, q->in[i].scalar,
                        q->in[i].exact);
    if (mpqc_place_has_halo(p))
        mpqc_buf_printf(key, " h%d,%d,%d,%d:%d rows%lld", p->halo[0], p->halo[1], p->halo[2],
                        p->halo[3], y->quant ? y->quant->zero[0] : 0,
                        (long long)(y->dims[0] * y->dims[1]));
}

static mpqc_status emit(struct product *q, const struct mpqc_kernel *k, struct mpqc_buf *key,
                        struct mpqc_kernel_code *out)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_column_use use[2];
    int64_t L4 = q->panels.full.valid;
    use[0] = (struct mpqc_column_use){q->panels.full, 0, L4, q->panels.n_full};
    use[1] = (struct mpqc_column_use){q->panels.rest[0], q->panels.n_full * L4, 0,
                                      q->panels.n_rest};
    add_key(q, k, key);
    MPQC_TRY(mpqc_epilogue_make(e, k, NULL, q->channels, use, 2, out, key, &q->ep));
    out->range = q->extent[0];
    int64_t all = mpqc_type_count(&mpqc_value_at(e->graph, k->out)->type);
    out->grain = 100000 / (all / out->range + 1) + 1;
    if (key->failed) return MPQC_OOM(e->cx);
    out->body = mpqc_body_find(e, key->data);
    if (out->body) return MPQC_OK;
    out->body = mpqc_body_begin(e, key->data, out->n_operands);
    mpqc_epilogue_bind(e, q->ep, out->body);
    q->in[IN_A].p = LLVMGetParam(out->body, 0);
    q->in[IN_B].p = LLVMGetParam(out->body, 1);
    LLVMValueRef zero = mpqc_b_i64(e, 0), at[N_STREAMS] = {zero, zero, zero, zero};
    LLVMValueRef from = LLVMGetParam(out->body, out->n_operands);
    LLVMValueRef to = LLVMGetParam(out->body, out->n_operands + 1);
    halos(q, k, from, to);
    axes(q, 0, from, to, at, zero);
    return mpqc_body_end(e);
}

mpqc_status mpqc_emit_mul(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                          struct mpqc_kernel_code *out)
{
    const struct mpqc_node *n = mpqc_node_at(e->graph, k->core);
    const struct mpqc_type *y = &mpqc_value_at(e->graph, k->out)->type;
    struct product *q = MPQC_NEW(&e->scratch, struct product);
    if (!q) return MPQC_OOM(e->cx);
    mpqc_vid stream[N_STREAMS] = {n->in[0], n->in[1], k->out, mpqc_kernel_residual(e, k)};
    q->e = e;
    q->channels = y->rank ? y->dims[y->rank - 1] : 1;
    MPQC_TRY(read_input(q, n, IN_A));
    MPQC_TRY(read_input(q, n, IN_B));
    read_axes(q, k, stream);
    choose_columns(q);
    out->operand[0] = (struct mpqc_operand){.value = n->in[0]};
    out->operand[1] = (struct mpqc_operand){.value = n->in[1]};
    out->n_operands = 2;
    struct mpqc_buf key;
    mpqc_buf_init(&key);
    mpqc_status status = emit(q, k, &key, out);
    mpqc_buf_release(&key);
    return status;
}
