/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The epilogue, part 1: what the chain behind a core does, and its constants.
 */
#include "codegen/epilogue.h"

#include "codegen/module.h"

#include <string.h>

unsigned mpqc_columns_lanes(const struct mpqc_columns *c)
{
    unsigned n = 0;
    for (unsigned v = 0; v < c->n; v++) n += c->lanes[v];
    return n;
}

unsigned mpqc_epilogue_chunk(const struct mpqc_columns *c, unsigned v)
{
    unsigned same = 1;
    while (v + same < c->n && c->lanes[v + same] == c->lanes[v]) same++;
    if (c->wide_tail && same < 4 && v + same + 1 == c->n) return same + 1;
    return same >= 4 ? 4 : same >= 2 ? 2 : 1;
}

bool mpqc_epilogue_ordered(const struct mpqc_columns *c, unsigned first, unsigned nv)
{
    return c->interleaved && nv == 4 && c->lanes[first + 3] == c->lanes[first];
}

bool mpqc_epilogue_windows(const struct mpqc_columns *c, unsigned first, unsigned nv)
{
    bool all = c->windows && nv != 3;
    for (unsigned v = first; v < first + nv; v++) all &= c->lanes[v] == MPQC_MAX_LANES;
    return all;
}

struct mpqc_word mpqc_epilogue_word(bool windows, unsigned p, unsigned i)
{
    unsigned part = i / 8 * 4, w = i % 8;
    if (windows) return (struct mpqc_word){2 * p + w / 2 % 2, part + w / 4 * 2 + w % 2};
    return (struct mpqc_word){2 * p + w / 4, part + w % 4};
}

unsigned mpqc_epilogue_word_channel(unsigned p, unsigned i)
{
    return i / 8 * 16 + 8 * p + i % 8;
}

unsigned mpqc_columns_channel(const struct mpqc_columns *c, unsigned lane)
{
    unsigned v = 0, nv = mpqc_epilogue_chunk(c, 0), first = 0;
    while (v + nv < c->n && lane >= first + nv * c->lanes[v]) { /* which chunk? */
        first += nv * c->lanes[v];
        v += nv;
        nv = mpqc_epilogue_chunk(c, v);
    }
    if (!mpqc_epilogue_ordered(c, v, nv)) return lane;
    unsigned vector = (lane - first) / c->lanes[v], l = (lane - first) % c->lanes[v];
    /* Which of the eight words of its part does it become? */
    bool windows = mpqc_epilogue_windows(c, v, nv);
    for (unsigned i = l / 4 * 8; i < l / 4 * 8 + 8; i++) {
        struct mpqc_word w = mpqc_epilogue_word(windows, vector / 2, i);
        if (w.vector == vector && w.lane == l)
            return first + mpqc_epilogue_word_channel(vector / 2, i);
    }
    MPQC_ASSERT(!"every sum becomes a word");
    return lane;
}

/* ---- order of parameters ------------------------------------------------------- */

/* Channel of each slot of the 32-bit arrays (bias, shift) and of the 16-bit one. */
struct orders {
    int64_t slots, copies; /* copies: entries of a slot, 2 in paired columns */
    int64_t period; /* channels of the output: parameters of channel c are those of c % period */
    int64_t *of32, *of16;
    bool *even; /* slots of even lanes of vectors that window16 shifts */
};

/* A pair's 32-bit and 16-bit vectors are in the same order. */
static void order_paired(struct orders *o, int64_t s, int64_t n)
{
    for (int64_t i = 0; i < 2 * n; i++)
        o->of32[2 * s + i] = o->of16[2 * s + i] = s + i / 4 * 2 + i % 2;
}

