"""Three adapters of a tiny llama combined by PEFT's add_weighted_adapter, in each of its ways.

Random ways draw from the same counter as ours (Philox 4x32-10, see merge.py), so that both drop the same elements.
Singular vectors have no sign of their own: the largest element of each left one is made positive, which svd_clamp asks for.
Made with torch 2.15.0, transformers 5.24.0, peft 0.21.2: python test/golden/merge_adapters.py
"""

import json
import os
import shutil

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.model import LoraModel
from peft.utils import merge_utils
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from philox import draws

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "merge-adapters")
SEED = 7
ADAPTERS = {
    "one": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "two": dict(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"]),
    "three": dict(r=2, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "down_proj"]),
}
TWO = dict(adapters=["one", "two"], weights=[0.7, -0.4])
THREE = dict(adapters=["one", "two", "three"], weights=[0.7, 0.5, -0.3])
CASES = {
    "linear": TWO,
    "cat": THREE,
    "svd": THREE,
    "svd_rank": dict(**THREE, combination_type="svd", svd_rank=6),
    "svd_clamp": dict(**THREE, combination_type="svd", svd_rank=3, svd_clamp=0.9),
    "ties": dict(**TWO, density=0.6),
    "ties_frequency": dict(**TWO, combination_type="ties", density=0.6, majority_sign_method="frequency"),
    "ties_svd": dict(**THREE, density=0.5),
    "dare_linear": dict(**TWO, density=0.6),
    "dare_ties": dict(**TWO, density=0.6),
    "dare_linear_svd": dict(**THREE, density=0.5),
    "dare_ties_svd": dict(**THREE, density=0.5, majority_sign_method="frequency"),
    "magnitude_prune": dict(**TWO, density=0.3),
    "magnitude_prune_svd": dict(**THREE, density=0.3),
    "one_alone": dict(adapters=["three"], weights=[0.5], combination_type="ties", density=0.5),
}


class Same:
    """What merge_utils.py calls `torch`: its bernoulli draws as ours does."""

    module, several, svd, calls = "", 0, False, 0

    def __getattr__(self, attribute):
        return getattr(torch, attribute)

    def bernoulli(self, p):
        matrix = "delta" if Same.svd else ("lora_A", "lora_B")[Same.calls // Same.several]
        u = draws(SEED, f"{Same.module}.{matrix}", Same.calls % Same.several, p.numel())
        Same.calls += 1
        return (torch.from_numpy(u).reshape(p.shape) < p.double()).to(p.dtype)


def follow(model):
    merge_utils.torch = Same()
    names = {id(module): name for name, module in model.base_model.model.named_modules()}
    for method in ("_generalized_task_arithmetic_weighted_adapter",
                   "_svd_generalized_task_arithmetic_weighted_adapter"):
        def followed(self, kind, adapters, weights, *rest, real=getattr(LoraModel, method), **options):
            target = rest[0] if not kind.endswith("svd") else rest[1]
            Same.module, Same.svd, Same.calls = names[id(target)], kind.endswith("svd"), 0
            Same.several = sum(adapter in target.lora_A for adapter in adapters)
            return real(self, kind, adapters, weights, *rest, **options)

        setattr(LoraModel, method, followed)
    real_svd = torch.linalg.svd

    def svd(matrix, **options):
        u, s, vh = real_svd(matrix, **options)
        k = len(s)
        sign = torch.sign(u.gather(0, u.abs().argmax(0, keepdim=True))[0, :k])
        u[:, :k] *= sign
        vh[:k] *= sign[:, None]
        return u, s, vh

    torch.linalg.svd = svd


def main():
    torch.manual_seed(3)
    torch.set_num_threads(1)
    config = LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=1, vocab_size=24, max_position_embeddings=32)
    model = None
    for name, options in ADAPTERS.items():
        lora = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options)
        if model is None:
            model = get_peft_model(LlamaForCausalLM(config), lora, adapter_name=name)
        else:
            model.add_adapter(name, lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3)
    shutil.rmtree(HERE, ignore_errors=True)
    for name in ADAPTERS:
        model.save_pretrained(HERE, selected_adapters=[name])
        words = os.path.join(HERE, name, "adapter_config.json")
        with open(words) as f:
            said = json.load(f)
        said["base_model_name_or_path"] = "llama"
        said["target_modules"] = sorted(said["target_modules"])
        with open(words, "w") as f:
            json.dump(said, f, indent=1)
            f.write("\n")
    os.remove(os.path.join(HERE, "README.md"))
    follow(model)
    results, cases = {}, {}
    for case, options in CASES.items():
        options = {"combination_type": case, **options}
        model.add_weighted_adapter(adapter_name=case, **options)
        made = model.peft_config[case]
        for name, module in model.base_model.model.named_modules():
            if case in getattr(module, "lora_A", {}):
                assert module.scaling[case] == 1 or made.use_rslora
                for matrix in ("lora_A", "lora_B"):
                    weight = getattr(module, matrix)[case].weight.detach().numpy()
                    results[f"{case}/{name}.{matrix}"] = np.ascontiguousarray(weight)
        cases[case] = {**options, "r": made.r, "target_modules": sorted(made.target_modules)}
    save_file(results, os.path.join(HERE, "results.safetensors"))
    with open(os.path.join(HERE, "cases.json"), "w") as f:
        json.dump(dict(peft="0.21.2", seed=SEED, cases=cases), f, indent=1)
        f.write("\n")


main()
