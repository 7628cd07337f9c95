"""Adapters in, merged adapter out: the one way in to every method.

`merge` is pure: factors, method, parameters (and gradients where the method needs them) → `Merged`. It decides per
kind of method how the arithmetic is done; the methods themselves are in `sstmerge_core.methods`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core import methods
from sstmerge_core.errors import Problem, RecipeError

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors
    from sstmerge_core.fisher import Gradients
    from sstmerge_core.gevp import DualPatch, DualProblem
    from sstmerge_core.space import CoreSpace

Rows = list[dict[str, Any]]
Pair = tuple["torch.Tensor", "torch.Tensor"]
"""LoRA factors A (r, in) and B (out, r)"""


@dataclass(frozen=True)
class MergedModule:
    """ΔW of one module, computed when asked for, so that one dense module is in memory at a time."""

    delta: Callable[[], torch.Tensor]
    """The exact merged ΔW, (out, in) float32"""
    factors: Callable[[], Pair] | None
    """A (r, in) and B (out, r) with ΔW = BA; None for element-wise methods, whose result is not low-rank"""

    def compressed(self, rank: int) -> tuple[Pair, float | None, float]:
        """Factors of exactly `rank`; where they are an approximation also ‖ΔW − BA‖ and ‖ΔW‖, else None and 0."""
        if self.factors is not None:
            return _pad(*self.factors(), rank), None, 0.0
        delta = self.delta()
        a, b = truncate(delta, rank)
        return (a, b), float((delta - b @ a).norm()), float(delta.norm())


@dataclass(frozen=True)
class Merged:
    """The result of a merge, not yet computed module by module where that is costly."""

    modules: dict[str, MergedModule]
    rank: int
    """Rank of the adapter on disk"""
    spectra: dict[str, list[float]] = field(default_factory=dict)
    """Generalized eigenvalues by module; the pooled problem under the empty name"""
    statistics: Rows = field(default_factory=list)
    """Rows (module, stat, value) as stored in ``module_stats``"""

    def factors(self) -> tuple[dict[str, Pair], Rows]:
        """A and B of every module for the adapter on disk, all of one rank.

        For element-wise methods they are the best approximation of that rank: the second value then holds its
        relative Frobenius error ``rank_error`` per module and pooled (empty module name).
        """
        found: dict[str, Pair] = {}
        errors: Rows = []
        squared_error = squared_norm = 0.0
        for name, module in self.modules.items():
            found[name], error, norm = module.compressed(self.rank)
            if error is not None:
                errors.append({"module": name, "stat": "rank_error", "value": error / norm if norm else 0.0})
                squared_error, squared_norm = squared_error + error**2, squared_norm + norm**2
        if squared_norm:
            errors.append({"module": "", "stat": "rank_error", "value": (squared_error / squared_norm) ** 0.5})
        return found, errors


@dataclass(frozen=True)
class Calibrated:
    """What a patch method needs beyond the adapters."""

    space: CoreSpace
    harm: Gradients
    benign: Gradients


def merge(
    adapters: Sequence[Mapping[str, Factors]],
    method: str,
    parameters: Mapping[str, Any],
    *,
    identities: Sequence[str] = (),
    calibrated: Calibrated | None = None,
) -> Merged:
    """Merge `adapters` (utility first, safety second) by `method`.

    `identities` name the adapters for the random masks (their SHA-256), so that a mask does not depend on the order.
    `calibrated` is required by the methods with ``needs_fisher``. All arithmetic is float32, the eigenvalue problem
    float64. Raises RecipeError for unknown methods and parameters, and for a number of adapters the method cannot take.
    """
    entry = methods.get(method)
    complete = entry.complete(parameters)
    expected = {"base": 0, "adapter": 1}.get(method, 2)
    if len(adapters) != expected:
        fault = f"{method} takes {expected} adapters, {len(adapters)} were given"
        raise RecipeError(Problem("adapters", fault, "Give the utility adapter first, then the safety adapter."))
    if entry.kind in ("combination", "reference"):
        return _combination(adapters, entry.function(**complete))
    if entry.kind == "elementwise":
        names = identities or [str(index) for index in range(len(adapters))]
        return _elementwise(adapters, entry.function, complete, names)
    if calibrated is None:
        raise RecipeError(Problem(f"method {method}", "needs gradients of harmful and benign samples", ""))
    return _patch(entry.function, complete, calibrated)


def effective_weights(method: str, parameters: Mapping[str, Any]) -> dict[str, float] | str:
    """What multiplies ΔU and ΔS, as numbers where the method is a weighted sum, otherwise in words. No torch."""
    entry = methods.get(method)
    complete = entry.complete(parameters)
    if entry.kind == "combination":
        return dict(zip(("ΔU", "ΔS"), entry.function(**complete), strict=True))
    if entry.kind == "reference":
        return {"ΔW": 1.0} if method == "adapter" else {}
    alpha = complete["alpha"]
    if entry.kind == "elementwise":
        return f"{1 - alpha:g} of what is kept of ΔU and {alpha:g} of what is kept of ΔS"
    target = "ΔS" if complete["mode"] == "additive" else "ΔS − ΔU"
    return f"all of ΔU plus {alpha:g} times the selected part δ of {target}"


def _combination(adapters: Sequence[Mapping[str, Factors]], weights: Sequence[float]) -> Merged:
    """Weighted sum: the scaled factors side by side, exact and without a decomposition."""
    ranks = [max((factor.a.shape[0] for factor in adapter.values()), default=0) for adapter in adapters]
    names = sorted(set().union(*adapters))
    modules = {}
    for name in names:
        parts = [(adapter.get(name), weight) for adapter, weight in zip(adapters, weights, strict=True)]
        factors = _concatenate(parts)
        modules[name] = MergedModule(_product(factors), factors)
    return Merged(modules, sum(ranks))


def _concatenate(parts: Sequence[tuple[Factors | None, float]]) -> Callable[[], Pair]:
    def factors() -> Pair:
        import torch

        present = [(factor, weight) for factor, weight in parts if factor is not None]
        a = torch.cat([factor.a for factor, _ in present], dim=0)
        b = torch.cat([weight * factor.scaling * factor.b for factor, weight in present], dim=1)
        return a, b

    return factors


def _product(factors: Callable[[], Pair]) -> Callable[[], torch.Tensor]:
    def delta() -> torch.Tensor:
        a, b = factors()
        return b @ a

    return delta


def _pad(a: torch.Tensor, b: torch.Tensor, rank: int) -> Pair:
    """Zero rows and columns up to `rank`: one rank for every module keeps the adapter's configuration simple."""
    import torch

    missing = rank - a.shape[0]
    if missing <= 0:
        return a, b
    return torch.cat([a, a.new_zeros(missing, a.shape[1])]), torch.cat([b, b.new_zeros(b.shape[0], missing)], dim=1)


