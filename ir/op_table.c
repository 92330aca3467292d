/* SPDX-License-Identifier: GPL-3.0-or-later
 * The operator table: ops.def as an array.
 */
#include "ir/op.h"

const struct mpqc_op_info mpqc_ops[MPQC_OP_COUNT] = {
#define OP(name, text_, in_min_, in_max_, n_out_, traits_, infer_, ref_, macs_, vjp_, attrs_,     \
           doc_)                                                                                  \
    [MPQC_OP_##name] = {                                                                          \
        .text = text_,                                                                            \
        .in_min = in_min_,                                                                        \
        .in_max = in_max_,                                                                        \
        .n_out = n_out_,                                                                          \
        .traits = traits_,                                                                        \
        .infer = mpqc_##infer_,                                                                   \
        .ref = mpqc_##ref_,                                                                       \
        .macs = mpqc_##macs_,                                                                     \
        .vjp = mpqc_##vjp_,                                                                       \
        .attrs = attrs_,                                                                          \
        .doc = doc_,                                                                              \
    },
#include "ir/ops.def"
#undef OP
};

_Static_assert(MPQC_ATTR_COUNT <= 64, "attribute sets are 64 bits");

uint64_t mpqc_no_macs(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    (void)g;
    (void)n;
    return 0;
}
