/* SPDX-License-Identifier: GPL-3.0-or-later
 * Printer and parser: round trips for every operator, diagnostics, garbage, and
 * every allocation failing in turn.
 */
#include "failing_allocator.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "op_texts.h"

#include <setjmp.h>
#include <cmocka.h>

struct fixture {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_buf text;
};

static void open_fixture(struct fixture *f, const struct mpqc_allocator *allocator)
{
    mpqc_cx_init(&f->cx, allocator);
    mpqc_graph_init(&f->g, allocator);
    mpqc_buf_init(&f->text);
}

static void close_fixture(struct fixture *f)
{
    mpqc_buf_release(&f->text);
    mpqc_graph_release(&f->g);
    mpqc_cx_release(&f->cx);
}

static mpqc_status parse(struct fixture *f, const char *text, size_t len)
{
    MPQC_TRY(mpqc_graph_parse(&f->cx, text, len, "t", &f->g));
    return mpqc_graph_normalise(&f->cx, &f->g);
}

static void show_errors(const struct fixture *f, const char *text)
{
    for (uint32_t i = 0; i < f->cx.n_diags; i++) mpqc_diag_print(&f->cx.diags[i], stderr);
    if (f->cx.n_diags) fprintf(stderr, "in:\n%s\n", text);
}

/* print(parse(text)) is a fixed point, and verifies. */
static void check_round_trip(const char *text)
{
    struct fixture a, b;
    open_fixture(&a, NULL);
    open_fixture(&b, NULL);
    mpqc_status status = parse(&a, text, strlen(text));
    show_errors(&a, text);
    assert_int_equal(status, MPQC_OK);
    assert_int_equal(mpqc_verify(&a.cx, &a.g, MPQC_VERIFY_MIXED), MPQC_OK);
    mpqc_graph_print(&a.g, &a.text, true);
    status = parse(&b, a.text.data, a.text.len);
    show_errors(&b, a.text.data);
    assert_int_equal(status, MPQC_OK);
    mpqc_graph_print(&b.g, &b.text, true);
    assert_string_equal(a.text.data, b.text.data);
    close_fixture(&a);
    close_fixture(&b);
}

static void every_operator_makes_the_round_trip(void **state)
{
    unsigned char seen[MPQC_OP_COUNT] = {0};
    struct mpqc_buf text;
    enum mpqc_op op;
    (void)state;
    mpqc_buf_init(&text);
    for (uint32_t i = 0; op_text(i, &text, &op); i++) {
        check_round_trip(text.data);
        seen[op] = 1;
        text.len = 0;
    }
    mpqc_buf_release(&text);
    for (int i = 0; i < MPQC_OP_COUNT; i++)
        if (!seen[i]) fail_msg("no text for operator %s", mpqc_ops[i].text);
}

static void everything_else_makes_the_round_trip(void **state)
{
    (void)state;
    check_round_trip("graph{}");
    check_round_trip("graph \"\\\"q\\\\ \\n\\t\\x01 \xc3\xa9\" { input %5 \"x y\" : f32[0,3] output %5 }");
    check_round_trip("graph { const %0 : f32[7] = [nan,nan:ffc00001,inf,-inf,0x1p-149,-0x0p+0,1e-3]"
                     " output %0 output %0 }");
    check_round_trip("graph { const %0 : i4[3] quant(axis=0, scale=[1,2,3], zero=[0,-8,7]) = "
                     "[-8,7,0] const %1 : i64[2] = [-9223372036854775808,9223372036854775807] "
                     "output %1 output %0 }");
    check_round_trip("graph { const %0 : i8[33,2] quant(axis=1, scale=[1,2], zero=[0,0], group=32, "
                     "bits=4, factor=[1,2,3,-2]) = splat 6 output %0 }");
    check_round_trip("graph { const %0 : i1[3] quant(axis=0, scale=[1,2,3], zero=[0,0,0]) = [-1,1,1] "
                     "const %1 : i1[9] = random 3 const %2 : i1[2] = splat -1 output %0 output %1 "
                     "output %2 }");
    check_round_trip("graph { # comment\n const %0 : u16[0] = [] const %1 : u1[2] = splat 1\n"
                     "%2 \"named\" = copy %1 @\"n\" kernel 3 : u1[2] output %2 output %0 }");
    check_round_trip("graph { const %0 : f32[20,20] = random 5 const %1 : bool[100] = random 6 "
                     "output %0 output %1}");
}

