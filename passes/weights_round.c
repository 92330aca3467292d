/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Rounding of weights to few bits; see weights.h.
 *
 * With the damped second moments H = L L^T of the inputs, the expected squared error of
 * a channel is |L^T d|^2 for d = w - s q.  Component j of L^T d holds d[j] and the d
 * behind it only, so going from the last weight to the first, each one is rounded to
 * what makes its component least given the ones before.  That is GPTQ (the column
 * updates with the Cholesky factor of the inverse, written without the inverse; Chen et
 * al., "The Geometry of LLM Quantization", 2025, show it to be Babai's nearest plane).
 * Weights with the largest moment go first.  Then single codes are moved as long as
 * that lowers the error, and the scale is fitted to the codes; three times.
 *
 * LANES channels are computed at once, one in each lane of a vector; all arithmetic is
 * lane by lane, so the result depends neither on the machine nor on the threads.
 */
#include "ir/op.h"
#include "passes/weights.h"

#include <math.h>

#define LANES 16
/* Vectors go by pointer between functions: machines differ in how they take them by
 * value. */
typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));

/* Added to the diagonal, as a share of its mean: so much, and so much for each weight per
 * window.  Moments of n windows are wrong by k / n of their mean in every direction, and what
 * they leave open, above all where n < k, must stay as it was trained: without the second
 * share, rounding learns the calibration samples by heart and does worse on all others. */
#define DAMPING 0.01
#define DAMPING_PER_WINDOW 1.0
/* A negative variance is the rounding error of its sums; so many times the largest is added. */
#define OVER_NOISE 4
#define CLIP_STEPS 100
#define CLIP_LEAST 0.2
/* Scales tried around the one of the least error without compensation. */
static const float scale_trials[] = {1.0f, 0.94f, 0.88f, 0.82f, 1.06f, 0.76f, 1.12f, 0.70f};
/* Multiply-adds that a layer may cost per trial. */
#define TRIAL_WORK 3e10
#define REFINEMENTS 3
#define SWEEPS 8

enum mpqc_dtype mpqc_weight_dtype(unsigned bits)
{
    switch (bits) {
    case 8: return MPQC_DT_I8;
    case 6: return MPQC_DT_I6;
    case 5: return MPQC_DT_I5;
    case 4: return MPQC_DT_I4;
    case 3: return MPQC_DT_I3;
    case 2: return MPQC_DT_I2;
    default: MPQC_ASSERT(bits == 1); return MPQC_DT_I1;
    }
}

int64_t mpqc_weight_group(const struct mpqc_options *o, unsigned bits, const struct mpqc_type *w)
{
    bool fits = bits >= MPQC_GROUP_LEAST_BITS && bits <= MPQC_GROUP_MOST_BITS && w->rank == 2;
    return fits && w->dims[0] > o->group_size ? o->group_size : 0;
}

struct rounder {
    const struct mpqc_round *r;
    struct mpqc_arena arena;
    int64_t *order;      /* position -> row of w; last positions are rounded first */
    int64_t *member;     /* positions, one group after the other */
    int64_t group;       /* positions of one; all but the last are full */
    float *h, *l;        /* [k][k] by position: damped moments, their factor; or NULL */
    float *importance;   /* [k] by position: diagonal of h, or ones */
    float lo, hi;
    unsigned trials;
};

/* Memory of one worker: vectors by position. */
struct lanes {
    vec *w, *t, *q, *best, *hw, *u;
    vec *f; /* factor of the position's group */
};

MPQC_CLONES static void add_scaled(vec *restrict t, const float *restrict a, int64_t n,
                                   const vec *restrict by)
{
    vec d = *by;
    for (int64_t i = 0; i < n; i++) t[i] += a[i] * d;
}

/* to = h x, for a symmetric h. */
MPQC_CLONES static void product(vec *restrict to, const float *restrict h, const vec *restrict x,
                                int64_t k)
{
    for (int64_t i = 0; i < k; i++) to[i] = (vec){0};
    for (int64_t j = 0; j < k; j++) {
        vec d = x[j];
        const float *row = h + j * k;
        for (int64_t i = 0; i < k; i++) to[i] += row[i] * d;
    }
}

#define SPLAT(x) ((vec){0} + (x))
/* Lane by lane: a < b ? then : otherwise. */
#define SELECT_LESS(a, b, then, otherwise)                                                        \
    ((vec)(((ivec)(then) & ((a) < (b))) | ((ivec)(otherwise) & ~((a) < (b)))))
/* 1 where a scale is 0. */
#define NOT_ZERO(scale) SELECT_LESS((scale) * (scale), SPLAT(1e-36f), SPLAT(1.0f), scale)

