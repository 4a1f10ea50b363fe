"""PyTorch's numbers for a tiny random model of every family of decoders: logits, loss, LoRA gradients, greedy tokens.

    python test/golden/families.py

Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, gguf 0.19.0, on one thread. fp32, eager attention. Writes to
fixtures/families/<name>/, and below that:

config.json, model.safetensors     the model, stored as float16
adapter/                           a LoRA adapter as PEFT saves it, A and B both random
golden.json                        rank, alpha, target_modules, use_dora; tokens: of the logits; prompt, greedy: the adapted model goes
                                   on from the one with the other; examples, total_weight, loss: as in stories260k.py
golden.safetensors                 logits f32 [T, V], of the base; gradients under the adapter's own names
one-layer.gguf                     where llama.cpp knows the family: the first layer and what is around it, as float16

gpt2-untied's adapter is a DoRA. The texts are longer than the windows, and than what the scaled ropes call the original context.
"""

import json
import math
import shutil
from pathlib import Path

import gguf
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

FIXTURES = Path(__file__).parent / "fixtures" / "families"
V, RANK, ALPHA = 64, 2, 6
DORA = ["gpt2-untied"]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHARED = {
    "vocab_size": V, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

FAMILIES = {
    "llama-3": (LlamaConfig(**SHARED, rope_parameters=LLAMA3, attention_bias=True, mlp_bias=True), LINEAR),
    "llama-linear": (
        LlamaConfig(
            **SHARED, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}, tie_word_embeddings=True
        ),
        LINEAR,
    ),
    "mistral": (MistralConfig(**SHARED, sliding_window=8), LINEAR),
    "qwen2": (Qwen2Config(**SHARED, tie_word_embeddings=True), LINEAR),
    "qwen2-sliding": (Qwen2Config(**SHARED, use_sliding_window=True, sliding_window=8, max_window_layers=1), LINEAR),
    "qwen3": (Qwen3Config(**SHARED, head_dim=16, tie_word_embeddings=True), LINEAR),
    "gpt2": (
        GPT2Config(vocab_size=V, n_positions=64, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=1),
        ["c_attn", "c_proj", "c_fc"],
    ),
    "gpt2-untied": (
        GPT2Config(
            vocab_size=V, n_positions=64, n_embd=32, n_inner=48, n_layer=2, n_head=2, tie_word_embeddings=False,
            bos_token_id=0, eos_token_id=1,
        ),
        ["c_attn", "c_proj", "c_fc"],
    ),
}


def random_model(folder, config, seed):
    """Saved as float16 and read again as float32, so that both sides know the same values."""
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            values = torch.randn(p.shape, generator=generator)
            if p.ndim == 1:
                p.copy_(0.2 * values + (0.0 if name.endswith("bias") else 1.0))
            elif "embed" in name or "wte" in name or "wpe" in name or "lm_head" in name:
                p.copy_(0.5 * values)
            else:
                p.copy_(values * 1.2 / math.sqrt(config.hidden_size))
    model.half().save_pretrained(folder)
    for extra in ("generation_config.json",):
        (folder / extra).unlink(missing_ok=True)
    return read(folder)


def read(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def with_adapter(folder, targets, seed):
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=targets, lora_dropout=0.0, use_dora=folder.name in DORA, task_type="CAUSAL_LM"
    )
    model = get_peft_model(read(folder), config, autocast_adapter_dtype=False).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if "lora_magnitude" in name:
                p.mul_(1 + 0.2 * torch.randn(p.shape, generator=generator))
            elif p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator) * (0.2 if "lora_A" in name else 0.1))
    model.peft_config["default"].base_model_name_or_path = folder.name
    model.peft_config["default"].target_modules = targets  # not a set: the same order every time
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    return model


def greedy(model, prompt, count):
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            best = logits.topk(2).values
            assert best[0] - best[1] > 1e-3, "too close to call"
            tokens.append(int(logits.argmax()))
    return tokens[len(prompt):]


