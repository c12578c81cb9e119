#!/bin/sh
# openai_client.sh DURE: runs openai_client.py in a Python environment that has the openai package.
#
# DURE_MODEL is the GGUF to serve; DURE_ORACLE_VENV the environment (made when missing). Skipped,
# with the reason, when there is no model or the package cannot be installed.
set -eu
here=$(dirname "$0")
if [ -z "${DURE_MODEL:-}" ]; then
    echo "SKIPPED: set DURE_MODEL=/path/model.gguf to ask 'dure serve' with the openai package"
    exit 77
fi
venv=${DURE_ORACLE_VENV:-${TMPDIR:-/tmp}/dure-oracle-venv}
if ! "$venv/bin/python" -c 'import openai' 2>/dev/null; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q openai; }; then
        echo "SKIPPED: the openai package cannot be installed into $venv"
        exit 77
    fi
fi
exec "$venv/bin/python" "$here/openai_client.py" "$1" "$DURE_MODEL"
