#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The bundled networks on all 10,000 test images, through mpqc and mpqc-run: integer
# top-1 at most 0.5 points under float, reconstruction at most 5 % worse.
#
#     sh tests/e2e/accuracy.sh BIN SOURCE WORK
set -u

bin=$1
source=$2
work=$3
data=${MPQC_FASHION:?}
table=$source/tutorials/networks/networks.tsv
failed=0

rm -rf "$work"
mkdir -p "$work"

fail() {
    echo "FAILED: $*"
    failed=$((failed + 1))
}

# The number under KEY in the JSON object of FILE.
number_in() { # FILE KEY
    tr -d ' \n' <"$1" | sed -n "s/.*\"$2\":\([0-9.eE+-]*\).*/\1/p"
}

holds() { awk "BEGIN { exit !($1) }"; }

check_top1() { # NAME FLOAT
    "$bin/mpqc-run" "$work/$1.so" -in="$data/t10k-images-idx3-ubyte.gz" -json \
        -labels="$data/t10k-labels-idx1-ubyte.gz" >"$work/$1.json" || {
        fail "$1: mpqc-run"
        return
    }
    got=$(number_in "$work/$1.json" top1)
    samples=$(number_in "$work/$1.json" samples)
    top5=$(number_in "$work/$1.json" top5)
    echo "$1: top-1 $got % (float $2 %), top-5 $top5 %, $samples samples"
    [ "$samples" = 10000 ] || fail "$1: $samples samples instead of 10000"
    holds "$got >= $2 - 0.5 && $got <= 100" || fail "$1: top-1 $got % is more than 0.5 under $2 %"
    holds "$top5 >= $got && $top5 <= 100" || fail "$1: top-5 $top5 %"
    [ -n "$(number_in "$work/$1.json" median)" ] || fail "$1: no latency"
}

check_mse() { # NAME FLOAT
    "$bin/mpqc-run" "$work/$1.so" -in="$data/t10k-images-idx3-ubyte.gz" \
        -out="$work/$1.npy" >/dev/null || {
        fail "$1: mpqc-run"
        return
    }
    got=$("${MPQC_E2E_BIN:?}/e2e_reconstruction" "$1" "$work/$1.npy") || fail "$1: reconstruction"
    rm -f "$work/$1.npy"
    echo "$1: mean squared error $got (float $2)"
    holds "$got > 0 && $got <= $2 * 1.05" || fail "$1: error $got is more than 5 % over $2"
}

while read -r name metric value mean std _; do
    [ "$name" != name ] || continue
    if ! "$bin/mpqc" "$source/tutorials/networks/$name.onnx" -o "$work/$name.so" \
        -calib="$data/train-images-idx3-ubyte.gz" -mean="$mean" -std="$std" \
        >"$work/$name.log" 2>&1; then
        cat "$work/$name.log"
        fail "$name: mpqc"
        continue
    fi
    case $metric in
        top1) check_top1 "$name" "$value" ;;
        mse) check_mse "$name" "$value" ;;
        *) fail "$name: unknown metric $metric" ;;
    esac
done <"$table"

[ $failed -eq 0 ]
