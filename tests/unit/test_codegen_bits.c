/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights of 1 to 6 bits: packing, and their cases of linear kernels.
 */
#define LINEAR_CASES "bits_cases.def"
#include "linear_rig.h"

#include "codegen/linear.h"

/* A layer as far as packing reads it. */
static struct mpqc_linear layer(unsigned bits, int64_t run, const int8_t *w)
{
    struct mpqc_linear l = {.w = w, .groups = 1, .icg = run, .ocg = 5, .n_outer = 3, .n_inner = 1,
                            .run = run, .k4 = (run + 3) / 4, .bits = bits,
                            .x_bytes = 1, .per_lane = 4};
    return l;
}

/* The weight of run r, step k, byte `at` of a row, by the description in linear.h. */
static int unpack(const uint8_t *from, unsigned bits, int64_t k4, int64_t k, int64_t at,
                  int64_t row_bytes)
{
    struct mpqc_packing p = mpqc_packing_of(bits);
    int64_t first = k / p.steps * p.steps, n = k4 - first < p.steps ? k4 - first : p.steps;
    unsigned code = 0, step = (unsigned)(k - first);
    from += mpqc_packed_rows(bits, first) * row_bytes;
    for (unsigned i = 0; i < p.n; i++) {
        unsigned per = 8 / p.bits[i];
        uint8_t byte = from[step / per * row_bytes + at];
        code |= (byte >> (step % per * p.bits[i]) & ((1u << p.bits[i]) - 1)) << p.shift[i];
        from += (n * p.bits[i] + 7) / 8 * row_bytes;
    }
    return (int)code - (1 << (bits - 1)); /* of 1 bit: 0 or 2, less 1 */
}

/* wide: groups of four of a channel that a form wants side by side */
static void check_packing(unsigned bits, int64_t run, unsigned wide)
{
    struct mpqc_cx cx;
    int8_t w[3 * 200 * 5];
    uint32_t seed = bits * 1000 + (uint32_t)run;
    for (int64_t i = 0; i < 3 * run * 5; i++) {
        seed = seed * 1664525u + 1013904223u;
        w[i] = (int8_t)(bits == 1 ? 1 : (int)(seed >> 8) % (1 << (bits - 1)));
        if (seed >> 31) w[i] = (int8_t)(bits == 1 ? -1 : -w[i] - 1);
    }
    mpqc_cx_init(&cx, NULL);
    struct mpqc_emit_cx e = {.cx = &cx};
    mpqc_arena_init(&e.scratch, NULL);
    struct mpqc_linear l = layer(bits, run, w);
    struct mpqc_form form = {.wide = wide, .even = wide > 1 ? 2 : 1};
    l.k4 = mpqc_form_steps(&form, l.k4);
    struct mpqc_panels p = {.full = {.n = 1, .lanes = {4}, .valid = 4}, .n_full = 1, .n_rest = 1};
    p.rest[0] = (struct mpqc_columns){.n = 1, .lanes = {4}, .valid = 1};
    size_t bytes;
    const uint8_t *packed = (const uint8_t *)mpqc_pack_weights(&e, &l, &p, &form, &bytes);
    assert_non_null(packed);
    assert_int_equal(bytes, 2 * 3 * 16 * mpqc_packed_rows(bits, l.k4));
    for (int64_t panel = 0; panel < 2; panel++)
        for (int64_t r = 0; r < 3; r++)
            for (int64_t i = 0; i < 16 * l.k4; i++) {
                int64_t k = i / 16, area = k / wide * wide, w4 = l.k4 - area;
                if (w4 > wide) w4 = wide;
                int64_t at = i - 16 * area, tap = 4 * area + at % (4 * w4);
                int64_t c = 4 * panel + at / (4 * w4);
                int want = tap < run && c < 5 ? w[(r * run + tap) * 5 + c] : 0;
                if (want == 0 && bits == 1) continue; /* it has none: see storage_bits */
                const uint8_t *from = packed + (3 * panel + r) * 16 * mpqc_packed_rows(bits, l.k4);
                assert_int_equal(unpack(from, bits, l.k4, k, i % 16, 16), want);
            }
    mpqc_arena_release(&e.scratch);
    mpqc_cx_release(&cx);
}

static void packing_can_be_undone(void **state)
{
    (void)state;
    for (unsigned bits = 1; bits <= 6; bits++)
        for (int64_t run = 1; run <= 200; run += run < 40 ? 1 : 17)
            for (unsigned wide = 1; wide <= 4; wide *= 2) check_packing(bits, run, wide);
}

static void whole_bundles_waste_nothing(void **state)
{
    (void)state;
    for (unsigned bits = 1; bits <= 6; bits++)
        assert_int_equal(8 * mpqc_packed_rows(bits, 48), 48 * bits);
    assert_int_equal(mpqc_packed_rows(8, 48), 48);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(packing_can_be_undone),
                                       cmocka_unit_test(whole_bundles_waste_nothing),
                                       cmocka_unit_test(every_case_matches_the_interpreter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
