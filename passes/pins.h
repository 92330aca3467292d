/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Layers whose bits the user decides.  A rule is PATTERN=CHOICE, split at its last '=':
 *
 *   ^/layer1/conv1$=w8a8     POSIX extended regular expression, anywhere in the layer's name
 *   op:Gemm=w8a8             all layers of an ONNX operator
 *
 * A file has one rule a line; empty lines and lines that begin with # mean nothing.
 * Where several rules match a layer the last one holds.  Layers without weights of
 * their own keep 8-bit weights, whatever a rule says.
 */
#ifndef MPQC_PASSES_PINS_H
#define MPQC_PASSES_PINS_H

#include "passes/bits.h"

struct mpqc_pin {
    const char *rule;    /* as given */
    const char *pattern; /* what stands before the '=' */
    uint32_t choice;
    const char *from;    /* "-pin", or "plan.txt:12" */
};
struct mpqc_pins {
    struct mpqc_arena *arena; /* set by the caller */
    struct mpqc_pin *pin;
    uint32_t n, cap;
};

/* One rule, or all rules of a file's text. */
mpqc_status mpqc_pins_add(struct mpqc_cx *cx, struct mpqc_pins *pins, const char *rule,
                          const char *from) MPQC_MUST_CHECK;
mpqc_status mpqc_pins_add_text(struct mpqc_cx *cx, struct mpqc_pins *pins, const char *text,
                               const char *path) MPQC_MUST_CHECK;
/* Fills `pinned` and `pin_rule` of the layers.  Errors: a rule that matches nothing, or
 * gives a layer what bits->allowed forbids; rules that contradict a tie. */
mpqc_status mpqc_pins_apply(struct mpqc_cx *cx, const struct mpqc_pins *pins, struct mpqc_bits *b)
    MPQC_MUST_CHECK;

#endif
