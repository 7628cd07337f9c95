"""Element-wise methods: sparsify → elect a sign → combine, on one module's tensors at a time.

TIES and DARE are the same composition with different parts, as in mergekit's generalised task arithmetic.
Every function takes and returns float32 tensors of one shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.methods.combine import Share
from sstmerge_core.methods.registry import Choice, Real, Whole, method

if TYPE_CHECKING:
    import torch


@method(
    "ties",
    title="TIES",
    kind="elementwise",
    axis="share",
    formula=r"\tau_i=\mathrm{trim}(\Delta_i),\quad \Delta W=\mathrm{mean}\{w_i\tau_i:\ \mathrm{sgn}\,\tau_i="
    r"\mathrm{sgn}\textstyle\sum_j\tau_j\}",
    paper="Yadav et al. 2023, TIES-Merging",
    url="https://arxiv.org/abs/2306.01708",
)
def ties(
    deltas: Sequence[torch.Tensor],
    generators: Sequence[torch.Generator],
    *,
    alpha: Share = 0.5,
    density: Annotated[float, Real(0.0, 1.0, 0.05, "Share of each ΔW kept, by magnitude.", open_low=True)] = 0.2,
    flavour: Annotated[
        str, Choice(("peft", "mergekit"), "Election: on the unweighted sum (peft) or the weighted one (mergekit).")
    ] = "peft",
) -> torch.Tensor:
    """Trim each ΔW by magnitude, elect a sign per element, average what agrees with it."""
    weights = (1.0 - alpha, alpha)
    trimmed = [keep_largest(delta, density) for delta in deltas]
    if flavour == "peft":
        # peft.utils.merge_utils.ties: elect on the unweighted sum (zero counts as +), divide by how many agree
        sign = elect_sign(trimmed)
        return combine_agreeing(trimmed, weights, sign, divide_by="count")
    weighted = [weight * delta for weight, delta in zip(weights, trimmed, strict=True)]
    return combine_agreeing(trimmed, weights, elect_sign(weighted), divide_by="weight")


@method(
    "dare_linear",
    title="DARE",
    kind="elementwise",
    axis="share",
    formula=r"\Delta W=(1-\alpha)\,\frac{m_U\odot\Delta U}{1-p}+\alpha\,\frac{m_S\odot\Delta S}{1-p},"
    r"\quad m\sim\mathrm{Bernoulli}(1-p)",
    paper="Yu et al. 2024, Language models are super Mario",
    url="https://arxiv.org/abs/2311.03099",
)
def dare_linear(
    deltas: Sequence[torch.Tensor],
    generators: Sequence[torch.Generator],
    *,
    alpha: Share = 0.5,
    p: Annotated[float, Real(0.0, 0.99, 0.05, "Drop rate: each element is dropped with probability p.")] = 0.5,
    seed: Annotated[int, Whole(0, help="Seed of the random mask.")] = 42,
) -> torch.Tensor:
    """Drop elements at random, rescale the rest by 1/(1−p), average."""
    kept = [drop_and_rescale(delta, p, generator) for delta, generator in zip(deltas, generators, strict=True)]
    return (1.0 - alpha) * kept[0] + alpha * kept[1]


def keep_largest(delta: torch.Tensor, density: float) -> torch.Tensor:
    """`delta` with all but the `int(density·numel)` entries of largest magnitude set to zero (TIES, “trim”).

    Raises RecipeError where that keeps nothing.
    """
    import torch

    count = int(density * delta.numel())
    if count == 0:
        raise RecipeError(
            Problem("parameter density", f"{density:g} keeps none of {delta.numel()} elements", "Use a higher density.")
        )
    if count == delta.numel():
        return delta
    kept = torch.zeros_like(delta).view(-1)
    index = delta.reshape(-1).abs().topk(count, sorted=False).indices
    kept[index] = delta.reshape(-1)[index]
    return kept.view_as(delta)


def drop_and_rescale(delta: torch.Tensor, p: float, generator: torch.Generator) -> torch.Tensor:
    """Bernoulli(1−p) mask on `delta`, divided by 1−p (DARE, eq. 1–2). The generator is drawn from on the CPU."""
    import torch

    if p == 0.0:
        return delta
    mask = torch.empty(delta.shape, dtype=torch.float32).bernoulli_(1.0 - p, generator=generator)
    return delta * mask.to(delta.device) / (1.0 - p)


def elect_sign(deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """+1 or −1 per element: the sign of the sum, zero counting as + (TIES, “elect”)."""
    total = sum(deltas[1:], start=deltas[0])
    return (total >= 0).to(total.dtype) * 2 - 1


def combine_agreeing(
    deltas: Sequence[torch.Tensor], weights: Sequence[float], sign: torch.Tensor, divide_by: str
) -> torch.Tensor:
    """Weighted mean over the tensors whose element has the elected `sign` (TIES, “disjoint merge”).

    `divide_by` is ``count`` (number of agreeing tensors, PEFT) or ``weight`` (sum of their weights, mergekit).
    """
    import torch

    numerator = torch.zeros_like(sign)
    denominator = torch.zeros_like(sign)
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = (delta.sign() == sign).to(sign.dtype)
        numerator += weight * delta * agrees
        denominator += agrees if divide_by == "count" else weight * agrees
    if divide_by == "count":
        return numerator / denominator.clamp(min=1.0)
    return torch.where(denominator.abs() < 1e-8, torch.zeros_like(numerator), numerator / denominator)
