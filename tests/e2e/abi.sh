#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What the hand-written specimen passes, generated libraries pass: the ones that exact
# has left, run where this CPU can, looked at as files otherwise.
#
#     sh tests/e2e/abi.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
start
libraries=${MPQC_E2E_LIBRARIES:?}
abi=${MPQC_E2E_BIN:?}/mpqc-abi
ran=0

for lib in "$libraries"/*.so; do
    works "$lib, as a file" "$abi" -elf "$lib"
    case $lib in *x86-64*) ;; *) continue ;; esac
    "$bin/mpqc-run" "$lib" -repeat=1 -warmup=0 >/dev/null 2>&1 || continue # not on this CPU
    works "$lib" "$abi" "$lib"
    ran=$((ran + 1))
done

holds "libraries that ran" "$ran >= 6"
finish
