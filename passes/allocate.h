/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * One choice of bits per layer: minimise the expected loss within budgets, or a
 * cost within a bound on the loss.  Works on plain tables (passes/bits.h); knows
 * nothing of graphs.
 *
 *   minimise    sum_l Omega[l][c_l]                     (or bytes, or latency)
 *   subject to  sum_l cost_k[l][c_l] <= budget_k        k: bytes, latency, bops, omega
 *               layers with equal `shared` have equal choices,
 *               layers with equal `input_group` have equal activation bits
 *
 * HAWQ-V3 (Yao et al., 2021), section 3.4, equations 9 to 12.
 */
#ifndef MPQC_PASSES_ALLOCATE_H
#define MPQC_PASSES_ALLOCATE_H

#include "passes/bits.h"

enum mpqc_resource {
    MPQC_RES_BYTES,
    MPQC_RES_LATENCY,
    MPQC_RES_BOPS,
    MPQC_RES_OMEGA,
    MPQC_RES_COUNT
};
const char *mpqc_resource_text(enum mpqc_resource r);

struct mpqc_budget {
    enum mpqc_resource objective; /* what is minimised; usually MPQC_RES_OMEGA */
    bool limited[MPQC_RES_COUNT];
    double limit[MPQC_RES_COUNT];
    uint64_t seed; /* random only */
};

struct mpqc_allocation {
    double total[MPQC_RES_COUNT];
    bool proven;     /* optimal, proven */
    double gap;      /* relative distance to the proven bound; 0 when proven */
    uint64_t nodes;  /* of the search tree */
    /* Of the linear relaxation: by how much the objective would fall per unit of the
     * budget; 0 where the constraint does not bind. */
    double shadow[MPQC_RES_COUNT];
    bool binds[MPQC_RES_COUNT];
};

/* Fills bits->chosen (allocated by the caller, n_layers).  Tables that a limit or
 * the objective needs must be there.  Deterministic.  Budgets that cannot be met:
 * MPQC_INFEASIBLE, with a sentence that says which one, and by how much. */
typedef mpqc_status (*mpqc_allocate_fn)(struct mpqc_cx *, struct mpqc_bits *,
                                        const struct mpqc_budget *, struct mpqc_allocation *);
struct mpqc_strategy {
    const char *name;
    mpqc_allocate_fn run;
    const char *doc;
};
extern const struct mpqc_strategy mpqc_strategies[];
extern const uint32_t mpqc_n_strategies;
const struct mpqc_strategy *mpqc_strategy_find(const char *name); /* NULL: unknown */

#define STRATEGY(name, function, doc)                                                             \
    mpqc_status function(struct mpqc_cx *, struct mpqc_bits *, const struct mpqc_budget *,        \
                         struct mpqc_allocation *) MPQC_MUST_CHECK;
#include "passes/strategies.def"
#undef STRATEGY

/* ---- shared by the strategies ---- */

/* The table of a resource, [layer * mpqc_n_choices + choice]. */
const double *mpqc_bits_table(const struct mpqc_bits *, enum mpqc_resource);
/* Do the ties hold for the plan `chosen`? */
bool mpqc_bits_tied(const struct mpqc_bits *, const uint32_t *chosen);
/* Sums of all known tables for the plan `chosen`; NaN where an entry of it is. */
void mpqc_bits_total(const struct mpqc_bits *, const uint32_t *chosen, double total[MPQC_RES_COUNT]);
bool mpqc_budget_fits(const struct mpqc_budget *, const double total[MPQC_RES_COUNT]);
/* The sentence for a budget that cannot be met. */
mpqc_status mpqc_budget_infeasible(struct mpqc_cx *, const struct mpqc_bits *,
                                   const struct mpqc_budget *);

#endif
