#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Programs that a signal ends leave no temporary files, and an output whole or not at all.
#
#     sh tests/e2e/interrupt.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
start tmp cache
TMPDIR=$work/tmp
XDG_CACHE_HOME=$work/cache
export TMPDIR XDG_CACHE_HOME
net=$nets/fashion_resnet.onnx
calib="-calib=$train -calib-count=64"

# What is in a folder, but for one file that may be there and then is the same as another.
left_in() { # FOLDER [FILE LIKE]
    for file in "$1"/*; do
        [ -e "$file" ] || continue
        [ "$file" = "${2:-}" ] && cmp -s "$file" "$3" && continue
        printf '%s ' "$file"
    done
}

leaves_nothing() { # NAME STATUS... : one of these is that of what ran last
    name=$1
    shift
    problem="exit status $status"
    for expected in "$@"; do [ "$status" -ne "$expected" ] || problem=; done
    left=$(left_in "$work/out" "$work/out/model.so" "$work/model.so")$(left_in "$work/tmp")
    [ -z "$left" ] || problem="$problem; left behind: $left"
    rm -rf "$work/out" "$work/tmp"
    mkdir "$work/out" "$work/tmp"
    verdict "$name" "$problem"
}

# Runs a command and sends SIGTERM after so many seconds.
ended_after() { # SECONDS COMMAND...
    seconds=$1
    shift
    "$@" >"$work/stdout" 2>"$work/stderr" &
    child=$!
    sleep "$seconds"
    kill -TERM $child 2>/dev/null
    wait $child
    status=$?
}

# shellcheck disable=SC2086 # $calib is two words on purpose
must 'without a signal' "$bin/mpqc" "$net" $calib -o "$work/model.so"

# In the middle of something, whatever it is on this machine; or it is done.
for seconds in 0.05 0.1 0.2 0.3 0.4 0.6 0.8; do
    # shellcheck disable=SC2086
    ended_after $seconds "$bin/mpqc" "$net" $calib -o "$work/out/model.so"
    leaves_nothing "mpqc, ended after $seconds s" 143 0
done

# While libraries lie in a folder to be measured: the command that measures ends its parent.
for signal in INT TERM HUP; do
    # shellcheck disable=SC2086
    run "$bin/mpqc" "$net" $calib -o "$work/out/model.so" -tune-kernels=3 -tune-cache=none \
        -measure="cmd:ls $work/tmp/* >$work/listing; kill -$signal \$PPID; :"
    leaves_nothing "-tune-kernels, SIG$signal" 130 143 129
    run cat "$work/listing"
    says "-tune-kernels, SIG$signal: there was a library" '\.so$'
    # shellcheck disable=SC2086
    run "$bin/mpqc" "$net" $calib -o "$work/out/model.so" -max-latency=0.9x -latency-cache=none \
        -measure="cmd:ls $work/tmp/* >$work/listing; kill -$signal \$PPID; :"
    leaves_nothing "-max-latency, SIG$signal" 130 143 129
    run cat "$work/listing"
    says "-max-latency, SIG$signal: there was a library" '\.so$'
done

# Answers that are half written.
"$bin/mpqc-run" "$work/model.so" -in="$train" -repeat=1000 -out="$work/out/y.npy" \
    >"$work/stdout" 2>"$work/stderr" &
child=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -z "$(left_in "$work/out")" ] || break
    sleep 0.2
done
run ls "$work/out"
says 'mpqc-run -out: there is a temporary file' 'y\.npy\.tmp\.'
kill -TERM $child
wait $child
status=$?
leaves_nothing 'mpqc-run -out, SIGTERM' 143

finish 20
