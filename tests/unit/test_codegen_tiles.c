/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The choice of tiles: panels cover every channel once, tiles fit the registers,
 * little padding is stored.
 */
#include "codegen/linear.h"

#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

struct fixture {
    struct mpqc_cx cx;
    struct mpqc_graph g;
    struct mpqc_emit_cx e;
    struct mpqc_target target;
    struct mpqc_plan plan;
    struct mpqc_place place[1]; /* of the input */
};

static void with_target(struct fixture *f, const char *name)
{
    char arch[32];
    const char *colon = strchr(name, ':');
    memset(f, 0, sizeof *f);
    snprintf(arch, sizeof arch, "%.*s", (int)(colon - name), name);
    mpqc_cx_init(&f->cx, NULL);
    mpqc_graph_init(&f->g, NULL);
    assert_int_equal(mpqc_target_find(&f->cx, arch, colon + 1, &f->target), MPQC_OK);
    f->e.cx = &f->cx;
    f->e.graph = &f->g;
    f->e.target = &f->target;
    f->place[0].space = MPQC_SPACE_ARENA;
    f->plan = (struct mpqc_plan){.n_values = 1, .place = f->place};
    f->e.plan = &f->plan;
}

static void release(struct fixture *f)
{
    mpqc_graph_release(&f->g);
    mpqc_cx_release(&f->cx);
}

static struct mpqc_linear layer(int64_t rows, int64_t cols, int64_t groups, int64_t ic, int64_t oc,
                                int64_t k)
{
    struct mpqc_linear l = {.batch = 1, .rows = rows, .cols = cols, .groups = groups, .icg = ic,
                            .ocg = oc, .kh = k, .kw = k, .x_row = cols * ic, .x_col = ic,
                            .n_outer = k, .n_inner = 1, .run = k * ic, .bits = 8};
    l.flat = rows == 1;
    l.k4 = (l.run + 3) / 4;
    return l;
}

static void check(struct fixture *f, const struct mpqc_linear *l)
{
    const struct mpqc_isa *isa = f->target.isa;
    struct mpqc_tile t;
    mpqc_tile_choose(&f->e, l, 1, &t);
    assert_true(t.mh >= 1 && t.mh <= l->rows && t.mw >= 1 && t.mw <= l->cols);
    int64_t channels = t.panels.n_full * t.panels.full.valid, most = 0, lanes = 0;
    if (t.panels.n_full) most = t.panels.full.n;
    for (unsigned r = 0; r < t.panels.n_rest; r++) {
        channels += t.panels.rest[r].valid;
        lanes += mpqc_columns_lanes(&t.panels.rest[r]);
        if (t.panels.rest[r].n > most) most = t.panels.rest[r].n;
        assert_true(t.panels.rest[r].valid <= mpqc_columns_lanes(&t.panels.rest[r]));
    }
    assert_int_equal(channels, l->ocg);
    if (t.amx) return; /* its tiles are always of 16 channels */
    int64_t packed = l->bits < 8 && !t.form ? most + 2 : 0; /* rows, mask, offset */
    int64_t acc = t.mh * t.mw * most * isa->acc_per_column;
    if (t.form) acc = (t.mh * t.mw + t.form->pair - 1) / t.form->pair * most * t.form->acc;
    assert_true(acc + packed <= isa->registers);
    /* padding: at most 3 channels, or a quarter of one vector */
    lanes += t.panels.n_full * mpqc_columns_lanes(&t.panels.full);
    assert_true(lanes - channels <= (isa->lanes >= 16 ? isa->lanes / 4 : 3));
    int64_t extent = l->flat ? l->cols : l->rows, size = l->flat ? t.mw : t.mh;
    assert_int_equal(t.units, (extent + size - 1) / size);
    assert_true(t.block >= 1 && t.unroll % t.split == 0);
    if (l->once) assert_false(t.overlap);
}

static void every_layer_gets_a_tile(void **state)
{
    (void)state;
    static const int64_t channels[] = {1, 3, 4, 10, 13, 16, 24, 31, 40, 64, 100, 1000};
    struct fixture f;
    const char *name;
    for (unsigned i = 0; (name = mpqc_target_name(i)); i++) {
        with_target(&f, name);
        for (size_t c = 0; c < MPQC_LEN(channels); c++) {
            for (int64_t size = 1; size < 60; size += 6) {
                struct mpqc_linear l = layer(size, size, 1, 24, channels[c], 3);
                check(&f, &l);
                l.once = true;
                check(&f, &l);
                l.bits = 4;
                check(&f, &l);
                l = layer(1, size * size, 1, 17, channels[c], 1);
                check(&f, &l);
                l = layer(size, size, 3, 8, channels[c], 3);
                check(&f, &l);
            }
        }
        release(&f);
    }
}

/* Weights are asked for before they are needed where the network does not fit the second cache,
 * and there is another tile that does not wait. */
