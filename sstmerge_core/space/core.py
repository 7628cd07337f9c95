"""Core coordinates of a set of adapters: exact, gauge-free, and small.

For each module ``Q_out = orth([B_1 … B_N])`` and ``Q_in = orth([A_1ᵀ … A_Nᵀ])``; then ``ΔW_i = Q_out M_i Q_inᵀ``
exactly for every adapter and every linear combination, with M_i of at most (Σ r_i, Σ r_i). Source: ALGORITHMS §2;
the same change of basis as in KnOTS (arXiv 2410.19735) and core-space merging (arXiv 2509.17786).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sstmerge_core.adapters import Factors


@dataclass(frozen=True)
class CoreModule:
    """One module in core coordinates."""

    q_out: torch.Tensor
    """(out, p), orthonormal columns"""
    q_in: torch.Tensor
    """(in, q), orthonormal columns"""
    cores: tuple[torch.Tensor, ...]
    """M_i of each adapter, (p, q); zero where the adapter leaves the module alone, p = q = 0 where all of them do"""

    def delta(self, core: torch.Tensor) -> torch.Tensor:
        """ΔW (out, in) of a core matrix (p, q)."""
        return self.q_out @ core @ self.q_in.T


@dataclass(frozen=True)
class View:
    """What methods on core coordinates see: one module as matrices (p, q), or several as one flat vector (d,)."""

    adapters: tuple[torch.Tensor, ...]
    """Utility experts first, safety last"""
    utility: torch.Tensor
    """ΔU: the utility experts' mean or sum"""
    harm: torch.Tensor | None = None
    """Diagonal of F_h, of the same shape"""
    benign: torch.Tensor | None = None
    """Diagonal of F_b, of the same shape"""
    fishers: tuple[torch.Tensor, ...] = ()
    """Diagonal Fisher of each adapter, on its own samples: F_b of the utility experts, each its own where they were
    taken apart, and F_h of the safety adapter"""
    aligned: torch.Tensor | None = None
    """The part of ΔU along a safe direction, of the same shape"""
    seen: torch.Tensor | None = None
    """E[xxᵀ] of what harmful samples put into this module, (q, q) float64 in the same coordinates"""

    @property
    def safety(self) -> torch.Tensor:
        return self.adapters[-1]


CoreSpace = dict[str, CoreModule]
"""By module name, in sorted order: the one order in which φ is vectorised."""


def core_space(adapters: Sequence[Mapping[str, Factors]]) -> CoreSpace:
    """Core coordinates of `adapters` over the union of their modules, in float32."""
    names = sorted(set().union(*adapters))
    return {name: _core_module([adapter.get(name) for adapter in adapters]) for name in names}


def _core_module(factors: Sequence[Factors | None]) -> CoreModule:
    import torch

    present = [_without_padding(factor) for factor in factors if factor is not None]
    q_out = torch.linalg.qr(torch.cat([factor.b for factor in present], dim=1))[0]
    q_in = torch.linalg.qr(torch.cat([factor.a.T for factor in present], dim=1))[0]
    empty = q_out.new_zeros(q_out.shape[1], q_in.shape[1])
    cores = tuple(
        empty if factor is None else factor.scaling * (q_out.T @ factor.b) @ (factor.a @ q_in) for factor in factors
    )
    return CoreModule(q_out, q_in, cores)


def _without_padding(factor: Factors) -> Factors:
    """Without the ranks that add nothing, such as the zeros up to a common rank of an adapter that is itself a merge.

    Otherwise the basis would gain arbitrary directions, and whatever measures curvature in it would depend on them.
    """
    used = (factor.a != 0).any(dim=1) & (factor.b != 0).any(dim=0)
    return factor if bool(used.all()) else replace(factor, a=factor.a[used], b=factor.b[:, used])


def canonical(module: CoreModule) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthogonal R_o (p, p) and R_i (q, q) that turn `module` into its canonical basis (ALGORITHMS §2).

    Q_o R_o is the left singular basis of [ΔW_1 … ΔW_N] and Q_i R_i the right singular basis of them stacked, so that
    element-wise methods on R_oᵀ M R_i do not depend on how the adapters were factorised. The sign of each direction
    is left open: no such method may depend on it.
    """
    import torch

    cores = [core.double() for core in module.cores]
    left = torch.linalg.svd(torch.cat(cores, dim=1))[0]
    right = torch.linalg.svd(torch.cat(cores, dim=0))[2].T
    return left.to(module.q_out.dtype), right.to(module.q_in.dtype)


def inner_products(factors: Sequence[Factors | None]) -> torch.Tensor:
    """⟨ΔW_i, ΔW_j⟩ of one module, (N, N) float64, from the factors alone; zero where an adapter leaves it alone."""
    import torch

    n = len(factors)
    found = torch.zeros(n, n, dtype=torch.float64)
    for i, first in enumerate(factors):
        for j, second in enumerate(factors[: i + 1]):
            if first is None or second is None:
                continue
            rows, columns = first.b.double().T @ second.b.double(), first.a.double() @ second.a.double().T
            found[i, j] = found[j, i] = first.scaling * second.scaling * float((rows * columns).sum())
    return found


def similarity(space: CoreSpace) -> list[dict[str, float | str]]:
    """Per module, for the first two adapters: norms, cosine of the ΔW, and overlap of their column and row spaces.

    Overlap is ‖P_U P_S‖_F² / min(rank), between 0 (orthogonal) and 1 (one contains the other).
    Rows are (module, stat, value) as stored in ``module_stats``.
    """
    rows: list[dict[str, float | str]] = []
    for name, module in space.items():
        utility, safety = module.cores[:2]
        norm_utility, norm_safety = float(utility.norm()), float(safety.norm())
        product = norm_utility * norm_safety
        values = {
            "norm_utility": norm_utility,
            "norm_safety": norm_safety,
            "cosine": float((utility * safety).sum()) / product if product else 0.0,
            "overlap_out": _overlap(utility, safety),
            "overlap_in": _overlap(utility.T, safety.T),
        }
        rows += [{"module": name, "stat": stat, "value": value} for stat, value in values.items()]
    return rows


def _overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    import torch

    bases = []
    for matrix in (first, second):
        u, s, _ = torch.linalg.svd(matrix)
        rank = int((s > 1e-5 * s[:1].clamp(min=1e-30)).sum())
        bases.append(u[:, :rank])
    smaller = min(basis.shape[1] for basis in bases)
    return float((bases[0].T @ bases[1]).square().sum()) / smaller if smaller else 0.0
