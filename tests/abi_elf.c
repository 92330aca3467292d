/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The file of a compiled model: nothing undefined, nothing needed, nothing writable
 * after relocation, no executable stack, no code that runs at load time, and no
 * exported name but the descriptor's.
 */
#include "tests/abi_checks.h"

#include <elf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct elf {
    unsigned char *bytes;
    size_t size;
    const Elf64_Ehdr *header;
    char *why;
    size_t room;
};

static int fail(struct elf *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct elf *e, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->why, e->room, fmt, args);
    va_end(args);
    return -1;
}

static int load(struct elf *e, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return fail(e, "%s cannot be opened", path);
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    e->size = n > 0 ? (size_t)n : 0;
    e->bytes = malloc(e->size + 1);
    size_t got = e->bytes ? fread(e->bytes, 1, e->size, f) : 0;
    fclose(f);
    if (got != e->size || e->size < sizeof *e->header) return fail(e, "the file is too short");
    e->header = (const void *)e->bytes;
    if (memcmp(e->bytes, ELFMAG, SELFMAG) != 0 || e->header->e_type != ET_DYN)
        return fail(e, "not a shared library");
    return 0;
}

static const Elf64_Phdr *segment(const struct elf *e, unsigned i)
{
    return (const void *)(e->bytes + e->header->e_phoff + i * sizeof(Elf64_Phdr));
}

static const Elf64_Phdr *segment_of_type(const struct elf *e, unsigned type)
{
    for (unsigned i = 0; i < e->header->e_phnum; i++)
        if (segment(e, i)->p_type == type) return segment(e, i);
    return NULL;
}

/* File position of an address; 0 when no segment has it. */
static size_t at_address(const struct elf *e, uint64_t address)
{
    for (unsigned i = 0; i < e->header->e_phnum; i++) {
        const Elf64_Phdr *p = segment(e, i);
        if (p->p_type == PT_LOAD && address >= p->p_vaddr && address < p->p_vaddr + p->p_filesz)
            return (size_t)(address - p->p_vaddr + p->p_offset);
    }
    return 0;
}

static int check_segments(struct elf *e)
{
    const Elf64_Phdr *stack = segment_of_type(e, PT_GNU_STACK);
    const Elf64_Phdr *relro = segment_of_type(e, PT_GNU_RELRO);
    if (!stack) return fail(e, "no PT_GNU_STACK: the stack would be executable");
    if (stack->p_flags & PF_X) return fail(e, "the stack is executable");
    if (segment_of_type(e, PT_TLS)) return fail(e, "there is thread-local data");
    for (unsigned i = 0; i < e->header->e_phnum; i++) {
        const Elf64_Phdr *p = segment(e, i);
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_W)) continue;
        if (p->p_flags & PF_X) return fail(e, "a segment is writable and executable");
        if (!relro || p->p_vaddr < relro->p_vaddr ||
            p->p_vaddr + p->p_memsz > relro->p_vaddr + relro->p_memsz)
            return fail(e, "there is writable data outside RELRO (address 0x%llx, %llu bytes)",
                        (unsigned long long)p->p_vaddr, (unsigned long long)p->p_memsz);
    }
    return 0;
}

struct dynamic {
    size_t symbols, names, hash, gnu_hash;
};

static int check_dynamic(struct elf *e, struct dynamic *d)
{
    const Elf64_Phdr *p = segment_of_type(e, PT_DYNAMIC);
    if (!p) return fail(e, "there is no dynamic section");
    const Elf64_Dyn *dyn = (const void *)(e->bytes + p->p_offset);
    for (; dyn->d_tag != DT_NULL; dyn++) {
        switch (dyn->d_tag) {
        case DT_NEEDED: return fail(e, "it needs another library");
        case DT_TEXTREL: return fail(e, "it relocates its code");
        case DT_INIT:
        case DT_FINI:
        case DT_INIT_ARRAY:
        case DT_FINI_ARRAY: return fail(e, "it runs code when it is loaded or unloaded");
        case DT_SYMTAB: d->symbols = at_address(e, dyn->d_un.d_ptr); break;
        case DT_STRTAB: d->names = at_address(e, dyn->d_un.d_ptr); break;
        case DT_HASH: d->hash = at_address(e, dyn->d_un.d_ptr); break;
        case DT_GNU_HASH: d->gnu_hash = at_address(e, dyn->d_un.d_ptr); break;
        default: break;
        }
    }
    return d->symbols && d->names ? 0 : fail(e, "there is no dynamic symbol table");
}

/* The table's length is not written anywhere but in the hash table: the old kind has
 * it, the GNU kind ends its last chain with an odd hash value. */
static size_t count_symbols(const struct elf *e, const struct dynamic *d)
{
    if (d->hash) return ((const uint32_t *)(const void *)(e->bytes + d->hash))[1];
    if (!d->gnu_hash) return 0;
    const uint32_t *h = (const void *)(e->bytes + d->gnu_hash);
    const uint32_t *buckets = h + 4 + 2 * h[2], *chain = buckets + h[0];
    size_t last = 0;
    for (uint32_t i = 0; i < h[0]; i++)
        if (buckets[i] > last) last = buckets[i];
    if (last < h[1]) return h[1];
    while (!(chain[last - h[1]] & 1)) last++;
    return last + 1;
}

static int check_symbols(struct elf *e, const struct dynamic *d)
{
    const Elf64_Sym *symbols = (const void *)(e->bytes + d->symbols);
    size_t n = count_symbols(e, d), exported = 0;
    for (size_t i = 1; i < n; i++) {
        const char *name = (const char *)e->bytes + d->names + symbols[i].st_name;
        if (ELF64_ST_TYPE(symbols[i].st_info) == STT_SECTION) continue;
        if (symbols[i].st_shndx == SHN_UNDEF) return fail(e, "'%s' is undefined", name);
        if (strncmp(name, "mpqc_model", 10) != 0)
            return fail(e, "'%s' is exported, besides the descriptor", name);
        exported++;
    }
    return exported == 1 ? 0 : fail(e, "%zu symbols are exported, not one", exported);
}

int mpqc_abi_elf(const char *path, char *why, unsigned long room)
{
    struct elf e = {.why = why, .room = room};
    struct dynamic d = {0, 0, 0, 0};
    int rc = load(&e, path);
    if (rc == 0) rc = check_segments(&e);
    if (rc == 0) rc = check_dynamic(&e, &d);
    if (rc == 0) rc = check_symbols(&e, &d);
    free(e.bytes);
    return rc;
}
