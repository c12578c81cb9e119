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

TEXTS = [t.replace("\\n", "\n") for t in (HERE / "texts.txt").read_text().splitlines()][:12]


def report(what, ours, theirs, mean_limit, max_limit):
    gap = np.concatenate([np.abs(np.array(a[1:]) - np.array(b)) for a, b in zip(ours, theirs)])
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
    import llama_cpp
    model = llama_cpp.Llama(path, lora_path=lora, n_ctx=2048, n_threads=2, logits_all=True,
                            verbose=False)
    out = []
    for tokens in records:
        model.reset()
        model.eval(tokens)
        logits = torch.tensor(np.array(model.scores[:len(tokens) - 1])).double()
        out.append(torch.log_softmax(logits, -1)[torch.arange(len(tokens) - 1), tokens[1:]].numpy())
    return out


def main(path, dure, oracle, folder):
    records = tokenize(dure, path)
    lines = "".join(json.dumps({"tokens": r}) + "\n" for r in records)
    done = subprocess.run([oracle, path, folder], input=lines, stdout=subprocess.PIPE, text=True,
                          check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    base, adapted = ([a[k] for a in answers] for k in ("base", "adapted"))
    moved = np.mean([np.abs(np.array(a) - np.array(b)).mean() for a, b in zip(base, adapted)])
    print(f"the adapter moves a log-probability by {moved:.3f} on average", flush=True)
    fine = moved > 0.01
    fine &= report("PEFT folder on the decoded base", adapted, with_peft(path, folder, records),
                   2e-5, 1e-3)
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        print("llama.cpp part SKIPPED: pip install llama-cpp-python")
        return 0 if fine else 1
    f32 = f"{folder}/f32.gguf"
    fine &= report("llama.cpp, base in F32", base, with_llama_cpp(f32, records), 2e-3, 0.1)
    fine &= report("llama.cpp, base in F32 with the GGUF adapter", adapted,
                   with_llama_cpp(f32, records, f"{folder}/adapter.gguf"), 2e-3, 0.1)
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
