/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What calibrate, bits and the files quantise*.c share; nobody else includes this.
 *
 * A float graph is seen as clusters: a core node with everything behind it that
 * one integer kernel can do, down to the one value that is stored in 8 bits.
 * Which values need a range follows from the clusters alone, so calibration knows
 * it before any scheme is chosen.
 */
#ifndef MPQC_PASSES_QUANTISE_H
#define MPQC_PASSES_QUANTISE_H

#include "passes/pass.h"

mpqc_status mpqc_pass_calibrate(struct mpqc_pass_cx *p, struct mpqc_graph *g) MPQC_MUST_CHECK;
mpqc_status mpqc_pass_quantise(struct mpqc_pass_cx *p, struct mpqc_graph *g) MPQC_MUST_CHECK;

/* How an operator becomes integer: see quantise_rules.def. */
enum mpqc_rule {
    MPQC_RULE_NONE,    /* it has no integer form */
    MPQC_RULE_LINEAR,  /* constant weights in input 1: conv, matmul */
    MPQC_RULE_CHANNEL, /* x * a[c] + b[c]: batchnorm and friends, a 1x1 depthwise conv */
    MPQC_RULE_MUL,     /* product of two activations */
    MPQC_RULE_SUM,     /* a + b, a - b */
    MPQC_RULE_MEAN,    /* reduce_mean, reduce_sum */
    MPQC_RULE_AVGPOOL,
    MPQC_RULE_UNARY,   /* f(x), also with a scalar constant: a table */
    MPQC_RULE_SAME,    /* result elements are input elements */
    MPQC_RULE_JOIN,    /* result elements are elements of several inputs: concat, min, max */
    MPQC_RULE_SOFTMAX
};

/* The rule that holds for this very node: depends on which inputs are constants. */
enum mpqc_rule mpqc_quantise_rule(const struct mpqc_graph *g, const struct mpqc_node *n);

struct mpqc_cluster {
    enum mpqc_rule rule; /* of the core */
    mpqc_nid core;
    mpqc_nid last;       /* node that makes `out`; the cluster is emitted at its place */
    mpqc_nid add;        /* fused residual add or sub, or MPQC_NONE */
    uint32_t n_chain;    /* unary nodes that follow, in order */
    mpqc_nid *chain;
    uint32_t n_clamp;    /* the first of them, which are relu or clip: folded into limits */
    mpqc_vid sum;        /* result of core and add */
    mpqc_vid pre;        /* sum after the clamps: the table's input, or `out` */
    mpqc_vid out;        /* the value that is stored */
    bool wide;           /* only graph outputs (through reshapes) read it: kept as i16 */
};

struct mpqc_clusters {
    uint32_t n;
    struct mpqc_cluster *c;      /* in order of their cores */
    uint32_t *of_node;           /* by node: cluster, or MPQC_NONE */
    uint32_t *uses;              /* by value; graph outputs count */
    mpqc_nid *user;              /* by value: its only user if uses is 1, else MPQC_NONE */
    bool *needs_range;           /* by value: must be observed */
};

/* Everything in `arena`. */
mpqc_status mpqc_quantise_clusters(struct mpqc_cx *cx, const struct mpqc_graph *g,
                                   struct mpqc_arena *arena, struct mpqc_clusters *out)
    MPQC_MUST_CHECK;
/* Has a chain behind the clamps: a table is needed. */
static inline bool mpqc_cluster_has_table(const struct mpqc_cluster *c)
{
    return c->n_chain > c->n_clamp;
}
/* The input of a binary node that is not `v`. */
mpqc_vid mpqc_other_input(const struct mpqc_node *n, mpqc_vid v);
/* All elements equal; gives the value. */
bool mpqc_const_scalar(const struct mpqc_graph *g, mpqc_vid v, float *value);
/* Largest magnitude in a constant. */
double mpqc_const_peak(const struct mpqc_graph *g, mpqc_vid v);

