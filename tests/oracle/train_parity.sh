#!/bin/sh
# train_parity.sh DURE: `dure train` beside PEFT, and its event files in TensorBoard, in a Python
# environment of its own.
#
# DURE_MODEL is the GGUF to train on; DURE_ORACLE_VENV the environment (made when missing).
# Skipped, with the reason, when there is no model or the packages cannot be installed.
set -eu
here=$(dirname "$0")
if [ -z "${DURE_MODEL:-}" ]; then
    echo "SKIPPED: set DURE_MODEL=/path/model.gguf to train beside PEFT"
    exit 77
fi
venv=${DURE_ORACLE_VENV:-${TMPDIR:-/tmp}/dure-oracle-venv}
packages="torch transformers peft gguf safetensors tensorboard"
if ! "$venv/bin/python" -c "import $(echo $packages | sed 's/ /, /g')" 2>/dev/null; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q $packages; }; then
        echo "SKIPPED: $packages cannot be installed into $venv"
        exit 77
    fi
fi
export OMP_WAIT_POLICY=passive # PyTorch and others share the cores
exec "$venv/bin/python" "$here/train_parity.py" "$DURE_MODEL" "$1"
