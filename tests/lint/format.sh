#!/bin/sh
# format.sh ROOT [CLANG_FORMAT]: every C, header and CUDA file is as clang-format 19 writes it.
set -eu
root=$1
tool=${2:-}
if [ ! -x "$tool" ]; then
    echo "SKIPPED: clang-format-19 is not installed (apt-get install clang-format-19)"
    exit 77
fi
cd "$root"
find common crypto dp kernels proto model net ledger secagg federation registry client coordinator \
     serve cli bench tests \( -name '*.c' -o -name '*.h' -o -name '*.cu' \) -print0 |
    xargs -0 "$tool" --dry-run --Werror
