/* SPDX-License-Identifier: MIT
 *
 * -profile: where the time goes.  Hooks read the clock before and after each layer.
 *
 * Rows are means over the quieter half of the runs (those whose whole time is at most the
 * median), so an interruption does not land in a layer, and rows still add up: layers and
 * what lies between them are the whole run.  What reading the clock takes is subtracted.
 * The same mean over runs without hooks, which alternate with those with, is printed
 * beside the sum.
 *
 * Bytes are what a layer must move at least: its weights once, its inputs and its output.
 */
#include "driver/run.h"

#include <stdlib.h>
#include <string.h>

#define MAX_BYTES (64u << 20) /* of kept rows */

/* ---- hooks ---- */

static void layer_begin(void *profile, uint32_t layer)
{
    (void)layer;
    ((struct run_profile *)profile)->started = mpqc_run_now();
}

static void layer_end(void *profile, uint32_t layer)
{
    struct run_profile *p = profile;
    uint64_t ns = mpqc_run_now() - p->started;
    if (layer < p->n) p->now[layer] += ns > p->clock ? ns - p->clock : 0;
}

int mpqc_run_profile_init(struct run_profile *p, const struct mpqc_model *m, uint64_t runs,
                          struct mpqc_exec *exec)
{
    *p = (struct run_profile){.n = m->n_layers, .clock = mpqc_run_clock_cost()};
    uint64_t most = MAX_BYTES / sizeof *p->row / (p->n + 1);
    p->kept = runs < most ? runs : most ? most : 1;
    p->row = calloc((size_t)p->kept * (p->n + 1), sizeof *p->row);
    p->least = malloc((p->n + 1) * sizeof *p->least);
    if (!p->row || !p->least) return -1;
    for (uint32_t i = 0; i < p->n; i++) p->least[i] = UINT64_MAX;
    p->peak = mpqc_run_peak(m->target);
    exec->layer_begin = layer_begin;
    exec->layer_end = layer_end;
    exec->profile = p;
    return 0;
}

void mpqc_run_profile_begin(struct run_profile *p)
{
    p->now = p->row + p->runs % p->kept * (p->n + 1);
    memset(p->now, 0, (p->n + 1) * sizeof *p->now);
}

void mpqc_run_profile_end(struct run_profile *p, uint64_t ns)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->now[i] < p->least[i]) p->least[i] = p->now[i];
    p->now[p->n] = ns;
    p->runs++;
}

void mpqc_run_profile_finish(struct run_profile *p, const struct mpqc_model *m)
{
    struct run_peak again = mpqc_run_peak(m->target);
    if (again.gmacs > p->peak.gmacs) p->peak = again;
}

void mpqc_run_profile_release(struct run_profile *p)
{
    free(p->row);
    free(p->least);
}

/* ---- what the rows say ---- */

struct summary {
    uint32_t *order; /* of the layers in the report */
    double *ns;      /* [n]: of a layer */
    double layers;   /* their sum */
    double between;
    double whole;    /* layers + between */
    double profiled; /* with the clock */
    double plain;    /* a run without hooks */
};

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The least time that half of the kept runs do not exceed. */
static uint64_t median_run(const struct run_profile *p, uint64_t n)
{
    uint64_t *total = malloc((size_t)n * sizeof *total), median = UINT64_MAX;
    if (!total) return median;
    for (uint64_t r = 0; r < n; r++) total[r] = p->row[r * (p->n + 1) + p->n];
    qsort(total, (size_t)n, sizeof *total, by_value);
    median = total[(n - 1) / 2];
    free(total);
    return median;
}

/* ns of the layers and of the run: means over the quieter half. */
static double means(const struct run_profile *p, double *ns)
{
    uint64_t n = p->runs < p->kept ? p->runs : p->kept, limit = median_run(p, n), used = 0;
    double whole = 0;
    for (uint64_t r = 0; r < n; r++) {
        const uint64_t *row = p->row + r * (p->n + 1);
        if (row[p->n] > limit) continue;
        for (uint32_t i = 0; i < p->n; i++) ns[i] += (double)row[i];
        whole += (double)row[p->n];
        used++;
    }
    for (uint32_t i = 0; i < p->n; i++) ns[i] /= (double)used;
    return whole / (double)used;
}

/* Slowest first; equal ones in order. */
static void sort_layers(struct summary *s, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint32_t layer = s->order[i], at = i;
        for (; at > 0 && s->ns[s->order[at - 1]] < s->ns[layer]; at--)
            s->order[at] = s->order[at - 1];
        s->order[at] = layer;
    }
}

static int summarise(const struct run_result *r, struct summary *s)
{
    const struct run_profile *p = r->profile;
    *s = (struct summary){.ns = calloc(p->n + 1, sizeof *s->ns),
                          .order = calloc(p->n + 1, sizeof *s->order)};
    if (!s->ns || !s->order) return -1;
    s->profiled = means(p, s->ns);
    for (uint32_t i = 0; i < p->n; i++) {
        s->order[i] = i;
        s->layers += s->ns[i];
    }
    s->between = s->profiled - s->layers - 2.0 * (double)p->n * (double)p->clock;
    if (s->between < 0) s->between = 0;
    s->whole = s->layers + s->between;
    uint64_t half = (r->runs + 1) / 2;
    for (uint64_t i = 0; i < half; i++) s->plain += (double)r->ns[i] / (double)half;
    if (r->options->sort) sort_layers(s, p->n);
    return 0;
}

static void release(struct summary *s)
{
    free(s->ns);
    free(s->order);
}

