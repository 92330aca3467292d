/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Depthwise convolution of 16-bit activations (and per-channel factors, which are one of
 * 1x1).  Dense ones go through gemm.c with the wide steps of isa_wide.c.
 *
 * Vectors run over channels; a tile is a few positions of a row times a panel of vectors.
 * Weights stay bytes, [tap][channel], widened on the way.
 */
#include "codegen/linear.h"

#include "codegen/kernels.h"
#include "codegen/module.h"

/* Vectors of a full panel, positions of a tile, taps worth straight-line code. */
enum { PANEL = 2, POSITIONS = 4, UNROLLED_TAPS = 25 };

struct window {
    struct mpqc_emit_cx *e;
    const struct mpqc_linear *l;
    struct mpqc_epilogue *ep;
    LLVMValueRef x, w;
    int64_t channels, n_full;
    struct mpqc_columns full, rest;
    /* the panel at work, its first channel */
    const struct mpqc_columns *c;
    LLVMValueRef channel;
};

static LLVMValueRef constant(const struct window *q, int64_t v)
{
    return mpqc_b_i64(q->e, v);
}

static void make_columns(struct window *q)
{
    unsigned tail[MPQC_MAX_TAIL], lanes = q->e->target->isa->lanes;
    int64_t full, left;
    unsigned n_tail = mpqc_split_channels(q->channels, lanes, true, &full, tail);
    q->n_full = full / PANEL;
    for (unsigned v = 0; v < PANEL; v++) q->full.lanes[q->full.n++] = lanes;
    q->full.valid = PANEL * lanes;
    for (int64_t v = q->n_full * PANEL; v < full; v++) q->rest.lanes[q->rest.n++] = lanes;
    for (unsigned v = 0; v < n_tail; v++) q->rest.lanes[q->rest.n++] = tail[v];
    left = q->channels - q->n_full * q->full.valid;
    q->rest.valid = (unsigned)left;
}

/* ---- one tile ------------------------------------------------------------------------ */

/* acc[position][vector] += taps of one row of the window, from input x and weights w on. */
static void tap(struct window *q, LLVMValueRef x, LLVMValueRef w, int64_t n, LLVMValueRef *acc)
{
    struct mpqc_emit_cx *e = q->e;
    bool exact = e->plan->place[q->l->x].space != MPQC_SPACE_ARENA;
    unsigned at = 0;
    for (unsigned v = 0; v < q->c->n; at += q->c->lanes[v++]) {
        unsigned lanes = q->c->lanes[v];
        unsigned valid = q->c->valid - at < lanes ? q->c->valid - at : lanes;
        LLVMValueRef ws = mpqc_b_load(e, LLVMVectorType(e->i8, lanes), mpqc_b_gep_const(e, w, at),
                                      1);
        for (int64_t m = 0; m < n; m++) {
            LLVMValueRef p = mpqc_b_gep_const(e, x, m * q->l->x_col + 2 * at);
            LLVMValueRef xs = mpqc_b_load_bytes(e, p, 2 * valid, 2 * lanes, exact);
            LLVMValueRef *var = &acc[m * q->c->n + v];
            LLVMValueRef sum = LLVMBuildLoad2(e->b, LLVMVectorType(e->i32, lanes), *var, "");
            sum = mpqc_isa_wide_add(e, sum, mpqc_b_as(e, xs, e->i16, lanes), ws);
            LLVMBuildStore(e->b, sum, *var);
        }
    }
}

static void tap_row(struct window *q, LLVMValueRef x, LLVMValueRef w, int64_t n, LLVMValueRef *acc)
{
    for (int64_t i = 0; i < q->l->kw; i++)
        tap(q, mpqc_b_gep_const(q->e, x, i * q->l->inner_step),
            mpqc_b_gep_const(q->e, w, i * q->channels), n, acc);
}

static void all_taps(struct window *q, LLVMValueRef x, int64_t n, LLVMValueRef *acc)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    int64_t row_w = l->kw * q->channels;
    LLVMValueRef w = mpqc_b_gep(e, q->w, q->channel);
    if (l->kh * l->kw <= UNROLLED_TAPS) {
        for (int64_t i = 0; i < l->kh; i++)
            tap_row(q, mpqc_b_gep_const(e, x, i * l->outer_step),
                    mpqc_b_gep_const(e, w, i * row_w), n, acc);
        return;
    }
    struct mpqc_loop loop;
    mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, l->kh), 1, "tap.row");
    tap_row(q, mpqc_b_gep(e, x, mpqc_b_madd(e, loop.iv, l->outer_step, constant(q, 0))),
            mpqc_b_gep(e, w, mpqc_b_madd(e, loop.iv, row_w, constant(q, 0))), n, acc);
    mpqc_b_loop_end(e, &loop);
}

