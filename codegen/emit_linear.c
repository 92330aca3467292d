/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Convolution (dense, grouped, depthwise) and matrix product by constant weights: the
 * kernel, its operands and its key.  The code is in gemm.c and emit_depthwise.c.
 */
#include "codegen/linear.h"

#include "codegen/kernels.h"
#include "codegen/module.h"
#include "ir/elements.h"

/* Everything that tiles depend on. */
static void shape_key(const struct mpqc_linear *l, struct mpqc_buf *key)
{
    mpqc_buf_printf(key, "linear %lld,%lld,%lld,%d g%lld,%lld,%lld", (long long)l->batch,
                    (long long)l->rows, (long long)l->cols, l->flat, (long long)l->groups,
                    (long long)l->icg, (long long)l->ocg);
    mpqc_buf_printf(key, " x%lld,%lld,%lld,%lld y%lld,%lld,%lld r%lld,%lld,%lld",
                    (long long)l->x_first, (long long)l->x_batch, (long long)l->x_row,
                    (long long)l->x_col, (long long)l->out_batch, (long long)l->out_row,
                    (long long)l->out_col, (long long)l->res_batch, (long long)l->res_row,
                    (long long)l->res_col);
    mpqc_buf_printf(key, " k%lld*%lld,%lld*%lld,%lld,%d", (long long)l->n_outer,
                    (long long)l->outer_step, (long long)l->n_inner, (long long)l->inner_step,
                    (long long)l->run, l->exact);
    if (l->fan) mpqc_buf_printf(key, " fan%lld", (long long)l->fan);
    if (l->bits < 8) mpqc_buf_printf(key, " w%u", l->bits);
    if (l->x_bits <= 2 && l->w_bits <= 2) mpqc_buf_printf(key, " bits%u,%u", l->w_bits, l->x_bits);
    if (l->x_bytes > 1) mpqc_buf_puts(key, " wide");
    if (l->group) mpqc_buf_printf(key, " by%lld", (long long)l->group);
    mpqc_buf_puts(key, l->once ? " once" : "");
}

static void tile_key(const struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                     const struct mpqc_tile *t, struct mpqc_buf *key)
{
    const struct mpqc_place *p = &e->plan->place[k->out];
    mpqc_buf_printf(key, " t%lldx%lldx%u%s", (long long)t->mh, (long long)t->mw, t->panels.full.n,
                    t->overlap ? "o" : "");
    mpqc_buf_puts(key, t->rolled ? "r" : "");
    mpqc_buf_puts(key, t->panels.full.windows ? "w" : "");
    if (t->serial) mpqc_buf_printf(key, " serial%lld", (long long)t->band);
    if (t->form) mpqc_buf_printf(key, " %s", t->form->name);
    if (t->amx)
        mpqc_buf_printf(key, " amx%lldx%lldx%lld,%u,%lld", (long long)t->amx_rows,
                        (long long)t->amx_bytes, (long long)t->amx_chunks, t->amx_n,
                        (long long)t->amx_pitch);
    const struct mpqc_quant *q = mpqc_value_at(e->graph, k->out)->type.quant;
    if (mpqc_place_has_halo(p))
        mpqc_buf_printf(key, " h%d,%d,%d,%d:%d", p->halo[0], p->halo[1], p->halo[2], p->halo[3],
                        q ? q->zero[0] : 0);
}

static uint32_t column_uses(const struct mpqc_linear *l, const struct mpqc_panels *p,
                            struct mpqc_column_use *use)
{
    uint32_t n = 0;
    int64_t channel = p->n_full * p->full.valid;
    /* Groups and panels are one sequence as long as groups have no other panels. */
    if (p->n_full > 0 && p->n_rest == 0) {
        use[n++] = (struct mpqc_column_use){p->full, 0, p->full.valid, p->n_full * l->groups};
        return n;
    }
    for (int64_t i = 0; i < p->n_full; i++)
        use[n++] = (struct mpqc_column_use){p->full, i * p->full.valid, l->ocg, l->groups};
    for (unsigned r = 0; r < p->n_rest; channel += p->rest[r++].valid)
        use[n++] = (struct mpqc_column_use){p->rest[r], channel, l->ocg, l->groups};
    return n;
}

