"""The engine against PyTorch on the same weights: log-probabilities and every LoRA gradient.

    engine_parity.py MODEL.gguf DURE ENGINE_ORACLE

The GGUF is decoded with the `gguf` package and put into transformers (gguf_model.py). Gradients
are compared with autograd in float64; autograd in float32 is the yardstick for how far rounding
alone may lead. Prints the differences and fails when they are larger than that explains.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch

from gguf_model import MODULES, load

HERE = pathlib.Path(__file__).parent
RANK, ALPHA = 8, 16.0
# Both sides compute in float32; bfloat16 would hide what is compared here.
FLOAT32 = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}


def run(command, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True,
                          env=FLOAT32)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare_logprobs(model, path, oracle, records):
    ours = run([oracle, path], [{"tokens": r} for r in records])
    differences = []
    for tokens, answer in zip(records, ours):
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].double()
        theirs = torch.log_softmax(logits, -1)[torch.arange(len(tokens) - 1), tokens[1:]]
        differences.append(np.abs(np.array(answer["logprobs"][1:]) - theirs.numpy()))
    all_tokens = np.concatenate(differences)
    print(f"log-probabilities: {len(records)} texts, {len(all_tokens)} tokens, "
          f"mean difference {all_tokens.mean():.2e}, largest {all_tokens.max():.2e}")
    return all_tokens.mean() < 2e-5 and all_tokens.max() < 1e-3


class Lora(torch.nn.Module):
    def __init__(self, base, a, b):
        super().__init__()
        self.base, self.a, self.b = base, torch.nn.Parameter(a), torch.nn.Parameter(b)

    def forward(self, x):
        return self.base(x) + (ALPHA / RANK) * (x @ self.a.T @ self.b.T)


def adapt(model, orders, rng):
    """Puts random adapters on every matrix; returns the parameters in the engine's order."""
    params, loras = [], []
    for layer in model.model.layers:
        for k, module in enumerate(MODULES):
            parent, leaf = module.split(".")
            base = getattr(getattr(layer, parent), leaf)
            bound = base.in_features ** -0.5
            a = rng.uniform(-bound, bound, (RANK, base.in_features)).astype(np.float32)
            b = rng.normal(0, 0.02, (base.out_features, RANK)).astype(np.float32)
            order = np.arange(len(b))[orders[k]]
            lora = Lora(base, torch.tensor(a), torch.tensor(b[order]))
            setattr(getattr(layer, parent), leaf, lora)
            params += [a.ravel(), b.ravel()]
            loras.append((lora, order))
    return np.concatenate(params), loras


def autograd(model, loras, tokens, first):
    model.zero_grad()
    logits = model(torch.tensor([tokens])).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[first - 1:-1], torch.tensor(tokens[first:]))
    loss.backward()
    parts = []
    for lora, order in loras:
        b = np.empty(lora.b.shape)
        b[order] = lora.b.grad.double().numpy()
        parts += [lora.a.grad.double().numpy().ravel(), b.ravel()]
    return loss.item(), parts


def distance(mine, truth):
    """Relative difference over all matrices, and in the worst matrix."""
    parts = [np.linalg.norm(m - t) / np.linalg.norm(t) for m, t in zip(mine, truth)]
    whole = np.linalg.norm(np.concatenate(mine) - np.concatenate(truth))
    return np.array([whole / np.linalg.norm(np.concatenate(truth)), max(parts)])


def compare_gradients(model, orders, path, oracle, records):
    for p in model.parameters():
        p.requires_grad_(False)
    params, loras = adapt(model, orders, np.random.default_rng(1))
    lines = []
    for tokens in records:
        first = len(tokens) // 2
        lines.append({"tokens": tokens, "supervised": [int(i >= first) for i in range(len(tokens))]})
    with tempfile.TemporaryDirectory() as folder:
        there, back = f"{folder}/params", f"{folder}/gradients"
        params.tofile(there)
        losses = run([oracle, path, str(RANK), str(ALPHA), "0", there, back], lines)
        ours = np.fromfile(back, np.float32).reshape(len(records), -1)
    answers = {}
    for kind in (torch.float32, torch.float64):
        model.to(kind)
        answers[kind] = [autograd(model, loras, r, len(r) // 2) for r in records]
    mine, theirs, losses_apart = np.zeros(2), np.zeros(2), 0.0
    for i, (truth_loss, truth) in enumerate(answers[torch.float64]):
        cuts = np.cumsum([len(part) for part in truth])[:-1]
        mine = np.maximum(mine, distance(np.split(ours[i].astype(float), cuts), truth))
        theirs = np.maximum(theirs, distance(answers[torch.float32][i][1], truth))
        losses_apart = max(losses_apart, abs(truth_loss - losses[i]["loss"]))
    print(f"gradients: {len(records)} records, {len(params)} parameters in {len(truth)} matrices; "
          f"distance from float64 autograd: {mine[0]:.2e} over all, {mine[1]:.2e} in the worst "
          f"matrix (PyTorch in float32: {theirs[0]:.2e}, {theirs[1]:.2e}); loss {losses_apart:.2e}")
    return (mine < 3 * theirs + 1e-5).all() and losses_apart < 1e-4


def main():
    path, dure, oracle = sys.argv[1:4]
    torch.manual_seed(0)
    texts = [line.encode().decode("unicode_escape").encode("latin-1").decode()
             if "\\" in line else line for line in (HERE / "texts.txt").read_text().splitlines()]
    records = run([dure, "data", "tokens", "--model", path], texts)
    model, orders = load(path)
    good = compare_logprobs(model, path, oracle, records)
    good &= compare_gradients(model, orders, path, oracle, [records[0], records[7], records[13]])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
