/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Movement: reshapes, slices, concatenation, padding.
 */
#include "frontend/ops.h"

/* Shapes, ranges and lists of sizes must be constant; extents are known to fit. */

mpqc_status mpqc_on_identity(struct mpqc_imp_node *n)
{
    n->out[0] = n->in[0];
    return MPQC_OK;
}

/* ---- reshapes --------------------------------------------------------------------- */

/* 0 copies an extent (unless allowzero), one -1 takes what is left. */
static mpqc_status resolve_shape(struct mpqc_imp_node *n, const struct mpqc_type *t,
                                 uint32_t count, const int64_t *given, bool allowzero,
                                 int64_t *dims)
{
    int64_t known = 1, total = mpqc_type_count(t);
    uint32_t open = MPQC_NONE;
    if (count > MPQC_MAX_RANK)
        return mpqc_imp_unsupported(n, "a shape of rank %u; at most %d is supported", count,
                                    MPQC_MAX_RANK);
    for (uint32_t i = 0; i < count; i++) {
        dims[i] = given[i];
        if (given[i] == 0 && !allowzero) {
            if (i >= t->rank) return mpqc_imp_invalid(n, "0 at place %u copies nothing", i);
            dims[i] = t->dims[i];
        }
        if (given[i] < -1 || given[i] > MPQC_IMP_MAX_ELEMENTS ||
            (given[i] == -1 && open != MPQC_NONE))
            return mpqc_imp_invalid(n, "%lld at place %u of the shape", (long long)given[i], i);
        if (given[i] == -1) open = i;
        else if (dims[i] && known > MPQC_IMP_MAX_ELEMENTS / dims[i])
            return mpqc_imp_invalid(n, "the shape is too large");
        else known *= dims[i];
    }
    if (open == MPQC_NONE) return MPQC_OK;
    if (known == 0 || total % known)
        return mpqc_imp_invalid(n, "%lld elements cannot be divided by %lld", (long long)total,
                                (long long)known);
    dims[open] = total / known;
    return MPQC_OK;
}

mpqc_status mpqc_on_reshape(struct mpqc_imp_node *n)
{
    uint32_t count;
    const int64_t *given;
    int64_t allowzero, dims[MPQC_MAX_RANK];
    const struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    MPQC_TRY(mpqc_imp_const_ints(n, 1, "the shape", &count, &given));
    MPQC_TRY(mpqc_imp_int(n, "allowzero", 0, &allowzero));
    MPQC_TRY(resolve_shape(n, &t, count, given, allowzero != 0, dims));
    return mpqc_imp_reshape(n, n->in[0], count, dims, &n->out[0]);
}

mpqc_status mpqc_on_flatten(struct mpqc_imp_node *n)
{
    int64_t axis, dims[2] = {1, 1};
    const struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    MPQC_TRY(mpqc_imp_int(n, "axis", 1, &axis));
    if (axis < -(int64_t)t.rank || axis > (int64_t)t.rank)
        return mpqc_imp_invalid(n, "axis %lld is out of range for rank %u", (long long)axis,
                                t.rank);
    if (axis < 0) axis += t.rank;
    for (uint32_t i = 0; i < t.rank; i++) dims[(int64_t)i >= axis] *= t.dims[i];
    return mpqc_imp_reshape(n, n->in[0], 2, dims, &n->out[0]);
}

mpqc_status mpqc_on_squeeze(struct mpqc_imp_node *n)
{
    uint32_t count, n_axes = 0, rank = 0;
    const int64_t *given;
    int64_t axes[MPQC_MAX_RANK], dims[MPQC_MAX_RANK];
    const struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    MPQC_TRY(mpqc_imp_axes_either(n, 1, &count, &given));
    if (given) MPQC_TRY(mpqc_imp_axes(n, given, count, t.rank, &n_axes, axes));
    for (uint32_t i = 0, at = 0; i < t.rank; i++) {
        bool drop = given ? at < n_axes && axes[at] == (int64_t)i : t.dims[i] == 1;
        if (given && drop) at++;
        if (drop && t.dims[i] != 1)
            return mpqc_imp_invalid(n, "axis %u has extent %lld, not 1", i, (long long)t.dims[i]);
        if (!drop) dims[rank++] = t.dims[i];
    }
    return mpqc_imp_reshape(n, n->in[0], rank, dims, &n->out[0]);
}

