#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# mpqc beside ONNX Runtime, OpenVINO and LiteRT on the same networks.
#
#     sh tests/bench/peers/run.sh [FLAG]... [NETWORK.onnx | LIST.tsv]...
#
# Without a network it measures the bundled ones.  Installs the peers in build/peers/venv,
# and nothing anywhere else; README.md in this folder says what is measured, -help the flags.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=${MPQC_PEERS:-$root/build/peers}
venv=$work/venv
build=${MPQC_BUILD:-$root/build/release}

fail() {
    printf 'peers: %s\n' "$*" >&2
    exit 1
}

# Makes the virtual environment anew when the list of versions has changed.
install_peers() {
    if cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
        return
    fi
    command -v python3 >/dev/null || fail "python3 is missing; install python3 and python3-venv"
    echo "peers: installing ONNX Runtime, OpenVINO and LiteRT in $venv (about 1 GB)" >&2
    rm -rf "$venv"
    mkdir -p "$work"
    if ! python3 -m venv "$venv" >"$work/install.log" 2>&1; then
        fail "python3 -m venv failed; on Debian install python3-venv (see $work/install.log)"
    fi
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check -r "$here/requirements.txt" \
        >>"$work/install.log" 2>&1; then
        tail -n 3 "$work/install.log" >&2
        fail "pip could not install the peers; is there a network? (see $work/install.log)"
    fi
    cp "$here/requirements.txt" "$venv/installed.txt"
}

[ -x "$build/bin/mpqc" ] || fail "$build/bin/mpqc is missing; build it: cmake --preset release && \
cmake --build --preset release"
install_peers

# OpenVINO keeps a note about telemetry in HOME: a home of its own, with the answer no.
home=$work/home
mkdir -p "$home/intel"
printf 0 >"$home/intel/openvino_telemetry"
HOME=$home exec "$venv/bin/python" "$here/peers.py" "-work=$work" "-build=$build" "$@"
