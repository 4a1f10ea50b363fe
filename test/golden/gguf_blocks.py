"""Makes fixtures/gguf-blocks.json: random blocks of every quantised type, and what Python's `gguf` dequantises them to.

    python test/golden/gguf_blocks.py

{type: {"blocks": base64 of the bytes, "values": base64 of the float32s}}. Needs numpy and gguf 0.19.
"""

import base64
import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
# What scales may be: ordinary, subnormal, negative, nothing at all. Not infinite: then bits of a NaN would decide.
SCALES = [0.0123, 6e-7, -0.5, 0.0, 3.1]

rng = np.random.default_rng(11)
out = {}
for qtype, halves in HALVES.items():
    values, size = gguf.GGML_QUANT_SIZES[qtype]
    blocks = rng.integers(0, 256, (len(SCALES) if values == 32 else 3, size), dtype=np.uint8)
    for i, block in enumerate(blocks):
        for j, at in enumerate(halves):
            scale = SCALES[(i + 2 * j) % len(SCALES)]
            block[at : at + 2] = np.frombuffer(np.float16(scale).tobytes(), dtype=np.uint8)
    floats = gguf.dequantize(blocks, qtype).astype(np.float32)
    encode = lambda array: base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    out[qtype.name] = {"blocks": encode(blocks), "values": encode(floats)}
(Path(__file__).parent / "fixtures" / "gguf-blocks.json").write_text(json.dumps(out, indent=1) + "\n")
