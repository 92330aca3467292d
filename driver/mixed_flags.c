/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Handlers of the flags about bits, and what they may not say together.
 */
#include "driver/cli.h"

#include <math.h>

#define HANDLER(name) MPQC_FLAG_HANDLER(mpqc_mixed_set_##name)
#define MIXED struct mpqc_mixed_options *m = &((struct mpqc_cli *)options)->mixed

static int fail(char *err, const char *text)
{
    snprintf(err, MPQC_FLAG_ERROR, "%s", text);
    return -1;
}

/* ---- names ---- */

static const char *strategy_name(const void *user, size_t i)
{
    (void)user;
    return i < mpqc_n_strategies ? mpqc_strategies[i].name : NULL;
}
static const char *metric_name(const void *user, size_t i)
{
    (void)user;
    return i < mpqc_n_metrics ? mpqc_metrics[i].name : NULL;
}

static int unknown(char *err, const char *flag, const char *value,
                   const char *(*next)(const void *, size_t), const char *more)
{
    size_t n = (size_t)snprintf(err, MPQC_FLAG_ERROR, "-%s=%.64s is not known; it is one of ", flag,
                                value);
    const char *name;
    for (size_t i = 0; (name = next(NULL, i)) != NULL && n < MPQC_FLAG_ERROR; i++)
        n += (size_t)snprintf(err + n, MPQC_FLAG_ERROR - n, "%s%s", i ? ", " : "", name);
    if (n < MPQC_FLAG_ERROR) snprintf(err + n, MPQC_FLAG_ERROR - n, "%s", more);
    return -1;
}

HANDLER(strategy)
{
    MIXED;
    m->off = strcmp(value, "off") == 0;
    m->strategy = m->off ? NULL : mpqc_strategy_find(value);
    return m->off || m->strategy ? 0 : unknown(err, flag, value, strategy_name, ", off");
}

HANDLER(metric)
{
    MIXED;
    m->metric = mpqc_metric_find(value);
    return m->metric ? 0 : unknown(err, flag, value, metric_name, "");
}

HANDLER(minimize)
{
    MIXED;
    static const struct {
        const char *text;
        enum mpqc_resource r;
    } words[] = {{"loss", MPQC_RES_OMEGA}, {"size", MPQC_RES_BYTES}, {"latency", MPQC_RES_LATENCY},
                 {"bops", MPQC_RES_BOPS}};
    for (size_t i = 0; i < MPQC_LEN(words); i++) {
        if (strcmp(value, words[i].text) != 0) continue;
        m->minimize = words[i].r;
        m->minimize_set = true;
        return 0;
    }
    return mpqc_flag_refuse(flag, value, "loss, size, latency, bops", err);
}

/* ---- amounts ---- */

struct unit {
    const char *text;
    double factor;
};
static const struct unit size_units[] = {{"", 1},      {"B", 1},      {"KB", 1e3},
                                         {"MB", 1e6},  {"GB", 1e9},   {"KiB", 1024},
                                         {"MiB", 1048576}, {"GiB", 1073741824}};
static const struct unit time_units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
static const struct unit bops_units[] = {{"", 1}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}};
static const struct unit no_units[] = {{"", 1}};

static int amount(struct mpqc_amount *a, const char *flag, const char *value,
                  const struct unit *units, size_t n, bool relative, const char *example, char *err)
{
    char *end;
    double x = strtod(value, &end);
    bool hexadecimal = value[0] == '0' && (value[1] == 'x' || value[1] == 'X');
    bool good = end != value && isfinite(x) && x > 0 && !hexadecimal;
    if (good && relative && strcmp(end, "x") == 0) {
        *a = (struct mpqc_amount){.set = true, .relative = true, .value = x, .text = value};
        return 0;
    }
    for (size_t i = 0; good && i < n; i++) {
        if (strcmp(end, units[i].text) != 0) continue;
        *a = (struct mpqc_amount){.set = true, .value = x * units[i].factor, .text = value};
        return 0;
    }
    snprintf(err, MPQC_FLAG_ERROR, "-%s wants %s, not '%.64s'", flag, example, value);
    return -1;
}

