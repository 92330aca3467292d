/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Kernels that only move elements.  Every operator becomes a list of strided copies
 * and fills, each a nest; what a nest does with its innermost part depends on the
 * strides: contiguous runs in vectors, fills, planes that must be transposed
 * (move_plane.c), and element by element otherwise.
 */
#include "codegen/move.h"

#include "codegen/kernels.h"

#include <math.h>
#include <string.h>

static struct mpqc_where where_of(const struct mpqc_node *n)
{
    return (struct mpqc_where){.node = n->loc.node, .op = n->loc.op, .offset = -1};
}

static const struct mpqc_type *type_of(const struct move *m, mpqc_vid v)
{
    return &mpqc_value_at(m->e->graph, v)->type;
}

/* ---- jobs --------------------------------------------------------------------------- */

struct move_job *mpqc_move_job(struct move *m, uint32_t operand, int64_t out_at, int64_t in_at)
{
    struct move_job *j = MPQC_NEW(&m->e->scratch, struct move_job);
    if (!j) return NULL;
    *j = (struct move_job){.operand = operand, .out_at = out_at, .in_at = in_at};
    *m->last = j;
    m->last = &j->next;
    m->n_jobs++;
    return j;
}

/* A copy over dims; strides and first elements count elements.  Operand 0 of the nest
 * is the output. */
static void copy(struct move *m, uint32_t operand, uint32_t rank, const int64_t *dims,
                 const int64_t *to, int64_t to_first, const int64_t *from, int64_t from_first)
{
    struct move_job *j = mpqc_move_job(m, operand, to_first * m->bytes, from_first * m->bytes);
    if (!j) return;
    mpqc_nest_init(&j->nest, rank, dims);
    mpqc_nest_strided(&j->nest, to, m->bytes);
    mpqc_nest_strided(&j->nest, from, m->bytes);
}

static void fill(struct move *m, uint32_t rank, const int64_t *dims, const int64_t *to,
                 int64_t to_first)
{
    struct move_job *j = mpqc_move_job(m, MOVE_FILL, to_first * m->bytes, 0);
    if (!j) return;
    mpqc_nest_init(&j->nest, rank, dims);
    mpqc_nest_strided(&j->nest, to, m->bytes);
}

/* ---- operators ------------------------------------------------------------------------- */

static mpqc_status plan_copy(struct move *m)
{
    const struct mpqc_type *y = type_of(m, m->out);
    int64_t from[MPQC_MAX_RANK];
    mpqc_value_strides(m->e, m->node->in[0], from);
    copy(m, 1, y->rank, y->dims, m->to, 0, from, 0);
    m->whole = true;
    return MPQC_OK;
}

static mpqc_status plan_transpose(struct move *m)
{
    const struct mpqc_type *y = type_of(m, m->out);
    const int64_t *perm = mpqc_attr_ints(m->node, MPQC_ATTR_PERM);
    int64_t own[MPQC_MAX_RANK], from[MPQC_MAX_RANK];
    mpqc_value_strides(m->e, m->node->in[0], own);
    for (uint32_t d = 0; d < y->rank; d++) from[d] = own[perm[d]];
    copy(m, 1, y->rank, y->dims, m->to, 0, from, 0);
    m->whole = true;
    return MPQC_OK;
}

static mpqc_status plan_expand(struct move *m)
{
    const struct mpqc_type *x = type_of(m, m->node->in[0]), *y = type_of(m, m->out);
    int64_t own[MPQC_MAX_RANK], from[MPQC_MAX_RANK] = {0};
    mpqc_value_strides(m->e, m->node->in[0], own);
    uint32_t missing = y->rank - x->rank;
    for (uint32_t d = 0; d < x->rank; d++) from[missing + d] = x->dims[d] == 1 ? 0 : own[d];
    copy(m, 1, y->rank, y->dims, m->to, 0, from, 0);
    m->whole = true;
    return MPQC_OK;
}

static mpqc_status plan_slice(struct move *m)
{
    const struct mpqc_type *x = type_of(m, m->node->in[0]), *y = type_of(m, m->out);
    const int64_t *begin = mpqc_attr_ints(m->node, MPQC_ATTR_BEGIN);
    const int64_t *step = mpqc_attr_ints(m->node, MPQC_ATTR_STEP);
    int64_t from[MPQC_MAX_RANK], first = 0;
    mpqc_value_strides(m->e, m->node->in[0], from);
    for (uint32_t d = 0; d < x->rank; d++) {
        first += begin[d] * from[d];
        from[d] = y->dims[d] > 1 ? from[d] * step[d] : 0;
    }
    copy(m, 1, y->rank, y->dims, m->to, 0, from, first);
    m->whole = true;
    return MPQC_OK;
}

