"""LED-Merging in numpy: sorts whole matrices and works on sets of weights (Ma et al. 2025, eq. 1–4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.oracles.cases import SHAPES, Adapters, Case, Dense, Oracle, Samples, dense, random_adapters, random_base
from benchmarks.oracles.cases import random_samples as samples


def led_merging() -> list[Case]:
    """Shares that leave conflicts, one that elects nothing, and one that locates everything."""
    cases = []
    for seed, parameters in enumerate(
        (
            {"alpha": 1.0, "r_utility": 0.5, "r_safety": 0.5},
            {"alpha": 0.7, "r_utility": 0.61, "r_safety": 0.23},
            {"alpha": 1.3, "r_utility": 1.0, "r_safety": 0.003},
        )
    ):
        adapters = random_adapters(60 + seed, 3 if seed == 1 else 2)
        # gradients at the base and at the tuned model, of each adapter's samples
        gradients = [
            [samples(70 + 9 * seed + 2 * side + at, 6, SHAPES) for at in (0, 1)] for side in range(len(adapters))
        ]
        expected = merged(adapters, gradients, parameters)
        cases.append(Case("led_merging", adapters, parameters, expected, scores=scores(adapters, gradients)))
    return cases


def merged(adapters: Adapters, gradients: list[list[Samples]], parameters: dict[str, Any]) -> Dense:
    """Each ΔW where its own elected set, less the other's, says so."""
    expected = {}
    matrices = dense(adapters)
    shares = [parameters["r_utility"]] * (len(adapters) - 1) + [parameters["r_safety"]]
    factors = [1.0] * (len(adapters) - 1) + [parameters["alpha"]]
    for name in matrices[0]:
        weight = random_base(name).double().numpy()
        sets = []
        for delta, own, share in zip(matrices, gradients, shares, strict=True):
            located = [
                top(np.mean([abs(theta * g) for g in at.gradients[name]], axis=0), share)
                for theta, at in zip((weight, weight + delta[name]), own, strict=True)
            ]
            sets.append(located[0] & located[1])
        total = np.zeros(weight.size)
        for index, (delta, factor) in enumerate(zip(matrices, factors, strict=True)):
            places = sorted(sets[index].difference(*(other for at, other in enumerate(sets) if at != index)))
            total[places] += factor * delta[name].flatten()[places]
        expected[name] = total.reshape(weight.shape)
    return expected


def top(score: np.ndarray, share: float) -> set[int]:
    """Places of the ⌊share·n⌋ largest scores."""
    return set(np.argsort(-score, axis=None)[: int(share * score.size + 1e-9)].tolist())


def scores(adapters: Adapters, gradients: list[list[Samples]]) -> list[list[dict[str, torch.Tensor]]]:
    """What ours is given: of each adapter the mean |θ ⊙ ∇L| at the base and at the tuned model."""
    found = []
    for delta, own in zip(dense(adapters), gradients, strict=True):
        weights = [{name: random_base(name).double().numpy() + at * delta[name] for name in delta} for at in (0, 1)]
        found.append(
            [
                {
                    name: torch.from_numpy(abs(theta[name]) * abs(at.gradients[name]).mean(axis=0)).float()
                    for name in theta
                }
                for theta, at in zip(weights, own, strict=True)
            ]
        )
    return found


ORACLES = {"led_merging": Oracle(1e-6, led_merging)}
