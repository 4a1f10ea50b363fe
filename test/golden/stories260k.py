"""PyTorch's numbers for stories260k: logits, LoRA gradients, twenty training steps of PEFT. fp32, eager attention.

    python test/golden/stories260k.py ../shared/models/stories260k

Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, tokenizers 0.23.3, on one thread. Writes to fixtures/ beside this file.

Everywhere an example is {"tokens": [...], "weights": [...]}: weights[i] is the loss weight of predicting tokens[i] from
tokens[0..i-1], weights[0] is 0. Each example runs alone (no padding, no packing), positions from 0. A tensor file of an
adapter has PEFT's names: base_model.model.model.layers.<i>.<self_attn|mlp>.<projection>.lora_<A|B>.weight, A [rank, in],
B [out, rank]; the adapter adds (alpha / rank) B A x.

stories260k.logits.safetensors
    short.tokens i32 [24], short.logits f32 [24, 512]; long.tokens i32 [40], long.logits f32 [40, 512]
stories260k.lora.json
    rank, alpha, target_modules; examples: three, some weights fractional; total_weight: sum of all weights;
    token_losses: per example, cross-entropy of tokens[i] at i, 0 at i = 0, unweighted, for every token;
    loss = sum over examples and tokens of weight * token_loss / total_weight;
    float64_loss and gradient_noise: the same in float64, and max over tensors of max|g32 - g64| / max|g64|
stories260k.lora.safetensors            the adapter, A and B both non-zero
stories260k.lora-gradients.safetensors  d loss / d weight under the adapter's own names, not clipped
stories260k.training.json
    rank, alpha, target_modules, beta1, beta2, epsilon, weight_decay (decoupled, on every A and B), max_grad_norm,
    peak_learning_rate, warmup_steps, total_steps;
    examples: the rows (tokens count; prompt and completion are there to be read, each was encoded by itself);
    batches: per step the 0-based indices of its four rows;
    steps: per step (step from 1) {step, learning_rate, loss, grad_norm, token_accuracy, trained_tokens}:
      learning_rate = peak * s / warmup for s <= warmup, else peak * (total - s) / (total - warmup): 0 at the last step;
      loss: weighted mean over the batch's supervised tokens, before the update; grad_norm: global, before clipping,
      then every gradient times min(1, max_grad_norm / (grad_norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does;
      token_accuracy: share of the supervised tokens whose argmax (lowest id on a tie) is right;
    float64_losses: the same run in float64, so that a reader sees how far rounding alone carries
stories260k.training-initial.safetensors, stories260k.training-final.safetensors  the adapter before and after
"""

import json
import math
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

MODEL = Path(sys.argv[1])
FIXTURES = Path(__file__).parent / "fixtures"
RANK, ALPHA = 8, 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BETA1, BETA2, EPSILON, DECAY, MAX_NORM = 0.9, 0.999, 1e-8, 0.01, 1.0
PEAK, WARMUP, STEPS, BATCH = 5e-3, 4, 20, 4
MORALS = ["Share your toys.", "Listen to your mom.", "Be kind to the cat.", "Do not run away."]


def base(dtype=torch.float32):
    return LlamaForCausalLM.from_pretrained(MODEL, dtype=dtype, attn_implementation="eager").eval()


def with_lora(adapter, dtype=torch.float32):
    """The base with an adapter given under PEFT's saved names."""
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, lora_dropout=0.0, task_type="CAUSAL_LM")
    model = get_peft_model(base(dtype), config, autocast_adapter_dtype=False)
    parameters = trainable(model)
    assert parameters.keys() == adapter.keys()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(adapter[name])
    return model


def trainable(model):
    """Saved name -> parameter."""
    return {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}


def random_adapter(seed, b_std):
    """A uniform in +-1/sqrt(in) as PEFT's Kaiming does, B normal."""
    generator = torch.Generator().manual_seed(seed)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")
    shapes = {k: v.shape for k, v in get_peft_model_state_dict(get_peft_model(base(), config)).items()}
    adapter = {}
    for name in sorted(shapes):
        if ".lora_A." in name:
            bound = 1 / math.sqrt(shapes[name][1])
            adapter[name] = (torch.rand(shapes[name], generator=generator) * 2 - 1) * bound
        else:
            adapter[name] = torch.randn(shapes[name], generator=generator) * b_std
    return adapter


def losses_of(model, tokens):
    """Cross-entropy and correctness of tokens[1:]."""
    ids = torch.tensor([tokens])
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    return cross_entropy(logits, ids[0, 1:], reduction="none"), logits.argmax(-1) == ids[0, 1:]


def sample(model, tokens, length, seed):
    """Continues at temperature 1, so that texts differ."""
    generator = torch.Generator().manual_seed(seed)
    tokens = list(tokens)
    with torch.no_grad():
        while len(tokens) < length:
            p = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].softmax(-1)
            tokens.append(int(torch.multinomial(p, 1, generator=generator)))
    return tokens


