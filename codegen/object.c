/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Looks into the ELF object that LLVM has made: the amount of code, and that nothing
 * is needed from outside (LLVM turns some operations into calls, e.g. of memcpy).
 * The bytes are our own, so broken structure is a bug, not an input error.
 */
#include "codegen/module.h"

#include <elf.h>
#include <string.h>

static const Elf64_Shdr *sections(const void *object, size_t n, uint16_t *count)
{
    const Elf64_Ehdr *h = object;
    MPQC_ASSERT(n >= sizeof *h && memcmp(h->e_ident, ELFMAG, SELFMAG) == 0);
    MPQC_ASSERT(h->e_shoff + (size_t)h->e_shnum * sizeof(Elf64_Shdr) <= n);
    *count = h->e_shnum;
    return (const void *)((const char *)object + h->e_shoff);
}

static mpqc_status check_symbols(struct mpqc_cx *cx, const char *object, const Elf64_Shdr *table,
                                 const Elf64_Shdr *strings)
{
    const Elf64_Sym *s = (const void *)(object + table->sh_offset);
    size_t n = table->sh_size / sizeof *s;
    for (size_t i = 1; i < n; i++) {
        if (s[i].st_shndx != SHN_UNDEF || s[i].st_name == 0) continue;
        return MPQC_FAIL(cx, BUG, MPQC_NOWHERE,
                         "the generated code calls '%s', which no library may need",
                         object + strings->sh_offset + s[i].st_name);
    }
    return MPQC_OK;
}

mpqc_status mpqc_object_check(struct mpqc_cx *cx, const void *object, size_t n,
                              uint64_t *code_bytes)
{
    uint16_t count;
    const Elf64_Shdr *s = sections(object, n, &count);
    *code_bytes = 0;
    for (uint16_t i = 0; i < count; i++) {
        if (s[i].sh_flags & SHF_EXECINSTR) *code_bytes += s[i].sh_size;
        if ((s[i].sh_flags & SHF_WRITE) && s[i].sh_type == SHT_NOBITS && s[i].sh_size)
            return MPQC_FAIL(cx, BUG, MPQC_NOWHERE, "the generated code has writable data");
        if (s[i].sh_type == SHT_SYMTAB)
            MPQC_TRY(check_symbols(cx, object, &s[i], &s[s[i].sh_link]));
    }
    return MPQC_OK;
}
