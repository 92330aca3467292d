/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The decision about bits: layers -> pins -> sensitivity -> cost -> allocation.
 */
#include "driver/mixed.h"

#include "driver/cli.h"
#include "passes/bits_text.h"
#include "passes/cost.h"
#include "passes/pins.h"
#include "passes/weights.h"

#include <math.h>
#include <unistd.h>

static struct mpqc_where at_file(const char *file)
{
    return (struct mpqc_where){.file = file, .offset = -1};
}

/* ---- what each layer may have ---- */

static mpqc_status fill_allowed(struct mpqc_mixed_job *j)
{
    struct mpqc_bits *b = &j->out->bits;
    b->allowed = MPQC_NEW_ARRAY(&j->passes->keep, bool, (size_t)b->n_layers * mpqc_n_choices);
    if (!b->allowed) return MPQC_OOM(j->cx);
    for (uint32_t l = 0; l < b->n_layers; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            bool weights = b->layer[l].weights != MPQC_NONE || mpqc_choices[c].weight_bits == 8;
            bool input = !b->layer[l].no_wide || !mpqc_choice_wide(c);
            b->allowed[(size_t)l * mpqc_n_choices + c] = weights && input;
        }
    return MPQC_OK;
}

/* Special choices that layer l may have because another one, whose input is its own, is pinned
 * to as many bits. */
static uint32_t by_ties(const struct mpqc_bits *b, uint32_t l)
{
    uint32_t set = 0;
    for (uint32_t k = 0; k < b->n_layers; k++) {
        const struct mpqc_bits_layer *other = &b->layer[k];
        if (other->pinned < 0 || other->input_group != b->layer[l].input_group) continue;
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            if (mpqc_choice_special(c) && mpqc_choices[c].activation_bits ==
                                              mpqc_choices[other->pinned].activation_bits)
                set |= 1u << c;
    }
    return set;
}

/* -candidates, or all but those of 16 bits: these lose least and cost no bytes, so that any
 * budget of size alone would take them everywhere.  Those of 1 and 2 bits lose most, and are
 * candidates where they are measured (`counts`); drop_slow decides.  Pins are exempt, and
 * layers that can have none of them. */
static void restrict_candidates(struct mpqc_bits *b, uint32_t named, bool counts)
{
    uint32_t usual = 0;
    for (uint32_t c = 0; c < mpqc_n_choices; c++)
        if (!mpqc_choice_special(c) || (counts && mpqc_choice_counts(c))) usual |= 1u << c;
    for (uint32_t l = 0; l < b->n_layers; l++) {
        uint32_t candidates = (named ? named : usual) | by_ties(b, l);
        bool *row = b->allowed + (size_t)l * mpqc_n_choices, some = false;
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            some = some || (row[c] && candidates >> c & 1);
        for (uint32_t c = 0; some && c < mpqc_n_choices; c++)
            row[c] = row[c] && (candidates >> c & 1);
    }
}

/* What is offered only because it may be faster than 8 bits must be so. */
static void drop_slow(struct mpqc_bits *b)
{
    for (uint32_t l = 0; l < b->n_layers; l++) {
        const double *ns = b->latency + (size_t)l * mpqc_n_choices;
        uint32_t tied = by_ties(b, l);
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            if (mpqc_choice_counts(c) && !(tied >> c & 1) && !(ns[c] < ns[mpqc_choice_plain()]))
                b->allowed[(size_t)l * mpqc_n_choices + c] = false;
    }
}

static bool latency_matters(const struct mpqc_mixed_options *o)
{
    return o->limit[MPQC_RES_LATENCY].set || (o->minimize_set && o->minimize == MPQC_RES_LATENCY);
}

static bool is_measured(const struct mpqc_mixed_options *o)
{
    return o->cost == MPQC_COST_MEASURED || o->measure ||
           (o->cost == MPQC_COST_UNSET && latency_matters(o));
}

static mpqc_status read_pins(struct mpqc_mixed_job *j, struct mpqc_pins *pins)
{
    const struct mpqc_mixed_options *o = &j->cli->mixed;
    for (uint32_t i = 0; i < o->n_pins; i++) {
        const char *text;
        bool is_file = access(o->pins[i], F_OK) == 0;
        if (!is_file && !strchr(o->pins[i], '='))
            return MPQC_FAIL(j->cx, USAGE, at_file(o->pins[i]),
                             "-pin: this is neither a file nor a rule; a rule is PATTERN=CHOICE, "
                             "as in '^conv1$=w8a8'");
        if (!is_file) {
            MPQC_TRY(mpqc_pins_add(j->cx, pins, o->pins[i], "-pin"));
            continue;
        }
        MPQC_TRY(mpqc_text_read(j->cx, o->pins[i], &j->passes->keep, &text));
        MPQC_TRY(mpqc_pins_add_text(j->cx, pins, text, o->pins[i]));
    }
    return MPQC_OK;
}

