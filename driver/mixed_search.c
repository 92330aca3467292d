/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Search over budgets: the front of a cost against the predicted loss (HAWQ-V2, section
 * 3.2; ZeroQ, section 3.3), and the cheapest plan whose real accuracy is good enough.
 *
 * -max-drop, after "Augmenting Hessians with Inter-Layer Dependencies for Mixed-Precision
 * Post-Training Quantization" (Schaefer et al., 2023), section 3.3: bisection over the
 * budget, each plan judged by running the integer network on labelled samples.  The
 * predicted loss adds up layers as if they did not know of each other; so around the best
 * plan found single moves are measured as well, most promising first.
 */
#include "driver/cli.h"
#include "passes/bits_text.h"

#include <inttypes.h>
#include <math.h>

#define FRONT_POINTS 16
#define BISECTIONS 7
#define MOVES 6            /* plans measured around the incumbent */
#define SMALLEST_STEP 0.01 /* of the cost: closer budgets are not told apart */
#define MAX_TRIED 64

struct tried {
    uint32_t *chosen;
    double total[MPQC_RES_COUNT];
    struct mpqc_allocation allocation;
    double top1; /* NaN: not evaluated */
};

struct search {
    struct mpqc_mixed_job *j;
    const struct mpqc_strategy *strategy;
    enum mpqc_resource cost; /* what shall be small */
    struct tried tried[MAX_TRIED];
    uint32_t n;
    int32_t best; /* index, -1: none yet */
};

static struct mpqc_bits *bits_of(struct search *s) { return &s->j->out->bits; }

/* The entry of the plan in bits->chosen; -1 when the list is full or memory ran out. */
static int32_t remember(struct search *s, const struct mpqc_allocation *a)
{
    const struct mpqc_bits *b = bits_of(s);
    size_t bytes = b->n_layers * sizeof *b->chosen;
    for (uint32_t i = 0; i < s->n; i++)
        if (memcmp(s->tried[i].chosen, b->chosen, bytes) == 0) return (int32_t)i;
    if (s->n == MAX_TRIED) return -1;
    struct tried *t = &s->tried[s->n];
    t->chosen = mpqc_arena_copy(&s->j->passes->keep, b->chosen, bytes);
    if (!t->chosen) return -1;
    mpqc_bits_total(b, t->chosen, t->total);
    if (a) t->allocation = *a;
    memcpy(t->allocation.total, t->total, sizeof t->total);
    t->top1 = NAN;
    return (int32_t)s->n++;
}

/* The plan of least predicted loss with at most `limit` of the cost. */
static mpqc_status plan_within(struct search *s, double limit, int32_t *entry)
{
    struct mpqc_budget budget = s->j->out->budget;
    struct mpqc_allocation a;
    budget.objective = MPQC_RES_OMEGA;
    if (!budget.limited[s->cost] || budget.limit[s->cost] > limit) budget.limit[s->cost] = limit;
    budget.limited[s->cost] = true;
    MPQC_TRY(s->strategy->run(s->j->cx, bits_of(s), &budget, &a));
    *entry = remember(s, &a);
    return *entry < 0 ? MPQC_OOM(s->j->cx) : MPQC_OK;
}

/* Least and greatest cost that make sense: of the cheapest plan, and of the plan of
 * least loss. */
static mpqc_status cost_range(struct search *s, double *lo, double *hi)
{
    struct mpqc_budget budget = s->j->out->budget;
    struct mpqc_allocation a;
    budget.objective = s->cost;
    MPQC_TRY(mpqc_allocate_ilp(s->j->cx, bits_of(s), &budget, &a));
    *lo = a.total[s->cost];
    budget.objective = MPQC_RES_OMEGA;
    MPQC_TRY(mpqc_allocate_ilp(s->j->cx, bits_of(s), &budget, &a));
    *hi = a.total[s->cost];
    return MPQC_OK;
}

/* ---- real accuracy ---- */

static bool good_enough(const struct search *s, const struct tried *t)
{
    const struct mpqc_mixed *m = s->j->out;
    return m->float_top1 - t->top1 <= s->j->cli->mixed.max_drop + 1e-9;
}

/* The incumbent, so that whatever happens next, the best plan so far is on disk. */
static mpqc_status make_best(struct search *s, int32_t entry)
{
    struct mpqc_bits *b = bits_of(s);
    s->best = entry;
    memcpy(b->chosen, s->tried[entry].chosen, b->n_layers * sizeof *b->chosen);
    return mpqc_mixed_dump_config(s->j);
}

