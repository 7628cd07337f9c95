"""One damped Gauss–Newton step in the dual of the samples, within a trust region on what it is predicted to change.

With rows X of gradients and residuals r, the step is s = Xᵀ(XXᵀ + ρI)⁻¹r: the Levenberg–Marquardt step
(XᵀX + ρI)⁻¹Xᵀr by the push-through identity, for n samples instead of d numbers. Source: CONTESTS §4.2; Nocedal &
Wright, Numerical Optimization, §10.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HALVINGS = 100
"""Of the interval of log ρ: as fine as float64"""


@dataclass(frozen=True)
class LeastSquares:
    """n linearised samples, float64."""

    gram: torch.Tensor
    """XXᵀ, (n, n)"""
    residual: torch.Tensor
    """What is still missing of each sample's target, (n,)"""

    def step(self, rho: float, radius: float) -> torch.Tensor:
        """c (n,) of the step s = Xᵀc, with the least damping whose predicted changes Xs keep to `radius`.

        Damping is at least `rho` times the mean eigenvalue of XXᵀ. `radius` is the largest root mean square of Xs over
        the samples, in the unit of the residual.
        """
        import torch

        n = len(self.residual)
        values, vectors = torch.linalg.eigh(self.gram)
        values = values.clamp(min=0.0)
        along = vectors.T @ self.residual
        least = rho * float(values.mean()) if n else 0.0
        if not least:
            return torch.zeros_like(self.residual)

        def predicted(damping: float) -> float:
            return float((values / (values + damping) * along).norm()) / n**0.5

        low, high = least, max(least, float((values * along).norm()) / (radius * n**0.5))
        if predicted(low) > radius:
            for _ in range(HALVINGS):
                middle = (low * high) ** 0.5
                low, high = (middle, high) if predicted(middle) > radius else (low, middle)
            low = high
        return vectors @ (along / (values + low))
