/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What there is to know of the assembly of each architecture.
 */
#include "tests/bench/mca/mca.h"

#include <string.h>

/* ---- AArch64 ---- */

#define ARM(name, d, macs, n, m)                                                                  \
    {                                                                                             \
        name, d, macs, name " v#" d ", v30" n ", v31" m, false, false                                    \
    }
static const struct mca_multiply arm_multiplies[] = {
    ARM("usmmla", ".4s", 32, ".16b", ".16b"), ARM("usdot", ".4s", 16, ".16b", ".16b"),
    ARM("usdot", ".2s", 8, ".8b", ".8b"),     ARM("sudot", ".4s", 16, ".16b", ".4b[0]"),
    ARM("sdot", ".4s", 16, ".16b", ".16b"),   ARM("sdot", ".2s", 8, ".8b", ".8b"),
    ARM("smull", ".8h", 8, ".8b", ".8b"),     ARM("smull2", ".8h", 8, ".16b", ".16b"),
    ARM("smlal", ".8h", 8, ".8b", ".8b"),     ARM("smlal2", ".8h", 8, ".16b", ".16b"),
    ARM("smlal", ".4s", 4, ".4h", ".4h"),     ARM("smlal2", ".4s", 4, ".8h", ".8h"),
    ARM("mla", ".8h", 8, ".8h", ".8h"),       ARM("mul", ".8h", 8, ".8h", ".8h"),
    {"cnt", ".16b", 128,
     "and v#.16b, v30.16b, v31.16b;cnt v#.16b, v#.16b;add v#.16b, v#.16b, v30.16b", false, true},
};

static bool arm_loads(const char *s)
{
    return strncmp(s, "ld", 2) == 0;
}

/* The arrangement of the first operand, "sdot v0.4s, ...". */
static bool arm_has_shape(const char *s, const char *shape)
{
    const char *dot = strchr(s, '.'), *comma = strchr(s, ',');
    return dot && comma && dot < comma && strncmp(dot, shape, strlen(shape)) == 0;
}

/* "str q0, ...", "stp d0, d1, ...", "st1 { v0.s }[1], ...". */
static unsigned arm_stores(const char *s)
{
    static const char letters[] = "bhsdq";
    if (strncmp(s, "st", 2) != 0 || strstr(s, "[sp")) return 0;
    bool lane = strncmp(s, "st1", 3) == 0;
    const char *at = lane ? strchr(s, '.') : strpbrk(s, " \t");
    const char *letter = at && at[1] ? strchr(letters, at[1]) : NULL;
    if (!letter) return lane && at ? 16 : 0; /* all lanes; a general register */
    return (strncmp(s, "stp", 3) == 0 ? 2u : 1u) << (letter - letters);
}

static bool arm_narrows(const char *s)
{
    return strncmp(s, "sqxtun", 6) == 0 || strncmp(s, "sqrshrun", 8) == 0;
}

const struct mca_arch mca_aarch64 = {
    .name = "aarch64",
    .triple = "aarch64-linux-gnu",
    .branch = "bct",
    .stack = "[sp",
    .registers = 16,
    .multiplies = arm_multiplies,
    .n_multiplies = MPQC_LEN(arm_multiplies),
    .loads = arm_loads,
    .has_shape = arm_has_shape,
    .stores = arm_stores,
    .narrows = arm_narrows,
};

/* ---- x86-64 ---- */

#define X86(name, d, macs, sums)                                                                  \
    {                                                                                             \
        name, d, macs, name " " d "14, " d "15, " d "#", sums, false                                     \
    }
/* Without a dot product of bytes vpmaddwd adds pairs of sums of pairs: it multiplies too, but
 * nothing new. */
static const struct mca_multiply x86_multiplies[] = {
    X86("vpdpbusd", "%zmm", 64, true),    X86("vpdpbusd", "%ymm", 32, true),
    X86("vpdpbusd", "%xmm", 16, true),    X86("vpmaddubsw", "%zmm", 64, false),
    X86("vpmaddubsw", "%ymm", 32, false), X86("vpmaddubsw", "%xmm", 16, false),
    X86("vpmaddwd", "%zmm", 0, false),    X86("vpmaddwd", "%ymm", 0, false),
    X86("vpmaddwd", "%xmm", 0, false),
    {"vpopcntd", "%zmm", 512,
     "vpandd %zmm14, %zmm15, %zmm#;vpopcntd %zmm#, %zmm#;vpaddd %zmm#, %zmm14, %zmm#", false, true},
    {"vpopcntq", "%zmm", 512,
     "vpandq %zmm14, %zmm15, %zmm#;vpopcntq %zmm#, %zmm#;vpaddq %zmm#, %zmm14, %zmm#", false, true},
};

/* An operand in memory that is not the last one. */
static bool x86_loads(const char *s)
{
    const char *memory = strchr(s, '('), *end = memory ? strchr(memory, ')') : NULL;
    return end && end[1] != '\n' && strncmp(s, "lea", 3) != 0;
}

static bool x86_has_shape(const char *s, const char *shape)
{
    return strstr(s, shape) != NULL;
}

const struct mca_arch mca_x86_64 = {
    .name = "x86-64",
    .triple = "x86_64-linux-gnu",
    .branch = "j",
    .stack = "(%rsp",
    .registers = 14,
    .multiplies = x86_multiplies,
    .n_multiplies = MPQC_LEN(x86_multiplies),
    .loads = x86_loads,
    .has_shape = x86_has_shape,
};