/* Where a row or tile begins: input pointer, element offsets. */
struct origin {
    LLVMValueRef x, position, residual;
};

/* n positions from o on. */
static void tile(struct window *q, int64_t n, struct origin o)
{
    struct mpqc_emit_cx *e = q->e;
    LLVMValueRef bias[MPQC_MAX_COLUMNS], sum[MPQC_MAX_COLUMNS];
    LLVMValueRef acc[POSITIONS * MPQC_MAX_COLUMNS];
    unsigned nv = q->c->n;
    mpqc_epilogue_bias(e, q->ep, q->c, q->channel, bias);
    for (int64_t i = 0; i < n * nv; i++) {
        acc[i] = mpqc_b_var(e, LLVMTypeOf(bias[i % nv]), "acc");
        LLVMBuildStore(e->b, bias[i % nv], acc[i]);
    }
    all_taps(q, o.x, n, acc);
    mpqc_epilogue_columns(e, q->ep, q->c, q->channel);
    for (int64_t m = 0; m < n; m++) {
        for (unsigned v = 0; v < nv; v++)
            sum[v] = LLVMBuildLoad2(e->b, LLVMTypeOf(bias[v]), acc[m * nv + v], "");
        mpqc_epilogue_store(e, q->ep, sum,
                            LLVMBuildNSWAdd(e->b, o.position, constant(q, m * q->l->out_col), ""),
                            LLVMBuildNSWAdd(e->b, o.residual, constant(q, m * q->l->res_col), ""),
                            NULL);
    }
}

static struct origin move_columns(struct window *q, struct origin o, LLVMValueRef n)
{
    o.x = mpqc_b_gep(q->e, o.x, mpqc_b_madd(q->e, n, q->l->x_col, constant(q, 0)));
    o.position = mpqc_b_madd(q->e, n, q->l->out_col, o.position);
    o.residual = mpqc_b_madd(q->e, n, q->l->res_col, o.residual);
    return o;
}

/* A row of positions for the panel at `channel`. */
static void panel(struct window *q, const struct mpqc_columns *c, LLVMValueRef channel,
                  struct origin o)
{
    struct mpqc_emit_cx *e = q->e;
    int64_t cols = q->l->cols, whole = cols / POSITIONS;
    q->c = c;
    q->channel = channel;
    o.x = mpqc_b_gep(e, o.x, mpqc_b_madd(e, channel, 2, constant(q, 0)));
    o.position = LLVMBuildNSWAdd(e->b, o.position, channel, "");
    o.residual = LLVMBuildNSWAdd(e->b, o.residual, channel, "");
    if (whole > 0) {
        struct mpqc_loop loop;
        mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, whole * POSITIONS), POSITIONS,
                          "tile");
        tile(q, POSITIONS, move_columns(q, o, loop.iv));
        mpqc_b_loop_end(e, &loop);
    }
    if (cols % POSITIONS)
        tile(q, cols % POSITIONS, move_columns(q, o, constant(q, whole * POSITIONS)));
}

/* Row `row` of all images. */
static void one_row(struct window *q, const struct mpqc_kernel *k, LLVMValueRef row)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    LLVMValueRef n = constant(q, 0), y = row, rows = constant(q, l->rows);
    if (l->batch > 1) {
        n = LLVMBuildSDiv(e->b, row, rows, "");
        y = LLVMBuildSRem(e->b, row, rows, "");
    }
    LLVMValueRef at = mpqc_b_madd(e, n, l->x_batch, constant(q, l->x_first));
    struct origin o = {.x = mpqc_b_gep(e, q->x, mpqc_b_madd(e, y, l->x_row, at))};
    o.position = mpqc_b_madd(e, y, l->out_row, mpqc_b_madd(e, n, l->out_batch, constant(q, 0)));
    o.residual = mpqc_b_madd(e, y, l->res_row, mpqc_b_madd(e, n, l->res_batch, constant(q, 0)));
    if (q->n_full > 0) {
        struct mpqc_loop loop;
        mpqc_b_loop_begin(e, &loop, constant(q, 0), constant(q, q->n_full * q->full.valid),
                          q->full.valid, "panel");
        panel(q, &q->full, loop.iv, o);
        mpqc_b_loop_end(e, &loop);
    }
    if (q->rest.valid > 0) panel(q, &q->rest, constant(q, q->n_full * q->full.valid), o);
    if (!l->flat)
        mpqc_emit_halo(e, &e->plan->place[k->out], &mpqc_value_at(e->graph, k->out)->type,
                       mpqc_epilogue_out(q->ep), row);
}

