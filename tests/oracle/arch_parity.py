"""The engine against PyTorch on small random models of every architecture and rotary scaling.

    arch_parity.py ENGINE_ORACLE

Each model is written with the `gguf` package, its matrices in one of the quantized types; then
log-probabilities and every gradient are compared as in engine_parity.py. One is a file in parts.
"""
import glob
import os
import sys
import tempfile

import gguf
import numpy as np
import torch

from engine_parity import compare_gradients, compare_logprobs
from gguf_model import load

T = gguf.GGMLQuantizationType
VOCABULARY, CONTEXT = 320, 128
# name, architecture, matrices' type, what differs from the plain model
CASES = [
    ("llama", "llama", T.Q8_0, {}),
    ("llama, stretched", "llama", T.Q4_0, {"scaling": ("linear", 4.0), "untied": True, "head_dim": 24}),
    ("llama, yarn", "llama", T.F16, {"scaling": ("yarn", 4.0)}),
    ("llama, factors", "llama", T.BF16, {"factors": True}),
    ("qwen2", "qwen2", T.Q5_0, {}),
    ("qwen2, yarn", "qwen2", T.Q8_0, {"scaling": ("yarn", 4.0), "untied": True}),
    ("qwen3", "qwen3", T.Q4_1, {"head_dim": 32}),
    ("qwen3 in parts", "qwen3", T.Q8_0, {"head_dim": 32, "tensors_a_part": 12}),
    ("gemma3", "gemma3", T.Q8_0, {"head_dim": 32, "layers": 7, "window": 9}),
    ("gemma3, stretched", "gemma3", T.Q5_1, {"head_dim": 32, "window": 9, "scaling": ("linear", 8.0)}),
    ("gemma3, no window", "gemma3", T.F32, {"head_dim": 16}),
]


def add_keys(w, arch, o, layers, width, heads, heads_kv, head_dim):
    w.add_context_length(CONTEXT)
    w.add_embedding_length(width)
    w.add_block_count(layers)
    w.add_feed_forward_length(96)
    w.add_head_count(heads)
    w.add_head_count_kv(heads_kv)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_rope_freq_base(1e4 if arch == "llama" else 1e6)
    if "window" in o:
        w.add_sliding_window(o["window"])
        w.add_uint32(f"{arch}.attention.sliding_window_pattern", 3)
    if "scaling" in o:
        kind, factor = o["scaling"]
        w.add_rope_scaling_type(gguf.RopeScalingType(kind))
        w.add_rope_scaling_factor(factor)
        w.add_rope_scaling_orig_ctx_len(CONTEXT // 4)


def write(path, arch, kind, o, rng):
    """Writes the model; returns its file, the first one of a model in parts."""
    layers, width, heads, heads_kv = o.get("layers", 3), 64, 4, 2
    head_dim = o.get("head_dim", width // heads)
    w = gguf.GGUFWriter(path, arch, split_max_tensors=o.get("tensors_a_part", 0))
    add_keys(w, arch, o, layers, width, heads, heads_kv, head_dim)

    def matrix(name, rows, columns, spread=1.0):
        values = (rng.normal(size=(rows, columns)) * spread * columns ** -0.5).astype(np.float32)
        whole = columns % gguf.GGML_QUANT_SIZES[kind][0] == 0
        chosen = kind if whole else T.F16
        w.add_tensor(name, gguf.quants.quantize(values, chosen), raw_dtype=chosen)

    def vector(name, n, base):
        w.add_tensor(name, (base + 0.3 * rng.uniform(-1, 1, n)).astype(np.float32))

    q, kv = heads * head_dim, heads_kv * head_dim
    matrix("token_embd.weight", VOCABULARY, width, 4.0)
    for i in range(layers):
        for name, rows, columns in (("attn_q", q, width), ("attn_k", kv, width), ("attn_v", kv, width),
                                    ("attn_output", width, q), ("ffn_gate", 96, width),
                                    ("ffn_up", 96, width), ("ffn_down", width, 96)):
            matrix(f"blk.{i}.{name}.weight", rows, columns)
            if arch == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                vector(f"blk.{i}.{name}.bias", rows, 0.0)
        norms = {"attn_norm": width, "ffn_norm": width}
        if arch in ("qwen3", "gemma3"):
            norms |= {"attn_q_norm": head_dim, "attn_k_norm": head_dim}
        if arch == "gemma3":
            norms |= {"post_attention_norm": width, "post_ffw_norm": width}
        for name, n in norms.items():
            vector(f"blk.{i}.{name}.weight", n, 1.0)
    vector("output_norm.weight", width, 1.0)
    if o.get("untied"):
        matrix("output.weight", VOCABULARY, width, 2.0)
    if o.get("factors"):
        w.add_tensor("rope_freqs.weight", rng.uniform(1, 8, head_dim // 2).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path if os.path.exists(path) else sorted(glob.glob(f"{path[:-5]}-*"))[0]


def main():
    oracle, wanted = sys.argv[1], sys.argv[2:]
    torch.manual_seed(0)
    good = True
    for i, (name, arch, kind, options) in enumerate(CASES):
        if wanted and arch not in wanted:
            continue
        rng = np.random.default_rng(i)
        with tempfile.TemporaryDirectory() as folder:
            path = write(os.path.join(folder, "model.gguf"), arch, kind, options, rng)
            model, orders = load(path)
            records = [rng.integers(0, VOCABULARY, n).tolist() for n in (2, 9, 33, 100)]
            print(f"== {name}, {kind.name}", flush=True)
            good &= compare_logprobs(model, path, oracle, records)
            good &= compare_gradients(model, orders, path, oracle, records[1:])
    print("all within rounding" if good else "DIFFERENCES TOO LARGE")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
