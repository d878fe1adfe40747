#!/usr/bin/env bash
# A part of the Python tests with kernels and bridge under the sanitizers of addresses and undefined
# behaviour: broken CSR arrays, far features, functions of rows, arguments of the bridge.
# 1 on failure; skipped with a message where sanitizers do not work.
#
#   tests/c/python.sh [PYTHON] [ARGUMENT...]       arguments of pytest, in place of those tests
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${1:-python3}
[ $# -eq 0 ] || shift
tests=("$@")
if [ $# -eq 0 ]; then
    tests=(tests/fuzz/test_fuzz_csr.py tests/fuzz/test_fuzz_far.py tests/fuzz/test_fuzz_kernels.py
           tests/test_bridge.py)
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Allocations of Python and numpy are watched too, each by itself; those of the interpreter that
# last to its end are no leaks of ours.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc
export UBSAN_OPTIONS=print_stacktrace=1
library=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)
if ! LD_PRELOAD=$library "$python" -c pass; then
    echo "== Python under sanitizers: skipped, they do not work here"
    exit 0
fi

cp -r fastsoftmax src tests setup.py pyproject.toml README.md conftest.py LICENSE "$folder"
rm -f "$folder"/fastsoftmax/kernels*.so
cd "$folder"
if ! "$python" -c 'import Cython, setuptools' 2> /dev/null; then
    "$python" -m pip install --quiet --target "$folder/build-tools" 'setuptools>=77' 'Cython>=3.1'
fi
env PYTHONPATH="$folder/build-tools" FASTSOFTMAX_SANITIZE=1 FASTSOFTMAX_NATIVE=1 CC=gcc \
    FASTSOFTMAX_WERROR=0 PYTHONMALLOC=default \
    "$python" setup.py -q build_ext --inplace
export LD_PRELOAD=$library PYTHONPATH=$folder
"$python" -m pytest -q -n 2 -p no:cacheprovider "${tests[@]}"
