#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Do weights of few bits pay where memory is the limit?  One dense layer at batch 1, more
# weights than the caches hold, with 8, 4, 3 and 2 bits, and with a scale for every 128, 64 or
# 32 inputs (-group-size):
#
#   sh tests/bench/lowbit/lowbit.sh BIN LOWBIT [K [N [ROUNDS]]]
#
# BIN holds mpqc, LOWBIT is the program made from lowbit.c (build/.../tests/bin/lowbit).
# K inputs, N outputs (25088 x 8192: 206 MB in 8 bits, 51 in 2).  All libraries run in turn
# in one process, with one thread and with two; the last column is the time of 8 bits over
# the line's own.  Weights are rounded to nearest: here only their number of bits counts.
# FLAGS in the environment are for mpqc as well (-mcpu=avx512-vnni).
set -eu
bin=$1
lowbit=$2
k=${3:-25088}
n=${4:-8192}
rounds=${5:-25}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
"$lowbit" make "$k" "$n" "$work/dense.onnx"
"$lowbit" calib "$k" "$work/calib.npy"

# build NAME FLAGS...
build() {
    name=$1
    shift
    # shellcheck disable=SC2086 # several flags
    "$bin/mpqc" "$work/dense.onnx" -calib="$work/calib.npy" -rounding=nearest \
        -weight-clip=minmax -no-bias-correct -io=int ${FLAGS:-} "$@" -o "$work/$name.so" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; exit 1; }
}

for bits in 8 4 3 2; do build "w${bits}a8" -wbits=$bits; done
for bits in 4 2; do
    for size in 128 64 32; do build "w${bits}a8g$size" -wbits=$bits -group-size=$size; done
done
cd "$work"
for threads in 1 2; do
    echo "$k x $n, threads: $threads"
    "$lowbit" time $threads "$rounds" w8a8.so w4a8.so w4a8g128.so w4a8g64.so w4a8g32.so \
        w3a8.so w2a8.so w2a8g128.so w2a8g64.so w2a8g32.so
done
