/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the strategies of bit allocation share, and those that need no solver.
 */
#include "passes/allocate.h"

#include <float.h>
#include <math.h>

/* Budgets are met up to rounding of sums. */
#define TOLERANCE 1e-9

const struct mpqc_strategy mpqc_strategies[] = {
#define STRATEGY(name, function, doc) {name, function, doc},
#include "passes/strategies.def"
#undef STRATEGY
};
const uint32_t mpqc_n_strategies = MPQC_LEN(mpqc_strategies);

const struct mpqc_strategy *mpqc_strategy_find(const char *name)
{
    for (uint32_t i = 0; i < mpqc_n_strategies; i++)
        if (strcmp(mpqc_strategies[i].name, name) == 0) return &mpqc_strategies[i];
    return NULL;
}

static const struct {
    const char *text, *flag, *unit;
    double scale; /* table units per shown unit */
} resources[MPQC_RES_COUNT] = {{"bytes", "-max-size", "bytes", 1},
                               {"latency", "-max-latency", "us", 1e3},
                               {"bops", "-max-bops", "G", 1e9},
                               {"loss", "-max-omega", "", 1}};

const char *mpqc_resource_text(enum mpqc_resource r) { return resources[r].text; }

const double *mpqc_bits_table(const struct mpqc_bits *b, enum mpqc_resource r)
{
    switch (r) {
    case MPQC_RES_BYTES: return b->bytes;
    case MPQC_RES_LATENCY: return b->latency;
    case MPQC_RES_BOPS: return b->bops;
    default: return b->omega;
    }
}

bool mpqc_bits_tied(const struct mpqc_bits *b, const uint32_t *chosen)
{
    for (uint32_t l = 0; l < b->n_layers; l++)
        for (uint32_t k = 0; k < l; k++) {
            const struct mpqc_bits_layer *x = &b->layer[l], *y = &b->layer[k];
            if (x->shared == y->shared && chosen[l] != chosen[k]) return false;
            if (x->input_group == y->input_group &&
                mpqc_choices[chosen[l]].activation_bits != mpqc_choices[chosen[k]].activation_bits)
                return false;
        }
    return true;
}

void mpqc_bits_total(const struct mpqc_bits *b, const uint32_t *chosen, double total[MPQC_RES_COUNT])
{
    for (int r = 0; r < MPQC_RES_COUNT; r++) {
        const double *table = mpqc_bits_table(b, (enum mpqc_resource)r);
        total[r] = 0;
        for (uint32_t l = 0; table && l < b->n_layers; l++)
            total[r] += table[(size_t)l * mpqc_n_choices + chosen[l]];
    }
}

bool mpqc_budget_fits(const struct mpqc_budget *budget, const double total[MPQC_RES_COUNT])
{
    for (int r = 0; r < MPQC_RES_COUNT; r++)
        if (budget->limited[r] && total[r] > budget->limit[r] + TOLERANCE * fabs(budget->limit[r]))
            return false;
    return true;
}

/* The least that a resource can be, ties ignored: a lower bound. */
static double least(const struct mpqc_bits *b, enum mpqc_resource r)
{
    const double *table = mpqc_bits_table(b, r);
    double sum = 0;
    for (uint32_t l = 0; l < b->n_layers; l++) {
        double best = DBL_MAX;
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            if (mpqc_bits_may(b, l, c)) best = fmin(best, table[(size_t)l * mpqc_n_choices + c]);
        sum += best;
    }
    return sum;
}

mpqc_status mpqc_budget_infeasible(struct mpqc_cx *cx, const struct mpqc_bits *b,
                                   const struct mpqc_budget *budget)
{
    for (int r = 0; r < MPQC_RES_COUNT; r++) {
        if (!budget->limited[r]) continue;
        double low = least(b, (enum mpqc_resource)r);
        if (low > budget->limit[r])
            return MPQC_FAIL(cx, INFEASIBLE, MPQC_NOWHERE,
                             "%s: the budget of %.6g %s cannot be met; the least that the allowed "
                             "choices need is %.6g, which is %.6g more",
                             resources[r].flag, budget->limit[r] / resources[r].scale,
                             resources[r].unit, low / resources[r].scale,
                             (low - budget->limit[r]) / resources[r].scale);
    }
    return MPQC_FAIL(cx, INFEASIBLE, MPQC_NOWHERE,
                     "the budgets can each be met, but not together (with the pins and ties of this "
                     "network); relax one of them");
}