/* Is this input a view that lies where concat would put it? */
static bool already_there(const struct move *m, mpqc_vid v, const int64_t *from, int64_t first)
{
    const struct mpqc_place *a = &m->e->plan->place[v], *b = &m->e->plan->place[m->out];
    const struct mpqc_type *t = type_of(m, v);
    if (a->space != b->space || a->index != b->index || mpqc_is_const(m->e->graph, v) ||
        a->offset != b->offset + (uint64_t)(first * m->bytes))
        return false;
    for (uint32_t d = 0; d < t->rank; d++)
        if (t->dims[d] > 1 && from[d] != m->to[d]) return false;
    return true;
}

static mpqc_status plan_concat(struct move *m)
{
    uint32_t axis = (uint32_t)mpqc_attr_int(m->node, MPQC_ATTR_AXIS);
    int64_t at = 0;
    for (uint32_t i = 0; i < m->node->n_in; i++) {
        const struct mpqc_type *x = type_of(m, m->node->in[i]);
        int64_t from[MPQC_MAX_RANK];
        mpqc_value_strides(m->e, m->node->in[i], from);
        if (!already_there(m, m->node->in[i], from, at * m->to[axis]))
            copy(m, i + 1, x->rank, x->dims, m->to, at * m->to[axis], from, 0);
        at += x->dims[axis];
    }
    return MPQC_OK;
}

/* The two block operators in six dimensions, `space` [N,h,B,w,B,C] being the side with
 * large height and width. */
static void plan_block(struct move *m, const struct mpqc_type *space, const int64_t *space_own,
                       const int64_t *depth_own, bool to_space, bool block_major)
{
    int64_t b = mpqc_attr_int(m->node, MPQC_ATTR_BLOCK), c = space->dims[3];
    const int64_t dims[6] = {space->dims[0], space->dims[1] / b, b, space->dims[2] / b, b, c};
    const int64_t s[6] = {space_own[0],     space_own[1] * b, space_own[1],
                          space_own[2] * b, space_own[2],     1};
    const int64_t d[6] = {depth_own[0], depth_own[1], block_major ? b * c : b,
                          depth_own[2], block_major ? c : 1,  block_major ? 1 : b * b};
    copy(m, 1, 6, dims, to_space ? s : d, 0, to_space ? d : s, 0);
}

static mpqc_status plan_depth_to_space(struct move *m)
{
    int64_t own[MPQC_MAX_RANK];
    bool dcr = strcmp(mpqc_attr_string_or(m->node, MPQC_ATTR_MODE, "DCR"), "DCR") == 0;
    mpqc_value_strides(m->e, m->node->in[0], own);
    plan_block(m, type_of(m, m->out), m->to, own, true, dcr);
    return MPQC_OK;
}

static mpqc_status plan_space_to_depth(struct move *m)
{
    int64_t own[MPQC_MAX_RANK];
    mpqc_value_strides(m->e, m->node->in[0], own);
    plan_block(m, type_of(m, m->node->in[0]), own, m->to, false, true);
    return MPQC_OK;
}

static mpqc_status plan_shuffle(struct move *m)
{
    const struct mpqc_type *y = type_of(m, m->out);
    int64_t group = mpqc_attr_int(m->node, MPQC_ATTR_GROUP), own[MPQC_MAX_RANK];
    int64_t dims[MPQC_MAX_RANK + 1], to[MPQC_MAX_RANK + 1], from[MPQC_MAX_RANK + 1];
    uint32_t last = y->rank - 1;
    mpqc_value_strides(m->e, m->node->in[0], own);
    for (uint32_t d = 0; d < last; d++) {
        dims[d] = y->dims[d];
        to[d] = m->to[d];
        from[d] = own[d];
    }
    dims[last] = y->dims[last] / group;
    to[last] = group;
    from[last] = 1;
    dims[last + 1] = group;
    to[last + 1] = 1;
    from[last + 1] = y->dims[last] / group;
    copy(m, 1, y->rank + 1, dims, to, 0, from, 0);
    m->whole = true;
    return MPQC_OK;
}

