/* SPDX-License-Identifier: MIT
 * The flag parser: all spellings, and what it says to typing errors.
 */
#include "driver/flags.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct options {
    const char *size, *colour, *words[4];
    int loud, n_words;
};

static MPQC_FLAG_HANDLER(set_size)
{
    int64_t n;
    ((struct options *)options)->size = value;
    return mpqc_flag_int(flag, value, 0, 9, &n, err);
}

static MPQC_FLAG_HANDLER(set_colour)
{
    ((struct options *)options)->colour = value;
    return 0;
}

static MPQC_FLAG_HANDLER(set_loud)
{
    assert_null(value);
    ((struct options *)options)->loud++;
    return 0;
}

static MPQC_FLAG_HANDLER(add_word)
{
    struct options *o = options;
    assert_null(flag);
    o->words[o->n_words++] = value;
    return 0;
}

static const struct mpqc_flag table[] = {{"size", "N", set_size, "how large"},
                                         {"s", "N", set_size, "the same"},
                                         {"colour", "NAME", set_colour, "which colour"},
                                         {"loud", NULL, set_loud, "says more"}};

/* Parses up to seven words, after the program's name. */
static int parse(struct options *o, char *err, const char *const *words)
{
    static char text[8][80];
    char *argv[9] = {text[0]};
    int argc = 1;
    *o = (struct options){NULL, NULL, {NULL}, 0, 0};
    err[0] = '\0';
    for (; words[argc - 1]; argc++) {
        snprintf(text[argc], sizeof text[argc], "%s", words[argc - 1]);
        argv[argc] = text[argc];
    }
    return mpqc_flags_parse(table, sizeof table / sizeof *table, argc, argv, o, add_word, err);
}
#define PARSE(...) parse(&o, err, (const char *const[]){__VA_ARGS__, NULL})

static void one_or_two_dashes_equals_or_space(void **state)
{
    (void)state;
    struct options o;
    char err[MPQC_FLAG_ERROR];
    assert_int_equal(PARSE("-size=3", "--colour=red", "a", "--loud", "b"), 0);
    assert_string_equal(o.size, "3");
    assert_string_equal(o.colour, "red");
    assert_true(o.loud == 1 && o.n_words == 2);
    assert_int_equal(PARSE("-size", "3", "--colour", "-size", "-loud"), 0);
    assert_string_equal(o.size, "3");
    assert_string_equal(o.colour, "-size"); /* a value, whatever it looks like */
    assert_int_equal(o.loud, 1);
    assert_int_equal(PARSE("-colour=a=b", "-"), 0);
    assert_string_equal(o.colour, "a=b");
    assert_string_equal(o.words[0], "-");
    assert_int_equal(PARSE("-colour=", "--", "-loud"), 0);
    assert_string_equal(o.colour, "");
    assert_true(o.loud == 0 && o.n_words == 1);
}

static void mistakes_are_explained(void **state)
{
    (void)state;
    struct options o;
    char err[MPQC_FLAG_ERROR];
    assert_int_equal(PARSE("-color=red"), -1);
    assert_non_null(strstr(err, "did you mean '-colour'?"));
    assert_int_equal(PARSE("--siez", "3"), -1);
    assert_non_null(strstr(err, "did you mean '-size'?"));
    assert_int_equal(PARSE("-unrelated"), -1);
    assert_non_null(strstr(err, "-help"));
    assert_int_equal(PARSE("-loud=yes"), -1);
    assert_non_null(strstr(err, "takes no value"));
    assert_int_equal(PARSE("-size"), -1);
    assert_non_null(strstr(err, "-size=N"));
    assert_int_equal(PARSE("-size=10"), -1);
    assert_non_null(strstr(err, "from 0 to 9"));
    assert_int_equal(PARSE("-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
                     -1);
}

/* Two names of one flag differ in messages by the name, and by nothing else. */
static void messages_name_the_flag_that_was_given(void **state)
{
    (void)state;
    struct options o;
    char err[MPQC_FLAG_ERROR];
    assert_int_equal(PARSE("-size=10"), -1);
    assert_string_equal(err, "-size wants a whole number from 0 to 9, not '10'");
    assert_int_equal(PARSE("--s", "10"), -1);
    assert_string_equal(err, "-s wants a whole number from 0 to 9, not '10'");
    assert_int_equal(PARSE("-s"), -1);
    assert_string_equal(err, "flag '-s' needs a value: -s=N");
    assert_int_equal(mpqc_flag_refuse("s", "x", "a, b", err), -1);
    assert_string_equal(err, "-s=x is not known; it is one of a, b");
}

static void numbers_are_whole_strings(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "x", "1x", "1.5", "99999999999999999999", " "};
    char err[MPQC_FLAG_ERROR];
    int64_t n;
    double v;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(mpqc_flag_int("n", bad[i], INT64_MIN, INT64_MAX, &n, err), -1);
    assert_int_equal(mpqc_flag_int("n", "-7", -7, 7, &n, err), 0);
    assert_int_equal(n, -7);
    assert_int_equal(mpqc_flag_real("v", "1e-3", &v, err), 0);
    assert_true(v == 1e-3);
    assert_int_equal(mpqc_flag_real("v", "nan", &v, err), -1);
    assert_int_equal(mpqc_flag_real("v", "inf", &v, err), -1);
    assert_int_equal(mpqc_flag_real("v", "1e999", &v, err), -1);
    assert_int_equal(mpqc_flag_real("v", "1,5", &v, err), -1);
}

static void paths_may_have_names(void **state)
{
    (void)state;
    struct mpqc_named_path list[3];
    char err[MPQC_FLAG_ERROR];
    uint32_t n = 0;
    assert_int_equal(mpqc_flag_path("in", "a.npy", "input", list, &n, 3, err), 0);
    assert_int_equal(mpqc_flag_path("in", "x:a:b.npy", "input", list, &n, 3, err), 0);
    assert_string_equal(list[0].name, "");
    assert_string_equal(list[0].path, "a.npy");
    assert_string_equal(list[1].name, "x");
    assert_string_equal(list[1].path, "a:b.npy");
    assert_int_equal(mpqc_flag_path("in", "x:", "input", list, &n, 3, err), -1);
    assert_string_equal(err, "-in wants [input:]PATH, not 'x:'");
    assert_int_equal(mpqc_flag_path("in", "a.npy", "input", list, &n, 3, err), -1);
    assert_string_equal(err, "-in is given more than 3 times");
    assert_int_equal(n, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_or_two_dashes_equals_or_space),
        cmocka_unit_test(mistakes_are_explained),
        cmocka_unit_test(messages_name_the_flag_that_was_given),
        cmocka_unit_test(numbers_are_whole_strings),
        cmocka_unit_test(paths_may_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
