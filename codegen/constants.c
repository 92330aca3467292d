/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Read-only data of the library.
 */
#include "codegen/module.h"

#include <string.h>

/* LLVM uniques constants by content, so equal bytes are equal LLVMValueRefs and a
 * pointer comparison finds them. */
struct mpqc_global {
    LLVMValueRef init, global;
    struct mpqc_global *next;
};

LLVMValueRef mpqc_global_constant(struct mpqc_emit_cx *e, const char *name, LLVMValueRef init)
{
    LLVMValueRef g = LLVMAddGlobal(e->module, LLVMTypeOf(init), name);
    LLVMSetInitializer(g, init);
    LLVMSetGlobalConstant(g, 1);
    LLVMSetLinkage(g, LLVMPrivateLinkage);
    LLVMSetUnnamedAddress(g, LLVMGlobalUnnamedAddr);
    return g;
}

LLVMValueRef mpqc_global_bytes(struct mpqc_emit_cx *e, const char *name, const void *data,
                               size_t bytes, unsigned align)
{
    LLVMValueRef init = LLVMConstStringInContext2(e->llvm, data, bytes, 1);
    for (struct mpqc_global *g = e->globals; g; g = g->next) {
        if (g->init != init) continue;
        if (LLVMGetAlignment(g->global) < align) LLVMSetAlignment(g->global, align);
        return g->global;
    }
    LLVMValueRef global = mpqc_global_constant(e, name, init);
    LLVMSetAlignment(global, align);
    e->weight_bytes += bytes;
    struct mpqc_global *g = MPQC_NEW(&e->scratch, struct mpqc_global);
    if (g) {
        *g = (struct mpqc_global){.init = init, .global = global, .next = e->globals};
        e->globals = g;
    }
    return global;
}

LLVMValueRef mpqc_global_string(struct mpqc_emit_cx *e, const char *text)
{
    uint64_t before = e->weight_bytes;
    LLVMValueRef g = mpqc_global_bytes(e, "s", text, strlen(text) + 1, 1);
    e->weight_bytes = before; /* names are no weights */
    return g;
}
