/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The code of movement kernels.  Planes, out[r][c] = in[c][r] with both sides
 * contiguous in one of the two, come in two kinds: few columns (2 to 4: the pixels of
 * an image, channel shuffles) are interleaved vector by vector, others are cut into
 * tiles that are transposed in registers by rounds of interleaving.
 */
#include "codegen/move.h"

#include "codegen/kernels.h"

enum { TILE_BYTES = 16 };

/* Dimensions of the plane of a job: r is contiguous in the input, c in the output. */
struct plane {
    int64_t rows, columns, out_row, in_column; /* extents; strides in bytes */
};

static struct plane plane_of(const struct move_job *j)
{
    const struct mpqc_nest *n = &j->nest;
    uint32_t r = n->rank - 2, c = n->rank - 1;
    return (struct plane){n->dims[r], n->dims[c], n->stride[0][r], n->stride[1][c]};
}

static bool interleaves(const struct move *m, const struct plane *p)
{
    return m->bytes == 1 && p->columns >= 2 && p->columns <= 4 && p->out_row == p->columns &&
           p->rows >= 16;
}

/* A tile: `columns` vectors of `rows` elements in, all of them in registers at once. */
struct tile {
    unsigned rows, columns;
};

static unsigned power_below(int64_t n, unsigned most)
{
    while (most > n) most /= 2;
    return most;
}

/* The largest tile that fits; columns 0: the plane is too small for one. */
static struct tile tile_of(const struct move *m, const struct plane *p)
{
    unsigned row = TILE_BYTES / m->bytes;
    unsigned registers = m->e->target->isa->registers > 16 ? row : row < 8 ? row : 8;
    struct tile t = {power_below(p->rows, row), power_below(p->columns, registers)};
    if (t.columns > t.rows) t.columns = t.rows;
    if (t.columns < (m->bytes == 8 ? 2 : 4)) t.columns = 0;
    return t;
}

/* Cuts the rows of a plane that is the whole nest, so that threads can share it. */
static void cut_rows(struct mpqc_nest *n)
{
    int64_t rows = n->dims[0];
    for (int64_t part = 2048; part >= 64 && n->rank == 2; part -= 16) {
        if (rows % part || rows == part) continue;
        for (uint32_t d = n->rank++; d > 0; d--) {
            n->dims[d] = n->dims[d - 1];
            for (uint32_t k = 0; k < n->n; k++) n->stride[k][d] = n->stride[k][d - 1];
        }
        n->dims[0] = rows / part;
        n->dims[1] = part;
        for (uint32_t k = 0; k < n->n; k++) n->stride[k][0] = n->stride[k][1] * part;
    }
}

void mpqc_move_choose_plane(const struct move *m, struct move_job *j)
{
    struct mpqc_nest *n = &j->nest;
    if (j->operand == MOVE_FILL || n->rank < (n->halo ? 4u : 2u)) return;
    uint32_t r = n->rank - 2, c = n->rank - 1;
    int64_t one = m->bytes;
    if (n->stride[0][c] != one || n->stride[1][r] != one || n->stride[1][c] == one) return;
    struct plane p = plane_of(j);
    if (!interleaves(m, &p) && tile_of(m, &p).columns == 0) return;
    n->plane = true;
    if (m->single && n->rank == 2) cut_rows(n);
}

/* ---- few columns ------------------------------------------------------------------------ */

/* Rows [row, row + lanes): columns vectors in, one after the other out. */
static void interleave(struct mpqc_emit_cx *e, const struct plane *p, LLVMValueRef out,
                       LLVMValueRef in, LLVMValueRef row, unsigned lanes)
{
    unsigned n = (unsigned)p->columns;
    LLVMValueRef v[4] = {NULL, NULL, NULL, NULL};
    int order[64];
    in = mpqc_b_gep(e, in, row);
    out = mpqc_b_gep(e, out, mpqc_b_madd(e, row, p->out_row, mpqc_b_i64(e, 0)));
    for (unsigned c = 0; c < n; c++)
        v[c] = mpqc_b_load(e, mpqc_b_vec(e->i8, lanes),
                           mpqc_b_gep_const(e, in, (int64_t)c * p->in_column), 1);
    LLVMValueRef low = mpqc_b_join(e, v[0], v[1]);
    LLVMValueRef high = n > 2 ? mpqc_b_join(e, v[2], v[n - 1]) : low;
    for (unsigned part = 0; part < n; part++) { /* one vector of the result each */
        for (unsigned i = 0; i < lanes; i++) {
            unsigned at = part * lanes + i;
            order[i] = (int)(at % n * lanes + at / n);
        }
        LLVMValueRef w = mpqc_b_shuffle(e, low, high, order, lanes);
        mpqc_b_store(e, w, mpqc_b_gep_const(e, out, (int64_t)part * lanes), 1);
    }
}