/* ---- moving tied layers together ---- */

/* Gives layer l the choice c, and whatever its ties ask of other layers: the same
 * choice where weights are shared; where inputs are, the same activation bits with
 * the weight bits they have.  False when some layer may not. */
static bool assign(const struct mpqc_bits *b, uint32_t *chosen, uint32_t l, uint32_t c)
{
    for (uint32_t k = 0; k < b->n_layers; k++) {
        uint32_t want = chosen[k];
        if (b->layer[k].shared == b->layer[l].shared) {
            want = c;
        } else if (b->layer[k].input_group == b->layer[l].input_group &&
                   mpqc_choices[want].activation_bits != mpqc_choices[c].activation_bits) {
            for (want = 0; want < mpqc_n_choices; want++)
                if (mpqc_choices[want].activation_bits == mpqc_choices[c].activation_bits &&
                    mpqc_choices[want].weight_bits == mpqc_choices[chosen[k]].weight_bits)
                    break;
            if (want == mpqc_n_choices) return false;
        }
        if (!mpqc_bits_may(b, k, want)) return false;
        chosen[k] = want;
    }
    return mpqc_bits_tied(b, chosen);
}

/* Most precise allowed choices; the table is ordered so. */
static void most_precise(const struct mpqc_bits *b, uint32_t *chosen)
{
    for (uint32_t l = 0; l < b->n_layers; l++)
        for (chosen[l] = 0; chosen[l] + 1 < mpqc_n_choices; chosen[l]++)
            if (mpqc_bits_may(b, l, chosen[l])) break;
}

static void finish(const struct mpqc_bits *b, struct mpqc_allocation *out)
{
    memset(out, 0, sizeof *out);
    mpqc_bits_total(b, b->chosen, out->total);
    MPQC_ASSERT(!isnan(out->total[MPQC_RES_OMEGA])); /* plans use what layers may have */
}

/* How far a plan is above its budgets, relative, summed. */
static double excess(const struct mpqc_budget *budget, const double total[MPQC_RES_COUNT])
{
    double sum = 0;
    for (int r = 0; r < MPQC_RES_COUNT; r++)
        if (budget->limited[r] && total[r] > budget->limit[r])
            sum += (total[r] - budget->limit[r]) / fmax(budget->limit[r], 1e-12);
    return sum;
}

/* One step of greedy: the move that lowers the excess at the least objective per unit
 * of excess removed.  False when no move lowers it. */
static bool greedy_step(const struct mpqc_bits *b, const struct mpqc_budget *budget, uint32_t *chosen,
                        uint32_t *trial, uint32_t *best)
{
    double now[MPQC_RES_COUNT], then[MPQC_RES_COUNT], best_score = DBL_MAX;
    size_t bytes = b->n_layers * sizeof *chosen;
    mpqc_bits_total(b, chosen, now);
    double over = excess(budget, now);
    for (uint32_t l = 0; l < b->n_layers; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            memcpy(trial, chosen, bytes);
            if (c == chosen[l] || !assign(b, trial, l, c)) continue;
            mpqc_bits_total(b, trial, then);
            double gain = over - excess(budget, then);
            if (gain <= 0) continue;
            double score = (then[budget->objective] - now[budget->objective]) / gain;
            if (score < best_score) {
                best_score = score;
                memcpy(best, trial, bytes);
            }
        }
    if (best_score == DBL_MAX) return false;
    memcpy(chosen, best, bytes);
    return true;
}

mpqc_status mpqc_allocate_greedy(struct mpqc_cx *cx, struct mpqc_bits *b,
                                 const struct mpqc_budget *budget, struct mpqc_allocation *out)
{
    uint32_t *work = calloc(2 * (size_t)b->n_layers + 1, sizeof *work);
    if (!work) return MPQC_OOM(cx);
    double total[MPQC_RES_COUNT];
    bool moved = true;
    most_precise(b, b->chosen);
    while (mpqc_bits_total(b, b->chosen, total), !mpqc_budget_fits(budget, total) && moved)
        moved = greedy_step(b, budget, b->chosen, work, work + b->n_layers);
    free(work);
    if (!moved) return mpqc_budget_infeasible(cx, b, budget);
    finish(b, out);
    return MPQC_OK;
}

