/* SPDX-License-Identifier: GPL-3.0-or-later
 * -report: JSON (RFC 8259) and CSV (RFC 4180).
 */
#include "driver/report.h"

#include "driver/cli.h"

#include <inttypes.h>
#include <math.h>

/* ---- JSON ---- */

/* Length of the well-formed UTF-8 sequence at s, 0 if there is none (RFC 3629). */
static size_t utf8(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
               : s[0] >= 0xf0 && s[0] < 0xf5                                                   ? 4
                                                                                               : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))
        return 0;
    return n;
}

static void put_string(struct mpqc_buf *to, const char *text)
{
    mpqc_buf_puts(to, "\"");
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        size_t n = utf8(s);
        if (*s == '"' || *s == '\\') mpqc_buf_printf(to, "\\%c", *s);
        else if (*s < ' ') mpqc_buf_printf(to, "\\u%04x", *s);
        else if (n == 0) mpqc_buf_puts(to, "\\ufffd");
        else mpqc_buf_add(to, s, n);
        s += n ? n : 1;
    }
    mpqc_buf_puts(to, "\"");
}

static void put_number(struct mpqc_buf *to, double x)
{
    if (isfinite(x)) mpqc_buf_printf(to, "%.9g", x);
    else mpqc_buf_puts(to, "null");
}

static void put_key(struct mpqc_buf *to, const char *key, double x)
{
    mpqc_buf_printf(to, ", \"%s\": ", key);
    put_number(to, x);
}

static void put_shape(struct mpqc_buf *to, const char *key, const struct mpqc_type *t)
{
    mpqc_buf_printf(to, ", \"%s\": [", key);
    for (uint32_t d = 0; d < t->rank; d++)
        mpqc_buf_printf(to, "%s%" PRId64, d ? ", " : "", t->dims[d]);
    mpqc_buf_puts(to, "]");
}

/* {"w8a8": 1.5, ...}: choices that the layer may take, as far as they are known. */
static void put_choices(struct mpqc_buf *to, const struct mpqc_bits *b, uint32_t l, const char *key,
                        const double *table)
{
    bool first = true;
    mpqc_buf_printf(to, ", \"%s\": ", key);
    if (!table) {
        mpqc_buf_puts(to, "null");
        return;
    }
    mpqc_buf_puts(to, "{");
    for (uint32_t c = 0; c < mpqc_n_choices; c++) {
        if (b->allowed && !b->allowed[(size_t)l * mpqc_n_choices + c]) continue;
        if (isnan(table[(size_t)l * mpqc_n_choices + c])) continue;
        mpqc_buf_printf(to, "%s\"%s\": ", first ? "" : ", ", mpqc_choices[c].name);
        put_number(to, table[(size_t)l * mpqc_n_choices + c]);
        first = false;
    }
    mpqc_buf_puts(to, "}");
}

static void put_reason(struct mpqc_buf *to, const struct mpqc_mixed *m, uint32_t l,
                       void (*put)(struct mpqc_buf *, const char *))
{
    struct mpqc_buf why;
    mpqc_buf_init(&why);
    mpqc_mixed_reason(m, l, &why);
    put(to, why.data ? why.data : "");
    mpqc_buf_release(&why);
}

/* Of -tune-kernels: the tile of the kernel that computes the layer. */
static void put_tile(struct mpqc_buf *to, const struct mpqc_report_job *j, const char *name)
{
    char text[MPQC_TILE_TEXT];
    for (uint32_t k = 0; j->tuning && k < j->tuning->n_kernels; k++) {
        const struct mpqc_tuned_shape *s = mpqc_tuned_of(j->tuning, k);
        const struct mpqc_node *core = mpqc_node_at(j->integer, j->passes->plan->kernels[k].core);
        if (!s || !core->loc.node || strcmp(core->loc.node, name) != 0) continue;
        mpqc_buf_printf(to, ", \"tile\": \"%s\"", mpqc_tile_text(s->tile, text));
        put_key(to, "tile_ns", s->ns);
        mpqc_buf_printf(to, ", \"usual_tile\": \"%s\"", mpqc_tile_text(s->usual, text));
        put_key(to, "usual_tile_ns", s->usual_ns);
        return;
    }
}

