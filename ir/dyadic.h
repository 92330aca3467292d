/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The only definition of integer rescaling.  Interpreter, constant folding and
 * every instruction set match these functions bit for bit.
 *
 * A dyadic number is b / 2^c with integers b and c (HAWQ-V3, section 3).  Here a
 * 32-bit accumulator is brought to 16 bits in two steps that are one vector
 * instruction each on x86 and on ARM:
 *
 *   t = sat16((acc + half(s)) >> s)           half(s) = s > 0 ? 2^(s-1) : 0
 *   y = (t * m + 2^14) >> 15                  = pmulhrsw = sqrdmulh, -32768 < m < 32768
 *
 * so y ~ acc * m / 2^(15+s).  The first rounding constant is added to the bias
 * when code is generated.  All shifts are arithmetic: ties round towards plus
 * infinity.  No step can overflow: acc + half(s) is proved at compile time to
 * stay within int32 (passes/quantise), |t * m| <= 2^15 * (2^15 - 1) < 2^30.
 *
 * An i16 value in the integer graph is a fixed-point number: its unit is the
 * scale of the 8-bit result divided by 2^frac.
 */
#ifndef MPQC_IR_DYADIC_H
#define MPQC_IR_DYADIC_H

#include <stdint.h>

static inline int32_t mpqc_sat16(int32_t x)
{
    return x > 32767 ? 32767 : x < -32768 ? -32768 : x;
}

/* x >> s rounding towards minus infinity, without relying on the compiler's
 * treatment of negative numbers; 0 <= s <= 31. */
static inline int32_t mpqc_asr(int32_t x, int s)
{
    return x < 0 ? ~(~x >> s) : x >> s;
}

/* (a * b + 2^14) >> 15 for a, b in int16 range, not both -32768. */
static inline int32_t mpqc_mulhrs(int32_t a, int32_t b)
{
    return mpqc_asr(a * b + (1 << 14), 15);
}

/* i32 accumulator -> i16; shift in [0, 31], mult in (-32768, 32768). */
static inline int32_t mpqc_requant(int32_t acc, int32_t shift, int32_t mult)
{
    int64_t rounded = (int64_t)acc + (shift > 0 ? (int64_t)1 << (shift - 1) : 0);
    int64_t t = rounded < 0 ? ~(~rounded >> shift) : rounded >> shift;
    int32_t t16 = t > 32767 ? 32767 : t < -32768 ? -32768 : (int32_t)t;
    return mpqc_mulhrs(t16, mult);
}

/* 8-bit activation -> i16: d = q - zero in [-255, 255], y = (128 d * m + 2^14) >> 15
 * = (d * m + 2^7) >> 8.  |y| <= 255 * 32767 / 256 + 1 < 2^15. */
static inline int32_t mpqc_rescale(int32_t d, int32_t mult)
{
    return mpqc_mulhrs(d * 128, mult);
}

/* i16 -> narrow integer: drop `frac` fraction bits (0..14) with rounding, add the
 * zero point, clamp to [lo, hi]. */
static inline int32_t mpqc_narrow(int32_t x, int frac, int32_t zero, int32_t lo, int32_t hi)
{
    int32_t y = frac > 0 ? mpqc_asr(x + (1 << (frac - 1)), frac) : x;
    y += zero;
    return y < lo ? lo : y > hi ? hi : y;
}

/* The integer softmax of one row: see op_softmax.c. */

/* Chooses shift and mult for a real factor r > 0 so that acc * r ~ requant(acc).
 * `mult_bits` (9..15): mult is brought to [2^(mult_bits-1), 2^mult_bits) when
 * shift can be in [0, 31]; more bits are a finer factor, fewer leave more bits to
 * the 16-bit intermediate.  Returns 0, or -1 when r is too large (>= 1) to be
 * expressed.  A factor too small to matter gives mult 0. */
int mpqc_dyadic_from_real(double r, int mult_bits, int32_t *shift, int32_t *mult);

#endif
