#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Same input, same bytes: twice, with one thread and with two, and by way of a
# profile; for every target and kind of output.
#
#     sh tests/e2e/same.sh BIN SOURCE WORK
set -u

bin=$1
source=$2
work=$3
calib="-calib=${MPQC_FASHION:?}/train-images-idx3-ubyte.gz -calib-count=24"
failed=0

rm -rf "$work"

# compile WHERE NETWORK FLAG...
compile() {
    where=$work/$1
    network=$source/tutorials/networks/fashion_$2.onnx
    shift 2
    mkdir -p "$where"
    if ! "$bin/mpqc" "$network" -o "$where/model.so" -mean=0.286 -std=0.353 "$@" \
        >"$where/log" 2>&1; then
        echo "FAILED: mpqc $network $*"
        cat "$where/log"
        failed=$((failed + 1))
    fi
}

same() { # WHAT FILE FILE
    if cmp -s "$2" "$3"; then
        return
    fi
    echo "FAILED: $1: $2 and $3 differ"
    failed=$((failed + 1))
}

# shellcheck disable=SC2086 # $calib is two words on purpose
for net in autoencoder mobile resnet; do
    compile $net/one $net $calib -j 1 -dump-profile="$work/$net-1.profile"
    compile $net/two $net $calib -j 2 -dump-profile="$work/$net-2.profile"
    compile $net/again $net $calib -j 2
    compile $net/loaded $net -load-profile="$work/$net-1.profile"
    compile $net/other $net -calib="$MPQC_FASHION/t10k-images-idx3-ubyte.gz" -calib-count=3
    same "$net, -j 1 and -j 2" "$work/$net/one/model.so" "$work/$net/two/model.so"
    same "$net, profiles" "$work/$net-1.profile" "$work/$net-2.profile"
    same "$net, twice" "$work/$net/two/model.so" "$work/$net/again/model.so"
    same "$net, -load-profile" "$work/$net/one/model.so" "$work/$net/loaded/model.so"
    if cmp -s "$work/$net/one/model.so" "$work/$net/other/model.so"; then
        echo "FAILED: $net: other data gives the same library"
        failed=$((failed + 1))
    fi
done

# A profile holds for every scheme and target.
profile=-load-profile=$work/mobile-1.profile
for kind in so obj a llvm asm ir header; do
    for target in x86-64:avx2 aarch64:dotprod; do
        compile "$kind-$target-1" mobile "$profile" -emit=$kind -target=$target -j 1
        compile "$kind-$target-2" mobile "$profile" -emit=$kind -target=$target -j 2
        same "-emit=$kind for $target" "$work/$kind-$target-1/model.so" \
            "$work/$kind-$target-2/model.so"
    done
done

[ $failed -eq 0 ] && echo "all the same"
