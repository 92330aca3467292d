/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The integer program of HAWQ-V3 (equations 9 to 12), solved by GLPK's branch and
 * cut; the only door to GLPK.
 *
 * One binary column per (layer, choice) that may be taken:
 *   sum_c x[l][c] = 1                                        every layer
 *   sum_l,c cost_k[l][c] x[l][c] <= budget_k                  every limited resource
 *   x[l][c] = x[l'][c]                                        l, l' share weights
 *   sum_{c: a(c) = a} x[l][c] = sum_{c: a(c) = a} x[l'][c]    l, l' share an input, every a
 *
 * The search ends by its number of nodes, never by the clock, so the same input
 * gives the same plan on every machine.
 */
#include "passes/allocate.h"

#include <glpk.h>
#include <math.h>
#include <setjmp.h>

/* Far more than networks need: 60 layers x 7 choices take hundreds. */
#define MAX_NODES 200000

struct ilp {
    struct mpqc_cx *cx;
    struct mpqc_bits *bits;
    const struct mpqc_budget *budget;
    glp_prob *p;
    int *column;      /* [layer * choices + choice], 0: none */
    int row[MPQC_RES_COUNT];
    double scale[MPQC_RES_COUNT]; /* tables are divided by it, for the solver's sake */
    /* one row under construction, 1-based as GLPK wants it */
    int n, *index;
    double *value;
    uint64_t nodes;
    double gap;
    jmp_buf error;
};

static void on_error(void *user)
{
    struct ilp *s = user;
    longjmp(s->error, 1);
}

static int column_of(const struct ilp *s, uint32_t l, uint32_t c)
{
    return s->column[(size_t)l * mpqc_n_choices + c];
}

static void term(struct ilp *s, uint32_t l, uint32_t c, double coefficient)
{
    int col = column_of(s, l, c);
    if (!col || coefficient == 0) return;
    s->n++;
    s->index[s->n] = col;
    s->value[s->n] = coefficient;
}

static int add_row(struct ilp *s, int kind, double bound)
{
    int row = glp_add_rows(s->p, 1);
    glp_set_row_bnds(s->p, row, kind, bound, bound);
    glp_set_mat_row(s->p, row, s->n, s->index, s->value);
    s->n = 0;
    return row;
}

static void add_columns(struct ilp *s)
{
    const struct mpqc_bits *b = s->bits;
    const double *objective = mpqc_bits_table(b, s->budget->objective);
    for (uint32_t l = 0; l < b->n_layers; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            if (!mpqc_bits_may(b, l, c)) continue;
            int col = glp_add_cols(s->p, 1);
            glp_set_col_kind(s->p, col, GLP_BV);
            glp_set_obj_coef(s->p, col,
                             objective[(size_t)l * mpqc_n_choices + c] /
                                 s->scale[s->budget->objective]);
            s->column[(size_t)l * mpqc_n_choices + c] = col;
        }
}

/* Layer l has the same choice, or the same activation bits, as layer k. */
static void tie(struct ilp *s, uint32_t k, uint32_t l)
{
    const struct mpqc_bits_layer *x = &s->bits->layer[k], *y = &s->bits->layer[l];
    if (x->shared == y->shared) {
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            term(s, k, c, 1);
            term(s, l, c, -1);
            if (s->n) add_row(s, GLP_FX, 0);
        }
    } else if (x->input_group == y->input_group) {
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            unsigned a = mpqc_choices[c].activation_bits;
            bool first = true; /* one row per value of activation bits */
            for (uint32_t d = 0; d < c; d++) first = first && mpqc_choices[d].activation_bits != a;
            for (uint32_t d = c; first && d < mpqc_n_choices; d++)
                if (mpqc_choices[d].activation_bits == a) {
                    term(s, k, d, 1);
                    term(s, l, d, -1);
                }
            if (s->n) add_row(s, GLP_FX, 0);
        }
    }
}

static void add_ties(struct ilp *s)
{
    /* to the nearest earlier layer of the same group: equality is transitive */
    const struct mpqc_bits_layer *layer = s->bits->layer;
    for (uint32_t l = 1; l < s->bits->n_layers; l++) {
        bool shared = false, input = false;
        for (uint32_t k = l; k-- > 0 && !(shared && input);) {
            bool same_weights = layer[k].shared == layer[l].shared;
            bool same_input = layer[k].input_group == layer[l].input_group;
            if ((same_weights && !shared) || (same_input && !input)) tie(s, k, l);
            shared = shared || same_weights;
            input = input || same_input;
        }
    }
}

static void add_budgets(struct ilp *s)
{
    for (int r = 0; r < MPQC_RES_COUNT; r++) {
        if (!s->budget->limited[r]) continue;
        const double *table = mpqc_bits_table(s->bits, (enum mpqc_resource)r);
        for (uint32_t l = 0; l < s->bits->n_layers; l++)
            for (uint32_t c = 0; c < mpqc_n_choices; c++)
                term(s, l, c, table[(size_t)l * mpqc_n_choices + c] / s->scale[r]);
        s->row[r] = add_row(s, GLP_UP, s->budget->limit[r] / s->scale[r]);
    }
}

