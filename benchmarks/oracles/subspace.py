"""TSV-Merge, Iso-C, KnOTS and Compress-then-Merge in numpy on the dense ΔW, from the papers' formulas."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import scipy.linalg
import torch

from benchmarks.oracles.cases import Adapters, Case, Dense, Oracle, dense, factors, random_adapters, shares
from benchmarks.oracles.elementwise import agreeing_mean, largest, trimmed_together


def each_weight(count: int, alpha: float, experts: str, own: str) -> list[float]:
    """What multiplies each adapter: the experts' sum or mean, and α of the safety adapter, times their own factors."""
    found = [1.0 if experts == "sum" else 1 / (count - 1)] * (count - 1) + [alpha]
    return [weight * factor for weight, factor in zip(found, factors(count)[1] if own else [1.0] * count, strict=True)]


def tsv_merge() -> list[Case]:
    cases = []
    settings = ((1.0, "sum", True), (0.5, "mean", False), (0.745, "sum", False))  # 0.745 · 4 is just below 3
    for count, (kept, experts, factored) in product((2, 3), settings):
        adapters = random_adapters(31, count, alike=0.8)
        own: dict[str, Any] = {"alpha": 1.4, "kept": kept, "experts": experts, "scale": 0.9}
        own["weights"] = factors(count)[0] if factored else ""
        cases.append(Case("tsv_merge", adapters, own, task_singular_vectors(adapters, **own)))
    return cases


def task_singular_vectors(
    adapters: Adapters, *, alpha: float, kept: float, experts: str, scale: float, weights: str
) -> Dense:
    """U(UᵀU)^(−½) as in the paper's closed form of the Procrustes problem, not by a second SVD."""
    matrices, expected = dense(adapters), {}
    multiplied = each_weight(len(adapters), alpha, experts, weights)
    for name in matrices[0]:
        parts = []
        for weight, own, adapter in zip(multiplied, matrices, adapters, strict=True):
            rank = min(*own[name].shape, adapter[name].a.shape[0]) if name in adapter else 0
            count = max(1, int(kept * rank)) if rank else 0
            left, values, right = np.linalg.svd(own[name])
            parts.append((left[:, :count], weight * values[:count], right[:count].T))
        left, values, right = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
        expected[name] = scale * whitened(left) @ np.diag(values) @ whitened(right).T
    return expected


def whitened(columns: np.ndarray) -> np.ndarray:
    """X(XᵀX)^(−½); from the other side, (XXᵀ)^(−½)X, where there are more columns than rows."""
    rows, count = columns.shape
    if count <= rows:
        return columns @ np.linalg.inv(scipy.linalg.sqrtm(columns.T @ columns).real)
    return np.linalg.inv(scipy.linalg.sqrtm(columns @ columns.T).real) @ columns


def iso_c() -> list[Case]:
    cases = []
    for count, experts, factored in ((2, "sum", False), (3, "sum", True), (3, "mean", False)):
        adapters = random_adapters(32, count)
        given = {"alpha": 0.6, "experts": experts, "scale": 1.2, "weights": factors(count)[0] if factored else ""}
        multiplied = each_weight(count, 0.6, experts, "own" if factored else "")
        expected = {}
        matrices = dense(adapters)
        for name in matrices[0]:
            total = sum(w * own[name] for w, own in zip(multiplied, matrices, strict=True))
            left, values, right = np.linalg.svd(total)
            rank = np.linalg.matrix_rank(total, tol=1e-5 * values[0])
            expected[name] = 1.2 * values[:rank].mean() * left[:, :rank] @ right[:rank]
        cases.append(Case("iso_c", adapters, given, expected))
    return cases


