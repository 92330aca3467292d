/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Ranges become scales and zero points.
 *
 * Values whose elements are copies of each other (through pools, reshapes, concat)
 * share parameters: a union-find forest over values, with the union of the ranges
 * at each root.  A result may also not be finer than its accumulator (the dyadic
 * factor would reach 1), which bounds scales from below; because a larger scale is
 * a larger accumulator scale for the readers, bounds are raised until they hold.
 */
#include "passes/histogram.h"
#include "passes/quantise.h"

#include <math.h>

#define LEVELS 255u
/* Products with 16-bit inputs must fit here; a little is left for codes that rounding with
 * care moves. */
#define WIDE_BOUND (0.95 * 1073741824.0)
#define LEAST_WIDE 2047.0
#define FACTOR_MARGIN 1.001
#define GRID 2049

struct mpqc_params mpqc_params_from_range(double lo, double hi, double least, unsigned levels)
{
    lo = fmin(lo, 0);
    hi = fmax(hi, 0);
    double scale = (hi - lo) / levels;
    if (hi == lo) scale = 1; /* always zero: any scale will do */
    scale = fmax(fmax(scale, least), MPQC_LEAST_SCALE);
    struct mpqc_params p = {.scale = (float)scale, .levels = levels};
    double zero = floor(-lo / p.scale + 0.5);
    p.zero = (int32_t)fmin(fmax(zero, 0), levels);
    return p;
}

/* Codes -levels .. levels of an i16. */
static struct mpqc_params wide_params(double lo, double hi, double least, unsigned levels)
{
    double peak = fmax(fmax(-lo, hi), 0), scale = peak > 0 ? peak / levels : 1;
    scale = fmax(fmax(scale, least), MPQC_LEAST_SCALE);
    return (struct mpqc_params){.scale = (float)scale, .levels = levels};
}

static mpqc_vid root(struct mpqc_quantiser *q, mpqc_vid v)
{
    while (q->parent[v] != v) v = q->parent[v] = q->parent[q->parent[v]];
    return v;
}

static void unite(struct mpqc_quantiser *q, mpqc_vid a, mpqc_vid b)
{
    a = root(q, a);
    b = root(q, b);
    if (a == b) return;
    if (b < a) { mpqc_vid t = a; a = b; b = t; }
    q->parent[b] = a;
    q->lo[a] = fmin(q->lo[a], q->lo[b]);
    q->hi[a] = fmax(q->hi[a], q->hi[b]);
    q->open[a] = q->open[a] || q->open[b];
    bool alike = (q->levels[a] > LEVELS) == (q->levels[b] > LEVELS);
    unsigned less = q->levels[a] < q->levels[b] ? q->levels[a] : q->levels[b];
    unsigned more = q->levels[a] < q->levels[b] ? q->levels[b] : q->levels[a];
    q->levels[a] = alike ? less : more; /* one reader of 16 bits makes all of them wide */
}

struct mpqc_params mpqc_params_of(struct mpqc_quantiser *q, mpqc_vid v)
{
    v = root(q, v);
    if (q->levels[v] > LEVELS) return wide_params(q->lo[v], q->hi[v], q->least[v], q->levels[v]);
    struct mpqc_params p =
        mpqc_params_from_range(q->lo[v], q->hi[v], q->least[v], q->levels[v]);
    p.loose = q->p->options->int_io && q->open[v];
    return p;
}

struct mpqc_params mpqc_byte_params_of(struct mpqc_quantiser *q, mpqc_vid v)
{
    struct mpqc_params p = mpqc_params_of(q, v);
    if (!mpqc_params_wide(p)) return p;
    v = root(q, v);
    return mpqc_params_from_range(q->lo[v], q->hi[v], 0, LEVELS);
}

void mpqc_observed(const struct mpqc_quantiser *q, mpqc_vid v, enum mpqc_calibration method,
                   double *lo, double *hi)
{
    const struct mpqc_histogram *h = &q->p->profile->hist[v];
    mpqc_hist_range(h, mpqc_range_method(method, q->levels[v]), q->p->options->percentile,
                    q->levels[v], lo, hi);
}

