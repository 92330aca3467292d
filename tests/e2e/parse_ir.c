/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 *     e2e_parse_ir FILE.mpir [integer|float]
 *
 * Reads a graph in text form, verifies it as an integer (or float) graph, prints it
 * again, and compares: what mpqc -emit=ir writes is canonical.
 */
#include "ir/text.h"
#include "ir/verify.h"
#include "tests/e2e/support.h"

int main(int argc, char **argv)
{
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_buf again;
    size_t n;
    CHECK(argc == 3, "usage: %s FILE.mpir integer|float", argv[0]);
    char *text = (char *)e2e_read_file(argv[1], &n);
    enum mpqc_verify_mode mode =
        strcmp(argv[2], "float") == 0 ? MPQC_VERIFY_FLOAT : MPQC_VERIFY_INTEGER;
    mpqc_cx_init(&cx, NULL);
    mpqc_graph_init(&g, NULL);
    mpqc_buf_init(&again);
    e2e_expect_ok(&cx, mpqc_graph_parse(&cx, text, n, argv[1], &g), "the parser");
    e2e_expect_ok(&cx, mpqc_graph_normalise(&cx, &g), "normalise");
    e2e_expect_ok(&cx, mpqc_verify(&cx, &g, mode), "the verifier");
    mpqc_graph_print(&g, &again, true);
    CHECK(again.len == n && memcmp(again.data, text, n) == 0, "%s is not canonical", argv[1]);
    printf("%u operators\n", g.n_order);
    mpqc_buf_release(&again);
    mpqc_graph_release(&g);
    mpqc_cx_release(&cx);
    free(text);
    return 0;
}
