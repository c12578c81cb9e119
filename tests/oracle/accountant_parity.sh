#!/bin/sh
# accountant_parity.sh ACCOUNTANT_ORACLE [PLANS [SEED [RESULTS]]]: runs accountant_parity.py, a
# thousand plans unless told otherwise, in a Python environment of its own (half an hour on two
# cores). A run that was ended goes on if it is given the same file RESULTS again.
#
# DURE_ORACLE_VENV is that environment, made when missing. As a test it runs only where the
# variable is set, on a few plans.
set -eu
here=$(dirname "$0")
if [ "${2:-}" = few ]; then
    if [ -z "${DURE_ORACLE_VENV:-}" ]; then
        echo "SKIPPED: set DURE_ORACLE_VENV=/path/venv to compare the accountant with dp-accounting"
        exit 77
    fi
    set -- "$1" 40
fi
venv=${DURE_ORACLE_VENV:-${TMPDIR:-/tmp}/dure-oracle-venv}
if ! "$venv/bin/python" -c 'import dp_accounting' 2>/dev/null; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q dp-accounting==0.6.0; }; then
        echo "SKIPPED: dp-accounting cannot be installed into $venv"
        exit 77
    fi
fi
exec "$venv/bin/python" "$here/accountant_parity.py" "$@"