static mpqc_status layers(struct mpqc_mixed_job *j)
{
    struct mpqc_bits *b = &j->out->bits;
    struct mpqc_pins pins = {.arena = &j->passes->keep};
    MPQC_TRY(mpqc_bits_collect(j->cx, j->graph, &j->passes->keep, b));
    if (b->n_layers == 0)
        return MPQC_FAIL(j->cx, UNSUPPORTED, at_file(j->cli->model),
                         "the network has no layer with weights, so there are no bits to decide "
                         "about");
    for (uint32_t l = 0; l < b->n_layers; l++)
        if (b->layer[l].weights != MPQC_NONE)
            b->layer[l].group =
                mpqc_weight_group(&j->cli->options, MPQC_GROUP_LEAST_BITS,
                                  &mpqc_value_at(j->graph, b->layer[l].weights)->type);
    MPQC_TRY(mpqc_bits_tie(j->passes, j->graph, b));
    mpqc_arena_reset(&j->passes->scratch);
    MPQC_TRY(fill_allowed(j));
    MPQC_TRY(read_pins(j, &pins));
    MPQC_TRY(mpqc_pins_apply(j->cx, &pins, b));
    bool counts = is_measured(&j->cli->mixed) && mpqc_target_bit_rate(j->target) > 0;
    restrict_candidates(b, j->cli->mixed.candidates, counts);
    b->chosen = MPQC_NEW_ARRAY(&j->passes->keep, uint32_t, b->n_layers);
    return b->chosen ? MPQC_OK : MPQC_OOM(j->cx);
}

/* ---- labels ---- */

static mpqc_status check_labels(struct mpqc_mixed_job *j, const int64_t *labels, uint64_t n)
{
    const char *path = j->cli->mixed.labels;
    const struct mpqc_type *t = &mpqc_value_at(j->graph, j->graph->outputs[0])->type;
    int64_t classes = mpqc_type_count(t);
    uint64_t samples = j->eval.by.data ? j->eval.by.data->count : j->samples;
    if (n != samples)
        return MPQC_FAIL(j->cx, DATA, at_file(path),
                         "%llu labels, but -%s has %llu samples; there must be one for each",
                         (unsigned long long)n, j->eval.by.data ? "eval" : "calib",
                         (unsigned long long)samples);
    for (uint64_t i = 0; i < n; i++)
        if (labels[i] < 0 || labels[i] >= classes)
            return MPQC_FAIL(j->cx, DATA, at_file(path),
                             "label %lld of sample %llu is no class: the network has %lld outputs",
                             (long long)labels[i], (unsigned long long)i, (long long)classes);
    return MPQC_OK;
}

/* In j's arena; NULL when none are given. */
static mpqc_status read_labels(struct mpqc_mixed_job *j, const int64_t **out, uint64_t *n)
{
    struct mpqc_data_error err;
    int64_t *labels;
    *out = NULL;
    *n = 0;
    if (!j->cli->mixed.labels) return MPQC_OK;
    if (mpqc_labels_open(j->cli->mixed.labels, &labels, n, &err))
        return MPQC_FAIL(j->cx, DATA, MPQC_NOWHERE, "%s", err.text);
    mpqc_status status = check_labels(j, labels, *n);
    *out = mpqc_arena_copy(&j->passes->keep, labels, *n * sizeof *labels);
    free(labels);
    return status == MPQC_OK && !*out ? MPQC_OOM(j->cx) : status;
}

static void choose_eval(struct mpqc_mixed_job *j, const int64_t *labels)
{
    struct mpqc_mixed_eval *e = &j->eval;
    uint64_t most = j->cli->mixed.eval_count;
    e->labels = labels;
    e->by = mpqc_judge_choose(e->by.data, j->passes->data, j->samples);
    if (most && most < e->by.n) e->by.n = most;
}

/* ---- sensitivity and cost ---- */

static mpqc_status dump_sensitivity(struct mpqc_mixed_job *j)
{
    struct mpqc_buf text;
    mpqc_buf_init(&text);
    mpqc_bits_write_omega(&j->out->bits, j->out->metric, &text);
    mpqc_status status = mpqc_text_write(j->cx, j->cli->mixed.dump_sensitivity, &text);
    mpqc_buf_release(&text);
    return status;
}

/* Fewer bits never lose less: metrics that look at a few samples may say so by chance,
 * and the solver would believe them.  Entries that are not known (NaN) take no part. */