HANDLER(size)
{
    MIXED;
    return amount(&m->limit[MPQC_RES_BYTES], flag, value, size_units, MPQC_LEN(size_units),
                  true, "a factor of uniform w8a8 (0.625x) or bytes (200KB, 1.5MB, 100KiB)", err);
}
HANDLER(latency)
{
    MIXED;
    return amount(&m->limit[MPQC_RES_LATENCY], flag, value, time_units,
                  MPQC_LEN(time_units), true,
                  "a factor of uniform w8a8 (0.8x) or a time with its unit (1.5ms, 900us)", err);
}
HANDLER(bops)
{
    MIXED;
    return amount(&m->limit[MPQC_RES_BOPS], flag, value, bops_units, MPQC_LEN(bops_units),
                  true, "a factor of uniform w8a8 (0.5x) or bit operations (1.2G)", err);
}
HANDLER(omega)
{
    MIXED;
    return amount(&m->limit[MPQC_RES_OMEGA], flag, value, no_units, 1, false,
                  "a number above 0 in the unit of the sensitivity", err);
}

HANDLER(max_drop)
{
    MIXED;
    m->max_drop_set = true;
    if (mpqc_flag_real(flag, value, &m->max_drop, err)) return -1;
    if (m->max_drop >= 0 && m->max_drop <= 100) return 0;
    return fail(err, "-max-drop wants points of top-1 accuracy between 0 and 100");
}

HANDLER(eval_count)
{
    MIXED;
    int64_t n;
    if (mpqc_flag_int(flag, value, 1, INT32_MAX, &n, err)) return -1;
    m->eval_count = (uint64_t)n;
    return 0;
}

/* ---- lists, files ---- */

HANDLER(pin)
{
    MIXED;
    if (m->n_pins == MPQC_MIXED_MAX_PINS)
        return fail(err, "-pin is given too often; write the rules into a file and give -pin=FILE");
    m->pins[m->n_pins++] = value;
    return 0;
}

HANDLER(candidates)
{
    MIXED;
    for (const char *at = value; *at;) {
        char name[16] = "";
        size_t n = strcspn(at, ",");
        if (n < sizeof name) memcpy(name, at, n);
        const struct mpqc_choice *c = mpqc_choice_find(name);
        if (!c) {
            snprintf(err, MPQC_FLAG_ERROR,
                     "-candidates: there is no choice '%.*s'; the choices are",
                     (int)(n < 32 ? n : 32), at);
            for (uint32_t i = 0; i < mpqc_n_choices; i++) {
                size_t used = strlen(err);
                snprintf(err + used, MPQC_FLAG_ERROR - used, "%s %s", i ? "," : "",
                         mpqc_choices[i].name);
            }
            return -1;
        }
        m->candidates |= 1u << (c - mpqc_choices);
        at += n + (at[n] == ',');
    }
    return m->candidates ? 0 : fail(err, "-candidates wants a list of choices, as in w4a8,w8a8");
}

HANDLER(cost)
{
    MIXED;
    m->cost = strcmp(value, "measured") == 0   ? MPQC_COST_MEASURED
              : strcmp(value, "analytic") == 0 ? MPQC_COST_ANALYTIC
                                               : MPQC_COST_UNSET;
    if (m->cost != MPQC_COST_UNSET) return 0;
    return mpqc_flag_refuse(flag, value, "measured, analytic", err);
}

HANDLER(measure)
{
    MIXED;
    m->measure = value;
    if (strcmp(value, "local") == 0 || strcmp(value, "qemu") == 0 ||
        (strncmp(value, "cmd:", 4) == 0 && value[4]))
        return 0;
    return mpqc_flag_refuse(flag, value, "local, qemu, cmd:COMMAND", err);
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n > k && strcmp(s + n - k, suffix) == 0;
}

