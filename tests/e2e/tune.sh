#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# -tune-kernels: answers stay the same bytes, the cache decides, and what is refused.
# Which tile is the fastest here is no question of a test.
#
#     sh tests/e2e/tune.sh BIN SOURCE WORK
set -u

bin=$1
source=$2
work=$3
images=${MPQC_FASHION:?}/train-images-idx3-ubyte.gz
failed=0
passed=0

rm -rf "$work"
mkdir -p "$work"

verdict() { # NAME STATUS
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
        cat "$work/out" "$work/err"
    fi
}

# compile OUT FLAG...: the name of a library is in it, so it is given afterwards
compile() {
    out=$1
    shift
    "$bin/mpqc" "$source/tutorials/networks/fashion_resnet.onnx" -calib="$images" -calib-count=4 \
        -o "$work/model.so" "$@" >"$work/out" 2>"$work/err" || return 1
    mv "$work/model.so" "$work/$out.so"
}

answers() { # LIBRARY
    "$bin/mpqc-run" "$work/$1.so" -in="$images" -count=40 -out="$work/$1.npy" >"$work/out" \
        2>"$work/err"
}

refuses() { # NAME PATTERN FLAG...
    name=$1
    pattern=$2
    shift 2
    compile refused "$@"
    status=$?
    [ $status -eq 1 ] && [ "$(wc -l <"$work/err")" -eq 1 ] && [ ! -e "$work/model.so" ] &&
        grep -q -- "$pattern" "$work/err"
    verdict "$name is refused" $?
}

compile plain
verdict "without" $?
compile tuned -tune-kernels=3 -tune-cache="$work/cache" -v -report="$work/report.json"
verdict "with" $?
grep -Eq '^tiles     [0-9]+ of [0-9]+ shapes changed: [0-9.]+ -> [0-9.]+ us' "$work/out"
verdict "says what it did" $?
grep -Eq '^/?stage1.* ([0-9]+x[0-9]+x[0-9]+[or]*|amx) ' "$work/out"
verdict "-v names tiles" $?
grep -Eq '"tile": "([0-9x]+[or]*|amx)", "tile_ns": [0-9.]+, "usual_tile": "' "$work/report.json"
verdict "-report names tiles" $?
answers plain && answers tuned && cmp -s "$work/plain.npy" "$work/tuned.npy"
verdict "same answers" $?

# ---- the cache decides ----
cp "$work/cache" "$work/cache.kept"
compile again -tune-kernels=3 -tune-cache="$work/cache"
verdict "with the cache" $?
cmp -s "$work/tuned.so" "$work/again.so" && cmp -s "$work/cache" "$work/cache.kept"
verdict "the same cache gives the same library" $?
# the last tile of each shape is said to take no time at all
awk '{ line[NR] = $0; last[$1] = $2; key[NR] = $1; tile[NR] = $2 }
     END { for (i = 1; i <= NR; i++)
               print key[i], tile[i], tile[i] == last[key[i]] ? 1 : 1000 }' \
    "$work/cache.kept" >"$work/cache"
compile other -tune-kernels=3 -tune-cache="$work/cache"
verdict "with another cache" $?
grep -Eq '^tiles     [1-9][0-9]* of' "$work/out"
verdict "the cache's tiles are taken" $?
! cmp -s "$work/plain.so" "$work/other.so"
verdict "another library" $?
answers other && cmp -s "$work/plain.npy" "$work/other.npy"
verdict "same answers again" $?
cross=x86-64:amx
[ "$(uname -m)" = aarch64 ] || cross=aarch64:dotprod

# ---- refused ----
refuses "a target of another machine" "cannot run code for $cross; give -measure=cmd" \
    -target=$cross -tune-kernels=2 -tune-cache=none
refuses "no tiles" "-tune-kernels" -tune-kernels=0
refuses "too many tiles" "-tune-kernels" -tune-kernels=17
refuses "a cache alone" "-tune-kernels=N" -tune-cache="$work/cache"
refuses "an unwritable cache" "cannot be opened" -tune-kernels=2 -tune-cache="$work/none/cache"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
