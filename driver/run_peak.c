/* SPDX-License-Identifier: MIT
 *
 * The clock, and how many multiply-accumulates a second this core does at most, with the instructions
 * that a target's kernels use: a loop of nothing else, on independent registers.  Where a
 * dot product is several instructions, the loop has the fewest that add up to one.
 *
 * To add a target: a loop and a row of the table.
 */
#include "driver/run.h"

#include <string.h>
#include <time.h>

#define SAMPLES 6
#define SAMPLE_NS 400000u

uint64_t mpqc_run_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t mpqc_run_clock_cost(void)
{
    uint64_t least = UINT64_MAX, last = mpqc_run_now();
    for (int i = 0; i < 2000; i++) {
        uint64_t now = mpqc_run_now();
        if (now - last < least) least = now - last;
        last = now;
    }
    return least;
}

/* Bytes that are no special case for any multiplier. */
static const uint8_t factors[64] __attribute__((aligned(64))) = {
    93, 41, 107, 5,  88, 67, 29, 113, 74, 19, 101, 56, 83, 37, 122, 11, 63, 97, 45, 110, 7, 79,
    34, 118, 52, 25, 90, 13, 71, 104, 48, 86, 31, 126, 17, 65, 99, 39, 81, 22, 109, 58, 3, 95,
    43, 76, 115, 27, 61, 9, 89, 124, 50, 35, 103, 69, 15, 84, 111, 47, 73, 21, 98, 54};

#define TWELVE(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11)

#if defined(__x86_64__)