static void far_weights_are_those_of_large_networks(void **state)
{
    (void)state;
    struct fixture f;
    struct mpqc_tile t;
    struct mpqc_linear many = layer(14, 14, 1, 64, 64, 3), one = layer(1, 1, 1, 256, 100, 1);
    with_target(&f, "x86-64:avx512-vnni");
    const struct {
        const struct mpqc_linear *layer;
        size_t constants;
        bool far;
    } rows[] = {{&many, f.target.l2_bytes, false},
                {&many, f.target.l2_bytes + 1, true},
                {&one, f.target.l2_bytes + 1, false}};
    for (size_t i = 0; i < MPQC_LEN(rows); i++) {
        f.e.constant_bytes = rows[i].constants;
        mpqc_tile_choose(&f.e, rows[i].layer, 1, &t);
        assert_int_equal(t.far_weights, rows[i].far);
    }
    release(&f);
}

/* Which way of multiplying is best where, on targets that have several. */
static void forms_suit_the_layer(void **state)
{
    (void)state;
    static const struct {
        const char *target, *many, *one; /* for many positions, for one */
    } rows[] = {{"aarch64:neon", "fold", "fold"},
                {"aarch64:dotprod", "lanes", "lanes"},
                {"aarch64:i8mm", "matrix", "lanes"}};
    for (size_t i = 0; i < MPQC_LEN(rows); i++) {
        struct fixture f;
        struct mpqc_tile t;
        struct mpqc_linear many = layer(14, 14, 1, 64, 64, 3), one = layer(1, 1, 1, 256, 100, 1);
        with_target(&f, rows[i].target);
        mpqc_tile_choose(&f.e, &many, 1, &t);
        assert_string_equal(t.form->name, rows[i].many);
        mpqc_tile_choose(&f.e, &one, 1, &t);
        assert_string_equal(t.form->name, rows[i].one);
        release(&f);
    }
}

static void channels_split_into_vectors(void **state)
{
    (void)state;
    unsigned tail[MPQC_MAX_TAIL];
    for (unsigned lanes = 4; lanes <= 16; lanes *= 2) {
        for (int64_t n = 1; n < 70; n++) {
            for (int pad = 0; pad < 2; pad++) {
                int64_t full, sum = 0;
                unsigned k = mpqc_split_channels(n, lanes, pad, &full, tail);
                assert_true(k <= MPQC_MAX_TAIL);
                for (unsigned v = 0; v < k; v++) sum += tail[v];
                assert_int_equal(full, n / lanes);
                assert_true(full * lanes + sum >= n);
                assert_true(full * lanes + sum - n <= 3);
            }
        }
    }
}

static uint32_t same_tile(const void *user, uint64_t shape)
{
    assert_int_equal(shape, 77);
    return *(const uint32_t *)user;
}

/* A tile's number makes the same tile again; ranks are ordered by cost, and differ. */
static void numbers_are_tiles(void **state)
{
    (void)state;
    const char *name;
    const struct mpqc_linear l = layer(14, 14, 1, 24, 100, 3);
    for (unsigned i = 0; (name = mpqc_target_name(i)); i++) {
        struct fixture f;
        struct mpqc_tile first, again;
        struct mpqc_tile_facts facts[2];
        double last = 0;
        uint32_t before = 0;
        char text[MPQC_TILE_TEXT];
        with_target(&f, name);
        for (uint32_t r = 0; r < MPQC_MAX_TILE_RANK; r++) {
            const struct mpqc_tile_request ranked = {.rank = r, .facts = &facts[0]};
            const struct mpqc_tile_request wished = {.wish = same_tile, .user = &facts[0].tile,
                                                     .facts = &facts[1]};
            f.e.tiles = &ranked;
            mpqc_tile_choose(&f.e, &l, 77, &first);
            f.e.tiles = &wished;
            mpqc_tile_choose(&f.e, &l, 77, &again);
            assert_int_equal(facts[0].shape, 77);
            assert_int_not_equal(facts[0].tile, before);
            assert_true(facts[0].predicted >= last);
            assert_int_equal(facts[1].tile, facts[0].tile);
            assert_true(strlen(mpqc_tile_text(facts[0].tile, text)) >= 3);
            assert_int_equal(first.mh, again.mh);
            assert_int_equal(first.mw, again.mw);
            assert_int_equal(first.overlap, again.overlap);
            assert_int_equal(first.rolled, again.rolled);
            assert_int_equal(first.units, again.units);
            assert_int_equal(first.block, again.block);
            assert_int_equal(first.amx, again.amx);
            assert_int_equal(first.panels.n_full, again.panels.n_full);
            assert_int_equal(first.panels.full.n, again.panels.full.n);
            assert_int_equal(first.panels.n_rest, again.panels.n_rest);
            last = facts[0].predicted;
            before = facts[0].tile;
        }
        release(&f);
    }
}

