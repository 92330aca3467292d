/* SPDX-License-Identifier: GPL-3.0-or-later
 * Texts of status codes, size arithmetic, and the end of a broken compiler.
 */
#include "ir/base/base.h"

const char *mpqc_status_text(mpqc_status status)
{
    static const char *const text[MPQC_STATUS_COUNT] = {
#define STATUS(name, words, fault) [MPQC_##name] = words,
#include "ir/base/status.def"
#undef STATUS
    };
    return (unsigned)status < MPQC_STATUS_COUNT ? text[status] : "unknown status";
}

bool mpqc_size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool mpqc_size_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

_Noreturn void mpqc_assert_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "mpqc: bug: %s:%d: '%s' does not hold\n", file, line, what);
    abort();
}
