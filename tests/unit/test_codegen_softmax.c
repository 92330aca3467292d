/* SPDX-License-Identifier: GPL-3.0-or-later
 * Integer softmax against the interpreter.
 */
#include <math.h>

#include "codegen_rig.h"

static char *with_table(const char *before, const char *after)
{
    struct mpqc_buf b;
    mpqc_buf_init(&b);
    mpqc_buf_puts(&b, before);
    for (int i = 0; i < 256; i++)
        mpqc_buf_printf(&b, "%s%d", i ? "," : "", (int)lround(65536 * exp(-i * 0.07)));
    mpqc_buf_puts(&b, after);
    return b.data;
}

#define TABLE "const %1 : i32[256] = ["
#define SOFTMAX(axis, to) "]\n%2 = softmax %0, %1 {axis=" axis ", to=\"" to "\"} @\"s\"\noutput %2 }"

static const struct {
    const char *name, *input, *rest;
} cases[] = {
    {"ten classes", "graph \"g\" { input %0 : u8[1,10] quant(scale=0.07, zero=3)\n" TABLE,
     SOFTMAX("1", "u8")},
    {"1000 classes to 16 bits",
     "graph \"g\" { input %0 : u8[2,1000] quant(scale=0.07, zero=3)\n" TABLE, SOFTMAX("1", "i16")},
    {"signed, axis in the middle",
     "graph \"g\" { input %0 : i8[3,21,11] quant(scale=0.07, zero=3)\n" TABLE,
     SOFTMAX("1", "u8")},
    {"one class", "graph \"g\" { input %0 : u8[5,1] quant(scale=0.07, zero=3)\n" TABLE,
     SOFTMAX("1", "i16")},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(cases); i++) {
        char *text = with_table(cases[i].input, cases[i].rest);
        struct rig_case c = {.name = cases[i].name, .text = text};
        rig_check(&c);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
