#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# mpqc-run from outside, on the hand-written model: answers, accuracy, JSON, threads,
# the other CPU, and what it refuses.
#
#     sh tests/cli/run.sh BIN SOURCE WORK          (MPQC_SPECIMENS: folder of specimen.so)
. "$2/tests/lib.sh"
start
model=${MPQC_SPECIMENS:?}/specimen.so

# accepts NAME PATTERN ARGUMENT...: mpqc-run succeeds and prints PATTERN.
accepts() {
    name=$1
    pattern=$2
    shift 2
    run "$bin/mpqc-run" "$@"
    problem=
    [ "$status" -eq 0 ] || problem="exit status $status"
    grep -Eq -- "$pattern" "$work/stdout" || problem="$problem; no '$pattern' on stdout"
    [ ! -s "$work/stderr" ] || problem="$problem; something on stderr"
    verdict "$name" "$problem"
}

# refuses NAME PATTERN ARGUMENT...: one line on stderr.
refuses() {
    name=$1
    pattern=$2
    shift 2
    run "$bin/mpqc-run" "$@"
    problem=
    [ "$(wc -l <"$work/stderr")" -eq 1 ] || problem="not one line"
    refused "$name" "^mpqc-run: error: .*$pattern" "$problem"
}

# The numbers from standard input as bytes.
bytes() {
    tr -s ' \n' '\n\n' | while read -r v; do
        # shellcheck disable=SC2059 # the format is made of escapes
        [ -z "$v" ] || printf "\\$(printf %03o "$v")"
    done
}

pixels="0 15 30 45 60 75 90 105 120 135 150 165 180 195 210 225
255 0 240 10 220 30 200 50 180 70 160 90 140 110 120 130
7 77 177 247 3 33 133 233 1 11 111 211 99 199 29 129"
echo "$pixels" | bytes | npy "$work/x.npy" '|u1' '(3, 4, 4)'
echo "$pixels" | bytes >"$work/pixels"

# ---- answers ----
accepts "images" "samples +3" "$model" -in="$work/x.npy" -out="$work/y.npy" -out="q:$work/q.npy"
accepts "named input" "samples +3" "$model" -in "x:$work/x.npy"
accepts "count and skip" "samples +1" "$model" -in="$work/x.npy" -skip=1 -count=1 \
    --out="$work/one.npy"
dd if="$work/y.npy" bs=1 skip=192 count=64 2>/dev/null >"$work/second"
tail -c 64 "$work/one.npy" >"$work/only"
same "the second sample alone" "$work/second" "$work/only"
accepts "threads" "3 threads" "$model" -in="$work/x.npy" -out="$work/y3.npy" -threads=3 -repeat=5
same "threads give the same bytes" "$work/y.npy" "$work/y3.npy"
accepts "threads, as mpqc calls them" "2 threads" "$model" -in="$work/x.npy" -j 2

# The model's own pre-processing is (u8 / 255 - 0.5) / 0.25.
accepts "flags that say the same" "samples" "$model" -in="$work/x.npy" -out="$work/same.npy" \
    -scale=255 -mean=0.5 -std=0.25
same "flags that say the same: answers" "$work/y.npy" "$work/same.npy"
accepts "another scale" "samples" "$model" -in="$work/x.npy" -out="$work/other.npy" -scale=100
if cmp -s "$work/y.npy" "$work/other.npy"; then
    verdict "another scale: other answers" "the same answers"
fi
printf '\000\000\010\003\000\000\000\003\000\000\000\004\000\000\000\004' |
    cat - "$work/pixels" >"$work/x-idx3-ubyte"
accepts "IDX" "samples +3" "$model" -in="$work/x-idx3-ubyte" -out="$work/idx.npy"
same "IDX: answers" "$work/y.npy" "$work/idx.npy"
gzip -nc "$work/x-idx3-ubyte" >"$work/x-idx3-ubyte.gz"
accepts "IDX, packed" "samples +3" "$model" -in="$work/x-idx3-ubyte.gz" -out="$work/idx.npy"
same "IDX, packed: answers" "$work/y.npy" "$work/idx.npy"

