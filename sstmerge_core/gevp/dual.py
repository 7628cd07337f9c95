"""The generalized eigenvalue problem F_h v = λ (F_b + γI) v, solved in the dual of the samples.

With rows ``G = g_i/√n`` of per-sample gradients, ``F = GᵀG`` is d × d with d up to 10⁵–10⁶, but its rank is at most the
number of samples n. Everything below needs only n × n Gram matrices, in float64. Source: ALGORITHMS §4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sstmerge_core.gevp.signed import Signs

if TYPE_CHECKING:
    import torch

RANK_TOLERANCE = 1e-8
"""Eigenvalues below this share of the largest are numerical noise."""


@dataclass(frozen=True)
class Spectrum:
    """Generalized eigenvalues in falling order, and the dual vectors."""

    eigenvalues: torch.Tensor
    """(m,) harm energy per unit of (benign curvature + γ)"""
    dual_vectors: torch.Tensor
    """(n_h, m) orthonormal columns u; the direction in parameter space is v = B⁻¹ G_hᵀ u / √λ"""

    @property
    def rank(self) -> int:
        return len(self.eigenvalues)


@dataclass(frozen=True)
class DualPatch:
    """δ = phi·φ + G_hᵀ harm + G_bᵀ benign, as coefficients; α·δ is added to ΔU, and G_hᵀ fixed once whatever α is."""

    phi: float
    harm: torch.Tensor
    """(n_h,)"""
    benign: torch.Tensor
    """(n_b,)"""
    kept: int | None = None
    """How many eigen-directions were kept, where the method counts them."""
    fixed: torch.Tensor | None = None
    """(n_h,); None where ΔU itself stays as it is"""
    budget: float | None = None
    """Nats per benign token that α may cost; None where the user gives α"""
    signs: Signs | None = None
    """What δ is corrected to do to mean losses, over all modules together; None: it stays as it is"""


@dataclass(frozen=True)
class DualProblem:
    """Gram matrices of the gradients and the projections of the safety update φ on them, all float64."""

    hh: torch.Tensor
    """G_h G_hᵀ, (n_h, n_h)"""
    hb: torch.Tensor
    """G_h G_bᵀ, (n_h, n_b)"""
    bb: torch.Tensor
    """G_b G_bᵀ, (n_b, n_b)"""
    h_phi: torch.Tensor
    """G_h φ, (n_h,)"""
    b_phi: torch.Tensor
    """G_b φ, (n_b,)"""
    rho: float = 0.1
    """Ridge relative to the mean eigenvalue of F_b: γ = ρ·tr(F_b)/q, q the rank of all gradients together."""
    h_utility: torch.Tensor | None = None
    """G_h φ_U, (n_h,), for methods that change ΔU itself"""
    dimension: int | None = None
    """d, which no rank exceeds: the eigenvalues beyond it are rounding errors of the Gram matrices' float32 products,
    and can be larger than `RANK_TOLERANCE`"""

    @cached_property
    def gamma(self) -> float:
        import torch

        stacked = torch.cat([torch.cat([self.hh, self.hb], 1), torch.cat([self.hb.T, self.bb], 1)])
        values = torch.linalg.eigvalsh(stacked)
        rank = self._rank(values.flip(0))
        trace = float(self.bb.trace())
        # without any benign curvature the ridge alone defines the metric, and its size cancels in the projector
        return self.rho * trace / rank if trace > 0 else 1.0

    @cached_property
    def _benign_cholesky(self) -> torch.Tensor:
        import torch

        return torch.linalg.cholesky(self.bb + self.gamma * torch.eye(len(self.bb)).to(self.bb))

    def _solve_benign(self, right: torch.Tensor) -> torch.Tensor:
        """(γI + K_bb)⁻¹ right."""
        import torch

        matrix = right if right.dim() == 2 else right[:, None]
        return torch.cholesky_solve(matrix, self._benign_cholesky).reshape(right.shape)

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigen-decomposition of γ⁻¹[K_hh − K_hb (γI + K_bb)⁻¹ K_bh]."""
        import torch

        schur = (self.hh - self.hb @ self._solve_benign(self.hb.T)) / self.gamma
        values, vectors = torch.linalg.eigh((schur + schur.T) / 2)
        values, vectors = values.flip(0), vectors.flip(1)
        rank = self._rank(values)
        return Spectrum(values[:rank], vectors[:, :rank])

    def _rank(self, eigenvalues: torch.Tensor) -> int:
        """How many of the falling `eigenvalues` are not numerical noise."""
        above = int((eigenvalues > RANK_TOLERANCE * eigenvalues[:1].clamp(min=0)).sum())
        return above if self.dimension is None else min(above, self.dimension)

    def zeros(self, size: int) -> torch.Tensor:
        return self.hh.new_zeros(size)

    def from_filter(self, filters: torch.Tensor, kept: int | None = None) -> DualPatch:
        """δ = B⁻¹ G_hᵀ U diag(filters) Uᵀ G_h φ; filters 1/λ project onto the span of the directions."""
        u = self.spectrum.dual_vectors
        weights = u @ (filters * (u.T @ self.h_phi))
        return DualPatch(0.0, weights / self.gamma, -self._solve_benign(self.hb.T @ weights) / self.gamma, kept)

    def shield(self, tau: float) -> DualPatch:
        """δ = (I + τ F_b/λ_max(F_b))⁻¹ φ, by Woodbury."""
        import torch

        harm, benign = self.h_phi.new_zeros(len(self.h_phi)), self.b_phi.new_zeros(len(self.b_phi))
        largest = float(torch.linalg.eigvalsh(self.bb)[-1]) if len(self.bb) else 0.0
        if tau == 0.0 or largest <= 0.0:
            return DualPatch(1.0, harm, benign)
        ridge = largest / tau
        system = self.bb + ridge * torch.eye(len(self.bb)).to(self.bb)
        return DualPatch(1.0, harm, -torch.linalg.solve(system, self.b_phi))

    def remove_from_utility(self, m: int, share: float) -> DualPatch:
        """δ = φ, and once −share·QQᵀφ_U with Q the m leading eigenvectors of F_h (AlignGuard-LoRA)."""
        import torch

        assert self.h_utility is not None
        values, vectors = torch.linalg.eigh(self.hh)
        keep = min(m, self._rank(values.flip(0)))
        leading, energies = vectors[:, len(values) - keep :], values[len(values) - keep :]
        fixed = -share * leading @ ((leading.T @ self.h_utility) / energies)
        return DualPatch(1.0, self.zeros(len(self.h_phi)), self.zeros(len(self.b_phi)), keep, fixed)

    def project(self, patch: DualPatch) -> tuple[torch.Tensor, torch.Tensor]:
        """(G_h δ, G_b δ): what δ does to each harmful and each benign sample, to first order."""
        h = patch.phi * self.h_phi + self.hh @ patch.harm + self.hb @ patch.benign
        b = patch.phi * self.b_phi + self.hb.T @ patch.harm + self.bb @ patch.benign
        return h, b