HANDLER(report)
{
    MIXED;
    m->report = value;
    if (ends_with(value, ".json") || ends_with(value, ".csv")) return 0;
    snprintf(err, MPQC_FLAG_ERROR, "-report wants a file that ends in .json or .csv, not '%s'",
             value);
    return -1;
}

#define FILE_FLAG(name)                                                                           \
    HANDLER(name)                                                                                 \
    {                                                                                             \
        MIXED;                                                                                    \
        m->name = value;                                                                          \
        return 0;                                                                                 \
    }
FILE_FLAG(labels)
FILE_FLAG(latency_cache)
FILE_FLAG(pareto)
FILE_FLAG(dump_config)
FILE_FLAG(dump_sensitivity)
FILE_FLAG(load_sensitivity)

/* ---- together ---- */

static bool any_limit(const struct mpqc_mixed_options *o)
{
    for (int r = 0; r < MPQC_RES_COUNT; r++)
        if (o->limit[r].set) return true;
    return false;
}

bool mpqc_mixed_wanted(const struct mpqc_mixed_options *o)
{
    return o->strategy || o->metric || any_limit(o) || o->minimize_set || o->max_drop_set ||
           o->pareto || o->n_pins || o->candidates || o->dump_config || o->dump_sensitivity ||
           o->load_sensitivity || o->report;
}

int mpqc_mixed_check(const struct mpqc_cli *cli, char *err)
{
    const struct mpqc_mixed_options *o = &cli->mixed;
    bool goal = any_limit(o) || o->max_drop_set || o->pareto || o->minimize_set;
    bool eight = cli->options.weight_bits == 8 && cli->options.activation_bits == 8;
    if (!eight && (goal || o->n_pins))
        return fail(err, "-wbits and -abits are for the same bits everywhere; together with bounds "
                         "or pins say -pin='.=w4a8', or -candidates");
    bool evaluates = o->max_drop_set || o->pareto;
    if (cli->n_eval && !(evaluates && o->labels))
        return fail(err, "-eval is what -max-drop and -pareto are judged by; give one of these, and "
                         "-labels=FILE.npy with the class of every sample of -eval");
    if (o->labels && !goal && !o->metric && !o->dump_sensitivity)
        return fail(err, "-labels has no effect here; it is for -max-drop, -pareto and "
                         "-sensitivity");
    if (o->off && goal)
        return fail(err, "-mixed=off contradicts the bounds that are given; leave one of them out");
    if (o->max_drop_set && !o->labels)
        return fail(err, "-max-drop needs the true classes; give -labels=FILE.npy, one for each "
                         "sample of -eval, or of -calib without it");
    if ((o->max_drop_set || o->labels) && cli->n_calib == 0 && cli->n_eval == 0)
        return fail(err, "-labels without -calib: there are no samples that they could belong to");
    if (o->load_sensitivity && o->metric)
        return fail(err, "-load-sensitivity contradicts -sensitivity: the file says which metric "
                         "it holds");
    if (o->limit[MPQC_RES_OMEGA].set && o->minimize_set && o->minimize == MPQC_RES_OMEGA)
        return fail(err, "-max-omega bounds what -minimize=loss minimises; give -minimize=size or "
                         "-minimize=latency");
    if (o->minimize_set && o->minimize != MPQC_RES_OMEGA && !o->limit[MPQC_RES_OMEGA].set &&
        !o->max_drop_set && !o->pareto)
        return fail(err, "-minimize without a bound on the loss gives every layer the fewest bits; "
                         "give -max-omega or -max-drop");
    if (o->strategy && !goal)
        return fail(err, "-mixed without a bound has nothing to decide; give -max-size, "
                         "-max-latency, -max-bops, -max-omega, -max-drop or -pareto");
    if (o->eval_count && !o->labels)
        return fail(err, "-eval-count without -labels: nothing is evaluated");
    if (o->measure && o->cost == MPQC_COST_ANALYTIC)
        return fail(err, "-measure contradicts -cost=analytic, which measures nothing");
    return 0;
}