/* ---- decided bits ------------------------------------------------------------------ */

static const struct mpqc_choice *choice_of(const struct mpqc_quantiser *q,
                                           const struct mpqc_cluster *c)
{
    const struct mpqc_bits *b = q->p->bits;
    for (uint32_t l = 0; b && b->chosen && l < b->n_layers; l++)
        if (b->layer[l].node == c->core) return &mpqc_choices[b->chosen[l]];
    return NULL;
}

unsigned mpqc_cluster_weight_bits(const struct mpqc_quantiser *q, const struct mpqc_cluster *c)
{
    const struct mpqc_choice *choice = choice_of(q, c);
    if (c->rule != MPQC_RULE_LINEAR) return 8;
    return choice ? choice->weight_bits : q->p->bits ? 8 : q->p->options->weight_bits;
}

unsigned mpqc_cluster_input_bits(const struct mpqc_quantiser *q, const struct mpqc_cluster *c)
{
    const struct mpqc_choice *choice = choice_of(q, c);
    if (c->rule != MPQC_RULE_LINEAR && c->rule != MPQC_RULE_CHANNEL) return 8;
    if (choice) return choice->activation_bits;
    bool all = !q->p->bits && c->rule == MPQC_RULE_LINEAR;
    return all ? q->p->options->activation_bits : 8;
}

bool mpqc_cluster_is_low(const struct mpqc_quantiser *q, const struct mpqc_cluster *c)
{
    return c->rule == MPQC_RULE_LINEAR &&
           (mpqc_cluster_weight_bits(q, c) < 8 || mpqc_cluster_input_bits(q, c) < 8);
}

static void set_levels(struct mpqc_quantiser *q)
{
    for (mpqc_vid v = 0; v < q->n_values; v++) q->levels[v] = LEVELS;
    for (uint32_t i = 0; i < q->clusters.n; i++) {
        const struct mpqc_cluster *c = &q->clusters.c[i];
        const struct mpqc_node *n = mpqc_node_at(q->g, c->core);
        mpqc_vid x = mpqc_is_const(q->g, n->in[0]) ? n->in[1] : n->in[0];
        unsigned bits = mpqc_cluster_input_bits(q, c);
        if (bits < 8) q->levels[x] = (1u << bits) - 1;
        if (bits == 16) q->levels[x] = MPQC_WIDE_LEVELS;
    }
}

double mpqc_observed_peak(const struct mpqc_quantiser *q, mpqc_vid v)
{
    const struct mpqc_histogram *h = &q->p->profile->hist[v];
    return fmax(fabs((double)h->min), fabs((double)h->max));
}

/* ---- who shares with whom ---------------------------------------------------------- */

/* Made by no cluster: graph inputs and results of float islands. */
static void set_open(struct mpqc_quantiser *q)
{
    for (mpqc_vid v = 0; v < q->n_values; v++) {
        mpqc_nid def = mpqc_value_at(q->g, v)->def;
        q->open[v] = def == MPQC_NONE || q->clusters.of_node[def] == MPQC_NONE;
    }
}

static double width(const struct mpqc_quantiser *q, mpqc_vid r)
{
    return q->hi[r] - q->lo[r];
}

/* Concat, min, max.  An input that nobody else reads is quantised as the result is;
 * another one shares too, unless that cost it more than half of its levels: then it
 * keeps its own scale and is rescaled for this result. */