/* The chunk of nv vectors from vector `first` on, whose slots start at s. */
static void order_chunk(struct orders *o, int64_t s, const struct mpqc_columns *c, unsigned first,
                        unsigned nv)
{
    unsigned L = c->lanes[first], own = c->shared ? nv * L / c->shared : nv * L;
    bool windows = mpqc_epilogue_windows(c, first, nv);
    bool ordered = mpqc_epilogue_ordered(c, first, nv);
    for (unsigned l = 0; windows && l < nv * L; l += 2) o->even[s + l] = true;
    if (nv == 1) return;
    for (unsigned p = 0; p < (nv + 1) / 2; p++) {
        for (unsigned i = 0; i < 2 * L; i++) {
            struct mpqc_word w = mpqc_epilogue_word(windows, p, i);
            int64_t at = L * w.vector + w.lane;
            if (w.vector >= nv || w.lane >= c->lanes[first + w.vector]) continue;
            int64_t channel = s + (ordered ? mpqc_epilogue_word_channel(p, i) : at) % own;
            o->of32[s + at] = channel;
            o->of16[s + 2 * L * p + i] = channel;
        }
    }
}

static bool make_orders(struct mpqc_emit_cx *e, const struct mpqc_type *y,
                        const struct mpqc_column_use *use, uint32_t n_use, int64_t channels,
                        struct orders *o)
{
    o->slots = channels;
    int64_t own = y->rank > 0 ? y->dims[y->rank - 1] : channels;
    o->period = channels % own == 0 ? own : channels;
    for (uint32_t u = 0; u < n_use; u++) {
        const struct mpqc_columns *c = &use[u].columns;
        int64_t end = use[u].first + use[u].step * (use[u].count - 1) + mpqc_columns_lanes(c);
        if (c->wide_tail) end += 4 * c->lanes[0]; /* of 16-bit vectors, which are whole */
        if (use[u].count > 0 && end > o->slots) o->slots = end;
    }
    o->copies = n_use > 0 && use[0].columns.paired ? 2 : 1;
    o->of32 = MPQC_NEW_ARRAY(&e->scratch, int64_t, (size_t)(o->slots * o->copies));
    o->of16 = MPQC_NEW_ARRAY(&e->scratch, int64_t, (size_t)(o->slots * o->copies));
    o->even = MPQC_NEW_ARRAY(&e->scratch, bool, (size_t)o->slots);
    if (!o->of32 || !o->of16 || !o->even) return false;
    for (int64_t s = 0; s < o->slots * o->copies; s++) o->of32[s] = o->of16[s] = s / o->copies;
    for (uint32_t u = 0; u < n_use; u++) {
        const struct mpqc_columns *c = &use[u].columns;
        for (int64_t i = 0; i < use[u].count; i++) {
            int64_t s = use[u].first + use[u].step * i;
            if (c->paired) {
                order_paired(o, s, mpqc_columns_lanes(c));
                continue;
            }
            for (unsigned v = 0, nv; v < c->n; v += nv, s += nv * c->lanes[v - 1]) {
                nv = mpqc_epilogue_chunk(c, v);
                order_chunk(o, s, c, v, nv);
            }
        }
    }
    return true;
}

/* ---- reading the chain ------------------------------------------------------------ */

static int32_t zero_of(const struct mpqc_graph *g, mpqc_vid v)
{
    const struct mpqc_quant *q = mpqc_value_at(g, v)->type.quant;
    return q ? q->zero[0] : 0;
}

static bool is_signed(const struct mpqc_graph *g, mpqc_vid v)
{
    return mpqc_dtypes[mpqc_value_at(g, v)->type.dtype].kind == MPQC_KIND_SINT;
}

static mpqc_status read_narrow(struct mpqc_emit_cx *e, const struct mpqc_node *n,
                               struct mpqc_epilogue *ep)
{
    ep->frac = (int)mpqc_attr_int_or(n, MPQC_ATTR_FRAC, 0);
    ep->zero = (int32_t)mpqc_attr_int_or(n, MPQC_ATTR_ZERO, 0);
    enum mpqc_dtype t = mpqc_value_at(e->graph, n->out[0])->type.dtype;
    ep->lo = (int32_t)mpqc_attr_int_or(n, MPQC_ATTR_LO, mpqc_dtypes[t].min);
    ep->hi = (int32_t)mpqc_attr_int_or(n, MPQC_ATTR_HI, mpqc_dtypes[t].max);
    if (t == MPQC_DT_I16 && ep->zero == 0) {
        ep->clamp = true;
        return MPQC_OK;
    }
    if (mpqc_dtypes[t].bytes != 1)
        return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(n),
                         "no code generator narrows to '%s'", mpqc_dtypes[t].text);
    ep->narrow = true;
    if (is_signed(e->graph, n->out[0])) {
        ep->flip = true;
        ep->zero += 128;
        ep->lo += 128;
        ep->hi += 128;
    }
    MPQC_ASSERT(ep->frac >= 0 && ep->frac < 15 && ep->lo >= 0 && ep->hi <= 255);
    return MPQC_OK;
}

