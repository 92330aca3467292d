/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Maximum over windows, and maximum or minimum over axes.
 *
 * maxpool: vectors run over channels.  Padding never wins, so the taps of a window
 * that lie outside are left out.  With dilation 1 they are moved to the nearest row
 * or column inside instead, which is in the window already, and a maximum does not
 * mind being told twice: no branch, no table.
 */
#include "codegen/kernels.h"
#include "codegen/nest.h"

#include <string.h>

enum { MAX_TAPS = 64, GRAIN_BYTES = 16384 };

struct pool {
    const struct mpqc_type *x, *y;
    const struct mpqc_place *out_place;
    int64_t in[MPQC_MAX_RANK], out[MPQC_MAX_RANK]; /* strides, in elements */
    int64_t kernel[2], strides[2], dilations[2], pads[4];
    bool exact;
};

static const struct mpqc_type *type_of(const struct mpqc_emit_cx *e, mpqc_vid v)
{
    return &mpqc_value_at(e->graph, v)->type;
}

static mpqc_status unsupported(struct mpqc_emit_cx *e, const struct mpqc_node *n, const char *why)
{
    struct mpqc_where where = {.node = n->loc.node, .op = n->loc.op, .offset = -1};
    return MPQC_FAIL(e->cx, UNSUPPORTED, where, "%s", why);
}

/* a against b: the larger, or the smaller.  Floats: b only if it is beyond a, as the
 * reference has it. */
static LLVMValueRef extreme(struct mpqc_emit_cx *e, enum mpqc_dtype t, bool max, LLVMValueRef a,
                            LLVMValueRef b)
{
    LLVMTypeRef type = LLVMTypeOf(a);
    if (t == MPQC_DT_F32) {
        LLVMValueRef beyond = LLVMBuildFCmp(e->b, max ? LLVMRealOGT : LLVMRealOLT, b, a, "");
        return LLVMBuildSelect(e->b, beyond, b, a, "");
    }
    bool sign = mpqc_dtypes[t].kind == MPQC_KIND_SINT;
    LLVMValueRef args[] = {a, b};
    const char *name = max ? (sign ? "llvm.smax" : "llvm.umax")
                           : (sign ? "llvm.smin" : "llvm.umin");
    return mpqc_b_intrinsic(e, name, &type, 1, args, 2);
}

/* What an empty set gives: the least (or greatest) number of the type. */
static LLVMValueRef neutral(struct mpqc_emit_cx *e, enum mpqc_dtype t, bool max, LLVMTypeRef type)
{
    if (t == MPQC_DT_F32) {
        LLVMValueRef bits = LLVMConstInt(e->i32, max ? 0xff800000u : 0x7f800000u, 0);
        LLVMValueRef one = LLVMConstBitCast(bits, e->f32);
        if (LLVMGetTypeKind(type) != LLVMVectorTypeKind) return one;
        LLVMValueRef lane[256];
        unsigned n = LLVMGetVectorSize(type);
        for (unsigned i = 0; i < n; i++) lane[i] = one;
        return LLVMConstVector(lane, n);
    }
    int64_t v = max ? mpqc_dtypes[t].min : mpqc_dtypes[t].max;
    if (LLVMGetTypeKind(type) == LLVMVectorTypeKind) return mpqc_b_splat(e, type, v);
    return LLVMConstInt(type, (unsigned long long)v, 1);
}

/* ---- maxpool ---------------------------------------------------------------------------- */

/* Offsets of the taps along one axis for output position o: row (or column) times
 * stride, in bytes, moved inside. */
static void tap_offsets(struct mpqc_emit_cx *e, const struct pool *p, int axis, LLVMValueRef o,
                        LLVMValueRef *offset)
{
    int64_t extent = p->x->dims[1 + axis], bytes = mpqc_dtypes[p->x->dtype].bytes;
    int64_t step = p->in[1 + axis] * bytes;
    bool before = p->pads[axis] > 0;
    int64_t last = (p->y->dims[1 + axis] - 1) * p->strides[axis] - p->pads[axis] +
                   (p->kernel[axis] - 1) * p->dilations[axis];
    LLVMValueRef base = mpqc_b_madd(e, o, p->strides[axis], mpqc_b_i64(e, -p->pads[axis]));
    for (int64_t k = 0; k < p->kernel[axis]; k++) {
        LLVMValueRef i = LLVMBuildNSWAdd(e->b, base, mpqc_b_i64(e, k * p->dilations[axis]), "");
        LLVMValueRef low[] = {i, mpqc_b_i64(e, 0)};
        if (before) i = mpqc_b_intrinsic(e, "llvm.smax", &e->i64, 1, low, 2);
        LLVMValueRef high[] = {i, mpqc_b_i64(e, extent - 1)};
        if (last >= extent) i = mpqc_b_intrinsic(e, "llvm.smin", &e->i64, 1, high, 2);
        offset[k] = LLVMBuildNSWMul(e->b, i, mpqc_b_i64(e, step), "");
    }
}