static void join(struct mpqc_quantiser *q, const struct mpqc_node *n)
{
    double lo = 0, hi = 0;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (mpqc_is_const(q->g, n->in[i])) {
            const struct mpqc_value *c = mpqc_value_at(q->g, n->in[i]);
            const float *x = c->data;
            for (int64_t k = 0; k < mpqc_type_count(&c->type); k++) {
                lo = fmin(lo, (double)x[k]);
                hi = fmax(hi, (double)x[k]);
            }
            continue;
        }
        mpqc_vid r = root(q, n->in[i]);
        lo = fmin(lo, q->lo[r]);
        hi = fmax(hi, q->hi[r]);
    }
    mpqc_vid out = n->out[0];
    q->lo[out] = lo;
    q->hi[out] = hi;
    for (uint32_t i = 0; i < n->n_in; i++) {
        mpqc_vid v = n->in[i];
        if (mpqc_is_const(q->g, v)) continue;
        bool alone = root(q, v) == v && q->clusters.uses[v] == 1;
        if (alone || 2 * width(q, root(q, v)) >= hi - lo) unite(q, v, out);
    }
}

static void share(struct mpqc_quantiser *q)
{
    const struct mpqc_graph *g = q->g;
    for (uint32_t i = 0; i < q->clusters.n; i++) {
        const struct mpqc_cluster *c = &q->clusters.c[i];
        const struct mpqc_node *n = mpqc_node_at(g, c->core);
        mpqc_vid out = n->out[0];
        if (c->rule == MPQC_RULE_JOIN) join(q, n);
        if (c->rule == MPQC_RULE_SOFTMAX) q->hi[out] = LEVELS / 256.0;
        if (c->rule != MPQC_RULE_SAME) continue;
        unite(q, n->in[0], out);
        if (n->op == MPQC_OP_PAD) {
            mpqc_vid r = root(q, out);
            double value = mpqc_attr_float_or(n, MPQC_ATTR_ALPHA, 0);
            q->lo[r] = fmin(q->lo[r], value);
            q->hi[r] = fmax(q->hi[r], value);
        }
    }
}

static void warn_of_one_value(struct mpqc_quantiser *q, mpqc_vid v)
{
    const struct mpqc_histogram *h = &q->p->profile->hist[v];
    struct mpqc_where where = {.tensor = mpqc_value_at(q->g, v)->name, .offset = -1};
    if (h->count < 2 || h->min < h->max) return;
    mpqc_warn(q->cx, where, "calibration saw no other value than %g in this input, so the library "
              "cannot tell others apart", (double)h->min);
}

static mpqc_status observe_all(struct mpqc_quantiser *q)
{
    const struct mpqc_graph *g = q->g;
    const struct mpqc_profile *profile = q->p->profile;
    for (mpqc_vid v = 0; v < q->n_values; v++) {
        q->parent[v] = v;
        if (!q->clusters.needs_range[v]) continue;
        if (v >= profile->n_values || profile->hist[v].count == 0)
            return MPQC_FAIL(q->cx, DATA, ((struct mpqc_where){
                .tensor = mpqc_value_at(g, v)->name, .offset = -1}),
                "the profile has no values of tensor %u; calibrate again", v);
        mpqc_observed(q, v, q->p->options->calibration, &q->lo[v], &q->hi[v]);
    }
    for (uint32_t i = 0; i < g->n_inputs; i++) { /* images fill their range: never clipped */
        mpqc_vid v = g->inputs[i];
        if (!q->clusters.needs_range[v]) continue;
        mpqc_observed(q, v, MPQC_CALIB_MINMAX, &q->lo[v], &q->hi[v]);
        warn_of_one_value(q, v);
    }
    return MPQC_OK;
}

/* ---- the input of a table ------------------------------------------------------------- */

/* Ends of [x[0], x[n-1]] where the function, as far as the result can show it, does
 * not change: cut off, so that the 256 entries lie where it does. */
static void cut_flat_ends(const float *x, const double *f, uint32_t n, double tolerance,
                          double *lo, double *hi)
{
    uint32_t a = 0, b = n - 1;
    while (a < n && fabs(f[a] - f[0]) <= tolerance) a++;
    while (b > 0 && fabs(f[b] - f[n - 1]) <= tolerance) b--;
    if (a >= n || a > b + 1) return; /* flat everywhere */
    *lo = a > 0 ? x[a - 1] : x[0];
    *hi = b < n - 1 ? x[b + 1] : x[n - 1];
}

