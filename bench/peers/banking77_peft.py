"""The PEFT side of the banking77 comparison: trains from the files of banking77_data.py, then answers every held-out row.

    python bench/peers/banking77_peft.py SmolLM2-135M-Instruct-f32 OUT [--seeds 1 2 3] [--threads 2] [--no-base] [--limit N] [--steps N] [--curves]

OUT is the folder that banking77_data.py made; the model's folder comes from test/golden/smollm2.py --save. fp32, eager attention.
Rows of a batch are padded on the right, which causal attention never sees from a real token, and only supervised positions go
through the LM head: the loss is exactly the mean over the batch's supervised tokens.

Writes OUT/peft.json:
    model, versions, threads, seeds: per seed
      {seed, accuracy, right: per held-out row 0 or 1 in the file's order, answers: the texts, losses, grad_norms, train_seconds,
       eval_seconds, first_line_accuracy, base and base_told: {accuracy, first_line_accuracy, right}}
    mean_accuracy, base_accuracy, base_told_accuracy, base_told_first_line_accuracy: means over seeds. `base` is the untuned
    model on the same prompts, `base_told` on prompts that list the ten names; first_line forgives whatever follows a line break.
`--curves` asks nothing: losses alone, that of the held-out rows among them as valid_loss, go to OUT/peft-curves-<seeds>.json.
`--limit` takes every k-th held-out row so that about N remain, `--steps` stops early: both for a trial; the file then says so.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, LlamaForCausalLM

EVAL_BATCH = 64


def load(folder):
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def with_lora(model, plan, adapter):
    config = LoraConfig(
        r=plan["rank"], lora_alpha=plan["alpha"], target_modules=plan["target_modules"], lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config)
    parameters = {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}
    assert parameters.keys() == adapter.keys()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(adapter[name])
    return model, list(parameters.values())


def batch_loss(llama, examples):
    """Mean cross-entropy of the supervised tokens; `llama` is the LlamaForCausalLM, LoRA layers inside."""
    width = max(len(e["tokens"]) for e in examples)
    pad = lambda values: values + [0] * (width - len(values))
    ids = torch.tensor([pad(e["tokens"]) for e in examples])
    weights = torch.tensor([pad(e["weights"]) for e in examples])[:, 1:]
    hidden = llama.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    supervised = weights > 0
    return cross_entropy(llama.lm_head(hidden[supervised]), ids[:, 1:][supervised])


def train(model, parameters, plan, batches, rows):
    optimizer = torch.optim.AdamW(
        parameters, betas=(plan["beta1"], plan["beta2"]), eps=plan["epsilon"], weight_decay=plan["weight_decay"]
    )
    losses, norms = [], []
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = plan["learning_rates"][step]
        optimizer.zero_grad()
        loss = batch_loss(model.base_model.model, [rows[i] for i in batch])
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, plan["max_grad_norm"])))
        optimizer.step()
        losses.append(loss.item())
        if step % 10 == 0 or step == len(batches) - 1:
            print(f"  step {step + 1}/{len(batches)} loss {losses[-1]:.4f}", flush=True)
    return losses, norms


@torch.no_grad()
def valid_loss(llama, rows):
    """Mean over all supervised tokens."""
    rows, total, count = sorted(rows, key=lambda r: len(r["tokens"])), 0.0, 0
    for i in range(0, len(rows), EVAL_BATCH):
        some = rows[i : i + EVAL_BATCH]
        tokens = sum(w > 0 for r in some for w in r["weights"])
        total, count = total + tokens * batch_loss(llama, some).item(), count + tokens
    return total / count


@torch.no_grad()
def greedy(model, prompts, plan):
    """Ids after each prompt, up to the end of sequence. Equal lengths go together, so nothing is padded."""
    common = 0
    while common < min(map(len, prompts)) - 1 and len({p[common] for p in prompts}) == 1:
        common += 1
    prefix = model(input_ids=torch.tensor([prompts[0][:common]]), use_cache=True).past_key_values if common else None
    by_length, answers = defaultdict(list), [[] for _ in prompts]
    for i, prompt in enumerate(prompts):
        by_length[len(prompt)].append(i)
    for members in by_length.values():
        for start in range(0, len(members), EVAL_BATCH):
            group = members[start : start + EVAL_BATCH]
            cache = DynamicCache()
            if prefix is not None:
                for layer, kv in enumerate(prefix.layers):
                    expand = lambda t: t.expand(len(group), -1, -1, -1).contiguous()
                    cache.update(expand(kv.keys), expand(kv.values), layer)
            ids, open_rows = torch.tensor([prompts[i][common:] for i in group]), set(group)
            for _ in range(plan["max_new_tokens"]):
                out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids, cache = out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
                for i, token in zip(group, ids[:, 0].tolist()):
                    if i in open_rows:
                        if token == plan["eos_token_id"]:
                            open_rows.discard(i)
                        else:
                            answers[i].append(token)
                if not open_rows:
                    break
    return answers


def judge(model, tokenizer, prompts, intents, plan):
    texts = [tokenizer.decode(ids).strip() for ids in greedy(model.eval(), prompts, plan)]
    right = [int(text == intent) for text, intent in zip(texts, intents)]
    first_line = sum(text.split("\n")[0].strip() == intent for text, intent in zip(texts, intents))
    return {"accuracy": sum(right) / len(right), "first_line_accuracy": first_line / len(right), "right": right, "answers": texts}


def run_seed(args, folder, tokenizer):
    read = lambda name: json.loads((folder / name).read_text(encoding="utf-8"))
    plan, rows, batches = read("plan.json"), read("tokens.json"), read("batches.json")
    intents = [json.loads(line)["intent"] for line in (folder / "heldout.jsonl").read_text(encoding="utf-8").split("\n") if line]
    stride = max(1, len(intents) // args.limit) if args.limit else 1
    prompts, told, intents = read("heldout-tokens.json")[::stride], read("told-tokens.json")[::stride], intents[::stride]
    model, result = load(args.model), {"seed": plan["seed"]}
    if args.base and not args.curves:
        for name, asked in [("base", prompts), ("base_told", told)]:
            result[name] = judge(model, tokenizer, asked, intents, plan)
            print(f"seed {plan['seed']}: {name} {result[name]['accuracy']:.2%}, first line {result[name]['first_line_accuracy']:.2%},"
                  f" for example {result[name]['answers'][:3]}", flush=True)
            del result[name]["answers"]
    model, parameters = with_lora(model, plan, load_file(folder / "init.safetensors"))
    start = time.monotonic()
    result["losses"], result["grad_norms"] = train(model, parameters, plan, batches[: args.steps], rows)
    trained = time.monotonic()
    if args.curves:
        result |= {"valid_loss": valid_loss(model.base_model.model, read("valid-tokens.json")), "train_seconds": trained - start}
        print(f"seed {plan['seed']}: validation loss {result['valid_loss']:.4f}", flush=True)
        return result
    result |= judge(model, tokenizer, prompts, intents, plan)
    result |= {"train_seconds": round(trained - start, 1), "eval_seconds": round(time.monotonic() - trained, 1)}
    print(
        f"seed {plan['seed']}: peft {result['accuracy']:.2%} of {len(intents)} held-out rows"
        f" (training {result['train_seconds']} s, answers {result['eval_seconds']} s)", flush=True,
    )
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-base", dest="base", action="store_false")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--curves", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    seeds = [run_seed(args, args.out / f"seed-{seed}", tokenizer) for seed in args.seeds]
    if args.curves:
        name = "-".join(map(str, args.seeds))
        (args.out / f"peft-curves-{name}.json").write_text(json.dumps(seeds))
        return
    mean = lambda pick: sum(map(pick, seeds)) / len(seeds)
    report = {
        "model": args.model.name, "threads": args.threads,
        "versions": {m.__name__: m.__version__ for m in (torch, transformers, peft)},
        "mean_accuracy": mean(lambda s: s["accuracy"]),
    }
    if args.base:
        report["base_accuracy"] = mean(lambda s: s["base"]["accuracy"])
        report["base_told_accuracy"] = mean(lambda s: s["base_told"]["accuracy"])
        report["base_told_first_line_accuracy"] = mean(lambda s: s["base_told"]["first_line_accuracy"])
    if args.limit or args.steps:
        report["trial"] = {"limit": args.limit, "steps": args.steps}
    print(" ".join(f"{k} {v:.2%}" for k, v in report.items() if k.endswith("accuracy")))
    name = "peft-trial.json" if "trial" in report else "peft.json"
    (args.out / name).write_text(json.dumps({**report, "seeds": seeds}))


if __name__ == "__main__":
    main()
