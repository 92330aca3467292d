/* SPDX-License-Identifier: GPL-3.0-or-later
 * Curvature of the loss in the weights, as graphs.
 */
#include "ir/hvp.h"

#include "ir/autodiff.h"

/* A graph in the making. */
struct job {
    struct mpqc_build b;
    struct mpqc_graph *g;
    mpqc_vid output, loss;
    mpqc_vid *weights, *v, *grads; /* n of each, in the new graph */
    uint32_t n;
};

/* Clones the network without its output. */
static mpqc_status begin(struct job *j, struct mpqc_cx *cx, const struct mpqc_hvp *h,
                         struct mpqc_graph *out, struct mpqc_arena *scratch)
{
    mpqc_vid *map;
    if (h->net->n_outputs != 1)
        return MPQC_FAIL(cx, UNSUPPORTED, MPQC_NOWHERE,
                         "a loss needs a network with one output, and this one has %u",
                         h->net->n_outputs);
    MPQC_TRY(mpqc_graph_clone(cx, h->net, out, scratch, &map));
    *j = (struct job){.g = out, .output = out->outputs[0], .n = h->n};
    j->weights = MPQC_NEW_ARRAY(scratch, mpqc_vid, h->n);
    j->v = MPQC_NEW_ARRAY(scratch, mpqc_vid, h->n);
    j->grads = MPQC_NEW_ARRAY(scratch, mpqc_vid, h->n);
    if (scratch->failed) return MPQC_OOM(cx);
    for (uint32_t i = 0; i < h->n; i++) {
        j->weights[i] = map[h->weights[i]];
        if (j->weights[i] == MPQC_NONE)
            return MPQC_FAIL(cx, BUG, MPQC_NOWHERE, "weight %u is not used in the network", i);
    }
    out->n_outputs = 0;
    out->outputs = NULL;
    mpqc_build_init(&j->b, cx, out);
    return MPQC_OK;
}

static void add_target(struct job *j, const struct mpqc_hvp *h)
{
    struct mpqc_type t = mpqc_loss_target_type(j->g, h->loss, j->output);
    mpqc_vid target = mpqc_graph_input(j->g, "target", t);
    if (target == MPQC_NONE) j->b.status = MPQC_OOM(j->b.cx);
    else j->loss = mpqc_loss(&j->b, h->loss, j->output, target);
}

static void add_vectors(struct job *j)
{
    for (uint32_t i = 0; i < j->n && j->b.status == MPQC_OK; i++) {
        j->v[i] = mpqc_graph_input(j->g, NULL, mpqc_build_type(&j->b, j->weights[i]));
        if (j->v[i] == MPQC_NONE) j->b.status = MPQC_OOM(j->b.cx);
    }
}

/* grads = H v: the derivative of sum <gradient_l, v_l>. */
static mpqc_status second_derivative(struct job *j)
{
    mpqc_vid slope = MPQC_NONE;
    MPQC_TRY(mpqc_autodiff_build(&j->b, j->loss, j->weights, j->n, j->grads));
    for (uint32_t i = 0; i < j->n; i++) {
        if (j->grads[i] == MPQC_NONE) continue;
        slope = mpqc_build_add(&j->b, slope, mpqc_build_dot(&j->b, j->v[i], j->grads[i]));
    }
    MPQC_TRY(j->b.status);
    if (slope != MPQC_NONE)
        return mpqc_autodiff_build(&j->b, slope, j->weights, j->n, j->grads);
    for (uint32_t i = 0; i < j->n; i++) j->grads[i] = MPQC_NONE;
    return MPQC_OK;
}

/* Ends a job, whatever its status. */
static mpqc_status finish(struct job *j, struct mpqc_arena *scratch, mpqc_status status)
{
    struct mpqc_cx *cx = j->b.cx;
    if (cx) {
        if (status == MPQC_OK) status = j->b.status;
        mpqc_build_release(&j->b);
    }
    mpqc_arena_release(scratch);
    return status == MPQC_OK ? mpqc_graph_normalise(cx, j->g) : status;
}

static const struct mpqc_type one_number = {.dtype = MPQC_DT_F32, .rank = 1, .dims = {1}};

static void output_or_zero(struct job *j, mpqc_vid v, struct mpqc_type t)
{
    if (v == MPQC_NONE) v = mpqc_build_zeros(&j->b, t);
    if (v != MPQC_NONE) mpqc_graph_output(j->g, v);
}

static mpqc_status run_probe(struct job *j, const struct mpqc_hvp *h)
{
    add_target(j, h);
    add_vectors(j);
    MPQC_TRY(j->b.status);
    MPQC_TRY(second_derivative(j));
    for (uint32_t i = 0; i < j->n; i++) {
        mpqc_vid d = j->grads[i];
        output_or_zero(j, d == MPQC_NONE ? d : mpqc_build_dot(&j->b, j->v[i], d), one_number);
    }
    mpqc_graph_output(j->g, j->loss);
    return j->b.status;
}