/* Range of a table's input that suffices for the range of its result. */
static mpqc_status table_range(struct mpqc_quantiser *q, const struct mpqc_cluster *c, double *lo,
                               double *hi)
{
    struct mpqc_params out = mpqc_byte_params_of(q, c->out);
    double bottom = -(double)out.zero * out.scale, top = bottom + (double)out.levels * out.scale;
    float x[GRID], y[GRID];
    double f[GRID];
    mpqc_observed(q, c->pre, MPQC_CALIB_MINMAX, lo, hi);
    if (*lo == *hi) return MPQC_OK;
    for (uint32_t i = 0; i < GRID; i++) y[i] = x[i] = (float)(*lo + (*hi - *lo) * i / (GRID - 1));
    MPQC_TRY(mpqc_chain_eval(q->cx, q->g, c->chain + c->n_clamp, c->n_chain - c->n_clamp, y, GRID));
    for (uint32_t i = 0; i < GRID; i++)
        f[i] = isnan(y[i]) ? bottom : fmin(fmax((double)y[i], bottom), top);
    cut_flat_ends(x, f, GRID, 0.25 * out.scale, lo, hi);
    return MPQC_OK;
}

/* ---- scales that are not too fine -------------------------------------------------------- */

/* How many elements every mean of a node is over, at least. */
static double fewest_terms(const struct mpqc_graph *g, const struct mpqc_node *n)
{
    const struct mpqc_type *x = &mpqc_value_at(g, n->in[0])->type;
    int64_t results = mpqc_type_count(&mpqc_value_at(g, n->out[0])->type);
    if (n->op == MPQC_OP_REDUCE_MEAN && results > 0)
        return (double)(mpqc_type_count(x) / results);
    if (n->op != MPQC_OP_AVGPOOL) return 1;
    const int64_t *k = mpqc_attr_ints(n, MPQC_ATTR_KERNEL);
    const int64_t *pads = mpqc_attr_ints(n, MPQC_ATTR_PADS);
    bool whole = mpqc_attr_int_or(n, MPQC_ATTR_COUNT_PAD, 0) || !pads ||
                 (pads[0] == 0 && pads[1] == 0 && pads[2] == 0 && pads[3] == 0);
    return whole ? (double)k[0] * (double)k[1] : 1; /* a window at the border may hold one */
}

double mpqc_accumulator_scale(struct mpqc_quantiser *q, uint32_t cluster)
{
    const struct mpqc_cluster *c = &q->clusters.c[cluster];
    const struct mpqc_node *n = mpqc_node_at(q->g, c->core);
    mpqc_vid x = mpqc_is_const(q->g, n->in[0]) ? n->in[1] : n->in[0];
    double sx = mpqc_byte_params_of(q, x).scale, most = 0;
    if (c->rule == MPQC_RULE_LINEAR || c->rule == MPQC_RULE_CHANNEL) {
        sx = mpqc_params_of(q, x).scale;
        const struct mpqc_type *t = &mpqc_value_at(q->g, n->out[0])->type;
        for (int64_t i = 0; i < t->dims[t->rank - 1]; i++)
            most = fmax(most, q->weight_scale[cluster][i]);
        return sx * most;
    }
    if (c->rule == MPQC_RULE_MUL) {
        mpqc_vid other = mpqc_other_input(n, x);
        double lo = 0, hi = 0;
        if (!mpqc_is_const(q->g, other)) return sx * mpqc_byte_params_of(q, other).scale;
        const struct mpqc_value *k = mpqc_value_at(q->g, other);
        for (int64_t i = 0; i < mpqc_type_count(&k->type); i++) {
            lo = fmin(lo, (double)((const float *)k->data)[i]);
            hi = fmax(hi, (double)((const float *)k->data)[i]);
        }
        return sx * mpqc_params_from_range(lo, hi, 0, LEVELS).scale;
    }
    return sx / fewest_terms(q->g, n);
}

