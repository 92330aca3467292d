/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the files ir/op_*.c share; nobody else includes this.
 *
 * A row of ops.def names functions without prefix; here they are declared with
 * it: infer_conv is mpqc_infer_conv.  infer_ functions check everything that a
 * reference kernel relies on, because kernels cannot fail.
 */
#ifndef MPQC_IR_OP_H
#define MPQC_IR_OP_H

#include "ir/dyadic.h"
#include "ir/elements.h"
#include "ir/ir.h"

#define OP(name, text, in_min, in_max, n_out, traits, infer, ref, macs, vjp, attrs, doc)          \
    mpqc_status mpqc_##infer(struct mpqc_infer *q);                                               \
    void mpqc_##ref(const struct mpqc_node *n, const struct mpqc_tensor *const *in,               \
                    struct mpqc_tensor *const *out);                                              \
    uint64_t mpqc_##macs(const struct mpqc_graph *g, const struct mpqc_node *n);                  \
    void mpqc_##vjp(struct mpqc_vjp *q);
#include "ir/ops.def"
#undef OP

/* Compiles a simple loop several times and picks at load time.  The build has
 * -ffp-contract=off, so every version gives the same bits.  Sanitizers run before
 * the resolver could. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                            \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__linux__)
#define MPQC_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define MPQC_CLONES
#endif

/* ---- inference ------------------------------------------------------------- */

/* A tensor takes less than this many bytes, so that sums of a few sizes and
 * products with small factors never overflow. */
#define MPQC_MAX_TENSOR_BYTES ((size_t)1 << 40)
/* Largest stride, dilation, pad or kernel extent. */
#define MPQC_MAX_WINDOW ((int64_t)1 << 31)

struct mpqc_where mpqc_op_where(const struct mpqc_infer *q);
#define OP_FAIL(q, code, ...) MPQC_FAIL((q)->cx, code, mpqc_op_where(q), __VA_ARGS__)

/* "f32[1,3,8,8]" for diagnostics; lives in the context's arena. */
const char *mpqc_op_type_text(struct mpqc_infer *q, const struct mpqc_type *t);
const char *mpqc_op_name(const struct mpqc_infer *q);
/* Number of inputs as in the table, required ones present. */
mpqc_status mpqc_op_arity(struct mpqc_infer *q) MPQC_MUST_CHECK;
/* Input i, or NULL when it is left out. */
const struct mpqc_type *mpqc_op_in(const struct mpqc_infer *q, uint32_t i);
/* out[0] = t, after a check of its size. */
mpqc_status mpqc_op_result(struct mpqc_infer *q, struct mpqc_type t) MPQC_MUST_CHECK;
/* The attribute's integers; `count` of them are required.  An absent attribute is
 * an error, or NULL with success when `optional`. */
mpqc_status mpqc_op_ints(struct mpqc_infer *q, enum mpqc_attr_key key, uint32_t count,
                         bool optional, const int64_t **out) MPQC_MUST_CHECK;
/* AXIS in [0, rank). */
mpqc_status mpqc_op_axis(struct mpqc_infer *q, uint32_t rank, uint32_t *axis) MPQC_MUST_CHECK;
/* How many places there are on the axes before and behind one. */
void mpqc_op_around(const struct mpqc_type *t, uint32_t axis, int64_t *before, int64_t *behind);
/* TO as an element type. */
mpqc_status mpqc_op_to(struct mpqc_infer *q, enum mpqc_dtype *to) MPQC_MUST_CHECK;
/* SCALE, positive and finite. */
mpqc_status mpqc_op_scale(struct mpqc_infer *q, float *scale) MPQC_MUST_CHECK;
/* Per-tensor quantisation in the graph's arena. */
mpqc_status mpqc_op_quant(struct mpqc_infer *q, float scale, int32_t zero,
                          const struct mpqc_quant **out) MPQC_MUST_CHECK;
/* The common shape of t and what is in *shape already (rank and dims). */
mpqc_status mpqc_op_broadcast(struct mpqc_infer *q, struct mpqc_type *shape,
                              const struct mpqc_type *t) MPQC_MUST_CHECK;

bool mpqc_op_is_plain(const struct mpqc_type *t, enum mpqc_dtype dtype); /* and not quantised */
bool mpqc_op_is_integer(enum mpqc_dtype t);
/* Quantised per tensor, an integer of at most `bits` bits. */
bool mpqc_op_is_quantised(const struct mpqc_type *t, unsigned bits);
bool mpqc_op_same_quant(const struct mpqc_type *a, const struct mpqc_type *b);

/* ---- windows: conv and pools ------------------------------------------------- */

struct mpqc_window {
    int64_t kh, kw, sh, sw, dh, dw, pt, pl, pb, pr;
};
/* Reads and checks STRIDES, PADS, DILATIONS; gives the output's height and width. */
mpqc_status mpqc_window_infer(struct mpqc_infer *q, const struct mpqc_type *x, int64_t kh,
                              int64_t kw, int64_t *oh, int64_t *ow) MPQC_MUST_CHECK;
struct mpqc_window mpqc_window_of(const struct mpqc_node *n, int64_t kh, int64_t kw);

/* ---- kernels -------------------------------------------------------------------- */

/* exp(x) for arguments of f32 functions: 2^n exp(r), |r| <= ln(2) / 2, by Taylor's
 * series to r^12 / 12!, relative error below 1e-15.  Only + and * of doubles, so
 * that loops vectorise and every machine gives the same bits; the C library's exp
 * differs in last bits between machines with and without FMA.  Beyond +-200 the
 * result is that of +-200, which is infinity or 0 as an f32. */
