/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tests/e2e/support.h"

#include "passes/pins.h"

#include <errno.h>
#include <sys/stat.h>

void e2e_die(const char *file, int line, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fflush(stdout);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* ---- files and memory ---- */

void *e2e_malloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    CHECK(p, "out of memory for %zu bytes", n);
    return p;
}

uint8_t *e2e_read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    CHECK(f, "%s: %s", path, strerror(errno));
    CHECK(fseek(f, 0, SEEK_END) == 0, "%s cannot be read", path);
    long size = ftell(f);
    rewind(f);
    CHECK(size >= 0, "%s cannot be read", path);
    uint8_t *bytes = e2e_malloc((size_t)size);
    CHECK(fread(bytes, 1, (size_t)size, f) == (size_t)size, "%s cannot be read", path);
    fclose(f);
    *n = (size_t)size;
    return bytes;
}

void e2e_make_folder(const char *path)
{
    char part[1024];
    CHECK(snprintf(part, sizeof part, "%s", path) < (int)sizeof part, "path too long");
    for (char *p = part + 1; *p; p++) {
        if (*p != '/') continue;
        *p = '\0';
        mkdir(part, 0777);
        *p = '/';
    }
    CHECK(mkdir(part, 0777) == 0 || errno == EEXIST, "%s: %s", path, strerror(errno));
}

uint64_t e2e_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void e2e_random_bytes(uint64_t *state, void *to, size_t n)
{
    uint8_t *p = to;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t r = e2e_random(state);
        memcpy(p, &r, 8);
    }
    uint64_t r = e2e_random(state);
    memcpy(p, &r, n);
}

/* ---- networks and images ---- */

struct e2e_network e2e_network_find(const char *name)
{
    static const char table[] = MPQC_SOURCE_DIR "/tutorials/networks/networks.tsv";
    FILE *f = fopen(table, "r");
    char line[1024];
    CHECK(f, "%s: %s", table, strerror(errno));
    while (fgets(line, sizeof line, f)) {
        struct e2e_network net;
        if (sscanf(line, "%63s %15s %lf %f %f", net.name, net.metric, &net.value, &net.mean,
                   &net.std) != 5)
            continue;
        if (strcmp(net.name, name) != 0 && strcmp(net.name + strlen("fashion_"), name) != 0)
            continue;
        fclose(f);
        snprintf(net.path, sizeof net.path, MPQC_SOURCE_DIR "/tutorials/networks/%s.onnx",
                 net.name);
        return net;
    }
    e2e_die(__FILE__, __LINE__, "%s has no network '%s'", table, name);
}

void e2e_images_open(struct e2e_images *images, const char *path, const struct e2e_network *net,
                     const struct mpqc_graph *g)
{
    struct mpqc_data_error err;
    CHECK(g->n_inputs == 1, "%s has %u inputs", net->name, g->n_inputs);
    images->type = mpqc_value_at(g, g->inputs[0])->type;
    images->pre = (struct mpqc_preprocess){
        .scale = 255, .channels = 1, .mean = {net->mean}, .std = {net->std}};
    CHECK(mpqc_data_open(path, 0, NULL, &images->file, &err) == 0, "%s", err.text);
    images->array = mpqc_data_at(images->file, 0);
    CHECK(mpqc_array_check(images->array, "input", images->type.rank, images->type.dims,
                           &images->pre, &images->count, &err) == 0,
          "%s", err.text);
}

void e2e_images_get(const struct e2e_images *images, uint64_t index, float *out)
{
    struct mpqc_data_error err;
    CHECK(mpqc_array_sample(images->array, images->type.rank, images->type.dims, &images->pre,
                            index, out, &err) == 0,
          "%s", err.text);
}

void e2e_images_close(struct e2e_images *images)
{
    mpqc_data_close(images->file);
}

static mpqc_status get_sample(void *user, struct mpqc_cx *cx, uint64_t index, void *const *inputs)
{
    (void)cx;
    e2e_images_get(user, index, inputs[0]);
    return MPQC_OK;
}

