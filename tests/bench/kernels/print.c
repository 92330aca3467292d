/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What bench_kernels prints: tab-separated rows, a table, a page of Markdown.
 */
#include "tests/bench/kernels/bench.h"

#include <math.h>
#include <string.h>

static const struct mpqc_layer *facts_of(const struct bench_case *c)
{
    return &c->model->layers[c->layer];
}

static double gmacs_of(const struct bench_case *c)
{
    return c->ns > 0 ? (double)facts_of(c)->macs / c->ns : 0;
}

static double percent_of(const struct bench_case *c)
{
    return c->peak > 0 ? 100 * gmacs_of(c) / c->peak : 0;
}

static double bytes_of(const struct bench_case *c)
{
    return (double)(facts_of(c)->weight_bytes + facts_of(c)->activation_bytes);
}

/* "-" for what has none. */
static const char *tile_of(const struct bench_case *c, char text[MPQC_TILE_TEXT])
{
    return c->tile.tile ? mpqc_tile_text(c->tile.tile, text) : "-";
}

static void put(FILE *to, const char *before, int width, int digits, double x)
{
    if (x > 0) fprintf(to, "%s%*.*f", before, width, digits, x);
    else fprintf(to, "%s%*s", before, width, "-");
}

/* ---- rows ---- */

void bench_print_tsv(const struct bench_case *c, size_t n, FILE *to)
{
    fprintf(to, "network\tlayer\ttemplate\tc\th\tw\toc\tk\ts\tg\tadd\ttarget\tbits\ttile\tpredicted\t"
                "macs\tbytes\tns\tgmacs\tpeak\tpeak_percent\tgbytes_per_s\tactivation_bits\n");
    for (size_t i = 0; i < n; i++, c++) {
        const struct bench_shape *s = c->shape;
        char tile[MPQC_TILE_TEXT];
        fprintf(to, "%s\t%s\t%s\t%lld\t%lld\t%lld\t%lld\t%lld\t%lld\t%lld\t%d", s->network, s->layer,
                bench_template(s), (long long)s->c, (long long)s->h, (long long)s->w,
                (long long)s->oc, (long long)s->k, (long long)s->s, (long long)s->g, s->add);
        fprintf(to, "\t%s\t%u\t%s\t%.0f\t%llu\t%.0f\t%.1f\t%.3f\t%.2f\t%.2f\t%.3f\t%u\n",
                c->target->name, c->bits, tile_of(c, tile), c->tile.predicted,
                (unsigned long long)facts_of(c)->macs, bytes_of(c), c->ns, gmacs_of(c), c->peak,
                percent_of(c), c->ns > 0 ? bytes_of(c) / c->ns : 0, c->activation_bits);
    }
}

void bench_print_table(const struct bench_case *c, size_t n, FILE *to)
{
    fprintf(to, "%-12s %-20s %-14s %-20s %4s %10s %11s %8s %6s %7s\n", "network", "layer",
            "template", "target", "bits", "tile", "us", "GMAC/s", "peak%", "GB/s");
    for (size_t i = 0; i < n; i++, c++) {
        const struct bench_shape *s = c->shape;
        char tile[MPQC_TILE_TEXT];
        fprintf(to, "%-12s %-20s %-14s %-20s w%ua%u %9s", s->network, s->layer,
                bench_template(s), c->target->name, c->bits, c->activation_bits,
                tile_of(c, tile));
        put(to, " ", 11, 3, c->ns / 1e3);
        put(to, " ", 8, 2, gmacs_of(c));
        put(to, " ", 6, 1, percent_of(c));
        put(to, " ", 7, 2, c->ns > 0 ? bytes_of(c) / c->ns : 0);
        fprintf(to, "\n");
    }
}

/* ---- the page ---- */

/* The case of that shape, target and bits; NULL: there is none. */
static const struct bench_case *find(const struct bench_case *c, size_t n,
                                     const struct bench_shape *s,
                                     const struct mpqc_target *target, unsigned bits)
{
    for (size_t i = 0; i < n; i++)
        if (c[i].shape == s && c[i].target == target && c[i].bits == bits &&
            c[i].activation_bits == 8)
            return &c[i];
    return NULL;
}

/* The targets in the order of their rows; the last is what this CPU does best with. */
static unsigned targets_of(const struct bench_case *c, size_t n, const struct mpqc_target **list,
                           unsigned most)
{
    unsigned count = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned k = 0;
        while (k < count && list[k] != c[i].target) k++;
        if (k == count && count < most) list[count++] = c[i].target;
    }
    return count;
}

static void shape_cells(const struct bench_shape *s, FILE *to)
{
    fprintf(to, "| %s | %s | %s | ", s->network, s->layer, bench_template(s));
    if (s->h * s->w > 1) fprintf(to, "%lldx%lldx", (long long)s->h, (long long)s->w);
    fprintf(to, "%lld", (long long)s->c);
    if (s->kind == CONV || s->kind == DENSE) fprintf(to, " -> %lld", (long long)s->oc);
    fprintf(to, " |");
}

