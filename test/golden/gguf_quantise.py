"""Makes fixtures/gguf-quantise.json: values, and what Python's `gguf` and llama.cpp's own library quantise them to.

    python test/golden/gguf_quantise.py PATH/OF/libggml-base.so

Q4_K and Q5_K are llama.cpp's alone. Needs numpy, gguf 0.19 and a build of ggml.
"""

import base64
import ctypes
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

rng = np.random.default_rng(5)
rows = np.stack([
    rng.standard_normal(256) * 0.05,
    rng.standard_normal(256) ** 3,
    np.zeros(256),
    np.abs(rng.standard_normal(256)) + 1,
    np.linspace(-1e-7, 1e-5, 256),
    np.where(np.arange(256) % 32 == 7, 9.0, rng.standard_normal(256) * 1e-3),
]).astype(np.float32)
encode = lambda array: base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
out = {"values": encode(rows)}
for qtype in (T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1):
    out[qtype.name] = encode(gguf.quantize(rows, qtype))

ggml = ctypes.CDLL(sys.argv[1])
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
ggml.ggml_quantize_init.argtypes = [ctypes.c_int]
for qtype, bytes_of in ((T.Q4_K, 144), (T.Q5_K, 176)):
    size = bytes_of * len(rows)
    block = ctypes.create_string_buffer(size)
    ggml.ggml_quantize_init(qtype.value)
    assert ggml.ggml_quantize_chunk(qtype.value, rows.ctypes.data, block, 0, len(rows), 256, None) == size
    out[qtype.name] = encode(np.frombuffer(block.raw[:size], dtype=np.uint8))
(Path(__file__).parent / "fixtures" / "gguf-quantise.json").write_text(json.dumps(out, indent=1) + "\n")