/* To the nearest code: whole numbers in [lo, hi], ties to even; of 1 bit, a sign. */
static void round_to(const struct rounder *s, vec *p)
{
    if (s->r->bits == 1) {
        *p = SELECT_LESS(*p, SPLAT(0.0f), SPLAT(-1.0f), SPLAT(1.0f));
        return;
    }
    float lo = s->lo, hi = s->hi;
    const vec magic = SPLAT(12582912.0f); /* 1.5 * 2^23 */
    vec x = *p;
    x = SELECT_LESS(x, SPLAT(lo), SPLAT(lo), x);
    x = SELECT_LESS(SPLAT(hi), x, SPLAT(hi), x);
    *p = (x + magic) - magic;
}

/* ---- the scale without compensation ------------------------------------------------- */

/* Some positions of one lane. */
struct part {
    const int64_t *at;
    int64_t n;
    int lane;
};

static struct part part_of(const struct rounder *s, int64_t group, int lane)
{
    int64_t first = group * s->group, left = s->r->k - first;
    return (struct part){s->member + first, left < s->group ? left : s->group, lane};
}

static double clip_error(const struct rounder *s, const struct lanes *b, const struct part *p,
                         float scale, double stop)
{
    double sum = 0;
    float inverse = 1.0f / scale;
    for (int64_t j = 0; j < p->n && sum < stop; j++) {
        int64_t i = p->at[j];
        float x = b->w[i][p->lane], q = x * inverse;
        q = q < s->lo ? s->lo : q > s->hi ? s->hi : q;
        q = (q + 12582912.0f) - 12582912.0f;
        float e = x - q * scale;
        sum += (double)(s->importance[i] * e * e);
    }
    return sum;
}

/* Of signs: sum h (|w| - s)^2 is least at the mean of |w| (XNOR-Net, equation 6). */
static float sign_scale(const struct rounder *s, const struct lanes *b, const struct part *p)
{
    double sum = 0, all = 0;
    for (int64_t j = 0; j < p->n; j++) {
        int64_t i = p->at[j];
        sum += (double)s->importance[i] * fabs((double)b->w[i][p->lane]);
        all += (double)s->importance[i];
    }
    return all > 0 ? (float)(sum / all) : 0;
}

/* Of least weighted squared error; 0 where all weights are 0. */
static float search_scale(const struct rounder *s, const struct lanes *b, const struct part *p)
{
    float top = 0, bottom = 0, best = 0;
    if (s->r->bits == 1) return sign_scale(s, b, p);
    for (int64_t j = 0; j < p->n; j++) {
        top = fmaxf(top, b->w[p->at[j]][p->lane]);
        bottom = fminf(bottom, b->w[p->at[j]][p->lane]);
    }
    if (top == 0 && bottom == 0) return 0;
    double least = INFINITY;
    int steps = s->r->clip == MPQC_CLIP_MSE ? CLIP_STEPS : 1;
    for (int sign = 1; sign >= -1; sign -= 2) {
        float up = sign > 0 ? top : -bottom, down = sign > 0 ? -bottom : top;
        float full = fmaxf(up / s->hi, down / -s->lo);
        for (int i = 0; i < steps; i++) {
            float scale = (float)sign * full * (float)(1 - (1 - CLIP_LEAST) * i / CLIP_STEPS);
            double e = clip_error(s, b, p, scale, least);
            if (e < least) {
                least = e;
                best = scale;
            }
        }
    }
    return best;
}

static int64_t group_count(const struct rounder *s)
{
    return (s->r->k + s->group - 1) / s->group;
}

/* A channel's scale, and factors that make it the scales of its groups: the largest has the
 * largest factor that products with codes allow in 8 bits. */
static float choose_scale(const struct rounder *s, struct lanes *b, int lane, float *of_group)
{
    float most = 0, scale;
    if (s->r->group == 0) {
        struct part all = part_of(s, 0, lane);
        return search_scale(s, b, &all);
    }
    for (int64_t g = 0; g < group_count(s); g++) {
        struct part p = part_of(s, g, lane);
        of_group[g] = search_scale(s, b, &p);
        most = fmaxf(most, fabsf(of_group[g]));
    }
    scale = most / (float)mpqc_groups_most(s->r->bits);
    for (int64_t g = 0; g < group_count(s); g++) {
        struct part p = part_of(s, g, lane);
        float factor = scale > 0 ? fmaxf(rintf(fabsf(of_group[g]) / scale), 1) : 1;
        for (int64_t j = 0; j < p.n; j++) b->f[p.at[j]][lane] = copysignf(factor, of_group[g]);
    }
    return scale;
}

