#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs the Debian packages that mpqc needs and that are missing: as root,
# or with sudo.  Asks the network nothing when all of them are there.
set -eu

packages='
    cmake ninja-build pkg-config gcc libc6-dev
    llvm-19-dev lld-19
    libprotobuf-c-dev protobuf-c-compiler protobuf-compiler libonnx-dev
    libglpk-dev libcmocka-dev libpng-dev libjpeg-dev zlib1g-dev
    qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    dataset-fashion-mnist libonnx-testdata'

die() {
    echo "setup: $1" >&2
    exit 1
}

# Prints the packages of the list that are not installed.
missing_packages() {
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null |
            grep -q '^install ok installed$' || echo "$package"
    done
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

install_missing() {
    # shellcheck disable=SC2046 # one word a package
    set -- $(missing_packages)
    if [ $# -eq 0 ]; then
        return
    fi
    command -v apt-get >/dev/null ||
        die "there is no apt-get here; please install what corresponds to: $*"
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null ||
        die "these packages are missing and neither root nor sudo is at hand: $*"
    echo "Installing $# packages: $*"
    # An unreachable third-party source must not stop us: the install decides.
    apt update || echo "setup: apt-get update had errors, trying to go on" >&2
    apt install --no-install-recommends "$@" >/dev/null ||
        die "apt-get could not install: $*"
    # shellcheck disable=SC2046
    set -- $(missing_packages)
    [ $# -eq 0 ] || die "still missing after apt-get: $*"
}

command -v dpkg-query >/dev/null ||
    die "this script knows Debian packages only; please install what corresponds to: $packages"
install_missing
