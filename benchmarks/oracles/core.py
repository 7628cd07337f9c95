"""Fisher merging and the projections onto the safety direction, written in numpy on dense matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.oracles.cases import (
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
    cases = []
    for count, alpha in ((2, 0.3), (3, 0.6)):
        adapters, harm, benign = random_adapters(21, count, shapes=SMALL), random_samples(22, 7), random_samples(23, 9)
        expected = fisher_average(adapters, harm, benign, alpha)
        given = calibrated(adapters, harm, benign)
        cases.append(Case("fisher", adapters, {"alpha": alpha}, expected, given))
    return cases


def fisher_average(adapters: Adapters, harm: Samples, benign: Samples, alpha: float) -> Dense:
    """Σ wFΔ/ΣwF on the coordinates of the dense canonical basis; the experts with F_benign, safety with F_harm."""
    matrices = dense(adapters)
    expected = {}
    for name in matrices[0]:
        left, right = canonical(adapters, name)
        f_harm, f_benign = (diagonal(side, name, left, right) for side in (harm, benign))
        floor = 1e-6 * max(f_harm.max(), f_benign.max())
        importance = [f_benign + floor] * (len(adapters) - 1) + [f_harm + floor]
        weights = [w * f for w, f in zip(shares(len(adapters), alpha), importance, strict=True)]
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
    """A threshold close above which the cosine of one module lies, and one that every module stays below."""
    cases = []
    for count in (2, 3):
        adapters = random_adapters(24, count)
        utility, safety = sides(adapters)
        aligned = {name: align(utility[name], safety[name]) for name in safety}
        cosines = sorted(cosine for _, cosine in aligned.values() if cosine < 1)
        for threshold in (cosines[len(cosines) // 2] / 1.005, 0.95):
            expected = {
                name: change(utility[name], safety[name], projected) if cosine < threshold else utility[name]
                for name, (projected, cosine) in aligned.items()
            }
            cases.append(Case(method, adapters, parameters | {"threshold": threshold}, expected))
    return cases


def align(update: np.ndarray, safety: np.ndarray) -> tuple[np.ndarray, float]:
    """CΔ and cos(Δ, CΔ) with the dense (out, out) matrix C = VVᵀ/‖V‖_F; 1 where there is nothing to compare."""
    if not safety.any() or not update.any():
        return update, 1.0
    projected = safety @ safety.T / np.linalg.norm(safety) @ update
    return projected, float((update * projected).sum() / np.linalg.norm(update) / np.linalg.norm(projected))


ORACLES = {
    "fisher": Oracle("numpy in the canonical basis of the dense ΔW", 1e-5, fisher),
    "safe_lora": Oracle("numpy with the dense C (out × out)", 5e-6, safe_lora),
    "safemerge": Oracle("numpy with the dense C (out × out)", 5e-6, safemerge),
}
