"""The engine against PyTorch on the same weights: log-probabilities and every LoRA gradient.

    engine_parity.py MODEL.gguf DURE ENGINE_ORACLE

The GGUF is decoded with the `gguf` package and put into transformers' LlamaForCausalLM. Gradients
are compared with autograd in float64; autograd in float32 is the yardstick for how far rounding
alone may lead. Prints the differences and fails when they are larger than that explains.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
RANK, ALPHA = 8, 16.0
TARGETS = ["q", "k", "v", "o", "gate", "up", "down"]
MODULES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
NAMES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]


def field(reader, key):
    return reader.get_field(key).contents()


def hf_order(rows, heads):
    """Index that turns GGUF rows of q or k into the checkpoint's: h*hd + 2i+p -> h*hd + p*hd/2+i."""
    dim = rows // heads
    index = np.arange(rows).reshape(heads, dim // 2, 2)
    return index.swapaxes(1, 2).reshape(rows)


def load(path):
    reader = gguf.GGUFReader(path)
    config = transformers.LlamaConfig(
        vocab_size=len(reader.get_field("tokenizer.ggml.tokens").data),
        hidden_size=field(reader, "llama.embedding_length"),
        intermediate_size=field(reader, "llama.feed_forward_length"),
        num_hidden_layers=field(reader, "llama.block_count"),
        num_attention_heads=field(reader, "llama.attention.head_count"),
        num_key_value_heads=field(reader, "llama.attention.head_count_kv"),
        max_position_embeddings=field(reader, "llama.context_length"),
        rms_norm_eps=field(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_theta=field(reader, "llama.rope.freq_base"),
        rope_parameters={"rope_type": "default", "rope_theta": field(reader, "llama.rope.freq_base")},
        tie_word_embeddings=True, attn_implementation="eager")
    model = transformers.LlamaForCausalLM(config).eval()
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    heads = {0: config.num_attention_heads, 1: config.num_key_value_heads}
    state = {"model.embed_tokens.weight": tensors["token_embd.weight"],
             "lm_head.weight": tensors.get("output.weight", tensors["token_embd.weight"]),
             "model.norm.weight": tensors["output_norm.weight"]}
    for i in range(config.num_hidden_layers):
        state[f"model.layers.{i}.input_layernorm.weight"] = tensors[f"blk.{i}.attn_norm.weight"]
        state[f"model.layers.{i}.post_attention_layernorm.weight"] = tensors[f"blk.{i}.ffn_norm.weight"]
        for k, (module, name) in enumerate(zip(MODULES, NAMES)):
            w = tensors[f"blk.{i}.{name}.weight"]
            state[f"model.layers.{i}.{module}.weight"] = w[hf_order(len(w), heads[k])] if k < 2 else w
    model.load_state_dict({k: torch.tensor(np.array(v)) for k, v in state.items()})
    return model, heads


def run(command, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
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


def adapt(model, heads, rng):
    """Puts random adapters on every matrix; returns the parameters in the engine's order."""
    params, loras = [], []
    for layer in model.model.layers:
        for k, module in enumerate(MODULES):
            parent, leaf = module.split(".")
            base = getattr(getattr(layer, parent), leaf)
            bound = base.in_features ** -0.5
            a = rng.uniform(-bound, bound, (RANK, base.in_features)).astype(np.float32)
            b = rng.normal(0, 0.02, (base.out_features, RANK)).astype(np.float32)
            order = hf_order(len(b), heads[k]) if k < 2 else np.arange(len(b))
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


def compare_gradients(model, heads, path, oracle, records):
    for p in model.parameters():
        p.requires_grad_(False)
    params, loras = adapt(model, heads, np.random.default_rng(1))
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
    model, heads = load(path)
    good = compare_logprobs(model, path, oracle, records)
    good &= compare_gradients(model, heads, path, oracle, [records[0], records[7], records[13]])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
