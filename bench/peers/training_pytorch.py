"""PyTorch + PEFT's side of `npm run bench -- training`: LoRA steps on a model, timed when it is told to.

    python bench/peers/training_pytorch.py MODEL CONFIG ROWS LENGTH SUPERVISED [--checkpointing]

CONFIG: fp32, bf16 (base and adapters), autocast (float32 weights under bfloat16 autocast).
SUPERVISED: every n-th token carries a loss. Rows are full, so nothing is padded; only supervised positions pass the head.
Prints `ready`, then for each line read from stdin, a number of steps: seconds, peak resident memory in MB, last loss.
LoRA of rank 8 on all linear layers, sdpa attention, AdamW; forward, backward and optimizer are timed.
"""

import argparse
import contextlib
import resource
import sys
import time
import warnings

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

warnings.filterwarnings("ignore")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("config", choices=["fp32", "bf16", "autocast"])
    parser.add_argument("rows", type=int)
    parser.add_argument("length", type=int)
    parser.add_argument("supervised", type=int)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if args.config == "bf16" else torch.float32
    model = LlamaForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa")
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora, autocast_adapter_dtype=args.config != "bf16")
    if args.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    llama = model.base_model.model
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    ids = torch.randint(0, llama.config.vocab_size, (args.rows, args.length))
    supervised = torch.zeros((args.rows, args.length - 1), dtype=torch.bool)
    supervised[:, :: args.supervised] = True
    model.train()

    def step():
        autocast = torch.autocast("cpu", torch.bfloat16) if args.config == "autocast" else contextlib.nullcontext()
        optimizer.zero_grad()
        with autocast:
            hidden = llama.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            loss = cross_entropy(llama.lm_head(hidden[supervised]).float(), ids[:, 1:][supervised])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    print("ready", flush=True)
    for line in sys.stdin:
        start = time.monotonic()
        for _ in range(int(line)):
            loss = step()
        seconds = time.monotonic() - start
        print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, loss, flush=True)


main()