mpqc_status mpqc_allocate_uniform(struct mpqc_cx *cx, struct mpqc_bits *b,
                                  const struct mpqc_budget *budget, struct mpqc_allocation *out)
{
    for (uint32_t c = 0; c < mpqc_n_choices; c++) {
        double total[MPQC_RES_COUNT];
        bool may = true;
        for (uint32_t l = 0; l < b->n_layers; l++) {
            b->chosen[l] = b->layer[l].pinned >= 0 ? (uint32_t)b->layer[l].pinned : c;
            may = may && mpqc_bits_may(b, l, b->chosen[l]);
        }
        if (!may || !mpqc_bits_tied(b, b->chosen)) continue;
        mpqc_bits_total(b, b->chosen, total);
        if (mpqc_budget_fits(budget, total)) {
            finish(b, out);
            return MPQC_OK;
        }
    }
    return mpqc_budget_infeasible(cx, b, budget);
}

/* xorshift64*; the plan must be the same on every machine. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1Dull;
}

/* How much of its budgets a plan uses, summed. */
static double used(const struct mpqc_budget *budget, const double total[MPQC_RES_COUNT])
{
    double sum = 0;
    for (int r = 0; r < MPQC_RES_COUNT; r++)
        if (budget->limited[r]) sum += total[r] / fmax(budget->limit[r], 1e-12);
    return sum;
}

/* Random moves that lower the excess, from the most precise plan on; then random moves
 * that use more of the budgets as long as they hold, so that the plan has the size asked
 * for and compares with others of that size. */
mpqc_status mpqc_allocate_random(struct mpqc_cx *cx, struct mpqc_bits *b,
                                 const struct mpqc_budget *budget, struct mpqc_allocation *out)
{
    uint64_t state = budget->seed * 0x9E3779B97F4A7C15ull + 0x1234567ull;
    size_t bytes = b->n_layers * sizeof(uint32_t);
    uint32_t *trial = calloc(b->n_layers + 1, sizeof *trial);
    if (!trial) return MPQC_OOM(cx);
    double now[MPQC_RES_COUNT], then[MPQC_RES_COUNT];
    most_precise(b, b->chosen);
    mpqc_bits_total(b, b->chosen, now);
    uint64_t tries = 400ull * b->n_layers * mpqc_n_choices;
    for (uint64_t i = 0; i < tries; i++) {
        uint32_t l = (uint32_t)(next_random(&state) >> 33) % b->n_layers;
        uint32_t c = (uint32_t)(next_random(&state) >> 33) % mpqc_n_choices;
        memcpy(trial, b->chosen, bytes);
        if (!assign(b, trial, l, c)) continue;
        mpqc_bits_total(b, trial, then);
        bool better = mpqc_budget_fits(budget, now)
                          ? mpqc_budget_fits(budget, then) && used(budget, then) >= used(budget, now)
                          : excess(budget, then) < excess(budget, now);
        if (!better) continue;
        memcpy(b->chosen, trial, bytes);
        memcpy(now, then, sizeof now);
    }
    free(trial);
    if (!mpqc_budget_fits(budget, now)) return mpqc_budget_infeasible(cx, b, budget);
    finish(b, out);
    return MPQC_OK;
}

/* Is the choice between the same things in both layers? */
static bool same_options(const struct mpqc_bits *b, uint32_t k, uint32_t l)
{
    for (uint32_t c = 0; c < mpqc_n_choices; c++)
        if (mpqc_bits_may(b, k, c) != mpqc_bits_may(b, l, c)) return false;
    return true;
}

/* The loss that quantising a layer costs, for ranking among layers with the same options:
 * the sum over these. */
static double rank_of(const struct mpqc_bits *b, uint32_t l)
{
    double sum = 0;
    for (uint32_t c = 0; c < mpqc_n_choices; c++)
        if (mpqc_bits_may(b, l, c)) sum += b->omega[(size_t)l * mpqc_n_choices + c];
    return sum / (double)(b->layer[l].params ? b->layer[l].params : 1);
}

