"""Makes gguf-all-types.gguf, a six-layer random llama whose layers are stored in six types, and what Python's `gguf`
dequantises it to: sha256 of every float32 tensor under its Hugging Face name, q and k rows put back in order.

    python test/golden/gguf_types.py [SmolLM2-135M-Instruct.Q4_1.gguf]

With a file: its hashes too. Needs numpy and gguf 0.19.
"""

import hashlib
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

HERE = Path(__file__).parent / 'fixtures'
D, F, H, KV, K, V = 32, 64, 2, 1, 16, 48
LAYERS = [T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1]
LAYER_NAMES = {
    'attn_norm': ('input_layernorm', (D,)),
    'attn_q': ('self_attn.q_proj', (H * K, D)),
    'attn_k': ('self_attn.k_proj', (KV * K, D)),
    'attn_v': ('self_attn.v_proj', (KV * K, D)),
    'attn_output': ('self_attn.o_proj', (D, H * K)),
    'ffn_norm': ('post_attention_layernorm', (D,)),
    'ffn_gate': ('mlp.gate_proj', (F, D)),
    'ffn_up': ('mlp.up_proj', (F, D)),
    'ffn_down': ('mlp.down_proj', (D, F)),
}


def interleave(w, heads):
    """As convert_hf_to_gguf.py permutes q and k."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def restore(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def digest(w):
    w = np.ascontiguousarray(w, dtype=np.float32)
    return {'dims': list(w.shape), 'sha256': hashlib.sha256(w.tobytes()).hexdigest()}


def hugging_face(name):
    if name.startswith('blk.'):
        _, i, part, _ = name.split('.')
        return f'model.layers.{i}.{LAYER_NAMES[part][0]}.weight'
    return {'token_embd.weight': 'model.embed_tokens.weight', 'output_norm.weight': 'model.norm.weight', 'output.weight': 'lm_head.weight'}[name]


def digests(path, heads, kv_heads):
    out = {}
    for t in gguf.GGUFReader(path).tensors:
        if t.tensor_type == T.F32:
            w = np.array(t.data)
        else:
            w = gguf.dequantize(t.data, t.tensor_type)
        w = w.reshape([int(d) for d in reversed(t.shape)])
        name = hugging_face(t.name)
        if name.endswith('q_proj.weight'):
            w = restore(w, heads)
        if name.endswith('k_proj.weight'):
            w = restore(w, kv_heads)
        out[name] = digest(w)
    return out


def make(path):
    rng = np.random.default_rng(7)
    w = gguf.GGUFWriter(path, 'llama')
    w.add_block_count(len(LAYERS))
    w.add_context_length(64)
    w.add_embedding_length(D)
    w.add_feed_forward_length(F)
    w.add_head_count(H)
    w.add_head_count_kv(KV)
    w.add_rope_freq_base(10000.0)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(V)
    w.add_rope_dimension_count(K)

    original = {}

    def add(name, values, dtype):
        data = values if dtype == T.F32 else gguf.quantize(values, dtype)
        w.add_tensor(name, data, raw_dtype=None if dtype == T.F32 else dtype)

    embed = rng.normal(0, 0.3, (V, D)).astype(np.float32)
    embed[0] = 0  # a block of zeros
    embed[1] *= 1e-6  # scales that are subnormal in float16
    add('token_embd.weight', embed, T.Q8_0)
    for i, dtype in enumerate(LAYERS):
        for part, (name, shape) in LAYER_NAMES.items():
            values = rng.normal(0, 0.5, shape).astype(np.float32)
            heads = {'attn_q': H, 'attn_k': KV}.get(part)
            original[f'model.layers.{i}.{name}.weight'] = values
            add(f'blk.{i}.{part}.weight', interleave(values, heads) if heads else values, T.F32 if len(shape) == 1 else dtype)
    add('output_norm.weight', rng.normal(1, 0.1, (D,)).astype(np.float32), T.F32)
    add('output.weight', rng.normal(0, 0.3, (V, D)).astype(np.float32), T.F16)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return original


file = HERE / 'gguf-all-types.gguf'
original = make(file)
all_types = digests(file, H, KV)
for name, values in original.items():
    if '.0.' in name:  # float32: what comes back is what went in
        assert all_types[name] == digest(values), name
(HERE / 'gguf-all-types.json').write_text(json.dumps(all_types, indent=1) + '\n')
if len(sys.argv) > 1:
    (HERE / 'gguf-smollm2.json').write_text(json.dumps(digests(sys.argv[1], 9, 3), indent=1) + '\n')
