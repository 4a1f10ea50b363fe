"""PEFT's side of whole_job.ts: trains on its tokens, and says how the validation loss falls with the time.

    python bench/peers/whole_job_peft.py MODEL FOLDER BATCH {grouped,shuffled} {bf16,autocast,fp32}

FOLDER/job.json: {train, valid: [{tokens, weights}], epochs, learning_rate, warmup_ratio, weight_decay, rank, alpha,
evaluations}. Batches are padded to their longest; `grouped` ones as transformers' LengthGroupedSampler makes them (megabatches
of 50 batches, sorted). Only supervised positions pass the head. The time is that of the process, but for evaluations.
Prints one line of JSON: {"start": seconds until the first step, "points": [[seconds, validation loss], …]}.
"""

import contextlib
import json
import random
import sys
import time
import warnings
from pathlib import Path

BEGAN = time.monotonic()

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

warnings.filterwarnings("ignore")
MEGABATCH, VALID_BATCH = 50, 16


def batches_of(rows, size, grouped, rng):
    order = list(range(len(rows)))
    rng.shuffle(order)
    if grouped:
        mega = MEGABATCH * size
        order = [i for at in range(0, len(order), mega) for i in sorted(order[at : at + mega], key=lambda j: -len(rows[j]["tokens"]))]
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    if grouped:
        rng.shuffle(batches)
    return batches


def main():
    model_path, folder, size, order, config = sys.argv[1:]
    size, job = int(size), json.loads((Path(folder) / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    rng = random.Random(0)
    dtype = torch.bfloat16 if config == "bf16" else torch.float32
    model = LlamaForCausalLM.from_pretrained(model_path, dtype=dtype, attn_implementation="sdpa")
    lora = LoraConfig(r=job["rank"], lora_alpha=job["alpha"], target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora, autocast_adapter_dtype=config != "bf16")
    llama = model.base_model.model
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=job["learning_rate"], weight_decay=job["weight_decay"])
    cast = lambda: torch.autocast("cpu", torch.bfloat16) if config == "autocast" else contextlib.nullcontext()

    def loss_of(rows, reduction):
        width = max(len(r["tokens"]) for r in rows)
        pad = lambda values: values + [0] * (width - len(values))
        ids = torch.tensor([pad(r["tokens"]) for r in rows])
        mask = torch.tensor([[1] * len(r["tokens"]) + [0] * (width - len(r["tokens"])) for r in rows])
        learned = torch.tensor([pad(r["weights"]) for r in rows])[:, 1:] > 0
        with cast():
            hidden = llama.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
            logits = llama.lm_head(hidden[learned])
        return cross_entropy(logits.float(), ids[:, 1:][learned], reduction=reduction), int(learned.sum())

    @torch.no_grad()
    def validate():
        total, count = 0.0, 0
        rows = sorted(job["valid"], key=lambda r: len(r["tokens"]))
        for i in range(0, len(rows), VALID_BATCH):
            loss, n = loss_of(rows[i : i + VALID_BATCH], "sum")
            total, count = total + loss.item(), count + n
        return total / count

    per_epoch = -(-len(job["train"]) // size)
    steps = per_epoch * job["epochs"]
    warmup = -(-int(steps * job["warmup_ratio"] * 1000) // 1000) or 1
    every = max(1, steps // job["evaluations"])
    spent, step, points = 0.0, 0, []
    start = time.monotonic() - BEGAN
    for _ in range(job["epochs"]):
        for batch in batches_of(job["train"], size, order == "grouped", rng):
            step += 1
            rate = step / warmup if step <= warmup else (steps - step + 1) / (steps - warmup)
            for group in optimizer.param_groups:
                group["lr"] = job["learning_rate"] * rate
            optimizer.zero_grad()
            loss, _ = loss_of([job["train"][i] for i in batch], "mean")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            if step % every == 0 or step == steps:
                before = time.monotonic()
                points.append([before - BEGAN - spent, validate()])
                spent += time.monotonic() - before
    print(json.dumps({"start": start, "points": points}))


main()
