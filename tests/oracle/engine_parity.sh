#!/bin/sh
# engine_parity.sh DURE ENGINE_ORACLE: runs arch_parity.py, and engine_parity.py where there is a
# model, in a Python environment of their own.
#
# DURE_MODEL is the GGUF to compare on; DURE_ORACLE_VENV the environment (made when missing).
# Skipped, with the reason, when neither is set or the packages cannot be installed.
set -eu
here=$(dirname "$0")
if [ -z "${DURE_MODEL:-}${DURE_ORACLE_VENV:-}" ]; then
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
"$venv/bin/python" "$here/arch_parity.py" "$2"
[ -z "${DURE_MODEL:-}" ] || exec "$venv/bin/python" "$here/engine_parity.py" "$DURE_MODEL" "$1" "$2"
