#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The code for AMX returns the bytes of the other targets, on CPUs without AMX too: its
# LLVM text gets functions (emulated_tiles.c) in the place of tile instructions.
# Needs a CPU with the rest of that target, which is avx512-vnni.
#
#     sh tests/e2e/amx.sh BIN SOURCE WORK
set -u

bin=$1
source=$2
work=$3
fashion=${MPQC_FASHION:?}
calib="-calib=$fashion/train-images-idx3-ubyte.gz -calib-count=24"
failed=0

llc=$(command -v llc-19 || echo /usr/lib/llvm-19/bin/llc)
if [ ! -x "$llc" ]; then
    echo "skipped: there is no llc-19"
    exit 77
fi
grep -q avx512_vnni /proc/cpuinfo && grep -q avx512vbmi /proc/cpuinfo || {
    echo "skipped: this CPU has no AVX-512 with VNNI and VBMI"
    exit 77
}
rm -rf "$work"
mkdir -p "$work"
features=+ssse3,+avx512f,+avx512dq,+avx512cd,+avx512bw,+avx512vl,+avx512vnni,+avx512vbmi

${CC:-cc} -std=c11 -O2 -fPIC -c "$source/tests/e2e/emulated_tiles.c" -o "$work/tiles.o" || exit 1

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

check() { # NAME NETWORK FLAG...
    name=$1
    network=$2
    shift 2
    # shellcheck disable=SC2086 # several flags
    "$bin/mpqc" "$network" $calib "$@" -target=x86-64 -mcpu=amx -emit=llvm -o "$work/$name.ll" \
        >"$work/log" 2>&1 &&
        "$bin/mpqc" "$network" $calib "$@" -target=x86-64 -mcpu=avx512-vnni -o "$work/$name.so" \
            >>"$work/log" 2>&1 || {
        cat "$work/log"
        echo "FAILED: $name does not compile"
        failed=$((failed + 1))
        return
    }
    tiles=$(grep -c 'call .*@llvm\.x86\.tdpbusd' "$work/$name.ll")
    emulate "$work/$name.ll" "$work/$name-amx.so" || failed=$((failed + 1))
    for threads in 1 2; do
        for library in "$name" "$name-amx"; do
            "$bin/mpqc-run" "$work/$library.so" -in="$fashion/t10k-images-idx3-ubyte.gz" \
                -count=100 -threads=$threads -out="$work/$library.npy" >"$work/log" 2>&1 || {
                cat "$work/log"
                failed=$((failed + 1))
            }
        done
        cmp "$work/$name.npy" "$work/$name-amx.npy" || {
            echo "FAILED: $name with $threads threads: AMX differs from AVX-512"
            failed=$((failed + 1))
        }
    done
    echo "$name: $tiles tile products"
    total=$((total + tiles))
}

total=0
for network in resnet mobile autoencoder; do
    check $network "$source/tutorials/networks/fashion_$network.onnx" -mean=0.286 -std=0.353
done
[ $total -gt 0 ] || {
    echo "FAILED: no kernel uses tiles"
    failed=$((failed + 1))
}
exit $((failed > 0))
