#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Which metric makes the best plans: metric x network x budget.
#
#   sh tests/bench/metrics/table.sh BIN OUT.tsv
#       the bundled networks, on Fashion-MNIST (DATA=folder of its files)
#   sh tests/bench/metrics/table.sh BIN OUT.tsv NAME MODEL.onnx TEST LABELS MPQC-FLAGS...
#       your network: the flags have -calib and the pre-processing; TEST and LABELS are
#       samples for mpqc-run, LABELS may be - for none
#
# BIN holds mpqc and mpqc-run.  256 samples calibrate, without labels; budgets are bytes of
# weights relative to uniform 8 bits; inputs stay at 8 bits.  Columns: network, budget,
# strategy, metric, seed, share of the bytes of uniform 8 bits, SQNR in dB and agreement of
# the likeliest class in per cent against float as the line `accuracy` of mpqc has them, and
# top-1 in per cent on the test samples (- where there is none; four - where the budget cannot
# be met).
# The line of budget 1 is uniform w8a8; `reverse` has the metric of the line before it, a
# `random` row is one seed.  BUDGETS, METRICS and SEEDS in the environment choose others.
set -eu
bin=$1
out=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
metrics=${METRICS:-sqnr sqnr-accumulated kl hessian-trace hessian-top fisher weight-mse}
budgets=${BUDGETS:-0.5 0.375 0.625}
seeds=${SEEDS:-1 2 3 4 5 6 7 8 9 10}
weights='w8a8,w6a8,w5a8,w4a8,w3a8,w2a8'

# What $model with the flags "$@" becomes, in $work/plan.so: one row.
# plan BUDGET STRATEGY METRIC SEED MPQC-FLAGS...
plan() {
    row="$network	$1	$2	$3	$4"
    shift 4
    "$bin/mpqc" "$model" -calib-count=256 -cost=analytic "$@" -o "$work/plan.so" \
        >"$work/log" 2>&1 || {
        grep -q 'cannot be met' "$work/log" || { cat "$work/log" >&2; return 1; }
        printf '%s\t-\t-\t-\t-\n' "$row"
        return 0
    }
    size=$(sed -n 's/^plan.*weights [^(]*(\([0-9.]*\)x).*/\1/p' "$work/log")
    sqnr=$(sed -n 's/^accuracy.*SQNR \([-0-9.]*\) dB.*/\1/p' "$work/log")
    agree=$(sed -n 's/^accuracy.*agreement \([0-9.]*\) %.*/\1/p' "$work/log")
    top1=-
    if [ "$labels" = - ]; then
        agree=-
    else
        top1=$("$bin/mpqc-run" "$work/plan.so" -in="$test" -labels="$labels" -json |
            sed -n 's/.*"top1": *\([0-9.]*\).*/\1/p')
    fi
    printf '%s\t%s\t%s\t%s\t%s\n' "$row" "${size:-1}" "$sqnr" "${agree:--}" "$top1"
}

# All rows of $network; "$@": the flags that it always has.
table() {
    plan 1 uniform - 0 "$@"
    for budget in $budgets; do
        for metric in $metrics; do
            file=$work/$network.$metric
            from=-load-sensitivity=$file
            [ -f "$file" ] || from="-sensitivity=$metric -dump-sensitivity=$file"
            # shellcheck disable=SC2086 # two flags
            plan "$budget" ilp "$metric" 0 "$@" -max-size="${budget}x" -candidates=$weights $from
            [ "$metric" = "${metrics%% *}" ] || continue
            plan "$budget" reverse "$metric" 0 "$@" -max-size="${budget}x" -candidates=$weights \
                -mixed=reverse -load-sensitivity="$file"
            for seed in $seeds; do
                plan "$budget" random - "$seed" "$@" -max-size="${budget}x" \
                    -candidates=$weights -mixed=random -seed="$seed" -load-sensitivity="$file"
            done
        done
    done
}

bundled() {
    data=${DATA:-/usr/share/datasets/fashion-mnist}
    networks=$here/../../../tutorials/networks
    for network in fashion_mobile fashion_resnet fashion_autoencoder; do
        row=$(grep "^$network	" "$networks/networks.tsv")
        model=$networks/$network.onnx
        test=$data/t10k-images-idx3-ubyte.gz
        labels=-
        [ "$(echo "$row" | cut -f2)" != top1 ] || labels=$data/t10k-labels-idx1-ubyte.gz
        table -calib="$data/train-images-idx3-ubyte.gz" -mean="$(echo "$row" | cut -f4)" \
            -std="$(echo "$row" | cut -f5)"
    done
}

own() {
    network=$1 model=$2 test=$3 labels=$4
    shift 4
    table "$@"
}

{
    printf 'network\tbudget\tstrategy\tmetric\tseed\tsize\tsqnr_db\tagree\ttop1\n'
    if [ $# -gt 0 ]; then own "$@"; else bundled; fi
} >"$out"
