/* SPDX-License-Identifier: GPL-3.0-or-later
 * The walk over the wire format: what it finds, and what it refuses.
 */
#include "failing_allocator.h"
#include "frontend/pbscan.h"

#include <setjmp.h>
#include <cmocka.h>

struct rig {
    struct mpqc_cx cx;
    struct mpqc_arena arena;
    struct mpqc_pb_index index;
};

static mpqc_status scan(struct rig *r, const void *data, size_t size)
{
    mpqc_cx_init(&r->cx, NULL);
    mpqc_arena_init(&r->arena, NULL);
    return mpqc_pb_scan_model(&r->cx, "x.onnx", data, size, &r->arena, &r->index);
}

static void done(struct rig *r)
{
    mpqc_arena_release(&r->arena);
    mpqc_cx_release(&r->cx);
}

/* A refusal says where, inside the data, and why. */
static void refused(const void *data, size_t size, int64_t offset, const char *why)
{
    struct rig r;
    /* A copy of the exact size, so that ASan sees a read past the end. */
    void *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, data, size);
    assert_int_equal(scan(&r, copy, size), MPQC_FORMAT);
    assert_int_equal(r.cx.n_errors, 1);
    assert_int_equal(r.cx.diags[0].where.offset, offset);
    assert_string_equal(r.cx.diags[0].where.file, "x.onnx");
    if (!strstr(r.cx.diags[0].message, why))
        fail_msg("'%s' lacks '%s'", r.cx.diags[0].message, why);
    done(&r);
    free(copy);
}

/* ---- writing ---------------------------------------------------------------------- */

static void put_varint(struct mpqc_buf *b, uint64_t v)
{
    do {
        uint8_t byte = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        mpqc_buf_add(b, &byte, 1);
        v >>= 7;
    } while (v);
}

static void put_bytes(struct mpqc_buf *b, unsigned field, const void *data, size_t n)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    mpqc_buf_add(b, data, n);
}

static void put_int(struct mpqc_buf *b, unsigned field, uint64_t v)
{
    put_varint(b, field << 3);
    put_varint(b, v);
}

/* A model with everything that the index knows. */
static void small_model(struct mpqc_buf *model)
{
    struct mpqc_buf graph, tensor;
    mpqc_buf_init(model);
    mpqc_buf_init(&graph);
    mpqc_buf_init(&tensor);
    put_int(&tensor, 1, 2);
    put_int(&tensor, 2, 1);
    put_bytes(&tensor, 8, "w", 1);
    put_bytes(&tensor, 9, "\0\0\200\077\0\0\0\100", 8);
    put_bytes(&graph, 1, "\x22\x04Relu", 6); /* node { op_type: "Relu" } */
    put_bytes(&graph, 2, "net", 3);
    put_bytes(&graph, 5, tensor.data, tensor.len);
    put_bytes(&graph, 11, "\x0a\x01x", 3);
    put_bytes(&graph, 12, "\x0a\x01y", 3);
    put_bytes(&graph, 13, "\x0a\x01z", 3);
    put_int(model, 1, 8);
    put_bytes(model, 8, "\x10\x0d", 2);
    put_bytes(model, 7, graph.data, graph.len);
    put_bytes(model, 200, "unknown", 7); /* a field of a later schema */
    mpqc_buf_release(&graph);
    mpqc_buf_release(&tensor);
}

/* ---- tests ------------------------------------------------------------------------ */