static void canonical_numbers_and_order(void **state)
{
    static const char text[] = "graph \"g\" {\n const %7 : f32[2] = [1,2]\n input %3 : f32[2]\n"
                               "const %8 : f32[1] = [0.5]\n"
                               "%1 = add %3, %7 @\"a\"\n %2 = exp %3 @\"unused\"\n"
                               "%4 = mul %1, %8 @\"b\" \"Mul\" output %4 }";
    static const char want[] =
        "graph \"g\" {\n  input %0 : f32[2]\n  const %1 : f32[2] = [0x1p+0,0x1p+1]\n"
        "  %2 = add %0, %1 @\"a\" : f32[2]\n  const %3 : f32[1] = [0x1p-1]\n"
        "  %4 = mul %2, %3 @\"b\" \"Mul\" : f32[2]\n  output %4\n}\n";
    struct fixture f;
    (void)state;
    open_fixture(&f, NULL);
    assert_int_equal(parse(&f, text, sizeof text - 1), MPQC_OK);
    mpqc_graph_print(&f.g, &f.text, false);
    assert_string_equal(f.text.data, want);
    close_fixture(&f);
}

static void large_constants_print_as_hashes(void **state)
{
    static const char text[] = "graph { const %0 : i8[65] = random 1 output %0 }";
    struct fixture f, again;
    (void)state;
    open_fixture(&f, NULL);
    open_fixture(&again, NULL);
    assert_int_equal(parse(&f, text, sizeof text - 1), MPQC_OK);
    mpqc_graph_print(&f.g, &f.text, false);
    assert_non_null(strstr(f.text.data, " = hash:"));
    assert_int_equal(parse(&again, f.text.data, f.text.len), MPQC_FORMAT);
    assert_non_null(strstr(again.cx.diags[0].message, "content hash"));
    close_fixture(&f);
    close_fixture(&again);
}

/* ---- what is refused, and how ---- */

static const struct {
    const char *text, *want;
} bad[] = {
    {"", "error: t:1:1: expected 'graph'"},
    {"graph", "error: t:1:6: expected '{'"},
    {"graph {", "error: t:1:8: expected a statement (input, const, %N = ..., output) or '}'"},
    {"graph {\n  nonsense }", "error: t:2:3: expected a statement (input, const, %N = ..., output) or '}'"},
    {"graph {} x", "error: t:1:10: expected the end of the text"},
    {"graph \"a", "error: t:1:7: the string does not end"},
    {"graph \"\\q\" {}", "error: t:1:8: a character that a string cannot hold"},
    {"graph { input %0 : f33[] }", "error: t:1:20: 'f33' is no element type"},
    {"graph { input %0 : f32[-1] }", "error: t:1:20: the shape cannot be"},
    {"graph { input %0 : f32[1,1,1,1,1,1,1,1,1] }", "error: t:1:23: a list of more than 8 integers"},
    {"graph { input %0 : i64[4611686018427387904,2] }", "error: t:1:20: the shape cannot be"},
    {"graph { input %0 : f32[] input %0 : f32[] }", "error: t:1:32: %0 is defined twice"},
    {"graph { input %999 : f32[] }", "error: t:1:16: the integer is not in 0 .. 28"},
    {"graph { output %0 }", "error: t:1:16: %0 is not defined"},
    {"graph { input %0 : f32[2] quant(scale=1, zero=0) }",
     "error: t:1:20: only integers of 32 bits or fewer can be quantised"},
    {"graph { const %0 : i8[33,1] quant(axis=1, scale=[1], zero=[0], group=32, bits=4, "
     "factor=[1,16]) = splat 0 }",
     "error: t:1:20: a group's factor is 0, or its products with codes do not fit 8 bits"},
    {"graph { const %0 : i8[33,1] quant(axis=1, scale=[1], zero=[0], group=33, bits=4, "
     "factor=[1]) = splat 0 }", "error: t:1:20: the size of a group is not a multiple of 32"},
    {"graph { const %0 : i4[33,1] quant(axis=1, scale=[1], zero=[0], group=64, bits=4, "
     "factor=[1]) = splat 0 }",
     "error: t:1:20: only i8 tensors of two axes, with a scale per column, can be in groups"},
    {"graph { input %0 : i8[2] quant(scale=0, zero=0) }", "error: t:1:20: a scale is not positive"},
    {"graph { input %0 : u4[2] quant(scale=1, zero=16) }",
     "error: t:1:20: a zero point is out of range"},
    {"graph { const %0 : i4[1] = [8] }", "error: t:1:29: the integer is not in -8 .. 7"},
    {"graph { const %0 : i1[2] = [1,0] }", "error: t:1:31: 0 is no i1"},
    {"graph { const %0 : f32[2] = [1] }", "error: t:1:31: expected ','"},
    {"graph { const %0 : f32[1] = [1,2] }", "error: t:1:29: expected 1 elements"},
    {"graph { const %0 : f32[99] = [1] }", "error: t:1:30: there are not 99 elements here"},
    {"graph { const %0 : f32[99999999] = splat 1 }",
     "error: t:1:36: there are not 99999999 elements here"},
    {"graph { const %0 : f32[1] = [nan:0] }", "error: t:1:33: these bits are no f32 NaN"},
    {"graph { input %0 : f32[2] %1 = nosuch %0 }", "error: t:1:32: 'nosuch' is no operator"},
    {"graph { input %0 : f32[2] %1 = relu %0, %0 @\"n\" \"Relu\" }",
     "error: t:1:27: node 'n' (Relu): 'relu' takes 1 to 1 inputs, not 2"},
    {"graph { input %0 : f32[2] %1 = relu _ @\"n\" }",
     "error: t:1:27: node 'n': input 0 of 'relu' is missing"},
    {"graph { input %0 : f32[2] %1 = relu %0 {group=1} @\"n\" }",
     "error: t:1:27: node 'n': 'relu' has no attribute 'group'"},
    {"graph { input %0 : f32[2] %1 = clip %0 {min=1, min=2} }",
     "error: t:1:48: an attribute is given twice"},
    {"graph { input %0 : f32[2] %1, %2 = relu %0 }", "error: t:1:36: 'relu' has 1 results"},
    {"graph { input %0 : f32[2]\n %1 = relu %0 @\"n\" : f32[3] }",
     "error: t:2:22: the type is written wrong: it is f32[2]"},
};

