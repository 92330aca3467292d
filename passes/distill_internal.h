/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the files distill*.c share; nobody else includes this.
 *
 * The statistics are those of all images together, as in ZeroQ, but graphs run one image
 * at a time.  The loss is a function of two numbers a channel, the means over all images
 * of y and of y * y; so its derivative by an element of y is a[c] + b[c] * y, where a and
 * b are the same for all images.  The graph takes them as inputs and gives each image's
 * share of the two means beside the derivative by the image.
 */
#ifndef MPQC_PASSES_DISTILL_INTERNAL_H
#define MPQC_PASSES_DISTILL_INTERNAL_H

#include "passes/distill.h"

/* Wanted statistics of a value, per channel. */
struct mpqc_distill_target {
    mpqc_vid y;         /* MPQC_NONE: the image itself */
    int64_t channels;
    int64_t positions;  /* elements per channel, in one image */
    const float *mean, *std;
    const float *weight; /* of a channel's squared errors */
    size_t first;       /* its first channel in arrays over all targets */
};

struct mpqc_distill_net {
    struct mpqc_graph g; /* inputs: image, then a and b / 2 of each target that has a y;
                            outputs: derivative by the image, then its two means */
    struct mpqc_arena arena; /* of the targets */
    struct mpqc_distill_target *target;
    uint32_t n_targets;  /* those with a y come first */
    uint32_t n_inside;   /* how many these are */
    size_t n_channels;   /* of all targets */
    int64_t channels, inner; /* of the image: element i has channel i / inner % channels */
    bool weak;
};

/* Always to be closed.  Fails, with the reason, where there is nothing to match. */
mpqc_status mpqc_distill_net_open(struct mpqc_cx *cx, const struct mpqc_graph *g,
                                  const struct mpqc_distill_options *options,
                                  struct mpqc_distill_net *net) MPQC_MUST_CHECK;
void mpqc_distill_net_close(struct mpqc_distill_net *net);

/* Fills d->images, which hold nothing yet, in d->steps steps. */
mpqc_status mpqc_distill_optimise(struct mpqc_cx *cx, const struct mpqc_engine *engine,
                                  const struct mpqc_distill_net *net,
                                  const struct mpqc_distill_options *options,
                                  struct mpqc_distilled *d) MPQC_MUST_CHECK;

#endif
