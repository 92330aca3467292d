#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# -calib=distill: images made from the BatchNorms of a bundled network calibrate it as
# well as real ones do, whatever the number of threads; and what cannot be done is said.
#
#     sh tests/e2e/distill.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
range="-mean=0.286 -std=0.353"
count=1000

# Sanitizers and -O0 make the interpreter slow.
few=
[ "${MPQC_E2E_SANITIZED:-0}" = 1 ] && few=-calib-count=4 && count=100

start 1 2

# compile NETWORK OUT FLAG...
compile() {
    network=$nets/fashion_$1.onnx
    out=$work/$2
    shift 2
    # shellcheck disable=SC2086 # two words on purpose
    works "mpqc $network $*" "$bin/mpqc" "$network" -o "$out" $range "$@"
}

top1() { # LIBRARY
    works "$1" "$bin/mpqc-run" "$work/$1" -in="$images" -count=$count -json -labels="$labels"
    top1=$(number_in "$work/stdout" top1)
}

compile resnet real.so -calib="$train"
compile resnet distilled.so -calib=distill $few
top1 real.so
real=$top1
top1 distilled.so
echo "top-1 on $count images: $real % calibrated with real ones, $top1 % with made ones"
holds "made images lose less than a point" "$top1 >= $real - 1 && $top1 > 80"

# The name of the library is in it.
for j in 1 2; do
    compile resnet $j/model.so -calib=distill -calib-count=3 -j $j
done
same "-j 1 and -j 2" "$work/1/model.so" "$work/2/model.so"

compile autoencoder weak.so -calib=distill:weak -calib-count=4
says "distill:weak" 'warning: the network has no BatchNormalization'

refuses() { # PATTERN NETWORK FLAG...
    pattern=$1
    network=$nets/fashion_$2.onnx
    shift 2
    run "$bin/mpqc" "$network" -o "$work/out/none.so" "$@"
    refused "$*" "$pattern"
}
refuses 'has no BatchNormalization.*distill:weak' mobile -calib=distill
refuses 'makes all the data itself' resnet -calib=distill -calib="$images"
refuses 'makes all the data itself' resnet -calib="$images" -calib=distill
refuses 'have no labels' resnet -calib=distill -wbits=8 -sensitivity=fisher -mixed=ilp \
    -max-size=0.9x -labels="$labels"
refuses '3 values' resnet -calib=distill -mean=0,0,0 -std=1,1,1

finish
