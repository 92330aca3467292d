/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Halos: the rows and columns around a tensor that hold its zero point, so that
 * windows are read without bounds checks.  The producer fills them.
 */
#include "codegen/emit.h"

bool mpqc_place_has_halo(const struct mpqc_place *p)
{
    return p->halo[0] || p->halo[1] || p->halo[2] || p->halo[3];
}

struct halo {
    const struct mpqc_place *place;
    int64_t channels, bytes; /* of an element */
    int zero;                /* every byte of it */
};

/* n columns from p on. */
static void fill_columns(struct mpqc_emit_cx *e, const struct halo *h, LLVMValueRef p, int64_t n)
{
    int64_t pixel = h->place->stride[2];
    if (n == 0) return;
    if (pixel == h->channels) {
        mpqc_b_fill(e, p, n * pixel * h->bytes, h->zero);
        return;
    }
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, n), 1, "halo.column");
    LLVMValueRef at = mpqc_b_madd(e, l.iv, pixel * h->bytes, mpqc_b_i64(e, 0));
    mpqc_b_fill(e, mpqc_b_gep(e, p, at), h->channels * h->bytes, h->zero);
    mpqc_b_loop_end(e, &l);
}

/* Rows [from, to) relative to p, the first column of the real tensor. */
static void fill_rows(struct mpqc_emit_cx *e, const struct halo *h, LLVMValueRef p, int64_t from,
                      int64_t to, int64_t width)
{
    const struct mpqc_place *place = h->place;
    if (from == to) return;
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, from), mpqc_b_i64(e, to), 1, "halo.row");
    LLVMValueRef start = mpqc_b_i64(e, -place->halo[1] * place->stride[2] * h->bytes);
    LLVMValueRef row = mpqc_b_gep(e, p, mpqc_b_madd(e, l.iv, place->stride[1] * h->bytes, start));
    fill_columns(e, h, row, place->halo[1] + width + place->halo[3]);
    mpqc_b_loop_end(e, &l);
}

void mpqc_emit_halo(struct mpqc_emit_cx *e, const struct mpqc_place *place,
                    const struct mpqc_type *type, LLVMValueRef out, LLVMValueRef row)
{
    if (!mpqc_place_has_halo(place)) return;
    int64_t bytes = mpqc_dtypes[type->dtype].bytes;
    MPQC_ASSERT(type->rank == 4);
    int64_t height = type->dims[1], width = type->dims[2];
    struct halo h = {place, type->dims[3], bytes, type->quant ? type->quant->zero[0] : 0};
    MPQC_ASSERT(bytes == 1 || h.zero == 0);
    LLVMValueRef y = row, base = mpqc_b_i64(e, 0), rows = mpqc_b_i64(e, height);
    if (type->dims[0] > 1) {
        base = mpqc_b_madd(e, LLVMBuildSDiv(e->b, row, rows, ""), place->stride[0] * bytes, base);
        y = LLVMBuildSRem(e->b, row, rows, "");
    }
    LLVMValueRef p = mpqc_b_gep(e, out, mpqc_b_madd(e, y, place->stride[1] * bytes, base));
    int64_t pixel = place->stride[2] * bytes;
    fill_columns(e, &h, mpqc_b_gep_const(e, p, -place->halo[1] * pixel), place->halo[1]);
    fill_columns(e, &h, mpqc_b_gep_const(e, p, width * pixel), place->halo[3]);
    struct mpqc_if edge;
    if (place->halo[0]) {
        LLVMValueRef first = LLVMBuildICmp(e->b, LLVMIntEQ, y, mpqc_b_i64(e, 0), "");
        mpqc_b_if_begin(e, &edge, first);
        fill_rows(e, &h, p, -place->halo[0], 0, width);
        mpqc_b_if_end(e, &edge);
    }
    if (place->halo[2]) {
        LLVMValueRef last = LLVMBuildICmp(e->b, LLVMIntEQ, y, mpqc_b_i64(e, height - 1), "");
        mpqc_b_if_begin(e, &edge, last);
        fill_rows(e, &h, p, 1, 1 + place->halo[2], width);
        mpqc_b_if_end(e, &edge);
    }
}
