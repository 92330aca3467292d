#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# -tune-kernels: answers stay the same bytes, the cache decides, and what is refused.
# Which tile is the fastest here is no question of a test.
#
#     sh tests/e2e/tune.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
start

# compile OUT FLAG...: the name of a library is in it, so it is given afterwards
compile() {
    out=$1
    shift
    run "$bin/mpqc" "$nets/fashion_resnet.onnx" -calib="$train" -calib-count=4 \
        -o "$work/out/model.so" "$@"
    [ "$status" -ne 0 ] || mv "$work/out/model.so" "$work/$out.so"
}

compiles() { # NAME OUT FLAG...
    name=$1
    shift
    compile "$@"
    status_is "$name" 0 "$status"
}

answers() { # LIBRARY
    works "$1 runs" "$bin/mpqc-run" "$work/$1.so" -in="$train" -count=40 -out="$work/$1.npy"
}

refuses() { # NAME PATTERN FLAG...
    name=$1
    pattern=$2
    shift 2
    compile refused "$@"
    problem=
    [ "$(wc -l <"$work/stderr")" -eq 1 ] || problem="not one line"
    refused "$name is refused" "$pattern" "$problem"
}

compiles "without" plain
compiles "with" tuned -tune-kernels=3 -tune-cache="$work/cache" -v -report="$work/report.json"
says "says what it did" '^tiles     [0-9]+ of [0-9]+ shapes changed: [0-9.]+ -> [0-9.]+ us'
says "-v names tiles" '^/?stage1.* ([0-9]+x[0-9]+x[0-9]+[or]*|amx[124]x[124]l?) '
grep -Eq '"tile": "([0-9x]+[or]*|amx[124]x[124]l?)", "tile_ns": [0-9.]+, "usual_tile": "' "$work/report.json"
status_is "-report names tiles" 0 $?
answers plain
answers tuned
same "same answers" "$work/plain.npy" "$work/tuned.npy"

# ---- the cache decides ----
cp "$work/cache" "$work/cache.kept"
compiles "with the cache" again -tune-kernels=3 -tune-cache="$work/cache"
same "the same cache" "$work/cache" "$work/cache.kept"
same "the same cache gives the same library" "$work/tuned.so" "$work/again.so"
# the last tile of each shape is said to take no time at all
awk '{ line[NR] = $0; last[$1] = $2; key[NR] = $1; tile[NR] = $2 }
     END { for (i = 1; i <= NR; i++)
               print key[i], tile[i], tile[i] == last[key[i]] ? 1 : 1000 }' \
    "$work/cache.kept" >"$work/cache"
compiles "with another cache" other -tune-kernels=3 -tune-cache="$work/cache"
says "the cache's tiles are taken" '^tiles     [1-9][0-9]* of'
different "another library" "$work/plain.so" "$work/other.so"
answers other
same "same answers again" "$work/plain.npy" "$work/other.npy"
cross=x86-64:amx
[ "$(uname -m)" = aarch64 ] || cross=aarch64:dotprod

# ---- refused ----
refuses "a target of another machine" "cannot run code for $cross; give -measure=cmd" \
    -target=$cross -tune-kernels=2 -tune-cache=none
refuses "no tiles" "-tune-kernels" -tune-kernels=0
refuses "too many tiles" "-tune-kernels" -tune-kernels=17
refuses "a cache alone" "-tune-kernels=N" -tune-cache="$work/cache"
refuses "an unwritable cache" "cannot be opened" -tune-kernels=2 -tune-cache="$work/none/cache"

finish 18
