/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 *     mpqc-abi [-elf] [-tag=NAME] LIBRARY...
 *
 * Runs the list of ABI checks on libraries; with -elf only what the file shows.
 */
#include "tests/abi_checks.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    const char *tag = "";
    int elf_only = 0, failed = 0, seen = 0;
    for (int i = 1; i < argc; i++) {
        char why[256];
        if (strncmp(argv[i], "-tag=", 5) == 0) {
            tag = argv[i] + 5;
        } else if (strcmp(argv[i], "-elf") == 0) {
            elf_only = 1;
        } else if (elf_only) {
            seen++;
            if (mpqc_abi_elf(argv[i], why, sizeof why) == 0) continue;
            fprintf(stderr, "%s: %s\n", argv[i], why);
            failed++;
        } else {
            seen++;
            failed += mpqc_abi_run(argv[i], tag);
        }
    }
    if (!seen) fputs("usage: mpqc-abi [-elf] [-tag=NAME] LIBRARY...\n", stderr);
    return failed || !seen;
}