def gradients(model, examples, total):
    loss = torch.zeros(())
    for example in examples:
        ids = torch.tensor([example["tokens"]])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        each = cross_entropy(logits, ids[0, 1:], reduction="none")
        loss = loss + (each * torch.tensor(example["weights"][1:])).sum() / total
    loss.backward()
    grads = {n.replace("_vector.default.weight", "_vector").replace(".default.", "."): p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert all(g.abs().max() > 1e-6 for g in grads.values())
    return loss.item(), grads


def make(name, config, targets, seed):
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    base = random_model(folder, config, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    draw = lambda count: torch.randint(2, V, (count,), generator=generator).tolist()

    tokens = draw(40)
    with torch.no_grad():
        logits = base(input_ids=torch.tensor([tokens])).logits[0].contiguous()
    examples = []
    for length, first, weight in [(13, 4, 1.0), (48, 20, 0.5), (30, 2, 1.0)]:
        weights = [weight if i >= first and i % 5 != 3 else 0.0 for i in range(length)]
        examples.append({"tokens": draw(length), "weights": weights})
    total = sum(sum(e["weights"]) for e in examples)

    tuned = with_adapter(folder, targets, seed + 2)
    loss, grads = gradients(tuned, examples, total)
    prompt = draw(12)
    save_file({"logits": logits, **grads}, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps({
        "rank": RANK, "alpha": ALPHA, "target_modules": targets, "use_dora": name in DORA, "tokens": tokens, "prompt": prompt,
        "greedy": greedy(tuned, prompt, 40), "total_weight": total, "loss": loss, "examples": examples,
    }) + "\n")
    print(name, "loss", loss, "logits", float(logits.std()))


def interleave(w, heads):
    """As convert_hf_to_gguf.py permutes q and k of a llama, biases too."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def one_layer_gguf(name, arch, architecture):
    """What convert_hf_to_gguf.py writes, by gguf's own table of names, without the layers after the first."""
    folder = FIXTURES / name
    config = json.loads((folder / "config.json").read_text())
    gpt2 = arch == "gpt2"
    field = lambda modern, old: config[old if gpt2 else modern]
    width, heads = field("hidden_size", "n_embd"), field("num_attention_heads", "n_head")
    w = gguf.GGUFWriter(folder / "one-layer.gguf", arch)
    w.add_block_count(1)
    w.add_context_length(field("max_position_embeddings", "n_positions"))
    w.add_embedding_length(width)
    w.add_feed_forward_length(4 * width if gpt2 else config["intermediate_size"])
    w.add_head_count(heads)
    if gpt2:
        w.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        w.add_head_count_kv(config["num_key_value_heads"])
        w.add_layer_norm_rms_eps(config["rms_norm_eps"])
        w.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
        w.add_vocab_size(V)
        if arch == "qwen3":
            w.add_key_length(config["head_dim"])
            w.add_value_length(config["head_dim"])
        else:
            w.add_rope_dimension_count(width // heads)
    names = gguf.get_tensor_name_map(architecture, 1)
    for tensor, values in load_file(folder / "model.safetensors").items():
        stem, ending = tensor.rsplit(".", 1)
        stem = names.get_name(stem)
        if ".1." in tensor or stem is None:
            assert ".1." in tensor or tensor == "lm_head.weight"
            continue
        values = values.numpy()
        if tensor.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            values = values.T.copy()
        if arch == "llama" and ".q_proj." in tensor:
            values = interleave(values, heads)
        if arch == "llama" and ".k_proj." in tensor:
            values = interleave(values, config["num_key_value_heads"])
        w.add_tensor(f"{stem}.{ending}", values.astype("float32") if values.ndim == 1 else values)
    if name == "llama-linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(config["rope_parameters"]["factor"])
    if name == "llama-3":
        w.add_tensor("rope_freqs.weight", llama3_factors(width // heads))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def llama3_factors(size):
    """LlamaModel.generate_extra_tensors of convert_hf_to_gguf.py."""
    frequencies = 1.0 / (LLAMA3["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    low, high = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
    context, factor = LLAMA3["original_max_position_embeddings"], LLAMA3["factor"]
    factors = []
    for f in frequencies:
        wave = 2 * math.pi / f
        if wave < context / high:
            factors.append(1)
        elif wave > context / low:
            factors.append(factor)
        else:
            smooth = (context / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(factors, dtype=torch.float32).numpy()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for i, (name, (config, targets)) in enumerate(FAMILIES.items()):
        make(name, config, targets, 10 * i)
    ARCH = gguf.MODEL_ARCH
    for name, arch, architecture in [
        ("llama-3", "llama", ARCH.LLAMA), ("llama-linear", "llama", ARCH.LLAMA), ("qwen2", "qwen2", ARCH.QWEN2), ("qwen3", "qwen3", ARCH.QWEN3), ("gpt2", "gpt2", ARCH.GPT2),
    ]:
        one_layer_gguf(name, arch, architecture)