/* Channels [channel, channel + valid) of one output pixel. */
static void pool_vector(struct mpqc_emit_cx *e, const struct pool *p, LLVMValueRef in,
                        LLVMValueRef out, const LLVMValueRef *rows, const LLVMValueRef *columns,
                        LLVMValueRef channel, unsigned lanes, unsigned valid)
{
    LLVMTypeRef element = mpqc_element_type(e, p->x->dtype);
    unsigned bytes = mpqc_dtypes[p->x->dtype].bytes;
    LLVMValueRef best = NULL;
    for (int64_t h = 0; h < p->kernel[0]; h++) {
        LLVMValueRef row = mpqc_b_gep(e, in, rows[h]);
        for (int64_t w = 0; w < p->kernel[1]; w++) {
            LLVMValueRef v = mpqc_run_load(e, element, bytes, mpqc_b_gep(e, row, columns[w]),
                                           bytes, channel, lanes, valid, p->exact);
            best = best ? extreme(e, p->x->dtype, true, best, v) : v;
        }
    }
    mpqc_run_store(e, best, bytes, out, bytes, channel, valid);
}

static unsigned lanes_for(int64_t n, unsigned most)
{
    unsigned lanes = most;
    while (lanes > 8 && lanes / 2 >= n) lanes /= 2;
    return lanes;
}

static void pool_pixel(struct mpqc_emit_cx *e, const struct pool *p, LLVMValueRef in,
                       LLVMValueRef out, const LLVMValueRef *rows, const LLVMValueRef *columns)
{
    unsigned most = e->target->vector_bytes / mpqc_dtypes[p->x->dtype].bytes;
    int64_t channels = p->y->dims[3], at = 0;
    if (channels >= 2 * (int64_t)most) {
        struct mpqc_loop l;
        at = channels / most * most;
        mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, at), most, "channel");
        pool_vector(e, p, in, out, rows, columns, l.iv, most, most);
        mpqc_b_loop_end(e, &l);
    }
    while (at < channels) {
        unsigned lanes = lanes_for(channels - at, most);
        int64_t valid = channels - at < lanes ? channels - at : lanes;
        pool_vector(e, p, in, out, rows, columns, mpqc_b_i64(e, at), lanes, (unsigned)valid);
        at += valid;
    }
}

/* One unit of the range is one row of the output, over batches and heights. */
static void maxpool_body(struct mpqc_emit_cx *e, const struct pool *p)
{
    struct mpqc_loop r, c;
    LLVMValueRef f = e->function, zero = mpqc_b_i64(e, 0), rows[MAX_TAPS], columns[MAX_TAPS];
    unsigned bytes = mpqc_dtypes[p->x->dtype].bytes;
    LLVMValueRef out = LLVMGetParam(f, 0), in = LLVMGetParam(f, 1);
    mpqc_b_loop_begin(e, &r, LLVMGetParam(f, 2), LLVMGetParam(f, 3), 1, "row");
    LLVMValueRef y = r.iv, in_n = in, out_n = out;
    if (p->y->dims[0] > 1) {
        LLVMValueRef height = mpqc_b_i64(e, p->y->dims[1]);
        LLVMValueRef n = LLVMBuildSDiv(e->b, r.iv, height, "");
        y = LLVMBuildSRem(e->b, r.iv, height, "");
        in_n = mpqc_b_gep(e, in, mpqc_b_madd(e, n, p->in[0] * bytes, zero));
        out_n = mpqc_b_gep(e, out, mpqc_b_madd(e, n, p->out[0] * bytes, zero));
    }
    tap_offsets(e, p, 0, y, rows);
    LLVMValueRef out_row = mpqc_b_gep(e, out_n, mpqc_b_madd(e, y, p->out[1] * bytes, zero));
    mpqc_b_loop_begin(e, &c, zero, mpqc_b_i64(e, p->y->dims[2]), 1, "column");
    tap_offsets(e, p, 1, c.iv, columns);
    pool_pixel(e, p, in_n, mpqc_b_gep(e, out_row, mpqc_b_madd(e, c.iv, p->out[2] * bytes, zero)),
               rows, columns);
    mpqc_b_loop_end(e, &c);
    mpqc_emit_halo(e, p->out_place, p->y, out, r.iv);
    mpqc_b_loop_end(e, &r);
}

