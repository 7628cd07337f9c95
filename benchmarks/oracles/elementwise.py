"""The sparse methods: functions of PEFT and mergekit on dense ΔW, on canonical coordinates, and PEFT's on factors.

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
    if parameters["flavour"] == "paper":
        return agreeing_mean([largest(tensor, density) for tensor in tensors], weights)
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
    if parameters["flavour"] == "paper":
        return agreeing_mean(kept, weights)
    return mergekit_merge(mergekit_consensus(), kept, weights)


def della(tensors: Tensors, weights: Sequence[float], name: str, parameters: dict[str, Any]) -> torch.Tensor:
    kept = [
        della_magprune(tensor, parameters["density"], parameters["epsilon"], stream(parameters["seed"], name, index))
        for index, tensor in enumerate(tensors)
    ]
    if parameters["flavour"] == "mergekit":
        return mergekit_merge(mergekit_consensus(), kept, weights)
    if parameters["flavour"] == "paper":
        return agreeing_mean(kept, weights)
    from peft.utils.merge_utils import calculate_majority_sign_mask, disjoint_merge

    stacked = torch.stack(kept)
    weighted = stacked * torch.tensor(weights, dtype=torch.float64).view(-1, 1, 1)
    return disjoint_merge(weighted, calculate_majority_sign_mask(stacked))


def breadcrumbs(tensors: Tensors, weights: Sequence[float], name: str, parameters: dict[str, Any]) -> torch.Tensor:
    """mergekit's, which calls β gamma."""
    from mergekit.merge_methods.registry import get

    return mergekit_merge(get("breadcrumbs"), tensors, weights, parameters["density"], gamma=parameters["beta"])


def magnitude_prune(tensors: Tensors, weights: Sequence[float], name: str, parameters: dict[str, Any]) -> torch.Tensor:
    from peft.utils.merge_utils import magnitude_prune

    with pruned_by({}):
        return magnitude_prune(tensors, torch.tensor(weights, dtype=torch.float64), parameters["density"])


def agreeing_mean(tensors: Tensors, weights: Sequence[float]) -> torch.Tensor:
    """TIES' “elect” and “disjoint merge” as in the paper, written element by element."""
    merged = np.zeros(tensors[0].shape)
    for place in np.ndindex(*merged.shape):
        values = [float(tensor[place]) for tensor in tensors]
        sign = 1 if sum(v for v in values if v > 0) >= -sum(v for v in values if v < 0) else -1
        agree = [(w, v) for w, v in zip(weights, values, strict=True) if v * sign > 0]
        if total := sum(w for w, _ in agree):
            merged[place] = sum(w * v for w, v in agree) / total
    return torch.from_numpy(merged)


def largest(tensor: torch.Tensor, density: float) -> torch.Tensor:
    """The ⌊density·n⌋ elements of largest magnitude, the others zero."""
    order = np.argsort(-tensor.abs().numpy().ravel(), kind="stable")
    kept = np.zeros(tensor.numel())
    kept[order[: int(density * tensor.numel())]] = 1.0
    return tensor * torch.from_numpy(kept.reshape(tensor.shape))


def trimmed_together(matrices: list[Dense], parameters: dict[str, Any]) -> tuple[list[Dense], dict[str, Any]]:
    """Each adapter's matrices trimmed over all modules together where that is asked for, and then not once more."""
    if parameters.get("trim") != "global":
        return matrices, parameters
    found = []
    for own in matrices:
        everything = np.sort(np.abs(np.concatenate([matrix.ravel() for matrix in own.values()])))[::-1]
        threshold = everything[int(parameters["density"] * len(everything)) - 1]
        found.append({name: np.where(np.abs(matrix) >= threshold, matrix, 0.0) for name, matrix in own.items()})
    return found, parameters | {"density": 1.0}


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


