#!/bin/sh
# engine_parity.sh DURE ENGINE_ORACLE: compares the decoding of every tensor type with the `gguf`
# package, runs arch_parity.py, and engine_parity.py where there is a model, in a Python environment
# of their own.
#
# DURE_MODEL is the GGUF to compare on, DURE_GEMMA one of Gemma 3; DURE_ORACLE_VENV the environment
# (made when missing).
# Skipped, with the reason, when neither is set or the packages cannot be installed.
set -eu
here=$(dirname "$0")
if [ -z "${DURE_MODEL:-}${DURE_GEMMA:-}${DURE_ORACLE_VENV:-}" ]; then
    echo "SKIPPED: set DURE_MODEL=/path/model.gguf to compare the engine with PyTorch"
    exit 77
fi
venv=${DURE_ORACLE_VENV:-${TMPDIR:-/tmp}/dure-oracle-venv}
if ! "$venv/bin/python" -c 'import torch, transformers, gguf' 2>/dev/null; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q torch transformers gguf numpy; }; then
        echo "SKIPPED: torch, transformers and gguf cannot be installed into $venv"
        exit 77
    fi
fi
# kernels.dequant decodes that file bit for bit.
made=$(mktemp)
trap 'rm -f "$made"' EXIT
"$venv/bin/python" "$here/dequant_vectors.py" "$made"
cmp "$made" "$here/../vectors/dequant.bin"
echo "tests/vectors/dequant.bin is what the gguf package decodes"
"$venv/bin/python" "$here/arch_parity.py" "$2"
for model in "${DURE_MODEL:-}" "${DURE_GEMMA:-}"; do
    [ -z "$model" ] || "$venv/bin/python" "$here/engine_parity.py" "$model" "$1" "$2"
done
[ -n "${DURE_MODEL:-}" ] || echo "SKIPPED in part: set DURE_MODEL=/path/model.gguf for a real model"
[ -n "${DURE_GEMMA:-}" ] || echo "SKIPPED in part: set DURE_GEMMA=/path/gemma3.gguf for a real Gemma 3"
