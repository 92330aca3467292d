#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A library for features that the CPU lacks is refused politely: one sentence, exit
# status 1.  Where this CPU has everything, qemu shows the program a smaller one.
#
#     sh tests/e2e/supported.sh BIN SOURCE WORK
set -u

bin=$1
source=$2
work=$3
images=${MPQC_FASHION:?}/train-images-idx3-ubyte.gz
failed=0
passed=0

rm -rf "$work"
mkdir -p "$work"

compile() { # TARGET
    "$bin/mpqc" "$source/tutorials/networks/fashion_autoencoder.onnx" -calib="$images" \
        -calib-count=2 -target="$1" -o "$work/$1.so" >"$work/log" 2>&1 || {
        cat "$work/log"
        exit 1
    }
}

# refused NAME COMMAND...: exit status 1 and one sentence that names the target.
refused() {
    name=$1
    shift
    "$@" >"$work/stdout" 2>"$work/stderr"
    status=$?
    if [ $status -eq 1 ] && [ "$(wc -l <"$work/stderr")" -eq 1 ] && [ ! -s "$work/stdout" ] &&
        grep -Eq "^mpqc-run: error: .*(CPU|processor)" "$work/stderr"; then
        passed=$((passed + 1))
        echo "$name: $(cat "$work/stderr")"
        return
    fi
    echo "FAILED: $name: exit status $status"
    cat "$work/stdout" "$work/stderr"
    failed=$((failed + 1))
}

# runs NAME COMMAND...
runs() {
    name=$1
    shift
    if "$@" >"$work/stdout" 2>&1; then
        passed=$((passed + 1))
        return
    fi
    echo "FAILED: $name"
    cat "$work/stdout"
    failed=$((failed + 1))
}

targets=$("$bin/mpqc" -list-targets | awk '{ print $1 }')
for target in $targets; do
    compile "$target"
done

# This CPU, as /proc/cpuinfo describes it.
has() { grep -m1 '^flags' /proc/cpuinfo | grep -qw "$1"; }
for row in avx2:avx2 avx-vnni:avx_vnni avx512:avx512bw avx512-dot:avx512_vnni \
    avx512-vnni:avx512vbmi amx:amx_int8; do
    if has "${row#*:}"; then
        runs "${row%:*} on this CPU" "$bin/mpqc-run" "$work/x86-64:${row%:*}.so" -repeat=1
        continue
    fi
    refused "${row%:*} on this CPU" "$bin/mpqc-run" "$work/x86-64:${row%:*}.so"
done

# A library of another architecture is no library at all here.
"$bin/mpqc-run" "$work/aarch64:neon.so" >"$work/stdout" 2>"$work/stderr"
if [ $? -ne 1 ] || [ "$(wc -l <"$work/stderr")" -ne 1 ]; then
    echo "FAILED: a library for aarch64 on x86-64"
    cat "$work/stderr"
    failed=$((failed + 1))
fi

# qemu's x86 has no AVX-512, and a Nehalem no AVX.
if ! command -v qemu-x86_64 >/dev/null || [ "${MPQC_E2E_SANITIZED:-0}" = 1 ]; then
    echo "skipped: no qemu-x86_64, or a program that it cannot run"
elif ! qemu-x86_64 -cpu Nehalem "$bin/mpqc-run" -version >/dev/null 2>&1; then
    echo "skipped: qemu-x86_64 cannot run mpqc-run"
else
    refused 'avx512-vnni under qemu' qemu-x86_64 -cpu max "$bin/mpqc-run" "$work/x86-64:avx512-vnni.so"
    refused 'amx under qemu' qemu-x86_64 -cpu max "$bin/mpqc-run" "$work/x86-64:amx.so"
    for target in $targets; do
        case $target in x86-64:generic | aarch64:*) continue ;; esac
        refused "$target on a Nehalem" qemu-x86_64 -cpu Nehalem "$bin/mpqc-run" "$work/$target.so"
    done
    runs 'generic on a Nehalem' qemu-x86_64 -cpu Nehalem "$bin/mpqc-run" "$work/x86-64:generic.so" -repeat=1
    refused 'generic without SSSE3' qemu-x86_64 -cpu Nehalem,-ssse3 "$bin/mpqc-run" "$work/x86-64:generic.so"
fi

if ! command -v qemu-aarch64 >/dev/null || [ ! -x "$bin/mpqc-run-aarch64" ]; then
    echo "skipped: no qemu-aarch64 or no mpqc-run-aarch64"
else
    arm="qemu-aarch64 -L /usr/aarch64-linux-gnu"
    refused 'dotprod on a Cortex-A53' $arm -cpu cortex-a53 "$bin/mpqc-run-aarch64" "$work/aarch64:dotprod.so"
    refused 'i8mm on a Neoverse N1' $arm -cpu neoverse-n1 "$bin/mpqc-run-aarch64" "$work/aarch64:i8mm.so"
    runs 'i8mm on the largest' $arm -cpu max "$bin/mpqc-run-aarch64" "$work/aarch64:i8mm.so" -repeat=1
    runs 'dotprod on the largest' $arm -cpu max "$bin/mpqc-run-aarch64" "$work/aarch64:dotprod.so" -repeat=1
    runs 'neon on a Cortex-A53' $arm -cpu cortex-a53 "$bin/mpqc-run-aarch64" "$work/aarch64:neon.so" -repeat=1
fi

if [ $passed -eq 0 ] && [ $failed -eq 0 ]; then
    echo "skipped: this CPU has every feature and there is no qemu"
    exit 77
fi
[ $failed -eq 0 ]
