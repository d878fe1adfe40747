#!/usr/bin/env bash
# Compiles check_kernels with the flags of setup.py and runs it, by each way that this machine has:
# gcc, clang, their sanitizers and valgrind. Where threads are watched, and under valgrind, a part of
# the sizes and one instruction set stand for all. (Other systems and processors: .ci/systems.py.)
# 1 on failure.
#
#   tests/c/run.sh                   half an hour
#   tests/c/run.sh --sample          a part of the sizes, by gcc and its sanitizers: three minutes
#                                    on two cores
#   tests/c/run.sh --exhaustive      exp and log of every float: half an hour
set -u
cd "$(dirname "$0")/../.." || exit 1

flags=(-std=c11 -O3 -ffp-contract=off -fvisibility=hidden -Wall -Wextra -Wpedantic -Wconversion
       -Werror -Isrc/kernels)
sources=(tests/c/check_kernels.c src/kernels/*.c src/kernels/isa/*.c)
case "$*" in
    "" | --sample | --exhaustive) mode=$* ;;
    *) echo "usage: tests/c/run.sh [--sample | --exhaustive]" >&2; exit 2 ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0
running=()
runner=()  # what a program runs under

# check TITLE COMPILER [FLAG...]: builds and runs.
check() {
    local title=$1 program=$folder/$BASHPID
    shift
    if [ "$mode" = --sample ] && [ "$1" != gcc ]; then
        echo "== $title: skipped, not in the sample"
        return
    fi
    # sanitizers may build and yet not run, for one where addresses are too random
    if ! { echo 'int main(void) { return 0; }' | "$@" -x c - -o "$program" &&
        "$program"; } > /dev/null 2>&1; then
        echo "== $title: skipped, this does not work here: $*"
        return
    fi
    echo "== $title"
    "$@" "${flags[@]}" "${sources[@]}" -lm -o "$program" && "${runner[@]}" "$program" "${arguments[@]}"
}

# start TITLE COMPILER [FLAG...]: a check; those of the sample run beside each other.
start() {
    if [ "$mode" = --sample ]; then
        (check "$@") > "$folder/${#running[@]}.log" 2>&1 &
        running+=($!)
    else
        check "$@" || failures=$((failures + 1))
    fi
}

all=()
case $mode in
    --sample) all=(--brief) ;;
    --exhaustive) all=(--exhaustive) ;;
esac
arguments=("${all[@]}")
start "gcc" gcc -pthread
start "clang" clang -pthread
if [ "$mode" != --exhaustive ]; then
    start "clang, uninitialised memory" clang -pthread -fsanitize=memory
    optimised=("${flags[@]}")
    # gcc takes minutes to optimise sanitized code; its own headers warn without optimisation
    flags+=(-O0 -g -Wno-sign-conversion)
    for type in float double; do
        arguments=("${all[@]:---all}" $type)
        start "gcc, addresses and undefined behaviour, $type" \
            gcc -pthread -fsanitize=address,undefined -fno-sanitize-recover=all
    done
    arguments=(--races)
    start "gcc, data races" gcc -pthread -fsanitize=thread
    start "clang, data races" clang -pthread -fsanitize=thread
    # (memcheck knows no AVX-512, which the kernels see; threads of the pool never end, so what the
    # C library holds for them is only possibly lost)
    if [ "$mode" != --sample ] && command -v valgrind > /dev/null; then
        arguments=(--races)
        runner=(valgrind -q --error-exitcode=1 --leak-check=full --show-leak-kinds=definite
                --errors-for-leak-kinds=definite)
        start "gcc, valgrind" gcc -pthread
        runner=()
    else
        echo "== valgrind: skipped, not in the sample or not installed"
    fi
    flags=("${optimised[@]}")
fi
for i in "${!running[@]}"; do
    wait "${running[i]}" || failures=$((failures + 1))
    cat "$folder/$i.log"
done
[ "$failures" -eq 0 ] || { echo "$failures of the runs failed"; exit 1; }
