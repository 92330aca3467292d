/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One layer -> an integer graph of random weights -> the passes -> assembly.
 */
#include "tests/bench/mca/mca.h"

#include "ir/elements.h"
#include "ir/text.h"
#include "passes/pass.h"

static mpqc_status get_random(void *user, struct mpqc_cx *cx, uint64_t index, void *const *inputs)
{
    const struct mpqc_graph *g = user;
    const struct mpqc_type *t = &g->values[g->inputs[0]].type;
    (void)cx;
    mpqc_elements_random(t->dtype, inputs[0], mpqc_type_count(t), index + 7);
    return MPQC_OK;
}

/* The layer as a float network of its own. */
static void write_text(const struct mca_layer *l, struct mpqc_buf *to)
{
    int pad = l->k / 2, out = l->channels_out;
    if (l->k == 0) {
        mpqc_buf_printf(to,
                        "graph \"layer\" {\n  input %%0 \"x\" : f32[1,%d]\n"
                        "  const %%1 : f32[%d,%d] = random 1\n"
                        "  %%2 = matmul %%0, %%1 @\"layer\" \"Gemm\"\n",
                        l->channels, l->channels, out);
    } else {
        mpqc_buf_printf(to,
                        "graph \"layer\" {\n  input %%0 \"x\" : f32[1,%d,%d,%d]\n"
                        "  const %%1 : f32[%d,%d,%d,%d] = random 1\n"
                        "  %%2 = conv %%0, %%1 {group=%d, pads=[%d,%d,%d,%d], strides=[%d,%d]}"
                        " @\"layer\" \"Conv\"\n",
                        l->size, l->size, l->channels, l->k, l->k, l->channels / l->groups, out,
                        l->groups, pad, pad, pad, pad, l->stride, l->stride);
    }
    mpqc_buf_puts(to, "  %3 = relu %2 @\"relu\" \"Relu\"\n  output %3\n}\n");
}

static mpqc_status compile(struct mpqc_cx *cx, struct mpqc_graph *g, struct mpqc_pass_cx *p,
                           const struct mca_layer *l, const char *target, const char *path)
{
    static const char *const passes[] = {"calibrate", "quantise", "fuse", "plan"};
    struct mpqc_dataset data = {1, get_random, g};
    struct mpqc_target t;
    struct mpqc_codegen_facts facts;
    struct mpqc_buf text;
    bool stopped;
    mpqc_buf_init(&text);
    write_text(l, &text);
    p->data = &data;
    mpqc_status s = text.failed ? MPQC_OOM(cx)
                                : mpqc_graph_parse(cx, text.data, text.len, l->name, g);
    mpqc_buf_release(&text);
    MPQC_TRY(s);
    MPQC_TRY(mpqc_graph_normalise(cx, g));
    MPQC_TRY(mpqc_pipeline_run(p, g, passes, MPQC_LEN(passes), &stopped));
    MPQC_TRY(mpqc_target_find(cx, target, NULL, &t));
    struct mpqc_codegen_request rq = {
        .graph = g, .plan = p->plan, .target = &t, .emit = MPQC_EMIT_ASM, .path = path};
    return mpqc_codegen_emit(cx, &rq, &facts);
}

bool mca_compile(const struct mca_layer *l, const char *target, const char *path)
{
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_options options;
    struct mpqc_pass_cx p;
    mpqc_cx_init(&cx, NULL);
    mpqc_graph_init(&g, NULL);
    mpqc_options_init(&options);
    options.calibration = MPQC_CALIB_MINMAX;
    /* integers from outside are bytes, whatever the layer would like */
    options.int_io = l->activation_bits == 0;
    if (l->weight_bits) options.weight_bits = l->weight_bits;
    if (l->activation_bits) options.activation_bits = l->activation_bits;
    mpqc_pass_cx_init(&p, &cx, &options);
    bool ok = compile(&cx, &g, &p, l, target, path) == MPQC_OK;
    for (uint32_t i = 0; i < cx.n_diags; i++) mpqc_diag_print(&cx.diags[i], stderr);
    mpqc_pass_cx_release(&p);
    mpqc_graph_release(&g);
    mpqc_cx_release(&cx);
    return ok;
}
