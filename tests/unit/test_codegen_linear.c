/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Linear kernels: convolution, matrix product, sums, products and their epilogues.
 */
#define LINEAR_CASES "linear_cases.def"
#include "linear_rig.h"

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_case_matches_the_interpreter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
