"""What both sides of the MiniLM comparison read: all 77 intents of banking77, split by the seed.

    python bench/peers/minilm_data.py ../shared/data/banking77 OUT [--seeds 1 2 3]

The standard library alone. The same arguments give the same bytes. OUT/seed-<s>/train.jsonl and valid.jsonl hold rows
{"text", "label"}: of every intent one row in five, drawn by the seed, is held out; the training rows are shuffled.
"""

import argparse
import csv
import json
import random
from collections import defaultdict
from pathlib import Path

HELD_OUT = 5


def split(folder, seed):
    by_intent, rng = defaultdict(list), random.Random(seed)
    with open(folder / "train.csv", encoding="utf-8", newline="") as file:
        for text, intent in list(csv.reader(file))[1:]:
            by_intent[intent].append({"text": text.strip(), "label": intent})
    train, valid = [], []
    for intent in sorted(by_intent):
        rows = by_intent[intent]
        rng.shuffle(rows)
        count = len(rows) // HELD_OUT
        valid += rows[:count]
        train += rows[count:]
    rng.shuffle(train)
    return train, valid


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    for seed in args.seeds:
        folder = args.out / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in zip(["train.jsonl", "valid.jsonl"], split(args.data, seed)):
            text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            (folder / name).write_text(text + "\n", encoding="utf-8")
            print(f"seed {seed}: {len(rows)} rows in {name}")


if __name__ == "__main__":
    main()
