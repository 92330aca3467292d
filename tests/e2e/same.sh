#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Same input, same bytes: twice, with one thread and with two, and by way of a
# profile; for every target and kind of output.
#
#     sh tests/e2e/same.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
start
calib="-calib=$train -calib-count=24"

# compile WHERE NETWORK FLAG...
compile() {
    where=$work/$1
    network=$nets/fashion_$2.onnx
    shift 2
    mkdir -p "$where"
    works "mpqc $network $*" "$bin/mpqc" "$network" -o "$where/model.so" -mean=0.286 -std=0.353 "$@"
}

# shellcheck disable=SC2086 # $calib is two words on purpose
for net in autoencoder mobile resnet; do
    compile $net/one $net $calib -j 1 -dump-profile="$work/$net-1.profile"
    compile $net/two $net $calib -j 2 -dump-profile="$work/$net-2.profile"
    compile $net/again $net $calib -j 2
    compile $net/loaded $net -load-profile="$work/$net-1.profile"
    compile $net/other $net -calib="$images" -calib-count=3
    same "$net, -j 1 and -j 2" "$work/$net/one/model.so" "$work/$net/two/model.so"
    same "$net, profiles" "$work/$net-1.profile" "$work/$net-2.profile"
    same "$net, twice" "$work/$net/two/model.so" "$work/$net/again/model.so"
    same "$net, -load-profile" "$work/$net/one/model.so" "$work/$net/loaded/model.so"
    different "$net, other data" "$work/$net/one/model.so" "$work/$net/other/model.so"
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

finish
