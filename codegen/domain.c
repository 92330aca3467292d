/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * x86 has each vector move twice, for integers and for floats (vmovdqu, vmovups); they
 * move the same bits, but some CPUs take a cycle more when a value changes between the
 * two domains, and whoever looks for float code in an integer library finds the wrong
 * one.  LLVM picks the domain by what a value meets, and float where it meets nothing
 * that has one: copies, spills, accumulators of vpdpbusd.  Here such moves in functions
 * without float arithmetic get their integer names.
 *
 * With VEX and EVEX encodings (AVX and later) both names have equal lengths and differ
 * in the opcode byte and the two bits `pp`: "Intel 64 and IA-32 Architectures Software
 * Developer's Manual", volume 2, chapter 2.3 and 2.7.  SSE's differ in length and stay.
 */
#include "codegen/module.h"
#include "codegen/target.h"

#include <elf.h>
#include <llvm-c/Disassembler.h>
#include <string.h>

enum { PP_NONE = 0, PP_66 = 1, PP_F3 = 2, PP_F2 = 3 };

/* Opcodes of map 0F; `memory`: only with a memory operand. */
static const struct {
    uint8_t pp, opcode, new_pp, new_opcode;
    bool memory;
} twins[] = {
    {PP_NONE, 0x10, PP_F3, 0x6f, false}, /* vmovups load -> vmovdqu */
    {PP_NONE, 0x11, PP_F3, 0x7f, false}, /* vmovups store */
    {PP_NONE, 0x28, PP_66, 0x6f, false}, /* vmovaps load -> vmovdqa */
    {PP_NONE, 0x29, PP_66, 0x7f, false}, /* vmovaps store */
    {PP_66, 0x10, PP_F3, 0x6f, false},   /* vmovupd */
    {PP_66, 0x11, PP_F3, 0x7f, false},
    {PP_66, 0x28, PP_66, 0x6f, false}, /* vmovapd */
    {PP_66, 0x29, PP_66, 0x7f, false},
    {PP_NONE, 0x54, PP_66, 0xdb, false}, /* vandps -> vpand */
    {PP_NONE, 0x55, PP_66, 0xdf, false}, /* vandnps -> vpandn */
    {PP_NONE, 0x56, PP_66, 0xeb, false}, /* vorps -> vpor */
    {PP_NONE, 0x57, PP_66, 0xef, false}, /* vxorps -> vpxor */
    {PP_F3, 0x10, PP_66, 0x6e, true},    /* vmovss load -> vmovd */
    {PP_F3, 0x11, PP_66, 0x7e, true},    /* vmovss store */
    {PP_F2, 0x10, PP_F3, 0x7e, true},    /* vmovsd load -> vmovq */
    {PP_F2, 0x11, PP_66, 0xd6, true},    /* vmovsd store */
};

/* Opcode maps, as the prefixes number them. */
enum { MAP_0F = 1, MAP_0F38 = 2 };

/* Of one instruction: where its pp bits and its opcode are, and the opcode's map; -1 for
 * another encoding. */
static int find_opcode(const uint8_t *p, int *pp_at, int *map)
{
    *pp_at = p[0] == 0xc5 ? 1 : 2;
    *map = p[0] == 0xc5 ? MAP_0F : p[0] == 0xc4 ? p[1] & 0x1f : p[1] & 0x07;
    return p[0] == 0xc5 ? 2 : p[0] == 0xc4 ? 3 : p[0] == 0x62 ? 4 : -1;
}

static void rename_move(uint8_t *p, size_t n)
{
    int pp_at = 0, map = 0, at = n >= 4 ? find_opcode(p, &pp_at, &map) : -1;
    if (at < 0 || (size_t)at + 1 >= n) return;
    if (map == MAP_0F38 && (p[pp_at] & 3) == PP_66 && (p[at] == 0x18 || p[at] == 0x19))
        p[at] = (uint8_t)(p[at] + 0x40); /* vbroadcastss, -sd -> vpbroadcastd, -q */
    if (map != MAP_0F) return;
    bool memory = p[at + 1] >> 6 != 3, evex = p[0] == 0x62;
    for (size_t i = 0; i < MPQC_LEN(twins); i++) {
        if (twins[i].opcode != p[at] || twins[i].pp != (p[pp_at] & 3)) continue;
        if (twins[i].memory && (!memory || evex)) continue;
        p[at] = twins[i].new_opcode;
        p[pp_at] = (uint8_t)((p[pp_at] & ~3) | twins[i].new_pp);
        return;
    }
}

/* Does the mnemonic compute with floats?  Conversions, and what ends in ps, pd, ss or
 * sd, but for moves and logic, and for integer products: vpdpbusd, tdpbusd, their kin. */
static bool computes(const char *text)
{
    static const char *const harmless[] = {"vmovu", "vmova", "vmovs", "vbroadcasts", "vand", "vor",
                                           "vxor", "vp", "tdp"};
    text += strspn(text, "\t ");
    size_t n = strcspn(text, "\t ");
    if (strncmp(text, "vcvt", 4) == 0) return true;
    bool suffix = n > 3 && (text[n - 2] == 'p' || text[n - 2] == 's') &&
                  (text[n - 1] == 's' || text[n - 1] == 'd');
    if (!suffix) return false;
    for (size_t i = 0; i < MPQC_LEN(harmless); i++)
        if (strncmp(text, harmless[i], strlen(harmless[i])) == 0) return false;
    return true;
}

/* Two walks over a function: the first only looks. */
static void fix_function(LLVMDisasmContextRef d, uint8_t *code, size_t n)
{
    char text[128];
    for (int pass = 0; pass < 2; pass++) {
        for (size_t at = 0; at < n;) {
            size_t length = LLVMDisasmInstruction(d, code + at, n - at, at, text, sizeof text);
            if (length == 0 || (pass == 0 && computes(text))) return;
            if (pass == 1) rename_move(code + at, length);
            at += length;
        }
    }
}

static void fix_functions(LLVMDisasmContextRef d, uint8_t *object, const Elf64_Shdr *s,
                          const Elf64_Shdr *table)
{
    const Elf64_Sym *y = (const void *)(object + table->sh_offset);
    for (size_t i = 1; i < table->sh_size / sizeof *y; i++) {
        if (ELF64_ST_TYPE(y[i].st_info) != STT_FUNC || y[i].st_shndx >= SHN_LORESERVE) continue;
        const Elf64_Shdr *in = &s[y[i].st_shndx];
        MPQC_ASSERT(y[i].st_value + y[i].st_size <= in->sh_size);
        fix_function(d, object + in->sh_offset + y[i].st_value, y[i].st_size);
    }
}

void mpqc_object_integer_moves(const struct mpqc_target *t, void *object)
{
    const struct mpqc_target_row *row = mpqc_target_row(t);
    if (!row || row->arch != MPQC_ARCH_X86_64 || row->vector_bytes < 32) return;
    LLVMInitializeX86Disassembler();
    LLVMDisasmContextRef d =
        LLVMCreateDisasmCPUFeatures(row->triple, row->cpu, row->features, NULL, 0, NULL, NULL);
    if (!d) return;
    const Elf64_Ehdr *h = object;
    const Elf64_Shdr *s = (const void *)((const char *)object + h->e_shoff);
    for (uint16_t i = 0; i < h->e_shnum; i++)
        if (s[i].sh_type == SHT_SYMTAB) fix_functions(d, object, s, &s[i]);
    LLVMDisasmDispose(d);
}
