# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2034 # variables are for those that source this
# What tests in shell share.  One is run as `sh NAME.sh BIN SOURCE WORK` and begins with
#
#     . "$2/tests/lib.sh"
#     start FOLDER...
#
# and ends with `finish`.  The functions set status, problem, title and folder.  Exit status 0:
# passed, 77: skipped, else failed.
set -u

bin=$1    # the programs
source=$2 # the repository
work=$3   # this test's own folder
nets=$source/tutorials/networks
fashion=${MPQC_FASHION:-/usr/share/datasets/fashion-mnist}
train=$fashion/train-images-idx3-ubyte.gz
images=$fashion/t10k-images-idx3-ubyte.gz
labels=$fashion/t10k-labels-idx1-ubyte.gz
passed=0
failed=0

# An empty folder to work in, with these inside.  What commands write that are expected to fail
# goes into `out`.
start() { # FOLDER...
    rm -rf "$work"
    mkdir -p "$work/out"
    for folder in "$@"; do mkdir -p "$work/$folder"; done
    : >"$work/stdout"
    : >"$work/stderr"
}

skip() { # WHY
    echo "skipped: $1"
    exit 77
}

# A part of the test cannot run here.
leave_out() { # WHY
    echo "left out: $1"
}

# Counts one case; a failed one shows what ran last.
verdict() { # NAME PROBLEM
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        return 0
    fi
    failed=$((failed + 1))
    echo "FAILED: $1: $2"
    sed 's/^/    /' "$work/stderr" "$work/stdout"
    return 1
}

# The same by an exit status, which is returned.
status_is() { # NAME EXPECTED STATUS
    problem=
    [ "$3" -eq "$2" ] || problem="exit status $3"
    verdict "$1" "$problem"
}

# Runs a command; what it says is in stdout and stderr, how it ended in $status.
run() { # COMMAND...
    "$@" >"$work/stdout" 2>"$work/stderr"
    status=$?
}

# Runs a command that must succeed.
works() { # NAME COMMAND...
    title=$1
    shift
    run "$@"
    status_is "$title" 0 "$status"
}

# The same where all that follows needs it.
must() { # NAME COMMAND...
    works "$@" || exit 1
}

# What ran last failed with one error, which says PATTERN, and left nothing in `out`.
refused() { # NAME PATTERN [PROBLEM]: one found before
    problem=${3:-}
    [ "$status" -eq 1 ] || problem="$problem; exit status $status"
    grep 'error: ' "$work/stderr" | grep -Eq -- "$2" || problem="$problem; no error with '$2'"
    [ "$(grep -c 'error: ' "$work/stderr")" -eq 1 ] || problem="$problem; not one error"
    [ -z "$(ls -A "$work/out")" ] || problem="$problem; left behind: $(ls -A "$work/out")"
    rm -rf "$work/out"
    mkdir "$work/out"
    verdict "$1" "$problem"
}

same() { # NAME FILE FILE
    run cmp "$2" "$3"
    problem=
    [ "$status" -eq 0 ] || problem="$2 and $3 differ"
    verdict "$1" "$problem"
}

different() { # NAME FILE FILE
    problem=
    ! cmp -s "$2" "$3" || problem="$2 and $3 are the same"
    verdict "$1" "$problem"
}

# says NAME PATTERN: in what ran last.
says() {
    problem=
    cat "$work/stdout" "$work/stderr" | grep -Eq -- "$2" || problem="no '$2'"
    verdict "$1" "$problem"
}

# holds NAME CONDITION: in the arithmetic of awk.
holds() {
    problem=
    awk "BEGIN { exit !($2) }" || problem="not $2"
    verdict "$1" "$problem"
}

# The number under KEY in the JSON object of FILE.
number_in() { # FILE KEY
    tr -d ' \n' <"$1" | sed -n "s/.*\"$2\":\([0-9.eE+-]*\).*/\1/p"
}

# npy FILE DTYPE SHAPE: a header of 128 bytes, then the data from stdin.
npy() {
    {
        printf '\223NUMPY\001\000\166\000%-117s\n' \
            "{'descr': '$2', 'fortran_order': False, 'shape': $3, }"
        cat
    } >"$1"
}

# The last line, and the exit status of the test.
finish() { # [LEAST]: so many cases must have been
    echo "$passed passed, $failed failed"
    [ $failed -eq 0 ] && [ $passed -ge "${1:-1}" ]
}
