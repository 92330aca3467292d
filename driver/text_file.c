/* SPDX-License-Identifier: GPL-3.0-or-later
 * Text files as a whole; folders for others.
 */
#include "driver/cli.h"

#include <errno.h>

/* Larger than any plan or table of ours; keeps a mistaken path from eating the memory. */
#define LARGEST ((size_t)64 << 20)

mpqc_status mpqc_text_write(struct mpqc_cx *cx, const char *path, const struct mpqc_buf *text)
{
    if (text->failed) return MPQC_OOM(cx);
    if (!path || strcmp(path, "-") == 0) {
        fwrite(text->data, 1, text->len, stdout);
        return MPQC_OK;
    }
    return mpqc_file_write(cx, path, 0666, text->data, text->len);
}

mpqc_status mpqc_text_read(struct mpqc_cx *cx, const char *path, struct mpqc_arena *arena,
                           const char **text)
{
    struct mpqc_where w = MPQC_NOWHERE;
    w.file = path;
    FILE *f = fopen(path, "rb");
    if (!f) return MPQC_FAIL(cx, IO, w, "cannot be opened: %s", strerror(errno));
    struct mpqc_buf b;
    char block[16384];
    size_t n;
    mpqc_buf_init(&b);
    while (b.len < LARGEST && (n = fread(block, 1, sizeof block, f)) > 0)
        mpqc_buf_add(&b, block, n);
    int why = ferror(f) ? errno : 0;
    fclose(f);
    *text = b.failed ? NULL : mpqc_arena_copy(arena, b.data ? b.data : "", b.len + 1);
    bool too_large = b.len >= LARGEST;
    mpqc_buf_release(&b);
    if (why || too_large)
        return MPQC_FAIL(cx, IO, w, "cannot be read: %s", why ? strerror(why) : "it is too large");
    return *text ? MPQC_OK : MPQC_OOM(cx);
}

mpqc_status mpqc_folder_make(struct mpqc_cx *cx, char *path)
{
    if (mpqc_temporary_folder(path)) return MPQC_OK;
    struct mpqc_where w = {.file = path, .offset = -1};
    return MPQC_FAIL(cx, IO, w, "cannot be made: %s", strerror(errno));
}