static void make_monotone(struct mpqc_bits *b)
{
    for (uint32_t l = 0; l < b->n_layers; l++) {
        double *omega = b->omega + (size_t)l * mpqc_n_choices;
        /* the table of choices goes from most to least precise, so one sweep is enough */
        for (uint32_t d = 1; d < mpqc_n_choices; d++)
            for (uint32_t c = 0; c < d; c++) {
                const struct mpqc_choice *more = &mpqc_choices[c], *less = &mpqc_choices[d];
                bool fewer = less->weight_bits <= more->weight_bits &&
                             less->activation_bits <= more->activation_bits;
                double least = omega[c] * (1 + 1e-6);
                if (fewer && omega[d] < least) omega[d] = least;
            }
    }
}

static mpqc_status load_sensitivity(struct mpqc_mixed_job *j)
{
    const char *text, *path = j->cli->mixed.load_sensitivity;
    MPQC_TRY(mpqc_text_read(j->cx, path, &j->passes->keep, &text));
    return mpqc_bits_read_omega(j->cx, &j->out->bits, &j->passes->keep, text, path,
                                &j->out->metric);
}

static mpqc_status compute_sensitivity(struct mpqc_mixed_job *j, const int64_t *labels)
{
    const struct mpqc_mixed_options *o = &j->cli->mixed;
    const struct mpqc_metric *m = o->metric ? o->metric : &mpqc_metrics[0];
    /* a profile alone: the best that needs no samples */
    for (uint32_t i = 0; !o->metric && !j->passes->data && i < mpqc_n_metrics; i++)
        if (m->needs_data && !mpqc_metrics[i].needs_data) m = &mpqc_metrics[i];
    struct mpqc_sens_cx s = {.p = j->passes, .g = j->graph, .bits = &j->out->bits,
                             .labels = labels};
    MPQC_TRY(mpqc_sensitivity_run(&s, m));
    j->out->metric = m->name;
    return MPQC_OK;
}

static mpqc_status finish_sensitivity(struct mpqc_mixed_job *j)
{
    mpqc_arena_reset(&j->passes->scratch);
    make_monotone(&j->out->bits);
    return j->cli->mixed.dump_sensitivity ? dump_sensitivity(j) : MPQC_OK;
}

/* One core at 3 GHz that reaches four fifths of what the tile model says of its dot
 * products, weights from the L2 cache or beyond: a ranking of layers, and times within a
 * factor of two or three. */
static struct mpqc_machine machine_of(const struct mpqc_target *t)
{
    return (struct mpqc_machine){.macs_per_ns = 3.0 * 0.8 * mpqc_target_rate(t),
                                 .bits_per_ns = 3.0 * 0.8 * mpqc_target_bit_rate(t),
                                 .bytes_per_ns = 10,
                                 .unpack = 0.1,
                                 .start_ns = 200};
}

static mpqc_status costs(struct mpqc_mixed_job *j)
{
    const struct mpqc_mixed_options *o = &j->cli->mixed;
    struct mpqc_bits *b = &j->out->bits;
    struct mpqc_arena *keep = &j->passes->keep;
    struct mpqc_machine machine = machine_of(j->target);
    MPQC_TRY(mpqc_cost_bytes(j->cx, b, keep));
    MPQC_TRY(mpqc_cost_analytic(j->cx, j->graph, b, &machine, keep));
    j->out->cost = "analytic";
    if (!is_measured(o)) return MPQC_OK;
    j->out->cost = "measured";
    MPQC_TRY(mpqc_mixed_measure(j));
    if (!o->candidates) drop_slow(b);
    return MPQC_OK;
}

/* ---- the budget ---- */

static void resolve_budget(struct mpqc_mixed_job *j)
{
    const struct mpqc_mixed_options *o = &j->cli->mixed;
    struct mpqc_mixed *m = j->out;
    uint32_t *chosen = m->bits.chosen;
    for (uint32_t l = 0; l < m->bits.n_layers; l++) chosen[l] = mpqc_choice_plain();
    mpqc_bits_total(&m->bits, chosen, m->uniform);
    m->budget = (struct mpqc_budget){.seed = j->cli->seed};
    m->budget.objective = o->minimize_set                 ? o->minimize
                          : o->limit[MPQC_RES_OMEGA].set ? MPQC_RES_BYTES
                                                         : MPQC_RES_OMEGA;
    for (int r = 0; r < MPQC_RES_COUNT; r++) {
        const struct mpqc_amount *a = &o->limit[r];
        m->budget.limited[r] = a->set;
        m->budget.limit[r] = a->relative ? a->value * m->uniform[r] : a->value;
        /* a latency is that of the whole network; what is no layer is spent already */
        if (r == MPQC_RES_LATENCY && a->set)
            m->budget.limit[r] += (a->relative ? a->value : 0) * m->rest_ns - m->rest_ns;
    }
}

