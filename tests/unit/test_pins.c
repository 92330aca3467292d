/* SPDX-License-Identifier: GPL-3.0-or-later
 * Rules that pin layers: what they match, what they refuse.
 */
#include "choice.h"
#include "passes/pins.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { STEM, BODY, BRANCH, TWIN, NORM, HEAD, LAYERS };

struct fixture {
    struct mpqc_cx cx;
    struct mpqc_arena arena;
    struct mpqc_bits_layer layer[LAYERS];
    bool allowed[LAYERS * 16];
    struct mpqc_bits b;
    struct mpqc_pins pins;
};

/* body and branch read one value; branch and twin share weights. */
static void start(struct fixture *f)
{
    static const struct {
        const char *name, *op;
        uint32_t group, shared;
    } rows[LAYERS] = {{"/stem/Conv", "Conv", 0, 0},       {"/body/Conv", "Conv", 1, 1},
                      {"/branch/Conv", "Conv", 1, 2},     {"/twin/Conv", "Conv", 2, 2},
                      {"/norm", "BatchNormalization", 3, 4}, {"/head=1", "Gemm", 4, 5}};
    memset(f, 0, sizeof *f);
    mpqc_cx_init(&f->cx, NULL);
    mpqc_arena_init(&f->arena, NULL);
    assert_true(mpqc_n_choices <= 16);
    for (uint32_t l = 0; l < LAYERS; l++)
        f->layer[l] = (struct mpqc_bits_layer){.name = rows[l].name, .op = rows[l].op,
                                               .input_group = rows[l].group,
                                               .shared = rows[l].shared, .pinned = -1,
                                               .weights = l == NORM ? MPQC_NONE : l};
    for (size_t i = 0; i < MPQC_LEN(f->allowed); i++) f->allowed[i] = true;
    f->b = (struct mpqc_bits){.n_layers = LAYERS, .layer = f->layer, .allowed = f->allowed};
    f->pins.arena = &f->arena;
}

static void stop(struct fixture *f)
{
    mpqc_arena_release(&f->arena);
    mpqc_cx_release(&f->cx);
}

static mpqc_status apply(struct fixture *f, const char *text)
{
    f->pins = (struct mpqc_pins){.arena = &f->arena};
    for (uint32_t l = 0; l < LAYERS; l++) f->layer[l].pinned = -1;
    f->cx.n_diags = 0;
    MPQC_TRY(mpqc_pins_add_text(&f->cx, &f->pins, text, "rules.txt"));
    return mpqc_pins_apply(&f->cx, &f->pins, &f->b);
}

static void refused(struct fixture *f, const char *text, const char *says)
{
    assert_int_not_equal(apply(f, text), MPQC_OK);
    assert_int_equal(f->cx.n_diags, 1);
    if (!strstr(f->cx.diags[0].message, says))
        fail_msg("'%s' is not in '%s'", says, f->cx.diags[0].message);
    assert_null(strchr(f->cx.diags[0].message, '\n'));
}

static const char *pinned(const struct fixture *f, uint32_t l)
{
    return f->layer[l].pinned < 0 ? "" : mpqc_choices[f->layer[l].pinned].name;
}

static void patterns_match_anywhere(void **state)
{
    struct fixture f;
    (void)state;
    start(&f);
    assert_int_equal(apply(&f, "b(ody|ranch)=w8a8\n"), MPQC_OK);
    assert_string_equal(pinned(&f, STEM), "");
    assert_string_equal(pinned(&f, BODY), "w8a8");
    assert_string_equal(pinned(&f, BRANCH), "w8a8");
    assert_string_equal(f.layer[BODY].pin_rule, "b(ody|ranch)=w8a8");
    stop(&f);
}

static void operators_match_whole(void **state)
{
    struct fixture f;
    (void)state;
    start(&f);
    assert_int_equal(apply(&f, "op:Conv=w4a8"), MPQC_OK);
    assert_string_equal(pinned(&f, TWIN), "w4a8");
    assert_string_equal(pinned(&f, HEAD), "");
    refused(&f, "op:Con=w4a8", "matches none");
    stop(&f);
}

