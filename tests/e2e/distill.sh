#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# -calib=distill: images made from the BatchNorms of a bundled network calibrate it as
# well as real ones do, whatever the number of threads; and what cannot be done is said.
#
#     sh tests/e2e/distill.sh BIN SOURCE WORK
set -u

bin=$1
source=$2
work=$3
data=${MPQC_FASHION:?}
nets=$source/tutorials/networks
range="-mean=0.286 -std=0.353"
images=1000
failed=0

# Sanitizers and -O0 make the interpreter slow.
count=
[ "${MPQC_E2E_SANITIZED:-0}" = 1 ] && count=-calib-count=4 && images=100

rm -rf "$work"
mkdir -p "$work"

fail() {
    echo "FAILED: $*"
    failed=$((failed + 1))
}

# compile NETWORK OUT FLAG...
compile() {
    network=$nets/fashion_$1.onnx
    out=$work/$2
    shift 2
    # shellcheck disable=SC2086 # two words on purpose
    "$bin/mpqc" "$network" -o "$out" $range "$@" >"$work/log" 2>&1 || {
        fail "mpqc $network $*"
        cat "$work/log"
    }
}

top1() { # LIBRARY
    "$bin/mpqc-run" "$1" -in="$data/t10k-images-idx3-ubyte.gz" -count=$images -json \
        -labels="$data/t10k-labels-idx1-ubyte.gz" | tr -d ' \n' |
        sed -n 's/.*"top1":\([0-9.]*\).*/\1/p'
}

compile resnet real.so -calib="$data/train-images-idx3-ubyte.gz"
compile resnet distilled.so -calib=distill $count
real=$(top1 "$work/real.so")
distilled=$(top1 "$work/distilled.so")
echo "top-1 on $images images: $real % calibrated with real ones, $distilled % with made ones"
awk "BEGIN { exit !($distilled >= $real - 1 && $distilled > 80) }" ||
    fail "made images lose more than a point"

# The name of the library is in it.
mkdir "$work/1" "$work/2"
for j in 1 2; do
    compile resnet $j/model.so -calib=distill -calib-count=3 -j $j
done
cmp "$work/1/model.so" "$work/2/model.so" || fail "-j 1 and -j 2 differ"

compile autoencoder weak.so -calib=distill:weak -calib-count=4
grep -q 'warning: the network has no BatchNormalization' "$work/log" || fail "distill:weak is silent"

# refuses PATTERN NETWORK FLAG...: exit status 1, one error with PATTERN, no library.
refuses() {
    pattern=$1
    network=$nets/fashion_$2.onnx
    shift 2
    "$bin/mpqc" "$network" -o "$work/none.so" "$@" >/dev/null 2>"$work/stderr"
    [ $? -eq 1 ] || fail "$*: exit status"
    [ "$(grep -c 'error: ' "$work/stderr")" -eq 1 ] || fail "$*: not one error"
    grep 'error: ' "$work/stderr" | grep -q -- "$pattern" || {
        fail "$*: no '$pattern'"
        cat "$work/stderr"
    }
    [ ! -e "$work/none.so" ] || fail "$*: left a library"
}
real_data=$data/t10k-images-idx3-ubyte.gz
refuses 'has no BatchNormalization.*distill:weak' mobile -calib=distill
refuses 'makes all the data itself' resnet -calib=distill -calib="$real_data"
refuses 'makes all the data itself' resnet -calib="$real_data" -calib=distill
refuses 'have no labels' resnet -calib=distill -wbits=8 -sensitivity=fisher -mixed=ilp \
    -max-size=0.9x -labels="$data/t10k-labels-idx1-ubyte.gz"
refuses '3 values' resnet -calib=distill -mean=0,0,0 -std=1,1,1

[ $failed -eq 0 ]
