#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A library for features that the CPU lacks is refused politely: one sentence, exit
# status 1.  Where this CPU has everything, qemu shows the program a smaller one.
#
#     sh tests/e2e/supported.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
start

# refuses NAME COMMAND...: one sentence that names the target, and nothing else.
refuses() {
    name=$1
    shift
    run "$@"
    problem=
    [ "$(wc -l <"$work/stderr")" -eq 1 ] && [ ! -s "$work/stdout" ] || problem="not one line"
    refused "$name" "^mpqc-run: error: .*(CPU|processor)" "$problem" && echo "$name: $(cat "$work/stderr")"
}

targets=$("$bin/mpqc" -list-targets | awk '{ print $1 }')
for target in $targets; do
    must "$target" "$bin/mpqc" "$nets/fashion_autoencoder.onnx" -calib="$train" -calib-count=2 \
        -target="$target" -o "$work/$target.so"
done

# This CPU, as /proc/cpuinfo describes it.
has() { grep -m1 '^flags' /proc/cpuinfo | grep -qw "$1"; }
for row in avx2:avx2 avx-vnni:avx_vnni avx512:avx512bw avx512-dot:avx512_vnni \
    avx512-vnni:avx512vbmi amx:amx_int8; do
    if has "${row#*:}"; then
        works "${row%:*} on this CPU" "$bin/mpqc-run" "$work/x86-64:${row%:*}.so" -repeat=1
        continue
    fi
    refuses "${row%:*} on this CPU" "$bin/mpqc-run" "$work/x86-64:${row%:*}.so"
done

# A library of another architecture is no library at all here.
run "$bin/mpqc-run" "$work/aarch64:neon.so"
problem=
[ "$(wc -l <"$work/stderr")" -eq 1 ] || problem="not one line"
refused 'a library for aarch64 on x86-64' . "$problem"

# qemu's x86 has no AVX-512, and a Nehalem no AVX.
if ! command -v qemu-x86_64 >/dev/null || [ "${MPQC_E2E_SANITIZED:-0}" = 1 ]; then
    leave_out "no qemu-x86_64, or a program that it cannot run"
elif ! qemu-x86_64 -cpu Nehalem "$bin/mpqc-run" -version >/dev/null 2>&1; then
    leave_out "qemu-x86_64 cannot run mpqc-run"
else
    refuses 'avx512-vnni under qemu' qemu-x86_64 -cpu max "$bin/mpqc-run" "$work/x86-64:avx512-vnni.so"
    refuses 'amx under qemu' qemu-x86_64 -cpu max "$bin/mpqc-run" "$work/x86-64:amx.so"
    for target in $targets; do
        case $target in x86-64:generic | aarch64:*) continue ;; esac
        refuses "$target on a Nehalem" qemu-x86_64 -cpu Nehalem "$bin/mpqc-run" "$work/$target.so"
    done
    works 'generic on a Nehalem' qemu-x86_64 -cpu Nehalem "$bin/mpqc-run" "$work/x86-64:generic.so" -repeat=1
    refuses 'generic without SSSE3' qemu-x86_64 -cpu Nehalem,-ssse3 "$bin/mpqc-run" "$work/x86-64:generic.so"
fi

if ! command -v qemu-aarch64 >/dev/null || [ ! -x "$bin/mpqc-run-aarch64" ]; then
    leave_out "no qemu-aarch64 or no mpqc-run-aarch64"
else
    arm="qemu-aarch64 -L /usr/aarch64-linux-gnu"
    refuses 'dotprod on a Cortex-A53' $arm -cpu cortex-a53 "$bin/mpqc-run-aarch64" "$work/aarch64:dotprod.so"
    refuses 'i8mm on a Neoverse N1' $arm -cpu neoverse-n1 "$bin/mpqc-run-aarch64" "$work/aarch64:i8mm.so"
    works 'i8mm on the largest' $arm -cpu max "$bin/mpqc-run-aarch64" "$work/aarch64:i8mm.so" -repeat=1
    works 'dotprod on the largest' $arm -cpu max "$bin/mpqc-run-aarch64" "$work/aarch64:dotprod.so" -repeat=1
    works 'neon on a Cortex-A53' $arm -cpu cortex-a53 "$bin/mpqc-run-aarch64" "$work/aarch64:neon.so" -repeat=1
fi

finish
