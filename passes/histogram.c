/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Histograms with power-of-two bin widths, and ranges from them.
 *
 * The width is a function of the largest magnitude alone, and growing it merges
 * bins in pairs, so neither the order of the data nor its split over threads
 * changes a single count.
 */
#include "passes/histogram.h"

#include <math.h>

bool mpqc_hist_init(struct mpqc_histogram *h, struct mpqc_arena *arena)
{
    *h = (struct mpqc_histogram){.exp = MPQC_HIST_MIN_EXP};
    h->bins = MPQC_NEW_ARRAY(arena, uint64_t, MPQC_HIST_BINS);
    return h->bins != NULL;
}

/* Smallest exp whose bins cover x. */
static int32_t exp_for(float magnitude)
{
    int e = 0;
    (void)frexpf(magnitude, &e);
    int32_t want = e - 11; /* 2048 bins to each side */
    return want < MPQC_HIST_MIN_EXP ? MPQC_HIST_MIN_EXP : want;
}

/* Doubles the bin width `steps` times.  Signed bin k becomes floor(k / 2^steps). */
static void grow(struct mpqc_histogram *h, int32_t exp)
{
    int32_t steps = exp - h->exp;
    if (steps <= 0) return;
    int shift = steps > 20 ? 20 : (int)steps;
    /* Towards the middle from both sides: a target is never beyond its source. */
    for (int32_t k = 0; k < MPQC_HIST_HALF; k++) {
        uint64_t c = h->bins[MPQC_HIST_HALF + k];
        h->bins[MPQC_HIST_HALF + k] = 0;
        h->bins[MPQC_HIST_HALF + (k >> shift)] += c;
    }
    for (int32_t k = -1; k >= -MPQC_HIST_HALF; k--) {
        uint64_t c = h->bins[MPQC_HIST_HALF + k];
        h->bins[MPQC_HIST_HALF + k] = 0;
        h->bins[MPQC_HIST_HALF - 1 - ((-1 - k) >> shift)] += c;
    }
    h->exp = exp;
}

static void widen(struct mpqc_histogram *h, float lo, float hi)
{
    if (h->count == 0 || lo < h->min) h->min = lo;
    if (h->count == 0 || hi > h->max) h->max = hi;
}

bool mpqc_hist_add(struct mpqc_histogram *h, const float *x, size_t n)
{
    if (n == 0) return true;
    float lo = x[0], hi = x[0];
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= !(fabsf(x[i]) <= 3.402823466e38f);
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    if (bad) return false;
    widen(h, lo, hi);
    h->count += n;
    grow(h, exp_for(fmaxf(-lo, hi)));

    const double scale = ldexp(1.0, -h->exp); /* products are exact in double */
    uint64_t *mid = h->bins + MPQC_HIST_HALF;
    for (size_t i = 0; i < n; i++) {
        if (x[i] == 0.0f) continue;
        double d = (double)x[i] * scale;
        int32_t k = (int32_t)d;
        k -= d < (double)k; /* floor */
        mid[k < -MPQC_HIST_HALF ? -MPQC_HIST_HALF : k]++;
    }
    return true;
}

void mpqc_hist_merge(struct mpqc_histogram *dst, const struct mpqc_histogram *src)
{
    if (src->count == 0) return;
    widen(dst, src->min, src->max);
    dst->count += src->count;
    grow(dst, src->exp);
    int32_t steps = dst->exp - src->exp;
    int shift = steps > 20 ? 20 : (int)steps;
    uint64_t *mid = dst->bins + MPQC_HIST_HALF;
    for (int32_t k = 0; k < MPQC_HIST_HALF; k++) {
        mid[k >> shift] += src->bins[MPQC_HIST_HALF + k];
        mid[-1 - (k >> shift)] += src->bins[MPQC_HIST_HALF - 1 - k];
    }
}

/* ---- ranges ---------------------------------------------------------------- */

static double bin_edge(const struct mpqc_histogram *h, int32_t i)
{
    return ldexp((double)(i - MPQC_HIST_HALF), h->exp);
}