mpqc_status mpqc_on_unsqueeze(struct mpqc_imp_node *n)
{
    uint32_t count, n_axes;
    const int64_t *given;
    int64_t axes[MPQC_MAX_RANK], dims[MPQC_MAX_RANK];
    const struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    MPQC_TRY(mpqc_imp_axes_either(n, 1, &count, &given));
    if (!given) return mpqc_imp_invalid(n, "axes are missing");
    if (count > MPQC_MAX_RANK - t.rank)
        return mpqc_imp_unsupported(n, "a result of more than %d dimensions", MPQC_MAX_RANK);
    uint32_t rank = t.rank + count;
    MPQC_TRY(mpqc_imp_axes(n, given, count, rank, &n_axes, axes));
    for (uint32_t i = 0, at = 0, from = 0; i < rank; i++) {
        bool made = at < n_axes && axes[at] == (int64_t)i;
        dims[i] = made ? 1 : t.dims[from];
        if (made) at++;
        else from++;
    }
    return mpqc_imp_reshape(n, n->in[0], rank, dims, &n->out[0]);
}

mpqc_status mpqc_on_transpose(struct mpqc_imp_node *n)
{
    uint32_t count, rank = mpqc_imp_type(n, n->in[0])->rank;
    const int64_t *given;
    int64_t perm[MPQC_MAX_RANK];
    bool seen[MPQC_MAX_RANK] = {false};
    MPQC_TRY(mpqc_imp_ints(n, "perm", &count, &given));
    if (given && count != rank)
        return mpqc_imp_invalid(n, "perm has %u numbers for rank %u", count, rank);
    for (uint32_t i = 0; i < rank; i++) {
        uint32_t axis = rank - 1 - i;
        if (given) MPQC_TRY(mpqc_imp_axis(n, given[i], rank, &axis));
        if (seen[axis]) return mpqc_imp_invalid(n, "perm names axis %u twice", axis);
        seen[axis] = true;
        perm[i] = axis;
    }
    return mpqc_imp_transpose(n, n->in[0], perm, &n->out[0]);
}

/* ---- concat, split ---------------------------------------------------------------- */

mpqc_status mpqc_on_concat(struct mpqc_imp_node *n)
{
    int64_t given;
    uint32_t axis;
    if (!mpqc_imp_attr(n, "axis")) return mpqc_imp_invalid(n, "axis is missing");
    MPQC_TRY(mpqc_imp_int(n, "axis", 0, &given));
    MPQC_TRY(mpqc_imp_axis(n, given, mpqc_imp_type(n, n->in[0])->rank, &axis));
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] == MPQC_NONE) return mpqc_imp_invalid(n, "input %u is missing", i);
    return mpqc_imp_concat(n, n->in, n->n_in, axis, &n->out[0]);
}

/* The part of each output: given, or equal, the last one smaller when opset 18's
 * num_outputs does not divide. */
static mpqc_status split_sizes(struct mpqc_imp_node *n, int64_t extent, uint32_t parts,
                               const int64_t **out)
{
    uint32_t count;
    MPQC_TRY(mpqc_imp_const_ints(n, 1, "split", &count, out));
    if (!*out) MPQC_TRY(mpqc_imp_ints(n, "split", &count, out));
    if (*out && count != parts)
        return mpqc_imp_invalid(n, "%u sizes for %u outputs", count, parts);
    if (*out) return MPQC_OK;
    int64_t num, left = extent, *sizes = MPQC_NEW_ARRAY(&n->im->scratch, int64_t, parts);
    if (!sizes) return MPQC_OOM(n->im->cx);
    MPQC_TRY(mpqc_imp_int(n, "num_outputs", parts, &num));
    if (num != (int64_t)parts)
        return mpqc_imp_invalid(n, "num_outputs is not the number of outputs");
    if (extent % num && !mpqc_imp_attr(n, "num_outputs"))
        return mpqc_imp_invalid(n, "%lld cannot be split into %u equal parts", (long long)extent,
                                parts);
    for (uint32_t i = 0; i < parts; i++) {
        int64_t part = (extent + num - 1) / num;
        sizes[i] = part < left ? part : left;
        left -= sizes[i];
    }
    *out = sizes;
    return MPQC_OK;
}