static mpqc_status read_chain(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                              struct mpqc_epilogue *ep, const struct mpqc_node **requant,
                              const struct mpqc_node **lut)
{
    for (uint32_t i = 0; i < k->n_nodes; i++) {
        const struct mpqc_node *n = mpqc_node_at(e->graph, k->nodes[i]);
        if (k->nodes[i] == k->core) continue;
        switch (n->op) {
        case MPQC_OP_REQUANT: *requant = n; break;
        case MPQC_OP_RESCALE:
            ep->residual = n->in[0];
            ep->residual_zero = zero_of(e->graph, n->in[0]);
            ep->residual_signed = is_signed(e->graph, n->in[0]);
            ep->residual_wide = mpqc_value_at(e->graph, n->in[0])->type.dtype == MPQC_DT_I16;
            ep->residual_mult = (int32_t)mpqc_attr_int(n, MPQC_ATTR_MULT);
            break;
        case MPQC_OP_ADD: break;
        case MPQC_OP_NARROW: MPQC_TRY(read_narrow(e, n, ep)); break;
        case MPQC_OP_LUT: *lut = n; break;
        default:
            return MPQC_FAIL(e->cx, BUG, mpqc_node_where(n), "'%s' cannot follow a linear operator",
                             mpqc_ops[n->op].text);
        }
    }
    if (!*requant)
        return MPQC_FAIL(e->cx, BUG, mpqc_node_where(mpqc_node_at(e->graph, k->core)),
                         "a linear kernel has no requant");
    return MPQC_OK;
}

/* Uniform, per channel or per position; a per-channel array of equal numbers is
 * uniform. */
static enum mpqc_param param_kind(const struct mpqc_graph *g, mpqc_vid v, int32_t *uniform)
{
    const struct mpqc_value *value = mpqc_value_at(g, v);
    const int32_t *data = value->data;
    int64_t n = mpqc_type_count(&value->type);
    MPQC_ASSERT(data && n > 0);
    *uniform = data[0];
    for (int64_t i = 1; i < n; i++)
        if (data[i] != data[0])
            return value->type.rank == 3 ? MPQC_PARAM_POSITION : MPQC_PARAM_CHANNEL;
    return MPQC_PARAM_UNIFORM;
}

/* ---- operands ------------------------------------------------------------------------ */

static uint32_t add_operand(struct mpqc_kernel_code *code, mpqc_vid value, LLVMValueRef global)
{
    MPQC_ASSERT(code->n_operands < MPQC_MAX_OPERANDS);
    code->operand[code->n_operands] = (struct mpqc_operand){value, global};
    return code->n_operands++;
}

static uint32_t add_i32(struct mpqc_emit_cx *e, struct mpqc_kernel_code *code, const char *name,
                        const int32_t *data, int64_t n)
{
    return add_operand(code, MPQC_NONE,
                       mpqc_global_bytes(e, name, data, (size_t)n * sizeof *data, 64));
}

static int32_t half(int32_t shift)
{
    return shift > 0 ? (int32_t)1 << (shift - 1) : 0;
}

/* bias[slot] = the core's constant + half(shift), of the slot's channel. The sum wraps
 * like the accumulator does; what counts is that the final value fits. */
