"""PEFT's numbers for the kinds of LoRA on stories260k: logits, gradients, twenty training steps. fp32, eager attention.

    python test/golden/adapters.py ../shared/models/stories260k

Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, on one thread. Writes to fixtures/ beside this file. Examples,
weights, optimizer, schedule and batches are those of stories260k.py, whose functions this script uses.

adapters.<kind>/        as PEFT's save_pretrained writes it, but for the path of the base model; A and B both non-zero,
    magnitudes off the weights' lengths; for the kinds that differ there: rslora (which is `dropout` too), dora, all
adapters.gradients.safetensors   d loss / d weight, each name behind "<kind>:"
adapters.logits.safetensors      tokens i32 [24]; <kind> f32 [512], the logits after the last token
adapters.initial.safetensors     A for training; B is zero, magnitudes are the lengths of the model's own weights
adapters.json
    kinds: by name their rank, alpha, target_modules, dropout, use_rslora, use_dora, loraplus_lr_ratio;
    gradients: per kind {example, loss}: one of the three examples of stories260k.lora.json, by index;
    losses: per kind the loss of each training step; the ratio multiplies the rate of all but A, decay included

Dropout is drawn as the product does it: the element (n, d) of site i in micro-batch m of step s is dropped where
rows[n] * columns[d] mod 2^32, as int32, is below rate * 2^32 - 2^31; rows then columns are the words of
philox4x32-10(counter = (word // 4, i, s, m), key = seed), each | 1. n counts the tokens of the batch, its examples
end to end, the longest first. Sites in the order of computation: q and v of a layer read one input and share one,
down_proj has the next.
"""

import json
import math

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn

from stories260k import (BATCH, BETA1, BETA2, DECAY, EPSILON, FIXTURES, MAX_NORM, MODEL, PEAK, STEPS, WARMUP, base,
                         losses_of, sample, training_rows, trainable, write_json)

SEED = 5
TARGETS = ["q_proj", "v_proj", "down_proj"]
PLAIN = {"rank": 2, "alpha": 4, "target_modules": TARGETS, "dropout": 0.0, "use_rslora": False, "use_dora": False,
         "loraplus_lr_ratio": 1}
KINDS = {
    "rslora": {**PLAIN, "use_rslora": True},
    "dora": {**PLAIN, "use_dora": True},
    "dropout": {**PLAIN, "dropout": 0.2},
    "loraplus": {**PLAIN, "loraplus_lr_ratio": 4},
    "all": {**PLAIN, "dropout": 0.2, "use_rslora": True, "use_dora": True, "loraplus_lr_ratio": 4},
}


def philox(count, seed, stream):
    words = (count + 3) // 4
    c = [np.arange(words, dtype=np.uint64), *(np.full(words, x, dtype=np.uint64) for x in stream)]
    k0, k1 = np.uint64(seed), np.uint64(0)
    mask = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ k0, p1 & mask, (p0 >> np.uint64(32)) ^ c[3] ^ k1, p0 & mask]
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & mask, (k1 + np.uint64(0xBB67AE85)) & mask
    return np.stack(c, 1).reshape(-1)[:count]


