#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Which metric makes the best plans: metric x network x budget, on the bundled networks.
#
#   sh tests/bench/metrics/table.sh BIN OUT.tsv [DATA]
#
# BIN holds mpqc and mpqc-run.  256 training images calibrate, without labels; budgets are
# bytes of weights relative to uniform 8 bits; inputs stay at 8 bits.  Columns: network,
# budget, strategy, metric, seed, SQNR in dB against float on the calibration images, and
# top-1 in per cent on the 10,000 test images (- for the autoencoder; two - where the budget
# cannot be met, as depthwise weights stay at 8 bits).  The line of budget
# 1 is uniform w8a8; a `random` row is one seed.
set -eu
bin=$1
out=$2
data=${3:-/usr/share/datasets/fashion-mnist}
here=$(cd "$(dirname "$0")" && pwd)
networks=$here/../../../tutorials/networks
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
metrics='weight-mse hessian-trace hessian-top fisher sqnr sqnr-accumulated kl'
weights='w8a8,w6a8,w5a8,w4a8,w3a8,w2a8'

# plan NETWORK BUDGET STRATEGY METRIC SEED MPQC-FLAGS...: one row
plan() {
    network=$1 budget=$2 strategy=$3 metric=$4 seed=$5
    shift 5
    row=$(grep "^$network	" "$networks/networks.tsv")
    kind=$(echo "$row" | cut -f2) mean=$(echo "$row" | cut -f4) std=$(echo "$row" | cut -f5)
    "$bin/mpqc" "$networks/$network.onnx" -calib="$data/train-images-idx3-ubyte.gz" \
        -calib-count=256 -mean="$mean" -std="$std" -cost=analytic -seed="$seed" "$@" \
        -o "$work/plan.so" >"$work/log" 2>&1 || {
        grep -q 'cannot be met' "$work/log" || { cat "$work/log" >&2; return 1; }
        printf '%s\t%s\t%s\t%s\t%s\t-\t-\n' "$network" "$budget" "$strategy" "$metric" "$seed"
        return 0
    }
    sqnr=$(sed -n 's/^accuracy.*SQNR \([-0-9.]*\) dB.*/\1/p' "$work/log")
    top1=-
    if [ "$kind" = top1 ]; then
        top1=$("$bin/mpqc-run" "$work/plan.so" -in="$data/t10k-images-idx3-ubyte.gz" \
            -labels="$data/t10k-labels-idx1-ubyte.gz" -json | sed -n 's/.*"top1": *\([0-9.]*\).*/\1/p')
    fi
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$network" "$budget" "$strategy" "$metric" "$seed" \
        "$sqnr" "$top1"
}

all() {
    printf 'network\tbudget\tstrategy\tmetric\tseed\tsqnr_db\ttop1\n'
    for network in fashion_resnet fashion_mobile fashion_autoencoder; do
        plan $network 1 uniform - 0
        for budget in 0.625 0.5 0.375; do
            common="-max-size=${budget}x -candidates=$weights"
            for metric in $metrics; do
                table=$work/$network.$metric
                from=-load-sensitivity=$table
                [ -f "$table" ] || from="-sensitivity=$metric -dump-sensitivity=$table"
                # shellcheck disable=SC2086 # several flags
                plan $network $budget ilp "$metric" 0 -mixed=ilp $common $from
            done
            from=-load-sensitivity=$work/$network.weight-mse
            # shellcheck disable=SC2086
            plan $network $budget reverse weight-mse 0 -mixed=reverse $common $from
            for seed in 1 2 3 4 5 6 7 8 9 10; do
                # shellcheck disable=SC2086
                plan $network $budget random - $seed -mixed=random $common $from
            done
        done
    done
}

all >"$out"