/* Least and most that the sums of each channel can be. */
static void bounds(const struct mpqc_linear *l, const int32_t *bias, int64_t x_most,
                   int64_t *least, int64_t *most)
{
    int64_t channels = l->groups * l->ocg, k = l->kh * l->kw * l->icg;
    for (int64_t c = 0; c < channels; c++) least[c] = most[c] = bias[c];
    for (int64_t i = 0; i < k; i++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t w = l->w[i * channels + c] * x_most;
            *(w < 0 ? &least[c] : &most[c]) += w;
        }
}

/* Marks columns as windows where sums are small enough.  false: out of memory. */
static bool find_windows(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                         const struct mpqc_linear *l, const int32_t *bias, struct mpqc_tile *t)
{
    const struct mpqc_isa *isa = e->target->isa;
    int64_t channels = l->groups * l->ocg;
    if (!isa->window16 || isa->x_offset != 0 || t->serial || l->x_bytes > 1) return true;
    int64_t *least = MPQC_NEW_ARRAY(&e->scratch, int64_t, (size_t)channels);
    int64_t *most = MPQC_NEW_ARRAY(&e->scratch, int64_t, (size_t)channels);
    if (!least || !most) return false;
    bounds(l, bias, mpqc_dtypes[mpqc_value_at(e->graph, l->x)->type.dtype].max, least, most);
    bool fits = mpqc_epilogue_fits(e, k, least, most, channels);
    t->panels.full.windows = fits;
    for (unsigned r = 0; r < t->panels.n_rest; r++) t->panels.rest[r].windows = fits;
    return true;
}

/* A part worth a thread: some microseconds. */
static int64_t grain(const struct mpqc_linear *l, const struct mpqc_tile *t, int64_t range)
{
    int64_t enough = t->amx ? 1500000 : 1000000;
    int64_t macs = l->batch * l->rows * l->cols * l->groups * l->ocg * l->icg * l->kh * l->kw;
    int64_t per_unit = macs / range + 1;
    return enough / per_unit + 1;
}

static mpqc_status emit_body(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                             const struct mpqc_linear *l, const struct mpqc_tile *t,
                             struct mpqc_epilogue *ep, const char *key,
                             struct mpqc_kernel_code *out)
{
    out->body = mpqc_body_begin(e, key, out->n_operands);
    mpqc_epilogue_bind(e, ep, out->body);
    (t->serial ? mpqc_serial_body : mpqc_gemm_body)(
        e, k, l, t, ep, LLVMGetParam(out->body, 0), LLVMGetParam(out->body, 1),
        LLVMGetParam(out->body, out->n_operands), LLVMGetParam(out->body, out->n_operands + 1));
    return mpqc_body_end(e);
}

/* In the order of the tile's kernel; NULL: out of memory. */
static LLVMValueRef weights(struct mpqc_emit_cx *e, const struct mpqc_linear *l,
                            const struct mpqc_tile *t)
{
    size_t bytes;
    if (t->serial) return mpqc_serial_weights(e, l, t);
    int8_t *w = t->amx ? mpqc_amx_pack(e, l, t, &bytes)
                       : mpqc_pack_weights(e, l, &t->panels, t->form, &bytes);
    return w ? mpqc_global_bytes(e, "weights", w, bytes, 64) : NULL;
}

