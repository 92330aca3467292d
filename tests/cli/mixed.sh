#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Decisions about bits from outside: budgets are kept, plans can be used again, the
# files that describe them agree with each other.
#
#     sh tests/cli/mixed.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
[ -f "$labels" ] || skip "no Fashion-MNIST"
start a b plain found c1 c2 # a library knows its file's name
net=$nets/fashion_resnet.onnx
calib="-calib=$images -calib-count=16 -mean=0.2860 -std=0.3530"

compiles() { # NAME FLAG...
    name=$1
    shift
    # shellcheck disable=SC2086 # $calib is several words on purpose
    works "$name" "$bin/mpqc" "$net" $calib "$@"
}

# agrees NAME AWK-PROGRAM FILE: the awk program prints nothing about the file.
agrees() {
    problem=$(awk -F, "$2" "$3")
    verdict "$1" "$problem"
}

# factor NAME LIMIT: the plan's share of the weights of uniform w8a8 is at most LIMIT.
factor() {
    share=$(sed -n 's/^plan .*weights [^(]*(\([0-9.]*\)x).*/\1/p' "$work/stdout")
    problem=$(echo "$share" | awk -v limit="$2" '!($1 > 0 && $1 <= limit) { print "share " $1 }')
    verdict "$1" "$problem"
}

# ---- plans ----
metric=-sensitivity=weight-mse
compiles 'a plan' $metric -max-size=0.6x -o "$work/a/model.so" -dump-config="$work/a.plan" \
    -dump-sensitivity="$work/s.txt"
says 'a plan: summary' '^bits .*by ilp, sensitivity weight-mse, proven optimal'
factor 'a plan: size' 0.6005
problem=$(sed -n 's/^choices//p' "$work/s.txt" | grep -E 'a16|a[12]( |$)')
verdict 'a plan: the table has no numbers that nobody asked for' "$problem"
compiles 'again' $metric -max-size=0.6x -o "$work/b/model.so" -dump-config="$work/b.plan"
same 'again: the same library' "$work/a/model.so" "$work/b/model.so"
same 'again: the same plan' "$work/a.plan" "$work/b.plan"
compiles 'as pins' -pin="$work/a.plan" -o "$work/b/model.so" -dump-config="$work/b.plan"
says 'as pins: summary' '^bits .*by pins'
same 'as pins: the same library' "$work/a/model.so" "$work/b/model.so"
same 'as pins: the same plan' "$work/a.plan" "$work/b.plan"
compiles 'loaded sensitivity' -load-sensitivity="$work/s.txt" -max-size=0.6x -o "$work/b/model.so" \
    -dump-sensitivity="$work/s2.txt"
same 'loaded sensitivity: the same library' "$work/a/model.so" "$work/b/model.so"
same 'loaded sensitivity: the same table' "$work/s.txt" "$work/s2.txt"
compiles 'loaded for more' -load-sensitivity="$work/s.txt" -candidates=w8a8,w4a8,w8a16 \
    -max-size=0.6x -o "$work/b/model.so"
says 'loaded for more: said' 's.txt.*has no numbers for 16 choices that layers could have'
compiles 'bytes' $metric -max-size=100KB -o "$work/b/model.so" -v
says 'bytes: why' 'w.a. .* -max-size binds, shadow price'

# ---- eight bits everywhere, asked for in three ways ----
compiles 'plain' -o "$work/plain/model.so"
compiles 'pinned to eight bits' '-pin=.=w8a8' -o "$work/b/model.so"
same 'pinned to eight bits: as plain' "$work/plain/model.so" "$work/b/model.so"
compiles 'no need for less' $metric -max-size=1x -o "$work/b/model.so"
same 'no need for less: as plain' "$work/plain/model.so" "$work/b/model.so"
compiles 'one candidate' $metric -candidates=w8a8 -max-size=1x -o "$work/b/model.so"
same 'one candidate: as plain' "$work/plain/model.so" "$work/b/model.so"

# ---- pins and candidates within a budget ----
compiles 'pins in a plan' $metric -max-size=0.5x -pin='^/stage3/=w3a8' -pin=op:Gemm=w6a8 \
    -o "$work/b/model.so" -dump-config="$work/b.plan"