static mpqc_status read_pool(struct mpqc_emit_cx *e, const struct mpqc_node *n, mpqc_vid out,
                             struct pool *p)
{
    static const int64_t ones[2] = {1, 1}, zeros[4] = {0, 0, 0, 0};
    const int64_t *kernel = mpqc_attr_ints(n, MPQC_ATTR_KERNEL);
    const int64_t *strides = mpqc_attr_ints(n, MPQC_ATTR_STRIDES);
    const int64_t *dilations = mpqc_attr_ints(n, MPQC_ATTR_DILATIONS);
    const int64_t *pads = mpqc_attr_ints(n, MPQC_ATTR_PADS);
    p->x = type_of(e, n->in[0]);
    p->y = type_of(e, out);
    p->out_place = &e->plan->place[out];
    p->exact = !mpqc_value_slack(e, n->in[0]);
    mpqc_value_strides(e, n->in[0], p->in);
    mpqc_value_strides(e, out, p->out);
    memcpy(p->kernel, kernel, sizeof p->kernel);
    memcpy(p->strides, strides ? strides : ones, sizeof p->strides);
    memcpy(p->dilations, dilations ? dilations : ones, sizeof p->dilations);
    memcpy(p->pads, pads ? pads : zeros, sizeof p->pads);
    if (p->kernel[0] * p->kernel[1] > MAX_TAPS * 4 || p->kernel[0] > MAX_TAPS ||
        p->kernel[1] > MAX_TAPS)
        return unsupported(e, n, "max pooling over a window of more than 256 elements");
    for (int i = 0; i < 2; i++) {
        int64_t top = p->pads[i], bottom = p->pads[i + 2];
        if (p->dilations[i] > 1 && (top > 0 || bottom > 0))
            return unsupported(e, n, "max pooling with both padding and dilation");
    }
    return MPQC_OK;
}

static void pool_key(const struct pool *p, struct mpqc_buf *key)
{
    const int32_t *halo = p->out_place->halo;
    mpqc_buf_printf(key, "maxpool %s%s", mpqc_dtypes[p->x->dtype].text, p->exact ? " exact" : "");
    for (int i = 0; i < 4; i++)
        mpqc_buf_printf(key, " %lld/%lld %lld/%lld p%lld h%d", (long long)p->x->dims[i],
                        (long long)p->in[i], (long long)p->y->dims[i], (long long)p->out[i],
                        (long long)p->pads[i], halo[i]);
    for (int i = 0; i < 2; i++)
        mpqc_buf_printf(key, " k%lld s%lld d%lld", (long long)p->kernel[i],
                        (long long)p->strides[i], (long long)p->dilations[i]);
    if (mpqc_place_has_halo(p->out_place))
        mpqc_buf_printf(key, " zero %d", p->y->quant ? p->y->quant->zero[0] : 0);
}

mpqc_status mpqc_emit_maxpool(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                              struct mpqc_kernel_code *out)
{
    const struct mpqc_node *n = mpqc_node_at(e->graph, k->core);
    struct pool p;
    struct mpqc_buf key;
    MPQC_TRY(read_pool(e, n, k->out, &p));
    out->operand[out->n_operands++] = (struct mpqc_operand){.value = k->out};
    out->operand[out->n_operands++] = (struct mpqc_operand){.value = n->in[0]};
    int64_t row = p.y->dims[2] * p.y->dims[3] * p.kernel[0] * p.kernel[1];
    out->range = p.y->dims[0] * p.y->dims[1];
    out->grain = row >= GRAIN_BYTES ? 1 : GRAIN_BYTES / (row > 0 ? row : 1);
    mpqc_buf_init(&key);
    pool_key(&p, &key);
    bool fresh;
    MPQC_TRY(mpqc_body_open(e, &key, out, &fresh));
    if (!fresh) return MPQC_OK;
    maxpool_body(e, &p);
    return mpqc_body_end(e);
}

/* ---- reduce_max, reduce_min --------------------------------------------------------------- */

/* Outer: a nest over the results, with both operands; inner: what each result folds. */
struct reduction {
    enum mpqc_dtype dtype;
    bool max, exact;
    struct mpqc_nest outer; /* output, input */
    struct mpqc_nest inner; /* input */
};

