"""What both sides of the banking77 comparison read: rows, batches, token ids, first adapter, learning rates.

    python bench/peers/banking77_data.py ../shared/data/banking77 SmolLM2-135M-Instruct-f32 OUT [--seeds 1 2 3] [--epochs 3] [--all]

Needs tokenizers, numpy and safetensors only; the model's folder gives config.json and tokenizer.json. The same arguments give the
same bytes. Ten intents, 30 training rows each drawn by the seed, every other row of these intents held out. With --all every
intent, 32 training rows each: one pass over them is 154 steps.

OUT/seed-<s>/
    train.jsonl         300 or 2,464 rows {"prompt", "completion", "intent", "text"}; the completion is " " + the intent's name
    heldout.jsonl       all other rows, in the order of the data set
    tokens.json         per training row {"tokens", "weights"}: prompt, completion, end of sequence; weights[i] is the loss
                        weight of predicting tokens[i]: 1 on the completion and the end of sequence, else 0
    valid-tokens.json   of every fifth held-out row (with --all every fifteenth) the same, for a validation loss
    heldout-tokens.json per held-out row the prompt's ids
    told-tokens.json    the same under a prompt that lists the ten names: what the untuned base, which cannot know them, is
                        asked besides (training and the tuned model never see it)
    batches.json        per optimizer step the 0-based indices of its training rows; the last step of an epoch is shorter
    init.safetensors    the adapter before training, PEFT's names: A uniform in +-1/sqrt(in) as PEFT's Kaiming, B zero, fp32
    plan.json           seed, intents, rank, alpha, target_modules, n_epochs, batch_size, total_steps, learning_rate (the peak),
                        warmup_steps, learning_rates (one a step, as src/engine/train/schedule.ts has them: linear), beta1,
                        beta2, epsilon, weight_decay, max_grad_norm, eos_token_id, max_new_tokens

The loss of a step is the sum of the supervised tokens' cross-entropies over their number in the whole batch. An answer is right
when the text decoded greedily up to the end of sequence, stripped, equals the intent's name.
"""

import argparse
import csv
import json
import random
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

INTENTS = [
    "card_arrival", "card_not_working", "cash_withdrawal_charge", "change_pin", "declined_card_payment",
    "exchange_rate", "lost_or_stolen_card", "pending_top_up", "request_refund", "top_up_failed",
]
TEMPLATE = "Bank customer's message: {text}\nIntent:"
TRAIN_ROWS, EPOCHS, BATCH = 30, 3, 16
ALL_ROWS = 32
RANK, ALPHA = 8, 16
PEAK, WARMUP_STEPS = 1e-3, 6


def rows_of(folder, seed, every_intent):
    """The intents, training rows (shuffled by intent, then kept in the data's order) and held-out rows."""
    with open(folder / "train.csv", encoding="utf-8", newline="") as file:
        data = [(i, text.strip(), intent) for i, (text, intent) in enumerate(csv.reader(file)) if i > 0]
    intents = sorted({intent for _, _, intent in data}) if every_intent else INTENTS
    data = [row for row in data if row[2] in intents]
    chosen, rng = set(), random.Random(seed)
    for intent in intents:
        chosen.update(rng.sample([i for i, _, name in data if name == intent], ALL_ROWS if every_intent else TRAIN_ROWS))
    row = lambda text, intent: {"prompt": TEMPLATE.format(text=text), "completion": f" {intent}", "intent": intent, "text": text}
    train = [row(text, intent) for i, text, intent in data if i in chosen]
    return intents, train, [row(text, intent) for i, text, intent in data if i not in chosen]


def batches_of(count, seed, epochs):
    rng, batches = random.Random(1000 + seed), []
    for _ in range(epochs):
        order = list(range(count))
        rng.shuffle(order)
        batches += [order[i : i + BATCH] for i in range(0, count, BATCH)]
    return batches


def first_adapter(config, seed):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = {  # [in, out]
        "self_attn.q_proj": (hidden, q), "self_attn.k_proj": (hidden, kv), "self_attn.v_proj": (hidden, kv),
        "self_attn.o_proj": (q, hidden), "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
    rng, tensors = np.random.default_rng(seed), {}
    for layer in range(config["num_hidden_layers"]):
        for name, (fan_in, fan_out) in shapes.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            bound = fan_in**-0.5
            tensors[f"{prefix}.lora_A.weight"] = rng.uniform(-bound, bound, (RANK, fan_in)).astype(np.float32)
            tensors[f"{prefix}.lora_B.weight"] = np.zeros((fan_out, RANK), np.float32)
    return tensors, [name.split(".")[1] for name in shapes]


def write(folder, seed, data, model, epochs, every_intent):
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((model / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    ids = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    eos = config["eos_token_id"]
    intents, train, heldout = rows_of(data, seed, every_intent)
    told = f"Name the intent of a bank customer's message, one of: {', '.join(intents)}.\n\n" + TEMPLATE

    def encoded(row):
        prompt, completion = ids(row["prompt"]), [*ids(row["completion"]), eos]
        return {"tokens": prompt + completion, "weights": [0] * len(prompt) + [1] * len(completion)}

    tokens = [encoded(row) for row in train]
    batches = batches_of(len(train), seed, epochs)
    adapter, targets = first_adapter(config, seed)
    steps = len(batches)
    rates = [PEAK * min(s / WARMUP_STEPS, (steps - s + 1) / (steps - WARMUP_STEPS)) for s in range(1, steps + 1)]
    plan = {
        "seed": seed, "intents": intents, "rank": RANK, "alpha": ALPHA, "target_modules": targets, "n_epochs": epochs,
        "batch_size": BATCH, "learning_rate": PEAK, "warmup_steps": WARMUP_STEPS, "total_steps": steps, "learning_rates": rates,
        "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01, "max_grad_norm": 1.0, "eos_token_id": eos, "max_new_tokens": max(len(ids(f" {i}")) for i in intents) + 2,
    }
    lines = lambda rows: "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    (folder / "train.jsonl").write_text(lines(train), encoding="utf-8")
    (folder / "heldout.jsonl").write_text(lines(heldout), encoding="utf-8")
    (folder / "tokens.json").write_text(json.dumps(tokens))
    (folder / "valid-tokens.json").write_text(json.dumps([encoded(r) for r in heldout[:: 15 if every_intent else 5]]))
    (folder / "heldout-tokens.json").write_text(json.dumps([ids(r["prompt"]) for r in heldout]))
    (folder / "told-tokens.json").write_text(json.dumps([ids(told.format(text=r["text"])) for r in heldout]))
    (folder / "batches.json").write_text(json.dumps(batches))
    (folder / "plan.json").write_text(json.dumps(plan, indent=1))
    save_file(adapter, folder / "init.safetensors")
    longest = max(len(t["tokens"]) for t in tokens)
    total = sum(len(t["tokens"]) for t in tokens)
    print(f"{folder}: {len(train)} training rows ({total} tokens, longest {longest}), {len(heldout)} held out, {steps} steps")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    for seed in args.seeds:
        write(args.out / f"seed-{seed}", seed, args.data, args.model, args.epochs, args.all)


if __name__ == "__main__":
    main()
