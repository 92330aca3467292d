/* SPDX-License-Identifier: MIT
 *
 * What the readers of driver/data_*.c share.  Every reader takes a mapped file and
 * adds arrays to a mpqc_data; none trusts a number that it read.
 */
#ifndef MPQC_DRIVER_DATA_INTERNAL_H
#define MPQC_DRIVER_DATA_INTERNAL_H

#include "driver/data.h"

#define MPQC_DATA_MAX_RANK (MPQC_ABI_MAX_RANK + 1)

/* Memory that arrays point into: freed, or unmapped, by mpqc_data_close. */
struct mpqc_data_block {
    void *memory;
    size_t size;
    int mapped;
};

struct mpqc_data {
    struct mpqc_array *arrays;
    uint32_t n_arrays;
    struct mpqc_data_block *blocks;
    uint32_t n_blocks;
};

/* A whole file, read-only.  `bytes` belongs to a block of the mpqc_data. */
struct mpqc_data_file {
    const char *path;
    const uint8_t *bytes;
    size_t size;
};

/* Writes the sentence and returns -1. */
int mpqc_data_fail(struct mpqc_data_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
int mpqc_data_oom(struct mpqc_data_error *err);

/* Takes `memory` over, also when it fails (then it is freed). */
int mpqc_data_own(struct mpqc_data *d, void *memory, size_t size, int mapped,
                  struct mpqc_data_error *err);
/* malloc of at least one byte, owned by `d`; NULL when out of memory. */
void *mpqc_data_alloc(struct mpqc_data *d, size_t size, struct mpqc_data_error *err);
/* Appends a copy of *a; its name is duplicated. a->bytes is computed from the shape.
 * Refuses names that are there already. */
int mpqc_data_add(struct mpqc_data *d, const struct mpqc_array *a, const char *path,
                  struct mpqc_data_error *err);
int mpqc_data_map(struct mpqc_data *d, const char *path, struct mpqc_data_file *out,
                  struct mpqc_data_error *err);
/* One file of any kind, by its first bytes, else by its name. */
int mpqc_data_load_file(struct mpqc_data *d, const char *path, uint32_t raw_rank,
                        const int64_t *raw_dims, struct mpqc_data_error *err);
int mpqc_data_load_folder(struct mpqc_data *d, const char *path, struct mpqc_data_error *err);
/* What the file is, without opening it; MPQC_KIND_OTHER when the name says nothing. */
enum mpqc_data_kind {
    MPQC_KIND_OTHER, MPQC_KIND_NPY, MPQC_KIND_NPZ, MPQC_KIND_IMAGE, MPQC_KIND_PB,
    MPQC_KIND_RAW, MPQC_KIND_IDX, MPQC_KIND_GZ
};
enum mpqc_data_kind mpqc_data_kind_of_name(const char *path);

/* Bytes of an array of this shape; -1 when a dimension is negative or the product
 * does not fit. */
int mpqc_data_bytes(enum mpqc_data_type type, uint32_t rank, const int64_t *dims, size_t *out);
/* "[1,28,28]", into a buffer of 160 bytes, returned. */
#define MPQC_SHAPE_TEXT 160
const char *mpqc_shape_text(char *to, uint32_t rank, const int64_t *dims);

/* Readers. `name` is the array's, or NULL. */
int mpqc_npy_parse(const char *path, const uint8_t *bytes, size_t size, struct mpqc_array *out,
                   struct mpqc_data_error *err);
int mpqc_npz_load(struct mpqc_data *d, const struct mpqc_data_file *f,
                  struct mpqc_data_error *err);
int mpqc_idx_load(struct mpqc_data *d, const struct mpqc_data_file *f,
                  struct mpqc_data_error *err);
int mpqc_idx_gz_load(struct mpqc_data *d, const struct mpqc_data_file *f,
                     struct mpqc_data_error *err);
int mpqc_image_load(struct mpqc_data *d, const struct mpqc_data_file *f,
                    struct mpqc_data_error *err);
/* Parses one TensorProto; *out points into `f`, or into memory that `d` owns.  The
 * name is copied to `name` (128 bytes). */
int mpqc_pb_parse(struct mpqc_data *d, const struct mpqc_data_file *f, char name[128],
                  struct mpqc_array *out, struct mpqc_data_error *err);

#endif