static float limited(const struct rounder *s, float scale)
{
    float most = (float)s->r->largest_scale;
    return most > 0 && fabsf(scale) > most ? copysignf(most, scale) : scale;
}

/* ---- rounding ------------------------------------------------------------------------ */

/* Codes for these scales into b->q; the error of each lane. */
static void round_gptq(const struct rounder *s, struct lanes *b, const vec *scale, vec *error)
{
    int64_t k = s->r->k;
    vec loss = {0}, safe = NOT_ZERO(*scale), inverse = 1.0f / safe;
    for (int64_t i = 0; i < k; i++) b->t[i] = (vec){0};
    for (int64_t j = k - 1; j >= 0; j--) {
        float pivot = s->l[j * k + j];
        vec q = (b->w[j] + b->t[j] / pivot) * inverse / b->f[j];
        round_to(s, &q);
        q *= b->f[j];
        vec d = b->w[j] - q * safe, e = pivot * d + b->t[j];
        b->q[j] = q;
        loss += e * e;
        add_scaled(b->t, s->l + j * k, j, &d);
    }
    *error = loss;
}

static void round_nearest(const struct rounder *s, struct lanes *b, const vec *scale, vec *error)
{
    vec loss = {0}, safe = NOT_ZERO(*scale), inverse = 1.0f / safe;
    for (int64_t i = 0; i < s->r->k; i++) {
        b->q[i] = b->w[i] * inverse / b->f[i];
        round_to(s, &b->q[i]);
        b->q[i] *= b->f[i];
        vec d = b->w[i] - b->q[i] * safe;
        loss += s->importance[i] * (d * d);
    }
    *error = loss;
}

/* The best of some scales; codes in b->best. */
static void try_scales(const struct rounder *s, struct lanes *b, vec *scale, vec *loss)
{
    vec first = *scale, best = *scale;
    *loss = SPLAT(INFINITY);
    for (unsigned i = 0; i < s->trials; i++) {
        vec now = first * scale_trials[i];
        for (int lane = 0; lane < LANES; lane++) now[lane] = limited(s, now[lane]);
        vec e;
        (s->l ? round_gptq : round_nearest)(s, b, &now, &e);
        for (int64_t j = 0; j < s->r->k; j++)
            b->best[j] = SELECT_LESS(e, *loss, b->q[j], b->best[j]);
        best = SELECT_LESS(e, *loss, now, best);
        *loss = SELECT_LESS(e, *loss, e, *loss);
    }
    *scale = best;
}

/* Scale of least error for the codes b->best: (w' H q) / (q' H q); leaves H q in u. */
static void fit_scale(const struct rounder *s, struct lanes *b, vec *scale)
{
    int64_t k = s->r->k;
    product(b->u, s->h, b->best, k);
    for (int lane = 0; lane < LANES; lane++) {
        double wu = 0, qu = 0;
        for (int64_t i = 0; i < k; i++) {
            wu += (double)b->w[i][lane] * (double)b->u[i][lane];
            qu += (double)b->best[i][lane] * (double)b->u[i][lane];
        }
        float fitted = qu > 0 ? (float)(wu / qu) : 0;
        bool same_sign = (fitted > 0) == ((*scale)[lane] > 0);
        if (fitted != 0 && same_sign) (*scale)[lane] = limited(s, fitted);
    }
}

/* Moves single codes while that helps.  The gradient is t = H (w - s q). */
static void descend(const struct rounder *s, struct lanes *b, const vec *scale)
{
    int64_t k = s->r->k;
    vec safe = NOT_ZERO(*scale), inverse = 1.0f / safe;
    for (int64_t i = 0; i < k; i++) b->t[i] = b->hw[i] - safe * b->u[i];
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        bool moved = false;
        for (int64_t i = k - 1; i >= 0; i--) {
            vec q = (b->best[i] + b->t[i] * inverse / s->h[i * k + i]) / b->f[i];
            round_to(s, &q);
            q *= b->f[i];
            vec step = q - b->best[i];
            bool any = false;
            for (int lane = 0; lane < LANES; lane++) any = any || step[lane] != 0;
            if (!any) continue;
            b->best[i] = q;
            step *= -safe;
            add_scaled(b->t, s->h + i * k, k, &step);
            moved = true;
        }
        if (!moved) break;
    }
}

static void error_of(const struct rounder *s, struct lanes *b, const vec *scale, vec *error)
{
    vec sum = {0};
    int64_t k = s->r->k;
    for (int64_t i = 0; i < k; i++) b->q[i] = b->w[i] - b->best[i] * *scale;
    product(b->u, s->h, b->q, k);
    for (int64_t i = 0; i < k; i++) sum += b->q[i] * b->u[i];
    *error = sum;
}

