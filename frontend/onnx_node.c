/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Reading an ONNX node's attributes and constant inputs.
 */
#include "frontend/onnx_import.h"

#include <math.h>

/* ---- attributes ------------------------------------------------------------------- */

const Onnx__AttributeProto *mpqc_imp_attr(const struct mpqc_imp_node *n, const char *name)
{
    for (size_t i = 0; i < n->pb->n_attribute; i++)
        if (n->pb->attribute[i]->name && !strcmp(n->pb->attribute[i]->name, name))
            return n->pb->attribute[i];
    return NULL;
}

/* The attribute when it is there and of the wanted type.  IR version 1 had no type
 * field; absent then means: whatever is there. */
static mpqc_status typed_attr(struct mpqc_imp_node *n, const char *name,
                              Onnx__AttributeProto__AttributeType type,
                              const Onnx__AttributeProto **out)
{
    const Onnx__AttributeProto *a = mpqc_imp_attr(n, name);
    *out = a;
    if (a && a->has_type && a->type != type)
        return mpqc_imp_invalid(n, "attribute '%s' has the wrong type (%d instead of %d)", name,
                                (int)a->type, (int)type);
    return MPQC_OK;
}

mpqc_status mpqc_imp_int(struct mpqc_imp_node *n, const char *name, int64_t otherwise, int64_t *out)
{
    const Onnx__AttributeProto *a;
    MPQC_TRY(typed_attr(n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT, &a));
    *out = a ? a->i : otherwise;
    return MPQC_OK;
}

mpqc_status mpqc_imp_float(struct mpqc_imp_node *n, const char *name, float otherwise, float *out)
{
    const Onnx__AttributeProto *a;
    MPQC_TRY(typed_attr(n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT, &a));
    *out = a ? a->f : otherwise;
    if (isnan(*out)) return mpqc_imp_invalid(n, "attribute '%s' is not a number", name);
    return MPQC_OK;
}

mpqc_status mpqc_imp_ints(struct mpqc_imp_node *n, const char *name, uint32_t *count,
                          const int64_t **out)
{
    static const int64_t nothing;
    const Onnx__AttributeProto *a;
    MPQC_TRY(typed_attr(n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS, &a));
    *count = a ? (uint32_t)a->n_ints : 0;
    *out = a ? a->n_ints ? a->ints : &nothing : NULL;
    return MPQC_OK;
}

mpqc_status mpqc_imp_string(struct mpqc_imp_node *n, const char *name, const char *otherwise,
                            const char **out)
{
    const Onnx__AttributeProto *a;
    MPQC_TRY(typed_attr(n, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING, &a));
    *out = otherwise;
    if (!a) return MPQC_OK;
    char *s = mpqc_arena_alloc(&n->im->scratch, a->s.len + 1); /* zeroed */
    if (!s) return MPQC_OOM(n->im->cx);
    if (a->s.len) memcpy(s, a->s.data, a->s.len);
    *out = s;
    return MPQC_OK;
}

/* ---- constant inputs -------------------------------------------------------------- */

static bool element_as_int(const struct mpqc_value *v, int64_t i, int64_t *out)
{
    switch (v->type.dtype) {
    case MPQC_DT_I64: *out = ((const int64_t *)v->data)[i]; return true;
    case MPQC_DT_I32: *out = ((const int32_t *)v->data)[i]; return true;
    case MPQC_DT_I16: *out = ((const int16_t *)v->data)[i]; return true;
    case MPQC_DT_U16: *out = ((const uint16_t *)v->data)[i]; return true;
    case MPQC_DT_I8: *out = ((const int8_t *)v->data)[i]; return true;
    case MPQC_DT_BOOL:
    case MPQC_DT_U8: *out = ((const uint8_t *)v->data)[i]; return true;
    default: return false;
    }
}

/* Lists that describe shapes are short; this bounds what a hostile file can ask for. */
#define MAX_LIST 65536