/* ---- compilation ---- */

void e2e_expect_ok(const struct mpqc_cx *cx, mpqc_status status, const char *what)
{
    if (status == MPQC_OK) return;
    for (uint32_t i = 0; i < cx->n_diags; i++) mpqc_diag_print(&cx->diags[i], stderr);
    e2e_die(__FILE__, __LINE__, "%s failed", what);
}

/* Layers that share the input of a pinned one have its choice too. */
static void decide(struct e2e_compiled *c, const char *rule)
{
    struct mpqc_bits *b = &c->bits;
    struct mpqc_pins pins = {.arena = &c->passes.keep};
    e2e_expect_ok(&c->cx, mpqc_bits_collect(&c->cx, &c->graph, &c->passes.keep, b), "bits");
    e2e_expect_ok(&c->cx, mpqc_bits_tie(&c->passes, &c->graph, b), "ties");
    e2e_expect_ok(&c->cx, mpqc_pins_add(&c->cx, &pins, rule, "the test"), "the rule");
    e2e_expect_ok(&c->cx, mpqc_pins_apply(&c->cx, &pins, b), "the rule");
    b->chosen = MPQC_NEW_ARRAY(&c->passes.keep, uint32_t, b->n_layers);
    CHECK(b->chosen, "out of memory");
    for (uint32_t l = 0; l < b->n_layers; l++) {
        b->chosen[l] = mpqc_choice_plain();
        for (uint32_t k = 0; k < b->n_layers; k++)
            if (b->layer[k].pinned >= 0 && b->layer[k].input_group == b->layer[l].input_group)
                b->chosen[l] = (uint32_t)b->layer[k].pinned;
    }
    c->passes.bits = b;
}

void e2e_compile(const struct e2e_network *net, uint64_t samples, bool int_io, const char *pin,
                 struct e2e_compiled *c)
{
    static const char *const passes[] = {"simplify", "calibrate", "quantise", "fuse", "plan"};
    bool stopped;
    mpqc_cx_init(&c->cx, NULL);
    mpqc_options_init(&c->options);
    c->options.int_io = int_io;
    c->options.verify_each = true;
    mpqc_graph_init(&c->graph, NULL);
    mpqc_pass_cx_init(&c->passes, &c->cx, &c->options);
    e2e_expect_ok(&c->cx,
                  mpqc_import_onnx(&c->cx, net->path, &(struct mpqc_import_options){.n_shapes = 0},
                                   &c->graph),
                  "import");
    struct e2e_images images;
    e2e_images_open(&images, TRAIN_IMAGES, net, &c->graph);
    struct mpqc_dataset data = {.count = samples, .get = get_sample, .user = &images};
    c->passes.data = &data;
    c->passes.engine = &mpqc_interpreter;
    e2e_expect_ok(&c->cx, mpqc_pipeline_run(&c->passes, &c->graph, passes, 2, &stopped),
                  "simplify and calibrate");
    if (pin) decide(c, pin);
    e2e_expect_ok(&c->cx,
                  mpqc_pipeline_run(&c->passes, &c->graph, passes + 2, MPQC_LEN(passes) - 2,
                                    &stopped),
                  "the pipeline");
    CHECK(!stopped && c->passes.plan, "no plan was made");
    c->passes.data = NULL;
    e2e_images_close(&images);
}

void e2e_compiled_release(struct e2e_compiled *c)
{
    mpqc_pass_cx_release(&c->passes);
    mpqc_graph_release(&c->graph);
    mpqc_cx_release(&c->cx);
}

uint64_t e2e_weight_bytes(const struct mpqc_graph *g)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < g->n_order; i++) {
        const struct mpqc_node *n = mpqc_node_at(g, g->order[i]);
        if (!(mpqc_ops[n->op].traits & MPQC_T_LINEAR) || n->n_in < 2) continue;
        if (mpqc_is_const(g, n->in[1])) bytes += mpqc_type_bytes(&mpqc_value_at(g, n->in[1])->type);
    }
    return bytes;
}