/* Upper halves of registers are left clean: code for SSE would be slow after them. */
#define LOOP(name, features, load, body, end)                                                     \
    __attribute__((target(features))) static void name(int64_t n)                                 \
    {                                                                                             \
        __asm__ volatile(load "1:\n\t" body "dec %0\n\t"                                          \
                              "jnz 1b\n\t" end                                                    \
                         : "+r"(n)                                                                \
                         : "r"(factors)                                                           \
                         : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",        \
                           "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",    \
                           "xmm14", "xmm15");                                                     \
    }

#define DOT_512(a) "vpdpbusd %%zmm12, %%zmm13, %%zmm" #a "\n\t"
LOOP(dot_512, "avx512f", "vmovdqa64 (%1), %%zmm12\n\tvmovdqa64 (%1), %%zmm13\n\t",
     TWELVE(DOT_512), "vzeroupper")

#define DOT_256(a) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" #a "\n\t"
LOOP(dot_256, "avx2", "vmovdqa (%1), %%ymm12\n\tvmovdqa (%1), %%ymm13\n\t", TWELVE(DOT_256),
     "vzeroupper")

#define PAIRS(r, a)                                                                               \
    "vpmaddubsw %%" r "12, %%" r "13, %%" r "15\n\t"                                              \
    "vpmaddwd %%" r "14, %%" r "15, %%" r "15\n\t"                                                \
    "vpaddd %%" r "15, %%" r #a ", %%" r #a "\n\t"
#define PAIRS_512(a) PAIRS("zmm", a)
LOOP(pairs_512, "avx512f,avx512bw",
     "vmovdqa64 (%1), %%zmm12\n\tvmovdqa64 (%1), %%zmm13\n\tvmovdqa64 (%1), %%zmm14\n\t",
     TWELVE(PAIRS_512), "vzeroupper")
#define PAIRS_256(a) PAIRS("ymm", a)
LOOP(pairs_256, "avx2",
     "vmovdqa (%1), %%ymm12\n\tvmovdqa (%1), %%ymm13\n\tvmovdqa (%1), %%ymm14\n\t",
     TWELVE(PAIRS_256), "vzeroupper")
#define PAIRS_128(a)                                                                              \
    "movdqa %%xmm13, %%xmm15\n\t"                                                                 \
    "pmaddubsw %%xmm12, %%xmm15\n\t"                                                              \
    "pmaddwd %%xmm14, %%xmm15\n\t"                                                                \
    "paddd %%xmm15, %%xmm" #a "\n\t"
LOOP(pairs_128, "ssse3",
     "movdqa (%1), %%xmm12\n\tmovdqa (%1), %%xmm13\n\tmovdqa (%1), %%xmm14\n\t",
     TWELVE(PAIRS_128), "")

/* One plane of bits by another: 512 products. */
#define BITS_512(a)                                                                               \
    "vpandd %%zmm12, %%zmm13, %%zmm14\n\t"                                                        \
    "vpopcntd %%zmm14, %%zmm14\n\t"                                                               \
    "vpaddd %%zmm14, %%zmm" #a ", %%zmm" #a "\n\t"
LOOP(bits_512, "avx512f,avx512vpopcntdq",
     "vmovdqa64 (%1), %%zmm12\n\tvmovdqa64 (%1), %%zmm13\n\t", TWELVE(BITS_512), "vzeroupper")

/* Four tiles of 16 x 16 sums.  The tiles hold whatever zeroing leaves: their time does not
 * depend on it.  supported() has asked Linux for them. */
static void tiles(int64_t n)
{
    uint8_t config[64] __attribute__((aligned(64))) = {1};
    for (int t = 0; t < 6; t++) {
        config[16 + 2 * t] = 64; /* bytes of a row */
        config[48 + t] = 16;     /* rows */
    }
    __asm__ volatile("ldtilecfg (%1)\n\t"
                     "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\t"
                     "tilezero %%tmm3\n\ttileloadd (%2,%3,1), %%tmm4\n\t"
                     "tileloadd (%2,%3,1), %%tmm5\n\t"
                     "1:\n\t"
                     "tdpbusd %%tmm5, %%tmm4, %%tmm0\n\ttdpbusd %%tmm5, %%tmm4, %%tmm1\n\t"
                     "tdpbusd %%tmm5, %%tmm4, %%tmm2\n\ttdpbusd %%tmm5, %%tmm4, %%tmm3\n\t"
                     "dec %0\n\tjnz 1b\n\ttilerelease"
                     : "+r"(n)
                     : "r"(config), "r"(factors), "r"((int64_t)0)
                     : "cc", "memory");
}

#elif defined(__aarch64__)

#define LOOP(name, features, body)                                                                \
    __attribute__((target(features))) static void name(int64_t n)                                 \
    {                                                                                             \
        __asm__ volatile("ldr q12, [%1]\n\tldr q13, [%1]\n\t"                                     \
                         "1:\n\t" body "subs %0, %0, #1\n\tb.ne 1b"                               \
                         : "+r"(n)                                                                \
                         : "r"(factors)                                                           \
                         : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8",  \
                           "v9", "v10", "v11", "v12", "v13", "v14");                              \
    }

#define SDOT(a) "sdot v" #a ".4s, v12.16b, v13.16b\n\t"
LOOP(sdot, "arch=armv8.2-a+dotprod", TWELVE(SDOT))
#define USDOT(a) "usdot v" #a ".4s, v12.16b, v13.16b\n\t"
LOOP(usdot, "arch=armv8.2-a+i8mm", TWELVE(USDOT))
#define PAIRS_NEON(a)                                                                             \
    "smull v14.8h, v12.8b, v13.8b\n\tsmlal2 v14.8h, v12.16b, v13.16b\n\t"                         \
    "sadalp v" #a ".4s, v14.8h\n\t"
LOOP(pairs_neon, "arch=armv8-a", TWELVE(PAIRS_NEON))
/* One plane of bits by another: 128 products. */
#define BITS_NEON(a)                                                                              \
    "and v14.16b, v12.16b, v13.16b\n\tcnt v14.16b, v14.16b\n\t"                                 \
    "add v" #a ".16b, v" #a ".16b, v14.16b\n\t"
LOOP(bits_neon, "arch=armv8-a", TWELVE(BITS_NEON))

#endif

struct peak_row {
    const char *target, *instruction;
    double macs; /* of one turn of the loop */
    void (*loop)(int64_t turns);
};

static const struct peak_row rows[] = {
#if defined(__x86_64__)
    {"x86-64:generic", "pmaddubsw + pmaddwd + paddd, 128 bit", 12 * 16, pairs_128},
    {"x86-64:avx2", "vpmaddubsw + vpmaddwd + vpaddd, 256 bit", 12 * 32, pairs_256},
    {"x86-64:avx-vnni", "vpdpbusd, 256 bit", 12 * 32, dot_256},
    {"x86-64:avx512", "vpmaddubsw + vpmaddwd + vpaddd, 512 bit", 12 * 64, pairs_512},
    {"x86-64:avx512-dot", "vpdpbusd, 512 bit", 12 * 64, dot_512},
    {"x86-64:avx512-vnni", "vpdpbusd, 512 bit", 12 * 64, dot_512},
    {"x86-64:amx", "tdpbusd", 4 * 16384, tiles},
    {MPQC_PEAK_BITS, "vpandd + vpopcntd + vpaddd, 512 bit", 12 * 512, bits_512},
#elif defined(__aarch64__)
    {"aarch64:neon", "smull + smlal2 + sadalp", 12 * 16, pairs_neon},
    {"aarch64:dotprod", "sdot", 12 * 16, sdot},
    {"aarch64:i8mm", "usdot", 12 * 16, usdot},
    {MPQC_PEAK_BITS, "and + cnt + add", 12 * 128, bits_neon},
#endif
    {NULL, NULL, 0, NULL}};

/* Turns that take about SAMPLE_NS. */
static int64_t calibrate(const struct peak_row *row)
{
    for (int64_t n = 256;; n *= 2) {
        uint64_t start = mpqc_run_now();
        row->loop(n);
        if (mpqc_run_now() - start > SAMPLE_NS / 2) return n;
    }
}

struct run_peak mpqc_run_peak(const char *target)
{
    const struct peak_row *row = rows;
    while (row->target && strcmp(row->target, target) != 0) row++;
    if (!row->target) return (struct run_peak){.gmacs = 0};
    int64_t n = calibrate(row);
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < SAMPLES; i++) {
        uint64_t start = mpqc_run_now();
        row->loop(n);
        uint64_t ns = mpqc_run_now() - start;
        if (ns < least) least = ns;
    }
    return (struct run_peak){row->instruction, row->macs * (double)n / (double)least};
}
