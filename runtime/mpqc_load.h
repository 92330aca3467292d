/* SPDX-License-Identifier: MIT
 *
 * Opens a compiled model with dlopen and checks everything that can be checked
 * before it runs.  A convenience: an application may as well do the five calls in
 * mpqc_model.h itself.
 */
#ifndef MPQC_LOAD_H
#define MPQC_LOAD_H

#include "mpqc_model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MPQC_LOAD_ERROR 512

struct mpqc_loaded {
    void *handle; /* of dlopen */
    const struct mpqc_model *model;
};

/* Opens `path` (as a path, not searched for), finds `mpqc_model`, or with a tag
 * `mpqc_model_TAG`, and checks version, size and sanity of the descriptor.  Returns
 * 0, or -1 with one sentence in `error` (MPQC_LOAD_ERROR bytes).  Does not ask
 * supported(): the descriptor can be read on any CPU; see mpqc_load_supported. */
int mpqc_load_open(const char *path, const char *tag, struct mpqc_loaded *out, char *error);
void mpqc_load_close(struct mpqc_loaded *loaded);

/* 0, or -1 with a sentence when this CPU cannot run the model. */
int mpqc_load_supported(const struct mpqc_loaded *loaded, const char *path, char *error);

/* The descriptor's own checks, for models that are linked in: 0, or -1. */
int mpqc_model_check(const struct mpqc_model *model, const char *path, char *error);

/* workspace_size bytes at workspace_align; to be freed with free().  Never NULL for
 * size 0; NULL when out of memory. */
void *mpqc_workspace_alloc(const struct mpqc_model *model);
/* The sentence for what run() returned. */
const char *mpqc_run_status_text(int status);
/* Bytes of one element; 0 for an unknown one.  And its name. */
uint32_t mpqc_element_size(uint32_t element);
const char *mpqc_element_name(uint32_t element);

#ifdef __cplusplus
}
#endif

#endif
