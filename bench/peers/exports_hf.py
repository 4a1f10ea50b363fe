"""Python's side of exports.ts: an adapter that PEFT trains, and log-probabilities of what we exported.

    python exports_hf.py adapter MODEL OUT
    python exports_hf.py logprobs MODEL [ADAPTER] < lists of token ids as JSON
    python exports_hf.py halves MODEL < the same

float32, eager attention. The second prints the log-probability of each token given those before it, from the second on;
the third too, with what every matrix multiplies rounded to float16, as ggml does where the matrix is float16.
"""

import json
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

LINES = [
    "The luthier planed the spruce until it rang like a bell.",
    "A violin is mostly air, she said, and a little patience.",
    "He measured the plate at forty places and wrote each figure down.",
    "Hide glue smells of horses, and lets go when it must.",
]


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")


def train(path, out):
    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(path)
    config = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load(path), config)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-4)
    for step in range(24):
        ids = torch.tensor([tokenizer(LINES[step % len(LINES)])["input_ids"]])
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"loss {loss.item():.3f}", file=sys.stderr)
    model.save_pretrained(out)


@torch.no_grad()
def logprobs(path, adapter, halves=False):
    model = load(path)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False)
    if halves:
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs: tuple(x.half().float() for x in inputs))
    model.eval()
    told = []
    for ids in json.load(sys.stdin):
        rows = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, :-1].double(), -1)
        told.append(rows.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist())
    print(json.dumps(told))


if sys.argv[1] == "adapter":
    train(sys.argv[2], sys.argv[3])
else:
    logprobs(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None, sys.argv[1] == "halves")