mpqc_status mpqc_imp_const_ints(struct mpqc_imp_node *n, uint32_t i, const char *what,
                                uint32_t *count, const int64_t **out)
{
    mpqc_vid vid = mpqc_imp_in(n, i);
    *count = 0;
    *out = NULL;
    if (vid == MPQC_NONE) return MPQC_OK;
    if (!mpqc_is_const(n->im->g, vid))
        return mpqc_imp_unsupported(n, "%s (input %u) is computed while the network runs; only "
                                       "constants are supported", what, i);
    const struct mpqc_value *v = mpqc_value_at(n->im->g, vid);
    int64_t size = mpqc_type_count(&v->type);
    if (size > MAX_LIST) return mpqc_imp_invalid(n, "%s has %lld elements", what, (long long)size);
    int64_t *list = MPQC_NEW_ARRAY(&n->im->scratch, int64_t, (size_t)size);
    if (!list) return MPQC_OOM(n->im->cx);
    for (int64_t k = 0; k < size; k++)
        if (!element_as_int(v, k, &list[k]))
            return mpqc_imp_invalid(n, "%s (input %u) is %s, not integer", what, i,
                                    mpqc_dtypes[v->type.dtype].text);
    *count = (uint32_t)size;
    *out = list;
    return MPQC_OK;
}

mpqc_status mpqc_imp_const_number(struct mpqc_imp_node *n, uint32_t i, const char *what,
                                  bool *present, double *out)
{
    mpqc_vid vid = mpqc_imp_in(n, i);
    *present = vid != MPQC_NONE;
    if (!*present) return MPQC_OK;
    if (!mpqc_is_const(n->im->g, vid))
        return mpqc_imp_unsupported(n, "%s (input %u) is computed while the network runs; only "
                                       "constants are supported", what, i);
    const struct mpqc_value *v = mpqc_value_at(n->im->g, vid);
    if (mpqc_type_count(&v->type) != 1)
        return mpqc_imp_invalid(n, "%s (input %u) must be one number", what, i);
    int64_t integer;
    if (v->type.dtype == MPQC_DT_F32) *out = *(const float *)v->data;
    else if (element_as_int(v, 0, &integer)) *out = (double)integer;
    else return mpqc_imp_invalid(n, "%s (input %u) is not a number", what, i);
    if (isnan(*out)) return mpqc_imp_invalid(n, "%s (input %u) is NaN", what, i);
    return MPQC_OK;
}

/* ---- axes ------------------------------------------------------------------------- */

mpqc_status mpqc_imp_axis(struct mpqc_imp_node *n, int64_t axis, uint32_t rank, uint32_t *out)
{
    if (axis < -(int64_t)rank || axis >= (int64_t)rank)
        return mpqc_imp_invalid(n, "axis %lld is out of range for rank %u", (long long)axis, rank);
    *out = (uint32_t)(axis < 0 ? axis + rank : axis);
    return MPQC_OK;
}

mpqc_status mpqc_imp_axes(struct mpqc_imp_node *n, const int64_t *axes, uint32_t count,
                          uint32_t rank, uint32_t *n_out, int64_t *out)
{
    bool chosen[MPQC_MAX_RANK] = {false};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t axis = 0;
        MPQC_TRY(mpqc_imp_axis(n, axes[i], rank, &axis));
        if (chosen[axis]) return mpqc_imp_invalid(n, "axis %u is given twice", axis);
        chosen[axis] = true;
    }
    *n_out = 0;
    for (uint32_t i = 0; i < rank; i++)
        if (chosen[i]) out[(*n_out)++] = i;
    return MPQC_OK;
}

mpqc_status mpqc_imp_axes_either(struct mpqc_imp_node *n, uint32_t input, uint32_t *count,
                                 const int64_t **out)
{
    MPQC_TRY(mpqc_imp_const_ints(n, input, "axes", count, out));
    if (*out) return MPQC_OK;
    return mpqc_imp_ints(n, "axes", count, out);
}