/* Without a goal: what is pinned, and what its ties ask for; all else w8a8. */
static mpqc_status only_pins(struct mpqc_mixed_job *j)
{
    struct mpqc_mixed *m = j->out;
    struct mpqc_bits *b = &m->bits;
    m->strategy = "uniform";
    for (uint32_t l = 0; l < b->n_layers; l++) {
        const struct mpqc_bits_layer *to = &b->layer[l];
        unsigned activation = 8;
        int32_t choice = to->pinned;
        for (uint32_t k = 0; k < b->n_layers; k++) {
            const struct mpqc_bits_layer *from = &b->layer[k];
            if (from->pinned < 0) continue;
            m->strategy = "pins";
            if (from->shared == to->shared && choice < 0) choice = from->pinned;
            if (from->input_group == to->input_group)
                activation = mpqc_choices[from->pinned].activation_bits;
        }
        for (uint32_t c = 0; choice < 0 && c < mpqc_n_choices; c++)
            if (mpqc_choices[c].weight_bits == 8 && mpqc_choices[c].activation_bits == activation)
                choice = (int32_t)c;
        b->chosen[l] = choice < 0 ? mpqc_choice_plain() : (uint32_t)choice;
    }
    mpqc_bits_total(b, b->chosen, m->allocation.total);
    if (mpqc_bits_tied(b, b->chosen)) return MPQC_OK;
    return MPQC_FAIL(j->cx, INFEASIBLE, MPQC_NOWHERE,
                     "the pinned layers share weights or inputs with others in a way that no plan "
                     "meets; pin those as well");
}

mpqc_status mpqc_mixed_dump_config(const struct mpqc_mixed_job *j)
{
    if (!j->cli->mixed.dump_config) return MPQC_OK;
    struct mpqc_buf text;
    mpqc_buf_init(&text);
    mpqc_bits_write_plan(&j->out->bits, j->out->bits.chosen,
                         "bits of every layer; mpqc -pin=FILE compiles this plan again", &text);
    mpqc_status status = mpqc_text_write(j->cx, j->cli->mixed.dump_config, &text);
    mpqc_buf_release(&text);
    return status;
}

static mpqc_status allocate(struct mpqc_mixed_job *j)
{
    const struct mpqc_mixed_options *o = &j->cli->mixed;
    struct mpqc_mixed *m = j->out;
    bool goal = o->max_drop_set || o->pareto || m->budget.objective != MPQC_RES_OMEGA;
    for (int r = 0; r < MPQC_RES_COUNT; r++) goal = goal || m->budget.limited[r];
    if (!goal) return only_pins(j);
    const struct mpqc_strategy *s = o->strategy ? o->strategy : mpqc_strategy_find("ilp");
    m->strategy = s->name;
    mpqc_cx_progress(j->cx, "allocate bits", 0, 0);
    if (o->pareto || o->max_drop_set) return mpqc_mixed_search(j, s);
    return s->run(j->cx, &m->bits, &m->budget, &m->allocation);
}

static bool omega_needed(const struct mpqc_mixed_options *o)
{
    bool needed = o->strategy || o->metric || o->minimize_set || o->max_drop_set || o->pareto ||
                  o->dump_sensitivity || o->load_sensitivity;
    for (int r = 0; r < MPQC_RES_COUNT; r++) needed = needed || o->limit[r].set;
    return needed;
}

static mpqc_status decide(struct mpqc_mixed_job *j)
{
    const int64_t *labels;
    uint64_t n_labels;
    MPQC_TRY(layers(j));
    MPQC_TRY(read_labels(j, &labels, &n_labels));
    bool of_calib = !j->eval.by.data; /* else sensitivities have no labels */
    choose_eval(j, labels);
    bool needed = omega_needed(&j->cli->mixed), load = j->cli->mixed.load_sensitivity;
    if (load) MPQC_TRY(load_sensitivity(j));
    MPQC_TRY(costs(j)); /* first: what is offered only if it is fast may be struck off */
    if (needed && !load) MPQC_TRY(compute_sensitivity(j, of_calib ? labels : NULL));
    if (needed) MPQC_TRY(finish_sensitivity(j));
    resolve_budget(j);
    MPQC_TRY(allocate(j));
    return mpqc_mixed_dump_config(j);
}

mpqc_status mpqc_mixed_decide(struct mpqc_mixed_job *j)
{
    *j->out = (struct mpqc_mixed){.float_top1 = NAN, .top1 = NAN};
    j->cx->pass = NULL;
    mpqc_status status = decide(j);
    if (status == MPQC_OK) j->passes->bits = &j->out->bits;
    return status;
}