static double clamp(double x, double lo, double hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

/* Cuts (100 - p) / 2 per cent of all values at each end, interpolating inside a bin. */
static void range_percentile(const struct mpqc_histogram *h, double percentile, double *lo,
                             double *hi)
{
    double cut = (double)h->count * (100.0 - percentile) / 200.0;
    uint64_t binned = 0;
    for (int32_t i = 0; i < MPQC_HIST_BINS; i++) binned += h->bins[i];
    double zeros = (double)(h->count - binned);
    double width = ldexp(1.0, h->exp);

    double seen = 0;
    *lo = h->min;
    for (int32_t i = 0; i < MPQC_HIST_BINS; i++) {
        double c = (double)h->bins[i];
        if (i == MPQC_HIST_HALF && zeros > 0) {
            if (seen + zeros > cut) { *lo = 0; break; }
            seen += zeros;
        }
        if (c > 0 && seen + c > cut) {
            *lo = bin_edge(h, i) + width * (cut - seen) / c;
            break;
        }
        seen += c;
    }
    seen = 0;
    *hi = h->max;
    for (int32_t i = MPQC_HIST_BINS - 1; i >= 0; i--) {
        double c = (double)h->bins[i];
        if (c > 0 && seen + c > cut) {
            *hi = bin_edge(h, i + 1) - width * (cut - seen) / c;
            break;
        }
        seen += c;
        if (i == MPQC_HIST_HALF && zeros > 0) {
            if (seen + zeros > cut) { *hi = 0; break; }
            seen += zeros;
        }
    }
    *lo = clamp(*lo, h->min, h->max);
    *hi = clamp(*hi, *lo, h->max);
}

/* Kullback-Leibler divergence between the first `t` magnitude bins (all that lies
 * beyond them moved into the last) and their quantisation to `levels` levels. */
static double divergence(const double *m, int32_t t, double beyond, int32_t levels)
{
    double total_p = beyond, total_q = 0, kl = 0;
    for (int32_t i = 0; i < t; i++) {
        total_p += m[i];
        total_q += m[i];
    }
    if (total_q <= 0 || total_p <= 0) return INFINITY;
    for (int32_t l = 0; l < levels; l++) {
        int32_t a = (int32_t)((int64_t)l * t / levels);
        int32_t b = (int32_t)((int64_t)(l + 1) * t / levels);
        double sum = 0;
        int32_t filled = 0;
        for (int32_t i = a; i < b; i++) {
            sum += m[i];
            filled += m[i] > 0;
        }
        for (int32_t i = a; i < b; i++) {
            double p = m[i] + (i == t - 1 ? beyond : 0);
            if (p <= 0) continue;
            /* an empty last bin that receives the outliers has no mass in q */
            double q = m[i] > 0 ? sum / filled : 1e-4;
            kl += p / total_p * log((p / total_p) / (q / total_q));
        }
    }
    return kl;
}

/* S. Migacz, "8-bit inference with TensorRT", GTC 2017: the threshold whose
 * clipped distribution loses the least information.  The threshold is one
 * magnitude for both signs; one-sided data uses all levels on its side. */
static void range_kl(const struct mpqc_histogram *h, unsigned levels, double *lo, double *hi)
{
    double m[MPQC_HIST_HALF];
    int32_t used = 0;
    for (int32_t k = 0; k < MPQC_HIST_HALF; k++) {
        m[k] = (double)h->bins[MPQC_HIST_HALF + k] + (double)h->bins[MPQC_HIST_HALF - 1 - k];
        if (m[k] > 0) used = k + 1;
    }
    bool one_sided = h->min >= 0 || h->max <= 0;
    int32_t n = one_sided ? (int32_t)levels : (int32_t)(levels + 1) / 2;
    double beyond = 0, best = INFINITY;
    int32_t best_t = used;
    for (int32_t t = used; t >= n; t--) {
        double kl = divergence(m, t, beyond, n);
        if (kl < best) {
            best = kl;
            best_t = t;
        }
        beyond += m[t - 1];
    }
    double threshold = ldexp((double)best_t, h->exp);
    *lo = clamp(h->min, -threshold, threshold);
    *hi = clamp(h->max, -threshold, threshold);
}

/* Prefix sums of count, x and x^2 over bins, with x the bin's centre. */
struct moments {
    double n[MPQC_HIST_BINS + 1], x[MPQC_HIST_BINS + 1], xx[MPQC_HIST_BINS + 1];
};

static void find_moments(const struct mpqc_histogram *h, struct moments *m)
{
    m->n[0] = m->x[0] = m->xx[0] = 0;
    for (int32_t i = 0; i < MPQC_HIST_BINS; i++) {
        double c = (double)h->bins[i];
        double x = clamp(bin_edge(h, i) + ldexp(0.5, h->exp), h->min, h->max);
        m->n[i + 1] = m->n[i] + c;
        m->x[i + 1] = m->x[i] + c * x;
        m->xx[i + 1] = m->xx[i] + c * x * x;
    }
}

static int32_t bin_below(const struct mpqc_histogram *h, double lo)
{
    return (int32_t)clamp(floor(ldexp(lo, -h->exp)) + MPQC_HIST_HALF, 0, MPQC_HIST_BINS);
}

static int32_t bin_above(const struct mpqc_histogram *h, double hi)
{
    return (int32_t)clamp(ceil(ldexp(hi, -h->exp)) + MPQC_HIST_HALF, 0, MPQC_HIST_BINS);
}

/* Sum of (lo - x)^2 over the data below lo, and of (x - hi)^2 above hi. */
static double clipped_below(const struct moments *m, const struct mpqc_histogram *h, double lo)
{
    int32_t a = bin_below(h, lo);
    return m->xx[a] - 2 * lo * m->x[a] + lo * lo * m->n[a];
}

static double clipped_above(const struct moments *m, const struct mpqc_histogram *h, double hi)
{
    const int32_t b = bin_above(h, hi), e = MPQC_HIST_BINS;
    return (m->xx[e] - m->xx[b]) - 2 * hi * (m->x[e] - m->x[b]) + hi * hi * (m->n[e] - m->n[b]);
}

/* Squared error of clipping to [lo, hi] plus rounding noise step^2 / 12 inside. */
static double expected_error(const struct moments *m, const struct mpqc_histogram *h, double lo,
                             double hi, unsigned levels)
{
    double step = (fmax(hi, 0) - fmin(lo, 0)) / levels;
    int32_t a = bin_below(h, lo), b = bin_above(h, hi);
    double inside = b > a ? m->n[b] - m->n[a] : 0;
    return clipped_below(m, h, lo) + clipped_above(m, h, hi) + inside * step * step / 12;
}

/* With so few levels the density changes within a step, and step^2 / 12 is far off. */
#define FEW_LEVELS 3u

/* Squared error of [lo, hi] in `levels` steps, code by code. */
static double error_of_codes(const struct moments *m, const struct mpqc_histogram *h, double lo,
                             double hi, unsigned levels)
{
    double bottom = fmin(lo, 0), step = (fmax(hi, 0) - bottom) / levels, sum = 0;
    double zero = step > 0 ? floor(-bottom / step + 0.5) : 0;
    for (unsigned code = 0; code <= levels; code++) {
        double x = (code - zero) * step;
        int32_t a = code == 0 ? 0 : bin_below(h, x - step / 2);
        int32_t b = code == levels ? MPQC_HIST_BINS : bin_below(h, x + step / 2);
        sum += m->xx[b] - m->xx[a] - 2 * x * (m->x[b] - m->x[a]) + x * x * (m->n[b] - m->n[a]);
    }
    return sum;
}

/* Least expected squared error, each end shrunk on its own. */
static void range_mse(const struct mpqc_histogram *h, unsigned levels, double *lo, double *hi)
{
    enum { STEPS = 64 };
    bool few = levels <= FEW_LEVELS;
    struct moments m;
    find_moments(h, &m);
    double best = INFINITY;
    double from = h->min, to = h->max;
    *lo = from;
    *hi = to;
    for (int i = STEPS; i > 0; i--) {
        for (int j = STEPS; j > 0; j--) {
            double l = from < 0 ? from * i / STEPS : from;
            double r = to > 0 ? to * j / STEPS : to;
            double e = l > r ? INFINITY
                       : few ? error_of_codes(&m, h, l, r, levels)
                             : expected_error(&m, h, l, r, levels);
            if (e < best) {
                best = e;
                *lo = l;
                *hi = r;
            }
            if (to <= 0) break;
        }
        if (from >= 0) break;
    }
}

/* The percentile, but never so narrow that what is clipped has more than CLIPPED of the
 * energy of all: 50 dB down, well below the noise of rounding to 8 bits.  Where rare
 * large values carry the information, almost nothing is cut. */
#define CLIPPED 1e-5
static void range_auto(const struct mpqc_histogram *h, double percentile, double *lo, double *hi)
{
    struct moments m;
    double width = ldexp(1.0, h->exp);
    range_percentile(h, percentile, lo, hi);
    find_moments(h, &m);
    double most = CLIPPED * m.xx[MPQC_HIST_BINS];
    while (*lo > h->min && clipped_below(&m, h, *lo) > most) *lo = fmax(*lo - width, h->min);
    while (*hi < h->max && clipped_above(&m, h, *hi) > most) *hi = fmin(*hi + width, h->max);
}

void mpqc_hist_range(const struct mpqc_histogram *h, enum mpqc_calibration method,
                     double percentile, unsigned levels, double *lo, double *hi)
{
    *lo = *hi = 0;
    if (h->count == 0) return;
    *lo = h->min;
    *hi = h->max;
    if (h->min == h->max) return;
    switch (method) {
    case MPQC_CALIB_AUTO: range_auto(h, percentile, lo, hi); break;
    case MPQC_CALIB_MINMAX: break;
    case MPQC_CALIB_PERCENTILE: range_percentile(h, percentile, lo, hi); break;
    case MPQC_CALIB_KL: range_kl(h, levels, lo, hi); break;
    case MPQC_CALIB_MSE: range_mse(h, levels, lo, hi); break;
    }
}
