#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A disk without room: one sentence, exit status 1, nothing left behind.  A limit on
# the size of files stands for the disk everywhere; a small tmpfs where one can be
# mounted.
#
#     sh tests/e2e/disk.sh BIN SOURCE WORK
set -u

bin=$1
source=$2
work=$3
net=$source/tutorials/networks/fashion_autoencoder.onnx
images=${MPQC_FASHION:?}/train-images-idx3-ubyte.gz
calib="-calib=$images -calib-count=2"
failed=0
passed=0

umount "$work/disk" 2>/dev/null
rm -rf "$work"
mkdir -p "$work/disk" "$work/limited"

verdict() { # NAME STATUS FOLDER
    problem=
    [ "$2" -eq 1 ] || problem="exit status $2"
    [ "$(grep -c 'error: ' "$work/stderr")" -eq 1 ] || problem="$problem; not one error"
    [ -z "$(ls -A "$3")" ] || problem="$problem; left behind: $(ls -A "$3")"
    if [ -z "$problem" ]; then
        passed=$((passed + 1))
        return
    fi
    echo "FAILED: $1: $problem"
    sed 's/^/    /' "$work/stderr"
    failed=$((failed + 1))
    rm -rf "$3"/*
}

full_disk() { # NAME COMMAND...
    name=$1
    shift
    "$@" >"$work/stdout" 2>"$work/stderr"
    verdict "$name" $? "$work/disk"
}

# At most so many blocks of 512 bytes (dash) or 1024 (bash) a file.
limited() { # NAME BLOCKS COMMAND...
    name=$1
    blocks=$2
    shift 2
    (trap '' XFSZ; ulimit -f "$blocks"; "$@" 2>"$work/stderr")
    verdict "$name" $? "$work/limited"
}

"$bin/mpqc" "$net" $calib -o "$work/model.so" >"$work/log" 2>&1 || {
    cat "$work/log"
    exit 1
}

# shellcheck disable=SC2086 # $calib is two words on purpose
for kind in so obj a llvm asm ir; do
    limited "-emit=$kind, limited files" 64 "$bin/mpqc" "$net" $calib -emit=$kind -o "$work/limited/model"
done
limited '-dump-profile, limited files' 2 "$bin/mpqc" "$net" $calib -o "$work/limited/model" \
    -dump-profile="$work/limited/p"
limited 'mpqc-run -out, limited files' 64 "$bin/mpqc-run" "$work/model.so" -in="$images" -count=100 \
    -out="$work/limited/y.npy"

if mount -t tmpfs -o size=96k tmpfs "$work/disk" 2>/dev/null; then
    trap 'umount "$work/disk"' EXIT
    # shellcheck disable=SC2086
    for kind in so obj a llvm asm ir; do
        full_disk "-emit=$kind, full disk" "$bin/mpqc" "$net" $calib -emit=$kind -o "$work/disk/model"
    done
    full_disk 'mpqc-run -out, full disk' "$bin/mpqc-run" "$work/model.so" -in="$images" \
        -count=100 -out="$work/disk/y.npy"
else
    echo "skipped: no tmpfs can be mounted here"
fi

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
