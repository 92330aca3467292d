/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Which statistics images are made to have, and the graph that tells how.
 *
 * y = gamma (x - mu) / sqrt(var + eps) + beta: x has the running mean and deviation just
 * when y has mean beta and deviation |gamma| sigma / sqrt(var + eps).  So the targets are
 * those of the results of BatchNorms; these are made outputs, and what remains of the
 * network is simplified, which folds the BatchNorms themselves into the convolutions.
 */
#include "passes/distill_internal.h"

#include "ir/autodiff.h"
#include "passes/pass.h"

#include <math.h>

/* Deviations under this do not count: a channel that is switched off. */
#define LEAST_STD 1e-6f

/* ---- which values depend on the image ---- */

static bool *depends_on_input(const struct mpqc_graph *g, struct mpqc_arena *arena)
{
    bool *depends = MPQC_NEW_ARRAY(arena, bool, g->n_values);
    if (!depends) return NULL;
    for (uint32_t i = 0; i < g->n_inputs; i++) depends[g->inputs[i]] = true;
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = &g->nodes[g->order[i]];
        bool any = false;
        for (uint32_t k = 0; k < n->n_in; k++)
            any |= n->in[k] != MPQC_NONE && depends[n->in[k]];
        for (uint32_t k = 0; k < n->n_out; k++) depends[n->out[k]] = any;
    }
    return depends;
}

/* ---- targets ---- */

/* A new target for y, the channels of which are its last axis. */
static struct mpqc_distill_target *add_target(struct mpqc_distill_net *net, mpqc_vid y,
                                              int64_t count, int64_t channels, float **mean,
                                              float **std, float **weight)
{
    struct mpqc_distill_target *t = &net->target[net->n_targets++];
    t->y = y;
    t->channels = channels;
    t->positions = count / channels;
    t->first = net->n_channels;
    t->mean = *mean = MPQC_NEW_ARRAY(&net->arena, float, (size_t)channels);
    t->std = *std = MPQC_NEW_ARRAY(&net->arena, float, (size_t)channels);
    t->weight = *weight = MPQC_NEW_ARRAY(&net->arena, float, (size_t)channels);
    net->n_channels += (size_t)channels;
    return net->arena.failed ? NULL : t;
}

static bool add_batchnorm(struct mpqc_distill_net *net, const struct mpqc_graph *g,
                          const struct mpqc_node *n)
{
    const struct mpqc_type *t = &g->values[n->out[0]].type;
    int64_t channels = t->dims[t->rank - 1];
    const float *gamma = g->values[n->in[1]].data, *beta = g->values[n->in[2]].data;
    const float *var = g->values[n->in[4]].data;
    float epsilon = mpqc_attr_float_or(n, MPQC_ATTR_EPSILON, 1e-5f);
    float *mean, *std, *weight;
    if (!add_target(net, n->out[0], mpqc_type_count(t), channels, &mean, &std, &weight))
        return false;
    for (int64_t c = 0; c < channels; c++) {
        mean[c] = beta[c];
        std[c] = fabsf(gamma[c]) * sqrtf(var[c] / (var[c] + epsilon));
        weight[c] = std[c] > LEAST_STD ? 1 : 0;
    }
    return true;
}

/* Does it normalise by known numbers something that the image decides? */
static bool is_target(const struct mpqc_graph *g, const struct mpqc_node *n, const bool *depends)
{
    if (n->op != MPQC_OP_BATCHNORM || !depends[n->in[0]]) return false;
    if (mpqc_type_count(&g->values[n->out[0]].type) == 0) return false;
    for (uint32_t k = 1; k < 5; k++)
        if (!mpqc_is_const(g, n->in[k])) return false;
    return true;
}

static mpqc_status find_batchnorms(struct mpqc_cx *cx, struct mpqc_distill_net *net)
{
    const struct mpqc_graph *g = &net->g;
    bool *depends = depends_on_input(g, &net->arena);
    if (!depends) return MPQC_OOM(cx);
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = &g->nodes[g->order[i]];
        if (is_target(g, n, depends) && !add_batchnorm(net, g, n)) return MPQC_OOM(cx);
    }
    return MPQC_OK;
}

