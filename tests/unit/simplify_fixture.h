/* SPDX-License-Identifier: GPL-3.0-or-later
 * What the tests of simplify share: a graph before and after, and whether the two
 * are the same function.
 */
#ifndef TESTS_UNIT_SIMPLIFY_FIXTURE_H
#define TESTS_UNIT_SIMPLIFY_FIXTURE_H

#include "ir/elements.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/pass.h"

#include <math.h>
#include <setjmp.h>
#include <cmocka.h>

#define MAX_IO 8
#define TOLERANCE 1e-4f

struct fixture {
    struct mpqc_cx cx;
    struct mpqc_graph before, after;
    struct mpqc_options o;
    struct mpqc_pass_cx p;
};

static inline void start(struct fixture *f)
{
    mpqc_cx_init(&f->cx, NULL);
    mpqc_graph_init(&f->before, NULL);
    mpqc_graph_init(&f->after, NULL);
    mpqc_options_init(&f->o);
    mpqc_pass_cx_init(&f->p, &f->cx, &f->o);
}

static inline void stop(struct fixture *f)
{
    mpqc_pass_cx_release(&f->p);
    mpqc_graph_release(&f->before);
    mpqc_graph_release(&f->after);
    mpqc_cx_release(&f->cx);
}

static inline void print_diags(const struct fixture *f)
{
    for (uint32_t i = 0; i < f->cx.n_diags; i++) mpqc_diag_print(&f->cx.diags[i], stderr);
}

static inline void must(const struct fixture *f, mpqc_status status)
{
    if (status != MPQC_OK) print_diags(f);
    assert_int_equal(status, MPQC_OK);
}

static inline char *text_of(const struct mpqc_graph *g)
{
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    mpqc_graph_print(g, &b, true);
    assert_false(b.failed);
    return b.data;
}

/* `before` is there; makes `after`. */
static inline void simplify(struct fixture *f)
{
    struct mpqc_arena scratch;
    mpqc_arena_init(&scratch, NULL);
    for (mpqc_nid i = 0; i < f->before.n_nodes; i++)
        if (!f->before.nodes[i].loc.node)
            f->before.nodes[i].loc = (struct mpqc_loc){"node", "Op", -1};
    must(f, mpqc_graph_normalise(&f->cx, &f->before));
    must(f, mpqc_graph_clone(&f->cx, &f->before, &f->after, &scratch, NULL));
    mpqc_arena_release(&scratch);
    must(f, mpqc_pass_simplify(&f->p, &f->after));
    mpqc_arena_reset(&f->p.scratch);
    must(f, mpqc_verify(&f->cx, &f->after, MPQC_VERIFY_FLOAT));
}

/* ---- the same function ---- */

static inline void run(struct fixture *f, const struct mpqc_graph *g, void *const *in, void **out)
{
    struct mpqc_runner *r;
    const void *inputs[MAX_IO];
    assert_true(g->n_inputs <= MAX_IO && g->n_outputs <= MAX_IO);
    for (uint32_t i = 0; i < g->n_inputs; i++) inputs[i] = in[i];
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        size_t bytes = mpqc_type_bytes(&g->values[g->outputs[i]].type);
        out[i] = malloc(bytes + 1);
        assert_non_null(out[i]);
    }
    must(f, mpqc_interpreter.prepare(&f->cx, g, &r));
    must(f, mpqc_interpreter.run(r, inputs, out, NULL, NULL));
    mpqc_interpreter.release(r);
}

static inline bool close_enough(float a, float b, float scale)
{
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
    return a == b || fabsf(a - b) <= TOLERANCE * (scale > 1e-3f ? scale : 1e-3f);
}

/* Differences count relative to the largest element. */
static inline bool same_tensor(const struct mpqc_type *t, const void *a, const void *b)
{
    int64_t n = mpqc_type_count(t);
    if (t->dtype != MPQC_DT_F32) return memcmp(a, b, mpqc_type_bytes(t)) == 0;
    const float *x = a, *y = b;
    float scale = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i])) scale = fmaxf(scale, fabsf(x[i]));
    for (int64_t i = 0; i < n; i++)
        if (!close_enough(x[i], y[i], scale)) return false;
    return true;
}

/* False when the two graphs differ for some input. */
static inline bool same_function(struct fixture *f, uint64_t seed)
{
    const struct mpqc_graph *g = &f->before;
    void *in[MAX_IO], *out[MAX_IO], *out2[MAX_IO];
    bool same = true;
    for (uint32_t i = 0; i < g->n_inputs; i++) {
        const struct mpqc_type *t = &g->values[g->inputs[i]].type;
        in[i] = malloc(mpqc_type_bytes(t) + 1);
        assert_non_null(in[i]);
        mpqc_elements_random(t->dtype, in[i], mpqc_type_count(t), seed * 77 + i);
    }
    run(f, g, in, out);
    run(f, &f->after, in, out2);
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        const struct mpqc_value *v = &g->values[g->outputs[i]];
        const struct mpqc_value *w = &f->after.values[f->after.outputs[i]];
        assert_true(mpqc_type_equal(&v->type, &w->type));
        if (v->name) assert_string_equal(v->name, w->name);
        same &= same_tensor(&v->type, out[i], out2[i]);
        free(out[i]);
        free(out2[i]);
    }
    for (uint32_t i = 0; i < g->n_inputs; i++) free(in[i]);
    return same;
}

/* Simplifying once more changes nothing. */
static inline void is_fixed_point(struct fixture *f)
{
    char *once = text_of(&f->after);
    must(f, mpqc_pass_simplify(&f->p, &f->after));
    char *twice = text_of(&f->after);
    assert_string_equal(once, twice);
    free(once);
    free(twice);
}

#endif
