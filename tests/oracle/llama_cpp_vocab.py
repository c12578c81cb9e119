"""Token ids of Dure against llama.cpp's conformance files.

    python llama_cpp_vocab.py DURE_BINARY ggml-vocab-starcoder.gguf [more.gguf ...]

Each vocabulary stands beside its .inp (texts, separated by a marker line) and .out (ids of each
text on a line) in models/ of the llama.cpp sources. Those with the splitter of SmolLM2 are
starcoder, refact and command-r.

Known differences from llama.cpp, where Dure follows the `tokenizers` library: none in these files.
"""
import json
import pathlib
import subprocess
import sys

MARKER = "\n__ggml_vocab_test__\n"


def main(binary, paths):
    wrong = 0
    for path in paths:
        texts = pathlib.Path(path + ".inp").read_bytes().decode("utf-8").split(MARKER)
        wanted = [[int(i) for i in line.split()]
                  for line in pathlib.Path(path + ".out").read_text().split("\n")]
        lines = "".join(json.dumps(t) + "\n" for t in texts)
        done = subprocess.run([binary, "data", "tokens", "--model", path], input=lines.encode(),
                              stdout=subprocess.PIPE, check=True)
        got = [json.loads(line) for line in done.stdout.splitlines()]
        bad = [(t, g, w) for t, g, w in zip(texts, got, wanted) if g != w]
        print(f"{pathlib.Path(path).name}\t{len(got)} texts\t{len(bad)} differ")
        for text, g, w in bad:
            print(f"  {text!r}\n    dure      {g}\n    llama.cpp {w}", file=sys.stderr)
        wrong += len(bad)
    return 1 if wrong else 0


sys.exit(main(sys.argv[1], sys.argv[2:]))
