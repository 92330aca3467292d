/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The decision about bits, as data: which layers there are, what each choice would
 * lose and cost, and what was chosen.  Sensitivity metrics fill `omega`, cost
 * models fill the cost tables, allocate fills `chosen`, quantise reads it.  Each half
 * is written and read as text, so each tests alone.
 */
#ifndef MPQC_PASSES_BITS_H
#define MPQC_PASSES_BITS_H

#include "ir/ir.h"

struct mpqc_choice {
    const char *name; /* "w4a8" */
    unsigned weight_bits, activation_bits;
};
/* Rows of choices.def. */
extern const struct mpqc_choice mpqc_choices[];
extern const uint32_t mpqc_n_choices;
const struct mpqc_choice *mpqc_choice_find(const char *name); /* NULL: unknown */
uint32_t mpqc_choice_plain(void); /* w8a8: what a layer has when nobody asks for another */
/* Two bytes an element: such a choice is taken by those who ask for it only. */
static inline bool mpqc_choice_wide(uint32_t c)
{
    return mpqc_choices[c].activation_bits > 8;
}

/* Activations of 1 or 2 bits, so that bits can be counted instead of multiplied: taken by those
 * who ask for it, and where it was measured to be faster. */
static inline bool mpqc_choice_counts(uint32_t c)
{
    return mpqc_choices[c].activation_bits <= 2;
}

/* One of both: other kernels than for 8-bit inputs, and no candidate unless there is a reason. */
static inline bool mpqc_choice_special(uint32_t c)
{
    return mpqc_choice_wide(c) || mpqc_choice_counts(c);
}

/* One layer: a conv or matmul with constant weights in the simplified float graph. */
struct mpqc_bits_layer {
    mpqc_nid node;
    const char *name; /* ONNX node name; "name#2" for a second layer of the same node */
    const char *op;   /* ONNX operator */
    /* weights: MPQC_NONE for per-channel factors (a BatchNorm that nothing could take
     * in); such a layer has 8-bit weights always */
    mpqc_vid weights, input, output;
    uint64_t params, macs;
    uint32_t channels; /* output channels */
    /* Why its input has no 16-bit form, in words; NULL: it has.  Known after mpqc_bits_tie. */
    const char *no_wide;
    int64_t group; /* of options: inputs that share a factor where bits are few; or 0 */
    bool grouped;  /* a convolution of channels in groups: it is not counted in bits */
    bool unpacked; /* the library keeps bytes whatever the bits: windows over one channel */
    /* Layers with equal group numbers share one choice of activation bits, because
     * their inputs share one set of quantisation parameters (residual inputs, concat,
     * branches); layers with equal `shared` share weights, so all bits. */
    uint32_t input_group, shared;
    int32_t pinned; /* choice index, or -1 */
    const char *pin_rule; /* the text of the rule that pinned it, or NULL */
};

/* What a metric measured of every layer on its way to omega, for people: a trace, its
 * standard error. */
struct mpqc_bits_figure {
    const char *name; /* letters, digits, _ */
    double *value;    /* [n_layers]; NaN: none */
};
#define MPQC_MAX_FIGURES 12

struct mpqc_bits {
    uint32_t n_layers;
    struct mpqc_bits_layer *layer;
    struct mpqc_bits_figure figure[MPQC_MAX_FIGURES];
    uint32_t n_figures;
    /* [layer * mpqc_n_choices + choice]; NULL until known */
    double *omega;   /* expected increase of the loss; NaN: not computed */
    double *latency; /* ns */
    double *bytes;   /* of weights, scales and bias in the library */
    double *bops;    /* MACs * weight bits * activation bits */
    bool *allowed;   /* the target can compile this choice for this layer */
    uint32_t *chosen; /* [layer]; NULL: uniform w8a8 */
};

/* May layer l take choice c (allowed, and not pinned to another)? */
bool mpqc_bits_may(const struct mpqc_bits *b, uint32_t l, uint32_t c);
/* The column of a figure, made of NaNs in `arena` if it is new; NULL when memory ran out. */
double *mpqc_bits_figure(struct mpqc_bits *b, struct mpqc_arena *arena, const char *name);

struct mpqc_pass_cx;
struct mpqc_profile;

/* Where the elements of v were observed: v, or the value that it is a reshape, pool or
 * other copy of; MPQC_NONE when none of those has a histogram. */
mpqc_vid mpqc_bits_observed(const struct mpqc_graph *g, const struct mpqc_profile *profile,
                            mpqc_vid v);

/* Lists the layers of a simplified float graph; memory from `arena`; everything but
 * layers and bops NULL; nothing pinned; layers that read the same value are one input
 * group. */
mpqc_status mpqc_bits_collect(struct mpqc_cx *cx, const struct mpqc_graph *g,
                              struct mpqc_arena *arena, struct mpqc_bits *out) MPQC_MUST_CHECK;
/* Input groups as quantise will see them: values share parameters through pools,
 * reshapes and concats too, which depends on p->profile. */
mpqc_status mpqc_bits_tie(struct mpqc_pass_cx *p, struct mpqc_graph *g, struct mpqc_bits *b)
    MPQC_MUST_CHECK;

#endif