static mpqc_status add_bias(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                            const struct orders *o, const int32_t *extra, int64_t channels,
                            const int32_t *shift, struct mpqc_kernel_code *code)
{
    int64_t entries = o->slots * o->copies;
    int32_t *v = MPQC_NEW_ARRAY(&e->scratch, int32_t, (size_t)entries);
    if (!v) return MPQC_OOM(e->cx);
    for (int64_t s = 0; s < entries; s++) {
        int64_t c = o->of32[s];
        if (c >= channels) continue;
        uint32_t h = 0;
        if (ep->shift_kind == MPQC_PARAM_UNIFORM) h = (uint32_t)half(ep->shift);
        if (ep->shift_kind == MPQC_PARAM_CHANNEL) h = (uint32_t)half(shift[c % o->period]);
        v[s] = (int32_t)((extra ? (uint32_t)extra[c] : 0) + h);
    }
    ep->bias_op = add_i32(e, code, "bias", v, entries);
    return MPQC_OK;
}

static mpqc_status add_shift(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                             const struct orders *o, const struct mpqc_value *shift,
                             int64_t channels, struct mpqc_kernel_code *code)
{
    const int32_t *from = shift->data;
    if (ep->shift_kind == MPQC_PARAM_UNIFORM) return MPQC_OK;
    if (ep->shift_kind == MPQC_PARAM_POSITION) {
        ep->shift_op = add_i32(e, code, "shift", from, mpqc_type_count(&shift->type));
        return MPQC_OK;
    }
    int64_t entries = o->slots * o->copies;
    int32_t *v = MPQC_NEW_ARRAY(&e->scratch, int32_t, (size_t)entries);
    if (!v) return MPQC_OOM(e->cx);
    for (int64_t s = 0; s < entries; s++)
        if (o->of32[s] < channels) v[s] = from[o->of32[s] % o->period];
    for (int64_t s = 0; s < entries && e->target->isa->upper16; s++) v[s] = 16 - v[s];
    for (int64_t s = 0; s < o->slots; s++)
        if (o->even[s]) v[s] = v[s + 1] = e->target->isa->window_at(v[s], v[s + 1]);
    ep->shift_op = add_i32(e, code, "shift", v, entries);
    return MPQC_OK;
}

static mpqc_status add_mult(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                            const struct orders *o, const struct mpqc_value *mult,
                            int64_t channels, struct mpqc_kernel_code *code)
{
    const int32_t *from = mult->data;
    if (ep->mult_kind == MPQC_PARAM_UNIFORM) return MPQC_OK;
    if (ep->mult_kind == MPQC_PARAM_POSITION) {
        ep->mult_op = add_i32(e, code, "mult", from, mpqc_type_count(&mult->type));
        return MPQC_OK;
    }
    int64_t entries = o->slots * o->copies;
    int16_t *v = MPQC_NEW_ARRAY(&e->scratch, int16_t, (size_t)entries);
    if (!v) return MPQC_OOM(e->cx);
    for (int64_t s = 0; s < entries; s++)
        v[s] = o->of16[s] < channels ? (int16_t)from[o->of16[s] % o->period] : 0;
    ep->mult_op = add_operand(code, MPQC_NONE,
                              mpqc_global_bytes(e, "mult", v, (size_t)entries * sizeof *v, 64));
    return MPQC_OK;
}

static mpqc_status add_table(struct mpqc_emit_cx *e, struct mpqc_epilogue *ep,
                             const struct mpqc_node *lut, struct mpqc_kernel_code *code)
{
    if (!lut) return MPQC_OK;
    const struct mpqc_value *t = mpqc_value_at(e->graph, lut->in[1]);
    if (mpqc_dtypes[t->type.dtype].bytes != 1 || mpqc_type_count(&t->type) != 256 || !ep->narrow)
        return MPQC_FAIL(e->cx, UNSUPPORTED, mpqc_node_where(lut),
                         "a fused table must have 256 entries of 8 bits");
    ep->lut = true;
    ep->table_op = add_operand(code, MPQC_NONE, mpqc_global_bytes(e, "table", t->data, 256, 64));
    return MPQC_OK;
}

