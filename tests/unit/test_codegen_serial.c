/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Weights and inputs of 1 and 2 bits: bit-serial kernels where there are some, the same bytes
 * by other kernels elsewhere.  By the rig of all linear kernels.
 */
#define LINEAR_CASES "serial_cases.def"
#include "linear_rig.h"

/* Of all constants of a layer of 3 x 3 x 64 x 64 weights. */
static uint64_t weight_bytes(unsigned bits, const char *name)
{
    static struct fixture f;
    const struct test_case t = {.core = CONV, .x = {1, 7, 7, 64}, .kh = 3, .kw = 3, .oc = 64,
                                .pad = 1, .factor = PER_CHANNEL, .frac = 2, .bits = bits,
                                .xbits = 2, .m = 2, .nv = 1};
    const struct mpqc_tile_request tiles = {.wish = wish, .user = &t};
    struct mpqc_target target;
    struct mpqc_codegen_facts facts;
    char path[512];
    memset(&f, 0, sizeof f);
    f.seed = 1;
    mpqc_cx_init(&f.cx, NULL);
    mpqc_graph_init(&f.g, NULL);
    build(&f, &t);
    snprintf(path, sizeof path, "%s/serial.%d.o", MPQC_BINARY_DIR, (int)getpid());
    assert_int_equal(mpqc_target_find(&f.cx, name, NULL, &target), MPQC_OK);
    struct mpqc_codegen_request rq = {.graph = &f.g, .plan = &f.plan, .target = &target,
                                      .emit = MPQC_EMIT_OBJ, .path = path,
                                      .tiles = &tiles};
    assert_int_equal(mpqc_codegen_emit(&f.cx, &rq, &facts), MPQC_OK);
    unlink(path);
    mpqc_graph_release(&f.g);
    mpqc_cx_release(&f.cx);
    return facts.weight_bytes;
}

/* On every target, bit-serial or not; all else is alike. */
static void weights_take_their_bits(void **state)
{
    const char *name;
    (void)state;
    for (unsigned i = 0; (name = mpqc_target_name(i)); i++)
        assert_int_equal(weight_bytes(2, name) - weight_bytes(1, name), 3 * 3 * 64 * 64 / 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(weights_take_their_bits),
                                       cmocka_unit_test(every_case_matches_the_interpreter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
