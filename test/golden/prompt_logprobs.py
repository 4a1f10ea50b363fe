"""transformers' log-probabilities of ten texts by SmolLM2-135M-Instruct. fp32, eager attention.

    python test/golden/prompt_logprobs.py FOLDER

FOLDER is the fp32 checkpoint that smollm2.py --save writes. Made with torch 2.15.0, transformers 5.24.0.

fixtures/prompt-logprobs.json
    texts: ten, each with
      text; tokens: its ids, special tokens parsed, no BOS added;
      logprobs: natural log-probability of tokens[i] given those before it, from the second token on;
      top: for each of those places the most probable id
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

TEXTS = [
    "The capital of France is Paris, which lies on the Seine.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n",
    "naïve café, 12,345.67 £ on 03/11/2024 — ½ ² ٣ 日本語 😀👩‍👩‍👧",
    "<|im_start|>user\nMy card has not arrived yet.<|im_end|>\n<|im_start|>assistant\nI am sorry to hear that.<|im_end|>\n",
    '{"name": "Luthier", "strings": [1, 2, 3], "nested": {"ok": true, "none": null}}',
    "a a a a a a a a a a b b b b b b b b b b",
    "colourless green ideas sleep furiously; furiously sleep ideas green colourless",
    "Wer reitet so spät durch Nacht und Wind? Es ist der Vater mit seinem Kind.",
    # Longer than the pieces in which a prompt is read.
    " ".join(
        f"On day {i} the luthier glued, planed and tuned instrument number {i * i}, and wrote down what it cost."
        for i in range(1, 16)
    ),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(args.folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    lines = []
    for text in TEXTS:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        with torch.no_grad():
            rows = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, :-1].double().log_softmax(-1)
        own = rows.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
        lines.append(json.dumps({
            "text": text, "tokens": tokens,
            "logprobs": [round(x, 6) for x in own.tolist()], "top": rows.argmax(-1).tolist(),
        }, ensure_ascii=False))
        print(len(tokens), round(float(own.mean()), 3))
    path = Path(__file__).parent / "fixtures" / "prompt-logprobs.json"
    path.write_text('{"texts": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
