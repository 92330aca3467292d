/* SPDX-License-Identifier: MIT
 *
 * The one door to libpng and libjpeg: one image becomes a u8 array [1,H,W,C], C 1
 * (grey) or 3 (RGB).  Alpha is dropped, palettes and low depths are expanded, 16
 * bits become 8.  Both libraries report errors by longjmp; each is contained in one
 * function here, whose state lives in one struct so that no local can be clobbered.
 */
#include "driver/data_internal.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef MPQC_HAVE_PNG
#include <png.h>
#endif
#ifdef MPQC_HAVE_JPEG
#include <jerror.h>
#include <jpeglib.h>
#endif

/* More is a hostile header rather than a sample. */
#define MAX_PIXEL_BYTES ((size_t)1 << 28)

/* Shared by both decoders. */
struct image {
    const struct mpqc_data_file *file;
    size_t at; /* read position (PNG) */
    uint32_t width, height, channels;
    uint8_t *pixels;
    char why[200];
    jmp_buf escape;
};

#if defined(MPQC_HAVE_PNG) || defined(MPQC_HAVE_JPEG)
static int make_pixels(struct image *im)
{
    size_t bytes;
    if (__builtin_mul_overflow((size_t)im->width, (size_t)im->height, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)im->channels, &bytes) || bytes == 0 ||
        bytes > MAX_PIXEL_BYTES) {
        snprintf(im->why, sizeof im->why, "impossible size %ux%u", im->width, im->height);
        return -1;
    }
    im->pixels = malloc(bytes);
    if (!im->pixels) snprintf(im->why, sizeof im->why, "out of memory");
    return im->pixels ? 0 : -1;
}

static uint8_t *pixel_row(const struct image *im, uint32_t y)
{
    return im->pixels + (size_t)y * im->width * im->channels;
}
#endif

#ifdef MPQC_HAVE_PNG
static void png_failed(png_structp png, png_const_charp message)
{
    struct image *im = png_get_error_ptr(png);
    snprintf(im->why, sizeof im->why, "%s", message);
    longjmp(im->escape, 1);
}

static void png_warned(png_structp png, png_const_charp message)
{
    (void)png, (void)message;
}

static void png_bytes(png_structp png, png_bytep to, size_t n)
{
    struct image *im = png_get_io_ptr(png);
    if (n > im->file->size - im->at) png_error(png, "the file is truncated");
    memcpy(to, im->file->bytes + im->at, n);
    im->at += n;
}

/* Asks for 8-bit grey or RGB, whatever is in the file. */
static void png_configure(png_structp png, png_infop info, struct image *im)
{
    int colour = png_get_color_type(png, info);
    png_set_expand(png);
    png_set_strip_16(png);
    png_set_strip_alpha(png);
    im->width = png_get_image_width(png, info);
    im->height = png_get_image_height(png, info);
    im->channels = colour & PNG_COLOR_MASK_COLOR ? 3 : 1;
}

static int decode_png(struct image *im)
{
    png_structp png =
        png_create_read_struct(PNG_LIBPNG_VER_STRING, im, png_failed, png_warned);
    if (!png) return -1;
    png_infop info = png_create_info_struct(png);
    if (!info || setjmp(im->escape)) {
        png_destroy_read_struct(&png, &info, NULL);
        return -1;
    }
    png_set_read_fn(png, im, png_bytes);
    png_read_info(png, info);
    png_configure(png, info, im);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (make_pixels(im)) longjmp(im->escape, 1);
    if (png_get_rowbytes(png, info) != (size_t)im->width * im->channels)
        png_error(png, "unexpected pixel layout");
    for (int pass = 0; pass < passes; pass++)
        for (uint32_t y = 0; y < im->height; y++) png_read_row(png, pixel_row(im, y), NULL);
    png_destroy_read_struct(&png, &info, NULL);
    return 0;
}
#else
static int decode_png(struct image *im)
{
    snprintf(im->why, sizeof im->why, "this program is built without libpng");
    return -1;
}
#endif

#ifdef MPQC_HAVE_JPEG
struct jpeg {
    struct jpeg_decompress_struct z; /* first: libjpeg's pointers are cast back */
    struct jpeg_error_mgr errors;
    struct image *image;
};

static void jpeg_failed(j_common_ptr z)
{
    struct image *im = z->client_data;
    char text[JMSG_LENGTH_MAX];
    z->err->format_message(z, text);
    snprintf(im->why, sizeof im->why, "%s", text);
    longjmp(im->escape, 1);
}

/* Most warnings are harmless; an image that ends early is not. */
static void jpeg_warned(j_common_ptr z, int level)
{
    if (level < 0 && (z->err->msg_code == JWRN_JPEG_EOF || z->err->msg_code == JWRN_HIT_MARKER))
        jpeg_failed(z);
}

static int decode_jpeg(struct image *im)
{
    struct jpeg *j = calloc(1, sizeof *j);
    if (!j) return -1;
    j->z.err = jpeg_std_error(&j->errors);
    j->errors.error_exit = jpeg_failed;
    j->errors.emit_message = jpeg_warned;
    j->z.client_data = im;
    if (setjmp(im->escape)) {
        jpeg_destroy_decompress(&j->z);
        free(j);
        return -1;
    }
    jpeg_create_decompress(&j->z);
    jpeg_mem_src(&j->z, im->file->bytes, im->file->size);
    jpeg_read_header(&j->z, TRUE);
    j->z.out_color_space = j->z.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(&j->z);
    im->width = j->z.output_width;
    im->height = j->z.output_height;
    im->channels = (uint32_t)j->z.output_components;
    if (make_pixels(im)) longjmp(im->escape, 1);
    while (j->z.output_scanline < j->z.output_height) {
        JSAMPROW row = pixel_row(im, j->z.output_scanline);
        jpeg_read_scanlines(&j->z, &row, 1);
    }
    jpeg_finish_decompress(&j->z);
    jpeg_destroy_decompress(&j->z);
    free(j);
    return 0;
}
#else
static int decode_jpeg(struct image *im)
{
    snprintf(im->why, sizeof im->why, "this program is built without libjpeg");
    return -1;
}
#endif

int mpqc_image_load(struct mpqc_data *d, const struct mpqc_data_file *f,
                    struct mpqc_data_error *err)
{
    struct image *im = calloc(1, sizeof *im);
    if (!im) return mpqc_data_oom(err);
    im->file = f;
    int is_png = f->size > 4 && memcmp(f->bytes, "\x89PNG", 4) == 0;
    int rc = is_png ? decode_png(im) : decode_jpeg(im);
    if (rc) {
        mpqc_data_fail(err, "%s: the image cannot be decoded: %s", f->path,
                       im->why[0] ? im->why : "out of memory");
        free(im->pixels);
    } else {
        struct mpqc_array a = {.type = MPQC_DATA_U8, .rank = 4, .channels_last = 1,
                               .dims = {1, im->height, im->width, im->channels},
                               .data = im->pixels};
        size_t bytes = (size_t)im->height * im->width * im->channels;
        rc = mpqc_data_own(d, im->pixels, bytes, 0, err);
        if (rc == 0) rc = mpqc_data_add(d, &a, f->path, err);
    }
    free(im);
    return rc;
}
