/* SPDX-License-Identifier: MIT
 *
 * Reads .npz: a zip archive of .npy files, stored or deflated, found through the
 * central directory (APPNOTE.TXT sections 4.3.12 to 4.3.16, 4.5.3 for zip64).
 */
#include "driver/data_inflate.h"
#include "driver/data_internal.h"

#include <stdio.h>
#include <string.h>

/* Deflate cannot make more than this many bytes from one (zlib's technical notes). */
#define MAX_RATIO 1032

static uint32_t u16(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32(const uint8_t *p)
{
    return u16(p) | u16(p + 2) << 16;
}

static uint64_t u64(const uint8_t *p)
{
    return u32(p) | (uint64_t)u32(p + 4) << 32;
}

struct member {
    uint32_t method, flags;
    uint64_t packed, plain, local; /* sizes, offset of the local header */
    const char *name;
    size_t name_len;
};

static int broken(const struct mpqc_data_file *f, struct mpqc_data_error *err)
{
    return mpqc_data_fail(err, "%s: the .npz (zip) directory is broken or truncated", f->path);
}

/* The end record is the last 22 bytes plus a comment of up to 64 KiB. */
static int find_directory(const struct mpqc_data_file *f, uint64_t *offset, uint64_t *count)
{
    if (f->size < 22) return -1;
    size_t lowest = f->size > 22 + 65535 ? f->size - 22 - 65535 : 0;
    for (size_t at = f->size - 22 + 1; at-- > lowest;) {
        const uint8_t *p = f->bytes + at;
        if (u32(p) != 0x06054b50) continue;
        *count = u16(p + 10);
        *offset = u32(p + 16);
        if (*offset != UINT32_MAX && *count != UINT16_MAX) return 0;
        /* zip64: a locator of 20 bytes stands before the end record */
        if (at < 20 || u32(p - 20) != 0x07064b50) return -1;
        uint64_t end64 = u64(p - 20 + 8);
        if (end64 > f->size || f->size - end64 < 56 || u32(f->bytes + end64) != 0x06064b50)
            return -1;
        *count = u64(f->bytes + end64 + 32);
        *offset = u64(f->bytes + end64 + 48);
        return 0;
    }
    return -1;
}

/* Sizes that do not fit 32 bits are in the extra field 1, in this order. */
static int zip64_sizes(const uint8_t *extra, size_t n, struct member *m)
{
    while (n >= 4) {
        size_t len = u16(extra + 2);
        if (len > n - 4) return -1;
        if (u16(extra) == 1) {
            uint64_t *fields[] = {&m->plain, &m->packed, &m->local};
            const uint8_t *p = extra + 4, *end = p + len;
            for (int i = 0; i < 3; i++) {
                if (*fields[i] != UINT32_MAX) continue;
                if (end - p < 8) return -1;
                *fields[i] = u64(p);
                p += 8;
            }
        }
        extra += 4 + len;
        n -= 4 + len;
    }
    return 0;
}

/* One entry of the central directory; moves *at behind it. */
static int read_entry(const struct mpqc_data_file *f, uint64_t *at, struct member *m)
{
    if (*at > f->size || f->size - *at < 46) return -1;
    const uint8_t *p = f->bytes + *at;
    if (u32(p) != 0x02014b50) return -1;
    size_t name = u16(p + 28), extra = u16(p + 30), comment = u16(p + 32);
    size_t all = 46 + name + extra + comment;
    if (f->size - *at < all) return -1;
    *m = (struct member){.method = u16(p + 10), .flags = u16(p + 8), .packed = u32(p + 20),
                         .plain = u32(p + 24), .local = u32(p + 42),
                         .name = (const char *)p + 46, .name_len = name};
    *at += all;
    return zip64_sizes(p + 46 + name, extra, m);
}

/* The member's bytes as they lie in the file. */
static const uint8_t *packed_bytes(const struct mpqc_data_file *f, const struct member *m)
{
    if (m->local > f->size || f->size - m->local < 30) return NULL;
    const uint8_t *p = f->bytes + m->local;
    if (u32(p) != 0x04034b50) return NULL;
    size_t skip = 30 + (size_t)u16(p + 26) + u16(p + 28);
    size_t left = f->size - (size_t)m->local;
    if (skip > left || m->packed > left - skip) return NULL;
    return p + skip;
}

static const uint8_t *plain_bytes(struct mpqc_data *d, const struct mpqc_data_file *f,
                                  const struct member *m, const char *label,
                                  struct mpqc_data_error *err)
{
    const uint8_t *packed = packed_bytes(f, m);
    if (!packed) {
        broken(f, err);
        return NULL;
    }
    if (m->method == 0 && m->packed == m->plain) return packed;
    if (m->method != 8 || m->flags & 1) {
        mpqc_data_fail(err, "%s: is packed with a method other than 'stored' and 'deflate'",
                       label);
        return NULL;
    }
    if (m->plain / MAX_RATIO > m->packed) {
        broken(f, err);
        return NULL;
    }
    uint8_t *plain = mpqc_data_alloc(d, (size_t)m->plain, err);
    if (!plain) return NULL;
    if (mpqc_inflate(label, MPQC_INFLATE_RAW, packed, (size_t)m->packed, plain,
                     (size_t)m->plain, err))
        return NULL;
    return plain;
}

static int load_member(struct mpqc_data *d, const struct mpqc_data_file *f,
                       const struct member *m, struct mpqc_data_error *err)
{
    char name[256], label[512];
    if (m->name_len >= sizeof name || memchr(m->name, 0, m->name_len)) return broken(f, err);
    memcpy(name, m->name, m->name_len);
    name[m->name_len] = '\0';
    size_t n = m->name_len;
    if (n > 0 && name[n - 1] == '/') return 0; /* a folder */
    if (n > 4 && strcmp(name + n - 4, ".npy") == 0) name[n - 4] = '\0';
    snprintf(label, sizeof label, "%s: array '%s'", f->path, name);
    const uint8_t *bytes = plain_bytes(d, f, m, label, err);
    struct mpqc_array a;
    if (!bytes || mpqc_npy_parse(label, bytes, (size_t)m->plain, &a, err)) return -1;
    a.name = name;
    return mpqc_data_add(d, &a, f->path, err);
}

int mpqc_npz_load(struct mpqc_data *d, const struct mpqc_data_file *f,
                  struct mpqc_data_error *err)
{
    uint64_t at, count;
    if (find_directory(f, &at, &count)) return broken(f, err);
    for (uint64_t i = 0; i < count; i++) {
        struct member m;
        if (read_entry(f, &at, &m)) return broken(f, err);
        if (load_member(d, f, &m, err)) return -1;
    }
    if (d->n_arrays == 0) return mpqc_data_fail(err, "%s: there is no array in it", f->path);
    return 0;
}
