"""Merges of tiny llamas with different vocabularies by mergekit: whose tokens the result has, and which rows.

Run with mergekit 0.1.5 installed: python test/golden/merge_tokens.py
"""

import json
import os
import shutil
import tempfile

import numpy as np
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "merge-tokens")
D, F = 8, 12
SPECIAL = ["<unk>", "<s>", "</s>"]
# Of each model the letters and pieces of its vocabulary, the tokens added to it (True: special), and rows beyond them.
MODELS = [
    dict(pieces=list("abcdefgh") + ["ab", "cd"], added=[], spare=0),
    dict(pieces=list("hgfedcbaij") + ["ij", "ab"], added=[("<|tool|>", True), ("<plain>", False)], spare=3),
    dict(pieces=list("abcdijkl") + ["kl"], added=[("<|tool|>", True)], spare=0),
]


def write_model(i, pieces, added, spare):
    folder = os.path.join(HERE, f"model-{i}")
    os.makedirs(folder, exist_ok=True)
    vocab = {token: id for id, token in enumerate(SPECIAL + pieces)}
    entry = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    tokens = [dict(id=id, content=token, special=True, **entry) for id, token in enumerate(SPECIAL)]
    for token, special in added:
        tokens.append(dict(id=len(vocab) + len(tokens) - 3, content=token, special=special, **entry))
    tokenizer = dict(
        version="1.0", truncation=None, padding=None, added_tokens=tokens, normalizer=None, pre_tokenizer=None,
        post_processor=None, decoder=None,
        model=dict(
            type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None, end_of_word_suffix=None,
            fuse_unk=False, byte_fallback=False, ignore_merges=False, vocab=vocab,
            merges=[list(p) for p in pieces if len(p) == 2],
        ),
    )
    rows = len(vocab) + len(added) + spare
    config = dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=D, intermediate_size=F,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, vocab_size=rows,
        max_position_embeddings=32, rms_norm_eps=1e-5, hidden_act="silu", tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2,
    )
    settings = dict(tokenizer_class="PreTrainedTokenizerFast", unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    for name, value in (("config", config), ("tokenizer", tokenizer), ("tokenizer_config", settings)):
        with open(os.path.join(folder, f"{name}.json"), "w") as f:
            json.dump(value, f)
    rng = np.random.default_rng(20 + i)
    p = "model.layers.0."
    shapes = {
        "model.embed_tokens.weight": (rows, D), "lm_head.weight": (rows, D), "model.norm.weight": (D,),
        p + "input_layernorm.weight": (D,), p + "post_attention_layernorm.weight": (D,),
        p + "self_attn.q_proj.weight": (D, D), p + "self_attn.k_proj.weight": (D // 2, D),
        p + "self_attn.v_proj.weight": (D // 2, D), p + "self_attn.o_proj.weight": (D, D),
        p + "mlp.up_proj.weight": (F, D), p + "mlp.gate_proj.weight": (F, D), p + "mlp.down_proj.weight": (D, F),
    }
    tensors = {k: rng.normal(0, 0.3, s).astype(np.float32) for k, s in shapes.items()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})


def w(*weights):
    return [dict(model=f"M{i}", parameters=dict(weight=x)) for i, x in enumerate(weights) if x is not None]


TIES = dict(merge_method="task_arithmetic", base_model="M0", models=w(None, 0.7, 0.4))
CASES = {
    "union": dict(merge_method="linear", models=w(0.5, 0.3, 0.2), tokenizer_source="union"),
    "union_beside_base": dict(**TIES, tokenizer_source="union"),
    "base": dict(**TIES, tokenizer_source="base"),
    "model": dict(merge_method="linear", models=w(0.5, 0.3, 0.2), tokenizer_source="M1"),
    "told": dict(
        merge_method="linear",
        models=w(0.5, 0.3, 0.2),
        tokenizer=dict(
            source="union",
            tokens={
                "kl": dict(source=dict(kind="zero")),
                "<|tool|>": dict(source="M2", force=True),
                "<plain>": dict(source=dict(kind="model_token", model="M0", token="ab")),
                "ij": dict(source=dict(kind="model_token", model="M2", token_id=4)),
            },
            pad_to_multiple_of=8,
        ),
    ),
}


def main():
    for i, model in enumerate(MODELS):
        write_model(i, **model)
    options = MergeOptions(write_model_card=False, quiet=True)
    results, told = {}, {}
    for case, config in CASES.items():
        text = yaml.safe_dump(config, sort_keys=False)
        placed = text
        for i in range(3):
            placed = placed.replace(f"M{i}", os.path.join(HERE, f"model-{i}"))
        out = tempfile.mkdtemp()
        run_merge(MergeConfiguration.model_validate(yaml.safe_load(placed)), out, options)
        for name, tensor in load_file(os.path.join(out, "model.safetensors")).items():
            results[f"{case}/{name}"] = tensor
        tokenizer = AutoTokenizer.from_pretrained(out)
        added = {t.content: t.special for t in tokenizer.added_tokens_decoder.values()}
        told[case] = dict(text=text, vocab=tokenizer.get_vocab(), added=added)
        shutil.rmtree(out)
    save_file(results, os.path.join(HERE, "merged.safetensors"))
    with open(os.path.join(HERE, "merged.json"), "w") as f:
        json.dump(dict(mergekit="0.1.5", cases=told), f, indent=1, sort_keys=True)
        f.write("\n")


main()
