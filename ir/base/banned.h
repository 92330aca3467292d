/* SPDX-License-Identifier: GPL-3.0-or-later
 * Functions that cannot be used safely, or that give different answers in
 * different locales, are compile errors.  System headers that declare them are
 * included first, so that only uses are caught.
 */
#ifndef MPQC_IR_BASE_BANNED_H
#define MPQC_IR_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC poison strcpy strcat sprintf vsprintf strtok gets atoi atol atof strncpy strncat

#endif
