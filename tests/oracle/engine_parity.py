"""The engine against PyTorch on the same weights: log-probabilities, and every gradient of LoRA and
of DoRA.

    engine_parity.py MODEL.gguf DURE ENGINE_ORACLE

The GGUF is decoded with the `gguf` package and put into transformers (gguf_model.py). Gradients
are compared with autograd in float64; autograd in float32 is the yardstick for how far rounding
alone may lead, and in bfloat16 for what the CPU's bfloat16 units may add. Prints the differences
and fails when they are larger than that explains.
"""
import copy
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
# The engine on float32 products, and as it comes: bfloat16 where the CPU multiplies it.
FLOAT32 = {"DURE_MAX_CPU_ISA": "AVX512"}
AS_IT_COMES = {}


def run(command, lines, env=AS_IT_COMES):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True,
                          env={**os.environ, **env})
    return [json.loads(line) for line in done.stdout.splitlines()]


def to_kind(model, kind):
    """All weights as `kind`; the angles of the rotation stay as they are, as transformers loads them."""
    rotary = model.model.rotary_emb
    angles = {name: value for name, value in rotary.named_buffers() if name.endswith("inv_freq")}
    model.to(kind)
    for name, value in angles.items():
        setattr(rotary, name, value.to(torch.promote_types(kind, torch.float32)))


def logprobs_of(model, tokens):
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    return torch.log_softmax(logits, -1)[torch.arange(len(tokens) - 1), tokens[1:]].numpy()


def compare_logprobs(model, path, oracle, records):
    truth = [logprobs_of(model, r) for r in records]

    def apart(theirs):
        all_tokens = np.concatenate([np.abs(a - b) for a, b in zip(theirs, truth)])
        return np.array([all_tokens.mean(), all_tokens.max()])

    def ours(env):
        answers = run([oracle, path], [{"tokens": r} for r in records], env)
        return apart([np.array(a["logprobs"][1:]) for a in answers])

    in_f32, as_it_comes = ours(FLOAT32), ours(AS_IT_COMES)
    rounded = copy.deepcopy(model)
    to_kind(rounded, torch.bfloat16)
    in_bf16 = apart([logprobs_of(rounded, r) for r in records])
    print(f"log-probabilities: {len(records)} texts, {sum(map(len, truth))} tokens, mean and largest "
          f"difference in float32 {in_f32[0]:.2e} {in_f32[1]:.2e}, as it comes {as_it_comes[0]:.2e} "
          f"{as_it_comes[1]:.2e} (PyTorch in bfloat16: {in_bf16[0]:.2e} {in_bf16[1]:.2e})")
    return in_f32[0] < 2e-5 and in_f32[1] < 1e-3 and as_it_comes[0] < in_bf16[0]


class Lora(torch.nn.Module):
    """LoRA, or DoRA when there are magnitudes, whose rows' norms autograd takes for constants."""

    def __init__(self, base, *parts):
        super().__init__()
        self.base, self.parts = base, torch.nn.ParameterList(parts)

    def forward(self, x):
        a, b, scale = self.parts[0], self.parts[1], ALPHA / RANK
        y = self.base(x) + scale * (x @ a.T @ b.T)
        if len(self.parts) == 2:
            return y
        norms = (self.base.weight + scale * (b @ a)).detach().norm(dim=1)
        bias = 0 if self.base.bias is None else self.base.bias
        return (y - bias) * (self.parts[2] / norms) + bias


def adapt(model, orders, rng, dora):
    """Puts random adapters on every matrix; returns the parameters in the engine's order, and with
    each adapter its parts' index from the engine's rows to its own."""
    params, loras = [], []
    for layer in model.model.layers:
        for k, module in enumerate(MODULES):
            parent, leaf = module.split(".")
            base = getattr(getattr(layer, parent), leaf)
            bound = base.in_features ** -0.5
            a = rng.uniform(-bound, bound, (RANK, base.in_features)).astype(np.float32)
            b = rng.normal(0, 0.02, (base.out_features, RANK)).astype(np.float32)
            order = np.arange(len(b))[orders[k]]
            parts, indices = [a, b], [np.arange(RANK), order]
            if dora:
                m = np.empty(len(b), np.float32)
                m[order] = base.weight.norm(dim=1).numpy()
                parts.append(m * rng.uniform(0.8, 1.2, len(b)).astype(np.float32))
                indices.append(order)
            lora = Lora(base, *(torch.tensor(p[i]) for p, i in zip(parts, indices)))
            setattr(getattr(layer, parent), leaf, lora)
            params += [p.ravel() for p in parts]
            loras.append((lora, indices))
    return np.concatenate(params), loras


