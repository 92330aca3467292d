#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The bundled networks on all 10,000 test images, through mpqc and mpqc-run: integer
# top-1 at most 0.5 points under float, reconstruction at most 5 % worse.
#
#     sh tests/e2e/accuracy.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
start

check_top1() { # NAME FLOAT
    works "$1: mpqc-run" "$bin/mpqc-run" "$work/$1.so" -in="$images" -json -labels="$labels" || return
    got=$(number_in "$work/stdout" top1)
    samples=$(number_in "$work/stdout" samples)
    top5=$(number_in "$work/stdout" top5)
    echo "$1: top-1 $got % (float $2 %), top-5 $top5 %, $samples samples"
    holds "$1: samples" "$samples == 10000"
    holds "$1: top-1" "$got >= $2 - 0.5 && $got <= 100"
    holds "$1: top-5" "$top5 >= $got && $top5 <= 100"
    holds "$1: latency" "$(number_in "$work/stdout" median) > 0"
}

check_mse() { # NAME FLOAT
    works "$1: mpqc-run" "$bin/mpqc-run" "$work/$1.so" -in="$images" -out="$work/$1.npy" || return
    works "$1: reconstruction" "${MPQC_E2E_BIN:?}/e2e_reconstruction" "$1" "$work/$1.npy" || return
    rm -f "$work/$1.npy"
    got=$(cat "$work/stdout")
    echo "$1: mean squared error $got (float $2)"
    holds "$1: error" "$got > 0 && $got <= $2 * 1.05"
}

while read -r name metric value mean std _; do
    [ "$name" != name ] || continue
    works "$name: mpqc" "$bin/mpqc" "$nets/$name.onnx" -o "$work/$name.so" -calib="$train" \
        -mean="$mean" -std="$std" || continue
    case $metric in
        top1) check_top1 "$name" "$value" ;;
        mse) check_mse "$name" "$value" ;;
        *) verdict "$name" "unknown metric $metric" ;;
    esac
done <"$nets/networks.tsv"

finish
