/* SPDX-License-Identifier: GPL-3.0-or-later
 * Choices of bits by their names.
 */
#ifndef MPQC_TESTS_CHOICE_H
#define MPQC_TESTS_CHOICE_H

#include "passes/bits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The number of a choice that exists. */
static inline uint32_t choice(const char *name)
{
    const struct mpqc_choice *c = mpqc_choice_find(name);
    assert_non_null(c);
    return (uint32_t)(c - mpqc_choices);
}

#endif
