#!/bin/sh
# text_parity.sh DURE: tokenizers and chat templates against llama.cpp's vectors, the tokenizers
# library and transformers' Jinja, in a Python environment of its own.
#
# DURE_ORACLE_VENV is the environment (made when missing, and required); llama.cpp itself is compared
# with where it has llama-cpp-python. DURE_VOCABS is a folder with llama.cpp's ggml-vocab-*.gguf files
# and their .inp and .out; without it they are taken from llama-cpp-python's source package.
# DURE_MODEL is one more GGUF (SmolLM2) and DURE_GEMMA one of Gemma 3; left out when they are not set.
# Skipped, with the reason, when DURE_ORACLE_VENV is not set or the packages cannot be had.
set -eu
here=$(dirname "$0")
if [ -z "${DURE_ORACLE_VENV:-}" ]; then
    echo "SKIPPED: set DURE_ORACLE_VENV=/path/venv to compare with llama.cpp, tokenizers, transformers"
    exit 77
fi
venv=$DURE_ORACLE_VENV
packages="tokenizers transformers jinja2 gguf"
if ! "$venv/bin/python" -c "import $(echo $packages | sed 's/ /, /g')" 2>/dev/null; then
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q $packages; }; then
        echo "SKIPPED: $packages cannot be installed into $venv"
        exit 77
    fi
fi
if ! "$venv/bin/python" -c 'import unicodedata as u; assert u.unidata_version == "14.0.0"'; then
    echo "SKIPPED: the random texts are of Unicode 14, which Python 3.11 has and this one does not"
    exit 77
fi
vocabs=${DURE_VOCABS:-$venv/llama.cpp-vocabs}
if [ ! -e "$vocabs/ggml-vocab-qwen2.gguf" ]; then
    mkdir -p "$vocabs"
    if ! { "$venv/bin/pip" download -q --no-deps --no-binary llama-cpp-python -d "$vocabs" \
               llama-cpp-python &&
           tar xzf "$vocabs"/llama_cpp_python-*.tar.gz -C "$vocabs" --strip-components 4 \
               --wildcards '*/vendor/llama.cpp/models/ggml-vocab-*'; }; then
        echo "SKIPPED: llama-cpp-python's source package cannot be had for its vocabularies"
        exit 77
    fi
fi
set -- "$1"
for name in gpt-2 starcoder refact command-r llama-bpe qwen2 llama-spm phi-3; do
    set -- "$@" "$vocabs/ggml-vocab-$name.gguf"
done
[ -z "${DURE_MODEL:-}" ] || set -- "$@" "$DURE_MODEL"
[ -z "${DURE_GEMMA:-}" ] || set -- "$@" "$DURE_GEMMA"
[ -n "${DURE_MODEL:-}" ] || echo "SKIPPED in part: set DURE_MODEL=/path/model.gguf for SmolLM2"
[ -n "${DURE_GEMMA:-}" ] || echo "SKIPPED in part: set DURE_GEMMA=/path/gemma3.gguf for Gemma 3"
failed=0
for oracle in llama_cpp_vocab.py tokenizer_parity.py chat_parity.py; do
    "$venv/bin/python" "$here/$oracle" "$@" || failed=1
done
exit $failed
