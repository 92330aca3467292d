/* SPDX-License-Identifier: GPL-3.0-or-later
 * ir/dyadic.h on all boundary values, against wide arithmetic.
 */
#include "ir/base/base.h"
#include "ir/dyadic.h"

#include <math.h>
#include <setjmp.h>
#include <cmocka.h>

/* floor(v / 2^s), by division of a positive number. */
static int64_t floor_shift(int64_t v, int s)
{
    int64_t offset = (int64_t)1 << 50; /* a multiple of every 2^s */
    return (v + offset) / ((int64_t)1 << s) - offset / ((int64_t)1 << s);
}

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

static int64_t wide_requant(int64_t acc, int s, int64_t mult)
{
    int64_t t = floor_shift(acc + (s > 0 ? (int64_t)1 << (s - 1) : 0), s);
    return floor_shift(clamp(t, -32768, 32767) * mult + (1 << 14), 15);
}

static const int32_t words[] = {
    INT32_MIN, INT32_MIN + 1, -1073741824, -65537, -65536, -32769, -32768, -32767, -16385, -16384,
    -129, -128, -3, -2, -1, 0, 1, 2, 3, 127, 128, 16383, 16384, 32766, 32767, 32768, 65535, 65536,
    123456789, 1073741824, INT32_MAX - 1, INT32_MAX};
static const int32_t mults[] = {-32767, -32766, -16385, -16384, -3, -1, 0, 1, 2, 3, 16383, 16384,
                                16385, 23170, 32766, 32767};

static void shifts(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(words); i++) {
        assert_int_equal(mpqc_sat16(words[i]), clamp(words[i], -32768, 32767));
        for (int s = 0; s < 32; s++)
            assert_int_equal(mpqc_asr(words[i], s), floor_shift(words[i], s));
    }
}

static void requant(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(words); i++) {
        for (int s = 0; s < 32; s++) {
            for (size_t m = 0; m < MPQC_LEN(mults); m++) {
                int64_t half = s ? (int64_t)1 << (s - 1) : 0;
                /* also just below and above each tie of the shift */
                for (int64_t d = -1; d <= 1; d++) {
                    int64_t acc = clamp((int64_t)words[i] / 3 * 2 + half + d, INT32_MIN, INT32_MAX);
                    assert_int_equal(mpqc_requant((int32_t)acc, s, mults[m]),
                                     wide_requant(acc, s, mults[m]));
                }
                assert_int_equal(mpqc_requant(words[i], s, mults[m]),
                                 wide_requant(words[i], s, mults[m]));
            }
        }
    }
}

/* All 16-bit t: what pmulhrsw and sqrdmulh compute. */
static void high_multiplication(void **state)
{
    (void)state;
    for (int32_t t = -32768; t <= 32767; t++) {
        for (size_t m = 0; m < MPQC_LEN(mults); m++) {
            int32_t y = mpqc_mulhrs(t, mults[m]);
            if (y != floor_shift((int64_t)t * mults[m] + (1 << 14), 15) || y < -32768 || y > 32767)
                fail_msg("mulhrs(%d, %d) = %d", t, mults[m], y);
        }
    }
}

static void rescale_fits(void **state)
{
    (void)state;
    for (int32_t d = -255; d <= 255; d++) {
        for (int32_t m = -32767; m <= 32767; m++) {
            int32_t y = mpqc_rescale(d, m);
            if (y != floor_shift((int64_t)d * m + 128, 8) || y < -32768 || y > 32767)
                fail_msg("rescale(%d, %d) = %d", d, m, y);
        }
    }
}

static void narrow(void **state)
{
    (void)state;
    for (int32_t x = -32768; x <= 32767; x++) {
        for (int frac = 0; frac <= 14; frac++) {
            int64_t y = floor_shift(x + (frac ? 1 << (frac - 1) : 0), frac);
            if (mpqc_narrow(x, frac, 128, 0, 255) != clamp(y + 128, 0, 255) ||
                mpqc_narrow(x, frac, -128, -128, 127) != clamp(y - 128, -128, 127))
                fail_msg("narrow(%d, %d)", x, frac);
        }
    }
}

/* Every factor is met to half a unit of mult, and mult has the bits asked for. */
static void from_real(void **state)
{
    (void)state;
    int32_t s, m;
    for (int bits = 9; bits <= 15; bits++) {
        for (double r = 0.99999999; r > 1e-16; r *= 0.97) {
            assert_int_equal(mpqc_dyadic_from_real(r, bits, &s, &m), 0);
            assert_in_range(s, 0, 31);
            assert_in_range(m, 0, 32767);
            double unit = ldexp(1.0, -15 - s), got = m * unit;
            double limit = m == 32767 ? unit : unit / 2; /* 32768 is not available */
            assert_true(fabs(got - r) <= limit * (1 + 1e-12));
            if (s > 0 && s < 31) assert_in_range(m, 1 << (bits - 1), (1 << bits) - 1);
        }
    }
    assert_int_equal(mpqc_dyadic_from_real(0.5, 15, &s, &m), 0);
    assert_true(s == 0 && m == 16384);
    assert_int_equal(mpqc_dyadic_from_real(0.75, 12, &s, &m), 0);
    assert_true(s == 0 && m == 24576); /* no shift is left: more bits */
    assert_int_equal(mpqc_dyadic_from_real(0.0009765625, 9, &s, &m), 0);
    assert_true(s == 3 && m == 256);
    assert_int_equal(mpqc_dyadic_from_real(1e-30, 15, &s, &m), 0);
    assert_int_equal(m, 0);
}

static void impossible_factors(void **state)
{
    (void)state;
    int32_t s, m;
    const double bad[] = {1.0, 2.5, 0.0, -0.5, (double)INFINITY, (double)NAN};
    for (size_t i = 0; i < MPQC_LEN(bad); i++)
        assert_int_equal(mpqc_dyadic_from_real(bad[i], 15, &s, &m), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shifts),       cmocka_unit_test(requant),
        cmocka_unit_test(high_multiplication), cmocka_unit_test(rescale_fits),
        cmocka_unit_test(narrow),       cmocka_unit_test(from_real),
        cmocka_unit_test(impossible_factors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
