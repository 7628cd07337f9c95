"""The smallest correction of a patch that moves three mean losses as it should, to first order and by their signs.

A quadratic form is blind to signs: F_b forbids to move a sample either way. Here δ = v + PA(AᵀPA)⁻¹(t − Aᵀv) is the
solution of min (δ − v)ᵀP⁻¹(δ − v) subject to Aᵀδ = t, with P⁻¹ = I + τF_b/λ_max(F_b), so that what has to be corrected
is taken where it costs little benign curvature. Source: CONTESTS §4.1; equality-constrained quadratic programming by
the Schur complement (Nocedal & Wright, Numerical Optimization, §16.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

INDEPENDENT = 1e-10
"""Share of the largest eigenvalue of AᵀPA, its columns normed, below which constraints say the same or nothing"""


@dataclass(frozen=True)
class Signs:
    """What is asked of a patch beside what chose it."""

    kappa: float
    """Share of what φ does to the log-odds of refusing near misses that is kept; below 0 they fall"""
    tau: float
    """How strongly the correction avoids benign curvature"""


class Correction(NamedTuple):
    """What is added: PA(AᵀPA)⁻¹ times what is missing, as A y + G_bᵀ z."""

    y: torch.Tensor
    """(3,)"""
    z: torch.Tensor
    """(n_b,)"""


@dataclass(frozen=True)
class Constraints:
    """Products of A = [ḡ_h, ḡ_r − ḡ_m, ḡ_b] with everything that matters, all float64.

    ḡ_h is the mean gradient of refusing harmful prompts, ḡ_r of refusing near misses, ḡ_m of helping with them, ḡ_b of
    the utility samples; descending along one makes its response likelier.
    """

    aa: torch.Tensor
    """AᵀA, (3, 3)"""
    ba: torch.Tensor
    """G_b A, (n_b, 3)"""
    bb: torch.Tensor
    """G_b G_bᵀ, (n_b, n_b)"""

    @staticmethod
    def target(a_v: torch.Tensor, a_phi: torch.Tensor, kappa: float) -> torch.Tensor:
        """t = (ḡ_hᵀv, κ(ḡ_r − ḡ_m)ᵀφ, 0) of Aᵀv and Aᵀφ: refusing as v, near misses as told, utility as it was."""
        return a_v.new_tensor([float(a_v[0]), kappa * float(a_phi[1]), 0.0])

    def correction(self, missing: torch.Tensor, tau: float) -> Correction:
        """The smallest step with Aᵀ(A y + G_bᵀ z) = `missing` (3,), in the dual of the benign samples.

        Constraints that say nothing are left out; those that contradict each other are met as well as they can be.
        """
        import torch

        inner = self._without_curvature(tau)
        metric = self.aa - self.ba.T @ inner  # AᵀPA
        size = metric.diagonal().clamp(min=0.0).sqrt()
        scale = torch.where(size > 0, 1.0 / size, torch.zeros_like(size))
        normed = (metric + metric.T) / 2 * scale[:, None] * scale
        y = scale * (torch.linalg.pinv(normed, rtol=INDEPENDENT, hermitian=True) @ (scale * missing))
        return Correction(y, -inner @ y)

    def _without_curvature(self, tau: float) -> torch.Tensor:
        """(λ_max/τ I + K_bb)⁻¹ G_b A, which with a G_bᵀ before it is A − PA (Woodbury)."""
        import torch

        largest = float(torch.linalg.eigvalsh(self.bb)[-1]) if len(self.bb) else 0.0
        if tau == 0.0 or largest <= 0.0:
            return torch.zeros_like(self.ba)
        return torch.linalg.solve(self.bb + largest / tau * torch.eye(len(self.bb)).to(self.bb), self.ba)
