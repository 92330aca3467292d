#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Wrong requests about bits: exit status 1, one sentence on stderr, nothing left behind.
#
#     sh tests/cli/mixed_errors.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
[ -f "$images" ] || skip "no Fashion-MNIST"
start
out=$work/out/model.so

# refuses NAME PATTERN FLAG...: mpqc with these flags fails, with PATTERN on stderr.
refuses() {
    name=$1
    pattern=$2
    shift 2
    run "$bin/mpqc" "$net" -o "$out" "$@"
    refused "$name" "$pattern"
}

net=$nets/fashion_resnet.onnx
calib=-calib=$images
few=-calib-count=8

# ---- flags that say nothing known ----
refuses 'strategy' "-mixed=best is not known; it is one of ilp.*off" "$calib" -mixed=best
refuses 'metric' "-sensitivity=fear is not known; it is one of .*weight-mse" "$calib" -sensitivity=fear
refuses 'what to minimize' "-minimize=time is not known" "$calib" -minimize=time
refuses 'cost' "-cost=guess is not known" "$calib" -cost=guess
refuses 'measure' "-measure=moon is not known" "$calib" -measure=moon
refuses 'measure: no command' "-measure=cmd: is not known" "$calib" -measure=cmd:
refuses 'candidate' "no choice 'w9a9'; the choices are w8a16, w8a8" "$calib" -candidates=w4a8,w9a9
refuses 'no candidate' "-candidates wants" "$calib" -candidates=
net=$nets/fashion_mobile.onnx
refuses 'few levels' "-abits=3 does not exist; it is one of 1, 2, 4, 8" "$calib" -abits=3
refuses 'no such bits' "-wbits=7 does not exist; it is one of 1, 2, 3, 4, 5, 6, 8" "$calib" -wbits=7
refuses 'wide' "block2/depthwise.*cannot have 16-bit inputs: .*table of 256 entries, that of '/block1" \
    "$calib" $few -pin='block2/depthwise=w8a16'
net=$nets/fashion_resnet.onnx
refuses 'report' "ends in .json or .csv" "$calib" -report="$work/out/report.xml"
refuses 'near' "did you mean '-max-size'" "$calib" -max-sise=0.5x
for amount in x 0x 0 -1x 10QB 1x2 nan infx 0x10; do
    refuses "size $amount" "-max-size wants .*, not '$amount'" "$calib" -max-size=$amount
done
for amount in 5 1.5 ms 3us2; do
    refuses "latency $amount" "-max-latency wants .* with its unit" "$calib" -max-latency=$amount
done
refuses 'bops' "-max-bops wants" "$calib" -max-bops=1.2GB
refuses 'omega' "-max-omega wants" "$calib" -max-omega=0.5x
refuses 'drop' "-max-drop wants points" "$calib" -max-drop=101 -labels="$labels"

# ---- flags that contradict each other ----
refuses 'off, but bounded' "-mixed=off contradicts" "$calib" -mixed=off -max-size=0.5x
refuses 'nothing to decide' "-mixed without a bound" "$calib" -mixed=ilp
refuses 'drop without labels' "give -labels=FILE" "$calib" -max-drop=1
refuses 'labels without samples' "-labels without -calib" -labels="$labels" -load-profile=x \
    -max-drop=1
refuses 'two sensitivities' "-load-sensitivity contradicts" "$calib" -max-size=0.5x \
    -load-sensitivity=x -sensitivity=weight-mse
refuses 'smallest of all' "-minimize without a bound on the loss" "$calib" -minimize=size
refuses 'loss under loss' "-max-omega bounds what" "$calib" -minimize=loss -max-omega=1
refuses 'count of nothing' "-eval-count without -labels" "$calib" -max-size=0.5x -eval-count=5
refuses 'eval for nothing' "-eval is what -max-drop and -pareto are judged by" "$calib" \
    -max-size=0.5x -eval="$images" -labels="$labels"
refuses 'eval without labels' "-eval is what -max-drop and -pareto are judged by" "$calib" \
    -pareto=x.csv -eval="$images"
refuses 'labels for nothing' "-labels has no effect here" "$calib" -labels="$labels"
refuses 'measure nothing' "-measure contradicts" "$calib" -max-latency=0.9x -cost=analytic \
    -measure=local

cross=x86-64:amx
[ "$(uname -m)" = aarch64 ] || cross=aarch64:dotprod
measured="-max-latency=0.9x -cost=measured -sensitivity=weight-mse -latency-cache=none"
# shellcheck disable=SC2086 # several flags
{
    refuses 'times of another machine' \
        "this machine, which cannot run code for $cross; give -measure=cmd:.* or -cost=analytic" \
        "$calib" $few $measured -target=$cross
    refuses 'times of another machine, emulated' "qemu-aarch64, which cannot run code for x86-64" \
        "$calib" $few $measured -target=x86-64:generic -measure=qemu
}

refuses 'report of nothing' "-report describes the finished network" "$calib" $few \
    -report="$work/out/r.json" -stop-after=calibrate

# ---- budgets that cannot be met ----
refuses 'too small' "-max-size: the budget of .* cannot be met; the least .* more" "$calib" $few \
    -max-size=0.1x -sensitivity=weight-mse -dump-config="$work/out/plan"
