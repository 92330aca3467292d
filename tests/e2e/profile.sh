#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# mpqc-run -profile adds up, for every target that runs here: rows to layers_ns, that and
# what lies between to sum_ns; rates follow from times, counts and the peak.  Whether the
# times are good is no question of a test.
#
#     sh tests/e2e/profile.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
start

# One "key": value a line; layers begin with their name.
lines() {
    tr '{' '\n' <"$1" | sed 's/, "/\n"/g'
}

# adds_up FILE SORTED
adds_up() {
    lines "$1" | awk -F': ' -v sorted="$2" '
    function near(a, b, slack, what) {
        if (a - b > slack || b - a > slack) { print what ": " a " is not " b; bad = 1 }
    }
    function row_ends() {
        if (!row) return
        if (bytes <= 0) { print "layer without bytes"; bad = 1 }
        if (macs > 0 && ns > 0) {
            near(gmacs * ns, macs, 0.02 * macs + 0.05 * gmacs, "gmacs x ns")
            if (peak > 0) near(percent, 100 * gmacs / peak, 0.02 * percent, "peak_percent")
        }
        # times are printed with one decimal: a kernel of 0.33 ns says 0.3
        if (ns > 0) near(rate * ns, bytes, 0.02 * bytes + 0.05 * rate, "gbytes_per_s x ns")
        if (sorted && ns > last) { print "not sorted"; bad = 1 }
        last = ns; sum += ns; rows++; row = 0
    }
    { gsub(/["}\]]/, "") }
    $1 == "peak_gmacs" { peak = $2 }
    $1 == "index" { row_ends(); row = 1; if (rows == 0) last = 1e18 }
    $1 == "ns" { ns = $2 }
    $1 == "macs" { macs = $2 }
    $1 == "bytes" { bytes = $2 }
    $1 == "gmacs" { gmacs = $2 }
    $1 == "peak_percent" { percent = $2 }
    $1 == "gbytes_per_s" { rate = $2 }
    $1 == "layers_ns" { row_ends(); layers = $2 }
    $1 == "between_ns" { between = $2 }
    $1 == "sum_ns" { whole = $2 }
    $1 == "plain_ns" { plain = $2 }
    END {
        near(sum, layers, rows, "sum of rows")
        near(layers + between, whole, 1, "sum")
        if (rows < 5 || !(peak > 0) || !(plain > 0)) { print "rows, peak or plain run"; bad = 1 }
        exit bad
    }'
}

# profile TARGET RUNNER...
profile() {
    target=$1
    shift
    # shellcheck disable=SC2086 # $data is several words on purpose
    must "$target compiles" "$bin/mpqc" "$nets/fashion_resnet.onnx" $data -target="$target" \
        -o "$work/m.so"
    works "$target runs" "$@" "$work/m.so" -profile -json -repeat=5
    cp "$work/stdout" "$work/profile"
    works "$target adds up" adds_up "$work/profile" 0
    works "$target runs, sorted" "$@" "$work/m.so" -profile -json -sort -repeat=5
    cp "$work/stdout" "$work/profile"
    works "$target, sorted, adds up" adds_up "$work/profile" 1
    run "$@" "$work/m.so" -profile -repeat=5
    says "$target has a peak" '^peak .*[0-9] GMAC/s a core \('
}

data="-calib=$train -calib-count=2 -dump-profile=$work/ranges"
for target in $("$bin/mpqc" -list-targets | awk '{ print $1 }' | grep :); do
    case $target in
    aarch64:*)
        [ -x "$bin/mpqc-run-aarch64" ] && command -v qemu-aarch64 >/dev/null || continue
        profile "$target" qemu-aarch64 -L /usr/aarch64-linux-gnu "$bin/mpqc-run-aarch64"
        ;;
    *)
        must "$target compiles" "$bin/mpqc" "$nets/fashion_autoencoder.onnx" -calib="$train" \
            -calib-count=1 -target="$target" -o "$work/a.so"
        run "$bin/mpqc-run" "$work/a.so" -count=1
        [ "$status" -ne 0 ] || profile "$target" "$bin/mpqc-run" # else not on this CPU
        ;;
    esac
    data="-load-profile=$work/ranges"
done

finish 10