def write_json(name, value):
    """Numbers of one array on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    out, depth = [], 0
    for line in text.split("\n"):  # innermost arrays of numbers are joined
        stripped = line.strip()
        if depth and (stripped.rstrip(",").lstrip("-")[:1].isdigit() or stripped in ("]", "],")):
            out[-1] += stripped if stripped.startswith("]") else stripped.replace(",", ", ")
            depth = 0 if stripped.startswith("]") else 1
        else:
            out.append(line)
            depth = 1 if stripped.endswith("[") else 0
    (FIXTURES / name).write_text("\n".join(out).replace(", ]", "]") + "\n", encoding="utf-8")


def logits():
    model, tensors = base(), {}
    for name, length, seed in [("short", 24, 1), ("long", 40, 2)]:
        tokens = sample(model, [1], length, seed)
        tensors[f"{name}.tokens"] = torch.tensor(tokens, dtype=torch.int32)
        with torch.no_grad():
            tensors[f"{name}.logits"] = model(input_ids=torch.tensor([tokens])).logits[0].contiguous()
    save_file(tensors, FIXTURES / "stories260k.logits.safetensors")


def gradients():
    plain = base()
    examples = []
    for length, first, weight, seed in [(17, 5, 1.0, 3), (40, 12, 0.5, 4), (29, 20, 1.0, 5)]:
        weights = [weight if i >= first and (i - first) % 7 != 3 else 0.0 for i in range(length)]
        examples.append({"tokens": sample(plain, [1], length, seed), "weights": weights})
    total = sum(sum(e["weights"]) for e in examples)
    adapter = random_adapter(seed=6, b_std=0.05)

    def run(dtype):
        model = with_lora(adapter, dtype)
        loss, tokens = torch.zeros((), dtype=dtype), []
        for example in examples:
            each, _ = losses_of(model, example["tokens"])
            loss = loss + (each * torch.tensor(example["weights"][1:], dtype=dtype)).sum() / total
            tokens.append([0.0, *each.tolist()])
        loss.backward()
        return loss.item(), tokens, {n: p.grad for n, p in trainable(model).items()}

    loss, tokens, grads = run(torch.float32)
    loss64, _, grads64 = run(torch.float64)
    assert all(g.abs().max() > 1e-6 for g in grads.values())
    noise = max(float((grads[n] - grads64[n]).abs().max() / grads64[n].abs().max()) for n in grads)
    save_file(adapter, FIXTURES / "stories260k.lora.safetensors")
    save_file(grads, FIXTURES / "stories260k.lora-gradients.safetensors")
    write_json("stories260k.lora.json", {
        "rank": RANK, "alpha": ALPHA, "target_modules": TARGETS, "total_weight": total, "loss": loss,
        "float64_loss": loss64, "gradient_noise": noise, "examples": examples, "token_losses": tokens,
    })
    print("gradients: loss", loss, "float64", loss64, "noise", noise)


def training_rows():
    """Forty sampled openings, each with one of four morals as the completion."""
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    plain, rows = base(), []
    for i in range(40):
        opening = sample(plain, [1], 8 + (i * 11) % 37, 100 + i)
        prompt, completion = tokenizer.decode(opening), "\nMoral: " + MORALS[(i * 7) % 4]
        before = [1, *tokenizer.encode(prompt, add_special_tokens=False).ids]
        after = tokenizer.encode(completion, add_special_tokens=False).ids
        after = [*after, 2]
        rows.append({
            "prompt": prompt, "completion": completion, "tokens": before + after,
            "weights": [0.0] * len(before) + [1.0] * len(after),
        })
    return rows


def training():
    rows = training_rows()
    generator = torch.Generator().manual_seed(7)
    order = [i for _ in range(2) for i in torch.randperm(len(rows), generator=generator).tolist()]
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    assert len(batches) == STEPS
    adapter = random_adapter(seed=8, b_std=0.0)

    def run(dtype):
        model = with_lora(adapter, dtype).train()  # no dropout anywhere: train and eval are the same
        parameters = list(trainable(model).values())
        optimizer = torch.optim.AdamW(parameters, lr=PEAK, betas=(BETA1, BETA2), eps=EPSILON, weight_decay=DECAY)
        steps = []
        for step, batch in enumerate(batches, 1):
            rate = PEAK * (step / WARMUP if step <= WARMUP else (STEPS - step) / (STEPS - WARMUP))
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            total = sum(sum(rows[i]["weights"]) for i in batch)
            loss, right, supervised = torch.zeros((), dtype=dtype), 0, 0
            for i in batch:
                weights = torch.tensor(rows[i]["weights"][1:], dtype=dtype)
                each, correct = losses_of(model, rows[i]["tokens"])
                loss = loss + (each * weights).sum() / total
                right += int((correct & (weights > 0)).sum())
                supervised += int((weights > 0).sum())
            loss.backward()
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM))
            optimizer.step()
            steps.append({
                "step": step, "learning_rate": rate, "loss": loss.item(), "grad_norm": norm,
                "token_accuracy": right / supervised, "trained_tokens": supervised,
            })
        return steps, {n: p.detach().clone() for n, p in trainable(model).items()}

    steps, final = run(torch.float32)
    steps64, _ = run(torch.float64)
    save_file(adapter, FIXTURES / "stories260k.training-initial.safetensors")
    save_file(final, FIXTURES / "stories260k.training-final.safetensors")
    write_json("stories260k.training.json", {
        "rank": RANK, "alpha": ALPHA, "target_modules": TARGETS, "beta1": BETA1, "beta2": BETA2, "epsilon": EPSILON,
        "weight_decay": DECAY, "max_grad_norm": MAX_NORM, "peak_learning_rate": PEAK, "warmup_steps": WARMUP,
        "total_steps": STEPS, "batches": batches, "steps": steps, "float64_losses": [s["loss"] for s in steps64],
        "examples": rows,
    })
    for a, b in zip(steps, steps64):
        print(a["step"], f"{a['learning_rate']:.6f} {a['loss']:.6f} {a['grad_norm']:.4f} {a['token_accuracy']:.3f}",
              f"float64 apart by {abs(a['loss'] - b['loss']) / b['loss']:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    FIXTURES.mkdir(exist_ok=True)
    logits()
    gradients()
    training()
