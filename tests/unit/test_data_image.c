/* SPDX-License-Identifier: GPL-3.0-or-later
 * Samples that are images, and folders of them.
 */
#define DATA_FOLDER "test_data_image_files"
#include "data_rig.h"

#include <png.h>

#include <jpeglib.h> /* needs stdio.h */

/* ---- images ---- */

static const char *save_png(const char *name, unsigned w, unsigned h, int colour,
                            const unsigned char *pixels)
{
    const char *path = path_of(name);
    png_image image;
    memset(&image, 0, sizeof image);
    image.version = PNG_IMAGE_VERSION;
    image.width = w;
    image.height = h;
    image.format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
    assert_true(png_image_write_to_file(&image, path, 0, pixels, 0, NULL));
    return path;
}

static const char *save_jpeg(const char *name, unsigned w, unsigned h, unsigned char *row)
{
    const char *path = path_of(name);
    struct jpeg_compress_struct z;
    struct jpeg_error_mgr errors;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    z.err = jpeg_std_error(&errors);
    jpeg_create_compress(&z);
    jpeg_stdio_dest(&z, f);
    z.image_width = w;
    z.image_height = h;
    z.input_components = 3;
    z.in_color_space = JCS_RGB;
    jpeg_set_defaults(&z);
    jpeg_start_compress(&z, TRUE);
    while (z.next_scanline < h) jpeg_write_scanlines(&z, &row, 1);
    jpeg_finish_compress(&z);
    jpeg_destroy_compress(&z);
    fclose(f);
    return path;
}

static void images_become_samples(void **state)
{
    (void)state;
    static const unsigned char rgb[] = {10, 20, 30, 40, 50, 60, 70, 80, 90,
                                        11, 21, 31, 41, 51, 61, 71, 81, 91};
    struct mpqc_data *d = opened(save_png("a.png", 3, 2, 1, rgb));
    const struct mpqc_array *a = mpqc_data_at(d, 0);
    assert_int_equal(a->rank, 4);
    assert_true(a->dims[0] == 1 && a->dims[1] == 2 && a->dims[2] == 3 && a->dims[3] == 3);
    assert_memory_equal(a->data, rgb, sizeof rgb);
    /* known to be channels last, so no -layout is needed */
    const int64_t dims[] = {1, 3, 2, 3};
    float x[18];
    struct mpqc_data_error err;
    assert_int_equal(mpqc_array_sample(a, 4, dims, NULL, 0, x, &err), 0);
    static const float want[] = {10, 40, 70, 11, 41, 71, 20, 50, 80,
                                 21, 51, 81, 30, 60, 90, 31, 61, 91};
    assert_memory_equal(x, want, sizeof want);
    mpqc_data_close(d);
    d = opened(save_png("grey.png", 3, 2, 0, rgb));
    assert_int_equal(mpqc_data_at(d, 0)->dims[3], 1);
    mpqc_data_close(d);
    unsigned char row[16 * 3];
    for (int i = 0; i < 16; i++) memcpy(row + 3 * i, (unsigned char[]){200, 100, 50}, 3);
    d = opened(save_jpeg("flat.jpg", 16, 8, row));
    a = mpqc_data_at(d, 0);
    assert_true(a->dims[1] == 8 && a->dims[2] == 16 && a->dims[3] == 3);
    for (int c = 0; c < 3; c++)
        assert_in_range(((const unsigned char *)a->data)[c], row[c] - 3, row[c] + 3);
    mpqc_data_close(d);
    refused(save("bad.png", "\x89PNG\r\n\x1a\nxxxxxxxxxxxxxxxxxxxx", 28), "cannot be decoded");
    refused(save("bad.jpg", "\xff\xd8\xff\xe0xxxxxxxxxxxxxxxxxxxx", 24), "cannot be decoded");
}

static void images_that_end_early_are_refused(void **state)
{
    (void)state;
    unsigned char row[64 * 3], file[4096];
    for (int i = 0; i < 192; i++) row[i] = (unsigned char)(i * 37);
    size_t n = slurp(save_jpeg("whole.jpg", 64, 64, row), file, sizeof file);
    refused(save("cut.jpg", file, n / 2), "cannot be decoded");
    unsigned char pixels[64 * 12];
    for (int i = 0; i < 768; i++) pixels[i] = (unsigned char)(i * i);
    n = slurp(save_png("whole.png", 16, 16, 1, pixels), file, sizeof file);
    refused(save("cut.png", file, n / 2), "cannot be decoded");
}

static void folders_are_joined_in_order(void **state)
{
    (void)state;
    static const unsigned char p[] = {1, 2, 3, 4, 5, 6};
    mkdir(path_of("images"), 0777);
    save_png("images/b.png", 3, 2, 0, p);
    save_png("images/a.png", 3, 2, 0, (const unsigned char[]){9, 8, 7, 6, 5, 4});
    save("images/notes.txt", "not a sample", 12);
    save("images/.hidden.png", "not an image", 12);
    struct mpqc_data *d = opened(path_of("images"));
    const struct mpqc_array *a = mpqc_data_at(d, 0);
    assert_int_equal(a->dims[0], 2);
    assert_int_equal(((const unsigned char *)a->data)[0], 9);
    assert_memory_equal((const unsigned char *)a->data + 6, p, 6);
    mpqc_data_close(d);
    save_png("images/odd.png", 2, 3, 0, p);
    refused(path_of("images"), "odd.png: samples are u8 [3,2,1], but those in a.png are u8 [2,3,1]");
    unlink(path_of("images/odd.png"));
    save("images/z.npy", "x", 1);
    refused(path_of("images"), "one kind of files");
    unlink(path_of("images/z.npy"));
    mkdir(path_of("nothing"), 0777);
    refused(path_of("nothing"), "no .npy");
}

static void flipped_bytes_do_no_harm(void **state)
{
    (void)state;
    static const char *const files[] = {"a.png", "flat.jpg", "whole.png", "whole.jpg"};
    flip_bytes(files, sizeof files / sizeof *files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_become_samples),
        cmocka_unit_test(images_that_end_early_are_refused),
        cmocka_unit_test(folders_are_joined_in_order),
        cmocka_unit_test(flipped_bytes_do_no_harm),
    };
    return cmocka_run_group_tests(tests, enter, NULL);
}
