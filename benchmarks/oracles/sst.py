"""The SST family and AlignGuard on dense Fisher matrices of the whole of ΔW, d = Σ out·in: no core, no dual.

F = Σ w g gᵀ (d, d) of the gradients restricted to what the adapters can move; scipy's generalized `eigh`, numpy's
`solve` and `eigh`, scipy's `brentq`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize

from benchmarks.oracles.cases import (
    SMALL,
    Adapters,
    Case,
    Dense,
    Oracle,
    Samples,
    calibrated,
    canonical,
    random_adapters,
    random_samples,
    sides,
    within,
)
from benchmarks.oracles.core import diagonal

WEIGHTS = {"attention": 1.2, "mlp": 0.8}
"""Module weights by the part of the name that decides"""


@dataclass(frozen=True)
class Problem:
    """The dense matrices of one group of modules."""

    f_harm: np.ndarray
    f_benign: np.ndarray
    phi: np.ndarray
    utility: np.ndarray
    rank_harm: int
    rank: int
    """Rank of all gradients together"""

    @classmethod
    def of(cls, harm: np.ndarray, benign: np.ndarray, phi: np.ndarray, utility: np.ndarray) -> Problem:
        """From rows √w g, (n, d)."""
        ranks = (int(np.linalg.matrix_rank(stack)) for stack in (harm, np.concatenate([harm, benign])))
        return cls(harm.T @ harm, benign.T @ benign, phi, utility, *ranks)

    def pencil(self, rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """λ falling, V and B = F_b + γI of F_h v = λBv, without the null space of F_h."""
        metric = self.f_benign + rho * np.trace(self.f_benign) / self.rank * np.eye(len(self.phi))
        values, vectors = scipy.linalg.eigh(self.f_harm, metric)
        return values[::-1][: self.rank_harm], vectors[:, ::-1][:, : self.rank_harm], metric


Delta = Callable[[Problem, dict[str, Any]], np.ndarray]


def gevp(problem: Problem, parameters: dict[str, Any]) -> np.ndarray:
    """V_k V_kᵀ B φ."""
    _, vectors, metric = problem.pencil(parameters["rho"])
    kept = vectors[:, : parameters["k"]]
    return kept @ (kept.T @ (metric @ problem.phi))


def soft(problem: Problem, parameters: dict[str, Any]) -> np.ndarray:
    """V diag(λ/(λ+τ)) VᵀBφ with τ = λ_k."""
    values, vectors, metric = problem.pencil(parameters["rho"])
    tau = values[min(parameters["k"], len(values)) - 1]
    return vectors @ (values / (values + tau) * (vectors.T @ (metric @ problem.phi)))


def shield(problem: Problem, parameters: dict[str, Any]) -> np.ndarray:
    """(I + τF_b/λ_max)⁻¹φ."""
    scaled = parameters["tau"] * problem.f_benign / np.linalg.eigvalsh(problem.f_benign)[-1]
    return np.linalg.solve(np.eye(len(problem.phi)) + scaled, problem.phi)


def unchanged(problem: Problem, parameters: dict[str, Any]) -> np.ndarray:
    return problem.phi


def removed(problem: Problem, parameters: dict[str, Any]) -> np.ndarray:
    """−ηQQᵀΔU with Q the m leading eigenvectors of F_harm."""
    leading = np.linalg.eigh(problem.f_harm)[1][:, ::-1][:, : min(parameters["m"], problem.rank_harm)]
    return -parameters["eta"] * leading @ (leading.T @ problem.utility)


PATCHES: dict[str, Delta] = {"gevp": gevp, "soft": soft, "shield": shield}


def solve(
    adapters: Adapters, harm: Samples, benign: Samples, parameters: dict[str, Any], patch: Delta
) -> tuple[Dense, Dense]:
    """ΔU and the weighted patch of every module, solved for all modules together or for each alone."""
    utility, safety = sides(adapters, parameters.get("experts", "mean"))
    phi = {name: safety[name] - (utility[name] if parameters.get("mode") == "interpolate" else 0) for name in safety}
    g_harm, g_benign = within(adapters, harm), within(adapters, benign)
    delta: Dense = {}
    for group in [[name] for name in phi] if parameters.get("layerwise") else [list(phi)]:
        problem = Problem.of(
            rows(g_harm, harm.weights, group),
            rows(g_benign, benign.weights, group),
            flat(phi, group),
            flat(utility, group),
        )
        delta |= unflat(patch(problem, parameters), phi, group)
    return utility, {name: module_weight(name, parameters) * part for name, part in delta.items()}


def rows(gradients: dict[str, np.ndarray], weights: np.ndarray, group: Sequence[str]) -> np.ndarray:
    """√w g of a group of modules, (n, d)."""
    return np.sqrt(weights)[:, None] * np.concatenate([gradients[name].reshape(len(weights), -1) for name in group], 1)


def flat(matrices: Dense, group: Sequence[str]) -> np.ndarray:
    return np.concatenate([matrices[name].ravel() for name in group])


def unflat(vector: np.ndarray, like: Dense, group: Sequence[str]) -> Dense:
    ends = np.cumsum([like[name].size for name in group])[:-1]
    return {name: part.reshape(like[name].shape) for name, part in zip(group, np.split(vector, ends), strict=True)}


def module_weight(name: str, parameters: dict[str, Any]) -> float:
    return next(
        (parameters.get(kind, 1.0) for kind, word in (("attention", "attn"), ("mlp", "mlp")) if word in name), 1.0
    )


def given(seed: int, count: int) -> tuple[Adapters, Samples, Samples]:
    """Adapters, and more samples of harm and of benign data than a module has core coordinates."""
    return random_adapters(seed, count, shapes=SMALL), random_samples(seed + 100, 12), random_samples(seed + 200, 15)


def patch_cases(method: str, patch: Delta, settings: Sequence[dict[str, Any]]) -> list[Case]:
    """Each setting on two adapters; the last also on three, in both ways of taking several experts together."""
    built = []
    for index, (count, own) in enumerate(
        [*((2, own) for own in settings), *((3, settings[-1] | {"experts": how}) for how in ("mean", "sum"))]
    ):
        adapters, harm, benign = given(31 + index, count)
        parameters = {"alpha": 1.3, "rho": 0.2} | own
        utility, delta = solve(adapters, harm, benign, parameters, patch)
        expected = {name: utility[name] + parameters["alpha"] * part for name, part in delta.items()}
        if method == "sst_shield":
            del parameters["rho"]
        built.append(Case(method, adapters, parameters, expected, calibrated(adapters, harm, benign)))
    return built


def options(first: dict[str, Any], *others: dict[str, Any]) -> list[dict[str, Any]]:
    """`first` alone, in every way that a patch can be made, and `others`."""
    return [
        first,
        first | {"mode": "interpolate", "layerwise": False},
        first | {"mode": "additive", "layerwise": True},
        *others,
        first | WEIGHTS,
    ]


def alignguard() -> list[Case]:
    built = []
    for count, own in (
        (2, {"m": 3}),
        (2, {"m": 1000}),
        (3, {"m": 5, "experts": "mean"}),
        (3, {"m": 5, "experts": "sum"}),
    ):
        adapters, harm, benign = given(51, count)
        parameters = {"alpha": 0.7, "eta": 0.8} | WEIGHTS | own
        utility, fixed = solve(
            adapters, harm, benign, {k: v for k, v in parameters.items() if k not in WEIGHTS}, removed
        )
        _, added = solve(adapters, harm, benign, parameters, unchanged)
        expected = {name: utility[name] + fixed[name] + 0.7 * added[name] for name in utility}
        built.append(Case("alignguard", adapters, parameters, expected, calibrated(adapters, harm, benign)))
    return built


def budget() -> list[Case]:
    """α* where the dense cost of the weighted patch meets the budget; a generous budget ends at α = 4."""
    built = []
    settings: Sequence[tuple[int, dict[str, Any]]] = (
        (2, {"patch": "shield", "tau": 30.0}),
        (2, {"patch": "gevp", "k": 4, "mode": "interpolate"}),
        (2, {"patch": "soft", "k": 2, "mode": "additive", "layerwise": True}),
        (2, {"patch": "shield", "tau": 100.0, "budget": 100.0, "layerwise": False}),
        (3, {"patch": "gevp", "k": 3, "rho": 0.2, "experts": "mean"} | WEIGHTS),
        (3, {"patch": "gevp", "k": 3, "rho": 0.2, "experts": "sum"} | WEIGHTS),
    )
    for index, (count, own) in enumerate(settings):
        adapters, harm, benign = given(61 + index, count)
        parameters: dict[str, Any] = {"rho": 0.1, "budget": 1.0, "unit": "nats"} | own
        utility, delta = solve(adapters, harm, benign, parameters, PATCHES[parameters["patch"]])
        alpha = strength(benign, delta, parameters["budget"])
        expected = {name: utility[name] + alpha * part for name, part in delta.items()}
        built.append(Case("sst_budget", adapters, parameters, expected, calibrated(adapters, harm, benign)))
    return built


def signed() -> list[Case]:
    """v corrected over all modules together: δ = v + PA(AᵀPA)⁻¹(t − Aᵀv) on dense d × d, α times."""
    built = []
    settings: Sequence[tuple[int, dict[str, Any]]] = (
        (2, {"patch": "phi", "kappa": 0.3, "tau": 30.0}),
        (2, {"patch": "phi", "kappa": -0.4, "tau": 0.0, "mode": "interpolate", "layerwise": False}),
        (2, {"patch": "gevp", "k": 4, "kappa": 0.2, "mode": "additive"}),
        (2, {"patch": "gevp", "k": 1, "kappa": 0.0, "layerwise": True} | WEIGHTS),
        (2, {"patch": "soft", "k": 2, "kappa": -0.2}),
        (2, {"patch": "shield", "tau": 3.0, "kappa": 0.4} | WEIGHTS),
        (3, {"patch": "gevp", "k": 3, "kappa": 0.1, "experts": "mean"}),
        (3, {"patch": "gevp", "k": 3, "kappa": 0.1, "experts": "sum"} | WEIGHTS),
    )
    for index, (count, own) in enumerate(settings):
        adapters, harm, benign = given(111 + index, count)
        twins = (random_samples(411 + index, 9), random_samples(511 + index, 9))
        parameters = {"alpha": 1.3, "rho": 0.2, "tau": 50.0} | own
        patches = PATCHES | {"phi": unchanged}
        utility, patch = solve(adapters, harm, benign, parameters, patches[parameters["patch"]])
        delta = corrected(adapters, harm, benign, twins, parameters, patch)
        expected = {name: utility[name] + parameters["alpha"] * part for name, part in delta.items()}
        built.append(Case("sst_signed", adapters, parameters, expected, calibrated(adapters, harm, benign, (), twins)))
    return built


def corrected(
    adapters: Adapters,
    harm: Samples,
    benign: Samples,
    twins: tuple[Samples, Samples],
    parameters: dict[str, Any],
    patch: Dense,
) -> Dense:
    utility, safety = sides(adapters, parameters.get("experts", "mean"))
    names = list(patch)
    phi = flat(safety, names) - (flat(utility, names) if parameters.get("mode") == "interpolate" else 0)
    v = flat(patch, names)
    columns = [
        np.sqrt(samples.weights) @ rows(within(adapters, samples), samples.weights, names)
        for samples in (harm, *twins, benign)
    ]
    a = np.stack([columns[0], columns[1] - columns[2], columns[3]], axis=1)
    weighted = rows(within(adapters, benign), benign.weights, names)
    f_benign = weighted.T @ weighted
    p = np.linalg.inv(np.eye(len(v)) + parameters["tau"] * f_benign / np.linalg.eigvalsh(f_benign)[-1])
    target = np.array([a[:, 0] @ v, parameters["kappa"] * (a[:, 1] @ phi), 0.0])
    delta = v + p @ a @ np.linalg.solve(a.T @ p @ a, target - a.T @ v)
    return unflat(delta, patch, names)


def strength(benign: Samples, delta: Dense, nats: float) -> float:
    """The largest α ≤ 4 with α·Σwgᵀδ + ½α²·ΣwT(gᵀδ)² ≤ ε, both over Σw."""
    slopes = sum(np.tensordot(benign.gradients[name], part, axes=2) for name, part in delta.items())
    total = benign.weights.sum()

    def excess(alpha: float) -> float:
        slope = benign.weights @ slopes / total
        curvature = (benign.weights * benign.tokens) @ slopes**2 / total
        return alpha * slope + 0.5 * alpha**2 * curvature - nats

    return 4.0 if excess(4.0) <= 0 else scipy.optimize.brentq(excess, 0.0, 4.0, xtol=1e-14, rtol=1e-14)


def diag() -> list[Case]:
    return masks("sst_diag", lambda f_harm, f_benign, *_: f_harm / (f_benign + 1e-6 * f_benign.mean()))


def datafree() -> list[Case]:
    def ratio(f_harm: np.ndarray, f_benign: np.ndarray, u: np.ndarray, s: np.ndarray) -> np.ndarray:
        epsilon = 1e-6 * (u**2 + s**2).mean()
        return ((s - u) ** 2 + epsilon) / (u**2 + epsilon)

    return masks("sst_datafree", ratio)


def masks(method: str, ratio: Callable[..., np.ndarray]) -> list[Case]:
    """ΔU + α·m⊙φ in the canonical basis of the dense ΔW, the mask over all modules together or over each alone."""
    built = []
    settings: Sequence[dict[str, Any]] = (
        {"mask": "soft"},
        {"mask": "top", "fraction": 0.4},
        {"mask": "soft", "mode": "interpolate", "layerwise": False},
        {"mask": "top", "fraction": 0.6, "mode": "additive", "layerwise": True},
        {"mask": "soft", "mode": "interpolate", "layerwise": True},
        {"mask": "soft", "experts": "mean"} | WEIGHTS,
        {"mask": "top", "fraction": 0.3, "experts": "sum"} | WEIGHTS,
    )
    for index, own in enumerate(settings):
        adapters, harm, benign = given(71 + index, 3 if "experts" in own else 2)
        parameters = {"alpha": 1.3, "fraction": 0.2} | own
        expected = masked(adapters, harm, benign, parameters, ratio)
        gradients = calibrated(adapters, harm, benign) if method == "sst_diag" else None
        built.append(Case(method, adapters, parameters, expected, gradients))
    return built


def masked(
    adapters: Adapters, harm: Samples, benign: Samples, parameters: dict[str, Any], ratio: Callable[..., np.ndarray]
) -> Dense:
    utility, safety = sides(adapters, parameters.get("experts", "mean"))
    bases = {name: canonical(adapters, name) for name in safety}

    def turned(matrices: Dense, name: str) -> np.ndarray:
        left, right = bases[name]
        return left.T @ matrices[name] @ right

    expected: Dense = {}
    for group in [[name] for name in safety] if parameters.get("layerwise") else [list(safety)]:
        f_harm, f_benign = (
            np.concatenate([diagonal(side, name, *bases[name]).ravel() for name in group]) for side in (harm, benign)
        )
        u, s = (np.concatenate([turned(side, name).ravel() for name in group]) for side in (utility, safety))
        mask = weigh(ratio(f_harm, f_benign, u, s), parameters)
        phi = s - u if parameters.get("mode") == "interpolate" else s
        parts = unflat(mask * phi, {name: turned(utility, name) for name in group}, group)
        for name, part in parts.items():
            left, right = bases[name]
            strength = parameters["alpha"] * module_weight(name, parameters)
            expected[name] = utility[name] + strength * left @ part @ right.T
    return expected


def weigh(ratio: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
    """The mask: 1 for the largest, or log r between its percentiles."""
    if parameters["mask"] == "top":
        count = math.ceil(parameters["fraction"] * len(ratio))
        return (ratio >= np.sort(ratio)[-count]).astype(float)
    logarithm = np.log(ratio)
    low, high = np.percentile(logarithm, (5, 95), method="nearest")
    return np.clip((logarithm - low) / max(high - low, 0.01), 0, 1)


ORACLES = {
    "sst_gevp": Oracle(
        1e-5,
        lambda: patch_cases("sst_gevp", gevp, options({"k": 3}, {"k": 1}, {"k": 1000})),
    ),
    "sst_soft": Oracle(
        1e-5,
        lambda: patch_cases("sst_soft", soft, options({"k": 3}, {"k": 1}, {"k": 1000})),
    ),
    "sst_shield": Oracle(
        1e-5,
        lambda: patch_cases("sst_shield", shield, options({"tau": 30.0}, {"tau": 0.0}, {"tau": 1e4})),
    ),
    "sst_diag": Oracle(1e-4, diag),
    "sst_datafree": Oracle(1e-4, datafree),
    "sst_signed": Oracle(1e-5, signed),
    "sst_budget": Oracle(1e-5, budget),
    "alignguard": Oracle(1e-5, alignguard),
}
