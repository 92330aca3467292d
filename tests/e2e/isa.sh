#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The libraries with -io=int that exact has left contain no floating-point
# instruction.  Those with -io=float do, which shows that one would be found.
#
# x86-64, by mnemonic: everything that ends in ss, sd, ps, pd, sh or ph and is no
# integer instruction (those begin with p, vp or tdp: pabsd, pmaxsd, vpdpbusd, tdpbusd, ...), all
# conversions, and x87.  What moves whole registers and bits without looking at them as
# numbers is listed, but is no failure: the code generator uses movups, shufps and the
# like for integers too, where they are shorter.
# aarch64: everything that begins with f but fmov, scvtf, ucvtf, and bfloat16.
#
#     sh tests/e2e/isa.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
libraries=${MPQC_E2E_LIBRARIES:?}
seen=0

objdump=$(command -v llvm-objdump-19 || echo /usr/lib/llvm-19/bin/llvm-objdump)
[ -x "$objdump" ] || skip "there is no llvm-objdump-19"
start

# Mnemonics of stdin's disassembly, one a line.  An x86 prefix is not the mnemonic.
mnemonics() {
    awk -F '\t' 'NF >= 2 && $1 ~ /^ *[0-9a-f]+: *$/ {
        n = split($2, w, /[ ]+/); i = 1
        while (i < n && w[i] ~ /^(lock|rep|repz|repne|notrack|data16|\{.*\})$/) i++
        print w[i] }'
}

x86_float='^v?[a-z0-9]+(ps|pd|ph)$|^v?(cvt|ucomi|comi)|^f[a-z0-9]+$|^v?(ld|st)mxcsr$'
x86_scalar='(ss|sd|sh)$'
x86_integer='^(v?p|tdp)'
x86_moves='^v?(mov[a-z]*|shuf|unpck[lh]|blend|and|andn|or|xor|broadcast|insert|extract|perm[a-z0-9]*|permil)(ss|sd|ps|pd)$'
arm_float='^(f[a-z0-9]+|[su]cvtf|bf(cvt|dot|mlal|mmla)[a-z0-9]*)$'
arm_moves='^fmov$'

float_instructions() { # FILE: mnemonics, moves included
    case $1 in
        *x86-64*)
            grep -E "$x86_float" "$work/all"
            grep -E "$x86_scalar" "$work/all" | grep -Ev "$x86_integer" ;;
        *) grep -E "$arm_float" "$work/all" ;;
    esac | sort -u
}

# look LIBRARY: sets n, the number of instructions; moves; wrong, what computes.
look() {
    "$objdump" -d --no-show-raw-insn "$1" | mnemonics >"$work/all"
    n=$(wc -l <"$work/all")
    float_instructions "$1" >"$work/found"
    moves=$(grep -E "$x86_moves|$arm_moves" "$work/found" | tr '\n' ' ')
    wrong=$(grep -Ev "$x86_moves|$arm_moves" "$work/found" | tr '\n' ' ')
}

for lib in "$libraries"/*-int.so; do
    [ -e "$lib" ] || continue
    seen=$((seen + 1))
    look "$lib"
    echo "$(basename "$lib"): $n instructions${moves:+, moves: $moves}"
    holds "$lib: instructions" "$n >= 500"
    verdict "$(basename "$lib"): floating-point instructions" "$wrong"
    look "${lib%-int.so}-float.so"
    problem=
    [ -n "$wrong" ] || problem="there seem to be none with -io=float either"
    verdict "$lib: they would be found" "$problem"
done

holds "libraries that were looked at" "$seen >= 9"
finish