class Dropout(nn.Module):
    """The mask of one site; `place` says which part of which batch is computed."""

    def __init__(self, rate, site, place):
        super().__init__()
        self.rate, self.site, self.place = rate, site, place

    def forward(self, x):
        if not self.training:
            return x
        (length, width), place = x.shape[-2:], self.place
        words = philox(place["length"] + width, SEED, (self.site, place["step"], 0)) | np.uint64(1)
        rows = words[place["from"] : place["from"] + length]
        drawn = (rows[:, None] * words[None, place["length"] :] & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
        kept = torch.from_numpy(drawn >= round(self.rate * 2**32) - 2**31)
        return x * kept.to(x.dtype) / (1 - self.rate)


def with_adapter(kind, adapter, place, length=256, dtype=torch.float32):
    """The base with A and B given under PEFT's saved names, and dropout as ours; `length` is that of a packed row."""
    config = LoraConfig(r=kind["rank"], lora_alpha=kind["alpha"], target_modules=kind["target_modules"], lora_dropout=0.0,
                        use_rslora=kind["use_rslora"], use_dora=kind["use_dora"], task_type="CAUSAL_LM")
    model = get_peft_model(base(dtype), config, autocast_adapter_dtype=False)
    place["length"] = length
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if name in adapter:
                parameter.copy_(adapter[name])
    if kind["dropout"] > 0:
        for name, module in model.named_modules():
            if hasattr(module, "lora_dropout") and len(module.lora_dropout) > 0:
                site = 2 * int(name.split("layers.")[1].split(".")[0]) + (name.endswith("down_proj"))
                module.lora_dropout["default"] = Dropout(kind["dropout"], site, place)
    return model


def random_parts(seed, b_std):
    generator = torch.Generator().manual_seed(seed)
    model = with_adapter(KINDS["rslora"], {}, {})
    parts = {}
    for name, parameter in sorted(trainable(model).items()):
        if ".lora_A." in name:
            bound = 1 / math.sqrt(parameter.shape[1])
            parts[name] = (torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound
        else:
            parts[name] = torch.randn(parameter.shape, generator=generator) * b_std
    return parts


def weighted(model, examples, total, place, dtype):
    """Sum of weighted losses; examples lie end to end, the longest first."""
    loss, place["from"] = torch.zeros((), dtype=dtype), 0
    for example in sorted(examples, key=lambda e: -len(e["tokens"])):
        each, _ = losses_of(model, example["tokens"])
        loss = loss + (each * torch.tensor(example["weights"][1:], dtype=dtype)).sum() / total
        place["from"] += len(example["tokens"])
    return loss


def save(model, folder):
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = folder / "adapter_config.json"
    config.write_text(config.read_text().replace(json.dumps(str(MODEL)), '"stories260k"') + "\n")


def gradients(examples):
    parts = random_parts(seed=11, b_std=0.1)
    tokens = sample(base(), [1], 24, 12)
    grads, logits, told = {}, {"tokens": torch.tensor(tokens, dtype=torch.int32)}, {}
    generator = torch.Generator().manual_seed(13)
    for n, (name, kind) in enumerate(KINDS.items()):
        if name == "loraplus":  # trains otherwise, computes the same
            continue
        place = {"step": 1}
        model = with_adapter(kind, parts, place, length=64)
        with torch.no_grad():
            for key, parameter in sorted(trainable(model).items()):
                if "magnitude" in key:
                    parameter.mul_(1 + 0.2 * torch.rand(parameter.shape, generator=generator))
        if name != "dropout":
            save(model, FIXTURES / f"adapters.{name}")
        with torch.no_grad():
            logits[name] = model.eval()(input_ids=torch.tensor([tokens])).logits[0, -1].contiguous()
        example = examples[n % 3]
        loss = weighted(model.train(), [example], sum(example["weights"]), place, torch.float32)
        loss.backward()
        for key, parameter in trainable(model).items():
            key = key.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")
            assert parameter.grad.abs().max() > 1e-6, key
            grads[f"{name}:{key}"] = parameter.grad
        told[name] = {"example": n % 3, "loss": loss.item()}
    save_file(grads, FIXTURES / "adapters.gradients.safetensors")
    save_file(logits, FIXTURES / "adapters.logits.safetensors")
    return told


def training(rows, batches):
    parts = random_parts(seed=14, b_std=0.0)
    save_file(parts, FIXTURES / "adapters.initial.safetensors")
    losses = {}
    for name, kind in KINDS.items():
        place = {"step": 0}
        model = with_adapter(kind, parts, place).train()
        named = trainable(model)
        groups = [[p for n, p in named.items() if (".lora_A." in n) == first] for first in (True, False)]
        optimizer = torch.optim.AdamW([{"params": g} for g in groups], lr=PEAK, betas=(BETA1, BETA2), eps=EPSILON,
                                      weight_decay=DECAY)
        losses[name] = []
        for step, batch in enumerate(batches, 1):
            rate = PEAK * (step / WARMUP if step <= WARMUP else (STEPS - step) / (STEPS - WARMUP))
            optimizer.param_groups[0]["lr"] = rate
            optimizer.param_groups[1]["lr"] = rate * kind["loraplus_lr_ratio"]
            optimizer.zero_grad()
            place["step"] = step
            some = [rows[i] for i in batch]
            loss = weighted(model, some, sum(sum(e["weights"]) for e in some), place, torch.float32)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(named.values()), MAX_NORM)
            optimizer.step()
            losses[name].append(loss.item())
        print(name, losses[name][0], losses[name][-1])
    return losses


if __name__ == "__main__":
    torch.set_num_threads(1)
    lora = json.loads((FIXTURES / "stories260k.lora.json").read_text())
    batches = json.loads((FIXTURES / "stories260k.training.json").read_text())["batches"]
    assert len(batches) == STEPS and all(len(b) == BATCH for b in batches)
    write_json("adapters.json", {
        "seed": SEED, "kinds": KINDS, "gradients": gradients(lora["examples"]), "losses": training(training_rows(), batches),
    })