/* A shape and its strides with neighbours merged where memory allows it. */
struct side {
    uint32_t rank;
    int64_t dims[MPQC_MAX_RANK], stride[MPQC_MAX_RANK];
};

static struct side merged(const struct mpqc_type *t, const int64_t *stride)
{
    struct side s = {.rank = 0};
    for (uint32_t d = 0; d < t->rank; d++) {
        if (t->dims[d] == 1) continue;
        if (s.rank && s.stride[s.rank - 1] == stride[d] * t->dims[d]) {
            s.dims[s.rank - 1] *= t->dims[d];
            s.stride[s.rank - 1] = stride[d];
            continue;
        }
        s.dims[s.rank] = t->dims[d];
        s.stride[s.rank++] = stride[d];
    }
    return s;
}

/* The same elements in another shape: cuts both sides into common factors. */
static mpqc_status plan_reshape(struct move *m)
{
    const struct mpqc_type *x = type_of(m, m->node->in[0]), *y = type_of(m, m->out);
    int64_t own[MPQC_MAX_RANK], dims[MPQC_NEST_RANK], to[MPQC_NEST_RANK], from[MPQC_NEST_RANK];
    mpqc_value_strides(m->e, m->node->in[0], own);
    if (mpqc_type_same_shape(x, y)) {
        copy(m, 1, y->rank, y->dims, m->to, 0, own, 0);
        m->whole = true;
        return MPQC_OK;
    }
    struct side a = merged(x, own), b = merged(y, m->to);
    uint32_t i = a.rank, j = b.rank, at = MPQC_NEST_RANK;
    while (i > 0 && j > 0 && at > 0) {
        int64_t *p = &a.dims[i - 1], *q = &b.dims[j - 1], common = *p < *q ? *p : *q;
        if (common <= 0 || *p % common || *q % common) break;
        at--;
        dims[at] = common;
        from[at] = a.stride[i - 1];
        to[at] = b.stride[j - 1];
        a.stride[i - 1] *= common;
        b.stride[j - 1] *= common;
        if ((*p /= common) == 1) i--;
        if ((*q /= common) == 1) j--;
    }
    if (i > 0 || j > 0)
        return MPQC_FAIL(m->e->cx, UNSUPPORTED, where_of(m->node),
                         "this reshape needs an element order that cannot be copied in strides");
    copy(m, 1, MPQC_NEST_RANK - at, dims + at, to + at, 0, from + at, 0);
    return MPQC_OK;
}

/* ---- pad ----------------------------------------------------------------------------------- */

/* Real ALPHA as an element of the output; as ir/op_move.c has it. */
static int64_t pad_value(const struct move *m)
{
    const struct mpqc_type *t = type_of(m, m->out);
    const struct mpqc_dtype_info *info = &mpqc_dtypes[t->dtype];
    float alpha = mpqc_attr_float_or(m->node, MPQC_ATTR_ALPHA, 0.0f);
    if (t->dtype == MPQC_DT_F32) {
        uint32_t bits;
        memcpy(&bits, &alpha, sizeof bits);
        return bits;
    }
    double v = t->quant ? rint((double)alpha / (double)t->quant->scale[0]) + t->quant->zero[0]
                        : trunc((double)alpha);
    return v <= (double)info->min ? info->min : v >= (double)info->max ? info->max : (int64_t)v;
}

/* Constant borders: before and behind along axis d, where all axes before d are
 * inside and all behind are whole. */
static void pad_constant(struct move *m, const struct mpqc_type *x, const int64_t *pads)
{
    const struct mpqc_type *y = type_of(m, m->out);
    int64_t dims[MPQC_MAX_RANK], first = 0;
    for (uint32_t d = 0; d < y->rank; d++) dims[d] = y->dims[d];
    for (uint32_t d = 0; d < y->rank; d++) {
        int64_t before = pads[d], after = pads[x->rank + d];
        dims[d] = before;
        if (before > 0) fill(m, y->rank, dims, m->to, first);
        dims[d] = after;
        if (after > 0) fill(m, y->rank, dims, m->to, first + (before + x->dims[d]) * m->to[d]);
        dims[d] = x->dims[d];
        first += before * m->to[d];
    }
}

/* Reflected or repeated borders: the product of up to three segments per axis, each
 * a copy with step -1, 0 or 1. */