static void json_layer(struct mpqc_buf *to, const struct mpqc_report_job *j, uint32_t l,
                       const struct mpqc_layer_facts *f)
{
    const struct mpqc_mixed *m = j->mixed;
    const struct mpqc_bits *b = &m->bits;
    const struct mpqc_bits_layer *layer = &b->layer[l];
    mpqc_buf_printf(to, "%s    {\"name\": ", l ? ",\n" : "");
    put_string(to, layer->name);
    mpqc_buf_puts(to, ", \"op\": ");
    put_string(to, layer->op);
    put_shape(to, "input", &mpqc_value_at(j->real, layer->input)->type);
    put_shape(to, "output", &mpqc_value_at(j->real, layer->output)->type);
    if (layer->weights != MPQC_NONE)
        put_shape(to, "weights", &mpqc_value_at(j->real, layer->weights)->type);
    mpqc_buf_printf(to, ", \"params\": %" PRIu64 ", \"macs\": %" PRIu64 ", \"choice\": \"%s\"",
                    layer->params, layer->macs, mpqc_choices[b->chosen[l]].name);
    mpqc_buf_printf(to, ", \"weight_bits\": %u, \"activation_bits\": %u, \"reason\": ",
                    mpqc_choices[b->chosen[l]].weight_bits,
                    mpqc_choices[b->chosen[l]].activation_bits);
    put_reason(to, m, l, put_string);
    put_key(to, "sqnr_isolated_db", f->isolated_db);
    put_key(to, "sqnr_accumulated_db", f->accumulated_db);
    put_key(to, "saturation", f->saturation);
    for (uint32_t i = 0; i < b->n_figures; i++)
        put_key(to, b->figure[i].name, b->figure[i].value[l]);
    put_choices(to, b, l, "omega", b->omega);
    put_choices(to, b, l, "bytes", b->bytes);
    put_choices(to, b, l, "latency_ns", b->latency);
    put_choices(to, b, l, "bops", b->bops);
    put_tile(to, j, layer->name);
    mpqc_buf_puts(to, "}");
}

static const char *const resource_keys[MPQC_RES_COUNT] = {"bytes", "latency_ns", "bops", "omega"};

static void json_totals(struct mpqc_buf *to, const struct mpqc_mixed *m)
{
    mpqc_buf_puts(to, "  \"totals\": {");
    for (int r = 0; r < MPQC_RES_COUNT; r++) {
        bool known = mpqc_bits_table(&m->bits, (enum mpqc_resource)r) != NULL;
        mpqc_buf_printf(to, "%s\"%s\": {\"plan\": ", r ? ", " : "", resource_keys[r]);
        put_number(to, known ? m->allocation.total[r] : NAN);
        put_key(to, "uniform_w8a8", known ? m->uniform[r] : NAN);
        put_key(to, "limit", m->budget.limited[r] ? m->budget.limit[r] : NAN);
        mpqc_buf_printf(to, ", \"binds\": %s", m->allocation.binds[r] ? "true" : "false");
        put_key(to, "shadow_price", m->budget.limited[r] ? m->allocation.shadow[r] : NAN);
        mpqc_buf_puts(to, "}");
    }
    mpqc_buf_puts(to, "},\n");
}

static void json(struct mpqc_buf *to, const struct mpqc_report_job *j,
                 const struct mpqc_layer_facts *facts)
{
    const struct mpqc_mixed *m = j->mixed;
    mpqc_buf_puts(to, "{\n  \"model\": ");
    put_string(to, j->cli->model);
    mpqc_buf_puts(to, ", \"target\": ");
    put_string(to, j->target->name);
    mpqc_buf_puts(to, ",\n  \"strategy\": ");
    put_string(to, m->strategy);
    mpqc_buf_puts(to, ", \"sensitivity\": ");
    if (m->metric) put_string(to, m->metric);
    else mpqc_buf_puts(to, "null");
    mpqc_buf_puts(to, ", \"cost\": ");
    put_string(to, m->cost);
    /* another measurement may give other costs, and so another plan */
    mpqc_buf_printf(to, ", \"reproducible\": %s",
                    strcmp(m->cost, "measured") == 0 ? "false" : "true");
    mpqc_buf_printf(to, ", \"proven_optimal\": %s", m->allocation.proven ? "true" : "false");
    put_key(to, "gap", m->allocation.gap);
    mpqc_buf_printf(to, ", \"search_nodes\": %" PRIu64 ",\n", m->allocation.nodes);
    json_totals(to, m);
    mpqc_buf_puts(to, "  \"accuracy\": {\"float_top1\": ");
    put_number(to, m->float_top1);
    put_key(to, "top1", m->top1);
    mpqc_buf_printf(to, ", \"samples\": %" PRIu64 ", \"evaluations\": %" PRIu64
                        ", \"missed\": %s},\n",
                    m->labelled, m->evaluations, m->missed ? "true" : "false");
    mpqc_buf_puts(to, "  \"layers\": [\n");
    for (uint32_t l = 0; l < m->bits.n_layers; l++) json_layer(to, j, l, &facts[l]);
    mpqc_buf_puts(to, "\n  ]\n}\n");
}

