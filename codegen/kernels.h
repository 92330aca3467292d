/* SPDX-License-Identifier: GPL-3.0-or-later
 * Prototypes of all kernel emitters, from kernels.def.
 */
#ifndef MPQC_CODEGEN_KERNELS_H
#define MPQC_CODEGEN_KERNELS_H

#include "codegen/emit.h"

#define KERNEL(form, op, fn)                                                                      \
    mpqc_status fn(struct mpqc_emit_cx *, const struct mpqc_kernel *, struct mpqc_kernel_code *);
#include "codegen/kernels.def"
#undef KERNEL

#endif
