#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What the hand-written specimen passes, generated libraries pass: the ones that exact
# has left, run where this CPU can, looked at as files otherwise.
#
#     sh tests/e2e/abi.sh BIN SOURCE WORK
set -u

bin=$1
libraries=${MPQC_E2E_LIBRARIES:?}
abi=${MPQC_E2E_BIN:?}/mpqc-abi
failed=0
run=0

for lib in "$libraries"/*.so; do
    "$abi" -elf "$lib" || failed=$((failed + 1))
    case $lib in *x86-64*) ;; *) continue ;; esac
    "$bin/mpqc-run" "$lib" -repeat=1 -warmup=0 >/dev/null 2>&1 || continue # not on this CPU
    if "$abi" "$lib" >/dev/null 2>&1; then
        run=$((run + 1))
    else
        echo "FAILED: $lib"
        "$abi" "$lib" 2>&1 | grep -v ' OK \]\| RUN '
        failed=$((failed + 1))
    fi
done

echo "$run libraries run, $failed failures"
[ $failed -eq 0 ] && [ $run -ge 6 ]
