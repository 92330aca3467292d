/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * What every compiled model must satisfy, whoever made it: the hand-written specimen
 * and everything that mpqc generates go through the same list.
 */
#ifndef MPQC_TESTS_ABI_CHECKS_H
#define MPQC_TESTS_ABI_CHECKS_H

/* Runs the list on one library as a cmocka group; the number of failed checks.  tag
 * NULL or "": none. */
int mpqc_abi_run(const char *path, const char *tag);

/* The part that reads only the file: for libraries of another CPU.  0, or -1 with a
 * sentence. */
int mpqc_abi_elf(const char *path, char *why, unsigned long room);

#endif