# ---- accuracy: labels are the highest value of each answer, the lower index on a tie ----
tail -c 48 "$work/q.npy" | od -An -v -td1 -w16 | awk '{
    best = 1
    for (i = 2; i <= NF; i++) if ($i > $best) best = i
    print best - 1
}' >"$work/best"
bytes <"$work/best" | npy "$work/right.npy" '|u1' '(3,)'
accepts "all right" "top-1 +100.00 %" "$model" -in="$work/x.npy" -labels="$work/right.npy"
awk 'NR == 2 { $1 = ($1 + 1) % 16 } { print }' "$work/best" | bytes |
    npy "$work/two.npy" '|u1' '(3, 1)'
accepts "two of three" "top-1 +66.67 %" "$model" -in="$work/x.npy" -labels="$work/two.npy"
accepts "top-16 is everything" "top-16 +100.00 %" "$model" -in="$work/x.npy" \
    -labels="$work/two.npy" -top=1,16
accepts "json" '^\{"model": "specimen", .*"samples": 3, .*"top1": 66\.6667, "top5": .*"latency_ms": \{"min": [0-9.]+, "median": [0-9.]+, "p99": [0-9.]+\}\}$' \
    "$model" -in="$work/x.npy" -labels="$work/two.npy" -json
[ "$(wc -l <"$work/stdout")" -eq 1 ] || verdict "json: one line" "more than one"
accepts "json without labels" '"top1": null, "top5": null' "$model" -in="$work/x.npy" -json

# ---- times, description ----
accepts "made-up numbers" "100 runs, 1 thread" "$model"
accepts "profile" "100.00 .*\(sum\)" "$model" -profile -repeat=3
accepts "profile beside plain runs" "without profile; the sum is [-+]" "$model" -profile -repeat=3
accepts "profile without a peak" "peak +n/a: .* target hand-written" "$model" -profile
accepts "profile names layers" "second  matmul" "$model" -profile -repeat=3
accepts "profile in json" '"layers": \[\{"name": "first"' "$model" -profile -json
accepts "info" "input +'x' f32 \[1,4,4\]" "$model" -info
accepts "profile in json without a peak" '"peak_gmacs": null, "peak_instruction": null' \
    "$model" -profile -json
accepts "info in json" '"inputs": \[\{"name": "x"' "$model" -info -json
accepts "a tag" "samples +3" "$MPQC_SPECIMENS/specimen_tagged.so" -tag=thimble -in="$work/x.npy"
accepts "help" "usage: mpqc-run" -help
accepts "version" "mpqc-run [0-9]" -version

# ---- refusals ----
o=$work/out/y.npy
refuses "no model" "no model given"
refuses "unknown flag" "'-lables'; did you mean '-labels'" "$model" -lables=x
refuses "threads, by name" "-threads wants a whole number from 0 to 1024, not 'x'" -threads=x
refuses "threads, by the other name" "-j wants a whole number from 0 to 1024, not 'x'" -j=x
refuses "missing model" "none.so: cannot be opened" "$work/none.so"
refuses "no library" "x.npy: not a shared library" "$work/x.npy"
refuses "wrong tag" "no model called 'mpqc_model_a'" "$model" -tag=a
refuses "missing tag" "give -tag=NAME" "$MPQC_SPECIMENS/specimen_tagged.so"
refuses "wrong CPU" "this CPU does not support" "$MPQC_SPECIMENS/specimen_unsupported.so"
refuses "missing data" "none.npy: cannot be opened" "$model" -in="$work/none.npy" -out="$o"
refuses "no such input" "input 'z'.* 'x'" "$model" -in="z:$work/x.npy" -out="$o"
refuses "no such output" "output 'z'.* 'y'" "$model" -in="$work/x.npy" -out="z:$o"
head -c 32 "$work/pixels" | npy "$work/two-images.npy" '|u1' '(2, 4, 4)'
refuses "too many labels" "right.npy: 3 labels, but .* has 2 samples" "$model" \
    -in="$work/two-images.npy" -labels="$work/right.npy" -out="$o"