@dataclass(frozen=True)
class Cost:
    """Predicted rise of the benign loss as a parabola in α, in nats per token: slope·α + curvature·α².

    slope = ḡ_bᵀδ, curvature = ½δᵀF_bδ with the Fisher weighted by answer length. The empirical Fisher stands in for the
    Hessian, so this is a proxy. Source: ALGORITHMS §3 and §5.
    """

    slope: float
    curvature: float

    @classmethod
    def of(cls, b_delta: torch.Tensor, tokens: torch.Tensor, weights: torch.Tensor) -> Cost:
        """From `b_delta` = G_b δ, the response tokens T_i and the weight w_i of each sample; (n_b,) float64 each."""
        total = float(weights.sum()) or 1.0
        slope = float((weights.sqrt() * b_delta).sum()) / total
        return cls(slope, 0.5 * float((tokens.double() * b_delta.square()).sum()) / total)

    def at(self, alpha: float) -> float:
        return alpha * self.slope + alpha**2 * self.curvature


def largest_strength(cost: Cost, budget: float, at_most: float = 4.0) -> float:
    """The largest α up to `at_most` whose cost stays within `budget` nats per token (ALGORITHMS §5).

    The cost is a parabola through 0: where it first falls it may rise again, and the later crossing counts.
    """
    slope, curvature = cost.slope, cost.curvature
    if curvature <= 0.0:
        return at_most if slope * at_most <= budget else budget / slope
    root = (-slope + (slope**2 + 4 * curvature * budget) ** 0.5) / (2 * curvature)
    return min(at_most, root)
