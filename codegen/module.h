/* SPDX-License-Identifier: GPL-3.0-or-later
 * What the files of the module builder share; kernel emitters need none of it.
 */
#ifndef MPQC_CODEGEN_MODULE_H
#define MPQC_CODEGEN_MODULE_H

#include "codegen/emit.h"

/* The layer table's and run()'s view of one kernel. */
struct mpqc_compiled_kernel {
    const char *name; /* of the ONNX node */
    LLVMValueRef wrapper;
    int64_t units;    /* wrapper computes units [0, units) */
    bool parallel;
    LLVMValueRef layer; /* constant struct mpqc_layer */
};

/* kernels.c */
struct mpqc_where mpqc_node_where(const struct mpqc_node *n);
LLVMAttributeRef mpqc_attribute(struct mpqc_emit_cx *, const char *name);
LLVMValueRef mpqc_function(struct mpqc_emit_cx *, const char *name, LLVMTypeRef type); /* internal */
mpqc_status mpqc_function_check(struct mpqc_emit_cx *, LLVMValueRef f) MPQC_MUST_CHECK;

/* constants.c */
LLVMValueRef mpqc_global_string(struct mpqc_emit_cx *, const char *text);
LLVMValueRef mpqc_global_constant(struct mpqc_emit_cx *, const char *name, LLVMValueRef init);

/* wrapper.c, run.c, supported.c, descriptor.c */
bool mpqc_share_small(const struct mpqc_emit_cx *);
uint64_t mpqc_kernel_macs(const struct mpqc_graph *, const struct mpqc_kernel *);
mpqc_status mpqc_emit_wrapper(struct mpqc_emit_cx *, const struct mpqc_kernel *,
                              const struct mpqc_kernel_code *,
                              struct mpqc_compiled_kernel *out) MPQC_MUST_CHECK;
mpqc_status mpqc_emit_run(struct mpqc_emit_cx *, const struct mpqc_compiled_kernel *, uint32_t n,
                          LLVMValueRef *out) MPQC_MUST_CHECK;
mpqc_status mpqc_emit_supported(struct mpqc_emit_cx *, LLVMValueRef *out) MPQC_MUST_CHECK;
LLVMValueRef mpqc_layer_constant(struct mpqc_emit_cx *, const struct mpqc_kernel *);
mpqc_status mpqc_emit_descriptor(struct mpqc_emit_cx *, const struct mpqc_codegen_request *,
                                 const struct mpqc_compiled_kernel *, LLVMValueRef supported,
                                 LLVMValueRef run) MPQC_MUST_CHECK;
uint64_t mpqc_workspace_bytes(const struct mpqc_plan *p); /* at least one alignment unit */
enum mpqc_element mpqc_element_of(enum mpqc_dtype t); /* 0: cannot be at the boundary */

/* header.c */
mpqc_status mpqc_write_header(struct mpqc_cx *, const struct mpqc_codegen_request *,
                              struct mpqc_buf *to) MPQC_MUST_CHECK;
/* "mpqc_model" or "mpqc_model_TAG"; fails when TAG is no C identifier. */
mpqc_status mpqc_model_symbol(struct mpqc_cx *, const char *tag, char *out, size_t cap)
    MPQC_MUST_CHECK;

/* link.c: a finished object -> library.  *written: size. */
mpqc_status mpqc_link_shared(struct mpqc_cx *, const char *path, const void *object, size_t n,
                             uint64_t *written) MPQC_MUST_CHECK;
mpqc_status mpqc_link_archive(struct mpqc_cx *, const char *path, const char *symbol,
                              const void *object, size_t n, uint64_t *written) MPQC_MUST_CHECK;

/* object.c: reads our own ELF object: fails when it needs a symbol from outside. */
mpqc_status mpqc_object_check(struct mpqc_cx *, const void *object, size_t n,
                              uint64_t *code_bytes) MPQC_MUST_CHECK;

/* domain.c: gives vector moves of an x86 object their integer names, in place. */
void mpqc_object_integer_moves(const struct mpqc_target *, void *object);

#endif
