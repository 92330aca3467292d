/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * -emit=header: the facts of one model as C macros, for applications that link the
 * model and want static buffers.
 */
#include "codegen/module.h"

#include <string.h>

static bool identifier_rest(const char *s)
{
    for (; *s; s++) {
        bool letter = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || *s == '_';
        if (!letter && !(*s >= '0' && *s <= '9')) return false;
    }
    return true;
}

mpqc_status mpqc_model_symbol(struct mpqc_cx *cx, const char *tag, char *out, size_t cap)
{
    if (!tag || !*tag) {
        snprintf(out, cap, "mpqc_model");
        return MPQC_OK;
    }
    if (!identifier_rest(tag) || strlen(tag) > 128)
        return MPQC_FAIL(cx, USAGE, MPQC_NOWHERE,
                         "-tag=%s: a tag has letters, digits and underscores only (at most 128), "
                         "because it becomes part of a C name",
                         tag);
    snprintf(out, cap, "mpqc_model_%s", tag);
    return MPQC_OK;
}

/* "MPQC_MODEL" or "MPQC_MODEL_TAG" in capitals, the prefix of all macros. */
static void upper(const char *symbol, char *out, size_t cap)
{
    size_t i = 0;
    for (; symbol[i] && i + 1 < cap; i++)
        out[i] = symbol[i] >= 'a' && symbol[i] <= 'z' ? (char)(symbol[i] - 'a' + 'A') : symbol[i];
    out[i] = '\0';
}

static const char *c_type(enum mpqc_element e)
{
    switch (e) {
    case MPQC_ELEM_F32: return "float";
    case MPQC_ELEM_U8: return "uint8_t";
    case MPQC_ELEM_I8: return "int8_t";
    case MPQC_ELEM_I16: return "int16_t";
    case MPQC_ELEM_I32: return "int32_t";
    case MPQC_ELEM_I64: return "int64_t";
    }
    return "void";
}

/* A name inside a comment must not end it. */
static void add_comment_text(struct mpqc_buf *to, const char *s)
{
    for (; *s; s++) {
        bool plain = *s >= ' ' && *s != '*' && *s != '\\' && *s != 127;
        mpqc_buf_add(to, plain ? s : "?", 1);
    }
}

static void add_io(struct mpqc_buf *to, const struct mpqc_graph *g, const char *prefix,
                   const char *kind, uint32_t i, mpqc_vid v)
{
    const struct mpqc_value *value = mpqc_value_at(g, v);
    const struct mpqc_type *t = &value->type;
    const char *type = c_type(mpqc_element_of(t->dtype));
    mpqc_buf_printf(to, "\n/* %s %u: ", kind, i);
    add_comment_text(to, value->name ? value->name : "");
    mpqc_buf_puts(to, " */\n");
    mpqc_buf_printf(to, "#define %s_%s%u_TYPE %s\n", prefix, kind, i, type);
    mpqc_buf_printf(to, "#define %s_%s%u_COUNT %lld\n", prefix, kind, i,
                    (long long)mpqc_type_count(t));
    mpqc_buf_printf(to, "#define %s_%s%u_BYTES %zu\n", prefix, kind, i, mpqc_type_bytes(t));
    mpqc_buf_printf(to, "#define %s_%s%u_RANK %u\n", prefix, kind, i, t->rank);
    mpqc_buf_printf(to, "#define %s_%s%u_DIMS {", prefix, kind, i);
    for (uint32_t d = 0; d < t->rank; d++)
        mpqc_buf_printf(to, "%s%lld", d ? ", " : "", (long long)t->dims[d]);
    mpqc_buf_puts(to, t->rank ? "}\n" : "0}\n");
    if (t->quant && t->dtype != MPQC_DT_F32) {
        mpqc_buf_printf(to, "#define %s_%s%u_SCALE %.9gf\n", prefix, kind, i,
                        (double)t->quant->scale[0]);
        mpqc_buf_printf(to, "#define %s_%s%u_ZERO_POINT %d\n", prefix, kind, i,
                        (int)t->quant->zero[0]);
    }
}

mpqc_status mpqc_write_header(struct mpqc_cx *cx, const struct mpqc_codegen_request *rq,
                              struct mpqc_buf *to)
{
    const struct mpqc_graph *g = rq->graph;
    char symbol[256], prefix[256];
    MPQC_TRY(mpqc_model_symbol(cx, rq->tag, symbol, sizeof symbol));
    upper(symbol, prefix, sizeof prefix);
    mpqc_buf_puts(to, "/* Made by mpqc " MPQC_VERSION " from the network '");
    add_comment_text(to, g->name ? g->name : "");
    mpqc_buf_puts(to, "'. */\n");
    mpqc_buf_printf(to, "#ifndef %s_FACTS_H\n#define %s_FACTS_H\n\n#include \"mpqc_model.h\"\n\n", prefix,
                    prefix);
    mpqc_buf_printf(to,
                    "#ifdef __cplusplus\nextern \"C\" {\n#endif\n"
                    "extern const struct mpqc_model %s;\n"
                    "#ifdef __cplusplus\n}\n#endif\n\n",
                    symbol);
    mpqc_buf_printf(to, "#define %s_WORKSPACE_SIZE %llu\n", prefix,
                    (unsigned long long)mpqc_workspace_bytes(rq->plan));
    mpqc_buf_printf(to, "#define %s_WORKSPACE_ALIGN %d\n", prefix, MPQC_ARENA_ALIGN);
    mpqc_buf_printf(to, "#define %s_N_INPUTS %u\n", prefix, g->n_inputs);
    mpqc_buf_printf(to, "#define %s_N_OUTPUTS %u\n", prefix, g->n_outputs);
    for (uint32_t i = 0; i < g->n_inputs; i++) add_io(to, g, prefix, "INPUT", i, g->inputs[i]);
    for (uint32_t i = 0; i < g->n_outputs; i++) add_io(to, g, prefix, "OUTPUT", i, g->outputs[i]);
    mpqc_buf_puts(to, "\n#endif\n");
    return to->failed ? MPQC_OOM(cx) : MPQC_OK;
}
