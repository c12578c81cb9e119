"""PyTorch + PEFT, and with DP Opacus, on what bench_train measures: the same GGUF's weights,
token ids, LoRA (rank 16 on all seven matrices), labels on every position, one AdamW step per
RECORDS records in micro-batches of MICRO.

    peers.py MODEL.gguf opacus|peft-bf16|peft-f32 RECORDS MICRO LENGTH STEPS

Prints one line, tab-separated as bench_train's: name, tokens/s (median over the steps after a
first micro-batch that warms up), peak resident memory in MB.
"""
import resource
import statistics
import sys
import time
import warnings

import gguf
import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model

MODULES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
NAMES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
RANK, ALPHA, CLIP, SIGMA = 16, 16, 1.0, 1.0


def hf_rows(w, heads):
    """Rows of q or k in the order of the checkpoint: llama.cpp's converter permutes them."""
    dim = len(w) // heads
    return w.reshape(heads, dim // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def load(path, dtype):
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.get_field(key).contents()
    weights = {t.name: t for t in reader.tensors}
    tied = "output.weight" not in weights
    config = transformers.LlamaConfig(
        vocab_size=len(reader.get_field("tokenizer.ggml.tokens").data),
        hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"),
        num_attention_heads=field("llama.attention.head_count"),
        num_key_value_heads=field("llama.attention.head_count_kv"),
        max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        tie_word_embeddings=tied, attn_implementation="sdpa", use_cache=False)
    torch.set_default_dtype(dtype)
    model = transformers.LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)

    def put(parameter, name, heads=0):
        w = gguf.quants.dequantize(weights[name].data, weights[name].tensor_type)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.array(hf_rows(w, heads) if heads else w)))

    put(model.model.embed_tokens.weight, "token_embd.weight")
    put(model.model.norm.weight, "output_norm.weight")
    if not tied:
        put(model.lm_head.weight, "output.weight")
    heads = [config.num_attention_heads, config.num_key_value_heads, 0, 0, 0, 0, 0]
    for i, layer in enumerate(model.model.layers):
        put(layer.input_layernorm.weight, f"blk.{i}.attn_norm.weight")
        put(layer.post_attention_layernorm.weight, f"blk.{i}.ffn_norm.weight")
        for module, name, n in zip(MODULES, NAMES, heads):
            parent, leaf = module.split(".")
            put(getattr(getattr(layer, parent), leaf).weight, f"blk.{i}.{name}.weight", n)
    return model


def token_ids(n, vocab):
    """bench_train's: a 64-bit linear congruential generator from 1, its upper 31 bits."""
    state, ids = 1, np.empty(n, np.int64)
    for i in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids[i] = (state >> 33) % vocab
    return torch.from_numpy(ids)


def prepare(path, mode):
    model = load(path, torch.bfloat16 if mode == "peft-bf16" else torch.float32)
    targets = [m.split(".")[1] for m in MODULES]
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, lora_dropout=0.0)
    model = get_peft_model(model, config, autocast_adapter_dtype=mode != "peft-bf16")
    model.train()
    return model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)


def private(model, optimizer, records):
    """Opacus around both: per-record gradients by hooks, noise added at the optimizer's step."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer
    model = GradSampleModule(model)
    return model, DPOptimizer(optimizer, noise_multiplier=SIGMA, max_grad_norm=CLIP,
                              expected_batch_size=records)


def micro_batch(model, optimizer, ids, mode, last):
    """Forward and backward. Opacus clips and adds up in step(), and goes on to noise and AdamW
    only when it is not told to skip."""
    if mode == "opacus":
        optimizer.signal_skip_step(do_skip=not last)
    logits = model(input_ids=ids).logits[:, :-1].float()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    if mode == "opacus" or last:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def main():
    path, mode = sys.argv[1:3]
    records, micro, length, steps = map(int, sys.argv[3:])
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    model, optimizer = prepare(path, mode)
    ids = token_ids(records * length, model.config.vocab_size).view(records, length)
    if mode == "opacus":
        model, optimizer = private(model, optimizer, records)
    micro_batch(model, optimizer, ids[:micro], mode, True)
    took = []
    for _ in range(steps):
        started = time.perf_counter()
        for at in range(0, records, micro):
            micro_batch(model, optimizer, ids[at:at + micro], mode, at + micro >= records)
        took.append(time.perf_counter() - started)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(f"{mode}\t{records * length / statistics.median(took):.0f}\ttokens/s\t{memory:.0f}\tMB")


if __name__ == "__main__":
    main()
