/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The table of choices, and the layers that a decision about bits is about.
 */
#include "passes/bits.h"

#include "passes/quantise.h"

#include <math.h>

const struct mpqc_choice mpqc_choices[] = {
#define CHOICE(name, weight_bits, activation_bits) {name, weight_bits, activation_bits},
#include "passes/choices.def"
#undef CHOICE
};
const uint32_t mpqc_n_choices = MPQC_LEN(mpqc_choices);

const struct mpqc_choice *mpqc_choice_find(const char *name)
{
    for (uint32_t c = 0; c < mpqc_n_choices; c++)
        if (strcmp(mpqc_choices[c].name, name) == 0) return &mpqc_choices[c];
    return NULL;
}

bool mpqc_bits_may(const struct mpqc_bits *b, uint32_t l, uint32_t c)
{
    if (b->layer[l].pinned >= 0) return (uint32_t)b->layer[l].pinned == c;
    return !b->allowed || b->allowed[(size_t)l * mpqc_n_choices + c];
}

double *mpqc_bits_figure(struct mpqc_bits *b, struct mpqc_arena *arena, const char *name)
{
    for (uint32_t i = 0; i < b->n_figures; i++)
        if (strcmp(b->figure[i].name, name) == 0) return b->figure[i].value;
    MPQC_ASSERT(b->n_figures < MPQC_MAX_FIGURES);
    struct mpqc_bits_figure f = {mpqc_arena_strdup(arena, name),
                                 MPQC_NEW_ARRAY(arena, double, b->n_layers)};
    if (!f.name || !f.value) return NULL;
    for (uint32_t l = 0; l < b->n_layers; l++) f.value[l] = NAN;
    b->figure[b->n_figures++] = f;
    return f.value;
}

uint32_t mpqc_choice_plain(void)
{
    return (uint32_t)(mpqc_choice_find("w8a8") - mpqc_choices);
}

/* Layers made from one ONNX node share its name: from the second on they are numbered. */
static const char *unique_name(const struct mpqc_bits *b, uint32_t l, const char *name,
                               struct mpqc_arena *arena)
{
    uint32_t same = 1;
    for (uint32_t k = 0; k < l; k++) {
        const char *other = b->layer[k].name;
        size_t n = strlen(name);
        same += strncmp(other, name, n) == 0 && (other[n] == '\0' || other[n] == '#');
    }
    if (same == 1) return mpqc_arena_strdup(arena, name);
    return mpqc_arena_printf(arena, "%s#%u", name, same);
}

static void describe(const struct mpqc_graph *g, mpqc_nid id, bool factors,
                     struct mpqc_bits_layer *l)
{
    const struct mpqc_node *n = mpqc_node_at(g, id);
    const struct mpqc_type *out = &mpqc_value_at(g, n->out[0])->type;
    mpqc_vid x = mpqc_is_const(g, n->in[0]) ? n->in[1] : n->in[0];
    uint32_t channels = (uint32_t)out->dims[out->rank - 1];
    *l = (struct mpqc_bits_layer){.node = id, .input = x, .input_group = x, .output = n->out[0],
                                  .weights = MPQC_NONE, .channels = channels, .params = channels,
                                  .pinned = -1};
    if (factors) {
        l->macs = (uint64_t)mpqc_type_count(out);
        return;
    }
    const struct mpqc_type *w = &mpqc_value_at(g, n->in[1])->type;
    l->weights = n->in[1];
    l->channels = (uint32_t)w->dims[w->rank - 1];
    l->params = (uint64_t)mpqc_type_count(w);
    l->macs = mpqc_ops[n->op].macs(g, n);
    l->grouped = n->op == MPQC_OP_CONV && mpqc_attr_int_or(n, MPQC_ATTR_GROUP, 1) > 1;
    l->unpacked = n->op == MPQC_OP_CONV && w->dims[2] == 1 &&
                  mpqc_attr_int_or(n, MPQC_ATTR_GROUP, 1) == w->dims[3] && w->dims[3] > 1;
}

static void fill_bops(struct mpqc_bits *b)
{
    for (uint32_t l = 0; l < b->n_layers; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            b->bops[(size_t)l * mpqc_n_choices + c] = (double)b->layer[l].macs *
                                                      mpqc_choices[c].weight_bits *
                                                      mpqc_choices[c].activation_bits;
}

mpqc_status mpqc_bits_collect(struct mpqc_cx *cx, const struct mpqc_graph *g,
                              struct mpqc_arena *arena, struct mpqc_bits *out)
{
    *out = (struct mpqc_bits){.layer = MPQC_NEW_ARRAY(arena, struct mpqc_bits_layer, g->n_order)};
    if (!out->layer) return MPQC_OOM(cx);
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        enum mpqc_rule rule = mpqc_quantise_rule(g, n);
        if (rule != MPQC_RULE_LINEAR && rule != MPQC_RULE_CHANNEL) continue;
        uint32_t id = out->n_layers;
        struct mpqc_bits_layer *l = &out->layer[id];
        describe(g, g->order[i], rule == MPQC_RULE_CHANNEL, l);
        l->name = unique_name(out, id, n->loc.node, arena);
        l->op = mpqc_arena_strdup(arena, n->loc.op ? n->loc.op : mpqc_ops[n->op].text);
        if (arena->failed) return MPQC_OOM(cx);
        l->shared = id;
        for (uint32_t k = 0; k < id && l->weights != MPQC_NONE; k++)
            if (out->layer[k].weights == l->weights) {
                l->shared = k;
                break;
            }
        out->n_layers++;
    }
    out->bops = MPQC_NEW_ARRAY(arena, double, (size_t)out->n_layers * mpqc_n_choices);
    if (!out->bops) return MPQC_OOM(cx);
    fill_bops(out);
    return MPQC_OK;
}

mpqc_status mpqc_bits_tie(struct mpqc_pass_cx *p, struct mpqc_graph *g, struct mpqc_bits *b)
{
    mpqc_vid *root;
    mpqc_nid *bytes;
    MPQC_TRY(mpqc_quantise_sharing(p, g, &p->scratch, &root, &bytes));
    for (uint32_t l = 0; l < b->n_layers; l++) {
        struct mpqc_bits_layer *layer = &b->layer[l];
        layer->input_group = root[layer->input];
        if (bytes[layer->input_group] == MPQC_NONE) continue;
        struct mpqc_loc loc = mpqc_node_at(g, bytes[layer->input_group])->loc;
        layer->no_wide = mpqc_arena_printf(&p->keep, "its input comes from a table of 256 entries, "
                                           "that of '%s' (%s)", loc.node, loc.op ? loc.op : "?");
        if (!layer->no_wide) return MPQC_OOM(p->cx);
    }
    return MPQC_OK;
}

mpqc_vid mpqc_bits_observed(const struct mpqc_graph *g, const struct mpqc_profile *profile,
                            mpqc_vid v)
{
    while (profile && v < profile->n_values) {
        if (profile->hist[v].bins && profile->hist[v].count > 0) return v;
        const struct mpqc_node *n = mpqc_def(g, v);
        if (!n || mpqc_quantise_rule(g, n) != MPQC_RULE_SAME) break;
        v = n->in[0];
    }
    return MPQC_NONE;
}