problem=$(grep '/stage3/' "$work/b.plan" | grep -v '=w3a8$')
[ "$(grep -c '/stage3/.*=w3a8' "$work/b.plan")" -gt 2 ] || problem="$problem; stage3 is missing"
grep -q '^^/head/Gemm$=w6a8$' "$work/b.plan" || problem="$problem; the head is not w6a8"
verdict 'pins in a plan: obeyed' "$problem"
factor 'pins in a plan: size' 0.5005
compiles 'candidates' $metric -max-size=0.7x -candidates=w8a8,w4a8 -o "$work/b/model.so" \
    -dump-config="$work/b.plan"
verdict 'candidates: obeyed' "$(grep -Ev '^#|=w[84]a8$' "$work/b.plan")"
compiles 'pins alone' -pin='^/stem=w4a8' -o "$work/b/model.so" -dump-config="$work/b.plan"
verdict 'pins alone: the rest has 8 bits' \
    "$(grep -v '^#' "$work/b.plan" | grep -v '^^/stem/Conv$=w4a8$' | grep -v '=w8a8$')"

# ---- strategies ----
for s in ilp greedy uniform random reverse; do
    compiles "$s" -load-sensitivity="$work/s.txt" -mixed=$s -max-size=0.6x -o "$work/b/model.so" \
        -report="$work/$s.csv"
    factor "$s: size" 0.6005
    says "$s: named" "^bits .*by $s"
done
compiles 'several bounds' -load-sensitivity="$work/s.txt" -max-size=0.8x -max-bops=0.5x -o "$work/b/model.so"
says 'several bounds: bops' 'bops [^(]*\(0\.(4[0-9]*|500)x\)'
compiles 'smallest within a loss' -load-sensitivity="$work/s.txt" -max-omega=0.05 -o "$work/b/model.so" \
    -report="$work/r.csv"
compiles 'random, another seed' -load-sensitivity="$work/s.txt" -mixed=random -seed=1 \
    -max-size=0.6x -o "$work/b/model.so" -dump-config="$work/r1.plan"
compiles 'random, that seed again' -load-sensitivity="$work/s.txt" -mixed=random -seed=1 \
    -max-size=0.6x -o "$work/b/model.so" -dump-config="$work/r2.plan"
same 'random: decided by the seed' "$work/r1.plan" "$work/r2.plan"

# ---- the front, and the search for an accuracy ----
compiles 'front' -load-sensitivity="$work/s.txt" -pareto="$work/front.csv" -o "$work/b/model.so"
agrees 'front: more bytes, less loss' '
    NR == 1 && $0 != "size_bytes,latency_ns,bops,omega,top1,drop,plan" { print "header " $0 }
    NR > 1 && NF != 7 { print "line " NR }
    NR > 2 && ($1 <= size || $4 >= omega) { print "line " NR " is no better than the one before" }
    { size = $1; omega = $4 }
    END { if (NR < 9) print "only " NR " lines" }' "$work/front.csv"
compiles 'search' -load-sensitivity="$work/s.txt" -max-drop=2 -labels="$labels" -eval-count=48 \
    -o "$work/found/model.so" -dump-config="$work/found.plan" -pareto="$work/front.csv"
says 'search: told' \
    '^search .*on 48 labelled samples of -calib that calibration left out: float [0-9.]+ %, integer'
agrees 'search: front has accuracies' 'NR > 1 && ($5 == "" || $6 == "") { print "line " NR }' \
    "$work/front.csv"
compiles 'search: as pins' -pin="$work/found.plan" -o "$work/b/model.so"
same 'search: as pins, the same library' "$work/found/model.so" "$work/b/model.so"
compiles 'held out' -load-sensitivity="$work/s.txt" -max-drop=2 -eval-count=32 \
    -eval="$train" -labels="$fashion/train-labels-idx1-ubyte.gz" \
    -candidates=w8a8,w4a8 -o "$work/held.so"
says 'held out: which samples' 'evaluated on 32 labelled samples of -eval: float 9[0-9.]+ %'

compiles 'anything goes' -load-sensitivity="$work/s.txt" -max-drop=100 -labels="$labels" \
    -eval-count=4 -candidates=w4a8,w8a8 -o "$work/b/model.so" -dump-config="$work/b.plan"
verdict 'anything goes: the cheapest' "$(grep -Ev '^#|=w4a8$' "$work/b.plan")"

