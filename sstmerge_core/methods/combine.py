"""Methods that are a weighted sum of the adapters' ΔW: exact, low-rank, no tensor arithmetic of their own.

Those of kind ``combination`` receive the number of adapters and give one weight per adapter (utility experts first,
safety last). Those of kind ``angular`` receive the inner products ⟨ΔW_i, ΔW_j⟩ of one module, (N, N) float64, and give
one weight per adapter for that module. The driver concatenates the scaled factors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from sstmerge_core.methods.registry import Real, method
from sstmerge_core.methods.shared import EXPERTS, SHARE, STRENGTH

if TYPE_CHECKING:
    import torch

Share = Annotated[float, SHARE.schema]
Strength = Annotated[float, STRENGTH.schema]
Tuned = Annotated[float, Real(0.0, 1.0, 0.05, "Share of the tuned model: 0 is the base model, 1 base + ΔU.")]
Experts = Annotated[str, EXPERTS.schema]

PARALLEL = 0.9995
"""|cos| above which spherical interpolation is ill-conditioned and linear interpolation is taken (as in mergekit)"""


@method("base", title="Base model", kind="reference", axis=None, formula=r"\Delta W = 0")
def base(n: int) -> tuple[float, ...]:
    """The base model without any adapter."""
    return ()


@method("adapter", title="Single adapter", kind="reference", axis=None, formula=r"\Delta W = \Delta W_1")
def adapter(n: int) -> tuple[float, ...]:
    """One adapter alone, unchanged."""
    return (1.0,)


@method(
    "linear",
    title="Linear",
    kind="combination",
    axis="share",
    formula=r"\Delta W = (1-\alpha)\,\Delta U + \alpha\,\Delta S",
    paper="Wortsman et al. 2022, Model soups",
    url="https://arxiv.org/abs/2203.05482",
)
def linear(n: int, *, alpha: Share = 0.5) -> tuple[float, ...]:
    """Weighted average of the utility side and the safety adapter (the reports' “Task Arithmetic”)."""
    return share(n, alpha)


@method(
    "task_arithmetic",
    title="Task Arithmetic",
    kind="combination",
    axis="strength",
    formula=r"\Delta W = \Delta U + \alpha\,\Delta S",
    paper="Ilharco et al. 2023, Editing models with task arithmetic",
    url="https://arxiv.org/abs/2212.04089",
)
def task_arithmetic(n: int, *, alpha: Strength = 1.0, experts: Experts = "mean") -> tuple[float, ...]:
    """The whole utility side plus a multiple of the safety adapter."""
    return (*side(n - 1, experts), alpha)


@method(
    "average",
    title="Average",
    kind="combination",
    axis=None,
    formula=r"\Delta W = \tfrac1N\textstyle\sum_i\Delta W_i",
    paper="Wortsman et al. 2022, Model soups",
    url="https://arxiv.org/abs/2203.05482",
)
def average(n: int) -> tuple[float, ...]:
    """Plain mean of all adapters, the safety adapter one among them."""
    return (1.0 / n,) * n


@method(
    "base_interpolation",
    title="Base interpolation",
    kind="combination",
    axis="tuned",
    formula=r"\Delta W = \alpha\,\Delta U",
    paper="Pre- and post-tuning merge (2024)",
    url="https://arxiv.org/abs/2412.19512",
)
def base_interpolation(n: int, *, alpha: Tuned = 0.5) -> tuple[float, ...]:
    """Between the base model and the tuned one: the base's own safety comes back; the safety adapter is not used."""
    return (*(alpha * weight for weight in side(n - 1)), 0.0)


@method(
    "slerp",
    title="SLERP",
    kind="angular",
    axis="share",
    formula=r"\Delta W=\frac{\sin((1-\alpha)\theta)}{\sin\theta}\,\Delta U+\frac{\sin(\alpha\theta)}{\sin\theta}\,"
    r"\Delta S,\quad \cos\theta=\frac{\langle\Delta U,\Delta S\rangle}{\lVert\Delta U\rVert\lVert\Delta S\rVert}",
    paper="Shoemake 1985, Animating rotation with quaternion curves",
    url="https://doi.org/10.1145/325165.325242",
)
def slerp(inner: torch.Tensor, *, alpha: Share = 0.5) -> tuple[float, ...]:
    """Spherical interpolation per module; almost parallel or vanishing updates are interpolated linearly."""
    utility = inner.new_tensor([*side(len(inner) - 1), 0.0])
    safety = inner.new_tensor([*[0.0] * (len(inner) - 1), 1.0])
    norms = math.sqrt(max(0.0, float(utility @ inner @ utility) * float(safety @ inner @ safety)))
    on_utility, on_safety = spherical(float(utility @ inner @ safety), norms, alpha)
    return tuple((on_utility * utility + on_safety * safety).tolist())


@method(
    "model_stock",
    title="Model Stock",
    kind="angular",
    axis=None,
    formula=r"\Delta W=\frac{t}{N}\sum_i\Delta W_i,\quad t=\frac{N\cos\theta}{1+(N-1)\cos\theta}\in[0,1]",
    paper="Jang et al. 2024, Model Stock",
    url="https://arxiv.org/abs/2403.19522",
)
def model_stock(inner: torch.Tensor) -> tuple[float, ...]:
    """Mean of all adapters, drawn towards the base the less they agree. Meant for several seeds of one task."""
    n = len(inner)
    norms = inner.diagonal().sqrt()
    cosines = inner / (norms[:, None] * norms).clamp(min=1e-12)
    cosine = float(cosines.sum() - cosines.diagonal().sum()) / (n * (n - 1))
    below = 1 + (n - 1) * cosine
    t = min(1.0, max(0.0, n * cosine / below)) if below > 1e-6 else 0.0
    return (t / n,) * n


def share(n: int, alpha: float) -> tuple[float, ...]:
    """(1−α) shared equally by the n−1 utility experts, α on the safety adapter."""
    return (*((1.0 - alpha) * weight for weight in side(n - 1)), alpha)


def side(experts: int, how: str = "mean") -> tuple[float, ...]:
    """Weights that make ΔU of the utility experts: their mean, or their sum."""
    return (1.0 / experts if how == "mean" else 1.0,) * experts


def spherical(inner: float, norms: float, t: float) -> tuple[float, float]:
    """Coefficients of spherical interpolation between two tensors of inner product `inner` and norms' product `norms`.

    Linear, (1−t, t), where they are almost parallel (|cos| > `PARALLEL`) or one vanishes.
    """
    cosine = max(-1.0, min(1.0, inner / norms)) if norms > 1e-16 else 1.0
    if abs(cosine) > PARALLEL:
        return 1.0 - t, t
    theta = math.acos(cosine)
    return math.sin((1.0 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)


@method(
    "base_slerp",
    title="Base SLERP",
    kind="weights",
    axis="tuned",
    formula=r"W=\mathrm{slerp}(W_0,\,W_0+\Delta U;\,\alpha)",
    paper="Pre- and post-tuning merge (2024)",
    url="https://arxiv.org/abs/2412.19512",
    needs_base=True,
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
