#!/bin/sh
# ledger_parity.sh DURE COPIES: two verifiers on the exports of three real federations, which protect
# records, subjects and whole sites, and on their tampered copies. COPIES is
# test_cli_audit_copies, which trains five sites and writes them.
#
# DURE_ORACLE_VENV is a Python environment for the package `cryptography` (made when missing, and
# required). Skipped, with the reason, when it is not set or the package cannot be installed.
set -eu
here=$(dirname "$0")
if [ -z "${DURE_ORACLE_VENV:-}" ]; then
    echo "SKIPPED: set DURE_ORACLE_VENV=/path/venv to compare with the second verifier"
    exit 77
fi
venv=$DURE_ORACLE_VENV
if ! "$venv/bin/python" -c 'import cryptography' 2>/dev/null; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q cryptography; }; then
        echo "SKIPPED: the cryptography package cannot be installed into $venv"
        exit 77
    fi
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for unit in --records --subjects --sites; do
    mkdir "$work/$unit"
    "$2" --write "$work/$unit" $unit > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    "$venv/bin/python" "$here/ledger_parity.py" "$1" "$work/$unit"
done
