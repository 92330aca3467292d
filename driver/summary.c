/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "driver/summary.h"

#include <inttypes.h>

struct totals {
    uint32_t linear; /* kernels with weights */
    uint64_t macs;
    unsigned wbits_lo, wbits_hi;
};

/* The weights of a kernel's core, or NULL. */
static const struct mpqc_value *weights_of(const struct mpqc_graph *g, const struct mpqc_kernel *k)
{
    const struct mpqc_node *core = mpqc_node_at(g, k->core);
    bool linear = (mpqc_ops[core->op].traits & MPQC_T_LINEAR) != 0;
    return linear && mpqc_is_const(g, core->in[1]) ? mpqc_value_at(g, core->in[1]) : NULL;
}

static struct totals add_up(const struct mpqc_graph *g, const struct mpqc_plan *plan)
{
    struct totals t = {.wbits_lo = 64};
    for (uint32_t i = 0; i < plan->n_kernels; i++) {
        const struct mpqc_kernel *k = &plan->kernels[i];
        t.macs += mpqc_ops[mpqc_node_at(g, k->core)->op].macs(g, mpqc_node_at(g, k->core));
        const struct mpqc_value *w = weights_of(g, k);
        if (!w) continue;
        unsigned bits = mpqc_weight_bits(&w->type);
        t.linear++;
        if (bits < t.wbits_lo) t.wbits_lo = bits;
        if (bits > t.wbits_hi) t.wbits_hi = bits;
    }
    return t;
}

static void print_shape(const struct mpqc_type *t)
{
    printf("%s[", mpqc_dtypes[t->dtype].text);
    for (uint32_t d = 0; d < t->rank; d++)
        printf("%s%" PRId64, d ? "," : "", t->dims[d]);
    putchar(']');
}

static void print_layers(const struct mpqc_graph *g, const struct mpqc_plan *plan)
{
    printf("%-40s %12s %9s  %s\n", "layer", "MACs", "weights", "output");
    for (uint32_t i = 0; i < plan->n_kernels; i++) {
        const struct mpqc_kernel *k = &plan->kernels[i];
        const struct mpqc_node *core = mpqc_node_at(g, k->core);
        const struct mpqc_value *w = weights_of(g, k);
        printf("%-40.40s %12" PRIu64 " %9zu  ", core->loc.node, mpqc_ops[core->op].macs(g, core),
               w ? mpqc_type_bytes(&w->type) : 0);
        for (uint32_t n = 0; n < k->n_nodes; n++)
            printf("%s%s", n ? "+" : "", mpqc_ops[mpqc_node_at(g, k->nodes[n])->op].text);
        printf(" -> ");
        print_shape(&mpqc_value_at(g, k->out)->type);
        putchar('\n');
    }
}

/* 12.3 M, 4.5 k, ... */
static const char *si(double v, char out[32])
{
    static const char *const units[] = {"", " k", " M", " G", " T"};
    size_t u = 0;
    while (v >= 1000 && u + 1 < MPQC_LEN(units)) {
        v /= 1000;
        u++;
    }
    snprintf(out, 32, u ? "%.1f%s" : "%.0f%s", v, units[u]);
    return out;
}

/* Weights below 8 bits are fitted to the samples of calibration: on these they look better than
 * on any other, the more so the fewer they are. */
static void print_accuracy(const struct mpqc_accuracy *a, const struct mpqc_judge *by, bool fitted)
{
    if (!a) {
        puts("accuracy  not measured: no data was given (-load-profile alone)");
        return;
    }
    printf("accuracy  on %" PRIu64 " %s%s against float: SQNR %.1f dB", a->samples,
           by->seen ? "calibration samples" : "samples ", by->seen ? "" : by->what, a->sqnr_db);
    if (a->agreement >= 0) printf(", top-1 agreement %.1f %%", a->agreement);
    if (by->seen && fitted) printf("; flattered: the weights were fitted to these");
    putchar('\n');
}

void mpqc_summary_print(const struct mpqc_summary *s)
{
    const struct mpqc_plan *plan = s->passes->plan;
    if (s->cli->verbose) print_layers(s->graph, plan);
    if (s->cli->verbose && s->mixed) mpqc_mixed_print_layers(s->mixed);
    struct totals t = add_up(s->graph, plan);
    char macs[32];
    printf("layers    %u kernels, %u with weights, %s MACs, for %s\n", plan->n_kernels, t.linear,
           si((double)t.macs, macs), s->target->name);
    if (s->mixed)
        mpqc_mixed_print(s->mixed);
    else if (t.linear && t.wbits_lo != t.wbits_hi)
        printf("bits      weights %u to %u, activations %u\n", t.wbits_lo, t.wbits_hi,
               s->cli->options.activation_bits);
    else
        printf("bits      weights %u, activations %u\n", s->cli->options.weight_bits,
               s->cli->options.activation_bits);
    printf("bytes     %" PRIu64 " in %s: weights %" PRIu64 ", code %" PRIu64 "\n",
           s->facts->file_bytes, s->cli->out, s->facts->weight_bytes, s->facts->code_bytes);
    if (s->tuning) mpqc_tune_print(s->tuning, s->cli->verbose > 0);
    printf("arena     %" PRIu64 " bytes of workspace\n", plan->arena_bytes);
    print_accuracy(s->accuracy, s->judge,
                   t.wbits_lo < 8 && s->cli->options.rounding == MPQC_ROUND_GPTQ);
    for (uint32_t i = 0; i < s->passes->n_islands; i++)
        printf("%s'%s' (%s)%s", i ? ", " : "float     ", s->passes->islands[i].node,
               s->passes->islands[i].op, i + 1 == s->passes->n_islands ? "\n" : "");
}
