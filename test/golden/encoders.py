"""PyTorch's numbers for tiny random encoders: hidden states, losses, gradients of every weight and of LoRA. fp32, eager.

    python test/golden/encoders.py

Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2, on one thread. Writes to fixtures/encoders/ beside this file.

Every example runs alone (no padding, no packing), dropout off. For each family of bert, distilbert, roberta:

<family>/config.json, model.safetensors    AutoModelForSequenceClassification with three labels, random
<family>.json
    examples: {tokens, types (token type ids), label, labels (several), classes (one a token, -100 is not learned)};
    pairs: [anchor, positive, negative], indices into examples; temperature; rank, alpha, target_modules;
    loss: cross-entropy, mean over examples; lora_loss: the same with the adapter;
    embedding_loss: InfoNCE of mean-pooled, normalised hidden states of the base model, each anchor against all
    positives and all negatives, mean over anchors;
    several_loss (bert): BCE with logits, mean over examples and labels;
    tokens_loss (bert): cross-entropy, mean over learned tokens of all examples, with the head `tokens.classifier.*`
<family>.safetensors
    hidden.<i>, logits; all.<name>: d loss / d weight; lora.<name>: the adapter under PEFT's names, classifier included;
    lora_gradient.<name>; embedding.<name>: d embedding_loss / d weight;
    several.<name> and tokens.<name> (bert): gradients of those losses
"""

import json
from pathlib import Path

import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import save_file
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    DistilBertConfig,
    RobertaConfig,
)

FIXTURES = Path(__file__).parent / "fixtures" / "encoders"
VOCABULARY, RANK, ALPHA, TEMPERATURE = 60, 2, 4, 0.05
SIZES = {"vocab_size": VOCABULARY, "num_labels": 3, "pad_token_id": 1}
BLOCKS = {
    **SIZES, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 40,
}
FAMILIES = {
    "bert": (BertConfig(**BLOCKS, type_vocab_size=2), ["query", "key", "value", "dense"]),
    "distilbert": (
        DistilBertConfig(**SIZES, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=40),
        ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
    ),
    "roberta": (RobertaConfig(**BLOCKS, type_vocab_size=1), ["query", "key", "value", "dense"]),
}
LENGTHS = [9, 17, 5, 12, 7, 14]
PAIRS = [[0, 1, 2], [3, 4, 5]]


def randomise(model, seed):
    """As large as trained weights: norms around 1, biases a little, all else enough to tell a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            norm = "LayerNorm" in name or "layer_norm" in name
            if name.endswith("weight") and norm:
                p.copy_(1 + 0.1 * noise)
            else:
                p.copy_((0.1 if name.endswith("bias") else 0.3) * noise)
    return model.eval()


def build(kind, config, seed=1):
    return randomise(kind.from_config(config, attn_implementation="eager"), seed)


def inputs(family, example):
    ids = {"input_ids": torch.tensor([example["tokens"]])}
    if family == "bert":
        ids["token_type_ids"] = torch.tensor([example["types"]])
    return ids


def gradients(model, loss, prefix):
    """Under the parameters' own names; what the loss does not reach has none."""
    loss.backward()
    return {f"{prefix}.{n}": p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def logits_of(model, family, examples):
    return torch.cat([model(**inputs(family, e)).logits for e in examples])


def info_nce(embeddings):
    anchors, positives, negatives = (torch.stack([embeddings[p[i]] for p in PAIRS]) for i in range(3))
    scores = anchors @ torch.cat([positives, negatives]).T / TEMPERATURE
    return cross_entropy(scores, torch.arange(len(PAIRS)))


def golden(family, config, targets):
    generator = torch.Generator().manual_seed(5)
    examples = []
    for i, length in enumerate(LENGTHS):
        second = length // 2 if family == "bert" and i % 2 else length
        examples.append({
            "tokens": torch.randint(2, VOCABULARY, (length,), generator=generator).tolist(),
            "types": [0] * second + [1] * (length - second),
            "label": i % 3,
            "labels": [k for k in range(3) if (i >> k) & 1],
            "classes": [-100] + [(i + t) % 3 for t in range(1, length - 1)] + [-100],
        })
    labels = torch.tensor([e["label"] for e in examples])
    tensors = {}

    model = build(AutoModelForSequenceClassification, config)
    folder = FIXTURES / family
    model.save_pretrained(folder)
    logits = logits_of(model, family, examples)
    loss = cross_entropy(logits, labels)
    tensors["logits"] = logits.detach()
    tensors |= gradients(model, loss, "all")
    result = {"loss": loss.item()}

    base = build(AutoModelForSequenceClassification, config).base_model
    hidden = [base(**inputs(family, e)).last_hidden_state[0] for e in examples]
    tensors |= {f"hidden.{i}": h.detach().contiguous() for i, h in enumerate(hidden)}
    loss = info_nce([normalize(h.mean(0), dim=0) for h in hidden])
    result["embedding_loss"] = loss.item()
    tensors |= gradients(base, loss, "embedding")

    model = build(AutoModelForSequenceClassification, config)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, lora_dropout=0.0, task_type=TaskType.SEQ_CLS,
                      modules_to_save=["classifier"])
    model = get_peft_model(model, lora, autocast_adapter_dtype=False).eval()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for n, p in sorted(trained.items()):
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    loss = cross_entropy(logits_of(model, family, examples), labels)
    result["lora_loss"] = loss.item()
    loss.backward()
    for n, p in trained.items():
        name = n.replace(".default.", ".").replace(".modules_to_save.", ".")
        tensors[f"lora.{name}"] = p.detach().clone()
        tensors[f"lora_gradient.{name}"] = p.grad.clone()

    if family == "bert":
        model = build(AutoModelForSequenceClassification, config)
        several = torch.tensor([[float(k in e["labels"]) for k in range(3)] for e in examples])
        loss = binary_cross_entropy_with_logits(logits_of(model, family, examples), several)
        result["several_loss"] = loss.item()
        tensors |= gradients(model, loss, "several")

        model = build(AutoModelForTokenClassification, config, seed=1)
        model.base_model.load_state_dict(base.state_dict(), strict=False)
        logits = torch.cat([model(**inputs(family, e)).logits[0] for e in examples])
        loss = cross_entropy(logits, torch.tensor([c for e in examples for c in e["classes"]]))
        result["tokens_loss"] = loss.item()
        tensors |= {f"tokens_head.{n}": p.detach().clone() for n, p in model.classifier.named_parameters()}
        tensors |= gradients(model, loss, "tokens")

    save_file({n: t.contiguous() for n, t in tensors.items()}, FIXTURES / f"{family}.safetensors")
    result |= {"rank": RANK, "alpha": ALPHA, "target_modules": targets, "temperature": TEMPERATURE, "pairs": PAIRS}
    (FIXTURES / f"{family}.json").write_text(json.dumps({**result, "examples": examples}) + "\n", encoding="utf-8")
    print(family, {k: v for k, v in result.items() if k.endswith("loss")})


if __name__ == "__main__":
    torch.set_num_threads(1)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for family, (config, targets) in FAMILIES.items():
        golden(family, config, targets)
