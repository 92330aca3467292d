#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The libraries with -io=int that exact has left contain no floating-point
# instruction.
#
# x86-64, by mnemonic: everything that ends in ss, sd, ps, pd, sh or ph and is no
# integer instruction (those begin with p or vp: pabsd, pmaxsd, vpdpbusd, ...; but
# vpermps and vpermilpd move floats), all conversions, and x87.  Moves, shuffles and
# bitwise operations of the float domain (movaps, xorps, ...) compute nothing, yet
# they count here too.
# aarch64: everything that begins with f, scvtf, ucvtf, and bfloat16; fmov counts too.
#
#     sh tests/e2e/isa.sh BIN SOURCE WORK
set -u

work=$3
libraries=${MPQC_E2E_LIBRARIES:?}
failed=0
seen=0

objdump=$(command -v llvm-objdump-19 || echo /usr/lib/llvm-19/bin/llvm-objdump)
if [ ! -x "$objdump" ]; then
    echo "skipped: there is no llvm-objdump-19"
    exit 77
fi
rm -rf "$work"
mkdir -p "$work"

# Mnemonics of stdin's disassembly, one a line.  An x86 prefix is not the mnemonic.
mnemonics() {
    awk -F '\t' 'NF >= 2 && $1 ~ /^ *[0-9a-f]+: *$/ {
        n = split($2, w, /[ ]+/); i = 1
        while (i < n && w[i] ~ /^(lock|rep|repz|repne|notrack|data16|\{.*\})$/) i++
        print w[i] }'
}

# The arithmetic of both lists, so that a failure says how bad it is.
x86_float='^v?[a-z0-9]+(ps|pd|ph)$|^v?(cvt|ucomi|comi)|^f[a-z0-9]+$|^(v?ldmxcsr|v?stmxcsr)$|^v?(insert|extract|broadcast|perm2|shuf)f[0-9x]+$'
x86_scalar='(ss|sd|sh)$'
x86_integer='^v?p'
arm_float='^(f[a-z0-9]+|[su]cvtf|bf(cvt|dot|mlal|mmla)[a-z0-9]*)$'

float_instructions() { # FILE: mnemonics with their number
    case $1 in
        *x86-64*)
            { grep -E "$x86_float" "$work/all"
              grep -E "$x86_scalar" "$work/all" | grep -Ev "$x86_integer"; } ;;
        *) grep -E "$arm_float" "$work/all" ;;
    esac | sort | uniq -c | sort -rn
}

for lib in "$libraries"/*-int.so; do
    [ -e "$lib" ] || continue
    seen=$((seen + 1))
    "$objdump" -d --no-show-raw-insn "$lib" | mnemonics >"$work/all"
    n=$(wc -l <"$work/all")
    if [ "$n" -lt 500 ]; then
        echo "FAILED: $lib: only $n instructions found"
        failed=$((failed + 1))
    fi
    float_instructions "$lib" >"$work/found"
    if [ -s "$work/found" ]; then
        echo "FAILED: $(basename "$lib"): floating-point instructions among $n:"
        cat "$work/found"
        failed=$((failed + 1))
    fi
done

echo "$seen libraries, $failed with floating-point instructions"
[ $failed -eq 0 ] && [ $seen -ge 9 ]