/* ---- channels ---------------------------------------------------------------------------- */

/* The weights that would make the targets, were they not rounded:
 * w + H^-1 (E[x t] - H w). */
static void aim(const struct rounder *s, struct lanes *b, int64_t first, int n)
{
    const struct mpqc_moments *m = s->r->moments;
    int64_t k = s->r->k;
    product(b->t, s->h, b->w, k);
    for (int64_t i = 0; i < k; i++) {
        vec target = {0};
        float damping = s->h[i * k + i] - m->xx[s->order[i] * (k + 1)];
        for (int lane = 0; lane < n; lane++)
            target[lane] = m->xt[s->order[i] * m->channels + first + lane];
        b->t[i] = target + damping * b->w[i] - b->t[i];
    }
    for (int64_t i = 0; i < k; i++) { /* L y = t */
        vec sum = b->t[i];
        const float *row = s->l + i * k;
        for (int64_t j = 0; j < i; j++) sum -= row[j] * b->t[j];
        b->t[i] = sum / row[i];
    }
    for (int64_t i = k - 1; i >= 0; i--) { /* L^T d = y */
        vec d = b->t[i] / s->l[i * k + i], less = -d;
        add_scaled(b->t, s->l + i * k, i, &less);
        b->w[i] += d;
    }
}

static void load(const struct rounder *s, struct lanes *b, int64_t first, int n)
{
    for (int64_t i = 0; i < s->r->k; i++) {
        b->w[i] = (vec){0};
        for (int lane = 0; lane < n; lane++)
            b->w[i][lane] = s->r->w[s->order[i] * s->r->stride + first + lane];
    }
}

static void store(const struct rounder *s, const struct lanes *b, int64_t first, int n,
                  const vec *scales, const vec *loss)
{
    vec scale = *scales;
    bool signs = s->r->bits == 1; /* which have no 0: see settle_channel */
    for (int64_t i = 0; i < s->r->k; i++)
        for (int lane = 0; lane < n; lane++)
            s->r->q[s->order[i] * s->r->stride + first + lane] =
                scale[lane] == 0 && !signs ? 0 : (int8_t)b->best[i][lane];
    for (int lane = 0; lane < n; lane++) {
        s->r->scale[first + lane] = scale[lane];
        if (s->r->loss) s->r->loss[first + lane] = (double)(*loss)[lane];
    }
    if (!s->r->factor || s->r->group == 0) return;
    for (int64_t g = 0; g < group_count(s); g++)
        for (int lane = 0; lane < n; lane++)
            s->r->factor[g * s->r->stride + first + lane] =
                (int8_t)b->f[s->member[g * s->group]][lane];
}

static bool make_lanes(struct lanes *b, struct mpqc_arena *arena, int64_t k)
{
    vec **all[] = {&b->w, &b->t, &b->q, &b->best, &b->hw, &b->u, &b->f};
    for (size_t i = 0; i < MPQC_LEN(all); i++) {
        char *p = mpqc_arena_alloc(arena, (size_t)(k + 1) * sizeof(vec));
        if (!p) return false;
        *all[i] = (vec *)(void *)(p + (sizeof(vec) - (uintptr_t)p % sizeof(vec)) % sizeof(vec));
    }
    for (int64_t i = 0; i < k; i++) b->f[i] = SPLAT(1.0f);
    return true;
}

static mpqc_status round_chunk(void *user, unsigned worker, uint64_t index)
{
    const struct rounder *s = user;
    struct mpqc_arena arena;
    struct lanes b;
    int64_t first = (int64_t)index * LANES, left = s->r->channels - first;
    int n = left < LANES ? (int)left : LANES;
    vec scale = {0}, loss;
    (void)worker;
    mpqc_arena_init(&arena, &mpqc_malloc_allocator);
    float *of_group = MPQC_NEW_ARRAY(&arena, float, (size_t)group_count(s));
    if (!of_group || !make_lanes(&b, &arena, s->r->k)) {
        mpqc_arena_release(&arena);
        return MPQC_NO_MEMORY;
    }
    load(s, &b, first, n);
    if (s->l && s->r->moments->xt) aim(s, &b, first, n);
    for (int lane = 0; lane < n; lane++) scale[lane] = limited(s, choose_scale(s, &b, lane, of_group));
    try_scales(s, &b, &scale, &loss);
    if (s->l) {
        product(b.hw, s->h, b.w, s->r->k);
        for (int i = 0; i < REFINEMENTS; i++) {
            fit_scale(s, &b, &scale);
            descend(s, &b, &scale);
        }
        fit_scale(s, &b, &scale);
        error_of(s, &b, &scale, &loss);
    }
    store(s, &b, first, n, &scale, &loss);
    mpqc_arena_release(&arena);
    return MPQC_OK;
}