/* Value of a chain of unary nodes at n points, by the reference kernels. */
mpqc_status mpqc_chain_eval(struct mpqc_cx *cx, const struct mpqc_graph *g, const mpqc_nid *chain,
                            uint32_t n_chain, float *x, uint32_t n) MPQC_MUST_CHECK;
/* Limits after the clamps of a cluster, +-infinity where none. */
void mpqc_chain_limits(const struct mpqc_graph *g, const mpqc_nid *chain, uint32_t n_clamp,
                       double *lo, double *hi);

/* ---- parameters ------------------------------------------------------------------ */

/* real = scale * (q - zero).  levels up to 255: bytes, codes 0 .. levels; more: i16, codes
 * -levels .. levels, zero is 0. */
struct mpqc_params {
    float scale;
    int32_t zero;
    unsigned levels;
    bool loose; /* codes come from outside, where nothing keeps them below `levels` */
};
/* Least scale of activations and of weights: the product of two is a normal float yet, which
 * the types of accumulators need, and reciprocals are finite. */
#define MPQC_LEAST_SCALE 0x1p-63
/* The most for an i16: what requant reaches whatever its factor (ir/dyadic.h). */
#define MPQC_WIDE_LEVELS 16383u
static inline bool mpqc_params_wide(struct mpqc_params p)
{
    return p.levels > 255;
}
/* Codes of 1 and 2 bits have types of their own: kernels may rely on their other bits. */
static inline enum mpqc_dtype mpqc_params_dtype(struct mpqc_params p)
{
    if (mpqc_params_wide(p)) return MPQC_DT_I16;
    return p.loose || p.levels > 3 ? MPQC_DT_U8 : p.levels > 1 ? MPQC_DT_U2 : MPQC_DT_U1;
}
static inline const char *mpqc_params_text(struct mpqc_params p)
{
    return mpqc_dtypes[mpqc_params_dtype(p)].text;
}
static inline bool mpqc_params_same(struct mpqc_params a, struct mpqc_params b)
{
    return a.scale == b.scale && a.zero == b.zero && mpqc_params_dtype(a) == mpqc_params_dtype(b);
}

struct mpqc_converted {
    mpqc_vid from, to; /* new values */
};

struct mpqc_replay;

/* State of the pass. */
struct mpqc_quantiser {
    struct mpqc_pass_cx *p;
    struct mpqc_cx *cx;
    struct mpqc_graph *g;
    uint32_t n_values;          /* of the float graph */
    struct mpqc_clusters clusters;
    /* Values that share parameters: a union-find forest, ranges at the roots. */
    mpqc_vid *parent;
    double *lo, *hi;            /* by root */
    double *least;              /* by root: scale may not be smaller than this */
    struct mpqc_params *pre;    /* by cluster: parameters of `pre` where a table follows */
    double **weight_scale;      /* by cluster: scale per output channel, linear and channel */
    bool *open;                 /* by root: some codes come from outside, which nothing clamps */
    unsigned *levels;           /* by value, then by root: as in struct mpqc_params */
    struct mpqc_replay *replay; /* NULL: no weights below 8 bits, or no data */
    uint32_t low_done, n_low;   /* layers with such weights */
    /* New values by old id, MPQC_NONE when not made (yet). */
    mpqc_vid *as_int, *as_float;
    /* Results of bringing integer values to other parameters: made once each. */
    struct mpqc_converted *converted;
    uint32_t n_converted, cap_converted;
    struct mpqc_loc loc;        /* of what is being emitted */
};