/* Of all threads that the run has. */
static double peak_of(const struct run_result *r)
{
    return r->profile->peak.gmacs * (r->threads ? r->threads : 1);
}

static double over(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static uint64_t bytes_of(const struct mpqc_layer *l)
{
    return l->weight_bytes + l->activation_bytes;
}

/* ---- text ---- */

static void put(FILE *to, int width, int digits, double x)
{
    if (x > 0) fprintf(to, " %*.*f", width, digits, x);
    else fprintf(to, " %*s", width, "-");
}

static void text_row(FILE *to, double ns, double whole, double macs, double peak, double bytes)
{
    fprintf(to, "%11.3f %6.2f", ns / 1e3, 100 * over(ns, whole));
    put(to, 8, 2, over(macs, ns));
    put(to, 6, 1, 100 * over(over(macs, ns), peak));
    put(to, 9, 1, bytes / 1024);
    put(to, 7, 2, over(bytes, ns));
}

static void text_peak(const struct run_result *r, FILE *to)
{
    const struct run_peak *peak = &r->profile->peak;
    if (peak->gmacs > 0)
        fprintf(to, "peak       %.1f GMAC/s a core (%s), measured here%s\n", peak->gmacs,
                peak->instruction,
                r->threads > 1 ? "; shares are of all threads' peaks together" : "");
    else
        fprintf(to, "peak       n/a: mpqc-run has no measure for the target %s\n",
                r->model->target);
}

void mpqc_run_profile_text(const struct run_result *r, FILE *to)
{
    const struct mpqc_model *m = r->model;
    struct summary s;
    if (summarise(r, &s)) {
        fprintf(to, "profile    out of memory\n");
    } else {
        double macs = 0, bytes = 0;
        text_peak(r, to);
        fprintf(to, "\n%11s %6s %8s %6s %9s %7s  %s\n", "us", "share%", "GMAC/s", "peak%", "KiB",
                "GB/s", "layer");
        for (uint32_t i = 0; i < m->n_layers; i++) {
            const struct mpqc_layer *l = &m->layers[s.order[i]];
            text_row(to, s.ns[s.order[i]], s.whole, (double)l->macs, peak_of(r),
                     (double)bytes_of(l));
            fprintf(to, "  %s  %s", l->name, l->op);
            if (l->weight_bits) fprintf(to, " w%u", l->weight_bits);
            fprintf(to, "\n");
            macs += (double)l->macs;
            bytes += (double)bytes_of(l);
        }
        text_row(to, s.between, s.whole, 0, 0, 0);
        fprintf(to, "  (between layers)\n");
        text_row(to, s.whole, s.whole, macs, peak_of(r), bytes);
        fprintf(to, "  (sum)\n");
        text_row(to, s.plain, s.whole, macs, peak_of(r), bytes);
        fprintf(to, "  (run without profile; the sum is %+.3f us, %+.2f %%)\n",
                (s.whole - s.plain) / 1e3, 100 * over(s.whole - s.plain, s.plain));
    }
    release(&s);
}

/* ---- JSON ---- */

static void json_number(FILE *to, const char *key, double x, int known)
{
    if (known) fprintf(to, ", \"%s\": %.6g", key, x);
    else fprintf(to, ", \"%s\": null", key);
}

static void json_layer(const struct run_result *r, const struct summary *s, uint32_t i, FILE *to)
{
    const struct mpqc_layer *l = &r->model->layers[i];
    double ns = s->ns[i], peak = peak_of(r);
    fprintf(to, "{\"name\": ");
    mpqc_run_json_string(to, l->name);
    fprintf(to, ", \"op\": ");
    mpqc_run_json_string(to, l->op);
    fprintf(to, ", \"index\": %u, \"weight_bits\": %u, \"activation_bits\": %u", i,
            l->weight_bits, l->activation_bits);
    fprintf(to, ", \"ns\": %.1f, \"min_ns\": %llu, \"macs\": %llu, \"bytes\": %llu", ns,
            (unsigned long long)r->profile->least[i], (unsigned long long)l->macs,
            (unsigned long long)bytes_of(l));
    json_number(to, "share_percent", 100 * over(ns, s->whole), 1);
    json_number(to, "gmacs", over((double)l->macs, ns), l->macs > 0);
    json_number(to, "peak_percent", 100 * over(over((double)l->macs, ns), peak),
                l->macs > 0 && peak > 0);
    json_number(to, "gbytes_per_s", over((double)bytes_of(l), ns), ns > 0);
    fprintf(to, "}");
}

void mpqc_run_profile_json(const struct run_result *r, FILE *to)
{
    const struct run_profile *p = r->profile;
    struct summary s;
    if (summarise(r, &s) == 0) {
        fprintf(to, ", \"profiled_runs\": %llu", (unsigned long long)p->runs);
        json_number(to, "peak_gmacs", p->peak.gmacs, p->peak.gmacs > 0);
        fprintf(to, ", \"peak_instruction\": ");
        if (p->peak.gmacs > 0) mpqc_run_json_string(to, p->peak.instruction);
        else fprintf(to, "null");
        fprintf(to, ", \"layers\": [");
        for (uint32_t i = 0; i < p->n; i++) {
            if (i) fprintf(to, ", ");
            json_layer(r, &s, s.order[i], to);
        }
        fprintf(to, "], \"layers_ns\": %.1f, \"between_ns\": %.1f, \"sum_ns\": %.1f, \"plain_ns\": "
                    "%.1f, \"mean_ns\": %.1f",
                s.layers, s.between, s.whole, s.plain, s.profiled);
    }
    release(&s);
}
