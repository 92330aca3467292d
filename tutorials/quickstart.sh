#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# From a fresh clone to integer-only answers: builds mpqc, compiles a bundled
# network for this machine, runs it on the Fashion-MNIST test images, then
# compiles it for aarch64 and compares the answers byte by byte.
set -eu

cd "$(dirname "$0")/.."
network=fashion_resnet
data=/usr/share/datasets/fashion-mnist
bin=build/release/bin
work=build/quickstart
onnx=tutorials/networks/$network.onnx

say() {
    printf '%s\n' "$*"
}

step() {
    printf '\n%s\n' "$*"
}

# Runs a command in silence; shows what it printed if it fails.
quietly() {
    if ! "$@" >"$work/log" 2>&1; then
        cat "$work/log" >&2
        say "quickstart: this command failed: $*" >&2
        exit 1
    fi
}

# Prints column $1 of this network's row in networks.tsv.
recorded() {
    awk -F '\t' -v name="$network" -v want="$1" '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == want) column = i }
        $1 == name { print $column }' tutorials/networks/networks.tsv
}

# Prints the first number under key $2 in the JSON object of file $1.
number_in() {
    tr -d ' \n' <"$1" | sed -n "s/.*\"$2\":\([0-9.eE+-]*\).*/\1/p"
}

kib() {
    echo $((($(wc -c <"$1") + 1023) / 1024))
}

compile() { # OUTPUT [FLAG]...
    output=$1
    shift
    "$bin/mpqc" "$onnx" -o "$output" \
        -calib="$data/train-images-idx3-ubyte.gz" -calib-count=512 \
        -mean="$(recorded mean)" -std="$(recorded std)" "$@"
}

# Prints the two bytes of $1, high one first, as printf escapes.
escaped() {
    printf '\\%03o\\%03o' $(($1 / 256)) $(($1 % 256))
}

# Prints the first $1 test images as an IDX file: header, then pixels.
first_images() {
    # shellcheck disable=SC2059 # the format is made of escapes
    printf "\\000\\000\\010\\003\\000\\000$(escaped "$1")"
    printf '\000\000\000\034\000\000\000\034'
    gzip -dc "$data/t10k-images-idx3-ubyte.gz" 2>/dev/null |
        tail -c +17 2>/dev/null | head -c $(($1 * 28 * 28))
}

say "1. Install what is missing"
sh tutorials/setup.sh
mkdir -p "$work"

step "2. Build mpqc (a minute or two the first time)"
quietly cmake --preset release
quietly cmake --build --preset release

step "3. Compile $onnx for this machine"
native=$work/$network.so
compile "$native"

step "4. Run it on the 10,000 Fashion-MNIST test images"
"$bin/mpqc-run" "$native" -json -threads=1 \
    -in="$data/t10k-images-idx3-ubyte.gz" \
    -labels="$data/t10k-labels-idx1-ubyte.gz" >"$work/result.json"
say "   float accuracy     $(recorded value) %   (recorded in tutorials/networks/PROVENANCE.md)"
say "   integer accuracy   $(LC_ALL=C printf %.2f "$(number_in "$work/result.json" top1)") %"
say "   library size       $(kib "$native") KiB   (the ONNX file: $(kib "$onnx") KiB)"
say "   latency            $(number_in "$work/result.json" median) ms an image, one thread (median)"

step "5. Compile the same network for aarch64"
foreign=$work/${network}_aarch64.so
compile "$foreign" -target=aarch64

count=200
step "6. Compare the answers to $count images, x86-64 against aarch64"
if ! command -v qemu-aarch64 >/dev/null; then
    say "   skipped: there is no qemu-aarch64 on this machine"
    exit 0
fi
images=$work/first-$count-images-idx3-ubyte
first_images $count >"$images"
quietly "$bin/mpqc-run" "$native" -in="$images" -out="$work/native.npy"
quietly qemu-aarch64 -L /usr/aarch64-linux-gnu "$bin/mpqc-run-aarch64" \
    "$foreign" -in="$images" -out="$work/aarch64.npy"
if ! cmp "$work/native.npy" "$work/aarch64.npy"; then
    say "quickstart: the answers differ; please report this with $work" >&2
    exit 1
fi
say "   identical bytes"

step "Next: $bin/mpqc -help, and the other networks in tutorials/networks"