def mergekit_merge(
    method: Any, tensors: Tensors, weights: Sequence[float], density: float = 1.0, gamma: float | None = None
) -> torch.Tensor:
    """The weighted mean where signs are elected, as `ties` has it by default; the weighted sum where they are not."""
    from mergekit.merge_methods.base import TensorGroup

    group = TensorGroup.from_tensors([torch.zeros_like(tensors[0]), *tensors], base_index=0)
    inputs = range(1, len(tensors) + 1)
    outliers = {} if gamma is None else {"gamma": dict.fromkeys(inputs, gamma)}
    return method.merge_group(
        group,
        int8_mask=False,
        normalize=gamma is None,
        rescale=False,
        **outliers,
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
    """Every setting in every space that it has, for two adapters and for three."""
    built = []
    for count, own in product((2, 3), settings):
        parameters = {"alpha": 0.3, **own}
        weights = shares(count, 0.3)
        adapters, equal = random_adapters(11, count), random_adapters(12, count, ranks=(3,) * count, rounded=False)
        expected = {
            "delta": on_delta(adapters, reference, weights, parameters),
            "core": on_core(adapters, reference, weights, parameters),
        }
        if own.get("trim") != "global":
            expected["factors"] = on_factors(method, equal, reference, weights, parameters)
        for space, found in expected.items():
            scaled = {name: own.get("scale", 1.0) * matrix for name, matrix in found.items()}
            given = equal if space == "factors" else adapters
            built.append(Case(method, given, parameters | {"space": space}, scaled))
    return built


def on_delta(adapters: Adapters, reference: Reference, weights: Sequence[float], parameters: dict[str, Any]) -> Dense:
    matrices, parameters = trimmed_together(dense(adapters), parameters)
    return {
        name: reference([torch.from_numpy(own[name]) for own in matrices], weights, name, parameters).numpy()
        for name in matrices[0]
    }


def on_core(adapters: Adapters, reference: Reference, weights: Sequence[float], parameters: dict[str, Any]) -> Dense:
    bases = {name: canonical(adapters, name) for name in dense(adapters)[0]}
    turned = [
        {name: np.ascontiguousarray(bases[name][0].T @ own[name] @ bases[name][1]) for name in own}
        for own in dense(adapters)
    ]
    cores, parameters = trimmed_together(turned, parameters)
    expected = {}
    for name, (left, right) in bases.items():
        merged = reference([torch.from_numpy(own[name]) for own in cores], weights, name, parameters)
        expected[name] = left @ merged.numpy() @ right.T
    return expected


def on_factors(
    method: str, adapters: Adapters, reference: Reference, weights: Sequence[float], parameters: dict[str, Any]
) -> Dense:
    """A real PeftModel's `add_weighted_adapter` where PEFT has the method, else the reference on A and on B.

    In the flavour of the paper √s is part of what is averaged, else of the weights.
    """
    if parameters.get("flavour", "peft") == "peft" and method in IN_PEFT:
        density = 1 - parameters["p"] if "p" in parameters else parameters["density"]
        return weighted_adapter(adapters, weights, method, density=density, seed=parameters.get("seed"))
    expected = {}
    inside = parameters.get("flavour") == "paper"
    for name in sorted(set().union(*adapters)):
        like = next(own[name] for own in adapters if name in own)
        present = [own.get(name) for own in adapters]
        roots = [
            math.sqrt(w * (1.0 if inside else own.scaling)) if own else 0.0
            for w, own in zip(weights, present, strict=True)
        ]
        sizes = [math.sqrt(own.scaling) if own and inside else 1.0 for own in present]
        a, b = (
            [
                size * getattr(own, side).double() if own else torch.zeros_like(getattr(like, side)).double()
                for own, size in zip(present, sizes, strict=True)
            ]
            for side in ("a", "b")
        )
        merged_a, merged_b = (
            reference(tensors, roots, f"{name}/{factor}", parameters) for factor, tensors in (("A", a), ("B", b))
        )
        expected[name] = (merged_b @ merged_a).numpy()
    return expected


IN_PEFT = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
FLAVOURS = ("paper", "peft", "mergekit")

ORACLES = {
    "ties": Oracle(
        1e-5,
        lambda: cases(
            "ties",
            ties,
            [
                *({"density": d, "flavour": f, "trim": "module"} for d in (0.2, 0.6, 1.0) for f in FLAVOURS),
                *({"density": 0.3, "flavour": f, "trim": "global", "scale": 1.3} for f in FLAVOURS),
                *({"density": 0.3, "flavour": f, "trim": "module", "scale": 0.7} for f in FLAVOURS),
            ],
        ),
    ),
    "dare_linear": Oracle(
        1e-5, lambda: cases("dare_linear", dare_linear, [{"p": p, "seed": 7} for p in (0.0, 0.3, 0.6)])
    ),
    "dare_ties": Oracle(
        1e-5,
        lambda: cases(
            "dare_ties",
            dare_ties,
            [
                {"p": p, "seed": 7, "flavour": f, "scale": s}
                for p, s in ((0.0, 1.0), (0.3, 1.0), (0.6, 1.2))
                for f in FLAVOURS
            ],
        ),
    ),
    "della": Oracle(
        1e-5,
        lambda: cases(
            "della",
            della,
            [
                {"density": d, "epsilon": e, "seed": 7, "flavour": f, "scale": s}
                for d, e, s in ((0.5, 0.15, 1.0), (0.7, 0.2, 1.4))
                for f in FLAVOURS
            ],
        ),
    ),
    "breadcrumbs": Oracle(
        1e-5,
        lambda: cases(
            "breadcrumbs", breadcrumbs, [{"density": d, "beta": b} for d, b in ((0.9, 0.05), (0.5, 0.3), (0.8, 0.4))]
        ),
    ),
    "magnitude_prune": Oracle(
        1e-5,
        lambda: cases(
            "magnitude_prune",
            magnitude_prune,
            [{"density": d, "trim": t} for d in (0.2, 0.6) for t in ("module", "global")],
        ),
    ),
}