/* quantise_params.c: fills parent, lo, hi, least, pre, weight_scale. */
mpqc_status mpqc_quantise_params(struct mpqc_quantiser *q) MPQC_MUST_CHECK;
struct mpqc_params mpqc_params_of(struct mpqc_quantiser *q, mpqc_vid v);
/* The same for readers that know no 16 bits. */
struct mpqc_params mpqc_byte_params_of(struct mpqc_quantiser *q, mpqc_vid v);
/* Least unit of an i16 that a value of these parameters can be rescaled to. */
double mpqc_least_unit(struct mpqc_params p);
/* Which values will share parameters: (*root)[v] is equal for those that do.  For
 * whoever decides about bits before anything is quantised; needs p->profile, which
 * is of g.  (*bytes)[root]: a node whose result is among them and has an 8-bit form only,
 * or MPQC_NONE.  In `arena`. */
mpqc_status mpqc_quantise_sharing(struct mpqc_pass_cx *p, struct mpqc_graph *g,
                                  struct mpqc_arena *arena, mpqc_vid **root,
                                  mpqc_nid **bytes) MPQC_MUST_CHECK;
struct mpqc_params mpqc_params_from_range(double lo, double hi, double least, unsigned levels);
/* What was decided about a cluster: by layer, else for all. */
unsigned mpqc_cluster_weight_bits(const struct mpqc_quantiser *q, const struct mpqc_cluster *c);
unsigned mpqc_cluster_input_bits(const struct mpqc_quantiser *q, const struct mpqc_cluster *c);
/* Constant weights of which either has fewer than 8 bits: rounded with care. */
bool mpqc_cluster_is_low(const struct mpqc_quantiser *q, const struct mpqc_cluster *c);
/* The method for so many steps: with few, the usual ranges leave them far too coarse; with
 * very many there is no reason to cut anything off. */
static inline enum mpqc_calibration mpqc_range_method(enum mpqc_calibration method, unsigned levels)
{
    bool usual = method == MPQC_CALIB_PERCENTILE || method == MPQC_CALIB_AUTO;
    if (usual && levels > 255) return MPQC_CALIB_MINMAX;
    return usual && levels < 255 ? MPQC_CALIB_MSE : method;
}
/* The largest magnitude that a code in the input of a linear cluster can have. */
double mpqc_input_reach(struct mpqc_quantiser *q, const struct mpqc_cluster *c);
/* Observed range of v by the chosen method. */
void mpqc_observed(const struct mpqc_quantiser *q, mpqc_vid v, enum mpqc_calibration method,
                   double *lo, double *hi);
/* Largest real value of one step of the accumulator of a cluster's core. */
double mpqc_accumulator_scale(struct mpqc_quantiser *q, uint32_t cluster);
/* Largest observed magnitude. */
double mpqc_observed_peak(const struct mpqc_quantiser *q, mpqc_vid v);

/* quantise_weights.c: a linear node as rows x channels of weights and a bias. */
struct mpqc_weights {
    int64_t rows, channels;
    const float *w;    /* [rows][channels] */
    const float *bias; /* [channels], or NULL */
    struct mpqc_type type;
};
mpqc_status mpqc_weights_of(struct mpqc_quantiser *q, const struct mpqc_cluster *c,
                            struct mpqc_weights *out) MPQC_MUST_CHECK;
/* Magnitude of the scale of every channel, 0 where all weights are 0; below 8 bits a
 * first guess. */
double *mpqc_weights_scales(struct mpqc_quantiser *q, const struct mpqc_weights *w,
                            unsigned bits);
/* quantise_scales.c: the same for weights [rows][channels] at 8 bits. */
void mpqc_weights_channel_scales(const float *w, int64_t rows, int64_t channels, double *scale);
/* What rounding to the nearest makes of weights of this type: real values in `out` (may
 * be NULL) and the sum of squared errors. */
mpqc_status mpqc_weights_fake(const struct mpqc_pass_cx *p, const float *w,
                              const struct mpqc_type *type, unsigned bits, float *out,
                              double *error) MPQC_MUST_CHECK;
/* The quantised node: makes constants, proves the bounds, adds the core; *acc is its
 * i32 result, scale[channel] its real scales.  `unit` is the unit of what follows. */