static void finds_the_parts(void **state)
{
    (void)state;
    struct mpqc_buf m;
    struct rig r;
    small_model(&m);
    assert_int_equal(scan(&r, m.data, m.len), MPQC_OK);
    assert_int_equal(r.index.ir_version, 8);
    assert_true(r.index.has_graph);
    assert_int_equal(r.index.opsets.n, 1);
    assert_int_equal(r.index.nodes.n, 1);
    assert_int_equal(r.index.initialisers.n, 1);
    assert_int_equal(r.index.inputs.n, 1);
    assert_int_equal(r.index.outputs.n, 1);
    assert_int_equal(r.index.value_infos.n, 1);
    assert_memory_equal(m.data + r.index.nodes.at[0].offset, "\x22\x04Relu", 6);
    assert_int_equal(r.index.nodes.at[0].length, 6);
    assert_memory_equal(m.data + r.index.graph_name.offset, "net", 3);
    struct mpqc_pb_tensor t;
    assert_int_equal(mpqc_pb_scan_tensor(&r.cx, "x", (const uint8_t *)m.data,
                                         r.index.initialisers.at[0], &t),
                     MPQC_OK);
    assert_true(t.has_raw);
    assert_int_equal(t.raw.length, 8);
    assert_memory_equal(m.data + t.raw.offset, "\0\0\200\077", 4);
    assert_int_equal((uint8_t)m.data[t.raw_tag], 9 << 3 | 2);
    done(&r);
    mpqc_buf_release(&m);
}

/* Cut anywhere: a clean answer, and never a read behind the end. */
static void every_truncation(void **state)
{
    (void)state;
    struct mpqc_buf m;
    unsigned good = 0;
    small_model(&m);
    for (size_t size = 0; size < m.len; size++) {
        struct rig r;
        void *copy = malloc(size ? size : 1);
        assert_non_null(copy);
        memcpy(copy, m.data, size);
        mpqc_status status = scan(&r, copy, size);
        good += status == MPQC_OK;
        if (status != MPQC_OK) {
            assert_int_equal(status, MPQC_FORMAT);
            assert_in_range(r.cx.diags[0].where.offset, 0, size);
        }
        done(&r);
        free(copy);
    }
    /* Only between the model's four fields is a cut no damage: 0 bytes and 3 more. */
    assert_int_equal(good, 4);
    mpqc_buf_release(&m);
}

/* Every byte with every value. */
static void every_byte(void **state)
{
    (void)state;
    struct mpqc_buf m;
    small_model(&m);
    for (size_t at = 0; at < m.len; at++) {
        char old = m.data[at];
        for (unsigned v = 0; v < 256; v++) {
            struct rig r;
            m.data[at] = (char)(uint8_t)v;
            mpqc_status status = scan(&r, m.data, m.len);
            assert_true(status == MPQC_OK || status == MPQC_FORMAT);
            assert_int_equal(r.cx.n_errors, status != MPQC_OK);
            done(&r);
        }
        m.data[at] = old;
    }
    mpqc_buf_release(&m);
}

