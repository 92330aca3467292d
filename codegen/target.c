/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Names of targets -> records; detection of the host.
 */
#include "codegen/target.h"

#include "codegen/isa.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define TRIPLE_X86_64 "x86_64-unknown-linux-gnu"
#define TRIPLE_AARCH64 "aarch64-unknown-linux-gnu"
#define TEXT_X86_64 "x86-64"
#define TEXT_AARCH64 "aarch64"
#define N(name) (UINT64_C(1) << MPQC_X86_##name)
#define AARCH64_DOTPROD MPQC_AARCH64_DOTPROD
#define AARCH64_I8MM MPQC_AARCH64_I8MM

const struct mpqc_x86_feature_info mpqc_x86_features[MPQC_X86_COUNT] = {
#define X86_FEATURE(name, leaf, subleaf, reg, bit)                                                \
    [MPQC_X86_##name] = {leaf, subleaf, reg, bit},
#include "codegen/features.def"
#undef X86_FEATURE
};
_Static_assert(MPQC_X86_COUNT <= 64, "needs is a 64-bit set");

static const struct mpqc_target_row rows[] = {
#define TARGET(arch, variant, cpu, tune, features, isa, vector, l1, l2, needs, xcr0, doc)         \
    {MPQC_ARCH_##arch, TEXT_##arch, variant, TEXT_##arch ":" variant, doc, TRIPLE_##arch,         \
     cpu, tune, features, &isa, vector, l1, l2, needs, xcr0},
#include "codegen/targets.def"
#undef TARGET
};

static const struct {
    const char *cpu;
    enum mpqc_arch arch;
    const char *variant;
} cpus[] = {
#define TARGET_CPU(name, arch, variant) {name, MPQC_ARCH_##arch, variant},
#include "codegen/targets.def"
#undef TARGET_CPU
};

const char *mpqc_target_name(unsigned i)
{
    return i < MPQC_LEN(rows) ? rows[i].name : NULL;
}

const char *mpqc_target_doc(unsigned i)
{
    return i < MPQC_LEN(rows) ? rows[i].doc : NULL;
}

const struct mpqc_target_row *mpqc_target_row(const struct mpqc_target *t)
{
    for (size_t i = 0; i < MPQC_LEN(rows); i++)
        if (strcmp(rows[i].name, t->name) == 0) return &rows[i];
    return NULL;
}

/* ---- the host ------------------------------------------------------------------ */

#if defined(__x86_64__)
static const enum mpqc_arch host_arch = MPQC_ARCH_X86_64;

static bool host_has(enum mpqc_x86_feature f)
{
    const struct mpqc_x86_feature_info *i = &mpqc_x86_features[f];
    unsigned r[4];
    if (!__get_cpuid_count(i->leaf, i->subleaf, &r[0], &r[1], &r[2], &r[3])) return false;
    return r[i->reg] >> i->bit & 1;
}

static uint64_t host_xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* Linux keeps the tiles' 8 KiB of state only for processes that have asked for it. */
static bool host_gives_tiles(void)
{
    return syscall(SYS_arch_prctl, MPQC_ARCH_REQ_XCOMP_PERM, MPQC_XFEATURE_TILEDATA) == 0;
}

bool mpqc_target_on_host(const struct mpqc_target_row *row)
{
    if (row->arch != host_arch) return false;
    for (unsigned f = 0; f < MPQC_X86_COUNT; f++)
        if ((row->needs >> f & 1) && !host_has(f)) return false;
    if (row->xcr0 != 0 && (host_xcr0() & row->xcr0) != row->xcr0) return false;
    return !(row->needs & N(AMX_TILE)) || host_gives_tiles();
}
#elif defined(__aarch64__)
static const enum mpqc_arch host_arch = MPQC_ARCH_AARCH64;

bool mpqc_target_on_host(const struct mpqc_target_row *row)
{
    const unsigned long hwcap_asimddp = 1ul << 20, hwcap2_i8mm = 1ul << 13; /* Linux: hwcap.h */
    if (row->arch != host_arch) return false;
    if ((row->needs & AARCH64_DOTPROD) && !(getauxval(AT_HWCAP) & hwcap_asimddp)) return false;
    return !(row->needs & AARCH64_I8MM) || (getauxval(AT_HWCAP2) & hwcap2_i8mm);
}
#else
#error "mpqc runs on x86-64 and AArch64"
#endif

/* ---- names -> rows ---------------------------------------------------------------- */

static const struct mpqc_target_row *host_best(void)
{
    const struct mpqc_target_row *best = NULL;
    for (size_t i = 0; i < MPQC_LEN(rows); i++)
        if (mpqc_target_on_host(&rows[i])) best = &rows[i];
    return best;
}

static const struct mpqc_target_row *baseline(enum mpqc_arch arch)
{
    for (size_t i = 0; i < MPQC_LEN(rows); i++)
        if (rows[i].arch == arch) return &rows[i];
    return NULL;
}

static const struct mpqc_target_row *variant_of(enum mpqc_arch arch, const char *variant)
{
    for (size_t i = 0; i < MPQC_LEN(rows); i++)
        if (rows[i].arch == arch && strcmp(rows[i].variant, variant) == 0) return &rows[i];
    return NULL;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Levenshtein's distance, for "did you mean". */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[64];
    size_t n = strlen(b);
    if (n >= MPQC_LEN(row)) return 64;
    for (size_t j = 0; j <= n; j++) row[j] = (unsigned)j;
    for (size_t i = 0; a[i]; i++) {
        unsigned corner = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < n; j++) {
            unsigned replaced = corner + (a[i] != b[j]);
            corner = row[j + 1];
            row[j + 1] = least(replaced, least(row[j], corner) + 1);
        }
    }
    return row[n];
}

