/* SPDX-License-Identifier: MIT
 *
 * The one door to zlib.
 */
#ifndef MPQC_DRIVER_DATA_INFLATE_H
#define MPQC_DRIVER_DATA_INFLATE_H

#include "driver/data.h"

enum mpqc_inflate_format { MPQC_INFLATE_RAW, MPQC_INFLATE_GZIP };

/* Fills exactly `room` bytes of `out`; 0, or -1 with a sentence that begins with
 * `label` when the stream is damaged, ends too early, or this build has no zlib.
 * What follows the first `room` bytes is not looked at. */
int mpqc_inflate(const char *label, enum mpqc_inflate_format format, const uint8_t *in,
                 size_t size, uint8_t *out, size_t room, struct mpqc_data_error *err);

#endif
