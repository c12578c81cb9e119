"""Token ids of Dure against llama.cpp.

    python llama_cpp_vocab.py DURE_BINARY ggml-vocab-qwen2.gguf [more.gguf ...] [--texts 10000]

A vocabulary that stands beside its .inp (texts, separated by a marker line) and .out (ids of each
text on a line), as in models/ of the llama.cpp sources, must agree with them fully. With
llama-cpp-python installed, random texts are compared too; there Dure follows the `tokenizers`
library, and the differences are those of DIFFERENCES alone, each of which must still be one.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import unicodedata

from random_text import check_version, random_text

MARKER = "\n__ggml_vocab_test__\n"


def composes(text):
    return unicodedata.normalize("NFC", text) != text


# name: (vocabularies, what its texts have, one of them)
DIFFERENCES = {
    "a text is composed (NFC) before it is cut": (
        ("qwen2", "command-r"), composes, "e\u0301"),
    "a byte that the vocabulary lacks is dropped before the merges, not after": (
        ("SmolLM2",), lambda text: any(ord(c) < 32 for c in text), "=\x04="),
    "a user-defined </s> is a tag, not the end": (
        ("gemma3", "phi-3"), lambda text: "</s>" in text, "a</s>b"),
}


def ids_of_dure(binary, path, texts):
    lines = "".join(json.dumps(t) + "\n" for t in texts)
    done = subprocess.run([binary, "data", "tokens", "--model", path], input=lines.encode(),
                          stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def report(path, what, texts, got, wanted, bad):
    assert len(got) == len(wanted) == len(texts)
    print(f"{path.name}\t{len(got)} {what}\t{len(bad)} differ", flush=True)
    for i in bad[:5]:
        print(f"  {texts[i]!r}\n    dure      {got[i]}\n    llama.cpp {wanted[i]}", file=sys.stderr)
    return len(bad)


def vectors(binary, path):
    given = pathlib.Path(f"{path}.inp")
    if not given.exists():
        return 0
    texts = given.read_bytes().decode("utf-8").split(MARKER)
    lines = pathlib.Path(f"{path}.out").read_text().rstrip("\n").split("\n")
    wanted = [[int(i) for i in line.split()] for line in lines]
    wanted += [[]] * (len(texts) - len(wanted))  # a last text that is empty
    got = ids_of_dure(binary, path, texts)
    return report(path, "texts of llama.cpp", texts, got, wanted,
                  [i for i in range(len(texts)) if got[i] != wanted[i]])


def excused(path, text):
    return any(any(v in path.name for v in vocabs) and has(text)
               for vocabs, has, _ in DIFFERENCES.values())


def random_texts(binary, path, n):
    from llama_cpp import Llama
    model = Llama(model_path=str(path), vocab_only=True, verbose=False)

    def llama(texts):
        return [model.tokenize(t.encode(), add_bos=False, special=False) for t in texts]

    rng = random.Random(1)
    texts = [random_text(rng) for _ in range(n)]
    got, wanted = ids_of_dure(binary, path, texts), llama(texts)
    apart = [i for i in range(n) if got[i] != wanted[i]]
    bad = [i for i in apart if not excused(path, texts[i])]
    print(f"  {len(apart) - len(bad)} differ as they should")
    wrong = report(path, "random texts", texts, got, wanted, bad)
    for name, (vocabs, _, example) in DIFFERENCES.items():
        if any(v in path.name for v in vocabs) and \
                ids_of_dure(binary, path, [example]) == llama([example]):
            print(f"  no difference any more: {name}", file=sys.stderr)
            wrong += 1
    return wrong


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("binary")
    args.add_argument("models", nargs="+", type=pathlib.Path)
    args.add_argument("--texts", type=int, default=10000)
    args = args.parse_args()
    check_version()
    wrong = sum(vectors(args.binary, path) for path in args.models)
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        print("SKIPPED: llama-cpp-python is not installed, so no random texts for llama.cpp")
        return 1 if wrong else 0
    wrong += sum(random_texts(args.binary, path, args.texts) for path in args.models)
    return 1 if wrong else 0


sys.exit(main())