static void fold_dims(struct mpqc_emit_cx *e, const struct reduction *r, uint32_t d,
                      LLVMValueRef p, LLVMValueRef index, unsigned lanes, unsigned valid,
                      LLVMValueRef best)
{
    const struct mpqc_nest *n = &r->inner;
    LLVMTypeRef type = mpqc_element_type(e, r->dtype);
    unsigned bytes = mpqc_dtypes[r->dtype].bytes;
    if (d == n->rank) {
        LLVMTypeRef vector = mpqc_b_vec(type, lanes);
        LLVMValueRef v = mpqc_run_load(e, type, bytes, p, mpqc_nest_step(&r->outer, 1), index,
                                       lanes, valid, r->exact);
        LLVMValueRef so_far = mpqc_b_load(e, vector, best, bytes);
        mpqc_b_store(e, extreme(e, r->dtype, r->max, so_far, v), best, bytes);
        return;
    }
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, n->dims[d]), 1, "fold");
    LLVMValueRef at = mpqc_b_madd(e, l.iv, n->stride[0][d], mpqc_b_i64(e, 0));
    fold_dims(e, r, d + 1, mpqc_b_gep(e, p, at), index, lanes, valid, best);
    mpqc_b_loop_end(e, &l);
}

static void reduce_step(struct mpqc_emit_cx *e, void *user, LLVMValueRef const *p,
                        LLVMValueRef index, unsigned lanes, unsigned valid)
{
    const struct reduction *r = user;
    unsigned bytes = mpqc_dtypes[r->dtype].bytes;
    LLVMTypeRef vector = mpqc_b_vec(mpqc_element_type(e, r->dtype), lanes);
    LLVMValueRef best = mpqc_b_var(e, vector, "best");
    mpqc_b_store(e, neutral(e, r->dtype, r->max, vector), best, bytes);
    fold_dims(e, r, 0, p[1], index, lanes, valid, best);
    mpqc_run_store(e, mpqc_b_load(e, vector, best, bytes), bytes, p[0],
                   mpqc_nest_step(&r->outer, 0), index, valid);
}

static void read_reduction(struct mpqc_emit_cx *e, const struct mpqc_node *n, mpqc_vid out,
                           struct reduction *r)
{
    const struct mpqc_type *x = type_of(e, n->in[0]), *y = type_of(e, out);
    int64_t from[MPQC_MAX_RANK], to[MPQC_MAX_RANK], dims[MPQC_MAX_RANK], stride[MPQC_MAX_RANK];
    uint32_t rank = 0;
    mpqc_value_strides(e, n->in[0], from);
    mpqc_value_strides(e, out, to);
    for (uint32_t d = 0; d < x->rank; d++) {
        if (y->dims[d] == x->dims[d]) continue; /* kept, or of extent 1 */
        dims[rank] = x->dims[d];
        stride[rank++] = from[d];
        from[d] = 0;
    }
    unsigned bytes = mpqc_dtypes[x->dtype].bytes;
    mpqc_nest_init(&r->outer, y->rank, y->dims);
    mpqc_nest_strided(&r->outer, to, bytes);
    mpqc_nest_strided(&r->outer, from, bytes);
    mpqc_nest_finish(e, &r->outer, out);
    mpqc_nest_init(&r->inner, rank, dims);
    mpqc_nest_strided(&r->inner, stride, bytes);
    mpqc_nest_finish_part(&r->inner);
    r->dtype = x->dtype;
    r->max = n->op == MPQC_OP_REDUCE_MAX;
    r->exact = !mpqc_value_slack(e, n->in[0]);
}

mpqc_status mpqc_emit_reduce_extreme(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                                     struct mpqc_kernel_code *out)
{
    const struct mpqc_node *n = mpqc_node_at(e->graph, k->core);
    struct reduction r;
    struct mpqc_buf key;
    read_reduction(e, n, k->out, &r);
    if (r.dtype == MPQC_DT_F32)
        return unsupported(e, n, "maximum or minimum over axes of floats has no code generator");
    out->operand[out->n_operands++] = (struct mpqc_operand){.value = k->out};
    out->operand[out->n_operands++] = (struct mpqc_operand){.value = n->in[0]};
    out->range = mpqc_nest_range(&r.outer);
    out->grain = mpqc_nest_grain(&r.outer);
    mpqc_buf_init(&key);
    mpqc_buf_printf(&key, "reduce %d %s%s", r.max, mpqc_dtypes[r.dtype].text,
                    r.exact ? " exact" : "");
    mpqc_nest_key(&r.outer, &key);
    mpqc_nest_key(&r.inner, &key);
    bool fresh;
    MPQC_TRY(mpqc_body_open(e, &key, out, &fresh));
    if (!fresh) return MPQC_OK;
    unsigned lanes = e->target->vector_bytes / mpqc_dtypes[r.dtype].bytes;
    if (mpqc_nest_run(&r.outer) < 8) lanes = 8;
    mpqc_nest_emit(e, &r.outer, lanes, reduce_step, &r);
    return mpqc_body_end(e);
}