/* ---- the layer ----------------------------------------------------------------------------- */

struct ranked {
    float moment;
    int64_t row;
};

static int by_moment(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->moment != y->moment) return x->moment < y->moment ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

static bool order_rows(struct rounder *s)
{
    int64_t k = s->r->k;
    const struct mpqc_moments *m = s->r->moments;
    struct ranked *ranked = MPQC_NEW_ARRAY(&s->arena, struct ranked, (size_t)k);
    s->order = MPQC_NEW_ARRAY(&s->arena, int64_t, (size_t)k);
    s->importance = MPQC_NEW_ARRAY(&s->arena, float, (size_t)k);
    if (s->arena.failed) return false;
    for (int64_t i = 0; i < k; i++)
        ranked[i] = (struct ranked){m ? m->xx[i * k + i] : 1, i};
    if (m) qsort(ranked, (size_t)k, sizeof *ranked, by_moment);
    for (int64_t i = 0; i < k; i++) {
        s->order[i] = ranked[i].row;
        s->importance[i] = ranked[i].moment;
    }
    return true;
}

/* Groups of rows, as positions. */
static bool list_groups(struct rounder *s)
{
    int64_t k = s->r->k;
    s->group = s->r->group ? s->r->group : k > 0 ? k : 1;
    s->member = MPQC_NEW_ARRAY(&s->arena, int64_t, (size_t)k);
    if (s->arena.failed) return false;
    for (int64_t i = 0; i < k; i++) s->member[s->r->group ? s->order[i] : i] = i;
    return true;
}

static mpqc_status factor(struct rounder *s)
{
    int64_t k = s->r->k;
    const struct mpqc_moments *m = s->r->moments;
    double trace = 0;
    if (!order_rows(s) || !list_groups(s)) return MPQC_NO_MEMORY;
    for (int64_t i = 0; i < k; i++) trace += (double)s->importance[i];
    double rows = m && m->rows ? (double)m->rows : INFINITY;
    float damping = (float)((DAMPING + DAMPING_PER_WINDOW * (double)k / rows) * trace /
                            (double)(k ? k : 1));
    if (m && k > 0) damping = fmaxf(damping, -OVER_NOISE * s->importance[0]); /* the least */
    if (!m || !(damping > 0)) {
        for (int64_t i = 0; m && i < k; i++) s->importance[i] = 1; /* inputs that never vary */
        return MPQC_OK;
    }
    for (int64_t i = 0; i < k; i++) s->importance[i] += damping;
    if (s->r->rounding == MPQC_ROUND_NEAREST) return MPQC_OK;
    s->h = MPQC_NEW_ARRAY(&s->arena, float, (size_t)(k * k));
    s->l = MPQC_NEW_ARRAY(&s->arena, float, (size_t)(k * k));
    if (s->arena.failed) return MPQC_NO_MEMORY;
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < k; j++) s->h[i * k + j] = m->xx[s->order[i] * k + s->order[j]];
        s->h[i * k + i] += damping;
    }
    memcpy(s->l, s->h, (size_t)(k * k) * sizeof *s->l);
    return mpqc_cholesky(s->l, k, damping, s->r->threads);
}

mpqc_status mpqc_round_weights(struct mpqc_cx *cx, const struct mpqc_round *r)
{
    struct rounder s = {.r = r};
    MPQC_ASSERT(r->bits >= 1 && r->bits <= 8);
    s.hi = r->bits == 1 ? 1 : (float)(1 << (r->bits - 1)) - 1;
    s.lo = r->bits == 8 || r->bits == 1 ? -s.hi : -s.hi - 1;
    mpqc_arena_init(&s.arena, cx->allocator);
    mpqc_status status = factor(&s);
    double work = (double)r->k * (double)r->k * (double)r->channels;
    s.trials = work > TRIAL_WORK ? 1 : work > TRIAL_WORK / 8 ? 4 : MPQC_LEN(scale_trials);
    if (!s.l) s.trials = 1;
    uint64_t chunks = (uint64_t)((r->channels + LANES - 1) / LANES);
    if (status == MPQC_OK) status = mpqc_for_each(r->threads, chunks, round_chunk, &s);
    mpqc_arena_release(&s.arena);
    return status == MPQC_NO_MEMORY ? MPQC_OOM(cx) : status;
}
