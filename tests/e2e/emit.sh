#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Every kind of output is what its name says: objects and archives link, two tagged
# models live in one program and give the library's answers, text assembles, the
# header agrees with the descriptor, the IR can be read back.
#
#     sh tests/e2e/emit.sh BIN SOURCE WORK
. "$2/tests/lib.sh"
start
cc=${CC:-cc}
llvm=/usr/lib/llvm-19/bin

emit() { # NETWORK OUTPUT FLAG...
    network=$nets/fashion_$1.onnx
    output=$work/$2
    shift 2
    works "mpqc $*" "$bin/mpqc" "$network" -calib="$train" -calib-count=4 -o "$output" "$@"
}

# ---- objects ----
elf_type() { od -An -tx1 -N18 "$1" | tr -d ' \n' | cut -c33-36; } # 0100: relocatable, little endian
emit resnet resnet.o -emit=obj
emit resnet cross.o -emit=obj -target=aarch64
for object in resnet.o cross.o; do
    works "$object is relocatable" [ "$(elf_type "$work/$object")" = 0100 ]
done
machine() { od -An -tx1 -j18 -N2 "$1" | tr -d ' \n'; }
works 'machine of x86-64' [ "$(machine "$work/resnet.o")" = 3e00 ]
works 'machine of aarch64' [ "$(machine "$work/cross.o")" = b700 ]

# ---- the kind follows the suffix ----
emit autoencoder by_suffix.s
works 'suffix .s' grep -q '\.text' "$work/by_suffix.s"

# ---- two models in one program, by archives, and their libraries ----
emit resnet one.a -emit=a -tag=one
emit mobile two.a -emit=a -tag=two -mcpu=generic
emit resnet one.h -emit=header -tag=one
emit mobile two.h -emit=header -tag=two -mcpu=generic
emit resnet one.so
emit mobile two.so -mcpu=generic
emit autoencoder int.h -emit=header -io=int -tag=int
emit autoencoder int.a -emit=a -io=int -tag=int
emit autoencoder plain.h -emit=header
for header in one two int plain; do
    works "$header.h stands alone" "$cc" -std=c11 -Wall -Wextra -Werror -pedantic -fsyntax-only \
        -x c -I"$source/runtime" "$work/$header.h"
done
works 'the program of two models' "$cc" -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O1 \
    -I"$source/runtime" -I"$work" "$source/tests/e2e/linked/two_models.c" "$work/one.a" \
    "$work/two.a" "$work/int.a" -ldl -o "$work/two_models" &&
    works 'two models run' "$work/two_models" "$work/one.so" "$work/two.so"
# The object makes the same library by the system's linker.
works 'object linked by hand' "$cc" -shared -nostdlib -o "$work/hand.so" "$work/resnet.o" &&
    for lib in one hand; do
        works "$lib.so runs" "$bin/mpqc-run" "$work/$lib.so" -in="$train" -count=50 \
            -out="$work/$lib.npy"
    done
works 'linked by hand, same answers' cmp "$work/one.npy" "$work/hand.npy"

# ---- text ----
for target in x86-64:generic x86-64:avx512-vnni aarch64:dotprod; do
    emit mobile $target.ll -emit=llvm -target=$target
    emit mobile $target.s -emit=asm -target=$target
    if [ -x $llvm/llvm-as ]; then
        works "$target.ll is LLVM" $llvm/llvm-as "$work/$target.ll" -o /dev/null
    else
        leave_out "no llvm-as"
    fi
    case $target in
        x86*) works "$target.s assembles" "$cc" -c "$work/$target.s" -o "$work/$target.o" ;;
        *)
            if command -v aarch64-linux-gnu-gcc >/dev/null; then
                works "$target.s assembles" aarch64-linux-gnu-gcc -march=armv8.2-a+dotprod -c \
                    "$work/$target.s" -o "$work/$target.o"
            fi ;;
    esac
done
for net in resnet mobile autoencoder; do
    emit $net $net.mpir -emit=ir
    works "$net.mpir can be read" "${MPQC_E2E_BIN:?}/e2e_parse_ir" "$work/$net.mpir" integer
    emit $net $net.float.mpir -emit=ir -stop-after=simplify
    works "$net.float.mpir can be read" "$MPQC_E2E_BIN/e2e_parse_ir" "$work/$net.float.mpir" float
done

finish 40