/* Least unit that a summand of these parameters can be brought to: a rescale's factor stays
 * below 2^7, from 16 bits below 1. */
double mpqc_least_unit(struct mpqc_params p)
{
    return (double)p.scale / (mpqc_params_wide(p) ? 0.9999 : 127.0);
}

/* An operand of the sum behind cluster c must reach its peak in units of a wide result. */
static double least_for_peak(struct mpqc_quantiser *q, mpqc_vid v)
{
    const struct mpqc_histogram *h = &q->p->profile->hist[v];
    return h->count > 0 ? mpqc_observed_peak(q, v) / MPQC_WIDE_LEVELS : 0;
}

/* Least scale of the value behind cluster c. */
static double least_scale(struct mpqc_quantiser *q, uint32_t cluster)
{
    const struct mpqc_cluster *c = &q->clusters.c[cluster];
    double least = 0;
    if (c->rule != MPQC_RULE_SUM) least = mpqc_accumulator_scale(q, cluster) * FACTOR_MARGIN;
    mpqc_nid add = c->rule == MPQC_RULE_SUM ? c->core : c->add;
    if (add == MPQC_NONE) return least;
    const struct mpqc_node *n = mpqc_node_at(q->g, add);
    bool wide = mpqc_params_wide(mpqc_params_of(q, c->out));
    for (uint32_t i = 0; i < 2; i++) {
        if (mpqc_is_const(q->g, n->in[i])) {
            if (wide) least = fmax(least, mpqc_const_peak(q->g, n->in[i]) / 32767.0);
            continue;
        }
        bool core = c->add != MPQC_NONE && n->in[i] == mpqc_node_at(q->g, c->core)->out[0];
        if (wide) least = fmax(least, least_for_peak(q, n->in[i]));
        if (!core) least = fmax(least, mpqc_least_unit(mpqc_params_of(q, n->in[i])));
    }
    return least;
}

static bool has_epilogue(const struct mpqc_cluster *c)
{
    return c->rule == MPQC_RULE_LINEAR || c->rule == MPQC_RULE_CHANNEL ||
           c->rule == MPQC_RULE_MUL || c->rule == MPQC_RULE_MEAN || c->rule == MPQC_RULE_AVGPOOL ||
           c->rule == MPQC_RULE_SUM;
}

/* One round; *changed when some scale grew. */
static mpqc_status settle(struct mpqc_quantiser *q, bool *changed)
{
    *changed = false;
    for (uint32_t i = 0; i < q->clusters.n; i++) {
        const struct mpqc_cluster *c = &q->clusters.c[i];
        if (!has_epilogue(c)) continue;
        double least = least_scale(q, i);
        if (mpqc_cluster_has_table(c)) {
            double lo = 0, hi = 0;
            MPQC_TRY(table_range(q, c, &lo, &hi));
            q->pre[i] = mpqc_params_from_range(lo, hi, least, LEVELS);
        } else if (!c->wide && mpqc_params_of(q, c->out).scale < least) {
            mpqc_vid r = root(q, c->out);
            q->least[r] = least;
            *changed = true;
        }
    }
    return MPQC_OK;
}

static mpqc_status weight_scales(struct mpqc_quantiser *q)
{
    for (uint32_t i = 0; i < q->clusters.n; i++) {
        const struct mpqc_cluster *c = &q->clusters.c[i];
        struct mpqc_weights w;
        if (c->rule != MPQC_RULE_LINEAR && c->rule != MPQC_RULE_CHANNEL) continue;
        MPQC_TRY(mpqc_weights_of(q, c, &w));
        q->weight_scale[i] = mpqc_weights_scales(q, &w, mpqc_cluster_weight_bits(q, c));
        if (!q->weight_scale[i]) return MPQC_OOM(q->cx);
    }
    return MPQC_OK;
}

/* ---- what is lost ------------------------------------------------------------------- */

