/* SPDX-License-Identifier: MIT */
#include "driver/data_inflate.h"

#include "driver/data_internal.h"

#ifdef MPQC_HAVE_ZLIB
#define ZLIB_CONST
#include <string.h>
#include <zlib.h>

/* zlib counts in 32 bits: larger streams go through it in pieces. */
#define PIECE ((size_t)1 << 30)

static int inflate_all(z_stream *z, const uint8_t *in, size_t size, uint8_t *out, size_t room)
{
    while (room > 0) {
        uInt give = (uInt)(size < PIECE ? size : PIECE);
        uInt want = (uInt)(room < PIECE ? room : PIECE);
        z->next_in = in;
        z->avail_in = give;
        z->next_out = out;
        z->avail_out = want;
        int rc = inflate(z, Z_NO_FLUSH);
        if (rc != Z_OK && rc != Z_STREAM_END) return -1;
        size_t eaten = give - z->avail_in, made = want - z->avail_out;
        in += eaten;
        size -= eaten;
        out += made;
        room -= made;
        if (eaten == 0 && made == 0) return -1;
        /* gzip members may follow one another */
        if (rc == Z_STREAM_END && room > 0 && (size == 0 || inflateReset(z) != Z_OK)) return -1;
    }
    return 0;
}

int mpqc_inflate(const char *label, enum mpqc_inflate_format format, const uint8_t *in,
                 size_t size, uint8_t *out, size_t room, struct mpqc_data_error *err)
{
    z_stream z;
    memset(&z, 0, sizeof z);
    int bits = format == MPQC_INFLATE_GZIP ? 16 + MAX_WBITS : -MAX_WBITS;
    if (inflateInit2(&z, bits) != Z_OK) return mpqc_data_oom(err);
    int rc = inflate_all(&z, in, size, out, room);
    inflateEnd(&z);
    if (rc) return mpqc_data_fail(err, "%s: the compressed data is damaged or truncated", label);
    return 0;
}

#else

int mpqc_inflate(const char *label, enum mpqc_inflate_format format, const uint8_t *in,
                 size_t size, uint8_t *out, size_t room, struct mpqc_data_error *err)
{
    (void)in, (void)size, (void)out, (void)room;
    return mpqc_data_fail(err, "%s: is compressed, and this program is built without zlib; %s",
                          label,
                          format == MPQC_INFLATE_GZIP ? "unpack it with gunzip first"
                                                      : "save it with numpy.savez");
}

#endif
