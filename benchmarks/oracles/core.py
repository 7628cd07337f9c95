"""Fisher merging and the projections onto the safety direction, written in numpy on dense matrices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import scipy.linalg
import torch

from benchmarks.oracles.cases import (
    SHAPES,
    SMALL,
    Adapters,
    Case,
    Dense,
    Oracle,
    Samples,
    calibrated,
    canonical,
    dense,
    random_adapters,
    random_samples,
    shares,
    sides,
)


def fisher() -> list[Case]:
    """One Fisher for all experts, and one for each."""
    cases = []
    for count, alpha, apart in ((2, 0.3, False), (3, 0.6, False), (3, 0.4, True)):
        adapters, harm = random_adapters(21, count, shapes=SMALL), random_samples(22, 7)
        benign = [random_samples(23 + index, 9 + index) for index in range(count - 1 if apart else 1)]
        expected = fisher_average(adapters, harm, benign if apart else benign * (count - 1), alpha)
        given = calibrated(adapters, harm, benign[0], benign if apart else ())
        cases.append(Case("fisher", adapters, {"alpha": alpha}, expected, given))
    return cases


def fisher_average(adapters: Adapters, harm: Samples, benign: Sequence[Samples], alpha: float) -> Dense:
    """Σ wFΔ/ΣwF on the coordinates of the dense canonical basis; each expert with its own F, safety with F_harm."""
    matrices = dense(adapters)
    expected = {}
    for name in matrices[0]:
        left, right = canonical(adapters, name)
        fishers = [diagonal(side, name, left, right) for side in (*benign, harm)]
        floor = 1e-6 * max(own.max() for own in fishers)
        weights = [w * (f + floor) for w, f in zip(shares(len(adapters), alpha), fishers, strict=True)]
        cores = [left.T @ own[name] @ right for own in matrices]
        mean = sum(w * core for w, core in zip(weights, cores, strict=True)) / sum(weights)
        expected[name] = left @ mean @ right.T
    return expected


def diagonal(samples: Samples, name: str, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Diagonal of F = Σ w g gᵀ in a basis, (p, q)."""
    return np.tensordot(samples.weights, (left.T @ samples.gradients[name] @ right) ** 2, axes=1)


def safe_lora() -> list[Case]:
    return projections("safe_lora", {}, lambda utility, safety, aligned: aligned)


def safemerge() -> list[Case]:
    return projections("safemerge", {"alpha": 0.4}, lambda utility, safety, aligned: 0.6 * utility + 0.4 * safety)


def projections(method: str, parameters: dict[str, Any], change: Any) -> list[Case]:
    """A threshold close above which the cosine of one module lies, and one that every module stays below.

    Along ΔS, and along a direction of few columns that leads out of what the adapters span.
    """
    cases = []
    for count, projection, given in product((2, 3), ("projector", "published"), (None, safe_direction)):
        adapters = random_adapters(24, count)
        utility, safety = sides(adapters)
        aligned = {
            name: align(utility[name], given(name).double().numpy() if given else safety[name], projection)
            for name in safety
        }
        cosines = sorted(cosine for _, cosine in aligned.values() if cosine < 1)
        for threshold in (cosines[len(cosines) // 2] / 1.005, 0.95):
            expected = {
                name: change(utility[name], safety[name], projected) if cosine < threshold else utility[name]
                for name, (projected, cosine) in aligned.items()
            }
            own = parameters | {"threshold": threshold, "projection": projection}
            cases.append(Case(method, adapters, own, expected, direction=given))
    return cases


def safe_direction(name: str) -> torch.Tensor:
    """V of rank 5, (out, in) of a module, unrelated to the adapters."""
    out, inside = SHAPES[name]
    seed = int.from_bytes(hashlib.sha256(f"safe {name}".encode()).digest()[:4], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, 5, generator=generator) @ torch.randn(5, inside, generator=generator)


def align(update: np.ndarray, direction: np.ndarray, projection: str) -> tuple[np.ndarray, float]:
    """CΔ and cos(Δ, CΔ) with the dense (out, out) matrix C; 1 where there is nothing to compare."""
    if not direction.any() or not update.any():
        return update, 1.0
    if projection == "published":
        c = direction @ direction.T / np.linalg.norm(direction)
    else:
        columns = scipy.linalg.orth(direction, rcond=1e-4)  # V itself is float32
        c = columns @ columns.T
    projected = c @ update
    return projected, float((update * projected).sum() / np.linalg.norm(update) / np.linalg.norm(projected))


ORACLES = {
    "fisher": Oracle(1e-5, fisher),
    "safe_lora": Oracle(1e-5, safe_lora),
    "safemerge": Oracle(1e-5, safemerge),
}
