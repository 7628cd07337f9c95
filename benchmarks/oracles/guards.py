"""Null-space guard and Safe Delta, written in numpy on the dense ΔW and the dense second moments of the inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.linalg

from benchmarks.oracles.cases import SHAPES, Adapters, Case, Dense, Oracle, canonical, dense, random_adapters

WEIGHTS = {2: "1.2,-0.7", 3: "1.2,-0.4,0.8"}
"""By number of adapters"""


def moments() -> dict[str, np.ndarray]:
    """E[xxᵀ] of a few inputs of very different size, (in, in) by module."""
    found = {}
    for name, (_, inside) in SHAPES.items():
        seed = int.from_bytes(hashlib.sha256(f"inputs {name}".encode()).digest()[:4], "big")
        draws = np.random.default_rng(seed)
        rows = draws.normal(size=(40, inside)) * np.geomspace(3, 0.3, inside)
        found[name] = rows.T @ rows / len(rows)
    return found


def utility_and_safety(adapters: Adapters, parameters: Mapping[str, Any]) -> tuple[Dense, Dense]:
    """Σ wᵢΔUᵢ, mean or sum of several, and w·α·ΔS."""
    matrices = dense(adapters)
    factors = [float(one) for one in parameters["weights"].split(",")] if parameters.get("weights") else [1.0] * 9
    count = len(matrices) - 1
    share = 1.0 if parameters.get("experts") == "sum" else 1 / count
    mixed = [share * factor for factor in factors[:count]]
    utility = {
        name: np.sum([w * own[name] for w, own in zip(mixed, matrices[:count], strict=True)], axis=0)
        for name in matrices[0]
    }
    safety = {name: factors[count] * parameters["alpha"] * own for name, own in matrices[-1].items()}
    return utility, safety


def row_space(adapters: Adapters, name: str) -> np.ndarray:
    """Orthonormal columns (in, q) that span what the adapters of a module read."""
    return scipy.linalg.orth(np.concatenate([own[name].a.double().numpy() for own in adapters if name in own]).T)


def null_space_guard() -> list[Case]:
    cases = []
    seen = moments()
    for count, experts, weights in ((2, "mean", ""), (3, "mean", ""), (3, "sum", ""), (2, "mean", WEIGHTS[2])):
        adapters = random_adapters(61, count)
        cumulative = spectrum(adapters, seen, "model.layers.2.mixer").cumsum()
        edge = float((cumulative / cumulative[-1])[1]) / 1.005  # one more per cent takes a direction more
        for energy in (edge, 0.8):
            own = {"alpha": 0.7, "energy": energy, "experts": experts, "weights": weights}
            utility, safety = utility_and_safety(adapters, own)
            expected = {name: guarded(adapters, seen[name], name, utility[name], energy) for name in utility}
            expected = {name: own + safety[name] for name, own in expected.items()}
            cases.append(Case("null_space_guard", adapters, own, expected, seen=seen))
    return cases


def spectrum(adapters: Adapters, seen: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Eigenvalues of E[xxᵀ] within the row space, falling."""
    basis = row_space(adapters, name)
    return np.linalg.eigvalsh(basis.T @ seen[name] @ basis)[::-1]


def guarded(adapters: Adapters, seen: np.ndarray, name: str, utility: np.ndarray, energy: float) -> np.ndarray:
    """ΔU without what it answers to the leading directions, as vectors of the whole input space."""
    basis = row_space(adapters, name)
    values, vectors = np.linalg.eigh(basis @ basis.T @ seen @ basis @ basis.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    for taken in range(len(values) + 1):
        if values[:taken].sum() >= energy * np.trace(basis.T @ seen @ basis) * (1 - 1e-12):
            break
    return utility @ (np.eye(len(seen)) - vectors[:, :taken] @ vectors[:, :taken].T)


def safe_delta() -> list[Case]:
    cases = []
    seen = moments()
    for count, experts, weights in ((2, "mean", ""), (3, "mean", ""), (3, "sum", ""), (2, "mean", WEIGHTS[2])):
        adapters = random_adapters(62, count)
        for budget, damping in ((0.25, 0.4), (0.6, 0.01)):
            own = {"alpha": 0.6, "budget": budget, "damping": damping, "experts": experts, "weights": weights}
            utility, safety = utility_and_safety(adapters, own)
            expected = {}
            for name in utility:
                left, right = canonical(adapters, name)
                h = right.T @ seen[name] @ right
                core = surgeon(left.T @ utility[name] @ right, h, budget, damping)
                expected[name] = left @ core @ right.T + safety[name]
            cases.append(Case("safe_delta", adapters, own, expected, seen=seen))
    return cases


def surgeon(update: np.ndarray, seen: np.ndarray, budget: float, damping: float) -> np.ndarray:
    """Safe Delta by its definition: what is left of H is inverted anew before every column."""
    size = len(seen)
    h = 2 * seen + damping * np.diag(2 * seen).mean() * np.eye(size)
    inverse = [np.linalg.inv(h[column:, column:]) for column in range(size)]
    cost = {(i, j): update[i, j] ** 2 / (2 * inverse[j][0, 0]) for i, j in np.ndindex(update.shape)}
    order = sorted(cost, key=lambda at: (-inverse[at[1]][0, 0], -abs(update[at])))
    kept, spent = set(), 0.0
    for at in order:
        spent += cost[at]
        if spent > budget * sum(cost.values()):
            break
        if abs(update[at]) > 1e-6 * abs(update).max():
            kept.add(at)
    weights = np.zeros_like(update)  # of the aligned model, which here is 0
    for column in range(size):
        own = inverse[column]
        for row in range(len(update)):
            if (row, column) in kept:
                off = weights[row, column] - update[row, column]
                weights[row, column:] -= off * own[0] / own[0, 0]
                weights[row, column] = update[row, column]
    return weights


ORACLES = {
    "null_space_guard": Oracle(1e-5, null_space_guard),
    "safe_delta": Oracle(1e-5, safe_delta),
}
"""By method"""
