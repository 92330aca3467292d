/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * AMX tiles in software, for amx.sh: each function does what the instruction of its name
 * does (Intel Architecture Instruction Set Extensions Programming Reference, chapter 3),
 * and ends the program where the processor would fault.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int emulated_supported(void);
void emulated_ldtilecfg(const void *config);
void emulated_tilerelease(void);
void emulated_tilezero(int8_t t);
void emulated_tileloadd64(int8_t t, const void *p, int64_t stride);
void emulated_tilestored64(int8_t t, void *p, int64_t stride);
void emulated_tdpbusd(int8_t c, int8_t a, int8_t b);

struct tile {
    int rows, row_bytes;
    uint8_t data[16][64];
};
static _Thread_local struct tile tiles[8];
static _Thread_local int configured;

static void demand(int condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "emulated tiles: %s\n", what);
    abort();
}

static struct tile *tile(int8_t t)
{
    demand(configured, "used before ldtilecfg");
    demand(t >= 0 && t < 8 && tiles[t].rows > 0, "a tile that is not configured");
    return &tiles[t];
}

int emulated_supported(void) { return 1; }

void emulated_ldtilecfg(const void *config)
{
    const uint8_t *c = config;
    demand(c[0] == 1 && c[1] == 0, "palette 1 from row 0 is expected");
    memset(tiles, 0, sizeof tiles);
    for (int t = 0; t < 8; t++) {
        tiles[t].row_bytes = c[16 + 2 * t] + 256 * c[17 + 2 * t];
        tiles[t].rows = c[48 + t];
        demand(tiles[t].rows <= 16 && tiles[t].row_bytes <= 64, "a tile that is too large");
        demand((tiles[t].rows == 0) == (tiles[t].row_bytes == 0), "rows without bytes");
    }
    configured = 1;
}

void emulated_tilerelease(void) { configured = 0; }

void emulated_tilezero(int8_t t) { memset(tile(t)->data, 0, sizeof tile(t)->data); }

/* Rows and bytes behind those of the configuration become zero. */
void emulated_tileloadd64(int8_t t, const void *p, int64_t stride)
{
    struct tile *to = tile(t);
    memset(to->data, 0, sizeof to->data);
    for (int r = 0; r < to->rows; r++)
        memcpy(to->data[r], (const char *)p + r * stride, (size_t)to->row_bytes);
}

void emulated_tilestored64(int8_t t, void *p, int64_t stride)
{
    const struct tile *from = tile(t);
    for (int r = 0; r < from->rows; r++)
        memcpy((char *)p + r * stride, from->data[r], (size_t)from->row_bytes);
}

void emulated_tdpbusd(int8_t c, int8_t a, int8_t b)
{
    struct tile *sum = tile(c), *x = tile(a), *w = tile(b);
    demand(sum->rows == x->rows && sum->row_bytes == w->row_bytes, "tdpbusd: M or N differ");
    demand(x->row_bytes == 4 * w->rows, "tdpbusd: K differs");
    for (int m = 0; m < sum->rows; m++)
        for (int n = 0; n < sum->row_bytes / 4; n++) {
            uint32_t s;
            memcpy(&s, &sum->data[m][4 * n], 4);
            for (int k = 0; k < x->row_bytes; k++)
                s += (uint32_t)(x->data[m][k] * (int8_t)w->data[k / 4][4 * n + k % 4]);
            memcpy(&sum->data[m][4 * n], &s, 4);
        }
}
