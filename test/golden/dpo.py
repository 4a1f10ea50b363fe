"""PyTorch's numbers for direct preference optimization on stories260k. fp32, eager attention.

    python test/golden/dpo.py ../shared/models/stories260k

Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, on one thread. Writes to fixtures/ beside this file. The
adapters are plain LoRA: that of adapters.rslora/ for the gradients, adapters.initial.safetensors for the training.
The loss of a pair is -ln sigma(beta * ((pi_w - ref_w) - (pi_l - ref_l))), pi and ref the sums of the log-probabilities
of an answer's tokens with the adapter and without; that of a batch is the mean of its pairs.

dpo.json
    beta, rank, alpha, target_modules;
    pairs: preferred and other, each {tokens, weights} as in stories260k.py, weights 1 on the answer's tokens;
    gradients: {pairs: indices, loss, margin}; d loss / d weight in dpo.gradients.safetensors under the adapter's names;
    steps: optimizer and schedule as in stories260k.training.json, batches too;
      {loss, chosen, rejected, margin, accuracy}: means over the pairs, rewards times beta, before the update;
      closest: the least difference of a pair's rewards
"""

import json

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import logsigmoid

from adapters import PLAIN, with_adapter
from stories260k import (BETA1, BETA2, DECAY, EPSILON, FIXTURES, MAX_NORM, PEAK, STEPS, WARMUP, base, losses_of, sample,
                         trainable, write_json)

BETA = 0.2


def pairs():
    """Forty sampled openings, each with two continuations of other lengths."""
    plain, made = base(), []
    for i in range(40):
        prompt = sample(plain, [1], 6 + (i * 7) % 17, 300 + i)
        sides = []
        for side, length in enumerate([4 + i % 9, 3 + (i * 5) % 11]):
            tokens = sample(plain, prompt, len(prompt) + length, 400 + 2 * i + side)
            sides.append({"tokens": tokens, "weights": [0.0] * len(prompt) + [1.0] * length})
        made.append({"preferred": sides[0], "other": sides[1]})
    return made


def answer(model, text):
    each, _ = losses_of(model, text["tokens"])
    return -(each * torch.tensor(text["weights"][1:])).sum()


def compare(model, plain, some):
    rewards = []
    for pair in some:
        rewards.append(torch.stack([
            BETA * (answer(model, pair[side]) - answer(plain, pair[side]).detach()) for side in ("preferred", "other")
        ]))
    chosen, rejected = torch.stack(rewards).unbind(1)
    return -logsigmoid(chosen - rejected).mean(), chosen, rejected


if __name__ == "__main__":
    torch.set_num_threads(1)
    plain, made = base(), pairs()
    model = with_adapter(PLAIN, load_file(FIXTURES / "adapters.rslora" / "adapter_model.safetensors"), {})
    some = [3, 8, 21]
    loss, chosen, rejected = compare(model, plain, [made[i] for i in some])
    loss.backward()
    grads = {n: p.grad for n, p in trainable(model).items()}
    assert all(g.abs().max() > 1e-6 for g in grads.values())
    save_file(grads, FIXTURES / "dpo.gradients.safetensors")
    told = {"pairs": some, "loss": loss.item(), "margin": (chosen - rejected).mean().item()}

    batches = json.loads((FIXTURES / "stories260k.training.json").read_text())["batches"]
    model = with_adapter(PLAIN, load_file(FIXTURES / "adapters.initial.safetensors"), {})
    parameters = list(trainable(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=PEAK, betas=(BETA1, BETA2), eps=EPSILON, weight_decay=DECAY)
    steps = []
    for step, batch in enumerate(batches, 1):
        optimizer.param_groups[0]["lr"] = PEAK * (step / WARMUP if step <= WARMUP else (STEPS - step) / (STEPS - WARMUP))
        optimizer.zero_grad()
        loss, chosen, rejected = compare(model, plain, [made[i] for i in batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimizer.step()
        steps.append({
            "loss": loss.item(), "chosen": chosen.mean().item(), "rejected": rejected.mean().item(),
            "margin": (chosen - rejected).mean().item(), "accuracy": (chosen > rejected).float().mean().item(),
            "closest": (chosen - rejected).abs().min().item(),
        })
        print(step, steps[-1])
    kind = {name: PLAIN[name] for name in ("rank", "alpha", "target_modules")}
    write_json("dpo.json", {"beta": BETA, **kind, "pairs": made, "gradients": told, "steps": steps})
