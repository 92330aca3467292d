/* SPDX-License-Identifier: GPL-3.0-or-later
 * Images from BatchNorm statistics; see distill.h.
 */
#include "passes/distill.h"

#include "passes/distill_internal.h"

/* What is worth its time: more images or steps change the accuracy by less than another
 * seed does (measured on ResNet20). */
#define IMAGES 32
#define LEAST_IMAGES 8
#define STEPS 100
#define LEAST_STEPS 50
/* MACs of all steps together: some minutes where the engine is the interpreter. */
#define BUDGET 6e12

static double macs_of(const struct mpqc_graph *g)
{
    double macs = 0;
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = &g->nodes[g->order[i]];
        if (mpqc_ops[n->op].macs) macs += (double)mpqc_ops[n->op].macs(g, n);
    }
    return macs;
}

/* A large network gets fewer steps first, then fewer images. */
static void choose_size(const struct mpqc_distill_net *net,
                        const struct mpqc_distill_options *options, struct mpqc_distilled *d)
{
    double affordable = BUDGET / (macs_of(&net->g) + 1);
    d->count = options->images ? options->images : IMAGES;
    d->steps = options->steps ? options->steps : STEPS;
    if (!options->steps && affordable < (double)d->count * d->steps) {
        double steps = affordable / (double)d->count;
        d->steps = steps > LEAST_STEPS ? (uint32_t)steps : LEAST_STEPS;
    }
    if (!options->images && affordable < (double)d->count * d->steps) {
        double images = affordable / d->steps;
        d->count = images > LEAST_IMAGES ? (uint64_t)images : LEAST_IMAGES;
    }
}

static mpqc_status get_memory(struct mpqc_cx *cx, struct mpqc_distilled *d)
{
    size_t n;
    if (!mpqc_size_mul(d->count, d->elements, &n) || !mpqc_size_mul(n, sizeof(float), &n))
        return MPQC_OOM(cx);
    d->images = d->allocator->resize(d->allocator->user, NULL, n);
    return d->images ? MPQC_OK : MPQC_OOM(cx);
}

static mpqc_status distill(struct mpqc_cx *cx, const struct mpqc_engine *engine,
                           const struct mpqc_graph *g, const struct mpqc_distill_options *options,
                           struct mpqc_distill_net *net, struct mpqc_distilled *d)
{
    MPQC_TRY(mpqc_distill_net_open(cx, g, options, net));
    choose_size(net, options, d);
    d->elements = (uint64_t)mpqc_type_count(&mpqc_value_at(g, g->inputs[0])->type);
    d->targets = net->n_inside;
    d->weak = net->weak;
    MPQC_TRY(get_memory(cx, d));
    return mpqc_distill_optimise(cx, engine, net, options, d);
}

mpqc_status mpqc_distill(struct mpqc_cx *cx, const struct mpqc_engine *engine,
                         const struct mpqc_graph *g, const struct mpqc_distill_options *options,
                         struct mpqc_distilled *out)
{
    struct mpqc_distill_net net;
    memset(out, 0, sizeof *out);
    out->allocator = cx->allocator;
    mpqc_status status = distill(cx, engine, g, options, &net, out);
    mpqc_distill_net_close(&net);
    if (status != MPQC_OK) mpqc_distilled_release(out);
    return status;
}

void mpqc_distilled_release(struct mpqc_distilled *d)
{
    if (d->images) d->allocator->resize(d->allocator->user, d->images, 0);
    d->images = NULL;
}

static mpqc_status get_image(void *user, struct mpqc_cx *cx, uint64_t index, void *const *inputs)
{
    const struct mpqc_distilled *d = user;
    (void)cx;
    memcpy(inputs[0], d->images + index * d->elements, d->elements * sizeof *d->images);
    return MPQC_OK;
}

struct mpqc_dataset mpqc_distilled_dataset(struct mpqc_distilled *d)
{
    return (struct mpqc_dataset){.count = d->count, .get = get_image, .user = d};
}
