/* SPDX-License-Identifier: GPL-3.0-or-later
 * Growing byte strings.
 */
#include "ir/base/base.h"
#include "ir/base/limits.h"

void mpqc_buf_init(struct mpqc_buf *b)
{
    *b = (struct mpqc_buf){.data = NULL};
}

void mpqc_buf_release(struct mpqc_buf *b)
{
    free(b->data);
    mpqc_buf_init(b);
}

/* Room for n more bytes and the NUL; false (and failed) when there is none. */
static bool reserve(struct mpqc_buf *b, size_t n)
{
    size_t need = 0;
    if (b->failed || !mpqc_size_add(b->len, n, &need) || !mpqc_size_add(need, 1, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->cap) return true;
    size_t cap = b->cap ? b->cap : MPQC_BUF_FIRST;
    while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *data = realloc(b->data, cap);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

void mpqc_buf_add(struct mpqc_buf *b, const void *data, size_t n)
{
    if (!reserve(b, n)) return;
    if (n) memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void mpqc_buf_puts(struct mpqc_buf *b, const char *s)
{
    mpqc_buf_add(b, s, strlen(s));
}

void mpqc_buf_printf(struct mpqc_buf *b, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0 || !reserve(b, (size_t)n)) {
        b->failed = true;
        return;
    }
    va_start(args, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, args);
    va_end(args);
    b->len += (size_t)n;
}
