/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 *     e2e_reconstruction NETWORK Y.npy
 *
 * Prints the mean squared error of what an autoencoder made of all test images
 * (mpqc-run's -out), in the units of networks.tsv: pixels from 0 to 1.
 */
#include "tests/e2e/support.h"

int main(int argc, char **argv)
{
    struct mpqc_data *x, *y;
    struct mpqc_data_error err;
    CHECK(argc == 3, "usage: %s NETWORK Y.npy", argv[0]);
    struct e2e_network net = e2e_network_find(argv[1]);
    CHECK(mpqc_data_open(TEST_IMAGES, 0, NULL, &x, &err) == 0, "%s", err.text);
    CHECK(mpqc_data_open(argv[2], 0, NULL, &y, &err) == 0, "%s", err.text);
    const struct mpqc_array *a = mpqc_data_at(x, 0), *b = mpqc_data_at(y, 0);
    CHECK(a->type == MPQC_DATA_U8 && b->type == MPQC_DATA_F32, "element types");
    CHECK(a->bytes * sizeof(float) == b->bytes, "%zu pixels, but %zu bytes of answers", a->bytes,
          b->bytes);
    double sum = 0;
    for (size_t i = 0; i < a->bytes; i++) {
        float v;
        memcpy(&v, (const char *)b->data + i * sizeof v, sizeof v);
        double want = (((const uint8_t *)a->data)[i] / 255.0 - (double)net.mean) / (double)net.std;
        sum += (want - (double)v) * (want - (double)v);
    }
    printf("%.6f\n", sum / (double)a->bytes);
    mpqc_data_close(x);
    mpqc_data_close(y);
    return 0;
}
