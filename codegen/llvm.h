/* SPDX-License-Identifier: GPL-3.0-or-later
 * The only door to LLVM, and the only check of its version.
 */
#ifndef MPQC_CODEGEN_LLVM_H
#define MPQC_CODEGEN_LLVM_H

#include "ir/base/banned.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/Core.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <llvm/Config/llvm-config.h>

#if LLVM_VERSION_MAJOR != 19
#error "mpqc is written for LLVM 19"
#endif

#endif