/* ---- CSV ---- */

static void put_field(struct mpqc_buf *to, const char *text)
{
    mpqc_buf_puts(to, "\"");
    for (; *text; text++) {
        if (*text == '"') mpqc_buf_puts(to, "\"");
        mpqc_buf_add(to, text, 1);
    }
    mpqc_buf_puts(to, "\"");
}

static void put_cell(struct mpqc_buf *to, double x)
{
    mpqc_buf_puts(to, ",");
    if (isfinite(x)) mpqc_buf_printf(to, "%.9g", x);
}

static void csv_shape(struct mpqc_buf *to, const struct mpqc_type *t)
{
    mpqc_buf_puts(to, ",");
    for (uint32_t d = 0; d < t->rank; d++)
        mpqc_buf_printf(to, "%s%" PRId64, d ? "x" : "", t->dims[d]);
}

static void csv_header(struct mpqc_buf *to, const struct mpqc_bits *b)
{
    mpqc_buf_puts(to, "name,op,input,output,params,macs,choice,reason,sqnr_isolated_db,"
                      "sqnr_accumulated_db,saturation");
    for (uint32_t i = 0; i < b->n_figures; i++) mpqc_buf_printf(to, ",%s", b->figure[i].name);
    for (int r = 0; r < MPQC_RES_COUNT; r++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++)
            mpqc_buf_printf(to, ",%s_%s", resource_keys[r], mpqc_choices[c].name);
    mpqc_buf_puts(to, "\n");
}

static void csv_layer(struct mpqc_buf *to, const struct mpqc_report_job *j, uint32_t l,
                      const struct mpqc_layer_facts *f)
{
    const struct mpqc_mixed *m = j->mixed;
    const struct mpqc_bits *b = &m->bits;
    const struct mpqc_bits_layer *layer = &b->layer[l];
    put_field(to, layer->name);
    mpqc_buf_puts(to, ",");
    put_field(to, layer->op);
    csv_shape(to, &mpqc_value_at(j->real, layer->input)->type);
    csv_shape(to, &mpqc_value_at(j->real, layer->output)->type);
    mpqc_buf_printf(to, ",%" PRIu64 ",%" PRIu64 ",%s,", layer->params, layer->macs,
                    mpqc_choices[b->chosen[l]].name);
    put_reason(to, m, l, put_field);
    put_cell(to, f->isolated_db);
    put_cell(to, f->accumulated_db);
    put_cell(to, f->saturation);
    for (uint32_t i = 0; i < b->n_figures; i++) put_cell(to, b->figure[i].value[l]);
    for (int r = 0; r < MPQC_RES_COUNT; r++) {
        const double *table = mpqc_bits_table(b, (enum mpqc_resource)r);
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            size_t at = (size_t)l * mpqc_n_choices + c;
            put_cell(to, table && (!b->allowed || b->allowed[at]) ? table[at] : NAN);
        }
    }
    mpqc_buf_puts(to, "\n");
}

/* ---- together ---- */

mpqc_status mpqc_report_write(const struct mpqc_report_job *j)
{
    const char *path = j->cli->mixed.report;
    uint32_t n = j->mixed->bits.n_layers;
    struct mpqc_layer_facts *facts = calloc(n + 1, sizeof *facts);
    struct mpqc_buf text;
    if (!facts) return MPQC_OOM(j->cx);
    mpqc_buf_init(&text);
    mpqc_status status = mpqc_report_measure(j, facts);
    if (strcmp(path + strlen(path) - 4, ".csv") == 0) {
        csv_header(&text, &j->mixed->bits);
        for (uint32_t l = 0; l < n; l++) csv_layer(&text, j, l, &facts[l]);
    } else {
        json(&text, j, facts);
    }
    if (status == MPQC_OK) status = mpqc_text_write(j->cx, path, &text);
    mpqc_buf_release(&text);
    free(facts);
    return status;
}
