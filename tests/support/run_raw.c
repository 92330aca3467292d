/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * run_raw MODEL.so IN... OUT...: runs a model once on raw files.  Tests build it for
 * other machines and run it under an emulator.  Exit status: 0; 1 wrong use; 2 not
 * supported by this CPU; 3 threads give another result.
 */
#include "runtime/mpqc_model.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The least friendly pool: every unit on its own, in reverse. */
static void backwards(void *pool, mpqc_task task, void *arg, int64_t n)
{
    (void)pool;
    for (int64_t i = n; i-- > 0;) task(arg, i, i + 1);
}

static int read_file(const char *path, void *to, size_t n)
{
    FILE *f = fopen(path, "rb");
    int ok = f && fread(to, 1, n, f) == n;
    if (f) fclose(f);
    return ok;
}

static int write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    int ok = f && fwrite(data, 1, n, f) == n;
    return f && fclose(f) == 0 && ok;
}

int main(int argc, char **argv)
{
    const void *in[16];
    void *out[16], *again[16];
    void *lib = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    const struct mpqc_model *m = lib ? dlsym(lib, "mpqc_model") : NULL;
    if (!m || m->n_inputs > 16 || m->n_outputs > 16 ||
        (unsigned)argc != 2 + m->n_inputs + m->n_outputs) {
        fprintf(stderr, "run_raw: %s\n", lib ? "wrong arguments" : dlerror());
        return 1;
    }
    if (!m->supported()) return 2;
    void *ws = aligned_alloc(m->workspace_align, m->workspace_size);
    memset(ws, 0xa5, m->workspace_size);
    for (uint32_t i = 0; i < m->n_inputs; i++) {
        void *p = malloc(m->inputs[i].bytes);
        if (!read_file(argv[2 + i], p, m->inputs[i].bytes)) return 1;
        in[i] = p;
    }
    for (uint32_t i = 0; i < m->n_outputs; i++) {
        out[i] = malloc(m->outputs[i].bytes);
        again[i] = malloc(m->outputs[i].bytes);
    }
    struct mpqc_exec exec = {sizeof exec, 4, backwards, NULL, NULL, NULL, NULL};
    if (m->run(in, out, ws, NULL) != 0 || m->run(in, again, ws, &exec) != 0) return 1;
    for (uint32_t i = 0; i < m->n_outputs; i++) {
        if (memcmp(out[i], again[i], m->outputs[i].bytes) != 0) return 3;
        if (!write_file(argv[2 + m->n_inputs + i], out[i], m->outputs[i].bytes)) return 1;
    }
    return 0;
}
