#!/bin/sh
# files_parity.sh DURE ADAPTER_ORACLE: adapter files against the libraries that other people use, in
# a Python environment of its own.
#
# DURE_MODEL is the GGUF to compare on; DURE_ORACLE_VENV the environment (made when missing), which
# may also hold llama-cpp-python.
# Skipped, with the reason, when there is no model or the packages cannot be installed.
set -eu
here=$(dirname "$0")
if [ -z "${DURE_MODEL:-}" ]; then
    echo "SKIPPED: set DURE_MODEL=/path/model.gguf to compare with PEFT and llama.cpp"
    exit 77
fi
venv=${DURE_ORACLE_VENV:-${TMPDIR:-/tmp}/dure-oracle-venv}
packages="torch transformers peft tokenizers jinja2 gguf"
if ! "$venv/bin/python" -c "import $(echo $packages | sed 's/ /, /g')" 2>/dev/null; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q $packages; }; then
        echo "SKIPPED: $packages cannot be installed into $venv"
        exit 77
    fi
fi
"$venv/bin/python" "$here/adapter_parity.py" "$DURE_MODEL" "$1" "$2"
