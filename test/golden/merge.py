"""Merges of three tiny llamas and three tiny BERTs by mergekit, each method with its parameters.

Random methods draw from the same counter as ours (Philox 4x32-10), so that both drop the same elements.
Run with mergekit 0.1.5 installed: python test/golden/merge.py
"""

import json
import os
import shutil
import tempfile

import numpy as np
import torch
import yaml
from mergekit import sparsify
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods import generalized_task_arithmetic as gta
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner
from safetensors.numpy import load_file, save_file

from philox import draws

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "merge")
D, F, V, L = 8, 12, 24, 3
# The angles of short rows lose digits in float32; ours are taken in float64, and so are these.
WIDE = dict(dtype="float64", out_dtype="float32")
SEED = 7

LLAMA = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=D, intermediate_size=F,
    num_hidden_layers=L, num_attention_heads=2, num_key_value_heads=1, vocab_size=V,
    max_position_embeddings=32, rms_norm_eps=1e-5, hidden_act="silu", tie_word_embeddings=False,
)
BERT = dict(
    architectures=["BertModel"], model_type="bert", hidden_size=D, intermediate_size=F,
    num_hidden_layers=L, num_attention_heads=2, vocab_size=V, max_position_embeddings=16,
    type_vocab_size=2, hidden_act="gelu",
)


