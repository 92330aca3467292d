/* SPDX-License-Identifier: GPL-3.0-or-later
 * Rules that pin layers to choices; see pins.h.
 */
#include "passes/pins.h"

#include <regex.h>

/* ---- reading ---- */

static bool grow(struct mpqc_pins *pins)
{
    if (pins->n < pins->cap) return true;
    uint32_t cap = pins->cap ? 2 * pins->cap : 16;
    struct mpqc_pin *more = MPQC_NEW_ARRAY(pins->arena, struct mpqc_pin, cap);
    if (!more) return false;
    if (pins->n) memcpy(more, pins->pin, pins->n * sizeof *more);
    pins->pin = more;
    pins->cap = cap;
    return true;
}

/* "w8a8, w6a8, ..." */
static const char *choice_names(struct mpqc_arena *arena)
{
    const char *names = "";
    for (uint32_t c = 0; names && c < mpqc_n_choices; c++)
        names = mpqc_arena_printf(arena, "%s%s%s", names, c ? ", " : "", mpqc_choices[c].name);
    return names ? names : "";
}

mpqc_status mpqc_pins_add(struct mpqc_cx *cx, struct mpqc_pins *pins, const char *rule,
                          const char *from)
{
    const char *equals = strrchr(rule, '=');
    if (!equals || equals == rule)
        return MPQC_FAIL(cx, USAGE, MPQC_NOWHERE,
                         "%s: '%s' is no rule; a rule is PATTERN=CHOICE, as in '^conv1$=w8a8' or "
                         "'op:Gemm=w8a8'", from, rule);
    const struct mpqc_choice *choice = mpqc_choice_find(equals + 1);
    if (!choice)
        return MPQC_FAIL(cx, USAGE, MPQC_NOWHERE,
                         "%s: '%s': there is no choice '%s'; it is one of %s", from, rule, equals + 1, choice_names(&cx->arena));
    char *pattern = mpqc_arena_strdup(pins->arena, rule);
    if (!pattern || !grow(pins)) return MPQC_OOM(cx);
    pattern[equals - rule] = '\0';
    pins->pin[pins->n++] = (struct mpqc_pin){.rule = mpqc_arena_strdup(pins->arena, rule),
                                             .pattern = pattern,
                                             .choice = (uint32_t)(choice - mpqc_choices),
                                             .from = mpqc_arena_strdup(pins->arena, from)};
    return pins->arena->failed ? MPQC_OOM(cx) : MPQC_OK;
}

mpqc_status mpqc_pins_add_text(struct mpqc_cx *cx, struct mpqc_pins *pins, const char *text,
                               const char *path)
{
    for (unsigned number = 1; *text; number++) {
        size_t n = strcspn(text, "\n"), len = n;
        while (len > 0 && (text[len - 1] == '\r' || text[len - 1] == ' ')) len--;
        if (len > 0 && *text != '#') {
            char *line = mpqc_arena_copy(pins->arena, text, len + 1);
            char *from = mpqc_arena_printf(pins->arena, "%s:%u", path, number);
            if (!line || !from) return MPQC_OOM(cx);
            line[len] = '\0';
            MPQC_TRY(mpqc_pins_add(cx, pins, line, from));
        }
        text += n + (text[n] == '\n');
    }
    return MPQC_OK;
}

/* ---- applying ---- */

/* The same activation bits with 8-bit weights, for layers that have no others. */
static uint32_t eight_bit_weights(uint32_t choice)
{
    for (uint32_t c = 0; c < mpqc_n_choices; c++)
        if (mpqc_choices[c].weight_bits == 8 &&
            mpqc_choices[c].activation_bits == mpqc_choices[choice].activation_bits)
            return c;
    return choice;
}