/* Row `to` of out becomes that of layer `from`. */
static void move_row(const struct mpqc_bits *b, uint32_t from, uint32_t to, double *out)
{
    /* sensitivities are per parameter, so a row is scaled to the layer it goes to */
    double scale = (double)b->layer[to].params / (double)b->layer[from].params;
    for (size_t c = 0; c < mpqc_n_choices; c++)
        out[to * (size_t)mpqc_n_choices + c] = b->omega[from * (size_t)mpqc_n_choices + c] * scale;
}

/* Swaps the rows of all layers with the options of layer `first`; `order` is [n_layers]. */
static void reverse_rows(const struct mpqc_bits *b, uint32_t first, uint32_t *order, double *out)
{
    uint32_t n = 0;
    for (uint32_t l = first; l < b->n_layers; l++) { /* insertion sort by rank; n is small */
        if (!same_options(b, first, l)) continue;
        uint32_t i = n++;
        for (; i > 0 && rank_of(b, order[i - 1]) > rank_of(b, l); i--) order[i] = order[i - 1];
        order[i] = l;
    }
    for (uint32_t i = 0; i < n; i++) move_row(b, order[n - 1 - i], order[i], out);
}

/* The most sensitive layer gets the row of the least sensitive one, and so on: what
 * a plan is worth that takes the metric's word for its opposite (HAWQ-V2, table 7).
 * Among layers that have the same choices: no others are known of each. */
mpqc_status mpqc_allocate_reverse(struct mpqc_cx *cx, struct mpqc_bits *b,
                                  const struct mpqc_budget *budget, struct mpqc_allocation *out)
{
    size_t n = b->n_layers;
    double *swapped = calloc(n * mpqc_n_choices + 1, sizeof *swapped);
    uint32_t *order = calloc(n + 1, sizeof *order);
    if (!swapped || !order) {
        free(swapped);
        free(order);
        return MPQC_OOM(cx);
    }
    for (uint32_t l = 0; l < n; l++) {
        bool first = true; /* of the layers with its options */
        for (uint32_t k = 0; k < l; k++) first = first && !same_options(b, k, l);
        if (first) reverse_rows(b, l, order, swapped);
    }
    double *true_omega = b->omega;
    b->omega = swapped;
    mpqc_status status = mpqc_allocate_ilp(cx, b, budget, out);
    b->omega = true_omega;
    if (status == MPQC_OK) mpqc_bits_total(b, b->chosen, out->total);
    free(swapped);
    free(order);
    return status;
}

/* All plans of up to this many. */
#define BRUTE_LIMIT 50000000.0

mpqc_status mpqc_allocate_brute(struct mpqc_cx *cx, struct mpqc_bits *b,
                                const struct mpqc_budget *budget, struct mpqc_allocation *out)
{
    double plans = pow(mpqc_n_choices, b->n_layers), best = DBL_MAX, total[MPQC_RES_COUNT];
    if (plans > BRUTE_LIMIT)
        return MPQC_FAIL(cx, LIMIT_EXCEEDED, MPQC_NOWHERE,
                         "brute force would have to try %.3g plans for %u layers; use ilp", plans,
                         b->n_layers);
    uint32_t *trial = calloc(b->n_layers + 1, sizeof *trial);
    if (!trial) return MPQC_OOM(cx);
    uint32_t l;
    do {
        bool may = mpqc_bits_tied(b, trial);
        for (l = 0; l < b->n_layers && may; l++) may = mpqc_bits_may(b, l, trial[l]);
        if (may) mpqc_bits_total(b, trial, total);
        if (may && mpqc_budget_fits(budget, total) && total[budget->objective] < best) {
            best = total[budget->objective];
            memcpy(b->chosen, trial, b->n_layers * sizeof *trial);
        }
        for (l = 0; l < b->n_layers && ++trial[l] == mpqc_n_choices; l++) trial[l] = 0;
    } while (l < b->n_layers);
    free(trial);
    if (best == DBL_MAX) return mpqc_budget_infeasible(cx, b, budget);
    finish(b, out);
    out->proven = true;
    return MPQC_OK;
}