static mpqc_status emit_gemm(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                             const struct mpqc_linear *l, struct mpqc_buf *key,
                             struct mpqc_kernel_code *out)
{
    struct mpqc_tile t;
    struct mpqc_epilogue *ep;
    struct mpqc_linear padded = *l;
    shape_key(l, key);
    if (key->failed) return MPQC_OOM(e->cx);
    mpqc_tile_choose(e, l, mpqc_content_hash(key->data, key->len), &t);
    if (t.form && mpqc_braid(l, &padded)) l = &padded;
    padded.k4 = t.amx ? t.amx_chunks * t.amx_bytes / 4 : mpqc_form_steps(t.form, l->k4);
    padded.exact = l->exact && 4 * padded.k4 > l->run;
    l = &padded;
    int32_t *bias = mpqc_linear_bias(e, l, t.serial ? 0 : e->target->isa->x_offset);
    if (!bias || !find_windows(e, k, l, bias, &t)) return MPQC_OOM(e->cx);
    LLVMValueRef w = weights(e, l, &t);
    struct mpqc_column_use *use = MPQC_NEW_ARRAY(&e->scratch, struct mpqc_column_use,
                                                 (size_t)t.panels.n_full + MPQC_MAX_REST);
    if (!w || !use) return MPQC_OOM(e->cx);
    out->operand[0] = (struct mpqc_operand){.value = l->x};
    out->operand[1] = (struct mpqc_operand){MPQC_NONE, w};
    out->n_operands = 2;
    tile_key(e, k, &t, key);
    MPQC_TRY(mpqc_epilogue_make(e, k, bias, l->groups * l->ocg, use,
                                column_uses(l, &t.panels, use), out, key, &ep));
    MPQC_ASSERT(!mpqc_epilogue_by_position(ep));
    out->range = t.by_panel ? t.panels.n_full + t.panels.n_rest : l->batch * t.units;
    out->grain = grain(l, &t, out->range);
    if (key->failed) return MPQC_OOM(e->cx);
    out->body = mpqc_body_find(e, key->data);
    return out->body ? MPQC_OK : emit_body(e, k, l, &t, ep, key->data, out);
}

mpqc_status mpqc_emit_gemm(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                           const struct mpqc_linear *l, struct mpqc_kernel_code *out)
{
    struct mpqc_buf key;
    mpqc_buf_init(&key);
    mpqc_status status = emit_gemm(e, k, l, &key, out);
    mpqc_buf_release(&key);
    return status;
}

/* One channel in, one out per group: a window. */
static mpqc_status depthwise(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                             const struct mpqc_linear *l, struct mpqc_kernel_code *out)
{
    struct mpqc_window w = {.x = l->x,
                            .batch = l->batch,
                            .rows = l->rows,
                            .cols = l->cols,
                            .channels = l->groups,
                            .kh = l->kh,
                            .kw = l->kw,
                            .x_first = l->x_first,
                            .x_batch = l->x_batch,
                            .x_row = l->x_row,
                            .x_col = l->x_col,
                            .tap_row = l->outer_step,
                            .tap_col = l->inner_step,
                            .out_batch = l->out_batch,
                            .out_row = l->out_row,
                            .out_col = l->out_col,
                            .res_batch = l->res_batch,
                            .res_row = l->res_row,
                            .res_col = l->res_col,
                            .w = l->w,
                            .once = l->once,
                            .bias = mpqc_linear_bias(e, l, e->target->isa->x_offset)};
    if (!w.bias) return MPQC_OOM(e->cx);
    return mpqc_window_is_direct(e, &w) ? mpqc_emit_window_direct(e, k, &w, out)
                                        : mpqc_emit_window(e, k, &w, out);
}

/* The same templates with the wide steps of the instruction set. */
static mpqc_status wide(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                        const struct mpqc_linear *l, struct mpqc_kernel_code *out)
{
    const struct mpqc_target *before = e->target;
    struct mpqc_isa isa = mpqc_isa_with_wide_steps(before);
    struct mpqc_target target = *before;
    target.isa = &isa;
    e->target = &target;
    bool window = l->groups > 1 && l->icg == 1 && l->ocg == 1;
    mpqc_status status = window ? mpqc_emit_wide_window(e, k, l, out)
                                : mpqc_emit_gemm(e, k, l, out);
    e->target = before;
    return status;
}

mpqc_status mpqc_emit_linear(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                             struct mpqc_kernel_code *out)
{
    struct mpqc_linear l;
    MPQC_TRY(mpqc_linear_read(e, k, &l));
    if (l.x_bytes > 1) return wide(e, k, &l, out);
    return l.groups > 1 && l.icg == 1 && l.ocg == 1 ? depthwise(e, k, &l, out)
                                                    : mpqc_emit_gemm(e, k, &l, out);
}