/* Weak targets: what comes out of a linear layer before a relu is said to have the bias
 * for its mean, as if that were the beta of a BatchNorm, and the norm of the channel's
 * weights for its deviation, as if the inputs were independent and of unit power. */
static bool add_linear(struct mpqc_distill_net *net, const struct mpqc_graph *g,
                       const struct mpqc_node *n)
{
    const struct mpqc_type *t = &g->values[n->out[0]].type, *tw = &g->values[n->in[1]].type;
    int64_t channels = t->dims[t->rank - 1], rows = mpqc_type_count(tw) / channels;
    const float *bias = g->values[n->in[2]].data, *w = g->values[n->in[1]].data;
    float *mean, *std, *weight;
    if (!add_target(net, n->out[0], mpqc_type_count(t), channels, &mean, &std, &weight))
        return false;
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;
        for (int64_t r = 0; r < rows; r++)
            sum += (double)w[r * channels + c] * (double)w[r * channels + c];
        mean[c] = bias[c];
        std[c] = (float)sqrt(sum);
        weight[c] = std[c] > LEAST_STD ? 1 : 0;
    }
    return true;
}

static bool is_weak_target(const struct mpqc_graph *g, const struct mpqc_node *n,
                           const bool *depends, const bool *clamped)
{
    if (!(mpqc_ops[n->op].traits & MPQC_T_LINEAR) || n->n_in < 3 || !depends[n->in[0]])
        return false;
    if (!mpqc_is_const(g, n->in[1]) || !mpqc_is_const(g, n->in[2]) || !clamped[n->out[0]])
        return false;
    /* a matrix product with a batch of matrices has no norm a channel */
    return n->op == MPQC_OP_CONV || g->values[n->in[1]].type.rank == 2;
}

static mpqc_status find_weak(struct mpqc_cx *cx, struct mpqc_distill_net *net)
{
    const struct mpqc_graph *g = &net->g;
    bool *depends = depends_on_input(g, &net->arena);
    bool *clamped = MPQC_NEW_ARRAY(&net->arena, bool, g->n_values);
    if (!depends || !clamped) return MPQC_OOM(cx);
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = &g->nodes[g->order[i]];
        if (n->op == MPQC_OP_RELU || n->op == MPQC_OP_CLIP) clamped[n->in[0]] = true;
    }
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = &g->nodes[g->order[i]];
        if (is_weak_target(g, n, depends, clamped) && !add_linear(net, g, n)) return MPQC_OOM(cx);
    }
    return MPQC_OK;
}

static bool add_image(struct mpqc_distill_net *net, mpqc_vid image)
{
    const struct mpqc_type *t = &net->g.values[image].type;
    float *mean, *std, *weight;
    if (!add_target(net, MPQC_NONE, mpqc_type_count(t), net->channels, &mean, &std, &weight))
        return false;
    for (int64_t c = 0; c < net->channels; c++) std[c] = weight[c] = 1;
    return true;
}

/* ---- the graph ---- */

static mpqc_status simplify(struct mpqc_cx *cx, struct mpqc_graph *g)
{
    static const char *const names[] = {"simplify"};
    struct mpqc_options options;
    struct mpqc_pass_cx p;
    bool stopped;
    mpqc_options_init(&options);
    mpqc_pass_cx_init(&p, cx, &options);
    mpqc_status status = mpqc_pipeline_run(&p, g, names, 1, &stopped);
    mpqc_pass_cx_release(&p);
    return status;
}

/* Only the results of BatchNorms are wanted of the network. */
static mpqc_status keep_targets(struct mpqc_cx *cx, struct mpqc_distill_net *net)
{
    struct mpqc_graph *g = &net->g;
    g->n_outputs = 0;
    for (uint32_t i = 0; i < net->n_targets; i++) mpqc_graph_output(g, net->target[i].y);
    if (g->arena.failed) return MPQC_OOM(cx);
    MPQC_TRY(mpqc_graph_normalise(cx, g));
    MPQC_TRY(simplify(cx, g));
    for (uint32_t i = 0; i < net->n_targets; i++) net->target[i].y = g->outputs[i];
    return MPQC_OK;
}

