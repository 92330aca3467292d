/* SPDX-License-Identifier: GPL-3.0-or-later
 * AVX2: the forms of isa_generic.c on 32-byte vectors.
 */
#include "codegen/emit.h"

const struct mpqc_isa mpqc_isa_avx2 = {
    .name = "avx2",
    .lanes = 8,
    .registers = 16,
    .x_offset = 128,
    .acc_per_column = 1,
    .x_values = 2,
    .w_values = 1,
    .dot_cost = 13,
    .x_cost = 9,
    .w_cost = 4,
    .prepare_x = mpqc_isa_x86_prepare_x,
    .prepare_w = mpqc_isa_x86_prepare_w,
    .dot = mpqc_isa_x86_dot,
    .whole_others = 8,
    .half_others = 2,
    .finish = mpqc_isa_finish_one,
    .mulhrs = mpqc_isa_x86_mulhrs,
    .pack16 = mpqc_isa_x86_pack16,
    .pack8 = mpqc_isa_x86_pack8,
    .lookup = mpqc_isa_x86_lookup,
};