mpqc_status mpqc_on_split(struct mpqc_imp_node *n)
{
    int64_t given, at = 0, begin[MPQC_MAX_RANK] = {0}, step[MPQC_MAX_RANK];
    uint32_t axis, parts = (uint32_t)n->pb->n_output;
    const int64_t *sizes;
    struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    MPQC_TRY(mpqc_imp_int(n, "axis", 0, &given));
    MPQC_TRY(mpqc_imp_axis(n, given, t.rank, &axis));
    if (!parts) return mpqc_imp_invalid(n, "no outputs");
    MPQC_TRY(split_sizes(n, t.dims[axis], parts, &sizes));
    for (uint32_t i = 0; i < t.rank; i++) step[i] = 1;
    int64_t extent = t.dims[axis];
    for (uint32_t i = 0; i < parts; i++) {
        if (sizes[i] < 0 || sizes[i] > extent - at)
            return mpqc_imp_invalid(n, "part %u of %lld does not fit into %lld", i,
                                    (long long)sizes[i], (long long)extent);
        begin[axis] = at;
        t.dims[axis] = sizes[i];
        if (mpqc_imp_wants(n, i))
            MPQC_TRY(mpqc_imp_slice(n, n->in[0], begin, t.dims, step, &n->out[i]));
        at += sizes[i];
    }
    if (at != extent)
        return mpqc_imp_invalid(n, "the parts make %lld instead of %lld", (long long)at,
                                (long long)extent);
    return MPQC_OK;
}

/* ---- slice, gather ---------------------------------------------------------------- */

struct range {
    int64_t begin, count, step;
};

/* ONNX's rules: negative positions count from the end, then everything is clamped to
 * what the direction allows. */
static struct range clamp_range(int64_t start, int64_t end, int64_t step, int64_t extent)
{
    struct range r = {.step = step};
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? extent : extent - 1;
    if (start < 0) start += extent;
    if (end < 0) end += extent;
    if (start < 0) start = 0;
    start = start > high ? high : start;
    end = end < low ? low : end > high ? high : end;
    r.begin = start;
    if (step > 0 && end > start) r.count = (end - start - 1) / step + 1;
    if (step < 0 && end < start && step != INT64_MIN) r.count = (start - end - 1) / -step + 1;
    if (step == INT64_MIN && end < start) r.count = 1;
    if (r.count <= 1) r.step = 1; /* the step does not matter */
    if (r.count == 0) r.begin = 0;
    return r;
}

static mpqc_status slice_by(struct mpqc_imp_node *n, uint32_t count, const int64_t *starts,
                            const int64_t *ends, uint32_t n_axes, const int64_t *axes,
                            const int64_t *steps)
{
    struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    int64_t begin[MPQC_MAX_RANK] = {0}, step[MPQC_MAX_RANK];
    bool done[MPQC_MAX_RANK] = {false};
    for (uint32_t i = 0; i < t.rank; i++) step[i] = 1;
    if (count > t.rank || (axes && n_axes != count))
        return mpqc_imp_invalid(n, "%u ranges and %u axes for rank %u", count,
                                axes ? n_axes : count, t.rank);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t axis = i;
        if (axes) MPQC_TRY(mpqc_imp_axis(n, axes[i], t.rank, &axis));
        if (done[axis]) return mpqc_imp_invalid(n, "axis %u is given twice", axis);
        done[axis] = true;
        int64_t s = steps ? steps[i] : 1;
        if (s == 0) return mpqc_imp_invalid(n, "a step of 0");
        struct range r = clamp_range(starts[i], ends[i], s, t.dims[axis]);
        begin[axis] = r.begin;
        step[axis] = r.step;
        t.dims[axis] = r.count;
    }
    return mpqc_imp_slice(n, n->in[0], begin, t.dims, step, &n->out[0]);
}

