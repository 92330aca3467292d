/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What the decision about bits was, and why, for the terminal.
 */
#include "driver/cli.h"

#include <inttypes.h>
#include <math.h>

/* ---- why ---- */

static const char *resource_flag(int r)
{
    static const char *const flags[MPQC_RES_COUNT] = {"-max-size", "-max-latency", "-max-bops",
                                                      "-max-omega"};
    return flags[r];
}

/* The nearest layer that layer l is tied to, or l. */
static uint32_t tied_to(const struct mpqc_bits *b, uint32_t l, bool *weights)
{
    for (uint32_t k = 0; k < b->n_layers; k++) {
        if (k == l) continue;
        *weights = b->layer[k].shared == b->layer[l].shared;
        if (*weights || (b->layer[k].input_group == b->layer[l].input_group &&
                         mpqc_choices[b->chosen[l]].activation_bits != 8))
            return k;
    }
    return l;
}

/* Bounds that hold the plan back, and what one more unit of them would be worth.  The
 * budget of a search is not the user's. */
static bool put_bounds(const struct mpqc_mixed *m, struct mpqc_buf *to)
{
    bool any = false;
    for (int r = 0; r < MPQC_RES_COUNT; r++) {
        if (!m->allocation.binds[r]) continue;
        mpqc_buf_puts(to, any ? ", " : "");
        if (m->budget.limited[r]) mpqc_buf_puts(to, resource_flag(r));
        else
            mpqc_buf_printf(to, "the %s that -max-drop leaves",
                            mpqc_resource_text((enum mpqc_resource)r));
        mpqc_buf_printf(to, " binds, shadow price %.3g", m->allocation.shadow[r]);
        any = true;
    }
    if (any || !m->allocation.proven) return any;
    mpqc_buf_puts(to, "no bound binds");
    return true;
}

void mpqc_mixed_reason(const struct mpqc_mixed *m, uint32_t l, struct mpqc_buf *to)
{
    const struct mpqc_bits *b = &m->bits;
    const struct mpqc_bits_layer *layer = &b->layer[l];
    if (layer->pinned >= 0) {
        mpqc_buf_printf(to, "pinned by %s", layer->pin_rule);
        return;
    }
    bool weights = false, goal = strcmp(m->strategy, "uniform") && strcmp(m->strategy, "pins");
    if (!goal) mpqc_buf_puts(to, "not pinned: w8a8");
    else if (!put_bounds(m, to)) mpqc_buf_printf(to, "chosen by %s", m->strategy);
    uint32_t other = tied_to(b, l, &weights);
    if (other != l)
        mpqc_buf_printf(to, "; %s shared with %s", weights ? "weights" : "input scale",
                        b->layer[other].name);
}

/* ---- numbers with units ---- */

static const char *si(double v, char out[32])
{
    static const char *const units[] = {"", "k", "M", "G", "T"};
    size_t u = 0;
    while (v >= 1000 && u + 1 < MPQC_LEN(units)) {
        v /= 1000;
        u++;
    }
    snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", v, units[u]);
    return out;
}

static void print_latency(double now, double uniform) /* ns */
{
    bool slow = now >= 1e6;
    printf(", latency %.*f %s", slow ? 3 : now < 1e5 ? 1 : 0, now / (slow ? 1e6 : 1e3),
           slow ? "ms" : "us");
    if (uniform > 0) printf(" (%.3fx)", now / uniform);
}

static void print_total(const char *what, double now, double uniform, const char *unit)
{
    char text[32];
    printf("%s %s%s", what, si(now, text), unit);
    if (uniform > 0) printf(" (%.3fx)", now / uniform);
}

/* ---- lines ---- */

static void print_histogram(const struct mpqc_bits *b)
{
    bool first = true;
    for (uint32_t c = 0; c < mpqc_n_choices; c++) {
        uint32_t n = 0;
        for (uint32_t l = 0; l < b->n_layers; l++) n += b->chosen[l] == c;
        if (n == 0) continue;
        printf("%s%u x %s", first ? "" : ", ", n, mpqc_choices[c].name);
        first = false;
    }
}

static void print_search(const struct mpqc_mixed *m)
{
    if (isnan(m->top1)) return;
    printf("search    %" PRIu64 " plans evaluated on %" PRIu64 " labelled samples %s: float %.2f %%, "
           "integer %.2f %%, drop %.2f%s\n",
           m->evaluations, m->labelled, m->labelled_what, m->float_top1, m->top1, m->float_top1 - m->top1,
           m->missed ? " (missed)" : "");
}

void mpqc_mixed_print(const struct mpqc_mixed *m)
{
    const struct mpqc_allocation *a = &m->allocation;
    printf("bits      ");
    print_histogram(&m->bits);
    printf(" (by %s", m->strategy);
    if (m->metric) printf(", sensitivity %s", m->metric);
    if (a->proven) printf(", proven optimal");
    puts(")");
    print_total("plan      weights", a->total[MPQC_RES_BYTES], m->uniform[MPQC_RES_BYTES], "B");
    print_latency(a->total[MPQC_RES_LATENCY] + m->rest_ns,
                  m->uniform[MPQC_RES_LATENCY] + m->rest_ns);
    printf(" %s", m->cost);
    print_total(", bops", a->total[MPQC_RES_BOPS], m->uniform[MPQC_RES_BOPS], "");
    puts(" of uniform w8a8, predicted");
    print_search(m);
}

void mpqc_mixed_print_layers(const struct mpqc_mixed *m)
{
    const struct mpqc_bits *b = &m->bits;
    printf("%-40s %5s %10s %11s %11s  %s\n", "layer", "bits", "bytes", "latency us", "omega",
           "why");
    for (uint32_t l = 0; l < b->n_layers; l++) {
        size_t at = (size_t)l * mpqc_n_choices + b->chosen[l];
        struct mpqc_buf why;
        mpqc_buf_init(&why);
        mpqc_mixed_reason(m, l, &why);
        printf("%-40.40s %5s %10.0f %11.2f ", b->layer[l].name, mpqc_choices[b->chosen[l]].name,
               b->bytes[at], b->latency[at] / 1e3);
        if (b->omega && !isnan(b->omega[at])) printf("%11.4g", b->omega[at]);
        else printf("%11s", "-");
        printf("  %s\n", why.data ? why.data : "");
        mpqc_buf_release(&why);
    }
}