static inline double mpqc_op_exp(double x)
{
    x = x > 200.0 ? 200.0 : x;
    x = x < -200.0 ? -200.0 : x;
    double shifted = x * 1.4426950408889634 + 6755399441055744.0; /* 1.5 * 2^52: rounds */
    double n = shifted - 6755399441055744.0;
    double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double p = 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    union { double f; uint64_t u; } bits = {.f = shifted}, power;
    power.u = (bits.u + 1023) << 52; /* n sits in the low bits of `shifted` */
    return p * power.f;
}

/* Walks an index space row by row; each operand has a stride per dimension (0:
 * broadcast).  Dimensions are merged where all operands allow it.
 *
 *   for (mpqc_walk_start(&w); !w.done; mpqc_walk_next(&w))
 *       for (j = 0; j < w.len; j++) out[w.at[0] + j * w.step[0]] = ...
 */
#define MPQC_WALK_OPERANDS 4
struct mpqc_walk {
    uint32_t n, rank;
    int64_t dims[MPQC_MAX_RANK + 1];
    int64_t stride[MPQC_WALK_OPERANDS][MPQC_MAX_RANK + 1];
    int64_t index[MPQC_MAX_RANK + 1];
    int64_t at[MPQC_WALK_OPERANDS], step[MPQC_WALK_OPERANDS];
    int64_t len;
    bool done;
};
/* Over `shape`, with operand 0 dense in it. */
void mpqc_walk_init(struct mpqc_walk *w, uint32_t rank, const int64_t *dims);
/* Adds an operand that is dense in its own shape and broadcast to the walk's. */
void mpqc_walk_broadcast(struct mpqc_walk *w, const struct mpqc_type *t);
/* Adds an operand with given strides and first element. */
void mpqc_walk_strided(struct mpqc_walk *w, const int64_t *stride, int64_t first);
void mpqc_walk_start(struct mpqc_walk *w);
void mpqc_walk_next(struct mpqc_walk *w);
/* Row-major strides of a dense shape. */
void mpqc_op_strides(uint32_t rank, const int64_t *dims, int64_t *stride);

/* Up to MPQC_GEMM_ROWS rows of out[r][c] += sum_k x[r][k] * w[k][c]; see op_gemm.c. */
#define MPQC_GEMM_TILE 12 /* rows are a multiple of it in x */
#ifdef MPQC_TINY /* many blocks in small tests */
#define MPQC_GEMM_ROWS MPQC_GEMM_TILE
#define MPQC_GEMM_K 8
#else
#define MPQC_GEMM_ROWS 96
#define MPQC_GEMM_K 256
#endif
struct mpqc_gemm;
/* Fills panel[i][j] with w[k0 + i][c + j], i < k, j < n; a row is `width` floats, and
 * what lies behind n is set to 0. */
typedef void (*mpqc_gemm_pack_fn)(const struct mpqc_gemm *p, int64_t k0, int64_t k, int64_t c,
                                  int64_t n, int64_t width, float *panel);
struct mpqc_gemm {
    mpqc_gemm_pack_fn pack;  /* NULL: w as below */
    const void *pack_user;
    enum mpqc_dtype w_dtype; /* F32 or an integer of at most 8 bits */
    const void *w;           /* element [k][c] at k * w_stride + c */
    int64_t w_stride;
    const int32_t *w_zero;   /* NULL: all 0; else w_zero[c * w_zero_step] */
    int64_t w_zero_step;
    int64_t cols;
    float *out_f32;          /* one of the two; row r at r * out_stride */
    int32_t *out_i32;
    int64_t out_stride;
    bool wide;               /* x has whole numbers of 16 bits; the result is i32 */
    const int64_t *out_row;  /* NULL; or row r of out_f32 at out_row[r] */
};
/* x: [MPQC_GEMM_ROWS][MPQC_GEMM_K], whole numbers below 256 (`wide`: of 16 bits) when the
 * result is i32, defined up to a multiple of MPQC_GEMM_TILE rows; w rows k0 .. k0 + k. */
void mpqc_gemm_add(const struct mpqc_gemm *p, const float *x, int64_t rows, int64_t k0, int64_t k);
/* to[c][r] = from[r][c]: `rows` rows that are from_stride apart, `cols` columns. */
void mpqc_gemm_transpose(const float *from, int64_t from_stride, int64_t rows, int64_t cols,
                         float *to, int64_t to_stride);
/* Fills up to whole tiles: what is computed from it is not used, but must be defined. */
void mpqc_gemm_clear_rest(float *x, int64_t rows, int64_t k);
/* x[r][...] filled from n elements of a buffer, minus `zero`. */
void mpqc_gemm_load(enum mpqc_dtype t, const void *from, int64_t at, int64_t n, int32_t zero,
                    float *to);

/* Windows of x[N,H,W,C], flattened to rows (op_rows.c): element (i * nw + j) * channels
 * + c of the window at an origin is x[n][top + i * dh][left + j * dw][first_channel + c],
 * or 0 where that is outside. */
struct mpqc_rows {
    const struct mpqc_tensor *x;
    int64_t nw, dh, dw; /* as many rows of taps as are asked for */
    int64_t channels, first_channel;
    int32_t zero;
};
struct mpqc_origin {
    int64_t n, top, left;
};
/* The origins of a convolution's windows: `n` output pixels of oh x ow from `first` on. */
void mpqc_window_origins(const struct mpqc_window *w, int64_t oh, int64_t ow, int64_t first,
                         int64_t n, struct mpqc_origin *o);
/* Elements k0 .. k0 + k of the windows at o[0 .. rows) as floats, minus `zero`. */
void mpqc_rows_load(const struct mpqc_rows *p, const struct mpqc_origin *o, int64_t rows,
                    int64_t k0, int64_t k, float *to, int64_t to_stride);

#endif