/* ---- the kernel ------------------------------------------------------------------------ */

static void add_key(const struct window *q, const struct mpqc_kernel *k, struct mpqc_buf *key)
{
    const struct mpqc_linear *l = q->l;
    const struct mpqc_place *p = &q->e->plan->place[k->out];
    const int64_t facts[] = {l->batch,     l->rows,    l->cols,    l->flat,    q->channels,
                             l->kh,        l->kw,      l->x_first, l->x_batch, l->x_row,
                             l->x_col,     l->outer_step, l->inner_step, l->out_batch, l->out_row,
                             l->out_col,   l->res_batch, l->res_row, l->res_col, p->halo[0],
                             p->halo[1],   p->halo[2], p->halo[3]};
    mpqc_buf_puts(key, "wide window");
    for (size_t i = 0; i < MPQC_LEN(facts); i++)
        mpqc_buf_printf(key, " %lld", (long long)facts[i]);
    if (q->e->plan->place[l->x].space != MPQC_SPACE_ARENA) mpqc_buf_puts(key, " exact");
}

static void emit_body(struct window *q, const struct mpqc_kernel *k, LLVMValueRef body, uint32_t n)
{
    struct mpqc_emit_cx *e = q->e;
    struct mpqc_loop loop;
    mpqc_epilogue_bind(e, q->ep, body);
    q->x = LLVMGetParam(body, 0);
    q->w = LLVMGetParam(body, 1);
    mpqc_b_loop_begin(e, &loop, LLVMGetParam(body, n), LLVMGetParam(body, n + 1), 1, "row");
    one_row(q, k, loop.iv);
    mpqc_b_loop_end(e, &loop);
}

/* Bytes in their order, and as many behind as the last vectors read. */
static LLVMValueRef weights(const struct window *q)
{
    size_t bytes = (size_t)(q->l->kh * q->l->kw * q->channels);
    int8_t *w = MPQC_NEW_ARRAY(&q->e->scratch, int8_t, bytes + MPQC_ARENA_SLACK);
    if (!w) return NULL;
    memcpy(w, q->l->w, bytes);
    return mpqc_global_bytes(q->e, "weights", w, bytes + MPQC_ARENA_SLACK, 64);
}

static mpqc_status emit_window(struct window *q, const struct mpqc_kernel *k, struct mpqc_buf *key,
                               struct mpqc_kernel_code *out)
{
    struct mpqc_emit_cx *e = q->e;
    const struct mpqc_linear *l = q->l;
    int32_t *bias = mpqc_linear_bias(e, l, 0);
    LLVMValueRef w = weights(q);
    if (!bias || !w) return MPQC_OOM(e->cx);
    struct mpqc_column_use use[] = {
        {q->full, 0, q->full.valid, q->n_full},
        {q->rest, q->n_full * q->full.valid, q->full.valid, q->rest.valid > 0}};
    out->operand[0] = (struct mpqc_operand){.value = l->x};
    out->operand[1] = (struct mpqc_operand){MPQC_NONE, w};
    out->n_operands = 2;
    add_key(q, k, key);
    MPQC_TRY(mpqc_epilogue_make(e, k, bias, q->channels, use, 2, out, key, &q->ep));
    MPQC_ASSERT(!mpqc_epilogue_by_position(q->ep));
    out->range = l->batch * l->rows;
    out->grain = 500000 / (l->cols * q->channels * l->kh * l->kw + 1) + 1;
    if (key->failed) return MPQC_OOM(e->cx);
    out->body = mpqc_body_find(e, key->data);
    if (out->body) return MPQC_OK;
    out->body = mpqc_body_begin(e, key->data, out->n_operands);
    emit_body(q, k, out->body, out->n_operands);
    return mpqc_body_end(e);
}

mpqc_status mpqc_emit_wide_window(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                                  const struct mpqc_linear *l, struct mpqc_kernel_code *out)
{
    struct window q = {.e = e, .l = l, .channels = l->groups};
    struct mpqc_buf key;
    make_columns(&q);
    mpqc_buf_init(&key);
    mpqc_status status = emit_window(&q, k, &key, out);
    mpqc_buf_release(&key);
    return status;
}
