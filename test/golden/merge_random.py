"""mergekit's random methods over 200 seeds: how much they keep, and what they give on average.

fixtures/merge-random.safetensors
    base, one, two       [16, 32], what is merged
    <method>.mean, .variance   of each element of the result over the seeds
    <method>.kept        of each of the two inputs and each element, how often it was kept, of all seeds
Run with mergekit 0.1.5 installed: python test/golden/merge_random.py
"""

import os
from types import SimpleNamespace

import numpy as np
import torch
from mergekit.merge_methods import generalized_task_arithmetic as gta
from mergekit.merge_methods import registry
from safetensors.numpy import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "merge-random.safetensors")
SEEDS = 200
# The same in merge-random.test.ts.
METHODS = {"dare_linear": {}, "dare_ties": {}, "della": dict(epsilon=0.15), "della_linear": dict(epsilon=0.15)}
PER_INPUT = ("weight", "density", "epsilon")
INPUTS = [dict(weight=0.7, density=0.6), dict(weight=0.4, density=0.3)]


def main():
    rng = np.random.default_rng(5)
    base = rng.normal(0, 0.3, (16, 32)).astype(np.float32)
    models = [(base + rng.normal(0, 0.05, base.shape)).astype(np.float32) for _ in INPUTS]
    written = dict(base=base, one=models[0], two=models[1])
    kept, real = [], gta.sparsify

    def counted(delta, **options):
        out = real(delta, **options)
        kept.append((out != 0).numpy())
        return out

    gta.sparsify = counted
    group = SimpleNamespace(
        base=SimpleNamespace(tensor=torch.from_numpy(base)),
        non_base=[SimpleNamespace(id=i, tensor=torch.from_numpy(x)) for i, x in enumerate(models)],
    )
    for name, extra in METHODS.items():
        method = registry.get(name)
        shared = {p.name: p.default for p in method.spec.parameters if p.name not in PER_INPUT}
        each = {key: {i: own.get(key, extra.get(key)) for i, own in enumerate(INPUTS)} for key in PER_INPUT}
        results, counts = [], np.zeros((2, *base.shape), np.float32)
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            kept.clear()
            wanted = {key: value for key, value in each.items() if value[0] is not None}
            results.append(method.merge_group(group, **shared, **wanted).numpy())
            assert len(kept) == 2
            counts += np.stack(kept)
        results = np.stack(results).astype(np.float64)
        written[f"{name}.mean"] = results.mean(0).astype(np.float32)
        written[f"{name}.variance"] = results.var(0, ddof=1).astype(np.float32)
        written[f"{name}.kept"] = counts
    save_file(written, OUT)


main()