static void the_last_rule_holds(void **state)
{
    struct fixture f;
    (void)state;
    start(&f);
    assert_int_equal(apply(&f, "# all\n\nConv=w4a8 \r\n^/stem=w8a8\n"), MPQC_OK);
    assert_string_equal(pinned(&f, STEM), "w8a8");
    assert_string_equal(pinned(&f, BODY), "w4a8");
    stop(&f);
}

/* Names may hold the character that ends the pattern. */
static void the_last_equals_sign_splits(void **state)
{
    struct fixture f;
    (void)state;
    start(&f);
    assert_int_equal(apply(&f, "^/head=1$=w2a8"), MPQC_OK);
    assert_string_equal(pinned(&f, HEAD), "w2a8");
    stop(&f);
}

static void layers_without_weights_keep_eight_bits(void **state)
{
    struct fixture f;
    (void)state;
    start(&f);
    assert_int_equal(apply(&f, ".=w4a4"), MPQC_OK);
    assert_string_equal(pinned(&f, STEM), "w4a4");
    assert_string_equal(pinned(&f, NORM), "w8a4");
    stop(&f);
}

static void mistakes_are_named(void **state)
{
    struct fixture f;
    (void)state;
    start(&f);
    refused(&f, "\nnothing=w8a8",
            "rules.txt:2: the rule 'nothing=w8a8' matches none of the 6 layers");
    refused(&f, "Conv", "rules.txt:1: 'Conv' is no rule");
    refused(&f, "=w8a8", "is no rule");
    refused(&f, "Conv=w7a8", "there is no choice 'w7a8'");
    refused(&f, "Conv=", "there is no choice ''");
    refused(&f, "(Conv=w8a8", "not a POSIX extended regular expression");
    stop(&f);
}

static void ties_are_kept(void **state)
{
    struct fixture f;
    (void)state;
    start(&f);
    refused(&f, "body=w8a8\nbranch=w8a4", "contradict each other: '/body/Conv' and '/branch/Conv'");
    refused(&f, "branch=w8a8\ntwin=w4a8", "share their weights");
    assert_int_equal(apply(&f, "body=w4a8\nbranch=w8a8"), MPQC_OK); /* equal activations */
    stop(&f);
}

static void the_target_has_a_say(void **state)
{
    struct fixture f;
    (void)state;
    start(&f);
    f.allowed[HEAD * mpqc_n_choices + choice("w2a8")] = false;
    refused(&f, ".=w2a8", "cannot be compiled with w2a8");
    assert_string_equal(f.cx.diags[0].where.node, "/head=1");
    assert_int_equal(apply(&f, "head=w4a8"), MPQC_OK);
    stop(&f);
}

/* Many rules, so that the list grows. */
static void many_rules(void **state)
{
    struct fixture f;
    struct mpqc_buf text;
    (void)state;
    start(&f);
    mpqc_buf_init(&text);
    for (int i = 0; i < 100; i++) mpqc_buf_puts(&text, i % 2 ? "op:Gemm=w8a8\n" : "op:Gemm=w4a8\n");
    assert_int_equal(apply(&f, text.data), MPQC_OK);
    assert_int_equal(f.pins.n, 100);
    assert_string_equal(f.pins.pin[99].from, "rules.txt:100");
    assert_string_equal(pinned(&f, HEAD), "w8a8");
    mpqc_buf_release(&text);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_match_anywhere),
        cmocka_unit_test(operators_match_whole),
        cmocka_unit_test(the_last_rule_holds),
        cmocka_unit_test(the_last_equals_sign_splits),
        cmocka_unit_test(layers_without_weights_keep_eight_bits),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(ties_are_kept),
        cmocka_unit_test(the_target_has_a_say),
        cmocka_unit_test(many_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
