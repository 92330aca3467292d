/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Windows over channels: which taps of a tile are interleaved, with which patterns they enter
 * its positions, and the weights in that order.
 */
#include "codegen/window.h"

#include <string.h>

#define MAX_COLUMNS 128 /* of a tile's input */

/* Input columns of a tile in bytes from its first one, ascending; 0: too many. */
static unsigned input_columns(const struct mpqc_window *p, int64_t width, int64_t at[MAX_COLUMNS])
{
    unsigned n = 0;
    for (int64_t t = 0; t < width; t++) {
        for (int64_t kw = 0; kw < p->kw; kw++) {
            int64_t c = t * p->x_col + kw * p->tap_col;
            unsigned i = n;
            while (i > 0 && at[i - 1] > c) i--;
            if (i > 0 && at[i - 1] == c) continue;
            if (n == MAX_COLUMNS) return 0;
            memmove(&at[i + 1], &at[i], (n - i) * sizeof *at);
            at[i] = c;
            n++;
        }
    }
    return n;
}

/* The tap of output column t in input column `at`, row kh. */
static int16_t tap_at(const struct mpqc_window *p, int64_t t, int64_t at, int64_t kh)
{
    if (kh < 0 || kh >= p->kh) return -1;
    for (int64_t kw = 0; kw < p->kw; kw++)
        if (t * p->x_col + kw * p->tap_col == at) return (int16_t)(kh * p->kw + kw);
    return -1;
}

/* Number of a pattern; -2: no room. */
static int find_pattern(struct mpqc_window_plan *q, const struct mpqc_window_pattern *p)
{
    for (unsigned i = 0; i < q->n_patterns; i++)
        if (memcmp(&q->patterns[i], p, sizeof *p) == 0) return (int)i;
    if (q->n_patterns == MPQC_WINDOW_MAX_PATTERNS) return -2;
    q->patterns[q->n_patterns] = *p;
    return (int)q->n_patterns++;
}

int64_t mpqc_window_row_taps(const struct mpqc_window *p)
{
    return p->tap_row > 0 && p->x_row % p->tap_row == 0 ? p->x_row / p->tap_row : 0;
}

/* One row of one input column; the column in bytes from the tile's first. */
struct slot {
    int64_t column, row;
};

/* A tile that is being cut into quartets. */
struct cut {
    const struct mpqc_window *p;
    struct mpqc_window_plan *q;
    int64_t height, width;
    struct mpqc_window_quartet *out;
    unsigned n;
};

/* n slots become a quartet; false: there is no room. */
static bool add_quartet(struct cut *k, const struct slot *slot, unsigned n)
{
    const struct mpqc_window *p = k->p;
    if (k->n == MPQC_WINDOW_MAX_QUARTETS) return false;
    struct mpqc_window_quartet *out = &k->out[k->n++];
    out->n = n;
    for (unsigned i = 0; i < n; i++) out->at[i] = slot[i].column + slot[i].row * p->tap_row;
    for (int64_t t = 0; t < k->height * k->width; t++) {
        struct mpqc_window_pattern pattern = {{-1, -1, -1, -1}};
        unsigned used = 0;
        for (unsigned i = 0; i < n; i++) {
            int64_t kh = slot[i].row - t / k->width * mpqc_window_row_taps(p);
            pattern.tap[i] = tap_at(p, t % k->width, slot[i].column, kh);
            used += pattern.tap[i] >= 0;
        }
        out->pattern[t] = used ? find_pattern(k->q, &pattern) : -1;
        if (out->pattern[t] == -2) return false;
    }
    return true;
}

unsigned mpqc_window_quartets(const struct mpqc_window *p, struct mpqc_window_plan *q,
                              int64_t height, int64_t width,
                              struct mpqc_window_quartet out[MPQC_WINDOW_MAX_QUARTETS])
{
    struct cut k = {.p = p, .q = q, .height = height, .width = width, .out = out};
    int64_t column[MAX_COLUMNS], in_rows = p->kh + (height - 1) * mpqc_window_row_taps(p);
    int64_t whole = q->stream ? 0 : in_rows / 4 * 4, rest = in_rows - whole;
    unsigned n_columns = input_columns(p, width, column), n = 0;
    struct slot slot[4], left[4]; /* of a column; n of this one and those before it */
    for (unsigned c = 0; c < n_columns; c++) {
        for (int64_t r = 0; r < in_rows; r++) {
            struct slot *to = r < whole ? slot : left;
            unsigned i = r < whole ? (unsigned)(r % 4) : n++;
            to[i] = (struct slot){column[c], r};
            if (i < 3) continue;
            if (!add_quartet(&k, to, 4)) return 0;
            if (to == left) n = 0;
        }
        bool full = !q->stream && n + rest > 4;
        if (n == 0 || (!full && c + 1 < n_columns)) continue;
        if (!add_quartet(&k, left, n)) return 0;
        n = 0;
    }
    return k.n;
}

/* Tap `slot` of pattern i, or -1. */
static int64_t tap_of(const struct mpqc_window *p, const struct mpqc_window_plan *q, unsigned i,
                      unsigned slot)
{
    if (!q->loops) return q->patterns[i].tap[slot];
    int64_t kh = 4 * (i % q->groups) + slot, kw = i / q->groups;
    return kh < p->kh ? kh * p->kw + kw : -1;
}

int8_t *mpqc_window_pack(struct mpqc_emit_cx *e, const struct mpqc_window *p,
                         const struct mpqc_window_plan *q, size_t *bytes)
{
    const struct mpqc_window_block *last = &q->blocks[q->n_blocks - 1];
    *bytes = (size_t)(last->weight_first + last->count * last->weight_bytes);
    int8_t *packed = MPQC_NEW_ARRAY(&e->scratch, int8_t, *bytes), *to = packed;
    if (!packed) return NULL;
    for (unsigned i = 0; i < q->n_blocks; i++) {
        unsigned L = q->blocks[i].c.lanes[0];
        int64_t own = mpqc_window_channels(&q->blocks[i]);
        for (int64_t n = 0; n < q->blocks[i].count * q->n_patterns; n++) {
            int64_t base = q->blocks[i].first + n / q->n_patterns * own;
            for (unsigned lane = 0; lane < 4 * L; lane++) {
                unsigned v = lane / L, l = lane % L;
                int64_t c = base + (16 * (l / 4) + 4 * v + l % 4) % own;
                for (unsigned slot = 0; slot < 4; slot++, to++) {
                    int64_t tap = tap_of(p, q, (unsigned)(n % q->n_patterns), slot);
                    if (tap >= 0 && c < p->channels) *to = p->w[tap * p->channels + c];
                }
            }
        }
    }
    return packed;
}
