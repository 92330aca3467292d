/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The cases of test_codegen_linear.c for activations of 16 bits.
 */
#define LINEAR_CASES "wide_cases.def"
#include "test_codegen_linear.c"
