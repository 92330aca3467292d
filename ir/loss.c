/* SPDX-License-Identifier: GPL-3.0-or-later
 * Losses as expressions.
 */
#include "ir/loss.h"

mpqc_vid mpqc_loss_logits(const struct mpqc_graph *g, mpqc_vid output, int64_t *axis)
{
    const struct mpqc_node *n = mpqc_def(g, output);
    while (n && (n->op == MPQC_OP_RESHAPE || n->op == MPQC_OP_LOG || n->op == MPQC_OP_COPY))
        n = mpqc_def(g, n->in[0]);
    if (n && (n->op == MPQC_OP_SOFTMAX || n->op == MPQC_OP_LOGSOFTMAX)) {
        *axis = mpqc_attr_int(n, MPQC_ATTR_AXIS);
        return n->in[0];
    }
    const struct mpqc_type *t = &g->values[output].type;
    *axis = t->rank > 0 ? t->rank - 1 : 0;
    for (uint32_t d = t->rank; d-- > 0;) { /* [1,10,1,1]: the classes are where the numbers are */
        if (t->dims[d] <= 1) continue;
        *axis = d;
        break;
    }
    return output;
}

/* f(logits) with the attribute axis. */
static mpqc_vid along_classes(struct mpqc_build *b, enum mpqc_op op, mpqc_vid output)
{
    struct mpqc_attrs a = {0};
    int64_t axis;
    if (b->status != MPQC_OK) return MPQC_NONE;
    mpqc_vid z = mpqc_loss_logits(b->g, output, &axis);
    mpqc_attrs_int(&a, MPQC_ATTR_AXIS, axis);
    return mpqc_build_op(b, op, &z, 1, &a);
}

mpqc_vid mpqc_loss_cross_entropy(struct mpqc_build *b, mpqc_vid output, mpqc_vid target)
{
    mpqc_vid fit = mpqc_build_2(b, MPQC_OP_DOT, target,
                                along_classes(b, MPQC_OP_LOGSOFTMAX, output));
    return mpqc_build_1(b, MPQC_OP_NEG, fit);
}

mpqc_vid mpqc_loss_kl(struct mpqc_build *b, mpqc_vid output, mpqc_vid reference)
{
    return mpqc_loss_cross_entropy(b, output, reference);
}

mpqc_vid mpqc_loss_squared_error(struct mpqc_build *b, mpqc_vid y, mpqc_vid target)
{
    mpqc_vid miss = mpqc_build_2(b, MPQC_OP_SUB, y, target);
    return mpqc_build_scale(b, mpqc_build_2(b, MPQC_OP_DOT, miss, miss), 0.5f);
}

mpqc_vid mpqc_loss(struct mpqc_build *b, enum mpqc_loss_kind kind, mpqc_vid output,
                   mpqc_vid target)
{
    switch (kind) {
    case MPQC_LOSS_CROSS_ENTROPY: return mpqc_loss_cross_entropy(b, output, target);
    case MPQC_LOSS_KL: return mpqc_loss_kl(b, output, target);
    case MPQC_LOSS_SQUARED_ERROR: break;
    }
    return mpqc_loss_squared_error(b, output, target);
}

struct mpqc_type mpqc_loss_target_type(const struct mpqc_graph *g, enum mpqc_loss_kind kind,
                                       mpqc_vid output)
{
    int64_t axis;
    if (kind == MPQC_LOSS_SQUARED_ERROR) return g->values[output].type;
    return g->values[mpqc_loss_logits(g, output, &axis)].type;
}

mpqc_vid mpqc_loss_own_target(struct mpqc_build *b, enum mpqc_loss_kind kind, mpqc_vid output)
{
    return kind == MPQC_LOSS_SQUARED_ERROR ? output : along_classes(b, MPQC_OP_SOFTMAX, output);
}
