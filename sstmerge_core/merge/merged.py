"""The result of a merge: ΔW by module, computed when asked for, and its low-rank factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors
    from sstmerge_core.fisher import Gradients
    from sstmerge_core.space import CoreSpace

Rows = list[dict[str, Any]]
"""(module, stat, value) as stored in ``module_stats``; the whole merge under the empty module name"""
Pair = tuple["torch.Tensor", "torch.Tensor"]
"""LoRA factors A (r, in) and B (out, r)"""


@dataclass(frozen=True)
class Calibrated:
    """What methods that look at data need beyond the adapters."""

    space: CoreSpace
    harm: Gradients
    benign: Gradients
    experts: tuple[Gradients, ...] = ()
    """Of each utility expert its own samples' gradients at its own weights; empty where `benign` is that of all"""
    contrast: dict[str, torch.Tensor] | None = None
    """ḡ_r − ḡ_m by module, (p, q): mean gradient of refusing near misses without that of helping with them"""


@dataclass(frozen=True)
class MergedModule:
    """ΔW of one module, computed when asked for, so that one dense module is in memory at a time."""

    delta: Callable[[], torch.Tensor]
    """The exact merged ΔW, (out, in) float32"""
    factors: Callable[[], Pair] | None
    """A (r, in) and B (out, r) with ΔW = BA; None for methods whose result is not low-rank"""

    @classmethod
    def product(cls, factors: Callable[[], Pair]) -> MergedModule:
        """The module whose ΔW is the product of `factors`."""

        def delta() -> torch.Tensor:
            a, b = factors()
            return b @ a

        return cls(delta, factors)

    def compressed(self, rank: int) -> tuple[Pair, float | None, float]:
        """Factors of exactly `rank`; where they are an approximation also ‖ΔW − BA‖ and ‖ΔW‖, else None and 0."""
        if self.factors is None:
            import torch

            delta = self.delta()
            a, b = truncate(delta, rank)
            # ΔW − BA in one go: its memory is touched once, which is most of what it takes
            return (a, b), float(torch.addmm(delta, b, a, alpha=-1).norm()), float(delta.norm())
        a, b = self.factors()
        if a.shape[0] <= rank:
            return pad(a, b, rank), None, 0.0
        return truncate_product(a, b, rank)


@dataclass(frozen=True)
class Merged:
    """The result of a merge, not yet computed module by module where that is costly."""

    modules: dict[str, MergedModule]
    rank: int
    """Rank of the adapter on disk unless another is asked for"""
    spectra: dict[str, list[float]] = field(default_factory=dict)
    """Generalized eigenvalues by module; the pooled problem under the empty name"""
    statistics: Rows = field(default_factory=list)

    def factors(self, rank: int | None = None) -> tuple[dict[str, Pair], Rows]:
        """A and B of every module for the adapter on disk, all of one rank (`rank`, or the merge's own).

        Where they are the best approximation of that rank the second value holds its relative Frobenius error
        ``rank_error`` per module and pooled.
        """
        found: dict[str, Pair] = {}
        errors: Rows = []
        squared_error = squared_norm = 0.0
        for name, module in self.modules.items():
            found[name], error, norm = module.compressed(rank or self.rank)
            if error is not None:
                errors.append({"module": name, "stat": "rank_error", "value": error / norm if norm else 0.0})
                squared_error, squared_norm = squared_error + error**2, squared_norm + norm**2
        if squared_norm:
            errors.append({"module": "", "stat": "rank_error", "value": (squared_error / squared_norm) ** 0.5})
        return found, errors

    def statistic(self, name: str) -> float | None:
        """A pooled statistic, None where the method has none of this name."""
        return next((row["value"] for row in self.statistics if (row["module"], row["stat"]) == ("", name)), None)


def ranks(adapter: dict[str, Factors] | Any) -> int:
    """The largest rank among an adapter's modules."""
    return max((factor.a.shape[0] for factor in adapter.values()), default=0)


def pad(a: torch.Tensor, b: torch.Tensor, rank: int) -> Pair:
    """Zero rows and columns up to `rank`: one rank for every module keeps the adapter's configuration simple."""
    import torch

    missing = rank - a.shape[0]
    if missing <= 0:
        return a, b
    return torch.cat([a, a.new_zeros(missing, a.shape[1])]), torch.cat([b, b.new_zeros(b.shape[0], missing)], dim=1)


