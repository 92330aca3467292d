/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What a row of targets.def demands of a CPU: shared by the detection of the host
 * (target.c) and the generated supported() (supported.c).
 */
#ifndef MPQC_CODEGEN_TARGET_H
#define MPQC_CODEGEN_TARGET_H

#include "codegen/codegen.h"

enum mpqc_x86_feature {
#define X86_FEATURE(name, leaf, subleaf, reg, bit) MPQC_X86_##name,
#include "codegen/features.def"
#undef X86_FEATURE
    MPQC_X86_COUNT
};
struct mpqc_x86_feature_info {
    uint32_t leaf, subleaf;
    unsigned reg, bit;
};
extern const struct mpqc_x86_feature_info mpqc_x86_features[MPQC_X86_COUNT];

/* For AArch64: what Linux reports in HWCAP and HWCAP2, and ID_AA64ISAR0_EL1.DP (47:44),
 * ID_AA64ISAR1_EL1.I8MM (55:52). */
#define MPQC_AARCH64_DOTPROD 1u
#define MPQC_AARCH64_I8MM 2u

/* Linux, arch/x86: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA), number 158. */
#define MPQC_SYS_ARCH_PRCTL 158
#define MPQC_ARCH_REQ_XCOMP_PERM 0x1023
#define MPQC_XFEATURE_TILEDATA 18

struct mpqc_target_row {
    enum mpqc_arch arch;
    const char *arch_text, *variant, *name, *doc;
    const char *triple, *cpu, *tune, *features;
    const struct mpqc_isa *isa;
    unsigned vector_bytes, l1_bytes, l2_bytes;
    uint64_t needs;
    uint64_t xcr0;
};
/* The row that a target was made from. */
const struct mpqc_target_row *mpqc_target_row(const struct mpqc_target *t);
/* Does the machine that mpqc runs on meet the row's needs? */
bool mpqc_target_on_host(const struct mpqc_target_row *row);

#endif
