#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The code for AMX returns the bytes of the other targets, on CPUs without AMX too: its
# LLVM text gets functions (emulated_tiles.c) in the place of tile instructions.
# Needs a CPU with the rest of that target, which is avx512-vnni.
#
#     sh tests/e2e/amx.sh BIN SOURCE WORK
. "$2/tests/lib.sh"

llc=$(command -v llc-19 || echo /usr/lib/llvm-19/bin/llc)
[ -x "$llc" ] || skip "there is no llc-19"
grep -q avx512_vnni /proc/cpuinfo && grep -q avx512vbmi /proc/cpuinfo ||
    skip "this CPU has no AVX-512 with VNNI and VBMI"
start
calib="-calib=$train -calib-count=24"
features=+ssse3,+avx512f,+avx512dq,+avx512cd,+avx512bw,+avx512vl,+avx512vnni,+avx512vbmi

must "emulated tiles" ${CC:-cc} -std=c11 -O2 -fPIC -c "$source/tests/e2e/emulated_tiles.c" \
    -o "$work/tiles.o"

# The text of an AMX library as a library of this CPU.
emulate() { # TEXT LIBRARY
    sed -e 's/@llvm\.x86\.\(ldtilecfg\|tile[a-z0-9]*\|tdpbusd\)(/@emulated_\1(/' \
        -e '/^declare .*@emulated_/s/immarg//g' \
        -e '/^@mpqc_model = /s/ptr @supported,/ptr @emulated_supported,/' \
        -e 's/"target-features"="[^"]*"//' "$1" >"$work/text.ll"
    echo 'declare i32 @emulated_supported()' >>"$work/text.ll"
    "$llc" -O2 -relocation-model=pic -mcpu=x86-64-v4 -mattr=$features -filetype=obj \
        "$work/text.ll" -o "$work/text.o" &&
        ${CC:-cc} -shared "$work/text.o" "$work/tiles.o" -o "$2"
}

check() { # NETWORK FLAG...
    network=$1
    shift
    # shellcheck disable=SC2086 # several flags
    set -- "$bin/mpqc" "$nets/fashion_$network.onnx" $calib -target=x86-64 "$@"
    works "$network: AMX" "$@" -mcpu=amx -emit=llvm -o "$work/$network.ll" &&
        works "$network: AVX-512" "$@" -mcpu=avx512-vnni -o "$work/$network.so" || return
    tiles=$(grep -c 'call .*@llvm\.x86\.tdpbusd' "$work/$network.ll")
    works "$network: emulated" emulate "$work/$network.ll" "$work/$network-amx.so"
    for threads in 1 2; do
        for library in "$network" "$network-amx"; do
            works "$library runs" "$bin/mpqc-run" "$work/$library.so" -in="$images" -count=100 \
                -threads=$threads -out="$work/$library.npy"
        done
        same "$network with $threads threads" "$work/$network.npy" "$work/$network-amx.npy"
    done
    echo "$network: $tiles tile products"
    total=$((total + tiles))
}

total=0
for network in resnet mobile autoencoder; do
    check $network -mean=0.286 -std=0.353
done
holds "tile products" "$total > 0"
finish