def balanced(left: torch.Tensor, core: torch.Tensor, right: torch.Tensor) -> tuple[Pair, torch.Tensor]:
    """B = left·U√Σ, A = √ΣVᵀ·rightᵀ from the SVD of `core` (ALGORITHMS §7), and Σ; left and right orthonormal."""
    import torch

    u, s, vt = torch.linalg.svd(core.double(), full_matrices=False)
    root = s.sqrt()
    return ((root[:, None] * vt).to(right) @ right.T, left @ (u * root).to(left)), s


def truncate_product(a: torch.Tensor, b: torch.Tensor, rank: int) -> tuple[Pair, float, float]:
    """Best approximation of BA of a smaller rank, its error ‖BA − B'A'‖ and ‖BA‖, without forming BA."""
    import torch

    left, upper = torch.linalg.qr(b)
    right, lower = torch.linalg.qr(a.T)
    (wide, tall), s = balanced(left, upper @ lower.T, right)
    return (wide[:rank].contiguous(), tall[:, :rank].contiguous()), float(s[rank:].norm()), float(s.norm())


LARGE = 1024
"""Smaller side of a matrix from which on its leading directions are found by random projections"""
CLOSE = 1e-4
"""Share of the squared error by which one more iteration has to lower it for the search to go on"""
MOST_ITERATIONS = 12
ROWS = 64
"""Of a matrix, whose squares are summed at once"""


def truncate(matrix: torch.Tensor, rank: int) -> Pair:
    """Best approximation of rank at most `rank` (Eckart–Young), from the eigenvectors of the smaller Gram matrix.

    Of large matrices of which few directions are wanted the best one up to an error that is at most 0.1 % larger
    (tested), in a quarter of the time at 1,024 × 2,048 (measured) and less beyond; see `_leading_directions`. What the
    error is, is measured by who asks.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    side = matrix if wide else matrix.T
    if len(side) >= LARGE and 4 * rank <= len(side):
        basis = _leading_directions(side, rank)
        projected = basis.T @ side
    else:
        side = side.double()
        basis = _leading_eigenvectors(side @ side.T, min(rank, side.shape[0]))
        projected = basis.T @ side
    scale = projected.norm(dim=1).clamp(min=1e-30).sqrt()
    left, right = (basis * scale).float(), (projected / scale[:, None]).float()
    return pad(*((right, left) if wide else (left.T, right.T)), rank)


def _leading_directions(matrix: torch.Tensor, count: int) -> torch.Tensor:
    """(m, count) orthonormal columns that span nearly what the leading left singular vectors of `matrix` (m, n) do.

    Randomised subspace iteration with a Rayleigh–Ritz step: Halko, Martinsson, Tropp 2011 (arXiv 0909.4061), algorithms
    4.4 and 5.1. Flat spectra, such as a sparse mask's noise, converge slowly in direction and fast in error, which is
    what is asked for: it goes on until an iteration no longer lowers it. The same matrix gives the same bits.
    """
    import torch

    matrix = matrix.float()
    generator = torch.Generator().manual_seed(0)  # drawn on the CPU: the same on any device
    width = min(len(matrix), count + max(16, count // 2))
    sketch = matrix @ torch.randn(matrix.shape[1], width, generator=generator).to(matrix)
    # in float64, but not of the whole matrix at once: that would take longer than an iteration
    whole = sum(float(rows.double().square().sum()) for rows in matrix.split(ROWS))
    before = float("inf")
    for _ in range(MOST_ITERATIONS):
        basis = torch.linalg.qr(sketch)[0]
        rows = basis.T @ matrix
        values, vectors = torch.linalg.eigh(rows.double() @ rows.double().T)
        left = whole - float(values[-count:].sum())
        if before - left <= CLOSE * max(left, 1e-12 * whole):
            break
        before = left
        sketch = matrix @ torch.linalg.qr(rows.T)[0]
    return basis @ vectors[:, -count:].flip(1).to(basis)


def _leading_eigenvectors(gram: torch.Tensor, count: int) -> torch.Tensor:
    """(m, count) eigenvectors of the largest eigenvalues of `gram` (m, m), largest first."""
    import torch

    if gram.is_cuda:
        return torch.linalg.eigh(gram)[1][:, -count:].flip(1)
    import scipy.linalg  # only the wanted ones, which torch cannot

    size = len(gram)
    vectors = scipy.linalg.eigh(gram.numpy(), subset_by_index=(size - count, size - 1), check_finite=False)[1]
    return torch.from_numpy(vectors).to(gram).flip(1)