mpqc_status mpqc_on_slice_attrs(struct mpqc_imp_node *n)
{
    uint32_t count, n_ends, n_axes;
    const int64_t *starts, *ends, *axes;
    MPQC_TRY(mpqc_imp_ints(n, "starts", &count, &starts));
    MPQC_TRY(mpqc_imp_ints(n, "ends", &n_ends, &ends));
    MPQC_TRY(mpqc_imp_ints(n, "axes", &n_axes, &axes));
    if (!starts || !ends || count != n_ends)
        return mpqc_imp_invalid(n, "starts and ends do not match");
    return slice_by(n, count, starts, ends, n_axes, axes, NULL);
}

mpqc_status mpqc_on_slice(struct mpqc_imp_node *n)
{
    uint32_t count, n_ends, n_axes, n_steps;
    const int64_t *starts, *ends, *axes, *steps;
    MPQC_TRY(mpqc_imp_const_ints(n, 1, "starts", &count, &starts));
    MPQC_TRY(mpqc_imp_const_ints(n, 2, "ends", &n_ends, &ends));
    MPQC_TRY(mpqc_imp_const_ints(n, 3, "axes", &n_axes, &axes));
    MPQC_TRY(mpqc_imp_const_ints(n, 4, "steps", &n_steps, &steps));
    if (count != n_ends || (steps && n_steps != count))
        return mpqc_imp_invalid(n, "%u starts, %u ends and %u steps", count, n_ends, n_steps);
    return slice_by(n, count, starts, ends, n_axes, axes, steps);
}

/* One constant index: a slice, whose axis goes when the index is a scalar. */
static mpqc_status gather_one(struct mpqc_imp_node *n, uint32_t axis, int64_t index,
                              const struct mpqc_type *indices)
{
    struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    int64_t begin[MPQC_MAX_RANK] = {0}, step[MPQC_MAX_RANK], dims[MPQC_MAX_RANK];
    uint32_t rank = 0;
    mpqc_vid x;
    begin[axis] = index;
    for (uint32_t i = 0; i < t.rank; i++) {
        step[i] = 1;
        for (uint32_t k = 0; i == axis && k < indices->rank; k++) dims[rank++] = 1;
        if (i != axis) dims[rank++] = t.dims[i];
    }
    t.dims[axis] = 1;
    MPQC_TRY(mpqc_imp_slice(n, n->in[0], begin, t.dims, step, &x));
    return mpqc_imp_reshape(n, x, rank, dims, &n->out[0]);
}

mpqc_status mpqc_on_gather(struct mpqc_imp_node *n)
{
    int64_t given;
    uint32_t axis, count;
    mpqc_vid in[2] = {n->in[0], n->in[1]};
    const struct mpqc_type t = *mpqc_imp_type(n, in[0]), indices = *mpqc_imp_type(n, in[1]);
    MPQC_TRY(mpqc_imp_int(n, "axis", 0, &given));
    MPQC_TRY(mpqc_imp_axis(n, given, t.rank, &axis));
    if (indices.dtype != MPQC_DT_I64 && indices.dtype != MPQC_DT_I32)
        return mpqc_imp_invalid(n, "indices of type %s", mpqc_dtypes[indices.dtype].text);
    if (mpqc_is_const(n->im->g, in[1]) && mpqc_type_count(&indices) == 1 &&
        t.rank - 1 + indices.rank <= MPQC_MAX_RANK) {
        const int64_t *index;
        MPQC_TRY(mpqc_imp_const_ints(n, 1, "indices", &count, &index));
        if (*index < -t.dims[axis] || *index >= t.dims[axis])
            return mpqc_imp_invalid(n, "index %lld is out of range for extent %lld",
                                    (long long)*index, (long long)t.dims[axis]);
        return gather_one(n, axis, *index < 0 ? *index + t.dims[axis] : *index, &indices);
    }
    struct mpqc_attrs a = {0};
    mpqc_attrs_int(&a, MPQC_ATTR_AXIS, axis);
    MPQC_TRY(mpqc_imp_cast(n, in[1], MPQC_DT_I64, &in[1]));
    return mpqc_imp_emit(n, MPQC_OP_GATHER, in, 2, &a, &n->out[0]);
}