/* Largest entry of a table, so that coefficients are at most 1000. */
static double scale_of(const struct ilp *s, enum mpqc_resource r)
{
    const double *table = mpqc_bits_table(s->bits, r);
    double top = 0;
    for (size_t i = 0; table && i < (size_t)s->bits->n_layers * mpqc_n_choices; i++)
        if (mpqc_bits_may(s->bits, (uint32_t)(i / mpqc_n_choices), (uint32_t)(i % mpqc_n_choices)))
            top = fmax(top, fabs(table[i]));
    return top > 0 ? top / 1000 : 1;
}

static void build(struct ilp *s)
{
    glp_set_obj_dir(s->p, GLP_MIN);
    for (int r = 0; r < MPQC_RES_COUNT; r++) s->scale[r] = scale_of(s, (enum mpqc_resource)r);
    add_columns(s);
    for (uint32_t l = 0; l < s->bits->n_layers; l++) {
        for (uint32_t c = 0; c < mpqc_n_choices; c++) term(s, l, c, 1);
        add_row(s, GLP_FX, 1);
    }
    add_ties(s);
    add_budgets(s);
}

static void watch(glp_tree *tree, void *user)
{
    struct ilp *s = user;
    int active, present, total;
    glp_ios_tree_size(tree, &active, &present, &total);
    s->nodes = (uint64_t)total;
    s->gap = glp_ios_mip_gap(tree);
    if (total > MAX_NODES) glp_ios_terminate(tree);
}

static void read_plan(struct ilp *s)
{
    for (uint32_t l = 0; l < s->bits->n_layers; l++)
        for (uint32_t c = 0; c < mpqc_n_choices; c++) {
            int col = column_of(s, l, c);
            if (col && glp_mip_col_val(s->p, col) > 0.5) s->bits->chosen[l] = c;
        }
}

static void read_shadow(struct ilp *s, struct mpqc_allocation *out)
{
    for (int r = 0; r < MPQC_RES_COUNT; r++) {
        if (!s->row[r]) continue;
        double dual = -glp_get_row_dual(s->p, s->row[r]);
        out->shadow[r] = dual * s->scale[s->budget->objective] / s->scale[r];
        out->binds[r] = dual > 1e-12;
    }
}

static mpqc_status solve(struct ilp *s, struct mpqc_allocation *out)
{
    glp_smcp lp;
    glp_iocp ip;
    glp_init_smcp(&lp);
    glp_init_iocp(&ip);
    lp.msg_lev = ip.msg_lev = GLP_MSG_OFF;
    ip.gmi_cuts = ip.mir_cuts = ip.cov_cuts = GLP_ON;
    ip.br_tech = GLP_BR_DTH;
    ip.bt_tech = GLP_BT_BLB;
    ip.cb_func = watch;
    ip.cb_info = s;
    build(s);
    if (glp_simplex(s->p, &lp) != 0 || glp_get_status(s->p) != GLP_OPT)
        return mpqc_budget_infeasible(s->cx, s->bits, s->budget);
    read_shadow(s, out);
    int rc = glp_intopt(s->p, &ip);
    int status = glp_mip_status(s->p);
    if (status != GLP_OPT && status != GLP_FEAS)
        return mpqc_budget_infeasible(s->cx, s->bits, s->budget);
    read_plan(s);
    mpqc_bits_total(s->bits, s->bits->chosen, out->total);
    MPQC_ASSERT(!isnan(out->total[MPQC_RES_OMEGA])); /* plans use what layers may have */
    out->nodes = s->nodes;
    out->proven = rc == 0 && status == GLP_OPT;
    out->gap = out->proven ? 0 : s->gap;
    if (!out->proven)
        mpqc_warn(s->cx, MPQC_NOWHERE,
                  "the integer program was ended after %d nodes; the plan is within %.3g %% of the "
                  "optimum, but not proven optimal",
                  MAX_NODES, 100 * s->gap);
    return MPQC_OK;
}

mpqc_status mpqc_allocate_ilp(struct mpqc_cx *cx, struct mpqc_bits *b,
                              const struct mpqc_budget *budget, struct mpqc_allocation *out)
{
    size_t cells = (size_t)b->n_layers * mpqc_n_choices;
    struct ilp s = {.cx = cx, .bits = b, .budget = budget};
    memset(out, 0, sizeof *out);
    /* index and value are for one row each and 1-based; a tie's row has two layers */
    s.column = calloc(cells + 1, sizeof *s.column);
    s.index = calloc(cells + 1, sizeof *s.index);
    s.value = calloc(cells + 1, sizeof *s.value);
    mpqc_status status = MPQC_NO_MEMORY;
    if (!s.column || !s.index || !s.value) {
        status = MPQC_OOM(cx);
    } else if (setjmp(s.error)) {
        /* GLPK found itself misused; its environment is gone with everything in it */
        glp_error_hook(NULL, NULL);
        glp_free_env();
        s.p = NULL;
        status = MPQC_FAIL(cx, BUG, MPQC_NOWHERE, "the integer program solver failed");
    } else {
        glp_error_hook(on_error, &s);
        glp_term_out(GLP_OFF);
        s.p = glp_create_prob();
        status = solve(&s, out);
        glp_delete_prob(s.p);
        glp_error_hook(NULL, NULL);
        glp_free_env();
    }
    free(s.value);
    free(s.index);
    free(s.column);
    return status;
}
