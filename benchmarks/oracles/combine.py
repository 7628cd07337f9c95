"""Weighted sums: dense float64, PEFT on a real model, and mergekit's spherical interpolation and Model Stock."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.oracles.cases import (
    SHAPES,
    Adapters,
    Case,
    Dense,
    Oracle,
    dense,
    factors,
    random_adapters,
    random_base,
    shares,
    sides,
)
from benchmarks.oracles.peft_model import weighted_adapter


def weighted_sum(adapters: Adapters, weights: list[float]) -> Dense:
    matrices = dense(adapters)
    return {
        name: np.sum([weight * own[name] for weight, own in zip(weights, matrices, strict=True)], axis=0)
        for name in matrices[0]
    }


def linear() -> list[Case]:
    cases = []
    for count in (2, 3):
        adapters = random_adapters(1, count)
        cases.append(Case("linear", adapters, {"alpha": 0.3}, weighted_sum(adapters, shares(count, 0.3))))
        own, multiplied = factors(count)
        parts = [f * w for f, w in zip(multiplied, shares(count, 0.3), strict=True)]
        given = {"alpha": 0.3, "weights": own}
        cases.append(Case("linear", adapters, given, weighted_sum(adapters, parts)))
        plain = random_adapters(2, count, ranks=(4, 3, 2))
        cases.append(Case("linear", plain, {"alpha": 0.6}, weighted_adapter(plain, shares(count, 0.6), "cat")))
    return cases


def task_arithmetic() -> list[Case]:
    cases = []
    for count, experts in ((2, "mean"), (3, "mean"), (3, "sum")):
        adapters = random_adapters(3, count)
        utility, safety = sides(adapters, experts)
        expected = {name: utility[name] + 1.7 * safety[name] for name in safety}
        cases.append(Case("task_arithmetic", adapters, {"alpha": 1.7, "experts": experts}, expected))
    adapters, (own, (first, second, last)) = random_adapters(3, 3), factors(3)
    expected = weighted_sum(adapters, [first, second, 1.7 * last])
    given = {"alpha": 1.7, "experts": "sum", "weights": own}
    cases.append(Case("task_arithmetic", adapters, given, expected))
    plain = random_adapters(4, ranks=(4, 3))
    return [*cases, Case("task_arithmetic", plain, {"alpha": 0.8}, weighted_adapter(plain, [1.0, 0.8], "cat"))]


def average() -> list[Case]:
    cases = []
    for count in (2, 3):
        adapters = random_adapters(5, count)
        cases.append(Case("average", adapters, {}, weighted_sum(adapters, [1 / count] * count)))
        own, multiplied = factors(count)
        expected = weighted_sum(adapters, [factor / count for factor in multiplied])
        cases.append(Case("average", adapters, {"weights": own}, expected))
    return cases


def base_interpolation() -> list[Case]:
    cases = []
    for count in (2, 3):
        adapters = random_adapters(6, count)
        utility, _ = sides(adapters)
        expected = {name: 0.4 * delta for name, delta in utility.items()}
        cases.append(Case("base_interpolation", adapters, {"alpha": 0.4}, expected))
        own, multiplied = factors(count)
        parts = [0.4 * factor / (count - 1) for factor in multiplied[:-1]] + [0.0]
        given = {"alpha": 0.4, "weights": own}
        cases.append(Case("base_interpolation", adapters, given, weighted_sum(adapters, parts)))
    return cases


def resta() -> list[Case]:
    """Task negation: the last adapter is subtracted."""
    cases = []
    for count, experts in ((2, "mean"), (3, "mean"), (3, "sum")):
        adapters = random_adapters(10, count)
        utility, harm = sides(adapters, experts)
        expected = {name: utility[name] - 0.6 * harm[name] for name in harm}
        cases.append(Case("resta", adapters, {"alpha": 0.6, "experts": experts}, expected))
    adapters, (own, (first, last)) = random_adapters(10), factors(2)
    given = {"alpha": 0.6, "weights": own}
    cases.append(Case("resta", adapters, given, weighted_sum(adapters, [first, -0.6 * last])))
    plain = random_adapters(13, ranks=(4, 3))
    return [*cases, Case("resta", plain, {"alpha": 0.8}, weighted_adapter(plain, [1.0, -0.8], "cat"))]


def slerp() -> list[Case]:
    """mergekit's per module; where an update is zero ours is linear on purpose, mergekit shrinks the other."""
    cases = []
    for count, alike, alpha in ((2, 0.3, 0.3), (3, 2.0, 0.6), (2, 1e5, 0.7)):  # the last: almost parallel
        adapters = random_adapters(7, count, alike=alike, ranks=(3, 3, 3))
        utility, safety = sides(adapters)
        expected = {}
        for name in safety:
            if not (utility[name].any() and safety[name].any()):
                expected[name] = (1 - alpha) * utility[name] + alpha * safety[name]
                continue
            expected[name] = mergekit_slerp(utility[name], safety[name], alpha)
        cases.append(Case("slerp", adapters, {"alpha": alpha}, expected))
    return cases


def base_slerp() -> list[Case]:
    cases = []
    for count, alpha in ((2, 0.3), (3, 0.8)):
        adapters = random_adapters(8, count)
        utility, _ = sides(adapters)
        expected = {}
        for name, delta in utility.items():
            base = random_base(name).double().numpy()
            expected[name] = mergekit_slerp(base, base + delta, alpha) - base
        cases.append(Case("base_slerp", adapters, {"alpha": alpha}, expected, base=random_base))
    return cases


def model_stock() -> list[Case]:
    """Adapters alike enough for t to lie in 0–1; that ours clamps it where mergekit does not is a test of its own."""
    cases = []
    shared = {name: shape for name, shape in SHAPES.items() if name.endswith(("q_proj", "down_proj", "mixer"))}
    for count in (2, 3):
        adapters = random_adapters(9, count, shapes=shared, alike=1.5)
        cases.append(Case("model_stock", adapters, {}, mergekit_model_stock(adapters)))
    return cases


def mergekit_slerp(first: np.ndarray, second: np.ndarray, t: float) -> np.ndarray:
    from mergekit.merge_methods.slerp import slerp

    batch = (torch.from_numpy(matrix)[None] for matrix in (first, second))
    return slerp(torch.tensor([t], dtype=torch.float64), *batch)[0].numpy()


def mergekit_model_stock(adapters: Adapters) -> Dense:
    from mergekit.merge_methods.base import TensorGroup
    from mergekit.merge_methods.registry import get

    matrices = dense(adapters)
    expected = {}
    for name in matrices[0]:
        base = random_base(name).double()
        group = TensorGroup.from_tensors(
            [base, *(base + torch.from_numpy(own[name]) for own in matrices)], base_index=0
        )
        expected[name] = (get("model_stock").merge_group(group, filter_wise=False) - base).numpy()
    return expected


ORACLES = {
    "linear": Oracle(1e-6, linear),
    "task_arithmetic": Oracle(1e-6, task_arithmetic),
    "average": Oracle(1e-6, average),
    "resta": Oracle(1e-6, resta),
    "base_interpolation": Oracle(1e-6, base_interpolation),
    "slerp": Oracle(1e-6, slerp),
    "model_stock": Oracle(1e-6, model_stock),
    "base_slerp": Oracle(1e-6, base_slerp),
}
