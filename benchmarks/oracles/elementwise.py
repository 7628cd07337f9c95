"""TIES, DARE and DELLA: functions of PEFT and mergekit on dense ΔW, on canonical coordinates, and PEFT's on factors.

Random masks are drawn from our stream and put in the place of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.oracles.cases import (
    Adapters,
    Case,
    Dense,
    Oracle,
    canonical,
    dense,
    random_adapters,
    shares,
    stream,
)
from benchmarks.oracles.peft_model import pruned_by, weighted_adapter

Tensors = list[torch.Tensor]
Reference = Callable[[Tensors, Sequence[float], str, dict[str, Any]], torch.Tensor]
"""Tensors, weights, name of the random stream and parameters → merged tensor, all float64"""


def ties(tensors: Tensors, weights: Sequence[float], name: str, parameters: dict[str, Any]) -> torch.Tensor:
    density = parameters["density"]
    if parameters["flavour"] == "peft":
        from peft.utils.merge_utils import ties

        with pruned_by({}):
            return ties(tensors, torch.tensor(weights, dtype=torch.float64), density, "total")
    from mergekit.merge_methods.registry import get

    return mergekit_merge(get("ties"), tensors, weights, density)


def dare_linear(tensors: Tensors, weights: Sequence[float], name: str, parameters: dict[str, Any]) -> torch.Tensor:
    from peft.utils.merge_utils import dare_linear

    density = 1 - parameters["p"]
    with pruned_by(bernoulli_masks(tensors, name, density, parameters["seed"])):
        return dare_linear(tensors, torch.tensor(weights, dtype=torch.float64), density)


def dare_ties(tensors: Tensors, weights: Sequence[float], name: str, parameters: dict[str, Any]) -> torch.Tensor:
    from peft.utils import merge_utils

    density = 1 - parameters["p"]
    with pruned_by(bernoulli_masks(tensors, name, density, parameters["seed"])):
        if parameters["flavour"] == "peft":
            return merge_utils.dare_ties(tensors, torch.tensor(weights, dtype=torch.float64), density, "total")
        kept = [merge_utils.prune(tensor, density, "random", rescale=True) for tensor in tensors]
    return mergekit_merge(mergekit_consensus(), kept, weights)


def della(tensors: Tensors, weights: Sequence[float], name: str, parameters: dict[str, Any]) -> torch.Tensor:
    kept = [
        della_magprune(tensor, parameters["density"], parameters["epsilon"], stream(parameters["seed"], name, index))
        for index, tensor in enumerate(tensors)
    ]
    if parameters["flavour"] == "mergekit":
        return mergekit_merge(mergekit_consensus(), kept, weights)
    from peft.utils.merge_utils import calculate_majority_sign_mask, disjoint_merge

    stacked = torch.stack(kept)
    weighted = stacked * torch.tensor(weights, dtype=torch.float64).view(-1, 1, 1)
    return disjoint_merge(weighted, calculate_majority_sign_mask(stacked))


def della_magprune(tensor: torch.Tensor, density: float, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    """mergekit's `della_magprune` without its norm rescaling, under our mask; then each element over its own pᵢ."""
    from mergekit import sparsify

    uniform = torch.empty(tensor.shape).uniform_(generator=generator)
    seen = []

    def bernoulli(probabilities: torch.Tensor) -> torch.Tensor:
        seen.append(probabilities)
        return (uniform < probabilities).float()

    with patch.object(sparsify.torch, "bernoulli", bernoulli):
        kept = sparsify.della_magprune(tensor, density, epsilon, rescale_norm=None)
    return kept / seen[0].double()


def mergekit_merge(method: Any, tensors: Tensors, weights: Sequence[float], density: float = 1.0) -> torch.Tensor:
    from mergekit.merge_methods.base import TensorGroup

    group = TensorGroup.from_tensors([torch.zeros_like(tensors[0]), *tensors], base_index=0)
    inputs = range(1, len(tensors) + 1)
    return method.merge_group(
        group,
        int8_mask=False,
        normalize=True,
        rescale=False,
        weight=dict(zip(inputs, weights, strict=True)),
        density=dict.fromkeys(inputs, density),
        **{"lambda": 1.0},
    )


def mergekit_consensus() -> Any:
    """mergekit's sign election and weighted mean on tensors that are already sparse."""
    from mergekit.merge_methods.generalized_task_arithmetic import ConsensusMethod, GeneralizedTaskArithmeticMerge

    return GeneralizedTaskArithmeticMerge(ConsensusMethod.sum, None, True, False, "consensus", None, None)