def autograd(model, loras, tokens, first):
    model.zero_grad()
    logits = model(torch.tensor([tokens])).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[first - 1:-1], torch.tensor(tokens[first:]))
    loss.backward()
    parts = []
    for lora, indices in loras:
        for part, index in zip(lora.parts, indices):
            gradient = np.empty(part.shape)
            gradient[index] = part.grad.double().numpy()
            parts.append(gradient.ravel())
    return loss.item(), parts


def distance(mine, truth):
    """Relative difference over all matrices, and in the worst matrix."""
    parts = [np.linalg.norm(m - t) / np.linalg.norm(t) for m, t in zip(mine, truth)]
    whole = np.linalg.norm(np.concatenate(mine) - np.concatenate(truth))
    return np.array([whole / np.linalg.norm(np.concatenate(truth)), max(parts)])


def compare_gradients(model, orders, path, oracle, records):
    for p in model.parameters():
        p.requires_grad_(False)
    return all([compare_gradients_of(kind, copy.deepcopy(model), orders, path, oracle, records)
                for kind in ("LoRA", "DoRA")])


def compare_gradients_of(kind, model, orders, path, oracle, records):
    dora = ["dora"] if kind == "DoRA" else []
    params, loras = adapt(model, orders, np.random.default_rng(1), dora)
    lines = []
    for tokens in records:
        first = len(tokens) // 2
        lines.append({"tokens": tokens, "supervised": [int(i >= first) for i in range(len(tokens))]})
    ours = {}
    with tempfile.TemporaryDirectory() as folder:
        there, back = f"{folder}/params", f"{folder}/gradients"
        params.tofile(there)
        for name, env in (("f32", FLOAT32), ("as it comes", AS_IT_COMES)):
            losses = run([oracle, path, str(RANK), str(ALPHA), "0", there, back, *dora], lines, env)
            ours[name] = (losses, np.fromfile(back, np.float32).reshape(len(records), -1))
    answers = {}
    for precision in (torch.float32, torch.float64, torch.bfloat16):
        to_kind(model, precision)
        answers[precision] = [autograd(model, loras, r, len(r) // 2) for r in records]
    truths = answers[torch.float64]
    cuts = np.cumsum([len(part) for part in truths[0][1]])[:-1]

    def worst(gradients):
        return np.max([distance(g, truth) for g, (_, truth) in zip(gradients, truths)], axis=0)

    mine = {name: worst([np.split(g.astype(float), cuts) for g in gradients])
            for name, (_, gradients) in ours.items()}
    theirs = {precision: worst([parts for _, parts in answers[precision]])
              for precision in (torch.bfloat16, torch.float32)}
    losses_apart = max(abs(t - o["loss"]) for (t, _), o in zip(truths, ours["f32"][0]))
    print(f"{kind} gradients: {len(records)} records, {len(params)} parameters in {len(truths[0][1])} parts; "
          f"distance from float64 autograd, over all and in the worst part: in float32 "
          f"{mine['f32'][0]:.2e} {mine['f32'][1]:.2e} (PyTorch {theirs[torch.float32][0]:.2e} "
          f"{theirs[torch.float32][1]:.2e}), as it comes {mine['as it comes'][0]:.2e} "
          f"{mine['as it comes'][1]:.2e} (PyTorch in bfloat16 {theirs[torch.bfloat16][0]:.2e} "
          f"{theirs[torch.bfloat16][1]:.2e}); loss in float32 {losses_apart:.2e}")
    return ((mine["f32"] < 3 * theirs[torch.float32] + 1e-5).all() and losses_apart < 1e-4
            and (mine["as it comes"] < theirs[torch.bfloat16]).all())


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
