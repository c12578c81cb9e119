"""Dure's adapter files in the hands of PEFT and llama.cpp.

    adapter_parity.py MODEL.gguf DURE ADAPTER_ORACLE [FOLDER]

ADAPTER_ORACLE writes one adapter as GGUF, as a PEFT folder and merged. The PEFT folder is put on
the decoded base in transformers; the GGUF adapter and the merged files are loaded by llama.cpp
(package xllamacpp; that part is left out, and said so, when it is not installed). Every
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
STRIDE = 4  # llama.cpp is asked for every fourth token


def report(what, ours, theirs, mean_limit, max_limit):
    gap = np.array([abs(x - y) for a, b in zip(ours, theirs) for x, y in zip(a[1:], b)
                    if y is not None])
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
    """Its server tells the most probable next tokens only; None where ours is not among them."""
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = path, 1024, 1
    params.cpuparams.n_threads = os.cpu_count()
    if lora:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = lora, 1.0
        params.lora_adapters = [adapter]
    server = xllamacpp.Server(params)
    out = []
    for tokens in records:
        row = [None] * (len(tokens) - 1)
        for i in range(1, len(tokens), STRIDE):
            answer = server.handle_completions({
                "prompt": tokens[:i], "max_tokens": 1, "n_probs": 1000, "temperature": 0.0})
            if isinstance(answer, bytes | str):
                answer = json.loads(answer)
            if not answer["choices"][0]["logprobs"]:
                continue  # it would end here, and says no more
            top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            row[i - 1] = next((t["logprob"] for t in top if t["id"] == tokens[i]), None)
        out.append(row)
    return out


def main(path, dure, oracle, folder):
    records = tokenize(dure, path)
    lines = "".join(json.dumps({"tokens": r}) + "\n" for r in records)
    done = subprocess.run([oracle, path, folder], input=lines, stdout=subprocess.PIPE, text=True,
                          check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    base, adapted, merged = ([a[k] for a in answers] for k in ("base", "adapted", "merged"))
    moved = np.mean([np.abs(np.array(a) - np.array(b)).mean() for a, b in zip(base, adapted)])
    print(f"the adapter moves a log-probability by {moved:.3f} on average", flush=True)
    fine = moved > 0.01
    fine &= report("merged f16 in the engine", adapted, [m[1:] for m in merged], 5e-3, 0.1)
    fine &= report("PEFT folder on the decoded base", adapted, with_peft(path, folder, records),
                   2e-5, 1e-3)
    try:
        import xllamacpp  # noqa: F401
    except ImportError:
        print("llama.cpp part SKIPPED: pip install xllamacpp")
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