static void errors_say_where(void **state)
{
    (void)state;
    for (size_t i = 0; i < MPQC_LEN(bad); i++) {
        struct fixture f;
        open_fixture(&f, NULL);
        assert_int_not_equal(parse(&f, bad[i].text, strlen(bad[i].text)), MPQC_OK);
        assert_int_equal(f.cx.n_errors, 1);
        mpqc_diag_text(&f.cx.diags[0], &f.text);
        assert_string_equal(f.text.data, bad[i].want);
        close_fixture(&f);
    }
}

/* Text of the longest kind: all operators' graphs as bytes to be damaged. */
static uint64_t next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* A copy with a few bytes changed, removed or repeated. */
static void damage(struct mpqc_buf *b, uint64_t *seed)
{
    static const char spice[] = "%0123456789[]{}(),=:\"\\@#_-+.xpnaif \n\0\xff";
    for (uint64_t n = 1 + next(seed) % 4; n > 0 && b->len > 4; n--) {
        size_t at = next(seed) % b->len;
        switch (next(seed) % 4) {
        case 0: b->data[at] = spice[next(seed) % sizeof spice]; break;
        case 1: b->data[at] = (char)next(seed); break;
        case 2: b->len -= (b->len - at) / 2; break;
        default: memmove(b->data + at, b->data + at + 1, b->len - at - 1); b->len--; break;
        }
    }
}

static void garbage_gives_a_graph_or_a_diagnostic(void **state)
{
    uint64_t seed = 1, accepted = 0;
    enum mpqc_op op;
    (void)state;
    for (uint32_t round = 0; round < 40; round++) {
        struct mpqc_buf text;
        mpqc_buf_init(&text);
        for (uint32_t i = 0; op_text(i, &text, &op); i++, text.len = 0) {
            struct fixture f;
            open_fixture(&f, NULL);
            damage(&text, &seed);
            /* An exact copy, so that reading past the end is seen. */
            char *copy = malloc(text.len);
            memcpy(copy, text.data, text.len);
            if (parse(&f, copy, text.len) == MPQC_OK) {
                mpqc_graph_print(&f.g, &f.text, true);
                accepted++;
            } else {
                assert_true(f.cx.n_errors >= 1);
            }
            free(copy);
            close_fixture(&f);
        }
        mpqc_buf_release(&text);
    }
    assert_true(accepted > 0);
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    struct mpqc_buf text;
    enum mpqc_op op;
    mpqc_buf_init(&text);
    for (uint32_t entry = 0; op_text(entry, &text, &op); entry++, text.len = 0) {
        mpqc_status status = MPQC_NO_MEMORY;
        for (uint64_t n = 1; status != MPQC_OK; n++) {
            struct failing_allocator a;
            struct fixture f;
            failing_init(&a, n);
            open_fixture(&f, &a.allocator);
            status = parse(&f, text.data, text.len);
            assert_true(status == MPQC_OK || status == MPQC_NO_MEMORY);
            if (status == MPQC_OK) assert_true(a.requests < n);
            close_fixture(&f);
            assert_int_equal(a.alive, 0);
        }
    }
    mpqc_buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operator_makes_the_round_trip),
        cmocka_unit_test(everything_else_makes_the_round_trip),
        cmocka_unit_test(canonical_numbers_and_order),
        cmocka_unit_test(large_constants_print_as_hashes),
        cmocka_unit_test(errors_say_where),
        cmocka_unit_test(garbage_gives_a_graph_or_a_diagnostic),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
