/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Emits supported(): asks the CPU, and the operating system by XCR0, for every
 * feature that the target's row allows LLVM to use.  The function itself is
 * compiled for the plain architecture, so it runs anywhere.
 */
#include "codegen/module.h"
#include "codegen/target.h"

#include <string.h>

/* LLVM's inline assembly wants mutable strings. */
static LLVMValueRef assembly(struct mpqc_emit_cx *e, LLVMTypeRef type, const char *text,
                             const char *constraints, LLVMValueRef *args, unsigned n)
{
    char *t = mpqc_arena_strdup(&e->scratch, text);
    char *c = mpqc_arena_strdup(&e->scratch, constraints);
    if (!t || !c) return NULL;
    LLVMValueRef f = LLVMGetInlineAsm(type, t, strlen(t), c, strlen(c), 1, 0,
                                      LLVMInlineAsmDialectATT, 0);
    return LLVMBuildCall2(e->b, type, f, args, n, "");
}

/* { eax, ebx, ecx, edx } of a leaf. */
static LLVMValueRef cpuid(struct mpqc_emit_cx *e, uint32_t leaf, uint32_t subleaf)
{
    LLVMTypeRef r[] = {e->i32, e->i32, e->i32, e->i32}, in[] = {e->i32, e->i32};
    LLVMTypeRef type =
        LLVMFunctionType(LLVMStructTypeInContext(e->llvm, r, 4, 0), in, 2, 0);
    LLVMValueRef args[] = {mpqc_b_i32(e, (int32_t)leaf), mpqc_b_i32(e, (int32_t)subleaf)};
    return assembly(e, type, "cpuid",
                    "={ax},={bx},={cx},={dx},0,2,~{dirflag},~{fpsr},~{flags}", args, 2);
}

/* ok &= (value & mask) == mask */
static void demand(struct mpqc_emit_cx *e, LLVMValueRef ok, LLVMValueRef value, uint32_t mask)
{
    LLVMValueRef m = mpqc_b_i32(e, (int32_t)mask);
    LLVMValueRef yes = LLVMBuildICmp(e->b, LLVMIntEQ, LLVMBuildAnd(e->b, value, m, ""), m, "");
    LLVMValueRef both = LLVMBuildAnd(e->b, mpqc_b_load(e, e->i32, ok, 4),
                                     LLVMBuildZExt(e->b, yes, e->i32, ""), "");
    mpqc_b_store(e, both, ok, 4);
}

/* All demands on one leaf; leaf 0 or 0x80000000 tells how far leaves go. */
static void demand_leaf(struct mpqc_emit_cx *e, LLVMValueRef ok, uint32_t leaf,
                        uint32_t subleaf, uint64_t needs)
{
    uint32_t mask[4] = {0, 0, 0, 0};
    for (unsigned f = 0; f < MPQC_X86_COUNT; f++)
        if ((needs >> f & 1) && mpqc_x86_features[f].leaf == leaf &&
            mpqc_x86_features[f].subleaf == subleaf)
            mask[mpqc_x86_features[f].reg] |= 1u << mpqc_x86_features[f].bit;
    if (!(mask[0] | mask[1] | mask[2] | mask[3])) return;

    struct mpqc_if has;
    LLVMValueRef max = LLVMBuildExtractValue(e->b, cpuid(e, leaf & 0x80000000u, 0), 0, "");
    LLVMValueRef there =
        LLVMBuildICmp(e->b, LLVMIntUGE, max, mpqc_b_i32(e, (int32_t)leaf), "");
    demand(e, ok, LLVMBuildZExt(e->b, there, e->i32, ""), 1);
    mpqc_b_if_begin(e, &has, there);
    LLVMValueRef r = cpuid(e, leaf, subleaf);
    for (unsigned i = 0; i < 4; i++)
        if (mask[i]) demand(e, ok, LLVMBuildExtractValue(e->b, r, i, ""), mask[i]);
    mpqc_b_if_end(e, &has);
}

static LLVMValueRef is_set(struct mpqc_emit_cx *e, LLVMValueRef ok)
{
    return LLVMBuildICmp(e->b, LLVMIntNE, mpqc_b_load(e, e->i32, ok, 4), mpqc_b_i32(e, 0), "");
}

/* Without this request the first tile instruction of a process is a fatal signal.  It
 * holds for all its threads; asking again does no harm.  Nothing may be called, so the
 * system call is made by hand; a kernel that does not know it says no. */
