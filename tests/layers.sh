#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The arrows between the folders, checked on every #include:
#
#     driver -> passes, codegen, frontend -> ir        runtime alone
#
# passes, codegen and frontend never include each other.  codegen and driver may see
# runtime.  mpqc-run and what it shares with mpqc include only runtime and driver.
# Each third-party library has one door.
#
#     sh tests/layers.sh SOURCE
set -eu
cd "$1"

find ir frontend passes codegen driver runtime -name '*.[ch]' -o -name '*.def' | sort |
    xargs grep -nHE '^[[:space:]]*#[[:space:]]*include' | awk '
# Folders that a file may include from.
function allowed(file) {
    if (file ~ /^driver\/(data|flags|run|temporary)/) return "^(runtime\\/|driver\\/(data|flags|run|temporary))"
    if (file ~ /^driver\//) return "^(driver|passes|codegen|frontend|ir|runtime)\\/"
    if (file ~ /^codegen\//) return "^(codegen\\/|ir\\/|runtime\\/mpqc_model\\.h$)"
    if (file ~ /^passes\//) return "^(passes|ir)\\/"
    if (file ~ /^frontend\//) return "^(frontend\\/|ir\\/|[a-z_\\/]*onnx[a-z_.-]*\\.pb-c\\.h$)"
    if (file ~ /^ir\//) return "^ir\\/"
    return "^mpqc_[a-z]+\\.h$" # runtime is installed as one folder
}
# Which files may include a third-party header; "" for the C library and POSIX.
function door(header) {
    if (header ~ /^llvm/) return "^codegen\\/"
    if (header ~ /^protobuf-c/ || header ~ /pb-c\.h$/) return "^frontend\\/"
    if (header ~ /^glpk/) return "^passes\\/allocate"
    if (header ~ /^zlib/) return "^driver\\/data_inflate\\.c$"
    if (header ~ /^(png|jpeglib|jerror)/) return "^driver\\/data_image\\.c$"
    return ""
}
{
    seen++
    split($0, part, ":")
    file = part[1]
    header = $0
    if (sub(/^[^"]*#[^"<]*"/, "", header)) {
        sub(/".*/, "", header)
        if (header !~ allowed(file)) bad(file, part[2], header)
    } else {
        sub(/^[^<]*</, "", header)
        sub(/>.*/, "", header)
        if (door(header) != "" && file !~ door(header)) bad(file, part[2], header)
        if (header ~ /\.h$/ && header ~ /^mpqc/) bad(file, part[2], header)
    }
}
function bad(file, line, header) {
    printf "%s:%s: %s is not for this folder\n", file, line, header
    wrong++
}
END {
    printf "%d includes, %d wrong\n", seen, wrong
    exit wrong > 0 || seen < 100
}'