static mpqc_vid mean_of(struct mpqc_build *b, mpqc_vid x)
{
    struct mpqc_type t = mpqc_build_type(b, x);
    int64_t axes[MPQC_MAX_RANK];
    struct mpqc_attrs a = {0};
    for (uint32_t i = 0; i + 1 < t.rank; i++) axes[i] = i;
    mpqc_attrs_ints(&a, MPQC_ATTR_AXES, t.rank - 1, axes);
    return t.rank > 1 ? mpqc_build_op(b, MPQC_OP_REDUCE_MEAN, &x, 1, &a) : x;
}

/* <y, a + b/2 y>, the derivative of which by y is a + b y. */
static mpqc_vid pull(struct mpqc_build *b, mpqc_vid y, mpqc_vid add, mpqc_vid half)
{
    mpqc_vid sum = mpqc_build_add(b, mpqc_build_mul(b, y, half), add);
    return mpqc_build_2(b, MPQC_OP_DOT, y, sum);
}

static mpqc_vid coefficients(struct mpqc_build *b, const struct mpqc_distill_target *t)
{
    return mpqc_graph_input(b->g, "distill.coefficients",
                            mpqc_type_make(MPQC_DT_F32, 1, &t->channels));
}

static mpqc_status differentiate(struct mpqc_build *b, struct mpqc_distill_net *net)
{
    mpqc_vid total = MPQC_NONE, derivative, image = b->g->inputs[0];
    mpqc_vid *means = MPQC_NEW_ARRAY(&net->arena, mpqc_vid, 2 * (size_t)net->n_targets);
    if (!means) return MPQC_OOM(b->cx);
    for (uint32_t i = 0; i < net->n_targets; i++) {
        mpqc_vid y = net->target[i].y;
        mpqc_vid add = coefficients(b, &net->target[i]), half = coefficients(b, &net->target[i]);
        total = mpqc_build_add(b, total, pull(b, y, add, half));
        means[2 * i] = mean_of(b, y);
        means[2 * i + 1] = mean_of(b, mpqc_build_mul(b, y, y));
    }
    MPQC_TRY(mpqc_autodiff_build(b, total, &image, 1, &derivative));
    if (derivative == MPQC_NONE) /* only through rounding or comparison */
        return MPQC_FAIL(b->cx, UNSUPPORTED, MPQC_NOWHERE, "no BatchNormalization can be "
                         "differentiated by the network's input, so -calib=distill has no way to "
                         "improve its images; give real inputs with -calib=PATH");
    b->g->n_outputs = 0;
    mpqc_graph_output(b->g, derivative);
    for (uint32_t i = 0; i < 2 * net->n_targets; i++) mpqc_graph_output(b->g, means[i]);
    if (b->g->arena.failed) return MPQC_OOM(b->cx);
    return b->status;
}

static mpqc_status add_derivative(struct mpqc_cx *cx, struct mpqc_distill_net *net)
{
    struct mpqc_build b;
    mpqc_build_init(&b, cx, &net->g);
    mpqc_status status = differentiate(&b, net);
    mpqc_build_release(&b);
    MPQC_TRY(status);
    return mpqc_graph_normalise(cx, &net->g);
}

/* ---- all of it ---- */

/* Where an image has as many channels as it has bounds; without bounds the shorter of the
 * axes where ONNX and others have them.  A vector is one channel. */
static bool find_channels(struct mpqc_distill_net *net, const struct mpqc_type *t, uint32_t wanted)
{
    uint32_t axis = 0;
    if (t->rank > 2 && wanted <= 1) axis = t->dims[1] <= t->dims[t->rank - 1] ? 1 : t->rank - 1;
    if (wanted > 1)
        for (uint32_t i = t->rank; i-- > 1;)
            if (t->dims[i] == wanted && (i == 1 || i == t->rank - 1)) axis = i;
    net->channels = net->inner = 1;
    if (axis > 0) net->channels = t->dims[axis];
    for (uint32_t i = axis + 1; i < t->rank; i++) net->inner *= t->dims[i];
    return wanted <= 1 || axis > 0;
}

