/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Runs a model once: MODEL OUT IN...; files hold raw bytes.  linear_rig.h
 * compiles it for a foreign architecture and starts it under emulation.
 */
#include "runtime/mpqc_model.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    void *lib = argc > 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
    const struct mpqc_model *m = lib ? dlsym(lib, "mpqc_model") : NULL;
    if (!m || (int)m->n_inputs != argc - 3 || m->n_inputs > 4) return 2;
    if (!m->supported()) return 3;
    const void *in[4];
    for (uint32_t i = 0; i < m->n_inputs; i++) {
        void *data = malloc(m->inputs[i].bytes);
        FILE *f = fopen(argv[3 + i], "rb");
        if (!f || !data || fread(data, 1, m->inputs[i].bytes, f) != m->inputs[i].bytes) return 4;
        fclose(f);
        in[i] = data;
    }
    void *out = malloc(m->outputs[0].bytes), *outs[] = {out};
    void *ws = aligned_alloc(m->workspace_align, m->workspace_size);
    if (!out || !ws || m->run(in, outs, ws, NULL) != MPQC_RUN_OK) return 5;
    FILE *f = fopen(argv[2], "wb");
    if (!f || fwrite(out, 1, m->outputs[0].bytes, f) != m->outputs[0].bytes) return 6;
    return fclose(f) == 0 ? 0 : 7;
}
