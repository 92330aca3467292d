/* SPDX-License-Identifier: GPL-3.0-or-later
 * Choosing dyadic numbers; their arithmetic is in dyadic.h.
 */
#include "ir/dyadic.h"

#include <math.h>

int mpqc_dyadic_from_real(double r, int mult_bits, int32_t *shift, int32_t *mult)
{
    if (!(r > 0.0) || r >= 1.0) return -1;
    int exponent;
    frexp(r, &exponent); /* r = f * 2^exponent, f in [1/2, 1) */
    /* r = m / 2^(15 + s) with m in [2^(mult_bits - 1), 2^mult_bits). */
    int s = mult_bits - 15 - exponent;
    double m = floor(ldexp(r, 15 + s) + 0.5);
    if (m >= ldexp(1.0, mult_bits)) s--; /* rounded up to the next power of two */
    if (s < 0) s = 0;
    if (s > 31) s = 31;
    m = floor(ldexp(r, 15 + s) + 0.5);
    if (m > 32767.0) m = 32767.0;
    *shift = s;
    *mult = (int32_t)m;
    return 0;
}