static void interleave_plane(struct mpqc_emit_cx *e, const struct plane *p, LLVMValueRef out,
                             LLVMValueRef in)
{
    const unsigned lanes = 16;
    int64_t full = p->rows / lanes * lanes;
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, full), lanes, "pixels");
    interleave(e, p, out, in, l.iv, lanes);
    mpqc_b_loop_end(e, &l);
    /* the rest by a last step that overlaps the one before */
    if (full < p->rows) interleave(e, p, out, in, mpqc_b_i64(e, p->rows - lanes), lanes);
}

/* ---- tiles -------------------------------------------------------------------------------- */

/* Interleaving the first half of the vectors with the second, once for each doubling of
 * columns, leaves the elements in the order of the result. */
static void transpose_tile(struct mpqc_emit_cx *e, LLVMValueRef *v, struct tile t)
{
    int low[16], high[16];
    unsigned half = t.columns / 2;
    for (unsigned i = 0; i < t.rows; i++) {
        low[i] = (int)(i / 2 + i % 2 * t.rows);
        high[i] = low[i] + (int)t.rows / 2;
    }
    for (unsigned round = 1; round < t.columns; round *= 2) {
        LLVMValueRef w[16];
        for (unsigned i = 0; i < half; i++) {
            w[2 * i] = mpqc_b_shuffle(e, v[i], v[i + half], low, t.rows);
            w[2 * i + 1] = mpqc_b_shuffle(e, v[i], v[i + half], high, t.rows);
        }
        for (unsigned i = 0; i < t.columns; i++) v[i] = w[i];
    }
}

static void tile_code(const struct move *m, const struct plane *p, LLVMValueRef out,
                      LLVMValueRef in, LLVMValueRef row, LLVMValueRef column, struct tile t)
{
    struct mpqc_emit_cx *e = m->e;
    LLVMValueRef v[16], zero = mpqc_b_i64(e, 0);
    LLVMTypeRef type = mpqc_b_vec(LLVMIntTypeInContext(e->llvm, m->bytes * 8), t.rows);
    in = mpqc_b_gep(e, in, mpqc_b_madd(e, row, m->bytes, mpqc_b_madd(e, column, p->in_column, zero)));
    out = mpqc_b_gep(e, out,
                     mpqc_b_madd(e, column, m->bytes, mpqc_b_madd(e, row, p->out_row, zero)));
    for (unsigned i = 0; i < t.columns; i++)
        v[i] = mpqc_b_load(e, type, mpqc_b_gep_const(e, in, (int64_t)i * p->in_column), 1);
    transpose_tile(e, v, t);
    for (unsigned r = 0; r < t.rows; r++) {
        unsigned at = r * t.columns;
        LLVMValueRef part = mpqc_b_part(e, v[at / t.rows], at % t.rows, t.columns);
        mpqc_b_store(e, part, mpqc_b_gep_const(e, out, (int64_t)r * p->out_row), 1);
    }
}

/* All tiles along the columns, the last one overlapping. */
static void tile_row(const struct move *m, const struct plane *p, LLVMValueRef out,
                     LLVMValueRef in, LLVMValueRef row, struct tile t)
{
    struct mpqc_emit_cx *e = m->e;
    struct mpqc_loop l;
    int64_t full = p->columns / t.columns * t.columns;
    mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, full), t.columns, "tile");
    tile_code(m, p, out, in, row, l.iv, t);
    mpqc_b_loop_end(e, &l);
    if (full < p->columns)
        tile_code(m, p, out, in, row, mpqc_b_i64(e, p->columns - t.columns), t);
}

static void plane_code(struct mpqc_emit_cx *e, void *user, LLVMValueRef const *ptr)
{
    const struct move *m = user;
    struct plane p = plane_of(m->job);
    if (interleaves(m, &p)) {
        interleave_plane(e, &p, ptr[0], ptr[1]);
        return;
    }
    struct mpqc_loop l;
    struct tile t = tile_of(m, &p);
    int64_t full = p.rows / t.rows * t.rows;
    mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, full), t.rows, "tiles");
    tile_row(m, &p, ptr[0], ptr[1], l.iv, t);
    mpqc_b_loop_end(e, &l);
    if (full < p.rows) tile_row(m, &p, ptr[0], ptr[1], mpqc_b_i64(e, p.rows - t.rows), t);
}

/* ---- runs ----------------------------------------------------------------------------------- */

/* Elements travel as integers, floats too. */
static LLVMTypeRef bits_of(const struct move *m)
{
    return LLVMIntTypeInContext(m->e->llvm, m->bytes * 8);
}

static void copy_step(struct mpqc_emit_cx *e, void *user, LLVMValueRef const *p,
                      LLVMValueRef index, unsigned lanes, unsigned valid)
{
    const struct move *m = user;
    const struct mpqc_nest *n = &m->job->nest;
    mpqc_vid from = m->node->in[m->job->operand - 1];
    LLVMValueRef v = mpqc_run_load(e, bits_of(m), m->bytes, p[1], mpqc_nest_step(n, 1), index,
                                   lanes, valid, !mpqc_value_slack(e, from));
    mpqc_run_store(e, v, m->bytes, p[0], mpqc_nest_step(n, 0), index, valid);
}