mpqc_status mpqc_lower_linear(struct mpqc_quantiser *q, const struct mpqc_cluster *c, double unit,
                             mpqc_vid *acc, double **scale, int64_t *n_scale) MPQC_MUST_CHECK;

/* Quantised weights: real = scale[channel] * q, where q is the code, or with groups the code
 * times its group's factor. */
struct mpqc_codes {
    unsigned bits;
    int8_t *q;       /* [rows][channels] */
    float *scale;    /* [channels] */
    int64_t group;   /* rows of a group, 0: none */
    int8_t *factor;  /* [groups][channels] */
};
/* quantise_round.c: codes of weights below 8 bits.  x: the integer input; real scales
 * times that of x stay below `unit`.  bias[channels]: in, of the float layer; out,
 * corrected. */
mpqc_status mpqc_round_cluster(struct mpqc_quantiser *q, const struct mpqc_cluster *c, mpqc_vid x,
                               double unit, const struct mpqc_weights *w,
                               const struct mpqc_codes *codes, double *bias) MPQC_MUST_CHECK;

/* quantise_emit.c */
mpqc_status mpqc_lower_cluster(struct mpqc_quantiser *q, const struct mpqc_cluster *c)
    MPQC_MUST_CHECK;
/* One integer node at q->loc. */
mpqc_status mpqc_emit(struct mpqc_quantiser *q, enum mpqc_op op, const mpqc_vid *in, uint32_t n_in,
                      const struct mpqc_attrs *attrs, mpqc_vid *out) MPQC_MUST_CHECK;
/* Integer form of an old value; constants are quantised with `want` (or to fill the
 * range when NULL), other values brought to it when theirs differ. */
mpqc_status mpqc_as_int(struct mpqc_quantiser *q, mpqc_vid v, const struct mpqc_params *want,
                        mpqc_vid *out) MPQC_MUST_CHECK;
/* The same with 8 bits. */
mpqc_status mpqc_as_byte(struct mpqc_quantiser *q, mpqc_vid v, mpqc_vid *out) MPQC_MUST_CHECK;
mpqc_status mpqc_as_float(struct mpqc_quantiser *q, mpqc_vid v, mpqc_vid *out) MPQC_MUST_CHECK;
/* Parameters of a new value. */
struct mpqc_params mpqc_params_of_new(const struct mpqc_quantiser *q, mpqc_vid v);

/* quantise_epilogue.c: from the core's result to the stored value.
 * i32 -> i16 in `unit`; factors acc_scale[i] / unit; shape of the parameter tensors
 * is [n] unless `position` ([H,W,1]). */
mpqc_status mpqc_lower_requant(struct mpqc_quantiser *q, mpqc_vid acc, const double *acc_scale,
                              int64_t n, double sign, float unit, unsigned mult_bits,
                              const struct mpqc_type *position, mpqc_vid *out) MPQC_MUST_CHECK;
/* 8 bits or i16 -> i16 in `unit`. */
mpqc_status mpqc_lower_rescale(struct mpqc_quantiser *q, mpqc_vid v, double sign, float unit,
                              mpqc_vid *out) MPQC_MUST_CHECK;
/* i16 in units of scale / 2^frac -> u8 or i16, clamped as the cluster says, then its
 * table. */
mpqc_status mpqc_lower_narrow(struct mpqc_quantiser *q, const struct mpqc_cluster *c, mpqc_vid v,
                             struct mpqc_params to, int frac, mpqc_vid *out) MPQC_MUST_CHECK;
/* Parameters of the value that the epilogue's narrow makes. */
struct mpqc_params mpqc_cluster_params(struct mpqc_quantiser *q, const struct mpqc_cluster *c);
/* The table of a cluster's chain, from 8-bit input `v`. */
mpqc_status mpqc_lower_table(struct mpqc_quantiser *q, const struct mpqc_cluster *c, mpqc_vid v,
                            mpqc_vid *out) MPQC_MUST_CHECK;

#endif