static void pad_segments(struct move *m, const struct mpqc_type *x, const int64_t *own,
                         const int64_t *pads, bool reflect, uint32_t d, int64_t *dims,
                         int64_t *from, int64_t to_first, int64_t from_first)
{
    if (d == x->rank) {
        copy(m, 1, x->rank, dims, m->to, to_first, from, from_first);
        return;
    }
    int64_t before = pads[d], after = pads[x->rank + d], n = x->dims[d];
    const struct {
        int64_t extent, to, from, step;
    } segment[3] = {
        {before, 0, reflect ? before : 0, reflect ? -1 : 0},
        {n, before, 0, 1},
        {after, before + n, reflect ? n - 2 : n - 1, reflect ? -1 : 0},
    };
    for (int i = 0; i < 3; i++) {
        if (segment[i].extent <= 0) continue;
        dims[d] = segment[i].extent;
        from[d] = own[d] * segment[i].step;
        pad_segments(m, x, own, pads, reflect, d + 1, dims, from,
                     to_first + segment[i].to * m->to[d], from_first + segment[i].from * own[d]);
    }
}

static mpqc_status plan_pad(struct move *m)
{
    const struct mpqc_type *x = type_of(m, m->node->in[0]);
    const int64_t *pads = mpqc_attr_ints(m->node, MPQC_ATTR_PADS);
    const char *mode = mpqc_attr_string_or(m->node, MPQC_ATTR_MODE, "constant");
    int64_t own[MPQC_MAX_RANK], dims[MPQC_MAX_RANK], from[MPQC_MAX_RANK], first = 0;
    mpqc_value_strides(m->e, m->node->in[0], own);
    if (strcmp(mode, "constant") != 0) {
        pad_segments(m, x, own, pads, strcmp(mode, "reflect") == 0, 0, dims, from, 0, 0);
        return MPQC_OK;
    }
    m->fill = pad_value(m);
    pad_constant(m, x, pads);
    for (uint32_t d = 0; d < x->rank; d++) first += pads[d] * m->to[d];
    copy(m, 1, x->rank, x->dims, m->to, first, own, 0);
    return MPQC_OK;
}

/* ---- gather --------------------------------------------------------------------------------- */

/* A gather is a copy per index, over the axes before and behind. */
static mpqc_status plan_gather(struct move *m)
{
    mpqc_vid index = m->node->in[1];
    const struct mpqc_type *x = type_of(m, m->node->in[0]), *t = type_of(m, index);
    uint32_t axis = (uint32_t)mpqc_attr_int(m->node, MPQC_ATTR_AXIS), rank = 0;
    int64_t own[MPQC_MAX_RANK], dims[MPQC_MAX_RANK], to[MPQC_MAX_RANK], from[MPQC_MAX_RANK];
    mpqc_value_strides(m->e, m->node->in[0], own);
    for (uint32_t d = 0; d < x->rank; d++) {
        if (d == axis) continue;
        dims[rank] = x->dims[d];
        from[rank] = own[d];
        to[rank++] = m->to[d < axis ? d : d - 1 + t->rank];
    }
    for (uint32_t d = 0; d + 1 < t->rank; d++)
        if (m->to[axis + d] != m->to[axis + d + 1] * t->dims[d + 1])
            return MPQC_FAIL(m->e->cx, UNSUPPORTED, where_of(m->node),
                             "gather by indices of rank %u into a tensor that is not dense",
                             t->rank);
    m->gather.count = mpqc_type_count(t);
    m->gather.extent = x->dims[axis];
    m->gather.in_step = own[axis] * m->bytes;
    m->gather.out_step = t->rank ? m->to[axis + t->rank - 1] * m->bytes : 0;
    if (m->gather.count) copy(m, 1, rank, dims, to, 0, from, 0);
    return MPQC_OK;
}

/* ---- the kernel ------------------------------------------------------------------------------ */

static mpqc_status plan_jobs(struct move *m)
{
    switch (m->node->op) {
    case MPQC_OP_TRANSPOSE: return plan_transpose(m);
    case MPQC_OP_EXPAND: return plan_expand(m);
    case MPQC_OP_SLICE: return plan_slice(m);
    case MPQC_OP_CONCAT: return plan_concat(m);
    case MPQC_OP_PAD: return plan_pad(m);
    case MPQC_OP_GATHER: return plan_gather(m);
    case MPQC_OP_DEPTH_TO_SPACE: return plan_depth_to_space(m);
    case MPQC_OP_SPACE_TO_DEPTH: return plan_space_to_depth(m);
    case MPQC_OP_CHANNEL_SHUFFLE: return plan_shuffle(m);
    case MPQC_OP_COPY: return plan_copy(m);
    default: return plan_reshape(m);
    }
}

