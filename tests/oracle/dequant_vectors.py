"""Writes tests/vectors/dequant.bin: random blocks of every type and what the `gguf` package (the
format's own Python reference) decodes them to.

    python dequant_vectors.py OUT

Each entry: u32 type, u32 weights, u32 bytes, the blocks, the weights as float32; little-endian.
Scales are halves of ordinary size, everything else is random bits.
"""
import struct
import sys

import gguf
import numpy as np

T = gguf.GGMLQuantizationType
# Offsets of the half-precision scales in one block.
SCALES = {T.F16: [0], T.BF16: [], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
          T.IQ4_NL: [0], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
rng = np.random.default_rng(20)
with open(sys.argv[1], "wb") as out:
    for kind, scales in SCALES.items():
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        n = max(2, 64 // weights)
        blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
        if kind == T.BF16:
            blocks = (rng.normal(size=n).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            blocks = blocks.view(np.uint8).reshape(n, size)
        for at in scales:
            blocks[:, at:at + 2] = rng.normal(0, 0.05, n).astype(np.float16).view(np.uint8).reshape(n, 2)
        values = gguf.quants.dequantize(blocks.reshape(1, -1), kind).astype(np.float32)
        out.write(struct.pack("<III", kind, values.size, blocks.size))
        out.write(blocks.tobytes() + values.tobytes())
