/* SPDX-License-Identifier: MIT
 *
 * Accuracy, times, and the description of a model, as text or as JSON.
 */
#include "driver/run.h"

#include <stdlib.h>
#include <string.h>

/* ---- accuracy ---- */

void mpqc_run_accuracy_init(struct run_accuracy *a, const struct run_options *o)
{
    /* top-1 and top-5 are always counted, because -json always has them */
    *a = (struct run_accuracy){.k = {1, 5}, .n = 2};
    for (uint32_t i = 0; i < o->n_top; i++) {
        int known = 0;
        for (uint32_t j = 0; j < a->n; j++) known |= a->k[j] == o->top[i];
        if (!known) a->k[a->n++] = o->top[i];
    }
}

static double value_at(uint32_t element, const void *data, size_t i)
{
    switch (element) {
    case MPQC_ELEM_F32: return ((const float *)data)[i];
    case MPQC_ELEM_U8: return ((const uint8_t *)data)[i];
    case MPQC_ELEM_I8: return ((const int8_t *)data)[i];
    case MPQC_ELEM_I16: return ((const int16_t *)data)[i];
    case MPQC_ELEM_I32: return ((const int32_t *)data)[i];
    default: return (double)((const int64_t *)data)[i];
    }
}

int mpqc_run_accuracy_add(struct run_accuracy *a, const struct mpqc_io *io, const void *output,
                          uint64_t sample, struct mpqc_data_error *err)
{
    if (!a->labels) return 0;
    size_t n = (size_t)io->bytes / mpqc_element_size(io->element);
    int64_t label = a->labels[sample];
    if (label < 0 || (uint64_t)label >= n) {
        snprintf(err->text, sizeof err->text,
                 "label %lld of sample %llu is no class of output '%.100s', which has %zu values",
                 (long long)label, (unsigned long long)sample, io->name, n);
        return -1;
    }
    double mine = value_at(io->element, output, (size_t)label);
    uint64_t above = 0;
    for (size_t i = 0; i < n; i++) {
        double v = value_at(io->element, output, i);
        above += v > mine || (v == mine && i < (size_t)label);
    }
    /* NaN compares with nothing: a label whose value is NaN is never right. */
    for (uint32_t j = 0; j < a->n; j++) a->hits[j] += mine == mine && above < a->k[j];
    a->seen++;
    return 0;
}

static double percent(const struct run_accuracy *a, uint32_t k)
{
    for (uint32_t j = 0; j < a->n; j++)
        if (a->k[j] == k) return a->seen ? 100.0 * (double)a->hits[j] / (double)a->seen : 0;
    return 0;
}

/* ---- times ---- */

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(const uint64_t *sorted, uint64_t n)
{
    return n % 2 ? ms(sorted[n / 2]) : (ms(sorted[n / 2 - 1]) + ms(sorted[n / 2])) / 2;
}

/* The smallest time that 99 of 100 runs do not exceed. */
static double p99(const uint64_t *sorted, uint64_t n)
{
    return ms(sorted[(n * 99 + 99) / 100 - 1]);
}

/* ---- output ---- */

void mpqc_run_json_string(FILE *to, const char *s)
{
    fputc('"', to);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') fprintf(to, "\\%c", c);
        else if (c < 32) fprintf(to, "\\u%04x", c);
        else fputc(c, to);
    }
    fputc('"', to);
}

static void report_json(const struct run_result *r, FILE *to)
{
    const struct run_accuracy *a = r->accuracy;
    fprintf(to, "{\"model\": ");
    mpqc_run_json_string(to, r->model->name);
    fprintf(to, ", \"target\": ");
    mpqc_run_json_string(to, r->model->target);
    fprintf(to, ", \"workspace\": %llu, \"threads\": %u, \"samples\": %llu, \"runs\": %llu",
            (unsigned long long)r->model->workspace_size, r->threads,
            (unsigned long long)r->samples, (unsigned long long)r->runs);
    for (uint32_t j = 0; j < a->n; j++) {
        if (a->labels) fprintf(to, ", \"top%u\": %.4f", a->k[j], percent(a, a->k[j]));
        else if (j < 2) fprintf(to, ", \"top%u\": null", a->k[j]);
    }
    fprintf(to, ", \"latency_ms\": {\"min\": %.6f, \"median\": %.6f, \"p99\": %.6f}",
            ms(r->ns[0]), median(r->ns, r->runs), p99(r->ns, r->runs));
    if (r->profile) mpqc_run_profile_json(r, to);
    fprintf(to, "}\n");
}

static void report_text(const struct run_result *r, FILE *to)
{
    const struct run_options *o = r->options;
    fprintf(to, "model      %s (%s, %s)\n", r->model->name, r->model->target, r->model->compiler);
    if (o->n_in) fprintf(to, "samples    %llu\n", (unsigned long long)r->samples);
    else fprintf(to, "samples    made-up numbers; give -in=PATH for real ones\n");
    for (uint32_t i = 0; r->accuracy->labels && i < o->n_top; i++) {
        char name[32];
        snprintf(name, sizeof name, "top-%u", o->top[i]);
        fprintf(to, "%-10s %.2f %%\n", name, percent(r->accuracy, o->top[i]));
    }
    fprintf(to, "latency    %.4f ms median, %.4f min, %.4f p99 (%llu runs, %u thread%s)\n",
            median(r->ns, r->runs), ms(r->ns[0]), p99(r->ns, r->runs),
            (unsigned long long)r->runs, r->threads, r->threads == 1 ? "" : "s");
    fprintf(to, "workspace  %llu bytes\n", (unsigned long long)r->model->workspace_size);
    if (r->profile) mpqc_run_profile_text(r, to);
}