/* Merges dimensions.  A single copy that covers the output in its own shape keeps the
 * nest's way to split rows and fill halos. */
static void finish_jobs(struct move *m)
{
    bool halo = mpqc_place_has_halo(&m->e->plan->place[m->out]);
    m->single = m->n_jobs == 1 && m->gather.count == 0 && (m->whole || !halo);
    for (struct move_job *j = m->jobs; j; j = j->next) {
        if (m->single) mpqc_nest_finish(m->e, &j->nest, m->out);
        else mpqc_nest_finish_part(&j->nest);
        mpqc_move_choose_plane(m, j);
    }
    m->halo_after = halo && !m->single;
}

static void add_key(const struct move *m, struct mpqc_buf *key)
{
    const struct mpqc_type *t = type_of(m, m->out);
    mpqc_buf_printf(key, "move %u fill %lld", m->bytes, (long long)m->fill);
    if (m->gather.count)
        mpqc_buf_printf(key, " gather %lld of %lld %lld>%lld", (long long)m->gather.count,
                        (long long)m->gather.extent, (long long)m->gather.in_step,
                        (long long)m->gather.out_step);
    for (const struct move_job *j = m->jobs; j; j = j->next) {
        bool slack = j->operand != MOVE_FILL && mpqc_value_slack(m->e, m->node->in[j->operand - 1]);
        mpqc_buf_printf(key, "; %u%s %lld<%lld%s", j->operand, slack ? "s" : "",
                        (long long)j->out_at, (long long)j->in_at, j->nest.plane ? " plane" : "");
        mpqc_nest_key(&j->nest, key);
    }
    if (!m->halo_after) return;
    const struct mpqc_place *p = &m->e->plan->place[m->out];
    mpqc_buf_printf(key, " halo %d,%d,%d,%d=%d of %lldx%lldx%lldx%lld by %lld,%lld,%lld",
                    p->halo[0], p->halo[1], p->halo[2], p->halo[3],
                    t->quant ? t->quant->zero[0] : 0, (long long)t->dims[0],
                    (long long)t->dims[1], (long long)t->dims[2], (long long)t->dims[3],
                    (long long)m->to[0], (long long)m->to[1], (long long)m->to[2]);
}

static mpqc_status operands(struct move *m, struct mpqc_kernel_code *out)
{
    uint32_t n = m->node->n_in;
    if (n + 1 > MPQC_MAX_OPERANDS)
        return MPQC_FAIL(m->e->cx, LIMIT_EXCEEDED, where_of(m->node),
                         "%s of %u tensors, at most %d are possible", mpqc_ops[m->node->op].text,
                         n, MPQC_MAX_OPERANDS - 1);
    out->operand[out->n_operands++] = (struct mpqc_operand){.value = m->out};
    for (uint32_t i = 0; i < n; i++)
        out->operand[out->n_operands++] = (struct mpqc_operand){.value = m->node->in[i]};
    return MPQC_OK;
}

mpqc_status mpqc_emit_move(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                           struct mpqc_kernel_code *out)
{
    struct move m = {.e = e,
                     .node = mpqc_node_at(e->graph, k->core),
                     .out = k->out,
                     .bytes = mpqc_value_bytes(e, k->out)};
    struct mpqc_buf key;
    m.last = &m.jobs;
    mpqc_value_strides(e, k->out, m.to);
    MPQC_TRY(plan_jobs(&m));
    if (e->scratch.failed) return MPQC_OOM(e->cx);
    finish_jobs(&m);
    MPQC_TRY(operands(&m, out));
    out->range = m.single ? mpqc_nest_range(&m.jobs->nest) : 1;
    out->grain = m.single ? mpqc_nest_grain(&m.jobs->nest) : 0;

    mpqc_buf_init(&key);
    add_key(&m, &key);
    bool fresh;
    MPQC_TRY(mpqc_body_open(e, &key, out, &fresh));
    if (!fresh) return MPQC_OK;
    mpqc_move_body(&m);
    return mpqc_body_end(e);
}
