#!/usr/bin/env bash
# Static analysis of the C: gcc -fanalyzer, and clang's analyser where there is one. 1 on a finding.
#
# gcc follows every path of the parts that share work and memory, not of the loops over vectors in
# isa/: those take it minutes, and it doubts each sum whose loop it does not unroll. clang analyses
# both, and valgrind, MemorySanitizer and AddressSanitizer run them (run.sh).
set -u
cd "$(dirname "$0")/../.." || exit 1

flags=(-std=c11 -O1 -ffp-contract=off -Wall -Wextra -Wpedantic -Wconversion -Werror -Isrc/kernels
       -DFASTSOFTMAX_ANALYSED)
failures=0
each() { # each FILES... -- COMMAND...: all that fail are told
    local files=()
    while [ "$1" != -- ]; do files+=("$1"); shift; done
    shift
    printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P 2 "$@"
}

# (analysers of gcc before 12 have found faults in sound code)
if command -v gcc > /dev/null && [ "$(gcc -dumpversion | cut -d. -f1)" -ge 12 ]; then
    echo "== gcc -fanalyzer"
    each src/kernels/*.c -- gcc "${flags[@]}" -fanalyzer -c -o /dev/null || failures=1
else
    echo "== gcc -fanalyzer: skipped, there is no gcc 12 or newer"
fi
if command -v clang > /dev/null; then
    echo "== clang --analyze"
    each src/kernels/*.c src/kernels/isa/*.c -- clang --analyze --analyzer-output text \
        -Xclang -analyzer-werror -Wno-unused-command-line-argument "${flags[@]}" -o /dev/null ||
        failures=1
else
    echo "== clang --analyze: skipped, there is no clang"
fi
exit "$failures"
