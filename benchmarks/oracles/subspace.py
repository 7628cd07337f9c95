"""TSV-Merge, Iso-C, KnOTS and Compress-then-Merge in numpy on the dense ΔW, from the papers' formulas."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import scipy.linalg

from benchmarks.oracles.cases import Adapters, Case, Dense, Oracle, dense, random_adapters


def weights(count: int, alpha: float, experts: str) -> list[float]:
    """What multiplies each adapter: the experts' sum or mean, and α of the safety adapter."""
    return [1.0 if experts == "sum" else 1 / (count - 1)] * (count - 1) + [alpha]


def tsv_merge() -> list[Case]:
    cases = []
    settings = ((1.0, "sum"), (0.5, "mean"), (0.745, "sum"))  # 0.745 · 4 is just below 3
    for count, (kept, experts) in product((2, 3), settings):
        adapters = random_adapters(31, count, alike=0.8)
        own: dict[str, Any] = {"alpha": 1.4, "kept": kept, "experts": experts, "scale": 0.9}
        cases.append(Case("tsv_merge", adapters, own, task_singular_vectors(adapters, **own)))
    return cases


def task_singular_vectors(adapters: Adapters, *, alpha: float, kept: float, experts: str, scale: float) -> Dense:
    """U(UᵀU)^(−½) as in the paper's closed form of the Procrustes problem, not by a second SVD."""
    matrices, expected = dense(adapters), {}
    for name in matrices[0]:
        parts = []
        for weight, own, adapter in zip(weights(len(adapters), alpha, experts), matrices, adapters, strict=True):
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
    for count, experts in ((2, "sum"), (3, "sum"), (3, "mean")):
        adapters = random_adapters(32, count)
        own = {"alpha": 0.6, "experts": experts, "scale": 1.2}
        expected = {}
        matrices = dense(adapters)
        for name in matrices[0]:
            total = sum(w * own[name] for w, own in zip(weights(count, 0.6, experts), matrices, strict=True))
            left, values, right = np.linalg.svd(total)
            rank = np.linalg.matrix_rank(total, tol=1e-5 * values[0])
            expected[name] = 1.2 * values[:rank].mean() * left[:, :rank] @ right[:rank]
        cases.append(Case("iso_c", adapters, own, expected))
    return cases


ORACLES = {
    "tsv_merge": Oracle(1e-5, tsv_merge),
    "iso_c": Oracle(1e-5, iso_c),
}
