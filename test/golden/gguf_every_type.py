"""Makes gguf-every-type.gguf, a random llama of eleven layers, each stored in another of the types that we read, with
its vocabulary (a token a byte) and a chat template; and gguf-every-type.json, what transformers goes on with after a
prompt over the weights that Python's `gguf` dequantises.

    python test/golden/gguf_every_type.py

Rows are 256 long where a K-quant wants it. Rows of 32 (what reads attention and the activation) are Q8_0. Needs numpy,
torch, transformers 5 and gguf 0.19, which quantises no K-quants: those are random blocks.
"""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent / 'fixtures'
D, F, H, KV, K, V = 256, 32, 2, 1, 16, 259
LAYERS = [T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q4_K, T.Q5_K, T.Q6_K]
# Of a block's scales: where they lie in it, and how large they are, so that weights are about as large as elsewhere.
SCALES = {T.Q4_K: ([0, 2], 3e-4), T.Q5_K: ([0, 2], 1.5e-4), T.Q6_K: ([208], 8e-5)}
PROMPT, TOKENS = 'Every type.', 24
TEMPLATE = '{{ bos_token }}{{ messages[0].content }}'

rng = np.random.default_rng(5)
writer = gguf.GGUFWriter(HERE / 'gguf-every-type.gguf', 'llama')
weights = {}


def restore(w, heads):
    """convert_hf_to_gguf.py interleaves the rows of q and k."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def add(name, hf, shape, dtype, size, heads=0):
    if dtype in SCALES:
        halves, scale = SCALES[dtype]
        values, bytes_ = gguf.GGML_QUANT_SIZES[dtype]
        blocks = rng.integers(0, 256, (shape[0] * shape[1] // values, bytes_), dtype=np.uint8)
        for at in halves:
            scales = (scale * rng.uniform(0.5, 1, len(blocks)) * rng.choice([-1, 1], len(blocks))).astype(np.float16)
            blocks[:, at : at + 2] = scales.reshape(-1, 1).view(np.uint8)
        data = blocks.reshape(shape[0], -1)
    else:
        values = rng.normal(0, size, shape).astype(np.float32)
        if name == 'output.weight':  # What it says is text: only letters and spaces are ever likely.
            said = [b for b in range(256) if chr(b) in ' abcdefghijklmnopqrstuvwxyz']
            values[[i for i in range(V) if i not in said]] = 0
        data = values if dtype == T.F32 else gguf.quantize(values, dtype)
    writer.add_tensor(name, data, raw_dtype=None if dtype == T.F32 else dtype)
    w = data if dtype == T.F32 else gguf.dequantize(data, dtype).reshape(shape)
    weights[hf] = torch.from_numpy(np.array(restore(w, heads) if heads else w, dtype=np.float32))


def norm(name, hf):
    values = rng.normal(1, 0.1, (D,)).astype(np.float32)
    writer.add_tensor(name, values)
    weights[hf] = torch.from_numpy(values)


writer.add_block_count(len(LAYERS))
writer.add_context_length(128)
writer.add_embedding_length(D)
writer.add_feed_forward_length(F)
writer.add_head_count(H)
writer.add_head_count_kv(KV)
writer.add_key_length(K)
writer.add_value_length(K)
writer.add_rope_dimension_count(K)
writer.add_rope_freq_base(10000.0)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_vocab_size(V)
plain = [*range(ord('!'), ord('~') + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
others = [b for b in range(256) if b not in plain]
letters = [chr(b) if b in plain else chr(256 + others.index(b)) for b in range(256)]
writer.add_tokenizer_model('gpt2')
writer.add_tokenizer_pre('gpt-2')
writer.add_token_list([*letters, 'zz', '<s>', '</s>'])
writer.add_token_types([1] * 257 + [3, 3])
writer.add_token_merges(['z z'])
writer.add_bos_token_id(257)
writer.add_eos_token_id(258)
writer.add_chat_template(TEMPLATE)

add('token_embd.weight', 'model.embed_tokens.weight', (V, D), T.BF16, 0.5)
for i, dtype in enumerate(LAYERS):
    blk, hf = f'blk.{i}', f'model.layers.{i}'
    norm(f'{blk}.attn_norm.weight', f'{hf}.input_layernorm.weight')
    norm(f'{blk}.ffn_norm.weight', f'{hf}.post_attention_layernorm.weight')
    add(f'{blk}.attn_q.weight', f'{hf}.self_attn.q_proj.weight', (H * K, D), dtype, 0.1, H)
    add(f'{blk}.attn_k.weight', f'{hf}.self_attn.k_proj.weight', (KV * K, D), dtype, 0.1, KV)
    add(f'{blk}.attn_v.weight', f'{hf}.self_attn.v_proj.weight', (KV * K, D), dtype, 0.1)
    add(f'{blk}.attn_output.weight', f'{hf}.self_attn.o_proj.weight', (D, H * K), T.Q8_0, 0.1)
    add(f'{blk}.ffn_gate.weight', f'{hf}.mlp.gate_proj.weight', (F, D), dtype, 0.1)
    add(f'{blk}.ffn_up.weight', f'{hf}.mlp.up_proj.weight', (F, D), dtype, 0.1)
    add(f'{blk}.ffn_down.weight', f'{hf}.mlp.down_proj.weight', (D, F), T.Q8_0, 0.1)
norm('output_norm.weight', 'model.norm.weight')
add('output.weight', 'lm_head.weight', (V, D), T.F16, 0.3)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

model = LlamaForCausalLM(
    LlamaConfig(
        hidden_size=D, intermediate_size=F, num_hidden_layers=len(LAYERS), num_attention_heads=H, num_key_value_heads=KV,
        head_dim=K, vocab_size=V, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={'rope_type': 'default', 'rope_theta': 10000.0},
    )
).eval()
missing, unexpected = model.load_state_dict(weights, strict=False)
assert not unexpected and not missing, (missing, unexpected)
ids, said, gaps = [257, *PROMPT.encode()], [], []
with torch.no_grad():
    for _ in range(TOKENS):
        top = model(torch.tensor([ids])).logits[0, -1].topk(2)
        gaps.append(float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
text = bytes(ids[1 + len(PROMPT) :]).decode()
(HERE / 'gguf-every-type.json').write_text(json.dumps({'prompt': PROMPT, 'tokens': TOKENS, 'text': text}, indent=1) + '\n')
print(text, 'least gap of logits', min(gaps))
