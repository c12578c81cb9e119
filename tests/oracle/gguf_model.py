"""A GGUF as a float32 model of transformers: llama, qwen2, qwen3 or gemma3, decoded with the `gguf`
package. The other scripts compare the engine with it."""
import re

import gguf
import numpy as np
import torch
import transformers

MODULES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
NAMES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
GEMMA_NORMS = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
               "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
CLASSES = {"llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
           "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
           "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
           "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM)}


class Keys:
    def __init__(self, reader):
        self.reader = reader
        self.arch = reader.get_field("general.architecture").contents()

    def __call__(self, key, absent=None):
        found = self.reader.get_field(f"{self.arch}.{key}")
        return absent if found is None else found.contents()


def hf_order(rows, heads):
    """Index that turns GGUF rows of q or k into the checkpoint's: h*hd + 2i+p -> h*hd + p*hd/2+i."""
    dim = rows // heads
    index = np.arange(rows).reshape(heads, dim // 2, 2)
    return index.swapaxes(1, 2).reshape(rows)


def rope_parameters(keys):
    out = {"rope_type": "default", "rope_theta": keys("rope.freq_base", 10000.0)}
    kind = keys("rope.scaling.type", "linear" if keys("rope.scaling.factor") else "none")
    if kind != "none":
        out.update(rope_type=kind, factor=keys("rope.scaling.factor", 1.0))
    if kind == "yarn":
        out.update(original_max_position_embeddings=keys("rope.scaling.original_context_length"),
                   beta_fast=keys("rope.scaling.yarn_beta_fast", 32.0),
                   beta_slow=keys("rope.scaling.yarn_beta_slow", 1.0))
    return out


def gemma_fields(keys, layers, head_dim):
    window, period = keys("attention.sliding_window", 0), keys("attention.sliding_window_pattern", 6)
    slides = [bool(window) and i % period < period - 1 for i in range(layers)]
    return {"layer_types": ["sliding_attention" if s else "full_attention" for s in slides],
            "sliding_window": window or 4096, "query_pre_attn_scalar": head_dim,
            "rope_parameters": {"full_attention": rope_parameters(keys),
                                "sliding_attention": {"rope_type": "default",
                                                      "rope_theta": keys("rope.freq_base_swa", 10000.0)}}}


def make_config(keys, tensors):
    layers, heads = keys("block_count"), keys("attention.head_count")
    head_dim = keys("attention.key_length", keys("embedding_length") // heads)
    fields = {"vocab_size": len(tensors["token_embd.weight"]),
              "hidden_size": keys("embedding_length"),
              "intermediate_size": keys("feed_forward_length"), "num_hidden_layers": layers,
              "num_attention_heads": heads, "head_dim": head_dim,
              "num_key_value_heads": keys("attention.head_count_kv", heads),
              "max_position_embeddings": keys("context_length"),
              "rms_norm_eps": keys("attention.layer_norm_rms_epsilon"),
              "rope_parameters": rope_parameters(keys),
              "tie_word_embeddings": "output.weight" not in tensors, "attn_implementation": "eager"}
    if keys.arch == "gemma3":
        fields.update(gemma_fields(keys, layers, head_dim))
    return CLASSES[keys.arch][0](**fields)


def make_state(keys, tensors, orders, layers):
    gemma = keys.arch == "gemma3"
    shift = 1.0 if gemma else 0.0  # the converter adds it; transformers does when it computes
    state = {"model.embed_tokens.weight": tensors["token_embd.weight"],
             "lm_head.weight": tensors.get("output.weight", tensors["token_embd.weight"]),
             "model.norm.weight": tensors["output_norm.weight"] - shift}
    for i in range(layers):
        to = f"model.layers.{i}"
        for k, (module, name) in enumerate(zip(MODULES, NAMES)):
            state[f"{to}.{module}.weight"] = tensors[f"blk.{i}.{name}.weight"][orders[k]]
            if f"blk.{i}.{name}.bias" in tensors:
                state[f"{to}.{module}.bias"] = tensors[f"blk.{i}.{name}.bias"][orders[k]]
        for name, module in {**(GEMMA_NORMS if gemma else NORMS), **HEAD_NORMS}.items():
            if f"blk.{i}.{name}.weight" in tensors:
                state[f"{to}.{module}.weight"] = tensors[f"blk.{i}.{name}.weight"] - shift
    return {name: torch.tensor(np.array(value)) for name, value in state.items()}


def files_of(path):
    """A model in parts is named by its first file."""
    split = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", path)
    if not split:
        return [path]
    base, n = split.groups()
    return [f"{base}-{i + 1:05}-of-{n}.gguf" for i in range(int(n))]


def load(path):
    """The model, and for each of MODULES the index that turns the GGUF's rows into its own."""
    readers = [gguf.GGUFReader(file) for file in files_of(path)]
    keys = Keys(readers[0])
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type)
               for reader in readers for t in reader.tensors}
    config = make_config(keys, tensors)
    model = CLASSES[keys.arch][1](config).eval()
    orders = [slice(None)] * len(MODULES)
    if keys.arch == "llama":
        for k, heads in enumerate((config.num_attention_heads, config.num_key_value_heads)):
            orders[k] = hf_order(heads * config.head_dim, heads)
    model.load_state_dict(make_state(keys, tensors, orders, config.num_hidden_layers))
    if "rope_freqs.weight" in tensors:
        model.model.rotary_emb.inv_freq /= torch.tensor(tensors["rope_freqs.weight"])
    return model, orders