/* H_z u: (diag(p) - p p^T) u for what ends in a softmax, u for the squared error. */
static mpqc_vid loss_curvature(struct job *j, enum mpqc_loss_kind kind, int64_t axis, mpqc_vid u)
{
    struct mpqc_build *b = &j->b;
    if (kind == MPQC_LOSS_SQUARED_ERROR) return u;
    mpqc_vid p = mpqc_loss_own_target(b, kind, j->output);
    mpqc_vid pu = mpqc_build_mul(b, p, u);
    mpqc_vid mean = mpqc_build_sum_axis(b, pu, axis);
    return mpqc_build_2(b, MPQC_OP_SUB, pu, mpqc_build_mul(b, p, mean));
}

/* With a free variable q of z's type, s = sum_l <v_l, J_l^T q> is linear in q, and its
 * derivative by q is u = J v, in which q does not occur.  So q may then be replaced by
 * H_z u, and the terms of s are the results. */
static mpqc_status run_gauss_newton(struct job *j, const struct mpqc_hvp *h)
{
    struct mpqc_build *b = &j->b;
    mpqc_vid s = MPQC_NONE, u = MPQC_NONE, z = j->output, q;
    int64_t axis = 0;
    add_target(j, h);
    add_vectors(j);
    MPQC_TRY(b->status);
    if (h->loss != MPQC_LOSS_SQUARED_ERROR) z = mpqc_loss_logits(j->g, j->output, &axis);
    q = mpqc_graph_input(j->g, NULL, mpqc_build_type(b, z));
    if (q == MPQC_NONE) return MPQC_OOM(b->cx);
    MPQC_TRY(mpqc_autodiff_build(b, mpqc_build_2(b, MPQC_OP_DOT, z, q), j->weights, j->n,
                                 j->grads));
    for (uint32_t i = 0; i < j->n; i++) {
        if (j->grads[i] == MPQC_NONE) continue;
        j->grads[i] = mpqc_build_dot(b, j->v[i], j->grads[i]);
        s = mpqc_build_add(b, s, j->grads[i]);
    }
    if (s != MPQC_NONE) MPQC_TRY(mpqc_autodiff_build(b, s, &q, 1, &u));
    if (u != MPQC_NONE) mpqc_graph_replace(j->g, q, loss_curvature(j, h->loss, axis, u));
    j->g->n_inputs--; /* q */
    MPQC_TRY(b->status);
    for (uint32_t i = 0; i < j->n; i++)
        output_or_zero(j, u == MPQC_NONE ? u : j->grads[i], one_number);
    mpqc_graph_output(j->g, j->loss);
    return b->status;
}

static mpqc_status run_product(struct job *j, const struct mpqc_hvp *h)
{
    add_target(j, h);
    add_vectors(j);
    MPQC_TRY(j->b.status);
    MPQC_TRY(second_derivative(j));
    for (uint32_t i = 0; i < j->n; i++)
        output_or_zero(j, j->grads[i], mpqc_build_type(&j->b, j->weights[i]));
    mpqc_graph_output(j->g, j->loss);
    return j->b.status;
}

static mpqc_status run_gradient(struct job *j, const struct mpqc_hvp *h)
{
    add_target(j, h);
    MPQC_TRY(j->b.status);
    MPQC_TRY(mpqc_autodiff_build(&j->b, j->loss, j->weights, j->n, j->grads));
    for (uint32_t i = 0; i < j->n; i++)
        output_or_zero(j, j->grads[i], mpqc_build_type(&j->b, j->weights[i]));
    mpqc_graph_output(j->g, j->loss);
    return j->b.status;
}

static mpqc_status run_reference(struct job *j, const struct mpqc_hvp *h)
{
    mpqc_vid t = mpqc_loss_own_target(&j->b, h->loss, j->output);
    if (t != MPQC_NONE) mpqc_graph_output(j->g, t);
    return j->b.status;
}

#define BUILDER(name)                                                                             \
    mpqc_status mpqc_hvp_##name(struct mpqc_cx *cx, const struct mpqc_hvp *h,                     \
                                struct mpqc_graph *out)                                           \
    {                                                                                             \
        struct job j = {0};                                                                       \
        struct mpqc_arena scratch;                                                                \
        mpqc_arena_init(&scratch, cx->allocator);                                                 \
        mpqc_status status = begin(&j, cx, h, out, &scratch);                                     \
        if (status == MPQC_OK) status = run_##name(&j, h);                                        \
        return finish(&j, &scratch, status);                                                      \
    }
BUILDER(probe)
BUILDER(gauss_newton)
BUILDER(product)
BUILDER(gradient)
BUILDER(reference)
