/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The table of metrics, and the way in.
 */
#include "passes/sensitivity/sensitivity.h"

#include <math.h>

const struct mpqc_metric mpqc_metrics[] = {
#define METRIC(name, function, needs_data, doc) {name, function, needs_data, doc},
#include "passes/sensitivity/metrics.def"
#undef METRIC
};
const uint32_t mpqc_n_metrics = MPQC_LEN(mpqc_metrics);

const struct mpqc_metric *mpqc_metric_find(const char *name)
{
    for (uint32_t i = 0; i < mpqc_n_metrics; i++)
        if (strcmp(mpqc_metrics[i].name, name) == 0) return &mpqc_metrics[i];
    return NULL;
}

bool mpqc_sens_asked(const struct mpqc_bits *b, uint32_t l, uint32_t c)
{
    return c == mpqc_choice_plain() || mpqc_bits_may(b, l, c);
}

/* The allocation would be nonsense, and silently so. */
static mpqc_status check_entry(const struct mpqc_sens_cx *s, const struct mpqc_metric *m,
                               uint32_t l, uint32_t c)
{
    const struct mpqc_bits_layer *layer = &s->bits->layer[l];
    double omega = s->bits->omega[(size_t)l * mpqc_n_choices + c];
    if (!mpqc_sens_asked(s->bits, l, c)) {
        MPQC_ASSERT(isnan(omega));
        return MPQC_OK;
    }
    if (isfinite(omega) && omega >= 0) return MPQC_OK;
    return MPQC_FAIL(s->p->cx, DATA,
                     ((struct mpqc_where){.node = layer->name, .op = layer->op, .offset = -1}),
                     "the sensitivity '%s' of choice %s is %g, which is no loss; try another "
                     "-sensitivity", m->name, mpqc_choices[c].name, omega);
}

static mpqc_status check(const struct mpqc_sens_cx *s, const struct mpqc_metric *m)
{
    for (uint32_t l = 0; l < s->bits->n_layers; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++) MPQC_TRY(check_entry(s, m, l, c));
    return MPQC_OK;
}

mpqc_status mpqc_sensitivity_run(struct mpqc_sens_cx *s, const struct mpqc_metric *m)
{
    struct mpqc_arena *keep = &s->p->keep;
    size_t n = s->bits->n_layers;
    if (m->needs_data && !s->p->data)
        return MPQC_FAIL(s->p->cx, USAGE, MPQC_NOWHERE,
                         "-sensitivity=%s needs samples; give -calib=PATH, or "
                         "-sensitivity=weight-mse", m->name);
    s->bits->omega = MPQC_NEW_ARRAY(keep, double, n * mpqc_n_choices);
    if (keep->failed) return MPQC_OOM(s->p->cx);
    for (size_t i = 0; i < n * mpqc_n_choices; i++) s->bits->omega[i] = NAN;
    MPQC_TRY(m->run(s));
    return check(s, m);
}
