/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights and inputs of 1 and 2 bits: bit-serial kernels where there are some, the same bytes
 * by other kernels elsewhere.  The cases of test_codegen_linear.c for them.
 */
#define LINEAR_CASES "serial_cases.def"
#include "test_codegen_linear.c"