/* The real step of what cluster i stores. */
static double stored_step(struct mpqc_quantiser *q, uint32_t i)
{
    const struct mpqc_cluster *c = &q->clusters.c[i];
    bool fixed = c->wide && has_epilogue(c) && c->rule != MPQC_RULE_SUM;
    if (!fixed) return mpqc_params_of(q, c->out).scale;
    return fmax(mpqc_accumulator_scale(q, i), MPQC_LEAST_SCALE);
}

/* Values that never reach half a step are 0 in integers, and so is much behind them.  It
 * takes ranges of 1e-19, or sums that cancel out to nothing beside what they are made of. */
static void warn_of_zeros(struct mpqc_quantiser *q)
{
    uint32_t lost = 0, first = 0;
    for (uint32_t i = q->clusters.n; i-- > 0;) {
        mpqc_vid r = root(q, q->clusters.c[i].out);
        double peak = fmax(-q->lo[r], q->hi[r]);
        if (!(peak > 0) || peak >= stored_step(q, i) / 2) continue;
        first = i;
        lost++;
    }
    if (lost == 0) return;
    const struct mpqc_cluster *c = &q->clusters.c[first];
    struct mpqc_where where = mpqc_loc_where(mpqc_node_at(q->g, c->last)->loc);
    mpqc_vid r = root(q, c->out);
    char more[64] = "";
    if (lost > 1) snprintf(more, sizeof more, "; so do %u more tensors", lost - 1);
    where.tensor = mpqc_value_at(q->g, c->out)->name;
    mpqc_warn(q->cx, where, "its values reach only %.3g, less than half a step (%.3g) of the finest "
              "integers that they can be computed in, and all become 0%s",
              fmax(-q->lo[r], q->hi[r]), stored_step(q, first), more);
}

/* ---- inputs of 16 bits ------------------------------------------------------------- */

/* The largest code of an input with which no channel's sum leaves 2^30, as far as weights
 * rounded to nearest tell: mpqc_lower_linear proves it.  A channel whose weights are tiny beside
 * its bias does not count here; its weights are going to be coarser. */
static mpqc_status most_levels(struct mpqc_quantiser *q, uint32_t cluster, double peak,
                               double *levels)
{
    struct mpqc_weights w;
    const double *scale = q->weight_scale[cluster];
    MPQC_TRY(mpqc_weights_of(q, &q->clusters.c[cluster], &w));
    for (int64_t c = 0; c < w.channels; c++) {
        double sum = 0;
        if (scale[c] == 0) continue;
        for (int64_t r = 0; r < w.rows; r++) sum += fabs((double)w.w[r * w.channels + c]);
        double bias = w.bias && peak > 0 ? fabs((double)w.bias[c]) / peak : 0;
        double alone = WIDE_BOUND * scale[c] / fmax(sum, scale[c]);
        double both = WIDE_BOUND * scale[c] / fmax(sum + bias, scale[c]);
        *levels = fmin(*levels, fmin(alone, fmax(both, LEAST_WIDE)));
    }
    return MPQC_OK;
}

static mpqc_vid input_root(struct mpqc_quantiser *q, const struct mpqc_cluster *c)
{
    const struct mpqc_node *n = mpqc_node_at(q->g, c->core);
    return root(q, mpqc_is_const(q->g, n->in[0]) ? n->in[1] : n->in[0]);
}

double mpqc_input_reach(struct mpqc_quantiser *q, const struct mpqc_cluster *c)
{
    mpqc_vid x = input_root(q, c);
    if (q->levels[x] <= LEVELS) return LEVELS;
    return q->open[x] ? 32768.0 : q->levels[x];
}

/* Signed codes reach 16383, as far as requant surely does (ir/dyadic.h), or less where a
 * layer sums so many of them that 32 bits would not do: 15 bits for up to about 2000
 * inputs, 12 for 16000, which is still far finer than the weights.  Where codes come from
 * outside, all of i16 must be expected, and the weights get coarser if that is too much. */