refuses 'too few bytes' "-max-size: the budget of 5000 bytes cannot be met" "$calib" $few \
    -max-size=5KB -sensitivity=weight-mse
refuses 'too few operations' "-max-bops: the budget of .* cannot be met" "$calib" $few \
    -max-bops=0.05x -sensitivity=weight-mse
refuses 'too little time' "-max-latency: the budget of .* us cannot be met" "$calib" $few \
    -max-latency=1ns -cost=analytic -sensitivity=weight-mse
refuses 'too little loss' "-max-omega: the budget of .* cannot be met" "$calib" $few \
    -max-omega=1e-9 -sensitivity=weight-mse
refuses 'brute force' "brute force would have to try" "$calib" $few -mixed=brute \
    -max-size=0.5x -sensitivity=weight-mse
refuses 'no plan but pins' "cannot be met" "$calib" $few -max-size=0.5x -pin='.=w8a8' \
    -sensitivity=weight-mse
refuses 'no plan of the candidates' "cannot be met" "$calib" $few -max-size=0.5x \
    -candidates=w8a8,w6a8 -sensitivity=weight-mse

# ---- pins ----
printf '# rules\n^/stem=w8a8\nnowhere=w4a8\n' >"$work/rules"
refuses 'pin of nothing' "-pin: the rule 'nosuch=w8a8' matches none" "$calib" $few -pin=nosuch=w8a8
refuses 'pin of nothing, in a file' "rules:3: the rule 'nowhere=w4a8' matches none" "$calib" $few \
    -pin="$work/rules"
refuses 'pin: file or rule' "neither a file nor a rule" "$calib" $few -pin=nofile
refuses 'pin: choice' "there is no choice 'w7'" "$calib" $few -pin=stem=w7
refuses 'pin: expression' "not a POSIX extended regular expression" "$calib" $few -pin='(=w8a8'
refuses 'pin: operator' "op:LSTM=w8a8' matches none" "$calib" $few -pin=op:LSTM=w8a8
refuses 'pin: a folder' "cannot be read" "$calib" $few -pin="$work/out"

# ---- labels ----
more=$fashion/train-labels-idx1-ubyte.gz
refuses 'labels: too many' "60000 labels, but -calib has 10000 samples" "$calib" $few \
    -max-drop=1 -labels="$more"
refuses 'labels: too many for -eval' "60000 labels, but -eval has 10000 samples" "$calib" $few \
    -max-drop=1 -eval="$images" -labels="$more"
refuses 'eval: of no input' "-eval names input 'y', which the network does not have" "$calib" \
    $few -max-drop=1 -eval="y:$images" -labels="$labels"
refuses 'labels: missing' "nolabels.npy" "$calib" $few -max-drop=1 -labels=nolabels.npy
refuses 'labels: not labels' "t10k-images" "$calib" $few -max-drop=1 -labels="$images"
head -c 3136 /dev/zero | npy "$work/four.npy" '|u1' '(4, 28, 28)'
printf '\000\001\002\012' | npy "$work/class.npy" '|u1' '(4,)'
refuses 'labels: no such class' "label 10 of sample 3 is no class: the network has 10 outputs" \
    -calib="$work/four.npy" -max-drop=1 -labels="$work/class.npy" -sensitivity=weight-mse

# ---- sensitivities ----
"$bin/mpqc" "$nets/fashion_mobile.onnx" "$calib" $few -sensitivity=weight-mse \
    -dump-sensitivity="$work/mobile.txt" -o "$work/mobile.so" >/dev/null 2>&1
refuses 'sensitivity of another network' "mobile.txt: the sensitivities are of another network" \
    "$calib" $few -max-size=0.5x -load-sensitivity="$work/mobile.txt"
refuses 'sensitivity: missing' "nofile.*cannot be opened" "$calib" $few -max-size=0.5x \
    -load-sensitivity=nofile
refuses 'sensitivity: a plan' "rules: line 1: this is not a table of sensitivity" "$calib" $few \
    -max-size=0.5x -load-sensitivity="$work/rules"
head -c 600 "$work/mobile.txt" >"$work/half.txt"
net=$nets/fashion_mobile.onnx
refuses 'sensitivity: half' "half.txt: (line|the sens)" "$calib" $few -max-size=0.5x \
    -load-sensitivity="$work/half.txt"
refuses 'sensitivity: lacks a pin' "mobile.txt.*not the choice that it is pinned to, w8a16" \
    "$calib" $few -max-size=0.5x -load-sensitivity="$work/mobile.txt" '-pin=op:Gemm=w8a16'

# ---- files that cannot be written ----
refuses 'plan unwritable' "nodir/plan.*cannot be written" "$calib" $few -max-size=0.6x \
    -sensitivity=weight-mse -dump-config="$work/nodir/plan"
refuses 'report unwritable' "nodir/r.json.*cannot be written" "$calib" $few -max-size=0.6x \
    -sensitivity=weight-mse -report="$work/nodir/r.json"
refuses 'front unwritable' "nodir/front.csv.*cannot be written" "$calib" $few \
    -sensitivity=weight-mse -pareto="$work/nodir/front.csv"
refuses 'sensitivity unwritable' "nodir/s.*cannot be written" "$calib" $few \
    -sensitivity=weight-mse -dump-sensitivity="$work/nodir/s"

finish 70
