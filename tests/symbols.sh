#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# External symbols of our archives begin with mpqc_; those of the generated ONNX
# schema with onnx__.  Sanitizers add their own.
#
#     sh tests/symbols.sh NM ARCHIVE...
set -eu
nm=$1
shift

"$nm" -A --defined-only --extern-only "$@" 2>/dev/null | awk '
NF >= 3 {
    seen++
    name = $NF
    if (name ~ /^mpqc_/ || name ~ /^(__odr_asan|__asan|_?__?ubsan)/) next
    if (name ~ /^onnx__/ && $0 ~ /libmpqc_frontend/) next
    print
    wrong++
}
END {
    printf "%d external symbols, %d strays\n", seen, wrong
    exit wrong > 0 || seen < 20
}'
