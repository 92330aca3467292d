#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# bench_kernels prints rows that can be: all layers, targets and bits that were asked for,
# rates that follow from times.  No time is compared with anything.
#
#     sh smoke.sh BENCH_KERNELS WORK
set -eu

bench=$1
work=$2
rm -rf "$work"
mkdir -p "$work"

fail() {
    echo "FAILED: $1"
    cat "$work/out" "$work/rows"
    exit 1
}

"$bench" -network=KWS -bits=8,4 -rounds=1 -target=native -tsv="$work/rows" -page="$work/page" \
    >"$work/out"
"$bench" -network=KWS -layer=pointwise -bits=8 -rounds=1 -tsv="$work/all" >"$work/out"
tail -n +2 "$work/all" >>"$work/rows"
awk -F'\t' '
    function near(a, b) { return a - b <= 0.02 * b + 0.2 && b - a <= 0.02 * b + 0.2 }
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    {
        rows++
        targets[$at["target"]] = 1
        layers[$at["layer"]] = 1
        if (!($at["macs"] > 0 && $at["bytes"] > 0 && $at["ns"] > 0 && $at["peak"] > 0)) bad = 1
        if (!near($at["gmacs"], $at["macs"] / $at["ns"])) bad = 1
        if (!near($at["peak_percent"], 100 * $at["gmacs"] / $at["peak"])) bad = 1
        if (($at["template"] == "depthwise") != ($at["tile"] == "-")) bad = 1
        if (bad) { print "this cannot be: " $0; exit 1 }
    }
    END {
        n = 0; for (t in targets) n++
        m = 0; for (l in layers) m++
        # depthwise weights are not packed, so their layer has one row
        if (!bad && (n < 1 || m != 3 || rows != 5 + n)) { print rows " rows"; exit 1 }
    }' "$work/rows" || fail "rows"
grep -Eq '^[|] KWS [|] pointwise 64 [|] gemm 1x1 [|] 25x5x64 -> 64 [|] ([0-9x]+[or]*|amx[124]x[124]l?) [|] [0-9.]+ [|]' \
    "$work/page" ||
    fail "page"

# tiles by rank, libraries that are kept and used again
"$bench" -network=KWS -layer=pointwise -target=native -bits=8 -tiles=3 -rounds=1 -dir="$work/kept" \
    -tsv="$work/rows" >"$work/out"
[ "$(wc -l <"$work/rows")" -eq 4 ] || fail "three tiles and a heading"
before=$(ls -l "$work/kept" | sort)
"$bench" -network=KWS -layer=pointwise -target=native -bits=8 -tiles=3 -rounds=1 -dir="$work/kept" \
    -tsv="$work/again" >"$work/out"
[ "$(ls -l "$work/kept" | sort)" = "$before" ] || fail "kept libraries"
cut -f1-17 "$work/rows" >"$work/a"
cut -f1-17 "$work/again" >"$work/b"
cmp "$work/a" "$work/b" || fail "the same rows"
! "$bench" -network=none -rounds=0 2>"$work/out" || fail "no such network"
grep -q 'no layer has such a name' "$work/out" || fail "what is wrong"
echo "all rows can be"