/* Whatever the order of lanes, each channel is in one lane, and chunks keep theirs. */
static void check_lanes(const struct mpqc_columns *c)
{
    bool seen[16 * MPQC_MAX_COLUMNS] = {false};
    unsigned lanes = mpqc_columns_lanes(c);
    for (unsigned lane = 0; lane < lanes; lane++) {
        unsigned channel = mpqc_columns_channel(c, lane);
        assert_true(channel < lanes && !seen[channel]);
        seen[channel] = true;
        if (!c->interleaved || lane >= c->n / 4 * 4 * c->lanes[0]) assert_int_equal(channel, lane);
    }
}

static void lanes_are_channels(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 8; n++)
        for (unsigned flags = 0; flags < 8; flags++)
            for (unsigned lanes = 8; lanes <= 16; lanes += 8) {
                struct mpqc_columns c = {.n = n, .interleaved = flags & 1, .windows = flags & 2};
                for (unsigned v = 0; v < n; v++) c.lanes[v] = lanes;
                if (flags & 4) c.lanes[n - 1] /= 2;
                c.wide_tail = flags & 4;
                c.valid = mpqc_columns_lanes(&c);
                if (!(c.wide_tail && n % 4 == 0)) check_lanes(&c);
            }
    /* Behind two channels of a part come those of the next vector, and of the one after. */
    struct mpqc_columns c = {.n = 4, .lanes = {16, 16, 16, 16}, .valid = 64, .interleaved = true};
    assert_int_equal(mpqc_columns_channel(&c, 3), 3);
    assert_int_equal(mpqc_columns_channel(&c, 4), 16);
    assert_int_equal(mpqc_columns_channel(&c, 16), 4);
    assert_int_equal(mpqc_columns_channel(&c, 32), 8);
    c.windows = true;
    assert_int_equal(mpqc_columns_channel(&c, 2), 4);
    assert_int_equal(mpqc_columns_channel(&c, 16), 2);
    assert_int_equal(mpqc_columns_channel(&c, 32), 8);
}

static void narrow_positions_make_lines(void **state)
{
    (void)state;
    struct mpqc_linear l = layer(1, 49, 1, 32, 16, 1);
    struct mpqc_columns c = {.n = 1, .lanes = {16}, .valid = 16};
    l.out_col = 16;
    assert_int_equal(mpqc_line_positions(&mpqc_isa_avx512_vnni, &l, &c, 1, 10), 4);
    assert_int_equal(mpqc_line_positions(&mpqc_isa_avx512_vnni, &l, &c, 1, 3), 1);
    assert_int_equal(mpqc_line_positions(&mpqc_isa_avx512_vnni, &l, &c, 2, 6), 1);
    assert_int_equal(mpqc_line_positions(&mpqc_isa_avx512_vnni, &l, &c, 2, 8), 4);
    assert_int_equal(mpqc_line_positions(&mpqc_isa_dotprod, &l, &c, 1, 8), 1);
    l.res_col = 24; /* a residual that has gaps */
    assert_int_equal(mpqc_line_positions(&mpqc_isa_avx512_vnni, &l, &c, 1, 8), 1);
    l.res_col = 0;
    l.out_col = 32;
    assert_int_equal(mpqc_line_positions(&mpqc_isa_avx512_vnni, &l, &c, 1, 8), 1);
    c = (struct mpqc_columns){.n = 2, .lanes = {16, 16}, .valid = 32};
    assert_int_equal(mpqc_line_positions(&mpqc_isa_avx512_vnni, &l, &c, 1, 8), 2);
    c.valid = 30; /* padding between positions */
    assert_int_equal(mpqc_line_positions(&mpqc_isa_avx512_vnni, &l, &c, 1, 8), 1);
}

/* A tile that does not fit the layer is not taken. */
static void foreign_numbers_are_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct mpqc_tile usual, t;
    const struct mpqc_linear l = layer(1, 3, 1, 16, 10, 1);
    const uint32_t numbers[] = {1 | 4 << 8 | 1 << 16, 9 | 1 << 8 | 1 << 16, 1 | 1 << 8,
                                1 | 1 << 8 | 200 << 16, 4u << 24, UINT32_MAX};
    with_target(&f, "x86-64:avx2");
    mpqc_tile_choose(&f.e, &l, 77, &usual);
    for (size_t i = 0; i < MPQC_LEN(numbers); i++) {
        const struct mpqc_tile_request rq = {.wish = same_tile, .user = &numbers[i]};
        f.e.tiles = &rq;
        mpqc_tile_choose(&f.e, &l, 77, &t);
        assert_int_equal(t.mh, usual.mh);
        assert_int_equal(t.mw, usual.mw);
        assert_int_equal(t.panels.full.n, usual.panels.full.n);
        assert_int_equal(t.panels.n_rest, usual.panels.n_rest);
    }
    release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_layer_gets_a_tile),
                                       cmocka_unit_test(far_weights_are_those_of_large_networks),
                                       cmocka_unit_test(forms_suit_the_layer),
                                       cmocka_unit_test(channels_split_into_vectors),
                                       cmocka_unit_test(numbers_are_tiles),
                                       cmocka_unit_test(lanes_are_channels),
                                       cmocka_unit_test(narrow_positions_make_lines),
                                       cmocka_unit_test(foreign_numbers_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