def llama_shapes():
    shapes = {"model.embed_tokens.weight": (V, D), "lm_head.weight": (V, D), "model.norm.weight": (D,)}
    for i in range(L):
        p = f"model.layers.{i}."
        for n in ("input_layernorm", "post_attention_layernorm"):
            shapes[p + n + ".weight"] = (D,)
        for n, s in dict(q=(D, D), k=(D // 2, D), v=(D // 2, D), o=(D, D)).items():
            shapes[f"{p}self_attn.{n}_proj.weight"] = s
        for n, s in dict(up=(F, D), gate=(F, D), down=(D, F)).items():
            shapes[f"{p}mlp.{n}_proj.weight"] = s
    return shapes


def bert_shapes():
    shapes = {}

    def layer(name, out, inner):
        shapes[name + ".weight"] = (out, inner)
        shapes[name + ".bias"] = (out,)

    def norm(name):
        shapes[name + ".weight"] = (D,)
        shapes[name + ".bias"] = (D,)

    for n, rows in dict(word=V, position=16, token_type=2).items():
        shapes[f"embeddings.{n}_embeddings.weight"] = (rows, D)
    norm("embeddings.LayerNorm")
    for i in range(L):
        p = f"encoder.layer.{i}."
        for n in ("query", "key", "value"):
            layer(p + "attention.self." + n, D, D)
        layer(p + "attention.output.dense", D, D)
        norm(p + "attention.output.LayerNorm")
        layer(p + "intermediate.dense", F, D)
        layer(p + "output.dense", D, F)
        norm(p + "output.LayerNorm")
    layer("pooler.dense", D, D)
    return shapes


def write_models():
    rng = np.random.default_rng(11)
    for family, config, shapes in (("llama", LLAMA, llama_shapes()), ("bert", BERT, bert_shapes())):
        base = {k: rng.normal(0, 0.3, s).astype(np.float32) for k, s in shapes.items()}
        for i in range(3):
            folder = os.path.join(HERE, f"{family}-{i}")
            os.makedirs(folder, exist_ok=True)
            tensors = base if i == 0 else {
                k: (v + rng.normal(0, 0.05, v.shape)).astype(np.float32) for k, v in base.items()
            }
            save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
            with open(os.path.join(folder, "config.json"), "w") as f:
                json.dump(config, f)


def w(*weights):
    return [dict(model=f"M{i + 1}", parameters=dict(weight=x)) for i, x in enumerate(weights)]


def dense(method, extra=None, **shared):
    models = [
        dict(model="M1", parameters=dict(weight=0.7, density=0.6, **(extra or {}))),
        dict(model="M2", parameters=dict(weight=0.4, density=[0.3, 0.8], **(extra or {}))),
    ]
    return dict(merge_method=method, base_model="M0", models=models, parameters=shared)


two = [dict(model="M0"), dict(model="M1")]
CASES = {
    "linear": dict(merge_method="linear", models=w(0.7, 0.4)),
    "linear_plain": dict(merge_method="linear", models=w([0, 1], 0.25), parameters=dict(normalize=False)),
    "slerp": dict(
        merge_method="slerp", base_model="M0", models=two,
        parameters=dict(t=[
            dict(filter="self_attn", value=[0, 0.5, 0.3, 0.7, 1]),
            dict(filter="mlp", value=[1, 0.5, 0.7, 0.3, 0]),
            dict(value=0.5),
        ]),
    ),
    "nuslerp": dict(merge_method="nuslerp", models=w(0.7, 0.4)),
    "nuslerp_rows": dict(
        merge_method="nuslerp", base_model="M0", models=w(0.7, 0.4),
        parameters=dict(nuslerp_flatten=False, nuslerp_row_wise=True), **WIDE,
    ),
    "nuslerp_columns": dict(
        merge_method="nuslerp", models=w(0.7, 0.4), parameters=dict(nuslerp_flatten=False)
    ),
    "multislerp": dict(merge_method="multislerp", base_model="M0", models=w(0.7, 0.4)),
    "karcher": dict(merge_method="karcher", models=[dict(model=f"M{i}") for i in range(3)]),
    "task_arithmetic": dict(
        merge_method="task_arithmetic", base_model="M0", models=w(0.7, 0.4), parameters={"lambda": 0.8}
    ),
    "ties": dense("ties"),
    "dare_linear": dense("dare_linear"),
    "dare_ties": dense("dare_ties", normalize=True),
    "della": dense("della"),
    "della_linear": dense("della_linear", dict(epsilon=0.1)),
    "breadcrumbs": dense("breadcrumbs", dict(gamma=0.05)),
    "breadcrumbs_ties": dense("breadcrumbs_ties", rescale=True),
    "sce": dict(
        merge_method="sce", base_model="M0", models=[dict(model="M1"), dict(model="M2")],
        parameters=dict(select_topk=0.6),
    ),
    "model_stock": dict(
        merge_method="model_stock", base_model="M0", models=[dict(model="M1"), dict(model="M2")]
    ),
    "model_stock_rows": dict(
        merge_method="model_stock", base_model="M0", models=[dict(model="M1"), dict(model="M2")],
        parameters=dict(filter_wise=True), **WIDE,
    ),
    "nearswap": dict(merge_method="nearswap", base_model="M0", models=two, parameters=dict(t=0.02)),
    "arcee_fusion": dict(merge_method="arcee_fusion", base_model="M0", models=two),
    "passthrough": dict(
        merge_method="passthrough",
        slices=[
            dict(sources=[dict(model="M0", layer_range=[0, 2])]),
            dict(sources=[dict(model="M1", layer_range=[1, 3], parameters=dict(
                scale=[dict(filter="down_proj", value=0.5), dict(value=1.0)]))]),
        ],
    ),
}


class Same:
    """What sparsify.py calls `torch`: its bernoulli draws as ours does."""

    name, index = "", 0

    def __getattr__(self, attribute):
        return getattr(torch, attribute)

    def bernoulli(self, p):
        u = torch.from_numpy(draws(SEED, Same.name, Same.index, p.numel())).reshape(p.shape)
        return (u < p.double()).to(p.dtype)


def follow():
    sparsify.torch = Same()
    merge_group, real = gta.GeneralizedTaskArithmeticMerge.merge_group, gta.sparsify

    def named(self, group, /, **parameters):
        Same.name, Same.index = group.metadata.name, -1
        return merge_group(self, group, **parameters)

    def counted(delta, **options):
        Same.index += 1
        return real(delta, **options)

    gta.GeneralizedTaskArithmeticMerge.merge_group, gta.sparsify = named, counted


def without_buffers():
    """The release fails over a list of names of BERT's optional buffer, which these models have not."""
    plan = MergePlanner.plan_tensor

    def planned(self, weight, *args, **kwargs):
        if not weight.name.endswith("position_ids"):
            plan(self, weight, *args, **kwargs)

    MergePlanner.plan_tensor = planned


def main():
    write_models()
    without_buffers()
    follow()
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    for family in ("llama", "bert"):
        results, texts = {}, {}
        for case, config in CASES.items():
            texts[case] = yaml.safe_dump(config, sort_keys=False)
            text = texts[case]
            for i in range(3):
                text = text.replace(f"model: M{i}", f"model: {os.path.join(HERE, f'{family}-{i}')}")
            out = tempfile.mkdtemp()
            run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), out, options)
            for name, tensor in load_file(os.path.join(out, "model.safetensors")).items():
                results[f"{case}/{name}"] = tensor
            shutil.rmtree(out)
        save_file(results, os.path.join(HERE, f"{family}.safetensors"))
    with open(os.path.join(HERE, "merge.json"), "w") as f:
        json.dump(dict(mergekit="0.1.5", seed=SEED, cases=texts), f, indent=1)
        f.write("\n")


main()