static void add_key(const struct mpqc_epilogue *ep, struct mpqc_buf *key)
{
    mpqc_buf_printf(key, "|requant s%d:%d m%d:%d", (int)ep->shift_kind,
                    ep->shift_kind == MPQC_PARAM_UNIFORM ? ep->shift : 0, (int)ep->mult_kind,
                    ep->mult_kind == MPQC_PARAM_UNIFORM ? ep->mult : 0);
    if (ep->residual != MPQC_NONE)
        mpqc_buf_printf(key, "|add %d:%d:%d", ep->residual_zero, ep->residual_mult,
                        (int)ep->residual_signed + 2 * (int)ep->residual_wide);
    if (ep->clamp) mpqc_buf_printf(key, "|clamp %d:%d:%d", ep->frac, ep->lo, ep->hi);
    if (ep->narrow)
        mpqc_buf_printf(key, "|narrow %d:%d:%d:%d:%d", ep->frac, ep->zero, ep->lo, ep->hi,
                        (int)ep->flip);
    if (ep->lut) mpqc_buf_puts(key, "|lut");
}

mpqc_status mpqc_epilogue_make(struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                               const int32_t *extra_bias, int64_t channels,
                               const struct mpqc_column_use *use, uint32_t n_use,
                               struct mpqc_kernel_code *code, struct mpqc_buf *key,
                               struct mpqc_epilogue **out)
{
    const struct mpqc_node *requant = NULL, *lut = NULL;
    struct orders o;
    struct mpqc_epilogue *ep = MPQC_NEW(&e->scratch, struct mpqc_epilogue);
    const struct mpqc_type *y = &mpqc_value_at(e->graph, k->out)->type;
    if (!ep || !make_orders(e, y, use, n_use, channels, &o)) return MPQC_OOM(e->cx);
    ep->residual = MPQC_NONE;
    ep->bias_op = ep->shift_op = ep->mult_op = MPQC_NO_OPERAND;
    ep->residual_op = ep->table_op = MPQC_NO_OPERAND;
    MPQC_TRY(read_chain(e, k, ep, &requant, &lut));
    const struct mpqc_value *shift = mpqc_value_at(e->graph, requant->in[1]);
    const struct mpqc_value *mult = mpqc_value_at(e->graph, requant->in[2]);
    ep->shift_kind = param_kind(e->graph, requant->in[1], &ep->shift);
    ep->mult_kind = param_kind(e->graph, requant->in[2], &ep->mult);
    ep->out_op = add_operand(code, k->out, NULL);
    MPQC_TRY(add_bias(e, ep, &o, extra_bias, channels, shift->data, code));
    MPQC_TRY(add_shift(e, ep, &o, shift, channels, code));
    MPQC_TRY(add_mult(e, ep, &o, mult, channels, code));
    if (ep->residual != MPQC_NONE) ep->residual_op = add_operand(code, ep->residual, NULL);
    MPQC_TRY(add_table(e, ep, lut, code));
    add_key(ep, key);
    *out = ep;
    return MPQC_OK;
}

bool mpqc_epilogue_fits(const struct mpqc_emit_cx *e, const struct mpqc_kernel *k,
                        const int64_t *least, const int64_t *most, int64_t channels)
{
    const struct mpqc_node *n = NULL;
    for (uint32_t i = 0; i < k->n_nodes && (!n || n->op != MPQC_OP_REQUANT); i++)
        n = mpqc_node_at(e->graph, k->nodes[i]);
    if (!n || n->op != MPQC_OP_REQUANT) return false;
    const struct mpqc_value *shift = mpqc_value_at(e->graph, n->in[1]);
    int64_t all = mpqc_type_count(&shift->type);
    if (shift->type.rank == 3) return false;
    for (int64_t c = 0; c < channels; c++) {
        int32_t s = ((const int32_t *)shift->data)[c % all];
        int64_t end = (int64_t)1 << (15 + s);
        if (s > 16 || least[c] + half(s) < -end || most[c] + half(s) >= end) return false;
    }
    return true;
}

bool mpqc_epilogue_by_position(const struct mpqc_epilogue *ep)
{
    return ep->shift_kind == MPQC_PARAM_POSITION || ep->mult_kind == MPQC_PARAM_POSITION;
}

mpqc_vid mpqc_epilogue_residual(const struct mpqc_epilogue *ep)
{
    return ep->residual;
}

LLVMValueRef mpqc_epilogue_out(const struct mpqc_epilogue *ep)
{
    return ep->out;
}