static void ask_for_tiles(struct mpqc_emit_cx *e, LLVMValueRef ok)
{
    struct mpqc_if so_far;
    LLVMTypeRef in[] = {e->i64, e->i64, e->i64};
    LLVMTypeRef type = LLVMFunctionType(e->i64, in, 3, 0);
    LLVMValueRef args[] = {mpqc_b_i64(e, MPQC_SYS_ARCH_PRCTL),
                           mpqc_b_i64(e, MPQC_ARCH_REQ_XCOMP_PERM),
                           mpqc_b_i64(e, MPQC_XFEATURE_TILEDATA)};
    mpqc_b_if_begin(e, &so_far, is_set(e, ok));
    LLVMValueRef r = assembly(e, type, "syscall",
                              "={ax},0,{di},{si},~{rcx},~{r11},~{memory},~{dirflag},~{fpsr},"
                              "~{flags}",
                              args, 3);
    LLVMValueRef granted = LLVMBuildICmp(e->b, LLVMIntEQ, r, mpqc_b_i64(e, 0), "");
    demand(e, ok, LLVMBuildZExt(e->b, granted, e->i32, ""), 1);
    mpqc_b_if_end(e, &so_far);
}

/* xgetbv may be executed only where OSXSAVE is set, which `needs` then contains. */
static void demand_state(struct mpqc_emit_cx *e, LLVMValueRef ok, uint64_t xcr0)
{
    if (xcr0 == 0) return;
    struct mpqc_if so_far;
    LLVMTypeRef r[] = {e->i32, e->i32}, in[] = {e->i32};
    LLVMTypeRef type =
        LLVMFunctionType(LLVMStructTypeInContext(e->llvm, r, 2, 0), in, 1, 0);
    LLVMValueRef zero = mpqc_b_i32(e, 0);
    mpqc_b_if_begin(e, &so_far, is_set(e, ok));
    LLVMValueRef state = assembly(e, type, ".byte 0x0f, 0x01, 0xd0", /* xgetbv */
                                  "={ax},={dx},{cx},~{dirflag},~{fpsr},~{flags}", &zero, 1);
    demand(e, ok, LLVMBuildExtractValue(e->b, state, 0, ""), (uint32_t)xcr0);
    mpqc_b_if_end(e, &so_far);
}

static void ask_x86(struct mpqc_emit_cx *e, LLVMValueRef ok, const struct mpqc_target_row *row)
{
    demand_leaf(e, ok, 1, 0, row->needs);
    demand_leaf(e, ok, 7, 0, row->needs);
    demand_leaf(e, ok, 7, 1, row->needs);
    demand_leaf(e, ok, 0x80000001u, 0, row->needs);
    demand_state(e, ok, row->xcr0);
    if (row->needs >> MPQC_X86_AMX_TILE & 1) ask_for_tiles(e, ok);
}

/* Bit `bit` of an ID register, the lowest of a field that is 0 where the CPU lacks it. */
static void demand_id(struct mpqc_emit_cx *e, LLVMValueRef ok, const char *read, unsigned bit)
{
    LLVMTypeRef type = LLVMFunctionType(e->i64, NULL, 0, 0);
    LLVMValueRef id = assembly(e, type, read, "=r", NULL, 0);
    id = LLVMBuildLShr(e->b, id, mpqc_b_i64(e, bit), "");
    demand(e, ok, LLVMBuildTrunc(e->b, id, e->i32, ""), 1);
}

/* Linux lets user space read ID registers since 4.11 (it emulates the access). */
static void ask_aarch64(struct mpqc_emit_cx *e, LLVMValueRef ok, const struct mpqc_target_row *row)
{
    if (row->needs & MPQC_AARCH64_DOTPROD) demand_id(e, ok, "mrs $0, ID_AA64ISAR0_EL1", 44);
    if (row->needs & MPQC_AARCH64_I8MM) demand_id(e, ok, "mrs $0, ID_AA64ISAR1_EL1", 52);
}

static void plain_features(struct mpqc_emit_cx *e, LLVMValueRef f)
{
    const char *cpu = e->target->arch == MPQC_ARCH_X86_64 ? "x86-64" : "generic";
    LLVMAddTargetDependentFunctionAttr(f, "target-cpu", cpu);
    LLVMAddTargetDependentFunctionAttr(f, "target-features", "");
    LLVMAddTargetDependentFunctionAttr(f, "min-legal-vector-width", "0");
}

mpqc_status mpqc_emit_supported(struct mpqc_emit_cx *e, LLVMValueRef *out)
{
    const struct mpqc_target_row *row = mpqc_target_row(e->target);
    if (!row) return MPQC_FAIL(e->cx, BUG, MPQC_NOWHERE, "target '%s' has no row", e->target->name);
    LLVMValueRef f = mpqc_function(e, "supported", LLVMFunctionType(e->i32, NULL, 0, 0));
    plain_features(e, f);
    e->function = f;
    e->entry = LLVMAppendBasicBlockInContext(e->llvm, f, "entry");
    LLVMPositionBuilderAtEnd(e->b, e->entry);
    LLVMValueRef ok = mpqc_b_var(e, e->i32, "ok");
    mpqc_b_store(e, mpqc_b_i32(e, 1), ok, 4);
    if (row->arch == MPQC_ARCH_X86_64) ask_x86(e, ok, row);
    else ask_aarch64(e, ok, row);
    LLVMBuildRet(e->b, mpqc_b_load(e, e->i32, ok, 4));
    *out = f;
    return mpqc_function_check(e, f);
}