static mpqc_status bound_wide(struct mpqc_quantiser *q)
{
    for (uint32_t i = 0; i < q->clusters.n; i++) {
        const struct mpqc_cluster *c = &q->clusters.c[i];
        if (c->rule != MPQC_RULE_LINEAR && c->rule != MPQC_RULE_CHANNEL) continue;
        mpqc_vid x = input_root(q, c);
        if (q->levels[x] <= LEVELS || q->open[x]) continue;
        double levels = q->levels[x];
        MPQC_TRY(most_levels(q, i, fmax(fabs(q->lo[x]), fabs(q->hi[x])), &levels));
        q->levels[x] = (unsigned)fmax(levels, LEVELS + 1.0);
    }
    return MPQC_OK;
}

/* The node whose result in v's group can have 8 bits only, or MPQC_NONE. */
static mpqc_nid byte_maker(struct mpqc_quantiser *q, mpqc_vid r)
{
    for (uint32_t i = 0; i < q->clusters.n; i++) {
        const struct mpqc_cluster *c = &q->clusters.c[i];
        bool bytes = c->rule == MPQC_RULE_SOFTMAX || c->rule == MPQC_RULE_UNARY ||
                     (has_epilogue(c) && mpqc_cluster_has_table(c));
        if (bytes && root(q, c->out) == r) return c->last;
    }
    return MPQC_NONE;
}

/* Ranges of all values, and who shares with whom. */
static mpqc_status make_forest(struct mpqc_quantiser *q)
{
    struct mpqc_arena *a = &q->p->scratch;
    q->parent = MPQC_NEW_ARRAY(a, mpqc_vid, q->n_values);
    q->lo = MPQC_NEW_ARRAY(a, double, q->n_values);
    q->hi = MPQC_NEW_ARRAY(a, double, q->n_values);
    q->levels = MPQC_NEW_ARRAY(a, unsigned, q->n_values);
    q->open = MPQC_NEW_ARRAY(a, bool, q->n_values);
    if (a->failed) return MPQC_OOM(q->cx);
    set_levels(q);
    set_open(q);
    MPQC_TRY(observe_all(q));
    share(q);
    return MPQC_OK;
}

mpqc_status mpqc_quantise_sharing(struct mpqc_pass_cx *p, struct mpqc_graph *g,
                                  struct mpqc_arena *arena, mpqc_vid **out, mpqc_nid **bytes)
{
    struct mpqc_quantiser q = {.p = p, .cx = p->cx, .g = g, .n_values = g->n_values};
    MPQC_TRY(mpqc_quantise_clusters(p->cx, g, &p->scratch, &q.clusters));
    MPQC_TRY(make_forest(&q));
    *out = MPQC_NEW_ARRAY(arena, mpqc_vid, g->n_values);
    *bytes = MPQC_NEW_ARRAY(arena, mpqc_nid, g->n_values);
    if (!*out || !*bytes) return MPQC_OOM(p->cx);
    for (mpqc_vid v = 0; v < g->n_values; v++) {
        (*out)[v] = root(&q, v);
        (*bytes)[v] = (*out)[v] == v ? byte_maker(&q, v) : MPQC_NONE;
    }
    return MPQC_OK;
}

mpqc_status mpqc_quantise_params(struct mpqc_quantiser *q)
{
    struct mpqc_arena *a = &q->p->scratch;
    MPQC_TRY(make_forest(q));
    q->least = MPQC_NEW_ARRAY(a, double, q->n_values);
    q->pre = MPQC_NEW_ARRAY(a, struct mpqc_params, q->clusters.n);
    q->weight_scale = MPQC_NEW_ARRAY(a, double *, q->clusters.n);
    if (a->failed) return MPQC_OOM(q->cx);
    MPQC_TRY(weight_scales(q));
    MPQC_TRY(bound_wide(q));
    /* Bounds only grow along the graph; a cycle would need shared groups whose
     * factors exceed 1 both ways, and is cut off here. */
    bool changed = true;
    for (int round = 0; changed && round < 32; round++) MPQC_TRY(settle(q, &changed));
    warn_of_zeros(q);
    return MPQC_OK;
}
