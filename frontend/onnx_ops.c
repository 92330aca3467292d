/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The expansion of onnx_ops.def, and the importer of rows that are one IR operator.
 */
#include "frontend/ops.h"

#define ANY MPQC_OPSET_ANY
#define ROW(name_, since_, until_, in_min_, in_max_, out_max_, types_, importer, op_, attrs_, say) \
    {.name = #name_,                                                                              \
     .since = since_,                                                                             \
     .until = until_,                                                                             \
     .in_min = in_min_,                                                                           \
     .in_max = in_max_,                                                                           \
     .out_max = out_max_,                                                                         \
     .types = MPQC_IMP_##types_,                                                                  \
     .fn = mpqc_on_##importer,                                                                    \
     .op = MPQC_OP_##op_,                                                                         \
     .attrs = attrs_,                                                                             \
     .remarks = say},
static const struct mpqc_imp_row rows[] = {
#include "frontend/onnx_ops.def"
};
#undef ROW
#undef ANY

/* About 110 rows, compared once per node: a linear search is not noticed. */
const struct mpqc_imp_row *mpqc_imp_row_find(const char *name, int64_t opset,
                                             const struct mpqc_imp_row **other)
{
    *other = NULL;
    for (size_t i = 0; i < MPQC_LEN(rows); i++) {
        if (strcmp(rows[i].name, name)) continue;
        if (opset >= rows[i].since && opset <= rows[i].until) return &rows[i];
        *other = &rows[i];
    }
    return NULL;
}

void mpqc_list_onnx_ops(struct mpqc_buf *to)
{
    mpqc_buf_printf(to, "%-20s %-8s %s\n", "operator", "opset", "remarks");
    for (size_t i = 0; i < MPQC_LEN(rows); i++) {
        char range[24];
        const struct mpqc_imp_row *r = &rows[i];
        int since = r->since < MPQC_OPSET_MIN ? MPQC_OPSET_MIN : r->since;
        int until = r->until == MPQC_OPSET_ANY ? MPQC_OPSET_MAX : r->until;
        snprintf(range, sizeof(range), "%d-%d", since, until);
        mpqc_buf_printf(to, r->remarks[0] ? "%-20s %-8s %s\n" : "%-20s %s\n", r->name, range,
                        r->remarks);
    }
}

mpqc_status mpqc_on_direct(struct mpqc_imp_node *n)
{
    return mpqc_imp_emit(n, n->row->op, n->in, n->n_in, NULL, &n->out[0]);
}