/* ---- expand, tile, pad ------------------------------------------------------------ */

/* The shape is broadcast with the input's, both aligned at the end. */
mpqc_status mpqc_on_expand(struct mpqc_imp_node *n)
{
    uint32_t count;
    const int64_t *given;
    int64_t dims[MPQC_MAX_RANK];
    const struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    MPQC_TRY(mpqc_imp_const_ints(n, 1, "the shape", &count, &given));
    uint32_t rank = count > t.rank ? count : t.rank;
    if (rank > MPQC_MAX_RANK)
        return mpqc_imp_unsupported(n, "a shape of rank %u; at most %d is supported", rank,
                                    MPQC_MAX_RANK);
    for (uint32_t i = 0; i < rank; i++) {
        int64_t mine = i < rank - t.rank ? 1 : t.dims[i - (rank - t.rank)];
        int64_t want = i < rank - count ? 1 : given[i - (rank - count)];
        if (want != mine && want != 1 && mine != 1)
            return mpqc_imp_invalid(n, "extent %lld cannot become %lld", (long long)mine,
                                    (long long)want);
        dims[i] = want == 1 ? mine : want;
    }
    return mpqc_imp_expand(n, n->in[0], rank, dims, &n->out[0]);
}

/* Axis by axis: [before, 1, rest] is expanded to [before, repeat, rest]. */
mpqc_status mpqc_on_tile(struct mpqc_imp_node *n)
{
    uint32_t count;
    const int64_t *repeats;
    struct mpqc_type t = *mpqc_imp_type(n, n->in[0]);
    mpqc_vid x = n->in[0];
    MPQC_TRY(mpqc_imp_const_ints(n, 1, "repeats", &count, &repeats));
    if (count != t.rank) return mpqc_imp_invalid(n, "%u repeats for rank %u", count, t.rank);
    for (uint32_t i = 0; i < t.rank; i++) {
        int64_t before = 1, rest = 1, r = repeats[i];
        if (r == 1) continue;
        if (r < 0 || r > MPQC_IMP_MAX_ELEMENTS)
            return mpqc_imp_invalid(n, "%lld repeats", (long long)r);
        for (uint32_t k = 0; k < t.rank; k++) {
            if (k < i) before *= t.dims[k];
            else rest *= t.dims[k];
        }
        if (t.dims[i] && r > MPQC_IMP_MAX_ELEMENTS / t.dims[i])
            return mpqc_imp_invalid(n, "the result is too large");
        t.dims[i] *= r;
        MPQC_TRY(mpqc_imp_reshape(n, x, 3, (const int64_t[]){before, 1, rest}, &x));
        MPQC_TRY(mpqc_imp_expand(n, x, 3, (const int64_t[]){before, r, rest}, &x));
        MPQC_TRY(mpqc_imp_reshape(n, x, t.rank, t.dims, &x));
    }
    n->out[0] = x;
    return MPQC_OK;
}

/* The pads of every axis, befores then afters, from attribute or input, perhaps for
 * some axes only (opset 18). */
static mpqc_status read_pads(struct mpqc_imp_node *n, uint32_t rank, int64_t *pads)
{
    uint32_t count, n_axes;
    const int64_t *given, *axes;
    MPQC_TRY(mpqc_imp_const_ints(n, 1, "pads", &count, &given));
    if (!given) MPQC_TRY(mpqc_imp_ints(n, "pads", &count, &given));
    MPQC_TRY(mpqc_imp_const_ints(n, 3, "axes", &n_axes, &axes));
    if (!axes) n_axes = rank;
    if (!given || count != 2 * n_axes)
        return mpqc_imp_invalid(n, "%u pads for %u axes", count, n_axes);
    bool done[MPQC_MAX_RANK] = {false};
    for (uint32_t i = 0; i < n_axes; i++) {
        uint32_t axis = i;
        if (axes) MPQC_TRY(mpqc_imp_axis(n, axes[i], rank, &axis));
        if (done[axis]) return mpqc_imp_invalid(n, "axis %u is given twice", axis);
        done[axis] = true;
        pads[axis] = given[i];
        pads[rank + axis] = given[n_axes + i];
    }
    return MPQC_OK;
}

