/* SPDX-License-Identifier: GPL-3.0-or-later
 * What amx_tiles.c (the schedule, packed weights) and gemm_amx.c (the code) share.
 */
#ifndef MPQC_CODEGEN_AMX_H
#define MPQC_CODEGEN_AMX_H

#include "codegen/linear.h"

/* Of a tile: bytes of a row, rows at most, sums of a row. */
enum { MPQC_AMX_BYTES = 64, MPQC_AMX_ROWS = 16, MPQC_AMX_LANES = 16 };

/* Positions of an image as one line: rows of amx_pitch positions, of which the last are
 * computed in vain.  The last row ends where it ends. */
int64_t mpqc_amx_line_of(const struct mpqc_linear *, const struct mpqc_tile *);
/* Chunks of all runs. */
int64_t mpqc_amx_all_steps(const struct mpqc_linear *, const struct mpqc_tile *);
/* Tiles of positions of `height` rows. */
int64_t mpqc_amx_tiles_of(const struct mpqc_linear *, const struct mpqc_tile *, int64_t height);

#endif
