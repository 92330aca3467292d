/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Linear kernels with activations of 16 bits.
 */
#define LINEAR_CASES "wide_cases.def"
#include "linear_rig.h"

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_case_matches_the_interpreter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