static void malformed_numbers(void **state)
{
    (void)state;
    refused("\x08\x80", 2, 1, "runs past the end");
    refused("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11, 1, "more than 64 bits");
    refused("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, 1, "more than 64 bits");
    refused("\x00\x01", 2, 0, "impossible number");
    refused("\xf8\xff\xff\xff\xff\x0f\x01", 7, 0, "impossible number");
    refused("\x88\x80\x80\x80\x80\x00\x01", 7, 0, "impossible number");
    struct rig r; /* the largest 64-bit number is no error */
    assert_int_equal(scan(&r, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), MPQC_OK);
    assert_int_equal(r.index.ir_version, -1);
    done(&r);
}

static void malformed_fields(void **state)
{
    (void)state;
    refused("\x0b", 1, 0, "unknown wire type 3");
    refused("\x0c", 1, 0, "unknown wire type 4");
    refused("\x0e", 1, 0, "unknown wire type 6");
    refused("\x12\x05" "abc", 5, 0, "has 5 bytes, but only 3 are left");
    refused("\x12\xff\xff\xff\xff\x0f", 6, 0, "impossible length");
    refused("\x12\x83\x80\x80\x80\x80\x00" "abc", 10, 0, "impossible length");
    refused("\x3a\x04\x0a\x05" "ab", 6, 2, "field 1 of GraphProto has 5 bytes, but only 2");
    refused("\x38\x01", 2, 0, "field 7 of ModelProto has wire type 0 where 2 belongs");
    refused("\x0d\0\0\0\0", 5, 0, "field 1 of ModelProto has wire type 5 where 0 belongs");
    refused("\x11\0\0", 3, 0, "has 8 bytes, but only 2 are left");
    /* graph { initializer { float_data, packed, 3 bytes } } */
    refused("\x3a\x07\x2a\x05\x22\x03" "abc", 9, 4, "3 bytes, not a multiple of 4");
    /* graph { initializer { int64_data, packed, cut inside a number } } */
    refused("\x3a\x06\x2a\x04\x3a\x02\x01\x80", 8, 7, "runs past the end");
}

/* model { graph { node { attribute { g { node { ... */
static size_t nested(struct mpqc_buf *b, unsigned depth)
{
    struct mpqc_buf inner;
    static const unsigned field[] = {1, 5, 6}; /* graph.node, node.attribute, attribute.g */
    mpqc_buf_init(b);
    for (unsigned i = depth; i-- > 0;) {
        mpqc_buf_init(&inner);
        put_bytes(&inner, i ? field[(i - 1) % 3] : 7, b->data ? b->data : "", b->len);
        mpqc_buf_release(b);
        *b = inner;
    }
    return b->len;
}

static void nesting(void **state)
{
    (void)state;
    struct mpqc_buf b;
    struct rig r;
    size_t size = nested(&b, MPQC_PB_MAX_DEPTH - 1);
    assert_int_equal(scan(&r, b.data, size), MPQC_OK);
    done(&r);
    mpqc_buf_release(&b);
    size = nested(&b, MPQC_PB_MAX_DEPTH);
    refused(b.data, size, (int64_t)size, "nested more than 32 deep");
    mpqc_buf_release(&b);
    size = nested(&b, 3000);
    assert_int_equal(scan(&r, b.data, size), MPQC_FORMAT);
    done(&r);
    mpqc_buf_release(&b);
}

/* A message of very many tiny fields would cost protobuf-c 20 times its size. */
static void too_many_fields(void **state)
{
    (void)state;
    size_t n = MPQC_PB_MAX_MESSAGE_FIELDS;
    uint8_t *data = malloc(2 * n + 2);
    struct rig r;
    assert_non_null(data);
    for (size_t i = 0; i <= n; i++) {
        data[2 * i] = 0x28; /* model_version */
        data[2 * i + 1] = 1;
    }
    assert_int_equal(scan(&r, data, 2 * n), MPQC_OK);
    done(&r);
    refused(data, 2 * n + 2, (int64_t)(2 * n), "too many fields");
    free(data);
}

/* Two raw_data fields: the last one counts for protobuf, so neither is skipped. */
static void raw_data_twice(void **state)
{
    (void)state;
    static const uint8_t twice[] = {0x4a, 1, 'a', 0x4a, 1, 'b'};
    struct mpqc_pb_tensor t;
    struct mpqc_cx cx;
    mpqc_cx_init(&cx, NULL);
    struct mpqc_pb_span one = {0, 3}, both = {0, 6};
    assert_int_equal(mpqc_pb_scan_tensor(&cx, "x", twice, one, &t), MPQC_OK);
    assert_true(t.has_raw);
    assert_int_equal(mpqc_pb_scan_tensor(&cx, "x", twice, both, &t), MPQC_OK);
    assert_false(t.has_raw);
    mpqc_cx_release(&cx);
}

/* Names of subgraphs and of functions do not get into the index of the main graph. */
static void only_the_main_graph(void **state)
{
    (void)state;
    struct mpqc_buf b;
    struct rig r;
    nested(&b, 8);
    put_bytes(&b, 25, "\x3a\x06\x22\x04Relu", 8); /* functions { node { op_type } } */
    assert_int_equal(scan(&r, b.data, b.len), MPQC_OK);
    assert_int_equal(r.index.nodes.n, 1);
    assert_int_equal(r.index.functions.n, 1);
    done(&r);
    mpqc_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_parts), cmocka_unit_test(every_truncation),
        cmocka_unit_test(every_byte),      cmocka_unit_test(malformed_numbers),
        cmocka_unit_test(malformed_fields), cmocka_unit_test(nesting),
        cmocka_unit_test(too_many_fields), cmocka_unit_test(raw_data_twice),
        cmocka_unit_test(only_the_main_graph),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
