"""Spherical interpolation: between two updates, and between the base's and the tuned weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sstmerge_core.methods.linear import Share, Tuned
from sstmerge_core.methods.palette import BLUE, SKY
from sstmerge_core.methods.registry import Look, method
from sstmerge_core.methods.weighting import about_side, side

if TYPE_CHECKING:
    import torch

PARALLEL = 0.9995
"""|cos| above which spherical interpolation is ill-conditioned and linear interpolation is taken (as in mergekit)"""


def _by_angle(parameters: Mapping[str, Any], experts: int) -> str:
    return "weights found per module from the angle between ΔU and ΔS" + about_side(parameters, experts)


def _on_the_arc(parameters: Mapping[str, Any], experts: int) -> str:
    way = f"{parameters['alpha']:g} of the way from the base's weights to the tuned ones, on the arc between them"
    return way + about_side(parameters, experts)


@method(
    "slerp",
    title="SLERP",
    family="Averaging",
    kind="angular",
    axis="share",
    formula=r"\Delta W=\frac{\sin((1-\alpha)\theta)}{\sin\theta}\,\Delta U+\frac{\sin(\alpha\theta)}{\sin\theta}\,"
    r"\Delta S,\quad \cos\theta=\frac{\langle\Delta U,\Delta S\rangle}{\lVert\Delta U\rVert\lVert\Delta S\rVert}",
    paper="Shoemake 1985, Animating rotation with quaternion curves",
    url="https://doi.org/10.1145/325165.325242",
    acts=_by_angle,
    oracle="mergekit `slerp` on ΔW",
    look=Look(BLUE, "triangle-right", "dash"),
    symmetric=True,
    idempotent={},
)
def slerp(inner: torch.Tensor, *, alpha: Share = 0.5) -> tuple[float, ...]:
    """Spherical interpolation per module; almost parallel or vanishing updates are interpolated linearly."""
    utility = inner.new_tensor([*side(len(inner) - 1), 0.0])
    safety = inner.new_tensor([*[0.0] * (len(inner) - 1), 1.0])
    norms = math.sqrt(max(0.0, float(utility @ inner @ utility) * float(safety @ inner @ safety)))
    on_utility, on_safety = spherical(float(utility @ inner @ safety), norms, alpha)
    return tuple((on_utility * utility + on_safety * safety).tolist())


@method(
    "base_slerp",
    title="Base SLERP",
    family="Averaging",
    kind="weights",
    axis="tuned",
    formula=r"W=\mathrm{slerp}(W_0,\,W_0+\Delta U;\,\alpha)",
    paper="Pre- and post-tuning merge (2024)",
    url="https://arxiv.org/abs/2412.19512",
    needs_base=True,
    acts=_on_the_arc,
    oracle="mergekit `slerp` on base and tuned weights",
    look=Look(SKY, "star-square", "longdash"),
    idempotent={"alpha": 1.0},
)
def base_slerp(weight: torch.Tensor, update: torch.Tensor, *, alpha: Tuned = 0.5) -> tuple[float, float, bool]:
    """Spherical interpolation between the base's and the tuned weights; the safety adapter is not used.

    Receives W₀ and ΔU of one module. Returns c₀ and c₁ with ΔW = c₀W₀ + c₁ΔU, and whether the linear rule held.
    """
    tuned = weight + update
    norms = float(weight.norm()) * float(tuned.norm())
    inner = float((weight * tuned).sum())
    on_base, on_tuned = spherical(inner, norms, alpha)
    return on_base + on_tuned - 1.0, on_tuned, norms < 1e-16 or abs(inner / norms) > PARALLEL


def spherical(inner: float, norms: float, t: float) -> tuple[float, float]:
    """Coefficients of spherical interpolation between two tensors of inner product `inner` and norms' product `norms`.

    Linear, (1−t, t), where they are almost parallel (|cos| > `PARALLEL`) or one vanishes.
    """
    cosine = max(-1.0, min(1.0, inner / norms)) if norms > 1e-16 else 1.0
    if abs(cosine) > PARALLEL:
        return 1.0 - t, t
    theta = math.acos(cosine)
    return math.sin((1.0 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)
