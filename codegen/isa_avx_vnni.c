/* SPDX-License-Identifier: GPL-3.0-or-later
 * vpdpbusd without VBMI: 32-byte vectors beside AVX2, 64-byte vectors beside the first
 * AVX-512.  Tables are permuted as on AVX2.
 */
#include "codegen/emit.h"

const struct mpqc_isa mpqc_isa_avx_vnni = {
    .name = "avx-vnni",
    .lanes = 8,
    .registers = 16,
    .acc_per_column = 1,
    .x_values = 1,
    .w_values = 1,
    .dot_cost = 8,
    .x_cost = 5,
    .w_cost = 6,
    .prepare_x = mpqc_isa_vnni_prepare_x,
    .prepare_w = mpqc_isa_vnni_prepare_w,
    .dot = mpqc_isa_vnni_dot,
    .finish = mpqc_isa_finish_one,
    .mulhrs = mpqc_isa_x86_mulhrs,
    .pack16 = mpqc_isa_x86_pack16,
    .pack8 = mpqc_isa_x86_pack8,
    .lookup = mpqc_isa_x86_lookup,
};

const struct mpqc_isa mpqc_isa_avx512_dot = {
    .name = "avx512-dot",
    .lanes = 16,
    .registers = 32,
    .acc_per_column = 1,
    .x_values = 1,
    .w_values = 1,
    .dot_cost = 8,
    .x_cost = 5,
    .w_cost = 6,
    .prepare_x = mpqc_isa_vnni_prepare_x,
    .prepare_w = mpqc_isa_vnni_prepare_w,
    .dot = mpqc_isa_vnni_dot,
    .whole_others = 20,
    .half_others = 8,
    .finish = mpqc_isa_finish_one,
    .mulhrs = mpqc_isa_x86_mulhrs,
    .pack16 = mpqc_isa_x86_pack16,
    .pack8 = mpqc_isa_x86_pack8,
    .lookup = mpqc_isa_x86_lookup,
};