echo "1 2 16" | bytes | npy "$work/high.npy" '|u1' '(3,)'
refuses "label that is no class" "label 16 of sample 2" "$model" -in="$work/x.npy" \
    -labels="$work/high.npy" -out="$o"
refuses "labels without data" "-labels without -in" "$model" -labels="$work/right.npy"
npy "$work/shape.npy" '|u1' '(3, 2, 8)' <"$work/pixels"
refuses "wrong shape" "\[1,4,4\].*\[2,8\]" "$model" -in="$work/shape.npy" -out="$o"
npy "$work/long.npy" '|u1' '(4, 4, 4)' <"$work/pixels"
refuses "truncated" "long.npy: truncated" "$model" -in="$work/long.npy" -out="$o"
npy "$work/empty.npy" '|u1' '(0, 4, 4)' </dev/null
refuses "no samples" "empty.npy: there are no samples" "$model" -in="$work/empty.npy" -out="$o"
for v in '\000\000\300\177' '\000\000\200\377'; do
    i=0
    while [ $i -lt 16 ]; do
        # shellcheck disable=SC2059 # the format is made of escapes
        printf "$v"
        i=$((i + 1))
    done | npy "$work/nan.npy" '<f4' '(1, 4, 4)'
    refuses "NaN or Inf" "nan.npy: sample 0 holds NaN or Inf" "$model" -in="$work/nan.npy" \
        -out="$o"
done
refuses "skip all" "-skip=3 leaves nothing" "$model" -in="$work/x.npy" -skip=3 -out="$o"
refuses "count too high" "-count=9, but there are 3" "$model" -in="$work/x.npy" -count=9
refuses "too many threads" "-threads wants .* to 1024" "$model" -threads=9999
refuses "too many threads, by the other name" "-j wants .* to 1024" "$model" -j=9999
refuses "bad mean" "-mean wants" "$model" -in="$work/x.npy" -mean=a,b
refuses "std of 0" "-std wants numbers other than 0" "$model" -in="$work/x.npy" -std=0
refuses "lengths differ" "differ in length" "$model" -in="$work/x.npy" -mean=1,2,3 -std=1,2
refuses "unwritable" "cannot be written" "$model" -in="$work/x.npy" -out="$work/none/y.npy"
refuses "full disk" "/dev/full: cannot be written" "$model" -in="$work/x.npy" -out=/dev/full
[ -c /dev/full ] || verdict "full disk: the device" "was replaced"
"$bin/mpqc-run" "$model" -in="$work/x.npy" >/dev/full 2>"$work/stderr"
status_is "full disk on stdout" 1 $?

# ---- the other CPU ----
foreign=$MPQC_SPECIMENS/specimen_aarch64.so
if [ -f "$foreign" ]; then
    refuses "another architecture" "compiled for" "$foreign" -in="$work/x.npy" -out="$o"
fi
if [ -f "$foreign" ] && [ -x "$bin/mpqc-run-aarch64" ] && command -v qemu-aarch64 >/dev/null; then
    arm="qemu-aarch64 -L /usr/aarch64-linux-gnu $bin/mpqc-run-aarch64"
    # shellcheck disable=SC2086 # several words on purpose
    works "aarch64" $arm "$foreign" -threads=2 -in="$work/x.npy" -out="$work/a64.npy"
    same "aarch64: answers" "$work/y.npy" "$work/a64.npy"
    # shellcheck disable=SC2086
    run $arm "$foreign" -in="$work/x-idx3-ubyte.gz"
    says "aarch64 and packed data" 'without zlib; unpack it with gunzip'
fi

finish 50
