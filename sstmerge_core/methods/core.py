"""Methods on the core matrices of one module: each receives a `View` and returns the merged core matrix (p, q)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from sstmerge_core.methods.combine import share
from sstmerge_core.methods.registry import Real, method
from sstmerge_core.methods.shared import CALIBRATION, SHARE

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import View

Share = Annotated[float, SHARE.schema]
Threshold = Annotated[
    float, Real(-1.0, 1.0, 0.05, "Modules whose ΔU has a cosine below this with its aligned part are changed.")
]


@method(
    "fisher",
    title="Fisher merging",
    kind="core",
    axis="share",
    formula=r"\Delta W=\frac{\sum_i w_iF_i\odot\Delta_i}{\sum_i w_iF_i},\quad w=(1-\alpha,\alpha)",
    paper="Matena & Raffel 2022, Merging models with Fisher-weighted averaging",
    url="https://arxiv.org/abs/2111.09832",
    driver=CALIBRATION,
    needs_fisher=True,
)
def fisher(view: View, *, alpha: Share = 0.5) -> torch.Tensor:
    """Average weighted by each side's diagonal Fisher: benign for utility, harmful for safety, in the core."""
    assert view.harm is not None and view.benign is not None
    weights = share(len(view.adapters), alpha)
    # the largest entry sets the scale: a coordinate that nobody cares for falls back to the plain average
    floor = 1e-6 * max(float(view.harm.max()), float(view.benign.max()), 1e-30)
    sides = [view.benign + floor] * (len(weights) - 1) + [view.harm + floor]
    numerator, denominator = view.safety * 0, view.safety * 0
    for weight, side, adapter in zip(weights, sides, view.adapters, strict=True):
        numerator += weight * side * adapter
        denominator += weight * side
    return numerator / denominator


@method(
    "safe_lora",
    title="Safe LoRA",
    kind="core",
    axis=None,
    formula=r"\Delta W=C\,\Delta U\ \text{where}\ \cos(\Delta U,C\Delta U)<\tau,\quad C=\frac{VV^{\mathsf{T}}}"
    r"{\lVert V\rVert_F},\ V=\Delta S",
    paper="Hsu et al. 2024, Safe LoRA, with ΔS in place of aligned − unaligned weights",
    url="https://arxiv.org/abs/2405.16833",
)
def safe_lora(view: View, *, threshold: Threshold = 0.35) -> torch.Tensor:
    """Project ΔU onto the safety direction in the modules where the two disagree."""
    aligned, cosine = alignment(view.utility, view.safety)
    return aligned if cosine < threshold else view.utility


@method(
    "safemerge",
    title="SafeMERGE",
    kind="core",
    axis="share",
    formula=r"\Delta W=(1-\alpha)\Delta U+\alpha\Delta S\ \text{where}\ \cos(\Delta U,C\Delta U)<\tau,\quad "
    r"C=\frac{VV^{\mathsf{T}}}{\lVert V\rVert_F},\ V=\Delta S",
    paper="Djuhera et al. 2025, SafeMERGE, with ΔS in place of aligned − unaligned weights",
    url="https://arxiv.org/abs/2503.17239",
)
def safemerge(view: View, *, alpha: Share = 0.5, threshold: Threshold = 0.35) -> torch.Tensor:
    """Average with the safety adapter only in the modules where ΔU departs from the safety direction."""
    _, cosine = alignment(view.utility, view.safety)
    return (1.0 - alpha) * view.utility + alpha * view.safety if cosine < threshold else view.utility


def alignment(update: torch.Tensor, aligned: torch.Tensor) -> tuple[torch.Tensor, float]:
    """CΔ (p, q) with C = VVᵀ/‖V‖_F for V = `aligned`, and cos(Δ, CΔ) of Δ = `update` (Safe LoRA, eq. 1–2).

    In core coordinates both are exact: Q_o and Q_i are orthonormal. Vanishing tensors count as agreeing (cosine 1).
    """
    norm = float(aligned.norm())
    if norm == 0.0:
        return update, 1.0
    projected = aligned @ (aligned.T @ update) / norm
    norms = float(update.norm()) * float(projected.norm())
    return projected, float((update * projected).sum()) / norms if norms > 0 else 1.0
