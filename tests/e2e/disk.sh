#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A disk without room: one sentence, exit status 1, nothing left behind.  A limit on
# the size of files stands for the disk everywhere; a small tmpfs where one can be
# mounted.
#
#     sh tests/e2e/disk.sh BIN SOURCE WORK
. "$2/tests/lib.sh"

umount "$work/disk" 2>/dev/null
start disk
net=$nets/fashion_autoencoder.onnx
calib="-calib=$train -calib-count=2"

full_disk() { # NAME COMMAND...
    name=$1
    shift
    run "$@"
    problem=
    [ -z "$(ls -A "$work/disk")" ] || problem="left behind: $(ls -A "$work/disk")"
    refused "$name" . "$problem"
    rm -rf "$work/disk"/*
}

# At most so many blocks of 512 bytes (dash) or 1024 (bash) a file.
limited() { # NAME BLOCKS COMMAND...
    name=$1
    blocks=$2
    shift 2
    run in_limits "$blocks" "$@"
    refused "$name" .
}
in_limits() (trap '' XFSZ; ulimit -f "$1"; shift; "$@")

# shellcheck disable=SC2086 # $calib is two words on purpose
must 'with room' "$bin/mpqc" "$net" $calib -o "$work/model.so"

# shellcheck disable=SC2086 # $calib is two words on purpose
for kind in so obj a llvm asm ir; do
    limited "-emit=$kind, limited files" 64 "$bin/mpqc" "$net" $calib -emit=$kind -o "$work/out/model"
done
limited '-dump-profile, limited files' 2 "$bin/mpqc" "$net" $calib -o "$work/out/model" \
    -dump-profile="$work/out/p"
limited 'mpqc-run -out, limited files' 64 "$bin/mpqc-run" "$work/model.so" -in="$train" -count=100 \
    -out="$work/out/y.npy"

if mount -t tmpfs -o size=96k tmpfs "$work/disk" 2>/dev/null; then
    trap 'umount "$work/disk"' EXIT
    # shellcheck disable=SC2086
    for kind in so obj a llvm asm ir; do
        full_disk "-emit=$kind, full disk" "$bin/mpqc" "$net" $calib -emit=$kind -o "$work/disk/model"
    done
    full_disk 'mpqc-run -out, full disk' "$bin/mpqc-run" "$work/model.so" -in="$train" \
        -count=100 -out="$work/disk/y.npy"
else
    leave_out "no tmpfs can be mounted here"
fi

finish 8