/* Negative pads cut first. */
static mpqc_status cut(struct mpqc_imp_node *n, mpqc_vid x, int64_t *pads, mpqc_vid *out)
{
    struct mpqc_type t = *mpqc_imp_type(n, x);
    int64_t begin[MPQC_MAX_RANK] = {0}, step[MPQC_MAX_RANK];
    for (uint32_t i = 0; i < t.rank; i++) {
        step[i] = 1;
        for (uint32_t side = 0; side < 2; side++) {
            int64_t *p = &pads[side * t.rank + i];
            if (*p >= 0) continue;
            if (*p < -t.dims[i]) return mpqc_imp_invalid(n, "pads cut more than there is");
            t.dims[i] += *p;
            if (!side) begin[i] = -*p;
            *p = 0;
        }
        if (!t.dims[i]) begin[i] = 0;
    }
    return mpqc_imp_slice(n, x, begin, t.dims, step, out);
}

mpqc_status mpqc_on_pad(struct mpqc_imp_node *n)
{
    const char *mode;
    int64_t pads[2 * MPQC_MAX_RANK] = {0};
    uint32_t rank = mpqc_imp_type(n, n->in[0])->rank;
    float fill;
    bool present;
    double number = 0;
    mpqc_vid x;
    MPQC_TRY(mpqc_imp_string(n, "mode", "constant", &mode));
    if (strcmp(mode, "constant") && strcmp(mode, "reflect") && strcmp(mode, "edge"))
        return mpqc_imp_unsupported(n, "mode '%.40s' is not supported", mode);
    MPQC_TRY(mpqc_imp_float(n, "value", 0, &fill));
    MPQC_TRY(mpqc_imp_const_number(n, 2, "the value", &present, &number));
    if (present) fill = (float)number;
    MPQC_TRY(read_pads(n, rank, pads));
    MPQC_TRY(cut(n, n->in[0], pads, &x));
    return mpqc_imp_pad(n, x, pads, pads + rank, mode, fill, &n->out[0]);
}

/* ---- depth and space -------------------------------------------------------------- */

static mpqc_status move_blocks(struct mpqc_imp_node *n, const char *mode)
{
    struct mpqc_attrs a = {0};
    int64_t block;
    mpqc_vid x;
    if (mpqc_imp_type(n, n->in[0])->rank != 4)
        return mpqc_imp_invalid(n, "an input of rank %u", mpqc_imp_type(n, n->in[0])->rank);
    MPQC_TRY(mpqc_imp_int(n, "blocksize", 0, &block));
    if (block < 1) return mpqc_imp_invalid(n, "blocksize %lld", (long long)block);
    mpqc_attrs_int(&a, MPQC_ATTR_BLOCK, block);
    if (mode) mpqc_attrs_string(&a, MPQC_ATTR_MODE, mode);
    MPQC_TRY(mpqc_imp_transpose(n, n->in[0], (const int64_t[]){0, 2, 3, 1}, &x));
    MPQC_TRY(mpqc_imp_emit(n, n->row->op, &x, 1, &a, &x));
    return mpqc_imp_transpose(n, x, (const int64_t[]){0, 3, 1, 2}, &n->out[0]);
}

mpqc_status mpqc_on_depth_to_space(struct mpqc_imp_node *n)
{
    const char *mode;
    MPQC_TRY(mpqc_imp_string(n, "mode", "DCR", &mode));
    if (strcmp(mode, "DCR") && strcmp(mode, "CRD"))
        return mpqc_imp_invalid(n, "mode '%.40s'", mode);
    return move_blocks(n, mode);
}

mpqc_status mpqc_on_space_to_depth(struct mpqc_imp_node *n)
{
    return move_blocks(n, NULL);
}