/* Keeps the nearest name that is not too far off. */
static void nearest(const char *wanted, const char *name, const char **best, unsigned *score)
{
    unsigned d = distance(wanted, name);
    if (d < *score) {
        *best = name;
        *score = d;
    }
}

static mpqc_status unknown_target(struct mpqc_cx *cx, const char *target)
{
    const char *best = NULL;
    unsigned score = (unsigned)strlen(target) / 2 + 1;
    struct mpqc_buf list;
    mpqc_buf_init(&list);
    mpqc_buf_puts(&list, "native, " TEXT_X86_64 ", " TEXT_AARCH64);
    nearest(target, "native", &best, &score);
    nearest(target, TEXT_X86_64, &best, &score);
    nearest(target, TEXT_AARCH64, &best, &score);
    for (size_t i = 0; i < MPQC_LEN(rows); i++) {
        mpqc_buf_printf(&list, ", %s", rows[i].name);
        nearest(target, rows[i].name, &best, &score);
    }
    mpqc_status s = MPQC_FAIL(cx, TARGET, MPQC_NOWHERE,
                              "unknown target '%s'%s%s%s; -target= takes one of: %s", target,
                              best ? " (did you mean '" : "", best ? best : "", best ? "'?)" : "",
                              list.data ? list.data : "");
    mpqc_buf_release(&list);
    return s;
}

static mpqc_status unknown_cpu(struct mpqc_cx *cx, enum mpqc_arch arch, const char *mcpu)
{
    const char *best = NULL, *text = baseline(arch)->arch_text;
    unsigned score = (unsigned)strlen(mcpu) / 2 + 1;
    struct mpqc_buf list;
    mpqc_buf_init(&list);
    for (size_t i = 0; i < MPQC_LEN(rows); i++) {
        if (rows[i].arch != arch) continue;
        mpqc_buf_printf(&list, "%s%s", list.len ? ", " : "", rows[i].variant);
        nearest(mcpu, rows[i].variant, &best, &score);
    }
    for (size_t i = 0; i < MPQC_LEN(cpus); i++)
        if (cpus[i].arch == arch) nearest(mcpu, cpus[i].cpu, &best, &score);
    mpqc_status s = MPQC_FAIL(
        cx, TARGET, MPQC_NOWHERE,
        "unknown CPU '%s' for %s%s%s%s; -mcpu= takes one of: %s, native, or a CPU's LLVM name", mcpu,
        text, best ? " (did you mean '" : "", best ? best : "", best ? "'?)" : "",
        list.data ? list.data : "");
    mpqc_buf_release(&list);
    return s;
}

