/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Times of a library's layers, from runs of mpqc-run -profile -json: on this machine, under
 * qemu, or by a command of the user's.
 */
#ifndef MPQC_DRIVER_LAYER_TIMES_H
#define MPQC_DRIVER_LAYER_TIMES_H

#include "ir/base/base.h"

struct mpqc_target;

/* The command that the library's path is appended to. how: "local" or NULL,
 * "qemu" or "cmd:COMMAND"; macs: of one run of the network, so that measuring takes about as long
 * for each.  An error's sentence ends with `otherwise`, the flag that does without. */
mpqc_status mpqc_times_command(struct mpqc_cx *cx, const char *how, double macs,
                               const char *otherwise, const char **command) MPQC_MUST_CHECK;

/* Can `how` run code for the target?  Else an error: `flag` measures on the wrong machine. */
mpqc_status mpqc_times_possible(struct mpqc_cx *cx, const char *how, const struct mpqc_target *t,
                                const char *flag, const char *otherwise) MPQC_MUST_CHECK;

/* Runs the command once; ns[layer] becomes the smaller one of itself and what it says. */
mpqc_status mpqc_times_measure(struct mpqc_cx *cx, const char *command, const char *otherwise,
                               const char *library, uint32_t n_layers, double *ns)
    MPQC_MUST_CHECK;

#endif
