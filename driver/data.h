/* SPDX-License-Identifier: MIT
 *
 * Samples from files, for mpqc and mpqc-run.  Stands alone (no compiler headers),
 * so that mpqc-run can be built for any target.
 *
 * What a PATH may be:
 *   x.npy            first axis = samples
 *   x.npz            one array per network input, keyed by input name
 *   x-idx3-ubyte, x.idx, and either with .gz: the IDX format of MNIST
 *   x.png, x.jpg     one sample, u8 [1,H,W,C]
 *   x.raw / x.f32    raw float32, as many samples as fit (needs the input's shape)
 *   a folder of .npy / .npz / images (sorted by name; concatenated), or of ONNX .pb tensors
 *     (input_0.pb, input_1.pb, ... = one sample; test_data_set_N subfolders = samples)
 * gz and npz-deflate need zlib, images libpng and libjpeg; a build without one of
 * them says so.
 */
#ifndef MPQC_DRIVER_DATA_H
#define MPQC_DRIVER_DATA_H

#include "runtime/mpqc_model.h"

#include <stddef.h>
#include <stdint.h>

/* One-sentence error text; every function that can fail returns 0 or -1 and fills it. */
struct mpqc_data_error {
    char text[512];
};

/* One array: rows of samples, element containers as in the file. */
enum mpqc_data_type {
    MPQC_DATA_F32, MPQC_DATA_F64, MPQC_DATA_F16, MPQC_DATA_U8, MPQC_DATA_I8, MPQC_DATA_U16,
    MPQC_DATA_I16, MPQC_DATA_I32, MPQC_DATA_U32, MPQC_DATA_I64, MPQC_DATA_BOOL
};
struct mpqc_array {
    char *name; /* npz key, pb tensor name, or NULL */
    enum mpqc_data_type type;
    uint32_t rank; /* with the sample axis */
    int64_t dims[MPQC_ABI_MAX_RANK + 1];
    int channels_last; /* decoded images: the samples are known to be [H,W,C] */
    const void *data;  /* malloc'd or mapped; may be unaligned */
    size_t bytes;
};

struct mpqc_data; /* all arrays of one PATH, mapped where possible */
/* `raw_dims` (rank, without the sample axis) is needed for .raw / .f32 only; may be NULL. */
int mpqc_data_open(const char *path, uint32_t raw_rank, const int64_t *raw_dims,
                   struct mpqc_data **out, struct mpqc_data_error *err);
void mpqc_data_close(struct mpqc_data *);
/* The array called `name`; the only array when there is one without that name; NULL. */
const struct mpqc_array *mpqc_data_array(const struct mpqc_data *, const char *name);
uint32_t mpqc_data_count(const struct mpqc_data *); /* number of arrays */
const struct mpqc_array *mpqc_data_at(const struct mpqc_data *, uint32_t i);

/* Checks once that `a` can feed an input of shape dims (batch 1: the first axis of
 * the array runs over samples; [1,28,28] and [28,28] and [28,28,1] are one another's
 * equals where no data moves, and so are [28,28] and [784]) and says the number of
 * samples.  u8 data (and only u8) goes through `pre` ((u8 / scale - mean[c]) / std[c], nhwc
 * -> nchw when pre->nhwc and the network's dims are channels first); all other data is
 * taken as it is.
 * pre->scale 0 means 255, pre->channels 0 means mean 0 and std 1.  pre may be NULL: scale
 * 255 is not assumed, u8 becomes 0..255.  The text does not name the file. */
int mpqc_array_check(const struct mpqc_array *a, const char *input, uint32_t rank,
                     const int64_t *dims, const struct mpqc_preprocess *pre, uint64_t *samples,
                     struct mpqc_data_error *err);
/* Fills one dense f32 tensor. A NaN or Inf in the data is an error that names the sample. */
int mpqc_array_sample(const struct mpqc_array *a, uint32_t rank, const int64_t *dims,
                      const struct mpqc_preprocess *pre, uint64_t index, float *out,
                      struct mpqc_data_error *err);

/* Copies one sample as it is; check() must have passed with pre NULL.  For inputs whose
 * element type is that of the file. */
int mpqc_array_raw_sample(const struct mpqc_array *a, uint64_t index, void *out, size_t bytes,
                          struct mpqc_data_error *err);
/* Size of one element in the file. */
size_t mpqc_data_type_size(enum mpqc_data_type type);
const char *mpqc_data_type_name(enum mpqc_data_type type);

/* Labels: any integer array of one axis (or [N,1]); -1 with a sentence otherwise. */
int mpqc_labels_open(const char *path, int64_t **labels, uint64_t *count,
                     struct mpqc_data_error *err);

/* Writes an .npy of f32/u8/i8/i16/i32/i64 rows piece by piece to PATH.tmp.PID, renamed by
 * close (or removed when `commit` is 0).  What exists and is no regular file (a device, a
 * pipe) is written to directly. */
struct mpqc_npy_writer;
int mpqc_npy_create(const char *path, uint32_t element, uint32_t rank, const int64_t *dims,
                    struct mpqc_npy_writer **out, struct mpqc_data_error *err);
int mpqc_npy_append(struct mpqc_npy_writer *, const void *data, size_t bytes,
                    struct mpqc_data_error *err);
int mpqc_npy_close(struct mpqc_npy_writer *, int commit, struct mpqc_data_error *err);

/* "-scale=255 -mean=a,b,c -std=a,b,c -layout=nhwc": parses one of them into *pre; the
 * numbers of mean and std must agree (1 or channels). */
int mpqc_preprocess_set(struct mpqc_preprocess *pre, const char *flag, const char *value,
                        struct mpqc_data_error *err);

#endif