/* Evaluates an entry (once); the best is the cheapest that is good enough, or, before
 * there is one, the most accurate. */
static mpqc_status judge(struct search *s, int32_t entry)
{
    struct tried *t = &s->tried[entry];
    if (isnan(t->top1))
        MPQC_TRY(mpqc_mixed_evaluate(s->j, t->chosen, &t->top1));
    const struct tried *best = s->best < 0 ? NULL : &s->tried[s->best];
    bool good = good_enough(s, t), better = !best;
    if (best && good_enough(s, best)) better = good && t->total[s->cost] < best->total[s->cost];
    else if (best) better = good || t->top1 > best->top1;
    return better ? make_best(s, entry) : MPQC_OK;
}

static mpqc_status bisect(struct search *s)
{
    double lo, hi;
    int32_t entry;
    MPQC_TRY(cost_range(s, &lo, &hi));
    MPQC_TRY(plan_within(s, hi, &entry));
    MPQC_TRY(judge(s, entry));
    if (!good_enough(s, &s->tried[entry])) return MPQC_OK; /* nothing better to be had */
    bool failed = false;
    for (int i = 0; i < BISECTIONS && hi - lo > SMALLEST_STEP * hi; i++) {
        double mid = lo + (hi - lo) / 2;
        MPQC_TRY(plan_within(s, mid, &entry));
        MPQC_TRY(judge(s, entry));
        if (good_enough(s, &s->tried[entry])) {
            hi = s->tried[entry].total[s->cost];
        } else {
            lo = mid;
            failed = true;
        }
    }
    if (failed) return MPQC_OK;
    MPQC_TRY(plan_within(s, lo, &entry)); /* the cheapest of all was good enough so far */
    return judge(s, entry);
}

/* ---- around the incumbent ---- */

/* The best single move from the incumbent that was not tried yet: into bits->chosen;
 * false when there is none that saves enough. */
static bool next_move(struct search *s)
{
    struct mpqc_bits *b = bits_of(s);
    const struct tried *best = &s->tried[s->best];
    size_t bytes = b->n_layers * sizeof *b->chosen;
    uint32_t layer = 0, choice = 0;
    double least = INFINITY, total[MPQC_RES_COUNT];
    for (uint32_t l = 0; l < b->n_layers; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            memcpy(b->chosen, best->chosen, bytes);
            if (c == best->chosen[l] || !mpqc_bits_may(b, l, c)) continue;
            b->chosen[l] = c;
            if (!mpqc_bits_tied(b, b->chosen)) continue;
            mpqc_bits_total(b, b->chosen, total);
            double saved = best->total[s->cost] - total[s->cost];
            if (saved < SMALLEST_STEP / 4 * best->total[s->cost]) continue;
            double price = (total[MPQC_RES_OMEGA] - best->total[MPQC_RES_OMEGA]) / saved;
            bool known = false;
            for (uint32_t i = 0; i < s->n; i++)
                known = known || memcmp(s->tried[i].chosen, b->chosen, bytes) == 0;
            if (known || price >= least || !mpqc_budget_fits(&s->j->out->budget, total)) continue;
            least = price;
            layer = l;
            choice = c;
        }
    memcpy(b->chosen, best->chosen, bytes);
    if (least == INFINITY) return false;
    b->chosen[layer] = choice;
    return true;
}

static mpqc_status refine(struct search *s)
{
    for (int i = 0; i < MOVES && next_move(s); i++) {
        int32_t entry = remember(s, NULL);
        if (entry < 0) return MPQC_OK;
        MPQC_TRY(judge(s, entry));
    }
    return MPQC_OK;
}

/* ---- the front ---- */

static int by_cost(const struct search *s, const struct tried *a, const struct tried *b)
{
    double x = a->total[s->cost], y = b->total[s->cost];
    return x < y ? -1 : x > y;
}

static mpqc_status write_front(struct search *s)
{
    const struct mpqc_mixed *m = s->j->out;
    struct mpqc_buf text;
    mpqc_buf_init(&text);
    mpqc_buf_puts(&text, "size_bytes,latency_ns,bops,omega,top1,drop,plan\n");
    for (uint32_t i = 0; i < s->n; i++) {
        const struct tried *t = &s->tried[i];
        mpqc_buf_printf(&text, "%.0f,%.0f,%.0f,%.9g,", t->total[MPQC_RES_BYTES],
                        t->total[MPQC_RES_LATENCY], t->total[MPQC_RES_BOPS],
                        t->total[MPQC_RES_OMEGA]);
        if (!isnan(t->top1))
            mpqc_buf_printf(&text, "%.4f,%.4f,", t->top1, m->float_top1 - t->top1);
        else mpqc_buf_puts(&text, ",,");
        mpqc_bits_write_choices(&m->bits, t->chosen, &text);
        mpqc_buf_puts(&text, "\n");
    }
    mpqc_status status = mpqc_text_write(s->j->cx, s->j->cli->mixed.pareto, &text);
    mpqc_buf_release(&text);
    return status;
}