def bernoulli_masks(tensors: Tensors, name: str, density: float, seed: int) -> dict[int, torch.Tensor]:
    return {
        tensor.data_ptr(): torch.empty(tensor.shape).bernoulli_(density, generator=stream(seed, name, index))
        for index, tensor in enumerate(tensors)
    }


def cases(method: str, reference: Reference, settings: Sequence[dict[str, Any]]) -> list[Case]:
    """Every setting in every space, for two adapters and for three."""
    built = []
    for count, own in product((2, 3), settings):
        parameters = {"alpha": 0.3, **own}
        weights = shares(count, 0.3)
        adapters, equal = random_adapters(11, count), random_adapters(12, count, ranks=(3,) * count, rounded=False)
        for space, given, expected in (
            ("delta", adapters, on_delta(adapters, reference, weights, parameters)),
            ("core", adapters, on_core(adapters, reference, weights, parameters)),
            ("factors", equal, on_factors(method, equal, reference, weights, parameters)),
        ):
            built.append(Case(method, given, parameters | {"space": space}, expected))
    return built


def on_delta(adapters: Adapters, reference: Reference, weights: Sequence[float], parameters: dict[str, Any]) -> Dense:
    matrices = dense(adapters)
    return {
        name: reference([torch.from_numpy(own[name]) for own in matrices], weights, name, parameters).numpy()
        for name in matrices[0]
    }


def on_core(adapters: Adapters, reference: Reference, weights: Sequence[float], parameters: dict[str, Any]) -> Dense:
    matrices = dense(adapters)
    expected = {}
    for name in matrices[0]:
        left, right = canonical(adapters, name)
        cores = [torch.from_numpy(np.ascontiguousarray(left.T @ own[name] @ right)) for own in matrices]
        expected[name] = left @ reference(cores, weights, name, parameters).numpy() @ right.T
    return expected


def on_factors(
    method: str, adapters: Adapters, reference: Reference, weights: Sequence[float], parameters: dict[str, Any]
) -> Dense:
    """A real PeftModel's `add_weighted_adapter` where PEFT has the method, else the reference on A and on B."""
    if parameters.get("flavour", "peft") == "peft" and method != "della":
        density = 1 - parameters["p"] if "p" in parameters else parameters["density"]
        return weighted_adapter(adapters, weights, method, density=density, seed=parameters.get("seed"))
    expected = {}
    for name in sorted(set().union(*adapters)):
        like = next(own[name] for own in adapters if name in own)
        present = [own.get(name) for own in adapters]
        roots = [math.sqrt(w * own.scaling) if own else 0.0 for w, own in zip(weights, present, strict=True)]
        a = [own.a.double() if own else torch.zeros_like(like.a).double() for own in present]
        b = [own.b.double() if own else torch.zeros_like(like.b).double() for own in present]
        merged_a, merged_b = (
            reference(tensors, roots, f"{name}/{factor}", parameters) for factor, tensors in (("A", a), ("B", b))
        )
        expected[name] = (merged_b @ merged_a).numpy()
    return expected


FLAVOURS = ("peft", "mergekit")

ORACLES = {
    "ties": Oracle(
        "PEFT `merge_utils.ties` and `add_weighted_adapter`, mergekit `ties`",
        5e-6,
        lambda: cases("ties", ties, [{"density": d, "flavour": f} for d in (0.2, 0.6, 1.0) for f in FLAVOURS]),
    ),
    "dare_linear": Oracle(
        "PEFT `merge_utils.dare_linear` and `add_weighted_adapter` under one mask",
        5e-6,
        lambda: cases("dare_linear", dare_linear, [{"p": p, "seed": 7} for p in (0.0, 0.3, 0.6)]),
    ),
    "dare_ties": Oracle(
        "PEFT `merge_utils.dare_ties` and `add_weighted_adapter`, mergekit's election, under one mask",
        5e-6,
        lambda: cases(
            "dare_ties", dare_ties, [{"p": p, "seed": 7, "flavour": f} for p in (0.0, 0.3, 0.6) for f in FLAVOURS]
        ),
    ),
    "della": Oracle(
        "mergekit `della_magprune` under one mask, over pᵢ; elected by PEFT and by mergekit",
        5e-6,
        lambda: cases(
            "della",
            della,
            [
                {"density": d, "epsilon": e, "seed": 7, "flavour": f}
                for d, e in ((0.5, 0.15), (0.7, 0.2))
                for f in FLAVOURS
            ],
        ),
    ),
}
