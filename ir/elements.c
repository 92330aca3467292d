/* SPDX-License-Identifier: GPL-3.0-or-later
 * Single elements of tensors, whatever the container.
 */
#include "ir/elements.h"

int64_t mpqc_element_get(enum mpqc_dtype t, const void *data, int64_t i)
{
    bool is_signed = mpqc_dtypes[t].kind == MPQC_KIND_SINT;
    switch (mpqc_dtypes[t].bytes) {
    case 1: return is_signed ? ((const int8_t *)data)[i] : ((const uint8_t *)data)[i];
    case 2: return is_signed ? ((const int16_t *)data)[i] : ((const uint16_t *)data)[i];
    case 4: return ((const int32_t *)data)[i];
    default: return ((const int64_t *)data)[i];
    }
}

void mpqc_element_set(enum mpqc_dtype t, void *data, int64_t i, int64_t v)
{
    switch (mpqc_dtypes[t].bytes) {
    case 1: ((uint8_t *)data)[i] = (uint8_t)v; break;
    case 2: ((uint16_t *)data)[i] = (uint16_t)v; break;
    case 4: ((uint32_t *)data)[i] = (uint32_t)v; break;
    default: ((int64_t *)data)[i] = v; break;
    }
}

void mpqc_elements_splat(enum mpqc_dtype t, void *data, int64_t n)
{
    size_t bytes = mpqc_dtypes[t].bytes;
    for (int64_t i = 1; i < n; i++) memcpy((char *)data + (size_t)i * bytes, data, bytes);
}

/* The splitmix64 generator (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void mpqc_elements_random(enum mpqc_dtype t, void *data, int64_t n, uint64_t seed)
{
    const struct mpqc_dtype_info *d = &mpqc_dtypes[t];
    int64_t lo = d->bits > 16 ? -1000 : d->min, hi = d->bits > 16 ? 1000 : d->max;
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = next_random(&seed) >> 32;
        if (d->kind == MPQC_KIND_FLOAT)
            ((float *)data)[i] = (float)((int)(r & 2047) - 1024) / 1024.0f;
        else
            mpqc_element_set(t, data, i,
                             t == MPQC_DT_I1 ? (int64_t)(r & 1) * 2 - 1
                                             : lo + (int64_t)(r % (uint64_t)(hi - lo + 1)));
    }
}

uint64_t mpqc_content_hash(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}