static mpqc_status check_input(struct mpqc_cx *cx, const struct mpqc_graph *g,
                               const struct mpqc_distill_options *options,
                               struct mpqc_distill_net *net)
{
    if (g->n_inputs != 1)
        return MPQC_FAIL(cx, UNSUPPORTED, MPQC_NOWHERE, "the network has %u inputs, but "
                         "-calib=distill can make data for one only; give -calib=[input:]PATH "
                         "with real data", g->n_inputs);
    const struct mpqc_value *v = mpqc_value_at(g, g->inputs[0]);
    struct mpqc_where where = {.tensor = v->name, .offset = -1};
    if (v->type.dtype != MPQC_DT_F32)
        return MPQC_FAIL(cx, UNSUPPORTED, where, "input of type %s; only f32 inputs can be "
                         "quantised", mpqc_dtypes[v->type.dtype].text);
    if (mpqc_type_count(&v->type) == 0)
        return MPQC_FAIL(cx, UNSUPPORTED, where, "this input has no elements, so -calib=distill "
                         "has nothing to make");
    if (!find_channels(net, &v->type, options->n_bounds))
        return MPQC_FAIL(cx, USAGE, where, "-mean and -std have %u values, but neither axis where "
                         "the input may have its channels is as long", options->n_bounds);
    return MPQC_OK;
}

static mpqc_status no_statistics(struct mpqc_cx *cx, bool weak_too)
{
    if (weak_too)
        return MPQC_FAIL(cx, DATA, MPQC_NOWHERE, "the network has neither BatchNormalizations nor "
                         "layers with a bias and a ReLU, so there is nothing that images could be "
                         "made from; give real inputs with -calib=PATH");
    return MPQC_FAIL(cx, DATA, MPQC_NOWHERE, "the network has no BatchNormalization whose "
                     "statistics images could be made from (most exporters fold them into the "
                     "convolutions); export it with them (PyTorch: torch.onnx.export(..., "
                     "training=TrainingMode.PRESERVE)), or give real inputs with -calib=PATH, or "
                     "use -calib=distill:weak, which aims at biases and norms of weights instead");
}

static mpqc_status find_targets(struct mpqc_cx *cx, const struct mpqc_distill_options *options,
                                struct mpqc_distill_net *net)
{
    MPQC_TRY(find_batchnorms(cx, net));
    if (net->n_targets > 0) return keep_targets(cx, net);
    if (!options->allow_weak) return no_statistics(cx, false);
    MPQC_TRY(simplify(cx, &net->g));
    MPQC_TRY(find_weak(cx, net));
    if (net->n_targets == 0) return no_statistics(cx, true);
    net->weak = true;
    mpqc_warn(cx, MPQC_NOWHERE, "the network has no BatchNormalization, so images are made from "
              "the biases and norms of weights of %u layers; ranges from such data can be far off: "
              "check the accuracy with real data", net->n_targets);
    return MPQC_OK;
}

mpqc_status mpqc_distill_net_open(struct mpqc_cx *cx, const struct mpqc_graph *g,
                                  const struct mpqc_distill_options *options,
                                  struct mpqc_distill_net *net)
{
    memset(net, 0, sizeof *net);
    mpqc_graph_init(&net->g, cx->allocator);
    mpqc_arena_init(&net->arena, cx->allocator);
    MPQC_TRY(check_input(cx, g, options, net));
    MPQC_TRY(mpqc_graph_clone(cx, g, &net->g, &net->arena, NULL));
    net->target = MPQC_NEW_ARRAY(&net->arena, struct mpqc_distill_target, (size_t)g->n_nodes + 1);
    if (!net->target) return MPQC_OOM(cx);
    MPQC_TRY(find_targets(cx, options, net));
    MPQC_TRY(add_derivative(cx, net));
    net->n_inside = net->n_targets;
    if (options->n_bounds == 0 && !add_image(net, net->g.inputs[0])) return MPQC_OOM(cx);
    return MPQC_OK;
}

void mpqc_distill_net_close(struct mpqc_distill_net *net)
{
    mpqc_graph_release(&net->g);
    mpqc_arena_release(&net->arena);
}