static mpqc_status front(struct search *s)
{
    double lo, hi;
    MPQC_TRY(cost_range(s, &lo, &hi));
    for (int i = 0; i < FRONT_POINTS; i++) {
        int32_t entry;
        /* from the precise end, so that a plan without a limit is there first */
        MPQC_TRY(plan_within(s, hi - (hi - lo) * i / (FRONT_POINTS - 1), &entry));
        if (s->j->eval.labels) MPQC_TRY(judge(s, entry));
    }
    return MPQC_OK;
}

/* ---- together ---- */

static void sort_by_cost(struct search *s)
{
    for (uint32_t i = 1; i < s->n; i++)
        for (uint32_t k = i; k > 0 && by_cost(s, &s->tried[k], &s->tried[k - 1]) < 0; k--) {
            struct tried t = s->tried[k];
            s->tried[k] = s->tried[k - 1];
            s->tried[k - 1] = t;
            if (s->best == (int32_t)k) s->best--;
            else if (s->best == (int32_t)k - 1) s->best++;
        }
}

/* Without -max-drop: the plan for the budgets, which without any is the most precise. */
static mpqc_status without_target(struct search *s)
{
    struct mpqc_mixed *m = s->j->out;
    if (m->budget.objective != MPQC_RES_OMEGA && !m->budget.limited[MPQC_RES_OMEGA])
        m->budget.objective = MPQC_RES_OMEGA;
    return s->strategy->run(s->j->cx, &m->bits, &m->budget, &m->allocation);
}

static void say_miss(const struct search *s)
{
    const struct mpqc_mixed *m = s->j->out;
    mpqc_warn(s->j->cx, MPQC_NOWHERE,
              "-max-drop=%g is missed: the most precise plan that the other bounds allow loses "
              "%.2f points (float %.2f %%, integer %.2f %% of %" PRIu64 " samples); it is compiled",
              s->j->cli->mixed.max_drop, m->float_top1 - m->top1, m->float_top1, m->top1,
              s->j->eval.by.n);
}

static mpqc_status finish(struct search *s)
{
    struct mpqc_mixed *m = s->j->out;
    m->searched = s->best >= 0;
    m->labelled = s->j->eval.by.n;
    m->labelled_what = s->j->eval.by.what;
    if (s->j->cli->mixed.pareto) {
        sort_by_cost(s);
        MPQC_TRY(write_front(s));
    }
    if (!s->j->cli->mixed.max_drop_set) return without_target(s);
    const struct tried *best = &s->tried[s->best];
    memcpy(m->bits.chosen, best->chosen, m->bits.n_layers * sizeof *best->chosen);
    m->allocation = best->allocation;
    m->top1 = best->top1;
    m->missed = !good_enough(s, best);
    if (m->missed) say_miss(s);
    return MPQC_OK;
}

static mpqc_status search(struct search *s)
{
    const struct mpqc_mixed_options *o = &s->j->cli->mixed;
    if (s->j->eval.labels)
        MPQC_TRY(mpqc_mixed_evaluate(s->j, NULL, &s->j->out->float_top1));
    if (o->pareto) MPQC_TRY(front(s));
    if (o->max_drop_set) {
        MPQC_TRY(bisect(s));
        if (good_enough(s, &s->tried[s->best])) MPQC_TRY(refine(s));
    }
    return finish(s);
}

mpqc_status mpqc_mixed_search(struct mpqc_mixed_job *j, const struct mpqc_strategy *strategy)
{
    const struct mpqc_mixed_options *o = &j->cli->mixed;
    struct search *s = calloc(1, sizeof *s);
    if (!s) return MPQC_OOM(j->cx);
    s->j = j;
    s->strategy = strategy;
    s->cost = o->minimize_set && o->minimize != MPQC_RES_OMEGA ? o->minimize : MPQC_RES_BYTES;
    s->best = -1;
    mpqc_status status = search(s);
    free(s);
    return status;
}
