/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Activations on the grid that `quantise` would give them.
 *
 * Not every value has a histogram of its own: reshapes and pools have that of what they
 * copy, a concat those of all that it joins, a softmax has the range [0, 1].  So a range
 * is the union over such sources, and an error the mean over their elements.
 */
#include "passes/sensitivity/samples.h"

#include "passes/histogram.h"
#include "passes/quantise.h"

#include <math.h>

struct span {
    const struct mpqc_pass_cx *p;
    const struct mpqc_graph *g;
    unsigned levels;
    bool known;
    double lo, hi;           /* with 0 */
    double error, power, count; /* sums over elements, once lo and hi are known */
};
typedef void (*source_fn)(struct span *s, const struct mpqc_histogram *h, bool image);

/* What quantise counts for so many bits: see struct mpqc_params. */
static unsigned levels_of(unsigned bits)
{
    return bits > 8 ? MPQC_WIDE_LEVELS : (1u << bits) - 1;
}

static double step_of(const struct span *s)
{
    double peak = fmax(-s->lo, s->hi);
    return (s->levels > 255 ? peak : s->hi - s->lo) / s->levels;
}

static void widen(struct span *s, double lo, double hi)
{
    s->lo = fmin(s->lo, lo);
    s->hi = fmax(s->hi, hi);
    s->known = true;
}

static void add_range(struct span *s, const struct mpqc_histogram *h, bool image)
{
    double lo, hi; /* images are never clipped */
    enum mpqc_calibration usual = mpqc_range_method(s->p->options->calibration, s->levels);
    mpqc_hist_range(h, image ? MPQC_CALIB_MINMAX : usual, s->p->options->percentile, s->levels, &lo,
                    &hi);
    widen(s, lo, hi);
}

/* A bin is treated as its centre, and as rounding within the range; zeros have no error. */
static void add_error(struct span *s, const struct mpqc_histogram *h, bool image)
{
    double step = step_of(s), bin = ldexp(1, h->exp);
    (void)image;
    for (int i = 0; i < MPQC_HIST_BINS; i++) {
        if (h->bins[i] == 0) continue;
        double x = (i - MPQC_HIST_HALF + 0.5) * bin, n = (double)h->bins[i];
        double cut = fmin(fmax(x, s->lo), s->hi);
        s->error += n * (x == cut ? step * step / 12 : (x - cut) * (x - cut));
        s->power += n * x * x;
    }
    s->count += (double)h->count;
}

/* Calls fn for every histogram that v consists of. */
static void for_sources(struct span *s, mpqc_vid v, source_fn fn)
{
    const struct mpqc_profile *profile = s->p->profile;
    while (v != MPQC_NONE && profile && v < profile->n_values) {
        const struct mpqc_node *n = mpqc_def(s->g, v);
        enum mpqc_rule rule = n ? mpqc_quantise_rule(s->g, n) : MPQC_RULE_NONE;
        if (profile->hist[v].bins && profile->hist[v].count > 0) {
            fn(s, &profile->hist[v], n == NULL);
            return;
        }
        if (rule == MPQC_RULE_SOFTMAX) widen(s, 0, 1);
        for (uint32_t i = 0; rule == MPQC_RULE_JOIN && i < n->n_in; i++)
            if (!mpqc_is_const(s->g, n->in[i])) for_sources(s, n->in[i], fn);
        v = rule == MPQC_RULE_SAME ? n->in[0] : MPQC_NONE;
    }
}

mpqc_status mpqc_sens_range_of(const struct mpqc_sens_cx *s, const struct mpqc_bits_layer *l,
                               unsigned bits, struct mpqc_sens_range *out)
{
    struct span span = {.p = s->p, .g = s->g, .levels = levels_of(bits)};
    double levels = (double)span.levels;
    for_sources(&span, l->input, add_range);
    if (!span.known)
        return MPQC_FAIL(s->p->cx, DATA, ((struct mpqc_where){.node = l->name, .op = l->op,
                                                              .offset = -1}),
                         "the profile has no values of its input; calibrate again");
    double scale = span.hi > span.lo ? fmax(step_of(&span), MPQC_LEAST_SCALE) : 1;
    if (span.levels > 255) {
        *out = (struct mpqc_sens_range){(float)scale, (float)-levels, (float)levels};
        return MPQC_OK;
    }
    double zero = fmin(fmax(floor(-span.lo / scale + 0.5), 0), levels);
    *out = (struct mpqc_sens_range){(float)scale, (float)-zero, (float)(levels - zero)};
    return MPQC_OK;
}

void mpqc_sens_fake(const struct mpqc_sens_range *r, const float *x, float *y, int64_t n)
{
    float inverse = 1.0f / r->scale;
    for (int64_t i = 0; i < n; i++) {
        float q = rintf(x[i] * inverse);
        q = q < r->lo ? r->lo : q > r->hi ? r->hi : q;
        y[i] = q * r->scale;
    }
}

void mpqc_sens_activation_error(const struct mpqc_pass_cx *p, const struct mpqc_graph *g,
                                mpqc_vid v, unsigned bits, double *error, double *power)
{
    struct span s = {.p = p, .g = g, .levels = levels_of(bits)};
    for_sources(&s, v, add_range);
    for_sources(&s, v, add_error);
    *error = 1.0 / (12.0 * s.levels * s.levels);
    *power = 1.0 / 3;
    if (s.power <= 0) return;
    *error = s.error / s.count;
    *power = s.power / s.count;
}