static void page_layers(const struct bench_case *c, size_t n, const struct mpqc_target *best,
                        FILE *to)
{
    fprintf(to, "## Every layer, 8-bit weights, %s\n\n", best->name);
    fprintf(to, "| network | layer | template | shape | tile | us | GMAC/s | %% of peak | GB/s |\n");
    fprintf(to, "|---|---|---|---|---|---:|---:|---:|---:|\n");
    for (size_t i = 0; i < bench_n_shapes; i++) {
        const struct bench_case *at = find(c, n, &bench_shapes[i], best, 8);
        char tile[MPQC_TILE_TEXT];
        if (!at) continue;
        shape_cells(at->shape, to);
        fprintf(to, " %s |", tile_of(at, tile));
        put(to, " ", 1, 3, at->ns / 1e3);
        put(to, " | ", 1, 1, gmacs_of(at));
        put(to, " | ", 1, 1, percent_of(at));
        put(to, " | ", 1, 1, at->ns > 0 ? bytes_of(at) / at->ns : 0);
        fprintf(to, " |\n");
    }
}

static void page_targets(const struct bench_case *c, size_t n,
                         const struct mpqc_target *const *list, unsigned count, FILE *to)
{
    fprintf(to, "\n## Per cent of the target's own peak, 8-bit weights\n\n| network | layer |");
    for (unsigned t = 0; t < count; t++) fprintf(to, " %s |", strchr(list[t]->name, ':') + 1);
    fprintf(to, "\n|---|---|");
    for (unsigned t = 0; t < count; t++) fprintf(to, "---:|");
    fprintf(to, "\n| | *peak, GMAC/s* |");
    for (unsigned t = 0; t < count; t++)
        for (size_t i = 0; i < n; i++)
            if (c[i].target == list[t]) {
                put(to, " *", 1, 0, c[i].peak);
                fprintf(to, "* |");
                break;
            }
    fprintf(to, "\n");
    for (size_t i = 0; i < bench_n_shapes; i++) {
        const struct bench_shape *s = &bench_shapes[i];
        const struct bench_case *any = find(c, n, s, list[count - 1], 8);
        if (!any || facts_of(any)->macs == 0) continue;
        fprintf(to, "| %s | %s |", s->network, s->layer);
        for (unsigned t = 0; t < count; t++) {
            const struct bench_case *at = find(c, n, s, list[t], 8);
            put(to, " ", 1, 1, at ? percent_of(at) : 0);
            fprintf(to, " |");
        }
        fprintf(to, "\n");
    }
}

static void page_bits(const struct bench_case *c, size_t n, const struct mpqc_target *best,
                      FILE *to)
{
    unsigned bits[8], count = 0;
    for (unsigned b = 7; b >= 2; b--)
        for (size_t i = 0; i < n; i++)
            if (c[i].bits == b && c[i].activation_bits == 8 && c[i].target == best) {
                bits[count++] = b;
                break;
            }
    if (count == 0) return;
    fprintf(to, "\n## Time with fewer bits, 8 bits = 1, %s\n\n| network | layer |", best->name);
    for (unsigned b = 0; b < count; b++) fprintf(to, " %u bits |", bits[b]);
    fprintf(to, "\n|---|---|");
    for (unsigned b = 0; b < count; b++) fprintf(to, "---:|");
    fprintf(to, "\n");
    for (size_t i = 0; i < bench_n_shapes; i++) {
        const struct bench_shape *s = &bench_shapes[i];
        const struct bench_case *whole = find(c, n, s, best, 8);
        if (!whole || !(whole->ns > 0) || !find(c, n, s, best, bits[0])) continue;
        fprintf(to, "| %s | %s |", s->network, s->layer);
        for (unsigned b = 0; b < count; b++) {
            const struct bench_case *at = find(c, n, s, best, bits[b]);
            put(to, " ", 1, 2, at ? at->ns / whole->ns : 0);
            fprintf(to, " |");
        }
        fprintf(to, "\n");
    }
}

/* Geometric means of the shares of the peak, by template. */
static void page_means(const struct bench_case *c, size_t n, const struct mpqc_target *best,
                       FILE *to)
{
    fprintf(to, "\n## By template, 8-bit weights, %s\n\n", best->name);
    fprintf(to, "| template | layers | geometric mean, %% of peak |\n|---|---:|---:|\n");
    for (size_t i = 0; i < bench_n_shapes; i++) {
        const char *name = bench_template(&bench_shapes[i]);
        double sum = 0;
        unsigned count = 0;
        size_t first = 0;
        while (strcmp(bench_template(&bench_shapes[first]), name) != 0) first++;
        for (size_t k = i; first == i && k < bench_n_shapes; k++) {
            const struct bench_case *at = find(c, n, &bench_shapes[k], best, 8);
            if (!at || !(percent_of(at) > 0) || strcmp(bench_template(at->shape), name) != 0)
                continue;
            sum += log(percent_of(at));
            count++;
        }
        if (count) fprintf(to, "| %s | %u | %.1f |\n", name, count, exp(sum / count));
    }
}

void bench_print_page(const struct bench_case *c, size_t n, FILE *to)
{
    const struct mpqc_target *list[16];
    unsigned count = targets_of(c, n, list, MPQC_LEN(list));
    if (count == 0) return;
    page_layers(c, n, list[count - 1], to);
    page_means(c, n, list[count - 1], to);
    page_targets(c, n, list, count, to);
    page_bits(c, n, list[count - 1], to);
}