void mpqc_run_report(struct run_result *r, FILE *to)
{
    qsort(r->ns, (size_t)r->runs, sizeof *r->ns, by_value);
    if (r->options->json) report_json(r, to);
    else report_text(r, to);
}

/* ---- -info ---- */

static void io_text(const struct mpqc_io *io, const char *kind, FILE *to)
{
    fprintf(to, "%-10s '%s' %s [", kind, io->name, mpqc_element_name(io->element));
    for (uint32_t i = 0; i < io->rank; i++)
        fprintf(to, "%s%lld", i ? "," : "", (long long)io->dims[i]);
    fprintf(to, "]");
    if (io->element != MPQC_ELEM_F32)
        fprintf(to, ", real value = %.9g * (q - %d)", (double)io->scale, io->zero_point);
    if (io->element != MPQC_ELEM_F32 && kind[0] == 'i')
        fprintf(to, "; %s data is taken as it is%s, other data is quantised",
                mpqc_element_name(io->element),
                io->element == MPQC_ELEM_U8 && io->preprocess ? " with -raw" : "");
    fprintf(to, "\n");
    const struct mpqc_preprocess *p = io->preprocess;
    if (!p) return;
    fprintf(to, "           u8 data: scale %.7g", p->scale != 0 ? (double)p->scale : 255.0);
    for (uint32_t c = 0; c < p->channels && c < 4; c++)
        fprintf(to, "%s%.7g", c ? "," : ", mean ", (double)p->mean[c]);
    for (uint32_t c = 0; c < p->channels && c < 4; c++)
        fprintf(to, "%s%.7g", c ? "," : ", std ", (double)p->std[c]);
    fprintf(to, "%s\n", p->nhwc ? ", channels last" : "");
}

static void info_text(const struct mpqc_model *m, FILE *to)
{
    uint64_t macs = 0, weights = 0;
    for (uint32_t i = 0; i < m->n_layers; i++) {
        macs += m->layers[i].macs;
        weights += m->layers[i].weight_bytes;
    }
    fprintf(to, "model      %s\ntarget     %s\ncompiler   %s\n", m->name, m->target, m->compiler);
    for (uint32_t i = 0; i < m->n_inputs; i++) io_text(&m->inputs[i], "input", to);
    for (uint32_t i = 0; i < m->n_outputs; i++) io_text(&m->outputs[i], "output", to);
    fprintf(to, "workspace  %llu bytes, aligned to %llu\n", (unsigned long long)m->workspace_size,
            (unsigned long long)m->workspace_align);
    fprintf(to, "layers     %u, %.3f million MACs, %llu bytes of weights\n", m->n_layers,
            (double)macs / 1e6, (unsigned long long)weights);
    for (uint32_t i = 0; i < m->n_layers; i++) {
        const struct mpqc_layer *l = &m->layers[i];
        fprintf(to, "%5u  w%u a%u %12llu MACs %9llu bytes  %s  %s\n", i, l->weight_bits,
                l->activation_bits, (unsigned long long)l->macs,
                (unsigned long long)l->weight_bytes, l->name, l->op);
    }
}

static void ios_json(const struct mpqc_io *ios, uint32_t n, const char *key, FILE *to)
{
    fprintf(to, ", \"%s\": [", key);
    for (uint32_t k = 0; k < n; k++) {
        const struct mpqc_io *io = &ios[k];
        fprintf(to, "%s{\"name\": ", k ? ", " : "");
        mpqc_run_json_string(to, io->name);
        fprintf(to, ", \"type\": \"%s\", \"dims\": [", mpqc_element_name(io->element));
        for (uint32_t i = 0; i < io->rank; i++)
            fprintf(to, "%s%lld", i ? ", " : "", (long long)io->dims[i]);
        fprintf(to, "], \"scale\": %.9g, \"zero_point\": %d}", (double)io->scale,
                io->zero_point);
    }
    fprintf(to, "]");
}

static void info_json(const struct mpqc_model *m, FILE *to)
{
    fprintf(to, "{\"model\": ");
    mpqc_run_json_string(to, m->name);
    fprintf(to, ", \"target\": ");
    mpqc_run_json_string(to, m->target);
    fprintf(to, ", \"compiler\": ");
    mpqc_run_json_string(to, m->compiler);
    fprintf(to, ", \"workspace\": %llu, \"layers\": %u", (unsigned long long)m->workspace_size,
            m->n_layers);
    ios_json(m->inputs, m->n_inputs, "inputs", to);
    ios_json(m->outputs, m->n_outputs, "outputs", to);
    fprintf(to, "}\n");
}

void mpqc_run_info(const struct mpqc_model *m, int json, FILE *to)
{
    if (json) info_json(m, to);
    else info_text(m, to);
}