def knots_ties() -> list[Case]:
    cases = []
    for count, (density, trim) in product((2, 3), ((0.2, "global"), (0.6, "global"), (0.3, "module"), (1.0, "module"))):
        adapters = random_adapters(33, count, alike=0.8)
        matrices = dense(adapters)
        lefts, rows = {}, [dict(own) for own in matrices]
        for name in matrices[0]:
            beside = np.concatenate([own[name] for own in matrices], axis=1)
            left, values, right = np.linalg.svd(beside, full_matrices=False)
            rank = np.linalg.matrix_rank(beside, tol=1e-5 * values[0])
            lefts[name] = left[:, :rank]
            parts = np.split(values[:rank, None] * right[:rank], count, axis=1)
            for own, part in zip(rows, parts, strict=True):
                own[name] = np.ascontiguousarray(part) if own[name].any() else part * 0.0  # not rounding with a sign
        trimmed, given = trimmed_together(rows, {"density": density, "trim": trim})
        expected = {name: 1.3 * left @ ties(trimmed, name, given["density"], 0.3) for name, left in lefts.items()}
        given = {"alpha": 0.3, "density": density, "trim": trim, "scale": 1.3}
        cases.append(Case("knots_ties", adapters, given, expected))
    return cases


def ties(matrices: Sequence[Dense], name: str, density: float, alpha: float) -> np.ndarray:
    kept = [largest(torch.from_numpy(own[name]), density) for own in matrices]
    return agreeing_mean(kept, shares(len(matrices), alpha)).numpy()


def compress_then_merge() -> list[Case]:
    cases = []
    for count, (subspace, rule, density, beta) in product(
        (2, 3), ((0, "ties", 1.0, 0.25), (2, "ties", 0.3, 0.6), (3, "average", 0.5, 0.8), (30, "ties", 0.4, 1.0))
    ):
        adapters = random_adapters(34, count, alike=0.8)
        matrices = dense(adapters)
        expected = {}
        for name in matrices[0]:
            ranks = [len(own[name].a) if name in own else 0 for own in adapters]
            left, right = tucker([own[name] for own in matrices if own[name].any()], subspace or max(ranks), beta)
            coordinates = [{name: np.ascontiguousarray(left.T @ own[name] @ right)} for own in matrices]
            if rule == "ties":
                merged = ties(coordinates, name, density, 0.4)
            else:
                weighted = [w * own[name] for w, own in zip(shares(count, 0.4), coordinates, strict=True)]
                merged = np.sum(weighted, axis=0)
            expected[name] = 0.9 * left @ merged @ right.T
        given = {"alpha": 0.4, "subspace": subspace, "rule": rule, "density": density, "beta": beta, "scale": 0.9}
        cases.append(Case("compress_then_merge", adapters, given, expected))
    return cases


def tucker(matrices: Sequence[np.ndarray], rank: int, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """HOSVD and HOOI of the (out, in, N) tensor of rescaled ΔW along its first two modes, by eigenvectors."""
    norms = [np.linalg.norm(matrix) for matrix in matrices]
    scales = [beta * norm + (1 - beta) * np.mean(norms) for norm in norms]
    tensor = np.stack([s * m / n for s, m, n in zip(scales, matrices, norms, strict=True)], axis=-1)
    left, right = (leading(np.moveaxis(tensor, mode, 0), rank) for mode in (0, 1))
    for _ in range(1000):
        left = leading(np.einsum("oin,ir->orn", tensor, right), rank)
        right = leading(np.einsum("oin,or->irn", tensor, left), rank)
    return left, right


def leading(tensor: np.ndarray, rank: int) -> np.ndarray:
    """Leading left singular vectors of the first unfolding, none for rounding."""
    unfolded = tensor.reshape(len(tensor), -1)
    values, vectors = np.linalg.eigh(unfolded @ unfolded.T)
    there = int((values > 1e-10 * values[-1]).sum())
    return vectors[:, ::-1][:, : min(rank, there)]


ORACLES = {
    "knots_ties": Oracle(1e-5, knots_ties),
    "compress_then_merge": Oracle(1e-5, compress_then_merge),
    "tsv_merge": Oracle(1e-5, tsv_merge),
    "iso_c": Oracle(1e-5, iso_c),
}
