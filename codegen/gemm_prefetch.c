/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights that a core should ask for before it needs them.
 *
 * Plain weights of a network that the second cache does not hold (far_weights).  Several tiles of
 * an image pass over a panel, and only the first of them waits for the third cache or for
 * memory; where tiles are few, as in the late layers of a network, that is a good part of the
 * time.  So they bring the next panel into the second cache: each tile asks for some lines with
 * every turn of the loop over steps, so many that half of the tiles do it, which is what there
 * is of them where two threads share a layer.  Where these are is the address of the steps'
 * own weights, moved by a panel and by the number of the tile; tiles for which there is none left
 * ask for what they read themselves, which costs next to nothing.  Behind a layer's last panel
 * lie the weights of the next layer.  And a panel that the first cache does not hold is asked for
 * once more shortly before each step.
 *
 * Packed weights that are read once (stream) are read so slowly that what a core holds in
 * flight is little memory, and hardware prefetchers stop at pages.  So with every bundle of
 * steps the lines STREAM_AHEAD of it are asked for: into all caches, because Intel's cores
 * bring lines that are to be used once (prefetchnta) two times as slowly as others.  Plain bytes
 * that are read once need no help: every load is a line.
 */
#include "codegen/gemm.h"

#define LINE 64
#define STREAM_AHEAD 8192
#define NEAR_AHEAD 512

static int64_t divide_up(int64_t n, int64_t by)
{
    return (n + by - 1) / by;
}

void mpqc_prefetch_tile(struct gemm *q, LLVMValueRef number)
{
    struct mpqc_emit_cx *e = q->e;
    if (!q->t->fetching) return;
    int64_t lines = divide_up(q->t->unroll * mpqc_gemm_step_bytes(q), LINE);
    int64_t panel = mpqc_panel_bytes(q->l, q->c);
    q->next_lines = divide_up(lines, divide_up(q->t->fetching, 2));
    LLVMValueRef next = mpqc_b_madd(e, number, q->next_lines * LINE, mpqc_b_i64(e, panel));
    LLVMValueRef needed = mpqc_b_i64(e, divide_up(lines, q->next_lines));
    needed = LLVMBuildICmp(e->b, LLVMIntSLT, number, needed, "");
    q->next = LLVMBuildSelect(e->b, needed, next, mpqc_b_i64(e, 0), "");
}

/* Step k's lines, `ahead` of them, into all caches. */
static void ask(struct gemm *q, LLVMValueRef w, int64_t k, int64_t ahead)
{
    int64_t step = mpqc_gemm_step_bytes(q), bundle = mpqc_packing_of(q->l->bits).steps;
    int64_t from = mpqc_packed_rows(q->l->bits, k) * step;
    int64_t to = mpqc_packed_rows(q->l->bits, k + bundle) * step;
    for (int64_t at = from; at < to; at += LINE)
        mpqc_b_prefetch(q->e, w, ahead + at, MPQC_FIRST_CACHE);
}

void mpqc_prefetch_step(struct gemm *q, LLVMValueRef w, int64_t k)
{
    if (q->t->fetching && k % q->t->unroll == 0) {
        LLVMValueRef next = mpqc_b_gep(q->e, w, q->next);
        int64_t at = k * mpqc_gemm_step_bytes(q);
        for (int64_t i = 0; i < q->next_lines; i++)
            mpqc_b_prefetch(q->e, next, at + i * LINE, MPQC_SECOND_CACHE);
    }
    if (q->t->far_weights && mpqc_panel_bytes(q->l, q->c) > (int64_t)q->e->target->l1_bytes)
        ask(q, w, k, NEAR_AHEAD);
    if (q->t->stream && k % mpqc_packing_of(q->l->bits).steps == 0)
        ask(q, w, k, STREAM_AHEAD);
}