double mpqc_target_rate(const struct mpqc_target *t)
{
    return 4.0 * t->isa->lanes * 10 / t->isa->dot_cost;
}

double mpqc_target_bit_rate(const struct mpqc_target *t)
{
    const struct mpqc_counter *c = t->isa->counter;
    return c ? 32.0 * t->isa->lanes * 10 / c->pair_cost : 0;
}

/* -mcpu= within an architecture.  A CPU's name picks the row that suits it; the code uses
 * that row's features and no others, so that supported() checks exactly those. */
static mpqc_status find_cpu(struct mpqc_cx *cx, enum mpqc_arch arch, const char *mcpu,
                            const struct mpqc_target_row **out)
{
    if (strcmp(mcpu, "native") == 0) {
        *out = host_best();
        if (*out && (*out)->arch == arch) return MPQC_OK;
        return MPQC_FAIL(cx, TARGET, MPQC_NOWHERE,
                         "-mcpu=native means this machine, which is not %s; name the CPU instead",
                         baseline(arch)->arch_text);
    }
    *out = variant_of(arch, mcpu);
    for (size_t i = 0; !*out && i < MPQC_LEN(cpus); i++)
        if (cpus[i].arch == arch && strcmp(cpus[i].cpu, mcpu) == 0)
            *out = variant_of(arch, cpus[i].variant);
    return *out ? MPQC_OK : unknown_cpu(cx, arch, mcpu);
}

static mpqc_status find_row(struct mpqc_cx *cx, const char *target, const char *mcpu,
                            const struct mpqc_target_row **out)
{
    if (strcmp(target, "native") == 0) {
        const struct mpqc_target_row *host = host_best();
        if (!host)
            return MPQC_FAIL(cx, TARGET, MPQC_NOWHERE,
                             "this machine lacks SSSE3, so -target=native has no code for it");
        *out = host;
        return mcpu ? find_cpu(cx, host->arch, mcpu, out) : MPQC_OK;
    }
    for (size_t i = 0; i < MPQC_LEN(rows); i++) {
        if (strcmp(rows[i].name, target) == 0) {
            *out = &rows[i];
            if (!mcpu) return MPQC_OK;
            const struct mpqc_target_row *named;
            MPQC_TRY(find_cpu(cx, rows[i].arch, mcpu, &named));
            if (named == &rows[i]) return MPQC_OK;
            return MPQC_FAIL(cx, TARGET, MPQC_NOWHERE,
                             "-target=%s and -mcpu=%s contradict each other; leave one out", target,
                             mcpu);
        }
        if (strcmp(rows[i].arch_text, target) == 0) {
            *out = baseline(rows[i].arch);
            return mcpu ? find_cpu(cx, rows[i].arch, mcpu, out) : MPQC_OK;
        }
    }
    /* what uname and LLVM call x86-64 */
    if (strcmp(target, "x86_64") == 0) return find_row(cx, TEXT_X86_64, mcpu, out);
    if (strcmp(target, "arm64") == 0) return find_row(cx, TEXT_AARCH64, mcpu, out);
    return unknown_target(cx, target);
}

mpqc_status mpqc_target_find(struct mpqc_cx *cx, const char *target, const char *mcpu,
                             struct mpqc_target *out)
{
    const struct mpqc_target_row *r = NULL;
    MPQC_TRY(find_row(cx, target, mcpu, &r));
    *out = (struct mpqc_target){
        .name = r->name,
        .arch = r->arch,
        .triple = r->triple,
        .cpu = r->cpu,
        .features = r->features,
        .isa = r->isa,
        .vector_bytes = r->vector_bytes,
        .l1_bytes = r->l1_bytes,
        .l2_bytes = r->l2_bytes,
    };
    return MPQC_OK;
}
