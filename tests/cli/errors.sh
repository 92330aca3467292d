#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Wrong input: every case must end with exit status 1, one clear sentence on
# stderr that names what is wrong, and no output file, whole or half.
#
#     sh tests/cli/errors.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
start emptydir
out=$work/out/model.so

# refuses NAME PATTERN COMMAND...
refuses() {
    name=$1
    pattern=$2
    shift 2
    run "$@"
    problem=
    [ "$(wc -l <"$work/stderr")" -eq 1 ] || problem="not one line"
    refused "$name" "$pattern" "$problem"
}

zeros() { head -c "$1" /dev/zero; }

mpqc=$bin/mpqc
mpqc_run=$bin/mpqc-run
net=$nets/fashion_autoencoder.onnx
calib="-calib=$train -calib-count=4"

zeros 6272 | npy "$work/good.npy" '<f4' '(2, 784)'
zeros 800 | npy "$work/shape.npy" '<f4' '(2, 100)'
zeros 0 | npy "$work/empty.npy" '<f4' '(0, 784)'
zeros 3000 | npy "$work/short.npy" '<f4' '(2, 784)'
zeros 12544 | npy "$work/complex.npy" '<c8' '(2, 784)'
{ printf '\000\000\300\177'; zeros 6268; } | npy "$work/nan.npy" '<f4' '(2, 784)'
{ zeros 3136; printf '\000\000\200\377'; zeros 3132; } | npy "$work/inf.npy" '<f4' '(2, 784)'
head -c 10000 "$net" >"$work/truncated.onnx"
: >"$work/empty.onnx"
head -c 4000 /dev/urandom >"$work/random.onnx"
echo 'this is a text file' >"$work/text.onnx"
printf '\034\000\000\000TFL3' >"$work/lite.tflite"
printf 'version https://git-lfs.github.com/spec/v1\n' >"$work/pointer.onnx"
cp "$net" "$work/own.onnx"