# How good the result is, and on which samples: weights below 8 bits look better on those that
# they were fitted to.
compiles 'accuracy on other samples' -wbits=3 -o "$work/b/model.so"
says 'accuracy: left out' '^accuracy +on 16 samples of -calib that calibration left out .*SQNR [0-9.]+ dB, top-1 agreement [0-9.]+ %$'
all=$calib
gunzip -c "$images" | head -c 6288 >"$work/many"
{ printf '\000\000\010\003\000\000\000\010' && tail -c +9 "$work/many"; } >"$work/few-idx3-ubyte"
calib="-calib=$work/few-idx3-ubyte -mean=0.2860 -std=0.3530"
compiles 'accuracy on the same samples' -wbits=3 -o "$work/b/model.so"
says 'accuracy: flattered' '^accuracy +on 8 calibration samples .* flattered: the weights were fitted to these$'
compiles 'accuracy of 8 bits' -o "$work/b/model.so"
says 'accuracy: plain' '^accuracy +on 8 calibration samples .* top-1 agreement [0-9.]+ %$'
calib=$all

net=$nets/fashion_mobile.onnx
compiles 'missed' $metric -max-drop=0 -labels="$labels" -eval-count=256 -candidates=w2a8 \
    -o "$work/b/miss.so"
says 'missed: said plainly' 'warning: -max-drop=0 is missed: .* loses [0-9.]+ points'
says 'missed: in the summary' '^search .* \(missed\)$'
[ -s "$work/b/miss.so" ] && problem= || problem="there is no library"
verdict 'missed: compiled all the same' "$problem"
net=$nets/fashion_resnet.onnx

# ---- 1 and 2 bits: by name, or where they were measured to be faster ----
counted='stage1.*conv1=w1a2'
compiles 'counted: pinned' -pin="$counted" -o "$work/c1/model.so" -dump-config="$work/c.plan"
verdict 'counted: in the plan' "$(grep -c '=w1a2$' "$work/c.plan" | grep -vx 2)"
compiles 'counted: as pins' -pin="$work/c.plan" -o "$work/c2/model.so"
same 'counted: the same library' "$work/c1/model.so" "$work/c2/model.so"
compiles 'counted: named' $metric -candidates=w8a8,w2a2 -max-size=0.5x -o "$work/c2/model.so" \
    -dump-config="$work/c.plan"
verdict 'counted: chosen' "$(grep -q '=w2a2$' "$work/c.plan" || echo "there is none")"
compiles 'counted: not named' $metric -max-size=0.28x -o "$work/c2/model.so" \
    -dump-config="$work/c.plan"
verdict 'counted: never for size alone' "$(grep -E '=w.a[12]$' "$work/c.plan")"
compiles 'counted: measured' $metric -max-size=0.5x -cost=measured -mcpu=native \
    -o "$work/c2/model.so" -report="$work/c.json"
if command -v python3 >/dev/null; then
    works 'counted: offered where it is faster' python3 - "$work/c.json" <<'PYTHON'
import json, sys
for l in json.load(open(sys.argv[1]))["layers"]:
    ns = l["latency_ns"]
    for choice in ns:
        if choice[-2:] in ("a1", "a2"):
            assert ns[choice] < ns["w8a8"], l
PYTHON
fi

# ---- the report ----
compiles 'report' $metric -max-size=0.6x -report="$work/r.json" -o "$work/b/model.so"
same 'report: the library is not changed by it' "$work/a/model.so" "$work/b/model.so"
if command -v python3 >/dev/null; then
    works 'report: JSON' python3 - "$work/r.json" <<'PYTHON'
import json, sys
r = json.load(open(sys.argv[1]))
assert r["strategy"] == "ilp" and r["proven_optimal"] is True, r["strategy"]
total = r["totals"]["bytes"]
assert total["binds"] and total["shadow_price"] > 0 and total["plan"] <= total["limit"]
assert abs(sum(l["bytes"][l["choice"]] for l in r["layers"]) - total["plan"]) < 1e-3
assert abs(sum(l["omega"][l["choice"]] for l in r["layers"]) / r["totals"]["omega"]["plan"] - 1) < 1e-6
assert len(r["layers"]) == 16
for l in r["layers"]:
    assert l["name"].startswith("/") and l["op"] in ("Conv", "Gemm"), l
    assert l["sqnr_isolated_db"] > 5 and l["sqnr_accumulated_db"] > 2, l
    assert 0 <= l["saturation"] < 0.2 and "-max-size binds" in l["reason"], l
    assert l["macs"] > 0 and l["params"] > 0 and len(l["input"]) in (2, 4), l
PYTHON
fi
agrees 'report: CSV' '
    NR == 1 { n = NF }
    NF < n { print "line " NR " is short" }
    END { if (NR != 17) print NR " lines" }' "$work/ilp.csv"

finish 80
