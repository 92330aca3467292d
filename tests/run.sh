#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs what is missing, builds mpqc and runs all tests.
#
#     sh tests/run.sh [PRESET]        release (default), debug, asan or tiny
set -eu

preset=${1:-release}
cd "$(dirname "$0")/.."
jobs=$(nproc 2>/dev/null || echo 2)

echo "== packages"
sh tutorials/setup.sh
echo "== configure ($preset)"
cmake --preset "$preset"
echo "== build"
cmake --build --preset "$preset" --parallel "$jobs"
echo "== test"
exec ctest --preset "$preset" --output-on-failure --no-tests=error --parallel "$jobs"