static mpqc_status pin_layer(struct mpqc_cx *cx, struct mpqc_bits *b, uint32_t l,
                             const struct mpqc_pin *pin)
{
    struct mpqc_bits_layer *layer = &b->layer[l];
    uint32_t choice = layer->weights == MPQC_NONE ? eight_bit_weights(pin->choice) : pin->choice;
    bool may = !b->allowed || b->allowed[(size_t)l * mpqc_n_choices + choice];
    if (!may && mpqc_choice_wide(choice) && layer->no_wide)
        return MPQC_FAIL(cx, INFEASIBLE,
                         ((struct mpqc_where){.node = layer->name, .op = layer->op, .offset = -1}),
                         "%s: the rule '%s' matches, but this layer cannot have 16-bit inputs: %s",
                         pin->from, pin->rule, layer->no_wide);
    if (!may)
        return MPQC_FAIL(cx, INFEASIBLE,
                         ((struct mpqc_where){.node = layer->name, .op = layer->op, .offset = -1}),
                         "%s: the rule '%s' matches, but this layer cannot be compiled with %s for "
                         "this target", pin->from, pin->rule, mpqc_choices[choice].name);
    layer->pinned = (int32_t)choice;
    layer->pin_rule = pin->rule;
    return MPQC_OK;
}

static mpqc_status apply_one(struct mpqc_cx *cx, struct mpqc_bits *b, const struct mpqc_pin *pin)
{
    bool by_op = strncmp(pin->pattern, "op:", 3) == 0;
    regex_t regex;
    int rc = by_op ? 0 : regcomp(&regex, pin->pattern, REG_EXTENDED | REG_NOSUB);
    if (rc) {
        char why[128];
        regerror(rc, &regex, why, sizeof why);
        return MPQC_FAIL(cx, USAGE, MPQC_NOWHERE,
                         "%s: '%s' is not a POSIX extended regular expression: %s", pin->from,
                         pin->pattern, why);
    }
    mpqc_status status = MPQC_OK;
    uint32_t hits = 0;
    for (uint32_t l = 0; l < b->n_layers && status == MPQC_OK; l++) {
        const struct mpqc_bits_layer *layer = &b->layer[l];
        bool hit = by_op ? strcmp(layer->op, pin->pattern + 3) == 0
                         : regexec(&regex, layer->name, 0, NULL, 0) == 0;
        if (!hit) continue;
        hits++;
        status = pin_layer(cx, b, l, pin);
    }
    if (!by_op) regfree(&regex);
    MPQC_TRY(status);
    if (hits > 0) return MPQC_OK;
    return MPQC_FAIL(cx, USAGE, MPQC_NOWHERE,
                     "%s: the rule '%s' matches none of the %u layers with weights%s%s%s",
                     pin->from, pin->rule, b->n_layers, b->n_layers ? "; the first is '" : "",
                     b->n_layers ? b->layer[0].name : "", b->n_layers ? "'" : "");
}

static mpqc_status check_ties(struct mpqc_cx *cx, const struct mpqc_bits *b)
{
    for (uint32_t l = 0; l < b->n_layers; l++)
        for (uint32_t k = 0; k < l; k++) {
            const struct mpqc_bits_layer *x = &b->layer[k], *y = &b->layer[l];
            if (x->pinned < 0 || y->pinned < 0 || x->pinned == y->pinned) continue;
            bool weights = x->shared == y->shared;
            bool inputs = x->input_group == y->input_group &&
                          mpqc_choices[x->pinned].activation_bits !=
                              mpqc_choices[y->pinned].activation_bits;
            if (!weights && !inputs) continue;
            return MPQC_FAIL(cx, INFEASIBLE, MPQC_NOWHERE,
                             "the rules '%s' and '%s' contradict each other: '%s' and '%s' share "
                             "their %s", x->pin_rule, y->pin_rule, x->name, y->name,
                             weights ? "weights" : "inputs' scale, and so their activation bits");
        }
    return MPQC_OK;
}

mpqc_status mpqc_pins_apply(struct mpqc_cx *cx, const struct mpqc_pins *pins, struct mpqc_bits *b)
{
    for (uint32_t i = 0; i < pins->n; i++) MPQC_TRY(apply_one(cx, b, &pins->pin[i]));
    return check_ties(cx, b);
}