def _elementwise(
    adapters: Sequence[Mapping[str, Factors]],
    function: Callable[..., torch.Tensor],
    parameters: Mapping[str, Any],
    identities: Sequence[str],
) -> Merged:
    """One module's dense ΔW at a time; the adapter on disk is the best approximation of rank Σ r_i."""
    rank = sum(max(factor.a.shape[0] for factor in adapter.values()) for adapter in adapters)

    def dense(name: str) -> torch.Tensor:
        present = [adapter.get(name) for adapter in adapters]
        shape = next((factor.b.shape[0], factor.a.shape[1]) for factor in present if factor is not None)
        deltas = [_dense(factor, shape) for factor in present]
        generators = [_generator(parameters.get("seed", 0), name, identity) for identity in identities]
        return function(deltas, generators, **parameters)

    modules = {}
    for name in sorted(set().union(*adapters)):
        modules[name] = MergedModule(partial(dense, name), None)
    return Merged(modules, rank)


def _dense(factors: Factors | None, shape: tuple[int, int]) -> torch.Tensor:
    import torch

    return torch.zeros(shape) if factors is None else factors.scaling * (factors.b @ factors.a)


def _generator(seed: int, module: str, adapter: str) -> torch.Generator:
    """One random stream per (seed, module, adapter), so that the order of neither matters."""
    import torch

    digest = hashlib.sha256(f"{seed}/{module}/{adapter}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def truncate(matrix: torch.Tensor, rank: int) -> Pair:
    """Best approximation of rank at most `rank` (Eckart–Young), from the eigenvectors of the smaller Gram matrix."""
    import scipy.linalg
    import torch

    wide = matrix.shape[0] <= matrix.shape[1]
    side = (matrix if wide else matrix.T).double()
    size = side.shape[0]
    keep = min(rank, size)
    gram = (side @ side.T).cpu().numpy()
    vectors = scipy.linalg.eigh(gram, subset_by_index=(size - keep, size - 1), check_finite=False)[1]
    basis = torch.from_numpy(vectors).to(side).flip(1)
    projected = basis.T @ side
    scale = projected.norm(dim=1).clamp(min=1e-30).sqrt()
    left, right = (basis * scale).float(), (projected / scale[:, None]).float()
    return _pad(*((right, left) if wide else (left.T, right.T)), rank)


def _patch(function: Callable[..., DualPatch], parameters: Mapping[str, Any], calibrated: Calibrated) -> Merged:
    """ΔU + α·δ with δ chosen in the dual, for all modules together or one by one."""
    import torch

    from sstmerge_core.fisher import dual_problem
    from sstmerge_core.gevp import benign_cost

    space, harm, benign = calibrated.space, calibrated.harm, calibrated.benign
    alpha, rho = parameters["alpha"], parameters.get("rho", 0.1)
    interpolate = parameters["mode"] == "interpolate"
    phi = {name: m.cores[1] - m.cores[0] if interpolate else m.cores[1] for name, m in space.items()}
    groups = [[name] for name in phi] if parameters["layerwise"] else [list(phi)]

    cores: dict[str, torch.Tensor] = {}
    spectra: dict[str, list[float]] = {}
    statistics: Rows = []
    # what δ and φ do to each sample adds up over the groups, whether they were solved together or apart
    h_delta = h_phi = b_delta = torch.zeros(())
    for group in groups:
        problem = dual_problem(harm, benign, phi, rho, group)
        patch = function(problem, **parameters)
        label = group[0] if parameters["layerwise"] else ""
        if "rho" in parameters:
            spectra[label] = problem.spectrum.eigenvalues.tolist()
            statistics.append({"module": label, "stat": "directions_kept", "value": float(patch.kept or 0)})
        on_harm, on_benign = problem.project(patch)
        h_delta, h_phi, b_delta = h_delta + on_harm, h_phi + problem.h_phi, b_delta + on_benign
        for name in group:
            delta, rows = _materialise(problem, patch, calibrated, phi[name], name, alpha)
            cores[name] = space[name].cores[0] + alpha * delta
            statistics += rows
    total = float(h_phi.square().sum())
    pooled = {
        "kept_harm_energy": float(h_delta.square().sum()) / total if total else 0.0,
        "benign_cost": benign_cost(b_delta, benign.tokens.double(), alpha),
    }
    statistics += [{"module": "", "stat": stat, "value": value} for stat, value in pooled.items()]
    rank = max(min(core.shape) for core in cores.values())
    modules = {}
    for name, core in cores.items():
        factors = partial(_core_factors, space, name, core)
        modules[name] = MergedModule(partial(space[name].delta, core), factors)
    return Merged(modules, rank, spectra, statistics)


def _materialise(
    problem: DualProblem, patch: DualPatch, calibrated: Calibrated, phi: torch.Tensor, name: str, alpha: float
) -> tuple[torch.Tensor, Rows]:
    """δ of one module, and how much of the module's harm energy it keeps at which predicted benign cost."""
    from sstmerge_core.fisher import primal, scaled_rows
    from sstmerge_core.gevp import benign_cost

    harm, benign = calibrated.harm, calibrated.benign
    delta = primal(patch, harm, benign, phi, name)
    h_rows = scaled_rows(harm, name)
    total = float((h_rows @ phi.reshape(-1)).square().sum())
    kept = float((h_rows @ delta.reshape(-1)).square().sum())
    cost = benign_cost((scaled_rows(benign, name) @ delta.reshape(-1)).double(), benign.tokens.double(), alpha)
    values = {"kept_harm_energy": kept / total if total else 0.0, "benign_cost": cost}
    values["norm_patch"] = float(delta.norm())
    return delta, [{"module": name, "stat": stat, "value": value} for stat, value in values.items()]


def _core_factors(space: CoreSpace, name: str, core: torch.Tensor) -> Pair:
    """B = Q_out U √Σ, A = √Σ Vᵀ Q_inᵀ from the SVD of the core matrix (ALGORITHMS §7)."""
    import torch

    u, s, vt = torch.linalg.svd(core.double(), full_matrices=False)
    root = s.sqrt()
    b = space[name].q_out @ (u * root).float()
    a = (root[:, None] * vt).float() @ space[name].q_in.T
    return a, b


def deltas(merged: Merged) -> Mapping[str, Callable[[], torch.Tensor]]:
    """Exact ΔW by module, as `ResidentModel.set_delta` takes them."""
    return {name: module.delta for name, module in merged.modules.items()}
