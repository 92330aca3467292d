/* SPDX-License-Identifier: GPL-3.0-or-later
 * Flags to passes/distill.h; see distill.h.
 */
#include "driver/distill.h"

/* What (u8 / scale - mean[c]) / std[c] can be. */
static uint32_t bounds(const struct mpqc_cli *cli, float *lo, float *hi)
{
    const struct mpqc_preprocess *pre = &cli->pre;
    if (!cli->pre_given) return 0;
    for (uint32_t c = 0; c < pre->channels; c++) {
        lo[c] = (0 - pre->mean[c]) / pre->std[c];
        hi[c] = (255 / pre->scale - pre->mean[c]) / pre->std[c];
    }
    return pre->channels;
}

mpqc_status mpqc_calib_distill(struct mpqc_cx *cx, const struct mpqc_cli *cli,
                               const struct mpqc_graph *g, struct mpqc_distilled *out)
{
    float lo[MPQC_LEN(cli->pre.mean)], hi[MPQC_LEN(cli->pre.mean)];
    struct mpqc_distill_options options = {.images = cli->calib_count,
                                           .allow_weak = cli->distill == MPQC_DISTILL_WEAK,
                                           .lo = lo,
                                           .hi = hi,
                                           .n_bounds = bounds(cli, lo, hi)};
    if (cli->mixed.labels)
        return MPQC_FAIL(cx, USAGE, MPQC_NOWHERE, "-labels with -calib=distill: images that are "
                         "made from the network have no labels; leave one of the two out");
    MPQC_TRY(mpqc_distill(cx, &mpqc_interpreter, g, &options, out));
    mpqc_progress_clear();
    if (cx->verbose)
        mpqc_note(cx, MPQC_NOWHERE, "%llu images from the statistics of %u layers in %u steps: "
                  "loss %.4g, at first %.4g%s", (unsigned long long)out->count, out->targets,
                  out->steps, out->last_loss, out->first_loss,
                  options.n_bounds ? "" : "; -mean and -std would tell the range of the inputs");
    return MPQC_OK;
}