static void fill_step(struct mpqc_emit_cx *e, void *user, LLVMValueRef const *p,
                      LLVMValueRef index, unsigned lanes, unsigned valid)
{
    const struct move *m = user;
    LLVMValueRef v = mpqc_b_splat(e, mpqc_b_vec(bits_of(m), lanes), m->fill);
    mpqc_run_store(e, v, m->bytes, p[0], mpqc_nest_step(&m->job->nest, 0), index, valid);
}

/* Vectors where both sides are contiguous (or one element is repeated), else steps of
 * eight single elements. */
static unsigned lanes_of(const struct move *m, const struct move_job *j)
{
    const struct mpqc_nest *n = &j->nest;
    int64_t one = m->bytes;
    bool plain = mpqc_nest_step(n, 0) == one &&
                 (n->n == 1 || mpqc_nest_step(n, 1) == one || mpqc_nest_step(n, 1) == 0);
    unsigned lanes = plain ? m->e->target->vector_bytes / m->bytes : 8;
    while (lanes > 8 && lanes >= 2 * mpqc_nest_run(n)) lanes /= 2;
    return lanes;
}

static void job_code(struct move *m, const struct move_job *j, LLVMValueRef out, LLVMValueRef in,
                     LLVMValueRef begin, LLVMValueRef end)
{
    struct mpqc_emit_cx *e = m->e;
    LLVMValueRef p[2] = {mpqc_b_gep_const(e, out, j->out_at),
                         in ? mpqc_b_gep_const(e, in, j->in_at) : NULL};
    m->job = j;
    mpqc_nest_loops(e, &j->nest, p, begin, end, lanes_of(m, j), in ? copy_step : fill_step,
                    plane_code, m);
}

/* For each index: clamped as ir/op_move.c does, then one copy. */
static void gather_code(struct move *m, LLVMValueRef out, LLVMValueRef in, LLVMValueRef index)
{
    struct mpqc_emit_cx *e = m->e;
    struct mpqc_loop l;
    LLVMValueRef zero = mpqc_b_i64(e, 0), extent = mpqc_b_i64(e, m->gather.extent);
    mpqc_b_loop_begin(e, &l, zero, mpqc_b_i64(e, m->gather.count), 1, "index");
    LLVMValueRef at = mpqc_b_load(
        e, e->i64, mpqc_b_gep(e, index, mpqc_b_madd(e, l.iv, 8, zero)), 8);
    LLVMValueRef negative = LLVMBuildICmp(e->b, LLVMIntSLT, at, zero, "");
    at = LLVMBuildSelect(e->b, negative, LLVMBuildAdd(e->b, at, extent, ""), at, "");
    LLVMValueRef low[] = {at, zero};
    LLVMValueRef high[] = {mpqc_b_intrinsic(e, "llvm.smax", &e->i64, 1, low, 2),
                           mpqc_b_i64(e, m->gather.extent - 1)};
    at = mpqc_b_intrinsic(e, "llvm.smin", &e->i64, 1, high, 2);
    const struct move_job *j = m->jobs;
    job_code(m, j, mpqc_b_gep(e, out, mpqc_b_madd(e, l.iv, m->gather.out_step, zero)),
             mpqc_b_gep(e, in, mpqc_b_madd(e, at, m->gather.in_step, zero)), zero,
             mpqc_b_i64(e, mpqc_nest_range(&j->nest)));
    mpqc_b_loop_end(e, &l);
}

static void halo_code(struct move *m, LLVMValueRef out)
{
    struct mpqc_emit_cx *e = m->e;
    const struct mpqc_type *t = &mpqc_value_at(e->graph, m->out)->type;
    struct mpqc_loop l;
    mpqc_b_loop_begin(e, &l, mpqc_b_i64(e, 0), mpqc_b_i64(e, t->dims[0] * t->dims[1]), 1, "halo");
    mpqc_emit_halo(e, &e->plan->place[m->out], t, out, l.iv);
    mpqc_b_loop_end(e, &l);
}

void mpqc_move_body(struct move *m)
{
    struct mpqc_emit_cx *e = m->e;
    LLVMValueRef f = e->function, out = LLVMGetParam(f, 0);
    unsigned params = LLVMCountParams(f);
    LLVMValueRef begin = LLVMGetParam(f, params - 2), end = LLVMGetParam(f, params - 1);
    if (m->gather.count) {
        gather_code(m, out, LLVMGetParam(f, 1), LLVMGetParam(f, 2));
    } else {
        for (const struct move_job *j = m->jobs; j; j = j->next) {
            LLVMValueRef in = j->operand == MOVE_FILL ? NULL : LLVMGetParam(f, j->operand);
            LLVMValueRef from = m->single ? begin : mpqc_b_i64(e, 0);
            LLVMValueRef to = m->single ? end : mpqc_b_i64(e, mpqc_nest_range(&j->nest));
            job_code(m, j, out, in, from, to);
        }
    }
    if (m->halo_after) halo_code(m, out);
}
