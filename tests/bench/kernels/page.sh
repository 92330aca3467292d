#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Writes docs/kernels.md: measures all layers for all targets that this CPU runs.
#
#     sh tests/bench/kernels/page.sh BUILD [FOLDER]
#
# BUILD: the build folder.  FOLDER keeps the libraries, so that compiling and measuring can
# be done apart: with -compile as a third argument nothing is measured.  Nothing else
# should run meanwhile.
set -eu

build=$1
kept=${2:-}
here=$(cd "$(dirname "$0")" && pwd)
page=$here/../../../docs/kernels.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
bench=$build/tests/bin/bench_kernels
dir=${kept:-$work/libraries}

if [ "${3:-}" = -compile ]; then
    "$bench" -dir="$dir" -rounds=0
    exit
fi
"$bench" -dir="$dir" -rounds=15 -page="$work/tables" -tsv="$work/rows" >"$work/out"
"$build/bin/mpqc" -version >"$work/version"
{
    cat "$here/head.md"
    echo
    echo "Machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)," \
        "$(getconf _NPROCESSORS_ONLN) processors, L1 $(($(getconf LEVEL1_DCACHE_SIZE) / 1024)) KiB," \
        "L2 $(($(getconf LEVEL2_CACHE_SIZE) / 1024)) KiB; $(cat "$work/version");" \
        "Linux $(uname -r)."
    echo
    cat "$work/tables"
} >"$work/page"
mkdir -p "$(dirname "$page")"
mv "$work/page" "$page"
