"""Writes tests/vectors/dequant.bin: blocks of every type that Dure decodes and what the `gguf`
package (the format's own Python reference) makes of them.

    python dequant_vectors.py OUT

Each entry: u32 type, u32 weights, u32 bytes, the blocks, the weights as float32; little-endian.
The first blocks of a type have ordinary scales, the others each pair of the extreme ones: zeros of
both signs, subnormal, largest. Everything else is random bits. `gguf` cannot decode Q8_K; its rule is that
of ggml's dequantize_row_q8_K: the product of the float32 scale and the signed byte.
"""
import itertools
import struct
import sys

import gguf
import numpy as np

T = gguf.GGMLQuantizationType
# Offsets of the half-precision scales in one block.
SCALES = {T.F32: [], T.F16: [0], T.BF16: [], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
          T.IQ4_NL: [0], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
          T.Q8_K: [], T.IQ4_XS: [0]}
EXTREMES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF]
ORDINARY = 3
rng = np.random.default_rng(20)


def scales_of(n_scales):
    ordinary = rng.normal(0, 0.05, (ORDINARY, n_scales)).astype(np.float16).view(np.uint16)
    edges = list(itertools.product(EXTREMES, repeat=n_scales)) if n_scales == 1 else \
        [(a, b) for i, a in enumerate(EXTREMES) for b in (EXTREMES[i - 1], 0x2C00)]
    return np.concatenate([ordinary, np.array(edges, dtype=np.uint16).reshape(-1, n_scales)])


def plain_blocks(kind, size):
    values = rng.normal(size=61).astype(np.float32)
    values[:4] = [0.0, -0.0, 1e-40, -3e38]
    raw = values.view(np.uint32) if kind == T.F32 else (values.view(np.uint32) >> 16).astype(np.uint16)
    return raw.view(np.uint8).reshape(-1, size)


def quantized_blocks(kind, size):
    scales = scales_of(len(SCALES[kind]))
    if kind == T.F16:
        scales = np.concatenate([scales, rng.normal(size=(52, 1)).astype(np.float16).view(np.uint16)])
    blocks = rng.integers(0, 256, (len(scales), size), dtype=np.uint8)
    for column, at in enumerate(SCALES[kind]):
        blocks[:, at:at + 2] = np.ascontiguousarray(scales[:, column]).view(np.uint8).reshape(-1, 2)
    return blocks


def q8_k_blocks(size):
    blocks = rng.integers(0, 256, (4, size), dtype=np.uint8)
    d = np.array([0.01, -0.0, -3e-39, 1e36], dtype=np.float32)
    blocks[:, :4] = d.view(np.uint8).reshape(4, 4)
    return blocks, d[:, None] * blocks[:, 4:260].view(np.int8).astype(np.float32)


with open(sys.argv[1], "wb") as out:
    for kind, scales in SCALES.items():
        _, size = gguf.GGML_QUANT_SIZES[kind]
        if kind == T.Q8_K:
            blocks, values = q8_k_blocks(size)
        else:
            blocks = quantized_blocks(kind, size) if scales else plain_blocks(kind, size)
            values = gguf.quants.dequantize(blocks.reshape(1, -1), kind).astype(np.float32)
        assert np.isfinite(values).all()
        out.write(struct.pack("<III", kind, values.size, blocks.size))
        out.write(blocks.tobytes() + values.tobytes())
