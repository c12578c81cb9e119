"""Dure's adapter files in the hands of PEFT and llama.cpp.

    adapter_parity.py MODEL.gguf DURE ADAPTER_ORACLE [FOLDER]

ADAPTER_ORACLE writes one adapter as GGUF, as a PEFT folder and merged. The PEFT folder is put on
the decoded base in transformers; the GGUF adapter and the merged files are loaded by llama.cpp
(package llama-cpp-python; that part is left out, and said so, when it is not installed). Every
log-probability is compared with the engine's own with the adapter, on texts.txt.

llama.cpp is compared on the base decoded to F32: its quantized products round activations to 8
bits. The merged files keep quantized matrices, so only their mean difference is bounded.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from peft import PeftModel

from engine_parity import HERE, load

try:
    import llama_cpp
except ImportError:
    llama_cpp = None

TEXTS = [t.replace("\\n", "\n") for t in (HERE / "texts.txt").read_text().splitlines()][:12]
GREEDY = 24  # tokens of a greedy answer
FLOAT32 = os.environ | {"DURE_MAX_CPU_ISA": "AVX512"}


def report(what, ours, theirs, mean_limit, max_limit):
    gap = np.array([abs(x - y) for a, b in zip(ours, theirs) for x, y in zip(a[1:], b)])
    fine = gap.mean() < mean_limit and gap.max() < max_limit
    print(f"{what}\t{len(gap)} tokens\tmean difference {gap.mean():.2e}\tlargest {gap.max():.2e}"
          f"\t{'ok' if fine else 'TOO LARGE'}", flush=True)
    return fine


def tokenize(dure, model):
    text = "".join(json.dumps(t) + "\n" for t in TEXTS)
    done = subprocess.run([dure, "data", "tokens", "--model", model], input=text.encode(),
                          stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def with_peft(path, folder, records):
    base, _ = load(path)
    model = PeftModel.from_pretrained(base, f"{folder}/peft").eval()
    out = []
    for tokens in records:
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].double()
        out.append(torch.log_softmax(logits, -1)[torch.arange(len(tokens) - 1), tokens[1:]].numpy())
    return out


def with_llama_cpp(path, records, lora=None):
    model = llama_cpp.Llama(path, lora_path=lora, n_ctx=1024, logits_all=True, verbose=False,
                            n_threads=os.cpu_count())
    out = []
    for tokens in records:
        model.reset()
        model.eval(tokens)
        logits = torch.from_numpy(model.scores[: len(tokens) - 1].astype(np.float64))
        out.append(torch.log_softmax(logits, -1)[torch.arange(len(tokens) - 1), tokens[1:]].numpy())
    return out


def compare_answers(dure, f32, adapter):
    """Greedy continuations of the texts, token for token; a near tie may go either way once."""
    model = llama_cpp.Llama(f32, lora_path=adapter, n_ctx=1024, verbose=False,
                            n_threads=os.cpu_count())
    same = 0
    for text in TEXTS:
        theirs = model.create_completion(text, max_tokens=GREEDY, temperature=0.0,
                                         repeat_penalty=1.0)["choices"][0]["text"]
        done = subprocess.run([dure, "generate", "--model", f32, "--adapter", adapter, "--any-base",
                               "--raw", "--prompt", text, "--max-tokens", str(GREEDY),
                               "--temperature", "0", "--json"],
                              stdout=subprocess.PIPE, check=True, env=FLOAT32)
        ours = json.loads(done.stdout)["text"]
        same += ours == theirs
        if ours != theirs:
            print(f"  dure {ours!r}\n  llama.cpp {theirs!r}", flush=True)
    print(f"llama.cpp, greedy answers with the adapter\t{same} of {len(TEXTS)} the same", flush=True)
    return same >= len(TEXTS) - 1


def main(path, dure, oracle, folder):
    records = tokenize(dure, path)
    lines = "".join(json.dumps({"tokens": r}) + "\n" for r in records)
    done = subprocess.run([oracle, path, folder], input=lines, stdout=subprocess.PIPE, text=True,
                          check=True, env=FLOAT32)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    base, adapted, merged = ([a[k] for a in answers] for k in ("base", "adapted", "merged"))
    moved = np.mean([np.abs(np.array(a) - np.array(b)).mean() for a, b in zip(base, adapted)])
    print(f"the adapter moves a log-probability by {moved:.3f} on average", flush=True)
    fine = moved > 0.01
    fine &= report("merged f16 in the engine", adapted, [m[1:] for m in merged], 5e-3, 0.1)
    fine &= report("PEFT folder on the decoded base", adapted, with_peft(path, folder, records),
                   2e-5, 1e-3)
    if llama_cpp is None:
        print("llama.cpp part SKIPPED: pip install llama-cpp-python")
        return 0 if fine else 1
    f32 = f"{folder}/f32.gguf"
    fine &= report("llama.cpp, base in F32", base, with_llama_cpp(f32, records), 2e-3, 0.1)
    fine &= report("llama.cpp, base in F32 with the GGUF adapter", adapted,
                   with_llama_cpp(f32, records, f"{folder}/adapter.gguf"), 2e-3, 0.1)
    fine &= compare_answers(dure, f32, f"{folder}/adapter.gguf")
    for mode in ("f16", "mixed"):
        fine &= report(f"llama.cpp, merged {mode}", adapted,
                       with_llama_cpp(f"{folder}/{mode}.gguf", records), 0.1, 5)
    return 0 if fine else 1


if __name__ == "__main__":
    if len(sys.argv) > 4:
        os.makedirs(sys.argv[4], exist_ok=True)
        sys.exit(main(*sys.argv[1:5]))
    with tempfile.TemporaryDirectory() as made:
        sys.exit(main(*sys.argv[1:4], made))