# shellcheck disable=SC2086 # $calib is two words on purpose
{
    refuses 'no arguments' 'no network given' "$mpqc"
    refuses 'unknown flag, near' "did you mean '-calib'" "$mpqc" "$net" -calb=x -o "$out"
    refuses 'unknown flag, far' "unknown flag '-qqqqqqqqqqq'" "$mpqc" "$net" -qqqqqqqqqqq -o "$out"
    refuses 'flag without its value' "needs a value" "$mpqc" "$net" -o
    refuses 'two networks' 'one network at a time' "$mpqc" "$net" "$net" -o "$out"
    refuses 'no output' 'no output given' "$mpqc" "$net" $calib
    refuses 'no calibration' 'no calibration data' "$mpqc" "$net" -o "$out"
    refuses 'missing network' 'nothere.onnx.*No such file' "$mpqc" nothere.onnx $calib -o "$out"
    refuses 'network is a folder' 'emptydir' "$mpqc" "$work/emptydir" $calib -o "$out"
    refuses 'empty network' 'empty.onnx' "$mpqc" "$work/empty.onnx" $calib -o "$out"
    refuses 'truncated network' 'truncated.onnx.*(byte|offset) ' "$mpqc" "$work/truncated.onnx" $calib -o "$out"
    refuses 'random bytes' 'random.onnx' "$mpqc" "$work/random.onnx" $calib -o "$out"
    refuses 'text' 'text.onnx.*a text file' "$mpqc" "$work/text.onnx" $calib -o "$out"
    refuses 'an array as network' 'a NumPy array' "$mpqc" "$work/good.npy" $calib -o "$out"
    refuses 'a network of others' 'TensorFlow Lite' "$mpqc" "$work/lite.tflite" $calib -o "$out"
    refuses 'a program as network' 'a program' "$mpqc" "$mpqc" $calib -o "$out"
    refuses 'a file not fetched' 'git lfs pull' "$mpqc" "$work/pointer.onnx" $calib -o "$out"
    refuses 'missing data' 'nothere.npy' "$mpqc" "$net" -calib=nothere.npy -o "$out"
    refuses 'wrong shape' 'shape.npy.*784' "$mpqc" "$net" -calib="$work/shape.npy" -o "$out"
    refuses 'wrong type' 'complex.npy' "$mpqc" "$net" -calib="$work/complex.npy" -o "$out"
    refuses 'no samples' 'empty.npy' "$mpqc" "$net" -calib="$work/empty.npy" -o "$out"
    refuses 'truncated data' 'short.npy' "$mpqc" "$net" -calib="$work/short.npy" -o "$out"
    refuses 'NaN in data' '(nan.npy.*sample 0|sample 0.*nan.npy)' "$mpqc" "$net" -calib="$work/nan.npy" -o "$out"
    refuses 'Inf in data' '(inf.npy.*sample 1|sample 1.*inf.npy)' "$mpqc" "$net" -calib="$work/inf.npy" -o "$out"
    refuses 'empty folder' 'emptydir' "$mpqc" "$net" -calib="$work/emptydir" -o "$out"
    refuses 'unknown input' "input 'nosuch'" "$mpqc" "$net" -calib=nosuch:"$train" -o "$out"
    refuses 'unknown target' "pdp11" "$mpqc" "$net" $calib -target=pdp11 -o "$out"
    refuses 'unknown cpu' "z80" "$mpqc" "$net" $calib -mcpu=z80 -o "$out"
    refuses 'unknown kind' '-emit=exe is not known' "$mpqc" "$net" $calib -emit=exe -o "$out"
    refuses 'unknown method' '-calibration=best is not known' "$mpqc" "$net" $calib -calibration=best -o "$out"
    refuses 'bad number' "-calib-count wants a whole number" "$mpqc" "$net" -calib="$train" -calib-count=many -o "$out"
    refuses 'no threads' "-j wants a whole number from 1" "$mpqc" "$net" $calib -j=0 -o "$out"
    refuses 'too many threads' "-j wants .* to 1024" "$mpqc" "$net" $calib -j=99999 -o "$out"
    refuses 'bad mean' 'mean' "$mpqc" "$net" $calib -mean=1,x -o "$out"
    refuses 'zero deviation' 'std' "$mpqc" "$net" $calib -std=0 -o "$out"
    refuses 'unknown layout' 'layout' "$mpqc" "$net" $calib -layout=chwn -o "$out"
    refuses 'bad shape' '-shape wants' "$mpqc" "$net" $calib -shape=x -o "$out"
    refuses 'shape of an unknown input' "nosuch" "$mpqc" "$net" $calib -shape=nosuch:1x784 -o "$out"
    refuses 'unknown symbol' "nosuch" "$mpqc" "$net" $calib -define-symbol=nosuch,3 -o "$out"
    refuses 'unknown pass' "did you mean 'simplify'" "$mpqc" "$net" $calib -dump-after=simplfy -o "$out"
    refuses 'bad tag' '-tag wants' "$mpqc" "$net" $calib -tag=a-b -o "$out"
    # outputs are looked at first: there is no profile, but that is not what is said
    first="-load-profile=nothere.profile"
    refuses 'no such folder' "nodir/model.so: .*no folder '.*nodir'" "$mpqc" "$net" $first \
        -o "$work/nodir/model.so"
    refuses 'output is a folder' 'emptydir: .*is a folder' "$mpqc" "$net" $first -o "$work/emptydir"
    refuses 'no folder for the report' "nodir/r.json: .*no folder" "$mpqc" "$net" $first -o "$out" \
        -report="$work/nodir/r.json"
    refuses 'no folder for the profile' "nodir/p: .*no folder" "$mpqc" "$net" $calib -o "$out" \
        -dump-profile="$work/nodir/p"
    refuses 'code to standard output' 'for -emit=ir only' "$mpqc" "$net" $first -emit=asm -o -
    refuses 'output is the network' 'own.onnx: this is an input' "$mpqc" "$work/own.onnx" $first \
        -o "$work/emptydir/../own.onnx"
    refuses 'output is the data' 'good.npy: this is an input' "$mpqc" "$net" \
        -calib="$work/good.npy" -o "$work/good.npy"
    refuses 'two results in one place' 'r.json: two results' "$mpqc" "$net" $first \
        -o "$work/out/r.json" -report="$work/out/r.json"
    if [ "$(id -u)" -ne 0 ]; then # to whom nothing is forbidden
        mkdir -p "$work/readonly" && chmod a-w "$work/readonly"
        refuses 'read-only folder' 'readonly/model.so: .*denied' "$mpqc" "$net" $first \
            -o "$work/readonly/model.so"
    fi
    refuses 'missing profile' 'nothere.profile' "$mpqc" "$net" -load-profile=nothere.profile -o "$out"
    refuses 'damaged profile' 'text.onnx: .*not a profile.*mpqc-profile 1 is missing' "$mpqc" "$net" -load-profile="$work/text.onnx" -o "$out"
    if [ -w /dev/full ]; then
        "$mpqc" -list-ops >/dev/full 2>"$work/stderr"
        status_is 'full standard output' 1 $?
    fi
    works 'a whole compilation' "$mpqc" "$net" -calib="$work/good.npy" -o "$work/ae.so"
    says 'one value only: said' "no other value than 0"
    works 'float data and -mean' "$mpqc" "$net" -calib="$work/good.npy" -mean=0.5 -o "$work/ae.so"
    says 'float data and -mean: said' "samples are f32 and taken as they are"
    head -c 20000 "$work/ae.so" >"$work/half.so"
    works '-threads for -j' "$mpqc" "$net" $calib -threads=1 -o "$work/ae.so"
    refuses 'no threads, by the other name' "-threads wants a whole number from 1" \
        "$mpqc" "$net" $calib -threads=0 -o "$out"
    works 'profile written' "$mpqc" "$net" $calib -dump-profile="$work/ae.profile" -o "$work/ae.so"
    refuses 'profile of another network' 'ae.profile' "$mpqc" "$nets/fashion_resnet.onnx" \
        -load-profile="$work/ae.profile" -o "$out"

    refuses 'run: no library' 'nothere.so' "$mpqc_run" nothere.so
    refuses 'run: half a library' 'half.so: the file is truncated' "$mpqc_run" "$work/half.so"
    refuses 'run: not a library' 'good.npy' "$mpqc_run" "$work/good.npy"
    refuses 'run: unknown flag' "did you mean '-labels'" "$mpqc_run" "$work/ae.so" -label=x
    refuses 'run: wrong shape' '784' "$mpqc_run" "$work/ae.so" -in="$work/shape.npy"
    refuses 'run: labels of another length' 'label' "$mpqc_run" "$work/ae.so" -in="$work/good.npy" \
        -labels="$labels"
    refuses 'run: unwritable output' 'nodir' "$mpqc_run" "$work/ae.so" -in="$work/good.npy" -out="$work/nodir/y.npy"
}

finish 60
